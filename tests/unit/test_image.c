/* Images carry a volume's state to an empty replica, and limits are checked against what is applied. */
#include "replica/contents_memory.h"
#include "replica/image.h"
#include "replica/kv_memory.h"
#include "replica/limit.h"
#include "replica_support.h"

#include <stdio.h>
#include <stdlib.h>

struct world {
    struct replica_kv *log_kv, *map_kv;
    struct replica_contents *contents;
    struct replica_volume *volume;
    struct replica_kv_batch log, map;
    uint64_t seq;
    uint64_t back; /* how far the stamps of commits lie in the past */
};

static void load(struct world *world)
{
    struct replica_volume_options options = {.log = world->log_kv,
                                             .map = world->map_kv,
                                             .contents = world->contents,
                                             .volume = support_id(9, 9),
                                             .store = support_id(1, 1)};
    replica_volume_destroy(&world->volume);
    assert_int_equal(replica_volume_new(&options, &world->volume), 0);
}

static void world_open(struct world *world)
{
    memset(world, 0, sizeof *world);
    assert_int_equal(replica_kv_memory_new(&world->log_kv), 0);
    assert_int_equal(replica_kv_memory_new(&world->map_kv), 0);
    assert_int_equal(replica_contents_memory_new(&world->contents), 0);
    replica_kv_batch_init(&world->log);
    replica_kv_batch_init(&world->map);
    load(world);
}

static void world_close(struct world *world)
{
    replica_volume_destroy(&world->volume);
    replica_contents_destroy(&world->contents);
    replica_kv_destroy(&world->log_kv);
    replica_kv_destroy(&world->map_kv);
    replica_kv_batch_close(&world->log);
    replica_kv_batch_close(&world->map);
}

static void flush(struct world *world)
{
    support_apply(world->log_kv, &world->log);
    support_apply(world->map_kv, &world->map);
}

static void apply_all(struct world *world)
{
    struct replica_vector stored = replica_volume_state(world->volume)->stored;
    struct replica_content_id wanted;
    size_t n, reads = 0;
    bool rose;
    int rv;
    assert_int_equal(replica_volume_commit(world->volume, &stored, &world->log, &rose), 0);
    assert_int_equal(replica_volume_order(world->volume, 1000, &world->log, &n), 0);
    flush(world);
    replica_volume_order_synced(world->volume, replica_volume_state(world->volume)->ordered_seq);
    do {
        rv = replica_volume_apply(world->volume, &reads, &world->log, &world->map, &wanted);
        flush(world);
    } while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
}

/* Ops on dir/NNNNN for numbers from…to-1; tombstones if remove. */
static void pack_ops(struct replica_buffer *out, const char *dir, unsigned from, unsigned to, bool remove,
                     uint64_t *ret_n)
{
    char path[40];
    for (unsigned i = from; i < to; i++) {
        struct replica_op op = {.target = REPLICA_TARGET_PATH, .tombstone = remove};
        snprintf(path, sizeof path, "%s/%05u", dir, i);
        op.path = support_path(path);
        if (!remove)
            op.entry = support_file(path);
        replica_op_pack(out, &op);
        (*ret_n)++;
    }
}

static void commit(struct world *world, const char *dir, unsigned from, unsigned to, bool remove)
{
    struct replica_delta *delta = calloc(1, sizeof *delta);
    struct replica_buffer ops, record;
    assert_non_null(delta);
    replica_buffer_init(&ops);
    replica_buffer_init(&record);
    delta->volume = support_id(9, 9);
    delta->dot = (struct replica_dot){support_actor(1, 1), ++world->seq};
    delta->commit = support_id(2, world->seq);
    delta->stamp_hlc = 100 + world->seq - world->back;
    pack_ops(&ops, dir, from, to, remove, &delta->op_count);
    delta->ops = ops.data;
    delta->ops_size = ops.size;
    replica_delta_pack(&record, delta);
    assert_int_equal(replica_volume_store(world->volume, record.data, record.size, &world->log), 0);
    apply_all(world);
    replica_buffer_close(&ops);
    replica_buffer_close(&record);
    free(delta);
}

static void fill(struct world *world)
{
    for (unsigned i = 0; i < 6; i++)
        commit(world, i % 2 == 0 ? "a" : "b", i * 100, i * 100 + 250, false);
    commit(world, "a", 50, 150, true);
}

/* Takes the giver's parts one by one; loses the one numbered `lost`. *ret_parts: how many there were. */
static void take(struct world *giver, struct world *taker, size_t lost,
                 struct replica_image_progress *progress, size_t *ret_parts)
{
    const struct replica_volume_state *state = replica_volume_state(giver->volume);
    struct replica_buffer part, again, position;
    size_t reads = 0, n;
    const uint8_t *next;
    replica_buffer_init(&part);
    replica_buffer_init(&again);
    replica_buffer_init(&position);
    memset(progress, 0, sizeof *progress);
    *ret_parts = 0;
    do {
        replica_buffer_clear(&part);
        replica_buffer_clear(&again);
        assert_int_equal(replica_image_part(giver->volume, state->applied_seq, position.data, position.size,
                                            &part, &reads),
                         0);
        assert_int_equal(replica_image_part(giver->volume, state->applied_seq, position.data, position.size,
                                            &again, &reads),
                         0);
        assert_true(part.size == again.size &&
                    memcmp(part.data, again.data, part.size) == 0); /* any part can be asked for again */
        assert_true(part.size <= REPLICA_IMAGE_PART_SIZE + REPLICA_ENTRY_SIZE_MAX + REPLICA_PATH_MAX);
        if (*ret_parts == lost) { /* only where it goes on is known */
            struct world elsewhere;
            struct replica_image_progress ignored = {.run = {.any = false}};
            world_open(&elsewhere);
            assert_int_equal(replica_image_take(elsewhere.volume, part.data, part.size, &elsewhere.log,
                                                &elsewhere.map, &ignored, &reads, &next, &n),
                             0);
            world_close(&elsewhere);
        } else {
            assert_int_equal(replica_image_take(taker->volume, part.data, part.size, &taker->log, &taker->map,
                                                progress, &reads, &next, &n),
                             0);
        }
        flush(taker);
        replica_buffer_clear(&position);
        assert_int_equal(replica_buffer_append(&position, next, n), 0);
        (*ret_parts)++;
    } while (n > 0);
    replica_buffer_close(&part);
    replica_buffer_close(&again);
    replica_buffer_close(&position);
}

static int read_back(const struct replica_image *image, struct replica_image *ret_image)
{
    struct replica_pack_reader reader;
    struct replica_buffer out;
    int rv;
    replica_buffer_init(&out);
    replica_image_pack(&out, image);
    replica_pack_reader_init(&reader, out.data, out.size);
    rv = replica_image_read(&reader, ret_image);
    for (size_t n = 0; n < out.size; n += 3) {
        struct replica_image none;
        replica_pack_reader_init(&reader, out.data, n);
        assert_int_equal(replica_image_read(&reader, &none), REPLICA_E_MALFORMED);
    }
    replica_buffer_close(&out);
    return rv;
}

static void a_taker_stands_where_the_giver_stood(void **state)
{
    struct world giver, taker;
    struct replica_image image, described;
    struct replica_image_progress progress;
    struct replica_id known = support_id(2, 3);
    struct replica_version version;
    struct replica_dot dot;
    uint8_t hash[REPLICA_HASH_SIZE];
    uint64_t children[2];
    size_t parts;
    (void)state;
    world_open(&giver);
    world_open(&taker);
    fill(&giver);
    replica_image_describe(giver.volume, &described);
    assert_int_equal(read_back(&described, &image), 0);
    assert_true(replica_image_is_wanted(taker.volume));
    take(&giver, &taker, SIZE_MAX, &progress, &parts);
    assert_true(parts > 3);
    assert_int_equal(replica_image_adopt(taker.volume, &image, &progress, &taker.log), 0);
    flush(&taker);
    for (int life = 0; life < 2; life++) {
        const struct replica_volume_state *volume = replica_volume_state(taker.volume);
        assert_false(replica_image_is_wanted(taker.volume));
        assert_true(replica_vector_equal(&volume->applied, &replica_volume_state(giver.volume)->applied));
        assert_int_equal(replica_map_state_hash(replica_volume_map(taker.volume), volume->applied_seq, hash),
                         0);
        assert_memory_equal(hash, replica_volume_state(giver.volume)->totals.state_hash, sizeof hash);
        assert_true(volume->totals.inodes == replica_volume_state(giver.volume)->totals.inodes);
        assert_int_equal(replica_volume_find(taker.volume, NULL, &known, &volume->applied, &dot),
                         0); /* ids are known */
        replica_version_init(&version);
        assert_int_equal(replica_map_lookup(replica_volume_map(taker.volume), support_path("a/00100"),
                                            volume->applied_seq, &version),
                         REPLICA_E_NOTFOUND);
        assert_int_equal(replica_map_lookup(replica_volume_map(taker.volume), support_path("a/00010"),
                                            volume->applied_seq, &version),
                         0);
        replica_version_close(&version);
        assert_int_equal(replica_map_children(replica_volume_map(giver.volume), support_path("a"),
                                              UINT64_MAX - 1, &children[0]),
                         0);
        assert_int_equal(replica_map_children(replica_volume_map(taker.volume), support_path("a"),
                                              UINT64_MAX - 1, &children[1]),
                         0);
        assert_true(children[0] == children[1] && children[0] > 0);
        load(&taker);
    }
    taker.seq = giver.seq; /* and it goes on from there */
    commit(&giver, "c", 0, 10, false);
    commit(&taker, "c", 0, 10, false);
    assert_memory_equal(replica_volume_state(taker.volume)->totals.state_hash,
                        replica_volume_state(giver.volume)->totals.state_hash, 32);
    world_close(&giver);
    world_close(&taker);
}

static void a_lost_part_is_noticed_and_all_begins_again(void **state)
{
    struct world giver, taker;
    struct replica_image image;
    struct replica_image_progress progress;
    size_t parts, reads = 0;
    int rv;
    (void)state;
    world_open(&giver);
    world_open(&taker);
    fill(&giver);
    replica_image_describe(giver.volume, &image);
    take(&giver, &taker, 1, &progress, &parts);
    assert_int_equal(replica_image_adopt(taker.volume, &image, &progress, &taker.log), REPLICA_E_MISMATCH);
    assert_int_equal(taker.log.count, 0);
    do {
        rv = replica_image_clear(taker.volume, &reads, &taker.map);
        flush(&taker);
    } while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
    assert_int_equal(support_count(taker.map_kv, "e", 1) + support_count(taker.map_kv, "d", 1), 0);
    take(&giver, &taker, SIZE_MAX, &progress, &parts);
    assert_int_equal(replica_image_adopt(taker.volume, &image, &progress, &taker.log), 0);
    world_close(&giver);
    world_close(&taker);
}

static void parts_from_strangers_are_checked(void **state)
{
    struct world giver, taker;
    struct replica_image_progress progress = {.run = {.any = false}};
    struct replica_buffer part;
    static uint8_t long_position[REPLICA_IMAGE_POSITION_MAX + 1];
    const uint8_t *next;
    size_t reads = 0, n, full;
    (void)state;
    world_open(&giver);
    world_open(&taker);
    commit(&giver, "a", 0, 3, false);
    replica_buffer_init(&part);
    assert_int_equal(replica_image_part(giver.volume, 1, (const uint8_t *)"?", 1, &part, &reads),
                     REPLICA_E_MALFORMED);
    long_position[0] = 'e';
    assert_int_equal(replica_image_part(giver.volume, 1, long_position, sizeof long_position, &part, &reads),
                     REPLICA_E_MALFORMED);
    assert_int_equal(replica_image_part(giver.volume, 1, (const uint8_t *)"kxx", 3, &part, &reads),
                     REPLICA_E_MALFORMED);
    replica_buffer_clear(&part);
    assert_int_equal(replica_image_part(giver.volume, 1, NULL, 0, &part, &reads), 0);
    full = part.size;
    for (n = 0; n < full; n++) {
        size_t next_n;
        assert_int_equal(replica_image_take(taker.volume, part.data, n, &taker.log, &taker.map, &progress,
                                            &reads, &next, &next_n),
                         REPLICA_E_MALFORMED);
        replica_kv_batch_clear(&taker.log);
        replica_kv_batch_clear(&taker.map);
    }
    replica_buffer_close(&part);
    world_close(&giver);
    world_close(&taker);
}

/* One commit of the ops in `ops`. */
static void commit_ops(struct world *world, const struct replica_buffer *ops, uint64_t op_count)
{
    struct replica_delta *delta = calloc(1, sizeof *delta);
    struct replica_buffer record;
    assert_non_null(delta);
    replica_buffer_init(&record);
    delta->volume = support_id(9, 9);
    delta->dot = (struct replica_dot){support_actor(1, 1), ++world->seq};
    delta->commit = support_id(2, world->seq);
    delta->stamp_hlc = 100 + world->seq - world->back;
    delta->op_count = op_count;
    delta->ops = ops->data;
    delta->ops_size = ops->size;
    replica_delta_pack(&record, delta);
    assert_int_equal(replica_volume_store(world->volume, record.data, record.size, &world->log), 0);
    apply_all(world);
    replica_buffer_close(&record);
    free(delta);
}

static void commit_links(struct world *world, unsigned from, unsigned to)
{
    struct replica_buffer ops;
    char path[40];
    replica_buffer_init(&ops);
    for (unsigned i = from; i < to; i++) {
        struct replica_op op = {
            .target = REPLICA_TARGET_OBJECT, .object = support_id(5, i), .entry = support_file("object")};
        replica_op_pack(&ops, &op);
    }
    for (unsigned i = from; i < to; i++)
        for (char name = 'a'; name <= 'b'; name++) {
            struct replica_op op = {.target = REPLICA_TARGET_PATH};
            snprintf(path, sizeof path, "links/%05u%c", i, name);
            op.path = support_path(path);
            op.entry.kind = REPLICA_KIND_LINK;
            op.entry.object = support_id(5, i);
            replica_op_pack(&ops, &op);
        }
    commit_ops(world, &ops, 3 * (uint64_t)(to - from));
    replica_buffer_close(&ops);
}

/* Names of one object keep their count of links and their one inode. */
static void link_objects_come_with_their_names(void **state)
{
    struct world giver, taker;
    struct replica_image image;
    struct replica_image_progress progress;
    struct replica_version version[2];
    size_t parts;
    (void)state;
    world_open(&giver);
    world_open(&taker);
    commit_links(&giver, 0, 300);
    replica_image_describe(giver.volume, &image);
    assert_int_equal(image.totals.inodes, 300);
    replica_image_begin(taker.volume, &taker.log);
    take(&giver, &taker, SIZE_MAX, &progress, &parts);
    assert_int_equal(replica_image_adopt(taker.volume, &image, &progress, &taker.log), 0);
    flush(&taker);
    for (unsigned i = 0; i < 300; i += 37) {
        char path[40];
        snprintf(path, sizeof path, "links/%05ub", i);
        for (size_t k = 0; k < 2; k++) {
            const struct world *world = k == 0 ? &giver : &taker;
            replica_version_init(&version[k]);
            assert_int_equal(replica_map_lookup(replica_volume_map(world->volume), support_path(path),
                                                replica_volume_state(world->volume)->applied_seq,
                                                &version[k]),
                             0);
        }
        assert_int_equal(version[0].links, 2);
        assert_int_equal(version[1].links, 2);
        assert_true(replica_id_equal(&version[0].object, &version[1].object));
        replica_version_close(&version[0]);
        replica_version_close(&version[1]);
    }
    world_close(&giver);
    world_close(&taker);
}

struct listing {
    struct replica_buffer names;
    size_t n;
};

static int note_name(void *context, struct replica_path name, const struct replica_version *version)
{
    struct listing *listing = context;
    listing->n++;
    replica_pack_str(&listing->names, name.text, name.size);
    replica_pack_stamp(&listing->names, &version->stamp);
    return 0;
}

static void list(struct world *world, const char *dir, struct listing *ret_listing)
{
    size_t reads = 0;
    bool more;
    ret_listing->n = 0;
    replica_buffer_init(&ret_listing->names);
    assert_int_equal(replica_map_list(replica_volume_map(world->volume), support_path(dir), support_path(""),
                                      replica_volume_state(world->volume)->applied_seq, SIZE_MAX, &reads,
                                      &more, note_name, ret_listing),
                     0);
}

/* The giver commits between any two parts: the taker gets the state that was described, and no later one; and what
 * it lists is what the giver listed then. Known ids may run ahead of it, and do no harm. */
static void the_giver_goes_on_meanwhile(void **state)
{
    struct world giver, taker;
    struct replica_image image;
    struct replica_image_progress progress = {.last_n = 0};
    struct listing before[2], after[2];
    struct replica_buffer part, position;
    struct replica_id later = {{0}};
    struct replica_dot dot;
    const uint8_t *next;
    size_t n, reads = 0, parts = 0;
    (void)state;
    world_open(&giver);
    world_open(&taker);
    fill(&giver);
    replica_image_describe(giver.volume, &image);
    list(&giver, "a", &before[0]);
    list(&giver, "b", &before[1]);
    replica_buffer_init(&part);
    replica_buffer_init(&position);
    replica_image_begin(taker.volume, &taker.log);
    do {
        replica_buffer_clear(&part);
        assert_int_equal(
            replica_image_part(giver.volume, image.apply_seq, position.data, position.size, &part, &reads),
            0);
        assert_int_equal(replica_image_take(taker.volume, part.data, part.size, &taker.log, &taker.map,
                                            &progress, &reads, &next, &n),
                         0);
        flush(&taker);
        replica_buffer_clear(&position);
        assert_int_equal(replica_buffer_append(&position, next, n), 0);
        commit(&giver, parts % 2 == 0 ? "a" : "c", (unsigned)parts * 40, (unsigned)parts * 40 + 30,
               parts % 3 == 2);
        later = support_id(2, giver.seq);
        parts++;
    } while (n > 0);
    assert_true(parts > 3);
    assert_int_equal(replica_image_adopt(taker.volume, &image, &progress, &taker.log), 0);
    flush(&taker);
    load(&taker);
    list(&taker, "a", &after[0]);
    list(&taker, "b", &after[1]);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(before[i].n, after[i].n);
        assert_int_equal(before[i].names.size, after[i].names.size);
        assert_memory_equal(before[i].names.data, after[i].names.data, before[i].names.size);
        replica_buffer_close(&before[i].names);
        replica_buffer_close(&after[i].names);
    }
    assert_true(replica_vector_equal(&replica_volume_state(taker.volume)->applied, &image.applied));
    assert_int_equal(
        replica_volume_find(taker.volume, NULL, &later, &replica_volume_state(taker.volume)->applied, &dot),
        REPLICA_E_NOTFOUND);
    replica_buffer_close(&part);
    replica_buffer_close(&position);
    world_close(&giver);
    world_close(&taker);
}

/* The mark of an unfinished image outlives a crash, until it is adopted or dropped. */
static void an_unfinished_image_is_remembered(void **state)
{
    struct world giver, taker;
    struct replica_image image;
    struct replica_image_progress progress;
    size_t parts;
    (void)state;
    world_open(&giver);
    world_open(&taker);
    fill(&giver);
    load(&taker);
    assert_false(replica_image_is_unfinished(taker.volume));
    replica_image_begin(taker.volume, &taker.log);
    flush(&taker);
    load(&taker);
    assert_true(replica_image_is_unfinished(taker.volume) && replica_image_is_wanted(taker.volume));
    replica_image_drop(taker.volume, &taker.log);
    flush(&taker);
    load(&taker);
    assert_false(replica_image_is_unfinished(taker.volume));
    replica_image_begin(taker.volume, &taker.log);
    replica_image_describe(giver.volume, &image);
    take(&giver, &taker, SIZE_MAX, &progress, &parts);
    assert_int_equal(replica_image_adopt(taker.volume, &image, &progress, &taker.log), 0);
    assert_false(replica_image_is_unfinished(taker.volume));
    flush(&taker);
    load(&taker);
    assert_false(replica_image_is_unfinished(taker.volume) || replica_image_is_wanted(taker.volume));
    world_close(&giver);
    world_close(&taker);
}

/* A part of one item after another, whose keys are given. */
static int take_items(struct world *taker, struct replica_image_progress *progress,
                      const struct replica_buffer *keys, size_t keys_n, const struct replica_buffer *value)
{
    struct replica_buffer part;
    const uint8_t *next;
    size_t reads = 0, n;
    int rv;
    replica_buffer_init(&part);
    replica_pack_array(&part, 2);
    replica_pack_bin(&part, "", 0);
    replica_pack_array(&part, keys_n);
    for (size_t i = 0; i < keys_n; i++) {
        replica_pack_array(&part, 3);
        replica_pack_uint(&part, 'e');
        replica_pack_bin(&part, keys[i].data, keys[i].size);
        replica_pack_bin(&part, value->data, value->size);
    }
    rv = replica_image_take(taker->volume, part.data, part.size, &taker->log, &taker->map, progress, &reads,
                            &next, &n);
    replica_kv_batch_clear(&taker->log);
    replica_kv_batch_clear(&taker->map);
    replica_buffer_close(&part);
    return rv;
}

static void name_key(struct replica_buffer *out, const char *parent, const char *name)
{
    replica_buffer_init(out);
    replica_buffer_append(out, "\x01", 1);
    replica_buffer_append(out, parent, strlen(parent));
    replica_buffer_append(out, "", 1);
    replica_buffer_append(out, name, strlen(name));
}

/* Each target comes once, in the order of the keys and spelt as they are; paths are canonical, versions whole. */
static void hostile_items_are_refused(void **state)
{
    static const struct {
        const char *parent[2], *name[2];
        int code;
    } cases[] = {
        {{"a", "a"}, {"x", "y"}, 0},
        {{"a", "b"}, {"y", "x"}, 0},
        {{"a", "a"}, {"x", "x"}, REPLICA_E_MALFORMED},  /* twice */
        {{"a", "a"}, {"y", "x"}, REPLICA_E_MALFORMED},  /* out of order */
        {{"b", "a"}, {"x", "y"}, REPLICA_E_MALFORMED},  /* so that a directory would be two runs */
        {{"", ""}, {"a", "b/c"}, REPLICA_E_MALFORMED},  /* another spelling of b, c */
        {{"a", "a"}, {"x", ".."}, REPLICA_E_MALFORMED}, /* and names that no path has */
        {{"a", "/b"}, {"x", "y"}, REPLICA_E_MALFORMED},
        {{"a", "b//c"}, {"x", "y"}, REPLICA_E_MALFORMED},
        {{"a", "b"}, {"x", ""}, REPLICA_E_MALFORMED},
    };
    struct replica_entry entry = support_file("text");
    struct replica_stamp stamp = {.hlc = 5, .commit = support_id(1, 1)}, zero = {.hlc = 0};
    struct replica_id node = support_id(1, 1);
    struct replica_buffer value;
    struct world taker;
    (void)state;
    world_open(&taker);
    replica_buffer_init(&value);
    for (int whole = 1; whole >= 0; whole--) {
        replica_buffer_clear(&value);
        replica_pack_array(&value, 6);
        replica_pack_bool(&value, false);
        replica_pack_stamp(&value, whole ? &stamp : &zero); /* no version is without a stamp */
        replica_pack_stamp(&value, &zero);
        replica_pack_id(&value, &node);
        replica_pack_uint(&value, 1);
        replica_entry_pack(&value, &entry);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct replica_image_progress progress = {.last_n = 0};
            struct replica_buffer keys[2];
            for (size_t k = 0; k < 2; k++)
                name_key(&keys[k], cases[i].parent[k], cases[i].name[k]);
            assert_int_equal(take_items(&taker, &progress, keys, 2, &value),
                             whole ? cases[i].code : REPLICA_E_MALFORMED);
            replica_buffer_close(&keys[0]);
            replica_buffer_close(&keys[1]);
        }
    }
    assert_int_equal(replica_volume_state(taker.volume)->applied_seq, 0);
    assert_int_equal(support_count(taker.map_kv, "", 0), 0);
    replica_buffer_close(&value);
    world_close(&taker);
}

/* Limits */

static int check(struct world *world, const struct replica_limits *limits, const char *dir, unsigned from,
                 unsigned to, bool remove)
{
    struct replica_limit_check *checking = calloc(1, sizeof *checking);
    struct replica_buffer ops;
    uint64_t count = 0;
    size_t reads = 0;
    int rv;
    assert_non_null(checking);
    replica_buffer_init(&ops);
    pack_ops(&ops, dir, from, to, remove, &count);
    do
        rv = replica_limit_check(checking, limits, world->volume, ops.data, ops.size, 7, &reads);
    while (rv == REPLICA_E_AGAIN);
    replica_buffer_close(&ops);
    free(checking);
    return rv;
}

static void limits_count_what_would_be_added(void **state)
{
    struct world world;
    struct replica_limits inodes = {.inodes_max = 120}, children = {.children_max = 110}, none = {0};
    struct replica_limit_check checking = {.offset = 0};
    size_t reads = 0;
    (void)state;
    world_open(&world);
    commit(&world, "a", 0, 100, false);
    assert_true(replica_limit_may_exceed(&inodes, world.volume, 21));
    assert_false(replica_limit_may_exceed(&inodes, world.volume, 20));
    assert_true(replica_limit_may_exceed(&children, world.volume, 1));
    assert_false(replica_limit_may_exceed(&none, world.volume, 1000000));
    assert_int_equal(check(&world, &inodes, "a", 90, 120, false), 0); /* ten are there already */
    assert_int_equal(check(&world, &inodes, "a", 90, 121, false), REPLICA_E_NOSPACE);
    assert_int_equal(check(&world, &inodes, "b", 0, 21, false), REPLICA_E_NOSPACE);
    assert_int_equal(check(&world, &inodes, "a", 0, 100, true), 0);
    assert_int_equal(check(&world, &children, "a", 100, 110, false), 0);
    assert_int_equal(check(&world, &children, "a", 100, 111, false), REPLICA_E_NOSPACE);
    assert_int_equal(check(&world, &children, "b", 0, 110, false), 0); /* of another directory */
    assert_int_equal(check(&world, &none, "a", 100, 400, false), 0);
    assert_int_equal(
        replica_limit_check(&checking, &inodes, world.volume, (const uint8_t *)"\xc1", 1, 7, &reads),
        REPLICA_E_MALFORMED);
    world_close(&world);
}

/* A directory's count, and so its limit, follows creates, deletes and renames, and is the same after the log's tail was applied again. */
static void limits_follow_what_happens_in_a_directory(void **state)
{
    struct replica_limits children = {.children_max = 110};
    struct world world;
    struct replica_buffer ops;
    uint64_t n;
    (void)state;
    world_open(&world);
    commit(&world, "a", 0, 100, false);
    commit(&world, "a", 0, 30, true); /* 70 are left */
    assert_int_equal(check(&world, &children, "a", 100, 140, false), 0);
    assert_int_equal(check(&world, &children, "a", 100, 141, false), REPLICA_E_NOSPACE);
    assert_int_equal(check(&world, &children, "a", 0, 40, false), 0);   /* deleted ones count anew … */
    assert_int_equal(check(&world, &children, "a", 30, 100, false), 0); /* … and present ones not at all */
    replica_buffer_init(&ops); /* 40 renamed from a to b, in one commit */
    n = 0;
    pack_ops(&ops, "a", 30, 70, true, &n);
    pack_ops(&ops, "b", 30, 70, false, &n);
    commit_ops(&world, &ops, n);
    for (int life = 0; life < 3; life++) {
        assert_int_equal(
            replica_map_children(replica_volume_map(world.volume), support_path("a"), UINT64_MAX - 1, &n), 0);
        assert_int_equal(n, 30);
        assert_int_equal(check(&world, &children, "a", 100, 180, false), 0);
        assert_int_equal(check(&world, &children, "a", 100, 181, false), REPLICA_E_NOSPACE);
        assert_int_equal(check(&world, &children, "b", 100, 170, false), 0);
        assert_int_equal(check(&world, &children, "b", 100, 171, false), REPLICA_E_NOSPACE);
        load(&world); /* there is no checkpoint: everything is applied again, over the map that is there */
        assert_int_equal(replica_volume_state(world.volume)->applied_seq, 0);
        apply_all(&world);
    }
    replica_buffer_clear(&ops); /* a rename within one directory adds nothing */
    n = 0;
    pack_ops(&ops, "b", 30, 40, true, &n);
    pack_ops(&ops, "b", 80, 90, false, &n);
    commit_ops(&world, &ops, n);
    assert_int_equal(check(&world, &children, "b", 100, 170, false), 0);
    assert_int_equal(check(&world, &children, "b", 100, 171, false), REPLICA_E_NOSPACE);
    replica_buffer_close(&ops);
    world_close(&world);
}

/* A commit that loses to another adds nothing to the directory, and nothing to the inodes. */
static void conflicts_count_once(void **state)
{
    struct replica_limits children = {.children_max = 11}, inodes = {.inodes_max = 11};
    struct world world;
    uint64_t n;
    (void)state;
    world_open(&world);
    commit(&world, "a", 0, 10, false);
    commit(&world, "a", 0, 10, false); /* over it, without having seen it */
    world.back = 50;
    commit(&world, "a", 0, 10, false); /* loses to both */
    commit(&world, "a", 0, 10, true);
    world.back = 0;
    assert_int_equal(
        replica_map_children(replica_volume_map(world.volume), support_path("a"), UINT64_MAX - 1, &n), 0);
    assert_int_equal(n, 10);
    assert_int_equal(replica_volume_state(world.volume)->totals.inodes, 10);
    assert_int_equal(check(&world, &children, "a", 10, 11, false), 0);
    assert_int_equal(check(&world, &children, "a", 10, 12, false), REPLICA_E_NOSPACE);
    assert_int_equal(check(&world, &inodes, "a", 10, 11, false), 0);
    assert_int_equal(check(&world, &inodes, "a", 10, 12, false), REPLICA_E_NOSPACE);
    world_close(&world);
}

/* What an image brought is in the map alone: the log begins behind it. */
static void a_lost_map_that_an_image_made_is_refused(void **state)
{
    struct world giver, taker;
    struct replica_image image;
    struct replica_image_progress progress;
    struct replica_volume_options options;
    struct replica_volume *volume = NULL;
    size_t parts;
    (void)state;
    world_open(&giver);
    world_open(&taker);
    fill(&giver);
    replica_image_describe(giver.volume, &image);
    replica_image_begin(taker.volume, &taker.log);
    take(&giver, &taker, SIZE_MAX, &progress, &parts);
    assert_int_equal(replica_image_adopt(taker.volume, &image, &progress, &taker.log), 0);
    flush(&taker);
    load(&taker); /* while it is there, all is well */
    replica_kv_destroy(&taker.map_kv);
    assert_int_equal(replica_kv_memory_new(&taker.map_kv), 0);
    options = (struct replica_volume_options){.log = taker.log_kv,
                                              .map = taker.map_kv,
                                              .contents = taker.contents,
                                              .volume = support_id(9, 9),
                                              .store = support_id(1, 1)};
    assert_int_equal(replica_volume_new(&options, &volume), REPLICA_E_EXPIRED);
    assert_null(volume);
    world_close(&giver);
    world_close(&taker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taker_stands_where_the_giver_stood),
        cmocka_unit_test(a_lost_part_is_noticed_and_all_begins_again),
        cmocka_unit_test(parts_from_strangers_are_checked),
        cmocka_unit_test(link_objects_come_with_their_names),
        cmocka_unit_test(the_giver_goes_on_meanwhile),
        cmocka_unit_test(an_unfinished_image_is_remembered),
        cmocka_unit_test(a_lost_map_that_an_image_made_is_refused),
        cmocka_unit_test(hostile_items_are_refused),
        cmocka_unit_test(limits_count_what_would_be_added),
        cmocka_unit_test(limits_follow_what_happens_in_a_directory),
        cmocka_unit_test(conflicts_count_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
