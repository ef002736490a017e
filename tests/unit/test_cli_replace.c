/* A local name gets something new whole or stays what it was: whose leftovers are replaced, what never is, and who is kept apart. */
#include "cli/replace.h"
#include "scratch_support.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

struct place {
    char path[SCRATCH_PATH_SIZE];
    int dir;
};

static int set_up(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    assert_non_null(place);
    scratch_make(place->path);
    place->dir = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
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

static void make_file(const struct place *place, const char *name, const char *text)
{
    int fd = openat(place->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static off_t size_of(const struct place *place, const char *name)
{
    struct stat info;
    assert_int_equal(fstatat(place->dir, name, &info, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISREG(info.st_mode));
    return info.st_size;
}

static void expect_file(const struct place *place)
{
    struct cli_temporary temporary;
    assert_int_equal(cli_temporary_file(place->dir, "target", "target", &temporary), 0);
    assert_int_equal(size_of(place, temporary.name), 0);
    close(temporary.fd);
    assert_int_equal(cli_remove_tree(place->dir, temporary.name), 0);
}

static void a_name_belongs_to_its_target(void **state)
{
    char a[CLI_TEMPORARY_TEXT], again[CLI_TEMPORARY_TEXT], b[CLI_TEMPORARY_TEXT];
    (void)state;
    cli_temporary_name("a", a);
    cli_temporary_name("a", again);
    cli_temporary_name("b", b);
    assert_string_equal(a, again);
    assert_string_not_equal(a, b);
    assert_int_equal(strlen(a), strlen(".remora-") + 16);
}

/* Whatever lies under the name, it is no longer in the way; what a link leads to is left alone. */
static void leftovers_are_replaced(void **state)
{
    const struct place *place = *state;
    char name[CLI_TEMPORARY_TEXT];
    cli_temporary_name("target", name);
    make_file(place, name, "half of it");
    expect_file(place);
    assert_int_equal(mkdirat(place->dir, name, 0700), 0);
    expect_file(place);
    assert_int_equal(mkfifoat(place->dir, name, 0600), 0);
    expect_file(place);
    make_file(place, "precious", "kept");
    assert_int_equal(symlinkat("precious", place->dir, name), 0);
    expect_file(place);
    assert_int_equal(linkat(place->dir, "precious", place->dir, name, 0), 0);
    expect_file(place);
    assert_int_equal(size_of(place, "precious"), 4);
}

static void leftover_directories_are_replaced(void **state)
{
    const struct place *place = *state;
    struct cli_temporary temporary;
    char name[CLI_TEMPORARY_TEXT], below[2 * CLI_TEMPORARY_TEXT];
    struct stat info;
    cli_temporary_name("target", name);
    snprintf(below, sizeof below, "%s/half", name);
    assert_int_equal(mkdirat(place->dir, name, 0700), 0);
    make_file(place, below, "of it");
    assert_int_equal(cli_temporary_directory(place->dir, "target", "target", &temporary), 0);
    assert_int_equal(fstatat(place->dir, below, &info, 0), -1);
    assert_int_equal(mkdirat(temporary.fd, "new", 0700), 0);
    assert_int_equal(cli_rename(place->dir, temporary.name, "target", false, "target"), 0);
    assert_int_equal(fstatat(place->dir, "target/new", &info, 0), 0);
    close(temporary.fd);
    make_file(place, name, "a file this time");
    assert_int_equal(cli_temporary_directory(place->dir, "target", "target", &temporary), 0);
    close(temporary.fd);
}

/* Two that get one target at once do not write into each other's: the second is told. */
static void two_are_kept_apart(void **state)
{
    const struct place *place = *state;
    struct cli_temporary first, second;
    assert_int_equal(cli_temporary_file(place->dir, "target", "target", &first), 0);
    assert_int_equal(write(first.fd, "mine", 4), 4);
    assert_int_equal(cli_temporary_file(place->dir, "target", "target", &second), CLI_BUSY);
    assert_int_equal(size_of(place, first.name), 4);
    assert_int_equal(cli_temporary_file(place->dir, "another", "another", &second), 0);
    close(second.fd);
    /* The first is done: its file is the target now, and a new one is begun. */
    assert_int_equal(cli_rename(place->dir, first.name, "target", false, "target"), 0);
    assert_int_equal(cli_temporary_file(place->dir, "target", "target", &second), 0);
    assert_int_equal(size_of(place, "target"), 4);
    close(first.fd);
    close(second.fd);
    assert_int_equal(cli_remove_tree(place->dir, second.name), 0);
    assert_int_equal(cli_temporary_directory(place->dir, "target", "target", &first), 0);
    assert_int_equal(cli_temporary_directory(place->dir, "target", "target", &second), CLI_BUSY);
    close(first.fd);
}

static void what_came_up_meanwhile_stays(void **state)
{
    const struct place *place = *state;
    make_file(place, "new", "new");
    make_file(place, "there", "old file");
    assert_int_equal(cli_rename(place->dir, "new", "there", false, "there"), CLI_REFUSED);
    assert_int_equal(size_of(place, "there"), 8);
    assert_int_equal(cli_rename(place->dir, "new", "there", true, "there"), 0);
    assert_int_equal(size_of(place, "there"), 3);
}

/* Rows: what is there; columns: what comes. */
static void special_files_give_way_to_their_own_kind_only(void **state)
{
    static const mode_t THERE[] = {S_IFREG, S_IFLNK, S_IFDIR, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
    static const enum remora_kind COMES[] = {REMORA_FILE,   REMORA_SYMLINK, REMORA_DIRECTORY, REMORA_FIFO,
                                             REMORA_SOCKET, REMORA_CHAR,    REMORA_BLOCK};
    static const char *const MAY[] = {"yy.yyyy", "yy.yyyy", "..y....", "...y...",
                                      "....y..", ".....y.", "......y"};
    (void)state;
    for (size_t i = 0; i < 7; i++)
        for (size_t j = 0; j < 7; j++) {
            struct stat info = {.st_mode = THERE[i] | 0644};
            assert_int_equal(cli_may_replace(&info, COMES[j], "it"), MAY[i][j] == 'y' ? 0 : CLI_REFUSED);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_belongs_to_its_target),
        cmocka_unit_test_setup_teardown(leftovers_are_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leftover_directories_are_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(two_are_kept_apart, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_came_up_meanwhile_stays, set_up, tear_down),
        cmocka_unit_test(special_files_give_way_to_their_own_kind_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
