/* api: the unix socket that apps speak to (docs/api.md). Loop thread only.
 *
 * Layers: connection (bytes, frames, descriptors) → call (one request and its answer) → methods (what each does, by node_request, the
 * read-only accessors of the peer, and jobs on the workers). */
#ifndef NODE_API_API_H
#define NODE_API_API_H

#include "node.h"

/* All the programs of a host's containers; each costs descriptors and buffers. */
#define NODE_API_CONNECTIONS_MAX 1200

struct node_api;

/* Listens at socket_path (mode 0660; its directory is made, mode 0755). A socket left by a node that died is replaced.
 * Errors: BUSY (somebody answers there), IO, NOMEM; ret_message malloc'ed, returned to the caller. */
int node_api_new(struct node *node, const char *socket_path, struct node_api **ret_api, char **ret_message);

/* At shutdown: no new connections and no new calls, no background commits; calls in course go on. */
void node_api_stop_accepting(struct node_api *api);

/* Whether `view.hold` keeps commits that nobody asked for away from that view. */
bool node_api_view_is_held(const struct node_api *api, const struct replica_id *view);

/* The node ends now: jobs of calls stop as soon as they look. */
void node_api_give_up(struct node_api *api);

/* Closes every connection. The workers have ended before, and the loop ran once more after that: no job of a call is under way. Answers
 * to requests that are still open are not to be delivered any more. */
void node_api_destroy(struct node_api **api);

#endif
