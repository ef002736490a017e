/* Delta records: what is decoded packs to what is decoded again, and a volume takes it, or not, without harm.
 */
#include "replica/closure.h"
#include "replica/contents_memory.h"
#include "replica/error.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void visit(void *context, const struct replica_content_id *content, bool missing)
{
    (void)missing;
    assert(content->length <= REPLICA_OPS_SIZE_MAX || content->length <= (uint64_t)1 << 40);
    (*(size_t *)context)++;
}

static void scan(const uint8_t *data, size_t n)
{
    static struct replica_contents *contents;
    static struct replica_closure closure; /* large */
    size_t seen = 0;
    int rv;
    if (contents == NULL && replica_contents_memory_new(&contents) != 0)
        abort();
    if (replica_closure_init(&closure, data, n) != 0)
        return;
    do
        rv = replica_closure_scan(&closure, contents, 3, visit, &seen);
    while (rv == REPLICA_E_AGAIN);
    if (rv == 0 && seen == 0)
        assert(replica_closure_is_filled(&closure));
    replica_closure_close(&closure);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct replica_delta delta, again; /* large */
    struct replica_buffer out;
    scan(data, n);
    if (replica_delta_decode(data, n, &delta) != 0)
        return 0;
    replica_buffer_init(&out);
    replica_delta_pack(&out, &delta);
    if (out.size <= REPLICA_DELTA_SIZE_MAX) {
        assert(replica_delta_decode(out.data, out.size, &again) == 0);
        assert(replica_vector_equal(&delta.deps, &again.deps) && delta.carried_n == again.carried_n &&
               delta.dot.seq == again.dot.seq);
    }
    replica_buffer_close(&out);
    return 0;
}
