/* What happened to a volume: its commits, and the versions of its paths. */
#include "api/methods.h"

#include <stdlib.h>
#include <string.h>

#define COMMITS_DEFAULT 100
#define COMMITS_MAX     1000
#define VERSIONS_MAX    1000

static void pack_commit_id(struct replica_buffer *out, const struct replica_id *commit)
{
    char text[33];
    replica_id_format(commit, text);
    replica_pack_cstr(out, text);
}

/* volume.log */

struct log {
    struct api_call *call;
    struct replica_buffer items;
    size_t n, limit;
    bool more;
};

static int pack_commit(void *context, uint64_t apply_seq, bool committed, const struct replica_delta *delta)
{
    struct log *log = context;
    struct gossip_token token = {.volume = delta->volume, .epoch = delta->dot.actor.epoch, .dot = delta->dot};
    char text[GOSSIP_TOKEN_TEXT_MAX];
    if (log->n == log->limit) {
        log->more = true;
        return 1;
    }
    log->n++;
    gossip_token_format(&token, text);
    replica_pack_map(&log->items, 8);
    api_pack_key(&log->items, "seq");
    replica_pack_uint(&log->items, apply_seq);
    api_pack_key(&log->items, "token");
    replica_pack_cstr(&log->items, text);
    api_pack_key(&log->items, "commit");
    pack_commit_id(&log->items, &delta->commit);
    api_pack_key(&log->items, "time_ms");
    replica_pack_uint(&log->items, delta->time_ms);
    api_pack_key(&log->items, "node");
    api_pack_store_name(&log->items, gossip_peer_member(api_peer(log->call)), &delta->node);
    api_pack_key(&log->items, "paths");
    replica_pack_uint(&log->items, delta->op_count);
    api_pack_key(&log->items, "bytes");
    replica_pack_uint(&log->items, delta->byte_count);
    api_pack_key(&log->items, "state");
    replica_pack_cstr(&log->items, committed ? "committed" : "pending");
    return 0;
}

static void reply_log(struct api_call *call, int code)
{
    struct replica_volume *volume = gossip_peer_volume(api_peer(call), api_refreshed(call));
    struct log log = {.call = call, .limit = COMMITS_DEFAULT};
    uint64_t before = 0, limit = COMMITS_DEFAULT;
    struct replica_buffer reply;
    if (api_get_uint(call, "before", false, UINT64_MAX, &before) != 0 ||
        api_get_uint(call, "limit", false, COMMITS_MAX, &limit) != 0)
        return;
    if (code != 0 || volume == NULL) {
        api_fail_refresh(call, code);
        return;
    }
    log.limit = (size_t)limit;
    replica_buffer_init(&log.items);
    code = replica_volume_commits(volume, before, log.limit + 1, pack_commit, &log);
    if (code < 0) {
        replica_buffer_close(&log.items);
        api_fail(call, code, "the log cannot be read: %s", replica_error_text(code));
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 2);
    api_pack_key(&reply, "commits");
    replica_pack_array(&reply, log.n);
    replica_buffer_append(&reply, log.items.data, log.items.size);
    api_pack_key(&reply, "more");
    replica_pack_bool(&reply, log.more);
    replica_buffer_close(&log.items);
    api_reply(call, &reply);
}

/* What this node knows may be old: unless that is what is asked for (`local`), a majority says what is newest, or nothing is said. */
static void answer_newest(struct api_call *call, void (*done)(struct api_call *call, int code))
{
    const struct gossip_volume *volume;
    bool local = false;
    if (api_get_volume(call, "name", &volume) == 0 && api_get_bool(call, "local", &local) == 0)
        api_refresh(call, volume, local ? GOSSIP_RELOAD_LOCAL : GOSSIP_RELOAD_QUORUM, done);
}

void api_volume_log(struct api_call *call)
{
    answer_newest(call, reply_log);
}

/* volume.history */

struct history {
    struct api_call *call;
    struct replica_path path;
    struct replica_buffer items;
    size_t n;
    bool more;
};

static int pack_version(struct history *history, struct replica_path path,
                        const struct replica_version *version)
{
    if (history->n == VERSIONS_MAX) {
        history->more = true;
        return 1;
    }
    history->n++;
    replica_pack_map(&history->items, 7);
    api_pack_key(&history->items, "path");
    replica_pack_str(&history->items, path.text, path.size);
    api_pack_key(&history->items, "time_ms");
    replica_pack_uint(&history->items, version->time_ms);
    api_pack_key(&history->items, "node");
    api_pack_store_name(&history->items, gossip_peer_member(api_peer(history->call)), &version->node);
    api_pack_key(&history->items, "size");
    replica_pack_uint(&history->items, version->tombstone ? 0 : version->entry.size);
    api_pack_key(&history->items, "lost");
    replica_pack_bool(&history->items, version->lost);
    api_pack_key(&history->items, "deleted");
    replica_pack_bool(&history->items, version->tombstone);
    api_pack_key(&history->items, "commit");
    pack_commit_id(&history->items, &version->stamp.commit);
    return 0;
}

static int visit_version(void *context, const struct replica_version *version)
{
    struct history *history = context;
    return pack_version(history, history->path, version);
}

static int visit_lost(void *context, struct replica_path path, const struct replica_version *version)
{
    return pack_version(context, path, version);
}

static void reply_history(struct api_call *call, int code)
{
    struct replica_volume *volume = gossip_peer_volume(api_peer(call), api_refreshed(call));
    struct history history = {.call = call};
    struct replica_pack_reader given;
    struct replica_buffer reply;
    struct api_path path = {.path = {"", 0}};
    bool has_path = api_find(call, "path", &given);
    if (has_path && api_get_path(call, "path", true, &path) != 0)
        return;
    if (code != 0 || volume == NULL) {
        api_fail_refresh(call, code);
        return;
    }
    history.path = path.path;
    replica_buffer_init(&history.items);
    if (has_path)
        code = replica_map_history(replica_volume_map(volume), path.path, visit_version, &history);
    else
        code = replica_map_lost(replica_volume_map(volume), visit_lost, &history);
    if (code < 0) {
        replica_buffer_close(&history.items);
        api_fail(call, code, "%s: the history cannot be read: %s", has_path ? path.text : "/",
                 replica_error_text(code));
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 2);
    api_pack_key(&reply, "versions");
    replica_pack_array(&reply, history.n);
    replica_buffer_append(&reply, history.items.data, history.items.size);
    api_pack_key(&reply, "more");
    replica_pack_bool(&reply, history.more);
    replica_buffer_close(&history.items);
    api_reply(call, &reply);
}

void api_volume_history(struct api_call *call)
{
    answer_newest(call, reply_history);
}
