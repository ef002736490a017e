/* A whole peer among members that send anything at all: it must neither stop, nor assert, nor go on for ever.
 *
 * The input is a program. Its first byte says who this node is: a member of the control log and a voter of
 * the volume, or a cache that copies. Then each op is a byte: a message of any room and type from any member,
 * whose payload is bytes of the input in which 0xc1, a byte that MessagePack never uses, stands for a piece
 * of the world by number (ids, a delta record, …); a message that this node sent, sent back by somebody, with
 * a byte changed; time; a local request. */
#include "control/control.h"
#include "gossip/peer.h"
#include "peer/peer.h"
#include "replica/contents_memory.h"
#include "replica/image.h"
#include "replica/kv_memory.h"
#include "swarm/swarm.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define OPS_MAX          48
#define STEPS_MAX        20000 /* for one event; more is a loop without progress */
#define SENT_MAX         32
#define MEMBERS          5 /* this node is the first; 1 and 2 are voters, 3 a cache, 4 may only read */
#define PIECES           16
#define CONTENT_SIZE_HAD 70000

struct sent {
    enum gossip_room room;
    uint8_t type;
    struct replica_buffer payload;
};

struct world {
    const uint8_t *data;
    size_t n, at;
    struct replica_kv *log, *map;
    struct replica_contents *contents;
    struct gossip_peer *peer;
    struct gossip_update update;
    struct gossip_principal principals[MEMBERS];
    struct replica_id volume, view;
    struct replica_buffer pieces[PIECES];
    struct sent sent[SENT_MAX];
    size_t sent_at;
    uint64_t now_ms, batch, synced, token;
};

static void step(struct world *world, struct gossip_peer_event *event);

static struct replica_id id(uint8_t byte)
{
    struct replica_id id;
    memset(&id, byte, sizeof id);
    return id;
}

static uint8_t next(struct world *world)
{
    return world->at < world->n ? world->data[world->at++] : 0;
}

/* What an earlier life left: the identity of the cluster, and the volume's record. */
static void write_past(struct world *world, bool member)
{
    struct gossip_volume volume = {.id = world->volume, .name = "models", .version = 2, .created_ms = 1};
    struct gossip_update *update = &world->update;
    struct control_registry *registry = calloc(1, sizeof *registry);
    struct replica_id cluster = id(0xcc), nobody = id(0);
    struct replica_buffer value;
    uint8_t attached[1 + REPLICA_ID_SIZE] = {'A'};
    assert(registry != NULL);
    volume.creator = world->principals[0].store;
    volume.voters_wanted = 3;
    volume.index = 1;
    volume.configuration = (struct gossip_configuration){.epoch = 1, .phase = GOSSIP_PHASE_FINAL};
    for (size_t i = 0; i < 3; i++)
        volume.configuration.voters[i] = world->principals[member ? i : i + 1].store;
    volume.configuration.voters_n = 3;
    registry->index = 1;
    control_registry_write_volume(&volume, update);
    control_registry_write_state(registry, update);
    replica_buffer_init(&value);
    replica_pack_array(&value, 3);
    replica_pack_id(&value, &cluster);
    replica_pack_array(&value, 3);
    for (size_t i = 0; i < 3; i++)
        replica_pack_id(&value, &world->principals[member ? i : i + 1].store);
    replica_pack_id(&value, &nobody);
    replica_kv_batch_put(&update->log, "Rb", 2, value.data, value.size);
    if (member) {
        replica_buffer_clear(&value); /* the entry that made the volume was cut off the log */
        replica_pack_array(&value, 2);
        replica_pack_uint(&value, 1);
        replica_pack_uint(&value, 1);
        replica_kv_batch_put(&update->log, "Rl", 2, value.data, value.size);
        replica_buffer_clear(&value);
        replica_pack_array(&value, 2);
        replica_pack_uint(&value, 1);
        replica_pack_id(&value, &nobody);
        replica_kv_batch_put(&update->log, "Rs", 2, value.data, value.size);
    }
    memcpy(attached + 1, world->volume.bytes, REPLICA_ID_SIZE);
    replica_kv_batch_put(&update->log, attached, sizeof attached, "", 0);
    assert(replica_kv_write(world->log, &update->log) == 0 && replica_kv_sync(world->log) == 0);
    replica_buffer_close(&value);
    free(registry);
}

static void make_delta(struct replica_buffer *out, const struct replica_id *volume,
                       const struct replica_actor *actor, uint64_t seq, uint8_t commit)
{
    struct replica_delta *delta = calloc(1, sizeof *delta);
    struct replica_buffer ops;
    struct replica_op op;
    assert(delta != NULL);
    memset(&op, 0, sizeof op);
    op.target = REPLICA_TARGET_PATH;
    op.path = (struct replica_path){.text = "a/b", .size = 3};
    op.entry = (struct replica_entry){.kind = REPLICA_KIND_FILE, .mode = 0644, .size = 3};
    op.entry.blob =
        (struct replica_blob){.kind = REPLICA_BLOB_INLINE, .data = (const uint8_t *)"abc", .size = 3};
    replica_buffer_init(&ops);
    replica_op_pack(&ops, &op);
    delta->volume = *volume;
    delta->commit = id(commit);
    delta->node = actor->store;
    delta->op_count = 1;
    delta->byte_count = 3;
    delta->ops = ops.data;
    delta->ops_size = ops.size;
    if (seq > 0) {
        delta->stamp_hlc = 1000 + seq;
        delta->dot = (struct replica_dot){.actor = *actor, .seq = seq};
    }
    replica_delta_pack(out, delta);
    replica_buffer_close(&ops);
    free(delta);
}

static void make_pieces(struct world *world)
{
    struct replica_actor actor = {.store = world->principals[1].store, .epoch = 1};
    static const uint8_t bytes[CONTENT_SIZE_HAD] = {1};
    struct replica_content_id had, wanted = {.length = 5 << 20};
    struct replica_buffer record, *pieces = world->pieces;
    struct replica_vector vector;
    struct replica_image image;
    size_t k = 0;
    memset(&vector, 0, sizeof vector);
    memset(&image, 0, sizeof image);
    memset(wanted.root, 7, sizeof wanted.root);
    assert(replica_contents_ingest(world->contents, bytes, sizeof bytes, &had) == 0);
    for (size_t i = 0; i < 3; i++, k++)
        replica_pack_id(&pieces[k], &world->principals[i].store);
    replica_pack_id(&pieces[k++], &(struct replica_id){.bytes = {0xcc}});
    memset(pieces[3].data + pieces[3].size - REPLICA_ID_SIZE, 0xcc, REPLICA_ID_SIZE); /* the cluster */
    replica_pack_id(&pieces[k++], &world->volume);
    replica_vector_pack(&pieces[k++], &vector);
    assert(replica_vector_set(&vector, &actor, 2) == 0);
    replica_vector_pack(&pieces[k++], &vector);
    replica_pack_content_id(&pieces[k++], &had);
    replica_pack_content_id(&pieces[k++], &wanted);
    replica_buffer_init(&record);
    for (uint64_t seq = 0; seq < 3; seq++) {
        replica_buffer_clear(&record);
        make_delta(&record, &world->volume, &actor, seq, (uint8_t)(0x40 + seq));
        replica_pack_bin(&pieces[k++], record.data, record.size);
    }
    replica_buffer_close(&record);
    image.apply_seq = 2;
    image.applied = vector;
    replica_image_pack(&pieces[k++], &image);
    pieces[k].size = 0;
    replica_pack_uint(&pieces[k++], 1);                  /* the epoch */
    replica_pack_uint(&pieces[k++], GOSSIP_PHASE_FINAL); /* its phase */
    replica_pack_id(&pieces[k++], &world->view);
    assert(k == PIECES);
}

static void open_world(struct world *world, const uint8_t *data, size_t n)
{
    struct gossip_peer_event start = {.kind = GOSSIP_PEER_EVENT_START};
    struct gossip_peer_options options;
    bool member;
    memset(world, 0, sizeof *world);
    world->data = data;
    world->n = n;
    world->now_ms = 1;
    world->volume = id(0x77);
    world->view = id(0x99);
    member = next(world) % 2 == 0;
    for (size_t i = 0; i < MEMBERS; i++) {
        world->principals[i].store = id((uint8_t)(i + 1));
        world->principals[i].role = i < 3 ? GOSSIP_ROLE_VOTER : GOSSIP_ROLE_CACHE;
        world->principals[i].every_volume = i < 4;
    }
    assert(replica_kv_memory_new(&world->log) == 0 && replica_kv_memory_new(&world->map) == 0);
    assert(replica_contents_memory_new(&world->contents) == 0);
    gossip_update_init(&world->update);
    for (size_t i = 0; i < PIECES; i++)
        replica_buffer_init(&world->pieces[i]);
    make_pieces(world);
    write_past(world, member);
    gossip_peer_options_default(&options);
    options.control.begin = GOSSIP_BEGIN_WAIT;
    options.principal = world->principals[0];
    options.self.store = world->principals[0].store;
    options.self.generation = 1;
    options.self.roles = GOSSIP_MEMBER_VOTE;
    strcpy(options.self.endpoint, "tcp://127.0.0.1:1000");
    options.seed = 1;
    assert(gossip_peer_new(&options, world->log, world->map, world->contents, &world->peer) == 0);
    step(world, &start);
}

static void close_world(struct world *world)
{
    gossip_peer_destroy(&world->peer);
    gossip_update_close(&world->update);
    replica_contents_destroy(&world->contents);
    replica_kv_destroy(&world->log);
    replica_kv_destroy(&world->map);
    for (size_t i = 0; i < PIECES; i++)
        replica_buffer_close(&world->pieces[i]);
    for (size_t i = 0; i < SENT_MAX; i++)
        replica_buffer_close(&world->sent[i].payload);
}

/* Carrying out */

/* What goes to this node itself comes back to it; the rest is kept, to be sent back by others. */
static size_t keep_sends(struct world *world, struct sent *own, size_t own_max)
{
    struct gossip_update *update = &world->update;
    size_t own_n = 0;
    for (size_t i = 0; i < update->sends_n; i++) {
        const struct gossip_send *send = &update->sends[i];
        bool loops = replica_id_equal(&send->to, &world->principals[0].store) && own_n < own_max;
        struct sent *sent = loops ? &own[own_n++] : &world->sent[world->sent_at++ % SENT_MAX];
        if (loops)
            replica_buffer_init(&sent->payload);
        sent->room = send->room;
        sent->type = send->type;
        replica_buffer_clear(&sent->payload);
        if (send->size > 0)
            assert(replica_buffer_append(&sent->payload, update->bytes.data + send->offset, send->size) == 0);
        assert(send->size <= GOSSIP_MESSAGE_SIZE_MAX);
    }
    return own_n;
}

static bool is_empty(const struct gossip_update *update)
{
    bool empty = update->log.count == 0 && update->map.count == 0;
    for (size_t i = 0; i < update->sends_n && empty; i++)
        empty = !update->sends[i].durable;
    for (size_t i = 0; i < update->answers_n && empty; i++)
        empty = !update->answers[i].durable;
    return empty;
}

static bool one_step(struct world *world, struct gossip_peer_event *event)
{
    struct gossip_update *update = &world->update;
    event->time = (struct gossip_time){.now_ms = world->now_ms, .wall_ms = 1700000000000u + world->now_ms};
    event->batch = world->batch + 1;
    event->synced = world->synced;
    gossip_update_clear(update);
    assert(gossip_peer_step(world->peer, event, update) == 0);
    assert(!update->failed);
    if (!is_empty(update))
        world->batch++;
    if (update->log.count > 0)
        assert(replica_kv_write(world->log, &update->log) == 0);
    if (update->map.count > 0)
        assert(replica_kv_write(world->map, &update->map) == 0);
    swarm_check_invariants(world->peer->swarm);
    return update->again;
}

/* The event, then everything that follows from it: syncs, messages to itself, continuations. */
static void step(struct world *world, struct gossip_peer_event *event)
{
    struct gossip_peer_event follow = *event;
    struct sent own[SENT_MAX];
    size_t own_n = 0, own_at = 0;
    bool again = false, map_sync = false;
    for (size_t steps = 0;; steps++) {
        assert(steps < STEPS_MAX);
        again = one_step(world, &follow);
        map_sync = map_sync || world->update.map_sync;
        own_n += keep_sends(world, own + own_n, SENT_MAX - own_n);
        memset(&follow, 0, sizeof follow);
        follow.kind = GOSSIP_PEER_EVENT_TIMER;
        if (again)
            continue;
        if (world->synced < world->batch) {
            assert(replica_contents_sync(world->contents) == 0 && replica_kv_sync(world->log) == 0);
            world->synced = world->batch;
            follow.kind = GOSSIP_PEER_EVENT_SYNCED;
        } else if (map_sync) {
            map_sync = false;
            follow.kind = GOSSIP_PEER_EVENT_MAP_SYNCED;
        } else if (own_at < own_n) {
            follow.kind = GOSSIP_PEER_EVENT_MESSAGE;
            follow.room = own[own_at].room;
            follow.message = (struct gossip_message){.from = &world->principals[0],
                                                     .type = own[own_at].type,
                                                     .payload = own[own_at].payload.data,
                                                     .size = own[own_at].payload.size};
            own_at++;
        } else {
            break;
        }
    }
    for (size_t i = 0; i < own_n; i++)
        replica_buffer_close(&own[i].payload);
}

/* Ops */

static void send(struct world *world, enum gossip_room room, uint8_t type, size_t from,
                 const struct replica_buffer *payload)
{
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_MESSAGE, .room = room};
    uint8_t *exact = malloc(payload->size + 1); /* so that reading past the end is noticed */
    assert(exact != NULL);
    exact = realloc(exact, payload->size > 0 ? payload->size : 1);
    assert(exact != NULL);
    if (payload->size > 0)
        memcpy(exact, payload->data, payload->size);
    event.message = (struct gossip_message){
        .from = &world->principals[from], .type = type, .payload = exact, .size = payload->size};
    step(world, &event);
    free(exact);
}

static void say(struct world *world)
{
    enum gossip_room room = (enum gossip_room)(next(world) % GOSSIP_ROOM_N);
    uint8_t type = next(world);
    size_t from = 1 + next(world) % (MEMBERS - 1), n = next(world);
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    for (size_t i = 0; i < n && world->at < world->n; i++) {
        uint8_t byte = next(world);
        const struct replica_buffer *piece = byte == 0xc1 ? &world->pieces[next(world) % PIECES] : NULL;
        assert(replica_buffer_append(&payload, piece != NULL ? piece->data : &byte,
                                     piece != NULL ? piece->size : 1) == 0);
    }
    send(world, room, type, from, &payload);
    replica_buffer_close(&payload);
}

static void send_back(struct world *world)
{
    const struct sent *sent = &world->sent[next(world) % SENT_MAX];
    size_t from = 1 + next(world) % (MEMBERS - 1), at = (size_t)next(world) << 8;
    uint8_t low = next(world), byte = next(world);
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    if (sent->payload.size > 0) {
        assert(replica_buffer_append(&payload, sent->payload.data, sent->payload.size) == 0);
        payload.data[(at | low) % payload.size] ^= byte;
    }
    send(world, sent->room, sent->type, from, &payload);
    replica_buffer_close(&payload);
}

static int put(void *context, struct replica_view *view, struct replica_kv_batch *log)
{
    struct replica_entry entry = {.kind = REPLICA_KIND_FILE, .mode = 0600, .size = 2};
    (void)context;
    entry.blob = (struct replica_blob){.kind = REPLICA_BLOB_INLINE, .data = (const uint8_t *)"hi", .size = 2};
    return replica_view_put(view, (struct replica_path){.text = "x", .size = 1}, &entry, log);
}

static void request(struct world *world)
{
    static const enum gossip_peer_request_kind kinds[] = {
        GOSSIP_PEER_VIEW_OPEN, GOSSIP_PEER_VIEW_EDIT, GOSSIP_PEER_COMMIT, GOSSIP_PEER_RELOAD,
        GOSSIP_PEER_FETCH,     GOSSIP_PEER_OFFER,     GOSSIP_PEER_CONTROL};
    struct gossip_peer_request request = {.kind = kinds[next(world) % (sizeof kinds / sizeof kinds[0])],
                                          .token = ++world->token,
                                          .view = world->view,
                                          .volume = world->volume,
                                          .mode = GOSSIP_RELOAD_QUORUM,
                                          .edit = put,
                                          .content = {.length = 5 << 20},
                                          .offered_n = 1};
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_REQUEST, .request = &request};
    memset(request.content.root, 7, sizeof request.content.root);
    request.offered = &request.content;
    request.view_options.id = world->view;
    request.view_options.volume = world->volume;
    request.control = (struct gossip_control_request){
        .kind = GOSSIP_CONTROL_CREATE, .name = "other", .if_missing = true, .voters_wanted = 1};
    if (request.kind == GOSSIP_PEER_VIEW_OPEN) {
        request.mode = GOSSIP_RELOAD_LOCAL;
        if (replica_view_find(world->peer->views, &world->view) != NULL)
            return;
    }
    step(world, &event);
}

static void pass_time(struct world *world)
{
    static const uint64_t spans[] = {1, 50, 500, 1500, 5000, 61000};
    struct gossip_peer_event event = {.kind = GOSSIP_PEER_EVENT_TIMER};
    world->now_ms += spans[next(world) % (sizeof spans / sizeof spans[0])];
    step(world, &event);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct world world;
    open_world(&world, data, n);
    for (size_t ops = 0; ops < OPS_MAX && world.at < world.n; ops++) {
        switch (next(&world) % 8) {
        case 0:
            pass_time(&world);
            break;
        case 1:
            request(&world);
            break;
        case 2:
        case 3:
            send_back(&world);
            break;
        default:
            say(&world);
        }
    }
    close_world(&world);
    return 0;
}
