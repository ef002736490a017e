/* The wire. All are MessagePack; a piece is the number index · 4 + kind.
 *
 *   CONNECT  [volume, content, bitmap]              "I fetch this and have these chunks; and you?"
 *   MAP      [content, holding, bitmap, [store…]]   the answer; stores: others that fetch or have it
 *   HAVE     [content, whole, [chunk…]]             what arrived since, to those connected
 *   ASK      [[volume, content, [piece…]]…]         bytes, please: they come over the data channel
 *   REFUSE   [[[content, piece, code]…], [store…]]  ABSENT, or BUSY and who else may have it
 *   CANCEL   [[content, piece]…]                    no longer needed
 *
 * A bitmap has chunk i in byte i / 8, bit i % 8, and ends where only zeros follow. */
#include "swarm.h"

#include "replica/error.h"

#include <string.h>

#define PIECE_MAX  ((uint64_t)((REPLICA_CONTENT_SIZE_MAX / REPLICA_CHUNK_SIZE) * 4 + 3))
#define BITMAP_MAX ((size_t)(REPLICA_CONTENT_SIZE_MAX / REPLICA_CHUNK_SIZE / 8))

_Static_assert(BITMAP_MAX + 4096 < GOSSIP_MESSAGE_SIZE_MAX, "the largest content's bitmap fits in a message");

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

/* Writing */

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

/* Reading. Nothing changes before the whole message was read. */

/* A tuple of at least n fields; a newer version may append more. */
static size_t begin_fields(struct replica_pack_reader *reader, size_t n)
{
    size_t fields;
    replica_pack_read_array(reader, n + REPLICA_PACK_DEPTH_MAX, &fields);
    if (fields < n)
        reader->failed = true;
    return fields;
}

static void skip_fields(struct replica_pack_reader *reader, size_t fields, size_t known)
{
    for (size_t i = known; i < fields && !reader->failed; i++)
        replica_pack_skip(reader);
}

static void read_piece(struct replica_pack_reader *reader, struct swarm_item *item)
{
    uint64_t number;
    replica_pack_read_uint(reader, PIECE_MAX, &number);
    item->kind = (uint8_t)(number % 4);
    item->index = (uint32_t)(number / 4);
    if (item->kind > REPLICA_PIECE_CHUNK)
        reader->failed = true;
}

static void read_others(struct replica_pack_reader *reader, struct replica_id *ret, size_t *ret_n)
{
    replica_pack_read_array(reader, SWARM_OTHERS_MAX, ret_n);
    for (size_t i = 0; i < *ret_n; i++)
        replica_pack_read_id(reader, &ret[i]);
}

/* Stores that a peer named: only such as membership knows. */
static void add_others(struct gossip_swarm *swarm, struct swarm_fetch *fetch, uint16_t volume,
                       const struct replica_id *others, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!replica_id_equal(&others[i], &swarm->self) && !replica_id_is_zero(&others[i]) &&
            swarm_alive(swarm, &others[i]))
            swarm_holder_add(swarm, fetch, &others[i], volume, SWARM_UNKNOWN);
}

static int on_connect(struct gossip_swarm *swarm, const struct gossip_principal *from,
                      struct replica_pack_reader *reader, struct gossip_update *update)
{
    struct replica_id volume;
    struct replica_content_id content;
    const uint8_t *bitmap;
    size_t fields = begin_fields(reader, 3), n;
    int rv;
    replica_pack_read_id(reader, &volume);
    replica_pack_read_content_id(reader, &content);
    replica_pack_read_bin(reader, BITMAP_MAX, &bitmap, &n);
    skip_fields(reader, fields, 3);
    rv = replica_pack_reader_finish(reader);
    if (rv != 0 || n > ((size_t)replica_merkle_chunks(content.length) + 7) / 8)
        return REPLICA_E_MALFORMED;
    swarm_serve_connect(swarm, from, &volume, &content, bitmap, n, update);
    return 0;
}

/* It may be asked for more now. */
static void wake_up(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct swarm_holder *holder,
                    struct gossip_update *update)
{
    if (fetch->searching)
        swarm_fetch_start(swarm, fetch, update);
    else
        swarm_holder_ready(swarm, holder);
}

static void take_map(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct swarm_holder *holder,
                     enum swarm_holding state, const uint8_t *bitmap, size_t n, struct gossip_update *update)
{
    struct swarm_request *request = swarm_request_find(fetch, &holder->peer->store, SWARM_PIECE_CONNECT, 0);
    if (request != NULL) {
        swarm_measure(swarm, holder->peer, request->asked_ms);
        swarm_request_release(swarm, request, false);
    }
    holder->connected = true;
    swarm_holder_learn(swarm, holder, state, bitmap, n);
    if (state == SWARM_LACKS)
        swarm_fetch_advance(swarm, fetch, update);
    else
        wake_up(swarm, fetch, holder, update);
}

static int on_map(struct gossip_swarm *swarm, const struct gossip_principal *from,
                  struct replica_pack_reader *reader, struct gossip_update *update)
{
    struct replica_id others[SWARM_OTHERS_MAX];
    struct replica_content_id content;
    struct swarm_fetch *fetch;
    struct swarm_holder *holder;
    const uint8_t *bitmap;
    uint64_t state;
    size_t fields = begin_fields(reader, 4), n, others_n;
    replica_pack_read_content_id(reader, &content);
    replica_pack_read_uint(reader, SWARM_WHOLE, &state);
    replica_pack_read_bin(reader, BITMAP_MAX, &bitmap, &n);
    read_others(reader, others, &others_n);
    skip_fields(reader, fields, 4);
    if (replica_pack_reader_finish(reader) != 0 || state < SWARM_LACKS ||
        n > ((size_t)replica_merkle_chunks(content.length) + 7) / 8)
        return REPLICA_E_MALFORMED;
    swarm_peer_heard(swarm, &from->store);
    fetch = swarm_fetch_find(swarm, &content);
    holder = fetch == NULL || fetch->large == NULL ? NULL : swarm_holder_find(fetch, &from->store);
    if (holder == NULL)
        return 0;
    add_others(swarm, fetch, holder->volume, others, others_n);
    swarm_fetch_ready(swarm, fetch);
    holder = swarm_holder_find(fetch, &from->store); /* it may have made room for another */
    if (holder != NULL)
        take_map(swarm, fetch, holder, (enum swarm_holding)state, bitmap, n, update);
    return 0;
}

/* Adds the chunks to what the holder has. Errors: MALFORMED. */
static int take_news(struct gossip_swarm *swarm, struct swarm_holder *holder, bool whole,
                     struct replica_pack_reader *reader, size_t n)
{
    if (whole) {
        swarm_holder_learn(swarm, holder, SWARM_WHOLE, NULL, 0);
        return 0;
    }
    if (holder->state != SWARM_PARTIAL || holder->bits == NULL)
        swarm_holder_learn(swarm, holder, SWARM_PARTIAL, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        uint64_t chunk;
        if (replica_pack_read_uint(reader, holder->fetch->large->chunks - 1, &chunk) != 0)
            return REPLICA_E_MALFORMED;
        if (holder->bits != NULL)
            swarm_bit_set(holder->bits, (uint32_t)chunk, true);
    }
    return 0;
}

static int on_have(struct gossip_swarm *swarm, const struct gossip_principal *from,
                   struct replica_pack_reader *reader, struct gossip_update *update)
{
    struct replica_content_id content;
    struct swarm_fetch *fetch;
    struct swarm_holder *holder;
    bool whole;
    size_t n;
    begin_fields(reader, 3);
    replica_pack_read_content_id(reader, &content);
    replica_pack_read_bool(reader, &whole);
    replica_pack_read_array(reader, SWARM_HAVE_MAX, &n);
    if (reader->failed)
        return REPLICA_E_MALFORMED;
    fetch = swarm_fetch_find(swarm, &content);
    holder = fetch == NULL || fetch->large == NULL ? NULL : swarm_holder_find(fetch, &from->store);
    if (holder == NULL || holder->state == SWARM_BAD || holder->state == SWARM_WHOLE)
        return 0;
    holder->peer->dead = false;
    if (take_news(swarm, holder, whole, reader, n) != 0)
        return REPLICA_E_MALFORMED;
    fetch->large->steal /= 2; /* what was left to it does come */
    wake_up(swarm, fetch, holder, update);
    return 0;
}

static int on_ask(struct gossip_swarm *swarm, const struct gossip_principal *from,
                  struct replica_pack_reader *reader, struct gossip_update *update)
{
    size_t runs, items = 0;
    replica_pack_read_array(reader, SWARM_ASK_MAX, &runs);
    for (size_t i = 0; i < runs && !reader->failed; i++) {
        struct swarm_item item = {.code = 0};
        size_t fields = begin_fields(reader, 3), n;
        replica_pack_read_id(reader, &item.volume);
        replica_pack_read_content_id(reader, &item.content);
        replica_pack_read_array(reader, SWARM_ASK_MAX - items, &n);
        for (size_t j = 0; j < n; j++) {
            read_piece(reader, &item);
            swarm->items[items++] = item;
        }
        skip_fields(reader, fields, 3);
    }
    if (replica_pack_reader_finish(reader) != 0)
        return REPLICA_E_MALFORMED;
    swarm_serve_asks(swarm, from, swarm->items, items, update);
    return 0;
}

static int on_refuse(struct gossip_swarm *swarm, const struct gossip_principal *from,
                     struct replica_pack_reader *reader, struct gossip_update *update)
{
    struct replica_id others[SWARM_OTHERS_MAX];
    size_t fields = begin_fields(reader, 2), n, others_n;
    replica_pack_read_array(reader, SWARM_ASK_MAX, &n);
    for (size_t i = 0; i < n && !reader->failed; i++) {
        struct swarm_item *item = &swarm->items[i];
        size_t item_fields = begin_fields(reader, 3);
        int64_t code;
        replica_pack_read_content_id(reader, &item->content);
        read_piece(reader, item);
        replica_pack_read_int(reader, &code);
        skip_fields(reader, item_fields, 3);
        item->code = code == REPLICA_E_BUSY ? REPLICA_E_BUSY : REPLICA_E_ABSENT;
    }
    read_others(reader, others, &others_n);
    skip_fields(reader, fields, 2);
    if (replica_pack_reader_finish(reader) != 0)
        return REPLICA_E_MALFORMED;
    swarm_peer_heard(swarm, &from->store);
    for (size_t i = 0; i < n; i++) {
        const struct swarm_item item = swarm->items[i];
        struct swarm_fetch *fetch = others_n == 0 ? NULL : swarm_fetch_find(swarm, &item.content);
        if (fetch != NULL && item.code == REPLICA_E_BUSY &&
            swarm_request_find(fetch, &from->store, item.kind, item.index) != NULL)
            add_others(swarm, fetch, fetch->volume, others, others_n);
        swarm_refused(swarm, &from->store, &item, update);
    }
    return 0;
}

static int on_cancel(struct gossip_swarm *swarm, const struct gossip_principal *from,
                     struct replica_pack_reader *reader)
{
    size_t n;
    replica_pack_read_array(reader, SWARM_CANCELS_MAX, &n);
    for (size_t i = 0; i < n && !reader->failed; i++) {
        struct swarm_item *item = &swarm->cancelled[i];
        size_t fields = begin_fields(reader, 2);
        replica_pack_read_content_id(reader, &item->content);
        read_piece(reader, item);
        skip_fields(reader, fields, 2);
    }
    if (replica_pack_reader_finish(reader) != 0)
        return REPLICA_E_MALFORMED;
    swarm_serve_cancels(swarm, &from->store, swarm->cancelled, n);
    return 0;
}

int swarm_message(struct gossip_swarm *swarm, const struct gossip_message *message,
                  struct gossip_update *update)
{
    struct replica_pack_reader reader;
    replica_pack_reader_init(&reader, message->payload, message->size);
    switch ((enum swarm_message)message->type) {
    case SWARM_CONNECT:
        return on_connect(swarm, message->from, &reader, update);
    case SWARM_MAP:
        return on_map(swarm, message->from, &reader, update);
    case SWARM_HAVE:
        return on_have(swarm, message->from, &reader, update);
    case SWARM_ASK:
        return on_ask(swarm, message->from, &reader, update);
    case SWARM_REFUSE:
        return on_refuse(swarm, message->from, &reader, update);
    case SWARM_CANCEL:
        return on_cancel(swarm, message->from, &reader);
    }
    return REPLICA_E_MALFORMED;
}
