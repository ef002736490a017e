/* One link, the sending side: connects, says hello, makes sure who answered, then sends what is queued.
 *
 *   CLOSED ──open──▶ WAITING ──WHO, hello said──▶ GREETING ──ANSWER proved──▶ READY
 *      ▲                │ no connection             │ REFUSED, no answer         │ no progress
 *      └── back-off ────┴───────────────────────────┴────────────────────────────┘
 *
 * On a plain data channel there is no hello: the token that the control channel was given takes WAITING to READY. libzmq reconnects by
 * itself; a listener that sees a new connection asks WHO again, so READY goes back to GREETING without losing what is queued here. */
#include "transport_internal.h"

#include "credential_internal.h"
#include "loop.h"

#define RECEIVE_PER_TURN 16
#define SEND_PER_TURN    32
#define GREET_MS         10000  /* from opening to READY, before the socket is given up and another gate is tried */
#define QUEUED_MS        5000   /* what waits longer for a link is dropped: the protocol has asked again by then */
#define STALLED_MS       30000  /* bytes given to libzmq and none let go of: the connection is dead whatever TCP thinks */
#define IDLE_MS          600000 /* unused links cost two descriptors */
#define RETRY_MS         200    /* doubled … */
#define RETRY_DOUBLINGS  5      /* … to 6.4 s, and never the same for two links */
#define REASON_MAX       200

static const uint8_t *bytes_of(zmq_msg_t *message)
{
    return zmq_msg_data(message);
}

void node_link_adopt(struct node_channel_actor *channel, struct node_link *link)
{
    link->next = channel->known;
    channel->known = link;
    link->adopted = true;
    link->state = NODE_LINK_CLOSED;
}

static void drop_queue(struct node_channel_actor *channel, struct node_link *link)
{
    struct node_outgoing *outgoing;
    while ((outgoing = node_queue_pop(&link->queue)) != NULL) {
        atomic_fetch_add(&channel->transport->dropped, 1);
        node_outgoing_free(outgoing);
    }
}

static void disconnect(struct node_channel_actor *channel, struct node_link *link)
{
    if (link->socket != NULL) {
        node_channel_unwatch(channel, link->socket);
        zsock_destroy(&link->socket);
    }
    link->state = NODE_LINK_CLOSED;
    link->hello_due = false;
    memset(&link->peer, 0, sizeof link->peer);
}

/* Gives up this connection for a while, a different while for each. */
static void back_off(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    uint64_t pause = (uint64_t)RETRY_MS << (link->failures < RETRY_DOUBLINGS ? link->failures : RETRY_DOUBLINGS);
    disconnect(channel, link);
    link->failures++;
    link->gate++;
    link->retry_ms = now_ms + pause / 2 + randombytes_uniform((uint32_t)pause);
}

static bool wants_token(const struct node_channel_actor *channel, struct node_link *link)
{
    struct node_channel_actor *control = &channel->transport->channels[NODE_CHANNEL_CONTROL];
    bool wants;
    if (channel != control || !channel->transport->channels[NODE_CHANNEL_DATA].plain)
        return false;
    pthread_mutex_lock(&control->lock);
    wants = !link->has_token;
    pthread_mutex_unlock(&control->lock);
    return wants;
}

static void open_socket(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    struct node_endpoint endpoint;
    char address[GOSSIP_ENDPOINT_MAX + 1];
    if (node_endpoint_parse(link->endpoint, &endpoint) != 0) /* checked when the link was made */
        return;
    node_endpoint_format(&endpoint, endpoint.port + (channel->which == NODE_CHANNEL_DATA), address);
    link->gate %= node_keyring_count(channel->transport->keyring);
    link->socket = node_link_socket_new(channel, address, link->gate);
    link->opened_ms = link->progress_ms = now_ms;
    link->state = NODE_LINK_WAITING;
    if (link->socket == NULL || node_channel_watch(channel, &link->source, link->socket) != 0) {
        node_channel_log(channel, 2, "cannot open a link to %s: %s", address, zmq_strerror(zmq_errno()));
        back_off(channel, link, now_ms);
    }
}

/* Saying hello */

void node_link_greet(struct node_link *link)
{
    if (link->state != NODE_LINK_CLOSED)
        link->hello_due = true;
}

static void say_hello(struct node_channel_actor *channel, struct node_link *link)
{
    struct node_transport *transport = channel->transport;
    void *socket = zsock_resolve(link->socket);
    uint8_t head[NODE_FRAME_HELLO_SIZE] = {NODE_FRAME_HELLO};
    struct replica_buffer body;
    randombytes_buf(link->nonce, sizeof link->nonce);
    memcpy(head + 1, link->nonce, sizeof link->nonce);
    replica_buffer_init(&body);
    pthread_mutex_lock(&transport->lock);
    replica_buffer_append(&body, transport->hello_packed.data, transport->hello_packed.size);
    pthread_mutex_unlock(&transport->lock);
    if (!body.failed && zmq_send(socket, head, sizeof head, ZMQ_SNDMORE | ZMQ_DONTWAIT) >= 0) {
        zmq_send(socket, body.data, body.size, ZMQ_DONTWAIT);
        link->hello_due = false;
        link->state = NODE_LINK_GREETING;
    }
    replica_buffer_close(&body);
}

static void keep_token(struct node_channel_actor *channel, struct node_link *link, const uint8_t *token, const struct replica_id *store)
{
    struct node_channel_actor *data = &channel->transport->channels[NODE_CHANNEL_DATA];
    if (channel->which != NODE_CHANNEL_CONTROL || !data->plain)
        return;
    pthread_mutex_lock(&channel->lock);
    memcpy(link->token, token, NODE_TOKEN_SIZE);
    link->token_store = *store;
    link->has_token = true;
    pthread_mutex_unlock(&channel->lock);
    pthread_mutex_lock(&data->lock);
    data->tokens_changed = true;
    node_channel_wake_locked(data);
    pthread_mutex_unlock(&data->lock);
}

static void on_answer(struct node_channel_actor *channel, struct node_link *link, zmq_msg_t *parts, size_t n)
{
    struct node_transport *transport = channel->transport;
    const uint8_t *head = bytes_of(&parts[0]), *token = head + 1 + NODE_PROOF_SIZE;
    uint8_t proof[NODE_PROOF_SIZE];
    struct gossip_principal principal;
    struct replica_id own;
    struct node_hello hello;
    const char *reason = "its answer is malformed";
    int code;
    if (link->state != NODE_LINK_GREETING || n != 2)
        return;
    memset(&hello, 0, sizeof hello);
    code = zmq_msg_size(&parts[0]) == NODE_FRAME_ANSWER_SIZE
               ? node_hello_check(transport->keyring, bytes_of(&parts[1]), zmq_msg_size(&parts[1]), NULL, node_wall_ms(), &hello, &principal,
                                  &reason)
               : REPLICA_E_MALFORMED;
    if (code == 0)
        code = node_peer_check(transport, &hello, &reason, &own);
    if (code == 0 && (node_hello_prove(transport->curve_secret, hello.curve_public, link->nonce, token, proof) != 0 ||
                      sodium_memcmp(proof, head + 1, sizeof proof) != 0)) {
        reason = "it does not hold the key that its hello names";
        code = REPLICA_E_DENIED;
    }
    if (code != 0) {
        atomic_fetch_add(&transport->refused, 1);
        node_channel_log(channel, 2, "refused what answers at %s: %s", link->endpoint, reason);
        back_off(channel, link, node_now_ms());
        drop_queue(channel, link);
        return;
    }
    link->state = NODE_LINK_READY;
    link->peer = hello.store;
    link->failures = 0;
    link->progress_ms = node_now_ms();
    keep_token(channel, link, token, &hello.store);
}

/* The reason is the peer's text: printed as far as it is plain. */
static void on_refused(struct node_channel_actor *channel, struct node_link *link, zmq_msg_t *parts, size_t n)
{
    struct replica_pack_reader reader;
    char text[REASON_MAX + 1] = "it gave no reason";
    const char *reason;
    int64_t code;
    size_t items, size;
    if (n == 2) {
        replica_pack_reader_init(&reader, bytes_of(&parts[1]), zmq_msg_size(&parts[1]));
        replica_pack_read_array(&reader, 16, &items);
        replica_pack_read_int(&reader, &code);
        if (replica_pack_read_str(&reader, REASON_MAX, &reason, &size) == 0) {
            memcpy(text, reason, size);
            text[size] = '\0';
            for (char *at = text; *at != '\0'; at++)
                if (*at < ' ' || *at > '~')
                    *at = '?';
        }
    }
    atomic_fetch_add(&channel->transport->refused, 1);
    node_channel_log(channel, 2, "%s refused us: %s", link->endpoint, text);
    back_off(channel, link, node_now_ms());
    drop_queue(channel, link);
}

static void on_frames(struct node_channel_actor *channel, struct node_link *link, zmq_msg_t *parts, size_t n)
{
    uint8_t kind = zmq_msg_size(&parts[0]) > 0 ? bytes_of(&parts[0])[0] : 0;
    switch (kind) {
    case NODE_FRAME_WHO:
    case NODE_FRAME_STRANGER:
        if (channel->plain) {
            node_table_token_lost(&channel->transport->channels[NODE_CHANNEL_CONTROL], link->endpoint);
            link->state = NODE_LINK_WAITING;
            link->opened_ms = node_now_ms();
        } else {
            link->opened_ms = node_now_ms();
            link->hello_due = true;
        }
        break;
    case NODE_FRAME_ANSWER:
        on_answer(channel, link, parts, n);
        break;
    case NODE_FRAME_REFUSED:
        on_refused(channel, link, parts, n);
        break;
    default:
        atomic_fetch_add(&channel->transport->dropped, 1);
    }
}

static void receive(struct node_channel_actor *channel, struct node_link *link)
{
    for (int i = 0; i < RECEIVE_PER_TURN && link->socket != NULL; i++) {
        zmq_msg_t parts[2];
        size_t n;
        if (node_frames_receive(zsock_resolve(link->socket), parts, 2, &n) != 0)
            return;
        on_frames(channel, link, parts, n);
        node_frames_close(parts, 2);
    }
}

/* Sending */

static void let_go(void *data, void *hint)
{
    (void)data;
    node_outgoing_free(hint);
}

/* Hands one message to libzmq; false if it takes no more now. */
static bool send_one(struct node_channel_actor *channel, struct node_link *link, struct node_outgoing *outgoing)
{
    void *socket = zsock_resolve(link->socket);
    uint8_t head[NODE_FRAME_MESSAGE_PLAIN_SIZE] = {NODE_FRAME_MESSAGE};
    size_t n = outgoing->n;
    zmq_msg_t body;
    memcpy(head + 1, outgoing->to.bytes, REPLICA_ID_SIZE);
    memcpy(head + NODE_FRAME_MESSAGE_SIZE, link->send_token, NODE_TOKEN_SIZE);
    if (zmq_send(socket, head, channel->plain ? NODE_FRAME_MESSAGE_PLAIN_SIZE : NODE_FRAME_MESSAGE_SIZE, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return false;
    node_queue_pop(&link->queue);
    atomic_store_explicit(&outgoing->handed, true, memory_order_release);
    if (zmq_msg_init_data(&body, outgoing->bytes, n, let_go, outgoing) != 0) {
        node_outgoing_free(outgoing);
        zmq_send(socket, "", 0, ZMQ_DONTWAIT); /* ends the message; the listener drops an empty one */
        return true;
    }
    if (zmq_msg_send(&body, socket, ZMQ_DONTWAIT) < 0) /* the connection broke between the two parts */
        zmq_msg_close(&body);
    else
        atomic_fetch_add(&channel->transport->sent_bytes, n);
    return true;
}

static void send_queued(struct node_channel_actor *channel, struct node_link *link)
{
    for (int i = 0; i < SEND_PER_TURN && link->queue.head != NULL; i++) {
        struct node_outgoing *outgoing = link->queue.head;
        if (!replica_id_is_zero(&outgoing->to) && !replica_id_equal(&outgoing->to, &link->peer)) {
            node_queue_pop(&link->queue); /* somebody else lives there now */
            atomic_fetch_add(&channel->transport->dropped, 1);
            node_outgoing_free(outgoing);
            continue;
        }
        if (!send_one(channel, link, outgoing))
            return;
    }
}

static void take_token(struct node_channel_actor *channel, struct node_link *link)
{
    struct node_channel_actor *control = &channel->transport->channels[NODE_CHANNEL_CONTROL];
    if (node_table_token(control, link->endpoint, link->send_token, &link->peer) == 0) {
        link->state = NODE_LINK_READY;
        link->failures = 0;
        link->progress_ms = node_now_ms();
    }
}

void node_link_service(struct node_channel_actor *channel, struct node_link *link)
{
    uint64_t now = node_now_ms();
    int events;
    link->again = false;
    if (link->state == NODE_LINK_CLOSED && now >= link->retry_ms && (link->queue.head != NULL || wants_token(channel, link)))
        open_socket(channel, link, now);
    if (link->socket == NULL)
        return;
    receive(channel, link);
    if (link->socket == NULL)
        return;
    if (channel->plain && link->state == NODE_LINK_WAITING)
        take_token(channel, link);
    if (link->hello_due)
        say_hello(channel, link);
    if (link->state == NODE_LINK_READY)
        send_queued(channel, link);
    events = zsock_events(link->socket);
    link->again = (events & ZMQ_POLLIN) != 0 ||
                  ((events & ZMQ_POLLOUT) != 0 && (link->hello_due || (link->state == NODE_LINK_READY && link->queue.head != NULL)));
    channel->links_again |= link->again;
}

/* Time */

static void drop_old(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    while (link->queue.head != NULL && now_ms >= link->queue.head->queued_ms + QUEUED_MS) {
        atomic_fetch_add(&channel->transport->dropped, 1);
        node_outgoing_free(node_queue_pop(&link->queue));
    }
}

/* Bytes are on their way, and libzmq has let go of none for too long. */
static bool is_stalled(struct node_link *link, uint64_t now_ms)
{
    uint64_t freed = atomic_load(&link->account->freed);
    if (freed != link->freed_seen || atomic_load(&link->account->bytes) == 0) {
        link->freed_seen = freed;
        link->progress_ms = now_ms;
    }
    return now_ms >= link->progress_ms + STALLED_MS;
}

void node_link_tick(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    if (link->state != NODE_LINK_READY)
        drop_old(channel, link, now_ms);
    if ((link->state == NODE_LINK_WAITING || link->state == NODE_LINK_GREETING) && now_ms >= link->opened_ms + GREET_MS)
        back_off(channel, link, now_ms);
    else if (link->state == NODE_LINK_READY && is_stalled(link, now_ms))
        back_off(channel, link, now_ms);
    if (link->state == NODE_LINK_CLOSED || link->hello_due || link->queue.head != NULL)
        node_link_service(channel, link);
    if (link->queue.head == NULL && now_ms > IDLE_MS)
        node_table_remove_idle(channel, link, now_ms - IDLE_MS);
}

void node_link_close(struct node_channel_actor *channel, struct node_link *link)
{
    disconnect(channel, link);
    drop_queue(channel, link);
}

void node_link_free(struct node_link *link)
{
    struct node_outgoing *outgoing;
    while ((outgoing = node_queue_pop(&link->arrived)) != NULL)
        node_outgoing_free(outgoing);
    node_account_release(link->account);
    free(link);
}
