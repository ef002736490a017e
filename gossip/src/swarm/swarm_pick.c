/* Which piece to ask of a holder next.
 *
 * The pages' and chunks' ids come first, as bytes cannot be verified without them; then what a reader waits
 * for, in order; then the chunks that fewest of the other receivers have. Receivers share a seed's work: each
 * chunk that nobody has yet is left to one of the receivers known here, drawn by rendezvous hashing of
 * (receiver, chunk), and the others get it from that one. Only when nothing else is to be had are chunks left
 * to others asked of a seed too ("stolen"), few at first, more while that turns out to be right. */
#include "swarm/swarm.h"

#include "replica/error.h"

#include <string.h>

uint32_t swarm_piece_size(const struct replica_content_id *content, uint8_t kind, uint32_t index)
{
    switch (kind) {
    case REPLICA_PIECE_ROOT:
        return replica_merkle_pages(content->length) * REPLICA_HASH_SIZE;
    case REPLICA_PIECE_PAGE:
        return replica_merkle_page_chunks(content->length, index) * REPLICA_HASH_SIZE;
    case REPLICA_PIECE_CHUNK:
        return replica_merkle_chunk_size(content->length, index);
    default:
        return 0;
    }
}

/* Sharing among receivers */

static uint64_t score(const struct replica_id *store, uint32_t chunk)
{
    return swarm_mix(replica_u64_decode(store->bytes) ^
                     swarm_mix(replica_u64_decode(store->bytes + 8) + chunk));
}

/* Whether it fetches the content too; one that has not answered yet may. */
static bool is_receiver(const struct swarm_holder *holder)
{
    bool asked = holder->connecting || !swarm_link_alone(&holder->ready);
    return !holder->peer->dead &&
           (holder->state == SWARM_PARTIAL || (holder->state == SWARM_UNKNOWN && asked));
}

static bool is_left_to_another(const struct gossip_swarm *swarm, const struct swarm_fetch *fetch,
                               uint32_t chunk)
{
    uint64_t own = score(&swarm->self, chunk);
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        if (is_receiver(holder) &&
            (score(&holder->peer->store, chunk) > own || swarm_holder_has(holder, chunk)))
            return true;
    return false;
}

/* Receivers that have it. */
static uint32_t copies(const struct swarm_fetch *fetch, uint32_t chunk)
{
    uint32_t n = 0;
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        n += holder->state == SWARM_PARTIAL && swarm_holder_has(holder, chunk);
    return n;
}

/* Choosing */

struct choice {
    struct gossip_swarm *swarm;
    struct swarm_holder *holder;
    uint32_t best, ties; /* copies of the chosen one; how many were as good */
    uint32_t chunk;
    bool found, stolen;
};

/* Keeps the rarest, one of equals at random; a chunk left to another only while there is no other. */
static void consider(struct choice *choice, uint32_t chunk)
{
    const struct swarm_fetch *fetch = choice->holder->fetch;
    bool stolen = choice->holder->state == SWARM_WHOLE && is_left_to_another(choice->swarm, fetch, chunk);
    uint32_t n;
    if (stolen && (fetch->large->stolen >= fetch->large->steal || (choice->found && !choice->stolen)))
        return;
    n = copies(fetch, chunk);
    if (!choice->found || (choice->stolen && !stolen) || n < choice->best) {
        choice->ties = 0;
        choice->best = n;
    } else if (n > choice->best) {
        return;
    }
    choice->found = true;
    choice->stolen = stolen;
    if (gossip_random_below(&choice->swarm->random, ++choice->ties) == 0)
        choice->chunk = chunk;
}

static void consider_page(struct choice *choice, uint32_t page)
{
    const struct swarm_holder *holder = choice->holder;
    const struct swarm_large *large = holder->fetch->large;
    size_t first = (size_t)page * (REPLICA_PAGE_CHUNKS / 64), end = swarm_bit_words(large->chunks);
    if (end > first + REPLICA_PAGE_CHUNKS / 64)
        end = first + REPLICA_PAGE_CHUNKS / 64;
    for (size_t word = first; word < end; word++) {
        uint64_t missing = ~(large->have[word] | large->asked[word]);
        if (holder->state == SWARM_PARTIAL)
            missing &= holder->bits == NULL ? 0 : holder->bits[word];
        for (; missing != 0; missing &= missing - 1) {
            uint32_t chunk = (uint32_t)(word * 64) + (uint32_t)__builtin_ctzll(missing);
            if (chunk < large->chunks)
                consider(choice, chunk);
        }
    }
}

/* Whether the holder has any chunk of the page, and so its ids. */
static bool has_page(const struct swarm_holder *holder, uint32_t page)
{
    size_t first = (size_t)page * (REPLICA_PAGE_CHUNKS / 64),
           end = swarm_bit_words(holder->fetch->large->chunks);
    if (holder->state == SWARM_WHOLE)
        return true;
    for (size_t word = first; holder->bits != NULL && word < end && word < first + REPLICA_PAGE_CHUNKS / 64;
         word++)
        if (holder->bits[word] != 0)
            return true;
    return false;
}

static bool has_any(const struct swarm_holder *holder)
{
    for (uint32_t page = 0; page < holder->fetch->large->pages; page++)
        if (has_page(holder, page))
            return true;
    return false;
}

static bool pick_page(const struct swarm_holder *holder, uint32_t page, struct replica_piece *ret_piece)
{
    if (swarm_bit(holder->fetch->large->pages_asked, page) || !has_page(holder, page))
        return false;
    *ret_piece = (struct replica_piece){REPLICA_PIECE_PAGE, page};
    return true;
}

/* In order, from whoever has it: a reader does not share. */
static bool pick_range(const struct swarm_holder *holder, const struct swarm_waiter *waiter,
                       struct replica_piece *ret_piece)
{
    const struct swarm_large *large = holder->fetch->large;
    uint32_t looked = 0;
    for (uint32_t chunk = waiter->cursor; chunk < waiter->end && looked++ < REPLICA_PAGE_CHUNKS; chunk++) {
        uint32_t page = chunk / REPLICA_PAGE_CHUNKS;
        if (!swarm_bit(large->pages_have, page))
            return pick_page(holder, page, ret_piece);
        if (!swarm_bit(large->have, chunk) && !swarm_bit(large->asked, chunk) &&
            swarm_holder_has(holder, chunk)) {
            *ret_piece = (struct replica_piece){REPLICA_PIECE_CHUNK, chunk};
            return true;
        }
    }
    return false;
}

static bool pick_ranges(const struct swarm_holder *holder, struct replica_piece *ret_piece)
{
    const struct swarm_fetch *fetch = holder->fetch;
    for (const struct swarm_link *link = fetch->waiters.next; link != &fetch->waiters; link = link->next) {
        const struct swarm_waiter *waiter = SWARM_ITEM(link, struct swarm_waiter, in_fetch);
        if (!waiter->range)
            return false; /* ranges stand first */
        if (pick_range(holder, waiter, ret_piece))
            return true;
    }
    return false;
}

static bool pick_whole(struct gossip_swarm *swarm, struct swarm_holder *holder,
                       struct replica_piece *ret_piece, bool *ret_stolen)
{
    const struct swarm_large *large = holder->fetch->large;
    struct choice choice = {.swarm = swarm, .holder = holder};
    for (uint32_t page = large->page_low; page < large->pages && page < large->page_low + SWARM_WINDOW_PAGES;
         page++) {
        if (swarm_bit(large->pages_have, page))
            consider_page(&choice, page);
        else if (pick_page(holder, page, ret_piece))
            return true;
    }
    *ret_piece = (struct replica_piece){REPLICA_PIECE_CHUNK, choice.chunk};
    *ret_stolen = choice.stolen;
    return choice.found;
}

bool swarm_pick(struct gossip_swarm *swarm, struct swarm_holder *holder, struct replica_piece *ret_piece,
                bool *ret_stolen)
{
    struct swarm_fetch *fetch = holder->fetch;
    struct swarm_large *large = fetch->large;
    *ret_stolen = false;
    if (large == NULL) {
        *ret_piece = (struct replica_piece){REPLICA_PIECE_CHUNK, 0};
        return fetch->current == holder && swarm_link_alone(&fetch->requests);
    }
    if (!large->root) {
        *ret_piece = (struct replica_piece){REPLICA_PIECE_ROOT, 0};
        return !large->root_asked && has_any(holder);
    }
    return pick_ranges(holder, ret_piece) ||
           (swarm_fetch_whole(fetch) && pick_whole(swarm, holder, ret_piece, ret_stolen));
}
