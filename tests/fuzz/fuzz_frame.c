/* Where a message of the local API ends must not depend on how its bytes come in, nor lie beyond them; what is
 * whole can be stepped over by the reader. */
#include "client/frame.h"
#include "replica/error.h"
#include "replica/pack.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct frame whole, bytewise;
    size_t size = 0, size_bytewise = 0;
    int rv, rv_bytewise = REPLICA_E_AGAIN;
    frame_init(&whole);
    frame_init(&bytewise);
    rv = frame_scan(&whole, data, n, &size);
    for (size_t i = 1; i <= n && rv_bytewise == REPLICA_E_AGAIN; i++)
        rv_bytewise = frame_scan(&bytewise, data, i, &size_bytewise);
    assert(n == 0 || rv == rv_bytewise);
    assert(rv == 0 || rv == REPLICA_E_AGAIN || rv == REPLICA_E_MALFORMED || rv == REPLICA_E_TOOBIG);
    if (rv == 0) {
        struct replica_pack_reader reader;
        assert(size > 0 && size <= n && size <= FRAME_SIZE_MAX && size == size_bytewise);
        replica_pack_reader_init(&reader, data, size);
        if (replica_pack_skip(&reader) == 0) /* utf-8 and the like are the reader's own rules */
            assert(reader.offset == size);
    }
    return 0;
}
