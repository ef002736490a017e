#include "replica/limit.h"

#include "replica/error.h"

#include <string.h>

bool replica_limit_may_exceed(const struct replica_limits *limits, const struct replica_volume *volume,
                              uint64_t op_count)
{
    uint64_t inodes = replica_volume_state(volume)->totals.inodes;
    /* Names may be more than inodes where files have several, so the bound for a directory counts on ops and inodes both twice. */
    return (limits->inodes_max > 0 && inodes + op_count > limits->inodes_max) ||
           (limits->children_max > 0 && 2 * (inodes + op_count) > limits->children_max);
}

static int end_run(struct replica_limit_check *check, const struct replica_limits *limits,
                   const struct replica_volume *volume, size_t *reads)
{
    struct replica_path dir = {.text = check->run.parent, .size = check->run.parent_size};
    uint64_t n;
    int rv;
    if (!check->run.any || check->run.change <= 0 || limits->children_max == 0) {
        check->run.any = false;
        return 0;
    }
    rv = replica_map_children(replica_volume_map(volume), dir, replica_volume_state(volume)->applied_seq, &n);
    *reads += 1;
    if (rv != 0)
        return rv;
    if (n + (uint64_t)check->run.change > limits->children_max)
        return REPLICA_E_NOSPACE;
    check->run.any = false;
    return 0;
}

static int count_name(struct replica_limit_check *check, const struct replica_limits *limits,
                      const struct replica_volume *volume, struct replica_path path, int change,
                      size_t *reads)
{
    struct replica_path parent, name;
    replica_path_split(path, &parent, &name);
    if (check->run.any &&
        (check->run.parent_size != parent.size || memcmp(check->run.parent, parent.text, parent.size) != 0)) {
        int rv = end_run(check, limits, volume, reads);
        if (rv != 0)
            return rv;
    }
    if (!check->run.any) {
        check->run.any = true;
        check->run.change = 0;
        check->run.parent_size = parent.size;
        if (parent.size > 0)
            memcpy(check->run.parent, parent.text, parent.size);
    }
    check->run.change += change;
    return 0;
}

static int look_at(struct replica_limit_check *check, const struct replica_limits *limits,
                   const struct replica_volume *volume, const struct replica_op *op, size_t *reads)
{
    struct replica_target_name name = {.target = op->target, .path = op->path, .object = op->object};
    struct replica_version before;
    bool was, is = !op->tombstone;
    int rv;
    replica_version_init(&before);
    rv = replica_map_get(replica_volume_map(volume), NULL, &name, replica_volume_state(volume)->applied_seq,
                         &before);
    *reads += 1;
    was = rv == 0 && !before.tombstone;
    if (rv == REPLICA_E_NOTFOUND)
        rv = 0;
    if (rv == 0) {
        check->inodes +=
            (is && op->entry.kind != REPLICA_KIND_LINK) - (was && before.entry.kind != REPLICA_KIND_LINK);
        if (op->target == REPLICA_TARGET_PATH && op->path.size > 0)
            rv = count_name(check, limits, volume, op->path, is - was, reads);
    }
    replica_version_close(&before);
    return rv;
}

int replica_limit_check(struct replica_limit_check *check, const struct replica_limits *limits,
                        const struct replica_volume *volume, const uint8_t *list, size_t n, size_t max,
                        size_t *reads)
{
    struct replica_pack_reader reader;
    int rv = 0;
    replica_pack_reader_init(&reader, list, n);
    reader.offset = check->offset;
    for (size_t i = 0; i < max && reader.offset < reader.size && rv == 0; i++) {
        struct replica_op op;
        rv = replica_op_read(&reader, &op);
        if (rv == 0)
            rv = look_at(check, limits, volume, &op, reads);
    }
    if (rv != 0)
        return rv;
    check->offset = reader.offset;
    if (reader.offset < reader.size)
        return REPLICA_E_AGAIN;
    rv = end_run(check, limits, volume, reads);
    if (rv == 0 && limits->inodes_max > 0 && check->inodes > 0 &&
        replica_volume_state(volume)->totals.inodes + (uint64_t)check->inodes > limits->inodes_max)
        rv = REPLICA_E_NOSPACE;
    return rv;
}
