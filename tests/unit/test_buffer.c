/* Buffers: growth, the remembered failure, and reuse. */
#include "replica/buffer.h"
#include "replica_support.h"

static void appends_keep_order_over_growth(void **state)
{
    struct replica_buffer buffer;
    (void)state;
    replica_buffer_init(&buffer);
    for (uint32_t i = 0; i < 5000; i++)
        assert_int_equal(replica_buffer_append(&buffer, &i, sizeof i), 0);
    assert_int_equal(buffer.size, 5000 * sizeof(uint32_t));
    assert_true(buffer.capacity >= buffer.size);
    for (uint32_t i = 0; i < 5000; i++)
        assert_memory_equal(buffer.data + i * sizeof i, &i, sizeof i);
    replica_buffer_clear(&buffer);
    assert_int_equal(buffer.size, 0);
    assert_non_null(buffer.data); /* memory is kept */
    replica_buffer_close(&buffer);
    assert_null(buffer.data);
}

static void nothing_can_be_appended(void **state)
{
    struct replica_buffer buffer;
    (void)state;
    replica_buffer_init(&buffer);
    assert_int_equal(replica_buffer_append(&buffer, NULL, 0), 0);
    assert_int_equal(buffer.size, 0);
    assert_non_null(replica_buffer_reserve(&buffer, 0)); /* a place, even for nothing */
    replica_buffer_close(&buffer);
}

/* A writer appends many times and checks once: after a failure nothing more is taken, until clear. */
static void failure_is_remembered(void **state)
{
    struct replica_buffer buffer;
    (void)state;
    replica_buffer_init(&buffer);
    assert_int_equal(replica_buffer_append(&buffer, "abc", 3), 0);
    assert_null(replica_buffer_reserve(&buffer, SIZE_MAX / 2 + 1));
    assert_true(buffer.failed);
    assert_int_equal(replica_buffer_append(&buffer, "d", 1), REPLICA_E_NOMEM);
    assert_int_equal(replica_buffer_append(&buffer, "", 0), REPLICA_E_NOMEM);
    assert_int_equal(buffer.size, 3);
    assert_memory_equal(buffer.data, "abc", 3);
    replica_buffer_clear(&buffer);
    assert_false(buffer.failed);
    assert_int_equal(replica_buffer_append(&buffer, "d", 1), 0);
    replica_buffer_close(&buffer);
}

static void errors_have_texts_and_symbols(void **state)
{
    (void)state;
    assert_string_equal(replica_error_text(0), "success");
    assert_string_equal(replica_error_symbol(0), "OK");
#define X(symbol, value, text)                                                                               \
    assert_int_equal(REPLICA_E_##symbol, value);                                                             \
    assert_string_equal(replica_error_text(value), text);                                                    \
    assert_string_equal(replica_error_symbol(value), #symbol);
    REPLICA_ERROR_TABLE(X)
#undef X
    assert_string_equal(replica_error_text(-9999), "unknown error");
    assert_string_equal(replica_error_symbol(1), "UNKNOWN");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_keep_order_over_growth),
        cmocka_unit_test(nothing_can_be_appended),
        cmocka_unit_test(failure_is_remembered),
        cmocka_unit_test(errors_have_texts_and_symbols),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
