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
    struct node_open_request *open = *find(node, queued->request.token);
    if (open != NULL)
        open->stepped = true;
    node->queue = queued->next;
    if (node->queue == NULL)
        node->queue_last = &node->queue;
    node_step(node, &event);
    if (node->failed != 0)
        node_requests_fail(node); /* one that would have to wait */
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
    *open = (struct node_open_request){.next = *bucket,
                                       .token = token,
                                       .kind = request->kind,
                                       .view = request->view,
                                       .answer = answer,
                                       .context = context};
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

/* What a failed store leaves unsaid */

static void say_lost(struct node *node, uint64_t token, int code, bool final)
{
    struct gossip_answer answer = {.token = token, .code = code, .final = final};
    struct replica_buffer payload;
    char text[512];
    (void)node_space_refuses(node, false, text, sizeof text);
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 1);
    replica_pack_cstr(
        &payload,
        code == REPLICA_E_INDETERMINATE
            ? "the node's store failed before the outcome was known; the node goes on with it when its "
              "store is opened again"
            : text);
    node_deliver_answer(node, &answer, payload.data, payload.size);
    replica_buffer_close(&payload);
}

void node_deliver_lost(struct node *node, uint64_t token, int code, bool final)
{
    const struct node_open_request *open = *find(node, token);
    if (open == NULL)
        return;
    if ((open->kind == GOSSIP_PEER_COMMIT || open->kind == GOSSIP_PEER_CONTROL) &&
        (code == 0 || code == REPLICA_E_INDETERMINATE)) /* others may know of it */
        say_lost(node, token, REPLICA_E_INDETERMINATE, final);
    else
        say_lost(node, token, node->failed, final);
}

/* A commit without a stamp was certainly not minted. */
static int outcome_of(struct node *node, const struct node_open_request *open)
{
    struct replica_views *views = gossip_peer_views(node->peer);
    const struct replica_view *view = views == NULL ? NULL : replica_view_find(views, &open->view);
    switch (open->kind) {
    case GOSSIP_PEER_COMMIT:
        return view != NULL && replica_view_info(view)->commit != REPLICA_COMMIT_STAMPED
                   ? node->failed
                   : REPLICA_E_INDETERMINATE;
    case GOSSIP_PEER_CONTROL:
        return REPLICA_E_INDETERMINATE;
    case GOSSIP_PEER_RELOAD:
    case GOSSIP_PEER_VIEW_OPEN:
        return node->failed;
    default:
        return 0; /* the peer answers */
    }
}

static bool fail_one(struct node *node, size_t bucket)
{
    for (struct node_open_request *open = node->open[bucket]; open != NULL; open = open->next) {
        int code = open->stepped ? outcome_of(node, open) : 0;
        if (code == 0)
            continue;
        say_lost(node, open->token, code, true);
        return true;
    }
    return false;
}

void node_requests_fail(struct node *node)
{
    for (size_t i = 0; i < NODE_REQUEST_BUCKETS; i++)
        while (fail_one(node, i)) {
        }
}
