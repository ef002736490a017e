/* Reading: the overlay over the snapshot. */
#include "view/view.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

static struct replica_map map_of(const struct replica_view *view)
{
    return (struct replica_map){.kv = view->views->map, .volume = view->info.options.volume};
}

bool view_has_overlay(const struct replica_view *view)
{
    return view->info.dirty > 0 || view->own_n > 0 || view->info.commit != REPLICA_COMMIT_NONE;
}

/* A name of an object is shown with the object's entry and the number of its names. Errors: NOTFOUND: the
 * object is gone. */
static int show_object(struct replica_view *view, const struct replica_id *object,
                       struct replica_version *version)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_OBJECT, .object = *object};
    struct replica_stamp stamp = version->stamp;
    uint64_t apply_seq = version->apply_seq;
    uint32_t links = 0;
    bool overlaid;
    int rv = view_count_links(view, &name.object, &links);
    if (rv == 0)
        rv = view_raw_get(view, &name, version, &overlaid);
    if (rv != 0)
        return rv;
    if (!overlaid && replica_stamp_compare(&stamp, &version->stamp) > 0) { /* as the map shows it */
        version->stamp = stamp;
        version->apply_seq = apply_seq;
    }
    version->object = name.object;
    version->links = links;
    return 0;
}

/* Whether the overlay leaves alone what lives in the snapshot. */
static int is_left(void *context, const struct replica_target_name *name)
{
    struct view_record record;
    int rv;
    view_record_init(&record);
    rv = view_overlay_get(context, name, &record);
    view_record_close(&record);
    return rv == REPLICA_E_NOTFOUND ? 1 : rv;
}

/* A non-directory went in the overlay while paths live below it in the snapshot: the directory comes to
 * light. */
static int show_uncovered(struct replica_view *view, struct replica_path full,
                          struct replica_version *version)
{
    struct replica_map map = map_of(view);
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(map.kv, &cursor), closed;
    if (rv != 0)
        return rv;
    rv = map_each_below(&map, cursor, full, view->info.options.snapshot, is_left, view);
    closed = replica_kv_cursor_close(&cursor);
    if (closed != 0 || rv < 0)
        return closed != 0 ? closed : rv;
    if (rv == 0)
        return REPLICA_E_NOTFOUND;
    map_default_directory(version);
    return 0;
}

/* As view_alias_target, also where the view has drafted over what the alias stands for. */
static int alias_target(struct replica_view *view, struct replica_path full,
                        char ret_text[REPLICA_PATH_MAX + 1], struct replica_path *ret_full)
{
    struct replica_target_name target = {.target = REPLICA_TARGET_PATH, .path = full};
    struct replica_map map = map_of(view);
    struct replica_path parent, name;
    struct view_record record;
    char base[REPLICA_NAME_MAX + 1];
    size_t n, at;
    int rv;
    replica_path_split(full, &parent, &name);
    if (name.size > REPLICA_NAME_MAX)
        return REPLICA_E_NOTFOUND;
    rv = map_alias_base(&map, parent, name, view->info.options.snapshot, base, &n);
    if (rv != 0)
        return rv;
    view_record_init(&record);
    rv = view_overlay_get(view, &target, &record);
    if (rv == 0 && !record.tombstone)
        rv = REPLICA_E_NOTFOUND; /* a name of its own, made in this view */
    else if (rv == 0 || rv == REPLICA_E_NOTFOUND)
        rv = 0;
    view_record_close(&record);
    if (rv != 0)
        return rv;
    at = parent.size;
    if (at > 0)
        memcpy(ret_text, parent.text, at);
    if (at > 0)
        ret_text[at++] = '/';
    memcpy(ret_text + at, base, n);
    *ret_full = (struct replica_path){ret_text, at + n};
    return 0;
}

int view_alias_target(struct replica_view *view, struct replica_path full,
                      char ret_text[REPLICA_PATH_MAX + 1], struct replica_path *ret_full)
{
    struct replica_target_name target = {.target = REPLICA_TARGET_PATH};
    struct view_record record;
    int rv = alias_target(view, full, ret_text, &target.path);
    if (rv != 0)
        return rv;
    view_record_init(&record);
    rv = view_overlay_get(view, &target, &record);
    view_record_close(&record);
    if (rv != REPLICA_E_NOTFOUND)
        return rv == 0 ? REPLICA_E_NOTFOUND : rv;
    *ret_full = target.path;
    return 0;
}

/* An alias is gone once the view has drafted over what it stands for. */
static int check_alias(struct replica_view *view, struct replica_path full)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path target;
    int rv = alias_target(view, full, text, &target);
    if (rv == 0)
        return view_alias_target(view, full, text, &target);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv; /* not an alias */
}

static int lookup_full(struct replica_view *view, struct replica_path full,
                       struct replica_version *ret_version)
{
    struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = full};
    struct replica_map map = map_of(view);
    struct replica_id object;
    bool overlaid = false;
    int rv = view_has_overlay(view) ? view_raw_get(view, &name, ret_version, &overlaid) : 0;
    if (overlaid) {
        if (rv == 0 && ret_version->entry.kind == REPLICA_KIND_LINK) {
            object = ret_version->entry.object;
            return show_object(view, &object, ret_version);
        }
        /* A directory was empty when it was removed, so there is nothing below. */
        return rv == REPLICA_E_NOTFOUND && ret_version->entry.kind != REPLICA_KIND_DIRECTORY
                   ? show_uncovered(view, full, ret_version)
                   : rv;
    }
    if (rv != 0 && rv != REPLICA_E_NOTFOUND)
        return rv;
    rv = replica_map_lookup(&map, full, view->info.options.snapshot, ret_version);
    if (rv == REPLICA_E_NOTDIR && view_has_overlay(view))
        return REPLICA_E_NOTFOUND; /* a directory of this view where the snapshot has a file */
    if (rv == 0 && view_has_overlay(view))
        rv = check_alias(view, full);
    if (rv != 0 || replica_id_is_zero(&ret_version->object) || !view_has_overlay(view))
        return rv;
    object = ret_version->object; /* it may have been written, or named, in this view */
    return show_object(view, &object, ret_version);
}

/* A path is only shown below directories: an overlay that removed or replaced a parent hides what the
 * snapshot has below. */
static int parents_shown(struct replica_view *view, struct replica_path full, size_t from)
{
    struct replica_version version;
    int rv = 0;
    if (!view_has_overlay(view))
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

int replica_view_lookup(struct replica_view *view, struct replica_path path,
                        struct replica_version *ret_version)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path full;
    int rv = view_full_path(view, path, text, &full);
    if (rv == 0)
        rv = parents_shown(view, full, view->info.options.sub.size + 1);
    if (rv == 0)
        rv = lookup_full(view, full, ret_version);
    if (rv == REPLICA_E_NOTFOUND &&
        path.size == 0) { /* a sub-path that does not exist yet is an empty directory */
        replica_version_close(ret_version);
        ret_version->entry.kind = REPLICA_KIND_DIRECTORY;
        ret_version->entry.mode = 0755;
        ret_version->links = 1;
        rv = 0;
    }
    return rv;
}

/* Listing merges two sorted streams: names of the snapshot, and names of the overlay, which win. */
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

static int take_name(void *context, struct replica_path key, struct replica_path name,
                     const struct replica_version *version)
{
    (void)version;
    return add_name(context, key, name, false);
}

/* Overlay names of dir behind `after`, at most max of them that are not gone. */
static int overlay_names(struct replica_view *view, struct replica_path dir, struct replica_path after,
                         size_t max, struct names *names, bool *ret_more)
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
            (names->n > 0 && compare_keys(&names->items[names->n - 1], (const char *)at + prefix, n) == 0))
            continue;
        if (shown == max) {
            *ret_more = true;
            break;
        }
        name = (struct replica_path){(const char *)at + prefix, n};
        replica_kv_cursor_value(cursor, &value, &value_n);
        rv = view_record_decode(value, value_n, &record);
        if (rv == 0)
            rv = add_name(names, name, name, record.tombstone);
        shown += !record.tombstone;
    }
    view_record_close(&record);
    closed = replica_kv_cursor_close(&cursor);
    return closed != 0 ? closed : rv;
}

typedef int (*list_visit_fn)(void *context, struct replica_path name, const struct replica_version *version);

/* A listing in course. One page of it may show nothing, if all its names are gone from the overlay: then the
 * next one is looked at. */
struct view_listing {
    struct replica_view *view;
    struct replica_path dir; /* whole */
    size_t max, shown;
    char last[REPLICA_NAME_MAX + 1]; /* dealt with */
    size_t last_n;
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
static int alias_is_stale(struct view_listing *listing, const struct name *name, bool *ret_stale)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_target_name target = {.target = REPLICA_TARGET_PATH};
    struct view_record record;
    int rv = join(listing->dir, name->key, name->key_n, text, &target.path);
    if (rv != 0)
        return rv;
    view_record_init(&record);
    rv = view_overlay_get(listing->view, &target, &record);
    view_record_close(&record);
    *ret_stale = rv == 0;
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int visit_name(struct view_listing *listing, const struct name *name)
{
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_path path;
    struct replica_version version;
    bool stale = false;
    int rv = is_alias(name) ? alias_is_stale(listing, name, &stale) : 0;
    if (rv == 0)
        rv = join(listing->dir, name->shown, name->shown_n, text, &path);
    if (rv != 0 || stale)
        return rv == REPLICA_E_NOTFOUND ? 0 : rv;
    replica_version_init(&version);
    rv = lookup_full(listing->view, path, &version);
    if (rv == 0) {
        listing->shown++;
        rv = listing->visit(listing->context, (struct replica_path){name->shown, name->shown_n}, &version);
    }
    replica_version_close(&version);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int merge(struct view_listing *listing, const struct names *below, bool below_more,
                 const struct names *above, bool above_more, bool *ret_more)
{
    size_t i = 0, j = 0;
    int rv = 0;
    while (rv == 0 && (i < below->n || j < above->n)) {
        const struct name *low = i < below->n ? &below->items[i] : NULL,
                          *high = j < above->n ? &above->items[j] : NULL, *name;
        int order = low == NULL ? 1 : high == NULL ? -1 : compare_keys(low, high->key, high->key_n);
        /* Past the end of a page that has more, the other stream's names may not be the next ones. */
        if ((low == NULL && below_more) || (high == NULL && above_more) || listing->shown == listing->max) {
            *ret_more = true;
            return 0;
        }
        name = order <= 0 ? low : high;
        memcpy(listing->last, name->shown, name->shown_n);
        listing->last_n = name->shown_n;
        if (order <= 0 || !name->gone) /* what is gone may have uncovered a directory, but only where the
                                          snapshot has the name */
            rv = visit_name(listing, name);
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
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2], alias_text[REPLICA_PATH_MAX + 1];
    struct names below = {.n = 0}, above = {.n = 0};
    struct replica_map map = map_of(listing->view);
    struct replica_path full, target, parent, behind = after;
    bool below_more = false, above_more = false;
    int rv = map_list_keyed(&map, listing->dir, after, listing->view->info.options.snapshot, listing->max,
                            reads, &below_more, take_name, &below);
    if (rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_NOTDIR)
        rv = 0; /* made in this view */
    if (rv == 0 && after.size > 0 && join(listing->dir, after.text, after.size, text, &full) == 0) {
        rv = alias_target(listing->view, full, alias_text, &target);
        if (rv == 0)
            replica_path_split(target, &parent, &behind);
        rv = rv == REPLICA_E_NOTFOUND ? 0 : rv;
    }
    if (rv == 0)
        rv = overlay_names(listing->view, listing->dir, behind, listing->max, &above, &above_more);
    if (rv == 0)
        rv = merge(listing, &below, below_more, &above, above_more, ret_more);
    *reads += below.n + above.n;
    free(below.items);
    free(above.items);
    return rv;
}

int replica_view_list(struct replica_view *view, struct replica_path dir, struct replica_path after,
                      size_t max, size_t *reads, bool *ret_more, list_visit_fn visit, void *context)
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
