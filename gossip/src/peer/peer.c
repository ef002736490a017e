/* Routing: events to rooms, notes between rooms. */
#include "peer/peer.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define NOTES_MAX 100000 /* delivered in one step; more would be a loop of our own making */

void gossip_peer_options_default(struct gossip_peer_options *options)
{
    memset(options, 0, sizeof *options);
    gossip_member_options_default(&options->member);
    gossip_control_options_default(&options->control);
    gossip_sync_options_default(&options->sync);
    gossip_quorum_options_default(&options->quorum);
    gossip_swarm_options_default(&options->swarm);
}

/* What swarm asks about volumes */

static size_t holders(void *context, const struct replica_id *volume, struct replica_id *ret, size_t max)
{
    struct gossip_peer *peer = context;
    const struct gossip_volume *entry = gossip_control_volume(peer->control, volume);
    size_t n = 0;
    for (int alive = 1; entry != NULL && alive >= 0; alive--)
        for (size_t i = 0; i < entry->configuration.voters_n && n < max; i++) {
            const struct replica_id *voter = &entry->configuration.voters[i];
            if (!replica_id_equal(voter, &peer->self) &&
                gossip_member_is_alive(peer->member, voter) == (alive == 1))
                ret[n++] = *voter;
        }
    return n;
}

static bool may_read(void *context, const struct replica_id *volume, const struct gossip_principal *principal)
{
    const struct gossip_peer *peer = context;
    const struct gossip_volume *entry = gossip_control_volume(peer->control, volume);
    return entry != NULL && gossip_principal_may(principal, entry->name, false);
}

static bool belongs(void *context, const struct replica_id *volume, const struct replica_content_id *content)
{
    struct gossip_peer *peer = context;
    bool refers = false;
    return attached_find(&peer->table, volume) != NULL && peer_refers(peer, volume, content, &refers) == 0 &&
           refers;
}

/* Making and unmaking */

static int make_rooms(struct gossip_peer *peer, const struct gossip_peer_options *options)
{
    struct gossip_swarm_directory directory = {
        .context = peer, .holders = holders, .may_read = may_read, .belongs = belongs};
    int rv = gossip_member_new(&options->member, &options->self, options->join, options->join_n,
                               options->seed, &peer->member);
    if (rv == 0)
        rv = gossip_control_new(&options->control, peer->log, peer->member, &peer->self, options->seed,
                                &peer->control);
    if (rv == 0)
        rv = replica_views_new(peer->log, peer->map, &peer->views);
    if (rv == 0)
        rv = gossip_swarm_new(&options->swarm, peer->contents, peer->member, &directory, &peer->self,
                              options->seed, &peer->swarm);
    if (rv != 0)
        return rv;
    gossip_sync_init(&peer->sync, &options->sync, &peer->table, peer->member, peer->control, &peer->self,
                     options->seed);
    rv = gossip_quorum_init(&peer->quorum, &options->quorum, &peer->table, &peer->sync, peer->member,
                            peer->control, peer->views, &options->principal, options->seed);
    if (rv == 0)
        rv = attached_load(&peer->table);
    return rv;
}

int gossip_peer_new(const struct gossip_peer_options *options, struct replica_kv *log, struct replica_kv *map,
                    struct replica_contents *contents, struct gossip_peer **ret_peer)
{
    struct gossip_peer *peer = calloc(1, sizeof *peer);
    int rv;
    if (peer == NULL)
        return REPLICA_E_NOMEM;
    peer->principal = options->principal;
    peer->self = options->self.store;
    peer->log = log;
    peer->map = map;
    peer->contents = contents;
    peer->evict.spared = EVICT_RECENT;
    peer->evict.limit = options->contents_limit;
    gossip_random_init(&peer->random, options->seed, 5 /* stream */);
    attached_table_init(&peer->table, log, map, contents, &peer->self);
    rv = make_rooms(peer, options);
    if (rv != 0) {
        gossip_peer_destroy(&peer);
        return rv;
    }
    *ret_peer = peer;
    return 0;
}

void gossip_peer_destroy(struct gossip_peer **peer)
{
    if (*peer == NULL)
        return;
    gossip_quorum_close(&(*peer)->quorum);
    gossip_swarm_destroy(&(*peer)->swarm);
    replica_views_destroy(&(*peer)->views);
    attached_table_close(&(*peer)->table, gossip_quorum_close_voting);
    gossip_control_destroy(&(*peer)->control);
    gossip_member_destroy(&(*peer)->member);
    free(*peer);
    *peer = NULL;
}

/* Events in each room's own shape */

static int to_member(struct gossip_peer *peer, enum gossip_member_event_kind kind,
                     const struct gossip_peer_event *event, struct gossip_update *update)
{
    struct gossip_member_event e = {.kind = kind,
                                    .time = event->time,
                                    .message = event->message,
                                    .endpoints = event->endpoints,
                                    .endpoints_n = event->endpoints_n,
                                    .capacity_free = event->bytes};
    return gossip_member_step(peer->member, &e, update);
}

static int to_control(struct gossip_peer *peer, enum gossip_control_event_kind kind,
                      const struct gossip_peer_event *event, const struct gossip_control_request *request,
                      struct gossip_update *update)
{
    struct gossip_control_event e = {.kind = kind,
                                     .time = event->time,
                                     .message = event->message,
                                     .request = request,
                                     .batch = event->batch,
                                     .synced = event->synced};
    return gossip_control_step(peer->control, &e, update);
}

static int to_sync(struct gossip_peer *peer, enum gossip_sync_event_kind kind,
                   const struct gossip_peer_event *event, const struct gossip_note *note,
                   struct gossip_update *update)
{
    struct gossip_sync_event e = {.kind = kind,
                                  .time = event->time,
                                  .batch = event->batch,
                                  .synced = event->synced,
                                  .message = event->message};
    if (note != NULL) {
        e.volume = note->volume;
        e.store = note->store;
        e.content = note->content;
    }
    return gossip_sync_step(&peer->sync, &e, update);
}

static int to_quorum(struct gossip_peer *peer, enum gossip_quorum_event_kind kind,
                     const struct gossip_peer_event *event, const struct gossip_note *note,
                     struct gossip_update *update)
{
    struct gossip_quorum_event e = {.kind = kind,
                                    .time = event->time,
                                    .batch = event->batch,
                                    .synced = event->synced,
                                    .message = event->message,
                                    .view = event->view,
                                    .draft = event->draft,
                                    .blob = event->blob,
                                    .content = event->content,
                                    .size = event->size,
                                    .code = event->code};
    if (note != NULL) {
        e.volume = note->volume;
        e.content = note->content;
        e.size = note->bytes;
    }
    return gossip_quorum_step(&peer->quorum, &e, update);
}

static int to_swarm(struct gossip_peer *peer, enum gossip_swarm_event_kind kind,
                    const struct gossip_peer_event *event, const struct gossip_note *note,
                    struct gossip_update *update)
{
    struct gossip_swarm_event e = {.kind = kind,
                                   .time = event->time,
                                   .message = event->message,
                                   .source = event->source,
                                   .content = event->content,
                                   .piece = event->piece,
                                   .code = event->code,
                                   .bytes = event->bytes};
    if (note != NULL) {
        e.volume = note->volume;
        e.source = note->store;
        e.content = note->content;
    }
    return gossip_swarm_step(peer->swarm, &e, update);
}

/* Notes */

static int attach_if_voter(struct gossip_peer *peer, const struct replica_id *volume,
                           struct gossip_update *update)
{
    struct attached *attached;
    int rv;
    if (!gossip_sync_is_voter(peer->control, volume, &peer->self))
        return 0;
    rv = attached_open(&peer->table, volume, &update->log, &attached);
    return rv == REPLICA_E_NOSPACE ? 0 : rv; /* it does not vote for what it cannot hold */
}

static int deliver(struct gossip_peer *peer, const struct gossip_peer_event *event,
                   const struct gossip_note *note, struct gossip_update *update)
{
    int rv;
    if (peer->failed != 0 && note->kind != GOSSIP_NOTE_MEMBER_DEAD)
        return 0;
    switch (note->kind) {
    case GOSSIP_NOTE_MEMBER_ALIVE:
    case GOSSIP_NOTE_CLUSTER:
        return 0;
    case GOSSIP_NOTE_MEMBER_DEAD:
        return to_swarm(peer, GOSSIP_SWARM_EVENT_MEMBER_DEAD, event, note, update);
    case GOSSIP_NOTE_VOLUME:
        return attach_if_voter(peer, &note->volume, update);
    case GOSSIP_NOTE_WANT:
        return to_swarm(peer, GOSSIP_SWARM_EVENT_WANT, event, note, update);
    case GOSSIP_NOTE_UNWANT:
        return to_swarm(peer, GOSSIP_SWARM_EVENT_UNWANT, event, note, update);
    case GOSSIP_NOTE_HAVE:
        peer_evict_touch(peer, &note->content);
        rv = to_sync(peer, GOSSIP_SYNC_EVENT_HAVE, event, note, update);
        return rv != 0 ? rv : to_quorum(peer, GOSSIP_QUORUM_EVENT_HAVE, event, note, update);
    case GOSSIP_NOTE_PIECE:
        return to_quorum(peer, GOSSIP_QUORUM_EVENT_PIECE, event, note, update);
    case GOSSIP_NOTE_NO_ROOM:
        return to_quorum(peer, GOSSIP_QUORUM_EVENT_NO_ROOM, event, note, update);
    case GOSSIP_NOTE_PULL:
        return to_sync(peer, GOSSIP_SYNC_EVENT_PULL, event, note, update);
    case GOSSIP_NOTE_STORED:
        rv = to_sync(peer, GOSSIP_SYNC_EVENT_STORED, event, note, update);
        return rv != 0 ? rv : to_quorum(peer, GOSSIP_QUORUM_EVENT_STORED, event, note, update);
    case GOSSIP_NOTE_COMMITTED:
        rv = to_sync(peer, GOSSIP_SYNC_EVENT_COMMITTED, event, note, update);
        return rv != 0 ? rv : to_quorum(peer, GOSSIP_QUORUM_EVENT_COMMITTED, event, note, update);
    case GOSSIP_NOTE_APPLIED:
        return to_quorum(peer, GOSSIP_QUORUM_EVENT_APPLIED, event, note, update);
    }
    return 0;
}

static int deliver_all(struct gossip_peer *peer, const struct gossip_peer_event *event,
                       struct gossip_update *update)
{
    struct gossip_peer_event clean = {
        .kind = event->kind, .time = event->time, .batch = event->batch, .synced = event->synced};
    for (size_t i = 0; i < update->notes_n && i < NOTES_MAX; i++) {
        struct gossip_note note = update->notes[i];
        int rv = deliver(peer, &clean, &note, update);
        if (rv != 0)
            return rv;
    }
    update->notes_n = 0;
    return 0;
}

/* Steps */

static int message(struct gossip_peer *peer, const struct gossip_peer_event *event,
                   struct gossip_update *update)
{
    if (event->message.from->role != GOSSIP_ROLE_VOTER && event->message.from->role != GOSSIP_ROLE_CACHE)
        return REPLICA_E_DENIED; /* a client is no member, and nobody answers it */
    switch (event->room) {
    case GOSSIP_ROOM_MEMBER:
        return to_member(peer, GOSSIP_MEMBER_EVENT_MESSAGE, event, update);
    case GOSSIP_ROOM_CONTROL:
        return to_control(peer, GOSSIP_CONTROL_EVENT_MESSAGE, event, NULL, update);
    case GOSSIP_ROOM_SYNC:
        return to_sync(peer, GOSSIP_SYNC_EVENT_MESSAGE, event, NULL, update);
    case GOSSIP_ROOM_QUORUM:
        return to_quorum(peer, GOSSIP_QUORUM_EVENT_MESSAGE, event, NULL, update);
    case GOSSIP_ROOM_SWARM:
        return to_swarm(peer, GOSSIP_SWARM_EVENT_MESSAGE, event, NULL, update);
    case GOSSIP_ROOM_N:
        break;
    }
    return REPLICA_E_MALFORMED;
}

static int start(struct gossip_peer *peer, const struct gossip_peer_event *event,
                 struct gossip_update *update)
{
    int rv = to_member(peer, GOSSIP_MEMBER_EVENT_START, event, update);
    if (rv == 0)
        rv = to_control(peer, GOSSIP_CONTROL_EVENT_START, event, NULL, update);
    for (size_t i = 0; rv == 0 && i < gossip_control_volumes(peer->control); i++)
        rv = attach_if_voter(peer, &gossip_control_volume_at(peer->control, i)->id, update);
    if (rv == 0)
        rv = to_quorum(peer, GOSSIP_QUORUM_EVENT_START, event, NULL, update);
    update->again = true;
    return rv;
}

static int timer_of_failed(struct gossip_peer *peer, const struct gossip_peer_event *event,
                           struct gossip_update *update)
{
    int rv = to_member(peer, GOSSIP_MEMBER_EVENT_TIMER, event, update);
    return rv != 0 ? rv : to_swarm(peer, GOSSIP_SWARM_EVENT_TIMER, event, NULL, update);
}

/* Contents are let go of first: what this very step pins or names is not yet seen by those who look whether
 * anything needs a content, while whoever pins or names one sees that it has gone. */
static int timer(struct gossip_peer *peer, const struct gossip_peer_event *event,
                 struct gossip_update *update)
{
    int rv = peer_collect(peer, event->time, update);
    if (rv == 0)
        rv = peer_evict(peer, event->time, update);
    if (rv == 0)
        rv = to_member(peer, GOSSIP_MEMBER_EVENT_TIMER, event, update);
    if (rv == 0)
        rv = to_control(peer, GOSSIP_CONTROL_EVENT_TIMER, event, NULL, update);
    if (rv == 0)
        rv = to_sync(peer, GOSSIP_SYNC_EVENT_TIMER, event, NULL, update);
    if (rv == 0)
        rv = to_quorum(peer, GOSSIP_QUORUM_EVENT_TIMER, event, NULL, update);
    if (rv == 0)
        rv = to_swarm(peer, GOSSIP_SWARM_EVENT_TIMER, event, NULL, update);
    if (rv == 0)
        rv = peer_edit_some(peer, update);
    return rv;
}

static int synced(struct gossip_peer *peer, const struct gossip_peer_event *event,
                  struct gossip_update *update)
{
    int rv = to_control(peer, GOSSIP_CONTROL_EVENT_SYNCED, event, NULL, update);
    if (rv == 0)
        rv = to_sync(peer, GOSSIP_SYNC_EVENT_SYNCED, event, NULL, update);
    if (rv == 0)
        rv = to_quorum(peer, GOSSIP_QUORUM_EVENT_SYNCED, event, NULL, update);
    return rv;
}

/* Bytes that were known already may have been let go of since they were hashed, named by nothing. The draft is there still. */
static int settled(struct gossip_peer *peer, const struct gossip_peer_event *event,
                   struct gossip_update *update)
{
    if (event->code == 0 && event->blob.kind == REPLICA_BLOB_CONTENT &&
        replica_contents_state(peer->contents, &event->blob.content) < REPLICA_CONTENTS_FILLED) {
        gossip_update_settle(update, &event->view, event->draft);
        return 0;
    }
    return to_quorum(peer, GOSSIP_QUORUM_EVENT_SETTLED, event, NULL, update);
}

static int fail(struct gossip_peer *peer, const struct gossip_peer_event *event, struct gossip_update *update)
{
    peer_fail(peer, event->code, update);
    return to_quorum(peer, GOSSIP_QUORUM_EVENT_FAILED, event, NULL, update);
}

static int damaged(struct gossip_peer *peer, const struct gossip_peer_event *event,
                   struct gossip_update *update)
{
    int rv;
    if (replica_contents_state(peer->contents, &event->content) >= REPLICA_CONTENTS_FILLED)
        return 0; /* it is whole again */
    rv = to_quorum(peer, GOSSIP_QUORUM_EVENT_DAMAGED, event, NULL, update);
    return rv != 0 ? rv : peer_heal(peer, &event->content, update);
}

static int route(struct gossip_peer *peer, const struct gossip_peer_event *event,
                 struct gossip_update *update)
{
    switch (event->kind) {
    case GOSSIP_PEER_EVENT_START:
        return start(peer, event, update);
    case GOSSIP_PEER_EVENT_TIMER:
        return peer->failed != 0 ? timer_of_failed(peer, event, update) : timer(peer, event, update);
    case GOSSIP_PEER_EVENT_MESSAGE:
        return message(peer, event, update);
    case GOSSIP_PEER_EVENT_SYNCED:
        return synced(peer, event, update);
    case GOSSIP_PEER_EVENT_REQUEST:
        return peer_request(peer, event, update);
    case GOSSIP_PEER_EVENT_SETTLED:
        return settled(peer, event, update);
    case GOSSIP_PEER_EVENT_PIECE:
        return to_swarm(peer, GOSSIP_SWARM_EVENT_PIECE, event, NULL, update);
    case GOSSIP_PEER_EVENT_UPLOADED:
        return to_swarm(peer, GOSSIP_SWARM_EVENT_UPLOADED, event, NULL, update);
    case GOSSIP_PEER_EVENT_RESOLVED:
        return to_member(peer, GOSSIP_MEMBER_EVENT_JOIN, event, update);
    case GOSSIP_PEER_EVENT_MAP_SYNCED:
        return to_sync(peer, GOSSIP_SYNC_EVENT_MAP_SYNCED, event, NULL, update);
    case GOSSIP_PEER_EVENT_CAPACITY:
        peer_evict_within(peer, event->bytes);
        return to_member(peer, GOSSIP_MEMBER_EVENT_CAPACITY, event, update);
    case GOSSIP_PEER_EVENT_DAMAGED:
        return damaged(peer, event, update);
    case GOSSIP_PEER_EVENT_LEAVE:
        return to_member(peer, GOSSIP_MEMBER_EVENT_LEAVE, event, update);
    case GOSSIP_PEER_EVENT_FAILED:
        return fail(peer, event, update);
    }
    return 0;
}

int gossip_peer_step(struct gossip_peer *peer, const struct gossip_peer_event *event,
                     struct gossip_update *update)
{
    int rv = 0;
    if (peer->failed == 0 || peer_failed_takes(peer, event, update))
        rv = route(peer, event, update);
    if (rv == REPLICA_E_MALFORMED || rv == REPLICA_E_DENIED) {
        peer->malformed++;
        rv = 0;
    }
    if (rv == 0)
        rv = deliver_all(peer, event, update);
    for (size_t i = 0; peer->failed != 0 && i < update->answers_n; i++)
        update->answers[i].durable =
            false; /* no sync will come; and what is answered stands on nothing new */
    if (rv == 0 && update->failed)
        rv = REPLICA_E_NOMEM;
    return rv;
}

/* Reading */

const struct gossip_member *gossip_peer_member(const struct gossip_peer *peer)
{
    return peer->member;
}

const struct gossip_control *gossip_peer_control(const struct gossip_peer *peer)
{
    return peer->control;
}

const struct gossip_swarm *gossip_peer_swarm(const struct gossip_peer *peer)
{
    return peer->swarm;
}

struct replica_views *gossip_peer_views(const struct gossip_peer *peer)
{
    return peer->views;
}

struct replica_volume *gossip_peer_volume(const struct gossip_peer *peer, const struct replica_id *id)
{
    const struct attached *attached = attached_find(&peer->table, id);
    return attached == NULL ? NULL : attached->volume;
}

uint64_t gossip_peer_behind(const struct gossip_peer *peer, const struct replica_id *volume)
{
    uint64_t behind = 0;
    for (size_t i = 0; i < peer->table.n; i++) {
        const struct attached *attached = peer->table.items[i];
        uint64_t applied_seq = replica_volume_state(attached->volume)->applied_seq;
        if (applied_seq < attached->loaded_seq && (volume == NULL || replica_id_equal(volume, &attached->id)))
            behind += attached->loaded_seq - applied_seq;
    }
    return behind;
}

uint64_t gossip_peer_malformed(const struct gossip_peer *peer)
{
    return peer->malformed;
}
