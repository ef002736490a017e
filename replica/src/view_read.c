/* Reading: the overlay over the snapshot. */
#include "view.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

static struct replica_map map_of(const struct replica_view *view)
{
    return (struct replica_map){.kv = view->views->map, .volume = view->info.options.volume};
}

/* A LINK is shown with its object's entry. */
static int follow_link(struct replica_view *view, struct replica_version *version)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_OBJECT, .object = version->entry.object};
    uint32_t links = version->links;
    bool overlaid;
    int rv = view_raw_get(view, &name, version, &overlaid);
    version->object = name.object;
    version->links = links > 2 ? links : 2;
    return rv;
}

static int lookup_full(struct replica_view *view, struct replica_path full, struct replica_version *ret_version)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = full};
    struct replica_map map = map_of(view);
    struct replica_target_name object;
    struct replica_version overlaid_object;
    bool overlaid;
    int rv = view_raw_get(view, &name, ret_version, &overlaid);
    if (overlaid) {
        if (rv == 0 && ret_version->entry.kind == REPLICA_KIND_LINK)
            return follow_link(view, ret_version);
        return rv;
    }
    rv = replica_map_lookup(&map, full, view->info.options.snapshot, ret_version);
    if (rv != 0 || replica_id_is_zero(&ret_version->object))
        return rv;
    object = (struct replica_target_name){.target = REPLICA_TARGET_OBJECT, .object = ret_version->object};
    replica_version_init(&overlaid_object);
    rv = view_raw_get(view, &object, &overlaid_object, &overlaid);
    if (overlaid) { /* written through another name in this view */
        overlaid_object.object = ret_version->object;
        overlaid_object.links = ret_version->links;
        replica_version_close(ret_version);
        *ret_version = overlaid_object;
        return rv;
    }
    replica_version_close(&overlaid_object);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

/* A path is only shown below directories: an overlay that removed or replaced a parent hides what the snapshot has below. */
static int parents_shown(struct replica_view *view, struct replica_path full, size_t from)
{
    struct replica_version version;
    int rv = 0;
    if (view->info.dirty == 0 && view->own_n == 0 && view->info.commit == REPLICA_COMMIT_NONE)
        return 0; /* the snapshot checks its own */
    replica_version_init(&version);
    for (size_t i = from; i < full.size && rv == 0; i++) {
        if (full.text[i] != '/' || i == 0)
            continue;
        rv = lookup_full(view, (struct replica_path){full.text, i}, &version);
        if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
            rv = REPLICA_E_NOTDIR;
    }
    replica_version_close(&version);
    return rv;
}

int replica_view_lookup(struct replica_view *view, struct replica_path path, struct replica_version *ret_version)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path full;
    int rv = view_full_path(view, path, text, &full);
    if (rv == 0)
        rv = parents_shown(view, full, view->info.options.sub.size + 1);
    if (rv == 0)
        rv = lookup_full(view, full, ret_version);
    if (rv == REPLICA_E_NOTFOUND && path.size == 0) { /* a sub-path that does not exist yet is an empty directory */
        replica_version_close(ret_version);
        ret_version->entry.kind = REPLICA_KIND_DIRECTORY;
        ret_version->entry.mode = 0755;
        ret_version->links = 1;
        rv = 0;
    }
    return rv;
}

/* Listing merges two sorted streams: names of the snapshot, and names of the overlay, which win. */
struct names {
    char (*items)[REPLICA_NAME_MAX + 1];
    size_t *sizes;
    bool *gone; /* of an overlay name: a tombstone */
    size_t n, capacity;
};

static int add_name(struct names *names, const char *text, size_t n, bool gone)
{
    if (names->n == names->capacity) {
        size_t capacity = names->capacity == 0 ? 64 : names->capacity * 2;
        char(*items)[REPLICA_NAME_MAX + 1] = realloc(names->items, capacity * sizeof *items);
        if (items == NULL)
            return REPLICA_E_NOMEM;
        names->items = items;
        size_t *sizes = realloc(names->sizes, capacity * sizeof *sizes);
        if (sizes == NULL)
            return REPLICA_E_NOMEM;
        names->sizes = sizes;
        bool *tombs = realloc(names->gone, capacity * sizeof *tombs);
        if (tombs == NULL)
            return REPLICA_E_NOMEM;
        names->gone = tombs;
        names->capacity = capacity;
    }
    memcpy(names->items[names->n], text, n);
    names->sizes[names->n] = n;
    names->gone[names->n++] = gone;
    return 0;
}

static void close_names(struct names *names)
{
    free(names->items);
    free(names->sizes);
    free(names->gone);
}

static int compare_names(const char *a, size_t a_n, const char *b, size_t b_n)
{
    int rv = memcmp(a, b, a_n < b_n ? a_n : b_n);
    return rv != 0 ? rv : (a_n > b_n) - (a_n < b_n);
}

static int take_name(void *context, struct replica_path name, const struct replica_version *version)
{
    (void)version;
    return add_name(context, name.text, name.size, false);
}

/* Overlay names of dir behind `after`, at most max of them that are not gone. */
static int overlay_names(struct replica_view *view, struct replica_path dir, struct replica_path after, size_t max, struct names *names,
                         bool *ret_more)
{
    struct replica_kv_cursor *cursor;
    struct view_record record;
    struct map_key key;
    size_t prefix, shown = 0;
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
    for (replica_kv_cursor_seek(cursor, key.bytes, key.size); rv == 0 && replica_kv_cursor_valid(cursor); replica_kv_cursor_next(cursor)) {
        const uint8_t *at, *value;
        uint64_t generation;
        size_t n, value_n;
        replica_kv_cursor_key(cursor, &at, &n);
        if (n < prefix + 9 || memcmp(at, key.bytes, prefix) != 0)
            break;
        generation = ~replica_u64_decode(at + n - 8);
        n -= prefix + 9;
        if (n == 0 || n > REPLICA_NAME_MAX || generation <= view->floor || generation > view->generation ||
            (names->n > 0 && compare_names(names->items[names->n - 1], names->sizes[names->n - 1], (const char *)at + prefix, n) == 0))
            continue;
        if (shown == max) {
            *ret_more = true;
            break;
        }
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = view_record_decode(value, value_n, &record);
        if (rv == 0)
            rv = add_name(names, (const char *)at + prefix, n, record.tombstone);
        shown += !record.tombstone;
    }
    view_record_close(&record);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

typedef int (*list_visit_fn)(void *context, struct replica_path name, const struct replica_version *version);

/* A listing in course. One page of it may show nothing, if all its names are gone from the overlay: then the next one is looked at. */
struct view_listing {
    struct replica_view *view;
    struct replica_path dir; /* whole */
    size_t max, shown;
    char last[REPLICA_NAME_MAX + 1]; /* dealt with */
    size_t last_n;
    list_visit_fn visit;
    void *context;
};

static int visit_name(struct view_listing *listing, const char *name, size_t n)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_path path = {text, listing->dir.size};
    struct replica_version version;
    int rv;
    memcpy(text, listing->dir.text, listing->dir.size);
    if (path.size > 0)
        text[path.size++] = '/';
    memcpy(text + path.size, name, n);
    path.size += n;
    replica_version_init(&version);
    rv = lookup_full(listing->view, path, &version);
    if (rv == 0) {
        listing->shown++;
        rv = listing->visit(listing->context, (struct replica_path){name, n}, &version);
    }
    replica_version_close(&version);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int merge(struct view_listing *listing, const struct names *below, bool below_more, const struct names *above, bool above_more,
                 bool *ret_more)
{
    size_t i = 0, j = 0;
    int rv = 0;
    while (rv == 0 && (i < below->n || j < above->n)) {
        int order = i == below->n ? 1 : j == above->n ? -1 : compare_names(below->items[i], below->sizes[i], above->items[j], above->sizes[j]);
        const struct names *from = order < 0 ? below : above;
        size_t at = order < 0 ? i : j;
        /* Past the end of a page that has more, the other stream's names may not be the next ones. */
        if ((i == below->n && below_more) || (j == above->n && above_more) || listing->shown == listing->max) {
            *ret_more = true;
            return 0;
        }
        memcpy(listing->last, from->items[at], from->sizes[at]);
        listing->last_n = from->sizes[at];
        if (!from->gone[at])
            rv = visit_name(listing, from->items[at], from->sizes[at]);
        if (order <= 0)
            i++;
        if (order >= 0)
            j++;
    }
    *ret_more = below_more || above_more;
    return rv;
}

static int list_page(struct view_listing *listing, struct replica_path after, size_t *reads, bool *ret_more)
{
    struct names below = {.n = 0}, above = {.n = 0};
    struct replica_map map = map_of(listing->view);
    bool below_more = false, above_more = false;
    int rv = replica_map_list(&map, listing->dir, after, listing->view->info.options.snapshot, listing->max, reads, &below_more, take_name,
                              &below);
    if (rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_NOTDIR)
        rv = 0; /* made in this view */
    if (rv == 0)
        rv = overlay_names(listing->view, listing->dir, after, listing->max, &above, &above_more);
    if (rv == 0)
        rv = merge(listing, &below, below_more, &above, above_more, ret_more);
    *reads += below.n + above.n;
    close_names(&below);
    close_names(&above);
    return rv;
}

int replica_view_list(struct replica_view *view, struct replica_path dir, struct replica_path after, size_t max, size_t *reads, bool *ret_more,
                      list_visit_fn visit, void *context)
{
    struct view_listing listing = {.view = view, .max = max, .visit = visit, .context = context};
    char text[REPLICA_PATH_MAX + 1], passed[REPLICA_NAME_MAX + 1];
    struct replica_version version;
    int rv;
    replica_version_init(&version);
    rv = replica_view_lookup(view, dir, &version);
    if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_NOTDIR;
    replica_version_close(&version);
    if (rv == 0)
        rv = view_full_path(view, dir, text, &listing.dir);
    if (rv != 0)
        return rv;
    do {
        listing.last_n = 0;
        rv = list_page(&listing, after, reads, ret_more);
        memcpy(passed, listing.last, listing.last_n);
        after = (struct replica_path){passed, listing.last_n};
    } while (rv == 0 && listing.shown == 0 && *ret_more && listing.last_n > 0);
    return rv;
}
