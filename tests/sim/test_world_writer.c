/* What a writer is told while voters are slow, full, or not to be written to, and what stays behind at voters
 * afterwards. */
#include "world_support.h"

#include "peer/peer.h"
#include "quorum/quorum_voting.h"
#include "quorum/quorum_writing.h"
#include "replica/error.h"
#include "replica/merkle.h"

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

/* Room */

/* Who needs two of three to keep it hears at once that they are full, and why; with room again the same commit works. */
static void full_voters_refuse(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct test_three three;
        uint64_t before;
        size_t writer = seed % 2 == 0 ? 0 : 3;
        begin(&three, seed, 4);
        put_bytes(&three, writer, "model", 3 * MIB, seed);
        world_run_for(three.world, 1000);
        world_fill_disk(three.world, 1, true);
        world_fill_disk(three.world, 2, true);
        before = world_now(three.world);
        assert_int_equal(world_commit(three.world, writer, &three.views[writer]), REPLICA_E_NOSPACE);
        assert_true(world_now(three.world) - before < 5000);
        assert_int_equal(world_commit(three.world, writer, &three.views[writer]), REPLICA_E_NOSPACE);
        world_fill_disk(three.world, 1, false);
        before = world_now(three.world);
        assert_int_equal(world_commit(three.world, writer, &three.views[writer]), 0);
        assert_true(world_now(three.world) - before < 15000);
        world_fill_disk(three.world, 2, false);
        test_converge(three.world, 120000);
        test_three_end(&three);
    }
}

/* One full voter is no majority; it comes after when there is room. */
static void one_full_voter_is_done_without(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct test_three three;
        uint64_t before;
        begin(&three, seed, 4);
        put_bytes(&three, 3, "model", 3 * MIB, seed);
        world_fill_disk(three.world, seed % 3, true);
        before = world_now(three.world);
        assert_int_equal(world_commit(three.world, 3, &three.views[3]), 0);
        assert_true(world_now(three.world) - before < 5000);
        world_fill_disk(three.world, seed % 3, false);
        test_converge(three.world, 120000);
        test_three_end(&three);
    }
}

/* Rights */

/* Node 3 may use one volume only: the others know it at once, it does in its next life. */
static void limit_rights(struct world *world, const char *volume, bool read_only)
{
    struct gossip_principal principal = {.role = GOSSIP_ROLE_CACHE, .volumes_n = 1};
    struct replica_hash hash;
    replica_hash_bytes(volume, strlen(volume), &hash);
    memcpy(principal.volumes[0].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE);
    principal.volumes[0].read_only = read_only;
    world_set_principal(world, 3, &principal);
}

static bool says(const struct world_call *call, const char *word)
{
    const struct replica_buffer *answer = world_call_answer(call);
    return memmem(answer->data, answer->size, word, strlen(word)) != NULL;
}

static void expect_denied(struct world *world, struct world_call *call)
{
    uint64_t before = world_now(world);
    assert_int_equal(world_call_wait(world, call), REPLICA_E_DENIED);
    assert_true(world_now(world) - before < 2000);
    assert_true(says(call, "\"models\""));
}

static struct world_call *open_again(struct test_three *three, uint32_t flags)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_OPEN};
    request.view_options.volume = three->volume;
    request.view_options.flags = flags;
    return world_request_start(three->world, 3, &request);
}

/* Read-only: a commit is refused at once, by the voters if the node itself does not know it yet, else before anything
 * leaves it; what is only read goes on. */
static void who_may_not_write_is_told(void **state)
{
    struct test_three three;
    (void)state;
    begin(&three, 1, 4);
    test_put_text(three.world, 3, &three.views[3], "mine", "draft");
    limit_rights(three.world, "models", true);
    expect_denied(three.world, world_commit_start(three.world, 3, &three.views[3]));
    assert_int_equal(world_reload(three.world, 3, &three.views[3]), 0);
    world_crash(three.world, 3, true);
    world_restart(three.world, 3);
    world_run_for(three.world, 3000);
    expect_denied(three.world, world_commit_start(three.world, 3, &three.views[3]));
    expect_denied(three.world, open_again(&three, 0));
    assert_int_equal(world_call_wait(three.world, open_again(&three, REPLICA_VIEW_READ_ONLY)), 0);
    assert_int_equal(world_reload(three.world, 3, &three.views[3]), 0);
    test_expect_text(three.world, 3, &three.views[3], "mine", "draft");
    test_three_end(&three);
}

/* The same for who may not even read. */
static void who_may_not_read_is_told(void **state)
{
    struct test_three three;
    (void)state;
    begin(&three, 1, 4);
    limit_rights(three.world, "other", false);
    expect_denied(three.world, world_reload_start(three.world, 3, &three.views[3]));
    expect_denied(three.world, open_again(&three, REPLICA_VIEW_READ_ONLY));
    world_crash(three.world, 3, true);
    world_restart(three.world, 3);
    world_run_for(three.world, 3000);
    expect_denied(three.world, world_reload_start(three.world, 3, &three.views[3]));
    expect_denied(three.world, open_again(&three, REPLICA_VIEW_READ_ONLY));
    test_three_end(&three);
}

static int silence_one(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    (void)context;
    (void)to;
    return from == 1 && room == GOSSIP_ROOM_QUORUM && type == QUORUM_PREPARED ? 1 : 0;
}

/* As if voter 1 had sent it to node 3. */
static void forge_refusal(struct test_three *three, int code)
{
    struct gossip_peer *peer = world_peer(three->world, 3);
    struct gossip_principal voter = {
        .store = world_store(three->world, 1), .role = GOSSIP_ROLE_VOTER, .every_volume = true};
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_MESSAGE, .room = GOSSIP_ROOM_QUORUM};
    const struct commit *commit = peer->quorum.commits[0];
    struct replica_dot none = {.seq = 0};
    struct replica_buffer payload;
    struct gossip_update update;
    assert_int_equal(peer->quorum.commits_n, 1);
    replica_buffer_init(&payload);
    gossip_update_init(&update);
    replica_pack_array(&payload, 11);
    replica_pack_id(&payload, &three->volume);
    replica_pack_id(&payload, &commit->id);
    replica_pack_uint(&payload, commit->epoch);
    replica_pack_uint(&payload, commit->config_phase);
    replica_pack_uint(&payload, QUORUM_VERDICT_REFUSED);
    replica_pack_int(&payload, code);
    for (int i = 0; i < 2; i++)
        replica_pack_uint(&payload, 1);
    replica_pack_dot(&payload, &none);
    for (int i = 0; i < 2; i++)
        replica_pack_uint(&payload, 0);
    event.time = (struct gossip_time){.now_ms = world_now(three->world), .wall_ms = 1};
    event.message = (struct gossip_message){
        .from = &voter, .type = QUORUM_PREPARED, .payload = payload.data, .size = payload.size};
    assert_int_equal(gossip_peer_step(peer, &event, &update), 0);
    assert_int_equal(gossip_peer_malformed(peer), 0);
    assert_true(commit
                    ->answers[quorum_voter_index(&quorum_volume(&peer->quorum, &three->volume)->configuration,
                                                 &voter.store)]
                    .refused);
    for (size_t i = 0; i < update.answers_n; i++)
        assert_false(update.answers[i].final);
    assert_int_equal(update.log.count, 0);
    gossip_update_close(&update);
    replica_buffer_close(&payload);
}

/* One voter that says no, whatever the reason, does not end a commit that the two others take. */
static void one_voter_alone_refuses_nothing(void **state)
{
    static const int codes[] = {REPLICA_E_DENIED, REPLICA_E_NOSPACE, REPLICA_E_DELETED};
    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        struct test_three three;
        struct world_call *commit;
        begin(&three, i + 1, 4);
        world_set_filter(three.world, silence_one, NULL);
        set_disks(&three, MIB);
        put_bytes(&three, 3, "model", 5 * MIB, 1);
        commit = world_commit_start(three.world, 3, &three.views[3]);
        world_run_for(three.world, 2000);
        assert_int_equal(world_call_code(commit), WORLD_PENDING);
        forge_refusal(&three, codes[i]);
        assert_int_equal(world_call_wait(three.world, commit), 0);
        test_converge(three.world, 120000);
        test_three_end(&three);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_commit_is_legal),
        cmocka_unit_test(a_stuck_commit_ends),
        cmocka_unit_test(full_voters_refuse),
        cmocka_unit_test(one_full_voter_is_done_without),
        cmocka_unit_test(who_may_not_write_is_told),
        cmocka_unit_test(who_may_not_read_is_told),
        cmocka_unit_test(one_voter_alone_refuses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
