/* What the rooms share: an update keeps what it is given until it is cleared; random numbers repeat by seed
 * and are even; a principal may do what its credential says and nothing else. */
#include "gossip/step.h"

#include "replica/merkle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void an_update_copies_what_it_is_given(void **state)
{
    struct gossip_update update;
    struct replica_buffer payload;
    struct replica_id to = {{1}};
    (void)state;
    gossip_update_init(&update);
    replica_buffer_init(&payload);
    for (int round = 0; round < 100; round++) {
        replica_buffer_clear(&payload);
        replica_pack_uint(&payload, (uint64_t)round);
        gossip_update_send(&update, &to, GOSSIP_ROOM_SYNC, (uint8_t)round, &payload, round % 2 == 0);
        gossip_update_answer(&update, (uint64_t)round + 1, REPLICA_E_BUSY, &payload, true);
        gossip_update_note(&update, GOSSIP_NOTE_STORED, &to, NULL, NULL);
    }
    replica_buffer_close(&payload);
    assert_int_equal(update.sends_n, 100);
    for (size_t i = 0; i < 100; i++) {
        struct replica_pack_reader reader;
        uint64_t value;
        replica_pack_reader_init(&reader, update.bytes.data + update.sends[i].offset, update.sends[i].size);
        assert_int_equal(replica_pack_read_uint(&reader, 1000, &value), 0);
        assert_int_equal(value, i);
        assert_int_equal(update.sends[i].durable, i % 2 == 0);
        assert_int_equal(update.answers[i].token, i + 1);
        assert_true(update.answers[i].final);
    }
    gossip_update_clear(&update);
    assert_int_equal(update.sends_n + update.answers_n + update.notes_n + update.bytes.size, 0);
    assert_true(update.wake_ms == UINT64_MAX);
    gossip_update_close(&update);
}

static void the_earliest_wake_counts(void **state)
{
    struct gossip_update update;
    (void)state;
    gossip_update_init(&update);
    gossip_update_wake(&update, 30);
    gossip_update_wake(&update, 20);
    gossip_update_wake(&update, 25);
    assert_int_equal(update.wake_ms, 20);
    gossip_update_close(&update);
}

static void nobody_is_answered_under_token_zero(void **state)
{
    struct gossip_update update;
    (void)state;
    gossip_update_init(&update);
    gossip_update_answer(&update, 0, 0, NULL, false);
    gossip_update_progress(&update, 0, NULL);
    assert_int_equal(update.answers_n, 0);
    gossip_update_progress(&update, 7, NULL);
    assert_int_equal(update.answers_n, 1);
    assert_false(update.answers[0].final);
    gossip_update_close(&update);
}

static void random_numbers_repeat_by_seed_and_stream(void **state)
{
    struct gossip_random a, b, other_stream, other_seed;
    size_t same_stream = 0, same_seed = 0;
    (void)state;
    gossip_random_init(&a, 42, 1);
    gossip_random_init(&b, 42, 1);
    gossip_random_init(&other_stream, 42, 2);
    gossip_random_init(&other_seed, 43, 1);
    for (int i = 0; i < 1000; i++) {
        uint64_t value = gossip_random_next(&a);
        assert_true(value == gossip_random_next(&b));
        same_stream += value == gossip_random_next(&other_stream);
        same_seed += value == gossip_random_next(&other_seed);
    }
    assert_int_equal(same_stream + same_seed, 0);
}

static void numbers_below_a_bound_are_even(void **state)
{
    struct gossip_random random;
    unsigned counts[7] = {0};
    (void)state;
    gossip_random_init(&random, 1, 1);
    for (int i = 0; i < 70000; i++)
        counts[gossip_random_below(&random, 7)]++;
    for (size_t i = 0; i < 7; i++)
        assert_in_range(counts[i], 9500, 10500); /* 5 standard deviations are 463 */
    for (int i = 0; i < 100; i++)
        assert_int_equal(gossip_random_below(&random, 1), 0);
}

static void a_principal_may_what_it_was_given(void **state)
{
    struct gossip_principal principal = {.volumes_n = 2};
    struct replica_hash hash;
    (void)state;
    replica_hash_bytes("weights", 7, &hash);
    memcpy(principal.volumes[0].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE);
    principal.volumes[0].read_only = true;
    replica_hash_bytes("runs", 4, &hash);
    memcpy(principal.volumes[1].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE);
    assert_true(gossip_principal_may(&principal, "weights", false));
    assert_false(gossip_principal_may(&principal, "weights", true));
    assert_true(gossip_principal_may(&principal, "runs", true));
    assert_false(gossip_principal_may(&principal, "other", false));
    principal.every_volume = true;
    assert_true(gossip_principal_may(&principal, "other", true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_update_copies_what_it_is_given),
        cmocka_unit_test(the_earliest_wake_counts),
        cmocka_unit_test(nobody_is_answered_under_token_zero),
        cmocka_unit_test(random_numbers_repeat_by_seed_and_stream),
        cmocka_unit_test(numbers_below_a_bound_are_even),
        cmocka_unit_test(a_principal_may_what_it_was_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
