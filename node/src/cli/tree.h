/* tree: writing what lies below a directory of a volume into a local directory, for get and checkout. */
#ifndef CLI_TREE_H
#define CLI_TREE_H

#include "cli/format.h"
#include "cli/restore.h"
#include "cli/walk.h"

struct cli_tree {
    struct cli *cli;
    struct cli_restore restore;
    const char *from;  /* the directory in the volume */
    const char *shown; /* the local root, for messages */
    bool merge; /* into directories that exist: each file under a temporary name, then renamed over what is
                   there */
    /* Makes a file by other means if it can: true, and it is there. May be NULL. */
    bool (*reuse)(void *context, int dir, const char *name, const char *path,
                  const struct remora_entry *entry);
    void *context;
    struct cli_count count; /* of what was made */

    /* private */
    int *dirs; /* open, from the root down to where the walk is */
    size_t depth, capacity;
    struct cli_ids links;
};

/* Into the open directory root (borrowed), which gets the metadata of `entry`, the one at from. 0 or an exit
 * code; what was written until then stays. */
int cli_tree_write(struct cli_tree *tree, int root, const struct remora_entry *entry);

/* For merging: nothing may stand in the way (a directory where a file is to be, or the other way round). Also
 * adds up the bytes. */
int cli_tree_check(struct cli_tree *tree, int root, uint64_t *ret_bytes);

/* The bytes of all files below path. */
int cli_tree_bytes(struct cli *cli, const char *path, uint64_t *ret_bytes);

#endif
