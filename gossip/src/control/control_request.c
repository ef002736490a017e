/* Proposals: from a local caller to the leader, into the log, and their outcomes back.
 *
 * A proposal is sent only to a node that is believed to lead: until then nothing was proposed, and running
 * out of time is UNAVAILABLE; afterwards it is INDETERMINATE. It is repeated until its outcome is known: its
 * id makes that safe. The caller is answered once this node's registry has the entry that decided. */
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_HEARTBEATS 5 /* between tries to reach the leader */

static uint64_t retry_ms(const struct gossip_control *control)
{
    return control->now_ms + (uint64_t)control->options.heartbeat_ms * RETRY_HEARTBEATS;
}

void control_request_reason(struct gossip_update *update, uint64_t token, int code, const char *reason)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 1);
    replica_pack_cstr(&payload, reason);
    gossip_update_answer(update, token, code, &payload, false);
    replica_buffer_close(&payload);
}

/* A new request */

static int make_proposal(const struct gossip_control *control, const struct gossip_control_request *request,
                         struct control_proposal *ret_proposal)
{
    static const enum control_kind KINDS[] = {[GOSSIP_CONTROL_CREATE] = CONTROL_CREATE,
                                              [GOSSIP_CONTROL_RENAME] = CONTROL_RENAME,
                                              [GOSSIP_CONTROL_DELETE] = CONTROL_DELETE,
                                              [GOSSIP_CONTROL_UNDELETE] = CONTROL_UNDELETE,
                                              [GOSSIP_CONTROL_LOOKUP] = CONTROL_LOOKUP};
    struct control_proposal proposal = {.kind = KINDS[request->kind],
                                        .base = control->registry.index,
                                        .version = request->version,
                                        .if_missing = request->if_missing,
                                        .voters_wanted = request->voters_wanted,
                                        .creator = control->self};
    if (proposal.voters_wanted == 0)
        proposal.voters_wanted = GOSSIP_VOTERS_WANTED;
    if (request->name == NULL || !control_name_valid(request->name) || request->version > 2 ||
        proposal.voters_wanted > GOSSIP_VOTERS_MAX || proposal.voters_wanted % 2 == 0)
        return REPLICA_E_INVALID;
    memcpy(proposal.name, request->name, strlen(request->name));
    if (request->kind == GOSSIP_CONTROL_RENAME) {
        if (request->new_name == NULL || !control_name_valid(request->new_name))
            return REPLICA_E_INVALID;
        memcpy(proposal.new_name, request->new_name, strlen(request->new_name));
    }
    *ret_proposal = proposal;
    return 0;
}

static struct control_pending *add_pending(struct gossip_control *control)
{
    if (control->pending_n == control->pending_capacity) {
        size_t capacity = control->pending_n == 0 ? 8 : control->pending_n * 2;
        struct control_pending *pending = reallocarray(control->pending, capacity, sizeof pending[0]);
        if (pending == NULL)
            return NULL;
        control->pending = pending;
        control->pending_capacity = capacity;
    }
    return memset(&control->pending[control->pending_n++], 0, sizeof control->pending[0]);
}

void control_request_new(struct gossip_control *control, const struct gossip_control_request *request,
                         struct gossip_update *update)
{
    struct control_proposal proposal;
    struct control_pending *pending;
    int rv;
    if (request->kind == GOSSIP_CONTROL_INIT) {
        control_init_request(control, request->token, update);
        return;
    }
    rv = make_proposal(control, request, &proposal);
    if (rv == 0 && control->pending_n == CONTROL_PENDING_MAX)
        rv = REPLICA_E_BUSY;
    if (rv != 0) {
        gossip_update_answer(update, request->token, rv, NULL, false);
        return;
    }
    pending = add_pending(control);
    if (pending == NULL) {
        update->failed = true;
        return;
    }
    gossip_random_id(&control->random, &proposal.id);
    pending->proposal = proposal;
    pending->token = request->token;
    pending->deadline_ms =
        control->now_ms + (request->timeout_ms > 0 ? request->timeout_ms : control->options.request_ms);
    pending->try_ms = control->now_ms;
}

/* The leader's side */

static void send_outcome(const struct gossip_control *control, const struct replica_id *to,
                         const struct control_outcome *outcome, struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 1);
    control_outcome_pack(&payload, outcome);
    control_send(to, CONTROL_OUTCOME, &payload, true, update);
}

static void add_waiter(struct gossip_control *control, const struct replica_id *proposal,
                       const struct replica_id *store)
{
    for (size_t i = 0; i < control->waiters_n; i++)
        if (replica_id_equal(&control->waiters[i].proposal, proposal) &&
            replica_id_equal(&control->waiters[i].store, store))
            return;
    if (control->waiters_n == CONTROL_WAITERS_MAX) { /* the oldest asks again */
        memmove(control->waiters, control->waiters + 1,
                (CONTROL_WAITERS_MAX - 1) * sizeof control->waiters[0]);
        control->waiters_n--;
    }
    control->waiters[control->waiters_n++] = (struct control_waiter){*proposal, *store};
}

static bool in_log(const struct gossip_control *control, const struct replica_id *proposal)
{
    for (uint64_t index = control_log_last(&control->log); index > control->registry.index; index--)
        if (replica_id_equal(&control_log_at(&control->log, index)->id, proposal))
            return true;
    return false;
}

/* As the leader; false: no room now. The outcome is told when the entry is applied. */
static bool propose(struct gossip_control *control, const struct control_proposal *given,
                    struct gossip_update *update)
{
    struct control_proposal proposal = *given;
    if (in_log(control, &given->id))
        return true;
    if (control_log_last(&control->log) - control->registry.index >= CONTROL_UNCOMMITTED_MAX)
        return false;
    if (proposal.kind == CONTROL_CREATE) {
        gossip_random_id(&control->random, &proposal.volume);
        control_place(control, &proposal);
    }
    control_replicate_append(control, &proposal, update);
    return true;
}

/* An outcome became known: by applying the entry, or from the leader. */
void control_request_outcome(struct gossip_control *control, const struct control_outcome *outcome,
                             struct gossip_update *update)
{
    size_t kept = 0;
    for (size_t i = 0; i < control->pending_n; i++) {
        struct control_pending *pending = &control->pending[i];
        if (pending->decided || !replica_id_equal(&pending->proposal.id, &outcome->id))
            continue;
        pending->decided = true;
        pending->code = outcome->code;
        pending->index = outcome->index;
        pending->volume = outcome->volume;
        pending->try_ms = control->now_ms;
    }
    for (size_t i = 0; i < control->waiters_n; i++) {
        if (replica_id_equal(&control->waiters[i].proposal, &outcome->id))
            send_outcome(control, &control->waiters[i].store, outcome, update);
        else
            control->waiters[kept++] = control->waiters[i];
    }
    control->waiters_n = kept;
}

/* Driving what is pending */

static void ask_who(struct gossip_control *control, struct gossip_update *update)
{
    for (size_t i = 0; i < control->members_n; i++) {
        struct replica_buffer payload;
        control_begin_message(control, &payload, 0);
        control_send(&control->members[i], CONTROL_WHO, &payload, false, update);
    }
}

static void send_proposal(struct gossip_control *control, struct control_pending *pending,
                          const struct replica_id *to, struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 1);
    control_proposal_pack(&payload, &pending->proposal);
    control_send(to, CONTROL_PROPOSE, &payload, false, update);
    pending->sent = true;
}

/* *ret_asked: the members were asked who leads, once for all that is pending. */
static void try_pending(struct gossip_control *control, struct control_pending *pending, bool *ret_asked,
                        struct gossip_update *update)
{
    bool member = control_is_member(control);
    const struct replica_id *leader = member ? &control->leader : &control->hint;
    if (control->role == CONTROL_LEADING && member) {
        if (pending->appended_term != control->term && propose(control, &pending->proposal, update)) {
            pending->appended_term = control->term;
            pending->sent = true;
        }
        return;
    }
    if (!replica_id_is_zero(leader) && !replica_id_equal(leader, &control->self))
        send_proposal(control, pending, leader, update);
    if (!member && (replica_id_is_zero(leader) || pending->sent) && !*ret_asked) {
        ask_who(control, update);
        *ret_asked = true;
    }
}

static void answer(struct gossip_control *control, const struct control_pending *pending,
                   struct gossip_update *update)
{
    const struct gossip_volume *volume = control_registry_find(&control->registry, &pending->volume);
    struct replica_buffer payload;
    if (pending->code != 0 || volume == NULL) {
        gossip_update_answer(update, pending->token, pending->code, NULL, true);
        return;
    }
    replica_buffer_init(&payload);
    control_volume_pack(&payload, volume);
    gossip_update_answer(update, pending->token, 0, &payload, true);
    replica_buffer_close(&payload);
}

static void expire(struct gossip_control *control, const struct control_pending *pending,
                   struct gossip_update *update)
{
    if (pending->sent)
        control_request_reason(update, pending->token, REPLICA_E_INDETERMINATE,
                               "the cluster's log did not answer in time; the change may still happen");
    else if (control->visible)
        control_request_reason(update, pending->token, REPLICA_E_UNAVAILABLE,
                               "the cluster's log has no leader; nothing was changed");
    else
        control_request_reason(update, pending->token, REPLICA_E_UNAVAILABLE, control->waiting);
}

/* One request; true: it was answered. */
static bool drive(struct gossip_control *control, struct control_pending *pending, bool *ret_asked,
                  struct gossip_update *update)
{
    if (pending->decided && (control->registry.index >= pending->index)) {
        answer(control, pending, update);
        return true;
    }
    if (control->now_ms >= pending->deadline_ms) {
        expire(control, pending, update);
        return true;
    }
    if (control->now_ms >= pending->try_ms && control->visible) {
        pending->try_ms = retry_ms(control);
        if (!pending->decided)
            try_pending(control, pending, ret_asked, update);
        else if (!replica_id_is_zero(&pending->decider))
            control_copy_from(control, &pending->decider, update);
    }
    gossip_update_wake(update, pending->deadline_ms);
    if (control->visible)
        gossip_update_wake(update, pending->try_ms);
    return false;
}

void control_request_timer(struct gossip_control *control, struct gossip_update *update)
{
    bool asked = false;
    size_t kept = 0, n = control->pending_n;
    for (size_t i = 0; i < n; i++) {
        if (!drive(control, &control->pending[i], &asked, update))
            control->pending[kept++] = control->pending[i];
    }
    control->pending_n = kept;
}

/* Once for each leader of a term: words of it and of its end may come in turn, from whoever has not noticed yet. */
void control_request_hurry(struct gossip_control *control, const struct replica_id *leader, uint64_t term)
{
    if (leader != NULL) {
        if (replica_id_equal(&control->hurried, leader) && control->hurried_term == term)
            return;
        control->hurried = *leader;
        control->hurried_term = term;
    }
    for (size_t i = 0; i < control->pending_n; i++)
        control->pending[i].try_ms = control->now_ms;
}

/* Messages */

static void send_leader(const struct gossip_control *control, const struct replica_id *to,
                        struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 2);
    replica_pack_id(&payload, &control->leader);
    replica_pack_uint(&payload, control->term);
    control_send(to, CONTROL_LEADER, &payload, true, update);
}

static int on_who(struct gossip_control *control, const struct gossip_message *message,
                  struct gossip_update *update)
{
    struct control_input input;
    if (control_open(message, 0, &input) != 0 || control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    if (control_is_member(control))
        send_leader(control, &message->from->store, update);
    return 0;
}

static bool may_propose(const struct gossip_principal *from, const struct control_proposal *proposal)
{
    return gossip_principal_may(from, proposal->name, proposal->kind != CONTROL_LOOKUP) &&
           (proposal->kind != CONTROL_RENAME || gossip_principal_may(from, proposal->new_name, true));
}

static int read_proposal(const struct gossip_message *message, struct control_proposal *ret_proposal)
{
    struct control_input input;
    size_t start;
    if (control_open(message, 1, &input) != 0)
        return REPLICA_E_MALFORMED;
    start = input.reader.offset;
    replica_pack_skip(&input.reader);
    if (input.reader.failed)
        return REPLICA_E_MALFORMED;
    if (control_proposal_decode(message->payload + start, input.reader.offset - start, ret_proposal) != 0 ||
        ret_proposal->kind == CONTROL_NOOP || ret_proposal->kind == CONTROL_EXPIRE)
        return REPLICA_E_MALFORMED;
    return control_close(&input);
}

static int on_propose(struct gossip_control *control, const struct gossip_message *message,
                      struct gossip_update *update)
{
    const struct replica_id *from = &message->from->store;
    const struct control_outcome *known;
    struct control_outcome denied = {.code = REPLICA_E_DENIED};
    struct control_proposal proposal;
    if (read_proposal(message, &proposal) != 0)
        return REPLICA_E_MALFORMED;
    if (!control_is_member(control))
        return 0;
    if (!may_propose(message->from, &proposal)) {
        denied.id = proposal.id;
        send_outcome(control, from, &denied, update);
        return REPLICA_E_DENIED;
    }
    known = control_registry_outcome(&control->registry, &proposal.id);
    if (known != NULL)
        send_outcome(control, from, known, update);
    else if (control->role != CONTROL_LEADING)
        send_leader(control, from, update);
    else {
        proposal.creator = *from;
        proposal.voters_n = 0;
        add_waiter(control, &proposal.id, from);
        propose(control, &proposal, update);
    }
    return 0;
}

static int on_outcome(struct gossip_control *control, const struct gossip_message *message,
                      struct gossip_update *update)
{
    struct control_outcome outcome;
    struct control_input input;
    if (control_open(message, 1, &input) != 0)
        return REPLICA_E_MALFORMED;
    if (control_outcome_read(&input.reader, &outcome) != 0 || control_close(&input) != 0 ||
        !(control_code_valid(outcome.code) || outcome.code == REPLICA_E_DENIED))
        return REPLICA_E_MALFORMED;
    for (size_t i = 0; i < control->pending_n; i++)
        if (replica_id_equal(&control->pending[i].proposal.id, &outcome.id) && control->pending[i].sent)
            control->pending[i].decider = message->from->store;
    control_request_outcome(control, &outcome, update);
    return 0;
}

static int on_leader(struct gossip_control *control, const struct gossip_message *message)
{
    struct control_input input;
    struct replica_id leader;
    uint64_t term;
    if (control_open(message, 2, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_id(&input.reader, &leader);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &term);
    if (control_close(&input) != 0 ||
        (!replica_id_is_zero(&leader) && control_member_index(control, &leader) < 0))
        return REPLICA_E_MALFORMED;
    if (control_is_member(control) || term < control->hint_term)
        return 0;
    control->hint_term = term;
    if (replica_id_is_zero(&leader)) {
        if (replica_id_equal(&control->hint, &message->from->store)) /* it led, and does no more */
            control->hint = leader;
    } else if (!replica_id_equal(&control->hint, &leader)) {
        control->hint = leader;
        control_request_hurry(control, &control->hint, term);
    }
    return 0;
}

int control_request_message(struct gossip_control *control, const struct gossip_message *message,
                            struct gossip_update *update)
{
    bool answers = message->type == CONTROL_LEADER || message->type == CONTROL_OUTCOME;
    if (answers && !control_from_member(control, message))
        return REPLICA_E_DENIED;
    switch (message->type) {
    case CONTROL_WHO:
        return on_who(control, message, update);
    case CONTROL_LEADER:
        return on_leader(control, message);
    case CONTROL_PROPOSE:
        return on_propose(control, message, update);
    default:
        return on_outcome(control, message, update);
    }
}
