/* The control room as its callers see it: a cluster begins, volumes are created and found, and errors mean what they say. */
#include "control_support.h"

#include "replica/error.h"
#include "replica/merkle.h"

static void begin_three(struct control_net *net, uint64_t seed, unsigned caches)
{
    control_net_init(net, seed);
    control_net_expect(net, 3);
    for (unsigned i = 0; i < caches; i++)
        control_net_add(net, GOSSIP_BEGIN_JOIN, 1)->record.roles = 0;
    for (size_t i = 0; i < net->n; i++)
        control_net_boot(net, i);
    assert_true(control_net_run_until(net, control_net_agreed, 20000));
    control_net_run(net, 3000);
}

static const struct gossip_volume *volume_on(const struct control_net *net, size_t node, const char *name)
{
    return gossip_control_volume_by_name(net->nodes[node].control, name);
}

/* Without key and join a node is a cluster at once, and after a crash it is the same one with the same volumes. */
static void alone(void **state)
{
    struct control_net *net = *state;
    struct gossip_control_status status;
    struct replica_id cluster;
    control_net_init(net, 1);
    control_net_add(net, GOSSIP_BEGIN_ALONE, 0);
    control_net_boot(net, 0);
    assert_string_not_equal(gossip_control_waiting(net->nodes[0].control), "");
    control_net_run(net, 50);
    cluster = gossip_control_cluster(net->nodes[0].control);
    assert_false(replica_id_is_zero(&cluster));
    assert_string_equal(gossip_control_waiting(net->nodes[0].control), "");
    assert_int_equal(net->nodes[0].cluster_notes, 1);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
    assert_int_equal(net->nodes[0].volume_notes, 1);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
    gossip_control_status(net->nodes[0].control, &status);
    assert_true(status.voting);
    assert_int_equal(status.members_n, 1);
    assert_int_equal(volume_on(net, 0, "v")->configuration.voters_n, 1);
    assert_int_equal(volume_on(net, 0, "v")->voters_wanted, 3);
    assert_int_equal(volume_on(net, 0, "v")->version, 2);
    control_net_crash(net, 0);
    control_net_boot(net, 0);
    assert_int_equal(net->nodes[0].cluster_notes, 2); /* said again at the start, as the volumes are */
    assert_int_equal(net->nodes[0].volume_notes, 2);
    assert_non_null(volume_on(net, 0, "v"));
}

static void verbs_and_their_errors(void **state)
{
    struct control_net *net = *state;
    struct replica_id first;
    begin_three(net, 2, 1 /* cache */);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_CREATE, "a", NULL), 0);
    assert_non_null(volume_on(net, 3, "a")); /* who was answered finds it */
    first = volume_on(net, 3, "a")->id;
    assert_true(replica_id_equal(&net->calls[0].id, &first));
    assert_true(replica_id_equal(&volume_on(net, 3, "a")->creator, &net->nodes[3].record.store));
    assert_int_equal(volume_on(net, 3, "a")->configuration.voters_n, 3);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "a", NULL), REPLICA_E_EXISTS);
    assert_int_equal(control_net_ask(net, 1, GOSSIP_CONTROL_RENAME, "a", "b"), 0);
    assert_true(replica_id_equal(&volume_on(net, 1, "b")->id, &first));
    assert_null(volume_on(net, 1, "a"));
    assert_int_equal(control_net_ask(net, 2, GOSSIP_CONTROL_RENAME, "a", "c"), REPLICA_E_NOTFOUND);
    assert_int_equal(control_net_ask(net, 2, GOSSIP_CONTROL_RENAME, "b", "b"), 0); /* its own name is free */
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_DELETE, "b", NULL), 0);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_DELETE, "b", NULL), REPLICA_E_NOTFOUND);
    assert_true(gossip_control_volume(net->nodes[3].control, &first)->deleted);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_UNDELETE, "x", NULL), REPLICA_E_NOTFOUND);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_UNDELETE, "b", NULL), 0);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_UNDELETE, "b", NULL), REPLICA_E_EXISTS);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_LOOKUP, "b", NULL), 0);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_LOOKUP, "a", NULL), REPLICA_E_NOTFOUND);
}

/* 64 characters and these alone; an odd number of voters; versions 1 and 2. */
static void what_may_be_asked(void **state)
{
    struct control_net *net = *state;
    char longest[66];
    struct gossip_control_request request = {.kind = GOSSIP_CONTROL_CREATE, .name = "n", .version = 3};
    static const char *const BAD[] = {"", "a/b", "a b", "a\n", "ä", "a:b"};
    control_net_init(net, 3);
    control_net_add(net, GOSSIP_BEGIN_ALONE, 0);
    control_net_boot(net, 0);
    control_net_run(net, 100);
    memset(longest, 'x', sizeof longest);
    longest[65] = '\0';
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, longest, NULL), REPLICA_E_INVALID);
    longest[64] = '\0';
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, longest, NULL), 0);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "A-Z_0.9", NULL), 0);
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, BAD[i], NULL), REPLICA_E_INVALID);
        assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_RENAME, longest, BAD[i]), REPLICA_E_INVALID);
    }
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_RENAME, longest, NULL), REPLICA_E_INVALID);
    assert_int_equal(control_net_call(net, 0, &request)->code, REPLICA_E_INVALID);
    request.version = 1;
    request.voters_wanted = 2;
    assert_int_equal(control_net_call(net, 0, &request)->code, REPLICA_E_INVALID);
    request.voters_wanted = 11;
    assert_int_equal(control_net_call(net, 0, &request)->code, REPLICA_E_INVALID);
    request.voters_wanted = 9;
    assert_int_equal(control_net_call(net, 0, &request)->code, CONTROL_PENDING);
    control_net_run(net, 100);
    assert_int_equal(volume_on(net, 0, "n")->version, 1);
    assert_int_equal(volume_on(net, 0, "n")->voters_wanted, 9);
    request = (struct gossip_control_request){
        .kind = GOSSIP_CONTROL_CREATE, .name = "n", .if_missing = true, .version = 2};
    control_net_call(net, 0, &request);
    control_net_run(net, 100);
    assert_int_equal(net->calls[net->calls_n - 1].code, REPLICA_E_REFUSED); /* exists as version 1 */
    request.version = 0;
    control_net_call(net, 0, &request);
    control_net_run(net, 100);
    assert_int_equal(net->calls[net->calls_n - 1].code, 0);
}

static bool all_answered(struct control_net *net)
{
    for (size_t i = 0; i < net->calls_n; i++)
        if (net->calls[i].code == CONTROL_PENDING)
            return false;
    return true;
}

/* Whatever the network does, and if the leader dies in the middle of it. */
static void fifty_creators_make_one_volume(void **state)
{
    struct control_net *net = *state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct gossip_control_request request = {
            .kind = GOSSIP_CONTROL_CREATE, .name = "shared", .if_missing = true};
        const struct control_call *first = NULL;
        begin_three(net, seed, 1 /* cache */);
        net->loss = 10;
        net->twice = 20;
        net->late = 20;
        for (size_t i = 0; i < 50; i++)
            control_net_call(net, seed % 2 == 0 ? i % 3 : i % 4, &request);
        if (seed % 3 == 0) {
            control_net_run(net, gossip_random_below(&net->random, 30));
            control_net_crash(net, control_net_leader(net) == SIZE_MAX ? 0 : control_net_leader(net));
        }
        assert_true(control_net_run_until(net, all_answered, 20000));
        for (size_t i = 0; i < 50; i++) {
            const struct control_call *call = &net->calls[i];
            if (call->code == CONTROL_DIED || (seed % 3 == 0 && call->code == REPLICA_E_INDETERMINATE))
                continue;
            assert_int_equal(call->code, 0);
            assert_true(call->found && (first == NULL || replica_id_equal(&first->id, &call->id)));
            first = call;
        }
        net->loss = 0;
        assert_true(control_net_run_until(net, control_net_agreed, 30000));
        for (size_t i = 0; i < net->n; i++)
            if (net->nodes[i].up)
                assert_int_equal(gossip_control_volumes(net->nodes[i].control), 1);
        control_net_close(net);
    }
    control_net_init(net, 1);
}

/* UNAVAILABLE promises that nothing was proposed; once it may have been, it is INDETERMINATE, and may happen. */
static void without_a_majority(void **state)
{
    struct control_net *net = *state;
    size_t leader;
    begin_three(net, 5, 0);
    leader = control_net_leader(net);
    assert_true(leader < 3);
    control_net_crash(net, (leader + 1) % 3);
    control_net_crash(net, (leader + 2) % 3);
    assert_int_equal(control_net_ask(net, leader, GOSSIP_CONTROL_CREATE, "maybe", NULL),
                     REPLICA_E_INDETERMINATE);
    assert_true(net->nodes[leader].control->role != CONTROL_LEADING); /* it noticed */
    assert_int_equal(control_net_ask(net, leader, GOSSIP_CONTROL_CREATE, "never", NULL),
                     REPLICA_E_UNAVAILABLE);
    control_net_boot(net, (leader + 1) % 3);
    assert_true(control_net_run_until(net, control_net_agreed, 20000));
    assert_int_equal(control_net_ask(net, leader, GOSSIP_CONTROL_CREATE, "after", NULL), 0);
    assert_non_null(volume_on(net, leader, "maybe"));
    assert_null(volume_on(net, leader, "never"));
}

/* A leader whose disk hangs makes room for one that can write. */
static void a_hanging_disk_does_not_lead(void **state)
{
    struct control_net *net = *state;
    struct gossip_control_request request = {.kind = GOSSIP_CONTROL_CREATE, .name = "v"};
    size_t leader;
    begin_three(net, 6, 0);
    leader = control_net_leader(net);
    net->nodes[leader].disk_hangs = true;
    net->nodes[leader].sync_ms = UINT64_MAX;
    control_net_call(net, leader, &request);
    control_net_run(net, 9000);
    assert_true(control_net_leader(net) < 3 && control_net_leader(net) != leader);
    assert_int_equal(control_net_ask(net, (leader + 1) % 3, GOSSIP_CONTROL_CREATE, "w", NULL), 0);
}

/* Who may not write a volume cannot create it, nor rename another to it; the log never sees it. */
static void principals(void **state)
{
    struct control_net *net = *state;
    struct gossip_principal *cache;
    struct replica_hash hash;
    begin_three(net, 7, 1 /* cache */);
    cache = &net->nodes[3].principal;
    cache->role = GOSSIP_ROLE_CACHE;
    cache->every_volume = false;
    cache->volumes_n = 2;
    replica_hash_bytes("mine", 4, &hash);
    memcpy(cache->volumes[0].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE);
    replica_hash_bytes("look", 4, &hash);
    memcpy(cache->volumes[1].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE);
    cache->volumes[1].read_only = true;
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_CREATE, "mine", NULL), 0);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_CREATE, "look", NULL), REPLICA_E_DENIED);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_CREATE, "other", NULL), REPLICA_E_DENIED);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_RENAME, "mine", "other"), REPLICA_E_DENIED);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_DELETE, "look", NULL), REPLICA_E_DENIED);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "look", NULL), 0);
    assert_int_equal(gossip_control_volumes(net->nodes[0].control), 2);
}

/* Voters: odd, no two in a zone while another zone is free, more often where there is more room, never on who did not opt in. */
static void voters(void **state)
{
    struct control_net *net = *state;
    unsigned large = 0, small = 0;
    control_net_init(net, 8);
    control_net_add(net, GOSSIP_BEGIN_ALONE, 0)->record.capacity_free = 500;
    for (size_t i = 1; i < 7; i++) {
        struct control_node *node = control_net_add(net, GOSSIP_BEGIN_JOIN, 1);
        node->record.capacity_free = i == 1 ? 4000 : 500;
        snprintf(node->record.zone, sizeof node->record.zone, "%s", i <= 3 ? "east" : "west");
        node->record.roles = i == 6 ? 0 : GOSSIP_MEMBER_VOTE;
    }
    for (size_t i = 0; i < 7; i++)
        control_net_boot(net, i);
    control_net_run(net, 10000);
    for (unsigned i = 0; i < 60; i++) {
        unsigned east = 0, west = 0;
        char name[16];
        const struct gossip_volume *volume;
        snprintf(name, sizeof name, "v%u", i);
        assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, name, NULL), 0);
        volume = volume_on(net, 0, name);
        assert_int_equal(volume->configuration.voters_n, 3);
        for (size_t v = 0; v < 3; v++) {
            size_t node = 0;
            while (!replica_id_equal(&net->nodes[node].record.store, &volume->configuration.voters[v]))
                node++;
            assert_true(node < 6);
            east += node >= 1 && node <= 3;
            west += node > 3;
            large += node == 1;
            small += node == 2 || node == 3;
        }
        assert_true(east == 1 && west == 1); /* the third zone is the nameless one */
    }
    assert_true(large > small); /* against two, with eight times the room of one */
    assert_true(small > 0);
}

/* With one founder down, a volume gets all three: two of them answer. With two candidates and no third, one. */
static void voters_when_some_are_down(void **state)
{
    struct control_net *net = *state;
    begin_three(net, 9, 0);
    control_net_crash(net, (control_net_leader(net) + 1) % 3);
    control_net_run(net, 20000);
    assert_int_equal(control_net_ask(net, control_net_leader(net), GOSSIP_CONTROL_CREATE, "v", NULL), 0);
    assert_int_equal(volume_on(net, control_net_leader(net), "v")->configuration.voters_n, 3);
    control_net_close(net);
    control_net_init(net, 10);
    control_net_add(net, GOSSIP_BEGIN_ALONE, 0);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1);
    control_net_boot(net, 0);
    control_net_boot(net, 1);
    control_net_run(net, 5000);
    assert_int_equal(control_net_ask(net, 1, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
    assert_int_equal(volume_on(net, 1, "v")->configuration.voters_n, 1);
}

/* A proposal that arrives again long after is not applied again: not while its outcome is remembered, nor when it is
 * forgotten. */
static void an_old_proposal_is_never_applied_again(void **state)
{
    struct control_net *net = *state;
    struct control_proposal proposal = {.kind = CONTROL_DELETE, .id = {{7}}, .name = "v", .voters_wanted = 3};
    struct gossip_principal from;
    struct replica_buffer payload;
    struct gossip_control *control;
    control_net_init(net, 11);
    control_net_add(net, GOSSIP_BEGIN_ALONE, 0);
    control_net_boot(net, 0);
    control_net_run(net, 100);
    control = net->nodes[0].control;
    from = net->nodes[0].principal;
    from.store = control_net_store(5);
    proposal.base = control->registry.index;
    control_begin_message(control, &payload, 1);
    control_proposal_pack(&payload, &proposal);
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
    assert_int_equal(control_net_inject(net, 0, &from, CONTROL_PROPOSE, payload.data, payload.size), 0);
    control_net_run(net, 100);
    assert_null(volume_on(net, 0, "v")); /* it deleted the first one … */
    assert_int_equal(control_net_ask(net, 0, GOSSIP_CONTROL_CREATE, "v", NULL), 0);
    assert_int_equal(control_net_inject(net, 0, &from, CONTROL_PROPOSE, payload.data, payload.size), 0);
    control_net_run(net, 100);
    assert_non_null(volume_on(net, 0, "v")); /* … and not the second */
    for (unsigned i = 0; i < CONTROL_OUTCOMES_MAX; i++) {
        struct gossip_control_request request = {
            .kind = GOSSIP_CONTROL_CREATE, .name = "v", .if_missing = true};
        net->calls_n = 0;
        control_net_call(net, 0, &request);
        control_net_run(net, 10);
        assert_int_equal(net->calls[0].code, 0);
    }
    assert_null(control_registry_outcome(&control->registry, &proposal.id));
    assert_int_equal(control_net_inject(net, 0, &from, CONTROL_PROPOSE, payload.data, payload.size), 0);
    control_net_run(net, 100);
    assert_non_null(volume_on(net, 0, "v"));
    assert_int_equal(control_registry_outcome(&control->registry, &proposal.id)->code,
                     REPLICA_E_INDETERMINATE);
    replica_buffer_close(&payload);
}

/* One member still believes in a leader that says it leads no more: the caller keeps asking, at its own pace. */
static void stale_beliefs_make_no_storm(void **state)
{
    struct control_net *net = *state;
    struct gossip_control_request request = {.kind = GOSSIP_CONTROL_CREATE, .name = "v"};
    static const struct replica_id NONE;
    struct replica_buffer believer, leader;
    size_t led;
    uint64_t term;
    begin_three(net, 13, 1 /* cache */);
    led = control_net_leader(net);
    term = net->nodes[led].control->term;
    for (size_t i = 0; i < 3; i++)
        net->nodes[i].group = 1; /* so that only the words below reach the cache */
    control_net_call(net, 3, &request);
    memset(net->sent, 0, sizeof net->sent);
    control_begin_message(net->nodes[led].control, &believer, 2);
    replica_pack_id(&believer, &net->nodes[led].record.store);
    replica_pack_uint(&believer, term);
    control_begin_message(net->nodes[led].control, &leader, 2);
    replica_pack_id(&leader, &NONE);
    replica_pack_uint(&leader, term);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(control_net_inject(net, 3, &net->nodes[(led + 1) % 3].principal, CONTROL_LEADER,
                                            believer.data, believer.size),
                         0);
        assert_int_equal(
            control_net_inject(net, 3, &net->nodes[led].principal, CONTROL_LEADER, leader.data, leader.size),
            0);
    }
    assert_true(net->sent[CONTROL_PROPOSE] <= 1 && net->sent[CONTROL_WHO] <= 3);
    control_net_run(net, 1400);
    assert_true(net->sent[CONTROL_WHO] >= 6); /* three at a time */
    assert_true(net->sent[CONTROL_WHO] <= 9);
    replica_buffer_close(&believer);
    replica_buffer_close(&leader);
}

/* More volumes than one message holds reach a newcomer whole, also while they change; so does their expiry. */
static void a_large_registry_is_copied(void **state)
{
    struct control_net *net = *state;
    struct gossip_update update;
    control_net_init(net, 12);
    control_net_add(net, GOSSIP_BEGIN_ALONE, 0);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1)->record.roles = 0;
    control_net_boot(net, 0);
    control_net_run(net, 100);
    gossip_update_init(&update);
    for (unsigned i = 0; i < 3000; i++) { /* straight into the state machine */
        struct control_proposal proposal = {
            .kind = CONTROL_CREATE, .voters_wanted = 1, .voters_n = 1, .voters = {{{1}}}};
        proposal.base = net->nodes[0].control->registry.index;
        gossip_random_id(&net->random, &proposal.id);
        gossip_random_id(&net->random, &proposal.volume);
        snprintf(proposal.name, sizeof proposal.name, "volume-with-a-fairly-long-name-%u", i);
        control_apply(net->nodes[0].control, net->nodes[0].control->registry.index + 1, 1, &proposal,
                      &update);
    }
    gossip_update_close(&update);
    net->many_clusters = true; /* the log below was not asked: only the copy is looked at */
    control_net_boot(net, 1);
    control_net_run(net, 4000);
    assert_true(net->sent[CONTROL_STATE] >= 4);
    assert_int_equal(gossip_control_volumes(net->nodes[1].control), 3000);
    control_registry_remove(&net->nodes[0].control->registry,
                            &net->nodes[0].control->registry.by_id[17]->id); /* as expiry does */
    net->nodes[0].control->registry.index++;
    control_net_run(net, 5000);
    assert_int_equal(gossip_control_volumes(net->nodes[1].control), 2999);
    assert_true(control_net_agreed(net));
    control_net_crash(net, 1);
    net->nodes[0].group = 1;
    control_net_boot(net, 1); /* what was copied is on its disk */
    assert_int_equal(gossip_control_volumes(net->nodes[1].control), 2999);
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
        cmocka_unit_test_setup_teardown(alone, setup, teardown),
        cmocka_unit_test_setup_teardown(verbs_and_their_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(what_may_be_asked, setup, teardown),
        cmocka_unit_test_setup_teardown(fifty_creators_make_one_volume, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_majority, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hanging_disk_does_not_lead, setup, teardown),
        cmocka_unit_test_setup_teardown(principals, setup, teardown),
        cmocka_unit_test_setup_teardown(voters, setup, teardown),
        cmocka_unit_test_setup_teardown(voters_when_some_are_down, setup, teardown),
        cmocka_unit_test_setup_teardown(an_old_proposal_is_never_applied_again, setup, teardown),
        cmocka_unit_test_setup_teardown(stale_beliefs_make_no_storm, setup, teardown),
        cmocka_unit_test_setup_teardown(a_large_registry_is_copied, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
