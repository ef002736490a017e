/* Contents over a tiny virtual network: one content, one or several sources. Each test reads as a trace over
 * virtual time. */
#include "swarm_support.h"

#include "replica/merkle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KIB    ((size_t)1024)
#define MIB    (1024 * KIB)
#define NOBODY SIZE_MAX
#define MINUTE 60000

/* Every size comes whole from one source, and each byte is sent once. */
static void one_source_one_receiver(void **state)
{
    const size_t sizes[] = {0, 1, 64 * KIB, MIB, MIB + 1, 3 * MIB, 20 * MIB + 5};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct swarm_net *net = swarm_net_new(2, 2, NULL);
        struct replica_content_id id = swarm_net_put(net, 0, i, sizes[i]);
        swarm_net_want(net, 1, &id, 0, 0 /* no token */);
        assert_true(swarm_net_run_until_filled(net, 1, &id, MINUTE));
        assert_int_equal(net->nodes[1].haves, 1);
        assert_true(net->nodes[0].uploaded >= sizes[i]);
        assert_true(net->nodes[0].uploaded <=
                    sizes[i] + 32 * replica_merkle_chunks(sizes[i])); /* and the ids */
        assert_int_equal(swarm_net_status(net, 1).fetches, 0);
        swarm_net_run(net, 100);
        assert_int_equal(swarm_net_status(net, 0).sent_bytes, net->nodes[0].uploaded);
        assert_int_equal(swarm_net_status(net, 1).received_bytes, net->nodes[0].uploaded);
        swarm_net_destroy(&net);
    }
}

/* A content of one chunk costs one round trip, and one message. */
static void small_content_takes_one_round_trip(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 1, 4 * KIB);
    (void)state;
    swarm_net_want(net, 1, &id, 0, 7 /* token */);
    assert_false(swarm_net_run_until_answer(net, 1, 7, 2 * SWARM_LATENCY_MS - 1));
    assert_true(swarm_net_run_until_answer(net, 1, 7, 1));
    assert_int_equal(net->nodes[1].code, 0);
    assert_int_equal(net->nodes[1].messages, 1);
    swarm_net_destroy(&net);
}

/* What is here already is answered at once. */
static void present_content_is_answered_at_once(void **state)
{
    struct swarm_net *net = swarm_net_new(1, 1, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 1, 3 * MIB), empty;
    (void)state;
    replica_merkle_content("", 0, &empty);
    swarm_net_want(net, 0, &id, NOBODY, 7);
    assert_int_equal(net->nodes[0].answered, 7);
    swarm_net_want(net, 0, &empty, NOBODY, 8);
    assert_int_equal(net->nodes[0].answered, 8);
    assert_int_equal(net->nodes[0].code, 0);
    swarm_net_want(net, 0, &id, NOBODY, 0);
    assert_int_equal(net->nodes[0].haves, 1);
    id.length = REPLICA_CONTENT_SIZE_MAX + 1;
    swarm_net_want(net, 0, &id, NOBODY, 9);
    assert_int_equal(net->nodes[0].code, REPLICA_E_TOOBIG);
    swarm_net_destroy(&net);
}

/* Zero chunks of a content of several pages are never sent. */
static void holes_are_not_sent(void **state)
{
    const uint32_t chunks[] = {0, 5, 1023, 1024, 2047, 2500};
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put_sparse(net, 0, 2500 * MIB + 77, chunks, 6);
    (void)state;
    swarm_net_want(net, 1, &id, 0, 0);
    assert_true(swarm_net_run_until_filled(net, 1, &id, MINUTE));
    assert_true(net->nodes[0].uploaded < 6 * MIB + 3 * 32 * KIB + 4 * KIB);
    swarm_net_destroy(&net);
}

/* The source's work is shared: two receivers cost it little more than one. */
static void receivers_pass_chunks_on(void **state)
{
    const size_t sizes[] = {3 * MIB, 8 * MIB, 60 * MIB};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct swarm_net *net = swarm_net_new(3, 3, NULL);
        struct replica_content_id id = swarm_net_put(net, 0, 3, sizes[i]);
        uint64_t began = net->now_ms;
        swarm_net_want(net, 1, &id, 0, 0);
        swarm_net_want(net, 2, &id, 0, 0);
        assert_true(swarm_net_run_until_filled(net, 1, &id, MINUTE));
        assert_true(swarm_net_run_until_filled(net, 2, &id, MINUTE));
        printf("  %zu MiB: source sent %.2f of it, %.2f of the time of one copy\n", (size_t)(id.length / MIB),
               (double)net->nodes[0].uploaded / (double)id.length,
               (double)(net->now_ms - began) * (double)net->nodes[0].rate / (double)id.length);
        assert_true(
            net->nodes[0].uploaded <
            (i == 0 ? id.length / 10 * 15 : id.length / 10 * 13)); /* one chunk in three, at most, twice */
        swarm_net_destroy(&net);
    }
}

/* A receiver that stands still does not hold the other up: what was left to it is asked of the source, more
 * and more at a time. */
static void stuck_receiver_is_passed_by(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 60 * MIB);
    uint64_t began = net->now_ms;
    (void)state;
    swarm_net_want(net, 1, &id, 0, 7);
    swarm_net_want(net, 2, &id, 0, 0);
    swarm_net_run(net, 12); /* each knows of the other; now one hangs, before it has anything */
    net->nodes[2].dead = true;
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_int_equal(net->nodes[1].code, 0);
    printf("  60 chunks of 10 ms beside a stuck receiver: %zu ms\n", (size_t)(net->now_ms - began));
    assert_true(net->now_ms - began < 60 * 10 + 8 * 10 /* sent to the stuck one */ + 200);
    swarm_net_destroy(&net);
}

/* Wrong bytes exclude their sender; another source finishes the fetch. */
static void liar_is_excluded(void **state)
{
    const size_t sizes[] = {100, 6 * MIB};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct swarm_net *net = swarm_net_new(3, 3, NULL);
        struct replica_content_id id = swarm_net_put(net, 0, 3, sizes[i]);
        uint64_t sent;
        assert_true(swarm_net_put(net, 1, 3, sizes[i]).length == sizes[i]);
        net->nodes[1].lies = true;
        swarm_net_want(net, 2, &id, 1 /* the liar */, 7);
        assert_true(swarm_net_run_until_answer(net, 2, 7, MINUTE));
        assert_int_equal(net->nodes[2].code, 0);
        assert_int_equal(swarm_net_status(net, 2).bad_pieces, 1); /* the very first */
        sent = net->nodes[1].uploaded;
        swarm_net_run(net, 1000);
        assert_int_equal(net->nodes[1].uploaded, sent);
        swarm_net_destroy(&net);
    }
}

/* A store that lies again and again is asked for nothing at all for a while. */
static void habitual_liar_is_avoided(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 3, NULL);
    uint64_t sent;
    (void)state;
    net->nodes[1].lies = true;
    for (uint64_t i = 0; i < 10; i++) {
        struct replica_content_id id = swarm_net_put(net, 0, i, 1000);
        swarm_net_put(net, 1, i, 1000);
        swarm_net_want(net, 2, &id, 1, i + 1);
        assert_true(swarm_net_run_until_answer(net, 2, i + 1, MINUTE));
        assert_int_equal(net->nodes[2].code, 0);
    }
    sent = net->nodes[1].uploaded;
    assert_int_equal(sent, 3 * 1000); /* three strikes */
    swarm_net_destroy(&net);
}

/* The only copy is damaged: nobody has it. */
static void only_liar_means_absent(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 100);
    (void)state;
    net->nodes[0].lies = true;
    swarm_net_want(net, 1, &id, 0, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_int_equal(net->nodes[1].code, REPLICA_E_ABSENT);
    swarm_net_destroy(&net);
}

/* A source that dies midway is replaced at once when membership says so, after a deadline otherwise; nothing
 * is fetched twice. */
static void dying_source_is_replaced(void **state)
{
    (void)state;
    for (int told = 0; told < 2; told++) {
        struct swarm_net *net = swarm_net_new(3, 3, NULL);
        struct replica_content_id id = swarm_net_put(net, 0, 3, 40 * MIB);
        uint64_t died;
        swarm_net_put(net, 1, 3, 40 * MIB);
        swarm_net_want(net, 2, &id, 0, 7);
        swarm_net_run(net, 150);
        net->nodes[0].dead = true;
        died = net->now_ms;
        if (told)
            swarm_net_member_dead(net, 2, 0);
        assert_true(swarm_net_run_until_answer(net, 2, 7, MINUTE));
        assert_int_equal(net->nodes[2].code, 0);
        assert_true(net->now_ms - died < (told ? 700 : 4000));
        assert_true(swarm_net_status(net, 2).duplicate_bytes == 0);
        swarm_net_destroy(&net);
    }
}

/* A source that never answers is left for another; with no other, the caller is told UNAVAILABLE after the
 * patience that progress is measured by, and not before. */
static void silent_source(void **state)
{
    (void)state;
    for (int other = 0; other < 2; other++)
        for (size_t size = 100; size <= 3 * MIB; size += 3 * MIB - 100) {
            struct swarm_net *net = swarm_net_new(3, other ? 2 : 1, NULL);
            struct replica_content_id id = swarm_net_put(net, 0, 3, size);
            swarm_net_put(net, 1, 3, size);
            net->nodes[0].mute = true;
            swarm_net_want(net, 2, &id, 0, 7);
            if (other) {
                assert_true(swarm_net_run_until_answer(net, 2, 7, 4000));
                assert_int_equal(net->nodes[2].code, 0);
            } else {
                assert_false(swarm_net_run_until_answer(net, 2, 7, 9999));
                assert_true(swarm_net_run_until_answer(net, 2, 7, 10000));
                assert_int_equal(net->nodes[2].code, REPLICA_E_UNAVAILABLE);
                assert_int_equal(swarm_net_status(net, 2).fetches, 0);
            }
            swarm_net_destroy(&net);
        }
}

/* One silent source holds up thousands of contents no longer than one. */
static void silent_source_of_many(void **state)
{
    enum { N = 5000 };
    struct swarm_net *net = swarm_net_new(3, 2, NULL);
    struct replica_content_id *ids = calloc(N, sizeof *ids);
    (void)state;
    for (uint64_t i = 0; i < N; i++)
        ids[i] = swarm_net_put(net, 1, i, 1000);
    net->nodes[0].mute = true;
    swarm_net_want_all(net, 2, ids, N, 0);
    swarm_net_run(net, 5000);
    assert_int_equal(net->nodes[2].haves, N);
    free(ids);
    swarm_net_destroy(&net);
}

/* A source that is much slower than another does not keep the last pieces: they are cancelled and asked for
 * elsewhere. */
static void slow_source_is_relieved(void **state)
{
    struct swarm_net *net = swarm_net_new(3, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 40 * MIB);
    (void)state;
    swarm_net_put(net, 1, 3, 40 * MIB);
    net->nodes[0].rate = 512; /* two seconds a chunk: eight are asked for */
    swarm_net_want(net, 2, &id, NOBODY, 7);
    assert_true(swarm_net_run_until_answer(net, 2, 7, 4000));
    assert_int_equal(net->nodes[2].code, 0);
    assert_true(swarm_net_status(net, 2).duplicate_bytes <= MIB);
    swarm_net_destroy(&net);
}

/* All say that they do not have it: ABSENT, within round trips. One that may not be reached makes it
 * UNAVAILABLE, later. */
static void absent_is_not_unreachable(void **state)
{
    (void)state;
    for (size_t size = 100; size <= 3 * MIB; size += 3 * MIB - 100) {
        struct swarm_net *net = swarm_net_new(3, 3, NULL);
        struct replica_content_id id;
        struct replica_contents *elsewhere;
        uint8_t *data = calloc(1, size);
        assert_int_equal(replica_contents_memory_new(&elsewhere), 0);
        data[size - 1] = 1;
        assert_int_equal(replica_contents_ingest(elsewhere, data, size, &id), 0);
        swarm_net_want(net, 2, &id, NOBODY, 7);
        assert_true(swarm_net_run_until_answer(net, 2, 7, 500));
        assert_int_equal(net->nodes[2].code, REPLICA_E_ABSENT);
        net->nodes[1].dead = true;
        swarm_net_want(net, 2, &id, NOBODY, 8);
        assert_false(swarm_net_run_until_answer(net, 2, 8, 5000));
        assert_true(swarm_net_run_until_answer(net, 2, 8, 15000));
        assert_int_equal(net->nodes[2].code, REPLICA_E_UNAVAILABLE);
        swarm_net_destroy(&net);
        replica_contents_destroy(&elsewhere);
        free(data);
    }
}

/* Membership knows nobody alive: told soon, but only after membership had a moment to learn. */
static void unknown_members_are_unavailable_soon(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 100);
    struct gossip_member_options options;
    struct gossip_member_record self = {.store = swarm_net_store(1), .generation = 1};
    (void)state;
    gossip_member_options_default(&options);
    strcpy(self.endpoint, "tcp://10.0.0.1:7000");
    assert_int_equal(gossip_member_new(&options, &self, NULL, 0, 1, &net->nodes[1].member), 0);
    swarm_net_restart(net, 1, NULL);
    swarm_net_want(net, 1, &id, NOBODY, 7);
    assert_false(swarm_net_run_until_answer(net, 1, 7, 1900));
    assert_true(swarm_net_run_until_answer(net, 1, 7, 2000));
    assert_int_equal(net->nodes[1].code, REPLICA_E_UNAVAILABLE);
    swarm_net_destroy(&net);
}

/* Without a token the search goes on for ever, backing off, until somebody has it. */
static void want_goes_on(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct swarm_net *other = swarm_net_new(1, 1, NULL);
    struct replica_content_id id = swarm_net_put(other, 0, 3, 100);
    size_t messages;
    (void)state;
    swarm_net_want(net, 1, &id, NOBODY, 0);
    swarm_net_run(net, 10 * MINUTE);
    messages = net->nodes[1].messages;
    assert_true(messages >= 60);
    assert_true(messages <= 66); /* 1, 2, 4, 8 and then every 10 s */
    assert_int_equal(swarm_net_status(net, 1).waiting, 1);
    assert_int_equal(swarm_net_status(net, 1).stalled, 1);
    swarm_net_put(net, 0, 3, 100);
    assert_true(swarm_net_run_until_filled(net, 1, &id, 10100));
    assert_int_equal(net->nodes[1].haves, 1);
    swarm_net_destroy(&net);
    swarm_net_destroy(&other);
}

/* UNWANT takes back one WANT; the last one, or the caller's going, ends the fetch, and what was asked for is
 * cancelled. */
static void unwant_ends_the_fetch(void **state)
{
    struct gossip_swarm_options options;
    struct swarm_net *net;
    struct replica_content_id id;
    struct gossip_swarm_event unwant = {.kind = GOSSIP_SWARM_EVENT_UNWANT};
    struct gossip_swarm_event cancel = {.kind = GOSSIP_SWARM_EVENT_CANCEL, .token = 7};
    uint64_t uploaded;
    (void)state;
    gossip_swarm_options_default(&options);
    options.upload_slots = 2;
    net = swarm_net_new(2, 2, &options);
    id = swarm_net_put(net, 0, 3, 40 * MIB);
    unwant.volume = net->volume;
    unwant.content = id;
    swarm_net_want(net, 1, &id, 0, 0);
    swarm_net_want(net, 1, &id, 0, 0);
    swarm_net_want(net, 1, &id, 0, 7);
    swarm_net_run(net, 100);
    swarm_net_step(net, 1, &unwant);
    swarm_net_step(net, 1, &unwant);
    swarm_net_step(net, 1, &unwant); /* one too many means nothing */
    assert_int_equal(swarm_net_status(net, 1).fetches, 1);
    uploaded = net->nodes[0].uploaded;
    swarm_net_step(net, 1, &cancel);
    assert_int_equal(swarm_net_status(net, 1).fetches, 0);
    swarm_net_run(net, 5000);
    assert_true(net->nodes[0].uploaded <= uploaded + MIB); /* what it took from the queue until it heard */
    assert_int_equal(net->nodes[1].answers, 0);
    swarm_net_destroy(&net);
}

/* What was fetched stays: wanted again, after a restart of the room, only the rest is asked for. */
static void dropped_fetch_resumes(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 40 * MIB);
    uint64_t uploaded;
    uint32_t had;
    (void)state;
    swarm_net_want(net, 1, &id, 0, 0);
    swarm_net_run(net, 200);
    swarm_net_restart(net, 1, NULL);
    swarm_net_run(net, 2000); /* what was under way arrives, and is kept */
    had = swarm_net_chunks(net, 1, &id);
    assert_in_range(had, 8, 39);
    uploaded = net->nodes[0].uploaded;
    swarm_net_want(net, 1, &id, 0, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_int_equal(net->nodes[0].uploaded - uploaded, (40 - had) * MIB);
    swarm_net_destroy(&net);
}

/* The same for a content of several pages: what is known of each is found again. */
static void dropped_fetch_of_pages_resumes(void **state)
{
    const uint32_t chunks[] = {0, 1, 2, 3, 1023, 1024, 1025, 2048, 2049, 3000, 3001, 4500, 5000};
    const size_t n = sizeof chunks / sizeof chunks[0];
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put_sparse(net, 0, 5001 * MIB - 9, chunks, n);
    uint64_t uploaded;
    (void)state;
    swarm_net_want(net, 1, &id, 0, 0);
    swarm_net_run(net, 90);
    swarm_net_restart(net, 1, NULL);
    swarm_net_run(net, 2000);
    assert_false(swarm_net_is_filled(net, 1, &id));
    uploaded = net->nodes[0].uploaded;
    assert_true(uploaded > 2 * MIB);
    swarm_net_want(net, 1, &id, 0, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_true(swarm_net_is_filled(net, 1, &id));
    assert_true(net->nodes[0].uploaded <= n * MIB + 6 * 32 * KIB); /* nothing twice */
    swarm_net_destroy(&net);
}

/* More receivers than a fetch may have sources: all of them get it, at the cost of few copies from the seed.
 */
static void many_caches(void **state)
{
    enum { N = 40 };
    struct swarm_net *net = swarm_net_new(N + 1, 1, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 24 * MIB);
    (void)state;
    for (size_t i = 1; i <= N; i++)
        swarm_net_want(net, i, &id, NOBODY, 0);
    for (size_t i = 1; i <= N; i++)
        assert_true(swarm_net_run_until_filled(net, i, &id, MINUTE));
    printf("  source sent %.2f of it to %d caches\n", (double)net->nodes[0].uploaded / (double)id.length, N);
    assert_true(net->nodes[0].uploaded < 8 * id.length);
    swarm_net_destroy(&net);
}

/* Stores that are of no use make room for others; one that asks is one of them. */
static void useless_sources_make_room(void **state)
{
    enum { N = 24 };
    struct swarm_net *net = swarm_net_new(N, 16, NULL);
    struct swarm_net *other = swarm_net_new(1, 1, NULL);
    struct replica_content_id id = swarm_net_put(other, 0, 3, 6 * MIB);
    (void)state;
    swarm_net_want(net, 20, &id, NOBODY, 0);
    swarm_net_run(net, 3000); /* sixteen voters lack it */
    for (size_t i = 21; i < N; i++)
        swarm_net_want(net, i, &id, 20, 0); /* three more look for it, and know of the first */
    swarm_net_put(net, 21, 3, 6 * MIB);     /* one of them gets it from elsewhere */
    assert_true(swarm_net_run_until_filled(net, 20, &id, MINUTE));
    for (size_t i = 20; i < N; i++)
        assert_true(swarm_net_run_until_filled(net, i, &id, MINUTE));
    swarm_net_destroy(&net);
    swarm_net_destroy(&other);
}

/* A piece that came already is counted as waste, and does no harm. */
static void duplicates_are_counted(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 20 * MIB);
    struct gossip_swarm_event event = {
        .kind = GOSSIP_SWARM_EVENT_PIECE, .source = swarm_net_store(0), .content = id, .bytes = MIB};
    (void)state;
    swarm_net_want(net, 1, &id, 0, 0);
    swarm_net_run(net, 100);
    for (event.piece = (struct replica_piece){REPLICA_PIECE_CHUNK, 0}; event.piece.index < 20;
         event.piece.index++)
        if (replica_contents_has(net->nodes[1].contents, &id, event.piece))
            break;
    swarm_net_step(net, 1, &event);
    assert_int_equal(swarm_net_status(net, 1).duplicate_bytes, MIB);
    assert_true(swarm_net_run_until_filled(net, 1, &id, MINUTE));
    assert_int_equal(swarm_net_status(net, 1).duplicate_bytes, MIB);
    swarm_net_destroy(&net);
}

/* A reader's range comes first and in order, ahead of the rest of its own content and of all others. */
static void range_comes_first(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 40 * MIB),
                              other = swarm_net_put(net, 0, 4, 40 * MIB);
    uint64_t began;
    (void)state;
    swarm_net_want(net, 1, &other, 0, 0);
    swarm_net_want(net, 1, &id, 0, 0);
    swarm_net_run(net, 50);
    began = net->now_ms;
    swarm_net_want_range(net, 1, &id, 0, 33, 2, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_true(net->now_ms - began < (8 + 3) * 10 + 2 * SWARM_LATENCY_MS); /* behind what was asked before */
    assert_true(swarm_net_chunks(net, 1, &id) < 12);
    /* Only a range: nothing else is fetched. */
    swarm_net_restart(net, 1, NULL);
    swarm_net_run(net, 1000);
    began = swarm_net_chunks(net, 1, &id);
    swarm_net_want_range(net, 1, &id, 0, 0, 4, 8);
    assert_true(swarm_net_run_until_answer(net, 1, 8, MINUTE));
    assert_true(swarm_net_chunks(net, 1, &id) <= began + 4);
    assert_int_equal(swarm_net_status(net, 1).fetches, 0);
    swarm_net_want_range(net, 1, &id, 0, 40, 1, 9); /* past the end */
    assert_int_equal(net->nodes[1].code, REPLICA_E_INVALID);
    swarm_net_destroy(&net);
}

/* Many small contents share messages and the pipe: the source's link is the limit, not the round trip. */
static void many_small_contents(void **state)
{
    enum { N = 10000 };
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id *ids = calloc(N, sizeof *ids);
    (void)state;
    net->nodes[0].rate = 10 * KIB;
    for (uint64_t i = 0; i < N; i++)
        ids[i] = swarm_net_put(net, 0, i + 1, 4 * KIB);
    swarm_net_want_all(net, 1, ids, N, 0);
    swarm_net_run(net, MINUTE);
    assert_int_equal(net->nodes[1].haves, N);
    assert_int_equal(net->nodes[0].uploaded, (uint64_t)N * 4 * KIB);
    assert_true(net->nodes[1].messages <= N / 50);
    assert_true(net->nodes[1].steps < 3 * N);
    free(ids);
    swarm_net_destroy(&net);
}

static int visit(void *context, const struct replica_content_id *content, uint64_t present, size_t sources,
                 bool stalled)
{
    struct replica_content_id *last = context;
    assert_true(replica_content_id_compare(last, content) < 0);
    *last = *content;
    assert_int_equal(sources, 0); /* nobody has it */
    assert_int_equal(present, 0);
    assert_true(stalled);
    return 0;
}

/* What is being fetched can be seen: how far it is, from how many, and that it stands still. */
static void fetches_are_shown(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 1, NULL), *other = swarm_net_new(1, 1, NULL);
    struct replica_content_id last = {{0}, 0}, id;
    (void)state;
    assert_int_equal(gossip_swarm_each(net->nodes[1].swarm, visit, &last), 0);
    for (uint64_t i = 0; i < 20; i++) {
        id = swarm_net_put(other, 0, i, 1000 + i);
        swarm_net_want(net, 1, &id, NOBODY, 0);
    }
    swarm_net_run(net, 9990);
    assert_int_equal(swarm_net_status(net, 1).stalled, 0);
    swarm_net_run(net, 10100);
    assert_int_equal(swarm_net_status(net, 1).stalled, 20);
    assert_int_equal(gossip_swarm_each(net->nodes[1].swarm, visit, &last), 0);
    swarm_net_destroy(&net);
    swarm_net_destroy(&other);
}

/* Callers hear about once a second how far it is. */
static void progress_is_told(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 40 * MIB);
    (void)state;
    net->nodes[0].rate = 8 * KIB; /* five seconds */
    swarm_net_want(net, 1, &id, 0, 7);
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_in_range(net->nodes[1].progress, 4, 5);
    swarm_net_destroy(&net);
}

/* No room here: the caller hears NOSPACE, a WANT tries again later. */
static void no_space(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id small = swarm_net_put(net, 0, 3, 100),
                              large = swarm_net_put(net, 0, 4, 4 * MIB);
    (void)state;
    replica_contents_memory_fail(net->nodes[1].contents, REPLICA_E_NOSPACE);
    swarm_net_want(net, 1, &small, 0, 7);
    assert_int_equal(net->nodes[1].code, REPLICA_E_NOSPACE);
    swarm_net_want(net, 1, &small, 0, 0);
    replica_contents_memory_fail(net->nodes[1].contents, 0);
    assert_true(swarm_net_run_until_filled(net, 1, &small, 2000));
    swarm_net_want(net, 1, &large, 0, 8);
    swarm_net_want(net, 1, &large, 0, 0);
    replica_contents_memory_fail(net->nodes[1].contents, REPLICA_E_NOSPACE); /* while it comes in */
    assert_true(swarm_net_run_until_answer(net, 1, 8, 2000));
    assert_int_equal(net->nodes[1].code, REPLICA_E_NOSPACE);
    replica_contents_memory_fail(net->nodes[1].contents, 0);
    assert_true(swarm_net_run_until_filled(net, 1, &large, 20000));
    swarm_net_destroy(&net);
}

/* A content that is removed while it is fetched begins anew. */
static void removed_content_begins_anew(void **state)
{
    struct swarm_net *net = swarm_net_new(2, 2, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 20 * MIB);
    (void)state;
    swarm_net_want(net, 1, &id, 0, 7);
    swarm_net_run(net, 100);
    assert_int_equal(replica_contents_remove(net->nodes[1].contents, &id), 0);
    assert_true(swarm_net_run_until_answer(net, 1, 7, MINUTE));
    assert_int_equal(net->nodes[1].code, 0);
    assert_true(swarm_net_is_filled(net, 1, &id));
    swarm_net_destroy(&net);
}

/* Caches that know only one voter learn of each other through it, and share. */
static void caches_find_each_other(void **state)
{
    struct swarm_net *net = swarm_net_new(9, 1, NULL);
    struct replica_content_id id = swarm_net_put(net, 0, 3, 64 * MIB);
    uint64_t began = net->now_ms;
    (void)state;
    for (size_t i = 1; i < 9; i++)
        swarm_net_want(net, i, &id, NOBODY, 0);
    for (size_t i = 1; i < 9; i++)
        assert_true(swarm_net_run_until_filled(net, i, &id, MINUTE));
    printf("  source sent %.2f of it to 8 caches, in %.2f of the time of one copy\n",
           (double)net->nodes[0].uploaded / (double)id.length,
           (double)(net->now_ms - began) * (double)net->nodes[0].rate / (double)id.length);
    assert_true(net->nodes[0].uploaded < 3 * id.length);
    swarm_net_destroy(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_source_one_receiver),
        cmocka_unit_test(small_content_takes_one_round_trip),
        cmocka_unit_test(present_content_is_answered_at_once),
        cmocka_unit_test(holes_are_not_sent),
        cmocka_unit_test(receivers_pass_chunks_on),
        cmocka_unit_test(stuck_receiver_is_passed_by),
        cmocka_unit_test(liar_is_excluded),
        cmocka_unit_test(habitual_liar_is_avoided),
        cmocka_unit_test(only_liar_means_absent),
        cmocka_unit_test(dying_source_is_replaced),
        cmocka_unit_test(silent_source),
        cmocka_unit_test(silent_source_of_many),
        cmocka_unit_test(slow_source_is_relieved),
        cmocka_unit_test(absent_is_not_unreachable),
        cmocka_unit_test(unknown_members_are_unavailable_soon),
        cmocka_unit_test(want_goes_on),
        cmocka_unit_test(unwant_ends_the_fetch),
        cmocka_unit_test(dropped_fetch_resumes),
        cmocka_unit_test(dropped_fetch_of_pages_resumes),
        cmocka_unit_test(many_caches),
        cmocka_unit_test(useless_sources_make_room),
        cmocka_unit_test(duplicates_are_counted),
        cmocka_unit_test(range_comes_first),
        cmocka_unit_test(many_small_contents),
        cmocka_unit_test(fetches_are_shown),
        cmocka_unit_test(progress_is_told),
        cmocka_unit_test(no_space),
        cmocka_unit_test(removed_content_begins_anew),
        cmocka_unit_test(caches_find_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
