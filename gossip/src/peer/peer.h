/* The inside of a peer: its rooms, and what it routes. */
#ifndef GOSSIP_SRC_PEER_H
#define GOSSIP_SRC_PEER_H

#include "gossip/peer.h"
#include "quorum/quorum.h"
#include "sync/attached.h"
#include "sync/sync.h"

#define EDITS_MAX 1024 /* edits of views under way; more are refused as BUSY */

struct peer_edit {
    uint64_t token; /* 0: its caller has gone */
    struct replica_id view;
    int (*edit)(void *context, struct replica_view *view, struct replica_kv_batch *log);
    void *context;
    bool durable; /* the answer waits for the sync */
    bool closing; /* no edit: the view is being closed */
};

#define COLLECT_UNNAMED_MAX 4096 /* remembered from pass to pass; what is beyond waits for a later one */

/* Collection of contents that nothing names. */
struct peer_collect {
    struct replica_content_id after; /* the last one looked at in this pass */
    bool begun;
    uint64_t at_ms;
    struct replica_content_id before[COLLECT_UNNAMED_MAX],
        now[COLLECT_UNNAMED_MAX]; /* found unnamed in the last pass, in this one */
    size_t before_n, now_n;
};

#define EVICT_RECENT 256 /* contents that came in last, spared: a reader may be about to open them */

/* Letting go of cached contents. */
struct peer_evict {
    uint64_t limit; /* bytes of contents; 0: never evict */
    uint64_t at_ms;
    struct replica_content_id after;
    bool begun, found; /* found: this pass let go of something */
    struct replica_content_id recent[EVICT_RECENT];
    size_t recent_at, spared; /* spared: how many of them */
    bool pressed;             /* nothing more can be taken: others want the room */
};

struct gossip_peer {
    struct gossip_principal principal;
    struct replica_id self;
    struct replica_kv *log, *map;
    struct replica_contents *contents;
    struct gossip_member *member;
    struct gossip_control *control;
    struct gossip_swarm *swarm;
    struct replica_views *views;
    struct attached_table table;
    struct gossip_sync sync;
    struct gossip_quorum quorum;
    struct gossip_random random;
    struct peer_edit edits[EDITS_MAX];
    size_t edits_n, edits_turn;
    uint64_t malformed;
    int failed; /* the code with which the store failed; 0: it did not */
    struct peer_collect collect;
    struct peer_evict evict;
};

int peer_request(struct gossip_peer *peer, const struct gossip_peer_event *event,
                 struct gossip_update *update);
/* One call of one edit. */
int peer_edit_some(struct gossip_peer *peer, struct gossip_update *update);

/* The store failed. Ends all edits. */
void peer_fail(struct gossip_peer *peer, int code, struct gossip_update *update);
/* Whether an event still concerns a peer whose store has failed; requests that do not are answered. */
bool peer_failed_takes(struct gossip_peer *peer, const struct gossip_peer_event *event,
                       struct gossip_update *update);

/* Removes contents that nothing names any more, a few per step. */
int peer_collect(struct gossip_peer *peer, struct gossip_time time, struct gossip_update *update);
/* Lets go of cached contents while there are too many bytes, a few per step. */
int peer_evict(struct gossip_peer *peer, struct gossip_time time, struct gossip_update *update);
/* Makes room for content, which is wanted now, as far as that can be done at once. */
int peer_evict_room(struct gossip_peer *peer, const struct replica_content_id *content,
                    struct gossip_update *update);
/* So many more bytes can be taken: what was room before may have been taken by others on the disk. */
void peer_evict_within(struct gossip_peer *peer, uint64_t free_bytes);
void peer_evict_touch(struct gossip_peer *peer, const struct replica_content_id *content);
/* A content was found damaged, and let go of: it is fetched again if this store must hold it. */
int peer_heal(struct gossip_peer *peer, const struct replica_content_id *content,
              struct gossip_update *update);
/* Whether a map version, a view, a pin, a commit in flight or an offer of that volume (NULL: of any) names content. Four seeks. */
int peer_refers(struct gossip_peer *peer, const struct replica_id *volume,
                const struct replica_content_id *content, bool *ret_refers);

#endif
