/* What a life that ended left behind: filled but not synced, partial, or without a meaning. */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Filled and not synced */

/* A sync that failed leaves pages in memory that the disk does not have, and that count as clean: what is
 * verified must be what the disk gives. Where pages cannot be let go of (a file system in memory) there is no
 * difference. */
static int read_from_disk(int fd)
{
    if (fsync(fd) != 0)
        return files_errno();
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return 0;
}

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
    if (fd < 0)
        return errno == ENOENT ? REPLICA_E_NOTFOUND : files_errno();
    rv = fstat(fd, &status) != 0 || (uint64_t)status.st_size != id->length ? REPLICA_E_MISMATCH : 0;
    if (rv == 0)
        rv = read_from_disk(fd);
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
    rv = read_from_disk(fd); /* no later sync knows of this pack */
    if (rv == 0)
        rv = files_read_all(fd, bytes, (size_t)id->length, place->offset);
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
        rv = files_add(files, id, id->length, &item);
    if (rv == 0) {
        item->packed = place->packed;
        item->pack = place->pack;
        item->offset = place->offset;
        if (item->packed && item->pack > files->pack)
            files->pack = item->pack; /* begun after the last record of which pack comes next */
        rv = contents_tree_fill(&item->tree, ids);
        if (rv == 0)
            files_add_filled(files, item);
        if (rv == 0 && !item->packed)
            files_claim(files, item, contents_tree_stored(&item->tree));
        else if (rv != 0)
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
static int recover_filled(struct files *files)
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

/* Files */

/* One file of partial/. A transfer that was under way can be resumed; a complete content's other name goes;
 * and what a killed life had made whole without saying so goes too. */
static int take_leftover(struct files *files, const char *name)
{
    struct replica_content_id id;
    struct files_place place;
    struct files_item *item;
    char whole[FILES_NAME_MAX];
    struct stat status;
    int rv;
    if (!files_parse_name(name, &id) || id.length <= REPLICA_CONTENTS_PACKED_MAX ||
        id.length > REPLICA_CONTENT_SIZE_MAX)
        return unlinkat(files->partial, name, 0) == 0 ? 0 : files_errno();
    if (files_find(files, &id) != NULL)
        return 0; /* filled, and taken up */
    rv = files_index_get(files, &id, &place);
    if (rv == 0)
        return unlinkat(files->partial, name, 0) == 0 ? 0 : files_errno();
    if (rv != REPLICA_E_NOTFOUND)
        return rv;
    files_whole_name(&id, whole);
    if (unlinkat(files->whole, whole, 0) != 0 && errno != ENOENT)
        return files_errno();
    if (fstatat(files->partial, name, &status, AT_SYMLINK_NOFOLLOW) != 0 ||
        (uint64_t)status.st_size != id.length || !S_ISREG(status.st_mode))
        return unlinkat(files->partial, name, 0) == 0 ? 0 : files_errno();
    if (fchmodat(files->partial, name, 0600, 0) != 0)
        return files_errno();
    rv = files_add(files, &id, (uint64_t)status.st_blocks * 512, &item); /* what is on the disk */
    if (rv == 0)
        item->leftover = true;
    return rv;
}

static bool is_taken_up(const struct files *files, uint64_t pack)
{
    for (const struct files_item *item = files->filled; item != NULL; item = item->filled_next)
        if (item->packed && item->pack == pack)
            return true;
    return false;
}

/* A pack of which nothing is said to be live. */
static int take_pack(struct files *files, const char *name)
{
    char *end;
    uint64_t pack = strtoull(name, &end, 10), live = 0;
    int rv = strcmp(end, ".pack") == 0 ? files_index_pack_live(files, pack, &live) : 0;
    if (rv != 0 || live > 0 || is_taken_up(files, pack))
        return rv;
    return unlinkat(files->packs, name, 0) == 0 ? 0 : files_errno();
}

static int each_file(struct files *files, int directory, int (*take)(struct files *files, const char *name))
{
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rv = 0;
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    if (stream == NULL) {
        rv = files_errno();
        if (copy >= 0)
            close(copy);
        return rv;
    }
    while (rv == 0 && (entry = readdir(stream)) != NULL)
        if (entry->d_name[0] != '.')
            rv = take(files, entry->d_name);
    closedir(stream);
    return rv;
}

/* Removed, and cut off before its bytes were let go of: the next sync sees to it. */
static int recover_going(struct files *files)
{
    struct replica_content_id id, *after = NULL;
    struct files_release release = {.complete = true};
    int rv;
    while ((rv = files_going_next(files, after, &id, &release.place)) == 0) {
        release.id = id;
        rv = files_release_later(files, &release);
        if (rv != 0)
            return rv;
        after = &id;
    }
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int count_damaged(struct files *files)
{
    struct replica_content_id id, *after = NULL;
    int rv;
    while ((rv = files_damaged_next(files, after, &id)) == 0) {
        files->damaged++;
        after = &id;
    }
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int count_quarantined(struct files *files, const char *name)
{
    (void)name;
    files->quarantined++;
    return 0;
}

int files_recover(struct files *files, bool made)
{
    int rv = recover_going(files);
    if (rv == 0)
        rv = count_damaged(files);
    if (rv == 0)
        rv = recover_filled(files);
    if (rv == 0)
        rv = each_file(files, files->partial, take_leftover);
    if (rv == 0)
        rv = each_file(files, files->quarantine, count_quarantined);
    if (rv == 0 && made && files->totals.count > 0)
        rv = files_recheck(files);
    return rv != 0 ? rv : each_file(files, files->packs, take_pack);
}
