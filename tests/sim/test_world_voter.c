/* What a voter says: only what it would ack, and what it still knows after a loss of power. */
#include "world_support.h"

#include "peer/peer.h"
#include "quorum/quorum_writing.h"
#include "replica/error.h"
#include "replica/merkle.h"

#define SIZE 100000 /* does not travel in the delta */

static void default_three(struct test_three *three, uint64_t seed, size_t nodes)
{
    struct world_options options;
    world_options_default(&options);
    options.seed = seed;
    options.nodes = nodes;
    test_three_begin(three, &options);
}

static const struct replica_volume_state *state_of(const struct test_three *three, size_t node)
{
    return replica_volume_state(world_volume(three->world, node, &three->volume));
}

/* Node 2 hears of no delta from anybody, later only of those that are minted from then on. */
static int keep_from_two(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    const bool *later = context;
    (void)from;
    if (to != 2)
        return 0;
    return room == GOSSIP_ROOM_SYNC || (room == GOSSIP_ROOM_QUORUM && type == QUORUM_REPLICATE && !*later)
               ? 1
               : 0;
}

/* A delta that builds on another, which a voter lacks, is no more than stored by it. */
static void nothing_is_held_without_its_causes(void **state)
{
    size_t stored = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct test_three three;
        struct world *world;
        bool later = false, minted;
        default_three(&three, seed, 3);
        world = three.world;
        world_set_filter(world, keep_from_two, &later);
        test_put_text(world, 0, &three.views[0], "first", "cause");
        assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
        assert_int_equal(world_reload(world, 1, &three.views[1]), 0);
        later = true;
        minted = state_of(&three, 2)->stored.n > 0; /* it was the first's coordinator itself */
        test_put_text(world, 1, &three.views[1], "second", "effect");
        (void)world_commit_start(world, 1, &three.views[1]);
        world_run_for(world, 1500);
        if (state_of(&three, 2)->stored.n > 0 && !minted) /* else the second has the first's coordinator */
            stored++;
        if (!minted)
            assert_int_equal(state_of(&three, 2)->held.n, 0);
        test_converge(world, 60000);
        test_three_end(&three);
    }
    assert_true(stored >= 3);
}

struct watch {
    size_t from; /* of the first outcome */
};

static int see_outcome(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    struct watch *watch = context;
    (void)to;
    if (room == GOSSIP_ROOM_QUORUM && type == QUORUM_OUTCOME && watch->from == WORLD_NODE_NONE)
        watch->from = from;
    return 0;
}

static bool is_seen(void *context)
{
    return ((const struct watch *)context)->from != WORLD_NODE_NONE;
}

/* Power is lost at the coordinator right as its word leaves: the next life knows what that one said. */
static void an_outcome_is_not_forgotten(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct watch watch = {.from = WORLD_NODE_NONE};
        struct test_three three;
        struct world *world;
        default_three(&three, seed, 4);
        world = three.world;
        world_set_filter(world, see_outcome, &watch);
        test_put_text(world, 3, &three.views[3], "file", "content");
        (void)world_commit_start(world, 3, &three.views[3]);
        assert_true(world_run_until(world, is_seen, &watch, 10000));
        world_crash(world, watch.from, false);
        world_restart(world, watch.from);
        assert_int_equal(state_of(&three, watch.from)->committed.n, 1);
        test_converge(world, 60000);
        test_three_end(&three);
    }
}

/* Node 1 gets no bytes. Deltas go to it alone, and what a voter says of those that it holds, or how a commit
 * ended, nobody hears. */
static int leave_it_stored(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    const bool *alone = context;
    if (room == GOSSIP_ROOM_SWARM && (from == 1 || to == 1))
        return 1;
    if (room == GOSSIP_ROOM_SYNC)
        return 1;
    if (room == GOSSIP_ROOM_QUORUM && type == QUORUM_REPLICATE && to != 1)
        return 1;
    return *alone && (from == 3 || to == 3) && from != 1 && to != 1 ? 1 : 0;
}

/* A delta came by replication, its bytes did not: that voter does not call its id known. The writer, which was
 * killed and asks again, hears of it alone. */
static void what_is_only_stored_is_not_known(void **state)
{
    static uint8_t bytes[SIZE];
    (void)state;
    test_fill(bytes, sizeof bytes, 7);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        const struct gossip_quorum *quorum;
        struct test_three three;
        struct world *world;
        bool alone = false;
        default_three(&three, seed, 4);
        world = three.world;
        world_set_filter(world, leave_it_stored, &alone);
        assert_int_equal(world_put(world, 3, &three.views[3], "file", bytes, sizeof bytes), 0);
        (void)world_commit_start(world, 3, &three.views[3]);
        world_run_for(world, 2000);
        assert_true(state_of(&three, 1)->stored.n > 0);
        assert_int_equal(state_of(&three, 1)->held.n, 0);
        alone = true;
        world_crash(world, 3, true);
        world_restart(world, 3);
        world_run_for(world, 5000);
        quorum = &world_peer(world, 3)->quorum;
        assert_int_equal(quorum->commits_n, 1);
        assert_int_equal(quorum->commits[0]->phase, COMMIT_PREPARING);
        assert_true(quorum->commits[0]->answers[0].any || quorum->commits[0]->answers[1].any ||
                    quorum->commits[0]->answers[2].any);
        test_converge(world, 120000);
        test_three_end(&three);
    }
}

static int keep_bytes(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    (void)context;
    (void)from;
    (void)to;
    (void)type;
    return room == GOSSIP_ROOM_SWARM ? 1 : 0;
}

static int keep_from_minting(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    (void)context;
    (void)from;
    (void)to;
    return room == GOSSIP_ROOM_QUORUM && type == QUORUM_MINT ? 2 : 0;
}

static bool all_are_ready(void *context)
{
    const struct test_three *three = context;
    const struct gossip_quorum *quorum = &world_peer(three->world, 3)->quorum;
    size_t ready = 0;
    for (size_t i = 0; quorum->commits_n == 1 && i < 3; i++)
        ready += quorum->commits[0]->answers[i].ready;
    return ready == 3;
}

/* Bytes that were here when a voter said so, and are damaged since: it acks nothing that needs them until they are whole again. */
static void what_is_damaged_is_not_acked(void **state)
{
    static uint8_t bytes[SIZE];
    struct replica_content_id content;
    (void)state;
    test_fill(bytes, sizeof bytes, 9);
    replica_merkle_content(bytes, sizeof bytes, &content);
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct test_three three;
        struct world *world;
        struct world_call *call;
        default_three(&three, seed, 4);
        world = three.world;
        world_set_filter(world, keep_from_minting, NULL);
        assert_int_equal(world_put(world, 3, &three.views[3], "file", bytes, sizeof bytes), 0);
        call = world_commit_start(world, 3, &three.views[3]);
        assert_true(world_run_until(world, all_are_ready, &three, 10000));
        world_run_for(world, 100);
        for (size_t i = 0; i < 3; i++)
            world_damage(world, i, &content);
        world_set_filter(world, keep_bytes, NULL);
        world_release(world);
        world_run_for(world, 5000);
        test_sound(world);
        assert_int_equal(world_call_code(call), WORLD_PENDING);
        world_set_filter(world, NULL, NULL);
        assert_int_equal(world_call_wait(world, call), 0);
        test_converge(world, 120000);
        test_three_end(&three);
    }
}

static enum gossip_member_state seen_from(const struct test_three *three, size_t viewer, size_t node)
{
    struct replica_id store = world_store(three->world, node);
    return gossip_member_find(gossip_peer_member(world_peer(three->world, viewer)), &store)->state;
}

static size_t voters_at(const struct test_three *three, size_t node)
{
    const struct gossip_control *control = gossip_peer_control(world_peer(three->world, node));
    return gossip_control_volume(control, &three->volume)->configuration.voters_n;
}

/* One that is stopped is known to be away at once, keeps its seat, and votes again in its next life. */
static void who_leaves_keeps_its_seat(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++)
        for (size_t node = 0; node < 3; node++) {
            size_t a = (node + 1) % 3, b = (node + 2) % 3;
            struct test_three three;
            default_three(&three, seed, 3);
            test_put_text(three.world, node, &three.views[node], "before", "1");
            assert_int_equal(world_commit(three.world, node, &three.views[node]), 0);
            world_leave(three.world, node);
            assert_int_equal(seen_from(&three, a, node), GOSSIP_MEMBER_LEFT);
            assert_int_equal(seen_from(&three, b, node), GOSSIP_MEMBER_LEFT);
            test_put_text(three.world, a, &three.views[a], "meanwhile", "2");
            assert_int_equal(world_commit(three.world, a, &three.views[a]), 0);
            world_run_for(three.world, 15000);
            assert_int_equal(seen_from(&three, a, node), GOSSIP_MEMBER_LEFT);
            assert_int_equal(voters_at(&three, a), 3);
            world_restart(three.world, node);
            world_run_for(three.world, 5000);
            assert_int_equal(seen_from(&three, a, node), GOSSIP_MEMBER_ALIVE);
            world_crash(three.world, a, false); /* so that its vote is needed */
            test_put_text(three.world, b, &three.views[b], "again", "3");
            assert_int_equal(world_commit(three.world, b, &three.views[b]), 0);
            world_restart(three.world, a);
            test_converge(three.world, 60000);
            test_three_end(&three);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_leaves_keeps_its_seat),    cmocka_unit_test(nothing_is_held_without_its_causes),
        cmocka_unit_test(an_outcome_is_not_forgotten),  cmocka_unit_test(what_is_only_stored_is_not_known),
        cmocka_unit_test(what_is_damaged_is_not_acked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
