/* The inside of the control room. One struct, one file per concern:
 *
 *   control.c            making, routing of events, reading
 *   control_begin.c      how a cluster begins: the promises of --expect, adopting a cluster that was found
 *   control_init.c       how it begins by `cluster init`: with the consent of those who are known
 *   control_raft.c       terms, votes, elections, check-quorum
 *   control_replicate.c  the log from leader to followers, commit, application
 *   control_snapshot.c   the registry for a follower that the log cannot serve any more
 *   control_log.c        the log and Raft's hard state, in memory and on disk
 *   control_registry.c   the state machine: volumes by id and by name, and what became of recent proposals
 *   control_apply.c      what each kind of proposal does to it
 *   control_record.c     records: volumes, proposals, outcomes
 *   control_place.c      the voters of a new volume
 *   control_copy.c       copies of the registry for everybody who is not a member
 *   control_request.c    proposals on their way to the leader, and their outcomes on the way back
 *
 * The registry on disk is always the state at registry.index, so a snapshot is what is there, and compaction
 * only cuts the log. Batches become durable in order, so after a crash the registry never runs ahead of what
 * was synced before it. */
#ifndef GOSSIP_SRC_CONTROL_H
#define GOSSIP_SRC_CONTROL_H

#include "gossip/control.h"
#include "replica/error.h"

#define CONTROL_OUTCOMES_MAX    1024 /* proposals remembered; older ones are refused, never applied twice */
#define CONTROL_PENDING_MAX     1024 /* local requests under way; more are BUSY */
#define CONTROL_WAITERS_MAX     1024 /* proposers to be told; one that is forgotten asks again */
#define CONTROL_UNCOMMITTED_MAX 1024 /* entries; a proposal beyond waits at its proposer */
#define CONTROL_ENTRY_MAX       2048 /* bytes of one proposal: names, nine voters, and room for a newer version */
#define CONTROL_PIECE_MAX       (128 * 1024) /* bytes of entries, volumes or snapshot in one message */
#define CONTROL_ENTRIES_MAX     1024         /* in one message */
#define CONTROL_SNAPSHOT_MAX    (4u << 20) /* 4096 volumes of 400 bytes and 1024 outcomes of 60, with room */
#define CONTROL_MARKS_MAX       64         /* unsynced batches with entries; beyond, the newest two merge */
#define CONTROL_FRESH_MAX       16         /* nodes remembered that wait for the same beginning */
#define CONTROL_INIT_ASKED_MAX  64         /* nodes whose consent an init asks for, as many as --join names */
#define CONTROL_APPLY_MAX       256        /* entries applied in one step */
#define CONTROL_NUMBER_MAX      (UINT64_MAX >> 2) /* terms and indexes: what a peer claims never wraps around */
#define CONTROL_WAITING_MAX     256

enum control_message {
    CONTROL_PULL = 1,
    CONTROL_STATE,
    CONTROL_FRESH,
    CONTROL_ASK,
    CONTROL_PROMISE,
    CONTROL_PREVOTE,
    CONTROL_PREVOTED,
    CONTROL_VOTE,
    CONTROL_VOTED,
    CONTROL_APPEND,
    CONTROL_APPENDED,
    CONTROL_SNAPSHOT,
    CONTROL_SNAPSHOTTED,
    CONTROL_WHO,
    CONTROL_LEADER,
    CONTROL_PROPOSE,
    CONTROL_OUTCOME,
    CONTROL_NEWS,
};

/* Proposals: entries of the log */

enum control_kind {
    CONTROL_NOOP, /* the first entry of each term */
    CONTROL_CREATE,
    CONTROL_RENAME,
    CONTROL_DELETE,
    CONTROL_UNDELETE,
    CONTROL_LOOKUP, /* changes nothing */
    CONTROL_EXPIRE, /* volumes deleted a day before time_ms go for good */
    CONTROL_KINDS
};

struct control_proposal {
    enum control_kind kind;
    struct replica_id id; /* random; applied once */
    uint64_t
        base; /* the proposer's registry.index when it first proposed this: see control_registry.forgotten */
    char name[GOSSIP_VOLUME_NAME_MAX + 1];
    char new_name[GOSSIP_VOLUME_NAME_MAX + 1];
    uint32_t version; /* CREATE: 0: 2, or whatever exists */
    bool if_missing;
    uint32_t voters_wanted;
    struct replica_id creator;
    /* set by the leader */
    uint64_t time_ms;
    struct replica_id volume;
    size_t voters_n;
    struct replica_id voters[GOSSIP_VOTERS_MAX];
};

struct control_outcome {
    struct replica_id id;
    uint64_t index; /* of the entry */
    int code;
    struct replica_id volume;
};

bool control_name_valid(const char *name);
bool control_code_valid(int code); /* whether the state machine has such an outcome */
void control_volume_pack(struct replica_buffer *out, const struct gossip_volume *volume);
int control_volume_read(struct replica_pack_reader *reader, struct gossip_volume *ret_volume);
void control_proposal_pack(struct replica_buffer *out, const struct control_proposal *proposal);
int control_proposal_decode(const uint8_t *data, size_t n, struct control_proposal *ret_proposal);
void control_outcome_pack(struct replica_buffer *out, const struct control_outcome *outcome);
int control_outcome_read(struct replica_pack_reader *reader, struct control_outcome *ret_outcome);
/* Steps over the fields that a newer version added to an array of which `known` were read. */
void control_skip(struct replica_pack_reader *reader, size_t n, size_t known);

/* The registry */

struct control_registry {
    struct gossip_volume **by_id, **by_name; /* by_name: by name, the live one first */
    size_t n, capacity;
    uint64_t index;                                        /* of the last entry applied */
    uint64_t term;                                         /* of that entry; on copies 0 */
    struct control_outcome outcomes[CONTROL_OUTCOMES_MAX]; /* a ring */
    size_t outcomes_n, outcomes_next;
    /* Index of the newest outcome that the ring lost. A proposal whose base is older may have been applied
     * already, and is refused; one whose base is not older and that is not in the ring never was. */
    uint64_t forgotten;
};

void control_registry_close(struct control_registry *registry);
struct gossip_volume *control_registry_find(const struct control_registry *registry,
                                            const struct replica_id *id);
struct gossip_volume *control_registry_find_name(const struct control_registry *registry, const char *name);
/* Of the deleted volumes of that name the one that was deleted last. */
struct gossip_volume *control_registry_find_deleted(const struct control_registry *registry,
                                                    const char *name);
/* Adds or replaces by id (copied). Errors: NOMEM. */
int control_registry_put(struct control_registry *registry, const struct gossip_volume *volume);
void control_registry_remove(struct control_registry *registry, const struct replica_id *id);
const struct control_outcome *control_registry_outcome(const struct control_registry *registry,
                                                       const struct replica_id *id);
/* Returns the slot that it took. */
size_t control_registry_remember(struct control_registry *registry, const struct control_outcome *outcome);

int control_registry_load(struct control_registry *registry, struct replica_kv *log);
void control_registry_write_volume(const struct gossip_volume *volume, struct gossip_update *update);
void control_registry_erase_volume(const struct replica_id *id, struct gossip_update *update);
void control_registry_write_state(const struct control_registry *registry, struct gossip_update *update);
void control_registry_write_outcome(const struct control_registry *registry, size_t slot,
                                    struct gossip_update *update);

/* The log */

struct control_entry {
    uint64_t term;
    struct replica_id id; /* of the proposal */
    uint8_t *bytes;
    size_t size;
};

struct control_mark {
    uint64_t batch, index;
};

struct control_log {
    struct control_entry *entries; /* base_index + 1, … */
    size_t n, capacity;
    uint64_t base_index, base_term; /* of the last entry that was cut away */
    uint64_t durable;               /* entries up to this are on this disk */
    struct control_mark marks[CONTROL_MARKS_MAX];
    size_t marks_n;
};

/* Raft */

enum control_role { CONTROL_FOLLOWER, CONTROL_PRECANDIDATE, CONTROL_CANDIDATE, CONTROL_LEADING };

/* What a member knows of another. */
struct control_peer {
    bool granted;
    uint64_t heard_ms; /* leader: last answer */
    uint64_t match, next;
    bool waiting; /* entries or a piece of a snapshot are under way */
    uint64_t sent_ms;
    uint64_t snapshot_index; /* 0: none under way */
    size_t snapshot_offset;
};

struct control_waiter {
    struct replica_id proposal, store;
};

/* A snapshot on its way out (leader) or in (follower). */
struct control_snapshot {
    uint64_t index, term;
    struct replica_buffer bytes;
    struct replica_id from; /* in: who sends it */
};

/* Beginning */

struct control_fresh {
    struct replica_id store;
    uint64_t heard_ms;
    uint32_t expect;
    struct replica_id promised;
    bool promised_us;
};

/* An init that was asked for here, and what was granted to that of another node. */
struct control_init {
    uint64_t began_ms, next_ms; /* next_ms: when to ask again */
    uint64_t rival_ms;          /* another one was heard of last; 0: never */
    struct replica_id granted[CONTROL_INIT_ASKED_MAX];
    size_t granted_n;
    struct replica_id grant; /* to whom; zero: nobody */
    uint64_t grant_heard_ms;
};

/* Copying */

struct control_copy {
    uint64_t next_ms;         /* the next pull, or the end of patience with the present one */
    uint64_t began_ms;        /* the last one */
    bool news;                /* heard of since then */
    struct replica_id source; /* asked; zero: nobody */
    uint64_t cursor;          /* volumes changed up to this are staged or held */
    uint64_t high;            /* highest index that the source was at; a lower one is another life of it */
    bool whole;               /* from the beginning: what is not staged is gone */
    struct gossip_volume *staged;
    size_t staged_n, staged_capacity;
};

/* A local request */
struct control_pending {
    uint64_t token;
    struct control_proposal proposal;
    uint64_t deadline_ms, try_ms;
    uint64_t appended_term; /* in this term it was put into this node's own log */
    bool sent;              /* it may be in some log */
    bool decided;
    int code;
    uint64_t index; /* of the entry that decided; the caller is answered once this node has it */
    struct replica_id volume;
    struct replica_id decider;
};

struct gossip_control {
    struct gossip_control_options options;
    struct replica_kv *kv;
    const struct gossip_member *member;
    struct replica_id self;
    struct gossip_random random;
    /* of the step under way */
    uint64_t now_ms, wall_ms, batch;
    uint64_t synced;

    /* identity */
    struct replica_id cluster;
    bool visible; /* the identity is durable somewhere, and may be shown */
    uint64_t founding_batch;
    size_t members_n;
    struct replica_id members[GOSSIP_CONTROL_MEMBERS_MAX];
    int self_index; /* among the members; −1: a copy */

    /* beginning */
    struct replica_id promised; /* to whom this store promised to be founded by; zero: nobody */
    uint64_t promised_batch;    /* that wrote it; 0: it is durable */
    struct control_fresh fresh[CONTROL_FRESH_MAX];
    size_t fresh_n;
    size_t ask_turn;
    struct replica_id
        hints[GOSSIP_CONTROL_MEMBERS_MAX]; /* said to be members of a log: to be asked themselves */
    size_t hints_n;
    uint64_t begin_ms;   /* next try */
    uint64_t init_token; /* of the local caller; 0: none */
    struct control_init init;
    char waiting[CONTROL_WAITING_MAX];

    /* Raft */
    enum control_role role;
    uint64_t term;
    struct replica_id vote;
    uint64_t state_batch; /* that wrote term and vote last */
    struct replica_id leader;
    uint64_t leader_heard_ms;
    uint64_t election_ms; /* when patience ends */
    uint64_t heartbeat_ms;
    uint64_t quorum_ms;     /* leader: next check that a majority, and its own disk, still answer */
    uint64_t stalled_batch; /* leader: the oldest unsynced one at the last check */
    uint32_t stalled;       /* leader: checks since it is that */
    uint64_t commit;
    struct control_peer peers[GOSSIP_CONTROL_MEMBERS_MAX];
    struct control_log log;
    struct control_registry registry;
    struct control_snapshot out, in;
    struct control_waiter waiters[CONTROL_WAITERS_MAX];
    size_t waiters_n;

    struct control_copy copy;
    struct replica_id hint; /* who a copy believes to lead; zero: unknown */
    uint64_t hint_term;
    struct replica_id hurried; /* the leader, of that term, that what is pending was last hurried to */
    uint64_t hurried_term;
    struct control_pending *pending;
    size_t pending_n, pending_capacity;
};

/* Messages: an array of the cluster's id, then `fields`, then whatever a newer version adds. */

struct control_input {
    struct replica_pack_reader reader;
    struct replica_id cluster;
    size_t rest;
};

int control_open(const struct gossip_message *message, size_t fields, struct control_input *ret_input);
int control_close(struct control_input *input);
void control_begin_message(const struct gossip_control *control, struct replica_buffer *out, size_t fields);
/* Closes the buffer. */
void control_send(const struct replica_id *to, enum control_message type, struct replica_buffer *payload,
                  bool durable, struct gossip_update *update);
int control_member_index(const struct gossip_control *control, const struct replica_id *store);
/* Whether the sender counts: a voter by its credential, a member of this cluster's log, and not we ourselves.
 */
bool control_from_member(const struct gossip_control *control, const struct gossip_message *message);
bool control_is_member(const struct gossip_control *control); /* of a log that has begun */
size_t control_majority(const struct gossip_control *control);

/* control_log.c */
uint64_t control_log_last(const struct control_log *log);
bool control_log_term(const struct control_log *log, uint64_t index,
                      uint64_t *ret_term); /* false: not there */
const struct control_entry *control_log_at(const struct control_log *log, uint64_t index);
int control_log_load(struct gossip_control *control);
void control_log_close(struct control_log *log);
void control_log_append(struct gossip_control *control, uint64_t term, const struct replica_id *id,
                        const uint8_t *bytes, size_t size, struct gossip_update *update);
void control_log_cut_from(struct gossip_control *control, uint64_t index, struct gossip_update *update);
void control_log_cut_to(struct gossip_control *control, uint64_t index, struct gossip_update *update);
void control_log_reset(struct gossip_control *control, uint64_t index, uint64_t term,
                       struct gossip_update *update);
void control_log_synced(struct control_log *log, uint64_t synced);
void control_log_write_state(struct gossip_control *control, struct gossip_update *update);

/* control_begin.c */
int control_begin_load(struct gossip_control *control);
void control_begin_start(struct gossip_control *control, struct gossip_update *update);
void control_begin_timer(struct gossip_control *control, struct gossip_update *update);
void control_begin_synced(struct gossip_control *control, struct gossip_update *update);
/* Not shown before it is durable: a founder that forgot would found another. */
void control_begin_found(struct gossip_control *control, const struct replica_id *members, size_t n,
                         struct gossip_update *update);
uint64_t
control_begin_period(const struct gossip_control *control); /* between questions of a node that waits */
void control_begin_name(const struct gossip_control *control, const struct replica_id *store,
                        char ret_name[GOSSIP_NAME_MAX + 1]); /* for people */
int control_begin_message_in(struct gossip_control *control, const struct gossip_message *message,
                             struct gossip_update *update);
/* Somebody who is no member of a log named those who are. */
void control_begin_hint(struct gossip_control *control, const struct replica_id *members, size_t n);
/* A fresh node's pull came in (by a node that has not begun either). */
void control_begin_heard(struct gossip_control *control, const struct gossip_message *message,
                         uint32_t expect, const struct replica_id *promised, bool answer,
                         struct gossip_update *update);
/* Takes on the identity of the cluster that from answered with; false: not allowed to. */
bool control_begin_adopt(struct gossip_control *control, const struct replica_id *from,
                         const struct replica_id *cluster, const struct replica_id *members, size_t members_n,
                         struct gossip_update *update);
void control_begin_describe(struct gossip_control *control);

/* control_init.c */
void control_init_request(struct gossip_control *control, uint64_t token, struct gossip_update *update);
void control_init_timer(struct gossip_control *control, struct gossip_update *update);
/* The local caller of an init is told why not; nothing if there is none. */
void control_init_refuse(struct gossip_control *control, const char *reason, struct gossip_update *update);
/* Whether this node leaves the founding to somebody for the time being. */
bool control_init_has_granted(const struct gossip_control *control);
void control_init_asked(struct gossip_control *control, const struct replica_id *from,
                        struct gossip_update *update);
void control_init_granted(struct gossip_control *control, const struct replica_id *store);
/* rival is about to found a cluster; expect: with so many others, or 0. */
void control_init_rival(struct gossip_control *control, uint32_t expect, const struct replica_id *rival,
                        struct gossip_update *update);

/* control_raft.c */
void control_raft_start(struct gossip_control *control, struct gossip_update *update);
void control_raft_timer(struct gossip_control *control, struct gossip_update *update);
void control_raft_synced(struct gossip_control *control, struct gossip_update *update);
int control_raft_message(struct gossip_control *control, const struct gossip_message *message,
                         struct gossip_update *update);
void control_raft_follow(struct gossip_control *control, uint64_t term, const struct replica_id *leader,
                         struct gossip_update *update);
void control_raft_heard(struct gossip_control *control);

/* control_replicate.c */
void control_replicate_all(struct gossip_control *control, bool heartbeat, struct gossip_update *update);
void control_replicate_commit(struct gossip_control *control, struct gossip_update *update);
void control_replicate_append(struct gossip_control *control, struct control_proposal *proposal,
                              struct gossip_update *update);
void control_replicate_apply(struct gossip_control *control, struct gossip_update *update);
int control_replicate_message(struct gossip_control *control, const struct gossip_message *message,
                              struct gossip_update *update);
void control_replicate_to(struct gossip_control *control, size_t peer, struct gossip_update *update);
void control_replicate_reply(struct gossip_control *control, const struct replica_id *to, uint64_t index,
                             struct gossip_update *update);

/* control_snapshot.c */
void control_snapshot_send(struct gossip_control *control, size_t peer, struct gossip_update *update);
int control_snapshot_message(struct gossip_control *control, const struct gossip_message *message,
                             struct gossip_update *update);
void control_snapshot_drop(struct control_snapshot *snapshot);

/* control_apply.c: an entry; sets update->failed without memory. */
void control_apply(struct gossip_control *control, uint64_t index, uint64_t term,
                   const struct control_proposal *proposal, struct gossip_update *update);
bool control_apply_expired(const struct control_registry *registry,
                           uint64_t time_ms); /* whether EXPIRE has work */

/* control_place.c: an odd number of voters for a new volume. */
void control_place(const struct gossip_control *control, struct control_proposal *proposal);

/* control_copy.c */
/* Answers as to a pull from the beginning. */
void control_copy_serve(struct gossip_control *control, const struct replica_id *to,
                        struct gossip_update *update);
void control_copy_timer(struct gossip_control *control, struct gossip_update *update);
void control_copy_from(struct gossip_control *control, const struct replica_id *source,
                       struct gossip_update *update);
int control_copy_message(struct gossip_control *control, const struct gossip_message *message,
                         struct gossip_update *update);
void control_copy_news(struct gossip_control *control, struct gossip_update *update);
void control_copy_drop(struct control_copy *copy);

/* control_request.c */
void control_request_new(struct gossip_control *control, const struct gossip_control_request *request,
                         struct gossip_update *update);
void control_request_timer(struct gossip_control *control, struct gossip_update *update);
/* leader, of that term, was found (NULL: a cluster was): what is pending is tried at once. */
void control_request_hurry(struct gossip_control *control, const struct replica_id *leader, uint64_t term);
void control_request_outcome(struct gossip_control *control, const struct control_outcome *outcome,
                             struct gossip_update *update);
int control_request_message(struct gossip_control *control, const struct gossip_message *message,
                            struct gossip_update *update);
void control_request_reason(struct gossip_update *update, uint64_t token, int code, const char *reason);

#endif
