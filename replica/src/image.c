#include "replica/image.h"

#include "map/map.h"
#include "replica/error.h"
#include "volume/volume.h"

#include <string.h>

#define CLEAR_RECORDS_MAX 500 /* deleted in one step */

enum position_kind { POSITION_MAP = 'e', POSITION_COMMITS = 'k' };

void replica_image_describe(const struct replica_volume *volume, struct replica_image *ret_image)
{
    const struct replica_volume_state *state = &volume->state;
    ret_image->apply_seq = state->applied_seq;
    ret_image->applied = state->applied;
    ret_image->totals = state->totals;
    ret_image->hlc_high = state->hlc_high;
    ret_image->last_commit_ms = state->last_commit_ms;
}

void replica_image_pack(struct replica_buffer *out, const struct replica_image *image)
{
    replica_pack_array(out, 5);
    replica_pack_uint(out, image->apply_seq);
    replica_vector_pack(out, &image->applied);
    replica_totals_pack(out, &image->totals);
    replica_pack_uint(out, image->hlc_high);
    replica_pack_uint(out, image->last_commit_ms);
}

int replica_image_read(struct replica_pack_reader *reader, struct replica_image *ret_image)
{
    size_t n;
    memset(ret_image, 0, sizeof *ret_image);
    replica_pack_read_array(reader, 16, &n);
    replica_pack_read_uint(reader, UINT64_MAX, &ret_image->apply_seq);
    replica_vector_read(reader, &ret_image->applied);
    replica_totals_read(reader, &ret_image->totals);
    replica_pack_read_uint(reader, UINT64_MAX, &ret_image->hlc_high);
    replica_pack_read_uint(reader, UINT64_MAX, &ret_image->last_commit_ms);
    for (size_t i = 5; i < n && !reader->failed; i++)
        replica_pack_skip(reader);
    if (reader->failed || n < 5 || ret_image->apply_seq == 0) {
        reader->failed = true;
        return REPLICA_E_MALFORMED;
    }
    return 0;
}

/* Giving */

struct part {
    struct replica_buffer items;
    size_t count;
    uint8_t next[REPLICA_IMAGE_POSITION_MAX]; /* kind, then the key's suffix to go on after; empty: the end */
    size_t next_n;
};

static bool part_is_full(const struct part *part)
{
    return part->count >= REPLICA_IMAGE_PART_ITEMS || part->items.size >= REPLICA_IMAGE_PART_SIZE;
}

static int part_add(struct part *part, enum position_kind kind, const uint8_t *suffix, size_t suffix_n,
                    const uint8_t *value, size_t n)
{
    if (suffix_n + 1 > sizeof part->next)
        return REPLICA_E_CORRUPT;
    part->next[0] = (uint8_t)kind;
    if (suffix_n > 0)
        memcpy(part->next + 1, suffix, suffix_n);
    part->next_n = suffix_n + 1;
    if (value == NULL)
        return 0;
    replica_pack_array(&part->items, 3);
    replica_pack_uint(&part->items, kind);
    replica_pack_bin(&part->items, suffix, suffix_n);
    replica_pack_bin(&part->items, value, n);
    part->count++;
    return 0;
}

/* Winners as of apply_seq: of each target its newest version that is not newer. */
static int give_map(const struct replica_volume *volume, uint64_t apply_seq, const uint8_t *after,
                    size_t after_n, struct part *part, size_t *reads)
{
    struct replica_kv_cursor *cursor;
    struct map_key prefix, seek;
    int rv = replica_kv_cursor_open(volume->map.kv, &cursor), closed;
    if (rv != 0)
        return rv;
    map_key_start(&prefix, 'e', &volume->state.id);
    seek = prefix;
    map_key_append(&seek, after, after_n);
    if (after_n > 0)
        map_key_append(&seek, "\x01", 1); /* past every version of that target: they go on with 00 */
    for (replica_kv_cursor_seek(cursor, seek.bytes, seek.size); rv == 0 && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        size_t n, value_n;
        (*reads)++;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        if (~replica_u64_decode(key + n - 8) > apply_seq)
            continue;
        n -= prefix.size + 9; /* the target-key */
        if (part->next_n == n + 1 && part->next[0] == POSITION_MAP &&
            memcmp(part->next + 1, key + prefix.size, n) == 0)
            continue; /* an older version */
        if (part_is_full(part)) {
            closed = replica_kv_cursor_close(&cursor);
            return closed != 0 ? closed : REPLICA_E_AGAIN;
        }
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = part_add(part, POSITION_MAP, key + prefix.size, n, value, value_n);
    }
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}

static int give_commits(const struct replica_volume *volume, const uint8_t *after, size_t after_n,
                        struct part *part, size_t *reads)
{
    struct replica_kv_cursor *cursor;
    struct replica_id id = {{0}};
    struct replica_log_key seek;
    size_t prefix;
    int rv, closed;
    if (after_n != 0 && after_n != REPLICA_ID_SIZE)
        return REPLICA_E_MALFORMED;
    rv = replica_kv_cursor_open(volume->log, &cursor);
    if (rv != 0)
        return rv;
    memcpy(id.bytes, after, after_n);
    seek = replica_log_key_commit(&volume->state.id, &id);
    prefix = seek.size - REPLICA_ID_SIZE;
    for (replica_kv_cursor_seek(cursor, seek.bytes, seek.size); rv == 0 && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        size_t n, value_n;
        (*reads)++;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n != seek.size || memcmp(key, seek.bytes, prefix) != 0)
            break;
        if (after_n > 0 && memcmp(key + prefix, after, after_n) == 0)
            continue;
        if (part_is_full(part)) {
            closed = replica_kv_cursor_close(&cursor);
            return closed != 0 ? closed : REPLICA_E_AGAIN;
        }
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = part_add(part, POSITION_COMMITS, key + prefix, REPLICA_ID_SIZE, value, value_n);
    }
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}

int replica_image_part(const struct replica_volume *volume, uint64_t apply_seq, const uint8_t *position,
                       size_t n, struct replica_buffer *out, size_t *reads)
{
    struct part part = {.count = 0};
    int rv;
    if (n > REPLICA_IMAGE_POSITION_MAX ||
        (n > 0 && position[0] != POSITION_MAP && position[0] != POSITION_COMMITS))
        return REPLICA_E_MALFORMED;
    replica_buffer_init(&part.items);
    if (n == 0 || position[0] == POSITION_MAP) {
        rv = give_map(volume, apply_seq, n == 0 ? NULL : position + 1, n == 0 ? 0 : n - 1, &part, reads);
        if (rv == 0)
            rv = part_add(&part, POSITION_COMMITS, NULL, 0, NULL, 0) != 0 ? REPLICA_E_CORRUPT
                                                                          : REPLICA_E_AGAIN;
    } else {
        rv = give_commits(volume, position + 1, n - 1, &part, reads);
    }
    if (rv == 0 || rv == REPLICA_E_AGAIN) {
        replica_pack_array(out, 2);
        replica_pack_bin(out, part.next, rv == 0 ? 0 : part.next_n);
        replica_pack_array(out, part.count);
        replica_buffer_append(out, part.items.data, part.items.size);
        rv = part.items.failed || out->failed ? REPLICA_E_NOMEM : 0;
    }
    replica_buffer_close(&part.items);
    return rv;
}

/* Taking */

bool replica_image_is_wanted(const struct replica_volume *volume)
{
    const struct replica_volume_state *state = &volume->state;
    return state->stored.n == 0 && state->ordered_seq == 0 && state->applied_seq == 0;
}

void replica_image_begin(struct replica_volume *volume, struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_image(&volume->state.id);
    replica_kv_batch_put(log, key.bytes, key.size, "", 0);
    volume->image_unfinished = true;
}

bool replica_image_is_unfinished(const struct replica_volume *volume)
{
    return volume->image_unfinished;
}

void replica_image_drop(struct replica_volume *volume, struct replica_kv_batch *log)
{
    struct replica_log_key key = replica_log_key_image(&volume->state.id);
    replica_kv_batch_delete(log, key.bytes, key.size);
    volume->image_unfinished = false;
}

int replica_image_clear(struct replica_volume *volume, size_t *reads, struct replica_kv_batch *map)
{
    static const char PREFIXES[] = {'d', 'e', 'f', 'j',
                                    'm', 'n', 'x'}; /* r: a reference too many is harmless */
    struct replica_kv_cursor *cursor;
    size_t n = 0;
    int rv = replica_kv_cursor_open(volume->map.kv, &cursor), closed;
    if (rv != 0)
        return rv;
    for (size_t i = 0; i < sizeof PREFIXES && n < CLEAR_RECORDS_MAX; i++) {
        struct map_key prefix;
        map_key_start(&prefix, PREFIXES[i], &volume->state.id);
        for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
             replica_kv_cursor_valid(cursor) && n < CLEAR_RECORDS_MAX; replica_kv_cursor_next(cursor), n++) {
            const uint8_t *key;
            size_t key_n;
            replica_kv_cursor_key(cursor, &key, &key_n);
            if (key_n < prefix.size || memcmp(key, prefix.bytes, prefix.size) != 0)
                break;
            replica_kv_batch_delete(map, key, key_n);
        }
    }
    *reads += n;
    closed = replica_kv_cursor_close(&cursor);
    if (closed != 0)
        return closed;
    return n == CLEAR_RECORDS_MAX ? REPLICA_E_AGAIN : 0;
}

/* Each target once, spelt as keys are, in their order: so that a directory's names are one run. */
static bool is_next(struct replica_image_progress *progress, const struct replica_target_name *name,
                    const uint8_t *suffix, size_t n)
{
    struct map_key key = {.size = 0};
    size_t shorter = n < progress->last_n ? n : progress->last_n;
    int order = memcmp(progress->last, suffix, shorter);
    map_key_append_target(&key, name);
    if (key.size != n || memcmp(key.bytes, suffix, n) != 0 || order > 0 ||
        (order == 0 && n <= progress->last_n))
        return false;
    memcpy(progress->last, suffix, n);
    progress->last_n = n;
    return true;
}

/* A version of the giver's becomes the only one here. */
static int take_version(struct replica_volume *volume, const uint8_t *suffix, size_t suffix_n,
                        const uint8_t *value, size_t n, struct replica_kv_batch *map,
                        struct replica_image_progress *progress, size_t *reads)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_target_name name;
    struct replica_version version;
    struct replica_apply apply = {.apply_seq = 1};
    struct replica_op op;
    int rv;
    replica_version_init(&version);
    memset(&op, 0, sizeof op);
    rv = map_key_parse_target(suffix, suffix_n, text, &name);
    if (rv == 0)
        rv = map_version_decode(value, n, &version);
    if (rv == 0 &&
        ((name.target == REPLICA_TARGET_PATH && !replica_path_is_canonical(name.path.text, name.path.size)) ||
         replica_stamp_is_zero(&version.stamp) ||
         (!version.tombstone && replica_entry_check(&version.entry) != 0) ||
         !is_next(progress, &name, suffix, suffix_n)))
        rv = REPLICA_E_CORRUPT;
    if (rv == 0) {
        apply.stamp = version.stamp;
        apply.node = version.node;
        apply.time_ms = version.time_ms;
        op.target = name.target;
        op.path = name.path;
        op.object = name.object;
        op.base = version.base;
        op.tombstone = version.tombstone;
        op.entry = version.entry;
        rv = replica_map_apply(&volume->map, &apply, &op, map, &progress->totals, &progress->run, reads);
    }
    replica_version_close(&version);
    return rv == REPLICA_E_CORRUPT ? REPLICA_E_MALFORMED : rv;
}

static int take_commit(struct replica_volume *volume, const uint8_t *suffix, size_t suffix_n,
                       const uint8_t *value, size_t n, struct replica_kv_batch *log)
{
    struct replica_log_key key;
    struct replica_id id;
    if (suffix_n != REPLICA_ID_SIZE || n == 0 || n % REPLICA_LOG_DOT_SIZE != 0 ||
        n / REPLICA_LOG_DOT_SIZE > REPLICA_DOTS_PER_ID)
        return REPLICA_E_MALFORMED;
    memcpy(id.bytes, suffix, suffix_n);
    key = replica_log_key_commit(&volume->state.id, &id);
    replica_kv_batch_put(log, key.bytes, key.size, value, n);
    return 0;
}

int replica_image_take(struct replica_volume *volume, const uint8_t *part, size_t n,
                       struct replica_kv_batch *log, struct replica_kv_batch *map,
                       struct replica_image_progress *progress, size_t *reads, const uint8_t **ret_next,
                       size_t *ret_n)
{
    struct replica_pack_reader reader;
    size_t fields, count;
    replica_pack_reader_init(&reader, part, n);
    replica_pack_read_array(&reader, 2, &fields);
    replica_pack_read_bin(&reader, REPLICA_IMAGE_POSITION_MAX, ret_next, ret_n);
    replica_pack_read_array(&reader, REPLICA_IMAGE_PART_ITEMS, &count);
    if (reader.failed || fields != 2)
        return REPLICA_E_MALFORMED;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *suffix, *value;
        size_t suffix_n, value_n;
        uint64_t kind;
        int rv;
        replica_pack_read_array(&reader, 3, &fields);
        replica_pack_read_uint(&reader, UINT8_MAX, &kind);
        replica_pack_read_bin(&reader, REPLICA_IMAGE_POSITION_MAX, &suffix, &suffix_n);
        replica_pack_read_bin(&reader, REPLICA_KV_VALUE_MAX, &value, &value_n);
        if (reader.failed || fields != 3 || (kind != POSITION_MAP && kind != POSITION_COMMITS))
            return REPLICA_E_MALFORMED;
        rv = kind == POSITION_MAP
                 ? take_version(volume, suffix, suffix_n, value, value_n, map, progress, reads)
                 : take_commit(volume, suffix, suffix_n, value, value_n, log);
        if (rv != 0)
            return rv;
    }
    if (*ret_n == 0) {
        struct replica_apply apply = {.apply_seq = 1};
        int rv = replica_map_run_end(&volume->map, &apply, &progress->run, map, reads);
        if (rv != 0)
            return rv;
        replica_volume_mark_map(volume, apply.apply_seq, map);
    }
    return replica_pack_reader_finish(&reader);
}

int replica_image_adopt(struct replica_volume *volume, const struct replica_image *image,
                        const struct replica_image_progress *progress, struct replica_kv_batch *log)
{
    struct replica_volume_state *state = &volume->state;
    struct replica_vector committed = state->committed;
    if (memcmp(progress->totals.state_hash, image->totals.state_hash, REPLICA_HASH_SIZE) != 0 ||
        progress->totals.inodes != image->totals.inodes)
        return REPLICA_E_MISMATCH;
    if (replica_vector_join(&committed, &image->applied) != 0)
        return REPLICA_E_TOOBIG;
    state->stored = state->ordered = state->applied = state->base = image->applied;
    state->committed = committed;
    state->ordered_seq = state->applied_seq = volume->order_synced = 1;
    state->totals = progress->totals;
    state->last_commit_ms = image->last_commit_ms;
    if (image->hlc_high > state->hlc_high)
        state->hlc_high = image->hlc_high;
    replica_volume_write_head(volume, log);
    replica_image_drop(volume, log);
    replica_volume_checkpoint_take(volume);
    return replica_volume_checkpoint_write(volume, log);
}
