/* The log's side of a volume: storing and minting deltas, commit ids, proposals and pins. */
#include "replica/error.h"
#include "volume/volume.h"

#include <assert.h>
#include <string.h>

/* Adds dot to those known for a commit id. A retry elsewhere mints the id again, so there may be several. */
static int remember_commit(struct replica_volume *volume, const struct replica_id *commit,
                           const struct replica_dot *dot, struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_commit(&volume->state.id, commit);
    uint8_t bytes[REPLICA_LOG_DOT_SIZE];
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get_through(volume->log, log, key.bytes, key.size, &value);
    if (rv != 0 && rv != REPLICA_E_NOTFOUND)
        goto out;
    rv = 0;
    if (value.size / REPLICA_LOG_DOT_SIZE >= REPLICA_DOTS_PER_ID)
        goto out;
    replica_log_dot_encode(dot, bytes);
    replica_buffer_append(&value, bytes, sizeof bytes);
    if (value.failed)
        rv = REPLICA_E_NOMEM;
    else
        replica_kv_batch_put(log, key.bytes, key.size, value.data, value.size);
out:
    replica_buffer_close(&value);
    return rv;
}

static int store_delta(struct replica_volume *volume, const struct replica_delta *delta,
                       const uint8_t *record, size_t n, struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_delta(&volume->state.id, &delta->dot);
    int rv = replica_vector_set(&volume->state.stored, &delta->dot.actor, delta->dot.seq);
    if (rv != 0)
        return rv;
    rv = remember_commit(volume, &delta->commit, &delta->dot, log);
    if (rv != 0)
        return rv;
    replica_kv_batch_put(log, key.bytes, key.size, record, n);
    if (delta->stamp_hlc > volume->state.hlc_high)
        volume->state.hlc_high = delta->stamp_hlc;
    replica_volume_write_head(volume, log);
    return 0;
}

int replica_volume_store(struct replica_volume *volume, const uint8_t *record, size_t n,
                         struct replica_kv_batch *log)
{
    struct replica_delta delta;
    uint64_t have;
    int rv = replica_delta_decode(record, n, &delta);
    if (rv != 0)
        return REPLICA_E_MALFORMED;
    if (!replica_id_equal(&delta.volume, &volume->state.id) || delta.dot.seq == 0 || delta.stamp_hlc == 0)
        return REPLICA_E_MALFORMED;
    have = replica_vector_get(&volume->state.stored, &delta.dot.actor);
    if (delta.dot.seq <= have)
        return REPLICA_E_EXISTS;
    if (delta.dot.seq != have + 1)
        return REPLICA_E_STALE;
    return store_delta(volume, &delta, record, n, log);
}

int replica_volume_mint(struct replica_volume *volume, const struct replica_actor *actor,
                        const uint8_t *proposal, size_t n, uint64_t stamp_hlc, struct replica_kv_batch *log,
                        struct replica_dot *ret_dot, struct replica_buffer *ret_record)
{
    struct replica_delta delta;
    int rv = replica_delta_decode(proposal, n, &delta);
    if (rv != 0)
        return REPLICA_E_CORRUPT;
    assert(stamp_hlc > 0);
    delta.stamp_hlc = stamp_hlc;
    delta.dot.actor = *actor;
    delta.dot.seq = replica_vector_get(&volume->state.stored, actor) + 1;
    replica_buffer_clear(ret_record);
    replica_delta_pack(ret_record, &delta);
    if (ret_record->failed)
        return REPLICA_E_NOMEM;
    if (ret_record->size > REPLICA_DELTA_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    rv = store_delta(volume, &delta, ret_record->data, ret_record->size, log);
    if (rv == 0)
        *ret_dot = delta.dot;
    return rv;
}

int replica_volume_read(const struct replica_volume *volume, const struct replica_kv_batch *pending,
                        const struct replica_dot *dot, struct replica_buffer *ret_record)
{
    struct replica_log_key key = replica_log_key_delta(&volume->state.id, dot);
    return replica_kv_get_through(volume->log, pending, key.bytes, key.size, ret_record);
}

int replica_volume_find(const struct replica_volume *volume, const struct replica_kv_batch *pending,
                        const struct replica_id *commit, const struct replica_vector *within,
                        struct replica_dot *ret_dot)
{
    struct replica_log_key key = replica_log_key_commit(&volume->state.id, commit);
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get_through(volume->log, pending, key.bytes, key.size, &value);
    if (rv == 0) {
        rv = REPLICA_E_NOTFOUND;
        for (size_t at = 0; at + REPLICA_LOG_DOT_SIZE <= value.size && rv != 0; at += REPLICA_LOG_DOT_SIZE) {
            struct replica_dot dot;
            replica_log_dot_decode(value.data + at, &dot);
            if (replica_vector_covers_dot(within, &dot)) {
                *ret_dot = dot;
                rv = 0;
            }
        }
    }
    replica_buffer_close(&value);
    return rv;
}

int replica_volume_hold(struct replica_volume *volume, const struct replica_dot *dot)
{
    assert(replica_vector_get(&volume->state.held, &dot->actor) + 1 == dot->seq);
    assert(replica_vector_covers_dot(&volume->state.stored, dot));
    return replica_vector_set(&volume->state.held, &dot->actor, dot->seq);
}

void replica_volume_set_durable(struct replica_volume *volume, const struct replica_vector *held)
{
    volume->durable = *held;
}

int replica_volume_commit(struct replica_volume *volume, const struct replica_vector *committed,
                          struct replica_kv_batch *log, bool *ret_rose)
{
    int rv;
    *ret_rose = !replica_vector_covers(&volume->state.committed, committed);
    if (!*ret_rose)
        return 0;
    rv = replica_vector_join(&volume->state.committed, committed);
    if (rv != 0) {
        *ret_rose = false;
        return rv;
    }
    replica_volume_write_head(volume, log);
    return 0;
}

int replica_volume_propose(struct replica_volume *volume, const uint8_t *record, size_t n,
                           struct replica_kv_batch *log)
{
    struct replica_delta delta;
    struct replica_buffer old;
    struct replica_log_key key;
    int rv = replica_delta_decode(record, n, &delta);
    if (rv != 0 || !replica_id_equal(&delta.volume, &volume->state.id) || delta.dot.seq != 0)
        return REPLICA_E_MALFORMED;
    key = replica_log_key_proposal(&volume->state.id, &delta.commit);
    replica_buffer_init(&old);
    rv = replica_kv_get_through(volume->log, log, key.bytes, key.size, &old);
    if (rv == REPLICA_E_NOTFOUND) {
        replica_kv_batch_put(log, key.bytes, key.size, record, n);
        rv = 0;
    } else if (rv == 0 && (old.size != n || memcmp(old.data, record, n) != 0)) {
        rv = REPLICA_E_MISMATCH;
    }
    replica_buffer_close(&old);
    return rv;
}

int replica_volume_proposal(const struct replica_volume *volume, const struct replica_kv_batch *pending,
                            const struct replica_id *commit, struct replica_buffer *ret_record)
{
    struct replica_log_key key = replica_log_key_proposal(&volume->state.id, commit);
    return replica_kv_get_through(volume->log, pending, key.bytes, key.size, ret_record);
}

int replica_volume_proposals(const struct replica_volume *volume,
                             int (*visit)(void *context, const uint8_t *record, size_t n), void *context)
{
    static const struct replica_id none;
    struct replica_log_key first = replica_log_key_proposal(&volume->state.id, &none);
    size_t prefix = first.size - REPLICA_ID_SIZE;
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(volume->log, &cursor), closed;
    if (rv != 0)
        return rv;
    for (replica_kv_cursor_seek(cursor, first.bytes, first.size); rv == 0 && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        size_t key_n, n;
        replica_kv_cursor_key(cursor, &key, &key_n);
        if (key_n < prefix || memcmp(key, first.bytes, prefix) != 0)
            break;
        replica_kv_cursor_value(cursor, &value, &n);
        rv = visit(context, value, n);
    }
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}

void replica_volume_withdraw(struct replica_volume *volume, const struct replica_id *commit,
                             struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_proposal(&volume->state.id, commit);
    replica_kv_batch_delete(log, key.bytes, key.size);
}

void replica_volume_unpin(struct replica_volume *volume, const struct replica_id *commit,
                          const struct replica_content_id *content, struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_pin(content, &volume->state.id, commit);
    replica_kv_batch_delete(log, key.bytes, key.size);
}

void replica_volume_pin(struct replica_volume *volume, const struct replica_id *commit,
                        const struct replica_content_id *content, struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_pin(content, &volume->state.id, commit);
    replica_kv_batch_put(log, key.bytes, key.size, "", 0);
}

int replica_volume_pins(struct replica_kv *log, const struct replica_id *volume,
                        const struct replica_content_id *content, bool *ret_pinned)
{
    uint8_t prefix[1 + REPLICA_CONTENT_ID_SIZE + REPLICA_ID_SIZE] = {'q'};
    size_t prefix_n = 1 + REPLICA_CONTENT_ID_SIZE;
    replica_content_id_encode(content, prefix + 1);
    if (volume != NULL) {
        memcpy(prefix + prefix_n, volume->bytes, REPLICA_ID_SIZE);
        prefix_n += REPLICA_ID_SIZE;
    }
    return replica_kv_has_prefix(log, prefix, prefix_n, ret_pinned);
}

int replica_volume_pinned_by(const struct replica_volume *volume, const struct replica_content_id *content,
                             int (*visit)(void *context, const struct replica_id *commit), void *context)
{
    static const struct replica_id none;
    struct replica_log_key first = replica_log_key_pin(content, &volume->state.id, &none);
    size_t prefix = first.size - REPLICA_ID_SIZE;
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(volume->log, &cursor), closed;
    if (rv != 0)
        return rv;
    for (replica_kv_cursor_seek(cursor, first.bytes, first.size); rv == 0 && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        struct replica_id commit;
        const uint8_t *key;
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n != first.size || memcmp(key, first.bytes, prefix) != 0)
            break;
        memcpy(commit.bytes, key + prefix, REPLICA_ID_SIZE);
        rv = visit(context, &commit);
    }
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}

int replica_volume_at(const struct replica_volume *volume, uint64_t apply_seq, struct replica_dot *ret_dot)
{
    struct replica_log_key key = replica_log_key_order(&volume->state.id, apply_seq);
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(volume->log, key.bytes, key.size, &value);
    if (rv == 0 && value.size != REPLICA_LOG_DOT_SIZE)
        rv = REPLICA_E_CORRUPT;
    if (rv == 0)
        replica_log_dot_decode(value.data, ret_dot);
    replica_buffer_close(&value);
    return rv;
}

typedef int (*commit_visit_fn)(void *context, uint64_t apply_seq, bool committed,
                               const struct replica_delta *delta);

static int visit_dot(struct replica_volume *volume, const struct replica_dot *dot, uint64_t apply_seq,
                     bool committed, commit_visit_fn visit, void *context)
{
    struct replica_buffer record;
    struct replica_delta delta;
    int rv;
    replica_buffer_init(&record);
    rv = replica_volume_read(volume, NULL, dot, &record);
    if (rv == REPLICA_E_NOTFOUND)
        rv = REPLICA_E_CORRUPT;
    if (rv == 0 && replica_delta_decode(record.data, record.size, &delta) != 0)
        rv = REPLICA_E_CORRUPT;
    if (rv == 0)
        rv = visit(context, apply_seq, committed, &delta);
    replica_buffer_close(&record);
    return rv;
}

int replica_volume_commits(struct replica_volume *volume, uint64_t before_seq, size_t max,
                           commit_visit_fn visit, void *context)
{
    const struct replica_volume_state *state = &volume->state;
    uint64_t seq =
        before_seq == 0 || before_seq > state->ordered_seq + 1 ? state->ordered_seq : before_seq - 1;
    int rv = 0;
    for (size_t i = 0; before_seq == 0 && i < state->stored.n && rv == 0; i++) {
        struct replica_dot dot = {.actor = state->stored.entries[i].actor};
        uint64_t first = replica_vector_get(&state->ordered, &dot.actor) + 1;
        for (dot.seq = state->stored.entries[i].seq; dot.seq >= first && max > 0 && rv == 0; dot.seq--, max--)
            rv = visit_dot(volume, &dot, 0, replica_vector_covers_dot(&state->committed, &dot), visit,
                           context);
    }
    for (; seq > 0 && max > 0 && rv == 0; seq--, max--) {
        struct replica_dot dot;
        rv = replica_volume_at(volume, seq, &dot);
        if (rv == REPLICA_E_NOTFOUND && state->base.n > 0)
            return 0; /* the image stands here */
        if (rv == 0)
            rv = visit_dot(volume, &dot, seq, true, visit, context);
    }
    return rv;
}
