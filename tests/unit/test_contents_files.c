/* The file back end of contents where others meet it: threads, and lives that end without a sync. (What it
 * shares with the memory back end is proved by the conformance test.) */
#include "replica/contents_files.h"
#include "replica/error.h"
#include "replica/kv_leveldb.h"
#include "replica/merkle.h"
#include "scratch_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
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
};

static void open_all(struct fixture *f)
{
    struct replica_kv_leveldb_options log = {
        .path = f->log_path, .write_buffer_size = 1 << 20, .cache_size = 1 << 20, .open_files_max = 50};
    struct replica_contents_files_options files = {.path = f->path};
    assert_int_equal(replica_kv_leveldb_open(&log, &f->log, NULL), 0);
    files.log = f->log;
    assert_int_equal(replica_contents_files_open(&files, &f->contents), 0);
}

/* As if the process had been killed: nothing is synced, what lies in memory is gone. */
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

static void assert_bytes(struct fixture *f, const struct replica_content_id *id, size_t n)
{
    uint8_t *read = malloc(n);
    size_t got = 0;
    assert_int_equal(replica_contents_read(f->contents, id, 0, read, n, &got), 0);
    assert_int_equal(got, n);
    assert_memory_equal(read, f->bytes, n);
    free(read);
}

/* What is filled but not synced is there after a kill, and becomes complete by the next sync. */
static void test_filled_survives_a_kill(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id small, large;
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes, SMALL, &small), 0);
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes, LARGE, &large), 0);
    next_life(f);
    assert_int_equal(replica_contents_state(f->contents, &small), REPLICA_CONTENTS_FILLED);
    assert_int_equal(replica_contents_state(f->contents, &large), REPLICA_CONTENTS_FILLED);
    assert_bytes(f, &small, SMALL);
    assert_bytes(f, &large, LARGE);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    assert_int_equal(replica_contents_state(f->contents, &large), REPLICA_CONTENTS_COMPLETE);
    next_life(f);
    assert_int_equal(replica_contents_state(f->contents, &small), REPLICA_CONTENTS_COMPLETE);
    assert_int_equal(replica_contents_state(f->contents, &large), REPLICA_CONTENTS_COMPLETE);
    assert_bytes(f, &large, LARGE);
}

/* A pack is not let go of with the last live content in it while another there waits for its sync. */
static void test_pack_is_kept_for_what_is_filled(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id first, second;
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes + 1, SMALL, &first), 0);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes, SMALL, &second), 0);
    next_life(f); /* which appends to another pack */
    assert_int_equal(replica_contents_remove(f->contents, &first), 0);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    assert_int_equal(replica_contents_state(f->contents, &second), REPLICA_CONTENTS_COMPLETE);
    assert_bytes(f, &second, SMALL);
}

/* Two lives in a row that never got to sync: the second does not append where the first one's bytes lie. */
static void test_no_pack_is_begun_twice(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id first, second;
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes, SMALL, &first), 0);
    next_life(f);
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes + 1, SMALL, &second), 0);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    assert_bytes(f, &first, SMALL);
}

static void find_partial(struct fixture *f, const struct replica_content_id *id, char path[256])
{
    int n = snprintf(path, 256, "%s/partial/", f->path);
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++)
        n += snprintf(path + n, 256 - (size_t)n, "%02x", id->root[i]);
    snprintf(path + n, 256 - (size_t)n, "-%llu", (unsigned long long)id->length);
}

/* Bytes that a loss of power spoiled are not taken up as filled: only what the hashes confirm, once it is begun again. */
static void test_what_was_spoiled_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id;
    char path[256];
    int fd;
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes, LARGE, &id), 0);
    find_partial(f, &id, path);
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "\0\0\0", 3, 2000000), 3);
    close(fd);
    next_life(f);
    assert_int_equal(replica_contents_state(f->contents, &id), REPLICA_CONTENTS_PARTIAL);
    assert_int_equal(replica_contents_ingest(f->contents, f->bytes, LARGE, &id), 0);
    assert_bytes(f, &id, LARGE);
}

/* A settled draft is still there, whatever becomes of the record that names the content; it goes when it is
 * told to. */
static void test_an_adopted_draft_stays(void **state)
{
    struct fixture *f = *state;
    struct replica_content_id id, again;
    uint64_t number;
    int fd;
    assert_int_equal(replica_contents_files_draft_new(f->contents, &number, &fd), 0);
    assert_int_equal(write(fd, f->bytes, LARGE), LARGE);
    close(fd);
    assert_int_equal(replica_contents_files_draft_adopt(f->contents, number, NULL, NULL, &id), 0);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    next_life(f);
    assert_int_equal(replica_contents_files_draft_adopt(f->contents, number, NULL, NULL, &again), 0);
    assert_true(replica_content_id_equal(&id, &again));
    assert_int_equal(replica_contents_files_draft_remove(f->contents, number), 0);
    assert_int_equal(replica_contents_files_draft_open(f->contents, number, &fd), REPLICA_E_NOTFOUND);
    assert_int_equal(replica_contents_state(f->contents, &id), REPLICA_CONTENTS_COMPLETE);
    assert_bytes(f, &id, LARGE);
}

/* Threads */

#define CONTENTS 24
#define WRITERS  4

struct race {
    struct fixture *f;
    struct replica_content_id ids[CONTENTS];
    size_t sizes[CONTENTS];
    struct replica_buffer pages[CONTENTS]; /* the PAGE piece; empty for a content of one chunk */
    atomic_uint errors;
    atomic_bool stop;
};

static void write_one(struct race *race, size_t i)
{
    const struct replica_content_id *id = &race->ids[i];
    struct replica_contents *contents = race->f->contents;
    unsigned failed = replica_contents_begin(contents, id) != 0;
    if (race->pages[i].size > 0)
        failed += replica_contents_write(contents, id, (struct replica_piece){REPLICA_PIECE_PAGE, 0},
                                         race->pages[i].data, race->pages[i].size) != 0;
    for (uint32_t chunk = 0; chunk < replica_merkle_chunks(id->length); chunk++)
        failed += replica_contents_write(contents, id, (struct replica_piece){REPLICA_PIECE_CHUNK, chunk},
                                         race->f->bytes + i + chunk * REPLICA_CHUNK_SIZE,
                                         replica_merkle_chunk_size(id->length, chunk)) != 0;
    atomic_fetch_add(&race->errors, failed);
}

/* Every writer brings every content, so that the same piece often comes twice at once. */
static void *write_all(void *context)
{
    struct race *race = context;
    for (size_t i = 0; i < CONTENTS; i++)
        write_one(race, i);
    return NULL;
}

static void *sync_all(void *context)
{
    struct race *race = context;
    while (!atomic_load(&race->stop))
        atomic_fetch_add(&race->errors, replica_contents_sync(race->f->contents) != 0);
    return NULL;
}

static void *read_all(void *context)
{
    struct race *race = context;
    struct replica_buffer piece;
    replica_buffer_init(&piece);
    while (!atomic_load(&race->stop))
        for (size_t i = 0; i < CONTENTS; i++) {
            int rv;
            replica_buffer_clear(&piece);
            rv = replica_contents_read_piece(race->f->contents, &race->ids[i],
                                             (struct replica_piece){REPLICA_PIECE_CHUNK, 0}, &piece);
            if (rv != 0 && rv != REPLICA_E_ABSENT)
                atomic_fetch_add(&race->errors, 1);
        }
    replica_buffer_close(&piece);
    return NULL;
}

/* Ids and pages of the contents, made in another store: each begins one byte further on. */
static void prepare(struct fixture *f, struct race *race)
{
    for (size_t i = 0; i < CONTENTS; i++) {
        race->sizes[i] = i % 3 == 0 ? SMALL : i % 3 == 1 ? 700000 : LARGE - CONTENTS;
        replica_buffer_init(&race->pages[i]);
        assert_int_equal(replica_contents_ingest(f->contents, f->bytes + i, race->sizes[i], &race->ids[i]),
                         0);
        if (race->sizes[i] > REPLICA_CHUNK_SIZE)
            assert_int_equal(replica_contents_read_piece(f->contents, &race->ids[i],
                                                         (struct replica_piece){REPLICA_PIECE_PAGE, 0},
                                                         &race->pages[i]),
                             0);
    }
    assert_int_equal(replica_contents_sync(f->contents), 0);
    for (size_t i = 0; i < CONTENTS; i++)
        assert_int_equal(replica_contents_remove(f->contents, &race->ids[i]), 0);
}

static void test_writers_readers_and_a_sync_at_once(void **state)
{
    struct fixture *f = *state;
    struct race race = {.f = f};
    pthread_t writers[WRITERS], syncer, reader;
    prepare(f, &race);
    assert_int_equal(pthread_create(&syncer, NULL, sync_all, &race), 0);
    assert_int_equal(pthread_create(&reader, NULL, read_all, &race), 0);
    for (size_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&writers[i], NULL, write_all, &race), 0);
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    atomic_store(&race.stop, true);
    pthread_join(syncer, NULL);
    pthread_join(reader, NULL);
    assert_int_equal(atomic_load(&race.errors), 0);
    assert_int_equal(replica_contents_sync(f->contents), 0);
    for (size_t i = 0; i < CONTENTS; i++) {
        uint8_t *read = malloc(race.sizes[i]);
        size_t got;
        assert_int_equal(replica_contents_state(f->contents, &race.ids[i]), REPLICA_CONTENTS_COMPLETE);
        assert_int_equal(replica_contents_read(f->contents, &race.ids[i], 0, read, race.sizes[i], &got), 0);
        assert_memory_equal(read, f->bytes + i, race.sizes[i]);
        free(read);
        replica_buffer_close(&race.pages[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_filled_survives_a_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_pack_is_begun_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pack_is_kept_for_what_is_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_was_spoiled_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_adopted_draft_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writers_readers_and_a_sync_at_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
