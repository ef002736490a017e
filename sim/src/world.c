/* Making, running, faults. */
#include "inside.h"

#include "replica/error.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_MAX 512

void world_options_default(struct world_options *options)
{
    *options = (struct world_options){.seed = 1,
                                      .nodes = 3,
                                      .founders = 3,
                                      .delay_ms_min = 1,
                                      .delay_ms_max = 10,
                                      .straggle_ms = 3000,
                                      .sync_ms_min = 1,
                                      .sync_ms_max = 15,
                                      .commit_timeout_ms = 10000};
}

/* Helpers */

void *world_grow(void *items, size_t n, size_t *capacity, size_t item_size)
{
    if (n < *capacity)
        return items;
    *capacity = *capacity == 0 ? 16 : *capacity * 2;
    items = reallocarray(items, *capacity, item_size);
    if (items == NULL)
        abort();
    return items;
}

void world_mix(struct world *world, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        world->hash ^= value >> (8 * i) & 0xff;
        world->hash *= 0x100000001b3u; /* FNV-1a */
    }
}

void world_trace(struct world *world, const char *format, ...)
{
    char text[TRACE_MAX], line[TRACE_MAX + 32];
    va_list arguments;
    if (world->options.trace == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(line, sizeof line, "%8llu %s", (unsigned long long)world->now_ms, text);
    world->options.trace(world->options.trace_context, line);
}

void world_fail(struct world *world, const char *format, ...)
{
    char text[FAILURE_MAX - 64];
    va_list arguments;
    if (world->failed)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    world->failed = true;
    snprintf(world->failure, sizeof world->failure, "seed %llu, %llu ms: %s",
             (unsigned long long)world->options.seed, (unsigned long long)world->now_ms, text);
    world_trace(world, "FAILURE %s", text);
}

uint64_t world_draw(struct world *world, uint64_t min, uint64_t max)
{
    return min + gossip_random_below(&world->random, max - min + 1);
}

bool world_chance(struct world *world, uint32_t percent)
{
    return percent > 0 && gossip_random_below(&world->random, 100) < percent;
}

/* Making and unmaking */

static void name_node(struct world *world, size_t at)
{
    struct node *node = &world->nodes[at];
    gossip_random_id(&world->random, &node->store);
    snprintf(node->endpoint, sizeof node->endpoint, "tcp://10.0.0.%zu:7000", at + 1);
    node->principal.store = node->store;
    node->principal.role = at < world->options.founders ? GOSSIP_ROLE_VOTER : GOSSIP_ROLE_CACHE;
    node->principal.every_volume = true;
}

struct world *world_new(const struct world_options *options)
{
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        abort();
    assert(options->nodes <= WORLD_NODES_MAX && options->founders <= options->nodes);
    world->options = *options;
    world->hash = 0xcbf29ce484222325u;
    gossip_random_init(&world->random, options->seed, 100 /* stream */);
    gossip_update_init(&world->update);
    for (size_t i = 0; i < options->nodes; i++) {
        name_node(world, i);
        shell_new(world, i);
    }
    return world;
}

static void free_call(struct world_call *call)
{
    replica_buffer_close(&call->answer);
    free(call->path);
    free(call->bytes);
    free(call);
}

void world_destroy(struct world **ref)
{
    struct world *world = *ref;
    struct event *event;
    if (world == NULL)
        return;
    for (size_t i = 0; i < world->options.nodes; i++)
        shell_close(world, i);
    while ((event = queue_pop(&world->queue)) != NULL)
        event_free(event);
    free(world->queue.events);
    for (size_t i = 0; i < world->kept_n; i++)
        event_free(world->kept[i]);
    free(world->kept);
    for (size_t i = 0; i < world->calls_n; i++)
        free_call(world->calls[i]);
    free(world->calls);
    free(world->acknowledged);
    free(world->refused);
    free(world->states);
    free(world->due);
    gossip_update_close(&world->update);
    free(world);
    *ref = NULL;
}

/* Time */

uint64_t world_now(const struct world *world)
{
    return world->now_ms;
}

/* The next event no later than limit; false if there is none. */
static bool run_one(struct world *world, uint64_t limit_ms)
{
    const struct event *next = queue_peek(&world->queue);
    struct event *event;
    struct node *node;
    if (world->failed || next == NULL || next->at_ms > limit_ms)
        return false;
    event = queue_pop(&world->queue);
    world->now_ms = event->at_ms;
    node = &world->nodes[event->node];
    if (node->peer != NULL && node->paused_until_ms > world->now_ms) {
        event->at_ms = node->paused_until_ms;
        queue_push(&world->queue, event);
        return true;
    }
    shell_event(world, event);
    event_free(event);
    return true;
}

void world_run_for(struct world *world, uint64_t ms)
{
    uint64_t until_ms = world->now_ms + ms;
    while (run_one(world, until_ms))
        ;
    if (!world->failed)
        world->now_ms = until_ms;
}

bool world_run_until(struct world *world, bool (*done)(void *context), void *context, uint64_t ms)
{
    uint64_t until_ms = world->now_ms + ms;
    while (!done(context))
        if (!run_one(world, until_ms)) {
            if (!world->failed)
                world->now_ms = until_ms;
            return !world->failed && done(context);
        }
    return !world->failed;
}

/* Nodes */

void world_boot(struct world *world, size_t node)
{
    assert(world->nodes[node].peer == NULL);
    shell_start(world, node);
}

void world_restart(struct world *world, size_t node)
{
    world_boot(world, node);
}

void world_crash(struct world *world, size_t node, bool lose_nothing)
{
    if (world->nodes[node].peer != NULL)
        shell_stop(world, node, lose_nothing);
}

#define LEAVE_MS 100 /* from the word to the end */

void world_leave(struct world *world, size_t node)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_LEAVE};
    if (world->nodes[node].peer == NULL)
        return;
    world_trace(world, "node %zu leaves", node);
    shell_step(world, node, &event);
    world_run_for(world, LEAVE_MS);
    world_crash(world, node, true);
}

void world_fail_at_write(struct world *world, size_t node, uint64_t k)
{
    world->nodes[node].fail_at_write = k == 0 ? 0 : world->nodes[node].writes + k;
}

bool world_has_failed(const struct world *world, size_t node)
{
    return world->nodes[node].failed;
}

void world_crash_at_write(struct world *world, size_t node, uint64_t k)
{
    world->nodes[node].crash_at_write = k == 0 ? 0 : world->nodes[node].writes + k;
}

uint64_t world_writes(const struct world *world, size_t node)
{
    return world->nodes[node].writes;
}

bool world_is_up(const struct world *world, size_t node)
{
    return world->nodes[node].peer != NULL;
}

void world_pause(struct world *world, size_t node, uint64_t ms)
{
    world_trace(world, "node %zu pauses for %llu ms", node, (unsigned long long)ms);
    world->nodes[node].paused_until_ms = world->now_ms + ms;
}

void world_set_principal(struct world *world, size_t node, const struct gossip_principal *principal)
{
    world->nodes[node].principal = *principal;
    world->nodes[node].principal.store = world->nodes[node].store;
}

size_t world_say(struct world *world, size_t node, const struct gossip_principal *from, enum gossip_room room,
                 uint8_t type, const struct replica_buffer *payload, struct world_heard *ret_first)
{
    struct gossip_peer_event event = {
        .kind = GOSSIP_PEER_EVENT_MESSAGE,
        .room = room,
        .message = {.from = from, .type = type, .payload = payload->data, .size = payload->size}};
    size_t n = 0;
    if (world->nodes[node].peer == NULL)
        return 0;
    shell_step(world, node, &event);
    for (size_t i = 0; i < world->update.sends_n; i++) {
        const struct gossip_send *send = &world->update.sends[i];
        if (!replica_id_equal(&send->to, &from->store) || n++ > 0 || ret_first == NULL)
            continue;
        ret_first->type = send->type;
        replica_buffer_clear(&ret_first->payload);
        replica_buffer_append(&ret_first->payload, world->update.bytes.data + send->offset, send->size);
    }
    return n;
}

void world_set_clock(struct world *world, size_t node, int64_t offset_ms)
{
    world->nodes[node].clock_offset_ms = offset_ms;
}

void world_fill_disk(struct world *world, size_t node, bool full)
{
    world->nodes[node].full = full;
    replica_contents_memory_fail(world->nodes[node].contents, full ? REPLICA_E_NOSPACE : 0);
}

void world_damage(struct world *world, size_t node, const struct replica_content_id *content)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_DAMAGED, .content = *content};
    if (replica_contents_remove(world->nodes[node].contents, content) == 0)
        shell_step(world, node, &event);
}

void world_set_disk(struct world *world, size_t node, uint64_t bytes_per_s)
{
    world->nodes[node].disk_bytes_per_s = bytes_per_s;
    world->nodes[node].disk_free_ms = world->now_ms;
}

struct gossip_peer *world_peer(const struct world *world, size_t node)
{
    return world->nodes[node].peer;
}

struct replica_id world_store(const struct world *world, size_t node)
{
    return world->nodes[node].store;
}

struct replica_volume *world_volume(const struct world *world, size_t node, const struct replica_id *volume)
{
    return world->nodes[node].peer == NULL ? NULL : gossip_peer_volume(world->nodes[node].peer, volume);
}

/* Network */

void world_cut(struct world *world, size_t from, size_t to)
{
    world->cut[from][to] = true;
}

void world_isolate(struct world *world, size_t node)
{
    world_trace(world, "node %zu is cut off", node);
    for (size_t i = 0; i < world->options.nodes; i++)
        if (i != node)
            world->cut[i][node] = world->cut[node][i] = true;
}

void world_heal(struct world *world)
{
    world_trace(world, "the network heals");
    memset(world->cut, 0, sizeof world->cut);
    world_set_faults(world, 0, 0, 0);
}

void world_set_faults(struct world *world, uint32_t loss_percent, uint32_t double_percent,
                      uint32_t straggle_percent)
{
    world->options.loss_percent = loss_percent;
    world->options.double_percent = double_percent;
    world->options.straggle_percent = straggle_percent;
}

void world_set_filter(struct world *world, world_filter_fn filter, void *context)
{
    world->filter = filter;
    world->filter_context = context;
}

void world_release(struct world *world)
{
    for (size_t i = 0; i < world->kept_n; i++)
        network_push(world, world->kept[i]);
    world->kept_n = 0;
}

/* Looking */

const char *world_failure(const struct world *world)
{
    return world->failed ? world->failure : NULL;
}

uint64_t world_trace_hash(const struct world *world)
{
    return world->hash;
}

size_t world_acknowledged(const struct world *world)
{
    return world->acknowledged_n;
}
