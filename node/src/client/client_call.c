/* One call: the request goes out with its descriptors, then messages are read until its answer comes.
 *
 * Calls that were given up (time-out, the progress callback) leave answers behind: those carry another msgid,
 * are dropped when they come, and the descriptors that came with them are closed. The node names each by `fd`
 * in the result, in the order of arrival. */
#include "client/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_SIZE   (64u << 10)
#define FDS_AT_ONCE 253  /* SCM_MAX_FD: room for less would lose some */
#define TEXT_MAX    4096 /* of a sentence from the node */

/* What is being waited for. */
struct exchange {
    struct remora *remora;
    const char *method;
    uint64_t msgid;
    int64_t deadline_ms; /* INT64_MAX: none */
    uint64_t bytes, total, steps;
    bool done; /* the answer is there, or code says why there is none */
    int code;
    void *result;
    size_t result_n;
    size_t fds_n; /* that belong to the result */
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void push_deadline(struct exchange *exchange)
{
    uint32_t timeout_ms = exchange->remora->timeout_ms;
    exchange->deadline_ms = timeout_ms == 0 ? INT64_MAX : now_ms() + timeout_ms + exchange->remora->grace_ms;
}

static int lost(struct exchange *exchange)
{
    client_lose(exchange->remora);
    return client_fail(exchange->remora, REPLICA_E_UNAVAILABLE,
                       "%s: the node at %s has gone before it answered; start it again, and see its log",
                       exchange->method, exchange->remora->path);
}

static bool is_cancelled(const struct exchange *exchange)
{
    const struct remora *remora = exchange->remora;
    return remora->progress != NULL &&
           remora->progress(remora->context, exchange->bytes, exchange->total) != 0;
}

/* The node itself gives up a little earlier, with a reason: one that does not even do that hangs, or is stopped. */
static int timed_out(struct exchange *exchange)
{
    bool moved = exchange->bytes > 0 || exchange->steps > 0;
    return client_fail(exchange->remora, REPLICA_E_UNAVAILABLE,
                       "%s: the node at %s %s for %.3g s; see its log, or give it more time",
                       exchange->method, exchange->remora->path,
                       moved ? "made no progress" : "did not answer",
                       (double)exchange->remora->timeout_ms / 1000);
}

/* Waits until the socket is ready for one of events. Errors: UNAVAILABLE, CANCELLED. */
static int wait_for(struct exchange *exchange, short events)
{
    struct pollfd item = {.fd = exchange->remora->fd, .events = events};
    for (;;) {
        int64_t left_ms = exchange->deadline_ms == INT64_MAX ? -1 : exchange->deadline_ms - now_ms();
        int n;
        if (exchange->deadline_ms != INT64_MAX && left_ms <= 0)
            return timed_out(exchange);
        n = poll(&item, 1, left_ms > 3600000 ? 3600000 : (int)left_ms);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return lost(exchange);
        if (n < 0 && is_cancelled(exchange)) /* a signal: its handler may have told the callback to give up */
            return client_fail(exchange->remora, REPLICA_E_CANCELLED, "%s: cancelled", exchange->method);
    }
}

/* Descriptors */

static void take_fds(struct remora *remora, int *ret_fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ret_fds != NULL)
            ret_fds[i] = remora->fds[i];
        else
            close(remora->fds[i]);
    }
    remora->fds_n -= n;
    memmove(remora->fds, remora->fds + n, remora->fds_n * sizeof remora->fds[0]);
}

/* How many descriptors a result names: the highest `fd` of it, and one. */
static size_t named_fds(const uint8_t *bytes, size_t n)
{
    struct replica_pack_reader map, value;
    uint64_t index;
    replica_pack_reader_init(&map, bytes, n);
    if (!client_map_find(&map, "fd", &value) ||
        replica_pack_read_uint(&value, CLIENT_FDS_MAX - 1, &index) != 0)
        return 0;
    return (size_t)index + 1;
}

/* Messages */

static void give_up(struct exchange *exchange, int code)
{
    exchange->code = code;
    exchange->done = true;
}

static int read_error(struct remora *remora, struct replica_pack_reader *reader)
{
    char symbol[32] = "";
    const char *text;
    size_t items, n;
    replica_pack_read_array(reader, 16, &items);
    replica_pack_read_str(reader, sizeof symbol - 1, &text, &n);
    if (reader->failed || items < 2)
        return client_fail(remora, REPLICA_E_MALFORMED, "the node at %s answered with a malformed error",
                           remora->path);
    memcpy(symbol, text, n);
    if (replica_pack_read_str(reader, TEXT_MAX, &text, &n) != 0)
        return client_fail(remora, REPLICA_E_MALFORMED, "the node at %s answered with a malformed error",
                           remora->path);
    return client_fail_symbol(remora, symbol, text, n);
}

/* [1, msgid, error, result] */
static int take_response(struct exchange *exchange, struct replica_pack_reader *reader)
{
    struct remora *remora = exchange->remora;
    struct replica_pack_reader error;
    const uint8_t *result;
    uint64_t msgid;
    size_t result_n, fds_n;
    replica_pack_read_uint(reader, UINT64_MAX, &msgid);
    error = *reader;
    if (replica_pack_skip(reader) != 0)
        return REPLICA_E_MALFORMED;
    result = reader->data + reader->offset;
    result_n = reader->size - reader->offset;
    fds_n = named_fds(result, result_n);
    if (fds_n > remora->fds_n)
        return REPLICA_E_MALFORMED;
    if (msgid != exchange->msgid) { /* of a call that was given up */
        take_fds(remora, NULL, fds_n);
        return 0;
    }
    remora->unanswered = false;
    give_up(exchange, 0);
    if (replica_pack_peek(&error) != REPLICA_PACK_NIL) {
        take_fds(remora, NULL, fds_n);
        exchange->code = read_error(remora, &error);
        return 0;
    }
    exchange->result = malloc(result_n > 0 ? result_n : 1);
    if (exchange->result == NULL) {
        take_fds(remora, NULL, fds_n);
        exchange->code = client_fail(remora, REPLICA_E_NOMEM, "out of memory");
        return 0;
    }
    memcpy(exchange->result, result, result_n);
    exchange->result_n = result_n;
    exchange->fds_n = fds_n;
    return 0;
}

static void take_progress(struct exchange *exchange, struct replica_pack_reader *reader)
{
    struct remora *remora = exchange->remora;
    struct replica_pack_reader value;
    uint64_t msgid, bytes = 0, total = 0, steps = 0;
    size_t items;
    replica_pack_read_array(reader, 16, &items);
    if (items < 2 || replica_pack_read_uint(reader, UINT64_MAX, &msgid) != 0 || msgid != exchange->msgid)
        return;
    if (client_map_find(reader, "bytes", &value))
        replica_pack_read_uint(&value, UINT64_MAX, &bytes);
    if (client_map_find(reader, "total", &value))
        replica_pack_read_uint(&value, UINT64_MAX, &total);
    if (client_map_find(reader, "steps", &value))
        replica_pack_read_uint(&value, UINT64_MAX, &steps);
    if (bytes != exchange->bytes || total != exchange->total || steps != exchange->steps)
        push_deadline(exchange);
    exchange->bytes = bytes;
    exchange->total = total;
    exchange->steps = steps;
    if (!exchange->done && remora->progress != NULL && remora->progress(remora->context, bytes, total) != 0)
        give_up(exchange, client_fail(remora, REPLICA_E_CANCELLED, "%s: cancelled", exchange->method));
}

/* [2, method, params] */
static int take_notification(struct exchange *exchange, struct replica_pack_reader *reader)
{
    const char *method;
    size_t n;
    if (replica_pack_read_str(reader, 255, &method, &n) != 0)
        return REPLICA_E_MALFORMED;
    if (n == strlen("progress") && memcmp(method, "progress", n) == 0) {
        take_progress(exchange, reader);
    } else if (n == strlen("refused") && memcmp(method, "refused", n) == 0) { /* and it hangs up */
        give_up(exchange, read_error(exchange->remora, reader));
        client_lose(exchange->remora);
    }
    return 0;
}

/* Every whole message of the input, as far as the answer. Errors: MALFORMED, TOOBIG. */
static int take_input(struct exchange *exchange)
{
    struct remora *remora = exchange->remora;
    struct replica_buffer *input = &remora->input;
    size_t consumed = 0;
    int code = 0;
    while (consumed < input->size && !exchange->done) {
        struct replica_pack_reader reader;
        uint64_t type;
        size_t items, size;
        code = frame_scan(&remora->frame, input->data + consumed, input->size - consumed, &size);
        if (code != 0)
            break;
        frame_init(&remora->frame);
        replica_pack_reader_init(&reader, input->data + consumed, size);
        consumed += size;
        replica_pack_read_array(&reader, 4, &items);
        replica_pack_read_uint(&reader, 2, &type);
        code = reader.failed ? REPLICA_E_MALFORMED : 0;
        if (code == 0 && type == 1 && items == 4)
            code = take_response(exchange, &reader);
        else if (code == 0 && type == 2 && items == 3)
            code = take_notification(exchange, &reader);
        if (code != 0)
            break;
    }
    if (consumed > 0)
        memmove(input->data, input->data + consumed, input->size - consumed);
    input->size -= consumed;
    return code == REPLICA_E_AGAIN ? 0 : code;
}

static int receive(struct exchange *exchange)
{
    struct remora *remora = exchange->remora;
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * FDS_AT_ONCE)];
    } control;
    uint8_t *room = replica_buffer_reserve(&remora->input, READ_SIZE);
    struct iovec piece = {room, READ_SIZE};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    if (room == NULL)
        return client_fail(remora, REPLICA_E_NOMEM, "out of memory");
    n = recvmsg(remora->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return lost(exchange);
    remora->input.size += (size_t)n;
    if (frame_keep_fds(&message, remora->fds, CLIENT_FDS_WAITING, &remora->fds_n) &&
        take_input(exchange) == 0)
        return 0;
    client_lose(remora);
    return client_fail(remora, REPLICA_E_MALFORMED,
                       "%s: what answers at %s does not speak the API of a Remora node", exchange->method,
                       remora->path);
}

/* Sending */

static ssize_t send_some(const struct remora *remora, const uint8_t *bytes, size_t n, const int *fds,
                         size_t fds_n)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * CLIENT_FDS_MAX)];
    } control;
    struct iovec piece = {(void *)(uintptr_t)bytes, n};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fds_n > 0) {
        struct cmsghdr *header;
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fds_n);
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * fds_n);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * fds_n);
    }
    return sendmsg(remora->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A node that hung up while we were sending may have said why. */
static int hung_up(struct exchange *exchange)
{
    while (!exchange->done) {
        int code = receive(exchange);
        if (code != 0)
            return code;
        if (!exchange->done && (code = wait_for(exchange, POLLIN)) != 0)
            return code;
    }
    if (exchange->remora->fd >= 0)
        return lost(exchange);
    return exchange->code;
}

/* Half a message leaves the stream useless. */
static int send_all(struct exchange *exchange, const struct replica_buffer *request, const int *fds,
                    size_t fds_n)
{
    size_t sent = 0;
    while (sent < request->size) {
        ssize_t n = send_some(exchange->remora, request->data + sent, request->size - sent, fds,
                              sent == 0 ? fds_n : 0);
        int code = 0;
        if (n > 0) {
            sent += (size_t)n;
            push_deadline(exchange);
        } else if (n < 0 && errno == ETOOMANYREFS) {
            code = client_fail(exchange->remora, REPLICA_E_BUSY,
                               "%s: too many descriptors of this user are under way; try again",
                               exchange->method);
        } else if (n < 0 && errno == EBADF) {
            code = client_fail(exchange->remora, REPLICA_E_INVALID,
                               "%s: a descriptor to be passed is not open", exchange->method);
        } else if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            code = hung_up(exchange);
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            code = lost(exchange);
        } else {
            code = wait_for(exchange, POLLOUT);
        }
        if (code != 0) {
            if (sent > 0)
                client_lose(exchange->remora);
            return code;
        }
    }
    return 0;
}

/* Calls */

static int build(struct remora *remora, const char *method, const void *params, size_t params_n,
                 struct replica_buffer *request)
{
    static const uint8_t EMPTY_MAP[] = {0x80};
    remora->msgid = (remora->msgid + 1) & UINT32_MAX;
    replica_buffer_init(request);
    replica_pack_array(request, 4);
    replica_pack_uint(request, 0);
    replica_pack_uint(request, remora->msgid);
    replica_pack_cstr(request, method);
    replica_pack_array(request, 1);
    replica_buffer_append(request, params_n > 0 ? params : EMPTY_MAP,
                          params_n > 0 ? params_n : sizeof EMPTY_MAP);
    if (request->failed)
        return client_fail(remora, REPLICA_E_NOMEM, "out of memory");
    if (request->size > FRAME_SIZE_MAX)
        return client_fail(remora, REPLICA_E_TOOBIG,
                           "%s: a request has at most 4 MiB; pass bytes as descriptors, or in pieces",
                           method);
    return 0;
}

static int exchange_all(struct exchange *exchange, const struct replica_buffer *request, const int *fds,
                        size_t fds_n)
{
    int code;
    push_deadline(exchange);
    code = send_all(exchange, request, fds, fds_n);
    if (code == 0)
        exchange->remora->unanswered = true;
    if (code == 0 && take_input(exchange) != 0) /* what an earlier call left behind */
        code = lost(exchange);
    while (code == 0 && !exchange->done) {
        code = wait_for(exchange, POLLIN);
        if (code == 0)
            code = receive(exchange);
    }
    return code != 0 ? code : exchange->code;
}

int remora_call(struct remora *remora, const char *method, const void *params, size_t params_n,
                const int *fds, size_t fds_n, void **ret_result, size_t *ret_result_n, int *ret_fds,
                size_t *ret_fds_n)
{
    struct exchange exchange = {.remora = remora, .method = method};
    struct replica_buffer request;
    size_t wanted;
    int code;
    remora->unanswered = false;
    if (remora->fd < 0)
        return client_fail(remora, REPLICA_E_UNAVAILABLE,
                           "%s: the connection to the node at %s was lost; connect again", method,
                           remora->path);
    if (fds_n > CLIENT_FDS_MAX)
        return client_fail(remora, REPLICA_E_TOOBIG, "%s: at most %d descriptors can be passed at once",
                           method, CLIENT_FDS_MAX);
    code = build(remora, method, params, params_n, &request);
    exchange.msgid = remora->msgid;
    if (code == 0)
        code = exchange_all(&exchange, &request, fds, fds_n);
    replica_buffer_close(&request);
    if (code != 0) {
        free(exchange.result);
        return code;
    }
    wanted = ret_fds == NULL || ret_fds_n == NULL ? 0
             : *ret_fds_n < exchange.fds_n        ? *ret_fds_n
                                                  : exchange.fds_n;
    take_fds(remora, ret_fds, wanted);
    take_fds(remora, NULL, exchange.fds_n - wanted);
    if (ret_fds_n != NULL)
        *ret_fds_n = wanted;
    if (ret_result != NULL)
        *ret_result = exchange.result;
    else
        free(exchange.result);
    if (ret_result_n != NULL)
        *ret_result_n = exchange.result_n;
    return 0;
}
