/* The command line is read as its table says: every form that people type is understood, every slip is named
 * with a hint. */
#include "cli/args.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int run_nothing(struct cli *cli)
{
    (void)cli;
    return 0;
}

static const struct cli_option LIST_OPTIONS[] = {
    {'l', "long", CLI_FLAG, NULL, ""},   {'r', "recursive", CLI_FLAG, NULL, ""},
    {'n', "limit", CLI_NUMBER, "N", ""}, {0, "name", CLI_TEXT, "TEXT", ""},
    {0, NULL, CLI_FLAG, NULL, NULL},
};

static const struct cli_verb VERBS[] = {
    {"node", "", "", NULL, NULL, 0, -1, NULL},
    {"ls", "VOL [PATH]", "", NULL, LIST_OPTIONS, 1, 2, run_nothing},
    {"rm", "VOL PATH...", "", NULL, NULL, 2, -1, run_nothing},
    {"volume create", "NAME", "", NULL, NULL, 1, 1, run_nothing},
    {"volume list", "", "", NULL, NULL, 0, 0, run_nothing},
};
#define VERBS_N   (sizeof VERBS / sizeof VERBS[0])
#define WORDS_MAX 80

struct line {
    struct cli_args args;
    char message[CLI_MESSAGE_MAX];
    int code;
    char *argv[WORDS_MAX + 1];
};

static void parse(struct line *line, const char *const *words)
{
    int argc = 0;
    line->argv[argc++] = (char *)(uintptr_t) "remora";
    for (; *words != NULL; words++) {
        assert_true(argc < WORDS_MAX);
        line->argv[argc++] = (char *)(uintptr_t)*words;
    }
    line->argv[argc] = NULL;
    line->code = cli_args_parse(VERBS, VERBS_N, argc, line->argv, &line->args, line->message);
}

#define PARSE(line, ...) parse(line, (const char *const[]){__VA_ARGS__, NULL})

static void expect_words(const struct line *line, const char *verb, size_t n)
{
    assert_int_equal(line->code, 0);
    assert_string_equal(line->args.verb->name, verb);
    assert_int_equal(line->args.words_n, n);
}

static void expect_complaint(struct line *line, const char *part)
{
    assert_int_equal(line->code, -1);
    if (strstr(line->message, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, line->message);
    cli_args_close(&line->args);
}

static void options_stand_anywhere(void **state)
{
    struct line line;
    (void)state;
    PARSE(&line, "--json", "ls", "-rl", "v", "--limit=7", "/a", "--name", "x", "--timeout", "0.25");
    expect_words(&line, "ls", 2);
    assert_string_equal(line.args.words[0], "v");
    assert_string_equal(line.args.words[1], "/a");
    assert_non_null(cli_args_find(&line.args, "json"));
    assert_non_null(cli_args_find(&line.args, "recursive"));
    assert_non_null(cli_args_find(&line.args, "long"));
    assert_int_equal(cli_args_find(&line.args, "limit")->number, 7);
    assert_string_equal(cli_args_find(&line.args, "name")->text, "x");
    assert_int_equal(cli_args_find(&line.args, "timeout")->number, 250 /* ms */);
    assert_null(cli_args_find(&line.args, "quiet"));
    cli_args_close(&line.args);
}

static void values_follow_in_every_form(void **state)
{
    struct line line;
    (void)state;
    PARSE(&line, "ls", "-n5", "v");
    expect_words(&line, "ls", 1);
    assert_int_equal(cli_args_find(&line.args, "limit")->number, 5);
    cli_args_close(&line.args);
    PARSE(&line, "ls", "-ln", "6", "v", "-n", "7");
    expect_words(&line, "ls", 1);
    assert_int_equal(cli_args_find(&line.args, "limit")->number, 7); /* the last one counts */
    cli_args_close(&line.args);
    PARSE(&line, "ls", "v", "--name=a=b");
    expect_words(&line, "ls", 1);
    assert_string_equal(cli_args_find(&line.args, "name")->text, "a=b");
    cli_args_close(&line.args);
}

static void what_looks_like_an_option_can_be_a_word(void **state)
{
    struct line line;
    (void)state;
    PARSE(&line, "rm", "v", "-", "--", "-x", "--json");
    expect_words(&line, "rm", 4);
    assert_string_equal(line.args.words[1], "-");
    assert_string_equal(line.args.words[3], "--json");
    assert_null(cli_args_find(&line.args, "json"));
    cli_args_close(&line.args);
}

static void verbs_of_two_words(void **state)
{
    struct line line;
    (void)state;
    PARSE(&line, "volume", "create", "v");
    expect_words(&line, "volume create", 1);
    cli_args_close(&line.args);
    PARSE(&line, "volume", "--help");
    assert_int_equal(line.code, 0);
    assert_null(line.args.verb);
    assert_string_equal(line.args.group, "volume");
    cli_args_close(&line.args);
    PARSE(&line, "volume");
    expect_complaint(&line, "create list");
    PARSE(&line, "volume", "craete");
    expect_complaint(&line, "volume craete");
}

static void node_reads_its_words_itself(void **state)
{
    struct line line;
    (void)state;
    PARSE(&line, "node", "--data", "x", "--", "-z");
    expect_words(&line, "node", 4);
    cli_args_close(&line.args);
}

static void slips_are_named(void **state)
{
    struct line line;
    (void)state;
    PARSE(&line, "frobnicate");
    expect_complaint(&line, "frobnicate");
    PARSE(&line, "lss");
    expect_complaint(&line, "did you mean `remora ls`");
    PARSE(&line, "ls", "--lnog", "v");
    expect_complaint(&line, "did you mean --long?");
    PARSE(&line, "ls", "--frobnicate", "v");
    expect_complaint(&line, "--frobnicate");
    PARSE(&line, "ls", "-z", "v");
    expect_complaint(&line, "-z");
    PARSE(&line, "ls", "v", "--name");
    expect_complaint(&line, "--name needs a value");
    PARSE(&line, "ls", "v", "--name", "");
    expect_complaint(&line, "--name takes TEXT, not \"\"");
    PARSE(&line, "ls", "v", "");
    expect_complaint(&line, "argument 2 is empty");
    PARSE(&line, "ls", "v", "--long=yes");
    expect_complaint(&line, "takes no value");
    PARSE(&line, "ls");
    expect_complaint(&line, "VOL [PATH]");
    PARSE(&line, "ls", "v", "/a", "/b");
    expect_complaint(&line, "/b");
}

static void numbers_are_whole_and_in_range(void **state)
{
    static const char *const WRONG[] = {"", "-1", "x", "1x", "1.5", " 1", "18446744073709551616"};
    struct line line;
    (void)state;
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        PARSE(&line, "ls", "v", "--limit", WRONG[i]);
        expect_complaint(&line, "whole number");
    }
    PARSE(&line, "ls", "v", "--limit", "18446744073709551615");
    expect_words(&line, "ls", 1);
    assert_true(cli_args_find(&line.args, "limit")->number == UINT64_MAX);
    cli_args_close(&line.args);
    PARSE(&line, "ls", "v", "--timeout", "nan");
    expect_complaint(&line, "seconds");
    PARSE(&line, "ls", "v", "--timeout", "-3");
    expect_complaint(&line, "seconds");
    PARSE(&line, "ls", "v", "--timeout", "1000001");
    expect_complaint(&line, "seconds");
    PARSE(&line, "ls", "v", "--timeout", "0");
    expect_complaint(&line, "seconds");
    PARSE(&line, "ls", "v", "--timeout", "1000000");
    expect_words(&line, "ls", 1);
    assert_int_equal(cli_args_find(&line.args, "timeout")->number, 1000000000);
    cli_args_close(&line.args);
}

/* The help of a verb is wanted although its words are missing. */
static void help_wants_no_words(void **state)
{
    struct line line;
    (void)state;
    PARSE(&line, "rm", "--help");
    expect_words(&line, "rm", 0);
    assert_non_null(cli_args_find(&line.args, "help"));
    cli_args_close(&line.args);
}

static void options_are_bounded(void **state)
{
    const char *words[WORDS_MAX] = {"ls", "v"};
    struct line line;
    (void)state;
    for (size_t i = 0; i < CLI_GIVEN_MAX; i++)
        words[2 + i] = "-l";
    parse(&line, words);
    expect_words(&line, "ls", 1);
    cli_args_close(&line.args);
    words[2 + CLI_GIVEN_MAX] = "-l";
    parse(&line, words);
    expect_complaint(&line, "more than 64");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_stand_anywhere),
        cmocka_unit_test(values_follow_in_every_form),
        cmocka_unit_test(what_looks_like_an_option_can_be_a_word),
        cmocka_unit_test(verbs_of_two_words),
        cmocka_unit_test(node_reads_its_words_itself),
        cmocka_unit_test(slips_are_named),
        cmocka_unit_test(numbers_are_whole_and_in_range),
        cmocka_unit_test(help_wants_no_words),
        cmocka_unit_test(options_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
