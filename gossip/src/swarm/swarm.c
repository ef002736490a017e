/* The swarm room: making, stepping, and what it shows of itself. */
#include "swarm/swarm.h"

#include "replica/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SWARM_STREAM 6 /* of randomness: no other room's */

void gossip_swarm_options_default(struct gossip_swarm_options *options)
{
    *options = (struct gossip_swarm_options){
        .upload_slots = 10,
        .outstanding = 8,
        .credit_bytes = (uint64_t)64 << 20,
        .request_ms_min = 2000,
        .stalled_ms = 10000,
        .search_ms = 1000,
    };
}

static void init_lists(struct gossip_swarm *swarm)
{
    swarm_link_init(&swarm->dirty);
    swarm_link_init(&swarm->active);
    swarm_link_init(&swarm->unused);
    swarm_link_init(&swarm->dry);
    for (size_t i = 0; i < SWARM_SEARCH_LEVELS; i++)
        swarm_link_init(&swarm->searching[i]);
    swarm_link_init(&swarm->scanning);
    swarm_link_init(&swarm->telling);
    swarm_link_init(&swarm->progress);
    swarm_link_init(&swarm->turns);
    swarm_link_init(&swarm->uploading);
    swarm_link_init(&swarm->topics_used);
}

int gossip_swarm_new(const struct gossip_swarm_options *options, struct replica_contents *contents,
                     const struct gossip_member *member, const struct gossip_swarm_directory *directory,
                     const struct replica_id *self, uint64_t seed, struct gossip_swarm **ret_swarm)
{
    struct gossip_swarm *swarm = calloc(1, sizeof *swarm);
    if (swarm == NULL)
        return REPLICA_E_NOMEM;
    swarm->options = *options;
    swarm->directory = *directory;
    swarm->contents = contents;
    swarm->member = member;
    swarm->self = *self;
    gossip_random_init(&swarm->random, seed, SWARM_STREAM);
    replica_buffer_init(&swarm->payload);
    replica_buffer_init(&swarm->bitmap);
    init_lists(swarm);
    *ret_swarm = swarm;
    return 0;
}

static void destroy_fetches(struct gossip_swarm *swarm)
{
    for (size_t i = 0; i < swarm->fetches.buckets_n; i++)
        while (swarm->fetches.buckets[i] != NULL)
            swarm_fetch_destroy(swarm, SWARM_ITEM(swarm->fetches.buckets[i], struct swarm_fetch, node));
}

static void destroy_peers(struct gossip_swarm *swarm)
{
    for (size_t i = 0; i < swarm->peers.buckets_n; i++)
        while (swarm->peers.buckets[i] != NULL)
            swarm_peer_destroy(swarm, SWARM_ITEM(swarm->peers.buckets[i], struct swarm_peer, node));
}

void gossip_swarm_destroy(struct gossip_swarm **swarm)
{
    if (*swarm == NULL)
        return;
    destroy_fetches(*swarm);
    swarm_serve_close(*swarm);
    destroy_peers(*swarm);
    swarm_table_close(&(*swarm)->fetches);
    swarm_table_close(&(*swarm)->peers);
    swarm_table_close(&(*swarm)->topics);
    replica_buffer_close(&(*swarm)->payload);
    replica_buffer_close(&(*swarm)->bitmap);
    free((*swarm)->volumes);
    free(*swarm);
    *swarm = NULL;
}

/* Stepping */

static int dispatch(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                    struct gossip_update *update)
{
    switch (event->kind) {
    case GOSSIP_SWARM_EVENT_TIMER:
        return 0;
    case GOSSIP_SWARM_EVENT_MESSAGE:
        return swarm_message(swarm, &event->message, update);
    case GOSSIP_SWARM_EVENT_WANT:
    case GOSSIP_SWARM_EVENT_WANT_RANGE:
        swarm_want(swarm, event, update);
        return 0;
    case GOSSIP_SWARM_EVENT_UNWANT:
        swarm_unwant(swarm, event);
        return 0;
    case GOSSIP_SWARM_EVENT_CANCEL:
        swarm_cancel_token(swarm, event->token);
        return 0;
    case GOSSIP_SWARM_EVENT_PIECE:
        swarm_piece(swarm, event, update);
        return 0;
    case GOSSIP_SWARM_EVENT_UPLOADED:
        swarm_uploaded(swarm, event, update);
        return 0;
    case GOSSIP_SWARM_EVENT_MEMBER_DEAD:
        swarm_member_dead(swarm, &event->source, update);
        return 0;
    }
    return 0;
}

static void wake_for(const struct swarm_link *list, struct gossip_update *update)
{
    if (!swarm_link_alone(list))
        gossip_update_wake(update, SWARM_ITEM(list->next, struct swarm_fetch, timer)->due_ms);
}

/* Every queue has one delay, so its first item is due first. */
static void wake(const struct gossip_swarm *swarm, struct gossip_update *update)
{
    wake_for(&swarm->dry, update);
    for (size_t i = 0; i < SWARM_SEARCH_LEVELS; i++)
        wake_for(&swarm->searching[i], update);
    if (!swarm_link_alone(&swarm->telling))
        gossip_update_wake(update, SWARM_ITEM(swarm->telling.next, struct swarm_large, telling)->tell_at_ms);
    if (!swarm_link_alone(&swarm->progress))
        gossip_update_wake(update,
                           SWARM_ITEM(swarm->progress.next, struct swarm_waiter, in_progress)->due_ms);
    if (!swarm_link_alone(&swarm->active) || !swarm_link_alone(&swarm->dirty))
        gossip_update_wake(update, swarm->tick_at_ms);
    if (!swarm_link_alone(&swarm->scanning))
        update->again = true;
}

int gossip_swarm_step(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                      struct gossip_update *update)
{
    int rv;
    if (event->time.now_ms > swarm->now_ms)
        swarm->now_ms = event->time.now_ms;
    rv = dispatch(swarm, event, update);
    swarm_scan_some(swarm, update);
    swarm_tick(swarm, update);
    swarm_search_due(swarm, update);
    swarm_dry_due(swarm, update);
    if (event->kind == GOSSIP_SWARM_EVENT_WANT && !swarm_link_alone(&swarm->dirty))
        update->again = true; /* more may be wanted before that: they share messages */
    else
        swarm_pump(swarm, update);
    swarm_telling_due(swarm, update);
    swarm_progress_due(swarm, update);
    swarm_upload_some(swarm, update);
    wake(swarm, update);
    return swarm->no_memory ? REPLICA_E_NOMEM : rv;
}

/* Showing */

static bool is_stalled(const struct gossip_swarm *swarm, const struct swarm_fetch *fetch)
{
    return swarm->now_ms - fetch->progress_ms >= swarm->options.stalled_ms;
}

void gossip_swarm_status(const struct gossip_swarm *swarm, struct gossip_swarm_status *ret_status)
{
    *ret_status = (struct gossip_swarm_status){
        .fetches = swarm->fetches.n,
        .waiting = swarm->searching_n,
        .uploads = swarm->uploading_n + swarm->queued_n,
        .received_bytes = swarm->received_bytes,
        .sent_bytes = swarm->sent_bytes,
        .bad_pieces = swarm->bad_pieces,
        .duplicate_bytes = swarm->duplicate_bytes,
    };
    for (size_t i = 0; i < swarm->fetches.buckets_n; i++)
        for (const struct swarm_node *node = swarm->fetches.buckets[i]; node != NULL; node = node->next)
            ret_status->stalled += is_stalled(swarm, SWARM_ITEM(node, struct swarm_fetch, node));
}

static int compare_fetches(const void *a, const void *b)
{
    const struct swarm_fetch *const *x = a, *const *y = b;
    return replica_content_id_compare(&(*x)->content, &(*y)->content);
}

static size_t count_sources(const struct gossip_swarm *swarm, const struct swarm_fetch *fetch)
{
    size_t n = 0;
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        n += swarm_holder_usable(swarm, holder);
    return n;
}

int gossip_swarm_each(const struct gossip_swarm *swarm,
                      int (*visit)(void *context, const struct replica_content_id *content, uint64_t present,
                                   size_t sources, bool stalled),
                      void *context)
{
    const struct swarm_fetch **fetches;
    size_t n = 0;
    int rv = 0;
    if (swarm->fetches.n == 0)
        return 0;
    fetches = malloc(swarm->fetches.n * sizeof(struct swarm_fetch *));
    if (fetches == NULL)
        return REPLICA_E_NOMEM;
    for (size_t i = 0; i < swarm->fetches.buckets_n; i++)
        for (struct swarm_node *node = swarm->fetches.buckets[i]; node != NULL; node = node->next)
            fetches[n++] = SWARM_ITEM(node, struct swarm_fetch, node);
    assert(n == swarm->fetches.n);
    qsort(fetches, n, sizeof(struct swarm_fetch *), compare_fetches);
    for (size_t i = 0; i < n && rv == 0; i++)
        rv = visit(context, &fetches[i]->content, swarm_fetch_bytes(fetches[i]),
                   count_sources(swarm, fetches[i]), is_stalled(swarm, fetches[i]));
    free(fetches);
    return rv;
}
