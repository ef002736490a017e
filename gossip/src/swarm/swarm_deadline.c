/* Requests that are not answered in time, or that another could answer sooner. */
#include "swarm/swarm.h"

#define REQUEST_MS_MAX    120000 /* longest deadline, whatever was measured */
#define DEADLINES_OF_LIFE 8 /* deadlines after which a request is lost though its peer sends other pieces */
/* Times an idle peer's answer time that a request waits at another before it moves. */
#define TAKE_OVER_FACTOR 4

static uint64_t deadline_ms(const struct gossip_swarm *swarm, const struct swarm_peer *peer)
{
    uint64_t ms = peer->measured ? peer->srtt_ms + (uint64_t)4 * peer->deviation_ms : 0;
    if (ms < swarm->options.request_ms_min)
        ms = swarm->options.request_ms_min;
    ms <<= peer->backoff;
    return ms < REQUEST_MS_MAX ? ms : REQUEST_MS_MAX;
}

/* A peer that sends pieces is not silent, only slow; but one piece may have been lost. */
static bool is_expired(const struct gossip_swarm *swarm, const struct swarm_peer *peer,
                       const struct swarm_request *request)
{
    uint64_t deadline = deadline_ms(swarm, peer);
    uint64_t since = peer->progress_ms > request->asked_ms ? peer->progress_ms : request->asked_ms;
    return swarm->now_ms >= since + deadline ||
           swarm->now_ms >= request->asked_ms + DEADLINES_OF_LIFE * deadline;
}

static void expire(struct gossip_swarm *swarm, struct swarm_request *request, struct gossip_update *update)
{
    struct swarm_holder *holder = request->holder;
    bool silent = holder->peer->progress_ms <= request->asked_ms;
    swarm_request_release(swarm, request, true);
    if (silent && holder->state != SWARM_BAD)
        holder->state = SWARM_SILENT;
    swarm_fetch_advance(swarm, holder->fetch, update);
}

static void expire_some(struct gossip_swarm *swarm, struct swarm_peer *peer, struct gossip_update *update)
{
    bool any = false, silent = false;
    while (!swarm_link_alone(&peer->requests)) {
        struct swarm_request *request = SWARM_ITEM(peer->requests.next, struct swarm_request, in_peer);
        if (!is_expired(swarm, peer, request))
            break;
        any = true;
        silent = silent || peer->progress_ms <= request->asked_ms;
        expire(swarm, request, update);
    }
    if (!any)
        return;
    if (silent) { /* all that wait for a turn go elsewhere, too */
        peer->dead = true;
        peer->dead_ms = swarm->now_ms;
        swarm_peer_dirty(swarm, peer);
    }
    peer->window = peer->window > 1 ? peer->window / 2 : 1;
    if (peer->backoff < SWARM_BACKOFF_MAX)
        peer->backoff++;
}

void swarm_tick(struct gossip_swarm *swarm, struct gossip_update *update)
{
    struct swarm_link looked;
    if (swarm->now_ms < swarm->tick_at_ms)
        return;
    swarm->tick_at_ms = swarm->now_ms + SWARM_TICK_MS;
    swarm_link_init(&looked);
    while (!swarm_link_alone(&swarm->active)) {
        struct swarm_peer *peer = SWARM_ITEM(swarm->active.next, struct swarm_peer, active);
        swarm_link_remove(&peer->active);
        swarm_link_append(&looked, &peer->active);
        swarm_peer_hold(peer);
        expire_some(swarm, peer, update);
        swarm_peer_drop(swarm, peer);
    }
    while (!swarm_link_alone(&looked)) {
        struct swarm_link *link = looked.next;
        swarm_link_remove(link);
        swarm_link_append(&swarm->active, link);
    }
}

/* An idle holder that would have answered long ago */
static struct swarm_holder *quicker(const struct gossip_swarm *swarm, const struct swarm_fetch *fetch,
                                    const struct swarm_request *request)
{
    for (struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next) {
        uint64_t patience = (uint64_t)TAKE_OVER_FACTOR * holder->peer->srtt_ms;
        if (patience < swarm->options.request_ms_min / 2)
            patience = swarm->options.request_ms_min / 2;
        if (holder != request->holder && swarm_holder_usable(swarm, holder) && holder->peer->measured &&
            holder->peer->asked == 0 && swarm_holder_has(holder, request->index) &&
            swarm->now_ms >= request->asked_ms + patience)
            return holder;
    }
    return NULL;
}

void swarm_take_over(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    for (struct swarm_link *link = fetch->requests.next; link != &fetch->requests; link = link->next) {
        struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_fetch);
        struct swarm_holder *holder =
            request->kind == REPLICA_PIECE_CHUNK ? quicker(swarm, fetch, request) : NULL;
        uint32_t chunk = request->index;
        if (holder == NULL)
            continue;
        request->holder->peer->window =
            request->holder->peer->window > 1 ? request->holder->peer->window / 2 : 1;
        swarm_request_release(swarm, request, true);
        swarm_request_add(swarm, holder, REPLICA_PIECE_CHUNK, chunk, false);
        swarm_peer_dirty(swarm, holder->peer);
        return; /* one at a time: it is idle no longer */
    }
}

void swarm_member_dead(struct gossip_swarm *swarm, const struct replica_id *store,
                       struct gossip_update *update)
{
    struct swarm_peer *peer = swarm_peer_find(swarm, store);
    if (peer == NULL)
        return;
    peer->dead = true;
    peer->dead_ms = swarm->now_ms;
    swarm_peer_hold(peer);
    swarm_serve_forget(swarm, peer);
    while (!swarm_link_alone(&peer->requests)) {
        struct swarm_request *request = SWARM_ITEM(peer->requests.next, struct swarm_request, in_peer);
        struct swarm_holder *holder = request->holder;
        swarm_request_release(swarm, request, false);
        if (holder->state != SWARM_BAD)
            holder->state = SWARM_SILENT;
        swarm_fetch_advance(swarm, holder->fetch, update);
    }
    swarm_peer_dirty(swarm, peer); /* those that wait for a turn learn of it */
    swarm_peer_drop(swarm, peer);
}
