/* Writing: each verb as records of the newest generation. Renaming: view_rename.c. */
#include "view/view.h"

#include "replica/error.h"

#include <string.h>

static struct replica_target_name path_name(struct replica_path full)
{
    return (struct replica_target_name){.target = REPLICA_TARGET_PATH, .path = full};
}

/* Whether a whole path, whose parents are, is shown as a directory; one that is only shown by rule (revived) gets its entry written. */
static int check_directory(struct replica_view *view, struct replica_path full, struct replica_kv_batch *log)
{
    struct replica_version version, raw;
    struct replica_target_name target = path_name(full);
    bool overlaid, written;
    int rv;
    replica_version_init(&version);
    replica_version_init(&raw);
    rv = view_raw_get(view, &target, &raw, &overlaid);
    written = rv == 0;
    if (rv == REPLICA_E_NOTFOUND || (rv == 0 && raw.entry.kind != REPLICA_KIND_DIRECTORY)) {
        rv = view_lookup_child(view, full, &version);
        if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
            rv = REPLICA_E_NOTDIR;
        if (rv == 0 && !written)
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

/* All directories above a whole path: the first commit that touches anything below a revived one writes its entry. What was found last is
 * remembered, so that a tree costs a look for each directory, not for all above each. */
int view_check_parent(struct replica_view *view, struct replica_path full, struct replica_kv_batch *log)
{
    size_t known = view_known_prefix(&view->parent, full), sub = view->info.options.sub.size;
    struct replica_path parent, name;
    int rv;
    replica_path_split(full, &parent, &name);
    if (view->parent.any && known >= parent.size)
        return 0;
    rv = view->parent.any ? 0 : check_sub(view, log);
    for (size_t i = (known > sub ? known : sub) + 1; i <= parent.size && rv == 0; i++)
        if (i == parent.size || parent.text[i] == '/')
            rv = check_directory(view, (struct replica_path){parent.text, i}, log);
    if (rv != 0)
        return rv;
    view_know(&view->parent, parent);
    return 0;
}

int view_refuse_alias(struct replica_view *view, struct replica_path full)
{
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path target;
    int rv = view_alias_target(view, full, text, &target);
    return rv == 0 ? REPLICA_E_READONLY : rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

int view_check_writable(const struct replica_view *view)
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
    int rv = view_check_writable(view);
    if (rv == 0)
        rv = entry->kind == REPLICA_KIND_LINK ? REPLICA_E_INVALID : replica_entry_check(entry);
    if (rv == 0 && path.size == 0 && entry->kind != REPLICA_KIND_DIRECTORY)
        rv = REPLICA_E_ISDIR;
    if (rv == 0)
        rv = view_full_path(view, path, text, &full);
    if (rv == 0)
        rv = view_refuse_alias(view, full);
    if (rv == 0 && path.size > 0)
        rv = view_check_parent(view, full, log);
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

/* Below a directory that is made now, what the overlay or the snapshot still has is not shown: names that are gone are made, too. One that
 * is not gone comes to light with the directory, and is looked at in the next call. */
static int make_directory(struct replica_view *view, struct replica_path full, bool first,
                          const struct replica_entry *entry, struct replica_kv_batch *log)
{
    struct replica_target_name target = path_name(full);
    struct replica_version raw;
    bool overlaid;
    int rv = 0;
    if (!first) {
        replica_version_init(&raw);
        rv = view_raw_get(view, &target, &raw, &overlaid);
        replica_version_close(&raw);
        rv = rv == 0 ? REPLICA_E_AGAIN : rv == REPLICA_E_NOTFOUND ? 0 : rv;
    } else {
        rv = view_refuse_alias(view, full);
        if (rv == 0)
            rv = view_check_parent(view, full, log);
    }
    return rv != 0 ? rv : view_overlay_put(view, &target, false, entry, log);
}

int replica_view_make_parents(struct replica_view *view, struct replica_path path, uint32_t uid, uint32_t gid,
                              int64_t mtime_ns, struct replica_kv_batch *log)
{
    struct replica_entry entry = {
        .kind = REPLICA_KIND_DIRECTORY, .mode = 0755, .uid = uid, .gid = gid, .mtime_ns = mtime_ns};
    size_t known, sub = view->info.options.sub.size;
    char text[REPLICA_PATH_MAX + 1];
    struct replica_version version;
    struct replica_path full;
    bool made = false;
    int rv = view_check_writable(view);
    if (rv == 0)
        rv = view_full_path(view, path, text, &full);
    if (rv != 0)
        return rv;
    known = view_known_prefix(&view->parent, full);
    replica_version_init(&version);
    for (size_t i = (known > sub ? known : sub) + 1; i < full.size && rv == 0; i++) {
        struct replica_path above = {full.text, i};
        if (full.text[i] != '/')
            continue;
        rv = made ? REPLICA_E_NOTFOUND : view_lookup_child(view, above, &version);
        if (rv == 0 && version.entry.kind != REPLICA_KIND_DIRECTORY)
            rv = REPLICA_E_NOTDIR;
        if (rv == REPLICA_E_NOTFOUND) {
            rv = make_directory(view, above, !made, &entry, log);
            made = true;
        }
    }
    replica_version_close(&version);
    return rv == 0 && made ? REPLICA_E_AGAIN : rv; /* the next call sees them in the applied overlay */
}

/* Ends an object whose last name goes. */
int view_end_object(struct replica_view *view, const struct replica_version *shown,
                    struct replica_kv_batch *log)
{
    struct replica_target_name object = {.target = REPLICA_TARGET_OBJECT, .object = shown->object};
    if (replica_id_is_zero(&shown->object) || shown->links > 1)
        return 0;
    return view_overlay_put(view, &object, true, NULL, log);
}

/* An alias goes as the name that it stands for. */
int view_remove_name(struct replica_view *view, struct replica_path full, const struct replica_version *shown,
                     struct replica_kv_batch *log)
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
    bool empty = true, directory;
    int rv = view_check_writable(view);
    if (rv == 0 && path.size == 0)
        rv = REPLICA_E_INVALID;
    if (rv == 0)
        rv = view_full_path(view, path, text, &full);
    if (rv != 0)
        return rv;
    replica_version_init(&version);
    rv = replica_view_lookup(view, path, &version);
    directory = rv == 0 && version.entry.kind == REPLICA_KIND_DIRECTORY;
    if (directory)
        rv = view_is_empty(view, full, &empty);
    if (rv == 0 && !empty)
        rv = REPLICA_E_NOTEMPTY;
    if (rv == 0)
        rv = view_check_parent(view, full, log);
    if (rv == 0)
        rv = view_remove_name(view, full, &version, log);
    if (rv == 0)
        rv = view_end_object(view, &version, log);
    if (rv == 0 && directory)
        view_forget_directory(view, full);
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
    int rv = view_check_writable(view);
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
        rv = view_refuse_alias(view, from_full);
    if (rv == 0)
        rv = view_check_parent(view, to_full, log);
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
