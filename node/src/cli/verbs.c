#include "cli/verbs.h"

#include "node_main.h"

#include <string.h>

#define END                                                                                                  \
    {                                                                                                        \
        0, NULL, CLI_FLAG, NULL, NULL                                                                        \
    }
#define LOCAL                                                                                                \
    {                                                                                                        \
        0, "local", CLI_FLAG, NULL, "what this node knows, without asking a majority for the latest commit"  \
    }

#define AT                                                                                                   \
    {                                                                                                        \
        0, "at", CLI_TEXT, "COMMIT",                                                                         \
            "the version that this commit wrote, superseded or lost, as long as it is kept"                  \
    }

static const struct cli_option KEYGEN[] = {
    {0, "from", CLI_TEXT, "FILE", "make a credential with less authority out of this key"},
    {0, "role", CLI_TEXT, "ROLE", "of the credential: voter, cache or client"},
    {0, "volume", CLI_TEXT, "V[:ro]", "allow this volume (only to be read); may be given several times"},
    {0, "expires", CLI_TEXT, "T", "until when: 90d, 12h, 30m, or 2027-01-31[T12:00:00Z]"},
    END,
};

static const struct cli_option WAIT[] = {{0, "volume", CLI_TEXT, "V", "also until this volume is readable"},
                                         END};

static const struct cli_option VOLUME_CREATE[] = {
    {0, "version", CLI_NUMBER, "1|2",
     "2 (default): no cap on files, hard links; 1: at most 500,000 inodes, no hard links"},
    {0, "if-missing", CLI_FLAG, NULL, "succeed if it exists"},
    {0, "voters", CLI_NUMBER, "N", "how many nodes keep it: an odd number (default 3)"},
    END,
};
static const struct cli_option VOLUME_LIST[] = {
    {0, "deleted", CLI_FLAG, NULL, "also those that can be undeleted"}, END};
static const struct cli_option VOLUME_RENAME[] = {{'y', "yes", CLI_FLAG, NULL, "do not ask"}, END};
static const struct cli_option VOLUME_DELETE[] = {
    {'y', "yes", CLI_FLAG, NULL, "do not ask"},
    {0, "allow-missing", CLI_FLAG, NULL, "succeed if there is none"},
    END,
};
static const struct cli_option STATUS[] = {
    {0, "wait", CLI_FLAG, NULL, "until every voter is alive and nothing is pending, or --timeout is over"},
    END,
};

static const struct cli_option LS[] = {
    {'l', "long", CLI_FLAG, NULL, "mode, links, owner, size and time too"},
    {'r', "recursive", CLI_FLAG, NULL, "everything below, too"},
    LOCAL,
    END,
};
static const struct cli_option STAT[] = {AT, LOCAL, END};
static const struct cli_option CAT[] = {
    {0, "offset", CLI_NUMBER, "N", "begin at this byte"},
    {0, "length", CLI_NUMBER, "N", "at most so many bytes"},
    AT,
    LOCAL,
    END,
};
static const struct cli_option DU[] = {
    {'s', "summary", CLI_FLAG, NULL, "only the total"},
    LOCAL,
    END,
};
static const struct cli_option MKDIR[] = {
    {'p', "parents", CLI_FLAG, NULL, "with its parents; fine if it exists"}, END};
static const struct cli_option RECURSIVE[] = {
    {'r', "recursive", CLI_FLAG, NULL, "directories too, with all in them"}, END};
static const struct cli_option PUT[] = {{'f', "force", CLI_FLAG, NULL, "replace files that exist"}, END};
static const struct cli_option GET[] = {
    {'f', "force", CLI_FLAG, NULL, "replace files that exist; nothing else is removed"},
    AT,
    LOCAL,
    END,
};
static const struct cli_option CHECKOUT[] = {
    {0, "follow", CLI_FLAG, NULL, "go on, and switch at each new commit"},
    {0, "hardlink", CLI_FLAG, NULL,
     "link the node's own files instead of copying them; let readers mount DIR read-only"},
    LOCAL,
    END,
};
static const struct cli_option VIEW[] = {
    {0, "label", CLI_TEXT, "LABEL", "which view, if the volume has several on this node"},
    END,
};
static const struct cli_option HOLD[] = {
    {0, "label", CLI_TEXT, "LABEL", "which view, if the volume has several on this node"},
    {0, "release", CLI_FLAG, NULL, "let background commits go on"},
    END,
};
static const struct cli_option LOG[] = {
    {'n', "limit", CLI_NUMBER, "N", "at most so many commits (default: all)"},
    {0, "lost", CLI_FLAG, NULL, "versions that lost to another writer, instead of commits"},
    LOCAL,
    END,
};

const struct cli_verb CLI_VERBS[] = {
    {"node", "[OPTION...]", "run a node (with no option at all: a single node on loopback)", NULL, NULL, 0,
     -1, NULL},
    {"keygen", "FILE", "make a cluster key, or a credential from one",
     "FILE is written with mode 0600 and never overwritten. Without --from it is a new cluster key: full "
     "authority. With --from it\n"
     "is a credential with a role and, if --volume is given, only those volumes.",
     KEYGEN, 1, 1, cli_verb_keygen},
    {"wait", "", "wait until the node answers, or a volume is readable", NULL, WAIT, 0, 0, cli_verb_wait},
    {"cluster init", "", "begin a cluster with this node, once", "Refused if there is one already.", NULL, 0,
     0, cli_verb_cluster_init},
    {"cluster members", "", "who is here", NULL, NULL, 0, 0, cli_verb_cluster_members},
    {"cluster status", "", "volumes, voters, lag and transfers", NULL, STATUS, 0, 0, cli_verb_cluster_status},
    {"volume create", "NAME", "create a volume", "NAME has 1 to 64 letters, digits, \"-\", \"_\" and \".\".",
     VOLUME_CREATE, 1, 1, cli_verb_volume_create},
    {"volume list", "", "list the volumes", NULL, VOLUME_LIST, 0, 0, cli_verb_volume_list},
    {"volume info", "NAME", "size, files, voters, last commit", NULL, NULL, 1, 1, cli_verb_volume_info},
    {"volume rename", "NAME NEW", "give a volume another name", "Its id stays. Asks unless -y is given.",
     VOLUME_RENAME, 2, 2, cli_verb_volume_rename},
    {"volume delete", "NAME", "delete a volume", "It can be undeleted for a day. Asks unless -y is given.",
     VOLUME_DELETE, 1, 1, cli_verb_volume_delete},
    {"volume undelete", "NAME", "bring a deleted volume back", NULL, NULL, 1, 1, cli_verb_volume_undelete},
    {"ls", "VOL [PATH]", "list a directory",
     "Bare paths, one a line, when standard output is not a terminal.", LS, 1, 2, cli_verb_ls},
    {"put", "VOL LOCAL [REMOTE]", "put a file or a directory into a volume, as one commit",
     "REMOTE is \"/\" unless given; one that ends in \"/\" gets LOCAL's name appended, another is the new "
     "name itself. LOCAL may be\n"
     "\"-\": standard input. Directories go with all that is in them: links of both kinds, special files, "
     "modes, owners, times,\n"
     "extended attributes and holes. A LOCAL that is itself a symbolic link is followed. If a file exists "
     "already, nothing is put\n"
     "unless -f is given; a file never replaces a directory.",
     PUT, 2, 3, cli_verb_put},
    {"get", "VOL REMOTE [LOCAL]", "get a file or a directory out of a volume",
     "LOCAL is \".\" unless given, and may be \"-\": standard output. Into an existing directory it goes "
     "under its own name (the root\n"
     "under the volume's), else it becomes LOCAL. All is written under a temporary name, verified and "
     "renamed; what was fetched\n"
     "before an interruption stays on the node and is not fetched again.",
     GET, 2, 3, cli_verb_get},
    {"cat", "VOL PATH...", "write files to standard output", NULL, CAT, 2, -1, cli_verb_cat},
    {"stat", "VOL PATH...", "all that is known of a path", NULL, STAT, 2, -1, cli_verb_stat},
    {"du", "VOL [PATH]", "bytes in each directory", "Files with several names count once.", DU, 1, 2,
     cli_verb_du},
    {"mkdir", "VOL PATH...", "make directories, as one commit", NULL, MKDIR, 2, -1, cli_verb_mkdir},
    {"mv", "VOL SRC... DST", "rename, or move into a directory, as one commit", NULL, NULL, 3, -1,
     cli_verb_mv},
    {"rm", "VOL PATH...", "remove, as one commit", "All paths or, if one is missing, none.", RECURSIVE, 2, -1,
     cli_verb_rm},
    {"cp", "VOL SRC... DST", "copy inside a volume without copying bytes, as one commit", NULL, RECURSIVE, 3,
     -1, cli_verb_cp},
    {"checkout", "VOL[:SUB] DIR", "a tree to read at DIR, at the speed of the disk, without privilege",
     "DIR becomes a symbolic link to a whole generation of the tree, which lies in .NAME.remora beside it; a "
     "new generation is\n"
     "switched in by one atomic rename, and an old one is removed once nothing has it open. Mount the "
     "directory that DIR lies in\n"
     "into other containers, not DIR itself. The tree is to be read only: what is written to it is lost with "
     "its generation.",
     CHECKOUT, 2, 2, cli_verb_checkout},
    {"commit", "VOL", "commit what was written in a view",
     "Refused if several views of the volume fit; then choose by --label.", VIEW, 1, 1, cli_verb_commit},
    {"reload", "VOL", "move a view to the latest commit, and print what changed", NULL, VIEW, 1, 1,
     cli_verb_reload},
    {"hold", "VOL", "keep background commits of a view out while a set of files is prepared", NULL, HOLD, 1,
     1, cli_verb_hold},
    {"log", "VOL", "list the commits, newest first",
     "Without a majority of the voters it fails, because newer commits may be missing; --local lists what "
     "this "
     "node knows, commits\n"
     "that it is still trying (pending) among them.",
     LOG, 1, 1, cli_verb_log},
    {"version", "", "print the version", NULL, NULL, 0, 0, cli_verb_version},
    {"help", "[VERB...]", "this overview, or the help of a verb", NULL, NULL, 0, 2, cli_verb_help},
};
const size_t CLI_VERBS_N = sizeof CLI_VERBS / sizeof CLI_VERBS[0];

static void print_options(FILE *out, const struct cli_option *options)
{
    for (; options != NULL && options->name != NULL; options++) {
        char left[64], letter[5] = "    ";
        if (options->letter != 0)
            snprintf(letter, sizeof letter, "-%c, ", options->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, options->name, options->value != NULL ? " " : "",
                 options->value != NULL ? options->value : "");
        fprintf(out, "  %-30s %s\n", left, options->help);
    }
}

/* A node's flags are its own to tell. */
static void print_node(void)
{
    char name[] = "node", help[] = "--help", *arguments[] = {name, help, NULL};
    (void)node_main(2, arguments);
}

static void print_verb(FILE *out, const struct cli_verb *verb)
{
    if (verb->run == NULL) {
        print_node();
        return;
    }
    fprintf(out, "usage: remora %s%s%s%s\n\n%s\n", verb->name, " [OPTION...]",
            verb->arguments[0] != '\0' ? " " : "", verb->arguments, verb->summary);
    if (verb->details != NULL)
        fprintf(out, "\n%s\n", verb->details);
    fprintf(out, "\n");
    print_options(out, verb->options);
    print_options(out, CLI_GLOBAL_OPTIONS);
}

static void print_summary(FILE *out, const struct cli_verb *verb)
{
    char left[64];
    snprintf(left, sizeof left, "%s %s", verb->name, verb->arguments);
    fprintf(out, "  %-30s %s\n", left, verb->summary);
}

static void print_overview(FILE *out)
{
    fprintf(out, "usage: remora VERB [OPTION...] [ARGUMENT...]\n\nVolumes that one container commits and "
                 "every other reloads.\n\n");
    for (size_t i = 0; i < CLI_VERBS_N; i++)
        print_summary(out, &CLI_VERBS[i]);
    fprintf(out, "\nVerbs that speak to a node take\n");
    print_options(out, CLI_GLOBAL_OPTIONS);
    fprintf(out, "\nExit codes: 0 done, 1 failed, 2 usage or refused (exists), 3 unavailable (no majority, "
                 "no node), 4 indeterminate (the node\n"
                 "keeps trying), 5 no space or over a limit, 6 busy file or conflict, 7 not authorised, 130 "
                 "interrupted.\n"
                 "`remora VERB --help` tells more.\n");
}

static int print_group(FILE *out, const char *group)
{
    size_t n = strlen(group), found = 0;
    for (size_t i = 0; i < CLI_VERBS_N; i++)
        if (strncmp(CLI_VERBS[i].name, group, n) == 0 && CLI_VERBS[i].name[n] == ' ') {
            print_summary(out, &CLI_VERBS[i]);
            found++;
        }
    return found > 0 ? CLI_DONE : cli_fail(CLI_REFUSED, "there is no verb \"%s\"; see `remora help`", group);
}

int cli_help(const struct cli *cli, FILE *out)
{
    if (cli->args.verb != NULL)
        print_verb(out, cli->args.verb);
    else if (cli->args.group != NULL)
        return print_group(out, cli->args.group);
    else
        print_overview(out);
    return CLI_DONE;
}

int cli_verb_help(struct cli *cli)
{
    char name[64];
    if (cli->args.words_n == 0) {
        print_overview(stdout);
        return CLI_DONE;
    }
    snprintf(name, sizeof name, "%s%s%s", cli->args.words[0], cli->args.words_n > 1 ? " " : "",
             cli->args.words_n > 1 ? cli->args.words[1] : "");
    for (size_t i = 0; i < cli->verbs_n; i++)
        if (strcmp(cli->verbs[i].name, name) == 0) {
            print_verb(stdout, &cli->verbs[i]);
            return CLI_DONE;
        }
    return print_group(stdout, name);
}

int cli_verb_version(struct cli *cli)
{
    printf(cli->json ? "{\"version\": \"%s\"}\n" : "remora %s\n", REMORA_VERSION);
    return CLI_DONE;
}
