/* Drafts of earlier lives: kept if a view still names them, swept if not. */
#include "contents/contents_files.h"

#include "replica/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct keeping {
    struct files *files;
    const uint64_t *named; /* NULL: all are */
    size_t n;
    uint64_t last;
};

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int sync_one(struct files *files, const char *name)
{
    int fd = openat(files->draft, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rv = 0;
    if (fd < 0 || fsync(fd) != 0)
        rv = files_errno();
    if (fd >= 0)
        close(fd);
    return rv;
}

static int keep_one(struct keeping *keeping, const char *name)
{
    struct files *files = keeping->files;
    char again[FILES_NAME_MAX];
    uint64_t number = strtoull(name, NULL, 10);
    bool ours;
    snprintf(again, sizeof again, "%llu", (unsigned long long)number);
    ours = strcmp(name, again) == 0;
    if (ours && number > keeping->last)
        keeping->last = number;
    if (keeping->named == NULL ||
        (ours && bsearch(&number, keeping->named, keeping->n, sizeof number, compare) != NULL))
        return sync_one(files, name);
    return unlinkat(files->draft, name, 0) == 0 || errno == EISDIR ? 0 : files_errno();
}

static int keep_all(struct keeping *keeping)
{
    struct files *files = keeping->files;
    int copy = openat(files->draft, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rv = 0;
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    if (stream == NULL) {
        rv = files_errno();
        if (copy >= 0)
            close(copy);
        return rv;
    }
    while (rv == 0 && (entry = readdir(stream)) != NULL)
        if (entry->d_name[0] != '.')
            rv = keep_one(keeping, entry->d_name);
    closedir(stream);
    if (rv == 0 && fsync(files->draft) != 0)
        rv = files_errno();
    return rv;
}

int replica_contents_files_draft_keep(struct replica_contents *contents, const uint64_t *named, size_t n,
                                      uint64_t *ret_last)
{
    static const uint64_t NONE = 0;
    struct files *files = (struct files *)contents;
    struct keeping keeping = {.files = files, .named = named != NULL ? named : &NONE, .n = n};
    int rv = keep_all(&keeping);
    if (rv != 0)
        return rv;
    pthread_mutex_lock(&files->lock);
    if (files->next_draft < keeping.last)
        files->next_draft = keeping.last;
    *ret_last = files->next_draft;
    pthread_mutex_unlock(&files->lock);
    return 0;
}

int replica_contents_files_draft_sync(struct replica_contents *contents)
{
    struct keeping keeping = {.files = (struct files *)contents};
    return keep_all(&keeping);
}

int replica_contents_files_draft_set_aside(struct replica_contents *contents, uint64_t number)
{
    struct files *files = (struct files *)contents;
    char name[FILES_NAME_MAX], aside[FILES_NAME_MAX];
    snprintf(name, sizeof name, "%llu", (unsigned long long)number);
    snprintf(aside, sizeof aside, "draft-%llu", (unsigned long long)number);
    if (renameat(files->draft, name, files->quarantine, aside) != 0)
        return errno == ENOENT ? REPLICA_E_NOTFOUND : files_errno();
    return 0;
}
