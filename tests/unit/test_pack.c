/* MessagePack: what is written is read back; what a peer may claim harms nobody. */
#include "replica/pack.h"
#include "replica_support.h"

static struct replica_pack_reader reader_of(const void *data, size_t n)
{
    struct replica_pack_reader reader;
    replica_pack_reader_init(&reader, data, n);
    return reader;
}

static void numbers_round_trip(void **state)
{
    static const uint64_t unsigneds[] = {
        0, 1, 127, 128, 255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1, INT64_MAX, UINT64_MAX};
    static const int64_t signeds[] = {0,         -1,     -32,      -33,       -128,
                                      -129,      -32768, -32769,   INT32_MIN, (int64_t)INT32_MIN - 1,
                                      INT64_MIN, 5,      INT64_MAX};
    struct replica_buffer out;
    struct replica_pack_reader reader;
    (void)state;
    replica_buffer_init(&out);
    for (size_t i = 0; i < sizeof unsigneds / sizeof unsigneds[0]; i++)
        replica_pack_uint(&out, unsigneds[i]);
    for (size_t i = 0; i < sizeof signeds / sizeof signeds[0]; i++)
        replica_pack_int(&out, signeds[i]);
    reader = reader_of(out.data, out.size);
    for (size_t i = 0; i < sizeof unsigneds / sizeof unsigneds[0]; i++) {
        uint64_t value;
        assert_int_equal(replica_pack_peek(&reader), REPLICA_PACK_INT);
        assert_int_equal(replica_pack_read_uint(&reader, UINT64_MAX, &value), 0);
        assert_true(value == unsigneds[i]);
    }
    for (size_t i = 0; i < sizeof signeds / sizeof signeds[0]; i++) {
        int64_t value;
        assert_int_equal(replica_pack_read_int(&reader, &value), 0);
        assert_true(value == signeds[i]);
    }
    assert_int_equal(replica_pack_reader_finish(&reader), 0);
    replica_buffer_close(&out);
}

/* Every width of an integer is read, the long ways of writing a small one too. */
static void every_width_is_read(void **state)
{
    static const struct {
        uint8_t bytes[9];
        size_t n;
        int64_t value;
    } cases[] = {
        {{0xcc, 5}, 2, 5},
        {{0xcd, 0, 5}, 3, 5},
        {{0xce, 0, 0, 0, 5}, 5, 5},
        {{0xcf, 0, 0, 0, 0, 0, 0, 0, 5}, 9, 5},
        {{0xd0, 0xff}, 2, -1},
        {{0xd1, 0xff, 0xfe}, 3, -2},
        {{0xd2, 0xff, 0xff, 0xff, 0xfd}, 5, -3},
        {{0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc}, 9, -4},
        {{0xd0, 0x7f}, 2, 127},
        {{0xe0}, 1, -32},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct replica_pack_reader reader = reader_of(cases[i].bytes, cases[i].n);
        int64_t value;
        assert_int_equal(replica_pack_read_int(&reader, &value), 0);
        assert_true(value == cases[i].value);
        for (size_t cut = 0; cut < cases[i].n; cut++) { /* and no shorter */
            reader = reader_of(cases[i].bytes, cut);
            assert_int_equal(replica_pack_read_int(&reader, &value), REPLICA_E_MALFORMED);
            assert_true(value == 0);
        }
    }
}

static void ranges_are_enforced(void **state)
{
    struct replica_buffer out;
    struct replica_pack_reader reader;
    uint64_t value;
    int64_t number;
    (void)state;
    replica_buffer_init(&out);
    replica_pack_uint(&out, 100);
    reader = reader_of(out.data, out.size);
    assert_int_equal(replica_pack_read_uint(&reader, 100, &value), 0);
    reader = reader_of(out.data, out.size);
    assert_int_equal(replica_pack_read_uint(&reader, 99, &value), REPLICA_E_MALFORMED);
    assert_true(value == 0);
    replica_buffer_clear(&out);
    replica_pack_int(&out, -1);
    reader = reader_of(out.data, out.size);
    assert_int_equal(replica_pack_read_uint(&reader, UINT64_MAX, &value), REPLICA_E_MALFORMED);
    replica_buffer_clear(&out);
    replica_pack_uint(&out, (uint64_t)INT64_MAX + 1);
    reader = reader_of(out.data, out.size);
    assert_int_equal(replica_pack_read_int(&reader, &number), REPLICA_E_MALFORMED);
    assert_true(number == 0);
    replica_buffer_close(&out);
}

static void compounds_round_trip(void **state)
{
    struct replica_id id = support_id(7, 9), read_id;
    struct replica_content_id content = {.root = {1, 2, 3}, .length = 77}, read_content;
    struct replica_stamp stamp = {.hlc = 12, .commit = id}, read_stamp;
    struct replica_dot dot = {.actor = support_actor(3, 4), .seq = 5}, read_dot;
    struct replica_buffer out;
    struct replica_pack_reader reader;
    const uint8_t *data;
    const char *text;
    char big[70000];
    bool flag;
    size_t n;
    (void)state;
    memset(big, 'x', sizeof big);
    replica_buffer_init(&out);
    replica_pack_array(&out, 3);
    replica_pack_bool(&out, true);
    replica_pack_bool(&out, false);
    replica_pack_nil(&out);
    replica_pack_map(&out, 1);
    replica_pack_cstr(&out, "name");
    replica_pack_str(&out, big, 40); /* str 8 */
    replica_pack_str(&out, big, 300);
    replica_pack_str(&out, big, sizeof big);
    replica_pack_bin(&out, big, 0);
    replica_pack_bin(&out, big, 300);
    replica_pack_bin(&out, big, sizeof big);
    replica_pack_id(&out, &id);
    replica_pack_content_id(&out, &content);
    replica_pack_stamp(&out, &stamp);
    replica_pack_dot(&out, &dot);
    assert_false(out.failed);
    reader = reader_of(out.data, out.size);
    assert_int_equal(replica_pack_read_array(&reader, 3, &n), 0);
    assert_int_equal(n, 3);
    assert_int_equal(replica_pack_read_bool(&reader, &flag), 0);
    assert_true(flag);
    assert_int_equal(replica_pack_read_bool(&reader, &flag), 0);
    assert_false(flag);
    assert_int_equal(replica_pack_peek(&reader), REPLICA_PACK_NIL);
    assert_int_equal(replica_pack_skip(&reader), 0);
    assert_int_equal(replica_pack_read_map(&reader, 1, &n), 0);
    assert_int_equal(replica_pack_read_str(&reader, 4, &text, &n), 0);
    assert_memory_equal(text, "name", 4);
    assert_int_equal(replica_pack_read_str(&reader, 40, &text, &n), 0);
    assert_int_equal(replica_pack_read_str(&reader, 300, &text, &n), 0);
    assert_int_equal(replica_pack_read_str(&reader, sizeof big, &text, &n), 0);
    assert_int_equal(n, sizeof big);
    assert_memory_equal(text, big, n);
    assert_int_equal(replica_pack_read_bin(&reader, 0, &data, &n), 0);
    assert_int_equal(replica_pack_read_bin(&reader, 300, &data, &n), 0);
    assert_int_equal(replica_pack_read_bin(&reader, sizeof big, &data, &n), 0);
    assert_memory_equal(data, big, n);
    assert_int_equal(replica_pack_read_id(&reader, &read_id), 0);
    assert_true(replica_id_equal(&id, &read_id));
    assert_int_equal(replica_pack_read_content_id(&reader, &read_content), 0);
    assert_true(replica_content_id_equal(&content, &read_content));
    assert_int_equal(replica_pack_read_stamp(&reader, &read_stamp), 0);
    assert_int_equal(replica_stamp_compare(&stamp, &read_stamp), 0);
    assert_int_equal(replica_pack_read_dot(&reader, &read_dot), 0);
    assert_int_equal(replica_actor_compare(&dot.actor, &read_dot.actor), 0);
    assert_true(read_dot.seq == 5);
    assert_int_equal(replica_pack_reader_finish(&reader), 0);
    assert_int_equal(replica_pack_peek(&reader), REPLICA_PACK_END);
    replica_buffer_close(&out);
}

/* A length that a peer claims is checked against what is there before it means anything. */
static void huge_lengths_are_refused(void **state)
{
    static const struct {
        uint8_t bytes[6];
        size_t n;
    } cases[] = {
        {{0xc4, 0xff, 1}, 3},                   /* bin 8 */
        {{0xc5, 0xff, 0xff, 1}, 4},             /* bin 16 */
        {{0xc6, 0xff, 0xff, 0xff, 0xff, 1}, 6}, /* bin 32 */
        {{0xa5, 'a', 'b'}, 3},                  /* fixstr */
        {{0xd9, 0x7f, 'a'}, 3},                 /* str 8 */
        {{0xda, 0x7f, 0xff, 'a'}, 4},           /* str 16 */
        {{0xdb, 0x7f, 0xff, 0xff, 0xff, 'a'}, 6},
        {{0x9f, 1}, 2},                         /* fixarray */
        {{0xdc, 0xff, 0xff, 1}, 4},             /* array 16 */
        {{0xdd, 0xff, 0xff, 0xff, 0xff, 1}, 6}, /* array 32 */
        {{0x8f, 1}, 2},                         /* fixmap */
        {{0xde, 0xff, 0xff, 1}, 4},
        {{0xdf, 0xff, 0xff, 0xff, 0xff, 1}, 6},
        {{0xc7, 0xff, 1, 1}, 4}, /* ext 8 */
        {{0xc8, 0xff, 0xff, 1}, 4},
        {{0xc9, 0xff, 0xff, 0xff, 0xff, 1}, 6},
        {{0xd8, 1, 2, 3}, 4}, /* fixext 16 */
        {{0xca, 1, 2}, 3},    /* float 32 */
        {{0xcb, 1, 2}, 3},    /* float 64 */
        {{0xc1}, 1},          /* never used */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct replica_pack_reader reader = reader_of(cases[i].bytes, cases[i].n);
        const uint8_t *data;
        const char *text;
        size_t n;
        assert_int_equal(replica_pack_skip(&reader), REPLICA_E_MALFORMED);
        assert_int_equal(replica_pack_reader_finish(&reader), REPLICA_E_MALFORMED);
        reader = reader_of(cases[i].bytes, cases[i].n);
        assert_int_equal(replica_pack_read_bin(&reader, SIZE_MAX, &data, &n), REPLICA_E_MALFORMED);
        assert_non_null(data);
        assert_int_equal(n, 0);
        reader = reader_of(cases[i].bytes, cases[i].n);
        assert_int_equal(replica_pack_read_str(&reader, SIZE_MAX, &text, &n), REPLICA_E_MALFORMED);
        reader = reader_of(cases[i].bytes, cases[i].n);
        assert_int_equal(replica_pack_read_array(&reader, SIZE_MAX, &n), REPLICA_E_MALFORMED);
        reader = reader_of(cases[i].bytes, cases[i].n);
        assert_int_equal(replica_pack_read_map(&reader, SIZE_MAX, &n), REPLICA_E_MALFORMED);
    }
}

static void other_types_are_refused(void **state)
{
    static const uint8_t text[] = {0xa3, 'a', 'b', 'c'}, nothing[1];
    static const uint8_t short_id[] = {0xc4, 2, 1, 2};
    struct replica_id id;
    struct replica_content_id content;
    struct replica_stamp stamp;
    struct replica_dot dot;
    struct replica_pack_reader reader;
    uint64_t value;
    bool flag;
    (void)state;
    reader = reader_of(text, sizeof text);
    assert_int_equal(replica_pack_read_uint(&reader, UINT64_MAX, &value), REPLICA_E_MALFORMED);
    reader = reader_of(text, sizeof text);
    assert_int_equal(replica_pack_read_bool(&reader, &flag), REPLICA_E_MALFORMED);
    reader = reader_of(nothing, 0);
    assert_int_equal(replica_pack_read_bool(&reader, &flag), REPLICA_E_MALFORMED);
    assert_false(flag);
    reader = reader_of(short_id, sizeof short_id);
    assert_int_equal(replica_pack_read_id(&reader, &id), REPLICA_E_MALFORMED);
    assert_true(replica_id_is_zero(&id));
    reader = reader_of(short_id, sizeof short_id);
    assert_int_equal(replica_pack_read_content_id(&reader, &content), REPLICA_E_MALFORMED);
    reader = reader_of(short_id, sizeof short_id);
    assert_int_equal(replica_pack_read_stamp(&reader, &stamp), REPLICA_E_MALFORMED);
    assert_true(replica_stamp_is_zero(&stamp));
    reader = reader_of(short_id, sizeof short_id);
    assert_int_equal(replica_pack_read_dot(&reader, &dot), REPLICA_E_MALFORMED);
    assert_true(dot.seq == 0);
}

/* A decoder may read a whole record and look once, at the end. */
static void a_failed_reader_stays_failed(void **state)
{
    static const uint8_t bytes[] = {0xc1, 5, 0xc3};
    struct replica_pack_reader reader = reader_of(bytes, sizeof bytes);
    uint64_t value;
    bool flag;
    (void)state;
    assert_int_equal(replica_pack_read_uint(&reader, 9, &value), REPLICA_E_MALFORMED);
    reader.offset = 1;
    assert_int_equal(replica_pack_read_uint(&reader, 9, &value), REPLICA_E_MALFORMED);
    assert_true(value == 0);
    assert_int_equal(replica_pack_read_bool(&reader, &flag), REPLICA_E_MALFORMED);
    assert_int_equal(replica_pack_skip(&reader), REPLICA_E_MALFORMED);
    assert_int_equal(replica_pack_reader_finish(&reader), REPLICA_E_MALFORMED);
}

static void trailing_bytes_are_an_error(void **state)
{
    static const uint8_t bytes[] = {5, 6};
    struct replica_pack_reader reader = reader_of(bytes, sizeof bytes);
    uint64_t value;
    (void)state;
    assert_int_equal(replica_pack_read_uint(&reader, 9, &value), 0);
    assert_int_equal(replica_pack_reader_finish(&reader), REPLICA_E_MALFORMED);
}

static void skip_steps_over_anything(void **state)
{
    static const uint8_t items[] = {
        0x93, 0xca, 0,    0,    0,    0,    0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0, /* array of floats and nil */
        0x82, 0xa1, 'k',  0xc3, 0x02, 0x91, 0x05,                               /* map */
        0xd4, 1,    0,                                                          /* fixext 1 */
        0xd5, 1,    0,    0,                                                    /* fixext 2 */
        0xc7, 2,    9,    1,    2,                                              /* ext 8 */
        0xc8, 0,    1,    9,    1,                                              /* ext 16 */
        0xc9, 0,    0,    0,    1,    9,    1,                                  /* ext 32 */
        0xc4, 1,    0xff, 0xd9, 1,    'x',                                      /* bin, str */
        0xd0, 0x80, 0xe1,                                                       /* integers */
    };
    struct replica_pack_reader reader = reader_of(items, sizeof items);
    (void)state;
    for (size_t i = 0; i < 11; i++)
        assert_int_equal(replica_pack_skip(&reader), 0);
    assert_int_equal(replica_pack_reader_finish(&reader), 0);
}

static void nesting_is_bounded(void **state)
{
    uint8_t bytes[REPLICA_PACK_DEPTH_MAX + 1];
    struct replica_pack_reader reader;
    (void)state;
    memset(bytes, 0x91, sizeof bytes);
    bytes[REPLICA_PACK_DEPTH_MAX - 1] = 0xc0; /* the deepest that is accepted */
    reader = reader_of(bytes, REPLICA_PACK_DEPTH_MAX);
    assert_int_equal(replica_pack_skip(&reader), 0);
    bytes[REPLICA_PACK_DEPTH_MAX - 1] = 0x91;
    bytes[REPLICA_PACK_DEPTH_MAX] = 0xc0;
    reader = reader_of(bytes, sizeof bytes);
    assert_int_equal(replica_pack_skip(&reader), REPLICA_E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_round_trip),           cmocka_unit_test(every_width_is_read),
        cmocka_unit_test(ranges_are_enforced),          cmocka_unit_test(compounds_round_trip),
        cmocka_unit_test(huge_lengths_are_refused),     cmocka_unit_test(other_types_are_refused),
        cmocka_unit_test(a_failed_reader_stays_failed), cmocka_unit_test(trailing_bytes_are_an_error),
        cmocka_unit_test(skip_steps_over_anything),     cmocka_unit_test(nesting_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
