/* Names of link objects, counted over the overlay and the snapshot. */
#include "view/view.h"

#include "replica/error.h"

#include <string.h>

struct count {
    struct replica_view *view;
    const struct replica_id *object;
    uint32_t n;
};

/* A name of the snapshot counts unless the overlay says something about it. */
static int count_below(void *context, const struct replica_target_name *name)
{
    struct count *count = context;
    struct view_record record;
    int rv;
    view_record_init(&record);
    rv = view_overlay_get(count->view, name, &record);
    view_record_close(&record);
    if (rv == REPLICA_E_NOTFOUND)
        return ++count->n >= MAP_LINKS_MAX;
    return rv;
}

/* A name of the overlay counts if its newest record still makes it a link of the object. */
static int count_above(struct count *count, const struct replica_target_name *name)
{
    struct view_record record;
    int rv;
    view_record_init(&record);
    rv = view_overlay_get(count->view, name, &record);
    if (rv == 0 && !record.tombstone && record.entry.kind == REPLICA_KIND_LINK &&
        replica_id_equal(&record.entry.object, count->object))
        count->n++;
    view_record_close(&record);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int scan_overlay(struct count *count)
{
    struct replica_kv_cursor *cursor;
    struct map_key prefix;
    uint8_t last[MAP_TARGET_MAX];
    size_t last_n = 0;
    int rv = replica_kv_cursor_open(count->view->views->log, &cursor), closed;
    if (rv != 0)
        return rv;
    map_key_start(&prefix, 'N', &count->view->info.options.id);
    map_key_append(&prefix, count->object->bytes, REPLICA_ID_SIZE);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         rv == 0 && count->n < MAP_LINKS_MAX && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        char text[REPLICA_PATH_MAX + 1];
        struct replica_target_name name;
        const uint8_t *key;
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        n -= prefix.size + 9;
        if (n > sizeof last || (n == last_n && memcmp(key + prefix.size, last, n) == 0))
            continue; /* another generation of the same name */
        memcpy(last, key + prefix.size, n);
        last_n = n;
        rv = map_key_parse_target(last, n, text, &name);
        if (rv == 0)
            rv = count_above(count, &name);
    }
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

int view_count_links(struct replica_view *view, const struct replica_id *object, uint32_t *ret_n)
{
    struct replica_map map = {.kv = view->views->map, .volume = view->info.options.volume};
    struct count count = {.view = view, .object = object};
    int rv = map_each_link(&map, object, view->info.options.snapshot, count_below, &count);
    if (rv >= 0)
        rv = scan_overlay(&count);
    *ret_n = count.n;
    return rv;
}
