/* The room quorum: the inside. Four parts share it:
 *   quorum_writer.c   a view's commit, from freezing to its outcome; its parts: quorum_writing.h
 *   quorum_voter.c    what a voter does for writers: prepare, mint, replicate, ack; and counting what is committed; its parts:
 *                     quorum_voting.h
 *   quorum_offer.c    contents on their way to the voters before commit is called
 *   quorum_reader.c   reload: ask, join, drive, pull, wait until applied; quorum_reader_end.c: how it ends
 * A writer that is a voter itself sends itself the same messages; the shell loops them back once they are durable. */
#ifndef GOSSIP_SRC_QUORUM_H
#define GOSSIP_SRC_QUORUM_H

#include "gossip/member.h"
#include "gossip/quorum.h"
#include "sync/attached.h"
#include "sync/sync.h"

#define COMMITS_MAX 1024 /* views committing at once */
#define RELOADS_MAX 4096 /* reloads at once */
#define PREPARES_MAX                                                                                         \
    4096 /* closures being fetched for writers, per volume; more are told BUSY and ask again */
#define PREPARED_MAX 8192 /* commit ids known to be prepared, per volume; a forgotten one is prepared again */
#define WAITERS_MAX  8192 /* writers waiting for an outcome, per volume; a forgotten one asks again */
#define FOLLOWERS_MAX                                                                                        \
    1024 /* readers waiting for this voter to catch up, per volume; a forgotten one asks again */
#define AHEAD_MAX          64   /* closures of stored deltas fetched ahead of the held prefix, per volume */
#define OFFERS_MAX         1024 /* contents offered to this voter; what is beyond is asked for by prepare */
#define OFFER_CONTENTS_MAX 256  /* in one message */
#define ANNOUNCE_MS        1000 /* between repetitions of what is held but not known to be committed */
#define SCAN_OPS_MAX       500  /* ops of a closure scanned in one step */
#define BUILD_OPS_MAX      1000 /* overlay records turned into ops, or moved by a reload, in one step */

enum quorum_message {
    QUORUM_PREPARE = 1, /* writer → voter: volume, epoch, phase, proposal */
    QUORUM_PREPARED, /* voter → writer: volume, commit, epoch, phase, verdict, code, hlc, clock, dot, missing, arrived */
    QUORUM_MINT,      /* writer → coordinator: volume, commit, epoch, phase, hlc */
    QUORUM_OUTCOME,   /* coordinator → writer: volume, commit, code, dot, hlc */
    QUORUM_REPLICATE, /* coordinator → voter: volume, epoch, phase, delta record */
    QUORUM_ASK,       /* reader → voter: volume, round, target vector */
    QUORUM_OFFER,     /* writer → voter: volume, epoch, phase, contents that a commit will name soon */
    QUORUM_HELD, /* voter → reader or coordinator: volume, round (0: an ack), epoch, phase, held, committed */
    QUORUM_REFUSED, /* voter → reader: volume, round, code */
    QUORUM_ABANDON, /* writer → voter: volume, commit: given up, and nobody was asked to mint it */
};

enum quorum_verdict {
    QUORUM_VERDICT_READY = 0,
    QUORUM_VERDICT_PENDING = 1, /* contents are still missing: progress */
    QUORUM_VERDICT_KNOWN = 2,   /* the id has a dot here */
    QUORUM_VERDICT_STALE = 3,   /* another epoch or phase is in force here */
    QUORUM_VERDICT_REFUSED = 4, /* with a code */
};

struct commit; /* quorum_writing.h */

enum reload_phase { RELOAD_ASKING, RELOAD_APPLYING };

struct reload {
    uint64_t token;
    struct replica_id view, volume;
    bool open; /* opens a view at the end instead of moving one */
    struct replica_view_options options;
    enum gossip_reload_mode mode;
    uint32_t timeout_ms;
    enum reload_phase phase;
    uint64_t round;
    bool answered[GOSSIP_VOTERS_MAX]; /* in this round */
    bool refused[GOSSIP_VOTERS_MAX];  /* in this round: may not read */
    bool heard[GOSSIP_VOTERS_MAX];    /* in any round: held is what it said last */
    struct replica_vector held[GOSSIP_VOTERS_MAX];
    struct replica_vector join; /* what must reach a majority; fixed once a majority has answered */
    bool joined, asked_again;
    bool moved; /* the snapshot has begun to move from `before` */
    uint64_t before;
    uint64_t retry_at_ms, retry_ms, progress_at_ms, progress_seq;
};

struct offer {
    struct replica_content_id content;
    struct replica_id volume;
    bool wanted; /* not here yet */
    uint64_t until_ms;
};

struct gossip_quorum {
    struct gossip_quorum_options options;
    struct attached_table *table;
    struct gossip_sync *sync;
    const struct gossip_member *member;
    const struct gossip_control *control;
    struct replica_views *views;
    struct gossip_principal self; /* our own credential */
    bool failed;                  /* a write or sync failed: this store votes no more */
    struct gossip_random random;
    struct commit **commits;
    size_t commits_n;
    struct reload **reloads;
    size_t reloads_n;
    uint64_t rounds;
    uint64_t batch; /* of the step in course */
    struct offer offers[OFFERS_MAX];
    size_t offers_n;
};

int gossip_quorum_init(struct gossip_quorum *quorum, const struct gossip_quorum_options *options,
                       struct attached_table *table, struct gossip_sync *sync,
                       const struct gossip_member *member, const struct gossip_control *control,
                       struct replica_views *views, const struct gossip_principal *self, uint64_t seed);
void gossip_quorum_close(struct gossip_quorum *quorum);
void gossip_quorum_close_voting(struct attached_voting *voting);

enum gossip_quorum_event_kind {
    GOSSIP_QUORUM_EVENT_START, /* takes up the commits that an earlier life left in flight */
    GOSSIP_QUORUM_EVENT_TIMER,
    GOSSIP_QUORUM_EVENT_MESSAGE,
    GOSSIP_QUORUM_EVENT_COMMIT, /* view, token, timeout_ms */
    GOSSIP_QUORUM_EVENT_RELOAD, /* view, token, mode, at_least, timeout_ms */
    GOSSIP_QUORUM_EVENT_OPEN,   /* options, token, mode, timeout_ms */
    GOSSIP_QUORUM_EVENT_CANCEL, /* token */
    GOSSIP_QUORUM_EVENT_SETTLED,
    GOSSIP_QUORUM_EVENT_STORED,
    GOSSIP_QUORUM_EVENT_HAVE,
    GOSSIP_QUORUM_EVENT_PIECE,   /* content, size: so many bytes of it have arrived */
    GOSSIP_QUORUM_EVENT_NO_ROOM, /* content: it does not fit here now */
    GOSSIP_QUORUM_EVENT_DAMAGED, /* content: it was here, and is not any more */
    GOSSIP_QUORUM_EVENT_COMMITTED,
    GOSSIP_QUORUM_EVENT_APPLIED,
    GOSSIP_QUORUM_EVENT_SYNCED, /* after sync's own */
    GOSSIP_QUORUM_EVENT_FAILED,
};
struct gossip_quorum_event {
    enum gossip_quorum_event_kind kind;
    struct gossip_time time;
    uint64_t batch, synced;
    struct gossip_message message;
    uint64_t token;
    uint32_t timeout_ms;
    struct replica_id view, volume;
    const struct replica_view_options *options;
    enum gossip_reload_mode mode;
    const struct gossip_token *at_least;
    uint64_t draft, size;
    struct replica_blob blob;
    int code;
    struct replica_content_id content;
};
int gossip_quorum_step(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                       struct gossip_update *update);

/* Whether a commit in flight of that volume (NULL: of any), or an offer, needs content that nothing else names yet. */
bool gossip_quorum_refers(const struct gossip_quorum *quorum, const struct replica_id *volume,
                          const struct replica_content_id *content);

/* Between the parts. */
const struct gossip_volume *quorum_volume(const struct gossip_quorum *quorum,
                                          const struct replica_id *volume);
int quorum_voter_index(const struct gossip_configuration *configuration,
                       const struct replica_id *store); /* -1: none */
static inline size_t quorum_majority(const struct gossip_configuration *configuration)
{
    return configuration->voters_n / 2 + 1;
}
void quorum_answer_code(struct gossip_update *update, uint64_t token, int code, const char *reason,
                        bool durable);

/* Whether this node's own credential allows it; else the caller is told so, by the volume's name. */
bool quorum_may(const struct gossip_quorum *quorum, const struct replica_id *volume, bool write,
                uint64_t token, struct gossip_update *update);

int quorum_writer_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct gossip_update *update);
int quorum_writer_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                          struct gossip_update *update);
int quorum_voter_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                       struct gossip_update *update);
int quorum_voter_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                         struct gossip_update *update);
int quorum_reader_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct gossip_update *update);
int quorum_reader_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                          struct gossip_update *update);

int quorum_reader_refused(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                          struct gossip_update *update);

/* Between the parts of a reader; quorum_reader_end.c. */
void reading_remove(struct gossip_quorum *quorum, struct reload *reload);
void reading_fail(struct gossip_quorum *quorum, struct reload *reload, int code, const char *reason,
                  struct gossip_update *update);
/* What the reload must show is applied here. */
int reading_open(struct gossip_quorum *quorum, struct reload *reload, const struct attached *attached,
                 struct gossip_update *update);
int reading_reload(struct gossip_quorum *quorum, struct reload *reload, const struct attached *attached,
                   struct gossip_update *update);

void quorum_offer_send(struct gossip_quorum *quorum, const struct replica_id *volume,
                       const struct replica_content_id *contents, size_t n, struct gossip_update *update);
int quorum_offer_receive(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                         struct replica_pack_reader *reader, const struct gossip_volume *volume,
                         struct gossip_update *update);
void quorum_offer_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct gossip_update *update);
bool quorum_offer_refers(const struct gossip_quorum *quorum, const struct replica_id *volume,
                         const struct replica_content_id *content);

/* A voter said what it holds: notes it, and raises committed where a majority of equal (epoch, phase) agrees. */
int quorum_note_held(struct gossip_quorum *quorum, struct attached *attached, const struct replica_id *store,
                     uint64_t epoch, enum gossip_phase phase, const struct replica_vector *held,
                     struct gossip_update *update);

#endif
