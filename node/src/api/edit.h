/* edit: what the methods under fs.* share. Changing a view in steps, walking a tree in bounded pages, waiting
 * for bytes, and sentences about paths. Loop thread only. */
#ifndef NODE_API_EDIT_H
#define NODE_API_EDIT_H

#include "api/methods.h"

#define EDIT_ENTRIES_MAX 50 /* entries looked at or changed in one step: a few milliseconds of the loop */
#define EDIT_BYTES_MAX   (1u << 20) /* of a step's batch */

/* Calls edit(call's state, view, log) in steps of the peer until it does not return AGAIN, then done. What it
 * wrote in one step is seen by the next one only. Edits of one view come one after the other. */
typedef int (*api_edit_fn)(void *state, struct replica_view *view, struct replica_kv_batch *log);
void api_edit(struct api_call *call, const struct replica_id *view, api_edit_fn edit, api_done_fn done);

/* "PATH: what is wrong, and what to do". result: the answer's, may be NULL. */
void api_fail_path(struct api_call *call, struct replica_path path, int code, const uint8_t *result,
                   size_t n);
/* The same of a path whose content could not be had: says if it is damage that keeps it away. */
void api_fail_content(struct api_call *call, struct replica_path path,
                      const struct replica_content_id *content, int code, const uint8_t *result, size_t n);
/* As api_get_view, for a change: READONLY is said before any work is done. */
int api_get_writable_view(struct api_call *call, struct replica_view **ret_view);
int64_t api_now_ns(void); /* since 1970 */
/* `at`: reading means the version of a path that one commit wrote, instead of what the view shows. */
struct api_at {
    bool given;
    struct replica_id commit;
};
/* 0, or the call is answered. */
int api_get_at(struct api_call *call, struct api_at *ret_at);
int api_look_up(struct replica_view *view, struct replica_path path, const struct api_at *at,
                struct replica_version *ret_version);
void api_fail_look_up(struct api_call *call, struct replica_path path, const struct api_at *at, int code);
/* NUL-terminated copies. */
void api_path_set(struct api_path *target, const char *text, size_t n);

/* A walk over all that is below a directory, in pages, so that a tree of any size never holds up the loop.
 * What changes behind it is not noticed. Every entry is entered once, a directory before what is in it; left
 * is called for a directory once all in it was entered. */
struct api_walk {
    struct api_path root, at;         /* at: the directory in hand */
    char after[REPLICA_NAME_MAX + 1]; /* the name dealt with last in it */
    size_t after_n;
    void *context;
    /* path is whole (below the view's root). 0: go on; WALK_STOP: go on in the next step; WALK_HOLD: come
     * back to it in the next step; anything negative ends the walk. */
    int (*enter)(void *context, struct replica_path path, const struct replica_version *version);
    int (*leave)(void *context, struct replica_path path); /* may be NULL */
};
enum { WALK_STOP = 1, WALK_HOLD = 2 };
void api_walk_init(struct api_walk *walk, const struct api_path *root);
/* One page. AGAIN until all is done. */
int api_walk_step(struct api_walk *walk, struct replica_view *view);

/* Calls done once content is COMPLETE here (0), or with a code: it was filled and waits for the next sync. */
void api_await_complete(struct api_call *call, const struct replica_content_id *content,
                        void (*done)(struct api_call *call, int code));

#endif
