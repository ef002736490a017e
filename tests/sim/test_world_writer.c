/* What a writer is told while voters are slow, full, or not to be written to, and what stays behind at voters
 * afterwards. */
#include "world_support.h"

#include "peer/peer.h"
#include "quorum/quorum_voting.h"
#include "quorum/quorum_writing.h"
#include "replica/error.h"
#include "replica/hlc.h"
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

/* What stays behind */

static int count_one(void *context, const uint8_t *record, size_t n)
{
    (void)record;
    (void)n;
    ++*(size_t *)context;
    return 0;
}

static size_t proposals(const struct test_three *three, size_t voter)
{
    size_t n = 0;
    assert_int_equal(
        replica_volume_proposals(world_volume(three->world, voter, &three->volume), count_one, &n), 0);
    return n;
}

static size_t pins(const struct test_three *three, size_t voter)
{
    struct replica_kv_cursor *cursor;
    size_t n = 0, key_n;
    const uint8_t *key;
    assert_int_equal(replica_kv_cursor_open(world_peer(three->world, voter)->log, &cursor), 0);
    for (replica_kv_cursor_seek(cursor, "q", 1); replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        replica_kv_cursor_key(cursor, &key, &key_n);
        n += key[0] == 'q';
    }
    assert_int_equal(replica_kv_cursor_close(&cursor), 0);
    return n;
}

static void expect_kept(const struct test_three *three, size_t n)
{
    for (size_t voter = 0; voter < 3; voter++) {
        struct gossip_swarm_status status;
        gossip_swarm_status(world_peer(three->world, voter)->swarm, &status);
        assert_int_equal(proposals(three, voter), n);
        assert_int_equal(pins(three, voter) > 0, n > 0);
        if (n == 0)
            assert_int_equal(status.fetches, 0);
    }
}

struct losses {
    uint8_t types[4]; /* of quorum's messages: lost */
    bool hold;        /* … or held back */
};

static int lose(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    const struct losses *losses = context;
    for (size_t i = 0; room == GOSSIP_ROOM_QUORUM && from != to && i < 4; i++)
        if (type != 0 && losses->types[i] == type)
            return losses->hold ? 2 : 1;
    return 0;
}

/* A commit that is given up leaves nothing at voters: neither proposals nor pins, and nothing of it is fetched on. The same if they
 * do not hear of it at first, nor in their next life. */
static void what_was_given_up_goes(void **state)
{
    struct losses no_prepared = {.types = {QUORUM_PREPARED}},
                  no_word = {.types = {QUORUM_PREPARED, QUORUM_ABANDON}};
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct test_three three;
        begin(&three, seed, 4);
        if (seed % 2 == 0)
            set_disks(&three, MIB / 32); /* it never comes */
        world_set_filter(three.world, lose, seed <= 3 ? &no_prepared : &no_word);
        put_bytes(&three, 3, "model", 5 * MIB, seed);
        assert_int_equal(world_commit(three.world, 3, &three.views[3]), REPLICA_E_UNAVAILABLE);
        if (seed <= 3) {
            world_run_for(three.world, 2000);
        } else {
            world_run_for(three.world, 200000);
            expect_kept(&three, 1);
            world_set_filter(three.world, NULL, NULL);
            for (size_t voter = 0; voter < 3; voter++) {
                world_crash(three.world, voter, seed == 5);
                world_restart(three.world, voter);
            }
            world_run_for(three.world, 150000);
        }
        expect_kept(&three, 0);
        set_disks(&three, 0);
        world_set_filter(three.world, NULL, NULL);
        assert_int_equal(world_commit(three.world, 3, &three.views[3]), 0);
        test_converge(three.world, 120000);
        expect_kept(&three, 0);
        test_three_end(&three);
    }
}

/* A writer that died before it had a stamp gives its commit up in its next life. */
static void what_an_earlier_life_proposed_goes(void **state)
{
    struct losses losses = {.types = {QUORUM_PREPARED}};
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct test_three three;
        begin(&three, seed, 4);
        world_set_filter(three.world, lose, &losses);
        put_bytes(&three, 3, "model", 2 * MIB, seed);
        (void)world_commit_start(three.world, 3, &three.views[3]);
        world_run_for(three.world, 5000);
        expect_kept(&three, 1);
        world_crash(three.world, 3, seed % 2 == 0);
        world_restart(three.world, 3);
        world_set_filter(three.world, NULL, NULL);
        world_run_for(three.world, 150000);
        expect_kept(&three, 0);
        test_three_end(&three);
    }
}

/* Once somebody may have been asked to mint it, a proposal stays, however long nothing is heard, and whoever says that it was
 * given up; then it is minted. */
static void what_may_be_minted_is_kept(void **state)
{
    struct losses losses = {.types = {QUORUM_MINT}, .hold = true};
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct gossip_principal stranger = {.role = GOSSIP_ROLE_CACHE, .every_volume = true};
        struct test_three three;
        struct replica_buffer payload;
        begin(&three, seed, 4);
        world_set_filter(three.world, lose, &losses);
        put_bytes(&three, 3, "model", 2 * MIB, seed);
        assert_int_equal(world_commit(three.world, 3, &three.views[3]), REPLICA_E_INDETERMINATE);
        memset(stranger.store.bytes, 0xee, sizeof stranger.store.bytes);
        replica_buffer_init(&payload);
        replica_pack_array(&payload, 2);
        replica_pack_id(&payload, &three.volume);
        replica_pack_id(&payload, &world_peer(three.world, 3)->quorum.commits[0]->id);
        for (size_t voter = 0; voter < 3; voter++)
            (void)world_say(three.world, voter, &stranger, GOSSIP_ROOM_QUORUM, QUORUM_ABANDON, &payload,
                            NULL);
        replica_buffer_close(&payload);
        world_crash(three.world, 3, seed % 2 == 0);
        world_run_for(three.world, 200000);
        expect_kept(&three, 1);
        world_restart(three.world, 3);
        world_run_for(three.world, 200000);
        expect_kept(&three, 1);
        world_set_filter(three.world, NULL, NULL);
        world_release(three.world);
        test_converge(three.world, 120000);
        expect_kept(&three, 0);
        test_three_end(&three);
    }
}

/* The n-th proposal of a writer that the world does not know; returns what node 0 says: a verdict and a code. */
static int propose(struct test_three *three, uint8_t store, uint32_t n, size_t size, int *ret_code)
{
    struct gossip_principal writer = {.role = GOSSIP_ROLE_CACHE, .every_volume = true};
    const struct gossip_volume *volume = quorum_volume(&world_peer(three->world, 0)->quorum, &three->volume);
    struct replica_delta *delta = calloc(1, sizeof *delta);
    struct world_heard heard = {.type = 0};
    struct replica_buffer record, payload;
    struct replica_pack_reader reader;
    struct replica_id id;
    uint64_t verdict;
    int64_t code;
    size_t fields;
    assert_non_null(delta);
    memset(writer.store.bytes, store, sizeof writer.store.bytes);
    replica_buffer_init(&record);
    replica_buffer_init(&payload);
    replica_buffer_init(&heard.payload);
    delta->volume = three->volume;
    delta->node = writer.store;
    delta->commit.bytes[0] = store;
    memcpy(delta->commit.bytes + 1, &n, sizeof n);
    delta->time_ms = 1;
    delta->ops_content.length = size; /* an op list that never comes */
    memset(delta->ops_content.root, 7, sizeof delta->ops_content.root);
    replica_delta_pack(&record, delta);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &three->volume);
    replica_pack_uint(&payload, volume->configuration.epoch);
    replica_pack_uint(&payload, volume->configuration.phase);
    replica_pack_bin(&payload, record.data, record.size);
    assert_true(world_say(three->world, 0, &writer, GOSSIP_ROOM_QUORUM, QUORUM_PREPARE, &payload, &heard) >
                0);
    replica_pack_reader_init(&reader, heard.payload.data, heard.payload.size);
    replica_pack_read_array(&reader, 32, &fields);
    replica_pack_read_id(&reader, &id);
    replica_pack_read_id(&reader, &id);
    for (int i = 0; i < 3; i++)
        replica_pack_read_uint(&reader, UINT64_MAX, &verdict);
    replica_pack_read_int(&reader, &code);
    assert_false(reader.failed);
    *ret_code = (int)code;
    replica_buffer_close(&heard.payload);
    replica_buffer_close(&payload);
    replica_buffer_close(&record);
    free(delta);
    return (int)verdict;
}

/* One writer fills no voter: so many proposals, or so many bytes of op lists, and not one more; others go on. */
static void a_writer_has_its_part(void **state)
{
    struct test_three three;
    int code = 0;
    (void)state;
    begin(&three, 1, 4);
    for (uint32_t n = 0; n < COMMITS_MAX; n++) {
        assert_int_equal(propose(&three, 0xee, n, 1000, &code), QUORUM_VERDICT_PENDING);
        assert_int_equal(code, 0);
    }
    assert_int_equal(propose(&three, 0xee, COMMITS_MAX, 1000, &code), QUORUM_VERDICT_PENDING);
    assert_int_equal(code, REPLICA_E_BUSY);
    assert_int_equal(propose(&three, 0xee, 0, 1000, &code), QUORUM_VERDICT_PENDING); /* the same again */
    assert_int_equal(code, 0);
    assert_int_equal(propose(&three, 0xdd, 0, REPLICA_OPS_SIZE_MAX, &code), QUORUM_VERDICT_PENDING);
    assert_int_equal(code, 0);
    assert_int_equal(propose(&three, 0xdd, 1, REPLICA_OPS_SIZE_MAX - 2000, &code), QUORUM_VERDICT_PENDING);
    assert_int_equal(code, 0);
    assert_int_equal(propose(&three, 0xdd, 2, 10000, &code), QUORUM_VERDICT_PENDING);
    assert_int_equal(code, REPLICA_E_BUSY);
    assert_int_equal(proposals(&three, 0), COMMITS_MAX + 2);
    test_put_text(three.world, 3, &three.views[3], "file", "text");
    assert_int_equal(world_commit(three.world, 3, &three.views[3]), 0);
    test_three_end(&three);
}

/* Absurd requests */

static struct world_call *reload_at_least(struct test_three *three, size_t node, uint64_t seq)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_RELOAD,
                                          .view = three->views[node],
                                          .mode = GOSSIP_RELOAD_AT_LEAST,
                                          .timeout_ms = TIMEOUT_MS};
    request.at_least.volume = three->volume;
    request.at_least.epoch = request.at_least.dot.actor.epoch = 1;
    request.at_least.dot.actor.store = world_store(three->world, 0);
    request.at_least.dot.seq = seq;
    return world_request_start(three->world, node, &request);
}

/* A token that names what never was ends by name at its deadline, and makes nobody pull for ever; so does the same asked by
 * whoever speaks to voters directly. */
static void a_token_of_nothing_is_forgotten(void **state)
{
    struct gossip_principal reader = {.role = GOSSIP_ROLE_CACHE, .every_volume = true};
    struct replica_actor actor = {.epoch = 1};
    struct replica_vector target = {.n = 0};
    struct test_three three;
    struct replica_buffer payload;
    struct world_call *call;
    uint64_t before;
    (void)state;
    begin(&three, 1, 4);
    test_put_text(three.world, 0, &three.views[0], "file", "text");
    assert_int_equal(world_commit(three.world, 0, &three.views[0]), 0);
    assert_int_equal(world_call_wait(three.world, reload_at_least(&three, 3, 1)), 0);
    test_expect_text(three.world, 3, &three.views[3], "file", "text");
    before = world_now(three.world);
    call = reload_at_least(&three, 3, (uint64_t)1 << 40);
    assert_int_equal(world_call_wait(three.world, call), REPLICA_E_NOTFOUND);
    assert_in_range(world_now(three.world) - before, TIMEOUT_MS, TIMEOUT_MS + 5000);
    assert_true(says(call, "token"));
    actor.store = world_store(three.world, 0);
    assert_int_equal(replica_vector_set(&target, &actor, (uint64_t)1 << 40), 0);
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &three.volume);
    replica_pack_uint(&payload, 1);
    replica_vector_pack(&payload, &target);
    replica_pack_id(&payload, &actor.store);
    memset(reader.store.bytes, 0xee, sizeof reader.store.bytes);
    for (size_t voter = 0; voter < 3; voter++)
        assert_true(world_say(three.world, voter, &reader, GOSSIP_ROOM_QUORUM, QUORUM_ASK, &payload, NULL) >
                    0);
    replica_buffer_close(&payload);
    world_run_for(three.world, 5000);
    for (size_t node = 0; node < 4; node++) {
        const struct attached *attached = attached_find(&world_peer(three.world, node)->table, &three.volume);
        assert_true(replica_vector_get(&attached->target, &actor) <= 1);
    }
    test_converge(three.world, 60000);
    test_three_end(&three);
}

/* Asks node 0 to mint the commit in flight of node 3, as that would. */
static void ask_to_mint(struct test_three *three, uint64_t hlc)
{
    struct gossip_principal writer = {
        .store = world_store(three->world, 3), .role = GOSSIP_ROLE_CACHE, .every_volume = true};
    const struct commit *commit = world_peer(three->world, 3)->quorum.commits[0];
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 5);
    replica_pack_id(&payload, &three->volume);
    replica_pack_id(&payload, &commit->id);
    replica_pack_uint(&payload, commit->epoch);
    replica_pack_uint(&payload, commit->config_phase);
    replica_pack_uint(&payload, hlc);
    (void)world_say(three->world, 0, &writer, GOSSIP_ROOM_QUORUM, QUORUM_MINT, &payload, NULL);
    replica_buffer_close(&payload);
}

/* A stamp more than a day ahead of all that a voter knows is not minted, one within it is. */
static void stamps_do_not_run_away(void **state)
{
    const uint64_t day_ms = (uint64_t)24 * 3600 * 1000;
    struct losses losses = {.types = {QUORUM_MINT}, .hold = true};
    (void)state;
    for (int within = 0; within < 2; within++) {
        struct test_three three;
        const struct replica_volume_state *volume;
        struct world_call *commit;
        uint64_t now_ms;
        begin(&three, 1, 4);
        world_set_filter(three.world, lose, &losses);
        test_put_text(three.world, 3, &three.views[3], "file", "text");
        commit = world_commit_start(three.world, 3, &three.views[3]);
        world_run_for(three.world, 1000);
        volume = replica_volume_state(world_volume(three.world, 0, &three.volume));
        now_ms = replica_hlc_to_ms(world_peer(three.world, 3)->quorum.commits[0]->stamp.hlc);
        ask_to_mint(&three, within ? replica_hlc_from_ms(now_ms + day_ms) : UINT64_MAX);
        ask_to_mint(&three, replica_hlc_from_ms(now_ms + day_ms + 5000));
        assert_int_equal(volume->stored.n, within);
        if (!within) {
            world_set_filter(three.world, NULL, NULL);
            world_release(three.world);
            assert_int_equal(world_call_wait(three.world, commit), 0);
            test_converge(three.world, 60000);
        } /* else the writer's own stamp is another: not what a writer may do */
        test_three_end(&three);
    }
}

/* A coordinator that lies: under an id that node 1 is prepared for it replicates something else. That the proposal's bytes are
 * there says nothing of the delta's. */
static void another_delta_under_a_prepared_id_is_not_held(void **state)
{
    struct losses losses = {.types = {QUORUM_MINT, QUORUM_REPLICATE}};
    struct replica_delta *delta = calloc(1, sizeof *delta);
    const struct replica_volume_state *volume;
    struct gossip_principal liar = {.role = GOSSIP_ROLE_VOTER, .every_volume = true};
    struct replica_buffer record, payload;
    const struct commit *commit;
    struct test_three three;
    (void)state;
    assert_non_null(delta);
    begin(&three, 1, 4);
    world_set_filter(three.world, lose, &losses);
    put_bytes(&three, 3, "model", 2 * MIB, 1);
    (void)world_commit_start(three.world, 3, &three.views[3]);
    world_run_for(three.world, 5000);
    commit = world_peer(three.world, 3)->quorum.commits[0];
    assert_int_equal(commit->phase, COMMIT_MINTING);
    assert_true(voting_is_prepared(attached_find(&world_peer(three.world, 1)->table, &three.volume)->voting,
                                   commit->epoch, &commit->id));
    assert_int_equal(replica_delta_decode(commit->proposal.data, commit->proposal.size, delta), 0);
    delta->ops = NULL;
    delta->ops_size = 0;
    delta->ops_content.length = 1000;
    memset(delta->ops_content.root, 7, sizeof delta->ops_content.root);
    delta->stamp_hlc = commit->stamp.hlc;
    delta->dot.actor.store = liar.store = world_store(three.world, 0);
    delta->dot.actor.epoch = commit->epoch;
    delta->dot.seq = 1;
    replica_buffer_init(&record);
    replica_buffer_init(&payload);
    replica_delta_pack(&record, delta);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &three.volume);
    replica_pack_uint(&payload, commit->epoch);
    replica_pack_uint(&payload, commit->config_phase);
    replica_pack_bin(&payload, record.data, record.size);
    (void)world_say(three.world, 1, &liar, GOSSIP_ROOM_QUORUM, QUORUM_REPLICATE, &payload, NULL);
    world_run_for(three.world, 1000);
    volume = replica_volume_state(world_volume(three.world, 1, &three.volume));
    assert_int_equal(volume->stored.n, 1);
    assert_int_equal(volume->held.n, 0);
    replica_buffer_close(&payload);
    replica_buffer_close(&record);
    free(delta);
    test_three_end(&three);
}

/* What stores said that vote no more makes room for those that do. */
static void those_that_vote_no_more_are_forgotten(void **state)
{
    struct test_three three;
    (void)state;
    begin(&three, 1, 4);
    for (size_t voter = 0; voter < 3; voter++) {
        struct attached *attached = attached_find(&world_peer(three.world, voter)->table, &three.volume);
        attached->peers_n = GOSSIP_VOTERS_MAX;
        for (size_t i = 0; i < GOSSIP_VOTERS_MAX; i++)
            memset(&attached->peers[i], 0x50 + (int)i, sizeof attached->peers[i].store);
    }
    test_put_text(three.world, 3, &three.views[3], "file", "text");
    assert_int_equal(world_commit(three.world, 3, &three.views[3]), 0);
    test_converge(three.world, 60000);
    test_three_end(&three);
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
        cmocka_unit_test(what_was_given_up_goes),
        cmocka_unit_test(what_an_earlier_life_proposed_goes),
        cmocka_unit_test(what_may_be_minted_is_kept),
        cmocka_unit_test(a_writer_has_its_part),
        cmocka_unit_test(a_token_of_nothing_is_forgotten),
        cmocka_unit_test(stamps_do_not_run_away),
        cmocka_unit_test(another_delta_under_a_prepared_id_is_not_held),
        cmocka_unit_test(those_that_vote_no_more_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
