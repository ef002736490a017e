/* Control messages. A frame is room u8, type u8, payload; docs/protocol.md. */
#include "node_internal.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

/* Of messages that wait for a step; more is dropped, and peers ask again. */
#define INBOX_BYTES_MAX   ((size_t)64 << 20)
#define MESSAGES_PER_TURN 64 /* steps before requests and timers get their turn */
#define FRAME_HEADER_SIZE 2

static void run_inbox(void *context);

void node_wire_init(struct node *node)
{
    pthread_mutex_init(&node->inbox.mutex, NULL);
    node->inbox.last = &node->inbox.first;
    node->inbox.post = (struct node_post){.call = run_inbox, .context = node};
}

void node_wire_close(struct node *node)
{
    while (node->inbox.first != NULL) {
        struct node_message *gone = node->inbox.first;
        node->inbox.first = gone->next;
        free(gone);
    }
    pthread_mutex_destroy(&node->inbox.mutex);
}

/* In. Any thread. */
static void push(struct node *node, const struct gossip_principal *from, enum gossip_room room, uint8_t type,
                 const uint8_t *payload, size_t n)
{
    struct node_inbox *inbox = &node->inbox;
    struct node_message *message = malloc(sizeof *message + n);
    bool post = false, first_drop = false;
    if (message == NULL)
        return; /* as if the network had lost it */
    message->next = NULL;
    message->from = *from;
    message->room = room;
    message->type = type;
    message->size = n;
    if (n > 0)
        memcpy(message->payload, payload, n);
    pthread_mutex_lock(&inbox->mutex);
    if (inbox->bytes + n > INBOX_BYTES_MAX) {
        first_drop = inbox->dropped++ == 0;
        free(message);
    } else {
        *inbox->last = message;
        inbox->last = &message->next;
        inbox->bytes += sizeof *message + n;
        post = !inbox->posted;
        inbox->posted = true;
    }
    pthread_mutex_unlock(&inbox->mutex);
    if (post)
        node_loop_post(node->loop, &inbox->post);
    if (first_drop)
        node_log(NODE_LOG_WARNING, "messages_dropped", "reason=\"more than %zu bytes wait for the core\"",
                 INBOX_BYTES_MAX);
}

void node_on_message(void *context, enum node_channel channel, const struct gossip_principal *from,
                     const uint8_t *bytes, size_t n)
{
    struct node *node = context;
    if (channel == NODE_CHANNEL_DATA)
        node_arrive(node, from, bytes, n);
    else if (n >= FRAME_HEADER_SIZE && n <= FRAME_HEADER_SIZE + GOSSIP_MESSAGE_SIZE_MAX &&
             bytes[0] < GOSSIP_ROOM_N)
        push(node, from, (enum gossip_room)bytes[0], bytes[1], bytes + FRAME_HEADER_SIZE,
             n - FRAME_HEADER_SIZE);
    else
        node_log(NODE_LOG_DEBUG, "malformed", "size=%zu text=\"a frame of no room\"", n);
}

static struct node_message *pop(struct node_inbox *inbox)
{
    struct node_message *message;
    pthread_mutex_lock(&inbox->mutex);
    message = inbox->first;
    if (message != NULL) {
        inbox->first = message->next;
        if (inbox->first == NULL)
            inbox->last = &inbox->first;
        inbox->bytes -= sizeof *message + message->size;
    }
    inbox->posted = message != NULL;
    pthread_mutex_unlock(&inbox->mutex);
    return message;
}

static void step_message(struct node *node, const struct node_message *message)
{
    struct gossip_peer_event event = {
        .kind = GOSSIP_PEER_EVENT_MESSAGE,
        .room = message->room,
        .message = {.from = &message->from,
                    .type = message->type,
                    .payload = message->payload,
                    .size = message->size},
    };
    node_step(node, &event);
}

/* posted stays true while messages are left, so exactly one post is under way. */
static void run_inbox(void *context)
{
    struct node *node = context;
    for (int i = 0; i < MESSAGES_PER_TURN; i++) {
        struct node_message *message = pop(&node->inbox);
        if (message == NULL)
            return;
        step_message(node, message);
        free(message);
    }
    node_loop_post(node->loop, &node->inbox.post);
}

/* Out */

const char *node_endpoint_of(const struct node *node, const struct replica_id *store)
{
    const struct gossip_member_record *record = gossip_member_find(gossip_peer_member(node->peer), store);
    return record == NULL || record->endpoint[0] == '\0' ? NULL : record->endpoint;
}

void node_send(struct node *node, const struct gossip_send *send, const uint8_t *payload)
{
    bool anybody = replica_id_is_zero(&send->to);
    const char *endpoint = anybody ? send->endpoint : node_endpoint_of(node, &send->to);
    uint8_t *frame;
    int rv;
    if (!anybody && replica_id_equal(&send->to, &node->store->id)) {
        push(node, &node->principal, send->room, send->type, payload, send->size);
        return;
    }
    if (endpoint == NULL) {
        node_log(NODE_LOG_DEBUG, "send", "room=%d type=%d text=\"the store's address is not known\"",
                 (int)send->room, send->type);
        return;
    }
    frame = malloc(FRAME_HEADER_SIZE + send->size);
    if (frame == NULL)
        return;
    frame[0] = (uint8_t)send->room;
    frame[1] = send->type;
    if (send->size > 0)
        memcpy(frame + FRAME_HEADER_SIZE, payload, send->size);
    rv = node_transport_send(node->transport, NODE_CHANNEL_CONTROL, &send->to, endpoint, frame,
                             FRAME_HEADER_SIZE + send->size);
    if (rv != 0)
        node_log(NODE_LOG_DEBUG, "send", "endpoint=%s error=%s", endpoint, replica_error_symbol(rv));
}
