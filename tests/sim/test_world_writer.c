/* What a writer is told while voters are slow, full, or not to be written to, and what stays behind at voters
 * afterwards. */
#include "world_support.h"

#include "peer/peer.h"
#include "quorum/quorum_voting.h"
#include "replica/error.h"

#define MIB        ((size_t)1 << 20)
#define TIMEOUT_MS 30000 /* without progress */

static void begin(struct test_three *three, uint64_t seed, size_t nodes)
{
    struct world_options options;
    world_options_default(&options);
    options.seed = seed;
    options.nodes = nodes;
    options.commit_timeout_ms = TIMEOUT_MS;
    test_three_begin(three, &options);
}

static void put_bytes(struct test_three *three, size_t node, const char *path, size_t n, uint64_t seed)
{
    uint8_t *bytes = malloc(n);
    assert_non_null(bytes);
    test_fill(bytes, n, seed);
    assert_int_equal(world_put(three->world, node, &three->views[node], path, bytes, n), 0);
    free(bytes);
}

static void set_disks(struct test_three *three, uint64_t bytes_per_s)
{
    for (size_t voter = 0; voter < 3; voter++)
        world_set_disk(three->world, voter, bytes_per_s);
}

/* One content takes longer than the deadline to come to the voters, but it comes: that is progress. */
static void a_slow_commit_is_legal(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct test_three three;
        uint64_t before;
        size_t writer = seed == 1 ? 0 : 3; /* a voter, or a cache */
        begin(&three, seed, 4);
        set_disks(&three, MIB / 2);
        put_bytes(&three, writer, "model", 40 * MIB, seed);
        before = world_now(three.world);
        assert_int_equal(world_commit(three.world, writer, &three.views[writer]), 0);
        assert_true(world_now(three.world) - before > 2 * TIMEOUT_MS);
        set_disks(&three, 0);
        test_converge(three.world, 600000);
        test_three_end(&three);
    }
}

/* When nothing more comes it ends, a deadline after the last that came and not sooner; the drafts are kept. */
static void a_stuck_commit_ends(void **state)
{
    struct test_three three;
    struct world_call *commit;
    uint64_t before;
    (void)state;
    begin(&three, 4, 4);
    set_disks(&three, MIB / 2);
    put_bytes(&three, 3, "model", 40 * MIB, 4);
    commit = world_commit_start(three.world, 3, &three.views[3]);
    world_run_for(three.world, 40000);
    assert_int_equal(world_call_code(commit), WORLD_PENDING);
    set_disks(&three, 1); /* what was sent before is still written */
    before = world_now(three.world);
    assert_int_equal(world_call_wait(three.world, commit), REPLICA_E_UNAVAILABLE);
    assert_in_range(world_now(three.world) - before, TIMEOUT_MS - 1000, TIMEOUT_MS + 40000);
    set_disks(&three, 0);
    assert_int_equal(world_commit(three.world, 3, &three.views[3]), 0);
    test_converge(three.world, 600000);
    test_three_end(&three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_commit_is_legal),
        cmocka_unit_test(a_stuck_commit_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
