#include "replica/limit.h"

#include "map/map.h"
#include "replica/error.h"

bool replica_limit_may_exceed(const struct replica_limits *limits, const struct replica_volume *volume,
                              uint64_t op_count)
{
    uint64_t inodes = replica_volume_state(volume)->totals.inodes;
    /* Names may be more than inodes where files have several, so the bound for a directory counts on ops and inodes both twice. */
    return (limits->inodes_max > 0 && inodes + op_count > limits->inodes_max) ||
           (limits->children_max > 0 && 2 * (inodes + op_count) > limits->children_max);
}

struct checking {
    struct replica_limit_check *check;
    const struct replica_limits *limits;
    const struct replica_volume *volume;
    size_t *reads;
};

/* Whether a directory has room for what one proposal adds to it. */
static int check_children(void *context, struct replica_path dir, int64_t change)
{
    const struct checking *checking = context;
    uint64_t n;
    int rv;
    if (change <= 0 || checking->limits->children_max == 0)
        return 0;
    rv = replica_map_children(replica_volume_map(checking->volume), dir,
                              replica_volume_state(checking->volume)->applied_seq, &n);
    *checking->reads += 1;
    if (rv != 0)
        return rv;
    return n + (uint64_t)change > checking->limits->children_max ? REPLICA_E_NOSPACE : 0;
}

static int look_at(struct checking *checking, const struct replica_op *op)
{
    const struct replica_volume *volume = checking->volume;
    struct replica_target_name name = {.target = op->target, .path = op->path, .object = op->object};
    struct replica_version before;
    bool was, is = !op->tombstone;
    int rv;
    replica_version_init(&before);
    rv = replica_map_get(replica_volume_map(volume), NULL, &name, replica_volume_state(volume)->applied_seq,
                         &before);
    *checking->reads += 1;
    was = rv == 0 && !before.tombstone;
    if (rv == REPLICA_E_NOTFOUND)
        rv = 0;
    if (rv == 0) {
        checking->check->inodes +=
            (is && op->entry.kind != REPLICA_KIND_LINK) - (was && before.entry.kind != REPLICA_KIND_LINK);
        if (op->target == REPLICA_TARGET_PATH && op->path.size > 0)
            rv = map_run_add(&checking->check->run, op->path, is - was, check_children, checking);
    }
    replica_version_close(&before);
    return rv;
}

int replica_limit_check(struct replica_limit_check *check, const struct replica_limits *limits,
                        const struct replica_volume *volume, const uint8_t *list, size_t n, size_t max,
                        size_t *reads)
{
    struct checking checking = {check, limits, volume, reads};
    struct replica_pack_reader reader;
    int rv = 0;
    replica_pack_reader_init(&reader, list, n);
    reader.offset = check->offset;
    for (size_t i = 0; i < max && reader.offset < reader.size && rv == 0; i++) {
        struct replica_op op;
        rv = replica_op_read(&reader, &op);
        if (rv == 0)
            rv = look_at(&checking, &op);
    }
    if (rv != 0)
        return rv;
    check->offset = reader.offset;
    if (reader.offset < reader.size)
        return REPLICA_E_AGAIN;
    rv = map_run_end(&check->run, check_children, &checking);
    if (rv == 0 && limits->inodes_max > 0 && check->inodes > 0 &&
        replica_volume_state(volume)->totals.inodes + (uint64_t)check->inodes > limits->inodes_max)
        rv = REPLICA_E_NOSPACE;
    return rv;
}
