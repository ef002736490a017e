/* Loading and the head record. */
#include "volume/volume.h"
#include "map/map.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define HEAD_VERSION 1

void replica_volume_write_head(const struct replica_volume *volume, struct replica_kv_batch *log)
{
    const struct replica_volume_state *state = &volume->state;
    struct replica_log_key key = replica_log_key_head(&state->id);
    struct replica_buffer value;
    replica_buffer_init(&value);
    replica_pack_array(&value, 8);
    replica_pack_uint(&value, HEAD_VERSION);
    replica_vector_pack(&value, &state->stored);
    replica_vector_pack(&value, &volume->durable);
    replica_vector_pack(&value, &state->committed);
    replica_vector_pack(&value, &state->ordered);
    replica_pack_uint(&value, state->ordered_seq);
    replica_pack_uint(&value, state->hlc_high);
    replica_vector_pack(&value, &state->base);
    replica_kv_batch_put(log, key.bytes, key.size, value.data, value.size);
    if (value.failed)
        log->failed = true;
    replica_buffer_close(&value);
}

static int read_head(struct replica_volume *volume, const struct replica_buffer *value)
{
    struct replica_volume_state *state = &volume->state;
    struct replica_pack_reader reader;
    size_t n;
    uint64_t version;
    replica_pack_reader_init(&reader, value->data, value->size);
    replica_pack_read_array(&reader, 64, &n);
    replica_pack_read_uint(&reader, UINT32_MAX, &version);
    if (!reader.failed && version > HEAD_VERSION)
        return REPLICA_E_VERSION;
    replica_vector_read(&reader, &state->stored);
    replica_vector_read(&reader, &volume->durable);
    replica_vector_read(&reader, &state->committed);
    replica_vector_read(&reader, &state->ordered);
    replica_pack_read_uint(&reader, UINT64_MAX, &state->ordered_seq);
    replica_pack_read_uint(&reader, UINT64_MAX, &state->hlc_high);
    replica_vector_read(&reader, &state->base);
    if (replica_pack_reader_finish(&reader) != 0 || n != 8)
        return REPLICA_E_CORRUPT;
    state->held = volume->durable;
    return 0;
}

static int read_checkpoint(struct replica_volume *volume, const struct replica_buffer *value)
{
    struct replica_volume_state *state = &volume->state;
    struct replica_pack_reader reader;
    size_t n;
    replica_pack_reader_init(&reader, value->data, value->size);
    replica_pack_read_array(&reader, 64, &n);
    replica_pack_read_uint(&reader, UINT64_MAX, &state->applied_seq);
    replica_vector_read(&reader, &state->applied);
    replica_totals_read(&reader, &state->totals);
    replica_pack_read_uint(&reader, UINT64_MAX, &state->last_commit_ms);
    if (replica_pack_reader_finish(&reader) != 0 || n != 4)
        return REPLICA_E_CORRUPT;
    volume->checkpoint_seq = state->applied_seq;
    return 0;
}

static int read_image_mark(struct replica_volume *volume, const struct replica_buffer *value)
{
    (void)value;
    volume->image_unfinished = true;
    return 0;
}

static int load_record(struct replica_volume *volume, struct replica_log_key key,
                       int (*read)(struct replica_volume *volume, const struct replica_buffer *value))
{
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(volume->log, key.bytes, key.size, &value);
    if (rv == 0)
        rv = read(volume, &value);
    else if (rv == REPLICA_E_NOTFOUND)
        rv = 0;
    replica_buffer_close(&value);
    return rv;
}

static struct map_key mark_key(const struct replica_volume *volume)
{
    struct map_key key;
    map_key_start(&key, 'm', &volume->state.id);
    return key;
}

void replica_volume_mark_map(const struct replica_volume *volume, uint64_t applied_seq,
                             struct replica_kv_batch *map)
{
    struct map_key key = mark_key(volume);
    uint8_t value[8];
    replica_u64_encode(applied_seq, value);
    replica_kv_batch_put(map, key.bytes, key.size, value, sizeof value);
}

/* 0 if the map says nothing. */
static int read_mark(const struct replica_volume *volume, uint64_t *ret_applied_seq)
{
    struct map_key key = mark_key(volume);
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(volume->map_kv, key.bytes, key.size, &value);
    *ret_applied_seq = rv == 0 && value.size == 8 ? replica_u64_decode(value.data) : 0;
    if (rv == 0 && value.size != 8)
        rv = REPLICA_E_CORRUPT;
    replica_buffer_close(&value);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

/* A map that has less than the checkpoint says is rebuilt from the start of the log: applying again writes the same records. One that has
 * more than was ordered is well: then the log is older than it was, and has lost what was durable once. */
static int check_map(struct replica_volume *volume)
{
    struct replica_volume_state *state = &volume->state;
    uint64_t mark;
    int rv;
    if (volume->image_unfinished)
        return 0; /* cleared before anything is applied */
    rv = read_mark(volume, &mark);
    if (rv != 0)
        return rv;
    if (mark > state->ordered_seq)
        return REPLICA_E_STALE;
    if (mark >= state->applied_seq)
        return 0;
    if (state->base.n > 0)
        return REPLICA_E_EXPIRED; /* the log begins behind an image */
    state->applied_seq = volume->checkpoint_seq = 0;
    memset(&state->applied, 0, sizeof state->applied);
    memset(&state->totals, 0, sizeof state->totals);
    state->last_commit_ms = 0;
    return 0;
}

int replica_volume_new(const struct replica_volume_options *options, struct replica_volume **ret_volume)
{
    struct replica_volume *volume = calloc(1, sizeof *volume);
    int rv;
    if (volume == NULL)
        return REPLICA_E_NOMEM;
    volume->state.id = options->volume;
    volume->log = options->log;
    volume->map_kv = options->map;
    volume->contents = options->contents;
    volume->map.kv = options->map;
    volume->map.volume = options->volume;
    volume->store = options->store;
    replica_buffer_init(&volume->job.record);
    replica_buffer_init(&volume->job.ops);
    rv = load_record(volume, replica_log_key_head(&options->volume), read_head);
    if (rv == 0)
        rv = load_record(volume, replica_log_key_checkpoint(&options->volume), read_checkpoint);
    if (rv == 0)
        rv = load_record(volume, replica_log_key_image(&options->volume), read_image_mark);
    if (rv == 0 && volume->state.applied_seq > volume->state.ordered_seq)
        rv = REPLICA_E_CORRUPT;
    if (rv == 0)
        rv = check_map(volume);
    if (rv != 0) {
        replica_volume_destroy(&volume);
        return rv;
    }
    *ret_volume = volume;
    return 0;
}

void replica_volume_destroy(struct replica_volume **volume)
{
    if (*volume == NULL)
        return;
    replica_buffer_close(&(*volume)->job.record);
    replica_buffer_close(&(*volume)->job.ops);
    free(*volume);
    *volume = NULL;
}

const struct replica_volume_state *replica_volume_state(const struct replica_volume *volume)
{
    return &volume->state;
}

const struct replica_map *replica_volume_map(const struct replica_volume *volume)
{
    return &volume->map;
}
