/* Merkle trees against RFC 9162 §2.1.1 as it is written down: recursively, split at the largest power of two.
 */
#include "replica/merkle.h"
#include "replica_support.h"

#include <openssl/sha.h>
#include <stdlib.h>

static void naive_root(const uint8_t *data, size_t n, uint8_t ret[32])
{
    size_t leaves = (n + REPLICA_LEAF_SIZE - 1) / REPLICA_LEAF_SIZE, split = 1;
    uint8_t *bytes = malloc(n + 65);
    assert_non_null(bytes);
    if (n == 0) {
        SHA256(data, 0, ret);
    } else if (leaves > 1) {
        while (split * 2 < leaves)
            split *= 2;
        bytes[0] = 1;
        naive_root(data, split * REPLICA_LEAF_SIZE, bytes + 1);
        naive_root(data + split * REPLICA_LEAF_SIZE, n - split * REPLICA_LEAF_SIZE, bytes + 33);
        SHA256(bytes, 65, ret);
    } else {
        bytes[0] = 0;
        memcpy(bytes + 1, data, n);
        SHA256(bytes, n + 1, ret);
    }
    free(bytes);
}

static void contents_have_the_standard_root(void **state)
{
    static const size_t sizes[] = {0,
                                   1,
                                   255,
                                   65535,
                                   65536,
                                   65537,
                                   2 * 65536,
                                   3 * 65536 + 1,
                                   15 * 65536,
                                   1048575,
                                   1048576,
                                   1048577,
                                   2 * 1048576,
                                   3 * 1048576 - 1,
                                   3 * 1048576,
                                   5 * 1048576 + 70000,
                                   9 * 1048576 + 1};
    struct support_random random = {.state = 1};
    uint8_t *data = malloc(10 << 20), root[32];
    (void)state;
    assert_non_null(data);
    support_random_fill(&random, data, 10 << 20);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct replica_content_id id;
        replica_merkle_content(data, sizes[i], &id);
        naive_root(data, sizes[i], root);
        assert_memory_equal(id.root, root, 32);
        assert_true(id.length == sizes[i]);
    }
    free(data);
}

/* The known answer for nothing, so that the naive hashing above is not trusted blindly. */
static void the_empty_content_is_sha256_of_nothing(void **state)
{
    static const uint8_t expected[32] = {0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4,
                                         0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
                                         0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55};
    /* MTH({0x00}) of RFC 6962's test data: one leaf "00" */
    static const uint8_t leaf[32] = {0x96, 0xa2, 0x96, 0xd2, 0x24, 0xf2, 0x85, 0xc6, 0x7b, 0xee, 0x93,
                                     0xc3, 0x0f, 0x8a, 0x30, 0x91, 0x57, 0xf0, 0xda, 0xa3, 0x5d, 0xc5,
                                     0xb8, 0x7e, 0x41, 0x0b, 0x78, 0x63, 0x0a, 0x09, 0xcf, 0xc7};
    struct replica_content_id id;
    (void)state;
    replica_merkle_content("", 0, &id);
    assert_memory_equal(id.root, expected, 32);
    replica_merkle_content("\0", 1, &id);
    assert_memory_equal(id.root, leaf, 32);
}

/* Folding chunk ids and page ids gives the same root as hashing it all at once: pages are subtrees. */
static void pages_and_chunks_are_subtrees(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 1023, 1024, 1025, 2048, 2049, 3000};
    struct support_random random = {.state = 2};
    struct replica_hash *ids = malloc(3000 * sizeof *ids);
    (void)state;
    assert_non_null(ids);
    support_random_fill(&random, ids, 3000 * sizeof *ids);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct replica_hash whole, pages[3], root;
        size_t n = 0;
        replica_merkle_fold(ids, counts[i], &whole);
        for (uint32_t at = 0; at < counts[i]; at += REPLICA_PAGE_CHUNKS)
            replica_merkle_fold(ids + at,
                                counts[i] - at < REPLICA_PAGE_CHUNKS ? counts[i] - at : REPLICA_PAGE_CHUNKS,
                                &pages[n++]);
        replica_merkle_fold(pages, n, &root);
        assert_memory_equal(root.bytes, whole.bytes, 32);
    }
    free(ids);
}

static void zero_chunks(void **state)
{
    static const size_t sizes[] = {1, 65535, 65536, 65537, 3 * 65536, 1048575, 1048576};
    uint8_t *zeros = calloc(1, 1 << 20);
    (void)state;
    assert_non_null(zeros);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct replica_hash cheap, honest;
        replica_merkle_zero_chunk(sizes[i], &cheap);
        replica_merkle_chunk(zeros, sizes[i], &honest);
        assert_memory_equal(cheap.bytes, honest.bytes, 32);
    }
    free(zeros);
}

static void shapes(void **state)
{
    const uint64_t mib = 1 << 20, gib = 1 << 30;
    (void)state;
    assert_int_equal(replica_merkle_chunks(0), 0);
    assert_int_equal(replica_merkle_pages(0), 0);
    assert_int_equal(replica_merkle_chunks(1), 1);
    assert_int_equal(replica_merkle_chunks(mib), 1);
    assert_int_equal(replica_merkle_chunks(mib + 1), 2);
    assert_int_equal(replica_merkle_pages(gib), 1);
    assert_int_equal(replica_merkle_pages(gib + 1), 2);
    assert_int_equal(replica_merkle_pages(REPLICA_CONTENT_SIZE_MAX), 1024);
    assert_int_equal(replica_merkle_chunks(REPLICA_CONTENT_SIZE_MAX), 1 << 20);
    assert_int_equal(replica_merkle_page_chunks(gib + 1, 0), 1024);
    assert_int_equal(replica_merkle_page_chunks(gib + 1, 1), 1);
    assert_int_equal(replica_merkle_page_chunks(5 * mib, 0), 5);
    assert_int_equal(replica_merkle_chunk_size(mib + 7, 0), mib);
    assert_int_equal(replica_merkle_chunk_size(mib + 7, 1), 7);
    assert_int_equal(replica_merkle_chunk_size(2 * mib, 1), mib);
}

static void records_are_verified(void **state)
{
    struct support_random random = {.state = 3};
    struct replica_hash *ids = malloc(2048 * sizeof *ids), pages[2], root;
    struct replica_content_id id = {.length = 2 * (uint64_t)REPLICA_PAGE_SIZE};
    (void)state;
    assert_non_null(ids);
    support_random_fill(&random, ids, 2048 * sizeof *ids);
    replica_merkle_fold(ids, 1024, &pages[0]);
    replica_merkle_fold(ids + 1024, 1024, &pages[1]);
    replica_merkle_fold(pages, 2, &root);
    memcpy(id.root, root.bytes, 32);
    assert_true(replica_merkle_verify_root(&id, pages, 2));
    assert_false(replica_merkle_verify_root(&id, pages, 1));
    assert_true(replica_merkle_verify_page(&pages[1], ids + 1024, 1024));
    assert_false(replica_merkle_verify_page(&pages[1], ids, 1024));
    assert_false(replica_merkle_verify_page(&pages[1], ids, 0));
    assert_false(replica_merkle_verify_page(&pages[1], ids, 1025));
    ids[1500].bytes[31] ^= 1;
    assert_false(replica_merkle_verify_page(&pages[1], ids + 1024, 1024));
    pages[0].bytes[0] ^= 1;
    assert_false(replica_merkle_verify_root(&id, pages, 2));
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_have_the_standard_root),
        cmocka_unit_test(the_empty_content_is_sha256_of_nothing),
        cmocka_unit_test(pages_and_chunks_are_subtrees),
        cmocka_unit_test(zero_chunks),
        cmocka_unit_test(shapes),
        cmocka_unit_test(records_are_verified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
