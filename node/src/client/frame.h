/* What comes in over the local API, for both of its ends: where a MessagePack message ends, and the descriptors that came with a piece.
 *
 * Every length is checked against the limit before anybody waits for it, and a byte is looked at once however the bytes
 * are cut up. No allocation. */
#ifndef CLIENT_FRAME_H
#define CLIENT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define FRAME_SIZE_MAX  (4u << 20) /* a message of the local API */
#define FRAME_DEPTH_MAX 16         /* as replica_pack_skip; ours nest seven deep */

struct frame {
    size_t at;                      /* where the next item begins */
    unsigned depth;                 /* open levels; 0: the message is whole */
    uint64_t left[FRAME_DEPTH_MAX]; /* items missing at each */
};

void frame_init(struct frame *frame); /* at the beginning of a message */

/* data: the message so far, n bytes, of which earlier calls may have seen a part. 0: whole, *ret_size bytes.
 * Errors: AGAIN (more is needed), MALFORMED, TOOBIG. */
int frame_scan(struct frame *frame, const uint8_t *data, size_t n, size_t *ret_size);

/* Appends the descriptors of a received piece to fds (max in all, *fds_n of them taken); the caller owns those it finds there. False: the
 * kernel left some out, or there were too many, which are closed. */
bool frame_keep_fds(struct msghdr *message, int *fds, size_t max, size_t *fds_n);

#endif
