/* A view's commit, from freezing to its outcome. design.md §3.
 *
 *   (request) ─freeze─▶ SETTLING ─▶ BUILDING ─▶ PREPARING ─stamp─▶ MINTING ─▶ committed
 *                          └────────────┴────────────┴─▶ thawed: UNAVAILABLE, NOSPACE, REFUSED …
 *
 * Up to PREPARING nothing was minted, so a failure thaws the drafts, and its answer leaves once that is durable. The stamp is fixed once,
 * journalled, and the first request to mint waits for it to be synced; from then on the commit is driven until its fate is known,
 * whatever the caller was told, across restarts. */
#include "quorum/quorum_writing.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_MS_MAX 4000 /* how far the pause between retries grows */

struct commit *writing_find(const struct gossip_quorum *quorum, const struct replica_id *view)
{
    for (size_t i = 0; i < quorum->commits_n; i++)
        if (replica_id_equal(&quorum->commits[i]->view, view))
            return quorum->commits[i];
    return NULL;
}

static struct commit *find_commit_id(const struct gossip_quorum *quorum, const struct replica_id *id)
{
    for (size_t i = 0; i < quorum->commits_n; i++)
        if (replica_id_equal(&quorum->commits[i]->id, id))
            return quorum->commits[i];
    return NULL;
}

void writing_free(struct commit *commit)
{
    replica_buffer_close(&commit->position);
    replica_buffer_close(&commit->ops);
    replica_buffer_close(&commit->proposal);
    free(commit->callers);
    free(commit->later);
    free(commit);
}

static void remove_commit(struct gossip_quorum *quorum, struct commit *commit)
{
    for (size_t i = 0; i < quorum->commits_n; i++)
        if (quorum->commits[i] == commit) {
            quorum->commits[i] = quorum->commits[--quorum->commits_n];
            break;
        }
    writing_free(commit);
}

static struct commit *new_commit(struct gossip_quorum *quorum, const struct replica_view_info *info)
{
    struct commit *commit;
    if (quorum->commits_n == COMMITS_MAX)
        return NULL;
    commit = calloc(1, sizeof *commit);
    if (commit == NULL)
        return NULL;
    commit->callers = calloc(CALLERS_MAX, sizeof commit->callers[0]);
    commit->later = calloc(CALLERS_MAX, sizeof commit->later[0]);
    if (commit->callers == NULL || commit->later == NULL) {
        free(commit->callers);
        free(commit->later);
        free(commit);
        return NULL;
    }
    commit->view = info->options.id;
    commit->volume = info->options.volume;
    quorum->commits[quorum->commits_n++] = commit;
    return commit;
}

void writing_set_retry(const struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                       struct gossip_update *update)
{
    commit->retry_ms = quorum->options.retry_ms;
    commit->retry_at_ms = time.now_ms + commit->retry_ms;
    gossip_update_wake(update, commit->retry_at_ms);
}

/* Beginnings */

static int begin(struct gossip_quorum *quorum, struct commit *commit, const struct gossip_quorum_event *event,
                 struct gossip_update *update);

/* The callers that came later get a commit of their own; without any, this one is done. */
static int next_commit(struct gossip_quorum *quorum, struct commit *commit,
                       const struct gossip_quorum_event *event, struct gossip_update *update)
{
    uint64_t *callers = commit->later;
    if (commit->later_n == 0) {
        remove_commit(quorum, commit);
        return 0;
    }
    commit->later = commit->callers;
    commit->callers = callers;
    commit->callers_n = commit->later_n;
    commit->later_n = 0;
    commit->indeterminate = false;
    commit->draft = 0;
    commit->op_count = commit->byte_count = 0;
    commit->ops_content.length = 0;
    replica_buffer_close(&commit->position);
    replica_buffer_close(&commit->ops);
    replica_buffer_close(&commit->proposal);
    memset(commit->answers, 0, sizeof commit->answers);
    memset(&commit->id, 0, sizeof commit->id);
    return begin(quorum, commit, event, update);
}

/* Begins with what is dirty now; without anything dirty the callers are answered at once. */
static int begin(struct gossip_quorum *quorum, struct commit *commit, const struct gossip_quorum_event *event,
                 struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    struct replica_id id;
    int rv = view == NULL ? REPLICA_E_NOTFOUND : 0;
    memset(&commit->stamp, 0, sizeof commit->stamp);
    memset(&commit->dot, 0, sizeof commit->dot);
    commit->again = false;
    if (rv == 0) {
        gossip_random_id(&quorum->random, &id);
        commit->time_ms = event->time.wall_ms;
        rv = replica_view_freeze(view, &id, commit->time_ms, &update->log);
    }
    if (rv == REPLICA_E_NOTFOUND) {
        writing_answer(quorum, commit, update);
        remove_commit(quorum, commit);
        return 0;
    }
    if (rv != 0)
        return rv;
    commit->id = id;
    commit->phase = COMMIT_SETTLING;
    commit->progress_at_ms = event->time.now_ms;
    writing_set_retry(quorum, commit, event->time, update);
    update->again = true; /* the freeze must be applied before the overlay is read */
    return 0;
}

/* Messages */

int quorum_writer_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                          struct gossip_update *update)
{
    const struct gossip_volume *volume;
    struct replica_pack_reader reader;
    struct replica_id volume_id, id;
    struct commit *commit;
    size_t n;
    int rv;
    replica_pack_reader_init(&reader, event->message.payload, event->message.size);
    replica_pack_read_array(&reader, 32, &n);
    replica_pack_read_id(&reader, &volume_id);
    replica_pack_read_id(&reader, &id);
    if (reader.failed || n < 5)
        return REPLICA_E_MALFORMED;
    commit = find_commit_id(quorum, &id);
    volume = quorum_volume(quorum, &volume_id);
    if (commit == NULL && volume != NULL && event->message.type == QUORUM_PREPARED &&
        quorum_voter_index(&volume->configuration, &event->message.from->store) >= 0) {
        /* Given up, perhaps by an earlier life, or committed long ago: whatever was to be minted is driven until its fate is
         * known, so that voter keeps its proposal for nothing. */
        writing_send_abandon(&volume_id, &id, &event->message.from->store, 1, update);
        return 0;
    }
    if (commit == NULL || volume == NULL || commit->again || !replica_id_equal(&commit->volume, &volume_id))
        return 0;
    rv = event->message.type == QUORUM_PREPARED
             ? writing_receive_prepared(quorum, event, &reader, commit, volume, update)
             : writing_receive_outcome(quorum, event, &reader, commit, volume, update);
    return rv;
}

/* Time */

static int retry(struct gossip_quorum *quorum, struct commit *commit, const struct gossip_quorum_event *event,
                 struct gossip_update *update)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &commit->volume);
    commit->retry_ms = commit->retry_ms * 2 > RETRY_MS_MAX ? RETRY_MS_MAX : commit->retry_ms * 2;
    commit->retry_at_ms = event->time.now_ms + commit->retry_ms;
    if (commit->phase == COMMIT_PREPARING && volume != NULL) {
        if (volume->configuration.epoch != commit->epoch ||
            volume->configuration.phase != commit->config_phase)
            return writing_start_preparing(quorum, commit, event, update);
        writing_send_prepares(commit, &volume->configuration, update);
    } else if (commit->phase == COMMIT_MINTING && volume != NULL) {
        if (writing_choose(quorum, commit, &volume->configuration))
            writing_send_mint(commit, update);
        else
            return writing_start_preparing(quorum, commit, event, update);
    }
    return 0;
}

static int check_time(struct gossip_quorum *quorum, struct commit *commit,
                      const struct gossip_quorum_event *event, struct gossip_update *update)
{
    uint32_t timeout_ms = commit->timeout_ms > 0 ? commit->timeout_ms : quorum->options.deadline_ms;
    uint64_t deadline_ms = commit->progress_at_ms + timeout_ms;
    if (commit->phase == COMMIT_SETTLING || commit->phase == COMMIT_BUILDING)
        return 0; /* local work makes its own progress */
    if (commit->phase == COMMIT_APPLYING) {
        writing_finish(quorum, commit, event->time, update);
        return 0;
    }
    if (event->time.now_ms >= deadline_ms && commit->callers_n > 0) {
        if (replica_stamp_is_zero(&commit->stamp))
            return writing_expire(quorum, commit, update);
        for (size_t i = 0; i < commit->callers_n; i++)
            quorum_answer_code(update, commit->callers[i], REPLICA_E_INDETERMINATE,
                               "the outcome is not known yet; the node keeps trying under the same commit id",
                               true);
        commit->callers_n = 0;
        commit->indeterminate = true;
    }
    if (event->time.now_ms >= commit->retry_at_ms) {
        int rv = retry(quorum, commit, event, update);
        if (rv != 0)
            return rv;
    }
    gossip_update_wake(update, commit->retry_at_ms);
    if (commit->callers_n > 0)
        gossip_update_wake(update, deadline_ms);
    return 0;
}

static int advance(struct gossip_quorum *quorum, struct commit *commit,
                   const struct gossip_quorum_event *event, struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    if (commit->again)
        return next_commit(quorum, commit, event, update);
    if (view != NULL && commit->phase == COMMIT_SETTLING && commit->draft == 0)
        return writing_settle_next(quorum, commit, view, update);
    if (view != NULL && commit->phase == COMMIT_BUILDING)
        return writing_build(quorum, commit, view, event, update);
    return check_time(quorum, commit, event, update);
}

/* Requests and events */

static int request_commit(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                          struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &event->view);
    const struct replica_view_info *info;
    struct commit *commit;
    if (view == NULL) {
        quorum_answer_code(update, event->token, REPLICA_E_NOTFOUND, "no such view", false);
        return 0;
    }
    info = replica_view_info(view);
    if (info->options.flags & REPLICA_VIEW_READ_ONLY) {
        quorum_answer_code(update, event->token, REPLICA_E_READONLY, "the view is read-only", false);
        return 0;
    }
    if (!quorum_may(quorum, &info->options.volume, true, event->token, update))
        return 0;
    commit = writing_find(quorum, &event->view);
    if (commit !=
        NULL) { /* a commit begins when its drafts are frozen: this caller's come with the next one */
        if (commit->later_n == CALLERS_MAX)
            quorum_answer_code(update, event->token, REPLICA_E_BUSY,
                               "too many callers wait for this view's commit", false);
        else
            commit->later[commit->later_n++] = event->token;
        return 0;
    }
    commit = new_commit(quorum, info);
    if (commit == NULL) {
        quorum_answer_code(update, event->token, REPLICA_E_BUSY, "too many commits at once", false);
        return 0;
    }
    commit->callers[commit->callers_n++] = event->token;
    commit->timeout_ms = event->timeout_ms;
    return begin(quorum, commit, event, update);
}

/* Commits that an earlier life left: with a stamp they are driven on, without one they certainly did not happen. */
static int take_up(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                   struct gossip_update *update)
{
    for (size_t i = 0; i < replica_views_count(quorum->views); i++) {
        struct replica_view *view = replica_views_at(quorum->views, i);
        const struct replica_view_info *info = replica_view_info(view);
        struct replica_delta delta;
        struct commit *commit;
        int rv;
        size_t lost;
        if (writing_find(quorum, &info->options.id) != NULL)
            continue;
        rv = info->commit == REPLICA_COMMIT_FROZEN ? replica_view_thaw(view, &update->log) : 0;
        if (rv == 0)
            rv = replica_view_forget_lost(view, quorum->table->contents, &update->log, &lost);
        if (rv != 0)
            return rv;
        if (info->commit == REPLICA_COMMIT_NONE)
            continue;
        commit = new_commit(quorum, info);
        if (commit == NULL)
            return REPLICA_E_NOMEM;
        commit->id = info->commit_id;
        commit->stamp = info->stamp;
        rv = replica_view_journal_read(view, &commit->proposal);
        if (rv != 0)
            return rv;
        if (replica_delta_decode(commit->proposal.data, commit->proposal.size, &delta) != 0)
            return REPLICA_E_CORRUPT;
        commit->op_count = delta.op_count;
        commit->byte_count = delta.byte_count;
        if (delta.ops == NULL)
            commit->ops_content = delta.ops_content;
        commit->phase = COMMIT_PREPARING;
        commit->progress_at_ms = event->time.now_ms;
        writing_set_retry(quorum, commit, event->time, update);
    }
    return 0;
}

static void cancel(struct gossip_quorum *quorum, uint64_t token)
{
    for (size_t i = 0; i < quorum->commits_n; i++) {
        struct commit *commit = quorum->commits[i];
        for (size_t j = 0; j < commit->callers_n; j++)
            if (commit->callers[j] == token)
                commit->callers[j] = 0;
        for (size_t j = 0; j < commit->later_n; j++)
            if (commit->later[j] == token)
                commit->later[j] = 0;
    }
}

int quorum_writer_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct gossip_update *update)
{
    int rv = 0;
    if (event->kind == GOSSIP_QUORUM_EVENT_START)
        return take_up(quorum, event, update);
    if (event->kind == GOSSIP_QUORUM_EVENT_COMMIT)
        return request_commit(quorum, event, update);
    if (event->kind == GOSSIP_QUORUM_EVENT_SETTLED)
        return writing_settled(quorum, event, update);
    if (event->kind == GOSSIP_QUORUM_EVENT_CANCEL)
        cancel(quorum, event->token);
    for (size_t i = quorum->commits_n; i > 0 && rv == 0; i--) {
        struct commit *commit = quorum->commits[i - 1];
        if (event->kind == GOSSIP_QUORUM_EVENT_COMMITTED && replica_id_equal(&commit->volume, &event->volume))
            rv = writing_look_for_own(quorum, commit, event->time, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_TIMER)
            rv = advance(quorum, commit, event, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_APPLIED && commit->phase == COMMIT_APPLYING &&
                 !commit->again)
            writing_finish(quorum, commit, event->time, update);
    }
    return rv;
}
