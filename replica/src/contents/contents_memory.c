#include "replica/contents_memory.h"

#include "contents/contents_tree.h"
#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

struct item {
    struct contents_tree tree;
    uint8_t **chunks; /* NULL: a hole, or not present */
    enum replica_contents_state state;
};

struct memory {
    struct replica_contents base;
    struct item **items; /* sorted by id */
    size_t n, capacity;
    int fail_code;
};

static size_t position(const struct memory *memory, const struct replica_content_id *id)
{
    size_t low = 0, high = memory->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (replica_content_id_compare(&memory->items[middle]->tree.id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct item *find(const struct memory *memory, const struct replica_content_id *id)
{
    size_t at = position(memory, id);
    return at < memory->n && replica_content_id_equal(&memory->items[at]->tree.id, id) ? memory->items[at]
                                                                                       : NULL;
}

static void free_item(struct item *item)
{
    for (uint32_t i = 0; item->chunks != NULL && i < item->tree.chunks; i++)
        free(item->chunks[i]);
    free(item->chunks);
    contents_tree_close(&item->tree);
    free(item);
}

static void drop(struct memory *memory, size_t at)
{
    free_item(memory->items[at]);
    memory->n--;
    memmove(memory->items + at, memory->items + at + 1, (memory->n - at) * sizeof(struct item *));
}

static int add(struct memory *memory, const struct replica_content_id *id, struct item **ret_item)
{
    size_t at = position(memory, id);
    struct item *item;
    if (memory->n == memory->capacity) {
        size_t capacity = memory->capacity == 0 ? 16 : memory->capacity * 2;
        struct item **items = realloc(memory->items, capacity * sizeof(struct item *));
        if (items == NULL)
            return REPLICA_E_NOMEM;
        memory->items = items;
        memory->capacity = capacity;
    }
    item = calloc(1, sizeof *item);
    if (item == NULL || contents_tree_init(&item->tree, id) != 0 ||
        (item->chunks = calloc(item->tree.chunks, sizeof(uint8_t *))) == NULL) {
        if (item != NULL)
            free_item(item);
        return REPLICA_E_NOMEM;
    }
    item->state = REPLICA_CONTENTS_PARTIAL;
    memmove(memory->items + at + 1, memory->items + at, (memory->n - at) * sizeof(struct item *));
    memory->items[at] = item;
    memory->n++;
    *ret_item = item;
    return 0;
}

static enum replica_contents_state memory_state(struct replica_contents *contents,
                                                const struct replica_content_id *id)
{
    const struct item *item = find((struct memory *)contents, id);
    return item == NULL ? REPLICA_CONTENTS_ABSENT : item->state;
}

static int memory_begin(struct replica_contents *contents, const struct replica_content_id *id)
{
    struct memory *memory = (struct memory *)contents;
    struct item *item;
    if (find(memory, id) != NULL)
        return 0;
    return memory->fail_code != 0 ? memory->fail_code : add(memory, id, &item);
}

static bool all_zero(const uint8_t *data, size_t n)
{
    return n == 0 || (data[0] == 0 && memcmp(data, data + 1, n - 1) == 0);
}

static int store_chunk(struct item *item, uint32_t chunk, const void *data, size_t n)
{
    if (!all_zero(data, n)) {
        item->chunks[chunk] = malloc(n);
        if (item->chunks[chunk] == NULL)
            return REPLICA_E_NOMEM;
        memcpy(item->chunks[chunk], data, n);
    }
    contents_tree_mark(&item->tree, chunk);
    return 0;
}

static int memory_write(struct replica_contents *contents, const struct replica_content_id *id,
                        struct replica_piece piece, const void *data, size_t n)
{
    struct memory *memory = (struct memory *)contents;
    struct item *item = find(memory, id);
    int rv;
    if (item == NULL)
        return REPLICA_E_ABSENT;
    if (memory->fail_code != 0)
        return memory->fail_code;
    if (item->state != REPLICA_CONTENTS_PARTIAL || contents_tree_has(&item->tree, piece))
        return 0;
    rv = contents_tree_verify(&item->tree, piece, data, n);
    if (rv == 0)
        rv = piece.kind == REPLICA_PIECE_CHUNK ? store_chunk(item, piece.index, data, n)
                                               : contents_tree_learn(&item->tree, piece, data);
    if (rv == 0 && contents_tree_is_filled(&item->tree))
        item->state = REPLICA_CONTENTS_FILLED;
    return rv;
}

static int memory_ingest(struct replica_contents *contents, const void *data, size_t n,
                         struct replica_content_id *ret_id)
{
    struct memory *memory = (struct memory *)contents;
    struct replica_content_id id;
    struct replica_hash *ids;
    struct item *item;
    uint32_t chunks = replica_merkle_chunks(n);
    int rv = 0;
    if (memory->fail_code != 0)
        return memory->fail_code;
    ids = malloc(chunks * sizeof *ids);
    if (ids == NULL)
        return REPLICA_E_NOMEM;
    for (uint32_t i = 0; i < chunks; i++)
        replica_merkle_chunk((const uint8_t *)data + i * REPLICA_CHUNK_SIZE, replica_merkle_chunk_size(n, i),
                             &ids[i]);
    contents_tree_root(ids, chunks, n, &id);
    item = find(memory, &id);
    if (item == NULL)
        rv = add(memory, &id, &item);
    if (rv == 0 && item->state == REPLICA_CONTENTS_PARTIAL) {
        for (uint32_t i = 0; i < chunks && rv == 0; i++)
            if (item->chunks[i] == NULL)
                rv = store_chunk(item, i, (const uint8_t *)data + i * REPLICA_CHUNK_SIZE,
                                 replica_merkle_chunk_size(n, i));
        if (rv == 0)
            rv = contents_tree_fill(&item->tree, ids);
        if (rv == 0)
            item->state = REPLICA_CONTENTS_FILLED;
    }
    free(ids);
    if (rv == 0)
        *ret_id = id;
    return rv;
}

static int memory_sync(struct replica_contents *contents)
{
    struct memory *memory = (struct memory *)contents;
    if (memory->fail_code != 0)
        return memory->fail_code;
    for (size_t i = 0; i < memory->n; i++)
        if (memory->items[i]->state == REPLICA_CONTENTS_FILLED)
            memory->items[i]->state = REPLICA_CONTENTS_COMPLETE;
    return 0;
}

static bool memory_has(struct replica_contents *contents, const struct replica_content_id *id,
                       struct replica_piece piece)
{
    const struct item *item = find((struct memory *)contents, id);
    return item != NULL && contents_tree_has(&item->tree, piece);
}

static void append_zeros(struct replica_buffer *out, size_t n)
{
    uint8_t *room = replica_buffer_reserve(out, n);
    if (room != NULL) {
        memset(room, 0, n);
        out->size += n;
    }
}

static int memory_read_piece(struct replica_contents *contents, const struct replica_content_id *id,
                             struct replica_piece piece, struct replica_buffer *ret_data)
{
    struct item *item = find((struct memory *)contents, id);
    size_t n;
    if (!contents_tree_shape(id, piece, &n))
        return REPLICA_E_INVALID;
    if (item == NULL || !contents_tree_has(&item->tree, piece))
        return REPLICA_E_ABSENT;
    if (piece.kind == REPLICA_PIECE_ROOT)
        return replica_buffer_append(ret_data, item->tree.page_ids, n);
    if (piece.kind == REPLICA_PIECE_PAGE)
        return replica_buffer_append(ret_data, item->tree.chunk_ids[piece.index], n);
    if (item->chunks[piece.index] == NULL)
        append_zeros(ret_data, n);
    else
        replica_buffer_append(ret_data, item->chunks[piece.index], n);
    if (ret_data->failed)
        return REPLICA_E_NOMEM;
    return contents_tree_verify(&item->tree, piece, ret_data->data, n) == 0 ? 0 : REPLICA_E_CORRUPT;
}

static int memory_read(struct replica_contents *contents, const struct replica_content_id *id,
                       uint64_t offset, void *data, size_t n, size_t *ret_n)
{
    struct item *item = find((struct memory *)contents, id);
    for (size_t done = 0; done < n;) {
        struct replica_piece piece = {REPLICA_PIECE_CHUNK, (uint32_t)((offset + done) / REPLICA_CHUNK_SIZE)};
        size_t inside = (size_t)((offset + done) % REPLICA_CHUNK_SIZE);
        size_t part = replica_merkle_chunk_size(id->length, piece.index) - inside;
        if (part > n - done)
            part = n - done;
        if (item == NULL || !contents_tree_has(&item->tree, piece))
            return REPLICA_E_ABSENT;
        if (item->chunks[piece.index] == NULL)
            memset((uint8_t *)data + done, 0, part);
        else
            memcpy((uint8_t *)data + done, item->chunks[piece.index] + inside, part);
        done += part;
    }
    *ret_n = n;
    return 0;
}

static int memory_remove(struct replica_contents *contents, const struct replica_content_id *id)
{
    struct memory *memory = (struct memory *)contents;
    const struct item *item = find(memory, id);
    if (item == NULL)
        return REPLICA_E_ABSENT;
    if (item->state == REPLICA_CONTENTS_FILLED)
        return REPLICA_E_BUSY;
    drop(memory, position(memory, id));
    return 0;
}

static int memory_next(struct replica_contents *contents, const struct replica_content_id *after,
                       struct replica_content_id *ret_id, enum replica_contents_state *ret_state)
{
    struct memory *memory = (struct memory *)contents;
    size_t at = after == NULL ? 0 : position(memory, after);
    if (after != NULL && at < memory->n && replica_content_id_equal(&memory->items[at]->tree.id, after))
        at++;
    while (at < memory->n && memory->items[at]->state == REPLICA_CONTENTS_FILLED)
        at++;
    if (at >= memory->n)
        return REPLICA_E_NOTFOUND;
    *ret_id = memory->items[at]->tree.id;
    *ret_state = memory->items[at]->state;
    return 0;
}

static void memory_totals(struct replica_contents *contents, struct replica_contents_totals *ret_totals)
{
    const struct memory *memory = (struct memory *)contents;
    *ret_totals = (struct replica_contents_totals){.count = memory->n};
    for (size_t i = 0; i < memory->n; i++) {
        const struct item *item = memory->items[i];
        bool whole = item->state != REPLICA_CONTENTS_COMPLETE ||
                     item->tree.id.length <= 64 * 1024; /* as the files count */
        ret_totals->bytes += whole ? item->tree.id.length : contents_tree_stored(&item->tree);
    }
}

static void memory_destroy(struct replica_contents *contents)
{
    struct memory *memory = (struct memory *)contents;
    while (memory->n > 0)
        drop(memory, memory->n - 1);
    free(memory->items);
    free(memory);
}

static const struct replica_contents_ops memory_ops = {
    .state = memory_state,
    .begin = memory_begin,
    .write = memory_write,
    .ingest = memory_ingest,
    .sync = memory_sync,
    .has = memory_has,
    .read_piece = memory_read_piece,
    .read = memory_read,
    .remove = memory_remove,
    .next = memory_next,
    .totals = memory_totals,
    .destroy = memory_destroy,
};

int replica_contents_memory_new(struct replica_contents **ret_contents)
{
    struct memory *memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return REPLICA_E_NOMEM;
    memory->base.ops = &memory_ops;
    *ret_contents = &memory->base;
    return 0;
}

void replica_contents_memory_crash(struct replica_contents *contents)
{
    struct memory *memory = (struct memory *)contents;
    for (size_t i = memory->n; i > 0; i--)
        if (memory->items[i - 1]->state != REPLICA_CONTENTS_COMPLETE)
            drop(memory, i - 1);
    memory->fail_code = 0;
}

void replica_contents_memory_fail(struct replica_contents *contents, int code)
{
    ((struct memory *)contents)->fail_code = code;
}

int replica_contents_memory_damage(struct replica_contents *contents, const struct replica_content_id *id,
                                   uint64_t offset)
{
    struct item *item = find((struct memory *)contents, id);
    uint32_t chunk = (uint32_t)(offset / REPLICA_CHUNK_SIZE);
    if (item == NULL || chunk >= item->tree.chunks || item->chunks[chunk] == NULL)
        return REPLICA_E_ABSENT;
    item->chunks[chunk][offset % REPLICA_CHUNK_SIZE] ^= 1;
    return 0;
}
