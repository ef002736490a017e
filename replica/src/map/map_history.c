/* Every version that is kept of a path, and which of them are lost. */
#include "map/map.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define VERSIONS_MAX 10000 /* of one path, looked at together; older ones are left out */

struct versions {
    struct replica_version *items;
    size_t n;
};

static void close_versions(struct versions *versions)
{
    for (size_t i = 0; i < versions->n; i++)
        replica_version_close(&versions->items[i]);
    free(versions->items);
}

static int add_version(struct versions *versions, const uint8_t *data, size_t n, uint64_t seq)
{
    if (versions->n % 16 == 0) {
        struct replica_version *items = realloc(versions->items, (versions->n + 16) * sizeof *items);
        if (items == NULL)
            return REPLICA_E_NOMEM;
        versions->items = items;
    }
    replica_version_init(&versions->items[versions->n]);
    versions->items[versions->n].apply_seq = seq;
    return map_version_decode(data, n, &versions->items[versions->n++]);
}

static int collect(const struct replica_map *map, char prefix, size_t suffix,
                   const struct replica_target_name *name, struct versions *versions)
{
    struct replica_kv_cursor *cursor;
    struct map_key key;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    if (rv != 0)
        return rv;
    map_key_start(&key, prefix, &map->volume);
    map_key_append_target(&key, name);
    map_key_append(&key, "", 1);
    for (replica_kv_cursor_seek(cursor, key.bytes, key.size);
         rv == 0 && replica_kv_cursor_valid(cursor) && versions->n < VERSIONS_MAX;
         replica_kv_cursor_next(cursor)) {
        const uint8_t *at, *value;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &at, &n);
        if (n != key.size + suffix || memcmp(at, key.bytes, key.size) != 0)
            break;
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = add_version(versions, value, value_n, suffix == 8 ? ~replica_u64_decode(at + key.size) : 0);
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

static int newest_first(const void *a, const void *b)
{
    return -replica_stamp_compare(&((const struct replica_version *)a)->stamp,
                                  &((const struct replica_version *)b)->stamp);
}

static bool is_base(const struct versions *versions, const struct replica_stamp *stamp)
{
    for (size_t i = 0; i < versions->n; i++)
        if (replica_stamp_compare(&versions->items[i].base, stamp) == 0)
            return true;
    return false;
}

static int gather(const struct replica_map *map, const struct replica_target_name *name,
                  struct versions *versions)
{
    int rv = collect(map, 'e', 8, name, versions);
    if (rv == 0)
        rv = collect(map, 'f', REPLICA_STAMP_SIZE, name, versions);
    if (rv != 0 || versions->n == 0)
        return rv;
    qsort(versions->items, versions->n, sizeof versions->items[0], newest_first);
    for (size_t i = 1; i < versions->n; i++) /* the first is the winner */
        versions->items[i].lost =
            !versions->items[i].tombstone && !is_base(versions, &versions->items[i].stamp);
    return 0;
}

int replica_map_history(const struct replica_map *map, struct replica_path path,
                        int (*visit)(void *context, const struct replica_version *version), void *context)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = path};
    struct versions versions = {NULL, 0};
    int rv = gather(map, &name, &versions);
    for (size_t i = 0; i < versions.n && rv == 0; i++)
        rv = visit(context, &versions.items[i]);
    close_versions(&versions);
    return rv;
}

/* What the commit wrote, or (object) the newest that is not newer than `upto`, moved into ret_version. */
static int take_version(const struct replica_map *map, const struct replica_target_name *name,
                        const struct replica_id *commit, const struct replica_stamp *upto,
                        struct replica_version *ret_version)
{
    struct versions versions = {NULL, 0};
    int rv = gather(map, name, &versions), found = REPLICA_E_NOTFOUND;
    for (size_t i = 0; i < versions.n && rv == 0 && found != 0; i++) {
        struct replica_version *version = &versions.items[i];
        if (upto != NULL ? replica_stamp_compare(&version->stamp, upto) > 0
                         : !replica_id_equal(&version->stamp.commit, commit))
            continue;
        replica_version_close(ret_version);
        *ret_version = *version;
        replica_version_init(version);
        found = 0;
    }
    close_versions(&versions);
    return rv != 0 ? rv : found;
}

int replica_map_version_by(const struct replica_map *map, struct replica_path path,
                           const struct replica_id *commit, struct replica_version *ret_version)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = path},
                               object = {.target = REPLICA_TARGET_OBJECT};
    struct replica_stamp stamp;
    bool lost;
    int rv = take_version(map, &name, commit, NULL, ret_version);
    if (rv != 0 || ret_version->tombstone || ret_version->entry.kind != REPLICA_KIND_LINK)
        return rv;
    object.object = ret_version->entry.object;
    stamp = ret_version->stamp;
    lost = ret_version->lost;
    rv = take_version(map, &object, commit, NULL, ret_version);
    lost = lost || (rv == 0 && ret_version->lost);
    if (rv == REPLICA_E_NOTFOUND)
        rv = take_version(map, &object, commit, &stamp, ret_version);
    ret_version->stamp = stamp;
    ret_version->lost = lost;
    ret_version->object = object.object;
    return rv;
}

typedef int (*lost_visit_fn)(void *context, struct replica_path path, const struct replica_version *version);

static int visit_lost(const struct replica_map *map, const struct replica_target_name *name,
                      lost_visit_fn visit, void *context)
{
    struct versions versions = {NULL, 0};
    int rv = gather(map, name, &versions);
    for (size_t i = 0; i < versions.n && rv == 0; i++)
        if (versions.items[i].lost)
            rv = visit(context, name->path, &versions.items[i]);
    close_versions(&versions);
    return rv;
}

/* Visits the targets named behind a prefix that are paths. */
static int each_target(const struct replica_map *map, const struct map_key *prefix, bool all,
                       lost_visit_fn visit, void *context)
{
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    if (rv != 0)
        return rv;
    for (replica_kv_cursor_seek(cursor, prefix->bytes, prefix->size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        char text[REPLICA_PATH_MAX + 1];
        struct replica_target_name name;
        const uint8_t *key;
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n <= prefix->size || memcmp(key, prefix->bytes, prefix->size) != 0)
            break;
        rv = map_key_parse_target(key + prefix->size, n - prefix->size, text, &name);
        if (rv == 0 && name.target == REPLICA_TARGET_PATH)
            rv = all ? visit_lost(map, &name, visit, context) : visit(context, name.path, NULL);
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

int replica_map_lost(const struct replica_map *map, lost_visit_fn visit, void *context)
{
    struct map_key prefix;
    map_key_start(&prefix, 'x', &map->volume);
    return each_target(map, &prefix, true, visit, context);
}

int replica_map_lost_by(const struct replica_map *map, const struct replica_id *commit, lost_visit_fn visit,
                        void *context)
{
    struct map_key prefix;
    map_key_start(&prefix, 'j', &map->volume);
    map_key_append(&prefix, commit->bytes, sizeof commit->bytes);
    return each_target(map, &prefix, false, visit, context);
}
