/* The listening side: who speaks on which connection. Nothing that a peer sends is believed before its hello
 * was checked against the CURVE key of the very connection it came over; nothing is asked of routing ids but
 * the way back. */
#include "transport_internal.h"

#include "loop.h"

#include <sodium.h>

#define MESSAGES_PER_TURN 64
#define PARTS_MAX         3 /* routing id, header, bytes */

struct inbound {
    zmq_msg_t parts[PARTS_MAX];
    size_t n;
    uint8_t key[NODE_CURVE_KEY_SIZE]; /* of the connection; not on a plain channel */
    const uint8_t *header;
    size_t header_n;
};

static void count_dropped(struct node_channel_actor *channel)
{
    atomic_fetch_add(&channel->transport->dropped, 1);
}

/* Back over the connection that it came from, once per inbound message. A peer that does not read is not
 * waited for. */
static void reply(struct node_channel_actor *channel, struct inbound *inbound, const void *header,
                  size_t header_n, const struct replica_buffer *body)
{
    void *socket = zsock_resolve(channel->router);
    if (body != NULL && body->failed)
        return;
    if (zmq_msg_send(&inbound->parts[0], socket, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return;
    zmq_send(socket, header, header_n, ZMQ_DONTWAIT | (body != NULL ? ZMQ_SNDMORE : 0));
    if (body != NULL)
        zmq_send(socket, body->data, body->size, ZMQ_DONTWAIT);
}

static void reply_kind(struct node_channel_actor *channel, struct inbound *inbound, enum node_frame_kind kind)
{
    uint8_t header = (uint8_t)kind;
    reply(channel, inbound, &header, 1, NULL);
}

static void refuse(struct node_channel_actor *channel, struct inbound *inbound, int code, const char *reason,
                   const struct replica_id *cluster)
{
    const uint8_t header = NODE_FRAME_REFUSED;
    struct replica_buffer body;
    replica_buffer_init(&body);
    replica_pack_array(&body, 3);
    replica_pack_int(&body, code);
    replica_pack_cstr(&body, reason);
    replica_pack_id(&body, cluster);
    reply(channel, inbound, &header, 1, &body);
    replica_buffer_close(&body);
    atomic_fetch_add(&channel->transport->refused, 1);
}

int node_peer_check(struct node_transport *transport, const struct node_hello *hello, const char **ret_reason,
                    struct replica_id *ret_own_cluster)
{
    struct node_hello own;
    pthread_mutex_lock(&transport->lock);
    own = transport->hello;
    pthread_mutex_unlock(&transport->lock);
    memset(ret_own_cluster, 0, sizeof *ret_own_cluster);
    if (hello->protocol_max < own.protocol_min || hello->protocol_min > own.protocol_max) {
        *ret_reason = "no protocol version in common";
        return REPLICA_E_VERSION;
    }
    if (((hello->features ^ own.features) & NODE_FEATURE_DATA_PLAIN) != 0) {
        *ret_reason = "only one of the two sends data plain; give data-plain to all nodes or to none";
        return REPLICA_E_MISMATCH;
    }
    if (!replica_id_is_zero(&hello->cluster) && !replica_id_is_zero(&own.cluster) &&
        !replica_id_equal(&hello->cluster, &own.cluster)) {
        *ret_reason = "another cluster";
        *ret_own_cluster = own.cluster;
        return REPLICA_E_MISMATCH;
    }
    return 0;
}

static void log_refused(struct node_channel_actor *channel, struct inbound *inbound,
                        const struct node_hello *hello, int code, const char *reason,
                        const struct replica_id *own_cluster)
{
    const char *address = zmq_msg_gets(&inbound->parts[0], "Peer-Address");
    char theirs[33], ours[33], store[33];
    if (code == REPLICA_E_MISMATCH && !replica_id_is_zero(own_cluster)) {
        replica_id_format(&hello->cluster, theirs);
        replica_id_format(own_cluster, ours);
        replica_id_format(&hello->store, store);
        node_channel_log(channel, 2,
                         "refused store %s at %s: it belongs to cluster %s, this node to cluster %s", store,
                         hello->endpoint, theirs, ours);
    } else
        node_channel_log(channel, 2, "refused a peer at %s: %s",
                         address != NULL ? address : "an unknown address", reason);
}

static void answer(struct node_channel_actor *channel, struct inbound *inbound, const uint8_t *token)
{
    struct node_transport *transport = channel->transport;
    uint8_t header[NODE_FRAME_ANSWER_SIZE] = {NODE_FRAME_ANSWER};
    struct replica_buffer body;
    if (node_hello_prove(transport->curve_secret, inbound->key, inbound->header + 1, token, header + 1) != 0)
        return;
    memcpy(header + 1 + NODE_PROOF_SIZE, token, NODE_TOKEN_SIZE);
    replica_buffer_init(&body);
    pthread_mutex_lock(&transport->lock);
    replica_buffer_append(&body, transport->hello_packed.data, transport->hello_packed.size);
    pthread_mutex_unlock(&transport->lock);
    reply(channel, inbound, header, sizeof header, &body);
    replica_buffer_close(&body);
}

static void on_hello(struct node_channel_actor *channel, struct inbound *inbound)
{
    struct node_transport *transport = channel->transport;
    struct gossip_principal principal;
    struct node_hello hello;
    struct replica_id own_cluster;
    uint8_t token[NODE_TOKEN_SIZE];
    const char *reason;
    int code;
    if (inbound->header_n != NODE_FRAME_HELLO_SIZE || inbound->n != PARTS_MAX) {
        count_dropped(channel);
        return;
    }
    memset(&own_cluster, 0, sizeof own_cluster);
    code = node_hello_check(transport->keyring, zmq_msg_data(&inbound->parts[2]),
                            zmq_msg_size(&inbound->parts[2]), inbound->key, node_wall_ms(), &hello,
                            &principal, &reason);
    if (code == 0)
        code = node_peer_check(transport, &hello, &reason, &own_cluster);
    if (code != 0) {
        log_refused(channel, inbound, &hello, code, reason, &own_cluster);
        refuse(channel, inbound, code, reason, &own_cluster);
        return;
    }
    pthread_mutex_lock(&transport->lock);
    code = node_sessions_put(&transport->sessions, inbound->key, &hello, &principal, token);
    pthread_mutex_unlock(&transport->lock);
    if (code == 0)
        answer(channel, inbound, token);
}

static int find_sender(struct node_channel_actor *channel, const struct inbound *inbound,
                       struct gossip_principal *ret_principal)
{
    struct node_transport *transport = channel->transport;
    uint64_t wall_ms = node_wall_ms();
    int code;
    pthread_mutex_lock(&transport->lock);
    code = channel->plain
               ? node_sessions_find_token(&transport->sessions, inbound->header + NODE_FRAME_MESSAGE_SIZE,
                                          wall_ms, ret_principal)
               : node_sessions_find_key(&transport->sessions, inbound->key, wall_ms, ret_principal);
    pthread_mutex_unlock(&transport->lock);
    return code;
}

static bool is_for_us(const struct node_channel_actor *channel, const uint8_t *to)
{
    struct replica_id id;
    memcpy(id.bytes, to, sizeof id.bytes);
    return replica_id_is_zero(&id) || replica_id_equal(&id, &channel->transport->hello.store);
}

static void on_message(struct node_channel_actor *channel, struct inbound *inbound)
{
    const struct node_transport_handler *handler = &channel->transport->handler;
    size_t n = zmq_msg_size(&inbound->parts[2]);
    size_t expected = channel->plain ? NODE_FRAME_MESSAGE_PLAIN_SIZE : NODE_FRAME_MESSAGE_SIZE;
    struct gossip_principal from;
    int code;
    if (inbound->header_n != expected || inbound->n != PARTS_MAX || n == 0) {
        count_dropped(channel);
        return;
    }
    code = find_sender(channel, inbound, &from);
    if (code != 0 || !is_for_us(channel, inbound->header + 1)) {
        count_dropped(channel);
        if (code != 0)
            reply_kind(channel, inbound, NODE_FRAME_STRANGER);
        return;
    }
    atomic_fetch_add(&channel->transport->received_bytes, n);
    handler->on_message(handler->context, channel->which, &from, zmq_msg_data(&inbound->parts[2]), n);
}

static void on_inbound(struct node_channel_actor *channel, struct inbound *inbound)
{
    bool probe = inbound->n == 2 && zmq_msg_size(&inbound->parts[1]) == 0;
    inbound->header = zmq_msg_data(&inbound->parts[1]);
    inbound->header_n = zmq_msg_size(&inbound->parts[1]);
    if (inbound->n < 2 || inbound->n > PARTS_MAX || (inbound->header_n == 0 && !probe) ||
        (!channel->plain && node_zap_user(&inbound->parts[1], inbound->key) != 0))
        count_dropped(channel);
    else if (channel->plain && (probe || inbound->header[0] != NODE_FRAME_MESSAGE))
        count_dropped(channel); /* who one is, is said on the control channel */
    else if (probe)
        reply_kind(channel, inbound, NODE_FRAME_WHO);
    else if (inbound->header[0] == NODE_FRAME_HELLO)
        on_hello(channel, inbound);
    else if (inbound->header[0] == NODE_FRAME_MESSAGE)
        on_message(channel, inbound);
    else
        count_dropped(channel);
}

void node_listener_service(struct node_channel_actor *channel)
{
    void *socket = zsock_resolve(channel->router);
    struct inbound inbound;
    for (unsigned i = 0; i < MESSAGES_PER_TURN; i++) {
        if (node_frames_receive(socket, inbound.parts, PARTS_MAX, &inbound.n) != 0)
            break;
        on_inbound(channel, &inbound);
        node_frames_close(inbound.parts, PARTS_MAX);
    }
    channel->router_again = (zsock_events(channel->router) & ZMQ_POLLIN) != 0;
}
