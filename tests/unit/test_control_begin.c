/* How a cluster begins: once, by init or by those who expect each other, whoever dies at whatever write; and never by
 * omission. (That there is one cluster is checked after every step.) */
#include "control_support.h"

#include "replica/error.h"
#include "trials.h"

static struct replica_id cluster_of(const struct control_net *net, size_t node)
{
    return gossip_control_cluster(net->nodes[node].control);
}

static bool belongs(const struct control_net *net, size_t node)
{
    struct replica_id cluster = cluster_of(net, node);
    return !replica_id_is_zero(&cluster);
}

/* A key and nothing else: waits, says so, and begins when it is told to. */
static void waits_for_init(void **state)
{
    struct control_net *net = *state;
    control_net_init(net, 1);
    control_net_add(net, GOSSIP_BEGIN_WAIT, 0);
    control_net_boot(net, 0);
    control_net_run(net, 60000);
    assert_false(belongs(net, 0));
    assert_non_null(strstr(gossip_control_waiting(net->nodes[0].control), "remora cluster init"));
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "v", NULL), REPLICA_E_UNAVAILABLE);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_INIT, NULL, NULL), 0);
    assert_true(belongs(net, 0)); /* who was answered sees it */
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
}

/* Nodes that wait or join found nothing, however long they know each other; init on one of them is enough for all. */
static void joiners_found_nothing(void **state)
{
    struct control_net *net = *state;
    struct gossip_control_status status;
    control_net_init(net, 2);
    control_net_add(net, GOSSIP_BEGIN_WAIT, 0);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1u << 0);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1u << 0 | 1u << 1);
    for (size_t i = 0; i < 3; i++)
        control_net_boot(net, i);
    control_net_run(net, 60000);
    for (size_t i = 0; i < 3; i++) {
        assert_false(belongs(net, i));
        assert_int_equal(net->nodes[i].cluster_notes, 0);
        assert_string_not_equal(gossip_control_waiting(net->nodes[i].control), "");
    }
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_INIT, NULL, NULL), 0);
    assert_true(control_net_run_until(net, control_net_begun, 10000));
    gossip_control_status(net->nodes[2].control, &status);
    assert_false(status.voting);
    assert_int_equal(status.members_n, 1);
    assert_int_equal(net->nodes[2].cluster_notes, 1);
    assert_int_equal(control_net_ask(net, 2, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
}

static bool all_answered(struct control_net *net)
{
    for (size_t i = 0; i < net->calls_n; i++)
        if (net->calls[i].code == CONTROL_PENDING)
            return false;
    return true;
}

/* Several are told to begin a cluster at about the same time, as early as right after their start, over a bad network: one does,
 * the others are refused, and all are in it. */
static void inits_at_once_make_one_cluster(void **state)
{
    const struct gossip_control_request init = {.kind = GOSSIP_CONTROL_INIT};
    struct control_net *net = *state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        size_t n = 2 + seed % 3, begun = 0;
        control_net_init(net, seed);
        net->loss = net->late = seed % 2 == 0 ? 20 : 0;
        for (size_t i = 0; i < n; i++)
            control_net_add(net, GOSSIP_BEGIN_JOIN, (1u << n) - 1);
        for (size_t i = 0; i < n; i++)
            control_net_boot(net, i);
        control_net_run(net, seed % 4 * 500);
        for (size_t i = 0; i < n; i++) {
            control_net_call(net, i, &init);
            control_net_run(net,
                            gossip_random_below(&net->random, 2) * gossip_random_below(&net->random, 400));
        }
        assert_true(control_net_run_until(net, all_answered, 12000));
        for (size_t i = 0; i < n; i++) {
            assert_true(net->calls[i].code == 0 || net->calls[i].code == REPLICA_E_REFUSED);
            begun += net->calls[i].code == 0;
        }
        assert_int_equal(begun, 1);
        assert_true(control_net_run_until(net, control_net_begun, 20000));
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* The one that goes on, or the one that gave way, dies at any moment: there is never a second cluster beside one that was shown,
 * and who is told again once all are back begins or joins. */
static void an_init_survives_a_crash(void **state)
{
    const struct gossip_control_request init = {.kind = GOSSIP_CONTROL_INIT};
    struct control_net *net = *state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        size_t victim = seed % 2;
        int code;
        control_net_init(net, seed);
        net->lose_all = seed % 4 < 2;
        for (size_t i = 0; i < 3; i++)
            control_net_add(net, GOSSIP_BEGIN_JOIN, 7);
        for (size_t i = 0; i < 3; i++)
            control_net_boot(net, i);
        control_net_run(net, 2000);
        control_net_call(net, 0, &init);
        control_net_call(net, 1, &init);
        if (seed % 3 == 0)
            net->nodes[victim].crash_at_write = 1;
        control_net_run(net, gossip_random_below(&net->random, 400));
        if (net->nodes[victim].up)
            control_net_crash(net, victim);
        net->nodes[victim].crash_at_write = 0;
        control_net_run(net, gossip_random_below(&net->random, 3000));
        control_net_boot(net, victim);
        control_net_run(net, 15000);
        code = belongs(net, victim) ? REPLICA_E_REFUSED : 0;
        assert_int_equal(control_net_ask(net, victim, GOSSIP_CONTROL_INIT, NULL, NULL), code);
        assert_true(control_net_run_until(net, control_net_begun, 20000));
        control_net_close(net);
    }
    control_net_init(net, 1);
}

static void ask_consent(struct control_net *net, size_t from)
{
    static const uint8_t ASK[] = {0x92, 0xc4, 16, 0, 0, 0, 0, 0, 0, 0,
                                  0,    0,    0,  0, 0, 0, 0, 0, 0, /* no cluster */
                                  0};                               /* of an init */
    assert_int_equal(control_net_inject(net, 2, &net->nodes[from].principal, CONTROL_ASK, ASK, sizeof ASK),
                     0);
}

/* Two who cannot hear each other ask a third: it consents to one, names that one to the other for as long as it is asked again, and
 * begins nothing itself. */
static void consent_is_given_to_one_at_a_time(void **state)
{
    struct control_net *net = *state;
    uint64_t *sent = net->sent;
    control_net_init(net, 4);
    for (size_t i = 0; i < 3; i++)
        control_net_add(net, GOSSIP_BEGIN_JOIN, 7);
    for (size_t i = 0; i < 3; i++)
        control_net_boot(net, i);
    control_net_run(net, 2000);
    for (int i = 0; i < 10; i++) {
        ask_consent(net, 0);
        assert_true(sent[CONTROL_PROMISE] == (uint64_t)i + 1 && sent[CONTROL_FRESH] == (uint64_t)i);
        ask_consent(net, 1);
        assert_true(sent[CONTROL_PROMISE] == (uint64_t)i + 1 && sent[CONTROL_FRESH] == (uint64_t)i + 1);
        control_net_run(net, 1000);
    }
    assert_int_equal(control_net_ask(net, 2, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
    control_net_run(net, 1600);
    ask_consent(net, 1);
    assert_int_equal(sent[CONTROL_PROMISE], 11);
    control_net_run(net, 1600);
    assert_int_equal(control_net_ask(net, 2, GOSSIP_CONTROL_INIT, NULL, NULL), 0);
}

/* Nobody answers at the addresses in --join: init goes ahead after a moment, not at once and not never. */
static void init_does_not_wait_for_the_absent(void **state)
{
    const struct gossip_control_request init = {.kind = GOSSIP_CONTROL_INIT};
    struct control_net *net = *state;
    control_net_init(net, 3);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 2);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1);
    control_net_boot(net, 0);
    control_net_call(net, 0, &init);
    control_net_run(net, 2500);
    assert_int_equal(net->calls[0].code, CONTROL_PENDING);
    control_net_run(net, 1500);
    assert_int_equal(net->calls[0].code, 0);
    control_net_boot(net, 1);
    assert_int_equal(control_net_ask(net, 1, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
    assert_true(belongs(net, 1));
}

/* Those that expect each other are about to found one: an init beside them is refused, and one before them goes first. */
static void init_beside_founders(void **state)
{
    struct control_net *net = *state;
    for (int before = 0; before < 2; before++) {
        control_net_init(net, 8);
        control_net_expect(net, 3);
        control_net_add(net, GOSSIP_BEGIN_JOIN, 7);
        for (size_t i = before ? 1 : 0; i < 4; i++)
            control_net_boot(net, i);
        if (!before)
            net->nodes[0].crash_at_write = net->nodes[1].crash_at_write = net->nodes[2].crash_at_write = 2;
        control_net_run(net, 1500);
        assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_INIT, NULL, NULL),
                         before ? 0 : REPLICA_E_REFUSED);
        for (size_t i = 0; i < 3; i++) {
            net->nodes[i].crash_at_write = 0;
            if (!net->nodes[i].up)
                control_net_boot(net, i);
        }
        assert_true(control_net_run_until(net, control_net_begun, 20000));
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* The lowest of those who expect each other founds it with all of them, and with nobody else. */
static void expecting_each_other(void **state)
{
    struct control_net *net = *state;
    for (size_t n = 1; n <= 5; n += 2) {
        struct gossip_control_status status;
        control_net_init(net, n);
        control_net_expect(net, n);
        control_net_add(net, GOSSIP_BEGIN_JOIN, 1); /* may be there, and is no founder */
        for (size_t i = n + 1; i > 1; i--)
            control_net_boot(net, i - 1);
        control_net_run(net, 10000);
        for (size_t i = 1; i <= n; i++) /* not while one is missing */
            assert_false(belongs(net, i));
        if (n > 1)
            assert_non_null(strstr(gossip_control_waiting(net->nodes[1].control), "--expect"));
        control_net_boot(net, 0);
        assert_true(control_net_run_until(net, control_net_begun, 20000));
        gossip_control_status(net->nodes[n].control, &status);
        assert_int_equal(status.members_n, n);
        for (size_t i = 0; i < n; i++) {
            gossip_control_status(net->nodes[i].control, &status);
            assert_true(status.voting);
        }
        control_net_run(net, 5000);
        assert_int_equal(control_net_ask(net, n, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* Each of the three dies at each of its writes, before anything that depends on it got out; alone, and two of them. */
static void founding_survives_a_crash_at_every_write(void **state)
{
    struct control_net *net = *state;
    unsigned crashed = 0;
    for (unsigned first = 0; first <= 6; first++)
        for (unsigned second = 0; second <= 6; second++)
            for (size_t victim = 0; victim < 3; victim++) {
                control_net_init(net, 1 + first * 100 + second * 10 + victim);
                control_net_expect(net, 3);
                net->nodes[victim].crash_at_write = first;
                net->nodes[(victim + 1) % 3].crash_at_write = second;
                for (size_t i = 0; i < 3; i++)
                    control_net_boot(net, i);
                control_net_run(net, 5000);
                for (size_t i = 0; i < 3; i++) {
                    net->nodes[i].crash_at_write = 0;
                    crashed += !net->nodes[i].up;
                    if (!net->nodes[i].up)
                        control_net_boot(net, i);
                }
                assert_true(control_net_run_until(net, control_net_begun, 20000));
                control_net_run(net, 3000);
                assert_int_equal(control_net_ask(net, victim, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
                for (size_t i = 0; i < 3; i++)
                    assert_int_equal(net->nodes[i].control->members_n, 3);
                control_net_close(net);
            }
    assert_true(crashed > 100);
    control_net_init(net, 1);
}

/* Random crashes, losses and late messages from the first moment on, with joiners about. */
static void founding_under_faults(void **state)
{
    struct control_net *net = *state;
    for (uint64_t seed = 1; seed <= trials(150); seed++) {
        size_t n = seed % 4 == 0 ? 5 : 3;
        control_net_init(net, seed);
        control_net_expect(net, n);
        control_net_add(net, GOSSIP_BEGIN_JOIN, 3);
        net->loss = 20;
        net->twice = 20;
        net->late = 30;
        for (size_t i = 0; i <= n; i++)
            control_net_boot(net, i);
        for (unsigned round = 0; round < 20; round++) {
            size_t victim = gossip_random_below(&net->random, n + 1);
            control_net_run(net, gossip_random_below(&net->random, 500));
            if (net->nodes[victim].up && gossip_random_below(&net->random, 2) == 0)
                control_net_crash(net, victim);
            else if (!net->nodes[victim].up)
                control_net_boot(net, victim);
            net->nodes[victim].group = gossip_random_below(&net->random, 6) == 0;
        }
        net->loss = 0;
        for (size_t i = 0; i <= n; i++) {
            net->nodes[i].group = 0;
            if (!net->nodes[i].up)
                control_net_boot(net, i);
        }
        assert_true(control_net_run_until(net, control_net_begun, 60000));
        control_net_run(net, 3000);
        assert_int_equal(control_net_ask(net, n, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* A promise is state: its holder begins nothing else, with whatever options it starts again, until the founder is back. */
static void a_promise_binds(void **state)
{
    struct control_net *net = *state;
    struct gossip_control *control;
    size_t lowest = 0, other;
    control_net_init(net, 3);
    net->lose_all = true;
    control_net_expect(net, 3);
    for (size_t i = 1; i < 3; i++)
        if (replica_id_compare(&net->nodes[i].record.store, &net->nodes[lowest].record.store) < 0)
            lowest = i;
    other = (lowest + 1) % 3;
    net->nodes[lowest].crash_at_write = 2; /* the founding itself */
    for (size_t i = 0; i < 3; i++)
        control_net_boot(net, i);
    control_net_run(net, 5000);
    assert_false(net->nodes[lowest].up);
    control = net->nodes[other].control;
    assert_true(replica_id_equal(&control->promised, &net->nodes[lowest].record.store));
    assert_non_null(strstr(gossip_control_waiting(control), net->nodes[lowest].record.name));
    assert_int_equal(control_net_ask(net, other, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
    control_net_crash(net, other);
    net->nodes[other].options.begin = GOSSIP_BEGIN_ALONE;
    control_net_boot(net, other);
    control_net_run(net, 20000);
    assert_false(belongs(net, other));
    net->nodes[lowest].crash_at_write = 0;
    control_net_boot(net, lowest);
    assert_false(control_net_run_until(net, control_net_begun, 5000)); /* one of the three expects no more */
    control_net_crash(net, other);
    net->nodes[other].options.begin = GOSSIP_BEGIN_EXPECT;
    control_net_boot(net, other);
    assert_true(control_net_run_until(net, control_net_begun, 20000));
}

/* The founder is lost for good after the others promised it: they wait and say what to do, namely to start with empty data
 * directories; then they begin with the one in its place. */
static void what_is_said_of_a_lost_founder_helps(void **state)
{
    struct control_net *net = *state;
    size_t lowest = 0;
    control_net_init(net, 3);
    net->lose_all = true;
    control_net_expect(net, 3);
    for (size_t i = 1; i < 3; i++)
        if (replica_id_compare(&net->nodes[i].record.store, &net->nodes[lowest].record.store) < 0)
            lowest = i;
    net->nodes[lowest].crash_at_write = 2; /* the founding itself */
    for (size_t i = 0; i < 3; i++)
        control_net_boot(net, i);
    control_net_run(net, 20000);
    for (size_t i = 0; i < 3; i++)
        if (i != lowest) {
            assert_false(belongs(net, i));
            assert_non_null(strstr(gossip_control_waiting(net->nodes[i].control), "empty data directory"));
            control_net_crash(net, i);
        }
    for (size_t i = 3; i < 6; i++) {
        control_net_add(net, GOSSIP_BEGIN_EXPECT, 7u << 3)->options.expect = 3;
        control_net_boot(net, i);
    }
    assert_true(control_net_run_until(net, control_net_begun, 20000));
    assert_int_equal(control_net_ask(net, 4, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
}

/* A fresh store in the place of one that was wiped before the founding takes its part. */
static void one_of_them_is_wiped_on_the_way(void **state)
{
    struct control_net *net = *state;
    struct control_node *spare;
    for (size_t victim = 0; victim < 3; victim++) {
        control_net_init(net, 30 + victim);
        control_net_expect(net, 3);
        spare = control_net_add(net, GOSSIP_BEGIN_EXPECT, 7);
        spare->options.expect = 3;
        for (size_t i = 0; i < 3; i++)
            if (i != (victim + 1) % 3)
                control_net_boot(net, i);
        control_net_run(net, 3000);
        control_net_crash(net, victim); /* for good */
        control_net_boot(net, 3);
        control_net_run(net, 10000);
        control_net_boot(net, (victim + 1) % 3);
        assert_true(control_net_run_until(net, control_net_begun, 20000));
        assert_true(control_net_run_until(net, control_net_agreed, 20000));
        assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* Too many, or of different expectations: nobody begins, and people are told. */
static void disagreeing_expectations(void **state)
{
    struct control_net *net = *state;
    control_net_init(net, 4);
    control_net_expect(net, 3);
    control_net_boot(net, 0);
    control_net_boot(net, 1);
    control_net_run(net, 3000);
    net->nodes[2].options.expect = 5;
    control_net_boot(net, 2);
    control_net_run(net, 10000);
    for (size_t i = 0; i < 3; i++)
        assert_false(belongs(net, i));
    assert_non_null(strstr(gossip_control_waiting(net->nodes[0].control), "node2"));
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
    control_net_crash(net, 2);
    net->nodes[2].options.expect = 3;
    control_net_boot(net, 2);
    assert_true(control_net_run_until(net, control_net_begun, 20000));
}

/* A founder that comes back without its data joins what it once founded, as a copy: any answer with state means join. */
static void the_wiped_founder_joins(void **state)
{
    struct control_net *net = *state;
    struct gossip_control_status status;
    control_net_init(net, 5);
    control_net_expect(net, 3);
    for (size_t i = 0; i < 3; i++)
        control_net_boot(net, i);
    assert_true(control_net_run_until(net, control_net_begun, 20000));
    control_net_crash(net, 0);
    control_net_add(net, GOSSIP_BEGIN_EXPECT, 7)->options.expect = 3;
    control_net_boot(net, 3);
    assert_true(control_net_run_until(net, control_net_begun, 20000));
    gossip_control_status(net->nodes[3].control, &status);
    assert_false(status.voting);
    assert_int_equal(status.members_n, 3);
}

/* Two clusters whose nodes meet, at an address that changed hands: neither takes anything from the other. */
static void clusters_never_mix(void **state)
{
    struct control_net *net = *state;
    struct replica_id first, second;
    control_net_init(net, 6);
    net->many_clusters = true;
    control_net_add(net, GOSSIP_BEGIN_ALONE, 1u << 1);
    control_net_add(net, GOSSIP_BEGIN_ALONE, 1u << 0);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1u << 0);
    net->nodes[1].group = 1;
    for (size_t i = 0; i < 3; i++)
        control_net_boot(net, i);
    assert_true(control_net_run_until(net, control_net_begun, 10000));
    for (unsigned i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "x%u", i);
        assert_int_equal(control_net_ask(net, 1, GOSSIP_CONTROL_CREATE, name, NULL), 0); /* a higher index */
    }
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "own", NULL), 0);
    first = cluster_of(net, 0);
    second = cluster_of(net, 1);
    assert_false(replica_id_equal(&first, &second));
    net->nodes[1].group = 0;
    control_net_run(net, 20000);
    assert_int_equal(gossip_control_volumes(net->nodes[0].control), 1);
    assert_int_equal(gossip_control_volumes(net->nodes[2].control), 1);
    assert_int_equal(gossip_control_volumes(net->nodes[1].control), 5);
    control_net_crash(net, 2); /* and after a restart that joins the other's address */
    memcpy(net->nodes[2].join[0], net->nodes[0].join[0], sizeof net->nodes[2].join[0]); /* node 1 */
    control_net_boot(net, 2);
    control_net_run(net, 20000);
    second = cluster_of(net, 2);
    assert_true(replica_id_equal(&first, &second));
    assert_int_equal(gossip_control_volumes(net->nodes[2].control), 1);
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
        cmocka_unit_test_setup_teardown(waits_for_init, setup, teardown),
        cmocka_unit_test_setup_teardown(joiners_found_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(inits_at_once_make_one_cluster, setup, teardown),
        cmocka_unit_test_setup_teardown(an_init_survives_a_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(consent_is_given_to_one_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(init_does_not_wait_for_the_absent, setup, teardown),
        cmocka_unit_test_setup_teardown(init_beside_founders, setup, teardown),
        cmocka_unit_test_setup_teardown(expecting_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(founding_survives_a_crash_at_every_write, setup, teardown),
        cmocka_unit_test_setup_teardown(founding_under_faults, setup, teardown),
        cmocka_unit_test_setup_teardown(a_promise_binds, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_said_of_a_lost_founder_helps, setup, teardown),
        cmocka_unit_test_setup_teardown(one_of_them_is_wiped_on_the_way, setup, teardown),
        cmocka_unit_test_setup_teardown(disagreeing_expectations, setup, teardown),
        cmocka_unit_test_setup_teardown(the_wiped_founder_joins, setup, teardown),
        cmocka_unit_test_setup_teardown(clusters_never_mix, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
