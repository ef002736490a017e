/* What of a content is here: found when a fetch resumes, or arrived; who is told of it; and how a fetch ends.
 */
#include "swarm/swarm.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

/* Resuming: which pieces an earlier life left here, in slices. */

static void set_present(struct swarm_large *large, uint32_t chunk)
{
    if (swarm_bit(large->have, chunk))
        return;
    swarm_bit_set(large->have, chunk, true);
    large->present++;
}

static bool page_is_complete(const struct swarm_fetch *fetch, uint32_t page)
{
    const struct swarm_large *large = fetch->large;
    uint32_t first = page * REPLICA_PAGE_CHUNKS, n = replica_merkle_page_chunks(fetch->content.length, page);
    if (!swarm_bit(large->pages_have, page))
        return false;
    for (uint32_t word = 0; word < n / 64; word++)
        if (large->have[first / 64 + word] != UINT64_MAX)
            return false;
    for (uint32_t chunk = first + n / 64 * 64; chunk < first + n; chunk++)
        if (!swarm_bit(large->have, chunk))
            return false;
    return true;
}

static void raise_page_low(struct swarm_fetch *fetch)
{
    while (fetch->large->page_low < fetch->large->pages && page_is_complete(fetch, fetch->large->page_low))
        fetch->large->page_low++;
}

/* A page's ids are here: which of its chunks are (holes need no bytes). */
static void scan_page(struct gossip_swarm *swarm, struct swarm_fetch *fetch, uint32_t page)
{
    uint32_t first = page * REPLICA_PAGE_CHUNKS, n = replica_merkle_page_chunks(fetch->content.length, page);
    swarm_bit_set(fetch->large->pages_have, page, true);
    for (uint32_t chunk = first; chunk < first + n; chunk++)
        if (!swarm_bit(fetch->large->have, chunk) &&
            replica_contents_has(swarm->contents, &fetch->content,
                                 (struct replica_piece){REPLICA_PIECE_CHUNK, chunk}))
            set_present(fetch->large, chunk);
}

/* One page, or as many unknown ones as a page has chunks. True: all is known. */
static bool scan_slice(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    struct swarm_large *large = fetch->large;
    for (uint32_t looked = 0; looked < REPLICA_PAGE_CHUNKS && large->scan < large->pages; looked++) {
        uint32_t page = large->scan++;
        if (page == 0 && large->pages > 1)
            large->root = replica_contents_has(swarm->contents, &fetch->content,
                                               (struct replica_piece){REPLICA_PIECE_ROOT, 0});
        if (replica_contents_has(swarm->contents, &fetch->content,
                                 (struct replica_piece){REPLICA_PIECE_PAGE, page})) {
            scan_page(swarm, fetch, page);
            break;
        }
    }
    return large->scan == large->pages;
}

void swarm_scan_some(struct gossip_swarm *swarm, struct gossip_update *update)
{
    for (uint32_t slices = 0;
         slices < SWARM_SCAN_MAX / REPLICA_PAGE_CHUNKS && !swarm_link_alone(&swarm->scanning); slices++) {
        struct swarm_fetch *fetch = SWARM_ITEM(swarm->scanning.next, struct swarm_fetch, timer);
        if (!scan_slice(swarm, fetch))
            continue;
        swarm_fetch_awake(swarm, fetch);
        raise_page_low(fetch);
        swarm_fetch_answer_ranges(swarm, fetch, update);
        if (!swarm_fetch_finish_if_filled(swarm, fetch, update) &&
            !swarm_fetch_destroy_unwanted(swarm, fetch))
            swarm_fetch_start(swarm, fetch, update);
    }
}

void swarm_fetch_scan(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    swarm_fetch_awake(swarm, fetch);
    fetch->large->scan = 0;
    fetch->scanning = true;
    swarm_link_append(&swarm->scanning, &fetch->timer);
}

void swarm_fetch_restart(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    struct swarm_large *large = fetch->large;
    swarm_fetch_release(swarm, fetch);
    fetch->begun = false;
    if (large == NULL) {
        swarm_fetch_start(swarm, fetch, update);
        return;
    }
    memset(large->have, 0, swarm_bit_words(large->chunks) * sizeof(uint64_t));
    memset(large->pages_have, 0, swarm_bit_words(large->pages) * sizeof(uint64_t));
    large->root = large->pages == 1;
    large->present = large->page_low = large->news_n = 0;
    swarm_fetch_scan(swarm, fetch);
}

/* Ends */

bool swarm_fetch_finish_if_filled(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                                  struct gossip_update *update)
{
    if (replica_contents_state(swarm->contents, &fetch->content) < REPLICA_CONTENTS_FILLED)
        return false;
    for (struct swarm_link *link = fetch->waiters.next; link != &fetch->waiters; link = link->next)
        gossip_update_answer(update, SWARM_ITEM(link, struct swarm_waiter, in_fetch)->token, 0, NULL, false);
    gossip_update_note(update, GOSSIP_NOTE_HAVE, &swarm->volumes[fetch->volume], NULL, &fetch->content);
    if (fetch->large != NULL)
        swarm_send_news(swarm, fetch, true, update);
    swarm_fetch_destroy(swarm, fetch);
    return true;
}

bool swarm_fetch_fail(struct gossip_swarm *swarm, struct swarm_fetch *fetch, int code, uint32_t patience_ms,
                      struct gossip_update *update)
{
    for (struct swarm_link *link = fetch->waiters.next, *next; link != &fetch->waiters; link = next) {
        struct swarm_waiter *waiter = SWARM_ITEM(link, struct swarm_waiter, in_fetch);
        uint64_t since = waiter->started_ms > fetch->progress_ms ? waiter->started_ms : fetch->progress_ms;
        next = link->next;
        if (swarm->now_ms < since + patience_ms)
            continue;
        gossip_update_answer(update, waiter->token, code, NULL, false);
        swarm_waiter_free(swarm, waiter);
    }
    return swarm_fetch_destroy_unwanted(swarm, fetch);
}

void swarm_fetch_note_room(const struct swarm_fetch *fetch, int code, struct gossip_update *update)
{
    if (code == REPLICA_E_NOSPACE && fetch->wants > 0)
        gossip_update_note(update, GOSSIP_NOTE_NO_ROOM, NULL, NULL, &fetch->content);
}

/* Answers callers whose range is here. */
void swarm_fetch_answer_ranges(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                               struct gossip_update *update)
{
    for (struct swarm_link *link = fetch->waiters.next, *next; link != &fetch->waiters; link = next) {
        struct swarm_waiter *waiter = SWARM_ITEM(link, struct swarm_waiter, in_fetch);
        next = link->next;
        if (!waiter->range)
            continue;
        while (waiter->cursor < waiter->end && swarm_bit(fetch->large->have, waiter->cursor))
            waiter->cursor++;
        if (waiter->cursor == waiter->end) {
            gossip_update_answer(update, waiter->token, 0, NULL, false);
            swarm_waiter_free(swarm, waiter);
        }
    }
}

static void add_news(struct gossip_swarm *swarm, struct swarm_fetch *fetch, uint32_t chunk,
                     struct gossip_update *update)
{
    struct swarm_large *large = fetch->large;
    if (large->news == NULL)
        large->news = malloc(SWARM_HAVE_MAX * sizeof large->news[0]);
    if (large->news == NULL) {
        swarm->no_memory = true;
        return;
    }
    large->news[large->news_n++] = chunk;
    if (large->news_n == SWARM_HAVE_MAX || swarm->now_ms >= large->told_ms + SWARM_HAVE_MS) {
        swarm_send_news(swarm, fetch, false, update);
    } else if (swarm_link_alone(&large->telling)) {
        large->tell_at_ms = swarm->now_ms + SWARM_HAVE_MS;
        swarm_link_append(&swarm->telling, &large->telling);
    }
}

static void cancel_others(struct gossip_swarm *swarm, struct swarm_fetch *fetch, uint8_t kind, uint32_t index)
{
    for (struct swarm_link *link = fetch->requests.next, *next; link != &fetch->requests; link = next) {
        struct swarm_request *request = SWARM_ITEM(link, struct swarm_request, in_fetch);
        next = link->next;
        if (request->kind != kind || request->index != index)
            continue;
        if (request->stolen)
            fetch->large->steal = 1; /* its owner was quicker */
        swarm_request_release(swarm, request, true);
    }
}

void swarm_fetch_present(struct gossip_swarm *swarm, struct swarm_fetch *fetch, uint8_t kind, uint32_t index,
                         uint64_t bytes, struct gossip_update *update)
{
    struct swarm_large *large = fetch->large;
    fetch->progress_ms = swarm->now_ms;
    fetch->level = 0;
    if (fetch->wants > 0)
        gossip_update_note_piece(update, &fetch->content, bytes);
    if (fetch->searching)
        swarm_fetch_awake(swarm, fetch);
    cancel_others(swarm, fetch, kind, index);
    if (large != NULL && !fetch->scanning) {
        if (kind == REPLICA_PIECE_ROOT) {
            large->root = true;
        } else if (kind == REPLICA_PIECE_PAGE && index < large->pages) {
            scan_page(swarm, fetch, index);
        } else if (kind == REPLICA_PIECE_CHUNK && index < large->chunks) {
            if (swarm_bit(large->have, index))
                swarm->duplicate_bytes += bytes;
            else
                add_news(swarm, fetch, index, update);
            set_present(large, index);
        }
        raise_page_low(fetch);
        swarm_fetch_answer_ranges(swarm, fetch, update);
        if (large->present < large->chunks || large->page_low < large->pages) {
            if (!swarm_fetch_destroy_unwanted(swarm, fetch))
                swarm_fetch_ready(swarm, fetch);
            return;
        }
    }
    if (!swarm_fetch_finish_if_filled(swarm, fetch, update) && !fetch->scanning)
        swarm_fetch_restart(swarm, fetch, update); /* removed behind our back */
}
