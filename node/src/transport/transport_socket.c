/* libzmq's sockets with the options that make them ours. What each option guards against: docs/protocol.md,
 * "Channels and links". */
#include "transport_internal.h"

#include "credential_internal.h"
#include "loop.h"

#include <errno.h>

#define BACKLOG           4096 /* a thousand nodes may start at once; the default 100 makes them wait for seconds */
#define HANDSHAKE_MS      5000  /* half-open connections are closed after this */
#define CONNECT_MS        5000  /* an address that swallows packets */
#define RECONNECT_MS      100   /* doubled … */
#define RECONNECT_MAX_MS  5000  /* … up to this */
#define HEARTBEAT_MS      5000  /* control only: on data a ping would wait behind megabytes */
#define HEARTBEAT_DEAD_MS 15000 /* far below libzmq's limit of 65 s */
#define KEEPALIVE_S       15
#define KEEPALIVE_PROBE_S 5
#define KEEPALIVE_PROBES  3
#define RETRANSMIT_MS     30000 /* unacknowledged bytes for that long: the peer is gone */
#define FRAME_OVERHEAD    256   /* CURVE's own bytes on top of a message */
#define CONTROL_QUEUE     256   /* messages inside libzmq per connection; our own queue holds the rest */
#define DATA_QUEUE        8     /* of a MiB each: enough to keep a connection busy */
#define CLOSE_DEADLINE_MS 300   /* for the port to be free again */

#define MONITOR_EVENTS                                                                                       \
    (ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |                            \
     ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_CLOSED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED)

struct option {
    int name, value;
};

static int set_options(void *socket, const struct option *options, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (zmq_setsockopt(socket, options[i].name, &options[i].value, sizeof options[i].value) != 0)
            return REPLICA_E_IO;
    return 0;
}

static int set_bytes(void *socket, int name, const void *data, size_t n)
{
    return zmq_setsockopt(socket, name, data, n) == 0 ? 0 : REPLICA_E_IO;
}

static int set_common(const struct node_channel_actor *channel, void *socket, size_t message_max)
{
    bool data = channel->which == NODE_CHANNEL_DATA;
    uint64_t affinity = data ? NODE_IO_DATA_MASK : NODE_IO_CONTROL_MASK;
    int64_t size = (int64_t)(message_max + FRAME_OVERHEAD);
    int queue = data ? DATA_QUEUE : CONTROL_QUEUE;
    const struct option options[] = {
        {ZMQ_LINGER, 0},
        {ZMQ_SNDHWM, queue},
        {ZMQ_RCVHWM, queue},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S},
        {ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_PROBE_S},
        {ZMQ_TCP_KEEPALIVE_CNT, KEEPALIVE_PROBES},
        {ZMQ_TCP_MAXRT, RETRANSMIT_MS},
    };
    if (set_bytes(socket, ZMQ_AFFINITY, &affinity, sizeof affinity) != 0 ||
        set_bytes(socket, ZMQ_MAXMSGSIZE, &size, sizeof size) != 0)
        return REPLICA_E_IO;
    return set_options(socket, options, sizeof options / sizeof options[0]);
}

static int set_gate(const struct node_channel_actor *channel, void *socket)
{
    uint8_t public[NODE_CURVE_KEY_SIZE], secret[NODE_CURVE_KEY_SIZE];
    const int server = 1;
    int code;
    if (channel->plain)
        return 0;
    node_keyring_gate(channel->transport->keyring, public, secret);
    code = set_bytes(socket, ZMQ_CURVE_SERVER, &server, sizeof server);
    if (code == 0)
        code = set_bytes(socket, ZMQ_CURVE_SECRETKEY, secret, sizeof secret);
    if (code == 0)
        code = set_bytes(socket, ZMQ_ZAP_DOMAIN, NODE_ZAP_DOMAIN, strlen(NODE_ZAP_DOMAIN));
    sodium_memzero(secret, sizeof secret);
    return code;
}

/* The pipe of events is unlimited: libzmq's thread would block on a full one. The actor reads it at once. */
static int open_monitor(struct node_channel_actor *channel)
{
    const struct option unlimited[] = {{ZMQ_LINGER, 0}, {ZMQ_RCVHWM, 0}};
    static _Atomic unsigned monitors; /* a name is let go of some time after its socket was closed */
    char address[64];
    snprintf(address, sizeof address, "inproc://remora-monitor-%u", atomic_fetch_add(&monitors, 1));
    if (zmq_socket_monitor(zsock_resolve(channel->router), address, MONITOR_EVENTS) != 0)
        return REPLICA_E_IO;
    channel->monitor = zsock_new(ZMQ_PAIR);
    if (channel->monitor == NULL || set_options(zsock_resolve(channel->monitor), unlimited, 2) != 0)
        return REPLICA_E_NOMEM;
    return zmq_connect(zsock_resolve(channel->monitor), address) == 0 ? 0 : REPLICA_E_IO;
}

int node_listener_open(struct node_channel_actor *channel, bool ipv6)
{
    const struct option options[] = {{ZMQ_BACKLOG, BACKLOG}, {ZMQ_ROUTER_MANDATORY, 1}, {ZMQ_IPV6, ipv6}};
    void *socket;
    int code;
    channel->router = zsock_new(ZMQ_ROUTER);
    if (channel->router == NULL)
        return REPLICA_E_NOMEM;
    socket = zsock_resolve(channel->router);
    code = set_common(channel, socket, channel->message_max);
    if (code == 0)
        code = set_options(socket, options, sizeof options / sizeof options[0]);
    if (code == 0)
        code = set_gate(channel, socket);
    if (code == 0)
        code = open_monitor(channel);
    return code;
}

int node_listener_bind(struct node_channel_actor *channel, const char *endpoint)
{
    void *socket = zsock_resolve(channel->router);
    size_t n = sizeof channel->bound;
    if (zmq_bind(socket, endpoint) != 0) {
        switch (zmq_errno()) {
        case EADDRINUSE:
            return REPLICA_E_BUSY;
        case EADDRNOTAVAIL:
        case ENODEV:
        case EINVAL:
            return REPLICA_E_INVALID;
        default:
            return REPLICA_E_IO;
        }
    }
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, channel->bound, &n) != 0)
        return REPLICA_E_IO;
    return 0;
}

/* Unbinding is done by an I/O thread; who starts anew on the same port must find it free. */
static void wait_until_unbound(struct node_channel_actor *channel)
{
    uint64_t deadline = node_now_ms() + CLOSE_DEADLINE_MS, now;
    void *monitor = zsock_resolve(channel->monitor);
    zmq_pollitem_t item = {monitor, 0, ZMQ_POLLIN, 0};
    while ((now = node_now_ms()) < deadline) {
        zmq_msg_t parts[2];
        uint16_t event = 0;
        size_t n = 0;
        if (zmq_poll(&item, 1, (long)(deadline - now)) <= 0 ||
            node_frames_receive(monitor, parts, 2, &n) != 0)
            continue;
        if (zmq_msg_size(&parts[0]) >= sizeof event)
            memcpy(&event, zmq_msg_data(&parts[0]), sizeof event);
        node_frames_close(parts, 2);
        if (event == ZMQ_EVENT_CLOSED)
            return;
    }
}

void node_listener_close(struct node_channel_actor *channel)
{
    if (channel->router != NULL && channel->monitor != NULL && channel->bound[0] != '\0' &&
        zmq_unbind(zsock_resolve(channel->router), channel->bound) == 0)
        wait_until_unbound(channel);
    if (channel->router != NULL)
        zmq_socket_monitor(zsock_resolve(channel->router), NULL, 0);
    zsock_destroy(&channel->monitor);
    zsock_destroy(&channel->router);
    channel->bound[0] = '\0';
}

static int set_link_keys(const struct node_channel_actor *channel, void *socket, size_t gate)
{
    const struct node_transport *transport = channel->transport;
    uint8_t server[NODE_CURVE_KEY_SIZE];
    const int probe = 1;
    int code;
    if (channel->plain)
        return 0;
    node_keyring_gate_at(transport->keyring, gate, server);
    code = set_bytes(socket, ZMQ_CURVE_SERVERKEY, server, sizeof server);
    if (code == 0)
        code = set_bytes(socket, ZMQ_CURVE_PUBLICKEY, transport->hello.curve_public, NODE_CURVE_KEY_SIZE);
    if (code == 0)
        code = set_bytes(socket, ZMQ_CURVE_SECRETKEY, transport->curve_secret, NODE_CURVE_KEY_SIZE);
    if (code == 0) /* the listener learns of every new connection, and asks who it is */
        code = set_bytes(socket, ZMQ_PROBE_ROUTER, &probe, sizeof probe);
    return code;
}

zsock_t *node_link_socket_new(const struct node_channel_actor *channel, const char *endpoint, size_t gate)
{
    bool data = channel->which == NODE_CHANNEL_DATA;
    const struct option options[] = {
        {ZMQ_IMMEDIATE, 1}, /* nothing is queued for a connection that does not exist */
        {ZMQ_CONNECT_TIMEOUT, CONNECT_MS},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
        {ZMQ_IPV6, strchr(endpoint, '[') != NULL},
        {ZMQ_HEARTBEAT_IVL, data ? 0 : HEARTBEAT_MS},
        {ZMQ_HEARTBEAT_TIMEOUT, data ? 0 : HEARTBEAT_DEAD_MS},
    };
    zsock_t *zsock = zsock_new(ZMQ_DEALER);
    void *socket;
    if (zsock == NULL)
        return NULL;
    socket = zsock_resolve(zsock);
    if (set_common(channel, socket, NODE_HELLO_SIZE_MAX) != 0 ||
        set_options(socket, options, sizeof options / sizeof options[0]) != 0 ||
        set_link_keys(channel, socket, gate) != 0 || zmq_connect(socket, endpoint) != 0)
        zsock_destroy(&zsock);
    return zsock;
}

int node_frames_receive(void *socket, zmq_msg_t *ret_parts, size_t max, size_t *ret_n)
{
    zmq_msg_t extra;
    size_t n = 0;
    bool more = true;
    for (size_t i = 0; i < max; i++)
        zmq_msg_init(&ret_parts[i]);
    for (; more && n < max; n++) {
        if (zmq_msg_recv(&ret_parts[n], socket, ZMQ_DONTWAIT) < 0)
            break;
        more = zmq_msg_more(&ret_parts[n]);
    }
    if (n == 0) {
        node_frames_close(ret_parts, max);
        return REPLICA_E_AGAIN;
    }
    while (more && n >= max) {
        zmq_msg_init(&extra);
        more = zmq_msg_recv(&extra, socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&extra);
        zmq_msg_close(&extra);
        n = max + 1;
    }
    *ret_n = n;
    return 0;
}

void node_frames_close(zmq_msg_t *parts, size_t max)
{
    for (size_t i = 0; i < max; i++)
        zmq_msg_close(&parts[i]);
}
