/* What comes from others is untrusted: broken, cut, foreign and forged messages change nothing, whoever sends them. */
#include "control_support.h"

#include "replica/error.h"

#define SAMPLES_MAX 400
#define TYPES       19

struct sample {
    uint8_t type;
    uint8_t *payload;
    size_t size;
};

static struct sample samples[SAMPLES_MAX];
static size_t samples_n;

/* Real messages of every type: whatever is on its way while a cluster begins, works, fails and catches up. */
static void record(struct control_net *net)
{
    unsigned of_type[TYPES] = {0};
    for (size_t i = 0; i < samples_n; i++)
        of_type[samples[i].type]++;
    for (size_t i = 0; i < net->packets_n && samples_n < SAMPLES_MAX; i++) {
        const struct control_packet *packet = &net->packets[i];
        struct sample *sample = &samples[samples_n];
        if (packet->room != GOSSIP_ROOM_CONTROL || of_type[packet->type]++ >= 20)
            continue;
        sample->type = packet->type;
        sample->size = packet->size;
        sample->payload = malloc(packet->size);
        assert_non_null(sample->payload);
        memcpy(sample->payload, packet->payload, packet->size);
        samples_n++;
    }
}

static void run_and_record(struct control_net *net, uint64_t ms)
{
    for (uint64_t i = 0; i < ms; i++) {
        control_net_run(net, 1);
        record(net);
    }
}

/* The one answer that only a registry of more than one message brings about. */
static void add_snapshotted(const struct gossip_control *control)
{
    struct replica_buffer payload;
    control_begin_message(control, &payload, 3);
    replica_pack_uint(&payload, control->term);
    replica_pack_uint(&payload, control->registry.index);
    replica_pack_uint(&payload, 0);
    assert_true(samples_n < SAMPLES_MAX);
    samples[samples_n++] = (struct sample){CONTROL_SNAPSHOTTED, payload.data, payload.size};
}

/* Three founders and a cache, with a volume; everything on the way there was recorded. */
static void prepare(struct control_net *net)
{
    size_t leader;
    samples_n = 0;
    control_net_init(net, 1);
    control_net_expect(net, 3);
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1);
    for (size_t i = 0; i < 4; i++) {
        net->nodes[i].options.snapshot_entries = 4;
        control_net_boot(net, i);
    }
    run_and_record(net, 10000);
    control_net_crash(net, (control_net_leader(net) + 1) % 3);
    leader = control_net_leader(net);
    for (unsigned i = 0; i < 12; i++) {
        struct gossip_control_request request = {.kind = GOSSIP_CONTROL_CREATE};
        char name[8];
        snprintf(name, sizeof name, "v%u", i);
        request.name = name;
        control_net_call(net, i % 2 == 0 ? 3 : leader, &request);
        run_and_record(net, 100);
    }
    control_net_boot(net, (leader + 1) % 3);
    run_and_record(net, 3000);
    control_net_crash(net, leader);
    run_and_record(net, 5000);
    control_net_boot(net, leader);
    run_and_record(net, 3000);
    assert_true(control_net_agreed(net));
    control_net_run(net, 50);
    add_snapshotted(net->nodes[0].control);
}

static void forget(void)
{
    for (size_t i = 0; i < samples_n; i++)
        free(samples[i].payload);
    samples_n = 0;
}

static void every_type_was_recorded(void **state)
{
    struct control_net *net = *state;
    bool seen[TYPES] = {false};
    for (size_t i = 0; i < samples_n; i++)
        seen[samples[i].type] = true;
    for (unsigned type = CONTROL_PULL; type <= CONTROL_NEWS; type++)
        assert_true(seen[type]);
    assert_true(control_net_agreed(net));
}

/* Sent to node `to`: refused, and nothing changed. */
static void expect_refused(struct control_net *net, size_t to, const struct gossip_principal *from,
                           uint8_t type, const uint8_t *payload, size_t size, int code)
{
    uint64_t before = control_net_digest(net->nodes[to].control);
    uint8_t *copy = malloc(size + 1); /* so that reading past the end is seen */
    assert_non_null(copy);
    memcpy(copy, payload, size);
    assert_int_equal(control_net_inject(net, to, from, type, copy, size), code);
    assert_true(control_net_digest(net->nodes[to].control) == before);
    free(copy);
}

/* A message that was cut anywhere, or has something behind it. */
static void cut_and_overlong(void **state)
{
    struct control_net *net = *state;
    for (size_t i = 0; i < samples_n; i++) {
        const struct sample *sample = &samples[i];
        const struct gossip_principal *from = &net->nodes[(i + 1) % 3].principal;
        uint8_t *longer = malloc(sample->size + 1);
        assert_non_null(longer);
        memcpy(longer, sample->payload, sample->size);
        longer[sample->size] = 0;
        for (size_t to = 0; to < 4; to++) {
            const struct gossip_principal *sender =
                to == (i + 1) % 3 ? &net->nodes[(i + 2) % 3].principal : from;
            struct control_input input;
            const struct gossip_message whole = {.payload = sample->payload, .size = sample->size};
            for (size_t n = 0; n < sample->size; n += 1 + n / 50) {
                uint64_t before = control_net_digest(net->nodes[to].control);
                int rv = control_net_inject(net, to, sender, sample->type, sample->payload, n);
                assert_true(rv == REPLICA_E_MALFORMED || rv == REPLICA_E_DENIED);
                assert_true(control_net_digest(net->nodes[to].control) == before);
            }
            if (control_open(&whole, 0, &input) == 0 && !replica_id_is_zero(&input.cluster)) {
                int rv = control_net_inject(net, to, sender, sample->type, longer, sample->size + 1);
                assert_true(rv == REPLICA_E_MALFORMED || rv == REPLICA_E_DENIED);
            }
        }
        free(longer);
    }
}

/* Any bytes changed: refused, or harmless. The oracle after each step is the judge, and the cluster goes on. */
static void spoiled(void **state)
{
    struct control_net *net = *state;
    size_t refused = 0, total = 0;
    for (unsigned round = 0; round < 40; round++)
        for (size_t i = 0; i < samples_n; i++) {
            const struct sample *sample = &samples[i];
            uint8_t *copy = malloc(sample->size);
            size_t changes = 1 + gossip_random_below(&net->random, 4),
                   to = gossip_random_below(&net->random, 4);
            size_t from = (to + 1 + gossip_random_below(&net->random, 3)) % 4;
            assert_non_null(copy);
            memcpy(copy, sample->payload, sample->size);
            for (size_t c = 0; c < changes; c++)
                copy[gossip_random_below(&net->random, sample->size)] =
                    (uint8_t)gossip_random_next(&net->random);
            if (sample->type == CONTROL_APPEND || sample->type == CONTROL_STATE ||
                sample->type == CONTROL_SNAPSHOT || sample->type == CONTROL_APPENDED ||
                sample->type == CONTROL_OUTCOME || sample->type == CONTROL_VOTED) {
                /* From a voter these are believed (voters are not Byzantine); from a cache only copies are. */
                from = sample->type == CONTROL_STATE ? from : 3;
                to = from == 3 ? to % 3 : to;
                if (sample->type == CONTROL_STATE)
                    to = to % 3; /* members take no copies */
                if (to == from)
                    to = (to + 1) % 3;
            }
            refused += control_net_inject(net, to, &net->nodes[from].principal, sample->type, copy,
                                          sample->size) != 0;
            total++;
            free(copy);
        }
    assert_true(refused * 4 > total);
    control_net_run(net, 10000);
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_CREATE, "after", NULL), 0);
    assert_true(control_net_run_until(net, control_net_agreed, 20000));
}

/* Raft's messages count from members with a voter's credential alone; registries are not taken from clients. */
static void roles(void **state)
{
    struct control_net *net = *state;
    struct gossip_principal stranger = {
        .store = control_net_store(7), .role = GOSSIP_ROLE_VOTER, .every_volume = true};
    struct gossip_principal lesser = net->nodes[1].principal, client = net->nodes[1].principal;
    lesser.role = GOSSIP_ROLE_CACHE;
    client.role = GOSSIP_ROLE_CLIENT;
    for (size_t i = 0; i < samples_n; i++) {
        const struct sample *sample = &samples[i];
        bool raft = sample->type >= CONTROL_PREVOTE && sample->type <= CONTROL_SNAPSHOTTED;
        bool leading = sample->type == CONTROL_LEADER || sample->type == CONTROL_OUTCOME;
        if (raft || leading) {
            expect_refused(net, 0, &stranger, sample->type, sample->payload, sample->size, REPLICA_E_DENIED);
            expect_refused(net, 0, &lesser, sample->type, sample->payload, sample->size, REPLICA_E_DENIED);
        }
        if (raft) /* a copy has no part in it */
            expect_refused(net, 3, &net->nodes[0].principal, sample->type, sample->payload, sample->size,
                           REPLICA_E_DENIED);
        if (raft) /* nor does anybody speak to himself */
            expect_refused(net, 0, &net->nodes[0].principal, sample->type, sample->payload, sample->size,
                           REPLICA_E_DENIED);
        if (sample->type == CONTROL_STATE)
            expect_refused(net, 3, &client, sample->type, sample->payload, sample->size, REPLICA_E_DENIED);
        if (sample->type == CONTROL_ASK || sample->type == CONTROL_PROMISE || sample->type == CONTROL_FRESH)
            expect_refused(net, 0, &lesser, sample->type, sample->payload, sample->size, REPLICA_E_DENIED);
    }
}

/* Messages that name another cluster. */
static void another_cluster(void **state)
{
    struct control_net *net = *state;
    for (size_t i = 0; i < samples_n; i++) {
        const struct sample *sample = &samples[i];
        uint8_t *copy = malloc(sample->size);
        bool begins = sample->type >= CONTROL_FRESH && sample->type <= CONTROL_PROMISE;
        struct control_input input;
        const struct gossip_message whole = {.payload = sample->payload, .size = sample->size};
        assert_non_null(copy);
        memcpy(copy, sample->payload, sample->size);
        assert_int_equal(control_open(&whole, 0, &input), 0);
        if (!begins && !replica_id_is_zero(&input.cluster)) {
            copy[3] ^= 1; /* array, bin, its length, the id */
            for (size_t to = 0; to < 4; to++)
                expect_refused(net, to, &net->nodes[to == 1 ? 2 : 1].principal, sample->type, copy,
                               sample->size, REPLICA_E_DENIED);
        }
        free(copy);
    }
}

/* A registry far ahead of everybody's, in which `voter` alone votes for a volume, of the cluster with those members. */
static void pack_forged(struct replica_buffer *out, const struct replica_id *cluster,
                        const struct replica_id *members, size_t members_n, const struct replica_id *voter,
                        uint64_t cursor)
{
    struct gossip_volume volume = {.name = "forged",
                                   .version = 2,
                                   .voters_wanted = 1,
                                   .index = 100000,
                                   .configuration = {.epoch = 9, .phase = GOSSIP_PHASE_FINAL, .voters_n = 1}};
    volume.id = volume.creator = volume.configuration.voters[0] = *voter;
    replica_buffer_init(out);
    replica_pack_array(out, 9);
    replica_pack_id(out, cluster);
    replica_pack_array(out, members_n);
    for (size_t i = 0; i < members_n; i++)
        replica_pack_id(out, &members[i]);
    replica_pack_id(out, &members[0]);
    replica_pack_uint(out, 1000);   /* term */
    replica_pack_uint(out, 100000); /* index */
    replica_pack_uint(out, 1);      /* volumes */
    replica_pack_uint(out, cursor);
    replica_pack_uint(out, 100000);
    replica_pack_array(out, 1);
    control_volume_pack(out, &volume);
}

/* A cache has a registry of its own making: copies do not take it, whatever they asked for and whomever it names, not even
 * under a member's store if the credential may not vote. They ask a member, who knows better. */
static void a_forged_registry_is_not_copied(void **state)
{
    struct control_net *net = *state;
    struct gossip_control *copy = net->nodes[3].control;
    struct gossip_principal senders[3] = {net->nodes[3].principal, net->nodes[0].principal,
                                          net->nodes[0].principal};
    struct replica_buffer payload, news;
    uint64_t index = copy->registry.index;
    senders[0].store = senders[1].store = control_net_store(7);
    senders[0].role = senders[2].role = GOSSIP_ROLE_CACHE;
    for (size_t i = 0; i < 3; i++) {
        for (uint64_t cursor = 0; cursor <= index; cursor += index) {
            copy->copy.source = senders[i].store; /* as if it had been asked */
            copy->copy.cursor = cursor;
            copy->copy.whole = cursor == 0;
            pack_forged(&payload, &copy->cluster, copy->members, 3, &senders[i].store, cursor);
            expect_refused(net, 3, &senders[i], CONTROL_STATE, payload.data, payload.size, REPLICA_E_DENIED);
            replica_buffer_close(&payload);
        }
        replica_buffer_init(&news);
        replica_pack_array(&news, 2);
        replica_pack_id(&news, &copy->cluster);
        replica_pack_uint(&news, 100000);
        assert_int_equal(control_net_inject(net, 3, &senders[i], CONTROL_NEWS, news.data, news.size), 0);
        replica_buffer_close(&news);
        control_net_run(net, 3000);
    }
    assert_int_equal(copy->registry.index, index);
    assert_null(gossip_control_volume_by_name(copy, "forged"));
    assert_int_equal(control_net_ask(net, 3, GOSSIP_CONTROL_CREATE, "after", NULL), 0);
}

/* One that begins adopts a cluster from those alone who are members of its log and may vote. */
static void a_forged_cluster_is_not_adopted(void **state)
{
    struct control_net *net = *state;
    struct gossip_principal liar = net->nodes[0].principal;
    struct replica_id forged = {{0xbb}}, members[3];
    struct replica_buffer payload;
    size_t fresh;
    for (size_t i = 0; i < 3; i++) {
        members[i] = control_net_store(i);
        control_net_crash(net, i); /* nobody else can answer */
    }
    fresh = net->n;
    control_net_add(net, GOSSIP_BEGIN_JOIN, 1);
    control_net_boot(net, fresh);
    control_net_run(net, 1000);
    liar.store = control_net_store(7);
    for (int i = 0; i < 2; i++) {
        liar.role = i == 0 ? GOSSIP_ROLE_VOTER
                           : GOSSIP_ROLE_CACHE; /* no member of what it says; one that may not be */
        if (i == 1)
            members[0] = liar.store;
        pack_forged(&payload, &forged, members, 3, &liar.store, 0);
        assert_int_equal(control_net_inject(net, fresh, &liar, CONTROL_STATE, payload.data, payload.size), 0);
        assert_true(replica_id_is_zero(&net->nodes[fresh].control->cluster));
        replica_buffer_close(&payload);
    }
    for (size_t i = 0; i < 3; i++)
        control_net_boot(net, i);
    assert_true(control_net_run_until(net, control_net_agreed, 20000)); /* the right one */
}

static void no_such_type(void **state)
{
    struct control_net *net = *state;
    for (unsigned type = 0; type < 256; type = type == 0 ? CONTROL_NEWS + 1 : type + 1)
        expect_refused(net, 0, &net->nodes[1].principal, (uint8_t)type, samples[0].payload, samples[0].size,
                       REPLICA_E_MALFORMED);
}

/* Damaged records on the own disk are found when it is opened. */
static void damaged_disks(void **state)
{
    static const char *const KEYS[] = {"Rs", "Rl", "Rb", "Vs"};
    struct control_net *net = *state;
    struct control_node *node = &net->nodes[0];
    struct gossip_control *control = NULL;
    struct replica_kv_batch batch;
    unsigned found = 0;
    control_net_crash(net, 0);
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        struct replica_buffer value;
        replica_buffer_init(&value);
        replica_kv_batch_init(&batch);
        assert_int_equal(replica_kv_get(node->kv, KEYS[i], 2, &value), 0);
        replica_kv_batch_put(&batch, KEYS[i], 2, value.data, value.size - 1);
        assert_int_equal(replica_kv_write(node->kv, &batch), 0);
        assert_int_equal(gossip_control_new(&node->options, node->kv, net->nodes[1].member,
                                            &node->record.store, 1, &control),
                         REPLICA_E_CORRUPT);
        replica_kv_batch_clear(&batch);
        replica_kv_batch_put(&batch, KEYS[i], 2, value.data, value.size);
        assert_int_equal(replica_kv_write(node->kv, &batch), 0);
        replica_kv_batch_close(&batch);
        replica_buffer_close(&value);
        found++;
    }
    assert_int_equal(found, 4);
    control_net_boot(net, 0);
}

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct control_net));
    if (*state == NULL)
        return 1;
    prepare(*state);
    return 0;
}

static int teardown(void **state)
{
    forget();
    control_net_close(*state);
    free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_type_was_recorded, setup, teardown),
        cmocka_unit_test_setup_teardown(cut_and_overlong, setup, teardown),
        cmocka_unit_test_setup_teardown(spoiled, setup, teardown),
        cmocka_unit_test_setup_teardown(roles, setup, teardown),
        cmocka_unit_test_setup_teardown(another_cluster, setup, teardown),
        cmocka_unit_test_setup_teardown(a_forged_registry_is_not_copied, setup, teardown),
        cmocka_unit_test_setup_teardown(a_forged_cluster_is_not_adopted, setup, teardown),
        cmocka_unit_test_setup_teardown(no_such_type, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_disks, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
