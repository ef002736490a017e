/* Writing messages; what they look like is told in swarm_message.c. */
#include "swarm/swarm.h"

#include "replica/error.h"

#include <string.h>

static uint64_t piece_number(uint8_t kind, uint32_t index)
{
    return (uint64_t)index * 4 + kind;
}

/* Bits are kept as words of 64; what is on the wire does not depend on the machine. */
static void pack_bits(struct gossip_swarm *swarm, const uint64_t *bits, uint32_t n)
{
    size_t size = bits == NULL ? 0 : ((size_t)n + 7) / 8;
    uint8_t *room;
    replica_buffer_clear(&swarm->bitmap);
    room = replica_buffer_reserve(&swarm->bitmap, size);
    if (room == NULL)
        size = 0;
    for (size_t i = 0; i < size; i++)
        room[i] = (uint8_t)(bits[i / 8] >> (i % 8 * 8));
    while (size > 0 && room[size - 1] == 0)
        size--;
    replica_pack_bin(&swarm->payload, size == 0 ? (const uint8_t *)"" : room, size);
}

static void pack_others(struct gossip_swarm *swarm, const struct replica_id *others, size_t n)
{
    replica_pack_array(&swarm->payload, n);
    for (size_t i = 0; i < n; i++)
        replica_pack_id(&swarm->payload, &others[i]);
}

static void send(struct gossip_swarm *swarm, const struct replica_id *to, enum swarm_message type,
                 struct gossip_update *update)
{
    gossip_update_send(update, to, GOSSIP_ROOM_SWARM, (uint8_t)type, &swarm->payload, false);
}

void swarm_send_connect(struct gossip_swarm *swarm, const struct swarm_holder *holder,
                        struct gossip_update *update)
{
    const struct swarm_fetch *fetch = holder->fetch;
    replica_buffer_clear(&swarm->payload);
    replica_pack_array(&swarm->payload, 3);
    replica_pack_id(&swarm->payload, &swarm->volumes[holder->volume]);
    replica_pack_content_id(&swarm->payload, &fetch->content);
    pack_bits(swarm, fetch->large->have, fetch->large->chunks);
    send(swarm, &holder->peer->store, SWARM_CONNECT, update);
}

/* What lies here though nobody fetches it now; only the first chunks, as each is looked up. */
static void pack_stored(struct gossip_swarm *swarm, const struct replica_content_id *content)
{
    uint64_t bits[SWARM_SCAN_MAX / 64] = {0};
    uint32_t chunks = replica_merkle_chunks(content->length);
    if (chunks > SWARM_SCAN_MAX)
        chunks = SWARM_SCAN_MAX;
    for (uint32_t i = 0; i < chunks; i++)
        if (replica_contents_has(swarm->contents, content, (struct replica_piece){REPLICA_PIECE_CHUNK, i}))
            swarm_bit_set(bits, i, true);
    pack_bits(swarm, bits, chunks);
}

void swarm_send_map(struct gossip_swarm *swarm, const struct replica_id *to,
                    const struct replica_content_id *content, enum swarm_holding state,
                    const struct replica_id *others, size_t others_n, struct gossip_update *update)
{
    const struct swarm_fetch *fetch = swarm_fetch_find(swarm, content);
    replica_buffer_clear(&swarm->payload);
    replica_pack_array(&swarm->payload, 4);
    replica_pack_content_id(&swarm->payload, content);
    replica_pack_uint(&swarm->payload, state);
    if (state != SWARM_PARTIAL)
        pack_bits(swarm, NULL, 0);
    else if (fetch != NULL && fetch->large != NULL)
        pack_bits(swarm, fetch->large->have, fetch->large->chunks);
    else
        pack_stored(swarm, content);
    pack_others(swarm, others, others_n);
    send(swarm, to, SWARM_MAP, update);
}

void swarm_send_news(struct gossip_swarm *swarm, struct swarm_fetch *fetch, bool whole,
                     struct gossip_update *update)
{
    struct swarm_large *large = fetch->large;
    replica_buffer_clear(&swarm->payload);
    replica_pack_array(&swarm->payload, 3);
    replica_pack_content_id(&swarm->payload, &fetch->content);
    replica_pack_bool(&swarm->payload, whole);
    replica_pack_array(&swarm->payload, whole ? 0 : large->news_n);
    for (uint32_t i = 0; !whole && i < large->news_n; i++)
        replica_pack_uint(&swarm->payload, large->news[i]);
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        if (!holder->peer->dead && (holder->state == SWARM_PARTIAL || holder->connecting))
            send(swarm, &holder->peer->store, SWARM_HAVE, update);
    large->news_n = 0;
    large->told_ms = swarm->now_ms;
    swarm_link_remove(&large->telling);
}

void swarm_telling_due(struct gossip_swarm *swarm, struct gossip_update *update)
{
    while (!swarm_link_alone(&swarm->telling)) {
        struct swarm_large *large = SWARM_ITEM(swarm->telling.next, struct swarm_large, telling);
        if (large->tell_at_ms > swarm->now_ms)
            return;
        swarm_send_news(swarm, large->fetch, false, update);
    }
}

/* Runs of requests of one holder share its volume and content. */
static size_t run_of(const struct swarm_peer *peer, const struct swarm_link *link, size_t max)
{
    const struct swarm_holder *holder = SWARM_ITEM(link, struct swarm_request, in_peer)->holder;
    size_t n = 0;
    for (; link != &peer->outgoing && n < max; link = link->next, n++) {
        const struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_peer);
        if (request->holder != holder || request->kind == SWARM_PIECE_CONNECT)
            break;
    }
    return n;
}

/* CONNECTs left at once, in messages of their own. */
static void move_connects(struct swarm_peer *peer)
{
    for (struct swarm_link *link = peer->outgoing.next, *next; link != &peer->outgoing; link = next) {
        struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_peer);
        next = link->next;
        if (request->kind != SWARM_PIECE_CONNECT)
            continue;
        request->sent = true;
        swarm_link_remove(link);
        swarm_link_append(&peer->requests, link);
    }
}

static void pack_run(struct gossip_swarm *swarm, struct swarm_peer *peer, size_t n)
{
    const struct swarm_holder *holder =
        SWARM_ITEM(peer->outgoing.next, struct swarm_request, in_peer)->holder;
    replica_pack_array(&swarm->payload, 3);
    replica_pack_id(&swarm->payload, &swarm->volumes[holder->volume]);
    replica_pack_content_id(&swarm->payload, &holder->fetch->content);
    replica_pack_array(&swarm->payload, n);
    while (n-- > 0) {
        struct swarm_request *request = SWARM_ITEM(peer->outgoing.next, struct swarm_request, in_peer);
        replica_pack_uint(&swarm->payload, piece_number(request->kind, request->index));
        request->sent = true;
        swarm_link_remove(&request->in_peer);
        swarm_link_append(&peer->requests, &request->in_peer);
    }
}

/* One message of at most SWARM_ASK_MAX pieces: first how many runs it has, then the runs. */
static void send_ask(struct gossip_swarm *swarm, struct swarm_peer *peer, struct gossip_update *update)
{
    size_t runs = 0, pieces = 0;
    for (struct swarm_link *link = peer->outgoing.next; link != &peer->outgoing && pieces < SWARM_ASK_MAX;
         runs++) {
        size_t n = run_of(peer, link, SWARM_ASK_MAX - pieces);
        pieces += n;
        while (n-- > 0)
            link = link->next;
    }
    replica_buffer_clear(&swarm->payload);
    replica_pack_array(&swarm->payload, runs);
    for (size_t left = pieces; left > 0;) {
        size_t n = run_of(peer, peer->outgoing.next, left);
        pack_run(swarm, peer, n);
        left -= n;
    }
    send(swarm, &peer->store, SWARM_ASK, update);
}

void swarm_send_asks(struct gossip_swarm *swarm, struct swarm_peer *peer, struct gossip_update *update)
{
    move_connects(peer);
    while (!swarm_link_alone(&peer->outgoing))
        send_ask(swarm, peer, update);
}

void swarm_pack_cancel(struct swarm_peer *peer, const struct swarm_request *request)
{
    if (peer->cancels_n == SWARM_CANCELS_MAX)
        return; /* it sends the rest in vain */
    replica_pack_array(&peer->cancels, 2);
    replica_pack_content_id(&peer->cancels, &request->holder->fetch->content);
    replica_pack_uint(&peer->cancels, piece_number(request->kind, request->index));
    peer->cancels_n++;
}

void swarm_send_cancels(struct gossip_swarm *swarm, struct swarm_peer *peer, struct gossip_update *update)
{
    if (peer->cancels_n == 0)
        return;
    replica_buffer_clear(&swarm->payload);
    replica_pack_array(&swarm->payload, peer->cancels_n);
    replica_buffer_append(&swarm->payload, peer->cancels.data, peer->cancels.size);
    send(swarm, &peer->store, SWARM_CANCEL, update);
    replica_buffer_clear(&peer->cancels);
    peer->cancels_n = 0;
}

void swarm_send_refuse(struct gossip_swarm *swarm, const struct replica_id *to,
                       const struct swarm_item *items, size_t n, const struct replica_id *others,
                       size_t others_n, struct gossip_update *update)
{
    replica_buffer_clear(&swarm->payload);
    replica_pack_array(&swarm->payload, 2);
    replica_pack_array(&swarm->payload, n);
    for (size_t i = 0; i < n; i++) {
        replica_pack_array(&swarm->payload, 3);
        replica_pack_content_id(&swarm->payload, &items[i].content);
        replica_pack_uint(&swarm->payload, piece_number(items[i].kind, items[i].index));
        replica_pack_int(&swarm->payload, items[i].code);
    }
    pack_others(swarm, others, others_n);
    send(swarm, to, SWARM_REFUSE, update);
}
