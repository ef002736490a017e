/* Names, bytes on disk, the table of what is not complete, and the pack being appended to. */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Names */

void files_name(const struct replica_content_id *id, char ret_name[FILES_NAME_MAX])
{
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++)
        snprintf(ret_name + 2 * i, 3, "%02x", id->root[i]);
    snprintf(ret_name + 64, FILES_NAME_MAX - 64, "-%llu", (unsigned long long)id->length);
}

bool files_parse_name(const char *name, struct replica_content_id *ret_id)
{
    char again[FILES_NAME_MAX];
    if (strlen(name) < 2 * REPLICA_HASH_SIZE + 2)
        return false;
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++) {
        unsigned byte;
        if (sscanf(name + 2 * i, "%2x", &byte) != 1)
            return false;
        ret_id->root[i] = (uint8_t)byte;
    }
    ret_id->length = strtoull(name + 2 * REPLICA_HASH_SIZE + 1, NULL, 10);
    files_name(ret_id, again);
    return strcmp(name, again) == 0;
}

void files_whole_name(const struct replica_content_id *id, char ret_name[FILES_NAME_MAX])
{
    snprintf(ret_name, 4, "%02x/", id->root[0]);
    char name[FILES_NAME_MAX];
    files_name(id, name);
    memcpy(ret_name + 3, name, strlen(name) + 1);
}

void files_pack_name(uint64_t pack, char ret_name[FILES_NAME_MAX])
{
    snprintf(ret_name, FILES_NAME_MAX, "%llu.pack", (unsigned long long)pack);
}

/* Bytes */

int files_errno(void)
{
    return errno == ENOSPC || errno == EDQUOT ? REPLICA_E_NOSPACE
           : errno == ENOMEM                  ? REPLICA_E_NOMEM
                                              : REPLICA_E_IO;
}

int files_write_all(int fd, const void *data, size_t n, uint64_t offset)
{
    for (size_t done = 0; done < n;) {
        ssize_t wrote = pwrite(fd, (const uint8_t *)data + done, n - done, (off_t)(offset + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return files_errno();
        done += (size_t)wrote;
    }
    return 0;
}

void files_write_behind(int fd, uint64_t offset, size_t n)
{
    (void)sync_file_range(fd, (off_t)offset, (off_t)n, SYNC_FILE_RANGE_WRITE);
}

int files_read_all(int fd, void *data, size_t n, uint64_t offset)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, (uint8_t *)data + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return files_errno();
        if (got == 0)
            return REPLICA_E_CORRUPT; /* shorter than it must be */
        done += (size_t)got;
    }
    return 0;
}

bool files_all_zero(const uint8_t *data, size_t n)
{
    return n == 0 || (data[0] == 0 && memcmp(data, data + 1, n - 1) == 0);
}

/* What is under way is counted by its claims. */
int files_check_capacity(struct files *files, uint64_t bytes)
{
    uint64_t taken = files->totals.bytes + files->open.bytes;
    return files->capacity > 0 && (taken > files->capacity || bytes > files->capacity - taken)
               ? REPLICA_E_NOSPACE
               : 0;
}

int files_check_floor(const struct files *files, uint64_t bytes)
{
    struct statvfs status;
    uint64_t space;
    if (fstatvfs(files->directory, &status) != 0)
        return files_errno();
    space = (uint64_t)status.f_bavail * status.f_frsize + atomic_load(&files->releasing);
    return space < files->free_floor || space - files->free_floor < bytes ? REPLICA_E_NOSPACE : 0;
}

int files_check_space(struct files *files, uint64_t bytes)
{
    int rv = files_check_capacity(files, bytes);
    return rv != 0 ? rv : files_check_floor(files, bytes);
}

/* The table of what is not complete */

static size_t bucket(const struct replica_content_id *id)
{
    size_t hash;
    memcpy(&hash, id->root, sizeof hash);
    return hash & (FILES_TABLE_SIZE - 1);
}

struct files_item *files_find(struct files *files, const struct replica_content_id *id)
{
    struct files_item *item = files->table[bucket(id)];
    while (item != NULL && !replica_content_id_equal(&item->tree.id, id))
        item = item->next;
    return item;
}

int files_add(struct files *files, const struct replica_content_id *id, uint64_t claims,
              struct files_item **ret_item)
{
    struct files_item *item = calloc(1, sizeof *item);
    int rv = item == NULL ? REPLICA_E_NOMEM : contents_tree_init(&item->tree, id);
    if (rv != 0) {
        free(item);
        return rv;
    }
    item->state = REPLICA_CONTENTS_PARTIAL;
    item->packed = id->length <= REPLICA_CONTENTS_PACKED_MAX;
    item->next = files->table[bucket(id)];
    files->table[bucket(id)] = item;
    files->open.count++;
    files_claim(files, item, claims);
    *ret_item = item;
    return 0;
}

void files_claim(struct files *files, struct files_item *item, uint64_t claims)
{
    files->open.bytes += claims - item->claims;
    item->claims = claims;
}

static void free_item(struct files_item *item)
{
    contents_tree_close(&item->tree);
    free(item);
}

void files_drop(struct files *files, struct files_item *item)
{
    struct files_item **at = &files->table[bucket(&item->tree.id)];
    while (*at != item)
        at = &(*at)->next;
    *at = item->next;
    files->open.count--;
    files_claim(files, item, 0);
    item->dropped = true;
    if (item->users == 0)
        free_item(item);
}

void files_leave(struct files *files, struct files_item *item)
{
    item->users--;
    if (item->users == 0 && item->state == REPLICA_CONTENTS_FILLED)
        pthread_cond_broadcast(&files->left);
    if (item->dropped && item->users == 0)
        free_item(item);
}

struct files_item *files_partial_next(struct files *files, const struct replica_content_id *after)
{
    struct files_item *best = NULL;
    for (size_t i = 0; i < FILES_TABLE_SIZE; i++)
        for (struct files_item *item = files->table[i]; item != NULL; item = item->next)
            if (item->state == REPLICA_CONTENTS_PARTIAL &&
                (after == NULL || replica_content_id_compare(&item->tree.id, after) > 0) &&
                (best == NULL || replica_content_id_compare(&item->tree.id, &best->tree.id) < 0))
                best = item;
    return best;
}

/* The record comes before the state: whoever sees the content filled may name it in the log, and a killed
 * node must then find it again. */
int files_set_filled(struct files *files, struct files_item *item)
{
    struct replica_kv_batch batch;
    int rv;
    replica_kv_batch_init(&batch);
    files_filled_put(&batch, item);
    rv = replica_kv_write(files->log, &batch);
    replica_kv_batch_close(&batch);
    if (rv == 0)
        files_add_filled(files, item);
    return rv;
}

void files_add_filled(struct files *files, struct files_item *item)
{
    item->state = REPLICA_CONTENTS_FILLED;
    item->filled_next = NULL;
    *files->filled_end = item;
    files->filled_end = &item->filled_next;
}

/* Packs (lock held) */

static int open_pack(struct files *files)
{
    char name[FILES_NAME_MAX];
    if (files->pack_fd >= 0 && files->pack_size < FILES_PACK_MAX)
        return 0;
    if (files->pack_fd >= 0) {
        if (files->pack_dirty && fsync(files->pack_fd) != 0) {
            files->failed = files_errno(); /* a second try would succeed, and prove nothing */
            return files->failed;
        }
        close(files->pack_fd);
        files->pack_fd = -1;
    }
    files_pack_name(files->pack + 1, name);
    files->pack_fd = openat(files->packs, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (files->pack_fd < 0)
        return files_errno();
    files->pack++;
    files->pack_size = 0;
    files->pack_dirty = false;
    files->pack_new = true;
    return 0;
}

int files_pack_append(struct files *files, struct files_item *item, const void *data, size_t n)
{
    int rv = open_pack(files);
    if (rv == 0)
        rv = files_write_all(files->pack_fd, data, n, files->pack_size);
    if (rv != 0)
        return rv;
    item->pack = files->pack;
    item->offset = files->pack_size;
    files->pack_size += n;
    files->pack_dirty = true;
    return 0;
}
