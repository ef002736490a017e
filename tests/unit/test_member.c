/* Membership over a tiny virtual network: each test reads as a trace over virtual time. */
#include "gossip/member.h"
#include "member/member.h"
#include "replica/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NODES_MAX 64
#define DELAY_MS  5 /* of every message */

struct packet {
    uint64_t at_ms;
    size_t from, to;
    uint8_t type;
    uint8_t *payload;
    size_t size;
};

struct node {
    struct gossip_member *member;
    struct gossip_principal principal;
    uint64_t wake_ms;
    bool up;
    unsigned group; /* only nodes of one group hear each other */
    unsigned alive_notes, dead_notes;
};

struct net {
    struct node nodes[NODES_MAX];
    size_t n;
    uint64_t now_ms;
    struct packet *packets;
    size_t packets_n, packets_capacity;
    struct gossip_random random;
    unsigned loss_percent;
    uint64_t sent;
};

static struct replica_id store_id(size_t i)
{
    struct replica_id id = {{0}};
    id.bytes[0] = (uint8_t)(i * 37 + 1); /* not in the order of the nodes */
    id.bytes[15] = (uint8_t)(i + 1);
    return id;
}

static void address(size_t i, char text[GOSSIP_ENDPOINT_MAX + 1])
{
    snprintf(text, GOSSIP_ENDPOINT_MAX + 1, "tcp://10.0.0.%zu:7000", i);
}

static struct gossip_member_record record_of(size_t i, uint64_t generation)
{
    struct gossip_member_record record;
    memset(&record, 0, sizeof record);
    record.store = store_id(i);
    record.generation = generation;
    record.roles = GOSSIP_MEMBER_VOTE;
    record.capacity_free = 1000;
    snprintf(record.name, sizeof record.name, "node%zu", i);
    address(i, record.endpoint);
    return record;
}

static void net_init(struct net *net, uint64_t seed)
{
    memset(net, 0, sizeof *net);
    gossip_random_init(&net->random, seed, 99);
}

/* Node i as `record` says it, knowing only the addresses given. */
static void boot_as(struct net *net, size_t i, const struct gossip_member_record *record,
                    const char *const *join, size_t join_n)
{
    struct node *node = &net->nodes[i];
    struct gossip_member_options options;
    gossip_member_options_default(&options);
    memset(node, 0, sizeof *node);
    node->principal.store = record->store;
    node->principal.role = GOSSIP_ROLE_VOTER;
    node->principal.every_volume = true;
    node->up = true;
    node->wake_ms = net->now_ms;
    assert_int_equal(
        gossip_member_new(&options, record, join, join_n, 1000 + i + record->generation, &node->member), 0);
    if (i >= net->n)
        net->n = i + 1;
}

static void take(struct net *net, size_t i, struct gossip_update *update)
{
    struct node *node = &net->nodes[i];
    for (size_t s = 0; s < update->sends_n; s++) {
        const struct gossip_send *send = &update->sends[s];
        struct packet packet = {
            .at_ms = net->now_ms + DELAY_MS, .from = i, .to = NODES_MAX, .type = send->type};
        assert_int_equal(send->room, GOSSIP_ROOM_MEMBER);
        for (size_t j = 0; j < net->n; j++) {
            const struct gossip_member_record *known = gossip_member_find(node->member, &send->to);
            const char *endpoint = replica_id_is_zero(&send->to) ? send->endpoint
                                   : known == NULL               ? ""
                                                                 : known->endpoint;
            const struct gossip_member_record *self;
            if (!net->nodes[j].up)
                continue;
            self = gossip_member_self(net->nodes[j].member);
            /* What is meant for a store reaches nobody else at its address. */
            if (strcmp(self->endpoint, endpoint) == 0 &&
                (replica_id_is_zero(&send->to) || replica_id_equal(&send->to, &self->store)))
                packet.to = j;
        }
        net->sent++;
        if (packet.to == NODES_MAX || gossip_random_below(&net->random, 100) < net->loss_percent)
            continue;
        packet.payload = malloc(send->size);
        packet.size = send->size;
        memcpy(packet.payload, update->bytes.data + send->offset, send->size);
        if (net->packets_n == net->packets_capacity) {
            net->packets_capacity = net->packets_capacity * 2 + 64;
            net->packets = realloc(net->packets, net->packets_capacity * sizeof packet);
            assert_non_null(net->packets);
        }
        net->packets[net->packets_n++] = packet;
    }
    for (size_t k = 0; k < update->notes_n; k++) {
        node->alive_notes += update->notes[k].kind == GOSSIP_NOTE_MEMBER_ALIVE;
        node->dead_notes += update->notes[k].kind == GOSSIP_NOTE_MEMBER_DEAD;
    }
    if (update->wake_ms < node->wake_ms)
        node->wake_ms = update->wake_ms;
}

static int step(struct net *net, size_t i, struct gossip_member_event *event)
{
    struct gossip_update update;
    int rv;
    gossip_update_init(&update);
    event->time.now_ms = net->now_ms;
    rv = gossip_member_step(net->nodes[i].member, event, &update);
    assert_false(update.failed);
    take(net, i, &update);
    gossip_update_close(&update);
    return rv;
}

static void boot(struct net *net, size_t i, uint64_t generation, size_t join)
{
    struct gossip_member_record record = record_of(i, generation);
    struct gossip_member_event event = {.kind = GOSSIP_MEMBER_EVENT_START};
    char text[GOSSIP_ENDPOINT_MAX + 1];
    const char *endpoint = text;
    address(join, text);
    boot_as(net, i, &record, &endpoint, 1);
    assert_int_equal(step(net, i, &event), 0);
}

static void kill_node(struct net *net, size_t i)
{
    net->nodes[i].up = false;
    gossip_member_destroy(&net->nodes[i].member);
}

static void deliver(struct net *net, size_t at)
{
    struct packet packet = net->packets[at];
    struct gossip_member_event event = {
        .kind = GOSSIP_MEMBER_EVENT_MESSAGE,
        .message = {.type = packet.type, .payload = packet.payload, .size = packet.size}};
    net->packets[at] = net->packets[--net->packets_n];
    event.message.from = &net->nodes[packet.from].principal;
    if (net->nodes[packet.to].up && net->nodes[packet.from].group == net->nodes[packet.to].group)
        assert_int_equal(step(net, packet.to, &event), 0);
    free(packet.payload);
}

static void run_until(struct net *net, uint64_t until_ms)
{
    for (;;) {
        uint64_t next = UINT64_MAX;
        size_t packet = SIZE_MAX, timer = SIZE_MAX;
        for (size_t i = 0; i < net->packets_n; i++)
            if (net->packets[i].at_ms < next) {
                next = net->packets[i].at_ms;
                packet = i;
            }
        for (size_t i = 0; i < net->n; i++)
            if (net->nodes[i].up && net->nodes[i].wake_ms < next) {
                next = net->nodes[i].wake_ms;
                packet = SIZE_MAX;
                timer = i;
            }
        if (next > until_ms)
            break;
        if (next > net->now_ms)
            net->now_ms = next;
        if (packet != SIZE_MAX) {
            deliver(net, packet);
        } else {
            struct gossip_member_event event = {.kind = GOSSIP_MEMBER_EVENT_TIMER};
            net->nodes[timer].wake_ms = UINT64_MAX;
            assert_int_equal(step(net, timer, &event), 0);
        }
    }
    net->now_ms = until_ms;
}

static void run_for(struct net *net, uint64_t ms)
{
    run_until(net, net->now_ms + ms);
}

static void net_close(struct net *net)
{
    for (size_t i = 0; i < net->n; i++)
        gossip_member_destroy(&net->nodes[i].member);
    for (size_t i = 0; i < net->packets_n; i++)
        free(net->packets[i].payload);
    free(net->packets);
}

static int state_at(const struct net *net, size_t viewer, size_t of)
{
    struct replica_id id = store_id(of);
    const struct gossip_member_record *record = gossip_member_find(net->nodes[viewer].member, &id);
    return record == NULL ? -1 : (int)record->state;
}

static void three_nodes(struct net *net, uint64_t seed)
{
    net_init(net, seed);
    boot(net, 0, 1, 1);
    boot(net, 1, 1, 0);
    boot(net, 2, 1, 0);
    run_for(net, 3000);
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++)
            assert_int_equal(state_at(net, i, j), GOSSIP_MEMBER_ALIVE);
}

/* A dead node of three is known to both others within ten seconds, and not before its suspicion could have
 * been refuted. */
static void dead_is_noticed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct net net;
        three_nodes(&net, seed);
        kill_node(&net, 2);
        run_for(&net, 3900);
        assert_int_not_equal(state_at(&net, 0, 2), GOSSIP_MEMBER_DEAD);
        run_for(&net, 6100);
        assert_int_equal(state_at(&net, 0, 2), GOSSIP_MEMBER_DEAD);
        assert_int_equal(state_at(&net, 1, 2), GOSSIP_MEMBER_DEAD);
        assert_int_equal(net.nodes[0].dead_notes, 1);
        assert_int_equal(state_at(&net, 0, 1), GOSSIP_MEMBER_ALIVE);
        net_close(&net);
    }
}

/* It comes back with a higher generation and is taken back, even while its old self is still counted as
 * alive. */
static void returning_is_taken_back(void **state)
{
    struct net net;
    (void)state;
    three_nodes(&net, 3);
    kill_node(&net, 2);
    run_for(&net, 15000);
    boot(&net, 2, 2, 0);
    run_for(&net, 3000);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(state_at(&net, i, 2), GOSSIP_MEMBER_ALIVE);
    assert_int_equal(state_at(&net, 2, 1), GOSSIP_MEMBER_ALIVE);
    assert_int_equal(net.nodes[1].dead_notes, 1);
    kill_node(&net, 2);
    boot(&net, 2, 3, 0);
    run_for(&net, 2000);
    assert_int_equal(state_at(&net, 1, 2), GOSSIP_MEMBER_ALIVE);
    assert_int_equal(net.nodes[1].dead_notes, 2); /* of the life that ended unnoticed */
    net_close(&net);
}

/* A partition heals although each side had declared the other dead. */
static void partition_heals(void **state)
{
    struct net net;
    (void)state;
    three_nodes(&net, 5);
    net.nodes[2].group = 1;
    run_for(&net, 60000);
    assert_int_equal(state_at(&net, 0, 2), GOSSIP_MEMBER_DEAD);
    assert_int_equal(state_at(&net, 2, 0), GOSSIP_MEMBER_DEAD);
    net.nodes[2].group = 0;
    run_for(&net, 5000);
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 3; j++)
            assert_int_equal(state_at(&net, i, j), GOSSIP_MEMBER_ALIVE);
    net_close(&net);
}

/* Lost packets cause suspicions, and every one is refuted in time. */
static void loss_alone_kills_nobody(void **state)
{
    struct net net;
    (void)state;
    net_init(&net, 11);
    for (size_t i = 0; i < 10; i++)
        boot(&net, i, 1, i == 0 ? 1 : 0);
    run_for(&net, 5000);
    net.loss_percent = 10;
    run_for(&net, 120000);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(net.nodes[i].dead_notes, 0);
    net_close(&net);
}

/* A false rumour of one's death is refuted by a higher incarnation. */
static void rumour_is_refuted(void **state)
{
    struct net net;
    struct replica_id id = store_id(2);
    uint64_t incarnation;
    (void)state;
    three_nodes(&net, 7);
    incarnation = gossip_member_self(net.nodes[2].member)->incarnation;
    {
        struct gossip_update update;
        gossip_update_init(&update);
        member_set_state(net.nodes[0].member, member_find(net.nodes[0].member, &id), GOSSIP_MEMBER_DEAD,
                         net.now_ms, &update);
        gossip_update_close(&update);
    }
    assert_int_equal(state_at(&net, 0, 2), GOSSIP_MEMBER_DEAD);
    run_for(&net, 5000);
    assert_int_equal(state_at(&net, 0, 2), GOSSIP_MEMBER_ALIVE);
    assert_int_equal(state_at(&net, 1, 2), GOSSIP_MEMBER_ALIVE);
    assert_true(gossip_member_self(net.nodes[2].member)->incarnation > incarnation);
    net_close(&net);
}

/* Another store takes over a dead one's address: the new one is alive, the former one stays dead. */
static void address_is_recycled(void **state)
{
    struct net net;
    struct gossip_member_record record = record_of(3, 1);
    struct gossip_member_event start = {.kind = GOSSIP_MEMBER_EVENT_START};
    char join[GOSSIP_ENDPOINT_MAX + 1];
    const char *endpoint = join;
    (void)state;
    three_nodes(&net, 9);
    kill_node(&net, 2);
    address(2, record.endpoint);
    address(0, join);
    boot_as(&net, 3, &record, &endpoint, 1);
    assert_int_equal(step(&net, 3, &start), 0);
    run_for(&net, 12000);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(state_at(&net, i, 2), GOSSIP_MEMBER_DEAD);
        assert_int_equal(state_at(&net, i, 3), GOSSIP_MEMBER_ALIVE);
    }
    net_close(&net);
}

/* Fifty nodes that know one address come to know each other, at a bounded cost. */
static void fifty_join_through_one(void **state)
{
    struct net net;
    uint64_t before;
    (void)state;
    net_init(&net, 13);
    net.loss_percent = 5;
    for (size_t i = 0; i < 50; i++)
        boot(&net, i, 1, i == 0 ? 1 : 0);
    run_for(&net, 10000);
    for (size_t i = 0; i < 50; i++)
        for (size_t j = 0; j < 50; j++) {
            struct replica_id id = store_id(j);
            assert_true(gossip_member_is_alive(net.nodes[i].member, &id)); /* some may just be suspected */
        }
    net.loss_percent = 0;
    run_for(&net, 60000);
    before = net.sent;
    run_for(&net, 60000);
    /* About two messages per member and period, and a little for exchanges of everything. */
    assert_true(net.sent - before < 50 * 60 * 22 / 10);
    net_close(&net);
}

/* A node that leaves says so: it is not mistaken for dead, and one that is asked while it still ends does not seem to be back. */
static void leaving_is_told(void **state)
{
    struct net net;
    struct gossip_member_event leave = {.kind = GOSSIP_MEMBER_EVENT_LEAVE};
    (void)state;
    three_nodes(&net, 17);
    assert_int_equal(step(&net, 1, &leave), 0);
    run_for(&net, 100);
    assert_int_equal(state_at(&net, 0, 1), GOSSIP_MEMBER_LEFT);
    assert_int_equal(state_at(&net, 2, 1), GOSSIP_MEMBER_LEFT);
    run_for(&net, 5000);
    assert_int_equal(state_at(&net, 0, 1), GOSSIP_MEMBER_LEFT);
    kill_node(&net, 1);
    run_for(&net, 20000);
    assert_int_equal(state_at(&net, 0, 1), GOSSIP_MEMBER_LEFT);
    assert_int_equal(net.nodes[0].dead_notes, 1);
    boot(&net, 1, 2, 0);
    run_for(&net, 3000);
    assert_int_equal(state_at(&net, 2, 1), GOSSIP_MEMBER_ALIVE);
    net_close(&net);
}

/* The first node of a cluster was given no address to join at; started again it is found by the others. */
static void one_that_left_and_knows_nobody_is_found(void **state)
{
    struct net net;
    struct gossip_member_event leave = {.kind = GOSSIP_MEMBER_EVENT_LEAVE};
    struct gossip_member_record again = record_of(0, 2 /* generation */);
    (void)state;
    three_nodes(&net, 19);
    assert_int_equal(step(&net, 0, &leave), 0);
    run_for(&net, 100);
    assert_int_equal(state_at(&net, 1, 0), GOSSIP_MEMBER_LEFT);
    kill_node(&net, 0);
    run_for(&net, 20000);
    boot_as(&net, 0, &again, NULL, 0);
    assert_int_equal(step(&net, 0, &(struct gossip_member_event){.kind = GOSSIP_MEMBER_EVENT_START}), 0);
    run_for(&net, 3000);
    assert_int_equal(state_at(&net, 1, 0), GOSSIP_MEMBER_ALIVE);
    assert_int_equal(state_at(&net, 2, 0), GOSSIP_MEMBER_ALIVE);
    assert_int_equal(gossip_member_count(net.nodes[0].member), 3);
    net_close(&net);
}

/* Everything a peer can learn of a member, to see that nothing changed. */
static void fingerprint(const struct net *net, size_t viewer, struct replica_buffer *out)
{
    const struct gossip_member *member = net->nodes[viewer].member;
    replica_buffer_clear(out);
    for (size_t i = 0; i < gossip_member_count(member); i++)
        replica_buffer_append(out, gossip_member_at(member, i), sizeof(struct gossip_member_record));
}

static void pack_claim(struct replica_buffer *out, const struct gossip_member_record *record, uint64_t items)
{
    replica_pack_array(out, (size_t)items);
    replica_pack_id(out, &record->store);
    replica_pack_uint(out, record->generation);
    replica_pack_uint(out, record->incarnation);
    replica_pack_uint(out, (uint64_t)record->state);
    replica_pack_uint(out, record->roles);
    replica_pack_uint(out, record->capacity_free);
    replica_pack_cstr(out, record->name);
    replica_pack_cstr(out, record->zone);
    replica_pack_cstr(out, record->endpoint);
    replica_pack_cstr(out, record->version);
    for (uint64_t i = 10; i < items; i++)
        replica_pack_cstr(out, "of a newer version");
}

static void pack_message(struct replica_buffer *out, const struct gossip_member_record *self,
                         const struct gossip_member_record *about)
{
    replica_buffer_clear(out);
    replica_pack_array(out, 5);
    pack_claim(out, self, 10);
    replica_pack_uint(out, 1);
    replica_pack_id(out, &self->store);
    replica_pack_bool(out, false);
    replica_pack_array(out, about == NULL ? 0 : 1);
    if (about != NULL)
        pack_claim(out, about, 11);
}

static int receive_from(struct net *net, size_t to, const struct gossip_principal *from, uint8_t type,
                        const struct replica_buffer *payload, size_t size)
{
    struct gossip_member_event event = {
        .kind = GOSSIP_MEMBER_EVENT_MESSAGE,
        .message = {.from = from, .type = type, .payload = payload->data, .size = size}};
    return step(net, to, &event);
}

/* Malformed and untrue messages change nothing. */
static void bad_messages_change_nothing(void **state)
{
    struct net net;
    struct replica_buffer before, after, payload;
    struct gossip_member_record good, other, bad;
    struct gossip_principal from, client;
    (void)state;
    three_nodes(&net, 19);
    replica_buffer_init(&before);
    replica_buffer_init(&after);
    replica_buffer_init(&payload);
    from = net.nodes[1].principal;
    client = from;
    client.role = GOSSIP_ROLE_CLIENT;
    good = *gossip_member_self(net.nodes[1].member);
    good.incarnation += 5;
    other = *gossip_member_self(net.nodes[2].member);
    other.incarnation += 5;
    fingerprint(&net, 0, &before);

    pack_message(&payload, &good, &other);
    for (size_t cut = 0; cut < payload.size; cut++)
        assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, cut), REPLICA_E_MALFORMED);
    assert_int_equal(receive_from(&net, 0, &from, 0, &payload, payload.size), REPLICA_E_MALFORMED);
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PAGE + 1, &payload, payload.size),
                     REPLICA_E_MALFORMED);
    assert_int_equal(receive_from(&net, 0, &client, MEMBER_PING, &payload, payload.size), REPLICA_E_DENIED);
    pack_message(&payload, &other, NULL); /* says to be node 2 over node 1's link */
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), REPLICA_E_MALFORMED);
    bad = good;
    bad.state = GOSSIP_MEMBER_DEAD; /* nobody says of himself that he is dead */
    pack_message(&payload, &bad, NULL);
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), REPLICA_E_MALFORMED);
    bad = other;
    bad.incarnation = UINT64_MAX;
    pack_message(&payload, &good, &bad);
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), REPLICA_E_MALFORMED);
    bad = other;
    strcpy(bad.endpoint, "ipc:///etc/passwd");
    pack_message(&payload, &good, &bad);
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), REPLICA_E_MALFORMED);
    bad = other;
    strcpy(bad.name, "\x1b[2J");
    pack_message(&payload, &good, &bad);
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), REPLICA_E_MALFORMED);
    fingerprint(&net, 0, &after);
    assert_int_equal(before.size, after.size);
    assert_memory_equal(before.data, after.data, before.size);

    pack_message(&payload, &good, &other); /* and the good one is taken */
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), 0);
    assert_int_equal(gossip_member_find(net.nodes[0].member, &good.store)->incarnation, good.incarnation);
    assert_int_equal(gossip_member_find(net.nodes[0].member, &other.store)->incarnation, other.incarnation);
    replica_buffer_close(&before);
    replica_buffer_close(&after);
    replica_buffer_close(&payload);
    net_close(&net);
}

/* Only a voter's credential makes a candidate for voting; the death of somebody unknown is no news. */
static void caches_vouch_for_nobody(void **state)
{
    struct net net;
    struct replica_buffer payload;
    struct gossip_member_record cache = record_of(5, 1), friend = record_of(6, 1), gone = record_of(7, 1);
    struct gossip_principal from = {.store = cache.store, .role = GOSSIP_ROLE_CACHE};
    (void)state;
    three_nodes(&net, 23);
    replica_buffer_init(&payload);
    pack_message(&payload, &cache, &friend);
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), 0);
    assert_int_equal(gossip_member_find(net.nodes[0].member, &cache.store)->roles, 0);
    assert_int_equal(gossip_member_find(net.nodes[0].member, &friend.store)->roles, 0);
    gone.state = GOSSIP_MEMBER_DEAD;
    pack_message(&payload, &cache, &gone);
    assert_int_equal(receive_from(&net, 0, &from, MEMBER_PING, &payload, payload.size), 0);
    assert_null(gossip_member_find(net.nodes[0].member, &gone.store));
    replica_buffer_close(&payload);
    net_close(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dead_is_noticed),
        cmocka_unit_test(returning_is_taken_back),
        cmocka_unit_test(partition_heals),
        cmocka_unit_test(loss_alone_kills_nobody),
        cmocka_unit_test(rumour_is_refuted),
        cmocka_unit_test(address_is_recycled),
        cmocka_unit_test(fifty_join_through_one),
        cmocka_unit_test(leaving_is_told),
        cmocka_unit_test(one_that_left_and_knows_nobody_is_found),
        cmocka_unit_test(bad_messages_change_nothing),
        cmocka_unit_test(caches_vouch_for_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
