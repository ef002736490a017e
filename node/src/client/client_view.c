/* Volumes and views, as calls. */
#include "client/client.h"

#include <stdlib.h>
#include <string.h>

/* A call whose result does not matter. */
static int call_only(struct remora *remora, const char *method, struct replica_buffer *params)
{
    struct client_result result;
    int code = client_simple(remora, method, params, &result);
    client_result_close(&result);
    return code;
}

int remora_volume_create(struct remora *remora, const char *name, int version, unsigned flags)
{
    struct replica_buffer params;
    replica_buffer_init(&params);
    replica_pack_map(&params, version != 0 ? 4 : 3);
    client_pack_path(&params, "name", name);
    client_pack_key(&params, "if_missing");
    replica_pack_bool(&params, flags & REMORA_IF_MISSING);
    client_pack_key(&params, "timeout_ms");
    replica_pack_uint(&params, remora->timeout_ms);
    if (version != 0) {
        client_pack_key(&params, "version");
        replica_pack_int(&params, version);
    }
    return call_only(remora, "volume.create", &params);
}

static void pack_flag(struct replica_buffer *params, const char *key, bool value)
{
    client_pack_key(params, key);
    replica_pack_bool(params, value);
}

int remora_view_open(struct remora *remora, const char *volume, const char *sub, const char *label,
                     unsigned flags, struct remora_view *ret_view)
{
    struct replica_buffer params;
    struct client_result result;
    struct replica_pack_reader value;
    struct replica_id id;
    int code;
    replica_buffer_init(&params);
    replica_pack_map(&params, 5u + (sub != NULL) + (label != NULL));
    client_pack_path(&params, "volume", volume);
    pack_flag(&params, "read_only", flags & REMORA_READ_ONLY);
    pack_flag(&params, "auto", flags & REMORA_AUTO);
    pack_flag(&params, "local", flags & REMORA_LOCAL);
    client_pack_key(&params, "timeout_ms");
    replica_pack_uint(&params, remora->timeout_ms);
    if (sub != NULL)
        client_pack_path(&params, "sub", sub);
    if (label != NULL)
        client_pack_path(&params, "label", label);
    code = client_simple(remora, "view.open", &params, &result);
    if (code == 0 && (!client_find(&result, "view", &value) || replica_pack_read_id(&value, &id) != 0))
        code = client_malformed(remora, "view.open");
    if (code == 0) {
        memset(ret_view, 0, sizeof *ret_view);
        memcpy(ret_view->id, id.bytes, sizeof ret_view->id);
    }
    client_result_close(&result);
    return code;
}

int remora_view_close(struct remora *remora, const struct remora_view *view)
{
    struct replica_buffer params;
    replica_buffer_init(&params);
    client_pack_view(&params, view, 0);
    return call_only(remora, "view.close", &params);
}

/* Commit */

static void read_text(const struct client_result *result, const char *key, char *ret_text, size_t size)
{
    struct replica_pack_reader value;
    const char *text;
    size_t n;
    ret_text[0] = '\0';
    if (client_find(result, key, &value) && replica_pack_read_str(&value, size - 1, &text, &n) == 0) {
        memcpy(ret_text, text, n);
        ret_text[n] = '\0';
    }
}

static uint64_t read_number(const struct client_result *result, const char *key)
{
    struct replica_pack_reader value;
    uint64_t number = 0;
    if (client_find(result, key, &value))
        replica_pack_read_uint(&value, UINT64_MAX, &number);
    return number;
}

int remora_commit(struct remora *remora, const struct remora_view *view, struct remora_commit *ret_commit)
{
    struct replica_pack_reader value;
    struct replica_buffer params;
    struct client_result result;
    struct remora_commit commit;
    int code;
    memset(&commit, 0, sizeof commit);
    replica_buffer_init(&params);
    client_pack_view(&params, view, 1);
    client_pack_key(&params, "timeout_ms");
    replica_pack_uint(&params, remora->timeout_ms);
    code = client_simple(remora, "view.commit", &params, &result);
    if (code != 0 && remora->unanswered) /* it may yet happen, or have happened */
        code = client_fail(remora, REPLICA_E_INDETERMINATE,
                           "view.commit: no answer from the node at %s: whether the commit happened is not "
                           "known; the node goes on with it when it runs",
                           remora->path);
    if (code == 0) {
        read_text(&result, "token", commit.token, sizeof commit.token);
        read_text(&result, "commit", commit.commit, sizeof commit.commit);
        commit.paths = read_number(&result, "paths");
        commit.bytes = read_number(&result, "bytes");
        if (commit.token[0] == '\0')
            code = client_malformed(remora, "view.commit");
    }
    if (code == 0 && client_find(&result, "lost", &value) &&
        client_read_strings(&value, &commit.lost, &commit.lost_n) != 0)
        code = client_malformed(remora, "view.commit");
    client_result_close(&result);
    if (code == 0)
        *ret_commit = commit;
    return code;
}

void remora_commit_free(struct remora_commit *commit)
{
    client_free_strings(&commit->lost, &commit->lost_n);
}

/* Reload */

static const char *mode_name(enum remora_reload_mode mode)
{
    switch (mode) {
    case REMORA_RELOAD_LOCAL:
        return "local";
    case REMORA_RELOAD_AT_LEAST:
        return "at-least";
    case REMORA_RELOAD_QUORUM:
        break;
    }
    return "quorum";
}

int remora_reload(struct remora *remora, const struct remora_view *view, enum remora_reload_mode mode,
                  const char *token, struct remora_reload *ret_reload)
{
    struct replica_pack_reader value;
    struct replica_buffer params;
    struct client_result result;
    struct remora_reload reload;
    int code;
    memset(&reload, 0, sizeof reload);
    replica_buffer_init(&params);
    client_pack_view(&params, view, token != NULL ? 3 : 2);
    client_pack_path(&params, "mode", mode_name(mode));
    client_pack_key(&params, "timeout_ms");
    replica_pack_uint(&params, remora->timeout_ms);
    if (token != NULL)
        client_pack_path(&params, "token", token);
    code = client_simple(remora, "view.reload", &params, &result);
    if (code == 0) {
        reload.before = read_number(&result, "before");
        reload.after = read_number(&result, "after");
        if (client_find(&result, "more", &value))
            replica_pack_read_bool(&value, &reload.more);
    }
    if (code == 0 && (!client_find(&result, "changed", &value) ||
                      client_read_strings(&value, &reload.changed, &reload.changed_n) != 0))
        code = client_malformed(remora, "view.reload");
    client_result_close(&result);
    if (code == 0)
        *ret_reload = reload;
    return code;
}

void remora_reload_free(struct remora_reload *reload)
{
    client_free_strings(&reload->changed, &reload->changed_n);
}
