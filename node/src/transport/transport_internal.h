/* What the transport's sources share. Who may touch what: fields under "lock" by any thread that holds it,
 * the others by the channel's actor alone, once it runs. */
#ifndef NODE_TRANSPORT_INTERNAL_H
#define NODE_TRANSPORT_INTERNAL_H

#include "transport/transport.h"

#include <czmq.h>
#include <pthread.h>
#include <stdatomic.h>

#define NODE_CHANNELS 2

/* Two I/O threads' worth of libzmq per channel would leave one idle: control needs little, but never waits
 * behind data. */
#define NODE_IO_THREADS      3
#define NODE_IO_CONTROL_MASK 0x1u
#define NODE_IO_DATA_MASK    0x6u

#define NODE_ZAP_DOMAIN "remora"

/* The first frame of every message between nodes; its first byte is the kind. docs/protocol.md, "Channels and
 * links". */
enum node_frame_kind {
    NODE_FRAME_MESSAGE = 1,  /* to (16), on a plain data channel the token (16); second frame: the bytes */
    NODE_FRAME_HELLO = 2,    /* nonce (32); second frame: the hello */
    NODE_FRAME_WHO = 3,      /* listener: a new connection, say hello */
    NODE_FRAME_STRANGER = 4, /* listener: dropped a message of somebody unknown, say hello */
    NODE_FRAME_ANSWER = 5,   /* listener: proof (32), token (16); second frame: its hello */
    NODE_FRAME_REFUSED = 6,  /* listener: second frame: MessagePack [code, reason, cluster or zero] */
};
#define NODE_FRAME_MESSAGE_SIZE       (1 + REPLICA_ID_SIZE)
#define NODE_FRAME_MESSAGE_PLAIN_SIZE (1 + REPLICA_ID_SIZE + NODE_TOKEN_SIZE)
#define NODE_FRAME_HELLO_SIZE         (1 + NODE_NONCE_SIZE)
#define NODE_FRAME_ANSWER_SIZE        (1 + NODE_PROOF_SIZE + NODE_TOKEN_SIZE)

/* Bytes on their way, counted until libzmq let go of them. Outlives links and transport, because libzmq frees
 * messages on its own threads, some of them after a socket was closed. */
struct node_account {
    _Atomic size_t references;
    _Atomic size_t bytes;
    _Atomic uint64_t freed; /* messages: the only sign of progress that a sender sees */
    struct node_account *total;
};
struct node_account *node_account_new(struct node_account *total);
void node_account_release(struct node_account *account);

/* One message on its way out. */
struct node_outgoing {
    struct node_outgoing *next;
    struct node_account *account;
    struct replica_id to;
    uint64_t queued_ms;
    void *bytes;
    size_t n;
    _Atomic bool handed; /* to libzmq */
};
struct node_queue {
    struct node_outgoing *head, **tail;
};
void node_queue_init(struct node_queue *queue);
void node_queue_push(struct node_queue *queue, struct node_outgoing *outgoing);
struct node_outgoing *node_queue_pop(struct node_queue *queue); /* NULL if empty */
void node_outgoing_free(struct node_outgoing *outgoing);

/* Peers whose hello was accepted. Callers hold the transport's lock. */
struct node_session;
struct node_sessions {
    zhashx_t *by_key, *by_token;
    struct node_session *oldest, *newest;
};
int node_sessions_init(struct node_sessions *sessions);
void node_sessions_close(struct node_sessions *sessions);
/* Replaces what was known of that key, but keeps its token. Errors: NOMEM. */
int node_sessions_put(struct node_sessions *sessions, const uint8_t key[NODE_CURVE_KEY_SIZE],
                      const struct node_hello *hello, const struct gossip_principal *principal,
                      uint8_t ret_token[NODE_TOKEN_SIZE]);
/* Errors: NOTFOUND, EXPIRED (and then forgotten). */
int node_sessions_find_key(struct node_sessions *sessions, const uint8_t key[NODE_CURVE_KEY_SIZE],
                           uint64_t wall_ms, struct gossip_principal *ret_principal);
int node_sessions_find_token(struct node_sessions *sessions, const uint8_t token[NODE_TOKEN_SIZE],
                             uint64_t wall_ms, struct gossip_principal *ret_principal);
/* Forgets those that named another cluster. */
void node_sessions_keep_cluster(struct node_sessions *sessions, const struct replica_id *cluster);

enum node_source_kind {
    NODE_SOURCE_PIPE,
    NODE_SOURCE_WAKE,
    NODE_SOURCE_ROUTER,
    NODE_SOURCE_MONITOR,
    NODE_SOURCE_LINK
};
struct node_source {
    enum node_source_kind kind;
};

enum node_link_state {
    NODE_LINK_CLOSED,   /* no socket; opened again at retry_ms if there is something to send */
    NODE_LINK_WAITING,  /* a socket, but no connection, or (plain) no token */
    NODE_LINK_GREETING, /* hello is said, no answer yet */
    NODE_LINK_READY,    /* the other end has proved who it is */
};

struct node_link {
    struct node_source source;              /* first */
    char endpoint[GOSSIP_ENDPOINT_MAX + 1]; /* control address: the key on both channels */
    struct node_account *account;

    /* Under the channel's lock. */
    struct node_link *older, *newer; /* by last use */
    struct node_link *next_dirty;
    struct node_queue arrived; /* from senders, not yet seen by the actor */
    uint64_t used_ms;
    bool dirty, listed; /* listed: in the table; else the actor shall close and free it */
    bool has_token;     /* control channel: what the listener gave us for a plain data channel */
    uint8_t token[NODE_TOKEN_SIZE];
    struct replica_id token_store;

    /* The actor's. */
    struct node_link *next;         /* in the actor's list of all that it knows */
    bool adopted, again, hello_due; /* again: its last turn was not enough */
    enum node_link_state state;
    zsock_t *socket;
    struct node_queue queue;
    struct replica_id peer; /* READY: who answered */
    uint64_t expires_ms;    /* of its credential, by the wall clock; 0: never */
    uint8_t nonce[NODE_NONCE_SIZE];
    uint8_t send_token[NODE_TOKEN_SIZE]; /* plain data channel */
    uint64_t opened_ms, progress_ms, retry_ms, freed_seen;
    unsigned failures, opened; /* opened: how often, so that a name's addresses are tried in turn */
    struct node_lookup *lookup;
    size_t gate; /* which of the keyring's gates is tried */
};

/* transport_log.c: a line that was written, by its hash. */
#define NODE_SAID_MAX 64
struct node_said {
    uint64_t line, until_ms;
    unsigned more; /* times it was not written again */
};
/* A connection that came in lately; fd 0: none. More at once than these are refused without a name. */
#define NODE_KNOCKS_MAX 128
struct node_knock {
    int fd;
    struct sockaddr_storage address;
};

struct node_channel_actor {
    struct node_transport *transport;
    enum node_channel which;
    bool plain;
    size_t message_max;

    pthread_mutex_t lock;
    zhashx_t *links; /* by endpoint */
    struct node_link *oldest, *newest, *dirty;
    bool woken, greet_all, tokens_changed;

    int wake_fd, epoll_fd;
    zactor_t *actor;
    zsock_t *pipe, *router, *monitor;
    char bound[GOSSIP_ENDPOINT_MAX + 1];
    struct node_source pipe_source, wake_source, router_source, monitor_source;
    struct node_link *known;
    atomic_bool started;                      /* the actor runs; others read it, too */
    bool router_again, links_again, stopping; /* again: a turn was not enough */
    uint64_t tick_ms, log_window_ms;
    unsigned log_lines;
    struct node_said said[NODE_SAID_MAX];
    struct node_knock knocks[NODE_KNOCKS_MAX];
    size_t knocks_at;
    uint64_t refused_ms;
    size_t refused; /* handshakes that failed, and whose connections have not ended yet */
};

struct node_transport {
    struct node_transport_handler handler;
    const struct node_keyring *keyring;
    uint8_t curve_secret[NODE_CURVE_KEY_SIZE];
    char endpoint[GOSSIP_ENDPOINT_MAX + 1];
    struct node_account *total;
    size_t links_max; /* per channel */
    struct node_channel_actor channels[NODE_CHANNELS];

    pthread_mutex_t lock; /* taken inside no other, and holds no other */
    struct node_hello hello;
    struct replica_buffer hello_packed;
    struct node_sessions sessions;

    _Atomic uint64_t sent_bytes, received_bytes, dropped, refused;
    _Atomic size_t links;
};

/* transport_log.c: who came in, by descriptor. ended: ret_address is who that was; false: it is not known. */
void node_knock_accepted(struct node_channel_actor *channel, int fd);
bool node_knock_ended(struct node_channel_actor *channel, int fd, char *ret_address, size_t n);

/* transport_zap.c: what is one per process: libzmq's threads and the ZAP handler. Errors: IO, NOMEM;
 * ret_message. */
int node_zap_acquire(char **ret_message);
void node_zap_release(void);
/* The CURVE key that a message's connection was authenticated with. Errors: NOTFOUND. */
int node_zap_user(zmq_msg_t *message, uint8_t ret_key[NODE_CURVE_KEY_SIZE]);

/* transport_endpoint.c */
struct node_endpoint {
    char host[GOSSIP_ENDPOINT_MAX + 1]; /* v6 in brackets */
    uint32_t port;                      /* 0 … 65534: port + 1 must exist */
};
int node_endpoint_parse(const char *text, struct node_endpoint *ret_endpoint);
bool node_endpoint_is_loopback(const struct node_endpoint *endpoint);
void node_endpoint_format(const struct node_endpoint *endpoint, uint32_t port,
                          char ret_text[GOSSIP_ENDPOINT_MAX + 1]);

/* transport_resolve.c */
struct node_lookup;
bool node_endpoint_is_numeric(const struct node_endpoint *endpoint);
/* pick: which of the name's addresses, so that another try meets another. NULL: too many are under way, or no
 * memory. */
struct node_lookup *node_lookup_start(const char *host, unsigned pick);
/* Errors: AGAIN (not yet), NOTFOUND. */
int node_lookup_result(struct node_lookup *lookup, char ret_host[GOSSIP_ENDPOINT_MAX + 1]);
void node_lookup_release(struct node_lookup **lookup);

/* transport_socket.c */
/* Creates router and monitor of a channel, not yet bound. Errors: NOMEM, IO. */
int node_listener_open(struct node_channel_actor *channel, bool ipv6);
/* Errors: BUSY, INVALID, IO. Sets channel->bound. */
int node_listener_bind(struct node_channel_actor *channel, const char *endpoint);
/* Closes; returns once the port is free again, or after a deadline. */
void node_listener_close(struct node_channel_actor *channel);
/* A DEALER on its way to the link's address. NULL: no more sockets or memory. */
zsock_t *node_link_socket_new(const struct node_channel_actor *channel, const char *endpoint, size_t gate);
/* A message's frames, at most max (further ones are thrown away and *ret_n is max + 1); the caller closes
 * ret_parts[0 … max). Errors: AGAIN. */
int node_frames_receive(void *socket, zmq_msg_t *ret_parts, size_t max, size_t *ret_n);
void node_frames_close(zmq_msg_t *parts, size_t max);

/* transport_channel.c */
void node_channel_run(zsock_t *pipe, void *channel);               /* the actor */
void node_channel_wake_locked(struct node_channel_actor *channel); /* the channel's lock is held */
void node_channel_log(struct node_channel_actor *channel, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int node_channel_watch(struct node_channel_actor *channel, struct node_source *source, zsock_t *socket);
void node_channel_unwatch(struct node_channel_actor *channel, zsock_t *socket);

/* transport_listener.c */
void node_listener_service(struct node_channel_actor *channel);
/* 0 if a peer with that hello may talk to us. Errors: VERSION, MISMATCH (another cluster). */
int node_peer_check(struct node_transport *transport, const struct node_hello *hello, const char **ret_reason,
                    struct replica_id *ret_own_cluster);

/* transport_link.c: the actor's side */
void node_link_adopt(struct node_channel_actor *channel, struct node_link *link);
void node_link_service(struct node_channel_actor *channel, struct node_link *link);
void node_link_greet(struct node_link *link); /* says hello (again) at the next service */
void node_link_tick(struct node_channel_actor *channel, struct node_link *link, uint64_t now_ms);
void node_link_close(struct node_channel_actor *channel,
                     struct node_link *link); /* socket and queue; not freed */
void node_link_free(struct node_link *link);

/* transport_table.c: the links by address, any thread */
/* Errors: NOSPACE, INVALID, NOMEM. */
int node_table_push(struct node_channel_actor *channel, const char *endpoint, struct node_outgoing *outgoing);
/* Lists a link for nothing but its token. Errors: AGAIN (not known yet; tokens_changed will be set). */
int node_table_token(struct node_channel_actor *control, const char *endpoint,
                     uint8_t ret_token[NODE_TOKEN_SIZE], struct replica_id *ret_store);
/* The listener does not know that token any more: greet it again. */
void node_table_token_lost(struct node_channel_actor *control, const char *endpoint);
/* Takes a link out if nobody used it since before_ms. */
bool node_table_remove_idle(struct node_channel_actor *channel, struct node_link *link, uint64_t before_ms);

#endif
