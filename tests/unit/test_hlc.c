/* The stamp rule: after all that a majority has seen, and no single clock drags it. */
#include "replica/hlc.h"
#include "replica_support.h"

static uint64_t stamp(uint64_t highest, uint64_t own, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t clocks[] = {a, b, c};
    return replica_hlc_stamp(highest, own, clocks, 3 /* voters */);
}

static void milliseconds_and_back(void **state)
{
    (void)state;
    assert_true(replica_hlc_from_ms(5) == 5u << 16);
    assert_true(replica_hlc_to_ms(replica_hlc_from_ms(1234567890123) + 7) == 1234567890123);
}

static void the_clock_counts_when_it_is_ahead(void **state)
{
    (void)state;
    assert_true(stamp(replica_hlc_from_ms(10), 100, 100, 100, 100) == replica_hlc_from_ms(100));
    assert_true(stamp(replica_hlc_from_ms(10), 90, 100, 100, 100) ==
                replica_hlc_from_ms(90)); /* own is slower */
}

static void highest_counts_when_clocks_are_behind(void **state)
{
    (void)state;
    assert_true(stamp(replica_hlc_from_ms(500) + 3, 100, 100, 100, 100) == replica_hlc_from_ms(500) + 4);
    assert_true(stamp(replica_hlc_from_ms(100), 100, 100, 100, 100) ==
                replica_hlc_from_ms(100) + 1); /* equal is not after */
    assert_true(stamp(replica_hlc_from_ms(100) - 1, 100, 100, 100, 100) == replica_hlc_from_ms(100));
}

static void one_fast_clock_does_nothing(void **state)
{
    uint64_t two[] = {900000, 100};
    (void)state;
    assert_true(stamp(0, 1000000, 100, 101, 900000) == replica_hlc_from_ms(101));
    assert_true(stamp(0, 1000000, 900000, 101, 100) == replica_hlc_from_ms(101)); /* whatever their order */
    assert_true(replica_hlc_stamp(0, 1000000, two, 2) ==
                replica_hlc_from_ms(100)); /* the lower median of two */
}

/* A hostile stamp at the end of time must not wrap round to before everything. */
static void the_end_of_time_does_not_wrap(void **state)
{
    (void)state;
    assert_true(stamp(UINT64_MAX, 100, 100, 100, 100) == UINT64_MAX);
    assert_true(stamp(UINT64_MAX - 1, 100, 100, 100, 100) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(milliseconds_and_back),
        cmocka_unit_test(the_clock_counts_when_it_is_ahead),
        cmocka_unit_test(highest_counts_when_clocks_are_behind),
        cmocka_unit_test(one_fast_clock_does_nothing),
        cmocka_unit_test(the_end_of_time_does_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
