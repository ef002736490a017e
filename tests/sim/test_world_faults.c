/* One node crashes at each of its writes in turn: whatever was acknowledged is there afterwards, and all
 * converge. */
#include "world_support.h"

#include "replica/error.h"

#include <stdio.h>

#define CONTENT_SIZE 150000 /* does not travel in the record: it goes through the swarm */

/* A fixed scenario: node 0 commits a small file and a larger one, node 1 overwrites and removes, node 2
 * reloads. Calls of a node that is down are skipped; what does not return in time is left to the end. */
static void scenario(struct test_three *three)
{
    static uint8_t bytes[CONTENT_SIZE];
    struct world *world = three->world;
    test_fill(bytes, sizeof bytes, 7);
    (void)world_put(world, 0, &three->views[0], "a/small", "one", 3);
    (void)world_put(world, 0, &three->views[0], "large", bytes, sizeof bytes);
    (void)world_commit(world, 0, &three->views[0]);
    (void)world_reload(world, 1, &three->views[1]);
    (void)world_put(world, 1, &three->views[1], "a/small", "two", 3);
    (void)world_commit(world, 1, &three->views[1]);
    (void)world_reload(world, 0, &three->views[0]);
    (void)world_remove(world, 0, &three->views[0], "large");
    (void)world_put(world, 0, &three->views[0], "b", "three", 5);
    (void)world_commit(world, 0, &three->views[0]);
    (void)world_reload(world, 2, &three->views[2]);
    (void)world_put(world, 2, &three->views[2], "c", "four", 4);
    (void)world_commit(world, 2, &three->views[2]);
}

/* Returns how many writes the node makes in the scenario, if it does not crash. */
static uint64_t run(size_t node, uint64_t k, uint64_t seed)
{
    struct world_options options;
    struct test_three three;
    uint64_t before, writes;
    world_options_default(&options);
    options.seed = seed;
    options.commit_timeout_ms = 8000;
    test_three_begin(&three, &options);
    before = world_writes(three.world, node);
    if (k > 0)
        world_crash_at_write(three.world, node, k);
    scenario(&three);
    writes = world_writes(three.world, node) - before;
    if (!world_converge(three.world, 120000))
        print_message("crash of node %zu at write %llu\n", node, (unsigned long long)k);
    test_three_end(&three);
    return writes;
}

static void crash_at_every_write(size_t node)
{
    uint64_t writes = run(node, 0, 1);
    assert_true(writes > 10);
    for (uint64_t k = 1; k <= writes; k++)
        for (uint64_t seed = 1; seed <= 3; seed++)
            (void)run(node, k, seed);
}

static void writer_crashes_at_every_write(void **state)
{
    (void)state;
    crash_at_every_write(0);
}

static void second_writer_crashes_at_every_write(void **state)
{
    (void)state;
    crash_at_every_write(1);
}

static void bystander_crashes_at_every_write(void **state)
{
    (void)state;
    crash_at_every_write(2);
}

/* All nodes lose power at once, at any moment of two commits and a reload; disks are slow, so that much is
 * not synced. */
static void power_lost_at(uint64_t ms, uint64_t seed)
{
    struct world_options options;
    struct test_three three;
    struct world *world;
    world_options_default(&options);
    options.seed = seed;
    options.sync_ms_max = 120;
    test_three_begin(&three, &options);
    world = three.world;
    (void)world_put(world, 0, &three.views[0], "a", "one", 3);
    (void)world_put(world, 1, &three.views[1], "b", "two", 3);
    (void)world_commit_start(world, 0, &three.views[0]);
    (void)world_commit_start(world, 1, &three.views[1]);
    world_run_for(world, ms / 2);
    (void)world_reload_start(world, 2, &three.views[2]);
    world_run_for(world, ms - ms / 2);
    for (size_t i = 0; i < 3; i++)
        world_crash(world, i, false);
    for (size_t i = 0; i < 3; i++)
        world_restart(world, i);
    (void)world_reload(world, (size_t)(seed % 3), &three.views[seed % 3]);
    if (!world_converge(world, 120000))
        print_message("power lost after %llu ms\n", (unsigned long long)ms);
    test_three_end(&three);
}

static void power_is_lost_at_any_moment(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++)
        for (uint64_t ms = 0; ms < 700; ms += 7)
            power_lost_at(ms, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writer_crashes_at_every_write),
        cmocka_unit_test(second_writer_crashes_at_every_write),
        cmocka_unit_test(bystander_crashes_at_every_write),
        cmocka_unit_test(power_is_lost_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
