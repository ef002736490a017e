/* The core thread's loop on epoll, with an eventfd for what other threads post. */
#include "loop.h"

#include "replica/error.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define LOOP_EVENTS_MAX 64 /* taken from the kernel at once; posts and timers get their turn between */

struct node_watch {
    struct node_loop *loop;
    int fd;
    bool dead; /* destroyed; freed once no event of the round in hand can name it */
    void (*ready)(void *context, uint32_t events);
    void *context;
    struct node_watch *next_dead;
};

struct node_timer {
    struct node_loop *loop;
    uint64_t at_ms;
    uint64_t
        round; /* in which it last expired: once a round, so that one that is always due starves nobody */
    void (*expired)(void *context);
    void *context;
    struct node_timer *next;
};

struct node_loop {
    int epoll_fd;
    int wake_fd;
    atomic_bool stop;
    uint64_t round;
    struct node_timer *timers;
    struct node_watch *dead;
    pthread_mutex_t mutex; /* posts */
    struct node_post *posts, **posts_tail;
};

uint64_t node_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t node_wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int node_loop_new(struct node_loop **ret_loop)
{
    struct node_loop *loop = calloc(1, sizeof *loop);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (loop == NULL)
        return REPLICA_E_NOMEM;
    loop->posts_tail = &loop->posts;
    pthread_mutex_init(&loop->mutex, NULL);
    loop->wake_fd = -1;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd >= 0)
        loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->wake_fd < 0 || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event) != 0) {
        node_loop_destroy(&loop);
        return REPLICA_E_IO;
    }
    *ret_loop = loop;
    return 0;
}

static void free_dead(struct node_loop *loop)
{
    while (loop->dead != NULL) {
        struct node_watch *watch = loop->dead;
        loop->dead = watch->next_dead;
        free(watch);
    }
}

void node_loop_destroy(struct node_loop **loop)
{
    if (*loop == NULL)
        return;
    free_dead(*loop);
    if ((*loop)->wake_fd >= 0)
        close((*loop)->wake_fd);
    if ((*loop)->epoll_fd >= 0)
        close((*loop)->epoll_fd);
    pthread_mutex_destroy(&(*loop)->mutex);
    free(*loop);
    *loop = NULL;
}

static void wake(struct node_loop *loop)
{
    uint64_t one = 1;
    ssize_t written = write(loop->wake_fd, &one, sizeof one);
    assert(written == (ssize_t)sizeof one || errno == EAGAIN); /* EAGAIN: it is awake as can be */
    (void)written;
}

void node_loop_stop(struct node_loop *loop)
{
    atomic_store(&loop->stop, true);
    wake(loop);
}

void node_loop_post(struct node_loop *loop, struct node_post *post)
{
    bool first;
    post->next = NULL;
    pthread_mutex_lock(&loop->mutex);
    first = loop->posts == NULL;
    *loop->posts_tail = post;
    loop->posts_tail = &post->next;
    pthread_mutex_unlock(&loop->mutex);
    if (first)
        wake(loop);
}

/* What was posted so far; what these post in turn waits for the next round. */
static void run_posts(struct node_loop *loop)
{
    struct node_post *post;
    pthread_mutex_lock(&loop->mutex);
    post = loop->posts;
    loop->posts = NULL;
    loop->posts_tail = &loop->posts;
    pthread_mutex_unlock(&loop->mutex);
    while (post != NULL) {
        struct node_post *next = post->next; /* the call may free or post it again */
        post->call(post->context);
        post = next;
    }
}

static struct node_timer *next_due(const struct node_loop *loop, uint64_t now_ms)
{
    struct node_timer *due = NULL;
    for (struct node_timer *timer = loop->timers; timer != NULL; timer = timer->next)
        if (timer->at_ms <= now_ms && timer->round != loop->round &&
            (due == NULL || timer->at_ms < due->at_ms))
            due = timer;
    return due;
}

static void run_timers(struct node_loop *loop)
{
    uint64_t now_ms = node_now_ms();
    struct node_timer *timer;
    loop->round++;
    while ((timer = next_due(loop, now_ms)) !=
           NULL) { /* searched anew each time: the callback may destroy any */
        timer->round = loop->round;
        timer->at_ms = UINT64_MAX;
        timer->expired(timer->context);
    }
}

static int wait_ms(const struct node_loop *loop)
{
    uint64_t at_ms = UINT64_MAX, now_ms;
    for (const struct node_timer *timer = loop->timers; timer != NULL; timer = timer->next)
        if (timer->at_ms < at_ms)
            at_ms = timer->at_ms;
    if (at_ms == UINT64_MAX)
        return -1;
    now_ms = node_now_ms();
    if (at_ms <= now_ms)
        return 0;
    return at_ms - now_ms > INT_MAX ? INT_MAX : (int)(at_ms - now_ms);
}

static void dispatch(struct node_loop *loop, const struct epoll_event *events, int n)
{
    for (int i = 0; i < n; i++) {
        struct node_watch *watch = events[i].data.ptr;
        if (watch == NULL) {
            uint64_t count;
            if (read(loop->wake_fd, &count, sizeof count) < 0)
                assert(errno == EAGAIN);
        } else if (!watch->dead) {
            watch->ready(watch->context, events[i].events);
        }
    }
    free_dead(loop);
}

int node_loop_run(struct node_loop *loop)
{
    struct epoll_event events[LOOP_EVENTS_MAX];
    while (!atomic_load(&loop->stop)) {
        int n = epoll_wait(loop->epoll_fd, events, LOOP_EVENTS_MAX, wait_ms(loop));
        if (n < 0 && errno != EINTR)
            return REPLICA_E_IO;
        dispatch(loop, events, n < 0 ? 0 : n);
        run_posts(loop);
        run_timers(loop);
    }
    run_posts(loop);
    atomic_store(&loop->stop,
                 false); /* so that it can run again, to collect what threads post while they end */
    return 0;
}

int node_loop_watch(struct node_loop *loop, int fd, uint32_t events,
                    void (*ready)(void *context, uint32_t events), void *context,
                    struct node_watch **ret_watch)
{
    struct node_watch *watch = calloc(1, sizeof *watch);
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (watch == NULL)
        return REPLICA_E_NOMEM;
    *watch = (struct node_watch){.loop = loop, .fd = fd, .ready = ready, .context = context};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(watch);
        return errno == ENOMEM || errno == ENOSPC ? REPLICA_E_NOMEM : REPLICA_E_IO;
    }
    *ret_watch = watch;
    return 0;
}

int node_watch_change(struct node_watch *watch, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    return epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) == 0 ? 0 : REPLICA_E_IO;
}

void node_watch_destroy(struct node_watch **watch)
{
    struct node_watch *gone = *watch;
    if (gone == NULL)
        return;
    epoll_ctl(gone->loop->epoll_fd, EPOLL_CTL_DEL, gone->fd, NULL);
    gone->dead = true;
    gone->next_dead = gone->loop->dead;
    gone->loop->dead = gone;
    *watch = NULL;
}

int node_timer_new(struct node_loop *loop, void (*expired)(void *context), void *context,
                   struct node_timer **ret_timer)
{
    struct node_timer *timer = calloc(1, sizeof *timer);
    if (timer == NULL)
        return REPLICA_E_NOMEM;
    *timer = (struct node_timer){.loop = loop,
                                 .at_ms = UINT64_MAX,
                                 .round = loop->round,
                                 .expired = expired,
                                 .context = context,
                                 .next = loop->timers};
    loop->timers = timer;
    *ret_timer = timer;
    return 0;
}

void node_timer_set(struct node_timer *timer, uint64_t at_ms)
{
    timer->at_ms = at_ms;
}

void node_timer_destroy(struct node_timer **timer)
{
    struct node_timer **at;
    if (*timer == NULL)
        return;
    for (at = &(*timer)->loop->timers; *at != *timer; at = &(*at)->next)
        ;
    *at = (*timer)->next;
    free(*timer);
    *timer = NULL;
}
