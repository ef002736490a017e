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
#include "swarm/swarm.h"

#include "replica/error.h"

#include <string.h>

#define PIECE_MAX  ((uint64_t)((REPLICA_CONTENT_SIZE_MAX / REPLICA_CHUNK_SIZE) * 4 + 3))
#define BITMAP_MAX ((size_t)(REPLICA_CONTENT_SIZE_MAX / REPLICA_CHUNK_SIZE / 8))

_Static_assert(BITMAP_MAX + 4096 < GOSSIP_MESSAGE_SIZE_MAX, "the largest content's bitmap fits in a message");

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
        swarm_holder_ready(swarm, holder);
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

/* Adds the chunks to what the holder has. */
static void take_news(struct gossip_swarm *swarm, struct swarm_holder *holder, bool whole,
                      const uint32_t *chunks, size_t n)
{
    if (whole) {
        swarm_holder_learn(swarm, holder, SWARM_WHOLE, NULL, 0);
        return;
    }
    if (holder->state != SWARM_PARTIAL || holder->bits == NULL)
        swarm_holder_learn(swarm, holder, SWARM_PARTIAL, NULL, 0);
    for (size_t i = 0; i < n && holder->bits != NULL; i++)
        swarm_bit_set(holder->bits, chunks[i], true);
}

static int on_have(struct gossip_swarm *swarm, const struct gossip_principal *from,
                   struct replica_pack_reader *reader)
{
    uint32_t chunks[SWARM_HAVE_MAX];
    struct replica_content_id content;
    struct swarm_fetch *fetch;
    struct swarm_holder *holder;
    bool whole;
    size_t fields = begin_fields(reader, 3), n;
    replica_pack_read_content_id(reader, &content);
    replica_pack_read_bool(reader, &whole);
    replica_pack_read_array(reader, SWARM_HAVE_MAX, &n);
    for (size_t i = 0; i < n && !reader->failed; i++) {
        uint64_t chunk = 0;
        replica_pack_read_uint(reader, PIECE_MAX / 4, &chunk);
        chunks[i] = (uint32_t)chunk;
        if (chunk >= replica_merkle_chunks(content.length))
            reader->failed = true;
    }
    skip_fields(reader, fields, 3);
    if (replica_pack_reader_finish(reader) != 0)
        return REPLICA_E_MALFORMED;
    fetch = swarm_fetch_find(swarm, &content);
    holder = fetch == NULL || fetch->large == NULL ? NULL : swarm_holder_find(fetch, &from->store);
    if (holder == NULL || holder->state == SWARM_BAD || holder->state == SWARM_WHOLE)
        return 0;
    holder->peer->dead = false;
    take_news(swarm, holder, whole, chunks, n);
    fetch->large->steal /= 2;          /* what was left to it does come */
    swarm_holder_ready(swarm, holder); /* a search goes on beside it until something comes */
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
        return on_have(swarm, message->from, &reader);
    case SWARM_ASK:
        return on_ask(swarm, message->from, &reader, update);
    case SWARM_REFUSE:
        return on_refuse(swarm, message->from, &reader, update);
    case SWARM_CANCEL:
        return on_cancel(swarm, message->from, &reader);
    }
    return REPLICA_E_MALFORMED;
}
