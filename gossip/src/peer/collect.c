/* Collection of contents that nothing names: left by puts that were given up and commits that were thawed.
 *
 * Slow by design, and careful: a content that was just ingested may not be named yet, so it must be found unnamed in two passes that are
 * COLLECT_PERIOD_MS apart. Bytes that were known already when they were put again are the one gap in that, and are guarded otherwise: an edit
 * that names a content looks for it in the same step, and a draft whose bytes have gone when it would become a content is hashed again.
 * What a delta names is pinned until it is applied, so a busy volume holds no pass up; only a life that began with less applied than its
 * log has in order waits until it has caught up, because the pins of what was applied before are gone. */
#include "peer/peer.h"

#include "replica/error.h"
#include "sync/image.h"

#include <stdlib.h>
#include <string.h>

#define COLLECT_PERIOD_MS 60000 /* between passes */
#define COLLECT_STEP_MS   20    /* between looks inside a pass */
#define COLLECT_PER_STEP  50    /* contents in one look; each costs a few reads */

int peer_refers(struct gossip_peer *peer, const struct replica_id *volume,
                const struct replica_content_id *content, bool *ret_refers)
{
    int rv = replica_map_refers(peer->map, volume, content, ret_refers);
    if (rv == 0 && !*ret_refers)
        rv = replica_views_refer(peer->views, volume, content, ret_refers);
    if (rv == 0 && !*ret_refers)
        rv = replica_volume_pins(peer->log, volume, content, ret_refers);
    if (rv == 0 && !*ret_refers)
        *ret_refers = gossip_quorum_refers(&peer->quorum, volume, content);
    return rv;
}

static bool may_collect(const struct gossip_peer *peer)
{
    for (size_t i = 0; i < peer->table.n; i++) {
        const struct attached *attached = peer->table.items[i];
        if (replica_volume_state(attached->volume)->applied_seq < attached->loaded_seq ||
            image_is_coming(attached))
            return false;
    }
    return true;
}

static int compare_ids(const void *a, const void *b)
{
    return replica_content_id_compare(a, b);
}

/* Contents come in the order of their ids, so both lists are sorted. */
static bool was_unnamed(const struct peer_collect *collect, const struct replica_content_id *content)
{
    return bsearch(content, collect->before, collect->before_n, sizeof *content, compare_ids) != NULL;
}

static int look_at(struct gossip_peer *peer, const struct replica_content_id *content)
{
    struct peer_collect *collect = &peer->collect;
    bool refers;
    int rv = peer_refers(peer, NULL, content, &refers);
    if (rv != 0 || refers || gossip_swarm_is_fetching(peer->swarm, content))
        return rv;
    if (was_unnamed(collect, content)) {
        rv = replica_contents_remove(peer->contents, content);
        return rv == REPLICA_E_BUSY || rv == REPLICA_E_ABSENT ? 0 : rv; /* somebody has begun it again */
    }
    if (collect->now_n < COLLECT_UNNAMED_MAX)
        collect->now[collect->now_n++] = *content;
    return 0;
}

static void end_pass(struct peer_collect *collect, struct gossip_time time)
{
    memcpy(collect->before, collect->now, collect->now_n * sizeof collect->now[0]);
    collect->before_n = collect->now_n;
    collect->now_n = 0;
    memset(&collect->after, 0, sizeof collect->after);
    collect->begun = false;
    collect->at_ms = time.now_ms + COLLECT_PERIOD_MS;
}

int peer_collect(struct gossip_peer *peer, struct gossip_time time, struct gossip_update *update)
{
    struct peer_collect *collect = &peer->collect;
    if (collect->at_ms == 0) /* just started */
        collect->at_ms = time.now_ms + COLLECT_PERIOD_MS;
    gossip_update_wake(update, collect->at_ms);
    if (time.now_ms < collect->at_ms || update->reads >= GOSSIP_STEP_READS_MAX)
        return 0;
    collect->at_ms = time.now_ms + COLLECT_STEP_MS;
    if (!may_collect(peer))
        return 0;
    for (size_t i = 0; i < COLLECT_PER_STEP; i++) {
        struct replica_content_id content;
        enum replica_contents_state state;
        int rv =
            replica_contents_next(peer->contents, collect->begun ? &collect->after : NULL, &content, &state);
        if (rv == REPLICA_E_NOTFOUND) {
            end_pass(collect, time);
            break;
        }
        collect->begun = true;
        collect->after = content;
        update->reads += 4;
        if (rv == 0)
            rv = look_at(peer, &content);
        if (rv != 0 && rv != REPLICA_E_BUSY)
            return rv;
    }
    gossip_update_wake(update, collect->at_ms);
    return 0;
}
