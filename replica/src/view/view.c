/* The table of views and their records. */
#include "view/view.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

static void pack_commit(struct replica_buffer *out, const struct view_commit *commit)
{
    replica_pack_uint(out, commit->low);
    replica_pack_uint(out, commit->high);
    replica_pack_id(out, &commit->commit);
    replica_pack_stamp(out, &commit->stamp);
    replica_pack_dot(out, &commit->dot);
    replica_pack_uint(out, commit->time_ms);
}

static void read_commit(struct replica_pack_reader *reader, struct view_commit *commit)
{
    replica_pack_read_uint(reader, UINT64_MAX, &commit->low);
    replica_pack_read_uint(reader, UINT64_MAX, &commit->high);
    replica_pack_read_id(reader, &commit->commit);
    replica_pack_read_stamp(reader, &commit->stamp);
    replica_pack_read_dot(reader, &commit->dot);
    replica_pack_read_uint(reader, UINT64_MAX, &commit->time_ms);
}

#define COMMIT_ITEMS 7
#define VIEW_ITEMS   (12 + 2 * COMMIT_ITEMS + 2)

void view_write(const struct replica_view *view, struct replica_kv_batch *log)
{
    const struct replica_view_options *options = &view->info.options;
    uint8_t key[1 + REPLICA_ID_SIZE] = {'w'};
    struct replica_buffer value;
    memcpy(key + 1, options->id.bytes, REPLICA_ID_SIZE);
    replica_buffer_init(&value);
    replica_pack_array(&value, VIEW_ITEMS);
    replica_pack_id(&value, &options->volume);
    replica_pack_str(&value, options->sub.text, options->sub.size);
    replica_pack_uint(&value, options->flags);
    replica_pack_uint(&value, options->uid);
    replica_pack_uint(&value, options->snapshot);
    replica_vector_pack(&value, &options->vector);
    replica_pack_cstr(&value, options->label);
    replica_pack_uint(&value, view->generation);
    replica_pack_uint(&value, view->dirty_low);
    replica_pack_uint(&value, view->floor);
    replica_pack_bool(&value, view->sweeping);
    replica_pack_uint(&value, view->info.commit);
    pack_commit(&value, &view->frozen);
    pack_commit(&value, &view->last);
    replica_pack_array(&value, view->own_n * COMMIT_ITEMS);
    for (size_t i = 0; i < view->own_n; i++)
        pack_commit(&value, &view->own[i]);
    replica_pack_uint(&value, view->stage);
    replica_kv_batch_put(log, key, sizeof key, value.data, value.size);
    if (value.failed)
        log->failed = true;
    replica_buffer_close(&value);
}

void view_refresh_own(struct replica_view *view)
{
    view->info.own.n = 0;
    for (size_t i = 0; i < view->own_n; i++)
        (void)replica_vector_raise(&view->info.own, &view->own[i].dot.actor, view->own[i].dot.seq);
    view->info.commit_id = view->frozen.commit;
    view->info.stamp = view->frozen.stamp;
}

static int read_view(struct replica_view *view, const uint8_t *data, size_t n)
{
    struct replica_view_options *options = &view->info.options;
    struct replica_pack_reader reader;
    const char *sub, *label;
    uint64_t flags, uid, commit;
    size_t items, own, sub_n, label_n;
    replica_pack_reader_init(&reader, data, n);
    replica_pack_read_array(&reader, 128, &items);
    replica_pack_read_id(&reader, &options->volume);
    replica_pack_read_str(&reader, REPLICA_PATH_MAX, &sub, &sub_n);
    replica_pack_read_uint(&reader, UINT32_MAX, &flags);
    replica_pack_read_uint(&reader, UINT32_MAX, &uid);
    replica_pack_read_uint(&reader, UINT64_MAX, &options->snapshot);
    replica_vector_read(&reader, &options->vector);
    replica_pack_read_str(&reader, REPLICA_VIEW_LABEL_MAX, &label, &label_n);
    replica_pack_read_uint(&reader, UINT64_MAX, &view->generation);
    replica_pack_read_uint(&reader, UINT64_MAX, &view->dirty_low);
    replica_pack_read_uint(&reader, UINT64_MAX, &view->floor);
    replica_pack_read_bool(&reader, &view->sweeping);
    replica_pack_read_uint(&reader, REPLICA_COMMIT_STAMPED, &commit);
    read_commit(&reader, &view->frozen);
    read_commit(&reader, &view->last);
    replica_pack_read_array(&reader, VIEW_OWN_MAX * COMMIT_ITEMS, &own);
    if (reader.failed || items < VIEW_ITEMS - 1 || items > VIEW_ITEMS || own % COMMIT_ITEMS != 0)
        return REPLICA_E_CORRUPT;
    for (view->own_n = 0; view->own_n < own / COMMIT_ITEMS; view->own_n++)
        read_commit(&reader, &view->own[view->own_n]);
    if (items == VIEW_ITEMS) /* earlier ones had no stage */
        replica_pack_read_uint(&reader, UINT64_MAX, &view->stage);
    if (replica_pack_reader_finish(&reader) != 0 || !replica_path_is_canonical(sub, sub_n))
        return REPLICA_E_CORRUPT;
    memcpy(view->sub, sub, sub_n);
    options->sub = (struct replica_path){view->sub, sub_n};
    memcpy(options->label, label, label_n);
    view->info.generation = view->generation;
    options->flags = (uint32_t)flags;
    options->uid = (uint32_t)uid;
    view->info.commit = (enum replica_commit_state)commit;
    view_refresh_own(view);
    return 0;
}

/* How many records are dirty, and how many would be again if the commit in flight were thawed: counted at
 * load, kept up afterwards. */
static int count_dirty(struct replica_view *view)
{
    struct replica_kv_cursor *cursor;
    uint8_t prefix[1 + REPLICA_ID_SIZE] = {'x'};
    int rv = replica_kv_cursor_open(view->views->log, &cursor);
    if (rv != 0)
        return rv;
    memcpy(prefix + 1, view->info.options.id.bytes, REPLICA_ID_SIZE);
    for (replica_kv_cursor_seek(cursor, prefix, sizeof prefix); replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key;
        uint64_t generation;
        size_t n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < sizeof prefix + 9 || memcmp(key, prefix, sizeof prefix) != 0)
            break;
        generation = ~replica_u64_decode(key + n - 8);
        if (generation == view->stage)
            continue;
        if (view->info.commit != REPLICA_COMMIT_NONE && generation >= view->frozen.low &&
            generation <= view->frozen.high)
            view->frozen_dirty++;
        view->info.dirty += generation >= view->dirty_low &&
                            (view->info.commit == REPLICA_COMMIT_NONE || generation > view->frozen.high);
    }
    return replica_kv_cursor_close(&cursor);
}

static size_t position(const struct replica_views *views, const struct replica_id *id)
{
    size_t low = 0, high = views->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (replica_id_compare(&views->items[middle]->info.options.id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(struct replica_views *views, struct replica_view *view)
{
    size_t at = position(views, &view->info.options.id);
    memmove(views->items + at + 1, views->items + at, (views->n - at) * sizeof(struct replica_view *));
    views->items[at] = view;
    views->n++;
}

static int load(struct replica_views *views)
{
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(views->log, &cursor), closed;
    if (rv != 0)
        return rv;
    for (replica_kv_cursor_seek(cursor, "w", 1);
         rv == 0 && replica_kv_cursor_valid(cursor) && views->n < REPLICA_VIEWS_MAX;
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        struct replica_view *view;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n != 1 + REPLICA_ID_SIZE || key[0] != 'w')
            break;
        replica_kv_cursor_value(cursor, &value, &value_n);
        view = calloc(1, sizeof *view);
        if (view == NULL) {
            rv = REPLICA_E_NOMEM;
            break;
        }
        view->views = views;
        memcpy(view->info.options.id.bytes, key + 1, REPLICA_ID_SIZE);
        rv = read_view(view, value, value_n);
        insert(views, view);
    }
    closed = replica_kv_cursor_close(&cursor);
    for (size_t i = 0; i < views->n && rv == 0; i++)
        rv = count_dirty(views->items[i]);
    return closed != 0 ? closed : rv;
}

static void free_view(struct replica_view *view)
{
    free(view->move);
    free(view->scan);
    free(view);
}

int replica_views_new(struct replica_kv *log, struct replica_kv *map, struct replica_views **ret_views)
{
    struct replica_views *views = calloc(1, sizeof *views);
    int rv;
    if (views == NULL)
        return REPLICA_E_NOMEM;
    views->log = log;
    views->map = map;
    views->items = calloc(REPLICA_VIEWS_MAX, sizeof(struct replica_view *));
    rv = views->items == NULL ? REPLICA_E_NOMEM : load(views);
    if (rv != 0) {
        replica_views_destroy(&views);
        return rv;
    }
    *ret_views = views;
    return 0;
}

void replica_views_destroy(struct replica_views **views)
{
    if (*views == NULL)
        return;
    for (size_t i = 0; i < (*views)->n; i++)
        free_view((*views)->items[i]);
    free((*views)->items);
    free(*views);
    *views = NULL;
}

int replica_view_open(struct replica_views *views, const struct replica_view_options *options,
                      struct replica_kv_batch *log, struct replica_view **ret_view)
{
    struct replica_view *view;
    size_t at = position(views, &options->id);
    if (!replica_path_is_canonical(options->sub.text, options->sub.size) ||
        memchr(options->label, '\0', sizeof options->label) == NULL)
        return REPLICA_E_INVALID;
    if ((at < views->n && replica_id_equal(&views->items[at]->info.options.id, &options->id)) ||
        (options->label[0] != '\0' &&
         replica_view_find_label(views, &options->volume, options->label) != NULL))
        return REPLICA_E_EXISTS;
    if (views->n == REPLICA_VIEWS_MAX)
        return REPLICA_E_NOSPACE;
    view = calloc(1, sizeof *view);
    if (view == NULL)
        return REPLICA_E_NOMEM;
    view->views = views;
    view->info.options = *options;
    if (options->sub.size > 0)
        memcpy(view->sub, options->sub.text, options->sub.size);
    view->info.options.sub.text = view->sub;
    view->info.generation = view->generation = view->dirty_low = 1;
    insert(views, view);
    view_write(view, log);
    *ret_view = view;
    return 0;
}

int view_forget_records(struct replica_view *view, uint64_t low, uint64_t high, size_t max,
                        struct replica_kv_batch *log, bool *ret_left)
{
    struct replica_kv_cursor *cursor;
    struct view_record record;
    struct map_key prefix;
    size_t done = 0;
    int rv = replica_kv_cursor_open(view->views->log, &cursor), closed;
    if (rv != 0)
        return rv;
    *ret_left = false;
    view_record_init(&record);
    map_key_start(&prefix, 'x', &view->info.options.id);
    for (replica_kv_cursor_seek(cursor, prefix.bytes, prefix.size);
         rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        struct map_key copy = {.size = 0};
        uint64_t generation;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < prefix.size + 9 || memcmp(key, prefix.bytes, prefix.size) != 0)
            break;
        generation = ~replica_u64_decode(key + n - 8);
        if (generation < low || generation > high)
            continue;
        if (done++ == max) {
            *ret_left = true;
            break;
        }
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = view_record_decode(value, value_n, &record);
        map_key_append(&copy, key, n - 9);
        if (rv == 0)
            view_index(view, &copy, generation, &record.entry, false, log);
        replica_kv_batch_delete(log, key, n);
    }
    view_record_close(&record);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

int replica_view_close(struct replica_view *view, size_t max, struct replica_kv_batch *log)
{
    struct replica_views *views = view->views;
    uint8_t key[1 + REPLICA_ID_SIZE] = {'w'};
    size_t at = position(views, &view->info.options.id);
    bool left;
    int rv;
    if (view->info.commit != REPLICA_COMMIT_NONE)
        return REPLICA_E_BUSY;
    if (!view->closing) { /* after a restart half way it is empty, and can be closed again */
        view->closing = true;
        view->floor = view->generation++;
        view->dirty_low = view->info.generation = view->generation;
        view->info.dirty = 0;
        view->own_n = 0;
        free(view->move);
        view->move = NULL;
        view->stage = 0;
        view_refresh_own(view);
        view_write(view, log);
    }
    rv = view_forget_records(view, 0, UINT64_MAX, max, log, &left);
    if (rv != 0 || left)
        return rv != 0 ? rv : REPLICA_E_AGAIN;
    memcpy(key + 1, view->info.options.id.bytes, REPLICA_ID_SIZE);
    replica_kv_batch_delete(log, key, sizeof key);
    key[0] = 'J';
    replica_kv_batch_delete(log, key, sizeof key);
    views->n--;
    memmove(views->items + at, views->items + at + 1, (views->n - at) * sizeof(struct replica_view *));
    free_view(view);
    return 0;
}

int replica_view_reload(struct replica_view *view, uint64_t snapshot, const struct replica_vector *vector,
                        size_t max,
                        bool (*covers)(void *context, const struct replica_id *commit,
                                       const struct replica_dot *dot),
                        void *context, struct replica_kv_batch *log)
{
    size_t covered = 0;
    bool left = false;
    int rv = 0;
    while (covered < view->own_n && covers(context, &view->own[covered].commit, &view->own[covered].dot))
        covered++;
    if (covered > 0) {
        view->floor = view->own[covered - 1].high;
        view->sweeping = true;
        view->own_n -= covered;
        memmove(view->own, view->own + covered, view->own_n * sizeof view->own[0]);
    }
    if (view->move != NULL && view->info.options.snapshot != snapshot)
        view->move->stale = true; /* what came into directories that were passed already moves, too */
    view->info.options.snapshot = snapshot;
    view->info.options.vector = *vector;
    view_know_nothing(view);
    if (view->sweeping)
        rv = view_forget_records(view, 0, view->floor, max, log, &left);
    view->sweeping = left;
    view_refresh_own(view);
    view_write(view, log);
    return rv != 0 ? rv : left ? REPLICA_E_AGAIN : 0;
}

struct replica_view *replica_view_find(struct replica_views *views, const struct replica_id *id)
{
    size_t at = position(views, id);
    if (at < views->n && replica_id_equal(&views->items[at]->info.options.id, id) &&
        !views->items[at]->closing)
        return views->items[at];
    return NULL;
}

struct replica_view *replica_view_find_label(struct replica_views *views, const struct replica_id *volume,
                                             const char *label)
{
    for (size_t i = 0; i < views->n; i++)
        if (replica_id_equal(&views->items[i]->info.options.volume, volume) &&
            strcmp(views->items[i]->info.options.label, label) == 0)
            return views->items[i];
    return NULL;
}

size_t replica_views_count(const struct replica_views *views)
{
    return views->n;
}

struct replica_view *replica_views_at(struct replica_views *views, size_t index)
{
    return views->items[index];
}

const struct replica_view_info *replica_view_info(const struct replica_view *view)
{
    return &view->info;
}

uint64_t replica_views_floor(const struct replica_views *views, const struct replica_id *volume)
{
    uint64_t floor = UINT64_MAX;
    for (size_t i = 0; i < views->n; i++)
        if (replica_id_equal(&views->items[i]->info.options.volume, volume) &&
            views->items[i]->info.options.snapshot < floor)
            floor = views->items[i]->info.options.snapshot;
    return floor;
}

static bool is_of_volume(const struct replica_views *views, const struct replica_id *view,
                         const struct replica_id *volume)
{
    size_t at = position(views, view); /* one that is being closed counts */
    return volume == NULL || (at < views->n && replica_id_equal(&views->items[at]->info.options.id, view) &&
                              replica_id_equal(&views->items[at]->info.options.volume, volume));
}

int replica_views_refer(struct replica_views *views, const struct replica_id *volume,
                        const struct replica_content_id *content, bool *ret_refers)
{
    const size_t prefix = 1 + REPLICA_CONTENT_ID_SIZE, head = prefix + REPLICA_ID_SIZE;
    uint8_t seek[1 + REPLICA_CONTENT_ID_SIZE + REPLICA_ID_SIZE + 1] = {'X'};
    struct replica_kv_cursor *cursor;
    size_t seek_n = prefix;
    int rv = replica_kv_cursor_open(views->log, &cursor);
    if (rv != 0)
        return rv;
    replica_content_id_encode(content, seek + 1);
    *ret_refers = false;
    for (size_t i = 0; i <= REPLICA_VIEWS_VISITED_MAX && !*ret_refers; i++) {
        struct replica_id view;
        const uint8_t *key;
        size_t n;
        replica_kv_cursor_seek(cursor, seek, seek_n);
        if (!replica_kv_cursor_valid(cursor))
            break;
        replica_kv_cursor_key(cursor, &key, &n);
        if (n < head || memcmp(key, seek, prefix) != 0)
            break;
        memcpy(view.bytes, key + prefix, REPLICA_ID_SIZE);
        *ret_refers = is_of_volume(views, &view, volume);
        memcpy(seek + prefix, view.bytes, REPLICA_ID_SIZE);
        seek[head] = 0xff; /* past every target-key of that view: they begin with 00 or 01 */
        seek_n = sizeof seek;
    }
    return replica_kv_cursor_close(&cursor);
}
