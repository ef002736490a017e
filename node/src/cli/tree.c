#include "cli/tree.h"

#include "cli/paths.h"
#include "cli/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PRIVATE_MODE   0700 /* of a directory until it is complete */
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static int failed(const struct cli_tree *tree, const char *path)
{
    int error = errno;
    return cli_fail(cli_exit_of_errno(error), "%s (%s): %s", tree->shown, path,
                    error == EMFILE ? "too many levels of directories for this process's limit of open files"
                                    : strerror(error));
}

/* Relative to the tree's root. */
static const char *below(const struct cli_tree *tree, const char *path)
{
    size_t n = strlen(tree->from);
    return n == 0 ? path : path + n + 1;
}

/* The stack of open directories. -1 is one that does not exist (when checking). */

static int push(struct cli_tree *tree, int dir)
{
    if (tree->depth == tree->capacity) {
        size_t capacity = tree->capacity == 0 ? 32 : 2 * tree->capacity;
        int *grown = realloc(tree->dirs, capacity * sizeof grown[0]);
        if (grown == NULL) {
            if (dir >= 0)
                close(dir);
            return cli_no_memory();
        }
        tree->dirs = grown;
        tree->capacity = capacity;
    }
    tree->dirs[tree->depth++] = dir;
    return 0;
}

static int top(const struct cli_tree *tree)
{
    return tree->dirs[tree->depth - 1];
}

static void pop(struct cli_tree *tree)
{
    int dir = tree->dirs[--tree->depth];
    if (dir >= 0 && tree->depth > 0) /* the root is borrowed */
        close(dir);
}

static void close_tree(struct cli_tree *tree)
{
    while (tree->depth > 0)
        pop(tree);
    free(tree->dirs);
    tree->dirs = NULL;
    tree->capacity = 0;
    cli_ids_close(&tree->links);
}

/* Writing */

static int enter(struct cli_tree *tree, const char *path, const char *name)
{
    int dir;
    tree->count.directories++;
    if (mkdirat(top(tree), name, PRIVATE_MODE) != 0 && (errno != EEXIST || !tree->merge))
        return failed(tree, path);
    dir = openat(top(tree), name, OPEN_DIRECTORY);
    return dir < 0 ? failed(tree, path) : push(tree, dir);
}

static int leave(struct cli_tree *tree, const char *path, const struct remora_entry *entry)
{
    int code = cli_restore_directory(&tree->restore, top(tree), entry, path);
    pop(tree);
    return code;
}

/* Another name of an entry that was made before; a device that was left out is left out under every name. */
static int make_link(struct cli_tree *tree, const char *first, const char *name, const char *path,
                     const struct remora_entry *entry)
{
    bool device = entry->kind == REMORA_CHAR || entry->kind == REMORA_BLOCK;
    if (linkat(tree->dirs[0], first, top(tree), name, 0) == 0)
        return 0;
    tree->restore.skipped = device && errno == ENOENT;
    return tree->restore.skipped ? 0 : failed(tree, path);
}

/* Makes the entry as name, and removes nothing. */
static int make_new(struct cli_tree *tree, const char *path, const struct remora_entry *entry)
{
    if (tree->reuse != NULL && entry->kind == REMORA_FILE &&
        tree->reuse(tree->context, top(tree), entry->path, path, entry))
        return 0;
    return cli_restore(&tree->restore, top(tree), entry->path, path, entry, path);
}

/* Puts a link where there may be something already. */
static int link_over(struct cli_tree *tree, const char *first, const char *path,
                     const struct remora_entry *entry)
{
    char temporary[CLI_TEMPORARY_TEXT];
    int code;
    cli_temporary_name(entry->path, temporary);
    (void)cli_remove_tree(top(tree), temporary); /* what stays makes the next line fail */
    code = make_link(tree, first, temporary, path, entry);
    if (code == 0 && !tree->restore.skipped)
        code = cli_rename(top(tree), temporary, entry->path, true, path);
    /* Also after success: rename(2) of two names of one file leaves both. */
    unlinkat(top(tree), temporary, 0);
    return code;
}

static int make(struct cli_tree *tree, const char *path, const struct remora_entry *entry)
{
    const char *first = NULL;
    int code = 0;
    tree->restore.skipped = false;
    if (entry->has_object)
        code = cli_ids_first(&tree->links, entry->object, below(tree, path), &first);
    if (code != 0)
        return code;
    if (first != NULL)
        return tree->merge ? link_over(tree, first, path, entry)
                           : make_link(tree, first, entry->path, path, entry);
    if (tree->merge)
        code = cli_restore_whole(&tree->restore, top(tree), entry->path, path, entry, true, path);
    else
        code = make_new(tree, path, entry);
    if (code == 0 && !tree->restore.skipped)
        cli_count_file(&tree->count, entry->kind == REMORA_FILE ? entry->size : 0);
    return code;
}

static int write_entry(void *context, enum cli_walk_when when, const char *path,
                       const struct remora_entry *entry)
{
    struct cli_tree *tree = context;
    int code;
    if (when == CLI_WALK_LEAVE)
        return leave(tree, path, entry);
    if (entry->kind == REMORA_DIRECTORY)
        return enter(tree, path, entry->path);
    cli_progress_file(&tree->cli->progress, path, entry->size);
    code = make(tree, path, entry);
    cli_progress_add(&tree->cli->progress, entry->size);
    return code;
}

int cli_tree_write(struct cli_tree *tree, int root, const struct remora_entry *entry)
{
    int code = push(tree, root);
    tree->count.directories += tree->from[0] != '\0'; /* a volume's root is no entry of it */
    if (code == 0)
        code = cli_walk(tree->cli, tree->from, true, write_entry, tree);
    if (code == 0)
        code = cli_restore_directory(&tree->restore, root, entry, tree->shown);
    close_tree(tree);
    return code;
}

/* Checking */

struct check {
    struct cli_tree *tree;
    uint64_t bytes;
};

static int check_entry(void *context, enum cli_walk_when when, const char *path,
                       const struct remora_entry *entry)
{
    struct check *check = context;
    struct cli_tree *tree = check->tree;
    bool directory = entry->kind == REMORA_DIRECTORY;
    struct stat info;
    int dir = top(tree);
    bool exists;
    if (when == CLI_WALK_LEAVE) {
        pop(tree);
        return 0;
    }
    exists = dir >= 0 && fstatat(dir, entry->path, &info, AT_SYMLINK_NOFOLLOW) == 0;
    check->bytes += entry->kind == REMORA_FILE ? entry->size : 0;
    if (exists) {
        char shown[2 * PATH_MAX];
        int code;
        snprintf(shown, sizeof shown, "%s/%s", tree->shown, below(tree, path));
        code = cli_may_replace(&info, entry->kind, shown);
        if (code != 0)
            return code;
    }
    if (!directory)
        return 0;
    dir = exists ? openat(dir, entry->path, OPEN_DIRECTORY) : -1;
    if (exists && dir < 0)
        return failed(tree, path);
    return push(tree, dir);
}

int cli_tree_check(struct cli_tree *tree, int root, uint64_t *ret_bytes)
{
    struct check check = {.tree = tree};
    int code = push(tree, root);
    if (code == 0)
        code = cli_walk(tree->cli, tree->from, true, check_entry, &check);
    close_tree(tree);
    *ret_bytes = check.bytes;
    return code;
}

static int add_bytes(void *context, enum cli_walk_when when, const char *path,
                     const struct remora_entry *entry)
{
    (void)path;
    if (when == CLI_WALK_ENTRY && entry->kind == REMORA_FILE)
        *(uint64_t *)context += entry->size;
    return 0;
}

int cli_tree_bytes(struct cli *cli, const char *path, uint64_t *ret_bytes)
{
    *ret_bytes = 0;
    return cli_walk(cli, path, true, add_bytes, ret_bytes);
}
