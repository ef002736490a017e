/* The whole registry for a follower that is behind the beginning of the log, in pieces. The registry on disk
 * is what a snapshot is, so one is only packed when somebody needs it. */
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_FIELDS 6

void control_snapshot_drop(struct control_snapshot *snapshot)
{
    replica_buffer_close(&snapshot->bytes);
    memset(snapshot, 0, sizeof *snapshot);
}

/* The leader's side */

static void pack(const struct control_registry *registry, struct replica_buffer *out)
{
    replica_pack_array(out, SNAPSHOT_FIELDS);
    replica_pack_uint(out, registry->index);
    replica_pack_uint(out, registry->term);
    replica_pack_uint(out, registry->forgotten);
    replica_pack_uint(out, registry->outcomes_next);
    replica_pack_array(out, registry->outcomes_n);
    for (size_t i = 0; i < registry->outcomes_n; i++)
        control_outcome_pack(out, &registry->outcomes[i]);
    replica_pack_array(out, registry->n);
    for (size_t i = 0; i < registry->n; i++)
        control_volume_pack(out, registry->by_id[i]);
}

/* Packed anew when the log does not continue the last one. */
static void prepare(struct gossip_control *control, struct gossip_update *update)
{
    struct control_snapshot *out = &control->out;
    if (out->index != 0 && out->index >= control->log.base_index)
        return;
    control_snapshot_drop(out);
    pack(&control->registry, &out->bytes);
    out->index = control->registry.index;
    out->term = control->registry.term;
    if (out->bytes.failed)
        update->failed = true;
}

void control_snapshot_send(struct gossip_control *control, size_t peer, struct gossip_update *update)
{
    struct control_peer *to = &control->peers[peer];
    struct replica_buffer payload;
    size_t n;
    prepare(control, update);
    if (update->failed)
        return;
    if (to->snapshot_index != control->out.index || to->snapshot_offset >= control->out.bytes.size) {
        to->snapshot_index = control->out.index;
        to->snapshot_offset = 0;
    }
    n = control->out.bytes.size - to->snapshot_offset;
    n = n < CONTROL_PIECE_MAX ? n : CONTROL_PIECE_MAX;
    control_begin_message(control, &payload, 6);
    replica_pack_uint(&payload, control->term);
    replica_pack_uint(&payload, control->out.index);
    replica_pack_uint(&payload, control->out.term);
    replica_pack_uint(&payload, to->snapshot_offset);
    replica_pack_uint(&payload, control->out.bytes.size);
    replica_pack_bin(&payload, control->out.bytes.data + to->snapshot_offset, n);
    control_send(&control->members[peer], CONTROL_SNAPSHOT, &payload, true, update);
    to->waiting = true;
    to->sent_ms = control->now_ms;
}

static int on_snapshotted(struct gossip_control *control, const struct gossip_message *message,
                          struct gossip_update *update)
{
    size_t from = (size_t)control_member_index(control, &message->from->store);
    struct control_peer *peer = &control->peers[from];
    struct control_input input;
    uint64_t term, index, next;
    if (control_open(message, 3, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &term);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &index);
    replica_pack_read_uint(&input.reader, CONTROL_SNAPSHOT_MAX, &next);
    if (control_close(&input) != 0)
        return REPLICA_E_MALFORMED;
    if (term > control->term)
        control_raft_follow(control, term, NULL, update);
    if (control->role != CONTROL_LEADING || term != control->term)
        return 0;
    peer->heard_ms = control->now_ms;
    if (index == 0 || index != peer->snapshot_index || next >= control->out.bytes.size)
        return 0;
    peer->snapshot_offset = next;
    peer->waiting = false;
    control_replicate_to(control, from, update);
    return 0;
}

/* The follower's side */

struct piece {
    uint64_t term, index, index_term, offset, total;
    const uint8_t *bytes;
    size_t n;
};

static int read_piece(const struct gossip_message *message, struct piece *ret_piece)
{
    struct control_input input;
    struct piece piece;
    if (control_open(message, 6, &input) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &piece.term);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &piece.index);
    replica_pack_read_uint(&input.reader, CONTROL_NUMBER_MAX, &piece.index_term);
    replica_pack_read_uint(&input.reader, CONTROL_SNAPSHOT_MAX, &piece.offset);
    replica_pack_read_uint(&input.reader, CONTROL_SNAPSHOT_MAX, &piece.total);
    replica_pack_read_bin(&input.reader, CONTROL_PIECE_MAX, &piece.bytes, &piece.n);
    if (control_close(&input) != 0 || piece.index == 0 || piece.n == 0 ||
        piece.offset + piece.n > piece.total || piece.index_term > piece.term)
        return REPLICA_E_MALFORMED;
    *ret_piece = piece;
    return 0;
}

static int read_outcomes(struct replica_pack_reader *reader, struct control_registry *registry)
{
    uint64_t next;
    size_t n;
    replica_pack_read_uint(reader, CONTROL_OUTCOMES_MAX - 1, &next);
    replica_pack_read_array(reader, CONTROL_OUTCOMES_MAX, &n);
    for (size_t i = 0; i < n; i++)
        if (control_outcome_read(reader, &registry->outcomes[i]) != 0 ||
            !control_code_valid(registry->outcomes[i].code) || registry->outcomes[i].index > registry->index)
            return REPLICA_E_MALFORMED;
    registry->outcomes_n = n;
    registry->outcomes_next = next;
    return n < CONTROL_OUTCOMES_MAX && next != n ? REPLICA_E_MALFORMED : 0;
}

static int read_volumes(struct replica_pack_reader *reader, struct control_registry *registry)
{
    size_t n;
    replica_pack_read_array(reader, GOSSIP_VOLUMES_MAX, &n);
    for (size_t i = 0; i < n; i++) {
        struct gossip_volume volume;
        if (control_volume_read(reader, &volume) != 0 || volume.index > registry->index ||
            control_registry_find(registry, &volume.id) != NULL ||
            (!volume.deleted && control_registry_find_name(registry, volume.name) != NULL))
            return REPLICA_E_MALFORMED;
        if (control_registry_put(registry, &volume) != 0)
            return REPLICA_E_NOMEM;
    }
    return 0;
}

static int unpack(const struct control_snapshot *in, struct control_registry *ret_registry)
{
    struct replica_pack_reader reader;
    size_t fields;
    int rv;
    replica_pack_reader_init(&reader, in->bytes.data, in->bytes.size);
    replica_pack_read_array(&reader, SNAPSHOT_FIELDS, &fields);
    replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &ret_registry->index);
    replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &ret_registry->term);
    replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &ret_registry->forgotten);
    if (reader.failed || fields != SNAPSHOT_FIELDS || ret_registry->index != in->index ||
        ret_registry->term != in->term)
        return REPLICA_E_MALFORMED;
    rv = read_outcomes(&reader, ret_registry);
    if (rv == 0)
        rv = read_volumes(&reader, ret_registry);
    return rv != 0 ? rv : replica_pack_reader_finish(&reader);
}

/* Writes the new registry over the old one, and tells of every volume that is not as it was. */
static void replace(struct gossip_control *control, struct control_registry *registry,
                    struct gossip_update *update)
{
    struct control_registry *old = &control->registry;
    for (size_t i = 0; i < old->n; i++)
        if (control_registry_find(registry, &old->by_id[i]->id) == NULL)
            control_registry_erase_volume(&old->by_id[i]->id, update);
    for (size_t i = 0; i < registry->n; i++) {
        const struct gossip_volume *volume = registry->by_id[i],
                                   *known = control_registry_find(old, &volume->id);
        if (known != NULL && known->index == volume->index)
            continue;
        control_registry_write_volume(volume, update);
        gossip_update_note(update, GOSSIP_NOTE_VOLUME, &volume->id, NULL, NULL);
    }
    for (size_t i = 0; i < registry->outcomes_n; i++)
        control_registry_write_outcome(registry, i, update);
    control_registry_write_state(registry, update);
    control_registry_close(old);
    *old = *registry;
}

static int install(struct gossip_control *control, struct gossip_update *update)
{
    struct control_registry *registry = calloc(1, sizeof *registry);
    int rv = registry == NULL ? REPLICA_E_NOMEM : unpack(&control->in, registry);
    if (rv == 0) {
        replace(control, registry, update);
        control_log_reset(control, registry->index, registry->term, update);
        control->commit = registry->index;
        for (size_t i = 0; i < registry->outcomes_n; i++)
            control_request_outcome(control, &registry->outcomes[i], update);
    } else if (registry != NULL)
        control_registry_close(registry);
    free(registry);
    control_snapshot_drop(&control->in);
    if (rv == REPLICA_E_NOMEM)
        update->failed = true;
    return rv;
}

static void acknowledge(struct gossip_control *control, const struct replica_id *to, uint64_t index,
                        uint64_t next, struct gossip_update *update)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 3);
    replica_pack_uint(&payload, control->term);
    replica_pack_uint(&payload, index);
    replica_pack_uint(&payload, next);
    control_send(to, CONTROL_SNAPSHOTTED, &payload, true, update);
}

/* Adds a piece to what is staged; true: it is whole. */
static bool stage(struct gossip_control *control, const struct replica_id *from, const struct piece *piece,
                  struct gossip_update *update)
{
    struct control_snapshot *in = &control->in;
    if (in->index != piece->index || in->term != piece->index_term || !replica_id_equal(&in->from, from)) {
        control_snapshot_drop(in);
        in->index = piece->index;
        in->term = piece->index_term;
        in->from = *from;
    }
    if (piece->offset == in->bytes.size && replica_buffer_append(&in->bytes, piece->bytes, piece->n) != 0)
        update->failed = true;
    return in->bytes.size == piece->total;
}

static int on_snapshot(struct gossip_control *control, const struct gossip_message *message,
                       struct gossip_update *update)
{
    const struct replica_id *from = &message->from->store;
    uint64_t term = 0;
    struct piece piece;
    int rv;
    if (read_piece(message, &piece) != 0)
        return REPLICA_E_MALFORMED;
    if (piece.term == control->term && control->role == CONTROL_LEADING)
        return REPLICA_E_MALFORMED;
    if (piece.term < control->term) {
        acknowledge(control, from, piece.index, 0, update);
        return 0;
    }
    control_raft_follow(control, piece.term, from, update);
    control_raft_heard(control);
    if (piece.index > control->commit && control_log_term(&control->log, piece.index, &term) &&
        term == piece.index_term) {
        control->commit = piece.index; /* our own log has all of it, and perhaps more that was acknowledged */
        control_replicate_apply(control, update);
    }
    if (piece.index > control->commit) {
        if (!stage(control, from, &piece, update)) {
            acknowledge(control, from, piece.index, control->in.bytes.size, update);
            return 0;
        }
        rv = install(control, update);
        if (rv != 0)
            return rv;
    }
    control_replicate_reply(control, from, piece.index, update);
    return 0;
}

int control_snapshot_message(struct gossip_control *control, const struct gossip_message *message,
                             struct gossip_update *update)
{
    if (!control_from_member(control, message))
        return REPLICA_E_DENIED;
    return message->type == CONTROL_SNAPSHOT ? on_snapshot(control, message, update)
                                             : on_snapshotted(control, message, update);
}
