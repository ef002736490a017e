/* kv: one conformance test for both back ends, then what each one adds: the crash model of memory, the sync
 * of LevelDB.
 *
 * fdatasync, fsync and unlink are ours here, for LevelDB's library too: they remember how much of each file
 * was made durable, so that a loss of power can be played through by keeping exactly that. */
#include "replica/kv.h"
#include "replica/kv_leveldb.h"
#include "replica/kv_memory.h"
#include "replica_support.h"
#include "scratch_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Durable sizes by inode */

#define FILES_MAX 4096
static pthread_mutex_t durable_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    ino_t inode;
    off_t size;
} durable[FILES_MAX];
static size_t durable_n;
static atomic_int sync_failure; /* an errno for the next fdatasync of a log */

static off_t durable_size(ino_t inode)
{
    for (size_t i = 0; i < durable_n; i++)
        if (durable[i].inode == inode)
            return durable[i].size;
    return 0;
}

/* Lock held: a file must not lose its name between a sync and its being remembered. */
static void remember(const struct stat *status)
{
    size_t i = 0;
    while (i < durable_n && durable[i].inode != status->st_ino)
        i++;
    if (i == durable_n)
        durable_n++;
    if (i < FILES_MAX) {
        durable[i].inode = status->st_ino;
        /* a file without a name: its inode is about to be another's */
        durable[i].size = status->st_nlink == 0 ? 0 : status->st_size;
    }
}

static int sync_and_remember(int fd, long call)
{
    struct stat status;
    int rv;
    pthread_mutex_lock(&durable_lock);
    rv = fstat(fd, &status) != 0 ? -1 : (int)syscall(call, fd);
    if (rv == 0)
        remember(&status);
    pthread_mutex_unlock(&durable_lock);
    return rv;
}

int fdatasync(int fd)
{
    if (sync_failure != 0) {
        errno = sync_failure;
        return -1;
    }
    return sync_and_remember(fd, SYS_fdatasync);
}

int fsync(int fd)
{
    return sync_and_remember(fd, SYS_fsync);
}

/* An inode may be given to another file at once. */
int unlink(const char *path)
{
    struct stat status;
    int rv;
    pthread_mutex_lock(&durable_lock);
    if (stat(path, &status) == 0) {
        status.st_size = 0;
        remember(&status);
    }
    rv = unlinkat(AT_FDCWD, path, 0);
    pthread_mutex_unlock(&durable_lock);
    return rv;
}

/* What a loss of power leaves of a directory of files, as a new directory. */
static void lose_power(const char *from, char ret_to[64])
{
    static uint8_t bytes[8 << 20];
    struct stat kept[256];
    size_t kept_n = 0;
    DIR *stream = opendir(from);
    struct dirent *entry;
    int to_directory, from_directory = open(from, O_RDONLY | O_DIRECTORY);
    scratch_make(ret_to);
    to_directory = open(ret_to, O_RDONLY | O_DIRECTORY);
    assert_true(stream != NULL && from_directory >= 0 && to_directory >= 0);
    while ((entry = readdir(stream)) != NULL) {
        struct stat status;
        ssize_t n;
        int in, out;
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "LOCK") == 0)
            continue;
        in = openat(from_directory, entry->d_name, O_RDONLY);
        assert_true(in >= 0 && fstat(in, &status) == 0);
        out = openat(to_directory, entry->d_name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_true(out >= 0 && durable_size(status.st_ino) <= (off_t)sizeof bytes);
        n = read(in, bytes, (size_t)durable_size(status.st_ino));
        assert_true(n >= 0 && write(out, bytes, (size_t)n) == n && kept_n < 256);
        assert_int_equal(fstat(out, &kept[kept_n++]), 0);
        close(in);
        close(out);
    }
    closedir(stream);
    close(from_directory);
    close(to_directory);
    durable_n = 0; /* the disk of the next life holds just this */
    for (size_t i = 0; i < kept_n; i++)
        remember(&kept[i]);
}

/* The fixture */

struct fixture {
    bool leveldb;
    struct replica_kv *kv;
    struct replica_kv_batch batch;
    struct replica_buffer value;
    char path[64];
};

static int open_level(const char *path, struct replica_kv **ret_kv, char **ret_message)
{
    struct replica_kv_leveldb_options options = {
        .path = path, .write_buffer_size = 64 << 10, .cache_size = 1 << 20, .open_files_max = 64};
    return replica_kv_leveldb_open(&options, ret_kv, ret_message);
}

static int setup(void **state, bool leveldb)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture->leveldb = leveldb;
    replica_kv_batch_init(&fixture->batch);
    replica_buffer_init(&fixture->value);
    scratch_make(fixture->path);
    assert_int_equal(
        leveldb ? open_level(fixture->path, &fixture->kv, NULL) : replica_kv_memory_new(&fixture->kv), 0);
    *state = fixture;
    return 0;
}

static int setup_memory(void **state)
{
    return setup(state, false);
}

static int setup_leveldb(void **state)
{
    return setup(state, true);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    sync_failure = 0;
    replica_kv_batch_close(&fixture->batch);
    replica_buffer_close(&fixture->value);
    replica_kv_destroy(&fixture->kv);
    assert_null(fixture->kv);
    scratch_remove(fixture->path);
    free(fixture);
    return 0;
}

static void put(struct fixture *fixture, const char *key, const char *value)
{
    replica_kv_batch_put(&fixture->batch, key, strlen(key), value, strlen(value));
}

static void apply(struct fixture *fixture)
{
    support_apply(fixture->kv, &fixture->batch);
}

static const char *get(struct fixture *fixture, const char *key)
{
    int rv = replica_kv_get(fixture->kv, key, strlen(key), &fixture->value);
    if (rv == REPLICA_E_NOTFOUND)
        return NULL;
    assert_int_equal(rv, 0);
    assert_int_equal(replica_buffer_append(&fixture->value, "", 1), 0);
    return (const char *)fixture->value.data;
}

/* "a=1 b=2 " of all keys from `from` on */
static const char *scan(struct replica_kv_cursor *cursor, const char *from)
{
    static char text[1000];
    size_t at = 0;
    replica_kv_cursor_seek(cursor, from, strlen(from));
    for (; replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        size_t key_n, n;
        replica_kv_cursor_key(cursor, &key, &key_n);
        replica_kv_cursor_value(cursor, &value, &n);
        at += (size_t)snprintf(text + at, sizeof text - at, "%.*s=%.*s ", (int)key_n, (const char *)key,
                               (int)n, (const char *)value);
    }
    text[at] = '\0';
    return text;
}

/* Conformance */

static void batches_apply_in_order(void **state)
{
    struct fixture *fixture = *state;
    assert_null(get(fixture, "a"));
    put(fixture, "a", "1");
    put(fixture, "a", "2");
    put(fixture, "b", "x");
    replica_kv_batch_delete(&fixture->batch, "b", 1);
    replica_kv_batch_delete(&fixture->batch, "never", 5);
    put(fixture, "empty", "");
    apply(fixture);
    assert_string_equal(get(fixture, "a"), "2");
    assert_null(get(fixture, "b"));
    assert_string_equal(get(fixture, "empty"), "");
    replica_kv_batch_delete(&fixture->batch, "a", 1);
    put(fixture, "a", "3");
    apply(fixture);
    assert_string_equal(get(fixture, "a"), "3");
    assert_int_equal(replica_kv_write(fixture->kv, &fixture->batch), 0); /* an empty one */
}

static void keys_and_values_are_bytes(void **state)
{
    struct fixture *fixture = *state;
    uint8_t *big = malloc(REPLICA_KV_VALUE_MAX);
    struct support_random random = {.state = 5};
    assert_non_null(big);
    support_random_fill(&random, big, REPLICA_KV_VALUE_MAX);
    replica_kv_batch_put(&fixture->batch, "k\0y", 3, "v\0\xff", 3);
    replica_kv_batch_put(&fixture->batch, big, REPLICA_KV_KEY_MAX, big, REPLICA_KV_VALUE_MAX);
    apply(fixture);
    assert_int_equal(replica_kv_get(fixture->kv, "k\0y", 3, &fixture->value), 0);
    assert_int_equal(fixture->value.size, 3);
    assert_memory_equal(fixture->value.data, "v\0\xff", 3);
    assert_int_equal(replica_kv_get(fixture->kv, "k", 1, &fixture->value), REPLICA_E_NOTFOUND);
    assert_int_equal(fixture->value.size, 0);
    assert_int_equal(replica_kv_get(fixture->kv, big, REPLICA_KV_KEY_MAX, &fixture->value), 0);
    assert_int_equal(fixture->value.size, REPLICA_KV_VALUE_MAX);
    assert_memory_equal(fixture->value.data, big, REPLICA_KV_VALUE_MAX);
    free(big);
}

static void a_batch_over_a_limit_writes_nothing(void **state)
{
    struct fixture *fixture = *state;
    uint8_t *big = calloc(1, REPLICA_KV_VALUE_MAX + 1);
    assert_non_null(big);
    put(fixture, "a", "1");
    replica_kv_batch_put(&fixture->batch, "k", 1, big, REPLICA_KV_VALUE_MAX + 1);
    assert_true(fixture->batch.failed);
    assert_int_equal(replica_kv_write(fixture->kv, &fixture->batch), REPLICA_E_NOMEM);
    assert_null(get(fixture, "a"));
    replica_kv_batch_clear(&fixture->batch);
    assert_false(fixture->batch.failed);
    replica_kv_batch_put(&fixture->batch, big, REPLICA_KV_KEY_MAX + 1, "", 0);
    put(fixture, "a", "1"); /* nothing is taken any more */
    assert_int_equal(replica_kv_write(fixture->kv, &fixture->batch), REPLICA_E_NOMEM);
    replica_kv_batch_clear(&fixture->batch);
    put(fixture, "a", "1");
    apply(fixture); /* and the kv is well */
    assert_string_equal(get(fixture, "a"), "1");
    free(big);
}

static void scans_are_bytewise(void **state)
{
    struct fixture *fixture = *state;
    struct replica_kv_cursor *cursor;
    put(fixture, "b", "2");
    put(fixture, "\xff", "5");
    put(fixture, "aa", "1");
    put(fixture, "a", "0");
    put(fixture, "ab", "x");
    put(fixture, "c", "3");
    apply(fixture);
    replica_kv_batch_delete(&fixture->batch, "ab", 2);
    apply(fixture);
    assert_int_equal(replica_kv_cursor_open(fixture->kv, &cursor), 0);
    assert_false(replica_kv_cursor_valid(cursor)); /* nowhere yet */
    assert_string_equal(scan(cursor, ""), "a=0 aa=1 b=2 c=3 \xff=5 ");
    assert_string_equal(scan(cursor, "aa"), "aa=1 b=2 c=3 \xff=5 ");
    assert_string_equal(scan(cursor, "ab"), "b=2 c=3 \xff=5 ");
    assert_string_equal(scan(cursor, "\xff\xff"), "");
    assert_false(replica_kv_cursor_valid(cursor));
    assert_int_equal(replica_kv_cursor_close(&cursor), 0);
    assert_null(cursor);
}

static void a_prefix_is_found_by_one_seek(void **state)
{
    struct fixture *fixture = *state;
    bool has = true;
    assert_int_equal(replica_kv_has_prefix(fixture->kv, "a", 1, &has), 0);
    assert_false(has); /* of nothing */
    put(fixture, "ab", "1");
    put(fixture, "b", "2");
    apply(fixture);
    assert_int_equal(replica_kv_has_prefix(fixture->kv, "a", 1, &has), 0);
    assert_true(has);
    assert_int_equal(replica_kv_has_prefix(fixture->kv, "ab", 2, &has), 0);
    assert_true(has); /* a whole key */
    assert_int_equal(replica_kv_has_prefix(fixture->kv, "abc", 3, &has), 0);
    assert_false(has); /* the next key is another's */
    assert_int_equal(replica_kv_has_prefix(fixture->kv, "c", 1, &has), 0);
    assert_false(has); /* behind the last */
}

static void cursors_see_the_map_as_it_was(void **state)
{
    struct fixture *fixture = *state;
    struct replica_kv_cursor *early, *unplaced, *late;
    const uint8_t *key, *value;
    size_t n;
    put(fixture, "a", "1");
    put(fixture, "b", "2");
    put(fixture, "c", "3");
    apply(fixture);
    assert_int_equal(replica_kv_cursor_open(fixture->kv, &early), 0);
    assert_int_equal(replica_kv_cursor_open(fixture->kv, &unplaced), 0);
    replica_kv_cursor_seek(early, "b", 1);
    put(fixture, "b", "changed");
    put(fixture, "bb", "new");
    replica_kv_batch_delete(&fixture->batch, "c", 1);
    apply(fixture);
    assert_int_equal(replica_kv_cursor_open(fixture->kv, &late), 0);
    put(fixture, "d", "4");
    apply(fixture);
    replica_kv_cursor_key(early, &key, &n); /* where it was */
    assert_memory_equal(key, "b", 1);
    replica_kv_cursor_value(early, &value, &n);
    assert_int_equal(n, 1);
    assert_memory_equal(value, "2", 1);
    replica_kv_cursor_next(early);
    replica_kv_cursor_key(early, &key, &n);
    assert_int_equal(n, 1);
    assert_memory_equal(key, "c", 1);
    replica_kv_cursor_next(early);
    assert_false(replica_kv_cursor_valid(early));
    assert_false(replica_kv_cursor_valid(unplaced));
    assert_string_equal(scan(unplaced, ""), "a=1 b=2 c=3 ");
    assert_string_equal(scan(early, "b"), "b=2 c=3 ");
    assert_string_equal(scan(late, ""), "a=1 b=changed bb=new ");
    assert_int_equal(replica_kv_cursor_close(&unplaced), 0);
    assert_int_equal(replica_kv_cursor_close(&early), 0);
    assert_int_equal(replica_kv_cursor_close(&late), 0);
}

static void reads_look_through_a_pending_batch(void **state)
{
    struct fixture *fixture = *state;
    char key[20];
    put(fixture, "kept", "1");
    put(fixture, "gone", "1");
    apply(fixture);
    for (int i = 0; i < 1000; i++) { /* the index grows */
        snprintf(key, sizeof key, "key %d", i);
        put(fixture, key, key);
    }
    put(fixture, "kept", "2");
    replica_kv_batch_delete(&fixture->batch, "gone", 4);
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "key %d", i);
        assert_int_equal(
            replica_kv_get_through(fixture->kv, &fixture->batch, key, strlen(key), &fixture->value), 0);
        assert_int_equal(fixture->value.size, strlen(key));
        assert_memory_equal(fixture->value.data, key, strlen(key));
    }
    assert_int_equal(replica_kv_get_through(fixture->kv, &fixture->batch, "kept", 4, &fixture->value), 0);
    assert_memory_equal(fixture->value.data, "2", 1);
    assert_int_equal(replica_kv_get_through(fixture->kv, &fixture->batch, "gone", 4, &fixture->value),
                     REPLICA_E_NOTFOUND);
    assert_int_equal(replica_kv_get_through(fixture->kv, NULL, "gone", 4, &fixture->value), 0);
    replica_kv_batch_clear(&fixture->batch);
    assert_int_equal(replica_kv_get_through(fixture->kv, &fixture->batch, "gone", 4, &fixture->value), 0);
    assert_int_equal(replica_kv_get_through(fixture->kv, &fixture->batch, "key 5", 5, &fixture->value),
                     REPLICA_E_NOTFOUND);
}

static int collect(void *context, const uint8_t *key, size_t key_n, const uint8_t *value, size_t n)
{
    char *text = context;
    size_t at = strlen(text);
    snprintf(text + at, 100 - at, "%.*s%c%.*s ", (int)key_n, (const char *)key, value == NULL ? '!' : '=',
             (int)n, value == NULL ? "" : (const char *)value);
    return strstr(text, "stop") != NULL ? 7 : 0;
}

static void batches_can_be_walked(void **state)
{
    struct fixture *fixture = *state;
    char text[100] = "";
    put(fixture, "a", "1");
    replica_kv_batch_delete(&fixture->batch, "b", 1);
    put(fixture, "c", "");
    assert_int_equal(replica_kv_batch_each(&fixture->batch, collect, text), 0);
    assert_string_equal(text, "a=1 b! c= ");
    put(fixture, "stop", "1");
    put(fixture, "z", "1");
    text[0] = '\0';
    assert_int_equal(replica_kv_batch_each(&fixture->batch, collect, text), 7);
    assert_null(strchr(text, 'z'));
}

/* Random batches against a table; scans and gets agree with it throughout. */
static void random_batches_agree_with_a_table(void **state)
{
    struct fixture *fixture = *state;
    struct support_random random = {.state = 77};
    struct replica_kv_cursor *cursor;
    int table[200] = {0}; /* 0: absent */
    for (int round = 1; round <= 300; round++) {
        size_t operations = 1 + support_random_below(&random, 20);
        for (size_t i = 0; i < operations; i++) {
            uint8_t key = (uint8_t)support_random_below(&random, 200);
            table[key] = support_random_below(&random, 3) == 0 ? 0 : round;
            if (table[key] == 0)
                replica_kv_batch_delete(&fixture->batch, &key, 1);
            else
                replica_kv_batch_put(&fixture->batch, &key, 1, &round, sizeof round);
        }
        apply(fixture);
        if (round % 50 == 0)
            assert_int_equal(replica_kv_sync(fixture->kv), 0);
    }
    assert_int_equal(replica_kv_cursor_open(fixture->kv, &cursor), 0);
    replica_kv_cursor_seek(cursor, "", 0);
    for (int key = 0; key < 200; key++) {
        const uint8_t *at, *value;
        size_t n;
        uint8_t name = (uint8_t)key;
        assert_int_equal(replica_kv_get(fixture->kv, &name, 1, &fixture->value),
                         table[key] == 0 ? REPLICA_E_NOTFOUND : 0);
        if (table[key] == 0)
            continue;
        assert_memory_equal(fixture->value.data, &table[key], sizeof table[key]);
        assert_true(replica_kv_cursor_valid(cursor));
        replica_kv_cursor_key(cursor, &at, &n);
        assert_true(n == 1 && at[0] == key);
        replica_kv_cursor_value(cursor, &value, &n);
        assert_memory_equal(value, &table[key], sizeof table[key]);
        replica_kv_cursor_next(cursor);
    }
    assert_false(replica_kv_cursor_valid(cursor));
    assert_int_equal(replica_kv_cursor_close(&cursor), 0);
}

/* A failed sync ends all writing until the kv is opened again; reading goes on. */
static void after_a_failure_nothing_is_written(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, "a", "1");
    apply(fixture);
    assert_int_equal(replica_kv_sync(fixture->kv), 0);
    put(fixture, "a", "2");
    apply(fixture);
    if (fixture->leveldb)
        sync_failure = ENOSPC;
    else
        replica_kv_memory_fail_after(fixture->kv, 0, REPLICA_E_NOSPACE);
    assert_int_equal(replica_kv_sync(fixture->kv), REPLICA_E_NOSPACE);
    sync_failure = 0;
    assert_int_equal(replica_kv_sync(fixture->kv),
                     REPLICA_E_NOSPACE); /* a second one would claim what the kernel has dropped */
    put(fixture, "b", "1");
    assert_int_equal(replica_kv_write(fixture->kv, &fixture->batch), REPLICA_E_NOSPACE);
    assert_null(get(fixture, "b"));
    assert_string_equal(get(fixture, "a"), "2");
    if (fixture->leveldb) {
        replica_kv_destroy(&fixture->kv);
        assert_int_equal(open_level(fixture->path, &fixture->kv, NULL), 0);
    } else {
        replica_kv_memory_crash(fixture->kv, 0);
    }
    apply(fixture);
    assert_string_equal(get(fixture, "b"), "1");
    assert_int_equal(replica_kv_sync(fixture->kv), 0);
}

/* Memory: the crash model */

static void a_crash_loses_any_suffix(void **state)
{
    struct fixture *fixture = *state;
    (void)state;
    for (size_t keep = 0; keep <= 4; keep++) {
        static const char *const expected[] = {"a=1 ", "a=2 b=1 ", "a=2 ", "a=3 b=2 ", "a=3 b=2 c=1 "};
        struct replica_kv_cursor *cursor;
        replica_kv_batch_delete(&fixture->batch, "b", 1);
        replica_kv_batch_delete(&fixture->batch, "c", 1);
        put(fixture, "a", "1");
        apply(fixture);
        assert_int_equal(replica_kv_sync(fixture->kv), 0);
        assert_int_equal(replica_kv_memory_pending(fixture->kv), 0);
        put(fixture, "a", "2");
        put(fixture, "b", "1");
        apply(fixture);
        replica_kv_batch_delete(&fixture->batch, "b", 1);
        apply(fixture);
        put(fixture, "b", "x");
        put(fixture, "b", "2");
        put(fixture, "a", "3");
        apply(fixture);
        put(fixture, "c", "1");
        apply(fixture);
        assert_int_equal(replica_kv_memory_pending(fixture->kv), 4);
        replica_kv_memory_crash(fixture->kv, keep);
        assert_int_equal(replica_kv_memory_pending(fixture->kv), 0); /* what survived is on the disk */
        assert_int_equal(replica_kv_cursor_open(fixture->kv, &cursor), 0);
        assert_string_equal(scan(cursor, ""), expected[keep]);
        assert_int_equal(replica_kv_cursor_close(&cursor), 0);
    }
}

static void planned_failures_count_down(void **state)
{
    struct fixture *fixture = *state;
    replica_kv_memory_fail_after(fixture->kv, 2, REPLICA_E_IO);
    put(fixture, "a", "1");
    apply(fixture);
    assert_int_equal(replica_kv_sync(fixture->kv), 0);
    put(fixture, "a", "2");
    assert_int_equal(replica_kv_write(fixture->kv, &fixture->batch), REPLICA_E_IO);
    assert_string_equal(get(fixture, "a"), "1");
}

/* LevelDB */

static void what_was_written_survives_reopening(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 3; i++) {
        put(fixture, "a", i == 0 ? "0" : i == 1 ? "1" : "2");
        apply(fixture);
        replica_kv_destroy(&fixture->kv);
        assert_int_equal(open_level(fixture->path, &fixture->kv, NULL), 0);
        assert_string_equal(get(fixture, "a"), i == 0 ? "0" : i == 1 ? "1" : "2");
    }
}

static void a_second_opener_is_told(void **state)
{
    struct fixture *fixture = *state;
    struct replica_kv *second = NULL;
    char *message = NULL;
    assert_int_equal(open_level(fixture->path, &second, &message), REPLICA_E_BUSY);
    assert_null(second);
    assert_non_null(strstr(message, fixture->path));
    assert_non_null(strstr(message, "in use"));
    free(message);
}

static void a_damaged_store_is_named(void **state)
{
    struct fixture *fixture = *state;
    char *message = NULL, name[128];
    int fd;
    replica_kv_destroy(&fixture->kv);
    snprintf(name, sizeof name, "%s/CURRENT", fixture->path);
    fd = open(name, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0 && write(fd, "MANIFEST-999999\n", 16) == 16);
    close(fd);
    assert_int_equal(open_level(fixture->path, &fixture->kv, &message), REPLICA_E_CORRUPT);
    assert_non_null(strstr(message, "damaged"));
    free(message);
}

/* Words of LevelDB's messages in the path itself must not mislead. */
static void the_path_does_not_look_like_an_error(void **state)
{
    struct fixture *fixture = *state;
    struct replica_kv *kv = NULL;
    char name[128], *message = NULL;
    int fd;
    snprintf(name, sizeof name, "%s/Corruption lock No space left", fixture->path);
    fd = open(name, O_CREAT | O_WRONLY, 0600); /* not a directory */
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(open_level(name, &kv, &message), REPLICA_E_IO);
    free(message);
    assert_int_equal(unlink(name), 0);
}

/* Whatever a sync covered is there after a loss of power, though LevelDB has switched log files meanwhile;
 * the rest is a prefix. */
static void a_sync_covers_every_log_file(void **state)
{
    struct fixture *fixture = *state;
    struct support_random random = {.state = 99};
    static uint8_t bytes[20000];
    support_random_fill(&random, bytes, sizeof bytes);
    for (int life = 0; life < 12; life++) {
        uint32_t synced = 0, n = 60 + (uint32_t)support_random_below(&random, 60), missing = UINT32_MAX;
        char after[64];
        replica_kv_batch_delete(&fixture->batch, "", 0);
        for (uint32_t i = 1; i <= n;
             i++) { /* the memtable is 64 KiB: the log file changes every few batches */
            replica_kv_batch_put(&fixture->batch, &i, sizeof i, bytes,
                                 1 + support_random_below(&random, sizeof bytes));
            apply(fixture);
            if (support_random_below(&random, 12) == 0) {
                assert_int_equal(replica_kv_sync(fixture->kv), 0);
                synced = i;
            }
        }
        replica_kv_destroy(&fixture->kv);
        lose_power(fixture->path, after);
        scratch_remove(fixture->path);
        memcpy(fixture->path, after, sizeof after);
        assert_int_equal(open_level(fixture->path, &fixture->kv, NULL), 0);
        for (uint32_t i = 1; i <= n; i++) {
            int rv = replica_kv_get(fixture->kv, &i, sizeof i, &fixture->value);
            if (rv == REPLICA_E_NOTFOUND && missing == UINT32_MAX)
                missing = i;
            assert_true(rv == (missing == UINT32_MAX ? 0 : REPLICA_E_NOTFOUND));
            assert_true(i > synced || rv == 0);
            replica_kv_batch_delete(&fixture->batch, &i, sizeof i);
        }
        apply(fixture);
        assert_int_equal(replica_kv_sync(fixture->kv), 0);
    }
}

static void *sync_many(void *context)
{
    struct fixture *fixture = context;
    intptr_t rv = 0;
    for (int i = 0; i < 50 && rv == 0; i++)
        rv = replica_kv_sync(fixture->kv);
    return (void *)rv;
}

static void syncs_run_beside_writes(void **state)
{
    struct fixture *fixture = *state;
    static uint8_t bytes[30000];
    pthread_t thread;
    void *result;
    assert_int_equal(pthread_create(&thread, NULL, sync_many, fixture), 0);
    for (uint32_t i = 0; i < 200; i++) {
        replica_kv_batch_put(&fixture->batch, &i, sizeof i, bytes, sizeof bytes);
        apply(fixture);
    }
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_null(result);
}

#define CONFORMANCE(setup)                                                                                   \
    cmocka_unit_test_setup_teardown(batches_apply_in_order, setup, teardown),                                \
        cmocka_unit_test_setup_teardown(keys_and_values_are_bytes, setup, teardown),                         \
        cmocka_unit_test_setup_teardown(a_batch_over_a_limit_writes_nothing, setup, teardown),               \
        cmocka_unit_test_setup_teardown(scans_are_bytewise, setup, teardown),                                \
        cmocka_unit_test_setup_teardown(a_prefix_is_found_by_one_seek, setup, teardown),                     \
        cmocka_unit_test_setup_teardown(cursors_see_the_map_as_it_was, setup, teardown),                     \
        cmocka_unit_test_setup_teardown(reads_look_through_a_pending_batch, setup, teardown),                \
        cmocka_unit_test_setup_teardown(batches_can_be_walked, setup, teardown),                             \
        cmocka_unit_test_setup_teardown(random_batches_agree_with_a_table, setup, teardown),                 \
        cmocka_unit_test_setup_teardown(after_a_failure_nothing_is_written, setup, teardown)

int main(void)
{
    const struct CMUnitTest memory[] = {
        CONFORMANCE(setup_memory),
        cmocka_unit_test_setup_teardown(a_crash_loses_any_suffix, setup_memory, teardown),
        cmocka_unit_test_setup_teardown(planned_failures_count_down, setup_memory, teardown),
    };
    const struct CMUnitTest leveldb[] = {
        CONFORMANCE(setup_leveldb),
        cmocka_unit_test_setup_teardown(what_was_written_survives_reopening, setup_leveldb, teardown),
        cmocka_unit_test_setup_teardown(a_second_opener_is_told, setup_leveldb, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_store_is_named, setup_leveldb, teardown),
        cmocka_unit_test_setup_teardown(the_path_does_not_look_like_an_error, setup_leveldb, teardown),
        cmocka_unit_test_setup_teardown(a_sync_covers_every_log_file, setup_leveldb, teardown),
        cmocka_unit_test_setup_teardown(syncs_run_beside_writes, setup_leveldb, teardown),
    };
    int failed = cmocka_run_group_tests_name("kv on memory", memory, NULL, NULL);
    return failed + cmocka_run_group_tests_name("kv on LevelDB", leveldb, NULL, NULL);
}
