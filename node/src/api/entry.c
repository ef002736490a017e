/* Entries as apps see them, both ways. */
#include "api/call.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    enum replica_kind kind;
    const char *name;
} KINDS[] = {
    {REPLICA_KIND_FILE, "file"},          {REPLICA_KIND_DIRECTORY, "directory"},
    {REPLICA_KIND_SYMLINK, "symlink"},    {REPLICA_KIND_FIFO, "fifo"},
    {REPLICA_KIND_SOCKET, "socket"},      {REPLICA_KIND_CHARACTER_DEVICE, "char"},
    {REPLICA_KIND_BLOCK_DEVICE, "block"},
};
#define KINDS_N (sizeof KINDS / sizeof KINDS[0])

static const char *kind_name(enum replica_kind kind)
{
    for (size_t i = 0; i < KINDS_N; i++)
        if (KINDS[i].kind == kind)
            return KINDS[i].name;
    return "file";
}

void api_pack_key(struct replica_buffer *out, const char *key)
{
    replica_pack_cstr(out, key);
}

static void pack_hex(struct replica_buffer *out, const uint8_t *bytes, size_t n)
{
    char text[2 * REPLICA_HASH_SIZE + 1];
    for (size_t i = 0; i < n && i < REPLICA_HASH_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    replica_pack_str(out, text, 2 * n);
}

void api_pack_store_name(struct replica_buffer *out, const struct gossip_member *member,
                         const struct replica_id *store)
{
    const struct gossip_member_record *record = gossip_member_find(member, store);
    char text[33];
    replica_id_format(store, text);
    replica_pack_cstr(out, record != NULL && record->name[0] != '\0' ? record->name : text);
}

static int count_xattr(void *context, const char *name, size_t name_n, const uint8_t *value, size_t n)
{
    (void)name;
    (void)name_n;
    (void)value;
    (void)n;
    ++*(size_t *)context;
    return 0;
}

static int pack_xattr(void *context, const char *name, size_t name_n, const uint8_t *value, size_t n)
{
    replica_pack_str(context, name, name_n);
    replica_pack_bin(context, value, n);
    return 0;
}

static void pack_bytes(struct replica_buffer *out, struct replica_contents *contents,
                       const struct replica_entry *entry)
{
    bool is_content = entry->kind == REPLICA_KIND_FILE && entry->blob.kind == REPLICA_BLOB_CONTENT;
    api_pack_key(out, "content");
    if (is_content)
        pack_hex(out, entry->blob.content.root, REPLICA_HASH_SIZE);
    else
        replica_pack_nil(out);
    api_pack_key(out, "complete");
    replica_pack_bool(out, !is_content || replica_contents_state(contents, &entry->blob.content) >=
                                              REPLICA_CONTENTS_FILLED);
}

static void pack_kind_specific(struct replica_buffer *out, const struct replica_entry *entry)
{
    if (entry->kind == REPLICA_KIND_SYMLINK) {
        api_pack_key(out, "target");
        replica_pack_str(out, entry->target, entry->target_size);
    } else if (entry->kind == REPLICA_KIND_CHARACTER_DEVICE || entry->kind == REPLICA_KIND_BLOCK_DEVICE) {
        api_pack_key(out, "major");
        replica_pack_uint(out, entry->major);
        api_pack_key(out, "minor");
        replica_pack_uint(out, entry->minor);
    }
}

void api_pack_entry(struct replica_buffer *out, struct replica_contents *contents, const char *key,
                    struct replica_path path, const struct replica_version *version)
{
    const struct replica_entry *entry = &version->entry;
    uint8_t stamp[REPLICA_STAMP_SIZE];
    size_t xattrs = 0;
    bool is_device = entry->kind == REPLICA_KIND_CHARACTER_DEVICE || entry->kind == REPLICA_KIND_BLOCK_DEVICE;
    replica_pack_map(out, 13u + (entry->kind == REPLICA_KIND_SYMLINK) + 2u * is_device);
    api_pack_key(out, key);
    replica_pack_str(out, path.text, path.size);
    api_pack_key(out, "kind");
    replica_pack_cstr(out, kind_name(entry->kind));
    api_pack_key(out, "mode");
    replica_pack_uint(out, entry->mode);
    api_pack_key(out, "uid");
    replica_pack_uint(out, entry->uid);
    api_pack_key(out, "gid");
    replica_pack_uint(out, entry->gid);
    api_pack_key(out, "mtime_ns");
    replica_pack_int(out, entry->mtime_ns);
    api_pack_key(out, "size");
    replica_pack_uint(out, entry->kind == REPLICA_KIND_FILE      ? entry->size
                           : entry->kind == REPLICA_KIND_SYMLINK ? entry->target_size
                                                                 : 0);
    api_pack_key(out, "links");
    replica_pack_uint(out, version->links > 0 ? version->links : 1);
    api_pack_key(out, "object");
    if (replica_id_is_zero(&version->object))
        replica_pack_nil(out);
    else
        replica_pack_id(out, &version->object);
    api_pack_key(out, "stamp");
    replica_stamp_encode(&version->stamp, stamp);
    pack_hex(out, stamp, sizeof stamp);
    pack_bytes(out, contents, entry);
    api_pack_key(out, "xattrs");
    (void)replica_entry_each_xattr(entry, count_xattr, &xattrs);
    replica_pack_map(out, xattrs);
    (void)replica_entry_each_xattr(entry, pack_xattr, out);
    pack_kind_specific(out, entry);
}

static int refuse(struct api_call *call, const char *path, const char *key, const char *what)
{
    api_fail(call, REPLICA_E_INVALID, "%s: %s: `%s` must be %s", call->method->name, path, key, what);
    return REPLICA_E_INVALID;
}

static int read_number(struct api_call *call, const char *path, const struct replica_pack_reader *map,
                       const char *key, uint32_t max, uint32_t *ret_value)
{
    struct replica_pack_reader reader;
    uint64_t value;
    char what[64];
    if (!api_map_find(map, key, &reader))
        return 0;
    if (replica_pack_read_uint(&reader, max, &value) == 0) {
        *ret_value = (uint32_t)value;
        return 0;
    }
    snprintf(what, sizeof what, "a whole number from 0 to %u", max);
    return refuse(call, path, key, what);
}

static int read_kind(struct api_call *call, const char *path, const struct replica_pack_reader *map,
                     struct replica_entry *entry)
{
    struct replica_pack_reader reader;
    const char *text;
    size_t n;
    if (!api_map_find(map, "kind", &reader))
        return 0;
    if (replica_pack_read_str(&reader, 32, &text, &n) == 0)
        for (size_t i = 0; i < KINDS_N; i++)
            if (n == strlen(KINDS[i].name) && memcmp(text, KINDS[i].name, n) == 0) {
                entry->kind = KINDS[i].kind;
                return 0;
            }
    return refuse(call, path, "kind", "one of file, directory, symlink, fifo, socket, char, block");
}

static int compare_names(const void *a, const void *b)
{
    const struct {
        const char *text;
        size_t n;
    } *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order != 0 ? order : (x->n > y->n) - (x->n < y->n);
}

/* Sorted by name, so that the same attributes are the same entry in whatever order they came. */
static int read_xattrs(struct api_call *call, const char *path, const struct replica_pack_reader *map,
                       struct replica_entry *entry, struct replica_buffer *xattrs)
{
    struct {
        const char *text;
        size_t n;
        const uint8_t *value;
        size_t value_n;
    } items[REPLICA_XATTRS_MAX];
    struct replica_pack_reader reader;
    size_t n;
    if (!api_map_find(map, "xattrs", &reader))
        return 0;
    replica_pack_read_map(&reader, REPLICA_XATTRS_MAX, &n);
    for (size_t i = 0; i < n; i++) {
        replica_pack_read_str(&reader, REPLICA_XATTR_NAME_MAX, &items[i].text, &items[i].n);
        replica_pack_read_bin(&reader, REPLICA_XATTR_VALUE_MAX, &items[i].value, &items[i].value_n);
    }
    if (reader.failed)
        return refuse(call, path, "xattrs",
                      "a map of at most 64 names (255 bytes each) to binary values (16 KiB each)");
    qsort(items, n, sizeof items[0], compare_names);
    replica_buffer_clear(xattrs);
    replica_pack_array(xattrs, 2 * n);
    for (size_t i = 0; i < n; i++) {
        replica_pack_str(xattrs, items[i].text, items[i].n);
        replica_pack_bin(xattrs, items[i].value, items[i].value_n);
    }
    if (xattrs->failed || xattrs->size > REPLICA_XATTRS_SIZE_MAX) {
        api_fail(call, REPLICA_E_TOOBIG, "%s: the extended attributes of one file have at most %d KiB", path,
                 REPLICA_XATTRS_SIZE_MAX / 1024);
        return REPLICA_E_TOOBIG;
    }
    entry->xattrs = n > 0 ? xattrs->data : NULL;
    entry->xattrs_size = n > 0 ? xattrs->size : 0;
    return 0;
}

int api_read_entry(struct api_call *call, const char *path, const struct replica_pack_reader *map,
                   struct replica_entry *entry, struct replica_buffer *xattrs)
{
    struct replica_pack_reader reader;
    int code = read_kind(call, path, map, entry);
    if (code == 0)
        code = read_number(call, path, map, "mode", 07777, &entry->mode);
    if (code == 0)
        code = read_number(call, path, map, "uid", UINT32_MAX, &entry->uid);
    if (code == 0)
        code = read_number(call, path, map, "gid", UINT32_MAX, &entry->gid);
    if (code == 0)
        code = read_number(call, path, map, "major", UINT32_MAX, &entry->major);
    if (code == 0)
        code = read_number(call, path, map, "minor", UINT32_MAX, &entry->minor);
    if (code == 0 && api_map_find(map, "mtime_ns", &reader) &&
        replica_pack_read_int(&reader, &entry->mtime_ns) != 0)
        code = refuse(call, path, "mtime_ns", "a whole number");
    if (code == 0 && api_map_find(map, "target", &reader) &&
        replica_pack_read_str(&reader, REPLICA_SYMLINK_MAX, &entry->target, &entry->target_size) != 0)
        code = refuse(call, path, "target", "a string of at most 4096 bytes");
    return code == 0 ? read_xattrs(call, path, map, entry, xattrs) : code;
}
