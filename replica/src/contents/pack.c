/* Writing by msgpack-c's packer; reading in place. */
#include "replica/pack.h"

#include "replica/error.h"

#include <msgpack.h>
#include <string.h>

static int append(void *context, const char *data, size_t n)
{
    return replica_buffer_append(context, data, n);
}

static msgpack_packer packer(struct replica_buffer *out)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, append);
    return pk;
}

void replica_pack_uint(struct replica_buffer *out, uint64_t value)
{
    msgpack_packer pk = packer(out);
    msgpack_pack_uint64(&pk, value);
}

void replica_pack_int(struct replica_buffer *out, int64_t value)
{
    msgpack_packer pk = packer(out);
    msgpack_pack_int64(&pk, value);
}

void replica_pack_bool(struct replica_buffer *out, bool value)
{
    msgpack_packer pk = packer(out);
    if (value)
        msgpack_pack_true(&pk);
    else
        msgpack_pack_false(&pk);
}

void replica_pack_nil(struct replica_buffer *out)
{
    msgpack_packer pk = packer(out);
    msgpack_pack_nil(&pk);
}

void replica_pack_array(struct replica_buffer *out, size_t n)
{
    msgpack_packer pk = packer(out);
    msgpack_pack_array(&pk, n);
}

void replica_pack_map(struct replica_buffer *out, size_t n)
{
    msgpack_packer pk = packer(out);
    msgpack_pack_map(&pk, n);
}

void replica_pack_bin(struct replica_buffer *out, const void *data, size_t n)
{
    msgpack_packer pk = packer(out);
    msgpack_pack_bin(&pk, n);
    replica_buffer_append(out, data, n);
}

void replica_pack_str(struct replica_buffer *out, const char *text, size_t n)
{
    msgpack_packer pk = packer(out);
    msgpack_pack_str(&pk, n);
    replica_buffer_append(out, text, n);
}

void replica_pack_cstr(struct replica_buffer *out, const char *text)
{
    replica_pack_str(out, text, strlen(text));
}

void replica_pack_id(struct replica_buffer *out, const struct replica_id *id)
{
    replica_pack_bin(out, id->bytes, sizeof id->bytes);
}

void replica_pack_content_id(struct replica_buffer *out, const struct replica_content_id *id)
{
    uint8_t bytes[REPLICA_CONTENT_ID_SIZE];
    replica_content_id_encode(id, bytes);
    replica_pack_bin(out, bytes, sizeof bytes);
}

void replica_pack_stamp(struct replica_buffer *out, const struct replica_stamp *stamp)
{
    uint8_t bytes[REPLICA_STAMP_SIZE];
    replica_stamp_encode(stamp, bytes);
    replica_pack_bin(out, bytes, sizeof bytes);
}

void replica_pack_dot(struct replica_buffer *out, const struct replica_dot *dot)
{
    uint8_t bytes[REPLICA_ACTOR_SIZE];
    replica_actor_encode(&dot->actor, bytes);
    replica_pack_bin(out, bytes, sizeof bytes);
    replica_pack_uint(out, dot->seq);
}

void replica_pack_reader_init(struct replica_pack_reader *reader, const void *data, size_t n)
{
    *reader = (struct replica_pack_reader){.data = data, .size = n};
}

static enum replica_pack_type type_of(uint8_t tag)
{
    if (tag <= 0x7f || tag >= 0xe0 || (tag >= 0xcc && tag <= 0xd3))
        return REPLICA_PACK_INT;
    if ((tag & 0xf0) == 0x80 || tag == 0xde || tag == 0xdf)
        return REPLICA_PACK_MAP;
    if ((tag & 0xf0) == 0x90 || tag == 0xdc || tag == 0xdd)
        return REPLICA_PACK_ARRAY;
    if ((tag & 0xe0) == 0xa0 || (tag >= 0xd9 && tag <= 0xdb))
        return REPLICA_PACK_STR;
    if (tag >= 0xc4 && tag <= 0xc6)
        return REPLICA_PACK_BIN;
    if (tag == 0xc0)
        return REPLICA_PACK_NIL;
    if (tag == 0xc2 || tag == 0xc3)
        return REPLICA_PACK_BOOL;
    if (tag == 0xca || tag == 0xcb)
        return REPLICA_PACK_FLOAT;
    return tag == 0xc1 ? REPLICA_PACK_END : REPLICA_PACK_EXT;
}

enum replica_pack_type replica_pack_peek(const struct replica_pack_reader *reader)
{
    if (reader->failed || reader->offset >= reader->size)
        return REPLICA_PACK_END;
    return type_of(reader->data[reader->offset]);
}

static int fail(struct replica_pack_reader *reader)
{
    reader->failed = true;
    return REPLICA_E_MALFORMED;
}

/* n big-endian bytes after the tag; the offset moves behind them. */
static int take_number(struct replica_pack_reader *reader, size_t n, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (reader->size - reader->offset < n)
        return fail(reader);
    for (size_t i = 0; i < n; i++)
        value = value << 8 | reader->data[reader->offset++];
    *ret_value = value;
    return 0;
}

static int take_tag(struct replica_pack_reader *reader, enum replica_pack_type type, uint8_t *ret_tag)
{
    if (replica_pack_peek(reader) != type)
        return fail(reader);
    *ret_tag = reader->data[reader->offset++];
    return 0;
}

/* Any integer: its bits, and whether it is negative. */
static int take_integer(struct replica_pack_reader *reader, uint64_t *ret_bits, bool *ret_negative)
{
    uint8_t tag;
    uint64_t bits;
    size_t n;
    if (take_tag(reader, REPLICA_PACK_INT, &tag) != 0)
        return REPLICA_E_MALFORMED;
    if (tag <= 0x7f || tag >= 0xe0) {
        *ret_bits = tag <= 0x7f ? tag : (uint64_t)(int64_t)(int8_t)tag;
        *ret_negative = tag >= 0xe0;
        return 0;
    }
    n = (size_t)1 << ((tag - 0xcc) & 3);
    if (take_number(reader, n, &bits) != 0)
        return REPLICA_E_MALFORMED;
    *ret_negative = tag >= 0xd0 && (bits >> (n * 8 - 1)) != 0;
    if (*ret_negative && n < 8)
        bits |= UINT64_MAX << (n * 8);
    *ret_bits = bits;
    return 0;
}

int replica_pack_read_uint(struct replica_pack_reader *reader, uint64_t max, uint64_t *ret_value)
{
    uint64_t bits;
    bool negative;
    *ret_value = 0;
    if (take_integer(reader, &bits, &negative) != 0)
        return REPLICA_E_MALFORMED;
    if (negative || bits > max)
        return fail(reader);
    *ret_value = bits;
    return 0;
}

int replica_pack_read_int(struct replica_pack_reader *reader, int64_t *ret_value)
{
    uint64_t bits;
    bool negative;
    *ret_value = 0;
    if (take_integer(reader, &bits, &negative) != 0)
        return REPLICA_E_MALFORMED;
    if (!negative && bits > INT64_MAX)
        return fail(reader);
    *ret_value = (int64_t)bits;
    return 0;
}

int replica_pack_read_bool(struct replica_pack_reader *reader, bool *ret_value)
{
    uint8_t tag;
    *ret_value = false;
    if (take_tag(reader, REPLICA_PACK_BOOL, &tag) != 0)
        return REPLICA_E_MALFORMED;
    *ret_value = tag == 0xc3;
    return 0;
}

/* The length that follows a tag of a sized type: fix: the bits in the tag, else 1, 2 or 4 bytes. */
static int take_length(struct replica_pack_reader *reader, enum replica_pack_type type, size_t max,
                       size_t *ret_n)
{
    uint64_t n = 0;
    uint8_t tag;
    int rv = 0;
    if (take_tag(reader, type, &tag) != 0)
        return REPLICA_E_MALFORMED;
    if (tag < 0xa0)
        n = tag & 0x0f;
    else if (tag < 0xc0)
        n = tag & 0x1f;
    else if (type == REPLICA_PACK_BIN)
        rv = take_number(reader, (size_t)1 << (tag - 0xc4), &n);
    else if (type == REPLICA_PACK_STR)
        rv = take_number(reader, (size_t)1 << (tag - 0xd9), &n);
    else
        rv = take_number(reader, (tag & 1) ? 4 : 2, &n);
    if (rv != 0)
        return rv;
    if (n > max || n > reader->size - reader->offset) /* every element has at least one byte */
        return fail(reader);
    *ret_n = (size_t)n;
    return 0;
}

int replica_pack_read_array(struct replica_pack_reader *reader, size_t max, size_t *ret_n)
{
    *ret_n = 0;
    return take_length(reader, REPLICA_PACK_ARRAY, max, ret_n);
}

int replica_pack_read_map(struct replica_pack_reader *reader, size_t max, size_t *ret_n)
{
    *ret_n = 0;
    return take_length(reader, REPLICA_PACK_MAP, max, ret_n);
}

static int read_bytes(struct replica_pack_reader *reader, enum replica_pack_type type, size_t max,
                      const uint8_t **ret_data, size_t *ret_n)
{
    static const uint8_t nothing[1];
    size_t n;
    *ret_data = nothing;
    *ret_n = 0;
    if (take_length(reader, type, max, &n) != 0)
        return REPLICA_E_MALFORMED;
    *ret_data = reader->data + reader->offset;
    *ret_n = n;
    reader->offset += n;
    return 0;
}

int replica_pack_read_bin(struct replica_pack_reader *reader, size_t max, const uint8_t **ret_data,
                          size_t *ret_n)
{
    return read_bytes(reader, REPLICA_PACK_BIN, max, ret_data, ret_n);
}

int replica_pack_read_str(struct replica_pack_reader *reader, size_t max, const char **ret_text,
                          size_t *ret_n)
{
    const uint8_t *data;
    int rv = read_bytes(reader, REPLICA_PACK_STR, max, &data, ret_n);
    *ret_text = (const char *)data;
    return rv;
}

/* A binary of exactly n bytes; NULL on failure. */
static const uint8_t *read_exact(struct replica_pack_reader *reader, size_t n)
{
    const uint8_t *data;
    size_t got;
    if (replica_pack_read_bin(reader, n, &data, &got) != 0)
        return NULL;
    if (got != n) {
        fail(reader);
        return NULL;
    }
    return data;
}

int replica_pack_read_id(struct replica_pack_reader *reader, struct replica_id *ret_id)
{
    const uint8_t *data = read_exact(reader, REPLICA_ID_SIZE);
    memset(ret_id, 0, sizeof *ret_id);
    if (data == NULL)
        return REPLICA_E_MALFORMED;
    memcpy(ret_id->bytes, data, REPLICA_ID_SIZE);
    return 0;
}

int replica_pack_read_content_id(struct replica_pack_reader *reader, struct replica_content_id *ret_id)
{
    const uint8_t *data = read_exact(reader, REPLICA_CONTENT_ID_SIZE);
    memset(ret_id, 0, sizeof *ret_id);
    if (data == NULL)
        return REPLICA_E_MALFORMED;
    replica_content_id_decode(data, ret_id);
    return 0;
}

int replica_pack_read_stamp(struct replica_pack_reader *reader, struct replica_stamp *ret_stamp)
{
    const uint8_t *data = read_exact(reader, REPLICA_STAMP_SIZE);
    memset(ret_stamp, 0, sizeof *ret_stamp);
    if (data == NULL)
        return REPLICA_E_MALFORMED;
    replica_stamp_decode(data, ret_stamp);
    return 0;
}

int replica_pack_read_dot(struct replica_pack_reader *reader, struct replica_dot *ret_dot)
{
    const uint8_t *data = read_exact(reader, REPLICA_ACTOR_SIZE);
    memset(ret_dot, 0, sizeof *ret_dot);
    if (data == NULL || replica_pack_read_uint(reader, UINT64_MAX, &ret_dot->seq) != 0)
        return REPLICA_E_MALFORMED;
    replica_actor_decode(data, &ret_dot->actor);
    return 0;
}

static int skip_some(struct replica_pack_reader *reader, unsigned depth);

static int skip_items(struct replica_pack_reader *reader, size_t n, unsigned depth)
{
    for (size_t i = 0; i < n; i++)
        if (skip_some(reader, depth) != 0)
            return REPLICA_E_MALFORMED;
    return 0;
}

static int skip_bytes(struct replica_pack_reader *reader, uint64_t n)
{
    if (n > reader->size - reader->offset)
        return fail(reader);
    reader->offset += (size_t)n;
    return 0;
}

static int skip_ext(struct replica_pack_reader *reader)
{
    uint8_t tag = reader->data[reader->offset++];
    uint64_t n;
    if (tag >= 0xd4 && tag <= 0xd8)
        return skip_bytes(reader, 1 + ((uint64_t)1 << (tag - 0xd4)));
    if (take_number(reader, (size_t)1 << (tag - 0xc7), &n) != 0)
        return REPLICA_E_MALFORMED;
    return skip_bytes(reader, n + 1);
}

static int skip_some(struct replica_pack_reader *reader, unsigned depth)
{
    const uint8_t *data;
    uint64_t bits;
    size_t n;
    bool negative;
    enum replica_pack_type type = replica_pack_peek(reader);
    if (depth == 0)
        return fail(reader);
    switch (type) {
    case REPLICA_PACK_END:
        return fail(reader);
    case REPLICA_PACK_NIL:
    case REPLICA_PACK_BOOL:
        return skip_bytes(reader, 1);
    case REPLICA_PACK_INT:
        return take_integer(reader, &bits, &negative);
    case REPLICA_PACK_FLOAT:
        return skip_bytes(reader, reader->data[reader->offset] == 0xca ? 5 : 9);
    case REPLICA_PACK_STR:
    case REPLICA_PACK_BIN:
        return read_bytes(reader, type, SIZE_MAX, &data, &n);
    case REPLICA_PACK_ARRAY:
        return replica_pack_read_array(reader, SIZE_MAX, &n) != 0 ? REPLICA_E_MALFORMED
                                                                  : skip_items(reader, n, depth - 1);
    case REPLICA_PACK_MAP:
        return replica_pack_read_map(reader, SIZE_MAX / 2, &n) != 0 ? REPLICA_E_MALFORMED
                                                                    : skip_items(reader, 2 * n, depth - 1);
    case REPLICA_PACK_EXT:
        return skip_ext(reader);
    }
    return fail(reader);
}

int replica_pack_skip(struct replica_pack_reader *reader)
{
    return skip_some(reader, REPLICA_PACK_DEPTH_MAX);
}

int replica_pack_reader_finish(const struct replica_pack_reader *reader)
{
    return reader->failed || reader->offset != reader->size ? REPLICA_E_MALFORMED : 0;
}
