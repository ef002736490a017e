/* The table of members, and what supersedes what.
 *
 * A record is newer by (generation, incarnation, state), states in the order alive, suspect, dead, left. Only
 * the member itself raises its incarnation, which is how it refutes a suspicion: so whatever the order of
 * arrival, all end with the same record. News of the death of somebody unknown is dropped: it would only keep
 * alive the memory of those that were forgotten.
 *
 * Deviations from the paper: suspicion has a fixed time; everything is exchanged with one member now and
 * then, so that whatever the bounded spreading missed is repaired; one member that is gone is probed each
 * period, too, so that a healed partition is noticed. */
#include "member/member.h"

#include "replica/error.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_FIRST 16

void gossip_member_options_default(struct gossip_member_options *options)
{
    options->period_ms = 1000;
    options->timeout_ms = 500;
    options->suspicion_ms = 4000;
    options->indirect = 3;
    options->join_ms = 1000;
    options->full_ms = 30000;
}

/* The table */

size_t member_position(const struct gossip_member *member, const struct replica_id *store)
{
    size_t low = 0, high = member->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (replica_id_compare(&member->entries[middle]->record.store, store) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct member_entry *member_find(const struct gossip_member *member, const struct replica_id *store)
{
    size_t at = member_position(member, store);
    return at < member->n && replica_id_equal(&member->entries[at]->record.store, store) ? member->entries[at]
                                                                                         : NULL;
}

static int reserve(struct gossip_member *member)
{
    size_t capacity = member->capacity == 0 ? ENTRIES_FIRST : member->capacity * 2;
    struct member_entry **entries, **order;
    if (member->n < member->capacity)
        return 0;
    entries = realloc(member->entries, capacity * sizeof(struct member_entry *));
    if (entries != NULL)
        member->entries = entries;
    order = realloc(member->order, capacity * sizeof(struct member_entry *));
    if (order != NULL)
        member->order = order;
    if (entries == NULL || order == NULL)
        return REPLICA_E_NOMEM;
    member->capacity = capacity;
    return 0;
}

/* A new member is probed at a random place of the round under way. */
static void insert_into_order(struct gossip_member *member, struct member_entry *entry)
{
    size_t at = member->order_turn + gossip_random_below(&member->random, member->n - member->order_turn + 1);
    member->order[member->n] = member->order[at];
    member->order[at] = entry;
}

static int insert(struct gossip_member *member, const struct gossip_member_record *record,
                  struct member_entry **ret_entry)
{
    struct member_entry *entry;
    size_t at;
    int rv = reserve(member);
    if (rv != 0)
        return rv;
    entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return REPLICA_E_NOMEM;
    entry->record = *record;
    at = member_position(member, &record->store);
    memmove(member->entries + at + 1, member->entries + at, (member->n - at) * sizeof(struct member_entry *));
    member->entries[at] = entry;
    insert_into_order(member, entry);
    member->n++;
    *ret_entry = entry;
    return 0;
}

void member_forget(struct gossip_member *member, struct member_entry *entry)
{
    size_t at = member_position(member, &entry->record.store), turn = 0;
    assert(entry != member->self && !member_is_up(&entry->record));
    if (entry->left > 0)
        member_unspread(member, entry);
    while (member->order[turn] != entry)
        turn++;
    memmove(member->entries + at, member->entries + at + 1,
            (member->n - at - 1) * sizeof(struct member_entry *));
    memmove(member->order + turn, member->order + turn + 1,
            (member->n - turn - 1) * sizeof(struct member_entry *));
    if (turn < member->order_turn)
        member->order_turn--;
    member->n--;
    free(entry);
}

/* Room for one more, by forgetting whoever is gone for longest. */
static bool make_room(struct gossip_member *member)
{
    struct member_entry *gone = NULL;
    if (member->n < GOSSIP_MEMBERS_MAX)
        return true;
    for (size_t i = 0; i < member->n; i++) {
        struct member_entry *entry = member->entries[i];
        if (entry != member->self && !member_is_up(&entry->record) &&
            (gone == NULL || entry->since_ms < gone->since_ms))
            gone = entry;
    }
    if (gone != NULL)
        member_forget(member, gone);
    return gone != NULL;
}

/* News */

void member_unspread(struct gossip_member *member, struct member_entry *entry)
{
    if (entry->newer != NULL)
        entry->newer->older = entry->older;
    else
        member->newest = entry->older;
    if (entry->older != NULL)
        entry->older->newer = entry->newer;
    else
        member->oldest = entry->newer;
    entry->newer = entry->older = NULL;
    entry->left = 0;
}

/* Its record is to be told to others. */
static void spread(struct gossip_member *member, struct member_entry *entry)
{
    uint32_t rounds = 1;
    if (entry == member->self)
        return; /* it heads every message */
    if (entry->left > 0)
        member_unspread(member, entry);
    while (((size_t)1 << rounds) < member->n + 1)
        rounds++;
    entry->left = MEMBER_SPREAD_FACTOR * rounds;
    entry->older = member->newest;
    if (member->newest != NULL)
        member->newest->newer = entry;
    else
        member->oldest = entry;
    member->newest = entry;
}

/* What supersedes what */

static int compare(const struct gossip_member_record *a, const struct gossip_member_record *b)
{
    if (a->generation != b->generation)
        return a->generation < b->generation ? -1 : 1;
    if (a->incarnation != b->incarnation)
        return a->incarnation < b->incarnation ? -1 : 1;
    return (int)a->state - (int)b->state;
}

void member_raise_self(struct gossip_member *member, uint64_t generation, uint64_t incarnation)
{
    struct gossip_member_record *self = &member->self->record;
    if (generation > self->generation) {
        self->generation = generation; /* the counter of a store that was put back to an older state */
        self->incarnation = 0;
    }
    if (incarnation >= self->incarnation && incarnation < MEMBER_NUMBER_MAX)
        self->incarnation = incarnation + 1;
}

/* Everybody is gone: perhaps it is we who are cut off, so the addresses are tried again. */
static void ask_for_company(struct gossip_member *member, uint64_t now_ms)
{
    if (member->up_n > 0)
        return;
    for (size_t i = 0; i < member->joins_n; i++)
        if (member->joins[i].answered) {
            member->joins[i].answered = false;
            member->joins[i].next_ms = now_ms;
        }
}

/* After entry->record changed from before. */
static void account(struct gossip_member *member, struct member_entry *entry,
                    const struct gossip_member_record *before, uint64_t now_ms, struct gossip_update *update)
{
    bool was_up = before != NULL && member_is_up(before), up = member_is_up(&entry->record);
    bool reborn = before != NULL && before->generation != entry->record.generation;
    if (before != NULL && before->state == GOSSIP_MEMBER_SUSPECT)
        member->suspects_n--;
    if (entry->record.state == GOSSIP_MEMBER_SUSPECT)
        member->suspects_n++;
    if (before == NULL || before->state != entry->record.state || reborn)
        entry->since_ms = now_ms;
    member->up_n += up;
    member->up_n -= was_up;
    /* What it owed or promised in its former life is void. */
    if (was_up && (!up || reborn))
        gossip_update_note(update, GOSSIP_NOTE_MEMBER_DEAD, NULL, &entry->record.store, NULL);
    if (up && (!was_up || reborn))
        gossip_update_note(update, GOSSIP_NOTE_MEMBER_ALIVE, NULL, &entry->record.store, NULL);
    spread(member, entry);
    if (was_up && !up)
        ask_for_company(member, now_ms);
}

void member_set_state(struct gossip_member *member, struct member_entry *entry,
                      enum gossip_member_state state, uint64_t now_ms, struct gossip_update *update)
{
    struct gossip_member_record before = entry->record;
    entry->record.state = state;
    account(member, entry, &before, now_ms, update);
}

/* Hearsay about this very node: whatever would make others think it gone is refuted. */
static void merge_self(struct gossip_member *member, const struct gossip_member_record *record)
{
    const struct gossip_member_record *self = &member->self->record;
    if (self->state == GOSSIP_MEMBER_LEFT || compare(record, self) <= 0)
        return;
    member_raise_self(member, record->generation, record->incarnation);
}

int member_merge(struct gossip_member *member, const struct gossip_member_record *record, bool vouched,
                 uint64_t now_ms, struct gossip_update *update)
{
    struct member_entry *entry = member_find(member, &record->store);
    struct gossip_member_record before, taken = *record;
    int rv;
    if (entry == member->self) {
        merge_self(member, record);
        return 0;
    }
    if (!vouched)
        taken.roles &= ~GOSSIP_MEMBER_VOTE;
    if (entry == NULL) {
        if (!member_is_up(record) || !make_room(member))
            return 0;
        rv = insert(member, &taken, &entry);
        if (rv == 0)
            account(member, entry, NULL, now_ms, update);
        return rv;
    }
    if (compare(record, &entry->record) == 0)
        entry->record.roles |=
            taken.roles & GOSSIP_MEMBER_VOTE; /* first heard from one who could not vouch */
    if (compare(record, &entry->record) <= 0)
        return 0;
    before = entry->record;
    entry->record = taken;
    account(member, entry, &before, now_ms, update);
    return 0;
}

/* Making and unmaking */

/* The endpoints to join by; one that stays keeps its state. */
static int set_joins(struct gossip_member *member, const char *const *endpoints, size_t n)
{
    struct member_join *joins;
    size_t joins_n = 0;
    if (n > GOSSIP_JOIN_MAX)
        return REPLICA_E_TOOBIG;
    joins = calloc(GOSSIP_JOIN_MAX, sizeof *joins);
    if (joins == NULL)
        return REPLICA_E_NOMEM;
    for (size_t i = 0; i < n; i++) {
        size_t size = strlen(endpoints[i]);
        struct member_join *join = &joins[joins_n];
        bool again = strcmp(endpoints[i], member->self->record.endpoint) == 0;
        if (size > GOSSIP_ENDPOINT_MAX) {
            free(joins);
            return REPLICA_E_TOOBIG;
        }
        for (size_t j = 0; j < joins_n; j++)
            again = again || strcmp(joins[j].endpoint, endpoints[i]) == 0;
        if (again)
            continue;
        memcpy(join->endpoint, endpoints[i], size + 1);
        join->number = gossip_random_next(&member->random);
        for (size_t j = 0; j < member->joins_n; j++)
            if (strcmp(member->joins[j].endpoint, endpoints[i]) == 0)
                *join = member->joins[j];
        joins_n++;
    }
    memcpy(member->joins, joins, sizeof member->joins);
    member->joins_n = joins_n;
    free(joins);
    return 0;
}

int gossip_member_new(const struct gossip_member_options *options, const struct gossip_member_record *self,
                      const char *const *join, size_t join_n, uint64_t seed,
                      struct gossip_member **ret_member)
{
    struct gossip_member *member = calloc(1, sizeof *member);
    int rv;
    if (member == NULL)
        return REPLICA_E_NOMEM;
    member->options = *options;
    if (member->options.indirect > MEMBER_HELPERS_MAX)
        member->options.indirect = MEMBER_HELPERS_MAX;
    gossip_random_init(&member->random, seed, 1 /* stream */);
    rv = insert(member, self, &member->self);
    if (rv == 0) {
        member->self->record.state = GOSSIP_MEMBER_ALIVE;
        rv = set_joins(member, join, join_n);
    }
    if (rv != 0) {
        gossip_member_destroy(&member);
        return rv;
    }
    *ret_member = member;
    return 0;
}

void gossip_member_destroy(struct gossip_member **member)
{
    if (*member == NULL)
        return;
    for (size_t i = 0; i < (*member)->n; i++)
        free((*member)->entries[i]);
    free((*member)->entries);
    free((*member)->order);
    free(*member);
    *member = NULL;
}

/* Steps */

/* A hint for placement: told to others only when it changed by more than an eighth, so that writing causes no
 * gossip. */
static void set_capacity(struct gossip_member *member, uint64_t capacity_free)
{
    struct gossip_member_record *self = &member->self->record;
    uint64_t difference = capacity_free > self->capacity_free ? capacity_free - self->capacity_free
                                                              : self->capacity_free - capacity_free;
    if (difference <= self->capacity_free / 8)
        return;
    self->capacity_free = capacity_free;
    member_raise_self(member, self->generation, self->incarnation);
}

int gossip_member_step(struct gossip_member *member, const struct gossip_member_event *event,
                       struct gossip_update *update)
{
    int rv = 0;
    switch (event->kind) {
    case GOSSIP_MEMBER_EVENT_START:
        member_start(member, event->time.now_ms);
        break;
    case GOSSIP_MEMBER_EVENT_TIMER:
        member_tick(member, event->time.now_ms, update);
        break;
    case GOSSIP_MEMBER_EVENT_MESSAGE:
        rv = member_receive(member, event, update);
        break;
    case GOSSIP_MEMBER_EVENT_JOIN:
        rv = set_joins(member, event->endpoints, event->endpoints_n);
        break;
    case GOSSIP_MEMBER_EVENT_CAPACITY:
        set_capacity(member, event->capacity_free);
        break;
    case GOSSIP_MEMBER_EVENT_LEAVE:
        member_leave(member, update);
        break;
    }
    member_wake(member, update);
    return rv;
}

/* Reading */

const struct gossip_member_record *gossip_member_find(const struct gossip_member *member,
                                                      const struct replica_id *store)
{
    const struct member_entry *entry = member_find(member, store);
    return entry == NULL ? NULL : &entry->record;
}

const struct gossip_member_record *gossip_member_self(const struct gossip_member *member)
{
    return &member->self->record;
}

bool gossip_member_is_alive(const struct gossip_member *member, const struct replica_id *store)
{
    const struct member_entry *entry = member_find(member, store);
    return entry != NULL && member_is_up(&entry->record);
}

bool gossip_member_is_joined(const struct gossip_member *member)
{
    for (size_t i = 0; i < member->joins_n; i++)
        if (!member->joins[i].answered)
            return false;
    return member->joins_n > 0 && replica_id_is_zero(&member->pull.store);
}

size_t gossip_member_count(const struct gossip_member *member)
{
    return member->n;
}

const struct gossip_member_record *gossip_member_at(const struct gossip_member *member, size_t index)
{
    return &member->entries[index]->record;
}

const struct gossip_member_record *gossip_member_pick(const struct gossip_member *member,
                                                      struct gossip_random *random)
{
    uint64_t turn;
    if (member->up_n == 0)
        return NULL;
    turn = gossip_random_below(random, member->up_n);
    for (size_t i = 0; i < member->n; i++) {
        const struct member_entry *entry = member->entries[i];
        if (entry == member->self || !member_is_up(&entry->record))
            continue;
        if (turn-- == 0)
            return &entry->record;
    }
    return NULL;
}
