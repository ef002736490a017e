/* Entry: array [kind, mode, uid, gid, mtime_ns, xattrs (bin), body …]; the body depends on the kind. Later
 * fields go behind. */
#include "replica/entry.h"

#include "replica/error.h"
#include "replica/merkle.h"

#include <string.h>

static size_t body_items(enum replica_kind kind)
{
    switch (kind) {
    case REPLICA_KIND_FILE:
    case REPLICA_KIND_CHARACTER_DEVICE:
    case REPLICA_KIND_BLOCK_DEVICE:
        return 2;
    case REPLICA_KIND_SYMLINK:
    case REPLICA_KIND_LINK:
        return 1;
    default:
        return 0;
    }
}

static void pack_file(struct replica_buffer *out, const struct replica_entry *entry)
{
    replica_pack_uint(out, entry->size);
    if (entry->blob.kind == REPLICA_BLOB_INLINE)
        replica_pack_bin(out, entry->blob.data, entry->blob.size);
    else if (entry->blob.kind == REPLICA_BLOB_CONTENT) {
        replica_pack_array(out, 1);
        replica_pack_content_id(out, &entry->blob.content);
    } else
        replica_pack_uint(out, entry->blob.draft);
}

void replica_entry_pack(struct replica_buffer *out, const struct replica_entry *entry)
{
    replica_pack_array(out, 6 + body_items(entry->kind));
    replica_pack_uint(out, entry->kind);
    replica_pack_uint(out, entry->mode);
    replica_pack_uint(out, entry->uid);
    replica_pack_uint(out, entry->gid);
    replica_pack_int(out, entry->mtime_ns);
    replica_pack_bin(out, entry->xattrs, entry->xattrs_size);
    if (entry->kind == REPLICA_KIND_FILE)
        pack_file(out, entry);
    else if (entry->kind == REPLICA_KIND_SYMLINK)
        replica_pack_str(out, entry->target, entry->target_size);
    else if (entry->kind == REPLICA_KIND_LINK)
        replica_pack_id(out, &entry->object);
    else if (body_items(entry->kind) == 2) {
        replica_pack_uint(out, entry->major);
        replica_pack_uint(out, entry->minor);
    }
}

static int read_file(struct replica_pack_reader *reader, struct replica_entry *entry)
{
    size_t n;
    replica_pack_read_uint(reader, REPLICA_CONTENT_SIZE_MAX, &entry->size);
    switch (replica_pack_peek(reader)) {
    case REPLICA_PACK_BIN:
        entry->blob.kind = REPLICA_BLOB_INLINE;
        return replica_pack_read_bin(reader, REPLICA_INLINE_MAX, &entry->blob.data, &entry->blob.size);
    case REPLICA_PACK_ARRAY:
        entry->blob.kind = REPLICA_BLOB_CONTENT;
        replica_pack_read_array(reader, 1, &n);
        if (n != 1)
            reader->failed = true;
        return replica_pack_read_content_id(reader, &entry->blob.content);
    default:
        entry->blob.kind = REPLICA_BLOB_DRAFT;
        return replica_pack_read_uint(reader, UINT64_MAX, &entry->blob.draft);
    }
}

static void read_body(struct replica_pack_reader *reader, struct replica_entry *entry)
{
    uint64_t major, minor;
    switch (entry->kind) {
    case REPLICA_KIND_FILE:
        read_file(reader, entry);
        break;
    case REPLICA_KIND_SYMLINK:
        replica_pack_read_str(reader, REPLICA_SYMLINK_MAX, &entry->target, &entry->target_size);
        break;
    case REPLICA_KIND_LINK:
        replica_pack_read_id(reader, &entry->object);
        break;
    case REPLICA_KIND_CHARACTER_DEVICE:
    case REPLICA_KIND_BLOCK_DEVICE:
        replica_pack_read_uint(reader, UINT32_MAX, &major);
        replica_pack_read_uint(reader, UINT32_MAX, &minor);
        entry->major = (uint32_t)major;
        entry->minor = (uint32_t)minor;
        break;
    default:
        break;
    }
}

int replica_entry_read(struct replica_pack_reader *reader, struct replica_entry *ret_entry)
{
    struct replica_entry entry = {.kind = 0};
    uint64_t kind, mode, uid, gid;
    size_t n, used;
    replica_pack_read_array(reader, 64, &n);
    replica_pack_read_uint(reader, REPLICA_KIND_LINK, &kind);
    replica_pack_read_uint(reader, 07777, &mode);
    replica_pack_read_uint(reader, UINT32_MAX, &uid);
    replica_pack_read_uint(reader, UINT32_MAX, &gid);
    replica_pack_read_int(reader, &entry.mtime_ns);
    replica_pack_read_bin(reader, REPLICA_XATTRS_SIZE_MAX, &entry.xattrs, &entry.xattrs_size);
    if (reader->failed || kind < REPLICA_KIND_FILE) {
        reader->failed = true;
        return REPLICA_E_MALFORMED;
    }
    entry.kind = (enum replica_kind)kind;
    entry.mode = (uint32_t)mode;
    entry.uid = (uint32_t)uid;
    entry.gid = (uint32_t)gid;
    if (entry.xattrs_size == 0)
        entry.xattrs = NULL;
    used = 6 + body_items(entry.kind);
    if (n < used)
        reader->failed = true;
    read_body(reader, &entry);
    for (size_t i = used; i < n && !reader->failed; i++)
        replica_pack_skip(reader);
    if (reader->failed || replica_entry_check(&entry) != 0) {
        reader->failed = true;
        return REPLICA_E_MALFORMED;
    }
    *ret_entry = entry;
    return 0;
}

static int count_xattr(void *context, const char *name, size_t name_n, const uint8_t *value, size_t n)
{
    size_t *count = context;
    (void)value;
    (*count)++;
    if (name_n == 0 || name_n > REPLICA_XATTR_NAME_MAX || memchr(name, '\0', name_n) != NULL)
        return REPLICA_E_INVALID;
    return n > REPLICA_XATTR_VALUE_MAX || *count > REPLICA_XATTRS_MAX ? REPLICA_E_TOOBIG : 0;
}

static int check_blob(const struct replica_entry *entry)
{
    if (entry->size > REPLICA_CONTENT_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    if (entry->blob.kind == REPLICA_BLOB_INLINE &&
        (entry->blob.size != entry->size || entry->size > REPLICA_INLINE_MAX))
        return REPLICA_E_INVALID;
    if (entry->blob.kind == REPLICA_BLOB_CONTENT && entry->blob.content.length != entry->size)
        return REPLICA_E_INVALID;
    return 0;
}

int replica_entry_check(const struct replica_entry *entry)
{
    size_t xattrs = 0;
    int rv;
    if (entry->kind < REPLICA_KIND_FILE || entry->kind > REPLICA_KIND_LINK || entry->mode > 07777)
        return REPLICA_E_INVALID;
    if (entry->xattrs_size > REPLICA_XATTRS_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    rv = replica_entry_each_xattr(entry, count_xattr, &xattrs);
    if (rv != 0)
        return rv == REPLICA_E_MALFORMED ? REPLICA_E_INVALID : rv;
    if (entry->kind == REPLICA_KIND_SYMLINK &&
        (entry->target == NULL || entry->target_size == 0 || entry->target_size > REPLICA_SYMLINK_MAX ||
         memchr(entry->target, '\0', entry->target_size)))
        return REPLICA_E_INVALID;
    return entry->kind == REPLICA_KIND_FILE ? check_blob(entry) : 0;
}

int replica_entry_each_xattr(const struct replica_entry *entry,
                             int (*visit)(void *context, const char *name, size_t name_n,
                                          const uint8_t *value, size_t n),
                             void *context)
{
    struct replica_pack_reader reader;
    size_t n;
    if (entry->xattrs_size == 0)
        return 0;
    replica_pack_reader_init(&reader, entry->xattrs, entry->xattrs_size);
    replica_pack_read_array(&reader, 2 * REPLICA_XATTRS_MAX, &n);
    if (n % 2 != 0)
        return REPLICA_E_MALFORMED;
    for (size_t i = 0; i < n / 2; i++) {
        const char *name;
        const uint8_t *value;
        size_t name_n, value_n;
        int rv;
        replica_pack_read_str(&reader, REPLICA_XATTR_NAME_MAX, &name, &name_n);
        if (replica_pack_read_bin(&reader, REPLICA_XATTR_VALUE_MAX, &value, &value_n) != 0)
            return REPLICA_E_MALFORMED;
        rv = visit(context, name, name_n, value, value_n);
        if (rv != 0)
            return rv;
    }
    return replica_pack_reader_finish(&reader);
}

bool replica_entry_equal(const struct replica_entry *a, const struct replica_entry *b)
{
    struct replica_buffer left, right;
    bool equal;
    replica_buffer_init(&left);
    replica_buffer_init(&right);
    replica_entry_pack(&left, a);
    replica_entry_pack(&right, b);
    equal = !left.failed && !right.failed && left.size == right.size &&
            memcmp(left.data, right.data, left.size) == 0;
    replica_buffer_close(&left);
    replica_buffer_close(&right);
    return equal;
}
