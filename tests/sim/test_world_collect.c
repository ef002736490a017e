/* Collection lets go of what nothing names, and of nothing else; offers send contents ahead of their commit. */
#include "world_support.h"

#include "peer/peer.h"
#include "quorum/quorum_writing.h"
#include "replica/error.h"

#include <stdio.h>

#define SIZE      100000 /* lies in a content of its own, and does not travel in the delta */
#define PASS_MS   61000  /* from one pass of collection to the end of the next */
#define OFFER_MS  600000 /* how long an offer keeps a content */
#define WRITER    0
#define BYSTANDER 3 /* a cache */

static struct replica_contents *contents(const struct world *world, size_t node)
{
    return world_peer(world, node)->contents;
}

static struct replica_content_id ingest(const struct world *world, size_t node, uint64_t seed)
{
    static uint8_t bytes[SIZE];
    struct replica_content_id content;
    test_fill(bytes, sizeof bytes, seed);
    assert_int_equal(replica_contents_ingest(contents(world, node), bytes, sizeof bytes, &content), 0);
    assert_int_equal(replica_contents_sync(contents(world, node)), 0);
    return content;
}

static bool has(const struct world *world, size_t node, const struct replica_content_id *content)
{
    return replica_contents_state(contents(world, node), content) >= REPLICA_CONTENTS_FILLED;
}

static int name_content(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    const struct replica_content_id *content = context;
    struct replica_entry entry = {.kind = REPLICA_KIND_FILE, .mode = 0644, .size = content->length};
    struct replica_path path = {.text = "draft", .size = 5};
    entry.blob.kind = REPLICA_BLOB_CONTENT;
    entry.blob.content = *content;
    return replica_view_put(view, path, &entry, log);
}

static void begin_as(struct test_three *three, size_t nodes, uint64_t seed)
{
    struct world_options options;
    world_options_default(&options);
    options.seed = seed;
    options.nodes = nodes;
    if (nodes == 1)
        options.founders = 1;
    test_three_begin(three, &options);
}

static void begin(struct test_three *three, size_t nodes)
{
    begin_as(three, nodes, 1);
}

/* What nothing names goes in the second pass that finds it so, not in the first; what came between the passes
 * waits for a third. */
static void the_unnamed_go_after_two_passes(void **state)
{
    struct test_three three;
    struct replica_content_id first, later;
    (void)state;
    begin(&three, 1);
    first = ingest(three.world, 0, 1);
    world_run_for(three.world, PASS_MS);
    assert_true(has(three.world, 0, &first));
    later = ingest(three.world, 0, 2);
    world_run_for(three.world, PASS_MS);
    assert_false(has(three.world, 0, &first));
    assert_true(has(three.world, 0, &later));
    world_run_for(three.world, PASS_MS);
    assert_false(has(three.world, 0, &later));
    test_three_end(&three);
}

/* A draft's content, a committed one and one that only history names are kept, however many passes go by. */
static void the_named_are_kept(void **state)
{
    struct test_three three;
    static uint8_t bytes[SIZE];
    struct replica_content_id draft, committed;
    struct world *world;
    (void)state;
    begin(&three, 1);
    world = three.world;
    draft = ingest(world, 0, 1);
    test_fill(bytes, sizeof bytes, 2);
    assert_int_equal(world_put(world, 0, &three.views[0], "file", bytes, sizeof bytes), 0);
    assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
    committed = ingest(world, 0, 2);
    assert_int_equal(world_edit(world, 0, &three.views[0], name_content, &draft), 0);
    world_run_for(world, 5 * PASS_MS);
    assert_true(has(world, 0, &draft) && has(world, 0, &committed));
    test_put_text(world, 0, &three.views[0], "file", "over it");
    assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
    world_run_for(world, 5 * PASS_MS);
    assert_true(has(world, 0, &draft) && has(world, 0, &committed));
    test_converge(world, 60000);
    test_three_end(&three);
}

static int no_prepared(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    (void)context;
    return room == GOSSIP_ROOM_QUORUM && (type == QUORUM_PREPARED || type == QUORUM_ABANDON) && from != to;
}

/* A voter keeps what it has said that it holds, though the writer never heard it and gave the commit up, until it hears of
 * that. */
static void the_pinned_are_kept(void **state)
{
    struct test_three three;
    static uint8_t bytes[SIZE];
    struct replica_content_id content;
    struct world *world;
    bool named;
    (void)state;
    begin(&three, 3);
    world = three.world;
    test_fill(bytes, sizeof bytes, 3);
    world_set_filter(world, no_prepared, NULL);
    assert_int_equal(world_put(world, WRITER, &three.views[WRITER], "file", bytes, sizeof bytes), 0);
    assert_int_equal(world_commit(world, WRITER, &three.views[WRITER]), REPLICA_E_UNAVAILABLE);
    content = ingest(world, WRITER, 3);
    world_run_for(world, 5 * PASS_MS);
    for (size_t voter = 1; voter < 3; voter++) {
        assert_true(has(world, voter, &content));
        assert_int_equal(replica_map_refers(world_peer(world, voter)->map, NULL, &content, &named), 0);
        assert_false(named); /* by nothing but the pin */
    }
    world_set_filter(world, NULL, NULL);
    world_run_for(world, 4 * PASS_MS);
    assert_false(has(world, 1, &content) || has(world, 2, &content));
    assert_int_equal(world_commit(world, WRITER, &three.views[WRITER]), 0);
    test_converge(world, 60000);
    test_three_end(&three);
}

static bool is_settling(void *context)
{
    struct world *world = context;
    const struct gossip_quorum *quorum = &world_peer(world, 0)->quorum;
    return quorum->commits_n > 0 && quorum->commits[0]->phase == COMMIT_SETTLING;
}

static int change_nothing(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    (void)context;
    (void)view;
    (void)log;
    return 0;
}

static void collect_now(struct test_three *three)
{
    world_peer(three->world, 0)->collect.at_ms = 1; /* long due */
    assert_int_equal(world_edit(three->world, 0, &three->views[0], change_nothing, NULL), 0);
}

/* While a commit turns a draft into a content whose bytes were here already, named by nothing, these may go. The draft gives them again. */
static void what_goes_while_a_commit_settles_comes_back(void **state)
{
    unsigned gone = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        static uint8_t bytes[SIZE];
        struct replica_content_id stray;
        struct world_call *commit;
        struct test_three three;
        struct world *world;
        struct replica_buffer read;
        bool went = false;
        begin_as(&three, 1, seed);
        world = three.world;
        stray = ingest(world, 0, seed);
        world_run_for(world, PASS_MS); /* found unnamed once */
        assert_int_equal(world_peer(world, 0)->collect.before_n, 1);
        test_fill(bytes, sizeof bytes, seed);
        assert_int_equal(world_put(world, 0, &three.views[0], "file", bytes, sizeof bytes), 0);
        commit = world_commit_start(world, 0, &three.views[0]);
        assert_true(world_run_until(world, is_settling, world, 1000));
        while (is_settling(world)) {
            world_run_for(world, 1);
            if (gossip_random_below(&world_peer(world, 0)->random, 10) == 0)
                collect_now(&three);
            went |= !has(world, 0, &stray);
        }
        gone += went;
        assert_int_equal(world_call_wait(world, commit), 0);
        replica_buffer_init(&read);
        assert_int_equal(world_read(world, 0, &three.views[0], "file", &read), 0);
        assert_int_equal(read.size, sizeof bytes);
        assert_memory_equal(read.data, bytes, sizeof bytes);
        replica_buffer_close(&read);
        test_converge(world, 60000);
        test_three_end(&three);
    }
    assert_true(gone > 3); /* else this shows nothing */
}

static int drop_bytes(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    (void)context;
    (void)type;
    return (from == BYSTANDER || to == BYSTANDER) && room == GOSSIP_ROOM_SWARM ? 1 : 0;
}

static int put_much(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    unsigned *done = context;
    for (unsigned end = *done + 500; *done < end; (*done)++) {
        struct replica_entry entry = {.kind = REPLICA_KIND_FILE, .mode = 0600, .size = 1};
        char text[128];
        struct replica_path path = {.text = text};
        int rv;
        path.size =
            (size_t)snprintf(text, sizeof text, "a-file-whose-name-makes-the-list-of-changes-long-%u", *done);
        entry.blob.data = (const uint8_t *)"x";
        entry.blob.size = 1;
        rv = replica_view_put(view, path, &entry, log);
        if (rv != 0)
            return rv;
    }
    return *done < 4000 ? REPLICA_E_AGAIN : 0;
}

/* A volume that never shows all it has in order, because a list of changes does not come, holds no pass up. */
static void a_busy_volume_starves_nobody(void **state)
{
    const struct replica_volume_state *at;
    struct replica_content_id stray;
    struct test_three three;
    unsigned done = 0;
    (void)state;
    begin(&three, 4);
    world_set_filter(three.world, drop_bytes, NULL);
    assert_int_equal(world_edit(three.world, 0, &three.views[0], put_much, &done), 0);
    assert_int_equal(world_commit(three.world, 0, &three.views[0]), 0);
    world_run_for(three.world, 5000);
    at = replica_volume_state(world_volume(three.world, BYSTANDER, &three.volume));
    assert_true(at->ordered_seq > at->applied_seq);
    stray = ingest(three.world, BYSTANDER, 1);
    world_run_for(three.world, 3 * PASS_MS);
    assert_true(at->ordered_seq > at->applied_seq);
    assert_false(has(three.world, BYSTANDER, &stray));
    world_set_filter(three.world, NULL, NULL);
    test_converge(three.world, 120000);
    test_three_end(&three);
}

/* Offers */

static int offer(struct world *world, size_t node, const struct replica_id *volume,
                 const struct replica_content_id *offered, size_t n)
{
    struct gossip_peer_request request = {
        .kind = GOSSIP_PEER_OFFER, .volume = *volume, .offered = offered, .offered_n = n};
    return world_call_wait(world, world_request_start(world, node, &request));
}

static void wait_for(struct world *world, size_t node, const struct replica_content_id *content)
{
    for (unsigned ms = 0; ms < 30000 && !has(world, node, content); ms += 100)
        world_run_for(world, 100);
    assert_true(has(world, node, content));
}

/* What is offered is with every voter before commit is called, and with nobody else; the commit then finds it
 * there. */
static void offers_go_to_the_voters(void **state)
{
    struct test_three three;
    struct replica_content_id content;
    struct world *world;
    (void)state;
    begin(&three, 4);
    world = three.world;
    content = ingest(world, WRITER, 1);
    assert_int_equal(world_edit(world, WRITER, &three.views[WRITER], name_content, &content), 0);
    assert_int_equal(offer(world, WRITER, &three.volume, &content, 1), 0);
    wait_for(world, 1, &content);
    wait_for(world, 2, &content);
    assert_false(has(world, BYSTANDER, &content));
    assert_int_equal(world_commit(world, WRITER, &three.views[WRITER]), 0);
    test_converge(world, 60000);
    test_three_end(&three);
}

/* An offered content is kept for a while though nothing names it, then forgotten and collected. A lost one is
 * not wanted for ever either. */
static void offers_are_forgotten_in_time(void **state)
{
    struct test_three three;
    struct replica_content_id content, never = {.length = SIZE};
    struct world *world;
    (void)state;
    begin(&three, 3);
    world = three.world;
    memset(never.root, 5, sizeof never.root);
    content = ingest(world, WRITER, 1);
    assert_int_equal(world_edit(world, WRITER, &three.views[WRITER], name_content, &content), 0);
    assert_int_equal(offer(world, WRITER, &three.volume, &content, 1), 0);
    assert_int_equal(offer(world, WRITER, &three.volume, &never, 1), 0);
    wait_for(world, 1, &content);
    world_run_for(world, OFFER_MS - 40000);
    assert_true(has(world, 1, &content));
    assert_true(quorum_offer_refers(&world_peer(world, 1)->quorum, NULL, &never));
    world_run_for(world, 60000);
    assert_int_equal(world_peer(world, 1)->quorum.offers_n, 0);
    world_run_for(world, 3 * PASS_MS);
    assert_false(has(world, 1, &content));
    assert_int_equal(replica_contents_state(contents(world, 1), &never), REPLICA_CONTENTS_ABSENT);
    assert_int_equal(world_commit(world, WRITER, &three.views[WRITER]), 0); /* prepare asks for it again */
    test_converge(world, 60000);
    test_three_end(&three);
}

static int receive(struct gossip_peer *peer, const struct gossip_principal *from,
                   const struct replica_id *volume, const struct replica_content_id *offered, size_t n)
{
    struct gossip_quorum_event event = {.kind = GOSSIP_QUORUM_EVENT_MESSAGE};
    struct replica_pack_reader reader;
    struct gossip_update update;
    struct replica_buffer payload;
    int rv;
    replica_buffer_init(&payload);
    replica_pack_uint(&payload, 1);
    replica_pack_uint(&payload, GOSSIP_PHASE_FINAL);
    replica_pack_array(&payload, n);
    for (size_t i = 0; i < n; i++)
        replica_pack_content_id(&payload, &offered[i]);
    replica_pack_reader_init(&reader, payload.data, payload.size);
    event.message.from = from;
    gossip_update_init(&update);
    rv = quorum_offer_receive(&peer->quorum, &event, &reader, quorum_volume(&peer->quorum, volume), &update);
    gossip_update_close(&update);
    replica_buffer_close(&payload);
    return rv;
}

/* Who may not write offers nothing; a message holds so many and not one more; so does the list. */
static void offers_are_bounded(void **state)
{
    static struct replica_content_id offered[OFFER_CONTENTS_MAX + 1];
    struct gossip_principal reader = {.role = GOSSIP_ROLE_CACHE}, writer = {.every_volume = true};
    struct test_three three;
    struct gossip_peer *peer;
    (void)state;
    begin(&three, 3);
    peer = world_peer(three.world, 1);
    for (size_t i = 0; i <= OFFER_CONTENTS_MAX; i++) {
        offered[i].length = 1000;
        offered[i].root[0] = (uint8_t)i;
        offered[i].root[1] = (uint8_t)(i >> 8);
    }
    assert_int_equal(receive(peer, &reader, &three.volume, offered, 1), REPLICA_E_DENIED);
    assert_int_equal(receive(peer, &writer, &three.volume, offered, OFFER_CONTENTS_MAX + 1),
                     REPLICA_E_MALFORMED);
    assert_int_equal(peer->quorum.offers_n, 0);
    assert_int_equal(receive(peer, &writer, &three.volume, offered, OFFER_CONTENTS_MAX), 0);
    assert_int_equal(receive(peer, &writer, &three.volume, offered, OFFER_CONTENTS_MAX), 0);
    assert_int_equal(peer->quorum.offers_n, OFFER_CONTENTS_MAX); /* each once */
    for (unsigned round = 1; round <= OFFERS_MAX / OFFER_CONTENTS_MAX; round++) {
        for (size_t i = 0; i < OFFER_CONTENTS_MAX; i++)
            offered[i].root[2] = (uint8_t)round;
        assert_int_equal(receive(peer, &writer, &three.volume, offered, OFFER_CONTENTS_MAX), 0);
    }
    assert_int_equal(peer->quorum.offers_n, OFFERS_MAX);
    peer->quorum.offers_n = 0;
    test_three_end(&three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unnamed_go_after_two_passes),
        cmocka_unit_test(the_named_are_kept),
        cmocka_unit_test(the_pinned_are_kept),
        cmocka_unit_test(what_goes_while_a_commit_settles_comes_back),
        cmocka_unit_test(a_busy_volume_starves_nobody),
        cmocka_unit_test(offers_go_to_the_voters),
        cmocka_unit_test(offers_are_forgotten_in_time),
        cmocka_unit_test(offers_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
