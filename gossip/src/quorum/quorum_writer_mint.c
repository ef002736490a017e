/* A commit's stamp, fixed once, and the requests to mint it until its fate is known. */
#include "quorum/quorum_writing.h"

#include "replica/error.h"

#include "replica/hlc.h"

void writing_send_mint(struct commit *commit, struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 5);
    replica_pack_id(&payload, &commit->volume);
    replica_pack_id(&payload, &commit->id);
    replica_pack_uint(&payload, commit->epoch);
    replica_pack_uint(&payload, commit->config_phase);
    replica_pack_uint(&payload, commit->stamp.hlc);
    gossip_update_send(update, &commit->coordinator, GOSSIP_ROOM_QUORUM, QUORUM_MINT, &payload, true);
    replica_buffer_close(&payload);
}

/* This store if it may, else a prepared voter that seems alive, else any prepared one; never the one that did not answer if there is
 * another. */
bool writing_choose(struct gossip_quorum *quorum, struct commit *commit,
                    const struct gossip_configuration *configuration)
{
    struct replica_id before = commit->coordinator;
    int best = -1, best_score = -1;
    size_t start = gossip_random_below(&quorum->random, configuration->voters_n);
    for (size_t k = 0; k < configuration->voters_n; k++) {
        size_t i = (start + k) % configuration->voters_n;
        const struct replica_id *voter = &configuration->voters[i];
        int score;
        if (!commit->answers[i].ready)
            continue;
        score = (replica_id_equal(voter, &before) ? 0 : 4) +
                (gossip_member_is_alive(quorum->member, voter) ? 2 : 0) +
                (replica_id_equal(voter, &quorum->table->self) ? 1 : 0);
        if (score > best_score) {
            best_score = score;
            best = (int)i;
        }
    }
    if (best >= 0)
        commit->coordinator = configuration->voters[best];
    return best >= 0;
}

int writing_mint(struct gossip_quorum *quorum, struct commit *commit,
                 const struct gossip_configuration *configuration, const struct gossip_quorum_event *event,
                 struct gossip_update *update)
{
    struct replica_view *view = replica_view_find(quorum->views, &commit->view);
    int rv = 0;
    if (replica_stamp_is_zero(&commit->stamp)) {
        uint64_t clocks[GOSSIP_VOTERS_MAX], highest = 0;
        size_t n = 0;
        for (size_t i = 0; i < configuration->voters_n; i++) {
            if (!commit->answers[i].ready)
                continue;
            clocks[n++] = commit->answers[i].clock_ms;
            if (commit->answers[i].hlc > highest)
                highest = commit->answers[i].hlc;
        }
        commit->stamp.hlc = replica_hlc_stamp(highest, event->time.wall_ms, clocks, n);
        commit->stamp.commit = commit->id;
        commit->progress_at_ms = event->time.now_ms;
        if (view != NULL)
            rv = replica_view_stamp(view, &commit->stamp, &update->log);
        if (rv != 0)
            return rv;
    }
    if (!writing_choose(quorum, commit, configuration))
        return 0;
    commit->phase = COMMIT_MINTING;
    writing_send_mint(commit, update); /* durable: leaves once the stamp is synced */
    writing_set_retry(quorum, commit, event->time, update);
    return 0;
}

int writing_receive_outcome(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                            struct replica_pack_reader *reader, struct commit *commit,
                            const struct gossip_volume *volume, struct gossip_update *update)
{
    struct replica_dot dot;
    int64_t code;
    replica_pack_read_int(reader, &code);
    replica_pack_read_dot(reader, &dot);
    if (reader->failed || quorum_voter_index(&volume->configuration, &event->message.from->store) < 0 ||
        (code == 0 && dot.seq == 0))
        return REPLICA_E_MALFORMED;
    if (commit->phase != COMMIT_MINTING)
        return 0;
    if (code == 0)
        return writing_succeed(quorum, commit, &dot, event->time, update);
    if (code == REPLICA_E_STALE)
        return writing_start_preparing(quorum, commit, event, update);
    return 0; /* not able yet: the retry asks again */
}

/* Its own id in a committed delta settles it. */
int writing_look_for_own(struct gossip_quorum *quorum, struct commit *commit, struct gossip_time time,
                         struct gossip_update *update)
{
    struct attached *attached = attached_find(quorum->table, &commit->volume);
    struct replica_dot dot;
    int rv;
    if (attached == NULL || commit->phase != COMMIT_MINTING)
        return 0;
    rv = replica_volume_find(attached->volume, &update->log, &commit->id,
                             &replica_volume_state(attached->volume)->committed, &dot);
    update->reads++;
    if (rv == REPLICA_E_NOTFOUND)
        return 0;
    return rv != 0 ? rv : writing_succeed(quorum, commit, &dot, time, update);
}
