/* remora.h: the C client of a Remora node's local API (docs/api.md).
 *
 * One connection is one `struct remora`, for one thread at a time. Calls block until the node answered; long
 * ones report progress through the callback given to remora_on_progress. Memory that a call returns is freed
 * as its comment says.
 *
 * Every call returns 0 or a negative error: one of REMORA_E_* (the values of docs/api.md's symbols);
 * remora_error(remora) then is a sentence for people, naming the thing and what to do. */
#ifndef REMORA_H
#define REMORA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct remora;

/* Connects to the node at path (NULL: REMORA_SOCKET, else this user's default). Waits up to wait_ms for a
 * node that is starting. On failure *ret_message (may be NULL; malloc'ed) says why. */
int remora_connect(const char *path, int wait_ms, struct remora **ret_remora, char **ret_message);
void remora_close(struct remora **remora);

/* The sentence of the last failed call on this connection; borrowed. And its symbol ("NOTFOUND"). */
const char *remora_error(const struct remora *remora);
const char *remora_error_symbol(const struct remora *remora);

/* Without progress for so long a call fails with UNAVAILABLE; default 30000. */
void remora_set_timeout(struct remora *remora, uint32_t timeout_ms);
/* bytes done and total (0: unknown) of the call in course; return non-zero to give up (CANCELLED). Also
 * called when a signal interrupts the waiting, so that a handler which sets a flag for this callback ends the
 * call. */
void remora_on_progress(struct remora *remora, int (*progress)(void *context, uint64_t bytes, uint64_t total),
                        void *context);

/* Any method of docs/api.md. params: one packed map (borrowed); fds: n descriptors to pass (borrowed).
 * result: the packed result map, malloc'ed; ret_fds: up to *ret_fds_n descriptors received, returned to the
 * caller (may be NULL). */
int remora_call(struct remora *remora, const char *method, const void *params, size_t params_n,
                const int *fds, size_t fds_n, void **ret_result, size_t *ret_result_n, int *ret_fds,
                size_t *ret_fds_n);

/* Filled in by remora_view_open. at: "", or a commit's id in hex, set by the caller of a stat, read or open: then that means the version of
 * the path that this commit wrote (superseded or lost, too), as long as it is kept. */
struct remora_view {
    uint8_t id[16];
    char at[33];
};

enum remora_volume_flags { REMORA_IF_MISSING = 1 };
int remora_volume_create(struct remora *remora, const char *name, int version, unsigned flags);

enum remora_view_flags { REMORA_READ_ONLY = 1, REMORA_AUTO = 2, REMORA_LOCAL = 4 };
/* label NULL: a private view. sub NULL: the whole volume. */
int remora_view_open(struct remora *remora, const char *volume, const char *sub, const char *label,
                     unsigned flags, struct remora_view *ret_view);
int remora_view_close(struct remora *remora, const struct remora_view *view);

struct remora_commit {
    char token[160];
    char commit[33];
    uint64_t paths, bytes;
    size_t lost_n;
    char **lost; /* paths */
};
int remora_commit(struct remora *remora, const struct remora_view *view, struct remora_commit *ret_commit);
void remora_commit_free(struct remora_commit *commit);

enum remora_reload_mode { REMORA_RELOAD_QUORUM, REMORA_RELOAD_LOCAL, REMORA_RELOAD_AT_LEAST };
struct remora_reload {
    uint64_t before, after;
    size_t changed_n;
    char **changed; /* paths */
    bool more;
};
int remora_reload(struct remora *remora, const struct remora_view *view, enum remora_reload_mode mode,
                  const char *token, struct remora_reload *ret_reload);
void remora_reload_free(struct remora_reload *reload);

enum remora_kind {
    REMORA_FILE = 1,
    REMORA_DIRECTORY,
    REMORA_SYMLINK,
    REMORA_FIFO,
    REMORA_SOCKET,
    REMORA_CHAR,
    REMORA_BLOCK
};
struct remora_xattr {
    char *name;
    uint8_t *value;
    size_t size;
};
struct remora_entry {
    char *path; /* a name in listings */
    enum remora_kind kind;
    uint32_t mode, uid, gid;
    int64_t mtime_ns;
    uint64_t size;
    char *target;
    uint32_t major, minor;
    size_t xattrs_n;
    struct remora_xattr *xattrs;
    uint32_t links;
    bool has_object;
    uint8_t object[16];
    char content[65]; /* hex root, "" if inline */
    char stamp[49];   /* hex: hlc, commit id */
    bool complete;
    /* of a file to put: */
    const void *data; /* ≤ 1 MiB, borrowed; or */
    int fd;           /* borrowed, or -1 */
};
void remora_entry_free(struct remora_entry *entry); /* what a call filled in */

int remora_stat(struct remora *remora, const struct remora_view *view, const char *path,
                struct remora_entry *ret_entry);
/* Up to limit children of path after the name `after` (NULL: from the first); *ret_entries is malloc'ed, each
 * freed by remora_entry_free, then the array by free. */
int remora_list(struct remora *remora, const struct remora_view *view, const char *path, const char *after,
                size_t limit, struct remora_entry **ret_entries, size_t *ret_n, bool *ret_more);
/* n entries (borrowed) in one request: bytes of all together ≤ 3 MiB, descriptors ≤ 64. */
int remora_put(struct remora *remora, const struct remora_view *view, const struct remora_entry *entries,
               size_t n, bool parents);
int remora_mkdir(struct remora *remora, const struct remora_view *view, const char *path, uint32_t mode,
                 bool parents);
int remora_remove(struct remora *remora, const struct remora_view *view, const char *path, bool recursive);
int remora_rename(struct remora *remora, const struct remora_view *view, const char *from, const char *to);
int remora_link(struct remora *remora, const struct remora_view *view, const char *from, const char *to);
int remora_copy(struct remora *remora, const struct remora_view *view, const char *from, const char *to,
                bool recursive);
int remora_read(struct remora *remora, const struct remora_view *view, const char *path, uint64_t offset,
                void *data, size_t n, size_t *ret_n);
int remora_write(struct remora *remora, const struct remora_view *view, const char *path, uint64_t offset,
                 const void *data, size_t n, bool create);
/* A read-only descriptor to the file's bytes, returned to the caller; small files come as an anonymous one.
 */
int remora_open(struct remora *remora, const struct remora_view *view, const char *path, int *ret_fd,
                uint64_t *ret_size);
/* Has the node read the file's bytes through, against their content id; what is damaged it replaces by another holder's.
 * 0: they are well now; *ret_damaged (may be NULL): they were not. Nobody needs it before a read, which is always
 * verified; but bytes behind a descriptor are not. */
int remora_verify(struct remora *remora, const struct remora_view *view, const char *path, bool *ret_damaged);

#define REMORA_E_NOMEM         (-1) /* out of memory */
#define REMORA_E_IO            (-2)
#define REMORA_E_CORRUPT       (-3) /* stored data is damaged */
#define REMORA_E_MALFORMED     (-4)
#define REMORA_E_NOTFOUND      (-5)
#define REMORA_E_EXISTS        (-6)
#define REMORA_E_NOSPACE       (-7) /* or over a limit */
#define REMORA_E_TOOBIG        (-8)
#define REMORA_E_ABSENT        (-10) /* bytes that no node that can be reached has */
#define REMORA_E_INVALID       (-11)
#define REMORA_E_NOTDIR        (-12)
#define REMORA_E_ISDIR         (-13)
#define REMORA_E_NOTEMPTY      (-14)
#define REMORA_E_READONLY      (-15)
#define REMORA_E_UNAVAILABLE   (-16) /* no node, no majority: nothing happened */
#define REMORA_E_INDETERMINATE (-17) /* the node goes on with it */
#define REMORA_E_REFUSED       (-18)
#define REMORA_E_BUSY          (-19)
#define REMORA_E_STALE         (-20)
#define REMORA_E_EXPIRED       (-21)
#define REMORA_E_DENIED        (-22)
#define REMORA_E_VERSION       (-23)
#define REMORA_E_DELETED       (-24) /* the volume */
#define REMORA_E_PERM          (-25) /* not on this kind of volume */
#define REMORA_E_CANCELLED     (-27) /* by the progress callback */

#ifdef __cplusplus
}
#endif

#endif
