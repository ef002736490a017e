/* Asking other stores for pieces: how much at once, how long to wait, and what comes of it. */
#include "swarm.h"

#include "replica/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PAUSE_MS          200    /* before a busy peer is asked again */
#define REQUEST_MS_MAX    120000 /* longest deadline, whatever was measured */
#define DEADLINES_OF_LIFE 8 /* deadlines after which a request is lost though its peer sends other pieces */
#define TAKE_OVER_FACTOR                                                                                     \
    4 /* times an idle peer's answer time that a request waits at another before it moves */

/* Peers */

static uint64_t store_hash(const struct replica_id *store)
{
    return swarm_mix(replica_u64_decode(store->bytes) ^ replica_u64_decode(store->bytes + 8));
}

struct swarm_peer *swarm_peer_find(const struct gossip_swarm *swarm, const struct replica_id *store)
{
    for (struct swarm_node *node = swarm_table_chain(&swarm->peers, store_hash(store)); node != NULL;
         node = node->next) {
        struct swarm_peer *peer = SWARM_ITEM(node, struct swarm_peer, node);
        if (replica_id_equal(&peer->store, store))
            return peer;
    }
    return NULL;
}

static struct swarm_peer *make_peer(struct gossip_swarm *swarm, const struct replica_id *store)
{
    struct swarm_peer *peer;
    if (swarm->peers.n >= SWARM_PEERS_MAX) {
        if (swarm_link_alone(&swarm->unused))
            return NULL;
        swarm_peer_destroy(swarm, SWARM_ITEM(swarm->unused.next, struct swarm_peer, unused));
    }
    peer = calloc(1, sizeof *peer);
    if (peer == NULL || swarm_table_add(&swarm->peers, &peer->node, store_hash(store)) != 0) {
        free(peer);
        swarm->no_memory = true;
        return NULL;
    }
    peer->store = *store;
    peer->window = swarm->options.outstanding;
    swarm_link_init(&peer->unused);
    swarm_link_init(&peer->outgoing);
    swarm_link_init(&peer->requests);
    swarm_link_init(&peer->ready[0]);
    swarm_link_init(&peer->ready[1]);
    swarm_link_init(&peer->active);
    swarm_link_init(&peer->dirty);
    swarm_link_init(&peer->queue);
    swarm_link_init(&peer->turn);
    replica_buffer_init(&peer->cancels);
    return peer;
}

struct swarm_peer *swarm_peer_take(struct gossip_swarm *swarm, const struct replica_id *store)
{
    struct swarm_peer *peer = swarm_peer_find(swarm, store);
    if (peer == NULL)
        peer = make_peer(swarm, store);
    if (peer == NULL)
        return NULL;
    swarm_peer_hold(peer);
    return peer;
}

void swarm_peer_hold(struct swarm_peer *peer)
{
    peer->refs++;
    swarm_link_remove(&peer->unused);
}

/* Kept while there is room: what was measured, and whether it sent bad pieces, stays known. */
void swarm_peer_drop(struct gossip_swarm *swarm, struct swarm_peer *peer)
{
    assert(peer->refs > 0);
    if (--peer->refs == 0)
        swarm_link_append(&swarm->unused, &peer->unused);
}

void swarm_peer_destroy(struct gossip_swarm *swarm, struct swarm_peer *peer)
{
    assert(peer->refs == 0);
    swarm_link_remove(&peer->unused);
    swarm_link_remove(&peer->active);
    swarm_link_remove(&peer->dirty);
    swarm_link_remove(&peer->turn);
    swarm_table_remove(&swarm->peers, &peer->node);
    replica_buffer_close(&peer->cancels);
    free(peer);
}

void swarm_peer_dirty(struct gossip_swarm *swarm, struct swarm_peer *peer)
{
    if (swarm_link_alone(&peer->dirty))
        swarm_link_append(&swarm->dirty, &peer->dirty);
}

/* A dead one that speaks is not dead. */
void swarm_peer_heard(struct gossip_swarm *swarm, const struct replica_id *store)
{
    struct swarm_peer *peer = swarm_peer_find(swarm, store);
    if (peer == NULL)
        return;
    peer->dead = false;
    peer->progress_ms = swarm->now_ms;
}

/* Requests */

static void set_asked(struct swarm_fetch *fetch, uint8_t kind, uint32_t index, bool value)
{
    struct swarm_large *large = fetch->large;
    if (large == NULL)
        return;
    if (kind == REPLICA_PIECE_ROOT)
        large->root_asked = value;
    else if (kind == REPLICA_PIECE_PAGE)
        swarm_bit_set(large->pages_asked, index, value);
    else if (kind == REPLICA_PIECE_CHUNK)
        swarm_bit_set(large->asked, index, value);
}

struct swarm_request *swarm_request_add(struct gossip_swarm *swarm, struct swarm_holder *holder, uint8_t kind,
                                        uint32_t index, bool stolen)
{
    struct swarm_request *request = calloc(1, sizeof *request);
    struct swarm_peer *peer = holder->peer;
    if (request == NULL) {
        swarm->no_memory = true;
        return NULL;
    }
    request->holder = holder;
    request->kind = kind;
    request->index = index;
    request->stolen = stolen;
    request->bytes = swarm_piece_size(&holder->fetch->content, kind, index);
    request->asked_ms = swarm->now_ms;
    swarm_link_append(&peer->outgoing, &request->in_peer);
    swarm_link_append(&holder->fetch->requests, &request->in_fetch);
    if (swarm_link_alone(&peer->active))
        swarm_link_append(&swarm->active, &peer->active);
    holder->fetch->requests_n++;
    peer->asked++;
    if (kind == SWARM_PIECE_CONNECT)
        return request;
    peer->asked_bytes += request->bytes;
    swarm->credit_used += request->bytes;
    set_asked(holder->fetch, kind, index, true);
    if (holder->fetch->large != NULL) {
        holder->fetch->large->stolen += stolen;
        holder->fetch->large->dry_rounds = 0;
    }
    return request;
}

struct swarm_request *swarm_request_find(const struct swarm_fetch *fetch, const struct replica_id *store,
                                         uint8_t kind, uint32_t index)
{
    for (struct swarm_link *link = fetch->requests.next; link != &fetch->requests; link = link->next) {
        struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_fetch);
        if (request->kind == kind && request->index == index &&
            replica_id_equal(&request->holder->peer->store, store))
            return request;
    }
    return NULL;
}

void swarm_request_release(struct gossip_swarm *swarm, struct swarm_request *request, bool cancel)
{
    struct swarm_holder *holder = request->holder;
    struct swarm_peer *peer = holder->peer;
    swarm_link_remove(&request->in_peer);
    swarm_link_remove(&request->in_fetch);
    holder->fetch->requests_n--;
    if (--peer->asked == 0)
        swarm_link_remove(&peer->active);
    swarm_peer_dirty(swarm, peer);
    if (request->kind == SWARM_PIECE_CONNECT) {
        holder->connecting = false;
        free(request);
        return;
    }
    peer->asked_bytes -= request->bytes;
    swarm->credit_used -= request->bytes;
    set_asked(holder->fetch, request->kind, request->index, false);
    if (holder->fetch->large != NULL)
        holder->fetch->large->stolen -= request->stolen;
    if (cancel && request->sent && !peer->dead)
        swarm_pack_cancel(peer, request);
    free(request);
}

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
    case REPLICA_E_NOSPACE:
    case REPLICA_E_IO:
        if (!swarm_fetch_fail(swarm, fetch, event->code, 0, update))
            swarm_fetch_search_later(swarm, fetch);
        return;
    default:
        swarm_fetch_advance(swarm, fetch, update);
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

/* Deadlines */

uint64_t swarm_deadline_ms(const struct gossip_swarm *swarm, const struct swarm_peer *peer)
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
    uint64_t deadline = swarm_deadline_ms(swarm, peer);
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
