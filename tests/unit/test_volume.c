/* Volumes: storing, minting, holding, committing, ordering and applying deltas; and that after a loss of
 * power at any point, with the log and the map cut anywhere after their last sync, a restart reaches the same
 * state at the same places. */
#include "replica/contents_memory.h"
#include "replica/kv_memory.h"
#include "replica/volume.h"
#include "replica_support.h"

#include <stdio.h>
#include <stdlib.h>

struct world {
    struct replica_kv *log_kv, *map_kv;
    struct replica_contents *contents;
    struct replica_volume *volume;
    struct replica_kv_batch log, map;
    size_t budget; /* batches until the power goes */
    bool dead;
    struct replica_dot places[64]; /* by apply_seq, as far as synced */
    uint64_t places_n;
};

static void load(struct world *world)
{
    struct replica_volume_options options = {.log = world->log_kv,
                                             .map = world->map_kv,
                                             .contents = world->contents,
                                             .volume = support_id(9, 9),
                                             .store = support_id(1, 1)};
    replica_volume_destroy(&world->volume);
    replica_kv_batch_clear(&world->log);
    replica_kv_batch_clear(&world->map);
    assert_int_equal(replica_volume_new(&options, &world->volume), 0);
}

static void world_open(struct world *world)
{
    memset(world, 0, sizeof *world);
    world->budget = SIZE_MAX;
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

static int setup(void **state)
{
    *state = malloc(sizeof(struct world));
    assert_non_null(*state);
    world_open(*state);
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

static void write_batch(struct world *world, struct replica_kv *kv, struct replica_kv_batch *batch)
{
    if (batch->count == 0)
        return;
    if (!world->dead)
        assert_int_equal(replica_kv_write(kv, batch), 0);
    if (!world->dead && --world->budget == 0)
        world->dead = true; /* before anything else, a sync included */
    replica_kv_batch_clear(batch);
}

static void flush(struct world *world)
{
    write_batch(world, world->log_kv, &world->log);
    write_batch(world, world->map_kv, &world->map);
}

/* Deltas. n: number of the commit; ops: files "n-0" … and one that all write. */

#define DELTAS 7
static struct replica_buffer records[DELTAS];
static struct replica_content_id big_list; /* the op list of the sixth */

static void pack_ops(struct replica_buffer *out, unsigned n, size_t count)
{
    char path[32], text[32];
    for (size_t i = 0; i < count; i++) {
        struct replica_op op = {.target = REPLICA_TARGET_PATH};
        snprintf(path, sizeof path, "d/%u-%04u", n % 3, (unsigned)i);
        snprintf(text, sizeof text, "by %u", n);
        op.path = support_path(path);
        op.tombstone = (n + i) % 5 == 4;
        if (!op.tombstone)
            op.entry = i % 7 == 3 ? support_content_file((uint8_t)n, 1000) : support_file(text);
        replica_op_pack(out, &op);
    }
}

static void make_record(unsigned n, struct replica_dot dot, uint64_t hlc, uint8_t commit,
                        const struct replica_dot *dep, size_t count, struct replica_contents *contents)
{
    struct replica_delta delta = {.volume = support_id(9, 9),
                                  .commit = support_id(2, commit),
                                  .node = support_id(1, 1),
                                  .time_ms = 1000 + n,
                                  .op_count = count,
                                  .stamp_hlc = hlc,
                                  .dot = dot};
    struct replica_buffer ops;
    replica_buffer_init(&ops);
    pack_ops(&ops, commit, count);
    if (dep != NULL)
        assert_int_equal(replica_vector_set(&delta.deps, &dep->actor, dep->seq), 0);
    if (contents != NULL) {
        assert_int_equal(replica_contents_ingest(contents, ops.data, ops.size, &big_list), 0);
        delta.ops_content = big_list;
    } else {
        delta.ops = ops.data;
        delta.ops_size = ops.size;
    }
    replica_buffer_close(&records[n]);
    replica_delta_pack(&records[n], &delta);
    replica_buffer_close(&ops);
}

static struct replica_dot dot_of(uint64_t actor, uint64_t seq)
{
    return (struct replica_dot){.actor = support_actor(actor, 1), .seq = seq};
}

/* Two actors; the last is a second dot of the second commit. */
static void make_records(struct replica_contents *contents)
{
    struct replica_dot a1 = dot_of(1, 1), a2 = dot_of(1, 2), b1 = dot_of(2, 1), b2 = dot_of(2, 2);
    make_record(0, a1, 10, 1, NULL, 4, NULL);
    make_record(1, b1, 12, 2, &a1, 4, NULL);
    make_record(2, a2, 11, 3, NULL, 4, NULL);
    make_record(3, dot_of(1, 3), 30, 4, &b1, 3, NULL);
    make_record(4, b2, 20, 5, &a2, 5, NULL);
    make_record(5, dot_of(1, 4), 40, 6, &b2, 260 /* more than one piece */, contents);
    make_record(6, dot_of(2, 3), 12, 2, &a1, 4, NULL);
}

/* Tests of the single calls */

static void deltas_are_stored_in_order(void **state)
{
    struct world *world = *state;
    struct replica_buffer record;
    struct replica_dot dot = dot_of(1, 1);
    make_records(world->contents);
    replica_buffer_init(&record);
    assert_int_equal(replica_volume_store(world->volume, records[2].data, records[2].size, &world->log),
                     REPLICA_E_STALE);
    assert_int_equal(replica_volume_store(world->volume, records[0].data, records[0].size - 1, &world->log),
                     REPLICA_E_MALFORMED);
    assert_int_equal(world->log.count, 0);
    assert_int_equal(replica_volume_store(world->volume, records[0].data, records[0].size, &world->log), 0);
    assert_int_equal(replica_volume_read(world->volume, &world->log, &dot, &record),
                     0); /* through the batch */
    assert_memory_equal(record.data, records[0].data, record.size);
    assert_int_equal(replica_volume_store(world->volume, records[0].data, records[0].size, &world->log),
                     REPLICA_E_EXISTS);
    flush(world);
    dot.seq = 2;
    assert_int_equal(replica_volume_read(world->volume, NULL, &dot, &record), REPLICA_E_NOTFOUND);
    assert_true(replica_volume_state(world->volume)->hlc_high == 10);
    replica_buffer_close(&record);
}

static int store_changed(struct world *world, void (*change)(struct replica_delta *delta))
{
    struct replica_delta *delta = malloc(sizeof *delta);
    struct replica_buffer record;
    int rv;
    assert_non_null(delta);
    replica_buffer_init(&record);
    assert_int_equal(replica_delta_decode(records[0].data, records[0].size, delta), 0);
    change(delta);
    replica_delta_pack(&record, delta);
    rv = replica_volume_store(world->volume, record.data, record.size, &world->log);
    replica_buffer_close(&record);
    free(delta);
    return rv;
}

static void other_volume(struct replica_delta *delta)
{
    delta->volume = support_id(8, 8);
}

static void no_dot(struct replica_delta *delta)
{
    delta->dot.seq = 0;
}

static void no_stamp(struct replica_delta *delta)
{
    delta->stamp_hlc = 0;
}

static void what_is_no_delta_of_this_volume(void **state)
{
    struct world *world = *state;
    make_records(world->contents);
    assert_int_equal(store_changed(world, other_volume), REPLICA_E_MALFORMED);
    assert_int_equal(store_changed(world, no_dot), REPLICA_E_MALFORMED);
    assert_int_equal(store_changed(world, no_stamp), REPLICA_E_MALFORMED);
    assert_int_equal(replica_volume_state(world->volume)->stored.n, 0);
}

static void make_proposal(struct replica_buffer *out, uint8_t commit)
{
    struct replica_delta delta = {.volume = support_id(9, 9), .commit = support_id(2, commit), .op_count = 3};
    struct replica_buffer ops;
    replica_buffer_init(&ops);
    pack_ops(&ops, commit, 3);
    delta.ops = ops.data;
    delta.ops_size = ops.size;
    replica_buffer_clear(out);
    replica_delta_pack(out, &delta);
    replica_buffer_close(&ops);
}

static void proposals_wait_for_their_outcome(void **state)
{
    struct world *world = *state;
    struct replica_content_id content = {.root = {3}, .length = 70}, other = {.root = {4}, .length = 70};
    struct replica_id commit = support_id(2, 1), unknown = support_id(2, 99);
    struct replica_buffer proposal, different, read;
    bool pinned;
    replica_buffer_init(&proposal);
    replica_buffer_init(&different);
    replica_buffer_init(&read);
    make_records(world->contents);
    make_proposal(&proposal, 1);
    assert_int_equal(replica_volume_propose(world->volume, records[0].data, records[0].size, &world->log),
                     REPLICA_E_MALFORMED); /* minted */
    assert_int_equal(replica_volume_propose(world->volume, proposal.data, proposal.size, &world->log), 0);
    assert_int_equal(replica_volume_propose(world->volume, proposal.data, proposal.size, &world->log), 0);
    assert_int_equal(world->log.count, 1);
    replica_buffer_append(&different, proposal.data, proposal.size);
    different.data[different.size - 1 - 20 /* inside the dot's actor */] ^= 1;
    assert_int_equal(replica_volume_propose(world->volume, different.data, different.size, &world->log),
                     REPLICA_E_MISMATCH);
    replica_volume_pin(world->volume, &commit, &content, &world->log);
    assert_int_equal(replica_volume_proposal(world->volume, &world->log, &commit, &read), 0);
    flush(world);
    load(world);
    assert_int_equal(replica_volume_proposal(world->volume, NULL, &commit, &read), 0);
    assert_int_equal(read.size, proposal.size);
    assert_int_equal(replica_volume_proposal(world->volume, NULL, &unknown, &read), REPLICA_E_NOTFOUND);
    assert_int_equal(replica_volume_pins(world->log_kv, NULL, &content, &pinned), 0);
    assert_true(pinned);
    assert_int_equal(
        replica_volume_pins(world->log_kv, &replica_volume_state(world->volume)->id, &content, &pinned), 0);
    assert_true(pinned);
    assert_int_equal(replica_volume_pins(world->log_kv, &commit, &content, &pinned), 0); /* no such volume */
    assert_false(pinned);
    assert_int_equal(replica_volume_pins(world->log_kv, NULL, &other, &pinned), 0);
    assert_false(pinned);
    replica_buffer_close(&proposal);
    replica_buffer_close(&different);
    replica_buffer_close(&read);
}

static void commit_all(struct world *world)
{
    struct replica_vector stored = replica_volume_state(world->volume)->stored;
    bool rose;
    assert_int_equal(replica_volume_commit(world->volume, &stored, &world->log, &rose), 0);
}

static void apply_all(struct world *world)
{
    struct replica_content_id wanted;
    size_t n, reads = 0;
    int rv;
    assert_int_equal(replica_volume_order(world->volume, 100, &world->log, &n), 0);
    flush(world);
    assert_int_equal(replica_kv_sync(world->log_kv), 0);
    replica_volume_order_synced(world->volume, replica_volume_state(world->volume)->ordered_seq);
    do {
        rv = replica_volume_apply(world->volume, &reads, &world->log, &world->map, &wanted);
        flush(world);
    } while (rv == REPLICA_E_AGAIN);
    assert_int_equal(rv, 0);
}

static void minting_holding_and_the_end_of_a_proposal(void **state)
{
    struct world *world = *state;
    const struct replica_volume_state *volume = replica_volume_state(world->volume);
    struct replica_content_id content = {.length = 1000};
    struct replica_actor actor = support_actor(1, 1);
    struct replica_id commit = support_id(2, 1);
    struct replica_buffer proposal, record;
    struct replica_dot dot, found;
    bool pinned;
    replica_buffer_init(&proposal);
    replica_buffer_init(&record);
    for (uint8_t i = 1; i <= 2; i++) {
        make_proposal(&proposal, i);
        assert_int_equal(replica_volume_propose(world->volume, proposal.data, proposal.size, &world->log), 0);
        assert_int_equal(replica_volume_mint(world->volume, &actor, proposal.data, proposal.size, 50u + i,
                                             &world->log, &dot, &record),
                         0);
        assert_true(dot.seq == i);
        flush(world);
    }
    assert_int_equal(
        replica_volume_mint(world->volume, &actor, record.data, 5, 50, &world->log, &dot, &record),
        REPLICA_E_CORRUPT);
    dot = dot_of(1, 1);
    assert_int_equal(replica_volume_find(world->volume, NULL, &commit, &volume->held, &found),
                     REPLICA_E_NOTFOUND); /* not held yet */
    assert_int_equal(replica_volume_hold(world->volume, &dot), 0);
    assert_int_equal(replica_volume_find(world->volume, NULL, &commit, &volume->held, &found), 0);
    assert_true(found.seq == 1);
    replica_volume_set_durable(world->volume, &volume->held);
    memset(content.root, 1, sizeof content.root);
    replica_volume_pin(world->volume, &commit, &content, &world->log);
    commit_all(world);
    apply_all(world);
    assert_int_equal(replica_volume_proposal(world->volume, NULL, &commit, &record), REPLICA_E_NOTFOUND);
    assert_int_equal(replica_volume_pins(world->log_kv, NULL, &content, &pinned), 0);
    assert_true(pinned); /* its op list does not name it: the pin is not of a known content */
    load(world);
    assert_true(replica_vector_get(&replica_volume_state(world->volume)->held, &actor) == 1);
    assert_true(replica_vector_get(&replica_volume_state(world->volume)->stored, &actor) == 2);
    replica_buffer_close(&proposal);
    replica_buffer_close(&record);
}

static void a_commit_that_cannot_fit(void **state)
{
    struct world *world = *state;
    struct replica_vector many = {.n = 0}, more = {.n = 0};
    bool rose;
    for (uint64_t i = 0; i < REPLICA_VECTOR_MAX; i++) {
        struct replica_actor actor = support_actor(i, 1), other = support_actor(100 + i, 1);
        replica_vector_set(&many, &actor, 1);
        replica_vector_set(&more, &other, 1);
    }
    assert_int_equal(replica_volume_commit(world->volume, &many, &world->log, &rose), 0);
    assert_true(rose);
    assert_int_equal(replica_volume_commit(world->volume, &many, &world->log, &rose), 0);
    assert_false(rose);
    assert_int_equal(replica_volume_commit(world->volume, &more, &world->log, &rose), REPLICA_E_TOOBIG);
    assert_false(rose);
    assert_true(replica_vector_equal(&replica_volume_state(world->volume)->committed, &many));
}

/* Nothing is ordered before what it depends on, nor applied before its place is durable. */
static void the_order_respects_causes(void **state)
{
    struct world *world = *state;
    const struct replica_volume_state *volume = replica_volume_state(world->volume);
    struct replica_content_id wanted;
    struct replica_dot dot, first = dot_of(1, 1);
    size_t n, reads = 0;
    make_records(world->contents);
    assert_int_equal(replica_volume_store(world->volume, records[1].data, records[1].size, &world->log),
                     0); /* needs a1 */
    commit_all(world);
    assert_int_equal(replica_volume_order(world->volume, 10, &world->log, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(replica_volume_store(world->volume, records[0].data, records[0].size, &world->log), 0);
    assert_int_equal(replica_volume_order(world->volume, 10, &world->log, &n), 0);
    assert_int_equal(n, 0); /* a1 is not known to be committed */
    commit_all(world);
    assert_int_equal(replica_volume_order(world->volume, 1, &world->log, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(replica_volume_order(world->volume, 10, &world->log, &n), 0);
    assert_int_equal(n, 1);
    flush(world);
    assert_int_equal(replica_volume_at(world->volume, 1, &dot), 0);
    assert_int_equal(replica_actor_compare(&dot.actor, &first.actor), 0);
    assert_int_equal(replica_volume_at(world->volume, 3, &dot), REPLICA_E_NOTFOUND);
    assert_int_equal(replica_volume_apply(world->volume, &reads, &world->log, &world->map, &wanted), 0);
    assert_true(volume->applied_seq == 0);
    replica_volume_order_synced(world->volume, 1);
    assert_int_equal(replica_volume_apply(world->volume, &reads, &world->log, &world->map, &wanted), 0);
    flush(world);
    assert_true(volume->applied_seq == 1);
    assert_int_equal(replica_volume_apply(world->volume, &reads, &world->log, &world->map, &wanted), 0);
    assert_true(volume->applied_seq == 1);
}

static void an_op_list_that_is_missing_is_asked_for(void **state)
{
    struct world *world = *state;
    struct replica_contents *elsewhere;
    struct replica_content_id wanted;
    size_t n, reads = 0;
    assert_int_equal(replica_contents_memory_new(&elsewhere), 0);
    make_records(elsewhere);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(replica_volume_store(world->volume, records[i].data, records[i].size, &world->log),
                         0);
    commit_all(world);
    assert_int_equal(replica_volume_order(world->volume, 10, &world->log, &n), 0);
    flush(world);
    replica_volume_order_synced(world->volume, 6);
    while (replica_volume_apply(world->volume, &reads, &world->log, &world->map, &wanted) == REPLICA_E_AGAIN)
        flush(world);
    assert_true(replica_volume_state(world->volume)->applied_seq == 5);
    assert_true(replica_content_id_equal(&wanted, &big_list));
    make_records(world->contents); /* it arrives */
    apply_all(world);
    assert_true(replica_volume_state(world->volume)->applied_seq == 6);
    replica_contents_destroy(&elsewhere);
}

struct seen {
    uint64_t seqs[20];
    bool committed[20];
    size_t n;
};

static int see(void *context, uint64_t apply_seq, bool committed, const struct replica_delta *delta)
{
    struct seen *seen = context;
    assert_true(delta->op_count > 0);
    seen->seqs[seen->n] = apply_seq;
    seen->committed[seen->n++] = committed;
    return 0;
}

static void commits_are_listed_newest_first(void **state)
{
    struct world *world = *state;
    struct seen seen = {.n = 0};
    make_records(world->contents);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(replica_volume_store(world->volume, records[i].data, records[i].size, &world->log),
                         0);
    commit_all(world);
    apply_all(world);
    assert_int_equal(replica_volume_store(world->volume, records[3].data, records[3].size, &world->log), 0);
    flush(world);
    assert_int_equal(replica_volume_commits(world->volume, 0, 10, see, &seen), 0);
    assert_int_equal(seen.n, 4);
    assert_true(seen.seqs[0] == 0 && !seen.committed[0] && seen.seqs[1] == 3 && seen.seqs[3] == 1 &&
                seen.committed[3]);
    seen.n = 0;
    assert_int_equal(replica_volume_commits(world->volume, 3, 1, see, &seen), 0);
    assert_true(seen.n == 1 && seen.seqs[0] == 2);
    seen.n = 0;
    assert_int_equal(replica_volume_commits(world->volume, 99, 10, see, &seen), 0);
    assert_int_equal(seen.n, 3);
}

static void a_newer_or_damaged_head_is_told(void **state)
{
    struct world *world = *state;
    struct replica_volume_options options = {
        .log = world->log_kv, .map = world->map_kv, .contents = world->contents, .volume = support_id(9, 9)};
    struct replica_volume *volume = NULL;
    struct replica_buffer value;
    uint8_t key[18] = {'v'};
    memcpy(key + 1, options.volume.bytes, 16);
    key[17] = 'h';
    replica_buffer_init(&value);
    replica_pack_array(&value, 7);
    replica_pack_uint(&value, 2); /* a version to come, with whatever else it has */
    for (size_t i = 0; i < 6; i++)
        replica_pack_nil(&value);
    replica_kv_batch_put(&world->log, key, sizeof key, value.data, value.size);
    flush(world);
    assert_int_equal(replica_volume_new(&options, &volume), REPLICA_E_VERSION);
    replica_kv_batch_put(&world->log, key, sizeof key, "\xc1", 1);
    flush(world);
    assert_int_equal(replica_volume_new(&options, &volume), REPLICA_E_CORRUPT);
    assert_null(volume);
    replica_buffer_close(&value);
}

/* A second dot for an id changes nothing, in whatever order the two come. */
static void a_second_dot_changes_nothing(void **state)
{
    struct world *world = *state;
    struct replica_entry file = support_content_file(2, 1000); /* which its ops name */
    struct replica_id commit = support_id(2, 2);
    struct replica_totals before;
    bool pinned;
    make_records(world->contents);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(replica_volume_store(world->volume, records[i].data, records[i].size, &world->log),
                         0);
    commit_all(world);
    apply_all(world);
    before = replica_volume_state(world->volume)->totals;
    assert_int_equal(replica_volume_store(world->volume, records[6].data, records[6].size, &world->log), 0);
    replica_volume_pin(world->volume, &commit, &file.blob.content, &world->log); /* as who holds it does */
    commit_all(world);
    apply_all(world);
    assert_int_equal(replica_volume_pins(world->log_kv, NULL, &file.blob.content, &pinned), 0);
    assert_false(pinned); /* else its bytes could never go */
    assert_true(replica_volume_state(world->volume)->applied_seq == 7);
    assert_memory_equal(&before, &replica_volume_state(world->volume)->totals, sizeof before);
}

/* The scenario, until the power goes */

static void note_places(struct world *world)
{
    uint64_t n = replica_volume_state(world->volume)->ordered_seq;
    for (uint64_t seq = world->places_n + 1; seq <= n; seq++)
        assert_int_equal(replica_volume_at(world->volume, seq, &world->places[seq]), 0);
    world->places_n = n;
}

static void sync_log(struct world *world)
{
    if (world->dead)
        return;
    assert_int_equal(replica_kv_sync(world->log_kv), 0);
    note_places(world);
    replica_volume_order_synced(world->volume, world->places_n);
    replica_volume_set_durable(world->volume, &replica_volume_state(world->volume)->held);
}

static void advance(struct world *world, size_t applies)
{
    struct replica_content_id wanted;
    size_t n, reads = 0;
    if (world->dead)
        return;
    assert_int_equal(replica_volume_order(world->volume, 2, &world->log, &n), 0);
    flush(world);
    for (size_t i = 0; i < applies && !world->dead; i++) {
        int rv = replica_volume_apply(world->volume, &reads, &world->log, &world->map, &wanted);
        assert_true(rv == 0 || rv == REPLICA_E_AGAIN);
        flush(world);
    }
}

static void checkpoint(struct world *world)
{
    if (world->dead)
        return;
    replica_volume_checkpoint_take(world->volume);
    assert_int_equal(replica_kv_sync(world->map_kv), 0);
    assert_int_equal(replica_volume_checkpoint_write(world->volume, &world->log), 0);
    assert_true(replica_volume_checkpoint_age(world->volume) == 0);
    flush(world);
}

static void scenario(struct world *world)
{
    for (size_t i = 0; i < DELTAS && !world->dead; i++) {
        struct replica_delta delta;
        assert_int_equal(replica_delta_decode(records[i].data, records[i].size, &delta), 0);
        assert_int_equal(replica_volume_store(world->volume, records[i].data, records[i].size, &world->log),
                         0);
        assert_int_equal(replica_volume_hold(world->volume, &delta.dot), 0);
        flush(world);
        if (i % 2 == 1 || world->dead)
            continue;
        commit_all(world);
        flush(world);
        advance(world, 1);
        sync_log(world);
        advance(world, 2);
        if (i == 2 || i == 4)
            checkpoint(world);
    }
    sync_log(world);
    advance(world, 4);
}

/* What a node does after a start: what it lacks comes from peers again. */
static void recover(struct world *world)
{
    const struct replica_volume_state *state = replica_volume_state(world->volume);
    struct replica_actor actor = support_actor(1, 1);
    struct replica_vector committed;
    uint8_t hash[REPLICA_HASH_SIZE];
    bool rose;
    assert_true(state->applied_seq <= state->ordered_seq && state->ordered_seq >= world->places_n);
    assert_true(replica_vector_covers(&state->stored, &state->held) &&
                replica_vector_covers(&state->stored, &state->ordered) &&
                replica_vector_covers(&state->ordered, &state->applied));
    for (uint64_t seq = 1; seq <= world->places_n; seq++) { /* a restart reproduces the same places */
        struct replica_dot dot;
        assert_int_equal(replica_volume_at(world->volume, seq, &dot), 0);
        assert_int_equal(replica_actor_compare(&dot.actor, &world->places[seq].actor), 0);
        assert_true(dot.seq == world->places[seq].seq);
    }
    for (size_t i = 0; i < DELTAS; i++) {
        int rv = replica_volume_store(world->volume, records[i].data, records[i].size, &world->log);
        assert_true(rv == 0 || rv == REPLICA_E_EXISTS);
    }
    committed = state->stored; /* this time the second actor is heard of first: what has no durable place yet
                                  gets another */
    assert_int_equal(replica_vector_set(&committed, &actor, 1), 0);
    assert_int_equal(replica_volume_commit(world->volume, &committed, &world->log, &rose), 0);
    apply_all(world);
    commit_all(world);
    apply_all(world);
    assert_true(state->applied_seq == DELTAS);
    assert_int_equal(replica_map_state_hash(replica_volume_map(world->volume), state->applied_seq, hash), 0);
    assert_memory_equal(hash, state->totals.state_hash, sizeof hash);
}

/* Runs until `budget` batches are written, keeps so many of those that were not synced, and starts again. */
static size_t live_through(size_t budget, size_t cut, struct replica_totals *ret_totals, size_t *ret_cuts)
{
    struct world world;
    size_t logs, maps;
    world_open(&world);
    make_records(world.contents);
    assert_int_equal(replica_contents_sync(world.contents), 0);
    world.budget = budget;
    scenario(&world);
    budget -= world.budget;
    logs = replica_kv_memory_pending(world.log_kv);
    maps = replica_kv_memory_pending(world.map_kv);
    *ret_cuts = (logs + 1) * (maps + 1);
    replica_kv_memory_crash(world.log_kv, cut % (logs + 1));
    replica_kv_memory_crash(world.map_kv, cut / (logs + 1));
    replica_contents_memory_crash(world.contents);
    world.dead = false;
    world.budget = SIZE_MAX;
    load(&world);
    recover(&world);
    *ret_totals = replica_volume_state(world.volume)->totals;
    world_close(&world);
    return budget;
}

/* The map is gone while the log believes it durable: everything is applied again, at the same places. */
static void a_lost_map_is_rebuilt(void **state)
{
    struct world *world = *state;
    struct replica_totals totals;
    make_records(world->contents);
    scenario(world);
    recover(world);
    checkpoint(world);
    totals = replica_volume_state(world->volume)->totals;
    load(world);
    assert_true(replica_volume_state(world->volume)->applied_seq ==
                DELTAS); /* nothing to do for a map that is well */
    replica_kv_destroy(&world->map_kv);
    assert_int_equal(replica_kv_memory_new(&world->map_kv), 0);
    load(world);
    assert_true(replica_volume_state(world->volume)->applied_seq == 0);
    assert_true(replica_volume_state(world->volume)->ordered_seq == DELTAS);
    recover(world);
    assert_memory_equal(&totals, &replica_volume_state(world->volume)->totals, sizeof totals);
    checkpoint(world);
    load(world);
    assert_true(replica_volume_state(world->volume)->applied_seq == DELTAS);
}

/* A delta has its place in the log, durably, before the map shows it: a map that shows more proves that the log is not what it was. */
static void a_log_that_lost_what_the_map_shows_is_refused(void **state)
{
    struct world *world = *state;
    struct replica_volume_options options;
    struct replica_volume *volume = NULL;
    make_records(world->contents);
    scenario(world);
    replica_kv_destroy(&world->log_kv);
    assert_int_equal(replica_kv_memory_new(&world->log_kv), 0);
    options = (struct replica_volume_options){.log = world->log_kv,
                                              .map = world->map_kv,
                                              .contents = world->contents,
                                              .volume = support_id(9, 9),
                                              .store = support_id(1, 1)};
    assert_int_equal(replica_volume_new(&options, &volume), REPLICA_E_STALE);
    assert_null(volume);
}

static void power_may_go_at_any_point(void **state)
{
    struct replica_totals expected, got;
    size_t cuts, crashes = 0, batches = live_through(SIZE_MAX / 2, 0, &expected, &cuts);
    (void)state;
    assert_true(batches > 20);
    for (size_t budget = 1; budget <= batches; budget++) {
        cuts = 1;
        for (size_t cut = 0; cut < cuts;
             cut++, crashes++) { /* every pair of lost suffixes, of the log and of the map */
            live_through(budget, cut, &got, &cuts);
            assert_memory_equal(&expected, &got, sizeof expected);
        }
    }
    assert_true(crashes > 4 * batches);
    for (size_t i = 0; i < DELTAS; i++)
        replica_buffer_close(&records[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(deltas_are_stored_in_order),
        TEST(what_is_no_delta_of_this_volume),
        TEST(proposals_wait_for_their_outcome),
        TEST(minting_holding_and_the_end_of_a_proposal),
        TEST(a_commit_that_cannot_fit),
        TEST(the_order_respects_causes),
        TEST(an_op_list_that_is_missing_is_asked_for),
        TEST(commits_are_listed_newest_first),
        TEST(a_newer_or_damaged_head_is_told),
        TEST(a_second_dot_changes_nothing),
        TEST(a_lost_map_is_rebuilt),
        TEST(a_log_that_lost_what_the_map_shows_is_refused),
        cmocka_unit_test(power_may_go_at_any_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
