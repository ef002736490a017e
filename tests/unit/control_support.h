/* Control rooms over a tiny virtual network and disks that lose what was not synced. After every step it is checked that
 * a term has one leader, that there is one cluster, that equal indexes mean equal registries, and that logs match. */
#ifndef TESTS_UNIT_CONTROL_SUPPORT_H
#define TESTS_UNIT_CONTROL_SUPPORT_H

#include "control/control.h"
#include "gossip/control.h"
#include "replica/kv_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONTROL_NODES_MAX 8
#define CONTROL_CALLS_MAX 256
#define CONTROL_TERMS_MAX 4096
#define CONTROL_STATES    8192 /* registries remembered by index */
#define CONTROL_PENDING   1    /* a call's code before it was answered */
#define CONTROL_DIED      2    /* its node did */

struct control_packet {
    uint64_t at_ms;
    size_t from, to;
    enum gossip_room room;
    uint8_t type;
    uint8_t *payload;
    size_t size;
};

/* A send or answer that waits for a sync. */
struct control_held {
    uint64_t batch;
    struct gossip_send send;
    struct gossip_answer answer; /* token 0: a send */
    uint8_t *payload;
};

struct control_call {
    size_t node;
    int code;
    bool found;           /* a volume came with it … */
    struct replica_id id; /* … this one */
    char name[GOSSIP_VOLUME_NAME_MAX + 2];
};

struct control_node {
    struct gossip_control_options options;
    struct gossip_member_record record;
    struct gossip_principal principal;
    char join[CONTROL_NODES_MAX][32];
    size_t join_n;
    struct replica_kv *kv;
    struct gossip_member *member;
    struct gossip_control *control;
    bool up;
    unsigned group; /* only nodes of one group hear each other */
    uint64_t wake_ms, sync_ms;
    uint64_t batch, synced, syncing;
    struct control_held held[512];
    size_t held_n;
    unsigned writes;         /* batches that wrote something, in this life */
    unsigned crash_at_write; /* 0: never; before anything that depends on it gets out */
    bool disk_hangs;
    unsigned cluster_notes, volume_notes;
    uint64_t checked_index; /* its registry was compared at this one; UINT64_MAX: at none in this life */
};

struct control_net {
    struct control_node nodes[CONTROL_NODES_MAX];
    size_t n;
    uint64_t now_ms, steps;
    struct gossip_random random;
    struct control_packet *packets;
    size_t packets_n, packets_capacity;
    unsigned loss, twice, late; /* per cent, of the control room's messages */
    struct control_call calls[CONTROL_CALLS_MAX];
    size_t calls_n;
    /* what was seen */
    struct replica_id cluster;
    bool many_clusters;                /* allowed in this test */
    bool lose_all;                     /* a crash loses everything that was not synced, not just some of it */
    size_t leaders[CONTROL_TERMS_MAX]; /* by term: node + 1 */
    uint64_t states[CONTROL_STATES];   /* by index: a digest of the registry */
    uint64_t sent[32];                 /* messages by type */
};

void control_net_init(struct control_net *net, uint64_t seed);
void control_net_close(struct control_net *net);
/* Adds a node that is not up yet; join: bits of the nodes in --join. */
struct control_node *control_net_add(struct control_net *net, enum gossip_begin begin, unsigned join);
/* n nodes that expect each other. */
void control_net_expect(struct control_net *net, size_t n);
void control_net_boot(struct control_net *net, size_t i);
/* Power is lost: some of what was not synced survives. */
void control_net_crash(struct control_net *net, size_t i);
void control_net_run(struct control_net *net, uint64_t ms);
bool control_net_run_until(struct control_net *net, bool (*done)(struct control_net *net), uint64_t ms);
struct control_call *control_net_call(struct control_net *net, size_t node,
                                      const struct gossip_control_request *request);
/* Makes the call and runs until it is answered; its code. */
int control_net_ask(struct control_net *net, size_t node, enum gossip_control_request_kind kind,
                    const char *name, const char *new_name);
/* A message from a stranger, or from node `from` with other words; the step's result. */
int control_net_inject(struct control_net *net, size_t to, const struct gossip_principal *from, uint8_t type,
                       const void *payload, size_t size);
/* The leader, if a majority of the nodes that are up follows it; SIZE_MAX: none. */
size_t control_net_leader(const struct control_net *net);
bool control_net_begun(struct control_net *net);  /* all that are up have a cluster */
bool control_net_agreed(struct control_net *net); /* … and the same registry */
struct replica_id control_net_store(size_t i);
uint64_t
control_net_digest(const struct gossip_control *control); /* of all that a bad message must not change */

#endif
