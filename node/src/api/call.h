/* call: one request of an app, from its message to its answer; and what all methods share. Loop thread only,
 * but for run of a job.
 *
 * A method gets the call and answers it exactly once (api_reply…, api_fail), at once or from a continuation:
 * the done of api_request, api_job or api_later. When the client goes, requests that can be taken back are,
 * the rest runs to its end, and no continuation is called any more (nor after the answer): what a
 * continuation would have tidied belongs into free_state. The call and its state outlive the callback that
 * answered it. */
#ifndef NODE_API_CALL_H
#define NODE_API_CALL_H

#include "api/api.h"
#include "api/connection.h"
#include "gossip/peer.h"
#include "policy.h"

#include <stdatomic.h>
#include <sys/types.h>

#define API_DATA_MAX    (1u << 20) /* bytes that travel in a message */
#define API_ENTRIES_MAX 1000       /* of a listing */
#define API_REPLY_MAX   (2u << 20) /* a listing ends early at this, well within a message */

struct api_call;
struct api_request;

typedef void (*api_method_fn)(struct api_call *call);
/* n bytes of result are borrowed. */
typedef void (*api_done_fn)(struct api_call *call, void *context, int code, const uint8_t *result, size_t n);

struct api_method {
    const char *name;
    api_method_fn run;
    enum node_right needs; /* of the caller, for the volume or view that it names; ALL: only the node's own */
    bool takes_fds;        /* its entries may name descriptors */
    enum {
        API_READS,
        API_CHANGES,
        API_GROWS
    } room; /* what it does to the store: while the disk is nearly full,
                                                        the last goes first */
};
/* NULL: no such method. */
const struct api_method *api_method_find(const char *name, size_t n);

struct api_session; /* a connection and what is bound to it; see server.c */

struct api_call {
    struct node_api *api;
    struct api_session *session; /* NULL: the client has gone */
    uint64_t msgid;
    const struct api_method *method;
    struct replica_buffer message;
    struct replica_pack_reader params; /* at the map */
    uid_t uid;                         /* of the caller */
    gid_t gid;
    uint32_t timeout_ms;  /* what its params say of it; 0: nothing */
    int fds[API_FDS_MAX]; /* the call's, closed with it */
    size_t fds_n;
    void *state; /* of the method */
    void (*free_state)(void *state);
    /* What becomes of progress that a request reports; NULL: it is sent on. context: the request's. */
    void (*on_progress)(struct api_call *call, void *context, uint64_t bytes, uint64_t total);

    /* private */
    bool answered;
    bool ending; /* a post is under way that destroys it */
    struct node_post end;
    bool edit_durable; /* the edit is answered once it is synced */
    bool looked_up;    /* the volume that it names was asked for through the control log */
    char lookup_name[GOSSIP_VOLUME_NAME_MAX + 1];
    bool later, job_running;
    uint64_t later_ms;
    void (*continuation)(struct api_call *call); /* of later or job */
    void (*run)(struct api_call *call);
    struct node_job job;
    struct api_request *requests;
    atomic_bool gone; /* for jobs: the client has gone, stop early */
    atomic_bool progress_posted;
    _Atomic uint64_t progress_bytes, progress_total;
    struct node_post progress_post;
    struct api_call *next, *previous; /* of the api */

    /* edit.c */
    struct replica_id view_id; /* the view that the call closes or commits */
    int (*edit)(void *state, struct replica_view *view, struct replica_kv_batch *log);
    uint64_t edit_told_ms, edit_steps; /* when progress was last said */
    struct replica_content_id complete_content;
    uint64_t complete_from_ms;
    void (*complete_done)(struct api_call *call, int code);
};

/* server.c */
/* What the caller may do; of a call that runs. */
bool api_may(const struct api_call *call, const char *volume, enum node_right right);
bool api_is_own(const struct api_call *call); /* the node's own user, root or its group */
struct node *api_node(const struct node_api *api);
const struct gossip_peer *api_peer(const struct api_call *call);
struct replica_contents *api_contents(const struct api_call *call);
void api_call_link(struct node_api *api, struct api_call *call);
void api_call_unlink(struct node_api *api, struct api_call *call);
void api_wake_later(struct node_api *api, uint64_t at_ms);
bool api_is_stopping(const struct node_api *api);
struct api_connection *api_session_connection(const struct api_session *session);

/* background.c: private views, holding, commits that nobody asked for */
void api_own_view(struct api_call *call, const struct replica_id *view); /* it ends with the connection */
void api_disown_view(struct api_call *call, const struct replica_id *view);
bool api_may_use_view(const struct api_call *call, const struct replica_view *view);
void api_hold_view(struct node_api *api, const struct replica_id *view, bool hold);

/* call.c */
/* A whole message of a session; answers what is not a call itself. message borrowed. */
void api_call_begin(struct node_api *api, struct api_session *session, uid_t uid, gid_t gid,
                    const uint8_t *message, size_t n);
void api_call_abandon(struct api_call *call);
void api_call_destroy(struct api_call *call);
void api_call_wake(struct api_call *call); /* its time has come */

/* done is called unless the client goes before. What request points to must live as long as the call's state.
 * The call's timeout is the request's. */
void api_request(struct api_call *call, const struct gossip_peer_request *request, api_done_fn done,
                 void *context);
/* run on a worker (touching only the call's state and descriptors), then done on the loop. One at a time. */
void api_job(struct api_call *call, void (*run)(struct api_call *call), void (*done)(struct api_call *call));
void api_later(struct api_call *call, uint32_t delay_ms, void (*done)(struct api_call *call));
/* On the loop. total 0: unknown. */
void api_progress_now(struct api_call *call, uint64_t bytes, uint64_t total);
void api_progress_steps(struct api_call *call, uint64_t steps); /* what moves no bytes */
/* By a job. */
void api_progress(struct api_call *call, uint64_t bytes, uint64_t total);
bool api_is_gone(const struct api_call *call);

/* reply is initialised and begun by api_reply_begin; the method appends its result (one item) and hands it
 * over. */
void api_reply_begin(const struct api_call *call, struct replica_buffer *reply);
void api_reply(struct api_call *call, struct replica_buffer *reply);
void api_reply_fd(struct api_call *call, struct replica_buffer *reply, int fd); /* fd taken */
void api_reply_nil(struct api_call *call);
/* The message names the thing; without a format it is the text of code. */
void api_fail(struct api_call *call, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What a room of the peer answered: its reason if it gave one. about: the thing, or NULL. */
void api_fail_answer(struct api_call *call, const char *about, int code, const uint8_t *result, size_t n);

/* params.c. The getters return 0, or answer the call (INVALID, naming the key) and return the code. Optional
 * ones leave *ret untouched if the key is missing or nil. Text and bytes are borrowed from the message. */
bool api_find(const struct api_call *call, const char *key, struct replica_pack_reader *ret_reader);
bool api_map_find(const struct replica_pack_reader *map, const char *key,
                  struct replica_pack_reader *ret_reader);
int api_get_text(struct api_call *call, const char *key, bool required, const char **ret_text, size_t *ret_n);
/* NUL-terminated, of at most size - 1 bytes. */
int api_get_name(struct api_call *call, const char *key, bool required, char *ret_text, size_t size);
int api_get_uint(struct api_call *call, const char *key, bool required, uint64_t max, uint64_t *ret_value);
int api_get_bool(struct api_call *call, const char *key, bool *ret_value);
int api_get_data(struct api_call *call, const char *key, const uint8_t **ret_data, size_t *ret_n);

struct api_path {
    char text[REPLICA_PATH_MAX + 1];
    struct replica_path path;
};
int api_get_path(struct api_call *call, const char *key, bool required, struct api_path *ret_path);
/* "path" → canonical; on failure the call is answered. */
int api_canonical(struct api_call *call, const char *text, size_t n, struct api_path *ret_path);
int api_get_view(struct api_call *call, struct replica_view **ret_view);
struct replica_view *api_view(const struct api_call *call,
                              const struct replica_id *id); /* NULL: closed meanwhile */
/* By the param "name" (or "volume"). A name that this node does not know may be younger than its copy of the
 * control log: then the log is asked, and the method runs again from its beginning; so this is the first
 * thing that a method does. */
int api_get_volume(struct api_call *call, const char *key, const struct gossip_volume **ret_volume);
/* 0, or the call is answered DENIED. */
int api_need(struct api_call *call, const char *volume, enum node_right right);
/* The volume shows here all that it showed before the node started: else views would miss what they have. */
int api_need_map(struct api_call *call, const struct replica_id *volume);

/* entry.c */
/* One item: an entry of docs/api.md under the key "path" or "name". */
void api_pack_entry(struct replica_buffer *out, struct replica_contents *contents, const char *key,
                    struct replica_path path, const struct replica_version *version);
/* What an app says of an entry: kind, mode, owner, times, target, device, xattrs (encoded into xattrs, which
 * the entry then borrows). Values not given stay as they are in *entry. map: the entry's. Answers the call on
 * failure, naming path. */
int api_read_entry(struct api_call *call, const char *path, const struct replica_pack_reader *map,
                   struct replica_entry *entry, struct replica_buffer *xattrs);
void api_pack_key(struct replica_buffer *out, const char *key);
/* The name of a store for people: the member's, or its id in hex. */
void api_pack_store_name(struct replica_buffer *out, const struct gossip_member *member,
                         const struct replica_id *store);

/* put.c: how many descriptors a message claims: the highest `fd` of its entries, and one. Errors: INVALID. */
int api_count_fds(const struct api_call *call, size_t *ret_n);

/* background.c: which draft files this process may go on writing: not frozen, not shared */
void api_draft_own(struct node_api *api, const struct replica_id *view, uint64_t draft, uint64_t generation);
bool api_draft_is_own(const struct node_api *api, const struct replica_view *view, uint64_t draft);
/* The view is closed: nothing names its drafts any more. Their files go once that is surely durable. */
void api_drafts_forget(struct node_api *api, const struct replica_id *view);
void api_draft_share(struct node_api *api, uint64_t draft); /* somebody else may read it from now on */

#endif
