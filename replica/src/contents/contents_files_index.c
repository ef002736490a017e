/* Index records: what is complete and where, chunk and page ids, totals. Prefix `C` of the log kv; LevelDB
 * takes writes from any thread. */
#include "contents/contents_files.h"
#include "replica/error.h"

#include <string.h>

#define KEY_MAX    (2 + REPLICA_CONTENT_ID_SIZE + 4)
#define PLACE_SIZE 25 /* 'w' or 'p', pack u64, offset u64, stored bytes u64 */
#define LIVE_SIZE  16 /* bytes u64, contents u64 */

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

static void encode_place(const struct files_place *place, uint8_t value[PLACE_SIZE])
{
    value[0] = place->packed ? 'p' : 'w';
    replica_u64_encode(place->pack, value + 1);
    replica_u64_encode(place->offset, value + 9);
    replica_u64_encode(place->stored, value + 17);
}

static int decode_place(const uint8_t *value, size_t n, struct files_place *ret_place)
{
    if (n != PLACE_SIZE || (value[0] != 'w' && value[0] != 'p'))
        return REPLICA_E_CORRUPT;
    ret_place->packed = value[0] == 'p';
    ret_place->pack = replica_u64_decode(value + 1);
    ret_place->offset = replica_u64_decode(value + 9);
    ret_place->stored = replica_u64_decode(value + 17);
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
    struct files_place place = {.packed = item->packed, .pack = item->pack, .offset = item->offset};
    uint8_t key[KEY_MAX], value[PLACE_SIZE];
    size_t n = make_key(key, 'f', &item->tree.id);
    encode_place(&place, value);
    replica_kv_batch_put(batch, key, n, value, sizeof value);
}

void files_filled_delete(struct replica_kv_batch *batch, const struct replica_content_id *id)
{
    uint8_t key[KEY_MAX];
    replica_kv_batch_delete(batch, key, make_key(key, 'f', id));
}

/* The first record of a tag behind `after`, and its place. */
static int next_record(struct files *files, char tag, const struct replica_content_id *after,
                       struct replica_content_id *ret_id, struct files_place *ret_place)
{
    uint8_t key[KEY_MAX + 1] = {'C', (uint8_t)tag};
    size_t n = 2, at_n, value_n;
    const uint8_t *at, *value;
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(files->log, &cursor), found = REPLICA_E_NOTFOUND;
    if (rv != 0)
        return rv;
    if (after != NULL) {
        n = make_key(key, tag, after);
        key[n++] = 0;
    }
    replica_kv_cursor_seek(cursor, key, n);
    if (replica_kv_cursor_valid(cursor)) {
        replica_kv_cursor_key(cursor, &at, &at_n);
        if (at_n == 2 + REPLICA_CONTENT_ID_SIZE && at[0] == 'C' && at[1] == (uint8_t)tag) {
            replica_content_id_decode(at + 2, ret_id);
            replica_kv_cursor_value(cursor, &value, &value_n);
            found = ret_place == NULL ? 0 : decode_place(value, value_n, ret_place);
        }
    }
    rv = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : found;
}

int files_filled_next(struct files *files, const struct replica_content_id *after,
                      struct replica_content_id *ret_id, struct files_place *ret_place)
{
    return next_record(files, 'f', after, ret_id, ret_place);
}

int files_index_next(struct files *files, const struct replica_content_id *after,
                     struct replica_content_id *ret_id)
{
    return next_record(files, 'i', after, ret_id, NULL);
}

/* What was removed, and whose bytes are still to be let go of: put with the removal, so that a crash in
 * between leaves nothing that nobody knows. */
void files_going_put(struct replica_kv_batch *batch, const struct replica_content_id *id,
                     const struct files_place *place)
{
    uint8_t key[KEY_MAX], value[PLACE_SIZE];
    encode_place(place, value);
    replica_kv_batch_put(batch, key, make_key(key, 'g', id), value, sizeof value);
}

void files_going_delete(struct replica_kv_batch *batch, const struct replica_content_id *id)
{
    uint8_t key[KEY_MAX];
    replica_kv_batch_delete(batch, key, make_key(key, 'g', id));
}

int files_going_next(struct files *files, const struct replica_content_id *after,
                     struct replica_content_id *ret_id, struct files_place *ret_place)
{
    return next_record(files, 'g', after, ret_id, ret_place);
}

void files_damaged_put(struct replica_kv_batch *batch, const struct replica_content_id *id)
{
    uint8_t key[KEY_MAX];
    replica_kv_batch_put(batch, key, make_key(key, 'd', id), "", 0);
}

void files_damaged_delete(struct replica_kv_batch *batch, const struct replica_content_id *id)
{
    uint8_t key[KEY_MAX];
    replica_kv_batch_delete(batch, key, make_key(key, 'd', id));
}

bool files_damaged_get(struct files *files, const struct replica_content_id *id)
{
    uint8_t key[KEY_MAX];
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(files->log, key, make_key(key, 'd', id), &value);
    replica_buffer_close(&value);
    return rv == 0;
}

int files_damaged_next(struct files *files, const struct replica_content_id *after,
                       struct replica_content_id *ret_id)
{
    return next_record(files, 'd', after, ret_id, NULL);
}

void files_index_place(struct replica_kv_batch *batch, const struct replica_content_id *id,
                       const struct files_place *place)
{
    uint8_t key[KEY_MAX], value[PLACE_SIZE];
    encode_place(place, value);
    replica_kv_batch_put(batch, key, make_key(key, 'i', id), value, sizeof value);
}

void files_index_put(struct replica_kv_batch *batch, const struct files_item *item,
                     const struct files_place *place)
{
    const struct contents_tree *tree = &item->tree;
    uint8_t key[KEY_MAX];
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
    files_index_place(batch, &tree->id, place);
}

static int read_live(struct files *files, const struct replica_kv_batch *pending, uint64_t pack,
                     uint64_t *ret_bytes, uint64_t *ret_n)
{
    uint8_t key[10] = {'C', 'k'};
    struct replica_buffer value;
    int rv;
    replica_u64_encode(pack, key + 2);
    replica_buffer_init(&value);
    rv = replica_kv_get_through(files->log, pending, key, sizeof key, &value);
    if (rv == 0 && value.size != LIVE_SIZE)
        rv = REPLICA_E_CORRUPT;
    *ret_bytes = rv == 0 ? replica_u64_decode(value.data) : 0;
    *ret_n = rv == 0 ? replica_u64_decode(value.data + 8) : 0;
    replica_buffer_close(&value);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

int files_index_pack_live(struct files *files, uint64_t pack, uint64_t *ret_live)
{
    uint64_t bytes;
    return read_live(files, NULL, pack, &bytes, ret_live);
}

int files_index_pack(struct files *files, struct replica_kv_batch *batch, const struct files_place *place,
                     bool add, uint64_t *ret_live)
{
    uint8_t key[10] = {'C', 'k'}, value[LIVE_SIZE];
    uint64_t bytes, n;
    int rv = read_live(files, batch, place->pack, &bytes, &n);
    if (rv != 0)
        return rv;
    if (!add && (n == 0 || bytes < place->stored))
        return REPLICA_E_CORRUPT;
    n = add ? n + 1 : n - 1;
    bytes = add ? bytes + place->stored : bytes - place->stored;
    replica_u64_encode(place->pack, key + 2);
    replica_u64_encode(bytes, value);
    replica_u64_encode(n, value + 8);
    if (n == 0)
        replica_kv_batch_delete(batch, key, sizeof key);
    else
        replica_kv_batch_put(batch, key, sizeof key, value, sizeof value);
    *ret_live = n;
    return 0;
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
