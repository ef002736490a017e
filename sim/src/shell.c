/* A node: steps, batches, syncs, orders. What gossip/step.h asks of a shell, and nothing cleverer. */
#include "inside.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define SETTLE_MS_MAX 20 /* to hash a draft */

void shell_new(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    if (replica_kv_memory_new(&node->log) != 0 || replica_kv_memory_new(&node->map) != 0 ||
        replica_contents_memory_new(&node->contents) != 0)
        abort();
}

static void drop_held(struct node *node)
{
    for (size_t i = 0; i < node->held_n; i++)
        free(node->held[i].bytes);
    node->held_n = 0;
}

void shell_close(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    gossip_peer_destroy(&node->peer);
    drop_held(node);
    free(node->held);
    for (size_t i = 0; i < node->drafts_n; i++)
        free(node->drafts[i].bytes);
    free(node->drafts);
    replica_contents_destroy(&node->contents);
    replica_kv_destroy(&node->log);
    replica_kv_destroy(&node->map);
}

uint64_t shell_add_draft(struct world *world, size_t at, const void *bytes, size_t n)
{
    struct node *node = &world->nodes[at];
    struct draft *draft;
    node->drafts = world_grow(node->drafts, node->drafts_n, &node->drafts_capacity, sizeof *node->drafts);
    draft = &node->drafts[node->drafts_n++];
    draft->bytes = malloc(n + 1);
    if (draft->bytes == NULL)
        abort();
    memcpy(draft->bytes, bytes, n);
    draft->size = n;
    return node->drafts_n;
}

/* Lives */

void shell_start(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    struct gossip_peer_options options;
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_START};
    const char *join[WORLD_NODES_MAX];
    int rv;
    gossip_peer_options_default(&options);
    for (size_t i = 0; i < world->options.founders; i++)
        join[i] = world->nodes[i].endpoint;
    options.join = join;
    options.join_n = world->options.founders;
    options.control.begin = world->options.founders == 1 && at == 0 ? GOSSIP_BEGIN_ALONE
                            : at < world->options.founders          ? GOSSIP_BEGIN_EXPECT
                                                                    : GOSSIP_BEGIN_JOIN;
    options.control.expect = (uint32_t)world->options.founders;
    if (world->options.snapshot_entries > 0)
        options.control.snapshot_entries = world->options.snapshot_entries;
    options.principal = node->principal;
    node->generation++;
    options.self.store = node->store;
    options.self.generation = node->generation;
    options.self.roles = at < world->options.founders ? GOSSIP_MEMBER_VOTE : 0;
    options.self.capacity_free = (uint64_t)1 << 40;
    strcpy(options.self.endpoint, node->endpoint);
    options.seed = world->options.seed * 1000003 + at * 1009 + node->generation;
    node->batch = node->synced = 0;
    node->syncing = node->dirty = false;
    node->wake_ms = UINT64_MAX;
    node->paused_until_ms = 0;
    node->steps_at_once = 0;
    memset(node->seen, 0, sizeof node->seen);
    memset(node->seen_held, 0, sizeof node->seen_held);
    rv = gossip_peer_new(&options, node->log, node->map, node->contents, &node->peer);
    if (rv != 0) {
        world_fail(world, "node %zu cannot be opened in life %llu: %s", at,
                   (unsigned long long)node->generation, replica_error_text(rv));
        return;
    }
    world_trace(world, "node %zu starts, life %llu", at, (unsigned long long)node->generation);
    oracle_node_loaded(world, at);
    shell_step(world, at, &event);
}

/* Each kv loses a suffix of its own; contents lose what is not complete. */
void shell_stop(struct world *world, size_t at, bool lose_nothing)
{
    struct node *node = &world->nodes[at];
    size_t log = replica_kv_memory_pending(node->log), map = replica_kv_memory_pending(node->map);
    size_t keep_log = lose_nothing ? log : (size_t)world_draw(world, 0, log);
    size_t keep_map = lose_nothing ? map : (size_t)world_draw(world, 0, map);
    world_trace(world, "node %zu dies; keeps %zu of %zu log and %zu of %zu map batches", at, keep_log, log,
                keep_map, map);
    gossip_peer_destroy(&node->peer);
    drop_held(node);
    replica_kv_memory_crash(node->log, keep_log);
    replica_kv_memory_crash(node->map, keep_map);
    if (!lose_nothing)
        replica_contents_memory_crash(node->contents);
    node->crash_at_write = node->fail_at_write = 0;
    node->failed = false;
    calls_gone(world, at);
    if (!lose_nothing)
        oracle_node_lost(world, at);
}

/* Durability */

static int sync_contents(struct node *node)
{
    int rv;
    replica_contents_memory_fail(node->contents, 0);
    rv = replica_contents_sync(node->contents);
    replica_contents_memory_fail(node->contents, node->full ? REPLICA_E_NOSPACE : 0);
    return rv;
}

static void sync_if_needed(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    struct event *event;
    if (node->syncing || !node->dirty)
        return;
    node->syncing = true;
    node->dirty = false;
    event =
        event_new(EVENT_SYNCED,
                  world->now_ms + world_draw(world, world->options.sync_ms_min, world->options.sync_ms_max),
                  at, node->generation);
    event->batch = node->batch;
    event->count = replica_kv_memory_pending(node->log);
    /* Contents go first: they may be safe long before the log is, or only just. */
    if (world_chance(world, 50) && sync_contents(node) == 0)
        event->code = 1;
    queue_push(&world->queue, event);
}

static void hold(struct node *node, const struct gossip_send *send, const struct gossip_answer *answer,
                 const uint8_t *bytes, size_t n)
{
    struct held *held;
    node->held = world_grow(node->held, node->held_n, &node->held_capacity, sizeof *node->held);
    held = &node->held[node->held_n++];
    memset(held, 0, sizeof *held);
    held->batch = node->batch;
    held->is_answer = answer != NULL;
    if (send != NULL)
        held->send = *send;
    if (answer != NULL)
        held->answer = *answer;
    held->size = n;
    held->bytes = malloc(n + 1);
    if (held->bytes == NULL)
        abort();
    if (n > 0)
        memcpy(held->bytes, bytes, n);
}

static void release_held(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    size_t n = 0;
    while (n < node->held_n && node->held[n].batch <= node->synced) {
        struct held *held = &node->held[n++];
        if (held->is_answer)
            calls_answer(world, at, &held->answer, held->bytes);
        else
            network_send(world, at, &held->send, held->bytes);
        free(held->bytes);
    }
    node->held_n -= n;
    if (n > 0 && node->held_n > 0)
        memmove(node->held, node->held + n, node->held_n * sizeof *node->held);
}

static void synced(struct world *world, const struct event *event)
{
    struct node *node = &world->nodes[event->node];
    struct gossip_peer_event step = {.kind = GOSSIP_PEER_EVENT_SYNCED};
    if (event->code == 0 && sync_contents(node) != 0)
        world_fail(world, "node %zu: contents cannot be synced", event->node);
    replica_kv_memory_sync_first(node->log, event->count);
    node->syncing = false;
    node->synced = event->batch;
    release_held(world, event->node);
    step.synced = node->synced;
    shell_step(world, event->node, &step);
    if (node->peer != NULL && !node->failed)
        sync_if_needed(world, event->node);
}

/* Steps */

static bool write_batches(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    struct gossip_update *update = &world->update;
    if (update->log.count > 0 && replica_kv_write(node->log, &update->log) != 0)
        world_fail(world, "node %zu: the log refuses a batch", at);
    if (update->map.count > 0 && replica_kv_write(node->map, &update->map) != 0)
        world_fail(world, "node %zu: the map refuses a batch", at);
    if (update->log.count == 0)
        return true;
    node->writes++;
    node->dirty = true;
    return node->crash_at_write == 0 || node->writes < node->crash_at_write;
}

static void send_all(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    struct gossip_update *update = &world->update;
    for (size_t i = 0; i < update->sends_n; i++) {
        const struct gossip_send *send = &update->sends[i];
        const uint8_t *bytes = update->bytes.data + (send->size > 0 ? send->offset : 0);
        world_mix(world, (uint64_t)send->room << 40 | (uint64_t)send->type << 32 | send->size);
        if (send->durable && node->failed)
            continue;
        if (send->durable && node->synced < node->batch) {
            hold(node, send, NULL, bytes, send->size);
            node->dirty = true;
        } else
            network_send(world, at, send, bytes);
    }
    for (size_t i = 0; i < update->answers_n; i++) {
        const struct gossip_answer *answer = &update->answers[i];
        const uint8_t *bytes = update->bytes.data + (answer->size > 0 ? answer->offset : 0);
        if (answer->durable && node->synced < node->batch) {
            hold(node, NULL, answer, bytes, answer->size);
            node->dirty = true;
        } else
            calls_answer(world, at, answer, bytes);
    }
}

static void carry_out(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    struct gossip_update *update = &world->update;
    for (size_t i = 0; i < update->uploads_n; i++)
        network_upload(world, at, &update->uploads[i]);
    for (size_t i = 0; i < update->settles_n; i++) {
        struct event *event = event_new(EVENT_SETTLE, world->now_ms + world_draw(world, 0, SETTLE_MS_MAX), at,
                                        node->generation);
        event->view = update->settles[i].view;
        event->draft = update->settles[i].draft;
        queue_push(&world->queue, event);
    }
    if (update->map_sync) {
        struct event *event = event_new(
            EVENT_MAP_SYNCED,
            world->now_ms + world_draw(world, world->options.sync_ms_min, world->options.sync_ms_max), at,
            node->generation);
        event->count = replica_kv_memory_pending(node->map);
        queue_push(&world->queue, event);
    }
}

static void set_wake(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    uint64_t wake = world->update.again ? world->now_ms : world->update.wake_ms;
    if (wake < world->now_ms)
        wake = world->now_ms;
    if (wake >= node->wake_ms)
        return;
    node->wake_ms = wake;
    queue_push(&world->queue, event_new(EVENT_WAKE, wake, at, node->generation));
}

static bool makes_progress(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    if (node->last_step_ms != world->now_ms)
        node->steps_at_once = 0;
    node->last_step_ms = world->now_ms;
    if (++node->steps_at_once <= STEPS_AT_ONCE)
        return true;
    world_fail(world, "node %zu steps for ever", at);
    return false;
}

static uint64_t wall_ms(const struct world *world, const struct node *node)
{
    return WALL_START_MS + world->now_ms + (uint64_t)node->clock_offset_ms;
}

/* What waits for the batch that was not written is never said; but for edits, whose callers the peer answers, nobody is answered. */
static void fail_store(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_FAILED, .code = REPLICA_E_NOSPACE};
    world_trace(world, "node %zu fails at write %llu", at, (unsigned long long)node->writes + 1);
    node->failed = true;
    node->dirty = false;
    drop_held(node);
    shell_step(world, at, &event);
    calls_gone(world, at);
}

/* Nothing of the update counts but what needs no disk. */
static void carry_out_failed(struct world *world, size_t at)
{
    set_wake(world, at);
    for (size_t i = 0; i < world->update.uploads_n; i++)
        network_upload(world, at, &world->update.uploads[i]);
    send_all(world, at);
}

void shell_step(struct world *world, size_t at, struct gossip_peer_event *event)
{
    struct node *node = &world->nodes[at];
    bool empty;
    int rv;
    if (node->peer == NULL || world->failed || !makes_progress(world, at))
        return;
    event->time.now_ms = world->now_ms;
    event->time.wall_ms = wall_ms(world, node);
    event->batch = node->batch + 1;
    event->synced = node->synced;
    gossip_update_clear(&world->update);
    rv = gossip_peer_step(node->peer, event, &world->update);
    world_mix(world, world->now_ms << 8 | (uint64_t)event->kind << 4 | at);
    if (rv != 0) {
        world_fail(world, "node %zu: event %d of room %d: %s", at, (int)event->kind, (int)event->room,
                   replica_error_text(rv));
        return;
    }
    if (node->failed) {
        carry_out_failed(world, at);
        return;
    }
    if (node->fail_at_write != 0 && world->update.log.count > 0 && node->writes + 1 >= node->fail_at_write) {
        fail_store(world, at);
        return;
    }
    empty = world->update.log.count == 0 && world->update.map.count == 0;
    for (size_t i = 0; i < world->update.sends_n && empty; i++)
        empty = !world->update.sends[i].durable;
    for (size_t i = 0; i < world->update.answers_n && empty; i++)
        empty = !world->update.answers[i].durable;
    if (!empty)
        node->batch++;
    if (!write_batches(world, at)) {
        world_trace(world, "node %zu dies at write %llu", at, (unsigned long long)node->writes);
        shell_stop(world, at, false);
        return;
    }
    oracle_after_step(world, at);
    set_wake(world, at);
    carry_out(world, at);
    send_all(world, at);
    sync_if_needed(world, at);
}

/* Events */

/* Hashing is done by another thread: the node may do anything before it hears of it. */
static void settle(struct world *world, const struct event *event)
{
    struct node *node = &world->nodes[event->node];
    struct event *settled = event_new(EVENT_SETTLED, world->now_ms + world_draw(world, 0, SETTLE_MS_MAX),
                                      event->node, event->life);
    const struct draft *draft;
    if (event->draft == 0 || event->draft > node->drafts_n) {
        world_fail(world, "node %zu settles draft %llu, which never was", event->node,
                   (unsigned long long)event->draft);
        event_free(settled);
        return;
    }
    draft = &node->drafts[event->draft - 1];
    settled->view = event->view;
    settled->draft = event->draft;
    if (draft->size > REPLICA_INLINE_MAX)
        settled->code = replica_contents_ingest(node->contents, draft->bytes, draft->size, &settled->content);
    queue_push(&world->queue, settled);
}

static void settled(struct world *world, const struct event *event)
{
    const struct draft *draft = &world->nodes[event->node].drafts[event->draft - 1];
    struct gossip_peer_event step = {.kind = GOSSIP_PEER_EVENT_SETTLED,
                                     .view = event->view,
                                     .draft = event->draft,
                                     .size = draft->size,
                                     .code = event->code};
    if (draft->size <= REPLICA_INLINE_MAX)
        step.blob =
            (struct replica_blob){.kind = REPLICA_BLOB_INLINE, .data = draft->bytes, .size = draft->size};
    else
        step.blob = (struct replica_blob){.kind = REPLICA_BLOB_CONTENT, .content = event->content};
    shell_step(world, event->node, &step);
}

static void piece(struct world *world, const struct event *event)
{
    struct node *node = &world->nodes[event->node];
    struct gossip_peer_event step = {.kind = GOSSIP_PEER_EVENT_PIECE,
                                     .source = world->nodes[event->from].store,
                                     .content = event->content,
                                     .piece = event->piece,
                                     .bytes = event->size};
    step.code =
        replica_contents_write(node->contents, &event->content, event->piece, event->bytes, event->size);
    shell_step(world, event->node, &step);
}

void shell_event(struct world *world, struct event *event)
{
    struct node *node = &world->nodes[event->node];
    struct gossip_peer_event step = {.kind = GOSSIP_PEER_EVENT_TIMER};
    if (node->peer == NULL || (event->life != 0 && event->life != node->generation))
        return;
    switch (event->kind) {
    case EVENT_WAKE:
        if (node->wake_ms > world->now_ms)
            return; /* an earlier one took its place */
        node->wake_ms = UINT64_MAX;
        break;
    case EVENT_MESSAGE:
        step.kind = GOSSIP_PEER_EVENT_MESSAGE;
        step.room = event->room;
        step.message = (struct gossip_message){.from = &world->nodes[event->from].principal,
                                               .type = event->type,
                                               .payload = event->bytes,
                                               .size = event->size};
        break;
    case EVENT_PIECE:
        piece(world, event);
        return;
    case EVENT_UPLOADED:
        step.kind = GOSSIP_PEER_EVENT_UPLOADED;
        step.source = world->nodes[event->from].store;
        step.content = event->content;
        step.piece = event->piece;
        step.bytes = event->batch;
        step.code = event->code;
        break;
    case EVENT_SYNCED:
        synced(world, event);
        return;
    case EVENT_MAP_SYNCED:
        replica_kv_memory_sync_first(node->map, event->count);
        step.kind = GOSSIP_PEER_EVENT_MAP_SYNCED;
        break;
    case EVENT_SETTLE:
        settle(world, event);
        return;
    case EVENT_SETTLED:
        settled(world, event);
        return;
    }
    shell_step(world, event->node, &step);
}
