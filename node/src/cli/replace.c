#include "cli/replace.h"

#include "replica/merkle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define TRIES          100 /* each is lost to another process that finished just then */
#define OPEN_FILE      (O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

void cli_temporary_name(const char *target, char ret_name[CLI_TEMPORARY_TEXT])
{
    struct replica_hash hash;
    int n = snprintf(ret_name, CLI_TEMPORARY_TEXT, ".remora-");
    replica_hash_bytes(target, strlen(target), &hash);
    for (size_t i = 0; i < 8; i++)
        n += snprintf(ret_name + n, CLI_TEMPORARY_TEXT - (size_t)n, "%02x", hash.bytes[i]);
}

/* Making one. Each try ends in a lock on what the name still names then, or goes round again. */

static int failed(const char *shown, const char *temporary)
{
    int error = errno;
    return cli_fail(cli_exit_of_errno(error), "%s: its temporary %s cannot be made: %s", shown, temporary,
                    strerror(error));
}

static int busy(const char *shown, const char *temporary)
{
    return cli_fail(CLI_BUSY, "%s: another process is getting it (%s is locked)", shown, temporary);
}

/* 1: another one holds it. -1: it was renamed or removed before we had it. File systems without locks are taken as they are. */
static int lock(int fd, int dir, const char *name)
{
    struct stat ours, there;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return 1;
    if (fstat(fd, &ours) != 0 || fstatat(dir, name, &there, AT_SYMLINK_NOFOLLOW) != 0 ||
        ours.st_ino != there.st_ino || ours.st_dev != there.st_dev)
        return -1;
    return 0;
}

/* A regular file that nobody else owns or names: what a killed get leaves. */
static bool is_leftover(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_uid == geteuid() && info.st_nlink == 1;
}

int cli_temporary_file(int dir, const char *target, const char *shown, struct cli_temporary *ret_temporary)
{
    struct cli_temporary temporary;
    cli_temporary_name(target, temporary.name);
    errno = EEXIST;
    for (int i = 0; i < TRIES; i++) {
        int locked;
        temporary.fd = openat(dir, temporary.name, OPEN_FILE, 0600);
        if (temporary.fd < 0 && errno != ELOOP && errno != EISDIR && errno != ENXIO)
            break;
        if (temporary.fd < 0 || !is_leftover(temporary.fd)) {
            if (temporary.fd >= 0)
                close(temporary.fd);
            if (cli_remove_tree(dir, temporary.name) != 0)
                break;
            continue;
        }
        locked = lock(temporary.fd, dir, temporary.name);
        if (locked == 0 && ftruncate(temporary.fd, 0) == 0 && fchmod(temporary.fd, 0600) == 0) {
            *ret_temporary = temporary;
            return 0;
        }
        close(temporary.fd);
        if (locked == 1)
            return busy(shown, temporary.name);
    }
    return failed(shown, temporary.name);
}

int cli_temporary_directory(int dir, const char *target, const char *shown,
                            struct cli_temporary *ret_temporary)
{
    struct cli_temporary temporary;
    cli_temporary_name(target, temporary.name);
    errno = EEXIST;
    for (int i = 0; i < TRIES; i++) {
        bool made = mkdirat(dir, temporary.name, 0700) == 0;
        int locked;
        if (!made && errno != EEXIST)
            break;
        temporary.fd = openat(dir, temporary.name, OPEN_DIRECTORY);
        if (temporary.fd < 0 && errno == ENOENT)
            continue;
        locked = temporary.fd < 0 ? 0 : lock(temporary.fd, dir, temporary.name);
        if (locked == 1) {
            close(temporary.fd);
            return busy(shown, temporary.name);
        }
        if (made && temporary.fd >= 0 && locked == 0) {
            *ret_temporary = temporary;
            return 0;
        }
        if (locked == 0 &&
            cli_remove_tree(dir, temporary.name) != 0) /* what a killed get left, locked meanwhile */
            i = TRIES;
        if (temporary.fd >= 0)
            close(temporary.fd);
    }
    return failed(shown, temporary.name);
}

/* What may be replaced */

static const char *special_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFIFO:
        return "a fifo";
    case S_IFSOCK:
        return "a socket";
    case S_IFCHR:
    case S_IFBLK:
        return "a device";
    default:
        return NULL;
    }
}

static bool is_same_kind(mode_t mode, enum remora_kind kind)
{
    switch (mode & S_IFMT) {
    case S_IFIFO:
        return kind == REMORA_FIFO;
    case S_IFSOCK:
        return kind == REMORA_SOCKET;
    case S_IFCHR:
        return kind == REMORA_CHAR;
    case S_IFBLK:
        return kind == REMORA_BLOCK;
    default:
        return false;
    }
}

int cli_may_replace(const struct stat *there, enum remora_kind kind, const char *shown)
{
    const char *special = special_name(there->st_mode);
    if (S_ISDIR(there->st_mode) && kind != REMORA_DIRECTORY)
        return cli_fail(CLI_REFUSED, "%s is a directory here; it is never replaced by something else", shown);
    if (!S_ISDIR(there->st_mode) && kind == REMORA_DIRECTORY)
        return cli_fail(CLI_REFUSED, "%s is no directory here; it is never replaced by one", shown);
    if (special != NULL && !is_same_kind(there->st_mode, kind))
        return cli_fail(CLI_REFUSED, "%s is %s, which is never replaced; `-` writes to standard output",
                        shown, special);
    return 0;
}

int cli_rename(int dir, const char *temporary, const char *target, bool replace, const char *shown)
{
    int result = -1;
    errno = EINVAL;
    if (!replace)
        result = renameat2(dir, temporary, dir, target, RENAME_NOREPLACE);
    if (result != 0 && errno == EINVAL) /* a file system that cannot: it was looked at before, at least */
        result = renameat(dir, temporary, dir, target);
    if (result == 0)
        return 0;
    if (errno == EEXIST)
        return cli_fail(CLI_REFUSED, "%s came up meanwhile; --force replaces it", shown);
    return cli_fail(cli_exit_of_errno(errno), "%s: %s", shown, strerror(errno));
}

/* Files under a lock; what is made by one call needs none. */
int cli_restore_whole(struct cli_restore *restore, int dir, const char *target, const char *path,
                      const struct remora_entry *entry, bool replace, const char *shown)
{
    struct cli_temporary temporary = {.fd = -1};
    int code = 0;
    restore->skipped = false;
    if (entry->kind == REMORA_FILE) {
        code = cli_temporary_file(dir, target, shown, &temporary);
        if (code == 0)
            code = cli_restore_into(restore, temporary.fd, dir, temporary.name, path, entry, shown);
    } else {
        cli_temporary_name(target, temporary.name);
        (void)cli_remove_tree(dir, temporary.name); /* what stays makes the next line fail */
        code = cli_restore(restore, dir, temporary.name, path, entry, shown);
    }
    if (code == 0 && !restore->skipped) {
        code = cli_rename(dir, temporary.name, target, replace, shown);
        if (code != 0)
            unlinkat(dir, temporary.name, 0);
    }
    if (temporary.fd >= 0)
        close(temporary.fd);
    return code;
}
