/* Time and messages: whom to probe, whom to suspect, how to join, when to exchange everything. */
#include "member/member.h"

#include "replica/error.h"

#include <string.h>

static uint64_t jitter(struct gossip_member *member, uint64_t ms)
{
    return ms / 2 + gossip_random_below(&member->random, ms + 1);
}

/* Probing */

/* The next of the round, which is shuffled anew when it is over: each is probed within 2n - 1 periods, at n
 * messages a round. */
static struct member_entry *next_target(struct gossip_member *member)
{
    for (size_t seen = 0; seen < 2 * member->n; seen++) {
        struct member_entry *entry;
        if (member->order_turn >= member->n) {
            for (size_t i = member->n; i > 1; i--) {
                size_t j = gossip_random_below(&member->random, i);
                entry = member->order[i - 1];
                member->order[i - 1] = member->order[j];
                member->order[j] = entry;
            }
            member->order_turn = 0;
        }
        entry = member->order[member->order_turn++];
        if (entry != member->self && member_is_up(&entry->record))
            return entry;
    }
    return NULL;
}

static void ping(struct gossip_member *member, const struct replica_id *to, uint64_t number,
                 struct gossip_update *update)
{
    struct member_send send = {.type = MEMBER_PING, .to = *to, .number = number, .subject = *to};
    member_send(member, &send, update);
}

static void start_probe(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    struct member_entry *target = next_target(member);
    memset(&member->probe, 0, sizeof member->probe);
    if (target == NULL)
        return;
    member->probe.active = true;
    member->probe.target = target->record.store;
    member->probe.number = ++member->number;
    member->probe.sent_ms = now_ms;
    ping(member, &member->probe.target, member->probe.number, update);
}

static void end_probe(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    struct member_entry *target;
    if (!member->probe.active || member->probe.acked)
        return;
    target = member_find(member, &member->probe.target);
    if (target != NULL && target->record.state == GOSSIP_MEMBER_ALIVE)
        member_set_state(member, target, GOSSIP_MEMBER_SUSPECT, now_ms, update);
}

static bool is_helper(const struct gossip_member *member, const struct replica_id *store)
{
    for (size_t i = 0; i < member->probe.helpers_n; i++)
        if (replica_id_equal(&member->probe.helpers[i], store))
            return true;
    return false;
}

/* The direct probe was not answered in time: others try. */
static void ask_others(struct gossip_member *member, struct gossip_update *update)
{
    struct member_probe *probe = &member->probe;
    probe->asked = true;
    /* A few draws too many, since some meet the target or a helper that was drawn before. */
    for (uint32_t i = 0; i < 4 * member->options.indirect && probe->helpers_n < member->options.indirect;
         i++) {
        const struct gossip_member_record *helper = gossip_member_pick(member, &member->random);
        struct member_send send = {.type = MEMBER_ASK, .number = probe->number, .subject = probe->target};
        if (helper == NULL)
            return;
        if (replica_id_equal(&helper->store, &probe->target) || is_helper(member, &helper->store))
            continue;
        send.to = helper->store;
        probe->helpers[probe->helpers_n++] = helper->store;
        member_send(member, &send, update);
    }
}

/* Suspects are told so each period, that a few lost packets do not bury them. */
static void warn_suspects(struct gossip_member *member, struct gossip_update *update)
{
    size_t warned = 0;
    for (size_t i = 0; i < member->n && warned < member->suspects_n && warned < MEMBER_WARNED_MAX; i++) {
        const struct member_entry *entry = member->entries[i];
        if (entry->record.state != GOSSIP_MEMBER_SUSPECT)
            continue;
        ping(member, &entry->record.store, ++member->number, update);
        warned++;
    }
}

/* One of those that are gone: perhaps it is only a partition that has healed, or it was started again and knows nobody's address. */
static void try_gone(struct gossip_member *member, struct gossip_update *update)
{
    size_t start = gossip_random_below(&member->random, member->n);
    for (size_t i = 0; i < member->n; i++) {
        const struct member_entry *entry = member->entries[(start + i) % member->n];
        if (entry != member->self && !member_is_up(&entry->record)) {
            ping(member, &entry->record.store, ++member->number, update);
            return;
        }
    }
}

static void bury(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    for (size_t i = 0; i < member->n && member->suspects_n > 0; i++) {
        struct member_entry *entry = member->entries[i];
        if (entry->record.state == GOSSIP_MEMBER_SUSPECT &&
            now_ms >= entry->since_ms + member->options.suspicion_ms)
            member_set_state(member, entry, GOSSIP_MEMBER_DEAD, now_ms, update);
    }
}

static void forget_dead(struct gossip_member *member, uint64_t now_ms)
{
    for (size_t i = member->n; i > 0; i--) {
        struct member_entry *entry = member->entries[i - 1];
        if (entry != member->self && !member_is_up(&entry->record) &&
            now_ms >= entry->since_ms + MEMBER_DEAD_KEPT_MS)
            member_forget(member, entry);
    }
}

/* This node itself was paused: what it did not hear meanwhile says nothing about others. */
static void forgive(struct gossip_member *member, uint64_t late_ms, uint64_t now_ms)
{
    member->probe.active = false;
    for (size_t i = 0; i < member->n; i++)
        if (member->entries[i]->record.state == GOSSIP_MEMBER_SUSPECT) {
            member->entries[i]->since_ms += late_ms;
            if (member->entries[i]->since_ms > now_ms)
                member->entries[i]->since_ms = now_ms;
        }
}

static void period(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    uint64_t late_ms = now_ms - member->period_at_ms;
    if (late_ms > member->options.period_ms)
        forgive(member, late_ms, now_ms);
    end_probe(member, now_ms, update);
    start_probe(member, now_ms, update);
    warn_suspects(member, update);
    try_gone(member, update);
    forget_dead(member, now_ms);
    member->period_at_ms = late_ms > member->options.period_ms
                               ? now_ms + member->options.period_ms
                               : member->period_at_ms + member->options.period_ms;
}

/* Exchange of everything, page by page */

static void send_pull(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    struct member_send send = {.type = MEMBER_PULL,
                               .to = member->pull.store,
                               .subject = member->pull.after,
                               .flag = member->pull.mutual && replica_id_is_zero(&member->pull.after)};
    member->pull.deadline_ms = now_ms + 2 * (uint64_t)member->options.timeout_ms;
    member->pull.tries++;
    member_send(member, &send, update);
}

static void start_pull(struct gossip_member *member, const struct replica_id *store, bool mutual,
                       uint64_t now_ms, struct gossip_update *update)
{
    if (!replica_id_is_zero(&member->pull.store))
        return;
    memset(&member->pull, 0, sizeof member->pull);
    member->pull.store = *store;
    member->pull.mutual = mutual;
    send_pull(member, now_ms, update);
}

static void tick_pull(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    if (!replica_id_is_zero(&member->pull.store) && now_ms >= member->pull.deadline_ms) {
        if (member->pull.tries < MEMBER_PULL_TRIES)
            send_pull(member, now_ms, update);
        else
            memset(&member->pull, 0, sizeof member->pull);
    }
    if (now_ms >= member->full_at_ms) {
        const struct gossip_member_record *other = gossip_member_pick(member, &member->random);
        if (other != NULL)
            start_pull(member, &other->store, true, now_ms, update);
        member->full_at_ms = now_ms + jitter(member, member->options.full_ms);
    }
}

/* Joining */

static void tick_joins(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    for (size_t i = 0; i < member->joins_n; i++) {
        struct member_join *join = &member->joins[i];
        struct member_send send = {.type = MEMBER_JOIN, .endpoint = join->endpoint, .number = join->number};
        if (join->answered || now_ms < join->next_ms)
            continue;
        join->next_ms = now_ms + jitter(member, member->options.join_ms);
        member_send(member, &send, update);
    }
}

/* Time */

void member_start(struct gossip_member *member, uint64_t now_ms)
{
    member->started = true;
    member->period_at_ms =
        now_ms + gossip_random_below(&member->random, (uint64_t)member->options.period_ms + 1);
    member->full_at_ms = now_ms + jitter(member, member->options.full_ms);
    for (size_t i = 0; i < member->joins_n; i++)
        member->joins[i].next_ms =
            now_ms + gossip_random_below(&member->random, (uint64_t)member->options.join_ms / 4 + 1);
}

void member_tick(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update)
{
    const struct member_probe *probe = &member->probe;
    if (!member->started || member->self->record.state == GOSSIP_MEMBER_LEFT)
        return;
    if (now_ms >= member->period_at_ms)
        period(member, now_ms, update);
    if (probe->active && !probe->acked && !probe->asked &&
        now_ms >= probe->sent_ms + member->options.timeout_ms)
        ask_others(member, update);
    bury(member, now_ms, update);
    tick_joins(member, now_ms, update);
    tick_pull(member, now_ms, update);
}

void member_wake(const struct gossip_member *member, struct gossip_update *update)
{
    const struct member_probe *probe = &member->probe;
    if (!member->started || member->self->record.state == GOSSIP_MEMBER_LEFT)
        return;
    gossip_update_wake(update, member->period_at_ms);
    gossip_update_wake(update, member->full_at_ms);
    if (probe->active && !probe->acked && !probe->asked)
        gossip_update_wake(update, probe->sent_ms + member->options.timeout_ms);
    for (size_t i = 0; i < member->n && member->suspects_n > 0; i++)
        if (member->entries[i]->record.state == GOSSIP_MEMBER_SUSPECT)
            gossip_update_wake(update, member->entries[i]->since_ms + member->options.suspicion_ms);
    for (size_t i = 0; i < member->joins_n; i++)
        if (!member->joins[i].answered)
            gossip_update_wake(update, member->joins[i].next_ms);
    if (!replica_id_is_zero(&member->pull.store))
        gossip_update_wake(update, member->pull.deadline_ms);
}

/* Messages */

static void answer_ping(struct gossip_member *member, const struct member_message_read *read,
                        struct gossip_update *update)
{
    struct member_send send = {.type = MEMBER_ACK,
                               .to = read->self.store,
                               .number = read->number,
                               .subject = member->self->record.store};
    member_send(member, &send, update);
}

static void relay_ping(struct gossip_member *member, const struct member_message_read *read,
                       struct gossip_update *update)
{
    const struct member_entry *target = member_find(member, &read->subject);
    struct member_relay *relay = &member->relays[member->relays_next];
    if (target == NULL || target == member->self)
        return; /* an answer by us would prove nothing that a direct probe did not */
    member->relays_next = (member->relays_next + 1) % MEMBER_RELAYS_MAX;
    relay->origin = read->self.store;
    relay->origin_number = read->number;
    relay->target = read->subject;
    relay->number = ++member->number;
    ping(member, &relay->target, relay->number, update);
}

static void receive_ack(struct gossip_member *member, const struct member_message_read *read,
                        struct gossip_update *update)
{
    struct member_probe *probe = &member->probe;
    bool direct = replica_id_equal(&read->subject, &read->self.store);
    if (probe->active && read->number == probe->number && replica_id_equal(&read->subject, &probe->target) &&
        (direct || is_helper(member, &read->self.store)))
        probe->acked = true;
    for (size_t i = 0; direct && i < MEMBER_RELAYS_MAX; i++) {
        struct member_relay *relay = &member->relays[i];
        struct member_send send = {.type = MEMBER_ACK,
                                   .to = relay->origin,
                                   .number = relay->origin_number,
                                   .subject = relay->target};
        if (relay->number != read->number || !replica_id_equal(&relay->target, &read->subject) ||
            replica_id_is_zero(&relay->origin))
            continue;
        memset(relay, 0, sizeof *relay);
        member_send(member, &send, update);
    }
}

static void answer_join(struct gossip_member *member, const struct member_message_read *read,
                        struct gossip_update *update)
{
    struct member_send send = {.type = MEMBER_WELCOME, .to = read->self.store, .number = read->number};
    member_send(member, &send, update);
}

static void receive_welcome(struct gossip_member *member, const struct member_message_read *read,
                            uint64_t now_ms, struct gossip_update *update)
{
    for (size_t i = 0; i < member->joins_n; i++)
        if (member->joins[i].number == read->number && !member->joins[i].answered) {
            member->joins[i].answered = true;
            start_pull(member, &read->self.store, true, now_ms, update);
        }
}

static void answer_pull(struct gossip_member *member, const struct member_message_read *read, uint64_t now_ms,
                        struct gossip_update *update)
{
    struct member_send send = {.type = MEMBER_PAGE, .to = read->self.store, .subject = read->subject};
    member_send(member, &send, update);
    if (read->flag)
        start_pull(member, &read->self.store, false, now_ms, update);
}

static int remember_last(void *context, const struct gossip_member_record *record)
{
    struct replica_id *last = context;
    *last = record->store;
    return 0;
}

static void receive_page(struct gossip_member *member, const struct member_message_read *read,
                         uint64_t now_ms, struct gossip_update *update)
{
    struct replica_id last = {{0}};
    if (!replica_id_equal(&member->pull.store, &read->self.store) ||
        !replica_id_equal(&member->pull.after, &read->subject))
        return;
    (void)member_each(read, remember_last, &last);
    if (read->flag || replica_id_compare(&last, &member->pull.after) <= 0) {
        memset(&member->pull, 0, sizeof member->pull);
        return;
    }
    member->pull.after = last;
    member->pull.tries = 0;
    send_pull(member, now_ms, update);
}

struct hear_context {
    struct gossip_member *member;
    struct gossip_update *update;
    uint64_t now_ms;
    bool vouched;
};

static int hear(void *context, const struct gossip_member_record *record)
{
    struct hear_context *c = context;
    return member_merge(c->member, record, c->vouched, c->now_ms, c->update);
}

/* A JOIN that came back to its sender: the address is its own. */
static void receive_own(struct gossip_member *member, const struct member_message_read *read, uint8_t type)
{
    for (size_t i = 0; type == MEMBER_JOIN && i < member->joins_n; i++)
        if (member->joins[i].number == read->number)
            member->joins[i].answered = true;
}

int member_receive(struct gossip_member *member, const struct gossip_member_event *event,
                   struct gossip_update *update)
{
    struct hear_context context = {.member = member,
                                   .update = update,
                                   .now_ms = event->time.now_ms,
                                   .vouched = event->message.from->role == GOSSIP_ROLE_VOTER};
    struct member_message_read read;
    int rv = member_read(&event->message, &read);
    if (rv != 0)
        return rv;
    if (replica_id_equal(&read.self.store, &member->self->record.store)) {
        receive_own(member, &read, event->message.type);
        return 0;
    }
    rv = hear(&context, &read.self);
    if (rv == 0)
        rv = member_each(&read, hear, &context);
    if (rv != 0 || member_find(member, &read.self.store) == NULL)
        return rv; /* no room for it: there is no way to answer */
    switch ((enum member_message)event->message.type) {
    case MEMBER_PING:
        answer_ping(member, &read, update);
        break;
    case MEMBER_ACK:
        receive_ack(member, &read, update);
        break;
    case MEMBER_ASK:
        relay_ping(member, &read, update);
        break;
    case MEMBER_JOIN:
        answer_join(member, &read, update);
        break;
    case MEMBER_WELCOME:
        receive_welcome(member, &read, event->time.now_ms, update);
        break;
    case MEMBER_PULL:
        answer_pull(member, &read, event->time.now_ms, update);
        break;
    case MEMBER_PAGE:
        receive_page(member, &read, event->time.now_ms, update);
        break;
    }
    return 0;
}

/* Leaving: many are told directly, since this node will not be here to repeat it. */
void member_leave(struct gossip_member *member, struct gossip_update *update)
{
    struct gossip_member_record *self = &member->self->record;
    size_t tell = member->up_n < MEMBER_RELAYS_MAX ? member->up_n : MEMBER_RELAYS_MAX;
    size_t start = gossip_random_below(&member->random, member->n);
    if (self->state == GOSSIP_MEMBER_LEFT)
        return;
    member_raise_self(member, self->generation, self->incarnation);
    self->state = GOSSIP_MEMBER_LEFT;
    for (size_t i = 0; i < member->n && tell > 0; i++) {
        const struct member_entry *entry = member->entries[(start + i) % member->n];
        if (entry == member->self || !member_is_up(&entry->record))
            continue;
        ping(member, &entry->record.store, ++member->number, update);
        tell--;
    }
}
