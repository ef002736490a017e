/* The merge: per path, the highest stamp wins. */
#include "map/map.h"

#include "replica/error.h"
#include "replica/merkle.h"

#include <string.h>

void replica_totals_pack(struct replica_buffer *out, const struct replica_totals *totals)
{
    replica_pack_array(out, 5);
    replica_pack_uint(out, totals->inodes);
    replica_pack_uint(out, totals->files);
    replica_pack_uint(out, totals->bytes);
    replica_pack_uint(out, totals->history_bytes);
    replica_pack_bin(out, totals->state_hash, sizeof totals->state_hash);
}

int replica_totals_read(struct replica_pack_reader *reader, struct replica_totals *ret_totals)
{
    const uint8_t *hash;
    size_t n, size;
    memset(ret_totals, 0, sizeof *ret_totals);
    replica_pack_read_array(reader, 5, &n);
    replica_pack_read_uint(reader, UINT64_MAX, &ret_totals->inodes);
    replica_pack_read_uint(reader, UINT64_MAX, &ret_totals->files);
    replica_pack_read_uint(reader, UINT64_MAX, &ret_totals->bytes);
    replica_pack_read_uint(reader, UINT64_MAX, &ret_totals->history_bytes);
    replica_pack_read_bin(reader, REPLICA_HASH_SIZE, &hash, &size);
    if (reader->failed || n != 5 || size != REPLICA_HASH_SIZE) {
        reader->failed = true;
        return REPLICA_E_MALFORMED;
    }
    memcpy(ret_totals->state_hash, hash, size);
    return 0;
}

/* What one live winner adds to the state hash: addition mod 2^256 makes the sum independent of order. */
static void winner_hash(const struct replica_target_name *name, const struct replica_stamp *stamp,
                        const struct replica_entry *entry, struct replica_hash *ret_hash)
{
    struct replica_buffer bytes;
    replica_buffer_init(&bytes);
    replica_pack_uint(&bytes, name->target);
    if (name->target == REPLICA_TARGET_OBJECT)
        replica_pack_id(&bytes, &name->object);
    else
        replica_pack_str(&bytes, name->path.text, name->path.size);
    replica_pack_stamp(&bytes, stamp);
    replica_entry_pack(&bytes, entry);
    replica_hash_bytes(bytes.data, bytes.size, ret_hash);
    replica_buffer_close(&bytes);
}

static void hash_add(uint8_t sum[REPLICA_HASH_SIZE], const struct replica_hash *hash)
{
    unsigned carry = 0;
    for (int i = REPLICA_HASH_SIZE - 1; i >= 0; i--) {
        carry += sum[i] + hash->bytes[i];
        sum[i] = (uint8_t)carry;
        carry >>= 8;
    }
}

static void hash_subtract(uint8_t sum[REPLICA_HASH_SIZE], const struct replica_hash *hash)
{
    int borrow = 0;
    for (int i = REPLICA_HASH_SIZE - 1; i >= 0; i--) {
        int difference = sum[i] - hash->bytes[i] - borrow;
        borrow = difference < 0;
        sum[i] = (uint8_t)(difference & 0xff);
    }
}

static void count(struct replica_totals *totals, const struct replica_target_name *name,
                  const struct replica_stamp *stamp, const struct replica_entry *entry, bool add)
{
    uint64_t one = add ? 1 : UINT64_MAX; /* wraps to a subtraction */
    struct replica_hash hash;
    winner_hash(name, stamp, entry, &hash);
    if (add)
        hash_add(totals->state_hash, &hash);
    else
        hash_subtract(totals->state_hash, &hash);
    if (entry->kind == REPLICA_KIND_LINK)
        return; /* its object counts */
    totals->inodes += one;
    if (entry->kind == REPLICA_KIND_DIRECTORY)
        return;
    totals->files += one;
    if (entry->kind == REPLICA_KIND_FILE)
        totals->bytes += add ? entry->size : 0 - entry->size;
}

static void put_reference(const struct replica_map *map, const struct replica_apply *apply,
                          const struct replica_op *op, const struct replica_target_name *name,
                          struct replica_kv_batch *pending)
{
    uint8_t content[REPLICA_CONTENT_ID_SIZE], stamp[REPLICA_STAMP_SIZE];
    struct map_key key = {.size = 0};
    if (op->tombstone || op->entry.kind != REPLICA_KIND_FILE || op->entry.blob.kind != REPLICA_BLOB_CONTENT)
        return;
    replica_content_id_encode(&op->entry.blob.content, content);
    replica_stamp_encode(&apply->stamp, stamp);
    map_key_append(&key, "r", 1);
    map_key_append(&key, content, sizeof content);
    map_key_append(&key, map->volume.bytes, sizeof map->volume.bytes);
    map_key_append_target(&key, name);
    map_key_append(&key, "", 1);
    map_key_append(&key, stamp, sizeof stamp);
    replica_kv_batch_put(pending, key.bytes, key.size, "", 0);
}

static void put_link(const struct replica_map *map, const struct replica_id *object,
                     const struct replica_target_name *name, uint64_t seq, bool linked,
                     struct replica_kv_batch *pending)
{
    struct map_key key;
    map_key_start(&key, 'n', &map->volume);
    map_key_append(&key, object->bytes, sizeof object->bytes);
    map_key_append_target(&key, name);
    map_key_append_inverted(&key, seq);
    replica_kv_batch_put(pending, key.bytes, key.size, linked ? "\x01" : "", 1);
}

static void put_links(const struct replica_map *map, const struct replica_apply *apply,
                      const struct replica_op *op, const struct replica_target_name *name,
                      const struct replica_version *before, struct replica_kv_batch *pending)
{
    bool was = before != NULL && !before->tombstone && before->entry.kind == REPLICA_KIND_LINK;
    bool is = !op->tombstone && op->entry.kind == REPLICA_KIND_LINK;
    if (was && !(is && replica_id_equal(&before->entry.object, &op->entry.object)))
        put_link(map, &before->entry.object, name, apply->apply_seq, false, pending);
    if (is)
        put_link(map, &op->entry.object, name, apply->apply_seq, true, pending);
}

static void put_conflict(const struct replica_map *map, const struct replica_apply *apply,
                         const struct replica_target_name *name, struct replica_kv_batch *pending)
{
    struct map_key key;
    map_key_start(&key, 'x', &map->volume);
    map_key_append_target(&key, name);
    replica_kv_batch_put(pending, key.bytes, key.size, "", 0);
    map_key_start(&key, 'j', &map->volume);
    map_key_append(&key, apply->stamp.commit.bytes, REPLICA_ID_SIZE);
    map_key_append_target(&key, name);
    replica_kv_batch_put(pending, key.bytes, key.size, "", 0);
}

static void put_version(const struct replica_map *map, const struct replica_apply *apply,
                        const struct replica_op *op, const struct replica_target_name *name, bool wins,
                        struct replica_kv_batch *pending)
{
    uint8_t stamp[REPLICA_STAMP_SIZE];
    struct replica_buffer value;
    struct map_key key;
    map_key_start(&key, wins ? 'e' : 'f', &map->volume);
    map_key_append_target(&key, name);
    if (wins) {
        map_key_append_inverted(&key, apply->apply_seq);
    } else {
        replica_stamp_encode(&apply->stamp, stamp);
        map_key_append(&key, "", 1);
        map_key_append(&key, stamp, sizeof stamp);
    }
    replica_buffer_init(&value);
    map_version_pack(&value, apply, op);
    replica_kv_batch_put(pending, key.bytes, key.size, value.data, value.size);
    if (value.failed)
        pending->failed = true;
    replica_buffer_close(&value);
}

/* Children */

static void children_key(const struct replica_map *map, struct replica_path dir, uint64_t seq,
                         struct map_key *ret_key)
{
    map_key_start(ret_key, 'd', &map->volume);
    map_key_append(ret_key, dir.text, dir.size);
    map_key_append_inverted(ret_key, seq);
}

int map_children_at(const struct replica_map *map, struct replica_kv_cursor *cursor, struct replica_path dir,
                    uint64_t seq, uint64_t *ret_n)
{
    const uint8_t *at, *value;
    struct map_key key;
    size_t n, value_n;
    *ret_n = 0;
    children_key(map, dir, seq, &key);
    replica_kv_cursor_seek(cursor, key.bytes, key.size);
    if (!replica_kv_cursor_valid(cursor))
        return 0;
    replica_kv_cursor_key(cursor, &at, &n);
    if (n != key.size || memcmp(at, key.bytes, key.size - 8) != 0)
        return 0;
    replica_kv_cursor_value(cursor, &value, &value_n);
    if (value_n != 8)
        return REPLICA_E_CORRUPT;
    *ret_n = replica_u64_decode(value);
    return 0;
}

int replica_map_children(const struct replica_map *map, struct replica_path dir, uint64_t apply_seq,
                         uint64_t *ret_n)
{
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    if (rv != 0)
        return rv;
    rv = map_children_at(map, cursor, dir, apply_seq, ret_n);
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}

int map_run_end(struct replica_map_run *run, map_run_fn end, void *context)
{
    struct replica_path dir = {.text = run->parent, .size = run->parent_size};
    int rv = run->any && run->change != 0 ? end(context, dir, run->change) : 0;
    if (rv == 0)
        run->any = false;
    return rv;
}

int map_run_add(struct replica_map_run *run, struct replica_path path, int change, map_run_fn end,
                void *context)
{
    struct replica_path parent, name;
    replica_path_split(path, &parent, &name);
    if (run->any && (run->parent_size != parent.size || memcmp(run->parent, parent.text, parent.size) != 0)) {
        int rv = map_run_end(run, end, context);
        if (rv != 0)
            return rv;
    }
    if (!run->any) {
        run->any = true;
        run->change = 0;
        run->parent_size = parent.size;
        if (parent.size > 0)
            memcpy(run->parent, parent.text, parent.size);
    }
    run->change += change;
    return 0;
}

struct counting {
    const struct replica_map *map;
    const struct replica_apply *apply;
    struct replica_kv_batch *pending;
    size_t *reads;
};

/* What one delta changed in a directory becomes its new count. */
static int write_children(void *context, struct replica_path dir, int64_t change)
{
    const struct counting *counting = context;
    struct map_key key;
    uint8_t value[8];
    uint64_t n;
    int rv = replica_map_children(counting->map, dir, counting->apply->apply_seq - 1, &n);
    *counting->reads += 1;
    if (rv != 0)
        return rv;
    children_key(counting->map, dir, counting->apply->apply_seq, &key);
    replica_u64_encode(n + (uint64_t)change, value);
    replica_kv_batch_put(counting->pending, key.bytes, key.size, value, sizeof value);
    return counting->pending->failed ? REPLICA_E_NOMEM : 0;
}

int replica_map_run_end(const struct replica_map *map, const struct replica_apply *apply,
                        struct replica_map_run *run, struct replica_kv_batch *pending, size_t *reads)
{
    struct counting counting = {map, apply, pending, reads};
    return map_run_end(run, write_children, &counting);
}

int replica_map_apply(const struct replica_map *map, const struct replica_apply *apply,
                      const struct replica_op *op, struct replica_kv_batch *pending,
                      struct replica_totals *totals, struct replica_map_run *run, size_t *reads)
{
    struct replica_target_name name = {.target = op->target, .path = op->path, .object = op->object};
    struct counting counting = {map, apply, pending, reads};
    struct replica_version before;
    bool existed, wins;
    int rv;
    replica_version_init(&before);
    rv = replica_map_get(map, NULL, &name, apply->apply_seq - 1, &before);
    *reads += 2;
    existed = rv == 0;
    if (rv == REPLICA_E_NOTFOUND)
        rv = 0;
    if (rv != 0 || (existed && replica_stamp_compare(&before.stamp, &apply->stamp) == 0))
        goto out; /* the same commit under another dot: no effect */
    wins = !existed || replica_stamp_compare(&apply->stamp, &before.stamp) > 0;
    put_version(map, apply, op, &name, wins, pending);
    put_reference(map, apply, op, &name, pending);
    if (!wins || (existed && !before.tombstone && replica_stamp_compare(&op->base, &before.stamp) != 0))
        put_conflict(map, apply, &name, pending);
    if (wins) {
        put_links(map, apply, op, &name, existed ? &before : NULL, pending);
        if (existed && !before.tombstone) {
            count(totals, &name, &before.stamp, &before.entry, false);
            totals->history_bytes += before.entry.size;
        }
        if (!op->tombstone)
            count(totals, &name, &apply->stamp, &op->entry, true);
        if (op->target == REPLICA_TARGET_PATH && op->path.size > 0)
            rv = map_run_add(run, op->path, !op->tombstone - (existed && !before.tombstone), write_children,
                             &counting);
    } else if (!op->tombstone) {
        totals->history_bytes += op->entry.size;
    }
    if (rv == 0 && pending->failed)
        rv = REPLICA_E_NOMEM;
out:
    replica_version_close(&before);
    return rv;
}

int replica_map_state_hash(const struct replica_map *map, uint64_t apply_seq,
                           uint8_t ret_hash[REPLICA_HASH_SIZE])
{
    struct replica_kv_cursor *cursor;
    struct replica_version version;
    struct map_key prefix;
    uint8_t last[sizeof prefix.bytes];
    size_t last_n = 0;
    int rv = replica_kv_cursor_open(map->kv, &cursor), closed;
    if (rv != 0)
        return rv;
    memset(ret_hash, 0, REPLICA_HASH_SIZE);
    replica_version_init(&version);
    map_key_start(&prefix, 'e', &map->volume);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        char text[REPLICA_PATH_MAX + 1];
        struct replica_target_name name;
        struct replica_hash hash;
        const uint8_t *key, *value;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || n > sizeof last || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        if (~replica_u64_decode(key + n - 8) > apply_seq ||
            (n - 8 == last_n && memcmp(key, last, last_n) == 0))
            continue;
        last_n = n - 8;
        memcpy(last, key, last_n);
        rv = map_key_parse_target(key + prefix.size, n - prefix.size - 9, text, &name);
        replica_kv_cursor_value(cursor, &value, &value_n);
        if (rv == 0)
            rv = map_version_decode(value, value_n, &version);
        if (rv == 0 && !version.tombstone) {
            winner_hash(&name, &version.stamp, &version.entry, &hash);
            hash_add(ret_hash, &hash);
        }
    }
    replica_version_close(&version);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}
