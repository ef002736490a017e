#include "cli/restore.h"

#include "cli/copy.h"
#include "replica/contents_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PROC_TEXT 64
#define DAMAGED   (-1) /* no exit code: the bytes that the node gave are not those that the entry names */

void cli_restore_init(struct cli_restore *restore, struct cli *cli)
{
    *restore = (struct cli_restore){.cli = cli, .as_root = geteuid() == 0};
}

static int failed(const char *shown)
{
    int error = errno;
    return cli_fail(cli_exit_of_errno(error), "%s: %s", shown, strerror(error));
}

static mode_t file_type(enum remora_kind kind)
{
    switch (kind) {
    case REMORA_FIFO:
        return S_IFIFO;
    case REMORA_SOCKET:
        return S_IFSOCK;
    case REMORA_CHAR:
        return S_IFCHR;
    case REMORA_BLOCK:
        return S_IFBLK;
    default:
        return S_IFREG;
    }
}

/* Metadata. Owner first, because it clears set-id bits and capabilities; times last, because everything else
 * sets them. */

/* Without the owner, a set-id bit would lend somebody else's rights. */
static mode_t mode_to_set(const struct cli_restore *restore, const struct remora_entry *entry)
{
    mode_t mode = entry->mode & 07777;
    if (!restore->as_root && entry->uid != geteuid())
        mode &= ~(mode_t)06000;
    return mode;
}

static struct timespec time_of(const struct remora_entry *entry)
{
    struct timespec time = {.tv_sec = entry->mtime_ns / 1000000000, .tv_nsec = entry->mtime_ns % 1000000000};
    if (time.tv_nsec < 0) {
        time.tv_sec--;
        time.tv_nsec += 1000000000;
    }
    return time;
}

/* What a file system or a user without rights cannot keep is left out with one warning; a full disk is an
 * error. */
static int set_xattrs(struct cli_restore *restore, const char *path, const struct remora_entry *entry,
                      const char *shown)
{
    for (size_t i = 0; i < entry->xattrs_n; i++) {
        const struct remora_xattr *xattr = &entry->xattrs[i];
        if (lsetxattr(path, xattr->name, xattr->value, xattr->size, 0) == 0)
            continue;
        if (errno != ENOTSUP && errno != EPERM && errno != EACCES)
            return -1;
        if (!restore->warned)
            cli_warn("%s: the attribute %s is not kept: %s (said once)", shown, xattr->name, strerror(errno));
        restore->warned = true;
    }
    return 0;
}

/* Of anything but a directory, by its name; nothing is followed. */
static int set_metadata(struct cli_restore *restore, int dir, const char *name,
                        const struct remora_entry *entry, const char *shown)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(entry)};
    char path[PROC_TEXT + REPLICA_NAME_MAX + 2];
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir, name);
    if (restore->as_root && fchownat(dir, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) != 0)
        return failed(shown);
    /* The name is ours and fresh, so it is no link here, which fchmodat would follow. */
    if (entry->kind != REMORA_SYMLINK && fchmodat(dir, name, mode_to_set(restore, entry), 0) != 0)
        return failed(shown);
    if (set_xattrs(restore, path, entry, shown) != 0 || utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) != 0)
        return failed(shown);
    return 0;
}

/* The root of a volume is there without anybody having made it: it has no stamp. */
static bool is_unwritten(const struct remora_entry *entry)
{
    return strspn(entry->stamp, "0") == strlen(entry->stamp);
}

int cli_restore_directory(struct cli_restore *restore, int dir, const struct remora_entry *entry,
                          const char *shown)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(entry)};
    char path[PROC_TEXT];
    if (is_unwritten(entry)) /* the time at which it was made here says more than 1970 */
        times[1].tv_nsec = UTIME_OMIT;
    snprintf(path, sizeof path, "/proc/self/fd/%d/.", dir);
    if (restore->as_root && fchown(dir, entry->uid, entry->gid) != 0)
        return failed(shown);
    if (set_xattrs(restore, path, entry, shown) != 0)
        return failed(shown);
    if (fchmod(dir, mode_to_set(restore, entry)) != 0 || futimens(dir, times) != 0)
        return failed(shown);
    return 0;
}

/* Hard links to the node's files */

/* Whether the node's file may stand for the entry: it is as the entry says, or no other name shares it yet,
 * so that it can be made so. Never with rights that let others write into it, nor unreadable to its node. */
static bool may_share(const struct cli_restore *restore, int fd, const struct remora_entry *entry)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, time_of(entry)};
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink == 0 || entry->xattrs_n > 0 ||
        (uint64_t)info.st_size != entry->size || (entry->mode & 07022) != 0 || !(entry->mode & 0400))
        return false;
    if (restore->as_root && (info.st_uid != entry->uid || info.st_gid != entry->gid))
        return false;
    if ((info.st_mode & 07777) == entry->mode && info.st_mtim.tv_sec == times[1].tv_sec &&
        info.st_mtim.tv_nsec == times[1].tv_nsec)
        return true;
    return info.st_nlink == 1 && fchmod(fd, entry->mode) == 0 && futimens(fd, times) == 0;
}

/* True: name is the node's file. Another file system, or rights that the kernel wants for it, mean a copy. */
static bool share(const struct cli_restore *restore, int fd, int dir, const char *name,
                  const struct remora_entry *entry)
{
    char path[PROC_TEXT];
    if (!may_share(restore, fd, entry))
        return false;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW) == 0;
}

/* Files */

static int on_copied(void *context, uint64_t done)
{
    struct cli *cli = context;
    cli_progress_at(&cli->progress, done);
    return cli_interrupted();
}

/* The bytes at the node against what the entry names, beside or after the copy. Small ones came through the node's
 * own hands, and drafts are not named by their bytes. */
static bool is_to_be_checked(const struct remora_entry *entry)
{
    return entry->size > REPLICA_CONTENTS_PACKED_MAX && entry->content[0] != '\0';
}

static int copied(struct cli_restore *restore, int from, int to, const struct remora_entry *entry,
                  const char *shown)
{
    switch (cli_copy(from, to, entry->size, on_copied, restore->cli)) {
    case 0:
        return 0;
    case 1:
        return cli_fail(CLI_INTERRUPTED, "interrupted");
    default:
        return failed(shown);
    }
}

static int fill_file(struct cli_restore *restore, int from, int to, const struct remora_entry *entry,
                     const char *shown)
{
    bool cloned, checked = is_to_be_checked(entry);
    struct cli_check check;
    struct stat info;
    int code = 0, differs;
    if (fstat(from, &info) != 0)
        return failed(shown);
    if ((uint64_t)info.st_size != entry->size)
        return cli_fail(CLI_FAILED, "%s: the node gave %lld bytes, not %llu", shown, (long long)info.st_size,
                        (unsigned long long)entry->size);
    cloned = cli_clone(from, to);
    checked = checked && (!cloned || restore->verify);
    if (checked)
        cli_check_begin(&check, from, entry->size, entry->content);
    if (!cloned)
        code = copied(restore, from, to, entry, shown);
    differs = checked ? cli_check_end(&check) : 0;
    if (code == 0 && differs < 0)
        code = failed(shown);
    return code == 0 && differs > 0 ? DAMAGED : code;
}

/* Opens the bytes that the node holds: read-only, -1 for a file without any. */
static int open_bytes(struct cli_restore *restore, const char *path, const struct remora_entry *entry,
                      int *ret_fd)
{
    uint64_t size;
    int error;
    *ret_fd = -1;
    if (entry->size == 0)
        return 0;
    error = remora_open(restore->cli->remora, &restore->cli->view, path, ret_fd, &size);
    return error == 0 ? 0 : cli_fail_call(restore->cli, error, path);
}

/* Once more if the node's bytes were damaged: it is told to look, and gets them elsewhere if it finds them so. */
static int fill_again(struct cli_restore *restore, int *from, int to, const char *path,
                      const struct remora_entry *entry, const char *shown)
{
    int error = remora_verify(restore->cli->remora, &restore->cli->view, path, NULL), code;
    if (error != 0)
        return cli_fail_call(restore->cli, error, path);
    close(*from);
    code = open_bytes(restore, path, entry, from);
    if (code != 0)
        return code;
    code = ftruncate(to, 0) != 0 ? failed(shown) : fill_file(restore, *from, to, entry, shown);
    return code != DAMAGED
               ? code
               : cli_fail(
                     CLI_FAILED,
                     "%s: what was read is not what the volume names, though the node finds its copy well; "
                     "check this machine's memory and disk",
                     shown);
}

/* *from may be opened anew. */
static int make_file(struct cli_restore *restore, int *from, int to, int dir, const char *name,
                     const char *path, const struct remora_entry *entry, const char *shown)
{
    int code = *from >= 0 ? fill_file(restore, *from, to, entry, shown) : 0;
    if (code == DAMAGED)
        code = fill_again(restore, from, to, path, entry, shown);
    if (code == 0)
        code = set_metadata(restore, dir, name, entry, shown);
    if (code != 0)
        unlinkat(dir, name, 0);
    return code;
}

int cli_restore_into(struct cli_restore *restore, int to, int dir, const char *name, const char *path,
                     const struct remora_entry *entry, const char *shown)
{
    int from, code = open_bytes(restore, path, entry, &from);
    if (code != 0) {
        unlinkat(dir, name, 0);
        return code;
    }
    code = make_file(restore, &from, to, dir, name, path, entry, shown);
    if (from >= 0)
        close(from);
    return code;
}

static int create_file(struct cli_restore *restore, int *from, int dir, const char *name, const char *path,
                       const struct remora_entry *entry, const char *shown)
{
    int to = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), code;
    if (to < 0)
        return failed(shown);
    code = make_file(restore, from, to, dir, name, path, entry, shown);
    if (close(to) != 0 && code == 0) { /* where it is written only then */
        code = failed(shown);
        unlinkat(dir, name, 0);
    }
    return code;
}

static int restore_file(struct cli_restore *restore, int dir, const char *name, const char *path,
                        const struct remora_entry *entry, const char *shown)
{
    int from, code = open_bytes(restore, path, entry, &from);
    if (code != 0)
        return code;
    if (from < 0 || !restore->hardlink || !share(restore, from, dir, name, entry))
        code = create_file(restore, &from, dir, name, path, entry, shown);
    if (from >= 0)
        close(from);
    return code;
}

int cli_restore(struct cli_restore *restore, int dir, const char *name, const char *path,
                const struct remora_entry *entry, const char *shown)
{
    int made, code;
    restore->skipped = false;
    if (entry->kind == REMORA_FILE)
        return restore_file(restore, dir, name, path, entry, shown);
    if (entry->kind == REMORA_SYMLINK)
        made = symlinkat(entry->target != NULL ? entry->target : "", dir, name);
    else
        made = mknodat(dir, name, file_type(entry->kind) | 0600, makedev(entry->major, entry->minor));
    if (made != 0 && errno == EPERM && (entry->kind == REMORA_CHAR || entry->kind == REMORA_BLOCK)) {
        restore->skipped = true;
        cli_warn("%s: left out: only root may make a device", shown);
        return 0;
    }
    if (made != 0)
        return failed(shown);
    code = set_metadata(restore, dir, name, entry, shown);
    if (code != 0)
        unlinkat(dir, name, 0);
    return code;
}

/* Removing */

static int remove_children(int dir)
{
    DIR *listing = fdopendir(dir); /* takes dir */
    struct dirent *found;
    int result = 0;
    if (listing == NULL) {
        close(dir);
        return -1;
    }
    (void)fchmod(dirfd(listing), 0700); /* a directory may forbid even its owner to remove from it */
    while ((found = readdir(listing)) != NULL)
        if (strcmp(found->d_name, ".") != 0 && strcmp(found->d_name, "..") != 0 &&
            cli_remove_tree(dirfd(listing), found->d_name) != 0)
            result = -1;
    closedir(listing);
    return result;
}

int cli_remove_tree(int dir, const char *name)
{
    int child;
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM) /* EPERM is POSIX's word for a directory */
        return -1;
    child = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0 && errno == EACCES && fchmodat(dir, name, 0700, 0) == 0)
        child = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0)
        return -1;
    (void)remove_children(child); /* what stays makes the next line fail */
    return unlinkat(dir, name, AT_REMOVEDIR);
}
