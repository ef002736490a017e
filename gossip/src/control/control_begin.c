/* How a cluster begins, once.
 *
 * ALONE founds it here, and so does `cluster init` (control_init.c). With --expect N, N fresh nodes tell each other that they wait; when exactly N
 * are heard, the lowest store promises itself, then asks the others; each promises one founder durably, for
 * good; with all N promises the founder draws the cluster's id and writes it with the N as members, in one
 * batch. Whoever is asked and has state answers with it, and that means: join. The promise is what makes it
 * one cluster: a store promises once, a founder needs N, and a founder founds once. It names the founder, not
 * the N, so that one of the others may still be wiped and come back.
 *
 * Key: 'R' 'b' → cluster (zero: not begun), members, and the store that was promised to (zero: none). */
#include "control/control.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define BEGIN_FIELDS  3
#define BEGIN_SHARE   4  /* a node that waits asks so many times as often as one that copies */
#define BEGIN_FANOUT  16 /* members asked at a time, in turn: the N may be hidden among others */
#define HEARD_PERIODS 12 /* without a word for so many periods a fresh node is gone */

uint64_t control_begin_period(const struct gossip_control *control)
{
    uint64_t ms = control->options.copy_ms / BEGIN_SHARE;
    return ms > 0 ? ms : 1;
}

static bool expects(const struct gossip_control *control)
{
    return control->options.begin == GOSSIP_BEGIN_EXPECT;
}

/* No cluster, not even one about to become durable. */
static bool is_fresh(const struct gossip_control *control)
{
    return replica_id_is_zero(&control->cluster);
}

/* On disk */

static void write_identity(struct gossip_control *control, struct gossip_update *update)
{
    struct replica_buffer value;
    replica_buffer_init(&value);
    replica_pack_array(&value, BEGIN_FIELDS);
    replica_pack_id(&value, &control->cluster);
    replica_pack_array(&value, control->members_n);
    for (size_t i = 0; i < control->members_n; i++)
        replica_pack_id(&value, &control->members[i]);
    replica_pack_id(&value, &control->promised);
    if (value.failed)
        update->failed = true;
    replica_kv_batch_put(&update->log, "Rb", 2, value.data, value.size);
    replica_buffer_close(&value);
}

static int decode_identity(struct gossip_control *control, const struct replica_buffer *value)
{
    struct replica_pack_reader reader;
    size_t n;
    replica_pack_reader_init(&reader, value->data, value->size);
    replica_pack_read_array(&reader, BEGIN_FIELDS, &n);
    replica_pack_read_id(&reader, &control->cluster);
    replica_pack_read_array(&reader, GOSSIP_CONTROL_MEMBERS_MAX, &control->members_n);
    for (size_t i = 0; i < control->members_n; i++)
        replica_pack_read_id(&reader, &control->members[i]);
    replica_pack_read_id(&reader, &control->promised);
    if (replica_pack_reader_finish(&reader) != 0 || n != BEGIN_FIELDS)
        return REPLICA_E_CORRUPT;
    return (control->members_n == 0) == replica_id_is_zero(&control->cluster) ? 0 : REPLICA_E_CORRUPT;
}

int control_begin_load(struct gossip_control *control)
{
    struct replica_buffer value;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(control->kv, "Rb", 2, &value);
    if (rv == 0)
        rv = decode_identity(control, &value);
    replica_buffer_close(&value);
    control->visible = !replica_id_is_zero(&control->cluster);
    control->self_index = control_member_index(control, &control->self);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

/* Becoming part of a cluster */

static void begin(struct gossip_control *control, struct gossip_update *update)
{
    control->visible = true;
    gossip_update_note(update, GOSSIP_NOTE_CLUSTER, NULL, NULL, NULL);
    control->copy.next_ms = control->now_ms;
    if (control->self_index >= 0)
        control_raft_start(control, update);
    control_request_hurry(control, NULL, 0);
}

static void set_members(struct gossip_control *control, const struct replica_id *members, size_t n)
{
    memcpy(control->members, members, n * sizeof members[0]);
    control->members_n = n;
    control->self_index = control_member_index(control, &control->self);
}

void control_begin_found(struct gossip_control *control, const struct replica_id *members, size_t n,
                         struct gossip_update *update)
{
    assert(is_fresh(control));
    gossip_random_id(&control->random, &control->cluster);
    set_members(control, members, n);
    control->founding_batch = control->batch;
    write_identity(control, update);
}

/* After a promise only the founder's cluster will do, or one that the founder itself has joined instead. */
bool control_begin_adopt(struct gossip_control *control, const struct replica_id *from,
                         const struct replica_id *cluster, const struct replica_id *members, size_t members_n,
                         struct gossip_update *update)
{
    bool founders = replica_id_is_zero(&control->promised) ||
                    replica_id_equal(&control->promised, &control->self) ||
                    replica_id_equal(&control->promised, from);
    for (size_t i = 0; i < members_n; i++)
        founders = founders || replica_id_equal(&control->promised, &members[i]);
    if (!is_fresh(control) || !founders)
        return false;
    control->cluster = *cluster;
    set_members(control, members, members_n);
    write_identity(control, update);
    control_init_refuse(control, "this node has just joined a cluster that was there already", update);
    begin(control, update);
    return true;
}

void control_begin_start(struct gossip_control *control, struct gossip_update *update)
{
    if (control->visible) {
        begin(control, update);
        for (size_t i = 0; i < control->registry.n; i++)
            gossip_update_note(update, GOSSIP_NOTE_VOLUME, &control->registry.by_id[i]->id, NULL, NULL);
    } else if (control->options.begin == GOSSIP_BEGIN_ALONE && replica_id_is_zero(&control->promised))
        control_begin_found(control, &control->self, 1, update);
}

/* Waiting for the same beginning */

static struct control_fresh *fresh_of(struct gossip_control *control, const struct replica_id *store)
{
    struct control_fresh *oldest = &control->fresh[0];
    for (size_t i = 0; i < control->fresh_n; i++) {
        if (replica_id_equal(&control->fresh[i].store, store))
            return &control->fresh[i];
        if (control->fresh[i].heard_ms < oldest->heard_ms)
            oldest = &control->fresh[i];
    }
    if (control->fresh_n < CONTROL_FRESH_MAX)
        oldest = &control->fresh[control->fresh_n++];
    memset(oldest, 0, sizeof *oldest);
    oldest->store = *store;
    return oldest;
}

static bool is_near(const struct gossip_control *control, const struct control_fresh *fresh)
{
    return control->now_ms - fresh->heard_ms <= control_begin_period(control) * HEARD_PERIODS;
}

static void send_fresh(const struct gossip_control *control, const struct replica_id *to,
                       struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 2);
    replica_pack_uint(&payload, control->options.expect);
    replica_pack_id(&payload, &control->promised);
    control_send(to, CONTROL_FRESH, &payload, true, update);
}

void control_begin_heard(struct gossip_control *control, const struct gossip_message *message,
                         uint32_t expect, const struct replica_id *promised, bool answer,
                         struct gossip_update *update)
{
    struct control_fresh *fresh;
    if (!is_fresh(control) || !expects(control) || message->from->role != GOSSIP_ROLE_VOTER ||
        replica_id_equal(&message->from->store, &control->self))
        return;
    fresh = fresh_of(control, &message->from->store);
    fresh->heard_ms = control->now_ms;
    fresh->expect = expect;
    fresh->promised = *promised;
    if (answer)
        send_fresh(control, &message->from->store, update);
}

/* The nodes that wait for the same beginning, this one included; ret_stores may be NULL. */
static size_t near_stores(const struct gossip_control *control, struct replica_id *ret_stores)
{
    size_t n = 0;
    if (ret_stores != NULL)
        ret_stores[n] = control->self;
    n++;
    for (size_t i = 0; i < control->fresh_n; i++) {
        if (!is_near(control, &control->fresh[i]) || control->fresh[i].expect != control->options.expect)
            continue;
        if (ret_stores != NULL)
            ret_stores[n] = control->fresh[i].store;
        n++;
    }
    return n;
}

/* Whom to be founded by: who promised itself and so cannot go back; else the lowest. Zero: not all are here.
 */
static struct replica_id choose_founder(const struct gossip_control *control)
{
    struct replica_id stores[CONTROL_FRESH_MAX + 1], lowest = {{0}}, bound = {{0}};
    size_t n = near_stores(control, stores);
    for (size_t i = 0; i < control->fresh_n; i++) {
        const struct control_fresh *fresh = &control->fresh[i];
        if (is_near(control, fresh) && replica_id_equal(&fresh->promised, &fresh->store) &&
            (replica_id_is_zero(&bound) || replica_id_compare(&fresh->store, &bound) < 0))
            bound = fresh->store;
    }
    if (!replica_id_is_zero(&control->promised))
        return control->promised;
    if (!replica_id_is_zero(&bound))
        return bound;
    for (size_t i = 0; i < n && n == control->options.expect; i++)
        if (i == 0 || replica_id_compare(&stores[i], &lowest) < 0)
            lowest = stores[i];
    return lowest;
}

static void promise(struct gossip_control *control, const struct replica_id *founder,
                    struct gossip_update *update)
{
    if (replica_id_equal(&control->promised, founder))
        return;
    assert(replica_id_is_zero(&control->promised));
    control->promised = *founder;
    control->promised_batch = control->batch;
    write_identity(control, update);
}

static bool all_promised(struct gossip_control *control, struct replica_id *ret_members)
{
    size_t n = near_stores(control, ret_members);
    if (n != control->options.expect || control->promised_batch != 0)
        return false;
    for (size_t i = 1; i < n; i++)
        if (!fresh_of(control, &ret_members[i])->promised_us)
            return false;
    return true;
}

/* As the founder: asks for what is missing, and founds once nothing is. */
static void gather(struct gossip_control *control, bool ask, struct gossip_update *update)
{
    struct replica_id members[CONTROL_FRESH_MAX + 1];
    if (all_promised(control, members)) {
        control_begin_found(control, members, control->options.expect, update);
        return;
    }
    for (size_t i = 0; ask && i < control->fresh_n; i++) {
        struct replica_buffer payload;
        if (control->fresh[i].promised_us || !is_near(control, &control->fresh[i]) ||
            control->fresh[i].expect != control->options.expect)
            continue;
        control_begin_message(control, &payload, 1);
        replica_pack_uint(&payload, control->options.expect);
        control_send(&control->fresh[i].store, CONTROL_ASK, &payload, true, update);
    }
}

static void try_found(struct gossip_control *control, bool ask, struct gossip_update *update)
{
    struct replica_id founder;
    if (!is_fresh(control) || !expects(control) || control_init_has_granted(control))
        return;
    founder = choose_founder(control);
    if (!replica_id_equal(&founder, &control->self))
        return;
    promise(control, &control->self, update);
    gather(control, ask, update);
}

static int on_ask(struct gossip_control *control, const struct gossip_message *message,
                  struct gossip_update *update)
{
    struct replica_buffer payload;
    struct replica_id founder;
    struct control_input input;
    uint64_t expect;
    if (control_open(message, 1, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, GOSSIP_CONTROL_MEMBERS_MAX, &expect);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    if (expect == 0) {
        control_init_asked(control, &message->from->store, update);
        return 0;
    }
    if (!is_fresh(control) || !expects(control) || expect != control->options.expect ||
        control_init_has_granted(control))
        return 0;
    control_begin_heard(control, message, (uint32_t)expect, &message->from->store, false, update);
    founder = choose_founder(control);
    if (!replica_id_equal(&founder, &message->from->store))
        return 0;
    promise(control, &founder, update);
    control_begin_message(control, &payload, 0);
    control_send(&message->from->store, CONTROL_PROMISE, &payload, true, update);
    return 0;
}

static int on_fresh(struct gossip_control *control, const struct gossip_message *message,
                    struct gossip_update *update)
{
    struct control_input input;
    struct replica_id promised;
    uint64_t expect;
    if (control_open(message, 2, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, GOSSIP_CONTROL_MEMBERS_MAX, &expect);
    replica_pack_read_id(&input.reader, &promised);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    control_begin_heard(control, message, (uint32_t)expect, &promised, false, update);
    control_init_rival(control, (uint32_t)expect, &promised, update);
    try_found(control, false, update);
    return 0;
}

static int on_promise(struct gossip_control *control, const struct gossip_message *message,
                      struct gossip_update *update)
{
    struct control_input input;
    if (control_open(message, 0, &input) != 0 || control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    control_init_granted(control, &message->from->store);
    if (!is_fresh(control) || !expects(control) || message->from->role != GOSSIP_ROLE_VOTER ||
        !replica_id_equal(&control->promised, &control->self))
        return 0;
    control_begin_heard(control, message, control->options.expect, &control->self, false, update);
    fresh_of(control, &message->from->store)->promised_us = true;
    try_found(control, false, update);
    return 0;
}

int control_begin_message_in(struct gossip_control *control, const struct gossip_message *message,
                             struct gossip_update *update)
{
    /* Who may not vote founds nothing, but may well consent to another's init. */
    bool consents = control->init_token != 0 && message->type == CONTROL_PROMISE;
    if ((message->from->role != GOSSIP_ROLE_VOTER && !consents) ||
        replica_id_equal(&message->from->store, &control->self))
        return REPLICA_E_DENIED;
    switch (message->type) {
    case CONTROL_ASK:
        return on_ask(control, message, update);
    case CONTROL_PROMISE:
        return on_promise(control, message, update);
    default:
        return on_fresh(control, message, update);
    }
}

/* Asking around */

void control_begin_hint(struct gossip_control *control, const struct replica_id *members, size_t n)
{
    memcpy(control->hints, members, n * sizeof members[0]);
    control->hints_n = n;
}

/* False: it is this node, or does not seem to be there. */
static bool ask_one(const struct gossip_control *control, const struct replica_id *store,
                    struct gossip_update *update)
{
    struct replica_buffer payload;
    if (replica_id_equal(store, &control->self) || !gossip_member_is_alive(control->member, store))
        return false;
    control_begin_message(control, &payload, 3);
    replica_pack_uint(&payload, 0);
    replica_pack_uint(&payload, expects(control) ? control->options.expect : 0);
    replica_pack_id(&payload, &control->promised);
    control_send(store, CONTROL_PULL, &payload, true, update);
    return true;
}

static void ask_around(struct gossip_control *control, struct gossip_update *update)
{
    size_t count = gossip_member_count(control->member);
    size_t asked = expects(control) ? BEGIN_FANOUT : 1;
    for (size_t i = 0; i < control->hints_n; i++)
        (void)ask_one(control, &control->hints[i], update);
    for (size_t i = 0; i < count && asked > 0; i++) {
        const struct gossip_member_record *record =
            gossip_member_at(control->member, (control->ask_turn + i) % count);
        if (!ask_one(control, &record->store, update))
            continue;
        asked--;
        if (asked == 0)
            control->ask_turn = (control->ask_turn + i + 1) % count;
    }
}

void control_begin_timer(struct gossip_control *control, struct gossip_update *update)
{
    if (!is_fresh(control))
        return;
    if (control->now_ms >= control->begin_ms) {
        control->begin_ms = control->now_ms + control_begin_period(control);
        ask_around(control, update);
        try_found(control, true, update);
    }
    gossip_update_wake(update, control->begin_ms);
}

void control_begin_synced(struct gossip_control *control, struct gossip_update *update)
{
    if (control->promised_batch != 0 && control->promised_batch <= control->synced) {
        control->promised_batch = 0;
        try_found(control, true, update);
    }
    if (is_fresh(control) || control->visible || control->founding_batch > control->synced)
        return;
    begin(control, update);
    gossip_update_answer(update, control->init_token, 0, NULL, false);
    control->init_token = 0;
}

/* For people */

void control_begin_name(const struct gossip_control *control, const struct replica_id *store,
                        char ret_name[GOSSIP_NAME_MAX + 1])
{
    const struct gossip_member_record *record = gossip_member_find(control->member, store);
    char id[33];
    replica_id_format(store, id);
    snprintf(ret_name, GOSSIP_NAME_MAX + 1, "%s",
             record != NULL && record->name[0] != '\0' ? record->name : id);
}

static void describe_expect(struct gossip_control *control)
{
    char name[GOSSIP_NAME_MAX + 1];
    size_t n = near_stores(control, NULL);
    uint32_t expect = control->options.expect;
    for (size_t i = 0; i < control->fresh_n; i++)
        if (is_near(control, &control->fresh[i]) && control->fresh[i].expect != expect) {
            control_begin_name(control, &control->fresh[i].store, name);
            snprintf(control->waiting, sizeof control->waiting,
                     "waiting: %s was started with --expect %u, this node with --expect %u", name,
                     control->fresh[i].expect, expect);
            return;
        }
    if (n > expect)
        snprintf(control->waiting, sizeof control->waiting,
                 "waiting: %zu nodes wait to begin a cluster of %u; stop those that are too many", n, expect);
    else
        snprintf(control->waiting, sizeof control->waiting,
                 "waiting for all %u nodes of --expect: %zu are here", expect, n);
}

void control_begin_describe(struct gossip_control *control)
{
    char name[GOSSIP_NAME_MAX + 1];
    const char *text = "";
    bool others = gossip_member_count(control->member) > 1;
    if (control->visible)
        text = "";
    else if (!is_fresh(control) || control->init_token != 0)
        text = "beginning a cluster";
    else if (!replica_id_is_zero(&control->promised) &&
             !replica_id_equal(&control->promised, &control->self)) {
        control_begin_name(control, &control->promised, name);
        snprintf(control->waiting, sizeof control->waiting,
                 "waiting for %s to begin the cluster, which this node has promised to join; if that store "
                 "is gone for "
                 "good, start with an empty data directory",
                 name);
        return;
    } else if (expects(control)) {
        describe_expect(control);
        return;
    } else if (control->options.begin == GOSSIP_BEGIN_ALONE)
        text = "beginning a cluster of its own";
    else if (control->options.begin == GOSSIP_BEGIN_WAIT)
        text = "waiting for `remora cluster init` on this node, or for a restart with --join";
    else if (others)
        text = "waiting: the nodes that were found belong to no cluster yet; run `remora cluster init` on "
               "one of them";
    else
        text = "waiting for an answer from the addresses in --join (nodes with another key do not answer)";
    snprintf(control->waiting, sizeof control->waiting, "%s", text);
}
