/* replace: a local name gets something new whole, or stays what it was: what may be replaced, the temporary name that it is written
 * under, and the rename.
 *
 * A temporary belongs to its target: `.remora-` and 16 hex digits of a hash of the target's name, in the same directory. So what a
 * killed process left is found, and replaced, by whoever gets the same target next; two that get it at once are kept apart by a lock
 * (flock) on the temporary. What was fetched before an interruption stays on the node, which is where a get resumes. */
#ifndef CLI_REPLACE_H
#define CLI_REPLACE_H

#include "cli/restore.h"

#include <sys/stat.h>

#define CLI_TEMPORARY_TEXT 32

struct cli_temporary {
    char name[CLI_TEMPORARY_TEXT]; /* in the directory of its target */
    int fd;                        /* locked; closed only after the rename */
};

void cli_temporary_name(const char *target, char ret_name[CLI_TEMPORARY_TEXT]);
/* A new file, or empty directory, for target in dir, of mode 0600 or 0700. 0 or an exit code: CLI_BUSY if another process is at it. */
int cli_temporary_file(int dir, const char *target, const char *shown, struct cli_temporary *ret_temporary);
int cli_temporary_directory(int dir, const char *target, const char *shown,
                            struct cli_temporary *ret_temporary);

/* Whether `entry` may take the place of what `there` describes: files and symbolic links give way, a directory only to a directory,
 * which is merged into it, and anything special only to its own kind. 0, or CLI_REFUSED after naming `shown`. */
int cli_may_replace(const struct stat *there, enum remora_kind kind, const char *shown);

/* Renames in dir. Unless `replace`, nothing may have come up under the name meanwhile. 0 or an exit code. */
int cli_rename(int dir, const char *temporary, const char *target, bool replace, const char *shown);

/* As cli_restore, but whole or not at all, by way of a temporary. */
int cli_restore_whole(struct cli_restore *restore, int dir, const char *target, const char *path,
                      const struct remora_entry *entry, bool replace, const char *shown);

#endif
