/* A skip list with an undo log of the batches that are not synced. */
#include "replica/kv_memory.h"

#include "replica/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LEVELS 16 /* good for 4^16 keys at p = 1/4 */

struct node {
    uint8_t *key, *value;
    size_t key_n, value_n;
    struct node *next[];
};

/* What a key was before a batch touched it. */
struct undo {
    uint8_t *key, *value; /* value NULL: it was absent */
    size_t key_n, value_n;
    struct undo *before;
};

struct pending {
    struct undo *undo; /* newest first */
    struct pending *before;
};

struct cursor;

struct memory {
    struct replica_kv base;
    struct node *head; /* LEVELS pointers, no key */
    uint64_t random;
    struct pending *pending; /* newest first */
    size_t pending_n;
    struct cursor *cursors; /* those that are open */
    size_t fail_countdown;
    int fail_code; /* 0: no failure is planned */
    bool failed;
};

/* A cursor walks the live list until something is written under it; then it is given a copy of all as it was.
 */
struct cursor {
    struct replica_kv_cursor base;
    struct node *at;
    struct cursor *next;
    struct copied *copies; /* in order; NULL while it walks the list */
    size_t copies_n, copies_at;
};

struct copied {
    uint8_t *key, *value;
    size_t key_n, value_n;
};

static uint8_t *copy(const uint8_t *data, size_t n)
{
    uint8_t *bytes = malloc(n > 0 ? n : 1);
    if (bytes != NULL && n > 0)
        memcpy(bytes, data, n);
    return bytes;
}

static int compare_bytes(const uint8_t *a, size_t a_n, const uint8_t *b, size_t b_n)
{
    size_t n = a_n < b_n ? a_n : b_n;
    int rv = n == 0 ? 0 : memcmp(a, b, n);
    return rv != 0 ? rv : (a_n > b_n) - (a_n < b_n);
}

static int compare(const struct node *node, const uint8_t *key, size_t n)
{
    return compare_bytes(node->key, node->key_n, key, n);
}

/* The node before the first one at or after key, on each level. */
static struct node *find(const struct memory *memory, const uint8_t *key, size_t n, struct node **ret_before)
{
    struct node *node = memory->head;
    for (int level = LEVELS - 1; level >= 0; level--) {
        while (node->next[level] != NULL && compare(node->next[level], key, n) < 0)
            node = node->next[level];
        if (ret_before != NULL)
            ret_before[level] = node;
    }
    return node->next[0];
}

static int draw_height(struct memory *memory)
{
    int height = 1;
    memory->random ^=
        memory->random << 13; /* xorshift64: levels only, the order of keys never depends on it */
    memory->random ^= memory->random >> 7;
    memory->random ^= memory->random << 17;
    for (uint64_t bits = memory->random; height < LEVELS && (bits & 3) == 0; bits >>= 2)
        height++;
    return height;
}

static int insert(struct memory *memory, const uint8_t *key, size_t key_n, const uint8_t *value, size_t n)
{
    struct node *before[LEVELS], *node = find(memory, key, key_n, before);
    uint8_t *bytes = copy(value, n);
    int height;
    if (bytes == NULL)
        return REPLICA_E_NOMEM;
    if (node != NULL && compare(node, key, key_n) == 0) {
        free(node->value);
        node->value = bytes;
        node->value_n = n;
        return 0;
    }
    height = draw_height(memory);
    node = calloc(1, sizeof *node + (size_t)height * sizeof(struct node *));
    if (node == NULL || (node->key = copy(key, key_n)) == NULL) {
        free(node);
        free(bytes);
        return REPLICA_E_NOMEM;
    }
    node->key_n = key_n;
    node->value = bytes;
    node->value_n = n;
    for (int level = 0; level < height; level++) {
        node->next[level] = before[level]->next[level];
        before[level]->next[level] = node;
    }
    return 0;
}

static void erase(struct memory *memory, const uint8_t *key, size_t n)
{
    struct node *before[LEVELS], *node = find(memory, key, n, before);
    if (node == NULL || compare(node, key, n) != 0)
        return;
    for (int level = 0; level < LEVELS && before[level]->next[level] == node; level++)
        before[level]->next[level] = node->next[level];
    free(node->key);
    free(node->value);
    free(node);
}

static void free_pending(struct pending *pending)
{
    while (pending->undo != NULL) {
        struct undo *undo = pending->undo;
        pending->undo = undo->before;
        free(undo->key);
        free(undo->value);
        free(undo);
    }
    free(pending);
}

static int remember(struct memory *memory, const uint8_t *key, size_t n)
{
    const struct node *node = find(memory, key, n, NULL);
    struct undo *undo = calloc(1, sizeof *undo);
    if (undo == NULL || (undo->key = copy(key, n)) == NULL) {
        free(undo);
        return REPLICA_E_NOMEM;
    }
    undo->key_n = n;
    if (node != NULL && compare(node, key, n) == 0) {
        undo->value = copy(node->value, node->value_n);
        undo->value_n = node->value_n;
        if (undo->value == NULL) {
            free(undo->key);
            free(undo);
            return REPLICA_E_NOMEM;
        }
    }
    undo->before = memory->pending->undo;
    memory->pending->undo = undo;
    return 0;
}

static int apply(void *context, const uint8_t *key, size_t key_n, const uint8_t *value, size_t n)
{
    struct memory *memory = context;
    int rv = remember(memory, key, key_n);
    if (rv != 0)
        return rv;
    if (value != NULL)
        return insert(memory, key, key_n, value, n);
    erase(memory, key, key_n);
    return 0;
}

static int planned_failure(struct memory *memory)
{
    if (memory->failed)
        return memory->fail_code;
    if (memory->fail_code == 0)
        return 0;
    if (memory->fail_countdown > 0) {
        memory->fail_countdown--;
        return 0;
    }
    memory->failed = true;
    return memory->fail_code;
}

static int memory_get(struct replica_kv *kv, const void *key, size_t key_n, struct replica_buffer *ret_value)
{
    const struct node *node = find((struct memory *)kv, key, key_n, NULL);
    if (node == NULL || compare(node, key, key_n) != 0)
        return REPLICA_E_NOTFOUND;
    return replica_buffer_append(ret_value, node->value, node->value_n);
}

static void undo_newest(struct memory *memory)
{
    struct pending *pending = memory->pending;
    for (const struct undo *undo = pending->undo; undo != NULL; undo = undo->before) {
        if (undo->value == NULL)
            erase(memory, undo->key, undo->key_n);
        else if (insert(memory, undo->key, undo->key_n, undo->value, undo->value_n) != 0)
            abort(); /* a test harness without memory proves nothing */
    }
    memory->pending = pending->before;
    memory->pending_n--;
    free_pending(pending);
}

static void free_copies(struct cursor *cursor)
{
    for (size_t i = 0; i < cursor->copies_n; i++) {
        free(cursor->copies[i].key);
        free(cursor->copies[i].value);
    }
    free(cursor->copies);
    cursor->copies = NULL;
    cursor->copies_n = 0;
}

static int detach(const struct memory *memory, struct cursor *cursor)
{
    size_t n = 0;
    for (const struct node *node = memory->head->next[0]; node != NULL; node = node->next[0])
        n++;
    cursor->copies = calloc(n + 1, sizeof *cursor->copies);
    if (cursor->copies == NULL)
        return REPLICA_E_NOMEM;
    cursor->copies_at = n;
    for (const struct node *node = memory->head->next[0]; node != NULL; node = node->next[0]) {
        struct copied *to = &cursor->copies[cursor->copies_n++];
        if (node == cursor->at)
            cursor->copies_at = cursor->copies_n - 1;
        to->key = copy(node->key, node->key_n);
        to->value = copy(node->value, node->value_n);
        to->key_n = node->key_n;
        to->value_n = node->value_n;
        if (to->key == NULL || to->value == NULL) {
            free_copies(cursor);
            return REPLICA_E_NOMEM;
        }
    }
    return 0;
}

static int detach_all(struct memory *memory)
{
    for (struct cursor *cursor = memory->cursors; cursor != NULL; cursor = cursor->next) {
        int rv = cursor->copies != NULL ? 0 : detach(memory, cursor);
        if (rv != 0)
            return rv;
    }
    return 0;
}

static int memory_write(struct replica_kv *kv, const struct replica_kv_batch *batch)
{
    struct memory *memory = (struct memory *)kv;
    struct pending *pending;
    int rv = planned_failure(memory);
    if (rv == 0)
        rv = detach_all(memory);
    if (rv != 0)
        return rv;
    pending = calloc(1, sizeof *pending);
    if (pending == NULL)
        return REPLICA_E_NOMEM;
    pending->before = memory->pending;
    memory->pending = pending;
    memory->pending_n++;
    rv = replica_kv_batch_each(batch, apply, memory);
    if (rv != 0)
        undo_newest(memory);
    return rv;
}

static void forget_pending(struct memory *memory)
{
    while (memory->pending != NULL) {
        struct pending *pending = memory->pending;
        memory->pending = pending->before;
        free_pending(pending);
    }
    memory->pending_n = 0;
}

static int memory_sync(struct replica_kv *kv)
{
    struct memory *memory = (struct memory *)kv;
    int rv = planned_failure(memory);
    if (rv == 0)
        forget_pending(memory);
    return rv;
}

static int memory_cursor_open(struct replica_kv *kv, struct replica_kv_cursor **ret_cursor)
{
    struct memory *memory = (struct memory *)kv;
    struct cursor *cursor = calloc(1, sizeof *cursor);
    if (cursor == NULL)
        return REPLICA_E_NOMEM;
    cursor->base.kv = kv;
    cursor->next = memory->cursors;
    memory->cursors = cursor;
    *ret_cursor = &cursor->base;
    return 0;
}

static void memory_cursor_seek(struct replica_kv_cursor *base, const void *key, size_t key_n)
{
    struct cursor *cursor = (struct cursor *)base;
    size_t low = 0, high = cursor->copies_n;
    if (cursor->copies == NULL) {
        cursor->at = find((struct memory *)base->kv, key, key_n, NULL);
        return;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_bytes(cursor->copies[middle].key, cursor->copies[middle].key_n, key, key_n) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    cursor->copies_at = low;
}

static bool memory_cursor_valid(const struct replica_kv_cursor *base)
{
    const struct cursor *cursor = (const struct cursor *)base;
    return cursor->copies != NULL ? cursor->copies_at < cursor->copies_n : cursor->at != NULL;
}

static void memory_cursor_next(struct replica_kv_cursor *base)
{
    struct cursor *cursor = (struct cursor *)base;
    assert(memory_cursor_valid(base));
    if (cursor->copies != NULL)
        cursor->copies_at++;
    else
        cursor->at = cursor->at->next[0];
}

static void memory_cursor_key(const struct replica_kv_cursor *base, const uint8_t **ret_key, size_t *ret_n)
{
    const struct cursor *cursor = (const struct cursor *)base;
    *ret_key = cursor->copies != NULL ? cursor->copies[cursor->copies_at].key : cursor->at->key;
    *ret_n = cursor->copies != NULL ? cursor->copies[cursor->copies_at].key_n : cursor->at->key_n;
}

static void memory_cursor_value(const struct replica_kv_cursor *base, const uint8_t **ret_value,
                                size_t *ret_n)
{
    const struct cursor *cursor = (const struct cursor *)base;
    *ret_value = cursor->copies != NULL ? cursor->copies[cursor->copies_at].value : cursor->at->value;
    *ret_n = cursor->copies != NULL ? cursor->copies[cursor->copies_at].value_n : cursor->at->value_n;
}

static int memory_cursor_close(struct replica_kv_cursor *base)
{
    struct cursor *cursor = (struct cursor *)base, **at = &((struct memory *)base->kv)->cursors;
    while (*at != cursor)
        at = &(*at)->next;
    *at = cursor->next;
    free_copies(cursor);
    free(cursor);
    return 0;
}

static void memory_destroy(struct replica_kv *kv)
{
    struct memory *memory = (struct memory *)kv;
    forget_pending(memory);
    while (memory->head->next[0] != NULL) {
        struct node *node = memory->head->next[0];
        memory->head->next[0] = node->next[0];
        free(node->key);
        free(node->value);
        free(node);
    }
    free(memory->head);
    free(memory);
}

static const struct replica_kv_ops memory_ops = {
    .get = memory_get,
    .write = memory_write,
    .sync = memory_sync,
    .cursor_open = memory_cursor_open,
    .cursor_seek = memory_cursor_seek,
    .cursor_next = memory_cursor_next,
    .cursor_valid = memory_cursor_valid,
    .cursor_key = memory_cursor_key,
    .cursor_value = memory_cursor_value,
    .cursor_close = memory_cursor_close,
    .destroy = memory_destroy,
};

int replica_kv_memory_new(struct replica_kv **ret_kv)
{
    struct memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return REPLICA_E_NOMEM;
    memory->head = calloc(1, sizeof *memory->head + LEVELS * sizeof(struct node *));
    if (memory->head == NULL) {
        free(memory);
        return REPLICA_E_NOMEM;
    }
    memory->base.ops = &memory_ops;
    memory->random = 0x9e3779b97f4a7c15u;
    *ret_kv = &memory->base;
    return 0;
}

size_t replica_kv_memory_pending(const struct replica_kv *kv)
{
    return ((const struct memory *)kv)->pending_n;
}

void replica_kv_memory_sync_first(struct replica_kv *kv, size_t n)
{
    struct memory *memory = (struct memory *)kv;
    struct pending **at = &memory->pending;
    assert(n <= memory->pending_n);
    for (size_t newer = memory->pending_n - n; newer > 0; newer--)
        at = &(*at)->before;
    while (*at != NULL) {
        struct pending *pending = *at;
        *at = pending->before;
        free_pending(pending);
    }
    memory->pending_n -= n;
}

void replica_kv_memory_crash(struct replica_kv *kv, size_t keep)
{
    struct memory *memory = (struct memory *)kv;
    assert(keep <= memory->pending_n);
    assert(memory->cursors == NULL); /* nobody reads across a loss of power */
    while (memory->pending_n > keep)
        undo_newest(memory);
    forget_pending(memory);
    memory->failed = false;
    memory->fail_code = 0;
}

void replica_kv_memory_fail_after(struct replica_kv *kv, size_t countdown, int code)
{
    struct memory *memory = (struct memory *)kv;
    memory->fail_countdown = countdown;
    memory->fail_code = code;
}
