#include "cli/cli.h"

#include "cli/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Words to people */

static void say(const char *prefix, const char *format, va_list arguments)
{
    fflush(stdout);
    fprintf(stderr, "remora: %s", prefix);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

int cli_fail(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say("", format, arguments);
    va_end(arguments);
    return code;
}

void cli_warn(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say("warning: ", format, arguments);
    va_end(arguments);
}

void cli_say(const struct cli *cli, const char *format, ...)
{
    va_list arguments;
    if (cli->quiet || cli->json)
        return;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

int cli_no_memory(void)
{
    return cli_fail(CLI_FAILED, "out of memory");
}

int cli_refuse_json(const struct cli *cli)
{
    return !cli->json
               ? 0
               : cli_fail(CLI_REFUSED, "standard output gets the bytes of files: there is no --json of them");
}

const char *cli_shown(const char *path)
{
    return path[0] == '\0' ? "/" : path;
}

/* Options */

bool cli_flag(const struct cli *cli, const char *option)
{
    return cli_args_find(&cli->args, option) != NULL;
}

const char *cli_text(const struct cli *cli, const char *option)
{
    const struct cli_given *given = cli_args_find(&cli->args, option);
    return given == NULL ? NULL : given->text;
}

uint64_t cli_number(const struct cli *cli, const char *option, uint64_t otherwise)
{
    const struct cli_given *given = cli_args_find(&cli->args, option);
    return given == NULL ? otherwise : given->number;
}

int cli_path(const char *written, struct cli_path *ret_path)
{
    size_t n = strlen(written);
    int code = replica_path_canonicalize(written, n, ret_path->text, &ret_path->size);
    ret_path->slash = n > 0 && written[n - 1] == '/';
    if (code == REPLICA_E_TOOBIG)
        return cli_fail(CLI_REFUSED,
                        "%.300s%s: too long: a path has at most %d bytes, and each part of it %d", written,
                        n > 300 ? "..." : "", REPLICA_PATH_MAX, REPLICA_NAME_MAX);
    if (code != 0)
        return cli_fail(CLI_REFUSED, "%.300s: not a path inside a volume: \"..\" is not allowed", written);
    return 0;
}

/* Interrupts */

static volatile sig_atomic_t interrupted_by;

static void on_signal(int signal)
{
    interrupted_by = signal;
}

void cli_catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: a wait must end */
    struct sigaction before;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* not under nohup */
        sigaction(SIGHUP, &action, NULL);
}

bool cli_interrupted(void)
{
    return interrupted_by != 0;
}

bool cli_terminated(void)
{
    return interrupted_by == SIGTERM;
}

/* Before a node is connected there is nothing to tidy up. */
static void exit_at_once(int signal)
{
    (void)signal;
    _exit(CLI_INTERRUPTED);
}

/* The beginning */

static bool takes_no_node(const struct cli *cli)
{
    return cli->args.verb == NULL || cli->args.verb->run == NULL || cli_flag(cli, "help");
}

/* A deep tree keeps a descriptor for each level open: as many as the system grants. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* as it was, then */
}

static int run(struct cli *cli)
{
    int code;
    if (cli->args.verb == NULL && cli->args.group == NULL && !cli_flag(cli, "help"))
        return cli_fail(CLI_REFUSED, "a verb is missing; see `remora help`");
    if (takes_no_node(cli))
        return cli_help(cli, stdout);
    cli->json = cli_flag(cli, "json");
    cli->quiet = cli_flag(cli, "quiet");
    cli->terminal = isatty(STDOUT_FILENO) == 1;
    cli->timeout_ms = (uint32_t)cli_number(cli, "timeout", CLI_TIMEOUT_MS);
    code = cli->args.verb->run(cli);
    cli_progress_hide(&cli->progress);
    cli_disconnect(cli);
    if (fflush(stdout) != 0 || ferror(stdout))
        code = code != CLI_DONE
                   ? code
                   : cli_fail(CLI_FAILED, "cannot write to standard output: %s", strerror(errno));
    return code;
}

int cli_main(int argc, char **argv)
{
    struct cli cli = {.verbs = CLI_VERBS, .verbs_n = CLI_VERBS_N};
    char message[CLI_MESSAGE_MAX];
    int code;
    signal(SIGINT, exit_at_once);
    signal(SIGTERM, exit_at_once);
    raise_descriptors();
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return cli_verb_version(&cli);
    if (argc < 2) {
        cli_help(&cli, stderr);
        return CLI_REFUSED;
    }
    if (cli_args_parse(CLI_VERBS, CLI_VERBS_N, argc, argv, &cli.args, message) != 0)
        code = cli_fail(CLI_REFUSED, "%s", message);
    else
        code = run(&cli);
    cli_args_close(&cli.args);
    return code;
}
