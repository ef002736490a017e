/* What a peer is asked by its own node: views are attached to again and closed, edits and fetches are given up,
 * parts of contents are fetched. */
#include "world_support.h"

#include "peer/peer.h"
#include "replica/error.h"

#define CHUNK   (1u << 20)
#define SIZE    (5 * CHUNK)
#define READER  3 /* a cache */
#define NOT_YET REPLICA_E_AGAIN

static void begin(struct test_three *three)
{
    struct world_options options;
    world_options_default(&options);
    options.nodes = 4;
    test_three_begin(three, &options);
}

static struct replica_id opened(const struct world_call *call)
{
    struct replica_pack_reader reader;
    struct replica_id view;
    size_t n;
    replica_pack_reader_init(&reader, world_call_answer(call)->data, world_call_answer(call)->size);
    replica_pack_read_array(&reader, 8, &n);
    assert_int_equal(replica_pack_read_id(&reader, &view), 0);
    return view;
}

static struct replica_id open_labelled(struct test_three *three, const char *label)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_OPEN};
    struct world_call *call;
    request.view_options.volume = three->volume;
    strcpy(request.view_options.label, label);
    call = world_request_start(three->world, 0, &request);
    assert_int_equal(world_call_wait(three->world, call), 0);
    return opened(call);
}

/* A view with a label is found again, drafts and all; once closed, its label begins a new one, and calls on it
 * say that it is gone. */
static void a_labelled_view_is_attached_to_until_it_is_closed(void **state)
{
    struct gossip_peer_request close = {.kind = GOSSIP_PEER_VIEW_CLOSE};
    struct replica_id first, again;
    struct test_three three;
    (void)state;
    begin(&three);
    first = open_labelled(&three, "train");
    test_put_text(three.world, 0, &first, "draft", "text");
    again = open_labelled(&three, "train");
    assert_true(replica_id_equal(&first, &again));
    test_expect_text(three.world, 0, &again, "draft", "text");
    again = open_labelled(&three, "other");
    assert_false(replica_id_equal(&first, &again));
    close.view = first;
    assert_int_equal(world_call_wait(three.world, world_request_start(three.world, 0, &close)), 0);
    assert_int_equal(world_call_wait(three.world, world_request_start(three.world, 0, &close)),
                     REPLICA_E_NOTFOUND);
    assert_int_equal(world_commit(three.world, 0, &first), REPLICA_E_NOTFOUND);
    again = open_labelled(&three, "train");
    assert_false(replica_id_equal(&first, &again));
    test_converge(three.world, 60000);
    test_three_end(&three);
}

struct long_edit {
    unsigned calls, until;
};

static int edit_long(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    struct long_edit *edit = context;
    (void)view;
    (void)log;
    return ++edit->calls >= edit->until ? 0 : NOT_YET;
}

static struct world_call *start_edit(struct test_three *three, size_t node, struct long_edit *edit)
{
    struct gossip_peer_request request = {
        .kind = GOSSIP_PEER_VIEW_EDIT, .view = three->views[node], .edit = edit_long, .context = edit};
    return world_request_start(three->world, node, &request);
}

static void cancel(struct world *world, size_t node, const struct world_call *call)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_REQUEST,
                                      .time = {.now_ms = world_now(world), .wall_ms = world_now(world)}};
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_CANCEL, .token = world_call_token(call)};
    struct gossip_update update;
    event.request = &request;
    gossip_update_init(&update);
    assert_int_equal(gossip_peer_step(world_peer(world, node), &event, &update), 0);
    assert_int_equal(update.answers_n, 0);
    assert_int_equal(update.log.count + update.map.count, 0);
    gossip_update_close(&update);
}

/* Edits of one view are carried out one after the other; a long one holds up no other view; what its caller
 * gave up is not called again, and not answered. */
static void edits_take_turns_and_can_be_given_up(void **state)
{
    struct long_edit endless = {.until = 1000000}, second = {.until = 3}, elsewhere = {.until = 3};
    struct world_call *calls[3];
    struct gossip_peer_request other = {.kind = GOSSIP_PEER_VIEW_EDIT, .edit = edit_long};
    struct test_three three;
    struct replica_id view;
    unsigned called;
    (void)state;
    begin(&three);
    assert_int_equal(world_open_view(three.world, 0, &three.volume, &view), 0);
    calls[0] = start_edit(&three, 0, &endless);
    calls[1] = start_edit(&three, 0, &second);
    other.view = view;
    other.context = &elsewhere;
    calls[2] = world_request_start(three.world, 0, &other);
    for (unsigned steps = 0; steps < 20; steps++) {
        struct gossip_update update;
        gossip_update_init(&update);
        assert_int_equal(peer_edit_some(world_peer(three.world, 0), &update), 0);
        gossip_update_close(&update);
    }
    assert_int_equal(elsewhere.calls, 3);
    assert_int_equal(second.calls, 0);
    assert_true(endless.calls >= 10);
    called = endless.calls;
    cancel(three.world, 0, calls[0]);
    assert_int_equal(world_call_wait(three.world, calls[1]), 0);
    assert_int_equal(endless.calls, called);
    assert_int_equal(world_call_code(calls[0]), WORLD_PENDING);
    test_three_end(&three);
}

static struct world_call *fetch(struct test_three *three, const struct replica_content_id *content,
                                uint32_t first, uint32_t count)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_FETCH,
                                          .volume = three->volume,
                                          .content = *content,
                                          .first = first,
                                          .count = count};
    return world_request_start(three->world, READER, &request);
}

static bool has_chunk(struct test_three *three, const struct replica_content_id *content, uint32_t chunk)
{
    struct replica_piece piece = {.kind = REPLICA_PIECE_CHUNK, .index = chunk};
    return replica_contents_has(world_peer(three->world, READER)->contents, content, piece);
}

/* A cache fetches the range that is asked for, then the rest; a fetch that was given up is answered no more; one
 * that nobody can serve waits, and ends when it is given up. */
static void parts_of_contents_are_fetched(void **state)
{
    static uint8_t bytes[SIZE];
    struct replica_content_id content, nowhere = {.length = SIZE};
    struct world_call *never;
    struct test_three three;
    struct world *world;
    (void)state;
    begin(&three);
    world = three.world;
    test_fill(bytes, sizeof bytes, 1);
    assert_int_equal(world_put(world, 0, &three.views[0], "file", bytes, sizeof bytes), 0);
    assert_int_equal(world_commit(world, 0, &three.views[0]), 0);
    assert_int_equal(replica_contents_ingest(world_peer(world, 0)->contents, bytes, sizeof bytes, &content),
                     0);
    assert_int_equal(world_reload(world, READER, &three.views[READER]), 0);
    assert_int_equal(replica_contents_state(world_peer(world, READER)->contents, &content),
                     REPLICA_CONTENTS_ABSENT);
    assert_int_equal(world_call_wait(world, fetch(&three, &content, 2, 1)), 0);
    assert_true(has_chunk(&three, &content, 2));
    assert_int_equal(world_call_wait(world, fetch(&three, &content, 0, 0)), 0);
    for (uint32_t chunk = 0; chunk < SIZE / CHUNK; chunk++)
        assert_true(has_chunk(&three, &content, chunk));
    memset(nowhere.root, 3, sizeof nowhere.root);
    never = fetch(&three, &nowhere, 0, 0);
    world_run_for(world, 2000);
    if (world_call_code(never) == WORLD_PENDING) {
        assert_true(gossip_swarm_is_fetching(world_peer(world, READER)->swarm, &nowhere));
        cancel(world, READER, never);
    }
    assert_false(gossip_swarm_is_fetching(world_peer(world, READER)->swarm, &nowhere));
    test_converge(world, 60000);
    test_three_end(&three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_labelled_view_is_attached_to_until_it_is_closed),
        cmocka_unit_test(edits_take_turns_and_can_be_given_up),
        cmocka_unit_test(parts_of_contents_are_fetched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
