/* restore: making what an entry describes in the local file system. Names are taken relative to a directory
 * that is held open, and no symbolic link is ever followed: nothing a volume names can lead out of the place
 * it is restored to. */
#ifndef CLI_RESTORE_H
#define CLI_RESTORE_H

#include "cli/cli.h"
#include "replica/merkle.h"

#include <pthread.h>
#include <stdatomic.h>

struct cli_restore {
    struct cli *cli;
    bool hardlink; /* share the node's own file where its mode, owner and times can be the entry's */
    bool verify;   /* also what was not copied but shared by a reflink */
    bool as_root;  /* owners are kept */
    bool warned;   /* of an attribute that this file system does not keep */
    bool skipped;  /* the last entry is a device, and this user may not make one: said, and left out */
};

void cli_restore_init(struct cli_restore *restore, struct cli *cli);

/* Makes the file, link or special file of `entry` (not a directory) as name in dir, which must not exist.
 * path: in the volume, to fetch its bytes. shown: the local name for messages. 0 or an exit code, and then
 * there is nothing under that name. */
int cli_restore(struct cli_restore *restore, int dir, const char *name, const char *path,
                const struct remora_entry *entry, const char *shown);

/* The same for a file whose name in dir is made already: empty, and open for writing as `to` (borrowed). */
int cli_restore_into(struct cli_restore *restore, int to, int dir, const char *name, const char *path,
                     const struct remora_entry *entry, const char *shown);

/* Gives an open directory the mode, owner, attributes and times of its entry; last of all, because what
 * happens in it changes them. */
int cli_restore_directory(struct cli_restore *restore, int dir, const struct remora_entry *entry,
                          const char *shown);

/* Removes name in dir with all below it, as far as that can be done; follows no links. 0 or -1 (errno). */
int cli_remove_tree(int dir, const char *name);

/* The bytes of a local file against a content id in hex. 0, -1 (errno), or 1: they differ. */
int cli_verify(int fd, uint64_t size, const char *content);

/* The same on threads beside a copy of that file: the bytes are in memory then, so that with cores to spare both together take
 * hardly longer than the copy. fd and content are borrowed until the end. */
#define CLI_CHECK_THREADS_MAX 4 /* hash as fast as most disks read */
struct cli_check {
    int fd;
    uint64_t size;
    const char *content;
    struct replica_hash *ids; /* of all chunks */
    atomic_uint next;         /* chunk to be taken */
    atomic_int error;         /* errno */
    pthread_t threads[CLI_CHECK_THREADS_MAX];
    unsigned threads_n;
};
void cli_check_begin(struct cli_check *check, int fd, uint64_t size, const char *content);
int cli_check_end(struct cli_check *check); /* as cli_verify */

#endif
