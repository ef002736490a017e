/* Clients that are broken or hostile: the node refuses them by a sentence, or hangs up, and goes on serving
 * the others. */
#include "node_fixture.h"

#include "client/frame.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define PATIENCE_MS 10000

static int raw_connect(const struct fixture *fixture)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, fixture->socket, strlen(fixture->socket) + 1);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void raw_send(int fd, const void *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t sent = send(fd, (const uint8_t *)bytes + done, n - done, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* hung up already: what was to be seen */
        done += (size_t)sent;
    }
}

/* All that comes until the node hangs up; -1: it does not. */
static ssize_t read_to_end(int fd, uint8_t *bytes, size_t size)
{
    size_t n = 0;
    for (;;) {
        struct pollfd item = {.fd = fd, .events = POLLIN};
        ssize_t got;
        if (poll(&item, 1, PATIENCE_MS) <= 0)
            return -1;
        got = recv(fd, bytes + n, size - n, 0);
        if (got <= 0)
            return (ssize_t)n;
        n += (size_t)got;
    }
}

static bool contains(const uint8_t *bytes, size_t n, const char *word)
{
    return memmem(bytes, n, word, strlen(word)) != NULL;
}

/* Sends bytes that are no request; the node says `word` and hangs up. */
static void expect_hang_up(struct fixture *fixture, const void *bytes, size_t n, const char *word)
{
    uint8_t said[4096];
    int fd = raw_connect(fixture);
    ssize_t got;
    raw_send(fd, bytes, n);
    got = read_to_end(fd, said, sizeof said);
    assert_true(got >= 0);
    assert_true(contains(said, (size_t)got, word));
    close(fd);
}

static void expect_alive(struct fixture *fixture)
{
    struct answer answer = {NULL, 0};
    struct replica_buffer params;
    params_begin(&params, 0);
    OK(fixture, ask(fixture, "node.info", &params, &answer));
    free(answer.bytes);
}

static void test_malformed_frames(void **state)
{
    static const uint8_t NOT_ARRAY[] = {0x81, 0x01, 0x02}, RESERVED[] = {0x94, 0x00, 0x01, 0xc1, 0x90};
    static const uint8_t LONG_STRING[] = {0x94, 0x00, 0x01, 0xdb, 0xff, 0xff, 0xff, 0xff}; /* claims 4 GiB */
    static const uint8_t LONG_ARRAY[] = {0x94, 0x00, 0x01, 0xa1, 'x', 0xdd, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t LONG_MAP[] = {0x94, 0x00, 0x01, 0xa1, 'x', 0x91, 0xdf, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t BAD_TYPE[] = {0x94, 0x07, 0x01, 0xa1, 'x', 0x90},
                         BAD_METHOD[] = {0x94, 0x00, 0x01, 0x05, 0x90};
    struct fixture *fixture = *state;
    uint8_t deep[64];
    memset(deep, 0x91, sizeof deep);
    deep[0] = 0x94;
    expect_hang_up(fixture, "GET / HTTP/1.1\r\n\r\n", 18, "MALFORMED");
    expect_hang_up(fixture, NOT_ARRAY, sizeof NOT_ARRAY, "MALFORMED");
    expect_hang_up(fixture, RESERVED, sizeof RESERVED, "MALFORMED");
    expect_hang_up(fixture, LONG_STRING, sizeof LONG_STRING, "TOOBIG");
    expect_hang_up(fixture, LONG_ARRAY, sizeof LONG_ARRAY, "TOOBIG");
    expect_hang_up(fixture, LONG_MAP, sizeof LONG_MAP, "TOOBIG");
    expect_hang_up(fixture, BAD_TYPE, sizeof BAD_TYPE, "MALFORMED");
    expect_hang_up(fixture, BAD_METHOD, sizeof BAD_METHOD, "MALFORMED");
    expect_hang_up(fixture, deep, sizeof deep, "MALFORMED");
    expect_alive(fixture);
}

/* Every prefix of a good request, then silence and hanging up. */
static void test_truncated_requests(void **state)
{
    struct fixture *fixture = *state;
    struct replica_buffer request;
    replica_buffer_init(&request);
    replica_pack_array(&request, 4);
    replica_pack_uint(&request, 0);
    replica_pack_uint(&request, 1);
    replica_pack_cstr(&request, "volume.info");
    replica_pack_array(&request, 1);
    replica_pack_map(&request, 1);
    params_text(&request, "name", "v");
    for (size_t n = 0; n < request.size; n++) {
        int fd = raw_connect(fixture);
        raw_send(fd, request.data, n);
        close(fd);
    }
    replica_buffer_close(&request);
    expect_alive(fixture);
}

/* A connection survives what is merely wrong: methods that do not exist, params of every wrong type. */
static void test_wrong_params(void **state)
{
    static const char *const METHODS[] = {
        "no.such",       "node.info",       "cluster.init",   "cluster.members", "cluster.status",
        "volume.create", "volume.list",     "volume.info",    "volume.log",      "volume.rename",
        "volume.delete", "volume.undelete", "volume.history", "view.open",       "view.list",
        "view.commit",   "view.reload",     "view.hold",      "fs.stat",         "fs.list",
        "fs.put",        "fs.mkdir",        "fs.remove",      "fs.rename",       "fs.link",
        "fs.copy",       "fs.set",          "fs.read",        "fs.write",        "fs.open",
        "fs.fetch",      "view.close" /* last: it takes the view away */};
    static const char *const KEYS[] = {"view", "path",  "entries", "name",  "volume",    "offset", "length",
                                       "data", "from",  "to",      "limit", "recursive", "mode",   "xattrs",
                                       "size", "token", "label",   "sub",   "hold",      "before"};
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    for (size_t m = 0; m < sizeof METHODS / sizeof METHODS[0]; m++)
        for (int wrong = 0; wrong < 6; wrong++) {
            struct answer answer = {NULL, 0};
            struct replica_buffer params;
            params_begin(&params, sizeof KEYS / sizeof KEYS[0]);
            for (size_t k = 0; k < sizeof KEYS / sizeof KEYS[0]; k++) {
                replica_pack_cstr(&params, KEYS[k]);
                if (k == 0 && wrong > 0)
                    replica_pack_bin(&params, view.id, 16); /* as far as the rest is looked at */
                else if (wrong == 0)
                    replica_pack_uint(&params, 7);
                else if (wrong == 1)
                    replica_pack_cstr(&params, "..");
                else if (wrong == 2)
                    replica_pack_bin(&params, "\0\0", 2);
                else if (wrong == 3)
                    replica_pack_array(&params, 0);
                else if (wrong == 4)
                    replica_pack_int(&params, INT64_MIN);
                else
                    replica_pack_str(&params, "a\0b", 3);
            }
            ask(fixture, METHODS[m], &params, &answer); /* whatever it says: it answers */
            if (m == 0)
                assert_string_equal(remora_error_symbol(fixture->remora), "INVALID");
            free(answer.bytes);
        }
    expect_alive(fixture);
}

/* Descriptors that nobody asked for, and more than may be sent. */
static void test_unwanted_descriptors(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    struct replica_buffer params;
    int fds[64], ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    for (int i = 0; i < 64; i++)
        fds[i] = ends[1];
    params_begin(&params, 0);
    for (int i = 0; i < 100; i++) /* none is kept for long: 6400 would be too many */
        if (remora_call(fixture->remora, "node.info", params.data, params.size, fds, 64, NULL, NULL, NULL,
                        NULL) != 0)
            break;
    remora_close(&fixture->remora);
    fixture->remora = fixture_connect(fixture);
    replica_buffer_close(&params);
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 0); /* every copy of the other end is closed */
    close(ends[0]);
    params_view(&params, &view, 1);
    replica_pack_cstr(&params, "entries");
    replica_pack_array(&params, 1);
    replica_pack_map(&params, 2);
    params_text(&params, "path", "x");
    params_number(&params, "fd", 3);
    assert_int_equal(
        remora_call(fixture->remora, "fs.put", params.data, params.size, NULL, 0, NULL, NULL, NULL, NULL),
        -11);
    replica_buffer_close(&params);
    expect_alive(fixture);
}

/* A client that asks and asks, and never reads an answer, is paused, and holds up nobody. */
static void test_never_reads(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v");
    struct replica_buffer request;
    uint8_t *bytes = calloc(1, 1 << 20);
    size_t sent = 0;
    int fd = raw_connect(fixture);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    replica_buffer_init(&request);
    replica_pack_array(&request, 4);
    replica_pack_uint(&request, 0);
    replica_pack_uint(&request, 1);
    replica_pack_cstr(&request, "cluster.members");
    replica_pack_array(&request, 0);
    for (int i = 0; i < 200000; i++) { /* answers of some 200 bytes each: ten times what is queued */
        ssize_t n = send(fd, request.data, request.size, MSG_NOSIGNAL);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    assert_true(sent > 0 && sent < 200000 * request.size); /* it was paused */
    OK(fixture, remora_write(fixture->remora, &view, "file", 0, bytes, 1 << 20, true));
    expect_alive(fixture);
    close(fd);
    replica_buffer_close(&request);
    free(bytes);
}

/* A client that dies in the middle of a large put leaves nothing behind that anybody sees. */
static void test_dies_in_the_middle(void **state)
{
    struct fixture *fixture = *state;
    struct remora_view view = new_volume(fixture, "v"), kept = open_view(fixture, "v", "kept", 0);
    char path[] = "large";
    int fd = memfd_create("large", MFD_CLOEXEC);
    uint8_t *bytes = malloc(1 << 20);
    struct remora_entry entry = {
        .path = path, .kind = REMORA_FILE, .mode = 0644, .size = 256 << 20, .fd = fd};
    (void)view;
    for (int i = 0; i < 256; i++) {
        memset(bytes, i + 1, 1 << 20);
        assert_int_equal(write(fd, bytes, 1 << 20), 1 << 20);
    }
    free(bytes);
    pid_t child = scratch_fork();
    if (child == 0) {
        struct remora *remora = NULL;
        remora_connect(fixture->socket, START_MS, &remora, NULL);
        remora_put(remora, &kept, &entry, 1, false);
        _exit(0);
    }
    poll(NULL, 0, 50); /* it is hashing now */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(fd);
    expect_alive(fixture);
    write_text(fixture, &kept, "after", "works");
    expect_text(fixture, &kept, "after", "works");
}

/* Connections come and go in great numbers; those over the limit are told, the others work. */
static void test_many_connections(void **state)
{
    enum { MANY = 300 };
    struct fixture *fixture = *state;
    struct remora *many[MANY];
    struct remora_view view;
    OK(fixture, remora_volume_create(fixture->remora, "v", 2, 0));
    for (int i = 0; i < MANY; i++)
        many[i] = fixture_connect(fixture);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(remora_view_open(many[i], "v", NULL, NULL, REMORA_LOCAL, &view), 0);
    for (int i = 0; i < MANY; i++)
        remora_close(&many[i]);
    expect_alive(fixture);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_malformed_frames),     TEST(test_truncated_requests), TEST(test_wrong_params),
        TEST(test_unwanted_descriptors), TEST(test_never_reads),        TEST(test_dies_in_the_middle),
        TEST(test_many_connections),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
