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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commits_are_seen_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
