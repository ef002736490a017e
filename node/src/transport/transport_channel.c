/* One channel's actor: waits for its sockets and serves whichever is ready, a bounded piece at a time.
 *
 * libzmq's descriptors tell of commands, not of messages: readable means "ask for ZMQ_EVENTS", and once asked
 * it is silent until something changes. So whoever touched a socket asks before leaving it, and comes back
 * next turn if there is more. */
#include "transport_internal.h"

#include "loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>

#define EVENTS_PER_TURN 64
#define TICK_MS         250
#define REFUSED_MS      1000 /* from a handshake that failed to the end of its connection, at most */

static int watch_fd(struct node_channel_actor *channel, struct node_source *source, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
    return epoll_ctl(channel->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : REPLICA_E_IO;
}

int node_channel_watch(struct node_channel_actor *channel, struct node_source *source, zsock_t *socket)
{
    return watch_fd(channel, source, (int)zsock_fd(socket));
}

void node_channel_unwatch(struct node_channel_actor *channel, zsock_t *socket)
{
    epoll_ctl(channel->epoll_fd, EPOLL_CTL_DEL, (int)zsock_fd(socket), NULL);
}

void node_channel_wake_locked(struct node_channel_actor *channel)
{
    const uint64_t one = 1;
    if (channel->woken)
        return;
    channel->woken = true;
    while (write(channel->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

/* A link's messages from the senders' hands into the actor's. */
static void take_arrived(struct node_link *link, bool *ret_listed)
{
    struct node_outgoing *outgoing;
    link->dirty = false;
    *ret_listed = link->listed;
    while ((outgoing = node_queue_pop(&link->arrived)) != NULL)
        node_queue_push(&link->queue, outgoing);
}

static void take_dirty(struct node_channel_actor *channel, struct node_link *link)
{
    bool listed, lost;
    pthread_mutex_lock(&channel->lock);
    take_arrived(link, &listed);
    lost = link->state == NODE_LINK_READY && channel->which == NODE_CHANNEL_CONTROL && !link->has_token;
    pthread_mutex_unlock(&channel->lock);
    if (!link->adopted)
        node_link_adopt(channel, link);
    if (lost)
        node_link_greet(link);
    if (listed)
        node_link_service(channel, link);
    else
        node_link_close(channel, link); /* the next sweep frees it */
}

static void greet_all(struct node_channel_actor *channel)
{
    for (struct node_link *link = channel->known; link != NULL; link = link->next) {
        node_link_greet(link);
        node_link_service(channel, link);
    }
}

static void on_wake(struct node_channel_actor *channel)
{
    struct node_link *dirty, *next;
    bool greet, tokens;
    uint64_t count;
    while (read(channel->wake_fd, &count, sizeof count) < 0 && errno == EINTR)
        ;
    pthread_mutex_lock(&channel->lock);
    dirty = channel->dirty;
    channel->dirty = NULL;
    greet = channel->greet_all;
    tokens = channel->tokens_changed;
    channel->woken = channel->greet_all = channel->tokens_changed = false;
    pthread_mutex_unlock(&channel->lock);
    if (greet)
        greet_all(channel);
    for (struct node_link *link = channel->known; tokens && link != NULL; link = link->next)
        if (link->state == NODE_LINK_WAITING)
            node_link_service(channel, link);
    for (; dirty != NULL; dirty = next) {
        next = dirty->next_dirty;
        take_dirty(channel, dirty);
    }
}

static void on_pipe(struct node_channel_actor *channel)
{
    while ((zsock_events(channel->pipe) & ZMQ_POLLIN) != 0) {
        char *command = zstr_recv(channel->pipe);
        channel->stopping |= command != NULL && streq(command, "$TERM");
        zstr_free(&command);
    }
}

/* A handshake that failed is said first, and whose it was with the end of its connection. */
static void on_monitor_event(struct node_channel_actor *channel, uint16_t event, int value)
{
    char address[INET6_ADDRSTRLEN];
    switch (event) {
    case ZMQ_EVENT_CLOSED:
        return;
    case ZMQ_EVENT_ACCEPTED:
        node_knock_accepted(channel, value);
        return;
    case ZMQ_EVENT_DISCONNECTED:
        if (!node_knock_ended(channel, value, address, sizeof address) || channel->refused == 0)
            return;
        if (node_now_ms() > channel->refused_ms + REFUSED_MS) { /* of others, whose end was not seen */
            channel->refused = 0;
            return;
        }
        channel->refused--;
        node_channel_log(channel, 1, "a connection from %s to %s without the cluster's key was refused",
                         address, channel->bound);
        return;
    default:
        atomic_fetch_add(&channel->transport->refused, 1);
        channel->refused++;
        channel->refused_ms = node_now_ms();
    }
}

static void on_monitor(struct node_channel_actor *channel)
{
    void *socket = zsock_resolve(channel->monitor);
    while ((zsock_events(channel->monitor) & ZMQ_POLLIN) != 0) {
        zmq_msg_t parts[2];
        uint16_t event = 0;
        int32_t value = 0;
        size_t n;
        if (node_frames_receive(socket, parts, 2, &n) != 0)
            continue;
        if (zmq_msg_size(&parts[0]) >= sizeof event + sizeof value) {
            memcpy(&event, zmq_msg_data(&parts[0]), sizeof event);
            memcpy(&value, (const char *)zmq_msg_data(&parts[0]) + sizeof event, sizeof value);
        }
        node_frames_close(parts, 2);
        on_monitor_event(channel, event, value);
    }
}

static void dispatch(struct node_channel_actor *channel, struct node_source *source)
{
    switch (source->kind) {
    case NODE_SOURCE_PIPE:
        on_pipe(channel);
        break;
    case NODE_SOURCE_WAKE:
        on_wake(channel);
        break;
    case NODE_SOURCE_ROUTER:
        node_listener_service(channel);
        break;
    case NODE_SOURCE_MONITOR:
        on_monitor(channel);
        break;
    case NODE_SOURCE_LINK:
        node_link_service(channel, (struct node_link *)source);
        break;
    }
}

static bool is_listed(struct node_channel_actor *channel, const struct node_link *link)
{
    bool listed;
    pthread_mutex_lock(&channel->lock);
    listed = link->listed || link->dirty;
    pthread_mutex_unlock(&channel->lock);
    return listed;
}

/* Frees what is no longer in the table. Only between turns: events of this one may still have named it. */
static void sweep(struct node_channel_actor *channel, uint64_t now_ms)
{
    for (struct node_link **at = &channel->known; *at != NULL;) {
        struct node_link *link = *at;
        node_link_tick(channel, link, now_ms);
        if (is_listed(channel, link)) {
            at = &link->next;
            continue;
        }
        *at = link->next;
        node_link_close(channel, link);
        node_link_free(link);
    }
}

/* What had more to do when its turn was over. Returns whether anything still has. */
static bool run_again(struct node_channel_actor *channel)
{
    bool again;
    if (channel->router_again)
        node_listener_service(channel);
    again = channel->router_again;
    if (!channel->links_again)
        return again;
    channel->links_again = false;
    for (struct node_link *link = channel->known; link != NULL; link = link->next)
        if (link->again)
            node_link_service(channel, link);
    return again || channel->links_again;
}

static void turn(struct node_channel_actor *channel, bool again)
{
    struct epoll_event events[EVENTS_PER_TURN];
    uint64_t now = node_now_ms();
    int timeout = again || now >= channel->tick_ms ? 0 : (int)(channel->tick_ms - now);
    int n = epoll_wait(channel->epoll_fd, events, EVENTS_PER_TURN, timeout);
    for (int i = 0; i < n; i++)
        dispatch(channel, events[i].data.ptr);
    now = node_now_ms();
    if (now >= channel->tick_ms) {
        sweep(channel, now);
        channel->tick_ms = now + TICK_MS;
    }
}

static void close_all(struct node_channel_actor *channel)
{
    while (channel->known != NULL) {
        struct node_link *link = channel->known;
        channel->known = link->next;
        node_link_close(channel, link);
        if (!is_listed(channel, link))
            node_link_free(link); /* the others are the table's, freed with it */
    }
    node_listener_close(channel);
}

static bool watch_own(struct node_channel_actor *channel)
{
    return node_channel_watch(channel, &channel->pipe_source, channel->pipe) == 0 &&
           watch_fd(channel, &channel->wake_source, channel->wake_fd) == 0 &&
           node_channel_watch(channel, &channel->router_source, channel->router) == 0 &&
           node_channel_watch(channel, &channel->monitor_source, channel->monitor) == 0;
}

void node_channel_run(zsock_t *pipe, void *context)
{
    struct node_channel_actor *channel = context;
    sigset_t all;
    bool again = true;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    channel->pipe = pipe;
    atomic_store(&channel->started, watch_own(channel));
    zsock_signal(pipe, 0);
    if (!atomic_load(&channel->started)) /* who asks us to stop will find that we left */
        return;
    channel->router_again = true;
    on_pipe(channel);
    on_monitor(channel);
    while (!channel->stopping) {
        turn(channel, again);
        again = run_again(channel);
    }
    close_all(channel);
    atomic_store(&channel->started, false); /* the last touch: what is freed next is left */
}
