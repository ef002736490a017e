/* Writing: each verb as records of the newest generation. */
#include "view/view.h"

#include "replica/error.h"

#include <string.h>

static struct replica_target_name path_name(struct replica_path full)
{
    return (struct replica_target_name){.target = REPLICA_TARGET_PATH, .path = full};
}

/* Whether path is shown as a directory; one that is only shown by rule (revived) gets its entry written. */
static int check_directory(struct replica_view *view, struct replica_path path, struct replica_kv_batch *log)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path full;
    struct replica_version version, raw;
    struct replica_target_name target;
    bool overlaid;
    int rv;
    replica_version_init(&version);
    replica_version_init(&raw);
    rv = replica_view_lookup(view, path, &version);
    if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_NOTDIR;
    if (rv == 0 && path.size > 0) {
        rv = view_full_path(view, path, text, &full);
        target = path_name(full);
        if (rv == 0)
            rv = view_raw_get(view, &target, &raw, &overlaid);
        if (rv == REPLICA_E_NOTFOUND)
            rv = view_overlay_put(view, &target, false, &version.entry, log);
    }
    replica_version_close(&version);
    replica_version_close(&raw);
    return rv;
}

/* The directories of the view's own sub-path are made by the first write below it. */
static int check_sub(struct replica_view *view, struct replica_kv_batch *log)
{
    struct replica_entry entry = {.kind = REPLICA_KIND_DIRECTORY, .mode = 0755};
    struct replica_path sub = view->info.options.sub;
    int rv = 0;
    for (size_t i = 1; i <= sub.size && rv == 0; i++) {
        struct replica_target_name target = path_name((struct replica_path){sub.text, i});
        struct replica_version raw;
        bool overlaid;
        if (i < sub.size && sub.text[i] != '/')
            continue;
        replica_version_init(&raw);
        rv = view_raw_get(view, &target, &raw, &overlaid);
        if (rv == REPLICA_E_NOTFOUND)
            rv = view_overlay_put(view, &target, false,
                                  raw.entry.kind == REPLICA_KIND_DIRECTORY ? &raw.entry : &entry, log);
        replica_version_close(&raw);
    }
    return rv;
}

/* All directories above path: the first commit that touches anything below a revived one writes its entry. */
static int check_parent(struct replica_view *view, struct replica_path path, struct replica_kv_batch *log)
{
    struct replica_path parent, name;
    int rv = 0;
    replica_path_split(path, &parent, &name);
    if (view->parent_known && parent.size == view->parent_size &&
        memcmp(parent.text, view->parent, parent.size) == 0)
        return 0;
    rv = check_sub(view, log);
    for (size_t i = 1; i <= parent.size && rv == 0; i++)
        if (i == parent.size || parent.text[i] == '/')
            rv = check_directory(view, (struct replica_path){parent.text, i}, log);
    if (rv != 0)
        return rv;
    memcpy(view->parent, parent.text, parent.size);
    view->parent_size = parent.size;
    view->parent_known = true;
    return 0;
}

static int refuse_alias(struct replica_view *view, struct replica_path full)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path target;
    int rv = view_alias_target(view, full, text, &target);
    return rv == 0 ? REPLICA_E_READONLY : rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int check_writable(const struct replica_view *view)
{
    return view->info.options.flags & REPLICA_VIEW_READ_ONLY ? REPLICA_E_READONLY : 0;
}

/* The records of a write to `full`, which is a LINK if the raw entry says so: then the object is written, and
 * the name re-asserted. */
static int put_records(struct replica_view *view, struct replica_path full, const struct replica_entry *entry,
                       struct replica_kv_batch *log)
{
    struct replica_target_name name = path_name(full), object;
    struct replica_version raw;
    bool overlaid;
    int rv;
    replica_version_init(&raw);
    rv = view_raw_get(view, &name, &raw, &overlaid);
    if (rv == 0 && raw.entry.kind == REPLICA_KIND_LINK && entry->kind != REPLICA_KIND_DIRECTORY) {
        object = (struct replica_target_name){.target = REPLICA_TARGET_OBJECT, .object = raw.entry.object};
        rv = view_overlay_put(view, &object, false, entry, log);
        if (rv == 0)
            rv = view_overlay_put(view, &name, false, &raw.entry, log);
    } else if (rv == 0 || rv == REPLICA_E_NOTFOUND) {
        rv = view_overlay_put(view, &name, false, entry, log);
    }
    replica_version_close(&raw);
    return rv;
}

int replica_view_put(struct replica_view *view, struct replica_path path, const struct replica_entry *entry,
                     struct replica_kv_batch *log)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_version existing;
    struct replica_path full;
    int rv = check_writable(view);
    if (rv == 0)
        rv = entry->kind == REPLICA_KIND_LINK ? REPLICA_E_INVALID : replica_entry_check(entry);
    if (rv == 0 && path.size == 0 && entry->kind != REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_ISDIR;
    if (rv == 0)
        rv = view_full_path(view, path, text, &full);
    if (rv == 0)
        rv = refuse_alias(view, full);
    if (rv == 0 && path.size > 0)
        rv = check_parent(view, path, log);
    if (rv != 0)
        return rv;
    replica_version_init(&existing);
    rv = replica_view_lookup(view, path, &existing);
    if (rv == 0 && path.size > 0 && existing.entry.kind == REPLICA_KIND_DIRECTORY &&
        entry->kind != REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_ISDIR;
    else if (rv == 0 && existing.entry.kind != REPLICA_KIND_DIRECTORY &&
             entry->kind == REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_EXISTS;
    else if (rv == REPLICA_E_NOTFOUND)
        rv = 0;
    replica_version_close(&existing);
    return rv != 0 ? rv : put_records(view, full, entry, log);
}

int replica_view_make_parents(struct replica_view *view, struct replica_path path, uint32_t uid, uint32_t gid,
                              int64_t mtime_ns, struct replica_kv_batch *log)
{
    struct replica_entry entry = {
        .kind = REPLICA_KIND_DIRECTORY, .mode = 0755, .uid = uid, .gid = gid, .mtime_ns = mtime_ns};
    struct replica_path parent, name;
    struct replica_version version;
    int rv = check_writable(view);
    if (rv != 0)
        return rv;
    replica_path_split(path, &parent, &name);
    if (view->parent_known && parent.size == view->parent_size &&
        memcmp(parent.text, view->parent, parent.size) == 0)
        return 0;
    replica_version_init(&version);
    for (size_t i = 1; i < path.size && rv == 0; i++) {
        struct replica_path above = {path.text, i};
        if (path.text[i] != '/')
            continue;
        rv = replica_view_lookup(view, above, &version);
        if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
            rv = REPLICA_E_NOTDIR;
        if (rv == REPLICA_E_NOTFOUND) { /* one per call: the next one looks for it in the applied overlay */
            rv = replica_view_put(view, above, &entry, log);
            if (rv == 0)
                rv = REPLICA_E_AGAIN;
        }
    }
    replica_version_close(&version);
    return rv;
}

static int first_child(void *context, struct replica_path name, const struct replica_version *version)
{
    bool *any = context;
    (void)name;
    (void)version;
    *any = true;
    return 1;
}

static int is_empty(struct replica_view *view, struct replica_path path, bool *ret_empty)
{
    size_t reads = 0;
    bool any = false, more;
    int rv = replica_view_list(view, path, (struct replica_path){"", 0}, 1, &reads, &more, first_child, &any);
    *ret_empty = !any && !more;
    return rv > 0 ? 0 : rv;
}

/* Ends an object whose last name goes. */
static int end_object(struct replica_view *view, const struct replica_version *shown,
                      struct replica_kv_batch *log)
{
    struct replica_target_name object = {.target = REPLICA_TARGET_OBJECT, .object = shown->object};
    if (replica_id_is_zero(&shown->object) || shown->links > 1)
        return 0;
    return view_overlay_put(view, &object, true, NULL, log);
}

/* An alias goes as the name that it stands for. */
static int remove_name(struct replica_view *view, struct replica_path full,
                       const struct replica_version *shown, struct replica_kv_batch *log)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_target_name name = path_name(full);
    int rv = shown->entry.kind == REPLICA_KIND_DIRECTORY ? REPLICA_E_NOTFOUND
                                                         : view_alias_target(view, full, text, &name.path);
    if (rv != 0 && rv != REPLICA_E_NOTFOUND)
        return rv;
    return view_overlay_put(view, &name, true,
                            shown->entry.kind == REPLICA_KIND_DIRECTORY ? &shown->entry : NULL, log);
}

int replica_view_remove(struct replica_view *view, struct replica_path path, struct replica_kv_batch *log)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_version version;
    struct replica_path full;
    bool empty = true;
    int rv = check_writable(view);
    if (rv == 0 && path.size == 0)
        rv = REPLICA_E_INVALID;
    if (rv == 0)
        rv = view_full_path(view, path, text, &full);
    if (rv != 0)
        return rv;
    replica_version_init(&version);
    rv = replica_view_lookup(view, path, &version);
    if (rv == 0 && version.entry.kind == REPLICA_KIND_DIRECTORY)
        rv = is_empty(view, path, &empty);
    if (rv == 0 && !empty)
        rv = REPLICA_E_NOTEMPTY;
    if (rv == 0)
        rv = check_parent(view, path, log);
    if (rv == 0)
        rv = remove_name(view, full, &version, log);
    if (rv == 0)
        rv = end_object(view, &version, log);
    view->parent_known = false;
    replica_version_close(&version);
    return rv;
}

int replica_view_link(struct replica_view *view, struct replica_path from, struct replica_path to,
                      const struct replica_id *object, struct replica_kv_batch *log)
{
    char from_text[REPLICA_PATH_MAX + 1], to_text[REPLICA_PATH_MAX + 1];
    struct replica_path from_full, to_full;
    struct replica_version version, existing;
    struct replica_entry link = {.kind = REPLICA_KIND_LINK, .object = *object};
    struct replica_target_name name;
    int rv = check_writable(view);
    if (rv == 0 && view->info.options.flags & REPLICA_VIEW_NO_LINKS)
        rv = REPLICA_E_PERM;
    if (rv == 0)
        rv = view_full_path(view, from, from_text, &from_full);
    if (rv == 0)
        rv = view_full_path(view, to, to_text, &to_full);
    if (rv != 0)
        return rv;
    replica_version_init(&version);
    replica_version_init(&existing);
    rv = replica_view_lookup(view, from, &version);
    if (rv == 0 && version.entry.kind == REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_PERM;
    if (rv == 0)
        rv = refuse_alias(view, from_full);
    if (rv == 0)
        rv = check_parent(view, to, log);
    if (rv == 0) {
        rv = replica_view_lookup(view, to, &existing);
        rv = rv == 0 ? REPLICA_E_EXISTS : rv == REPLICA_E_NOTFOUND ? 0 : rv;
    }
    if (rv == 0 && replica_id_is_zero(&version.object)) { /* its first second name */
        name = (struct replica_target_name){.target = REPLICA_TARGET_OBJECT, .object = *object};
        rv = view_overlay_put(view, &name, false, &version.entry, log);
        name = path_name(from_full);
        if (rv == 0)
            rv = view_overlay_put(view, &name, false, &link, log);
    } else if (rv == 0) {
        link.object = version.object;
    }
    name = path_name(to_full);
    if (rv == 0)
        rv = view_overlay_put(view, &name, false, &link, log);
    replica_version_close(&version);
    replica_version_close(&existing);
    return rv;
}

/* Renaming */

/* Moves one non-directory, or makes/ends one directory; a name of an object stays one. */
static int move_one(struct replica_view *view, struct replica_path from, struct replica_path to,
                    bool keep_source, struct replica_kv_batch *log)
{
    char from_text[REPLICA_PATH_MAX + 1], to_text[REPLICA_PATH_MAX + 1];
    struct replica_path from_full, to_full;
    struct replica_target_name target;
    struct replica_version shown, replaced;
    struct replica_entry entry;
    int rv = view_full_path(view, from, from_text, &from_full);
    if (rv == 0)
        rv = view_full_path(view, to, to_text, &to_full);
    if (rv != 0)
        return rv;
    target = path_name(to_full);
    replica_version_init(&shown);
    replica_version_init(&replaced);
    rv = replica_view_lookup(view, from, &shown);
    if (rv == 0) {
        rv = replica_view_lookup(view, to, &replaced);
        if (rv == REPLICA_E_NOTFOUND) {
            replica_version_close(&replaced);
            rv = 0;
        }
    }
    if (rv == 0 && !replica_id_is_zero(&shown.object) && replica_id_equal(&shown.object, &replaced.object))
        goto out; /* rename(2): two names of one file stay as they are */
    if (rv == 0)
        rv = end_object(view, &replaced, log);
    if (rv == 0) {
        entry = shown.entry;
        if (!replica_id_is_zero(&shown.object))
            entry = (struct replica_entry){.kind = REPLICA_KIND_LINK, .object = shown.object};
        rv = view_overlay_put(view, &target, false, &entry, log);
    }
    if (rv == 0 && !keep_source)
        rv = remove_name(view, from_full, &shown, log);
out:
    replica_version_close(&shown);
    replica_version_close(&replaced);
    return rv;
}

struct pick {
    char name[REPLICA_NAME_MAX + 1];
    size_t size;
    bool found, directory;
};

static int pick_first(void *context, struct replica_path name, const struct replica_version *version)
{
    struct pick *pick = context;
    memcpy(pick->name, name.text, name.size);
    pick->size = name.size;
    pick->directory = version->entry.kind == REPLICA_KIND_DIRECTORY;
    pick->found = true;
    return 1;
}

/* The first entry below `from`, as deep as it goes: at, and whether it is an (empty) directory. */
static int descend(struct replica_view *view, struct replica_path from, char at[REPLICA_PATH_MAX + 1],
                   size_t *ret_n)
{
    memcpy(at, from.text, from.size);
    *ret_n = from.size;
    for (;;) {
        struct pick pick = {.found = false};
        struct replica_path after = {"", 0};
        size_t reads = 0;
        bool more;
        int rv;
        at[*ret_n] = '\0';
        if (strcmp(view->rename_dir, at) == 0)
            after = (struct replica_path){view->rename_after, strlen(view->rename_after)};
        rv = replica_view_list(view, (struct replica_path){at, *ret_n}, after, 1, &reads, &more, pick_first,
                               &pick);
        if (rv < 0)
            return rv;
        if (!pick.found)
            return 0;
        if (*ret_n + 1 + pick.size > REPLICA_PATH_MAX)
            return REPLICA_E_TOOBIG;
        at[(*ret_n)++] = '/';
        memcpy(at + *ret_n, pick.name, pick.size);
        *ret_n += pick.size;
        if (!pick.directory)
            return 0;
    }
}

/* One leaf of the tree moves; its directory on the other side is made first. */
static int move_leaf(struct replica_view *view, struct replica_path from, struct replica_path to,
                     bool *ret_done, struct replica_kv_batch *log)
{
    char at[REPLICA_PATH_MAX + 1], target[2 * REPLICA_PATH_MAX + 2];
    struct replica_path leaf = {at, 0}, parent, name, goal = {target, 0};
    struct replica_version version;
    int rv = descend(view, from, at, &leaf.size);
    *ret_done = rv == 0 && leaf.size == from.size;
    if (rv != 0)
        return rv;
    if (to.size + leaf.size - from.size > REPLICA_PATH_MAX)
        return REPLICA_E_TOOBIG;
    memcpy(target, to.text, to.size);
    memcpy(target + to.size, at + from.size, leaf.size - from.size);
    replica_version_init(&version);
    for (size_t i = to.size; i < to.size + leaf.size - from.size && rv == 0;
         i++) { /* the first directory that is missing */
        struct replica_path above = {target, i};
        if (target[i] != '/' && i != to.size)
            continue;
        if (replica_view_lookup(view, above, &version) == REPLICA_E_NOTFOUND) {
            rv = move_one(view, (struct replica_path){at, from.size + (i - to.size)}, above, true, log);
            replica_version_close(&version);
            return rv;
        }
    }
    replica_version_close(&version);
    goal.size = to.size + leaf.size - from.size;
    rv = move_one(view, leaf, goal, false, log);
    replica_path_split(leaf, &parent, &name);
    memcpy(view->rename_dir, parent.text, parent.size);
    view->rename_dir[parent.size] = '\0';
    memcpy(view->rename_after, name.text, name.size);
    view->rename_after[name.size] = '\0';
    return rv;
}

static int check_rename(struct replica_view *view, struct replica_path from, struct replica_path to,
                        bool *ret_directory, struct replica_kv_batch *log)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path full;
    struct replica_version source, target;
    bool empty = true;
    int rv = check_writable(view);
    if (rv == 0 && (from.size == 0 || to.size == 0 || replica_path_is_below(to, from)))
        rv = REPLICA_E_INVALID;
    if (rv != 0)
        return rv;
    rv = view_full_path(view, to, text, &full);
    if (rv == 0)
        rv = refuse_alias(view, full);
    if (rv != 0)
        return rv;
    replica_version_init(&source);
    replica_version_init(&target);
    rv = replica_view_lookup(view, from, &source);
    *ret_directory = rv == 0 && source.entry.kind == REPLICA_KIND_DIRECTORY;
    if (rv == 0)
        rv = check_parent(view, from, log);
    if (rv == 0)
        rv = check_parent(view, to, log);
    if (rv == 0) {
        rv = replica_view_lookup(view, to, &target);
        if (rv == REPLICA_E_NOTFOUND)
            rv = 0;
        else if (rv == 0 && target.entry.kind == REPLICA_KIND_DIRECTORY) {
            rv = *ret_directory ? is_empty(view, to, &empty) : REPLICA_E_ISDIR;
            if (rv == 0 && !empty)
                rv = REPLICA_E_NOTEMPTY;
        } else if (rv == 0 && *ret_directory)
            rv = REPLICA_E_NOTDIR;
    }
    replica_version_close(&source);
    replica_version_close(&target);
    return rv;
}

int replica_view_rename(struct replica_view *view, struct replica_path from, struct replica_path to,
                        size_t max, struct replica_kv_batch *log)
{
    bool directory = true, done;
    int rv;
    (void)max; /* a step of the walk must be applied before the next one looks */
    view->parent_known = false;
    if (!view->renaming) {
        rv = check_rename(view, from, to, &directory, log);
        if (rv != 0 || (from.size == to.size && memcmp(from.text, to.text, from.size) == 0))
            return rv;
        if (!directory)
            return move_one(view, from, to, false, log);
        view->renaming = true;
        view->rename_dir[0] = '\0';
        view->rename_after[0] = '\0';
        rv = move_one(view, from, to, true, log);
        if (rv != 0)
            view->renaming = false;
        return rv != 0 ? rv : REPLICA_E_AGAIN;
    }
    rv = move_leaf(view, from, to, &done, log);
    if (rv == 0 && done)
        rv = replica_view_remove(view, from, log);
    else if (rv == 0)
        return REPLICA_E_AGAIN;
    view->renaming = false;
    return rv;
}
