/* Ids, stamps, actors, HLC: orders, encodings, texts. */
#include "replica/hlc.h"
#include "replica/ids.h"
#include "replica_support.h"

static void ids_as_text(void **state)
{
    struct replica_id id = {{0x00, 0x01, 0x7f, 0x80, 0xff, 0xab, 0xcd, 0xef, 1, 2, 3, 4, 5, 6, 7, 8}}, parsed;
    char text[33];
    (void)state;
    replica_id_format(&id, text);
    assert_string_equal(text, "00017f80ffabcdef0102030405060708");
    assert_int_equal(replica_id_parse(text, &parsed), 0);
    assert_true(replica_id_equal(&id, &parsed));
    assert_int_equal(replica_id_parse("00017F80FFABCDEF0102030405060708", &parsed), 0);
    assert_true(replica_id_equal(&id, &parsed));
}

static void bad_texts_change_nothing(void **state)
{
    static const char *const texts[] = {"",
                                        "0",
                                        "00017f80ffabcdef010203040506070",
                                        "00017f80ffabcdef01020304050607080",
                                        "g0017f80ffabcdef0102030405060708",
                                        "0g017f80ffabcdef0102030405060708",
                                        "00017f80ffabcdef01020304050607 8"};
    struct replica_id id = support_id(1, 1), before = id;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_int_equal(replica_id_parse(texts[i], &id), REPLICA_E_INVALID);
        assert_true(replica_id_equal(&id, &before));
    }
}

static void ids_have_an_order(void **state)
{
    struct replica_id zero = {{0}}, a = support_id(1, 1), b = support_id(1, 2);
    (void)state;
    assert_true(replica_id_is_zero(&zero));
    assert_false(replica_id_is_zero(&a));
    assert_true(replica_id_compare(&a, &b) < 0 && replica_id_compare(&b, &a) > 0);
}

static void content_ids_differ_by_root_and_length(void **state)
{
    struct replica_content_id a = {.root = {1}, .length = 5}, b = a, decoded;
    uint8_t bytes[REPLICA_CONTENT_ID_SIZE], other[REPLICA_CONTENT_ID_SIZE];
    (void)state;
    b.length = 256;
    assert_true(replica_content_id_compare(&a, &b) < 0);
    assert_false(replica_content_id_equal(&a, &b));
    replica_content_id_encode(&a, bytes);
    replica_content_id_encode(&b, other);
    assert_true(memcmp(bytes, other, sizeof bytes) < 0); /* bytewise order is the order */
    replica_content_id_decode(bytes, &decoded);
    assert_true(replica_content_id_equal(&a, &decoded));
    b.root[0] = 0;
    assert_true(replica_content_id_compare(&a, &b) > 0);
}

/* The last writer wins by hlc first, then by commit id; zero is "nothing was there". */
static void stamps_are_totally_ordered(void **state)
{
    struct replica_stamp zero = {0}, early = {1, support_id(9, 9)}, late = {256, support_id(1, 1)},
                         tie = {256, support_id(1, 2)}, decoded;
    uint8_t bytes[REPLICA_STAMP_SIZE], other[REPLICA_STAMP_SIZE];
    (void)state;
    assert_true(replica_stamp_is_zero(&zero));
    assert_false(replica_stamp_is_zero(&early));
    assert_true(replica_stamp_compare(&zero, &early) < 0);
    assert_true(replica_stamp_compare(&early, &late) < 0);
    assert_true(replica_stamp_compare(&late, &tie) < 0 && replica_stamp_compare(&tie, &late) > 0);
    assert_int_equal(replica_stamp_compare(&tie, &tie), 0);
    replica_stamp_encode(&early, bytes);
    replica_stamp_encode(&late, other);
    assert_true(memcmp(bytes, other, sizeof bytes) < 0);
    replica_stamp_decode(other, &decoded);
    assert_int_equal(replica_stamp_compare(&late, &decoded), 0);
}

static void actors_encode_in_order(void **state)
{
    struct replica_actor a = support_actor(1, 2), b = support_actor(1, 300), c = support_actor(2, 1), decoded;
    uint8_t bytes[REPLICA_ACTOR_SIZE], other[REPLICA_ACTOR_SIZE];
    (void)state;
    assert_true(replica_actor_compare(&a, &b) < 0 && replica_actor_compare(&b, &c) < 0);
    replica_actor_encode(&a, bytes);
    replica_actor_encode(&b, other);
    assert_true(memcmp(bytes, other, sizeof bytes) < 0);
    replica_actor_decode(other, &decoded);
    assert_int_equal(replica_actor_compare(&b, &decoded), 0);
    replica_u64_encode(UINT64_MAX - 7, bytes);
    assert_true(replica_u64_decode(bytes) == UINT64_MAX - 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_as_text),
        cmocka_unit_test(bad_texts_change_nothing),
        cmocka_unit_test(ids_have_an_order),
        cmocka_unit_test(content_ids_differ_by_root_and_length),
        cmocka_unit_test(stamps_are_totally_ordered),
        cmocka_unit_test(actors_encode_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
