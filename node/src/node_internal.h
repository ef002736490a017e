/* The inside of the shell, shared by node*.c. Loop thread only, but for what says otherwise.
 *
 *   node.c           making, running and unmaking; accessors
 *   node_step.c      steps of the peer, their batches, what waits for a sync, timers
 *   node_request.c   local requests and their answers
 *   node_wire.c      control messages: in, out, and to ourselves
 *   node_bytes.c     pieces in and out, drafts that become contents, syncs of the map
 *   node_damage.c    contents that were found damaged
 *   node_drafts.c    drafts from one life to the next
 *   node_join.c      resolving --join names
 *   node_notice.c    what an operator reads about members and the cluster; capacity hints
 *   node_space.c     room on the disk: what is refused when there is little, and the way back
 *   node_shutdown.c  signals, the last commits */
#ifndef NODE_NODE_INTERNAL_H
#define NODE_NODE_INTERNAL_H

#include "api/api.h"
#include "node.h"
#include "store/store.h"

#include <pthread.h>
#include <stdatomic.h>

#define NODE_REQUEST_BUCKETS 1024 /* of open requests by token; a power of two */

/* A message of a peer, or of ourselves, on its way to a step. One allocation, payload behind it. */
struct node_message {
    struct node_message *next;
    struct gossip_principal from;
    enum gossip_room room;
    uint8_t type;
    size_t size;
    uint8_t payload[];
};

/* Filled by any thread, emptied by the loop. */
struct node_inbox {
    pthread_mutex_t mutex; /* everything below */
    struct node_message *first, **last;
    size_t bytes;
    uint64_t dropped;
    bool posted;
    struct node_post post;
};

/* A send or an answer that leaves once its batch is durable. */
struct node_waiting {
    struct node_waiting *next;
    uint64_t batch;
    bool is_answer;
    struct gossip_send send;
    struct gossip_answer answer;
    size_t size;
    uint8_t payload[];
};

/* A local request: first in the queue, then open until its final answer. */
struct node_open_request {
    struct node_open_request *next; /* in its bucket */
    uint64_t token;
    enum gossip_peer_request_kind kind;
    struct replica_id view; /* of a commit */
    bool stepped;
    node_answer_fn answer;
    void *context;
};
struct node_queued_request {
    struct node_queued_request *next;
    struct gossip_peer_request request;
};

/* A draft whose settling is not durable yet; its file goes then. */
struct node_settled_draft {
    struct node_settled_draft *next;
    uint64_t batch, draft;
};

/* Contents found damaged, not handled yet. Filled by any thread, emptied by the loop. */
struct node_damage;
struct node_damages {
    pthread_mutex_t mutex; /* everything below */
    struct node_damage *first, **last;
    bool posted;
    struct node_post post;
};

struct node_notice; /* what was last seen of each member */

struct node_space {
    uint64_t floor;   /* bytes to leave free */
    uint64_t reserve; /* bytes of the reserve */
    bool low, critical;
    bool restoring; /* a job makes the reserve anew */
};

struct node {
    const struct node_config *config; /* borrowed, outlives the node */
    struct node_loop *loop;
    struct node_workers *workers; /* long jobs: hashing files, names, the map's sync */
    struct node_workers *movers;  /* pieces in and out: never behind a long job */
    struct node_store *store;
    struct node_syncer *syncer;
    struct node_keyring *keyring;
    struct node_transport *transport;
    struct gossip_principal principal; /* our own */
    struct gossip_peer *peer;
    struct node_api *api;
    char endpoint[GOSSIP_ENDPOINT_MAX + 1]; /* where others reach us */

    /* steps */
    struct gossip_update update;
    bool stepping;
    uint64_t batch, requested, synced; /* last number given, sent to the syncer, durable */
    uint64_t quiet_batch; /* of the last step that was not told of a sync: a room may wait for it */
    bool quiet_armed;
    bool contents_dirty; /* something was filled since the last request to the syncer */
    int failed;          /* the code of a write or sync that failed: nothing is acknowledged any more */
    int fatal;           /* the peer cannot go on */
    bool again_posted;
    struct node_post again;
    struct node_timer *wake, *quiet;
    uint64_t wake_at_ms;
    struct node_waiting *waiting, **waiting_last;
    size_t waiting_bytes;
    uint64_t waiting_dropped;
    struct settle *settling; /* drafts that are becoming contents */
    struct node_settled_draft *settled, **settled_last;

    /* requests */
    uint64_t next_token;
    struct node_open_request *open[NODE_REQUEST_BUCKETS];
    size_t commits_open;
    struct node_queued_request *queue, **queue_last;
    bool queue_posted;
    struct node_post queue_post;

    struct node_inbox inbox;

    /* bytes */
    atomic_size_t arriving_bytes; /* any thread */
    atomic_uint_fast64_t arrivals_dropped;
    size_t uploading;
    bool map_syncing, map_sync_again;

    uint64_t first_draft; /* of this life */

    /* damage */
    struct node_damages damages;
    struct node_timer *heal;
    struct replica_content_id healed; /* the last one looked at in this pass */
    bool healing;

    /* join */
    struct node_timer *resolve;
    bool resolving;

    struct node_space space;
    bool reopens; /* the loop was stopped for the store to be opened anew */

    /* notice */
    struct node_timer *look;
    struct node_notice *notice;
    bool cluster_known;
    char waiting_text[256];
    uint64_t capacity_told_ms, capacity_told;

    /* shutdown */
    int signal_fd;
    struct node_watch *signal_watch;
    struct node_timer *deadline, *tick, *left;
    unsigned signals;
    bool leaving;          /* said so to the others */
    bool stopping, ending; /* ending: no step any more, only collecting what threads still post */
    size_t last_commits;   /* asked at shutdown, not answered yet */
    size_t unfinished;
};

/* node_step.c */
int node_step_init(struct node *node);
void node_step_close(struct node *node);
/* One step of the peer and all that follows from it. event's time and batches are filled in here. Never from
 * within a step. */
void node_step(struct node *node, struct gossip_peer_event *event);
void node_step_timer(struct node *node);
void node_on_synced(void *context, uint64_t batch, int code);
/* A write or a sync failed: said once, to the peer and the operator. */
void node_fail(struct node *node, const char *what, int code);
/* The peer cannot go on (no memory, damaged state): node_run returns code. */
void node_stop_fatally(struct node *node, int code);

/* node_request.c */
void node_request_init(struct node *node);
void node_request_close(struct node *node);
void node_deliver_answer(struct node *node, const struct gossip_answer *answer, const uint8_t *result,
                         size_t n);
/* The store failed before this answer was durable. */
void node_deliver_lost(struct node *node, uint64_t token, int code, bool final);
/* Answers what a peer whose store has failed will not answer any more. */
void node_requests_fail(struct node *node);

/* node_wire.c */
void node_wire_init(struct node *node);
void node_wire_close(struct node *node);
void node_send(struct node *node, const struct gossip_send *send, const uint8_t *payload);
void node_on_message(void *context, enum node_channel channel, const struct gossip_principal *from,
                     const uint8_t *bytes, size_t n); /* any thread */
/* The address of a store; NULL if it is not known. */
const char *node_endpoint_of(const struct node *node, const struct replica_id *store);

/* node_bytes.c */
void node_arrive(struct node *node, const struct gossip_principal *from, const uint8_t *bytes,
                 size_t n); /* any thread */
void node_upload(struct node *node, const struct gossip_upload *upload);
void node_settle(struct node *node, const struct gossip_settle *settle);
void node_forget_settled(struct node *node); /* those whose settling is durable */
void node_map_sync(struct node *node);

/* node_damage.c */
void node_damage_init(struct node *node);
int node_damage_start(struct node *node); /* the peer has started */
void node_damage_close(struct node *node);
void node_on_damage(void *context, const struct replica_content_id *content,
                    const char *where); /* any thread */

/* node_drafts.c */
int node_drafts_start(struct node *node); /* the peer is made, and has not started */
int node_drafts_end(struct node *node);   /* nothing is written any more */

/* node_join.c */
int node_join_init(struct node *node);

/* node_notice.c */
int node_notice_init(struct node *node);
void node_notice_close(struct node *node);
void node_notice_cluster(struct node *node); /* after each step */
uint64_t node_capacity_free(struct node *node);
bool node_votes(const struct node *node); /* a candidate, by configuration */
/* The limit on contents that the configuration means; 0: what the disk has. */
uint64_t node_capacity_limit(const struct node_config *config, bool votes);

/* node.c: whether a node could run with what the key file holds now. Errors: those of node_new; ret_message. */
int node_check_keys(const struct node_config *config, char **ret_message);

/* node_space.c */
int node_space_init(struct node *node);
void node_space_look(struct node *node); /* now; cheap */
/* After a failure: whether there is room to open the store again; then the loop ends. */
void node_space_reopen(struct node *node);

/* node_shutdown.c */
int node_signals_init(struct node *node);
void node_signals_close(struct node *node);

#endif
