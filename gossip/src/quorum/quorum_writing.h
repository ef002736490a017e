/* What the parts of a writer share (quorum_writer.c routes to them):
 *   quorum_writer_build.c     drafts become contents, the overlay an op list, both a proposal
 *   quorum_writer_prepare.c   voters are asked to hold the closure
 *   quorum_writer_mint.c      the stamp, and who is asked to mint
 *   quorum_writer_end.c       thawed, or committed and shown */
#ifndef GOSSIP_SRC_QUORUM_WRITING_H
#define GOSSIP_SRC_QUORUM_WRITING_H

#include "quorum/quorum.h"

#define CALLERS_MAX 256 /* callers waiting for one view's commit */

enum commit_phase {
    COMMIT_SETTLING,  /* drafts become contents */
    COMMIT_BUILDING,  /* overlay becomes op list */
    COMMIT_PREPARING, /* voters fetch the closure */
    COMMIT_MINTING,   /* a request to mint may have been sent */
    COMMIT_APPLYING,  /* committed; shown here soon */
};

struct commit_answer {
    bool any, ready, refused;
    int code;
    uint64_t hlc, clock_ms;
    uint64_t arrived; /* bytes, as it said last */
    uint64_t
        progress; /* how much that rose in all: not without end, for one voter alone must not keep a commit waiting */
};

/* One view's commit in flight. */
struct commit {
    struct replica_id view, volume, id;
    enum commit_phase phase;
    uint64_t *callers, *later; /* tokens: of this commit, and of the next one */
    size_t callers_n, later_n;
    uint32_t timeout_ms;
    bool again;             /* ended; the next step starts what later callers wait for */
    struct replica_dot dot; /* once committed */
    uint64_t
        applied_batch; /* APPLYING: the batch of the step that found it applied, and may hold its map records; 0: not yet */
    bool indeterminate; /* the callers were told; it is still driven */
    uint64_t time_ms;
    uint64_t draft;                 /* SETTLING: the one being settled */
    struct replica_buffer position; /* BUILDING */
    struct replica_buffer ops;
    uint64_t op_count, byte_count;
    struct replica_buffer proposal;        /* from PREPARING on */
    struct replica_content_id ops_content; /* kept from collection; length 0: none */
    uint64_t epoch;                        /* PREPARING and MINTING: of the configuration asked */
    enum gossip_phase config_phase;
    struct commit_answer answers[GOSSIP_VOTERS_MAX];
    struct replica_stamp stamp; /* MINTING */
    struct replica_id coordinator;
    uint64_t retry_at_ms, retry_ms, progress_at_ms;
};

/* quorum_writer.c */
struct commit *writing_find(const struct gossip_quorum *quorum, const struct replica_id *view);
void writing_free(struct commit *commit);
/* The next retry is due soon. */
void writing_set_retry(const struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                       struct gossip_update *update);

/* quorum_writer_build.c */
int writing_settle_next(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                        struct gossip_update *update);
int writing_settled(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                    struct gossip_update *update);
int writing_build(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                  const struct gossip_quorum_event *event, struct gossip_update *update);

/* quorum_writer_prepare.c */
int writing_start_preparing(struct gossip_quorum *quorum, struct commit *commit,
                            const struct gossip_quorum_event *event, struct gossip_update *update);
/* Tells one voter, or all, that an id was given up. */
void writing_send_abandon(const struct replica_id *volume, const struct replica_id *commit,
                          const struct replica_id *voters, size_t n, struct gossip_update *update);
/* To all voters that are not ready. */
void writing_send_prepares(struct commit *commit, const struct gossip_configuration *configuration,
                           struct gossip_update *update);
int writing_receive_prepared(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                             struct replica_pack_reader *reader, struct commit *commit,
                             const struct gossip_volume *volume, struct gossip_update *update);

/* Nothing moved within the caller's patience: ends it, saying what is known of why. */
int writing_expire(struct gossip_quorum *quorum, struct commit *commit, struct gossip_update *update);

/* quorum_writer_mint.c: a majority is ready. */
int writing_mint(struct gossip_quorum *quorum, struct commit *commit,
                 const struct gossip_configuration *configuration, const struct gossip_quorum_event *event,
                 struct gossip_update *update);
/* False: no voter is prepared. */
bool writing_choose(struct gossip_quorum *quorum, struct commit *commit,
                    const struct gossip_configuration *configuration);
void writing_send_mint(struct commit *commit, struct gossip_update *update);
int writing_receive_outcome(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                            struct replica_pack_reader *reader, struct commit *commit,
                            const struct gossip_volume *volume, struct gossip_update *update);
int writing_look_for_own(struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                         struct gossip_update *update);

/* quorum_writer_end.c: it certainly did not happen. */
int writing_fail(struct gossip_quorum *quorum, struct commit *commit, int code, const char *reason,
                 struct gossip_update *update);
int writing_succeed(struct gossip_quorum *quorum, struct commit *commit, const struct replica_dot *dot,
                    struct gossip_time time, struct gossip_update *update);
void writing_finish(struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                    struct gossip_update *update);
void writing_answer(struct gossip_quorum *quorum, struct commit *commit, struct gossip_update *update);

#endif
