/* One node crashes at each of its writes in turn: whatever was acknowledged is there afterwards, and all
 * converge. */
#include "world_support.h"

#include "gossip/peer.h"
#include "replica/error.h"
#include "trials.h"

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
        for (uint64_t seed = 1; seed <= trials(3); seed++)
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

/* One node's disk is full at each of its writes in turn. It goes on giving away and showing what it has, refuses what would have to be
 * written, by name and at once, and holds nobody up; opened again it is as others, whatever of the last batches was kept. */

static int look(struct world *world, size_t node, const struct replica_id *volume)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_OPEN,
                                          .mode = GOSSIP_RELOAD_LOCAL,
                                          .view_options = {.volume = *volume, .flags = REPLICA_VIEW_PRIVATE}};
    struct world_call *call = world_request_start(world, node, &request);
    struct replica_pack_reader reader;
    size_t n;
    int code = world_call_code(call);
    if (code != 0)
        return code;
    replica_pack_reader_init(&reader, world_call_answer(call)->data, world_call_answer(call)->size);
    replica_pack_read_array(&reader, 2, &n);
    request = (struct gossip_peer_request){.kind = GOSSIP_PEER_VIEW_CLOSE};
    replica_pack_read_id(&reader, &request.view);
    return world_call_code(world_request_start(world, node, &request));
}

static int ask(struct world *world, size_t node, enum gossip_peer_request_kind kind,
               const struct replica_id *view)
{
    struct gossip_peer_request request = {.kind = kind, .view = *view, .mode = GOSSIP_RELOAD_QUORUM};
    return world_call_code(world_request_start(world, node, &request));
}

static void full_at(size_t node, uint64_t k, uint64_t seed)
{
    struct world_options options;
    struct test_three three;
    size_t other = (node + 1) % 3;
    world_options_default(&options);
    options.seed = seed;
    options.commit_timeout_ms = 8000;
    test_three_begin(&three, &options);
    world_fail_at_write(three.world, node, k);
    scenario(&three);
    if (world_has_failed(three.world, node)) {
        assert_int_equal(look(three.world, node, &three.volume), 0);
        assert_int_equal(ask(three.world, node, GOSSIP_PEER_COMMIT, &three.views[node]), REPLICA_E_NOSPACE);
        assert_int_equal(ask(three.world, node, GOSSIP_PEER_RELOAD, &three.views[node]), REPLICA_E_NOSPACE);
        assert_int_equal(ask(three.world, node, GOSSIP_PEER_VIEW_CLOSE, &three.views[node]),
                         REPLICA_E_NOSPACE);
        assert_int_equal(world_put(three.world, other, &three.views[other], "still", "x", 1), 0);
        assert_int_equal(world_commit(three.world, other, &three.views[other]), 0);
        assert_true(gossip_member_is_alive(gossip_peer_member(world_peer(three.world, other)),
                                           &(struct replica_id[]){world_store(three.world, node)}[0]));
        world_crash(three.world, node, seed % 2 == 0);
        world_restart(three.world, node);
    }
    if (!world_converge(three.world, 120000))
        print_message("node %zu full at write %llu\n", node, (unsigned long long)k);
    test_three_end(&three);
}

static void a_disk_is_full_at_every_write(void **state)
{
    (void)state;
    for (size_t node = 0; node < 3; node++) {
        uint64_t writes = run(node, 0, 1);
        for (uint64_t k = 1; k <= writes; k++)
            full_at(node, k, k);
    }
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
    for (uint64_t seed = 1; seed <= trials(6); seed++)
        for (uint64_t ms = 0; ms < 700; ms += 7)
            power_lost_at(ms, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writer_crashes_at_every_write),
        cmocka_unit_test(second_writer_crashes_at_every_write),
        cmocka_unit_test(bystander_crashes_at_every_write),
        cmocka_unit_test(a_disk_is_full_at_every_write),
        cmocka_unit_test(power_is_lost_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
