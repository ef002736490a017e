/* Prepare: a proposal is kept, its closure brought here, pinned and counted against the limits; then the writer hears that this voter is ready. */
#include "quorum/quorum_voting.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define REPORT_MS 1000 /* between words to the writer about a closure that is not here yet */

/* What a writer hears of its proposal. */
struct verdict {
    enum quorum_verdict verdict;
    int code;
    struct replica_dot dot;    /* KNOWN */
    uint64_t missing, arrived; /* PENDING: contents, bytes */
};

static void send_prepared(const struct attached *attached, const struct gossip_configuration *configuration,
                          const struct replica_id *commit, const struct replica_id *writer,
                          struct verdict verdict, struct gossip_time time, struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 11);
    replica_pack_id(&payload, &attached->id);
    replica_pack_id(&payload, commit);
    replica_pack_uint(&payload, configuration->epoch);
    replica_pack_uint(&payload, configuration->phase);
    replica_pack_uint(&payload, verdict.verdict);
    replica_pack_int(&payload, verdict.code);
    replica_pack_uint(&payload, replica_volume_state(attached->volume)->hlc_high);
    replica_pack_uint(&payload, time.wall_ms);
    replica_pack_dot(&payload, &verdict.dot);
    replica_pack_uint(&payload, verdict.missing);
    replica_pack_uint(&payload, verdict.arrived);
    gossip_update_send(update, writer, GOSSIP_ROOM_QUORUM, QUORUM_PREPARED, &payload,
                       verdict.verdict == QUORUM_VERDICT_READY || verdict.verdict == QUORUM_VERDICT_KNOWN);
    replica_buffer_close(&payload);
}

/* Closures */

struct want_context {
    struct gossip_quorum *quorum;
    struct attached *attached;
    struct replica_id commit, source;
    struct gossip_update *update;
};

static void want(void *context, const struct replica_content_id *content, bool missing)
{
    struct want_context *c = context;
    if (content->length == 0)
        return;
    replica_volume_pin(c->attached->volume, &c->commit, content, &c->update->log);
    if (missing)
        gossip_update_note(c->update, GOSSIP_NOTE_WANT, &c->attached->id, &c->source, content);
}

int voting_scan(struct gossip_quorum *quorum, struct attached *attached, struct replica_closure *closure,
                const struct replica_id *source, struct gossip_update *update)
{
    struct want_context context = {.quorum = quorum,
                                   .attached = attached,
                                   .commit = closure->delta.commit,
                                   .source = *source,
                                   .update = update};
    int rv;
    if (closure->scanned || replica_closure_is_waiting(closure))
        return 0; /* costs nothing: many may wait */
    rv = replica_closure_scan(closure, quorum->table->contents, SCAN_OPS_MAX, want, &context);
    update->reads += SCAN_OPS_MAX / 4;
    return rv;
}

bool voting_is_prepared(const struct attached_voting *voting, uint64_t epoch, const struct replica_id *commit)
{
    if (voting->prepared_epoch != epoch)
        return false;
    for (size_t i = 0; i < voting->prepared_n; i++) { /* newest first: that is what is asked for */
        size_t at = (voting->prepared_next + PREPARED_MAX - 1 - i) % PREPARED_MAX;
        if (replica_id_equal(&voting->prepared[at], commit))
            return true;
    }
    return false;
}

static void remember_prepared(struct attached_voting *voting, uint64_t epoch, const struct replica_id *commit)
{
    if (voting->prepared_epoch != epoch)
        voting->prepared_n = voting->prepared_next = 0;
    voting->prepared_epoch = epoch;
    if (voting_is_prepared(voting, epoch, commit))
        return;
    voting->prepared[voting->prepared_next] = *commit;
    voting->prepared_next = (voting->prepared_next + 1) % PREPARED_MAX;
    if (voting->prepared_n < PREPARED_MAX)
        voting->prepared_n++;
}

void voting_close_prepare(struct prepare *prepare)
{
    replica_closure_close(&prepare->closure);
    free(prepare->limit);
}

static struct prepare *find_prepare(struct attached_voting *voting, const struct replica_id *commit)
{
    for (size_t i = 0; i < voting->prepares_n; i++)
        if (replica_id_equal(&voting->prepares[i].commit, commit))
            return &voting->prepares[i];
    return NULL;
}

static void forget_prepared(struct attached_voting *voting, const struct replica_id *commit)
{
    for (size_t i = 0; i < voting->prepared_n; i++)
        if (replica_id_equal(&voting->prepared[i], commit))
            memset(&voting->prepared[i], 0, sizeof voting->prepared[i]);
}

struct lose_context {
    struct attached_voting *voting;
    const struct replica_content_id *content;
    struct gossip_update *update;
};

static int lose_for(void *context, const struct replica_id *commit)
{
    struct lose_context *c = context;
    struct prepare *prepare = find_prepare(c->voting, commit);
    forget_prepared(c->voting, commit);
    if (prepare != NULL)
        replica_closure_went(&prepare->closure, c->content);
    for (size_t i = 0; i < c->voting->aheads_n; i++)
        if (replica_id_equal(&c->voting->aheads[i].commit, commit))
            replica_closure_went(&c->voting->aheads[i].closure, c->content);
    c->update->reads++;
    return 0;
}

int voting_lose(struct attached *attached, const struct replica_content_id *content,
                struct gossip_update *update)
{
    struct lose_context context = {.voting = attached->voting, .content = content, .update = update};
    update->again = true; /* they are scanned again */
    return replica_volume_pinned_by(attached->volume, content, lose_for, &context);
}

void voting_take_prepare(struct attached_voting *voting, const struct replica_id *commit,
                         struct replica_closure *ret_closure)
{
    struct prepare *prepare = find_prepare(voting, commit);
    forget_prepared(voting, commit);
    if (prepare == NULL)
        return;
    *ret_closure = prepare->closure;
    free(prepare->limit);
    *prepare = voting->prepares[--voting->prepares_n];
}

void voting_tell_writer(struct attached *attached, const struct gossip_volume *volume,
                        const struct replica_id *commit, const struct replica_id *writer,
                        struct gossip_time time, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    bool prepared = voting_is_prepared(voting, volume->configuration.epoch, commit);
    if (find_prepare(voting, commit) == NULL)
        send_prepared(attached, &volume->configuration, commit, writer,
                      (struct verdict){.verdict = prepared ? QUORUM_VERDICT_READY : QUORUM_VERDICT_STALE},
                      time, update);
}

static int add_prepare(struct attached_voting *voting, const struct replica_delta *delta,
                       const uint8_t *record, size_t n, struct prepare **ret_prepare)
{
    struct prepare *prepare;
    int rv;
    if (voting->prepares_n == PREPARES_MAX)
        return REPLICA_E_BUSY;
    if (voting->prepares_n == voting->prepares_capacity) {
        size_t capacity = voting->prepares_capacity == 0 ? 16 : voting->prepares_capacity * 2;
        prepare = realloc(voting->prepares, capacity * sizeof *prepare);
        if (prepare == NULL)
            return REPLICA_E_NOMEM;
        voting->prepares = prepare;
        voting->prepares_capacity = capacity;
    }
    prepare = &voting->prepares[voting->prepares_n];
    memset(prepare, 0, sizeof *prepare);
    rv = replica_closure_init(&prepare->closure, record, n);
    if (rv != 0)
        return rv;
    prepare->commit = delta->commit;
    prepare->writer = delta->node;
    voting->prepares_n++;
    *ret_prepare = prepare;
    return 0;
}

static void drop_prepare(struct attached_voting *voting, size_t index)
{
    voting_close_prepare(&voting->prepares[index]);
    voting->prepares[index] = voting->prepares[--voting->prepares_n];
}

static struct replica_limits limits_of(const struct gossip_volume *volume)
{
    return volume->version == 1 ? (struct replica_limits){.inodes_max = GOSSIP_VERSION1_INODES_MAX}
                                : (struct replica_limits){.children_max = GOSSIP_VERSION2_CHILDREN_MAX};
}

/* What can be said at once; whether it would be too many files is found out from the op list. */
static int refusal(const struct gossip_volume *volume, const struct replica_delta *delta)
{
    if (volume->deleted)
        return REPLICA_E_DELETED;
    if (delta->ops == NULL && delta->ops_content.length > REPLICA_OPS_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    return 0;
}

static int start_limit_check(const struct attached *attached, const struct gossip_volume *volume,
                             struct prepare *prepare)
{
    struct replica_limits limits = limits_of(volume);
    if (!replica_limit_may_exceed(&limits, attached->volume, prepare->closure.delta.op_count))
        return 0;
    prepare->limit = calloc(1, sizeof *prepare->limit);
    return prepare->limit == NULL ? REPLICA_E_NOMEM : 0;
}

/* Of a closure that is filled, so that the op list is here. */
static int check_limit(struct gossip_quorum *quorum, const struct attached *attached,
                       const struct gossip_volume *volume, struct prepare *prepare,
                       struct gossip_update *update)
{
    struct replica_limits limits = limits_of(volume);
    const uint8_t *list;
    size_t n;
    int rv;
    if (prepare->limit == NULL)
        return 0;
    rv = replica_closure_list(&prepare->closure, quorum->table->contents, &list, &n);
    if (rv == 0)
        rv = replica_limit_check(prepare->limit, &limits, attached->volume, list, n, SCAN_OPS_MAX,
                                 &update->reads);
    if (rv != REPLICA_E_AGAIN)
        replica_closure_let_go(&prepare->closure);
    if (rv == 0) {
        free(prepare->limit);
        prepare->limit = NULL;
    }
    return rv;
}

static void answer(const struct attached *attached, const struct gossip_volume *volume,
                   const struct prepare *prepare, struct verdict verdict, struct gossip_time time,
                   struct gossip_update *update)
{
    send_prepared(attached, &volume->configuration, &prepare->commit, &prepare->writer, verdict, time,
                  update);
}

/* Scans on; answers the writer when the closure is here, or about once a second that it is not yet. */
static int advance_prepare(struct gossip_quorum *quorum, struct attached *attached,
                           const struct gossip_volume *volume, struct prepare *prepare,
                           struct gossip_time time, struct gossip_update *update)
{
    int rv = voting_scan(quorum, attached, &prepare->closure, &prepare->writer, update);
    if (rv == 0 && replica_closure_is_filled(&prepare->closure))
        rv = check_limit(quorum, attached, volume, prepare, update);
    if (rv == REPLICA_E_AGAIN) {
        attached->voting->busy = true;
        update->again = true;
        return 0;
    }
    if (rv == REPLICA_E_MALFORMED || rv == REPLICA_E_TOOBIG || rv == REPLICA_E_NOSPACE) {
        answer(attached, volume, prepare, (struct verdict){.verdict = QUORUM_VERDICT_REFUSED, .code = rv},
               time, update);
        prepare->done = true;
        return 0;
    }
    if (rv != 0)
        return rv;
    if (replica_closure_is_filled(&prepare->closure)) {
        remember_prepared(attached->voting, volume->configuration.epoch, &prepare->commit);
        answer(attached, volume, prepare, (struct verdict){.verdict = QUORUM_VERDICT_READY}, time, update);
        prepare->done = true;
    } else if (time.now_ms >= prepare->report_at_ms && prepare->no_room) {
        answer(attached, volume, prepare,
               (struct verdict){.verdict = QUORUM_VERDICT_REFUSED, .code = REPLICA_E_NOSPACE}, time, update);
        prepare->report_at_ms = time.now_ms + REPORT_MS;
    } else if (time.now_ms >= prepare->report_at_ms) {
        answer(attached, volume, prepare,
               (struct verdict){.verdict = QUORUM_VERDICT_PENDING,
                                .missing = prepare->closure.missing_n,
                                .arrived = prepare->arrived},
               time, update);
        prepare->report_at_ms = time.now_ms + REPORT_MS;
    }
    return 0;
}

static void sweep_prepares(struct attached_voting *voting)
{
    for (size_t i = voting->prepares_n; i > 0; i--)
        if (voting->prepares[i - 1].done)
            drop_prepare(voting, i - 1);
}

static int ingest_carried(struct gossip_quorum *quorum, const struct replica_delta *delta)
{
    for (size_t i = 0; i < delta->carried_n; i++) {
        struct replica_content_id id;
        int rv;
        if (replica_contents_state(quorum->table->contents, &delta->carried[i].id) >= REPLICA_CONTENTS_FILLED)
            continue;
        rv = replica_contents_ingest(quorum->table->contents, delta->carried[i].data,
                                     (size_t)delta->carried[i].id.length, &id);
        if (rv != 0)
            return rv;
        if (!replica_content_id_equal(&id, &delta->carried[i].id))
            return REPLICA_E_MISMATCH;
    }
    return 0;
}

static int start_prepare(struct gossip_quorum *quorum, struct attached *attached,
                         const struct gossip_volume *volume, const struct replica_delta *delta,
                         const uint8_t *record, size_t n, struct gossip_time time,
                         struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    struct prepare *prepare = find_prepare(voting, &delta->commit);
    int rv = 0;
    if (prepare == NULL) {
        rv = refusal(volume, delta);
        if (rv == 0)
            rv = voting_keep(attached, delta, record, n, time, update);
        if (rv == 0)
            rv = ingest_carried(quorum, delta);
        if (rv == 0)
            rv = add_prepare(voting, delta, record, n, &prepare);
        if (rv == 0)
            rv = start_limit_check(attached, volume, prepare);
    }
    if (rv == REPLICA_E_IO || rv == REPLICA_E_NOMEM || rv == REPLICA_E_CORRUPT)
        return rv;
    if (rv == REPLICA_E_STALE)
        return 0;
    if (rv != 0) {
        struct verdict verdict = {
            .verdict = rv == REPLICA_E_BUSY ? QUORUM_VERDICT_PENDING : QUORUM_VERDICT_REFUSED, .code = rv};
        send_prepared(attached, &volume->configuration, &delta->commit, &delta->node, verdict, time, update);
        return 0;
    }
    prepare->report_at_ms = 0;
    rv = advance_prepare(quorum, attached, volume, prepare, time, update);
    sweep_prepares(voting);
    return rv;
}

int voting_receive_prepare(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                           struct replica_pack_reader *reader, struct attached *attached,
                           const struct gossip_volume *volume, struct gossip_update *update)
{
    const struct gossip_configuration *configuration = &volume->configuration;
    const uint8_t *record;
    struct replica_delta delta;
    struct replica_dot dot;
    uint64_t epoch, phase;
    size_t n;
    int rv;
    replica_pack_read_uint(reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(reader, UINT32_MAX, &phase);
    replica_pack_read_bin(reader, REPLICA_DELTA_SIZE_MAX, &record, &n);
    if (reader->failed || replica_delta_decode(record, n, &delta) != 0 ||
        !replica_id_equal(&delta.volume, &attached->id) ||
        !replica_id_equal(&delta.node, &event->message.from->store) || delta.dot.seq != 0)
        return REPLICA_E_MALFORMED;
    if (!gossip_principal_may(event->message.from, volume->name, true)) {
        send_prepared(attached, configuration, &delta.commit, &delta.node,
                      (struct verdict){.verdict = QUORUM_VERDICT_REFUSED, .code = REPLICA_E_DENIED},
                      event->time, update);
        return 0;
    }
    if (epoch != configuration->epoch || phase != configuration->phase) {
        send_prepared(attached, configuration, &delta.commit, &delta.node,
                      (struct verdict){.verdict = QUORUM_VERDICT_STALE}, event->time, update);
        return 0;
    }
    rv = replica_volume_find(attached->volume, &update->log, &delta.commit,
                             &replica_volume_state(attached->volume)->held, &dot);
    if (rv == 0) {
        send_prepared(attached, configuration, &delta.commit, &delta.node,
                      (struct verdict){.verdict = QUORUM_VERDICT_KNOWN, .dot = dot}, event->time, update);
        return 0;
    }
    if (rv != REPLICA_E_NOTFOUND)
        return rv;
    return start_prepare(quorum, attached, volume, &delta, record, n, event->time, update);
}

/* Scans of prepares go on; reports are due. */
int voting_continue_prepares(struct gossip_quorum *quorum, struct attached *attached,
                             const struct gossip_volume *volume, struct gossip_time time,
                             struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    for (size_t i = 0; i < voting->prepares_n; i++) {
        struct prepare *prepare = &voting->prepares[i];
        int rv;
        if (update->reads >= GOSSIP_STEP_READS_MAX) {
            voting->busy = true;
            update->again = true;
            break;
        }
        if (!prepare->done &&
            (!replica_closure_is_waiting(&prepare->closure) || time.now_ms >= prepare->report_at_ms)) {
            rv = advance_prepare(quorum, attached, volume, prepare, time, update);
            if (rv != 0)
                return rv;
        }
        if (!prepare->done)
            gossip_update_wake(update, prepare->report_at_ms);
    }
    sweep_prepares(voting);
    return 0;
}
