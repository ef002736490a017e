/* Images between nodes: a newcomer that is far behind stands where its giver stood, however it went. */
#include "world_support.h"

#include "replica/error.h"
#include "trials.h"

#include <stdio.h>

enum { SYNC_DELTAS = 3, SYNC_PUSH = 4, SYNC_IMAGE_OFFER = 5, SYNC_IMAGE_PULL = 6, SYNC_IMAGE_PART = 7 };

#define VOTERS   3
#define NEWCOMER 3 /* node: a cache, attached before its first life ends */
#define DIRS     7
#define FILES    900 /* names altogether: an image of several parts */

/* What passes to and from the newcomer. */
struct gate {
    unsigned parts, parts_max; /* parts let through, at most; 0: any number */
    unsigned offers, pulls;
};

static int gate(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    struct gate *gate = context;
    (void)from;
    if (room != GOSSIP_ROOM_SYNC)
        return 0;
    gate->offers += type == SYNC_IMAGE_OFFER && to == NEWCOMER;
    gate->pulls += type == SYNC_IMAGE_PULL;
    if (type != SYNC_IMAGE_PART)
        return 0;
    if (gate->parts_max > 0 && gate->parts >= gate->parts_max)
        return 1;
    gate->parts++;
    return 0;
}

static void commit(struct test_three *three, size_t node, unsigned number)
{
    char path[32], text[16];
    snprintf(path, sizeof path, "d%u/f%u", number % DIRS, number % FILES);
    snprintf(text, sizeof text, "%u", number);
    test_put_text(three->world, node, &three->views[node], path, text);
    if (number % 10 == 9 && number >= FILES) {
        snprintf(path, sizeof path, "d%u/f%u", (number - 6) % DIRS, (number - 6) % FILES); /* its own */
        assert_int_equal(world_remove(three->world, node, &three->views[node], path), 0);
    }
    assert_int_equal(world_commit(three->world, node, &three->views[node]), 0);
}

struct at {
    struct world *world;
    struct replica_id volume;
    uint64_t applied_seq;
    unsigned *count, least;
};

static bool image_is_adopted(void *context)
{
    struct at *at = context;
    struct replica_volume *volume = world_volume(at->world, NEWCOMER, &at->volume);
    return volume != NULL && replica_volume_state(volume)->applied_seq > 0;
}

static bool counted(void *context)
{
    struct at *at = context;
    return *at->count >= at->least;
}

static void same_state(const struct test_three *three, size_t node, size_t other)
{
    static const char *const names[DIRS] = {"d0", "d1", "d2", "d3", "d4", "d5", "d6"};
    struct replica_volume *a = world_volume(three->world, node, &three->volume);
    struct replica_volume *b = world_volume(three->world, other, &three->volume);
    const struct replica_volume_state *of_a = replica_volume_state(a), *of_b = replica_volume_state(b);
    uint8_t scanned[REPLICA_HASH_SIZE];
    assert_true(replica_vector_equal(&of_a->applied, &of_b->applied));
    assert_memory_equal(of_a->totals.state_hash, of_b->totals.state_hash, REPLICA_HASH_SIZE);
    assert_int_equal(of_a->totals.inodes, of_b->totals.inodes);
    assert_int_equal(of_a->totals.bytes, of_b->totals.bytes);
    assert_int_equal(replica_map_state_hash(replica_volume_map(a), of_a->applied_seq, scanned), 0);
    assert_memory_equal(scanned, of_b->totals.state_hash, sizeof scanned);
    for (size_t i = 0; i < DIRS; i++) {
        struct replica_path dir = {.text = names[i], .size = 2};
        uint64_t n[2];
        assert_int_equal(replica_map_children(replica_volume_map(a), dir, of_a->applied_seq, &n[0]), 0);
        assert_int_equal(replica_map_children(replica_volume_map(b), dir, of_b->applied_seq, &n[1]), 0);
        assert_int_equal(n[0], n[1]);
    }
}

static void begin(struct test_three *three, uint64_t seed)
{
    struct world_options options;
    world_options_default(&options);
    options.seed = seed;
    options.nodes = VOTERS + 1;
    test_three_begin(three, &options);
    world_crash(three->world, NEWCOMER, false);
}

/* A newcomer that attaches to a volume of 1,000 commits takes an image, though its giver goes on committing,
 * stands where the giver stood when it offered, and follows the log from there. */
static void a_newcomer_takes_an_image_then_follows_the_log(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= trials(2); seed++) {
        struct test_three three;
        struct gate open = {.parts = 0};
        struct at at;
        unsigned number = 0;
        begin(&three, seed);
        at = (struct at){.world = three.world, .volume = three.volume, .count = &open.parts, .least = 1};
        for (; number < 1000; number++)
            commit(&three, number % VOTERS, number);
        world_set_filter(three.world, gate, &open);
        world_restart(three.world, NEWCOMER);
        assert_true(world_run_until(three.world, counted, &at, 30000));
        commit(&three, 0, number++);
        commit(&three, 1, number++);
        assert_true(world_run_until(three.world, image_is_adopted, &at, 60000));
        assert_true(open.parts > 2);
        /* One place for the whole image; the rest came by the log. */
        assert_true(replica_volume_state(world_volume(three.world, NEWCOMER, &three.volume))->applied_seq <=
                    3);
        commit(&three, 2, number++);
        open.offers = open.pulls = 0;
        assert_int_equal(world_reload(three.world, NEWCOMER, &three.views[NEWCOMER]), 0);
        test_converge(three.world, 120000);
        assert_int_equal(open.offers + open.pulls, 0);
        same_state(&three, NEWCOMER, 0);
        world_crash(three.world, NEWCOMER, false);
        world_restart(three.world, NEWCOMER);
        commit(&three, 0, number++);
        test_converge(three.world, 120000);
        same_state(&three, NEWCOMER, 0);
        test_three_end(&three);
    }
}

/* The giver vanishes when a part of its image is here, and the only voter left knows just the first commits:
 * the newcomer shows these and nothing of the image, also if it lost power in between. */
static void nothing_of_an_image_that_was_given_up_is_shown(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= trials(6); seed++) {
        struct test_three three;
        struct gate narrow = {.parts_max = 1 + (unsigned)seed % 2};
        struct at at;
        unsigned number = 0;
        begin(&three, seed);
        at = (struct at){
            .world = three.world, .volume = three.volume, .count = &narrow.parts, .least = narrow.parts_max};
        for (; number < 20; number++)
            commit(&three, 0, number);
        test_sound(three.world);
        world_run_for(three.world, 3000);
        world_isolate(three.world, 2); /* stays behind */
        for (; number < 1000; number++)
            commit(&three, number % 2, number);
        world_set_filter(three.world, gate, &narrow);
        world_restart(three.world, NEWCOMER);
        assert_true(world_run_until(three.world, counted, &at, 60000));
        world_run_for(three.world, 200);
        world_heal(three.world);
        for (size_t giver = 0; giver < 2; giver++)
            world_isolate(three.world, giver);
        if (seed > 3) {
            world_crash(three.world, NEWCOMER, seed == 4);
            world_restart(three.world, NEWCOMER);
        }
        assert_true(world_run_until(three.world, image_is_adopted, &at, 120000));
        world_run_for(three.world, 5000);
        same_state(&three, NEWCOMER, 2);
        narrow.parts_max = 0;
        world_heal(three.world);
        test_converge(three.world, 120000);
        same_state(&three, NEWCOMER, 0);
        test_three_end(&three);
    }
}

/* A newcomer loses power at each of its writes in turn while it takes an image. */
static void an_image_survives_a_crash_at_every_write(void **state)
{
    struct test_three three;
    struct gate open = {.parts = 0};
    unsigned number = 0;
    (void)state;
    begin(&three, 1);
    for (; number < 950; number++)
        commit(&three, number % VOTERS, number);
    world_set_filter(three.world, gate, &open);
    for (uint64_t k = 1; k <= 16; k++) {
        struct at at = {.world = three.world, .volume = three.volume};
        if (world_is_up(three.world, NEWCOMER))
            world_crash(three.world, NEWCOMER, false);
        world_restart(three.world, NEWCOMER);
        world_crash_at_write(three.world, NEWCOMER, k);
        (void)world_run_until(three.world, image_is_adopted, &at, 8000);
        test_sound(three.world);
    }
    world_crash_at_write(three.world, NEWCOMER, 0);
    test_converge(three.world, 120000);
    same_state(&three, NEWCOMER, 0);
    assert_true(open.parts > 3);
    test_three_end(&three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_newcomer_takes_an_image_then_follows_the_log),
        cmocka_unit_test(nothing_of_an_image_that_was_given_up_is_shown),
        cmocka_unit_test(an_image_survives_a_crash_at_every_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
