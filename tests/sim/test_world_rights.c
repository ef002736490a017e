/* What a credential allows, asked of a voter message by message; and that nothing is said of a volume, nor believed, beyond it.
 * docs/protocol.md, "What a credential allows", has the same table. That an expired credential ends its links is the
 * transport's: tests/unit/test_node_transport_hostile.c. */
#include "world_support.h"

#include "control/control.h"
#include "peer/peer.h"
#include "replica/delta.h"
#include "replica/error.h"
#include "replica/merkle.h"
#include "swarm/swarm.h"
#include "sync/image.h"

#include <stdio.h>

#define SIZE    100000 /* lies in a content of its own, and does not travel in the delta */
#define CACHE   3
#define VOLUME  "models"
#define ANOTHER "secret"

enum { SYNC_DIGEST = 1, SYNC_PULL = 2, SYNC_DELTAS = 3, SYNC_PUSH = 4 };

/* Credentials */

static struct gossip_principal principal_of(enum gossip_role role, const char *volume, bool read_only)
{
    struct gossip_principal principal = {.role = role, .every_volume = volume == NULL};
    struct replica_hash hash;
    memset(principal.store.bytes, 0xee, sizeof principal.store.bytes);
    if (volume == NULL)
        return principal;
    replica_hash_bytes(volume, strlen(volume), &hash);
    memcpy(principal.volumes[0].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE);
    principal.volumes[0].read_only = read_only;
    principal.volumes_n = 1;
    return principal;
}

/* A world */

struct rights {
    struct test_three three;
    struct world *world;
    struct replica_id another;
    struct replica_id view; /* node 0's, of the other volume */
    struct replica_content_id content, hidden;
    size_t leader;
};

static struct replica_content_id put_content(struct world *world, const struct replica_id *view,
                                             uint64_t seed)
{
    static uint8_t bytes[SIZE];
    struct replica_content_id content;
    test_fill(bytes, sizeof bytes, seed);
    assert_int_equal(world_put(world, 0, view, "file", bytes, sizeof bytes), 0);
    assert_int_equal(world_commit(world, 0, view), 0);
    replica_merkle_content(bytes, sizeof bytes, &content);
    return content;
}

static size_t leader_of(const struct world *world)
{
    struct gossip_control_status status;
    gossip_control_status(gossip_peer_control(world_peer(world, 0)), &status);
    for (size_t i = 0; i < 3; i++) {
        struct replica_id store = world_store(world, i);
        if (replica_id_equal(&store, &status.leader))
            return i;
    }
    fail_msg("nobody leads");
    return 0;
}

/* Only to read: it may be no more than that. */
static void open_cache(const struct rights *rights)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_VIEW_OPEN};
    request.view_options.volume = rights->three.volume;
    request.view_options.flags = REPLICA_VIEW_READ_ONLY;
    assert_int_equal(world_call_wait(rights->world, world_request_start(rights->world, CACHE, &request)), 0);
}

/* Three voters, two volumes with a content each, and one cache with that credential. */
static void begin(struct rights *rights, const struct gossip_principal *cache)
{
    struct world_options options;
    memset(rights, 0, sizeof *rights);
    world_options_default(&options);
    options.nodes = 4;
    rights->world = rights->three.world = test_world(&options);
    if (cache != NULL)
        world_set_principal(rights->world, CACHE, cache);
    assert_true(world_begin_cluster(rights->world, 30000));
    assert_int_equal(world_create_volume(rights->world, 0, VOLUME, &rights->three.volume), 0);
    assert_int_equal(world_create_volume(rights->world, 0, ANOTHER, &rights->another), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(world_open_view(rights->world, i, &rights->three.volume, &rights->three.views[i]),
                         0);
    open_cache(rights);
    assert_int_equal(world_open_view(rights->world, 0, &rights->another, &rights->view), 0);
    rights->content = put_content(rights->world, &rights->three.views[0], 1);
    rights->hidden = put_content(rights->world, &rights->view, 2);
    rights->leader = leader_of(rights->world);
    test_sound(rights->world);
}

/* Messages, all of VOLUME and well-formed */

static const struct gossip_volume *entry_of(const struct rights *rights)
{
    return gossip_control_volume(gossip_peer_control(world_peer(rights->world, 0)), &rights->three.volume);
}

static void pack_volume_head(struct replica_buffer *out, const struct rights *rights, size_t fields)
{
    const struct gossip_volume *entry = entry_of(rights);
    replica_pack_array(out, fields);
    replica_pack_id(out, &entry->id);
    replica_pack_uint(out, entry->configuration.epoch);
    replica_pack_uint(out, entry->configuration.phase);
}

static void make_ping(const struct rights *rights, const struct gossip_principal *from,
                      struct replica_buffer *out)
{
    (void)rights;
    replica_pack_array(out, 5);
    replica_pack_array(out, 10);
    replica_pack_id(out, &from->store);
    for (size_t i = 0; i < 5; i++) /* generation, incarnation, alive, roles, capacity */
        replica_pack_uint(out, 0);
    replica_pack_cstr(out, "name");
    replica_pack_cstr(out, "zone");
    replica_pack_cstr(out, "tcp://10.9.9.9:7000");
    replica_pack_cstr(out, "1");
    replica_pack_uint(out, 1);
    replica_pack_id(out, &from->store);
    replica_pack_bool(out, false);
    replica_pack_array(out, 0);
}

static void control_head(const struct rights *rights, struct replica_buffer *out, size_t fields)
{
    struct replica_id cluster = gossip_control_cluster(gossip_peer_control(world_peer(rights->world, 0)));
    replica_pack_array(out, fields + 1);
    replica_pack_id(out, &cluster);
}

static void make_control_pull(const struct rights *rights, const struct gossip_principal *from,
                              struct replica_buffer *out)
{
    struct replica_id nobody = {{0}};
    (void)from;
    control_head(rights, out, 3);
    replica_pack_uint(out, 0);
    replica_pack_uint(out, 0);
    replica_pack_id(out, &nobody);
}

static void make_who(const struct rights *rights, const struct gossip_principal *from,
                     struct replica_buffer *out)
{
    (void)from;
    control_head(rights, out, 0);
}

static void make_fresh(const struct rights *rights, const struct gossip_principal *from,
                       struct replica_buffer *out)
{
    struct replica_id nobody = {{0}};
    (void)from;
    control_head(rights, out, 2);
    replica_pack_uint(out, 3);
    replica_pack_id(out, &nobody);
}

static void make_append(const struct rights *rights, const struct gossip_principal *from,
                        struct replica_buffer *out)
{
    (void)from;
    control_head(rights, out, 5);
    replica_pack_uint(out, 1000); /* a term that would depose the leader */
    for (size_t i = 0; i < 3; i++)
        replica_pack_uint(out, 0);
    replica_pack_array(out, 0);
}

static void pack_proposal(const struct rights *rights, enum control_kind kind, const char *name,
                          const char *new_name, struct replica_buffer *out)
{
    static uint8_t number;
    struct control_proposal proposal = {.kind = kind, .voters_wanted = 3, .if_missing = true};
    memset(proposal.id.bytes, ++number, sizeof proposal.id.bytes);
    strcpy(proposal.name, name);
    strcpy(proposal.new_name, new_name);
    control_head(rights, out, 1);
    control_proposal_pack(out, &proposal);
}

static void make_look_up(const struct rights *rights, const struct gossip_principal *from,
                         struct replica_buffer *out)
{
    (void)from;
    pack_proposal(rights, CONTROL_LOOKUP, VOLUME, "", out);
}

static void make_create(const struct rights *rights, const struct gossip_principal *from,
                        struct replica_buffer *out)
{
    (void)from;
    pack_proposal(rights, CONTROL_CREATE, VOLUME, "", out);
}

static void make_rename(const struct rights *rights, const struct gossip_principal *from,
                        struct replica_buffer *out)
{
    (void)from;
    pack_proposal(rights, CONTROL_RENAME, VOLUME, ANOTHER, out);
}

static void make_outcome(const struct rights *rights, const struct gossip_principal *from,
                         struct replica_buffer *out)
{
    struct control_outcome outcome = {.index = 1};
    control_head(rights, out, 1);
    outcome.id = from->store;
    control_outcome_pack(out, &outcome);
}

/* As one that has nothing, so that the receiver has something to tell. */
static void make_digest(const struct rights *rights, const struct gossip_principal *from,
                        struct replica_buffer *out)
{
    const struct replica_vector nothing = {.n = 0};
    (void)from;
    replica_pack_array(out, 2);
    replica_pack_bool(out, false);
    replica_pack_array(out, 3);
    replica_pack_id(out, &rights->three.volume);
    replica_vector_pack(out, &nothing);
    replica_vector_pack(out, &nothing);
}

static void make_pull(const struct rights *rights, const struct gossip_principal *from,
                      struct replica_buffer *out)
{
    const struct replica_vector nothing = {.n = 0};
    (void)from;
    replica_pack_array(out, 3);
    replica_pack_id(out, &rights->three.volume);
    replica_vector_pack(out, &nothing);
    replica_pack_bool(out, true);
}

static void make_deltas(const struct rights *rights, const struct gossip_principal *from,
                        struct replica_buffer *out)
{
    const struct replica_vector nothing = {.n = 0};
    (void)from;
    replica_pack_array(out, 4);
    replica_pack_id(out, &rights->three.volume);
    replica_vector_pack(out, &nothing);
    replica_pack_bool(out, false);
    replica_pack_array(out, 0);
}

static void make_image_offer(const struct rights *rights, const struct gossip_principal *from,
                             struct replica_buffer *out)
{
    struct replica_image image;
    (void)from;
    replica_image_describe(world_volume(rights->world, 0, &rights->three.volume), &image);
    replica_pack_array(out, 2);
    replica_pack_id(out, &rights->three.volume);
    replica_image_pack(out, &image);
}

static void make_image_pull(const struct rights *rights, const struct gossip_principal *from,
                            struct replica_buffer *out)
{
    (void)from;
    replica_pack_array(out, 3);
    replica_pack_id(out, &rights->three.volume);
    replica_pack_uint(out, 1);
    replica_pack_bin(out, "", 0);
}

static void pack_record(const struct rights *rights, const struct gossip_principal *from, bool minted,
                        struct replica_buffer *out)
{
    struct replica_op op = {.target = REPLICA_TARGET_PATH, .path = {"planted", 7}};
    struct replica_delta delta = {.volume = rights->three.volume, .node = from->store, .op_count = 1};
    struct replica_buffer ops, record;
    struct replica_id voter = world_store(rights->world, 0);
    replica_buffer_init(&ops);
    replica_buffer_init(&record);
    op.entry.kind = REPLICA_KIND_DIRECTORY;
    op.entry.mode = 0755;
    replica_op_pack(&ops, &op);
    memset(delta.commit.bytes, (int)from->role + 0x77, sizeof delta.commit.bytes);
    delta.ops = ops.data;
    delta.ops_size = ops.size;
    if (minted) {
        delta.stamp_hlc = 1;
        delta.dot.actor.store = voter;
        delta.dot.actor.epoch = 1;
        delta.dot.seq = 2;
    }
    replica_delta_pack(&record, &delta);
    replica_pack_bin(out, record.data, record.size);
    replica_buffer_close(&ops);
    replica_buffer_close(&record);
}

static void make_prepare(const struct rights *rights, const struct gossip_principal *from,
                         struct replica_buffer *out)
{
    pack_volume_head(out, rights, 4);
    pack_record(rights, from, false, out);
}

static void make_replicate(const struct rights *rights, const struct gossip_principal *from,
                           struct replica_buffer *out)
{
    pack_volume_head(out, rights, 4);
    pack_record(rights, from, true, out);
}

/* Of what was never prepared. */
static void make_mint(const struct rights *rights, const struct gossip_principal *from,
                      struct replica_buffer *out)
{
    const struct gossip_volume *entry = entry_of(rights);
    struct replica_id commit = {{0x11}};
    (void)from;
    replica_pack_array(out, 5);
    replica_pack_id(out, &entry->id);
    replica_pack_id(out, &commit);
    replica_pack_uint(out, entry->configuration.epoch);
    replica_pack_uint(out, entry->configuration.phase);
    replica_pack_uint(out, 1);
}

static void make_ask(const struct rights *rights, const struct gossip_principal *from,
                     struct replica_buffer *out)
{
    const struct replica_vector nothing = {.n = 0};
    struct replica_id nobody = {{0}};
    (void)from;
    replica_pack_array(out, 4);
    replica_pack_id(out, &rights->three.volume);
    replica_pack_uint(out, 1);
    replica_vector_pack(out, &nothing);
    replica_pack_id(out, &nobody);
}

static void make_offer(const struct rights *rights, const struct gossip_principal *from,
                       struct replica_buffer *out)
{
    (void)from;
    pack_volume_head(out, rights, 4);
    replica_pack_array(out, 1);
    replica_pack_content_id(out, &rights->content);
}

static void make_held(const struct rights *rights, const struct gossip_principal *from,
                      struct replica_buffer *out)
{
    const struct gossip_volume *entry = entry_of(rights);
    const struct replica_vector nothing = {.n = 0};
    (void)from;
    replica_pack_array(out, 6);
    replica_pack_id(out, &entry->id);
    replica_pack_uint(out, 0);
    replica_pack_uint(out, entry->configuration.epoch);
    replica_pack_uint(out, entry->configuration.phase);
    replica_vector_pack(out, &nothing);
    replica_vector_pack(out, &nothing);
}

static void make_refused(const struct rights *rights, const struct gossip_principal *from,
                         struct replica_buffer *out)
{
    (void)from;
    replica_pack_array(out, 3);
    replica_pack_id(out, &rights->three.volume);
    replica_pack_uint(out, 1);
    replica_pack_int(out, REPLICA_E_DENIED);
}

/* Of an id that nobody knows: there is nothing to give up, for anybody. */
static void make_abandon(const struct rights *rights, const struct gossip_principal *from,
                         struct replica_buffer *out)
{
    struct replica_id unknown = {{9}};
    (void)from;
    replica_pack_array(out, 2);
    replica_pack_id(out, &rights->three.volume);
    replica_pack_id(out, &unknown);
}

static void make_bytes(const struct rights *rights, const struct gossip_principal *from,
                       struct replica_buffer *out)
{
    (void)from;
    replica_pack_array(out, 1);
    replica_pack_array(out, 3);
    replica_pack_id(out, &rights->three.volume);
    replica_pack_content_id(out, &rights->content);
    replica_pack_array(out, 1);
    replica_pack_uint(out, REPLICA_PIECE_CHUNK);
}

/* The table. Answers: a answered, t taken in without one, d refused with an answer that says so, x refused, counted, in silence. */

struct row {
    const char *what;
    enum gossip_room room;
    uint8_t type;
    void (*make)(const struct rights *rights, const struct gossip_principal *from,
                 struct replica_buffer *out);
    const char
        *expected; /* client, cache, cache of the volume, the same read-only, cache of another, voter */
};

static const struct row ROWS[] = {
    {"member ping", GOSSIP_ROOM_MEMBER, 1, make_ping, "xaaaaa"},
    {"registry pull", GOSSIP_ROOM_CONTROL, CONTROL_PULL, make_control_pull, "xaaaaa"},
    {"who leads", GOSSIP_ROOM_CONTROL, CONTROL_WHO, make_who, "xaaaaa"},
    {"look up", GOSSIP_ROOM_CONTROL, CONTROL_PROPOSE, make_look_up, "xtttdt"},
    {"create", GOSSIP_ROOM_CONTROL, CONTROL_PROPOSE, make_create, "xttddt"},
    {"rename to another", GOSSIP_ROOM_CONTROL, CONTROL_PROPOSE, make_rename, "xtdddt"},
    {"fresh", GOSSIP_ROOM_CONTROL, CONTROL_FRESH, make_fresh, "xxxxxt"},
    {"append", GOSSIP_ROOM_CONTROL, CONTROL_APPEND, make_append, "xxxxxx"},
    {"outcome", GOSSIP_ROOM_CONTROL, CONTROL_OUTCOME, make_outcome, "xxxxxx"},
    {"digest", GOSSIP_ROOM_SYNC, SYNC_DIGEST, make_digest, "xaaata"},
    {"pull", GOSSIP_ROOM_SYNC, SYNC_PULL, make_pull, "xaaaxa"},
    {"deltas", GOSSIP_ROOM_SYNC, SYNC_DELTAS, make_deltas, "xxxxxx"},
    {"push", GOSSIP_ROOM_SYNC, SYNC_PUSH, make_deltas, "xxxxxx"},
    {"image offer", GOSSIP_ROOM_SYNC, MESSAGE_IMAGE_OFFER, make_image_offer, "xxxxxx"},
    {"image pull", GOSSIP_ROOM_SYNC, MESSAGE_IMAGE_PULL, make_image_pull, "xaaaxa"},
    {"prepare", GOSSIP_ROOM_QUORUM, QUORUM_PREPARE, make_prepare, "xaadda"},
    {"mint", GOSSIP_ROOM_QUORUM, QUORUM_MINT, make_mint, "xaaxxa"},
    {"replicate", GOSSIP_ROOM_QUORUM, QUORUM_REPLICATE, make_replicate, "xxxxxx"},
    {"ask", GOSSIP_ROOM_QUORUM, QUORUM_ASK, make_ask, "xaaada"},
    {"offer", GOSSIP_ROOM_QUORUM, QUORUM_OFFER, make_offer, "xttxxt"},
    {"held", GOSSIP_ROOM_QUORUM, QUORUM_HELD, make_held, "xxxxxx"},
    {"refused", GOSSIP_ROOM_QUORUM, QUORUM_REFUSED, make_refused, "xxxxxx"},
    {"abandon", GOSSIP_ROOM_QUORUM, QUORUM_ABANDON, make_abandon, "xttttt"},
    {"bytes", GOSSIP_ROOM_SWARM, SWARM_ASK, make_bytes, "xtttdt"},
};

/* Whether an answer is a refusal. */
static bool says_no(enum gossip_room room, const struct world_heard *heard)
{
    struct replica_pack_reader reader;
    struct replica_id id;
    uint64_t verdict;
    size_t n;
    if (room == GOSSIP_ROOM_SWARM)
        return heard->type == SWARM_REFUSE;
    if (room == GOSSIP_ROOM_CONTROL && heard->type == CONTROL_OUTCOME)
        return true; /* no other outcome comes at once */
    if (room == GOSSIP_ROOM_QUORUM && heard->type == QUORUM_REFUSED)
        return true;
    if (room != GOSSIP_ROOM_QUORUM || heard->type != QUORUM_PREPARED)
        return false;
    replica_pack_reader_init(&reader, heard->payload.data, heard->payload.size);
    replica_pack_read_array(&reader, 32, &n);
    replica_pack_read_id(&reader, &id);
    replica_pack_read_id(&reader, &id);
    replica_pack_read_uint(&reader, UINT64_MAX, &verdict);
    replica_pack_read_uint(&reader, UINT64_MAX, &verdict);
    replica_pack_read_uint(&reader, UINT64_MAX, &verdict);
    assert_false(reader.failed);
    return verdict == QUORUM_VERDICT_REFUSED;
}

static char ask(const struct rights *rights, const struct row *row, const struct gossip_principal *from)
{
    struct gossip_peer *peer = world_peer(rights->world, rights->leader);
    uint64_t refused = gossip_peer_malformed(peer);
    struct world_heard heard = {.type = 0};
    struct replica_buffer payload;
    char verdict;
    size_t n;
    replica_buffer_init(&payload);
    replica_buffer_init(&heard.payload);
    row->make(rights, from, &payload);
    n = world_say(rights->world, rights->leader, from, row->room, row->type, &payload, &heard);
    if (n > 0)
        verdict = says_no(row->room, &heard) ? 'd' : 'a';
    else
        verdict = gossip_peer_malformed(peer) > refused ? 'x' : 't';
    replica_buffer_close(&payload);
    replica_buffer_close(&heard.payload);
    return verdict;
}

static void a_credential_allows_what_the_table_says(void **state)
{
    const struct gossip_principal columns[] = {
        principal_of(GOSSIP_ROLE_CLIENT, NULL, false),   principal_of(GOSSIP_ROLE_CACHE, NULL, false),
        principal_of(GOSSIP_ROLE_CACHE, VOLUME, false),  principal_of(GOSSIP_ROLE_CACHE, VOLUME, true),
        principal_of(GOSSIP_ROLE_CACHE, "other", false), principal_of(GOSSIP_ROLE_VOTER, NULL, false)};
    const size_t columns_n = sizeof columns / sizeof columns[0];
    bool wrong = false;
    struct rights rights;
    (void)state;
    begin(&rights, NULL);
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        char got[8] = "";
        for (size_t j = 0; j < columns_n; j++) {
            got[j] = ask(&rights, &ROWS[i], &columns[j]);
            world_run_for(rights.world, 20); /* what it set off ends */
        }
        if (strcmp(got, ROWS[i].expected) != 0) {
            print_error("%s: %s instead of %s\n", ROWS[i].what, got, ROWS[i].expected);
            wrong = true;
        }
    }
    assert_false(wrong);
    test_converge(rights.world, 60000);
    test_three_end(&rights.three);
}

/* A store that votes, under a credential that may not vote any more: what it says of the volume, as a voter, is not believed. */
static void a_voters_word_needs_a_voters_credential(void **state)
{
    static const struct row WORDS[] = {
        {"deltas", GOSSIP_ROOM_SYNC, SYNC_DELTAS, make_deltas, NULL},
        {"image offer", GOSSIP_ROOM_SYNC, MESSAGE_IMAGE_OFFER, make_image_offer, NULL},
        {"replicate", GOSSIP_ROOM_QUORUM, QUORUM_REPLICATE, make_replicate, NULL},
        {"held", GOSSIP_ROOM_QUORUM, QUORUM_HELD, make_held, NULL},
    };
    struct gossip_principal from = principal_of(GOSSIP_ROLE_CACHE, NULL, false);
    struct rights rights;
    (void)state;
    begin(&rights, NULL);
    rights.leader = 0;
    from.store = world_store(rights.world, 1);
    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0]; i++)
        assert_int_equal(ask(&rights, &WORDS[i], &from), 'x');
    from.role = GOSSIP_ROLE_VOTER;
    for (size_t i = 0; i < 2; i++)
        assert_int_not_equal(ask(&rights, &WORDS[i], &from), 'x');
    test_converge(rights.world, 60000);
    test_three_end(&rights.three);
}

/* "This is committed" of a cache moves nobody. */
static void a_cache_makes_nothing_committed(void **state)
{
    struct gossip_principal from = principal_of(GOSSIP_ROLE_CACHE, NULL, false);
    const struct replica_volume_state *volume;
    struct world_heard heard = {.type = 0};
    struct replica_vector vector, before;
    struct replica_buffer payload;
    struct rights rights;
    (void)state;
    begin(&rights, NULL);
    world_run_for(rights.world, 3000);
    volume = replica_volume_state(world_volume(rights.world, CACHE, &rights.three.volume));
    before = vector = volume->committed;
    assert_int_equal(vector.n, 1);
    vector.entries[0].seq += 5;
    for (int as_voter = 0; as_voter < 2; as_voter++) { /* by its own name, and by a voter's */
        if (as_voter)
            from.store = world_store(rights.world, 1);
        replica_buffer_init(&payload);
        replica_pack_array(&payload, 2);
        replica_pack_bool(&payload, true);
        replica_pack_array(&payload, 3);
        replica_pack_id(&payload, &rights.three.volume);
        replica_vector_pack(&payload, &vector);
        replica_vector_pack(&payload, &vector);
        replica_buffer_init(&heard.payload);
        (void)world_say(rights.world, CACHE, &from, GOSSIP_ROOM_SYNC, SYNC_DIGEST, &payload, &heard);
        assert_true(replica_vector_equal(&volume->committed, &before));
        replica_buffer_close(&payload);
        replica_buffer_close(&heard.payload);
    }
    test_three_end(&rights.three);
}

/* Contents */

static int fetch(const struct rights *rights, const struct replica_content_id *content)
{
    struct gossip_peer_request request = {
        .kind = GOSSIP_PEER_FETCH, .volume = rights->three.volume, .content = *content};
    return world_call_wait(rights->world, world_request_start(rights->world, CACHE, &request));
}

/* Who knows the id of a content of a volume that it may not read does not get it in another's name; once the other volume
 * names it too, it does. */
static void bytes_come_in_their_volumes_name_only(void **state)
{
    struct gossip_principal cache = principal_of(GOSSIP_ROLE_CACHE, VOLUME, true);
    struct rights rights;
    (void)state;
    begin(&rights, &cache);
    assert_int_equal(fetch(&rights, &rights.hidden), REPLICA_E_ABSENT);
    assert_int_equal(fetch(&rights, &rights.content), 0);
    (void)put_content(rights.world, &rights.three.views[0], 2); /* the same bytes */
    assert_int_equal(fetch(&rights, &rights.hidden), 0);
    test_three_end(&rights.three);
}

struct overheard {
    const struct world *world;
    size_t told; /* messages of sync to the cache */
};

static int count_told(void *context, size_t from, size_t to, enum gossip_room room, uint8_t type)
{
    struct overheard *overheard = context;
    (void)from;
    (void)type;
    overheard->told += to == CACHE && room == GOSSIP_ROOM_SYNC;
    return 0;
}

/* Neither deltas nor vectors of a volume go to a node that may not read it, however long it is there. */
static void nothing_is_said_of_a_volume_to_who_may_not_read_it(void **state)
{
    struct gossip_principal cache = principal_of(GOSSIP_ROLE_CACHE, "none", false);
    struct overheard overheard = {.told = 0};
    struct world_options options;
    struct replica_id volume, view;
    struct world *world;
    (void)state;
    world_options_default(&options);
    options.nodes = 4;
    world = test_world(&options);
    world_set_principal(world, CACHE, &cache);
    overheard.world = world;
    world_set_filter(world, count_told, &overheard);
    assert_true(world_begin_cluster(world, 30000));
    assert_int_equal(world_create_volume(world, 0, VOLUME, &volume), 0);
    assert_int_equal(world_open_view(world, 0, &volume, &view), 0);
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        test_put_text(world, 0, &view, name, "hidden");
        assert_int_equal(world_commit(world, 0, &view), 0);
        world_run_for(world, 1000);
    }
    assert_int_equal(overheard.told, 0);
    test_sound(world);
    world_destroy(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_credential_allows_what_the_table_says),
        cmocka_unit_test(a_voters_word_needs_a_voters_credential),
        cmocka_unit_test(a_cache_makes_nothing_committed),
        cmocka_unit_test(bytes_come_in_their_volumes_name_only),
        cmocka_unit_test(nothing_is_said_of_a_volume_to_who_may_not_read_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
