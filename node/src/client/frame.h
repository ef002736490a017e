/* Finding where a MessagePack message ends, while its bytes come in. Shared by both ends of the local API.
 *
 * Every length is checked against the limit before anybody waits for it, and a byte is looked at once however the bytes
 * are cut up. No allocation. */
#ifndef CLIENT_FRAME_H
#define CLIENT_FRAME_H

#include <stddef.h>
#include <stdint.h>

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

#endif
