/* kv: an ordered map of byte strings with atomic batches and ordered scans.
 *
 * Two back ends (replica/kv_memory.h, replica/kv_leveldb.h) pass one conformance test. Keys are compared
 * bytewise. A batch is visible to every later get and scan as soon as write returns; it is durable once a sync
 * that began after it returned 0. After any failed write or sync the kv is failed: every later write and sync returns
 * the code of that failure until it is opened again; reading goes on.
 *
 * Thread rule: one thread writes and reads; sync may run on another thread at the same time. */
#ifndef REPLICA_KV_H
#define REPLICA_KV_H

#include "replica/buffer.h"

#define REPLICA_KV_KEY_MAX   8192 /* two paths of 4096 bytes less what precedes them never meet in one key */
#define REPLICA_KV_VALUE_MAX (1 << 20) /* larger values stall LevelDB; bytes belong into contents */

/* A list of puts and deletes, applied in order, all or nothing. Keeps an index of its keys so that a step can read
 * what it is about to write. Caller-owned. */
struct replica_kv_batch {
    struct replica_buffer bytes; /* per operation: kind u8, key size u32, value size u32, key, value */
    size_t count;
    uint32_t *index; /* open-addressed hash of the last operation on each key: offset in bytes + 1, 0 free */
    size_t index_capacity;
    bool failed; /* an operation did not get memory; write refuses the batch */
};

void replica_kv_batch_init(struct replica_kv_batch *batch);
void replica_kv_batch_close(struct replica_kv_batch *batch);
void replica_kv_batch_clear(struct replica_kv_batch *batch);
void replica_kv_batch_put(struct replica_kv_batch *batch, const void *key, size_t key_n, const void *value,
                          size_t n);
void replica_kv_batch_delete(struct replica_kv_batch *batch, const void *key, size_t key_n);

/* Visits the operations in order; value NULL is a delete. Stops at the first non-zero result and returns it. */
int replica_kv_batch_each(const struct replica_kv_batch *batch,
                          int (*visit)(void *context, const uint8_t *key, size_t key_n, const uint8_t *value,
                                       size_t n),
                          void *context);

struct replica_kv;
struct replica_kv_cursor;

struct replica_kv_ops {
    int (*get)(struct replica_kv *kv, const void *key, size_t key_n, struct replica_buffer *ret_value);
    int (*write)(struct replica_kv *kv, const struct replica_kv_batch *batch);
    int (*sync)(struct replica_kv *kv);
    int (*cursor_open)(struct replica_kv *kv, struct replica_kv_cursor **ret_cursor);
    void (*cursor_seek)(struct replica_kv_cursor *cursor, const void *key, size_t key_n);
    void (*cursor_next)(struct replica_kv_cursor *cursor);
    bool (*cursor_valid)(const struct replica_kv_cursor *cursor);
    void (*cursor_key)(const struct replica_kv_cursor *cursor, const uint8_t **ret_key, size_t *ret_n);
    void (*cursor_value)(const struct replica_kv_cursor *cursor, const uint8_t **ret_value, size_t *ret_n);
    int (*cursor_close)(struct replica_kv_cursor *cursor);
    void (*destroy)(struct replica_kv *kv);
};

/* Back ends embed these as their first member. */
struct replica_kv {
    const struct replica_kv_ops *ops;
};
struct replica_kv_cursor {
    struct replica_kv *kv;
};

/* The value of key into ret_value (cleared first, initialised by the caller).
 * Errors: NOTFOUND; IO; CORRUPT (a damaged table or record); NOMEM. */
int replica_kv_get(struct replica_kv *kv, const void *key, size_t key_n, struct replica_buffer *ret_value);

/* As get, but an operation on that key in pending (may be NULL) is what counts. */
int replica_kv_get_through(struct replica_kv *kv, const struct replica_kv_batch *pending, const void *key,
                           size_t key_n, struct replica_buffer *ret_value);

/* Applies a batch (borrowed). Errors: NOMEM (a failed batch; nothing written), IO, NOSPACE, CORRUPT. */
int replica_kv_write(struct replica_kv *kv, const struct replica_kv_batch *batch);

/* Every batch whose write returned before this call began is durable. Errors: IO, NOSPACE. */
int replica_kv_sync(struct replica_kv *kv);

/* A cursor sees the map as it was when it was opened; close it soon. Positions: seek goes to the first key at or
 * after the one given. Key and value are borrowed until the cursor moves. cursor_close returns 0 or the error
 * (CORRUPT, IO) that ended the scan early. */
int replica_kv_cursor_open(struct replica_kv *kv, struct replica_kv_cursor **ret_cursor);
void replica_kv_cursor_seek(struct replica_kv_cursor *cursor, const void *key, size_t key_n);
void replica_kv_cursor_next(struct replica_kv_cursor *cursor);
bool replica_kv_cursor_valid(const struct replica_kv_cursor *cursor);
void replica_kv_cursor_key(const struct replica_kv_cursor *cursor, const uint8_t **ret_key, size_t *ret_n);
void replica_kv_cursor_value(const struct replica_kv_cursor *cursor, const uint8_t **ret_value,
                             size_t *ret_n);
int replica_kv_cursor_close(struct replica_kv_cursor **cursor);

/* Whether any key begins with prefix: one seek. Errors: as cursor_open and cursor_close. */
int replica_kv_has_prefix(struct replica_kv *kv, const void *prefix, size_t prefix_n, bool *ret_has);

/* Closes and frees; *kv becomes NULL. Nothing that was written is lost by it; it does not sync. */
void replica_kv_destroy(struct replica_kv **kv);

#endif
