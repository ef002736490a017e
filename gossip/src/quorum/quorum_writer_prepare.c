/* A commit's round of prepares: voters are asked to hold the closure, and what they answer is weighed. */
#include "quorum/quorum_writing.h"

#include "replica/error.h"

#include <stdio.h>
#include <string.h>

#define REASON_MAX     512
#define PROGRESS_SHARE 2 /* how often the bytes of a commit may come to one voter and still be progress */

void writing_send_prepares(struct commit *commit, const struct gossip_configuration *configuration,
                           struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 4);
    replica_pack_id(&payload, &commit->volume);
    replica_pack_uint(&payload, commit->epoch);
    replica_pack_uint(&payload, commit->config_phase);
    replica_pack_bin(&payload, commit->proposal.data, commit->proposal.size);
    for (size_t i = 0; i < configuration->voters_n; i++)
        if (!commit->answers[i].ready)
            gossip_update_send(update, &configuration->voters[i], GOSSIP_ROOM_QUORUM, QUORUM_PREPARE,
                               &payload, false);
    replica_buffer_close(&payload);
}

void writing_send_abandon(const struct replica_id *volume, const struct replica_id *commit,
                          const struct replica_id *voters, size_t n, struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 2);
    replica_pack_id(&payload, volume);
    replica_pack_id(&payload, commit);
    for (size_t i = 0; i < n; i++)
        gossip_update_send(update, &voters[i], GOSSIP_ROOM_QUORUM, QUORUM_ABANDON, &payload, false);
    replica_buffer_close(&payload);
}

int writing_start_preparing(struct gossip_quorum *quorum, struct commit *commit,
                            const struct gossip_quorum_event *event, struct gossip_update *update)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &commit->volume);
    if (volume == NULL || volume->deleted) {
        if (replica_stamp_is_zero(&commit->stamp))
            return writing_fail(quorum, commit, REPLICA_E_DELETED, "the volume was deleted", update);
        return 0; /* its fate stays open: it can be undeleted */
    }
    if (commit->epoch != volume->configuration.epoch || commit->config_phase != volume->configuration.phase ||
        commit->phase ==
            COMMIT_BUILDING) /* else it was here before, and one voter alone could send it back for ever */
        commit->progress_at_ms = event->time.now_ms;
    commit->phase = COMMIT_PREPARING;
    commit->epoch = volume->configuration.epoch;
    commit->config_phase = volume->configuration.phase;
    memset(commit->answers, 0, sizeof commit->answers);
    writing_send_prepares(commit, &volume->configuration, update);
    writing_set_retry(quorum, commit, event->time, update);
    return 0;
}

/* Answers of voters */

static uint64_t closure_bytes(const struct commit *commit)
{
    return commit->byte_count + commit->ops_content.length;
}

/* How many voters last named a code that stands in the way (definite: of those that refuse), and the one that most of
 * them name. */
static size_t count_codes(const struct commit *commit, const struct gossip_configuration *configuration,
                          bool definite, int *ret_code)
{
    size_t all = 0, most = 0;
    for (size_t i = 0; i < configuration->voters_n; i++) {
        const struct commit_answer *answer = &commit->answers[i];
        size_t same = 0;
        if (answer->code == 0 || (definite && !answer->refused))
            continue;
        all++;
        for (size_t k = 0; k < configuration->voters_n; k++)
            same += commit->answers[k].code == answer->code;
        if (same > most) {
            most = same;
            *ret_code = answer->code;
        }
    }
    return all;
}

static void describe(int code, const struct gossip_volume *volume, char ret_text[REASON_MAX])
{
    if (code == REPLICA_E_DENIED)
        snprintf(ret_text, REASON_MAX, "this node's credential may not write to the volume \"%s\"",
                 volume->name);
    else if (code == REPLICA_E_NOSPACE)
        snprintf(ret_text, REASON_MAX,
                 "no majority of the voters of \"%s\" has room for it; the drafts are kept", volume->name);
    else if (code == REPLICA_E_BUSY)
        snprintf(ret_text, REASON_MAX,
                 "the voters of \"%s\" keep too much that is not committed yet; the drafts are kept",
                 volume->name);
    else
        snprintf(ret_text, REASON_MAX, "the voters of \"%s\" refuse it: %s", volume->name,
                 replica_error_text(code));
}

static bool stands_in_the_way(size_t voters, const struct gossip_configuration *configuration)
{
    return voters > configuration->voters_n - quorum_majority(configuration);
}

static int weigh_answers(struct gossip_quorum *quorum, struct commit *commit,
                         const struct gossip_volume *volume, const struct gossip_quorum_event *event,
                         struct gossip_update *update)
{
    const struct gossip_configuration *configuration = &volume->configuration;
    size_t ready = 0;
    int code = 0;
    for (size_t i = 0; i < configuration->voters_n; i++)
        ready += commit->answers[i].ready;
    if (ready >= quorum_majority(configuration))
        return writing_mint(quorum, commit, configuration, event, update);
    if (replica_stamp_is_zero(&commit->stamp) &&
        stands_in_the_way(count_codes(commit, configuration, true, &code), configuration)) {
        char reason[REASON_MAX];
        describe(code, volume, reason);
        return writing_fail(quorum, commit, code, reason, update);
    }
    return 0;
}

int writing_expire(struct gossip_quorum *quorum, struct commit *commit, struct gossip_update *update)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &commit->volume);
    char reason[REASON_MAX];
    size_t voters = 0;
    int code = 0;
    if (volume != NULL)
        voters = count_codes(commit, &volume->configuration, false, &code);
    if (voters > 0 && stands_in_the_way(voters, &volume->configuration)) {
        describe(code, volume, reason);
        return writing_fail(quorum, commit, code, reason, update);
    }
    snprintf(
        reason, sizeof reason,
        "no majority of the volume's voters was ready in time; nothing happened and the drafts are kept%s%s",
        voters > 0 ? "; some say: " : "", voters > 0 ? replica_error_text(code) : "");
    return writing_fail(quorum, commit, REPLICA_E_UNAVAILABLE, reason, update);
}

/* Deadlines are about progress (design §5), and progress is bytes that arrive at voters. What a voter that restarted
 * gets again counts again, but in all no more than PROGRESS_SHARE times the whole. */
static bool rises(const struct commit *commit, struct commit_answer *answer, uint64_t arrived)
{
    uint64_t before = answer->arrived, limit = PROGRESS_SHARE * closure_bytes(commit);
    answer->arrived = arrived;
    if (arrived <= before || answer->progress >= limit)
        return false;
    answer->progress += arrived - before < limit ? arrived - before : limit;
    return true;
}

/* To callers, whose own patience is about progress too: bytes at voters, of what would be with all of them. */
static void tell_progress(const struct commit *commit, const struct gossip_configuration *configuration,
                          struct gossip_update *update)
{
    uint64_t size = closure_bytes(commit), bytes = 0;
    struct replica_buffer payload;
    for (size_t i = 0; i < configuration->voters_n; i++) {
        const struct commit_answer *answer = &commit->answers[i];
        bytes += answer->ready || answer->progress > size ? size : answer->progress;
    }
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 2);
    replica_pack_uint(&payload, bytes);
    replica_pack_uint(&payload, size * configuration->voters_n);
    for (size_t i = 0; i < commit->callers_n + commit->later_n; i++) {
        uint64_t token = i < commit->callers_n ? commit->callers[i] : commit->later[i - commit->callers_n];
        if (token != 0) /* else it has gone */
            gossip_update_progress(update, token, &payload);
    }
    replica_buffer_close(&payload);
}

int writing_receive_prepared(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                             struct replica_pack_reader *reader, struct commit *commit,
                             const struct gossip_volume *volume, struct gossip_update *update)
{
    struct commit_answer *answer;
    struct replica_dot dot;
    uint64_t epoch, phase, verdict, hlc, clock_ms, missing, arrived;
    int64_t code;
    int voter = quorum_voter_index(&volume->configuration, &event->message.from->store);
    replica_pack_read_uint(reader, UINT64_MAX, &epoch);
    replica_pack_read_uint(reader, UINT32_MAX, &phase);
    replica_pack_read_uint(reader, UINT32_MAX, &verdict);
    replica_pack_read_int(reader, &code);
    replica_pack_read_uint(reader, UINT64_MAX, &hlc);
    replica_pack_read_uint(reader, (uint64_t)1 << 48, &clock_ms);
    replica_pack_read_dot(reader, &dot);
    replica_pack_read_uint(reader, UINT64_MAX, &missing);
    replica_pack_read_uint(reader, UINT64_MAX, &arrived);
    if (reader->failed || voter < 0 || code > 0 || code < INT32_MIN)
        return REPLICA_E_MALFORMED;
    if (commit->phase == COMMIT_MINTING && verdict == QUORUM_VERDICT_READY && epoch == commit->epoch &&
        phase == (uint64_t)commit->config_phase)
        commit->answers[voter].ready = true; /* one more that can mint it */
    if (commit->phase != COMMIT_PREPARING || epoch != commit->epoch ||
        phase != (uint64_t)commit->config_phase)
        return 0;
    answer = &commit->answers[voter];
    if (verdict == QUORUM_VERDICT_KNOWN && !replica_stamp_is_zero(&commit->stamp)) {
        /* Minted in an earlier try: that coordinator or this voter drives it on. */
        commit->coordinator = event->message.from->store;
        commit->phase = COMMIT_MINTING;
        writing_send_mint(commit, update);
        writing_set_retry(quorum, commit, event->time, update);
        return 0;
    }
    if (rises(commit, answer, arrived) || !answer->any || verdict == QUORUM_VERDICT_READY)
        commit->progress_at_ms = event->time.now_ms;
    answer->any = true;
    answer->ready = verdict == QUORUM_VERDICT_READY;
    answer->refused = verdict == QUORUM_VERDICT_REFUSED;
    answer->code = (int)code;
    answer->hlc = hlc;
    answer->clock_ms = clock_ms;
    tell_progress(commit, &volume->configuration, update);
    return weigh_answers(quorum, commit, volume, event, update);
}
