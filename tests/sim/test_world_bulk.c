/* Much at once: commits of thousands of files, and newcomers that are far behind. */
#include "world_support.h"

#include "replica/error.h"
#include "trials.h"

#include <stdio.h>

#define FILES          6000 /* their op list is a content of its own, and is applied in many steps */
#define FILES_PER_STEP 500
#define DELTAS         600 /* enough that a newcomer is offered an image */

struct many {
    unsigned done, n, round;
};

static int put_many(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    struct many *many = context;
    char text[64], bytes[32];
    for (unsigned i = 0; i < FILES_PER_STEP && many->done < many->n; i++, many->done++) {
        struct replica_path path = {.text = text};
        struct replica_entry entry = {.kind = REPLICA_KIND_FILE, .mode = 0600};
        int rv;
        path.size = (size_t)snprintf(text, sizeof text, "tree/d%u/some-file-with-a-name-%u", many->done % 10,
                                     many->done);
        rv = replica_view_make_parents(view, path, 0, 0, 0, log);
        if (rv != 0)
            return rv;
        entry.size = entry.blob.size =
            (size_t)snprintf(bytes, sizeof bytes, "%u of %u", many->done, many->round);
        entry.blob.data = (const uint8_t *)bytes;
        rv = replica_view_put(view, path, &entry, log);
        if (rv != 0)
            return rv;
    }
    return many->done < many->n ? REPLICA_E_AGAIN : 0;
}

/* Which round the first, a middle and the last file are of; all must be of one: 0 if none is there. */
static unsigned round_seen(struct world *world, size_t node, const struct replica_id *view)
{
    static const unsigned looked_at[] = {0, 17, FILES / 2, FILES - 1};
    unsigned rounds[4] = {0};
    struct replica_buffer bytes;
    replica_buffer_init(&bytes);
    for (size_t i = 0; i < 4; i++) {
        char text[64];
        int rv;
        snprintf(text, sizeof text, "tree/d%u/some-file-with-a-name-%u", looked_at[i] % 10, looked_at[i]);
        rv = world_read(world, node, view, text, &bytes);
        if (rv == 0) {
            unsigned file = 0;
            replica_buffer_append(&bytes, "", 1);
            assert_int_equal(sscanf((const char *)bytes.data, "%u of %u", &file, &rounds[i]), 2);
            assert_int_equal(file, looked_at[i]);
        } else {
            assert_int_equal(rv, REPLICA_E_NOTFOUND);
        }
        assert_int_equal(rounds[i], rounds[0]);
    }
    replica_buffer_close(&bytes);
    return rounds[0];
}

/* A commit of thousands of files appears whole or not at all to readers that reload in a loop, on a voter and
 * on a cache, while nodes crash. */
static void many_files_appear_at_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= trials(6); seed++) {
        struct world_options options;
        struct test_three three;
        struct world *world;
        unsigned last[4] = {0};
        world_options_default(&options);
        options.seed = seed;
        options.nodes = 4;
        test_three_begin(&three, &options);
        world = three.world;
        for (unsigned round = 1; round <= 3; round++) {
            struct many many = {.n = FILES, .round = round};
            struct world_call *commit;
            unsigned turn = 0;
            assert_int_equal(world_edit(world, 0, &three.views[0], put_many, &many), 0);
            commit = world_commit_start(world, 0, &three.views[0]);
            while (world_call_code(commit) == WORLD_PENDING) {
                size_t reader = ++turn % 2 == 0 ? 2 : 3;
                unsigned seen;
                if (world_reload(world, reader, &three.views[reader]) == 0) {
                    seen = round_seen(world, reader, &three.views[reader]);
                    assert_true(seen >= last[reader] && seen <= round);
                    last[reader] = seen;
                }
                if (turn == 2 + seed && round == 2) {
                    world_crash(world, 1, seed % 2 == 0);
                    world_restart(world, 1);
                }
            }
            assert_int_equal(world_call_code(commit), 0);
            for (size_t reader = 1; reader < 4; reader++) {
                assert_int_equal(world_reload(world, reader, &three.views[reader]), 0);
                assert_int_equal(round_seen(world, reader, &three.views[reader]), round);
            }
        }
        test_converge(world, 120000);
        test_three_end(&three);
    }
}

/* A cache that joins after hundreds of commits gets all of it, though it crashes on the way; so does one that
 * was down meanwhile. */
static void newcomers_catch_up(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= trials(8); seed++) {
        struct world_options options;
        struct test_three three;
        struct world *world;
        world_options_default(&options);
        options.seed = seed;
        options.nodes = 5;
        options.loss_percent = seed % 2 == 0 ? 5 : 0;
        test_three_begin(&three, &options);
        world = three.world;
        world_crash(world, 3, false); /* it had opened a view: it is attached, and far behind later */
        world_crash(world, 4, false);
        for (unsigned i = 0; i < DELTAS; i++) {
            char path[32];
            snprintf(path, sizeof path, "d%u/f%u", i % 5, i % 50);
            test_put_text(world, i % 3, &three.views[i % 3], path, path);
            assert_int_equal(world_commit(world, i % 3, &three.views[i % 3]), 0);
        }
        world_restart(world, 3);
        world_crash_at_write(world, 3, 2 + seed);
        world_run_for(world, 3000);
        test_converge(world, 120000);
        for (size_t i = 3; i < 5; i++) {
            assert_int_equal(world_reload(world, i, &three.views[i]), 0);
            test_expect_text(world, i, &three.views[i], "d4/f49", "d4/f49");
            assert_true(replica_volume_state(world_volume(world, i, &three.volume))->base.n >
                        0); /* by an image */
        }
        test_three_end(&three);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_files_appear_at_once),
        cmocka_unit_test(newcomers_catch_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
