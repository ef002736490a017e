/* Healing (design §6): what was damaged here, and what this store must hold, is fetched again at once. A voter must hold what its volumes
 * name, and what is pinned by a proposal or a delta that was not applied yet; meanwhile it is absent, so nothing that needs it is acked
 * anew. What a cache has lost is fetched when somebody reads it. */
#include "peer/peer.h"

#include "replica/error.h"

int peer_heal(struct gossip_peer *peer, const struct replica_content_id *content,
              struct gossip_update *update)
{
    /* Also wanted if a reader waits for a part of it already: he may go. */
    for (size_t i = 0; i < peer->table.n; i++) {
        const struct replica_id *volume = &peer->table.items[i]->id;
        bool refers = false;
        int rv;
        if (!gossip_sync_is_voter(peer->control, volume, &peer->self))
            continue;
        rv = peer_refers(peer, volume, content, &refers);
        update->reads += 4;
        if (rv == 0 && refers)
            gossip_update_note(update, GOSSIP_NOTE_WANT, volume, NULL, content);
        if (rv != 0 || refers)
            return rv;
    }
    return 0;
}
