/* Peers that send nonsense, promise what they do not have, or ask without end: nothing breaks, grows, or
 * stops for the others. */
#include "swarm/swarm.h"
#include "swarm_support.h"

#include "replica/merkle.h"
#include "replica/pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB    ((size_t)1 << 20)
#define NOBODY SIZE_MAX
#define MINUTE 60000

static int inject(struct swarm_net *net, const struct gossip_principal *from, size_t to, uint8_t type,
                  const void *payload, size_t n)
{
    int rv = swarm_net_message(net, from, to, type, payload, n);
    swarm_check_invariants(net->nodes[to].swarm);
    return rv;
}

static void pack_connect(struct replica_buffer *out, const struct swarm_net *net,
                         const struct replica_content_id *id, const void *bitmap, size_t n)
{
    replica_buffer_clear(out);
    replica_pack_array(out, 3);
    replica_pack_id(out, &net->volume);
    replica_pack_content_id(out, id);
    replica_pack_bin(out, bitmap, n);
}

static void pack_map(struct replica_buffer *out, const struct replica_content_id *id, uint64_t state,
                     const void *bitmap, size_t n)
{
    replica_buffer_clear(out);
    replica_pack_array(out, 4);
    replica_pack_content_id(out, id);
    replica_pack_uint(out, state);
    replica_pack_bin(out, bitmap, n);
    replica_pack_array(out, 0);
}

static void pack_ask(struct replica_buffer *out, const struct replica_id *volume,
                     const struct replica_content_id *id, uint64_t first, size_t n)
{
    replica_buffer_clear(out);
    replica_pack_array(out, 1);
    replica_pack_array(out, 3);
    replica_pack_id(out, volume);
    replica_pack_content_id(out, id);
    replica_pack_array(out, n);
    for (size_t i = 0; i < n; i++)
        replica_pack_uint(out, (first + i) * 4 + REPLICA_PIECE_CHUNK);
}

/* Random bytes, and every truncation of a good message, are MALFORMED and change nothing. */
static void nonsense_is_refused(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 20 * MIB);
    struct replica_buffer out;
    struct gossip_random random;
    (void)state;
    gossip_random_init(&random, 1, 1);
    replica_buffer_init(&out);
    swarm_net_want(net, 1, &id, 0, 0);
    for (size_t i = 0; i < 50000; i++) {
        uint8_t bytes[64];
        size_t n = (size_t)gossip_random_below(&random, sizeof bytes);
        for (size_t j = 0; j < n; j++)
            bytes[j] = (uint8_t)gossip_random_next(&random);
        inject(net, &net->nodes[0].principal, 1, (uint8_t)(i % 8), bytes, n);
    }
    pack_connect(&out, net, &id, "\xff\xff", 2);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_CONNECT, out.data, out.size), 0);
    for (size_t n = 0; n < out.size; n++)
        assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_CONNECT, out.data, n),
                         REPLICA_E_MALFORMED);
    pack_ask(&out, &net->volume, &id, 0, 3);
    for (size_t n = 0; n < out.size; n++)
        assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_ASK, out.data, n),
                         REPLICA_E_MALFORMED);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, 0, out.data, out.size), REPLICA_E_MALFORMED);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, 7, out.data, out.size), REPLICA_E_MALFORMED);
    assert_true(swarm_net_run_until_filled(net, 1, &id, MINUTE)); /* and the fetch goes on */
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* A newer version may add fields at the end of a message. */
static void unknown_fields_are_ignored(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 2 * MIB);
    struct replica_buffer out;
    (void)state;
    replica_buffer_init(&out);
    pack_connect(&out, net, &id, "", 0);
    out.data[0] = 0x95; /* an array of five */
    replica_pack_cstr(&out, "from the future");
    replica_pack_array(&out, 0);
    assert_int_equal(inject(net, &net->nodes[1].principal, 0, SWARM_CONNECT, out.data, out.size), 0);
    assert_int_equal(net->nodes[0].update.sends_n, 1);
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* Bitmaps larger than the content, contents larger than may be, more items than allowed: refused before
 * anything is allocated. */
static void absurd_sizes_are_refused(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 20 * MIB), huge = id;
    struct replica_buffer out;
    uint8_t *bitmap = calloc(1, MIB);
    (void)state;
    replica_buffer_init(&out);
    swarm_net_want(net, 1, &id, 0, 0);
    pack_connect(&out, net, &id, bitmap, 3);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_CONNECT, out.data, out.size), 0);
    pack_connect(&out, net, &id, bitmap, 4);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_CONNECT, out.data, out.size),
                     REPLICA_E_MALFORMED);
    pack_map(&out, &id, SWARM_PARTIAL, bitmap, 4);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_MAP, out.data, out.size),
                     REPLICA_E_MALFORMED);
    pack_map(&out, &id, SWARM_SILENT, bitmap, 3);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_MAP, out.data, out.size),
                     REPLICA_E_MALFORMED);
    huge.length = UINT64_MAX;
    pack_connect(&out, net, &huge, bitmap, MIB / 2);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_CONNECT, out.data, out.size),
                     REPLICA_E_MALFORMED);
    pack_connect(&out, net, &huge, bitmap, 0);
    assert_int_equal(inject(net, &net->nodes[0].principal, 1, SWARM_CONNECT, out.data, out.size),
                     0); /* says it lacks it */
    pack_ask(&out, &net->volume, &id, 0, SWARM_ASK_MAX + 1);
    assert_int_equal(inject(net, &net->nodes[1].principal, 0, SWARM_ASK, out.data, out.size),
                     REPLICA_E_MALFORMED);
    pack_ask(&out, &net->volume, &huge, (uint64_t)1 << 20, 1);
    assert_int_equal(inject(net, &net->nodes[1].principal, 0, SWARM_ASK, out.data, out.size), 0);
    assert_int_equal(net->nodes[0].update.uploads_n, 0);
    pack_ask(&out, &net->volume, &id, UINT64_MAX / 8, 1);
    assert_int_equal(inject(net, &net->nodes[1].principal, 0, SWARM_ASK, out.data, out.size),
                     REPLICA_E_MALFORMED);
    free(bitmap);
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* News of chunks past the end are MALFORMED; bits of a bitmap past the end mean nothing. */
static void chunks_past_the_end(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 5 * MIB);
    const struct swarm_holder *holder;
    struct replica_buffer out;
    (void)state;
    replica_buffer_init(&out);
    net->nodes[0].mute = net->nodes[2].mute = true;
    swarm_net_want(net, 1, &id, 0, 0);
    pack_connect(&out, net, &id, "\xe1", 1); /* the first, and three past the end */
    assert_int_equal(inject(net, &net->nodes[2].principal, 1, SWARM_CONNECT, out.data, out.size), 0);
    for (uint64_t chunk = 4; chunk <= 5; chunk++) {
        replica_buffer_clear(&out);
        replica_pack_array(&out, 3);
        replica_pack_content_id(&out, &id);
        replica_pack_bool(&out, false);
        replica_pack_array(&out, 1);
        replica_pack_uint(&out, chunk);
        assert_int_equal(inject(net, &net->nodes[2].principal, 1, SWARM_HAVE, out.data, out.size),
                         chunk < 5 ? 0 : REPLICA_E_MALFORMED);
    }
    holder = swarm_holder_find(swarm_fetch_find(net->nodes[1].swarm, &id), &net->nodes[2].principal.store);
    assert_non_null(holder);
    assert_true(swarm_bit(holder->bits, 4) && !swarm_bit(holder->bits, 1));
    replica_buffer_clear(&out); /* the good ones in a bad message count as little */
    replica_pack_array(&out, 3);
    replica_pack_content_id(&out, &id);
    replica_pack_bool(&out, false);
    replica_pack_array(&out, 2);
    replica_pack_uint(&out, 1);
    replica_pack_uint(&out, 5);
    assert_int_equal(inject(net, &net->nodes[2].principal, 1, SWARM_HAVE, out.data, out.size),
                     REPLICA_E_MALFORMED);
    assert_false(swarm_bit(holder->bits, 1));
    net->nodes[0].mute = false;
    assert_true(swarm_net_run_until_filled(net, 1, &id, MINUTE));
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* Who may not read the volume, or asks in the name of one that does not know the content, gets nothing and
 * learns nothing. */
static void outsiders_get_nothing(void **state)
{
    const size_t sizes[] = {100, 3 * MIB};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct swarm_net *net = swarm_net_new(2, 2, NULL);
        struct replica_content_id id = swarm_net_put(net, 0, 3, sizes[i % 2]);
        net->nodes[1].stranger = i < 2;
        net->nodes[0].denies = i >= 2;
        swarm_net_want(net, 1, &id, 0, 7);
        assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
        assert_int_equal(net->nodes[1].code, REPLICA_E_ABSENT);
        assert_int_equal(net->nodes[0].uploaded, 0);
        swarm_net_destroy(&net);
    }
}

/* Requests without end: at most so many are queued, the rest is refused as BUSY, and another receiver has its
 * turn. */
static void endless_requests_are_bounded(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 8 * MIB), small = swarm_net_put(net, 0, 4, 1000);
    struct replica_buffer out;
    size_t refusals = 0;
    uint64_t began;
    (void)state;
    replica_buffer_init(&out);
    pack_ask(&out, &net->volume, &id, 0, 8);
    for (size_t i = 0; i < 10000; i++) {
        inject(net, &net->nodes[2].principal, 0, SWARM_ASK, out.data, out.size);
        refusals += net->nodes[0].update.sends_n;
        assert_true(net->nodes[0].update.uploads_n <= 10);
    }
    assert_true(refusals > 9000);
    assert_true(swarm_net_status(net, 0).uploads <= SWARM_QUEUES_BYTES_MAX / MIB + 10 + 1);
    pack_ask(&out, &net->volume, &small, 0, 1);
    for (size_t i = 0; i < 10000; i++)
        inject(net, &net->nodes[1].principal, 0, SWARM_ASK, out.data, out.size);
    assert_true(swarm_net_status(net, 0).uploads <= SWARM_QUEUES_BYTES_MAX / MIB + 10 + 1 + SWARM_QUEUE_MAX);
    swarm_serve_forget(net->nodes[0].swarm,
                       swarm_peer_find(net->nodes[0].swarm, &net->nodes[1].principal.store));
    /* The uploads of the flood were never carried out; give their slots back as the shell would. */
    for (struct swarm_link *link;
         (link = net->nodes[0].swarm->uploading.next) != &net->nodes[0].swarm->uploading;) {
        const struct swarm_upload *upload = SWARM_ITEM(link, struct swarm_upload, link);
        struct gossip_swarm_event event = {.kind = GOSSIP_SWARM_EVENT_UPLOADED,
                                           .source = upload->peer->store,
                                           .content = upload->content,
                                           .piece = upload->piece,
                                           .code = REPLICA_E_BUSY};
        if (net->nodes[0].uploading >= 10)
            break;
        swarm_net_step(net, 0, &event);
    }
    began = net->now_ms;
    swarm_net_want(net, 1, &small, 0, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_true(net->now_ms - began < 250); /* behind the ten under way, not behind the hundreds queued */
    assert_true(net->nodes[0].uploading_max <= 10);
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* Orders that the shell never answers cost their slots for a minute, not for ever; one that failed is told to
 * its receiver at once. */
static void unanswered_uploads(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 30 * MIB), small = swarm_net_put(net, 0, 4, 1000);
    const struct gossip_swarm_event timer = {.kind = GOSSIP_SWARM_EVENT_TIMER};
    struct gossip_swarm_event failed = {.kind = GOSSIP_SWARM_EVENT_UPLOADED,
                                        .source = swarm_net_store(2),
                                        .content = id,
                                        .code = REPLICA_E_CORRUPT};
    struct replica_buffer out;
    (void)state;
    replica_buffer_init(&out);
    pack_ask(&out, &net->volume, &id, 0, 10);
    inject(net, &net->nodes[2].principal, 0, SWARM_ASK, out.data, out.size); /* ten orders, lost */
    assert_int_equal(net->nodes[0].update.uploads_n, 10);
    failed.piece = (struct replica_piece){REPLICA_PIECE_CHUNK, 9};
    failed.time.now_ms = net->now_ms;
    gossip_update_clear(&net->nodes[0].update);
    assert_int_equal(gossip_swarm_step(net->nodes[0].swarm, &failed, &net->nodes[0].update), 0);
    assert_int_equal(net->nodes[0].update.sends_n, 1);
    assert_int_equal(net->nodes[0].update.sends[0].type, SWARM_REFUSE);
    assert_int_equal(swarm_net_status(net, 0).uploads, 9);
    swarm_net_run(net, 59999);
    swarm_net_step(net, 0, &timer);
    assert_int_equal(swarm_net_status(net, 0).uploads, 9);
    swarm_net_run(net, 1);
    swarm_net_step(net, 0, &timer);
    assert_int_equal(swarm_net_status(net, 0).uploads, 0);
    swarm_net_want(net, 1, &small, 0, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, 1000));
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* CANCEL takes what is queued away, and only the asker's own. */
static void cancel_empties_the_queue(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 40 * MIB);
    struct replica_buffer out;
    (void)state;
    replica_buffer_init(&out);
    pack_ask(&out, &net->volume, &id, 0, 40);
    inject(net, &net->nodes[2].principal, 0, SWARM_ASK, out.data, out.size);
    assert_int_equal(swarm_net_status(net, 0).uploads, 40);
    for (int own = 0; own < 2; own++) {
        replica_buffer_clear(&out);
        replica_pack_array(&out, 40);
        for (uint64_t i = 0; i < 40; i++) {
            replica_pack_array(&out, 2);
            replica_pack_content_id(&out, &id);
            replica_pack_uint(&out, i * 4 + REPLICA_PIECE_CHUNK);
        }
        assert_int_equal(inject(net, &net->nodes[own ? 2 : 1].principal, 0, SWARM_CANCEL, out.data, out.size),
                         0);
        assert_int_equal(swarm_net_status(net, 0).uploads, own ? 10 : 40);
    }
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* A promise of everything from one that has nothing costs a round trip; the content comes from elsewhere. */
static void empty_promises(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 20 * MIB);
    (void)state;
    swarm_net_want(net, 1, &id, 2 /* surely has it: not so */, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, 2000));
    assert_int_equal(net->nodes[1].code, 0);
    swarm_net_destroy(&net);
}

/* Stores and contents without number: only so many are remembered. */
static void tables_are_bounded(void **state)
{
    struct swarm_net *net = swarm_net_new(1, 1, NULL);
    struct replica_content_id known = swarm_net_put(net, 0, 3, 3 * MIB);
    struct gossip_swarm *swarm = net->nodes[0].swarm;
    struct replica_buffer out;
    (void)state;
    replica_buffer_init(&out);
    pack_ask(&out, &net->volume, &known, 0, 1);
    for (uint64_t i = 1; i <= 2 * SWARM_PEERS_MAX;
         i++) { /* each leaves one piece queued, until no store has room any more */
        struct gossip_principal from = {.every_volume = true};
        replica_u64_encode(i, from.store.bytes);
        swarm_net_message(net, &from, 0, SWARM_ASK, out.data, out.size);
    }
    assert_int_equal(swarm->peers.n, SWARM_PEERS_MAX);
    assert_int_equal(swarm_net_status(net, 0).uploads, SWARM_PEERS_MAX);
    for (uint64_t i = 1; i <= 2 * SWARM_TOPICS_MAX; i++) {
        struct replica_content_id id = swarm_net_put_sparse(net, 0, 2 * MIB + i, NULL, 0);
        pack_connect(&out, net, &id, "", 0);
        swarm_net_message(net, &net->nodes[0].principal, 0, SWARM_CONNECT, out.data, out.size);
    }
    assert_int_equal(swarm->topics.n, SWARM_TOPICS_MAX);
    swarm_check_invariants(swarm);
    replica_buffer_close(&out);
    swarm_net_destroy(&net);
}

/* Bytes that nobody asked for do no harm; wrong ones exclude their sender all the same. */
static void unasked_pieces(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 20 * MIB);
    struct gossip_swarm_event event = {.kind = GOSSIP_SWARM_EVENT_PIECE,
                                       .source = swarm_net_store(2),
                                       .content = id,
                                       .piece = {REPLICA_PIECE_CHUNK, 3},
                                       .bytes = MIB};
    (void)state;
    event.code = REPLICA_E_ABSENT;
    swarm_net_step(net, 1, &event); /* nothing wanted */
    swarm_net_want(net, 1, &id, 0, 0);
    swarm_net_step(net, 1, &event);
    event.code = REPLICA_E_INVALID;
    event.piece.index = 77;
    swarm_net_step(net, 1, &event);
    event.code = REPLICA_E_MISMATCH;
    swarm_net_step(net, 1, &event);
    assert_int_equal(swarm_net_status(net, 1).bad_pieces, 1);
    assert_true(swarm_net_run_until_filled(net, 1, &id, MINUTE));
    assert_int_equal(net->nodes[2].uploaded, 0);
    swarm_net_destroy(&net);
}

/* A store of nothing, for as many contents as may be wanted. */
static enum replica_contents_state no_state(struct replica_contents *contents,
                                            const struct replica_content_id *id)
{
    (void)contents;
    (void)id;
    return REPLICA_CONTENTS_ABSENT;
}
static int no_begin(struct replica_contents *contents, const struct replica_content_id *id)
{
    (void)contents;
    (void)id;
    return 0;
}
static size_t no_holders(void *context, const struct replica_id *volume, struct replica_id *ret, size_t max)
{
    (void)context;
    (void)volume;
    (void)ret;
    (void)max;
    return 0;
}

/* The last content that may be wanted is taken, the next one is BUSY; and giving all of them up takes no
 * time. */
static void wants_are_bounded(void **state)
{
    static const struct replica_contents_ops ops = {.state = no_state, .begin = no_begin};
    struct replica_contents contents = {.ops = &ops};
    struct gossip_swarm_directory directory = {.holders = no_holders};
    struct gossip_swarm_options options;
    struct replica_id self = swarm_net_store(0);
    struct gossip_swarm_event event = {
        .kind = GOSSIP_SWARM_EVENT_WANT, .time = {.now_ms = 1000}, .content = {.length = 100}};
    struct gossip_swarm *swarm;
    struct gossip_update update;
    (void)state;
    gossip_swarm_options_default(&options);
    gossip_update_init(&update);
    assert_int_equal(gossip_swarm_new(&options, &contents, NULL, &directory, &self, 1, &swarm), 0);
    for (uint64_t i = 0; i < GOSSIP_SWARM_FETCHES_MAX; i++) {
        replica_u64_encode(i * 0x9e3779b97f4a7c15u, event.content.root);
        gossip_update_clear(&update);
        assert_int_equal(gossip_swarm_step(swarm, &event, &update), 0);
    }
    assert_int_equal(swarm->fetches.n, GOSSIP_SWARM_FETCHES_MAX);
    event.token = 7;
    memset(event.content.root, 0xee, 8);
    gossip_update_clear(&update);
    assert_int_equal(gossip_swarm_step(swarm, &event, &update), 0);
    assert_int_equal(update.answers_n, 1);
    assert_int_equal(update.answers[0].code, REPLICA_E_BUSY);
    assert_int_equal(swarm->fetches.n, GOSSIP_SWARM_FETCHES_MAX);
    /* A search for all of them is done in slices. */
    event = (struct gossip_swarm_event){.kind = GOSSIP_SWARM_EVENT_TIMER, .time = {.now_ms = 5000}};
    gossip_update_clear(&update);
    assert_int_equal(gossip_swarm_step(swarm, &event, &update), 0);
    assert_true(update.again);
    gossip_update_close(&update);
    gossip_swarm_destroy(&swarm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_is_refused),      cmocka_unit_test(unknown_fields_are_ignored),
        cmocka_unit_test(absurd_sizes_are_refused), cmocka_unit_test(chunks_past_the_end),
        cmocka_unit_test(outsiders_get_nothing),    cmocka_unit_test(endless_requests_are_bounded),
        cmocka_unit_test(unanswered_uploads),       cmocka_unit_test(cancel_empties_the_queue),
        cmocka_unit_test(empty_promises),           cmocka_unit_test(tables_are_bounded),
        cmocka_unit_test(unasked_pieces),           cmocka_unit_test(wants_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
