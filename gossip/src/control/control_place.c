/* The voters of a new volume: rendezvous hashing over the candidates, with free capacity as weight, spread
 * over zones.
 *
 * Decided by the leader when it proposes; from then on it is data. Candidates are alive members that opted
 * in, and the founders. A founder that does not seem alive is taken only to make an even number odd: with two
 * of three up a volume gets three voters of which two answer, rather than one. */
#include "control/control.h"

#include <string.h>

/* More candidates are cut off at random by the hash: enough to choose nine from. */
#define CANDIDATES_MAX 256
#define WEIGHT_MAX     16 /* draws of the largest candidate; weight is the share of its free capacity */

struct candidate {
    struct replica_id store;
    const char *zone;
    uint64_t capacity_free;
    bool alive;
    uint64_t score;
    bool chosen;
};

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

/* The best of `draws` hashes: with w draws a candidate wins w times as often as one with a single draw. */
static uint64_t score(const struct replica_id *volume, const struct replica_id *store, uint64_t draws)
{
    uint64_t best = 0, seed = 0;
    for (size_t i = 0; i < REPLICA_ID_SIZE; i += 8)
        seed =
            mix(seed ^ replica_u64_decode(volume->bytes + i)) + mix(replica_u64_decode(store->bytes + i) + i);
    for (uint64_t draw = 0; draw < draws; draw++) {
        uint64_t hash = mix(seed + (draw + 1) * 0x9e3779b97f4a7c15u);
        best = hash > best ? hash : best;
    }
    return best;
}

static bool heard(const struct gossip_control *control, size_t member)
{
    return (int)member == control->self_index ||
           control->now_ms - control->peers[member].heard_ms < control->options.election_ms;
}

static void add(struct candidate *candidates, size_t *n, const struct replica_id *store,
                const struct gossip_member_record *record, bool alive)
{
    if (*n == CANDIDATES_MAX)
        return;
    candidates[(*n)++] = (struct candidate){.store = *store,
                                            .zone = record == NULL ? "" : record->zone,
                                            .capacity_free = record == NULL ? 0 : record->capacity_free,
                                            .alive = alive};
}

static size_t collect(const struct gossip_control *control, struct candidate *candidates)
{
    size_t n = 0;
    for (size_t i = 0; i < control->members_n; i++) {
        const struct replica_id *store = &control->members[i];
        add(candidates, &n, store, gossip_member_find(control->member, store),
            heard(control, i) || gossip_member_is_alive(control->member, store));
    }
    for (size_t i = 0; i < gossip_member_count(control->member); i++) {
        const struct gossip_member_record *record = gossip_member_at(control->member, i);
        if ((record->roles & GOSSIP_MEMBER_VOTE) != 0 && control_member_index(control, &record->store) < 0 &&
            gossip_member_is_alive(control->member, &record->store))
            add(candidates, &n, &record->store, record, true);
    }
    return n;
}

static void weigh(const struct replica_id *volume, struct candidate *candidates, size_t n)
{
    uint64_t largest = 1;
    for (size_t i = 0; i < n; i++)
        largest = candidates[i].capacity_free > largest ? candidates[i].capacity_free : largest;
    for (size_t i = 0; i < n; i++) {
        uint64_t unit = largest / WEIGHT_MAX + 1;
        candidates[i].score = score(volume, &candidates[i].store, candidates[i].capacity_free / unit + 1);
    }
}

static size_t chosen_in_zone(const struct candidate *candidates, size_t n, const char *zone)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += candidates[i].chosen && strcmp(candidates[i].zone, zone) == 0;
    return count;
}

/* The highest score in the zone that has fewest so far; NULL: nobody is left. */
static struct candidate *best(struct candidate *candidates, size_t n, bool alive)
{
    struct candidate *found = NULL;
    size_t found_in_zone = 0;
    for (size_t i = 0; i < n; i++) {
        struct candidate *candidate = &candidates[i];
        size_t in_zone = chosen_in_zone(candidates, n, candidate->zone);
        if (candidate->chosen || candidate->alive != alive)
            continue;
        if (found == NULL || in_zone < found_in_zone ||
            (in_zone == found_in_zone && candidate->score > found->score)) {
            found = candidate;
            found_in_zone = in_zone;
        }
    }
    return found;
}

static bool choose(struct control_proposal *proposal, struct candidate *candidate)
{
    if (candidate == NULL)
        return false;
    candidate->chosen = true;
    proposal->voters[proposal->voters_n++] = candidate->store;
    return true;
}

void control_place(const struct gossip_control *control, struct control_proposal *proposal)
{
    struct candidate candidates[CANDIDATES_MAX];
    size_t n = collect(control, candidates);
    weigh(&proposal->volume, candidates, n);
    proposal->voters_n = 0;
    while (proposal->voters_n < proposal->voters_wanted && choose(proposal, best(candidates, n, true)))
        ;
    if (proposal->voters_n % 2 == 0 && proposal->voters_n > 0 &&
        !choose(proposal, best(candidates, n, false)))
        proposal->voters_n--;
}
