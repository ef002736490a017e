/* Generations: freezing, op lists, outcomes. */
#include "view/view.h"

#include "replica/error.h"

#include <assert.h>
#include <string.h>

int replica_view_freeze(struct replica_view *view, const struct replica_id *commit, uint64_t time_ms,
                        struct replica_kv_batch *log)
{
    if (view->info.commit != REPLICA_COMMIT_NONE)
        return REPLICA_E_BUSY;
    if (view->info.dirty == 0)
        return REPLICA_E_NOTFOUND;
    /* The second commit that passes it: what is staged would not be newer than all that is frozen, or has bases
     * in one that is not the last any more. */
    if (view->move != NULL && (view->stage <= view->generation || view->move->passed))
        view->move->stale = true;
    memset(&view->frozen, 0, sizeof view->frozen);
    view->frozen.low = view->dirty_low;
    view->frozen.high = view->generation;
    view->frozen.commit = *commit;
    view->frozen.time_ms = time_ms;
    /* What is staged stays unseen, and is newer than all that is frozen, whenever it comes to light. */
    view->dirty_low = view->generation + 1;
    view->generation = view->stage > view->generation ? view->stage + 1 : view->generation + 1;
    view->info.generation = view->generation;
    view->frozen_dirty = view->info.dirty;
    view->info.dirty = 0;
    view->info.commit = REPLICA_COMMIT_FROZEN;
    view_refresh_own(view);
    view_write(view, log);
    return 0;
}

static bool is_frozen(const struct replica_view *view, uint64_t generation)
{
    return generation >= view->frozen.low && generation <= view->frozen.high && generation != view->stage;
}

int replica_view_next_draft(struct replica_view *view, uint64_t after, uint64_t *ret_draft)
{
    struct replica_kv_cursor *cursor;
    uint8_t number[8];
    struct map_key prefix;
    size_t head;
    int rv = replica_kv_cursor_open(view->views->log, &cursor), found = REPLICA_E_NOTFOUND;
    if (rv != 0)
        return rv;
    map_key_start(&prefix, 'D', &view->info.options.id);
    head = prefix.size;
    replica_u64_encode(after + 1, number);
    map_key_append(&prefix, number, sizeof number);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         found != 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *key;
        uint64_t generation;
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < head + 8 + 9 || memcmp(key, prefix.bytes, head) != 0)
            break;
        generation = replica_u64_decode(key + n - 8);
        if (!is_frozen(view, generation))
            continue;
        *ret_draft = replica_u64_decode(key + head);
        found = 0;
    }
    rv = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : found;
}

/* Rewrites the overlay record that a `D` key leads to. */
static int settle_record(struct replica_view *view, const uint8_t *target, size_t n, uint64_t generation,
                         const struct replica_blob *blob, uint64_t size, struct replica_kv_batch *log)
{
    struct replica_buffer value, packed;
    struct view_record record;
    struct map_key overlay, key;
    int rv;
    map_key_start(&overlay, 'x', &view->info.options.id);
    map_key_append(&overlay, target, n);
    key = overlay;
    map_key_append_inverted(&key, generation);
    replica_buffer_init(&value);
    replica_buffer_init(&packed);
    view_record_init(&record);
    rv = replica_kv_get(view->views->log, key.bytes, key.size, &value);
    if (rv == 0)
        rv = view_record_decode(value.data, value.size, &record);
    if (rv == 0) {
        view_index(view, &overlay, generation, &record.entry, false, log);
        record.entry.blob = *blob;
        record.entry.size = size;
        replica_pack_array(&packed, 4);
        replica_pack_bool(&packed, record.tombstone);
        replica_pack_uint(&packed, record.base_generation);
        replica_pack_stamp(&packed, &record.base);
        replica_entry_pack(&packed, &record.entry);
        replica_kv_batch_put(log, key.bytes, key.size, packed.data, packed.size);
        view_index(view, &overlay, generation, &record.entry, true, log);
    }
    replica_buffer_close(&value);
    replica_buffer_close(&packed);
    view_record_close(&record);
    return rv;
}

int replica_view_settle(struct replica_view *view, uint64_t draft, const struct replica_blob *blob,
                        uint64_t size, struct replica_kv_batch *log)
{
    struct replica_kv_cursor *cursor;
    uint8_t number[8];
    struct map_key prefix;
    int rv = replica_kv_cursor_open(view->views->log, &cursor), closed;
    if (rv != 0)
        return rv;
    map_key_start(&prefix, 'D', &view->info.options.id);
    replica_u64_encode(draft, number);
    map_key_append(&prefix, number, sizeof number);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *key;
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        rv = settle_record(view, key + prefix.size, n - prefix.size - 9, replica_u64_decode(key + n - 8),
                           blob, size, log);
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

/* Op lists */

static int resolve_base(const struct replica_view *view, const struct view_record *record,
                        struct replica_stamp *ret_base)
{
    if (record->base_generation == 0)
        *ret_base = record->base;
    else if (record->base_generation >= view->last.low && record->base_generation <= view->last.high)
        *ret_base = view->last.stamp;
    else
        return REPLICA_E_AGAIN; /* that commit was thawed: the older record of the same list knows */
    return 0;
}

struct op_builder {
    struct replica_view *view;
    struct replica_buffer *ops;
    uint64_t *op_count, *byte_count;
    struct view_record record; /* the newest of the target in hand */
    bool pending, resolved;
    struct replica_stamp base;
    uint8_t target[MAP_TARGET_MAX];
    size_t target_n;
};

static int flush_op(struct op_builder *builder)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_target_name name;
    struct replica_op op;
    int rv;
    if (!builder->pending)
        return 0;
    builder->pending = false;
    rv = map_key_parse_target(builder->target, builder->target_n, text, &name);
    if (rv != 0)
        return rv;
    memset(&op, 0, sizeof op);
    op.target = name.target;
    op.path = name.path;
    op.object = name.object;
    op.base = builder->base;
    op.tombstone = builder->record.tombstone;
    op.entry = builder->record.entry;
    replica_op_pack(builder->ops, &op);
    (*builder->op_count)++;
    if (!op.tombstone && op.entry.kind == REPLICA_KIND_FILE)
        *builder->byte_count += op.entry.size;
    return builder->ops->failed ? REPLICA_E_NOMEM : 0;
}

/* A record of the frozen range; those of one target come newest first. */
static int add_record(struct op_builder *builder, const uint8_t *target, size_t n, const uint8_t *value,
                      size_t value_n)
{
    struct view_record older;
    int rv = 0;
    if (builder->pending && n == builder->target_n && memcmp(target, builder->target, n) == 0) {
        if (builder->resolved)
            return 0;
        view_record_init(&older);
        rv = view_record_decode(value, value_n, &older);
        if (rv == 0)
            builder->resolved = resolve_base(builder->view, &older, &builder->base) == 0;
        view_record_close(&older);
        return rv;
    }
    rv = flush_op(builder);
    if (rv == 0)
        rv = view_record_decode(value, value_n, &builder->record);
    if (rv != 0)
        return rv;
    memcpy(builder->target, target, n);
    builder->target_n = n;
    builder->pending = true;
    memset(&builder->base, 0, sizeof builder->base);
    builder->resolved = resolve_base(builder->view, &builder->record, &builder->base) == 0;
    return 0;
}

int replica_view_ops(struct replica_view *view, struct replica_buffer *position, size_t max,
                     struct replica_buffer *ops, uint64_t *op_count, uint64_t *byte_count)
{
    struct op_builder builder = {.view = view, .ops = ops, .op_count = op_count, .byte_count = byte_count};
    struct replica_kv_cursor *cursor;
    struct map_key prefix;
    uint64_t before = *op_count;
    bool again = false;
    int rv = replica_kv_cursor_open(view->views->log, &cursor), closed;
    if (rv != 0)
        return rv;
    view_record_init(&builder.record);
    map_key_start(&prefix, 'x', &view->info.options.id);
    if (position->size > 0)
        replica_kv_cursor_seek(cursor, position->data, position->size);
    else
        replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
    for (; rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        uint64_t generation;
        size_t n, value_n;
        bool same;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        generation = ~replica_u64_decode(key + n - 8);
        if (!is_frozen(view, generation))
            continue;
        same = builder.pending && n - 9 - prefix.size == builder.target_n &&
               memcmp(key + prefix.size, builder.target, builder.target_n) == 0;
        if (!same && *op_count - before + builder.pending >= max) {
            again = true;
            replica_buffer_clear(position);
            rv = replica_buffer_append(position, key, n);
            break;
        }
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = add_record(&builder, key + prefix.size, n - 9 - prefix.size, value, value_n);
    }
    if (rv == 0)
        rv = flush_op(&builder);
    view_record_close(&builder.record);
    closed = replica_kv_cursor_close(&cursor);
    if (closed != 0 || rv != 0)
        return closed != 0 ? closed : rv;
    return again ? REPLICA_E_AGAIN : 0;
}

/* The journal and the outcome */

static void journal_key(const struct replica_view *view, uint8_t ret_key[1 + REPLICA_ID_SIZE])
{
    ret_key[0] = 'J';
    memcpy(ret_key + 1, view->info.options.id.bytes, REPLICA_ID_SIZE);
}

int replica_view_journal(struct replica_view *view, const void *data, size_t n, struct replica_kv_batch *log)
{
    uint8_t key[1 + REPLICA_ID_SIZE];
    journal_key(view, key);
    replica_kv_batch_put(log, key, sizeof key, data, n);
    return log->failed ? REPLICA_E_NOMEM : 0;
}

int replica_view_journal_read(struct replica_view *view, struct replica_buffer *ret_data)
{
    uint8_t key[1 + REPLICA_ID_SIZE];
    journal_key(view, key);
    return replica_kv_get(view->views->log, key, sizeof key, ret_data);
}

static void forget_journal(const struct replica_view *view, struct replica_kv_batch *log)
{
    uint8_t key[1 + REPLICA_ID_SIZE];
    journal_key(view, key);
    replica_kv_batch_delete(log, key, sizeof key);
}

int replica_view_stamp(struct replica_view *view, const struct replica_stamp *stamp,
                       struct replica_kv_batch *log)
{
    assert(view->info.commit == REPLICA_COMMIT_FROZEN);
    view->frozen.stamp = *stamp;
    view->info.commit = REPLICA_COMMIT_STAMPED;
    view_refresh_own(view);
    view_write(view, log);
    return 0;
}

int replica_view_thaw(struct replica_view *view, struct replica_kv_batch *log)
{
    assert(view->info.commit == REPLICA_COMMIT_FROZEN);
    view->dirty_low = view->frozen.low;
    view->info.dirty += view->frozen_dirty;
    view->info.commit = REPLICA_COMMIT_NONE;
    memset(&view->frozen, 0, sizeof view->frozen);
    view_refresh_own(view);
    view_write(view, log);
    forget_journal(view, log);
    return 0;
}

int replica_view_committed(struct replica_view *view, const struct replica_stamp *stamp,
                           const struct replica_dot *dot, struct replica_kv_batch *log)
{
    if (view->info.commit == REPLICA_COMMIT_NONE)
        return 0;
    view->frozen.stamp = *stamp;
    view->frozen.dot = *dot;
    view->last = view->frozen;
    if (view->own_n == VIEW_OWN_MAX) { /* the oldest two become one: both are covered once the newer is */
        view->own[1].low = view->own[0].low;
        view->own_n--;
        memmove(view->own, view->own + 1, view->own_n * sizeof view->own[0]);
    }
    view->own[view->own_n++] = view->frozen;
    memset(&view->frozen, 0, sizeof view->frozen);
    view->info.commit = REPLICA_COMMIT_NONE;
    view_refresh_own(view);
    view_write(view, log);
    forget_journal(view, log);
    return 0;
}
