/* Loading and the head record. */
#include "volume/volume.h"

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
