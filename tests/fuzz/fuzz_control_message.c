/* Messages to the control room from another member of its log. The first byte is the type; the second says whether the
 * rest stands for itself, or follows a true beginning (so many fields, the cluster's id). */
#include "control/control.h"
#include "replica/kv_memory.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct replica_id CLUSTER = {{9}};

static void step(struct gossip_control *control, struct replica_kv *kv, struct gossip_control_event *event)
{
    static uint64_t batch;
    struct gossip_update update;
    int rv;
    gossip_update_init(&update);
    event->batch = ++batch;
    event->synced = event->kind == GOSSIP_CONTROL_EVENT_SYNCED ? batch - 1 : 0;
    rv = gossip_control_step(control, event, &update);
    if (rv != 0 && rv != REPLICA_E_MALFORMED && rv != REPLICA_E_DENIED)
        abort();
    if (rv != 0 && update.log.count > 0)
        abort();
    if (replica_kv_write(kv, &update.log) != 0)
        abort();
    gossip_update_close(&update);
}

/* Makes it one of three members of a cluster that has begun. */
static void join(struct gossip_control *control, struct replica_kv *kv, const struct gossip_principal *from)
{
    struct gossip_control_event event = {.kind = GOSSIP_CONTROL_EVENT_MESSAGE, .time = {1, 1}};
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    replica_pack_array(&payload, 9);
    replica_pack_id(&payload, &CLUSTER);
    replica_pack_array(&payload, 3);
    for (uint8_t i = 1; i <= 3; i++) {
        struct replica_id member = {{i}};
        replica_pack_id(&payload, &member);
    }
    replica_pack_id(&payload, &from->store);
    for (unsigned i = 0; i < 5; i++)
        replica_pack_uint(&payload, 0);
    replica_pack_array(&payload, 0);
    event.message = (struct gossip_message){
        .from = from, .type = CONTROL_STATE, .payload = payload.data, .size = payload.size};
    step(control, kv, &event);
    if (!control_is_member(control))
        abort();
    replica_buffer_close(&payload);
}

static void begin_payload(struct replica_buffer *payload, uint8_t fields)
{
    if (fields == 0)
        return;
    replica_pack_array(payload, fields % 16);
    replica_pack_id(payload, &CLUSTER);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gossip_control_options options;
    struct gossip_member_options member_options;
    struct gossip_member_record self = {.store = {{1}}, .generation = 1, .endpoint = "tcp://10.0.0.1:7000"};
    struct gossip_principal from = {.store = {{2}}, .role = GOSSIP_ROLE_VOTER, .every_volume = true};
    struct gossip_control_event event = {.kind = GOSSIP_CONTROL_EVENT_START, .time = {1, 1}};
    struct gossip_control *control;
    struct gossip_member *member;
    struct replica_buffer payload;
    struct replica_kv *kv;
    if (size < 2)
        return 0;
    gossip_control_options_default(&options);
    gossip_member_options_default(&member_options);
    options.begin = GOSSIP_BEGIN_JOIN;
    options.snapshot_entries = 4;
    replica_buffer_init(&payload);
    begin_payload(&payload, data[1]);
    replica_buffer_append(&payload, data + 2, size - 2);
    if (replica_kv_memory_new(&kv) != 0 ||
        gossip_member_new(&member_options, &self, NULL, 0, 1, &member) != 0 ||
        gossip_control_new(&options, kv, member, &self.store, 1, &control) != 0 || payload.failed)
        abort();
    step(control, kv, &event);
    join(control, kv, &from);
    for (unsigned i = 0; i < 2; i++) { /* as it comes, and twice; then the time that follows */
        event = (struct gossip_control_event){
            .kind = GOSSIP_CONTROL_EVENT_MESSAGE,
            .time = {2, 2},
            .message = {.from = &from, .type = data[0], .payload = payload.data, .size = payload.size}};
        step(control, kv, &event);
        event = (struct gossip_control_event){.kind = GOSSIP_CONTROL_EVENT_SYNCED, .time = {3, 3}};
        step(control, kv, &event);
    }
    event = (struct gossip_control_event){.kind = GOSSIP_CONTROL_EVENT_TIMER, .time = {5000, 5000}};
    step(control, kv, &event);
    gossip_control_destroy(&control); /* and what it wrote can be loaded again */
    if (gossip_control_new(&options, kv, member, &self.store, 1, &control) != 0)
        abort();
    gossip_control_destroy(&control);
    gossip_member_destroy(&member);
    replica_kv_destroy(&kv);
    replica_buffer_close(&payload);
    return 0;
}
