#include "transport_internal.h"

#include "credential_internal.h"
#include "loop.h"

#include <assert.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#define DESCRIPTORS_PER_LINK 8  /* transport.h, NODE_LINKS_MAX */
#define PORT_TRIES           64 /* port 0: a free pair is found by the first or second */

static void pack_hello_locked(struct node_transport *transport)
{
    struct replica_buffer packed;
    replica_buffer_init(&packed);
    node_hello_pack(transport->keyring, &transport->hello, &packed);
    if (packed.failed) {
        replica_buffer_close(&packed);
        return;
    }
    replica_buffer_close(&transport->hello_packed);
    transport->hello_packed = packed;
}

static int channel_init(struct node_transport *transport, enum node_channel which, bool plain)
{
    struct node_channel_actor *channel = &transport->channels[which];
    channel->transport = transport;
    channel->which = which;
    channel->plain = plain;
    channel->message_max = which == NODE_CHANNEL_DATA ? NODE_DATA_MESSAGE_MAX : NODE_CONTROL_MESSAGE_MAX;
    channel->pipe_source.kind = NODE_SOURCE_PIPE;
    channel->wake_source.kind = NODE_SOURCE_WAKE;
    channel->router_source.kind = NODE_SOURCE_ROUTER;
    channel->monitor_source.kind = NODE_SOURCE_MONITOR;
    pthread_mutex_init(&channel->lock, NULL);
    channel->links = zhashx_new();
    if (channel->links != NULL) {
        zhashx_set_key_duplicator(channel->links, NULL); /* the key lies inside the link */
        zhashx_set_key_destructor(channel->links, NULL);
    }
    channel->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    channel->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return channel->links != NULL && channel->wake_fd >= 0 && channel->epoll_fd >= 0 ? 0 : REPLICA_E_NOMEM;
}

static void channel_close(struct node_channel_actor *channel)
{
    struct node_link *link, *next;
    zactor_destroy(&channel->actor); /* waits until the actor has closed its sockets */
    assert(!atomic_load(&channel->started));
    node_listener_close(channel); /* of a channel whose actor never ran */
    for (link = channel->dirty; link != NULL; link = next) {
        next = link->next_dirty;
        if (!link->listed)
            node_link_free(link);
    }
    while ((link = channel->oldest) != NULL) {
        channel->oldest = link->newer;
        node_link_free(link);
    }
    zhashx_destroy(&channel->links);
    close(channel->wake_fd);
    close(channel->epoll_fd);
    pthread_mutex_destroy(&channel->lock);
}

static int bind_channel(struct node_channel_actor *channel, const struct node_endpoint *where, uint32_t port)
{
    char address[GOSSIP_ENDPOINT_MAX + 1];
    int code = node_listener_open(channel, where->host[0] == '[');
    node_endpoint_format(where, port, address);
    return code == 0 ? node_listener_bind(channel, address) : code;
}

/* Control on the port given (0: any), data on the next. */
static int bind_pair(struct node_transport *transport, const struct node_endpoint *where)
{
    struct node_channel_actor *channels = transport->channels;
    struct node_endpoint bound;
    int code = bind_channel(&channels[NODE_CHANNEL_CONTROL], where, where->port);
    if (code == 0)
        code = node_endpoint_parse(channels[NODE_CHANNEL_CONTROL].bound, &bound) == 0 ? 0 : REPLICA_E_BUSY;
    if (code == 0)
        code = bind_channel(&channels[NODE_CHANNEL_DATA], where, bound.port + 1);
    if (code != 0) {
        node_listener_close(&channels[NODE_CHANNEL_DATA]);
        node_listener_close(&channels[NODE_CHANNEL_CONTROL]);
    }
    return code;
}

static int listen_on(struct node_transport *transport, const char *listen, char **ret_message)
{
    struct node_endpoint where;
    int code = REPLICA_E_BUSY;
    if (node_endpoint_parse(listen, &where) != 0)
        return node_complain(REPLICA_E_INVALID, ret_message,
                             "listen: \"%s\" is not tcp://HOST:PORT with a port below 65535", listen);
    if (node_keyring_is_loopback(transport->keyring) && !node_endpoint_is_loopback(&where))
        return node_complain(REPLICA_E_INVALID, ret_message,
                             "listen: without a cluster key a node listens on 127.0.0.1 only, not on \"%s\"",
                             listen);
    for (unsigned i = 0; code == REPLICA_E_BUSY && i < (where.port == 0 ? PORT_TRIES : 1); i++)
        code = bind_pair(transport, &where);
    if (code == REPLICA_E_BUSY)
        return node_complain(code, ret_message, "listen: \"%s\" or the port after it is in use", listen);
    if (code == REPLICA_E_INVALID)
        return node_complain(code, ret_message, "listen: \"%s\" is not an address of this machine", listen);
    if (code != 0)
        return node_complain(code, ret_message, "listen: \"%s\": %s", listen, zmq_strerror(zmq_errno()));
    memcpy(transport->endpoint, transport->channels[NODE_CHANNEL_CONTROL].bound, sizeof transport->endpoint);
    return 0;
}

static int start_actors(struct node_transport *transport, char **ret_message)
{
    for (size_t i = 0; i < NODE_CHANNELS; i++) {
        struct node_channel_actor *channel = &transport->channels[i];
        channel->actor = zactor_new(node_channel_run, channel);
        if (channel->actor == NULL || !atomic_load(&channel->started))
            return node_complain(REPLICA_E_IO, ret_message, "transport: cannot start a thread");
    }
    return 0;
}

static int start(struct node_transport *transport, const struct node_transport_options *options,
                 char **ret_message)
{
    int code = listen_on(transport, options->listen, ret_message);
    if (code != 0)
        return code;
    if (transport->hello.endpoint[0] == '\0')
        memcpy(transport->hello.endpoint, transport->endpoint, sizeof transport->endpoint);
    pack_hello_locked(transport);
    if (transport->hello_packed.size == 0)
        return REPLICA_E_NOMEM;
    return start_actors(transport, ret_message);
}

static size_t links_max(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur / DESCRIPTORS_PER_LINK >= NODE_LINKS_MAX)
        return NODE_LINKS_MAX;
    return limit.rlim_cur / DESCRIPTORS_PER_LINK + 1;
}

static int transport_init(struct node_transport *transport, const struct node_transport_options *options)
{
    int code = node_sessions_init(&transport->sessions);
    transport->handler = options->handler;
    transport->keyring = options->keyring;
    transport->hello = options->hello;
    transport->hello.features &= ~NODE_FEATURE_DATA_PLAIN;
    if (options->data_plain)
        transport->hello.features |= NODE_FEATURE_DATA_PLAIN;
    memcpy(transport->curve_secret, options->curve_secret, sizeof transport->curve_secret);
    replica_buffer_init(&transport->hello_packed);
    pthread_mutex_init(&transport->lock, NULL);
    transport->total = node_account_new(NULL);
    transport->links_max = links_max();
    for (size_t i = 0; i < NODE_CHANNELS; i++) {
        int failed =
            channel_init(transport, (enum node_channel)i, i == NODE_CHANNEL_DATA && options->data_plain);
        code = code == 0 ? failed : code;
    }
    return code == 0 && transport->total == NULL ? REPLICA_E_NOMEM : code;
}

int node_transport_new(const struct node_transport_options *options, struct node_transport **ret_transport,
                       char **ret_message)
{
    struct node_transport *transport;
    int code;
    *ret_message = NULL;
    code = node_zap_acquire(ret_message);
    if (code != 0)
        return code;
    transport = calloc(1, sizeof *transport);
    if (transport == NULL) {
        node_zap_release();
        return REPLICA_E_NOMEM;
    }
    code = transport_init(transport, options);
    if (code == 0)
        code = start(transport, options, ret_message);
    if (code != 0)
        node_transport_destroy(&transport);
    else
        *ret_transport = transport;
    return code;
}

void node_transport_destroy(struct node_transport **transport)
{
    struct node_transport *closed = *transport;
    if (closed == NULL)
        return;
    for (size_t i = NODE_CHANNELS; i > 0; i--)
        channel_close(&closed->channels[i - 1]);
    node_sessions_close(&closed->sessions);
    replica_buffer_close(&closed->hello_packed);
    node_account_release(closed->total);
    pthread_mutex_destroy(&closed->lock);
    sodium_memzero(closed->curve_secret, sizeof closed->curve_secret);
    free(closed);
    *transport = NULL;
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
    pack_hello_locked(transport);
    node_sessions_keep_cluster(&transport->sessions, cluster);
    pthread_mutex_unlock(&transport->lock);
    for (size_t i = 0; i < NODE_CHANNELS; i++) {
        struct node_channel_actor *channel = &transport->channels[i];
        pthread_mutex_lock(&channel->lock);
        channel->greet_all = true;
        node_channel_wake_locked(channel);
        pthread_mutex_unlock(&channel->lock);
    }
}

static int queue(struct node_transport *transport, enum node_channel which, const struct replica_id *to,
                 const char *endpoint, void *bytes, size_t n)
{
    struct node_channel_actor *channel = &transport->channels[which];
    struct node_outgoing *outgoing;
    int code;
    if (n == 0 || n > channel->message_max)
        return REPLICA_E_INVALID;
    outgoing = calloc(1, sizeof *outgoing);
    if (outgoing == NULL)
        return REPLICA_E_NOMEM;
    outgoing->to = *to;
    outgoing->bytes = bytes;
    outgoing->n = n;
    code = node_table_push(channel, endpoint, outgoing);
    if (code != 0)
        free(outgoing);
    return code;
}

int node_transport_send(struct node_transport *transport, enum node_channel channel,
                        const struct replica_id *to, const char *endpoint, void *bytes, size_t n)
{
    int code = queue(transport, channel, to, endpoint, bytes, n);
    if (code != 0) {
        free(bytes);
        atomic_fetch_add(&transport->dropped, 1);
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
