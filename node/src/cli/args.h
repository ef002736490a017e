/* args: one table of verbs drives parsing, usage and help. Pure: no printing, no environment.
 *
 * A verb's name is one word ("put") or two ("volume create"). Options stand anywhere after it, those that
 * every verb takes also before; "--" ends them, "-" is an argument. Letters may be joined ("-rl"), a value
 * follows as the next word or after "=". */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More occurrences of options than any sensible call has: 16 volumes of a credential and everything else
 * once. */
#define CLI_GIVEN_MAX   64
#define CLI_MESSAGE_MAX 1024 /* of a complaint; long arguments are cut in it */

enum cli_value {
    CLI_FLAG, /* takes none */
    CLI_TEXT,
    CLI_NUMBER,  /* a whole number */
    CLI_SECONDS, /* "30", "0.5"; kept in milliseconds */
};

struct cli_option {
    char letter; /* 0: none */
    const char *name;
    enum cli_value kind;
    const char *value; /* its name in help; NULL for a flag */
    const char *help;
};

struct cli;

struct cli_verb {
    const char *name;
    const char *arguments;            /* "VOL [PATH]" */
    const char *summary;              /* one line of the overview */
    const char *details;              /* paragraphs of its own help; may be NULL */
    const struct cli_option *options; /* ends with one without name; may be NULL */
    int words_min, words_max;         /* -1: any number */
    int (*run)(
        struct cli *cli); /* an exit code; NULL: its words are not looked at (`node` reads them itself) */
};

struct cli_given {
    const struct cli_option *option;
    const char *text;
    uint64_t number; /* NUMBER: itself, SECONDS: milliseconds */
};

struct cli_args {
    const struct cli_verb *verb; /* NULL: none was named */
    const char *group; /* "volume", if only the first word of such a verb was named, to ask for help */
    struct cli_given given[CLI_GIVEN_MAX];
    size_t given_n;
    const char **words; /* borrowed from argv; the array is ours */
    size_t words_n;
};

/* Options that every verb takes. */
extern const struct cli_option CLI_GLOBAL_OPTIONS[];

/* argv as main has it. 0, or -1 with a complaint that names the word and what to do in ret_message; ret_args
 * is to be closed either way. */
int cli_args_parse(const struct cli_verb *verbs, size_t verbs_n, int argc, char **argv,
                   struct cli_args *ret_args, char ret_message[CLI_MESSAGE_MAX]);
void cli_args_close(struct cli_args *args);

/* The last occurrence of an option; NULL: not given. */
const struct cli_given *cli_args_find(const struct cli_args *args, const char *option);

#endif
