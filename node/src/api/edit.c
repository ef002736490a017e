#include "api/edit.h"

#include "api/server.h"
#include "loop.h"
#include "replica/contents_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TELL_MS          1000  /* between words of progress of a long edit */
#define COMPLETE_MS      2     /* between looks whether a sync has come */
#define COMPLETE_MS_MAX  100   /* the same, once it takes long */
#define COMPLETE_WAIT_MS 60000 /* a sync that takes longer has failed */

/* Edits */

/* One step; who waits for many of them is told now and then that they go on. */
static int run_edit(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    struct api_call *call = context;
    int code = call->edit(call->state, view, log);
    uint64_t now_ms = node_now_ms();
    call->edit_steps++;
    if (code == REPLICA_E_AGAIN && now_ms - call->edit_told_ms >= TELL_MS) {
        call->edit_told_ms = now_ms;
        api_progress_steps(call, call->edit_steps);
    }
    return code;
}

void api_edit(struct api_call *call, const struct replica_id *view, api_edit_fn edit, api_done_fn done)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_EDIT, .view = *view};
    call->edit = edit;
    call->edit_told_ms = node_now_ms();
    request.edit = run_edit;
    request.context = call;
    request.durable = call->edit_durable;
    api_request(call, &request, done, NULL);
}

/* Sentences */

static const char *advice(int code)
{
    switch (code) {
    case REPLICA_E_NOTDIR:
        return "a part of the path is not a directory";
    case REPLICA_E_ISDIR:
        return "is a directory";
    case REPLICA_E_NOTEMPTY:
        return "the directory is not empty; `recursive` takes what is in it along";
    case REPLICA_E_READONLY:
        return "the view is read-only; open one without `read_only`";
    case REPLICA_E_PERM:
        return "not permitted: directories have no hard links, and volumes of version 1 have none at all";
    case REPLICA_E_TOOBIG:
        return "too large: a file has at most 1 TiB, a path 4096 bytes, its attributes 24 KiB";
    case REPLICA_E_NOSPACE:
        return "no space left on the node's disk, or over its capacity; make room, or raise the limit";
    case REPLICA_E_ABSENT:
        return "no node that could be reached has its bytes";
    case REPLICA_E_UNAVAILABLE:
        return "its bytes are on nodes that cannot be reached now; try again";
    case REPLICA_E_STALE:
        return "the view's snapshot is older than the history that is kept; reload the view";
    default:
        return replica_error_text(code);
    }
}

#define SHOWN_TEXT 256 /* of a path in a sentence, cut at SHOWN_MAX bytes */
#define SHOWN_MAX  200

static void show(struct replica_path path, char ret_text[SHOWN_TEXT])
{
    int size = path.size > SHOWN_MAX ? SHOWN_MAX : (int)path.size;
    snprintf(ret_text, SHOWN_TEXT, "/%.*s%s", size, path.size > 0 ? path.text : "",
             path.size > SHOWN_MAX ? "…" : "");
}

void api_fail_path(struct api_call *call, struct replica_path path, int code, const uint8_t *result, size_t n)
{
    char text[SHOWN_TEXT];
    show(path, text);
    if (n > 0)
        api_fail_answer(call, text, code, result, n);
    else
        api_fail(call, code, "%s: %s", text, advice(code));
}

void api_fail_content(struct api_call *call, struct replica_path path,
                      const struct replica_content_id *content, int code, const uint8_t *result, size_t n)
{
    char text[SHOWN_TEXT];
    show(path, text);
    if ((code != REPLICA_E_ABSENT && code != REPLICA_E_UNAVAILABLE) ||
        !replica_contents_files_was_damaged(api_contents(call), content))
        api_fail_path(call, path, code, result, n);
    else if (code == REPLICA_E_ABSENT)
        api_fail(call, code, "the content of %s is damaged on this node and no other holder has it", text);
    else
        api_fail(
            call, code,
            "the content of %s is damaged on this node, and no other holder can be reached now; try again",
            text);
}

int api_get_writable_view(struct api_call *call, struct replica_view **ret_view)
{
    int code = api_get_view(call, ret_view);
    if (code == 0 && replica_view_info(*ret_view)->options.flags & REPLICA_VIEW_READ_ONLY) {
        code = REPLICA_E_READONLY;
        api_fail(call, code, "%s: %s", call->method->name, advice(code));
    }
    return code;
}

int api_get_at(struct api_call *call, struct api_at *ret_at)
{
    char text[33] = "";
    int code = api_get_name(call, "at", false, text, sizeof text);
    ret_at->given = text[0] != '\0';
    if (code != 0 || !ret_at->given || replica_id_parse(text, &ret_at->commit) == 0)
        return code;
    api_fail(call, REPLICA_E_INVALID, "%s: `at` must be a commit's id, 32 hex digits, not \"%s\"",
             call->method->name, text);
    return REPLICA_E_INVALID;
}

int api_look_up(struct replica_view *view, struct replica_path path, const struct api_at *at,
                struct replica_version *ret_version)
{
    int code;
    if (!at->given)
        return replica_view_lookup(view, path, ret_version);
    code = replica_view_version_by(view, path, &at->commit, ret_version);
    return code == 0 && ret_version->tombstone ? REPLICA_E_NOTFOUND : code;
}

void api_fail_look_up(struct api_call *call, struct replica_path path, const struct api_at *at, int code)
{
    char text[33];
    if (!at->given || code != REPLICA_E_NOTFOUND) {
        api_fail_path(call, path, code, NULL, 0);
        return;
    }
    replica_id_format(&at->commit, text);
    api_fail(call, code,
             "/%.*s: no version of it by commit %s is kept: that commit did not write it, or removed it, or "
             "the version is no longer kept",
             path.size > 200 ? 200 : (int)path.size, path.size > 0 ? path.text : "", text);
}

int64_t api_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void api_path_set(struct api_path *target, const char *text, size_t n)
{
    memmove(target->text, text, n);
    target->text[n] = '\0';
    target->path = (struct replica_path){target->text, n};
}

/* Walks */

void api_walk_init(struct api_walk *walk, const struct api_path *root)
{
    api_path_set(&walk->root, root->text, root->path.size);
    api_path_set(&walk->at, root->text, root->path.size);
    walk->after_n = 0;
}

struct page {
    struct api_walk *walk;
    bool descends; /* into walk->after */
};

static int visit_child(void *context, struct replica_path name, const struct replica_version *version)
{
    struct page *page = context;
    struct api_walk *walk = page->walk;
    char text[REPLICA_PATH_MAX + REPLICA_NAME_MAX + 2];
    struct replica_path path = {text, walk->at.path.size};
    int rv;
    memcpy(text, walk->at.text, path.size);
    if (path.size > 0)
        text[path.size++] = '/';
    memcpy(text + path.size, name.text, name.size);
    path.size += name.size;
    if (path.size > REPLICA_PATH_MAX)
        return REPLICA_E_TOOBIG;
    rv = walk->enter(walk->context, path, version);
    if (rv < 0 || rv == WALK_HOLD)
        return rv;
    memcpy(walk->after, name.text, name.size);
    walk->after_n = name.size;
    if (version->entry.kind == REPLICA_KIND_DIRECTORY) {
        page->descends = true;
        return WALK_STOP;
    }
    return rv;
}

static void descend(struct api_walk *walk)
{
    size_t n = walk->at.path.size;
    if (n > 0)
        walk->at.text[n++] = '/';
    memcpy(walk->at.text + n, walk->after, walk->after_n);
    api_path_set(&walk->at, walk->at.text, n + walk->after_n);
    walk->after_n = 0;
}

/* Up to the parent, behind the name that was left. */
static void ascend(struct api_walk *walk)
{
    struct replica_path parent, name;
    replica_path_split(walk->at.path, &parent, &name);
    memcpy(walk->after, name.text, name.size);
    walk->after_n = name.size;
    api_path_set(&walk->at, walk->at.text, parent.size);
}

int api_walk_step(struct api_walk *walk, struct replica_view *view)
{
    struct page page = {.walk = walk};
    char after[REPLICA_NAME_MAX + 1];
    size_t after_n = walk->after_n, reads = 0;
    bool more = false;
    int rv;
    memcpy(after, walk->after, after_n);
    rv = replica_view_list(view, walk->at.path, (struct replica_path){after, after_n}, EDIT_ENTRIES_MAX,
                           &reads, &more, visit_child, &page);
    if (rv == REPLICA_E_NOTFOUND &&
        walk->at.path.size > walk->root.path.size) { /* somebody removed it meanwhile */
        ascend(walk);
        return REPLICA_E_AGAIN;
    }
    if (rv < 0)
        return rv;
    if (page.descends)
        descend(walk);
    if (page.descends || rv > 0 || more ||
        (walk->after_n != after_n || memcmp(after, walk->after, after_n) != 0))
        return REPLICA_E_AGAIN; /* what was written is applied before the directory is left */
    rv = walk->leave == NULL ? 0 : walk->leave(walk->context, walk->at.path);
    if (rv != 0 || walk->at.path.size == walk->root.path.size)
        return rv;
    ascend(walk);
    return REPLICA_E_AGAIN;
}

/* Waiting for a sync */

static void look_again(struct api_call *call)
{
    uint64_t now_ms = node_now_ms(), waited_ms = now_ms - call->complete_from_ms;
    if (replica_contents_state(api_contents(call), &call->complete_content) == REPLICA_CONTENTS_COMPLETE)
        call->complete_done(call, 0);
    else if (waited_ms > COMPLETE_WAIT_MS)
        call->complete_done(call, REPLICA_E_IO);
    else
        api_later(call, waited_ms < COMPLETE_MS_MAX ? COMPLETE_MS : COMPLETE_MS_MAX, look_again);
}

void api_await_complete(struct api_call *call, const struct replica_content_id *content,
                        void (*done)(struct api_call *call, int code))
{
    call->complete_content = *content;
    call->complete_from_ms = node_now_ms();
    call->complete_done = done;
    if (replica_contents_state(api_contents(call), content) != REPLICA_CONTENTS_COMPLETE)
        node_contents_filled(api_node(call->api));
    look_again(call);
}
