/* Three peers begin a cluster, create a volume, commit, reload, crash: the main job on virtual time. */
#include "world_support.h"

#include "replica/error.h"

static void commits_are_seen_everywhere(void **state)
{
    struct world_options options;
    struct test_three three;
    static uint8_t large[3 * 1024 * 1024 + 12345];
    struct replica_buffer bytes;
    (void)state;
    world_options_default(&options);
    test_three_begin(&three, &options);
    test_put_text(three.world, 0, &three.views[0], "dir/hello.txt", "hello");
    assert_int_equal(world_commit(three.world, 0, &three.views[0]), 0);
    assert_int_equal(world_reload(three.world, 2, &three.views[2]), 0);
    test_expect_text(three.world, 2, &three.views[2], "dir/hello.txt", "hello");

    test_fill(large, sizeof large, 1);
    assert_int_equal(world_put(three.world, 1, &three.views[1], "large", large, sizeof large), 0);
    assert_int_equal(world_commit(three.world, 1, &three.views[1]), 0);
    assert_int_equal(world_reload(three.world, 0, &three.views[0]), 0);
    replica_buffer_init(&bytes);
    assert_int_equal(world_read(three.world, 0, &three.views[0], "large", &bytes), 0);
    assert_int_equal(bytes.size, sizeof large);
    assert_memory_equal(bytes.data, large, sizeof large);
    replica_buffer_close(&bytes);
    test_converge(three.world, 60000);
    test_three_end(&three);
}

/* Fifty at once, on three nodes, while messages are lost: one volume. */
static void many_creators_make_one_volume(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct world_call *calls[50];
        struct world_options options;
        struct world *world;
        world_options_default(&options);
        options.seed = seed;
        options.loss_percent = 5;
        options.double_percent = 5;
        world = test_world(&options);
        assert_true(world_begin_cluster(world, 60000));
        for (size_t i = 0; i < 50; i++)
            calls[i] = world_create_start(world, i % 3, "one");
        for (size_t i = 0; i < 50; i++)
            assert_int_equal(world_call_wait(world, calls[i]), 0);
        world_run_for(world, 5000);
        for (size_t i = 0; i < 3; i++) {
            const struct gossip_control *control = gossip_peer_control(world_peer(world, i));
            const struct gossip_control *first = gossip_peer_control(world_peer(world, 0));
            assert_int_equal(gossip_control_volumes(control), 1);
            assert_true(replica_id_equal(&gossip_control_volume_at(control, 0)->id,
                                         &gossip_control_volume_at(first, 0)->id));
        }
        test_sound(world);
        world_destroy(&world);
    }
}

/* A cluster begins whatever founder dies at whatever write on the way, and it is one. */
static void founding_survives_crashes(void **state)
{
    (void)state;
    for (uint64_t k = 1; k <= 12; k++)
        for (size_t victim = 0; victim < 3; victim++) {
            struct world_options options;
            struct test_three three;
            world_options_default(&options);
            options.seed = k * 10 + victim;
            three.world = test_world(&options);
            for (size_t i = 0; i < 3; i++) {
                world_boot(three.world, i);
                if (i == victim)
                    world_crash_at_write(three.world, i, k);
            }
            world_run_for(three.world, 4000);
            world_crash_at_write(three.world, victim, 0);
            assert_true(world_begin_cluster(three.world, 60000)); /* boots whoever is down */
            assert_int_equal(world_create_volume(three.world, victim, "models", &three.volume), 0);
            assert_int_equal(world_open_view(three.world, victim, &three.volume, &three.views[victim]), 0);
            test_put_text(three.world, victim, &three.views[victim], "file", "content");
            assert_int_equal(world_commit(three.world, victim, &three.views[victim]), 0);
            test_converge(three.world, 60000);
            for (size_t i = 0; i < 3; i++) {
                struct replica_id one =
                    gossip_control_cluster(gossip_peer_control(world_peer(three.world, 0)));
                struct replica_id own =
                    gossip_control_cluster(gossip_peer_control(world_peer(three.world, i)));
                assert_true(replica_id_equal(&one, &own));
            }
            test_three_end(&three);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commits_are_seen_everywhere),
        cmocka_unit_test(many_creators_make_one_volume),
        cmocka_unit_test(founding_survives_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
