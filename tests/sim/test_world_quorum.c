/* Commit and reload when voters are gone, coordinators die, requests are late and clocks are wrong. */
#include "world_support.h"

#include "quorum/quorum.h" /* message types, for filters */
#include "replica/error.h"

#include <stdio.h>

#define HOUR_MS (3600 * 1000)

static void default_three(struct test_three *three, uint64_t seed, size_t nodes)
{
    struct world_options options;
    world_options_default(&options);
    options.seed = seed;
    options.nodes = nodes;
    test_three_begin(three, &options);
}

/* Two of three voters gone: commit and reload fail with UNAVAILABLE within their deadline and not before, the
 * drafts are kept, and the next commit after one has returned publishes them. */
static void without_a_majority_nothing_happens(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct test_three three;
        struct world *world;
        uint64_t before;
        default_three(&three, seed, 3);
        world = three.world;
        world_crash(world, 1, false);
        world_crash(world, 2, false);
        test_put_text(world, 0, &three.views[0], "kept", "draft");
        before = world_now(world);
        assert_int_equal(world_commit(world, 0, &three.views[0]), REPLICA_E_UNAVAILABLE);
        assert_in_range(world_now(world) - before, 10000, 13000);
        before = world_now(world);
        assert_int_equal(world_reload(world, 0, &three.views[0]), REPLICA_E_UNAVAILABLE);
        assert_in_range(world_now(world) - before, 10000, 13000);
        test_expect_text(world, 0, &three.views[0], "kept", "draft");
        world_restart(world, 2);
        assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
        assert_int_equal(world_reload(world, 2, &three.views[2]), 0);
        test_expect_text(world, 2, &three.views[2], "kept", "draft");
        test_converge(world, 60000);
        test_three_end(&three);
    }
}

/* A commit that was only frozen when its node died is thawed by the next life: its drafts are dirty again,
 * and the next commit publishes them. */
static void thawed_drafts_are_published(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct test_three three;
        struct world_call *call;
        struct world *world;
        default_three(&three, seed, 3);
        world = three.world;
        world_isolate(world, 0);
        test_put_text(world, 0, &three.views[0], "kept", "draft");
        call = world_commit_start(world, 0, &three.views[0]);
        world_run_for(world, 2000);
        assert_int_equal(world_call_code(call), WORLD_PENDING);
        world_crash(world, 0, seed % 2 == 0 /* lose nothing */);
        world_heal(world);
        world_restart(world, 0);
        test_expect_text(world, 0, &three.views[0], "kept", "draft");
        assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
        assert_int_equal(world_acknowledged(world), 1);
        assert_int_equal(world_reload(world, 1, &three.views[1]), 0);
        test_expect_text(world, 1, &three.views[1], "kept", "draft");
        test_converge(world, 60000);
        test_three_end(&three);
    }
}

static int count(void *context, const struct replica_version *version)
{
    (void)version;
    (*(size_t *)context)++;
    return 0;
}

static size_t versions_of(const struct test_three *three, size_t node, const char *path)
{
    struct replica_path where = {path, strlen(path)};
    size_t n = 0;
    assert_int_equal(replica_map_history(replica_volume_map(world_volume(three->world, node, &three->volume)),
                                         where, count, &n),
                     0);
    return n;
}

/* A cache commits while one voter, which may be its coordinator, dies at its k-th write: the commit succeeds
 * through the others, or its fate is learnt later; it is the same everywhere, and the retry is no second
 * commit. Returns the writes of an undisturbed run. */
static uint64_t kill_a_voter(size_t victim, uint64_t k, uint64_t seed)
{
    struct test_three three;
    uint64_t before, writes;
    int code;
    default_three(&three, seed, 4);
    test_put_text(three.world, 3, &three.views[3], "file", "content");
    before = world_writes(three.world, victim);
    if (k > 0)
        world_crash_at_write(three.world, victim, k);
    code = world_commit(three.world, 3, &three.views[3]);
    writes = world_writes(three.world, victim) - before;
    assert_true(code == 0 || code == REPLICA_E_INDETERMINATE || code == REPLICA_E_UNAVAILABLE);
    if (victim != 3)
        assert_int_equal(code, 0); /* a majority was there all the time */
    test_converge(three.world, 120000);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(versions_of(&three, i, "file"), 1);
    test_three_end(&three);
    return writes;
}

static void coordinator_dies_at_any_point(void **state)
{
    (void)state;
    for (size_t victim = 0; victim < 3; victim++)
        for (uint64_t seed = 1; seed <= 5; seed++) {
            uint64_t writes = kill_a_voter(victim, 0, seed);
            for (uint64_t k = 1; k <= writes; k++)
                (void)kill_a_voter(victim, k, seed);
        }
}

/* The first request to mint is held back on its way. */
struct late {
    size_t held, to;
};

static int hold_first_mint(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    struct late *late = context;
    (void)from;
    if (room != GOSSIP_ROOM_QUORUM || type != QUORUM_MINT || late->held > 0)
        return 0;
    late->held++;
    late->to = to;
    return 2;
}

/* Delayed at one coordinator, retried at another, acknowledged, then the file is removed: the late copy does
 * not bring it back. */
static void late_request_is_no_second_commit(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct test_three three;
        struct replica_buffer bytes;
        struct late late = {.held = 0};
        struct world *world;
        default_three(&three, seed, 4);
        world = three.world;
        world_set_filter(world, hold_first_mint, &late);
        test_put_text(world, 3, &three.views[3], "file", "content");
        assert_int_equal(world_commit(world, 3, &three.views[3]), 0);
        assert_int_equal(late.held, 1);
        assert_int_equal(world_reload(world, 0, &three.views[0]), 0);
        assert_int_equal(world_remove(world, 0, &three.views[0], "file"), 0);
        assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
        world_release(world);
        world_run_for(world, 5000);
        replica_buffer_init(&bytes);
        for (size_t i = 0; i < 4; i++) {
            assert_int_equal(world_reload(world, i, &three.views[i]), 0);
            assert_int_equal(world_read(world, i, &three.views[i], "file", &bytes), REPLICA_E_NOTFOUND);
        }
        replica_buffer_close(&bytes);
        test_converge(world, 60000);
        test_three_end(&three);
    }
}

/* One wall clock is an hour off: what was committed later still wins, on both sides, and the volume stays
 * usable when the clock is right again. */
static void wrong_clock(int64_t offset_ms, uint64_t seed)
{
    struct test_three three;
    struct world *world;
    default_three(&three, seed, 3);
    world = three.world;
    world_set_clock(world, 1, offset_ms);
    for (unsigned round = 0; round < 6; round++) {
        size_t writer = round % 3;
        char text[32];
        snprintf(text, sizeof text, "round %u", round);
        test_put_text(world, writer, &three.views[writer], "file", text);
        assert_int_equal(world_commit(world, writer, &three.views[writer]), 0);
        if (round == 3)
            world_set_clock(world, 1, 0);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(world_reload(world, i, &three.views[i]), 0);
            test_expect_text(world, i, &three.views[i], "file", text);
        }
    }
    test_converge(world, 60000);
    test_three_end(&three);
}

static void clocks_an_hour_off(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        wrong_clock(-HOUR_MS, seed);
        wrong_clock(HOUR_MS, seed);
    }
}

/* Two views on one node: neither's commit publishes the other's drafts, neither's reload moves the other. */
static void views_are_apart(void **state)
{
    struct test_three three;
    struct replica_id second;
    struct replica_buffer bytes;
    struct world *world;
    (void)state;
    default_three(&three, 1, 3);
    world = three.world;
    replica_buffer_init(&bytes);
    assert_int_equal(world_open_view(world, 0, &three.volume, &second), 0);
    test_put_text(world, 0, &three.views[0], "mine", "1");
    test_put_text(world, 0, &second, "yours", "2");
    assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
    assert_int_equal(world_read(world, 0, &second, "mine", &bytes), REPLICA_E_NOTFOUND);
    assert_int_equal(world_reload(world, 1, &three.views[1]), 0);
    test_expect_text(world, 1, &three.views[1], "mine", "1");
    assert_int_equal(world_read(world, 1, &three.views[1], "yours", &bytes), REPLICA_E_NOTFOUND);
    assert_int_equal(world_commit(world, 0, &second), 0);
    assert_int_equal(world_read(world, 0, &three.views[0], "yours", &bytes), REPLICA_E_NOTFOUND);
    assert_int_equal(world_reload(world, 0, &second), 0);
    test_expect_text(world, 0, &second, "mine", "1");
    assert_int_equal(world_read(world, 0, &three.views[0], "yours", &bytes), REPLICA_E_NOTFOUND);
    replica_buffer_close(&bytes);
    test_converge(world, 60000);
    test_three_end(&three);
}

/* A node that was down during many commits catches up; so does the whole cluster after a loss of power. */
static void those_that_were_down_catch_up(void **state)
{
    struct test_three three;
    struct world *world;
    (void)state;
    default_three(&three, 2, 3);
    world = three.world;
    world_crash(world, 2, false);
    for (unsigned i = 0; i < 300; i++) {
        char path[32];
        snprintf(path, sizeof path, "d%u/f%u", i % 7, i);
        test_put_text(world, i % 2, &three.views[i % 2], path, path);
        assert_int_equal(world_commit(world, i % 2, &three.views[i % 2]), 0);
    }
    world_restart(world, 2);
    world_run_for(world, 20000);
    for (size_t i = 0; i < 3; i++)
        world_crash(world, i, false);
    test_converge(world, 60000);
    assert_int_equal(world_reload(world, 2, &three.views[2]), 0);
    test_expect_text(world, 2, &three.views[2], "d5/f299", "d5/f299");
    assert_int_equal(world_acknowledged(world), 300);
    test_three_end(&three);
}

/* Voters replicate nothing to each other, and node 1 gets no bytes, but whoever asks for a delta may pull it.
 */
static int hush_voters(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    (void)context;
    if (room == GOSSIP_ROOM_SWARM && (from == 1 || to == 1))
        return 1;
    return from < 3 && to < 3 && room == GOSSIP_ROOM_QUORUM && type == QUORUM_REPLICATE ? 1 : 0;
}

/* A dot that only one voter holds is driven to a majority before a reload shows it: else one that begins
 * later, when that voter is gone, would show less. The reader is a cache, or a voter that lacks the bytes: it
 * is no holder itself. */
static void reload_drives_what_it_shows(void **state)
{
    static uint8_t large[100000]; /* does not travel in the delta */
    size_t shown = 0;
    (void)state;
    test_fill(large, sizeof large, 5);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        size_t reader = seed % 4 == 0 ? 3 : 1;
        struct replica_version version;
        struct test_three three;
        struct world *world;
        int code;
        default_three(&three, seed, 4);
        world = three.world;
        replica_version_init(&version);
        world_set_filter(world, hush_voters, NULL);
        assert_int_equal(world_put(world, 0, &three.views[0], "file", large, sizeof large), 0);
        (void)world_commit_start(world, 0, &three.views[0]);
        world_run_for(world, 100 + 10 * (seed % 10));
        (void)world_reload(world, reader, &three.views[reader]);
        shown += replica_view_lookup(
                     replica_view_find(gossip_peer_views(world_peer(world, reader)), &three.views[reader]),
                     (struct replica_path){"file", 4}, &version) == 0;
        replica_version_close(&version);
        world_crash(world, 0, false);
        /* The oracle compares. What node 2 alone holds by now cannot be driven while node 1 gets no bytes:
         * then nothing is shown. */
        code = world_reload(world, 2, &three.views[2]);
        assert_true(code == 0 || code == REPLICA_E_UNAVAILABLE);
        test_converge(world, 120000);
        test_three_end(&three);
    }
    assert_true(shown > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_majority_nothing_happens),
        cmocka_unit_test(thawed_drafts_are_published),
        cmocka_unit_test(coordinator_dies_at_any_point),
        cmocka_unit_test(late_request_is_no_second_commit),
        cmocka_unit_test(clocks_an_hour_off),
        cmocka_unit_test(reload_drives_what_it_shows),
        cmocka_unit_test(views_are_apart),
        cmocka_unit_test(those_that_were_down_catch_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
