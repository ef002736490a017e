/* paths: the rules by which put, get, mv and cp find out where something goes. Pure. */
#ifndef CLI_PATHS_H
#define CLI_PATHS_H

#include <stdbool.h>
#include <stddef.h>

/* The last part of a local path as it was written: "/a/b/" → "b". Empty for "/", ".", ".." and what ends in
 * them: such a directory has no name of its own, its contents are meant. Errors: -1 if it does not fit into
 * size. */
int cli_base_name(const char *path, char *ret_name, size_t size);

/* dir/name in canonical form; dir "" is the root, name "" is dir itself. -1: longer than a path may be (size:
 * REPLICA_PATH_MAX + 1). */
int cli_join(const char *dir, const char *name, char *ret_path, size_t size);

/* Where `put` puts LOCAL: remote is canonical, slash says that it was written with one at its end (then the
 * base name is appended). */
int cli_put_target(const char *remote, bool slash, const char *local, char *ret_path, size_t size);

/* The last part of a canonical path; "" for the root. Borrowed. */
const char *cli_last_part(const char *path);

/* Whether path is dir or lies below it; both canonical. */
bool cli_is_within(const char *path, const char *dir);

/* "VOL[:SUB]" → the volume in ret_volume, and where SUB begins in text (borrowed; "" without one). -1: the
 * name is too long. */
int cli_split_volume(const char *text, char *ret_volume, size_t size, const char **ret_sub);

#endif
