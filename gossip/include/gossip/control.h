/* control: the cluster's small Raft log (Ongaro's dissertation: pre-vote, check-quorum, snapshots), how a cluster begins,
 * and the registry of volumes that the log holds. Commit and reload never touch it.
 *
 * Up to five founding stores vote. Every other node keeps a copy of what was committed, pulled from any node with a higher
 * index. Members are fixed when the cluster begins. */
#ifndef GOSSIP_CONTROL_H
#define GOSSIP_CONTROL_H

#include "gossip/member.h"

#define GOSSIP_CONTROL_MEMBERS_MAX   5    /* more only slow the log down */
#define GOSSIP_VOTERS_MAX            9    /* of one volume */
#define GOSSIP_VOTERS_WANTED         3    /* by default */
#define GOSSIP_VOLUMES_MAX           4096 /* each costs memory on every node */
#define GOSSIP_VOLUME_NAME_MAX       64
#define GOSSIP_VOLUME_NAME_LETTERS   "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
#define GOSSIP_VERSION1_INODES_MAX   500000 /* of a version 1 volume */
#define GOSSIP_VERSION2_CHILDREN_MAX 262144 /* entries in one directory of a version 2 volume */
#define GOSSIP_DELETED_KEPT_MS       (24ull * 3600 * 1000) /* a deleted volume can be undeleted for a day */

/* Phases of a configuration, in order; this version only ever creates FINAL ones. */
enum gossip_phase {
    GOSSIP_PHASE_LEARNING = 1,
    GOSSIP_PHASE_JOINT = 2,
    GOSSIP_PHASE_SEALED = 3,
    GOSSIP_PHASE_FINAL = 4
};

/* A volume's voters: explicit data, never derived from who seems alive. */
struct gossip_configuration {
    uint64_t epoch; /* from 1 */
    enum gossip_phase phase;
    size_t voters_n;
    struct replica_id voters[GOSSIP_VOTERS_MAX];
};

struct gossip_volume {
    struct replica_id id;
    char name[GOSSIP_VOLUME_NAME_MAX + 1];
    uint32_t version; /* 1 or 2 */
    uint64_t created_ms;
    struct replica_id creator; /* the store it was created through */
    bool deleted;
    uint64_t deleted_ms;
    uint32_t voters_wanted;
    struct gossip_configuration configuration;
    uint64_t index; /* of the log entry that last changed it */
};

/* How this node begins. */
enum gossip_begin {
    GOSSIP_BEGIN_ALONE,  /* no key, no join: a cluster of its own at once */
    GOSSIP_BEGIN_WAIT,   /* a key, nothing else: wait for `cluster init` */
    GOSSIP_BEGIN_EXPECT, /* --expect N with exactly N addresses in --join */
    GOSSIP_BEGIN_JOIN,   /* --join: copy the identity of the cluster found there */
};

struct gossip_control_options {
    enum gossip_begin begin;
    uint32_t expect;           /* N of EXPECT: 1, 3 or 5 */
    uint32_t heartbeat_ms;     /* 100 */
    uint32_t election_ms;      /* 1000: the least; each timeout is drawn from [1, 2) times it */
    uint32_t copy_ms;          /* between pulls of the log's copy; 1000 */
    uint32_t snapshot_entries; /* entries kept before a snapshot replaces them; 1024 */
    uint32_t
        request_ms; /* a proposal without an answer fails with UNAVAILABLE or INDETERMINATE after this; 10000 */
};
void gossip_control_options_default(struct gossip_control_options *options);

struct gossip_control;

/* log: read only here, writes go through updates (prefix `R` for Raft and the begin state, `V` for the registry belong to
 * this room). member is borrowed and read only. Loads what an earlier life stored. self: this store.
 * Errors: CORRUPT, IO, NOMEM. */
int gossip_control_new(const struct gossip_control_options *options, struct replica_kv *log,
                       const struct gossip_member *member, const struct replica_id *self, uint64_t seed,
                       struct gossip_control **ret_control);
void gossip_control_destroy(struct gossip_control **control);

/* Requests of local callers; the answer carries the volume as in docs/protocol.md, or a code: EXISTS, NOTFOUND, INVALID,
 * REFUSED (another version), UNAVAILABLE (no leader in time; nothing was proposed), INDETERMINATE. A caller that was
 * answered finds the change in this node's own copy. Repeating a proposal that may have gone through is safe: each has a
 * random id, which the log remembers. */
enum gossip_control_request_kind {
    GOSSIP_CONTROL_INIT, /* begin a cluster here, once; REFUSED if it already has one */
    GOSSIP_CONTROL_CREATE,
    GOSSIP_CONTROL_RENAME,
    GOSSIP_CONTROL_DELETE,
    GOSSIP_CONTROL_UNDELETE,
    GOSSIP_CONTROL_LOOKUP, /* of a name that this node's copy does not have, or no more: goes through the log, so that whatever was
                              answered before it, anywhere, is in the copy afterwards. The volume, or NOTFOUND */
};
struct gossip_control_request {
    enum gossip_control_request_kind kind;
    uint64_t token;
    const char *name;       /* borrowed; checked here: 1–64 of [A-Za-z0-9-_.] */
    const char *new_name;   /* RENAME */
    uint32_t version;       /* CREATE: 1, 2, or 0 for "2, or whatever exists" */
    bool if_missing;        /* CREATE: an existing volume is success, unless of another version than asked */
    uint32_t voters_wanted; /* CREATE: 1, 3, 5, 7, 9; 0: the default */
    uint32_t timeout_ms;    /* without an answer from the log; 0: options.request_ms */
};

enum gossip_control_event_kind {
    GOSSIP_CONTROL_EVENT_START,
    GOSSIP_CONTROL_EVENT_TIMER,
    GOSSIP_CONTROL_EVENT_MESSAGE,
    GOSSIP_CONTROL_EVENT_REQUEST,
    GOSSIP_CONTROL_EVENT_SYNCED, /* batches up to `synced` are durable; the shell numbers batches from 1 at its start */
};
struct gossip_control_event {
    enum gossip_control_event_kind kind;
    struct gossip_time time;
    struct gossip_message message;
    const struct gossip_control_request *request;
    uint64_t batch;  /* number that this step's update will get */
    uint64_t synced; /* batches up to this are durable */
};
/* Errors: MALFORMED for a bad message (nothing changed). */
int gossip_control_step(struct gossip_control *control, const struct gossip_control_event *event,
                        struct gossip_update *update);

/* The cluster's identity; zero while it has not begun. */
struct replica_id gossip_control_cluster(const struct gossip_control *control);
/* One line for people about what is being waited for ("waiting for `remora cluster init` …"); "" once begun. */
const char *gossip_control_waiting(const struct gossip_control *control);

/* Borrowed until the next step; NULL if there is none. by_name finds only volumes that are not deleted. */
const struct gossip_volume *gossip_control_volume(const struct gossip_control *control,
                                                  const struct replica_id *id);
const struct gossip_volume *gossip_control_volume_by_name(const struct gossip_control *control,
                                                          const char *name);
size_t gossip_control_volumes(const struct gossip_control *control);
const struct gossip_volume *gossip_control_volume_at(const struct gossip_control *control, size_t index);

struct gossip_control_status {
    bool voting;              /* this store is a member of the log */
    struct replica_id leader; /* zero: unknown */
    uint64_t term, commit_index, applied_index;
    size_t members_n;
    struct replica_id members[GOSSIP_CONTROL_MEMBERS_MAX];
};
void gossip_control_status(const struct gossip_control *control, struct gossip_control_status *ret_status);

#endif
