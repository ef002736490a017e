/* The command line's dealings with the local file system: scanning what is to be put, copying with holes,
 * checking against a content id, removing trees, and the generations of a checkout. */
#include "cli/copy.h"
#include "cli/generation.h"
#include "cli/restore.h"
#include "cli/source.h"

#include "replica/merkle.h"
#include "scratch_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

struct place {
    char path[SCRATCH_PATH_SIZE];
    int dir;
};

static int set_up(void **state)
{
    struct place *place = malloc(sizeof *place);
    assert_non_null(place);
    scratch_make(place->path);
    place->dir = open(place->path, O_RDONLY | O_DIRECTORY);
    assert_true(place->dir >= 0);
    *state = place;
    return 0;
}

static int tear_down(void **state)
{
    struct place *place = *state;
    close(place->dir);
    scratch_remove(place->path);
    free(place);
    return 0;
}

static void path_in(const struct place *place, const char *name, char ret_path[PATH_MAX])
{
    snprintf(ret_path, PATH_MAX, "%s/%s", place->path, name);
}

static int open_file(const struct place *place, const char *name)
{
    int fd = openat(place->dir, name, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void write_at(int fd, off_t at, const char *text)
{
    assert_int_equal(pwrite(fd, text, strlen(text), at), (ssize_t)strlen(text));
}

static void make_file(const struct place *place, const char *name, const char *text)
{
    int fd = open_file(place, name);
    write_at(fd, 0, text);
    close(fd);
}

/* ids */

static void first_names_are_kept_however_many(void **state)
{
    struct cli_ids ids = {0};
    const char *first;
    (void)state;
    for (int round = 0; round < 2; round++)
        for (uint64_t i = 0; i < 5000; i++) {
            uint64_t id[2] = {i, i * i};
            char path[32];
            snprintf(path, sizeof path, "%d-%llu", round, (unsigned long long)i);
            assert_int_equal(cli_ids_first(&ids, (uint8_t *)id, path, &first), 0);
            if (round == 0) {
                assert_null(first);
            } else {
                path[0] = '0';
                assert_string_equal(first, path);
            }
        }
    cli_ids_close(&ids);
}

/* source */

static const struct cli_source_item *item_of(const struct cli_source *source, const char *path)
{
    for (size_t i = 0; i < source->n; i++)
        if (strcmp(source->items[i].path, path) == 0)
            return &source->items[i];
    fail_msg("%s was not found", path);
    return NULL;
}

/* Breadth first, children together and in order, one of several names of an inode counted and the others
 * links to it. */
static void a_scan_finds_everything_in_order(void **state)
{
    const struct place *place = *state;
    struct cli_source source;
    const struct cli_source_item *b;
    assert_int_equal(mkdirat(place->dir, "b", 0755), 0);
    make_file(place, "b/y", "yy");
    make_file(place, "b/x", "x");
    make_file(place, "a", "aaa");
    assert_int_equal(linkat(place->dir, "a", place->dir, "b/a-too", 0), 0);
    assert_int_equal(symlinkat("nowhere", place->dir, "c"), 0);
    assert_int_equal(cli_source_scan(place->path, &source), 0);
    assert_int_equal(source.n, 7 /* root, a, b, c, b/a-too, b/x, b/y */);
    assert_string_equal(source.items[0].path, "");
    assert_int_equal(source.items[0].children_n, 3);
    b = item_of(&source, "b");
    assert_int_equal(b->children_n, 3);
    assert_string_equal(source.items[b->first].path, "b/a-too");
    assert_string_equal(source.items[b->first].link, "a");
    assert_string_equal(source.items[b->first + 2].path, "b/y");
    assert_int_equal(source.count.files, 4 /* a, b/x, b/y, c */);
    assert_int_equal(source.count.directories, 2 /* the root, b */);
    assert_int_equal(source.count.bytes, 6);
    cli_source_close(&source);
}

static void a_link_given_as_the_root_is_followed(void **state)
{
    const struct place *place = *state;
    struct cli_source source;
    char path[PATH_MAX];
    make_file(place, "blob", "weights");
    assert_int_equal(symlinkat("blob", place->dir, "model"), 0);
    path_in(place, "model", path);
    assert_int_equal(cli_source_scan(path, &source), 0);
    assert_true(S_ISREG(source.items[0].mode));
    assert_int_equal(source.count.bytes, 7);
    cli_source_close(&source);
}

static void a_missing_source_fails(void **state)
{
    const struct place *place = *state;
    struct cli_source source;
    char path[PATH_MAX];
    path_in(place, "missing", path);
    assert_int_equal(cli_source_scan(path, &source), CLI_FAILED);
    cli_source_close(&source);
}

/* Writing to a file shows in what is compared, also when its size stays; looking at it does not. */
static void a_change_is_noticed(void **state)
{
    const struct place *place = *state;
    struct stat before, after;
    char byte;
    int fd = open_file(place, "f");
    struct timespec old = {.tv_sec = 1000000000}, times[2] = {old, old};
    write_at(fd, 0, "one");
    assert_int_equal(futimens(fd, times), 0);
    assert_int_equal(fstat(fd, &before), 0);
    assert_int_equal(pread(fd, &byte, 1, 0), 1);
    assert_int_equal(fstat(fd, &after), 0);
    assert_false(cli_source_changed(&before, &after));
    write_at(fd, 0, "two");
    assert_int_equal(fstat(fd, &after), 0);
    assert_true(cli_source_changed(&before, &after));
    close(fd);
}

/* copy and verify */

static int count_calls(void *context, uint64_t done)
{
    (void)done;
    ++*(int *)context;
    return 0;
}

static int stop_at_once(void *context, uint64_t done)
{
    (void)context;
    (void)done;
    return 1;
}

static void id_of(int fd, size_t size, char ret_hex[65])
{
    struct replica_content_id id;
    uint8_t *data = calloc(1, size + 1);
    assert_non_null(data);
    assert_int_equal(pread(fd, data, size, 0), (ssize_t)size);
    replica_merkle_content(data, size, &id);
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++)
        snprintf(ret_hex + 2 * i, 3, "%02x", id.root[i]);
    free(data);
}

/* Data, a hole over whole chunks, data in the middle of a chunk, a hole up to the end. */
static int make_sparse(const struct place *place, size_t *ret_size)
{
    int fd = open_file(place, "sparse");
    write_at(fd, 0, "beginning");
    write_at(fd, (off_t)(9 * MIB + 12345), "middle");
    *ret_size = 20 * MIB + 7;
    assert_int_equal(ftruncate(fd, (off_t)*ret_size), 0);
    return fd;
}

static void copies_keep_bytes_and_holes(void **state)
{
    const struct place *place = *state;
    size_t size;
    int from = make_sparse(place, &size), to = open_file(place, "copy"), calls = 0;
    struct stat info;
    char expected[65];
    id_of(from, size, expected);
    assert_int_equal(cli_copy(from, to, size, count_calls, &calls), 0);
    assert_int_equal(fstat(to, &info), 0);
    assert_int_equal((size_t)info.st_size, size);
    assert_true((size_t)info.st_blocks * 512 < size / 2);
    assert_int_equal(cli_verify(to, size, expected), 0);
    close(from);
    close(to);
}

static void a_copy_can_be_ended(void **state)
{
    const struct place *place = *state;
    size_t size;
    int from = make_sparse(place, &size), to = open_file(place, "copy");
    int code = cli_copy(from, to, size, stop_at_once, NULL);
    assert_true(code == 1 || code == 0); /* 0: a reflink, which has no in between */
    close(from);
    close(to);
}

/* Every size at which the shape of the tree changes; one flipped bit anywhere is noticed. */
static void verification_agrees_with_the_content_id(void **state)
{
    static const size_t SIZES[] = {0, 1, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1, 3 * MIB + 5};
    const struct place *place = *state;
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        int fd = open_file(place, "v");
        char expected[65];
        uint8_t byte = (uint8_t)i;
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(ftruncate(fd, (off_t)SIZES[i]), 0);
        if (SIZES[i] > 0)
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)SIZES[i] / 2), 1);
        id_of(fd, SIZES[i], expected);
        assert_int_equal(cli_verify(fd, SIZES[i], expected), 0);
        if (SIZES[i] > 0) {
            byte ^= 0x80;
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)SIZES[i] / 2), 1);
            assert_int_equal(cli_verify(fd, SIZES[i], expected), 1);
        }
        close(fd);
    }
}

/* Removing */

static void removing_never_follows_a_link(void **state)
{
    const struct place *place = *state;
    assert_int_equal(mkdirat(place->dir, "keep", 0755), 0);
    make_file(place, "keep/file", "kept");
    assert_int_equal(mkdirat(place->dir, "tree", 0755), 0);
    assert_int_equal(symlinkat("../keep", place->dir, "tree/link"), 0);
    assert_int_equal(mkdirat(place->dir, "tree/closed", 0755), 0);
    make_file(place, "tree/closed/file", "x");
    assert_int_equal(fchmodat(place->dir, "tree/closed", 0500, 0), 0);
    assert_int_equal(cli_remove_tree(place->dir, "tree"), 0);
    assert_int_equal(faccessat(place->dir, "tree", F_OK, 0), -1);
    assert_int_equal(faccessat(place->dir, "keep/file", F_OK, 0), 0);
    assert_int_equal(cli_remove_tree(place->dir, "tree"), 0); /* nothing there: fine */
}

/* Generations */

static struct remora_entry entry_of(int64_t mtime_ns, uint64_t size)
{
    struct remora_entry entry = {
        .path = NULL, .kind = REMORA_FILE, .mode = 0644, .mtime_ns = mtime_ns, .size = size, .fd = -1};
    return entry;
}

static void begin_with(struct cli_generations *generations, const char *name, const char *text)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 5, .tv_nsec = 7}};
    int dir, fd;
    assert_int_equal(cli_generations_begin(generations, &dir), 0);
    fd = openat(dir, name, O_WRONLY | O_CREAT, 0644);
    assert_true(fd >= 0);
    write_at(fd, 0, text);
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    close(dir);
}

static void expect_content(const struct place *place, const char *path, const char *expected)
{
    char text[32] = "";
    int fd = openat(place->dir, path, O_RDONLY);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) >= 0);
    close(fd);
    assert_string_equal(text, expected);
}

static void a_switch_replaces_the_whole_tree(void **state)
{
    const struct place *place = *state;
    struct cli_generations generations;
    struct stat info;
    char path[PATH_MAX];
    path_in(place, "out/", path);
    assert_int_equal(cli_generations_open(path, &generations), 0);
    begin_with(&generations, "f", "one");
    assert_int_equal(faccessat(place->dir, "out", F_OK, 0), -1); /* not before the switch */
    assert_int_equal(cli_generations_switch(&generations), 0);
    expect_content(place, "out/f", "one");
    begin_with(&generations, "f", "two");
    expect_content(place, "out/f", "one");
    assert_int_equal(cli_generations_switch(&generations), 0);
    expect_content(place, "out/f", "two");
    assert_int_equal(generations.current, 2);
    cli_generations_collect(&generations);
    assert_int_equal(fstatat(place->dir, ".out.remora/gen-1", &info, 0), -1);
    assert_int_equal(fstatat(place->dir, ".out.remora/gen-2", &info, 0), 0);
    cli_generations_close(&generations);
}

static void a_generation_in_use_stays(void **state)
{
    const struct place *place = *state;
    struct cli_generations generations;
    struct stat info;
    char path[PATH_MAX];
    int reader;
    path_in(place, "out", path);
    assert_int_equal(cli_generations_open(path, &generations), 0);
    begin_with(&generations, "f", "one");
    assert_int_equal(cli_generations_switch(&generations), 0);
    reader = openat(place->dir, "out/f", O_RDONLY);
    assert_true(reader >= 0);
    begin_with(&generations, "f", "two");
    assert_int_equal(cli_generations_switch(&generations), 0);
    cli_generations_collect(&generations);
    assert_int_equal(fstatat(place->dir, ".out.remora/gen-1", &info, 0), 0);
    close(reader);
    cli_generations_collect(&generations);
    assert_int_equal(fstatat(place->dir, ".out.remora/gen-1", &info, 0), -1);
    cli_generations_close(&generations);
}

/* What was half-written when a checkout was killed goes at the next one, and the tree that DIR shows stays.
 */
static void a_killed_checkout_leaves_no_trace(void **state)
{
    const struct place *place = *state;
    struct cli_generations generations;
    struct stat info;
    char path[PATH_MAX];
    path_in(place, "out", path);
    assert_int_equal(cli_generations_open(path, &generations), 0);
    begin_with(&generations, "f", "one");
    assert_int_equal(cli_generations_switch(&generations), 0);
    begin_with(&generations, "f", "half");
    cli_generations_close(&generations);
    assert_int_equal(fstatat(place->dir, ".out.remora/new-2", &info, 0), 0);
    assert_int_equal(cli_generations_open(path, &generations), 0);
    assert_int_equal(generations.current, 1);
    assert_int_equal(fstatat(place->dir, ".out.remora/new-2", &info, 0), -1);
    expect_content(place, "out/f", "one");
    cli_generations_close(&generations);
}

static void what_stayed_the_same_is_linked(void **state)
{
    const struct place *place = *state;
    struct cli_generations generations;
    struct remora_entry entry = entry_of(5000000007, 3), other = entry_of(5000000007, 3);
    char path[PATH_MAX];
    int dir;
    strcpy(other.stamp, "0123");
    path_in(place, "out", path);
    assert_int_equal(cli_generations_open(path, &generations), 0);
    begin_with(&generations, "f", "one");
    cli_generations_note(&generations, "sub/f", &entry);
    assert_int_equal(cli_generations_switch(&generations), 0);
    assert_int_equal(cli_generations_begin(&generations, &dir), 0);
    assert_false(cli_generations_take(&generations, dir, "f", "f", "sub/f", &other)); /* another version */
    assert_false(cli_generations_take(&generations, dir, "f", "f", "sub/g", &entry)); /* another path */
    assert_true(cli_generations_take(&generations, dir, "f", "f", "sub/f", &entry));
    assert_int_equal(unlinkat(dir, "f", 0), 0);
    make_file(place, "out/f", "ONE"); /* somebody wrote into the tree: its time tells */
    assert_false(cli_generations_take(&generations, dir, "f", "f", "sub/f", &entry));
    close(dir);
    cli_generations_close(&generations);
}

static void only_our_own_is_replaced(void **state)
{
    const struct place *place = *state;
    struct cli_generations generations, second;
    char path[PATH_MAX];
    assert_int_equal(mkdirat(place->dir, "full", 0755), 0);
    make_file(place, "full/file", "kept");
    path_in(place, "full", path);
    assert_int_equal(cli_generations_open(path, &generations), CLI_REFUSED);
    cli_generations_close(&generations);
    expect_content(place, "full/file", "kept");
    assert_int_equal(symlinkat("full", place->dir, "link"), 0);
    path_in(place, "link", path);
    assert_int_equal(cli_generations_open(path, &generations), CLI_REFUSED);
    cli_generations_close(&generations);
    make_file(place, "file", "kept");
    path_in(place, "file", path);
    assert_int_equal(cli_generations_open(path, &generations), CLI_REFUSED);
    cli_generations_close(&generations);
    assert_int_equal(mkdirat(place->dir, "empty", 0755), 0);
    path_in(place, "empty", path);
    assert_int_equal(cli_generations_open(path, &generations), 0);
    assert_int_equal(cli_generations_open(path, &second), CLI_BUSY); /* one checkout at a time */
    cli_generations_close(&second);
    cli_generations_close(&generations);
}

#define IN_A_PLACE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_names_are_kept_however_many),
        IN_A_PLACE(a_scan_finds_everything_in_order),
        IN_A_PLACE(a_link_given_as_the_root_is_followed),
        IN_A_PLACE(a_missing_source_fails),
        IN_A_PLACE(a_change_is_noticed),
        IN_A_PLACE(copies_keep_bytes_and_holes),
        IN_A_PLACE(a_copy_can_be_ended),
        IN_A_PLACE(verification_agrees_with_the_content_id),
        IN_A_PLACE(removing_never_follows_a_link),
        IN_A_PLACE(a_switch_replaces_the_whole_tree),
        IN_A_PLACE(a_generation_in_use_stays),
        IN_A_PLACE(a_killed_checkout_leaves_no_trace),
        IN_A_PLACE(what_stayed_the_same_is_linked),
        IN_A_PLACE(only_our_own_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
