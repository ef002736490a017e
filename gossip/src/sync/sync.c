/* Digest, pull, push, apply. See gossip/sync.h; messages: docs/protocol.md, "Spreading".
 *
 *   DIGEST   volumes with what the sender has of each; the receiver pulls what it lacks and, if asked to, answers with its own
 *   PULL     volume, what the asker has stored, whether it takes uncommitted deltas (voters only)
 *   DELTAS   volume, the sender's committed vector, delta records in order, whether there is more
 *   PUSH     as DELTAS, unasked: a newly committed delta
 *   IMAGE_…  instead of a long log: image.h */
#include "sync/sync.h"

#include "replica/error.h"
#include "sync/image.h"

#include <string.h>

enum { MESSAGE_DIGEST = 1, MESSAGE_PULL = 2, MESSAGE_DELTAS = 3, MESSAGE_PUSH = 4 };

#define DIGEST_VOLUMES_MAX 128 /* in one message: 128 vectors of up to 1 KiB stay below the message limit */
#define DELTAS_SIZE_MAX    (256 * 1024) /* of the records of one answer, but always at least one */
#define DELTAS_MAX         256          /* records in one answer, to bound a step */
#define CHECKPOINT_DELTAS  1000         /* applied since the last checkpoint: what a restart applies again */
#define ORDER_MAX          200          /* places given in one step */
#define FIELDS_MAX         16           /* of a message of a newer version */

void gossip_sync_options_default(struct gossip_sync_options *options)
{
    options->digest_ms = 1000;
    options->fanout = 3;
    options->pull_ms = 1000;
}

void gossip_sync_init(struct gossip_sync *sync, const struct gossip_sync_options *options,
                      struct attached_table *table, const struct gossip_member *member,
                      const struct gossip_control *control, const struct replica_id *self, uint64_t seed)
{
    memset(sync, 0, sizeof *sync);
    sync->options = *options;
    sync->table = table;
    sync->member = member;
    sync->control = control;
    sync->self = *self;
    gossip_random_init(&sync->random, seed, 3 /* stream */);
}

bool gossip_sync_is_voter(const struct gossip_control *control, const struct replica_id *volume,
                          const struct replica_id *store)
{
    const struct gossip_volume *entry = gossip_control_volume(control, volume);
    for (size_t i = 0; entry != NULL && i < entry->configuration.voters_n; i++)
        if (replica_id_equal(&entry->configuration.voters[i], store))
            return true;
    return false;
}

bool gossip_sync_from_voter(const struct gossip_control *control, const struct replica_id *volume,
                            const struct gossip_principal *principal)
{
    return principal->role == GOSSIP_ROLE_VOTER && gossip_sync_is_voter(control, volume, &principal->store);
}

static bool may_read(const struct gossip_sync *sync, const struct replica_id *volume,
                     const struct gossip_principal *principal)
{
    const struct gossip_volume *entry = gossip_control_volume(sync->control, volume);
    return entry != NULL && gossip_principal_may(principal, entry->name, false);
}

/* Of messages: steps over the fields that a newer version appended. Nothing is applied before the whole message was read. */
static int finish_fields(struct replica_pack_reader *reader, size_t n, size_t known)
{
    if (reader->failed || n < known)
        return REPLICA_E_MALFORMED;
    for (size_t i = known; i < n; i++)
        replica_pack_skip(reader);
    return replica_pack_reader_finish(reader);
}

/* What this node lacks of a volume that it knows to exist: its target, and for a voter whatever is stored elsewhere. */
static bool lacks(const struct attached *attached, const struct replica_vector *theirs)
{
    return !replica_vector_covers(&replica_volume_state(attached->volume)->stored, theirs);
}

/* Pulling */

static void send_pull(struct gossip_sync *sync, struct attached *attached, const struct replica_id *to,
                      struct gossip_time time, struct gossip_update *update)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 3);
    replica_pack_id(&payload, &attached->id);
    replica_vector_pack(&payload, &replica_volume_state(attached->volume)->stored);
    replica_pack_bool(&payload, gossip_sync_is_voter(sync->control, &attached->id, &sync->self));
    gossip_update_send(update, to, GOSSIP_ROOM_SYNC, MESSAGE_PULL, &payload, true);
    replica_buffer_close(&payload);
    attached->source = *to;
    attached->pull_deadline_ms = time.now_ms + sync->options.pull_ms;
    gossip_update_wake(update, attached->pull_deadline_ms);
}

/* A voter that seems alive, at random; else any voter. */
static bool pick_source(struct gossip_sync *sync, const struct attached *attached,
                        struct replica_id *ret_store)
{
    const struct gossip_volume *entry = gossip_control_volume(sync->control, &attached->id);
    struct replica_id candidates[GOSSIP_VOTERS_MAX];
    size_t n = 0;
    for (int alive = 1; entry != NULL && alive >= 0 && n == 0; alive--)
        for (size_t i = 0; i < entry->configuration.voters_n; i++)
            if (!replica_id_equal(&entry->configuration.voters[i], &sync->self) &&
                (alive == 0 || gossip_member_is_alive(sync->member, &entry->configuration.voters[i])))
                candidates[n++] = entry->configuration.voters[i];
    if (n > 0)
        *ret_store = candidates[gossip_random_below(&sync->random, n)];
    return n > 0;
}

static void continue_pull(struct gossip_sync *sync, struct attached *attached, const struct replica_id *hint,
                          struct gossip_time time, struct gossip_update *update)
{
    struct replica_id source;
    if (image_is_coming(attached))
        return;
    if (!lacks(attached, &attached->target)) {
        memset(&attached->source, 0, sizeof attached->source);
        return;
    }
    if (!replica_id_is_zero(&attached->source) && time.now_ms < attached->pull_deadline_ms) {
        gossip_update_wake(update, attached->pull_deadline_ms);
        return;
    }
    if (hint != NULL && !replica_id_is_zero(hint) && !replica_id_equal(hint, &sync->self)) {
        source = *hint;
    } else if (time.now_ms <
               attached->pull_deadline_ms) { /* the last one asked had nothing: not at once again */
        gossip_update_wake(update, attached->pull_deadline_ms);
        return;
    } else if (!pick_source(sync, attached, &source)) {
        gossip_update_wake(update, time.now_ms + sync->options.pull_ms);
        return;
    }
    send_pull(sync, attached, &source, time, update);
}

/* Serving */

/* Appends records of actor from seq on; false when the answer is full. */
static int pack_deltas(const struct attached *attached, const struct replica_actor *actor, uint64_t from,
                       uint64_t to, struct replica_buffer *records, size_t *count,
                       struct gossip_update *update)
{
    struct replica_buffer record;
    struct replica_dot dot = {.actor = *actor};
    int rv = 0;
    replica_buffer_init(&record);
    for (dot.seq = from; dot.seq <= to && rv == 0; dot.seq++) {
        rv = replica_volume_read(attached->volume, &update->log, &dot, &record);
        update->reads++;
        if (rv != 0)
            break;
        if (*count > 0 && (records->size + record.size > DELTAS_SIZE_MAX || *count >= DELTAS_MAX)) {
            rv = REPLICA_E_AGAIN;
            break;
        }
        replica_pack_bin(records, record.data, record.size);
        (*count)++;
    }
    replica_buffer_close(&record);
    return rv;
}

static int serve_pull(struct gossip_sync *sync, const struct gossip_sync_event *event,
                      struct gossip_update *update)
{
    struct replica_pack_reader reader;
    struct replica_buffer records, payload;
    struct replica_vector have;
    struct replica_id volume;
    const struct replica_volume_state *state;
    struct attached *attached;
    bool uncommitted;
    size_t n, count = 0;
    int rv = 0;
    replica_pack_reader_init(&reader, event->message.payload, event->message.size);
    replica_pack_read_array(&reader, FIELDS_MAX, &n);
    replica_pack_read_id(&reader, &volume);
    replica_vector_read(&reader, &have);
    replica_pack_read_bool(&reader, &uncommitted);
    if (finish_fields(&reader, n, 3) != 0)
        return REPLICA_E_MALFORMED;
    attached = attached_find(sync->table, &volume);
    if (attached == NULL)
        return 0;
    attached_reader(attached, &event->message.from->store, may_read(sync, &volume, event->message.from));
    if (!may_read(sync, &volume, event->message.from))
        return REPLICA_E_DENIED;
    if (!uncommitted && gossip_sync_is_voter(sync->control, &volume, &sync->self) &&
        image_should_offer(attached, &have)) {
        image_offer(attached, &event->message.from->store, update);
        return 0;
    }
    uncommitted = uncommitted && gossip_sync_from_voter(sync->control, &volume, event->message.from);
    state = replica_volume_state(attached->volume);
    replica_buffer_init(&records);
    replica_buffer_init(&payload);
    for (size_t i = 0; i < state->stored.n && rv == 0; i++) {
        const struct replica_actor *actor = &state->stored.entries[i].actor;
        uint64_t to = state->stored.entries[i].seq, limit = replica_vector_get(&state->committed, actor);
        if (!uncommitted && limit < to)
            to = limit;
        rv = pack_deltas(attached, actor, replica_vector_get(&have, actor) + 1, to, &records, &count, update);
    }
    if (rv == 0 || rv == REPLICA_E_AGAIN) {
        replica_pack_array(&payload, 4);
        replica_pack_id(&payload, &volume);
        replica_vector_pack(&payload, &state->committed);
        replica_pack_bool(&payload, rv == REPLICA_E_AGAIN);
        replica_pack_array(&payload, count);
        replica_buffer_append(&payload, records.data, records.size);
        gossip_update_send(update, &event->message.from->store, GOSSIP_ROOM_SYNC, MESSAGE_DELTAS, &payload,
                           true);
        rv = 0;
    }
    replica_buffer_close(&records);
    replica_buffer_close(&payload);
    return rv;
}

/* Receiving */

static int ingest_carried(struct gossip_sync *sync, const uint8_t *record, size_t n)
{
    struct replica_delta delta;
    int rv = replica_delta_decode(record, n, &delta);
    for (size_t i = 0; rv == 0 && i < delta.carried_n; i++) {
        struct replica_content_id id;
        if (replica_contents_state(sync->table->contents, &delta.carried[i].id) >= REPLICA_CONTENTS_FILLED)
            continue;
        /* Bytes that are not what they claim become some unreferenced content: harmless, and the named one is fetched. */
        rv = replica_contents_ingest(sync->table->contents, delta.carried[i].data,
                                     (size_t)delta.carried[i].id.length, &id);
        if (rv == REPLICA_E_NOSPACE)
            return 0;
    }
    return rv;
}

int gossip_sync_store(struct gossip_sync *sync, struct attached *attached, const uint8_t *record, size_t n,
                      struct gossip_update *update)
{
    int rv = replica_volume_store(attached->volume, record, n, &update->log);
    if (rv != 0)
        return rv;
    rv = ingest_carried(sync, record, n);
    gossip_update_note(update, GOSSIP_NOTE_STORED, &attached->id, NULL, NULL);
    return rv;
}

/* The source asked gave what it had, or a part of it. An answer without anything new teaches nothing, but whoever repeats the question at
 * once keeps both busy for nothing: two that lack the same would ask each other for ever, and never the one that has it. */
static void pull_answered(struct gossip_sync *sync, struct attached *attached, bool more, bool fresh,
                          const struct gossip_sync_event *event, struct gossip_update *update)
{
    memset(&attached->source, 0, sizeof attached->source);
    attached->pull_deadline_ms = fresh ? 0 : event->time.now_ms + sync->options.pull_ms;
    if (more && fresh)
        send_pull(sync, attached, &event->message.from->store, event->time, update);
}

struct deltas {
    struct replica_id volume;
    struct replica_vector committed;
    bool more;
    size_t count;
};

/* Reads through all of it. ret_records: the reader at its first record. */
static int read_deltas(const struct gossip_message *message, struct deltas *ret_deltas,
                       struct replica_pack_reader *ret_records)
{
    struct replica_pack_reader reader;
    size_t n;
    replica_pack_reader_init(&reader, message->payload, message->size);
    replica_pack_read_array(&reader, FIELDS_MAX, &n);
    replica_pack_read_id(&reader, &ret_deltas->volume);
    replica_vector_read(&reader, &ret_deltas->committed);
    replica_pack_read_bool(&reader, &ret_deltas->more);
    replica_pack_read_array(&reader, DELTAS_MAX, &ret_deltas->count);
    *ret_records = reader;
    for (size_t i = 0; i < ret_deltas->count && !reader.failed; i++) {
        struct replica_delta delta;
        const uint8_t *record;
        size_t size;
        if (replica_pack_read_bin(&reader, REPLICA_DELTA_SIZE_MAX, &record, &size) == 0 &&
            (replica_delta_decode(record, size, &delta) != 0 || delta.dot.seq == 0 ||
             !replica_id_equal(&delta.volume, &ret_deltas->volume)))
            return REPLICA_E_MALFORMED;
    }
    return finish_fields(&reader, n, 4);
}

static int store_deltas(struct gossip_sync *sync, struct attached *attached, const struct deltas *deltas,
                        struct replica_pack_reader *records, struct gossip_update *update)
{
    for (size_t i = 0; i < deltas->count; i++) {
        const uint8_t *record;
        size_t size;
        int rv = replica_pack_read_bin(records, REPLICA_DELTA_SIZE_MAX, &record, &size);
        if (rv == 0)
            rv = gossip_sync_store(sync, attached, record, size, update);
        if (rv != 0 && rv != REPLICA_E_EXISTS && rv != REPLICA_E_STALE)
            return rv;
    }
    return 0;
}

/* From the volume's voters only: a record names no signer. */
static int receive_deltas(struct gossip_sync *sync, const struct gossip_sync_event *event,
                          struct gossip_update *update)
{
    const struct replica_id *from = &event->message.from->store, *hint = from;
    struct replica_pack_reader records;
    struct replica_vector before;
    struct attached *attached;
    struct deltas deltas;
    bool rose;
    int rv;
    if (read_deltas(&event->message, &deltas, &records) != 0)
        return REPLICA_E_MALFORMED;
    attached = attached_find(sync->table, &deltas.volume);
    if (attached == NULL)
        return 0;
    if (!gossip_sync_from_voter(sync->control, &deltas.volume, event->message.from))
        return REPLICA_E_DENIED;
    if (image_is_coming(attached))
        return 0;
    before = replica_volume_state(attached->volume)->stored;
    rv = store_deltas(sync, attached, &deltas, &records, update);
    if (rv == 0)
        rv = replica_volume_commit(attached->volume, &deltas.committed, &update->log, &rose);
    if (rv != 0)
        return rv == REPLICA_E_TOOBIG ? REPLICA_E_MALFORMED : rv;
    if (rose)
        gossip_update_note(update, GOSSIP_NOTE_COMMITTED, &deltas.volume, NULL, NULL);
    replica_vector_join(&attached->target, &deltas.committed);
    if (event->message.type == MESSAGE_DELTAS) {
        if (replica_id_equal(&attached->source, from))
            pull_answered(sync, attached, deltas.more && deltas.count > 0,
                          !replica_vector_equal(&before, &replica_volume_state(attached->volume)->stored),
                          event, update);
        hint = NULL; /* it gave what it had */
    }
    attached->applying = true;
    continue_pull(sync, attached, hint, event->time, update);
    return 0;
}

/* Digests */

/* Of a volume nothing is said but to its voters, and to those who asked about it and may read it. */
static bool is_told(const struct gossip_sync *sync, const struct attached *attached,
                    const struct replica_id *store)
{
    return gossip_sync_is_voter(sync->control, &attached->id, store) || attached_is_reader(attached, store);
}

static void pack_digest_volume(const struct attached *attached, struct replica_buffer *out)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    replica_pack_id(out, &attached->id);
    replica_vector_pack(out, &state->committed);
    replica_vector_pack(out, &state->stored);
}

/* Returns how many volumes after digest_turn the first one lies that found no place. */
static size_t send_digest(struct gossip_sync *sync, const struct replica_id *to, bool answer,
                          struct gossip_update *update)
{
    struct replica_buffer payload, volumes;
    size_t n = 0, left_out = sync->table->n;
    replica_buffer_init(&volumes);
    for (size_t i = 0; i < sync->table->n && (n < DIGEST_VOLUMES_MAX || left_out > i); i++) {
        const struct attached *attached = sync->table->items[(sync->digest_turn + i) % sync->table->n];
        if (n < DIGEST_VOLUMES_MAX && is_told(sync, attached, to)) {
            pack_digest_volume(attached, &volumes);
            n++;
        } else if (left_out > i)
            left_out = i;
    }
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 2);
    replica_pack_bool(&payload, answer);
    replica_pack_array(&payload, n * 3);
    replica_buffer_append(&payload, volumes.data, volumes.size);
    if (volumes.failed)
        update->failed = true;
    else if (n > 0)
        gossip_update_send(update, to, GOSSIP_ROOM_SYNC, MESSAGE_DIGEST, &payload, true);
    replica_buffer_close(&volumes);
    replica_buffer_close(&payload);
    return left_out;
}

/* The next volume's turn: one of those who are told of it and seem alive, at random. */
static bool pick_told(struct gossip_sync *sync, const struct attached *attached, struct replica_id *ret_store)
{
    const struct gossip_volume *entry = gossip_control_volume(sync->control, &attached->id);
    struct replica_id told[GOSSIP_VOTERS_MAX + READERS_MAX];
    size_t n = 0;
    for (size_t i = 0; entry != NULL && i < entry->configuration.voters_n; i++)
        if (!replica_id_equal(&entry->configuration.voters[i], &sync->self) &&
            gossip_member_is_alive(sync->member, &entry->configuration.voters[i]))
            told[n++] = entry->configuration.voters[i];
    for (size_t i = 0; i < attached->readers_n; i++)
        if (!gossip_sync_is_voter(sync->control, &attached->id, &attached->readers[i]) &&
            gossip_member_is_alive(sync->member, &attached->readers[i]))
            told[n++] = attached->readers[i];
    if (n > 0)
        *ret_store = told[gossip_random_below(&sync->random, n)];
    return n > 0;
}

static void digest_some(struct gossip_sync *sync, struct gossip_update *update)
{
    struct replica_id to;
    size_t n = 1;
    if (sync->table->n == 0)
        return;
    sync->digest_turn %= sync->table->n;
    if (pick_told(sync, sync->table->items[sync->digest_turn], &to))
        n = send_digest(sync, &to, false, update);
    sync->digest_turn += n;
}

struct digest_volume {
    struct replica_id volume;
    struct replica_vector committed, stored;
};

static int read_digest_volume(struct replica_pack_reader *reader, struct digest_volume *ret_volume)
{
    replica_pack_read_id(reader, &ret_volume->volume);
    replica_vector_read(reader, &ret_volume->committed);
    replica_vector_read(reader, &ret_volume->stored);
    return reader->failed ? REPLICA_E_MALFORMED : 0;
}

static int take_digest_volume(struct gossip_sync *sync, const struct gossip_sync_event *event,
                              const struct digest_volume *theirs, bool *behind, struct gossip_update *update)
{
    const struct gossip_principal *from = event->message.from;
    const struct replica_volume_state *state;
    const struct replica_vector *wanted;
    struct attached *attached = attached_find(sync->table, &theirs->volume);
    bool rose, them, readable = may_read(sync, &theirs->volume, from);
    int rv;
    if (attached == NULL)
        return 0;
    attached_reader(attached, &from->store, readable);
    them = gossip_sync_from_voter(sync->control, &theirs->volume, from);
    state = replica_volume_state(attached->volume);
    if (readable && !replica_vector_covers(&theirs->stored, them ? &state->stored : &state->committed))
        *behind = true;
    if (!them)
        return 0; /* what only a cache says is news to nobody: voters will tell */
    rv = replica_volume_commit(attached->volume, &theirs->committed, &update->log, &rose);
    if (rv != 0)
        return rv == REPLICA_E_TOOBIG ? 0 : rv; /* of actors that never were */
    if (rose)
        gossip_update_note(update, GOSSIP_NOTE_COMMITTED, &theirs->volume, NULL, NULL);
    wanted = gossip_sync_is_voter(sync->control, &theirs->volume, &sync->self) ? &theirs->stored
                                                                               : &theirs->committed;
    if (lacks(attached, wanted)) {
        replica_vector_join(&attached->target, wanted);
        continue_pull(sync, attached, &from->store, event->time, update);
    }
    return 0;
}

static int receive_digest(struct gossip_sync *sync, const struct gossip_sync_event *event,
                          struct gossip_update *update)
{
    struct replica_pack_reader reader, volumes;
    struct digest_volume theirs;
    bool answer, behind = false;
    size_t n, count;
    replica_pack_reader_init(&reader, event->message.payload, event->message.size);
    replica_pack_read_array(&reader, FIELDS_MAX, &n);
    replica_pack_read_bool(&reader, &answer);
    replica_pack_read_array(&reader, DIGEST_VOLUMES_MAX * 3, &count);
    volumes = reader;
    for (size_t i = 0; i < count && !reader.failed; i += 3)
        (void)read_digest_volume(&reader, &theirs);
    if (finish_fields(&reader, n, 2) != 0 || count % 3 != 0)
        return REPLICA_E_MALFORMED;
    for (size_t i = 0; i < count; i += 3) {
        int rv = read_digest_volume(&volumes, &theirs);
        if (rv == 0)
            rv = take_digest_volume(sync, event, &theirs, &behind, update);
        if (rv != 0)
            return rv;
    }
    if (!answer && behind)
        (void)send_digest(sync, &event->message.from->store, true, update);
    return 0;
}

/* Pushing: the newest committed deltas go to a few at once. */

static int push_committed(struct gossip_sync *sync, struct attached *attached, struct gossip_update *update)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    struct replica_buffer records, payload;
    size_t count = 0;
    int rv = 0;
    if (!gossip_sync_is_voter(sync->control, &attached->id, &sync->self))
        return 0;
    replica_buffer_init(&records);
    replica_buffer_init(&payload);
    for (size_t i = 0; i < state->committed.n && rv == 0; i++) {
        const struct replica_actor *actor = &state->committed.entries[i].actor;
        uint64_t to = state->committed.entries[i].seq;
        if (replica_id_equal(&actor->store, &sync->self) && to <= replica_vector_get(&state->stored, actor))
            rv = pack_deltas(attached, actor, to, to, &records, &count, update);
    }
    if (rv == REPLICA_E_AGAIN)
        rv = 0;
    if (rv == 0 && count > 0) {
        replica_pack_array(&payload, 4);
        replica_pack_id(&payload, &attached->id);
        replica_vector_pack(&payload, &state->committed);
        replica_pack_bool(&payload, false);
        replica_pack_array(&payload, count);
        replica_buffer_append(&payload, records.data, records.size);
        for (uint32_t i = 0; i < sync->options.fanout; i++) {
            struct replica_id to;
            if (pick_told(sync, attached, &to))
                gossip_update_send(update, &to, GOSSIP_ROOM_SYNC, MESSAGE_PUSH, &payload, true);
        }
    }
    replica_buffer_close(&records);
    replica_buffer_close(&payload);
    return rv;
}

/* Applying */

static int apply_some(struct attached *attached, const struct gossip_sync_event *event,
                      struct gossip_update *update)
{
    uint64_t before = replica_volume_state(attached->volume)->applied_seq;
    struct replica_content_id wanted;
    size_t ordered;
    int rv = replica_volume_order(attached->volume, ORDER_MAX, &update->log, &ordered);
    if (rv != 0)
        return rv;
    if (ordered > 0)
        attached_mark(attached, event->batch);
    rv = replica_volume_apply(attached->volume, &update->reads, &update->log, &update->map, &wanted);
    attached->applying = rv == REPLICA_E_AGAIN || ordered == ORDER_MAX;
    if (rv != 0 && rv != REPLICA_E_AGAIN)
        return rv;
    if (wanted.length > 0 && !replica_content_id_equal(&wanted, &attached->wanted)) {
        attached->wanted = wanted;
        gossip_update_note(update, GOSSIP_NOTE_WANT, &attached->id, NULL, &wanted);
    }
    if (replica_volume_state(attached->volume)->applied_seq != before)
        gossip_update_note(update, GOSSIP_NOTE_APPLIED, &attached->id, NULL, NULL);
    if (attached->applying)
        update->again = true;
    return 0;
}

static int apply_all(struct gossip_sync *sync, const struct gossip_sync_event *event,
                     struct gossip_update *update)
{
    for (size_t i = 0; i < sync->table->n; i++) {
        struct attached *attached = sync->table->items[i];
        int rv;
        if (!attached->applying)
            continue;
        /* The map's reads are scans, which do not see what this very step is about to write. */
        if (update->map.count > 0 || update->reads >= GOSSIP_STEP_READS_MAX) {
            update->again = true;
            return 0;
        }
        rv = apply_some(attached, event, update);
        if (rv != 0)
            return rv;
        if (replica_volume_checkpoint_age(attached->volume) >= CHECKPOINT_DELTAS && sync_map(sync, update)) {
            attached->checkpointing = true;
            replica_volume_checkpoint_take(attached->volume);
        }
    }
    return 0;
}

bool sync_map(struct gossip_sync *sync, struct gossip_update *update)
{
    if (sync->map_syncing)
        return false;
    sync->map_syncing = update->map_sync = true;
    return true;
}

static int map_synced(struct gossip_sync *sync, struct gossip_update *update)
{
    sync->map_syncing = false;
    update->again = true; /* others may have waited to ask */
    for (size_t i = 0; i < sync->table->n; i++) {
        int rv = image_map_synced(sync->table->items[i], update);
        if (rv != 0)
            return rv;
        if (!sync->table->items[i]->checkpointing)
            continue;
        sync->table->items[i]->checkpointing = false;
        rv = replica_volume_checkpoint_write(sync->table->items[i]->volume, &update->log);
        if (rv != 0)
            return rv;
    }
    return 0;
}

static int tick(struct gossip_sync *sync, const struct gossip_sync_event *event, struct gossip_update *update)
{
    if (event->time.now_ms >= sync->digest_at_ms) {
        digest_some(sync, update);
        sync->digest_at_ms = event->time.now_ms + sync->options.digest_ms / 2 +
                             gossip_random_below(&sync->random, sync->options.digest_ms);
    }
    gossip_update_wake(update, sync->digest_at_ms);
    for (size_t i = 0; i < sync->table->n; i++) {
        int rv = image_tick(sync, sync->table->items[i], event, update);
        if (rv != 0)
            return rv;
        continue_pull(sync, sync->table->items[i], NULL, event->time, update);
    }
    return 0;
}

static int receive_image(struct gossip_sync *sync, const struct gossip_sync_event *event,
                         struct gossip_update *update)
{
    struct replica_pack_reader reader;
    struct replica_id volume;
    struct attached *attached;
    size_t n;
    replica_pack_reader_init(&reader, event->message.payload, event->message.size);
    replica_pack_read_array(&reader, FIELDS_MAX, &n);
    replica_pack_read_id(&reader, &volume);
    if (reader.failed || n < (event->message.type == MESSAGE_IMAGE_PART   ? 4u
                              : event->message.type == MESSAGE_IMAGE_PULL ? 3u
                                                                          : 2u))
        return REPLICA_E_MALFORMED;
    attached = attached_find(sync->table, &volume);
    if (attached == NULL)
        return 0;
    if (event->message.type == MESSAGE_IMAGE_OFFER)
        return image_receive_offer(sync, attached, event, &reader, update);
    if (event->message.type == MESSAGE_IMAGE_PART)
        return image_receive_part(sync, attached, event, &reader, update);
    if (!may_read(sync, &volume, event->message.from))
        return REPLICA_E_DENIED;
    return image_serve(attached, event, &reader, update);
}

static int receive(struct gossip_sync *sync, const struct gossip_sync_event *event,
                   struct gossip_update *update)
{
    switch (event->message.type) {
    case MESSAGE_DIGEST:
        return receive_digest(sync, event, update);
    case MESSAGE_PULL:
        return serve_pull(sync, event, update);
    case MESSAGE_DELTAS:
    case MESSAGE_PUSH:
        return receive_deltas(sync, event, update);
    case MESSAGE_IMAGE_OFFER:
    case MESSAGE_IMAGE_PULL:
    case MESSAGE_IMAGE_PART:
        return receive_image(sync, event, update);
    default:
        return REPLICA_E_MALFORMED;
    }
}

int gossip_sync_step(struct gossip_sync *sync, const struct gossip_sync_event *event,
                     struct gossip_update *update)
{
    struct attached *attached = attached_find(sync->table, &event->volume);
    int rv = 0;
    switch (event->kind) {
    case GOSSIP_SYNC_EVENT_TIMER:
        rv = tick(sync, event, update);
        break;
    case GOSSIP_SYNC_EVENT_MESSAGE:
        rv = receive(sync, event, update);
        break;
    case GOSSIP_SYNC_EVENT_PULL:
        if (attached != NULL)
            continue_pull(sync, attached, &event->store, event->time, update);
        break;
    case GOSSIP_SYNC_EVENT_COMMITTED:
        if (attached != NULL) {
            attached->applying = true;
            rv = push_committed(sync, attached, update);
        }
        break;
    case GOSSIP_SYNC_EVENT_STORED:
        if (attached != NULL)
            attached->applying = true;
        break;
    case GOSSIP_SYNC_EVENT_HAVE:
        for (size_t i = 0; i < sync->table->n; i++)
            if (sync->table->items[i]->wanted.length > 0 &&
                replica_content_id_equal(&sync->table->items[i]->wanted, &event->content)) {
                memset(&sync->table->items[i]->wanted, 0, sizeof event->content);
                sync->table->items[i]->applying = true;
            }
        break;
    case GOSSIP_SYNC_EVENT_SYNCED:
        for (size_t i = 0; i < sync->table->n; i++)
            attached_synced(sync->table->items[i], event->synced);
        break;
    case GOSSIP_SYNC_EVENT_MAP_SYNCED:
        rv = map_synced(sync, update);
        break;
    }
    if (rv == 0)
        rv = apply_all(sync, event, update);
    return rv;
}
