/* The room member: the inside. Three parts share it:
 *   member.c        the table of records, what supersedes what, and whose news is left to spread
 *   member_wire.c   messages; docs/protocol.md, "Membership"
 *   member_probe.c  time: probes, suspicion, joining, exchange of everything
 *
 * All messages have one shape: [the sender's own record, number, subject, flag, records of others]. What a
 * message says of its sender must be said under the store that the transport authenticated; what it says of
 * others is hearsay. */
#ifndef GOSSIP_SRC_MEMBER_H
#define GOSSIP_SRC_MEMBER_H

#include "gossip/member.h"

#define MEMBER_NEWS_MAX    16  /* records that ride on a probe: about 2 KB, less than two packets */
#define MEMBER_PAGE_MAX    256 /* records of one page: at most 130 KB, below the message limit */
#define MEMBER_HELPERS_MAX 8   /* indirect probes at once; more would be a flood at each lost packet */
#define MEMBER_WARNED_MAX  16  /* suspects pinged in one period; when so many are gone it is no lost packet */
#define MEMBER_RELAYS_MAX  64  /* probes under way for others; a further one replaces the oldest */
#define MEMBER_NUMBER_MAX  ((uint64_t)1 << 62) /* of generations and incarnations: none ever wraps */
/* The dead stay known for a day, so that old news does not revive them. */
#define MEMBER_DEAD_KEPT_MS  (24ull * 3600 * 1000)
#define MEMBER_PULL_TRIES    5 /* of one page, before the exchange is left to the next time */
#define MEMBER_SPREAD_FACTOR 3 /* each news rides on 3 · log2(n + 1) messages of each node that hears it */

enum member_message {
    MEMBER_PING = 1, /* number: to be repeated by the answer */
    MEMBER_ACK,      /* number; subject: who is alive */
    MEMBER_ASK,      /* probe subject for me; number comes back with its ACK */
    MEMBER_JOIN,     /* to an address: number */
    MEMBER_WELCOME,  /* number of the JOIN */
    MEMBER_PULL,     /* records after subject, please; flag: and ask me for mine */
    MEMBER_PAGE,     /* records after subject; flag: these are the last */
};

struct member_message_read {
    struct gossip_member_record self;
    uint64_t number;
    struct replica_id subject;
    bool flag;
    const uint8_t *records; /* checked; borrowed from the payload */
    size_t records_size, records_n;
};

struct member_entry {
    struct gossip_member_record record;
    uint64_t since_ms;                  /* when this node learnt the state */
    uint32_t left;                      /* messages that its news is still to ride on */
    struct member_entry *newer, *older; /* in the list of news, while left > 0 */
};

struct member_probe {
    bool active, acked, asked;
    struct replica_id target;
    uint64_t number, sent_ms;
    struct replica_id helpers[MEMBER_HELPERS_MAX];
    size_t helpers_n;
};

struct member_relay {
    struct replica_id origin, target;
    uint64_t origin_number, number;
};

struct member_join {
    char endpoint[GOSSIP_ENDPOINT_MAX + 1];
    uint64_t number;
    uint64_t next_ms;
    bool answered;
};

struct member_pull {
    struct replica_id store; /* zero: none is in course */
    struct replica_id after;
    uint64_t deadline_ms;
    uint32_t tries;
    bool mutual; /* the other is asked to pull from here too */
};

struct gossip_member {
    struct gossip_member_options options;
    struct gossip_random random;
    struct member_entry *self;     /* in the table as well */
    struct member_entry **entries; /* sorted by store */
    struct member_entry **order;   /* the same, shuffled: whom to probe next */
    size_t n, capacity, order_turn;
    size_t up_n; /* alive or suspect, without self */
    size_t suspects_n;
    struct member_entry *newest, *oldest; /* news left to spread */
    struct member_probe probe;
    struct member_relay relays[MEMBER_RELAYS_MAX];
    size_t relays_next;
    struct member_join joins[GOSSIP_JOIN_MAX];
    size_t joins_n;
    struct member_pull pull;
    uint64_t number; /* of the last probe */
    uint64_t period_at_ms, full_at_ms;
    bool started;
};

static inline bool member_is_up(const struct gossip_member_record *record)
{
    return record->state == GOSSIP_MEMBER_ALIVE || record->state == GOSSIP_MEMBER_SUSPECT;
}

struct member_entry *member_find(const struct gossip_member *member, const struct replica_id *store);
size_t member_position(const struct gossip_member *member, const struct replica_id *store);
void member_forget(struct gossip_member *member, struct member_entry *entry);
/* Takes what was heard, if it supersedes what is known. vouched: by a voter, whose word on roles counts. */
int member_merge(struct gossip_member *member, const struct gossip_member_record *record, bool vouched,
                 uint64_t now_ms, struct gossip_update *update);
/* This node's own finding. */
void member_set_state(struct gossip_member *member, struct member_entry *entry,
                      enum gossip_member_state state, uint64_t now_ms, struct gossip_update *update);
void member_unspread(struct gossip_member *member, struct member_entry *entry);
/* This node's own record changed, or must supersede (generation, incarnation). */
void member_raise_self(struct gossip_member *member, uint64_t generation, uint64_t incarnation);

/* Errors: MALFORMED, DENIED: then nothing is to change. */
int member_read(const struct gossip_message *message, struct member_message_read *ret_read);
int member_each(const struct member_message_read *read,
                int (*visit)(void *context, const struct gossip_member_record *record), void *context);
/* to zero: whoever answers at endpoint. News rides along, but on a PAGE, which has records of its own. */
struct member_send {
    enum member_message type;
    struct replica_id to;
    const char *endpoint;
    uint64_t number;
    struct replica_id subject;
    bool flag;
};
void member_send(struct gossip_member *member, const struct member_send *send, struct gossip_update *update);

void member_start(struct gossip_member *member, uint64_t now_ms);
void member_tick(struct gossip_member *member, uint64_t now_ms, struct gossip_update *update);
void member_wake(const struct gossip_member *member, struct gossip_update *update);
int member_receive(struct gossip_member *member, const struct gossip_member_event *event,
                   struct gossip_update *update);
void member_leave(struct gossip_member *member, struct gossip_update *update);

#endif
