/* volume: one store's replica of one volume: its log of deltas, which of them are held, committed, ordered and applied, and the proposals
 * that it holds for writers. The protocol around it (who may mint, when something is committed) is gossip's.
 *
 *   stored     the contiguous prefix of each actor's deltas that lies in the log
 *   held       the prefix that a voter would ack: dependencies held and closure filled; raised by replica_volume_hold
 *   committed  what a majority is known to hold; may run ahead of stored
 *   ordered    what has a place in the order of application (apply_seq 1, 2, 3 …), recorded in the log
 *   applied    what the map shows
 * applied ⊆ ordered ⊆ stored ∩ committed; base ⊆ applied. A delta is applied to the map only once its place in the order is durable, so after a crash the
 * map never shows what the log does not know, and applying again from the last checkpoint writes the same records.
 *
 * Writes go into the log and map batches given; the volume's own memory changes at once, so the batches must be applied whatever else
 * happens, or the volume be destroyed and loaded again. Records: docs/storage-format.md, "Log". Pure. */
#ifndef REPLICA_VOLUME_H
#define REPLICA_VOLUME_H

#include "replica/contents.h"
#include "replica/map.h"

#define REPLICA_DOTS_PER_ID 8 /* dots minted for one commit id; each is a retry elsewhere */

struct replica_volume;

struct replica_volume_options {
    struct replica_kv *log, *map;      /* borrowed; only read here */
    struct replica_contents *contents; /* borrowed */
    struct replica_id volume;
    struct replica_id store; /* this one */
};
/* Loads, or starts empty. A map that is behind the last checkpoint (lost, or made anew) is applied from the start again.
 * Errors: CORRUPT; EXPIRED: it would have to, and the log begins behind an image; STALE: the map shows what the log has lost; IO, NOMEM. */
int replica_volume_new(const struct replica_volume_options *options, struct replica_volume **ret_volume);
void replica_volume_destroy(struct replica_volume **volume);

/* A copy of the counters, borrowed until the next call that writes. */
struct replica_volume_state {
    struct replica_id id;
    struct replica_vector stored, held, committed, ordered, applied;
    struct replica_vector base; /* what an image brought: the log begins after it; empty without one */
    uint64_t ordered_seq, applied_seq;
    uint64_t hlc_high;            /* highest hlc of any delta ever stored */
    uint64_t last_commit_ms;      /* writer's clock of the newest applied delta; 0: none */
    struct replica_totals totals; /* of applied_seq */
};
const struct replica_volume_state *replica_volume_state(const struct replica_volume *volume);
const struct replica_map *replica_volume_map(const struct replica_volume *volume);

/* Adds a delta record that came from a peer. Errors: MALFORMED, EXISTS (already stored), STALE (a gap before it: ask for the earlier ones);
 * then nothing changed. Carried contents are not ingested here. */
int replica_volume_store(struct replica_volume *volume, const uint8_t *record, size_t n,
                         struct replica_kv_batch *log);

/* Mints the next dot of actor for a proposal (replica_volume_proposal's bytes) under a stamp, and stores it.
 * ret_record: the delta record, initialised by the caller. Errors: TOOBIG, CORRUPT, NOMEM. */
int replica_volume_mint(struct replica_volume *volume, const struct replica_actor *actor,
                        const uint8_t *proposal, size_t n, uint64_t stamp_hlc, struct replica_kv_batch *log,
                        struct replica_dot *ret_dot, struct replica_buffer *ret_record);

/* A stored delta's record. Errors: NOTFOUND, CORRUPT. */
int replica_volume_read(const struct replica_volume *volume, const struct replica_kv_batch *pending,
                        const struct replica_dot *dot, struct replica_buffer *ret_record);

/* A dot of that commit id that `within` covers (held: what this voter knows; committed: its fate). Errors: NOTFOUND. */
int replica_volume_find(const struct replica_volume *volume, const struct replica_kv_batch *pending,
                        const struct replica_id *commit, const struct replica_vector *within,
                        struct replica_dot *ret_dot);

/* The dot is next in its actor's prefix, its dependencies are held and its closure is filled (all checked by the caller): held grows. */
int replica_volume_hold(struct replica_volume *volume, const struct replica_dot *dot);
/* held as of the last sync; written with the head, so that a restart begins from it. Only ever what is durable, contents included. */
void replica_volume_set_durable(struct replica_volume *volume, const struct replica_vector *held);

/* What is known to be held by a majority. *ret_rose: it was news. Errors: TOOBIG. */
int replica_volume_commit(struct replica_volume *volume, const struct replica_vector *committed,
                          struct replica_kv_batch *log, bool *ret_rose);

/* Gives places in the order to what is stored, committed and has its dependencies ordered; at most max. *ret_n: how many. */
int replica_volume_order(struct replica_volume *volume, size_t max, struct replica_kv_batch *log,
                         size_t *ret_n);
/* Places up to ordered_seq are durable: their deltas may be applied. */
void replica_volume_order_synced(struct replica_volume *volume, uint64_t ordered_seq);
/* Applies the next ordered, durable delta, or a bounded piece of it. *reads grows. *ret_wanted: an op list that is missing here (length
 * 0: none). Returns AGAIN if more could be done at once, 0 if not. */
int replica_volume_apply(struct replica_volume *volume, size_t *reads, struct replica_kv_batch *log,
                         struct replica_kv_batch *map, struct replica_content_id *ret_wanted);

/* The map is durable as of when the checkpoint was taken: writes it to the log; a restart applies again from there. */
void replica_volume_checkpoint_take(struct replica_volume *volume);
int replica_volume_checkpoint_write(struct replica_volume *volume, struct replica_kv_batch *log);
uint64_t replica_volume_checkpoint_age(
    const struct replica_volume *volume); /* deltas applied since the last one written */

/* Proposals: what a voter holds for a writer, pinned to the commit id until its outcome is known. record: a delta without dot and stamp.
 * Putting the same one again changes nothing. Errors: MALFORMED, MISMATCH (another proposal under that id), NOTFOUND. */
int replica_volume_propose(struct replica_volume *volume, const uint8_t *record, size_t n,
                           struct replica_kv_batch *log);
int replica_volume_proposal(const struct replica_volume *volume, const struct replica_kv_batch *pending,
                            const struct replica_id *commit, struct replica_buffer *ret_record);
/* All that are in the log, in no order. visit's first non-zero result ends it and is returned. */
int replica_volume_proposals(const struct replica_volume *volume,
                             int (*visit)(void *context, const uint8_t *record, size_t n), void *context);
/* Takes a proposal out of the log; its pins are the caller's to take out before. */
void replica_volume_withdraw(struct replica_volume *volume, const struct replica_id *commit,
                             struct replica_kv_batch *log);
/* Pins one content of a proposal or stored delta; applying the delta unpins. */
void replica_volume_pin(struct replica_volume *volume, const struct replica_id *commit,
                        const struct replica_content_id *content, struct replica_kv_batch *log);
void replica_volume_unpin(struct replica_volume *volume, const struct replica_id *commit,
                          const struct replica_content_id *content, struct replica_kv_batch *log);
/* Whether content is pinned by any proposal of that volume (NULL: of any). One seek. */
int replica_volume_pins(struct replica_kv *log, const struct replica_id *volume,
                        const struct replica_content_id *content, bool *ret_pinned);
/* The commits of this volume whose proposal or delta pins content, each visited until visit returns other than 0, which is
 * handed on. */
int replica_volume_pinned_by(const struct replica_volume *volume, const struct replica_content_id *content,
                             int (*visit)(void *context, const struct replica_id *commit), void *context);

/* Deltas in the order of application, newest first (what an image brought is not among them), below before_seq (0: from the newest); first those that are stored but not ordered
 * (committed false, apply_seq 0) if before_seq is 0. */
int replica_volume_commits(struct replica_volume *volume, uint64_t before_seq, size_t max,
                           int (*visit)(void *context, uint64_t apply_seq, bool committed,
                                        const struct replica_delta *delta),
                           void *context);
/* The dot at a place in the order. Errors: NOTFOUND. */
int replica_volume_at(const struct replica_volume *volume, uint64_t apply_seq, struct replica_dot *ret_dot);

/* Whether the op list of delta is here, and where: *ret_ops points into the record, or into `into` (filled from contents).
 * Errors: ABSENT, TOOBIG, IO. */
int replica_delta_ops(const struct replica_delta *delta, struct replica_contents *contents,
                      struct replica_buffer *into, const uint8_t **ret_ops, size_t *ret_n);

#endif
