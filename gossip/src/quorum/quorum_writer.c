/* A view's commit, from freezing to its outcome. design.md §3.
 *
 *   (request) ─freeze─▶ SETTLING ─▶ BUILDING ─▶ PREPARING ─stamp─▶ MINTING ─▶ committed
 *                          └────────────┴────────────┴─▶ thawed: UNAVAILABLE, NOSPACE, REFUSED …
 *
 * Up to PREPARING nothing was minted, so a failure thaws the drafts, and its answer leaves once that is durable. The stamp is fixed once,
 * journalled, and the first request to mint waits for it to be synced; from then on the commit is driven until its fate is known,
 * whatever the caller was told, across restarts. */
#include "quorum/quorum.h"

#include "replica/error.h"

#include "replica/hlc.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_MS_MAX     4000        /* how far the pause between retries grows */
#define APPLY_WAIT_MS    1000        /* how long a committed commit's answer waits to be shown here */
#define CARRIED_SIZE_MAX (64 * 1024) /* larger contents go through the swarm */

static struct commit *find_commit(const struct gossip_quorum *quorum, const struct replica_id *view)
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

static void remove_commit(struct gossip_quorum *quorum, struct commit *commit)
{
    for (size_t i = 0; i < quorum->commits_n; i++)
        if (quorum->commits[i] == commit) {
            quorum->commits[i] = quorum->commits[--quorum->commits_n];
            break;
        }
    replica_buffer_close(&commit->position);
    replica_buffer_close(&commit->ops);
    replica_buffer_close(&commit->proposal);
    free(commit->callers);
    free(commit->later);
    free(commit);
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

static void set_retry(const struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                      struct gossip_update *update)
{
    commit->retry_ms = quorum->options.retry_ms;
    commit->retry_at_ms = time.now_ms + commit->retry_ms;
    commit->progress_at_ms = time.now_ms;
    gossip_update_wake(update, commit->retry_at_ms);
}

/* Endings */

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

/* It certainly did not happen. */
static int fail(struct gossip_quorum *quorum, struct commit *commit, int code, const char *reason,
                struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    int rv = view == NULL ? 0 : replica_view_thaw(view, &update->log);
    if (rv != 0)
        return rv;
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

#define LOST_PATHS_MAX 1000 /* named in an answer; the rest is in the history */

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
static void answer_committed(struct gossip_quorum *quorum, struct commit *commit,
                             struct gossip_update *update)
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
static void finish_if_applied(struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
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
    answer_committed(quorum, commit, update);
    commit->again = true;
    update->again = true;
}

static int succeed(struct gossip_quorum *quorum, struct commit *commit, const struct replica_dot *dot,
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
    finish_if_applied(quorum, commit, time, update);
    return 0;
}

/* SETTLING and BUILDING */

static int settle_next(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                       struct gossip_update *update)
{
    int rv = replica_view_next_draft(view, 0, &commit->draft);
    (void)quorum;
    if (rv == 0) {
        gossip_update_settle(update, &commit->view, commit->draft);
        return 0;
    }
    if (rv != REPLICA_E_NOTFOUND)
        return rv;
    commit->phase = COMMIT_BUILDING;
    update->again = true;
    return 0;
}

struct carry_context {
    struct gossip_quorum *quorum;
    struct replica_delta *delta;
    struct replica_buffer *bytes; /* one per carried content */
    size_t room;
};

static int carry(void *context, const struct replica_op *op)
{
    struct carry_context *c = context;
    const struct replica_content_id *id = &op->entry.blob.content;
    struct replica_buffer *bytes;
    struct replica_piece piece = {.kind = REPLICA_PIECE_CHUNK, .index = 0};
    if (op->tombstone || op->entry.kind != REPLICA_KIND_FILE || op->entry.blob.kind != REPLICA_BLOB_CONTENT)
        return 0;
    if (id->length > CARRIED_SIZE_MAX || id->length + REPLICA_CONTENT_ID_SIZE + 16 > c->room ||
        c->delta->carried_n == REPLICA_CARRIED_MAX)
        return 0;
    for (size_t i = 0; i < c->delta->carried_n; i++)
        if (replica_content_id_equal(&c->delta->carried[i].id, id))
            return 0;
    bytes = &c->bytes[c->delta->carried_n];
    if (id->length == 0 || replica_contents_read_piece(c->quorum->table->contents, id, piece, bytes) != 0)
        return 0;
    c->delta->carried[c->delta->carried_n].id = *id;
    c->delta->carried[c->delta->carried_n++].data = bytes->data;
    c->room -= (size_t)id->length + REPLICA_CONTENT_ID_SIZE + 16;
    return 0;
}

/* Small contents travel in the record; they are packed at once, so their buffers live only here. */
static int pack_proposal(struct gossip_quorum *quorum, struct commit *commit, struct replica_delta *delta)
{
    struct replica_buffer *bytes = calloc(REPLICA_CARRIED_MAX, sizeof *bytes);
    struct carry_context context = {.quorum = quorum, .delta = delta, .bytes = bytes};
    if (bytes == NULL)
        return REPLICA_E_NOMEM;
    for (size_t i = 0; i < REPLICA_CARRIED_MAX; i++)
        replica_buffer_init(&bytes[i]);
    if (delta->ops != NULL) {
        context.room = REPLICA_DELTA_INLINE_MAX - delta->ops_size;
        (void)replica_ops_each(delta->ops, delta->ops_size, carry, &context);
    }
    replica_buffer_clear(&commit->proposal);
    replica_delta_pack(&commit->proposal, delta);
    for (size_t i = 0; i < REPLICA_CARRIED_MAX; i++)
        replica_buffer_close(&bytes[i]);
    free(bytes);
    return commit->proposal.failed ? REPLICA_E_NOMEM : 0;
}

static int propose(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                   struct gossip_update *update)
{
    const struct replica_view_info *info = replica_view_info(view);
    struct replica_delta *delta = calloc(1, sizeof *delta);
    int rv = 0;
    if (delta == NULL)
        return REPLICA_E_NOMEM;
    delta->volume = commit->volume;
    delta->commit = commit->id;
    delta->deps = info->options.vector;
    delta->node = quorum->table->self;
    delta->time_ms = commit->time_ms;
    delta->op_count = commit->op_count;
    delta->byte_count = commit->byte_count;
    if (replica_vector_join(&delta->deps, &info->own) != 0)
        rv = REPLICA_E_TOOBIG;
    if (rv == 0 && commit->ops.size <= REPLICA_DELTA_INLINE_MAX) {
        delta->ops = commit->ops.data;
        delta->ops_size = commit->ops.size;
    } else if (rv == 0) {
        rv = replica_contents_ingest(quorum->table->contents, commit->ops.data, commit->ops.size,
                                     &delta->ops_content);
        commit->ops_content = delta->ops_content;
    }
    if (rv == 0)
        rv = pack_proposal(quorum, commit, delta);
    free(delta);
    if (rv == REPLICA_E_NOSPACE || rv == REPLICA_E_TOOBIG)
        return fail(quorum, commit, rv,
                    rv == REPLICA_E_TOOBIG ? "the commit changes too many files at once; commit in parts"
                                           : "no space left on this node for the list of changes",
                    update);
    if (rv == 0)
        rv = replica_view_journal(view, commit->proposal.data, commit->proposal.size, &update->log);
    replica_buffer_close(&commit->ops);
    replica_buffer_close(&commit->position);
    return rv;
}

static void send_prepares(struct commit *commit, const struct gossip_configuration *configuration,
                          struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &commit->volume);
    replica_pack_uint(&payload, commit->epoch);
    replica_pack_uint(&payload, commit->config_phase);
    replica_pack_bin(&payload, commit->proposal.data, commit->proposal.size);
    for (size_t i = 0; i < configuration->voters_n; i++)
        if (!commit->answers[i].ready)
            gossip_update_send(update, &configuration->voters[i], GOSSIP_ROOM_QUORUM, QUORUM_PREPARE,
                               &payload, false);
    replica_buffer_close(&payload);
}

static int start_preparing(struct gossip_quorum *quorum, struct commit *commit,
                           const struct gossip_quorum_event *event, struct gossip_update *update)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &commit->volume);
    if (volume == NULL || volume->deleted) {
        if (replica_stamp_is_zero(&commit->stamp))
            return fail(quorum, commit, REPLICA_E_DELETED, "the volume was deleted", update);
        return 0; /* its fate stays open: it can be undeleted */
    }
    commit->phase = COMMIT_PREPARING;
    commit->epoch = volume->configuration.epoch;
    commit->config_phase = volume->configuration.phase;
    memset(commit->answers, 0, sizeof commit->answers);
    send_prepares(commit, &volume->configuration, update);
    set_retry(quorum, commit, event->time, update);
    return 0;
}

static int build(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                 const struct gossip_quorum_event *event, struct gossip_update *update)
{
    int rv = replica_view_ops(view, &commit->position, BUILD_OPS_MAX, &commit->ops, &commit->op_count,
                              &commit->byte_count);
    update->reads += BUILD_OPS_MAX / 2;
    if (rv == REPLICA_E_AGAIN && commit->ops.size <= REPLICA_OPS_SIZE_MAX) {
        update->again = true;
        return 0;
    }
    if (rv != 0 && rv != REPLICA_E_AGAIN)
        return rv;
    if (commit->ops.size > REPLICA_OPS_SIZE_MAX)
        return fail(quorum, commit, REPLICA_E_TOOBIG,
                    "the commit changes too many files at once; commit in parts", update);
    rv = propose(quorum, commit, view, update);
    if (rv != 0 || commit->again)
        return rv;
    return start_preparing(quorum, commit, event, update);
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
        answer_committed(quorum, commit, update);
        remove_commit(quorum, commit);
        return 0;
    }
    if (rv != 0)
        return rv;
    commit->id = id;
    commit->phase = COMMIT_SETTLING;
    set_retry(quorum, commit, event->time, update);
    update->again = true; /* the freeze must be applied before the overlay is read */
    return 0;
}

/* MINTING */

static void send_mint(struct commit *commit, struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 5);
    replica_pack_id(&payload, &commit->volume);
    replica_pack_id(&payload, &commit->id);
    replica_pack_uint(&payload, commit->epoch);
    replica_pack_uint(&payload, commit->config_phase);
    replica_pack_uint(&payload, commit->stamp.hlc);
    gossip_update_send(update, &commit->coordinator, GOSSIP_ROOM_QUORUM, QUORUM_MINT, &payload, true);
    replica_buffer_close(&payload);
}

/* This store if it may, else a prepared voter that seems alive, else any prepared one; never the one that did not answer if there is
 * another. */
static bool choose_coordinator(struct gossip_quorum *quorum, struct commit *commit,
                               const struct gossip_configuration *configuration)
{
    struct replica_id before = commit->coordinator;
    int best = -1, best_score = -1;
    size_t start = gossip_random_below(&quorum->random, configuration->voters_n);
    for (size_t k = 0; k < configuration->voters_n; k++) {
        size_t i = (start + k) % configuration->voters_n;
        const struct replica_id *voter = &configuration->voters[i];
        int score;
        if (!commit->answers[i].ready)
            continue;
        score = (replica_id_equal(voter, &before) ? 0 : 4) +
                (gossip_member_is_alive(quorum->member, voter) ? 2 : 0) +
                (replica_id_equal(voter, &quorum->table->self) ? 1 : 0);
        if (score > best_score) {
            best_score = score;
            best = (int)i;
        }
    }
    if (best >= 0)
        commit->coordinator = configuration->voters[best];
    return best >= 0;
}

static int stamp_and_mint(struct gossip_quorum *quorum, struct commit *commit,
                          const struct gossip_configuration *configuration,
                          const struct gossip_quorum_event *event, struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    int rv = 0;
    if (replica_stamp_is_zero(&commit->stamp)) {
        uint64_t clocks[GOSSIP_VOTERS_MAX], highest = 0;
        size_t n = 0;
        for (size_t i = 0; i < configuration->voters_n; i++) {
            if (!commit->answers[i].ready)
                continue;
            clocks[n++] = commit->answers[i].clock_ms;
            if (commit->answers[i].hlc > highest)
                highest = commit->answers[i].hlc;
        }
        commit->stamp.hlc = replica_hlc_stamp(highest, event->time.wall_ms, clocks, n);
        commit->stamp.commit = commit->id;
        if (view != NULL)
            rv = replica_view_stamp(view, &commit->stamp, &update->log);
        if (rv != 0)
            return rv;
    }
    if (!choose_coordinator(quorum, commit, configuration))
        return 0;
    commit->phase = COMMIT_MINTING;
    send_mint(commit, update); /* durable: leaves once the stamp is synced */
    set_retry(quorum, commit, event->time, update);
    return 0;
}

/* Answers of voters */

static int weigh_answers(struct gossip_quorum *quorum, struct commit *commit,
                         const struct gossip_configuration *configuration,
                         const struct gossip_quorum_event *event, struct gossip_update *update)
{
    size_t ready = 0, refused = 0;
    int code = 0;
    for (size_t i = 0; i < configuration->voters_n; i++) {
        ready += commit->answers[i].ready;
        if (commit->answers[i].refused) {
            refused++;
            code = commit->answers[i].code;
        }
    }
    if (ready >= quorum_majority(configuration))
        return stamp_and_mint(quorum, commit, configuration, event, update);
    if (replica_stamp_is_zero(&commit->stamp) &&
        refused > configuration->voters_n - quorum_majority(configuration))
        return fail(quorum, commit, code, replica_error_text(code), update);
    return 0;
}

static int receive_prepared(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                            struct replica_pack_reader *reader, struct commit *commit,
                            const struct gossip_volume *volume, struct gossip_update *update)
{
    struct commit_answer *answer;
    struct replica_dot dot;
    uint64_t epoch, phase, verdict, hlc, clock_ms, missing;
    int64_t code;
    int voter = quorum_voter_index(&volume->configuration, &event->message.from->store);
    replica_pack_read_uint(reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(reader, UINT32_MAX, &phase);
    replica_pack_read_uint(reader, UINT32_MAX, &verdict);
    replica_pack_read_int(reader, &code);
    replica_pack_read_uint(reader, UINT64_MAX, &hlc);
    replica_pack_read_uint(reader, (uint64_t)1 << 48, &clock_ms);
    replica_pack_read_dot(reader, &dot);
    replica_pack_read_uint(reader, UINT64_MAX, &missing);
    if (reader->failed || voter < 0 || code > 0 || code < INT32_MIN)
        return REPLICA_E_MALFORMED;
    if (commit->phase == COMMIT_MINTING && verdict == QUORUM_VERDICT_READY && epoch == commit->epoch &&
        phase == (uint64_t)commit->config_phase)
        commit->answers[voter].ready = true; /* one more that can mint it */
    if (commit->phase != COMMIT_PREPARING || epoch != commit->epoch ||
        phase != (uint64_t)commit->config_phase)
        return 0;
    answer = &commit->answers[voter];
    if (verdict == QUORUM_VERDICT_KNOWN && !replica_stamp_is_zero(&commit->stamp)) {
        /* Minted in an earlier try: that coordinator or this voter drives it on. */
        commit->coordinator = event->message.from->store;
        commit->phase = COMMIT_MINTING;
        send_mint(commit, update);
        set_retry(quorum, commit, event->time, update);
        return 0;
    }
    if (!answer->any || missing != answer->missing || verdict == QUORUM_VERDICT_READY)
        commit->progress_at_ms = event->time.now_ms;
    answer->any = true;
    answer->missing = missing;
    answer->ready = verdict == QUORUM_VERDICT_READY;
    answer->refused = verdict == QUORUM_VERDICT_REFUSED;
    answer->code = (int)code;
    answer->hlc = hlc;
    answer->clock_ms = clock_ms;
    return weigh_answers(quorum, commit, &volume->configuration, event, update);
}

static int receive_outcome(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                           struct replica_pack_reader *reader, struct commit *commit,
                           const struct gossip_volume *volume, struct gossip_update *update)
{
    struct replica_dot dot;
    int64_t code;
    replica_pack_read_int(reader, &code);
    replica_pack_read_dot(reader, &dot);
    if (reader->failed || quorum_voter_index(&volume->configuration, &event->message.from->store) < 0 ||
        (code == 0 && dot.seq == 0))
        return REPLICA_E_MALFORMED;
    if (commit->phase != COMMIT_MINTING)
        return 0;
    if (code == 0)
        return succeed(quorum, commit, &dot, event->time, update);
    if (code == REPLICA_E_STALE)
        return start_preparing(quorum, commit, event, update);
    return 0; /* not able yet: the retry asks again */
}

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
    if (commit == NULL || volume == NULL || commit->again || !replica_id_equal(&commit->volume, &volume_id))
        return 0;
    rv = event->message.type == QUORUM_PREPARED
             ? receive_prepared(quorum, event, &reader, commit, volume, update)
             : receive_outcome(quorum, event, &reader, commit, volume, update);
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
            return start_preparing(quorum, commit, event, update);
        send_prepares(commit, &volume->configuration, update);
    } else if (commit->phase == COMMIT_MINTING && volume != NULL) {
        if (choose_coordinator(quorum, commit, &volume->configuration))
            send_mint(commit, update);
        else
            return start_preparing(quorum, commit, event, update);
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
        finish_if_applied(quorum, commit, event->time, update);
        return 0;
    }
    if (event->time.now_ms >= deadline_ms && commit->callers_n > 0) {
        if (replica_stamp_is_zero(&commit->stamp))
            return fail(quorum, commit, REPLICA_E_UNAVAILABLE,
                        "no majority of the volume's voters answered in time; nothing happened and the "
                        "drafts are kept",
                        update);
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

/* Its own id in a committed delta settles it. */
static int look_for_own(struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                        struct gossip_update *update)
{
    struct attached *attached = attached_find(quorum->table, &commit->volume);
    struct replica_dot dot;
    int rv;
    if (attached == NULL || commit->phase != COMMIT_MINTING)
        return 0;
    rv = replica_volume_find(attached->volume, &update->log, &commit->id,
                             &replica_volume_state(attached->volume)->committed, &dot);
    update->reads++;
    if (rv == REPLICA_E_NOTFOUND)
        return 0;
    return rv != 0 ? rv : succeed(quorum, commit, &dot, time, update);
}

static int advance(struct gossip_quorum *quorum, struct commit *commit,
                   const struct gossip_quorum_event *event, struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    if (commit->again)
        return next_commit(quorum, commit, event, update);
    if (view != NULL && commit->phase == COMMIT_SETTLING && commit->draft == 0)
        return settle_next(quorum, commit, view, update);
    if (view != NULL && commit->phase == COMMIT_BUILDING)
        return build(quorum, commit, view, event, update);
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
    commit = find_commit(quorum, &event->view);
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

static int settled(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                   struct gossip_update *update)
{
    struct commit *commit = find_commit(quorum, &event->view);
    struct replica_view *view = replica_view_find(quorum->views, &event->view);
    int rv;
    if (view == NULL || commit == NULL || commit->phase != COMMIT_SETTLING || commit->draft != event->draft)
        return 0;
    if (event->code == REPLICA_E_NOTFOUND) { /* lost with the power before it was synced */
        size_t lost;
        rv = fail(quorum, commit, REPLICA_E_IO,
                  "what was written to a file since the last commit was lost with the power; it is as it was "
                  "before, the other changes "
                  "are kept: commit again",
                  update);
        return rv != 0 ? rv : replica_view_forget_draft(view, event->draft, &update->log, &lost);
    }
    if (event->code != 0)
        return fail(quorum, commit, event->code,
                    "a changed file could not be read while committing; nothing happened", update);
    rv = replica_view_settle(view, event->draft, &event->blob, event->size, &update->log);
    if (rv != 0)
        return rv;
    commit->draft = 0;
    update->again = true;
    return 0;
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
        if (find_commit(quorum, &info->options.id) != NULL)
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
        set_retry(quorum, commit, event->time, update);
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
        return settled(quorum, event, update);
    if (event->kind == GOSSIP_QUORUM_EVENT_CANCEL)
        cancel(quorum, event->token);
    for (size_t i = quorum->commits_n; i > 0 && rv == 0; i--) {
        struct commit *commit = quorum->commits[i - 1];
        if (event->kind == GOSSIP_QUORUM_EVENT_COMMITTED && replica_id_equal(&commit->volume, &event->volume))
            rv = look_for_own(quorum, commit, event->time, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_TIMER)
            rv = advance(quorum, commit, event, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_APPLIED && commit->phase == COMMIT_APPLYING &&
                 !commit->again)
            finish_if_applied(quorum, commit, event->time, update);
    }
    return rv;
}
