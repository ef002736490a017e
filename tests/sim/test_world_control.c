/* The registry of volumes and the log under it: verbs from any node, snapshots for those who were away, and under random faults one leader
 * a term, one outcome a proposal, and the same registry everywhere in the end. */
#include "world_support.h"

#include "replica/error.h"
#include "trials.h"

#include <stdio.h>

static int ask(struct world *world, size_t node, enum gossip_control_request_kind kind, const char *name,
               const char *new_name)
{
    const struct gossip_control_request request = {.kind = kind, .name = name, .new_name = new_name};
    return world_call_wait(world, world_control_start(world, node, &request));
}

static const struct gossip_control *control_of(const struct world *world, size_t node)
{
    return gossip_peer_control(world_peer(world, node));
}

static struct world *begun(uint64_t seed, size_t nodes, uint32_t snapshot_entries)
{
    struct world_options options;
    struct world *world;
    world_options_default(&options);
    options.seed = seed;
    options.nodes = nodes;
    options.founders = 3;
    options.snapshot_entries = snapshot_entries;
    world = test_world(&options);
    assert_true(world_begin_cluster(world, 60000));
    return world;
}

static bool same_registry(const struct gossip_control *a, const struct gossip_control *b)
{
    if (gossip_control_volumes(a) != gossip_control_volumes(b))
        return false;
    for (size_t i = 0; i < gossip_control_volumes(a); i++) {
        const struct gossip_volume *x = gossip_control_volume_at(a, i), *y = gossip_control_volume(b, &x->id);
        if (y == NULL || strcmp(x->name, y->name) != 0 || x->deleted != y->deleted ||
            x->version != y->version || x->index != y->index ||
            x->configuration.voters_n != y->configuration.voters_n ||
            memcmp(x->configuration.voters, y->configuration.voters,
                   x->configuration.voters_n * sizeof x->configuration.voters[0]) != 0)
            return false;
    }
    return true;
}

struct all {
    struct world *world;
    size_t nodes;
};

static bool all_agree(void *context)
{
    const struct all *all = context;
    for (size_t i = 0; i < all->nodes; i++)
        if (!world_is_up(all->world, i) ||
            !same_registry(control_of(all->world, 0), control_of(all->world, i)))
            return false;
    return true;
}

static void expect_agreement(struct world *world, size_t nodes)
{
    struct all all = {world, nodes};
    assert_true(world_run_until(world, all_agree, &all, 60000));
    test_sound(world);
}

static void verbs_from_any_node(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= trials(5); seed++) {
        struct world *world = begun(seed, 5 /* two of them caches */, 0);
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_CREATE, "a", NULL), 0);
        assert_int_equal(ask(world, 4, GOSSIP_CONTROL_CREATE, "a", NULL), REPLICA_E_EXISTS);
        assert_int_equal(ask(world, 4, GOSSIP_CONTROL_CREATE, "b", NULL), 0);
        assert_int_equal(ask(world, 1, GOSSIP_CONTROL_RENAME, "a", "b"), REPLICA_E_EXISTS);
        assert_int_equal(ask(world, 1, GOSSIP_CONTROL_RENAME, "a", "c"), 0);
        assert_int_equal(ask(world, 3, GOSSIP_CONTROL_LOOKUP, "a", NULL), REPLICA_E_NOTFOUND);
        assert_int_equal(ask(world, 3, GOSSIP_CONTROL_LOOKUP, "c", NULL), 0);
        assert_non_null(gossip_control_volume_by_name(control_of(world, 3), "c"));
        assert_int_equal(ask(world, 2, GOSSIP_CONTROL_DELETE, "c", NULL), 0);
        assert_int_equal(ask(world, 2, GOSSIP_CONTROL_DELETE, "c", NULL), REPLICA_E_NOTFOUND);
        assert_null(gossip_control_volume_by_name(control_of(world, 2), "c"));
        assert_int_equal(ask(world, 3, GOSSIP_CONTROL_CREATE, "c", NULL),
                         0); /* another volume under the old name */
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_UNDELETE, "c", NULL), REPLICA_E_EXISTS);
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_RENAME, "c", "d"), 0);
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_UNDELETE, "c", NULL), 0);
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_CREATE, "no/slash", NULL), REPLICA_E_INVALID);
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_RENAME, "d", ""), REPLICA_E_INVALID);
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_INIT, NULL, NULL), REPLICA_E_REFUSED);
        expect_agreement(world, 5);
        assert_int_equal(gossip_control_volumes(control_of(world, 4)), 3);
        world_destroy(&world);
    }
}

/* Deleted volumes are kept for a day of the leader's clock, and not a moment less. */
static void what_was_deleted_goes_after_a_day(void **state)
{
    struct world *world = begun(3, 3, 0);
    (void)state;
    assert_int_equal(ask(world, 0, GOSSIP_CONTROL_CREATE, "gone", NULL), 0);
    assert_int_equal(ask(world, 0, GOSSIP_CONTROL_DELETE, "gone", NULL), 0);
    for (size_t i = 0; i < 3; i++)
        world_set_clock(world, i, (int64_t)GOSSIP_DELETED_KEPT_MS - 120000);
    world_run_for(world, 20000);
    assert_int_equal(gossip_control_volumes(control_of(world, 1)), 1);
    for (size_t i = 0; i < 3; i++)
        world_set_clock(world, i, (int64_t)GOSSIP_DELETED_KEPT_MS + 1000);
    world_run_for(world, 120000);
    assert_int_equal(gossip_control_volumes(control_of(world, 1)), 0);
    assert_int_equal(ask(world, 1, GOSSIP_CONTROL_UNDELETE, "gone", NULL), REPLICA_E_NOTFOUND);
    expect_agreement(world, 3);
    world_destroy(&world);
}

/* A member that was away for longer than the log is kept gets a snapshot; so does a cache that comes late; both after a crash at it, too. */
static void snapshots_bring_back_who_was_away(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= trials(8); seed++) {
        struct world *world = begun(seed, 4, 8 /* entries */);
        struct all all = {world, 4};
        char name[16];
        world_crash(world, 2, false);
        world_crash(world, 3, false);
        for (unsigned i = 0; i < 40; i++) {
            snprintf(name, sizeof name, "v%u", i);
            assert_int_equal(ask(world, i % 2, GOSSIP_CONTROL_CREATE, name, NULL), 0);
        }
        world_restart(world, 2);
        world_restart(world, 3);
        if (seed % 2 == 0) {
            world_crash_at_write(world, 2, 1 + seed);
            world_run_for(world, 20000);
            world_crash_at_write(world, 2, 0);
            if (!world_is_up(world, 2))
                world_restart(world, 2);
        }
        assert_true(world_run_until(world, all_agree, &all, 60000));
        assert_int_equal(gossip_control_volumes(control_of(world, 2)), 40);
        world_crash(world, 0, false); /* the one that was away is needed now */
        assert_int_equal(ask(world, 2, GOSSIP_CONTROL_CREATE, "after", NULL), 0);
        world_restart(world, 0);
        expect_agreement(world, 4);
        world_destroy(&world);
    }
}

struct terms {
    struct world *world;
    uint64_t term;
    struct replica_id leader;
};

/* Every member names at most one leader for a term, and all that name one for the same term name the same. */
static bool check_terms(void *context)
{
    struct terms *terms = context;
    for (size_t i = 0; i < 3; i++) {
        struct gossip_control_status status;
        if (!world_is_up(terms->world, i))
            continue;
        gossip_control_status(control_of(terms->world, i), &status);
        if (replica_id_is_zero(&status.leader) || status.term < terms->term)
            continue;
        if (status.term > terms->term) {
            terms->term = status.term;
            terms->leader = status.leader;
        }
        assert_true(replica_id_equal(&terms->leader, &status.leader));
    }
    return false;
}

static void random_operations_under_faults(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= trials(40); seed++) {
        struct world *world = begun(seed, 5, 6 /* entries */);
        struct terms terms = {.world = world};
        struct gossip_random random;
        struct world_call *calls[60];
        char names[60][16];
        gossip_random_init(&random, seed, 77);
        world_set_faults(world, 10 /* % lost */, 10 /* % doubled */, 10 /* % late */);
        for (size_t i = 0; i < 60; i++) {
            size_t node = gossip_random_below(&random, 5), victim = gossip_random_below(&random, 5);
            struct gossip_control_request request = {
                .kind = gossip_random_below(&random, 2) == 0 ? GOSSIP_CONTROL_DELETE : GOSSIP_CONTROL_CREATE,
                .name = names[i],
                .if_missing = true};
            snprintf(names[i], sizeof names[i], "v%u", (unsigned)gossip_random_below(&random, 8));
            if (!world_is_up(world, node))
                world_restart(world, node);
            calls[i] = world_control_start(world, node, &request);
            if (gossip_random_below(&random, 6) == 0 && world_is_up(world, victim))
                world_crash(world, victim, gossip_random_below(&random, 2) == 0);
            world_run_until(world, check_terms, &terms, gossip_random_below(&random, 400));
        }
        world_heal(world);
        for (size_t i = 0; i < 5; i++)
            if (!world_is_up(world, i))
                world_restart(world, i);
        for (size_t i = 0; i < 60; i++)
            assert_int_not_equal(world_call_wait(world, calls[i]),
                                 WORLD_PENDING); /* everybody was answered, or died */
        assert_int_equal(ask(world, 0, GOSSIP_CONTROL_CREATE, "last", NULL), 0);
        expect_agreement(world, 5);
        for (size_t i = 0; i < gossip_control_volumes(control_of(world, 0));
             i++) { /* names of live volumes are unique */
            const struct gossip_volume *volume = gossip_control_volume_at(control_of(world, 0), i);
            assert_true(volume->deleted ||
                        gossip_control_volume_by_name(control_of(world, 0), volume->name) == volume);
        }
        world_destroy(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verbs_from_any_node),
        cmocka_unit_test(what_was_deleted_goes_after_a_day),
        cmocka_unit_test(snapshots_bring_back_who_was_away),
        cmocka_unit_test(random_operations_under_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
