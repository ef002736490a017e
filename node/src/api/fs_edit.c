/* Names: making, removing, moving, linking, copying. No bytes move. */
#include "api/edit.h"

#include <stdlib.h>
#include <string.h>

#define RESTARTS_MAX 100 /* of a directory to be removed that others keep filling */

struct change {
    struct api_call *call;
    struct replica_id view;
    struct api_path path, to;
    bool parents, recursive;
    uint32_t mode, uid, gid;
    int64_t now_ns;
    struct replica_id object;
    struct api_walk walk;
    bool walking;
    int restarts;
    uint64_t count;
    /* of a step */
    struct replica_view *in;
    struct replica_kv_batch *log;
};

/* NULL: answered. second: the key of another path, or NULL. */
static struct change *new_change(struct api_call *call, const char *first, const char *second)
{
    struct replica_view *view;
    struct change *change;
    if (api_get_writable_view(call, &view) != 0)
        return NULL;
    change = calloc(1, sizeof *change);
    call->state = change;
    call->free_state = free;
    if (change == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return NULL;
    }
    change->call = call;
    change->view = replica_view_info(view)->options.id;
    change->uid = call->uid;
    change->gid = call->gid;
    change->now_ns = api_now_ns();
    if (api_get_path(call, first, true, &change->path) != 0 ||
        (second != NULL && api_get_path(call, second, true, &change->to) != 0))
        return NULL;
    return change;
}

static void on_done(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    const struct change *change = call->state;
    (void)context;
    if (code != 0)
        api_fail_path(call, change->path.path, code, result, n);
    else
        api_reply_nil(call);
}

static void on_counted(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    const struct change *change = call->state;
    struct replica_buffer reply;
    (void)context;
    if (code != 0) {
        api_fail_path(call, change->path.path, code, result, n);
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 1);
    api_pack_key(&reply, "count");
    replica_pack_uint(&reply, change->count);
    api_reply(call, &reply);
}

/* Which of two paths a failure is about. */
static void on_moved(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    const struct change *change = call->state;
    (void)context;
    if (code == REPLICA_E_EXISTS || code == REPLICA_E_NOTEMPTY || code == REPLICA_E_ISDIR ||
        code == REPLICA_E_NOTDIR)
        api_fail(call, code, "/%s: %s", change->to.text, replica_error_text(code));
    else if (code == REPLICA_E_INVALID)
        api_fail(call, code, "/%s cannot become /%s: the root stays, and nothing goes into itself",
                 change->path.text, change->to.text);
    else if (code == REPLICA_E_NOTFOUND && n == 0)
        api_fail(call, code, "/%s, or the directory that /%s is in: %s", change->path.text, change->to.text,
                 replica_error_text(code));
    else
        on_done(call, NULL, code, result, n);
}

/* fs.mkdir */

static int edit_mkdir(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    struct change *change = state;
    struct replica_entry entry = {.kind = REPLICA_KIND_DIRECTORY,
                                  .mode = change->mode,
                                  .uid = change->uid,
                                  .gid = change->gid,
                                  .mtime_ns = change->now_ns};
    struct replica_version version;
    int rv = change->parents ? replica_view_make_parents(view, change->path.path, change->uid, change->gid,
                                                         change->now_ns, log)
                             : 0;
    if (rv != 0)
        return rv;
    replica_version_init(&version);
    rv = replica_view_lookup(view, change->path.path, &version);
    if (rv == 0)
        rv = change->parents && version.entry.kind == REPLICA_KIND_DIRECTORY ? 0 : REPLICA_E_EXISTS;
    else if (rv == REPLICA_E_NOTFOUND)
        rv = replica_view_put(view, change->path.path, &entry, log);
    replica_version_close(&version);
    return rv;
}

void api_fs_mkdir(struct api_call *call)
{
    struct change *change = new_change(call, "path", NULL);
    uint64_t mode = 0755;
    if (change == NULL || api_get_uint(call, "mode", false, 07777, &mode) != 0 ||
        api_get_bool(call, "parents", &change->parents) != 0)
        return;
    change->mode = (uint32_t)mode;
    api_edit(call, &change->view, edit_mkdir, on_done);
}

/* fs.remove */

/* Directories go when they are left. Names of one object are counted down one step at a time. */
static int remove_entered(void *context, struct replica_path path, const struct replica_version *version)
{
    struct change *change = context;
    int rv;
    if (api_is_gone(change->call))
        return REPLICA_E_CANCELLED;
    if (version->entry.kind == REPLICA_KIND_DIRECTORY)
        return 0;
    rv = replica_view_remove(change->in, path, change->log);
    if (rv == 0)
        change->count++;
    return rv != 0 ? rv : replica_id_is_zero(&version->object) ? 0 : WALK_STOP;
}

static int remove_left(void *context, struct replica_path path)
{
    struct change *change = context;
    int rv = replica_view_remove(change->in, path, change->log);
    if (rv == 0)
        change->count++;
    if (rv != REPLICA_E_NOTEMPTY || ++change->restarts > RESTARTS_MAX)
        return rv;
    change->walk.after_n = 0; /* somebody put something there behind us */
    return REPLICA_E_AGAIN;
}

static int edit_remove(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    struct change *change = state;
    struct replica_version version;
    bool directory;
    int rv;
    change->in = view;
    change->log = log;
    if (change->walking)
        return api_walk_step(&change->walk, view);
    if (change->path.path.size == 0)
        return REPLICA_E_INVALID;
    replica_version_init(&version);
    rv = replica_view_lookup(view, change->path.path, &version);
    directory = rv == 0 && version.entry.kind == REPLICA_KIND_DIRECTORY;
    replica_version_close(&version);
    if (rv == 0 && directory && change->recursive) {
        api_walk_init(&change->walk, &change->path);
        change->walk.context = change;
        change->walk.enter = remove_entered;
        change->walk.leave = remove_left;
        change->walking = true;
        return REPLICA_E_AGAIN;
    }
    if (rv == 0)
        rv = replica_view_remove(view, change->path.path, log);
    if (rv == 0)
        change->count = 1;
    return rv;
}

static void on_removed(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    if (code == REPLICA_E_INVALID)
        api_fail(call, code, "/: the root cannot be removed; remove what is in it");
    else
        on_counted(call, context, code, result, n);
}

void api_fs_remove(struct api_call *call)
{
    struct change *change = new_change(call, "path", NULL);
    if (change != NULL && api_get_bool(call, "recursive", &change->recursive) == 0)
        api_edit(call, &change->view, edit_remove, on_removed);
}

/* fs.rename, fs.link */

static int edit_rename(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    const struct change *change = state;
    return replica_view_rename(view, change->path.path, change->to.path, EDIT_ENTRIES_MAX, log);
}

void api_fs_rename(struct api_call *call)
{
    struct change *change = new_change(call, "from", "to");
    if (change != NULL)
        api_edit(call, &change->view, edit_rename, on_moved);
}

static int edit_link(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    const struct change *change = state;
    return replica_view_link(view, change->path.path, change->to.path, &change->object, log);
}

void api_fs_link(struct api_call *call)
{
    struct change *change = new_change(call, "from", "to");
    if (change == NULL)
        return;
    api_random_id(&change->object);
    api_edit(call, &change->view, edit_link, on_moved);
}

/* fs.copy */

/* The entry with all it has, under another name. A draft that two names share is written in place by neither.
 */
static int copy_entry(struct change *change, struct replica_path to, const struct replica_version *version)
{
    struct replica_version existing;
    bool linked;
    int rv;
    if (version->entry.kind == REPLICA_KIND_FILE && version->entry.blob.kind == REPLICA_BLOB_DRAFT)
        api_draft_share(change->call->api, version->entry.blob.draft);
    replica_version_init(&existing);
    linked = replica_view_lookup(change->in, to, &existing) == 0 && !replica_id_is_zero(&existing.object);
    replica_version_close(&existing);
    rv = replica_view_put(change->in, to, &version->entry, change->log);
    if (rv != 0)
        return rv;
    change->count++;
    return linked || change->log->bytes.size > EDIT_BYTES_MAX ? WALK_STOP : 0;
}

static int copy_entered(void *context, struct replica_path path, const struct replica_version *version)
{
    struct change *change = context;
    char text[2 * REPLICA_PATH_MAX + 2];
    struct replica_path to = {text, change->to.path.size + path.size - change->path.path.size};
    size_t skip = change->path.path.size;
    if (api_is_gone(change->call))
        return REPLICA_E_CANCELLED;
    if (to.size > REPLICA_PATH_MAX)
        return REPLICA_E_TOOBIG;
    memcpy(text, change->to.text, change->to.path.size);
    memcpy(text + change->to.path.size, path.text + skip,
           path.size - skip); /* with its slash: the root is never copied */
    return copy_entry(change, to, version);
}

static int begin_copy(struct change *change)
{
    struct replica_version version;
    int rv;
    replica_version_init(&version);
    rv = replica_view_lookup(change->in, change->path.path, &version);
    if (rv == 0 && version.entry.kind == REPLICA_KIND_DIRECTORY) {
        if (!change->recursive)
            rv = REPLICA_E_ISDIR;
        else if (change->to.path.size == 0 || replica_path_is_below(change->to.path, change->path.path))
            rv = REPLICA_E_INVALID;
        if (rv == 0)
            rv = copy_entry(change, change->to.path, &version);
        if (rv >= 0) {
            api_walk_init(&change->walk, &change->path);
            change->walk.context = change;
            change->walk.enter = copy_entered;
            change->walking = true;
            rv = REPLICA_E_AGAIN;
        }
    } else if (rv == 0) {
        rv = copy_entry(change, change->to.path, &version);
    }
    replica_version_close(&version);
    return rv > 0 ? 0 : rv;
}

static int edit_copy(void *state, struct replica_view *view, struct replica_kv_batch *log)
{
    struct change *change = state;
    change->in = view;
    change->log = log;
    return change->walking ? api_walk_step(&change->walk, view) : begin_copy(change);
}

static void on_copied(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    const struct change *change = call->state;
    if (code == REPLICA_E_ISDIR && !change->recursive)
        api_fail(call, code, "/%s: is a directory; `recursive` copies it with what is in it",
                 change->path.text);
    else if (code != 0)
        on_moved(call, context, code, result, n);
    else
        on_counted(call, context, code, result, n);
}

void api_fs_copy(struct api_call *call)
{
    struct change *change = new_change(call, "from", "to");
    if (change == NULL || api_get_bool(call, "recursive", &change->recursive) != 0)
        return;
    if (change->path.path.size == change->to.path.size && strcmp(change->path.text, change->to.text) == 0)
        api_fail(call, REPLICA_E_INVALID, "/%s: cannot be copied to itself", change->path.text);
    else
        api_edit(call, &change->view, edit_copy, on_copied);
}
