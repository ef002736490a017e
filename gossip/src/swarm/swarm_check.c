/* What must hold between steps, for tests and the simulator. */
#include "swarm/swarm.h"

#include <assert.h>

static void check_large(const struct swarm_fetch *fetch)
{
    const struct swarm_large *large = fetch->large;
    uint32_t present = 0, stolen = 0;
    for (uint32_t chunk = 0; chunk < large->chunks; chunk++)
        present += swarm_bit(large->have, chunk);
    assert(present == large->present);
    for (const struct swarm_link *link = fetch->requests.next; link != &fetch->requests; link = link->next) {
        const struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_fetch);
        stolen += request->stolen;
        if (request->kind == REPLICA_PIECE_CHUNK)
            assert(swarm_bit(large->asked, request->index));
    }
    assert(stolen == large->stolen);
    assert(large->news_n == 0 || !swarm_link_alone(&large->telling));
}

/* Returns the bytes asked for. */
static uint64_t check_fetch(const struct swarm_fetch *fetch)
{
    uint64_t bytes = 0;
    size_t requests = 0, holders = 0;
    for (const struct swarm_link *link = fetch->requests.next; link != &fetch->requests; link = link->next) {
        const struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_fetch);
        assert(request->sent);
        assert(request->holder->fetch == fetch);
        assert(request->holder->state != SWARM_BAD || request->kind == SWARM_PIECE_CONNECT);
        bytes += request->bytes;
        requests++;
    }
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        holders++;
    assert(requests == fetch->requests_n);
    assert(holders == fetch->holders_n);
    assert(holders <= GOSSIP_SWARM_SOURCES_MAX);
    assert(fetch->wants > 0 || !swarm_link_alone(&fetch->waiters));
    /* Somebody will come back to it: an answer, a turn, or time. */
    if (requests == 0 && swarm_link_alone(&fetch->timer)) {
        bool queued = false;
        for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
            queued = queued || !swarm_link_alone(&holder->ready);
        assert(queued);
    }
    if (fetch->large != NULL)
        check_large(fetch);
    return bytes;
}

static void check_peer(const struct gossip_swarm *swarm, const struct swarm_peer *peer)
{
    uint64_t bytes = 0;
    uint32_t asked = 0, queued = 0;
    assert(swarm_link_alone(&peer->outgoing));
    for (const struct swarm_link *link = peer->requests.next; link != &peer->requests; link = link->next) {
        bytes += SWARM_ITEM(link, struct swarm_request, in_peer)->bytes;
        asked++;
    }
    for (const struct swarm_link *link = peer->queue.next; link != &peer->queue; link = link->next)
        queued++;
    assert(bytes == peer->asked_bytes);
    assert(asked == peer->asked);
    assert(queued == peer->queue_n && queued <= SWARM_QUEUE_MAX);
    assert((asked > 0) == !swarm_link_alone(&peer->active));
    assert((queued > 0) == !swarm_link_alone(&peer->turn));
    assert((peer->refs == 0) == !swarm_link_alone(&peer->unused));
    assert(peer->window >= 1 && peer->window <= swarm->options.outstanding);
}

void swarm_check_invariants(const struct gossip_swarm *swarm)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < swarm->fetches.buckets_n; i++)
        for (const struct swarm_node *node = swarm->fetches.buckets[i]; node != NULL; node = node->next)
            bytes += check_fetch(SWARM_ITEM(node, struct swarm_fetch, node));
    for (size_t i = 0; i < swarm->peers.buckets_n; i++)
        for (const struct swarm_node *node = swarm->peers.buckets[i]; node != NULL; node = node->next)
            check_peer(swarm, SWARM_ITEM(node, struct swarm_peer, node));
    assert(bytes == swarm->credit_used);
    assert(bytes <= swarm->options.credit_bytes || swarm->credit_used <= REPLICA_CHUNK_SIZE);
    assert(swarm->uploading_n <= swarm->options.upload_slots);
    assert(swarm->queued_n <= SWARM_QUEUES_MAX);
    assert(swarm->peers.n <= SWARM_PEERS_MAX);
    assert(swarm->topics.n <= SWARM_TOPICS_MAX);
}
