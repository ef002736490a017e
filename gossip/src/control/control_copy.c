/* Copies of the registry, for every node that is not a member of the log.
 *
 * What is in a registry is signed by nobody, so it is taken from members of the log only: the store ids in the
 * founding record are those of keys, and what comes under one comes from its holder. Others pass on that there
 * is news, and tell a node that begins whom to ask.
 *
 * A copy pulls what changed since its index: volumes in the order of the entries that changed them last, so that walking to the end of that order has met the newest state of each,
 * whatever changed meanwhile. What comes is staged and taken over as a whole. A count of volumes that differs
 * afterwards means that some have expired: then everything is pulled anew. A rumour (NEWS) makes this quick,
 * the pull at intervals makes it certain. */
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

#define STATE_FIELDS  8
#define NEWS_FANOUT   3  /* random members told of a new index by each node that learns it */
#define NEWS_SHARE    4  /* rumours make a copy pull at most so many times as often as it does anyway */
#define COPIES_SERVED 64 /* that each member of the log serves in one interval; with more copies it grows */

void control_copy_drop(struct control_copy *copy)
{
    free(copy->staged);
    copy->staged = NULL;
    copy->staged_n = 0;
    copy->staged_capacity = 0;
    copy->high = 0;
    memset(&copy->source, 0, sizeof copy->source);
}

/* Asking */

static void pull(struct gossip_control *control, struct gossip_update *update)
{
    struct control_copy *copy = &control->copy;
    struct replica_buffer payload;
    control_begin_message(control, &payload, 3);
    replica_pack_uint(&payload, copy->cursor);
    replica_pack_uint(&payload, control->visible || control->options.begin != GOSSIP_BEGIN_EXPECT
                                    ? 0
                                    : control->options.expect);
    replica_pack_id(&payload, &control->promised);
    control_send(&copy->source, CONTROL_PULL, &payload, false, update);
    copy->next_ms = control->now_ms + control->options.copy_ms;
    gossip_update_wake(update, copy->next_ms);
}

static void begin_pull(struct gossip_control *control, const struct replica_id *source, bool whole,
                       struct gossip_update *update)
{
    struct control_copy *copy = &control->copy;
    control_copy_drop(copy);
    copy->source = *source;
    copy->whole = whole;
    copy->cursor = whole ? 0 : control->registry.index;
    copy->began_ms = control->now_ms;
    copy->news = false;
    pull(control, update);
}

/* A member of the log, one that seems alive if there is any. */
static bool pick_source(struct gossip_control *control, struct replica_id *ret_store)
{
    struct replica_id stores[GOSSIP_CONTROL_MEMBERS_MAX];
    size_t n = 0;
    for (int alive = 1; alive >= 0 && n == 0; alive--)
        for (size_t i = 0; i < control->members_n; i++)
            if ((int)i != control->self_index &&
                (alive == 0 || gossip_member_is_alive(control->member, &control->members[i])))
                stores[n++] = control->members[i];
    if (n > 0)
        *ret_store = stores[gossip_random_below(&control->random, n)];
    return n > 0;
}

/* Between pulls: so that the members of the log are not asked more often the larger the cluster is. */
static uint64_t interval(const struct gossip_control *control)
{
    uint64_t share = gossip_member_count(control->member) / (control->members_n * COPIES_SERVED) + 1;
    return control->options.copy_ms * share;
}

/* The next pull that a rumour may bring about. */
static uint64_t soon(const struct gossip_control *control)
{
    uint64_t at_ms = control->copy.began_ms + control->options.copy_ms / NEWS_SHARE;
    return at_ms > control->now_ms ? at_ms : control->now_ms;
}

/* A pull was answered to its end. */
static void end_pull(struct gossip_control *control)
{
    struct control_copy *copy = &control->copy;
    control_copy_drop(copy);
    copy->next_ms = copy->news ? soon(control) : control->now_ms + interval(control);
}

void control_copy_timer(struct gossip_control *control, struct gossip_update *update)
{
    struct replica_id source;
    if (!control->visible || control_is_member(control))
        return;
    if (control->now_ms >= control->copy.next_ms) {
        control->copy.next_ms = control->now_ms + control->options.copy_ms;
        if (pick_source(control, &source))
            begin_pull(control, &source, false, update);
    }
    gossip_update_wake(update, control->copy.next_ms);
}

void control_copy_from(struct gossip_control *control, const struct replica_id *source,
                       struct gossip_update *update)
{
    if (control->visible && control_is_member(control))
        return;
    /* One that has brought something goes on: its end shows what is still missing. */
    if (control->copy.staged_n == 0 && !replica_id_equal(&control->copy.source, source))
        begin_pull(control, source, false, update);
}

/* Serving */

static int compare_index(const void *a, const void *b)
{
    uint64_t x = (*(const struct gossip_volume *const *)a)->index,
             y = (*(const struct gossip_volume *const *)b)->index;
    return (x > y) - (x < y);
}

/* Those changed after cursor, in order; *ret_list is the caller's. Errors: NOMEM. */
static int list_changed(const struct control_registry *registry, uint64_t cursor,
                        const struct gossip_volume ***ret_list, size_t *ret_n)
{
    const struct gossip_volume **list = calloc(registry->n + 1, sizeof list[0]);
    size_t n = 0;
    if (list == NULL)
        return REPLICA_E_NOMEM;
    for (size_t i = 0; i < registry->n; i++)
        if (registry->by_id[i]->index > cursor)
            list[n++] = registry->by_id[i];
    qsort(list, n, sizeof list[0], compare_index);
    *ret_list = list;
    *ret_n = n;
    return 0;
}

static int pack_changed(const struct control_registry *registry, uint64_t cursor,
                        struct replica_buffer *items, size_t *ret_n, uint64_t *ret_next)
{
    const struct gossip_volume **list;
    size_t n, taken = 0;
    if (list_changed(registry, cursor, &list, &n) != 0)
        return REPLICA_E_NOMEM;
    while (taken < n && items->size < CONTROL_PIECE_MAX)
        control_volume_pack(items, list[taken++]);
    *ret_n = taken;
    *ret_next = taken == n ? registry->index : list[taken - 1]->index;
    free(list);
    return items->failed ? REPLICA_E_NOMEM : 0;
}

/* Who is no member of the log names those that are, for one who begins, and no volumes. */
static void serve(struct gossip_control *control, const struct replica_id *to, uint64_t cursor,
                  struct gossip_update *update)
{
    struct replica_buffer payload, items;
    bool member = control_is_member(control);
    uint64_t next = cursor;
    size_t n = 0;
    replica_buffer_init(&items);
    if (member && cursor < control->registry.index &&
        pack_changed(&control->registry, cursor, &items, &n, &next) != 0)
        update->failed = true;
    control_begin_message(control, &payload, STATE_FIELDS);
    replica_pack_array(&payload, control->members_n);
    for (size_t i = 0; i < control->members_n; i++)
        replica_pack_id(&payload, &control->members[i]);
    replica_pack_id(&payload, member ? &control->leader : &control->hint);
    replica_pack_uint(&payload, member ? control->term : control->hint_term);
    replica_pack_uint(&payload, member ? control->registry.index : cursor);
    replica_pack_uint(&payload, member ? control->registry.n : 0);
    replica_pack_uint(&payload, cursor);
    replica_pack_uint(&payload, next);
    replica_pack_array(&payload, n);
    replica_buffer_append(&payload, items.data, items.size);
    replica_buffer_close(&items);
    control_send(to, CONTROL_STATE, &payload, true, update);
}

void control_copy_serve(struct gossip_control *control, const struct replica_id *to,
                        struct gossip_update *update)
{
    serve(control, to, 0, update);
}

static int on_pull(struct gossip_control *control, const struct gossip_message *message,
                   struct gossip_update *update)
{
    struct control_input input;
    struct replica_id promised;
    uint64_t cursor, expect;
    if (control_open(message, 3, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &cursor);
    replica_pack_read_uint(&input.reader, GOSSIP_CONTROL_MEMBERS_MAX, &expect);
    replica_pack_read_id(&input.reader, &promised);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    if (!replica_id_is_zero(&input.cluster) && !replica_id_equal(&input.cluster, &control->cluster))
        return REPLICA_E_DENIED;
    if (control->visible && (control_is_member(control) || replica_id_is_zero(&input.cluster)))
        serve(control, &message->from->store, cursor, update);
    else if (control->visible)
        return REPLICA_E_DENIED; /* copies are not taken from copies */
    else if (expect > 0)
        control_begin_heard(control, message, (uint32_t)expect, &promised, true, update);
    return 0;
}

/* Taking over */

struct state {
    struct replica_id members[GOSSIP_CONTROL_MEMBERS_MAX];
    size_t members_n;
    struct replica_id leader;
    uint64_t term, index, count, cursor, next;
    size_t volumes_n;
};

/* ret_volumes: a reader at the first volume. Reads through all of it first. */
static int read_state(const struct gossip_message *message, struct control_input *ret_input,
                      struct state *ret_state, struct replica_pack_reader *ret_volumes)
{
    struct replica_pack_reader *reader = &ret_input->reader;
    struct state state = {.term = 0};
    uint64_t last;
    if (control_open(message, STATE_FIELDS, ret_input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_array(reader, GOSSIP_CONTROL_MEMBERS_MAX, &state.members_n);
    for (size_t i = 0; i < state.members_n; i++) {
        replica_pack_read_id(reader, &state.members[i]);
        for (size_t j = 0; j < i; j++)
            if (replica_id_equal(&state.members[i], &state.members[j]))
                return REPLICA_E_MALFORMED;
    }
    replica_pack_read_id(reader, &state.leader);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &state.term);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &state.index);
    replica_pack_read_uint(reader, GOSSIP_VOLUMES_MAX, &state.count);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &state.cursor);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &state.next);
    replica_pack_read_array(reader, GOSSIP_VOLUMES_MAX, &state.volumes_n);
    *ret_volumes = *reader;
    last = state.cursor;
    for (size_t i = 0; i < state.volumes_n; i++) {
        struct gossip_volume volume;
        if (control_volume_read(reader, &volume) != 0 || volume.index <= last || volume.index > state.next)
            return REPLICA_E_MALFORMED;
        last = volume.index;
    }
    if (control_close(ret_input) != 0 || replica_id_is_zero(&ret_input->cluster) ||
        state.members_n % 2 == 0 ||
        (state.index > state.cursor && (state.next > state.index || state.next <= state.cursor)))
        return REPLICA_E_MALFORMED;
    *ret_state = state;
    return 0;
}

static int stage(struct control_copy *copy, const struct state *state, struct replica_pack_reader *volumes)
{
    for (size_t i = 0; i < state->volumes_n; i++) {
        struct gossip_volume volume;
        size_t at = 0;
        if (control_volume_read(volumes, &volume) != 0)
            return REPLICA_E_MALFORMED;
        while (at < copy->staged_n && !replica_id_equal(&copy->staged[at].id, &volume.id))
            at++;
        if (at == GOSSIP_VOLUMES_MAX)
            return REPLICA_E_MALFORMED;
        if (at == copy->staged_capacity) {
            size_t capacity = at == 0 ? 16 : at * 2;
            struct gossip_volume *staged = reallocarray(copy->staged, capacity, sizeof staged[0]);
            if (staged == NULL)
                return REPLICA_E_NOMEM;
            copy->staged = staged;
            copy->staged_capacity = capacity;
        }
        copy->staged[at] = volume;
        copy->staged_n += at == copy->staged_n;
    }
    return 0;
}

static bool is_staged(const struct control_copy *copy, const struct replica_id *id)
{
    for (size_t i = 0; i < copy->staged_n; i++)
        if (replica_id_equal(&copy->staged[i].id, id))
            return true;
    return false;
}

/* How many volumes there will be. */
static size_t count_after(const struct gossip_control *control)
{
    size_t n = control->copy.whole ? 0 : control->registry.n;
    for (size_t i = 0; i < control->copy.staged_n; i++)
        n += control->copy.whole ||
             control_registry_find(&control->registry, &control->copy.staged[i].id) == NULL;
    return n;
}

static void take_over(struct gossip_control *control, uint64_t index, struct gossip_update *update)
{
    struct control_copy *copy = &control->copy;
    struct control_registry *registry = &control->registry;
    for (size_t i = copy->whole ? registry->n : 0; i > 0; i--) {
        struct replica_id id = registry->by_id[i - 1]->id;
        if (is_staged(copy, &id))
            continue;
        control_registry_erase_volume(&id, update);
        control_registry_remove(registry, &id);
    }
    for (size_t i = 0; i < copy->staged_n; i++) {
        const struct gossip_volume *known = control_registry_find(registry, &copy->staged[i].id);
        if (known != NULL && known->index == copy->staged[i].index)
            continue;
        if (control_registry_put(registry, &copy->staged[i]) != 0)
            update->failed = true;
        control_registry_write_volume(&copy->staged[i], update);
        gossip_update_note(update, GOSSIP_NOTE_VOLUME, &copy->staged[i].id, NULL, NULL);
    }
    registry->index = index;
    control_registry_write_state(registry, update);
    control_copy_news(control, update);
}

static void finish(struct gossip_control *control, const struct state *state, struct gossip_update *update)
{
    struct replica_id source = control->copy.source;
    if (count_after(control) == state->count) {
        take_over(control, state->index, update);
        end_pull(control);
    } else if (!control->copy.whole)
        begin_pull(control, &source, true, update);
    else
        end_pull(control); /* some expired while we pulled: again at the next interval */
}

static void follow_hint(struct gossip_control *control, const struct state *state)
{
    if (replica_id_is_zero(&state->leader) || state->term < control->hint_term ||
        control_member_index(control, &state->leader) < 0)
        return;
    control->hint_term = state->term;
    if (!replica_id_equal(&control->hint, &state->leader)) {
        control->hint = state->leader;
        control_request_hurry(control, &control->hint, control->hint_term);
    }
}

/* Whether a state comes from one of the members that it names, under a credential that may vote. */
static bool is_own_member(const struct gossip_message *message, const struct state *state)
{
    for (size_t i = 0; i < state->members_n && message->from->role == GOSSIP_ROLE_VOTER; i++)
        if (replica_id_equal(&state->members[i], &message->from->store))
            return true;
    return false;
}

static int on_state(struct gossip_control *control, const struct gossip_message *message,
                    struct gossip_update *update)
{
    struct control_copy *copy = &control->copy;
    struct replica_pack_reader volumes;
    struct control_input input;
    struct state state;
    int rv;
    if (read_state(message, &input, &state, &volumes) != 0)
        return REPLICA_E_MALFORMED;
    if (message->from->role == GOSSIP_ROLE_CLIENT)
        return REPLICA_E_DENIED;
    if (!control->visible && !is_own_member(message, &state)) {
        control_begin_hint(control, state.members, state.members_n);
        return 0;
    }
    if (!control->visible) {
        if (!control_begin_adopt(control, &message->from->store, &input.cluster, state.members,
                                 state.members_n, update))
            return REPLICA_E_DENIED;
        copy->source = message->from->store; /* asked by us or not, it is as good an answer as any */
        copy->cursor = 0;
    } else if (!replica_id_equal(&input.cluster, &control->cluster) || !control_from_member(control, message))
        return REPLICA_E_DENIED;
    if (control_is_member(control))
        return 0;
    follow_hint(control, &state);
    if (!replica_id_equal(&copy->source, &message->from->store) || state.cursor != copy->cursor)
        return 0;
    if (state.index <= control->registry.index ||
        state.index < copy->high) { /* not ahead of us, or another life of it */
        end_pull(control);
        return 0;
    }
    copy->high = state.index;
    rv = stage(copy, &state, &volumes);
    if (rv == REPLICA_E_NOMEM)
        update->failed = true;
    if (rv != 0) {
        control_copy_drop(copy);
        return rv;
    }
    copy->cursor = state.next;
    if (state.next < state.index)
        pull(control, update);
    else
        finish(control, &state, update);
    return 0;
}

/* News */

void control_copy_news(struct gossip_control *control, struct gossip_update *update)
{
    for (size_t i = 0; i < NEWS_FANOUT; i++) {
        const struct gossip_member_record *other = gossip_member_pick(control->member, &control->random);
        struct replica_buffer payload;
        if (other == NULL)
            return;
        if (control_member_index(control, &other->store) >= 0)
            continue;
        control_begin_message(control, &payload, 1);
        replica_pack_uint(&payload, control->registry.index);
        control_send(&other->store, CONTROL_NEWS, &payload, true, update);
    }
}

static int on_news(struct gossip_control *control, const struct gossip_message *message,
                   struct gossip_update *update)
{
    struct control_input input;
    uint64_t index;
    if (control_open(message, 1, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &index);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    if (control->visible && !replica_id_equal(&input.cluster, &control->cluster))
        return REPLICA_E_DENIED;
    if (!control->visible || (control_from_member(control, message) && index > control->registry.index))
        control_copy_from(control, &message->from->store, update);
    else if (index > control->registry.index && !control_is_member(control)) {
        control->copy.news = true;
        if (replica_id_is_zero(&control->copy.source) && soon(control) < control->copy.next_ms)
            control->copy.next_ms = soon(control);
    }
    return 0;
}

int control_copy_message(struct gossip_control *control, const struct gossip_message *message,
                         struct gossip_update *update)
{
    switch (message->type) {
    case CONTROL_PULL:
        return on_pull(control, message, update);
    case CONTROL_STATE:
        return on_state(control, message, update);
    default:
        return on_news(control, message, update);
    }
}
