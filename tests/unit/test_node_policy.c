/* Who may use the API socket: rules as text, and what they let whom do. */
#include "policy.h"

#include "replica/error.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STRANGER 54321u /* neither root nor who runs the test */
#define GROUP    54322u

static struct node_policy *parse(const char *text)
{
    struct node_policy *policy = NULL;
    char *message = NULL;
    assert_int_equal(node_policy_parse(text, &policy, &message), 0);
    assert_null(message);
    return policy;
}

static enum node_right right(const char *text, uid_t uid, gid_t group, const char *volume)
{
    struct node_policy *policy = parse(text);
    struct node_caller caller = node_policy_match(policy, uid, &group, 1);
    enum node_right value = node_policy_right(policy, &caller, volume);
    node_policy_destroy(&policy);
    return value;
}

static void test_without_rules_only_its_own(void **state)
{
    struct node_policy *policy = parse("");
    gid_t strange = GROUP, own[2] = {GROUP, getegid()};
    struct node_caller caller = node_policy_match(policy, STRANGER, &strange, 1);
    (void)state;
    assert_false(node_policy_has_rules(policy));
    assert_false(node_caller_is_welcome(&caller));
    caller = node_policy_match(policy, STRANGER, own, 2);
    assert_true(caller.own);
    caller = node_policy_match(policy, 0, &strange, 1);
    assert_true(caller.own);
    caller = node_policy_match(policy, geteuid(), &strange, 1);
    assert_int_equal(node_policy_right(policy, &caller, "v"), NODE_RIGHT_ALL);
    node_policy_destroy(&policy);
}

static void test_rules_add_up(void **state)
{
    const char *rules = " uid:54321=weights:ro,logs\tgid:54322=*:ro  gid:54322=scratch ";
    (void)state;
    assert_int_equal(right(rules, STRANGER, 1, "weights"), NODE_RIGHT_READ);
    assert_int_equal(right(rules, STRANGER, 1, "logs"), NODE_RIGHT_WRITE);
    assert_int_equal(right(rules, STRANGER, 1, "scratch"), NODE_RIGHT_NONE);
    assert_int_equal(right(rules, STRANGER, 1, "logs2"), NODE_RIGHT_NONE);
    assert_int_equal(right(rules, STRANGER, 1, ""), NODE_RIGHT_NONE);
    assert_int_equal(right(rules, STRANGER, GROUP, "scratch"), NODE_RIGHT_WRITE);
    assert_int_equal(right(rules, STRANGER, GROUP, "logs"), NODE_RIGHT_WRITE);
    assert_int_equal(right(rules, STRANGER, GROUP, "anything"), NODE_RIGHT_READ);
    assert_int_equal(right(rules, STRANGER + 7, GROUP, "weights"), NODE_RIGHT_READ);
    assert_int_equal(right(rules, STRANGER + 7, 1, "weights"), NODE_RIGHT_NONE);
    assert_int_equal(right("uid:54321=*", STRANGER, 1, "anything"), NODE_RIGHT_WRITE);
}

static void test_mistakes_are_named(void **state)
{
    static const char *const MISTAKES[] = {
        "weights",    "uid:1000",         "uid:1000=", "uid:x=v",  "uid:=v",
        "uid:-1=v",   "uid:4294967295=v", "gid:1 =v",  "user:1=v", "uid:1=a/b",
        "uid:1=a:rw", "uid:1=a:",         "uid:1=,a",  "uid:1=a,", "uid:99999999999999999999=v"};
    (void)state;
    for (size_t i = 0; i < sizeof MISTAKES / sizeof MISTAKES[0]; i++) {
        struct node_policy *policy = NULL;
        char *message = NULL;
        if (node_policy_parse(MISTAKES[i], &policy, &message) != REPLICA_E_INVALID)
            fail_msg("taken: %s", MISTAKES[i]);
        assert_non_null(message);
        assert_null(policy);
        free(message);
    }
}

static void test_bounds(void **state)
{
    char text[NODE_RULES_MAX * 16 + 64] = "";
    char *message = NULL;
    struct node_policy *policy;
    (void)state;
    for (int i = 0; i < NODE_RULES_MAX; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "uid:%d=v%d ", 60000 + i, i);
    assert_int_equal(right(text, 60000 + NODE_RULES_MAX - 1, 1, "v63"), NODE_RIGHT_WRITE);
    strcat(text, "uid:1=v");
    assert_int_equal(node_policy_parse(text, &policy, &message), REPLICA_E_INVALID);
    free(message);
    strcpy(text, "uid:1=v");
    for (int i = 1; i < NODE_RULE_VOLUMES_MAX; i++)
        strcat(text, ",v");
    policy = parse(text);
    node_policy_destroy(&policy);
    strcat(text, ",v");
    assert_int_equal(node_policy_parse(text, &policy, &message), REPLICA_E_INVALID);
    free(message);
    memset(text, 'a', sizeof text - 1);
    memcpy(text, "uid:1=", 6);
    text[6 + 64] = '\0';
    policy = parse(text);
    node_policy_destroy(&policy);
    text[6 + 64] = 'a';
    text[6 + 65] = '\0';
    assert_int_equal(node_policy_parse(text, &policy, &message), REPLICA_E_INVALID);
    free(message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_rules_only_its_own),
        cmocka_unit_test(test_rules_add_up),
        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
