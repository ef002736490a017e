/* swarm: contents from several holders at once.
 *
 * Each content being fetched asks its known holders (a hint, the volume's voters, others they name) for pieces, with a bounded number of
 * bytes outstanding per source (credit, granted by the receiver and returned once the shell has verified and written a piece), a
 * deadline per request that adapts (srtt + 4·dev), CANCEL before a re-request elsewhere, and exclusion of a source that sent a bad
 * piece. What was verified stays: an interrupted fetch resumes. Serving: a bounded number of upload slots; a busy node says so and names
 * others. Bytes never pass through here: uploads are orders to the shell, arrivals come as PIECE events after verification. */
#ifndef GOSSIP_SWARM_H
#define GOSSIP_SWARM_H

#include "gossip/member.h"

/* Contents wanted at once: more than one commit can name (about 300,000); a small one costs 250 bytes. More is refused: BUSY, and a WANT
 * without token is dropped. */
#define GOSSIP_SWARM_FETCHES_MAX (1u << 19)
#define GOSSIP_SWARM_SOURCES_MAX 16 /* sources of one content */

struct gossip_swarm_options {
    uint32_t upload_slots; /* pieces being sent at once; 10 */
    uint32_t outstanding;  /* pieces asked of one source at once; 8 (one is 1.96 of the bound, eight 1.06) */
    uint64_t credit_bytes; /* outstanding bytes over all fetches; 64 MiB: bounds the shell's buffers */
    uint32_t request_ms_min; /* least deadline of a request; 2000 */
    uint32_t stalled_ms;     /* without any progress: a visible state; 10000 */
    uint32_t search_ms;      /* between searches for holders; 1000, backing off to 10000 */
};
void gossip_swarm_options_default(struct gossip_swarm_options *options);

/* How the room learns who may have, or may get, a volume's contents. */
struct gossip_swarm_directory {
    void *context;
    /* Stores to ask for contents of that volume, best first (voters, alive ones first); returns how many were written to ret. */
    size_t (*holders)(void *context, const struct replica_id *volume, struct replica_id *ret, size_t max);
    /* Whether this principal may read the volume. */
    bool (*may_read)(void *context, const struct replica_id *volume,
                     const struct gossip_principal *principal);
    /* Whether content belongs to that volume as far as this node knows: only then is it served in the volume's name. */
    bool (*belongs)(void *context, const struct replica_id *volume, const struct replica_content_id *content);
};

struct gossip_swarm;

/* contents is read for states and presence only (begin and remove too); borrowed, as member. Errors: NOMEM. */
int gossip_swarm_new(const struct gossip_swarm_options *options, struct replica_contents *contents,
                     const struct gossip_member *member, const struct gossip_swarm_directory *directory,
                     const struct replica_id *self, uint64_t seed, struct gossip_swarm **ret_swarm);
void gossip_swarm_destroy(struct gossip_swarm **swarm);

enum gossip_swarm_event_kind {
    GOSSIP_SWARM_EVENT_TIMER,
    GOSSIP_SWARM_EVENT_MESSAGE,
    GOSSIP_SWARM_EVENT_WANT, /* volume, content, source (may be zero), token (0: none) → whole content; answers token when filled:
                                    0, ABSENT (all holders that could be reached say nobody has it), UNAVAILABLE (could not reach them), NOSPACE */
    GOSSIP_SWARM_EVENT_WANT_RANGE, /* as WANT, for chunks [first, first + count): ahead of everything else, in order */
    GOSSIP_SWARM_EVENT_UNWANT, /* one WANT of content without token is taken back; the last one ends the fetch (what was fetched stays) */
    GOSSIP_SWARM_EVENT_CANCEL, /* the caller of token has gone */
    GOSSIP_SWARM_EVENT_PIECE, /* the shell verified and wrote (or not: code) a piece that came from `source` */
    GOSSIP_SWARM_EVENT_UPLOADED, /* the shell handed an upload to the transport, or dropped it */
    GOSSIP_SWARM_EVENT_MEMBER_DEAD,
};
struct gossip_swarm_event {
    enum gossip_swarm_event_kind kind;
    struct gossip_time time;
    struct gossip_message message;
    struct replica_id volume;
    struct replica_id source;
    struct replica_content_id content;
    struct replica_piece piece;
    uint32_t first, count;
    int code;
    uint64_t bytes;
    uint64_t token;
};
/* A WANT without a token ends with NOTE_HAVE; it is tried for ever, with back-off, until UNWANT. Progress of tokens is answered about
 * once a second as (bytes present, bytes total). Errors: MALFORMED for a bad message. */
int gossip_swarm_step(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                      struct gossip_update *update);

/* Whether somebody waits for content: what is here of it is somebody's work. */
bool gossip_swarm_is_fetching(const struct gossip_swarm *swarm, const struct replica_content_id *content);

struct gossip_swarm_status {
    size_t fetches, waiting, stalled;
    size_t uploads;
    uint64_t received_bytes, sent_bytes, bad_pieces, duplicate_bytes;
};
void gossip_swarm_status(const struct gossip_swarm *swarm, struct gossip_swarm_status *ret_status);
/* Visits fetches in order of content id: bytes present and total, sources, whether stalled. */
int gossip_swarm_each(const struct gossip_swarm *swarm,
                      int (*visit)(void *context, const struct replica_content_id *content, uint64_t present,
                                   size_t sources, bool stalled),
                      void *context);

#endif
