/* The log from the leader to its followers (Ongaro's dissertation, 3.5–3.6), commit and application.
 *
 * One message with entries is under way to each follower at a time, and heartbeats beside it. A follower
 * acknowledges only what is durable there, and the leader counts of itself only what is durable here. */
#include "control/control.h"

#include <string.h>

/* A message with entries that was not answered is repeated after this many heartbeats. */
#define RESEND_HEARTBEATS 5

struct append {
    uint64_t term, prev, prev_term, commit;
    size_t entries_n;
};

/* Sending */

static void pack_append(const struct gossip_control *control, struct replica_buffer *payload,
                        const struct append *append)
{
    control_begin_message(control, payload, 5);
    replica_pack_uint(payload, append->term);
    replica_pack_uint(payload, append->prev);
    replica_pack_uint(payload, append->prev_term);
    replica_pack_uint(payload, append->commit);
    replica_pack_array(payload, append->entries_n);
    for (size_t i = 0; i < append->entries_n; i++) {
        const struct control_entry *entry = control_log_at(&control->log, append->prev + 1 + i);
        replica_pack_array(payload, 2);
        replica_pack_uint(payload, entry->term);
        replica_pack_bin(payload, entry->bytes, entry->size);
    }
}

/* As many entries from `next` on as one message may carry. */
static size_t count_entries(const struct control_log *log, uint64_t next)
{
    size_t n = 0, size = 0;
    for (const struct control_entry *entry = control_log_at(log, next);
         entry != NULL && n < CONTROL_ENTRIES_MAX; entry = control_log_at(log, next + n)) {
        size += entry->size;
        if (n > 0 && size > CONTROL_PIECE_MAX)
            break;
        n++;
    }
    return n;
}

static void send_append(struct gossip_control *control, size_t peer, bool entries,
                        struct gossip_update *update)
{
    struct control_peer *to = &control->peers[peer];
    struct append append = {.term = control->term, .prev = to->next - 1, .commit = control->commit};
    struct replica_buffer payload;
    if (!control_log_term(&control->log, append.prev, &append.prev_term)) {
        append.prev = 0; /* during a snapshot only the sign of life matters: 0 matches everywhere */
        append.prev_term = 0;
    } else if (entries)
        append.entries_n = count_entries(&control->log, to->next);
    if (append.entries_n > 0) {
        to->waiting = true;
        to->sent_ms = control->now_ms;
    }
    pack_append(control, &payload, &append);
    /* entries reveal state and wait for our own sync; a heartbeat waits for nothing, so that syncing costs no
     * election */
    control_send(&control->members[peer], CONTROL_APPEND, &payload, append.entries_n > 0, update);
}

void control_replicate_to(struct gossip_control *control, size_t peer, struct gossip_update *update)
{
    struct control_peer *to = &control->peers[peer];
    uint64_t patience = (uint64_t)control->options.heartbeat_ms * RESEND_HEARTBEATS;
    if ((int)peer == control->self_index || (to->waiting && control->now_ms - to->sent_ms < patience))
        return;
    if (to->next <= control->log.base_index)
        control_snapshot_send(control, peer, update);
    else if (to->next <= control_log_last(&control->log))
        send_append(control, peer, true, update);
}

void control_replicate_all(struct gossip_control *control, bool heartbeat, struct gossip_update *update)
{
    for (size_t i = 0; i < control->members_n; i++) {
        if ((int)i == control->self_index)
            continue;
        if (heartbeat)
            send_append(control, i, false, update);
        control_replicate_to(control, i, update);
    }
    if (heartbeat)
        control->heartbeat_ms = control->now_ms + control->options.heartbeat_ms;
    gossip_update_wake(update, control->heartbeat_ms);
}

void control_replicate_append(struct gossip_control *control, struct control_proposal *proposal,
                              struct gossip_update *update)
{
    struct replica_buffer bytes;
    proposal->time_ms = control->wall_ms;
    if (replica_id_is_zero(&proposal->id))
        gossip_random_id(&control->random, &proposal->id);
    replica_buffer_init(&bytes);
    control_proposal_pack(&bytes, proposal);
    if (bytes.failed)
        update->failed = true;
    else
        control_log_append(control, control->term, &proposal->id, bytes.data, bytes.size, update);
    replica_buffer_close(&bytes);
    control_replicate_all(control, proposal->kind == CONTROL_NOOP, update);
}

/* Committing */

/* An entry of this term that a majority has commits everything before it; one of an older term by itself
 * never does. */
void control_replicate_commit(struct gossip_control *control, struct gossip_update *update)
{
    uint64_t matches[GOSSIP_CONTROL_MEMBERS_MAX], agreed, term = 0;
    for (size_t i = 0; i < control->members_n; i++) {
        uint64_t match = (int)i == control->self_index ? control->log.durable : control->peers[i].match;
        size_t at = i;
        for (; at > 0 && matches[at - 1] < match; at--)
            matches[at] = matches[at - 1];
        matches[at] = match;
    }
    agreed = matches[control_majority(control) - 1];
    if (agreed <= control->commit || !control_log_term(&control->log, agreed, &term) || term != control->term)
        return;
    control->commit = agreed;
    control_replicate_apply(control, update);
    control_replicate_all(control, true, update); /* followers learn at once what their callers wait for */
}

static void compact(struct gossip_control *control, struct gossip_update *update)
{
    uint64_t applied = control->registry.index - control->log.base_index;
    if (applied > control->options.snapshot_entries) /* half stays, for followers that are a little behind */
        control_log_cut_to(control, control->registry.index - control->options.snapshot_entries / 2, update);
}

void control_replicate_apply(struct gossip_control *control, struct gossip_update *update)
{
    struct control_registry *registry = &control->registry;
    uint64_t before = registry->index;
    for (size_t i = 0; i < CONTROL_APPLY_MAX && registry->index < control->commit && !update->failed; i++) {
        const struct control_entry *entry = control_log_at(&control->log, registry->index + 1);
        struct control_proposal proposal;
        if (entry == NULL || control_proposal_decode(entry->bytes, entry->size, &proposal) != 0) {
            update->failed = true; /* checked when it was appended: this memory cannot be trusted */
            return;
        }
        control_apply(control, registry->index + 1, entry->term, &proposal, update);
    }
    if (registry->index < control->commit)
        update->again = true;
    if (registry->index == before)
        return;
    compact(control, update);
    control_copy_news(control, update);
}

/* Following */

/* What is durable already is acknowledged at once, so that a slow sync of others' batches costs no election.
 */
void control_replicate_reply(struct gossip_control *control, const struct replica_id *to, uint64_t index,
                             struct gossip_update *update)
{
    bool settled = index <= control->log.durable && control->state_batch <= control->synced;
    struct replica_buffer payload;
    control_begin_message(control, &payload, 4);
    replica_pack_uint(&payload, control->term);
    replica_pack_bool(&payload, true);
    replica_pack_uint(&payload, index);
    replica_pack_uint(&payload, 0);
    control_send(to, CONTROL_APPENDED, &payload, !settled, update);
}

/* hint: where the leader should try next, so that it need not go back entry by entry. */
static void refuse(struct gossip_control *control, const struct replica_id *to, uint64_t prev, uint64_t hint,
                   struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 4);
    replica_pack_uint(&payload, control->term);
    replica_pack_bool(&payload, false);
    replica_pack_uint(&payload, prev);
    replica_pack_uint(&payload, hint);
    control_send(to, CONTROL_APPENDED, &payload, true, update);
}

/* The first index of the run of equal terms that ends at prev, never at or below what is committed. */
static uint64_t back_off(const struct gossip_control *control, uint64_t prev)
{
    uint64_t last = control_log_last(&control->log), term = 0, before = 0;
    if (prev > last)
        return last + 1;
    control_log_term(&control->log, prev, &term);
    while (prev - 1 > control->commit && control_log_term(&control->log, prev - 1, &before) && before == term)
        prev--;
    return prev;
}

static int read_entry(struct replica_pack_reader *reader, struct control_entry *ret_entry)
{
    struct control_proposal proposal;
    const uint8_t *bytes;
    size_t n, size;
    replica_pack_read_array(reader, 2, &n);
    replica_pack_read_uint(reader, CONTROL_NUMBER_MAX, &ret_entry->term);
    replica_pack_read_bin(reader, CONTROL_ENTRY_MAX, &bytes, &size);
    if (reader->failed || n != 2 || control_proposal_decode(bytes, size, &proposal) != 0)
        return REPLICA_E_MALFORMED;
    ret_entry->id = proposal.id;
    ret_entry->bytes = (uint8_t *)(uintptr_t)bytes; /* borrowed from the message */
    ret_entry->size = size;
    return 0;
}

/* Reads through the whole message, so that a bad one changes nothing. ret_entries: the reader at its first
 * entry. */
static int read_append(const struct gossip_message *message, struct append *ret_append,
                       struct replica_pack_reader *ret_entries)
{
    struct control_input input;
    struct append append;
    if (control_open(message, 5, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &append.term);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &append.prev);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &append.prev_term);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &append.commit);
    replica_pack_read_array(&input.reader, CONTROL_ENTRIES_MAX, &append.entries_n);
    *ret_entries = input.reader;
    for (size_t i = 0; i < append.entries_n; i++) {
        struct control_entry entry;
        if (read_entry(&input.reader, &entry) != 0 || entry.term > append.term)
            return REPLICA_E_MALFORMED;
    }
    *ret_append = append;
    return control_close(&input);
}

static void take_entries(struct gossip_control *control, const struct append *append,
                         struct replica_pack_reader *entries, struct gossip_update *update)
{
    for (uint64_t index = append->prev + 1; index <= append->prev + append->entries_n; index++) {
        struct control_entry entry;
        uint64_t term = 0;
        if (read_entry(entries, &entry) != 0)
            return;
        if (index <= control->commit) /* the same, as everything that is committed */
            continue;
        if (control_log_term(&control->log, index, &term)) {
            if (term == entry.term)
                continue;
            control_log_cut_from(control, index, update);
        }
        control_log_append(control, entry.term, &entry.id, entry.bytes, entry.size, update);
    }
}

static int on_append(struct gossip_control *control, const struct gossip_message *message,
                     struct gossip_update *update)
{
    struct replica_pack_reader entries;
    struct append append;
    uint64_t term = 0, last;
    if (read_append(message, &append, &entries) != 0)
        return REPLICA_E_MALFORMED;
    if (append.term < control->term) {
        refuse(control, &message->from->store, append.prev, append.prev + 1, update);
        return 0;
    }
    if (append.term == control->term && control->role == CONTROL_LEADING)
        return REPLICA_E_MALFORMED; /* a term has one leader */
    control_raft_follow(control, append.term, &message->from->store, update);
    control_raft_heard(control);
    if (append.prev > control->commit &&
        (!control_log_term(&control->log, append.prev, &term) || term != append.prev_term)) {
        refuse(control, &message->from->store, append.prev, back_off(control, append.prev), update);
        return 0;
    }
    take_entries(control, &append, &entries, update);
    last = append.prev + append.entries_n; /* beyond it the log may still differ from the leader's */
    control_replicate_reply(control, &message->from->store, last, update);
    if (append.commit > control->commit && last > control->commit) {
        control->commit = append.commit < last ? append.commit : last;
        control_replicate_apply(control, update);
    }
    return 0;
}

static int on_appended(struct gossip_control *control, const struct gossip_message *message,
                       struct gossip_update *update)
{
    size_t from = (size_t)control_member_index(control, &message->from->store);
    struct control_peer *peer = &control->peers[from];
    struct control_input input;
    uint64_t term, index, hint;
    bool taken;
    if (control_open(message, 4, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &term);
    replica_pack_read_bool(&input.reader, &taken);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &index);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &hint);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    if (term > control->term)
        control_raft_follow(control, term, NULL, update);
    if (control->role != CONTROL_LEADING || term != control->term)
        return 0;
    if (taken && index > control_log_last(&control->log))
        return REPLICA_E_MALFORMED;
    peer->heard_ms = control->now_ms;
    if (taken && index > peer->match) {
        peer->match = index;
        peer->next = index + 1;
        peer->waiting = false;
        peer->snapshot_index = 0;
    } else if (!taken && index + 1 == peer->next &&
               index > peer->match) { /* else a late word about an earlier try */
        peer->next = hint > peer->match && hint < peer->next ? hint : peer->match + 1;
        peer->waiting = false;
    }
    control_replicate_commit(control, update);
    if (control->role == CONTROL_LEADING)
        control_replicate_to(control, from, update);
    return 0;
}

int control_replicate_message(struct gossip_control *control, const struct gossip_message *message,
                              struct gossip_update *update)
{
    if (!control_from_member(control, message))
        return REPLICA_E_DENIED;
    return message->type == CONTROL_APPEND ? on_append(control, message, update)
                                           : on_appended(control, message, update);
}
