/* The receiving side of a channel: who speaks is the key that the connection was authenticated with, and what that key may do is what its
 * hello proved. A routing id only says where an answer goes. */
#include "transport_internal.h"

#include "credential_internal.h"
#include "loop.h"

#define MESSAGES_PER_TURN 64
#define PARTS_MAX         3 /* routing id, head, body */

/* head and body are copied; what cannot be delivered at once is dropped: the asker asks again. */
static void reply(struct node_channel_actor *channel, zmq_msg_t *routing_id, const uint8_t *head, size_t head_n, const void *body, size_t body_n)
{
    void *socket = zsock_resolve(channel->router);
    zmq_msg_t id;
    zmq_msg_init(&id);
    zmq_msg_copy(&id, routing_id);
    if (zmq_msg_send(&id, socket, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&id);
        return;
    }
    if (zmq_send(socket, head, head_n, ZMQ_DONTWAIT | (body != NULL ? ZMQ_SNDMORE : 0)) >= 0 && body != NULL)
        zmq_send(socket, body, body_n, ZMQ_DONTWAIT);
}

static void ask_who(struct node_channel_actor *channel, zmq_msg_t *routing_id, enum node_frame_kind kind)
{
    uint8_t head = (uint8_t)kind;
    reply(channel, routing_id, &head, 1, NULL, 0);
}

int node_peer_check(struct node_transport *transport, const struct node_hello *hello, const char **ret_reason,
                    struct replica_id *ret_own_cluster)
{
    int code = 0;
    pthread_mutex_lock(&transport->lock);
    *ret_own_cluster = transport->hello.cluster;
    if (hello->protocol_min > transport->hello.protocol_max || hello->protocol_max < transport->hello.protocol_min) {
        *ret_reason = "no common version of the protocol";
        code = REPLICA_E_VERSION;
    } else if ((hello->features ^ transport->hello.features) & NODE_FEATURE_DATA_PLAIN) {
        *ret_reason = "only one of both sends data unencrypted; give --data-plain to all nodes or to none";
        code = REPLICA_E_MISMATCH;
    } else if (!replica_id_is_zero(&hello->cluster) && !replica_id_is_zero(&transport->hello.cluster) &&
               !replica_id_equal(&hello->cluster, &transport->hello.cluster)) {
        *ret_reason = "another cluster";
        code = REPLICA_E_MISMATCH;
    }
    pthread_mutex_unlock(&transport->lock);
    return code;
}

static void refuse(struct node_channel_actor *channel, zmq_msg_t *routing_id, const struct node_hello *hello, int code, const char *reason,
                   const struct replica_id *own_cluster)
{
    const uint8_t head = NODE_FRAME_REFUSED;
    char store[33], theirs[33], ours[33];
    struct replica_buffer body;
    replica_buffer_init(&body);
    replica_pack_array(&body, 3);
    replica_pack_int(&body, code);
    replica_pack_cstr(&body, reason);
    replica_pack_id(&body, own_cluster);
    reply(channel, routing_id, &head, 1, body.data, body.size);
    replica_buffer_close(&body);
    atomic_fetch_add(&channel->transport->refused, 1);
    replica_id_format(&hello->store, store);
    replica_id_format(&hello->cluster, theirs);
    replica_id_format(own_cluster, ours);
    node_channel_log(channel, 2, "refused store %s at %s: %s (its cluster %s, ours %s)", store,
                     hello->endpoint[0] != '\0' ? hello->endpoint : "an unknown address", reason, theirs, ours);
}

static void answer(struct node_channel_actor *channel, zmq_msg_t *routing_id, const uint8_t *nonce, const struct node_hello *hello,
                   const struct gossip_principal *principal)
{
    struct node_transport *transport = channel->transport;
    uint8_t head[NODE_FRAME_ANSWER_SIZE] = {NODE_FRAME_ANSWER}, *token = head + 1 + NODE_PROOF_SIZE;
    struct replica_buffer body;
    int code;
    replica_buffer_init(&body);
    pthread_mutex_lock(&transport->lock);
    code = node_sessions_put(&transport->sessions, hello->curve_public, hello, principal, token);
    if (code == 0)
        code = replica_buffer_append(&body, transport->hello_packed.data, transport->hello_packed.size);
    pthread_mutex_unlock(&transport->lock);
    if (code == 0)
        code = node_hello_prove(transport->curve_secret, hello->curve_public, nonce, token, head + 1);
    if (code == 0)
        reply(channel, routing_id, head, sizeof head, body.data, body.size);
    replica_buffer_close(&body);
}

static void on_hello(struct node_channel_actor *channel, zmq_msg_t *parts, size_t n)
{
    struct node_transport *transport = channel->transport;
    struct gossip_principal principal;
    struct replica_id own = {{0}};
    struct node_hello hello;
    uint8_t key[NODE_CURVE_KEY_SIZE];
    const char *reason = "";
    int code;
    if (channel->plain || n != 3 || zmq_msg_size(&parts[1]) != NODE_FRAME_HELLO_SIZE || node_zap_user(&parts[1], key) != 0) {
        atomic_fetch_add(&transport->dropped, 1);
        return;
    }
    memset(&hello, 0, sizeof hello);
    code = node_hello_check(transport->keyring, zmq_msg_data(&parts[2]), zmq_msg_size(&parts[2]), key, node_wall_ms(), &hello, &principal,
                            &reason);
    if (code == 0)
        code = node_peer_check(transport, &hello, &reason, &own);
    if (code != 0)
        refuse(channel, &parts[0], &hello, code, reason, &own);
    else
        answer(channel, &parts[0], (const uint8_t *)zmq_msg_data(&parts[1]) + 1, &hello, &principal);
}

/* Errors: NOTFOUND (or EXPIRED): not known (any more); MALFORMED. */
static int find_sender(struct node_channel_actor *channel, zmq_msg_t *head, struct gossip_principal *ret_principal)
{
    struct node_transport *transport = channel->transport;
    const uint8_t *bytes = zmq_msg_data(head);
    uint8_t key[NODE_CURVE_KEY_SIZE];
    int code;
    if (zmq_msg_size(head) != (channel->plain ? NODE_FRAME_MESSAGE_PLAIN_SIZE : NODE_FRAME_MESSAGE_SIZE))
        return REPLICA_E_MALFORMED;
    if (!channel->plain && node_zap_user(head, key) != 0)
        return REPLICA_E_MALFORMED;
    pthread_mutex_lock(&transport->lock);
    code = channel->plain ? node_sessions_find_token(&transport->sessions, bytes + NODE_FRAME_MESSAGE_SIZE, node_wall_ms(), ret_principal)
                          : node_sessions_find_key(&transport->sessions, key, node_wall_ms(), ret_principal);
    pthread_mutex_unlock(&transport->lock);
    return code;
}

static void on_message(struct node_channel_actor *channel, zmq_msg_t *parts, size_t n)
{
    struct node_transport *transport = channel->transport;
    struct gossip_principal principal;
    struct replica_id to;
    int code = n == 3 ? find_sender(channel, &parts[1], &principal) : REPLICA_E_MALFORMED;
    if (code == REPLICA_E_NOTFOUND || code == REPLICA_E_EXPIRED)
        ask_who(channel, &parts[0], NODE_FRAME_STRANGER);
    if (code == 0) {
        memcpy(to.bytes, (const uint8_t *)zmq_msg_data(&parts[1]) + 1, sizeof to.bytes);
        if (!replica_id_is_zero(&to) && !replica_id_equal(&to, &transport->hello.store))
            code = REPLICA_E_MISMATCH; /* for whoever had this address before */
    }
    if (code != 0 || zmq_msg_size(&parts[2]) == 0) {
        atomic_fetch_add(&transport->dropped, 1);
        return;
    }
    atomic_fetch_add(&transport->received_bytes, zmq_msg_size(&parts[2]));
    transport->handler.on_message(transport->handler.context, channel->which, &principal, zmq_msg_data(&parts[2]), zmq_msg_size(&parts[2]));
}

static void dispatch(struct node_channel_actor *channel, zmq_msg_t *parts, size_t n)
{
    const uint8_t *head = zmq_msg_data(&parts[1]);
    if (n == 2 && zmq_msg_size(&parts[1]) == 0) /* ZMQ_PROBE_ROUTER: a new connection */
        ask_who(channel, &parts[0], NODE_FRAME_WHO);
    else if (n >= 2 && n <= PARTS_MAX && zmq_msg_size(&parts[1]) > 0 && head[0] == NODE_FRAME_HELLO)
        on_hello(channel, parts, n);
    else if (n >= 2 && n <= PARTS_MAX && zmq_msg_size(&parts[1]) > 0 && head[0] == NODE_FRAME_MESSAGE)
        on_message(channel, parts, n);
    else
        atomic_fetch_add(&channel->transport->dropped, 1);
}

void node_listener_service(struct node_channel_actor *channel)
{
    void *socket = zsock_resolve(channel->router);
    for (int i = 0; i < MESSAGES_PER_TURN; i++) {
        zmq_msg_t parts[PARTS_MAX];
        size_t n;
        if (node_frames_receive(socket, parts, PARTS_MAX, &n) != 0)
            break;
        dispatch(channel, parts, n);
        node_frames_close(parts, PARTS_MAX);
    }
    channel->router_again = (zsock_events(channel->router) & ZMQ_POLLIN) != 0;
}
