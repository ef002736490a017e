/* Holding: from stored to held, in order, closures checked here; and saying what is held, to coordinators and readers. */
#include "quorum/quorum_voting.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

void voting_send_held(const struct attached *attached, const struct gossip_configuration *configuration,
                      const struct replica_id *to, uint64_t round, struct gossip_update *update)
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

void voting_send_held_to_voters(const struct attached *attached,
                                const struct gossip_configuration *configuration,
                                const struct replica_id *self, struct gossip_update *update)
{
    for (size_t i = 0; i < configuration->voters_n; i++)
        if (!replica_id_equal(&configuration->voters[i], self))
            voting_send_held(attached, configuration, &configuration->voters[i], 0, update);
}

void voting_add_follower(struct gossip_quorum *quorum, struct attached_voting *voting,
                         const struct replica_id *reader, uint64_t round, const struct replica_vector *target)
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

void voting_follow(struct attached *attached, struct gossip_update *update)
{
    for (size_t i = 0; i < attached->voting->followers_n; i++)
        voting_want(attached, &attached->voting->followers[i].target, NULL, update);
}

static bool ahead_has(const struct attached_voting *voting, const struct replica_dot *dot)
{
    for (size_t i = 0; i < voting->aheads_n; i++)
        if (voting->aheads[i].dot.seq == dot->seq &&
            replica_actor_compare(&voting->aheads[i].dot.actor, &dot->actor) == 0)
            return true;
    return false;
}

/* Whether this delta is what was proposed here under its id: else that its closure was complete says nothing. */
static int is_proposed(const struct attached *attached, const struct replica_delta *delta,
                       struct gossip_update *update, bool *ret_proposed)
{
    struct replica_delta *proposal = malloc(sizeof *proposal);
    struct replica_buffer kept, given;
    int rv = proposal == NULL ? REPLICA_E_NOMEM : 0;
    replica_buffer_init(&kept);
    replica_buffer_init(&given);
    if (rv == 0)
        rv = replica_volume_proposal(attached->volume, &update->log, &delta->commit, &kept);
    update->reads++;
    *ret_proposed = rv == 0;
    if (rv == 0) {
        *proposal = *delta;
        proposal->stamp_hlc = 0;
        memset(&proposal->dot, 0, sizeof proposal->dot);
        replica_delta_pack(&given, proposal);
        *ret_proposed =
            !given.failed && given.size == kept.size && memcmp(given.data, kept.data, kept.size) == 0;
    }
    free(proposal);
    replica_buffer_close(&kept);
    replica_buffer_close(&given);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int start_aheads(struct attached *attached, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    for (size_t i = 0; i < state->stored.n; i++) {
        struct replica_dot dot = {.actor = state->stored.entries[i].actor};
        uint64_t from = replica_vector_get(&state->held, &dot.actor) + 1;
        for (dot.seq = from; dot.seq <= state->stored.entries[i].seq && dot.seq < from + AHEAD_MAX / 4;
             dot.seq++) {
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
            rv = is_proposed(attached, &ahead->closure.delta, update, &ahead->proposed);
            if (rv != 0)
                return rv;
            voting_minted(voting, &ahead->commit);
            voting->aheads_n++;
        }
    }
    return 0;
}

/* One ahead: scanned on; held if it is its actor's next and everything it needs is here. *ret_held: it was, and is gone. */
static int advance_ahead(struct gossip_quorum *quorum, struct attached *attached, uint64_t epoch,
                         size_t index, struct gossip_update *update, bool *ret_held)
{
    struct attached_voting *voting = attached->voting;
    struct ahead *ahead = &voting->aheads[index];
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    bool filled = ahead->proposed && voting_is_prepared(voting, epoch, &ahead->commit);
    int rv;
    *ret_held = false;
    if (!filled) {
        rv = voting_scan(quorum, attached, &ahead->closure, &ahead->dot.actor.store, update);
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

static void tell_held(const struct gossip_configuration *configuration, struct attached *attached,
                      const struct replica_vector *before, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    const struct replica_vector *held = &replica_volume_state(attached->volume)->held;
    for (size_t i = 0; i < held->n; i++) {
        const struct replica_actor *actor = &held->entries[i].actor;
        if (held->entries[i].seq > replica_vector_get(before, actor) &&
            quorum_voter_index(configuration, &actor->store) >= 0)
            voting_send_held(attached, configuration, &actor->store, 0, update);
    }
    for (size_t i = voting->followers_n; i > 0; i--)
        if (replica_vector_covers(held, &voting->followers[i - 1].target)) {
            voting_send_held(attached, configuration, &voting->followers[i - 1].reader,
                             voting->followers[i - 1].round, update);
            voting->followers[i - 1] = voting->followers[--voting->followers_n];
        }
}

int voting_hold_more(struct gossip_quorum *quorum, struct attached *attached,
                     const struct gossip_volume *volume, uint64_t batch, struct gossip_update *update)
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

static void send_refused(const struct attached *attached, const struct replica_id *to, uint64_t round,
                         int code, struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 3);
    replica_pack_id(&payload, &attached->id);
    replica_pack_uint(&payload, round);
    replica_pack_int(&payload, code);
    gossip_update_send(update, to, GOSSIP_ROOM_QUORUM, QUORUM_REFUSED, &payload, false);
    replica_buffer_close(&payload);
}

int voting_receive_ask(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                       struct replica_pack_reader *reader, struct attached *attached,
                       const struct gossip_volume *volume, struct gossip_update *update)
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
    if (!gossip_principal_may(event->message.from, volume->name, false)) {
        send_refused(attached, from, round, REPLICA_E_DENIED, update);
        return 0;
    }
    voting_send_held(attached, &volume->configuration, from, round, update);
    if (target.n > 0) /* who lacks it pulls no more than another voter says that it has */
        voting_send_held_to_voters(attached, &volume->configuration, &quorum->table->self, update);
    if (replica_vector_covers(&replica_volume_state(attached->volume)->held, &target))
        return 0;
    voting_add_follower(quorum, voting, from, round, &target);
    voting_want(attached, &target, &holder, update);
    return 0;
}
