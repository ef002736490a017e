/* A peer whose store has failed. Nothing that it would write is applied any more, so every room that reads what it wrote is left
 * alone: it would go round in circles, or take for damage what is only missing. What goes on is what needs no writing: being a member,
 * giving contents away, and reading what was applied before. */
#include "peer/peer.h"

#include "replica/error.h"

#include <stdint.h>

static const char *reason(int code)
{
    return code == REPLICA_E_NOSPACE ? "no space left on the disk of this node's store, and its log could "
                                       "not be written; until there "
                                       "is room, only `local` reads of what is here go on"
                                     : "this node's store could not be written; until its disk is mended and "
                                       "the node restarted, only "
                                       "`local` reads of what is here go on";
}

static void refuse(const struct gossip_peer *peer, uint64_t token, struct gossip_update *update)
{
    quorum_answer_code(update, token, peer->failed, reason(peer->failed), false);
}

/* Edits are answered here because their callers' pointers are: no other room holds any after it was stopped. */
void peer_fail(struct gossip_peer *peer, int code, struct gossip_update *update)
{
    if (peer->failed != 0)
        return;
    peer->failed = code != 0 ? code : REPLICA_E_IO;
    for (size_t i = 0; i < peer->edits_n; i++)
        refuse(peer, peer->edits[i].token, update);
    peer->edits_n = 0;
}

/* A private view ends with its caller, and what is left of it in the store with the next life. */
static void close_view(struct gossip_peer *peer, const struct gossip_peer_request *request,
                       struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(peer->views, &request->view);
    int rv;
    if (view == NULL || !(replica_view_info(view)->options.flags & REPLICA_VIEW_PRIVATE)) {
        refuse(peer, request->token, update);
        return;
    }
    rv = replica_view_close(view, SIZE_MAX, &update->log);
    gossip_update_answer(update, request->token, rv, NULL, false);
}

bool peer_failed_takes(struct gossip_peer *peer, const struct gossip_peer_event *event,
                       struct gossip_update *update)
{
    const struct gossip_peer_request *request = event->request;
    switch (event->kind) {
    case GOSSIP_PEER_EVENT_MESSAGE:
        return event->room == GOSSIP_ROOM_MEMBER || event->room == GOSSIP_ROOM_SWARM;
    case GOSSIP_PEER_EVENT_START:
    case GOSSIP_PEER_EVENT_SYNCED:
    case GOSSIP_PEER_EVENT_SETTLED:
    case GOSSIP_PEER_EVENT_MAP_SYNCED:
    case GOSSIP_PEER_EVENT_DAMAGED:
    case GOSSIP_PEER_EVENT_FAILED:
        return false;
    case GOSSIP_PEER_EVENT_REQUEST:
        break;
    default:
        return true;
    }
    if (request->kind == GOSSIP_PEER_FETCH || request->kind == GOSSIP_PEER_CANCEL)
        return true;
    if (request->kind == GOSSIP_PEER_VIEW_CLOSE) {
        close_view(peer, request, update);
        return false;
    }
    if (request->kind == GOSSIP_PEER_VIEW_OPEN && request->mode == GOSSIP_RELOAD_LOCAL &&
        (request->view_options.label[0] == '\0' ||
         replica_view_find_label(peer->views, &request->view_options.volume, request->view_options.label) !=
             NULL))
        return true;
    refuse(peer, request->token, update);
    return false;
}
