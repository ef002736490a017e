/* Damage: bytes on the disk that are not what they were.
 *
 * Found by a read that does not hash to its id, or by a file that is missing or has another size. What is
 * found is *set aside*: its bytes move to quarantine/, its records go, so that from then on it counts as not
 * held, and a record `Cd` keeps that it was damaged until it is complete again. Getting it again is the
 * caller's.
 *
 * A descriptor lets its reader have the bytes without our looking at them. Before one is given out the file's
 * size, inode and time of change are compared with what they were when it was sealed: STALE means that
 * somebody touched it, and that only reading it through (verify) can tell. */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WHERE_MAX (FILES_NAME_MAX + 32) /* "packs/N.pack at OFFSET" */

/* Setting aside */

static void put_aside_packed(struct files *files, const struct replica_content_id *id,
                             const struct files_place *place, const char *aside)
{
    uint8_t bytes[REPLICA_CONTENTS_PACKED_MAX];
    char name[FILES_NAME_MAX];
    ssize_t n;
    int from, to;
    files_pack_name(place->pack, name);
    from = openat(files->packs, name, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return;
    n = pread(from, bytes, id->length < sizeof bytes ? (size_t)id->length : sizeof bytes,
              (off_t)place->offset);
    close(from);
    to = n > 0 ? openat(files->quarantine, aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (to >= 0) {
        (void)files_write_all(to, bytes, (size_t)n, 0); /* for people only: as much as can be kept */
        close(to);
    }
}

/* What is left of the bytes, for people to look at; beyond a number they just go. */
static void put_aside(struct files *files, const struct replica_content_id *id, bool complete,
                      const struct files_place *place)
{
    int directory = complete ? files->whole : files->partial;
    char name[FILES_NAME_MAX], aside[FILES_NAME_MAX];
    bool keep = files->quarantined < FILES_QUARANTINE_MAX;
    files_name(id, aside);
    if (place->packed) {
        if (keep)
            put_aside_packed(files, id, place, aside);
        files->quarantined += keep;
        return; /* its place in the pack is let go of with its record */
    }
    if (complete)
        files_whole_name(id, name);
    else
        files_name(id, name);
    if (keep && renameat(directory, name, files->quarantine, aside) == 0)
        files->quarantined++;
    else
        unlinkat(directory, name, 0);
}

static bool same_place(const struct files_place *a, const struct files_place *b)
{
    return a->packed == b->packed && a->pack == b->pack && a->offset == b->offset;
}

/* Lock held. Errors: ABSENT (it is not what it was when the damage was seen), BUSY, IO. */
static int set_aside(struct files *files, const struct replica_content_id *id,
                     const struct files_bytes *bytes)
{
    struct files_item *item = files_find(files, id);
    struct files_place place;
    if (item != NULL && (bytes->complete || item->state != REPLICA_CONTENTS_PARTIAL || item->users > 0))
        return REPLICA_E_BUSY; /* on its way to being whole: the next reader sees what became of it */
    if (item != NULL) {
        put_aside(files, id, false, &bytes->place);
        files_drop(files, item);
        return 0;
    }
    if (!bytes->complete || files_index_get(files, id, &place) != 0 || !same_place(&place, &bytes->place))
        return REPLICA_E_ABSENT;
    put_aside(files, id, true, &place);
    return files_remove_complete(files, id, true);
}

static void describe(const struct replica_content_id *id, const struct files_bytes *bytes,
                     char ret_where[WHERE_MAX])
{
    char name[FILES_NAME_MAX];
    if (bytes->place.packed)
        snprintf(ret_where, WHERE_MAX, "packs/%llu.pack at %llu", (unsigned long long)bytes->place.pack,
                 (unsigned long long)bytes->place.offset);
    else {
        if (bytes->complete)
            files_whole_name(id, name);
        else
            files_name(id, name);
        snprintf(ret_where, WHERE_MAX, "%s/%s", bytes->complete ? "whole" : "partial", name);
    }
}

int files_set_aside(struct files *files, const struct replica_content_id *id, const struct files_bytes *bytes)
{
    char where[WHERE_MAX];
    int rv;
    pthread_mutex_lock(&files->lock);
    rv = set_aside(files, id, bytes);
    pthread_mutex_unlock(&files->lock);
    if (rv == REPLICA_E_ABSENT)
        return rv;
    if (rv == 0 && files->on_damage != NULL) {
        describe(id, bytes, where);
        files->on_damage(files->damage_context, id, where);
    }
    return REPLICA_E_CORRUPT;
}

/* What a seal records of a whole file */

void files_facts(const struct stat *status, struct files_place *place)
{
    place->pack = (uint64_t)status->st_ino;
    place->offset = (uint64_t)status->st_mtim.tv_sec * 1000000000u + (uint64_t)status->st_mtim.tv_nsec;
}

/* 0, CORRUPT or STALE; files whose facts changed (a move of the store, a checkout by hard links) are read
 * through once, and these are their facts from then on. */
static int compare_facts(const struct replica_content_id *id, const struct stat *status,
                         const struct files_place *place)
{
    struct files_place now = {.packed = false};
    if (!S_ISREG(status->st_mode) || (uint64_t)status->st_size != id->length)
        return REPLICA_E_CORRUPT;
    files_facts(status, &now);
    return same_place(&now, place) ? 0 : REPLICA_E_STALE;
}

static int keep_facts(struct files *files, const struct replica_content_id *id,
                      const struct files_place *before, const struct stat *status)
{
    struct replica_kv_batch batch;
    struct files_place place;
    int rv = 0;
    replica_kv_batch_init(&batch);
    pthread_mutex_lock(&files->lock);
    if (files_index_get(files, id, &place) == 0 && same_place(&place, before)) {
        files_facts(status, &place);
        files_index_place(&batch, id, &place);
        rv = replica_kv_write(files->log, &batch);
    }
    pthread_mutex_unlock(&files->lock);
    replica_kv_batch_close(&batch);
    return rv;
}

int replica_contents_files_fd(struct replica_contents *contents, const struct replica_content_id *id,
                              int *ret_fd)
{
    struct files *files = (struct files *)contents;
    struct files_bytes bytes = {.fd = -1, .complete = true};
    struct stat status;
    char name[FILES_NAME_MAX];
    int rv;
    if (id->length == 0)
        return REPLICA_E_ABSENT;
    rv = files_index_get(files, id, &bytes.place);
    if (rv != 0 || bytes.place.packed)
        return rv == 0 || rv == REPLICA_E_NOTFOUND ? REPLICA_E_ABSENT : rv;
    files_whole_name(id, name);
    bytes.fd = openat(files->whole, name, O_RDONLY | O_CLOEXEC);
    if (bytes.fd < 0)
        rv = errno == ENOENT ? REPLICA_E_CORRUPT : files_errno();
    else
        rv = fstat(bytes.fd, &status) != 0 ? files_errno() : compare_facts(id, &status, &bytes.place);
    if (rv == 0) {
        *ret_fd = bytes.fd;
        return 0;
    }
    files_bytes_close(&bytes);
    return rv == REPLICA_E_CORRUPT ? files_set_aside(files, id, &bytes) : rv;
}

/* Whether bytes that are said to be complete can be there at all. */
static int glance(struct files *files, const struct replica_content_id *id, const struct files_place *place)
{
    char name[FILES_NAME_MAX];
    struct stat status;
    if (place->packed)
        files_pack_name(place->pack, name);
    else
        files_whole_name(id, name);
    if (fstatat(place->packed ? files->packs : files->whole, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? REPLICA_E_CORRUPT : files_errno();
    if (!S_ISREG(status.st_mode) || (place->packed ? (uint64_t)status.st_size < place->offset + id->length
                                                   : (uint64_t)status.st_size != id->length))
        return REPLICA_E_CORRUPT;
    return 0;
}

int replica_contents_files_glance(struct replica_contents *contents, const struct replica_content_id *id)
{
    struct files *files = (struct files *)contents;
    struct files_bytes bytes = {.fd = -1, .complete = true};
    int rv;
    if (id->length == 0)
        return 0;
    rv = files_index_get(files, id, &bytes.place);
    if (rv != 0)
        return rv == REPLICA_E_NOTFOUND ? REPLICA_E_ABSENT : rv;
    rv = glance(files, id, &bytes.place);
    return rv == REPLICA_E_CORRUPT ? files_set_aside(files, id, &bytes) : rv;
}

/* Reading through */

static int verify_all(struct files *files, const struct replica_content_id *id,
                      const struct files_bytes *bytes, int (*progress)(void *context, uint64_t bytes),
                      void *context)
{
    uint32_t chunks = replica_merkle_chunks(id->length);
    uint8_t *data = malloc(REPLICA_CHUNK_SIZE);
    int rv = data == NULL ? REPLICA_E_NOMEM : 0;
    for (uint32_t chunk = 0; chunk < chunks && rv == 0; chunk++) {
        rv = files_bytes_chunk(files, id, bytes, chunk, data);
        if (rv == 0 && progress != NULL &&
            progress(context, chunk * REPLICA_CHUNK_SIZE + replica_merkle_chunk_size(id->length, chunk)) != 0)
            rv = REPLICA_E_CANCELLED;
    }
    free(data);
    return rv;
}

int replica_contents_files_verify(struct replica_contents *contents, const struct replica_content_id *id,
                                  int (*progress)(void *context, uint64_t bytes), void *context)
{
    struct files *files = (struct files *)contents;
    struct files_bytes bytes;
    struct stat status;
    int rv;
    if (id->length == 0)
        return 0;
    rv = files_bytes_open(files, id, 0, replica_merkle_chunks(id->length) - 1, &bytes);
    if (rv == 0 && fstat(bytes.fd, &status) != 0)
        rv = files_errno();
    if (rv == 0 && bytes.complete && !bytes.place.packed && (uint64_t)status.st_size != id->length)
        rv = REPLICA_E_CORRUPT; /* longer is damage too: a descriptor shows it */
    if (rv == 0)
        rv = verify_all(files, id, &bytes, progress, context);
    files_bytes_close(&bytes);
    if (rv == REPLICA_E_CORRUPT)
        return files_set_aside(files, id, &bytes);
    if (rv == 0 && bytes.complete && !bytes.place.packed)
        rv = keep_facts(files, id, &bytes.place, &status);
    return rv;
}

/* What was damaged and is not whole again */

bool replica_contents_files_was_damaged(struct replica_contents *contents,
                                        const struct replica_content_id *id)
{
    return files_damaged_get((struct files *)contents, id);
}

int replica_contents_files_damaged_next(struct replica_contents *contents,
                                        const struct replica_content_id *after,
                                        struct replica_content_id *ret_id)
{
    return files_damaged_next((struct files *)contents, after, ret_id);
}

uint64_t replica_contents_files_lost(const struct replica_contents *contents)
{
    return ((const struct files *)contents)->lost;
}

/* Directories were not there that should have been: who knows what else is missing. The one time that the
 * whole index is walked. */
int files_recheck(struct files *files)
{
    struct replica_content_id id, *after = NULL;
    struct files_place place;
    int rv;
    while ((rv = files_index_next(files, after, &id)) == 0) {
        rv = files_index_get(files, &id, &place);
        if (rv == 0)
            rv = glance(files, &id, &place);
        if (rv == REPLICA_E_CORRUPT) {
            rv = files_remove_complete(files, &id, true);
            files->lost++;
        }
        if (rv != 0)
            return rv;
        after = &id;
    }
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}
