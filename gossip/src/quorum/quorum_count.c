/* Counting: a delta is committed once a majority of equal (epoch, phase) holds it. */
#include "quorum/quorum_voting.h"

#include "replica/error.h"

#include <string.h>

/* Those that vote no more make room. */
static void prune(struct attached *attached, const struct gossip_configuration *configuration)
{
    for (size_t i = attached->peers_n; i > 0; i--)
        if (quorum_voter_index(configuration, &attached->peers[i - 1].store) < 0)
            attached->peers[i - 1] = attached->peers[--attached->peers_n];
}

static struct attached_peer *peer_of(struct attached *attached,
                                     const struct gossip_configuration *configuration,
                                     const struct replica_id *store)
{
    for (size_t i = 0; i < attached->peers_n; i++)
        if (replica_id_equal(&attached->peers[i].store, store))
            return &attached->peers[i];
    if (attached->peers_n == GOSSIP_VOTERS_MAX)
        prune(attached, configuration);
    if (attached->peers_n == GOSSIP_VOTERS_MAX)
        return NULL;
    memset(&attached->peers[attached->peers_n], 0, sizeof attached->peers[0]);
    attached->peers[attached->peers_n].store = *store;
    return &attached->peers[attached->peers_n++];
}

/* The highest seq of actor that is known here to be somewhere. */
static uint64_t claimed_seq(const struct attached *attached, const struct replica_actor *actor)
{
    uint64_t seq = replica_vector_get(&replica_volume_state(attached->volume)->committed, actor);
    for (size_t i = 0; i < attached->peers_n; i++) {
        uint64_t held = replica_vector_get(&attached->peers[i].held, actor);
        seq = held > seq ? held : seq;
    }
    return seq;
}

void voting_want(struct attached *attached, const struct replica_vector *wanted,
                 const struct replica_id *holder, struct gossip_update *update)
{
    const struct replica_vector *stored = &replica_volume_state(attached->volume)->stored;
    bool more = false;
    for (size_t i = 0; i < wanted->n; i++) {
        const struct replica_actor *actor = &wanted->entries[i].actor;
        uint64_t seq = claimed_seq(attached, actor);
        seq = seq < wanted->entries[i].seq ? seq : wanted->entries[i].seq;
        if (seq > replica_vector_get(stored, actor) &&
            replica_vector_raise(&attached->target, actor, seq) == 0)
            more = true;
    }
    if (more)
        gossip_update_note(update, GOSSIP_NOTE_PULL, &attached->id, holder, NULL);
}

/* The seq of actor that a majority holds: the majority-th largest. */
static uint64_t majority_seq(const struct gossip_quorum *quorum, const struct attached *attached,
                             const struct gossip_configuration *configuration,
                             const struct replica_actor *actor)
{
    uint64_t seqs[GOSSIP_VOTERS_MAX] = {0};
    size_t n = 0;
    for (size_t i = 0; i < configuration->voters_n; i++) {
        const struct replica_id *voter = &configuration->voters[i];
        uint64_t seq = 0;
        if (replica_id_equal(voter, &quorum->table->self))
            seq = replica_vector_get(&attached->durable, actor);
        for (size_t j = 0; j < attached->peers_n; j++)
            if (replica_id_equal(&attached->peers[j].store, voter) &&
                attached->peers[j].epoch == configuration->epoch &&
                attached->peers[j].phase == configuration->phase)
                seq = replica_vector_get(&attached->peers[j].held, actor);
        for (size_t at = n++;; at--) { /* insertion, descending */
            if (at == 0 || seqs[at - 1] >= seq) {
                seqs[at] = seq;
                break;
            }
            seqs[at] = seqs[at - 1];
        }
    }
    return seqs[quorum_majority(configuration) - 1];
}

int voting_count(struct gossip_quorum *quorum, struct attached *attached, const struct gossip_volume *volume,
                 struct gossip_update *update)
{
    struct replica_vector committed = {.n = 0}, actors = attached->durable;
    bool rose = false;
    int rv = 0;
    for (size_t i = 0; i < attached->peers_n && rv == 0; i++)
        rv = replica_vector_join(&actors, &attached->peers[i].held);
    for (size_t i = 0; i < actors.n && rv == 0; i++) {
        uint64_t seq = majority_seq(quorum, attached, &volume->configuration, &actors.entries[i].actor);
        if (seq > 0)
            rv = replica_vector_set(&committed, &actors.entries[i].actor, seq);
    }
    if (rv == 0)
        rv = replica_volume_commit(attached->volume, &committed, &update->log, &rose);
    if (rose)
        gossip_update_note(update, GOSSIP_NOTE_COMMITTED, &attached->id, NULL, NULL);
    return rv;
}

int quorum_note_held(struct gossip_quorum *quorum, struct attached *attached, const struct replica_id *store,
                     uint64_t epoch, enum gossip_phase phase, const struct replica_vector *held,
                     struct gossip_update *update)
{
    const struct gossip_volume *volume = quorum_volume(quorum, &attached->id);
    struct attached_peer *peer;
    bool news;
    if (volume == NULL || quorum_voter_index(&volume->configuration, store) < 0)
        return 0;
    if (replica_id_equal(store, &quorum->table->self))
        return 0; /* of itself it counts what is durable */
    peer = peer_of(attached, &volume->configuration, store);
    if (peer == NULL)
        return 0;
    if (peer->epoch != epoch || peer->phase != phase) {
        peer->epoch = epoch;
        peer->phase = phase;
        peer->held.n = 0;
    }
    news = !replica_vector_covers(&peer->held, held);
    if (replica_vector_join(&peer->held, held) != 0)
        return REPLICA_E_MALFORMED;
    if (news && attached->voting != NULL)
        voting_follow(attached, update);
    return voting_count(quorum, attached, volume, update);
}
