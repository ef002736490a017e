/* Op: array [target, path or object, base, entry or nil, last directory entry or nil]. Delta: array [volume,
 * commit, deps, node, time_ms, op count, byte count, ops (bin) or content, carried (array id, bin …), hlc,
 * dot]. */
#include "replica/delta.h"

#include "replica/error.h"
#include "replica/merkle.h"

#include <string.h>

#define OP_ITEMS    5
#define DELTA_ITEMS 12 /* a dot is two items */

void replica_op_pack(struct replica_buffer *out, const struct replica_op *op)
{
    replica_pack_array(out, OP_ITEMS);
    replica_pack_uint(out, op->target);
    if (op->target == REPLICA_TARGET_OBJECT)
        replica_pack_id(out, &op->object);
    else
        replica_pack_str(out, op->path.text, op->path.size);
    replica_pack_stamp(out, &op->base);
    if (op->tombstone) {
        replica_pack_nil(out);
        if (op->entry.kind == REPLICA_KIND_DIRECTORY)
            replica_entry_pack(out, &op->entry);
        else
            replica_pack_nil(out);
    } else {
        replica_entry_pack(out, &op->entry);
        replica_pack_nil(out);
    }
}

static int read_optional_entry(struct replica_pack_reader *reader, bool *ret_present,
                               struct replica_entry *ret_entry)
{
    *ret_present = replica_pack_peek(reader) != REPLICA_PACK_NIL;
    return *ret_present ? replica_entry_read(reader, ret_entry) : replica_pack_skip(reader);
}

int replica_op_read(struct replica_pack_reader *reader, struct replica_op *ret_op)
{
    struct replica_op op;
    struct replica_entry entry, last;
    bool live, has_last;
    uint64_t target;
    size_t n;
    memset(&op, 0, sizeof op);
    memset(&entry, 0, sizeof entry);
    memset(&last, 0, sizeof last);
    replica_pack_read_array(reader, 32, &n);
    replica_pack_read_uint(reader, REPLICA_TARGET_OBJECT, &target);
    op.target = (enum replica_target)target;
    if (op.target == REPLICA_TARGET_OBJECT)
        replica_pack_read_id(reader, &op.object);
    else
        replica_pack_read_str(reader, REPLICA_PATH_MAX, &op.path.text, &op.path.size);
    replica_pack_read_stamp(reader, &op.base);
    read_optional_entry(reader, &live, &entry);
    read_optional_entry(reader, &has_last, &last);
    for (size_t i = OP_ITEMS; i < n && !reader->failed; i++)
        replica_pack_skip(reader);
    op.tombstone = !live;
    op.entry = live ? entry : last;
    if (n < OP_ITEMS || (live && has_last) || (has_last && last.kind != REPLICA_KIND_DIRECTORY) ||
        (op.target == REPLICA_TARGET_PATH && !replica_path_is_canonical(op.path.text, op.path.size)) ||
        (op.target == REPLICA_TARGET_OBJECT && live &&
         (entry.kind == REPLICA_KIND_LINK || entry.kind == REPLICA_KIND_DIRECTORY)) ||
        (live && entry.kind == REPLICA_KIND_FILE && entry.blob.kind == REPLICA_BLOB_DRAFT))
        reader->failed = true;
    if (reader->failed)
        return REPLICA_E_MALFORMED;
    *ret_op = op;
    return 0;
}

static int compare_bytes(struct replica_path a, struct replica_path b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int rv = n == 0 ? 0 : memcmp(a.text, b.text, n); /* an empty path may have no text */
    return rv != 0 ? rv : (a.size > b.size) - (a.size < b.size);
}

int replica_op_compare(const struct replica_op *a, const struct replica_op *b)
{
    struct replica_path parent_a, parent_b, name_a, name_b;
    int rv;
    if (a->target != b->target)
        return a->target == REPLICA_TARGET_OBJECT ? -1 : 1;
    if (a->target == REPLICA_TARGET_OBJECT)
        return replica_id_compare(&a->object, &b->object);
    replica_path_split(a->path, &parent_a, &name_a);
    replica_path_split(b->path, &parent_b, &name_b);
    rv = compare_bytes(parent_a, parent_b);
    return rv != 0 ? rv : compare_bytes(name_a, name_b);
}

void replica_delta_pack(struct replica_buffer *out, const struct replica_delta *delta)
{
    replica_pack_array(out, DELTA_ITEMS);
    replica_pack_id(out, &delta->volume);
    replica_pack_id(out, &delta->commit);
    replica_vector_pack(out, &delta->deps);
    replica_pack_id(out, &delta->node);
    replica_pack_uint(out, delta->time_ms);
    replica_pack_uint(out, delta->op_count);
    replica_pack_uint(out, delta->byte_count);
    if (delta->ops != NULL)
        replica_pack_bin(out, delta->ops, delta->ops_size);
    else {
        replica_pack_array(out, 1);
        replica_pack_content_id(out, &delta->ops_content);
    }
    replica_pack_array(out, delta->carried_n * 2);
    for (size_t i = 0; i < delta->carried_n; i++) {
        replica_pack_content_id(out, &delta->carried[i].id);
        replica_pack_bin(out, delta->carried[i].data, (size_t)delta->carried[i].id.length);
    }
    replica_pack_uint(out, delta->stamp_hlc);
    replica_pack_dot(out, &delta->dot);
}

static void read_ops(struct replica_pack_reader *reader, struct replica_delta *delta)
{
    size_t n;
    if (replica_pack_peek(reader) == REPLICA_PACK_BIN) {
        replica_pack_read_bin(reader, REPLICA_DELTA_SIZE_MAX, &delta->ops, &delta->ops_size);
        return;
    }
    replica_pack_read_array(reader, 1, &n);
    if (n != 1)
        reader->failed = true;
    replica_pack_read_content_id(reader, &delta->ops_content);
    if (delta->ops_content.length == 0 || delta->ops_content.length > REPLICA_OPS_SIZE_MAX)
        reader->failed = true;
}

static void read_carried(struct replica_pack_reader *reader, struct replica_delta *delta)
{
    size_t n;
    replica_pack_read_array(reader, 2 * REPLICA_CARRIED_MAX, &n);
    if (n % 2 != 0)
        reader->failed = true;
    for (size_t i = 0; i < n / 2 && !reader->failed; i++) {
        size_t size;
        replica_pack_read_content_id(reader, &delta->carried[i].id);
        replica_pack_read_bin(reader, REPLICA_DELTA_SIZE_MAX, &delta->carried[i].data, &size);
        if (size != delta->carried[i].id.length || size == 0)
            reader->failed = true;
        delta->carried_n = i + 1;
    }
}

int replica_delta_decode(const void *data, size_t n, struct replica_delta *ret_delta)
{
    struct replica_pack_reader reader;
    size_t items;
    if (n > REPLICA_DELTA_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    memset(ret_delta, 0, offsetof(struct replica_delta, carried));
    replica_pack_reader_init(&reader, data, n);
    replica_pack_read_array(&reader, 64, &items);
    replica_pack_read_id(&reader, &ret_delta->volume);
    replica_pack_read_id(&reader, &ret_delta->commit);
    replica_vector_read(&reader, &ret_delta->deps);
    replica_pack_read_id(&reader, &ret_delta->node);
    replica_pack_read_uint(&reader, UINT64_MAX, &ret_delta->time_ms);
    replica_pack_read_uint(&reader, UINT64_MAX, &ret_delta->op_count);
    replica_pack_read_uint(&reader, UINT64_MAX, &ret_delta->byte_count);
    read_ops(&reader, ret_delta);
    read_carried(&reader, ret_delta);
    replica_pack_read_uint(&reader, UINT64_MAX, &ret_delta->stamp_hlc);
    replica_pack_read_dot(&reader, &ret_delta->dot);
    for (size_t i = DELTA_ITEMS; i < items && !reader.failed; i++)
        replica_pack_skip(&reader);
    if (items < DELTA_ITEMS || replica_pack_reader_finish(&reader) != 0 ||
        replica_id_is_zero(&ret_delta->commit))
        return REPLICA_E_MALFORMED;
    return 0;
}

struct replica_stamp replica_delta_stamp(const struct replica_delta *delta)
{
    return (struct replica_stamp){.hlc = delta->stamp_hlc, .commit = delta->commit};
}

int replica_ops_each(const uint8_t *ops, size_t n, int (*visit)(void *context, const struct replica_op *op),
                     void *context)
{
    struct replica_pack_reader reader;
    struct replica_op op, before;
    bool first = true;
    replica_pack_reader_init(&reader, ops, n);
    while (reader.offset < reader.size) {
        int rv = replica_op_read(&reader, &op);
        if (rv == 0 && !first && replica_op_compare(&before, &op) >= 0)
            rv = REPLICA_E_MALFORMED;
        if (rv == 0)
            rv = visit(context, &op);
        if (rv != 0)
            return rv;
        before = op;
        first = false;
    }
    return 0;
}
