/* node: the shell around a gossip_peer: store, threads, transport, API. Loop thread only, unless said. */
#ifndef NODE_NODE_H
#define NODE_NODE_H

#include "config.h"
#include "gossip/peer.h"
#include "loop.h"
#include "transport/transport.h"
#include "workers.h"

struct node;

/* Opens the store, starts all threads and listens. ret_message (malloc'ed, returned to the caller) says on
 * failure what is wrong and what to do. */
int node_new(const struct node_config *config, struct node **ret_node, char **ret_message);
/* Serves until SIGTERM or SIGINT, then commits every AUTO view within the shutdown timeout. *ret_unfinished:
 * views that could not. again: in place of one that ended for its store to be opened anew; it is no news that it
 * is ready. */
int node_run(struct node *node, bool again, size_t *ret_unfinished);
/* node_run returned so that the node is made anew in place: its disk was full and has room again, its map is to be rebuilt, or its keys
 * were exchanged. It is to be destroyed, and another made. */
bool node_is_to_reopen(const struct node *node);
void node_destroy(struct node **node);

/* Local requests. answer is called on the loop, never from within node_request: zero or more times with final
 * false (progress), once with final true. result is borrowed for the call. request is copied (its pointers
 * must live until the final answer). Returns the token. */
typedef void (*node_answer_fn)(void *context, int code, const uint8_t *result, size_t n, bool final);
uint64_t node_request(struct node *node, const struct gossip_peer_request *request, node_answer_fn answer,
                      void *context);
/* The caller has gone: answer will not be called any more; what was asked goes on if it must. */
void node_request_cancel(struct node *node, uint64_t token);

struct node_loop *node_get_loop(struct node *node);
struct node_workers *node_get_workers(struct node *node);
struct replica_contents *node_get_contents(struct node *node); /* thread safe object */
const struct gossip_peer *node_get_peer(struct node *node);
/* Of the drafts of a view that are being hashed for a commit, bytes read so far; 0: there are none. */
uint64_t node_settled_bytes(const struct node *node, const struct replica_id *view);
const struct node_config *node_get_config(struct node *node);
void node_get_transport_stats(struct node *node, struct node_transport_stats *ret_stats);
/* 0, or why nothing can be written now (NOSPACE, or with what the store failed), with a sentence. grows: what is asked makes the store
 * larger; what does not may use what is left. */
int node_space_refuses(struct node *node, bool grows, char *ret_text, size_t n);
/* Contents were filled by a job (ingest): the next sync must cover them. */
void node_contents_filled(struct node *node);

/* Structured log line on standard error: level, event, then key=value text; or JSON by configuration. Any
 * thread. */
enum node_log_level { NODE_LOG_DEBUG, NODE_LOG_INFO, NODE_LOG_WARNING, NODE_LOG_ERROR };
void node_log(enum node_log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
