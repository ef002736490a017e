/* Collection of contents that nothing names: left by puts that were given up and commits that were thawed. Slow by design: a content is
 * looked at about once in COLLECT_PERIOD_MS, and one that was just ingested may not be named yet, so it must be found unnamed twice. */
#include "peer.h"

#include "replica/error.h"

#include <string.h>

#define COLLECT_PERIOD_MS 60000 /* between passes */
#define COLLECT_STEP_MS   100   /* between looks inside a pass */
#define COLLECT_PER_STEP  50

int peer_refers(struct gossip_peer *peer, const struct replica_content_id *content, bool *ret_refers)
{
    int rv = replica_map_refers(peer->map, content, ret_refers);
    if (rv == 0 && !*ret_refers)
        rv = replica_views_refer(peer->views, content, ret_refers);
    if (rv == 0 && !*ret_refers)
        rv = replica_volume_pins(peer->log, content, ret_refers);
    if (rv == 0 && !*ret_refers)
        *ret_refers = gossip_quorum_refers(&peer->quorum, content);
    return rv;
}
