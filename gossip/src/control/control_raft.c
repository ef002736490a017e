/* Terms and votes (Ongaro's dissertation, 3.4, 9.6): who leads.
 *
 *              patience ends                 majority would vote              majority voted
 *   follower ----------------> precandidate --------------------> candidate ------------------> leader
 *       ^                           |                                 |                            |
 *       +---------------------------+------- a higher term, or a leader of this one -------+-------+
 *                                             (leader: also no majority heard for an election's time)
 *
 * A vote counts once it is durable, also the candidate's own. Whoever hears from a leader votes for nobody,
 * so that a member that was cut off does not depose the leader by coming back. */
#include "control/control.h"

#include <string.h>

/* Election times that a leader's sync may take: long against a busy disk, short against people's patience. */
#define STALLED_CHECKS_MAX 4

size_t control_majority(const struct gossip_control *control)
{
    return control->members_n / 2 + 1;
}

bool control_is_member(const struct gossip_control *control)
{
    return control->visible && control->self_index >= 0;
}

static void draw_patience(struct gossip_control *control)
{
    control->election_ms = control->now_ms + control->options.election_ms +
                           gossip_random_below(&control->random, control->options.election_ms);
}

void control_raft_heard(struct gossip_control *control)
{
    control->leader_heard_ms = control->now_ms;
    draw_patience(control);
}

/* Whether a leader was heard within the shortest patience of anybody. */
static bool has_leader(const struct gossip_control *control)
{
    if (control->role == CONTROL_LEADING)
        return true;
    return !replica_id_is_zero(&control->leader) &&
           control->now_ms - control->leader_heard_ms < control->options.election_ms;
}

void control_raft_follow(struct gossip_control *control, uint64_t term, const struct replica_id *leader,
                         struct gossip_update *update)
{
    bool led = control->role == CONTROL_LEADING;
    if (term > control->term) {
        control->term = term;
        memset(&control->vote, 0, sizeof control->vote);
        control_log_write_state(control, update);
    }
    if (control->role != CONTROL_FOLLOWER)
        draw_patience(control);
    control->role = CONTROL_FOLLOWER;
    if (led) {
        control->waiters_n = 0; /* they ask again, and find the new leader */
        control_snapshot_drop(&control->out);
    }
    if (leader == NULL) {
        memset(&control->leader, 0, sizeof control->leader);
        return;
    }
    if (!replica_id_equal(&control->leader, leader)) {
        control->leader = *leader;
        control_request_hurry(control, &control->leader, control->term);
    }
}

/* Elections */

static void ask_votes(struct gossip_control *control, enum control_message type, uint64_t term,
                      struct gossip_update *update)
{
    uint64_t last = control_log_last(&control->log), last_term = 0;
    control_log_term(&control->log, last, &last_term);
    for (size_t i = 0; i < control->members_n; i++) {
        struct replica_buffer payload;
        control->peers[i].granted = false;
        if ((int)i == control->self_index)
            continue;
        control_begin_message(control, &payload, 3);
        replica_pack_uint(&payload, term);
        replica_pack_uint(&payload, last);
        replica_pack_uint(&payload, last_term);
        control_send(&control->members[i], type, &payload, type == CONTROL_VOTE, update);
    }
}

static void lead(struct gossip_control *control, struct gossip_update *update)
{
    struct control_proposal noop = {.kind = CONTROL_NOOP};
    control->role = CONTROL_LEADING;
    control->leader = control->self;
    control->quorum_ms = control->now_ms + control->options.election_ms;
    control->stalled = 0;
    for (size_t i = 0; i < control->members_n; i++)
        control->peers[i] =
            (struct control_peer){.next = control_log_last(&control->log) + 1, .heard_ms = control->now_ms};
    control_replicate_append(control, &noop, update);
    control_request_hurry(control, &control->leader, control->term);
}

static size_t granted(const struct gossip_control *control)
{
    size_t n = 0;
    for (size_t i = 0; i < control->members_n; i++)
        n += control->peers[i].granted;
    return n;
}

static void count_votes(struct gossip_control *control, struct gossip_update *update)
{
    if (control->role == CONTROL_CANDIDATE && control->state_batch <= control->synced &&
        granted(control) + 1 >= control_majority(control))
        lead(control, update);
}

static void campaign(struct gossip_control *control, struct gossip_update *update)
{
    control->role = CONTROL_CANDIDATE;
    memset(&control->leader, 0, sizeof control->leader);
    control->term++;
    control->vote = control->self;
    control_log_write_state(control, update);
    draw_patience(control);
    ask_votes(control, CONTROL_VOTE, control->term, update);
}

static void canvass(struct gossip_control *control, struct gossip_update *update)
{
    if (control->members_n == 1) {
        campaign(control, update);
        return;
    }
    control->role = CONTROL_PRECANDIDATE;
    memset(&control->leader, 0, sizeof control->leader);
    draw_patience(control);
    ask_votes(control, CONTROL_PREVOTE, control->term + 1, update);
}

void control_raft_start(struct gossip_control *control, struct gossip_update *update)
{
    control->role = CONTROL_FOLLOWER;
    draw_patience(control);
    if (control->members_n == 1)
        canvass(control, update);
}

/* Whether our own disk has synced nothing for too long. */
static bool disk_stalled(struct gossip_control *control)
{
    uint64_t oldest = control->log.marks_n > 0 ? control->log.marks[0].batch : 0;
    control->stalled = oldest != 0 && oldest == control->stalled_batch ? control->stalled + 1 : 0;
    control->stalled_batch = oldest;
    return control->stalled >= STALLED_CHECKS_MAX;
}

/* A leader that hears no majority, or whose own disk does not answer, makes room. */
static void check_quorum(struct gossip_control *control, struct gossip_update *update)
{
    size_t heard = 0;
    control->quorum_ms = control->now_ms + control->options.election_ms;
    for (size_t i = 0; i < control->members_n; i++)
        heard += (int)i == control->self_index ||
                 control->now_ms - control->peers[i].heard_ms < control->options.election_ms;
    if (heard < control_majority(control) || disk_stalled(control))
        control_raft_follow(control, control->term, NULL, update);
}

static void propose_expiry(struct gossip_control *control, struct gossip_update *update)
{
    struct control_proposal proposal = {.kind = CONTROL_EXPIRE};
    if (control->registry.index == control_log_last(&control->log) &&
        control_apply_expired(&control->registry, control->wall_ms))
        control_replicate_append(control, &proposal, update);
}

void control_raft_timer(struct gossip_control *control, struct gossip_update *update)
{
    if (!control_is_member(control))
        return;
    if (control->role == CONTROL_LEADING && control->now_ms >= control->quorum_ms) {
        check_quorum(control, update);
        if (control->role == CONTROL_LEADING)
            propose_expiry(control, update);
    }
    if (control->role == CONTROL_LEADING && control->now_ms >= control->heartbeat_ms)
        control_replicate_all(control, true, update);
    if (control->role != CONTROL_LEADING && control->now_ms >= control->election_ms)
        canvass(control, update);
    gossip_update_wake(update, control->role != CONTROL_LEADING             ? control->election_ms
                               : control->heartbeat_ms < control->quorum_ms ? control->heartbeat_ms
                                                                            : control->quorum_ms);
}

void control_raft_synced(struct gossip_control *control, struct gossip_update *update)
{
    control_log_synced(&control->log, control->synced);
    if (!control_is_member(control))
        return;
    count_votes(control, update);
    if (control->role == CONTROL_LEADING)
        control_replicate_commit(control, update);
}

/* Messages */

struct ballot {
    uint64_t term, last, last_term;
};

static int read_ballot(const struct gossip_message *message, struct ballot *ret_ballot)
{
    struct control_input input;
    struct ballot ballot;
    if (control_open(message, 3, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &ballot.term);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &ballot.last);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &ballot.last_term);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    *ret_ballot = ballot;
    return 0;
}

static bool as_current(const struct gossip_control *control, const struct ballot *ballot)
{
    uint64_t last = control_log_last(&control->log), last_term = 0;
    control_log_term(&control->log, last, &last_term);
    return ballot->last_term > last_term || (ballot->last_term == last_term && ballot->last >= last);
}

/* term: that of the vote if granted, else ours. */
static void answer(const struct gossip_control *control, const struct replica_id *to,
                   enum control_message type, uint64_t term, bool grant, struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 2);
    replica_pack_uint(&payload, term);
    replica_pack_bool(&payload, grant);
    control_send(to, type, &payload, true, update);
}

static int on_prevote(struct gossip_control *control, const struct gossip_message *message,
                      struct gossip_update *update)
{
    struct ballot ballot;
    bool grant;
    if (read_ballot(message, &ballot) != 0)
        return REPLICA_E_MALFORMED;
    grant = ballot.term > control->term && !has_leader(control) && as_current(control, &ballot);
    answer(control, &message->from->store, CONTROL_PREVOTED, grant ? ballot.term : control->term, grant,
           update);
    return 0;
}

static int on_vote(struct gossip_control *control, const struct gossip_message *message,
                   struct gossip_update *update)
{
    struct ballot ballot;
    bool grant;
    if (read_ballot(message, &ballot) != 0)
        return REPLICA_E_MALFORMED;
    if (ballot.term > control->term && has_leader(control))
        return 0;
    if (ballot.term > control->term)
        control_raft_follow(control, ballot.term, NULL, update);
    grant = ballot.term == control->term && control->role == CONTROL_FOLLOWER &&
            as_current(control, &ballot) &&
            (replica_id_is_zero(&control->vote) || replica_id_equal(&control->vote, &message->from->store));
    if (grant && replica_id_is_zero(&control->vote)) {
        control->vote = message->from->store;
        control_log_write_state(control, update);
        draw_patience(control);
    }
    answer(control, &message->from->store, CONTROL_VOTED, control->term, grant, update);
    return 0;
}

static int on_answer(struct gossip_control *control, const struct gossip_message *message,
                     struct gossip_update *update)
{
    size_t from = (size_t)control_member_index(control, &message->from->store);
    struct control_input input;
    uint64_t term;
    bool grant;
    if (control_open(message, 2, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &term);
    replica_pack_read_bool(&input.reader, &grant);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    if (!grant) {
        if (term > control->term)
            control_raft_follow(control, term, NULL, update);
        return 0;
    }
    if (message->type == CONTROL_PREVOTED && control->role == CONTROL_PRECANDIDATE &&
        term == control->term + 1) {
        control->peers[from].granted = true;
        if (granted(control) + 1 >= control_majority(control))
            campaign(control, update);
    } else if (message->type == CONTROL_VOTED && control->role == CONTROL_CANDIDATE &&
               term == control->term) {
        control->peers[from].granted = true;
        count_votes(control, update);
    }
    return 0;
}

int control_raft_message(struct gossip_control *control, const struct gossip_message *message,
                         struct gossip_update *update)
{
    if (!control_from_member(control, message))
        return REPLICA_E_DENIED;
    switch (message->type) {
    case CONTROL_PREVOTE:
        return on_prevote(control, message, update);
    case CONTROL_VOTE:
        return on_vote(control, message, update);
    default:
        return on_answer(control, message, update);
    }
}
