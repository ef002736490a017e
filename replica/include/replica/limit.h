/* limit: whether a proposal would take a volume over its limits: inodes, or names in one directory (semantics: ENOSPC).
 *
 * Checked by voters at prepare, against what they have applied; replicas never refuse a minted delta, so concurrent commits may overshoot by
 * what is in flight. A check costs one read per op, so it is made only where a cheap upper bound does not settle it. Pure. */
#ifndef REPLICA_LIMIT_H
#define REPLICA_LIMIT_H

#include "replica/volume.h"

struct replica_limits {
    uint64_t inodes_max;   /* 0: none */
    uint64_t children_max; /* live names in one directory; 0: none */
};

/* Whether op_count more entries could be too many at all. */
bool replica_limit_may_exceed(const struct replica_limits *limits, const struct replica_volume *volume,
                              uint64_t op_count);

/* Caller-owned; zero it at first. list: the op list (borrowed, the same at each call). Looks at no more than max ops per call: AGAIN until 0.
 * Errors: NOSPACE (over a limit); MALFORMED, CORRUPT, IO, NOMEM. */
struct replica_limit_check {
    size_t offset;
    int64_t inodes; /* that would be added */
    struct replica_map_run run;
};
int replica_limit_check(struct replica_limit_check *check, const struct replica_limits *limits,
                        const struct replica_volume *volume, const uint8_t *list, size_t n, size_t max,
                        size_t *reads);

#endif
