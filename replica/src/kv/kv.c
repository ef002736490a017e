/* Batches, and the calls that pass through to a back end. */
#include "replica/kv.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE 9 /* kind u8, key size u32, value size u32 */
enum { OPERATION_PUT = 1, OPERATION_DELETE = 2 };

void replica_kv_batch_init(struct replica_kv_batch *batch)
{
    memset(batch, 0, sizeof *batch);
    replica_buffer_init(&batch->bytes);
}

void replica_kv_batch_close(struct replica_kv_batch *batch)
{
    replica_buffer_close(&batch->bytes);
    free(batch->index);
    replica_kv_batch_init(batch);
}

void replica_kv_batch_clear(struct replica_kv_batch *batch)
{
    replica_buffer_clear(&batch->bytes);
    batch->failed = false;
    if (batch->count > 0 && batch->index != NULL)
        memset(batch->index, 0, batch->index_capacity * sizeof batch->index[0]);
    batch->count = 0;
}

static uint32_t get_u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof value); /* native order: batches never leave the process */
    return value;
}

static uint64_t hash_key(const uint8_t *key, size_t n)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ key[i]) * 1099511628211u;
    return hash;
}

/* The slot of key: taken by it, or free. */
static uint32_t *slot_of(const struct replica_kv_batch *batch, const uint8_t *key, size_t n)
{
    size_t mask = batch->index_capacity - 1;
    for (size_t at = hash_key(key, n) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &batch->index[at];
        const uint8_t *operation;
        if (*slot == 0)
            return slot;
        operation = batch->bytes.data + (*slot - 1);
        if (get_u32(operation + 1) == n && memcmp(operation + HEADER_SIZE, key, n) == 0)
            return slot;
    }
}

static bool grow_index(struct replica_kv_batch *batch)
{
    size_t old_capacity = batch->index_capacity, capacity = old_capacity == 0 ? 32 : old_capacity * 2;
    uint32_t *old = batch->index, *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL)
        return false;
    batch->index = slots;
    batch->index_capacity = capacity;
    for (size_t i = 0; i < old_capacity; i++) {
        const uint8_t *operation;
        if (old[i] == 0)
            continue;
        operation = batch->bytes.data + (old[i] - 1);
        *slot_of(batch, operation + HEADER_SIZE, get_u32(operation + 1)) = old[i];
    }
    free(old);
    return true;
}

static void add(struct replica_kv_batch *batch, uint8_t kind, const void *key, size_t key_n,
                const void *value, size_t n)
{
    uint8_t header[HEADER_SIZE] = {kind};
    uint32_t key_size = (uint32_t)key_n, size = (uint32_t)n;
    size_t offset = batch->bytes.size;
    if (batch->failed)
        return;
    if (key_n > REPLICA_KV_KEY_MAX || n > REPLICA_KV_VALUE_MAX || offset > UINT32_MAX / 2 ||
        (batch->count * 2 >= batch->index_capacity && !grow_index(batch))) {
        batch->failed = true;
        return;
    }
    memcpy(header + 1, &key_size, sizeof key_size);
    memcpy(header + 5, &size, sizeof size);
    replica_buffer_append(&batch->bytes, header, sizeof header);
    replica_buffer_append(&batch->bytes, key, key_n);
    replica_buffer_append(&batch->bytes, value, n);
    if (batch->bytes.failed) {
        batch->failed = true;
        return;
    }
    *slot_of(batch, key, key_n) = (uint32_t)offset + 1;
    batch->count++;
}

void replica_kv_batch_put(struct replica_kv_batch *batch, const void *key, size_t key_n, const void *value,
                          size_t n)
{
    add(batch, OPERATION_PUT, key, key_n, value, n);
}

void replica_kv_batch_delete(struct replica_kv_batch *batch, const void *key, size_t key_n)
{
    add(batch, OPERATION_DELETE, key, key_n, NULL, 0);
}

int replica_kv_batch_each(const struct replica_kv_batch *batch,
                          int (*visit)(void *context, const uint8_t *key, size_t key_n, const uint8_t *value,
                                       size_t n),
                          void *context)
{
    size_t at = 0;
    while (at < batch->bytes.size) {
        const uint8_t *operation = batch->bytes.data + at;
        size_t key_n = get_u32(operation + 1), n = get_u32(operation + 5);
        const uint8_t *key = operation + HEADER_SIZE;
        int rv = visit(context, key, key_n, operation[0] == OPERATION_PUT ? key + key_n : NULL, n);
        if (rv != 0)
            return rv;
        at += HEADER_SIZE + key_n + n;
    }
    return 0;
}

int replica_kv_get(struct replica_kv *kv, const void *key, size_t key_n, struct replica_buffer *ret_value)
{
    replica_buffer_clear(ret_value);
    return kv->ops->get(kv, key, key_n, ret_value);
}

int replica_kv_get_through(struct replica_kv *kv, const struct replica_kv_batch *pending, const void *key,
                           size_t key_n, struct replica_buffer *ret_value)
{
    if (pending != NULL && pending->count > 0) {
        const uint32_t *slot = slot_of(pending, key, key_n);
        if (*slot != 0) {
            const uint8_t *operation = pending->bytes.data + (*slot - 1);
            replica_buffer_clear(ret_value);
            if (operation[0] == OPERATION_DELETE)
                return REPLICA_E_NOTFOUND;
            return replica_buffer_append(ret_value, operation + HEADER_SIZE + key_n, get_u32(operation + 5));
        }
    }
    return replica_kv_get(kv, key, key_n, ret_value);
}

int replica_kv_write(struct replica_kv *kv, const struct replica_kv_batch *batch)
{
    if (batch->failed)
        return REPLICA_E_NOMEM;
    return batch->count == 0 ? 0 : kv->ops->write(kv, batch);
}

int replica_kv_sync(struct replica_kv *kv)
{
    return kv->ops->sync(kv);
}

int replica_kv_cursor_open(struct replica_kv *kv, struct replica_kv_cursor **ret_cursor)
{
    return kv->ops->cursor_open(kv, ret_cursor);
}

void replica_kv_cursor_seek(struct replica_kv_cursor *cursor, const void *key, size_t key_n)
{
    cursor->kv->ops->cursor_seek(cursor, key, key_n);
}

void replica_kv_cursor_next(struct replica_kv_cursor *cursor)
{
    cursor->kv->ops->cursor_next(cursor);
}

bool replica_kv_cursor_valid(const struct replica_kv_cursor *cursor)
{
    return cursor->kv->ops->cursor_valid(cursor);
}

void replica_kv_cursor_key(const struct replica_kv_cursor *cursor, const uint8_t **ret_key, size_t *ret_n)
{
    cursor->kv->ops->cursor_key(cursor, ret_key, ret_n);
}

void replica_kv_cursor_value(const struct replica_kv_cursor *cursor, const uint8_t **ret_value, size_t *ret_n)
{
    cursor->kv->ops->cursor_value(cursor, ret_value, ret_n);
}

int replica_kv_cursor_close(struct replica_kv_cursor **cursor)
{
    int rv = (*cursor)->kv->ops->cursor_close(*cursor);
    *cursor = NULL;
    return rv;
}

int replica_kv_has_prefix(struct replica_kv *kv, const void *prefix, size_t prefix_n, bool *ret_has)
{
    struct replica_kv_cursor *cursor;
    bool has = false;
    int rv = replica_kv_cursor_open(kv, &cursor);
    if (rv != 0)
        return rv;
    replica_kv_cursor_seek(cursor, prefix, prefix_n);
    if (replica_kv_cursor_valid(cursor)) {
        const uint8_t *key;
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        has = n >= prefix_n && memcmp(key, prefix, prefix_n) == 0;
    }
    rv = replica_kv_cursor_close(&cursor);
    if (rv == 0)
        *ret_has = has;
    return rv;
}

void replica_kv_destroy(struct replica_kv **kv)
{
    if (*kv != NULL)
        (*kv)->ops->destroy(*kv);
    *kv = NULL;
}
