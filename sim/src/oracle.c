/* What must hold. After each step: equal applied vectors mean equal states; what is applied is ordered, what
 * is ordered is stored and committed; what is held has its causes and its bytes here. At an answer: a reload shows every commit that returned before it
 * began, and no less than reloads before it; a commit is ordered after those that had returned. At the end:
 * nothing acknowledged is lost, nothing that "did not happen" happened, all agree. */
#include "inside.h"

#include "replica/error.h"
#include "replica/merkle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_MS 3000 /* all must still be as it was after so long */

size_t oracle_index(const struct world *world, const struct replica_id *volume)
{
    for (size_t i = 0; i < world->volumes_n; i++)
        if (replica_id_equal(&world->volumes[i].id, volume))
            return i;
    return SIZE_MAX;
}

size_t oracle_watch(struct world *world, const struct replica_id *volume)
{
    size_t at = oracle_index(world, volume);
    if (at != SIZE_MAX || world->volumes_n == VOLUMES_WATCHED)
        return at;
    world->volumes[world->volumes_n].id = *volume;
    return world->volumes_n++;
}

/* Equal vectors, equal states */

static uint64_t hash_vector(size_t volume, const struct replica_vector *vector)
{
    uint64_t hash = 0xcbf29ce484222325u ^ volume;
    for (size_t i = 0; i < vector->n; i++) {
        for (size_t b = 0; b < REPLICA_ID_SIZE; b++)
            hash = (hash ^ vector->entries[i].actor.store.bytes[b]) * 0x100000001b3u;
        hash = (hash ^ vector->entries[i].actor.epoch) * 0x100000001b3u;
        hash = (hash ^ vector->entries[i].seq) * 0x100000001b3u;
    }
    return hash;
}

static struct state_seen *find_state(const struct world *world, size_t volume,
                                     const struct replica_vector *applied)
{
    size_t at = (size_t)hash_vector(volume, applied) & (world->states_capacity - 1);
    for (;; at = (at + 1) & (world->states_capacity - 1)) {
        struct state_seen *state = &world->states[at];
        if (!state->used || (state->volume == volume && replica_vector_equal(&state->applied, applied)))
            return state;
    }
}

static void grow_states(struct world *world)
{
    struct state_seen *old = world->states;
    size_t capacity = world->states_capacity;
    if (world->states_n * 2 < capacity)
        return;
    world->states_capacity = capacity == 0 ? 256 : capacity * 2;
    world->states = calloc(world->states_capacity, sizeof *world->states);
    if (world->states == NULL)
        abort();
    for (size_t i = 0; i < capacity; i++)
        if (old[i].used)
            *find_state(world, old[i].volume, &old[i].applied) = old[i];
    free(old);
}

static void check_state(struct world *world, size_t node, size_t volume,
                        const struct replica_volume_state *state)
{
    struct state_seen *seen;
    grow_states(world);
    seen = find_state(world, volume, &state->applied);
    if (seen->used) {
        if (memcmp(seen->hash, state->totals.state_hash, REPLICA_HASH_SIZE) != 0)
            world_fail(world, "node %zu: equal vectors, unequal states, at place %llu", node,
                       (unsigned long long)state->applied_seq);
        return;
    }
    seen->used = true;
    seen->volume = volume;
    seen->applied = state->applied;
    memcpy(seen->hash, state->totals.state_hash, REPLICA_HASH_SIZE);
    world->states_n++;
}

/* Never an effect without its cause: whatever the newly applied deltas depend on is applied too. */
static void check_causes(struct world *world, size_t node, const struct replica_volume *volume,
                         const struct replica_vector *before)
{
    const struct replica_volume_state *state = replica_volume_state(volume);
    struct replica_buffer record;
    replica_buffer_init(&record);
    for (size_t i = 0; i < state->applied.n; i++) {
        struct replica_dot dot = {.actor = state->applied.entries[i].actor};
        for (dot.seq = replica_vector_get(before, &dot.actor) + 1; dot.seq <= state->applied.entries[i].seq;
             dot.seq++) {
            struct replica_delta delta;
            replica_buffer_clear(&record);
            if (replica_volume_read(volume, NULL, &dot, &record) != 0)
                continue; /* it came in an image */
            if (replica_delta_decode(record.data, record.size, &delta) != 0)
                world_fail(world, "node %zu stored an unreadable delta", node);
            else if (!replica_vector_covers(&state->applied, &delta.deps))
                world_fail(world, "node %zu applied a delta without what it depends on", node);
        }
    }
    replica_buffer_close(&record);
}

/* A delta that is held: what it depends on is held, and the bytes of all that it names are here. */

struct check_held {
    struct world *world;
    size_t node;
};

static int check_bytes(void *context, const struct replica_op *op)
{
    const struct check_held *check = context;
    const struct replica_blob *blob = &op->entry.blob;
    if (!op->tombstone && op->entry.kind == REPLICA_KIND_FILE && blob->kind == REPLICA_BLOB_CONTENT &&
        blob->content.length > 0 &&
        replica_contents_state(check->world->nodes[check->node].contents, &blob->content) <
            REPLICA_CONTENTS_FILLED)
        world_fail(check->world, "node %zu holds a delta, but not the bytes of %.*s", check->node,
                   (int)op->path.size, op->path.text);
    return 0;
}

static void check_held(struct world *world, size_t node, const struct replica_volume *volume,
                       const struct replica_dot *dot)
{
    struct check_held check = {.world = world, .node = node};
    struct replica_buffer record, list;
    struct replica_delta delta;
    const uint8_t *ops;
    size_t n;
    replica_buffer_init(&record);
    replica_buffer_init(&list);
    if (replica_volume_read(volume, NULL, dot, &record) != 0 ||
        replica_delta_decode(record.data, record.size, &delta) != 0)
        world_fail(world, "node %zu holds a delta that it cannot read", node);
    else if (!replica_vector_covers(&replica_volume_state(volume)->held, &delta.deps))
        world_fail(world, "node %zu holds a delta without what it depends on", node);
    else if (replica_delta_ops(&delta, world->nodes[node].contents, &list, &ops, &n) != 0)
        world_fail(world, "node %zu holds a delta without its op list", node);
    else
        (void)replica_ops_each(ops, n, check_bytes, &check);
    replica_buffer_close(&record);
    replica_buffer_close(&list);
}

static void check_newly_held(struct world *world, size_t node, size_t at, const struct replica_volume *volume)
{
    const struct replica_vector *held = &replica_volume_state(volume)->held;
    struct replica_vector *before = &world->nodes[node].seen_held[at];
    if (replica_vector_equal(held, before))
        return;
    for (size_t i = 0; i < held->n; i++) {
        struct replica_dot dot = {.actor = held->entries[i].actor};
        for (dot.seq = replica_vector_get(before, &dot.actor) + 1; dot.seq <= held->entries[i].seq; dot.seq++)
            check_held(world, node, volume, &dot);
    }
    *before = *held;
}

static bool is_voter(const struct world *world, size_t node, size_t volume)
{
    const struct gossip_control *control = gossip_peer_control(world->nodes[node].peer);
    const struct gossip_volume *entry = gossip_control_volume(control, &world->volumes[volume].id);
    for (size_t i = 0; entry != NULL && i < entry->configuration.voters_n; i++)
        if (replica_id_equal(&entry->configuration.voters[i], &world->nodes[node].store))
            return true;
    return false;
}

static void check_volume(struct world *world, size_t node, size_t at)
{
    const struct replica_volume *volume = gossip_peer_volume(world->nodes[node].peer, &world->volumes[at].id);
    const struct replica_volume_state *state;
    if (volume == NULL)
        return;
    state = replica_volume_state(volume);
    if (!replica_vector_covers(&state->stored, &state->held))
        world_fail(world, "node %zu holds what it has not stored", node);
    check_newly_held(world, node, at, volume);
    if (replica_vector_equal(&state->applied, &world->nodes[node].seen[at]))
        return;
    check_causes(world, node, volume, &world->nodes[node].seen[at]);
    world->nodes[node].seen[at] = state->applied;
    if (!replica_vector_covers(&state->ordered, &state->applied))
        world_fail(world, "node %zu applied what has no place", node);
    if (!replica_vector_covers(&state->stored, &state->ordered) ||
        !replica_vector_covers(&state->committed, &state->ordered))
        world_fail(world, "node %zu gave a place to what is not stored and committed", node);
    check_state(world, node, at, state);
}

/* The ids under which pending commits go */

static struct replica_id id_in_flight(const struct world *world, size_t node,
                                      const struct replica_id *view_id)
{
    struct replica_id none = {{0}};
    struct replica_view *view;
    if (world->nodes[node].peer == NULL)
        return none;
    view = replica_view_find(gossip_peer_views(world->nodes[node].peer), view_id);
    if (view == NULL || replica_view_info(view)->commit == REPLICA_COMMIT_NONE)
        return none;
    return replica_view_info(view)->commit_id;
}

static void note_commits(struct world *world, size_t node)
{
    for (size_t i = world->calls_n; i > 0 && i + 200 > world->calls_n; i--) {
        struct world_call *call = world->calls[i - 1];
        struct replica_id id;
        if (call->kind != CALL_COMMIT || call->node != node || call->code != WORLD_PENDING ||
            !replica_id_is_zero(&call->commit))
            continue;
        id = id_in_flight(world, node, &call->view);
        if (replica_id_is_zero(&id) || replica_id_equal(&id, &call->in_flight))
            continue;
        call->commit = id;
        world_trace(world, "node %zu: commit %llu is %02x%02x%02x%02x", node, (unsigned long long)call->token,
                    id.bytes[0], id.bytes[1], id.bytes[2], id.bytes[3]);
    }
}

void oracle_after_step(struct world *world, size_t node)
{
    for (size_t i = 0; i < world->volumes_n; i++)
        check_volume(world, node, i);
    note_commits(world, node);
}

/* Calls */

void oracle_call_started(struct world *world, struct world_call *call)
{
    call->acknowledged_before = world->acknowledged_n;
    if (call->kind == CALL_COMMIT)
        call->in_flight = id_in_flight(world, call->node, &call->view);
    if (call->volume == SIZE_MAX)
        return;
    call->floor = world->volumes[call->volume].floor;
    call->stamp_before = world->volumes[call->volume].hlc_high;
}

static uint64_t read_hlc(const struct world *world, size_t volume, const struct replica_dot *dot)
{
    struct replica_buffer record;
    struct replica_delta delta;
    uint64_t hlc = 0;
    replica_buffer_init(&record);
    for (size_t i = 0; i < world->options.nodes && hlc == 0; i++) {
        const struct replica_volume *replica =
            world->nodes[i].peer == NULL
                ? NULL
                : gossip_peer_volume(world->nodes[i].peer, &world->volumes[volume].id);
        replica_buffer_clear(&record);
        if (replica != NULL && replica_volume_read(replica, NULL, dot, &record) == 0 &&
            replica_delta_decode(record.data, record.size, &delta) == 0)
            hlc = delta.stamp_hlc;
    }
    replica_buffer_close(&record);
    return hlc;
}

/* Whether another edit of the same path came later or went on beside it: their order is nobody's promise. */
static bool meets_another(const struct world *world, const struct world_call *put)
{
    for (size_t i = 0; i < world->calls_n; i++) {
        const struct world_call *other = world->calls[i];
        if (other != put && other->kind == CALL_EDIT && replica_id_equal(&other->view, &put->view) &&
            strcmp(other->path, put->path) == 0 &&
            (other->code == WORLD_PENDING || other->calls_at_answer >= put->token))
            return true;
    }
    return false;
}

/* Puts of that view that had been answered when the commit was asked for: it had to publish them. */
static void note_due(struct world *world, const struct world_call *commit)
{
    for (size_t i = commit->calls_before; i > 0; i--) {
        struct world_call *put = world->calls[i - 1];
        if (put->kind != CALL_EDIT || put->superseded || put->code != 0 ||
            !replica_id_equal(&put->view, &commit->view) || put->calls_at_answer > commit->calls_before)
            continue;
        put->superseded = true;
        if (put->removes)
            continue;
        if (meets_another(world, put))
            continue;
        world->due = world_grow(world->due, world->due_n, &world->due_capacity, sizeof *world->due);
        world->due[world->due_n++] = put;
    }
}

static int read_token(const struct world_call *call, struct gossip_token *ret_token)
{
    struct replica_pack_reader reader;
    char text[GOSSIP_TOKEN_TEXT_MAX + 1];
    const char *token;
    size_t n, size;
    replica_pack_reader_init(&reader, call->answer.data, call->answer.size);
    replica_pack_read_array(&reader, 16, &n);
    if (replica_pack_read_str(&reader, GOSSIP_TOKEN_TEXT_MAX, &token, &size) != 0)
        return REPLICA_E_MALFORMED;
    memcpy(text, token, size);
    text[size] = '\0';
    return gossip_token_parse(text, ret_token);
}

static void committed(struct world *world, struct world_call *call)
{
    struct watched *volume = &world->volumes[call->volume];
    struct acknowledged *acknowledged;
    struct gossip_token token;
    if (read_token(call, &token) != 0) {
        world_fail(world, "node %zu answers a commit with an unreadable token", call->node);
        return;
    }
    note_due(world, call);
    world_trace(world, "node %zu: commit %llu has dot %02x %llu", call->node, (unsigned long long)call->token,
                token.dot.actor.store.bytes[0], (unsigned long long)token.dot.seq);
    if (token.dot.seq == 0)
        return;
    world->acknowledged = world_grow(world->acknowledged, world->acknowledged_n,
                                     &world->acknowledged_capacity, sizeof *world->acknowledged);
    acknowledged = &world->acknowledged[world->acknowledged_n++];
    acknowledged->volume = call->volume;
    acknowledged->commit = call->commit;
    acknowledged->dot = token.dot;
    acknowledged->hlc = read_hlc(world, call->volume, &token.dot);
    if (acknowledged->hlc != 0 && acknowledged->hlc <= call->stamp_before)
        world_fail(world, "node %zu: a commit that began after another returned is ordered before it",
                   call->node);
    if (acknowledged->hlc > volume->hlc_high)
        volume->hlc_high = acknowledged->hlc;
    (void)replica_vector_raise(&volume->floor, &token.dot.actor, token.dot.seq);
}

static void reloaded(struct world *world, struct world_call *call)
{
    struct replica_view *view;
    const struct replica_vector *shown;
    if (call->kind == CALL_OPEN) {
        struct replica_pack_reader reader;
        size_t n;
        replica_pack_reader_init(&reader, call->answer.data, call->answer.size);
        replica_pack_read_array(&reader, 16, &n);
        replica_pack_read_id(&reader, &call->view);
    }
    view = replica_view_find(gossip_peer_views(world->nodes[call->node].peer), &call->view);
    if (view == NULL) {
        world_fail(world, "node %zu reloaded a view that is not there", call->node);
        return;
    }
    shown = &replica_view_info(view)->options.vector;
    if (!replica_vector_covers(shown, &call->floor))
        world_fail(world, "node %zu: a reload misses what had returned before it began", call->node);
    (void)replica_vector_join(&world->volumes[call->volume].floor, shown);
}

static void add_refused(struct world *world, const struct replica_id *commit)
{
    world->refused =
        world_grow(world->refused, world->refused_n, &world->refused_capacity, sizeof *world->refused);
    world->refused[world->refused_n++] = *commit;
}

void oracle_call_answered(struct world *world, struct world_call *call)
{
    call->calls_at_answer = world->calls_n;
    if (call->volume == SIZE_MAX)
        return;
    if (call->kind == CALL_COMMIT && call->code == 0)
        committed(world, call);
    if (call->kind == CALL_COMMIT && call->code != 0 && call->code != REPLICA_E_INDETERMINATE &&
        !replica_id_is_zero(&call->commit)) {
        world->refused =
            world_grow(world->refused, world->refused_n, &world->refused_capacity, sizeof *world->refused);
        world->refused[world->refused_n++] = call->commit;
    }
    if ((call->kind == CALL_RELOAD || call->kind == CALL_OPEN) && call->code == 0)
        reloaded(world, call);
}

/* A put's answer promises no more than a draft in the page cache. */
void oracle_node_lost(struct world *world, size_t node)
{
    for (size_t i = 0; i < world->calls_n; i++)
        if (world->calls[i]->kind == CALL_EDIT && world->calls[i]->node == node)
            world->calls[i]->superseded = true;
}

/* What a new life finds frozen without a stamp it thaws, so it must never have been minted. */
void oracle_node_loaded(struct world *world, size_t node)
{
    struct replica_views *views = gossip_peer_views(world->nodes[node].peer);
    for (size_t i = 0; i < replica_views_count(views); i++) {
        const struct replica_view_info *info = replica_view_info(replica_views_at(views, i));
        if (info->commit == REPLICA_COMMIT_FROZEN)
            add_refused(world, &info->commit_id);
    }
}

/* The end */

struct quiet {
    struct world *world;
    const char *why; /* not yet */
    size_t node;
    const struct replica_vector *first[VOLUMES_WATCHED]; /* of the first node that has it */
};

static bool node_is_quiet(struct quiet *quiet, size_t node)
{
    struct world *world = quiet->world;
    struct gossip_peer *peer = world->nodes[node].peer;
    struct replica_views *views = gossip_peer_views(peer);
    quiet->node = node;
    quiet->why = "a commit is in flight";
    for (size_t i = 0; i < replica_views_count(views); i++)
        if (replica_view_info(replica_views_at(views, i))->commit != REPLICA_COMMIT_NONE)
            return false;
    for (size_t v = 0; v < world->volumes_n; v++) {
        const struct replica_volume *volume = gossip_peer_volume(peer, &world->volumes[v].id);
        const struct replica_volume_state *state;
        quiet->why = "a voter has not attached the volume";
        if (volume == NULL && is_voter(world, node, v))
            return false;
        if (volume == NULL)
            continue;
        state = replica_volume_state(volume);
        quiet->why = "not everything stored is committed";
        if (!replica_vector_covers(&state->committed, &state->stored))
            return false;
        quiet->why = "not everything committed is applied";
        if (!replica_vector_equal(&state->applied, &state->committed))
            return false;
        quiet->why = "a voter does not hold everything that is committed";
        if (is_voter(world, node, v) && !replica_vector_covers(&state->held, &state->committed))
            return false;
        quiet->why = "vectors differ";
        if (quiet->first[v] == NULL)
            quiet->first[v] = &state->applied;
        if (!replica_vector_equal(&state->applied, quiet->first[v]))
            return false;
    }
    return true;
}

static bool is_quiet(void *context)
{
    struct quiet *quiet = context;
    memset(quiet->first, 0, sizeof quiet->first);
    for (size_t i = 0; i < quiet->world->options.nodes; i++)
        if (!node_is_quiet(quiet, i))
            return false;
    quiet->why = "a call is not answered";
    for (size_t i = 0; i < quiet->world->calls_n; i++)
        if (quiet->world->calls[i]->code == WORLD_PENDING)
            return false;
    return true;
}

struct find_put {
    const struct world_call *put;
    bool found;
};

static int look_for_put(void *context, const struct replica_version *version)
{
    struct find_put *find = context;
    const struct replica_blob *blob = &version->entry.blob;
    struct replica_content_id content;
    if (version->tombstone || version->entry.kind != REPLICA_KIND_FILE ||
        version->entry.size != find->put->size)
        return 0;
    if (blob->kind == REPLICA_BLOB_INLINE)
        replica_merkle_content(blob->data, blob->size, &content);
    else
        content = blob->content;
    find->found = find->found || replica_content_id_equal(&content, &find->put->content);
    return 0;
}

static void check_due(struct world *world, size_t node)
{
    for (size_t i = 0; i < world->due_n; i++) {
        const struct world_call *put = world->due[i];
        struct find_put find = {.put = put};
        struct replica_path path = {put->path, strlen(put->path)};
        size_t looked = 0;
        for (size_t v = 0; v < world->volumes_n && !find.found; v++) {
            if (!is_voter(world, node, v))
                continue; /* it may have an image, without history */
            looked++;
            (void)replica_map_history(
                replica_volume_map(gossip_peer_volume(world->nodes[node].peer, &world->volumes[v].id)), path,
                look_for_put, &find);
        }
        if (!find.found && looked == world->volumes_n)
            world_fail(world, "node %zu: put %llu of %s was acknowledged by a commit, and is nowhere", node,
                       (unsigned long long)put->token, put->path);
    }
}

static void check_outcomes(struct world *world, size_t node)
{
    for (size_t i = 0; i < world->acknowledged_n; i++) {
        const struct acknowledged *acknowledged = &world->acknowledged[i];
        const struct replica_volume *volume =
            gossip_peer_volume(world->nodes[node].peer, &world->volumes[acknowledged->volume].id);
        if (volume != NULL &&
            !replica_vector_covers_dot(&replica_volume_state(volume)->applied, &acknowledged->dot))
            world_fail(world, "node %zu: acknowledged commit %zu is lost", node, i);
    }
    for (size_t i = 0; i < world->refused_n; i++)
        for (size_t v = 0; v < world->volumes_n; v++) {
            const struct replica_volume *volume =
                gossip_peer_volume(world->nodes[node].peer, &world->volumes[v].id);
            struct replica_dot dot;
            if (volume != NULL && replica_volume_find(volume, NULL, &world->refused[i],
                                                      &replica_volume_state(volume)->stored, &dot) == 0)
                world_fail(world, "node %zu: a commit that was given up, its drafts thawed, has happened",
                           node);
        }
}

struct walk {
    struct world *world;
    size_t node;
    const struct replica_volume *volume;
    char path[REPLICA_PATH_MAX + 1];
};

static void walk_directory(struct walk *walk, size_t size);

static int walk_entry(void *context, struct replica_path name, const struct replica_version *version)
{
    struct walk *walk = context;
    size_t size = strlen(walk->path);
    const struct replica_blob *blob = &version->entry.blob;
    if (version->entry.kind == REPLICA_KIND_FILE && blob->kind == REPLICA_BLOB_CONTENT &&
        replica_contents_state(walk->world->nodes[walk->node].contents, &blob->content) <
            REPLICA_CONTENTS_FILLED)
        world_fail(walk->world, "node %zu votes, but lacks the bytes of %s/%.*s", walk->node, walk->path,
                   (int)name.size, name.text);
    if (version->entry.kind != REPLICA_KIND_DIRECTORY)
        return 0;
    if (size > 0)
        walk->path[size++] = '/';
    memcpy(walk->path + size, name.text, name.size);
    walk->path[size + name.size] = '\0';
    walk_directory(walk, size + name.size);
    walk->path[size > 0 ? size - 1 : 0] = '\0';
    return 0;
}

static void walk_directory(struct walk *walk, size_t size)
{
    char own[REPLICA_PATH_MAX + 1];
    struct replica_path dir = {own, size}, after = {"", 0};
    size_t reads = 0;
    bool more;
    memcpy(own, walk->path, size + 1);
    (void)replica_map_list(replica_volume_map(walk->volume), dir, after,
                           replica_volume_state(walk->volume)->applied_seq, SIZE_MAX, &reads, &more,
                           walk_entry, walk);
}

static void check_node(struct world *world, size_t node)
{
    for (size_t v = 0; v < world->volumes_n; v++) {
        const struct replica_volume *volume =
            gossip_peer_volume(world->nodes[node].peer, &world->volumes[v].id);
        uint8_t hash[REPLICA_HASH_SIZE];
        const struct replica_volume_state *state;
        struct walk walk = {.world = world, .node = node, .volume = volume};
        if (volume == NULL)
            continue;
        state = replica_volume_state(volume);
        if (replica_map_state_hash(replica_volume_map(volume), state->applied_seq, hash) != 0 ||
            memcmp(hash, state->totals.state_hash, sizeof hash) != 0)
            world_fail(world, "node %zu: the running state hash is not that of a full scan", node);
        if (is_voter(world, node, v))
            walk_directory(&walk, 0);
    }
}

static void trace_vector(struct world *world, size_t node, const char *name,
                         const struct replica_vector *vector)
{
    char text[256] = "";
    for (size_t i = 0; i < vector->n; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, " %02x:%llu", vector->entries[i].actor.store.bytes[0],
                 (unsigned long long)vector->entries[i].seq);
    }
    world_trace(world, "node %zu %s%s", node, name, text);
}

static void trace_all(struct world *world)
{
    for (size_t i = 0; i < world->options.nodes; i++)
        for (size_t v = 0; v < world->volumes_n; v++) {
            const struct replica_volume *volume =
                world->nodes[i].peer == NULL
                    ? NULL
                    : gossip_peer_volume(world->nodes[i].peer, &world->volumes[v].id);
            if (volume == NULL)
                continue;
            trace_vector(world, i, "stored", &replica_volume_state(volume)->stored);
            trace_vector(world, i, "held", &replica_volume_state(volume)->held);
            trace_vector(world, i, "committed", &replica_volume_state(volume)->committed);
            trace_vector(world, i, "applied", &replica_volume_state(volume)->applied);
        }
}

bool world_converge(struct world *world, uint64_t ms)
{
    struct quiet quiet = {.world = world};
    world_heal(world);
    world_set_filter(world, NULL, NULL);
    world_release(world);
    for (size_t i = 0; i < world->options.nodes && !world->failed; i++) {
        world->nodes[i].crash_at_write = world->nodes[i].fail_at_write = 0;
        if (!world_is_up(world, i))
            world_boot(world, i);
    }
    if (!world->failed && !world_run_until(world, is_quiet, &quiet, ms))
        world_fail(world, "it does not come to rest: node %zu: %s", quiet.node, quiet.why);
    if (world->failed)
        trace_all(world);
    world_run_for(world, QUIET_MS);
    if (!world->failed && !is_quiet(&quiet))
        world_fail(world, "it does not stay at rest: node %zu: %s", quiet.node, quiet.why);
    for (size_t i = 0; i < world->options.nodes && !world->failed; i++) {
        check_outcomes(world, i);
        check_due(world, i);
        check_node(world, i);
    }
    return !world->failed;
}
