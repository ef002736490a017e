/* Local requests: queued, stepped one by one from the loop, answered by token. */
#include "node_internal.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define REQUESTS_PER_TURN 32 /* steps for callers before messages and timers get their turn */

static struct node_open_request **bucket_of(struct node *node, uint64_t token)
{
    return &node->open[token & (NODE_REQUEST_BUCKETS - 1)];
}

/* Where the open request of that token hangs; points to NULL if there is none. */
static struct node_open_request **find(struct node *node, uint64_t token)
{
    struct node_open_request **at = bucket_of(node, token);
    while (*at != NULL && (*at)->token != token)
        at = &(*at)->next;
    return at;
}

static void forget(struct node *node, struct node_open_request **at)
{
    struct node_open_request *gone = *at;
    *at = gone->next;
    if (gone->kind == GOSSIP_PEER_COMMIT)
        node->commits_open--;
    free(gone);
}

static void step_one(struct node *node)
{
    struct node_queued_request *queued = node->queue;
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_REQUEST, .request = &queued->request};
    node->queue = queued->next;
    if (node->queue == NULL)
        node->queue_last = &node->queue;
    node_step(node, &event);
    free(queued);
}

static void post_queue(struct node *node)
{
    if (node->queue_posted)
        return;
    node->queue_posted = true;
    node_loop_post(node->loop, &node->queue_post);
}

static void run_queue(void *context)
{
    struct node *node = context;
    node->queue_posted = false;
    if (node->ending || node->fatal != 0)
        return;
    for (int i = 0; i < REQUESTS_PER_TURN && node->queue != NULL; i++)
        step_one(node);
    if (node->queue != NULL)
        post_queue(node);
}

void node_request_init(struct node *node)
{
    node->queue_last = &node->queue;
    node->queue_post = (struct node_post){.call = run_queue, .context = node};
}

void node_request_close(struct node *node)
{
    while (node->queue != NULL) {
        struct node_queued_request *gone = node->queue;
        node->queue = gone->next;
        free(gone);
    }
    for (size_t i = 0; i < NODE_REQUEST_BUCKETS; i++)
        while (node->open[i] != NULL)
            forget(node, &node->open[i]);
}

static void enqueue(struct node *node, struct node_queued_request *queued)
{
    queued->next = NULL;
    *node->queue_last = queued;
    node->queue_last = &queued->next;
    post_queue(node);
}

/* Without memory the caller must still be answered, and not from within node_request. */
struct refusal {
    struct node_post post;
    node_answer_fn answer;
    void *context;
};

static void refuse(void *context)
{
    struct refusal *refusal = context;
    refusal->answer(refusal->context, REPLICA_E_NOMEM, NULL, 0, true);
    free(refusal);
}

static void refuse_later(struct node *node, node_answer_fn answer, void *context)
{
    struct refusal *refusal = malloc(sizeof *refusal);
    if (refusal == NULL)
        abort(); /* not even 40 bytes: nothing can go on */
    *refusal =
        (struct refusal){.post = {.call = refuse, .context = refusal}, .answer = answer, .context = context};
    node_loop_post(node->loop, &refusal->post);
}

uint64_t node_request(struct node *node, const struct gossip_peer_request *request, node_answer_fn answer,
                      void *context)
{
    struct node_open_request *open = malloc(sizeof *open);
    struct node_queued_request *queued = malloc(sizeof *queued);
    struct node_open_request **bucket;
    uint64_t token = ++node->next_token;
    if (open == NULL || queued == NULL) {
        free(open);
        free(queued);
        refuse_later(node, answer, context);
        return token;
    }
    bucket = bucket_of(node, token);
    *open = (struct node_open_request){
        .next = *bucket, .token = token, .kind = request->kind, .answer = answer, .context = context};
    *bucket = open;
    if (request->kind == GOSSIP_PEER_COMMIT)
        node->commits_open++;
    queued->request = *request;
    queued->request.token = token;
    queued->request.control.token = token;
    enqueue(node, queued);
    return token;
}

/* One that was not stepped yet never happened. */
static bool drop_queued(struct node *node, uint64_t token)
{
    for (struct node_queued_request **at = &node->queue; *at != NULL; at = &(*at)->next)
        if ((*at)->request.token == token && (*at)->request.kind != GOSSIP_PEER_CANCEL) {
            struct node_queued_request *gone = *at;
            *at = gone->next;
            if (*at == NULL)
                node->queue_last = at;
            free(gone);
            return true;
        }
    return false;
}

void node_request_cancel(struct node *node, uint64_t token)
{
    struct node_open_request **at = find(node, token);
    struct node_queued_request *queued;
    if (*at == NULL)
        return;
    forget(node, at);
    if (drop_queued(node, token) || node->ending)
        return;
    queued = malloc(sizeof *queued);
    if (queued == NULL)
        return; /* what was asked goes on, and its answer finds nobody */
    memset(queued, 0, sizeof *queued);
    queued->request.kind = GOSSIP_PEER_CANCEL;
    queued->request.token = token;
    enqueue(node, queued);
}

void node_deliver_answer(struct node *node, const struct gossip_answer *answer, const uint8_t *result,
                         size_t n)
{
    struct node_open_request **at = find(node, answer->token);
    node_answer_fn call;
    void *context;
    if (*at == NULL) /* its caller has gone */
        return;
    call = (*at)->answer;
    context = (*at)->context;
    if (answer->final)
        forget(node, at);
    call(context, answer->code, result, n, answer->final);
}
