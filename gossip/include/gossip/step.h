/* What all rooms of gossip share: who a message came from, and the update that a step fills in.
 *
 * A room is a state machine without threads, clocks or sockets: x_step(x, event, update). The shell (the node, or the
 * simulator) then, in this order,
 *   1. applies update->log and update->map to the two kv stores, at once, as batch number N = its counter + 1;
 *   2. keeps every send and answer marked durable until batches 1..N are synced: contents first
 *      (replica_contents_sync), then the log; the others leave at once;
 *   3. carries out the orders;
 *   4. calls again at once if update->again, else at wake_ms at the latest, with a TIMER event.
 * Whatever reveals state (vectors, deltas, acks, votes, outcomes) is durable; probes, requests for bytes, refusals are not.
 * Because a sync covers contents too, a room may count a content that is FILLED as held in what it marks durable. */
#ifndef GOSSIP_STEP_H
#define GOSSIP_STEP_H

#include "replica/contents.h"
#include "replica/error.h"
#include "replica/kv.h"
#include "replica/pack.h"

/* Reads of the kv that one step may make before it asks to be continued: about a millisecond. */
#define GOSSIP_STEP_READS_MAX 1000
/* A peer message: one delta record and its header. */
#define GOSSIP_MESSAGE_SIZE_MAX       (320 * 1024)
#define GOSSIP_ENDPOINT_MAX           255 /* bytes of "tcp://host:port" */
#define GOSSIP_CREDENTIAL_VOLUMES_MAX 16

enum gossip_room {
    GOSSIP_ROOM_MEMBER,
    GOSSIP_ROOM_CONTROL,
    GOSSIP_ROOM_SYNC,
    GOSSIP_ROOM_QUORUM,
    GOSSIP_ROOM_SWARM,
    GOSSIP_ROOM_N
};

enum gossip_role { GOSSIP_ROLE_CLIENT = 1, GOSSIP_ROLE_CACHE = 2, GOSSIP_ROLE_VOTER = 3 };

/* Who sent a message, as proved by its transport: filled in by the shell from the hello's credential chain. */
struct gossip_principal {
    struct replica_id store;
    enum gossip_role role;
    bool every_volume; /* else only the named ones */
    size_t volumes_n;
    struct {
        struct replica_id volume_name_hash; /* first 16 bytes of SHA-256 of the volume's name */
        bool read_only;
    } volumes[GOSSIP_CREDENTIAL_VOLUMES_MAX];
};

/* Whether this principal may read (write: also commit to) the volume of that name. */
bool gossip_principal_may(const struct gossip_principal *principal, const char *volume_name, bool write);

/* Both clocks of an event. now_ms never goes back and measures periods; wall_ms is what people call the time, may jump,
 * and only enters stamps. */
struct gossip_time {
    uint64_t now_ms;
    uint64_t wall_ms;
};

struct gossip_send {
    struct replica_id to;                   /* zero: whoever answers at endpoint */
    char endpoint[GOSSIP_ENDPOINT_MAX + 1]; /* only if to is zero */
    enum gossip_room room;
    uint8_t type;        /* the room's message type */
    size_t offset, size; /* payload in update->bytes */
    bool durable;
};

/* To a local caller, by the token of its request. */
struct gossip_answer {
    uint64_t token;
    int code;            /* 0 or REPLICA_E_* */
    size_t offset, size; /* result in update->bytes, MessagePack; empty if none */
    bool durable;
    bool final; /* false: progress, more will follow */
};

/* Sends one verified piece of a content to a peer over the data channel. */
struct gossip_upload {
    struct replica_id to;
    struct replica_content_id content;
    struct replica_piece piece;
};

/* Makes a view's frozen draft a content; comes back as a SETTLED event. */
struct gossip_settle {
    struct replica_id view;
    uint64_t draft;
};

/* A room's word to another room within the same step; peer delivers it. */
enum gossip_note_kind {
    GOSSIP_NOTE_MEMBER_ALIVE, /* member: `store` is alive (again) */
    GOSSIP_NOTE_MEMBER_DEAD,  /* member: `store` is dead or left */
    GOSSIP_NOTE_CLUSTER,      /* control: the cluster's identity is now known */
    GOSSIP_NOTE_VOLUME,       /* control: `volume` was created, renamed, deleted or undeleted */
    GOSSIP_NOTE_WANT,    /* sync, quorum: fetch `content` of `volume`; `store` (may be zero) surely has it */
    GOSSIP_NOTE_UNWANT,  /* sync, quorum: nobody waits for `content` any more */
    GOSSIP_NOTE_HAVE,    /* swarm: `content` is filled or complete here */
    GOSSIP_NOTE_PIECE,   /* swarm: `bytes` of `content`, which is wanted, have arrived here */
    GOSSIP_NOTE_NO_ROOM, /* swarm: `content` is wanted, but this store has no space for it now */
    GOSSIP_NOTE_PULL,    /* quorum: bring `volume` up to the vector set as its target */
    GOSSIP_NOTE_STORED,  /* sync: deltas of `volume` were added to the log */
    GOSSIP_NOTE_COMMITTED, /* quorum, sync: the committed vector of `volume` rose */
    GOSSIP_NOTE_APPLIED,   /* sync: the applied vector of `volume` rose */
};

struct gossip_note {
    enum gossip_note_kind kind;
    struct replica_id volume;
    struct replica_id store;
    struct replica_content_id content;
    uint64_t bytes;
};

/* Filled by steps, emptied by the shell. Reused between steps: _init once, _clear before each. */
struct gossip_update {
    struct replica_kv_batch log;
    struct replica_kv_batch map;
    struct replica_buffer bytes; /* payloads of sends and answers */
    struct gossip_send *sends;
    size_t sends_n, sends_capacity;
    struct gossip_answer *answers;
    size_t answers_n, answers_capacity;
    struct gossip_upload *uploads;
    size_t uploads_n, uploads_capacity;
    struct gossip_settle *settles;
    size_t settles_n, settles_capacity;
    struct gossip_note *notes;
    size_t notes_n, notes_capacity;
    size_t reads;     /* made so far in this step */
    uint64_t wake_ms; /* UINT64_MAX: no need */
    bool map_sync;    /* sync the map kv, then say MAP_SYNCED */
    bool again;       /* more work is ready: step again at once with a TIMER event */
    bool failed;      /* out of memory: the shell must drop this node's state and stop */
};

void gossip_update_init(struct gossip_update *update);
void gossip_update_close(struct gossip_update *update);
void gossip_update_clear(struct gossip_update *update);

/* Each copies what it is given. payload may be NULL for none. */
void gossip_update_send(struct gossip_update *update, const struct replica_id *to, enum gossip_room room,
                        uint8_t type, const struct replica_buffer *payload, bool durable);
void gossip_update_send_endpoint(struct gossip_update *update, const char *endpoint, enum gossip_room room,
                                 uint8_t type, const struct replica_buffer *payload);
void gossip_update_answer(struct gossip_update *update, uint64_t token, int code,
                          const struct replica_buffer *payload, bool durable);
void gossip_update_progress(struct gossip_update *update, uint64_t token,
                            const struct replica_buffer *payload);
void gossip_update_upload(struct gossip_update *update, const struct replica_id *to,
                          const struct replica_content_id *content, struct replica_piece piece);
void gossip_update_settle(struct gossip_update *update, const struct replica_id *view, uint64_t draft);
void gossip_update_note(struct gossip_update *update, enum gossip_note_kind kind,
                        const struct replica_id *volume, const struct replica_id *store,
                        const struct replica_content_id *content);
void gossip_update_note_piece(struct gossip_update *update, const struct replica_content_id *content,
                              uint64_t bytes);
void gossip_update_wake(struct gossip_update *update, uint64_t at_ms); /* keeps the earliest */

/* A message as it came in. payload is borrowed and untrusted. */
struct gossip_message {
    const struct gossip_principal *from;
    uint8_t type;
    const uint8_t *payload;
    size_t size;
};

/* Deterministic random numbers (xoshiro256**), one stream per concern. */
struct gossip_random {
    uint64_t state[4];
};
void gossip_random_init(struct gossip_random *random, uint64_t seed, uint64_t stream);
uint64_t gossip_random_next(struct gossip_random *random);
uint64_t gossip_random_below(struct gossip_random *random, uint64_t bound); /* bound ≥ 1; unbiased */
void gossip_random_id(struct gossip_random *random, struct replica_id *ret_id);

#endif
