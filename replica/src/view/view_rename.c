/* Renaming. A non-directory moves at once. A directory moves with all that is below it, in pieces, into the stage: a generation above the
 * one that is read, so that nothing of it is seen until all is there and one record makes it the newest. Until then the view is as it
 * was: an error, a caller that goes, a write in between or a restart leave it so, and what is staged is forgotten, in pieces as well. After a
 * reload, or a second commit, in between it is staged anew. */
#include "view/view.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define MOVE_READS_MAX 2000 /* of one call: a few milliseconds */

static struct replica_target_name path_name(struct replica_path full)
{
    return (struct replica_target_name){.target = REPLICA_TARGET_PATH, .path = full};
}

/* What is shown becomes what is written: a name of an object stays one. */
static struct replica_entry entry_to_write(const struct replica_version *shown)
{
    if (replica_id_is_zero(&shown->object))
        return shown->entry;
    return (struct replica_entry){.kind = REPLICA_KIND_LINK, .object = shown->object};
}

static int move_file(struct replica_view *view, struct replica_path from, struct replica_path to,
                     const struct replica_version *shown, const struct replica_version *replaced,
                     struct replica_kv_batch *log)
{
    struct replica_target_name target = path_name(to);
    struct replica_entry entry = entry_to_write(shown);
    int rv;
    if (!replica_id_is_zero(&shown->object) && replica_id_equal(&shown->object, &replaced->object))
        return 0; /* rename(2): two names of one file stay as they are */
    rv = view_end_object(view, replaced, log);
    if (rv == 0)
        rv = view_overlay_put(view, &target, false, &entry, log);
    if (rv == 0)
        rv = view_remove_name(view, from, shown, log);
    return rv;
}

/* The stage */

/* Forgets what lies in the stage, in pieces: AGAIN. */
static int clear_stage(struct replica_view *view, size_t max, struct replica_kv_batch *log)
{
    bool left;
    int rv = view_forget_records(view, view->stage, view->stage, max, log, &left);
    if (rv != 0 || left)
        return rv != 0 ? rv : REPLICA_E_AGAIN;
    view->stage = 0;
    view_write(view, log);
    return 0;
}

static void end_move(struct replica_view *view)
{
    free(view->move);
    view->move = NULL;
}

static int begin_move(struct replica_view *view, struct replica_path from, struct replica_path to,
                      const struct replica_version *source, struct replica_kv_batch *log)
{
    struct replica_target_name from_name = path_name(from), to_name = path_name(to);
    struct view_move *move = calloc(1, sizeof *move);
    int rv;
    if (move == NULL)
        return REPLICA_E_NOMEM;
    memcpy(move->from, from.text, from.size);
    memcpy(move->to, to.text, to.size);
    memcpy(move->at, from.text, from.size);
    move->from_n = move->at_n = from.size;
    move->to_n = to.size;
    move->passed = view->info.commit != REPLICA_COMMIT_NONE;
    view->move = move;
    view->stage = view->generation + 1;
    view_write(view, log); /* so that a restart knows what to forget */
    rv = view_stage_put(view, &to_name, false, &source->entry, log);
    if (rv == 0)
        rv = view_stage_put(view, &from_name, true, &source->entry, log);
    move->error = rv;
    return REPLICA_E_AGAIN;
}

/* One record makes all of it the newest. */
static int show_stage(struct replica_view *view, struct replica_kv_batch *log)
{
    struct view_move *move = view->move;
    if (view->generation < view->stage)
        view->info.generation = view->generation = view->stage;
    view->stage = 0;
    view->info.dirty += move->records;
    view_know_nothing(view);
    free(view->scan);
    view->scan = NULL;
    end_move(view);
    view_write(view, log);
    return log->failed ? REPLICA_E_NOMEM : 0;
}

/* The walk */

struct walk {
    struct replica_view *view;
    struct replica_kv_batch *log;
    size_t max, moved; /* in this call */
    bool descends;
    char name[REPLICA_NAME_MAX + 1];
    size_t name_n;
};

static int join(const char *dir, size_t dir_n, struct replica_path name, char *text, struct replica_path *ret)
{
    if (dir_n + 1 + name.size > REPLICA_PATH_MAX)
        return REPLICA_E_TOOBIG;
    memcpy(text, dir, dir_n);
    text[dir_n] = '/';
    memcpy(text + dir_n + 1, name.text, name.size);
    *ret = (struct replica_path){text, dir_n + 1 + name.size};
    return 0;
}

/* The name in the directory that it moves to. */
static int target_of(const struct view_move *move, struct replica_path name, char *text,
                     struct replica_path *ret_target)
{
    char dir[2 * REPLICA_PATH_MAX];
    size_t rest = move->at_n - move->from_n;
    if (move->to_n + rest > REPLICA_PATH_MAX)
        return REPLICA_E_TOOBIG;
    memcpy(dir, move->to, move->to_n);
    memcpy(dir + move->to_n, move->at + move->from_n, rest);
    return join(dir, move->to_n + rest, name, text, ret_target);
}

static int stage_entry(void *context, struct replica_path name, const struct replica_version *version)
{
    struct walk *walk = context;
    struct view_move *move = walk->view->move;
    char from_text[REPLICA_PATH_MAX + 1], to_text[REPLICA_PATH_MAX + 1], alias_text[REPLICA_PATH_MAX + 1];
    struct replica_path from, to, base;
    struct replica_target_name target;
    struct replica_entry entry = entry_to_write(version);
    bool directory = version->entry.kind == REPLICA_KIND_DIRECTORY;
    int rv = join(move->at, move->at_n, name, from_text, &from);
    if (rv == 0)
        rv = target_of(move, name, to_text, &to);
    if (rv != 0)
        return rv;
    target = path_name(to);
    rv = view_stage_put(walk->view, &target, false, &entry, walk->log);
    target = path_name(from);
    if (rv == 0 && !directory)
        rv = view_alias_target(walk->view, from, alias_text, &base);
    if (rv == REPLICA_E_NOTFOUND ||
        directory) /* the name that an alias stands for has gone as a directory, right before */
        rv = view_stage_put(walk->view, &target, true, directory ? &version->entry : NULL, walk->log);
    walk->moved++;
    if (rv != 0 || !directory)
        return rv;
    walk->descends = true;
    memcpy(walk->name, name.text, name.size);
    walk->name_n = name.size;
    return 1;
}

static void descend(struct view_move *move, const struct walk *walk)
{
    move->at[move->at_n++] = '/';
    memcpy(move->at + move->at_n, walk->name, walk->name_n);
    move->at_n += walk->name_n;
    memset(&move->place, 0, sizeof move->place);
}

/* Up to the parent, behind the name that was left; its alias may be next. */
static void ascend(struct view_move *move)
{
    struct replica_path parent, name;
    replica_path_split((struct replica_path){move->at, move->at_n}, &parent, &name);
    memcpy(move->place.name, name.text, name.size);
    move->place.n = name.size;
    move->place.passed = false;
    move->at_n = parent.size;
}

/* About max entries; AGAIN until all are staged. */
static int walk_on(struct replica_view *view, size_t max, struct replica_kv_batch *log)
{
    struct view_move *move = view->move;
    struct walk walk = {.view = view, .log = log, .max = max};
    size_t reads = 0;
    while (walk.moved < max && reads < MOVE_READS_MAX) {
        bool more;
        int rv;
        walk.descends = false;
        rv = view_list_page(view, (struct replica_path){move->at, move->at_n}, &move->place, max - walk.moved,
                            max, &reads, &more, stage_entry, &walk);
        reads += 10; /* opening, and looking for the first */
        if (rv < 0)
            return rv;
        if (walk.descends)
            descend(move, &walk);
        else if (!more && move->at_n == move->from_n)
            return 0;
        else if (!more)
            ascend(move);
    }
    return REPLICA_E_AGAIN;
}

/* Whether a call goes on with the move that is under way. */
static bool is_same(const struct view_move *move, struct replica_path from, struct replica_path to)
{
    return !move->stale && move->from_n == from.size && memcmp(move->from, from.text, from.size) == 0 &&
           move->to_n == to.size && memcmp(move->to, to.text, to.size) == 0;
}

static int go_on(struct replica_view *view, size_t max, struct replica_kv_batch *log)
{
    struct view_move *move = view->move;
    int rv;
    if (move->error == 0) {
        rv = walk_on(view, max, log);
        if (rv == 0)
            return show_stage(view, log);
        if (rv != REPLICA_E_AGAIN)
            move->error = rv;
        return REPLICA_E_AGAIN;
    }
    rv = clear_stage(view, max, log);
    if (rv != 0)
        return rv;
    rv = move->error;
    end_move(view);
    return rv;
}

/* The verb */

static int check_target(struct replica_view *view, struct replica_path to, struct replica_path to_full,
                        bool directory, struct replica_version *target)
{
    bool empty = true;
    int rv = replica_view_lookup(view, to, target);
    if (rv == REPLICA_E_NOTFOUND) {
        replica_version_close(target);
        return 0;
    }
    if (rv != 0)
        return rv;
    if (target->entry.kind != REPLICA_KIND_DIRECTORY)
        return directory ? REPLICA_E_NOTDIR : 0;
    if (!directory)
        return REPLICA_E_ISDIR;
    rv = view_is_empty(view, to_full, &empty);
    return rv == 0 && !empty ? REPLICA_E_NOTEMPTY : rv;
}

static int start(struct replica_view *view, struct replica_path from, struct replica_path to,
                 struct replica_path from_full, struct replica_path to_full, struct replica_kv_batch *log)
{
    struct replica_version source, target;
    bool directory;
    int rv = view_refuse_alias(view, to_full);
    if (rv != 0)
        return rv;
    replica_version_init(&source);
    replica_version_init(&target);
    rv = replica_view_lookup(view, from, &source);
    directory = rv == 0 && source.entry.kind == REPLICA_KIND_DIRECTORY;
    if (rv == 0)
        rv = view_check_parent(view, from_full, log);
    if (rv == 0)
        rv = view_check_parent(view, to_full, log);
    if (rv == 0)
        rv = check_target(view, to, to_full, directory, &target);
    if (rv == 0 && (from.size != to.size || memcmp(from.text, to.text, from.size) != 0))
        rv = directory ? begin_move(view, from_full, to_full, &source, log)
                       : move_file(view, from_full, to_full, &source, &target, log);
    replica_version_close(&source);
    replica_version_close(&target);
    return rv;
}

int replica_view_rename(struct replica_view *view, struct replica_path from, struct replica_path to,
                        size_t max, struct replica_kv_batch *log)
{
    char from_text[REPLICA_PATH_MAX + 1], to_text[REPLICA_PATH_MAX + 1];
    struct replica_path from_full, to_full;
    int rv = view_check_writable(view);
    if (rv == 0 && (from.size == 0 || to.size == 0 || replica_path_is_below(to, from)))
        rv = REPLICA_E_INVALID;
    if (rv == 0)
        rv = view_full_path(view, from, from_text, &from_full);
    if (rv == 0)
        rv = view_full_path(view, to, to_text, &to_full);
    if (rv != 0)
        return rv;
    if (view->move != NULL && is_same(view->move, from_full, to_full))
        return go_on(view, max, log);
    if (view->stage != 0) { /* an earlier one that was given up */
        end_move(view);
        rv = clear_stage(view, max, log);
        return rv == 0 ? REPLICA_E_AGAIN : rv;
    }
    return start(view, from, to, from_full, to_full, log);
}
