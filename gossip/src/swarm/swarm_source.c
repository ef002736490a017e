/* Asking other stores for pieces, and what comes of it. */
#include "swarm/swarm.h"

#include "replica/error.h"

#define PAUSE_MS 200 /* before a busy peer is asked again */

/* Pumping: who has room asks the next of its ready holders for one piece, and so on. */

static bool credit_is_spent(const struct gossip_swarm *swarm)
{
    return swarm->credit_used > 0 && swarm->credit_used + REPLICA_CHUNK_SIZE > swarm->options.credit_bytes;
}

/* Once full of small pieces it is asked again only when a quarter is through: so that they share messages.
 * Chunks are asked one by one, to keep the pipe full. */
static bool has_room(struct swarm_peer *peer)
{
    uint64_t bytes_max = peer->window * REPLICA_CHUNK_SIZE;
    uint32_t asked_max = peer->window * SWARM_SMALL_FACTOR;
    bool room = peer->asked_bytes < bytes_max && peer->asked < asked_max;
    if (!room && peer->asked > peer->window * SWARM_BATCH_FACTOR)
        peer->full = true;
    else if (peer->asked_bytes <= bytes_max / 4 * 3 && peer->asked <= asked_max / 4 * 3)
        peer->full = false;
    return room && !peer->full;
}

static struct swarm_holder *first_ready(const struct swarm_peer *peer)
{
    for (size_t i = 0; i < 2; i++)
        if (!swarm_link_alone(&peer->ready[i]))
            return SWARM_ITEM(peer->ready[i].next, struct swarm_holder, ready);
    return NULL;
}

static void connect_to(struct gossip_swarm *swarm, struct swarm_holder *holder, struct gossip_update *update)
{
    struct swarm_request *request = swarm_request_add(swarm, holder, SWARM_PIECE_CONNECT, 0, false);
    if (request == NULL)
        return;
    holder->connecting = true;
    swarm_send_connect(swarm, holder, update);
}

static void ask_one(struct gossip_swarm *swarm, struct swarm_holder *holder, struct gossip_update *update)
{
    struct swarm_fetch *fetch = holder->fetch;
    struct replica_piece piece;
    bool stolen;
    swarm_link_remove(&holder->ready);
    if (swarm_holder_needs_connect(holder))
        connect_to(swarm, holder, update);
    if (!swarm_holder_usable(swarm, holder)) {
        if (!holder->connecting)
            swarm_fetch_advance(swarm, fetch, update);
        return;
    }
    if (!swarm_pick(swarm, holder, &piece, &stolen)) {
        swarm_fetch_dry(swarm, fetch);
        return;
    }
    if (swarm_request_add(swarm, holder, (uint8_t)piece.kind, piece.index, stolen) != NULL &&
        fetch->large != NULL)
        swarm_holder_ready(swarm, holder);
}

/* True: it is to be looked at again, as it waits for time or credit and not for an arrival of its own. */
static bool pump_peer(struct gossip_swarm *swarm, struct swarm_peer *peer, size_t *budget,
                      struct gossip_update *update)
{
    struct swarm_holder *holder;
    while ((holder = first_ready(peer)) != NULL) {
        if (!peer->dead && swarm->now_ms < peer->paused_until_ms)
            return true;
        if (!peer->dead && credit_is_spent(swarm))
            return true;
        if (!peer->dead && !has_room(peer))
            return false;
        if (*budget == 0) {
            update->again = true;
            return true;
        }
        --*budget;
        ask_one(swarm, holder, update);
    }
    return false;
}

void swarm_pump(struct gossip_swarm *swarm, struct gossip_update *update)
{
    struct swarm_link later;
    size_t budget = SWARM_WORK_MAX;
    swarm_link_init(&later);
    while (!swarm_link_alone(&swarm->dirty)) {
        struct swarm_peer *peer = SWARM_ITEM(swarm->dirty.next, struct swarm_peer, dirty);
        bool again;
        swarm_peer_hold(peer); /* its last holder may end meanwhile */
        again = pump_peer(swarm, peer, &budget, update);
        swarm_link_remove(&peer->dirty);
        if (again)
            swarm_link_append(&later, &peer->dirty);
        swarm_send_cancels(swarm, peer, update);
        swarm_send_asks(swarm, peer, update);
        swarm_peer_drop(swarm, peer);
    }
    while (!swarm_link_alone(&later)) {
        struct swarm_link *link = later.next;
        swarm_link_remove(link);
        swarm_link_append(&swarm->dirty, link);
    }
}

/* Arrivals */

void swarm_measure(struct gossip_swarm *swarm, struct swarm_peer *peer, uint64_t asked_ms)
{
    uint32_t took = (uint32_t)(swarm->now_ms - asked_ms);
    if (!peer->measured) { /* RFC 6298 */
        peer->srtt_ms = took;
        peer->deviation_ms = took / 2;
        peer->measured = true;
    } else {
        uint32_t error = took > peer->srtt_ms ? took - peer->srtt_ms : peer->srtt_ms - took;
        peer->deviation_ms = (3 * peer->deviation_ms + error) / 4;
        peer->srtt_ms = (uint32_t)(((uint64_t)7 * peer->srtt_ms + took) / 8);
    }
    peer->backoff = 0;
    if (peer->window < swarm->options.outstanding)
        peer->window++;
}

/* The source sent bytes that are not the piece: it is asked for nothing of this content again. */
static void exclude(struct gossip_swarm *swarm, struct swarm_fetch *fetch, const struct replica_id *store)
{
    struct swarm_holder *holder = swarm_holder_find(fetch, store);
    struct swarm_link *next;
    if (holder == NULL)
        return;
    holder->state = SWARM_BAD;
    holder->peer->bad++;
    holder->peer->bad_until_ms = swarm->now_ms + SWARM_BAD_MS;
    for (struct swarm_link *link = fetch->requests.next; link != &fetch->requests; link = next) {
        struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_fetch);
        next = link->next;
        if (request->holder == holder)
            swarm_request_release(swarm, request, true);
    }
}

static void failed(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                   const struct gossip_swarm_event *event, struct gossip_update *update)
{
    switch (event->code) {
    case REPLICA_E_MISMATCH:
        exclude(swarm, fetch, &event->source);
        swarm_fetch_advance(swarm, fetch, update);
        return;
    case REPLICA_E_ABSENT: /* the content, or a piece above this one, has gone */
        swarm_fetch_restart(swarm, fetch, update);
        return;
    default: /* no room, or the disk fails: nobody else's bytes would do better now */
        swarm_fetch_note_room(fetch, event->code, update);
        if (!swarm_fetch_fail(swarm, fetch, event->code, 0, update))
            swarm_fetch_search_later(swarm, fetch);
    }
}

void swarm_piece(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                 struct gossip_update *update)
{
    struct swarm_fetch *fetch = swarm_fetch_find(swarm, &event->content);
    uint8_t kind = (uint8_t)event->piece.kind;
    struct swarm_request *request = NULL;
    swarm_peer_heard(swarm, &event->source);
    if (event->code == 0)
        swarm->received_bytes += event->bytes;
    else if (event->code == REPLICA_E_MISMATCH)
        swarm->bad_pieces++;
    if (fetch == NULL)
        return;
    request = swarm_request_find(fetch, &event->source, kind, event->piece.index);
    if (request == NULL && event->code != 0 && event->code != REPLICA_E_MISMATCH)
        return; /* not asked for, and of no use */
    if (request != NULL) {
        if (event->code == 0)
            swarm_measure(swarm, request->holder->peer, request->asked_ms);
        if (event->code == 0 && request->stolen && fetch->large->steal < swarm->options.outstanding)
            fetch->large->steal *= 2;
        swarm_request_release(swarm, request, false);
    }
    if (event->code == 0)
        swarm_fetch_present(swarm, fetch, kind, event->piece.index, event->bytes, update);
    else
        failed(swarm, fetch, event, update);
}

/* It has not got the piece after all. */
static void lacks(struct swarm_holder *holder, const struct swarm_item *item)
{
    bool chunk = item->kind == REPLICA_PIECE_CHUNK;
    if (holder->state == SWARM_PARTIAL && chunk && holder->bits != NULL)
        swarm_bit_set(holder->bits, item->index, false);
    else if (holder->state != SWARM_BAD)
        holder->state = SWARM_LACKS;
}

void swarm_refused(struct gossip_swarm *swarm, const struct replica_id *from, const struct swarm_item *item,
                   struct gossip_update *update)
{
    struct swarm_fetch *fetch = swarm_fetch_find(swarm, &item->content);
    struct swarm_request *request =
        fetch == NULL ? NULL : swarm_request_find(fetch, from, item->kind, item->index);
    struct swarm_holder *holder;
    if (request == NULL || item->kind == SWARM_PIECE_CONNECT)
        return;
    holder = request->holder;
    swarm_request_release(swarm, request, false);
    if (item->code == REPLICA_E_BUSY)
        holder->peer->paused_until_ms = swarm->now_ms + PAUSE_MS;
    else
        lacks(holder, item);
    swarm_fetch_advance(swarm, fetch, update);
}
