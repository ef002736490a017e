#include "replica_support.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t support_random(struct support_random *random)
{
    random->state ^= random->state >> 12;
    random->state ^= random->state << 25;
    random->state ^= random->state >> 27;
    return random->state * 2685821657736338717u;
}

uint64_t support_random_below(struct support_random *random, uint64_t n)
{
    return support_random(random) % n;
}

void support_random_fill(struct support_random *random, void *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)data)[i] = (uint8_t)(support_random(random) >> 32);
}

struct replica_id support_id(uint8_t kind, uint64_t n)
{
    struct replica_id id;
    memset(id.bytes, kind, sizeof id.bytes);
    replica_u64_encode(n, id.bytes);
    return id;
}

struct replica_path support_path(const char *text)
{
    return (struct replica_path){text, strlen(text)};
}

struct replica_actor support_actor(uint64_t store, uint64_t epoch)
{
    return (struct replica_actor){.store = support_id(0x51, store), .epoch = epoch};
}

void support_apply(struct replica_kv *kv, struct replica_kv_batch *batch)
{
    assert_int_equal(replica_kv_write(kv, batch), 0);
    replica_kv_batch_clear(batch);
}

struct replica_entry support_directory(uint32_t mode)
{
    return (struct replica_entry){.kind = REPLICA_KIND_DIRECTORY, .mode = mode};
}

struct replica_entry support_file(const char *text)
{
    return (struct replica_entry){
        .kind = REPLICA_KIND_FILE,
        .mode = 0644,
        .size = strlen(text),
        .blob = {.kind = REPLICA_BLOB_INLINE, .data = (const uint8_t *)text, .size = strlen(text)}};
}

struct replica_entry support_content_file(uint8_t kind, uint64_t size)
{
    struct replica_entry entry = {.kind = REPLICA_KIND_FILE,
                                  .mode = 0644,
                                  .size = size,
                                  .blob = {.kind = REPLICA_BLOB_CONTENT, .content = {.length = size}}};
    memset(entry.blob.content.root, kind, sizeof entry.blob.content.root);
    return entry;
}

size_t support_count(struct replica_kv *kv, const void *prefix, size_t n)
{
    struct replica_kv_cursor *cursor;
    size_t count = 0;
    assert_int_equal(replica_kv_cursor_open(kv, &cursor), 0);
    for (replica_kv_cursor_seek(cursor, prefix, n); replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key;
        size_t key_n;
        replica_kv_cursor_key(cursor, &key, &key_n);
        if (key_n < n || memcmp(key, prefix, n) != 0)
            break;
        count++;
    }
    assert_int_equal(replica_kv_cursor_close(&cursor), 0);
    return count;
}
