#include "replica/kv_leveldb.h"

#include "replica/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <leveldb/c.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOGS_MAX 16 /* log files that exist at once: the current one and those being compacted */
/* What it says of a table that was cut to nothing: mmap does not like it. */
#define EMPTY_TABLE ".ldb: Invalid argument"
#define BLOOM_BITS  10 /* per key: about 1 % false positives */

struct log_file {
    unsigned long number;
    int fd;
};

struct level {
    struct replica_kv base;
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_readoptions_t *read_options;
    leveldb_writeoptions_t *write_options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter;
    char *path;
    int directory;
    pthread_mutex_t sync_lock; /* the log files below */
    struct log_file logs[LOGS_MAX];
    size_t logs_n;
    atomic_int failed;   /* the code of the first failure; 0: none */
    atomic_bool damaged; /* something read was not what was written */
};

struct cursor {
    struct replica_kv_cursor base;
    leveldb_iterator_t *iterator;
};

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t text_n = strlen(text), end_n = strlen(end);
    return text_n >= end_n && strcmp(text + text_n - end_n, end) == 0;
}

/* The one place where LevelDB's strings become codes; frees the string. Only what LevelDB itself says counts:
 * paths stand in the middle. */
static int convert_error(char *message)
{
    int code = REPLICA_E_IO;
    if (message == NULL)
        return 0;
    if (starts_with(message, "Corruption: ") || starts_with(message, "NotFound: ") ||
        ends_with(message, strerror(ENOENT)) || ends_with(message, EMPTY_TABLE))
        code = REPLICA_E_CORRUPT; /* a file that others name is gone, or not what was written */
    else if (starts_with(message, "IO error: lock "))
        code = REPLICA_E_BUSY;
    else if (ends_with(message, strerror(ENOSPC)) || ends_with(message, strerror(EDQUOT)))
        code = REPLICA_E_NOSPACE;
    leveldb_free(message);
    return code;
}

static int errno_code(void)
{
    return errno == ENOSPC || errno == EDQUOT ? REPLICA_E_NOSPACE : REPLICA_E_IO;
}

/* The first failure is the cause of all that follow. */
static int remember_failure(struct level *level, int code)
{
    int none = 0;
    if (code != 0)
        atomic_compare_exchange_strong(&level->failed, &none, code);
    return code;
}

static int remember_damage(struct level *level, int code)
{
    if (code == REPLICA_E_CORRUPT)
        atomic_store(&level->damaged, true);
    return code;
}

static int level_get(struct replica_kv *kv, const void *key, size_t key_n, struct replica_buffer *ret_value)
{
    struct level *level = (struct level *)kv;
    char *message = NULL;
    size_t n;
    char *value = leveldb_get(level->db, level->read_options, key, key_n, &n, &message);
    int rv = remember_damage(level, convert_error(message));
    if (rv == 0 && value == NULL)
        return REPLICA_E_NOTFOUND;
    if (rv == 0)
        rv = replica_buffer_append(ret_value, value, n);
    leveldb_free(value);
    return rv;
}

static int add_operation(void *context, const uint8_t *key, size_t key_n, const uint8_t *value, size_t n)
{
    if (value != NULL)
        leveldb_writebatch_put(context, (const char *)key, key_n, (const char *)value, n);
    else
        leveldb_writebatch_delete(context, (const char *)key, key_n);
    return 0;
}

static int level_write(struct replica_kv *kv, const struct replica_kv_batch *batch)
{
    struct level *level = (struct level *)kv;
    leveldb_writebatch_t *operations;
    char *message = NULL;
    int rv;
    rv = atomic_load(&level->failed);
    if (rv != 0)
        return rv;
    operations = leveldb_writebatch_create();
    replica_kv_batch_each(batch, add_operation, operations);
    leveldb_write(level->db, level->write_options, operations, &message);
    leveldb_writebatch_destroy(operations);
    return remember_failure(level, remember_damage(level, convert_error(message)));
}

static struct log_file *find_log(struct level *level, unsigned long number)
{
    for (size_t i = 0; i < level->logs_n; i++)
        if (level->logs[i].number == number)
            return &level->logs[i];
    return NULL;
}

/* Opens a log file that is new to us; *ret_new tells that its directory entry needs a sync too. A file that
 * has gone meanwhile has its data in a synced table. */
static int open_log(struct level *level, const char *name, unsigned long number, bool *ret_new)
{
    int fd;
    if (find_log(level, number) != NULL)
        return 0;
    if (level->logs_n == LOGS_MAX)
        return REPLICA_E_IO;
    fd = openat(level->directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : REPLICA_E_IO;
    level->logs[level->logs_n++] = (struct log_file){.number = number, .fd = fd};
    *ret_new = true;
    return 0;
}

static int open_logs(struct level *level, bool *ret_new)
{
    int copy = openat(level->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rv = 0;
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    if (stream == NULL) {
        if (copy >= 0)
            close(copy);
        return REPLICA_E_IO;
    }
    while (rv == 0 && (entry = readdir(stream)) != NULL) {
        char *end;
        unsigned long number = strtoul(entry->d_name, &end, 10);
        if (end != entry->d_name && strcmp(end, ".log") == 0)
            rv = open_log(level, entry->d_name, number, ret_new);
    }
    closedir(stream);
    return rv;
}

static int sync_logs(struct level *level)
{
    int rv = 0;
    for (size_t i = level->logs_n; i > 0; i--) {
        struct stat status;
        struct log_file *log = &level->logs[i - 1];
        if (fdatasync(log->fd) != 0)
            rv = errno_code();
        if (fstat(log->fd, &status) == 0 && status.st_nlink == 0) { /* compacted away */
            close(log->fd);
            *log = level->logs[--level->logs_n];
        }
    }
    return rv;
}

static int level_sync(struct replica_kv *kv)
{
    struct level *level = (struct level *)kv;
    bool new_log = false;
    int rv;
    rv = atomic_load(&level->failed);
    if (rv != 0)
        return rv;
    pthread_mutex_lock(&level->sync_lock);
    rv = open_logs(level, &new_log);
    if (rv == 0)
        rv = sync_logs(level);
    if (rv == 0 && new_log && fsync(level->directory) != 0)
        rv = errno_code();
    pthread_mutex_unlock(&level->sync_lock);
    return remember_failure(level, rv);
}

static int level_cursor_open(struct replica_kv *kv, struct replica_kv_cursor **ret_cursor)
{
    struct level *level = (struct level *)kv;
    struct cursor *cursor = calloc(1, sizeof *cursor);
    if (cursor == NULL)
        return REPLICA_E_NOMEM;
    cursor->base.kv = kv;
    cursor->iterator = leveldb_create_iterator(level->db, level->read_options);
    *ret_cursor = &cursor->base;
    return 0;
}

static void level_cursor_seek(struct replica_kv_cursor *cursor, const void *key, size_t key_n)
{
    leveldb_iter_seek(((struct cursor *)cursor)->iterator, key, key_n);
}

static void level_cursor_next(struct replica_kv_cursor *cursor)
{
    leveldb_iter_next(((struct cursor *)cursor)->iterator);
}

static bool level_cursor_valid(const struct replica_kv_cursor *cursor)
{
    return leveldb_iter_valid(((const struct cursor *)cursor)->iterator);
}

static void level_cursor_key(const struct replica_kv_cursor *cursor, const uint8_t **ret_key, size_t *ret_n)
{
    *ret_key = (const uint8_t *)leveldb_iter_key(((const struct cursor *)cursor)->iterator, ret_n);
}

static void level_cursor_value(const struct replica_kv_cursor *cursor, const uint8_t **ret_value,
                               size_t *ret_n)
{
    *ret_value = (const uint8_t *)leveldb_iter_value(((const struct cursor *)cursor)->iterator, ret_n);
}

static int level_cursor_close(struct replica_kv_cursor *base)
{
    struct cursor *cursor = (struct cursor *)base;
    struct level *level = (struct level *)base->kv;
    char *message = NULL;
    leveldb_iter_get_error(cursor->iterator, &message);
    leveldb_iter_destroy(cursor->iterator);
    free(cursor);
    return remember_damage(level, convert_error(message));
}

static void level_destroy(struct replica_kv *kv)
{
    struct level *level = (struct level *)kv;
    if (level->db != NULL)
        leveldb_close(level->db);
    for (size_t i = 0; i < level->logs_n; i++)
        close(level->logs[i].fd);
    if (level->directory >= 0)
        close(level->directory);
    if (level->options != NULL)
        leveldb_options_destroy(level->options);
    if (level->read_options != NULL)
        leveldb_readoptions_destroy(level->read_options);
    if (level->write_options != NULL)
        leveldb_writeoptions_destroy(level->write_options);
    if (level->cache != NULL)
        leveldb_cache_destroy(level->cache);
    if (level->filter != NULL)
        leveldb_filterpolicy_destroy(level->filter);
    pthread_mutex_destroy(&level->sync_lock);
    free(level->path);
    free(level);
}

static const struct replica_kv_ops level_ops = {
    .get = level_get,
    .write = level_write,
    .sync = level_sync,
    .cursor_open = level_cursor_open,
    .cursor_seek = level_cursor_seek,
    .cursor_next = level_cursor_next,
    .cursor_valid = level_cursor_valid,
    .cursor_key = level_cursor_key,
    .cursor_value = level_cursor_value,
    .cursor_close = level_cursor_close,
    .destroy = level_destroy,
};

static void set_options(struct level *level, const struct replica_kv_leveldb_options *options)
{
    level->options = leveldb_options_create();
    level->read_options = leveldb_readoptions_create();
    level->write_options = leveldb_writeoptions_create();
    level->cache = leveldb_cache_create_lru(options->cache_size);
    level->filter = leveldb_filterpolicy_create_bloom(BLOOM_BITS);
    leveldb_options_set_create_if_missing(level->options, 1);
    leveldb_options_set_paranoid_checks(level->options, 1);
    leveldb_options_set_write_buffer_size(level->options, options->write_buffer_size);
    leveldb_options_set_max_open_files(level->options, options->open_files_max);
    leveldb_options_set_cache(level->options, level->cache);
    leveldb_options_set_filter_policy(level->options, level->filter);
    leveldb_readoptions_set_verify_checksums(level->read_options, 1);
    leveldb_writeoptions_set_sync(level->write_options, 0);
}

static void explain(int code, const char *path, char **ret_message)
{
    const char *what = code == REPLICA_E_BUSY
                           ? "is in use by another process; stop that node or choose another --data"
                       : code == REPLICA_E_CORRUPT ? "is damaged; see docs/operations.md, \"A damaged store\""
                       : code == REPLICA_E_NOSPACE ? "cannot be opened: no space left on the device"
                                                   : "cannot be opened";
    if (ret_message != NULL && asprintf(ret_message, "the database %s %s", path, what) < 0)
        *ret_message = NULL;
}

int replica_kv_leveldb_open(const struct replica_kv_leveldb_options *options, struct replica_kv **ret_kv,
                            char **ret_message)
{
    struct level *level = calloc(1, sizeof *level);
    char *message = NULL;
    int rv;
    if (level == NULL)
        return REPLICA_E_NOMEM;
    level->base.ops = &level_ops;
    level->directory = -1;
    pthread_mutex_init(&level->sync_lock, NULL);
    level->path = strdup(options->path);
    set_options(level, options);
    level->db = leveldb_open(level->options, options->path, &message);
    rv = convert_error(message);
    if (rv == 0) {
        level->directory = open(options->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (level->directory < 0)
            rv = REPLICA_E_IO;
    }
    if (rv != 0) {
        explain(rv, options->path, ret_message);
        level_destroy(&level->base);
        return rv;
    }
    *ret_kv = &level->base;
    return 0;
}

bool replica_kv_leveldb_is_damaged(const struct replica_kv *kv)
{
    return atomic_load(&((const struct level *)kv)->damaged);
}
