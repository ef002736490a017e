/* The room sync, as peer and quorum's tests see it. */
#ifndef GOSSIP_SRC_SYNC_H
#define GOSSIP_SRC_SYNC_H

#include "gossip/member.h"
#include "gossip/sync.h"
#include "sync/attached.h"

struct gossip_sync {
    struct gossip_sync_options options;
    struct attached_table *table;         /* borrowed */
    const struct gossip_member *member;   /* borrowed */
    const struct gossip_control *control; /* borrowed */
    struct replica_id self;
    struct gossip_random random;
    uint64_t digest_at_ms;
    bool map_syncing;   /* one was ordered and has not come back */
    size_t digest_turn; /* where the next digest starts, if not all volumes fit in one */
};

void gossip_sync_init(struct gossip_sync *sync, const struct gossip_sync_options *options,
                      struct attached_table *table, const struct gossip_member *member,
                      const struct gossip_control *control, const struct replica_id *self, uint64_t seed);

enum gossip_sync_event_kind {
    GOSSIP_SYNC_EVENT_TIMER,
    GOSSIP_SYNC_EVENT_MESSAGE,
    GOSSIP_SYNC_EVENT_PULL,      /* volume, store: bring the volume up to its target; store has it */
    GOSSIP_SYNC_EVENT_COMMITTED, /* volume: its committed vector rose */
    GOSSIP_SYNC_EVENT_STORED,    /* volume: deltas were added to the log */
    GOSSIP_SYNC_EVENT_HAVE,      /* content is filled here */
    GOSSIP_SYNC_EVENT_SYNCED,
    GOSSIP_SYNC_EVENT_MAP_SYNCED,
};
struct gossip_sync_event {
    enum gossip_sync_event_kind kind;
    struct gossip_time time;
    uint64_t batch, synced;
    struct gossip_message message;
    struct replica_id volume, store;
    struct replica_content_id content;
};
/* Errors: MALFORMED (a message; nothing changed), IO, CORRUPT, NOMEM. */
int gossip_sync_step(struct gossip_sync *sync, const struct gossip_sync_event *event,
                     struct gossip_update *update);

/* Adds a delta record of a peer to the log, with what it carries; EXISTS and STALE as replica_volume_store. */
int gossip_sync_store(struct gossip_sync *sync, struct attached *attached, const uint8_t *record, size_t n,
                      struct gossip_update *update);

/* Orders a sync of the map; false while an earlier one is on its way, whose end must not be taken for that of a later one. What is to be
 * covered must be in batches of earlier steps or of this one. */
bool sync_map(struct gossip_sync *sync, struct gossip_update *update);

/* Whether store is among the volume's voters now. */
bool gossip_sync_is_voter(const struct gossip_control *control, const struct replica_id *volume,
                          const struct replica_id *store);
/* Whether what principal says about the volume counts: its store is among the voters, under a credential that may vote. */
bool gossip_sync_from_voter(const struct gossip_control *control, const struct replica_id *volume,
                            const struct gossip_principal *principal);

#endif
