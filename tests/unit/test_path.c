/* Paths: the canonical form and its limits, on both sides. */
#include "replica/path.h"
#include "replica_support.h"

static void canonical_forms(void **state)
{
    static const char *const good[] = {"", "a", "a/b", "a/.b", "...", "a/..b", "\xff\xfe"};
    static const char *const bad[] = {"/",   "/a",   "a/",   "a//b",   ".",  "..",
                                      "a/.", "a/..", "../a", "a/../b", "./a"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(replica_path_is_canonical(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(replica_path_is_canonical(bad[i], strlen(bad[i])));
    assert_false(replica_path_is_canonical("a\0b", 3));
}

static void lengths_on_both_sides(void **state)
{
    char text[REPLICA_PATH_MAX + 2], out[REPLICA_PATH_MAX + 1];
    size_t n;
    (void)state;
    memset(text, 'n', sizeof text);
    assert_true(replica_path_is_canonical(text, REPLICA_NAME_MAX));
    assert_false(replica_path_is_canonical(text, REPLICA_NAME_MAX + 1));
    assert_int_equal(replica_path_canonicalize(text, REPLICA_NAME_MAX, out, &n), 0);
    assert_int_equal(replica_path_canonicalize(text, REPLICA_NAME_MAX + 1, out, &n), REPLICA_E_TOOBIG);
    for (size_t i = 1; i < sizeof text; i += 2)
        text[i] = '/';
    text[REPLICA_PATH_MAX - 1] = 'n'; /* "n/n/…/nn" of exactly 4096 bytes */
    assert_true(replica_path_is_canonical(text, REPLICA_PATH_MAX));
    assert_int_equal(replica_path_canonicalize(text, REPLICA_PATH_MAX, out, &n), 0);
    assert_int_equal(n, REPLICA_PATH_MAX);
    assert_int_equal(out[n], '\0');
    text[REPLICA_PATH_MAX] = 'n';
    assert_false(replica_path_is_canonical(text, REPLICA_PATH_MAX + 1));
    assert_int_equal(replica_path_canonicalize(text, REPLICA_PATH_MAX + 1, out, &n), REPLICA_E_TOOBIG);
}

static void what_users_write(void **state)
{
    static const struct {
        const char *text, *canonical;
    } cases[] = {{"", ""},       {"/", ""},         {"///", ""},
                 {".", ""},      {"/a//b/", "a/b"}, {"a/./b", "a/b"},
                 {"./a/.", "a"}, {"a/b", "a/b"},    {"/.hidden/x", ".hidden/x"}};
    char out[REPLICA_PATH_MAX + 1];
    size_t n;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(replica_path_canonicalize(cases[i].text, strlen(cases[i].text), out, &n), 0);
        assert_string_equal(out, cases[i].canonical);
        assert_int_equal(n, strlen(out));
        assert_true(replica_path_is_canonical(out, n));
    }
    assert_int_equal(replica_path_canonicalize("a/../b", 6, out, &n), REPLICA_E_INVALID);
    assert_int_equal(replica_path_canonicalize("..", 2, out, &n), REPLICA_E_INVALID);
    assert_int_equal(replica_path_canonicalize("a\0b", 3, out, &n), REPLICA_E_INVALID);
}

static void splitting(void **state)
{
    struct replica_path parent, name;
    (void)state;
    replica_path_split(support_path("a/b/c"), &parent, &name);
    assert_int_equal(parent.size, 3);
    assert_memory_equal(parent.text, "a/b", 3);
    assert_int_equal(name.size, 1);
    assert_memory_equal(name.text, "c", 1);
    replica_path_split(support_path("a"), &parent, &name);
    assert_int_equal(parent.size, 0);
    assert_int_equal(name.size, 1);
    replica_path_split(support_path(""), &parent, &name);
    assert_int_equal(parent.size + name.size, 0);
}

static void being_below(void **state)
{
    (void)state;
    assert_true(replica_path_is_below(support_path("a/b"), support_path("a")));
    assert_true(replica_path_is_below(support_path("a"), support_path("")));
    assert_false(replica_path_is_below(support_path(""), support_path("")));
    assert_false(replica_path_is_below(support_path("a"), support_path("a")));
    assert_false(replica_path_is_below(support_path("ab"), support_path("a")));
    assert_false(replica_path_is_below(support_path("a"), support_path("a/b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_forms),  cmocka_unit_test(lengths_on_both_sides),
        cmocka_unit_test(what_users_write), cmocka_unit_test(splitting),
        cmocka_unit_test(being_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
