/* fs.fetch: makes a file, or all files below a directory, complete on this node. */
#include "api/edit.h"

#include "replica/contents_files.h"

#include <stdlib.h>
#include <string.h>

#define FETCHES_MAX  16 /* contents asked for at once by one call; each comes from several holders */
#define PAGES_A_TURN 4  /* of the walk, before others have the loop */
#define YIELD_MS     1
#define REPORT_MS    100 /* between words of progress: there may be many small files */

struct fetching;

struct slot {
    struct fetching *fetching;
    struct replica_content_id content;
    struct api_path path;
    uint64_t bytes; /* here, of the content being fetched */
    bool busy;
};

struct fetching {
    struct api_call *call;
    struct replica_id view, volume;
    struct api_path path;
    struct api_walk walk;
    bool walked, turning;
    uint64_t report_at_ms;
    struct slot slots[FETCHES_MAX];
    size_t busy;
    uint64_t files, bytes, total, done_bytes;
    struct replica_content_id
        last; /* the last one seen filled and not complete: a sync that covers it covers all */
    bool unsynced;
};

static void go_on(struct api_call *call);

static void report(struct fetching *fetching)
{
    uint64_t bytes = fetching->done_bytes, now_ms = node_now_ms();
    if (now_ms < fetching->report_at_ms)
        return;
    fetching->report_at_ms = now_ms + REPORT_MS;
    for (size_t i = 0; i < FETCHES_MAX; i++)
        if (fetching->slots[i].busy)
            bytes += fetching->slots[i].bytes;
    api_progress_now(fetching->call, bytes, fetching->walked ? fetching->total : 0);
}

static void on_slot_progress(struct api_call *call, void *context, uint64_t bytes, uint64_t total)
{
    struct slot *slot = context;
    (void)call;
    (void)total;
    slot->bytes = bytes;
    report(slot->fetching);
}

static void note_filled(struct fetching *fetching, const struct replica_content_id *content)
{
    fetching->done_bytes += content->length;
    if (replica_contents_state(api_contents(fetching->call), content) == REPLICA_CONTENTS_COMPLETE)
        return;
    fetching->last = *content;
    fetching->unsynced = true;
}

static void on_slot(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    struct slot *slot = context;
    struct fetching *fetching = slot->fetching;
    slot->busy = false;
    fetching->busy--;
    if (code != 0) {
        api_fail_content(call, slot->path.path, &slot->content, code, result,
                         n); /* the others are taken back */
        return;
    }
    note_filled(fetching, &slot->content);
    report(fetching);
    go_on(call);
}

static struct slot *free_slot(struct fetching *fetching)
{
    for (size_t i = 0; i < FETCHES_MAX; i++)
        if (!fetching->slots[i].busy)
            return &fetching->slots[i];
    return NULL;
}

static int fetch_file(void *context, struct replica_path path, const struct replica_version *version)
{
    struct fetching *fetching = context;
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_FETCH, .volume = fetching->volume};
    const struct replica_entry *entry = &version->entry;
    struct slot *slot = free_slot(fetching);
    bool missing;
    if (entry->kind != REPLICA_KIND_FILE)
        return 0;
    if (entry->blob.kind ==
        REPLICA_BLOB_CONTENT) /* a file that has gone is no more held than one that never came */
        (void)replica_contents_files_glance(api_contents(fetching->call), &entry->blob.content);
    missing =
        entry->blob.kind == REPLICA_BLOB_CONTENT &&
        replica_contents_state(api_contents(fetching->call), &entry->blob.content) < REPLICA_CONTENTS_FILLED;
    if (missing && slot == NULL)
        return WALK_HOLD;
    fetching->files++;
    fetching->bytes += entry->size;
    fetching->total += entry->size;
    if (!missing) {
        if (entry->blob.kind == REPLICA_BLOB_CONTENT)
            note_filled(fetching, &entry->blob.content);
        else
            fetching->done_bytes += entry->size;
        return 0;
    }
    slot->fetching = fetching;
    slot->content = entry->blob.content;
    api_path_set(&slot->path, path.text, path.size);
    slot->bytes = 0;
    slot->busy = true;
    fetching->busy++;
    request.content = slot->content;
    api_request(fetching->call, &request, on_slot, slot);
    return 0;
}

static void on_complete(struct api_call *call, int code)
{
    const struct fetching *fetching = call->state;
    struct replica_buffer reply;
    if (code != 0) {
        api_fail_path(call, fetching->path.path, code, NULL, 0);
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 2);
    api_pack_key(&reply, "files");
    replica_pack_uint(&reply, fetching->files);
    api_pack_key(&reply, "bytes");
    replica_pack_uint(&reply, fetching->bytes);
    api_reply(call, &reply);
}

static void on_turn(struct api_call *call)
{
    struct fetching *fetching = call->state;
    fetching->turning = false;
    go_on(call);
}

/* Walks as far as there are slots, a few pages a turn. */
static void go_on(struct api_call *call)
{
    struct fetching *fetching = call->state;
    struct replica_view *view = api_view(call, &fetching->view);
    int rv = REPLICA_E_AGAIN;
    if (fetching->turning)
        return;
    if (view == NULL) {
        api_fail(call, REPLICA_E_NOTFOUND, "fs.fetch: the view was closed meanwhile");
        return;
    }
    for (int i = 0;
         i < PAGES_A_TURN && !fetching->walked && rv == REPLICA_E_AGAIN && fetching->busy < FETCHES_MAX; i++)
        rv = api_walk_step(&fetching->walk, view);
    if (rv == 0)
        fetching->walked = true;
    if (!fetching->walked && rv != REPLICA_E_AGAIN) {
        api_fail_path(call, fetching->walk.at.path, rv, NULL, 0);
    } else if (!fetching->walked && fetching->busy < FETCHES_MAX) {
        fetching->turning = true;
        api_later(call, YIELD_MS, on_turn);
    } else if (fetching->walked && fetching->busy == 0) {
        if (fetching->unsynced)
            api_await_complete(call, &fetching->last, on_complete);
        else
            on_complete(call, 0);
    }
}

static void begin(struct api_call *call, struct fetching *fetching, struct replica_view *view, bool recursive)
{
    struct replica_version version;
    struct api_at at;
    bool directory;
    int code = api_get_at(call, &at);
    if (code != 0)
        return;
    replica_version_init(&version);
    code = api_look_up(view, fetching->path.path, &at, &version);
    directory = code == 0 && version.entry.kind == REPLICA_KIND_DIRECTORY;
    if (code == 0 && directory && (!recursive || at.given))
        code = REPLICA_E_ISDIR;
    if (code == 0 && !directory) {
        (void)fetch_file(fetching, fetching->path.path, &version);
        fetching->walked = true;
    }
    replica_version_close(&version);
    if (code == REPLICA_E_ISDIR)
        api_fail(call, code,
                 at.given ? "/%s: is a directory; `at` is of one file"
                          : "/%s: is a directory; `recursive` fetches what is in it",
                 fetching->path.text);
    else if (code != 0)
        api_fail_look_up(call, fetching->path.path, &at, code);
    else
        go_on(call);
}

void api_fs_fetch(struct api_call *call)
{
    struct replica_view *view;
    struct fetching *fetching;
    bool recursive = false;
    if (api_get_view(call, &view) != 0)
        return;
    fetching = calloc(1, sizeof *fetching);
    call->state = fetching;
    call->free_state = free;
    if (fetching == NULL) {
        api_fail(call, REPLICA_E_NOMEM, NULL);
        return;
    }
    fetching->call = call;
    fetching->view = replica_view_info(view)->options.id;
    fetching->volume = replica_view_info(view)->options.volume;
    call->on_progress = on_slot_progress;
    if (api_get_path(call, "path", true, &fetching->path) != 0 ||
        api_get_bool(call, "recursive", &recursive) != 0)
        return;
    api_walk_init(&fetching->walk, &fetching->path);
    fetching->walk.context = fetching;
    fetching->walk.enter = fetch_file;
    begin(call, fetching, view, recursive);
}
