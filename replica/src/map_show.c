/* What users see of the merged state: revived directories, aliases, link objects. */
#include "map.h"

#include "replica/error.h"

#include <stdio.h>
#include <string.h>

#define ALIAS_MARK   ".remora-"
#define ALIAS_SUFFIX (sizeof ALIAS_MARK - 1 + 8)
#define LINKS_MAX    65000 /* counted at most: as ext4 allows */

static void default_directory(struct replica_version *version)
{
    replica_version_close(version);
    version->entry.kind = REPLICA_KIND_DIRECTORY;
    version->entry.mode = 0755;
    version->links = 1;
}

static void make_alias(struct replica_path name, const struct replica_stamp *stamp, char ret_name[REPLICA_NAME_MAX + 1])
{
    size_t keep = name.size < REPLICA_NAME_MAX - ALIAS_SUFFIX ? name.size : REPLICA_NAME_MAX - ALIAS_SUFFIX;
    memcpy(ret_name, name.text, keep);
    snprintf(ret_name + keep, ALIAS_SUFFIX + 1, ALIAS_MARK "%02x%02x%02x%02x", stamp->commit.bytes[0], stamp->commit.bytes[1],
             stamp->commit.bytes[2], stamp->commit.bytes[3]);
}

static bool looks_like_alias(struct replica_path name)
{
    return name.size > ALIAS_SUFFIX && memcmp(name.text + name.size - ALIAS_SUFFIX, ALIAS_MARK, sizeof ALIAS_MARK - 1) == 0;
}

static int count_links(const struct replica_map *map, struct replica_kv_cursor *cursor, const struct replica_id *object, uint64_t seq,
                       uint32_t *ret_n)
{
    struct map_key prefix;
    uint8_t last[sizeof prefix.bytes];
    size_t last_n = 0;
    uint32_t links = 0;
    map_key_start(&prefix, 'n', &map->volume);
    map_key_append(&prefix, object->bytes, sizeof object->bytes);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size); replica_kv_cursor_valid(cursor) && links < LINKS_MAX;
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || n > sizeof last || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        if (~replica_u64_decode(key + n - 8) > seq || (n - 8 == last_n && memcmp(key, last, last_n) == 0))
            continue;
        last_n = n - 8;
        memcpy(last, key, last_n);
        replica_kv_cursor_value(cursor, &value, &value_n);
        links += value_n == 1 && value[0] == 1;
    }
    *ret_n = links;
    return 0;
}

/* A name of a link object is shown with the object's entry. Errors: NOTFOUND: the object is gone. */
static int show_link(const struct replica_map *map, struct replica_kv_cursor *cursor, uint64_t seq, struct replica_version *version)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_OBJECT, .object = version->entry.object};
    struct replica_stamp stamp = version->stamp;
    uint32_t links;
    int rv = count_links(map, cursor, &name.object, seq, &links);
    if (rv == 0)
        rv = map_get_at(map, cursor, &name, seq, version);
    if (rv == 0 && version->tombstone)
        rv = REPLICA_E_NOTFOUND;
    if (rv != 0)
        return rv;
    if (replica_stamp_compare(&stamp, &version->stamp) > 0)
        version->stamp = stamp;
    version->object = name.object;
    version->links = links;
    return 0;
}

/* What is shown under path itself (parents not considered). aliased: the version is not the one shown under the name, but under its
 * alias. Errors: NOTFOUND. */
static int show(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path, uint64_t seq,
                struct replica_version *version, bool *ret_aliased)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = path};
    bool below;
    int rv = map_get_at(map, cursor, &name, seq, version), found = rv;
    *ret_aliased = false;
    if (rv != 0 && rv != REPLICA_E_NOTFOUND)
        return rv;
    if (found == 0 && !version->tombstone && version->entry.kind == REPLICA_KIND_DIRECTORY)
        return 0;
    if (path.size == 0) { /* the root is always there */
        default_directory(version);
        return 0;
    }
    rv = map_has_below(map, cursor, path, seq, &below);
    if (rv != 0)
        return rv;
    if (found == 0 && !version->tombstone) {
        *ret_aliased = below;
        return version->entry.kind == REPLICA_KIND_LINK ? show_link(map, cursor, seq, version) : 0;
    }
    if (!below)
        return REPLICA_E_NOTFOUND;
    if (found != 0 || version->entry.kind != REPLICA_KIND_DIRECTORY)
        default_directory(version);
    version->tombstone = false;
    return 0;
}

struct find_alias {
    struct replica_path name;
    struct replica_version *version;
    bool found;
};

static int match_alias(void *context, struct replica_path name, const struct replica_version *version)
{
    struct find_alias *find = context;
    if (name.size != find->name.size || memcmp(name.text, find->name.text, name.size) != 0)
        return 0;
    find->found = true;
    replica_buffer_clear(&find->version->bytes);
    if (version->bytes.size > 0 && map_version_decode(version->bytes.data, version->bytes.size, find->version) != 0)
        return REPLICA_E_CORRUPT;
    find->version->apply_seq = version->apply_seq;
    find->version->stamp = version->stamp;
    find->version->object = version->object;
    find->version->links = version->links;
    return 1;
}

/* An alias is rare: found by listing its directory. */
static int lookup_alias(const struct replica_map *map, struct replica_path parent, struct replica_path name, uint64_t seq,
                        struct replica_version *ret_version)
{
    struct find_alias find = {.name = name, .version = ret_version};
    struct replica_path none = {"", 0};
    size_t reads = 0;
    bool more;
    int rv = replica_map_list(map, parent, none, seq, SIZE_MAX, &reads, &more, match_alias, &find);
    if (rv < 0)
        return rv;
    return find.found ? 0 : REPLICA_E_NOTFOUND;
}

/* The version shown under the directory part of a name that is aliased: a directory. */
static int check_parents(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path, uint64_t seq,
                         struct replica_version *scratch)
{
    for (size_t i = 0; i < path.size; i++) {
        struct replica_path parent = {path.text, i};
        bool aliased;
        int rv;
        if (path.text[i] != '/')
            continue;
        rv = show(map, cursor, parent, seq, scratch, &aliased);
        if (rv != 0)
            return rv;
        if (!aliased && scratch->entry.kind != REPLICA_KIND_DIRECTORY)
            return REPLICA_E_NOTDIR;
    }
    return 0;
}

int replica_map_lookup(const struct replica_map *map, struct replica_path path, uint64_t apply_seq, struct replica_version *ret_version)
{
    struct replica_kv_cursor *cursor;
    bool aliased = false;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    if (rv != 0)
        return rv;
    rv = check_parents(map, cursor, path, apply_seq, ret_version);
    if (rv == 0)
        rv = show(map, cursor, path, apply_seq, ret_version, &aliased);
    if (rv == 0 && aliased)
        default_directory(ret_version);
    closed = replica_kv_cursor_close(&cursor);
    if (closed != 0)
        return closed;
    if (rv == REPLICA_E_NOTFOUND) {
        struct replica_path parent, name;
        replica_path_split(path, &parent, &name);
        if (looks_like_alias(name))
            rv = lookup_alias(map, parent, name, apply_seq, ret_version);
    }
    return rv;
}

struct listing {
    const struct replica_map *map;
    struct replica_path dir;
    uint64_t seq;
    size_t max, *reads;
    int (*visit)(void *context, struct replica_path name, const struct replica_version *version);
    void *context;
    struct replica_kv_cursor *inner; /* for shown reads, beside the scan */
};

/* Shows one name, and its alias right behind it. */
static int list_name(struct listing *listing, struct replica_path name, size_t *shown)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2], alias[REPLICA_NAME_MAX + 1];
    struct replica_path path = {text, 0};
    struct replica_version version;
    bool aliased;
    int rv;
    memcpy(text, listing->dir.text, listing->dir.size);
    path.size = listing->dir.size;
    if (path.size > 0)
        text[path.size++] = '/';
    memcpy(text + path.size, name.text, name.size);
    path.size += name.size;
    replica_version_init(&version);
    rv = show(listing->map, listing->inner, path, listing->seq, &version, &aliased);
    *listing->reads += 3;
    if (rv == 0 && aliased) {
        struct replica_version directory;
        replica_version_init(&directory);
        default_directory(&directory);
        rv = listing->visit(listing->context, name, &directory);
        replica_version_close(&directory);
        make_alias(name, &version.stamp, alias);
        name = (struct replica_path){alias, strlen(alias)};
        (*shown)++;
    }
    if (rv == 0) {
        rv = listing->visit(listing->context, name, &version);
        (*shown)++;
    }
    replica_version_close(&version);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int list_names(struct listing *listing, struct replica_kv_cursor *cursor, struct replica_path after, bool *ret_more)
{
    struct map_key key;
    char last[REPLICA_NAME_MAX + 1];
    size_t prefix, last_n = SIZE_MAX, shown = 0;
    int rv = 0;
    if (looks_like_alias(after)) /* shown right behind its name */
        after.size -= ALIAS_SUFFIX;
    map_key_start(&key, 'e', &listing->map->volume);
    map_key_append_path(&key, listing->dir, (struct replica_path){"", 0});
    prefix = key.size;
    map_key_append(&key, after.text, after.size);
    if (after.size > 0)
        map_key_append(&key, "\x01", 1); /* behind every version of it: a version's next byte is 00 */
    *ret_more = false;
    for (replica_kv_cursor_seek(cursor, key.bytes, key.size); rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *at;
        size_t n;
        replica_kv_cursor_key(cursor, &at, &n);
        if (n < prefix + 9 || memcmp(at, key.bytes, prefix) != 0)
            break;
        n -= prefix + 9;
        if (n == 0 || n > REPLICA_NAME_MAX || (n == last_n && memcmp(at + prefix, last, n) == 0))
            continue;
        if (shown >= listing->max) {
            *ret_more = true;
            break;
        }
        memcpy(last, at + prefix, n);
        last_n = n;
        rv = list_name(listing, (struct replica_path){last, n}, &shown);
    }
    return rv;
}

int replica_map_list(const struct replica_map *map, struct replica_path dir, struct replica_path after, uint64_t apply_seq, size_t max,
                     size_t *reads, bool *ret_more,
                     int (*visit)(void *context, struct replica_path name, const struct replica_version *version), void *context)
{
    struct listing listing = {
        .map = map, .dir = dir, .seq = apply_seq, .max = max, .reads = reads, .visit = visit, .context = context};
    struct replica_kv_cursor *cursor;
    struct replica_version version;
    int rv, closed;
    replica_version_init(&version);
    rv = replica_map_lookup(map, dir, apply_seq, &version);
    if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_NOTDIR;
    replica_version_close(&version);
    if (rv != 0)
        return rv;
    rv = replica_kv_cursor_open(map->kv, &cursor);
    if (rv != 0)
        return rv;
    rv = replica_kv_cursor_open(map->kv, &listing.inner);
    if (rv == 0) {
        rv = list_names(&listing, cursor, after, ret_more);
        closed = replica_kv_cursor_close(&listing.inner);
        if (closed != 0)
            rv = closed;
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}
