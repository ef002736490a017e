/* Messages to the swarm room, as any member of the cluster may send them: the first byte is the type. The
 * room fetches one content, has another, and must stay sound. */
#include "gossip/swarm.h"
#include "replica/contents_memory.h"
#include "replica/error.h"
#include "swarm/swarm.h"

#include <stdlib.h>
#include <string.h>

static size_t holders(void *context, const struct replica_id *volume, struct replica_id *ret, size_t max)
{
    (void)context;
    (void)volume;
    (void)max;
    memset(ret, 9, sizeof *ret);
    return 1;
}

static bool may_read(void *context, const struct replica_id *volume, const struct gossip_principal *principal)
{
    (void)context;
    (void)volume;
    (void)principal;
    return true;
}

static bool belongs(void *context, const struct replica_id *volume, const struct replica_content_id *content)
{
    (void)context;
    (void)volume;
    (void)content;
    return true;
}

static void step(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                 struct gossip_update *update)
{
    int rv;
    gossip_update_clear(update);
    rv = gossip_swarm_step(swarm, event, update);
    if (rv != 0 && rv != REPLICA_E_MALFORMED)
        abort();
    swarm_check_invariants(swarm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t bytes[3 << 20] = {1};
    struct gossip_swarm_directory directory = {.holders = holders, .may_read = may_read, .belongs = belongs};
    struct gossip_principal from = {.every_volume = true};
    struct gossip_swarm_event event = {.kind = GOSSIP_SWARM_EVENT_WANT, .time = {.now_ms = 1}};
    struct replica_id self = {{1}};
    struct gossip_swarm_options options;
    struct replica_contents *contents;
    struct gossip_swarm *swarm;
    struct gossip_update update;
    if (size == 0)
        return 0;
    gossip_swarm_options_default(&options);
    gossip_update_init(&update);
    if (replica_contents_memory_new(&contents) != 0 ||
        gossip_swarm_new(&options, contents, NULL, &directory, &self, 1, &swarm) != 0)
        abort();
    if (replica_contents_ingest(contents, bytes, 100000, &event.content) != 0)
        abort();
    event.content.length = 5 << 20; /* one that is not here, by an id that a corpus can name */
    memset(event.content.root, 7, sizeof event.content.root);
    step(swarm, &event, &update);
    memset(&from.store, 9, sizeof from.store);
    event = (struct gossip_swarm_event){
        .kind = GOSSIP_SWARM_EVENT_MESSAGE,
        .time = {.now_ms = 2},
        .message = {.from = &from, .type = data[0], .payload = data + 1, .size = size - 1}};
    step(swarm, &event, &update);
    event = (struct gossip_swarm_event){.kind = GOSSIP_SWARM_EVENT_TIMER, .time = {.now_ms = 5000}};
    step(swarm, &event, &update);
    gossip_update_close(&update);
    gossip_swarm_destroy(&swarm);
    replica_contents_destroy(&contents);
    return 0;
}
