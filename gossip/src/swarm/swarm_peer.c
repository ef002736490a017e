/* Other stores, and what was asked of them. */
#include "swarm/swarm.h"

#include <assert.h>
#include <stdlib.h>

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
