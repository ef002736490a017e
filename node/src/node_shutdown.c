/* Signals (SIGHUP: the key file has changed), and the end: no new work, a last commit of every AUTO view within the shutdown timeout, then stop.
 */
#include "node_internal.h"

#include "replica/error.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define TICK_MS          20  /* between looks whether the last commits are through */
#define LEAVE_MS         250 /* from a word on the loop to the network, on a busy machine */
#define EXIT_INTERRUPTED 130 /* as a shell has it; docs/operations.md */

static bool is_unfinished(const struct replica_view_info *info)
{
    return info->options.flags & REPLICA_VIEW_AUTO &&
           (info->dirty > 0 || info->commit != REPLICA_COMMIT_NONE);
}

static size_t count_unfinished(struct node *node)
{
    struct replica_views *views = gossip_peer_views(node->peer);
    size_t n = 0;
    for (size_t i = 0; views != NULL && i < replica_views_count(views); i++)
        n += is_unfinished(replica_view_info(replica_views_at(views, i)));
    return n;
}

static void on_left(void *context)
{
    struct node *node = context;
    node_loop_stop(node->loop);
}

/* The last words take a moment to go out. */
static void leave(struct node *node)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_LEAVE};
    node->leaving = true;
    if (gossip_member_count(gossip_peer_member(node->peer)) == 1) {
        node_loop_stop(node->loop);
        return;
    }
    node_step(node, &event);
    node_timer_set(node->left, node_now_ms() + LEAVE_MS);
}

static void finish(struct node *node)
{
    if (node->leaving)
        return;
    node->unfinished = count_unfinished(node);
    if (node->unfinished > 0)
        node_log(NODE_LOG_WARNING, "shutdown_unfinished",
                 "views=%zu text=\"what they hold is kept in the store and can be committed after the next "
                 "start\"",
                 node->unfinished);
    leave(node);
}

static void finish_if_done(struct node *node)
{
    if (node->stopping && !node->leaving && node->last_commits == 0 && node->commits_open == 0)
        finish(node);
}

static void on_deadline(void *context)
{
    finish(context);
}

static void on_committed(void *context, int code, const uint8_t *result, size_t n, bool final)
{
    struct node *node = context;
    (void)result;
    (void)n;
    if (!final)
        return;
    if (code != 0)
        node_log(NODE_LOG_WARNING, "shutdown_commit", "error=%s text=\"%s\"", replica_error_symbol(code),
                 replica_error_text(code));
    node->last_commits--;
}

/* Callers' own commits go on too; their answers are looked for here, because answers go straight to their
 * callers. */
static void on_tick(void *context)
{
    struct node *node = context;
    finish_if_done(node);
    node_timer_set(node->tick, node_now_ms() + TICK_MS);
}

static void begin_commits(struct node *node)
{
    struct replica_views *views = gossip_peer_views(node->peer);
    for (size_t i = 0; views != NULL && i < replica_views_count(views); i++) {
        const struct replica_view_info *info = replica_view_info(replica_views_at(views, i));
        struct gossip_peer_request request = {.kind = GOSSIP_PEER_COMMIT, .view = info->options.id};
        if (!is_unfinished(info) || node_api_view_is_held(node->api, &info->options.id))
            continue;
        request.timeout_ms = node->config->shutdown_timeout_s * 1000;
        node->last_commits++;
        node_request(node, &request, on_committed, node);
    }
}

static void stop(struct node *node, uint32_t signal_number)
{
    node->stopping = true;
    node_log(NODE_LOG_INFO, "stopping", "signal=%u views=%zu", signal_number, count_unfinished(node));
    sd_notify(0, "STOPPING=1");
    node_api_stop_accepting(node->api);
    begin_commits(node);
    node_timer_set(node->deadline, node_now_ms() + 1000ull * node->config->shutdown_timeout_s);
    node_timer_set(node->tick, 0);
}

/* The keys are in every connection, so the node is made anew with those that the file holds now, if they are any good. */
static void exchange_keys(struct node *node)
{
    char *message = NULL;
    if (node->stopping || node->reopens)
        return;
    if (node->config->key == NULL)
        node_log(NODE_LOG_INFO, "keys", "text=\"there is no key file to be read again\"");
    else if (node_check_keys(node->config, &message) != 0)
        node_log(NODE_LOG_ERROR, "keys", "text=\"the old ones are used on: %s\"",
                 message != NULL ? message : "out of memory");
    else {
        node_log(NODE_LOG_INFO, "keys", "file=\"%s\" text=\"read again; the node begins anew with them\"",
                 node->config->key);
        node->reopens = true;
        node_loop_stop(node->loop);
    }
    free(message);
}

static void on_signal(void *context, uint32_t events)
{
    struct node *node = context;
    struct signalfd_siginfo info;
    (void)events;
    if (read(node->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    if (info.ssi_signo == SIGHUP) {
        exchange_keys(node);
        return;
    }
    if (node->signals++ > 0) {
        node_log(NODE_LOG_WARNING, "stopped", "signal=%u text=\"a second signal: at once\"", info.ssi_signo);
        _exit(EXIT_INTERRUPTED); /* what is not synced was never acknowledged */
    }
    stop(node, info.ssi_signo);
}

/* Before any thread starts: all of them inherit the mask, so that signals reach the descriptor only. */
int node_signals_init(struct node *node)
{
    sigset_t set;
    int rv;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
        return REPLICA_E_IO;
    node->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (node->signal_fd < 0)
        return REPLICA_E_IO;
    rv = node_loop_watch(node->loop, node->signal_fd, EPOLLIN, on_signal, node, &node->signal_watch);
    if (rv == 0)
        rv = node_timer_new(node->loop, on_deadline, node, &node->deadline);
    if (rv == 0)
        rv = node_timer_new(node->loop, on_left, node, &node->left);
    return rv == 0 ? node_timer_new(node->loop, on_tick, node, &node->tick) : rv;
}

void node_signals_close(struct node *node)
{
    node_watch_destroy(&node->signal_watch);
    if (node->signal_fd >= 0)
        close(node->signal_fd);
    node->signal_fd = -1;
    node_timer_destroy(&node->deadline);
    node_timer_destroy(&node->tick);
    node_timer_destroy(&node->left);
}
