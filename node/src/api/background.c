/* What happens without a call: private views end with their connection, AUTO views are published every few
 * seconds. And what the api remembers about views: who owns them, which are held, which drafts may be written
 * in place. */
#include "api/server.h"

#include "replica/contents_files.h"

#include <stdlib.h>
#include <string.h>

/* Errors: NOMEM. */
static int add_id(struct replica_id **ids, size_t *n, size_t *capacity, const struct replica_id *id)
{
    if (*n == *capacity) {
        size_t wanted = *capacity == 0 ? 4 : *capacity * 2;
        struct replica_id *more = realloc(*ids, wanted * sizeof *more);
        if (more == NULL)
            return REPLICA_E_NOMEM;
        *ids = more;
        *capacity = wanted;
    }
    (*ids)[(*n)++] = *id;
    return 0;
}

static bool has_id(const struct replica_id *ids, size_t n, const struct replica_id *id)
{
    for (size_t i = 0; i < n; i++)
        if (replica_id_equal(&ids[i], id))
            return true;
    return false;
}

static void remove_id(struct replica_id *ids, size_t *n, const struct replica_id *id)
{
    for (size_t i = 0; i < *n; i++)
        if (replica_id_equal(&ids[i], id)) {
            ids[i] = ids[--*n];
            return;
        }
}

/* Without memory the view is swept away early, and the caller is told that it does not exist: better than one
 * that nobody closes. */
void api_own_view(struct api_call *call, const struct replica_id *view)
{
    struct api_session *session = call->session;
    if (session != NULL)
        (void)add_id(&session->views, &session->views_n, &session->views_capacity, view);
}

void api_disown_view(struct api_call *call, const struct replica_id *view)
{
    if (call->session != NULL)
        remove_id(call->session->views, &call->session->views_n, view);
}

bool api_may_use_view(const struct api_call *call, const struct replica_view *view)
{
    const struct replica_view_info *info = replica_view_info(view);
    if (!(info->options.flags & REPLICA_VIEW_PRIVATE))
        return call->session != NULL && (api_is_own(call) || info->options.uid == call->uid);
    return call->session != NULL && has_id(call->session->views, call->session->views_n, &info->options.id);
}

void api_hold_view(struct node_api *api, const struct replica_id *view, bool hold)
{
    remove_id(api->held, &api->held_n, view);
    if (hold)
        (void)add_id(&api->held, &api->held_n, &api->held_capacity, view);
}

bool node_api_view_is_held(const struct node_api *api, const struct replica_id *view)
{
    return has_id(api->held, api->held_n, view);
}

/* Errands */

static void remove_errand(struct api_errand *errand)
{
    struct api_errand **at = &errand->api->errands;
    while (*at != errand)
        at = &(*at)->next;
    *at = errand->next;
    free(errand);
}

static void on_errand(void *context, int code, const uint8_t *result, size_t n, bool final)
{
    struct api_errand *errand = context;
    struct replica_view *view;
    (void)result;
    (void)n;
    if (!final)
        return;
    view = replica_view_find(gossip_peer_views(node_get_peer(errand->api->node)), &errand->view);
    if (errand->commit && code != 0 && view != NULL)
        node_log(NODE_LOG_WARNING, "background_commit", "view=\"%s\" error=%s text=\"%s\"",
                 replica_view_info(view)->options.label, replica_error_symbol(code),
                 replica_error_text(code));
    if (!errand->commit && code == 0)
        api_drafts_forget(errand->api, &errand->view);
    remove_errand(errand);
}

static bool is_on_errand(const struct node_api *api, const struct replica_id *view)
{
    for (const struct api_errand *errand = api->errands; errand != NULL; errand = errand->next)
        if (replica_id_equal(&errand->view, view))
            return true;
    return false;
}

static void start_errand(struct node_api *api, const struct replica_id *view, bool commit)
{
    struct gossip_peer_request request = {.kind = commit ? GOSSIP_PEER_COMMIT : GOSSIP_PEER_VIEW_CLOSE,
                                          .view = *view};
    struct api_errand *errand = calloc(1, sizeof *errand);
    if (errand == NULL)
        return; /* the next tick tries again */
    *errand = (struct api_errand){.api = api, .view = *view, .commit = commit, .next = api->errands};
    api->errands = errand;
    node_request(api->node, &request, on_errand, errand);
}

static bool is_owned(const struct node_api *api, const struct replica_id *view)
{
    for (const struct api_session *session = api->sessions; session != NULL; session = session->next)
        if (has_id(session->views, session->views_n, view))
            return true;
    return false;
}

/* Also those of an earlier life of the node. One whose commit is still being driven refuses (BUSY) and is
 * tried again. */
void background_sweep(struct node_api *api)
{
    struct replica_views *views = gossip_peer_views(node_get_peer(api->node));
    if (views == NULL || api->stopping)
        return;
    for (size_t i = 0; i < replica_views_count(views);
         i++) { /* counted anew: a request may take its view away at once */
        const struct replica_view_info *info = replica_view_info(replica_views_at(views, i));
        if (info->options.flags & REPLICA_VIEW_PRIVATE && info->commit == REPLICA_COMMIT_NONE &&
            !is_owned(api, &info->options.id) && !is_on_errand(api, &info->options.id))
            start_errand(api, &info->options.id, false);
    }
}

void background_commit(struct node_api *api)
{
    struct replica_views *views = gossip_peer_views(node_get_peer(api->node));
    char text[512];
    if (views == NULL || node_space_refuses(api->node, false, text, sizeof text) != 0)
        return; /* that was said once; drafts wait */
    for (size_t i = 0; i < replica_views_count(views); i++) {
        const struct replica_view_info *info = replica_view_info(replica_views_at(views, i));
        if (info->options.flags & REPLICA_VIEW_AUTO && info->dirty > 0 &&
            info->commit == REPLICA_COMMIT_NONE && !node_api_view_is_held(api, &info->options.id) &&
            gossip_peer_behind(node_get_peer(api->node), &info->options.volume) == 0 &&
            !is_on_errand(api, &info->options.id))
            start_errand(api, &info->options.id, true);
    }
}

void background_close(struct node_api *api)
{
    while (api->errands != NULL)
        remove_errand(api->errands);
    free(api->held);
}

/* Drafts */

void api_draft_own(struct node_api *api, const struct replica_id *view, uint64_t draft, uint64_t generation)
{
    struct api_draft *slot = NULL;
    for (size_t i = 0; i < API_DRAFTS_MAX && slot == NULL; i++)
        if (api->drafts[i].draft == draft)
            slot = &api->drafts[i];
    if (slot == NULL)
        slot = &api->drafts[api->drafts_at++ % API_DRAFTS_MAX];
    *slot = (struct api_draft){.view = *view, .draft = draft, .generation = generation};
}

/* One that lies in a generation that was frozen may be in the middle of becoming a content: it is never
 * written again, whatever came of that commit. */
bool api_draft_is_own(const struct node_api *api, const struct replica_view *view, uint64_t draft)
{
    const struct replica_view_info *info = replica_view_info(view);
    for (size_t i = 0; i < API_DRAFTS_MAX; i++)
        if (api->drafts[i].draft == draft)
            return draft != 0 && api->drafts[i].forget_ms == 0 &&
                   api->drafts[i].generation == info->generation &&
                   replica_id_equal(&api->drafts[i].view, &info->options.id);
    return false;
}

void api_draft_share(struct node_api *api, uint64_t draft)
{
    for (size_t i = 0; i < API_DRAFTS_MAX; i++)
        if (api->drafts[i].draft == draft)
            api->drafts[i].generation = 0; /* of none: generations count from 1 */
}

#define FORGET_AFTER_MS 60000 /* a sync that takes longer has failed, and the node has stopped */
#define FORGET_AT_ONCE  64

/* What a closed view leaves behind; those of a view that was frozen and committed have become contents, and
 * are gone already. */
void api_drafts_forget(struct node_api *api, const struct replica_id *view)
{
    for (size_t i = 0; i < API_DRAFTS_MAX; i++)
        if (api->drafts[i].draft != 0 && replica_id_equal(&api->drafts[i].view, view))
            api->drafts[i].forget_ms = node_now_ms() + FORGET_AFTER_MS;
}

struct forgetting {
    struct node_job job;
    struct replica_contents *contents;
    uint64_t drafts[FORGET_AT_ONCE];
    size_t n;
};

static void run_forget(struct node_job *job)
{
    struct forgetting *forgetting = (struct forgetting *)job;
    for (size_t i = 0; i < forgetting->n; i++)
        (void)replica_contents_files_draft_remove(forgetting->contents, forgetting->drafts[i]);
}

static void on_forgotten(struct node_job *job)
{
    free(job);
}

/* On a worker: a large file takes its time to go. */
void background_forget_drafts(struct node_api *api)
{
    uint64_t now_ms = node_now_ms();
    struct forgetting *forgetting = NULL;
    for (size_t i = 0; i < API_DRAFTS_MAX; i++) {
        struct api_draft *slot = &api->drafts[i];
        if (slot->forget_ms == 0 || slot->forget_ms > now_ms)
            continue;
        if (forgetting == NULL && (forgetting = calloc(1, sizeof *forgetting)) == NULL)
            return;
        forgetting->drafts[forgetting->n++] = slot->draft;
        memset(slot, 0, sizeof *slot);
        if (forgetting->n == FORGET_AT_ONCE)
            break; /* the rest at the next tick */
    }
    if (forgetting == NULL)
        return;
    forgetting->job = (struct node_job){.run = run_forget, .done = on_forgotten};
    forgetting->contents = node_get_contents(api->node);
    node_workers_submit(node_get_workers(api->node), &forgetting->job);
}
