/* What is wanted: fetches from the first WANT to the last answer. */
#include "swarm/swarm.h"

#include "replica/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static uint64_t content_hash(const struct replica_content_id *content)
{
    return replica_u64_decode(content->root); /* a hash already */
}

struct swarm_fetch *swarm_fetch_find(const struct gossip_swarm *swarm,
                                     const struct replica_content_id *content)
{
    for (struct swarm_node *node = swarm_table_chain(&swarm->fetches, content_hash(content)); node != NULL;
         node = node->next) {
        struct swarm_fetch *fetch = SWARM_ITEM(node, struct swarm_fetch, node);
        if (replica_content_id_equal(&fetch->content, content))
            return fetch;
    }
    return NULL;
}

bool gossip_swarm_is_fetching(const struct gossip_swarm *swarm, const struct replica_content_id *content)
{
    return swarm_fetch_find(swarm, content) != NULL;
}

bool swarm_fetch_wants(const struct gossip_swarm *swarm, const struct swarm_fetch *fetch,
                       const struct replica_id *volume)
{
    if (replica_id_equal(&swarm->volumes[fetch->volume], volume))
        return true;
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        if (replica_id_equal(&swarm->volumes[holder->volume], volume))
            return true;
    return false;
}

bool swarm_fetch_whole(const struct swarm_fetch *fetch)
{
    if (fetch->wants > 0)
        return true;
    for (const struct swarm_link *link = fetch->waiters.next; link != &fetch->waiters; link = link->next)
        if (!SWARM_ITEM(link, struct swarm_waiter, in_fetch)->range)
            return true;
    return false;
}

uint64_t swarm_fetch_bytes(const struct swarm_fetch *fetch)
{
    const struct swarm_large *large = fetch->large;
    uint64_t bytes;
    if (large == NULL)
        return 0;
    bytes = large->present * REPLICA_CHUNK_SIZE;
    if (swarm_bit(large->have, large->chunks - 1))
        bytes -= REPLICA_CHUNK_SIZE - replica_merkle_chunk_size(fetch->content.length, large->chunks - 1);
    return bytes;
}

/* Making and unmaking */

static void free_large(struct swarm_large *large)
{
    if (large == NULL)
        return;
    swarm_link_remove(&large->telling);
    free(large->have);
    free(large->asked);
    free(large->pages_have);
    free(large->pages_asked);
    free(large->news);
    free(large);
}

static struct swarm_large *make_large(const struct replica_content_id *content)
{
    struct swarm_large *large = calloc(1, sizeof *large);
    if (large == NULL)
        return NULL;
    swarm_link_init(&large->telling);
    large->chunks = replica_merkle_chunks(content->length);
    large->pages = replica_merkle_pages(content->length);
    large->have = calloc(swarm_bit_words(large->chunks), sizeof(uint64_t));
    large->asked = calloc(swarm_bit_words(large->chunks), sizeof(uint64_t));
    large->pages_have = calloc(swarm_bit_words(large->pages), sizeof(uint64_t));
    large->pages_asked = calloc(swarm_bit_words(large->pages), sizeof(uint64_t));
    if (!large->have || !large->asked || !large->pages_have || !large->pages_asked) {
        free_large(large);
        return NULL;
    }
    large->root = large->pages == 1;
    return large;
}

static struct swarm_fetch *make_fetch(struct gossip_swarm *swarm, const struct replica_content_id *content,
                                      uint16_t volume)
{
    struct swarm_fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return NULL;
    swarm_link_init(&fetch->timer);
    swarm_link_init(&fetch->requests);
    swarm_link_init(&fetch->waiters);
    fetch->content = *content;
    fetch->volume = volume;
    fetch->progress_ms = swarm->now_ms;
    if (content->length > REPLICA_CHUNK_SIZE && (fetch->large = make_large(content)) == NULL) {
        free(fetch);
        return NULL;
    }
    if (fetch->large != NULL)
        fetch->large->fetch = fetch;
    if (swarm_table_add(&swarm->fetches, &fetch->node, content_hash(content)) != 0) {
        free_large(fetch->large);
        free(fetch);
        return NULL;
    }
    return fetch;
}

void swarm_waiter_free(struct gossip_swarm *swarm, struct swarm_waiter *waiter)
{
    swarm_link_remove(&waiter->in_fetch);
    swarm_link_remove(&waiter->in_progress);
    swarm->waiters_n--;
    free(waiter);
}

void swarm_fetch_release(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    while (!swarm_link_alone(&fetch->requests))
        swarm_request_release(swarm, SWARM_ITEM(fetch->requests.next, struct swarm_request, in_fetch), true);
}

void swarm_fetch_destroy(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    swarm_fetch_release(swarm, fetch);
    while (!swarm_link_alone(&fetch->waiters))
        swarm_waiter_free(swarm, SWARM_ITEM(fetch->waiters.next, struct swarm_waiter, in_fetch));
    while (fetch->holders != NULL) {
        struct swarm_holder *holder = fetch->holders;
        fetch->holders = holder->next;
        swarm_holder_free(swarm, holder);
    }
    swarm_fetch_awake(swarm, fetch);
    swarm_table_remove(&swarm->fetches, &fetch->node);
    free_large(fetch->large);
    free(fetch);
}

bool swarm_fetch_destroy_unwanted(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    if (fetch->wants > 0 || !swarm_link_alone(&fetch->waiters))
        return false;
    swarm_fetch_destroy(swarm, fetch);
    return true;
}

/* Wishes */

static void answer_at_once(const struct gossip_swarm_event *event, int code, struct gossip_update *update)
{
    if (event->token != 0)
        gossip_update_answer(update, event->token, code, NULL, false);
    else if (code == 0)
        gossip_update_note(update, GOSSIP_NOTE_HAVE, &event->volume, NULL, &event->content);
}

/* Ranges first: a reader waits for them. */
static void insert_waiter(struct swarm_fetch *fetch, struct swarm_waiter *waiter)
{
    struct swarm_link *at = fetch->waiters.next;
    while (waiter->range && at != &fetch->waiters && SWARM_ITEM(at, struct swarm_waiter, in_fetch)->range)
        at = at->next;
    swarm_link_append(waiter->range ? at : &fetch->waiters, &waiter->in_fetch);
}

static int add_waiter(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                      const struct gossip_swarm_event *event)
{
    struct swarm_waiter *waiter;
    if (swarm->waiters_n == SWARM_WAITERS_MAX)
        return REPLICA_E_BUSY;
    waiter = calloc(1, sizeof *waiter);
    if (waiter == NULL)
        return REPLICA_E_NOMEM;
    swarm->waiters_n++;
    waiter->fetch = fetch;
    waiter->token = event->token;
    waiter->started_ms = swarm->now_ms;
    waiter->due_ms = swarm->now_ms + SWARM_PROGRESS_MS;
    waiter->end = UINT32_MAX;
    if (event->kind == GOSSIP_SWARM_EVENT_WANT_RANGE && event->count > 0 && fetch->large != NULL) {
        waiter->range = true;
        waiter->cursor = event->first;
        waiter->end = event->count > fetch->large->chunks - event->first ? fetch->large->chunks
                                                                         : event->first + event->count;
    }
    insert_waiter(fetch, waiter);
    swarm_link_append(&swarm->progress, &waiter->in_progress);
    return 0;
}

/* What can be said without fetching; 1: nothing, it must be fetched. */
static int known_at_once(const struct gossip_swarm *swarm, const struct gossip_swarm_event *event)
{
    uint32_t chunks;
    if (event->content.length > REPLICA_CONTENT_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    if (replica_contents_state(swarm->contents, &event->content) >= REPLICA_CONTENTS_FILLED)
        return 0;
    chunks = replica_merkle_chunks(event->content.length);
    if (event->kind == GOSSIP_SWARM_EVENT_WANT_RANGE && event->count > 0 && event->first >= chunks)
        return REPLICA_E_INVALID;
    return 1;
}

static int find_or_make(struct gossip_swarm *swarm, const struct gossip_swarm_event *event, uint16_t volume,
                        struct swarm_fetch **ret_fetch, bool *ret_made)
{
    struct swarm_fetch *fetch = swarm_fetch_find(swarm, &event->content);
    *ret_made = fetch == NULL;
    if (fetch == NULL) {
        if (swarm->fetches.n >= GOSSIP_SWARM_FETCHES_MAX)
            return REPLICA_E_BUSY;
        fetch = make_fetch(swarm, &event->content, volume);
        if (fetch == NULL)
            return REPLICA_E_NOMEM;
    }
    *ret_fetch = fetch;
    return 0;
}

static void start_wanted(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                         const struct gossip_swarm_event *event, uint16_t volume, bool made,
                         struct gossip_update *update)
{
    struct swarm_holder *holder = NULL;
    if (!replica_id_is_zero(&event->source) && !replica_id_equal(&event->source, &swarm->self))
        holder = swarm_holder_add(swarm, fetch, &event->source, volume, SWARM_WHOLE);
    if (made && fetch->large != NULL &&
        replica_contents_state(swarm->contents, &fetch->content) == REPLICA_CONTENTS_PARTIAL) {
        swarm_fetch_scan(swarm, fetch);
    } else if (!fetch->scanning) {
        if (fetch->large != NULL)
            swarm_fetch_answer_ranges(swarm, fetch, update);
        if (swarm_fetch_destroy_unwanted(swarm, fetch))
            return;
        if (fetch->searching) /* what was found out before is out of date */
            swarm_fetch_search(swarm, fetch, update);
        else if (made || holder != NULL)
            swarm_fetch_start(swarm, fetch, update);
        else
            swarm_fetch_ready(swarm, fetch);
    }
}

void swarm_want(struct gossip_swarm *swarm, const struct gossip_swarm_event *event,
                struct gossip_update *update)
{
    struct swarm_fetch *fetch;
    uint16_t volume;
    bool made;
    int rv = known_at_once(swarm, event);
    if (rv != 1) {
        answer_at_once(event, rv, update);
        return;
    }
    rv = swarm_volume_number(swarm, &event->volume, &volume);
    if (rv == 0)
        rv = find_or_make(swarm, event, volume, &fetch, &made);
    if (rv == 0 && event->token != 0) {
        rv = add_waiter(swarm, fetch, event);
        if (rv != 0)
            swarm_fetch_destroy_unwanted(swarm, fetch);
    }
    if (rv == REPLICA_E_NOMEM)
        swarm->no_memory = true;
    if (rv != 0) {
        answer_at_once(event, rv == REPLICA_E_NOSPACE ? REPLICA_E_BUSY : rv, update);
        return;
    }
    if (event->token == 0)
        fetch->wants++;
    start_wanted(swarm, fetch, event, volume, made, update);
}

void swarm_unwant(struct gossip_swarm *swarm, const struct gossip_swarm_event *event)
{
    struct swarm_fetch *fetch = swarm_fetch_find(swarm, &event->content);
    if (fetch == NULL || fetch->wants == 0)
        return;
    fetch->wants--;
    swarm_fetch_destroy_unwanted(swarm, fetch);
}

void swarm_cancel_token(struct gossip_swarm *swarm, uint64_t token)
{
    for (struct swarm_link *link = swarm->progress.next; link != &swarm->progress; link = link->next) {
        struct swarm_waiter *waiter = SWARM_ITEM(link, struct swarm_waiter, in_progress);
        struct swarm_fetch *fetch = waiter->fetch;
        if (waiter->token != token)
            continue;
        swarm_waiter_free(swarm, waiter);
        swarm_fetch_destroy_unwanted(swarm, fetch);
        return;
    }
}

void swarm_progress_due(struct gossip_swarm *swarm, struct gossip_update *update)
{
    for (size_t n = 0; n < SWARM_WORK_MAX && !swarm_link_alone(&swarm->progress); n++) {
        struct swarm_waiter *waiter = SWARM_ITEM(swarm->progress.next, struct swarm_waiter, in_progress);
        if (waiter->due_ms > swarm->now_ms)
            return;
        replica_buffer_clear(&swarm->payload);
        replica_pack_array(&swarm->payload, 2);
        replica_pack_uint(&swarm->payload, swarm_fetch_bytes(waiter->fetch));
        replica_pack_uint(&swarm->payload, waiter->fetch->content.length);
        gossip_update_progress(update, waiter->token, &swarm->payload);
        waiter->due_ms = swarm->now_ms + SWARM_PROGRESS_MS;
        swarm_link_remove(&waiter->in_progress);
        swarm_link_append(&swarm->progress, &waiter->in_progress);
    }
}
