/* fs.put: many entries in one call. Everything is checked first; then slice by slice the bytes become
 * contents on a worker, and are named in the view at once, so that what was read is never found unnamed and
 * collected. */
#include "api/edit.h"

#include "replica/contents_files.h"
#include "replica/merkle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PUT_ENTRIES_MAX 4096        /* of a message; 4 MiB hold few more */
#define SLICE_BYTES     (64u << 20) /* read before they are named */
#define SLICE_ENTRIES   256

struct item {
    struct replica_path path; /* in the arena */
    struct replica_entry entry;
    struct replica_buffer xattrs;
    const uint8_t *data; /* of a file given as bytes, in the message */
    size_t data_n;
    int fd; /* -1: none; the call's */
    uint8_t inlined[REPLICA_INLINE_MAX];
};

struct putting {
    struct api_call *call;
    struct replica_contents *contents;
    struct replica_id view;
    struct item *items;
    size_t n;
    char *arena; /* canonical paths */
    size_t arena_n;
    bool parents, replace;
    uint32_t uid, gid;
    int64_t now_ns;
    size_t first, next; /* the slice */
    size_t at;          /* the item in hand */
    uint64_t bytes, total;
    int code;
};

static void free_putting(void *state)
{
    struct putting *putting = state;
    for (size_t i = 0; i < putting->n; i++)
        replica_buffer_close(&putting->items[i].xattrs);
    free(putting->items);
    free(putting->arena);
    free(putting);
}

/* Reading the params */

static bool get_entries(const struct api_call *call, struct replica_pack_reader *ret_reader, size_t *ret_n)
{
    return api_find(call, "entries", ret_reader) &&
           replica_pack_read_array(ret_reader, PUT_ENTRIES_MAX, ret_n) == 0;
}

int api_count_fds(const struct api_call *call, size_t *ret_n)
{
    struct replica_pack_reader reader, value;
    size_t n, fds = 0;
    *ret_n = 0;
    if (!get_entries(call, &reader, &n))
        return 0; /* the method says so */
    for (size_t i = 0; i < n; i++) {
        uint64_t index;
        if (api_map_find(&reader, "fd", &value)) {
            if (replica_pack_read_uint(&value, API_FDS_MAX - 1, &index) != 0)
                return REPLICA_E_INVALID;
            if (index + 1 > fds)
                fds = (size_t)index + 1;
        }
        if (replica_pack_skip(&reader) != 0)
            return REPLICA_E_INVALID;
    }
    *ret_n = fds;
    return 0;
}

static int invalid(struct api_call *call, const char *path, const char *what)
{
    api_fail(call, REPLICA_E_INVALID, "fs.put: /%s: %s", path, what);
    return REPLICA_E_INVALID;
}

/* What a descriptor stands for is checked before anything is read from any. */
static int check_fd(struct putting *putting, const char *path, int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return invalid(putting->call, path, "its descriptor cannot be looked at");
    if (S_ISDIR(status.st_mode))
        return invalid(
            putting->call, path,
            "its descriptor is a directory; put it as an entry of kind \"directory\", then what is in it");
    if (!S_ISREG(status.st_mode))
        return invalid(
            putting->call, path,
            "its descriptor is not a regular file; send its bytes as `data`, or copy them to a file first");
    if ((uint64_t)status.st_size > REPLICA_CONTENT_SIZE_MAX) {
        api_fail_path(putting->call, (struct replica_path){path, strlen(path)}, REPLICA_E_TOOBIG, NULL, 0);
        return REPLICA_E_TOOBIG;
    }
    putting->total += (uint64_t)status.st_size;
    return 0;
}

static int read_source(struct putting *putting, const char *path, const struct replica_pack_reader *map,
                       struct item *item)
{
    struct replica_pack_reader value;
    uint64_t number;
    bool has_data = api_map_find(map, "data", &value);
    if (has_data && replica_pack_read_bin(&value, API_DATA_MAX, &item->data, &item->data_n) != 0)
        return invalid(putting->call, path, "`data` must be binary data of at most 1 MiB");
    putting->total += item->data_n;
    if (api_map_find(map, "fd", &value)) {
        if (has_data)
            return invalid(putting->call, path, "has `data` and `fd`; one of them is enough");
        if (replica_pack_read_uint(&value, API_FDS_MAX - 1, &number) != 0 || number >= putting->call->fds_n)
            return invalid(putting->call, path, "`fd` names a descriptor that did not come with the message");
        item->fd = putting->call->fds[number];
        return check_fd(putting, path, item->fd);
    }
    if (!has_data && (!api_map_find(map, "size", &value) ||
                      replica_pack_read_uint(&value, UINT64_MAX, &number) != 0 || number != 0))
        return invalid(putting->call, path, "a file needs `data`, or `fd`, or a `size` of 0");
    return 0;
}

static uint32_t usual_mode(enum replica_kind kind)
{
    return kind == REPLICA_KIND_DIRECTORY ? 0755 : kind == REPLICA_KIND_SYMLINK ? 0777 : 0644;
}

static int read_item(struct putting *putting, const struct replica_pack_reader *map, struct item *item)
{
    struct api_call *call = putting->call;
    struct replica_pack_reader value;
    struct api_path path;
    const char *text;
    size_t n;
    int code;
    if (!api_map_find(map, "path", &value) || replica_pack_read_str(&value, FRAME_SIZE_MAX, &text, &n) != 0) {
        api_fail(call, REPLICA_E_INVALID, "fs.put: each of `entries` is a map with a `path`");
        return REPLICA_E_INVALID;
    }
    code = api_canonical(call, text, n, &path);
    if (code != 0)
        return code;
    item->entry = (struct replica_entry){.kind = REPLICA_KIND_FILE,
                                         .mode = UINT32_MAX,
                                         .uid = putting->uid,
                                         .gid = putting->gid,
                                         .mtime_ns = putting->now_ns};
    code = api_read_entry(call, path.text, map, &item->entry, &item->xattrs);
    if (code != 0)
        return code;
    if (item->entry.mode == UINT32_MAX)
        item->entry.mode = usual_mode(item->entry.kind);
    if (item->entry.kind != REPLICA_KIND_SYMLINK)
        item->entry.target = NULL, item->entry.target_size = 0;
    code = item->entry.kind == REPLICA_KIND_FILE ? read_source(putting, path.text, map, item) : 0;
    if (code != 0)
        return code;
    if (replica_entry_check(&item->entry) != 0)
        return invalid(call, path.text,
                       item->entry.kind == REPLICA_KIND_SYMLINK
                           ? "a symbolic link needs a `target` of 1 to 4096 bytes without NUL"
                           : "its attributes are not valid: names of 1 to 255 bytes without NUL");
    item->path = (struct replica_path){putting->arena + putting->arena_n, path.path.size};
    memcpy(putting->arena + putting->arena_n, path.text, path.path.size + 1);
    putting->arena_n += path.path.size + 1;
    return 0;
}

/* No canonical path is longer than what it was written as, and its NUL fits where the string's header was. */
static int read_items(struct putting *putting)
{
    struct api_call *call = putting->call;
    struct replica_pack_reader reader;
    size_t n;
    if (!get_entries(call, &reader, &n)) {
        api_fail(call, REPLICA_E_INVALID, "fs.put: `entries` must be an array of at most %d entries",
                 PUT_ENTRIES_MAX);
        return REPLICA_E_INVALID;
    }
    putting->items = calloc(n > 0 ? n : 1, sizeof putting->items[0]);
    putting->arena = malloc(call->message.size + n);
    if (putting->items == NULL || putting->arena == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return REPLICA_E_NOMEM;
    }
    for (; putting->n < n; putting->n++) {
        struct item *item = &putting->items[putting->n];
        struct replica_pack_reader map = reader;
        int code;
        replica_buffer_init(&item->xattrs);
        item->fd = -1;
        code = read_item(putting, &map, item);
        if (code != 0) {
            replica_buffer_close(&item->xattrs);
            return code;
        }
        if (replica_pack_skip(&reader) != 0)
            return REPLICA_E_MALFORMED; /* cannot be: the whole message was found well-formed */
    }
    return 0;
}

/* Bytes, on a worker */

static int on_bytes(void *context, uint64_t bytes)
{
    struct putting *putting = context;
    api_progress(putting->call, putting->bytes + bytes, putting->total);
    return api_is_gone(putting->call);
}

static void set_inline(struct item *item, size_t n)
{
    item->entry.size = n;
    item->entry.blob = (struct replica_blob){.kind = REPLICA_BLOB_INLINE, .data = item->inlined, .size = n};
}

static void set_content(struct item *item, const struct replica_content_id *content)
{
    item->entry.size = content->length;
    item->entry.blob = (struct replica_blob){.kind = REPLICA_BLOB_CONTENT, .content = *content};
}

/* Small enough to live in the entry: read with one byte more, to see it grow. */
static int read_small(struct item *item, const struct stat *before)
{
    uint8_t bytes[REPLICA_INLINE_MAX + 1];
    struct stat after;
    size_t n = 0;
    while (n < sizeof bytes) {
        ssize_t got = pread(item->fd, bytes + n, sizeof bytes - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno == EBADF ? REPLICA_E_DENIED : REPLICA_E_IO;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    if (n != (size_t)before->st_size || fstat(item->fd, &after) != 0 ||
        after.st_mtim.tv_sec != before->st_mtim.tv_sec || after.st_mtim.tv_nsec != before->st_mtim.tv_nsec ||
        after.st_size != before->st_size)
        return REPLICA_E_BUSY;
    memcpy(item->inlined, bytes, n);
    set_inline(item, n);
    return 0;
}

static int take_bytes(struct putting *putting, struct item *item)
{
    struct replica_content_id content;
    struct stat status;
    int rv;
    if (item->fd < 0 && item->data_n <= REPLICA_INLINE_MAX) {
        if (item->data_n > 0)
            memcpy(item->inlined, item->data, item->data_n);
        set_inline(item, item->data_n);
        return 0;
    }
    if (item->fd >= 0 && fstat(item->fd, &status) != 0)
        return REPLICA_E_IO;
    if (item->fd >= 0 && status.st_size <= REPLICA_INLINE_MAX)
        return read_small(item, &status);
    if (item->fd >= 0)
        rv = replica_contents_files_ingest_fd(putting->contents, item->fd, on_bytes, putting, &content);
    else
        rv = replica_contents_ingest(putting->contents, item->data, item->data_n, &content);
    if (rv == 0)
        set_content(item, &content);
    return rv;
}

static void run_slice(struct api_call *call)
{
    struct putting *putting = call->state;
    uint64_t begun = putting->bytes;
    size_t i = putting->first;
    for (; i < putting->n && i - putting->first < SLICE_ENTRIES && putting->bytes - begun < SLICE_BYTES;
         i++) {
        struct item *item = &putting->items[i];
        putting->at = i;
        putting->code = api_is_gone(call)                       ? REPLICA_E_CANCELLED
                        : item->entry.kind == REPLICA_KIND_FILE ? take_bytes(putting, item)
                                                                : 0;
        if (putting->code != 0)
            return;
        putting->bytes += item->entry.kind == REPLICA_KIND_FILE ? item->entry.size : 0;
    }
    putting->next = i;
}

/* Names, in steps */

/* An entry whose directory, or whose own name, was written in this step has to wait for the next one. */
static bool must_wait(const struct putting *putting, size_t from, size_t to)
{
    const struct replica_path *path = &putting->items[to].path;
    for (size_t i = from; i < to; i++) {
        const struct replica_path *other = &putting->items[i].path;
        if ((path->size == other->size && memcmp(path->text, other->text, path->size) == 0) ||
            replica_path_is_below(*path, *other))
            return true;
    }
    return false;
}

/* Whether what is there now may be replaced; *ret_linked: it has several names, which one step can write but
 * once. */
static int check_existing(const struct putting *putting, struct replica_view *view, const struct item *item,
                          bool *ret_linked)
{
    struct replica_version existing;
    int rv;
    replica_version_init(&existing);
    rv = replica_view_lookup(view, item->path, &existing);
    *ret_linked = rv == 0 && !replica_id_is_zero(&existing.object);
    if (rv == 0)
        rv = putting->replace || (existing.entry.kind == REPLICA_KIND_DIRECTORY &&
                                  item->entry.kind == REPLICA_KIND_DIRECTORY)
                 ? 0
                 : REPLICA_E_EXISTS;
    replica_version_close(&existing);
    return rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_NOTDIR
               ? 0
               : rv; /* the put itself says what is wrong with a parent */
}

static int put_one(struct putting *putting, struct replica_view *view, const struct item *item,
                   bool *ret_linked, struct replica_kv_batch *log)
{
    int rv = check_existing(putting, view, item, ret_linked);
    if (rv == 0 && putting->parents)
        rv = replica_view_make_parents(view, item->path, putting->uid, putting->gid, putting->now_ns, log);
    if (rv != 0)
        return rv;
    if (item->entry.kind == REPLICA_KIND_FILE && item->entry.blob.kind == REPLICA_BLOB_CONTENT &&
        replica_contents_state(putting->contents, &item->entry.blob.content) < REPLICA_CONTENTS_FILLED)
        return REPLICA_E_BUSY; /* collected between its reading and its naming */
    return replica_view_put(view, item->path, &item->entry, log);
}

static int edit_put(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    struct putting *putting = state;
    size_t begun = putting->at;
    while (putting->at < putting->next) {
        bool linked = false;
        int rv;
        if (putting->at - begun == EDIT_ENTRIES_MAX || log->bytes.size > EDIT_BYTES_MAX ||
            must_wait(putting, begun, putting->at))
            return REPLICA_E_AGAIN;
        rv = put_one(putting, view, &putting->items[putting->at], &linked, log);
        if (rv != 0)
            return rv; /* AGAIN: a parent was made, and is seen in the next step */
        putting->at++;
        if (linked && putting->at < putting->next)
            return REPLICA_E_AGAIN;
    }
    return 0;
}

static void begin_slice(struct api_call *call);

static void fail_put(struct api_call *call, int code, const uint8_t *result, size_t n)
{
    const struct putting *putting = call->state;
    struct replica_path path = putting->items[putting->at < putting->n ? putting->at : 0].path;
    if (code == REPLICA_E_BUSY && n == 0)
        api_fail(call, code, "/%.*s: changed while it was read; put it again when nobody writes to it",
                 (int)path.size, path.text);
    else if (code == REPLICA_E_DENIED)
        api_fail(call, code, "/%.*s: its descriptor is not open for reading", (int)path.size, path.text);
    else
        api_fail_path(call, path, code, result, n);
}

static void on_named(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    struct putting *putting = call->state;
    struct replica_buffer reply;
    (void)context;
    if (code != 0) {
        fail_put(call, code, result, n);
        return;
    }
    putting->first = putting->next;
    if (putting->first < putting->n) {
        begin_slice(call);
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 1);
    api_pack_key(&reply, "count");
    replica_pack_uint(&reply, putting->n);
    api_reply(call, &reply);
}

/* What is too large to travel in the commit's record starts on its way to the voters now. */
#define OFFERED_MIN (64 * 1024)

static void on_offered(void *context, int code, const uint8_t *result, size_t n, bool final)
{
    (void)code;
    (void)result;
    (void)n;
    if (final)
        free(context);
}

static void offer_slice(struct api_call *call)
{
    const struct putting *putting = call->state;
    const struct replica_view *view = api_view(call, &putting->view);
    struct replica_content_id *contents = calloc(putting->next - putting->first + 1, sizeof *contents);
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_OFFER, .offered = contents};
    for (size_t i = putting->first; contents != NULL && i < putting->next; i++) {
        const struct replica_entry *entry = &putting->items[i].entry;
        if (entry->kind == REPLICA_KIND_FILE && entry->blob.kind == REPLICA_BLOB_CONTENT &&
            entry->blob.content.length > OFFERED_MIN)
            contents[request.offered_n++] = entry->blob.content;
    }
    if (view == NULL || request.offered_n == 0) {
        free(contents);
        return;
    }
    request.volume = replica_view_info(view)->options.volume;
    node_request(api_node(call->api), &request, on_offered, contents);
}

static void on_slice(struct api_call *call)
{
    struct putting *putting = call->state;
    if (putting->code != 0) {
        fail_put(call, putting->code, NULL, 0);
        return;
    }
    node_contents_filled(api_node(call->api));
    putting->at = putting->first;
    offer_slice(call);
    /* The answer to the put says that its bytes are in the view: a node that is killed right after must still have them. */
    call->edit_durable = putting->next == putting->n;
    api_edit(call, &putting->view, edit_put, on_named);
}

static void begin_slice(struct api_call *call)
{
    api_job(call, run_slice, on_slice);
}

void api_fs_put(struct api_call *call)
{
    struct replica_view *view;
    struct putting *putting;
    if (api_get_writable_view(call, &view) != 0)
        return;
    putting = calloc(1, sizeof *putting);
    if (putting == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return;
    }
    call->state = putting;
    call->free_state = free_putting;
    putting->call = call;
    putting->contents = api_contents(call);
    putting->view = replica_view_info(view)->options.id;
    putting->replace = true;
    putting->uid = call->uid;
    putting->gid = call->gid;
    putting->now_ns = api_now_ns();
    if (api_get_bool(call, "parents", &putting->parents) != 0 ||
        api_get_bool(call, "replace", &putting->replace) != 0 || read_items(putting) != 0)
        return;
    begin_slice(call);
}
