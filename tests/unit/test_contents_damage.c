/* Damage on the disk: every kind of byte that a store of contents keeps is flipped, cut off or removed, and
 * nothing wrong is ever read; what is damaged counts as not held, is kept aside, and can be brought again. */
#include "replica/contents_files.h"
#include "replica/error.h"
#include "replica/kv_leveldb.h"
#include "replica/merkle.h"
#include "scratch_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL 5000                          /* lies in a pack */
#define LARGE ((size_t)3 * 1048576 + 12345) /* four chunks, a file of its own */

struct fixture {
    char directory[SCRATCH_PATH_SIZE], log_path[80], path[80];
    struct replica_kv *log;
    struct replica_contents *contents;
    uint8_t *bytes; /* LARGE of them, no zeros in a row */
    struct replica_content_id damaged;
    char where[160];
    unsigned damages;
};

static void on_damage(void *context, const struct replica_content_id *id, const char *where)
{
    struct fixture *f = context;
    f->damaged = *id;
    f->damages++;
    snprintf(f->where, sizeof f->where, "%s", where);
}

static void open_all(struct fixture *f)
{
    struct replica_kv_leveldb_options log = {
        .path = f->log_path, .write_buffer_size = 1 << 20, .cache_size = 1 << 20, .open_files_max = 50};
    struct replica_contents_files_options files = {.path = f->path, .on_damage = on_damage, .context = f};
    assert_int_equal(replica_kv_leveldb_open(&log, &f->log, NULL), 0);
    files.log = f->log;
    assert_int_equal(replica_contents_files_open(&files, &f->contents), 0);
}

static void next_life(struct fixture *f)
{
    replica_contents_destroy(&f->contents);
    replica_kv_destroy(&f->log);
    open_all(f);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    scratch_make(f->directory);
    snprintf(f->log_path, sizeof f->log_path, "%s/log", f->directory);
    snprintf(f->path, sizeof f->path, "%s/contents", f->directory);
    f->bytes = malloc(LARGE);
    for (size_t i = 0; i < LARGE; i++)
        f->bytes[i] = (uint8_t)(1 + (i * 2654435761u >> 13) % 255);
    open_all(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    replica_contents_destroy(&f->contents);
    replica_kv_destroy(&f->log);
    scratch_remove(f->directory);
    free(f->bytes);
    free(f);
    return 0;
}

static struct replica_content_id make(struct fixture *f, size_t n)
{
    struct replica_content_id id;
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes, n, &id), 0);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    return id;
}

static void name_of(const struct replica_content_id *id, char ret[128])
{
    int n = 0;
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++)
        n += snprintf(ret + n, 128 - (size_t)n, "%02x", id->root[i]);
    snprintf(ret + n, 128 - (size_t)n, "-%llu", (unsigned long long)id->length);
}

static void path_of(const struct fixture *f, const char *directory, const struct replica_content_id *id,
                    char ret[512])
{
    char name[128];
    name_of(id, name);
    if (strcmp(directory, "whole") == 0)
        snprintf(ret, 512, "%s/whole/%.2s/%s", f->path, name, name);
    else
        snprintf(ret, 512, "%s/%s/%s", f->path, directory, name);
}

/* The one pack that has something in it. */
static void pack_path(const struct fixture *f, char ret[512])
{
    struct dirent *entry;
    char packs[128];
    DIR *listing;
    snprintf(packs, sizeof packs, "%s/packs", f->path);
    listing = opendir(packs);
    assert_non_null(listing);
    ret[0] = '\0';
    while ((entry = readdir(listing)) != NULL)
        if (entry->d_name[0] != '.')
            snprintf(ret, 512, "%s/%s", packs, entry->d_name);
    closedir(listing);
    assert_int_not_equal(ret[0], '\0');
}

/* Flips one bit, and puts the times back as they were: as a disk would do it. */
static void flip(const char *path, off_t at)
{
    struct timespec times[2];
    struct stat status;
    uint8_t byte;
    int fd;
    assert_int_equal(chmod(path, 0600), 0);
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    times[0] = status.st_atim;
    times[1] = status.st_mtim;
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
}

static int read_at(struct fixture *f, const struct replica_content_id *id, uint64_t offset, size_t n)
{
    uint8_t *data = malloc(n);
    size_t got = 0;
    int rv = replica_contents_read(f->contents, id, offset, data, n, &got);
    if (rv == 0) {
        assert_int_equal(got, n);
        assert_memory_equal(data, f->bytes + offset, n);
    }
    free(data);
    return rv;
}

static void assert_set_aside(struct fixture *f, const struct replica_content_id *id, const char *where)
{
    struct replica_contents_totals totals;
    struct replica_content_id next;
    assert_int_equal(replica_contents_state(f->contents, id), REPLICA_CONTENTS_ABSENT);
    assert_false(replica_contents_has(f->contents, id, (struct replica_piece){REPLICA_PIECE_CHUNK, 0}));
    assert_int_equal(f->damages, 1);
    assert_true(replica_content_id_equal(&f->damaged, id));
    assert_memory_equal(f->where, where, strlen(where));
    assert_true(replica_contents_files_was_damaged(f->contents, id));
    assert_int_equal(replica_contents_files_damaged_next(f->contents, NULL, &next), 0);
    assert_true(replica_content_id_equal(&next, id));
    replica_contents_totals(f->contents, &totals);
    assert_int_equal(totals.count, 0);
    assert_int_equal(totals.bytes, 0);
}

/* Brought again it is as new: this is all that a peer's pieces do, too. */
static void assert_heals(struct fixture *f, const struct replica_content_id *id)
{
    struct replica_content_id again = make(f, (size_t)id->length);
    assert_true(replica_content_id_equal(&again, id));
    assert_int_equal(replica_contents_state(f->contents, id), REPLICA_CONTENTS_COMPLETE);
    assert_false(replica_contents_files_was_damaged(f->contents, id));
    assert_int_equal(read_at(f, id, 0, (size_t)id->length), 0);
    assert_int_equal(f->damages, 1);
    next_life(f);
    assert_int_equal(replica_contents_sync(f->contents), 0); /* what was to be let go of is not this */
    assert_int_equal(read_at(f, id, 0, (size_t)id->length), 0);
}

static void test_a_flipped_bit_of_a_whole_file(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id = make(f, LARGE);
    char path[512], aside[512];
    path_of(f, "whole", &id, path);
    path_of(f, "quarantine", &id, aside);
    flip(path, 2 * 1048576 + 77);
    assert_int_equal(read_at(f, &id, 0, 1048576), 0); /* its chunk is well */
    assert_int_equal(f->damages, 0);
    assert_int_equal(read_at(f, &id, 2 * 1048576 + 500000, 10), REPLICA_E_CORRUPT);
    assert_set_aside(f, &id, "whole/");
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(access(aside, F_OK), 0);
    assert_heals(f, &id);
}

static void test_a_flipped_bit_of_a_pack(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id = make(f, SMALL);
    char path[512], aside[512];
    pack_path(f, path);
    path_of(f, "quarantine", &id, aside);
    flip(path, SMALL - 1);
    assert_int_equal(read_at(f, &id, 0, 10), REPLICA_E_CORRUPT);
    assert_set_aside(f, &id, "packs/");
    assert_int_equal(access(aside, F_OK), 0);
    assert_heals(f, &id);
}

/* What peers are given comes this way. */
static void test_a_damaged_piece_is_not_given(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id = make(f, LARGE);
    struct replica_buffer piece;
    char path[512];
    path_of(f, "whole", &id, path);
    flip(path, 3 * 1048576 + 5);
    replica_buffer_init(&piece);
    assert_int_equal(
        replica_contents_read_piece(f->contents, &id, (struct replica_piece){REPLICA_PIECE_CHUNK, 0}, &piece),
        0);
    assert_int_equal(
        replica_contents_read_piece(f->contents, &id, (struct replica_piece){REPLICA_PIECE_CHUNK, 3}, &piece),
        REPLICA_E_CORRUPT);
    replica_buffer_close(&piece);
    assert_set_aside(f, &id, "whole/");
    assert_heals(f, &id);
}

static void test_a_file_that_is_missing_or_cut_off(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id = make(f, LARGE);
    char path[512];
    int fd;
    path_of(f, "whole", &id, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(replica_contents_files_glance(f->contents, &id), REPLICA_E_CORRUPT);
    assert_set_aside(f, &id, "whole/");
    assert_heals(f, &id);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, LARGE - 1), 0);
    assert_int_equal(replica_contents_files_fd(f->contents, &id, &fd), REPLICA_E_CORRUPT);
    assert_int_equal(replica_contents_state(f->contents, &id), REPLICA_CONTENTS_ABSENT);
    assert_int_equal(f->damages, 2);
}

static void test_a_pack_that_is_missing_or_cut_off(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id = make(f, SMALL);
    char path[512];
    pack_path(f, path);
    assert_int_equal(truncate(path, SMALL / 2), 0);
    assert_int_equal(read_at(f, &id, 0, SMALL), REPLICA_E_CORRUPT);
    assert_set_aside(f, &id, "packs/");
    assert_heals(f, &id);
    pack_path(f, path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(read_at(f, &id, 0, SMALL), REPLICA_E_CORRUPT);
    assert_int_equal(f->damages, 2);
}

/* Before a descriptor leaves: touched is not damaged, but has to be read through first. */
static void test_a_touched_file_is_read_through_once(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id = make(f, LARGE);
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    char path[512];
    int fd;
    path_of(f, "whole", &id, path);
    assert_int_equal(replica_contents_files_fd(f->contents, &id, &fd), 0);
    close(fd);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(replica_contents_files_fd(f->contents, &id, &fd), REPLICA_E_STALE);
    assert_int_equal(replica_contents_files_verify(f->contents, &id, NULL, NULL), 0);
    assert_int_equal(replica_contents_files_fd(f->contents, &id, &fd), 0);
    close(fd);
    next_life(f);
    assert_int_equal(replica_contents_files_fd(f->contents, &id, &fd), 0);
    close(fd);
    flip(path, 0);
    times[0].tv_sec = times[1].tv_sec = 2;
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(replica_contents_files_fd(f->contents, &id, &fd), REPLICA_E_STALE);
    assert_int_equal(replica_contents_files_verify(f->contents, &id, NULL, NULL), REPLICA_E_CORRUPT);
    assert_set_aside(f, &id, "whole/");
}

/* A disk's damage leaves the times alone: verify finds it, in a pack as in a file. */
static void test_verify_finds_what_no_time_tells(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id large = make(f, LARGE), small = make(f, SMALL);
    char path[512];
    int fd;
    assert_int_equal(replica_contents_files_verify(f->contents, &large, NULL, NULL), 0);
    assert_int_equal(replica_contents_files_verify(f->contents, &small, NULL, NULL), 0);
    path_of(f, "whole", &large, path);
    flip(path, LARGE - 1);
    assert_int_equal(replica_contents_files_fd(f->contents, &large, &fd), 0);
    close(fd);
    assert_int_equal(replica_contents_files_verify(f->contents, &large, NULL, NULL), REPLICA_E_CORRUPT);
    assert_int_equal(replica_contents_state(f->contents, &large), REPLICA_CONTENTS_ABSENT);
    pack_path(f, path);
    flip(path, 0);
    assert_int_equal(replica_contents_files_verify(f->contents, &small, NULL, NULL), REPLICA_E_CORRUPT);
    assert_int_equal(f->damages, 2);
    assert_int_equal(replica_contents_files_verify(f->contents, &small, NULL, NULL), REPLICA_E_ABSENT);
}

/* All of contents/ gone: noticed at the start, without a word for each. */
static void test_directories_that_are_missing(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id large = make(f, LARGE), small = make(f, SMALL);
    struct replica_contents_totals totals;
    assert_int_equal(replica_contents_files_lost(f->contents), 0);
    scratch_remove_below(f->path);
    next_life(f);
    assert_int_equal(replica_contents_files_lost(f->contents), 2);
    assert_int_equal(f->damages, 0);
    assert_int_equal(replica_contents_state(f->contents, &large), REPLICA_CONTENTS_ABSENT);
    assert_int_equal(replica_contents_state(f->contents, &small), REPLICA_CONTENTS_ABSENT);
    assert_true(replica_contents_files_was_damaged(f->contents, &small));
    replica_contents_totals(f->contents, &totals);
    assert_int_equal(totals.count, 0);
    make(f, LARGE);
    make(f, SMALL);
    assert_int_equal(read_at(f, &large, 0, LARGE), 0);
    assert_int_equal(read_at(f, &small, 0, SMALL), 0);
}

/* A directory of whole/ only: what lies elsewhere is still held. */
static void test_a_directory_that_is_missing(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id large = make(f, LARGE), small = make(f, SMALL);
    char path[512];
    path_of(f, "whole", &large, path);
    *strrchr(path, '/') = '\0';
    scratch_remove_below(path);
    next_life(f);
    assert_int_equal(replica_contents_files_lost(f->contents), 1);
    assert_int_equal(replica_contents_state(f->contents, &large), REPLICA_CONTENTS_ABSENT);
    assert_int_equal(read_at(f, &small, 0, SMALL), 0);
}

/* Quarantine is for people to look at, not a second cache. */
static void test_quarantine_is_bounded(void **state)
{
    struct fixture *f = *state;
    char path[512];
    size_t n = 0;
    DIR *listing;
    for (size_t i = 0; i < 110; i++) {
        struct replica_content_id id;
        assert_int_equal(replica_contents_ingest(f->contents, f->bytes + i, 70000, &id), 0);
        assert_int_equal(replica_contents_sync(f->contents), 0);
        path_of(f, "whole", &id, path);
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(truncate(path, 1), 0);
        assert_int_equal(replica_contents_files_glance(f->contents, &id), REPLICA_E_CORRUPT);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    snprintf(path, sizeof path, "%s/quarantine", f->path);
    listing = opendir(path);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(listing);
    assert_int_equal(n, 100);
}

/* Between a removal that is durable and the unlink of its bytes the process is killed: they go all the same. */
static void test_a_removal_that_was_cut_off_goes_on(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id = make(f, LARGE);
    char path[512];
    path_of(f, "whole", &id, path);
    assert_int_equal(replica_contents_sync(f->contents), 0); /* its name in partial/ goes */
    assert_int_equal(replica_contents_remove(f->contents, &id), 0);
    assert_int_equal(access(path, F_OK), 0);
    next_life(f);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    next_life(f); /* once */
    make(f, LARGE);
    next_life(f);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    assert_int_equal(access(path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_flipped_bit_of_a_whole_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_flipped_bit_of_a_pack, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_piece_is_not_given, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_missing_or_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_pack_that_is_missing_or_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_touched_file_is_read_through_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds_what_no_time_tells, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directories_that_are_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_directory_that_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quarantine_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_removal_that_was_cut_off_goes_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
