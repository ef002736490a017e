/* The log under crashes, partitions and a bad network: one leader a term, matching logs, one history (checked after every
 * step, see control_support.h), nothing acknowledged lost, and liveness once the trouble ends. */
#include "control_support.h"

#include "replica/error.h"
#include "trials.h"

#define RANDOM_SEEDS 60

static void begin_founders(struct control_net *net, uint64_t seed, size_t n, unsigned caches,
                           uint32_t snapshot_entries)
{
    control_net_init(net, seed);
    control_net_expect(net, n);
    for (unsigned i = 0; i < caches; i++)
        control_net_add(net, GOSSIP_BEGIN_JOIN, 1);
    for (size_t i = 0; i < net->n; i++) {
        net->nodes[i].options.snapshot_entries = snapshot_entries;
        control_net_boot(net, i);
    }
    assert_true(control_net_run_until(net, control_net_agreed, 20000));
    control_net_run(net, 3000);
    assert_true(control_net_leader(net) < n);
}

static const struct gossip_control *control_of(const struct control_net *net, size_t i)
{
    return net->nodes[i].control;
}

static void heal(struct control_net *net)
{
    net->loss = 0;
    net->twice = 0;
    net->late = 0;
    for (size_t i = 0; i < net->n; i++) {
        net->nodes[i].group = 0;
        net->nodes[i].crash_at_write = 0;
        if (!net->nodes[i].up)
            control_net_boot(net, i);
    }
}

/* In peace a leader stays, and the log does not grow. */
static void peace(void **state)
{
    struct control_net *net = *state;
    struct gossip_control_status before, after;
    begin_founders(net, 1, 3, 1, 1024);
    gossip_control_status(control_of(net, 0), &before);
    control_net_run(net, 600000);
    gossip_control_status(control_of(net, 0), &after);
    assert_int_equal(before.term, after.term);
    assert_int_equal(before.commit_index, after.commit_index);
}

/* A leader that dies is replaced within a few election times; one that comes back deposes nobody. */
static void a_leader_dies(void **state)
{
    struct control_net *net = *state;
    for (uint64_t seed = 1; seed <= trials(20); seed++) {
        size_t old, leader;
        uint64_t term;
        begin_founders(net, seed, seed % 2 == 0 ? 3 : 5, 0, 1024);
        old = control_net_leader(net);
        control_net_crash(net, old);
        control_net_run(net, 5000);
        leader = control_net_leader(net);
        assert_true(leader < net->n && leader != old);
        term = control_of(net, leader)->term;
        control_net_boot(net, old);
        control_net_run(net, 5000);
        assert_int_equal(control_net_leader(net), leader);
        assert_int_equal(control_of(net, old)->term, term);
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* Pre-vote: a member that was cut off for long keeps its term and comes back in silence. */
static void one_that_was_cut_off_disturbs_nobody(void **state)
{
    struct control_net *net = *state;
    size_t leader, cut;
    uint64_t term;
    begin_founders(net, 3, 3, 0, 1024);
    leader = control_net_leader(net);
    cut = (leader + 1) % 3;
    term = control_of(net, leader)->term;
    net->nodes[cut].group = 1;
    control_net_run(net, 60000);
    assert_int_equal(control_of(net, cut)->term, term);
    net->nodes[cut].group = 0;
    control_net_run(net, 5000);
    assert_int_equal(control_net_leader(net), leader);
    assert_int_equal(control_of(net, leader)->term, term);
}

/* Check-quorum: a leader that hears no majority stops leading within two election times, and no sooner than one. */
static void a_leader_without_followers_steps_down(void **state)
{
    struct control_net *net = *state;
    size_t leader;
    begin_founders(net, 4, 3, 0, 1024);
    leader = control_net_leader(net);
    net->nodes[leader].group = 1;
    control_net_run(net, 800);
    assert_int_equal(control_of(net, leader)->role, CONTROL_LEADING);
    control_net_run(net, 1400);
    assert_int_not_equal(control_of(net, leader)->role, CONTROL_LEADING);
}

/* A vote is durable before it is given, also to oneself: a candidate whose disk hangs never leads. */
static void a_vote_waits_for_the_disk(void **state)
{
    struct control_net *net = *state;
    size_t leader;
    begin_founders(net, 5, 3, 0, 1024);
    leader = control_net_leader(net);
    for (size_t i = 0; i < 3; i++) {
        net->nodes[i].disk_hangs = true;
        net->nodes[i].sync_ms = UINT64_MAX;
    }
    control_net_crash(net, leader);
    control_net_run(net, 20000);
    for (size_t i = 0; i < 3; i++)
        if (i != leader) {
            assert_int_not_equal(control_of(net, i)->role, CONTROL_LEADING);
            net->nodes[i].disk_hangs = false;
        }
    control_net_run(net, 10000);
    assert_true(control_net_leader(net) < 3);
}

/* A follower acknowledges what is durable: with one of three away and another's disk hanging nothing is committed, and so nothing
 * that was answered goes when the one forgets it and the leader dies. */
static void an_ack_waits_for_the_disk(void **state)
{
    struct control_net *net = *state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct gossip_control_request request = {.kind = GOSSIP_CONTROL_CREATE, .name = "kept"};
        struct control_call *call;
        size_t leader, away, slow;
        begin_founders(net, seed, 3, 0, 1024);
        net->lose_all = true;
        leader = control_net_leader(net);
        away = (leader + 1) % 3;
        slow = (leader + 2) % 3;
        control_net_crash(net, away);
        net->nodes[slow].disk_hangs = true;
        net->nodes[slow].sync_ms = UINT64_MAX;
        call = control_net_call(net, leader, &request);
        control_net_run(net, 3000);
        assert_int_equal(control_log_last(&control_of(net, slow)->log),
                         control_log_last(&control_of(net, leader)->log)); /* it came there … */
        assert_int_equal(call->code, CONTROL_PENDING);                     /* … and that is not enough */
        assert_true(control_of(net, leader)->commit < control_log_last(&control_of(net, leader)->log));
        control_net_crash(net, slow);
        control_net_crash(net, leader);
        net->nodes[slow].disk_hangs = false;
        control_net_boot(net, slow);
        control_net_boot(net, away);
        control_net_run(net, 8000);
        assert_true(control_net_leader(net) < 3);
        control_net_boot(net, leader); /* every node's registry is compared at every index */
        assert_true(control_net_run_until(net, control_net_agreed, 20000));
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* Entries that only a minority had go when it comes back, and what was written meanwhile is there. */
static void a_minority_gives_way(void **state)
{
    struct control_net *net = *state;
    struct gossip_control_request lost = {.kind = GOSSIP_CONTROL_CREATE, .name = "lost"};
    struct control_call *call;
    size_t leader;
    begin_founders(net, 6, 5, 0, 1024);
    leader = control_net_leader(net);
    net->nodes[leader].group = 1;
    net->nodes[(leader + 1) % 5].group = 1;
    call = control_net_call(net, leader, &lost);
    control_net_run(net, 11000);
    assert_int_equal(call->code, REPLICA_E_INDETERMINATE);
    for (unsigned i = 0; i < 20; i++) {
        char name[8];
        snprintf(name, sizeof name, "k%u", i);
        assert_int_equal(control_net_ask(net, (leader + 2) % 5, GOSSIP_CONTROL_CREATE, name, NULL), 0);
    }
    assert_true(control_log_last(&control_of(net, leader)->log) > control_of(net, leader)->commit);
    heal(net);
    assert_true(control_net_run_until(net, control_net_agreed, 20000));
    assert_null(gossip_control_volume_by_name(control_of(net, leader), "lost"));
    assert_int_equal(gossip_control_volumes(control_of(net, leader)), 20);
}

/* A follower behind the beginning of the log gets the registry in pieces, also over a bad network and with crashes. */
static void snapshots(void **state)
{
    struct control_net *net = *state;
    for (uint64_t seed = 1; seed <= trials(12); seed++) {
        size_t leader, away;
        begin_founders(net, seed, 3, 0, 8);
        leader = control_net_leader(net);
        away = (leader + 1) % 3;
        control_net_crash(net, away);
        for (unsigned i = 0; i < 40; i++) {
            char name[16];
            snprintf(name, sizeof name, "v%u", i);
            assert_int_equal(control_net_ask(net, leader, GOSSIP_CONTROL_CREATE, name, NULL), 0);
            if (i % 3 == 0)
                assert_int_equal(control_net_ask(net, leader, GOSSIP_CONTROL_DELETE, name, NULL), 0);
        }
        assert_true(control_of(net, leader)->log.n <= 9);
        net->loss = seed % 2 == 0 ? 20 : 0;
        net->twice = 20;
        net->late = seed % 3 == 0 ? 30 : 0;
        net->nodes[away].crash_at_write = seed % 4 == 0 ? (unsigned)seed / 4 : 0;
        control_net_boot(net, away);
        control_net_run(net, 5000);
        heal(net);
        assert_true(control_net_run_until(net, control_net_agreed, 20000));
        assert_true(net->sent[CONTROL_SNAPSHOT] > 0);
        assert_int_equal(control_of(net, away)->registry.outcomes_n,
                         control_of(net, leader)->registry.outcomes_n);
        assert_memory_equal(control_of(net, away)->registry.outcomes,
                            control_of(net, leader)->registry.outcomes,
                            control_of(net, away)->registry.outcomes_n * sizeof(struct control_outcome));
        control_net_crash(net, (leader + 2) % 3); /* it is a full member again */
        assert_int_equal(control_net_ask(net, away, GOSSIP_CONTROL_CREATE, "last", NULL), 0);
        control_net_crash(net, away); /* and what it took is on its disk */
        control_net_boot(net, away);
        control_net_boot(net, (leader + 2) % 3);
        assert_true(control_net_run_until(net, control_net_agreed, 20000));
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* Many volumes: the snapshot takes several messages. */
static void a_snapshot_in_pieces(void **state)
{
    struct control_net *net = *state;
    size_t leader, away;
    begin_founders(net, 7, 3, 0, 8);
    leader = control_net_leader(net);
    away = (leader + 1) % 3;
    control_net_crash(net, away);
    for (unsigned round = 0; round < 24; round++) {
        struct gossip_control_request request = {.kind = GOSSIP_CONTROL_CREATE};
        char names[50][GOSSIP_VOLUME_NAME_MAX + 1];
        net->calls_n = 0;
        for (unsigned i = 0; i < 50; i++) {
            snprintf(names[i], sizeof names[i], "a-volume-with-quite-a-long-name-as-people-have-%u-%u", round,
                     i);
            request.name = names[i];
            control_net_call(net, leader, &request);
        }
        control_net_run(net, 200);
        for (unsigned i = 0; i < 50; i++)
            assert_int_equal(net->calls[i].code, 0);
    }
    net->late = 20;
    net->twice = 20;
    control_net_boot(net, away);
    assert_true(control_net_run_until(net, control_net_agreed, 20000));
    assert_true(net->sent[CONTROL_SNAPSHOT] >= 3);
    assert_int_equal(gossip_control_volumes(control_of(net, away)), 1200);
}

/* Whether some call of that name may have created it. */
static bool asked_otherwise(const struct control_net *net, const char *name)
{
    for (size_t i = 0; i < net->calls_n; i++)
        if (strcmp(net->calls[i].name, name) == 0 && net->calls[i].code != REPLICA_E_UNAVAILABLE)
            return true;
    return false;
}

/* An acknowledged creation is there in the end; an UNAVAILABLE one never; calls of one name agree. */
static void check_calls(struct control_net *net)
{
    for (size_t i = 0; i < net->calls_n; i++) {
        const struct control_call *call = &net->calls[i];
        const struct gossip_volume *volume = gossip_control_volume_by_name(control_of(net, 0), call->name);
        assert_int_not_equal(call->code, CONTROL_PENDING);
        if (call->code == 0) {
            assert_non_null(volume);
            assert_true(replica_id_equal(&volume->id, &call->id));
        } else if (call->code == REPLICA_E_UNAVAILABLE)
            assert_true(volume == NULL || asked_otherwise(net, call->name));
        else
            assert_true(call->code == CONTROL_DIED || call->code == REPLICA_E_INDETERMINATE);
    }
}

static void trouble(struct control_net *net)
{
    size_t victim = gossip_random_below(&net->random, net->n);
    switch (gossip_random_below(&net->random, 8)) {
    case 0:
        if (net->nodes[victim].up)
            control_net_crash(net, victim);
        break;
    case 1: /* at a write, before its messages are out */
        net->nodes[victim].crash_at_write =
            net->nodes[victim].writes + 1 + (unsigned)gossip_random_below(&net->random, 4);
        break;
    case 2:
        net->nodes[victim].group = 1;
        break;
    case 3:
        for (size_t i = 0; i < net->n; i++)
            net->nodes[i].group = (unsigned)gossip_random_below(&net->random, 2);
        break;
    case 4:
        for (size_t i = 0; i < net->n; i++)
            net->nodes[i].group = 0;
        break;
    case 5: /* everybody at once: nothing but disks is left */
        if (gossip_random_below(&net->random, 4) == 0)
            for (size_t i = 0; i < net->n; i++)
                if (net->nodes[i].up)
                    control_net_crash(net, i);
        break;
    default:
        for (size_t i = 0; i < net->n; i++)
            if (!net->nodes[i].up) {
                net->nodes[i].crash_at_write = 0;
                control_net_boot(net, i);
            }
    }
}

static void random_histories(void **state)
{
    struct control_net *net = *state;
    unsigned done = 0, elections = 0;
    uint64_t seeds = trials(RANDOM_SEEDS);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        size_t founders = seed % 3 == 0 ? 5 : 3;
        begin_founders(net, seed, founders, seed % 2 == 0 ? 2 : 0, seed % 4 < 2 ? 4 : 1024);
        for (size_t i = 0; i < net->n; i++)
            net->nodes[i].options.request_ms = 3000;
        net->loss = (unsigned)gossip_random_below(&net->random, 20);
        net->twice = (unsigned)gossip_random_below(&net->random, 30);
        net->late = (unsigned)gossip_random_below(&net->random, 40);
        for (unsigned i = 0; i < 120; i++) {
            struct gossip_control_request request = {.kind = GOSSIP_CONTROL_CREATE, .if_missing = true};
            size_t node = gossip_random_below(&net->random, net->n);
            char name[16];
            snprintf(name, sizeof name, "v%u", (unsigned)gossip_random_below(&net->random, 100));
            request.name = name;
            if (net->nodes[node].up)
                control_net_call(net, node, &request);
            if (gossip_random_below(&net->random, 3) == 0)
                trouble(net);
            control_net_run(net, gossip_random_below(&net->random, 300));
        }
        heal(net);
        control_net_run(net, 12000); /* every call ends */
        assert_true(control_net_run_until(net, control_net_agreed, 30000));
        assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "last", NULL), 0);
        assert_true(control_net_run_until(net, control_net_agreed, 30000));
        check_calls(net);
        for (size_t i = 0; i < net->calls_n; i++)
            done += net->calls[i].code == 0;
        elections += (unsigned)control_of(net, 0)->term;
        control_net_close(net);
    }
    assert_true(done > 30 * seeds);     /* much got through … */
    assert_true(elections > 3 * seeds); /* … and it was not peaceful */
    control_net_init(net, 1);
}

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct control_net));
    return *state == NULL;
}

static int teardown(void **state)
{
    control_net_close(*state);
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(peace, setup, teardown),
        cmocka_unit_test_setup_teardown(a_leader_dies, setup, teardown),
        cmocka_unit_test_setup_teardown(one_that_was_cut_off_disturbs_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(a_leader_without_followers_steps_down, setup, teardown),
        cmocka_unit_test_setup_teardown(a_vote_waits_for_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(an_ack_waits_for_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(a_minority_gives_way, setup, teardown),
        cmocka_unit_test_setup_teardown(snapshots, setup, teardown),
        cmocka_unit_test_setup_teardown(a_snapshot_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(random_histories, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
