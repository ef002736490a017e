/* Entries as they come from peers and disks: what is accepted is valid, and packs to what is read back as the
 * same. */
#include "replica/entry.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct replica_pack_reader reader;
    struct replica_entry entry, again;
    struct replica_buffer out;
    replica_pack_reader_init(&reader, data, n);
    if (replica_entry_read(&reader, &entry) != 0)
        return 0;
    assert(replica_entry_check(&entry) == 0);
    replica_buffer_init(&out);
    replica_entry_pack(&out, &entry);
    assert(out.size <= REPLICA_ENTRY_SIZE_MAX);
    replica_pack_reader_init(&reader, out.data, out.size);
    assert(replica_entry_read(&reader, &again) == 0 && replica_pack_reader_finish(&reader) == 0);
    assert(replica_entry_equal(&entry, &again));
    replica_buffer_close(&out);
    return 0;
}
