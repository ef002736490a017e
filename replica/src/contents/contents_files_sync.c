/* Sync: bytes, then names, then index records; and letting go of what the log durably says is not needed any
 * more.
 *
 * A whole file gets its place by a second name: partial/ID stays until the index record is durable, so that
 * after a crash the next open finds what was made whole without a record, and does not have to look anywhere
 * else. In the same way a removed content's bytes stay until the removal of its record is durable, so that no
 * record ever names bytes that are gone. */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH_BYTES_MAX                                                                                      \
    ((size_t)4 << 20) /* index records written at once; a 1 TiB content has 32 MiB of them */

/* Letting go */

int files_release_later(struct files *files, const struct files_release *release)
{
    if (files->releases_n == files->releases_capacity) {
        size_t capacity = files->releases_capacity == 0 ? 64 : files->releases_capacity * 2;
        struct files_release *releases = realloc(files->releases, capacity * sizeof *releases);
        if (releases == NULL)
            return REPLICA_E_NOMEM;
        files->releases = releases;
        files->releases_capacity = capacity;
    }
    files->releases[files->releases_n++] = *release;
    if (release->complete)
        atomic_fetch_add(&files->releasing, release->place.stored);
    return 0;
}

/* Whether something in the pack waits to become complete: it is not counted as live yet. Lock held. */
static bool is_awaited(const struct files *files, uint64_t pack)
{
    for (size_t i = 0; i < FILES_TABLE_SIZE; i++)
        for (const struct files_item *item = files->table[i]; item != NULL; item = item->next)
            if (item->packed && item->state == REPLICA_CONTENTS_FILLED && item->pack == pack)
                return true;
    return false;
}

/* Punching frees whole blocks only, so a pack goes when nothing in it is live. */
static int release_packed(struct files *files, const struct files_release *release)
{
    char name[FILES_NAME_MAX];
    uint64_t live;
    int fd, rv = files_index_pack_live(files, release->place.pack, &live);
    if (rv != 0)
        return rv;
    files_pack_name(release->place.pack, name);
    if (live == 0 && release->place.pack != files->pack && !is_awaited(files, release->place.pack))
        return unlinkat(files->packs, name, 0) == 0 || errno == ENOENT ? 0 : files_errno();
    fd = openat(files->packs, name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : files_errno();
    (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)release->place.offset,
                    (off_t)release->id.length);
    close(fd);
    return 0;
}

static int release_one(struct files *files, const struct files_release *release)
{
    char name[FILES_NAME_MAX];
    struct files_place place;
    if (!release->complete) {
        files_name(&release->id, name);
        if (files_find(files, &release->id) == NULL) /* else the name is of one that was begun anew */
            unlinkat(files->partial, name, 0);
        return 0;
    }
    if (release->place.packed)
        return release_packed(files, release);
    if (files_index_get(files, &release->id, &place) == 0)
        return 0; /* it came back, and was made whole anew */
    files_whole_name(&release->id, name);
    return unlinkat(files->whole, name, 0) == 0 || errno == ENOENT ? 0 : files_errno();
}

/* Whatever was written to the log before this call is durable after its sync. */
static int release_all(struct files *files)
{
    struct files_release *releases;
    struct replica_kv_batch batch;
    size_t n;
    int rv = 0;
    pthread_mutex_lock(&files->lock);
    releases = files->releases;
    n = files->releases_n;
    files->releases = NULL;
    files->releases_n = files->releases_capacity = 0;
    pthread_mutex_unlock(&files->lock);
    if (n > 0)
        rv = replica_kv_sync(files->log);
    replica_kv_batch_init(&batch);
    for (size_t i = 0; i < n && rv == 0; i++) {
        pthread_mutex_lock(&files->lock);
        rv = release_one(files, &releases[i]);
        pthread_mutex_unlock(&files->lock);
        if (releases[i].complete) {
            files_going_delete(&batch, &releases[i].id);
            atomic_fetch_sub(&files->releasing, releases[i].place.stored);
        }
    }
    if (rv == 0 && batch.count > 0)
        rv = replica_kv_write(files->log, &batch);
    replica_kv_batch_close(&batch);
    free(releases);
    return rv;
}

/* Making complete */

static int seal_whole(struct files *files, struct files_item *item)
{
    const struct replica_content_id *id = &item->tree.id;
    struct files_place facts = {.packed = false};
    char from[FILES_NAME_MAX], to[FILES_NAME_MAX];
    struct stat status;
    int fd, rv = 0;
    files_name(id, from);
    files_whole_name(id, to);
    fd = openat(files->partial, from, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return files_errno();
    if (fsync(fd) != 0 || fchmod(fd, 0444) != 0 || fstat(fd, &status) != 0)
        rv = files_errno();
    close(fd);
    if (rv == 0) {
        files_facts(&status, &facts);
        pthread_mutex_lock(&files->lock); /* readers look at the item meanwhile */
        item->pack = facts.pack;
        item->offset = facts.offset;
        pthread_mutex_unlock(&files->lock);
    }
    if (rv == 0 && linkat(files->partial, from, files->whole, to, 0) != 0) {
        rv = errno == EEXIST ? 0 : files_errno(); /* of one that was removed, and not let go yet */
        if (rv == 0 &&
            (unlinkat(files->whole, to, 0) != 0 || linkat(files->partial, from, files->whole, to, 0) != 0))
            rv = files_errno();
    }
    return rv;
}

static int sync_directories(struct files *files, const bool touched[256])
{
    for (int i = 0; i < 256; i++) {
        char name[4];
        int fd, rv = 0;
        if (!touched[i])
            continue;
        snprintf(name, sizeof name, "%02x", (unsigned)i);
        fd = openat(files->whole, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) != 0)
            rv = files_errno();
        if (fd >= 0)
            close(fd);
        if (rv != 0)
            return rv;
    }
    return fsync(files->partial) != 0 ? files_errno() : 0;
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

/* One content's records; they stay together with what they add to the totals. Lock held. */
static int put_index(struct files *files, const struct files_item *item, struct replica_kv_batch *batch)
{
    struct files_place place = {
        .packed = item->packed, .pack = item->pack, .offset = item->offset, .stored = item->tree.id.length};
    struct files_release release = {.id = item->tree.id};
    uint64_t live;
    int rv;
    if (!item->packed)
        place.stored = contents_tree_stored(&item->tree);
    files_index_put(batch, item, &place);
    files_filled_delete(batch, &item->tree.id);
    if (files->damaged > 0)
        files_damaged_delete(batch, &item->tree.id);
    rv = item->packed ? files_index_pack(files, batch, &place, true, &live)
                      : files_release_later(files, &release);
    if (rv != 0)
        return rv;
    files->totals.count++;
    files->totals.bytes += place.stored;
    files_totals_put(files, batch);
    return 0;
}

static int write_index(struct files *files, const struct files_item *filled)
{
    struct replica_kv_batch batch;
    int rv = 0;
    replica_kv_batch_init(&batch);
    for (const struct files_item *item = filled; item != NULL && rv == 0; item = item->filled_next) {
        pthread_mutex_lock(&files->lock);
        rv = put_index(files, item, &batch);
        if (rv == 0 && (batch.bytes.size >= BATCH_BYTES_MAX || item->filled_next == NULL)) {
            rv = replica_kv_write(files->log,
                                  &batch); /* under the lock: a removal's totals come before or after */
            replica_kv_batch_clear(&batch);
        }
        pthread_mutex_unlock(&files->lock);
    }
    replica_kv_batch_close(&batch);
    return rv;
}

static int make_complete(struct files *files, struct files_item *filled)
{
    bool touched[256] = {false}, any = false;
    int rv = sync_packs(files);
    for (struct files_item *item = filled; item != NULL && rv == 0; item = item->filled_next)
        if (!item->packed) {
            rv = seal_whole(files, item);
            touched[item->tree.id.root[0]] = any = true;
        }
    if (rv == 0 && any)
        rv = sync_directories(files, touched);
    return rv != 0 ? rv : write_index(files, filled);
}

/* A piece that came twice at once may still be written by the second: the same bytes, but a file that is complete lies still, and has its
 * name in partial/ no more. Lock held; let go while waiting. */
static void await_writers(struct files *files, const struct files_item *filled)
{
    for (const struct files_item *item = filled; item != NULL; item = item->filled_next)
        while (item->users > 0)
            pthread_cond_wait(&files->left, &files->lock);
}

int files_sync(struct replica_contents *contents)
{
    struct files *files = (struct files *)contents;
    struct files_item *filled;
    int rv;
    pthread_mutex_lock(&files->sync_lock);
    pthread_mutex_lock(&files->lock);
    filled = files->filled;
    files->filled = NULL;
    files->filled_end = &files->filled;
    await_writers(files, filled);
    rv = files->failed;
    pthread_mutex_unlock(&files->lock);
    if (rv == 0)
        rv = release_all(files);
    if (rv == 0 && filled != NULL)
        rv = make_complete(files, filled);
    pthread_mutex_lock(&files->lock);
    if (files->failed == 0)
        files->failed = rv;
    while (filled != NULL && rv == 0) {
        struct files_item *item = filled;
        filled = item->filled_next;
        files_drop(files, item);
    }
    pthread_mutex_unlock(&files->lock);
    pthread_mutex_unlock(&files->sync_lock);
    return rv;
}
