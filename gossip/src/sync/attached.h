/* The volumes this node replicates, with what the rooms sync and quorum keep beside each. Owned by peer; the rooms borrow it. */
#ifndef GOSSIP_SRC_ATTACHED_H
#define GOSSIP_SRC_ATTACHED_H

#include "gossip/control.h"
#include "replica/closure.h"
#include "replica/volume.h"

#define ATTACHED_MAX GOSSIP_VOLUMES_MAX /* volumes one node replicates; each holds some KB */
#define READERS_MAX  64 /* nodes remembered that read a volume; beyond, the one remembered first makes room */
#define MARKS_MAX    64 /* unsynced batches remembered one by one; beyond, the newest two merge */

/* What becomes true once a batch is synced. */
struct attached_mark {
    uint64_t batch;
    struct replica_vector held;
    uint64_t ordered_seq;
};

/* What a voter last said that it holds. Counted only under the same epoch and phase. */
struct attached_peer {
    struct replica_id store;
    uint64_t epoch;
    enum gossip_phase phase;
    struct replica_vector held;
};

struct attached_voting; /* quorum's part: closures, waiters, subscriptions */
struct attached_image;  /* sync's part: an image on its way in; see image.h */

struct attached {
    struct replica_id id;
    struct replica_volume *volume;
    /* both rooms */
    struct attached_mark marks[MARKS_MAX];
    size_t marks_n;
    struct replica_vector durable; /* held, as of the last sync: what this voter counts of itself */
    bool applying;                 /* more could be ordered or applied at once */
    uint64_t
        loaded_seq; /* what had a place when this life began: until it is applied again, the map names too little */
    /* sync */
    struct replica_id
        readers[READERS_MAX]; /* asked about this volume, and may read it: whom it is spoken of to */
    size_t readers_n, readers_next;
    struct replica_vector target; /* to be pulled */
    struct replica_id source;     /* asked in the pull in course; zero: none */
    uint64_t pull_deadline_ms;
    bool checkpointing;               /* a checkpoint was taken, the map is being synced */
    struct replica_content_id wanted; /* op list that applying waits for; length 0: none */
    struct attached_image *image;     /* being taken; NULL: none */
    /* quorum */
    struct attached_peer peers[GOSSIP_VOTERS_MAX];
    size_t peers_n;
    struct attached_voting *voting;
};

struct attached_table {
    struct replica_kv *log, *map;
    struct replica_contents *contents;
    struct replica_id self;
    struct attached **items; /* sorted by id */
    size_t n, capacity;
};

void attached_table_init(struct attached_table *table, struct replica_kv *log, struct replica_kv *map,
                         struct replica_contents *contents, const struct replica_id *self);
void attached_table_close(struct attached_table *table, void (*close_voting)(struct attached_voting *voting));

struct attached *attached_find(const struct attached_table *table, const struct replica_id *volume);

/* Attaches for good: a record in the log remembers it. Errors: NOSPACE (too many), CORRUPT, IO, NOMEM. */
int attached_open(struct attached_table *table, const struct replica_id *volume, struct replica_kv_batch *log,
                  struct attached **ret_attached);
/* Attaches what an earlier life had. */
int attached_load(struct attached_table *table);

/* Notes that store asked about the volume, and whether its credential may read it. */
void attached_reader(struct attached *attached, const struct replica_id *store, bool may_read);
bool attached_is_reader(const struct attached *attached, const struct replica_id *store);

/* The volume's held vector or order changed in the step that will be batch `batch`. */
void attached_mark(struct attached *attached, uint64_t batch);
/* Batches up to synced are durable. */
void attached_synced(struct attached *attached, uint64_t synced);

#endif
