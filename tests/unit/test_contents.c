/* contents: one conformance test for both back ends; then what files add: drafts, descriptors, packs, sources
 * that change, limits, and what a killed or powerless life leaves behind (the log kv is the memory one, so
 * that its unsynced end can be lost). */
#include "replica/contents.h"
#include "replica/contents_files.h"
#include "replica/contents_memory.h"
#include "replica/kv_leveldb.h"
#include "replica/kv_memory.h"
#include "replica/merkle.h"
#include "replica_support.h"
#include "scratch_support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

static int fsync_failure; /* an errno */

int fsync(int fd)
{
    if (fsync_failure != 0) {
        errno = fsync_failure;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

struct fixture {
    bool on_files;
    struct replica_contents *contents, *source; /* source: where pieces are read from */
    struct replica_kv *log;
    char path[64];
    uint64_t capacity, free_floor;
    uint8_t *bytes; /* 4 MiB of noise */
};

static void open_files(struct fixture *fixture)
{
    struct replica_contents_files_options options = {.path = fixture->path,
                                                     .log = fixture->log,
                                                     .capacity = fixture->capacity,
                                                     .free_floor = fixture->free_floor};
    assert_int_equal(replica_contents_files_open(&options, &fixture->contents), 0);
}

static void reopen(struct fixture *fixture)
{
    replica_contents_destroy(&fixture->contents);
    open_files(fixture);
}

static int setup(void **state, bool on_files)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct support_random random = {.state = 42};
    assert_non_null(fixture);
    fixture->on_files = on_files;
    fixture->bytes = malloc(4 * MIB);
    assert_non_null(fixture->bytes);
    support_random_fill(&random, fixture->bytes, 4 * MIB);
    scratch_make(fixture->path);
    assert_int_equal(replica_kv_memory_new(&fixture->log), 0);
    assert_int_equal(replica_contents_memory_new(&fixture->source), 0);
    if (on_files)
        open_files(fixture);
    else
        assert_int_equal(replica_contents_memory_new(&fixture->contents), 0);
    *state = fixture;
    return 0;
}

static int setup_memory(void **state)
{
    return setup(state, false);
}

/* LevelDB may be read and written by any thread; the memory kv may not. */
static int setup_files_on_leveldb(void **state)
{
    struct replica_kv_leveldb_options options = {
        .write_buffer_size = 1 << 20, .cache_size = 1 << 20, .open_files_max = 64};
    struct fixture *fixture;
    char path[128];
    setup(state, true);
    fixture = *state;
    replica_contents_destroy(&fixture->contents);
    replica_kv_destroy(&fixture->log);
    snprintf(path, sizeof path, "%s/log", fixture->path);
    options.path = path;
    assert_int_equal(replica_kv_leveldb_open(&options, &fixture->log, NULL), 0);
    open_files(fixture);
    return 0;
}

static int setup_files(void **state)
{
    return setup(state, true);
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    fsync_failure = 0;
    replica_contents_destroy(&fixture->contents);
    replica_contents_destroy(&fixture->source);
    assert_null(fixture->contents);
    replica_kv_destroy(&fixture->log);
    scratch_remove(fixture->path);
    free(fixture->bytes);
    free(fixture);
    return 0;
}

static struct replica_content_id ingest(struct replica_contents *contents, const void *data, size_t n)
{
    struct replica_content_id id, expected;
    assert_int_equal(replica_contents_ingest(contents, data, n, &id), 0);
    replica_merkle_content(data, n, &expected);
    assert_true(replica_content_id_equal(&id, &expected));
    return id;
}

static struct replica_piece piece(enum replica_piece_kind kind, uint32_t index)
{
    return (struct replica_piece){kind, index};
}

static int transfer(struct replica_contents *from, struct replica_contents *to,
                    const struct replica_content_id *id, struct replica_piece what)
{
    struct replica_buffer data;
    int rv;
    replica_buffer_init(&data);
    assert_int_equal(replica_contents_read_piece(from, id, what, &data), 0);
    rv = replica_contents_write(to, id, what, data.data, data.size);
    replica_buffer_close(&data);
    return rv;
}

/* All pieces of a content, chunks in a shuffled order. */
static void transfer_all(struct replica_contents *from, struct replica_contents *to,
                         const struct replica_content_id *id)
{
    uint32_t chunks = replica_merkle_chunks(id->length), pages = replica_merkle_pages(id->length);
    if (pages > 1)
        assert_int_equal(transfer(from, to, id, piece(REPLICA_PIECE_ROOT, 0)), 0);
    for (uint32_t i = pages; i > 0 && chunks > 1; i--)
        assert_int_equal(transfer(from, to, id, piece(REPLICA_PIECE_PAGE, i - 1)), 0);
    for (uint32_t i = 0; i < chunks; i++) {
        uint32_t chunk = (uint32_t)(((uint64_t)i * 7919 + 3) % chunks);
        if (chunks % 7919 == 0)
            chunk = i;
        if (!replica_contents_has(to, id, piece(REPLICA_PIECE_CHUNK, chunk)))
            assert_int_equal(transfer(from, to, id, piece(REPLICA_PIECE_CHUNK, chunk)), 0);
    }
}

static void expect_bytes(struct replica_contents *contents, const struct replica_content_id *id,
                         const uint8_t *data)
{
    static const uint64_t starts[] = {0, 1, 65535, 65536, 1048575, 1048576, 2097151};
    size_t size = (size_t)id->length, n;
    uint8_t *got = malloc(size + 10);
    assert_non_null(got);
    assert_int_equal(replica_contents_read(contents, id, 0, got, size + 10, &n), 0);
    assert_int_equal(n, size); /* up to the end and no further */
    assert_memory_equal(got, data, size);
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        size_t want = starts[i] >= size ? 0 : size - starts[i] < 100 ? size - (size_t)starts[i] : 100;
        assert_int_equal(replica_contents_read(contents, id, starts[i], got, 100, &n), 0);
        assert_int_equal(n, want);
        assert_memory_equal(got, data + starts[i], n);
    }
    assert_int_equal(replica_contents_read(contents, id, size, got, 0, &n), 0);
    assert_int_equal(n, 0);
    free(got);
}

/* Conformance */

static const size_t SIZES[] = {1, 64 * KIB, 64 * KIB + 1, MIB - 1, MIB, MIB + 1, 3 * MIB};
#define SIZES_N (sizeof SIZES / sizeof SIZES[0])

static void ingest_makes_filled_then_complete(void **state)
{
    struct fixture *fixture = *state;
    struct replica_contents_totals totals;
    uint64_t bytes = 0;
    for (size_t i = 0; i < SIZES_N; i++) {
        struct replica_content_id id = ingest(fixture->contents, fixture->bytes, SIZES[i]);
        assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_FILLED);
        expect_bytes(fixture->contents, &id, fixture->bytes); /* readable before it is synced */
        assert_int_equal(replica_contents_sync(fixture->contents), 0);
        assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_COMPLETE);
        expect_bytes(fixture->contents, &id, fixture->bytes);
        ingest(fixture->contents, fixture->bytes, SIZES[i]); /* again: it stays as it is */
        assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_COMPLETE);
        bytes += SIZES[i];
        replica_contents_totals(fixture->contents, &totals);
        assert_true(totals.count == i + 1 && totals.bytes == bytes);
    }
}

static void nothing_is_always_there(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id = ingest(fixture->contents, "", 0);
    uint8_t byte;
    size_t n = 9;
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_COMPLETE);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
    assert_int_equal(replica_contents_read(fixture->contents, &id, 0, &byte, 1, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0), &byte, 1),
                     REPLICA_E_INVALID);
    assert_int_equal(replica_contents_next(fixture->contents, NULL, &id, &(enum replica_contents_state){0}),
                     REPLICA_E_NOTFOUND);
}

static void pieces_arrive_in_any_order(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < SIZES_N; i++) {
        struct replica_content_id id = ingest(fixture->source, fixture->bytes, SIZES[i]);
        uint32_t chunks = replica_merkle_chunks(SIZES[i]);
        assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_ABSENT);
        assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)),
                         REPLICA_E_ABSENT); /* not begun */
        assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
        assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
        assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_PARTIAL);
        if (chunks > 1) {
            assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)),
                             REPLICA_E_ABSENT); /* no page */
            assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)));
        }
        transfer_all(fixture->source, fixture->contents, &id);
        assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_FILLED);
        assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)),
                         0); /* once more: left alone */
        assert_int_equal(replica_contents_sync(fixture->contents), 0);
        assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_COMPLETE);
        expect_bytes(fixture->contents, &id, fixture->bytes);
        assert_true(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, chunks - 1)));
        assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, chunks)));
        assert_true(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)) ==
                    (chunks > 1));
        assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_ROOT, 0)));
    }
}

static void wrong_bytes_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id = ingest(fixture->source, fixture->bytes, 2 * MIB + 5);
    struct replica_buffer page, read;
    uint8_t *chunk = malloc(MIB);
    assert_non_null(chunk);
    replica_buffer_init(&page);
    replica_buffer_init(&read);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
    assert_int_equal(replica_contents_read_piece(fixture->source, &id, piece(REPLICA_PIECE_PAGE, 0), &page),
                     0);
    page.data[40] ^= 1;
    assert_int_equal(
        replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0), page.data, page.size),
        REPLICA_E_MISMATCH);
    assert_int_equal(replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0), page.data,
                                            page.size - 32),
                     REPLICA_E_MISMATCH);
    assert_int_equal(
        replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 1), page.data, page.size),
        REPLICA_E_INVALID);
    assert_int_equal(
        replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_ROOT, 0), page.data, 32),
        REPLICA_E_INVALID);
    assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)));
    page.data[40] ^= 1;
    assert_int_equal(
        replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0), page.data, page.size),
        0);
    memcpy(chunk, fixture->bytes + MIB, MIB);
    chunk[MIB - 1] ^= 0x80;
    assert_int_equal(
        replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 1), chunk, MIB),
        REPLICA_E_MISMATCH);
    assert_int_equal(replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0),
                                            fixture->bytes + MIB, MIB),
                     REPLICA_E_MISMATCH);
    assert_int_equal(
        replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 2), fixture->bytes, 6),
        REPLICA_E_MISMATCH);
    assert_int_equal(
        replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 3), fixture->bytes, 5),
        REPLICA_E_INVALID);
    assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 1)));
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 1), &read),
        REPLICA_E_ABSENT);
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 3), &read),
        REPLICA_E_INVALID);
    replica_buffer_close(&page);
    replica_buffer_close(&read);
    free(chunk);
}

static void a_range_is_read_once_its_chunks_are_there(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id = ingest(fixture->source, fixture->bytes, 3 * MIB);
    uint8_t got[200];
    size_t n;
    assert_int_equal(replica_contents_read(fixture->contents, &id, 0, got, 1, &n), REPLICA_E_ABSENT);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)), 0);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 1)), 0);
    assert_int_equal(replica_contents_read(fixture->contents, &id, MIB, got, 200, &n), 0);
    assert_memory_equal(got, fixture->bytes + MIB, 200);
    assert_int_equal(replica_contents_read(fixture->contents, &id, MIB - 1, got, 200, &n), REPLICA_E_ABSENT);
    assert_int_equal(replica_contents_read(fixture->contents, &id, 2 * MIB - 1, got, 2, &n),
                     REPLICA_E_ABSENT);
}

static void holes_are_present_as_soon_as_the_page_is(void **state)
{
    struct fixture *fixture = *state;
    struct replica_contents_totals totals;
    struct replica_content_id id;
    uint8_t *sparse = calloc(1, 4 * MIB);
    assert_non_null(sparse);
    memcpy(sparse + 2 * MIB, fixture->bytes, 100); /* one chunk of four has anything */
    id = ingest(fixture->source, sparse, 4 * MIB - 7);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)), 0);
    assert_true(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)));
    assert_true(
        replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 3))); /* the short one, too */
    assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 2)));
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 2)), 0);
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_FILLED);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    expect_bytes(fixture->contents, &id, sparse);
    replica_contents_totals(fixture->contents, &totals);
    assert_true(totals.count == 1 && totals.bytes == MIB);
    assert_int_equal(replica_contents_remove(fixture->contents, &id), 0);
    replica_contents_totals(fixture->contents, &totals);
    assert_true(totals.count == 0 && totals.bytes == 0);
    memset(sparse, 0, 4 * MIB); /* nothing but holes */
    id = ingest(fixture->source, sparse, 4 * MIB);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)), 0);
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_FILLED);
    free(sparse);
}

static void impossible_lengths_are_refused(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id = {.root = {1}, .length = REPLICA_CONTENT_SIZE_MAX + 1};
    struct replica_buffer data;
    replica_buffer_init(&data);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), REPLICA_E_TOOBIG);
    id.length = UINT64_MAX;
    assert_int_equal(replica_contents_begin(fixture->contents, &id), REPLICA_E_TOOBIG);
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_ABSENT);
    assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)));
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0), &data),
        REPLICA_E_INVALID);
    assert_int_equal(replica_contents_write(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0), "x", 1),
                     REPLICA_E_INVALID);
    assert_int_equal(
        replica_contents_ingest(fixture->contents, fixture->bytes, REPLICA_CONTENTS_INGEST_MAX + 1, &id),
        REPLICA_E_TOOBIG);
    replica_buffer_close(&data);
}

static void contents_are_walked_in_order_and_removed(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id ids[6], at, partial;
    enum replica_contents_state what;
    size_t n = 0;
    for (size_t i = 0; i < 6; i++)
        ids[i] = ingest(fixture->contents, fixture->bytes + i, i % 2 == 0 ? 500 : 70000);
    assert_int_equal(replica_contents_remove(fixture->contents, &ids[0]),
                     REPLICA_E_BUSY); /* about to be synced */
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    partial = ingest(fixture->source, fixture->bytes, 2 * MIB);
    assert_int_equal(replica_contents_begin(fixture->contents, &partial),
                     0); /* walked too: who walks knows what is being fetched */
    for (int rv = replica_contents_next(fixture->contents, NULL, &at, &what); rv == 0; n++) {
        struct replica_content_id before = at;
        assert_int_equal(what, replica_content_id_equal(&at, &partial) ? REPLICA_CONTENTS_PARTIAL
                                                                       : REPLICA_CONTENTS_COMPLETE);
        rv = replica_contents_next(fixture->contents, &before, &at, &what);
        assert_true(rv == REPLICA_E_NOTFOUND || (rv == 0 && replica_content_id_compare(&before, &at) < 0));
    }
    assert_int_equal(n, 7);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(replica_contents_remove(fixture->contents, &ids[i]), 0);
        assert_int_equal(replica_contents_state(fixture->contents, &ids[i]), REPLICA_CONTENTS_ABSENT);
        assert_int_equal(replica_contents_remove(fixture->contents, &ids[i]), REPLICA_E_ABSENT);
    }
    assert_int_equal(replica_contents_remove(fixture->contents, &partial), 0);
    assert_int_equal(replica_contents_next(fixture->contents, NULL, &at, &what), REPLICA_E_NOTFOUND);
    for (size_t i = 0; i < 6; i++) { /* and they can come back at once */
        ingest(fixture->contents, fixture->bytes + i, i % 2 == 0 ? 500 : 70000);
        assert_int_equal(replica_contents_sync(fixture->contents), 0);
        expect_bytes(fixture->contents, &ids[i], fixture->bytes + i);
    }
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    for (size_t i = 0; i < 6; i++)
        expect_bytes(fixture->contents, &ids[i], fixture->bytes + i);
}

/* Memory */

static void memory_fails_and_loses_as_told(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id filled, complete = ingest(fixture->contents, fixture->bytes, MIB + 1),
                                      id = {.length = 9};
    struct replica_buffer data;
    replica_buffer_init(&data);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    filled = ingest(fixture->contents, fixture->bytes, 100);
    replica_contents_memory_fail(fixture->contents, REPLICA_E_NOSPACE);
    assert_int_equal(replica_contents_ingest(fixture->contents, "x", 1, &id), REPLICA_E_NOSPACE);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), REPLICA_E_NOSPACE);
    assert_int_equal(replica_contents_sync(fixture->contents), REPLICA_E_NOSPACE);
    assert_int_equal(replica_contents_state(fixture->contents, &filled), REPLICA_CONTENTS_FILLED);
    replica_contents_memory_crash(fixture->contents);
    assert_int_equal(replica_contents_state(fixture->contents, &filled), REPLICA_CONTENTS_ABSENT);
    assert_int_equal(replica_contents_state(fixture->contents, &complete), REPLICA_CONTENTS_COMPLETE);
    assert_int_equal(replica_contents_memory_damage(fixture->contents, &complete, MIB), 0);
    assert_int_equal(replica_contents_memory_damage(fixture->contents, &filled, 0), REPLICA_E_ABSENT);
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &complete, piece(REPLICA_PIECE_CHUNK, 0), &data), 0);
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &complete, piece(REPLICA_PIECE_CHUNK, 1), &data),
        REPLICA_E_CORRUPT);
    replica_buffer_close(&data);
}

/* Files */

static size_t count_files(struct fixture *fixture, const char *below)
{
    char path[256];
    DIR *stream;
    struct dirent *entry;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", fixture->path, below);
    stream = opendir(path);
    assert_non_null(stream);
    while ((entry = readdir(stream)) != NULL) {
        char inner[512];
        struct stat status;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(inner, sizeof inner, "%s/%s", below, entry->d_name);
        assert_int_equal(fstatat(dirfd(stream), entry->d_name, &status, 0), 0);
        n += S_ISDIR(status.st_mode) ? count_files(fixture, inner) : 1;
    }
    closedir(stream);
    return n;
}

static int make_source(const char *directory, const void *data, size_t n)
{
    char path[128];
    int fd;
    snprintf(path, sizeof path, "%s/source", directory);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    return fd;
}

static void what_is_complete_survives_reopening(void **state)
{
    struct fixture *fixture = *state;
    struct replica_contents_totals before, after;
    struct replica_content_id ids[SIZES_N];
    for (size_t i = 0; i < SIZES_N; i++)
        ids[i] = ingest(fixture->contents, fixture->bytes, SIZES[i]);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    replica_contents_totals(fixture->contents, &before);
    for (int life = 0; life < 3; life++) {
        reopen(fixture);
        for (size_t i = 0; i < SIZES_N; i++) {
            assert_int_equal(replica_contents_state(fixture->contents, &ids[i]), REPLICA_CONTENTS_COMPLETE);
            expect_bytes(fixture->contents, &ids[i], fixture->bytes);
        }
        ingest(fixture->contents, fixture->bytes + 1 + life, 1000); /* never into a pack of an earlier life */
        assert_int_equal(replica_contents_sync(fixture->contents), 0);
        assert_int_equal(count_files(fixture, "partial"), 0); /* the second names are gone */
    }
    replica_contents_totals(fixture->contents, &after);
    assert_true(after.count == before.count + 3 && after.bytes == before.bytes + 3000);
}

/* The same pieces, verified again: what an earlier life wrote of a large content need not come twice, and
 * garbage in it harms nobody. */
static void a_transfer_is_resumed(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id, at;
    enum replica_contents_state what;
    struct replica_contents_totals totals;
    char path[300];
    uint8_t *sparse = malloc(4 * MIB);
    struct dirent *entry;
    DIR *stream;
    int fd;
    assert_non_null(sparse);
    memcpy(sparse, fixture->bytes, 4 * MIB);
    memset(sparse + 3 * MIB, 0, MIB); /* a hole */
    id = ingest(fixture->source, sparse, 4 * MIB);
    assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)), 0);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)), 0);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 2)), 0);
    replica_contents_destroy(&fixture->contents);
    snprintf(path, sizeof path, "%s/partial", fixture->path);
    stream = opendir(path);
    while ((entry = readdir(stream)) != NULL && entry->d_name[0] == '.')
        ;
    fd = openat(dirfd(stream), entry->d_name, O_WRONLY);
    assert_true(pwrite(fd, "garbage", 7, 2 * (off_t)MIB + 5) == 7 &&
                pwrite(fd, "garbage", 7, 3 * (off_t)MIB + 5) == 7);
    close(fd);
    closedir(stream);
    open_files(fixture);
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_PARTIAL);
    assert_int_equal(replica_contents_next(fixture->contents, NULL, &at, &what),
                     0); /* can be found, and removed */
    assert_true(what == REPLICA_CONTENTS_PARTIAL && replica_content_id_equal(&id, &at));
    replica_contents_totals(fixture->contents, &totals);
    assert_true(totals.count == 1);
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)),
                     REPLICA_E_ABSENT); /* not begun */
    assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
    assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)));
    assert_int_equal(transfer(fixture->source, fixture->contents, &id, piece(REPLICA_PIECE_PAGE, 0)), 0);
    assert_true(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0)));
    assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 1)));
    assert_false(replica_contents_has(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 2)));
    transfer_all(fixture->source, fixture->contents, &id);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    expect_bytes(fixture->contents, &id, sparse);
    free(sparse);
}

/* A loss of power keeps files but not the unsynced end of the log. */
static void a_record_never_names_what_is_gone(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id large = ingest(fixture->contents, fixture->bytes, 2 * MIB),
                              small = ingest(fixture->contents, fixture->bytes, 900);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(replica_kv_sync(fixture->log), 0);
    assert_int_equal(replica_contents_remove(fixture->contents, &large), 0);
    assert_int_equal(replica_contents_remove(fixture->contents, &small), 0);
    replica_contents_destroy(&fixture->contents);
    replica_kv_memory_crash(fixture->log, 0); /* the removal never happened */
    open_files(fixture);
    assert_int_equal(replica_contents_state(fixture->contents, &large), REPLICA_CONTENTS_COMPLETE);
    expect_bytes(fixture->contents, &large, fixture->bytes);
    expect_bytes(fixture->contents, &small, fixture->bytes);
    assert_int_equal(replica_contents_remove(fixture->contents, &large), 0);
    assert_int_equal(replica_contents_remove(fixture->contents, &small), 0);
    assert_int_equal(replica_contents_sync(fixture->contents), 0); /* durable now: the bytes go */
    assert_int_equal(replica_kv_memory_pending(fixture->log), 1);  /* that they have gone */
    assert_int_equal(count_files(fixture, "whole"), 0);
    assert_int_equal(count_files(fixture, "packs"), 0); /* nothing in it is live */
}

static void what_was_made_whole_without_a_record_goes(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id large = ingest(fixture->contents, fixture->bytes, 2 * MIB),
                              small = ingest(fixture->contents, fixture->bytes, 900);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(count_files(fixture, "whole"), 1);
    replica_contents_destroy(&fixture->contents);
    replica_kv_memory_crash(fixture->log, 0);
    open_files(fixture);
    assert_int_equal(replica_contents_state(fixture->contents, &small), REPLICA_CONTENTS_ABSENT);
    assert_int_equal(replica_contents_state(fixture->contents, &large),
                     REPLICA_CONTENTS_PARTIAL); /* its bytes may still serve */
    assert_int_equal(count_files(fixture, "whole"), 0);
    assert_int_equal(count_files(fixture, "packs"), 0);
    ingest(fixture->contents, fixture->bytes, 2 * MIB);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    expect_bytes(fixture->contents, &large, fixture->bytes);
}

/* Killed, not powerless: what was filled was perhaps answered for, so it is still there, once its hash has
 * been checked. */
static void what_was_filled_survives_a_killed_node(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id large = ingest(fixture->contents, fixture->bytes, 2 * MIB),
                              small = ingest(fixture->contents, fixture->bytes, 900);
    struct replica_content_id torn = ingest(fixture->contents, fixture->bytes + 1, 2 * MIB);
    char path[300], hex[65];
    int fd;
    replica_contents_destroy(&fixture->contents);
    for (size_t i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", torn.root[i]);
    snprintf(path, sizeof path, "%s/partial/%s-%zu", fixture->path, hex, 2 * MIB);
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, "torn", 4, 5) == 4);
    close(fd);
    for (int life = 0; life < 2; life++) {
        if (life == 1)
            replica_contents_destroy(&fixture->contents);
        open_files(fixture);
        assert_int_equal(replica_contents_state(fixture->contents, &large), REPLICA_CONTENTS_FILLED);
        assert_int_equal(replica_contents_state(fixture->contents, &small), REPLICA_CONTENTS_FILLED);
        assert_int_equal(replica_contents_state(fixture->contents, &torn), REPLICA_CONTENTS_PARTIAL);
        expect_bytes(fixture->contents, &large, fixture->bytes);
        expect_bytes(fixture->contents, &small, fixture->bytes);
    }
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(support_count(fixture->log, "Cf", 2), 0);
    reopen(fixture);
    expect_bytes(fixture->contents, &large, fixture->bytes);
    expect_bytes(fixture->contents, &small, fixture->bytes);
    assert_int_equal(replica_contents_remove(fixture->contents, &torn), 0);
}

static void leftovers_without_a_meaning_are_removed(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"tmp.5", "draft.7", "0123", "packs-1"};
    char path[300];
    replica_contents_destroy(&fixture->contents);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/partial/%s", fixture->path, names[i]);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    snprintf(path, sizeof path, "%s/packs/7.pack", fixture->path);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    open_files(fixture);
    assert_int_equal(count_files(fixture, "partial"), 0);
    assert_int_equal(count_files(fixture, "packs"), 0);
}

static void a_failed_sync_is_for_good(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id = ingest(fixture->contents, fixture->bytes, 2 * MIB);
    fsync_failure = EIO;
    assert_int_equal(replica_contents_sync(fixture->contents), REPLICA_E_IO);
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_FILLED);
    fsync_failure = 0;
    assert_int_equal(replica_contents_sync(fixture->contents),
                     REPLICA_E_IO); /* the kernel may have dropped what it could not write */
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_FILLED);
    reopen(fixture);
    ingest(fixture->contents, fixture->bytes, 2 * MIB);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_COMPLETE);
}

static void descriptors_are_for_complete_whole_files(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id large = ingest(fixture->contents, fixture->bytes, 2 * MIB),
                              small = ingest(fixture->contents, fixture->bytes, 64 * KIB);
    uint8_t got[100];
    struct stat status;
    int fd;
    assert_int_equal(replica_contents_files_fd(fixture->contents, &large, &fd), REPLICA_E_ABSENT);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(replica_contents_files_fd(fixture->contents, &small, &fd), REPLICA_E_ABSENT);
    assert_int_equal(
        replica_contents_files_fd(fixture->contents, &(struct replica_content_id){.length = 0}, &fd),
        REPLICA_E_ABSENT);
    assert_int_equal(replica_contents_files_fd(fixture->contents, &large, &fd), 0);
    assert_true(pwrite(fd, "x", 1, 0) < 0);
    assert_true(fstat(fd, &status) == 0 && status.st_size == 2 * (off_t)MIB &&
                (status.st_mode & 0777) == 0444);
    assert_int_equal(replica_contents_remove(fixture->contents, &large), 0);
    assert_int_equal(replica_contents_begin(fixture->contents, &large), 0); /* anew, at once */
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_true(pread(fd, got, 100, MIB) == 100); /* open descriptors keep reading */
    assert_memory_equal(got, fixture->bytes + MIB, 100);
    close(fd);
    assert_int_equal(replica_contents_state(fixture->contents, &large), REPLICA_CONTENTS_PARTIAL);
    ingest(fixture->source, fixture->bytes, 2 * MIB);
    transfer_all(fixture->source, fixture->contents, &large);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    expect_bytes(fixture->contents, &large, fixture->bytes);
}

static void damage_on_disk_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id = ingest(fixture->contents, fixture->bytes, 2 * MIB);
    struct replica_buffer data;
    char path[300], hex[65];
    int fd;
    replica_buffer_init(&data);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    for (size_t i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", id.root[i]);
    snprintf(path, sizeof path, "%s/whole/%.2s/%s-%zu", fixture->path, hex, hex, 2 * MIB);
    assert_int_equal(chmod(path, 0600), 0);
    fd = open(path, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, "damage", 6, MIB) == 6);
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0), &data), 0);
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 1), &data),
        REPLICA_E_CORRUPT);
    close(fd);
    assert_int_equal(replica_contents_state(fixture->contents, &id), REPLICA_CONTENTS_ABSENT);
    assert_int_equal(
        replica_contents_read_piece(fixture->contents, &id, piece(REPLICA_PIECE_CHUNK, 0), &data),
        REPLICA_E_ABSENT);
    assert_int_equal(replica_contents_files_fd(fixture->contents, &id, &fd), REPLICA_E_ABSENT);
    replica_buffer_close(&data);
}

struct progress {
    int fd, calls, cancel_at;
    enum change { PROGRESS_WATCH, PROGRESS_GROW, PROGRESS_CUT, PROGRESS_TOUCH } change;
};

static int on_progress(void *context, uint64_t bytes)
{
    struct progress *progress = context;
    assert_true(bytes > 0);
    if (++progress->calls == 1 && progress->change == PROGRESS_GROW)
        assert_int_equal(ftruncate(progress->fd, 5 * (off_t)MIB), 0);
    if (progress->calls == 1 && progress->change == PROGRESS_CUT)
        assert_int_equal(ftruncate(progress->fd, MIB + 7), 0);
    if (progress->calls == 1 && progress->change == PROGRESS_TOUCH)
        assert_true(pwrite(progress->fd, "other", 5, 3 * (off_t)MIB) == 5);
    return progress->cancel_at == progress->calls;
}

static void sources_are_copied_unless_they_change(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id, expected;
    for (size_t i = 0; i < SIZES_N; i++) {
        struct progress progress = {.cancel_at = -1};
        int fd = make_source(fixture->path, fixture->bytes, SIZES[i]);
        replica_merkle_content(fixture->bytes, SIZES[i], &expected);
        assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fd, on_progress, &progress, &id),
                         0);
        assert_true(replica_content_id_equal(&id, &expected));
        assert_int_equal(progress.calls, replica_merkle_chunks(SIZES[i]));
        assert_true(pwrite(fd, "later", 1, 0) == 1); /* a copy, not the file */
        expect_bytes(fixture->contents, &id, fixture->bytes);
        close(fd);
    }
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    for (int change = PROGRESS_GROW; change <= PROGRESS_TOUCH; change++) {
        struct progress progress = {.fd = make_source(fixture->path, fixture->bytes, 4 * MIB),
                                    .cancel_at = -1,
                                    .change = (enum change)change};
        assert_int_equal(
            replica_contents_files_ingest_fd(fixture->contents, progress.fd, on_progress, &progress, &id),
            REPLICA_E_BUSY);
        close(progress.fd);
    }
    {
        struct progress progress = {.fd = make_source(fixture->path, fixture->bytes, 4 * MIB),
                                    .cancel_at = 2};
        assert_int_equal(
            replica_contents_files_ingest_fd(fixture->contents, progress.fd, on_progress, &progress, &id),
            REPLICA_E_CANCELLED);
        assert_int_equal(progress.calls, 2);
        close(progress.fd);
    }
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(count_files(fixture, "partial"), 0); /* nothing is left of what failed */
}

static void odd_sources(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id, empty;
    int fds[2], fd = make_source(fixture->path, "", 0);
    replica_merkle_content("", 0, &empty);
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fd, NULL, NULL, &id), 0);
    assert_true(replica_content_id_equal(&id, &empty));
    assert_int_equal(ftruncate(fd, 5000), 0); /* small, and nothing but a hole */
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fd, NULL, NULL, &id), 0);
    memset(fixture->bytes, 0, 5000);
    expect_bytes(fixture->contents, &id, fixture->bytes);
    assert_int_equal(ftruncate(fd, (off_t)REPLICA_CONTENT_SIZE_MAX + 1), 0);
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fd, NULL, NULL, &id),
                     REPLICA_E_TOOBIG);
    close(fd);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fds[0], NULL, NULL, &id),
                     REPLICA_E_INVALID);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, -1, NULL, NULL, &id), REPLICA_E_IO);
}

/* Two pages, data in a few places: copied through all three kinds of pieces. */
static void more_than_a_page_with_holes(void **state)
{
    struct fixture *fixture = *state;
    const uint64_t length = REPLICA_PAGE_SIZE + 3 * MIB + 11;
    static const uint64_t places[] = {0, 5 * MIB + 3, REPLICA_PAGE_SIZE - 50, REPLICA_PAGE_SIZE + 3 * MIB};
    struct replica_contents_files_options options = {.log = NULL};
    struct replica_contents_totals totals;
    struct replica_contents *first = fixture->contents, *second;
    struct replica_content_id id, again;
    struct replica_kv *other_log;
    uint8_t got[100], expected[100];
    char other[64];
    size_t n;
    int fd = make_source(fixture->path, "", 0), copy;
    assert_int_equal(ftruncate(fd, (off_t)length), 0);
    for (size_t i = 0; i < 4; i++)
        assert_true(pwrite(fd, fixture->bytes + i, 11, (off_t)places[i]) == 11);
    assert_int_equal(replica_contents_files_ingest_fd(first, fd, NULL, NULL, &id), 0);
    assert_int_equal(replica_contents_sync(first), 0);
    scratch_make(other);
    assert_int_equal(replica_kv_memory_new(&other_log), 0);
    options.path = other;
    options.log = other_log;
    assert_int_equal(replica_contents_files_open(&options, &second), 0);
    assert_int_equal(replica_contents_begin(second, &id), 0);
    assert_int_equal(transfer(first, second, &id, piece(REPLICA_PIECE_PAGE, 1)),
                     REPLICA_E_ABSENT); /* no root yet */
    transfer_all(first, second, &id);
    assert_int_equal(replica_contents_state(second, &id), REPLICA_CONTENTS_FILLED);
    assert_int_equal(replica_contents_sync(second), 0);
    replica_contents_totals(second, &totals);
    assert_true(totals.bytes == 3 * MIB + 11); /* of four chunks with anything */
    for (size_t i = 0; i < 4; i++) {
        memset(expected, 0, sizeof expected);
        memcpy(expected, fixture->bytes + i, 11);
        assert_int_equal(replica_contents_read(second, &id, places[i], got, 40, &n), 0);
        assert_memory_equal(got, expected, n);
    }
    assert_int_equal(replica_contents_files_fd(second, &id, &copy), 0);
    assert_int_equal(replica_contents_files_ingest_fd(first, copy, NULL, NULL, &again),
                     0); /* hashed from end to end */
    assert_true(replica_content_id_equal(&id, &again));
    replica_contents_destroy(&second);
    assert_int_equal(replica_contents_files_open(&options, &second), 0);
    transfer_all(second, first, &id); /* pieces are served after a restart, too */
    assert_int_equal(replica_contents_remove(second, &id), 0);
    assert_int_equal(support_count(other_log, "Cp", 2) + support_count(other_log, "Cr", 2) +
                         support_count(other_log, "Ci", 2),
                     0);
    replica_contents_destroy(&second);
    replica_kv_destroy(&other_log);
    scratch_remove(other);
    close(copy);
    close(fd);
}

static void drafts_become_contents_without_a_copy(void **state)
{
    struct fixture *fixture = *state;
    static const size_t sizes[] = {0, 900, 64 * KIB, 64 * KIB + 1, 3 * MIB};
    for (size_t i = 0; i < 5; i++) {
        struct replica_content_id id, again, expected;
        struct stat draft, whole;
        uint64_t number, other;
        int fd, reader;
        assert_int_equal(replica_contents_files_draft_new(fixture->contents, &number, &fd), 0);
        assert_int_equal(replica_contents_files_draft_new(fixture->contents, &other, &reader), 0);
        assert_true(other != number);
        close(reader);
        assert_true(write(fd, fixture->bytes, sizes[i]) == (ssize_t)sizes[i]);
        assert_int_equal(fstat(fd, &draft), 0);
        close(fd);
        if (i == 4)
            reopen(fixture); /* a draft survives its node */
        assert_int_equal(replica_contents_files_draft_open(fixture->contents, number, &fd), 0);
        assert_true(pwrite(fd, fixture->bytes, sizes[i] > 0, 0) >= 0);
        close(fd);
        assert_int_equal(replica_contents_files_draft_adopt(fixture->contents, number, NULL, NULL, &id), 0);
        replica_merkle_content(fixture->bytes, sizes[i], &expected);
        assert_true(replica_content_id_equal(&id, &expected));
        expect_bytes(fixture->contents, &id, fixture->bytes);
        assert_int_equal(replica_contents_files_draft_adopt(fixture->contents, number, NULL, NULL, &again),
                         0); /* a killed node asks again */
        assert_true(replica_content_id_equal(&id, &again));
        assert_int_equal(replica_contents_sync(fixture->contents), 0);
        if (sizes[i] > REPLICA_CONTENTS_PACKED_MAX) {
            assert_int_equal(replica_contents_files_fd(fixture->contents, &id, &fd), 0);
            assert_true(fstat(fd, &whole) == 0 && whole.st_ino == draft.st_ino);
            close(fd);
            assert_int_equal(replica_contents_files_draft_open(fixture->contents, number, &fd),
                             0); /* readable, not writable */
            assert_true(pwrite(fd, "x", 1, 0) < 0);
            close(fd);
        }
        assert_int_equal(replica_contents_files_draft_remove(fixture->contents, number), 0);
        assert_int_equal(replica_contents_files_draft_remove(fixture->contents, number), 0);
        assert_int_equal(replica_contents_files_draft_remove(fixture->contents, other), 0);
        assert_int_equal(replica_contents_files_draft_open(fixture->contents, number, &fd),
                         REPLICA_E_NOTFOUND);
        assert_int_equal(replica_contents_files_draft_adopt(fixture->contents, number, NULL, NULL, &id),
                         REPLICA_E_NOTFOUND);
        expect_bytes(fixture->contents, &expected, fixture->bytes);
    }
    assert_int_equal(count_files(fixture, "draft"), 0);
}

/* Killed after adopting and before anybody could say so: the draft is still there. */
static void an_adopted_draft_is_not_lost_by_a_crash(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id, again;
    uint64_t number;
    int fd;
    assert_int_equal(replica_contents_files_draft_new(fixture->contents, &number, &fd), 0);
    assert_true(write(fd, fixture->bytes, 2 * MIB) == 2 * (ssize_t)MIB);
    close(fd);
    assert_int_equal(replica_contents_files_draft_adopt(fixture->contents, number, NULL, NULL, &id), 0);
    reopen(fixture);
    assert_int_equal(replica_contents_files_draft_adopt(fixture->contents, number, NULL, NULL, &again), 0);
    assert_true(replica_content_id_equal(&id, &again));
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(replica_contents_files_draft_remove(fixture->contents, number), 0);
    expect_bytes(fixture->contents, &id, fixture->bytes);
}

/* Of a content of several chunks it is its ids that say how much room it needs: no byte is asked for in vain. */
static int begin_with_ids(struct replica_contents *from, struct replica_contents *to,
                          const struct replica_content_id *id)
{
    uint32_t pages = replica_merkle_pages(id->length);
    int rv = replica_contents_begin(to, id);
    if (rv != 0)
        return rv;
    if (pages > 1)
        rv = transfer(from, to, id, piece(REPLICA_PIECE_ROOT, 0));
    for (uint32_t i = 0; i < pages && rv == 0 && id->length > MIB; i++)
        rv = transfer(from, to, id, piece(REPLICA_PIECE_PAGE, i));
    if (rv != 0)
        assert_int_equal(replica_contents_remove(to, id), 0);
    return rv;
}

/* Refused politely, and nothing changed. */
static void limits_are_kept(struct fixture *fixture, uint64_t fits, uint64_t too_much)
{
    struct replica_contents_totals before, after;
    struct replica_content_id id, big = ingest(fixture->source, fixture->bytes, (size_t)too_much);
    uint64_t number;
    int fd;
    replica_contents_totals(fixture->contents, &before);
    assert_int_equal(replica_contents_ingest(fixture->contents, fixture->bytes, (size_t)too_much, &id),
                     REPLICA_E_NOSPACE);
    assert_int_equal(begin_with_ids(fixture->source, fixture->contents, &big), REPLICA_E_NOSPACE);
    fd = make_source(fixture->path, fixture->bytes, (size_t)too_much);
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fd, NULL, NULL, &id),
                     REPLICA_E_NOSPACE);
    close(fd);
    assert_int_equal(replica_contents_files_draft_new(fixture->contents, &number, &fd), 0);
    assert_true(write(fd, fixture->bytes, (size_t)too_much) == (ssize_t)too_much);
    close(fd);
    if (fixture->capacity > 0) { /* its bytes are on the disk already, so the floor does not matter */
        assert_int_equal(replica_contents_files_draft_adopt(fixture->contents, number, NULL, NULL, &id),
                         REPLICA_E_NOSPACE);
        assert_int_equal(replica_contents_files_draft_open(fixture->contents, number, &fd),
                         0); /* the draft is not lost */
        close(fd);
    }
    assert_int_equal(replica_contents_files_draft_remove(fixture->contents, number), 0);
    replica_contents_totals(fixture->contents, &after);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(count_files(fixture, "partial"), 0);
    assert_int_equal(replica_contents_state(fixture->contents, &big), REPLICA_CONTENTS_ABSENT);
    if (fits > 0) {
        ingest(fixture->contents, fixture->bytes, (size_t)fits);
        assert_int_equal(replica_contents_sync(fixture->contents), 0);
    }
}

static void capacity_is_a_bound(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id, open = ingest(fixture->source, fixture->bytes + 9, MIB);
    fixture->capacity = 3 * MIB;
    reopen(fixture);
    limits_are_kept(fixture, 2 * MIB, 3 * MIB + 1);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    limits_are_kept(fixture, 0, MIB + 1);
    assert_int_equal(replica_contents_begin(fixture->contents, &open), 0); /* what is under way counts */
    assert_int_equal(replica_contents_ingest(fixture->contents, "x", 1, &id),
                     REPLICA_E_NOSPACE); /* small ones, too */
    assert_int_equal(replica_contents_remove(fixture->contents, &open), 0);
    assert_int_equal(replica_contents_ingest(fixture->contents, "x", 1, &id), 0);
}

static uint64_t bytes_of(struct replica_contents *contents)
{
    struct replica_contents_totals totals;
    replica_contents_totals(contents, &totals);
    return totals.bytes;
}

/* A file of `size` of which 2 MiB are written, the second one at `second`. */
static int make_sparse(struct fixture *fixture, uint64_t size, uint64_t second)
{
    int fd = make_source(fixture->path, "", 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_true(pwrite(fd, fixture->bytes, MIB, (off_t)(7 * MIB)) == (ssize_t)MIB);
    assert_true(pwrite(fd, fixture->bytes, MIB, (off_t)second) == (ssize_t)MIB);
    return fd;
}

/* What counts against the capacity is what is stored: put, drafted, fetched, left half done and taken up again. */
static void holes_take_no_capacity(void **state)
{
    struct fixture *fixture = *state, *other = calloc(1, sizeof *other);
    struct replica_content_id id, same, full;
    uint64_t number;
    int fd, draft;
    assert_non_null(other);
    fixture->capacity = other->capacity = 3 * MIB;
    reopen(fixture);
    scratch_make(other->path);
    assert_int_equal(replica_kv_memory_new(&other->log), 0);
    open_files(other);
    fd = make_sparse(fixture, 900 * MIB - 5, 600 * MIB);
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fd, NULL, NULL, &id), 0);
    assert_int_equal(bytes_of(fixture->contents), 2 * MIB); /* filled … */
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(bytes_of(fixture->contents), 2 * MIB); /* … and complete */
    reopen(fixture);
    assert_int_equal(bytes_of(fixture->contents), 2 * MIB);
    assert_int_equal(replica_contents_files_draft_new(fixture->contents, &number, &draft), 0);
    assert_int_equal(ftruncate(draft, (off_t)(100 * MIB)), 0);
    assert_true(write(draft, fixture->bytes + 1, MIB) == (ssize_t)MIB);
    close(draft);
    assert_int_equal(replica_contents_files_draft_adopt(fixture->contents, number, NULL, NULL, &same), 0);
    assert_int_equal(replica_contents_ingest(fixture->contents, "x", 1, &same), REPLICA_E_NOSPACE);

    assert_int_equal(begin_with_ids(fixture->contents, other->contents, &id), 0);
    assert_int_equal(bytes_of(other->contents), 2 * MIB); /* known before they are here */
    full = ingest(fixture->source, fixture->bytes + 2, 2 * MIB);
    assert_int_equal(begin_with_ids(fixture->source, other->contents, &full), REPLICA_E_NOSPACE);
    assert_int_equal(transfer(fixture->contents, other->contents, &id, piece(REPLICA_PIECE_CHUNK, 7)), 0);
    reopen(other);
    assert_true(bytes_of(other->contents) >= MIB && bytes_of(other->contents) <= 3 * MIB);
    assert_int_equal(begin_with_ids(fixture->contents, other->contents, &id), 0);
    assert_int_equal(bytes_of(other->contents), 2 * MIB);
    assert_int_equal(transfer(fixture->contents, other->contents, &id, piece(REPLICA_PIECE_CHUNK, 600)), 0);
    assert_int_equal(replica_contents_state(other->contents, &id), REPLICA_CONTENTS_FILLED);
    assert_int_equal(bytes_of(other->contents), 2 * MIB);
    assert_int_equal(replica_contents_sync(other->contents), 0);
    assert_int_equal(bytes_of(other->contents), 2 * MIB);
    assert_int_equal(replica_contents_remove(other->contents, &id), 0);
    assert_int_equal(bytes_of(other->contents), 0);
    assert_int_equal(begin_with_ids(fixture->source, other->contents, &full), 0);
    assert_int_equal(replica_contents_remove(other->contents, &full), 0);
    assert_int_equal(replica_contents_sync(other->contents), 0); /* the bytes of what was removed go */
    close(fd);

    /* Of several GiB the root tells which are nothing but holes; the others count whole until their own ids are here. */
    fixture->capacity = 6 * MIB;
    reopen(fixture);
    fd = make_sparse(fixture, 3072 * MIB, 2500 * MIB);
    assert_int_equal(replica_contents_files_ingest_fd(fixture->contents, fd, NULL, NULL, &id), 0);
    close(fd);
    other->capacity = 2048 * MIB - 1;
    reopen(other);
    assert_int_equal(begin_with_ids(fixture->contents, other->contents, &id), REPLICA_E_NOSPACE);
    assert_int_equal(bytes_of(other->contents), 0);
    other->capacity++;
    reopen(other);
    assert_int_equal(replica_contents_begin(other->contents, &id), 0);
    assert_int_equal(transfer(fixture->contents, other->contents, &id, piece(REPLICA_PIECE_ROOT, 0)), 0);
    assert_int_equal(bytes_of(other->contents), 2048 * MIB);
    assert_int_equal(transfer(fixture->contents, other->contents, &id, piece(REPLICA_PIECE_PAGE, 2)), 0);
    assert_int_equal(bytes_of(other->contents), 1025 * MIB);
    assert_int_equal(transfer(fixture->contents, other->contents, &id, piece(REPLICA_PIECE_PAGE, 1)), 0);
    assert_int_equal(bytes_of(other->contents), 1025 * MIB);
    assert_int_equal(transfer(fixture->contents, other->contents, &id, piece(REPLICA_PIECE_PAGE, 0)), 0);
    assert_int_equal(bytes_of(other->contents), 2 * MIB);
    replica_contents_destroy(&other->contents);
    replica_kv_destroy(&other->log);
    scratch_remove(other->path);
    free(other);
}

static void the_floor_of_free_space_is_kept(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id id;
    fixture->free_floor = UINT64_MAX / 4;
    reopen(fixture);
    limits_are_kept(fixture, 0, 100 * KIB);
    assert_int_equal(replica_contents_ingest(fixture->contents, "x", 1, &id), REPLICA_E_NOSPACE);
}

static void small_contents_share_packs(void **state)
{
    struct fixture *fixture = *state;
    struct replica_content_id ids[300];
    for (size_t i = 0; i < 300; i++)
        ids[i] = ingest(fixture->contents, fixture->bytes + i, 100 + i);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(count_files(fixture, "packs"), 1);
    reopen(fixture); /* later ones go into another pack */
    for (size_t i = 0; i < 300; i++)
        if (i != 150)
            assert_int_equal(replica_contents_remove(fixture->contents, &ids[i]), 0);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    expect_bytes(fixture->contents, &ids[150],
                 fixture->bytes + 150); /* its neighbours' room was given back, not its own */
    assert_int_equal(count_files(fixture, "packs"), 1);
    reopen(fixture);
    expect_bytes(fixture->contents, &ids[150], fixture->bytes + 150);
    assert_int_equal(replica_contents_remove(fixture->contents, &ids[150]), 0);
    assert_int_equal(replica_contents_sync(fixture->contents), 0);
    assert_int_equal(count_files(fixture, "packs"), 0);
}

/* Many threads write the same contents, read them, and sync: each chunk many times over. */

struct worker {
    struct fixture *fixture;
    struct replica_content_id ids[4];
    uint64_t seed;
};

static void *work(void *context)
{
    struct worker *worker = context;
    struct support_random random = {.state = worker->seed};
    struct replica_buffer data;
    replica_buffer_init(&data);
    for (int i = 0; i < 150; i++) {
        const struct replica_content_id *id = &worker->ids[support_random_below(&random, 4)];
        uint32_t chunks = replica_merkle_chunks(id->length);
        struct replica_piece what =
            piece(REPLICA_PIECE_CHUNK, (uint32_t)support_random_below(&random, chunks));
        uint8_t got[100];
        size_t n;
        int rv;
        if (i % 10 == 0)
            assert_int_equal(replica_contents_sync(worker->fixture->contents), 0);
        if (i % 7 == 0 && chunks > 1)
            what = piece(REPLICA_PIECE_PAGE, 0);
        if (replica_contents_read_piece(worker->fixture->source, id, what, &data) != 0)
            continue;
        rv = replica_contents_write(worker->fixture->contents, id, what, data.data, data.size);
        assert_true(rv == 0 || rv == REPLICA_E_ABSENT);
        rv = replica_contents_read(worker->fixture->contents, id, 0, got, sizeof got, &n);
        assert_true(rv == REPLICA_E_ABSENT || (rv == 0 && memcmp(got, worker->fixture->bytes, n) == 0));
    }
    replica_buffer_close(&data);
    return NULL;
}

static void any_thread_may_do_anything(void **state)
{
    struct fixture *fixture = *state;
    struct worker workers[4];
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        struct replica_content_id id = ingest(fixture->source, fixture->bytes, i == 0 ? 1000 : i * MIB + 77);
        assert_int_equal(replica_contents_begin(fixture->contents, &id), 0);
        for (size_t w = 0; w < 4; w++)
            workers[w].ids[i] = id;
    }
    for (size_t w = 0; w < 4; w++) {
        workers[w].fixture = fixture;
        workers[w].seed = 100 + w;
        assert_int_equal(pthread_create(&threads[w], NULL, work, &workers[w]), 0);
    }
    for (size_t w = 0; w < 4; w++)
        assert_int_equal(pthread_join(threads[w], NULL), 0);
    for (size_t i = 0; i < 4; i++) {
        transfer_all(fixture->source, fixture->contents, &workers[0].ids[i]);
        assert_int_equal(replica_contents_sync(fixture->contents), 0);
        assert_int_equal(replica_contents_state(fixture->contents, &workers[0].ids[i]),
                         REPLICA_CONTENTS_COMPLETE);
        expect_bytes(fixture->contents, &workers[0].ids[i], fixture->bytes);
    }
}

#define CONFORMANCE(setup)                                                                                   \
    cmocka_unit_test_setup_teardown(ingest_makes_filled_then_complete, setup, teardown),                     \
        cmocka_unit_test_setup_teardown(nothing_is_always_there, setup, teardown),                           \
        cmocka_unit_test_setup_teardown(pieces_arrive_in_any_order, setup, teardown),                        \
        cmocka_unit_test_setup_teardown(wrong_bytes_are_refused, setup, teardown),                           \
        cmocka_unit_test_setup_teardown(a_range_is_read_once_its_chunks_are_there, setup, teardown),         \
        cmocka_unit_test_setup_teardown(holes_are_present_as_soon_as_the_page_is, setup, teardown),          \
        cmocka_unit_test_setup_teardown(impossible_lengths_are_refused, setup, teardown),                    \
        cmocka_unit_test_setup_teardown(contents_are_walked_in_order_and_removed, setup, teardown)
#define FILES(name) cmocka_unit_test_setup_teardown(name, setup_files, teardown)

int main(void)
{
    const struct CMUnitTest memory[] = {
        CONFORMANCE(setup_memory),
        cmocka_unit_test_setup_teardown(memory_fails_and_loses_as_told, setup_memory, teardown),
    };
    const struct CMUnitTest files[] = {
        CONFORMANCE(setup_files),
        FILES(what_is_complete_survives_reopening),
        FILES(a_transfer_is_resumed),
        FILES(a_record_never_names_what_is_gone),
        FILES(what_was_made_whole_without_a_record_goes),
        FILES(what_was_filled_survives_a_killed_node),
        FILES(leftovers_without_a_meaning_are_removed),
        FILES(a_failed_sync_is_for_good),
        FILES(descriptors_are_for_complete_whole_files),
        FILES(damage_on_disk_is_noticed),
        FILES(sources_are_copied_unless_they_change),
        FILES(odd_sources),
        FILES(more_than_a_page_with_holes),
        FILES(drafts_become_contents_without_a_copy),
        FILES(an_adopted_draft_is_not_lost_by_a_crash),
        FILES(capacity_is_a_bound),
        FILES(holes_take_no_capacity),
        FILES(the_floor_of_free_space_is_kept),
        FILES(small_contents_share_packs),
        cmocka_unit_test_setup_teardown(any_thread_may_do_anything, setup_files_on_leveldb, teardown),
    };
    int failed = cmocka_run_group_tests_name("contents in memory", memory, NULL, NULL);
    return failed + cmocka_run_group_tests_name("contents in files", files, NULL, NULL);
}
