/* Steps of the peer, and what follows from each: gossip/step.h's opening comment, in code.
 *
 * Every step's update is one batch. A batch that wrote something, or on which something durable depends, goes
 * to the syncer at once. One that did neither is durable as soon as all before it are; a room may still wait
 * to hear so, hence the quiet timer. */
#include "node_internal.h"

#include "replica/error.h"
#include "replica/kv_leveldb.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Of sends that wait for a sync: a stalled disk must not eat the memory. Peers ask again. */
#define WAITING_BYTES_MAX ((size_t)64 << 20)
#define QUIET_MS          5 /* until batches that wrote nothing are told durable: many share one step */

static void on_again(void *context)
{
    struct node *node = context;
    node->again_posted = false;
    node_step_timer(node);
}

static void on_wake(void *context)
{
    struct node *node = context;
    node->wake_at_ms = UINT64_MAX;
    node_step_timer(node);
}

static void on_quiet(void *context);

int node_step_init(struct node *node)
{
    int rv;
    gossip_update_init(&node->update);
    node->again = (struct node_post){.call = on_again, .context = node};
    node->waiting_last = &node->waiting;
    node->settled_last = &node->settled;
    node->wake_at_ms = UINT64_MAX;
    rv = node_timer_new(node->loop, on_wake, node, &node->wake);
    return rv != 0 ? rv : node_timer_new(node->loop, on_quiet, node, &node->quiet);
}

void node_step_close(struct node *node)
{
    while (node->waiting != NULL) {
        struct node_waiting *gone = node->waiting;
        node->waiting = gone->next;
        free(gone);
    }
    while (node->settled != NULL) {
        struct node_settled_draft *gone = node->settled;
        node->settled = gone->next;
        free(gone);
    }
    node_timer_destroy(&node->wake);
    node_timer_destroy(&node->quiet);
    gossip_update_close(&node->update);
}

/* What waits for a sync */

static struct node_waiting *new_waiting(struct node *node, size_t offset, size_t size)
{
    struct node_waiting *waiting = malloc(sizeof *waiting + size);
    if (waiting == NULL)
        return NULL;
    memset(waiting, 0, sizeof *waiting);
    waiting->batch = node->batch;
    waiting->size = size;
    if (size > 0)
        memcpy(waiting->payload, node->update.bytes.data + offset, size);
    *node->waiting_last = waiting;
    node->waiting_last = &waiting->next;
    node->waiting_bytes += sizeof *waiting + size;
    return waiting;
}

static void keep_send(struct node *node, const struct gossip_send *send)
{
    struct node_waiting *waiting = node->waiting_bytes + send->size > WAITING_BYTES_MAX
                                       ? NULL
                                       : new_waiting(node, send->offset, send->size);
    if (waiting != NULL)
        waiting->send = *send;
    else if (node->waiting_dropped++ == 0)
        node_log(NODE_LOG_WARNING, "sends_dropped", "reason=\"more than %zu bytes wait for the disk\"",
                 WAITING_BYTES_MAX);
}

static void keep_answer(struct node *node, const struct gossip_answer *answer)
{
    struct node_waiting *waiting = new_waiting(node, answer->offset, answer->size);
    if (waiting == NULL) {
        struct gossip_answer failed = {
            .token = answer->token, .code = REPLICA_E_NOMEM, .final = answer->final};
        node_deliver_answer(node, &failed, NULL, 0);
        return;
    }
    waiting->is_answer = true;
    waiting->answer = *answer;
}

static void release(struct node *node)
{
    while (node->waiting != NULL && (node->waiting->batch <= node->synced || node->failed != 0)) {
        struct node_waiting *waiting = node->waiting;
        node->waiting = waiting->next;
        if (node->waiting == NULL)
            node->waiting_last = &node->waiting;
        node->waiting_bytes -= sizeof *waiting + waiting->size;
        if (waiting->is_answer && waiting->batch > node->synced)
            node_deliver_lost(node, waiting->answer.token, waiting->answer.code, waiting->answer.final);
        else if (waiting->is_answer)
            node_deliver_answer(node, &waiting->answer, waiting->payload, waiting->size);
        else if (waiting->batch <= node->synced)
            node_send(node, &waiting->send, waiting->payload);
        free(waiting);
    }
    if (node->failed == 0)
        node_forget_settled(node);
}

/* Syncs */

static void request_sync(struct node *node)
{
    node->contents_dirty = false;
    node->requested = node->batch;
    node_syncer_request(node->syncer, node->batch);
}

/* Not moved while it is armed: under load it must come all the same. */
static void arm_quiet(struct node *node)
{
    if (node->failed != 0 || node->quiet_armed || node->quiet_batch <= node->synced ||
        node->requested > node->synced)
        return;
    node->quiet_armed = true;
    node_timer_set(node->quiet, node_now_ms() + QUIET_MS);
}

/* An empty batch of its own: else this sync could come back after the quiet timer has counted beyond it. */
void node_contents_filled(struct node *node)
{
    if (node->failed != 0 || node->ending)
        return;
    if (node->stepping) { /* asked by whom this step answers: it ends with a sync of its own */
        node->contents_dirty = true;
        return;
    }
    node->batch++;
    request_sync(node);
}

static void step_synced(struct node *node)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_SYNCED};
    node_step(node, &event);
}

void node_on_synced(void *context, uint64_t batch, int code)
{
    struct node *node = context;
    if (node->ending)
        return;
    assert(batch >= node->synced || code != 0);
    if (node->failed == 0 && batch > node->synced)
        node->synced = batch;
    if (code != 0)
        node_fail(node, "sync", code);
    if (node->failed != 0)
        return;
    release(node);
    step_synced(node);
    arm_quiet(node);
}

/* Nothing was written since the last sync: all batches given meanwhile are durable with it. */
static void on_quiet(void *context)
{
    struct node *node = context;
    node->quiet_armed = false;
    if (node->failed != 0 || node->requested > node->synced)
        return; /* a sync is under way, and arms this again */
    if (node->quiet_batch <= node->synced)
        return;
    node->synced = node->batch;
    step_synced(node);
}

/* Between steps. */
static void tell_failed(struct node *node)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_FAILED, .code = node->failed};
    node_step(node, &event);
    node_requests_fail(node);
}

void node_fail(struct node *node, const char *what, int code)
{
    if (node->failed != 0)
        return;
    node->failed = code;
    node_log(NODE_LOG_ERROR, "store_failed", "what=%s error=%s data=\"%s\" text=\"%s\"", what,
             replica_error_symbol(code), node->config->data,
             code == REPLICA_E_NOSPACE
                 ? "nothing is acknowledged until there is room on the disk and the store was opened again"
                 : "nothing is acknowledged any more; mend the disk and restart the node");
    release(node);
    if (!node->stepping)
        tell_failed(node);
}

/* Carrying out */

static int apply(struct node *node)
{
    struct gossip_update *update = &node->update;
    int rv = 0;
    if (update->log.count > 0) {
        node_space_look(node); /* before the last of it is gone */
        rv = replica_kv_write(node->store->log, &update->log);
    }
    if (rv == 0 && update->map.count > 0)
        rv = replica_kv_write(node->store->map, &update->map);
    return rv;
}

/* Whether something durable depends on this batch. */
static bool send_out(struct node *node)
{
    struct gossip_update *update = &node->update;
    bool durable = false;
    for (size_t i = 0; i < update->sends_n; i++) {
        const struct gossip_send *send = &update->sends[i];
        if (!send->durable)
            node_send(node, send, update->bytes.data + send->offset);
        else if (node->failed == 0) {
            keep_send(node, send);
            durable = true;
        }
    }
    for (size_t i = 0; i < update->answers_n; i++) {
        struct gossip_answer answer = update->answers[i];
        if (answer.durable && node->failed == 0) {
            keep_answer(node, &answer);
            durable = true;
        } else if (answer.durable)
            node_deliver_lost(node, answer.token, answer.code, answer.final);
        else
            node_deliver_answer(node, &answer, update->bytes.data + answer.offset, answer.size);
    }
    return durable;
}

static void carry_out_orders(struct node *node)
{
    struct gossip_update *update = &node->update;
    for (size_t i = 0; i < update->uploads_n; i++)
        node_upload(node, &update->uploads[i]);
    for (size_t i = 0; i < update->settles_n; i++)
        node_settle(node, &update->settles[i]);
    if (update->map_sync)
        node_map_sync(node);
}

static void schedule(struct node *node)
{
    struct gossip_update *update = &node->update;
    if (update->wake_ms < node->wake_at_ms) {
        node->wake_at_ms = update->wake_ms;
        node_timer_set(node->wake, node->wake_at_ms);
    }
    if (update->again && !node->again_posted) {
        node->again_posted = true;
        node_loop_post(node->loop, &node->again);
    }
}

static void carry_out(struct node *node, enum gossip_peer_event_kind kind)
{
    bool durable;
    int rv = node->failed != 0 ? 0 : apply(node);
    node->batch++;
    if (kind != GOSSIP_PEER_EVENT_SYNCED)
        node->quiet_batch = node->batch;
    if (rv != 0)
        node_fail(node, "write", rv);
    durable = send_out(node);
    carry_out_orders(node);
    if (node->failed == 0 && (durable || node->update.log.count > 0 || node->contents_dirty))
        request_sync(node);
    else
        arm_quiet(node);
    schedule(node);
}

void node_stop_fatally(struct node *node, int code)
{
    bool log_damaged = code == REPLICA_E_CORRUPT && replica_kv_leveldb_is_damaged(node->store->log);
    node->fatal = code;
    node_log(NODE_LOG_ERROR, "stopped", "error=%s text=\"%s%s%s\"", replica_error_symbol(code),
             log_damaged ? node->config->data : "", log_damaged ? "/log: " : "", replica_error_text(code));
    node_loop_stop(node->loop);
}

/* The map was found damaged, by this step or by whoever read since the last: the node is made anew on the same
 * store, whose map is then rebuilt from the log. */
static bool rebuilds_map(struct node *node)
{
    if (!node_store_map_is_damaged(node->store))
        return false;
    if (!node->reopens && !node->stopping)
        node_log(NODE_LOG_ERROR, "map_damaged", "data=\"%s\" text=\"set aside, and rebuilt from the log\"",
                 node->config->data);
    node->reopens = true;
    node_loop_stop(node->loop);
    return true;
}

void node_step(struct node *node, struct gossip_peer_event *event)
{
    bool was_failed = node->failed != 0;
    int rv;
    if (node->fatal != 0 || node->ending || node->reopens)
        return;
    assert(!node->stepping);
    node->stepping = true;
    event->time = (struct gossip_time){.now_ms = node_now_ms(), .wall_ms = node_wall_ms()};
    event->batch = node->batch + 1;
    event->synced = node->synced;
    gossip_update_clear(&node->update);
    rv = gossip_peer_step(node->peer, event, &node->update);
    if (rv == REPLICA_E_NOSPACE) /* a room's own write */
        node_fail(node, "write", rv);
    else if (rv != 0 && !node_store_map_is_damaged(node->store))
        node_stop_fatally(node, rv);
    else if (rv == 0)
        carry_out(node, event->kind);
    node->stepping = false;
    if (node->fatal != 0 || rebuilds_map(node))
        return;
    if (node->failed != 0 && !was_failed)
        tell_failed(node);
    node_notice_cluster(node);
}

void node_step_timer(struct node *node)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_TIMER};
    node_step(node, &event);
}
