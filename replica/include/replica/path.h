/* Paths inside a volume. The canonical form has no leading or trailing slash, no empty, "." or ".." component and no
 * NUL; the root is the empty string. At most 4096 bytes, each component at most 255. */
#ifndef REPLICA_PATH_H
#define REPLICA_PATH_H

#include <stdbool.h>
#include <stddef.h>

#define REPLICA_PATH_MAX 4096
#define REPLICA_NAME_MAX 255

/* Borrowed bytes, not NUL-terminated. */
struct replica_path {
    const char *text;
    size_t size;
};

/* Whether text is canonical. */
bool replica_path_is_canonical(const char *text, size_t n);

/* Turns what a user wrote ("/a//b/", "a/./b") into the canonical form, written to ret_text (REPLICA_PATH_MAX + 1 bytes,
 * NUL-terminated). Errors: INVALID for NUL or "..", TOOBIG for a length. */
int replica_path_canonicalize(const char *text, size_t n, char *ret_text, size_t *ret_size);

/* Splits into parent and last component, both borrowed from path. The root has an empty parent and name. */
void replica_path_split(struct replica_path path, struct replica_path *ret_parent,
                        struct replica_path *ret_name);

/* Whether path is below dir (not equal to it). Everything but the root is below the root. */
bool replica_path_is_below(struct replica_path path, struct replica_path dir);

#endif
