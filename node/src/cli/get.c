/* remora get. The node first fetches whatever it lacks; then everything is written under a temporary name
 * beside its target, verified, and renamed (replace.h). A get that was interrupted leaves nothing half-done, one that was killed a
 * temporary that the next one replaces; either way the next one finds on the node what was fetched. */
#include "cli/get.h"

#include "cli/format.h"
#include "cli/json.h"
#include "cli/paths.h"
#include "cli/replace.h"
#include "cli/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct get {
    struct cli *cli;
    struct cli_path remote;
    struct remora_entry entry;
    char target[PATH_MAX]; /* local */
    char name[REPLICA_NAME_MAX + 1];
    int parent;                /* the open directory that the target goes into */
    bool exists, is_directory; /* the target */
    struct cli_count count;    /* of what was got */
};

/* Where it goes */

static bool local_is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* LOCAL, or LOCAL/name if that is a directory. */
static int choose_target(struct get *get, const char *local)
{
    const char *name = get->remote.size == 0 ? get->cli->args.words[0] : cli_last_part(get->remote.text);
    size_t n = strlen(local);
    bool slash = n > 1 && local[n - 1] == '/', into = local_is_directory(local);
    if (slash && !into && get->entry.kind != REMORA_DIRECTORY)
        return cli_fail(CLI_FAILED, "%s: No such directory", local);
    while (n > 1 && local[n - 1] == '/')
        n--;
    if (into && n + 1 + strlen(name) < sizeof get->target)
        snprintf(get->target, sizeof get->target, "%.*s%s%.*s", (int)n, local, local[n - 1] == '/' ? "" : "/",
                 REPLICA_NAME_MAX, name);
    else if (!into && n < sizeof get->target)
        snprintf(get->target, sizeof get->target, "%.*s", (int)n, local);
    else
        return cli_fail(CLI_FAILED, "%s: longer than a path may be", local);
    if (cli_base_name(get->target, get->name, sizeof get->name) != 0 || get->name[0] == '\0')
        return cli_fail(CLI_REFUSED, "%s: a name for what is got is missing", local);
    return 0;
}

int cli_open_parent(const char *path, int *ret_dir)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - path);
    if (slash == NULL) {
        strcpy(parent, ".");
    } else {
        memcpy(parent, path, n);
        parent[n] = '\0';
        if (n == 0)
            strcpy(parent, "/");
    }
    *ret_dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *ret_dir >= 0 ? 0 : cli_fail(CLI_FAILED, "%s: %s", parent, strerror(errno));
}

/* What stands for a file of another place, a terminal's or a pipe's among them: nothing is made or replaced there. */
static bool is_of_the_system(const char *path)
{
    return strcmp(path, "/dev") == 0 || cli_is_within(path, "/dev/fd") || cli_is_within(path, "/proc");
}

/* A symbolic link to a file stands for that file, as for cp. */
static int follow_link(struct get *get)
{
    char *end;
    struct stat info;
    if (stat(get->target, &info) != 0)
        return cli_fail(CLI_REFUSED, "%s is a symbolic link that leads nowhere; remove it first",
                        get->target);
    if (!S_ISREG(info.st_mode))
        return cli_may_replace(&info, get->entry.kind, get->target);
    end = realpath(get->target, NULL);
    if (end == NULL || strlen(end) >= sizeof get->target) {
        free(end);
        return cli_fail(CLI_FAILED, "%s: the end of the link cannot be found: %s", get->target,
                        strerror(errno));
    }
    strcpy(get->target, end);
    free(end);
    close(get->parent);
    (void)cli_base_name(get->target, get->name, sizeof get->name); /* of a file that is there: it fits */
    return cli_open_parent(get->target, &get->parent);
}

static int check_place(const struct get *get)
{
    char parent[PATH_MAX], link[40];
    ssize_t n;
    snprintf(link, sizeof link, "/proc/self/fd/%d", get->parent);
    n = readlink(link, parent, sizeof parent - 1);
    if (n < 0)
        return 0;
    parent[n] = '\0';
    if (!is_of_the_system(parent))
        return 0;
    return cli_fail(CLI_REFUSED, "%s: nothing is made or replaced in %s; `-` writes to standard output",
                    get->target, parent);
}

static int check_target(struct get *get)
{
    struct stat info;
    int code = cli_open_parent(get->target, &get->parent);
    if (code == 0)
        code = check_place(get);
    if (code != 0)
        return code;
    get->exists = fstatat(get->parent, get->name, &info, AT_SYMLINK_NOFOLLOW) == 0;
    if (!get->exists)
        return 0;
    get->is_directory = S_ISDIR(info.st_mode);
    code = cli_may_replace(&info, get->entry.kind, get->target);
    if (code == 0 && !cli_flag(get->cli, "force"))
        code = cli_fail(CLI_REFUSED, "%s exists; --force replaces files%s, and removes nothing else",
                        get->target, get->is_directory ? " in it" : "");
    if (code == 0 && S_ISLNK(info.st_mode) && get->entry.kind == REMORA_FILE)
        code = follow_link(get);
    return code;
}

/* Fetching */

int cli_fetch(struct cli *cli, const char *path, bool recursive)
{
    struct replica_buffer params;
    struct replica_id view;
    struct cli_result result;
    int code;
    memcpy(view.bytes, cli->view.id, sizeof view.bytes);
    replica_buffer_init(&params);
    replica_pack_map(&params, 4);
    replica_pack_cstr(&params, "view");
    replica_pack_id(&params, &view);
    replica_pack_cstr(&params, "at"); /* empty: what the view shows */
    replica_pack_cstr(&params, cli->view.at);
    replica_pack_cstr(&params, "path");
    replica_pack_cstr(&params, path);
    replica_pack_cstr(&params, "recursive");
    replica_pack_bool(&params, recursive);
    code = cli_call(cli, "fs.fetch", &params, cli_shown(path), &result);
    cli_result_close(&result);
    return code;
}

static bool shows_progress(const struct cli *cli)
{
    return !cli->quiet && isatty(STDERR_FILENO) == 1;
}

static int fetch(struct get *get, uint64_t bytes)
{
    int code;
    cli_progress_begin(&get->cli->progress, "fetch", bytes, shows_progress(get->cli));
    cli_progress_file(&get->cli->progress, NULL, 0);
    code = cli_fetch(get->cli, get->remote.text, get->entry.kind == REMORA_DIRECTORY);
    cli_progress_begin(&get->cli->progress, "get", bytes, shows_progress(get->cli));
    return code;
}

/* Writing */

static int get_file(struct get *get)
{
    struct cli_restore restore;
    int code = get->entry.kind == REMORA_FILE ? fetch(get, get->entry.size) : 0;
    if (code != 0)
        return code;
    cli_restore_init(&restore, get->cli);
    restore.verify = true;
    cli_progress_file(&get->cli->progress, get->name, get->entry.size);
    code = cli_restore_whole(&restore, get->parent, get->name, get->remote.text, &get->entry, get->exists,
                             get->target);
    if (code == 0 && restore.skipped)
        return CLI_FAILED;
    cli_count_file(&get->count, get->entry.kind == REMORA_FILE ? get->entry.size : 0);
    return code;
}

static void tree_init(struct get *get, struct cli_tree *tree)
{
    *tree = (struct cli_tree){.cli = get->cli, .from = get->remote.text, .shown = get->target};
    cli_restore_init(&tree->restore, get->cli);
    tree->restore.verify = true;
}

static int merge_directory(struct get *get)
{
    int root = openat(get->parent, get->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), code;
    struct cli_tree tree;
    uint64_t bytes;
    if (root < 0)
        return cli_fail(CLI_FAILED, "%s: %s", get->target, strerror(errno));
    tree_init(get, &tree);
    tree.merge = true;
    code = cli_tree_check(&tree, root, &bytes);
    if (code == 0)
        code = fetch(get, bytes);
    if (code == 0)
        code = cli_tree_write(&tree, root, &get->entry);
    close(root);
    get->count = tree.count;
    return code;
}

static int make_directory(struct get *get)
{
    struct cli_temporary temporary;
    struct cli_tree tree;
    uint64_t bytes = 0;
    int code = 0;
    if (shows_progress(get->cli))
        code = cli_tree_bytes(get->cli, get->remote.text, &bytes);
    if (code == 0)
        code = fetch(get, bytes);
    if (code == 0)
        code = cli_temporary_directory(get->parent, get->name, get->target, &temporary);
    if (code != 0)
        return code;
    tree_init(get, &tree);
    code = cli_tree_write(&tree, temporary.fd, &get->entry);
    get->count = tree.count;
    if (code == 0)
        code = cli_rename(get->parent, temporary.name, get->name, false, get->target);
    if (code != 0 && cli_remove_tree(get->parent, temporary.name) != 0)
        cli_warn("%s, beside %s, could not be removed: %s", temporary.name, get->target, strerror(errno));
    close(temporary.fd);
    return code;
}

static void tell(const struct get *get)
{
    char count[CLI_COUNT_TEXT];
    struct cli_json json;
    cli_format_count(&get->count, count);
    cli_say(get->cli, "got %s: %s", get->target, count);
    if (!get->cli->json)
        return;
    cli_json_init(&json, stdout);
    cli_json_begin(&json, '{');
    cli_json_pair_text(&json, "path", get->remote.text);
    cli_json_pair_text(&json, "local", get->target);
    cli_json_count(&json, &get->count);
    cli_json_end(&json, '}');
    cli_json_close(&json);
}

static int get_entry(struct get *get)
{
    int code = choose_target(get, get->cli->args.words_n > 2 ? get->cli->args.words[2] : ".");
    if (code == 0)
        code = check_target(get);
    if (code != 0)
        return code;
    if (get->entry.kind != REMORA_DIRECTORY)
        code = get_file(get);
    else
        code = get->exists ? merge_directory(get) : make_directory(get);
    cli_progress_hide(&get->cli->progress);
    if (code == 0)
        tell(get);
    return code;
}

int cli_verb_get(struct cli *cli)
{
    struct get get = {.cli = cli, .parent = -1};
    bool stream = cli->args.words_n > 2 && strcmp(cli->args.words[2], "-") == 0;
    int code = cli_path(cli->args.words[1], &get.remote);
    if (code == 0 && stream)
        code = cli_refuse_json(cli);
    if (code == 0)
        code = cli_open_view(cli, cli->args.words[0], REMORA_READ_ONLY);
    if (code == 0)
        code = cli_stat(cli, get.remote.text, &get.entry);
    if (code != 0)
        return code;
    if (cli->view.at[0] != '\0' && get.entry.kind == REMORA_DIRECTORY)
        code = cli_fail(CLI_REFUSED, "%s: is a directory; --at gets one file", cli_shown(get.remote.text));
    else if (stream && get.entry.kind != REMORA_FILE)
        code = cli_fail(CLI_REFUSED, "%s is no file: only a file goes to standard output",
                        cli_shown(get.remote.text));
    else if (stream)
        code = cli_cat(cli, get.remote.text, 0, UINT64_MAX);
    else
        code = get_entry(&get);
    if (get.parent >= 0)
        close(get.parent);
    remora_entry_free(&get.entry);
    return code;
}
