/* Listening, who may connect, and what exists per connection. */
#include "api/server.h"

#include "socket_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 64
#define BACKLOG          1024 /* a host that starts its containers at once */
#define TICK_MS          1000
#define GROUPS_MAX       1024 /* supplementary groups of a client that are looked at */

struct node *api_node(const struct node_api *api)
{
    return api->node;
}

bool api_is_stopping(const struct node_api *api)
{
    return api->stopping;
}

const struct gossip_peer *api_peer(const struct api_call *call)
{
    return node_get_peer(call->api->node);
}

bool api_may(const struct api_call *call, const char *volume, enum node_right right)
{
    return node_policy_right(call->api->policy, &call->session->caller, volume) >= right;
}

bool api_is_own(const struct api_call *call)
{
    return call->session->caller.own;
}

struct replica_contents *api_contents(const struct api_call *call)
{
    return node_get_contents(call->api->node);
}

struct api_connection *api_session_connection(const struct api_session *session)
{
    return session->connection;
}

void api_call_link(struct node_api *api, struct api_call *call)
{
    call->next = api->calls;
    if (api->calls != NULL)
        api->calls->previous = call;
    api->calls = call;
}

void api_call_unlink(struct node_api *api, struct api_call *call)
{
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        api->calls = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
}

/* Calls that wait */

static struct api_call *next_later(const struct node_api *api)
{
    struct api_call *first = NULL;
    for (struct api_call *call = api->calls; call != NULL; call = call->next)
        if (call->later && (first == NULL || call->later_ms < first->later_ms))
            first = call;
    return first;
}

void api_wake_later(struct node_api *api, uint64_t at_ms)
{
    const struct api_call *first = next_later(api);
    node_timer_set(api->later, first != NULL && first->later_ms < at_ms ? first->later_ms : at_ms);
}

static void on_later(void *context)
{
    struct node_api *api = context;
    uint64_t now_ms = node_now_ms();
    struct api_call *call;
    while ((call = next_later(api)) != NULL && call->later_ms <= now_ms)
        api_call_wake(call); /* one that waits again does so for at least a millisecond */
    if (call != NULL)
        node_timer_set(api->later, call->later_ms);
}

/* Sessions */

static void on_message(void *context, struct api_connection *connection, const uint8_t *bytes, size_t n)
{
    struct api_session *session = api_connection_user(connection);
    api_call_begin(context, session, session->uid, session->gid, bytes, n);
}

static void free_session(struct api_session *session)
{
    struct node_api *api = session->api;
    if (session->previous != NULL)
        session->previous->next = session->next;
    else
        api->sessions = session->next;
    if (session->next != NULL)
        session->next->previous = session->previous;
    api->sessions_n--;
    free(session->views);
    free(session);
}

static void on_close(void *context, struct api_connection *connection)
{
    struct node_api *api = context;
    struct api_session *session = api_connection_user(connection);
    struct api_call *call = api->calls, *next;
    for (; call != NULL; call = next) {
        next = call->next;
        if (call->session == session)
            api_call_abandon(call);
    }
    free_session(session);
    background_sweep(api);
}

static const struct api_connection_handler HANDLER = {.on_message = on_message, .on_close = on_close};

/* Without its groups a caller is who it is by its uid and its primary group. */
static struct node_caller caller_of(const struct node_api *api, int fd, const struct ucred *peer)
{
    gid_t groups[GROUPS_MAX + 1];
    socklen_t n = sizeof groups - sizeof groups[0];
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups + 1, &n) != 0)
        n = 0;
    groups[0] = peer->gid;
    return node_policy_match(api->policy, peer->uid, groups, 1 + n / sizeof groups[0]);
}

static struct api_session *new_session(struct node_api *api, int fd, const struct ucred *peer)
{
    struct api_session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return NULL;
    session->api = api;
    session->uid = peer->uid;
    session->gid = peer->gid;
    session->caller = caller_of(api, fd, peer);
    if (api_connection_new(node_get_loop(api->node), fd, &HANDLER, api, &session->connection) != 0) {
        free(session);
        return NULL;
    }
    api_connection_set_user(session->connection, session);
    session->next = api->sessions;
    if (api->sessions != NULL)
        api->sessions->previous = session;
    api->sessions = session;
    api->sessions_n++;
    return session;
}

static void welcome(struct node_api *api, int fd)
{
    struct ucred peer = {.uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t n = sizeof peer;
    struct api_session *session;
    bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0;
    if (api->sessions_n >=
        NODE_API_CONNECTIONS_MAX + ACCEPTS_PER_TURN) { /* some are still being told that it is too many */
        close(fd);
        return;
    }
    session = new_session(api, fd, &peer);
    if (session == NULL)
        close(fd);
    else if (!known || !node_caller_is_welcome(&session->caller))
        api_connection_refuse(session->connection, "DENIED",
                              "this user may not use the node: run as the node's user, join its group, or "
                              "have the node started with a rule for it (`remora node --allow`)");
    else if (api->sessions_n > NODE_API_CONNECTIONS_MAX)
        api_connection_refuse(session->connection, "BUSY",
                              "the node has 1200 connections, which is its limit; close some and try again");
}

static void on_connect(void *context, uint32_t events)
{
    struct node_api *api = context;
    (void)events;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(api->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            welcome(api, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
            errno == ENOBUFS) { /* until the next tick */
            node_log(NODE_LOG_WARNING, "api_accept", "error=\"%s\"", strerror(errno));
            api->accepting = node_watch_change(api->listen_watch, 0) != 0;
        }
        if (errno != ECONNABORTED && errno != EINTR)
            return;
    }
}

static void on_tick(void *context)
{
    struct node_api *api = context;
    uint64_t now_ms = node_now_ms();
    if (!api->accepting && api->listen_watch != NULL)
        api->accepting = node_watch_change(api->listen_watch, EPOLLIN) == 0;
    background_sweep(api);
    background_forget_drafts(api);
    if (now_ms >= api->commit_at_ms && !api->stopping) {
        api->commit_at_ms = now_ms + 1000ull * node_get_config(api->node)->background_commit_s;
        background_commit(api);
    }
    node_timer_set(api->tick, now_ms + TICK_MS);
}

/* Listening */

static int say(char **ret_message, int code, const char *format, const char *path, const char *reason)
{
    if (asprintf(ret_message, format, path, reason) < 0)
        *ret_message = NULL;
    return code;
}

/* The default in /tmp is a name that anybody could have taken before us. */
static int make_directory(const char *socket_path, char **ret_message)
{
    char directory[PATH_MAX], standard[PATH_MAX];
    struct stat status;
    char *slash;
    snprintf(directory, sizeof directory, "%s", socket_path);
    slash = strrchr(directory, '/');
    if (slash == NULL || slash == directory)
        return 0;
    *slash = '\0';
    if (mkdir(directory, 0755) != 0 && errno != EEXIST)
        return say(ret_message, REPLICA_E_IO,
                   "socket: cannot make the directory %s: %s; make it, or choose another place by --socket",
                   directory, strerror(errno));
    socket_path_default(standard, sizeof standard);
    if (strcmp(standard, socket_path) == 0 &&
        (lstat(directory, &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid()))
        return say(
            ret_message, REPLICA_E_DENIED,
            "socket: %s is not a directory of this user (%s); remove it, or choose another place by --socket",
            directory, "somebody else made it");
    return 0;
}

/* Removes the socket of a node that died. */
static int clear_path(const struct sockaddr_un *address, char **ret_message)
{
    const char *path = address->sun_path;
    struct stat status;
    int fd, connected, error;
    if (lstat(path, &status) != 0)
        return 0;
    if (!S_ISSOCK(status.st_mode))
        return say(ret_message, REPLICA_E_IO, "socket: %s exists and is %s; choose another path by --socket",
                   path, "not a socket");
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return say(ret_message, REPLICA_E_IO, "socket: %s: %s", path, strerror(errno));
    connected = connect(fd, (const struct sockaddr *)address, sizeof *address);
    error = errno;
    close(fd);
    if (connected == 0 || error != ECONNREFUSED)
        return say(ret_message, REPLICA_E_BUSY,
                   "socket: another node answers at %s%s; stop it, or choose another path by --socket", path,
                   "");
    unlink(path);
    return 0;
}

/* Nobody can connect between bind and listen, so the mode is right from the first connection on. */
static int bind_and_listen(struct node_api *api, const struct sockaddr_un *address, char **ret_message)
{
    struct stat status;
    api->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (api->listen_fd < 0 || bind(api->listen_fd, (const struct sockaddr *)address, sizeof *address) != 0)
        return say(ret_message, REPLICA_E_IO,
                   "socket: cannot listen at %s: %s; choose another path by --socket", address->sun_path,
                   strerror(errno));
    if (stat(address->sun_path, &status) == 0)
        api->socket_inode = status.st_ino;
    if (chmod(address->sun_path, node_policy_has_rules(api->policy) ? 0666 : 0660) != 0 ||
        listen(api->listen_fd, BACKLOG) != 0)
        return say(ret_message, REPLICA_E_IO, "socket: cannot listen at %s: %s", address->sun_path,
                   strerror(errno));
    return 0;
}

static int open_socket(struct node_api *api, char **ret_message)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int code;
    if (strlen(api->socket_path) >= sizeof address.sun_path)
        return say(ret_message, REPLICA_E_INVALID,
                   "socket: %s is too long for %s; choose a shorter path by --socket", api->socket_path,
                   "a unix socket");
    strcpy(address.sun_path, api->socket_path);
    code = make_directory(api->socket_path, ret_message);
    if (code == 0)
        code = clear_path(&address, ret_message);
    return code == 0 ? bind_and_listen(api, &address, ret_message) : code;
}

int node_api_new(struct node *node, const char *socket_path, struct node_api **ret_api, char **ret_message)
{
    struct node_loop *loop = node_get_loop(node);
    struct node_api *api = calloc(1, sizeof *api);
    int code = REPLICA_E_NOMEM;
    *ret_message = NULL;
    if (api == NULL)
        return code;
    api->node = node;
    api->listen_fd = -1;
    api->socket_path = strdup(socket_path);
    if (api->socket_path != NULL)
        code = node_policy_parse(node_get_config(node)->allow, &api->policy, ret_message);
    if (code == 0)
        code = open_socket(api, ret_message);
    if (code == 0)
        code = node_loop_watch(loop, api->listen_fd, EPOLLIN, on_connect, api, &api->listen_watch);
    if (code == 0)
        code = node_timer_new(loop, on_later, api, &api->later);
    if (code == 0)
        code = node_timer_new(loop, on_tick, api, &api->tick);
    if (code != 0) {
        node_api_destroy(&api);
        return code;
    }
    api->accepting = true;
    api->commit_at_ms = node_now_ms() + 1000ull * node_get_config(node)->background_commit_s;
    node_timer_set(api->tick, node_now_ms() + TICK_MS);
    *ret_api = api;
    return 0;
}

void node_api_stop_accepting(struct node_api *api)
{
    struct stat status;
    api->stopping = true;
    node_watch_destroy(&api->listen_watch);
    if (api->listen_fd >= 0) {
        close(api->listen_fd);
        api->listen_fd = -1;
        if (api->socket_inode != 0 && lstat(api->socket_path, &status) == 0 &&
            status.st_ino == api->socket_inode)
            unlink(api->socket_path);
    }
}

void node_api_give_up(struct node_api *api)
{
    for (struct api_call *call = api->calls; call != NULL; call = call->next)
        atomic_store(&call->gone, true);
}

void node_api_destroy(struct node_api **api)
{
    if (*api == NULL)
        return;
    node_api_stop_accepting(*api);
    while ((*api)->calls != NULL)
        api_call_destroy((*api)->calls);
    while ((*api)->sessions != NULL) {
        api_connection_destroy(&(*api)->sessions->connection);
        free_session((*api)->sessions);
    }
    background_close(*api);
    node_timer_destroy(&(*api)->later);
    node_timer_destroy(&(*api)->tick);
    node_policy_destroy(&(*api)->policy);
    free((*api)->socket_path);
    free(*api);
    *api = NULL;
}
