/* Whether a tree is in use, without any privilege. Two looks:
 *   - a write lease on a file is granted only if nobody else has that file open, on the whole machine,
 * whatever container he is in;
 *   - /proc tells of directories that processes work in or have open, as far as this user and this container
 * may see. Both may miss somebody; then he keeps what he has open, because removing a name does not take a
 * file away from who has it open. */
#include "cli/generation.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file with another name elsewhere (in a newer generation, in the node's cache) stays whatever happens
 * here. */
static bool file_in_use(int dir, const char *name)
{
    struct stat info;
    bool used = false;
    int fd;
    if (fstatat(dir, name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode) || info.st_nlink > 1)
        return false;
    fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    if (fcntl(fd, F_SETLEASE, F_WRLCK) == 0)
        (void)fcntl(fd, F_SETLEASE, F_UNLCK);
    else
        used = errno == EAGAIN || errno == EBUSY;
    close(fd);
    return used;
}

static bool files_in_use(int dir);

static bool child_in_use(int dir, const struct dirent *child)
{
    int fd;
    if (strcmp(child->d_name, ".") == 0 || strcmp(child->d_name, "..") == 0)
        return false;
    if (child->d_type == DT_REG)
        return file_in_use(dir, child->d_name);
    if (child->d_type != DT_DIR && child->d_type != DT_UNKNOWN)
        return false;
    fd = openat(dir, child->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 ? files_in_use(fd) : file_in_use(dir, child->d_name);
}

/* Takes dir. */
static bool files_in_use(int dir)
{
    DIR *listing = fdopendir(dir);
    struct dirent *child;
    bool used = false;
    if (listing == NULL) {
        close(dir);
        return false;
    }
    while (!used && (child = readdir(listing)) != NULL)
        used = child_in_use(dirfd(listing), child);
    closedir(listing);
    return used;
}

/* Directories, by /proc */

static bool leads_into(int dir, const char *link, const char *tree, size_t n)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(dir, link, target, sizeof target - 1);
    if (size < (ssize_t)n)
        return false;
    target[size] = '\0';
    return strncmp(target, tree, n) == 0 && (target[n] == '/' || target[n] == '\0');
}

static bool has_open(int process, const char *tree, size_t n)
{
    int fds = openat(process, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fds < 0 ? NULL : fdopendir(fds);
    struct dirent *fd;
    bool used = false;
    if (listing == NULL) {
        if (fds >= 0)
            close(fds);
        return false;
    }
    while (!used && (fd = readdir(listing)) != NULL)
        used = leads_into(dirfd(listing), fd->d_name, tree, n);
    closedir(listing);
    return used;
}

static bool process_uses(int proc, const char *pid, const char *tree, size_t n)
{
    int process = openat(proc, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool used;
    if (process < 0)
        return false;
    used = leads_into(process, "cwd", tree, n) || leads_into(process, "root", tree, n) ||
           has_open(process, tree, n);
    close(process);
    return used;
}

static bool processes_use(const char *tree)
{
    DIR *proc = opendir("/proc");
    size_t n = strlen(tree);
    struct dirent *process;
    bool used = false;
    if (proc == NULL)
        return false;
    while (!used && (process = readdir(proc)) != NULL)
        if (isdigit((unsigned char)process->d_name[0]) && (pid_t)atoi(process->d_name) != getpid())
            used = process_uses(dirfd(proc), process->d_name, tree, n);
    closedir(proc);
    return used;
}

bool cli_tree_in_use(int home, const char *name)
{
    char link[64], tree[PATH_MAX];
    int dir = openat(home, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n;
    if (dir < 0)
        return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    n = readlink(link, tree, sizeof tree - 1);
    if (n > 0) {
        tree[n] = '\0';
        if (processes_use(tree)) {
            close(dir);
            return true;
        }
    }
    return files_in_use(dir);
}
