/* Reading: nothing that does not hash to its id leaves here.
 *
 * The index keeps the ids of chunks, so a read of any length costs the hashing of the chunks that it touches
 * (about half a millisecond each). Descriptors to whole files are the other way to the bytes: who copies from
 * one verifies for itself (contents_files_damage.c has what is checked when one is given out). */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ATTEMPTS 2 /* a chunk is read twice before it is called damaged: memory errs too */

static int open_place(struct files *files, const struct replica_content_id *id,
                      const struct files_place *place, int *ret_fd)
{
    char name[FILES_NAME_MAX];
    if (place->packed)
        files_pack_name(place->pack, name);
    else
        files_whole_name(id, name);
    *ret_fd = openat(place->packed ? files->packs : files->whole, name, O_RDONLY | O_CLOEXEC);
    if (*ret_fd >= 0)
        return 0;
    return errno == ENOENT ? REPLICA_E_CORRUPT : files_errno();
}

/* Lock held. Of one that is not complete, chunks [first, last] must be present. */
static int open_item(struct files *files, const struct files_item *item, uint32_t first, uint32_t last,
                     struct files_bytes *bytes)
{
    char name[FILES_NAME_MAX];
    for (uint32_t chunk = first; chunk <= last; chunk++)
        if (!contents_tree_has(&item->tree, (struct replica_piece){REPLICA_PIECE_CHUNK, chunk}))
            return REPLICA_E_ABSENT;
    bytes->place = (struct files_place){.packed = item->packed, .pack = item->pack, .offset = item->offset};
    if (item->packed)
        return open_place(files, &item->tree.id, &bytes->place, &bytes->fd);
    files_name(&item->tree.id, name);
    bytes->fd = openat(files->partial, name, O_RDONLY | O_CLOEXEC);
    return bytes->fd >= 0 ? 0 : errno == ENOENT ? REPLICA_E_CORRUPT : files_errno();
}

int files_bytes_open(struct files *files, const struct replica_content_id *id, uint32_t first, uint32_t last,
                     struct files_bytes *bytes)
{
    const struct files_item *item;
    int rv = 0;
    *bytes = (struct files_bytes){.fd = -1};
    pthread_mutex_lock(&files->lock);
    item = files_find(files, id);
    if (item != NULL)
        rv = open_item(files, item, first, last, bytes);
    pthread_mutex_unlock(&files->lock);
    if (item != NULL)
        return rv;
    rv = files_index_get(files, id, &bytes->place);
    if (rv != 0)
        return rv == REPLICA_E_NOTFOUND ? REPLICA_E_ABSENT : rv;
    bytes->complete = true;
    return open_place(files, id, &bytes->place, &bytes->fd);
}

void files_bytes_close(struct files_bytes *bytes)
{
    if (bytes->fd >= 0)
        close(bytes->fd);
    bytes->fd = -1;
}

static int read_ids(struct files *files, const struct replica_content_id *id, struct replica_piece piece,
                    size_t n, struct replica_buffer *ret_data)
{
    struct files_item *item;
    int rv = 0;
    pthread_mutex_lock(&files->lock);
    item = files_find(files, id);
    if (item != NULL && !contents_tree_has(&item->tree, piece))
        rv = REPLICA_E_ABSENT;
    else if (item != NULL)
        rv = replica_buffer_append(
            ret_data,
            piece.kind == REPLICA_PIECE_ROOT ? item->tree.page_ids : item->tree.chunk_ids[piece.index], n);
    pthread_mutex_unlock(&files->lock);
    if (item == NULL)
        rv = files_index_ids(files, id, piece, ret_data);
    return rv;
}

/* The id that the chunk's bytes must have. */
static int expected_chunk(struct files *files, const struct replica_content_id *id, uint32_t chunk,
                          struct replica_hash *ret_hash)
{
    struct replica_piece page = {REPLICA_PIECE_PAGE, chunk / REPLICA_PAGE_CHUNKS};
    struct replica_buffer ids;
    size_t n;
    int rv;
    if (replica_merkle_chunks(id->length) == 1) {
        memcpy(ret_hash->bytes, id->root, REPLICA_HASH_SIZE);
        return 0;
    }
    if (!contents_tree_shape(id, page, &n))
        return REPLICA_E_INVALID;
    replica_buffer_init(&ids);
    rv = read_ids(files, id, page, n, &ids);
    if (rv == 0)
        memcpy(ret_hash->bytes, ids.data + (chunk % REPLICA_PAGE_CHUNKS) * REPLICA_HASH_SIZE,
               REPLICA_HASH_SIZE);
    replica_buffer_close(&ids);
    return rv;
}

int files_bytes_chunk(struct files *files, const struct replica_content_id *id,
                      const struct files_bytes *bytes, uint32_t chunk, uint8_t *data)
{
    uint32_t n = replica_merkle_chunk_size(id->length, chunk);
    uint64_t base = bytes->place.packed ? bytes->place.offset : 0;
    struct replica_hash expected, hash;
    int rv = expected_chunk(files, id, chunk, &expected);
    if (rv != 0)
        return rv;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        rv = files_read_all(bytes->fd, data, n, base + chunk * REPLICA_CHUNK_SIZE);
        if (rv != 0 && rv != REPLICA_E_IO && rv != REPLICA_E_CORRUPT)
            return rv;
        replica_merkle_chunk(data, n, &hash);
        if (rv == 0 && memcmp(hash.bytes, expected.bytes, REPLICA_HASH_SIZE) == 0)
            return 0;
    }
    return REPLICA_E_CORRUPT; /* also where the disk cannot read it: another holder's bytes will do */
}

/* [offset, offset + n) through the chunks that it touches. */
static int read_range(struct files *files, const struct replica_content_id *id,
                      const struct files_bytes *bytes, uint64_t offset, uint8_t *data, size_t n)
{
    uint8_t *scratch = NULL;
    int rv = 0;
    while (n > 0 && rv == 0) {
        uint32_t chunk = (uint32_t)(offset / REPLICA_CHUNK_SIZE);
        size_t skip = (size_t)(offset % REPLICA_CHUNK_SIZE),
               size = replica_merkle_chunk_size(id->length, chunk), part = size - skip < n ? size - skip : n;
        if (part < size && scratch == NULL && (scratch = malloc(REPLICA_CHUNK_SIZE)) == NULL)
            return REPLICA_E_NOMEM;
        rv = files_bytes_chunk(files, id, bytes, chunk, part < size ? scratch : data);
        if (rv == 0 && part < size)
            memcpy(data, scratch + skip, part);
        data += part;
        offset += part;
        n -= part;
    }
    free(scratch);
    return rv;
}

int files_read(struct replica_contents *contents, const struct replica_content_id *id, uint64_t offset,
               void *data, size_t n, size_t *ret_n)
{
    struct files *files = (struct files *)contents;
    struct files_bytes bytes;
    int rv = files_bytes_open(files, id, (uint32_t)(offset / REPLICA_CHUNK_SIZE),
                              (uint32_t)((offset + n - 1) / REPLICA_CHUNK_SIZE), &bytes);
    if (rv == 0)
        rv = read_range(files, id, &bytes, offset, data, n);
    files_bytes_close(&bytes);
    if (rv == REPLICA_E_CORRUPT)
        rv = files_set_aside(files, id, &bytes);
    if (rv == 0)
        *ret_n = n;
    return rv;
}

int files_read_piece(struct replica_contents *contents, const struct replica_content_id *id,
                     struct replica_piece piece, struct replica_buffer *ret_data)
{
    struct files *files = (struct files *)contents;
    struct files_bytes bytes;
    uint8_t *room;
    size_t n;
    int rv;
    if (!contents_tree_shape(id, piece, &n))
        return REPLICA_E_INVALID;
    if (piece.kind != REPLICA_PIECE_CHUNK)
        return replica_contents_state(contents, id) == REPLICA_CONTENTS_ABSENT
                   ? REPLICA_E_ABSENT
                   : read_ids(files, id, piece, n, ret_data);
    rv = files_bytes_open(files, id, piece.index, piece.index, &bytes);
    if (rv == 0) {
        room = replica_buffer_reserve(ret_data, n);
        rv = room == NULL ? REPLICA_E_NOMEM : files_bytes_chunk(files, id, &bytes, piece.index, room);
    }
    files_bytes_close(&bytes);
    if (rv == 0)
        ret_data->size += n;
    return rv == REPLICA_E_CORRUPT ? files_set_aside(files, id, &bytes) : rv;
}
