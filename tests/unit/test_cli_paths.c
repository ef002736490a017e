/* Where put, get, mv and checkout say that something goes. */
#include "cli/paths.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void expect_base(const char *path, const char *expected)
{
    char name[256];
    assert_int_equal(cli_base_name(path, name, sizeof name), 0);
    assert_string_equal(name, expected);
}

static void base_names(void **state)
{
    char small[3];
    (void)state;
    expect_base("/a/b", "b");
    expect_base("/a/b///", "b");
    expect_base("b", "b");
    expect_base("", "");
    expect_base("/", "");
    expect_base(".", "");
    expect_base("a/..", "");
    expect_base("./", "");
    expect_base("...", "...");
    assert_int_equal(cli_base_name("/abc", small, sizeof small), -1);
}

static void expect_target(const char *remote, bool slash, const char *local, const char *expected)
{
    char path[4097];
    assert_int_equal(cli_put_target(remote, slash, local, path, sizeof path), 0);
    assert_string_equal(path, expected);
}

/* A slash at the end means "into", none means "as"; a directory without a name of its own gives its contents.
 */
static void put_targets(void **state)
{
    (void)state;
    expect_target("", true, "model.bin", "model.bin");
    expect_target("", true, "/data/run/", "run");
    expect_target("weights", true, "model.bin", "weights/model.bin");
    expect_target("weights", false, "model.bin", "weights");
    expect_target("weights", true, ".", "weights");
    expect_target("", true, "..", "");
}

static void joining_is_bounded(void **state)
{
    char path[8];
    (void)state;
    assert_int_equal(cli_join("abc", "def", path, sizeof path), 0); /* 7 bytes and the NUL */
    assert_string_equal(path, "abc/def");
    assert_int_equal(cli_join("abcd", "def", path, sizeof path), -1);
    assert_int_equal(cli_join("", "", path, sizeof path), 0);
    assert_string_equal(path, "");
    assert_int_equal(cli_join("a", "", path, sizeof path), 0);
    assert_string_equal(path, "a");
}

static void within(void **state)
{
    (void)state;
    assert_true(cli_is_within("a/b", "a"));
    assert_true(cli_is_within("a", "a"));
    assert_true(cli_is_within("anything", ""));
    assert_false(cli_is_within("ab", "a"));
    assert_false(cli_is_within("a", "a/b"));
    assert_string_equal(cli_last_part("a/b"), "b");
    assert_string_equal(cli_last_part("a"), "a");
    assert_string_equal(cli_last_part(""), "");
}

static void volumes_and_what_is_below(void **state)
{
    char volume[8];
    const char *sub;
    (void)state;
    assert_int_equal(cli_split_volume("v:a/b:c", volume, sizeof volume, &sub), 0);
    assert_string_equal(volume, "v");
    assert_string_equal(sub, "a/b:c");
    assert_int_equal(cli_split_volume("v", volume, sizeof volume, &sub), 0);
    assert_string_equal(sub, "");
    assert_int_equal(cli_split_volume("1234567:x", volume, sizeof volume, &sub), 0);
    assert_int_equal(cli_split_volume("12345678:x", volume, sizeof volume, &sub), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base_names),
        cmocka_unit_test(put_targets),
        cmocka_unit_test(joining_is_bounded),
        cmocka_unit_test(within),
        cmocka_unit_test(volumes_and_what_is_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
