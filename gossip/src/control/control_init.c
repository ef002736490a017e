/* `cluster init`: one node founds a cluster with itself as the only member, unless others that it knows have
 * one, or are about to.
 *
 * Before it founds it asks all that it knows and that seem alive, so that two of them never found two. Who is
 * asked and has a cluster answers with it; who is about to found one, or has granted it to another lately, names
 * that one; everybody else grants it, which binds while the asker goes on asking. Of two that ask each other the
 * lower store goes on, and the other's caller is refused, as is who hears of a lower one or of founders that
 * expect each other. Who does not answer is not waited for for long: of a node that cannot be reached nothing
 * can be known, and two that know nothing of each other found two clusters, which then never mix.
 *
 * Nothing of this is on disk: an init that dies on the way leaves nothing behind. */
#include "control/control.h"

#include <stdio.h>
#include <string.h>

#define INIT_MS       3000 /* for answers of those that seem alive, and of the addresses in --join */
#define GRANT_PERIODS 6    /* without another request for so many a grant, or word of a rival, is over */

static uint64_t grant_ms(const struct gossip_control *control)
{
    return control_begin_period(control) * GRANT_PERIODS;
}

/* To somebody else, and not over yet. */
static bool has_granted(const struct gossip_control *control, const struct replica_id *other_than)
{
    return !replica_id_is_zero(&control->init.grant) && !replica_id_equal(&control->init.grant, other_than) &&
           control->now_ms - control->init.grant_heard_ms < grant_ms(control);
}

bool control_init_has_granted(const struct gossip_control *control)
{
    return has_granted(control, &control->self);
}

static bool is_asking(const struct gossip_control *control)
{
    return control->init_token != 0 && replica_id_is_zero(&control->cluster);
}

void control_init_refuse(struct gossip_control *control, const char *reason, struct gossip_update *update)
{
    if (control->init_token == 0)
        return;
    control_request_reason(update, control->init_token, REPLICA_E_REFUSED, reason);
    control->init_token = 0;
}

static void give_way(struct gossip_control *control, const struct replica_id *rival,
                     struct gossip_update *update)
{
    char name[GOSSIP_NAME_MAX + 1], reason[CONTROL_WAITING_MAX];
    control_begin_name(control, rival, name);
    snprintf(reason, sizeof reason, "%s is about to begin a cluster, which this node will join", name);
    control_init_refuse(control, reason, update);
}

void control_init_request(struct gossip_control *control, uint64_t token, struct gossip_update *update)
{
    const char *reason = NULL;
    if (control->visible)
        reason = "this node belongs to a cluster already";
    else if (!replica_id_is_zero(&control->cluster) || control->init_token != 0)
        reason = "this node is about to begin a cluster already";
    else if (!replica_id_is_zero(&control->promised))
        reason = "this node has promised another to begin a cluster together with it";
    else if (control->options.begin == GOSSIP_BEGIN_EXPECT)
        reason = "this node was started with --expect, and begins its cluster together with the others";
    if (reason != NULL) {
        control_request_reason(update, token, REPLICA_E_REFUSED, reason);
        return;
    }
    control->init_token = token;
    control->init.began_ms = control->init.next_ms = control->now_ms;
    control->init.rival_ms = 0;
    control->init.granted_n = 0;
    if (control_init_has_granted(control))
        give_way(control, &control->init.grant, update);
}

/* Asking */

static bool granted_by(const struct gossip_control *control, const struct replica_id *store)
{
    for (size_t i = 0; i < control->init.granted_n; i++)
        if (replica_id_equal(&control->init.granted[i], store))
            return true;
    return false;
}

/* Those to ask, in the order of their ids, and so much the same for all who ask at once. */
static size_t known_others(const struct gossip_control *control,
                           struct replica_id ret_stores[CONTROL_INIT_ASKED_MAX])
{
    size_t count = gossip_member_count(control->member), n = 0;
    for (size_t i = 0; i < count && n < CONTROL_INIT_ASKED_MAX; i++) {
        const struct replica_id *store = &gossip_member_at(control->member, i)->store;
        if (!replica_id_equal(store, &control->self) && gossip_member_is_alive(control->member, store))
            ret_stores[n++] = *store;
    }
    return n;
}

static bool may_found(const struct gossip_control *control)
{
    struct replica_id others[CONTROL_INIT_ASKED_MAX];
    size_t n = known_others(control, others);
    bool all = control->options.begin != GOSSIP_BEGIN_JOIN || gossip_member_is_joined(control->member);
    if (control->init.rival_ms != 0 && control->now_ms - control->init.rival_ms < grant_ms(control))
        return false;
    for (size_t i = 0; i < n; i++)
        all = all && granted_by(control, &others[i]);
    return all || control->now_ms - control->init.began_ms >= INIT_MS;
}

static void ask(struct gossip_control *control, struct gossip_update *update)
{
    struct replica_id others[CONTROL_INIT_ASKED_MAX];
    size_t n = known_others(control, others);
    for (size_t i = 0; i < n; i++) {
        struct replica_buffer payload;
        control_begin_message(control, &payload, 1);
        replica_pack_uint(&payload, 0);
        control_send(&others[i], CONTROL_ASK, &payload, false, update);
    }
}

void control_init_timer(struct gossip_control *control, struct gossip_update *update)
{
    if (!is_asking(control))
        return;
    if (control->now_ms - control->init.began_ms >= control->options.request_ms) {
        control_init_refuse(control, "another node is about to begin a cluster, and does not come to an end",
                            update);
        return;
    }
    if (control->now_ms >= control->init.next_ms) {
        control->init.next_ms = control->now_ms + control_begin_period(control);
        ask(control, update);
    }
    if (may_found(control))
        control_begin_found(control, &control->self, 1, update);
    else
        gossip_update_wake(update, control->init.next_ms);
}

void control_init_granted(struct gossip_control *control, const struct replica_id *store)
{
    if (is_asking(control) && !granted_by(control, store) && control->init.granted_n < CONTROL_INIT_ASKED_MAX)
        control->init.granted[control->init.granted_n++] = *store;
}

void control_init_rival(struct gossip_control *control, uint32_t expect, const struct replica_id *rival,
                        struct gossip_update *update)
{
    if (!is_asking(control) || replica_id_is_zero(rival) || replica_id_equal(rival, &control->self))
        return;
    control->init.rival_ms = control->now_ms;
    if (expect > 0 || replica_id_compare(rival, &control->self) < 0)
        give_way(control, rival, update);
}

/* Being asked */

static void name_rival(const struct gossip_control *control, const struct replica_id *to, uint32_t expect,
                       const struct replica_id *rival, struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 2);
    replica_pack_uint(&payload, expect);
    replica_pack_id(&payload, rival);
    control_send(to, CONTROL_FRESH, &payload, false, update);
}

void control_init_asked(struct gossip_control *control, const struct replica_id *from,
                        struct gossip_update *update)
{
    bool founding = !replica_id_is_zero(&control->cluster);
    bool first = is_asking(control) && replica_id_compare(&control->self, from) < 0;
    struct replica_buffer payload;
    if (control->visible)
        control_copy_serve(control, from, update);
    else if (founding || first)
        name_rival(control, from, 0, &control->self, update);
    else if (!replica_id_is_zero(&control->promised))
        name_rival(control, from, control->options.expect, &control->promised, update);
    else if (has_granted(control, from))
        name_rival(control, from, 0, &control->init.grant, update);
    else {
        if (is_asking(control))
            give_way(control, from, update);
        control->init.grant = *from;
        control->init.grant_heard_ms = control->now_ms;
        control_begin_message(control, &payload, 0);
        control_send(from, CONTROL_PROMISE, &payload, false, update);
    }
}
