/* Reading what another node has: two real nodes, one of which holds nothing yet. */
#include "node_fixture.h"

#include "transport/credential.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#define MIB        ((size_t)1 << 20)
#define LARGE_SIZE (9 * MIB + 77)
#define SMALL      300 /* small files */

struct pair {
    struct fixture *holder, *reader;
    char key[96], first[64], second[64];
};

/* Two neighbouring ports that are free now. */
static int free_pair(void)
{
    for (int port = 20000 + (int)(getpid() % 9000) * 2; port < 60000; port += 2) {
        int fds[2] = {socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                      socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)},
            bound = 0;
        for (int i = 0; i < 2; i++) {
            struct sockaddr_in address = {.sin_family = AF_INET,
                                          .sin_port = htons((uint16_t)(port + i)),
                                          .sin_addr = {htonl(INADDR_LOOPBACK)}};
            bound += bind(fds[i], (struct sockaddr *)&address, sizeof address) == 0;
        }
        close(fds[0]);
        close(fds[1]);
        if (bound == 2)
            return port;
    }
    fail_msg("no free ports");
    return 0;
}

static void make_key(struct pair *pair)
{
    struct node_keygen_options options = {.path = pair->key};
    char *message = NULL;
    snprintf(pair->key, sizeof pair->key, "%s/key", pair->holder->directory);
    assert_int_equal(node_keygen(&options, &message), 0);
}

static int setup_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    int port = free_pair();
    pair->holder = fixture_new();
    pair->reader = fixture_new();
    make_key(pair);
    snprintf(pair->first, sizeof pair->first, "tcp://127.0.0.1:%d", port);
    pair->holder->settings[0][0] = pair->reader->settings[0][0] = "key";
    pair->holder->settings[0][1] = pair->reader->settings[0][1] = pair->key;
    pair->holder->settings[1][0] = "listen";
    pair->holder->settings[1][1] = pair->first;
    fixture_start(pair->holder);
    params_begin(&params, 0);
    OK(pair->holder, ask(pair->holder, "cluster.init", &params, &answer));
    free(answer.bytes);
    snprintf(pair->second, sizeof pair->second, "tcp://127.0.0.1:%d", free_pair());
    pair->reader->settings[1][0] = "listen";
    pair->reader->settings[1][1] = pair->second;
    pair->reader->settings[2][0] = "join";
    pair->reader->settings[2][1] = pair->first;
    fixture_start(pair->reader);
    *state = pair;
    return 0;
}

static int teardown_pair(void **state)
{
    struct pair *pair = *state;
    void *reader = pair->reader, *holder = pair->holder;
    fixture_teardown(&reader);
    fixture_teardown(&holder);
    free(pair);
    return 0;
}

/* Until the node has joined and knows the volume. */
static struct remora_view wait_for_volume(struct fixture *fixture, const char *volume)
{
    struct remora_view view;
    int code = -1;
    for (int i = 0; i < START_MS / 50 && code != 0; i++) {
        code = remora_view_open(fixture->remora, volume, NULL, NULL, 0, &view);
        if (code != 0)
            poll(NULL, 0, 50);
    }
    OK(fixture, code);
    return view;
}

static uint8_t *fill(size_t n)
{
    uint8_t *bytes = malloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    return bytes;
}

static void put_all(struct fixture *fixture, const uint8_t *bytes)
{
    static char names[SMALL][32];
    struct remora_view view = new_volume(fixture, "v");
    struct remora_entry entries[SMALL];
    for (int i = 0; i < SMALL; i++) {
        snprintf(names[i], sizeof names[i], "small/%d", i);
        entries[i] = (struct remora_entry){.path = names[i],
                                           .kind = REMORA_FILE,
                                           .mode = 0644,
                                           .size = (uint64_t)(i * 40),
                                           .data = bytes + i,
                                           .fd = -1};
    }
    OK(fixture, remora_put(fixture->remora, &view, entries, SMALL, true));
    OK(fixture, remora_write(fixture->remora, &view, "large", 0, bytes, LARGE_SIZE, true));
    OK(fixture, remora_write(fixture->remora, &view, "other", 0, bytes + 1, LARGE_SIZE - 1, true));
    commit(fixture, &view);
}

static bool is_complete(struct fixture *fixture, const struct remora_view *view, const char *path)
{
    struct remora_entry entry;
    bool complete;
    OK(fixture, remora_stat(fixture->remora, view, path, &entry));
    complete = entry.complete;
    remora_entry_free(&entry);
    return complete;
}

struct progress {
    uint64_t bytes, total;
    int calls;
};

static int on_progress(void *context, uint64_t bytes, uint64_t total)
{
    struct progress *progress = context;
    progress->bytes = bytes;
    progress->total = total;
    progress->calls++;
    return 0;
}

static void fetch_all(struct fixture *fixture, const struct remora_view *view)
{
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    uint64_t bytes = 2 * LARGE_SIZE - 1;
    for (int i = 0; i < SMALL; i++)
        bytes += (uint64_t)(i * 40);
    params_view(&params, view, 2);
    params_text(&params, "path", "/");
    params_bool(&params, "recursive", true);
    OK(fixture, ask(fixture, "fs.fetch", &params, &answer));
    assert_int_equal(number_of(&answer, "files"), SMALL + 2);
    assert_int_equal(number_of(&answer, "bytes"), bytes);
    free(answer.bytes);
}

/* A range comes without the rest; a descriptor is to the whole; fetch brings everything; a write brings its
 * base. */
static void test_read_from_peer(void **state)
{
    struct pair *pair = *state;
    struct fixture *reader = pair->reader;
    struct progress progress = {0, 0, 0};
    uint8_t *bytes = fill(LARGE_SIZE + SMALL * 40), *got = malloc(LARGE_SIZE);
    struct remora_view view;
    uint64_t size;
    size_t n;
    int fd;
    put_all(pair->holder, bytes);
    view = wait_for_volume(reader, "v");
    assert_false(is_complete(reader, &view, "large"));
    OK(reader, remora_read(reader->remora, &view, "large", 5 * MIB + 3, got, 100, &n));
    assert_int_equal(n, 100);
    assert_memory_equal(got, bytes + 5 * MIB + 3, 100);
    OK(reader, remora_read(reader->remora, &view, "large", LARGE_SIZE - 10, got, 100, &n));
    assert_int_equal(n, 10);
    OK(reader, remora_write(reader->remora, &view, "other", 7, "HERE", 4, false));
    OK(reader, remora_read(reader->remora, &view, "other", 0, got, LARGE_SIZE, &n));
    assert_int_equal(n, LARGE_SIZE - 1);
    assert_memory_equal(got + 7, "HERE", 4);
    assert_memory_equal(got + 11, bytes + 12, LARGE_SIZE - 12);
    OK(reader, remora_open(reader->remora, &view, "large", &fd, &size));
    assert_int_equal(size, LARGE_SIZE);
    assert_int_equal(pread(fd, got, LARGE_SIZE, 0), LARGE_SIZE);
    assert_memory_equal(got, bytes, LARGE_SIZE);
    close(fd);
    assert_true(is_complete(reader, &view, "large"));
    remora_on_progress(reader->remora, on_progress, &progress);
    fetch_all(reader, &view);
    remora_on_progress(reader->remora, NULL, NULL);
    assert_true(is_complete(reader, &view, "small/299"));
    fixture_end(pair->holder, SIGKILL); /* all is here: nobody else is needed */
    for (int i = 0; i < SMALL; i++) {
        char path[32];
        snprintf(path, sizeof path, "small/%d", i);
        OK(reader, remora_read(reader->remora, &view, path, 0, got, LARGE_SIZE, &n));
        assert_int_equal(n, i * 40);
        assert_memory_equal(got, bytes + i, n);
    }
    free(bytes);
    free(got);
}

/* With the holder gone: what is not here cannot be read, and is said so by name, within the time that was
 * given; and a commit or reload cannot be. */
static void test_holder_gone(void **state)
{
    struct pair *pair = *state;
    struct fixture *reader = pair->reader;
    uint8_t *bytes = fill(LARGE_SIZE + SMALL * 40), *got = malloc(LARGE_SIZE);
    struct remora_commit done;
    struct remora_reload moved;
    struct remora_view view;
    size_t n;
    int code;
    put_all(pair->holder, bytes);
    view = wait_for_volume(reader, "v");
    fixture_end(pair->holder, SIGKILL);
    remora_set_timeout(reader->remora, 3000);
    code = remora_read(reader->remora, &view, "large", 0, got, 100, &n);
    assert_true(code == REMORA_E_UNAVAILABLE || code == -10 /* ABSENT */);
    write_text(reader, &view, "mine", "draft");
    assert_int_equal(remora_reload(reader->remora, &view, REMORA_RELOAD_QUORUM, NULL, &moved),
                     REMORA_E_UNAVAILABLE);
    assert_int_equal(remora_commit(reader->remora, &view, &done), REMORA_E_UNAVAILABLE);
    expect_text(reader, &view, "mine", "draft");
    fixture_start(pair->holder);
    remora_set_timeout(reader->remora, 30000);
    commit(reader, &view);
    OK(reader, remora_read(reader->remora, &view, "large", 0, got, 100, &n));
    assert_memory_equal(got, bytes, 100);
    free(bytes);
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_from_peer, setup_pair, teardown_pair),
        cmocka_unit_test_setup_teardown(test_holder_gone, setup_pair, teardown_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
