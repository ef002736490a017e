/* Reload, and opening a view, which begins with one. design.md §5.
 *
 * A round asks all voters of the configuration; with the answers of a majority (of equal epoch and phase) the join of their held vectors is
 * what this reload must show. What of it is not yet held by a majority is driven there by asking again with the join as target; when a
 * holder vanishes first, the retry starts a new round with a new join. Then the deltas are pulled and applied, and the snapshot moves. */
#include "quorum/quorum.h"

#include "replica/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MS_MAX 4000

/* Of what this reload must show: as much as some voter has said that it holds. A token may name anything. */
static void clip_to_claims(const struct reload *reload, const struct gossip_configuration *configuration,
                           struct replica_vector *ret_target)
{
    ret_target->n = 0;
    for (size_t a = 0; a < reload->join.n; a++) {
        const struct replica_actor *actor = &reload->join.entries[a].actor;
        uint64_t seq = 0;
        for (size_t i = 0; i < configuration->voters_n; i++) {
            uint64_t held = reload->heard[i] ? replica_vector_get(&reload->held[i], actor) : 0;
            seq = held > seq ? held : seq;
        }
        if (seq > reload->join.entries[a].seq)
            seq = reload->join.entries[a].seq;
        if (seq > 0)
            (void)replica_vector_set(ret_target, actor, seq);
    }
}

static void send_ask(struct gossip_quorum *quorum, const struct reload *reload,
                     const struct gossip_configuration *configuration, struct gossip_update *update)
{
    struct replica_buffer payload;
    struct replica_vector target = {.n = 0};
    struct replica_id holder;
    memset(&holder, 0, sizeof holder);
    for (size_t i = 0; i < configuration->voters_n && reload->joined; i++)
        if (reload->answered[i] && replica_vector_covers(&reload->held[i], &reload->join))
            holder = configuration->voters[i];
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &reload->volume);
    replica_pack_uint(&payload, reload->round);
    if (reload->joined)
        clip_to_claims(reload, configuration, &target);
    replica_vector_pack(&payload, &target);
    replica_pack_id(&payload, &holder);
    for (size_t i = 0; i < configuration->voters_n; i++)
        gossip_update_send(update, &configuration->voters[i], GOSSIP_ROOM_QUORUM, QUORUM_ASK, &payload,
                           false);
    (void)quorum;
    replica_buffer_close(&payload);
}

static int start_round(struct gossip_quorum *quorum, struct reload *reload, struct gossip_time time,
                       struct gossip_update *update)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &reload->volume);
    if (volume == NULL)
        return 0;
    reload->round = ++quorum->rounds;
    memset(reload->answered, 0, sizeof reload->answered);
    memset(reload->refused, 0, sizeof reload->refused);
    if (reload->mode == GOSSIP_RELOAD_QUORUM)
        reload->joined = false;
    reload->retry_at_ms = time.now_ms + reload->retry_ms;
    send_ask(quorum, reload, &volume->configuration, update);
    gossip_update_wake(update, reload->retry_at_ms);
    return 0;
}

/* Waiting until what the reload must show is applied here. */
static int try_finish(struct gossip_quorum *quorum, struct reload *reload, struct gossip_time time,
                      struct gossip_update *update)
{
    struct attached *attached = attached_find(quorum->table, &reload->volume);
    const struct replica_volume_state *state;
    if (attached == NULL || reload->phase != RELOAD_APPLYING)
        return 0;
    state = replica_volume_state(attached->volume);
    if (state->applied_seq != reload->progress_seq) {
        reload->progress_seq = state->applied_seq;
        reload->progress_at_ms = time.now_ms;
    }
    if (!replica_vector_covers(&state->applied, &reload->join))
        return 0;
    return reload->open ? reading_open(quorum, reload, attached, update)
                        : reading_reload(quorum, reload, attached, update);
}

static int start_applying(struct gossip_quorum *quorum, struct reload *reload,
                          const struct gossip_configuration *configuration, struct gossip_time time,
                          struct gossip_update *update)
{
    struct attached *attached = attached_find(quorum->table, &reload->volume);
    struct replica_id holder;
    bool rose;
    int rv = replica_volume_commit(attached->volume, &reload->join, &update->log, &rose);
    if (rv == 0)
        rv = replica_vector_join(&attached->target, &reload->join);
    if (rv != 0)
        return rv;
    memset(&holder, 0, sizeof holder);
    for (size_t i = 0; i < configuration->voters_n; i++)
        if (reload->answered[i] && replica_vector_covers(&reload->held[i], &reload->join))
            holder = configuration->voters[i];
    if (rose)
        gossip_update_note(update, GOSSIP_NOTE_COMMITTED, &reload->volume, NULL, NULL);
    gossip_update_note(update, GOSSIP_NOTE_PULL, &reload->volume, &holder, NULL);
    reload->phase = RELOAD_APPLYING;
    reload->progress_at_ms = time.now_ms;
    return try_finish(quorum, reload, time, update);
}

/* Answers */

static int weigh(struct gossip_quorum *quorum, struct reload *reload,
                 const struct gossip_configuration *configuration, struct gossip_time time,
                 struct gossip_update *update)
{
    size_t answered = 0, covering = 0;
    if (reload->phase != RELOAD_ASKING)
        return 0;
    for (size_t i = 0; i < configuration->voters_n; i++)
        answered += reload->answered[i];
    if (answered < quorum_majority(configuration))
        return 0;
    if (!reload->joined) {
        reload->join.n = 0;
        for (size_t i = 0; i < configuration->voters_n; i++)
            if (reload->answered[i] && replica_vector_join(&reload->join, &reload->held[i]) != 0)
                return REPLICA_E_MALFORMED;
        reload->joined = true;
        reload->asked_again = false;
    }
    /* Held by a majority dot by dot is enough: acks are cumulative per actor. */
    for (size_t a = 0; a < reload->join.n; a++) {
        covering = 0;
        for (size_t i = 0; i < configuration->voters_n; i++)
            covering +=
                reload->answered[i] && replica_vector_get(&reload->held[i], &reload->join.entries[a].actor) >=
                                           reload->join.entries[a].seq;
        if (covering < quorum_majority(configuration)) {
            if (!reload->asked_again) {
                reload->asked_again = true;
                send_ask(quorum, reload, configuration, update);
            }
            return 0;
        }
    }
    return start_applying(quorum, reload, configuration, time, update);
}

int quorum_reader_message(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                          struct gossip_update *update)
{
    const struct replica_id *from = &event->message.from->store;
    const struct gossip_volume *volume;
    struct replica_pack_reader reader;
    struct replica_vector held, committed;
    struct attached *attached;
    struct replica_id id;
    uint64_t round, epoch, phase;
    size_t n;
    int voter, rv;
    replica_pack_reader_init(&reader, event->message.payload, event->message.size);
    replica_pack_read_array(&reader, 32, &n);
    replica_pack_read_id(&reader, &id);
    replica_pack_read_uint(&reader, UINT64_MAX, &round);
    replica_pack_read_uint(&reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(&reader, UINT32_MAX, &phase);
    replica_vector_read(&reader, &held);
    replica_vector_read(&reader, &committed);
    volume = quorum_volume(quorum, &id);
    attached = attached_find(quorum->table, &id);
    if (reader.failed || n < 6)
        return REPLICA_E_MALFORMED;
    if (volume == NULL || attached == NULL)
        return 0;
    voter = quorum_voter_index(&volume->configuration, from);
    if (voter < 0)
        return REPLICA_E_DENIED;
    for (size_t i = 0; i < held.n; i++) /* only voters mint */
        if (quorum_voter_index(&volume->configuration, &held.entries[i].actor.store) < 0)
            return REPLICA_E_MALFORMED;
    rv = quorum_note_held(quorum, attached, from, epoch, (enum gossip_phase)phase, &held, update);
    if (rv != 0 || epoch != volume->configuration.epoch || phase != (uint64_t)volume->configuration.phase)
        return rv;
    for (size_t i = quorum->reloads_n; i > 0; i--) {
        struct reload *reload = quorum->reloads[i - 1];
        if (reload->phase != RELOAD_ASKING || reload->round != round ||
            !replica_id_equal(&reload->volume, &id))
            continue;
        /* The same answer in every round is no progress: one voter alone must not keep a reload waiting for ever. */
        if (!reload->heard[voter] || !replica_vector_covers(&reload->held[voter], &held))
            reload->progress_at_ms = event->time.now_ms;
        reload->held[voter] = held;
        reload->answered[voter] = reload->heard[voter] = true;
        rv = weigh(quorum, reload, &volume->configuration, event->time, update);
        if (rv != 0)
            return rv;
    }
    return 0;
}

/* One voter alone refuses nothing: only so many that those left are no majority. */
static void refuse(struct gossip_quorum *quorum, struct reload *reload, const struct gossip_volume *volume,
                   size_t voter, struct gossip_update *update)
{
    const struct gossip_configuration *configuration = &volume->configuration;
    char reason[96 + GOSSIP_VOLUME_NAME_MAX];
    size_t refused = 0;
    reload->refused[voter] = true;
    for (size_t i = 0; i < configuration->voters_n; i++)
        refused += reload->refused[i];
    if (refused <= configuration->voters_n - quorum_majority(configuration))
        return;
    snprintf(reason, sizeof reason, "this node's credential may not read the volume \"%s\", its voters say",
             volume->name);
    reading_fail(quorum, reload, REPLICA_E_DENIED, reason, update);
}

int quorum_reader_refused(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                          struct gossip_update *update)
{
    const struct gossip_volume *volume;
    struct replica_pack_reader reader;
    struct replica_id id;
    uint64_t round;
    int64_t code;
    size_t n;
    int voter;
    replica_pack_reader_init(&reader, event->message.payload, event->message.size);
    replica_pack_read_array(&reader, 32, &n);
    replica_pack_read_id(&reader, &id);
    replica_pack_read_uint(&reader, UINT64_MAX, &round);
    replica_pack_read_int(&reader, &code);
    if (reader.failed || n < 3 || code != REPLICA_E_DENIED)
        return REPLICA_E_MALFORMED;
    volume = quorum_volume(quorum, &id);
    voter = volume == NULL ? -1 : quorum_voter_index(&volume->configuration, &event->message.from->store);
    if (voter < 0)
        return volume == NULL ? 0 : REPLICA_E_DENIED;
    for (size_t i = quorum->reloads_n; i > 0; i--) {
        struct reload *reload = quorum->reloads[i - 1];
        if (reload->phase == RELOAD_ASKING && reload->round == round &&
            replica_id_equal(&reload->volume, &id))
            refuse(quorum, reload, volume, (size_t)voter, update);
    }
    return 0;
}

/* Requests and time */

static int request(struct gossip_quorum *quorum, const struct gossip_quorum_event *event, bool open,
                   struct gossip_update *update)
{
    struct replica_view *view = open ? NULL : replica_view_find(quorum->views, &event->view);
    const struct gossip_volume *entry;
    struct attached *attached;
    struct reload *reload;
    int rv;
    if (!open && view == NULL) {
        quorum_answer_code(update, event->token, REPLICA_E_NOTFOUND, "no such view", false);
        return 0;
    }
    entry = quorum_volume(quorum, open ? &event->options->volume : &replica_view_info(view)->options.volume);
    if (entry == NULL || (entry->deleted && event->mode != GOSSIP_RELOAD_LOCAL)) {
        quorum_answer_code(update, event->token, entry == NULL ? REPLICA_E_NOTFOUND : REPLICA_E_DELETED,
                           entry == NULL ? "no such volume"
                                         : "the volume was deleted; what the view shows stays readable",
                           false);
        return 0;
    }
    if (!quorum_may(quorum, &entry->id, open && !(event->options->flags & REPLICA_VIEW_READ_ONLY),
                    event->token, update))
        return 0;
    if (quorum->reloads_n == RELOADS_MAX) {
        quorum_answer_code(update, event->token, REPLICA_E_BUSY, "too many reloads at once", false);
        return 0;
    }
    reload = calloc(1, sizeof *reload);
    if (reload == NULL)
        return REPLICA_E_NOMEM;
    reload->token = event->token;
    reload->open = open;
    if (open)
        reload->options = *event->options;
    reload->view = event->view;
    reload->volume = open ? event->options->volume : replica_view_info(view)->options.volume;
    reload->mode = event->mode;
    reload->timeout_ms = event->timeout_ms > 0 ? event->timeout_ms : quorum->options.deadline_ms;
    reload->retry_ms = quorum->options.retry_ms;
    reload->progress_at_ms = event->time.now_ms;
    quorum->reloads[quorum->reloads_n++] = reload;
    rv = attached_open(quorum->table, &reload->volume, &update->log, &attached);
    if (rv != 0) {
        reading_fail(quorum, reload, rv, replica_error_text(rv), update);
        return rv == REPLICA_E_NOSPACE ? 0 : rv;
    }
    if (reload->mode == GOSSIP_RELOAD_LOCAL) {
        reload->phase = RELOAD_APPLYING;
        return try_finish(quorum, reload, event->time, update);
    }
    if (reload->mode == GOSSIP_RELOAD_AT_LEAST) {
        if (!replica_id_equal(&event->at_least->volume, &reload->volume)) {
            reading_fail(quorum, reload, REPLICA_E_INVALID, "the token belongs to another volume", update);
            return 0;
        }
        (void)replica_vector_set(&reload->join, &event->at_least->dot.actor, event->at_least->dot.seq);
        reload->joined = true;
    }
    return start_round(quorum, reload, event->time, update);
}

/* What had been committed when its token was given is held by one of any majority. */
static bool is_unheard_of(const struct gossip_quorum *quorum, const struct reload *reload)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &reload->volume);
    struct replica_vector claimed;
    size_t heard = 0;
    if (reload->mode != GOSSIP_RELOAD_AT_LEAST || reload->phase != RELOAD_ASKING || volume == NULL)
        return false;
    for (size_t i = 0; i < volume->configuration.voters_n; i++)
        heard += reload->heard[i];
    clip_to_claims(reload, &volume->configuration, &claimed);
    return heard >= quorum_majority(&volume->configuration) &&
           !replica_vector_covers(&claimed, &reload->join);
}

static void expire(struct gossip_quorum *quorum, struct reload *reload, struct gossip_update *update)
{
    if (is_unheard_of(quorum, reload))
        reading_fail(quorum, reload, REPLICA_E_NOTFOUND,
                     "no voter that answers holds the commit that the token names; the old snapshot stays",
                     update);
    else
        reading_fail(quorum, reload, REPLICA_E_UNAVAILABLE,
                     "no majority of the volume's voters answered in time; the old snapshot stays", update);
}

static int check_time(struct gossip_quorum *quorum, struct reload *reload, struct gossip_time time,
                      struct gossip_update *update)
{
    if (time.now_ms >= reload->progress_at_ms + reload->timeout_ms) {
        expire(quorum, reload, update);
        return 0;
    }
    gossip_update_wake(update, reload->progress_at_ms + reload->timeout_ms);
    if (reload->phase == RELOAD_APPLYING)
        return try_finish(quorum, reload, time, update);
    if (time.now_ms < reload->retry_at_ms) {
        gossip_update_wake(update, reload->retry_at_ms);
        return 0;
    }
    reload->retry_ms = reload->retry_ms * 2 > RETRY_MS_MAX ? RETRY_MS_MAX : reload->retry_ms * 2;
    return start_round(quorum, reload, time, update);
}

int quorum_reader_event(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                        struct gossip_update *update)
{
    int rv = 0;
    if (event->kind == GOSSIP_QUORUM_EVENT_RELOAD || event->kind == GOSSIP_QUORUM_EVENT_OPEN)
        return request(quorum, event, event->kind == GOSSIP_QUORUM_EVENT_OPEN, update);
    for (size_t i = quorum->reloads_n; i > 0 && rv == 0; i--) {
        struct reload *reload = quorum->reloads[i - 1];
        if (event->kind == GOSSIP_QUORUM_EVENT_CANCEL && reload->token == event->token)
            reading_remove(quorum, reload);
        else if (event->kind == GOSSIP_QUORUM_EVENT_TIMER)
            rv = check_time(quorum, reload, event->time, update);
        else if (event->kind == GOSSIP_QUORUM_EVENT_APPLIED &&
                 replica_id_equal(&reload->volume, &event->volume))
            rv = try_finish(quorum, reload, event->time, update);
    }
    return rv;
}
