/* Making and unmaking the two channels, and what any thread may call. */
#include "transport_internal.h"

#include "credential_internal.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#define PORT_TRIES 64 /* for a free pair when the port is 0 */

static int repack_hello(struct node_transport *transport)
{
    replica_buffer_clear(&transport->hello_packed);
    node_hello_pack(transport->keyring, &transport->hello, &transport->hello_packed);
    return transport->hello_packed.failed ? REPLICA_E_NOMEM : 0;
}

/* Channels */

static int channel_init(struct node_transport *transport, enum node_channel which, bool plain)
{
    struct node_channel_actor *channel = &transport->channels[which];
    channel->transport = transport;
    channel->which = which;
    channel->plain = plain;
    channel->message_max = which == NODE_CHANNEL_DATA ? NODE_DATA_MESSAGE_MAX : NODE_CONTROL_MESSAGE_MAX;
    pthread_mutex_init(&channel->lock, NULL);
    channel->pipe_source.kind = NODE_SOURCE_PIPE;
    channel->wake_source.kind = NODE_SOURCE_WAKE;
    channel->router_source.kind = NODE_SOURCE_ROUTER;
    channel->monitor_source.kind = NODE_SOURCE_MONITOR;
    channel->wake_fd = eventfd(0, EFD_CLOEXEC);
    channel->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    channel->links = zhashx_new();
    if (channel->links == NULL)
        return REPLICA_E_NOMEM;
    zhashx_set_key_duplicator(channel->links, NULL); /* keys lie inside the links */
    zhashx_set_key_destructor(channel->links, NULL);
    return channel->wake_fd < 0 || channel->epoll_fd < 0 ? REPLICA_E_IO : 0;
}

static void channel_close(struct node_channel_actor *channel)
{
    if (channel->transport == NULL)
        return;
    if (channel->actor != NULL)
        zactor_destroy(&channel->actor);
    else
        node_listener_close(channel);
    for (struct node_link *link = channel->oldest, *next; link != NULL; link = next) {
        next = link->newer;
        node_link_free(link);
    }
    zhashx_destroy(&channel->links);
    if (channel->wake_fd >= 0)
        close(channel->wake_fd);
    if (channel->epoll_fd >= 0)
        close(channel->epoll_fd);
    pthread_mutex_destroy(&channel->lock);
}

/* Binds both channels at that port and the next. */
static int bind_pair(struct node_transport *transport, const struct node_endpoint *endpoint)
{
    struct node_channel_actor *control = &transport->channels[NODE_CHANNEL_CONTROL], *data = &transport->channels[NODE_CHANNEL_DATA];
    bool ipv6 = endpoint->host[0] == '[';
    struct node_endpoint bound;
    char text[GOSSIP_ENDPOINT_MAX + 1];
    int code = node_listener_open(control, ipv6);
    if (code == 0)
        code = node_listener_open(data, ipv6);
    if (code == 0) {
        node_endpoint_format(endpoint, endpoint->port, text);
        code = node_listener_bind(control, text);
    }
    if (code == 0 && node_endpoint_parse(control->bound, &bound) != 0)
        code = REPLICA_E_BUSY; /* port 65535 has no successor */
    if (code == 0) {
        node_endpoint_format(&bound, bound.port, transport->endpoint);
        node_endpoint_format(endpoint, bound.port + 1, text);
        code = node_listener_bind(data, text);
    }
    if (code != 0) {
        node_listener_close(control);
        node_listener_close(data);
    }
    return code;
}

static int listen_at(struct node_transport *transport, const char *listen, char **ret_message)
{
    struct node_endpoint endpoint;
    int code;
    if (node_endpoint_parse(listen, &endpoint) != 0)
        return node_complain(REPLICA_E_INVALID, ret_message,
                             "listen: \"%s\" is not an address; use tcp://HOST:PORT with a port up to 65534", listen);
    if (node_keyring_is_loopback(transport->keyring) && !node_endpoint_is_loopback(&endpoint))
        return node_complain(REPLICA_E_INVALID, ret_message,
                             "listen: %s can be reached from elsewhere; make a key with `remora keygen` and give it with --key", listen);
    do
        code = bind_pair(transport, &endpoint);
    while (code == REPLICA_E_BUSY && endpoint.port == 0 && transport->endpoint[0] != '\0' &&
           transport->channels[0].log_lines++ < PORT_TRIES);
    transport->channels[0].log_lines = 0;
    if (code == REPLICA_E_BUSY)
        return node_complain(code, ret_message, "listen: %s or the port after it is in use; choose another with --listen", listen);
    if (code != 0)
        return node_complain(code, ret_message, "listen: cannot listen at %s: %s", listen, zmq_strerror(zmq_errno()));
    return 0;
}

static int start(struct node_transport *transport, char **ret_message)
{
    for (size_t i = 0; i < NODE_CHANNELS; i++) {
        struct node_channel_actor *channel = &transport->channels[i];
        channel->actor = zactor_new(node_channel_run, channel);
        if (channel->actor == NULL || !channel->started)
            return node_complain(REPLICA_E_IO, ret_message, "transport: cannot start the thread of a channel");
    }
    return 0;
}

/* The transport */

static int init(struct node_transport *transport, const struct node_transport_options *options, char **ret_message)
{
    int code;
    transport->handler = options->handler;
    transport->keyring = options->keyring;
    transport->hello = options->hello;
    if (options->data_plain)
        transport->hello.features |= NODE_FEATURE_DATA_PLAIN;
    memcpy(transport->curve_secret, options->curve_secret, NODE_CURVE_KEY_SIZE);
    replica_buffer_init(&transport->hello_packed);
    pthread_mutex_init(&transport->lock, NULL);
    code = node_sessions_init(&transport->sessions);
    transport->total = node_account_new(NULL);
    if (transport->total == NULL)
        code = REPLICA_E_NOMEM;
    if (code == 0)
        code = channel_init(transport, NODE_CHANNEL_CONTROL, false);
    if (code == 0)
        code = channel_init(transport, NODE_CHANNEL_DATA, options->data_plain);
    if (code == 0)
        code = listen_at(transport, options->listen, ret_message);
    if (code != 0)
        return code;
    if (transport->hello.endpoint[0] == '\0')
        memcpy(transport->hello.endpoint, transport->endpoint, sizeof transport->hello.endpoint);
    code = repack_hello(transport);
    return code != 0 ? code : start(transport, ret_message);
}

int node_transport_new(const struct node_transport_options *options, struct node_transport **ret_transport, char **ret_message)
{
    struct node_transport *transport;
    int code = node_zap_acquire(ret_message);
    if (code != 0)
        return code;
    transport = calloc(1, sizeof *transport);
    if (transport == NULL) {
        node_zap_release();
        return REPLICA_E_NOMEM;
    }
    code = init(transport, options, ret_message);
    if (code != 0) {
        node_transport_destroy(&transport);
        return code;
    }
    *ret_transport = transport;
    return 0;
}

void node_transport_destroy(struct node_transport **transport)
{
    struct node_transport *gone = *transport;
    if (gone == NULL)
        return;
    *transport = NULL;
    for (size_t i = 0; i < NODE_CHANNELS; i++)
        channel_close(&gone->channels[i]);
    node_sessions_close(&gone->sessions);
    replica_buffer_close(&gone->hello_packed);
    node_account_release(gone->total);
    pthread_mutex_destroy(&gone->lock);
    sodium_memzero(gone->curve_secret, sizeof gone->curve_secret);
    free(gone);
    node_zap_release();
}

const char *node_transport_endpoint(const struct node_transport *transport)
{
    return transport->endpoint;
}

void node_transport_set_cluster(struct node_transport *transport, const struct replica_id *cluster)
{
    pthread_mutex_lock(&transport->lock);
    transport->hello.cluster = *cluster;
    repack_hello(transport);
    node_sessions_keep_cluster(&transport->sessions, cluster);
    pthread_mutex_unlock(&transport->lock);
    for (size_t i = 0; i < NODE_CHANNELS; i++) {
        struct node_channel_actor *channel = &transport->channels[i];
        if (channel->plain)
            continue;
        pthread_mutex_lock(&channel->lock);
        channel->greet_all = true;
        node_channel_wake_locked(channel);
        pthread_mutex_unlock(&channel->lock);
    }
}

int node_transport_send(struct node_transport *transport, enum node_channel channel, const struct replica_id *to, const char *endpoint,
                        void *bytes, size_t n)
{
    struct node_channel_actor *actor = &transport->channels[channel];
    struct node_outgoing *outgoing;
    int code;
    if (n == 0 || n > actor->message_max) {
        free(bytes);
        return REPLICA_E_INVALID;
    }
    outgoing = calloc(1, sizeof *outgoing);
    if (outgoing == NULL) {
        free(bytes);
        return REPLICA_E_NOMEM;
    }
    outgoing->to = *to;
    outgoing->bytes = bytes;
    outgoing->n = n;
    code = node_table_push(actor, endpoint, outgoing);
    if (code != 0) {
        atomic_fetch_add(&transport->dropped, 1);
        node_outgoing_free(outgoing);
    }
    return code;
}

void node_transport_stats(struct node_transport *transport, struct node_transport_stats *ret_stats)
{
    ret_stats->sent_bytes = atomic_load(&transport->sent_bytes);
    ret_stats->received_bytes = atomic_load(&transport->received_bytes);
    ret_stats->dropped = atomic_load(&transport->dropped);
    ret_stats->refused = atomic_load(&transport->refused);
    ret_stats->links = atomic_load(&transport->links);
}
