/* A property: whatever is edited in a view, and however much, arrives elsewhere as it is here.
 *
 * Random trees and random edits of 1 to 20,000 paths are frozen, become an op list (in the record, or a content of its own where it is
 * large), pass a voter's checks (the closure with everything missing at first, then the limits), and are applied by a second replica from
 * the minted record alone. Both replicas must then have the same state, and it must be what the view showed before the commit. */
#include "replica/closure.h"
#include "replica/contents_memory.h"
#include "replica/kv_memory.h"
#include "replica/limit.h"
#include "replica/merkle.h"
#include "replica/view.h"
#include "replica_support.h"
#include "trials.h"

#include <stdio.h>
#include <stdlib.h>

#define SEEDS     3
#define COMMITS   8
#define EDITS_MAX 20000
#define NAMES     5000 /* in one directory */
#define DIRS      40

struct replica_side {
    struct replica_kv *log_kv, *map_kv;
    struct replica_contents *contents;
    struct replica_volume *volume;
    struct replica_kv_batch log, map;
};

struct world {
    struct replica_side writer, other;
    struct replica_views *views;
    struct replica_view *view;
    struct support_random random;
    uint64_t commits, objects;
    bool content_list; /* of the last commit */
};

static void side_open(struct replica_side *side, uint64_t store)
{
    struct replica_volume_options options = {.volume = support_id(9, 9), .store = support_id(1, store)};
    assert_int_equal(replica_kv_memory_new(&side->log_kv), 0);
    assert_int_equal(replica_kv_memory_new(&side->map_kv), 0);
    assert_int_equal(replica_contents_memory_new(&side->contents), 0);
    options.log = side->log_kv;
    options.map = side->map_kv;
    options.contents = side->contents;
    assert_int_equal(replica_volume_new(&options, &side->volume), 0);
    replica_kv_batch_init(&side->log);
    replica_kv_batch_init(&side->map);
}

static void side_close(struct replica_side *side)
{
    replica_volume_destroy(&side->volume);
    replica_contents_destroy(&side->contents);
    replica_kv_destroy(&side->log_kv);
    replica_kv_destroy(&side->map_kv);
    replica_kv_batch_close(&side->log);
    replica_kv_batch_close(&side->map);
}

static void world_open(struct world *world, uint64_t seed)
{
    struct replica_view_options options = {.id = support_id(5, 1), .volume = support_id(9, 9)};
    memset(world, 0, sizeof *world);
    world->random.state = seed;
    side_open(&world->writer, 1);
    side_open(&world->other, 2);
    assert_int_equal(replica_views_new(world->writer.log_kv, world->writer.map_kv, &world->views), 0);
    assert_int_equal(replica_view_open(world->views, &options, &world->writer.log, &world->view), 0);
    support_apply(world->writer.log_kv, &world->writer.log);
}

static void world_close(struct world *world)
{
    replica_views_destroy(&world->views);
    side_close(&world->writer);
    side_close(&world->other);
}

static uint64_t below(struct world *world, uint64_t n)
{
    return support_random_below(&world->random, n);
}

static int done(struct world *world, int rv)
{
    support_apply(world->writer.log_kv, &world->writer.log);
    return rv;
}

/* Edits */

static void random_directory(struct world *world, char path[64])
{
    unsigned first = (unsigned)below(world, DIRS), second = (unsigned)below(world, 3 * DIRS);
    if (second < DIRS)
        snprintf(path, 64, "d%02u/s%02u", first, second);
    else
        snprintf(path, 64, "d%02u", first);
}

static void random_name(struct world *world, char path[128])
{
    char directory[64];
    random_directory(world, directory);
    snprintf(path, 128, "%s/name-%llu", directory, (unsigned long long)below(world, NAMES));
}

static int make(struct world *world, const char *path, const struct replica_entry *entry)
{
    int rv;
    do
        rv = done(world,
                  replica_view_make_parents(world->view, support_path(path), 0, 0, 0, &world->writer.log));
    while (rv == REPLICA_E_AGAIN);
    return rv != 0
               ? rv
               : done(world, replica_view_put(world->view, support_path(path), entry, &world->writer.log));
}

/* Inline, in a content, a directory; sometimes with attributes that make the record large. */
static void edit_put(struct world *world, const char *path)
{
    uint8_t bytes[600], xattrs[300];
    struct replica_buffer encoded;
    struct replica_entry entry = {.kind = REPLICA_KIND_FILE, .mode = 0640, .mtime_ns = -5};
    size_t n = (size_t)below(world, sizeof bytes);
    replica_buffer_init(&encoded);
    support_random_fill(&world->random, bytes, sizeof bytes);
    entry.size = n;
    if (below(world, 20) == 0) {
        entry = support_directory(0711);
    } else if (n <= REPLICA_INLINE_MAX) {
        entry.blob = (struct replica_blob){.kind = REPLICA_BLOB_INLINE, .data = bytes, .size = n};
    } else {
        entry.blob.kind = REPLICA_BLOB_CONTENT;
        assert_int_equal(replica_contents_ingest(world->writer.contents, bytes, n, &entry.blob.content), 0);
    }
    if (below(world, 10) == 0) {
        memset(xattrs, 'x', sizeof xattrs);
        replica_pack_array(&encoded, 2);
        replica_pack_cstr(&encoded, "user.test");
        replica_pack_bin(&encoded, xattrs, (size_t)below(world, sizeof xattrs));
        entry.xattrs = encoded.data;
        entry.xattrs_size = encoded.size;
    }
    (void)make(world, path, &entry); /* it may meet something else there */
    replica_buffer_close(&encoded);
}

static void edit_rename(struct world *world)
{
    char from[128], to[128];
    int rv;
    if (below(world, 3) == 0)
        random_directory(world, from);
    else
        random_name(world, from);
    random_name(world, to);
    do
        rv = done(world, replica_view_rename(world->view, support_path(from), support_path(to), 50,
                                             &world->writer.log));
    while (rv == REPLICA_E_AGAIN);
}

static void edit(struct world *world)
{
    char path[128], other[128];
    struct replica_id object = support_id(7, ++world->objects);
    random_name(world, path);
    random_name(world, other);
    switch (below(world, 40)) {
    case 0:
        (void)done(world, replica_view_link(world->view, support_path(path), support_path(other), &object,
                                            &world->writer.log));
        break;
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
        (void)done(world, replica_view_remove(world->view, support_path(path), &world->writer.log));
        break;
    default:
        edit_put(world, path);
    }
    if (below(world, 2000) == 0)
        edit_rename(world);
}

/* The writer's side */

static void build(struct world *world, struct replica_buffer *ops, struct replica_delta *delta,
                  struct replica_buffer *proposal)
{
    const struct replica_view_info *info = replica_view_info(world->view);
    struct replica_buffer position;
    int rv;
    replica_buffer_init(&position);
    do
        rv = replica_view_ops(world->view, &position, 1 + (size_t)below(world, 1000), ops, &delta->op_count,
                              &delta->byte_count);
    while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
    replica_buffer_close(&position);
    delta->volume = support_id(9, 9);
    delta->commit = info->commit_id;
    delta->deps = info->options.vector;
    assert_int_equal(replica_vector_join(&delta->deps, &info->own), 0);
    delta->node = support_id(1, 1);
    world->content_list = ops->size > REPLICA_DELTA_INLINE_MAX;
    if (!world->content_list) {
        delta->ops = ops->data;
        delta->ops_size = ops->size;
    } else {
        assert_int_equal(
            replica_contents_ingest(world->writer.contents, ops->data, ops->size, &delta->ops_content), 0);
    }
    replica_delta_pack(proposal, delta);
    assert_true(proposal->size <= REPLICA_DELTA_SIZE_MAX);
}

/* A voter's side: everything is missing at first, and arrives. */

struct arriving {
    struct world *world;
    struct replica_content_id *items;
    size_t n, capacity;
};

static void want(void *context, const struct replica_content_id *content, bool missing)
{
    struct arriving *arriving = context;
    if (!missing)
        return;
    if (arriving->n == arriving->capacity) {
        arriving->capacity = arriving->capacity * 2 + 16;
        arriving->items = realloc(arriving->items, arriving->capacity * sizeof *arriving->items);
        assert_non_null(arriving->items);
    }
    arriving->items[arriving->n++] = *content;
}

static void arrive(struct arriving *arriving, struct replica_closure *closure)
{
    struct world *world = arriving->world;
    for (size_t i = 0; i < arriving->n; i++) {
        const struct replica_content_id *content = &arriving->items[i];
        uint8_t *bytes = malloc((size_t)content->length);
        struct replica_content_id id;
        size_t n;
        assert_non_null(bytes);
        assert_int_equal(
            replica_contents_read(world->writer.contents, content, 0, bytes, (size_t)content->length, &n), 0);
        assert_int_equal(replica_contents_ingest(world->other.contents, bytes, n, &id), 0);
        assert_true(replica_content_id_equal(&id, content));
        (void)replica_closure_arrived(closure, content);
        free(bytes);
    }
    arriving->n = 0;
}

/* The limits are those that need the op list again, however little it adds; nothing is over them. */
static void check_limits(struct world *world, struct replica_closure *closure)
{
    const struct replica_limits limits = {.inodes_max = 10000000, .children_max = 2 * NAMES};
    struct replica_limit_check *check = calloc(1, sizeof *check);
    const uint8_t *list;
    size_t n, reads = 0;
    int rv;
    assert_non_null(check);
    do {
        assert_int_equal(replica_closure_list(closure, world->other.contents, &list, &n), 0);
        rv = replica_limit_check(check, &limits, world->other.volume, list, n, 250, &reads);
        if (below(world, 4) == 0)
            replica_closure_let_go(closure);
    } while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
    free(check);
}

static void vote(struct world *world, const struct replica_buffer *record)
{
    struct arriving arriving = {.world = world};
    struct replica_closure closure;
    int rv;
    assert_int_equal(replica_closure_init(&closure, record->data, record->size), 0);
    do {
        rv = replica_closure_scan(&closure, world->other.contents, 1 + (size_t)below(world, 500), want,
                                  &arriving);
        assert_true(rv == 0 || rv == REPLICA_E_AGAIN);
        if (rv == 0)
            arrive(&arriving, &closure);
    } while (!replica_closure_is_filled(&closure));
    check_limits(world, &closure);
    replica_closure_close(&closure);
    free(arriving.items);
}

/* Both apply */

static void apply(struct replica_side *side, const struct replica_dot *dot)
{
    struct replica_vector committed = {.n = 0};
    struct replica_content_id wanted;
    size_t n, reads = 0;
    bool rose;
    int rv;
    assert_int_equal(replica_volume_hold(side->volume, dot), 0);
    assert_int_equal(replica_vector_set(&committed, &dot->actor, dot->seq), 0);
    assert_int_equal(replica_volume_commit(side->volume, &committed, &side->log, &rose), 0);
    support_apply(side->log_kv, &side->log);
    assert_int_equal(replica_volume_order(side->volume, 100, &side->log, &n), 0);
    support_apply(side->log_kv, &side->log);
    replica_volume_order_synced(side->volume, replica_volume_state(side->volume)->ordered_seq);
    do {
        rv = replica_volume_apply(side->volume, &reads, &side->log, &side->map, &wanted);
        support_apply(side->log_kv, &side->log);
        support_apply(side->map_kv, &side->map);
    } while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
    assert_int_equal(replica_volume_state(side->volume)->applied_seq, dot->seq);
}

static void same_state(const struct replica_side *side, const struct replica_side *as)
{
    const struct replica_volume_state *a = replica_volume_state(side->volume),
                                      *b = replica_volume_state(as->volume);
    uint8_t hash[REPLICA_HASH_SIZE];
    assert_int_equal(replica_map_state_hash(replica_volume_map(side->volume), a->applied_seq, hash), 0);
    assert_memory_equal(hash, a->totals.state_hash, sizeof hash);
    assert_memory_equal(hash, b->totals.state_hash, sizeof hash);
    assert_true(a->totals.inodes == b->totals.inodes && a->totals.files == b->totals.files &&
                a->totals.bytes == b->totals.bytes);
}

/* What is shown: a sum over the names and entries below a directory. */

struct sum {
    struct replica_view *view; /* NULL: of the map */
    const struct replica_map *map;
    char path[REPLICA_PATH_MAX + 1];
    size_t size;
    struct replica_hash hash; /* chained */
    size_t n;
};

static void sum_below(struct sum *sum);

static int sum_entry(void *context, struct replica_path name, const struct replica_version *version)
{
    struct sum *sum = context;
    struct replica_buffer bytes;
    size_t before = sum->size;
    replica_buffer_init(&bytes);
    replica_pack_bin(&bytes, sum->hash.bytes, REPLICA_HASH_SIZE);
    replica_pack_str(&bytes, name.text, name.size);
    replica_entry_pack(&bytes, &version->entry);
    replica_pack_uint(&bytes, version->links);
    replica_hash_bytes(bytes.data, bytes.size, &sum->hash);
    replica_buffer_close(&bytes);
    sum->n++;
    if (version->entry.kind != REPLICA_KIND_DIRECTORY)
        return 0;
    if (sum->size > 0)
        sum->path[sum->size++] = '/';
    memcpy(sum->path + sum->size, name.text, name.size);
    sum->size += name.size;
    sum_below(sum);
    sum->size = before;
    return 0;
}

static void sum_below(struct sum *sum)
{
    struct replica_path dir = {sum->path, sum->size}, after = {"", 0};
    size_t reads = 0;
    bool more;
    if (sum->view != NULL)
        assert_int_equal(replica_view_list(sum->view, dir, after, SIZE_MAX, &reads, &more, sum_entry, sum),
                         0);
    else
        assert_int_equal(
            replica_map_list(sum->map, dir, after, UINT64_MAX - 1, SIZE_MAX, &reads, &more, sum_entry, sum),
            0);
    assert_false(more);
}

static void commit(struct world *world)
{
    struct replica_actor actor = support_actor(1, 1);
    struct replica_id id = support_id(2, ++world->commits);
    struct replica_buffer ops, proposal, record;
    struct replica_delta *delta = calloc(1, sizeof *delta);
    struct sum before = {.view = world->view}, after = {.map = replica_volume_map(world->other.volume)};
    struct replica_stamp stamp;
    struct replica_dot dot;
    assert_non_null(delta);
    replica_buffer_init(&ops);
    replica_buffer_init(&proposal);
    replica_buffer_init(&record);
    sum_below(&before);
    assert_int_equal(done(world, replica_view_freeze(world->view, &id, world->commits, &world->writer.log)),
                     0);
    build(world, &ops, delta, &proposal);
    vote(world, &proposal);
    stamp = (struct replica_stamp){replica_volume_state(world->writer.volume)->hlc_high + 1, id};
    assert_int_equal(done(world, replica_view_stamp(world->view, &stamp, &world->writer.log)), 0);
    assert_int_equal(replica_volume_mint(world->writer.volume, &actor, proposal.data, proposal.size,
                                         stamp.hlc, &world->writer.log, &dot, &record),
                     0);
    assert_int_equal(done(world, replica_view_committed(world->view, &stamp, &dot, &world->writer.log)), 0);
    assert_int_equal(replica_volume_store(world->other.volume, record.data, record.size, &world->other.log),
                     0);
    support_apply(world->other.log_kv, &world->other.log);
    apply(&world->writer, &dot);
    apply(&world->other, &dot);
    same_state(&world->writer, &world->other);
    sum_below(&after);
    assert_int_equal(after.n, before.n);
    assert_memory_equal(after.hash.bytes, before.hash.bytes, REPLICA_HASH_SIZE);
    replica_buffer_close(&ops);
    replica_buffer_close(&proposal);
    replica_buffer_close(&record);
    free(delta);
}

static bool covers(void *context, const struct replica_id *id, const struct replica_dot *dot)
{
    struct world *world = context;
    (void)id;
    return replica_vector_covers_dot(&replica_volume_state(world->writer.volume)->applied, dot);
}

static void reload(struct world *world)
{
    const struct replica_volume_state *state = replica_volume_state(world->writer.volume);
    int rv;
    do
        rv = done(world, replica_view_reload(world->view, state->applied_seq, &state->applied, 500, covers,
                                             world, &world->writer.log));
    while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
}

static void what_is_edited_here_is_so_elsewhere(void **state)
{
    size_t lists = 0, records = 0, seeds = trials(SEEDS);
    (void)state;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct world world;
        world_open(&world, seed);
        for (int i = 0; i < COMMITS; i++) {
            uint64_t edits = 1 + below(&world, (uint64_t)1 << below(&world, 15)); /* few and many alike */
            if (i == 2)
                edits = EDITS_MAX;
            if (i == 3)
                edits = 1;
            for (uint64_t k = 0; k < edits; k++)
                edit(&world);
            if (replica_view_info(world.view)->dirty == 0)
                continue;
            commit(&world);
            *(world.content_list ? &lists : &records) += 1;
            if (below(&world, 2) == 0)
                reload(&world);
        }
        world_close(&world);
    }
    assert_true(lists >= seeds && records >= seeds); /* both ways were taken */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_edited_here_is_so_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
