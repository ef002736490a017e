/* The inside of a world. Parts:
 *   queue.c    events by virtual time
 *   shell.c    a node: steps, batches, syncs, orders, crashes
 *   network.c  messages and pieces under way
 *   calls.c    what tests ask of nodes
 *   oracle.c   what must hold, looked at after each step and at the end
 *   world.c    making, running, faults */
#ifndef SIM_SRC_INSIDE_H
#define SIM_SRC_INSIDE_H

#include "sim/world.h"

#include "replica/contents_memory.h"
#include "replica/kv_memory.h"

#define WALL_START_MS 1700000000000u /* some day in 2023 */
/* Of one node within one virtual millisecond; more is a loop without progress. */
#define STEPS_AT_ONCE   200000
#define VOLUMES_WATCHED 8
#define FAILURE_MAX     512

enum event_kind {
    EVENT_WAKE,
    EVENT_MESSAGE,
    EVENT_PIECE, /* bytes of a piece arrived */
    EVENT_UPLOADED,
    EVENT_SYNCED, /* the log, with the contents */
    EVENT_MAP_SYNCED,
    EVENT_SETTLE,  /* a draft is hashed … */
    EVENT_SETTLED, /* … and its node hears so */
};

struct event {
    uint64_t at_ms, order;
    enum event_kind kind;
    size_t node;
    uint64_t life; /* of node: an event of an earlier life is void; 0: any */
    size_t from;
    enum gossip_room room;
    uint8_t type;
    uint8_t *bytes; /* owned */
    size_t size;
    struct replica_content_id content;
    struct replica_piece piece;
    struct replica_id view;
    uint64_t draft;
    int code;
    size_t count; /* kv batches that a sync covers */
    uint64_t batch;
};

struct queue {
    struct event **events; /* binary heap */
    size_t n, capacity;
    uint64_t order;
};
void queue_push(struct queue *queue, struct event *event); /* taken */
struct event *queue_pop(struct queue *queue);              /* returned to the caller; NULL: none */
const struct event *queue_peek(const struct queue *queue);
void event_free(struct event *event);
struct event *event_new(enum event_kind kind, uint64_t at_ms, size_t node, uint64_t life);

/* What waits for its batch to be durable. */
struct held {
    uint64_t batch;
    bool is_answer;
    struct gossip_send send;
    struct gossip_answer answer;
    uint8_t *bytes; /* owned */
    size_t size;
};

struct draft {
    uint8_t *bytes;
    size_t size;
};

struct node {
    struct replica_id store;
    char endpoint[GOSSIP_ENDPOINT_MAX + 1];
    struct gossip_principal principal;
    struct replica_kv *log, *map;
    struct replica_contents *contents;
    struct gossip_peer *peer; /* NULL: down */
    uint64_t generation;      /* also the life's number */
    uint64_t batch, synced;
    bool syncing, dirty; /* dirty: something was written or waits since the sync began */
    uint64_t wake_ms;
    uint64_t paused_until_ms;
    int64_t clock_offset_ms;
    bool full;                               /* takes in no more bytes; what it has taken in has its room */
    uint64_t disk_bytes_per_s, disk_free_ms; /* 0: no matter; when it has written what was sent so far */
    uint64_t writes, crash_at_write;         /* 0: not planned */
    uint64_t fail_at_write;                  /* 0: not planned */
    bool failed;                             /* … and did: nothing is written any more */
    uint64_t last_step_ms, steps_at_once;
    struct held *held; /* in order of batch */
    size_t held_n, held_capacity;
    struct draft *drafts; /* by number - 1; outlive the node */
    size_t drafts_n, drafts_capacity;
    struct replica_vector seen[VOLUMES_WATCHED]; /* applied, as last looked at by the oracle */
    struct replica_vector seen_held[VOLUMES_WATCHED];
};

enum call_kind { CALL_CONTROL, CALL_OPEN, CALL_EDIT, CALL_COMMIT, CALL_RELOAD, CALL_FETCH, CALL_OTHER };

struct world_call {
    enum call_kind kind;
    uint64_t token;
    size_t node;
    uint64_t life;
    int code;
    struct replica_buffer answer;
    struct replica_id view;
    size_t volume; /* index of the watched one; SIZE_MAX: none */
    /* an edit */
    char *path;
    bool removes;
    uint8_t *bytes;
    size_t size;
    uint64_t draft; /* 0: inline */
    uint64_t mtime_ms;
    struct replica_content_id content; /* of bytes, also when they are inline */
    bool superseded;                   /* no later commit has to publish it */
    /* when it began */
    uint64_t started_ms;
    size_t calls_before; /* how many calls had begun */
    size_t acknowledged_before;
    uint64_t stamp_before;       /* highest hlc acknowledged */
    struct replica_vector floor; /* what a reload that begins now must show */
    struct replica_id in_flight; /* the view's commit when this call came, which is not its own; zero: none */
    struct replica_id commit;    /* its own, once seen */
    size_t calls_at_answer;      /* how many calls had begun when it was answered */
};

/* A commit that returned success. */
struct acknowledged {
    size_t volume;
    struct replica_id commit;
    struct replica_dot dot;
    uint64_t hlc; /* 0: not known */
};

struct state_seen {
    bool used;
    size_t volume;
    struct replica_vector applied;
    uint8_t hash[REPLICA_HASH_SIZE];
};

struct watched {
    struct replica_id id;
    struct replica_vector floor; /* join of what reloads showed and commits returned */
    uint64_t hlc_high;           /* acknowledged */
};

struct world {
    struct world_options options;
    struct gossip_random random;
    uint64_t now_ms;
    struct queue queue;
    struct gossip_update update;
    struct node nodes[WORLD_NODES_MAX];
    bool cut[WORLD_NODES_MAX][WORLD_NODES_MAX];
    world_filter_fn filter;
    void *filter_context;
    struct event **kept; /* by the filter */
    size_t kept_n, kept_capacity;
    struct world_call **calls; /* by token - 1 */
    size_t calls_n, calls_capacity;
    struct watched volumes[VOLUMES_WATCHED];
    size_t volumes_n;
    struct acknowledged *acknowledged;
    size_t acknowledged_n, acknowledged_capacity;
    struct replica_id *refused; /* commit ids that were given up: nothing happened */
    size_t refused_n, refused_capacity;
    struct state_seen *states;
    size_t states_n, states_capacity;
    const struct world_call **due; /* puts that an acknowledged commit had to publish */
    size_t due_n, due_capacity;
    uint64_t hash;
    bool failed;
    char failure[FAILURE_MAX];
};

/* Grows an array; aborts without memory. */
void *world_grow(void *items, size_t n, size_t *capacity, size_t item_size);
void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_trace(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_mix(struct world *world, uint64_t value); /* into the trace hash */
uint64_t world_draw(struct world *world, uint64_t min, uint64_t max);
bool world_chance(struct world *world, uint32_t percent);

void shell_new(struct world *world, size_t node);
void shell_close(struct world *world, size_t node);
void shell_start(struct world *world, size_t node);
void shell_stop(struct world *world, size_t node, bool lose_nothing);
void shell_step(struct world *world, size_t node, struct gossip_peer_event *event);
void shell_event(struct world *world, struct event *event); /* borrowed */
uint64_t shell_add_draft(struct world *world, size_t node, const void *bytes, size_t n);

void network_send(struct world *world, size_t from, const struct gossip_send *send, const uint8_t *bytes);
void network_upload(struct world *world, size_t from, const struct gossip_upload *upload);
void network_push(struct world *world, struct event *event); /* lost, doubled and delayed as drawn; taken */

void calls_answer(struct world *world, size_t node, const struct gossip_answer *answer, const uint8_t *bytes);
void calls_gone(struct world *world, size_t node); /* the node went down */

void oracle_after_step(struct world *world, size_t node);
void oracle_call_started(struct world *world, struct world_call *call);
void oracle_call_answered(struct world *world, struct world_call *call);
void oracle_node_loaded(struct world *world, size_t node); /* before its first step */
void oracle_node_lost(struct world *world, size_t node);   /* drafts that were not synced may be gone */
size_t oracle_watch(struct world *world, const struct replica_id *volume);
size_t oracle_index(const struct world *world, const struct replica_id *volume);

#endif
