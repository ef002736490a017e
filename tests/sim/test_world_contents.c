/* Contents are let go of only when nothing needs them, whatever the same step is about to name. */
#include "world_support.h"

#include "peer/peer.h"
#include "replica/contents.h"
#include "replica/error.h"
#include "replica/merkle.h"

#include <stdio.h>

#define SIZE 100000 /* lies in a content of its own, and does not travel in the delta */

/* As a put does: names a content that it finds, whole, in the same step. */
struct naming {
    struct replica_contents *contents;
    struct replica_content_id content;
};

static int name_content(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    const struct naming *naming = context;
    struct replica_path path = {"file", 4};
    struct replica_entry entry;
    if (replica_contents_state(naming->contents, &naming->content) < REPLICA_CONTENTS_FILLED)
        return REPLICA_E_ABSENT;
    memset(&entry, 0, sizeof entry);
    entry.kind = REPLICA_KIND_FILE;
    entry.mode = 0644;
    entry.size = naming->content.length;
    entry.blob.kind = REPLICA_BLOB_CONTENT;
    entry.blob.content = naming->content;
    return replica_view_put(view, path, &entry, log);
}

/* A content that a put left unnamed for long is put again in the very step in which collection comes to it. */
static void what_is_named_in_the_step_is_not_collected(void **state)
{
    static uint8_t bytes[SIZE];
    struct world_options options;
    struct test_three three;
    struct naming naming;
    struct gossip_peer *peer;
    struct world *world;
    (void)state;
    world_options_default(&options);
    options.nodes = options.founders = 1;
    test_three_begin(&three, &options);
    world = three.world;
    peer = world_peer(world, 0);
    test_fill(bytes, sizeof bytes, 1);
    naming.contents = peer->contents;
    assert_int_equal(replica_contents_ingest(peer->contents, bytes, sizeof bytes, &naming.content), 0);
    assert_int_equal(replica_contents_sync(peer->contents), 0);
    world_run_for(world, 70000); /* one pass has found it unnamed, the next one would let go of it */
    assert_int_equal(peer->collect.before_n, 1);
    peer->collect.at_ms = world_now(world);
    if (world_edit(world, 0, &three.views[0], name_content, &naming) == 0) {
        assert_int_equal(replica_contents_state(peer->contents, &naming.content), REPLICA_CONTENTS_COMPLETE);
        assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
    }
    test_converge(world, 60000);
    test_three_end(&three);
}

static bool votes_for(const struct world *world, size_t node, const struct replica_id *volume)
{
    struct replica_id store = world_store(world, node);
    return gossip_sync_is_voter(world_peer(world, node)->control, volume, &store);
}

/* Five founders, volumes of three voters each: a node that votes for one volume and not for another. Returns
 * the other's index. */
static size_t make_volumes(struct world *world, struct replica_id volumes[8], size_t *ret_node)
{
    for (size_t i = 0; i < 8; i++) {
        char name[16];
        snprintf(name, sizeof name, "v%zu", i);
        assert_int_equal(world_create_volume(world, 0, name, &volumes[i]), 0);
        for (size_t node = 0; node < 5; node++)
            if (votes_for(world, node, &volumes[0]) && !votes_for(world, node, &volumes[i])) {
                *ret_node = node;
                return i;
            }
    }
    fail_msg("all volumes have the same voters");
    return 0;
}

/* One content in two volumes. After a crash the map of the one that this node caches names it, that of the one
 * it votes for does not yet: there is too much on the node, and what goes is not what it must keep. */
static void a_voter_evicts_nothing_of_its_own(void **state)
{
    static uint8_t bytes[SIZE];
    (void)state;
    test_fill(bytes, sizeof bytes, 2);
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct world_options options;
        struct replica_id volumes[8], own, cached;
        struct world *world;
        size_t node = 0, other;
        world_options_default(&options);
        options.seed = seed;
        options.nodes = options.founders = 5;
        world = test_world(&options);
        assert_true(world_begin_cluster(world, 30000));
        other = make_volumes(world, volumes, &node);
        assert_int_equal(world_open_view(world, node, &volumes[0], &own), 0);
        assert_int_equal(world_open_view(world, node, &volumes[other], &cached), 0);
        assert_int_equal(world_put(world, node, &cached, "a", bytes, sizeof bytes), 0);
        assert_int_equal(world_commit(world, node, &cached), 0);
        assert_int_equal(world_reload(world, node, &cached), 0);
        assert_int_equal(world_put(world, node, &own, "b", bytes, sizeof bytes), 0);
        assert_int_equal(world_commit(world, node, &own), 0);
        assert_int_equal(world_reload(world, node, &own), 0);
        world_run_for(world, 2000);
        world_crash(world, node, false);
        world_restart(world, node);
        memset(world_peer(world, node)->evict.recent, 0, sizeof world_peer(world, node)->evict.recent);
        world_peer(world, node)->evict.limit = 1;
        test_converge(world, 60000);
        test_sound(world);
        world_destroy(&world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_named_in_the_step_is_not_collected),
        cmocka_unit_test(a_voter_evicts_nothing_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
