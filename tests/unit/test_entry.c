/* Entries: every kind there and back, every limit on both sides, every malformed form refused. */
#include "replica/entry.h"
#include "replica/merkle.h"
#include "replica_support.h"

#include <stdlib.h>

static int read_entry(const struct replica_buffer *bytes, struct replica_entry *ret_entry)
{
    struct replica_pack_reader reader;
    int rv;
    replica_pack_reader_init(&reader, bytes->data, bytes->size);
    rv = replica_entry_read(&reader, ret_entry);
    return rv != 0 ? rv : replica_pack_reader_finish(&reader);
}

/* Packs and reads back; equal in meaning, and no prefix of the bytes is an entry. */
static void round_trip(const struct replica_entry *entry)
{
    struct replica_buffer bytes;
    struct replica_entry read;
    size_t full;
    replica_buffer_init(&bytes);
    assert_int_equal(replica_entry_check(entry), 0);
    replica_entry_pack(&bytes, entry);
    assert_true(bytes.size <= REPLICA_ENTRY_SIZE_MAX);
    assert_int_equal(read_entry(&bytes, &read), 0);
    assert_true(replica_entry_equal(entry, &read));
    full = bytes.size;
    for (bytes.size = 0; bytes.size < full; bytes.size += bytes.size < 200 ? 1 : 97)
        assert_int_equal(read_entry(&bytes, &read), REPLICA_E_MALFORMED);
    replica_buffer_close(&bytes);
}

static void every_kind(void **state)
{
    struct replica_entry entry = {.mode = 07777, .uid = UINT32_MAX, .gid = 5, .mtime_ns = -1};
    char target[REPLICA_SYMLINK_MAX];
    (void)state;
    memset(target, 't', sizeof target);
    for (int kind = REPLICA_KIND_DIRECTORY; kind <= REPLICA_KIND_LINK; kind++) {
        entry.kind = (enum replica_kind)kind;
        entry.target = target;
        entry.target_size = sizeof target;
        entry.major = 8;
        entry.minor = UINT32_MAX;
        entry.object = support_id(4, 4);
        round_trip(&entry);
    }
    entry = support_file("hello");
    round_trip(&entry);
    entry = support_file("");
    round_trip(&entry);
    entry = support_content_file(3, REPLICA_CONTENT_SIZE_MAX);
    round_trip(&entry);
    entry.blob = (struct replica_blob){.kind = REPLICA_BLOB_DRAFT, .draft = UINT64_MAX};
    round_trip(&entry);
}

static void pack_xattr(struct replica_buffer *out, const char *name, size_t name_n, size_t value_n)
{
    uint8_t *value = calloc(1, value_n + 1);
    assert_non_null(value);
    replica_pack_str(out, name, name_n);
    replica_pack_bin(out, value, value_n);
    free(value);
}

static int check_xattrs(struct replica_buffer *xattrs)
{
    struct replica_entry entry = support_directory(0755);
    int rv;
    entry.xattrs = xattrs->data;
    entry.xattrs_size = xattrs->size;
    rv = replica_entry_check(&entry);
    if (rv == 0)
        round_trip(&entry);
    replica_buffer_clear(xattrs);
    return rv;
}

static void xattr_limits(void **state)
{
    struct replica_buffer xattrs;
    char name[REPLICA_XATTR_NAME_MAX + 1];
    (void)state;
    memset(name, 'n', sizeof name);
    replica_buffer_init(&xattrs);
    for (size_t n = REPLICA_XATTRS_MAX; n <= REPLICA_XATTRS_MAX + 1; n++) {
        replica_pack_array(&xattrs, 2 * n);
        for (size_t i = 0; i < n; i++)
            pack_xattr(&xattrs, "user.a", 6, 1);
        assert_int_equal(check_xattrs(&xattrs), n == REPLICA_XATTRS_MAX ? 0 : REPLICA_E_INVALID);
    }
    replica_pack_array(&xattrs, 2);
    pack_xattr(&xattrs, name, REPLICA_XATTR_NAME_MAX, REPLICA_XATTR_VALUE_MAX);
    assert_int_equal(check_xattrs(&xattrs), 0);
    replica_pack_array(&xattrs, 2);
    pack_xattr(&xattrs, name, REPLICA_XATTR_NAME_MAX + 1, 1);
    assert_int_equal(check_xattrs(&xattrs), REPLICA_E_INVALID);
    replica_pack_array(&xattrs, 2);
    pack_xattr(&xattrs, name, 1, REPLICA_XATTR_VALUE_MAX + 1);
    assert_int_equal(check_xattrs(&xattrs), REPLICA_E_INVALID);
    replica_pack_array(&xattrs, 2);
    pack_xattr(&xattrs, "", 0, 1);
    assert_int_equal(check_xattrs(&xattrs), REPLICA_E_INVALID);
    replica_pack_array(&xattrs, 2);
    pack_xattr(&xattrs, "a\0b", 3, 1);
    assert_int_equal(check_xattrs(&xattrs), REPLICA_E_INVALID);
    replica_pack_array(&xattrs, 1); /* odd */
    replica_pack_cstr(&xattrs, "a");
    assert_int_equal(check_xattrs(&xattrs), REPLICA_E_INVALID);
    replica_pack_array(&xattrs, 4);
    pack_xattr(&xattrs, "a", 1, REPLICA_XATTR_VALUE_MAX);
    pack_xattr(&xattrs, "b", 1, REPLICA_XATTRS_SIZE_MAX - REPLICA_XATTR_VALUE_MAX - 11);
    assert_int_equal(xattrs.size, REPLICA_XATTRS_SIZE_MAX);
    assert_int_equal(check_xattrs(&xattrs), 0);
    replica_pack_array(&xattrs, 4);
    pack_xattr(&xattrs, "a", 1, REPLICA_XATTR_VALUE_MAX);
    pack_xattr(&xattrs, "b", 1, REPLICA_XATTRS_SIZE_MAX - REPLICA_XATTR_VALUE_MAX - 10);
    assert_int_equal(check_xattrs(&xattrs), REPLICA_E_TOOBIG);
    replica_buffer_append(&xattrs, "\xc1\xc1", 2); /* not MessagePack */
    assert_int_equal(check_xattrs(&xattrs), REPLICA_E_INVALID);
    replica_buffer_close(&xattrs);
}

static void bad_entries_from_apps(void **state)
{
    char long_text[REPLICA_INLINE_MAX + 2];
    struct replica_entry entry;
    (void)state;
    memset(long_text, 'x', sizeof long_text);
    long_text[REPLICA_INLINE_MAX] = '\0';
    entry = support_file(long_text);
    assert_int_equal(replica_entry_check(&entry), 0);
    entry.size++; /* disagrees with the bytes */
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
    long_text[REPLICA_INLINE_MAX] = 'x';
    long_text[REPLICA_INLINE_MAX + 1] = '\0';
    entry = support_file(long_text);
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
    entry = support_content_file(1, 5);
    entry.blob.content.length = 6;
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
    entry = support_content_file(1, REPLICA_CONTENT_SIZE_MAX + 1);
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_TOOBIG);
    entry = support_directory(010000);
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
    entry.kind = 0;
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
    entry.kind = (enum replica_kind)9;
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
    entry = (struct replica_entry){.kind = REPLICA_KIND_SYMLINK};
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID); /* no target */
    entry.target = "a\0b";
    entry.target_size = 3;
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
    entry.target = long_text;
    entry.target_size = REPLICA_SYMLINK_MAX + 1;
    assert_int_equal(replica_entry_check(&entry), REPLICA_E_INVALID);
}

/* One field of an encoded directory is replaced. */
static int read_with(size_t field, uint64_t value, size_t items, size_t extra)
{
    struct replica_buffer bytes;
    struct replica_entry read = {.kind = 0};
    int rv;
    replica_buffer_init(&bytes);
    replica_pack_array(&bytes, items);
    for (size_t i = 0; i < 5; i++)
        replica_pack_uint(&bytes, i == field ? value : i == 0 ? REPLICA_KIND_DIRECTORY : 1);
    replica_pack_bin(&bytes, "", 0);
    for (size_t i = 0; i < extra; i++)
        replica_pack_cstr(&bytes, "of a later version");
    rv = read_entry(&bytes, &read);
    assert_true(rv == 0 || read.kind == 0); /* untouched on failure */
    replica_buffer_close(&bytes);
    return rv;
}

static void fields_are_checked_when_read(void **state)
{
    (void)state;
    assert_int_equal(read_with(9, 0, 6, 0), 0);
    assert_int_equal(read_with(0, 0, 6, 0), REPLICA_E_MALFORMED);
    assert_int_equal(read_with(0, 9, 6, 0), REPLICA_E_MALFORMED);
    assert_int_equal(read_with(1, 07777, 6, 0), 0);
    assert_int_equal(read_with(1, 010000, 6, 0), REPLICA_E_MALFORMED);
    assert_int_equal(read_with(2, UINT32_MAX, 6, 0), 0);
    assert_int_equal(read_with(2, (uint64_t)UINT32_MAX + 1, 6, 0), REPLICA_E_MALFORMED);
    assert_int_equal(read_with(9, 0, 5, 0), REPLICA_E_MALFORMED); /* an item too few */
    assert_int_equal(read_with(9, 0, 8, 2), 0);                   /* unknown fields are stepped over */
    assert_int_equal(read_with(9, 0, 8, 1), REPLICA_E_MALFORMED);
    assert_int_equal(read_with(9, 0, 65, 59), REPLICA_E_MALFORMED);
}

static int stop_at_second(void *context, const char *name, size_t name_n, const uint8_t *value, size_t n)
{
    int *seen = context;
    assert_int_equal(name_n, 1);
    assert_int_equal(name[0], 'a' + *seen);
    assert_int_equal(n, 3);
    assert_non_null(value);
    return ++*seen == 2 ? 77 : 0;
}

static void xattrs_are_visited_in_order(void **state)
{
    struct replica_entry entry = support_directory(0);
    struct replica_buffer xattrs;
    int seen = 0;
    (void)state;
    assert_int_equal(replica_entry_each_xattr(&entry, stop_at_second, &seen), 0);
    assert_int_equal(seen, 0);
    replica_buffer_init(&xattrs);
    replica_pack_array(&xattrs, 6);
    pack_xattr(&xattrs, "a", 1, 3);
    pack_xattr(&xattrs, "b", 1, 3);
    pack_xattr(&xattrs, "c", 1, 3);
    entry.xattrs = xattrs.data;
    entry.xattrs_size = xattrs.size;
    assert_int_equal(replica_entry_each_xattr(&entry, stop_at_second, &seen), 77);
    assert_int_equal(seen, 2);
    replica_buffer_close(&xattrs);
}

static void equality_is_of_every_field(void **state)
{
    struct replica_entry a = support_file("same"), b = support_file("same");
    (void)state;
    assert_true(replica_entry_equal(&a, &b));
    b.mtime_ns++;
    assert_false(replica_entry_equal(&a, &b));
    b = support_file("Same");
    assert_false(replica_entry_equal(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind),
        cmocka_unit_test(xattr_limits),
        cmocka_unit_test(bad_entries_from_apps),
        cmocka_unit_test(fields_are_checked_when_read),
        cmocka_unit_test(xattrs_are_visited_in_order),
        cmocka_unit_test(equality_is_of_every_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
