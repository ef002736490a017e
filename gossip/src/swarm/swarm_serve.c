/* Giving: whoever may read a volume gets the verified pieces of its contents that are here. A bounded number
 * is sent at once, receivers take turns, and what would wait too long is refused with the names of others
 * that may have it. */
#include "swarm/swarm.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define UPLOAD_MS_MAX   60000 /* a slot is free again after this, whatever became of its upload */
#define READS_PER_CHECK 4     /* of the kv, to know whether a content belongs to a volume */

/* Who asked about a content lately: they will have it soon. */
struct swarm_topic {
    struct swarm_node node;
    struct swarm_link used; /* longest unused first */
    struct replica_content_id content;
    struct replica_id stores[SWARM_TOPIC_PEERS];
    size_t n, next;
};

static struct swarm_topic *find_topic(const struct gossip_swarm *swarm,
                                      const struct replica_content_id *content)
{
    for (struct swarm_node *node = swarm_table_chain(&swarm->topics, replica_u64_decode(content->root));
         node != NULL; node = node->next) {
        struct swarm_topic *topic = SWARM_ITEM(node, struct swarm_topic, node);
        if (replica_content_id_equal(&topic->content, content))
            return topic;
    }
    return NULL;
}

static void free_topic(struct gossip_swarm *swarm, struct swarm_topic *topic)
{
    swarm_link_remove(&topic->used);
    swarm_table_remove(&swarm->topics, &topic->node);
    free(topic);
}

static struct swarm_topic *make_topic(struct gossip_swarm *swarm, const struct replica_content_id *content)
{
    struct swarm_topic *topic;
    if (swarm->topics.n == SWARM_TOPICS_MAX)
        free_topic(swarm, SWARM_ITEM(swarm->topics_used.next, struct swarm_topic, used));
    topic = calloc(1, sizeof *topic);
    if (topic == NULL ||
        swarm_table_add(&swarm->topics, &topic->node, replica_u64_decode(content->root)) != 0) {
        free(topic);
        swarm->no_memory = true;
        return NULL;
    }
    topic->content = *content;
    swarm_link_init(&topic->used);
    return topic;
}

static void remember(struct gossip_swarm *swarm, const struct replica_content_id *content,
                     const struct replica_id *store)
{
    struct swarm_topic *topic = find_topic(swarm, content);
    if (topic == NULL)
        topic = make_topic(swarm, content);
    if (topic == NULL)
        return;
    swarm_link_remove(&topic->used);
    swarm_link_append(&swarm->topics_used, &topic->used);
    for (size_t i = 0; i < topic->n; i++)
        if (replica_id_equal(&topic->stores[i], store))
            return;
    topic->stores[topic->next] = *store;
    topic->next = (topic->next + 1) % SWARM_TOPIC_PEERS;
    if (topic->n < SWARM_TOPIC_PEERS)
        topic->n++;
}

/* Some of them, not the one who asks. */
static size_t name_others(struct gossip_swarm *swarm, const struct replica_content_id *content,
                          const struct replica_id *asker, struct replica_id ret[SWARM_OTHERS_MAX])
{
    const struct swarm_topic *topic = find_topic(swarm, content);
    size_t start, n = 0;
    if (topic == NULL)
        return 0;
    start = (size_t)gossip_random_below(&swarm->random, topic->n);
    for (size_t i = 0; i < topic->n && n < SWARM_OTHERS_MAX; i++) {
        const struct replica_id *store = &topic->stores[(start + i) % topic->n];
        if (!replica_id_equal(store, asker) && swarm_alive(swarm, store))
            ret[n++] = *store;
    }
    return n;
}

/* Connections */

static bool is_allowed(const struct gossip_swarm *swarm, const struct gossip_principal *from,
                       const struct replica_id *volume, const struct replica_content_id *content,
                       struct gossip_update *update)
{
    const struct swarm_fetch *fetch = swarm_fetch_find(swarm, content);
    if (!swarm->directory.may_read(swarm->directory.context, volume, from))
        return false;
    if (fetch != NULL && swarm_fetch_wants(swarm, fetch, volume))
        return true;
    update->reads += READS_PER_CHECK;
    return swarm->directory.belongs(swarm->directory.context, volume, content);
}

/* The one who asks fetches it as well: it is asked back, and told what arrives here. */
static void connect_back(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                         const struct replica_id *store, const struct replica_id *volume,
                         const uint8_t *bitmap, size_t n)
{
    struct swarm_holder *holder;
    uint16_t number;
    if (swarm_volume_number(swarm, volume, &number) != 0)
        return;
    holder = swarm_holder_add(swarm, fetch, store, number, SWARM_UNKNOWN);
    if (holder == NULL)
        return;
    holder->peer->dead = false;
    holder->connected = true;
    swarm_holder_learn(swarm, holder, SWARM_PARTIAL, bitmap, n);
    swarm_holder_ready(swarm, holder);
}

void swarm_serve_connect(struct gossip_swarm *swarm, const struct gossip_principal *from,
                         const struct replica_id *volume, const struct replica_content_id *content,
                         const uint8_t *bitmap, size_t bitmap_n, struct gossip_update *update)
{
    struct replica_id others[SWARM_OTHERS_MAX];
    struct swarm_fetch *fetch = swarm_fetch_find(swarm, content);
    enum swarm_holding state = SWARM_LACKS;
    size_t others_n = 0;
    if (content->length > REPLICA_CHUNK_SIZE && content->length <= REPLICA_CONTENT_SIZE_MAX &&
        is_allowed(swarm, from, volume, content, update)) {
        enum replica_contents_state here = replica_contents_state(swarm->contents, content);
        if (here >= REPLICA_CONTENTS_FILLED)
            state = SWARM_WHOLE;
        else if (here == REPLICA_CONTENTS_PARTIAL)
            state = SWARM_PARTIAL;
        others_n = name_others(swarm, content, &from->store, others);
        if (state != SWARM_LACKS)
            remember(swarm, content, &from->store);
    }
    swarm_send_map(swarm, &from->store, content, state, others, others_n, update);
    if (state == SWARM_PARTIAL && fetch != NULL)
        connect_back(swarm, fetch, &from->store, volume, bitmap, bitmap_n);
}

/* Uploads */

static void free_upload(struct gossip_swarm *swarm, struct swarm_upload *upload)
{
    swarm_link_remove(&upload->link);
    swarm_peer_drop(swarm, upload->peer);
    free(upload);
}

static uint32_t upload_size(const struct swarm_upload *upload)
{
    return swarm_piece_size(&upload->content, (uint8_t)upload->piece.kind, upload->piece.index);
}

/* It leaves its receiver's queue, to be sent or freed. */
static void unqueue(struct gossip_swarm *swarm, struct swarm_upload *upload)
{
    swarm_link_remove(&upload->link);
    swarm->queued_n--;
    swarm->queued_bytes -= upload_size(upload);
    if (--upload->peer->queue_n == 0)
        swarm_link_remove(&upload->peer->turn);
}

/* Errors: BUSY. */
static int enqueue(struct gossip_swarm *swarm, struct swarm_peer *peer, const struct swarm_item *item)
{
    struct swarm_upload *upload;
    if (peer->queue_n >= SWARM_QUEUE_MAX || swarm->queued_n >= SWARM_QUEUES_MAX ||
        (peer->queue_n > 0 && swarm->queued_bytes >= SWARM_QUEUES_BYTES_MAX))
        return REPLICA_E_BUSY;
    upload = calloc(1, sizeof *upload);
    if (upload == NULL) {
        swarm->no_memory = true;
        return REPLICA_E_BUSY;
    }
    upload->peer = peer;
    upload->content = item->content;
    upload->piece = (struct replica_piece){(enum replica_piece_kind)item->kind, item->index};
    swarm_peer_hold(peer);
    swarm_link_append(&peer->queue, &upload->link);
    if (peer->queue_n++ == 0)
        swarm_link_append(&swarm->turns, &peer->turn);
    swarm->queued_n++;
    swarm->queued_bytes += upload_size(upload);
    return 0;
}

/* What became of each item: queued, ABSENT (not here, or none of the asker's business) or BUSY. */
static void queue_items(struct gossip_swarm *swarm, const struct gossip_principal *from,
                        struct swarm_peer *peer, struct swarm_item *items, size_t n,
                        struct gossip_update *update)
{
    bool allowed = false;
    for (size_t i = 0; i < n; i++) {
        struct replica_piece piece = {(enum replica_piece_kind)items[i].kind, items[i].index};
        if (i == 0 || !replica_content_id_equal(&items[i].content, &items[i - 1].content) ||
            !replica_id_equal(&items[i].volume, &items[i - 1].volume))
            allowed = is_allowed(swarm, from, &items[i].volume, &items[i].content, update);
        if (!allowed || !replica_contents_has(swarm->contents, &items[i].content, piece))
            items[i].code = REPLICA_E_ABSENT;
        else
            items[i].code = peer == NULL ? REPLICA_E_BUSY : enqueue(swarm, peer, &items[i]);
    }
}

/* Those refused with that code, moved to the front of items. */
static size_t gather(struct swarm_item *items, size_t from, size_t n, int code)
{
    size_t end = from;
    for (size_t i = from; i < n; i++)
        if (items[i].code == code) {
            struct swarm_item item = items[i];
            items[i] = items[end];
            items[end++] = item;
        }
    return end;
}

void swarm_serve_asks(struct gossip_swarm *swarm, const struct gossip_principal *from,
                      struct swarm_item *items, size_t n, struct gossip_update *update)
{
    struct swarm_peer *peer = swarm_peer_take(swarm, &from->store);
    size_t absent, busy;
    queue_items(swarm, from, peer, items, n, update);
    absent = gather(items, 0, n, REPLICA_E_ABSENT);
    busy = gather(items, absent, n, REPLICA_E_BUSY);
    if (absent > 0)
        swarm_send_refuse(swarm, &from->store, items, absent, NULL, 0, update);
    if (busy > absent) {
        struct replica_id others[SWARM_OTHERS_MAX];
        size_t others_n = name_others(swarm, &items[absent].content, &from->store, others);
        swarm_send_refuse(swarm, &from->store, items + absent, busy - absent, others, others_n, update);
    }
    if (peer != NULL)
        swarm_peer_drop(swarm, peer);
}

void swarm_serve_cancels(struct gossip_swarm *swarm, const struct replica_id *from,
                         const struct swarm_item *items, size_t n)
{
    struct swarm_peer *peer = swarm_peer_find(swarm, from);
    for (size_t i = 0; i < n && peer != NULL && peer->queue_n > 0; i++)
        for (struct swarm_link *link = peer->queue.next; link != &peer->queue; link = link->next) {
            struct swarm_upload *upload = SWARM_ITEM(link, struct swarm_upload, link);
            if (upload->piece.kind != items[i].kind || upload->piece.index != items[i].index ||
                !replica_content_id_equal(&upload->content, &items[i].content))
                continue;
            unqueue(swarm, upload);
            free_upload(swarm, upload);
            break;
        }
}

void swarm_serve_forget(struct gossip_swarm *swarm, struct swarm_peer *peer)
{
    while (peer->queue_n > 0) {
        struct swarm_upload *upload = SWARM_ITEM(peer->queue.next, struct swarm_upload, link);
        unqueue(swarm, upload);
        free_upload(swarm, upload);
    }
}

/* The shell says what became of each upload; but a slot lost for ever would be one less for everybody. */
static void free_forgotten(struct gossip_swarm *swarm)
{
    while (!swarm_link_alone(&swarm->uploading)) {
        struct swarm_upload *upload = SWARM_ITEM(swarm->uploading.next, struct swarm_upload, link);
        if (swarm->now_ms < upload->began_ms + UPLOAD_MS_MAX)
            return;
        swarm->uploading_n--;
        free_upload(swarm, upload);
    }
}

void swarm_upload_some(struct gossip_swarm *swarm, struct gossip_update *update)
{
    free_forgotten(swarm);
    while (swarm->uploading_n < swarm->options.upload_slots && !swarm_link_alone(&swarm->turns)) {
        struct swarm_peer *peer = SWARM_ITEM(swarm->turns.next, struct swarm_peer, turn);
        struct swarm_upload *upload = SWARM_ITEM(peer->queue.next, struct swarm_upload, link);
        unqueue(swarm, upload);
        if (peer->queue_n > 0) { /* the others first */
            swarm_link_remove(&peer->turn);
            swarm_link_append(&swarm->turns, &peer->turn);
        }
        upload->began_ms = swarm->now_ms;
        swarm_link_append(&swarm->uploading, &upload->link);
        swarm->uploading_n++;
        gossip_update_upload(update, &peer->store, &upload->content, upload->piece);
    }
}

static struct swarm_upload *find_uploading(const struct gossip_swarm *swarm,
                                           const struct gossip_swarm_event *event)
{
    for (struct swarm_link *link = swarm->uploading.next; link != &swarm->uploading; link = link->next) {
        struct swarm_upload *upload = SWARM_ITEM(link, struct swarm_upload, link);
        if (upload->piece.kind == event->piece.kind && upload->piece.index == event->piece.index &&
            replica_content_id_equal(&upload->content, &event->content) &&
            replica_id_equal(&upload->peer->store, &event->source))
            return upload;
    }
    return NULL;
}

void swarm_uploaded(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                    struct gossip_update *update)
{
    struct swarm_upload *upload = find_uploading(swarm, event);
    if (upload == NULL)
        return;
    if (event->code == 0) {
        swarm->sent_bytes += event->bytes;
    } else { /* unreadable is as good as absent; a full queue passes */
        struct swarm_item item = {.content = upload->content,
                                  .kind = (uint8_t)upload->piece.kind,
                                  .index = upload->piece.index,
                                  .code = event->code == REPLICA_E_NOSPACE || event->code == REPLICA_E_BUSY
                                              ? REPLICA_E_BUSY
                                              : REPLICA_E_ABSENT};
        swarm_send_refuse(swarm, &event->source, &item, 1, NULL, 0, update);
    }
    swarm->uploading_n--;
    free_upload(swarm, upload);
}

void swarm_serve_close(struct gossip_swarm *swarm)
{
    while (!swarm_link_alone(&swarm->turns))
        swarm_serve_forget(swarm, SWARM_ITEM(swarm->turns.next, struct swarm_peer, turn));
    while (!swarm_link_alone(&swarm->uploading))
        free_upload(swarm, SWARM_ITEM(swarm->uploading.next, struct swarm_upload, link));
    while (!swarm_link_alone(&swarm->topics_used))
        free_topic(swarm, SWARM_ITEM(swarm->topics_used.next, struct swarm_topic, used));
}
