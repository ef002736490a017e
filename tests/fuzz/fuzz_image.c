/* Parts of an image, from any voter, and positions, from anybody: a replica takes them, or not, without harm,
 * and nothing of what it took is shown before it adopts the whole. First byte: which of the two. */
#include "replica/contents_memory.h"
#include "replica/error.h"
#include "replica/image.h"
#include "replica/kv_memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define PART_MAX 1024 /* bytes of each of the parts that an input is cut into */

struct replica {
    struct replica_kv *log, *map;
    struct replica_contents *contents;
    struct replica_volume *volume;
    struct replica_kv_batch log_batch, map_batch;
};

static void load(struct replica *replica)
{
    struct replica_volume_options options = {
        .log = replica->log, .map = replica->map, .contents = replica->contents};
    memset(&options.volume, 7, sizeof options.volume);
    replica_volume_destroy(&replica->volume);
    if (replica_volume_new(&options, &replica->volume) != 0)
        abort();
}

static void open_replica(struct replica *replica)
{
    memset(replica, 0, sizeof *replica);
    if (replica_kv_memory_new(&replica->log) != 0 || replica_kv_memory_new(&replica->map) != 0 ||
        replica_contents_memory_new(&replica->contents) != 0)
        abort();
    replica_kv_batch_init(&replica->log_batch);
    replica_kv_batch_init(&replica->map_batch);
    load(replica);
}

static void close_replica(struct replica *replica)
{
    replica_kv_batch_close(&replica->log_batch);
    replica_kv_batch_close(&replica->map_batch);
    replica_volume_destroy(&replica->volume);
    replica_contents_destroy(&replica->contents);
    replica_kv_destroy(&replica->log);
    replica_kv_destroy(&replica->map);
}

static void flush(struct replica *replica)
{
    if (replica_kv_write(replica->log, &replica->log_batch) != 0 ||
        replica_kv_write(replica->map, &replica->map_batch) != 0)
        abort();
    replica_kv_batch_clear(&replica->log_batch);
    replica_kv_batch_clear(&replica->map_batch);
}

/* Adopts what came, by whatever it adds up to: then scanning shows the same. */
static void adopt(struct replica *replica, const struct replica_image_progress *progress)
{
    struct replica_image image = {.apply_seq = 1, .totals = progress->totals};
    uint8_t hash[REPLICA_HASH_SIZE];
    assert(replica_image_adopt(replica->volume, &image, progress, &replica->log_batch) == 0);
    flush(replica);
    load(replica);
    assert(replica_map_state_hash(replica_volume_map(replica->volume), 1, hash) == 0);
    assert(memcmp(hash, progress->totals.state_hash, sizeof hash) == 0);
}

static void take(struct replica *replica, const uint8_t *data, size_t n)
{
    struct replica_image_progress *progress = calloc(1, sizeof *progress);
    bool taken = true;
    if (progress == NULL)
        abort();
    replica_image_begin(replica->volume, &replica->log_batch);
    while (n > 0 && taken) {
        size_t part = n < PART_MAX ? n : PART_MAX, reads = 0, next_n = 0;
        const uint8_t *next;
        int rv = replica_image_take(replica->volume, data, part, &replica->log_batch, &replica->map_batch,
                                    progress, &reads, &next, &next_n);
        assert(rv == 0 || rv == REPLICA_E_MALFORMED);
        assert(replica_volume_state(replica->volume)->applied_seq == 0);
        flush(replica);
        taken = rv == 0 && next_n > 0;
        if (rv == 0 && next_n == 0)
            adopt(replica, progress);
        data += part;
        n -= part;
    }
    free(progress);
}

static void give(struct replica *replica, const uint8_t *position, size_t n)
{
    struct replica_buffer out;
    size_t reads = 0;
    int rv;
    replica_buffer_init(&out);
    rv = replica_image_part(replica->volume, 1, position, n, &out, &reads);
    assert(rv == 0 || rv == REPLICA_E_MALFORMED);
    replica_buffer_close(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct replica replica;
    if (n == 0)
        return 0;
    open_replica(&replica);
    if (data[0] % 4 == 0)
        give(&replica, data + 1, n - 1);
    else
        take(&replica, data + 1, n - 1);
    close_replica(&replica);
    return 0;
}
