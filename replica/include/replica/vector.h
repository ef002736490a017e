/* Version vectors: actor → highest seq held. Sorted by actor, at most REPLICA_VECTOR_MAX entries, no allocation, so a
 * vector is copied by assignment. An actor that is not in it has seq 0. */
#ifndef REPLICA_VECTOR_H
#define REPLICA_VECTOR_H

#include "replica/pack.h"

/* Voters of a volume: up to 9, doubled in a joint configuration, with room for sealed predecessors. */
#define REPLICA_VECTOR_MAX 32

struct replica_vector {
    size_t n;
    struct {
        struct replica_actor actor;
        uint64_t seq; /* ≥ 1 */
    } entries[REPLICA_VECTOR_MAX];
};

uint64_t replica_vector_get(const struct replica_vector *vector, const struct replica_actor *actor);
/* Sets seq (0 removes). Errors: TOOBIG if it would need more than REPLICA_VECTOR_MAX entries; nothing changed. */
int replica_vector_set(struct replica_vector *vector, const struct replica_actor *actor, uint64_t seq);
/* Raises to at least seq. Errors as set. */
int replica_vector_raise(struct replica_vector *vector, const struct replica_actor *actor, uint64_t seq);
/* Entry by entry maximum, into. Errors as set; then nothing changed. */
int replica_vector_join(struct replica_vector *into, const struct replica_vector *from);
/* Whether a holds everything that b holds. */
bool replica_vector_covers(const struct replica_vector *a, const struct replica_vector *b);
bool replica_vector_covers_dot(const struct replica_vector *a, const struct replica_dot *dot);
bool replica_vector_equal(const struct replica_vector *a, const struct replica_vector *b);

/* One item: an array of (bin 24, uint) pairs flattened. Reading refuses unsorted, repeated or zero entries. */
void replica_vector_pack(struct replica_buffer *out, const struct replica_vector *vector);
int replica_vector_read(struct replica_pack_reader *reader, struct replica_vector *ret_vector);

#endif
