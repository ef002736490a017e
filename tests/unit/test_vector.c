/* Version vectors: a sorted map with a bound, its order, and its encoding. */
#include "replica/vector.h"
#include "replica_support.h"

static void set_raise_get(void **state)
{
    struct replica_vector vector = {.n = 0};
    struct replica_actor a = support_actor(2, 1), b = support_actor(1, 1), c = support_actor(2, 2);
    (void)state;
    assert_true(replica_vector_get(&vector, &a) == 0);
    assert_int_equal(replica_vector_set(&vector, &a, 5), 0);
    assert_int_equal(replica_vector_set(&vector, &c, 7), 0);
    assert_int_equal(replica_vector_set(&vector, &b, 6), 0);
    assert_int_equal(vector.n, 3);
    for (size_t i = 1; i < vector.n; i++)
        assert_true(replica_actor_compare(&vector.entries[i - 1].actor, &vector.entries[i].actor) < 0);
    assert_int_equal(replica_vector_raise(&vector, &a, 4), 0);
    assert_true(replica_vector_get(&vector, &a) == 5);
    assert_int_equal(replica_vector_raise(&vector, &a, 9), 0);
    assert_true(replica_vector_get(&vector, &a) == 9);
    assert_int_equal(replica_vector_set(&vector, &a, 3), 0); /* set lowers */
    assert_true(replica_vector_get(&vector, &a) == 3);
    assert_int_equal(replica_vector_set(&vector, &b, 0), 0);
    assert_int_equal(vector.n, 2);
    assert_true(replica_vector_get(&vector, &b) == 0 && replica_vector_get(&vector, &c) == 7);
    assert_int_equal(replica_vector_set(&vector, &b, 0), 0); /* removing what is not there */
    assert_int_equal(vector.n, 2);
}

static void the_bound_holds(void **state)
{
    struct replica_vector full = {.n = 0}, before, more = {.n = 0};
    struct replica_actor extra = support_actor(1000, 1), first = support_actor(0, 1);
    (void)state;
    for (uint64_t i = 0; i < REPLICA_VECTOR_MAX; i++) {
        struct replica_actor actor = support_actor(i, 1);
        assert_int_equal(replica_vector_set(&full, &actor, i + 1), 0);
    }
    before = full;
    assert_int_equal(replica_vector_set(&full, &extra, 1), REPLICA_E_TOOBIG);
    assert_int_equal(replica_vector_raise(&full, &extra, 1), REPLICA_E_TOOBIG);
    assert_int_equal(replica_vector_set(&more, &first, 100), 0);
    assert_int_equal(replica_vector_set(&more, &extra, 1), 0);
    assert_int_equal(replica_vector_join(&full, &more), REPLICA_E_TOOBIG);
    assert_true(replica_vector_equal(&full, &before)); /* nothing changed, not even what would have fitted */
    assert_int_equal(replica_vector_set(&full, &first, 100), 0);
}

static void the_order_is_partial(void **state)
{
    struct replica_vector a = {.n = 0}, b = {.n = 0}, joined;
    struct replica_actor x = support_actor(1, 1), y = support_actor(2, 1);
    struct replica_dot dot = {.actor = x, .seq = 3};
    (void)state;
    assert_true(replica_vector_covers(&a, &b) && replica_vector_equal(&a, &b));
    replica_vector_set(&a, &x, 3);
    replica_vector_set(&b, &y, 2);
    assert_false(replica_vector_covers(&a, &b) || replica_vector_covers(&b, &a));
    joined = a;
    assert_int_equal(replica_vector_join(&joined, &b), 0);
    assert_true(replica_vector_covers(&joined, &a) && replica_vector_covers(&joined, &b));
    assert_false(replica_vector_equal(&joined, &a));
    assert_true(replica_vector_covers_dot(&a, &dot));
    dot.seq = 4;
    assert_false(replica_vector_covers_dot(&a, &dot));
    dot.actor = y;
    assert_false(replica_vector_covers_dot(&a, &dot));
}

static void round_trip(void **state)
{
    struct replica_vector vector = {.n = 0}, read;
    struct replica_pack_reader reader;
    struct replica_buffer out;
    (void)state;
    replica_buffer_init(&out);
    for (uint64_t i = 0; i <= REPLICA_VECTOR_MAX; i++) {
        struct replica_actor actor = support_actor(i, i);
        replica_buffer_clear(&out);
        replica_vector_pack(&out, &vector);
        replica_pack_reader_init(&reader, out.data, out.size);
        assert_int_equal(replica_vector_read(&reader, &read), 0);
        assert_int_equal(replica_pack_reader_finish(&reader), 0);
        assert_true(replica_vector_equal(&vector, &read));
        if (i < REPLICA_VECTOR_MAX)
            assert_int_equal(replica_vector_set(&vector, &actor, UINT64_MAX - i), 0);
    }
    replica_buffer_close(&out);
}

static int read_dots(size_t items, const struct replica_dot *dots, size_t n)
{
    struct replica_vector read = {.n = 99};
    struct replica_pack_reader reader;
    struct replica_buffer out;
    int rv;
    replica_buffer_init(&out);
    replica_pack_array(&out, items);
    for (size_t i = 0; i < n; i++)
        replica_pack_dot(&out, &dots[i]);
    replica_pack_reader_init(&reader, out.data, out.size);
    rv = replica_vector_read(&reader, &read);
    assert_true(rv == 0 || read.n == 0);
    replica_buffer_close(&out);
    return rv;
}

static void malformed_vectors_are_refused(void **state)
{
    struct replica_dot ordered[] = {{support_actor(1, 1), 1}, {support_actor(2, 1), 1}};
    struct replica_dot unsorted[] = {{support_actor(2, 1), 1}, {support_actor(1, 1), 1}};
    struct replica_dot repeated[] = {{support_actor(1, 1), 1}, {support_actor(1, 1), 2}};
    struct replica_dot zero[] = {{support_actor(1, 1), 0}};
    struct replica_dot many[REPLICA_VECTOR_MAX + 1];
    (void)state;
    for (uint64_t i = 0; i <= REPLICA_VECTOR_MAX; i++)
        many[i] = (struct replica_dot){support_actor(i, 1), 1};
    assert_int_equal(read_dots(4, ordered, 2), 0);
    assert_int_equal(read_dots(4, unsorted, 2), REPLICA_E_MALFORMED);
    assert_int_equal(read_dots(4, repeated, 2), REPLICA_E_MALFORMED);
    assert_int_equal(read_dots(2, zero, 1), REPLICA_E_MALFORMED);
    assert_int_equal(read_dots(3, ordered, 2), REPLICA_E_MALFORMED); /* odd */
    assert_int_equal(read_dots(4, ordered, 1), REPLICA_E_MALFORMED); /* cut */
    assert_int_equal(read_dots(2 * REPLICA_VECTOR_MAX, many, REPLICA_VECTOR_MAX), 0);
    assert_int_equal(read_dots(2 * REPLICA_VECTOR_MAX + 2, many, REPLICA_VECTOR_MAX + 1),
                     REPLICA_E_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_raise_get),
        cmocka_unit_test(the_bound_holds),
        cmocka_unit_test(the_order_is_partial),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(malformed_vectors_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
