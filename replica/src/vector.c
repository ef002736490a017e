#include "replica/vector.h"

#include "replica/error.h"

#include <string.h>

static size_t position(const struct replica_vector *vector, const struct replica_actor *actor,
                       bool *ret_found)
{
    size_t i = 0;
    int order = 1;
    while (i < vector->n && (order = replica_actor_compare(&vector->entries[i].actor, actor)) < 0)
        i++;
    *ret_found = i < vector->n && order == 0;
    return i;
}

uint64_t replica_vector_get(const struct replica_vector *vector, const struct replica_actor *actor)
{
    bool found;
    size_t at = position(vector, actor, &found);
    return found ? vector->entries[at].seq : 0;
}

int replica_vector_set(struct replica_vector *vector, const struct replica_actor *actor, uint64_t seq)
{
    bool found;
    size_t at = position(vector, actor, &found);
    size_t tail = (vector->n - at) * sizeof vector->entries[0];
    if (found && seq == 0) {
        memmove(&vector->entries[at], &vector->entries[at + 1], tail - sizeof vector->entries[0]);
        vector->n--;
    } else if (found) {
        vector->entries[at].seq = seq;
    } else if (seq > 0) {
        if (vector->n == REPLICA_VECTOR_MAX)
            return REPLICA_E_TOOBIG;
        memmove(&vector->entries[at + 1], &vector->entries[at], tail);
        vector->entries[at].actor = *actor;
        vector->entries[at].seq = seq;
        vector->n++;
    }
    return 0;
}

int replica_vector_raise(struct replica_vector *vector, const struct replica_actor *actor, uint64_t seq)
{
    return seq > replica_vector_get(vector, actor) ? replica_vector_set(vector, actor, seq) : 0;
}

int replica_vector_join(struct replica_vector *into, const struct replica_vector *from)
{
    struct replica_vector joined = *into;
    for (size_t i = 0; i < from->n; i++) {
        int rv = replica_vector_raise(&joined, &from->entries[i].actor, from->entries[i].seq);
        if (rv != 0)
            return rv;
    }
    *into = joined;
    return 0;
}

bool replica_vector_covers(const struct replica_vector *a, const struct replica_vector *b)
{
    for (size_t i = 0; i < b->n; i++)
        if (replica_vector_get(a, &b->entries[i].actor) < b->entries[i].seq)
            return false;
    return true;
}

bool replica_vector_covers_dot(const struct replica_vector *a, const struct replica_dot *dot)
{
    return replica_vector_get(a, &dot->actor) >= dot->seq;
}

bool replica_vector_equal(const struct replica_vector *a, const struct replica_vector *b)
{
    return a->n == b->n && replica_vector_covers(a, b) && replica_vector_covers(b, a);
}

void replica_vector_pack(struct replica_buffer *out, const struct replica_vector *vector)
{
    replica_pack_array(out, vector->n * 2);
    for (size_t i = 0; i < vector->n; i++) {
        struct replica_dot dot = {.actor = vector->entries[i].actor, .seq = vector->entries[i].seq};
        replica_pack_dot(out, &dot);
    }
}

int replica_vector_read(struct replica_pack_reader *reader, struct replica_vector *ret_vector)
{
    size_t n;
    ret_vector->n = 0;
    if (replica_pack_read_array(reader, REPLICA_VECTOR_MAX * 2, &n) != 0)
        return REPLICA_E_MALFORMED;
    if (n % 2 != 0)
        reader->failed = true;
    for (size_t i = 0; i < n / 2 && !reader->failed; i++) {
        struct replica_dot dot;
        if (replica_pack_read_dot(reader, &dot) != 0)
            break;
        if (dot.seq == 0 ||
            (i > 0 && replica_actor_compare(&ret_vector->entries[i - 1].actor, &dot.actor) >= 0)) {
            reader->failed = true;
            break;
        }
        ret_vector->entries[i].actor = dot.actor;
        ret_vector->entries[i].seq = dot.seq;
        ret_vector->n = i + 1;
    }
    if (reader->failed)
        ret_vector->n = 0;
    return reader->failed ? REPLICA_E_MALFORMED : 0;
}
