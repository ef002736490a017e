/* Eviction (design §9): a store that holds more than it should lets go of contents that it keeps only as a cache.
 *
 * What goes is named by nothing but versions of volumes that this store does not vote for (so the voters have it), and did
 * not come in lately. In no particular order: contents are visited by their ids, which are hashes. Open descriptors go on reading. */
#include "peer/peer.h"

#include "replica/error.h"

#include <string.h>

#define EVICT_STEP_MS  20    /* between looks while there is too much */
#define EVICT_REST_MS  10000 /* after a pass that found nothing to let go of */
#define EVICT_PER_STEP 20    /* contents in one look; each costs a few reads, and a removal a write */
#define EVICT_AT_ONCE  100   /* contents looked at to make room for one that is wanted now */
#define EVICT_SPARED   4     /* of what came in last, when nothing else is left to let go of */
#define EVICT_SHARE    10    /* a tenth of the limit is kept free for what comes in */

void peer_evict_touch(struct gossip_peer *peer, const struct replica_content_id *content)
{
    struct peer_evict *evict = &peer->evict;
    evict->recent[evict->recent_at] = *content;
    evict->recent_at = (evict->recent_at + 1) % EVICT_RECENT;
}

void peer_evict_within(struct gossip_peer *peer, uint64_t free_bytes)
{
    struct replica_contents_totals totals;
    if (peer->evict.limit == 0)
        return;
    replica_contents_totals(peer->contents, &totals);
    peer->evict.pressed = free_bytes == 0;
    peer->evict.limit = totals.bytes + free_bytes > 0 ? totals.bytes + free_bytes : 1;
}

/* Among the last `spared` that came in. */
static bool is_recent(const struct peer_evict *evict, const struct replica_content_id *content)
{
    for (size_t i = 1; i <= evict->spared; i++)
        if (replica_content_id_equal(&evict->recent[(evict->recent_at + EVICT_RECENT - i) % EVICT_RECENT],
                                     content))
            return true;
    return false;
}

static int is_kept_for(void *context, const struct replica_id *volume)
{
    const struct gossip_peer *peer = context;
    return gossip_sync_is_voter(peer->control, volume, &peer->self) ? 1 : 0;
}

/* After a crash the map is behind the log, where what was applied once is pinned no more: what a volume of
 * this voter names may seem to be named by others only. */
static bool names_all(const struct gossip_peer *peer)
{
    for (size_t i = 0; i < peer->table.n; i++) {
        const struct attached *attached = peer->table.items[i];
        if (replica_volume_state(attached->volume)->applied_seq < attached->loaded_seq &&
            gossip_sync_is_voter(peer->control, &attached->id, &peer->self))
            return false;
    }
    return true;
}

static int may_evict(struct gossip_peer *peer, const struct replica_content_id *content, bool *ret_may)
{
    bool refers = false;
    int rv;
    *ret_may = false;
    if (is_recent(&peer->evict, content) || gossip_quorum_refers(&peer->quorum, NULL, content) ||
        gossip_swarm_is_fetching(peer->swarm, content))
        return 0;
    rv = replica_map_refers(peer->map, NULL, content, &refers);
    if (rv != 0 || !refers) /* what nothing names is collection's */
        return rv;
    rv = replica_views_refer(peer->views, NULL, content, &refers);
    if (rv == 0 && !refers)
        rv = replica_volume_pins(peer->log, NULL, content, &refers);
    if (rv != 0 || refers)
        return rv;
    rv = replica_map_each_volume(peer->map, content, is_kept_for, peer);
    *ret_may = rv == 0;
    return rv > 0 ? 0 : rv;
}

/* One content; *ret_end: there was none left in this pass. */
static int look_at_next(struct gossip_peer *peer, bool *ret_end)
{
    struct peer_evict *evict = &peer->evict;
    struct replica_content_id content;
    enum replica_contents_state state;
    bool may = false;
    int rv = replica_contents_next(peer->contents, evict->begun ? &evict->after : NULL, &content, &state);
    *ret_end = rv == REPLICA_E_NOTFOUND;
    if (rv != 0)
        return *ret_end ? 0 : rv;
    evict->begun = true;
    evict->after = content;
    (void)state; /* what readers of ranges left partial goes like the rest */
    rv = may_evict(peer, &content, &may);
    if (rv == 0 && may) {
        evict->found = true;
        rv = replica_contents_remove(peer->contents, &content);
    }
    return rv == REPLICA_E_BUSY ? 0 : rv;
}

/* Looks at up to max contents while more than `above` bytes are held. */
static int let_go(struct gossip_peer *peer, uint64_t above, size_t max, size_t *reads, bool *ret_end)
{
    *ret_end = false;
    for (size_t i = 0; i < max && !*ret_end; i++) {
        struct replica_contents_totals totals;
        int rv;
        replica_contents_totals(peer->contents, &totals);
        if (totals.bytes <= above)
            return 0;
        rv = look_at_next(peer, ret_end);
        *reads += 8;
        if (rv != 0)
            return rv;
    }
    return 0;
}

static void end_pass(struct peer_evict *evict, uint64_t at_ms)
{
    evict->at_ms = at_ms;
    evict->begun = evict->found = false;
}

int peer_evict_room(struct gossip_peer *peer, const struct replica_content_id *content,
                    struct gossip_update *update)
{
    struct peer_evict *evict = &peer->evict;
    bool end;
    int rv;
    if (evict->limit == 0 || content->length >= evict->limit || !names_all(peer) ||
        replica_contents_state(peer->contents, content) != REPLICA_CONTENTS_ABSENT)
        return 0;
    rv = let_go(peer, evict->limit - content->length, EVICT_AT_ONCE, &update->reads, &end);
    for (int again = 0; rv == 0 && end && again < 2;
         again++) { /* from where the pass began, then with less spared */
        end_pass(evict, evict->at_ms);
        evict->spared = again == 0 ? EVICT_RECENT : EVICT_SPARED;
        rv = let_go(peer, evict->limit - content->length, EVICT_AT_ONCE, &update->reads, &end);
    }
    evict->spared = EVICT_RECENT;
    return rv;
}

int peer_evict(struct gossip_peer *peer, struct gossip_time time, struct gossip_update *update)
{
    struct peer_evict *evict = &peer->evict;
    bool end, found;
    int rv;
    if (evict->limit == 0 || time.now_ms < evict->at_ms || update->reads >= GOSSIP_STEP_READS_MAX)
        return 0;
    evict->at_ms = time.now_ms + EVICT_STEP_MS;
    if (!names_all(peer))
        return 0;
    evict->spared = evict->pressed ? EVICT_SPARED : EVICT_RECENT;
    rv = let_go(peer, evict->limit - evict->limit / EVICT_SHARE, EVICT_PER_STEP, &update->reads, &end);
    evict->spared = EVICT_RECENT;
    found = evict->found;
    if (end)
        end_pass(evict, time.now_ms + (found ? EVICT_STEP_MS : EVICT_REST_MS));
    if (end || evict->begun)
        gossip_update_wake(update, evict->at_ms);
    return rv;
}
