/* transport: messages between nodes over ZeroMQ, two channels on two ports, CURVE on both.
 *
 * Links are one-way: a node sends on its own DEALER to the other's ROUTER and gets what comes back over the other's DEALER.
 * So routing ids never matter, every inbound message is tied to the sender's authenticated CURVE key (ZAP User-Id), and a
 * restarted or readdressed peer needs no handover. The first message on a link is hello; a listener that does not know a
 * key asks for hello again over the same connection. A message names the store that it is meant for, so that a recycled
 * address receives nothing of its former owner's.
 *
 * Threads: one actor per channel owns its sockets, so that bulk never delays a probe; callbacks run on those actors and must
 * only enqueue. transport_send* may be called from any thread. */
#ifndef NODE_TRANSPORT_TRANSPORT_H
#define NODE_TRANSPORT_TRANSPORT_H

#include "transport/credential.h"

enum node_channel { NODE_CHANNEL_CONTROL, NODE_CHANNEL_DATA };

#define NODE_PROTOCOL_MIN 1
#define NODE_PROTOCOL_MAX 1
/* Outgoing links per channel; the longest unused one is closed for a new one. Fewer where the process may not have eight
 * descriptors for each: two per channel for ours, and as many for those that others open to us. */
#define NODE_LINKS_MAX 1024
/* Bytes queued towards one peer on one channel, and towards all peers together; more is dropped and counted. */
#define NODE_SEND_QUEUE_MAX (64u << 20)
#define NODE_SEND_TOTAL_MAX (512u << 20)
/* One gossip message, or one chunk, and its header. */
#define NODE_CONTROL_MESSAGE_MAX (GOSSIP_MESSAGE_SIZE_MAX + 4096)
#define NODE_DATA_MESSAGE_MAX    ((1u << 20) + 4096)
/* Peers whose hello is remembered; the longest unheard must say it again. As many as there may be members. */
#define NODE_SESSIONS_MAX 16384

/* Feature bits of hello. Set by the transport: its data channel is without CURVE. */
#define NODE_FEATURE_DATA_PLAIN (UINT64_C(1) << 0)

struct node_transport_handler {
    void *context;
    /* A message of a peer whose hello was accepted. bytes are borrowed for the call. from is valid for the call. */
    void (*on_message)(void *context, enum node_channel channel, const struct gossip_principal *from,
                       const uint8_t *bytes, size_t n);
    /* Something an operator should read: level 0 debug … 3 error. */
    void (*on_log)(void *context, int level, const char *text);
};

struct node_transport_options {
    const char *listen;                        /* tcp://host:port; port 0 takes a free pair */
    const struct node_keyring *keyring;        /* borrowed, outlives the transport */
    struct node_hello hello;                   /* endpoint empty: what was bound */
    uint8_t curve_secret[NODE_CURVE_KEY_SIZE]; /* of hello.curve_public */
    bool data_plain; /* the data channel without CURVE (hello is still required, on control) */
    struct node_transport_handler handler;
};

struct node_transport;

/* Errors: BUSY (address in use), INVALID (not an address), IO; ret_message malloc'ed, returned to the caller. */
int node_transport_new(const struct node_transport_options *options, struct node_transport **ret_transport,
                       char **ret_message);
/* The address as bound, port filled in; borrowed. */
const char *node_transport_endpoint(const struct node_transport *transport);
/* Once the cluster has begun: later hellos carry it, and peers of another cluster are refused by name. */
void node_transport_set_cluster(struct node_transport *transport, const struct replica_id *cluster);

/* Queues bytes (taken in any case: free(bytes) is called when they were sent or dropped) for store `to` at control address
 * `endpoint`; to may be zero for whoever answers there. 0 is no promise of delivery: what finds no accepted link within some
 * seconds, or was under way when a connection broke, is dropped. Errors: NOSPACE (the queue to that peer, or all of them
 * together, is full; dropped), INVALID (not an address, not 1 … the channel's largest message), NOMEM. */
int node_transport_send(struct node_transport *transport, enum node_channel channel,
                        const struct replica_id *to, const char *endpoint, void *bytes, size_t n);

struct node_transport_stats {
    uint64_t sent_bytes, received_bytes, dropped, refused; /* refused: handshakes and hellos */
    size_t links;
};
void node_transport_stats(struct node_transport *transport, struct node_transport_stats *ret_stats);

/* Closes all sockets without lingering; no callback runs after it returned. */
void node_transport_destroy(struct node_transport **transport);

#endif
