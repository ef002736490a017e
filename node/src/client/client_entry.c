/* Entries, both ways. */
#include "client/client.h"

#include <stdlib.h>
#include <string.h>

/* More than any node allows: a guard against an answer that claims more than it holds. */
#define XATTRS_MAX 1024

static const char *const KINDS[] = {
    [REMORA_FILE] = "file",   [REMORA_DIRECTORY] = "directory", [REMORA_SYMLINK] = "symlink",
    [REMORA_FIFO] = "fifo",   [REMORA_SOCKET] = "socket",       [REMORA_CHAR] = "char",
    [REMORA_BLOCK] = "block",
};
#define KINDS_N (sizeof KINDS / sizeof KINDS[0])

void remora_entry_free(struct remora_entry *entry)
{
    for (size_t i = 0; i < entry->xattrs_n; i++) {
        free(entry->xattrs[i].name);
        free(entry->xattrs[i].value);
    }
    free(entry->xattrs);
    free(entry->path);
    free(entry->target);
    memset(entry, 0, sizeof *entry);
    entry->fd = -1;
}

/* To the node */

static void pack_number(struct replica_buffer *out, const char *key, uint64_t value)
{
    client_pack_key(out, key);
    replica_pack_uint(out, value);
}

static void pack_bytes(struct replica_buffer *out, const struct remora_entry *entry, size_t fd_index)
{
    if (entry->data != NULL) {
        client_pack_key(out, "data");
        replica_pack_bin(out, entry->data, (size_t)entry->size);
    } else if (entry->fd >= 0 && entry->size > 0) {
        pack_number(out, "fd", fd_index);
    } else {
        pack_number(out, "size", 0);
    }
}

void client_pack_entry(struct replica_buffer *out, const struct remora_entry *entry, size_t fd_index)
{
    bool device = entry->kind == REMORA_CHAR || entry->kind == REMORA_BLOCK;
    replica_pack_map(out, 7u + (entry->kind == REMORA_FILE) + (entry->target != NULL) + 2u * device);
    client_pack_path(out, "path", entry->path);
    client_pack_path(out, "kind",
                     entry->kind < KINDS_N && KINDS[entry->kind] != NULL ? KINDS[entry->kind] : "");
    pack_number(out, "mode", entry->mode);
    pack_number(out, "uid", entry->uid);
    pack_number(out, "gid", entry->gid);
    client_pack_key(out, "mtime_ns");
    replica_pack_int(out, entry->mtime_ns);
    client_pack_key(out, "xattrs");
    replica_pack_map(out, entry->xattrs_n);
    for (size_t i = 0; i < entry->xattrs_n; i++) {
        replica_pack_cstr(out, entry->xattrs[i].name);
        replica_pack_bin(out, entry->xattrs[i].value, entry->xattrs[i].size);
    }
    if (entry->kind == REMORA_FILE)
        pack_bytes(out, entry, fd_index);
    if (entry->target != NULL)
        client_pack_path(out, "target", entry->target);
    if (device) {
        pack_number(out, "major", entry->major);
        pack_number(out, "minor", entry->minor);
    }
}

/* From the node. Missing keys leave zero, as an older node may not know them. */

static int read_text(const struct replica_pack_reader *map, const char *key, char **ret_text)
{
    struct replica_pack_reader value;
    const char *text;
    size_t n;
    if (!client_map_find(map, key, &value))
        return 0;
    if (replica_pack_read_str(&value, FRAME_SIZE_MAX, &text, &n) != 0)
        return REPLICA_E_MALFORMED;
    free(*ret_text);
    *ret_text = strndup(text, n);
    return *ret_text == NULL ? REPLICA_E_NOMEM : 0;
}

static int read_short(const struct replica_pack_reader *map, const char *key, char *ret_text, size_t size)
{
    struct replica_pack_reader value;
    const char *text;
    size_t n;
    if (!client_map_find(map, key, &value))
        return 0;
    if (replica_pack_read_str(&value, size - 1, &text, &n) != 0)
        return REPLICA_E_MALFORMED;
    memcpy(ret_text, text, n);
    ret_text[n] = '\0';
    return 0;
}

static int read_number(const struct replica_pack_reader *map, const char *key, uint32_t *ret_value)
{
    struct replica_pack_reader value;
    uint64_t number;
    if (!client_map_find(map, key, &value))
        return 0;
    if (replica_pack_read_uint(&value, UINT32_MAX, &number) != 0)
        return REPLICA_E_MALFORMED;
    *ret_value = (uint32_t)number;
    return 0;
}

static int read_kind(const struct replica_pack_reader *map, enum remora_kind *ret_kind)
{
    char text[16] = "";
    int code = read_short(map, "kind", text, sizeof text);
    for (size_t i = 1; code == 0 && i < KINDS_N; i++)
        if (strcmp(KINDS[i], text) == 0) {
            *ret_kind = (enum remora_kind)i;
            return 0;
        }
    return REPLICA_E_MALFORMED;
}

static int read_xattrs(const struct replica_pack_reader *map, struct remora_entry *entry)
{
    struct replica_pack_reader reader;
    size_t n;
    if (!client_map_find(map, "xattrs", &reader))
        return 0;
    if (replica_pack_read_map(&reader, XATTRS_MAX, &n) != 0)
        return REPLICA_E_MALFORMED;
    entry->xattrs = n == 0 ? NULL : calloc(n, sizeof *entry->xattrs);
    if (n > 0 && entry->xattrs == NULL)
        return REPLICA_E_NOMEM;
    for (; entry->xattrs_n < n; entry->xattrs_n++) {
        struct remora_xattr *xattr = &entry->xattrs[entry->xattrs_n];
        const uint8_t *data;
        const char *name;
        size_t name_n, data_n;
        replica_pack_read_str(&reader, FRAME_SIZE_MAX, &name, &name_n);
        if (replica_pack_read_bin(&reader, FRAME_SIZE_MAX, &data, &data_n) != 0)
            return REPLICA_E_MALFORMED;
        xattr->name = strndup(name, name_n);
        xattr->value = malloc(data_n > 0 ? data_n : 1);
        if (xattr->name == NULL || xattr->value == NULL) {
            free(xattr->name);
            free(xattr->value);
            return REPLICA_E_NOMEM;
        }
        if (data_n > 0)
            memcpy(xattr->value, data, data_n);
        xattr->size = data_n;
    }
    return 0;
}

static int read_rest(const struct replica_pack_reader *map, struct remora_entry *entry)
{
    struct replica_pack_reader value;
    struct replica_id object;
    if (client_map_find(map, "mtime_ns", &value) && replica_pack_read_int(&value, &entry->mtime_ns) != 0)
        return REPLICA_E_MALFORMED;
    if (client_map_find(map, "size", &value) && replica_pack_read_uint(&value, UINT64_MAX, &entry->size) != 0)
        return REPLICA_E_MALFORMED;
    if (client_map_find(map, "complete", &value) && replica_pack_read_bool(&value, &entry->complete) != 0)
        return REPLICA_E_MALFORMED;
    if (client_map_find(map, "object", &value)) {
        if (replica_pack_read_id(&value, &object) != 0)
            return REPLICA_E_MALFORMED;
        entry->has_object = true;
        memcpy(entry->object, object.bytes, sizeof entry->object);
    }
    return read_xattrs(map, entry);
}

int client_read_entry(struct replica_pack_reader *reader, struct remora_entry *ret_entry)
{
    struct replica_pack_reader map = *reader;
    struct remora_entry entry;
    int code;
    memset(&entry, 0, sizeof entry);
    entry.fd = -1;
    entry.links = 1;
    code = replica_pack_peek(reader) == REPLICA_PACK_MAP ? replica_pack_skip(reader) : REPLICA_E_MALFORMED;
    if (code == 0)
        code = read_text(&map, "path", &entry.path);
    if (code == 0)
        code = read_text(&map, "name", &entry.path);
    if (code == 0)
        code = read_text(&map, "target", &entry.target);
    if (code == 0)
        code = read_kind(&map, &entry.kind);
    if (code == 0)
        code = read_number(&map, "mode", &entry.mode);
    if (code == 0)
        code = read_number(&map, "uid", &entry.uid);
    if (code == 0)
        code = read_number(&map, "gid", &entry.gid);
    if (code == 0)
        code = read_number(&map, "major", &entry.major);
    if (code == 0)
        code = read_number(&map, "minor", &entry.minor);
    if (code == 0)
        code = read_number(&map, "links", &entry.links);
    if (code == 0)
        code = read_short(&map, "content", entry.content, sizeof entry.content);
    if (code == 0)
        code = read_short(&map, "stamp", entry.stamp, sizeof entry.stamp);
    if (code == 0)
        code = read_rest(&map, &entry);
    if (code == 0 && entry.path == NULL)
        code = REPLICA_E_MALFORMED;
    if (code != 0) {
        remora_entry_free(&entry);
        return code;
    }
    *ret_entry = entry;
    return 0;
}
