/* Ops, op lists and deltas: there and back, and what a peer may not say. */
#include "replica/delta.h"
#include "replica_support.h"

#include <stdlib.h>

static struct replica_op path_op(const char *path, const struct replica_entry *entry)
{
    struct replica_op op = {
        .target = REPLICA_TARGET_PATH, .path = support_path(path), .tombstone = entry == NULL};
    if (entry != NULL)
        op.entry = *entry;
    return op;
}

static int reread(const struct replica_op *op, struct replica_op *ret_op)
{
    static struct replica_buffer bytes; /* the op read borrows from it */
    struct replica_pack_reader reader;
    int rv;
    replica_buffer_close(&bytes);
    replica_op_pack(&bytes, op);
    replica_pack_reader_init(&reader, bytes.data, bytes.size);
    rv = replica_op_read(&reader, ret_op);
    return rv != 0 ? rv : replica_pack_reader_finish(&reader);
}

static void ops_round_trip(void **state)
{
    struct replica_entry file = support_file("x"), directory = support_directory(0700);
    struct replica_op op = path_op("a/b", &file), read;
    (void)state;
    op.base = (struct replica_stamp){5, support_id(1, 1)};
    assert_int_equal(reread(&op, &read), 0);
    assert_int_equal(replica_op_compare(&op, &read), 0);
    assert_int_equal(replica_stamp_compare(&op.base, &read.base), 0);
    assert_true(replica_entry_equal(&op.entry, &read.entry) && !read.tombstone);
    op = path_op("a", NULL);
    assert_int_equal(reread(&op, &read), 0);
    assert_true(read.tombstone && read.entry.kind == 0);
    op.entry = directory; /* a directory's tombstone keeps its last entry */
    assert_int_equal(reread(&op, &read), 0);
    assert_true(read.tombstone && read.entry.mode == 0700);
    op.entry = file; /* no other does */
    assert_int_equal(reread(&op, &read), 0);
    assert_true(read.tombstone && read.entry.kind == 0);
    op = (struct replica_op){.target = REPLICA_TARGET_OBJECT, .object = support_id(2, 2), .entry = file};
    assert_int_equal(reread(&op, &read), 0);
    assert_true(replica_id_equal(&op.object, &read.object));
}

static void ops_that_nobody_may_send(void **state)
{
    struct replica_entry file = support_file("x"), directory = support_directory(0700);
    struct replica_entry link = {.kind = REPLICA_KIND_LINK, .object = support_id(1, 1)};
    struct replica_entry draft = {.kind = REPLICA_KIND_FILE,
                                  .blob = {.kind = REPLICA_BLOB_DRAFT, .draft = 4}};
    struct replica_op op = path_op("/a", &file), read = {.base = {.hlc = 99}};
    (void)state;
    assert_int_equal(reread(&op, &read), REPLICA_E_MALFORMED);
    op = path_op("a/../b", &file);
    assert_int_equal(reread(&op, &read), REPLICA_E_MALFORMED);
    op = path_op("a", &draft); /* a draft never leaves its node */
    assert_int_equal(reread(&op, &read), REPLICA_E_MALFORMED);
    op = (struct replica_op){.target = REPLICA_TARGET_OBJECT, .object = support_id(2, 2), .entry = link};
    assert_int_equal(reread(&op, &read), REPLICA_E_MALFORMED);
    op.entry = directory;
    assert_int_equal(reread(&op, &read), REPLICA_E_MALFORMED);
    assert_true(read.base.hlc == 99); /* untouched */
}

/* array [target, path, base, entry, last] with chosen items */
static int read_raw(size_t items, uint64_t target, const struct replica_entry *entry,
                    const struct replica_entry *last, size_t extra)
{
    struct replica_stamp base = {0};
    struct replica_pack_reader reader;
    struct replica_buffer bytes;
    struct replica_op op;
    int rv;
    replica_buffer_init(&bytes);
    replica_pack_array(&bytes, items);
    replica_pack_uint(&bytes, target);
    replica_pack_cstr(&bytes, "p");
    replica_pack_stamp(&bytes, &base);
    if (entry != NULL)
        replica_entry_pack(&bytes, entry);
    else
        replica_pack_nil(&bytes);
    if (last != NULL)
        replica_entry_pack(&bytes, last);
    else
        replica_pack_nil(&bytes);
    for (size_t i = 0; i < extra; i++)
        replica_pack_nil(&bytes);
    replica_pack_reader_init(&reader, bytes.data, bytes.size);
    rv = replica_op_read(&reader, &op);
    if (rv == 0)
        rv = replica_pack_reader_finish(&reader);
    replica_buffer_close(&bytes);
    return rv;
}

static void op_shapes(void **state)
{
    struct replica_entry file = support_file("x"), directory = support_directory(0700);
    (void)state;
    assert_int_equal(read_raw(5, 0, &file, NULL, 0), 0);
    assert_int_equal(read_raw(7, 0, &file, NULL, 2), 0); /* a later version's fields */
    assert_int_equal(read_raw(4, 0, &file, NULL, 0), REPLICA_E_MALFORMED);
    assert_int_equal(read_raw(33, 0, &file, NULL, 28), REPLICA_E_MALFORMED);
    assert_int_equal(read_raw(5, 2, &file, NULL, 0), REPLICA_E_MALFORMED);
    assert_int_equal(read_raw(5, 0, &file, &directory, 0), REPLICA_E_MALFORMED); /* live and a last entry */
    assert_int_equal(read_raw(5, 0, NULL, &directory, 0), 0);
    assert_int_equal(read_raw(5, 0, NULL, &file, 0), REPLICA_E_MALFORMED);
}

static void the_order_of_an_op_list(void **state)
{
    static const char *const ordered[] = {"",     "a",    "b",     "a/z",
                                          "a/zz", "a!/b", "a/b/c", "ab/a"}; /* by (parent, name), bytewise */
    struct replica_op object = {.target = REPLICA_TARGET_OBJECT, .object = support_id(1, 2)}, other = object;
    struct replica_op root = path_op("", NULL);
    (void)state;
    for (size_t i = 1; i < sizeof ordered / sizeof ordered[0]; i++) {
        struct replica_op a = path_op(ordered[i - 1], NULL), b = path_op(ordered[i], NULL);
        assert_true(replica_op_compare(&a, &b) < 0 && replica_op_compare(&b, &a) > 0);
        assert_int_equal(replica_op_compare(&a, &a), 0);
    }
    other.object = support_id(1, 3);
    assert_true(replica_op_compare(&object, &other) < 0);
    assert_true(replica_op_compare(&object, &root) < 0 && replica_op_compare(&root, &object) > 0);
    root.path.text = NULL; /* nothing may be read of an empty path */
    assert_int_equal(replica_op_compare(&root, &root), 0);
}

static int count_ops(void *context, const struct replica_op *op)
{
    size_t *left = context;
    (void)op;
    return --*left == 0 ? 55 : 0;
}

static void lists_are_walked_in_order(void **state)
{
    struct replica_op a = path_op("a", NULL), b = path_op("b", NULL);
    struct replica_buffer ops;
    size_t left = 100;
    (void)state;
    replica_buffer_init(&ops);
    assert_int_equal(replica_ops_each(ops.data, 0, count_ops, &left), 0);
    replica_op_pack(&ops, &a);
    replica_op_pack(&ops, &b);
    assert_int_equal(replica_ops_each(ops.data, ops.size, count_ops, &left), 0);
    assert_int_equal(left, 98);
    left = 1;
    assert_int_equal(replica_ops_each(ops.data, ops.size, count_ops, &left), 55);
    left = 100;
    assert_int_equal(replica_ops_each(ops.data, ops.size - 1, count_ops, &left), REPLICA_E_MALFORMED);
    replica_op_pack(&ops, &b); /* twice */
    assert_int_equal(replica_ops_each(ops.data, ops.size, count_ops, &left), REPLICA_E_MALFORMED);
    replica_buffer_close(&ops);
}

static struct replica_delta full_delta(const struct replica_buffer *ops)
{
    struct replica_delta delta = {.volume = support_id(1, 1),
                                  .commit = support_id(2, 2),
                                  .node = support_id(3, 3),
                                  .time_ms = 4,
                                  .op_count = 5,
                                  .byte_count = 6,
                                  .ops = ops->data,
                                  .ops_size = ops->size,
                                  .stamp_hlc = 7,
                                  .dot = {support_actor(8, 9), 10}};
    struct replica_actor actor = support_actor(1, 1);
    replica_vector_set(&delta.deps, &actor, 3);
    return delta;
}

static void deltas_round_trip(void **state)
{
    struct replica_buffer ops, out;
    struct replica_delta *delta = malloc(sizeof *delta), *read = malloc(sizeof *read);
    struct replica_stamp stamp;
    (void)state;
    assert_true(delta != NULL && read != NULL);
    replica_buffer_init(&ops);
    replica_buffer_init(&out);
    replica_buffer_append(&ops, "ops", 3);
    *delta = full_delta(&ops);
    delta->carried_n = REPLICA_CARRIED_MAX;
    for (size_t i = 0; i < REPLICA_CARRIED_MAX; i++)
        delta->carried[i] = (struct replica_carried){.id = {.length = 3}, .data = (const uint8_t *)"abc"};
    replica_delta_pack(&out, delta);
    assert_int_equal(replica_delta_decode(out.data, out.size, read), 0);
    assert_true(replica_id_equal(&delta->volume, &read->volume) &&
                replica_id_equal(&delta->commit, &read->commit) &&
                replica_id_equal(&delta->node, &read->node));
    assert_true(replica_vector_equal(&delta->deps, &read->deps));
    assert_true(read->time_ms == 4 && read->op_count == 5 && read->byte_count == 6 && read->dot.seq == 10);
    assert_int_equal(read->ops_size, 3);
    assert_memory_equal(read->ops, "ops", 3);
    assert_int_equal(read->carried_n, REPLICA_CARRIED_MAX);
    assert_memory_equal(read->carried[63].data, "abc", 3);
    stamp = replica_delta_stamp(read);
    assert_true(stamp.hlc == 7 && replica_id_equal(&stamp.commit, &delta->commit));
    for (size_t n = 0; n < out.size; n++)
        assert_int_equal(replica_delta_decode(out.data, n, read), REPLICA_E_MALFORMED);
    replica_buffer_append(&out, "", 1);
    assert_int_equal(replica_delta_decode(out.data, out.size, read), REPLICA_E_MALFORMED); /* trailing */
    replica_buffer_close(&ops);
    replica_buffer_close(&out);
    free(delta);
    free(read);
}

static int decode_with_ops_length(uint64_t length)
{
    struct replica_buffer none, out;
    struct replica_delta delta, read;
    int rv;
    replica_buffer_init(&none);
    replica_buffer_init(&out);
    delta = full_delta(&none);
    delta.ops = NULL;
    delta.ops_content.length = length;
    replica_delta_pack(&out, &delta);
    rv = replica_delta_decode(out.data, out.size, &read);
    if (rv == 0)
        assert_true(read.ops == NULL && read.ops_content.length == length);
    replica_buffer_close(&out);
    return rv;
}

static void an_op_list_elsewhere_has_a_possible_length(void **state)
{
    (void)state;
    assert_int_equal(decode_with_ops_length(1), 0);
    assert_int_equal(decode_with_ops_length(REPLICA_OPS_SIZE_MAX), 0);
    assert_int_equal(decode_with_ops_length(REPLICA_OPS_SIZE_MAX + 1), REPLICA_E_MALFORMED);
    assert_int_equal(decode_with_ops_length(UINT64_MAX), REPLICA_E_MALFORMED);
    assert_int_equal(decode_with_ops_length(0), REPLICA_E_MALFORMED);
}

static void deltas_that_nobody_may_send(void **state)
{
    struct replica_buffer ops, out;
    struct replica_delta delta, read;
    uint8_t *big = calloc(1, REPLICA_DELTA_SIZE_MAX + 1);
    (void)state;
    assert_non_null(big);
    replica_buffer_init(&ops);
    replica_buffer_init(&out);
    replica_buffer_append(&ops, "ops", 3);
    delta = full_delta(&ops);
    memset(&delta.commit, 0, sizeof delta.commit);
    replica_delta_pack(&out, &delta);
    assert_int_equal(replica_delta_decode(out.data, out.size, &read), REPLICA_E_MALFORMED); /* no commit id */
    delta = full_delta(&ops);
    delta.carried_n = 1; /* carrying nothing */
    delta.carried[0] = (struct replica_carried){.id = {.length = 0}, .data = big};
    replica_buffer_clear(&out);
    replica_delta_pack(&out, &delta);
    assert_int_equal(replica_delta_decode(out.data, out.size, &read), REPLICA_E_MALFORMED);
    assert_int_equal(replica_delta_decode(big, REPLICA_DELTA_SIZE_MAX + 1, &read), REPLICA_E_TOOBIG);
    assert_int_equal(replica_delta_decode(big, REPLICA_DELTA_SIZE_MAX, &read), REPLICA_E_MALFORMED);
    replica_buffer_close(&ops);
    replica_buffer_close(&out);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_round_trip),
        cmocka_unit_test(ops_that_nobody_may_send),
        cmocka_unit_test(op_shapes),
        cmocka_unit_test(the_order_of_an_op_list),
        cmocka_unit_test(lists_are_walked_in_order),
        cmocka_unit_test(deltas_round_trip),
        cmocka_unit_test(an_op_list_elsewhere_has_a_possible_length),
        cmocka_unit_test(deltas_that_nobody_may_send),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
