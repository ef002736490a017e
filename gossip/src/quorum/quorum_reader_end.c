/* How a reload ends: the snapshot moves, or a view is opened on it, and the caller hears what changed; or it fails. */
#include "quorum/quorum.h"

#include "replica/error.h"

#include <stdlib.h>

#define CHANGED_MAX 1000 /* paths named in an answer */
/* Of op lists, looked through for them: any one commit's, but not hundreds. */
#define CHANGED_BYTES_MAX REPLICA_OPS_SIZE_MAX

void reading_remove(struct gossip_quorum *quorum, struct reload *reload)
{
    for (size_t i = 0; i < quorum->reloads_n; i++)
        if (quorum->reloads[i] == reload) {
            quorum->reloads[i] = quorum->reloads[--quorum->reloads_n];
            break;
        }
    free(reload);
}

void reading_fail(struct gossip_quorum *quorum, struct reload *reload, int code, const char *reason,
                  struct gossip_update *update)
{
    quorum_answer_code(update, reload->token, code, reason, false);
    reading_remove(quorum, reload);
}

struct changed_context {
    struct replica_buffer *paths;
    struct replica_path sub;
    size_t n;
    bool more;
};

static int collect_changed(void *context, const struct replica_op *op)
{
    struct changed_context *c = context;
    struct replica_path path = op->path;
    if (op->target != REPLICA_TARGET_PATH)
        return 0;
    if (c->sub.size > 0) {
        if (!replica_path_is_below(path, c->sub))
            return 0;
        path.text += c->sub.size + 1;
        path.size -= c->sub.size + 1;
    }
    if (c->n == CHANGED_MAX) {
        c->more = true;
        return 1;
    }
    replica_pack_str(c->paths, path.text, path.size);
    c->n++;
    return 0;
}

/* The paths that the deltas applied after `before` name; best effort: an op list that is gone here names none. */
static void pack_changed(struct gossip_quorum *quorum, const struct attached *attached,
                         const struct replica_view_options *view, uint64_t before,
                         struct replica_buffer *payload)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    struct replica_buffer paths, record, ops;
    struct changed_context context = {.paths = &paths, .sub = view->sub};
    uint64_t bytes = 0;
    replica_buffer_init(&paths);
    replica_buffer_init(&record);
    replica_buffer_init(&ops);
    for (uint64_t seq = before + 1; seq <= state->applied_seq && !context.more; seq++) {
        struct replica_delta delta;
        struct replica_dot dot;
        const uint8_t *list;
        size_t n;
        if (seq - before > CHANGED_MAX) {
            context.more = true;
            break;
        }
        if (replica_volume_at(attached->volume, seq, &dot) != 0 ||
            replica_volume_read(attached->volume, NULL, &dot, &record) != 0 ||
            replica_delta_decode(record.data, record.size, &delta) != 0)
            continue;
        bytes += delta.ops == NULL ? delta.ops_content.length : record.size;
        if (bytes > CHANGED_BYTES_MAX) {
            context.more = true;
            break;
        }
        if (replica_delta_ops(&delta, quorum->table->contents, &ops, &list, &n) == 0)
            (void)replica_ops_each(list, n, collect_changed, &context);
    }
    replica_pack_array(payload, context.n);
    replica_buffer_append(payload, paths.data, paths.size);
    replica_pack_bool(payload, context.more);
    replica_buffer_close(&paths);
    replica_buffer_close(&record);
    replica_buffer_close(&ops);
}

struct covers_context {
    const struct replica_volume *volume;
    const struct replica_kv_batch *pending;
    const struct replica_vector *applied;
};

static bool covers(void *context, const struct replica_id *commit, const struct replica_dot *dot)
{
    const struct covers_context *c = context;
    struct replica_dot found;
    if (replica_vector_covers_dot(c->applied, dot))
        return true;
    return replica_volume_find(c->volume, c->pending, commit, c->applied, &found) == 0;
}

int reading_open(struct gossip_quorum *quorum, struct reload *reload, const struct attached *attached,
                 struct gossip_update *update)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    struct replica_view *view;
    struct replica_buffer payload;
    int rv;
    reload->options.snapshot = state->applied_seq;
    reload->options.vector = state->applied;
    rv = replica_view_open(quorum->views, &reload->options, &update->log, &view);
    if (rv != 0) {
        reading_fail(quorum, reload, rv,
                     rv == REPLICA_E_NOSPACE ? "too many views are open on this node"
                                             : replica_error_text(rv),
                     update);
        return rv == REPLICA_E_NOMEM ? rv : 0;
    }
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 2);
    replica_pack_id(&payload, &reload->options.id);
    replica_pack_uint(&payload, state->applied_seq);
    gossip_update_answer(update, reload->token, 0, &payload, true);
    replica_buffer_close(&payload);
    reading_remove(quorum, reload);
    return 0;
}

int reading_reload(struct gossip_quorum *quorum, struct reload *reload, const struct attached *attached,
                   struct gossip_update *update)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    struct replica_view *view = replica_view_find(quorum->views, &reload->view);
    struct covers_context context = {
        .volume = attached->volume, .pending = &update->log, .applied = &state->applied};
    const struct replica_view_info *info;
    struct replica_buffer payload;
    int rv;
    if (view == NULL) {
        reading_fail(quorum, reload, REPLICA_E_NOTFOUND, "the view was closed", update);
        return 0;
    }
    info = replica_view_info(view);
    if (!reload->moved) {
        reload->before = info->options.snapshot;
        reload->moved = true;
    }
    rv = replica_view_reload(view, state->applied_seq, &state->applied, BUILD_OPS_MAX, covers, &context,
                             &update->log);
    if (rv == REPLICA_E_AGAIN) {
        update->again = true;
        return 0;
    }
    if (rv != 0)
        return rv;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 5);
    replica_pack_uint(&payload, reload->before);
    replica_pack_uint(&payload, state->applied_seq);
    replica_pack_cstr(&payload, reload->mode == GOSSIP_RELOAD_LOCAL      ? "local"
                                : reload->mode == GOSSIP_RELOAD_AT_LEAST ? "at-least"
                                                                         : "quorum");
    pack_changed(quorum, attached, &info->options, reload->before, &payload);
    gossip_update_answer(update, reload->token, 0, &payload, true);
    replica_buffer_close(&payload);
    reading_remove(quorum, reload);
    return 0;
}
