/* How a commit ends: thawed, or committed and shown. */
#include "quorum/quorum_writing.h"

#include "replica/error.h"

#define APPLY_WAIT_MS  1000 /* how long a committed commit's answer waits to be shown here */
#define LOST_PATHS_MAX 1000 /* named in an answer; the rest is in the history */

/* It certainly did not happen. */
int writing_fail(struct gossip_quorum *quorum, struct commit *commit, int code, const char *reason,
                 struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    const struct gossip_volume *volume = quorum_volume(quorum, &commit->volume);
    int rv = view == NULL ? 0 : replica_view_thaw(view, &update->log);
    if (rv != 0)
        return rv;
    if (volume != NULL && commit->phase == COMMIT_PREPARING)
        writing_send_abandon(&volume->id, &commit->id, volume->configuration.voters,
                             volume->configuration.voters_n, update);
    for (size_t i = 0; i < commit->callers_n; i++)
        quorum_answer_code(update, commit->callers[i], code, reason, true);
    commit->callers_n = 0;
    commit->again = true; /* later callers start once the thaw is applied */
    update->again = true;
    return 0;
}

struct lost_context {
    struct replica_buffer *paths;
    size_t n;
};

static int collect_lost(void *context, struct replica_path path, const struct replica_version *version)
{
    struct lost_context *lost = context;
    (void)version;
    if (lost->n == LOST_PATHS_MAX)
        return 1;
    replica_pack_str(lost->paths, path.text, path.size);
    lost->n++;
    return 0;
}

/* With the paths at which this commit met another writer's; known once it is applied here. */
void writing_answer(struct gossip_quorum *quorum, struct commit *commit, struct gossip_update *update)
{
    struct attached *attached = attached_find(quorum->table, &commit->volume);
    struct gossip_token token = {
        .volume = commit->volume, .epoch = commit->dot.actor.epoch, .dot = commit->dot};
    struct replica_buffer payload, paths;
    struct lost_context lost = {.paths = &paths};
    char text[GOSSIP_TOKEN_TEXT_MAX];
    replica_buffer_init(&payload);
    replica_buffer_init(&paths);
    if (attached != NULL)
        (void)replica_map_lost_by(replica_volume_map(attached->volume), &commit->id, collect_lost, &lost);
    gossip_token_format(&token, text);
    replica_pack_array(&payload, 5);
    replica_pack_cstr(&payload, text);
    replica_pack_id(&payload, &commit->id);
    replica_pack_uint(&payload, commit->op_count);
    replica_pack_uint(&payload, commit->byte_count);
    replica_pack_array(&payload, lost.n);
    replica_buffer_append(&payload, paths.data, paths.size);
    for (size_t i = 0; i < commit->callers_n; i++)
        gossip_update_answer(update, commit->callers[i], 0, &payload, false);
    commit->callers_n = 0;
    replica_buffer_close(&payload);
    replica_buffer_close(&paths);
}

/* It is committed; the callers are answered once this node shows it, or soon anyway. */
void writing_finish(struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                    struct gossip_update *update)
{
    struct attached *attached = attached_find(quorum->table, &commit->volume);
    bool applied = attached == NULL ||
                   replica_vector_covers_dot(&replica_volume_state(attached->volume)->applied, &commit->dot);
    if (!applied && time.now_ms < commit->retry_at_ms) {
        gossip_update_wake(update, commit->retry_at_ms);
        return;
    }
    if (applied && (commit->applied_batch == 0 || commit->applied_batch == quorum->batch)) {
        commit->applied_batch = quorum->batch;
        update->again = true;
        return;
    }
    writing_answer(quorum, commit, update);
    commit->again = true;
    update->again = true;
}

int writing_succeed(struct gossip_quorum *quorum, struct commit *commit, const struct replica_dot *dot,
                    struct gossip_time time, struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    struct attached *attached = attached_find(quorum->table, &commit->volume);
    struct replica_vector committed = {.n = 0};
    bool rose = false;
    int rv = 0;
    if (view != NULL)
        rv = replica_view_committed(view, &commit->stamp, dot, &update->log);
    if (rv == 0)
        rv = replica_vector_set(&committed, &dot->actor, dot->seq);
    if (rv == 0 && attached != NULL)
        rv = replica_volume_commit(attached->volume, &committed, &update->log, &rose);
    if (rv != 0)
        return rv;
    commit->dot = *dot;
    if (attached != NULL && replica_vector_join(&attached->target, &committed) == 0)
        gossip_update_note(update, GOSSIP_NOTE_PULL, &commit->volume, &dot->actor.store, NULL);
    if (rose)
        gossip_update_note(update, GOSSIP_NOTE_COMMITTED, &commit->volume, NULL, NULL);
    commit->phase = COMMIT_APPLYING;
    commit->applied_batch = 0;
    commit->retry_at_ms = time.now_ms + APPLY_WAIT_MS;
    gossip_update_wake(update, commit->retry_at_ms);
    writing_finish(quorum, commit, time, update);
    return 0;
}
