/* What a voter does for writers and readers. design.md §3: a voter answers prepare once it holds the closure; acks a dot, and with it
 * every earlier one of its actor, only when it is contiguous, its dependencies are held and its closure was checked here; and what it
 * says about what it holds leaves only when it is durable. */
#include "quorum/quorum_voting.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

void gossip_quorum_close_voting(struct attached_voting *voting)
{
    if (voting == NULL)
        return;
    for (size_t i = 0; i < voting->prepares_n; i++)
        voting_close_prepare(&voting->prepares[i]);
    for (size_t i = 0; i < voting->aheads_n; i++)
        replica_closure_close(&voting->aheads[i].closure);
    voting_close_proposals(voting);
    free(voting->prepares);
    free(voting->prepared);
    free(voting->aheads);
    free(voting->waiters);
    free(voting->followers);
    free(voting);
}

/* Makes the voter's part of a volume when it is first needed. */
static int voting_of(struct attached *attached)
{
    struct attached_voting *voting = attached->voting;
    int rv;
    if (voting != NULL)
        return 0;
    voting = calloc(1, sizeof *voting);
    if (voting == NULL)
        return REPLICA_E_NOMEM;
    voting->prepared = calloc(PREPARED_MAX, sizeof voting->prepared[0]);
    voting->aheads = calloc(AHEAD_MAX, sizeof voting->aheads[0]);
    voting->waiters = calloc(WAITERS_MAX, sizeof voting->waiters[0]);
    voting->followers = calloc(FOLLOWERS_MAX, sizeof voting->followers[0]);
    attached->voting = voting;
    rv = !voting->prepared || !voting->aheads || !voting->waiters || !voting->followers
             ? REPLICA_E_NOMEM
             : voting_load_proposals(attached);
    if (rv != 0) {
        gossip_quorum_close_voting(voting);
        attached->voting = NULL;
    }
    return rv;
}

static bool votes(const struct gossip_quorum *quorum, const struct gossip_volume *volume)
{
    return !quorum->failed && quorum->self.role == GOSSIP_ROLE_VOTER &&
           quorum_voter_index(&volume->configuration, &quorum->table->self) >= 0;
}

int quorum_voter_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                         struct gossip_update *update)
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
    if (reader.failed || n < (event->message.type == QUORUM_ABANDON ? 2 : 4))
        return REPLICA_E_MALFORMED;
    volume = quorum_volume(quorum, &id);
    if (volume == NULL || !votes(quorum, volume))
        return 0; /* not known here yet, or not ours to answer: the asker asks again */
    rv = attached_open(quorum->table, &id, &update->log, &attached);
    if (rv != 0)
        return rv == REPLICA_E_NOSPACE ? 0 : rv;
    rv = voting_of(attached);
    if (rv != 0)
        return rv;
    switch (event->message.type) {
    case QUORUM_PREPARE:
        return voting_receive_prepare(quorum, event, &reader, attached, volume, update);
    case QUORUM_MINT:
        return voting_receive_mint(quorum, event, &reader, attached, volume, update);
    case QUORUM_REPLICATE:
        return voting_receive_replicate(quorum, event, &reader, attached, volume, update);
    case QUORUM_ABANDON:
        return voting_receive_abandon(event, &reader, attached, update);
    case QUORUM_OFFER:
        return quorum_offer_receive(quorum, event, &reader, volume, update);
    default:
        return voting_receive_ask(quorum, event, &reader, attached, volume, update);
    }
}

static void cross_off(struct attached_voting *voting, const struct replica_content_id *content)
{
    for (size_t i = 0; i < voting->prepares_n; i++)
        replica_closure_arrived(&voting->prepares[i].closure, content);
    for (size_t i = 0; i < voting->aheads_n; i++)
        replica_closure_arrived(&voting->aheads[i].closure, content);
}

static void count_piece(struct attached_voting *voting, const struct replica_content_id *content,
                        uint64_t bytes)
{
    for (size_t i = 0; i < voting->prepares_n; i++)
        if (replica_closure_lacks(&voting->prepares[i].closure, content)) {
            voting->prepares[i].arrived += bytes;
            voting->prepares[i].no_room = false;
        }
}

/* The writers hear of it at once. */
static void note_no_room(struct attached_voting *voting, const struct replica_content_id *content)
{
    for (size_t i = 0; i < voting->prepares_n; i++)
        if (replica_closure_lacks(&voting->prepares[i].closure, content)) {
            voting->prepares[i].no_room = true;
            voting->prepares[i].report_at_ms = 0;
        }
}

/* An ack may be lost, or its receiver restart: what is held but not known to be committed is said again, once a second. */
static void announce(struct attached *attached, const struct gossip_volume *volume,
                     const struct replica_id *self, struct gossip_time time, struct gossip_update *update)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    if (replica_vector_covers(&state->committed, &state->held))
        return;
    if (time.now_ms >= attached->voting->announce_at_ms) {
        voting_send_held_to_voters(attached, &volume->configuration, self, update);
        attached->voting->announce_at_ms = time.now_ms + ANNOUNCE_MS;
    }
    gossip_update_wake(update, attached->voting->announce_at_ms);
}

static bool concerns_all(enum gossip_quorum_event_kind kind)
{
    return kind == GOSSIP_QUORUM_EVENT_TIMER || kind == GOSSIP_QUORUM_EVENT_START ||
           kind == GOSSIP_QUORUM_EVENT_SYNCED || kind == GOSSIP_QUORUM_EVENT_HAVE ||
           kind == GOSSIP_QUORUM_EVENT_PIECE || kind == GOSSIP_QUORUM_EVENT_NO_ROOM ||
           kind == GOSSIP_QUORUM_EVENT_DAMAGED;
}

int quorum_voter_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                       struct gossip_update *update)
{
    for (size_t i = 0; i < quorum->table->n; i++) {
        struct attached *attached = quorum->table->items[i];
        const struct gossip_volume *volume = quorum_volume(quorum, &attached->id);
        bool concerned = concerns_all(event->kind) || replica_id_equal(&attached->id, &event->volume);
        int rv;
        if (!concerned || volume == NULL || !votes(quorum, volume))
            continue;
        rv = voting_of(attached);
        if (rv != 0)
            return rv;
        if (event->kind == GOSSIP_QUORUM_EVENT_HAVE)
            cross_off(attached->voting, &event->content);
        if (event->kind == GOSSIP_QUORUM_EVENT_NO_ROOM)
            note_no_room(attached->voting, &event->content);
        if (event->kind == GOSSIP_QUORUM_EVENT_PIECE)
            count_piece(attached->voting, &event->content, event->size);
        else if (event->kind == GOSSIP_QUORUM_EVENT_DAMAGED)
            rv = voting_lose(attached, &event->content, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_SYNCED)
            rv = voting_count(quorum, attached, volume, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_COMMITTED)
            voting_tell_waiters(attached, update);
        else {
            attached->voting->busy = false;
            rv = voting_continue_prepares(quorum, attached, volume, event->time, update);
            if (rv == 0)
                rv = voting_release_some(quorum, attached, update);
            if (rv == 0)
                rv = voting_hold_more(quorum, attached, volume, event->batch, update);
            if (rv == 0 && event->kind == GOSSIP_QUORUM_EVENT_TIMER)
                rv = voting_ask_writers(attached, volume, event->time, update);
            if (event->kind == GOSSIP_QUORUM_EVENT_TIMER)
                announce(attached, volume, &quorum->table->self, event->time, update);
        }
        if (rv != 0)
            return rv;
    }
    return 0;
}
