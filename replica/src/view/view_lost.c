/* After a loss of power. A record and the bytes that it names are synced together, but before that sync the
 * disk may keep the one and lose the other. A record without its bytes can never be read nor committed: no
 * majority would ever hold them, and the view would be stuck for good. It was not synced, so nobody was
 * promised it; it goes as if the crash had taken it too. */
#include "view/view.h"

#include "replica/error.h"

#include <string.h>

static bool is_frozen(const struct replica_view *view, uint64_t generation)
{
    return view->info.commit != REPLICA_COMMIT_NONE && generation >= view->frozen.low &&
           generation <= view->frozen.high;
}

/* A record that goes is not dirty any more, or would not be again if the commit in flight were thawed. */
static bool uncount(struct replica_view *view, uint64_t generation)
{
    uint64_t *dirty = is_frozen(view, generation) ? &view->frozen_dirty : &view->info.dirty;
    if (generation == view->stage && view->move != NULL)
        view->move->stale = true; /* it counts what it staged */
    if (generation == view->stage || (dirty == &view->info.dirty && generation < view->dirty_low) ||
        *dirty == 0)
        return false;
    --*dirty;
    return true;
}

/* Only what was certainly never minted: later the bytes are the voters' to keep, and may rightly be absent here. */
static bool is_lost(const struct replica_view *view, uint64_t generation, const struct view_record *record,
                    struct replica_contents *contents)
{
    const struct replica_blob *blob = &record->entry.blob;
    bool uncommitted = generation >= view->dirty_low ||
                       (view->info.commit == REPLICA_COMMIT_FROZEN && is_frozen(view, generation));
    if (!uncommitted || generation <= view->floor || record->tombstone ||
        record->entry.kind != REPLICA_KIND_FILE || blob->kind != REPLICA_BLOB_CONTENT ||
        blob->content.length == 0)
        return false;
    return replica_contents_state(contents, &blob->content) < REPLICA_CONTENTS_FILLED;
}

/* What lies on top of a lost record took its base from it, so one that is covered stays: it harms nobody. */
struct top {
    uint8_t target[sizeof((struct map_key *)0)->bytes];
    size_t n;
    bool covered;
};

static bool is_covered(struct top *top, const uint8_t *target, size_t n)
{
    if (n != top->n || memcmp(target, top->target, n) != 0) {
        memcpy(top->target, target, n);
        top->n = n;
        top->covered = false;
    }
    return top->covered;
}

/* A move of a directory that the restart cut off: nothing of it was seen, and nothing will be. */
static int forget_stage(struct replica_view *view, struct replica_kv_batch *log)
{
    bool left;
    int rv;
    if (view->stage == 0)
        return 0;
    rv = view_forget_records(view, view->stage, view->stage, SIZE_MAX, log, &left);
    if (rv == 0) {
        view->stage = 0;
        view_write(view, log);
    }
    return rv;
}

int replica_view_forget_lost(struct replica_view *view, struct replica_contents *contents,
                             struct replica_kv_batch *log, size_t *ret_n)
{
    struct top top = {.n = 0};
    struct replica_kv_cursor *cursor;
    struct view_record record;
    struct map_key prefix;
    uint64_t stage = view->stage;
    int rv = forget_stage(view, log), closed;
    if (rv == 0)
        rv = replica_kv_cursor_open(view->views->log, &cursor);
    if (rv != 0)
        return rv;
    *ret_n = 0;
    view_know_nothing(view);
    view_record_init(&record);
    map_key_start(&prefix, 'x', &view->info.options.id);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        struct map_key overlay = {.size = 0};
        uint64_t generation;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        generation = ~replica_u64_decode(key + n - 8);
        if ((stage != 0 && generation == stage) || is_covered(&top, key, n - 9))
            continue;
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = view_record_decode(value, value_n, &record);
        if (rv != 0)
            break;
        top.covered = !is_lost(view, generation, &record, contents);
        if (top.covered)
            continue;
        map_key_append(&overlay, key, n - 9);
        view_index(view, &overlay, generation, &record.entry, false, log);
        replica_kv_batch_delete(log, key, n);
        *ret_n += uncount(view, generation);
    }
    view_record_close(&record);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

int replica_view_forget_draft(struct replica_view *view, uint64_t draft, struct replica_kv_batch *log,
                              size_t *ret_n)
{
    struct replica_kv_cursor *cursor;
    struct map_key prefix;
    uint8_t number[8];
    size_t head = 1 + REPLICA_ID_SIZE;
    int rv = replica_kv_cursor_open(view->views->log, &cursor);
    if (rv != 0)
        return rv;
    *ret_n = 0;
    replica_u64_encode(draft, number);
    map_key_start(&prefix, 'D', &view->info.options.id);
    map_key_append(&prefix, number, sizeof number);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size); replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key;
        struct map_key overlay;
        uint64_t generation;
        uint8_t tail[9] = {0};
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        generation = replica_u64_decode(key + n - 8);
        map_key_start(&overlay, 'x', &view->info.options.id);
        map_key_append(&overlay, key + head + sizeof number, n - head - sizeof number - 9);
        replica_u64_encode(~generation, tail + 1);
        map_key_append(&overlay, tail, sizeof tail);
        replica_kv_batch_delete(log, overlay.bytes, overlay.size);
        replica_kv_batch_delete(log, key, n);
        *ret_n += uncount(view, generation);
    }
    return replica_kv_cursor_close(&cursor);
}

int replica_view_each_draft(struct replica_view *view,
                            int (*visit)(void *context, uint64_t draft, struct replica_path path),
                            void *context)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_kv_cursor *cursor;
    struct map_key prefix;
    int rv = replica_kv_cursor_open(view->views->log, &cursor), closed;
    if (rv != 0)
        return rv;
    map_key_start(&prefix, 'D', &view->info.options.id);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        struct replica_target_name name;
        const uint8_t *key;
        size_t n, head = prefix.size + 8;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < head + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        rv = map_key_parse_target(key + head, n - head - 9, text, &name);
        if (rv == 0)
            rv = visit(context, replica_u64_decode(key + prefix.size),
                       name.target == REPLICA_TARGET_PATH ? name.path : (struct replica_path){"", 0});
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}
