/* Messages and pieces under way. */
#include "inside.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

/* What a sender must know to reach a store is its address, as in the transport; a message for a store reaches
 * nobody else there. */
static size_t find_receiver(const struct world *world, size_t from, const struct replica_id *to,
                            const char *endpoint)
{
    const struct gossip_member_record *record;
    if (!replica_id_is_zero(to)) {
        record = gossip_member_find(gossip_peer_member(world->nodes[from].peer), to);
        if (record == NULL)
            return WORLD_NODE_NONE;
        endpoint = record->endpoint;
    }
    for (size_t i = 0; i < world->options.nodes; i++)
        if (strcmp(world->nodes[i].endpoint, endpoint) == 0 &&
            (replica_id_is_zero(to) || replica_id_equal(to, &world->nodes[i].store)))
            return i;
    return WORLD_NODE_NONE;
}

static struct event *copy(const struct event *event)
{
    struct event *twin = event_new(event->kind, event->at_ms, event->node, event->life);
    *twin = *event;
    twin->bytes = malloc(event->size + 1);
    if (twin->bytes == NULL)
        abort();
    memcpy(twin->bytes, event->bytes, event->size);
    return twin;
}

static uint64_t draw_delay(struct world *world)
{
    uint64_t delay = world_draw(world, world->options.delay_ms_min, world->options.delay_ms_max);
    if (world_chance(world, world->options.straggle_percent))
        delay += world_draw(world, 0, world->options.straggle_ms);
    return delay;
}

/* A piece is there once it is written, after those before it. */
static void wait_for_disk(struct world *world, struct event *event)
{
    struct node *node = &world->nodes[event->node];
    if (event->kind != EVENT_PIECE || node->disk_bytes_per_s == 0)
        return;
    if (event->at_ms < node->disk_free_ms)
        event->at_ms = node->disk_free_ms;
    event->at_ms += event->size * 1000 / node->disk_bytes_per_s;
    node->disk_free_ms = event->at_ms;
}

void network_push(struct world *world, struct event *event)
{
    if (event->from == event->node) { /* loops back inside the node */
        event->at_ms = world->now_ms;
        event->life = world->nodes[event->node].generation;
        queue_push(&world->queue, event);
        return;
    }
    if (world->cut[event->from][event->node] || world_chance(world, world->options.loss_percent)) {
        event_free(event);
        return;
    }
    if (world_chance(world, world->options.double_percent)) {
        struct event *twin = copy(event);
        twin->at_ms = world->now_ms + draw_delay(world);
        queue_push(&world->queue, twin);
    }
    event->at_ms = world->now_ms + draw_delay(world);
    wait_for_disk(world, event);
    queue_push(&world->queue, event);
}

void network_send(struct world *world, size_t from, const struct gossip_send *send, const uint8_t *bytes)
{
    size_t to = find_receiver(world, from, &send->to, send->endpoint);
    struct event *event;
    int verdict = 0;
    if (to == WORLD_NODE_NONE)
        return;
    event = event_new(EVENT_MESSAGE, 0, to, 0);
    event->from = from;
    event->room = send->room;
    event->type = send->type;
    event->size = send->size;
    event->bytes = malloc(send->size + 1);
    if (event->bytes == NULL)
        abort();
    if (send->size > 0)
        memcpy(event->bytes, bytes, send->size);
    if (send->size > GOSSIP_MESSAGE_SIZE_MAX)
        world_fail(world, "node %zu sends a message of %zu bytes in room %d", from, send->size,
                   (int)send->room);
    if (world->filter != NULL && to != from)
        verdict = world->filter(world->filter_context, from, to, send->room, send->type);
    if (verdict == 1) {
        event_free(event);
    } else if (verdict == 2) {
        world->kept = world_grow(world->kept, world->kept_n, &world->kept_capacity, sizeof(struct event *));
        world->kept[world->kept_n++] = event;
    } else {
        network_push(world, event);
    }
}

/* Reads the piece now, carries its bytes to the receiver, and tells the sender that they left. */
void network_upload(struct world *world, size_t from, const struct gossip_upload *upload)
{
    struct node *node = &world->nodes[from];
    size_t to = find_receiver(world, from, &upload->to, "");
    struct event *left =
        event_new(EVENT_UPLOADED, world->now_ms + world_draw(world, 0, 2), from, node->generation);
    struct replica_buffer bytes;
    replica_buffer_init(&bytes);
    left->code = replica_contents_read_piece(node->contents, &upload->content, upload->piece, &bytes);
    left->content = upload->content;
    left->piece = upload->piece;
    left->size = 0;
    left->batch = bytes.size;
    left->from = to == WORLD_NODE_NONE ? from : to;
    if (left->code == 0 && to != WORLD_NODE_NONE) {
        struct event *event = event_new(EVENT_PIECE, 0, to, 0);
        event->from = from;
        event->content = upload->content;
        event->piece = upload->piece;
        event->size = bytes.size;
        event->bytes = malloc(bytes.size + 1);
        if (event->bytes == NULL)
            abort();
        memcpy(event->bytes, bytes.data, bytes.size);
        network_push(world, event);
    }
    replica_buffer_close(&bytes);
    queue_push(&world->queue, left);
}
