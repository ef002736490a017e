/* connection: one client's socket. Cuts what comes in into messages, keeps descriptors with them, and queues what goes out.
 *
 * Bounds: a message is at most FRAME_SIZE_MAX; nothing is read while API_QUEUE_MAX bytes wait to go out, or API_BUSY_MAX calls are in
 * course. So a client that never reads is paused, and costs no more than that. Loop thread only. */
#ifndef NODE_API_CONNECTION_H
#define NODE_API_CONNECTION_H

#include "client/frame.h"
#include "loop.h"
#include "replica/buffer.h"

#include <sys/types.h>

#define API_QUEUE_MAX      FRAME_SIZE_MAX
#define API_BUSY_MAX       32         /* calls of one connection at once */
#define API_BUSY_BYTES_MAX (8u << 20) /* and the bytes of their messages */
#define API_FDS_MAX        64         /* descriptors of one message */
/* Received and not yet claimed: two messages' worth and what the kernel gives at once. */
#define API_FDS_WAITING 512

struct api_connection;

struct api_connection_handler {
    /* One whole message, well-formed MessagePack; borrowed. */
    void (*on_message)(void *context, struct api_connection *connection, const uint8_t *bytes, size_t n);
    /* The client has gone, or was refused and told so: called once, the connection is freed right after. */
    void (*on_close)(void *context, struct api_connection *connection);
};

/* fd: a connected stream socket, taken. Errors: NOMEM, IO; then fd is still the caller's. */
int api_connection_new(struct node_loop *loop, int fd, const struct api_connection_handler *handler,
                       void *context, struct api_connection **ret_connection);
void api_connection_destroy(struct api_connection **connection); /* without on_close */

/* The caller's, kept here. */
void api_connection_set_user(struct api_connection *connection, void *user);
void *api_connection_user(const struct api_connection *connection);

/* Queues a message and the descriptors (taken, closed once sent) that go with its first byte; message is emptied. Without memory, or to a
 * client that has gone, both are dropped. */
void api_connection_send(struct api_connection *connection, struct replica_buffer *message, int *fds,
                         size_t fds_n);
size_t api_connection_queued(const struct api_connection *connection);

/* A call of n bytes begins or ends: reading pauses at the limits. */
void api_connection_begin(struct api_connection *connection, size_t n);
void api_connection_end(struct api_connection *connection, size_t n);

/* The n oldest descriptors that came in and were not claimed yet, returned to the caller. Errors: MALFORMED (not so many). */
int api_connection_claim(struct api_connection *connection, int *ret_fds, size_t n);

/* Sends the notification "refused" with symbol and text, then closes. */
void api_connection_refuse(struct api_connection *connection, const char *symbol, const char *text);

#endif
