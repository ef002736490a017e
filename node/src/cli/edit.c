/* remora mkdir, mv, rm, cp: changes inside a volume. Each works in a private view and is one commit at its
 * end: whatever fails before that has changed nothing. */
#include "cli/paths.h"
#include "cli/walk.h"

#include <string.h>

#define DIRECTORY_MODE 0755

/* Every word after the volume is a path, before anything else is done. 0 or an exit code. */
static int check_paths(const struct cli *cli)
{
    struct cli_path path;
    for (size_t i = 1; i < cli->args.words_n; i++) {
        int code = cli_path(cli->args.words[i], &path);
        if (code != 0)
            return code;
    }
    return 0;
}

static int begin(struct cli *cli)
{
    int code = check_paths(cli);
    return code == 0 ? cli_open_view(cli, cli->args.words[0], 0) : code;
}

/* The directory that something is to be in. 0 or an exit code. */
static int check_parent(struct cli *cli, const char *path)
{
    const char *slash = strrchr(path, '/');
    char parent[REPLICA_PATH_MAX + 1];
    struct remora_entry entry;
    bool exists, directory;
    int code;
    if (slash == NULL)
        return 0;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    code = cli_exists(cli, parent, &exists, &entry);
    if (code != 0)
        return code;
    directory = exists && entry.kind == REMORA_DIRECTORY;
    if (exists)
        remora_entry_free(&entry);
    if (directory)
        return 0;
    return cli_fail(
        CLI_FAILED,
        exists ? "%s: Not a directory" : "%s: No such file or directory; `remora mkdir -p` makes it", parent);
}

/* mkdir */

static int make_directory(struct cli *cli, const char *word)
{
    bool parents = cli_flag(cli, "parents"), exists = false;
    struct remora_entry entry;
    struct cli_path path;
    int code = cli_path(word, &path), error;
    if (code == 0)
        code = cli_exists(cli, path.text, &exists, &entry);
    if (code != 0)
        return code;
    if (exists) {
        bool fine = parents && entry.kind == REMORA_DIRECTORY;
        remora_entry_free(&entry);
        return fine ? 0 : cli_fail(CLI_REFUSED, "%s: File exists", cli_shown(path.text));
    }
    if (!parents && (code = check_parent(cli, path.text)) != 0)
        return code;
    error = remora_mkdir(cli->remora, &cli->view, path.text, DIRECTORY_MODE, parents);
    return error == 0 ? 0 : cli_fail_call(cli, error, path.text);
}

int cli_verb_mkdir(struct cli *cli)
{
    int code = begin(cli);
    for (size_t i = 1; code == 0 && i < cli->args.words_n; i++)
        code = make_directory(cli, cli->args.words[i]);
    return code == 0 ? cli_commit(cli, "made", NULL) : code;
}

/* rm */

static int remove_path(struct cli *cli, const char *word)
{
    bool recursive = cli_flag(cli, "recursive"), directory;
    struct remora_entry entry;
    struct cli_path path;
    int code = cli_path(word, &path), error;
    if (code == 0 && path.size == 0)
        return cli_fail(CLI_REFUSED,
                        "the root of a volume cannot be removed; `remora volume delete` removes the volume");
    if (code == 0)
        code = cli_stat(cli, path.text, &entry);
    if (code != 0)
        return code;
    directory = entry.kind == REMORA_DIRECTORY;
    remora_entry_free(&entry);
    if (directory && !recursive)
        return cli_fail(CLI_FAILED, "%s: Is a directory; -r removes it with all in it", path.text);
    error = remora_remove(cli->remora, &cli->view, path.text, recursive);
    return error == 0 ? 0 : cli_fail_call(cli, error, path.text);
}

int cli_verb_rm(struct cli *cli)
{
    int code = begin(cli);
    for (size_t i = 1; code == 0 && i < cli->args.words_n; i++)
        code = remove_path(cli, cli->args.words[i]);
    return code == 0 ? cli_commit(cli, "removed", NULL) : code;
}

/* mv and cp */

struct target {
    struct cli_path path;
    bool is_directory;
};

/* The last word: where to. Several sources, or a slash at its end, need a directory there. 0 or an exit code.
 */
static int find_target(struct cli *cli, struct target *target)
{
    size_t last = cli->args.words_n - 1;
    struct remora_entry entry;
    bool exists;
    int code = cli_path(cli->args.words[last], &target->path);
    if (code == 0)
        code = cli_exists(cli, target->path.text, &exists, &entry);
    if (code != 0)
        return code;
    target->is_directory = exists && entry.kind == REMORA_DIRECTORY;
    if (exists)
        remora_entry_free(&entry);
    if (target->is_directory)
        return 0;
    if (last == 2 && !target->path.slash)
        return check_parent(cli, target->path.text);
    return cli_fail(CLI_FAILED, "%s: %s", cli_shown(target->path.text),
                    exists ? "Not a directory" : "No such directory");
}

/* Where source ends up: inside the target if that is a directory. */
static int resolve(const struct target *target, const struct cli_path *source,
                   char ret_path[REPLICA_PATH_MAX + 1])
{
    const char *name = target->is_directory ? cli_last_part(source->text) : "";
    if (cli_join(target->path.text, name, ret_path, REPLICA_PATH_MAX + 1) != 0)
        return cli_fail(CLI_REFUSED, "%s/%s: longer than a path may be", target->path.text, name);
    return 0;
}

/* What both verbs refuse. *ret_directory: whether source is one. 0 or an exit code. */
static int check_source(struct cli *cli, const char *source, const char *to, bool *ret_directory)
{
    struct remora_entry entry;
    int code = cli_stat(cli, source, &entry);
    if (code != 0)
        return code;
    *ret_directory = entry.kind == REMORA_DIRECTORY;
    remora_entry_free(&entry);
    if (source[0] == '\0')
        return cli_fail(CLI_REFUSED, "/: the root of a volume stays where it is");
    if (strcmp(source, to) == 0)
        return cli_fail(CLI_FAILED, "%s: source and target are the same", source);
    if (*ret_directory && cli_is_within(to, source))
        return cli_fail(CLI_FAILED, "%s: a directory cannot go into itself (%s)", source, to);
    return 0;
}

typedef int (*transfer_fn)(struct cli *cli, const char *from, const char *to, bool directory);

static int transfer_all(struct cli *cli, transfer_fn transfer)
{
    struct target target;
    int code = begin(cli);
    if (code == 0)
        code = find_target(cli, &target);
    for (size_t i = 1; code == 0 && i + 1 < cli->args.words_n; i++) {
        char to[REPLICA_PATH_MAX + 1];
        struct cli_path source;
        bool directory;
        code = cli_path(cli->args.words[i], &source);
        if (code == 0)
            code = resolve(&target, &source, to);
        if (code == 0)
            code = check_source(cli, source.text, to, &directory);
        if (code == 0)
            code = transfer(cli, source.text, to, directory);
    }
    return code;
}

static int move(struct cli *cli, const char *from, const char *to, bool directory)
{
    int error = remora_rename(cli->remora, &cli->view, from, to);
    (void)directory;
    return error == 0 ? 0 : cli_fail_call(cli, error, from);
}

int cli_verb_mv(struct cli *cli)
{
    int code = transfer_all(cli, move);
    return code == 0 ? cli_commit(cli, "moved", NULL) : code;
}

static int copy(struct cli *cli, const char *from, const char *to, bool directory)
{
    int error;
    if (directory && !cli_flag(cli, "recursive"))
        return cli_fail(CLI_FAILED, "%s: Is a directory; -r copies it with all in it", from);
    error = remora_copy(cli->remora, &cli->view, from, to, directory);
    return error == 0 ? 0 : cli_fail_call(cli, error, from);
}

int cli_verb_cp(struct cli *cli)
{
    int code = transfer_all(cli, copy);
    return code == 0 ? cli_commit(cli, "copied", NULL) : code;
}
