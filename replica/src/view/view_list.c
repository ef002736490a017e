/* Listing merges two sorted streams: names of the snapshot, and names of the overlay, which win. */
#include "view/view.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define LIST_READS_MAX 4000 /* of one call that has something to show: it ends early then */

static struct replica_map map_of(const struct replica_view *view)
{
    return (struct replica_map){.kv = view->views->map, .volume = view->info.options.volume};
}

struct name {
    char key[REPLICA_NAME_MAX + 1], shown[REPLICA_NAME_MAX + 1];
    size_t key_n,
        shown_n; /* they differ for an alias, which comes right behind the name that it stands for */
    bool gone;   /* of an overlay name: a tombstone */
};

struct names {
    struct name *items;
    size_t n, capacity;
};

static int add_name(struct names *names, struct replica_path key, struct replica_path shown, bool gone)
{
    struct name *name;
    if (names->n == names->capacity) {
        size_t capacity = names->capacity == 0 ? 16 : names->capacity * 2;
        struct name *items = realloc(names->items, capacity * sizeof *items);
        if (items == NULL)
            return REPLICA_E_NOMEM;
        names->items = items;
        names->capacity = capacity;
    }
    name = &names->items[names->n++];
    memcpy(name->key, key.text, key.size);
    memcpy(name->shown, shown.text, shown.size);
    name->key_n = key.size;
    name->shown_n = shown.size;
    name->gone = gone;
    return 0;
}

static bool is_alias(const struct name *name)
{
    return name->key_n != name->shown_n || memcmp(name->key, name->shown, name->key_n) != 0;
}

static int compare_keys(const struct name *a, const char *b, size_t b_n)
{
    int rv = memcmp(a->key, b, a->key_n < b_n ? a->key_n : b_n);
    return rv != 0 ? rv : (a->key_n > b_n) - (a->key_n < b_n);
}

static int compare_place(const struct map_place *place, const char *b, size_t b_n)
{
    return place->n != b_n || memcmp(place->name, b, b_n) != 0;
}

static int take_name(void *context, struct replica_path key, struct replica_path name,
                     const struct replica_version *version)
{
    (void)version;
    return add_name(context, key, name, false);
}

/* The next overlay names of dir behind `after`, at most max of them, those that are gone too. */
static int overlay_names(struct replica_view *view, struct replica_path dir, struct replica_path after,
                         size_t max, struct names *names, bool *ret_more)
{
    struct replica_kv_cursor *cursor;
    struct view_record record;
    struct map_key key;
    size_t prefix;
    int rv = replica_kv_cursor_open(view->views->log, &cursor), closed;
    if (rv != 0)
        return rv;
    view_record_init(&record);
    map_key_start(&key, 'x', &view->info.options.id);
    map_key_append_path(&key, dir, (struct replica_path){"", 0});
    prefix = key.size;
    map_key_append(&key, after.text, after.size);
    if (after.size > 0)
        map_key_append(&key, "\x01", 1);
    *ret_more = false;
    for (replica_kv_cursor_seek(cursor, key.bytes, key.size); rv == 0 && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *at, *value;
        struct replica_path name;
        uint64_t generation;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &at, &n);
        if (n < prefix + 9 || memcmp(at, key.bytes, prefix) != 0)
            break;
        generation = ~replica_u64_decode(at + n - 8);
        n -= prefix + 9;
        if (n == 0 || n > REPLICA_NAME_MAX || generation <= view->floor || generation > view->generation ||
            generation == view->stage ||
            (names->n > 0 && compare_keys(&names->items[names->n - 1], (const char *)at + prefix, n) == 0))
            continue;
        if (names->n == max) {
            *ret_more = true;
            break;
        }
        name = (struct replica_path){(const char *)at + prefix, n};
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = view_record_decode(value, value_n, &record);
        if (rv == 0)
            rv = add_name(names, name, name, record.tombstone);
    }
    view_record_close(&record);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

typedef int (*list_visit_fn)(void *context, struct replica_path name, const struct replica_version *version);

/* A page in course. It may show nothing, if all its names are gone. */
struct page {
    struct replica_view *view;
    struct replica_path dir; /* whole */
    struct map_place *place;
    size_t max, shown, looks;
    list_visit_fn visit;
    void *context;
};

static int join(struct replica_path dir, const char *name, size_t n,
                char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2], struct replica_path *ret_path)
{
    size_t at = dir.size;
    if (at > 0) {
        memcpy(text, dir.text, at);
        text[at++] = '/';
    }
    memcpy(text + at, name, n);
    *ret_path = (struct replica_path){text, at + n};
    return at + n > REPLICA_PATH_MAX ? REPLICA_E_NOTFOUND : 0;
}

/* An alias is not shown any more once the view says something about its name. */
static int alias_is_stale(struct page *page, const struct name *name, bool *ret_stale)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_target_name target = {.target = REPLICA_TARGET_PATH};
    struct view_record record;
    int rv = join(page->dir, name->key, name->key_n, text, &target.path);
    if (rv != 0)
        return rv;
    view_record_init(&record);
    rv = view_overlay_get(page->view, &target, &record);
    view_record_close(&record);
    *ret_stale = rv == 0;
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int visit_name(struct page *page, const struct name *name)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_path path;
    struct replica_version version;
    bool stale = false;
    int rv = is_alias(name) ? alias_is_stale(page, name, &stale) : 0;
    if (rv == 0)
        rv = join(page->dir, name->shown, name->shown_n, text, &path);
    if (rv != 0 || stale)
        return rv == REPLICA_E_NOTFOUND ? 0 : rv;
    replica_version_init(&version);
    rv = view_lookup_child(page->view, path, &version);
    if (rv == 0) {
        page->shown++;
        rv = page->visit(page->context, (struct replica_path){name->shown, name->shown_n}, &version);
    }
    replica_version_close(&version);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

/* What both streams have come to; names behind that are left to the next page, where the other stream may have earlier ones. */
struct streams {
    struct names below, above;
    struct map_place below_end;
    bool below_more, above_more;
};

/* The name at which the first stream with more to come ends; NULL: there is none. */
static const char *horizon(const struct streams *streams, size_t *ret_n)
{
    const struct name *above = streams->above_more ? &streams->above.items[streams->above.n - 1] : NULL;
    const struct map_place *below = streams->below_more ? &streams->below_end : NULL;
    if (above != NULL && (below == NULL || compare_keys(above, below->name, below->n) < 0)) {
        *ret_n = above->key_n;
        return above->key;
    }
    *ret_n = below == NULL ? 0 : below->n;
    return below == NULL ? NULL : below->name;
}

static void set_place(struct map_place *place, const char *name, size_t n, bool passed)
{
    memcpy(place->name, name, n);
    place->n = n;
    place->passed = passed;
}

/* The next name of both, or NULL; *ret_gone: only the overlay has it, as gone. What is gone may have uncovered a directory, but only where
 * the snapshot has the name. */
static const struct name *next_name(const struct streams *streams, size_t *i, size_t *j, bool *ret_gone)
{
    const struct name *low = *i < streams->below.n ? &streams->below.items[*i] : NULL,
                      *high = *j < streams->above.n ? &streams->above.items[*j] : NULL;
    int order = low == NULL ? 1 : high == NULL ? -1 : compare_keys(low, high->key, high->key_n);
    if (low == NULL && high == NULL)
        return NULL;
    *ret_gone = order > 0 && high->gone;
    *i += order <= 0;
    *j += order >= 0;
    return order <= 0 ? low : high;
}

static int merge(struct page *page, const struct streams *streams, bool *ret_more)
{
    size_t i = 0, j = 0, end_n;
    const char *end = horizon(streams, &end_n);
    const struct name *name;
    bool gone;
    *ret_more = true;
    while ((name = next_name(streams, &i, &j, &gone)) != NULL &&
           (end == NULL || compare_keys(name, end, end_n) <= 0)) {
        int rv;
        if (page->shown == page->max)
            return 0;
        rv = gone ? 0 : visit_name(page, name);
        set_place(page->place, name->key, name->key_n, is_alias(name));
        if (rv != 0)
            return rv;
    }
    *ret_more = end != NULL;
    if (end != NULL)
        set_place(page->place, end, end_n,
                  !streams->below_more || compare_place(&streams->below_end, end, end_n) != 0 ||
                      streams->below_end.passed);
    return 0;
}

/* Without drafts the snapshot is all. */
static int take_shown(void *context, struct replica_path key, struct replica_path name,
                      const struct replica_version *version)
{
    struct page *page = context;
    (void)key;
    page->shown++;
    return page->visit(page->context, name, version);
}

/* Where the overlay goes on: an alias has its place behind the name that it stands for. */
static int overlay_place(struct page *page, char text[REPLICA_PATH_MAX + 1], struct replica_path *ret_after)
{
    char whole[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_path full, target, parent;
    int rv;
    *ret_after = (struct replica_path){page->place->name, page->place->n};
    if (page->place->n == 0 || page->place->passed ||
        join(page->dir, page->place->name, page->place->n, whole, &full) != 0)
        return 0;
    rv = view_alias_base(page->view, full, text, &target);
    if (rv == 0)
        replica_path_split(target, &parent, ret_after);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int list_merged(struct page *page, size_t *reads, bool *ret_more)
{
    struct streams streams = {.below_end = *page->place};
    struct replica_map map = map_of(page->view);
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path after;
    int rv = overlay_place(page, text, &after);
    if (rv != 0)
        return rv;
    rv = map_list_keyed(&map, page->dir, &streams.below_end, page->view->info.options.snapshot, page->looks,
                        page->looks, reads, &streams.below_more, take_name, &streams.below);
    if (rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_NOTDIR)
        rv = 0; /* made in this view */
    if (rv == 0)
        rv = overlay_names(page->view, page->dir, after, page->looks, &streams.above, &streams.above_more);
    if (rv == 0)
        rv = merge(page, &streams, ret_more);
    *reads += 3 * (streams.below.n + streams.above.n);
    free(streams.below.items);
    free(streams.above.items);
    return rv;
}

int view_list_page(struct replica_view *view, struct replica_path dir, struct map_place *place, size_t max,
                   size_t looks, size_t *reads, bool *ret_more, list_visit_fn visit, void *context)
{
    struct page page = {.view = view,
                        .dir = dir,
                        .place = place,
                        .max = max,
                        .looks = looks,
                        .visit = visit,
                        .context = context};
    struct replica_map map = map_of(view);
    int rv;
    *ret_more = false;
    if (view_has_overlay(view))
        return list_merged(&page, reads, ret_more);
    rv = map_list_keyed(&map, dir, place, view->info.options.snapshot, max, looks, reads, ret_more,
                        take_shown, &page);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv; /* a sub-path that does not exist yet */
}

struct counted {
    list_visit_fn visit;
    void *context;
    size_t n;
};

static int count_shown(void *context, struct replica_path name, const struct replica_version *version)
{
    struct counted *counted = context;
    counted->n++;
    return counted->visit(counted->context, name, version);
}

int replica_view_list(struct replica_view *view, struct replica_path dir, struct replica_path after,
                      size_t max, size_t *reads, bool *ret_more, list_visit_fn visit, void *context)
{
    struct counted counted = {.visit = visit, .context = context};
    struct map_place place = {.n = after.size};
    char text[REPLICA_PATH_MAX + 1];
    struct replica_version version;
    struct replica_path full;
    size_t before = *reads;
    int rv;
    if (after.size > REPLICA_NAME_MAX)
        return REPLICA_E_INVALID;
    if (after.size > 0)
        memcpy(place.name, after.text, after.size);
    replica_version_init(&version);
    rv = replica_view_lookup(view, dir, &version);
    if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_NOTDIR;
    replica_version_close(&version);
    if (rv == 0)
        rv = view_full_path(view, dir, text, &full);
    if (rv != 0)
        return rv;
    view_know(&view->listed, full);
    do
        rv = view_list_page(view, full, &place, max - counted.n, VIEW_LOOKS_MAX, reads, ret_more, count_shown,
                            &counted);
    while (rv == 0 && *ret_more && counted.n < max && (counted.n == 0 || *reads - before < LIST_READS_MAX));
    return rv;
}

/* Whether a directory is empty */

static int found_one(void *context, struct replica_path name, const struct replica_version *version)
{
    (void)context;
    (void)name;
    (void)version;
    return 1;
}

/* Where the last call for that directory and snapshot stopped, or the beginning. */
static int resume_scan(struct replica_view *view, struct replica_path dir)
{
    struct view_scan *scan = view->scan;
    if (scan != NULL && scan->snapshot == view->info.options.snapshot && scan->dir_n == dir.size &&
        memcmp(scan->dir, dir.text, dir.size) == 0)
        return 0;
    free(scan);
    view->scan = scan = calloc(1, sizeof *scan);
    if (scan == NULL)
        return REPLICA_E_NOMEM;
    memcpy(scan->dir, dir.text, dir.size);
    scan->dir_n = dir.size;
    scan->snapshot = view->info.options.snapshot;
    return 0;
}

int view_is_empty(struct replica_view *view, struct replica_path dir, bool *ret_empty)
{
    size_t reads = 0;
    bool more;
    int rv = resume_scan(view, dir);
    if (rv != 0)
        return rv;
    rv = view_list_page(view, dir, &view->scan->place, 1, VIEW_LOOKS_MAX, &reads, &more, found_one, NULL);
    if (rv == 0 && more)
        return REPLICA_E_AGAIN;
    free(view->scan);
    view->scan = NULL;
    *ret_empty = rv == 0;
    return rv > 0 ? 0 : rv;
}
