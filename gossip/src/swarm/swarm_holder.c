/* Who may have a content, and what they have of it. */
#include "swarm/swarm.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define DEAD_MS 10000 /* then one that did not answer may be asked anew, if membership takes it for alive */

bool swarm_alive(const struct gossip_swarm *swarm, const struct replica_id *store)
{
    return swarm->member == NULL || gossip_member_is_alive(swarm->member, store);
}

struct swarm_holder *swarm_holder_find(const struct swarm_fetch *fetch, const struct replica_id *store)
{
    for (struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        if (replica_id_equal(&holder->peer->store, store))
            return holder;
    return NULL;
}

bool swarm_holder_usable(const struct gossip_swarm *swarm, const struct swarm_holder *holder)
{
    const struct swarm_peer *peer = holder->peer;
    if (peer->dead || (peer->bad >= SWARM_BAD_MAX && swarm->now_ms < peer->bad_until_ms))
        return false;
    if (holder->state == SWARM_UNKNOWN)
        return holder->fetch->large == NULL; /* of a large one it must say first what it has */
    return holder->state == SWARM_PARTIAL || holder->state == SWARM_WHOLE;
}

bool swarm_holder_needs_connect(const struct swarm_holder *holder)
{
    size_t connected = 0;
    if (holder->fetch->large == NULL || holder->connected || holder->connecting || holder->peer->dead ||
        holder->state == SWARM_LACKS || holder->state == SWARM_SILENT || holder->state == SWARM_BAD)
        return false;
    for (const struct swarm_holder *other = holder->fetch->holders; other != NULL; other = other->next)
        connected += other->connecting ||
                     (other->connected && other->state != SWARM_LACKS && other->state != SWARM_SILENT);
    return connected < SWARM_DEGREE;
}

bool swarm_holder_has(const struct swarm_holder *holder, uint32_t chunk)
{
    return holder->state == SWARM_WHOLE ||
           (holder->state == SWARM_PARTIAL && holder->bits != NULL && swarm_bit(holder->bits, chunk));
}

void swarm_holder_free(struct gossip_swarm *swarm, struct swarm_holder *holder)
{
    swarm_link_remove(&holder->ready);
    swarm_peer_drop(swarm, holder->peer);
    free(holder->bits);
    free(holder);
}

static bool is_asked(const struct swarm_holder *holder)
{
    for (const struct swarm_link *link = holder->fetch->requests.next; link != &holder->fetch->requests;
         link = link->next)
        if (SWARM_ITEM(link, struct swarm_request, in_fetch)->holder == holder)
            return true;
    return false;
}

/* Drops one that is of no use now. A bad one stays, lest it come back. */
static bool make_room(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    for (struct swarm_holder **at = &fetch->holders; *at != NULL; at = &(*at)->next) {
        struct swarm_holder *holder = *at;
        if ((holder->state != SWARM_LACKS && holder->state != SWARM_SILENT) || holder == fetch->current ||
            is_asked(holder))
            continue;
        *at = holder->next;
        swarm_holder_free(swarm, holder);
        fetch->holders_n--;
        return true;
    }
    return false;
}

static struct swarm_holder *make_holder(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                                        const struct replica_id *store)
{
    struct swarm_holder *holder;
    struct swarm_peer *peer;
    if (fetch->holders_n == GOSSIP_SWARM_SOURCES_MAX && !make_room(swarm, fetch))
        return NULL;
    peer = swarm_peer_take(swarm, store);
    if (peer == NULL)
        return NULL;
    holder = calloc(1, sizeof *holder);
    if (holder == NULL) {
        swarm_peer_drop(swarm, peer);
        swarm->no_memory = true;
        return NULL;
    }
    holder->fetch = fetch;
    holder->peer = peer;
    swarm_link_init(&holder->ready);
    return holder;
}

static void insert_holder(struct swarm_fetch *fetch, struct swarm_holder *holder)
{
    struct swarm_holder **at = &fetch->holders;
    while (holder->state != SWARM_WHOLE && *at != NULL) /* a sure one goes first */
        at = &(*at)->next;
    holder->next = *at;
    *at = holder;
    fetch->holders_n++;
}

struct swarm_holder *swarm_holder_add(struct gossip_swarm *swarm, struct swarm_fetch *fetch,
                                      const struct replica_id *store, uint16_t volume,
                                      enum swarm_holding state)
{
    struct swarm_holder *holder = swarm_holder_find(fetch, store);
    if (holder == NULL) {
        holder = make_holder(swarm, fetch, store);
        if (holder == NULL)
            return NULL;
        holder->state = (uint8_t)state;
        holder->volume = volume;
        insert_holder(fetch, holder);
    } else if (state == SWARM_WHOLE && holder->state != SWARM_BAD) {
        holder->state = SWARM_WHOLE;
    }
    if (state == SWARM_WHOLE ||
        (swarm->now_ms >= holder->peer->dead_ms + DEAD_MS && swarm_alive(swarm, store)))
        holder->peer->dead = false;
    return holder;
}

void swarm_holder_learn(struct gossip_swarm *swarm, struct swarm_holder *holder, enum swarm_holding state,
                        const uint8_t *bitmap, size_t n)
{
    const struct swarm_large *large = holder->fetch->large;
    if (holder->state == SWARM_BAD || large == NULL)
        return;
    holder->state = (uint8_t)state;
    if (state != SWARM_PARTIAL)
        return;
    if (holder->bits == NULL)
        holder->bits = malloc(swarm_bit_words(large->chunks) * sizeof(uint64_t));
    if (holder->bits == NULL) {
        swarm->no_memory = true;
        return;
    }
    memset(holder->bits, 0, swarm_bit_words(large->chunks) * sizeof(uint64_t));
    for (size_t i = 0; i < n && i * 8 < large->chunks; i++)
        holder->bits[i / 8] |= (uint64_t)bitmap[i] << (i % 8 * 8);
    if (large->chunks % 64 != 0) /* bits past the end mean nothing */
        holder->bits[large->chunks / 64] &= ((uint64_t)1 << (large->chunks % 64)) - 1;
}

static bool is_urgent(const struct swarm_fetch *fetch)
{
    return !swarm_link_alone(&fetch->waiters) &&
           SWARM_ITEM(fetch->waiters.next, struct swarm_waiter, in_fetch)->range;
}

void swarm_holder_ready(struct gossip_swarm *swarm, struct swarm_holder *holder)
{
    if (holder->fetch->scanning || !holder->fetch->begun)
        return;
    if (!swarm_holder_usable(swarm, holder) && !swarm_holder_needs_connect(holder))
        return;
    if (is_urgent(holder->fetch) || swarm_link_alone(&holder->ready)) {
        swarm_link_remove(&holder->ready);
        swarm_link_append(&holder->peer->ready[is_urgent(holder->fetch) ? 0 : 1], &holder->ready);
    }
    swarm_peer_dirty(swarm, holder->peer);
}

void swarm_fetch_ready(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    if (fetch->large == NULL && fetch->current != NULL)
        swarm_holder_ready(swarm, fetch->current);
    for (struct swarm_holder *holder = fetch->holders; fetch->large != NULL && holder != NULL;
         holder = holder->next)
        swarm_holder_ready(swarm, holder);
}

/* Beginning */

static void add_directory(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    struct replica_id stores[GOSSIP_SWARM_SOURCES_MAX];
    size_t n = swarm->directory.holders(swarm->directory.context, &swarm->volumes[fetch->volume], stores,
                                        GOSSIP_SWARM_SOURCES_MAX);
    for (size_t i = 0; i < n; i++) {
        struct swarm_holder *holder;
        if (replica_id_equal(&stores[i], &swarm->self))
            continue;
        holder = swarm_holder_add(swarm, fetch, &stores[i], fetch->volume, SWARM_UNKNOWN);
        if (holder != NULL && holder->state == SWARM_UNKNOWN && !swarm_alive(swarm, &stores[i]))
            holder->state = SWARM_SILENT;
    }
    fetch->searched = true;
}

/* Any of the usable ones, so that many contents from several holders come from all of them; a sure one goes
 * first. */
static struct swarm_holder *first_choice(struct gossip_swarm *swarm, const struct swarm_fetch *fetch)
{
    struct swarm_holder *chosen = NULL;
    size_t n = 0;
    for (struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next) {
        if (!swarm_holder_usable(swarm, holder))
            continue;
        if (holder->state == SWARM_WHOLE)
            return holder;
        if (gossip_random_below(&swarm->random, ++n) == 0)
            chosen = holder;
    }
    return chosen;
}

/* Nobody can be asked for anything now: a verdict for those who wait, and a search later. */
static void exhausted(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    bool silent = false, hopeful = false;
    uint32_t patience_ms = 0;
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next) {
        bool unreached = holder->state == SWARM_SILENT ||
                         (holder->state != SWARM_LACKS && holder->state != SWARM_BAD && holder->peer->dead);
        silent = silent || unreached;
        /* It may yet answer, or get what it lacks itself. */
        hopeful = hopeful ||
                  (unreached ? swarm_alive(swarm, &holder->peer->store) : holder->state == SWARM_PARTIAL);
    }
    if (hopeful)
        patience_ms = swarm->options.stalled_ms;
    else if (silent)
        patience_ms = swarm->options.request_ms_min; /* membership may be late to know it */
    if (!swarm_fetch_fail(swarm, fetch, silent ? REPLICA_E_UNAVAILABLE : REPLICA_E_ABSENT, patience_ms,
                          update))
        swarm_fetch_search_later(swarm, fetch);
}

static void start_small(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    if (!swarm_link_alone(&fetch->requests))
        return;
    fetch->current = first_choice(swarm, fetch);
    if (fetch->current == NULL && !fetch->searched) {
        add_directory(swarm, fetch);
        fetch->current = first_choice(swarm, fetch);
    }
    if (fetch->current == NULL)
        exhausted(swarm, fetch, update);
    else
        swarm_holder_ready(swarm, fetch->current);
}

void swarm_fetch_start(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    swarm_fetch_awake(swarm, fetch);
    if (!fetch->begun) {
        int rv = replica_contents_begin(swarm->contents, &fetch->content);
        if (rv != 0) {
            swarm->no_memory = swarm->no_memory || rv == REPLICA_E_NOMEM;
            swarm_fetch_note_room(fetch, rv, update);
            if (!swarm_fetch_fail(swarm, fetch, rv, 0, update))
                swarm_fetch_search_later(swarm, fetch);
            return;
        }
        fetch->begun = true;
    }
    if (fetch->large == NULL) {
        start_small(swarm, fetch, update);
        return;
    }
    if (!fetch->searched)
        add_directory(swarm, fetch);
    swarm_fetch_ready(swarm, fetch);
    swarm_fetch_dry(swarm, fetch); /* looks soon whether anybody could be asked at all */
}

/* Trouble */

static void advance_small(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    struct swarm_holder *holder = fetch->current;
    if (!swarm_link_alone(&fetch->requests))
        return;
    for (size_t i = 0; holder != NULL && i < fetch->holders_n; i++) {
        holder = holder->next != NULL ? holder->next : fetch->holders;
        if (swarm_holder_usable(swarm, holder)) {
            fetch->current = holder;
            swarm_holder_ready(swarm, holder);
            return;
        }
    }
    start_small(swarm, fetch, update);
}

void swarm_fetch_advance(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    if (fetch->scanning || fetch->searching)
        return;
    if (fetch->large == NULL) {
        advance_small(swarm, fetch, update);
        return;
    }
    swarm_fetch_ready(swarm, fetch);
    swarm_fetch_dry(swarm, fetch);
}

/* Queues in time */

void swarm_fetch_awake(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    if (fetch->searching)
        swarm->searching_n--;
    fetch->searching = fetch->scanning = false;
    swarm_link_remove(&fetch->timer);
}

void swarm_fetch_search_later(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    static const uint8_t factors[SWARM_SEARCH_LEVELS] = {1, 2, 4, 8, 10};
    uint8_t level = swarm_link_alone(&fetch->waiters) ? fetch->level : 0; /* callers are told soon */
    swarm_fetch_awake(swarm, fetch);
    fetch->searching = true;
    fetch->due_ms = swarm->now_ms + (uint64_t)swarm->options.search_ms * factors[level];
    swarm_link_append(&swarm->searching[level], &fetch->timer);
    swarm->searching_n++;
    if (fetch->level + 1 < SWARM_SEARCH_LEVELS)
        fetch->level++;
}

void swarm_fetch_search(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    if (swarm_fetch_finish_if_filled(swarm, fetch, update))
        return;
    for (struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next) {
        if (holder->state == SWARM_LACKS || holder->state == SWARM_SILENT)
            holder->state = swarm_alive(swarm, &holder->peer->store) ? SWARM_UNKNOWN : SWARM_SILENT;
        if (holder->state == SWARM_UNKNOWN && swarm_alive(swarm, &holder->peer->store))
            holder->peer->dead = false;
        holder->connected = false; /* what it told may be out of date, or may have been lost on the way */
    }
    fetch->searched = false;
    swarm_fetch_start(swarm, fetch, update);
}

void swarm_search_due(struct gossip_swarm *swarm, struct gossip_update *update)
{
    size_t n = 0;
    for (size_t level = 0; level < SWARM_SEARCH_LEVELS; level++)
        while (!swarm_link_alone(&swarm->searching[level])) {
            struct swarm_fetch *fetch = SWARM_ITEM(swarm->searching[level].next, struct swarm_fetch, timer);
            if (fetch->due_ms > swarm->now_ms)
                break;
            if (n++ == SWARM_WORK_MAX) {
                update->again = true;
                return;
            }
            swarm_fetch_search(swarm, fetch, update);
        }
}

void swarm_fetch_dry(struct gossip_swarm *swarm, struct swarm_fetch *fetch)
{
    if (fetch->large == NULL || fetch->searching || fetch->scanning || !swarm_link_alone(&fetch->timer))
        return;
    fetch->due_ms = swarm->now_ms + SWARM_DRY_MS;
    swarm_link_append(&swarm->dry, &fetch->timer);
}

static bool is_connecting(const struct swarm_fetch *fetch)
{
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        if (holder->connecting)
            return true;
    return false;
}

/* It will have its turn at a peer that is busy with others. */
static bool is_queued(const struct swarm_fetch *fetch)
{
    for (const struct swarm_holder *holder = fetch->holders; holder != NULL; holder = holder->next)
        if (!swarm_link_alone(&holder->ready) && !holder->peer->dead)
            return true;
    return false;
}

static void look_again(struct gossip_swarm *swarm, struct swarm_fetch *fetch, struct gossip_update *update)
{
    struct swarm_large *large = fetch->large;
    bool asked = !swarm_link_alone(&fetch->requests);
    swarm_link_remove(&fetch->timer);
    if (!asked && is_queued(fetch))
        return;
    if (!asked && !is_connecting(fetch)) {
        if (swarm_fetch_finish_if_filled(swarm, fetch, update))
            return;
        if (++large->dry_rounds > 2) { /* the second look let it ask for everything */
            large->dry_rounds = 0;
            exhausted(swarm, fetch, update);
            return;
        }
    }
    if (fetch->requests_n == large->stolen && large->steal == 0)
        large->steal = 1;
    swarm_take_over(swarm, fetch);
    swarm_fetch_ready(swarm, fetch);
    swarm_fetch_dry(swarm, fetch);
}

void swarm_dry_due(struct gossip_swarm *swarm, struct gossip_update *update)
{
    for (size_t n = 0; n < SWARM_WORK_MAX && !swarm_link_alone(&swarm->dry); n++) {
        struct swarm_fetch *fetch = SWARM_ITEM(swarm->dry.next, struct swarm_fetch, timer);
        if (fetch->due_ms > swarm->now_ms)
            return;
        look_again(swarm, fetch, update);
    }
}
