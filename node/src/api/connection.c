#include "api/connection.h"

#include "replica/error.h"
#include "replica/pack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE      (64u << 10)
#define READS_PER_TURN 16 /* 1 MiB, then other connections have their turn */
/* SCM_MAX_FD: what the kernel may hand over in one message; room for less would lose some. */
#define FDS_AT_ONCE 253

struct outgoing {
    struct outgoing *next;
    struct replica_buffer bytes;
    size_t sent;
    size_t fds_n;
    int fds[];
};

struct api_connection {
    struct node_loop *loop;
    struct node_watch *watch;
    int fd;
    const struct api_connection_handler *handler;
    void *context;
    void *user;
    struct replica_buffer input;
    size_t consumed; /* of input: messages dealt with */
    struct frame frame;
    int fds[API_FDS_WAITING];
    size_t fds_n;
    struct outgoing *queue, **queue_tail;
    size_t queued; /* bytes */
    size_t busy, busy_bytes;
    uint32_t events;
    bool eof;      /* the client sends no more */
    bool refused;  /* close once the queue is out */
    bool gone;     /* nothing can be sent any more */
    bool turn;     /* inside its own callback: it ends by looking at what changed */
    bool resuming; /* a post is under way that will look at the input again */
    struct node_post resume;
};

static void on_ready(void *context, uint32_t events);

int api_connection_new(struct node_loop *loop, int fd, const struct api_connection_handler *handler,
                       void *context, struct api_connection **ret_connection)
{
    struct api_connection *connection = calloc(1, sizeof *connection);
    int code;
    if (connection == NULL)
        return REPLICA_E_NOMEM;
    connection->loop = loop;
    connection->fd = fd;
    connection->handler = handler;
    connection->context = context;
    connection->queue_tail = &connection->queue;
    connection->events = EPOLLIN;
    replica_buffer_init(&connection->input);
    frame_init(&connection->frame);
    code = node_loop_watch(loop, fd, connection->events, on_ready, connection, &connection->watch);
    if (code != 0) {
        free(connection);
        return code;
    }
    *ret_connection = connection;
    return 0;
}

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++)
        close(fds[i]);
}

static void drop_first(struct api_connection *connection)
{
    struct outgoing *first = connection->queue;
    connection->queue = first->next;
    if (connection->queue == NULL)
        connection->queue_tail = &connection->queue;
    connection->queued -= first->bytes.size - first->sent;
    close_all(first->fds, first->fds_n);
    replica_buffer_close(&first->bytes);
    free(first);
}

static void drop_queue(struct api_connection *connection)
{
    while (connection->queue != NULL)
        drop_first(connection);
}

static void free_connection(struct api_connection *connection)
{
    drop_queue(connection);
    close_all(connection->fds, connection->fds_n);
    replica_buffer_close(&connection->input);
    free(connection);
}

static void run_resume(void *context);

void api_connection_destroy(struct api_connection **connection)
{
    struct api_connection *gone = *connection;
    if (gone == NULL)
        return;
    *connection = NULL;
    node_watch_destroy(&gone->watch);
    close(gone->fd);
    gone->fd = -1;
    gone->handler = NULL;
    if (!gone->resuming) /* else the post frees it */
        free_connection(gone);
}

void api_connection_set_user(struct api_connection *connection, void *user)
{
    connection->user = user;
}

void *api_connection_user(const struct api_connection *connection)
{
    return connection->user;
}

static bool is_paused(const struct api_connection *connection)
{
    return connection->queued >= API_QUEUE_MAX || connection->busy >= API_BUSY_MAX ||
           connection->busy_bytes >= API_BUSY_BYTES_MAX;
}

static void update_events(struct api_connection *connection)
{
    uint32_t events = 0;
    if (!connection->eof && !connection->refused && !is_paused(connection))
        events |= EPOLLIN;
    if (connection->queue != NULL && !connection->gone)
        events |= EPOLLOUT;
    if (events != connection->events && node_watch_change(connection->watch, events) == 0)
        connection->events = events;
}

/* Nothing can go out any more. The watch will report it (a shut down socket hangs up), and the connection ends there and not inside of
 * whatever is sending. */
static void give_up(struct api_connection *connection)
{
    connection->gone = true;
    drop_queue(connection);
    shutdown(connection->fd, SHUT_RDWR);
}

static ssize_t send_some(const struct api_connection *connection, const struct outgoing *first)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * API_FDS_MAX)];
    } control;
    struct iovec piece = {first->bytes.data + first->sent, first->bytes.size - first->sent};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (first->sent == 0 && first->fds_n > 0) {
        struct cmsghdr *header;
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * first->fds_n);
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * first->fds_n);
        memcpy(CMSG_DATA(header), first->fds, sizeof(int) * first->fds_n);
    }
    return sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void flush(struct api_connection *connection)
{
    while (connection->queue != NULL && !connection->gone) {
        struct outgoing *first = connection->queue;
        ssize_t n = send_some(connection, first);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            give_up(connection);
            return;
        }
        first->sent += (size_t)n;
        connection->queued -= (size_t)n;
        if (first->sent == first->bytes.size)
            drop_first(connection);
    }
}

/* A post, so that no message is handled from within the handling of another, or of an answer. */
static void resume_later(struct api_connection *connection)
{
    if (connection->resuming || connection->turn || connection->fd < 0)
        return;
    connection->resuming = true;
    connection->resume = (struct node_post){.call = run_resume, .context = connection};
    node_loop_post(connection->loop, &connection->resume);
}

void api_connection_send(struct api_connection *connection, struct replica_buffer *message, int *fds,
                         size_t fds_n)
{
    struct outgoing *item = NULL;
    assert(fds_n <= API_FDS_MAX);
    if (!connection->gone && !connection->refused && !message->failed)
        item = calloc(1, sizeof *item + fds_n * sizeof fds[0]);
    if (item == NULL) {
        close_all(fds, fds_n);
        replica_buffer_close(message);
        if (!connection->gone &&
            !connection->refused) /* an answer that is never sent would be waited for: better hang up */
            give_up(connection);
        return;
    }
    item->bytes = *message;
    replica_buffer_init(message);
    item->fds_n = fds_n;
    if (fds_n > 0)
        memcpy(item->fds, fds, fds_n * sizeof fds[0]);
    *connection->queue_tail = item;
    connection->queue_tail = &item->next;
    connection->queued += item->bytes.size;
    flush(connection);
    if (!connection->turn)
        update_events(connection);
}

size_t api_connection_queued(const struct api_connection *connection)
{
    return connection->queued;
}

void api_connection_begin(struct api_connection *connection, size_t n)
{
    connection->busy++;
    connection->busy_bytes += n;
}

void api_connection_end(struct api_connection *connection, size_t n)
{
    bool was_paused = is_paused(connection);
    assert(connection->busy > 0 && connection->busy_bytes >= n);
    connection->busy--;
    connection->busy_bytes -= n;
    if (was_paused || connection->eof)
        resume_later(connection); /* whole messages may lie in the input, of which no event will tell */
}

int api_connection_claim(struct api_connection *connection, int *ret_fds, size_t n)
{
    if (n > connection->fds_n)
        return REPLICA_E_MALFORMED;
    memcpy(ret_fds, connection->fds, n * sizeof ret_fds[0]);
    connection->fds_n -= n;
    memmove(connection->fds, connection->fds + n, connection->fds_n * sizeof connection->fds[0]);
    return 0;
}

void api_connection_refuse(struct api_connection *connection, const char *symbol, const char *text)
{
    struct replica_buffer message;
    replica_buffer_init(&message);
    replica_pack_array(&message, 3);
    replica_pack_uint(&message, 2);
    replica_pack_cstr(&message, "refused");
    replica_pack_array(&message, 2);
    replica_pack_cstr(&message, symbol);
    replica_pack_cstr(&message, text);
    api_connection_send(connection, &message, NULL, 0);
    connection->refused = true;
    resume_later(connection);
}

/* AGAIN: nothing there. */
static int receive(struct api_connection *connection)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * FDS_AT_ONCE)];
    } control;
    uint8_t *room = replica_buffer_reserve(&connection->input, READ_SIZE);
    struct iovec piece = {room, READ_SIZE};
    struct msghdr message = {
        .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    if (room == NULL)
        return REPLICA_E_NOMEM;
    n = recvmsg(connection->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? REPLICA_E_AGAIN : REPLICA_E_IO;
    if (n == 0)
        connection->eof = true;
    connection->input.size += (size_t)n;
    return frame_keep_fds(&message, connection->fds, API_FDS_WAITING, &connection->fds_n)
               ? 0
               : REPLICA_E_MALFORMED;
}

static const char *describe(int code)
{
    return code == REPLICA_E_TOOBIG
               ? "a message is larger than 4 MiB; send bytes as descriptors, or in pieces"
               : "that is not MessagePack-RPC: a message is an array of 4 items (3 for a notification)";
}

/* Hands over every whole message, until the limits. */
static void handle_input(struct api_connection *connection)
{
    struct replica_buffer *input = &connection->input;
    while (connection->consumed < input->size && !is_paused(connection) && !connection->refused &&
           !connection->gone) {
        const uint8_t *bytes = input->data + connection->consumed;
        size_t size;
        int code = bytes[0] == 0x94 || bytes[0] == 0x93 ? 0 : REPLICA_E_MALFORMED;
        if (code == 0)
            code = frame_scan(&connection->frame, bytes, input->size - connection->consumed, &size);
        if (code == REPLICA_E_AGAIN)
            break;
        if (code != 0) {
            api_connection_refuse(connection, replica_error_symbol(code), describe(code));
            break;
        }
        frame_init(&connection->frame);
        connection->consumed += size;
        connection->handler->on_message(connection->context, connection, bytes, size);
    }
    if (connection->consumed > 0) {
        memmove(input->data, input->data + connection->consumed, input->size - connection->consumed);
        input->size -= connection->consumed;
        connection->consumed = 0;
    }
    if (input->size == 0 && input->capacity > 2 * READ_SIZE)
        replica_buffer_close(input); /* a large message came once; most never do again */
}

static bool is_over(const struct api_connection *connection)
{
    if (connection->gone)
        return true;
    return (connection->refused || (connection->eof && connection->busy == 0 && !is_paused(connection))) &&
           connection->queue == NULL;
}

static void end(struct api_connection *connection)
{
    connection->handler->on_close(connection->context, connection);
    api_connection_destroy(&connection);
}

static void read_input(struct api_connection *connection)
{
    int code = 0;
    for (int i = 0; i < READS_PER_TURN && code == 0 && !connection->eof && !connection->refused &&
                    !is_paused(connection);
         i++) {
        code = receive(connection);
        if (code == 0)
            handle_input(connection);
    }
    if (code == REPLICA_E_MALFORMED)
        api_connection_refuse(connection, "MALFORMED",
                              "too many descriptors came with a message; send at most 64");
    else if (code != 0 && code != REPLICA_E_AGAIN)
        give_up(connection);
}

static void on_ready(void *context, uint32_t events)
{
    struct api_connection *connection = context;
    connection->turn = true;
    if (events & EPOLLOUT)
        flush(connection);
    if (!is_paused(connection))
        handle_input(connection);
    if (events & (EPOLLIN | EPOLLHUP))
        read_input(connection);
    if (events & (EPOLLERR | EPOLLHUP) && (connection->eof || is_paused(connection)))
        connection->gone = true; /* nobody will read the answers */
    connection->turn = false;
    if (is_over(connection))
        end(connection);
    else
        update_events(connection);
}

static void run_resume(void *context)
{
    struct api_connection *connection = context;
    connection->resuming = false;
    if (connection->fd < 0)
        free_connection(connection);
    else
        on_ready(connection, 0);
}
