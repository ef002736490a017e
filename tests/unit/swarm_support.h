/* A tiny virtual network of swarm rooms over memory contents: messages take a fixed time, bytes leave each
 * node one piece after the other at its uplink's rate. The shell's part (sending uploads, verifying and
 * writing what arrives) is played here. */
#ifndef TESTS_SWARM_SUPPORT_H
#define TESTS_SWARM_SUPPORT_H

#include "gossip/swarm.h"
#include "replica/contents_memory.h"
#include "replica/error.h"

#define SWARM_NODES_MAX  64
#define SWARM_LATENCY_MS 5

struct swarm_net_node {
    struct gossip_swarm *swarm;
    struct replica_contents *contents;
    struct gossip_member *member; /* NULL: it takes everybody for alive */
    struct gossip_principal principal;
    struct gossip_update update;
    uint64_t wake_ms;
    /* behaviour */
    bool dead;     /* hears and says nothing */
    bool mute;     /* hears, but sends no bytes and no words */
    bool lies;     /* sends wrong bytes */
    bool stranger; /* may not read the volume */
    bool denies;   /* nothing belongs to the volume, as far as it knows */
    uint64_t rate; /* bytes per ms of its uplink */
    uint64_t busy_until_ms;
    /* what happened */
    uint64_t uploaded; /* bytes */
    size_t haves;      /* NOTE_HAVE */
    size_t messages, steps;
    size_t uploading, uploading_max; /* pieces at once */
    int code;                        /* of the last final answer */
    uint64_t answered;               /* its token; 0: none */
    uint64_t answered_ms;
    size_t answers, progress;
};

struct swarm_packet;

struct swarm_net {
    struct swarm_net_node nodes[SWARM_NODES_MAX];
    size_t n;
    uint64_t now_ms;
    struct swarm_packet **heap;
    size_t heap_n, heap_capacity;
    uint64_t sequence;
    struct replica_id volume;
    size_t voters[SWARM_NODES_MAX]; /* what every directory names */
    size_t voters_n;
    unsigned loss_percent; /* of messages and of bytes */
    struct gossip_random random;
    uint64_t trace; /* a hash of all that happened, in order */
    bool holding;   /* steps are not continued: more events follow at once */
};

/* n nodes with default options; the first voters_n are named by every directory. */
struct swarm_net *swarm_net_new(size_t n, size_t voters_n, const struct gossip_swarm_options *options);
void swarm_net_destroy(struct swarm_net **net);
struct replica_id swarm_net_store(size_t node);

/* The room is made anew, its contents stay. */
void swarm_net_restart(struct swarm_net *net, size_t node, const struct gossip_swarm_options *options);

/* Content of that size, different for each seed, put into a node's contents. */
struct replica_content_id swarm_net_put(struct swarm_net *net, size_t node, uint64_t seed, size_t size);
/* A content of chunks of which only those given are not zero. */
struct replica_content_id swarm_net_put_sparse(struct swarm_net *net, size_t node, uint64_t length,
                                               const uint32_t *chunks, size_t n);

void swarm_net_step(struct swarm_net *net, size_t node, const struct gossip_swarm_event *event);
/* source: SIZE_MAX for none. */
void swarm_net_want(struct swarm_net *net, size_t node, const struct replica_content_id *content,
                    size_t source, uint64_t token);
/* All in one go, as a commit that names them does. */
void swarm_net_want_all(struct swarm_net *net, size_t node, const struct replica_content_id *contents,
                        size_t n, size_t source);
void swarm_net_want_range(struct swarm_net *net, size_t node, const struct replica_content_id *content,
                          size_t source, uint32_t first, uint32_t count, uint64_t token);
/* One step with a message made by hand, whose update is left in the node: nothing of it is carried out. */
int swarm_net_message(struct swarm_net *net, const struct gossip_principal *from, size_t to, uint8_t type,
                      const void *payload, size_t size);
void swarm_net_member_dead(struct swarm_net *net, size_t node, size_t dead);

/* Runs until node has the content, or for ms; true: it has. */
bool swarm_net_run_until_filled(struct swarm_net *net, size_t node, const struct replica_content_id *content,
                                uint64_t ms);
/* Runs until node answered token, or for ms; true: it did. */
bool swarm_net_run_until_answer(struct swarm_net *net, size_t node, uint64_t token, uint64_t ms);
void swarm_net_run(struct swarm_net *net, uint64_t ms);

bool swarm_net_is_filled(const struct swarm_net *net, size_t node, const struct replica_content_id *content);
uint32_t swarm_net_chunks(const struct swarm_net *net, size_t node,
                          const struct replica_content_id *content); /* present */
struct gossip_swarm_status swarm_net_status(const struct swarm_net *net, size_t node);

#endif
