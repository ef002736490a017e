/* loop: the node's one core thread. Everything that touches the peer, the views or an API session runs here; other threads post.
 *
 * epoll underneath. Callbacks run one at a time; none may block. */
#ifndef NODE_LOOP_H
#define NODE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct node_loop;
struct node_watch;

/* Errors: REPLICA_E_NOMEM, REPLICA_E_IO. */
int node_loop_new(struct node_loop **ret_loop);
void node_loop_destroy(struct node_loop **loop);
/* Runs until node_loop_stop; callbacks posted before the stop still run. */
int node_loop_run(struct node_loop *loop);
void node_loop_stop(struct node_loop *loop);

/* Calls ready(context, events) when fd is readable/writable (EPOLLIN, EPOLLOUT, level-triggered). fd stays the caller's. */
int node_loop_watch(struct node_loop *loop, int fd, uint32_t events,
                    void (*ready)(void *context, uint32_t events), void *context,
                    struct node_watch **ret_watch);
int node_watch_change(struct node_watch *watch, uint32_t events);
void node_watch_destroy(struct node_watch **watch); /* safe inside its own callback */

/* Any thread: call(context) will run on the loop, in order of posting. Never fails: callers embed the item. */
struct node_post {
    void (*call)(void *context);
    void *context;
    struct node_post *next;
};
void node_loop_post(struct node_loop *loop, struct node_post *post); /* post is borrowed until it is called */

/* Calls expired(context) once at about that monotonic time; setting again moves it, UINT64_MAX disarms. Few timers exist. */
struct node_timer;
int node_timer_new(struct node_loop *loop, void (*expired)(void *context), void *context,
                   struct node_timer **ret_timer);
void node_timer_set(struct node_timer *timer, uint64_t at_ms);
void node_timer_destroy(struct node_timer **timer);

uint64_t node_now_ms(void);  /* monotonic */
uint64_t node_wall_ms(void); /* since 1970 */

#endif
