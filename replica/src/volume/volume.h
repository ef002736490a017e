/* The inside of a volume, shared by the volume_*.c files. */
#ifndef REPLICA_SRC_VOLUME_H
#define REPLICA_SRC_VOLUME_H

#include "replica/volume.h"
#include "volume/log.h"

/* The delta being applied: kept between the pieces. */
struct replica_volume_job {
    bool active;
    bool known; /* a second dot for an id changes nothing, but its pins go as any delta's do */
    struct replica_buffer record;
    struct replica_delta delta; /* points into record */
    struct replica_buffer ops;  /* of an op list that lies in a content */
    const uint8_t *list;
    size_t list_size, offset;
    struct replica_totals totals; /* as of the ops applied so far */
    struct replica_map_run run;
};

struct replica_volume_mark {
    bool taken;
    uint64_t seq;
    struct replica_vector applied;
    struct replica_totals totals;
    uint64_t last_commit_ms;
};

struct replica_volume {
    struct replica_volume_state state;
    struct replica_kv *log;
    struct replica_kv *map_kv;
    struct replica_contents *contents;
    struct replica_map map;
    struct replica_id store;
    struct replica_vector durable; /* held, as of the last sync */
    uint64_t order_synced;         /* places up to this are durable */
    uint64_t checkpoint_seq;       /* of the last checkpoint written */
    bool image_unfinished;         /* the map may hold parts of an image that was not adopted */
    struct replica_volume_mark mark;
    struct replica_volume_job job;
};

/* How far the map has come, said in the map itself: so that one that was lost, or is older than the log believes, is noticed. */
void replica_volume_mark_map(const struct replica_volume *volume, uint64_t applied_seq,
                             struct replica_kv_batch *map);
/* Writes the head record: what replica_volume_new reads first. */
void replica_volume_write_head(const struct replica_volume *volume, struct replica_kv_batch *log);

#endif
