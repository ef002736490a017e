#include "cli/walk.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 1000 /* entries a call, as the API gives at most */

struct walk {
    struct cli *cli;
    bool deep;
    cli_walk_fn visit;
    void *context;
    char path[REPLICA_PATH_MAX + 1];
};

/* Names come from the node, and become names of local files: one that could lead elsewhere is never used. */
static bool is_name(const char *name)
{
    return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           strchr(name, '/') == NULL && strlen(name) <= REPLICA_NAME_MAX;
}

static int walk_directory(struct walk *walk, size_t size);

static int walk_entry(struct walk *walk, size_t size, const struct remora_entry *entry)
{
    size_t n = strlen(entry->path), gap = size > 0;
    int code;
    if (!is_name(entry->path) || size + gap + n > REPLICA_PATH_MAX)
        return cli_fail(CLI_FAILED, "the node named an impossible entry in %s", cli_shown(walk->path));
    if (gap)
        walk->path[size] = '/';
    memcpy(walk->path + size + gap, entry->path, n + 1);
    code = walk->visit(walk->context, CLI_WALK_ENTRY, walk->path, entry);
    if (code == 0 && walk->deep && entry->kind == REMORA_DIRECTORY) {
        code = walk_directory(walk, size + gap + n);
        walk->path[size + gap + n] = '\0';
        if (code == 0)
            code = walk->visit(walk->context, CLI_WALK_LEAVE, walk->path, entry);
    }
    walk->path[size] = '\0';
    if (code == 0 && cli_interrupted())
        return cli_fail(CLI_INTERRUPTED, "interrupted");
    return code;
}

static int walk_page(struct walk *walk, size_t size, char **after, bool *ret_more)
{
    struct remora_entry *entries;
    size_t n;
    int code = 0, error;
    error =
        remora_list(walk->cli->remora, &walk->cli->view, walk->path, *after, PAGE, &entries, &n, ret_more);
    if (error != 0)
        return cli_fail_call(walk->cli, error, cli_shown(walk->path));
    if (n == 0)
        *ret_more = false;
    free(*after);
    *after = *ret_more ? strdup(entries[n - 1].path) : NULL;
    if (*ret_more && *after == NULL)
        code = cli_no_memory();
    for (size_t i = 0; i < n; i++) {
        if (code == 0)
            code = walk_entry(walk, size, &entries[i]);
        remora_entry_free(&entries[i]);
    }
    free(entries);
    return code;
}

/* walk->path, of that size, is the directory. Recursion is as deep as a path has parts: at most 2048. */
static int walk_directory(struct walk *walk, size_t size)
{
    char *after = NULL;
    bool more = true;
    int code = 0;
    while (code == 0 && more)
        code = walk_page(walk, size, &after, &more);
    free(after);
    return code;
}

int cli_walk(struct cli *cli, const char *path, bool deep, cli_walk_fn visit, void *context)
{
    struct walk walk = {.cli = cli, .deep = deep, .visit = visit, .context = context};
    memcpy(walk.path, path, strlen(path) + 1);
    return walk_directory(&walk, strlen(path));
}

int cli_stat(struct cli *cli, const char *path, struct remora_entry *ret_entry)
{
    int error = remora_stat(cli->remora, &cli->view, path, ret_entry);
    return error == 0 ? 0 : cli_fail_call(cli, error, cli_shown(path));
}

int cli_exists(struct cli *cli, const char *path, bool *ret_exists, struct remora_entry *ret_entry)
{
    int error = remora_stat(cli->remora, &cli->view, path, ret_entry);
    *ret_exists = error == 0;
    if (error == 0 || error == REPLICA_E_NOTFOUND || error == REPLICA_E_NOTDIR)
        return 0;
    return cli_fail_call(cli, error, cli_shown(path));
}
