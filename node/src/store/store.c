/* Opening a store: directory, lock, format, identity, generation; then the databases and the contents. */
#include "store/store.h"

#include "identity.h"
#include "replica/contents_files.h"
#include "replica/error.h"
#include "replica/kv_leveldb.h"
#include "store/records.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT_WORDS   "remora store "
#define GENERATION_KEY "G" /* in the log */
/* Memory of the databases: a memtable and one being written out each, and their caches. */
#define LOG_WRITE_BUFFER ((size_t)8 << 20)
#define LOG_CACHE        ((size_t)8 << 20)
#define MAP_WRITE_BUFFER ((size_t)16 << 20)
#define MAP_CACHE        ((size_t)32 << 20)
#define DB_FILES_MAX     200 /* descriptors each may keep: 1024 are what a process is given at least */

/* IDENTITY: version u8, store 16, public 32, secret 32, checksum 8. GENERATION: number u64 big-endian,
 * checksum 8. */
#define IDENTITY_SIZE   (1 + REPLICA_ID_SIZE + 2 * NODE_STORE_CURVE_SIZE + STORE_CHECKSUM_SIZE)
#define GENERATION_SIZE (8 + STORE_CHECKSUM_SIZE)
_Static_assert(IDENTITY_SIZE == 89, "IDENTITY is 89 bytes on disk");
_Static_assert(GENERATION_SIZE == 16, "GENERATION is 16 bytes on disk");

static int say(char **ret_message, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int say(char **ret_message, int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (*ret_message != NULL || vasprintf(ret_message, format, arguments) < 0)
        *ret_message = *ret_message; /* what was said first is nearer to the cause */
    va_end(arguments);
    return code;
}

/* The directory */

static int sync_parent(const char *path)
{
    char parent[PATH_MAX];
    char *slash;
    int fd, rv;
    snprintf(parent, sizeof parent, "%s", path);
    slash = strrchr(parent, '/');
    if (slash == NULL)
        strcpy(parent, ".");
    else
        slash[slash == parent ? 1 : 0] = '\0';
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == EACCES
                   ? 0
                   : store_errno(); /* a parent that we may only pass through was not made by us */
    rv = fsync(fd) == 0 ? 0 : store_errno();
    close(fd);
    return rv;
}

static int make_one(const char *path, mode_t mode)
{
    if (mkdir(path, mode) == 0)
        return sync_parent(path);
    return errno == EEXIST ? 0 : store_errno();
}

/* Missing parents are made as any directory is, the store itself for its owner alone. */
static int make_directory(const char *path)
{
    char part[PATH_MAX];
    size_t n = strlen(path);
    int rv = 0;
    if (n >= sizeof part)
        return REPLICA_E_INVALID;
    memcpy(part, path, n + 1);
    while (n > 1 && part[n - 1] == '/')
        part[--n] = '\0';
    for (char *slash = strchr(part + 1, '/'); slash != NULL && rv == 0; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        rv = make_one(part, 0755);
        *slash = '/';
    }
    return rv == 0 ? make_one(part, 0700) : rv;
}

static int open_directory(struct node_store *store, char **ret_message)
{
    int rv = make_directory(store->path);
    if (rv == 0) {
        store->directory = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rv = store->directory < 0 ? store_errno() : 0;
    }
    if (rv != 0)
        return say(ret_message, rv, "data: cannot use the directory %s: %s; give another one by --data",
                   store->path, errno != 0 ? strerror(errno) : replica_error_text(rv));
    return 0;
}

static bool is_ours(const char *name)
{
    static const char *const OURS[] = {".", "..", "LOCK", "FORMAT", "FORMAT.tmp", "lost+found"};
    for (size_t i = 0; i < sizeof OURS / sizeof OURS[0]; i++)
        if (strcmp(name, OURS[i]) == 0)
            return true;
    return false;
}

/* A first name in the directory that no store begins with; "" if there is none. Errors: IO. */
static int find_stranger(const struct node_store *store, char ret_name[NAME_MAX + 1])
{
    int copy = openat(store->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    const struct dirent *entry;
    if (stream == NULL) {
        if (copy >= 0)
            close(copy);
        return store_errno();
    }
    ret_name[0] = '\0';
    while (ret_name[0] == '\0' && (entry = readdir(stream)) != NULL)
        if (!is_ours(entry->d_name))
            snprintf(ret_name, NAME_MAX + 1, "%s", entry->d_name);
    closedir(stream);
    return 0;
}

/* Before anything is written: a directory without a FORMAT must be empty. */
static int check_directory(const struct node_store *store, char **ret_message)
{
    char name[NAME_MAX + 1];
    int rv;
    if (faccessat(store->directory, "FORMAT", F_OK, 0) == 0)
        return 0;
    if (errno != ENOENT)
        return say(ret_message, store_errno(), "data: cannot read %s/FORMAT: %s", store->path,
                   strerror(errno));
    rv = find_stranger(store, name);
    if (rv != 0)
        return say(ret_message, rv, "data: cannot list %s: %s", store->path, strerror(errno));
    if (name[0] != '\0')
        return say(ret_message, REPLICA_E_EXISTS,
                   "data: %s is not a store and is not empty (it has \"%s\"); give a new or empty directory "
                   "by --data",
                   store->path, name);
    return 0;
}

static int take_lock(struct node_store *store, char **ret_message)
{
    char text[32] = "";
    ssize_t n;
    store->lock = openat(store->directory, "LOCK", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (store->lock < 0)
        return say(ret_message, store_errno(), "data: cannot write in %s: %s", store->path, strerror(errno));
    if (flock(store->lock, LOCK_EX | LOCK_NB) != 0) {
        bool busy = errno == EWOULDBLOCK;
        if (!busy)
            return say(ret_message, store_errno(), "data: cannot lock %s/LOCK: %s", store->path,
                       strerror(errno));
        n = pread(store->lock, text, sizeof text - 1, 0);
        text[n > 0 ? strspn(text, "0123456789") : 0] = '\0';
        return say(
            ret_message, REPLICA_E_BUSY,
            "data: %s is in use by another node%s%s; stop that node, or give another directory by --data",
            store->path, text[0] != '\0' ? ", process " : "", text);
    }
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (ftruncate(store->lock, 0) != 0 || pwrite(store->lock, text, strlen(text), 0) < 0)
        return say(ret_message, store_errno(), "data: cannot write %s/LOCK: %s", store->path,
                   strerror(errno));
    return 0;
}

/* The records */

static int write_format(struct node_store *store, char **ret_message)
{
    char text[64];
    int rv;
    snprintf(text, sizeof text, FORMAT_WORDS "%d\n", NODE_STORE_VERSION);
    rv = store_record_write(store->directory, "FORMAT", text, strlen(text));
    return rv == 0 ? 0
                   : say(ret_message, rv, "data: cannot write %s/FORMAT: %s", store->path,
                         replica_error_text(rv));
}

static int check_format(struct node_store *store, char **ret_message)
{
    uint8_t data[STORE_RECORD_MAX];
    char text[STORE_RECORD_MAX + 1];
    unsigned long version;
    size_t n;
    char *end;
    int rv = store_record_read(store->directory, "FORMAT", data, &n);
    if (rv == REPLICA_E_NOTFOUND)
        return write_format(store, ret_message);
    if (rv != 0)
        return say(ret_message, rv, "data: cannot read %s/FORMAT: %s", store->path, replica_error_text(rv));
    memcpy(text, data, n);
    text[n] = '\0';
    version = strncmp(text, FORMAT_WORDS, strlen(FORMAT_WORDS)) == 0
                  ? strtoul(text + strlen(FORMAT_WORDS), &end, 10)
                  : 0;
    if (version == 0 || *end != '\n')
        return say(ret_message, REPLICA_E_CORRUPT,
                   "data: %s/FORMAT is not what a node writes; " NODE_STORE_MESSAGE_HINT, store->path);
    if (version > NODE_STORE_VERSION)
        return say(ret_message, REPLICA_E_VERSION,
                   "data: %s was written by a newer version (format %lu; this is version " REMORA_VERSION
                   ", which knows formats up to %d); run that version or a later one, or give another "
                   "directory by --data",
                   store->path, version, NODE_STORE_VERSION);
    return 0;
}

static int damaged(const struct node_store *store, const char *name, int code, char **ret_message)
{
    if (code == REPLICA_E_NOTFOUND)
        return say(ret_message, REPLICA_E_CORRUPT, "data: %s/%s is missing; " NODE_STORE_MESSAGE_HINT,
                   store->path, name);
    if (code == REPLICA_E_CORRUPT)
        return say(ret_message, code, "data: %s/%s is damaged; " NODE_STORE_MESSAGE_HINT, store->path, name);
    return say(ret_message, code, "data: %s/%s: %s", store->path, name, replica_error_text(code));
}

/* A record of exactly n bytes whose last eight are its checksum. */
static int read_checked(const struct node_store *store, const char *name, size_t n,
                        uint8_t ret_data[STORE_RECORD_MAX])
{
    uint8_t checksum[STORE_CHECKSUM_SIZE];
    size_t got;
    int rv = store_record_read(store->directory, name, ret_data, &got);
    if (rv != 0)
        return rv;
    if (got != n)
        return REPLICA_E_CORRUPT;
    store_checksum(ret_data, n - STORE_CHECKSUM_SIZE, checksum);
    return memcmp(checksum, ret_data + n - STORE_CHECKSUM_SIZE, STORE_CHECKSUM_SIZE) == 0 ? 0
                                                                                          : REPLICA_E_CORRUPT;
}

static int write_generation(struct node_store *store, uint64_t generation)
{
    uint8_t data[GENERATION_SIZE];
    replica_u64_encode(generation, data);
    store_checksum(data, 8, data + 8);
    return store_record_write(store->directory, "GENERATION", data, sizeof data);
}

static int make_identity(struct node_store *store)
{
    uint8_t data[IDENTITY_SIZE] = {NODE_STORE_VERSION};
    uint8_t *at = data + 1;
    int rv = write_generation(store, 0);
    crypto_box_keypair(store->curve_public, store->curve_secret); /* X25519, as CURVE has it */
    store->id = node_identity_of(store->curve_public);
    memcpy(at, store->id.bytes, REPLICA_ID_SIZE);
    memcpy(at + REPLICA_ID_SIZE, store->curve_public, NODE_STORE_CURVE_SIZE);
    memcpy(at + REPLICA_ID_SIZE + NODE_STORE_CURVE_SIZE, store->curve_secret, NODE_STORE_CURVE_SIZE);
    store_checksum(data, sizeof data - STORE_CHECKSUM_SIZE, data + sizeof data - STORE_CHECKSUM_SIZE);
    if (rv == 0)
        rv = store_record_write(store->directory, "IDENTITY", data, sizeof data);
    sodium_memzero(data, sizeof data);
    return rv;
}

static bool has(const struct node_store *store, const char *name)
{
    return faccessat(store->directory, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

static int load_identity(struct node_store *store, char **ret_message)
{
    uint8_t data[STORE_RECORD_MAX];
    const uint8_t *at = data + 1;
    struct replica_id own;
    int rv = read_checked(store, "IDENTITY", IDENTITY_SIZE, data);
    if (rv == REPLICA_E_NOTFOUND && !has(store, "log") && !has(store, "map") && !has(store, "contents")) {
        rv = make_identity(store); /* a first start, or one that was cut off before there was state */
        return rv == 0 ? 0
                       : say(ret_message, rv, "data: cannot write in %s: %s", store->path,
                             replica_error_text(rv));
    }
    if (rv != 0)
        return damaged(store, "IDENTITY", rv, ret_message);
    memcpy(store->id.bytes, at, REPLICA_ID_SIZE);
    memcpy(store->curve_public, at + REPLICA_ID_SIZE, NODE_STORE_CURVE_SIZE);
    memcpy(store->curve_secret, at + REPLICA_ID_SIZE + NODE_STORE_CURVE_SIZE, NODE_STORE_CURVE_SIZE);
    sodium_memzero(data, sizeof data);
    own = node_identity_of(store->curve_public);
    if (!replica_id_equal(&store->id, &own)) /* others would refuse it */
        return damaged(store, "IDENTITY", REPLICA_E_CORRUPT, ret_message);
    return 0;
}

static int load_generation(struct node_store *store, char **ret_message)
{
    uint8_t data[STORE_RECORD_MAX];
    int rv = read_checked(store, "GENERATION", GENERATION_SIZE, data);
    if (rv != 0)
        return damaged(store, "GENERATION", rv, ret_message);
    store->generation = replica_u64_decode(data);
    return 0;
}

static int raise_generation(struct node_store *store, char **ret_message)
{
    int rv = write_generation(store, ++store->generation);
    return rv == 0 ? 0
                   : say(ret_message, rv, "data: cannot write %s/GENERATION: %s", store->path,
                         replica_error_text(rv));
}

/* Databases and contents */

static int open_database(struct node_store *store, const char *name, size_t write_buffer, size_t cache,
                         struct replica_kv **ret_kv, char **ret_message)
{
    char path[PATH_MAX];
    struct replica_kv_leveldb_options options = {
        .path = path, .write_buffer_size = write_buffer, .cache_size = cache, .open_files_max = DB_FILES_MAX};
    int rv;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", store->path, name) >= sizeof path)
        return say(ret_message, REPLICA_E_INVALID,
                   "data: the path %s is too long; give a shorter one by --data", store->path);
    rv = replica_kv_leveldb_open(&options, ret_kv, ret_message);
    return rv == 0 ? 0 : say(ret_message, rv, "data: %s: %s", path, replica_error_text(rv));
}

/* The log. It is made only in a store that never was open: an empty one in place of one that is gone would be
 * another life under the same name. */
static int open_log(struct node_store *store, char **ret_message)
{
    bool fresh = store->generation == 0 && !has(store, "map") && !has(store, "contents");
    if (!fresh && !has(store, "log/CURRENT"))
        return say(
            ret_message, REPLICA_E_CORRUPT,
            "data: %s has %s but no log: restore it, or start with an empty --data; " NODE_STORE_MESSAGE_HINT,
            store->path, has(store, "contents") ? "contents" : "an identity");
    return open_database(store, "log", LOG_WRITE_BUFFER, LOG_CACHE, &store->log, ret_message);
}

/* Each start leaves its generation in the log, before it is raised: a log that knows less is not the one that
 * this store had, or lost its end. */
static int check_log(struct node_store *store, char **ret_message)
{
    struct replica_kv_batch batch;
    struct replica_buffer value;
    uint64_t known = 0;
    uint8_t next[8];
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(store->log, GENERATION_KEY, 1, &value);
    if (rv == 0 && value.size == sizeof next)
        known = replica_u64_decode(value.data);
    replica_buffer_close(&value);
    if (rv != 0 && rv != REPLICA_E_NOTFOUND)
        return damaged(store, "log", rv, ret_message);
    if (known < store->generation)
        return say(
            ret_message, REPLICA_E_CORRUPT,
            "data: %s/log is older than this store (it ends before start %llu): restore it, or start with an "
            "empty --data; " NODE_STORE_MESSAGE_HINT,
            store->path, (unsigned long long)store->generation);
    replica_kv_batch_init(&batch);
    replica_u64_encode(store->generation + 1, next);
    replica_kv_batch_put(&batch, GENERATION_KEY, 1, next, sizeof next);
    rv = replica_kv_write(store->log, &batch);
    replica_kv_batch_close(&batch);
    if (rv == 0)
        rv = replica_kv_sync(store->log);
    return rv == 0 ? 0 : damaged(store, "log", rv, ret_message);
}

/* Out of the way, for people to look at; what it shows is in the log. */
static int set_map_aside(const struct node_store *store, char ret_name[NODE_STORE_ASIDE_TEXT])
{
    snprintf(ret_name, NODE_STORE_ASIDE_TEXT, "map.damaged-%llu", (unsigned long long)store->generation);
    if (renameat2(store->directory, "map", store->directory, ret_name, RENAME_NOREPLACE) == 0)
        return 0;
    return store_errno();
}

static int open_map(struct node_store *store, char **ret_message)
{
    int rv = open_database(store, "map", MAP_WRITE_BUFFER, MAP_CACHE, &store->map, ret_message);
    if (rv != REPLICA_E_CORRUPT)
        return rv;
    rv = set_map_aside(store, store->aside);
    if (rv != 0)
        return rv;
    free(*ret_message);
    *ret_message = NULL;
    return open_database(store, "map", MAP_WRITE_BUFFER, MAP_CACHE, &store->map, ret_message);
}

static int open_contents(struct node_store *store, const struct node_store_options *options,
                         char **ret_message)
{
    char path[PATH_MAX];
    struct replica_contents_files_options files = {.path = path,
                                                   .log = store->log,
                                                   .capacity = options->capacity,
                                                   .free_floor = options->free_floor,
                                                   .on_damage = options->on_damage,
                                                   .context = options->context};
    int rv;
    if ((size_t)snprintf(path, sizeof path, "%s/contents", store->path) >= sizeof path)
        return say(ret_message, REPLICA_E_INVALID,
                   "data: the path %s is too long; give a shorter one by --data", store->path);
    rv = replica_contents_files_open(&files, &store->contents);
    if (rv == REPLICA_E_CORRUPT && replica_kv_leveldb_is_damaged(store->log))
        return damaged(store, "log", rv, ret_message); /* which has the index */
    return rv == 0 ? 0 : say(ret_message, rv, "data: %s: %s", path, replica_error_text(rv));
}

static int open_all(struct node_store *store, const struct node_store_options *options, char **ret_message)
{
    int rv = open_directory(store, ret_message);
    if (rv == 0)
        rv = check_directory(store, ret_message);
    if (rv == 0)
        rv = take_lock(store, ret_message);
    if (rv == 0)
        rv = check_directory(store, ret_message); /* again: somebody may have been faster */
    if (rv == 0)
        rv = check_format(store, ret_message);
    if (rv == 0 && node_store_space(store) < node_store_reserve_size(store) / 2)
        node_store_reserve_release(store); /* full: a start needs some room, too */
    if (rv == 0)
        rv = load_identity(store, ret_message);
    if (rv == 0)
        rv = load_generation(store, ret_message);
    if (rv == 0)
        rv = open_log(store, ret_message);
    if (rv == 0)
        rv = check_log(store, ret_message);
    if (rv == 0)
        rv = raise_generation(store, ret_message);
    if (rv == 0)
        rv = open_map(store, ret_message);
    if (rv == 0)
        rv = open_contents(store, options, ret_message);
    if (rv == 0 && fsync(store->directory) != 0) /* the directories made just now */
        rv = say(ret_message, store_errno(), "data: cannot sync %s: %s", store->path, strerror(errno));
    return rv;
}

int node_store_open(const struct node_store_options *options, struct node_store **ret_store,
                    char **ret_message)
{
    struct node_store *store = calloc(1, sizeof *store);
    int rv;
    *ret_message = NULL;
    if (store == NULL)
        return REPLICA_E_NOMEM;
    store->directory = store->lock = -1;
    store->path = strdup(options->path);
    if (store->path == NULL || sodium_init() < 0)
        rv = REPLICA_E_NOMEM;
    else
        rv = open_all(store, options, ret_message);
    if (rv != 0) {
        node_store_close(&store);
        return rv;
    }
    *ret_store = store;
    return 0;
}

bool node_store_map_is_damaged(const struct node_store *store)
{
    return store->map != NULL && replica_kv_leveldb_is_damaged(store->map);
}

void node_store_close(struct node_store **store)
{
    struct node_store *gone = *store;
    char aside[NODE_STORE_ASIDE_TEXT];
    bool map_damaged;
    if (gone == NULL)
        return;
    if (gone->contents != NULL)
        replica_contents_destroy(&gone->contents);
    map_damaged = node_store_map_is_damaged(gone);
    if (gone->map != NULL)
        replica_kv_destroy(&gone->map);
    if (map_damaged)
        (void)set_map_aside(gone,
                            aside); /* if it cannot be, the next life meets the same damage, and says so */
    if (gone->log != NULL)
        replica_kv_destroy(&gone->log);
    sodium_memzero(gone->curve_secret, sizeof gone->curve_secret);
    if (gone->lock >= 0)
        close(gone->lock); /* the lock goes with it */
    if (gone->directory >= 0)
        close(gone->directory);
    free(gone->path);
    free(gone);
    *store = NULL;
}
