/* Looking at entries, and reading bytes: fetched from peers where they are not here yet. */
#include "api/edit.h"

#include "replica/contents_files.h"
#include "replica/merkle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a file whose draft becomes a content while it is looked at, or whose content is damaged and fetched again. */
#define ATTEMPTS_MAX 8

/* 0, or the call is answered. */
static int look_up(struct api_call *call, struct api_path *ret_path, struct replica_version *ret_version)
{
    struct replica_view *view;
    struct api_at at;
    int code = api_get_view(call, &view);
    if (code == 0)
        code = api_get_path(call, "path", true, ret_path);
    if (code == 0)
        code = api_get_at(call, &at);
    if (code != 0)
        return code;
    code = api_look_up(view, ret_path->path, &at, ret_version);
    if (code != 0)
        api_fail_look_up(call, ret_path->path, &at, code);
    return code;
}

void api_fs_stat(struct api_call *call)
{
    struct replica_version version;
    struct replica_buffer reply;
    struct api_path path;
    replica_version_init(&version);
    if (look_up(call, &path, &version) == 0) {
        if (version.entry.kind == REPLICA_KIND_FILE && version.entry.blob.kind == REPLICA_BLOB_CONTENT)
            (void)replica_contents_files_glance(api_contents(call), &version.entry.blob.content);
        api_reply_begin(call, &reply);
        api_pack_entry(&reply, api_contents(call), "path", path.path, &version);
        api_reply(call, &reply);
    }
    replica_version_close(&version);
}

/* fs.list */

struct listing {
    struct replica_contents *contents;
    struct replica_buffer items;
    size_t n;
    bool full;
};

static int list_child(void *context, struct replica_path name, const struct replica_version *version)
{
    struct listing *listing = context;
    api_pack_entry(&listing->items, listing->contents, "name", name, version);
    listing->n++;
    listing->full = listing->items.size > API_REPLY_MAX;
    return listing->full ? WALK_STOP : 0;
}

void api_fs_list(struct api_call *call)
{
    struct listing listing = {.contents = api_contents(call)};
    struct replica_view *view;
    struct replica_buffer reply;
    struct api_path path;
    const char *after = "";
    uint64_t limit = API_ENTRIES_MAX;
    size_t after_n = 0, reads = 0;
    bool more = false;
    int code;
    if (api_get_view(call, &view) != 0 || api_get_path(call, "path", true, &path) != 0 ||
        api_get_text(call, "after", false, &after, &after_n) != 0 ||
        api_get_uint(call, "limit", false, UINT32_MAX, &limit) != 0)
        return;
    if (after_n > REPLICA_NAME_MAX || limit == 0) {
        api_fail(call, REPLICA_E_INVALID, "fs.list: `after` is a name, and `limit` is not 0");
        return;
    }
    replica_buffer_init(&listing.items);
    code = replica_view_list(view, path.path, (struct replica_path){after, after_n},
                             limit < API_ENTRIES_MAX ? (size_t)limit : API_ENTRIES_MAX, &reads, &more,
                             list_child, &listing);
    if (code < 0) {
        replica_buffer_close(&listing.items);
        api_fail_path(call, path.path, code, NULL, 0);
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 2);
    api_pack_key(&reply, "more");
    replica_pack_bool(&reply, more || listing.full);
    api_pack_key(&reply, "entries");
    replica_pack_array(&reply, listing.n);
    replica_buffer_append(&reply, listing.items.data, listing.items.size);
    reply.failed = reply.failed || listing.items.failed;
    replica_buffer_close(&listing.items);
    api_reply(call, &reply);
}

/* fs.read, fs.open and fs.verify: look up → fetch what is missing → read on a worker. A draft that was taken for
 * a content meanwhile: look up again. What turns out to be damaged is missing from then on. */

struct reading {
    struct replica_id view, volume;
    struct api_path path;
    struct api_at at;
    bool whole;  /* fs.open, fs.verify */
    bool verify; /* fs.verify */
    bool damaged;
    uint64_t offset, size;
    size_t length;
    struct replica_content_id content;
    uint64_t draft; /* 0: a content */
    struct replica_contents *contents;
    struct api_call *call;
    int attempts;
    uint8_t *data;
    size_t data_n;
    int fd; /* of an answer; -1: data */
    int code;
};

static void free_reading(void *state)
{
    struct reading *reading = state;
    if (reading->fd >= 0)
        close(reading->fd);
    free(reading->data);
    free(reading);
}

static void fail_reading(struct api_call *call, int code, const uint8_t *result, size_t n)
{
    const struct reading *reading = call->state;
    if (reading->draft == 0)
        api_fail_content(call, reading->path.path, &reading->content, code, result, n);
    else
        api_fail_path(call, reading->path.path, code, result, n);
}

static void reply_reading(struct api_call *call)
{
    struct reading *reading = call->state;
    struct replica_buffer reply;
    int fd = reading->fd;
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, reading->whole ? 2 : 1);
    if (reading->whole) {
        api_pack_key(&reply, "size");
        replica_pack_uint(&reply, reading->size);
    }
    if (fd >= 0) {
        api_pack_key(&reply, "fd");
        replica_pack_uint(&reply, 0);
        reading->fd = -1;
        api_reply_fd(call, &reply, fd);
        return;
    }
    api_pack_key(&reply, "data");
    replica_pack_bin(&reply, reading->data, reading->data_n);
    api_reply(call, &reply);
}

static void reply_verified(struct api_call *call)
{
    const struct reading *reading = call->state;
    struct replica_buffer reply;
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 1);
    api_pack_key(&reply, "damaged");
    replica_pack_bool(&reply, reading->damaged);
    api_reply(call, &reply);
}

/* The same file again, by a descriptor that cannot write. */
static int reopen_read_only(int fd, int *ret_fd)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    *ret_fd = open(name, O_RDONLY | O_CLOEXEC);
    return *ret_fd >= 0 ? 0 : REPLICA_E_IO;
}

static int read_draft(struct reading *reading)
{
    int fd, rv = replica_contents_files_draft_open(reading->contents, reading->draft, &fd);
    if (rv != 0)
        return rv;
    if (reading->whole && reading->size > API_DATA_MAX) {
        rv = reopen_read_only(fd, &reading->fd);
        close(fd);
        return rv;
    }
    while (rv == 0 && reading->data_n < reading->length) {
        ssize_t n = pread(fd, reading->data + reading->data_n, reading->length - reading->data_n,
                          (off_t)(reading->offset + reading->data_n));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rv = n < 0 ? REPLICA_E_IO : 0;
            break;
        }
        reading->data_n += (size_t)n;
    }
    close(fd);
    return rv;
}

static void run_reading(struct api_call *call)
{
    struct reading *reading = call->state;
    if (reading->draft != 0)
        reading->code = read_draft(reading);
    else
        reading->code = replica_contents_read(reading->contents, &reading->content, reading->offset,
                                              reading->data, reading->length, &reading->data_n);
}

static void begin_reading(struct api_call *call);
static void fetch_missing(struct api_call *call);

/* True: the content was found damaged, and is being fetched again. */
static bool fetches_again(struct api_call *call, int code)
{
    struct reading *reading = call->state;
    bool gone = code == REPLICA_E_CORRUPT || code == REPLICA_E_ABSENT;
    if (reading->draft != 0 || !gone || ++reading->attempts >= ATTEMPTS_MAX)
        return false;
    reading->damaged = reading->damaged || code == REPLICA_E_CORRUPT;
    fetch_missing(call);
    return true;
}

static void on_read(struct api_call *call)
{
    struct reading *reading = call->state;
    if (fetches_again(call, reading->code))
        return;
    if (reading->code == REPLICA_E_NOTFOUND && reading->draft != 0 && ++reading->attempts < ATTEMPTS_MAX)
        begin_reading(call);
    else if (reading->code != 0)
        fail_reading(call, reading->code == REPLICA_E_NOTFOUND ? REPLICA_E_BUSY : reading->code, NULL, 0);
    else
        reply_reading(call);
}

static void read_bytes(struct api_call *call)
{
    struct reading *reading = call->state;
    free(reading->data);
    reading->data = malloc(reading->length > 0 ? reading->length : 1);
    reading->data_n = 0;
    if (reading->data == NULL)
        api_fail(call, REPLICA_E_NOMEM, NULL);
    else
        api_job(call, run_reading, on_read);
}

static int on_verifying(void *context, uint64_t bytes)
{
    const struct reading *reading = context;
    api_progress(reading->call, bytes, reading->size);
    return api_is_gone(reading->call);
}

static void run_verify(struct api_call *call)
{
    struct reading *reading = call->state;
    reading->code =
        replica_contents_files_verify(reading->contents, &reading->content, on_verifying, reading);
}

static void open_content(struct api_call *call);

static void on_verified(struct api_call *call)
{
    struct reading *reading = call->state;
    if (fetches_again(call, reading->code))
        return;
    if (reading->code != 0)
        fail_reading(call, reading->code, NULL, 0);
    else if (reading->verify)
        reply_verified(call);
    else if (++reading->attempts < ATTEMPTS_MAX)
        open_content(call);
    else
        fail_reading(call, REPLICA_E_BUSY, NULL, 0); /* somebody keeps touching it */
}

static void open_content(struct api_call *call)
{
    struct reading *reading = call->state;
    int code = replica_contents_files_fd(reading->contents, &reading->content, &reading->fd);
    if (code == REPLICA_E_STALE)
        api_job(call, run_verify, on_verified);
    else if (code == 0)
        reply_reading(call);
    else if (!fetches_again(call, code))
        fail_reading(call, code, NULL, 0);
}

static void on_complete(struct api_call *call, int code)
{
    if (code != 0)
        fail_reading(call, code, NULL, 0);
    else
        open_content(call);
}

/* All that is wanted is here. */
static void use_content(struct api_call *call)
{
    struct reading *reading = call->state;
    if (reading->verify)
        api_job(call, run_verify, on_verified);
    else if (reading->whole && reading->size > REPLICA_CONTENTS_PACKED_MAX)
        api_await_complete(call, &reading->content, on_complete);
    else
        read_bytes(call);
}

static void on_fetched(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    (void)context;
    if (code != 0)
        fail_reading(call, code, result, n);
    else
        use_content(call);
}

/* Chunks [first, first + count) of what is to be read; the whole file for a descriptor. */
static void fetch_missing(struct api_call *call)
{
    const struct reading *reading = call->state;
    struct gossip_peer_request request = {
        .kind = GOSSIP_PEER_FETCH, .volume = reading->volume, .content = reading->content};
    bool missing = false;
    if (reading->whole) {
        missing = replica_contents_state(reading->contents, &reading->content) < REPLICA_CONTENTS_FILLED;
    } else if (reading->length > 0) {
        request.first = (uint32_t)(reading->offset / REPLICA_CHUNK_SIZE);
        request.count =
            (uint32_t)((reading->offset + reading->length - 1) / REPLICA_CHUNK_SIZE) - request.first + 1;
        for (uint32_t i = 0; i < request.count; i++)
            missing = missing ||
                      !replica_contents_has(reading->contents, &reading->content,
                                            (struct replica_piece){REPLICA_PIECE_CHUNK, request.first + i});
    }
    if (missing)
        api_request(call, &request, on_fetched, NULL);
    else
        use_content(call);
}

static int take_inline(struct reading *reading, const struct replica_blob *blob)
{
    reading->data = malloc(REPLICA_INLINE_MAX);
    if (reading->data == NULL)
        return REPLICA_E_NOMEM;
    reading->data_n = reading->length;
    if (reading->length > 0)
        memcpy(reading->data, blob->data + reading->offset, reading->length);
    return 0;
}

/* 0: from where to read is known. */
static int aim(struct api_call *call, struct reading *reading, const struct replica_entry *entry)
{
    if (entry->kind == REPLICA_KIND_DIRECTORY)
        return REPLICA_E_ISDIR;
    if (entry->kind != REPLICA_KIND_FILE)
        return REPLICA_E_INVALID;
    reading->size = entry->size;
    if (reading->whole)
        reading->length = entry->size < API_DATA_MAX ? (size_t)entry->size : API_DATA_MAX;
    if (reading->offset >= entry->size)
        reading->length = 0;
    else if (reading->length > entry->size - reading->offset)
        reading->length = (size_t)(entry->size - reading->offset);
    reading->draft = entry->blob.kind == REPLICA_BLOB_DRAFT ? entry->blob.draft : 0;
    reading->content = entry->blob.content;
    if (reading->draft != 0 && reading->whole && reading->size > API_DATA_MAX)
        api_draft_share(call->api, reading->draft); /* who opens it keeps what it is now */
    return entry->blob.kind == REPLICA_BLOB_INLINE ? take_inline(reading, &entry->blob) : 0;
}

static void begin_reading(struct api_call *call)
{
    struct reading *reading = call->state;
    struct replica_view *view = api_view(call, &reading->view);
    struct replica_version version;
    bool is_inline;
    int code;
    replica_version_init(&version);
    code = view == NULL ? REPLICA_E_NOTFOUND : api_look_up(view, reading->path.path, &reading->at, &version);
    if (code != 0) {
        replica_version_close(&version);
        api_fail_look_up(call, reading->path.path, &reading->at, code);
        return;
    }
    code = aim(call, reading, &version.entry);
    is_inline = version.entry.blob.kind == REPLICA_BLOB_INLINE;
    replica_version_close(&version);
    if (code == REPLICA_E_INVALID)
        api_fail(call, code, "/%s: is not a regular file", reading->path.text);
    else if (code != 0)
        fail_reading(call, code, NULL, 0);
    else if (reading->verify && (is_inline || reading->draft != 0))
        reply_verified(call); /* in the entry, or written here and not a content yet */
    else if (is_inline)
        reply_reading(call);
    else if (reading->draft != 0)
        read_bytes(call);
    else
        fetch_missing(call);
}

/* NULL: answered. */
static struct reading *new_reading(struct api_call *call)
{
    struct replica_view *view;
    struct reading *reading;
    if (api_get_view(call, &view) != 0)
        return NULL;
    reading = calloc(1, sizeof *reading);
    if (reading == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return NULL;
    }
    reading->fd = -1;
    reading->call = call;
    call->state = reading;
    call->free_state = free_reading;
    reading->view = replica_view_info(view)->options.id;
    reading->volume = replica_view_info(view)->options.volume;
    reading->contents = api_contents(call);
    return api_get_path(call, "path", true, &reading->path) == 0 && api_get_at(call, &reading->at) == 0
               ? reading
               : NULL;
}

void api_fs_read(struct api_call *call)
{
    struct reading *reading = new_reading(call);
    uint64_t length = 0;
    if (reading == NULL || api_get_uint(call, "offset", true, INT64_MAX, &reading->offset) != 0 ||
        api_get_uint(call, "length", true, API_DATA_MAX, &length) != 0)
        return;
    reading->length = (size_t)length;
    begin_reading(call);
}

void api_fs_open(struct api_call *call)
{
    struct reading *reading = new_reading(call);
    if (reading == NULL)
        return;
    reading->whole = true;
    begin_reading(call);
}

void api_fs_verify(struct api_call *call)
{
    struct reading *reading = new_reading(call);
    if (reading == NULL)
        return;
    reading->whole = reading->verify = true;
    begin_reading(call);
}
