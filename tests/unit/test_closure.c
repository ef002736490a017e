/* Closures: what a delta needs, found in bounded pieces, crossed off as it arrives. */
#include "replica/closure.h"
#include "replica/contents_memory.h"
#include "replica/merkle.h"
#include "replica_support.h"

#include <stdio.h>
#include <stdlib.h>

struct fixture {
    struct replica_contents *contents;
    struct replica_buffer ops, record;
    struct replica_delta delta;
    size_t visited, missing;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    assert_int_equal(replica_contents_memory_new(&fixture->contents), 0);
    fixture->delta.volume = support_id(1, 1);
    fixture->delta.commit = support_id(2, 2);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    replica_contents_destroy(&fixture->contents);
    replica_buffer_close(&fixture->ops);
    replica_buffer_close(&fixture->record);
    free(fixture);
    return 0;
}

/* A file whose content is made of its number; ingest it to have it. */
static struct replica_content_id content_of(struct replica_contents *contents, unsigned number)
{
    char text[400];
    struct replica_content_id id;
    memset(text, 'c', sizeof text);
    memcpy(text, &number, sizeof number);
    assert_int_equal(replica_contents_ingest(contents, text, sizeof text, &id), 0);
    return id;
}

static void add_file(struct fixture *fixture, unsigned number, struct replica_contents *elsewhere,
                     unsigned content)
{
    struct replica_op op = {.target = REPLICA_TARGET_PATH, .entry = support_content_file(0, 400)};
    char path[20];
    snprintf(path, sizeof path, "f%05u", number);
    op.path = support_path(path);
    op.entry.blob.content = content_of(elsewhere, content);
    replica_op_pack(&fixture->ops, &op);
    fixture->delta.op_count++;
}

static void finish(struct fixture *fixture)
{
    fixture->delta.ops = fixture->ops.data == NULL ? (const uint8_t *)"" : fixture->ops.data;
    fixture->delta.ops_size = fixture->ops.size;
    replica_buffer_clear(&fixture->record);
    replica_delta_pack(&fixture->record, &fixture->delta);
}

static void visit(void *context, const struct replica_content_id *content, bool missing)
{
    struct fixture *fixture = context;
    assert_true(content->length > 0);
    fixture->visited++;
    fixture->missing += missing;
}

static int scan_all(struct fixture *fixture, struct replica_closure *closure, size_t max)
{
    int rv;
    do
        rv = replica_closure_scan(closure, fixture->contents, max, visit, fixture);
    while (rv == REPLICA_E_AGAIN);
    return rv;
}

static void everything_missing_is_found_and_crossed_off(void **state)
{
    struct fixture *fixture = *state;
    struct replica_contents *elsewhere;
    struct replica_closure closure;
    struct replica_content_id id, unknown = {.root = {9}, .length = 400};
    assert_int_equal(replica_contents_memory_new(&elsewhere), 0);
    for (unsigned i = 0; i < 500; i++)
        add_file(fixture, i, i % 4 == 0 ? fixture->contents : elsewhere, i % 100); /* contents repeat */
    finish(fixture);
    assert_int_equal(replica_closure_init(&closure, fixture->record.data, fixture->record.size), 0);
    assert_false(replica_closure_is_filled(&closure));
    assert_int_equal(replica_closure_scan(&closure, fixture->contents, 7, visit, fixture), REPLICA_E_AGAIN);
    assert_int_equal(fixture->visited, 7); /* bounded */
    assert_int_equal(scan_all(fixture, &closure, 7), 0);
    assert_int_equal(fixture->visited, 500);
    assert_int_equal(fixture->missing, 75); /* each once, though five files name it */
    assert_int_equal(closure.missing_n, 75);
    assert_int_equal(replica_closure_scan(&closure, fixture->contents, 7, visit, fixture),
                     0); /* once is enough */
    assert_false(replica_closure_arrived(&closure, &unknown));
    for (unsigned i = 0; i < 100; i++) {
        id = content_of(elsewhere, i);
        assert_true(replica_closure_arrived(&closure, &id) == (i % 4 != 0));
        assert_false(replica_closure_arrived(&closure, &id));
    }
    assert_true(replica_closure_is_filled(&closure));
    replica_closure_close(&closure);
    replica_contents_destroy(&elsewhere);
}

static void an_op_list_that_is_a_content_comes_first(void **state)
{
    struct fixture *fixture = *state;
    struct replica_contents *elsewhere;
    struct replica_closure closure;
    struct replica_content_id list;
    assert_int_equal(replica_contents_memory_new(&elsewhere), 0);
    for (unsigned i = 0; i < 20; i++)
        add_file(fixture, i, elsewhere, i);
    replica_merkle_content(fixture->ops.data, fixture->ops.size, &list);
    fixture->delta.ops_content = list;
    replica_delta_pack(&fixture->record, &fixture->delta);
    assert_int_equal(replica_closure_init(&closure, fixture->record.data, fixture->record.size), 0);
    assert_int_equal(scan_all(fixture, &closure, 5), 0);
    assert_int_equal(fixture->missing, 1);
    assert_false(replica_closure_is_filled(&closure));
    assert_int_equal(replica_contents_ingest(fixture->contents, fixture->ops.data, fixture->ops.size, &list),
                     0);
    assert_true(replica_closure_arrived(&closure, &list));
    assert_false(replica_closure_is_filled(&closure)); /* to be scanned again */
    assert_int_equal(scan_all(fixture, &closure, 5), 0);
    assert_int_equal(closure.missing_n, 20);
    for (unsigned i = 0; i < 20; i++) {
        list = content_of(fixture->contents, i);
        assert_true(replica_closure_arrived(&closure, &list));
    }
    assert_true(replica_closure_is_filled(&closure));
    replica_closure_close(&closure);
    replica_contents_destroy(&elsewhere);
}

static int scan_list(struct fixture *fixture)
{
    struct replica_closure closure;
    int rv;
    finish(fixture);
    assert_int_equal(replica_closure_init(&closure, fixture->record.data, fixture->record.size), 0);
    rv = scan_all(fixture, &closure, 3);
    replica_closure_close(&closure);
    return rv;
}

/* Applying relies on it, and a minted delta is never refused: so it is refused here. */
static void lists_out_of_order_or_count_are_refused(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned i = 0; i < 5; i++)
        add_file(fixture, i, fixture->contents, i);
    assert_int_equal(scan_list(fixture), 0);
    fixture->delta.op_count = 6;
    assert_int_equal(scan_list(fixture), REPLICA_E_MALFORMED);
    fixture->delta.op_count = 5;
    add_file(fixture, 4, fixture->contents, 4); /* twice */
    assert_int_equal(scan_list(fixture), REPLICA_E_MALFORMED);
    replica_buffer_append(&fixture->ops, "\xc1", 1);
    assert_int_equal(scan_list(fixture), REPLICA_E_MALFORMED);
}

static void nothing_to_do_needs_nothing(void **state)
{
    struct fixture *fixture = *state;
    struct replica_closure closure;
    assert_int_equal(replica_closure_init(&closure, (const uint8_t *)"\xc1", 1), REPLICA_E_MALFORMED);
    finish(fixture);
    assert_int_equal(replica_closure_init(&closure, fixture->record.data, fixture->record.size), 0);
    assert_int_equal(scan_all(fixture, &closure, 5), 0);
    assert_true(replica_closure_is_filled(&closure));
    assert_int_equal(fixture->visited, 0);
    replica_closure_close(&closure);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything_missing_is_found_and_crossed_off, setup, teardown),
        cmocka_unit_test_setup_teardown(an_op_list_that_is_a_content_comes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_out_of_order_or_count_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_to_do_needs_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
