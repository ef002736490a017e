/* walk: every entry below a directory of a view, in order of names, depth first. A private view does not
 * move, so that walking twice sees the same tree. Memory is bounded by depth, not by the size of the tree:
 * one page of a listing for each level. */
#ifndef CLI_WALK_H
#define CLI_WALK_H

#include "cli/cli.h"
#include "cli/ids.h"

enum cli_walk_when {
    CLI_WALK_ENTRY, /* any entry; a directory before what is in it */
    CLI_WALK_LEAVE, /* a directory, after what is in it */
};

/* path: whole, in the volume; entry: borrowed. Non-zero ends the walk, which returns it. */
typedef int (*cli_walk_fn)(void *context, enum cli_walk_when when, const char *path,
                           const struct remora_entry *entry);

/* All below path, but not path itself. deep: also below directories in it. 0, an exit code, or what visit
 * returned. */
int cli_walk(struct cli *cli, const char *path, bool deep, cli_walk_fn visit, void *context);

/* The entry at path. 0 or an exit code, after saying why. ret_entry is for remora_entry_free. */
int cli_stat(struct cli *cli, const char *path, struct remora_entry *ret_entry);
/* Whether there is one. */
int cli_exists(struct cli *cli, const char *path, bool *ret_exists, struct remora_entry *ret_entry);

/* Up to length bytes of a file from offset on to standard output, as they come in. 0 or an exit code. */
int cli_cat(struct cli *cli, const char *path, uint64_t offset, uint64_t length);

#endif
