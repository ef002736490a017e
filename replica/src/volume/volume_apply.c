/* From log to map: the order of application, applying in pieces, checkpoints. */
#include "replica/error.h"
#include "volume/volume.h"

#include <string.h>

/* Ops applied in one call: with a few reads each, a step stays near its bound. */
#define APPLY_OPS_MAX 250

static int next_to_order(struct replica_volume *volume, const struct replica_actor *actor,
                         struct replica_kv_batch *log, struct replica_dot *ret_dot)
{
    struct replica_volume_state *state = &volume->state;
    struct replica_buffer record;
    struct replica_delta delta;
    struct replica_dot dot = {.actor = *actor, .seq = replica_vector_get(&state->ordered, actor) + 1};
    int rv;
    if (!replica_vector_covers_dot(&state->stored, &dot) ||
        !replica_vector_covers_dot(&state->committed, &dot))
        return REPLICA_E_NOTFOUND;
    replica_buffer_init(&record);
    rv = replica_volume_read(volume, log, &dot, &record);
    if (rv == 0)
        rv = replica_delta_decode(record.data, record.size, &delta);
    if (rv != 0)
        rv = REPLICA_E_CORRUPT;
    else if (!replica_vector_covers(&state->ordered, &delta.deps))
        rv = REPLICA_E_NOTFOUND;
    else
        *ret_dot = dot;
    replica_buffer_close(&record);
    return rv;
}

static int order_one(struct replica_volume *volume, const struct replica_dot *dot,
                     struct replica_kv_batch *log)
{
    struct replica_volume_state *state = &volume->state;
    struct replica_log_key key = replica_log_key_order(&state->id, state->ordered_seq + 1);
    uint8_t value[REPLICA_LOG_DOT_SIZE];
    int rv = replica_vector_set(&state->ordered, &dot->actor, dot->seq);
    if (rv != 0)
        return rv;
    state->ordered_seq++;
    replica_log_dot_encode(dot, value);
    replica_kv_batch_put(log, key.bytes, key.size, value, sizeof value);
    return 0;
}

int replica_volume_order(struct replica_volume *volume, size_t max, struct replica_kv_batch *log,
                         size_t *ret_n)
{
    bool progress = true;
    size_t n = 0;
    while (progress && n < max) {
        progress = false;
        for (size_t i = 0; i < volume->state.stored.n && n < max; i++) {
            struct replica_dot dot;
            int rv = next_to_order(volume, &volume->state.stored.entries[i].actor, log, &dot);
            if (rv == REPLICA_E_NOTFOUND)
                continue;
            if (rv == 0)
                rv = order_one(volume, &dot, log);
            if (rv != 0)
                return rv;
            progress = true;
            n++;
        }
    }
    if (n > 0)
        replica_volume_write_head(volume, log);
    *ret_n = n;
    return 0;
}

void replica_volume_order_synced(struct replica_volume *volume, uint64_t ordered_seq)
{
    if (ordered_seq > volume->order_synced)
        volume->order_synced = ordered_seq;
}

int replica_delta_ops(const struct replica_delta *delta, struct replica_contents *contents,
                      struct replica_buffer *into, const uint8_t **ret_ops, size_t *ret_n)
{
    size_t n = 0;
    uint8_t *room;
    int rv;
    if (delta->ops != NULL) {
        *ret_ops = delta->ops;
        *ret_n = delta->ops_size;
        return 0;
    }
    if (delta->ops_content.length > REPLICA_OPS_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    if (replica_contents_state(contents, &delta->ops_content) < REPLICA_CONTENTS_FILLED)
        return REPLICA_E_ABSENT;
    replica_buffer_clear(into);
    room = replica_buffer_reserve(into, (size_t)delta->ops_content.length + 1);
    if (room == NULL)
        return REPLICA_E_NOMEM;
    rv = replica_contents_read(contents, &delta->ops_content, 0, room, (size_t)delta->ops_content.length, &n);
    if (rv == REPLICA_E_CORRUPT &&
        replica_contents_state(contents, &delta->ops_content) < REPLICA_CONTENTS_FILLED)
        return REPLICA_E_ABSENT; /* it was damaged, and others have it */
    if (rv != 0)
        return rv;
    into->size += n;
    if (n != delta->ops_content.length)
        return REPLICA_E_CORRUPT;
    *ret_ops = into->data;
    *ret_n = into->size;
    return 0;
}

static int job_start(struct replica_volume *volume, struct replica_content_id *ret_wanted)
{
    struct replica_volume_job *job = &volume->job;
    struct replica_dot dot;
    int rv = replica_volume_at(volume, volume->state.applied_seq + 1, &dot);
    if (rv == 0)
        rv = replica_volume_read(volume, NULL, &dot, &job->record);
    if (rv == 0)
        rv = replica_delta_decode(job->record.data, job->record.size, &job->delta);
    if (rv != 0)
        return rv == REPLICA_E_IO || rv == REPLICA_E_NOMEM ? rv : REPLICA_E_CORRUPT;
    job->known = replica_volume_find(volume, NULL, &job->delta.commit, &volume->state.applied, &dot) == 0;
    rv = replica_delta_ops(&job->delta, volume->contents, &job->ops, &job->list, &job->list_size);
    if (rv == REPLICA_E_ABSENT && job->known) { /* not fetched for this: nothing of it was ever pinned here */
        job->list = job->record.data;
        job->list_size = 0;
        rv = 0;
    }
    if (rv == REPLICA_E_ABSENT)
        *ret_wanted = job->delta.ops_content;
    if (rv != 0)
        return rv;
    job->offset = 0;
    job->totals = volume->state.totals;
    job->run.any = false;
    job->active = true;
    return 0;
}

static int job_finish(struct replica_volume *volume, struct replica_kv_batch *log,
                      struct replica_kv_batch *map)
{
    struct replica_volume_job *job = &volume->job;
    struct replica_volume_state *state = &volume->state;
    int rv = replica_vector_set(&state->applied, &job->delta.dot.actor, job->delta.dot.seq);
    if (rv != 0)
        return rv;
    state->applied_seq++;
    replica_volume_mark_map(volume, state->applied_seq, map);
    state->totals = job->totals;
    state->last_commit_ms = job->delta.time_ms;
    replica_volume_withdraw(volume, &job->delta.commit, log);
    job->active = false;
    replica_buffer_close(&job->ops);
    return 0;
}

/* One piece of the job; REPLICA_E_AGAIN while ops remain. */
static int job_piece(struct replica_volume *volume, size_t *reads, struct replica_kv_batch *log,
                     struct replica_kv_batch *map)
{
    struct replica_volume_job *job = &volume->job;
    struct replica_apply apply = {
        .apply_seq = volume->state.applied_seq + 1,
        .stamp = replica_delta_stamp(&job->delta),
        .node = job->delta.node,
        .time_ms = job->delta.time_ms,
    };
    struct replica_pack_reader reader;
    int rv;
    replica_pack_reader_init(&reader, job->list, job->list_size);
    reader.offset = job->offset;
    for (size_t i = 0; i < APPLY_OPS_MAX && reader.offset < reader.size; i++) {
        struct replica_op op;
        if (replica_op_read(&reader, &op) != 0)
            return REPLICA_E_CORRUPT;
        rv = job->known ? 0
                        : replica_map_apply(&volume->map, &apply, &op, map, &job->totals, &job->run, reads);
        if (rv != 0)
            return rv;
        if (!op.tombstone && op.entry.blob.kind == REPLICA_BLOB_CONTENT)
            replica_volume_unpin(volume, &job->delta.commit, &op.entry.blob.content, log);
    }
    job->offset = reader.offset;
    if (reader.offset < reader.size)
        return REPLICA_E_AGAIN;
    rv = replica_map_run_end(&volume->map, &apply, &job->run, map, reads);
    if (rv != 0)
        return rv;
    /* The op list stays pinned: whoever pulls this delta from the log needs it. */
    return job_finish(volume, log, map);
}

int replica_volume_apply(struct replica_volume *volume, size_t *reads, struct replica_kv_batch *log,
                         struct replica_kv_batch *map, struct replica_content_id *ret_wanted)
{
    struct replica_volume_state *state = &volume->state;
    int rv;
    memset(ret_wanted, 0, sizeof *ret_wanted);
    if (!volume->job.active) {
        if (state->applied_seq >= state->ordered_seq || state->applied_seq >= volume->order_synced)
            return 0;
        rv = job_start(volume, ret_wanted);
        *reads += 2;
        if (rv == REPLICA_E_ABSENT)
            return 0;
        if (rv != 0)
            return rv;
    }
    rv = job_piece(volume, reads, log, map);
    if (rv != 0)
        return rv;
    return state->applied_seq < state->ordered_seq && state->applied_seq < volume->order_synced
               ? REPLICA_E_AGAIN
               : 0;
}

void replica_volume_checkpoint_take(struct replica_volume *volume)
{
    volume->mark.taken = true;
    volume->mark.seq = volume->state.applied_seq;
    volume->mark.applied = volume->state.applied;
    volume->mark.totals = volume->state.totals;
    volume->mark.last_commit_ms = volume->state.last_commit_ms;
}

int replica_volume_checkpoint_write(struct replica_volume *volume, struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_checkpoint(&volume->state.id);
    struct replica_buffer value;
    if (!volume->mark.taken)
        return 0;
    volume->mark.taken = false;
    replica_buffer_init(&value);
    replica_pack_array(&value, 4);
    replica_pack_uint(&value, volume->mark.seq);
    replica_vector_pack(&value, &volume->mark.applied);
    replica_totals_pack(&value, &volume->mark.totals);
    replica_pack_uint(&value, volume->mark.last_commit_ms);
    replica_kv_batch_put(log, key.bytes, key.size, value.data, value.size);
    volume->checkpoint_seq = volume->mark.seq;
    replica_buffer_close(&value);
    return log->failed ? REPLICA_E_NOMEM : 0;
}

uint64_t replica_volume_checkpoint_age(const struct replica_volume *volume)
{
    return volume->state.applied_seq - volume->checkpoint_seq;
}
