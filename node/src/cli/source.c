#include "cli/source.h"

#include "cli/format.h"
#include "cli/paths.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <linux/limits.h>

#define XATTR_VALUE_MAX XATTR_SIZE_MAX
#define XATTRS_MAX      128 /* of one file; a node takes 64 and refuses more by name */

static int failed(const char *path)
{
    int error = errno;
    int code = error == ENOENT ? CLI_BUSY : CLI_FAILED; /* it was there a moment ago */
    return cli_fail(code, "%s: %s%s", path, strerror(error),
                    error == ENOENT ? " (it changed while it was being read)" : "");
}

/* Scanning */

static int add(struct cli_source *source, const char *path, struct cli_source_item **ret_item)
{
    if (source->n == CLI_SOURCE_ITEMS_MAX)
        return cli_fail(CLI_NO_SPACE, "%s has more than %zu entries; put it in parts", source->root,
                        CLI_SOURCE_ITEMS_MAX);
    if (source->n == source->capacity) {
        size_t capacity = source->capacity == 0 ? 256 : 2 * source->capacity;
        void *grown = realloc(source->items, capacity * sizeof source->items[0]);
        if (grown == NULL)
            return cli_no_memory();
        source->items = grown;
        source->capacity = capacity;
    }
    source->items[source->n] = (struct cli_source_item){.path = strdup(path)};
    if (source->items[source->n].path == NULL)
        return cli_no_memory();
    *ret_item = &source->items[source->n++];
    return 0;
}

int cli_source_path(const struct cli_source *source, const struct cli_source_item *item, char *ret_path,
                    size_t size)
{
    const char *gap = item->path[0] == '\0' || strcmp(source->root, "/") == 0 ? "" : "/";
    int n = snprintf(ret_path, size, "%s%s%s", source->root, gap, item->path);
    if (n >= 0 && (size_t)n < size)
        return 0;
    return cli_fail(CLI_FAILED, "%s/%s: longer than a path may be; put it in parts", source->root,
                    item->path);
}

/* Another name of an inode met before is a link; only the first one's bytes count. */
static int note_inode(struct cli_source *source, struct cli_source_item *item, const struct stat *info)
{
    uint64_t id[2] = {info->st_dev, info->st_ino};
    const char *first = NULL;
    int code = 0;
    if (info->st_nlink > 1 && !S_ISDIR(info->st_mode))
        code = cli_ids_first(&source->inodes, (const uint8_t *)id, item->path, &first);
    if (code != 0)
        return code;
    if (first != NULL) {
        item->link = strdup(first);
        return item->link == NULL ? cli_no_memory() : 0;
    }
    if (S_ISDIR(info->st_mode))
        source->count.directories++;
    else
        cli_count_file(&source->count, S_ISREG(info->st_mode) ? (uint64_t)info->st_size : 0);
    return 0;
}

static int look(struct cli_source *source, struct cli_source_item *item)
{
    char path[PATH_MAX];
    struct stat info;
    int code = cli_source_path(source, item, path, sizeof path);
    if (code != 0)
        return code;
    if (lstat(path, &info) != 0)
        return failed(path);
    item->mode = info.st_mode;
    item->size = S_ISREG(info.st_mode) ? (uint64_t)info.st_size : 0;
    return note_inode(source, item, &info);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_child(struct cli_source *source, const char *parent, const char *name)
{
    char path[PATH_MAX];
    struct cli_source_item *item;
    int code;
    if (cli_join(parent, name, path, sizeof path) != 0 || strlen(path) > REPLICA_PATH_MAX)
        return cli_fail(CLI_REFUSED, "%s/%s/%s: longer than a path of a volume may be", source->root, parent,
                        name);
    code = add(source, path, &item);
    return code == 0 ? look(source, item) : code;
}

/* Sorted names of a directory, without "." and ".."; malloc'ed. -1: errno. */
static int read_names(const char *path, char ***ret_names, size_t *ret_n)
{
    DIR *dir = opendir(path);
    struct dirent *found;
    char **names = NULL;
    size_t n = 0, capacity = 0;
    if (dir == NULL)
        return -1;
    while (errno = 0, (found = readdir(dir)) != NULL) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (n == capacity) {
            void *grown = realloc(names, (capacity = capacity == 0 ? 64 : 2 * capacity) * sizeof names[0]);
            if (grown == NULL)
                break;
            names = grown;
        }
        if ((names[n] = strdup(found->d_name)) == NULL)
            break;
        n++;
    }
    *ret_names = names;
    *ret_n = n;
    n = (size_t)errno; /* of readdir, or of what ended the loop */
    closedir(dir);
    errno = (int)n;
    return errno == 0 ? 0 : -1;
}

static int scan_directory(struct cli_source *source, size_t at)
{
    char path[PATH_MAX], **names = NULL, *parent = source->items[at].path;
    size_t n = 0;
    int code = cli_source_path(source, &source->items[at], path, sizeof path);
    if (code == 0 && read_names(path, &names, &n) != 0)
        code = failed(path);
    if (code == 0 && n > 0)
        qsort(names, n, sizeof names[0], compare);
    source->items[at].first = source->n;
    for (size_t i = 0; i < n; i++) {
        if (code == 0 && cli_interrupted())
            code = cli_fail(CLI_INTERRUPTED, "interrupted");
        if (code == 0)
            code = add_child(source, parent, names[i]);
        free(names[i]);
    }
    free(names);
    source->items[at].children_n = source->n - source->items[at].first;
    return code;
}

int cli_source_scan(const char *local, struct cli_source *ret_source)
{
    struct cli_source_item *item;
    int code;
    *ret_source = (struct cli_source){.root = realpath(local, NULL)};
    if (ret_source->root == NULL)
        return cli_fail(CLI_FAILED, "%s: %s", local, strerror(errno));
    code = add(ret_source, "", &item);
    if (code == 0)
        code = look(ret_source, item);
    for (size_t i = 0; code == 0 && i < ret_source->n; i++)
        if (S_ISDIR(ret_source->items[i].mode))
            code = scan_directory(ret_source, i);
    return code;
}

void cli_source_close(struct cli_source *source)
{
    for (size_t i = 0; i < source->n; i++) {
        free(source->items[i].path);
        free(source->items[i].link);
    }
    free(source->items);
    free(source->root);
    cli_ids_close(&source->inodes);
    *source = (struct cli_source){0};
}

/* Entries */

static enum remora_kind kind_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return REMORA_DIRECTORY;
    case S_IFLNK:
        return REMORA_SYMLINK;
    case S_IFIFO:
        return REMORA_FIFO;
    case S_IFSOCK:
        return REMORA_SOCKET;
    case S_IFCHR:
        return REMORA_CHAR;
    case S_IFBLK:
        return REMORA_BLOCK;
    default:
        return REMORA_FILE;
    }
}

/* What belongs to the file and means the same elsewhere: not the labels of this host's security policy, not
 * overlayfs's notes. */
static bool is_carried(const char *name)
{
    return strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0 ||
           strncmp(name, "system.posix_acl_", 17) == 0 ||
           (strncmp(name, "trusted.", 8) == 0 && strncmp(name, "trusted.overlay.", 16) != 0);
}

static int add_xattr(struct remora_entry *entry, const char *path, const char *name)
{
    struct remora_xattr *xattr = &entry->xattrs[entry->xattrs_n];
    uint8_t *value = malloc(XATTR_VALUE_MAX);
    ssize_t size = value == NULL ? -1 : lgetxattr(path, name, value, XATTR_VALUE_MAX);
    if (size < 0) {
        free(value);
        return errno == ENODATA ? 0 : -1; /* removed meanwhile */
    }
    xattr->name = strdup(name);
    xattr->value = size > 0 ? realloc(value, (size_t)size) : value;
    xattr->size = (size_t)size;
    if (xattr->value == NULL)
        xattr->value = value;
    entry->xattrs_n++; /* freed with the entry from here on */
    return xattr->name == NULL ? -1 : 0;
}

static int read_xattrs(const char *path, struct remora_entry *entry)
{
    char list[XATTR_LIST_MAX];
    ssize_t size = llistxattr(path, list, sizeof list);
    if (size <= 0)
        return size == 0 || errno == ENOTSUP ? 0 : -1;
    for (const char *name = list; name < list + size; name += strlen(name) + 1) {
        if (!is_carried(name))
            continue;
        if (entry->xattrs == NULL && (entry->xattrs = calloc(XATTRS_MAX, sizeof entry->xattrs[0])) == NULL)
            return -1;
        errno = E2BIG;
        if (entry->xattrs_n == XATTRS_MAX || add_xattr(entry, path, name) != 0)
            return -1;
    }
    return 0;
}

static int read_target(const char *path, struct remora_entry *entry)
{
    char target[PATH_MAX + 1];
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n < 0)
        return -1;
    entry->target = strndup(target, (size_t)n);
    return entry->target == NULL ? -1 : 0;
}

int cli_source_entry(const struct cli_source *source, const struct cli_source_item *item, char *remote,
                     struct remora_entry *ret_entry, struct stat *ret_info)
{
    char path[PATH_MAX];
    int code = cli_source_path(source, item, path, sizeof path);
    *ret_entry = (struct remora_entry){.path = remote, .fd = -1};
    if (code != 0)
        return code;
    if (lstat(path, ret_info) != 0)
        return failed(path);
    if ((ret_info->st_mode & S_IFMT) != (item->mode & S_IFMT))
        return cli_fail(CLI_BUSY, "%s: it changed while it was being read", path);
    ret_entry->kind = kind_of(ret_info->st_mode);
    ret_entry->mode = ret_info->st_mode & 07777;
    ret_entry->uid = ret_info->st_uid;
    ret_entry->gid = ret_info->st_gid;
    ret_entry->mtime_ns = cli_nanoseconds(&ret_info->st_mtim);
    ret_entry->size = ret_entry->kind == REMORA_FILE ? (uint64_t)ret_info->st_size : 0;
    if (ret_entry->kind == REMORA_CHAR || ret_entry->kind == REMORA_BLOCK) {
        ret_entry->major = major(ret_info->st_rdev);
        ret_entry->minor = minor(ret_info->st_rdev);
    }
    if ((ret_entry->kind == REMORA_SYMLINK && read_target(path, ret_entry) != 0) ||
        read_xattrs(path, ret_entry) != 0)
        return failed(path);
    return 0;
}

void cli_source_entry_free(struct remora_entry *entry)
{
    entry->path = NULL; /* borrowed */
    remora_entry_free(entry);
}

bool cli_source_changed(const struct stat *before, const struct stat *after)
{
    return before->st_ino != after->st_ino || before->st_dev != after->st_dev ||
           before->st_size != after->st_size || before->st_mtim.tv_sec != after->st_mtim.tv_sec ||
           before->st_mtim.tv_nsec != after->st_mtim.tv_nsec ||
           before->st_ctim.tv_sec != after->st_ctim.tv_sec ||
           before->st_ctim.tv_nsec != after->st_ctim.tv_nsec;
}
