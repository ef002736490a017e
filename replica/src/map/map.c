/* Keys, records, raw reads. */
#include "map/map.h"

#include "replica/error.h"

#include <assert.h>
#include <string.h>

void map_key_append(struct map_key *key, const void *data, size_t n)
{
    assert(key->size + n <= sizeof key->bytes);
    if (n > 0)
        memcpy(key->bytes + key->size, data, n);
    key->size += n;
}

void map_key_start(struct map_key *key, char prefix, const struct replica_id *volume)
{
    key->size = 0;
    map_key_append(key, &prefix, 1);
    map_key_append(key, volume->bytes, sizeof volume->bytes);
}

void map_key_append_inverted(struct map_key *key, uint64_t seq)
{
    uint8_t bytes[9] = {0};
    replica_u64_encode(~seq, bytes + 1);
    map_key_append(key, bytes, sizeof bytes);
}

void map_key_append_path(struct map_key *key, struct replica_path parent, struct replica_path name)
{
    map_key_append(key, "\x01", 1);
    map_key_append(key, parent.text, parent.size);
    map_key_append(key, "", 1);
    map_key_append(key, name.text, name.size);
}

void map_key_append_target(struct map_key *key, const struct replica_target_name *name)
{
    struct replica_path parent, last;
    if (name->target == REPLICA_TARGET_OBJECT) {
        map_key_append(key, "", 1);
        map_key_append(key, name->object.bytes, sizeof name->object.bytes);
        return;
    }
    replica_path_split(name->path, &parent, &last);
    map_key_append_path(key, parent, last);
}

int map_key_parse_target(const uint8_t *bytes, size_t n, char ret_text[REPLICA_PATH_MAX + 1],
                         struct replica_target_name *ret_name)
{
    const uint8_t *split;
    size_t parent_n, name_n;
    memset(ret_name, 0, sizeof *ret_name);
    if (n == 1 + REPLICA_ID_SIZE && bytes[0] == 0) {
        ret_name->target = REPLICA_TARGET_OBJECT;
        memcpy(ret_name->object.bytes, bytes + 1, REPLICA_ID_SIZE);
        return 0;
    }
    if (n < 2 || bytes[0] != 1 || (split = memchr(bytes + 1, 0, n - 1)) == NULL)
        return REPLICA_E_CORRUPT;
    parent_n = (size_t)(split - (bytes + 1));
    name_n = n - 2 - parent_n;
    if (parent_n + 1 + name_n > REPLICA_PATH_MAX)
        return REPLICA_E_CORRUPT;
    memcpy(ret_text, bytes + 1, parent_n);
    ret_name->path.text = ret_text;
    ret_name->path.size = parent_n;
    if (parent_n > 0)
        ret_text[ret_name->path.size++] = '/';
    memcpy(ret_text + ret_name->path.size, split + 1, name_n);
    ret_name->path.size += name_n;
    return 0;
}

void replica_version_init(struct replica_version *version)
{
    memset(version, 0, sizeof *version);
    replica_buffer_init(&version->bytes);
}

void replica_version_close(struct replica_version *version)
{
    replica_buffer_close(&version->bytes);
    replica_version_init(version);
}

void map_version_pack(struct replica_buffer *out, const struct replica_apply *apply,
                      const struct replica_op *op)
{
    bool has_entry = !op->tombstone || op->entry.kind == REPLICA_KIND_DIRECTORY;
    replica_pack_array(out, 6);
    replica_pack_bool(out, op->tombstone);
    replica_pack_stamp(out, &apply->stamp);
    replica_pack_stamp(out, &op->base);
    replica_pack_id(out, &apply->node);
    replica_pack_uint(out, apply->time_ms);
    if (has_entry)
        replica_entry_pack(out, &op->entry);
    else
        replica_pack_nil(out);
}

int map_version_decode(const uint8_t *data, size_t n, struct replica_version *version)
{
    struct replica_pack_reader reader;
    size_t items;
    replica_buffer_clear(&version->bytes);
    if (replica_buffer_append(&version->bytes, data, n) != 0)
        return REPLICA_E_NOMEM;
    version->lost = false;
    memset(&version->object, 0, sizeof version->object);
    memset(&version->entry, 0, sizeof version->entry);
    version->links = 1;
    replica_pack_reader_init(&reader, version->bytes.data, n);
    replica_pack_read_array(&reader, 32, &items);
    replica_pack_read_bool(&reader, &version->tombstone);
    replica_pack_read_stamp(&reader, &version->stamp);
    replica_pack_read_stamp(&reader, &version->base);
    replica_pack_read_id(&reader, &version->node);
    replica_pack_read_uint(&reader, UINT64_MAX, &version->time_ms);
    if (replica_pack_peek(&reader) == REPLICA_PACK_NIL)
        replica_pack_skip(&reader);
    else
        replica_entry_read(&reader, &version->entry);
    return items < 6 || replica_pack_reader_finish(&reader) != 0 ? REPLICA_E_CORRUPT : 0;
}

int map_get_at(const struct replica_map *map, struct replica_kv_cursor *cursor,
               const struct replica_target_name *name, uint64_t seq, struct replica_version *ret_version)
{
    struct map_key key;
    const uint8_t *at, *value;
    size_t prefix, n, value_n;
    map_key_start(&key, 'e', &map->volume);
    map_key_append_target(&key, name);
    prefix = key.size + 1;
    map_key_append_inverted(&key, seq);
    replica_kv_cursor_seek(cursor, key.bytes, key.size);
    if (!replica_kv_cursor_valid(cursor))
        return REPLICA_E_NOTFOUND;
    replica_kv_cursor_key(cursor, &at, &n);
    if (n != prefix + 8 || memcmp(at, key.bytes, prefix) != 0)
        return REPLICA_E_NOTFOUND;
    ret_version->apply_seq = ~replica_u64_decode(at + prefix);
    replica_kv_cursor_value(cursor, &value, &value_n);
    return map_version_decode(value, value_n, ret_version);
}

int replica_map_get(const struct replica_map *map, const struct replica_kv_batch *pending,
                    const struct replica_target_name *name, uint64_t apply_seq,
                    struct replica_version *ret_version)
{
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    (void)pending;
    if (rv != 0)
        return rv;
    rv = map_get_at(map, cursor, name, apply_seq, ret_version);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

static int object_is_live(const struct replica_map *map, const struct replica_id *object, uint64_t seq,
                          bool *ret_live)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_OBJECT, .object = *object};
    struct replica_version version;
    int rv;
    replica_version_init(&version);
    rv = replica_map_get(map, NULL, &name, seq, &version);
    *ret_live = rv == 0 && !version.tombstone;
    replica_version_close(&version);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

/* Visits the targets under a prefix that are live at seq; EXHAUSTED after that many keys. */
#define EXHAUSTED 2
static int visit_live(const struct replica_map *map, struct replica_kv_cursor *cursor,
                      const struct map_key *prefix, uint64_t seq, size_t keys_max, map_live_fn visit,
                      void *context)
{
    struct replica_version version;
    uint8_t last[sizeof prefix->bytes];
    size_t last_n = 0;
    int rv = 0;
    replica_version_init(&version);
    for (replica_kv_cursor_seek(cursor, prefix->bytes, prefix->size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        char text[REPLICA_PATH_MAX + 1];
        struct replica_target_name name;
        const uint8_t *key, *value;
        size_t n, value_n;
        bool live;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix->size + 9 || n > sizeof last || memcmp(key, prefix->bytes, prefix->size) != 0)
            break;
        if (keys_max-- == 0) {
            rv = EXHAUSTED;
            break;
        }
        if (~replica_u64_decode(key + n - 8) > seq || (n - 8 == last_n && memcmp(key, last, last_n) == 0))
            continue; /* too new, or older than one that was seen */
        last_n = n - 8;
        memcpy(last, key, last_n);
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = map_version_decode(value, value_n, &version);
        live = rv == 0 && !version.tombstone;
        if (live && version.entry.kind == REPLICA_KIND_LINK)
            rv = object_is_live(map, &version.entry.object, seq, &live);
        if (rv == 0 && live)
            rv = map_key_parse_target(last + 1 + REPLICA_ID_SIZE, last_n - 2 - REPLICA_ID_SIZE, text, &name);
        if (rv == 0 && live)
            rv = visit(context, &name);
    }
    replica_version_close(&version);
    return rv;
}

/* The names of a directory, or (end '/') all that is deeper. */
static void below_prefix(const struct replica_map *map, struct replica_path path, char end,
                         struct map_key *ret_prefix)
{
    map_key_start(ret_prefix, 'e', &map->volume);
    map_key_append(ret_prefix, "\x01", 1);
    map_key_append(ret_prefix, path.text, path.size);
    map_key_append(ret_prefix, &end, 1);
}

int map_each_below(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path,
                   uint64_t seq, map_live_fn visit, void *context)
{
    static const char ends[2] = {'\0', '/'}; /* children, then what is deeper */
    int rv = 0;
    for (size_t i = 0; i < 2 && rv == 0; i++) {
        struct map_key prefix;
        below_prefix(map, path, ends[i], &prefix);
        rv = visit_live(map, cursor, &prefix, seq, SIZE_MAX, visit, context);
    }
    return rv;
}

static int found_one(void *context, const struct replica_target_name *name)
{
    (void)context;
    (void)name;
    return 1;
}

/* Keys of one directory that are looked through for a live name where its count says that there is one. Only if all live names are links
 * of objects that are gone is there none after all: beyond this, the count is believed. */
#define HAS_KEYS_MAX 1000

/* What is counted is there, unless it is a name of an object that is gone. */
static int check_counted(const struct replica_map *map, struct replica_kv_cursor *cursor,
                         struct replica_path dir, uint64_t seq, bool *ret_has)
{
    struct map_key prefix;
    int rv;
    below_prefix(map, dir, '\0', &prefix);
    rv = visit_live(map, cursor, &prefix, seq, HAS_KEYS_MAX, found_one, NULL);
    *ret_has = rv > 0;
    return rv > 0 ? 0 : rv;
}

/* Directories below, by their counts: as many reads as there are directories, however many names they had. */
static int has_deeper(const struct replica_map *map, struct replica_kv_cursor *cursor,
                      struct replica_path path, uint64_t seq, bool *ret_has)
{
    struct map_key prefix, at;
    size_t head = 1 + REPLICA_ID_SIZE;
    int rv = 0;
    map_key_start(&prefix, 'd', &map->volume);
    map_key_append(&prefix, path.text, path.size);
    map_key_append(&prefix, "/", 1);
    at = prefix;
    while (rv == 0 && !*ret_has) {
        struct replica_path dir;
        const uint8_t *key;
        uint64_t count;
        size_t n;
        replica_kv_cursor_seek(cursor, at.bytes, at.size);
        if (!replica_kv_cursor_valid(cursor))
            break;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || n > sizeof at.bytes || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        at.size = 0;
        map_key_append(&at, key, n - 9);
        dir = (struct replica_path){(const char *)at.bytes + head, at.size - head};
        rv = map_children_at(map, cursor, dir, seq, &count);
        if (rv == 0 && count > 0)
            rv = check_counted(map, cursor, dir, seq, ret_has);
        map_key_append(&at, "\x01", 1); /* behind all its counts: they go on with 00 */
    }
    return rv;
}

int map_has_below(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path,
                  uint64_t seq, bool *ret_has)
{
    uint64_t count;
    int rv = map_children_at(map, cursor, path, seq, &count);
    *ret_has = false;
    if (rv == 0 && count > 0)
        rv = check_counted(map, cursor, path, seq, ret_has);
    return rv != 0 || *ret_has ? rv : has_deeper(map, cursor, path, seq, ret_has);
}

int replica_map_refers(struct replica_kv *kv, const struct replica_id *volume,
                       const struct replica_content_id *content, bool *ret_refers)
{
    uint8_t prefix[1 + REPLICA_CONTENT_ID_SIZE + REPLICA_ID_SIZE] = {'r'};
    size_t prefix_n = 1 + REPLICA_CONTENT_ID_SIZE;
    replica_content_id_encode(content, prefix + 1);
    if (volume != NULL) {
        memcpy(prefix + prefix_n, volume->bytes, REPLICA_ID_SIZE);
        prefix_n += REPLICA_ID_SIZE;
    }
    return replica_kv_has_prefix(kv, prefix, prefix_n, ret_refers);
}

int replica_map_each_volume(struct replica_kv *kv, const struct replica_content_id *content,
                            int (*visit)(void *context, const struct replica_id *volume), void *context)
{
    uint8_t seek[1 + REPLICA_CONTENT_ID_SIZE + REPLICA_ID_SIZE + 1] = {'r'};
    const size_t prefix = 1 + REPLICA_CONTENT_ID_SIZE;
    struct replica_kv_cursor *cursor;
    size_t seek_n = prefix;
    int rv = replica_kv_cursor_open(kv, &cursor), closed;
    if (rv != 0)
        return rv;
    replica_content_id_encode(content, seek + 1);
    while (rv == 0) {
        struct replica_id volume;
        const uint8_t *key;
        size_t n;
        replica_kv_cursor_seek(cursor, seek, seek_n);
        if (!replica_kv_cursor_valid(cursor))
            break;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix + REPLICA_ID_SIZE || memcmp(key, seek, prefix) != 0)
            break;
        memcpy(volume.bytes, key + prefix, REPLICA_ID_SIZE);
        rv = visit(context, &volume);
        memcpy(seek + prefix, volume.bytes, REPLICA_ID_SIZE);
        seek[prefix + REPLICA_ID_SIZE] =
            0xff; /* past every target-key of that volume: they begin with 00 or 01 */
        seek_n = sizeof seek;
    }
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}
