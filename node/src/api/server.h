/* The inside of struct node_api, shared by server.c and background.c. */
#ifndef NODE_API_SERVER_H
#define NODE_API_SERVER_H

#include "api/call.h"
#include "policy.h"

struct api_session {
    struct node_api *api;
    struct api_connection *connection;
    uid_t uid;
    gid_t gid;
    struct node_caller caller;
    struct replica_id *views; /* private ones */
    size_t views_n, views_capacity;
    struct api_session *next, *previous;
};

/* A request that the api makes for itself: closing a private view that nobody owns, or a background commit.
 */
struct api_errand {
    struct node_api *api;
    struct replica_id view;
    bool commit;
    struct api_errand *next;
};

/* Draft files written in place; the oldest is forgotten, and copied at its next write. */
#define API_DRAFTS_MAX 1024

struct api_draft {
    struct replica_id view;
    uint64_t draft, generation;
    uint64_t forget_ms; /* not 0: its view is closed, the file goes then */
};

struct node_api {
    struct node *node;
    struct node_policy *policy;
    char *socket_path;
    int listen_fd;
    uint64_t socket_inode;
    struct node_watch *listen_watch;
    bool accepting; /* the watch waits for connections: not while descriptors are short */
    bool stopping;
    struct node_timer *later, *tick;
    uint64_t commit_at_ms; /* next background commit */
    struct api_session *sessions;
    size_t sessions_n;
    struct api_call *calls;
    struct api_errand *errands;
    struct replica_id *held;
    size_t held_n, held_capacity;
    struct api_draft drafts[API_DRAFTS_MAX]; /* a ring */
    size_t drafts_at;
};

/* background.c */
void background_sweep(struct node_api *api);         /* closes private views whose connection has gone */
void background_commit(struct node_api *api);        /* publishes what is dirty in AUTO views */
void background_forget_drafts(struct node_api *api); /* removes the files of drafts whose time has come */
void background_close(struct node_api *api);

#endif
