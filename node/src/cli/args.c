#include "cli/args.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORD_MAX     64 /* a mistyped word longer than this has no near one */
#define DISTANCE_MAX 2  /* edits that still look like a slip */
#define NAMES_MAX    64
#define SECONDS_MIN  0.001
#define SECONDS_MAX  1e6 /* a timeout of more than this is a slip; in milliseconds it fits everywhere */

const struct cli_option CLI_GLOBAL_OPTIONS[] = {
    {0, "socket", CLI_TEXT, "PATH", "the node to speak to (REMORA_SOCKET; else this user's default)"},
    {0, "timeout", CLI_SECONDS, "S", "give up after so long without progress (default 30)"},
    {0, "json", CLI_FLAG, NULL, "print JSON, with the keys of docs/cli.md"},
    {'q', "quiet", CLI_FLAG, NULL, "no progress, no words about success"},
    {'h', "help", CLI_FLAG, NULL, "this help"},
    {0, NULL, CLI_FLAG, NULL, NULL},
};

struct parser {
    const struct cli_verb *verbs;
    size_t verbs_n;
    int argc, at;
    char **argv;
    struct cli_args *args;
    char *message;
};

static size_t smallest(size_t a, size_t b, size_t c)
{
    size_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* Levenshtein, one row at a time. */
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_MAX + 1], a_n = strlen(a), b_n = strlen(b);
    if (a_n > WORD_MAX || b_n > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= b_n; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_n; j++) {
            size_t above = row[j];
            row[j] = smallest(row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[b_n];
}

/* The name nearest to a mistyped one, or NULL if none is near. */
static const char *nearest_name(const char *word, const char *const *names, size_t n)
{
    const char *nearest = NULL;
    size_t least = DISTANCE_MAX + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, names[i]);
        if (d < least && d < strlen(names[i])) {
            least = d;
            nearest = names[i];
        }
    }
    return nearest;
}

static const struct cli_option *find_option(const struct cli_option *options, char letter, const char *name,
                                            size_t n)
{
    for (; options != NULL && options->name != NULL; options++)
        if (name == NULL ? options->letter == letter
                         : strlen(options->name) == n && memcmp(options->name, name, n) == 0)
            return options;
    return NULL;
}

static const struct cli_option *known_option(const struct parser *parser, char letter, const char *name,
                                             size_t n)
{
    const struct cli_option *option = NULL;
    if (parser->args->verb != NULL)
        option = find_option(parser->args->verb->options, letter, name, n);
    return option != NULL ? option : find_option(CLI_GLOBAL_OPTIONS, letter, name, n);
}

static size_t collect_options(const struct cli_option *options, const char **names, size_t n)
{
    for (; options != NULL && options->name != NULL && n < NAMES_MAX; options++)
        names[n++] = options->name;
    return n;
}

static int unknown_option(struct parser *parser, const char *word, const char *name)
{
    const struct cli_verb *verb = parser->args->verb;
    const char *names[NAMES_MAX], *nearest = NULL;
    size_t n = collect_options(verb != NULL ? verb->options : NULL, names, 0);
    n = collect_options(CLI_GLOBAL_OPTIONS, names, n);
    if (name != NULL)
        nearest = nearest_name(name, names, n);
    snprintf(parser->message, CLI_MESSAGE_MAX, "unknown option \"%.200s\"%s%s%s; see `remora %s%s--help`",
             word, nearest != NULL ? "; did you mean --" : "", nearest != NULL ? nearest : "",
             nearest != NULL ? "?" : "", verb != NULL ? verb->name : "", verb != NULL ? " " : "");
    return -1;
}

/* "0.5" → 500. */
static int read_seconds(const char *text, uint64_t *ret_ms)
{
    char *end;
    double seconds = strtod(text, &end);
    bool plain = (text[0] >= '0' && text[0] <= '9') || text[0] == '.'; /* no sign, no "inf" */
    if (!plain || *end != '\0' || seconds < SECONDS_MIN || seconds > SECONDS_MAX)
        return -1;
    *ret_ms = (uint64_t)(seconds * 1000);
    return 0;
}

static int read_number(const char *text, uint64_t *ret_number)
{
    char *end;
    errno = 0;
    *ret_number = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 ? 0 : -1;
}

static int parse_value(struct parser *parser, struct cli_given *given)
{
    const char *takes = given->option->value;
    int code = 0;
    switch (given->option->kind) {
    case CLI_FLAG:
        return 0;
    case CLI_TEXT: /* an empty one is a variable that was not set */
        code = given->text[0] != '\0' ? 0 : -1;
        break;
    case CLI_NUMBER:
        code = read_number(given->text, &given->number);
        takes = "a whole number";
        break;
    case CLI_SECONDS:
        code = read_seconds(given->text, &given->number);
        takes = "a number of seconds, more than 0 and at most a million";
        break;
    }
    if (code != 0)
        snprintf(parser->message, CLI_MESSAGE_MAX, "--%s takes %s, not \"%.200s\"", given->option->name,
                 takes, given->text);
    return code;
}

static int give(struct parser *parser, const struct cli_option *option, const char *text)
{
    struct cli_given *given = &parser->args->given[parser->args->given_n];
    if (parser->args->given_n == CLI_GIVEN_MAX) {
        snprintf(parser->message, CLI_MESSAGE_MAX, "more than %d options", CLI_GIVEN_MAX);
        return -1;
    }
    if (text == NULL && option->kind != CLI_FLAG) {
        if (parser->at == parser->argc) {
            snprintf(parser->message, CLI_MESSAGE_MAX, "--%s needs a value: %s", option->name, option->value);
            return -1;
        }
        text = parser->argv[parser->at++];
    }
    *given = (struct cli_given){.option = option, .text = text};
    parser->args->given_n++;
    return parse_value(parser, given);
}

static int parse_long(struct parser *parser, const char *word)
{
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t n = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct cli_option *option = known_option(parser, 0, name, n);
    if (option == NULL)
        return unknown_option(parser, word, name);
    if (equals != NULL && option->kind == CLI_FLAG) {
        snprintf(parser->message, CLI_MESSAGE_MAX, "--%s takes no value", option->name);
        return -1;
    }
    return give(parser, option, equals != NULL ? equals + 1 : NULL);
}

static int parse_letters(struct parser *parser, const char *word)
{
    for (const char *letter = word + 1; *letter != '\0'; letter++) {
        const struct cli_option *option = known_option(parser, *letter, NULL, 0);
        if (option == NULL)
            return unknown_option(parser, word, NULL);
        if (option->kind != CLI_FLAG && letter[1] != '\0')
            return give(parser, option, letter + 1);
        if (give(parser, option, NULL) != 0)
            return -1;
    }
    return 0;
}

static const struct cli_verb *find_verb(const struct parser *parser, const char *first, const char *second)
{
    char name[2 * WORD_MAX];
    int n = second != NULL ? snprintf(name, sizeof name, "%s %s", first, second)
                           : snprintf(name, sizeof name, "%s", first);
    for (size_t i = 0; n < (int)sizeof name && i < parser->verbs_n; i++)
        if (strcmp(parser->verbs[i].name, name) == 0)
            return &parser->verbs[i];
    return NULL;
}

static bool in_group(const struct cli_verb *verb, const char *group)
{
    size_t n = strlen(group);
    return strncmp(verb->name, group, n) == 0 && verb->name[n] == ' ';
}

static bool is_group(const struct parser *parser, const char *word)
{
    for (size_t i = 0; i < parser->verbs_n; i++)
        if (in_group(&parser->verbs[i], word))
            return true;
    return false;
}

static int unknown_verb(struct parser *parser, const char *word)
{
    const char *names[NAMES_MAX], *nearest;
    size_t n = 0;
    for (size_t i = 0; i < parser->verbs_n && n < NAMES_MAX; i++)
        names[n++] = parser->verbs[i].name;
    nearest = nearest_name(word, names, n);
    snprintf(parser->message, CLI_MESSAGE_MAX, "unknown verb \"%.200s\"%s%s%s; see `remora help`", word,
             nearest != NULL ? "; did you mean `remora " : "", nearest != NULL ? nearest : "",
             nearest != NULL ? "`?" : "");
    return -1;
}

static int unknown_in_group(struct parser *parser, const char *group, const char *word)
{
    size_t n = 0;
    if (word != NULL)
        n = (size_t)snprintf(parser->message, CLI_MESSAGE_MAX, "unknown verb \"%.60s %.200s\"; ", group,
                             word);
    n += (size_t)snprintf(parser->message + n, CLI_MESSAGE_MAX - n, "`remora %.60s` is followed by one of",
                          group);
    for (size_t i = 0; i < parser->verbs_n && n < CLI_MESSAGE_MAX; i++)
        if (in_group(&parser->verbs[i], group))
            n += (size_t)snprintf(parser->message + n, CLI_MESSAGE_MAX - n, " %s",
                                  parser->verbs[i].name + strlen(group) + 1);
    return -1;
}

/* word is the first that is no option. */
static int parse_verb(struct parser *parser, const char *word)
{
    const char *second;
    parser->args->verb = find_verb(parser, word, NULL);
    if (parser->args->verb != NULL)
        return 0;
    if (!is_group(parser, word))
        return unknown_verb(parser, word);
    second = parser->at < parser->argc ? parser->argv[parser->at] : NULL;
    if (second != NULL && (strcmp(second, "--help") == 0 || strcmp(second, "-h") == 0)) {
        parser->args->group = word;
        return 0;
    }
    if (second == NULL || second[0] == '-')
        return unknown_in_group(parser, word, NULL);
    parser->at++;
    parser->args->verb = find_verb(parser, word, second);
    return parser->args->verb != NULL ? 0 : unknown_in_group(parser, word, second);
}

static int check_words(struct parser *parser)
{
    const struct cli_verb *verb = parser->args->verb;
    int n = (int)parser->args->words_n;
    for (int i = 0; i < n; i++)
        if (parser->args->words[i][0] == '\0') { /* most likely a variable that was not set */
            snprintf(parser->message, CLI_MESSAGE_MAX, "argument %d is empty; usage: remora %s %s", i + 1,
                     verb->name, verb->arguments);
            return -1;
        }
    if (n >= verb->words_min && (verb->words_max < 0 || n <= verb->words_max))
        return 0;
    if (n < verb->words_min)
        snprintf(parser->message, CLI_MESSAGE_MAX, "usage: remora %s %s", verb->name, verb->arguments);
    else
        snprintf(parser->message, CLI_MESSAGE_MAX, "\"%.200s\" is too much; usage: remora %s%s%s",
                 parser->args->words[verb->words_max], verb->name, verb->arguments[0] != '\0' ? " " : "",
                 verb->arguments);
    return -1;
}

static int parse_words(struct parser *parser)
{
    bool options = true;
    while (parser->at < parser->argc && parser->args->group == NULL) {
        const char *word = parser->argv[parser->at++];
        bool raw = parser->args->verb != NULL && parser->args->verb->run == NULL;
        int code = 0;
        if (options && !raw && strcmp(word, "--") == 0)
            options = false;
        else if (options && !raw && strncmp(word, "--", 2) == 0)
            code = parse_long(parser, word);
        else if (options && !raw && word[0] == '-' && word[1] != '\0')
            code = parse_letters(parser, word);
        else if (parser->args->verb == NULL)
            code = parse_verb(parser, word);
        else
            parser->args->words[parser->args->words_n++] = word;
        if (code != 0)
            return code;
    }
    return 0;
}

int cli_args_parse(const struct cli_verb *verbs, size_t verbs_n, int argc, char **argv,
                   struct cli_args *ret_args, char ret_message[CLI_MESSAGE_MAX])
{
    struct parser parser = {.verbs = verbs,
                            .verbs_n = verbs_n,
                            .argc = argc,
                            .at = 1,
                            .argv = argv,
                            .args = ret_args,
                            .message = ret_message};
    *ret_args = (struct cli_args){0};
    ret_message[0] = '\0';
    ret_args->words = calloc((size_t)argc + 1, sizeof *ret_args->words);
    if (ret_args->words == NULL) {
        snprintf(ret_message, CLI_MESSAGE_MAX, "out of memory");
        return -1;
    }
    if (parse_words(&parser) != 0)
        return -1;
    if (ret_args->verb == NULL || ret_args->verb->run == NULL || cli_args_find(ret_args, "help") != NULL)
        return 0;
    return check_words(&parser);
}

void cli_args_close(struct cli_args *args)
{
    free(args->words);
    args->words = NULL;
}

const struct cli_given *cli_args_find(const struct cli_args *args, const char *option)
{
    for (size_t i = args->given_n; i > 0; i--)
        if (strcmp(args->given[i - 1].option->name, option) == 0)
            return &args->given[i - 1];
    return NULL;
}
