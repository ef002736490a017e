/* What a voter does for writers and readers. design.md §3: a voter answers prepare once it holds the closure; acks a dot, and with it
 * every earlier one of its actor, only when it is contiguous, its dependencies are held and its closure was checked here; and what it
 * says about what it holds leaves only when it is durable. */
#include "quorum.h"

#include "replica/error.h"
#include "replica/limit.h"

#include <stdlib.h>
#include <string.h>

/* A proposal whose closure is being brought here for a writer. */
struct prepare {
    struct replica_id commit, writer;
    struct replica_closure closure;
    uint64_t report_at_ms;
    struct replica_limit_check *limit; /* NULL: within the limits */
    bool done;
};

/* A stored delta whose closure is being checked on the way to being held. */
struct ahead {
    struct replica_dot dot;
    struct replica_id commit;
    struct replica_closure closure;
};

struct waiter {
    struct replica_id commit, writer;
    struct replica_dot dot;
};

struct follower {
    struct replica_id reader;
    uint64_t round;
    struct replica_vector target;
};

struct attached_voting {
    struct prepare *prepares;
    size_t prepares_n, prepares_capacity;
    struct replica_id *prepared; /* ring of commit ids whose closure was complete here, in the epoch below */
    size_t prepared_n, prepared_next;
    uint64_t prepared_epoch;
    struct ahead *aheads;
    size_t aheads_n;
    struct waiter *waiters;
    size_t waiters_n;
    struct follower *followers;
    size_t followers_n;
    uint64_t announce_at_ms; /* tells other voters what is held but not known to be committed */
    bool busy;               /* closures are left to scan */
};

static void close_prepare(struct prepare *prepare)
{
    replica_closure_close(&prepare->closure);
    free(prepare->limit);
}

void gossip_quorum_close_voting(struct attached_voting *voting)
{
    if (voting == NULL)
        return;
    for (size_t i = 0; i < voting->prepares_n; i++)
        close_prepare(&voting->prepares[i]);
    for (size_t i = 0; i < voting->aheads_n; i++)
        replica_closure_close(&voting->aheads[i].closure);
    free(voting->prepares);
    free(voting->prepared);
    free(voting->aheads);
    free(voting->waiters);
    free(voting->followers);
    free(voting);
}

static struct attached_voting *voting_of(struct attached *attached)
{
    struct attached_voting *voting = attached->voting;
    if (voting != NULL)
        return voting;
    voting = calloc(1, sizeof *voting);
    if (voting == NULL)
        return NULL;
    voting->prepared = calloc(PREPARED_MAX, sizeof voting->prepared[0]);
    voting->aheads = calloc(AHEAD_MAX, sizeof voting->aheads[0]);
    voting->waiters = calloc(WAITERS_MAX, sizeof voting->waiters[0]);
    voting->followers = calloc(FOLLOWERS_MAX, sizeof voting->followers[0]);
    if (!voting->prepared || !voting->aheads || !voting->waiters || !voting->followers) {
        gossip_quorum_close_voting(voting);
        return NULL;
    }
    attached->voting = voting;
    return voting;
}

static bool votes(const struct gossip_quorum *quorum, const struct gossip_volume *volume)
{
    return !quorum->failed && quorum->self.role == GOSSIP_ROLE_VOTER &&
           quorum_voter_index(&volume->configuration, &quorum->table->self) >= 0;
}

/* Counting */

static struct attached_peer *peer_of(struct attached *attached, const struct replica_id *store)
{
    for (size_t i = 0; i < attached->peers_n; i++)
        if (replica_id_equal(&attached->peers[i].store, store))
            return &attached->peers[i];
    if (attached->peers_n == GOSSIP_VOTERS_MAX)
        return NULL;
    memset(&attached->peers[attached->peers_n], 0, sizeof attached->peers[0]);
    attached->peers[attached->peers_n].store = *store;
    return &attached->peers[attached->peers_n++];
}

/* The seq of actor that a majority holds: the majority-th largest. */
static uint64_t majority_seq(const struct gossip_quorum *quorum, const struct attached *attached,
                             const struct gossip_configuration *configuration, const struct replica_actor *actor)
{
    uint64_t seqs[GOSSIP_VOTERS_MAX] = {0};
    size_t n = 0;
    for (size_t i = 0; i < configuration->voters_n; i++) {
        const struct replica_id *voter = &configuration->voters[i];
        uint64_t seq = 0;
        if (replica_id_equal(voter, &quorum->table->self))
            seq = replica_vector_get(&attached->durable, actor);
        for (size_t j = 0; j < attached->peers_n; j++)
            if (replica_id_equal(&attached->peers[j].store, voter) && attached->peers[j].epoch == configuration->epoch &&
                attached->peers[j].phase == configuration->phase)
                seq = replica_vector_get(&attached->peers[j].held, actor);
        for (size_t at = n++; ; at--) { /* insertion, descending */
            if (at == 0 || seqs[at - 1] >= seq) {
                seqs[at] = seq;
                break;
            }
            seqs[at] = seqs[at - 1];
        }
    }
    return seqs[quorum_majority(configuration) - 1];
}

static int count(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_volume *volume, struct gossip_update *update)
{
    struct replica_vector committed = {.n = 0}, actors = attached->durable;
    bool rose = false;
    int rv = 0;
    for (size_t i = 0; i < attached->peers_n && rv == 0; i++)
        rv = replica_vector_join(&actors, &attached->peers[i].held);
    for (size_t i = 0; i < actors.n && rv == 0; i++) {
        uint64_t seq = majority_seq(quorum, attached, &volume->configuration, &actors.entries[i].actor);
        if (seq > 0)
            rv = replica_vector_set(&committed, &actors.entries[i].actor, seq);
    }
    if (rv == 0)
        rv = replica_volume_commit(attached->volume, &committed, &update->log, &rose);
    if (rose)
        gossip_update_note(update, GOSSIP_NOTE_COMMITTED, &attached->id, NULL, NULL);
    return rv;
}

int quorum_note_held(struct gossip_quorum *quorum, struct attached *attached, const struct replica_id *store, uint64_t epoch,
                     enum gossip_phase phase, const struct replica_vector *held, struct gossip_update *update)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &attached->id);
    struct attached_peer *peer;
    if (volume == NULL || quorum_voter_index(&volume->configuration, store) < 0)
        return 0;
    if (replica_id_equal(store, &quorum->table->self))
        return 0; /* of itself it counts what is durable */
    peer = peer_of(attached, store);
    if (peer == NULL)
        return 0;
    if (peer->epoch != epoch || peer->phase != phase) {
        peer->epoch = epoch;
        peer->phase = phase;
        peer->held.n = 0;
    }
    if (replica_vector_join(&peer->held, held) != 0)
        return REPLICA_E_MALFORMED;
    return count(quorum, attached, volume, update);
}

/* Telling */

static void send_held(const struct attached *attached, const struct gossip_configuration *configuration, const struct replica_id *to,
                      uint64_t round, struct gossip_update *update)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 6);
    replica_pack_id(&payload, &attached->id);
    replica_pack_uint(&payload, round);
    replica_pack_uint(&payload, configuration->epoch);
    replica_pack_uint(&payload, configuration->phase);
    replica_vector_pack(&payload, &state->held);
    replica_vector_pack(&payload, &state->committed);
    gossip_update_send(update, to, GOSSIP_ROOM_QUORUM, QUORUM_HELD, &payload, true);
    replica_buffer_close(&payload);
}

static void send_prepared(struct gossip_quorum *quorum, const struct attached *attached, const struct gossip_configuration *configuration,
                          const struct replica_id *commit, const struct replica_id *writer, enum quorum_verdict verdict, int code,
                          const struct replica_dot *dot, uint64_t missing, struct gossip_time time, struct gossip_update *update)
{
    struct replica_dot none = {.seq = 0};
    struct replica_buffer payload;
    (void)quorum;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 11);
    replica_pack_id(&payload, &attached->id);
    replica_pack_id(&payload, commit);
    replica_pack_uint(&payload, configuration->epoch);
    replica_pack_uint(&payload, configuration->phase);
    replica_pack_uint(&payload, verdict);
    replica_pack_int(&payload, code);
    replica_pack_uint(&payload, replica_volume_state(attached->volume)->hlc_high);
    replica_pack_uint(&payload, time.wall_ms);
    replica_pack_dot(&payload, dot != NULL ? dot : &none);
    replica_pack_uint(&payload, missing);
    gossip_update_send(update, writer, GOSSIP_ROOM_QUORUM, QUORUM_PREPARED, &payload,
                       verdict == QUORUM_VERDICT_READY || verdict == QUORUM_VERDICT_KNOWN);
    replica_buffer_close(&payload);
}

static void send_outcome(const struct attached *attached, const struct replica_id *commit, const struct replica_id *writer, int code,
                         const struct replica_dot *dot, struct gossip_update *update)
{
    struct replica_dot none = {.seq = 0};
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 5);
    replica_pack_id(&payload, &attached->id);
    replica_pack_id(&payload, commit);
    replica_pack_int(&payload, code);
    replica_pack_dot(&payload, dot != NULL ? dot : &none);
    gossip_update_send(update, writer, GOSSIP_ROOM_QUORUM, QUORUM_OUTCOME, &payload, code == 0);
    replica_buffer_close(&payload);
}

/* Closures */

struct want_context {
    struct gossip_quorum *quorum;
    struct attached *attached;
    struct replica_id commit, source;
    struct gossip_update *update;
};

static void want(void *context, const struct replica_content_id *content, bool missing)
{
    struct want_context *c = context;
    if (content->length == 0)
        return;
    replica_volume_pin(c->attached->volume, &c->commit, content, &c->update->log);
    if (missing)
        gossip_update_note(c->update, GOSSIP_NOTE_WANT, &c->attached->id, &c->source, content);
}

static int scan(struct gossip_quorum *quorum, struct attached *attached, struct replica_closure *closure, const struct replica_id *source,
                struct gossip_update *update)
{
    struct want_context context = {
        .quorum = quorum, .attached = attached, .commit = closure->delta.commit, .source = *source, .update = update};
    int rv;
    if (closure->scanned)
        return 0;
    rv = replica_closure_scan(closure, quorum->table->contents, SCAN_OPS_MAX, want, &context);
    update->reads += SCAN_OPS_MAX / 4;
    return rv;
}

static bool is_prepared(const struct attached_voting *voting, uint64_t epoch, const struct replica_id *commit)
{
    if (voting->prepared_epoch != epoch)
        return false;
    for (size_t i = 0; i < voting->prepared_n; i++) { /* newest first: that is what is asked for */
        size_t at = (voting->prepared_next + PREPARED_MAX - 1 - i) % PREPARED_MAX;
        if (replica_id_equal(&voting->prepared[at], commit))
            return true;
    }
    return false;
}

static void remember_prepared(struct attached_voting *voting, uint64_t epoch, const struct replica_id *commit)
{
    if (voting->prepared_epoch != epoch)
        voting->prepared_n = voting->prepared_next = 0;
    voting->prepared_epoch = epoch;
    if (is_prepared(voting, epoch, commit))
        return;
    voting->prepared[voting->prepared_next] = *commit;
    voting->prepared_next = (voting->prepared_next + 1) % PREPARED_MAX;
    if (voting->prepared_n < PREPARED_MAX)
        voting->prepared_n++;
}

/* Prepare */

static struct prepare *find_prepare(struct attached_voting *voting, const struct replica_id *commit)
{
    for (size_t i = 0; i < voting->prepares_n; i++)
        if (replica_id_equal(&voting->prepares[i].commit, commit))
            return &voting->prepares[i];
    return NULL;
}

static int add_prepare(struct attached_voting *voting, const struct replica_delta *delta, const uint8_t *record, size_t n,
                       struct prepare **ret_prepare)
{
    struct prepare *prepare;
    int rv;
    if (voting->prepares_n == PREPARES_MAX)
        return REPLICA_E_BUSY;
    if (voting->prepares_n == voting->prepares_capacity) {
        size_t capacity = voting->prepares_capacity == 0 ? 16 : voting->prepares_capacity * 2;
        prepare = realloc(voting->prepares, capacity * sizeof *prepare);
        if (prepare == NULL)
            return REPLICA_E_NOMEM;
        voting->prepares = prepare;
        voting->prepares_capacity = capacity;
    }
    prepare = &voting->prepares[voting->prepares_n];
    memset(prepare, 0, sizeof *prepare);
    rv = replica_closure_init(&prepare->closure, record, n);
    if (rv != 0)
        return rv;
    prepare->commit = delta->commit;
    prepare->writer = delta->node;
    voting->prepares_n++;
    *ret_prepare = prepare;
    return 0;
}

static void drop_prepare(struct attached_voting *voting, size_t index)
{
    close_prepare(&voting->prepares[index]);
    voting->prepares[index] = voting->prepares[--voting->prepares_n];
}

static struct replica_limits limits_of(const struct gossip_volume *volume)
{
    return volume->version == 1 ? (struct replica_limits){.inodes_max = GOSSIP_VERSION1_INODES_MAX}
                                : (struct replica_limits){.children_max = GOSSIP_VERSION2_CHILDREN_MAX};
}

/* What can be said at once; whether it would be too many files is found out from the op list. */
static int refusal(const struct gossip_volume *volume, const struct replica_delta *delta)
{
    if (volume->deleted)
        return REPLICA_E_DELETED;
    if (delta->ops == NULL && delta->ops_content.length > REPLICA_OPS_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    return 0;
}

static int start_limit_check(const struct attached *attached, const struct gossip_volume *volume, struct prepare *prepare)
{
    struct replica_limits limits = limits_of(volume);
    if (!replica_limit_may_exceed(&limits, attached->volume, prepare->closure.delta.op_count))
        return 0;
    prepare->limit = calloc(1, sizeof *prepare->limit);
    return prepare->limit == NULL ? REPLICA_E_NOMEM : 0;
}

/* Of a closure that is filled, so that the op list is here. */
static int check_limit(const struct attached *attached, const struct gossip_volume *volume, struct prepare *prepare,
                       struct gossip_update *update)
{
    struct replica_limits limits = limits_of(volume);
    int rv;
    if (prepare->limit == NULL)
        return 0;
    rv = replica_limit_check(prepare->limit, &limits, attached->volume, prepare->closure.list, prepare->closure.list_size, SCAN_OPS_MAX,
                             &update->reads);
    if (rv == 0) {
        free(prepare->limit);
        prepare->limit = NULL;
    }
    return rv;
}

/* Scans on; answers the writer when the closure is here, or about once a second that it is not yet. */
static int advance_prepare(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_volume *volume,
                           struct prepare *prepare, struct gossip_time time, struct gossip_update *update)
{
    int rv = scan(quorum, attached, &prepare->closure, &prepare->writer, update);
    if (rv == 0 && replica_closure_is_filled(&prepare->closure))
        rv = check_limit(attached, volume, prepare, update);
    if (rv == REPLICA_E_AGAIN) {
        attached->voting->busy = true;
        update->again = true;
        return 0;
    }
    if (rv == REPLICA_E_MALFORMED || rv == REPLICA_E_TOOBIG || rv == REPLICA_E_NOSPACE) {
        send_prepared(quorum, attached, &volume->configuration, &prepare->commit, &prepare->writer, QUORUM_VERDICT_REFUSED, rv, NULL, 0, time,
                      update);
        prepare->done = true;
        return 0;
    }
    if (rv != 0)
        return rv;
    if (replica_closure_is_filled(&prepare->closure)) {
        remember_prepared(attached->voting, volume->configuration.epoch, &prepare->commit);
        send_prepared(quorum, attached, &volume->configuration, &prepare->commit, &prepare->writer, QUORUM_VERDICT_READY, 0, NULL, 0, time,
                      update);
        prepare->done = true;
    } else if (time.now_ms >= prepare->report_at_ms) {
        send_prepared(quorum, attached, &volume->configuration, &prepare->commit, &prepare->writer, QUORUM_VERDICT_PENDING, 0, NULL,
                      prepare->closure.missing_n, time, update);
        prepare->report_at_ms = time.now_ms + 1000;
    }
    return 0;
}

static void sweep_prepares(struct attached_voting *voting)
{
    for (size_t i = voting->prepares_n; i > 0; i--)
        if (voting->prepares[i - 1].done)
            drop_prepare(voting, i - 1);
}

static int ingest_carried(struct gossip_quorum *quorum, const struct replica_delta *delta)
{
    for (size_t i = 0; i < delta->carried_n; i++) {
        struct replica_content_id id;
        int rv;
        if (replica_contents_state(quorum->table->contents, &delta->carried[i].id) >= REPLICA_CONTENTS_FILLED)
            continue;
        rv = replica_contents_ingest(quorum->table->contents, delta->carried[i].data, (size_t)delta->carried[i].id.length, &id);
        if (rv != 0)
            return rv;
        if (!replica_content_id_equal(&id, &delta->carried[i].id))
            return REPLICA_E_MISMATCH;
    }
    return 0;
}

static int start_prepare(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_volume *volume,
                         const struct replica_delta *delta, const uint8_t *record, size_t n, struct gossip_time time,
                         struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    struct prepare *prepare = find_prepare(voting, &delta->commit);
    int rv = 0;
    if (prepare == NULL) {
        rv = refusal(volume, delta);
        if (rv == 0)
            rv = replica_volume_propose(attached->volume, record, n, &update->log);
        if (rv == 0)
            rv = ingest_carried(quorum, delta);
        if (rv == 0)
            rv = add_prepare(voting, delta, record, n, &prepare);
        if (rv == 0)
            rv = start_limit_check(attached, volume, prepare);
    }
    if (rv == REPLICA_E_IO || rv == REPLICA_E_NOMEM || rv == REPLICA_E_CORRUPT)
        return rv;
    if (rv != 0) {
        enum quorum_verdict verdict = rv == REPLICA_E_BUSY ? QUORUM_VERDICT_PENDING : QUORUM_VERDICT_REFUSED;
        send_prepared(quorum, attached, &volume->configuration, &delta->commit, &delta->node, verdict, rv, NULL, 0, time, update);
        return 0;
    }
    prepare->report_at_ms = 0;
    rv = advance_prepare(quorum, attached, volume, prepare, time, update);
    sweep_prepares(voting);
    return rv;
}

static int receive_prepare(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, struct replica_pack_reader *reader,
                           struct attached *attached, const struct gossip_volume *volume, struct gossip_update *update)
{
    const struct gossip_configuration *configuration = &volume->configuration;
    const uint8_t *record;
    struct replica_delta delta;
    struct replica_dot dot;
    uint64_t epoch, phase;
    size_t n;
    int rv;
    replica_pack_read_uint(reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(reader, UINT32_MAX, &phase);
    replica_pack_read_bin(reader, REPLICA_DELTA_SIZE_MAX, &record, &n);
    if (reader->failed || replica_delta_decode(record, n, &delta) != 0 || !replica_id_equal(&delta.volume, &attached->id) ||
        !replica_id_equal(&delta.node, &event->message.from->store) || delta.dot.seq != 0)
        return REPLICA_E_MALFORMED;
    if (!gossip_principal_may(event->message.from, volume->name, true)) {
        send_prepared(quorum, attached, configuration, &delta.commit, &delta.node, QUORUM_VERDICT_REFUSED, REPLICA_E_DENIED, NULL, 0,
                      event->time, update);
        return 0;
    }
    if (epoch != configuration->epoch || phase != configuration->phase) {
        send_prepared(quorum, attached, configuration, &delta.commit, &delta.node, QUORUM_VERDICT_STALE, 0, NULL, 0, event->time, update);
        return 0;
    }
    rv = replica_volume_find(attached->volume, &update->log, &delta.commit, &replica_volume_state(attached->volume)->held, &dot);
    if (rv == 0) {
        send_prepared(quorum, attached, configuration, &delta.commit, &delta.node, QUORUM_VERDICT_KNOWN, 0, &dot, 0, event->time, update);
        return 0;
    }
    if (rv != REPLICA_E_NOTFOUND)
        return rv;
    return start_prepare(quorum, attached, volume, &delta, record, n, event->time, update);
}

/* Mint and replicate */

static void replicate(struct gossip_quorum *quorum, const struct attached *attached, const struct gossip_configuration *configuration,
                      const uint8_t *record, size_t n, struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &attached->id);
    replica_pack_uint(&payload, configuration->epoch);
    replica_pack_uint(&payload, configuration->phase);
    replica_pack_bin(&payload, record, n);
    for (size_t i = 0; i < configuration->voters_n; i++)
        if (!replica_id_equal(&configuration->voters[i], &quorum->table->self))
            gossip_update_send(update, &configuration->voters[i], GOSSIP_ROOM_QUORUM, QUORUM_REPLICATE, &payload, true);
    replica_buffer_close(&payload);
}

static void add_waiter(struct attached_voting *voting, const struct replica_id *commit, const struct replica_id *writer,
                       const struct replica_dot *dot)
{
    for (size_t i = 0; i < voting->waiters_n; i++)
        if (replica_id_equal(&voting->waiters[i].commit, commit) && replica_id_equal(&voting->waiters[i].writer, writer))
            return;
    if (voting->waiters_n == WAITERS_MAX)
        return;
    voting->waiters[voting->waiters_n++] = (struct waiter){.commit = *commit, .writer = *writer, .dot = *dot};
}

static void tell_waiters(struct attached *attached, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    const struct replica_vector *committed = &replica_volume_state(attached->volume)->committed;
    for (size_t i = voting->waiters_n; i > 0; i--) {
        const struct waiter *waiter = &voting->waiters[i - 1];
        if (!replica_vector_covers_dot(committed, &waiter->dot))
            continue;
        send_outcome(attached, &waiter->commit, &waiter->writer, 0, &waiter->dot, update);
        voting->waiters[i - 1] = voting->waiters[--voting->waiters_n];
    }
}

static int replicate_again(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_configuration *configuration,
                           const struct replica_dot *dot, struct gossip_update *update)
{
    struct replica_buffer record;
    int rv;
    replica_buffer_init(&record);
    rv = replica_volume_read(attached->volume, &update->log, dot, &record);
    if (rv == 0)
        replicate(quorum, attached, configuration, record.data, record.size, update);
    replica_buffer_close(&record);
    return rv;
}

static int mint(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, struct attached *attached,
                const struct gossip_configuration *configuration, const struct replica_id *commit, uint64_t hlc,
                struct gossip_update *update)
{
    struct replica_actor actor = {.store = quorum->table->self, .epoch = configuration->epoch};
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    const struct replica_id *writer = &event->message.from->store;
    struct replica_buffer proposal, record;
    struct replica_delta delta;
    struct replica_dot dot;
    int rv;
    replica_buffer_init(&proposal);
    replica_buffer_init(&record);
    rv = replica_volume_proposal(attached->volume, &update->log, commit, &proposal);
    if (rv == REPLICA_E_NOTFOUND || !is_prepared(attached->voting, configuration->epoch, commit)) {
        send_outcome(attached, commit, writer, REPLICA_E_STALE, NULL, update); /* prepare again */
        rv = 0;
        goto out;
    }
    if (rv == 0 && replica_delta_decode(proposal.data, proposal.size, &delta) != 0)
        rv = REPLICA_E_CORRUPT;
    if (rv != 0)
        goto out;
    if (!replica_id_equal(&delta.node, writer)) {
        rv = REPLICA_E_MALFORMED;
        goto out;
    }
    if (!replica_vector_covers(&state->held, &delta.deps) ||
        replica_vector_get(&state->held, &actor) != replica_vector_get(&state->stored, &actor)) {
        if (replica_vector_join(&attached->target, &delta.deps) == 0)
            gossip_update_note(update, GOSSIP_NOTE_PULL, &attached->id, NULL, NULL);
        send_outcome(attached, commit, writer, REPLICA_E_AGAIN, NULL, update);
        goto out;
    }
    rv = replica_volume_mint(attached->volume, &actor, proposal.data, proposal.size, hlc, &update->log, &dot, &record);
    if (rv == 0)
        rv = replica_volume_hold(attached->volume, &dot);
    if (rv != 0)
        goto out;
    attached_mark(attached, event->batch);
    add_waiter(attached->voting, commit, writer, &dot);
    replicate(quorum, attached, configuration, record.data, record.size, update);
    gossip_update_note(update, GOSSIP_NOTE_STORED, &attached->id, NULL, NULL);
out:
    replica_buffer_close(&proposal);
    replica_buffer_close(&record);
    return rv;
}

static int receive_mint(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, struct replica_pack_reader *reader,
                        struct attached *attached, const struct gossip_volume *volume, struct gossip_update *update)
{
    const struct gossip_configuration *configuration = &volume->configuration;
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    const struct replica_id *writer = &event->message.from->store;
    struct replica_id commit;
    struct replica_dot dot;
    uint64_t epoch, phase, hlc;
    int rv;
    replica_pack_read_id(reader, &commit);
    replica_pack_read_uint(reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(reader, UINT32_MAX, &phase);
    replica_pack_read_uint(reader, UINT64_MAX, &hlc);
    if (reader->failed || hlc == 0)
        return REPLICA_E_MALFORMED;
    if (!gossip_principal_may(event->message.from, volume->name, true))
        return REPLICA_E_DENIED;
    rv = replica_volume_find(attached->volume, &update->log, &commit, &state->held, &dot);
    if (rv == 0) { /* known: driven on, never minted again */
        if (replica_vector_covers_dot(&state->committed, &dot)) {
            send_outcome(attached, &commit, writer, 0, &dot, update);
            return 0;
        }
        add_waiter(attached->voting, &commit, writer, &dot);
        return replicate_again(quorum, attached, configuration, &dot, update);
    }
    if (rv != REPLICA_E_NOTFOUND)
        return rv;
    if (epoch != configuration->epoch || phase != configuration->phase) {
        send_outcome(attached, &commit, writer, REPLICA_E_STALE, NULL, update);
        return 0;
    }
    return mint(quorum, event, attached, configuration, &commit, hlc, update);
}

static void add_follower(struct gossip_quorum *quorum, struct attached_voting *voting, const struct replica_id *reader, uint64_t round,
                         const struct replica_vector *target)
{
    struct follower follower = {.reader = *reader, .round = round, .target = *target};
    for (size_t i = 0; i < voting->followers_n; i++)
        if (replica_id_equal(&voting->followers[i].reader, reader) && voting->followers[i].round == round &&
            replica_vector_equal(&voting->followers[i].target, target))
            return;
    if (voting->followers_n < FOLLOWERS_MAX)
        voting->followers[voting->followers_n++] = follower;
    else
        voting->followers[gossip_random_below(&quorum->random, FOLLOWERS_MAX)] = follower;
}

static int receive_replicate(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, struct replica_pack_reader *reader,
                             struct attached *attached, const struct gossip_volume *volume, struct gossip_update *update)
{
    const struct gossip_configuration *configuration = &volume->configuration;
    const uint8_t *record;
    struct replica_delta delta;
    uint64_t epoch, phase;
    size_t n;
    int rv;
    replica_pack_read_uint(reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(reader, UINT32_MAX, &phase);
    replica_pack_read_bin(reader, REPLICA_DELTA_SIZE_MAX, &record, &n);
    if (reader->failed || quorum_voter_index(configuration, &event->message.from->store) < 0 || replica_delta_decode(record, n, &delta) != 0)
        return REPLICA_E_MALFORMED;
    if (epoch != configuration->epoch || phase != configuration->phase || delta.dot.actor.epoch != epoch ||
        quorum_voter_index(configuration, &delta.dot.actor.store) < 0)
        return 0;
    rv = gossip_sync_store(quorum->sync, attached, record, n, update);
    if (rv == REPLICA_E_EXISTS) { /* it may have missed our ack */
        if (replica_vector_covers_dot(&replica_volume_state(attached->volume)->held, &delta.dot))
            send_held(attached, configuration, &event->message.from->store, 0, update);
        return 0;
    }
    if (rv == 0 && !replica_id_equal(&delta.dot.actor.store, &event->message.from->store)) {
        struct replica_vector target = {.n = 0}; /* whoever drives a dot of somebody else counts too */
        (void)replica_vector_set(&target, &delta.dot.actor, delta.dot.seq);
        add_follower(quorum, attached->voting, &event->message.from->store, 0, &target);
    }
    if (rv == REPLICA_E_STALE) { /* a gap: bring what lies before */
        if (replica_vector_raise(&attached->target, &delta.dot.actor, delta.dot.seq) == 0)
            gossip_update_note(update, GOSSIP_NOTE_PULL, &attached->id, &event->message.from->store, NULL);
        return 0;
    }
    return rv;
}

/* Holding: from stored to held, in order, closures checked here. */

static bool ahead_has(const struct attached_voting *voting, const struct replica_dot *dot)
{
    for (size_t i = 0; i < voting->aheads_n; i++)
        if (voting->aheads[i].dot.seq == dot->seq && replica_actor_compare(&voting->aheads[i].dot.actor, &dot->actor) == 0)
            return true;
    return false;
}

static int start_aheads(struct attached *attached, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    for (size_t i = 0; i < state->stored.n; i++) {
        struct replica_dot dot = {.actor = state->stored.entries[i].actor};
        uint64_t from = replica_vector_get(&state->held, &dot.actor) + 1;
        for (dot.seq = from; dot.seq <= state->stored.entries[i].seq && dot.seq < from + AHEAD_MAX / 4; dot.seq++) {
            struct ahead *ahead;
            struct replica_buffer record;
            int rv;
            if (voting->aheads_n == AHEAD_MAX)
                return 0;
            if (ahead_has(voting, &dot))
                continue;
            ahead = &voting->aheads[voting->aheads_n];
            memset(ahead, 0, sizeof *ahead);
            replica_buffer_init(&record);
            rv = replica_volume_read(attached->volume, &update->log, &dot, &record);
            update->reads++;
            if (rv == 0)
                rv = replica_closure_init(&ahead->closure, record.data, record.size);
            replica_buffer_close(&record);
            if (rv != 0)
                return rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_MALFORMED ? REPLICA_E_CORRUPT : rv;
            ahead->dot = dot;
            ahead->commit = ahead->closure.delta.commit;
            voting->aheads_n++;
        }
    }
    return 0;
}

/* One ahead: scanned on; held if it is its actor's next and everything it needs is here. *ret_held: it was, and is gone. */
static int advance_ahead(struct gossip_quorum *quorum, struct attached *attached, uint64_t epoch, size_t index, struct gossip_update *update,
                         bool *ret_held)
{
    struct attached_voting *voting = attached->voting;
    struct ahead *ahead = &voting->aheads[index];
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    bool filled = is_prepared(voting, epoch, &ahead->commit);
    int rv;
    *ret_held = false;
    if (!filled) {
        rv = scan(quorum, attached, &ahead->closure, &ahead->dot.actor.store, update);
        if (rv == REPLICA_E_AGAIN) {
            voting->busy = true;
            return 0;
        }
        if (rv == REPLICA_E_MALFORMED || rv == REPLICA_E_TOOBIG)
            return 0; /* nobody honest would ack it: it blocks its actor here, and never commits by us */
        if (rv != 0)
            return rv;
        filled = replica_closure_is_filled(&ahead->closure);
    }
    if (!filled || replica_vector_get(&state->held, &ahead->dot.actor) + 1 != ahead->dot.seq ||
        !replica_vector_covers(&state->held, &ahead->closure.delta.deps))
        return 0;
    rv = replica_volume_hold(attached->volume, &ahead->dot);
    if (rv != 0)
        return rv;
    replica_closure_close(&ahead->closure);
    voting->aheads[index] = voting->aheads[--voting->aheads_n];
    *ret_held = true;
    return 0;
}

static void drop_held_aheads(struct attached *attached)
{
    struct attached_voting *voting = attached->voting;
    const struct replica_vector *held = &replica_volume_state(attached->volume)->held;
    for (size_t i = voting->aheads_n; i > 0; i--)
        if (replica_vector_covers_dot(held, &voting->aheads[i - 1].dot)) {
            replica_closure_close(&voting->aheads[i - 1].closure);
            voting->aheads[i - 1] = voting->aheads[--voting->aheads_n];
        }
}

static void tell_held(const struct gossip_configuration *configuration, struct attached *attached, const struct replica_vector *before,
                      struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    const struct replica_vector *held = &replica_volume_state(attached->volume)->held;
    for (size_t i = 0; i < held->n; i++) {
        const struct replica_actor *actor = &held->entries[i].actor;
        if (held->entries[i].seq > replica_vector_get(before, actor) && quorum_voter_index(configuration, &actor->store) >= 0)
            send_held(attached, configuration, &actor->store, 0, update);
    }
    for (size_t i = voting->followers_n; i > 0; i--)
        if (replica_vector_covers(held, &voting->followers[i - 1].target)) {
            send_held(attached, configuration, &voting->followers[i - 1].reader, voting->followers[i - 1].round, update);
            voting->followers[i - 1] = voting->followers[--voting->followers_n];
        }
}

static int hold_more(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_volume *volume, uint64_t batch,
                     struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    struct replica_vector before = replica_volume_state(attached->volume)->held;
    bool progress = true;
    int rv = 0;
    drop_held_aheads(attached);
    while (progress && rv == 0) {
        progress = false;
        rv = start_aheads(attached, update);
        for (size_t i = voting->aheads_n; i > 0 && rv == 0; i--) {
            bool held;
            if (i > voting->aheads_n)
                continue;
            rv = advance_ahead(quorum, attached, volume->configuration.epoch, i - 1, update, &held);
            progress = progress || held;
        }
        if (update->reads >= GOSSIP_STEP_READS_MAX) {
            voting->busy = true;
            break;
        }
    }
    if (voting->busy)
        update->again = true;
    if (rv != 0 || replica_vector_equal(&before, &replica_volume_state(attached->volume)->held))
        return rv;
    attached_mark(attached, batch);
    tell_held(&volume->configuration, attached, &before, update);
    return 0;
}

/* Reading */

static int receive_ask(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, struct replica_pack_reader *reader,
                       struct attached *attached, const struct gossip_volume *volume, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    const struct replica_id *from = &event->message.from->store;
    struct replica_vector target;
    struct replica_id holder;
    uint64_t round;
    replica_pack_read_uint(reader, UINT64_MAX, &round);
    replica_vector_read(reader, &target);
    replica_pack_read_id(reader, &holder);
    if (reader->failed)
        return REPLICA_E_MALFORMED;
    if (!gossip_principal_may(event->message.from, volume->name, false))
        return REPLICA_E_DENIED;
    send_held(attached, &volume->configuration, from, round, update);
    if (replica_vector_covers(&replica_volume_state(attached->volume)->held, &target))
        return 0;
    add_follower(quorum, voting, from, round, &target);
    for (size_t i = 0; i < target.n; i++) /* only of voters: an absurd vector must not make us pull for ever */
        if (quorum_voter_index(&volume->configuration, &target.entries[i].actor.store) >= 0 &&
            target.entries[i].actor.epoch <= volume->configuration.epoch)
            replica_vector_raise(&attached->target, &target.entries[i].actor, target.entries[i].seq);
    gossip_update_note(update, GOSSIP_NOTE_PULL, &attached->id, &holder, NULL);
    return 0;
}

/* The room's entries */

int quorum_voter_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, struct gossip_update *update)
{
    struct replica_pack_reader reader;
    const struct gossip_volume *volume;
    struct attached *attached;
    struct replica_id id;
    size_t n;
    int rv;
    replica_pack_reader_init(&reader, event->message.payload, event->message.size);
    replica_pack_read_array(&reader, 32, &n);
    replica_pack_read_id(&reader, &id);
    if (reader.failed || n < 4)
        return REPLICA_E_MALFORMED;
    volume = quorum_volume(quorum, &id);
    if (volume == NULL || !votes(quorum, volume))
        return 0; /* not known here yet, or not ours to answer: the asker asks again */
    rv = attached_open(quorum->table, &id, &update->log, &attached);
    if (rv != 0)
        return rv;
    if (voting_of(attached) == NULL)
        return REPLICA_E_NOMEM;
    switch (event->message.type) {
    case QUORUM_PREPARE:
        return receive_prepare(quorum, event, &reader, attached, volume, update);
    case QUORUM_MINT:
        return receive_mint(quorum, event, &reader, attached, volume, update);
    case QUORUM_REPLICATE:
        return receive_replicate(quorum, event, &reader, attached, volume, update);
    case QUORUM_OFFER:
        return quorum_offer_receive(quorum, event, &reader, volume, update);
    default:
        return receive_ask(quorum, event, &reader, attached, volume, update);
    }
}

/* Scans of prepares go on; reports are due. */
static int continue_prepares(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_volume *volume,
                             struct gossip_time time, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    for (size_t i = 0; i < voting->prepares_n; i++) {
        struct prepare *prepare = &voting->prepares[i];
        int rv;
        if (update->reads >= GOSSIP_STEP_READS_MAX) {
            voting->busy = true;
            update->again = true;
            break;
        }
        if (!prepare->done && (!prepare->closure.scanned || prepare->closure.missing_n == 0 || time.now_ms >= prepare->report_at_ms)) {
            rv = advance_prepare(quorum, attached, volume, prepare, time, update);
            if (rv != 0)
                return rv;
        }
        if (!prepare->done)
            gossip_update_wake(update, prepare->report_at_ms);
    }
    sweep_prepares(voting);
    return 0;
}

static void cross_off(struct attached_voting *voting, const struct replica_content_id *content)
{
    for (size_t i = 0; i < voting->prepares_n; i++)
        replica_closure_arrived(&voting->prepares[i].closure, content);
    for (size_t i = 0; i < voting->aheads_n; i++)
        replica_closure_arrived(&voting->aheads[i].closure, content);
}

/* An ack may be lost, or its receiver restart: what is held but not known to be committed is said again, once a second. */
static void announce(struct attached *attached, const struct gossip_volume *volume, const struct replica_id *self, struct gossip_time time,
                     struct gossip_update *update)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    if (replica_vector_covers(&state->committed, &state->held))
        return;
    if (time.now_ms >= attached->voting->announce_at_ms) {
        for (size_t i = 0; i < volume->configuration.voters_n; i++)
            if (!replica_id_equal(&volume->configuration.voters[i], self))
                send_held(attached, &volume->configuration, &volume->configuration.voters[i], 0, update);
        attached->voting->announce_at_ms = time.now_ms + ANNOUNCE_MS;
    }
    gossip_update_wake(update, attached->voting->announce_at_ms);
}

int quorum_voter_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, struct gossip_update *update)
{
    for (size_t i = 0; i < quorum->table->n; i++) {
        struct attached *attached = quorum->table->items[i];
        const struct gossip_volume *volume = quorum_volume(quorum, &attached->id);
        bool concerned = event->kind == GOSSIP_QUORUM_EVENT_TIMER || event->kind == GOSSIP_QUORUM_EVENT_START ||
                         event->kind == GOSSIP_QUORUM_EVENT_HAVE || event->kind == GOSSIP_QUORUM_EVENT_SYNCED ||
                         replica_id_equal(&attached->id, &event->volume);
        int rv = 0;
        if (!concerned || volume == NULL || !votes(quorum, volume))
            continue;
        if (voting_of(attached) == NULL)
            return REPLICA_E_NOMEM;
        if (event->kind == GOSSIP_QUORUM_EVENT_HAVE)
            cross_off(attached->voting, &event->content);
        if (event->kind == GOSSIP_QUORUM_EVENT_SYNCED)
            rv = count(quorum, attached, volume, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_COMMITTED)
            tell_waiters(attached, update);
        else {
            attached->voting->busy = false;
            rv = continue_prepares(quorum, attached, volume, event->time, update);
            if (rv == 0)
                rv = hold_more(quorum, attached, volume, event->batch, update);
            if (event->kind == GOSSIP_QUORUM_EVENT_TIMER)
                announce(attached, volume, &quorum->table->self, event->time, update);
        }
        if (rv != 0)
            return rv;
    }
    return 0;
}
