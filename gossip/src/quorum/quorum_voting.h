/* What the parts of a voter share (quorum_voter.c routes to them):
 *   quorum_count.c     what a majority holds
 *   quorum_proposals.c what is kept for writers until it is minted or given up
 *   quorum_prepare.c   proposals whose closures are being brought here
 *   quorum_mint.c      minting, replicating, outcomes
 *   quorum_hold.c      from stored to held; telling readers and coordinators */
#ifndef GOSSIP_SRC_QUORUM_VOTING_H
#define GOSSIP_SRC_QUORUM_VOTING_H

#include "quorum/quorum.h"
#include "replica/limit.h"

/* A proposal whose closure is being brought here for a writer. */
struct prepare {
    struct replica_id commit, writer;
    struct replica_closure closure;
    uint64_t report_at_ms;
    uint64_t arrived; /* bytes of it that came in since this prepare began: the writer's progress */
    bool no_room;     /* something of it does not fit here; until a piece comes in again */
    struct replica_limit_check *limit; /* NULL: within the limits */
    bool done;
};

/* A stored delta whose closure is being checked on the way to being held. */
struct ahead {
    struct replica_dot dot;
    struct replica_id commit;
    bool proposed; /* it is the proposal kept here under its id */
    struct replica_closure closure;
};

struct waiter {
    struct replica_id commit, writer;
    struct replica_dot dot;
};

struct follower {
    struct replica_id reader;
    uint64_t round;
    struct replica_vector target;
};

struct kept;    /* quorum_proposals.c */
struct release; /* quorum_proposals.c */

struct attached_voting {
    struct kept *kept; /* proposals that nobody has minted yet */
    size_t kept_n, kept_capacity;
    struct release *releases;
    uint64_t ask_at_ms;
    struct prepare *prepares;
    size_t prepares_n, prepares_capacity;
    struct replica_id *prepared; /* ring of commit ids whose closure was complete here, in the epoch below */
    size_t prepared_n, prepared_next;
    uint64_t prepared_epoch;
    struct ahead *aheads;
    size_t aheads_n;
    struct waiter *waiters;
    size_t waiters_n;
    struct follower *followers;
    size_t followers_n;
    uint64_t announce_at_ms; /* tells other voters what is held but not known to be committed */
    bool busy;               /* closures are left to scan */
};

/* quorum_count.c: what became committed by all that is known. */
int voting_count(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_volume *volume,
                 struct gossip_update *update);
/* Pulls what of wanted this voter lacks and some voter says that it has: an absurd vector must not make it pull for ever. */
void voting_want(struct attached *attached, const struct replica_vector *wanted,
                 const struct replica_id *holder, struct gossip_update *update);
/* quorum_proposals.c: keeps a proposal in the log, within its writer's bounds. Errors: BUSY (beyond them), STALE (given up by
 * its writer), MALFORMED, MISMATCH, IO, NOMEM. */
int voting_keep(struct attached *attached, const struct replica_delta *delta, const uint8_t *record, size_t n,
                struct gossip_time time, struct gossip_update *update);
/* That id has a dot here: what was pinned for it is the delta's now. */
void voting_minted(struct attached_voting *voting, const struct replica_id *commit);
int voting_load_proposals(struct attached *attached);
void voting_close_proposals(struct attached_voting *voting);
int voting_receive_abandon(const struct gossip_quorum_event *event, struct replica_pack_reader *reader,
                           struct attached *attached, struct gossip_update *update);
int voting_release_some(struct gossip_quorum *quorum, struct attached *attached,
                        struct gossip_update *update);
int voting_ask_writers(struct attached *attached, const struct gossip_volume *volume, struct gossip_time time,
                       struct gossip_update *update);
/* quorum_prepare.c */
int voting_receive_prepare(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                           struct replica_pack_reader *reader, struct attached *attached,
                           const struct gossip_volume *volume, struct gossip_update *update);
int voting_continue_prepares(struct gossip_quorum *quorum, struct attached *attached,
                             const struct gossip_volume *volume, struct gossip_time time,
                             struct gossip_update *update);
void voting_close_prepare(struct prepare *prepare);
/* Ends the prepare of that commit, if there is one, and forgets that it was prepared; *ret_closure: zeroed by the caller, its to
 * close. */
void voting_take_prepare(struct attached_voting *voting, const struct replica_id *commit,
                         struct replica_closure *ret_closure);
/* content was here, and is not any more: what needs it is neither minted nor acked before it is here again. */
int voting_lose(struct attached *attached, const struct replica_content_id *content,
                struct gossip_update *update);
/* How its proposal stands, unless a prepare in course tells it anyway. */
void voting_tell_writer(struct attached *attached, const struct gossip_volume *volume,
                        const struct replica_id *commit, const struct replica_id *writer,
                        struct gossip_time time, struct gossip_update *update);
/* Whether the closure of that commit was complete here in that epoch. */
bool voting_is_prepared(const struct attached_voting *voting, uint64_t epoch,
                        const struct replica_id *commit);
/* Scans a bounded piece of a closure: pins what it names, wants what is missing (source surely has it). AGAIN: more is left. */
int voting_scan(struct gossip_quorum *quorum, struct attached *attached, struct replica_closure *closure,
                const struct replica_id *source, struct gossip_update *update);
/* quorum_mint.c */
int voting_receive_mint(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct replica_pack_reader *reader, struct attached *attached,
                        const struct gossip_volume *volume, struct gossip_update *update);
int voting_receive_replicate(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                             struct replica_pack_reader *reader, struct attached *attached,
                             const struct gossip_volume *volume, struct gossip_update *update);
/* Outcomes of what is committed by now. */
void voting_tell_waiters(struct attached *attached, struct gossip_update *update);
/* quorum_hold.c */
int voting_hold_more(struct gossip_quorum *quorum, struct attached *attached,
                     const struct gossip_volume *volume, uint64_t batch, struct gossip_update *update);
int voting_receive_ask(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                       struct replica_pack_reader *reader, struct attached *attached,
                       const struct gossip_volume *volume, struct gossip_update *update);
void voting_send_held(const struct attached *attached, const struct gossip_configuration *configuration,
                      const struct replica_id *to, uint64_t round, struct gossip_update *update);
void voting_send_held_to_voters(const struct attached *attached,
                                const struct gossip_configuration *configuration,
                                const struct replica_id *self, struct gossip_update *update);
/* Other voters say that they hold more: what those wait for may be there. */
void voting_follow(struct attached *attached, struct gossip_update *update);
/* reader is told once target is held here. */
void voting_add_follower(struct gossip_quorum *quorum, struct attached_voting *voting,
                         const struct replica_id *reader, uint64_t round,
                         const struct replica_vector *target);

#endif
