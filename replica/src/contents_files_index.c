/* Index records: what is complete and where, chunk and page ids, totals. Prefix `C` of the log kv; LevelDB
 * takes writes from any thread. */
#include "contents_files.h"
#include "replica/error.h"

#include <string.h>

#define KEY_MAX    (2 + REPLICA_CONTENT_ID_SIZE + 4)
#define PLACE_SIZE 17 /* 'w' or 'p', pack u64, offset u64 */

static size_t make_key(uint8_t key[KEY_MAX], char tag, const struct replica_content_id *id)
{
    key[0] = 'C';
    key[1] = (uint8_t)tag;
    replica_content_id_encode(id, key + 2);
    return 2 + REPLICA_CONTENT_ID_SIZE;
}

static size_t make_page_key(uint8_t key[KEY_MAX], const struct replica_content_id *id, uint32_t page)
{
    size_t n = make_key(key, 'p', id);
    for (int i = 3; i >= 0; i--, page >>= 8)
        key[n + (size_t)i] = (uint8_t)page;
    return n + 4;
}

static void encode_place(const struct files_item *item, uint8_t place[PLACE_SIZE])
{
    place[0] = item->packed ? 'p' : 'w';
    replica_u64_encode(item->pack, place + 1);
    replica_u64_encode(item->offset, place + 9);
}

static int decode_place(const uint8_t *place, size_t n, struct files_place *ret_place)
{
    if (n != PLACE_SIZE || (place[0] != 'w' && place[0] != 'p'))
        return REPLICA_E_CORRUPT;
    ret_place->packed = place[0] == 'p';
    ret_place->pack = replica_u64_decode(place + 1);
    ret_place->offset = replica_u64_decode(place + 9);
    return 0;
}

int files_index_get(struct files *files, const struct replica_content_id *id, struct files_place *ret_place)
{
    uint8_t key[KEY_MAX];
    size_t n = make_key(key, 'i', id);
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(files->log, key, n, &value);
    if (rv == 0)
        rv = decode_place(value.data, value.size, ret_place);
    replica_buffer_close(&value);
    return rv;
}

void files_filled_put(struct replica_kv_batch *batch, const struct files_item *item)
{
    uint8_t key[KEY_MAX], place[PLACE_SIZE];
    size_t n = make_key(key, 'f', &item->tree.id);
    encode_place(item, place);
    replica_kv_batch_put(batch, key, n, place, sizeof place);
}

void files_filled_delete(struct replica_kv_batch *batch, const struct replica_content_id *id)
{
    uint8_t key[KEY_MAX];
    size_t n = make_key(key, 'f', id);
    replica_kv_batch_delete(batch, key, n);
}

int files_filled_next(struct files *files, const struct replica_content_id *after,
                      struct replica_content_id *ret_id, struct files_place *ret_place)
{
    uint8_t key[KEY_MAX + 1] = {'C', 'f'};
    size_t n = 2, at_n, value_n;
    const uint8_t *at, *value;
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(files->log, &cursor), found = REPLICA_E_NOTFOUND;
    if (rv != 0)
        return rv;
    if (after != NULL) {
        n = make_key(key, 'f', after);
        key[n++] = 0;
    }
    replica_kv_cursor_seek(cursor, key, n);
    if (replica_kv_cursor_valid(cursor)) {
        replica_kv_cursor_key(cursor, &at, &at_n);
        if (at_n == 2 + REPLICA_CONTENT_ID_SIZE && at[0] == 'C' && at[1] == 'f') {
            replica_content_id_decode(at + 2, ret_id);
            replica_kv_cursor_value(cursor, &value, &value_n);
            found = decode_place(value, value_n, ret_place);
        }
    }
    rv = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : found;
}

void files_index_put(struct replica_kv_batch *batch, const struct files_item *item)
{
    const struct contents_tree *tree = &item->tree;
    uint8_t key[KEY_MAX], place[PLACE_SIZE];
    size_t n;
    for (uint32_t page = 0; page < tree->pages && tree->chunks > 1; page++) {
        n = make_page_key(key, &tree->id, page);
        replica_kv_batch_put(batch, key, n, tree->chunk_ids[page],
                             replica_merkle_page_chunks(tree->id.length, page) * REPLICA_HASH_SIZE);
    }
    if (tree->pages > 1) {
        n = make_key(key, 'r', &tree->id);
        replica_kv_batch_put(batch, key, n, tree->page_ids, tree->pages * REPLICA_HASH_SIZE);
    }
    encode_place(item, place);
    n = make_key(key, 'i', &tree->id);
    replica_kv_batch_put(batch, key, n, place, sizeof place);
}

void files_index_delete(struct replica_kv_batch *batch, const struct replica_content_id *id)
{
    uint8_t key[KEY_MAX];
    for (uint32_t page = 0; page < replica_merkle_pages(id->length) && replica_merkle_chunks(id->length) > 1;
         page++)
        replica_kv_batch_delete(batch, key, make_page_key(key, id, page));
    replica_kv_batch_delete(batch, key, make_key(key, 'r', id));
    replica_kv_batch_delete(batch, key, make_key(key, 'i', id));
}

int files_index_ids(struct files *files, const struct replica_content_id *id, struct replica_piece piece,
                    struct replica_buffer *ret_ids)
{
    uint8_t key[KEY_MAX];
    size_t n = piece.kind == REPLICA_PIECE_ROOT ? make_key(key, 'r', id)
                                                : make_page_key(key, id, piece.index),
           size;
    int rv = replica_kv_get(files->log, key, n, ret_ids);
    if (rv == REPLICA_E_NOTFOUND ||
        (rv == 0 && (!contents_tree_shape(id, piece, &size) || ret_ids->size != size)))
        rv = REPLICA_E_CORRUPT;
    return rv;
}

int files_index_next(struct files *files, const struct replica_content_id *after,
                     struct replica_content_id *ret_id)
{
    uint8_t key[KEY_MAX + 1];
    size_t n = 2;
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(files->log, &cursor), found = REPLICA_E_NOTFOUND;
    if (rv != 0)
        return rv;
    memcpy(key, "Ci", 2);
    if (after != NULL) {
        n = make_key(key, 'i', after);
        key[n++] = 0;
    }
    replica_kv_cursor_seek(cursor, key, n);
    if (replica_kv_cursor_valid(cursor)) {
        const uint8_t *at;
        size_t at_n;
        replica_kv_cursor_key(cursor, &at, &at_n);
        if (at_n == 2 + REPLICA_CONTENT_ID_SIZE && at[0] == 'C' && at[1] == 'i') {
            replica_content_id_decode(at + 2, ret_id);
            found = 0;
        }
    }
    rv = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : found;
}

void files_totals_put(struct files *files, struct replica_kv_batch *batch)
{
    uint8_t value[32];
    replica_u64_encode(files->totals.count, value);
    replica_u64_encode(files->totals.bytes, value + 8);
    replica_u64_encode(files->pack, value + 16);
    replica_u64_encode(files->next_draft, value + 24);
    replica_kv_batch_put(batch, "Ct", 2, value, sizeof value);
}

int files_totals_get(struct files *files)
{
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(files->log, "Ct", 2, &value);
    if (rv == 0 && value.size == 32) {
        files->totals.count = replica_u64_decode(value.data);
        files->totals.bytes = replica_u64_decode(value.data + 8);
        files->pack = replica_u64_decode(value.data + 16);
        files->next_draft = replica_u64_decode(value.data + 24);
    } else if (rv == 0)
        rv = REPLICA_E_CORRUPT;
    else if (rv == REPLICA_E_NOTFOUND)
        rv = 0;
    replica_buffer_close(&value);
    return rv;
}
