/* source: a local tree that is to be put, as it was found: every entry below a root, breadth first, so that a
 * directory's children lie together, in order of names, and every directory comes before what is in it. */
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

#include "cli/cli.h"
#include "cli/ids.h"

#include <sys/stat.h>

/* Entries of one put: their names must fit into memory, about 200 bytes each. */
#define CLI_SOURCE_ITEMS_MAX ((size_t)20 * 1000 * 1000)

struct cli_source_item {
    char *path;  /* relative to the root; "" is the root itself */
    char *link;  /* the path, met before, whose inode this is another name of; NULL: none */
    mode_t mode; /* with the kind */
    uint64_t size;
    size_t first, children_n; /* of a directory: its children, items[first] and on */
};

struct cli_source {
    char *root; /* without symbolic links */
    struct cli_source_item *items;
    size_t n, capacity;
    struct cli_count count; /* the root too */
    struct cli_ids inodes;
};

/* 0, or an exit code after saying why. A root that is a symbolic link is followed. Closed by cli_source_close
 * either way. */
int cli_source_scan(const char *local, struct cli_source *ret_source);
void cli_source_close(struct cli_source *source);

/* The local path of an item; -1 if it is longer than the system takes. */
int cli_source_path(const struct cli_source *source, const struct cli_source_item *item, char *ret_path,
                    size_t size);

/* All but the bytes of what lies at an item's path now (not as scanned), under the path `remote` (borrowed):
 * kind, mode, owner, times, xattrs, target, device. Both outputs as they are at the same time as near as can
 * be. ret_entry is for cli_source_entry_free. 0 or an exit code. */
int cli_source_entry(const struct cli_source *source, const struct cli_source_item *item, char *remote,
                     struct remora_entry *ret_entry, struct stat *ret_info);
void cli_source_entry_free(struct remora_entry *entry);

/* Whether two looks at one file differ in anything that writing to it changes. */
bool cli_source_changed(const struct stat *before, const struct stat *after);

#endif
