/* What this voter keeps for writers and nobody has minted yet: proposals in its log, and the pins of what they name.
 *
 * A proposal stays until its id has a dot here, or its writer says that it gave the id up: it does so only of ids that it
 * never asked anybody to mint. Such a word may be lost, so the writer of what has lain here for a while is told again how
 * its proposal stands; one that does not know the id any more says that it gave it up. Each writer has a bounded part. */
#include "quorum/quorum_voting.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define PROPOSALS_MAX           4096                  /* of one volume, by all writers */
#define PROPOSALS_OF_WRITER_MAX COMMITS_MAX           /* as many views as a node commits at once */
#define PROPOSAL_BYTES_MAX      ((uint64_t)512 << 20) /* records and op lists, of one volume */
#define PROPOSAL_BYTES_OF_WRITER_MAX                                                                         \
    ((uint64_t)128 << 20) /* two of the largest op lists: one goes while the next comes */
#define ASK_MS  60000     /* from the last word with its writer to the next */
#define LOOK_MS 5000      /* between looks whose turn it is */

struct kept {
    struct replica_id commit, writer;
    uint64_t bytes;
    uint64_t ask_at_ms; /* 0: not set yet */
    bool releasing;
};

/* A proposal that was given up, being taken out in bounded pieces. */
struct release {
    struct replica_closure closure; /* walked again */
    struct replica_closure wanted;  /* of the prepare that went on: what of it is being fetched */
    struct release *next;
};

/* Bookkeeping */

static struct kept *find_kept(const struct attached_voting *voting, const struct replica_id *commit)
{
    for (size_t i = 0; i < voting->kept_n; i++)
        if (replica_id_equal(&voting->kept[i].commit, commit))
            return &voting->kept[i];
    return NULL;
}

static int add_kept(struct attached_voting *voting, const struct replica_delta *delta, uint64_t bytes)
{
    if (voting->kept_n == voting->kept_capacity) {
        size_t capacity = voting->kept_capacity == 0 ? 16 : voting->kept_capacity * 2;
        struct kept *kept = realloc(voting->kept, capacity * sizeof *kept);
        if (kept == NULL)
            return REPLICA_E_NOMEM;
        voting->kept = kept;
        voting->kept_capacity = capacity;
    }
    voting->kept[voting->kept_n++] =
        (struct kept){.commit = delta->commit, .writer = delta->node, .bytes = bytes};
    return 0;
}

static uint64_t bytes_of(const struct replica_delta *delta, size_t n)
{
    return n + (delta->ops == NULL ? delta->ops_content.length : 0);
}

int voting_keep(struct attached *attached, const struct replica_delta *delta, const uint8_t *record, size_t n,
                struct gossip_time time, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    struct kept *kept = find_kept(voting, &delta->commit);
    uint64_t bytes = bytes_of(delta, n), all_bytes = bytes, its_bytes = bytes;
    size_t its = 0;
    int rv;
    if (kept == NULL) {
        for (size_t i = 0; i < voting->kept_n; i++) {
            bool same = replica_id_equal(&voting->kept[i].writer, &delta->node);
            all_bytes += voting->kept[i].bytes;
            its_bytes += same ? voting->kept[i].bytes : 0;
            its += same;
        }
        if (voting->kept_n == PROPOSALS_MAX || its == PROPOSALS_OF_WRITER_MAX ||
            all_bytes > PROPOSAL_BYTES_MAX || its_bytes > PROPOSAL_BYTES_OF_WRITER_MAX)
            return REPLICA_E_BUSY;
    } else if (kept->releasing) {
        return REPLICA_E_STALE; /* a late copy of what its writer gave up */
    }
    rv = replica_volume_propose(attached->volume, record, n, &update->log);
    if (rv == 0 && kept == NULL) {
        rv = add_kept(voting, delta, bytes);
        kept = &voting->kept[voting->kept_n - 1];
    }
    if (rv != 0)
        return rv;
    kept->ask_at_ms = time.now_ms + ASK_MS;
    gossip_update_wake(update, kept->ask_at_ms);
    return 0;
}

static void drop_kept(struct attached_voting *voting, const struct replica_id *commit)
{
    struct kept *kept = find_kept(voting, commit);
    if (kept != NULL)
        *kept = voting->kept[--voting->kept_n];
}

static void free_release(struct release *release)
{
    replica_closure_close(&release->closure);
    replica_closure_close(&release->wanted);
    free(release);
}

void voting_minted(struct attached_voting *voting, const struct replica_id *commit)
{
    for (struct release **at = &voting->releases; *at != NULL; at = &(*at)->next)
        if (replica_id_equal(&(*at)->closure.delta.commit, commit)) {
            struct release *gone = *at; /* its pins are the delta's now */
            *at = gone->next;
            free_release(gone);
            break;
        }
    drop_kept(voting, commit);
}

/* Loading */

static int load_one(void *context, const uint8_t *record, size_t n)
{
    const struct attached *attached = context;
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    struct attached_voting *voting = attached->voting;
    struct replica_delta delta;
    struct replica_dot dot;
    if (replica_delta_decode(record, n, &delta) != 0)
        return REPLICA_E_CORRUPT;
    if (voting->kept_n == PROPOSALS_MAX ||
        replica_volume_find(attached->volume, NULL, &delta.commit, &state->stored, &dot) == 0)
        return 0;
    return add_kept(voting, &delta, bytes_of(&delta, n));
}

int voting_load_proposals(struct attached *attached)
{
    return replica_volume_proposals(attached->volume, load_one, attached);
}

void voting_close_proposals(struct attached_voting *voting)
{
    while (voting->releases != NULL) {
        struct release *gone = voting->releases;
        voting->releases = gone->next;
        free_release(gone);
    }
    free(voting->kept);
}

/* Giving up */

static int start_release(struct attached *attached, struct kept *kept, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    struct release *release = calloc(1, sizeof *release);
    struct replica_buffer record;
    int rv;
    if (release == NULL)
        return REPLICA_E_NOMEM;
    replica_buffer_init(&record);
    rv = replica_volume_proposal(attached->volume, &update->log, &kept->commit, &record);
    if (rv == 0)
        rv = replica_closure_init(&release->closure, record.data, record.size);
    replica_buffer_close(&record);
    if (rv != 0) {
        free(release);
        return rv == REPLICA_E_NOTFOUND || rv == REPLICA_E_MALFORMED ? REPLICA_E_CORRUPT : rv;
    }
    kept->releasing = true;
    voting_take_prepare(voting, &kept->commit, &release->wanted);
    release->next = voting->releases;
    voting->releases = release;
    voting->busy = update->again = true;
    return 0;
}

int voting_receive_abandon(const struct gossip_quorum_event *event, struct replica_pack_reader *reader,
                           struct attached *attached, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    struct replica_id commit;
    struct replica_dot dot;
    struct kept *kept;
    int rv;
    replica_pack_read_id(reader, &commit);
    if (reader->failed)
        return REPLICA_E_MALFORMED;
    kept = find_kept(voting, &commit);
    if (kept == NULL || kept->releasing)
        return 0;
    if (!replica_id_equal(&kept->writer, &event->message.from->store))
        return REPLICA_E_DENIED;
    rv = replica_volume_find(attached->volume, &update->log, &commit,
                             &replica_volume_state(attached->volume)->stored, &dot);
    if (rv == 0) /* it has a dot: only its writer has forgotten it, as committed long ago */
        drop_kept(voting, &commit);
    return rv == REPLICA_E_NOTFOUND ? start_release(attached, kept, update) : rv;
}

struct unpin_context {
    struct attached *attached;
    struct release *release;
    struct gossip_update *update;
};

static void unpin(void *context, const struct replica_content_id *content, bool missing)
{
    struct unpin_context *c = context;
    (void)missing;
    replica_volume_unpin(c->attached->volume, &c->release->closure.delta.commit, content, &c->update->log);
    if (replica_closure_arrived(&c->release->wanted, content))
        gossip_update_note(c->update, GOSSIP_NOTE_UNWANT, &c->attached->id, NULL, content);
}

int voting_release_some(struct gossip_quorum *quorum, struct attached *attached, struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    struct release *release = voting->releases;
    struct unpin_context context = {.attached = attached, .release = release, .update = update};
    int rv;
    if (release == NULL)
        return 0;
    rv = replica_closure_scan(&release->closure, quorum->table->contents, SCAN_OPS_MAX, unpin, &context);
    update->reads += SCAN_OPS_MAX / 4;
    if (rv == REPLICA_E_IO || rv == REPLICA_E_NOMEM || rv == REPLICA_E_CORRUPT)
        return rv;
    if (rv !=
        REPLICA_E_AGAIN) { /* all of it, or as far as anybody ever got: a missing or malformed op list */
        replica_volume_withdraw(attached->volume, &release->closure.delta.commit, &update->log);
        drop_kept(voting, &release->closure.delta.commit);
        voting->releases = release->next;
        free_release(release);
    }
    if (voting->releases != NULL)
        voting->busy = update->again = true;
    return 0;
}

/* Asking */

/* What is still coming is reported each second anyway. *ret_gone: it has a dot by now. */
static int ask_one(struct attached *attached, const struct gossip_volume *volume, struct kept *kept,
                   struct gossip_time time, struct gossip_update *update, bool *ret_gone)
{
    bool first = kept->ask_at_ms == 0; /* an earlier life's: its writer may be about to ask itself */
    struct replica_dot dot;
    int rv;
    *ret_gone = false;
    kept->ask_at_ms = time.now_ms + ASK_MS;
    if (first || kept->releasing)
        return 0;
    rv = replica_volume_find(attached->volume, &update->log, &kept->commit,
                             &replica_volume_state(attached->volume)->stored, &dot);
    update->reads++;
    *ret_gone = rv == 0;
    if (rv == REPLICA_E_NOTFOUND)
        voting_tell_writer(attached, volume, &kept->commit, &kept->writer, time, update);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

int voting_ask_writers(struct attached *attached, const struct gossip_volume *volume, struct gossip_time time,
                       struct gossip_update *update)
{
    struct attached_voting *voting = attached->voting;
    if (time.now_ms < voting->ask_at_ms) {
        gossip_update_wake(update, voting->ask_at_ms);
        return 0;
    }
    for (size_t i = voting->kept_n; i > 0 && update->reads < GOSSIP_STEP_READS_MAX; i--) {
        struct kept *kept = &voting->kept[i - 1];
        bool gone = false;
        int rv = time.now_ms >= kept->ask_at_ms ? ask_one(attached, volume, kept, time, update, &gone) : 0;
        if (rv != 0)
            return rv;
        if (gone)
            *kept = voting->kept[--voting->kept_n];
    }
    voting->ask_at_ms = voting->kept_n == 0 ? 0 : time.now_ms + LOOK_MS;
    if (voting->kept_n > 0)
        gossip_update_wake(update, voting->ask_at_ms);
    return 0;
}
