/* Deltas: one commit each, and the ops that it is made of.
 *
 * An op list is the concatenation of packed ops, sorted by (target, path) with no target twice. It lies in the delta
 * record itself when it fits, else it is a content of its own. Small contents may travel in the record too. */
#ifndef REPLICA_DELTA_H
#define REPLICA_DELTA_H

#include "replica/entry.h"
#include "replica/path.h"
#include "replica/vector.h"

#define REPLICA_DELTA_SIZE_MAX   (256 * 1024) /* one bounded message: what a probe may have to wait behind */
#define REPLICA_DELTA_INLINE_MAX (192 * 1024) /* op list and carried contents; leaves room for the header */
#define REPLICA_CARRIED_MAX      64           /* contents carried in one record */
/* An op list: about 300,000 ops; held in memory while applied. */
#define REPLICA_OPS_SIZE_MAX ((size_t)64 << 20)

enum replica_target { REPLICA_TARGET_PATH = 0, REPLICA_TARGET_OBJECT = 1 };

/* One change: target becomes entry, or (tombstone) ceases to be. */
struct replica_op {
    enum replica_target target;
    struct replica_path path;  /* PATH: canonical, borrowed */
    struct replica_id object;  /* OBJECT: the link object */
    struct replica_stamp base; /* the version that the writer saw there; zero: nothing */
    bool tombstone;
    struct replica_entry
        entry; /* pointers borrowed; of a tombstone: the last entry if it was a directory, else kind 0 */
};

void replica_op_pack(struct replica_buffer *out, const struct replica_op *op);
/* Errors: MALFORMED (also for a path that is not canonical). */
int replica_op_read(struct replica_pack_reader *reader, struct replica_op *ret_op);
/* The order of an op list: objects first, then paths by (parent, name). */
int replica_op_compare(const struct replica_op *a, const struct replica_op *b);

/* Bytes that travel in the record so that nobody has to fetch them. */
struct replica_carried {
    struct replica_content_id id;
    const uint8_t *data; /* borrowed; id.length bytes */
};

/* What the writer proposes; a delta is a proposal with a stamp and a dot. Pointers are borrowed from the record or
 * from the proposal's maker. */
struct replica_delta {
    struct replica_id volume;
    struct replica_id commit;   /* the commit id */
    struct replica_vector deps; /* what must be applied before */
    struct replica_id node;     /* the writer's store */
    uint64_t time_ms;           /* the writer's clock when the drafts were frozen; for people */
    uint64_t op_count;
    uint64_t byte_count; /* sum of the sizes of the files it writes; for people */
    const uint8_t *ops;  /* the op list, if it lies in the record; else NULL */
    size_t ops_size;
    struct replica_content_id ops_content; /* else the content that holds it */
    size_t carried_n;
    struct replica_carried carried[REPLICA_CARRIED_MAX];
    /* of a delta, zero in a proposal */
    uint64_t stamp_hlc; /* the stamp is (stamp_hlc, commit) */
    struct replica_dot dot;
};

/* Appends the record. The caller keeps it within REPLICA_DELTA_SIZE_MAX. */
void replica_delta_pack(struct replica_buffer *out, const struct replica_delta *delta);

/* Decodes a record of n bytes, which delta then borrows. Does not walk the ops. Carried bytes are not hashed here:
 * replica_contents_ingest does that. Errors: MALFORMED, TOOBIG. */
int replica_delta_decode(const void *data, size_t n, struct replica_delta *ret_delta);

struct replica_stamp replica_delta_stamp(const struct replica_delta *delta);

/* Walks an op list, checking each op and the order (no target twice). visit's non-zero result stops the walk and is returned.
 * Errors: MALFORMED. */
int replica_ops_each(const uint8_t *ops, size_t n, int (*visit)(void *context, const struct replica_op *op),
                     void *context);

#endif
