/* Local requests: to which room each goes. Edits of views are carried out here, one call a step. */
#include "peer/peer.h"

#include "replica/error.h"

#include <string.h>

#define CLOSE_RECORDS_MAX 500 /* overlay records forgotten in one step */

static int add_edit(struct gossip_peer *peer, const struct gossip_peer_request *request,
                    struct gossip_update *update)
{
    if (replica_view_find(peer->views, &request->view) == NULL) {
        quorum_answer_code(update, request->token, REPLICA_E_NOTFOUND, "no such view", false);
        return 0;
    }
    if (peer->edits_n == EDITS_MAX) {
        quorum_answer_code(update, request->token, REPLICA_E_BUSY, "too many changes to views at once",
                           false);
        return 0;
    }
    peer->edits[peer->edits_n++] = (struct peer_edit){
        .token = request->token,
        .view = request->view,
        .edit = request->edit,
        .context = request->context,
        .durable = request->durable,
        .closing = request->kind == GOSSIP_PEER_VIEW_CLOSE,
    };
    update->again = true;
    return 0;
}

/* Views take turns, so that a long edit of one holds up no other; of the view whose turn it is, the edit that was asked for first. */
static struct peer_edit *next_edit(struct gossip_peer *peer)
{
    const struct replica_id *view;
    peer->edits_turn = (peer->edits_turn + 1) % peer->edits_n;
    view = &peer->edits[peer->edits_turn].view;
    for (size_t i = 0;; i++)
        if (replica_id_equal(&peer->edits[i].view, view))
            return &peer->edits[i];
}

/* One at a time: what an edit wrote must be applied before the next one reads. */
int peer_edit_some(struct gossip_peer *peer, struct gossip_update *update)
{
    struct peer_edit *edit;
    struct replica_view *view;
    int rv;
    if (peer->edits_n == 0)
        return 0;
    edit = next_edit(peer);
    view = replica_view_find(peer->views, &edit->view);
    if (view == NULL)
        rv = edit->closing ? 0 : REPLICA_E_NOTFOUND;
    else if (edit->closing)
        rv = replica_view_close(view, CLOSE_RECORDS_MAX, &update->log);
    else if (edit->token == 0)
        rv = REPLICA_E_CANCELLED;
    else
        rv = edit->edit(edit->context, view, &update->log);
    if (rv != REPLICA_E_AGAIN) {
        if (edit->token != 0)
            gossip_update_answer(update, edit->token, rv, NULL, edit->durable && rv == 0);
        memmove(edit, edit + 1, (size_t)(&peer->edits[peer->edits_n] - (edit + 1)) * sizeof *edit);
        peer->edits_n--;
    }
    if (peer->edits_n > 0)
        update->again = true;
    return 0;
}

static int open_view(struct gossip_peer *peer, const struct gossip_peer_event *event,
                     struct gossip_update *update)
{
    const struct gossip_peer_request *request = event->request;
    struct replica_view_options options = request->view_options;
    struct gossip_quorum_event e = {.kind = GOSSIP_QUORUM_EVENT_OPEN,
                                    .time = event->time,
                                    .batch = event->batch,
                                    .token = request->token,
                                    .timeout_ms = request->timeout_ms,
                                    .options = &options,
                                    .mode = request->mode,
                                    .at_least = &request->at_least};
    struct replica_view *view = options.label[0] == '\0'
                                    ? NULL
                                    : replica_view_find_label(peer->views, &options.volume, options.label);
    if (view != NULL) { /* attached to again: it keeps its snapshot until it is reloaded */
        const struct replica_view_info *info = replica_view_info(view);
        struct replica_buffer payload;
        replica_buffer_init(&payload);
        replica_pack_array(&payload, 2);
        replica_pack_id(&payload, &info->options.id);
        replica_pack_uint(&payload, info->options.snapshot);
        gossip_update_answer(update, request->token, 0, &payload, false);
        replica_buffer_close(&payload);
        return 0;
    }
    if (replica_id_is_zero(&options.id))
        gossip_random_id(&peer->random, &options.id);
    return gossip_quorum_step(&peer->quorum, &e, update);
}

static int commit_or_reload(struct gossip_peer *peer, const struct gossip_peer_event *event,
                            struct gossip_update *update)
{
    const struct gossip_peer_request *request = event->request;
    struct gossip_quorum_event e = {.kind = request->kind == GOSSIP_PEER_COMMIT ? GOSSIP_QUORUM_EVENT_COMMIT
                                                                                : GOSSIP_QUORUM_EVENT_RELOAD,
                                    .time = event->time,
                                    .batch = event->batch,
                                    .token = request->token,
                                    .timeout_ms = request->timeout_ms,
                                    .view = request->view,
                                    .mode = request->mode,
                                    .at_least = &request->at_least};
    return gossip_quorum_step(&peer->quorum, &e, update);
}

static int fetch(struct gossip_peer *peer, const struct gossip_peer_event *event,
                 struct gossip_update *update)
{
    const struct gossip_peer_request *request = event->request;
    struct gossip_swarm_event e = {.kind = request->count > 0 ? GOSSIP_SWARM_EVENT_WANT_RANGE
                                                              : GOSSIP_SWARM_EVENT_WANT,
                                   .time = event->time,
                                   .volume = request->volume,
                                   .content = request->content,
                                   .first = request->first,
                                   .count = request->count,
                                   .token = request->token};
    int rv = peer->failed != 0 ? 0 : peer_evict_room(peer, &request->content, update);
    peer_evict_touch(peer, &request->content);
    return rv != 0 ? rv : gossip_swarm_step(peer->swarm, &e, update);
}

static int cancel(struct gossip_peer *peer, const struct gossip_peer_event *event,
                  struct gossip_update *update)
{
    struct gossip_swarm_event swarm = {
        .kind = GOSSIP_SWARM_EVENT_CANCEL, .time = event->time, .token = event->request->token};
    struct gossip_quorum_event quorum = {.kind = GOSSIP_QUORUM_EVENT_CANCEL,
                                         .time = event->time,
                                         .batch = event->batch,
                                         .token = event->request->token};
    int rv;
    for (size_t i = 0; i < peer->edits_n; i++)
        if (peer->edits[i].token == event->request->token)
            peer->edits[i].token = 0;
    rv = gossip_swarm_step(peer->swarm, &swarm, update);
    return rv != 0 ? rv : gossip_quorum_step(&peer->quorum, &quorum, update);
}

static int control(struct gossip_peer *peer, const struct gossip_peer_event *event,
                   struct gossip_update *update)
{
    struct gossip_control_request request = event->request->control;
    struct gossip_control_event e = {.kind = GOSSIP_CONTROL_EVENT_REQUEST,
                                     .time = event->time,
                                     .request = &request,
                                     .batch = event->batch,
                                     .synced = event->synced};
    request.token = event->request->token;
    request.timeout_ms = event->request->timeout_ms;
    if (request.kind == GOSSIP_CONTROL_INIT && peer->principal.role != GOSSIP_ROLE_VOTER) {
        quorum_answer_code(update, request.token, REPLICA_E_DENIED,
                           "this node's credential may not vote, and so not begin a cluster", false);
        return 0;
    }
    return gossip_control_step(peer->control, &e, update);
}

int peer_request(struct gossip_peer *peer, const struct gossip_peer_event *event,
                 struct gossip_update *update)
{
    switch (event->request->kind) {
    case GOSSIP_PEER_CONTROL:
        return control(peer, event, update);
    case GOSSIP_PEER_VIEW_OPEN:
        return open_view(peer, event, update);
    case GOSSIP_PEER_VIEW_CLOSE:
    case GOSSIP_PEER_VIEW_EDIT:
        return add_edit(peer, event->request, update);
    case GOSSIP_PEER_COMMIT:
    case GOSSIP_PEER_RELOAD:
        return commit_or_reload(peer, event, update);
    case GOSSIP_PEER_OFFER:
        quorum_offer_send(&peer->quorum, &event->request->volume, event->request->offered,
                          event->request->offered_n, update);
        gossip_update_answer(update, event->request->token, 0, NULL, false);
        return 0;
    case GOSSIP_PEER_FETCH:
        return fetch(peer, event, update);
    case GOSSIP_PEER_CANCEL:
        return cancel(peer, event, update);
    }
    return 0;
}
