/* peer: one node's whole protocol. Owns the rooms and the volumes, routes events to them and their notes to each other, and does
 * nothing else. The node and the simulator both drive exactly this. */
#ifndef GOSSIP_PEER_H
#define GOSSIP_PEER_H

#include "gossip/control.h"
#include "gossip/quorum.h"
#include "gossip/swarm.h"
#include "gossip/sync.h"

struct gossip_peer_options {
    struct gossip_member_options member;
    struct gossip_control_options control;
    struct gossip_sync_options sync;
    struct gossip_quorum_options quorum;
    struct gossip_swarm_options swarm;
    struct gossip_member_record self;  /* store, generation, endpoint, roles … */
    struct gossip_principal principal; /* our own credential */
    const char *const *join;           /* borrowed for the call */
    size_t join_n;
    uint64_t
        contents_limit; /* bytes of contents; cached ones are let go of in good time before it; 0: none */
    uint64_t seed;
};
/* Every room's defaults; self, principal and join are the caller's. */
void gossip_peer_options_default(struct gossip_peer_options *options);

struct gossip_peer;

/* log, map and contents are borrowed, outlive the peer, and are read by it; only the shell writes them (contents: also the peer, by
 * ingest, begin and remove). Loads what an earlier life stored, then expects a START event. Errors: CORRUPT, VERSION, IO, NOMEM. */
int gossip_peer_new(const struct gossip_peer_options *options, struct replica_kv *log, struct replica_kv *map,
                    struct replica_contents *contents, struct gossip_peer **ret_peer);
void gossip_peer_destroy(struct gossip_peer **peer);

enum gossip_peer_request_kind {
    GOSSIP_PEER_CONTROL, /* control: the volume registry and `cluster init`; its token is set from this one */
    GOSSIP_PEER_VIEW_OPEN, /* view_options (id may be zero: one is drawn; snapshot and vector are set here) → view id, apply_seq */
    GOSSIP_PEER_VIEW_CLOSE, /* view */
    GOSSIP_PEER_VIEW_EDIT, /* view, edit: called in a step until it does not return AGAIN; its result is the answer. Edits of one view are
                               carried out one after the other, in the order of their requests */
    GOSSIP_PEER_COMMIT,    /* view → commit result (gossip/quorum.h) */
    GOSSIP_PEER_RELOAD,    /* view, mode, at_least → reload result (gossip/quorum.h) */
    GOSSIP_PEER_OFFER, /* volume, offered: contents that a commit will name soon start their way to the voters → nothing, at once */
    GOSSIP_PEER_FETCH, /* volume, content, first, count (0: all) → nothing, when present */
    GOSSIP_PEER_CANCEL, /* token of an earlier request whose caller has gone; no answer */
};

struct gossip_peer_request {
    enum gossip_peer_request_kind kind;
    uint64_t token; /* unique among those not yet finally answered; not 0 */
    struct gossip_control_request control;
    struct replica_view_options view_options;
    struct replica_id view;
    struct replica_id volume;
    enum gossip_reload_mode mode;
    struct gossip_token at_least;
    uint32_t timeout_ms; /* CONTROL, VIEW_OPEN, COMMIT, RELOAD: without progress; 0: the room's default */
    struct replica_content_id content;
    uint32_t first, count;
    const struct replica_content_id *offered; /* OFFER: borrowed for the step */
    size_t offered_n;
    int (*edit)(void *context, struct replica_view *view, struct replica_kv_batch *log);
    void *context; /* borrowed until the final answer */
    bool
        durable; /* EDIT: the answer waits until what was written is synced, contents that are filled included */
};

enum gossip_peer_event_kind {
    GOSSIP_PEER_EVENT_START,
    GOSSIP_PEER_EVENT_TIMER,
    GOSSIP_PEER_EVENT_MESSAGE,    /* room, message */
    GOSSIP_PEER_EVENT_SYNCED,     /* batches up to synced are durable */
    GOSSIP_PEER_EVENT_REQUEST,    /* request, borrowed until the step returns (its edit context longer) */
    GOSSIP_PEER_EVENT_SETTLED,    /* view, draft: became content (or inline bytes), or code */
    GOSSIP_PEER_EVENT_PIECE,      /* source, content, piece, bytes, code */
    GOSSIP_PEER_EVENT_UPLOADED,   /* source: the receiver, content, piece, bytes, code */
    GOSSIP_PEER_EVENT_RESOLVED,   /* endpoints of the --join names, resolved anew */
    GOSSIP_PEER_EVENT_MAP_SYNCED, /* the map kv is durable as of when the update's map_mark was taken */
    GOSSIP_PEER_EVENT_CAPACITY, /* bytes: how much this store can still take: a hint for placement, and how much may be cached */
    GOSSIP_PEER_EVENT_DAMAGED, /* content: the shell found its bytes damaged, and let go of them. Said again now and then until it is whole */
    GOSSIP_PEER_EVENT_LEAVE,   /* the process ends in order: the others are told; seats stay */
    GOSSIP_PEER_EVENT_FAILED, /* code: a write or sync failed. From now on this peer neither votes nor writes: it is a member, gives
                                 contents away, and takes requests to read what is here (VIEW_OPEN with mode LOCAL, closing such a view,
                                 FETCH); others are answered with code. Commits, reloads, openings and control requests under way are
                                 not answered any more: the shell does */
};
struct gossip_peer_event {
    enum gossip_peer_event_kind kind;
    struct gossip_time time;
    uint64_t batch;  /* number that the update of this step will get */
    uint64_t synced; /* every batch up to this is durable */
    enum gossip_room room;
    struct gossip_message message;
    const struct gossip_peer_request *request;
    struct replica_id view;
    uint64_t draft;
    struct replica_blob blob;
    uint64_t size;
    struct replica_id source;
    struct replica_content_id content;
    struct replica_piece piece;
    uint64_t bytes;
    int code;
    const char *const *endpoints;
    size_t endpoints_n;
};
/* Bad messages are counted and dropped, never an error. Errors: NOMEM, IO, CORRUPT: the shell must stop. */
int gossip_peer_step(struct gossip_peer *peer, const struct gossip_peer_event *event,
                     struct gossip_update *update);

/* Read-only access for the shell's own answers (status, listings); valid between steps. */
const struct gossip_member *gossip_peer_member(const struct gossip_peer *peer);
const struct gossip_control *gossip_peer_control(const struct gossip_peer *peer);
const struct gossip_swarm *gossip_peer_swarm(const struct gossip_peer *peer);
struct replica_views *gossip_peer_views(const struct gossip_peer *peer);
/* The volume's replica here; NULL if it is not attached (yet). */
struct replica_volume *gossip_peer_volume(const struct gossip_peer *peer, const struct replica_id *id);
/* Deltas that earlier lives had put in order and the map does not show yet: views of a later snapshot show too little. */
uint64_t gossip_peer_behind(const struct gossip_peer *peer,
                            const struct replica_id *volume); /* NULL: of all */
uint64_t
gossip_peer_malformed(const struct gossip_peer *peer); /* messages dropped as malformed or not allowed */

#endif
