/* What users see of the merged state: revived directories, aliases, link objects. */
#include "map/map.h"

#include "replica/error.h"

#include <stdio.h>
#include <string.h>

#define ALIAS_MARK   ".remora-"
#define ALIAS_SUFFIX (sizeof ALIAS_MARK - 1 + 8)

void map_default_directory(struct replica_version *version)
{
    replica_version_close(version);
    version->entry.kind = REPLICA_KIND_DIRECTORY;
    version->entry.mode = 0755;
    version->links = 1;
}

static void make_alias(struct replica_path name, const struct replica_stamp *stamp,
                       char ret_name[REPLICA_NAME_MAX + 1])
{
    size_t keep = name.size < REPLICA_NAME_MAX - ALIAS_SUFFIX ? name.size : REPLICA_NAME_MAX - ALIAS_SUFFIX;
    memcpy(ret_name, name.text, keep);
    snprintf(ret_name + keep, ALIAS_SUFFIX + 1, ALIAS_MARK "%02x%02x%02x%02x", stamp->commit.bytes[0],
             stamp->commit.bytes[1], stamp->commit.bytes[2], stamp->commit.bytes[3]);
}

static bool looks_like_alias(struct replica_path name)
{
    return name.size > ALIAS_SUFFIX &&
           memcmp(name.text + name.size - ALIAS_SUFFIX, ALIAS_MARK, sizeof ALIAS_MARK - 1) == 0;
}

int map_each_link(const struct replica_map *map, const struct replica_id *object, uint64_t seq,
                  int (*visit)(void *context, const struct replica_target_name *name), void *context)
{
    struct replica_kv_cursor *cursor;
    struct map_key prefix;
    uint8_t last[sizeof prefix.bytes];
    size_t last_n = 0;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    if (rv != 0)
        return rv;
    map_key_start(&prefix, 'n', &map->volume);
    map_key_append(&prefix, object->bytes, sizeof object->bytes);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        char text[REPLICA_PATH_MAX + 1];
        struct replica_target_name name;
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
        if (value_n != 1 || value[0] != 1)
            continue;
        rv = map_key_parse_target(key + prefix.size, n - prefix.size - 9, text, &name);
        if (rv == 0)
            rv = visit(context, &name);
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

static int count_link(void *context, const struct replica_target_name *name)
{
    uint32_t *links = context;
    (void)name;
    return ++*links >= MAP_LINKS_MAX;
}

/* A name of a link object is shown with the object's entry. Errors: NOTFOUND: the object is gone. */
static int show_link(const struct replica_map *map, struct replica_kv_cursor *cursor, uint64_t seq,
                     struct replica_version *version)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_OBJECT, .object = version->entry.object};
    struct replica_stamp stamp = version->stamp;
    uint32_t links = 0;
    int rv = map_each_link(map, &name.object, seq, count_link, &links);
    if (rv >= 0)
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

/* What is shown under path itself (parents not considered). aliased: the version is not the one shown under
 * the name, but under its alias. Errors: NOTFOUND. */
static int show(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path,
                uint64_t seq, struct replica_version *version, bool *ret_aliased)
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
        map_default_directory(version);
        return 0;
    }
    rv = map_has_below(map, cursor, path, seq, &below);
    if (rv != 0)
        return rv;
    if (found == 0 && !version->tombstone) {
        *ret_aliased = below;
        rv = version->entry.kind == REPLICA_KIND_LINK ? show_link(map, cursor, seq, version) : 0;
        if (rv != REPLICA_E_NOTFOUND)
            return rv;
        *ret_aliased = false; /* the object is gone: only the directory is shown, if there is one */
        found = rv;
    }
    if (!below)
        return REPLICA_E_NOTFOUND;
    if (found != 0 || version->entry.kind != REPLICA_KIND_DIRECTORY)
        map_default_directory(version);
    version->tombstone = false;
    return 0;
}

static int join(struct replica_path dir, const void *name, size_t n,
                char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2], struct replica_path *ret_path)
{
    size_t at = dir.size;
    if (at > 0) {
        memcpy(text, dir.text, at);
        text[at++] = '/';
    }
    memcpy(text + at, name, n);
    *ret_path = (struct replica_path){text, at + n};
    return at + n > REPLICA_PATH_MAX ? REPLICA_E_TOOBIG : 0;
}

/* Whether the name is that of a non-directory which is shown under this alias; version is then what the alias
 * shows. */
static int stands_for(const struct replica_map *map, struct replica_kv_cursor *cursor,
                      struct replica_path dir, struct replica_path name, struct replica_path alias,
                      uint64_t seq, struct replica_version *version)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2], made[REPLICA_NAME_MAX + 1];
    struct replica_path path;
    bool aliased;
    int rv = join(dir, name.text, name.size, text, &path);
    if (rv == 0)
        rv = show(map, cursor, path, seq, version, &aliased);
    if (rv != 0 || !aliased)
        return rv == 0 || rv == REPLICA_E_TOOBIG ? REPLICA_E_NOTFOUND : rv;
    make_alias(name, &version->stamp, made);
    return strlen(made) == alias.size && memcmp(made, alias.text, alias.size) == 0 ? 0 : REPLICA_E_NOTFOUND;
}

/* A name that was cut: it begins with what is left of it. */
static int find_cut(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path dir,
                    struct replica_path alias, uint64_t seq, struct replica_version *version,
                    char ret_base[REPLICA_NAME_MAX + 1], size_t *ret_n)
{
    struct replica_kv_cursor *inner;
    struct map_key key;
    size_t head, last_n = 0;
    int rv = replica_kv_cursor_open(map->kv, &inner), closed;
    if (rv != 0)
        return rv;
    rv = REPLICA_E_NOTFOUND;
    map_key_start(&key, 'e', &map->volume);
    map_key_append_path(&key, dir, (struct replica_path){"", 0});
    head = key.size;
    map_key_append(&key, alias.text, alias.size - ALIAS_SUFFIX);
    for (replica_kv_cursor_seek(cursor, key.bytes, key.size);
         rv == REPLICA_E_NOTFOUND && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *at;
        size_t n;
        replica_kv_cursor_key(cursor, &at, &n);
        if (n < key.size + 9 || memcmp(at, key.bytes, key.size) != 0)
            break;
        n -= head + 9;
        if (n > REPLICA_NAME_MAX || (n == last_n && memcmp(ret_base, at + head, n) == 0))
            continue;
        memcpy(ret_base, at + head, n);
        last_n = *ret_n = n;
        rv = stands_for(map, inner, dir, (struct replica_path){ret_base, n}, alias, seq, version);
    }
    closed = replica_kv_cursor_close(&inner);
    return closed != 0 ? closed : rv;
}

static int find_alias(const struct replica_map *map, struct replica_kv_cursor *cursor,
                      struct replica_path dir, struct replica_path alias, uint64_t seq,
                      struct replica_version *version, char ret_base[REPLICA_NAME_MAX + 1], size_t *ret_n)
{
    int rv;
    if (!looks_like_alias(alias))
        return REPLICA_E_NOTFOUND;
    *ret_n = alias.size - ALIAS_SUFFIX;
    memcpy(ret_base, alias.text, *ret_n);
    rv = stands_for(map, cursor, dir, (struct replica_path){ret_base, *ret_n}, alias, seq, version);
    if (rv == REPLICA_E_NOTFOUND && alias.size == REPLICA_NAME_MAX)
        rv = find_cut(map, cursor, dir, alias, seq, version, ret_base, ret_n);
    return rv;
}

int map_alias_base(const struct replica_map *map, struct replica_path dir, struct replica_path alias,
                   uint64_t seq, char ret_base[REPLICA_NAME_MAX + 1], size_t *ret_n)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_kv_cursor *cursor;
    struct replica_version version;
    struct replica_path path;
    bool aliased;
    int rv, closed;
    if (!looks_like_alias(alias))
        return REPLICA_E_NOTFOUND;
    rv = replica_kv_cursor_open(map->kv, &cursor);
    if (rv != 0)
        return rv;
    replica_version_init(&version);
    rv = join(dir, alias.text, alias.size, text, &path);
    if (rv == 0)
        rv = show(map, cursor, path, seq, &version, &aliased);
    if (rv == REPLICA_E_NOTFOUND)
        rv = find_alias(map, cursor, dir, alias, seq, &version, ret_base, ret_n);
    else if (rv == 0)
        rv = REPLICA_E_NOTFOUND; /* a name of its own */
    replica_version_close(&version);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

/* Nothing is shown under path: the lowest of its parents that is shown tells why. What is shown, is so below directories only: where
 * anything is live, all above it are shown as directories. */
static int why_not(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path path,
                   uint64_t seq, struct replica_version *scratch)
{
    struct replica_path name;
    while (path.size > 0) {
        bool aliased;
        int rv;
        replica_path_split(path, &path, &name);
        rv = show(map, cursor, path, seq, scratch, &aliased);
        if (rv == 0)
            return aliased || scratch->entry.kind == REPLICA_KIND_DIRECTORY ? REPLICA_E_NOTFOUND
                                                                            : REPLICA_E_NOTDIR;
        if (rv != REPLICA_E_NOTFOUND)
            return rv;
    }
    return REPLICA_E_NOTFOUND;
}

int replica_map_lookup(const struct replica_map *map, struct replica_path path, uint64_t apply_seq,
                       struct replica_version *ret_version)
{
    struct replica_kv_cursor *cursor;
    bool aliased = false;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    if (rv != 0)
        return rv;
    rv = show(map, cursor, path, apply_seq, ret_version, &aliased);
    if (rv == 0 && aliased)
        map_default_directory(ret_version);
    if (rv == REPLICA_E_NOTFOUND) {
        char base[REPLICA_NAME_MAX + 1];
        struct replica_path parent, name;
        size_t n;
        replica_path_split(path, &parent, &name);
        rv = find_alias(map, cursor, parent, name, apply_seq, ret_version, base, &n);
    }
    if (rv == REPLICA_E_NOTFOUND)
        rv = why_not(map, cursor, path, apply_seq, ret_version);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

struct listing {
    const struct replica_map *map;
    struct replica_path dir;
    uint64_t seq;
    size_t max, shown, looks, *reads;
    struct map_place *place;
    bool more;       /* an alias did not fit any more */
    bool alias_seen; /* of the name in hand */
    map_list_fn visit;
    void *context;
    struct replica_kv_cursor *inner; /* for shown reads, beside the scan */
};

static int list_alias(struct listing *listing, struct replica_path name,
                      const struct replica_version *version)
{
    char alias[REPLICA_NAME_MAX + 1];
    if (listing->shown == listing->max) {
        listing->more = true;
        return 0;
    }
    make_alias(name, &version->stamp, alias);
    listing->shown++;
    listing->alias_seen = true;
    return listing->visit(listing->context, name, (struct replica_path){alias, strlen(alias)}, version);
}

/* Shows one name (unless only its alias is wanted), and its alias right behind it. */
static int list_name(struct listing *listing, struct replica_path name, bool alias_only)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_path path;
    struct replica_version version, directory;
    bool aliased = false;
    int rv = join(listing->dir, name.text, name.size, text, &path);
    if (rv != 0)
        return 0; /* longer than a path can be: nobody made it */
    replica_version_init(&version);
    replica_version_init(&directory);
    rv = show(listing->map, listing->inner, path, listing->seq, &version, &aliased);
    *listing->reads += 3;
    if (rv == 0 && !alias_only) {
        map_default_directory(&directory);
        listing->shown++;
        rv = listing->visit(listing->context, name, name, aliased ? &directory : &version);
    }
    if (rv == 0 && aliased)
        rv = list_alias(listing, name, &version);
    replica_version_close(&directory);
    replica_version_close(&version);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

/* rv: of showing the name; if it was stopped, its alias may be next. */
static void set_place(struct listing *listing, struct replica_path name, int rv)
{
    memcpy(listing->place->name, name.text, name.size);
    listing->place->n = name.size;
    listing->place->passed = listing->alias_seen || (rv == 0 && !listing->more);
    listing->alias_seen = false;
}

static int list_names(struct listing *listing, struct replica_kv_cursor *cursor, struct replica_path after,
                      bool *ret_more)
{
    struct map_key key;
    char last[REPLICA_NAME_MAX + 1];
    size_t prefix, last_n = SIZE_MAX;
    int rv = 0;
    map_key_start(&key, 'e', &listing->map->volume);
    map_key_append_path(&key, listing->dir, (struct replica_path){"", 0});
    prefix = key.size;
    map_key_append(&key, after.text, after.size);
    if (after.size > 0)
        map_key_append(&key, "\x01", 1); /* behind every version of it: a version's next byte is 00 */
    *ret_more = false;
    for (replica_kv_cursor_seek(cursor, key.bytes, key.size);
         rv == 0 && !listing->more && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *at;
        size_t n;
        replica_kv_cursor_key(cursor, &at, &n);
        if (n < prefix + 9 || memcmp(at, key.bytes, prefix) != 0)
            break;
        n -= prefix + 9;
        if (n == 0 || n > REPLICA_NAME_MAX || (n == last_n && memcmp(at + prefix, last, n) == 0))
            continue;
        if (listing->shown >= listing->max || listing->looks == 0) {
            listing->more = true;
            break;
        }
        listing->looks--;
        memcpy(last, at + prefix, n);
        last_n = n;
        rv = list_name(listing, (struct replica_path){last, n}, false);
        set_place(listing, (struct replica_path){last, n}, rv);
    }
    *ret_more = listing->more;
    return rv;
}

/* Goes on after a name or an alias. */
static int list_after(struct listing *listing, struct replica_kv_cursor *cursor, bool *ret_more)
{
    char base[REPLICA_NAME_MAX + 1], text[REPLICA_NAME_MAX + 1];
    struct replica_path after = {text, listing->place->n};
    size_t n;
    int rv;
    memcpy(text, listing->place->name, after.size);
    if (after.size == 0 || listing->place->passed)
        return list_names(listing, cursor, after, ret_more);
    rv = map_alias_base(listing->map, listing->dir, after, listing->seq, base, &n);
    if (rv == 0)
        return list_names(listing, cursor, (struct replica_path){base, n}, ret_more);
    if (rv == REPLICA_E_NOTFOUND) { /* its alias may be next */
        rv = list_name(listing, after, true);
        set_place(listing, after, rv);
    }
    return rv != 0 ? rv : list_names(listing, cursor, after, ret_more);
}

int map_list_keyed(const struct replica_map *map, struct replica_path dir, struct map_place *place,
                   uint64_t apply_seq, size_t max, size_t looks, size_t *reads, bool *ret_more,
                   map_list_fn visit, void *context)
{
    struct listing listing = {.map = map,
                              .dir = dir,
                              .seq = apply_seq,
                              .max = max,
                              .looks = looks,
                              .place = place,
                              .reads = reads,
                              .visit = visit,
                              .context = context};
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
        rv = list_after(&listing, cursor, ret_more);
        closed = replica_kv_cursor_close(&listing.inner);
        if (closed != 0)
            rv = closed;
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

struct plain {
    int (*visit)(void *context, struct replica_path name, const struct replica_version *version);
    void *context;
};

static int visit_plain(void *context, struct replica_path key, struct replica_path name,
                       const struct replica_version *version)
{
    const struct plain *plain = context;
    (void)key;
    return plain->visit(plain->context, name, version);
}

int replica_map_list(const struct replica_map *map, struct replica_path dir, struct replica_path after,
                     uint64_t apply_seq, size_t max, size_t *reads, bool *ret_more,
                     int (*visit)(void *context, struct replica_path name,
                                  const struct replica_version *version),
                     void *context)
{
    struct plain plain = {visit, context};
    struct map_place place = {.n = after.size};
    if (after.size > REPLICA_NAME_MAX)
        return REPLICA_E_INVALID;
    if (after.size > 0)
        memcpy(place.name, after.text, after.size);
    return map_list_keyed(map, dir, &place, apply_seq, max, SIZE_MAX, reads, ret_more, visit_plain, &plain);
}
