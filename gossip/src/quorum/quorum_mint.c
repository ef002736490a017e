/* Mint and replicate: a coordinator gives a prepared proposal its dot; voters store what a coordinator sends. */
#include "quorum/quorum_voting.h"

#include "replica/error.h"

#include "replica/hlc.h"

#include <stdlib.h>
#include <string.h>

#define STAMP_AHEAD_MS ((uint64_t)24 * 3600 * 1000) /* clocks that are wrong by hours are real */

static void send_outcome(const struct attached *attached, const struct replica_id *commit,
                         const struct replica_id *writer, int code, const struct replica_dot *dot,
                         struct gossip_update *update)
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

static void replicate(struct gossip_quorum *quorum, const struct attached *attached,
                      const struct gossip_configuration *configuration, const uint8_t *record, size_t n,
                      struct gossip_update *update)
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
            gossip_update_send(update, &configuration->voters[i], GOSSIP_ROOM_QUORUM, QUORUM_REPLICATE,
                               &payload, true);
    replica_buffer_close(&payload);
}

static void add_waiter(struct attached_voting *voting, const struct replica_id *commit,
                       const struct replica_id *writer, const struct replica_dot *dot)
{
    for (size_t i = 0; i < voting->waiters_n; i++)
        if (replica_id_equal(&voting->waiters[i].commit, commit) &&
            replica_id_equal(&voting->waiters[i].writer, writer))
            return;
    if (voting->waiters_n == WAITERS_MAX)
        return;
    voting->waiters[voting->waiters_n++] = (struct waiter){.commit = *commit, .writer = *writer, .dot = *dot};
}

void voting_tell_waiters(struct attached *attached, struct gossip_update *update)
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

static int replicate_again(struct gossip_quorum *quorum, struct attached *attached,
                           const struct gossip_configuration *configuration, const struct replica_dot *dot,
                           struct gossip_update *update)
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

/* Far above any that the rule for stamps can give, whatever one wrong clock says, unless this voter lags behind by as much;
 * without it one request could use up all the stamps that there are. Bytes that are stamped already are never refused. */
static uint64_t stamp_max(const struct replica_volume_state *state, struct gossip_time time)
{
    uint64_t clock = replica_hlc_from_ms(time.wall_ms), ahead = replica_hlc_from_ms(STAMP_AHEAD_MS);
    uint64_t base = state->hlc_high > clock ? state->hlc_high : clock;
    return base > UINT64_MAX - ahead ? UINT64_MAX : base + ahead;
}

static int mint(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                struct attached *attached, const struct gossip_configuration *configuration,
                const struct replica_id *commit, uint64_t hlc, struct gossip_update *update)
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
    if (rv == REPLICA_E_NOTFOUND || !voting_is_prepared(attached->voting, configuration->epoch, commit)) {
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
        voting_want(attached, &delta.deps, NULL, update);
        send_outcome(attached, commit, writer, REPLICA_E_AGAIN, NULL, update);
        goto out;
    }
    rv = replica_volume_mint(attached->volume, &actor, proposal.data, proposal.size, hlc, &update->log, &dot,
                             &record);
    if (rv == 0)
        rv = replica_volume_hold(attached->volume, &dot);
    if (rv != 0)
        goto out;
    voting_minted(attached->voting, commit);
    attached_mark(attached, event->batch);
    add_waiter(attached->voting, commit, writer, &dot);
    replicate(quorum, attached, configuration, record.data, record.size, update);
    gossip_update_note(update, GOSSIP_NOTE_STORED, &attached->id, NULL, NULL);
out:
    replica_buffer_close(&proposal);
    replica_buffer_close(&record);
    return rv;
}

int voting_receive_mint(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct replica_pack_reader *reader, struct attached *attached,
                        const struct gossip_volume *volume, struct gossip_update *update)
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
    if (hlc > stamp_max(state, event->time)) { /* another coordinator may know what it builds on */
        send_outcome(attached, &commit, writer, REPLICA_E_REFUSED, NULL, update);
        return 0;
    }
    return mint(quorum, event, attached, configuration, &commit, hlc, update);
}

int voting_receive_replicate(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                             struct replica_pack_reader *reader, struct attached *attached,
                             const struct gossip_volume *volume, struct gossip_update *update)
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
    if (reader->failed || quorum_voter_index(configuration, &event->message.from->store) < 0 ||
        replica_delta_decode(record, n, &delta) != 0)
        return REPLICA_E_MALFORMED;
    if (epoch != configuration->epoch || phase != configuration->phase || delta.dot.actor.epoch != epoch ||
        quorum_voter_index(configuration, &delta.dot.actor.store) < 0)
        return 0;
    rv = gossip_sync_store(quorum->sync, attached, record, n, update);
    if (rv == REPLICA_E_EXISTS) { /* it may have missed our ack */
        if (replica_vector_covers_dot(&replica_volume_state(attached->volume)->held, &delta.dot))
            voting_send_held(attached, configuration, &event->message.from->store, 0, update);
        return 0;
    }
    if (rv == 0 && !replica_id_equal(&delta.dot.actor.store, &event->message.from->store)) {
        struct replica_vector target = {.n = 0}; /* whoever drives a dot of somebody else counts too */
        (void)replica_vector_set(&target, &delta.dot.actor, delta.dot.seq);
        voting_add_follower(quorum, attached->voting, &event->message.from->store, 0, &target);
    }
    if (rv == REPLICA_E_STALE) { /* a gap: bring what lies before */
        if (replica_vector_raise(&attached->target, &delta.dot.actor, delta.dot.seq) == 0)
            gossip_update_note(update, GOSSIP_NOTE_PULL, &attached->id, &event->message.from->store, NULL);
        return 0;
    }
    return rv;
}
