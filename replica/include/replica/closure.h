/* closure: whether all that a delta (or proposal) needs to be readable is here: op list and every content its ops name.
 *
 * A scan over the op list in bounded pieces that collects what is missing; afterwards each arriving content is crossed off. Pure. */
#ifndef REPLICA_CLOSURE_H
#define REPLICA_CLOSURE_H

#include "replica/volume.h"

struct replica_closure {
    struct replica_buffer record; /* the delta or proposal */
    struct replica_delta delta;   /* points into record */
    struct replica_buffer ops;    /* if they lie in a content */
    const uint8_t *list;          /* NULL: the op list is missing, or let go */
    size_t list_size, offset;
    struct replica_op last; /* the op before offset; points into the list */
    uint64_t ops_n;         /* ops before offset */
    bool scanned;
    struct replica_content_id *missing; /* hash set, open addressing; length UINT64_MAX: free */
    size_t missing_n, missing_capacity;
};

/* Copies the record. Errors: MALFORMED, NOMEM. */
int replica_closure_init(struct replica_closure *closure, const uint8_t *record, size_t n);
void replica_closure_close(struct replica_closure *closure);

/* Scans at most max ops; visit is called for every content named (the op list too), with whether it is missing here
 * and was not found missing before. Returns AGAIN if there
 * is more to scan at once, else 0. Errors: MALFORMED (the op list: an op, the order, the count), IO, NOMEM. */
typedef void (*replica_closure_visit_fn)(void *context, const struct replica_content_id *content,
                                         bool missing);
int replica_closure_scan(struct replica_closure *closure, struct replica_contents *contents, size_t max,
                         replica_closure_visit_fn visit, void *context);
/* Whether content is known to be missing. */
bool replica_closure_lacks(const struct replica_closure *closure, const struct replica_content_id *content);
/* content has been filled; true if it was missing (an op list: scan again). */
bool replica_closure_arrived(struct replica_closure *closure, const struct replica_content_id *content);
/* content, which may have been here when it was scanned, has gone: unless it is known to be missing, all is scanned again. */
void replica_closure_went(struct replica_closure *closure, const struct replica_content_id *content);
bool replica_closure_is_filled(const struct replica_closure *closure);
/* Nothing can be done before something arrives: the op list, or after the scan what it names. */
bool replica_closure_is_waiting(const struct replica_closure *closure);

/* The op list, borrowed until it is let go. A closure keeps it while it is scanned only, for one may have 64 MiB and many wait for their
 * contents at a time; asked for later, it is read again. Errors: ABSENT, IO, CORRUPT, NOMEM. */
int replica_closure_list(struct replica_closure *closure, struct replica_contents *contents,
                         const uint8_t **ret_list, size_t *ret_n);
void replica_closure_let_go(struct replica_closure *closure);

#endif
