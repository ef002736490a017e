/* Opening, states, pieces. */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The operations */

static enum replica_contents_state files_state(struct replica_contents *contents,
                                               const struct replica_content_id *id)
{
    struct files *files = (struct files *)contents;
    struct files_place place;
    struct files_item *item;
    enum replica_contents_state state = REPLICA_CONTENTS_ABSENT;
    pthread_mutex_lock(&files->lock);
    item = files_find(files, id);
    if (item != NULL)
        state = item->state;
    pthread_mutex_unlock(&files->lock);
    if (item == NULL && files_index_get(files, id, &place) == 0)
        state = REPLICA_CONTENTS_COMPLETE;
    return state;
}

/* The file of a partial content, sparse from the start. */
static int make_partial(struct files *files, const struct replica_content_id *id)
{
    char name[FILES_NAME_MAX];
    int fd, rv = 0;
    files_name(id, name);
    unlinkat(files->partial, name,
             0); /* another name of one that was complete, perhaps: its readers keep it as it is */
    fd = openat(files->partial, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)id->length) != 0)
        rv = files_errno();
    if (fd >= 0)
        close(fd);
    if (rv != 0)
        unlinkat(files->partial, name, 0);
    return rv;
}

static int files_begin(struct replica_contents *contents, const struct replica_content_id *id)
{
    struct files *files = (struct files *)contents;
    /* Of a larger one the first ids tell how much of it is no hole: then it claims that. */
    uint64_t claims = id->length <= REPLICA_CHUNK_SIZE ? id->length : 0;
    struct files_place place;
    struct files_item *item;
    int rv;
    pthread_mutex_lock(&files->lock);
    item = files_find(files, id);
    if (item != NULL && item->leftover) {
        item->leftover = false;
        item->has_old = true;
    }
    rv = item != NULL || files_index_get(files, id, &place) == 0
             ? 0
             : files_check_space(files, id->length < REPLICA_CHUNK_SIZE ? id->length : REPLICA_CHUNK_SIZE);
    if (rv == 0 && item == NULL && files_index_get(files, id, &place) != 0) {
        rv = files_add(files, id, claims, &item);
        if (rv == 0 && !item->packed)
            rv = make_partial(files, id);
        if (rv != 0 && item != NULL)
            files_drop(files, item);
    }
    pthread_mutex_unlock(&files->lock);
    return rv;
}

/* The chunk is verified; its bytes go to the partial file outside the lock. */
static int write_chunk(struct files *files, const struct files_item *item, uint32_t chunk, const void *data,
                       size_t n)
{
    bool hole = files_all_zero(data, n);
    char name[FILES_NAME_MAX];
    int fd, rv;
    if (hole && !item->has_old)
        return 0;
    rv = files_check_floor(files, n);
    if (rv != 0)
        return rv;
    files_name(&item->tree.id, name);
    fd = openat(files->partial, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return files_errno();
    rv = files_write_all(fd, data, n, chunk * REPLICA_CHUNK_SIZE);
    files_write_behind(fd, chunk * REPLICA_CHUNK_SIZE, n);
    if (close(fd) != 0 && rv == 0)
        rv = files_errno();
    return rv;
}

/* Called and returns with the lock held; the item has a user. */
static int take_chunk(struct files *files, struct files_item *item, struct replica_piece piece,
                      const void *data, size_t n)
{
    const struct replica_hash *known = contents_tree_chunk_id(&item->tree, piece.index);
    struct replica_hash expected, hash;
    int rv = 0;
    if (known == NULL)
        return REPLICA_E_ABSENT;
    expected = *known;
    pthread_mutex_unlock(&files->lock);
    replica_merkle_chunk(data, n, &hash);
    if (memcmp(hash.bytes, expected.bytes, REPLICA_HASH_SIZE) != 0)
        rv = REPLICA_E_MISMATCH;
    else if (!item->packed)
        rv = write_chunk(files, item, piece.index, data, n);
    pthread_mutex_lock(&files->lock);
    if (rv != 0 || item->dropped || item->state != REPLICA_CONTENTS_PARTIAL ||
        contents_tree_has(&item->tree, piece))
        return rv;
    if (item->packed)
        rv = files_pack_append(files, item, data, n);
    if (rv == 0)
        contents_tree_mark(&item->tree, piece.index);
    return rv;
}

/* A chunk of the page is in the old file if its hash says so. Lock held; let go while reading. */
static void take_old_chunk(struct files *files, struct files_item *item, int fd, uint32_t chunk,
                           uint8_t *bytes)
{
    struct replica_hash expected = *contents_tree_chunk_id(&item->tree, chunk), hash;
    uint32_t n = replica_merkle_chunk_size(item->tree.id.length, chunk);
    int rv;
    pthread_mutex_unlock(&files->lock);
    rv = files_read_all(fd, bytes, n, chunk * REPLICA_CHUNK_SIZE);
    if (rv == 0)
        replica_merkle_chunk(bytes, n, &hash);
    pthread_mutex_lock(&files->lock);
    if (rv == 0 && memcmp(hash.bytes, expected.bytes, REPLICA_HASH_SIZE) == 0 &&
        item->state == REPLICA_CONTENTS_PARTIAL)
        contents_tree_mark(&item->tree, chunk);
}

/* Resuming: the bytes that an earlier life wrote are taken in page by page, none unverified. Holes of this
 * page may hold old garbage. */
static int take_old_page(struct files *files, struct files_item *item, uint32_t page)
{
    uint32_t first = page * REPLICA_PAGE_CHUNKS, n = replica_merkle_page_chunks(item->tree.id.length, page);
    uint8_t *bytes = malloc(REPLICA_CHUNK_SIZE);
    char name[FILES_NAME_MAX];
    int fd, rv = 0;
    files_name(&item->tree.id, name);
    fd = openat(files->partial, name, O_RDWR | O_CLOEXEC);
    if (fd < 0 || bytes == NULL)
        rv = bytes == NULL ? REPLICA_E_NOMEM : files_errno();
    for (uint32_t chunk = first; chunk < first + n && rv == 0 && !item->dropped; chunk++) {
        struct replica_piece piece = {REPLICA_PIECE_CHUNK, chunk};
        off_t at = (off_t)(chunk * REPLICA_CHUNK_SIZE),
              size = replica_merkle_chunk_size(item->tree.id.length, chunk);
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0 || data >= at + size)
            continue; /* nothing was written there */
        if (!contents_tree_has(&item->tree, piece))
            take_old_chunk(files, item, fd, chunk, bytes);
        else if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size) != 0)
            rv = files_errno(); /* a hole by its hash */
    }
    if (fd >= 0)
        close(fd);
    free(bytes);
    return rv;
}

/* What the content claims once these ids are known. The first ones settle all of it, a later page its own part of what the root said. */
static uint64_t claims_with(const struct files_item *item, struct replica_piece piece,
                            const struct replica_hash *ids)
{
    const struct contents_tree *tree = &item->tree;
    uint64_t bound = contents_tree_bound(&tree->id, piece, ids), whole;
    if (tree->pages == 1 || piece.kind == REPLICA_PIECE_ROOT)
        return bound;
    whole = piece.index + 1 == tree->pages ? tree->id.length - (uint64_t)piece.index * REPLICA_PAGE_SIZE
                                           : REPLICA_PAGE_SIZE;
    if (bound == 0 && piece.index + 1 < tree->pages)
        return item->claims; /* a page of nothing but holes: the root did not count it */
    return item->claims - whole + bound;
}

/* A content that there is no room for is refused before a byte of what these ids name is asked for. */
static int take_ids(struct files *files, struct files_item *item, struct replica_piece piece,
                    const void *data, size_t n)
{
    uint64_t claims = 0;
    int rv = contents_tree_verify(&item->tree, piece, data, n);
    if (rv == 0) {
        claims = claims_with(item, piece, data);
        if (claims > item->claims)
            rv = files_check_space(files, claims - item->claims);
    }
    if (rv == 0)
        rv = contents_tree_learn(&item->tree, piece, data);
    if (rv == 0)
        files_claim(files, item, claims);
    if (rv == 0 && piece.kind == REPLICA_PIECE_PAGE && item->has_old)
        rv = take_old_page(files, item, piece.index);
    return rv;
}

static int files_write(struct replica_contents *contents, const struct replica_content_id *id,
                       struct replica_piece piece, const void *data, size_t n)
{
    struct files *files = (struct files *)contents;
    struct files_place place;
    struct files_item *item;
    int rv = 0;
    pthread_mutex_lock(&files->lock);
    item = files_find(files, id);
    if (item == NULL || item->leftover)
        rv = item != NULL || files_index_get(files, id, &place) != 0 ? REPLICA_E_ABSENT : 0;
    else if (item->state == REPLICA_CONTENTS_PARTIAL && !contents_tree_has(&item->tree, piece)) {
        item->users++;
        rv = piece.kind == REPLICA_PIECE_CHUNK ? take_chunk(files, item, piece, data, n)
                                               : take_ids(files, item, piece, data, n);
        if (rv == 0 && !item->dropped && item->state == REPLICA_CONTENTS_PARTIAL &&
            contents_tree_is_filled(&item->tree))
            rv = files_set_filled(files, item);
        files_leave(files, item);
    }
    pthread_mutex_unlock(&files->lock);
    return rv;
}

static bool files_has(struct replica_contents *contents, const struct replica_content_id *id,
                      struct replica_piece piece)
{
    struct files *files = (struct files *)contents;
    struct files_place place;
    struct files_item *item;
    size_t n;
    bool has;
    if (!contents_tree_shape(id, piece, &n))
        return false;
    pthread_mutex_lock(&files->lock);
    item = files_find(files, id);
    has = item != NULL && contents_tree_has(&item->tree, piece);
    pthread_mutex_unlock(&files->lock);
    return item != NULL ? has : files_index_get(files, id, &place) == 0;
}

int files_remove_complete(struct files *files, const struct replica_content_id *id, bool damaged)
{
    struct files_release release = {.id = *id, .complete = true};
    struct replica_kv_batch batch;
    uint64_t live;
    int rv = files_index_get(files, id, &release.place);
    if (rv != 0)
        return rv == REPLICA_E_NOTFOUND ? REPLICA_E_ABSENT : rv;
    replica_kv_batch_init(&batch);
    files_index_delete(&batch, id);
    if (release.place.packed)
        rv = files_index_pack(files, &batch, &release.place, false, &live);
    files_going_put(&batch, id, &release.place);
    if (damaged)
        files_damaged_put(&batch, id);
    if (rv == 0)
        rv = files_release_later(files, &release);
    if (rv == 0) {
        files->damaged += damaged;
        files->totals.count--;
        files->totals.bytes -=
            release.place.stored < files->totals.bytes ? release.place.stored : files->totals.bytes;
        files_totals_put(files, &batch);
        rv = replica_kv_write(files->log, &batch);
    }
    replica_kv_batch_close(&batch);
    return rv;
}

static int files_remove(struct replica_contents *contents, const struct replica_content_id *id)
{
    struct files *files = (struct files *)contents;
    struct files_item *item;
    char name[FILES_NAME_MAX];
    int rv = 0;
    pthread_mutex_lock(&files->lock);
    item = files_find(files, id);
    if (item == NULL)
        rv = files_remove_complete(files, id, false);
    else if (item->state != REPLICA_CONTENTS_PARTIAL || item->users > 0)
        rv = REPLICA_E_BUSY;
    else {
        files_name(id, name);
        unlinkat(files->partial, name, 0);
        files_drop(files, item);
    }
    pthread_mutex_unlock(&files->lock);
    return rv;
}

static int files_next(struct replica_contents *contents, const struct replica_content_id *after,
                      struct replica_content_id *ret_id, enum replica_contents_state *ret_state)
{
    struct files *files = (struct files *)contents;
    const struct files_item *partial;
    struct replica_content_id complete;
    int rv;
    pthread_mutex_lock(&files->lock);
    rv = files_index_next(files, after, &complete);
    partial = files_partial_next(files, after);
    if (partial != NULL && (rv == REPLICA_E_NOTFOUND ||
                            (rv == 0 && replica_content_id_compare(&partial->tree.id, &complete) < 0))) {
        *ret_id = partial->tree.id;
        *ret_state = REPLICA_CONTENTS_PARTIAL;
        rv = 0;
    } else if (rv == 0) {
        *ret_id = complete;
        *ret_state = REPLICA_CONTENTS_COMPLETE;
    }
    pthread_mutex_unlock(&files->lock);
    return rv;
}

static void files_totals(struct replica_contents *contents, struct replica_contents_totals *ret_totals)
{
    struct files *files = (struct files *)contents;
    pthread_mutex_lock(&files->lock);
    ret_totals->count = files->totals.count + files->open.count;
    ret_totals->bytes = files->totals.bytes + files->open.bytes;
    pthread_mutex_unlock(&files->lock);
}

/* Opening */

/* *ret_made: it was not there. */
static int make_directory(int parent, const char *name, int *ret_fd, bool *ret_made)
{
    if (mkdirat(parent, name, 0700) == 0)
        *ret_made = true;
    else if (errno != EEXIST)
        return files_errno();
    *ret_fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_fd >= 0 ? 0 : files_errno();
}

static int make_whole(struct files *files, bool *ret_made)
{
    for (int i = 0; i < 256; i++) {
        char name[4];
        snprintf(name, sizeof name, "%02x", i);
        if (mkdirat(files->whole, name, 0700) == 0)
            *ret_made = true;
        else if (errno != EEXIST)
            return files_errno();
    }
    return fsync(files->whole) != 0 ? files_errno() : 0;
}

static void files_destroy(struct replica_contents *contents)
{
    struct files *files = (struct files *)contents;
    int fds[] = {files->directory, files->partial,    files->whole,  files->packs,
                 files->draft,     files->quarantine, files->pack_fd};
    for (size_t i = 0; i < FILES_TABLE_SIZE; i++)
        while (files->table[i] != NULL)
            files_drop(files, files->table[i]);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_cond_destroy(&files->left);
    pthread_mutex_destroy(&files->lock);
    pthread_mutex_destroy(&files->sync_lock);
    free(files->releases);
    free(files);
}

static int files_ingest(struct replica_contents *contents, const void *data, size_t n,
                        struct replica_content_id *ret_id);

static const struct replica_contents_ops files_ops = {
    .state = files_state,
    .begin = files_begin,
    .write = files_write,
    .ingest = files_ingest,
    .sync = files_sync,
    .has = files_has,
    .read_piece = files_read_piece,
    .read = files_read,
    .remove = files_remove,
    .next = files_next,
    .totals = files_totals,
    .destroy = files_destroy,
};

static int make_directories(struct files *files, const char *path, bool *ret_made)
{
    bool ignored;
    int rv = make_directory(AT_FDCWD, path, &files->directory, ret_made);
    if (rv == 0)
        rv = make_directory(files->directory, "partial", &files->partial, &ignored);
    if (rv == 0)
        rv = make_directory(files->directory, "whole", &files->whole, ret_made);
    if (rv == 0)
        rv = make_directory(files->directory, "packs", &files->packs, ret_made);
    if (rv == 0)
        rv = make_directory(files->directory, "draft", &files->draft, &ignored);
    if (rv == 0)
        rv = make_directory(files->directory, "quarantine", &files->quarantine, &ignored);
    return rv == 0 ? make_whole(files, ret_made) : rv;
}

int replica_contents_files_open(const struct replica_contents_files_options *options,
                                struct replica_contents **ret_contents)
{
    struct files *files = calloc(1, sizeof *files);
    bool made = false;
    int rv;
    if (files == NULL)
        return REPLICA_E_NOMEM;
    files->base.ops = &files_ops;
    files->log = options->log;
    files->capacity = options->capacity;
    files->free_floor = options->free_floor;
    files->on_damage = options->on_damage;
    files->damage_context = options->context;
    files->partial = files->whole = files->packs = files->draft = files->quarantine = files->pack_fd = -1;
    files->filled_end = &files->filled;
    pthread_mutex_init(&files->lock, NULL);
    pthread_cond_init(&files->left, NULL);
    pthread_mutex_init(&files->sync_lock, NULL);
    rv = make_directories(files, options->path, &made);
    if (rv == 0)
        rv = files_totals_get(files);
    if (rv == 0)
        rv = files_recover(files, made);
    if (rv == 0 && fsync(files->directory) != 0)
        rv = files_errno();
    if (rv != 0) {
        files_destroy(&files->base);
        return rv;
    }
    files->pack += 1000; /* never append to, or reuse the number of, a pack that an earlier life may have
                            begun after its last record */
    *ret_contents = &files->base;
    return 0;
}

uint64_t replica_contents_files_releasing(struct replica_contents *contents)
{
    return atomic_load(&((struct files *)contents)->releasing);
}

/* Holes stay holes. */
static int write_chunks(const struct files *files, int fd, const uint8_t *data, size_t n)
{
    int rv = ftruncate(fd, (off_t)n) == 0 ? 0 : files_errno();
    for (size_t at = 0; at < n && rv == 0; at += REPLICA_CHUNK_SIZE) {
        size_t size = n - at < REPLICA_CHUNK_SIZE ? n - at : REPLICA_CHUNK_SIZE;
        if (files_all_zero(data + at, size))
            continue;
        rv = files_check_floor(files, size);
        if (rv == 0)
            rv = files_write_all(fd, data + at, size, at);
    }
    return rv;
}

static int files_ingest(struct replica_contents *contents, const void *data, size_t n,
                        struct replica_content_id *ret_id)
{
    struct files *files = (struct files *)contents;
    uint32_t chunks = replica_merkle_chunks(n);
    struct replica_hash *ids = malloc(chunks * sizeof *ids);
    char temporary[FILES_NAME_MAX];
    int fd, rv = 0;
    if (ids == NULL)
        return REPLICA_E_NOMEM;
    for (uint32_t i = 0; i < chunks; i++)
        replica_merkle_chunk((const uint8_t *)data + i * REPLICA_CHUNK_SIZE, replica_merkle_chunk_size(n, i),
                             &ids[i]);
    if (n <= REPLICA_CONTENTS_PACKED_MAX) {
        rv = files_register(files, ids, n, -1, NULL, data, n, ret_id);
        free(ids);
        return rv;
    }
    pthread_mutex_lock(&files->lock);
    rv = files_check_space(files, n);
    snprintf(temporary, sizeof temporary, "tmp.%llu", (unsigned long long)files->next_temporary++);
    pthread_mutex_unlock(&files->lock);
    if (rv == 0) {
        fd = openat(files->partial, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        rv = fd < 0 ? files_errno() : write_chunks(files, fd, data, n);
        if (fd >= 0 && close(fd) != 0 && rv == 0)
            rv = files_errno();
        if (rv == 0)
            rv = files_register(files, ids, n, files->partial, temporary, NULL, 0, ret_id);
        unlinkat(files->partial, temporary, 0);
    }
    free(ids);
    return rv;
}
