/* fs.write and fs.set: changing a file's bytes and attributes.
 *
 * Bytes change in a draft file. One that only this view's newest generation names is written in place, inside
 * a step of the peer: no commit can freeze the view in the middle of it. Anything else is copied to a new
 * draft on a worker first (a reflink where the file system can), which nobody else sees until the step that
 * names it; if the file changed meanwhile, that copy is thrown away and made again. */
#include "api/edit.h"

#include "replica/contents_files.h"
#include "replica/merkle.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ATTEMPTS_MAX 8 /* while others write the same file */

struct writing {
    struct api_call *call;
    struct replica_contents *contents;
    struct replica_id view, volume;
    struct api_path path;
    int64_t now_ns;
    uint64_t free_floor;
    bool create;
    bool attributes; /* fs.set: those of the params */
    bool truncates;  /* to new_size */
    uint64_t new_size;
    const uint8_t *data; /* in the message */
    size_t n;
    uint64_t offset;
    struct replica_buffer xattrs;
    /* an attempt */
    int attempts;
    bool exists;
    struct replica_blob base; /* of the file as it was looked at; inline bytes are in base_bytes */
    uint8_t base_bytes[REPLICA_INLINE_MAX];
    uint64_t base_size, size; /* before, after */
    uint64_t draft;           /* new; 0: in place */
    bool named;               /* by the view */
    int code;
};

static void free_writing(void *state)
{
    struct writing *writing = state;
    if (writing->draft != 0 && !writing->named)
        replica_contents_files_draft_remove(writing->contents, writing->draft);
    replica_buffer_close(&writing->xattrs);
    free(writing);
}

static void fail_writing(struct api_call *call, int code, const uint8_t *result, size_t n)
{
    const struct writing *writing = call->state;
    if (code == REPLICA_E_INVALID && n == 0)
        api_fail(call, code, "/%s: is not a regular file", writing->path.text);
    else if (code == REPLICA_E_BUSY && n == 0)
        api_fail(call, code, "/%s: others keep writing it; try again", writing->path.text);
    else
        api_fail_path(call, writing->path.path, code, result, n);
}

/* The bytes */

static int write_error(void)
{
    return errno == ENOSPC || errno == EDQUOT ? REPLICA_E_NOSPACE : REPLICA_E_IO;
}

static int write_all(int fd, const uint8_t *data, size_t n, uint64_t offset)
{
    for (size_t done = 0; done < n;) {
        ssize_t wrote = pwrite(fd, data + done, n - done, (off_t)(offset + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return write_error();
        done += (size_t)wrote;
    }
    return 0;
}

static int check_space(const struct writing *writing, int fd, size_t n)
{
    struct statvfs status;
    if (fstatvfs(fd, &status) != 0)
        return REPLICA_E_IO;
    return (uint64_t)status.f_bavail * status.f_frsize < writing->free_floor + n ? REPLICA_E_NOSPACE : 0;
}

static int change_bytes(const struct writing *writing, int fd)
{
    int rv = check_space(writing, fd, writing->n);
    if (rv == 0)
        rv = write_all(fd, writing->data, writing->n, writing->offset);
    if (rv == 0 && writing->truncates && ftruncate(fd, (off_t)writing->new_size) != 0)
        rv = write_error();
    return rv;
}

/* Holes stay holes. */
static int copy_chunk(const struct writing *writing, int to, const uint8_t *bytes, size_t n, uint64_t offset)
{
    bool zero = bytes[0] == 0 && memcmp(bytes, bytes + 1, n - 1) == 0;
    int rv = zero ? 0 : check_space(writing, to, n);
    return zero || rv != 0 ? rv : write_all(to, bytes, n, offset);
}

static int read_base(const struct writing *writing, int from, uint8_t *chunk, uint64_t offset, size_t n,
                     size_t *ret_n)
{
    ssize_t got;
    if (from < 0)
        return replica_contents_read(writing->contents, &writing->base.content, offset, chunk, n, ret_n);
    do
        got = pread(from, chunk, n, (off_t)offset);
    while (got < 0 && errno == EINTR);
    *ret_n = got > 0 ? (size_t)got : 0;
    return got < 0 ? REPLICA_E_IO : 0;
}

static int copy_all(const struct writing *writing, int from, int to, uint64_t keep)
{
    uint8_t *chunk = malloc(REPLICA_CHUNK_SIZE);
    int rv = chunk == NULL ? REPLICA_E_NOMEM : 0;
    for (uint64_t offset = 0; rv == 0 && offset < keep;) {
        size_t n = keep - offset < REPLICA_CHUNK_SIZE ? (size_t)(keep - offset) : REPLICA_CHUNK_SIZE;
        rv =
            api_is_gone(writing->call) ? REPLICA_E_CANCELLED : read_base(writing, from, chunk, offset, n, &n);
        if (rv == 0 && n == 0)
            rv = REPLICA_E_IO; /* shorter than its entry says */
        if (rv == 0)
            rv = copy_chunk(writing, to, chunk, n, offset);
        offset += n;
        api_progress(writing->call, offset, keep);
    }
    free(chunk);
    return rv;
}

static int tell_verified(void *context, uint64_t bytes)
{
    const struct writing *writing = context;
    api_progress(writing->call, bytes, writing->base_size);
    return api_is_gone(writing->call) ? 1 : 0;
}

/* What is copied becomes a content of its own, whose id fits whatever it has: only what was verified may. */
static int clone_content(struct writing *writing, int to)
{
    int from, rv = replica_contents_files_fd(writing->contents, &writing->base.content, &from);
    if (rv != 0)
        return rv == REPLICA_E_STALE ? REPLICA_E_ABSENT : rv; /* touched */
    rv = ioctl(to, FICLONE, from) != 0 ? REPLICA_E_ABSENT : 0;
    close(from);
    if (rv == 0)
        rv = replica_contents_files_verify(writing->contents, &writing->base.content, tell_verified, writing);
    return rv;
}

/* The first `keep` bytes of the base into a new draft. */
static int copy_base(struct writing *writing, int to, uint64_t keep)
{
    int from = -1, rv;
    if (ftruncate(to, (off_t)keep) != 0)
        return write_error();
    if (keep == 0)
        return 0;
    if (writing->base.kind == REPLICA_BLOB_INLINE)
        return write_all(to, writing->base_bytes, (size_t)keep, 0);
    if (writing->base.kind == REPLICA_BLOB_CONTENT) {
        rv = clone_content(writing, to);
        if (rv == REPLICA_E_ABSENT) /* or in a pack, or not synced yet: read in pieces, which are verified */
            return ftruncate(to, 0) != 0 || ftruncate(to, (off_t)keep) != 0 ? write_error()
                                                                            : copy_all(writing, -1, to, keep);
    } else {
        rv = replica_contents_files_draft_open(writing->contents, writing->base.draft, &from);
        if (rv == 0 && ioctl(to, FICLONE, from) != 0)
            rv = copy_all(writing, from, to, keep);
    }
    if (rv == 0 && ftruncate(to, (off_t)keep) != 0)
        rv = write_error();
    if (from >= 0)
        close(from);
    return rv;
}

static void run_copy(struct api_call *call)
{
    struct writing *writing = call->state;
    uint64_t keep =
        writing->truncates && writing->new_size < writing->base_size ? writing->new_size : writing->base_size;
    int fd;
    writing->code = replica_contents_files_draft_new(writing->contents, &writing->draft, &fd);
    if (writing->code != 0)
        return;
    writing->code = copy_base(writing, fd, keep);
    if (writing->code == 0)
        writing->code = change_bytes(writing, fd);
    close(fd);
}

/* The step that names them */

static bool same_blob(const struct replica_blob *a, const struct replica_blob *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == REPLICA_BLOB_CONTENT)
        return replica_content_id_equal(&a->content, &b->content);
    if (a->kind == REPLICA_BLOB_DRAFT)
        return a->draft == b->draft;
    return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

static int check_file(const struct replica_entry *entry)
{
    return entry->kind == REPLICA_KIND_DIRECTORY ? REPLICA_E_ISDIR
           : entry->kind != REPLICA_KIND_FILE    ? REPLICA_E_INVALID
                                                 : 0;
}

/* What a file is made of where there is none. */
static struct replica_entry new_file(const struct writing *writing)
{
    return (struct replica_entry){.kind = REPLICA_KIND_FILE,
                                  .mode = 0644,
                                  .uid = writing->call->uid,
                                  .gid = writing->call->gid,
                                  .mtime_ns = writing->now_ns,
                                  .blob = {.kind = REPLICA_BLOB_INLINE}};
}

/* As the params say; they were found right before. Kind and what belongs to it cannot be changed. */
static void set_attributes(struct writing *writing, struct replica_entry *entry)
{
    struct replica_entry changed = *entry;
    if (!writing->attributes || api_read_entry(writing->call, writing->path.text, &writing->call->params,
                                               &changed, &writing->xattrs) != 0)
        return;
    entry->mode = changed.mode;
    entry->uid = changed.uid;
    entry->gid = changed.gid;
    entry->mtime_ns = changed.mtime_ns;
    entry->xattrs = changed.xattrs;
    entry->xattrs_size = changed.xattrs_size;
}

static uint64_t size_after(const struct writing *writing, uint64_t size)
{
    if (writing->truncates)
        return writing->new_size;
    return writing->n > 0 && writing->offset + writing->n > size ? writing->offset + writing->n : size;
}

static int write_in_place(struct writing *writing, struct replica_view *view,
                          const struct replica_entry *entry)
{
    int fd, rv;
    if (entry->blob.kind != REPLICA_BLOB_DRAFT ||
        !api_draft_is_own(writing->call->api, view, entry->blob.draft))
        return REPLICA_E_STALE;
    rv = replica_contents_files_draft_open(writing->contents, entry->blob.draft, &fd);
    if (rv != 0)
        return rv == REPLICA_E_NOTFOUND ? REPLICA_E_STALE : rv;
    rv = change_bytes(writing, fd);
    close(fd);
    return rv;
}

/* STALE: the file is not what it was when it was looked at; the attempt is repeated. */
static int edit_write(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    struct writing *writing = state;
    struct replica_version version;
    struct replica_entry entry;
    int rv;
    replica_version_init(&version);
    rv = replica_view_lookup(view, writing->path.path, &version);
    entry = rv == 0 ? version.entry : new_file(writing);
    if (rv == 0)
        rv = writing->exists ? check_file(&entry) : REPLICA_E_STALE;
    else if (rv == REPLICA_E_NOTFOUND)
        rv = writing->exists ? REPLICA_E_STALE : 0;
    if (rv == 0 && writing->exists && writing->draft != 0 && !same_blob(&entry.blob, &writing->base))
        rv = REPLICA_E_STALE;
    if (rv == 0 && writing->draft == 0)
        rv = write_in_place(writing, view, &entry);
    if (rv == 0) {
        entry.size = size_after(writing, entry.size);
        entry.mtime_ns = writing->now_ns;
        if (writing->draft != 0)
            entry.blob = (struct replica_blob){.kind = REPLICA_BLOB_DRAFT, .draft = writing->draft};
        set_attributes(writing, &entry);
        rv = replica_view_put(view, writing->path.path, &entry, log);
    }
    if (rv == 0 && writing->draft != 0) {
        writing->named = true;
        api_draft_own(writing->call->api, &writing->view, writing->draft,
                      replica_view_info(view)->generation);
    }
    replica_version_close(&version);
    return rv;
}

/* An attempt: look → fetch the base if it is not here → copy on a worker → name. In place: only the last. */

static void attempt(struct api_call *call);

static void on_written(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    struct writing *writing = call->state;
    (void)context;
    if (code == 0) {
        api_reply_nil(call);
        return;
    }
    if (writing->draft != 0 && !writing->named)
        replica_contents_files_draft_remove(writing->contents, writing->draft);
    writing->draft = 0;
    if (code == REPLICA_E_STALE && n == 0 && ++writing->attempts < ATTEMPTS_MAX)
        attempt(call);
    else
        fail_writing(call, code == REPLICA_E_STALE ? REPLICA_E_BUSY : code, result, n);
}

static void on_copied(struct api_call *call)
{
    struct writing *writing = call->state;
    bool damaged = writing->code == REPLICA_E_CORRUPT || writing->code == REPLICA_E_ABSENT;
    if (writing->code == REPLICA_E_NOTFOUND ||
        damaged) /* the draft it was became a content; it is fetched again */
        on_written(call, NULL, REPLICA_E_STALE, NULL, 0);
    else if (writing->code != 0)
        on_written(call, NULL, writing->code, NULL, 0);
    else
        api_edit(call, &writing->view, edit_write, on_written);
}

static void on_fetched(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    const struct writing *writing = call->state;
    (void)context;
    if (code != 0)
        api_fail_content(call, writing->path.path, &writing->base.content, code, result, n);
    else
        api_job(call, run_copy, on_copied);
}

static void copy_on_write(struct api_call *call)
{
    struct writing *writing = call->state;
    struct gossip_peer_request request = {
        .kind = GOSSIP_PEER_FETCH, .volume = writing->volume, .content = writing->base.content};
    bool needed = writing->base_size > 0 && !(writing->truncates && writing->new_size == 0);
    if (needed && writing->base.kind == REPLICA_BLOB_CONTENT &&
        replica_contents_state(writing->contents, &writing->base.content) < REPLICA_CONTENTS_FILLED)
        api_request(call, &request, on_fetched, NULL);
    else
        api_job(call, run_copy, on_copied);
}

/* 0, or a code. */
static int look(struct writing *writing, struct replica_view *view, bool *ret_own)
{
    struct replica_version version;
    int rv;
    *ret_own = false;
    replica_version_init(&version);
    rv = replica_view_lookup(view, writing->path.path, &version);
    writing->exists = rv == 0;
    writing->base = (struct replica_blob){.kind = REPLICA_BLOB_INLINE};
    writing->base_size = 0;
    if (rv == 0)
        rv = check_file(&version.entry);
    else if (rv == REPLICA_E_NOTFOUND && writing->create)
        rv = 0;
    if (rv == 0 && writing->exists) {
        writing->base = version.entry.blob;
        writing->base_size = version.entry.size;
        if (writing->base.kind == REPLICA_BLOB_INLINE && writing->base.size > 0)
            memcpy(writing->base_bytes, version.entry.blob.data, writing->base.size);
        writing->base.data = writing->base_bytes;
        *ret_own = writing->base.kind == REPLICA_BLOB_DRAFT &&
                   api_draft_is_own(writing->call->api, view, writing->base.draft);
    }
    replica_version_close(&version);
    return rv;
}

static void attempt(struct api_call *call)
{
    struct writing *writing = call->state;
    struct replica_view *view = api_view(call, &writing->view);
    bool own = false;
    int code = view == NULL ? REPLICA_E_NOTFOUND : look(writing, view, &own);
    if (code != 0)
        fail_writing(call, code, NULL, 0);
    else if (own)
        api_edit(call, &writing->view, edit_write, on_written);
    else
        copy_on_write(call);
}

/* NULL: answered. */
static struct writing *new_writing(struct api_call *call)
{
    struct replica_view *view;
    struct writing *writing;
    if (api_get_writable_view(call, &view) != 0)
        return NULL;
    writing = calloc(1, sizeof *writing);
    if (writing == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return NULL;
    }
    replica_buffer_init(&writing->xattrs);
    writing->call = call;
    writing->contents = api_contents(call);
    writing->view = replica_view_info(view)->options.id;
    writing->volume = replica_view_info(view)->options.volume;
    writing->now_ns = api_now_ns();
    writing->free_floor = node_config_free_space(node_get_config(api_node(call->api)));
    call->state = writing;
    call->free_state = free_writing;
    return api_get_path(call, "path", true, &writing->path) == 0 ? writing : NULL;
}

void api_fs_write(struct api_call *call)
{
    struct writing *writing = new_writing(call);
    if (writing == NULL || api_get_uint(call, "offset", true, INT64_MAX, &writing->offset) != 0 ||
        api_get_data(call, "data", &writing->data, &writing->n) != 0 ||
        api_get_bool(call, "create", &writing->create) != 0)
        return;
    if (writing->offset > REPLICA_CONTENT_SIZE_MAX - writing->n)
        fail_writing(call, REPLICA_E_TOOBIG, NULL, 0);
    else
        attempt(call);
}

/* fs.set */

static int edit_set(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    struct writing *writing = state;
    struct replica_version version;
    int rv;
    replica_version_init(&version);
    rv = replica_view_lookup(view, writing->path.path, &version);
    if (rv == 0) {
        set_attributes(writing, &version.entry);
        rv = replica_view_put(view, writing->path.path, &version.entry, log);
    }
    replica_version_close(&version);
    return rv;
}

void api_fs_set(struct api_call *call)
{
    struct writing *writing = new_writing(call);
    struct replica_entry entry = {.kind = REPLICA_KIND_FILE};
    struct replica_pack_reader given;
    if (writing == NULL ||
        api_read_entry(call, writing->path.text, &call->params, &entry, &writing->xattrs) != 0 ||
        api_get_uint(call, "size", false, REPLICA_CONTENT_SIZE_MAX, &writing->new_size) != 0)
        return;
    if (entry.xattrs_size > 0 && replica_entry_check(&entry) == REPLICA_E_INVALID) {
        api_fail(call, REPLICA_E_INVALID,
                 "/%s: the name of an extended attribute has 1 to 255 bytes, and no NUL", writing->path.text);
        return;
    }
    writing->attributes = true;
    writing->truncates = api_find(call, "size", &given);
    if (writing->truncates)
        attempt(call);
    else
        api_edit(call, &writing->view, edit_set, on_written);
}
