/* MessagePack: a vector if it is one, and any item stepped over, never past the end. */
#include "replica/vector.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_vector(const uint8_t *data, size_t n)
{
    static struct replica_vector vector, again;
    struct replica_pack_reader reader;
    struct replica_buffer out;
    replica_pack_reader_init(&reader, data, n);
    if (replica_vector_read(&reader, &vector) != 0) {
        assert(vector.n == 0);
        return;
    }
    for (size_t i = 0; i < vector.n; i++) {
        assert(vector.entries[i].seq > 0);
        assert(i == 0 || replica_actor_compare(&vector.entries[i - 1].actor, &vector.entries[i].actor) < 0);
    }
    replica_buffer_init(&out);
    replica_vector_pack(&out, &vector);
    replica_pack_reader_init(&reader, out.data, out.size);
    assert(replica_vector_read(&reader, &again) == 0 && replica_vector_equal(&vector, &again));
    replica_buffer_close(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct replica_pack_reader reader;
    replica_pack_reader_init(&reader, data, n);
    while (replica_pack_skip(&reader) == 0)
        assert(reader.offset <= reader.size);
    assert(reader.failed);
    read_vector(data, n);
    return 0;
}
