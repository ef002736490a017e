/* Views: drafts over a snapshot, their generations, and that a restart changes nothing.
 *
 * Publishing is done as the protocol does it, in one go: freeze, op list, mint, hold, commit, order, apply.
 * The last test drives a view by random file operations beside a plain model of a POSIX tree, with commits,
 * failed commits, reloads and restarts in between. */
#include "replica/contents_memory.h"
#include "replica/kv_memory.h"
#include "replica/view.h"
#include "replica/volume.h"
#include "replica_support.h"

#include <stdio.h>
#include <stdlib.h>

struct fixture {
    struct replica_kv *log_kv, *map_kv;
    struct replica_contents *contents;
    struct replica_volume *volume;
    struct replica_views *views;
    struct replica_kv_batch log, map;
    uint64_t commits, objects;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct replica_volume_options options;
    assert_non_null(fixture);
    assert_int_equal(replica_kv_memory_new(&fixture->log_kv), 0);
    assert_int_equal(replica_kv_memory_new(&fixture->map_kv), 0);
    assert_int_equal(replica_contents_memory_new(&fixture->contents), 0);
    options = (struct replica_volume_options){.log = fixture->log_kv,
                                              .map = fixture->map_kv,
                                              .contents = fixture->contents,
                                              .volume = support_id(9, 9),
                                              .store = support_id(1, 1)};
    assert_int_equal(replica_volume_new(&options, &fixture->volume), 0);
    assert_int_equal(replica_views_new(fixture->log_kv, fixture->map_kv, &fixture->views), 0);
    replica_kv_batch_init(&fixture->log);
    replica_kv_batch_init(&fixture->map);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    replica_views_destroy(&fixture->views);
    replica_volume_destroy(&fixture->volume);
    replica_contents_destroy(&fixture->contents);
    replica_kv_destroy(&fixture->log_kv);
    replica_kv_destroy(&fixture->map_kv);
    replica_kv_batch_close(&fixture->log);
    replica_kv_batch_close(&fixture->map);
    free(fixture);
    return 0;
}

/* Applies the log batch and hands the result on: success or a failure that wrote nothing. */
static int done(struct fixture *fixture, int rv)
{
    support_apply(fixture->log_kv, &fixture->log);
    return rv;
}

static struct replica_view *open_view(struct fixture *fixture, uint64_t number, const char *sub,
                                      uint32_t flags)
{
    const struct replica_volume_state *state = replica_volume_state(fixture->volume);
    struct replica_view_options options = {.id = support_id(5, number),
                                           .volume = support_id(9, 9),
                                           .sub = support_path(sub),
                                           .flags = flags,
                                           .snapshot = state->applied_seq,
                                           .vector = state->applied};
    struct replica_view *view;
    snprintf(options.label, sizeof options.label, "view %d", (int)number);
    assert_int_equal(done(fixture, replica_view_open(fixture->views, &options, &fixture->log, &view)), 0);
    return view;
}

static struct replica_view *restart(struct fixture *fixture, struct replica_view *view)
{
    struct replica_id id = replica_view_info(view)->options.id;
    replica_views_destroy(&fixture->views);
    assert_int_equal(replica_views_new(fixture->log_kv, fixture->map_kv, &fixture->views), 0);
    view = replica_view_find(fixture->views, &id);
    assert_non_null(view);
    return view;
}

static int put(struct fixture *fixture, struct replica_view *view, const char *path, const char *text)
{
    struct replica_entry entry = support_file(text);
    return done(fixture, replica_view_put(view, support_path(path), &entry, &fixture->log));
}

static int mkdir_at(struct fixture *fixture, struct replica_view *view, const char *path)
{
    struct replica_entry entry = support_directory(0755);
    return done(fixture, replica_view_put(view, support_path(path), &entry, &fixture->log));
}

static int remove_at(struct fixture *fixture, struct replica_view *view, const char *path)
{
    int rv;
    do
        rv = done(fixture, replica_view_remove(view, support_path(path), &fixture->log));
    while (rv == REPLICA_E_AGAIN);
    return rv;
}

static int rename_at(struct fixture *fixture, struct replica_view *view, const char *from, const char *to)
{
    int rv;
    do
        rv = done(fixture,
                  replica_view_rename(view, support_path(from), support_path(to), 100, &fixture->log));
    while (rv == REPLICA_E_AGAIN);
    return rv;
}

static int link_at(struct fixture *fixture, struct replica_view *view, const char *from, const char *to)
{
    struct replica_id object = support_id(7, ++fixture->objects);
    return done(fixture,
                replica_view_link(view, support_path(from), support_path(to), &object, &fixture->log));
}

static const char *shown(struct replica_view *view, const char *path)
{
    static char text[400];
    struct replica_version version;
    int rv;
    replica_version_init(&version);
    rv = replica_view_lookup(view, support_path(path), &version);
    if (rv == REPLICA_E_NOTFOUND)
        snprintf(text, sizeof text, "-");
    else if (rv == REPLICA_E_NOTDIR)
        snprintf(text, sizeof text, "notdir");
    else if (version.entry.kind == REPLICA_KIND_DIRECTORY)
        snprintf(text, sizeof text, "dir");
    else if (version.entry.blob.kind == REPLICA_BLOB_DRAFT)
        snprintf(text, sizeof text, "draft %d", (int)version.entry.blob.draft);
    else
        snprintf(text, sizeof text, "%.*s*%d", (int)version.entry.blob.size,
                 (const char *)version.entry.blob.data, (int)version.links);
    replica_version_close(&version);
    assert_true(rv == 0 || rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_NOTDIR);
    return text;
}

struct names {
    char text[60000], last[REPLICA_NAME_MAX + 1];
    size_t n;
};

static int collect_name(void *context, struct replica_path name, const struct replica_version *version)
{
    struct names *names = context;
    size_t at = strlen(names->text);
    snprintf(names->text + at, sizeof names->text - at, "%.*s%s ", (int)name.size, name.text,
             version->entry.kind == REPLICA_KIND_DIRECTORY ? "/" : "");
    memcpy(names->last, name.text, name.size);
    names->last[name.size] = '\0';
    names->n++;
    return 0;
}

/* The names of dir, the same whatever the pages' size. */
static const char *list(struct replica_view *view, const char *dir)
{
    static struct names whole, paged;
    size_t reads = 0;
    bool more;
    memset(&whole, 0, sizeof whole);
    assert_int_equal(replica_view_list(view, support_path(dir), support_path(""), 100000, &reads, &more,
                                       collect_name, &whole),
                     0);
    assert_false(more);
    for (size_t max = 1; max <= 3 && whole.n < 100; max++) {
        memset(&paged, 0, sizeof paged);
        do {
            char after[REPLICA_NAME_MAX + 1];
            size_t before = paged.n;
            strcpy(after, paged.last);
            assert_int_equal(replica_view_list(view, support_path(dir), support_path(after), max, &reads,
                                               &more, collect_name, &paged),
                             0);
            assert_true(paged.n - before <= max && (!more || paged.n > before));
        } while (more);
        assert_string_equal(paged.text, whole.text);
    }
    return whole.text;
}

/* Publishing */

static void build_delta(struct fixture *fixture, struct replica_view *view, struct replica_buffer *ops,
                        struct replica_delta *delta)
{
    const struct replica_view_info *info = replica_view_info(view);
    struct replica_buffer position;
    int rv;
    memset(delta, 0, sizeof *delta);
    replica_buffer_init(&position);
    do
        rv = replica_view_ops(view, &position, 2, ops, &delta->op_count, &delta->byte_count);
    while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
    replica_buffer_close(&position);
    delta->volume = support_id(9, 9);
    delta->commit = info->commit_id;
    delta->deps = info->options.vector;
    assert_int_equal(replica_vector_join(&delta->deps, &info->own), 0);
    delta->node = support_id(1, 1);
    delta->ops = ops->data == NULL ? (const uint8_t *)"" : ops->data;
    delta->ops_size = ops->size;
    (void)fixture;
}

static void apply_volume(struct fixture *fixture)
{
    struct replica_content_id wanted;
    size_t n, reads = 0;
    int rv;
    assert_int_equal(replica_volume_order(fixture->volume, 100, &fixture->log, &n), 0);
    support_apply(fixture->log_kv, &fixture->log);
    replica_volume_order_synced(fixture->volume, replica_volume_state(fixture->volume)->ordered_seq);
    do {
        rv = replica_volume_apply(fixture->volume, &reads, &fixture->log, &fixture->map, &wanted);
        support_apply(fixture->log_kv, &fixture->log);
        support_apply(fixture->map_kv, &fixture->map);
    } while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
}

static int freeze(struct fixture *fixture, struct replica_view *view)
{
    struct replica_id commit = support_id(2, ++fixture->commits);
    return done(fixture, replica_view_freeze(view, &commit, fixture->commits, &fixture->log));
}

static int count_op(void *context, const struct replica_op *op)
{
    (void)op;
    (*(uint64_t *)context)++;
    return 0;
}

/* Carries a frozen commit through to success. */
static void publish(struct fixture *fixture, struct replica_view *view)
{
    const struct replica_volume_state *state = replica_volume_state(fixture->volume);
    struct replica_actor actor = support_actor(1, 1);
    struct replica_stamp stamp = {state->hlc_high + 1, replica_view_info(view)->commit_id};
    struct replica_buffer ops, proposal, record;
    struct replica_vector committed;
    struct replica_delta delta;
    struct replica_dot dot;
    uint64_t counted = 0;
    bool rose;
    replica_buffer_init(&ops);
    replica_buffer_init(&proposal);
    replica_buffer_init(&record);
    build_delta(fixture, view, &ops, &delta);
    replica_delta_pack(&proposal, &delta);
    assert_int_equal(replica_ops_each(ops.data, ops.size, count_op, &counted),
                     0); /* in order, no target twice */
    assert_int_equal(counted, delta.op_count);
    assert_int_equal(done(fixture, replica_view_stamp(view, &stamp, &fixture->log)), 0);
    assert_int_equal(replica_volume_mint(fixture->volume, &actor, proposal.data, proposal.size, stamp.hlc,
                                         &fixture->log, &dot, &record),
                     0);
    assert_int_equal(replica_volume_hold(fixture->volume, &dot), 0);
    committed = state->committed;
    assert_int_equal(replica_vector_set(&committed, &actor, dot.seq), 0);
    assert_int_equal(replica_volume_commit(fixture->volume, &committed, &fixture->log, &rose), 0);
    assert_int_equal(done(fixture, replica_view_committed(view, &stamp, &dot, &fixture->log)), 0);
    apply_volume(fixture);
    replica_buffer_close(&ops);
    replica_buffer_close(&proposal);
    replica_buffer_close(&record);
}

static void commit(struct fixture *fixture, struct replica_view *view)
{
    assert_int_equal(freeze(fixture, view), 0);
    publish(fixture, view);
}

static bool covers(void *context, const struct replica_id *commit_id, const struct replica_dot *dot)
{
    struct fixture *fixture = context;
    (void)commit_id;
    return replica_vector_covers_dot(&replica_volume_state(fixture->volume)->applied, dot);
}

static void reload(struct fixture *fixture, struct replica_view *view)
{
    const struct replica_volume_state *state = replica_volume_state(fixture->volume);
    int rv;
    do
        rv = done(fixture, replica_view_reload(view, state->applied_seq, &state->applied, 3, covers, fixture,
                                               &fixture->log));
    while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
}

/* What is in the log kv besides the views themselves: nothing, once all is covered. */
static size_t overlay_records(struct fixture *fixture)
{
    return support_count(fixture->log_kv, "x", 1) + support_count(fixture->log_kv, "X", 1) +
           support_count(fixture->log_kv, "D", 1) + support_count(fixture->log_kv, "N", 1) +
           support_count(fixture->log_kv, "J", 1);
}

static int count_lost(void *context, struct replica_path path, const struct replica_version *version)
{
    (void)path;
    (void)version;
    (*(int *)context)++;
    return 0;
}

static int lost_versions(struct fixture *fixture)
{
    int n = 0;
    assert_int_equal(replica_map_lost(replica_volume_map(fixture->volume), count_lost, &n), 0);
    return n;
}

/* The tests */

static void drafts_are_seen_by_their_view_alone(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *a = open_view(fixture, 1, "", 0), *b = open_view(fixture, 2, "", 0);
    assert_int_equal(mkdir_at(fixture, a, "d"), 0);
    assert_int_equal(put(fixture, a, "d/f", "mine"), 0);
    assert_string_equal(shown(a, "d/f"), "mine*1");
    assert_string_equal(list(a, "d"), "f ");
    assert_string_equal(shown(b, "d"), "-");
    commit(fixture, a);
    assert_string_equal(shown(a, "d/f"), "mine*1"); /* its own commit, at once */
    assert_string_equal(shown(b, "d"), "-");        /* others at their reload */
    assert_int_equal(put(fixture, b, "other", "theirs"), 0);
    commit(fixture, b);
    assert_string_equal(shown(a, "other"), "-"); /* nothing else that is new */
    reload(fixture, b);
    assert_string_equal(shown(b, "d/f"), "mine*1");
    reload(fixture, a);
    assert_string_equal(list(a, ""), "d/ other ");
    assert_string_equal(list(b, ""), "d/ other ");
    assert_int_equal(overlay_records(fixture), 0);
    assert_int_equal(replica_view_info(a)->own.n, 0);
}

static void what_may_not_be_written(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", REPLICA_VIEW_NO_LINKS),
                        *reader = open_view(fixture, 2, "", REPLICA_VIEW_READ_ONLY);
    struct replica_entry link = {.kind = REPLICA_KIND_LINK}, bad = support_file("x");
    assert_int_equal(put(fixture, view, "d/f", "x"), REPLICA_E_NOTFOUND);
    assert_int_equal(put(fixture, view, "", "x"), REPLICA_E_ISDIR);
    assert_int_equal(mkdir_at(fixture, view, "d"), 0);
    assert_int_equal(put(fixture, view, "d", "x"), REPLICA_E_ISDIR);
    assert_int_equal(put(fixture, view, "f", "x"), 0);
    assert_int_equal(mkdir_at(fixture, view, "f"), REPLICA_E_EXISTS);
    assert_int_equal(put(fixture, view, "f/g", "x"), REPLICA_E_NOTDIR);
    assert_int_equal(link_at(fixture, view, "f", "g"), REPLICA_E_PERM); /* of version 1 */
    assert_int_equal(remove_at(fixture, view, ""), REPLICA_E_INVALID);
    assert_int_equal(remove_at(fixture, view, "nothing"), REPLICA_E_NOTFOUND);
    assert_int_equal(done(fixture, replica_view_put(view, support_path("l"), &link, &fixture->log)),
                     REPLICA_E_INVALID);
    bad.size = 99;
    assert_int_equal(done(fixture, replica_view_put(view, support_path("l"), &bad, &fixture->log)),
                     REPLICA_E_INVALID);
    assert_int_equal(put(fixture, reader, "f", "x"), REPLICA_E_READONLY);
    assert_int_equal(remove_at(fixture, reader, "f"), REPLICA_E_READONLY);
    assert_int_equal(rename_at(fixture, reader, "f", "g"), REPLICA_E_READONLY);
    assert_int_equal(link_at(fixture, reader, "f", "g"), REPLICA_E_READONLY);
    assert_int_equal(
        done(fixture, replica_view_make_parents(reader, support_path("a/b"), 0, 0, 0, &fixture->log)),
        REPLICA_E_READONLY);
    assert_string_equal(list(view, ""), "d/ f ");
}

static void parents_are_made_at_once(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    int rv, rounds = 0;
    while ((rv = done(fixture, replica_view_make_parents(view, support_path("a/b/c/f"), 1, 2, 3,
                                                         &fixture->log))) == REPLICA_E_AGAIN)
        rounds++;
    assert_int_equal(rv, 0);
    assert_int_equal(rounds, 1); /* then they are seen */
    assert_string_equal(shown(view, "a/b/c"), "dir");
    assert_int_equal(put(fixture, view, "a/b/c/f", "x"), 0);
    assert_int_equal(
        done(fixture, replica_view_make_parents(view, support_path("a/b/c/f/g"), 0, 0, 0, &fixture->log)),
        REPLICA_E_NOTDIR);
}

/* A committed directory goes name by name, though its first page shows nothing any more. */
static void a_committed_tree_can_be_removed(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    char name[20];
    assert_int_equal(mkdir_at(fixture, view, "d"), 0);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "d/%02d", i);
        assert_int_equal(put(fixture, view, name, "x"), 0);
    }
    commit(fixture, view);
    reload(fixture, view);
    assert_int_equal(remove_at(fixture, view, "d"), REPLICA_E_NOTEMPTY);
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof name, "d/%02d", i);
        assert_int_equal(remove_at(fixture, view, "d"), REPLICA_E_NOTEMPTY);
        assert_int_equal(remove_at(fixture, view, name), 0);
    }
    assert_string_equal(list(view, "d"), "");
    assert_int_equal(remove_at(fixture, view, "d"), 0);
    assert_string_equal(shown(view, "d"), "-");
    assert_string_equal(list(view, ""), "");
    commit(fixture, view);
    reload(fixture, view);
    assert_string_equal(list(view, ""), "");
    assert_int_equal(overlay_records(fixture), 0);
}

/* from/: 300 files in two directories, half of them committed; one with two names. */
static void make_movable(struct fixture *fixture, struct replica_view *view)
{
    char name[40];
    assert_int_equal(mkdir_at(fixture, view, "from"), 0);
    assert_int_equal(mkdir_at(fixture, view, "from/empty"), 0);
    assert_int_equal(mkdir_at(fixture, view, "from/sub"), 0);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "from/%sf%d", i % 2 == 0 ? "sub/" : "", i);
        assert_int_equal(put(fixture, view, name, "x"), 0);
        if (i == 150) {
            commit(fixture, view);
            reload(fixture, view);
        }
    }
    assert_int_equal(link_at(fixture, view, "from/f1", "from/sub/linked"), 0);
}

static int rename_step(struct fixture *fixture, struct replica_view *view)
{
    return done(fixture,
                replica_view_rename(view, support_path("from"), support_path("to"), 10, &fixture->log));
}

static void check_moved(struct replica_view *view, const char *sub)
{
    assert_string_equal(shown(view, "from"), "-");
    assert_string_equal(shown(view, "from/f1"), "-");
    assert_string_equal(list(view, "to/sub"), sub);
    assert_string_equal(list(view, "to/empty"), "");
    assert_string_equal(shown(view, "to/sub/linked"), "x*2");
    assert_string_equal(shown(view, "to/f1"), "x*2");
}

static void check_unmoved(struct replica_view *view, const char *sub)
{
    assert_string_equal(shown(view, "to"), "-");
    assert_string_equal(list(view, "from/sub"), sub);
    assert_string_equal(list(view, "from/empty"), "");
    assert_string_equal(shown(view, "from/sub/linked"), "x*2");
    assert_string_equal(shown(view, "from/f1"), "x*2");
}

static void a_directory_moves_whole(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0), *other = open_view(fixture, 2, "", 0);
    char before[60000];
    int rv, steps = 0;
    make_movable(fixture, view);
    strcpy(before, list(view, "from/sub"));
    assert_int_equal(rename_at(fixture, view, "from", "from/sub/x"), REPLICA_E_INVALID);
    while ((rv = rename_step(fixture, view)) == REPLICA_E_AGAIN) {
        check_unmoved(view, before);
        steps++;
    }
    assert_int_equal(rv, 0);
    assert_in_range(steps, 300 / 10, 300 / 10 + 10); /* each does its share */
    check_moved(view, before);
    assert_string_equal(list(view, ""), "to/ ");
    commit(fixture, view);
    reload(fixture, view);
    reload(fixture, other);
    assert_string_equal(list(other, ""), "to/ ");
    check_moved(other, before);
    assert_int_equal(overlay_records(fixture), 0);
}

/* After a restart as a node does it: what was frozen is thawed, what was lost is forgotten. */
static struct replica_view *recover(struct fixture *fixture, struct replica_view *view)
{
    size_t lost;
    view = restart(fixture, view);
    assert_int_equal(done(fixture, replica_view_forget_lost(view, fixture->contents, &fixture->log, &lost)),
                     0);
    assert_int_equal(lost, 0);
    return view;
}

static void a_move_that_is_cut_off_leaves_all_as_it_was(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    size_t records;
    uint64_t dirty;
    char before[60000];
    int rv = REPLICA_E_AGAIN;
    make_movable(fixture, view);
    strcpy(before, list(view, "from/sub"));
    records = overlay_records(fixture);
    dirty = replica_view_info(view)->dirty;
    for (int steps = 1; rv == REPLICA_E_AGAIN; steps++) { /* cut off after every step that there is */
        for (int i = 0; i < steps && rv == REPLICA_E_AGAIN; i++)
            rv = rename_step(fixture, view);
        if (rv != REPLICA_E_AGAIN)
            break;
        view = recover(fixture, view);
        check_unmoved(view, before);
        assert_int_equal(overlay_records(fixture), records);
        assert_int_equal(replica_view_info(view)->dirty, dirty);
    }
    assert_int_equal(rv, 0);
    view = recover(fixture, view);
    check_moved(view, before);
    commit(fixture, view);
    reload(fixture, view);
    check_moved(view, before);
    assert_int_equal(overlay_records(fixture), 0);
}

/* A commit in the middle of a move has nothing of it, and what comes to light later has the right bases. */
static void a_commit_passes_a_move(void **state)
{
    struct fixture *fixture = *state;
    for (int fails = 0; fails < 3; fails++) {
        struct replica_view *view = open_view(fixture, (uint64_t)(10 + fails), "", 0);
        char before[60000], passed[20];
        int rv;
        snprintf(passed, sizeof passed, "passed %d", fails);
        make_movable(fixture, view);
        strcpy(before, list(view, "from/sub"));
        for (int i = 0; i < 8; i++)
            assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
        for (int i = 0; i < fails; i++) {
            assert_int_equal(freeze(fixture, view), 0);
            assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
            assert_int_equal(done(fixture, replica_view_thaw(view, &fixture->log)), 0);
            assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
        }
        assert_int_equal(freeze(fixture, view), 0);
        (void)rename_step(fixture, view);
        publish(fixture, view);
        check_unmoved(view, before);
        while ((rv = rename_step(fixture, view)) == REPLICA_E_AGAIN)
            check_unmoved(view, before);
        assert_int_equal(rv, 0);
        check_moved(view, before);
        commit(fixture, view);
        reload(fixture, view);
        check_moved(view, before);
        assert_int_equal(lost_versions(fixture), 0);
        assert_int_equal(overlay_records(fixture), 0);
        assert_int_equal(rename_at(fixture, view, "to", passed), 0); /* out of the next one's way */
        commit(fixture, view);
        reload(fixture, view);
    }
}

/* A commit that was in flight when a move began is not the last any more when what was moved comes to light. */
static void two_commits_pass_a_move(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    char before[60000];
    int rv;
    make_movable(fixture, view);
    strcpy(before, list(view, "from/sub"));
    assert_int_equal(freeze(fixture, view), 0);
    assert_int_equal(put(fixture, view, "late", "y"), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
    publish(fixture, view);
    assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
    commit(fixture, view);
    while ((rv = rename_step(fixture, view)) == REPLICA_E_AGAIN)
        check_unmoved(view, before);
    assert_int_equal(rv, 0);
    commit(fixture, view);
    reload(fixture, view);
    check_moved(view, before);
    assert_int_equal(lost_versions(fixture), 0);
    assert_int_equal(overlay_records(fixture), 0);
}

/* What a reload brings into a directory that is being moved goes with it. */
static void a_reload_passes_a_move(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0), *other = open_view(fixture, 2, "", 0);
    int rv;
    make_movable(fixture, view);
    commit(fixture, view);
    reload(fixture, view);
    reload(fixture, other);
    for (int i = 0; i < 25; i++)
        assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
    assert_int_equal(put(fixture, other, "from/added", "y"), 0);
    assert_int_equal(put(fixture, other, "from/f3", "z"), 0);
    assert_int_equal(put(fixture, other, "from/empty/new", "y"), 0);
    commit(fixture, other);
    reload(fixture, view);
    while ((rv = rename_step(fixture, view)) == REPLICA_E_AGAIN)
        assert_string_equal(shown(view, "from/added"), "y*1");
    assert_int_equal(rv, 0);
    assert_string_equal(shown(view, "from"), "-");
    assert_string_equal(shown(view, "to/added"), "y*1");
    assert_string_equal(shown(view, "to/empty/new"), "y*1");
    assert_string_equal(shown(view, "to/f3"), "z*1");
    commit(fixture, view);
    reload(fixture, view);
    reload(fixture, other);
    assert_string_equal(list(other, ""), "to/ ");
    assert_int_equal(lost_versions(fixture), 0);
    assert_int_equal(overlay_records(fixture), 0);
}

/* Who gives a move up, or meets a path that becomes too long, has changed nothing; whoever writes next finds the view as it was. */
static void a_move_can_be_given_up(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    char before[60000], deep[REPLICA_PATH_MAX + 1];
    size_t n = 0;
    make_movable(fixture, view);
    strcpy(before, list(view, "from/sub"));
    for (int i = 0; i < 8; i++)
        assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
    assert_int_equal(put(fixture, view, "from/added", "y"), 0);
    check_unmoved(view, before);
    assert_int_equal(rename_at(fixture, view, "from/f3", "f3"), 0); /* another one */
    assert_int_equal(rename_step(fixture, view), REPLICA_E_AGAIN);
    check_unmoved(view, before);
    assert_int_equal(rename_at(fixture, view, "from", "to"), 0);
    check_moved(view, before);
    assert_string_equal(shown(view, "to/added"), "y*1");
    assert_string_equal(shown(view, "f3"), "x*1");
    assert_string_equal(shown(view, "to/f3"), "-");

    while (n + 200 < REPLICA_PATH_MAX - 5) { /* a place where to/f1 fits, and to/sub/linked does not */
        if (n > 0)
            deep[n++] = '/';
        memset(deep + n, 'd', 200);
        n += 200;
        deep[n] = '\0';
        assert_int_equal(mkdir_at(fixture, view, deep), 0);
    }
    n += (size_t)snprintf(
        deep + n, sizeof deep - n, "/%.*s", (int)(REPLICA_PATH_MAX - 10 - n - 1),
        "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee");
    assert_int_equal(rename_at(fixture, view, "to", deep), REPLICA_E_TOOBIG);
    check_moved(view, before);
    assert_string_equal(shown(view, deep), "-");
    commit(fixture, view);
    reload(fixture, view);
    check_moved(view, before);
    assert_int_equal(overlay_records(fixture), 0);
}

/* The parts of a large removal are bounded, too: a directory of which thousands of names have gone is looked through in pieces. */
static void a_large_directory_goes_in_pieces(void **state)
{
    enum { FILES = 3000 };
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    char name[40];
    int rv, steps = 0;
    assert_int_equal(mkdir_at(fixture, view, "d"), 0);
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "d/%d", i);
        assert_int_equal(put(fixture, view, name, "x"), 0);
    }
    commit(fixture, view);
    reload(fixture, view);
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "d/%d", i);
        assert_int_equal(remove_at(fixture, view, name), 0);
    }
    while ((rv = done(fixture, replica_view_remove(view, support_path("d"), &fixture->log))) ==
           REPLICA_E_AGAIN)
        steps++;
    assert_int_equal(rv, 0);
    assert_in_range(steps, FILES / 250 - 1, FILES / 250 + 1);
    commit(fixture, view);
    reload(fixture, view);
    assert_string_equal(list(view, ""), "");
    assert_int_equal(mkdir_at(fixture, view, "d"), 0);
    for (int i = 0; i < 600; i++) { /* what was looked through counts no more once something is written */
        snprintf(name, sizeof name, "d/%d", i);
        assert_int_equal(put(fixture, view, name, "x"), 0);
        assert_int_equal(remove_at(fixture, view, name), 0);
    }
    assert_int_equal(done(fixture, replica_view_remove(view, support_path("d"), &fixture->log)),
                     REPLICA_E_AGAIN);
    assert_int_equal(put(fixture, view, "d/0", "x"), 0);
    assert_int_equal(remove_at(fixture, view, "d"), REPLICA_E_NOTEMPTY);
}

static void renaming_follows_posix(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    assert_int_equal(mkdir_at(fixture, view, "d"), 0);
    assert_int_equal(mkdir_at(fixture, view, "empty"), 0);
    assert_int_equal(put(fixture, view, "d/f", "f"), 0);
    assert_int_equal(put(fixture, view, "g", "g"), 0);
    assert_int_equal(rename_at(fixture, view, "nothing", "x"), REPLICA_E_NOTFOUND);
    assert_int_equal(rename_at(fixture, view, "g", "nowhere/x"), REPLICA_E_NOTFOUND);
    assert_int_equal(rename_at(fixture, view, "g", "d"), REPLICA_E_ISDIR);
    assert_int_equal(rename_at(fixture, view, "d", "g"), REPLICA_E_NOTDIR);
    assert_int_equal(rename_at(fixture, view, "empty", "d"), REPLICA_E_NOTEMPTY);
    assert_int_equal(rename_at(fixture, view, "", "x"), REPLICA_E_INVALID);
    assert_int_equal(rename_at(fixture, view, "g", "g"), 0);
    assert_int_equal(rename_at(fixture, view, "d", "empty"), 0);
    assert_string_equal(shown(view, "empty/f"), "f*1");
    assert_int_equal(rename_at(fixture, view, "g", "empty/f"), 0);
    assert_string_equal(shown(view, "empty/f"), "g*1");
    assert_string_equal(list(view, ""), "empty/ ");
}

static void links_are_counted_over_drafts_and_snapshot(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0), *other = open_view(fixture, 2, "", 0);
    assert_int_equal(put(fixture, view, "a", "one"), 0);
    assert_int_equal(link_at(fixture, view, "a", "b"), 0);
    assert_int_equal(link_at(fixture, view, "b", "c"), 0);
    assert_int_equal(link_at(fixture, view, "a", "b"), REPLICA_E_EXISTS);
    assert_string_equal(shown(view, "a"), "one*3");
    commit(fixture, view);
    assert_string_equal(shown(view, "c"), "one*3");
    reload(fixture, view);
    reload(fixture, other);
    assert_string_equal(shown(other, "b"), "one*3");
    assert_int_equal(replica_volume_state(fixture->volume)->totals.inodes, 1);
    assert_int_equal(put(fixture, view, "b", "two"), 0); /* through one name, seen through all */
    assert_string_equal(shown(view, "a"), "two*3");
    assert_string_equal(shown(view, "c"), "two*3");
    assert_int_equal(remove_at(fixture, view, "a"), 0);
    assert_string_equal(shown(view, "b"), "two*2");
    assert_int_equal(rename_at(fixture, view, "b", "c"), 0); /* two names of one file stay */
    assert_string_equal(list(view, ""), "b c ");
    assert_int_equal(rename_at(fixture, view, "b", "moved"), 0);
    assert_string_equal(shown(view, "moved"), "two*2");
    assert_int_equal(remove_at(fixture, view, "c"), 0);
    assert_string_equal(shown(view, "moved"), "two*1");
    commit(fixture, view);
    reload(fixture, other);
    assert_string_equal(shown(other, "moved"), "two*1");
    reload(fixture, view);
    assert_int_equal(put(fixture, view, "new", "n"), 0);
    assert_int_equal(rename_at(fixture, view, "new", "moved"),
                     0); /* the last name is replaced: the object ends */
    commit(fixture, view);
    reload(fixture, view);
    assert_string_equal(shown(view, "moved"), "n*1");
    assert_int_equal(replica_volume_state(fixture->volume)->totals.inodes, 1);
    assert_int_equal(link_at(fixture, view, "moved", "x"), 0);
    assert_int_equal(remove_at(fixture, view, "moved"), 0);
    assert_int_equal(remove_at(fixture, view, "x"), 0);
    commit(fixture, view);
    reload(fixture, view);
    assert_int_equal(replica_volume_state(fixture->volume)->totals.inodes, 0);
    assert_int_equal(mkdir_at(fixture, view, "d"), 0);
    assert_int_equal(link_at(fixture, view, "d", "e"), REPLICA_E_PERM);
}

static void a_view_of_a_sub_path(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *sub = open_view(fixture, 1, "s/t", 0), *whole = open_view(fixture, 2, "", 0);
    assert_string_equal(shown(sub, ""), "dir"); /* not there yet */
    assert_string_equal(list(sub, ""), "");
    assert_int_equal(mkdir_at(fixture, sub, "d"), 0);
    assert_int_equal(put(fixture, sub, "d/f", "x"), 0);
    commit(fixture, sub);
    reload(fixture, sub);
    reload(fixture, whole);
    assert_string_equal(list(whole, ""), "s/ "); /* made, and listed */
    assert_string_equal(list(whole, "s"), "t/ ");
    assert_string_equal(shown(whole, "s/t/d/f"), "x*1");
    assert_string_equal(list(sub, "d"), "f ");
    assert_string_equal(shown(sub, "s"), "-");
}

static void paths_of_the_greatest_length_fit(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0), *sub = open_view(fixture, 2, "s", 0);
    char path[REPLICA_PATH_MAX + 1];
    struct replica_version version;
    memset(path, 'p', sizeof path);
    for (size_t i = 1; i < REPLICA_PATH_MAX; i += 2)
        path[i] = '/';
    path[REPLICA_PATH_MAX - 1] = 'p';
    replica_version_init(&version);
    assert_int_equal(replica_view_lookup(view, (struct replica_path){path, REPLICA_PATH_MAX}, &version),
                     REPLICA_E_NOTFOUND);
    assert_int_equal(replica_view_lookup(sub, (struct replica_path){path, REPLICA_PATH_MAX - 1}, &version),
                     REPLICA_E_TOOBIG);
    assert_int_equal(
        replica_view_lookup(sub, (struct replica_path){path + 1, REPLICA_PATH_MAX - 2}, &version),
        REPLICA_E_NOTFOUND);
    replica_version_close(&version);
}

static void a_failed_commit_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    for (int restarted = 0; restarted < 2; restarted++) {
        assert_int_equal(freeze(fixture, view), REPLICA_E_NOTFOUND); /* nothing is dirty */
        assert_int_equal(put(fixture, view, "f", "one"), 0);
        assert_int_equal(freeze(fixture, view), 0);
        assert_int_equal(freeze(fixture, view), REPLICA_E_BUSY);
        if (restarted)
            view = restart(fixture, view);
        assert_int_equal(replica_view_info(view)->commit, REPLICA_COMMIT_FROZEN);
        assert_int_equal(done(fixture, replica_view_thaw(view, &fixture->log)), 0);
        assert_true(replica_view_info(view)->dirty > 0);
        assert_string_equal(shown(view, "f"), "one*1");
        commit(fixture, view); /* and it can be tried again */
        reload(fixture, view);
        assert_string_equal(shown(view, "f"), "one*1");
        assert_int_equal(remove_at(fixture, view, "f"), 0);
        commit(fixture, view);
        reload(fixture, view);
    }
}

/* A writer that builds on its own commits loses nothing, whatever was in flight when it wrote. */
static void bases_follow_the_views_own_commits(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    char text[32];
    int lost = 0;
    for (int round = 0; round < 12; round++) {
        snprintf(text, sizeof text, "%d", round);
        assert_int_equal(put(fixture, view, "f", text), 0);
        assert_int_equal(freeze(fixture, view), 0);
        snprintf(text, sizeof text, "%d while frozen", round);
        assert_int_equal(put(fixture, view, "f", text), 0);
        if (round % 3 == 0) {
            assert_int_equal(done(fixture, replica_view_thaw(view, &fixture->log)), 0);
            assert_int_equal(freeze(fixture, view), 0);
        }
        if (round % 4 == 1)
            view = restart(fixture, view);
        publish(fixture, view);
        if (round % 5 == 2)
            reload(fixture, view);
    }
    while (freeze(fixture, view) == 0)
        publish(fixture, view);
    reload(fixture, view);
    assert_string_equal(shown(view, "f"), "11 while frozen*1");
    assert_int_equal(replica_map_lost(replica_volume_map(fixture->volume), count_lost, &lost), 0);
    assert_int_equal(lost, 0);
}

static void drafts_become_contents(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    struct replica_entry draft = {
        .kind = REPLICA_KIND_FILE, .mode = 0644, .blob = {.kind = REPLICA_BLOB_DRAFT, .draft = 17}};
    struct replica_entry content = support_content_file(3, 5000);
    struct replica_blob inline_blob = {
        .kind = REPLICA_BLOB_INLINE, .data = (const uint8_t *)"abc", .size = 3};
    struct replica_id volume = support_id(9, 9), stranger = support_id(9, 8);
    uint64_t number;
    bool refers;
    assert_int_equal(done(fixture, replica_view_put(view, support_path("f"), &draft, &fixture->log)), 0);
    draft.blob.draft = 20;
    assert_int_equal(done(fixture, replica_view_put(view, support_path("g"), &draft, &fixture->log)), 0);
    assert_int_equal(freeze(fixture, view), 0);
    draft.blob.draft = 17;
    draft.mode = 0600; /* chmod of the same draft, while it is in flight */
    assert_int_equal(done(fixture, replica_view_put(view, support_path("f"), &draft, &fixture->log)), 0);
    draft.blob.draft = 30;
    assert_int_equal(done(fixture, replica_view_put(view, support_path("h"), &draft, &fixture->log)), 0);
    assert_string_equal(shown(view, "f"), "draft 17");
    assert_int_equal(replica_view_next_draft(view, 0, &number), 0);
    assert_int_equal(number, 17);
    assert_int_equal(replica_view_next_draft(view, 17, &number), 0);
    assert_int_equal(number, 20);
    assert_int_equal(replica_view_next_draft(view, 20, &number), REPLICA_E_NOTFOUND); /* 30 is not frozen */
    assert_int_equal(replica_views_refer(fixture->views, NULL, &content.blob.content, &refers), 0);
    assert_false(refers);
    assert_int_equal(done(fixture, replica_view_settle(view, 17, &content.blob, 5000, &fixture->log)), 0);
    assert_int_equal(done(fixture, replica_view_settle(view, 20, &inline_blob, 3, &fixture->log)), 0);
    assert_int_equal(replica_view_next_draft(view, 0, &number), REPLICA_E_NOTFOUND);
    assert_string_equal(shown(view, "g"), "abc*1");
    assert_string_equal(shown(view, "h"), "draft 30");
    assert_int_equal(replica_views_refer(fixture->views, NULL, &content.blob.content, &refers), 0);
    assert_true(refers);
    assert_int_equal(replica_views_refer(fixture->views, &volume, &content.blob.content, &refers), 0);
    assert_true(refers);
    assert_int_equal(replica_views_refer(fixture->views, &stranger, &content.blob.content, &refers), 0);
    assert_false(refers);
    publish(fixture, view);
    assert_int_equal(remove_at(fixture, view, "h"), 0);
    commit(fixture, view);
    reload(fixture, view);
    assert_int_equal(replica_views_refer(fixture->views, NULL, &content.blob.content, &refers), 0);
    assert_false(refers);
    assert_int_equal(overlay_records(fixture), 0);
}

/* The file of a draft is gone: what names it goes too, the rest of the view stays and can be committed. */
static void a_lost_draft_does_not_block_its_view(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    struct replica_entry draft = {
        .kind = REPLICA_KIND_FILE, .mode = 0644, .blob = {.kind = REPLICA_BLOB_DRAFT, .draft = 17}};
    uint64_t number;
    size_t n;
    assert_int_equal(put(fixture, view, "f", "before"), 0);
    commit(fixture, view);
    assert_int_equal(done(fixture, replica_view_put(view, support_path("f"), &draft, &fixture->log)), 0);
    assert_int_equal(put(fixture, view, "other", "kept"), 0);
    assert_int_equal(freeze(fixture, view), 0);
    assert_int_equal(replica_view_next_draft(view, 0, &number), 0);
    assert_int_equal(done(fixture, replica_view_thaw(view, &fixture->log)), 0);
    assert_int_equal(done(fixture, replica_view_forget_draft(view, 17, &fixture->log, &n)), 0);
    assert_int_equal(n, 1);
    assert_int_equal(replica_view_info(view)->dirty, 1);
    assert_string_equal(shown(view, "f"), "before*1");
    assert_int_equal(freeze(fixture, view), 0);
    assert_int_equal(replica_view_next_draft(view, 0, &number), REPLICA_E_NOTFOUND);
    publish(fixture, view);
    reload(fixture, view);
    assert_string_equal(shown(view, "other"), "kept*1");
}

/* Power went: a dirty record may survive by luck while the bytes that it names do not. It goes; what lies
 * elsewhere stays. */
static void records_of_lost_bytes_are_forgotten(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    struct replica_entry gone = support_content_file(3, 5000), here = support_content_file(0, 400);
    char text[400] = "bytes that are here";
    size_t n;
    assert_int_equal(replica_contents_ingest(fixture->contents, text, sizeof text, &here.blob.content), 0);
    assert_int_equal(done(fixture, replica_view_put(view, support_path("committed"), &gone, &fixture->log)),
                     0);
    commit(fixture, view); /* the voters keep these */
    assert_int_equal(done(fixture, replica_view_put(view, support_path("here"), &here, &fixture->log)), 0);
    assert_int_equal(done(fixture, replica_view_put(view, support_path("gone"), &gone, &fixture->log)), 0);
    assert_int_equal(put(fixture, view, "small", "x"), 0);
    view = restart(fixture, view);
    assert_int_equal(done(fixture, replica_view_forget_lost(view, fixture->contents, &fixture->log, &n)), 0);
    assert_int_equal(n, 1);
    assert_string_equal(list(view, ""), "committed here small ");
    assert_int_equal(done(fixture, replica_view_forget_lost(view, fixture->contents, &fixture->log, &n)), 0);
    assert_int_equal(n, 0);
    commit(fixture, view);
    reload(fixture, view);
    assert_int_equal(overlay_records(fixture), 0);
    assert_true(replica_view_info(view)->dirty == 0);
}

/* The same while a commit is in flight: what is frozen without a stamp certainly was not minted, and is dirty again once it is thawed, less
 * what was lost; what has a stamp is the voters' to keep. */
static void frozen_records_are_forgotten_too(void **state)
{
    struct fixture *fixture = *state;
    struct replica_entry gone = support_content_file(3, 5000),
                         draft = {.kind = REPLICA_KIND_FILE,
                                  .mode = 0644,
                                  .blob = {.kind = REPLICA_BLOB_DRAFT, .draft = 17}};
    for (int stamped = 0; stamped < 2; stamped++) {
        struct replica_view *view = open_view(fixture, (uint64_t)(1 + stamped), "", 0);
        struct replica_stamp stamp;
        size_t n;
        assert_int_equal(put(fixture, view, "small", "x"), 0);
        assert_int_equal(done(fixture, replica_view_put(view, support_path("gone"), &gone, &fixture->log)),
                         0);
        if (!stamped)
            assert_int_equal(
                done(fixture, replica_view_put(view, support_path("draft"), &draft, &fixture->log)), 0);
        assert_int_equal(freeze(fixture, view), 0);
        stamp = (struct replica_stamp){77, replica_view_info(view)->commit_id};
        if (stamped)
            assert_int_equal(done(fixture, replica_view_stamp(view, &stamp, &fixture->log)), 0);
        assert_int_equal(put(fixture, view, "later", "y"), 0);
        view = restart(fixture, view);
        assert_int_equal(done(fixture, replica_view_forget_lost(view, fixture->contents, &fixture->log, &n)),
                         0);
        assert_int_equal(n, stamped ? 0 : 1);
        assert_int_equal(done(fixture, replica_view_forget_draft(view, 17, &fixture->log, &n)), 0);
        assert_int_equal(n, stamped ? 0 : 1);
        assert_int_equal(replica_view_info(view)->dirty, 1);
        if (stamped) {
            assert_string_equal(list(view, ""), "gone later small ");
            continue;
        }
        assert_int_equal(done(fixture, replica_view_thaw(view, &fixture->log)), 0);
        assert_int_equal(replica_view_info(view)->dirty, 2);
        assert_string_equal(list(view, ""), "later small ");
        view = restart(fixture, view);
        assert_int_equal(replica_view_info(view)->dirty, 2); /* counted anew */
    }
}

static void the_journal_lives_as_long_as_the_commit(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0);
    struct replica_stamp stamp = {77, support_id(2, 1)};
    struct replica_buffer data;
    replica_buffer_init(&data);
    assert_int_equal(put(fixture, view, "f", "x"), 0);
    assert_int_equal(freeze(fixture, view), 0);
    assert_int_equal(done(fixture, replica_view_journal(view, "proposal", 8, &fixture->log)), 0);
    assert_int_equal(done(fixture, replica_view_stamp(view, &stamp, &fixture->log)), 0);
    view = restart(fixture, view);
    assert_int_equal(replica_view_info(view)->commit, REPLICA_COMMIT_STAMPED);
    assert_int_equal(replica_stamp_compare(&replica_view_info(view)->stamp, &stamp), 0);
    assert_int_equal(replica_view_journal_read(view, &data), 0);
    assert_int_equal(data.size, 8);
    assert_int_equal(done(fixture, replica_view_close(view, 10, &fixture->log)), REPLICA_E_BUSY);
    assert_int_equal(
        done(fixture, replica_view_committed(view, &stamp, &(struct replica_dot){support_actor(1, 1), 1},
                                             &fixture->log)),
        0);
    assert_int_equal(replica_view_journal_read(view, &data), REPLICA_E_NOTFOUND);
    assert_int_equal(
        done(fixture, replica_view_committed(view, &stamp, &(struct replica_dot){support_actor(1, 1), 1},
                                             &fixture->log)),
        0);
    replica_buffer_close(&data);
}

static void closing_forgets_all(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *view = open_view(fixture, 1, "", 0), *other = open_view(fixture, 2, "", 0);
    char name[20];
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "f%d", i);
        assert_int_equal(put(fixture, view, name, "x"), 0);
    }
    assert_int_equal(put(fixture, other, "kept", "x"), 0);
    assert_int_equal(done(fixture, replica_view_close(view, 3, &fixture->log)), REPLICA_E_AGAIN);
    assert_null(replica_view_find(fixture->views,
                                  &(struct replica_id){{0, 0, 0, 0, 0, 0, 0, 1, 5, 5, 5, 5, 5, 5, 5, 5}}));
    replica_views_destroy(&fixture->views); /* a crash half way: the view is there, empty, never half */
    assert_int_equal(replica_views_new(fixture->log_kv, fixture->map_kv, &fixture->views), 0);
    assert_int_equal(replica_views_count(fixture->views), 2);
    view = replica_view_find_label(
        fixture->views, &(struct replica_id){{0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9}}, "view 1");
    other = replica_view_find_label(
        fixture->views, &(struct replica_id){{0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9}}, "view 2");
    assert_true(view != NULL && other != NULL && replica_views_at(fixture->views, 0) == view);
    assert_string_equal(list(view, ""), "");
    assert_int_equal(freeze(fixture, view), REPLICA_E_NOTFOUND);
    while (done(fixture, replica_view_close(view, 3, &fixture->log)) == REPLICA_E_AGAIN)
        ;
    assert_int_equal(replica_views_count(fixture->views), 1);
    assert_string_equal(list(other, ""), "kept ");
    assert_int_equal(overlay_records(fixture), 1);
}

static void the_table_of_views(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view_options options = {.id = support_id(5, 1), .volume = support_id(9, 9), .snapshot = 5};
    struct replica_view *view;
    struct replica_id elsewhere = support_id(8, 8);
    assert_true(replica_views_floor(fixture->views, &options.volume) == UINT64_MAX);
    open_view(fixture, 1, "", 0);
    assert_int_equal(replica_view_open(fixture->views, &options, &fixture->log, &view), REPLICA_E_EXISTS);
    options.id = support_id(5, 2);
    strcpy(options.label, "view 1");
    assert_int_equal(replica_view_open(fixture->views, &options, &fixture->log, &view), REPLICA_E_EXISTS);
    strcpy(options.label, "");
    options.sub = support_path("/not/canonical");
    assert_int_equal(replica_view_open(fixture->views, &options, &fixture->log, &view), REPLICA_E_INVALID);
    options.sub = support_path("");
    assert_int_equal(done(fixture, replica_view_open(fixture->views, &options, &fixture->log, &view)), 0);
    assert_true(replica_views_floor(fixture->views, &options.volume) == 0);
    assert_true(replica_views_floor(fixture->views, &elsewhere) == UINT64_MAX);
    for (uint64_t i = 3; replica_views_count(fixture->views) < REPLICA_VIEWS_MAX; i++) {
        options.id = support_id(5, i);
        assert_int_equal(replica_view_open(fixture->views, &options, &fixture->log, &view), 0);
    }
    options.id = support_id(6, 1);
    assert_int_equal(replica_view_open(fixture->views, &options, &fixture->log, &view), REPLICA_E_NOSPACE);
    replica_kv_batch_clear(&fixture->log);
}

/* Two views made a file and a directory of one name: the directory keeps it, and the file's alias settles the
 * conflict. */
static void settling_an_alias(struct fixture *fixture, bool by_rename)
{
    struct replica_view *a = open_view(fixture, 1, "", 0), *b = open_view(fixture, 2, "", 0);
    char alias[REPLICA_NAME_MAX + 1], expected[600];
    assert_int_equal(mkdir_at(fixture, a, "n"), 0);
    assert_int_equal(put(fixture, a, "n/x", "below"), 0);
    commit(fixture, a);
    assert_int_equal(put(fixture, b, "n", "file"), 0);
    commit(fixture, b);
    reload(fixture, a);
    snprintf(alias, sizeof alias, "n.remora-%08x", 0);
    snprintf(expected, sizeof expected, "n/ %s ", alias);
    assert_string_equal(list(a, ""), expected);
    assert_string_equal(shown(a, alias), "file*1");
    assert_int_equal(put(fixture, a, alias, "x"), REPLICA_E_READONLY);
    assert_int_equal(link_at(fixture, a, alias, "y"), REPLICA_E_READONLY);
    assert_int_equal(put(fixture, a, "other", "x"), 0);
    assert_int_equal(rename_at(fixture, a, "other", alias), REPLICA_E_READONLY);
    assert_int_equal(remove_at(fixture, a, "other"), 0);
    if (by_rename)
        assert_int_equal(rename_at(fixture, a, alias, "saved"), 0);
    else
        assert_int_equal(remove_at(fixture, a, alias), 0);
    for (int i = 0; i < 2; i++) { /* as a draft, and as committed */
        assert_string_equal(list(a, ""), by_rename ? "n/ saved " : "n/ ");
        assert_string_equal(shown(a, "n/x"), "below*1");
        assert_string_equal(shown(a, alias), "-");
        if (i == 0) {
            commit(fixture, a);
            reload(fixture, a);
        }
    }
}

static void removing_an_alias_settles_it(void **state)
{
    settling_an_alias(*state, false);
}

static void renaming_an_alias_settles_it(void **state)
{
    settling_an_alias(*state, true);
}

/* Somebody removed a tree while we wrote into it: it lives, and what we touch next gives its directories
 * entries again. */
static void a_revived_directory_is_written_by_the_first_touch(void **state)
{
    struct fixture *fixture = *state;
    struct replica_view *a = open_view(fixture, 1, "", 0), *b = open_view(fixture, 2, "", 0);
    struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = support_path("p")};
    struct replica_version version;
    assert_int_equal(mkdir_at(fixture, a, "p"), 0);
    assert_int_equal(mkdir_at(fixture, a, "p/q"), 0);
    commit(fixture, a);
    reload(fixture, a);
    reload(fixture, b);
    assert_int_equal(put(fixture, b, "p/q/f", "written"), 0);
    assert_int_equal(remove_at(fixture, a, "p/q"), 0);
    assert_int_equal(remove_at(fixture, a, "p"), 0);
    commit(fixture, b);
    commit(fixture, a);
    reload(fixture, a);
    reload(fixture, b);
    assert_string_equal(shown(a, "p/q/f"), "written*1");
    assert_string_equal(list(a, ""), "p/ ");
    assert_int_equal(put(fixture, a, "p/q/g", "more"), 0);
    commit(fixture, a);
    replica_version_init(&version);
    assert_int_equal(
        replica_map_get(replica_volume_map(fixture->volume), NULL, &name, UINT64_MAX - 1, &version), 0);
    assert_false(version.tombstone);
    replica_version_close(&version);
}

/* Random operations beside a model */

#define NODES         200
#define NODE_PATH_MAX 400

struct node {
    char path[NODE_PATH_MAX];
    bool used, directory;
    int inode; /* of a file */
};

struct model {
    struct node nodes[NODES];
    char texts[4000][16];
    int inodes;
};

static struct node *model_find(struct model *model, const char *path)
{
    for (size_t i = 0; i < NODES; i++)
        if (model->nodes[i].used && strcmp(model->nodes[i].path, path) == 0)
            return &model->nodes[i];
    return NULL;
}

static struct node *model_add(struct model *model, const char *path)
{
    size_t i = 0;
    while (model->nodes[i].used)
        i++;
    assert_true(i < NODES);
    model->nodes[i] = (struct node){.used = true};
    strcpy(model->nodes[i].path, path);
    return &model->nodes[i];
}

static bool model_is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static bool model_empty(struct model *model, const char *dir)
{
    for (size_t i = 0; i < NODES; i++)
        if (model->nodes[i].used && model_is_below(model->nodes[i].path, dir))
            return false;
    return true;
}

/* 0, NOTFOUND or NOTDIR for the directories above */
static int model_parent(struct model *model, const char *path)
{
    char above[NODE_PATH_MAX];
    for (size_t i = 0; path[i] != '\0'; i++) {
        struct node *node;
        if (path[i] != '/')
            continue;
        snprintf(above, sizeof above, "%.*s", (int)i, path);
        node = model_find(model, above);
        if (node == NULL || !node->directory)
            return node == NULL ? REPLICA_E_NOTFOUND : REPLICA_E_NOTDIR;
    }
    return 0;
}

static int model_put(struct model *model, const char *path, const char *text)
{
    struct node *node = model_find(model, path);
    int rv = model_parent(model, path);
    if (rv != 0)
        return rv;
    if (node != NULL && node->directory != (text == NULL))
        return text == NULL ? REPLICA_E_EXISTS : REPLICA_E_ISDIR;
    if (node == NULL) {
        node = model_add(model, path);
        node->directory = text == NULL;
        node->inode = ++model->inodes;
        assert_true(model->inodes < 4000);
    }
    if (text != NULL)
        strcpy(model->texts[node->inode], text);
    return 0;
}

static int model_remove(struct model *model, const char *path)
{
    struct node *node = model_find(model, path);
    int rv = model_parent(model, path);
    if (rv != 0 || node == NULL)
        return rv != 0 ? rv : REPLICA_E_NOTFOUND;
    if (node->directory && !model_empty(model, path))
        return REPLICA_E_NOTEMPTY;
    node->used = false;
    return 0;
}

static int model_rename(struct model *model, const char *from, const char *to)
{
    struct node *source = model_find(model, from), *target = model_find(model, to);
    int rv = model_is_below(to, from) ? REPLICA_E_INVALID : model_parent(model, from);
    if (rv != 0 || source == NULL)
        return rv != 0 ? rv : REPLICA_E_NOTFOUND;
    rv = model_parent(model, to);
    if (rv != 0)
        return rv;
    if (target != NULL && target->directory)
        rv = !source->directory                            ? REPLICA_E_ISDIR
             : target != source && !model_empty(model, to) ? REPLICA_E_NOTEMPTY
                                                           : 0;
    else if (target != NULL && source->directory)
        rv = REPLICA_E_NOTDIR;
    if (target == source && source->directory) /* onto itself: checked as any, then nothing */
        return model_empty(model, to) ? 0 : REPLICA_E_NOTEMPTY;
    if (rv != 0 || target == source ||
        (target != NULL && !target->directory && target->inode == source->inode))
        return rv;
    if (target != NULL)
        target->used = false;
    for (size_t i = 0; i < NODES; i++) {
        char moved[2 * NODE_PATH_MAX];
        struct node *node = &model->nodes[i];
        if (!node->used || (node != source && !model_is_below(node->path, from)))
            continue;
        snprintf(moved, sizeof moved, "%s%s", to, node->path + strlen(from));
        assert_true(strlen(moved) < NODE_PATH_MAX);
        memcpy(node->path, moved, strlen(moved) + 1);
    }
    return 0;
}

static int model_link(struct model *model, const char *from, const char *to)
{
    struct node *source = model_find(model, from), *node;
    int rv = model_parent(model, from), inode;
    if (rv != 0 || source == NULL)
        return rv != 0 ? rv : REPLICA_E_NOTFOUND;
    if (source->directory)
        return REPLICA_E_PERM;
    rv = model_parent(model, to);
    if (rv != 0 || model_find(model, to) != NULL)
        return rv != 0 ? rv : REPLICA_E_EXISTS;
    inode = source->inode;
    node = model_add(model, to);
    node->inode = inode;
    return 0;
}

static int node_order(const void *a, const void *b)
{
    return strcmp(((const struct node *)a)->path, ((const struct node *)b)->path);
}

static void model_compare(struct model *model, struct replica_view *view, const char *dir, size_t *seen)
{
    char names[sizeof((struct names *)0)->text], expected[4000] = "", *name, *rest = names;
    qsort(model->nodes, NODES, sizeof model->nodes[0], node_order);
    for (size_t i = 0; i < NODES; i++) {
        const char *path = model->nodes[i].path, *slash = strrchr(path, '/');
        size_t n = slash == NULL ? 0 : (size_t)(slash - path);
        if (model->nodes[i].used && n == strlen(dir) && strncmp(path, dir, n) == 0)
            snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s%s ",
                     slash == NULL ? path : slash + 1, model->nodes[i].directory ? "/" : "");
    }
    strcpy(names, list(view, dir));
    assert_string_equal(names, expected);
    while ((name = strtok_r(rest, " ", &rest)) != NULL) {
        char path[2 * NODE_PATH_MAX], text[64];
        struct node *node;
        int links = 0;
        name[strcspn(name, "/")] = '\0';
        snprintf(path, sizeof path, "%s%s%s", dir, *dir == '\0' ? "" : "/", name);
        node = model_find(model, path);
        (*seen)++;
        if (node->directory) {
            model_compare(model, view, path, seen);
            continue;
        }
        for (size_t i = 0; i < NODES; i++)
            links +=
                model->nodes[i].used && !model->nodes[i].directory && model->nodes[i].inode == node->inode;
        snprintf(text, sizeof text, "%s*%d", model->texts[node->inode], links);
        assert_string_equal(shown(view, path), text);
    }
}

static void random_path(struct support_random *random, char *path)
{
    static const char *const names[] = {"a", "b", "c", "a.", "ab"};
    size_t depth = 1 + support_random_below(random, 3);
    path[0] = '\0';
    for (size_t i = 0; i < depth; i++)
        snprintf(path + strlen(path), 64 - strlen(path), "%s%s", i == 0 ? "" : "/",
                 names[support_random_below(random, 5)]);
}

static void step_file(struct fixture *fixture, struct support_random *random, struct model *model,
                      struct replica_view *view, int step)
{
    char path[64], to[64], text[16];
    random_path(random, path);
    random_path(random, to);
    snprintf(text, sizeof text, "t%d", step);
    switch (support_random_below(random, 7)) {
    case 0:
    case 1:
        assert_int_equal(put(fixture, view, path, text), model_put(model, path, text));
        break;
    case 2:
    case 3:
        assert_int_equal(mkdir_at(fixture, view, path), model_put(model, path, NULL));
        break;
    case 4:
        assert_int_equal(remove_at(fixture, view, path), model_remove(model, path));
        break;
    case 5:
        assert_int_equal(rename_at(fixture, view, path, to), model_rename(model, path, to));
        break;
    default:
        assert_int_equal(link_at(fixture, view, path, to), model_link(model, path, to));
        break;
    }
}

static void a_view_behaves_as_a_tree_of_files(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 25; seed++) {
        static struct model model;
        struct support_random random = {.state = seed * 7919};
        struct replica_view *view, *fresh;
        struct fixture *fixture;
        void *opened;
        size_t seen = 0;
        int lost = 0;
        setup(&opened);
        fixture = opened;
        memset(&model, 0, sizeof model);
        view = open_view(fixture, 1, seed % 3 == 0 ? "some/where" : "", 0);
        for (int step = 0; step < 250; step++) {
            uint64_t choice = support_random_below(&random, 40);
            if (choice == 0 && replica_view_info(view)->commit == REPLICA_COMMIT_NONE)
                (void)freeze(fixture, view);
            else if (choice == 1 && replica_view_info(view)->commit == REPLICA_COMMIT_FROZEN)
                assert_int_equal(done(fixture, replica_view_thaw(view, &fixture->log)), 0);
            else if (choice <= 4 && replica_view_info(view)->commit == REPLICA_COMMIT_FROZEN)
                publish(fixture, view);
            else if (choice == 5)
                reload(fixture, view);
            else if (choice == 6)
                view = restart(fixture, view);
            else
                step_file(fixture, &random, &model, view, step);
            if (step % 10 == 0)
                model_compare(&model, view, "", &seen);
        }
        model_compare(&model, view, "", &seen);
        if (replica_view_info(view)->commit == REPLICA_COMMIT_FROZEN)
            publish(fixture, view);
        while (freeze(fixture, view) == 0)
            publish(fixture, view);
        fresh = open_view(fixture, 2, seed % 3 == 0 ? "some/where" : "", 0); /* what others see in the end */
        model_compare(&model, fresh, "", &seen);
        reload(fixture, view);
        model_compare(&model, view, "", &seen);
        assert_true(seen > 0);
        assert_int_equal(overlay_records(fixture), 0);
        assert_int_equal(replica_map_lost(replica_volume_map(fixture->volume), count_lost, &lost), 0);
        assert_int_equal(lost, 0); /* one writer conflicts with nobody */
        teardown(&opened);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(drafts_are_seen_by_their_view_alone),
        TEST(what_may_not_be_written),
        TEST(parents_are_made_at_once),
        TEST(a_committed_tree_can_be_removed),
        TEST(a_directory_moves_whole),
        TEST(a_move_that_is_cut_off_leaves_all_as_it_was),
        TEST(a_commit_passes_a_move),
        TEST(two_commits_pass_a_move),
        TEST(a_reload_passes_a_move),
        TEST(a_move_can_be_given_up),
        TEST(a_large_directory_goes_in_pieces),
        TEST(renaming_follows_posix),
        TEST(links_are_counted_over_drafts_and_snapshot),
        TEST(a_view_of_a_sub_path),
        TEST(paths_of_the_greatest_length_fit),
        TEST(a_failed_commit_changes_nothing),
        TEST(bases_follow_the_views_own_commits),
        TEST(drafts_become_contents),
        TEST(a_lost_draft_does_not_block_its_view),
        TEST(records_of_lost_bytes_are_forgotten),
        TEST(frozen_records_are_forgotten_too),
        TEST(the_journal_lives_as_long_as_the_commit),
        TEST(closing_forgets_all),
        TEST(the_table_of_views),
        TEST(removing_an_alias_settles_it),
        TEST(renaming_an_alias_settles_it),
        TEST(a_revived_directory_is_written_by_the_first_touch),
        cmocka_unit_test(a_view_behaves_as_a_tree_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
