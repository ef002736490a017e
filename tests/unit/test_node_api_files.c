/* The methods under fs. on a real node: every kind of entry, bytes of every size, drafts, trees. */
#include "node_fixture.h"

#include <sys/mman.h>
#include <sys/sysmacros.h>

#define MIB        ((size_t)1 << 20)
#define LARGE_SIZE (5 * MIB + 12345)
#define E_INVALID  (-11)
#define E_NOTDIR   (-12)
#define E_ISDIR    (-13)
#define E_NOTEMPTY (-14)
#define E_PERM     (-25)
#define E_TOOBIG   (-8)

static uint8_t *random_bytes(size_t n)
{
    uint8_t *bytes = malloc(n);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        bytes[i] = (uint8_t)x;
    }
    return bytes;
}

static int file_of(const uint8_t *bytes, size_t n)
{
    int fd = memfd_create("source", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    return fd;
}

static struct remora_entry file_entry(char *path, uint64_t size, int fd, const void *data)
{
    return (struct remora_entry){
        .path = path, .kind = REMORA_FILE, .mode = 0644, .size = size, .fd = fd, .data = data};
}

static void put_bytes(struct fixture *fixture, const struct remora_view *view, const char *path,
                      const uint8_t *bytes, size_t n)
{
    char name[256];
    int fd = file_of(bytes, n);
    struct remora_entry entry = file_entry(name, n, fd, NULL);
    snprintf(name, sizeof name, "%s", path);
    OK(fixture, remora_put(fixture->remora, view, &entry, 1, true));
    close(fd);
}

static void expect_bytes(struct fixture *fixture, const struct remora_view *view, const char *path,
                         const uint8_t *bytes, size_t n)
{
    uint8_t *got = malloc(n + 1);
    size_t got_n = 0;
    OK(fixture, remora_read(fixture->remora, view, path, 0, got, n + 1, &got_n));
    assert_int_equal(got_n, n);
    assert_memory_equal(got, bytes, n);
    free(got);
}

static void expect_descriptor(struct fixture *fixture, const struct remora_view *view, const char *path,
                              const uint8_t *bytes, size_t n)
{
    uint8_t *map;
    uint64_t size;
    int fd;
    OK(fixture, remora_open(fixture->remora, view, path, &fd, &size));
    assert_int_equal(size, n);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    map = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_memory_equal(map, bytes, n);
    munmap(map, n);
    close(fd);
}

/* Bytes of each size class come back the same: before the commit, after it, and from another view; read, and
 * by descriptor. */
static void test_sizes(void **state)
{
    static const size_t SIZES[] = {1, 256, 257, 65536, 65537, 1048576, LARGE_SIZE};
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v"), other;
    uint8_t *bytes = random_bytes(LARGE_SIZE);
    struct remora_entry entry;
    char path[64];
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        snprintf(path, sizeof path, "dir/%zu", SIZES[i]);
        put_bytes(fixture, &view, path, bytes, SIZES[i]);
        expect_bytes(fixture, &view, path, bytes, SIZES[i]);
    }
    commit(fixture, &view);
    other = open_view(fixture, "v", NULL, REMORA_READ_ONLY);
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        snprintf(path, sizeof path, "dir/%zu", SIZES[i]);
        expect_bytes(fixture, &other, path, bytes, SIZES[i]);
        expect_descriptor(fixture, &other, path, bytes, SIZES[i]);
        OK(fixture, remora_stat(fixture->remora, &other, path, &entry));
        assert_int_equal(entry.size, SIZES[i]);
        assert_true(entry.complete);
        assert_int_equal(strlen(entry.content), SIZES[i] <= 256 ? 0 : 64);
        remora_entry_free(&entry);
    }
    free(bytes);
}

/* Everything that tar keeps is kept: kinds, modes, owners, times, targets, devices, attributes. */
static void test_kinds(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    char names[8][8] = {"d", "d/f", "d/l", "d/p", "d/s", "d/c", "d/b", "e"}, target[] = "../somewhere",
         xname[] = "user.note";
    uint8_t value[] = {0, 255, 1};
    struct remora_xattr xattr = {xname, value, sizeof value};
    struct remora_entry entries[8], *listed, entry;
    size_t n;
    bool more;
    for (int i = 0; i < 8; i++)
        entries[i] = (struct remora_entry){.path = names[i],
                                           .mode = (uint32_t)(0600 + i),
                                           .uid = (uint32_t)(1000 + i),
                                           .gid = 7,
                                           .mtime_ns = -1000000007LL * i,
                                           .fd = -1};
    entries[0].kind = entries[7].kind = REMORA_DIRECTORY;
    entries[1].kind = REMORA_FILE;
    entries[1].data = "text";
    entries[1].size = 4;
    entries[1].mode = 04755;
    entries[1].xattrs = &xattr;
    entries[1].xattrs_n = 1;
    entries[2].kind = REMORA_SYMLINK;
    entries[2].target = target;
    entries[3].kind = REMORA_FIFO;
    entries[4].kind = REMORA_SOCKET;
    entries[5].kind = REMORA_CHAR;
    entries[6].kind = REMORA_BLOCK;
    entries[5].major = entries[6].major = 8;
    entries[5].minor = entries[6].minor = 99999;
    OK(fixture, remora_put(fixture->remora, &view, entries, 8, false));
    commit(fixture, &view);
    view = open_view(fixture, "v", NULL, 0);
    for (int i = 0; i < 8; i++) {
        OK(fixture, remora_stat(fixture->remora, &view, names[i], &entry));
        assert_int_equal(entry.kind, entries[i].kind);
        assert_int_equal(entry.mode, entries[i].mode);
        assert_int_equal(entry.uid, 1000 + i);
        assert_int_equal(entry.mtime_ns, entries[i].mtime_ns);
        assert_int_equal(entry.minor, entries[i].minor);
        if (entries[i].target != NULL)
            assert_string_equal(entry.target, target);
        if (i == 1)
            assert_memory_equal(entry.xattrs[0].value, value, sizeof value);
        remora_entry_free(&entry);
    }
    OK(fixture, remora_list(fixture->remora, &view, "d", "c", 3, &listed, &n, &more));
    assert_int_equal(n, 3); /* f, l, p; s is left */
    assert_true(more);
    assert_string_equal(listed[0].path, "f");
    for (size_t i = 0; i < n; i++)
        remora_entry_free(&listed[i]);
    free(listed);
}

/* Holes cost nothing, and read as zeros. */
static void test_sparse(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    uint64_t size = 256 * MIB, opened;
    struct stat status;
    uint8_t bytes[16], zeros[16] = {0};
    char path[] = "sparse";
    int fd = memfd_create("sparse", MFD_CLOEXEC);
    struct remora_entry entry = file_entry(path, size, fd, NULL);
    size_t n;
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(pwrite(fd, "middle", 6, (off_t)(100 * MIB)), 6);
    OK(fixture, remora_put(fixture->remora, &view, &entry, 1, false));
    close(fd);
    commit(fixture, &view);
    OK(fixture, remora_open(fixture->remora, &view, path, &fd, &opened));
    assert_int_equal(opened, size);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_size, size);
    assert_true((uint64_t)status.st_blocks * 512 < 4 * MIB);
    close(fd);
    OK(fixture, remora_read(fixture->remora, &view, path, 100 * MIB, bytes, 16, &n));
    assert_memory_equal(bytes, "middle\0\0", 8);
    OK(fixture, remora_read(fixture->remora, &view, path, size - 16, bytes, 32, &n));
    assert_int_equal(n, 16);
    assert_memory_equal(bytes, zeros, 16);
}

/* A write into a committed file changes this view only, keeps what it does not touch, and every earlier
 * reader keeps what it had. */
static void test_write_into_committed(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v"), before;
    uint8_t *bytes = random_bytes(LARGE_SIZE), *changed = malloc(LARGE_SIZE + MIB);
    uint64_t size;
    int fd;
    memcpy(changed, bytes, LARGE_SIZE);
    memcpy(changed + 3 * MIB - 2, "inside", 6);
    memset(changed + LARGE_SIZE, 0, MIB);
    memcpy(changed + LARGE_SIZE + MIB - 3, "end", 3);
    put_bytes(fixture, &view, "file", bytes, LARGE_SIZE);
    commit(fixture, &view);
    before = open_view(fixture, "v", NULL, 0);
    OK(fixture, remora_write(fixture->remora, &view, "file", 3 * MIB - 2, "inside", 6, false));
    OK(fixture, remora_open(fixture->remora, &view, "file", &fd, &size)); /* of the draft as it is now */
    OK(fixture, remora_write(fixture->remora, &view, "file", LARGE_SIZE + MIB - 3, "end", 3, false));
    expect_bytes(fixture, &view, "file", changed, LARGE_SIZE + MIB);
    expect_bytes(fixture, &before, "file", bytes, LARGE_SIZE);
    assert_int_equal(size, LARGE_SIZE);
    assert_int_equal(lseek(fd, 0, SEEK_END), LARGE_SIZE);
    close(fd);
    commit(fixture, &view);
    OK(fixture, remora_write(fixture->remora, &view, "file", 0, "after", 5, false));
    expect_bytes(fixture, &before, "file", bytes, LARGE_SIZE);
    reload(fixture, &before);
    expect_bytes(fixture, &before, "file", changed, LARGE_SIZE + MIB); /* not what was written after */
    memcpy(changed, "after", 5);
    commit(fixture, &view);
    reload(fixture, &before);
    expect_descriptor(fixture, &before, "file", changed, LARGE_SIZE + MIB);
    free(bytes);
    free(changed);
}

static void set_size(struct fixture *fixture, const struct remora_view *view, const char *path, uint64_t size,
                     int code)
{
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    params_view(&params, view, 2);
    params_text(&params, "path", path);
    params_number(&params, "size", size);
    assert_int_equal(ask(fixture, "fs.set", &params, &answer), code);
    free(answer.bytes);
}

static void test_truncate_and_set(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    uint8_t *bytes = random_bytes(LARGE_SIZE);
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    struct remora_entry entry;
    put_bytes(fixture, &view, "file", bytes, LARGE_SIZE);
    set_size(fixture, &view, "file", 2 * MIB + 1, 0);
    expect_bytes(fixture, &view, "file", bytes, 2 * MIB + 1);
    commit(fixture, &view);
    set_size(fixture, &view, "file", 100, 0);
    set_size(fixture, &view, "file", 200, 0);
    memset(bytes + 100, 0, 100);
    expect_bytes(fixture, &view, "file", bytes, 200);
    params_view(&params, &view, 4);
    params_text(&params, "path", "file");
    params_number(&params, "mode", 0400);
    params_number(&params, "mtime_ns", 77);
    replica_pack_cstr(&params, "xattrs");
    replica_pack_map(&params, 1);
    replica_pack_cstr(&params, "user.a");
    replica_pack_bin(&params, "b", 1);
    OK(fixture, ask(fixture, "fs.set", &params, &answer));
    free(answer.bytes);
    commit(fixture, &view);
    OK(fixture, remora_stat(fixture->remora, &view, "file", &entry));
    assert_int_equal(entry.mode, 0400);
    assert_int_equal(entry.mtime_ns, 77);
    assert_int_equal(entry.size, 200);
    assert_int_equal(entry.xattrs_n, 1);
    remora_entry_free(&entry);
    expect_bytes(fixture, &view, "file", bytes, 200);
    set_size(fixture, &view, "nothing", 1, REMORA_E_NOTFOUND);
    set_size(fixture, &view, "", 1, E_ISDIR);
    free(bytes);
}

/* A copy shares bytes with its source, drafts too, and neither sees what is written to the other. */
static void test_copy(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    write_text(fixture, &view, "a", "draft of some length, to be shared by two names");
    OK(fixture, remora_copy(fixture->remora, &view, "a", "b", false));
    OK(fixture, remora_write(fixture->remora, &view, "a", 0, "DRAFT", 5, false));
    expect_text(fixture, &view, "a", "DRAFT of some length, to be shared by two names");
    expect_text(fixture, &view, "b", "draft of some length, to be shared by two names");
    OK(fixture, remora_mkdir(fixture->remora, &view, "d/e", 0700, true));
    OK(fixture, remora_rename(fixture->remora, &view, "a", "d/e/a"));
    REFUSED(fixture, E_ISDIR, remora_copy(fixture->remora, &view, "d", "f", false), "recursive");
    OK(fixture, remora_copy(fixture->remora, &view, "d", "f", true));
    expect_text(fixture, &view, "f/e/a", "DRAFT of some length, to be shared by two names");
    REFUSED(fixture, E_INVALID, remora_copy(fixture->remora, &view, "d", "d/e/g", true), "into itself");
    REFUSED(fixture, E_INVALID, remora_copy(fixture->remora, &view, "d", "d", true), "itself");
    commit(fixture, &view);
    expect_text(fixture, &view, "b", "draft of some length, to be shared by two names");
    expect_text(fixture, &view, "d/e/a", "DRAFT of some length, to be shared by two names");
}

/* A tree wider than a page and than a listing: put in few calls, moved whole, copied, removed. */
static void test_large_tree(void **state)
{
    enum { FILES = 2500, A_CALL = 500 };
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v"), other;
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    struct remora_entry entries[A_CALL];
    static char names[A_CALL][32];
    for (int i = 0; i < FILES; i += A_CALL) {
        for (int j = 0; j < A_CALL; j++) {
            snprintf(names[j], sizeof names[j], "t/%d/f%04d", (i + j) % 7, i + j);
            entries[j] = file_entry(names[j], 6, -1, names[j]);
        }
        OK(fixture, remora_put(fixture->remora, &view, entries, A_CALL, true));
    }
    commit(fixture, &view);
    OK(fixture, remora_rename(fixture->remora, &view, "t", "u"));
    expect_missing(fixture, &view, "t");
    expect_text(fixture, &view, "u/1/f0001", "t/1/f0");
    OK(fixture, remora_copy(fixture->remora, &view, "u", "w", true));
    commit(fixture, &view);
    other = open_view(fixture, "v", NULL, 0);
    expect_missing(fixture, &other, "t");
    expect_text(fixture, &other, "w/6/f2498", "t/6/f2");
    params_view(&params, &other, 2);
    params_text(&params, "path", "");
    params_bool(&params, "recursive", true);
    OK(fixture, ask(fixture, "fs.fetch", &params, &answer));
    assert_int_equal(number_of(&answer, "files"), 2 * FILES);
    assert_int_equal(number_of(&answer, "bytes"), 2 * FILES * 6);
    REFUSED(fixture, E_NOTEMPTY, remora_remove(fixture->remora, &other, "u", false), "not empty");
    params_view(&params, &other, 2);
    params_text(&params, "path", "u");
    params_bool(&params, "recursive", true);
    OK(fixture, ask(fixture, "fs.remove", &params, &answer));
    assert_int_equal(number_of(&answer, "count"), FILES + 7 + 1);
    expect_missing(fixture, &other, "u");
    commit(fixture, &other);
    reload(fixture, &view);
    expect_missing(fixture, &view, "u/1/f0001");
    expect_text(fixture, &view, "w/1/f0001", "t/1/f0");
    free(answer.bytes);
}

/* Two names of one file: a write through one is seen through the other, in other views too. Not in a volume
 * of version 1. */
static void test_hard_links(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v"), other, old;
    struct remora_entry a, b;
    write_text(fixture, &view, "a", "one");
    OK(fixture, remora_link(fixture->remora, &view, "a", "b"));
    REFUSED(fixture, REMORA_E_EXISTS, remora_link(fixture->remora, &view, "a", "b"), "b");
    OK(fixture, remora_write(fixture->remora, &view, "b", 0, "two", 3, false));
    expect_text(fixture, &view, "a", "two");
    commit(fixture, &view);
    other = open_view(fixture, "v", NULL, 0);
    OK(fixture, remora_stat(fixture->remora, &other, "a", &a));
    OK(fixture, remora_stat(fixture->remora, &other, "b", &b));
    assert_true(a.has_object && b.has_object);
    assert_memory_equal(a.object, b.object, 16);
    assert_int_equal(a.links, 2);
    remora_entry_free(&a);
    remora_entry_free(&b);
    OK(fixture, remora_remove(fixture->remora, &other, "a", false));
    expect_text(fixture, &other, "b", "two");
    OK(fixture, remora_volume_create(fixture->remora, "old", 1, 0));
    old = open_view(fixture, "old", NULL, 0);
    write_text(fixture, &old, "a", "one");
    REFUSED(fixture, E_PERM, remora_link(fixture->remora, &old, "a", "b"), "version 1");
}

/* Both sides of what may lie over what. */
static void test_refusals_name_the_thing(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    struct remora_entry entry;
    char d[] = "dir", f[] = "file", below[] = "file/below", name[300];
    struct remora_entry over_dir = file_entry(d, 1, -1, "x"), over_file = file_entry(f, 1, -1, "y"),
                        under_file = file_entry(below, 1, -1, "z");
    OK(fixture, remora_mkdir(fixture->remora, &view, "dir", 0755, false));
    REFUSED(fixture, REMORA_E_EXISTS, remora_mkdir(fixture->remora, &view, "dir", 0755, false), "dir");
    OK(fixture, remora_mkdir(fixture->remora, &view, "dir", 0755, true));
    REFUSED(fixture, REMORA_E_NOTFOUND, remora_mkdir(fixture->remora, &view, "no/such", 0755, false),
            "no/such");
    write_text(fixture, &view, "file", "x");
    REFUSED(fixture, E_ISDIR, remora_put(fixture->remora, &view, &over_dir, 1, false), "dir");
    OK(fixture, remora_put(fixture->remora, &view, &over_file, 1, false));
    REFUSED(fixture, E_NOTDIR, remora_put(fixture->remora, &view, &under_file, 1, true), "file/below");
    REFUSED(fixture, E_NOTDIR, remora_write(fixture->remora, &view, "file/x", 0, "x", 1, true), "file/x");
    REFUSED(fixture, REMORA_E_NOTFOUND, remora_write(fixture->remora, &view, "new", 0, "x", 1, false), "new");
    REFUSED(fixture, E_TOOBIG, remora_write(fixture->remora, &view, "file", (uint64_t)1 << 40, "x", 1, false),
            "1 TiB");
    REFUSED(fixture, E_INVALID, remora_remove(fixture->remora, &view, "/", true), "root");
    REFUSED(fixture, E_INVALID, remora_stat(fixture->remora, &view, "a/../b", &entry), "..");
    memset(name, 'n', sizeof name);
    name[255] = '\0';
    OK(fixture, remora_write(fixture->remora, &view, name, 0, "x", 1, true));
    name[255] = 'n';
    name[256] = '\0';
    REFUSED(fixture, E_TOOBIG, remora_write(fixture->remora, &view, name, 0, "x", 1, true), "255");
    expect_text(fixture, &view, "file", "y");
}

/* Descriptors that are no file, and files that change while they are read. */
static void test_bad_sources(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    int directory = open(fixture->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
        zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    uint8_t *bytes = random_bytes(LARGE_SIZE);
    int only_write, fd = file_of(bytes, LARGE_SIZE), code = 0;
    char path[] = "x", name[64];
    struct remora_entry entry = file_entry(path, 1, directory, NULL);
    pid_t writer;
    REFUSED(fixture, E_INVALID, remora_put(fixture->remora, &view, &entry, 1, false), "directory");
    entry.fd = zero;
    REFUSED(fixture, E_INVALID, remora_put(fixture->remora, &view, &entry, 1, false), "regular");
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    only_write = open(name, O_WRONLY | O_CLOEXEC);
    entry.fd = only_write;
    assert_int_not_equal(remora_put(fixture->remora, &view, &entry, 1, false), 0);
    writer = scratch_fork();
    if (writer == 0)
        for (;;)
            (void)!write(fd, bytes, 1);
    entry.fd = fd;
    for (int i = 0; i < 20 && code == 0; i++)
        code = remora_put(fixture->remora, &view, &entry, 1, false);
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    assert_int_equal(code, REMORA_E_BUSY);
    assert_non_null(strstr(remora_error(fixture->remora), "changed while it was read"));
    OK(fixture, remora_put(fixture->remora, &view, &entry, 1, false)); /* now it holds still */
    close(directory);
    close(zero);
    close(only_write);
    close(fd);
    free(bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sizes),
        TEST(test_kinds),
        TEST(test_sparse),
        TEST(test_write_into_committed),
        TEST(test_truncate_and_set),
        TEST(test_copy),
        TEST(test_large_tree),
        TEST(test_hard_links),
        TEST(test_refusals_name_the_thing),
        TEST(test_bad_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
