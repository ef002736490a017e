/* Bringing local files in: hashing while copying, drafts, descriptors. */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Gives a file a second name in partial/, whatever stood there. */
static int link_partial(struct files *files, int directory, const char *from, const char *name)
{
    char temporary[FILES_NAME_MAX];
    int rv = 0;
    snprintf(temporary, sizeof temporary, "link.%llu", (unsigned long long)files->next_temporary++);
    if (linkat(directory, from, files->partial, temporary, 0) != 0 ||
        renameat(files->partial, temporary, files->partial, name) != 0)
        rv = files_errno();
    unlinkat(files->partial, temporary, 0); /* left if both are names of one file already */
    return rv;
}

/* Bytes of all chunks that are not holes. */
static uint64_t stored_of(const struct replica_content_id *id, const struct replica_hash *ids)
{
    uint32_t pages = replica_merkle_pages(id->length);
    uint64_t bytes = 0;
    for (uint32_t page = 0; page < pages; page++)
        bytes += contents_tree_bound(id, (struct replica_piece){REPLICA_PIECE_PAGE, page},
                                     ids + (size_t)page * REPLICA_PAGE_CHUNKS);
    return bytes;
}

int files_register(struct files *files, const struct replica_hash *ids, uint64_t length, int directory,
                   const char *name, const void *data, uint64_t takes, struct replica_content_id *ret_id)
{
    struct replica_content_id id;
    struct files_place place;
    struct files_item *item;
    char partial[FILES_NAME_MAX];
    bool added = false;
    uint64_t stored;
    int rv = 0;
    contents_tree_root(ids, replica_merkle_chunks(length), length, &id);
    stored = length <= REPLICA_CONTENTS_PACKED_MAX ? length : stored_of(&id, ids);
    files_name(&id, partial);
    pthread_mutex_lock(&files->lock);
    item = files_find(files, &id);
    if ((item == NULL && files_index_get(files, &id, &place) == 0) ||
        (item != NULL && item->state == REPLICA_CONTENTS_FILLED))
        goto known;
    if (item == NULL) {
        rv = files_check_capacity(files, stored);
        if (rv == 0 && takes > 0)
            rv = files_check_floor(files, takes);
        if (rv == 0)
            rv = files_add(files, &id, stored, &item);
        added = rv == 0;
    }
    /* The bytes first: a chunk that is marked present is there. */
    if (rv == 0)
        rv = item->packed ? files_pack_append(files, item, data, (size_t)length)
                          : link_partial(files, directory, name, partial);
    if (rv == 0)
        rv = contents_tree_fill(&item->tree, ids);
    if (rv == 0) {
        item->leftover = false;
        files_claim(files, item, stored);
        rv = files_set_filled(files, item);
    }
    if (rv != 0 && added) {
        files_drop(files, item);
        unlinkat(files->partial, partial, 0);
    }
known:
    pthread_mutex_unlock(&files->lock);
    if (rv == 0)
        *ret_id = id;
    return rv;
}

/* A run of hashing a file of known size, chunk by chunk, optionally copying it. */
struct run {
    const struct files *files; /* of a copy */
    int from, to;              /* to: -1: hash only */
    uint64_t length;
    struct replica_hash *ids;
    uint8_t *chunk; /* 1 MiB */
    int (*progress)(void *context, uint64_t bytes);
    void *context;
};

static int hash_chunk(struct run *run, uint32_t index, uint64_t *data_at)
{
    uint64_t offset = index * REPLICA_CHUNK_SIZE;
    uint32_t n = replica_merkle_chunk_size(run->length, index);
    int rv;
    if (*data_at < offset) { /* where the next bytes that are not a hole begin */
        off_t next = lseek(run->from, (off_t)offset, SEEK_DATA);
        *data_at = next >= 0 ? (uint64_t)next : errno == ENXIO ? run->length : offset;
    }
    if (*data_at >= offset + n) {
        replica_merkle_zero_chunk(n, &run->ids[index]);
        return 0;
    }
    rv = files_read_all(run->from, run->chunk, n, offset);
    if (rv != 0)
        return rv == REPLICA_E_CORRUPT ? REPLICA_E_BUSY : rv; /* it became shorter */
    replica_merkle_chunk(run->chunk, n, &run->ids[index]);
    *data_at = 0;
    if (run->to < 0 || files_all_zero(run->chunk, n))
        return 0;
    rv = files_check_floor(run->files, n);
    if (rv == 0)
        rv = files_write_all(run->to, run->chunk, n, offset);
    if (rv == 0)
        files_write_behind(run->to, offset, n);
    return rv;
}

static int run_all(struct run *run)
{
    uint64_t data_at = 0;
    uint32_t chunks = replica_merkle_chunks(run->length);
    run->ids = malloc(chunks * sizeof run->ids[0]);
    run->chunk = malloc(REPLICA_CHUNK_SIZE);
    if (run->ids == NULL || run->chunk == NULL)
        return REPLICA_E_NOMEM;
    for (uint32_t i = 0; i < chunks; i++) {
        int rv = hash_chunk(run, i, &data_at);
        if (rv != 0)
            return rv;
        if (run->progress != NULL &&
            run->progress(run->context, i * REPLICA_CHUNK_SIZE + replica_merkle_chunk_size(run->length, i)) !=
                0)
            return REPLICA_E_CANCELLED;
    }
    return 0;
}

int files_hash(int fd, uint64_t length, struct replica_hash **ret_ids)
{
    struct run run = {.from = fd, .to = -1, .length = length};
    int rv = run_all(&run);
    free(run.chunk);
    if (rv == 0)
        *ret_ids = run.ids;
    else
        free(run.ids);
    return rv;
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* allocated: about as many bytes as the copy will take; what it took is checked once it is known. */
static int copy_in(struct files *files, struct run *run, uint64_t allocated, char temporary[FILES_NAME_MAX])
{
    int rv;
    pthread_mutex_lock(&files->lock);
    rv = files_check_space(files, allocated < run->length ? allocated : run->length);
    snprintf(temporary, FILES_NAME_MAX, "tmp.%llu", (unsigned long long)files->next_temporary++);
    pthread_mutex_unlock(&files->lock);
    if (rv != 0)
        return rv;
    run->to = openat(files->partial, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (run->to < 0)
        return files_errno();
    if (ftruncate(run->to, (off_t)run->length) != 0)
        rv = files_errno();
    if (rv == 0)
        rv = run_all(run);
    if (close(run->to) != 0 && rv == 0)
        rv = files_errno();
    if (rv != 0)
        unlinkat(files->partial, temporary, 0);
    return rv;
}

/* is_draft: what is packed takes the place of a file that goes. */
static int ingest_fd(struct files *files, int fd, bool is_draft,
                     int (*progress)(void *context, uint64_t bytes), void *context,
                     struct replica_content_id *ret_id)
{
    struct run run = {.files = files, .from = fd, .to = -1, .progress = progress, .context = context};
    struct replica_content_id id;
    char temporary[FILES_NAME_MAX];
    struct stat before, after;
    bool packed, copied;
    int rv;
    if (fstat(fd, &before) != 0)
        return files_errno();
    if (!S_ISREG(before.st_mode))
        return REPLICA_E_INVALID;
    if ((uint64_t)before.st_size > REPLICA_CONTENT_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    run.length = (uint64_t)before.st_size;
    if (run.length == 0)
        return replica_contents_ingest(&files->base, "", 0, ret_id);
    packed = run.length <= REPLICA_CONTENTS_PACKED_MAX;
    rv = packed ? run_all(&run) : copy_in(files, &run, (uint64_t)before.st_blocks * 512, temporary);
    copied = rv == 0 && !packed;
    if (rv == 0 && (fstat(fd, &after) != 0 || !unchanged(&before, &after)))
        rv = REPLICA_E_BUSY;
    if (rv == 0) {
        if (packed && lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO)
            memset(run.chunk, 0, (size_t)run.length); /* nothing but a hole was not read */
        rv = files_register(files, run.ids, run.length, files->partial, packed ? NULL : temporary, run.chunk,
                            packed && !is_draft ? run.length : 0, &id);
    }
    if (copied)
        unlinkat(files->partial, temporary, 0);
    free(run.ids);
    free(run.chunk);
    if (rv == 0)
        *ret_id = id;
    return rv;
}

int replica_contents_files_ingest_fd(struct replica_contents *contents, int fd,
                                     int (*progress)(void *context, uint64_t bytes), void *context,
                                     struct replica_content_id *ret_id)
{
    return ingest_fd((struct files *)contents, fd, false, progress, context, ret_id);
}

/* Drafts */

static void draft_name(uint64_t number, char ret_name[FILES_NAME_MAX])
{
    snprintf(ret_name, FILES_NAME_MAX, "%llu", (unsigned long long)number);
}

int replica_contents_files_draft_new(struct replica_contents *contents, uint64_t *ret_number, int *ret_fd)
{
    struct files *files = (struct files *)contents;
    char name[FILES_NAME_MAX];
    uint64_t number;
    int fd;
    do {
        pthread_mutex_lock(&files->lock);
        number = ++files->next_draft;
        pthread_mutex_unlock(&files->lock);
        draft_name(number, name);
        fd = openat(files->draft, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    } while (fd < 0 && errno == EEXIST);
    if (fd < 0)
        return files_errno();
    *ret_number = number;
    *ret_fd = fd;
    return 0;
}

int replica_contents_files_draft_open(struct replica_contents *contents, uint64_t number, int *ret_fd)
{
    int directory = ((struct files *)contents)->draft, fd, writable;
    char name[FILES_NAME_MAX];
    struct stat status;
    draft_name(number, name);
    fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? REPLICA_E_NOTFOUND : files_errno();
    *ret_fd = fd;
    if (fstat(fd, &status) == 0 && status.st_nlink > 1)
        return 0; /* a content by now: never written again */
    writable = openat(directory, name, O_RDWR | O_CLOEXEC);
    close(fd);
    *ret_fd = writable;
    return writable >= 0 ? 0 : errno == ENOENT ? REPLICA_E_NOTFOUND : files_errno();
}

int replica_contents_files_draft_remove(struct replica_contents *contents, uint64_t number)
{
    char name[FILES_NAME_MAX];
    draft_name(number, name);
    return unlinkat(((struct files *)contents)->draft, name, 0) == 0 || errno == ENOENT ? 0 : files_errno();
}

int replica_contents_files_draft_adopt(struct replica_contents *contents, uint64_t number,
                                       int (*progress)(void *context, uint64_t bytes), void *context,
                                       struct replica_content_id *ret_id)
{
    struct files *files = (struct files *)contents;
    struct run run = {.to = -1, .progress = progress, .context = context};
    char name[FILES_NAME_MAX];
    struct stat before, after;
    int rv = replica_contents_files_draft_open(contents, number, &run.from);
    if (rv != 0)
        return rv;
    draft_name(number, name);
    if (fstat(run.from, &before) != 0)
        rv = files_errno();
    run.length = rv == 0 ? (uint64_t)before.st_size : 0;
    if (rv == 0 && run.length > REPLICA_CONTENT_SIZE_MAX)
        rv = REPLICA_E_TOOBIG;
    if (rv == 0 && run.length <= REPLICA_CONTENTS_PACKED_MAX) {
        rv = ingest_fd(files, run.from, true, progress, context, ret_id);
    } else if (rv == 0) {
        rv = run_all(&run);
        if (rv == 0 && (fstat(run.from, &after) != 0 || !unchanged(&before, &after)))
            rv = REPLICA_E_BUSY;
        if (rv == 0)
            rv = files_register(files, run.ids, run.length, files->draft, name, NULL, 0, ret_id);
    }
    close(run.from);
    free(run.ids);
    free(run.chunk);
    return rv;
}
