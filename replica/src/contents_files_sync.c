/* From filled to complete: the sync, and what a life that ended between the two left behind. */
#include "contents_files.h"

#include "replica/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Sync: bytes, then names, then index records */

static int sync_whole(struct files *files, const struct replica_content_id *id)
{
    char from[FILES_NAME_MAX], to[FILES_NAME_MAX];
    int fd, rv = 0;
    files_name(id, from);
    files_whole_name(id, to);
    fd = openat(files->partial, from, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) { /* an earlier life moved it, but did not record that */
        fd = openat(files->whole, to, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && fsync(fd) != 0)
            rv = files_errno();
        if (fd >= 0)
            close(fd);
        return fd < 0 ? files_errno() : rv;
    }
    if (fd < 0)
        return files_errno();
    if (fsync(fd) != 0 || fchmod(fd, 0444) != 0 || renameat(files->partial, from, files->whole, to) != 0)
        rv = files_errno();
    close(fd);
    return rv;
}

static int sync_directories(struct files *files, const bool touched[256], bool any)
{
    for (int i = 0; i < 256; i++) {
        char name[4];
        int fd;
        if (!touched[i])
            continue;
        snprintf(name, sizeof name, "%02x", i);
        fd = openat(files->whole, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) != 0) {
            if (fd >= 0)
                close(fd);
            return files_errno();
        }
        close(fd);
    }
    return any && fsync(files->partial) != 0 ? files_errno() : 0;
}

static int sync_packs(struct files *files)
{
    int fd = -1, rv = 0;
    bool new_pack, dirty;
    pthread_mutex_lock(&files->lock);
    dirty = files->pack_dirty;
    new_pack = files->pack_new;
    if (dirty)
        fd = fcntl(files->pack_fd, F_DUPFD_CLOEXEC, 0);
    files->pack_dirty = files->pack_new = false;
    pthread_mutex_unlock(&files->lock);
    if (dirty && (fd < 0 || fdatasync(fd) != 0))
        rv = files_errno();
    if (rv == 0 && new_pack && fsync(files->packs) != 0)
        rv = files_errno();
    if (fd >= 0)
        close(fd);
    return rv;
}

#define BATCH_BYTES_MAX                                                                                      \
    ((size_t)4 << 20) /* index records written at once; a 1 TiB content has 32 MiB of them */

static int write_index(struct files *files, struct files_item *filled)
{
    struct replica_kv_batch batch;
    int rv = 0;
    replica_kv_batch_init(&batch);
    for (struct files_item *item = filled; item != NULL && rv == 0; item = item->filled_next) {
        files_index_put(&batch, item);
        files_filled_delete(&batch, &item->tree.id);
        if (batch.bytes.size >= BATCH_BYTES_MAX) {
            rv = replica_kv_write(files->log, &batch);
            replica_kv_batch_clear(&batch);
        }
    }
    if (rv == 0) {
        pthread_mutex_lock(&files->lock);
        for (struct files_item *item = filled; item != NULL; item = item->filled_next) {
            files->totals.count++;
            files->totals.bytes += item->tree.id.length;
        }
        files_totals_put(files, &batch);
        pthread_mutex_unlock(&files->lock);
        rv = replica_kv_write(files->log, &batch);
    }
    replica_kv_batch_close(&batch);
    return rv;
}

int files_sync(struct replica_contents *contents)
{
    struct files *files = (struct files *)contents;
    struct files_item *filled;
    bool touched[256] = {false}, any = false;
    int rv;
    pthread_mutex_lock(&files->sync_lock);
    pthread_mutex_lock(&files->lock);
    filled = files->filled;
    files->filled = NULL;
    files->filled_end = &files->filled;
    pthread_mutex_unlock(&files->lock);
    rv = filled == NULL ? 0 : sync_packs(files);
    for (struct files_item *item = filled; item != NULL && rv == 0; item = item->filled_next)
        if (!item->packed) {
            rv = sync_whole(files, &item->tree.id);
            touched[item->tree.id.root[0]] = any = true;
        }
    if (rv == 0 && any)
        rv = sync_directories(files, touched, any);
    if (rv == 0 && filled != NULL)
        rv = write_index(files, filled);
    pthread_mutex_lock(&files->lock);
    while (filled != NULL && rv == 0) {
        struct files_item *item = filled;
        filled = item->filled_next;
        if (item->users == 0)
            files_drop(files, item);
        else
            item->state = REPLICA_CONTENTS_COMPLETE; /* the last thread that writes into it again drops it */
    }
    pthread_mutex_unlock(&files->lock);
    pthread_mutex_unlock(&files->sync_lock);
    return rv;
}

/* Recovery: what an earlier life had filled and not synced */

static int check_root(const struct replica_content_id *id, const struct replica_hash *ids)
{
    struct replica_content_id found;
    contents_tree_root(ids, replica_merkle_chunks(id->length), id->length, &found);
    return replica_content_id_equal(&found, id) ? 0 : REPLICA_E_MISMATCH;
}

/* Errors: MISMATCH, NOTFOUND, BUSY (shorter than it must be), IO, NOMEM. */
static int hash_whole(struct files *files, const struct replica_content_id *id, struct replica_hash **ret_ids)
{
    struct stat status;
    char name[FILES_NAME_MAX];
    int fd, rv;
    files_name(id, name);
    fd = openat(files->partial, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        files_whole_name(id, name);
        fd = openat(files->whole, name, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0)
        return errno == ENOENT ? REPLICA_E_NOTFOUND : files_errno();
    rv = fstat(fd, &status) != 0 || (uint64_t)status.st_size != id->length ? REPLICA_E_MISMATCH : 0;
    if (rv == 0)
        rv = files_hash(fd, id->length, ret_ids);
    close(fd);
    return rv;
}

/* The same for one in a pack, which is a single chunk. */
static int hash_packed(struct files *files, const struct replica_content_id *id,
                       const struct files_place *place, struct replica_hash **ret_ids)
{
    uint8_t bytes[REPLICA_CONTENTS_PACKED_MAX];
    char name[FILES_NAME_MAX];
    int fd, rv;
    if (id->length > sizeof bytes)
        return REPLICA_E_MISMATCH;
    files_pack_name(place->pack, name);
    fd = openat(files->packs, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? REPLICA_E_NOTFOUND : files_errno();
    rv = files_read_all(fd, bytes, (size_t)id->length, place->offset);
    if (rv == 0 && fsync(fd) != 0) /* no later sync knows of this pack */
        rv = files_errno();
    close(fd);
    if (rv != 0)
        return rv == REPLICA_E_CORRUPT ? REPLICA_E_MISMATCH : rv;
    *ret_ids = malloc(sizeof **ret_ids);
    if (*ret_ids == NULL)
        return REPLICA_E_NOMEM;
    replica_merkle_chunk(bytes, (size_t)id->length, *ret_ids);
    return 0;
}

static int take_up(struct files *files, const struct replica_content_id *id, const struct files_place *place)
{
    struct replica_hash *ids = NULL;
    struct files_item *item;
    int rv = place->packed ? hash_packed(files, id, place, &ids) : hash_whole(files, id, &ids);
    if (rv == 0)
        rv = check_root(id, ids);
    if (rv == 0)
        rv = files_add(files, id, &item);
    if (rv == 0) {
        item->packed = place->packed;
        item->pack = place->pack;
        item->offset = place->offset;
        rv = contents_tree_fill(&item->tree, ids);
        if (rv == 0)
            files_add_filled(files, item);
        else
            files_drop(files, item);
    }
    free(ids);
    return rv;
}

static int forget_filled(struct files *files, const struct replica_content_id *id)
{
    struct replica_kv_batch batch;
    int rv;
    replica_kv_batch_init(&batch);
    files_filled_delete(&batch, id);
    rv = replica_kv_write(files->log, &batch);
    replica_kv_batch_close(&batch);
    return rv;
}

/* Bounded by what one sync takes: the cache is not scanned. */
int files_recover(struct files *files)
{
    struct replica_content_id id, *after = NULL;
    struct files_place place, complete;
    int rv;
    while ((rv = files_filled_next(files, after, &id, &place)) == 0) {
        rv = files_index_get(files, &id, &complete) == 0 ? REPLICA_E_EXISTS : take_up(files, &id, &place);
        if (rv == REPLICA_E_EXISTS || rv == REPLICA_E_MISMATCH || rv == REPLICA_E_NOTFOUND ||
            rv == REPLICA_E_BUSY)
            rv = forget_filled(files, &id);
        if (rv != 0)
            return rv;
        after = &id;
    }
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}
