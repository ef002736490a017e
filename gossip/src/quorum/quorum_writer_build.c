/* A commit's local half: frozen drafts become contents, the overlay becomes an op list, and both a proposal. */
#include "quorum/quorum_writing.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define CARRIED_SIZE_MAX (64 * 1024) /* larger contents go through the swarm */

/* SETTLING */

int writing_settle_next(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                        struct gossip_update *update)
{
    int rv = replica_view_next_draft(view, 0, &commit->draft);
    (void)quorum;
    if (rv == 0) {
        gossip_update_settle(update, &commit->view, commit->draft);
        return 0;
    }
    if (rv != REPLICA_E_NOTFOUND)
        return rv;
    commit->phase = COMMIT_BUILDING;
    update->again = true;
    return 0;
}

int writing_settled(struct gossip_quorum *quorum, const struct gossip_quorum_event *event,
                    struct gossip_update *update)
{
    struct commit *commit = writing_find(quorum, &event->view);
    struct replica_view *view = replica_view_find(quorum->views, &event->view);
    int rv;
    if (view == NULL || commit == NULL || commit->phase != COMMIT_SETTLING || commit->draft != event->draft)
        return 0;
    if (event->code == REPLICA_E_NOTFOUND) { /* lost with the power before it was synced */
        size_t lost;
        rv = writing_fail(
            quorum, commit, REPLICA_E_IO,
            "what was written to a file since the last commit was lost with the power; it is as it was "
            "before, the other changes "
            "are kept: commit again",
            update);
        return rv != 0 ? rv : replica_view_forget_draft(view, event->draft, &update->log, &lost);
    }
    if (event->code != 0)
        return writing_fail(quorum, commit, event->code,
                            event->code == REPLICA_E_NOSPACE
                                ? "no space on this node for a changed file, or over its capacity; nothing "
                                  "happened and the drafts are kept"
                                : "a changed file could not be read while committing; nothing happened",
                            update);
    rv = replica_view_settle(view, event->draft, &event->blob, event->size, &update->log);
    if (rv != 0)
        return rv;
    commit->draft = 0;
    update->again = true;
    return 0;
}

/* BUILDING */

struct carry_context {
    struct gossip_quorum *quorum;
    struct replica_delta *delta;
    struct replica_buffer *bytes; /* one per carried content */
    size_t room;
};

static int carry(void *context, const struct replica_op *op)
{
    struct carry_context *c = context;
    const struct replica_content_id *id = &op->entry.blob.content;
    struct replica_buffer *bytes;
    struct replica_piece piece = {.kind = REPLICA_PIECE_CHUNK, .index = 0};
    if (op->tombstone || op->entry.kind != REPLICA_KIND_FILE || op->entry.blob.kind != REPLICA_BLOB_CONTENT)
        return 0;
    if (id->length > CARRIED_SIZE_MAX || id->length + REPLICA_CONTENT_ID_SIZE + 16 > c->room ||
        c->delta->carried_n == REPLICA_CARRIED_MAX)
        return 0;
    for (size_t i = 0; i < c->delta->carried_n; i++)
        if (replica_content_id_equal(&c->delta->carried[i].id, id))
            return 0;
    bytes = &c->bytes[c->delta->carried_n];
    if (id->length == 0 || replica_contents_read_piece(c->quorum->table->contents, id, piece, bytes) != 0)
        return 0;
    c->delta->carried[c->delta->carried_n].id = *id;
    c->delta->carried[c->delta->carried_n++].data = bytes->data;
    c->room -= (size_t)id->length + REPLICA_CONTENT_ID_SIZE + 16;
    return 0;
}

/* Small contents travel in the record; they are packed at once, so their buffers live only here. */
static int pack_proposal(struct gossip_quorum *quorum, struct commit *commit, struct replica_delta *delta)
{
    struct replica_buffer *bytes = calloc(REPLICA_CARRIED_MAX, sizeof *bytes);
    struct carry_context context = {.quorum = quorum, .delta = delta, .bytes = bytes};
    if (bytes == NULL)
        return REPLICA_E_NOMEM;
    for (size_t i = 0; i < REPLICA_CARRIED_MAX; i++)
        replica_buffer_init(&bytes[i]);
    if (delta->ops != NULL) {
        context.room = REPLICA_DELTA_INLINE_MAX - delta->ops_size;
        (void)replica_ops_each(delta->ops, delta->ops_size, carry, &context);
    }
    replica_buffer_clear(&commit->proposal);
    replica_delta_pack(&commit->proposal, delta);
    for (size_t i = 0; i < REPLICA_CARRIED_MAX; i++)
        replica_buffer_close(&bytes[i]);
    free(bytes);
    return commit->proposal.failed ? REPLICA_E_NOMEM : 0;
}

static int propose(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                   struct gossip_update *update)
{
    const struct replica_view_info *info = replica_view_info(view);
    struct replica_delta *delta = calloc(1, sizeof *delta);
    int rv = 0;
    if (delta == NULL)
        return REPLICA_E_NOMEM;
    delta->volume = commit->volume;
    delta->commit = commit->id;
    delta->deps = info->options.vector;
    delta->node = quorum->table->self;
    delta->time_ms = commit->time_ms;
    delta->op_count = commit->op_count;
    delta->byte_count = commit->byte_count;
    if (replica_vector_join(&delta->deps, &info->own) != 0)
        rv = REPLICA_E_TOOBIG;
    if (rv == 0 && commit->ops.size <= REPLICA_DELTA_INLINE_MAX) {
        delta->ops = commit->ops.data;
        delta->ops_size = commit->ops.size;
    } else if (rv == 0) {
        rv = replica_contents_ingest(quorum->table->contents, commit->ops.data, commit->ops.size,
                                     &delta->ops_content);
        commit->ops_content = delta->ops_content;
    }
    if (rv == 0)
        rv = pack_proposal(quorum, commit, delta);
    free(delta);
    if (rv == REPLICA_E_NOSPACE || rv == REPLICA_E_TOOBIG)
        return writing_fail(quorum, commit, rv,
                            rv == REPLICA_E_TOOBIG
                                ? "the commit changes too many files at once; commit in parts"
                                : "no space left on this node for the list of changes",
                            update);
    if (rv == 0)
        rv = replica_view_journal(view, commit->proposal.data, commit->proposal.size, &update->log);
    replica_buffer_close(&commit->ops);
    replica_buffer_close(&commit->position);
    return rv;
}

int writing_build(struct gossip_quorum *quorum, struct commit *commit, struct replica_view *view,
                  const struct gossip_quorum_event *event, struct gossip_update *update)
{
    int rv = replica_view_ops(view, &commit->position, BUILD_OPS_MAX, &commit->ops, &commit->op_count,
                              &commit->byte_count);
    update->reads += BUILD_OPS_MAX / 2;
    if (rv == REPLICA_E_AGAIN && commit->ops.size <= REPLICA_OPS_SIZE_MAX) {
        update->again = true;
        return 0;
    }
    if (rv != 0 && rv != REPLICA_E_AGAIN)
        return rv;
    if (commit->ops.size > REPLICA_OPS_SIZE_MAX)
        return writing_fail(quorum, commit, REPLICA_E_TOOBIG,
                            "the commit changes too many files at once; commit in parts", update);
    rv = propose(quorum, commit, view, update);
    if (rv != 0 || commit->again)
        return rv;
    return writing_start_preparing(quorum, commit, event, update);
}
