#include "client/frame.h"

#include "replica/error.h"

#include <string.h>
#include <unistd.h>

void frame_init(struct frame *frame)
{
    frame->at = 0;
    frame->depth = 1;
    frame->left[0] = 1;
}

static uint64_t big_endian(const uint8_t *bytes, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | bytes[i];
    return value;
}

/* How an item begins: bytes of its header (those of its length included), and what follows. */
struct item {
    size_t header;
    size_t length_bytes; /* of the header, at its end */
    uint64_t payload;    /* plus the length read */
    uint64_t children;
    unsigned each; /* children per length read: 1 array, 2 map, 0 a payload */
};

static struct item sized(size_t length_bytes, uint64_t extra, unsigned each)
{
    return (struct item){
        .header = 1 + length_bytes, .length_bytes = length_bytes, .payload = extra, .each = each};
}

static int classify(uint8_t byte, struct item *ret_item)
{
    static const uint8_t FIXED[] = {/* float, uint, int */ [0xa] = 4,
                                    [0xb] = 8,
                                    [0xc] = 1,
                                    [0xd] = 2,
                                    [0xe] = 4,
                                    [0xf] = 8,
                                    [0x10] = 1,
                                    [0x11] = 2,
                                    [0x12] = 4,
                                    [0x13] = 8,
                                    /* fixext */[0x14] = 2,
                                    [0x15] = 3,
                                    [0x16] = 5,
                                    [0x17] = 9,
                                    [0x18] = 17};
    *ret_item = (struct item){.header = 1};
    if (byte <= 0x7f || byte >= 0xe0 || byte == 0xc0 || byte == 0xc2 || byte == 0xc3)
        return 0;
    if (byte <= 0x8f)
        ret_item->children = 2u * (byte & 0x0f);
    else if (byte <= 0x9f)
        ret_item->children = byte & 0x0f;
    else if (byte <= 0xbf)
        ret_item->payload = byte & 0x1f;
    else if (byte == 0xc1)
        return REPLICA_E_MALFORMED;
    else if (byte <= 0xc6) /* bin */
        *ret_item = sized((size_t)1 << (byte - 0xc4), 0, 0);
    else if (byte <= 0xc9) /* ext: a type byte before the payload */
        *ret_item = sized((size_t)1 << (byte - 0xc7), 1, 0);
    else if (byte <= 0xd8)
        ret_item->payload = FIXED[byte - 0xc0];
    else if (byte <= 0xdb) /* str */
        *ret_item = sized((size_t)1 << (byte - 0xd9), 0, 0);
    else
        *ret_item = sized(byte & 1 ? 4 : 2, 0, byte <= 0xdd ? 1 : 2);
    return 0;
}

static int open_item(struct frame *frame, const uint8_t *data, size_t n)
{
    struct item item;
    int code;
    if (frame->at >= n)
        return REPLICA_E_AGAIN;
    code = classify(data[frame->at], &item);
    if (code != 0)
        return code;
    if (frame->at + item.header > n)
        return REPLICA_E_AGAIN;
    if (item.length_bytes > 0) {
        uint64_t length = big_endian(data + frame->at + 1, item.length_bytes);
        if (item.each == 0)
            item.payload += length;
        else
            item.children = length * item.each;
    }
    frame->left[frame->depth - 1]--;
    if (item.header + item.payload + item.children >
        FRAME_SIZE_MAX - frame->at) /* a child is a byte at least */
        return REPLICA_E_TOOBIG;
    frame->at += item.header + (size_t)item.payload;
    if (item.children == 0)
        return 0;
    if (frame->depth == FRAME_DEPTH_MAX)
        return REPLICA_E_MALFORMED;
    frame->left[frame->depth++] = item.children;
    return 0;
}

int frame_scan(struct frame *frame, const uint8_t *data, size_t n, size_t *ret_size)
{
    while (frame->depth > 0) {
        int code;
        if (frame->left[frame->depth - 1] == 0) {
            frame->depth--;
            continue;
        }
        code = open_item(frame, data, n);
        if (code != 0)
            return code;
    }
    if (frame->at > n)
        return REPLICA_E_AGAIN;
    *ret_size = frame->at;
    return 0;
}

bool frame_keep_fds(struct msghdr *message, int *fds, size_t max, size_t *fds_n)
{
    bool kept = !(message->msg_flags & MSG_CTRUNC);
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        size_t n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
            if (*fds_n < max) {
                fds[(*fds_n)++] = fd;
            } else {
                close(fd);
                kept = false;
            }
        }
    }
    return kept;
}
