/* MessagePack for records and messages.
 *
 * Writing goes through msgpack-c's packer into a replica_buffer. Reading is a cursor over the bytes as they lie:
 * it allocates nothing, so no length that a peer claims can make us allocate, and strings and binaries come
 * back borrowed from the input. A reader that met an error stays failed: every later read fails too, so a decoder
 * may read a whole record and check once with replica_pack_reader_finish. */
#ifndef REPLICA_PACK_H
#define REPLICA_PACK_H

#include "replica/buffer.h"
#include "replica/ids.h"

/* Nesting that replica_pack_skip accepts; our own records nest five deep. */
#define REPLICA_PACK_DEPTH_MAX 16

void replica_pack_uint(struct replica_buffer *out, uint64_t value);
void replica_pack_int(struct replica_buffer *out, int64_t value);
void replica_pack_bool(struct replica_buffer *out, bool value);
void replica_pack_nil(struct replica_buffer *out);
void replica_pack_array(struct replica_buffer *out, size_t n);
void replica_pack_map(struct replica_buffer *out, size_t n);
void replica_pack_bin(struct replica_buffer *out, const void *data, size_t n);
void replica_pack_str(struct replica_buffer *out, const char *text, size_t n);
void replica_pack_cstr(struct replica_buffer *out, const char *text);
void replica_pack_id(struct replica_buffer *out, const struct replica_id *id);                 /* bin 16 */
void replica_pack_content_id(struct replica_buffer *out, const struct replica_content_id *id); /* bin 40 */
void replica_pack_stamp(struct replica_buffer *out, const struct replica_stamp *stamp);        /* bin 24 */
void replica_pack_dot(struct replica_buffer *out,
                      const struct replica_dot *dot); /* bin 24 + uint: two items */

enum replica_pack_type {
    REPLICA_PACK_END, /* no more bytes, or the reader failed */
    REPLICA_PACK_NIL,
    REPLICA_PACK_BOOL,
    REPLICA_PACK_INT, /* signed or unsigned */
    REPLICA_PACK_FLOAT,
    REPLICA_PACK_STR,
    REPLICA_PACK_BIN,
    REPLICA_PACK_ARRAY,
    REPLICA_PACK_MAP,
    REPLICA_PACK_EXT,
};

struct replica_pack_reader {
    const uint8_t *data; /* borrowed */
    size_t size;
    size_t offset;
    bool failed;
};

void replica_pack_reader_init(struct replica_pack_reader *reader, const void *data, size_t n);
enum replica_pack_type replica_pack_peek(const struct replica_pack_reader *reader);

/* Each read consumes one item (dot: two) and returns 0, or REPLICA_E_MALFORMED and fails the reader; outputs are
 * then zero, empty or NULL, so that a careless caller meets a harmless value. */
int replica_pack_read_uint(struct replica_pack_reader *reader, uint64_t max, uint64_t *ret_value);
int replica_pack_read_int(struct replica_pack_reader *reader, int64_t *ret_value);
int replica_pack_read_bool(struct replica_pack_reader *reader, bool *ret_value);
int replica_pack_read_array(struct replica_pack_reader *reader, size_t max, size_t *ret_n);
int replica_pack_read_map(struct replica_pack_reader *reader, size_t max, size_t *ret_n);
int replica_pack_read_bin(struct replica_pack_reader *reader, size_t max, const uint8_t **ret_data,
                          size_t *ret_n);
int replica_pack_read_str(struct replica_pack_reader *reader, size_t max, const char **ret_text,
                          size_t *ret_n);
int replica_pack_read_id(struct replica_pack_reader *reader, struct replica_id *ret_id);
int replica_pack_read_content_id(struct replica_pack_reader *reader, struct replica_content_id *ret_id);
int replica_pack_read_stamp(struct replica_pack_reader *reader, struct replica_stamp *ret_stamp);
int replica_pack_read_dot(struct replica_pack_reader *reader, struct replica_dot *ret_dot);
/* Steps over one item whatever it is (unknown fields of a newer version). */
int replica_pack_skip(struct replica_pack_reader *reader);

/* 0 if nothing failed; trailing bytes are an error. */
int replica_pack_reader_finish(const struct replica_pack_reader *reader);

#endif
