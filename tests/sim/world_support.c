#include "world_support.h"

#include <stdio.h>

static void print(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

struct world *test_world(const struct world_options *options)
{
    struct world_options traced = *options;
    if (getenv("REMORA_TRACE") != NULL)
        traced.trace = print;
    return world_new(&traced);
}

void test_sound(const struct world *world)
{
    if (world_failure(world) != NULL)
        fail_msg("%s", world_failure(world));
}

void test_converge(struct world *world, uint64_t ms)
{
    (void)world_converge(world, ms);
    test_sound(world);
}

void test_three_begin(struct test_three *three, const struct world_options *options)
{
    memset(three, 0, sizeof *three);
    three->world = test_world(options);
    assert_true(world_begin_cluster(three->world, 30000));
    assert_int_equal(world_create_volume(three->world, 0, "models", &three->volume), 0);
    for (size_t i = 0; i < options->nodes; i++)
        assert_int_equal(world_open_view(three->world, i, &three->volume, &three->views[i]), 0);
    test_sound(three->world);
}

void test_three_end(struct test_three *three)
{
    test_sound(three->world);
    world_destroy(&three->world);
}

void test_put_text(struct world *world, size_t node, const struct replica_id *view, const char *path,
                   const char *text)
{
    assert_int_equal(world_put(world, node, view, path, text, strlen(text)), 0);
}

void test_expect_text(struct world *world, size_t node, const struct replica_id *view, const char *path,
                      const char *text)
{
    struct replica_buffer bytes;
    replica_buffer_init(&bytes);
    assert_int_equal(world_read(world, node, view, path, &bytes), 0);
    assert_int_equal(bytes.size, strlen(text));
    assert_memory_equal(bytes.data, text, bytes.size);
    replica_buffer_close(&bytes);
}

void test_fill(uint8_t *bytes, size_t n, uint64_t seed)
{
    struct gossip_random random;
    gossip_random_init(&random, seed, 200 /* stream */);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)gossip_random_next(&random);
}
