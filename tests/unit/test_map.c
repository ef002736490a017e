/* The map: the merge is a pure function of the set of ops; what users see of it; history.
 *
 * The property test makes random commits with real causes (each saw a random set of earlier ones), applies
 * them in random orders that respect the causes, cut into random batches and partly repeated, and compares
 * with a model that is nothing but "highest stamp wins". */
#include "map/map.h"
#include "replica/kv_memory.h"
#include "replica_support.h"

#include <stdio.h>
#include <stdlib.h>

struct fixture {
    struct replica_kv *kv;
    struct replica_map map;
    struct replica_kv_batch batch;
    struct replica_totals totals;
    struct replica_map_run run;
    uint64_t seq;
};

static void fixture_open(struct fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    assert_int_equal(replica_kv_memory_new(&fixture->kv), 0);
    replica_kv_batch_init(&fixture->batch);
    fixture->map = (struct replica_map){.kv = fixture->kv, .volume = support_id(9, 9)};
}

static void fixture_close(struct fixture *fixture)
{
    replica_kv_batch_close(&fixture->batch);
    replica_kv_destroy(&fixture->kv);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    fixture_open(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_close(*state);
    free(*state);
    return 0;
}

/* One commit's ops, applied as one place in the order. */
static void apply_ops(struct fixture *fixture, uint64_t hlc, uint8_t commit, const struct replica_op *ops,
                      size_t n)
{
    struct replica_apply apply = {.apply_seq = ++fixture->seq,
                                  .stamp = {hlc, support_id(commit, 1)},
                                  .node = support_id(1, 1),
                                  .time_ms = hlc};
    size_t reads = 0;
    memset(apply.stamp.commit.bytes, commit, sizeof apply.stamp.commit.bytes);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(replica_map_apply(&fixture->map, &apply, &ops[i], &fixture->batch, &fixture->totals,
                                           &fixture->run, &reads),
                         0);
    assert_int_equal(replica_map_run_end(&fixture->map, &apply, &fixture->run, &fixture->batch, &reads), 0);
    support_apply(fixture->kv, &fixture->batch);
}

static struct replica_op op_on(const char *path, const struct replica_entry *entry, uint64_t base_hlc,
                               uint8_t base_commit)
{
    struct replica_op op = {.target = REPLICA_TARGET_PATH,
                            .path = support_path(path),
                            .tombstone = entry == NULL,
                            .base = {.hlc = base_hlc}};
    memset(op.base.commit.bytes, base_commit, sizeof op.base.commit.bytes);
    if (entry != NULL)
        op.entry = *entry;
    return op;
}

static void put(struct fixture *fixture, uint64_t hlc, uint8_t commit, const char *path,
                struct replica_entry entry)
{
    struct replica_op op = op_on(path, &entry, 0, 0);
    apply_ops(fixture, hlc, commit, &op, 1);
}

static void delete (struct fixture *fixture, uint64_t hlc, uint8_t commit, const char *path, bool directory)
{
    struct replica_op op = op_on(path, NULL, 0, 0);
    if (directory)
        op.entry = support_directory(0711);
    apply_ops(fixture, hlc, commit, &op, 1);
}

static void put_object(struct fixture *fixture, uint64_t hlc, uint8_t commit, uint64_t object,
                       const char *text)
{
    struct replica_op op = {
        .target = REPLICA_TARGET_OBJECT, .object = support_id(7, object), .tombstone = text == NULL};
    if (text != NULL)
        op.entry = support_file(text);
    apply_ops(fixture, hlc, commit, &op, 1);
}

static struct replica_entry link_to(uint64_t object)
{
    return (struct replica_entry){.kind = REPLICA_KIND_LINK, .object = support_id(7, object)};
}

/* What is shown at path, as text: "dir 755", "file hello", "-" for nothing, "notdir". */
static const char *shown_at(struct fixture *fixture, const char *path, uint64_t seq)
{
    static char text[400];
    struct replica_version version;
    int rv;
    replica_version_init(&version);
    rv = replica_map_lookup(&fixture->map, support_path(path), seq, &version);
    if (rv == REPLICA_E_NOTFOUND)
        snprintf(text, sizeof text, "-");
    else if (rv == REPLICA_E_NOTDIR)
        snprintf(text, sizeof text, "notdir");
    else if (version.entry.kind == REPLICA_KIND_DIRECTORY)
        snprintf(text, sizeof text, "dir %o", version.entry.mode);
    else
        snprintf(text, sizeof text, "file %.*s%s", (int)version.entry.blob.size,
                 (const char *)version.entry.blob.data, version.links == 1 ? "" : " linked");
    replica_version_close(&version);
    assert_true(rv == 0 || rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_NOTDIR);
    return text;
}

static const char *shown(struct fixture *fixture, const char *path)
{
    return shown_at(fixture, path, fixture->seq);
}

static int collect_name(void *context, struct replica_path name, const struct replica_version *version)
{
    char *text = context;
    size_t at = strlen(text);
    snprintf(text + at, 4000 - at, "%.*s%s ", (int)name.size, name.text,
             version->entry.kind == REPLICA_KIND_DIRECTORY ? "/" : "");
    return 0;
}

static int remember_last(void *context, struct replica_path name, const struct replica_version *version)
{
    char *page = context;
    (void)version;
    memcpy(page, name.text, name.size);
    page[name.size] = '\0';
    return 0;
}

/* All names of dir; listed at once, and by pages of every small size: the same. */
static const char *list(struct fixture *fixture, const char *dir)
{
    static char text[4000], paged[4000];
    size_t reads = 0;
    bool more;
    text[0] = '\0';
    assert_int_equal(replica_map_list(&fixture->map, support_path(dir), support_path(""), fixture->seq,
                                      SIZE_MAX, &reads, &more, collect_name, text),
                     0);
    assert_false(more);
    for (size_t max = 1; max <= 3; max++) {
        char after[REPLICA_NAME_MAX + 1] = "";
        paged[0] = '\0';
        do {
            char from[REPLICA_NAME_MAX + 1];
            strcpy(from, after);
            assert_int_equal(replica_map_list(&fixture->map, support_path(dir), support_path(from),
                                              fixture->seq, max, &reads, &more, collect_name, paged),
                             0);
            assert_int_equal(replica_map_list(&fixture->map, support_path(dir), support_path(from),
                                              fixture->seq, max, &reads, &more, remember_last, after),
                             0);
            assert_true(!more || strcmp(after, from) != 0);
        } while (more);
        assert_string_equal(paged, text);
    }
    return text;
}

static void check_totals(struct fixture *fixture)
{
    uint8_t hash[REPLICA_HASH_SIZE];
    assert_int_equal(replica_map_state_hash(&fixture->map, fixture->seq, hash), 0);
    assert_memory_equal(hash, fixture->totals.state_hash, sizeof hash);
}

/* Shown rules */

static void an_empty_volume_is_a_directory(void **state)
{
    struct fixture *fixture = *state;
    assert_string_equal(shown(fixture, ""), "dir 755");
    assert_string_equal(shown(fixture, "a"), "-");
    assert_string_equal(shown(fixture, "a/b"), "-");
    assert_string_equal(list(fixture, ""), "");
    put(fixture, 1, 1, "", support_directory(0700));
    assert_string_equal(shown(fixture, ""), "dir 700");
}

static void winners_are_shown_at_any_place_in_the_order(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, 10, 1, "a", support_file("one"));
    put(fixture, 30, 2, "a", support_file("three"));
    put(fixture, 20, 3, "a", support_file("two")); /* comes late, loses */
    delete (fixture, 40, 4, "a", false);
    put(fixture, 50, 5, "a", support_file("five"));
    assert_string_equal(shown_at(fixture, "a", 0), "-");
    assert_string_equal(shown_at(fixture, "a", 1), "file one");
    assert_string_equal(shown_at(fixture, "a", 2), "file three");
    assert_string_equal(shown_at(fixture, "a", 3), "file three");
    assert_string_equal(shown_at(fixture, "a", 4), "-");
    assert_string_equal(shown_at(fixture, "a", 5), "file five");
    check_totals(fixture);
}

static void equal_clocks_are_settled_by_the_commit_id(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, 10, 9, "a", support_file("higher id"));
    put(fixture, 10, 8, "a", support_file("lower id"));
    assert_string_equal(shown(fixture, "a"), "file higher id");
}

static void a_directory_revives_while_something_below_lives(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, 1, 1, "d", support_directory(0711));
    put(fixture, 2, 2, "d/e", support_directory(0700));
    delete (fixture, 10, 3, "d/e", true);
    delete (fixture, 11, 4, "d", true);
    assert_string_equal(shown(fixture, "d"), "-");
    put(fixture, 12, 5, "d/e/f", support_file("alive")); /* somebody had not seen the deletes */
    assert_string_equal(shown(fixture, "d"), "dir 711"); /* a tombstone keeps its last entry */
    assert_string_equal(shown(fixture, "d/e"), "dir 711");
    assert_string_equal(shown(fixture, "d/e/f"), "file alive");
    assert_string_equal(list(fixture, ""), "d/ ");
    assert_string_equal(list(fixture, "d"), "e/ ");
    delete (fixture, 13, 6, "x", false); /* was something else, if anything */
    put(fixture, 14, 6, "x/y", support_file("no parent ever"));
    assert_string_equal(shown(fixture, "x"), "dir 755");
    delete (fixture, 15, 7, "d/e/f", false);
    assert_string_equal(shown(fixture, "d"), "-");
    assert_string_equal(list(fixture, ""), "x/ ");
    check_totals(fixture);
}

/* Whether anything lives below is told by the counts of directories: those of neighbours do not matter, those of any depth do. */
static void what_lives_deep_below_counts(void **state)
{
    struct fixture *fixture = *state;
    char name[40];
    delete (fixture, 10, 1, "a", true);
    put(fixture, 11, 1, "a-b/x", support_file("neighbour"));
    put(fixture, 12, 1, "a.b", support_file("neighbour"));
    put(fixture, 13, 1, "aa/x", support_file("neighbour"));
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "a/%d/gone", i);
        put(fixture, (uint64_t)(20 + i), 1, name, support_file("x"));
    }
    assert_string_equal(shown(fixture, "a"), "dir 711");
    assert_string_equal(shown(fixture, "a/7"), "dir 755");
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "a/%d/gone", i);
        delete (fixture, (uint64_t)(100 + i), 1, name, false);
        assert_string_equal(shown(fixture, "a"), i < 49 ? "dir 711" : "-");
    }
    put(fixture, 200, 1, "a/31/b/c/d/e", link_to(1));
    assert_string_equal(shown(fixture, "a"), "-"); /* a link of an object that never was */
    put_object(fixture, 201, 1, 1, "alive");
    assert_string_equal(shown(fixture, "a"), "dir 711");
    assert_string_equal(shown(fixture, "a/31/b"), "dir 755");
    assert_string_equal(shown(fixture, "a/30"), "-");
    assert_string_equal(shown(fixture, "a/31/b/c/d/e"), "file alive");
    assert_string_equal(shown(fixture, "a/31/b/c/d/e/f"), "notdir");
    assert_string_equal(shown(fixture, "a/31/b/c/d/x/f"), "-");
    put_object(fixture, 202, 1, 1, NULL);
    assert_string_equal(shown(fixture, "a"), "-");
    assert_string_equal(shown_at(fixture, "a", fixture->seq - 1), "dir 711");
    assert_string_equal(list(fixture, ""), "a.b "); /* of directories without an entry none is listed */
}

static void a_file_over_a_living_directory_gets_an_alias(void **state)
{
    struct fixture *fixture = *state;
    const char *alias = "n.remora-05050505";
    put(fixture, 1, 1, "n", support_directory(0700));
    put(fixture, 2, 2, "n/below", support_file("b"));
    put(fixture, 3, 3, "n-between", support_file("m")); /* sorts before the alias */
    put(fixture, 4, 4, "n.z", support_file("z"));
    put(fixture, 9, 5, "n", support_file("file"));
    assert_string_equal(shown(fixture, "n"), "dir 755");
    assert_string_equal(shown(fixture, "n/below"), "file b");
    assert_string_equal(shown(fixture, alias), "file file");
    assert_string_equal(shown(fixture, "n.remora-05050506"), "-");
    assert_string_equal(list(fixture, ""), "n/ n.remora-05050505 n-between n.z ");
    delete (fixture, 10, 6, "n/below", false); /* nothing below any more */
    assert_string_equal(shown(fixture, "n"), "file file");
    assert_string_equal(shown(fixture, "n/below"), "notdir");
    assert_string_equal(shown(fixture, alias), "-");
    assert_string_equal(list(fixture, ""), "n n-between n.z ");
    check_totals(fixture);
}

/* A user may make a name that only looks like an alias; listing by pages must get past it. */
static void a_name_that_looks_like_an_alias_is_a_name(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, 1, 1, "f.remora-01234567", support_file("mine"));
    put(fixture, 2, 2, "f", support_file("f"));
    put(fixture, 3, 3, "f.", support_file("dot"));
    put(fixture, 4, 4, "g", support_file("g"));
    assert_string_equal(shown(fixture, "f.remora-01234567"), "file mine");
    assert_string_equal(list(fixture, ""), "f f. f.remora-01234567 g ");
}

static void long_names_have_cut_aliases(void **state)
{
    struct fixture *fixture = *state;
    char name[REPLICA_NAME_MAX + 1], child[REPLICA_NAME_MAX + 3], alias[REPLICA_NAME_MAX + 1], expected[700];
    memset(name, 'x', REPLICA_NAME_MAX);
    name[REPLICA_NAME_MAX] = '\0';
    snprintf(child, sizeof child, "%s/c", name);
    put(fixture, 1, 1, child, support_file("c"));
    put(fixture, 2, 2, name, support_file("long"));
    snprintf(alias, sizeof alias, "%.239s.remora-02020202", name);
    assert_int_equal(strlen(alias), REPLICA_NAME_MAX);
    assert_string_equal(shown(fixture, alias), "file long");
    snprintf(expected, sizeof expected, "%s/ %s ", name, alias);
    assert_string_equal(list(fixture, ""), expected);
}

static void links_show_their_object(void **state)
{
    struct fixture *fixture = *state;
    put_object(fixture, 1, 1, 5, "shared");
    put(fixture, 2, 2, "a", link_to(5));
    assert_string_equal(shown(fixture, "a"), "file shared");
    put(fixture, 3, 3, "d/b", link_to(5));
    assert_string_equal(shown(fixture, "a"), "file shared linked");
    assert_int_equal(fixture->totals.inodes, 1);
    put_object(fixture, 4, 4, 5, "written");
    assert_string_equal(shown(fixture, "d/b"), "file written linked");
    assert_string_equal(shown_at(fixture, "d/b", 3), "file shared linked");
    delete (fixture, 5, 5, "a", false);
    assert_string_equal(shown(fixture, "d/b"), "file written");
    put_object(fixture, 6, 6, 5, NULL); /* the object goes while a name is left */
    assert_string_equal(shown(fixture, "d/b"), "-");
    assert_string_equal(shown(fixture, "d"), "-"); /* nothing that is shown lives there */
    assert_string_equal(list(fixture, ""), "");
    check_totals(fixture);
}

/* A name whose object is gone must not hide the directory that lives under it. */
static void a_dangling_link_over_a_directory_shows_the_directory(void **state)
{
    struct fixture *fixture = *state;
    put(fixture, 1, 1, "n/below", support_file("b"));
    put(fixture, 2, 2, "n", link_to(5));
    assert_string_equal(shown(fixture, "n"), "dir 755");
    assert_string_equal(shown(fixture, "n/below"), "file b");
    assert_string_equal(list(fixture, ""), "n/ ");
    put_object(fixture, 3, 3, 5, "back");
    assert_string_equal(list(fixture, ""), "n/ n.remora-03030303 ");
    assert_string_equal(shown(fixture, "n.remora-03030303"), "file back");
}

static void listing_what_is_not_a_directory(void **state)
{
    struct fixture *fixture = *state;
    size_t reads = 0;
    bool more;
    char text[10] = "", name[REPLICA_NAME_MAX + 2];
    put(fixture, 1, 1, "f", support_file("x"));
    assert_int_equal(replica_map_list(&fixture->map, support_path("f"), support_path(""), 1, 9, &reads, &more,
                                      collect_name, text),
                     REPLICA_E_NOTDIR);
    assert_int_equal(replica_map_list(&fixture->map, support_path("g"), support_path(""), 1, 9, &reads, &more,
                                      collect_name, text),
                     REPLICA_E_NOTFOUND);
    memset(name, 'n', sizeof name);
    assert_int_equal(replica_map_list(&fixture->map, support_path(""),
                                      (struct replica_path){name, sizeof name}, 1, 9, &reads, &more,
                                      collect_name, text),
                     REPLICA_E_INVALID);
}

/* History */

static int collect_version(void *context, const struct replica_version *version)
{
    char *text = context;
    size_t at = strlen(text);
    snprintf(text + at, 400 - at, "%s%.*s%s ", version->tombstone ? "gone" : "",
             (int)version->entry.blob.size, version->tombstone ? "" : (const char *)version->entry.blob.data,
             version->lost ? "!" : "");
    return 0;
}

static int collect_lost(void *context, struct replica_path path, const struct replica_version *version)
{
    char *text = context;
    size_t at = strlen(text);
    snprintf(text + at, 400 - at, "%.*s:%.*s ", (int)path.size, path.text,
             version == NULL ? 0 : (int)version->entry.blob.size,
             version == NULL ? "" : (const char *)version->entry.blob.data);
    return 0;
}

static void history_names_what_is_lost(void **state)
{
    struct fixture *fixture = *state;
    struct replica_entry first = support_file("first"), second = support_file("second"),
                         rival = support_file("rival"), other = support_file("o");
    struct replica_op op = op_on("p", &first, 0, 0);
    struct replica_id commit;
    char text[400] = "";
    apply_ops(fixture, 10, 1, &op, 1);
    op = op_on("p", &second, 10, 1); /* built on the first */
    apply_ops(fixture, 30, 2, &op, 1);
    op = op_on("p", &rival, 10, 1); /* so was this: it loses */
    apply_ops(fixture, 20, 3, &op, 1);
    op = op_on("q", &other, 0, 0);
    apply_ops(fixture, 40, 4, &op, 1);
    assert_int_equal(replica_map_history(&fixture->map, support_path("p"), collect_version, text), 0);
    assert_string_equal(text, "second rival! first ");
    text[0] = '\0';
    assert_int_equal(replica_map_lost(&fixture->map, collect_lost, text), 0);
    assert_string_equal(text, "p:rival ");
    memset(commit.bytes, 3, sizeof commit.bytes);
    text[0] = '\0';
    assert_int_equal(replica_map_lost_by(&fixture->map, &commit, collect_lost, text), 0);
    assert_string_equal(text, "p: ");
    memset(commit.bytes, 2, sizeof commit.bytes);
    text[0] = '\0';
    assert_int_equal(replica_map_lost_by(&fixture->map, &commit, collect_lost, text), 0);
    assert_string_equal(text, "");
    text[0] = '\0';
    assert_int_equal(replica_map_history(&fixture->map, support_path("nothing"), collect_version, text), 0);
    assert_string_equal(text, "");
}

/* Of a file with several names it is the object's bytes that count: those that the commit wrote, or found. */
static void a_version_is_found_by_its_commit(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        uint8_t commit;
        const char *path, *text; /* NULL: none is found */
        bool lost;
    } WANTED[] = {
        {1, "f", "one", false}, {2, "f", "lost", true}, {3, "f", "three", false}, {4, "f", NULL, false},
        {3, "g", NULL, false},  {5, "n", "old", false}, {6, "n", "new", true},    {7, "m", "new", false},
    };
    struct replica_op ops[2];
    struct replica_version version;
    struct replica_entry link = link_to(1), old = support_file("old"), new = support_file("new"),
                         three = support_file("three");
    put(fixture, 10, 1, "f", support_file("one"));
    put(fixture, 5, 2, "f", support_file("lost")); /* older than what is there */
    ops[0] = op_on("f", &three, 10, 1);
    apply_ops(fixture, 20, 3, ops, 1);
    ops[0] = (struct replica_op){.target = REPLICA_TARGET_OBJECT, .object = link.object, .entry = old};
    ops[1] = op_on("n", &link, 0, 0);
    apply_ops(fixture, 30, 5, ops, 2);
    ops[0].entry = new;
    ops[1] = op_on("n", &link, 30, 5);
    ops[0].base = ops[1].base;
    apply_ops(fixture, 40, 6, ops, 2);
    put(fixture, 50, 7, "m", link);
    put_object(fixture, 60, 8, 1, "newer"); /* without having seen "new" */
    replica_version_init(&version);
    for (size_t i = 0; i < sizeof WANTED / sizeof WANTED[0]; i++) {
        struct replica_id commit;
        int rv;
        memset(commit.bytes, WANTED[i].commit, sizeof commit.bytes);
        rv = replica_map_version_by(&fixture->map, support_path(WANTED[i].path), &commit, &version);
        assert_int_equal(rv, WANTED[i].text == NULL ? REPLICA_E_NOTFOUND : 0);
        if (rv != 0)
            continue;
        assert_int_equal(version.entry.blob.size, strlen(WANTED[i].text));
        assert_memory_equal(version.entry.blob.data, WANTED[i].text, strlen(WANTED[i].text));
        assert_true(version.lost == WANTED[i].lost);
        assert_true(replica_id_equal(&version.stamp.commit, &commit));
    }
    replica_version_close(&version);
}

static void references_are_found_by_content(void **state)
{
    struct fixture *fixture = *state;
    struct replica_entry file = support_content_file(0x42, 1000);
    struct replica_content_id other = file.blob.content;
    struct replica_id stranger = support_id(9, 8);
    bool refers;
    put(fixture, 1, 1, "f", file);
    delete (fixture, 2, 2, "f", false);
    other.length++;
    assert_int_equal(replica_map_refers(fixture->kv, NULL, &file.blob.content, &refers), 0);
    assert_true(refers); /* history counts */
    assert_int_equal(replica_map_refers(fixture->kv, &fixture->map.volume, &file.blob.content, &refers), 0);
    assert_true(refers);
    assert_int_equal(replica_map_refers(fixture->kv, &stranger, &file.blob.content, &refers), 0);
    assert_false(refers);
    assert_int_equal(replica_map_refers(fixture->kv, NULL, &other, &refers), 0);
    assert_false(refers);
}

static void damage_is_told(void **state)
{
    struct fixture *fixture = *state;
    struct replica_version version;
    struct map_key key;
    struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = support_path("f")};
    replica_version_init(&version);
    map_key_start(&key, 'e', &fixture->map.volume);
    map_key_append_target(&key, &name);
    map_key_append_inverted(&key, 1);
    replica_kv_batch_put(&fixture->batch, key.bytes, key.size, "\xc1", 1);
    support_apply(fixture->kv, &fixture->batch);
    assert_int_equal(replica_map_lookup(&fixture->map, support_path("f"), 1, &version), REPLICA_E_CORRUPT);
    replica_version_close(&version);
}

/* The property */

#define COMMITS  60
#define PATHS    11
#define OBJECTS  3
#define TARGETS  (PATHS + OBJECTS)
#define OPS_MAX  6
#define REPLICAS 5

static const char *const paths[PATHS] = {
    "a", "a/b", "a/b/c", "a/d", "e", "e/f", "g", "a!", "a/b.remora-00000000", "h/i/j", "h"};

struct commit {
    struct replica_stamp stamp;
    struct replica_op ops[OPS_MAX];
    size_t n;
    bool saw[COMMITS]; /* causes, closed under causes */
    char texts[OPS_MAX][16];
};

struct winner {
    const struct commit *commit;
    const struct replica_op *op;
};

static size_t target_of(const struct replica_op *op)
{
    if (op->target == REPLICA_TARGET_OBJECT)
        return PATHS + replica_u64_decode(op->object.bytes);
    for (size_t i = 0;; i++)
        if (strlen(paths[i]) == op->path.size && memcmp(paths[i], op->path.text, op->path.size) == 0)
            return i;
}

/* The model: of each target, the op of the highest stamp among the commits taken. */
static void naive_winners(const struct commit *commits, const bool *taken, struct winner *ret_winners)
{
    memset(ret_winners, 0, TARGETS * sizeof *ret_winners);
    for (size_t c = 0; c < COMMITS; c++)
        for (size_t o = 0; taken[c] && o < commits[c].n; o++) {
            struct winner *winner = &ret_winners[target_of(&commits[c].ops[o])];
            if (winner->commit == NULL ||
                replica_stamp_compare(&commits[c].stamp, &winner->commit->stamp) > 0)
                *winner = (struct winner){&commits[c], &commits[c].ops[o]};
        }
}

static void random_op(struct support_random *random, struct commit *commit, size_t target,
                      const struct winner *base)
{
    struct replica_op *op = &commit->ops[commit->n];
    uint64_t choice = support_random_below(random, 10);
    memset(op, 0, sizeof *op);
    if (base->commit != NULL)
        op->base = base->commit->stamp;
    if (target >= PATHS) {
        op->target = REPLICA_TARGET_OBJECT;
        op->object = support_id(7, target - PATHS);
    } else {
        op->path = support_path(paths[target]);
    }
    snprintf(commit->texts[commit->n], sizeof commit->texts[0], "%llx",
             (unsigned long long)support_random_below(random, 1 << 24));
    if (choice < 3) {
        op->tombstone = true;
        if (base->op != NULL && base->op->entry.kind == REPLICA_KIND_DIRECTORY)
            op->entry = base->op->entry;
    } else if (choice < 5 && target < PATHS) {
        op->entry = support_directory(0700 + (uint32_t)choice);
    } else if (choice < 6 && target < PATHS) {
        op->entry = link_to(support_random_below(random, OBJECTS));
    } else if (choice < 7) {
        op->entry = support_content_file((uint8_t)support_random_below(random, 5), 1000 + choice);
    } else {
        op->entry = support_file(commit->texts[commit->n]);
    }
    commit->n++;
}

static int by_target(const void *a, const void *b)
{
    return replica_op_compare(a, b);
}

/* Commit c has seen a random earlier commit or two, with all that they saw; its stamp is above theirs. */
static void make_commit(struct support_random *random, struct commit *commits, size_t c)
{
    struct commit *commit = &commits[c];
    struct winner seen[TARGETS];
    uint64_t hlc = 0;
    bool used[TARGETS] = {false};
    memset(commit, 0, sizeof *commit);
    for (size_t i = 0; c > 0 && i < support_random_below(random, 3); i++) {
        size_t cause = support_random_below(random, c);
        commit->saw[cause] = true;
        for (size_t j = 0; j < cause; j++)
            commit->saw[j] |= commits[cause].saw[j];
    }
    for (size_t j = 0; j < c; j++)
        if (commit->saw[j] && commits[j].stamp.hlc > hlc)
            hlc = commits[j].stamp.hlc;
    commit->stamp.hlc = hlc + 1 + support_random_below(random, 3); /* equal ones happen */
    support_random_fill(random, commit->stamp.commit.bytes, REPLICA_ID_SIZE);
    naive_winners(commits, commit->saw, seen);
    for (size_t i = 0; i <= support_random_below(random, OPS_MAX); i++) {
        size_t target = support_random_below(random, TARGETS);
        if (!used[target])
            random_op(random, commit, target, &seen[target]);
        used[target] = true;
    }
    qsort(commit->ops, commit->n, sizeof commit->ops[0], by_target);
}

static void apply_commit(struct fixture *fixture, struct support_random *random, const struct commit *commit,
                         uint64_t seq)
{
    struct replica_apply apply = {.apply_seq = seq, .stamp = commit->stamp, .node = support_id(1, 1)};
    size_t reads = 0;
    for (size_t o = 0; o < commit->n; o++) {
        assert_int_equal(replica_map_apply(&fixture->map, &apply, &commit->ops[o], &fixture->batch,
                                           &fixture->totals, &fixture->run, &reads),
                         0);
        if (support_random_below(random, 2) == 0) /* a step ends here */
            support_apply(fixture->kv, &fixture->batch);
    }
    assert_int_equal(replica_map_run_end(&fixture->map, &apply, &fixture->run, &fixture->batch, &reads), 0);
    support_apply(fixture->kv, &fixture->batch);
}

/* Applies all in a random order that respects the causes; now and then falls back to an older point and
 * applies again, as a restart from a checkpoint does. */
static void replay(struct fixture *fixture, struct support_random *random, const struct commit *commits,
                   size_t *order)
{
    bool done[COMMITS] = {false};
    struct replica_totals checkpoint = fixture->totals;
    size_t checkpoint_at = 0;
    for (size_t n = 0; n < COMMITS; n++) {
        size_t c;
        bool ready;
        do {
            c = support_random_below(random, COMMITS);
            ready = !done[c];
            for (size_t j = 0; j < COMMITS && ready; j++)
                ready = !commits[c].saw[j] || done[j];
        } while (!ready);
        done[c] = true;
        order[n] = c;
        apply_commit(fixture, random, &commits[c], n + 1);
        if (support_random_below(random, 10) == 0) {
            fixture->totals = checkpoint;
            for (size_t again = checkpoint_at; again <= n; again++)
                apply_commit(fixture, random, &commits[order[again]], again + 1);
        } else if (support_random_below(random, 10) == 0) {
            checkpoint = fixture->totals;
            checkpoint_at = n + 1;
        }
    }
    fixture->seq = COMMITS;
}

static void check_against_model(struct fixture *fixture, const struct commit *commits, const bool *taken,
                                uint64_t seq)
{
    struct winner winners[TARGETS];
    naive_winners(commits, taken, winners);
    for (size_t i = 0; i < TARGETS; i++) {
        struct replica_target_name name = {.target = i < PATHS ? REPLICA_TARGET_PATH : REPLICA_TARGET_OBJECT};
        struct replica_version version;
        int rv;
        if (i < PATHS)
            name.path = support_path(paths[i]);
        else
            name.object = support_id(7, i - PATHS);
        replica_version_init(&version);
        rv = replica_map_get(&fixture->map, NULL, &name, seq, &version);
        assert_int_equal(rv, winners[i].commit == NULL ? REPLICA_E_NOTFOUND : 0);
        if (rv == 0) {
            assert_int_equal(replica_stamp_compare(&version.stamp, &winners[i].commit->stamp), 0);
            assert_int_equal(replica_stamp_compare(&version.base, &winners[i].op->base), 0);
            assert_true(version.tombstone == winners[i].op->tombstone);
            assert_true(version.tombstone || replica_entry_equal(&version.entry, &winners[i].op->entry));
        }
        replica_version_close(&version);
    }
}

/* Everything users can see, as one text. */
static void render(struct fixture *fixture, const char *dir, char *text, size_t size)
{
    char names[4000], *name, *rest = names;
    strcpy(names, list(fixture, dir));
    while ((name = strtok_r(rest, " ", &rest)) != NULL) {
        char path[600];
        bool directory = name[strlen(name) - 1] == '/';
        if (directory)
            name[strlen(name) - 1] = '\0';
        snprintf(path, sizeof path, "%s%s%s", dir, *dir == '\0' ? "" : "/", name);
        snprintf(text + strlen(text), size - strlen(text), "%s=%s\n", path, shown(fixture, path));
        if (directory)
            render(fixture, path, text, size);
    }
}

static void check_links_and_children(struct fixture *fixture)
{
    static const char *const dirs[] = {"", "a", "a/b", "e", "h", "h/i"};
    for (size_t d = 0; d < sizeof dirs / sizeof dirs[0]; d++) {
        uint64_t counted, naive = 0;
        assert_int_equal(replica_map_children(&fixture->map, support_path(dirs[d]), fixture->seq, &counted),
                         0);
        for (size_t i = 0; i < PATHS; i++) {
            struct replica_target_name name = {.target = REPLICA_TARGET_PATH, .path = support_path(paths[i])};
            struct replica_path parent, last;
            struct replica_version version;
            replica_version_init(&version);
            replica_path_split(name.path, &parent, &last);
            if (parent.size == strlen(dirs[d]) && memcmp(parent.text, dirs[d], parent.size) == 0 &&
                replica_map_get(&fixture->map, NULL, &name, fixture->seq, &version) == 0)
                naive += !version.tombstone;
            replica_version_close(&version);
        }
        assert_int_equal(counted, naive);
    }
}

static void the_state_is_a_function_of_the_set(void **state)
{
    static struct commit commits[COMMITS];
    static char expected[20000], got[20000];
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct support_random random = {.state = seed * 0x9e3779b97f4a7c15u};
        struct replica_totals first = {0};
        for (size_t c = 0; c < COMMITS; c++)
            make_commit(&random, commits, c);
        for (size_t r = 0; r < REPLICAS; r++) {
            struct fixture fixture;
            size_t order[COMMITS];
            bool taken[COMMITS] = {false};
            fixture_open(&fixture);
            replay(&fixture, &random, commits, order);
            check_totals(&fixture);
            check_links_and_children(&fixture);
            for (size_t n = 0; n < COMMITS; n++) { /* and so it was at every place in the order */
                taken[order[n]] = true;
                if (n % 7 == 0 || n + 1 == COMMITS)
                    check_against_model(&fixture, commits, taken, n + 1);
            }
            got[0] = '\0';
            render(&fixture, "", got, sizeof got);
            if (r == 0) {
                first = fixture.totals;
                strcpy(expected, got);
            }
            assert_string_equal(got, expected);
            assert_memory_equal(first.state_hash, fixture.totals.state_hash, REPLICA_HASH_SIZE);
            assert_true(first.inodes == fixture.totals.inodes && first.files == fixture.totals.files &&
                        first.bytes == fixture.totals.bytes);
            fixture_close(&fixture);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_volume_is_a_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(winners_are_shown_at_any_place_in_the_order, setup, teardown),
        cmocka_unit_test_setup_teardown(equal_clocks_are_settled_by_the_commit_id, setup, teardown),
        cmocka_unit_test_setup_teardown(a_directory_revives_while_something_below_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(what_lives_deep_below_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_over_a_living_directory_gets_an_alias, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_that_looks_like_an_alias_is_a_name, setup, teardown),
        cmocka_unit_test_setup_teardown(long_names_have_cut_aliases, setup, teardown),
        cmocka_unit_test_setup_teardown(links_show_their_object, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dangling_link_over_a_directory_shows_the_directory, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(listing_what_is_not_a_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(history_names_what_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(a_version_is_found_by_its_commit, setup, teardown),
        cmocka_unit_test_setup_teardown(references_are_found_by_content, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_is_told, setup, teardown),
        cmocka_unit_test(the_state_is_a_function_of_the_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
