/* The inside of the swarm room.
 *
 *   fetch    a content wanted here: who waits for it, which of its pieces are here, who may have the others
 *   peer     another store: how fast it answers, what was asked of it, what it asked of us
 *   holder   one fetch's view of one peer: what that peer has of this content
 *   request  one piece asked of one holder (or the question what it has)
 *
 * A holder that may be asked stands in its peer's queue of ready holders; a peer with room takes them in
 * turn, one piece each, so that many contents share a source fairly and one event costs O(1). Contents of one
 * chunk (most of them) have no bitmaps, and one holder at a time. Time is kept in queues of equal delay,
 * never in timers of single contents. */
#ifndef GOSSIP_SRC_SWARM_H
#define GOSSIP_SRC_SWARM_H

#include "gossip/swarm.h"
#include "replica/merkle.h"
#include "swarm/swarm_table.h"

/* Asking. 6–16 connections make no difference to speed, more only cost messages. 256 pieces are a message of
 * 16 KiB, and about 1000 reads for the one who serves. In the place of a chunk 64 small pieces may be asked
 * for: 512 of 16 KiB and below at once; with more than 4 in the place of a chunk they count as small. Chunks
 * are chosen from 4 GiB at a time. */
#define SWARM_DEGREE       10
#define SWARM_ASK_MAX      256
#define SWARM_SMALL_FACTOR 64
#define SWARM_BATCH_FACTOR 4
#define SWARM_WINDOW_PAGES 4
#define SWARM_BAD_MAX      3      /* bad pieces after which a store is asked for nothing … */
#define SWARM_BAD_MS       600000 /* … for so long */
#define SWARM_BACKOFF_MAX  4      /* doublings of a silent peer's deadline */

/* Times. News of chunks are held back for 5 ms, a few chunks' time on a fast link. A fetch without anything
 * to ask looks after 50 ms, some round trips, whether chunks left to other receivers must be asked for as
 * well. */
#define SWARM_HAVE_MS       5
#define SWARM_DRY_MS        50
#define SWARM_TICK_MS       100  /* between looks at deadlines */
#define SWARM_PROGRESS_MS   1000 /* between progress answers */
#define SWARM_SEARCH_LEVELS 5    /* search_ms × 1, 2, 4, 8, 10 */

/* Bounds of one step: items taken from one queue, and chunks looked up in contents when a fetch resumes (a
 * third of a millisecond). */
#define SWARM_WORK_MAX 1024
#define SWARM_SCAN_MAX 4096

/* Bounds of memory. */
#define SWARM_HAVE_MAX    512   /* chunks in one message of news */
#define SWARM_PEERS_MAX   4096  /* stores known at once; unused ones make room */
#define SWARM_VOLUMES_MAX 4096  /* as in the control log */
#define SWARM_WAITERS_MAX 65536 /* tokens; local callers, each 80 bytes */
#define SWARM_QUEUE_MAX   1024  /* pieces queued for one receiver: twice what one of ours asks for */
#define SWARM_QUEUES_MAX  16384 /* pieces queued in all: 1.5 MB */
/* More would wait too long; beyond, each receiver has one. */
#define SWARM_QUEUES_BYTES_MAX ((uint64_t)256 << 20)
#define SWARM_CANCELS_MAX      512 /* in one message; each costs a walk along a queue */
#define SWARM_TOPICS_MAX       1024 /* contents whose receivers are remembered; the longest unused makes room */
#define SWARM_TOPIC_PEERS      16   /* receivers remembered of one content */
#define SWARM_OTHERS_MAX       8    /* other holders named in one message */

enum swarm_message {
    SWARM_CONNECT = 1,
    SWARM_MAP = 2,
    SWARM_HAVE = 3,
    SWARM_ASK = 4,
    SWARM_REFUSE = 5,
    SWARM_CANCEL = 6
};

/* Beside replica_piece_kind: the question what a peer has. */
#define SWARM_PIECE_CONNECT 3

enum swarm_holding {
    SWARM_UNKNOWN, /* not asked yet, or not answered yet */
    SWARM_LACKS,   /* said that it does not have it */
    SWARM_PARTIAL, /* is fetching it too; bits say what it has */
    SWARM_WHOLE,   /* has all of it, or is believed to */
    SWARM_SILENT,  /* did not answer */
    SWARM_BAD,     /* sent wrong bytes: never asked again for this content */
};

struct swarm_peer {
    struct swarm_node node; /* by store */
    struct replica_id store;
    uint32_t refs;            /* holders, requests, uploads */
    struct swarm_link unused; /* refs is 0 */
    bool dead;                /* as membership says, or did not answer; until it is heard of again */
    uint64_t dead_ms;         /* since when */
    uint32_t bad;
    uint64_t bad_until_ms;
    /* as a source */
    bool measured;
    uint32_t srtt_ms, deviation_ms, backoff;
    uint32_t window; /* chunks that may be asked at once */
    uint32_t asked;  /* pieces asked, and their bytes */
    uint64_t asked_bytes;
    bool full;            /* of small pieces: first a part of them must come */
    uint64_t progress_ms; /* last answer */
    uint64_t paused_until_ms;
    struct swarm_link outgoing; /* requests that are not in a message yet: empty between steps */
    struct swarm_link requests; /* sent, oldest first */
    struct swarm_link ready[2]; /* holders to be asked, in turn; first those that a reader waits for */
    struct swarm_link active;   /* in swarm->active while it was asked for anything */
    struct swarm_link dirty;    /* in swarm->dirty: to be looked at before the step ends */
    struct replica_buffer cancels;
    uint32_t cancels_n;
    /* as a receiver */
    struct swarm_link queue; /* uploads */
    uint32_t queue_n;
    struct swarm_link turn; /* in swarm->turns while queue is not empty */
};

struct swarm_holder {
    struct swarm_holder *next; /* of the fetch, best first */
    struct swarm_fetch *fetch;
    struct swarm_peer *peer;
    struct swarm_link ready;
    uint64_t *bits; /* PARTIAL: chunks it has; NULL: none */
    uint16_t volume;
    uint8_t state;   /* enum swarm_holding */
    bool connected;  /* each has told the other what it has */
    bool connecting; /* a CONNECT is unanswered */
};

struct swarm_request {
    struct swarm_link in_peer, in_fetch;
    struct swarm_holder *holder;
    uint8_t kind; /* replica_piece_kind or SWARM_PIECE_CONNECT */
    bool stolen;  /* a chunk left to another receiver */
    bool sent;
    uint32_t index;
    uint32_t bytes;
    uint64_t asked_ms;
};

/* A caller with a token. */
struct swarm_waiter {
    struct swarm_link in_fetch, in_progress;
    struct swarm_fetch *fetch;
    uint64_t token;
    uint32_t cursor, end; /* chunks of a range still to come; the whole content: 0, UINT32_MAX */
    uint64_t started_ms, due_ms;
    uint16_t volume;
    bool range;
};

/* What only contents of more than one chunk need. */
struct swarm_large {
    struct swarm_fetch *fetch;
    uint32_t chunks, pages;
    uint32_t present;  /* chunks here */
    uint32_t page_low; /* pages below are complete */
    bool root, root_asked;
    uint64_t *have, *asked;             /* a bit per chunk */
    uint64_t *pages_have, *pages_asked; /* a bit per page */
    uint32_t scan;                      /* chunks looked up so far when resuming */
    uint32_t steal, stolen;             /* chunks left to others that may be, and are, asked for */
    uint32_t dry_rounds;                /* looks in a row that found nothing to ask */
    uint32_t *news;                     /* chunks that arrived and were not told of */
    uint32_t news_n;
    struct swarm_link telling; /* in swarm->telling */
    uint64_t told_ms, tell_at_ms;
};

struct swarm_fetch {
    struct swarm_node node; /* by content */
    struct replica_content_id content;
    struct swarm_link timer; /* in swarm->dry, ->searching[level] or ->scanning */
    uint64_t due_ms;
    struct swarm_holder *holders, *current; /* current: the one asked for a small content */
    struct swarm_large *large;              /* NULL: one chunk */
    struct swarm_link requests, waiters;
    uint64_t progress_ms;
    uint32_t wants;  /* WANTs without token */
    uint16_t volume; /* of the first WANT; holders may know it under another */
    uint8_t holders_n;
    uint16_t requests_n;
    uint8_t level; /* of back-off */
    bool searched; /* the directory's holders are in */
    bool begun;
    bool searching, scanning;
};

struct swarm_upload {
    struct swarm_link link;
    struct swarm_peer *peer;
    struct replica_content_id content;
    struct replica_piece piece;
    uint64_t began_ms;
};

/* One item of a message of pieces. */
struct swarm_item {
    struct replica_id volume;
    struct replica_content_id content;
    uint8_t kind;
    uint32_t index;
    int code;
};

struct swarm_topic;

struct gossip_swarm {
    struct gossip_swarm_options options;
    struct gossip_swarm_directory directory;
    struct replica_contents *contents;
    const struct gossip_member *member;
    struct replica_id self;
    struct gossip_random random;
    uint64_t now_ms;
    bool no_memory; /* an allocation failed: the step returns NOMEM */

    struct swarm_table fetches, peers, topics;
    struct replica_id *volumes;
    size_t volumes_n, volumes_capacity;
    size_t waiters_n;

    uint64_t credit_used;
    struct swarm_link dirty, active, unused;                                  /* peers */
    struct swarm_link dry, searching[SWARM_SEARCH_LEVELS], scanning, telling; /* fetches */
    struct swarm_link progress;                                               /* waiters */
    size_t searching_n;
    uint64_t tick_at_ms;

    struct swarm_link turns; /* peers that wait for an upload */
    struct swarm_link uploading;
    size_t uploading_n, queued_n;
    uint64_t queued_bytes;
    struct swarm_link topics_used;

    uint64_t received_bytes, sent_bytes, bad_pieces, duplicate_bytes;
    struct swarm_item items[SWARM_ASK_MAX]; /* of the message being read */
    struct swarm_item cancelled[SWARM_CANCELS_MAX];
    struct replica_buffer payload; /* of the message being written */
    struct replica_buffer bitmap;  /* inside it */
};

/* swarm_fetch.c: what is wanted */
struct swarm_fetch *swarm_fetch_find(const struct gossip_swarm *swarm,
                                     const struct replica_content_id *content);
bool swarm_fetch_wants(const struct gossip_swarm *swarm, const struct swarm_fetch *fetch,
                       const struct replica_id *volume);
bool swarm_fetch_whole(const struct swarm_fetch *fetch);     /* somebody wants more than ranges */
uint64_t swarm_fetch_bytes(const struct swarm_fetch *fetch); /* present */
void swarm_want(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                struct gossip_update *update);
void swarm_unwant(struct gossip_swarm *swarm, const struct gossip_swarm_event *event);
void swarm_cancel_token(struct gossip_swarm *swarm, uint64_t token);
void swarm_progress_due(struct gossip_swarm *swarm, struct gossip_update *update);
void swarm_waiter_free(struct gossip_swarm *swarm, struct swarm_waiter *waiter);
void swarm_fetch_release(struct gossip_swarm *swarm, struct swarm_fetch *fetch); /* all its requests */
void swarm_fetch_destroy(struct gossip_swarm *swarm, struct swarm_fetch *fetch);
bool swarm_fetch_destroy_unwanted(struct gossip_swarm *swarm,
                                  struct swarm_fetch *fetch); /* true: it is gone */

/* swarm_arrival.c: what is here of it */
void swarm_scan_some(struct gossip_swarm *swarm, struct gossip_update *update);
void swarm_fetch_scan(struct gossip_swarm *swarm,
                      struct swarm_fetch *fetch); /* what an earlier life left, in slices */
/* The piece is here and verified. The fetch may be gone afterwards. */
void swarm_fetch_present(struct gossip_swarm *swarm, struct swarm_fetch *fetch, uint8_t kind, uint32_t index,
                         uint64_t bytes, struct gossip_update *update);
void swarm_fetch_answer_ranges(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                               struct gossip_update *update);
/* The content vanished: begin anew. */
void swarm_fetch_restart(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update);
/* Tells every token that it failed, but those that began, or saw progress, less than patience_ms ago; ends
 * the fetch unless somebody else wants it. True: it is gone. */
bool swarm_fetch_fail(struct gossip_swarm *swarm, struct swarm_fetch *fetch, int code, uint32_t patience_ms,
                      struct gossip_update *update);
/* If code is that there is no space, those who want it without a token are told. */
void swarm_fetch_note_room(const struct swarm_fetch *fetch, int code, struct gossip_update *update);
/* Ends a fetch whose content was filled by whomever. True: it is gone. */
bool swarm_fetch_finish_if_filled(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                                  struct gossip_update *update);

/* swarm_holder.c: who may have it */
struct swarm_holder *swarm_holder_find(const struct swarm_fetch *fetch, const struct replica_id *store);
struct swarm_holder *swarm_holder_add(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                                      const struct replica_id *store, uint16_t volume,
                                      enum swarm_holding state);
void swarm_holder_free(struct gossip_swarm *swarm, struct swarm_holder *holder);
/* It must be asked what it has, or told what is here, before anything else. */
bool swarm_holder_needs_connect(const struct swarm_holder *holder);
bool swarm_holder_usable(const struct gossip_swarm *swarm, const struct swarm_holder *holder);
bool swarm_alive(const struct gossip_swarm *swarm, const struct replica_id *store);
bool swarm_holder_has(const struct swarm_holder *holder, uint32_t chunk);
/* Takes in what a peer says that it has. */
void swarm_holder_learn(struct gossip_swarm *swarm, struct swarm_holder *holder, enum swarm_holding state,
                        const uint8_t *bitmap, size_t n);
void swarm_holder_ready(struct gossip_swarm *swarm, struct swarm_holder *holder);
void swarm_fetch_ready(struct gossip_swarm *swarm, struct swarm_fetch *fetch);
/* Begins to ask: holders of the directory, connections. */
void swarm_fetch_start(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update);
/* A small content's current holder failed; or a large one has nobody left to ask: the next one, or a verdict
 * and a later search. */
void swarm_fetch_advance(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update);
/* Asks all holders anew, and the directory for others. The fetch may be gone afterwards. */
void swarm_fetch_search(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update);
void swarm_search_due(struct gossip_swarm *swarm, struct gossip_update *update);
void swarm_dry_due(struct gossip_swarm *swarm, struct gossip_update *update);
void swarm_fetch_search_later(struct gossip_swarm *swarm, struct swarm_fetch *fetch);
void swarm_fetch_dry(struct gossip_swarm *swarm, struct swarm_fetch *fetch);
void swarm_fetch_awake(struct gossip_swarm *swarm, struct swarm_fetch *fetch); /* no longer searching */

/* swarm_pick.c: which piece next */
bool swarm_pick(struct gossip_swarm *swarm, struct swarm_holder *holder, struct replica_piece *ret_piece,
                bool *ret_stolen);
uint32_t swarm_piece_size(const struct replica_content_id *content, uint8_t kind, uint32_t index);

/* swarm_peer.c: other stores, and what was asked of them */
struct swarm_peer *swarm_peer_find(const struct gossip_swarm *swarm, const struct replica_id *store);
struct swarm_peer *swarm_peer_take(struct gossip_swarm *swarm,
                                   const struct replica_id *store); /* a reference; NULL: no room */
void swarm_peer_hold(struct swarm_peer *peer);                      /* a further reference */
void swarm_peer_drop(struct gossip_swarm *swarm, struct swarm_peer *peer);
void swarm_peer_destroy(struct gossip_swarm *swarm, struct swarm_peer *peer);
void swarm_peer_dirty(struct gossip_swarm *swarm, struct swarm_peer *peer);
void swarm_peer_heard(struct gossip_swarm *swarm, const struct replica_id *store); /* it answered */
struct swarm_request *swarm_request_add(struct gossip_swarm *swarm, struct swarm_holder *holder, uint8_t kind,
                                        uint32_t index, bool stolen);
struct swarm_request *swarm_request_find(const struct swarm_fetch *fetch, const struct replica_id *store,
                                         uint8_t kind, uint32_t index);
/* Frees it and returns its credit. cancel: the peer is told. */
void swarm_request_release(struct gossip_swarm *swarm, struct swarm_request *request, bool cancel);

/* swarm_source.c: asking */
void swarm_pump(struct gossip_swarm *swarm, struct gossip_update *update);
void swarm_measure(struct gossip_swarm *swarm, struct swarm_peer *peer, uint64_t asked_ms);
void swarm_piece(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                 struct gossip_update *update);
void swarm_refused(struct gossip_swarm *swarm, const struct replica_id *from, const struct swarm_item *item,
                   struct gossip_update *update);

/* swarm_deadline.c: waiting too long */
void swarm_tick(struct gossip_swarm *swarm, struct gossip_update *update);
void swarm_take_over(struct gossip_swarm *swarm,
                     struct swarm_fetch *fetch); /* from a slow peer to one that is idle */
void swarm_member_dead(struct gossip_swarm *swarm, const struct replica_id *store,
                       struct gossip_update *update);

/* swarm_message.c: the wire */
int swarm_message(struct gossip_swarm *swarm, const struct gossip_message *message,
                  struct gossip_update *update);
void swarm_send_connect(struct gossip_swarm *swarm, const struct swarm_holder *holder,
                        struct gossip_update *update);
void swarm_send_asks(struct gossip_swarm *swarm, struct swarm_peer *peer, struct gossip_update *update);
void swarm_send_cancels(struct gossip_swarm *swarm, struct swarm_peer *peer, struct gossip_update *update);
void swarm_pack_cancel(struct swarm_peer *peer, const struct swarm_request *request);
void swarm_send_refuse(struct gossip_swarm *swarm, const struct replica_id *to,
                       const struct swarm_item *items, size_t n, const struct replica_id *others,
                       size_t others_n, struct gossip_update *update);
void swarm_send_map(struct gossip_swarm *swarm, const struct replica_id *to,
                    const struct replica_content_id *content, enum swarm_holding state,
                    const struct replica_id *others, size_t others_n, struct gossip_update *update);
/* What arrived since, to everybody connected; whole: all of it. */
void swarm_send_news(struct gossip_swarm *swarm, struct swarm_fetch *fetch, bool whole,
                     struct gossip_update *update);
void swarm_telling_due(struct gossip_swarm *swarm, struct gossip_update *update);

/* swarm_serve.c: giving */
void swarm_serve_connect(struct gossip_swarm *swarm, const struct gossip_principal *from,
                         const struct replica_id *volume, const struct replica_content_id *content,
                         const uint8_t *bitmap, size_t bitmap_n, struct gossip_update *update);
void swarm_serve_asks(struct gossip_swarm *swarm, const struct gossip_principal *from,
                      struct swarm_item *items, size_t n, struct gossip_update *update);
void swarm_serve_cancels(struct gossip_swarm *swarm, const struct replica_id *from,
                         const struct swarm_item *items, size_t n);
void swarm_serve_forget(struct gossip_swarm *swarm, struct swarm_peer *peer);
void swarm_uploaded(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                    struct gossip_update *update);
void swarm_upload_some(struct gossip_swarm *swarm, struct gossip_update *update);
void swarm_serve_close(struct gossip_swarm *swarm);

/* swarm_check.c: asserts what must hold between steps; walks everything. */
void swarm_check_invariants(const struct gossip_swarm *swarm);

/* swarm_table.c: volumes by number. Errors: NOSPACE, NOMEM. */
int swarm_volume_number(struct gossip_swarm *swarm, const struct replica_id *volume, uint16_t *ret_number);

static inline bool swarm_bit(const uint64_t *bits, uint32_t index)
{
    return bits[index / 64] >> (index % 64) & 1;
}

static inline void swarm_bit_set(uint64_t *bits, uint32_t index, bool value)
{
    if (value)
        bits[index / 64] |= (uint64_t)1 << (index % 64);
    else
        bits[index / 64] &= ~((uint64_t)1 << (index % 64));
}

static inline size_t swarm_bit_words(uint32_t n)
{
    return ((size_t)n + 63) / 64;
}

#endif
