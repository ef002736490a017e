/* A store's directory: whose it is, who it is, and what it refuses; and a node on one, from its ready line to
 * its end. */
#include "node_fixture.h"
#include "replica/error.h"
#include "replica/kv_leveldb.h"
#include "store/store.h"

#include <dirent.h>
#include <sys/file.h>

struct place {
    char directory[SCRATCH_PATH_SIZE], data[96];
};

static int setup(void **state)
{
    struct place *place = calloc(1, sizeof *place);
    scratch_make(place->directory);
    snprintf(place->data, sizeof place->data, "%s/new/data", place->directory);
    *state = place;
    return 0;
}

static int teardown(void **state)
{
    struct place *place = *state;
    scratch_remove(place->directory);
    free(place);
    return 0;
}

static struct node_store *open_store(const struct place *place)
{
    struct node_store_options options = {.path = place->data};
    struct node_store *store = NULL;
    char *message = NULL;
    int rv = node_store_open(&options, &store, &message);
    if (rv != 0)
        print_error("%s\n", message == NULL ? replica_error_text(rv) : message);
    assert_int_equal(rv, 0);
    return store;
}

/* Opening fails with that code, and the message has all of the words. */
static void assert_refused(const struct place *place, int code, const char *word, const char *other)
{
    struct node_store_options options = {.path = place->data};
    struct node_store *store = NULL;
    char *message = NULL;
    assert_int_equal(node_store_open(&options, &store, &message), code);
    assert_null(store);
    assert_non_null(message);
    assert_non_null(strstr(message, place->data));
    assert_non_null(strstr(message, word));
    assert_non_null(strstr(message, other));
    free(message);
}

static void write_file(const struct place *place, const char *name, const void *data, size_t n)
{
    char path[160];
    int fd;
    snprintf(path, sizeof path, "%s/%s", place->data, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    close(fd);
}

static void test_made_for_its_owner_alone(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    struct stat status;
    char path[160];
    assert_int_equal(stat(place->data, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    snprintf(path, sizeof path, "%s/IDENTITY", place->data);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    node_store_close(&store);
}

static void test_identity_survives_and_the_generation_rises(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    struct node_store first = *store;
    assert_false(replica_id_is_zero(&first.id));
    assert_int_equal(first.generation, 1);
    node_store_close(&store);
    for (uint64_t generation = 2; generation < 5; generation++) {
        store = open_store(place);
        assert_true(replica_id_equal(&store->id, &first.id));
        assert_memory_equal(store->curve_public, first.curve_public, NODE_STORE_CURVE_SIZE);
        assert_int_equal(store->generation, generation);
        node_store_close(&store);
    }
}

static void test_one_node_at_a_time(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    char pid[16];
    snprintf(pid, sizeof pid, "process %d", (int)getpid());
    assert_refused(place, REPLICA_E_BUSY, "in use by another node", pid);
    node_store_close(&store);
    store = open_store(place);
    assert_int_equal(store->generation, 2); /* who was refused raised nothing */
    node_store_close(&store);
}

static void test_a_newer_format_is_refused(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    node_store_close(&store);
    write_file(place, "FORMAT", "remora store 2\n", 15);
    assert_refused(place, REPLICA_E_VERSION, "newer version", "format 2");
    write_file(place, "FORMAT", "remora store 1\n", 15);
    store = open_store(place);
    assert_int_equal(store->generation, 2); /* nor did that */
    node_store_close(&store);
}

static void test_a_directory_of_something_else_is_left_alone(void **state)
{
    struct place *place = *state;
    char path[160];
    snprintf(path, sizeof path, "%s/new", place->directory);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(mkdir(place->data, 0755), 0);
    write_file(place, "thesis.tex", "x", 1);
    assert_refused(place, REPLICA_E_EXISTS, "thesis.tex", "--data");
    snprintf(path, sizeof path, "%s/LOCK", place->data);
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/FORMAT", place->data);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_damage_is_named(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    char path[160];
    node_store_close(&store);
    write_file(place, "GENERATION", "0123456789abcdef", 16);
    assert_refused(place, REPLICA_E_CORRUPT, "GENERATION", "damaged");
    snprintf(path, sizeof path, "%s/IDENTITY", place->data);
    assert_int_equal(unlink(path), 0);
    assert_refused(place, REPLICA_E_CORRUPT, "IDENTITY",
                   "missing"); /* never a second identity over a state */
    write_file(place, "FORMAT", "something", 9);
    assert_refused(place, REPLICA_E_CORRUPT, "FORMAT", "not what a node writes");
}

/* A first start that was cut off before its identity was written is simply done again. */
static void test_a_first_start_cut_off(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    char path[160];
    node_store_close(&store);
    for (const char *const *name = (const char *const[]){"IDENTITY", "GENERATION", NULL}; *name != NULL;
         name++) {
        snprintf(path, sizeof path, "%s/%s", place->data, *name);
        assert_int_equal(unlink(path), 0);
    }
    for (const char *const *name = (const char *const[]){"log", "map", "contents", NULL}; *name != NULL;
         name++) {
        snprintf(path, sizeof path, "%s/%s", place->data, *name);
        scratch_remove_below(path);
    }
    write_file(place, "IDENTITY.tmp", "half", 4);
    store = open_store(place);
    assert_int_equal(store->generation, 1);
    node_store_close(&store);
}

static void damage_file(const struct place *place, const char *name, int how)
{
    char path[512];
    uint8_t byte;
    int fd;
    snprintf(path, sizeof path, "%s/%s", place->data, name);
    if (how == 0) {
        assert_int_equal(unlink(path), 0);
        return;
    }
    fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    if (how == 1) {
        assert_int_equal(ftruncate(fd, 0), 0);
    } else {
        assert_int_equal(pread(fd, &byte, 1, 4), 1);
        byte ^= 16;
        assert_int_equal(pwrite(fd, &byte, 1, 4), 1);
    }
    close(fd);
}

/* The one file in that directory of the store whose name begins or ends so. */
static void find_file(const struct place *place, const char *directory, const char *part, char ret[512])
{
    char path[256];
    struct dirent *entry;
    DIR *listing;
    snprintf(path, sizeof path, "%s/%s", place->data, directory);
    listing = opendir(path);
    assert_non_null(listing);
    ret[0] = '\0';
    while ((entry = readdir(listing)) != NULL)
        if (strstr(entry->d_name, part) != NULL)
            snprintf(ret, 512, "%s/%s", directory, entry->d_name);
    closedir(listing);
    assert_int_not_equal(ret[0], '\0');
}

static void put_something(struct replica_kv *kv)
{
    struct replica_kv_batch batch;
    replica_kv_batch_init(&batch);
    replica_kv_batch_put(&batch, "zz", 2, "value", 5);
    assert_int_equal(replica_kv_write(kv, &batch), 0);
    assert_int_equal(replica_kv_sync(kv), 0);
    replica_kv_batch_close(&batch);
}

static void make_store(struct place *place)
{
    struct node_store *store;
    scratch_remove_below(place->data);
    for (int i = 0; i < 2; i++) {
        store = open_store(place);
        if (i == 0) { /* written out by the next opening */
            put_something(store->log);
            put_something(store->map);
        }
        node_store_close(&store);
    }
}

/* Nothing reads all of a log to open it: damage in the middle is met by who reads there, at the latest. */
static void assert_read_fails(const struct place *place)
{
    struct node_store_options options = {.path = place->data};
    struct node_store *store = NULL;
    struct replica_buffer value;
    char *message = NULL;
    int rv = node_store_open(&options, &store, &message);
    if (rv != 0) {
        assert_int_equal(rv, REPLICA_E_CORRUPT);
        assert_non_null(strstr(message, "/log"));
        free(message);
        return;
    }
    replica_buffer_init(&value);
    assert_int_equal(replica_kv_get(store->log, "zz", 2, &value), REPLICA_E_CORRUPT);
    assert_true(replica_kv_leveldb_is_damaged(store->log));
    replica_buffer_close(&value);
    node_store_close(&store);
}

/* Removed, cut to nothing, or with a bit flipped: whatever the log is made of is missed, by name, and nothing is made in its place. */
static void test_every_file_of_the_log_is_missed(void **state)
{
    struct place *place = *state;
    static const char *const PARTS[] = {"CURRENT", "MANIFEST-", ".log", ".ldb"};
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
        for (int how = 0; how < 3; how++) {
            char name[512];
            make_store(place);
            find_file(place, "log", PARTS[i], name);
            damage_file(place, name, how);
            if (how > 0 && strcmp(PARTS[i], ".ldb") == 0)
                assert_read_fails(place);
            else
                assert_refused(place, REPLICA_E_CORRUPT, "log", "docs/operations.md");
        }
}

static void test_a_log_that_is_gone(void **state)
{
    struct place *place = *state;
    char path[160];
    make_store(place);
    snprintf(path, sizeof path, "%s/log", place->data);
    scratch_remove_below(path);
    assert_refused(place, REPLICA_E_CORRUPT, "has contents but no log", "empty --data");
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/map", place->data);
    scratch_remove_below(path);
    snprintf(path, sizeof path, "%s/contents", place->data);
    scratch_remove_below(path);
    assert_refused(place, REPLICA_E_CORRUPT, "no log", "empty --data");
}

/* The map has nothing that the log has not: it is set aside, and there is another. */
static void test_a_damaged_map_is_set_aside(void **state)
{
    struct place *place = *state;
    static const char *const PARTS[] = {"CURRENT", "MANIFEST-", ".ldb"};
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
        for (int how = 0; how < 3; how++) {
            struct node_store *store;
            struct replica_buffer value;
            char name[512];
            int rv;
            make_store(place);
            find_file(place, "map", PARTS[i], name);
            damage_file(place, name, how);
            store = open_store(place);
            replica_buffer_init(&value);
            rv = replica_kv_get(store->map, "zz", 2, &value);
            if (rv == REPLICA_E_CORRUPT) { /* found only when it was read */
                assert_true(node_store_map_is_damaged(store));
                node_store_close(&store);
                store = open_store(place);
                rv = replica_kv_get(store->map, "zz", 2, &value);
            }
            assert_int_equal(rv, REPLICA_E_NOTFOUND);
            replica_buffer_close(&value);
            node_store_close(&store);
        }
}

/* The reserve takes its room at once, is no obstacle to a later life, and gives its room back whole. */
static void test_a_reserve_is_kept_and_given_back(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    uint64_t size = (uint64_t)1 << 20;
    struct stat status;
    char path[160];
    assert_true(node_store_reserve_size(store) > 0);
    assert_true(node_store_reserve_size(store) <= (uint64_t)64 << 20);
    assert_false(node_store_reserve_is_made(store));
    if (node_store_reserve_make(store, 2 * size) != 0)
        skip();                                                /* a file system that promises no room */
    assert_int_equal(node_store_reserve_make(store, size), 0); /* of a disk that became smaller */
    snprintf(path, sizeof path, "%s/RESERVE", place->data);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, size);
    assert_true((uint64_t)status.st_blocks * 512 >= size);
    node_store_close(&store);
    store = open_store(place);
    assert_true(node_store_reserve_is_made(store));
    node_store_reserve_release(store);
    assert_false(node_store_reserve_is_made(store));
    node_store_reserve_release(store); /* of none */
    node_store_close(&store);
}

/* Group commit: what is requested before a sync began is reported by its end, in order, and a failed one ends
 * it. */
struct watch {
    struct node_loop *loop;
    uint64_t synced, until;
    int code;
};

static void on_synced(void *context, uint64_t batch, int code)
{
    struct watch *watch = context;
    assert_true(batch >= watch->synced);
    watch->synced = batch;
    watch->code = code;
    if (batch >= watch->until || code != 0)
        node_loop_stop(watch->loop);
}

static void test_group_commit(void **state)
{
    struct place *place = *state;
    struct node_store *store = open_store(place);
    struct watch watch = {.until = 1000};
    struct node_syncer *syncer;
    assert_int_equal(node_loop_new(&watch.loop), 0);
    assert_int_equal(node_syncer_new(watch.loop, store, on_synced, &watch, &syncer), 0);
    for (uint64_t batch = 1; batch <= watch.until; batch++) {
        struct replica_kv_batch write;
        replica_kv_batch_init(&write);
        replica_kv_batch_put(&write, &batch, sizeof batch, "x", 1);
        assert_int_equal(replica_kv_write(store->log, &write), 0);
        replica_kv_batch_close(&write);
        node_syncer_request(syncer, batch);
    }
    assert_int_equal(node_loop_run(watch.loop), 0);
    assert_int_equal(watch.code, 0);
    assert_int_equal(watch.synced, watch.until);
    node_syncer_destroy(&syncer);
    node_loop_destroy(&watch.loop);
    node_store_close(&store);
}

/* A node without any configuration but its places */

static void test_a_node_serves_and_stops(void **state)
{
    struct fixture *fixture = *state;
    struct node_store_options options = {.path = fixture->data};
    struct node_store *store = NULL;
    char line[512] = "", *message = NULL;
    FILE *log = fopen(fixture->log, "r");
    assert_non_null(log);
    while (strstr(line, "remora node ready:") == NULL) /* it answered already, so the line is there */
        assert_non_null(fgets(line, sizeof line, log));
    fclose(log);
    assert_non_null(strstr(line, fixture->socket));
    assert_non_null(strstr(line, "endpoint tcp://127.0.0.1:"));
    assert_int_equal(node_store_open(&options, &store, &message), REPLICA_E_BUSY);
    free(message);
    assert_int_equal(fixture_end(fixture, SIGTERM), 0);
    assert_int_not_equal(access(fixture->socket, F_OK), 0);
    assert_int_equal(node_store_open(&options, &store, &message), 0);
    node_store_close(&store);
    fixture_start(fixture);
    assert_int_equal(fixture_end(fixture, SIGINT), 0);
}

/* Drafts from one life to the next */

static void forge_boot(const struct fixture *fixture)
{
    struct replica_kv_leveldb_options options = {
        .write_buffer_size = 1 << 20, .cache_size = 1 << 20, .open_files_max = 50};
    struct replica_kv_batch batch;
    struct replica_buffer value;
    struct replica_kv *log;
    char path[160];
    snprintf(path, sizeof path, "%s/log", fixture->data);
    options.path = path;
    assert_int_equal(replica_kv_leveldb_open(&options, &log, NULL), 0);
    replica_buffer_init(&value);
    assert_int_equal(replica_kv_get(log, "B", 1, &value), 0);
    memset(value.data, 'x', 36);
    replica_kv_batch_init(&batch);
    replica_kv_batch_put(&batch, "B", 1, value.data, value.size);
    assert_int_equal(replica_kv_write(log, &batch), 0);
    assert_int_equal(replica_kv_sync(log), 0);
    replica_kv_batch_close(&batch);
    replica_buffer_close(&value);
    replica_kv_destroy(&log);
}

static struct remora_view open_drafts(struct fixture *fixture)
{
    struct remora_view view;
    OK(fixture, remora_volume_create(fixture->remora, "v", 2, REMORA_IF_MISSING));
    OK(fixture, remora_view_open(fixture->remora, "v", NULL, "kept", 0, &view));
    return view;
}

static void write_draft(struct fixture *fixture, const char *path, const char *text)
{
    struct remora_view view = open_drafts(fixture);
    OK(fixture, remora_write(fixture->remora, &view, path, 0, text, strlen(text), true));
}

static void assert_draft(struct fixture *fixture, const char *path, const char *text)
{
    struct remora_view view = open_drafts(fixture);
    char data[64];
    size_t n = 0;
    int code = remora_read(fixture->remora, &view, path, 0, data, sizeof data, &n);
    if (text == NULL) {
        assert_int_equal(code, REMORA_E_NOTFOUND);
        return;
    }
    assert_int_equal(code, 0);
    assert_int_equal(n, strlen(text));
    assert_memory_equal(data, text, n);
}

static bool log_has(const struct fixture *fixture, const char *text)
{
    char line[2048];
    bool found = false;
    FILE *log = fopen(fixture->log, "r");
    assert_non_null(log);
    while (!found && fgets(line, sizeof line, log) != NULL)
        found = strstr(line, text) != NULL;
    fclose(log);
    return found;
}

static int count_drafts(const struct fixture *fixture)
{
    char path[160];
    struct dirent *entry;
    DIR *listing;
    int n = 0;
    snprintf(path, sizeof path, "%s/contents/draft", fixture->data);
    listing = opendir(path);
    assert_non_null(listing);
    while ((entry = readdir(listing)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(listing);
    return n;
}

static void next_life(struct fixture *fixture, int number)
{
    (void)fixture_end(fixture, number);
    fixture_start(fixture);
}

static void test_drafts_survive_a_kill_and_nothing_else_does(void **state)
{
    struct fixture *fixture = *state;
    char path[160];
    int fd;
    write_draft(fixture, "a", "kept through a kill");
    snprintf(path, sizeof path, "%s/contents/draft/77", fixture->data);
    fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    next_life(fixture, SIGKILL);
    assert_draft(fixture, "a", "kept through a kill");
    assert_int_equal(count_drafts(fixture), 1); /* what no view names is swept */
    write_draft(fixture, "b", "made later");
    next_life(fixture, SIGTERM);
    assert_draft(fixture, "a", "kept through a kill");
    assert_draft(fixture, "b", "made later");
    assert_false(log_has(fixture, "draft_lost"));
}

/* Another boot id, and the node did not end in order: what the last life wrote may never have reached the disk. What it found at its
 * start is durable. */
static void test_drafts_after_a_loss_of_power(void **state)
{
    struct fixture *fixture = *state;
    char path[160];
    write_draft(fixture, "early", "of an earlier life");
    next_life(fixture, SIGKILL);
    write_draft(fixture, "late", "perhaps torn");
    (void)fixture_end(fixture, SIGKILL);
    forge_boot(fixture);
    fixture_start(fixture);
    assert_draft(fixture, "early", "of an earlier life");
    assert_draft(fixture, "late", NULL);
    assert_true(log_has(fixture, "draft_lost path=\"late\""));
    snprintf(path, sizeof path, "%s/contents/quarantine/draft-2", fixture->data);
    assert_int_equal(access(path, F_OK), 0);
    write_draft(fixture, "late", "written again");
    assert_draft(fixture, "late", "written again");
}

/* A node that ended in order has made its drafts durable. */
static void test_drafts_after_an_end_in_order_and_another_boot(void **state)
{
    struct fixture *fixture = *state;
    write_draft(fixture, "a", "still here");
    (void)fixture_end(fixture, SIGTERM);
    forge_boot(fixture);
    fixture_start(fixture);
    assert_draft(fixture, "a", "still here");
    assert_false(log_has(fixture, "draft_lost"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_made_for_its_owner_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity_survives_and_the_generation_rises, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_node_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_newer_format_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_directory_of_something_else_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_first_start_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_file_of_the_log_is_missed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_log_that_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_map_is_set_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_reserve_is_kept_and_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_group_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_node_serves_and_stops, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_drafts_survive_a_kill_and_nothing_else_does, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_drafts_after_a_loss_of_power, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_drafts_after_an_end_in_order_and_another_boot, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
