#include "control_support.h"

#include "replica/error.h"

#define DELAY_MS      2
#define DELAY_LATE_MS 400
#define SYNC_MS       3

struct replica_id control_net_store(size_t i)
{
    struct replica_id id = {{0}};
    id.bytes[0] = (uint8_t)(0x10 + i * 0x51); /* not in the order of the nodes */
    id.bytes[15] = (uint8_t)(i + 1);
    return id;
}

static size_t node_of(const struct control_net *net, const struct replica_id *store)
{
    for (size_t i = 0; i < net->n; i++)
        if (replica_id_equal(&net->nodes[i].record.store, store))
            return i;
    return SIZE_MAX;
}

void control_net_init(struct control_net *net, uint64_t seed)
{
    memset(net, 0, sizeof *net);
    net->now_ms = 1000;
    gossip_random_init(&net->random, seed, 99);
}

struct control_node *control_net_add(struct control_net *net, enum gossip_begin begin, unsigned join)
{
    size_t i = net->n++;
    struct control_node *node = &net->nodes[i];
    assert_true(i < CONTROL_NODES_MAX);
    gossip_control_options_default(&node->options);
    node->options.begin = begin;
    node->record.store = control_net_store(i);
    node->record.roles = GOSSIP_MEMBER_VOTE;
    node->record.capacity_free = 1000;
    snprintf(node->record.name, sizeof node->record.name, "node%zu", i);
    snprintf(node->record.endpoint, sizeof node->record.endpoint, "tcp://10.0.0.%zu:7000", i);
    node->principal.role = GOSSIP_ROLE_VOTER;
    node->principal.store = node->record.store;
    node->principal.every_volume = true;
    for (size_t j = 0; j < CONTROL_NODES_MAX; j++)
        if (join & (1u << j))
            snprintf(node->join[node->join_n++], sizeof node->join[0], "tcp://10.0.0.%zu:7000", j);
    assert_int_equal(replica_kv_memory_new(&node->kv), 0);
    return node;
}

void control_net_expect(struct control_net *net, size_t n)
{
    for (size_t i = 0; i < n; i++)
        control_net_add(net, GOSSIP_BEGIN_EXPECT, (1u << n) - 1)->options.expect = (uint32_t)n;
}

/* What a step did, carried out as step.h says */

static void add_packet(struct control_net *net, const struct control_packet *packet, const uint8_t *payload)
{
    if (net->packets_n == net->packets_capacity) {
        net->packets_capacity = net->packets_capacity * 2 + 64;
        net->packets = realloc(net->packets, net->packets_capacity * sizeof *packet);
        assert_non_null(net->packets);
    }
    net->packets[net->packets_n] = *packet;
    net->packets[net->packets_n].payload = malloc(packet->size + 1);
    assert_non_null(net->packets[net->packets_n].payload);
    if (packet->size > 0)
        memcpy(net->packets[net->packets_n].payload, payload, packet->size);
    net->packets_n++;
}

static bool draw(struct control_net *net, unsigned percent)
{
    return percent > 0 && gossip_random_below(&net->random, 100) < percent;
}

static void transmit(struct control_net *net, size_t from, const struct gossip_send *send,
                     const uint8_t *payload)
{
    struct control_packet packet = {
        .from = from, .to = SIZE_MAX, .room = send->room, .type = send->type, .size = send->size};
    bool faulty = send->room == GOSSIP_ROOM_CONTROL; /* membership has tests of its own */
    assert_true(send->size <= GOSSIP_MESSAGE_SIZE_MAX);
    for (size_t j = 0; j < net->n; j++)
        if (replica_id_is_zero(&send->to) ? strcmp(net->nodes[j].record.endpoint, send->endpoint) == 0
                                          : replica_id_equal(&net->nodes[j].record.store, &send->to))
            packet.to = j;
    if (send->room == GOSSIP_ROOM_CONTROL && send->type < 32)
        net->sent[send->type]++;
    if (packet.to == SIZE_MAX || (faulty && draw(net, net->loss)))
        return;
    for (unsigned copies = faulty && draw(net, net->twice) ? 2 : 1; copies > 0; copies--) {
        packet.at_ms = net->now_ms + DELAY_MS;
        if (faulty && draw(net, net->late))
            packet.at_ms += gossip_random_below(&net->random, DELAY_LATE_MS);
        add_packet(net, &packet, payload);
    }
}

static void answered(struct control_net *net, const struct gossip_answer *answer, const uint8_t *payload)
{
    struct control_call *call = &net->calls[answer->token - 1];
    struct replica_pack_reader reader;
    struct gossip_volume volume;
    assert_true(answer->token >= 1 && answer->token <= net->calls_n);
    assert_int_equal(call->code, CONTROL_PENDING);
    call->code = answer->code;
    if (answer->code != 0 || answer->size == 0)
        return;
    replica_pack_reader_init(&reader, payload, answer->size);
    assert_int_equal(control_volume_read(&reader, &volume), 0);
    call->found = true;
    call->id = volume.id;
}

static void hold(struct control_node *node, const struct control_held *held, const uint8_t *payload,
                 size_t size)
{
    struct control_held *slot = &node->held[node->held_n++];
    assert_true(node->held_n < sizeof node->held / sizeof node->held[0]);
    *slot = *held;
    slot->payload = malloc(size + 1);
    assert_non_null(slot->payload);
    if (size > 0)
        memcpy(slot->payload, payload, size);
}

static void send_out(struct control_net *net, size_t i, const struct gossip_update *update)
{
    struct control_node *node = &net->nodes[i];
    for (size_t s = 0; s < update->sends_n; s++) {
        const struct gossip_send *send = &update->sends[s];
        const uint8_t *payload = update->bytes.data + send->offset;
        if (send->durable && node->synced < node->batch)
            hold(node, &(struct control_held){.batch = node->batch, .send = *send}, payload, send->size);
        else
            transmit(net, i, send, payload);
    }
    for (size_t a = 0; a < update->answers_n; a++) {
        const struct gossip_answer *answer = &update->answers[a];
        const uint8_t *payload = update->bytes.data + answer->offset;
        if (answer->durable && node->synced < node->batch)
            hold(node, &(struct control_held){.batch = node->batch, .answer = *answer}, payload,
                 answer->size);
        else
            answered(net, answer, payload);
    }
}

static void release(struct control_net *net, size_t i)
{
    struct control_node *node = &net->nodes[i];
    size_t kept = 0;
    for (size_t h = 0; h < node->held_n; h++) {
        struct control_held held = node->held[h];
        if (held.batch > node->synced) {
            node->held[kept++] = held;
            continue;
        }
        if (held.answer.token != 0)
            answered(net, &held.answer, held.payload);
        else
            transmit(net, i, &held.send, held.payload);
        free(held.payload);
    }
    node->held_n = kept;
}

static void take(struct control_net *net, size_t i, struct gossip_update *update)
{
    struct control_node *node = &net->nodes[i];
    assert_false(update->failed);
    for (size_t k = 0; k < update->notes_n; k++) {
        node->cluster_notes += update->notes[k].kind == GOSSIP_NOTE_CLUSTER;
        node->volume_notes += update->notes[k].kind == GOSSIP_NOTE_VOLUME;
    }
    node->batch++;
    if (update->log.count > 0) {
        assert_int_equal(replica_kv_write(node->kv, &update->log), 0);
        if (++node->writes == node->crash_at_write) {
            control_net_crash(net, i);
            return;
        }
    }
    send_out(net, i, update);
    if (node->sync_ms == UINT64_MAX && !node->disk_hangs) {
        node->sync_ms = net->now_ms + 1 + gossip_random_below(&net->random, SYNC_MS);
        node->syncing = node->batch;
    }
    if (update->wake_ms < node->wake_ms)
        node->wake_ms = update->wake_ms;
    if (update->again)
        node->wake_ms = net->now_ms;
}

/* What must hold after every step */

static uint64_t mix(uint64_t digest, const void *data, size_t n)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < n; i++)
        digest = (digest ^ bytes[i]) * 0x100000001b3u;
    return digest;
}

static uint64_t registry_digest(const struct control_registry *registry)
{
    uint64_t digest = 0xcbf29ce484222325u;
    struct replica_buffer bytes;
    replica_buffer_init(&bytes);
    for (size_t i = 0; i < registry->n; i++)
        control_volume_pack(&bytes, registry->by_id[i]);
    digest = mix(digest, bytes.data == NULL ? (const uint8_t *)"" : bytes.data, bytes.size);
    replica_buffer_close(&bytes);
    return digest | 1; /* never 0 */
}

uint64_t control_net_digest(const struct gossip_control *control)
{
    uint64_t digest = registry_digest(&control->registry);
    digest = mix(digest, &control->registry.index, sizeof control->registry.index);
    digest = mix(digest, &control->cluster, sizeof control->cluster);
    digest = mix(digest, &control->promised, sizeof control->promised);
    digest = mix(digest, control->members, sizeof control->members);
    digest = mix(digest, &control->role, sizeof control->role);
    digest = mix(digest, &control->term, sizeof control->term);
    digest = mix(digest, &control->vote, sizeof control->vote);
    digest = mix(digest, &control->leader, sizeof control->leader);
    digest = mix(digest, &control->hint, sizeof control->hint);
    digest = mix(digest, &control->commit, sizeof control->commit);
    digest = mix(digest, control->peers, sizeof control->peers);
    digest = mix(digest, &control->log.n, sizeof control->log.n);
    digest = mix(digest, &control->log.base_index, sizeof control->log.base_index);
    for (size_t i = 0; i < control->log.n; i++)
        digest = mix(digest, control->log.entries[i].bytes, control->log.entries[i].size);
    return mix(digest, &control->waiters_n, sizeof control->waiters_n);
}

static void check_names(const struct control_registry *registry)
{
    for (size_t i = 0; i < registry->n; i++) {
        const struct gossip_volume *volume = registry->by_name[i];
        if (!volume->deleted)
            assert_ptr_equal(control_registry_find_name(registry, volume->name), volume);
        assert_ptr_equal(control_registry_find(registry, &volume->id), volume);
    }
}

static void check_one(struct control_net *net, size_t i)
{
    const struct gossip_control *control = net->nodes[i].control;
    struct replica_id cluster = gossip_control_cluster(control);
    uint64_t digest, index = control->registry.index;
    if (replica_id_is_zero(&cluster) || net->many_clusters)
        return;
    if (replica_id_is_zero(&net->cluster))
        net->cluster = cluster;
    assert_true(replica_id_equal(&net->cluster, &cluster));
    assert_true(control->term < CONTROL_TERMS_MAX && index < CONTROL_STATES);
    if (control->role == CONTROL_LEADING) {
        size_t *leader = &net->leaders[control->term];
        assert_true(*leader == 0 || *leader == i + 1);
        *leader = i + 1;
    }
    if (net->nodes[i].checked_index == index)
        return;
    net->nodes[i].checked_index = index;
    digest = registry_digest(&control->registry);
    if (net->states[index] == 0)
        net->states[index] = digest;
    assert_true(net->states[index] == digest);
    check_names(&control->registry);
}

/* Raft's log matching: where two logs have an entry of one index and term, they are the same up to there. */
static void check_logs(const struct gossip_control *a, const struct gossip_control *b)
{
    uint64_t last = control_log_last(&a->log) < control_log_last(&b->log) ? control_log_last(&a->log)
                                                                          : control_log_last(&b->log);
    bool same = false;
    for (uint64_t index = last; index > a->log.base_index && index > b->log.base_index; index--) {
        const struct control_entry *x = control_log_at(&a->log, index), *y = control_log_at(&b->log, index);
        if (x->term == y->term)
            same = true;
        if (!same)
            continue;
        assert_true(x->term == y->term && x->size == y->size);
        assert_memory_equal(x->bytes, y->bytes, x->size);
    }
}

static void check(struct control_net *net, size_t i)
{
    if (!net->nodes[i].up)
        return;
    check_one(net, i);
    if (++net->steps % 16 != 0 || net->many_clusters)
        return;
    for (size_t j = 0; j < net->n; j++)
        if (j != i && net->nodes[j].up)
            check_logs(net->nodes[i].control, net->nodes[j].control);
}

/* Steps */

static int step_control(struct control_net *net, size_t i, struct gossip_control_event *event)
{
    struct control_node *node = &net->nodes[i];
    struct gossip_update update;
    int rv;
    gossip_update_init(&update);
    event->time = (struct gossip_time){net->now_ms, net->now_ms + 1000000};
    event->batch = node->batch + 1;
    rv = gossip_control_step(node->control, event, &update);
    if (rv == 0)
        take(net, i, &update);
    else { /* refused: nothing came of it */
        assert_true(rv == REPLICA_E_MALFORMED || rv == REPLICA_E_DENIED);
        assert_int_equal(update.log.count, 0);
        for (size_t s = 0; s < update.sends_n; s++) /* but being told so */
            transmit(net, i, &update.sends[s], update.bytes.data + update.sends[s].offset);
    }
    gossip_update_close(&update);
    check(net, i);
    return rv;
}

static void step_member(struct control_net *net, size_t i, struct gossip_member_event *event)
{
    struct gossip_update update;
    gossip_update_init(&update);
    event->time = (struct gossip_time){net->now_ms, net->now_ms + 1000000};
    assert_int_equal(gossip_member_step(net->nodes[i].member, event, &update), 0);
    take(net, i, &update);
    gossip_update_close(&update);
}

void control_net_boot(struct control_net *net, size_t i)
{
    struct control_node *node = &net->nodes[i];
    struct gossip_member_options options;
    struct gossip_member_event member = {.kind = GOSSIP_MEMBER_EVENT_START};
    struct gossip_control_event control = {.kind = GOSSIP_CONTROL_EVENT_START};
    const char *join[CONTROL_NODES_MAX];
    uint64_t seed = gossip_random_next(&net->random);
    assert_false(node->up);
    for (size_t j = 0; j < node->join_n; j++)
        join[j] = node->join[j];
    gossip_member_options_default(&options);
    node->record.generation++;
    node->wake_ms = net->now_ms;
    node->sync_ms = UINT64_MAX;
    node->batch = 0;
    node->synced = 0;
    node->writes = 0;
    node->checked_index = UINT64_MAX;
    node->up = true;
    assert_int_equal(gossip_member_new(&options, &node->record, join, node->join_n, seed, &node->member), 0);
    assert_int_equal(
        gossip_control_new(&node->options, node->kv, node->member, &node->record.store, seed, &node->control),
        0);
    step_member(net, i, &member);
    if (node->up)
        step_control(net, i, &control);
}

static void drop(struct control_net *net, size_t i)
{
    struct control_node *node = &net->nodes[i];
    for (size_t h = 0; h < node->held_n; h++)
        free(node->held[h].payload);
    node->held_n = 0;
    for (size_t c = 0; c < net->calls_n; c++)
        if (net->calls[c].node == i && net->calls[c].code == CONTROL_PENDING)
            net->calls[c].code = CONTROL_DIED;
    gossip_control_destroy(&node->control);
    gossip_member_destroy(&node->member);
    node->up = false;
}

void control_net_crash(struct control_net *net, size_t i)
{
    size_t pending = replica_kv_memory_pending(net->nodes[i].kv);
    drop(net, i);
    replica_kv_memory_crash(net->nodes[i].kv,
                            net->lose_all ? 0 : gossip_random_below(&net->random, pending + 1));
}

void control_net_close(struct control_net *net)
{
    for (size_t i = 0; i < net->n; i++) {
        if (net->nodes[i].up)
            drop(net, i);
        replica_kv_destroy(&net->nodes[i].kv);
    }
    for (size_t p = 0; p < net->packets_n; p++)
        free(net->packets[p].payload);
    free(net->packets);
}

/* Time */

static void deliver(struct control_net *net, size_t at)
{
    struct control_packet packet = net->packets[at];
    struct control_node *to = &net->nodes[packet.to];
    struct gossip_message message = {.from = &net->nodes[packet.from].principal,
                                     .type = packet.type,
                                     .payload = packet.payload,
                                     .size = packet.size};
    net->packets[at] = net->packets[--net->packets_n];
    if (to->up && to->group == net->nodes[packet.from].group) {
        if (packet.room == GOSSIP_ROOM_MEMBER)
            step_member(
                net, packet.to,
                &(struct gossip_member_event){.kind = GOSSIP_MEMBER_EVENT_MESSAGE, .message = message});
        else
            step_control(
                net, packet.to,
                &(struct gossip_control_event){.kind = GOSSIP_CONTROL_EVENT_MESSAGE, .message = message});
    }
    free(packet.payload);
}

static void tick(struct control_net *net, size_t i)
{
    struct gossip_member_event member = {.kind = GOSSIP_MEMBER_EVENT_TIMER};
    struct gossip_control_event control = {.kind = GOSSIP_CONTROL_EVENT_TIMER};
    net->nodes[i].wake_ms = UINT64_MAX;
    step_member(net, i, &member);
    if (net->nodes[i].up)
        step_control(net, i, &control);
}

static void sync_disk(struct control_net *net, size_t i)
{
    struct control_node *node = &net->nodes[i];
    struct gossip_control_event event = {.kind = GOSSIP_CONTROL_EVENT_SYNCED};
    node->sync_ms = UINT64_MAX;
    assert_int_equal(replica_kv_sync(node->kv), 0);
    node->synced = node->syncing;
    event.synced = node->synced;
    release(net, i);
    step_control(net, i, &event);
}

/* The next thing that happens, if it is due by until_ms. */
static bool advance(struct control_net *net, uint64_t until_ms)
{
    uint64_t next = UINT64_MAX;
    size_t packet = SIZE_MAX, timer = SIZE_MAX, disk = SIZE_MAX;
    for (size_t p = 0; p < net->packets_n; p++)
        if (net->packets[p].at_ms < next) {
            next = net->packets[p].at_ms;
            packet = p;
        }
    for (size_t i = 0; i < net->n; i++) {
        const struct control_node *node = &net->nodes[i];
        if (node->up && node->sync_ms < next) {
            next = node->sync_ms;
            packet = SIZE_MAX;
            timer = SIZE_MAX;
            disk = i;
        }
        if (node->up && node->wake_ms < next) {
            next = node->wake_ms;
            packet = SIZE_MAX;
            disk = SIZE_MAX;
            timer = i;
        }
    }
    if (next > until_ms)
        return false;
    net->now_ms = next > net->now_ms ? next : net->now_ms;
    if (packet != SIZE_MAX)
        deliver(net, packet);
    else if (disk != SIZE_MAX)
        sync_disk(net, disk);
    else
        tick(net, timer);
    return true;
}

void control_net_run(struct control_net *net, uint64_t ms)
{
    uint64_t until = net->now_ms + ms;
    while (advance(net, until))
        ;
    net->now_ms = until;
}

bool control_net_run_until(struct control_net *net, bool (*done)(struct control_net *net), uint64_t ms)
{
    uint64_t until = net->now_ms + ms;
    while (!done(net))
        if (!advance(net, until))
            return false;
    return true;
}

/* Calls */

struct control_call *control_net_call(struct control_net *net, size_t node,
                                      const struct gossip_control_request *request)
{
    struct control_call *call = &net->calls[net->calls_n++];
    struct gossip_control_request copy = *request;
    struct gossip_control_event event = {.kind = GOSSIP_CONTROL_EVENT_REQUEST, .request = &copy};
    assert_true(net->calls_n <= CONTROL_CALLS_MAX);
    memset(call, 0, sizeof *call);
    call->node = node;
    call->code = CONTROL_PENDING;
    if (request->name != NULL)
        snprintf(call->name, sizeof call->name, "%s", request->name);
    copy.token = net->calls_n;
    assert_int_equal(step_control(net, node, &event), 0);
    return call;
}

static bool last_answered(struct control_net *net)
{
    return net->calls[net->calls_n - 1].code != CONTROL_PENDING;
}

int control_net_ask(struct control_net *net, size_t node, enum gossip_control_request_kind kind,
                    const char *name, const char *new_name)
{
    struct gossip_control_request request = {.kind = kind, .name = name, .new_name = new_name};
    struct control_call *call = control_net_call(net, node, &request);
    assert_true(control_net_run_until(net, last_answered, 20000));
    return call->code;
}

int control_net_inject(struct control_net *net, size_t to, const struct gossip_principal *from, uint8_t type,
                       const void *payload, size_t size)
{
    struct gossip_control_event event = {
        .kind = GOSSIP_CONTROL_EVENT_MESSAGE,
        .message = {.from = from, .type = type, .payload = payload, .size = size}};
    return step_control(net, to, &event);
}

size_t control_net_leader(const struct control_net *net)
{
    size_t up = 0, followers[CONTROL_NODES_MAX] = {0};
    for (size_t i = 0; i < net->n; i++) {
        struct gossip_control_status status;
        size_t leader;
        if (!net->nodes[i].up)
            continue;
        gossip_control_status(net->nodes[i].control, &status);
        up += status.voting;
        leader = node_of(net, &status.leader);
        if (status.voting && leader != SIZE_MAX && net->nodes[leader].up &&
            net->nodes[leader].control->role == CONTROL_LEADING &&
            net->nodes[leader].control->term == status.term)
            followers[leader]++;
    }
    for (size_t i = 0; i < net->n; i++)
        if (followers[i] * 2 > up)
            return i;
    return SIZE_MAX;
}

bool control_net_begun(struct control_net *net)
{
    for (size_t i = 0; i < net->n; i++)
        if (net->nodes[i].up && !net->nodes[i].control->visible)
            return false;
    return true;
}

bool control_net_agreed(struct control_net *net)
{
    const struct gossip_control *first = NULL;
    if (!control_net_begun(net))
        return false;
    for (size_t i = 0; i < net->n; i++) {
        if (!net->nodes[i].up)
            continue;
        if (first == NULL)
            first = net->nodes[i].control;
        if (net->nodes[i].control->registry.index != first->registry.index ||
            registry_digest(&net->nodes[i].control->registry) != registry_digest(&first->registry))
            return false;
    }
    return true;
}
