/* What tests ask of nodes. */
#include "inside.h"

#include "replica/error.h"
#include "replica/merkle.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALL_MS_MAX  600000 /* virtual; a call without an answer after this is a failure of the node */
#define FILE_MODE    0644
#define INLINE_SHARE 50 /* per cent of the small puts that go inline at once, not through a draft */

static const char *const names[] = {"control", "open", "edit", "commit", "reload", "fetch", "something"};

/* Making */

static struct world_call *add_call(struct world *world, enum call_kind kind, size_t node)
{
    struct world_call *call = calloc(1, sizeof *call);
    if (call == NULL)
        abort();
    world->calls =
        world_grow(world->calls, world->calls_n, &world->calls_capacity, sizeof(struct world_call *));
    world->calls[world->calls_n++] = call;
    call->kind = kind;
    call->token = world->calls_n;
    call->node = node;
    call->life = world->nodes[node].generation;
    call->code = WORLD_PENDING;
    call->volume = SIZE_MAX;
    call->started_ms = world->now_ms;
    call->calls_before = world->calls_n - 1;
    replica_buffer_init(&call->answer);
    return call;
}

static void ask(struct world *world, struct world_call *call, struct gossip_peer_request *request)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_REQUEST, .request = request};
    request->token = call->token;
    oracle_call_started(world, call);
    if (world->nodes[call->node].peer == NULL)
        call->code = WORLD_GONE;
    else
        shell_step(world, call->node, &event);
}

/* Ending */

void calls_answer(struct world *world, size_t node, const struct gossip_answer *answer, const uint8_t *bytes)
{
    struct world_call *call;
    assert(answer->token >= 1 && answer->token <= world->calls_n);
    call = world->calls[answer->token - 1];
    if (!answer->final)
        return;
    if (call->node != node || call->code != WORLD_PENDING) {
        world_fail(world, "node %zu answers call %llu (%s) twice", node, (unsigned long long)answer->token,
                   names[call->kind]);
        return;
    }
    call->code = answer->code;
    if (answer->size > 0)
        replica_buffer_append(&call->answer, bytes, answer->size);
    world_mix(world, answer->token << 8 | (uint64_t)(answer->code & 0xff));
    world_trace(world, "node %zu answers %s %llu: %s", node, names[call->kind],
                (unsigned long long)answer->token,
                answer->code == 0 ? "ok" : replica_error_symbol(answer->code));
    oracle_call_answered(world, call);
}

void calls_gone(struct world *world, size_t node)
{
    for (size_t i = world->calls_n; i > 0; i--) {
        struct world_call *call = world->calls[i - 1];
        if (call->node == node && call->code == WORLD_PENDING)
            call->code = WORLD_GONE;
    }
}

int world_call_code(const struct world_call *call)
{
    return call->code;
}

const struct replica_buffer *world_call_answer(const struct world_call *call)
{
    return &call->answer;
}

static bool has_ended(void *context)
{
    const struct world_call *call = context;
    return call->code != WORLD_PENDING;
}

int world_call_wait(struct world *world, struct world_call *call)
{
    if (!world_run_until(world, has_ended, call, CALL_MS_MAX))
        world_fail(world, "node %zu never answers call %llu (%s)", call->node,
                   (unsigned long long)call->token, names[call->kind]);
    return call->code;
}

/* The cluster */

struct everywhere {
    const struct world *world;
    const char *name; /* NULL: the cluster itself */
    size_t node;      /* WORLD_NODE_NONE: every one that is up */
};

static bool is_known_everywhere(void *context)
{
    const struct everywhere *everywhere = context;
    for (size_t i = 0; i < everywhere->world->options.nodes; i++) {
        const struct gossip_peer *peer = everywhere->world->nodes[i].peer;
        struct replica_id cluster;
        if (peer == NULL)
            continue;
        cluster = gossip_control_cluster(gossip_peer_control(peer));
        if (replica_id_is_zero(&cluster))
            return false;
        if (everywhere->name != NULL &&
            gossip_control_volume_by_name(gossip_peer_control(peer), everywhere->name) == NULL)
            return false;
    }
    return true;
}

bool world_begin_cluster(struct world *world, uint64_t ms)
{
    struct everywhere everywhere = {.world = world};
    for (size_t i = 0; i < world->options.nodes; i++)
        if (!world_is_up(world, i))
            world_boot(world, i);
    return world_run_until(world, is_known_everywhere, &everywhere, ms);
}

struct world_call *world_control_start(struct world *world, size_t node,
                                       const struct gossip_control_request *control)
{
    struct world_call *call = add_call(world, CALL_CONTROL, node);
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_CONTROL, .control = *control};
    ask(world, call, &request);
    return call;
}

struct world_call *world_create_start(struct world *world, size_t node, const char *name)
{
    const struct gossip_control_request request = {
        .kind = GOSSIP_CONTROL_CREATE, .name = name, .if_missing = true, .version = 2};
    return world_control_start(world, node, &request);
}

int world_create_volume(struct world *world, size_t node, const char *name, struct replica_id *ret_volume)
{
    struct everywhere everywhere = {.world = world, .name = name};
    int rv = world_call_wait(world, world_create_start(world, node, name));
    if (rv != 0)
        return rv;
    if (!world_run_until(world, is_known_everywhere, &everywhere, CALL_MS_MAX)) {
        world_fail(world, "volume %s is never known everywhere", name);
        return REPLICA_E_UNAVAILABLE;
    }
    *ret_volume = gossip_control_volume_by_name(gossip_peer_control(world->nodes[node].peer), name)->id;
    (void)oracle_watch(world, ret_volume);
    return 0;
}

struct world_call *world_request_start(struct world *world, size_t node,
                                       const struct gossip_peer_request *request)
{
    struct world_call *call = add_call(world, CALL_OTHER, node);
    struct gossip_peer_request copy = *request;
    ask(world, call, &copy);
    return call;
}

uint64_t world_call_token(const struct world_call *call)
{
    return call->token;
}

/* Views */

static struct world_call *start_open(struct world *world, size_t node, const struct replica_id *volume)
{
    struct world_call *call = add_call(world, CALL_OPEN, node);
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_OPEN,
                                          .timeout_ms = world->options.commit_timeout_ms};
    call->volume = oracle_index(world, volume);
    request.view_options.volume = *volume;
    ask(world, call, &request);
    return call;
}

int world_open_view(struct world *world, size_t node, const struct replica_id *volume,
                    struct replica_id *ret_view)
{
    struct world_call *call = start_open(world, node, volume);
    struct replica_pack_reader reader;
    size_t n;
    int rv = world_call_wait(world, call);
    if (rv != 0)
        return rv;
    replica_pack_reader_init(&reader, call->answer.data, call->answer.size);
    replica_pack_read_array(&reader, 8, &n);
    return replica_pack_read_id(&reader, ret_view);
}

/* In the node's step. The bytes live as long as the call. */
static int edit(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    const struct world_call *call = context;
    struct replica_path path = {.text = call->path, .size = strlen(call->path)}, parent, name;
    struct replica_entry entry;
    int rv;
    if (call->removes)
        return replica_view_remove(view, path, log);
    replica_path_split(path, &parent, &name);
    if (parent.size > 0) {
        rv = replica_view_make_parents(view, path, 0, 0, 0, log);
        if (rv != 0)
            return rv;
    }
    memset(&entry, 0, sizeof entry);
    entry.kind = REPLICA_KIND_FILE;
    entry.mode = FILE_MODE;
    entry.mtime_ns = (int64_t)call->mtime_ms * 1000000;
    entry.size = call->size;
    if (call->draft > 0) {
        entry.blob.kind = REPLICA_BLOB_DRAFT;
        entry.blob.draft = call->draft;
    } else {
        entry.blob.kind = REPLICA_BLOB_INLINE;
        entry.blob.data = call->bytes;
        entry.blob.size = call->size;
    }
    return replica_view_put(view, path, &entry, log);
}

static struct world_call *start_edit(struct world *world, struct world_call *call,
                                     const struct replica_id *view, const char *path)
{
    struct gossip_peer_request request = {
        .kind = GOSSIP_PEER_VIEW_EDIT, .view = *view, .edit = edit, .context = call};
    call->view = *view;
    call->path = strdup(path);
    if (call->path == NULL)
        abort();
    world_trace(world, "node %zu %s %s, %zu bytes (%llu)", call->node, call->removes ? "removes" : "puts",
                path, call->size, (unsigned long long)call->token);
    ask(world, call, &request);
    return call;
}

struct world_call *world_put_start(struct world *world, size_t node, const struct replica_id *view,
                                   const char *path, const void *bytes, size_t n)
{
    struct world_call *call = add_call(world, CALL_EDIT, node);
    call->bytes = malloc(n + 1);
    if (call->bytes == NULL)
        abort();
    memcpy(call->bytes, bytes, n);
    call->size = n;
    call->mtime_ms = WALL_START_MS + world->now_ms;
    replica_merkle_content(bytes, n, &call->content);
    if (n > REPLICA_INLINE_MAX || !world_chance(world, INLINE_SHARE))
        call->draft = shell_add_draft(world, node, bytes, n);
    return start_edit(world, call, view, path);
}

int world_put(struct world *world, size_t node, const struct replica_id *view, const char *path,
              const void *bytes, size_t n)
{
    return world_call_wait(world, world_put_start(world, node, view, path, bytes, n));
}

int world_remove(struct world *world, size_t node, const struct replica_id *view, const char *path)
{
    struct world_call *call = add_call(world, CALL_EDIT, node);
    call->removes = true;
    return world_call_wait(world, start_edit(world, call, view, path));
}

int world_edit(struct world *world, size_t node, const struct replica_id *view,
               int (*edit_fn)(void *context, struct replica_view *view, struct replica_kv_batch *log),
               void *context)
{
    struct world_call *call = add_call(world, CALL_EDIT, node);
    struct gossip_peer_request request = {
        .kind = GOSSIP_PEER_VIEW_EDIT, .view = *view, .edit = edit_fn, .context = context};
    call->view = *view;
    call->superseded = true; /* the oracle does not know what it writes */
    call->path = strdup("");
    if (call->path == NULL)
        abort();
    ask(world, call, &request);
    return world_call_wait(world, call);
}

static struct world_call *start_on_view(struct world *world, size_t node, enum call_kind kind,
                                        enum gossip_peer_request_kind request_kind,
                                        const struct replica_id *view)
{
    struct world_call *call = add_call(world, kind, node);
    struct gossip_peer_request request = {
        .kind = request_kind, .view = *view, .timeout_ms = world->options.commit_timeout_ms};
    struct replica_view *found = world->nodes[node].peer == NULL
                                     ? NULL
                                     : replica_view_find(gossip_peer_views(world->nodes[node].peer), view);
    call->view = *view;
    if (found != NULL)
        call->volume = oracle_index(world, &replica_view_info(found)->options.volume);
    world_trace(world, "node %zu is asked for %s (%llu)", node, names[kind], (unsigned long long)call->token);
    ask(world, call, &request);
    return call;
}

struct world_call *world_commit_start(struct world *world, size_t node, const struct replica_id *view)
{
    return start_on_view(world, node, CALL_COMMIT, GOSSIP_PEER_COMMIT, view);
}

struct world_call *world_reload_start(struct world *world, size_t node, const struct replica_id *view)
{
    return start_on_view(world, node, CALL_RELOAD, GOSSIP_PEER_RELOAD, view);
}

int world_commit(struct world *world, size_t node, const struct replica_id *view)
{
    return world_call_wait(world, world_commit_start(world, node, view));
}

int world_reload(struct world *world, size_t node, const struct replica_id *view)
{
    return world_call_wait(world, world_reload_start(world, node, view));
}

/* Reading */

static int fetch(struct world *world, size_t node, const struct replica_id *volume,
                 const struct replica_content_id *content)
{
    struct world_call *call = add_call(world, CALL_FETCH, node);
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_FETCH, .volume = *volume, .content = *content};
    ask(world, call, &request);
    return world_call_wait(world, call);
}

static int read_blob(struct world *world, size_t at, const struct replica_id *volume,
                     const struct replica_blob *blob, struct replica_buffer *ret_bytes)
{
    struct node *node = &world->nodes[at];
    const struct draft *draft;
    uint8_t *room;
    size_t n = 0;
    int rv;
    switch (blob->kind) {
    case REPLICA_BLOB_INLINE:
        return replica_buffer_append(ret_bytes, blob->data, blob->size);
    case REPLICA_BLOB_DRAFT:
        draft = &node->drafts[blob->draft - 1];
        return replica_buffer_append(ret_bytes, draft->bytes, draft->size);
    case REPLICA_BLOB_CONTENT:
        break;
    }
    if (replica_contents_state(node->contents, &blob->content) < REPLICA_CONTENTS_FILLED) {
        rv = fetch(world, at, volume, &blob->content);
        if (rv != 0)
            return rv;
    }
    room = replica_buffer_reserve(ret_bytes, (size_t)blob->content.length + 1);
    if (room == NULL)
        abort();
    rv = replica_contents_read(node->contents, &blob->content, 0, room, (size_t)blob->content.length, &n);
    if (rv == 0)
        ret_bytes->size += n;
    return rv;
}

int world_read(struct world *world, size_t node, const struct replica_id *view, const char *path,
               struct replica_buffer *ret_bytes)
{
    struct replica_path where = {.text = path, .size = strlen(path)};
    struct replica_version version;
    struct replica_view *found;
    int rv;
    if (world->nodes[node].peer == NULL)
        return WORLD_GONE;
    found = replica_view_find(gossip_peer_views(world->nodes[node].peer), view);
    if (found == NULL)
        return REPLICA_E_NOTFOUND;
    replica_buffer_clear(ret_bytes);
    replica_version_init(&version);
    rv = replica_view_lookup(found, where, &version);
    if (rv == 0 && version.entry.kind != REPLICA_KIND_FILE)
        rv = REPLICA_E_ISDIR;
    if (rv == 0) {
        struct replica_id volume = replica_view_info(found)->options.volume;
        rv = read_blob(world, node, &volume, &version.entry.blob, ret_bytes);
    }
    replica_version_close(&version);
    return rv;
}
