/* Overlay records: the newest generation on top of the snapshot. */
#include "view/view.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

void view_record_init(struct view_record *record)
{
    memset(record, 0, sizeof *record);
    replica_buffer_init(&record->bytes);
}

void view_record_close(struct view_record *record)
{
    replica_buffer_close(&record->bytes);
}

int view_record_decode(const uint8_t *data, size_t n, struct view_record *record)
{
    struct replica_pack_reader reader;
    size_t items;
    replica_buffer_clear(&record->bytes);
    if (replica_buffer_append(&record->bytes, data, n) != 0)
        return REPLICA_E_NOMEM;
    memset(&record->entry, 0, sizeof record->entry);
    replica_pack_reader_init(&reader, record->bytes.data, n);
    replica_pack_read_array(&reader, 16, &items);
    replica_pack_read_bool(&reader, &record->tombstone);
    replica_pack_read_uint(&reader, UINT64_MAX, &record->base_generation);
    replica_pack_read_stamp(&reader, &record->base);
    if (replica_pack_peek(&reader) == REPLICA_PACK_NIL)
        replica_pack_skip(&reader);
    else
        replica_entry_read(&reader, &record->entry);
    return items < 4 || replica_pack_reader_finish(&reader) != 0 ? REPLICA_E_CORRUPT : 0;
}

static void record_pack(struct replica_buffer *out, const struct view_record *record)
{
    replica_pack_array(out, 4);
    replica_pack_bool(out, record->tombstone);
    replica_pack_uint(out, record->base_generation);
    replica_pack_stamp(out, &record->base);
    if (record->entry.kind != 0)
        replica_entry_pack(out, &record->entry);
    else
        replica_pack_nil(out);
}

int view_full_path(const struct replica_view *view, struct replica_path path,
                   char ret_text[REPLICA_PATH_MAX + 1], struct replica_path *ret_full)
{
    struct replica_path sub = view->info.options.sub;
    size_t n = sub.size;
    if (sub.size + (sub.size > 0 && path.size > 0) + path.size > REPLICA_PATH_MAX)
        return REPLICA_E_TOOBIG;
    if (sub.size > 0)
        memcpy(ret_text, sub.text, sub.size);
    if (n > 0 && path.size > 0)
        ret_text[n++] = '/';
    if (path.size > 0)
        memcpy(ret_text + n, path.text, path.size);
    *ret_full = (struct replica_path){ret_text, n + path.size};
    return 0;
}

void view_key_overlay(const struct replica_view *view, const struct replica_target_name *name,
                      struct map_key *ret_key)
{
    map_key_start(ret_key, 'x', &view->info.options.id);
    map_key_append_target(ret_key, name);
}

/* Generations that are asked for one by one. A get that finds nothing is cheap, while a seek that finds nothing goes on over whatever was
 * deleted behind, and that may be tens of thousands of records of a commit that was reloaded or of a view that was closed. */
#define GETS_MAX 8

static int get_by_generation(struct replica_view *view, const struct map_key *overlay,
                             struct view_record *ret_record)
{
    struct replica_buffer value;
    int rv = REPLICA_E_NOTFOUND;
    replica_buffer_init(&value);
    for (uint64_t generation = view->generation; generation > view->floor && rv == REPLICA_E_NOTFOUND;
         generation--) {
        struct map_key key = *overlay;
        if (generation == view->stage)
            continue;
        map_key_append_inverted(&key, generation);
        rv = replica_kv_get(view->views->log, key.bytes, key.size, &value);
        ret_record->generation = generation;
    }
    if (rv == 0)
        rv = view_record_decode(value.data, value.size, ret_record);
    replica_buffer_close(&value);
    return rv;
}

static int seek_newest(struct replica_view *view, const struct map_key *overlay,
                       struct view_record *ret_record)
{
    struct replica_kv_cursor *cursor;
    struct map_key key = *overlay;
    size_t prefix = key.size + 1;
    int rv = replica_kv_cursor_open(view->views->log, &cursor), found = REPLICA_E_NOTFOUND;
    if (rv != 0)
        return rv;
    map_key_append_inverted(&key, view->generation);
    for (replica_kv_cursor_seek(cursor, key.bytes, key.size); replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *at, *value;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &at, &n);
        if (n != prefix + 8 || memcmp(at, key.bytes, prefix) != 0)
            break;
        ret_record->generation = ~replica_u64_decode(at + prefix);
        if (ret_record->generation == view->stage)
            continue;
        replica_kv_cursor_value(cursor, &value, &value_n);
        if (ret_record->generation > view->floor)
            found = view_record_decode(value, value_n, ret_record);
        break;
    }
    rv = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : found;
}

int view_overlay_get(struct replica_view *view, const struct replica_target_name *name,
                     struct view_record *ret_record)
{
    struct map_key overlay;
    view_key_overlay(view, name, &overlay);
    return view->generation - view->floor <= GETS_MAX ? get_by_generation(view, &overlay, ret_record)
                                                      : seek_newest(view, &overlay, ret_record);
}

static struct replica_map map_of(const struct replica_view *view)
{
    return (struct replica_map){.kv = view->views->map, .volume = view->info.options.volume};
}

int view_raw_get(struct replica_view *view, const struct replica_target_name *name,
                 struct replica_version *ret_version, bool *ret_overlaid)
{
    struct replica_map map = map_of(view);
    struct view_record record;
    int rv;
    view_record_init(&record);
    rv = view_overlay_get(view, name, &record);
    *ret_overlaid = rv == 0;
    if (rv == 0) {
        replica_version_close(ret_version);
        ret_version->tombstone = record.tombstone;
        ret_version->links = 1;
        ret_version->base = record.base;
        ret_version->bytes = record.bytes; /* the entry points into it */
        ret_version->entry = record.entry;
        replica_buffer_init(&record.bytes);
    } else if (rv == REPLICA_E_NOTFOUND) {
        rv = replica_map_get(&map, NULL, name, view->info.options.snapshot, ret_version);
    }
    view_record_close(&record);
    return rv == 0 && ret_version->tombstone ? REPLICA_E_NOTFOUND : rv;
}

/* Where the base of a new record comes from: what lies beneath it (beneath: its record, if found is 0). */
static int find_base(struct replica_view *view, const struct replica_target_name *name, uint64_t generation,
                     int found, const struct view_record *beneath, struct view_record *record)
{
    struct replica_map map = map_of(view);
    struct replica_version version;
    int rv;
    if (found == 0) {
        bool frozen = view->info.commit != REPLICA_COMMIT_NONE && beneath->generation >= view->frozen.low &&
                      beneath->generation <= view->frozen.high;
        /* What is staged is not frozen together with what is dirty now, or it is: either way the op list finds its base. */
        if (frozen || (generation == view->stage && beneath->generation >= view->dirty_low)) {
            record->base_generation = beneath->generation;
        } else if (beneath->generation >= view->dirty_low) {
            record->base = beneath->base;
            record->base_generation = beneath->base_generation;
        } else {
            for (size_t i = 0; i < view->own_n; i++)
                if (beneath->generation >= view->own[i].low && beneath->generation <= view->own[i].high)
                    record->base = view->own[i].stamp;
        }
        return 0;
    }
    if (found != REPLICA_E_NOTFOUND)
        return found;
    replica_version_init(&version);
    rv = replica_map_get(&map, NULL, name, view->info.options.snapshot, &version);
    if (rv == 0)
        record->base = version.stamp;
    replica_version_close(&version);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

void view_index(const struct replica_view *view, const struct map_key *overlay_key, uint64_t generation,
                const struct replica_entry *entry, bool add, struct replica_kv_batch *log)
{
    size_t head = 1 + REPLICA_ID_SIZE;
    uint8_t number[8], content[REPLICA_CONTENT_ID_SIZE], tail[9] = {0};
    struct map_key key = {.size = 0};
    if (entry->kind == REPLICA_KIND_LINK) {
        map_key_start(&key, 'N', &view->info.options.id);
        map_key_append(&key, entry->object.bytes, REPLICA_ID_SIZE);
    } else if (entry->kind != REPLICA_KIND_FILE || entry->blob.kind == REPLICA_BLOB_INLINE) {
        return;
    } else if (entry->blob.kind == REPLICA_BLOB_CONTENT) {
        replica_content_id_encode(&entry->blob.content, content);
        map_key_append(&key, "X", 1);
        map_key_append(&key, content, sizeof content);
        map_key_append(&key, view->info.options.id.bytes, REPLICA_ID_SIZE);
    } else {
        replica_u64_encode(entry->blob.draft, number);
        map_key_start(&key, 'D', &view->info.options.id);
        map_key_append(&key, number, sizeof number);
    }
    map_key_append(&key, overlay_key->bytes + head, overlay_key->size - head);
    replica_u64_encode(generation, tail + 1);
    map_key_append(&key, tail, sizeof tail);
    if (add)
        replica_kv_batch_put(log, key.bytes, key.size, "", 0);
    else
        replica_kv_batch_delete(log, key.bytes, key.size);
}

static int put_record(struct replica_view *view, uint64_t generation, const struct replica_target_name *name,
                      bool tombstone, const struct replica_entry *entry, struct replica_kv_batch *log,
                      bool *ret_added)
{
    struct view_record record, beneath;
    struct replica_buffer value;
    struct map_key overlay, key;
    int rv, found;
    view_record_init(&record);
    view_record_init(&beneath);
    record.tombstone = tombstone;
    if (entry != NULL)
        record.entry = *entry;
    view_key_overlay(view, name, &overlay);
    found = view_overlay_get(view, name, &beneath);
    rv = find_base(view, name, generation, found, &beneath, &record);
    *ret_added = found != 0 || beneath.generation != generation;
    if (rv == 0 && !*ret_added) /* what this generation already says about the target goes: its indexes too */
        view_index(view, &overlay, generation, &beneath.entry, false, log);
    view_record_close(&beneath);
    if (rv != 0)
        return rv;
    replica_buffer_init(&value);
    record_pack(&value, &record);
    key = overlay;
    map_key_append_inverted(&key, generation);
    replica_kv_batch_put(log, key.bytes, key.size, value.data, value.size);
    view_index(view, &overlay, generation, &record.entry, true, log);
    if (value.failed)
        log->failed = true;
    replica_buffer_close(&value);
    return log->failed ? REPLICA_E_NOMEM : 0;
}

int view_overlay_put(struct replica_view *view, const struct replica_target_name *name, bool tombstone,
                     const struct replica_entry *entry, struct replica_kv_batch *log)
{
    bool added;
    int rv = put_record(view, view->generation, name, tombstone, entry, log, &added);
    if (rv == 0 && added)
        view->info.dirty++;
    if (view->move != NULL)
        view->move->stale = true;
    free(view->scan);
    view->scan = NULL;
    return rv;
}

/* A target is staged once. */
int view_stage_put(struct replica_view *view, const struct replica_target_name *name, bool tombstone,
                   const struct replica_entry *entry, struct replica_kv_batch *log)
{
    bool added;
    int rv = put_record(view, view->stage, name, tombstone, entry, log, &added);
    if (rv == 0)
        view->move->records++;
    return rv;
}
