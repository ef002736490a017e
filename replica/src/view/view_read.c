/* Reading: the overlay over the snapshot. */
#include "view/view.h"

#include "replica/error.h"

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
int view_alias_base(struct replica_view *view, struct replica_path full, char ret_text[REPLICA_PATH_MAX + 1],
                    struct replica_path *ret_full)
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
    int rv = view_alias_base(view, full, ret_text, &target.path);
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
    int rv = view_alias_base(view, full, text, &target);
    if (rv == 0)
        return view_alias_target(view, full, text, &target);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv; /* not an alias */
}

int view_lookup_child(struct replica_view *view, struct replica_path full,
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

size_t view_known_prefix(const struct view_known *known, struct replica_path full)
{
    size_t n = 0, prefix = 0;
    if (!known->any)
        return 0;
    while (n < known->size && n < full.size && known->text[n] == full.text[n])
        if (full.text[n++] == '/')
            prefix = n - 1;
    if ((n == known->size && (n == full.size || full.text[n] == '/')) ||
        (n == full.size && known->text[n] == '/'))
        prefix = n;
    return prefix;
}

void view_know(struct view_known *known, struct replica_path path)
{
    if (path.size > 0)
        memmove(known->text, path.text, path.size);
    known->size = path.size;
    known->any = true;
}

void view_know_nothing(struct replica_view *view)
{
    view->parent.any = view->listed.any = false;
}

static void forget_below(struct view_known *known, struct replica_path full)
{
    struct replica_path path = {known->text, known->size}, parent, name;
    if (!known->any || (!replica_path_is_below(path, full) &&
                        (path.size != full.size || memcmp(path.text, full.text, full.size) != 0)))
        return;
    replica_path_split(full, &parent, &name);
    known->size = parent.size;
}

void view_forget_directory(struct replica_view *view, struct replica_path full)
{
    forget_below(&view->parent, full);
    forget_below(&view->listed, full);
}

/* A path is only shown below directories: an overlay that removed or replaced a parent hides what the
 * snapshot has below. */
static int parents_shown(struct replica_view *view, struct replica_path full, size_t from)
{
    struct replica_version version;
    size_t known = view_known_prefix(&view->parent, full), listed = view_known_prefix(&view->listed, full);
    int rv = 0;
    if (known < listed)
        known = listed;
    if (!view_has_overlay(view))
        return 0; /* the snapshot checks its own */
    replica_version_init(&version);
    for (size_t i = from > known + 1 ? from : known + 1; i < full.size && rv == 0; i++) {
        if (full.text[i] != '/')
            continue;
        rv = view_lookup_child(view, (struct replica_path){full.text, i}, &version);
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
        rv = view_lookup_child(view, full, ret_version);
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

int replica_view_version_by(struct replica_view *view, struct replica_path path,
                            const struct replica_id *commit, struct replica_version *ret_version)
{
    struct replica_map map = map_of(view);
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path full;
    int rv = view_full_path(view, path, text, &full);
    return rv != 0 ? rv : replica_map_version_by(&map, full, commit, ret_version);
}
