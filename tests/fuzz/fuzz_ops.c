/* Op lists: what is walked to the end is in order, and packs to what is walked to the end again. */
#include "replica/delta.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct walk {
    struct replica_buffer out;
    size_t ops;
};

static int visit(void *context, const struct replica_op *op)
{
    struct walk *walk = context;
    if (op->target == REPLICA_TARGET_PATH)
        assert(replica_path_is_canonical(op->path.text, op->path.size));
    replica_op_pack(&walk->out, op);
    walk->ops++;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct walk first = {.ops = 0}, second = {.ops = 0};
    if (replica_ops_each(data, n, visit, &first) == 0) {
        assert(replica_ops_each(first.out.data, first.out.size, visit, &second) == 0);
        assert(first.ops == second.ops && first.out.size == second.out.size);
        assert(first.out.size == 0 || memcmp(first.out.data, second.out.data, first.out.size) == 0);
    }
    replica_buffer_close(&first.out);
    replica_buffer_close(&second.out);
    return 0;
}
