/* Outgoing links, as their channel's actor drives them.
 *
 *   CLOSED ──open──▶ WAITING ──WHO──▶ GREETING ──ANSWER──▶ READY
 *     ▲                 ▲                 ▲                  │
 *     │                 │                 └─ WHO, STRANGER ──┘   (the connection was made anew, or the peer
 * forgot us) └── REFUSED, a bad answer (backs off); no answer in time (next gate, at once); no progress; idle
 *
 * On a plain data channel WAITING ends when the control channel was given a token for that address, and there
 * is no hello. libzmq reconnects by itself; that it did is seen by the listener's WHO, since every connection
 * begins with a probe. */
#include "transport_internal.h"

#include "loop.h"

#include <sodium.h>

#define SERVICE_ROUNDS     8     /* per turn */
#define MESSAGES_PER_ROUND 32    /* sent, before others get their turn */
#define ANSWER_MS          10000 /* a connection and an answer; #3519: a failed handshake may never be retried */
#define ANSWER_GATES_MS    3000 /* the same while several gates are to be tried */
#define UNSENT_MS          5000 /* what waits for a link that long is stale: the rooms ask again by themselves */
#define STALL_CONTROL_MS   10000  /* nothing left libzmq for that long, though something waits */
#define STALL_DATA_MS      30000  /* a MiB over 300 kbit/s */
#define IDLE_MS            120000 /* two minutes unused */
#define BACKOFF_MS         500    /* after a refusal, doubled … */
#define BACKOFF_DOUBLINGS  5      /* … up to 16 s */
#define REASON_MAX         100    /* bytes of a refusal that are logged */
#define PARTS_MAX          2

static void count_dropped(struct node_channel_actor *channel)
{
    atomic_fetch_add(&channel->transport->dropped, 1);
}

static void drop_queue(struct node_channel_actor *channel, struct node_link *link)
{
    struct node_outgoing *outgoing;
    while ((outgoing = node_queue_pop(&link->queue)) != NULL) {
        node_outgoing_free(outgoing);
        count_dropped(channel);
    }
}

static void close_socket(struct node_channel_actor *channel, struct node_link *link)
{
    if (link->socket != NULL)
        node_channel_unwatch(channel, link->socket);
    zsock_destroy(&link->socket);
    link->state = NODE_LINK_CLOSED;
    link->hello_due = false;
}

void node_link_close(struct node_channel_actor *channel, struct node_link *link)
{
    close_socket(channel, link);
    drop_queue(channel, link);
}

void node_link_free(struct node_link *link)
{
    struct node_outgoing *outgoing;
    while ((outgoing = node_queue_pop(&link->arrived)) != NULL)
        node_outgoing_free(outgoing);
    while ((outgoing = node_queue_pop(&link->queue)) != NULL)
        node_outgoing_free(outgoing);
    node_lookup_release(&link->lookup);
    node_account_release(link->account);
    free(link);
}

void node_link_adopt(struct node_channel_actor *channel, struct node_link *link)
{
    link->adopted = true;
    link->next = channel->known;
    channel->known = link;
}

/* Not at once, and not all at the same time: a refusal will hardly be taken back within a second. */
static void back_off(struct node_channel_actor *channel, struct node_link *link)
{
    unsigned doublings = link->failures < BACKOFF_DOUBLINGS ? link->failures : BACKOFF_DOUBLINGS;
    uint32_t wait = (uint32_t)BACKOFF_MS << doublings;
    link->failures++;
    node_link_close(channel, link);
    link->retry_ms = node_now_ms() + wait / 2 + randombytes_uniform(wait / 2);
}

/* The host of a link as numbers. Errors: AGAIN (being looked up), NOTFOUND. */
static int resolve(struct node_link *link, struct node_endpoint *endpoint)
{
    int code;
    if (node_endpoint_is_numeric(endpoint))
        return 0;
    if (link->lookup == NULL)
        link->lookup = node_lookup_start(endpoint->host, link->opened);
    if (link->lookup == NULL)
        return REPLICA_E_AGAIN;
    code = node_lookup_result(link->lookup, endpoint->host);
    if (code != REPLICA_E_AGAIN)
        node_lookup_release(&link->lookup);
    return code;
}

static void open_at(struct node_channel_actor *channel, struct node_link *link,
                    const struct node_endpoint *endpoint)
{
    char address[GOSSIP_ENDPOINT_MAX + 1];
    node_endpoint_format(endpoint, endpoint->port + (channel->which == NODE_CHANNEL_DATA), address);
    link->opened++;
    link->socket = node_link_socket_new(channel, address, link->gate);
    if (link->socket == NULL || node_channel_watch(channel, &link->source, link->socket) != 0) {
        node_channel_log(channel, 2, "cannot open a link to %s: %s", address, zmq_strerror(zmq_errno()));
        zsock_destroy(&link->socket);
        back_off(channel, link);
        return;
    }
    link->state = NODE_LINK_WAITING;
    link->opened_ms = link->progress_ms = node_now_ms();
}

static void open_link(struct node_channel_actor *channel, struct node_link *link)
{
    struct node_endpoint endpoint;
    int code;
    node_endpoint_parse(link->endpoint, &endpoint); /* it was when it entered the table */
    code = resolve(link, &endpoint);
    if (code == 0)
        open_at(channel, link, &endpoint);
    else if (code == REPLICA_E_NOTFOUND) {
        node_channel_log(channel, 2, "nobody knows the name in %s", link->endpoint);
        back_off(channel, link);
    }
}

void node_link_greet(struct node_link *link)
{
    if (link->state != NODE_LINK_GREETING && link->state != NODE_LINK_READY)
        return;
    link->state = NODE_LINK_GREETING;
    link->hello_due = true;
    link->opened_ms = node_now_ms();
}

static void set_token(struct node_channel_actor *channel, struct node_link *link, const uint8_t *token)
{
    struct node_channel_actor *data = &channel->transport->channels[NODE_CHANNEL_DATA];
    if (channel->which != NODE_CHANNEL_CONTROL)
        return;
    pthread_mutex_lock(&channel->lock);
    link->has_token = true;
    link->token_store = link->peer;
    memcpy(link->token, token, NODE_TOKEN_SIZE);
    pthread_mutex_unlock(&channel->lock);
    if (!data->plain)
        return;
    pthread_mutex_lock(&data->lock);
    data->tokens_changed = true;
    node_channel_wake_locked(data);
    pthread_mutex_unlock(&data->lock);
}

/* Who answers must be somebody who may, and hold the CURVE key that its hello names. */
static int check_answer(struct node_channel_actor *channel, struct node_link *link, const uint8_t *header,
                        zmq_msg_t *body, const char **ret_reason)
{
    struct node_transport *transport = channel->transport;
    struct gossip_principal principal;
    struct node_hello hello;
    struct replica_id own_cluster;
    uint8_t proof[NODE_PROOF_SIZE];
    int code = node_hello_check(transport->keyring, zmq_msg_data(body), zmq_msg_size(body), NULL,
                                node_wall_ms(), &hello, &principal, ret_reason);
    if (code == 0)
        code = node_peer_check(transport, &hello, ret_reason, &own_cluster);
    if (code != 0)
        return code;
    if (node_hello_prove(transport->curve_secret, hello.curve_public, link->nonce,
                         header + 1 + NODE_PROOF_SIZE, proof) != 0 ||
        sodium_memcmp(proof, header + 1, sizeof proof) != 0) {
        *ret_reason = "it does not hold the key that its hello names";
        return REPLICA_E_DENIED;
    }
    link->peer = hello.store;
    link->expires_ms = hello.expires_ms;
    return 0;
}

static void on_answer(struct node_channel_actor *channel, struct node_link *link, zmq_msg_t *parts, size_t n)
{
    const uint8_t *header = zmq_msg_data(&parts[0]);
    const char *reason;
    if (n != PARTS_MAX || zmq_msg_size(&parts[0]) != NODE_FRAME_ANSWER_SIZE ||
        link->state != NODE_LINK_GREETING || link->hello_due)
        return;
    if (check_answer(channel, link, header, &parts[1], &reason) != 0) {
        node_channel_log(channel, 2, "refused who answers at %s: %s", link->endpoint, reason);
        back_off(channel, link);
        return;
    }
    link->state = NODE_LINK_READY;
    link->failures = 0;
    link->progress_ms = node_now_ms();
    set_token(channel, link, header + 1 + NODE_PROOF_SIZE);
}

/* The peer's text, as far as a log line may carry it. */
static void read_reason(const char *reason, size_t n, char ret_text[REASON_MAX + 1])
{
    for (size_t i = 0; i < n; i++)
        ret_text[i] = reason[i];
    for (size_t i = 0; i < n; i++)
        if (ret_text[i] < ' ' || ret_text[i] > '~')
            ret_text[i] = '?';
    ret_text[n] = '\0';
}

static void on_refused(struct node_channel_actor *channel, struct node_link *link, zmq_msg_t *body)
{
    struct replica_pack_reader reader;
    struct replica_id cluster;
    char text[REASON_MAX + 1] = "no reason given", name[33] = "";
    const char *reason;
    int64_t code;
    size_t n;
    replica_pack_reader_init(&reader, zmq_msg_data(body), zmq_msg_size(body));
    replica_pack_read_array(&reader, 16 /* later versions may append */, &n);
    replica_pack_read_int(&reader, &code);
    if (replica_pack_read_str(&reader, REASON_MAX, &reason, &n) == 0)
        read_reason(reason, n, text);
    if (replica_pack_read_id(&reader, &cluster) == 0 && !replica_id_is_zero(&cluster))
        replica_id_format(&cluster, name);
    node_channel_log(channel, 2, "%s refuses this node: %s%s%s", link->endpoint, text,
                     name[0] != '\0' ? ", its cluster is " : "", name);
    back_off(channel, link);
}

/* The listener of a plain data channel restarted, or forgot us: the control channel greets it for a new
 * token. */
static void on_token_lost(struct node_channel_actor *channel, struct node_link *link)
{
    link->state = NODE_LINK_WAITING;
    link->opened_ms = node_now_ms();
    node_table_token_lost(&channel->transport->channels[NODE_CHANNEL_CONTROL], link->endpoint);
}

static void on_frames(struct node_channel_actor *channel, struct node_link *link, zmq_msg_t *parts, size_t n)
{
    uint8_t kind = zmq_msg_size(&parts[0]) > 0 ? *(const uint8_t *)zmq_msg_data(&parts[0]) : 0;
    if (kind == NODE_FRAME_STRANGER && link->state == NODE_LINK_READY && channel->plain)
        on_token_lost(channel, link);
    else if (channel->plain)
        return;
    else if (kind == NODE_FRAME_WHO || (kind == NODE_FRAME_STRANGER && link->state == NODE_LINK_READY)) {
        link->state = NODE_LINK_READY; /* as far as greet is concerned: there is a connection */
        node_link_greet(link);
    } else if (kind == NODE_FRAME_ANSWER)
        on_answer(channel, link, parts, n);
    else if (kind == NODE_FRAME_REFUSED && n == PARTS_MAX)
        on_refused(channel, link, &parts[1]);
}

static void receive(struct node_channel_actor *channel, struct node_link *link)
{
    zmq_msg_t parts[PARTS_MAX];
    size_t n;
    if (node_frames_receive(zsock_resolve(link->socket), parts, PARTS_MAX, &n) != 0)
        return;
    on_frames(channel, link, parts, n);
    node_frames_close(parts, PARTS_MAX);
}

/* Returns false if there is no room yet. */
static bool send_hello(struct node_channel_actor *channel, struct node_link *link)
{
    struct node_transport *transport = channel->transport;
    void *socket = zsock_resolve(link->socket);
    uint8_t header[NODE_FRAME_HELLO_SIZE] = {NODE_FRAME_HELLO};
    randombytes_buf(link->nonce, sizeof link->nonce);
    memcpy(header + 1, link->nonce, sizeof link->nonce);
    if (zmq_send(socket, header, sizeof header, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return false;
    pthread_mutex_lock(&transport->lock);
    zmq_send(socket, transport->hello_packed.data, transport->hello_packed.size, ZMQ_DONTWAIT);
    pthread_mutex_unlock(&transport->lock);
    link->hello_due = false;
    return true;
}

static void free_sent(void *bytes, void *outgoing)
{
    (void)bytes;
    node_outgoing_free(outgoing);
}

static bool is_for_peer(const struct node_link *link, const struct node_outgoing *outgoing)
{
    return replica_id_is_zero(&outgoing->to) || replica_id_equal(&outgoing->to, &link->peer);
}

/* The bytes go out as they lie; libzmq's thread frees them. Errors: AGAIN (no room; outgoing stays the
 * caller's). */
static int send_one(struct node_channel_actor *channel, struct node_link *link,
                    struct node_outgoing *outgoing)
{
    void *socket = zsock_resolve(link->socket);
    uint8_t header[NODE_FRAME_MESSAGE_PLAIN_SIZE] = {NODE_FRAME_MESSAGE};
    void *bytes = outgoing->bytes;
    size_t n = outgoing->n;
    zmq_msg_t body;
    memcpy(header + 1, outgoing->to.bytes, REPLICA_ID_SIZE);
    memcpy(header + NODE_FRAME_MESSAGE_SIZE, link->send_token, NODE_TOKEN_SIZE);
    if (zmq_send(socket, header, channel->plain ? NODE_FRAME_MESSAGE_PLAIN_SIZE : NODE_FRAME_MESSAGE_SIZE,
                 ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return REPLICA_E_AGAIN;
    atomic_store_explicit(&outgoing->handed, true, memory_order_release);
    if (zmq_msg_init_data(&body, bytes, n, free_sent, outgoing) != 0) {
        node_outgoing_free(outgoing);
        zmq_msg_init(&body); /* ends the message that has begun; the other end drops it */
        count_dropped(channel);
    } else
        atomic_fetch_add(&channel->transport->sent_bytes, n);
    /* The second frame follows its first wherever that went: there is no "no room" between them. */
    if (zmq_msg_send(&body, socket, ZMQ_DONTWAIT) < 0)
        zmq_msg_close(&body);
    return 0;
}

/* A plain data channel has no hello of its own: what it needs was given to the control channel. */
static void try_token(struct node_channel_actor *channel, struct node_link *link)
{
    struct node_channel_actor *control = &channel->transport->channels[NODE_CHANNEL_CONTROL];
    if (node_table_token(control, link->endpoint, link->send_token, &link->peer) == 0) {
        link->state = NODE_LINK_READY;
        link->progress_ms = node_now_ms();
    }
}

static void flush(struct node_channel_actor *channel, struct node_link *link)
{
    for (unsigned i = 0; i < MESSAGES_PER_ROUND && link->queue.head != NULL; i++) {
        struct node_outgoing *outgoing = link->queue.head;
        if (!is_for_peer(link, outgoing) && channel->plain)
            try_token(channel, link);       /* the control channel may know by now who has that address */
        if (!is_for_peer(link, outgoing)) { /* somebody else has it */
            node_outgoing_free(node_queue_pop(&link->queue));
            count_dropped(channel);
            continue;
        }
        node_queue_pop(&link->queue);
        if (send_one(channel, link, outgoing) != 0) {
            outgoing->next = link->queue.head;
            if (link->queue.head == NULL)
                link->queue.tail = &outgoing->next;
            link->queue.head = outgoing;
            return;
        }
        link->progress_ms = node_now_ms();
    }
}

static bool wants_out(const struct node_link *link)
{
    return link->state == NODE_LINK_GREETING ? link->hello_due
                                             : link->state == NODE_LINK_READY && link->queue.head != NULL;
}

/* Whether there is a reason to be connected: something to send, or a token that the data channel waits for.
 */
static bool wants_socket(struct node_channel_actor *channel, struct node_link *link)
{
    bool wants = link->queue.head != NULL;
    if (wants || channel->which != NODE_CHANNEL_CONTROL ||
        !channel->transport->channels[NODE_CHANNEL_DATA].plain)
        return wants;
    pthread_mutex_lock(&channel->lock);
    wants = !link->has_token;
    pthread_mutex_unlock(&channel->lock);
    return wants;
}

void node_link_service(struct node_channel_actor *channel, struct node_link *link)
{
    link->again = false;
    if (link->state == NODE_LINK_CLOSED && node_now_ms() >= link->retry_ms && wants_socket(channel, link))
        open_link(channel, link);
    if (link->state == NODE_LINK_WAITING && channel->plain)
        try_token(channel, link);
    for (unsigned i = 0; i < SERVICE_ROUNDS; i++) {
        int events = link->socket == NULL ? 0 : zsock_events(link->socket);
        bool out = (events & ZMQ_POLLOUT) != 0 && wants_out(link);
        if ((events & ZMQ_POLLIN) == 0 && !out)
            return;
        if ((events & ZMQ_POLLIN) != 0)
            receive(channel, link);
        else if (link->state == NODE_LINK_GREETING)
            send_hello(channel, link);
        else
            flush(channel, link);
    }
    link->again = channel->links_again = true;
}

/* What waited too long for a link that is not there. */
static void drop_stale(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    while (link->queue.head != NULL && now_ms - link->queue.head->queued_ms > UNSENT_MS) {
        node_outgoing_free(node_queue_pop(&link->queue));
        count_dropped(channel);
    }
}

static void tick_unanswered(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    size_t gates = channel->plain ? 1 : node_keyring_count(channel->transport->keyring);
    uint64_t limit = gates > 1 ? ANSWER_GATES_MS : ANSWER_MS;
    drop_stale(channel, link, now_ms);
    if (link->state == NODE_LINK_CLOSED || now_ms - link->opened_ms <= limit)
        return;
    close_socket(channel, link);
    link->gate = (link->gate + 1) % gates;
}

static void tick_ready(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    uint64_t freed = atomic_load(&link->account->freed);
    uint64_t limit = channel->which == NODE_CHANNEL_DATA ? STALL_DATA_MS : STALL_CONTROL_MS;
    if (link->expires_ms != 0 && node_wall_ms() >= link->expires_ms) {
        node_channel_log(channel, 2, "the credential of who answers at %s has expired", link->endpoint);
        back_off(channel, link);
        return;
    }
    if (freed != link->freed_seen || link->queue.head == NULL) {
        link->freed_seen = freed;
        link->progress_ms = now_ms;
        return;
    }
    if (now_ms - link->progress_ms > limit) {
        node_channel_log(channel, 1, "%s takes nothing; its link is made anew", link->endpoint);
        node_link_close(channel, link);
    }
}

void node_link_tick(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms)
{
    if (link->state == NODE_LINK_READY)
        tick_ready(channel, link, now_ms);
    else
        tick_unanswered(channel, link, now_ms);
    if (now_ms > IDLE_MS && link->queue.head == NULL &&
        node_table_remove_idle(channel, link, now_ms - IDLE_MS))
        return;
    node_link_service(channel, link);
}
