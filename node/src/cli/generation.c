#include "cli/generation.h"

#include "cli/format.h"
#include "cli/get.h"
#include "cli/paths.h"
#include "cli/restore.h"

#include "replica/merkle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define OPEN_DIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define HOME_MODE      0755
#define KEYS_SIZE_MAX  ((size_t)1 << 31) /* 128 million files */

static int failed(const struct cli_generations *generations)
{
    int error = errno;
    return cli_fail(cli_exit_of_errno(error), "%s: %s", generations->dir, strerror(error));
}

static void name_of(const char *prefix, uint64_t n, const char *suffix, char ret_name[CLI_GENERATION_NAME])
{
    snprintf(ret_name, CLI_GENERATION_NAME, "%s%llu%s", prefix, (unsigned long long)n, suffix);
}

/* "gen-12" → 12; 0 if it is not such a name. */
static uint64_t number_of(const char *name)
{
    char *end;
    unsigned long long n;
    if (strncmp(name, "gen-", 4) != 0 || name[4] < '1' || name[4] > '9')
        return 0;
    n = strtoull(name + 4, &end, 10);
    return *end == '\0' ? n : 0;
}

/* Opening */

static int refuse(const struct cli_generations *generations)
{
    return cli_fail(CLI_REFUSED, "%s exists and is no checkout; choose another DIR, or remove it",
                    generations->dir);
}

/* What DIR is now: nothing, an empty directory (which may go), or our link. */
static int read_current(struct cli_generations *generations)
{
    char target[PATH_MAX + 1];
    size_t n = strlen(generations->home_name);
    ssize_t size = readlinkat(generations->parent, generations->name, target, PATH_MAX);
    if (size < 0 && errno == ENOENT)
        return 0;
    if (size < 0 && errno == EINVAL)
        return unlinkat(generations->parent, generations->name, AT_REMOVEDIR) == 0 ? 0 : refuse(generations);
    if (size < 0)
        return failed(generations);
    target[size] = '\0';
    if (strncmp(target, generations->home_name, n) != 0 || target[n] != '/' || number_of(target + n + 1) == 0)
        return refuse(generations);
    generations->current = number_of(target + n + 1);
    return 0;
}

static int take_lock(struct cli_generations *generations)
{
    if (mkdirat(generations->parent, generations->home_name, HOME_MODE) != 0 && errno != EEXIST)
        return failed(generations);
    generations->home = openat(generations->parent, generations->home_name, OPEN_DIRECTORY);
    if (generations->home < 0)
        return failed(generations);
    generations->lock = openat(generations->home, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (generations->lock < 0)
        return failed(generations);
    generations->held = flock(generations->lock, LOCK_EX | LOCK_NB) == 0;
    if (generations->held)
        return 0;
    if (errno == EWOULDBLOCK)
        return cli_fail(CLI_BUSY, "%s: another checkout works on it", generations->dir);
    return failed(generations);
}

static int compare_keys(const void *a, const void *b)
{
    return memcmp(a, b, CLI_GENERATION_KEY);
}

/* Without its keys a generation is as good, only nothing of it is taken over. */
static void read_keys(struct cli_generations *generations)
{
    char name[CLI_GENERATION_NAME];
    struct stat info;
    int fd;
    name_of("gen-", generations->current, ".keys", name);
    fd = openat(generations->home, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fstat(fd, &info) == 0 && info.st_size > 0 && (size_t)info.st_size <= KEYS_SIZE_MAX)
        generations->keys = malloc((size_t)info.st_size);
    if (generations->keys != NULL && pread(fd, generations->keys, (size_t)info.st_size, 0) == info.st_size)
        generations->keys_n = (size_t)info.st_size / CLI_GENERATION_KEY;
    close(fd);
    if (generations->keys_n > 0)
        qsort(generations->keys, generations->keys_n, CLI_GENERATION_KEY, compare_keys);
}

static void use_current(struct cli_generations *generations)
{
    char name[CLI_GENERATION_NAME];
    if (generations->current == 0)
        return;
    name_of("gen-", generations->current, "", name);
    generations->current_dir = openat(generations->home, name, OPEN_DIRECTORY);
    if (generations->current_dir >= 0)
        read_keys(generations);
}

/* Calls visit with the name of everything in the home. visit may remove it. */
static void each_name(const struct cli_generations *generations,
                      void (*visit)(const struct cli_generations *generations, const char *name))
{
    int fd = openat(generations->home, ".", OPEN_DIRECTORY);
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *found;
    if (listing == NULL) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((found = readdir(listing)) != NULL)
        visit(generations, found->d_name);
    closedir(listing);
}

static void remove_unfinished(const struct cli_generations *generations, const char *name)
{
    if (strncmp(name, "new-", 4) == 0 || strcmp(name, "switch") == 0)
        (void)cli_remove_tree(generations->home, name); /* tried again at the next checkout */
}

int cli_generations_open(const char *dir, struct cli_generations *ret_generations)
{
    char path[PATH_MAX];
    size_t n = strlen(dir);
    int code;
    *ret_generations =
        (struct cli_generations){.dir = dir, .parent = -1, .home = -1, .lock = -1, .current_dir = -1};
    replica_buffer_init(&ret_generations->new_keys);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (n >= sizeof path)
        return cli_fail(CLI_REFUSED, "%s: longer than a path may be", dir);
    memcpy(path, dir, n);
    path[n] = '\0';
    if (cli_base_name(path, ret_generations->name, sizeof ret_generations->name) != 0 ||
        ret_generations->name[0] == '\0' || strlen(ret_generations->name) + strlen("..remora") > NAME_MAX)
        return cli_fail(CLI_REFUSED, "%s: DIR needs a name of its own, of at most %zu bytes", dir,
                        NAME_MAX - strlen("..remora"));
    snprintf(ret_generations->home_name, sizeof ret_generations->home_name, ".%.*s.remora", NAME_MAX - 8,
             ret_generations->name);
    code = cli_open_parent(path, &ret_generations->parent);
    if (code == 0)
        code = read_current(ret_generations);
    if (code == 0)
        code = take_lock(ret_generations);
    if (code != 0)
        return code;
    each_name(ret_generations, remove_unfinished);
    use_current(ret_generations);
    return 0;
}

static void drop_current(struct cli_generations *generations)
{
    if (generations->current_dir >= 0)
        close(generations->current_dir);
    free(generations->keys);
    generations->current_dir = -1;
    generations->keys = NULL;
    generations->keys_n = 0;
}

void cli_generations_close(struct cli_generations *generations)
{
    /* A first one that failed, perhaps for want of room, leaves nothing behind. */
    if (generations->held && generations->current == 0 && unlinkat(generations->home, "lock", 0) == 0)
        (void)unlinkat(generations->parent, generations->home_name, AT_REMOVEDIR);
    drop_current(generations);
    replica_buffer_close(&generations->new_keys);
    if (generations->lock >= 0)
        close(generations->lock);
    if (generations->home >= 0)
        close(generations->home);
    if (generations->parent >= 0)
        close(generations->parent);
    generations->lock = generations->home = generations->parent = -1;
}

/* A new generation */

int cli_generations_begin(struct cli_generations *generations, int *ret_dir)
{
    char name[CLI_GENERATION_NAME];
    name_of("new-", generations->current + 1, "", name);
    replica_buffer_clear(&generations->new_keys);
    if (mkdirat(generations->home, name, 0700) != 0)
        return failed(generations);
    *ret_dir = openat(generations->home, name, OPEN_DIRECTORY);
    return *ret_dir >= 0 ? 0 : failed(generations);
}

void cli_generations_abandon(struct cli_generations *generations)
{
    char name[CLI_GENERATION_NAME];
    name_of("new-", generations->current + 1, "", name);
    (void)cli_remove_tree(generations->home, name);
}

static void write_keys(struct cli_generations *generations, uint64_t n)
{
    char name[CLI_GENERATION_NAME];
    ssize_t size = (ssize_t)generations->new_keys.size;
    int fd;
    name_of("gen-", n, ".keys", name);
    fd = openat(generations->home, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (generations->new_keys.failed ||
        (size > 0 && write(fd, generations->new_keys.data, (size_t)size) != size))
        unlinkat(generations->home, name, 0);
    close(fd);
}

int cli_generations_switch(struct cli_generations *generations)
{
    char fresh[CLI_GENERATION_NAME], name[CLI_GENERATION_NAME], target[NAME_MAX + CLI_GENERATION_NAME + 2];
    uint64_t n = generations->current + 1;
    name_of("new-", n, "", fresh);
    name_of("gen-", n, "", name);
    snprintf(target, sizeof target, "%s/%s", generations->home_name, name);
    (void)cli_remove_tree(generations->home,
                          name); /* finished, but never switched to: its checkout was killed in between */
    write_keys(generations, n);
    unlinkat(generations->home, "switch", 0);
    if (renameat(generations->home, fresh, generations->home, name) != 0 ||
        symlinkat(target, generations->home, "switch") != 0)
        return failed(generations);
    if (renameat(generations->home, "switch", generations->parent, generations->name) != 0)
        return failed(generations);
    drop_current(generations);
    generations->current = n;
    use_current(generations);
    return 0;
}

/* Taking over what stayed the same */

static void add_number(struct replica_buffer *buffer, uint64_t value)
{
    uint8_t bytes[8];
    replica_u64_encode(value, bytes);
    replica_buffer_append(buffer, bytes, sizeof bytes);
}

static void add_text(struct replica_buffer *buffer, const char *text)
{
    replica_buffer_append(buffer, text, strlen(text) + 1);
}

/* Everything that makes the local file what it is. The stamp stands for the bytes of a file that lives in its
 * entry. */
static bool key_of(const char *path, const struct remora_entry *entry, uint8_t ret_key[CLI_GENERATION_KEY])
{
    struct replica_buffer buffer;
    struct replica_hash hash;
    bool done;
    replica_buffer_init(&buffer);
    add_text(&buffer, path);
    add_text(&buffer, entry->stamp);
    add_text(&buffer, entry->content);
    add_number(&buffer, entry->mode);
    add_number(&buffer, (uint64_t)entry->uid << 32 | entry->gid);
    add_number(&buffer, (uint64_t)entry->mtime_ns);
    add_number(&buffer, entry->size);
    for (size_t i = 0; i < entry->xattrs_n; i++) {
        add_text(&buffer, entry->xattrs[i].name);
        add_number(&buffer, entry->xattrs[i].size);
        replica_buffer_append(&buffer, entry->xattrs[i].value, entry->xattrs[i].size);
    }
    done = !buffer.failed;
    if (done)
        replica_hash_bytes(buffer.data, buffer.size, &hash);
    replica_buffer_close(&buffer);
    if (done)
        memcpy(ret_key, hash.bytes, CLI_GENERATION_KEY);
    return done;
}

void cli_generations_note(struct cli_generations *generations, const char *path,
                          const struct remora_entry *entry)
{
    uint8_t key[CLI_GENERATION_KEY];
    if (key_of(path, entry, key))
        replica_buffer_append(&generations->new_keys, key, sizeof key);
}

/* Somebody may have written into the old tree although he should not have: such a file is made anew. */
static bool is_untouched(int dir, const char *path, const struct remora_entry *entry)
{
    struct stat info;
    return fstatat(dir, path, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode) &&
           (uint64_t)info.st_size == entry->size && cli_nanoseconds(&info.st_mtim) == entry->mtime_ns;
}

bool cli_generations_take(struct cli_generations *generations, int dir, const char *name, const char *path,
                          const char *whole_path, const struct remora_entry *entry)
{
    uint8_t key[CLI_GENERATION_KEY];
    if (generations->keys_n == 0 || generations->current_dir < 0 || !key_of(whole_path, entry, key) ||
        bsearch(key, generations->keys, generations->keys_n, sizeof key, compare_keys) == NULL)
        return false;
    return is_untouched(generations->current_dir, path, entry) &&
           linkat(generations->current_dir, path, dir, name, 0) == 0;
}

/* Old generations */

static void collect(const struct cli_generations *generations, const char *name)
{
    char keys[CLI_GENERATION_NAME];
    uint64_t n = number_of(name);
    if (n == 0 || n == generations->current || cli_tree_in_use(generations->home, name))
        return;
    if (cli_remove_tree(generations->home, name) == 0) {
        name_of("gen-", n, ".keys", keys);
        unlinkat(generations->home, keys, 0);
    }
}

void cli_generations_collect(struct cli_generations *generations)
{
    each_name(generations, collect);
}
