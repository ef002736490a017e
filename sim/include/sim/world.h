/* world: some nodes on a virtual clock, network and disk, in one thread, everything drawn from one seed.
 *
 * Each node is a shell around the shipped gossip_peer, exactly as gossip/step.h's opening comment asks of
 * one: batches are applied at once and numbered; what is marked durable leaves only when a sync, which takes
 * drawn virtual time, has covered its batch. The log and the map are memory kvs, contents are in memory; a
 * crash loses a drawn suffix of what was not synced, each kv for itself. Messages take a drawn time, so they
 * overtake each other, and are lost and doubled as the options say.
 *
 * Calls ending in _start return at once; the others run the world until the answer is there. All are made
 * between steps. The oracles look on after each step; the first violation is kept as text (world_failure) and
 * nothing runs after it. Not a place for production code: running out of memory aborts. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "gossip/peer.h"

#define WORLD_NODES_MAX 64
#define WORLD_NODE_NONE SIZE_MAX

struct world;

struct world_options {
    uint64_t seed;
    size_t nodes;
    size_t founders;                     /* the first so many: 1, 3 or 5; the others join, and are caches */
    uint32_t delay_ms_min, delay_ms_max; /* of a message */
    uint32_t straggle_percent;           /* of messages that take up to straggle_ms more */
    uint32_t straggle_ms;
    uint32_t loss_percent, double_percent;
    uint32_t sync_ms_min, sync_ms_max;              /* of the log and of the map */
    uint32_t snapshot_entries;                      /* of the control log; 0: the shipped value */
    uint32_t commit_timeout_ms;                     /* without progress; of commits and reloads */
    void (*trace)(void *context, const char *line); /* may be NULL */
    void *trace_context;
};
void world_options_default(struct world_options *options);

/* Aborts without memory. Nodes are down until booted. */
struct world *world_new(const struct world_options *options);
void world_destroy(struct world **world);

/* Time */
uint64_t world_now(const struct world *world);
void world_run_for(struct world *world, uint64_t ms);
/* Runs until done says so; false: it did not within ms, or an oracle was violated. */
bool world_run_until(struct world *world, bool (*done)(void *context), void *context, uint64_t ms);

/* Nodes */
void world_boot(struct world *world, size_t node);
/* Power is lost: what was not synced is gone from a drawn point on. lose_nothing: only the process dies. */
void world_crash(struct world *world, size_t node, bool lose_nothing);
/* The process ends in order: the others are told, and what waits for its syncs is done. */
void world_leave(struct world *world, size_t node);
/* As crash, right after the k-th write to its log from now on (1: the next; 0: not at all). */
void world_crash_at_write(struct world *world, size_t node, uint64_t k);
/* The k-th write to its log from now on fails, for want of room (0: none does): the node goes on with what needs no writing, until it is
 * crashed and started again. */
void world_fail_at_write(struct world *world, size_t node, uint64_t k);
bool world_has_failed(const struct world *world, size_t node);
uint64_t world_writes(const struct world *world, size_t node); /* to its log so far, over all lives */
void world_restart(struct world *world, size_t node);          /* a new life, one generation later */
bool world_is_up(const struct world *world, size_t node);
void world_pause(struct world *world, size_t node,
                 uint64_t ms); /* does nothing meanwhile, then everything late */
void world_set_clock(struct world *world, size_t node, int64_t offset_ms); /* of its wall clock */

/* Its contents take no more bytes; or do again. */
void world_fill_disk(struct world *world, size_t node, bool full);
/* A content that is complete there is found damaged, and let go of. */
void world_damage(struct world *world, size_t node, const struct replica_content_id *content);
/* How fast pieces of contents are written there, one after the other; 0: at once. */
void world_set_disk(struct world *world, size_t node, uint64_t bytes_per_s);

/* Network; cuts are one-way if only one direction is cut. */
void world_cut(struct world *world, size_t from, size_t to);
void world_isolate(struct world *world, size_t node); /* both ways, from all others */
void world_heal(struct world *world);                 /* no cuts, no loss, no doubles, no stragglers */
void world_set_faults(struct world *world, uint32_t loss_percent, uint32_t double_percent,
                      uint32_t straggle_percent);

/* Messages of a kind can be held back and let go later, or passed by a filter: 0 pass, 1 drop, 2 hold. */
typedef int (*world_filter_fn)(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type);
void world_set_filter(struct world *world, world_filter_fn filter, void *context);
void world_release(struct world *world); /* what was held is delivered now */

/* Credentials. A founder's is a voter's, all others' a cache's, for every volume; the store stays the node's own. Between its lives,
 * or at once for what others let it do. */
void world_set_principal(struct world *world, size_t node, const struct gossip_principal *principal);
/* Says something to a node now, as whoever is proved to be `from`, whom the world need not know. Returns how many messages
 * the node addressed to that store in the same step; they are not carried anywhere. ret_first: the first one's type and payload;
 * may be NULL. */
struct world_heard {
    uint8_t type;
    struct replica_buffer payload; /* initialised by the caller */
};
size_t world_say(struct world *world, size_t node, const struct gossip_principal *from, enum gossip_room room,
                 uint8_t type, const struct replica_buffer *payload, struct world_heard *ret_first);

/* What stands inside, to look at. NULL while down. */
struct gossip_peer *world_peer(const struct world *world, size_t node);
struct replica_id world_store(const struct world *world, size_t node);
struct replica_volume *world_volume(const struct world *world, size_t node, const struct replica_id *volume);

/* Calls. An answer that the node's crash swallowed has code WORLD_GONE. */
#define WORLD_GONE    1
#define WORLD_PENDING 2

struct world_call;
int world_call_code(const struct world_call *call); /* WORLD_PENDING until there is an answer */
const struct replica_buffer *world_call_answer(const struct world_call *call);
/* Runs until it is answered or gone; returns its code. */
int world_call_wait(struct world *world, struct world_call *call);

/* All founders up, and every node that is up knows the cluster. */
bool world_begin_cluster(struct world *world, uint64_t ms);
/* Runs until every up node knows it too. */
int world_create_volume(struct world *world, size_t node, const char *name, struct replica_id *ret_volume);
int world_open_view(struct world *world, size_t node, const struct replica_id *volume,
                    struct replica_id *ret_view);
/* A view survives a restart of its node. */
int world_put(struct world *world, size_t node, const struct replica_id *view, const char *path,
              const void *bytes, size_t n);
int world_remove(struct world *world, size_t node, const struct replica_id *view, const char *path);
/* Any change of a view, called in steps until it does not return AGAIN; context is borrowed until then. */
int world_edit(struct world *world, size_t node, const struct replica_id *view,
               int (*edit)(void *context, struct replica_view *view, struct replica_kv_batch *log),
               void *context);
int world_commit(struct world *world, size_t node, const struct replica_id *view);
int world_reload(struct world *world, size_t node, const struct replica_id *view);
/* What the view shows at path; contents are fetched if need be. Errors: NOTFOUND, those of a fetch. */
int world_read(struct world *world, size_t node, const struct replica_id *view, const char *path,
               struct replica_buffer *ret_bytes);

/* Any request whose effects the oracles need not know of; its token is drawn here. */
struct world_call *world_request_start(struct world *world, size_t node,
                                       const struct gossip_peer_request *request);
uint64_t world_call_token(const struct world_call *call);
/* Any request to the registry; its names are borrowed until the answer. */
struct world_call *world_control_start(struct world *world, size_t node,
                                       const struct gossip_control_request *request);
struct world_call *world_create_start(struct world *world, size_t node, const char *name);
struct world_call *world_put_start(struct world *world, size_t node, const struct replica_id *view,
                                   const char *path, const void *bytes, size_t n);
struct world_call *world_commit_start(struct world *world, size_t node, const struct replica_id *view);
struct world_call *world_reload_start(struct world *world, size_t node, const struct replica_id *view);

/* Oracles */
const char *world_failure(const struct world *world); /* NULL: none was violated */
uint64_t world_trace_hash(const struct world *world);
size_t world_acknowledged(const struct world *world); /* commits that returned success */
/* Runs until all nodes are up and quiet: no commit is in flight, all voters have applied the same; then
 * checks that nothing acknowledged is lost, that what was called UNAVAILABLE did not happen, that states
 * agree, also by a full scan. False: see world_failure. */
bool world_converge(struct world *world, uint64_t ms);

#endif
