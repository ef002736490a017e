/* The C client against a node that is a script: what it makes of answers, progress, silence, nonsense and
 * descriptors. */
#include "client/client.h"
#include "scratch_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The scripted node: one connection, served by a thread. */
struct script {
    char directory[SCRATCH_PATH_SIZE], path[128];
    int listen_fd, fd;
    pthread_t thread;
    bool joined;
    void (*play)(struct script *script);
    struct replica_buffer input;
    int fds[8]; /* received with the last request */
    size_t fds_n;
    struct replica_pack_reader params; /* of the last request */
    uint64_t msgid;
    char method[64];
};

static void listen_at(struct script *script)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    script->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, script->path, strlen(script->path) + 1);
    assert_int_equal(bind(script->listen_fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(script->listen_fd, 4), 0);
}

static void *run(void *context)
{
    struct script *script = context;
    script->fd = accept4(script->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    script->play(script);
    close(script->fd);
    return NULL;
}

static void prepare(struct script *script)
{
    memset(script, 0, sizeof *script);
    replica_buffer_init(&script->input);
    scratch_make(script->directory);
    snprintf(script->path, sizeof script->path, "%s/socket", script->directory);
}

static struct remora *start(struct script *script, void (*play)(struct script *script))
{
    struct remora *remora = NULL;
    prepare(script);
    listen_at(script);
    script->play = play;
    assert_int_equal(pthread_create(&script->thread, NULL, run, script), 0);
    assert_int_equal(remora_connect(script->path, 1000, &remora, NULL), 0);
    return remora;
}

static void join(struct script *script)
{
    if (!script->joined)
        pthread_join(script->thread, NULL);
    script->joined = true;
}

static void finish(struct script *script, struct remora *remora)
{
    remora_close(&remora);
    join(script);
    close(script->listen_fd);
    scratch_remove(script->directory);
    replica_buffer_close(&script->input);
}

static ssize_t receive(struct script *script)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(8 * sizeof(int))];
    } control;
    struct iovec piece = {replica_buffer_reserve(&script->input, 65536), 65536};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(script->fd, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header != NULL) {
        script->fds_n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(script->fds, CMSG_DATA(header), script->fds_n * sizeof(int));
    }
    if (n > 0)
        script->input.size += (size_t)n;
    return n;
}

static void take_request(struct script *script)
{
    struct frame frame;
    size_t size, items;
    const char *text;
    uint64_t type;
    frame_init(&frame);
    replica_buffer_clear(&script->input);
    script->fds_n = 0;
    while (script->input.size == 0 ||
           frame_scan(&frame, script->input.data, script->input.size, &size) == REPLICA_E_AGAIN)
        if (receive(script) <= 0)
            return;
    replica_pack_reader_init(&script->params, script->input.data, script->input.size);
    replica_pack_read_array(&script->params, 4, &items);
    replica_pack_read_uint(&script->params, 0, &type);
    replica_pack_read_uint(&script->params, UINT32_MAX, &script->msgid);
    replica_pack_read_str(&script->params, sizeof script->method - 1, &text, &size);
    memcpy(script->method, text, size);
    script->method[size] = '\0';
    replica_pack_read_array(&script->params, 1, &items);
}

static void send_bytes(struct script *script, struct replica_buffer *message, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec piece = {message->data, message->size};
    struct msghdr header = {.msg_iov = &piece, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (fd >= 0) {
        header.msg_control = &control;
        header.msg_controllen = sizeof control;
        CMSG_FIRSTHDR(&header)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&header)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&header)->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&header)), &fd, sizeof fd);
    }
    (void)!sendmsg(script->fd, &header, MSG_NOSIGNAL);
    replica_buffer_close(message);
}

/* [1, msgid, nil, …: the result is the caller's to append */
static void begin_answer(struct replica_buffer *message, uint64_t msgid)
{
    replica_buffer_init(message);
    replica_pack_array(message, 4);
    replica_pack_uint(message, 1);
    replica_pack_uint(message, msgid);
    replica_pack_nil(message);
}

static void answer_nil(struct script *script)
{
    struct replica_buffer message;
    begin_answer(&message, script->msgid);
    replica_pack_nil(&message);
    send_bytes(script, &message, -1);
}

static void begin_notification(struct replica_buffer *message, const char *method)
{
    replica_buffer_init(message);
    replica_pack_array(message, 3);
    replica_pack_uint(message, 2);
    replica_pack_cstr(message, method);
    replica_pack_array(message, 2);
}

static void send_progress(struct script *script, uint64_t bytes, uint64_t total)
{
    struct replica_buffer message;
    begin_notification(&message, "progress");
    replica_pack_uint(&message, script->msgid);
    replica_pack_map(&message, 2);
    replica_pack_cstr(&message, "bytes");
    replica_pack_uint(&message, bytes);
    replica_pack_cstr(&message, "total");
    replica_pack_uint(&message, total);
    send_bytes(script, &message, -1);
}

static void answer_fd(struct script *script, int fd)
{
    struct replica_buffer message;
    begin_answer(&message, script->msgid);
    replica_pack_map(&message, 2);
    replica_pack_cstr(&message, "fd");
    replica_pack_uint(&message, 0);
    replica_pack_cstr(&message, "size");
    replica_pack_uint(&message, 5);
    send_bytes(script, &message, fd);
}

/* Connecting */

/* Nobody there: said at once, naming the path. */
static void test_connect_nobody(void **state)
{
    struct remora *remora = NULL;
    char *message = NULL;
    (void)state;
    assert_int_equal(remora_connect("/tmp/remora-no-such/socket", 0, &remora, &message),
                     REMORA_E_UNAVAILABLE);
    assert_null(remora);
    assert_non_null(strstr(message, "/tmp/remora-no-such/socket"));
    free(message);
}

static void *listen_late(void *context)
{
    poll(NULL, 0, 100); /* the client has tried and failed by then */
    listen_at(context);
    return NULL;
}

/* A node that starts within the time given is found. */
static void test_connect_waits(void **state)
{
    struct remora *remora = NULL;
    struct script script;
    (void)state;
    prepare(&script);
    pthread_create(&script.thread, NULL, listen_late, &script);
    assert_int_equal(remora_connect(script.path, 10000, &remora, NULL), 0);
    finish(&script, remora);
}

/* Answers */

static void play_errors(struct script *script)
{
    struct replica_buffer message;
    take_request(script);
    answer_nil(script);
    take_request(script);
    replica_buffer_init(&message);
    replica_pack_array(&message, 4);
    replica_pack_uint(&message, 1);
    replica_pack_uint(&message, script->msgid);
    replica_pack_array(&message, 2);
    replica_pack_cstr(&message, "NOSPACE");
    replica_pack_cstr(&message, "the disk is full; make room");
    replica_pack_nil(&message);
    send_bytes(script, &message, -1);
}

/* An error comes as its code, its symbol and its sentence; the connection goes on. */
static void test_call_error(void **state)
{
    struct script script;
    struct remora *remora = start(&script, play_errors);
    struct remora_view view = {.id = {1}};
    (void)state;
    assert_int_equal(remora_view_close(remora, &view), 0);
    assert_int_equal(remora_remove(remora, &view, "a", true), REMORA_E_NOSPACE);
    assert_string_equal(remora_error(remora), "the disk is full; make room");
    assert_string_equal(remora_error_symbol(remora), "NOSPACE");
    join(&script);
    assert_string_equal(script.method, "fs.remove");
    finish(&script, remora);
}

static void play_progress(struct script *script)
{
    take_request(script);
    send_progress(script, 10, 100);
    send_progress(script, 100, 100);
    answer_nil(script);
}

struct seen {
    uint64_t last;
    int n, give_up_at;
};

static int on_progress(void *context, uint64_t bytes, uint64_t total)
{
    struct seen *seen = context;
    assert_int_equal(total, 100);
    seen->last = bytes;
    return ++seen->n == seen->give_up_at;
}

static void test_progress(void **state)
{
    struct script script;
    struct seen seen = {0, 0, -1};
    struct remora *remora = start(&script, play_progress);
    (void)state;
    remora_on_progress(remora, on_progress, &seen);
    assert_int_equal(remora_call(remora, "fs.fetch", NULL, 0, NULL, 0, NULL, NULL, NULL, NULL), 0);
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.last, 100);
    finish(&script, remora);
}

enum { STEPS = 30, STEP_MS = 100, STEPS_TIMEOUT_MS = 2000 }; /* together they take longer than one may */

static void play_steps(struct script *script)
{
    struct replica_buffer message;
    take_request(script);
    for (uint64_t i = 1; i <= STEPS; i++) {
        poll(NULL, 0, STEP_MS);
        begin_notification(&message, "progress");
        replica_pack_uint(&message, script->msgid);
        replica_pack_map(&message, 1);
        replica_pack_cstr(&message, "steps");
        replica_pack_uint(&message, i);
        send_bytes(script, &message, -1);
    }
    answer_nil(script);
}

/* Steps are progress too: a long rename moves no bytes. */
static void test_steps_are_progress(void **state)
{
    struct script script;
    struct remora *remora = start(&script, play_steps);
    (void)state;
    remora_set_timeout(remora, STEPS_TIMEOUT_MS);
    remora->grace_ms = 0;
    assert_int_equal(remora_call(remora, "fs.rename", NULL, 0, NULL, 0, NULL, NULL, NULL, NULL), 0);
    finish(&script, remora);
}

static int pipe_end = -1; /* of the answer that nobody waits for */

static void play_late(struct script *script)
{
    int ends[2];
    take_request(script);
    send_progress(script, 10, 100);
    (void)!pipe(ends);
    pipe_end = ends[0];
    answer_fd(script, ends[1]);
    close(ends[1]);
    take_request(script);
    answer_nil(script);
}

/* A call that was given up leaves an answer with a descriptor behind: dropped, and closed. */
static void test_cancelled_answer_is_dropped(void **state)
{
    struct script script;
    struct seen seen = {0, 0, 1};
    struct remora *remora = start(&script, play_late);
    char byte;
    (void)state;
    remora_on_progress(remora, on_progress, &seen);
    assert_int_equal(remora_call(remora, "fs.open", NULL, 0, NULL, 0, NULL, NULL, NULL, NULL),
                     REPLICA_E_CANCELLED);
    assert_int_equal(remora_call(remora, "node.info", NULL, 0, NULL, 0, NULL, NULL, NULL, NULL), 0);
    join(&script);
    assert_int_equal(fcntl(pipe_end, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(read(pipe_end, &byte, 1), 0); /* at its end: nobody holds the other one */
    close(pipe_end);
    finish(&script, remora);
}

/* Silence */

static void play_silence(struct script *script)
{
    take_request(script);
    take_request(script);
    take_request(script); /* until it hangs up */
}

static void test_silence_times_out(void **state)
{
    struct script script;
    struct remora_commit commit;
    struct remora_view view = {.id = {1}};
    struct remora *remora = start(&script, play_silence);
    (void)state;
    remora_set_timeout(remora, 50);
    remora->grace_ms = 0;
    assert_int_equal(remora_mkdir(remora, &view, "a", 0755, false), REMORA_E_UNAVAILABLE);
    assert_non_null(strstr(remora_error(remora), "did not answer"));
    assert_int_equal(remora_commit(remora, &view, &commit),
                     REMORA_E_INDETERMINATE); /* it may have happened */
    finish(&script, remora);
}

static void play_hang_up(struct script *script)
{
    take_request(script);
}

static void test_lost_connection(void **state)
{
    struct script script;
    struct remora_view view = {.id = {1}};
    struct remora *remora = start(&script, play_hang_up);
    (void)state;
    assert_int_equal(remora_view_close(remora, &view), REMORA_E_UNAVAILABLE);
    assert_int_equal(remora_view_close(remora, &view), REMORA_E_UNAVAILABLE);
    assert_non_null(strstr(remora_error(remora), "connect again"));
    finish(&script, remora);
}

static void play_refusal(struct script *script)
{
    struct replica_buffer message;
    begin_notification(&message, "refused");
    replica_pack_cstr(&message, "DENIED");
    replica_pack_cstr(&message, "this user may not use the node");
    send_bytes(script, &message, -1);
}

/* A node that refuses and hangs up before the request goes out: its reason is found all the same. */
static void test_refused(void **state)
{
    struct script script;
    struct remora_view view = {.id = {1}};
    struct remora *remora = start(&script, play_refusal);
    (void)state;
    join(&script);
    assert_int_equal(remora_view_close(remora, &view), REMORA_E_DENIED);
    assert_string_equal(remora_error(remora), "this user may not use the node");
    finish(&script, remora);
}

static void play_nonsense(struct script *script)
{
    static const uint8_t NONSENSE[] = {0x94, 0x01, 0xc1};
    take_request(script);
    (void)!write(script->fd, NONSENSE, sizeof NONSENSE);
    take_request(script);
}

static void test_nonsense(void **state)
{
    struct script script;
    struct remora_view view = {.id = {1}};
    struct remora *remora = start(&script, play_nonsense);
    (void)state;
    assert_int_equal(remora_view_close(remora, &view), REPLICA_E_MALFORMED);
    finish(&script, remora);
}

/* Descriptors and entries */

static void play_entries(struct script *script)
{
    struct replica_pack_reader entries;
    struct replica_buffer message, second;
    size_t n, from;
    int fd;
    take_request(script);
    replica_buffer_init(&second);
    if (client_map_find(&script->params, "entries", &entries) &&
        replica_pack_read_array(&entries, 8, &n) == 0 && n == 2) {
        replica_pack_skip(&entries);
        from = entries.offset;
        replica_pack_skip(&entries);
        replica_buffer_append(&second, entries.data + from, entries.offset - from);
    }
    answer_nil(script);
    if (script->fds_n == 1) {
        (void)!write(script->fds[0], "bytes", 5);
        close(script->fds[0]);
    }
    take_request(script);
    begin_answer(&message, script->msgid);
    replica_buffer_append(&message, second.data, second.size); /* the second one comes back */
    send_bytes(script, &message, -1);
    replica_buffer_close(&second);
    take_request(script);
    fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    answer_fd(script, fd);
    close(fd);
}

static void check_open(struct remora *remora, const struct remora_view *view)
{
    uint64_t size;
    char byte = 1;
    int fd;
    assert_int_equal(remora_open(remora, view, "a", &fd, &size), 0);
    assert_int_equal(size, 5);
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_int_equal(byte, 0);
    close(fd);
}

/* What is put is what stat tells, and descriptors travel both ways. */
static void test_entries_and_descriptors(void **state)
{
    struct script script;
    struct remora *remora = start(&script, play_entries);
    struct remora_view view = {.id = {1}};
    uint8_t value[] = {1, 0, 2};
    char name[] = "user.x", a[] = "a", b[] = "d/b", text[8] = "";
    struct remora_xattr xattr = {.name = name, .value = value, .size = sizeof value};
    struct remora_entry entries[2] = {
        {.path = a, .kind = REMORA_FILE, .mode = 0644, .size = 5, .fd = -1},
        {.path = b,
         .kind = REMORA_BLOCK,
         .mode = 0600,
         .uid = 7,
         .mtime_ns = -5,
         .major = 9,
         .minor = 10,
         .xattrs_n = 1,
         .xattrs = &xattr,
         .fd = -1},
    };
    struct remora_entry entry;
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    entries[0].fd = ends[1];
    assert_int_equal(remora_put(remora, &view, entries, 2, true), 0);
    assert_int_equal(read(ends[0], text, sizeof text), 5);
    assert_string_equal(text, "bytes");
    assert_int_equal(remora_stat(remora, &view, "d/b", &entry), 0);
    assert_string_equal(entry.path, "d/b");
    assert_int_equal(entry.kind, REMORA_BLOCK);
    assert_int_equal(entry.uid, 7);
    assert_int_equal(entry.mtime_ns, -5);
    assert_int_equal(entry.minor, 10);
    assert_int_equal(entry.xattrs_n, 1);
    assert_string_equal(entry.xattrs[0].name, "user.x");
    assert_memory_equal(entry.xattrs[0].value, value, sizeof value);
    remora_entry_free(&entry);
    check_open(remora, &view);
    close(ends[0]);
    close(ends[1]);
    finish(&script, remora);
}

/* Both sides of the limits that the client keeps itself. */
static void test_limits(void **state)
{
    struct script script;
    struct remora *remora = start(&script, play_hang_up);
    int fds[CLIENT_FDS_MAX + 1] = {0};
    uint8_t *large = calloc(1, FRAME_SIZE_MAX);
    (void)state;
    assert_int_equal(remora_call(remora, "fs.put", NULL, 0, fds, CLIENT_FDS_MAX + 1, NULL, NULL, NULL, NULL),
                     REPLICA_E_TOOBIG);
    assert_int_equal(remora_call(remora, "fs.put", large, FRAME_SIZE_MAX, NULL, 0, NULL, NULL, NULL, NULL),
                     REPLICA_E_TOOBIG);
    assert_int_equal(remora_call(remora, "fs.put", large, FRAME_SIZE_MAX - 64, fds, CLIENT_FDS_MAX, NULL,
                                 NULL, NULL, NULL),
                     REMORA_E_UNAVAILABLE);
    free(large);
    finish(&script, remora);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect_nobody),
        cmocka_unit_test(test_connect_waits),
        cmocka_unit_test(test_call_error),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_steps_are_progress),
        cmocka_unit_test(test_cancelled_answer_is_dropped),
        cmocka_unit_test(test_silence_times_out),
        cmocka_unit_test(test_lost_connection),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nonsense),
        cmocka_unit_test(test_entries_and_descriptors),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
