/* Views: opening, publishing, moving. */
#include "api/methods.h"

#include <stdlib.h>
#include <string.h>

#define SETTLING_TOLD_MS 1000 /* as all progress of what moves no bytes */

/* view.open */

struct opening {
    struct api_path sub;
    struct replica_id view, volume;
    uint32_t version;
    bool private, attached, local;
    char label[REPLICA_VIEW_LABEL_MAX + 1];
};

static void reply_opened(struct api_call *call)
{
    const struct opening *opening = call->state;
    struct replica_view *view = api_view(call, &opening->view);
    struct replica_buffer reply;
    if (view == NULL) {
        api_fail(call, REPLICA_E_NOTFOUND, "the view was closed meanwhile");
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 4);
    api_pack_key(&reply, "view");
    replica_pack_id(&reply, &opening->view);
    api_pack_key(&reply, "volume_id");
    replica_pack_id(&reply, &opening->volume);
    api_pack_key(&reply, "version");
    replica_pack_uint(&reply, opening->version);
    api_pack_key(&reply, "snapshot");
    replica_pack_uint(&reply, replica_view_info(view)->options.snapshot);
    api_reply(call, &reply);
}

static void on_reloaded_for_open(struct api_call *call, void *context, int code, const uint8_t *result,
                                 size_t n)
{
    (void)context;
    if (code != 0)
        api_fail_answer(call, NULL, code, result, n);
    else
        reply_opened(call);
}

/* One that was there already keeps its snapshot; who opens it without `local` expects to see what is new. */
static void on_opened(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    struct opening *opening = call->state;
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_RELOAD, .mode = GOSSIP_RELOAD_QUORUM};
    struct replica_pack_reader reader;
    size_t items;
    (void)context;
    if (code != 0) {
        api_disown_view(call, &opening->view);
        api_fail_answer(call, NULL, code, result, n);
        return;
    }
    replica_pack_reader_init(&reader, result, n);
    replica_pack_read_array(&reader, 16, &items);
    replica_pack_read_id(&reader, &opening->view);
    if (!opening->attached || opening->local) {
        reply_opened(call);
        return;
    }
    request.view = opening->view;
    request.volume = opening->volume;
    api_request(call, &request, on_reloaded_for_open, NULL);
}

/* An attached view is what it was opened as. 0, or the call is answered. */
static int check_attached(struct api_call *call, const struct replica_view *view,
                          const struct opening *opening, uint32_t flags)
{
    const struct replica_view_options *options = &replica_view_info(view)->options;
    bool same_sub = options->sub.size == opening->sub.path.size &&
                    memcmp(options->sub.text, opening->sub.text, options->sub.size) == 0;
    if (!api_may_use_view(call, view)) {
        api_fail(call, REPLICA_E_DENIED, "the view \"%s\" belongs to user %u; choose another label",
                 opening->label, (unsigned)options->uid);
        return REPLICA_E_DENIED;
    }
    if (same_sub && !((options->flags ^ flags) & REPLICA_VIEW_READ_ONLY))
        return 0;
    api_fail(call, REPLICA_E_REFUSED,
             "the view \"%s\" exists with another %s; close it, or choose another label", opening->label,
             same_sub ? "`read_only`" : "`sub`");
    return REPLICA_E_REFUSED;
}

static int read_opening(struct api_call *call, struct opening *opening, uint32_t *ret_flags)
{
    bool read_only = false, automatic = false;
    int code = api_get_path(call, "sub", false, &opening->sub);
    if (code == 0)
        code = api_get_name(call, "label", false, opening->label, sizeof opening->label);
    if (code == 0)
        code = api_get_bool(call, "read_only", &read_only);
    if (code == 0)
        code = api_get_bool(call, "auto", &automatic);
    if (code == 0)
        code = api_get_bool(call, "local", &opening->local);
    opening->private = opening->label[0] == '\0';
    *ret_flags = (read_only ? REPLICA_VIEW_READ_ONLY : 0u) | (opening->private ? REPLICA_VIEW_PRIVATE : 0u) |
                 (automatic && !read_only ? REPLICA_VIEW_AUTO : 0u) |
                 (opening->version == 1 ? REPLICA_VIEW_NO_LINKS : 0u);
    return code;
}

void api_view_open(struct api_call *call)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_OPEN};
    const struct gossip_volume *volume;
    struct replica_view *view = NULL;
    struct opening *opening;
    if (api_get_volume(call, "volume", &volume) != 0)
        return;
    opening = calloc(1, sizeof *opening);
    call->state = opening;
    call->free_state = free;
    if (opening == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return;
    }
    opening->volume = volume->id;
    opening->version = volume->version;
    if (read_opening(call, opening, &request.view_options.flags) != 0)
        return;
    if (!opening->private)
        view = replica_view_find_label(gossip_peer_views(api_peer(call)), &volume->id, opening->label);
    opening->attached = view != NULL;
    if (view != NULL && check_attached(call, view, opening, request.view_options.flags) != 0)
        return;
    if (!(request.view_options.flags & REPLICA_VIEW_READ_ONLY) &&
        api_need(call, volume->name, NODE_RIGHT_WRITE) != 0)
        return;
    if (opening->local && api_need_map(call, &volume->id) != 0)
        return;
    api_random_id(&opening->view);
    if (opening->private)
        api_own_view(call,
                     &opening->view); /* before it exists, so that it is never taken for one without owner */
    request.volume = volume->id;
    request.mode = opening->local ? GOSSIP_RELOAD_LOCAL : GOSSIP_RELOAD_QUORUM;
    request.view_options.id = opening->view;
    request.view_options.volume = volume->id;
    request.view_options.sub = opening->sub.path;
    request.view_options.uid = call->uid;
    memcpy(request.view_options.label, opening->label, sizeof opening->label);
    api_request(call, &request, on_opened, NULL);
}

/* view.close */

static void on_closed(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    (void)context;
    if (code == 0)
        api_drafts_forget(call->api, &call->view_id);
    if (code == REPLICA_E_BUSY)
        api_fail(call, code, "a commit of the view is in flight; close it when that is done");
    else if (code != 0)
        api_fail_answer(call, NULL, code, result, n);
    else
        api_reply_nil(call);
}

void api_view_close(struct api_call *call)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_CLOSE};
    struct replica_view *view;
    if (api_get_view(call, &view) != 0)
        return;
    request.view = call->view_id = replica_view_info(view)->options.id;
    api_hold_view(call->api, &request.view, false);
    api_request(call, &request, on_closed, NULL);
}

/* view.list */

static void pack_view(struct replica_buffer *out, const struct gossip_control *control,
                      const struct replica_view_info *info)
{
    const struct gossip_volume *volume = gossip_control_volume(control, &info->options.volume);
    replica_pack_map(out, 10);
    api_pack_key(out, "view");
    replica_pack_id(out, &info->options.id);
    api_pack_key(out, "volume");
    replica_pack_cstr(out, volume == NULL ? "" : volume->name);
    api_pack_key(out, "label");
    replica_pack_cstr(out, info->options.label);
    api_pack_key(out, "sub");
    replica_pack_str(out, info->options.sub.text, info->options.sub.size);
    api_pack_key(out, "dirty");
    replica_pack_uint(out, info->dirty);
    api_pack_key(out, "snapshot");
    replica_pack_uint(out, info->options.snapshot);
    api_pack_key(out, "auto");
    replica_pack_bool(out, info->options.flags & REPLICA_VIEW_AUTO);
    api_pack_key(out, "read_only");
    replica_pack_bool(out, info->options.flags & REPLICA_VIEW_READ_ONLY);
    api_pack_key(out, "pending");
    replica_pack_bool(out, info->commit != REPLICA_COMMIT_NONE);
}

void api_view_list(struct api_call *call)
{
    const struct gossip_control *control = gossip_peer_control(api_peer(call));
    struct replica_views *views = gossip_peer_views(api_peer(call));
    const struct gossip_volume *volume = NULL;
    struct replica_pack_reader given;
    struct replica_buffer reply, items;
    size_t n = 0;
    if (api_find(call, "volume", &given) && api_get_volume(call, "volume", &volume) != 0)
        return;
    replica_buffer_init(&items);
    for (size_t i = 0; i < replica_views_count(views) && items.size < API_REPLY_MAX; i++) {
        struct replica_view *view = replica_views_at(views, i);
        const struct replica_view_info *info = replica_view_info(view);
        if ((volume != NULL && !replica_id_equal(&volume->id, &info->options.volume)) ||
            !api_may_use_view(call, view))
            continue;
        pack_view(&items, control, info);
        api_pack_key(&items, "held");
        replica_pack_bool(&items, node_api_view_is_held(call->api, &info->options.id));
        n++;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 1);
    api_pack_key(&reply, "views");
    replica_pack_array(&reply, n);
    replica_buffer_append(&reply, items.data, items.size);
    replica_buffer_close(&items);
    api_reply(call, &reply);
}

/* view.commit */

/* The rest of reader, which is our own peer's answer, up to its end. */
static void copy_item(struct replica_buffer *out, struct replica_pack_reader *reader)
{
    size_t from = reader->offset;
    if (replica_pack_skip(reader) == 0)
        replica_buffer_append(out, reader->data + from, reader->offset - from);
    else
        replica_pack_nil(out);
}

static void on_committed(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    struct replica_pack_reader reader;
    struct replica_buffer reply;
    struct replica_id commit;
    char text[33];
    size_t items;
    (void)context;
    if (code != 0) {
        api_fail_answer(call, NULL, code, result, n);
        return;
    }
    replica_pack_reader_init(&reader, result, n);
    replica_pack_read_array(&reader, 16, &items);
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 5);
    api_pack_key(&reply, "token");
    copy_item(&reply, &reader);
    api_pack_key(&reply, "commit");
    replica_pack_read_id(&reader, &commit);
    replica_id_format(&commit, text);
    replica_pack_cstr(&reply, text);
    api_pack_key(&reply, "paths");
    copy_item(&reply, &reader);
    api_pack_key(&reply, "bytes");
    copy_item(&reply, &reader);
    api_pack_key(&reply, "lost");
    copy_item(&reply, &reader);
    api_reply(call, &reply);
}

/* Before the voters are asked, drafts are hashed, which the core hears of at its end only: the client's patience needs to know before. */
static void tell_settling(struct api_call *call)
{
    uint64_t bytes = node_settled_bytes(api_node(call->api), &call->view_id);
    if (bytes > 0)
        api_progress_steps(call, bytes);
    api_later(call, SETTLING_TOLD_MS, tell_settling);
}

void api_view_commit(struct api_call *call)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_COMMIT};
    struct replica_view *view;
    bool skip_busy =
        false; /* only files that a mount has open can be busy: through this socket every write is whole */
    if (api_get_view(call, &view) != 0 || api_get_bool(call, "skip_busy", &skip_busy) != 0)
        return;
    request.view = call->view_id = replica_view_info(view)->options.id;
    request.volume = replica_view_info(view)->options.volume;
    api_later(call, SETTLING_TOLD_MS, tell_settling);
    api_request(call, &request, on_committed, NULL);
}

/* view.reload */

static void on_reloaded(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    struct replica_pack_reader reader;
    struct replica_buffer reply;
    size_t items;
    (void)context;
    if (code != 0) {
        api_fail_answer(call, NULL, code, result, n);
        return;
    }
    replica_pack_reader_init(&reader, result, n);
    replica_pack_read_array(&reader, 16, &items);
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 4);
    api_pack_key(&reply, "before");
    copy_item(&reply, &reader);
    api_pack_key(&reply, "after");
    copy_item(&reply, &reader);
    replica_pack_skip(&reader); /* the mode */
    api_pack_key(&reply, "changed");
    if (items >= 5) {
        copy_item(&reply, &reader);
        api_pack_key(&reply, "more");
        copy_item(&reply, &reader);
    } else {
        replica_pack_array(&reply, 0);
        api_pack_key(&reply, "more");
        replica_pack_bool(&reply, true); /* what changed is not known */
    }
    api_reply(call, &reply);
}

/* 0, or the call is answered. */
static int read_mode(struct api_call *call, struct gossip_peer_request *request)
{
    char mode[16] = "quorum", token[GOSSIP_TOKEN_TEXT_MAX] = "";
    int code = api_get_name(call, "mode", false, mode, sizeof mode);
    if (code == 0)
        code = api_get_name(call, "token", false, token, sizeof token);
    if (code != 0)
        return code;
    if (strcmp(mode, "quorum") == 0) {
        request->mode = GOSSIP_RELOAD_QUORUM;
    } else if (strcmp(mode, "local") == 0) {
        request->mode = GOSSIP_RELOAD_LOCAL;
    } else if (strcmp(mode, "at-least") == 0) {
        request->mode = GOSSIP_RELOAD_AT_LEAST;
    } else {
        api_fail(call, REPLICA_E_INVALID,
                 "view.reload: `mode` must be \"quorum\", \"local\" or \"at-least\", not \"%s\"", mode);
        return REPLICA_E_INVALID;
    }
    if (request->mode == GOSSIP_RELOAD_AT_LEAST && gossip_token_parse(token, &request->at_least) != 0) {
        api_fail(call, REPLICA_E_INVALID,
                 "view.reload: `token` must be what view.commit returned, not \"%s\"", token);
        return REPLICA_E_INVALID;
    }
    return 0;
}

void api_view_reload(struct api_call *call)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_RELOAD};
    struct replica_view *view;
    if (api_get_view(call, &view) != 0 || read_mode(call, &request) != 0)
        return;
    request.view = replica_view_info(view)->options.id;
    request.volume = replica_view_info(view)->options.volume;
    if (request.mode == GOSSIP_RELOAD_AT_LEAST &&
        !replica_id_equal(&request.at_least.volume, &request.volume)) {
        api_fail(call, REPLICA_E_INVALID, "view.reload: `token` is of another volume");
        return;
    }
    api_request(call, &request, on_reloaded, NULL);
}

/* view.hold */

void api_view_hold(struct api_call *call)
{
    struct replica_view *view;
    struct replica_pack_reader given;
    bool hold = false;
    if (api_get_view(call, &view) != 0)
        return;
    if (!api_find(call, "hold", &given)) {
        api_fail(call, REPLICA_E_INVALID, "view.hold: `hold` is missing; it is true or false");
        return;
    }
    if (api_get_bool(call, "hold", &hold) != 0)
        return;
    api_hold_view(call->api, &replica_view_info(view)->options.id, hold);
    api_reply_nil(call);
}
