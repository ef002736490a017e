/* member: who is here, and who seems alive. SWIM (Das, Gupta, Motivala 2002): each period one random member is probed,
 * directly and then through others; what is learnt rides on the probes. For liveness hints and discovery only: no quorum
 * ever depends on it.
 *
 * Records are ordered by (generation, incarnation): the generation is a counter in the store, raised at each start, so a
 * restarted or readdressed node replaces its former self, and a recycled address is never its former owner. */
#ifndef GOSSIP_MEMBER_H
#define GOSSIP_MEMBER_H

#include "gossip/step.h"

#define GOSSIP_ZONE_MAX 63
#define GOSSIP_NAME_MAX 63
/* Design goal 10,000 nodes, with room; further members are refused and logged. */
#define GOSSIP_MEMBERS_MAX 16384
#define GOSSIP_JOIN_MAX    64 /* addresses in --join */

enum gossip_member_state {
    GOSSIP_MEMBER_ALIVE,
    GOSSIP_MEMBER_SUSPECT,
    GOSSIP_MEMBER_DEAD,
    GOSSIP_MEMBER_LEFT
};

#define GOSSIP_MEMBER_VOTE (1u << 0) /* role bits: a candidate for voting */

struct gossip_member_record {
    struct replica_id store;
    uint64_t generation;
    uint64_t incarnation;
    enum gossip_member_state state;
    uint32_t roles;
    uint64_t capacity_free;         /* bytes; a hint for placement */
    char name[GOSSIP_NAME_MAX + 1]; /* for people; the host name by default */
    char zone[GOSSIP_ZONE_MAX + 1];
    char endpoint[GOSSIP_ENDPOINT_MAX + 1]; /* control address: tcp://host:port; data is on port + 1 */
    char version[32];                       /* of the software */
};

struct gossip_member_options {
    uint32_t period_ms;    /* between probes; 1000 */
    uint32_t timeout_ms;   /* of a direct probe; 500 */
    uint32_t suspicion_ms; /* from suspect to dead; 4000: a dead node of three is known within 10 s */
    uint32_t indirect;     /* members asked to probe for us; 3 */
    uint32_t join_ms;      /* between tries of an unanswered --join address; 1000, with jitter */
    uint32_t full_ms;      /* between full-state exchanges with one member; 30000 */
};
void gossip_member_options_default(struct gossip_member_options *options);

struct gossip_member; /* opaque: members are many */

/* self is copied; join: n endpoints, copied. Errors: NOMEM, TOOBIG. */
int gossip_member_new(const struct gossip_member_options *options, const struct gossip_member_record *self,
                      const char *const *join, size_t join_n, uint64_t seed,
                      struct gossip_member **ret_member);
void gossip_member_destroy(struct gossip_member **member);

enum gossip_member_event_kind {
    GOSSIP_MEMBER_EVENT_START,
    GOSSIP_MEMBER_EVENT_TIMER,
    GOSSIP_MEMBER_EVENT_MESSAGE,
    GOSSIP_MEMBER_EVENT_JOIN,     /* the join addresses as resolved anew: endpoints, endpoints_n */
    GOSSIP_MEMBER_EVENT_CAPACITY, /* capacity_free changed */
    GOSSIP_MEMBER_EVENT_LEAVE,    /* tell everybody that we are not here until our next generation */
};
struct gossip_member_event {
    enum gossip_member_event_kind kind;
    struct gossip_time time;
    struct gossip_message message;
    const char *const *endpoints;
    size_t endpoints_n;
    uint64_t capacity_free;
};
/* Errors: MALFORMED for a bad message (nothing changed). */
int gossip_member_step(struct gossip_member *member, const struct gossip_member_event *event,
                       struct gossip_update *update);

/* Borrowed until the next step; NULL if unknown. Self is included in all of these. */
const struct gossip_member_record *gossip_member_find(const struct gossip_member *member,
                                                      const struct replica_id *store);
const struct gossip_member_record *gossip_member_self(const struct gossip_member *member);
bool gossip_member_is_alive(const struct gossip_member *member,
                            const struct replica_id *store); /* alive or suspect */
/* Whether all addresses in --join have answered, and what they know was taken in. */
bool gossip_member_is_joined(const struct gossip_member *member);
size_t gossip_member_count(const struct gossip_member *member);
const struct gossip_member_record *gossip_member_at(const struct gossip_member *member, size_t index);
/* A random alive member that is not self; NULL if alone. */
const struct gossip_member_record *gossip_member_pick(const struct gossip_member *member,
                                                      struct gossip_random *random);

#endif
