/* The node, its cluster, and how both are doing. */
#include "api/methods.h"

#include <unistd.h>

static void pack_cluster(struct api_call *call, struct replica_buffer *out)
{
    struct replica_id cluster = gossip_control_cluster(gossip_peer_control(api_peer(call)));
    api_pack_key(out, "cluster");
    if (replica_id_is_zero(&cluster))
        replica_pack_nil(out);
    else
        replica_pack_id(out, &cluster);
}

void api_node_info(struct api_call *call)
{
    const struct gossip_member_record *self = gossip_member_self(gossip_peer_member(api_peer(call)));
    const struct node_config *config = node_get_config(api_node(call->api));
    struct replica_buffer reply;
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 9);
    api_pack_key(&reply, "store");
    replica_pack_id(&reply, &self->store);
    api_pack_key(&reply, "name");
    replica_pack_cstr(&reply, self->name);
    api_pack_key(&reply, "version");
    replica_pack_cstr(&reply, REMORA_VERSION);
    pack_cluster(call, &reply);
    api_pack_key(&reply, "waiting");
    replica_pack_cstr(&reply, gossip_control_waiting(gossip_peer_control(api_peer(call))));
    api_pack_key(&reply, "endpoint");
    replica_pack_cstr(&reply, self->endpoint);
    api_pack_key(&reply, "data");
    replica_pack_cstr(&reply, config->data);
    api_pack_key(&reply, "pid");
    replica_pack_int(&reply, getpid());
    api_pack_key(&reply, "generation");
    replica_pack_uint(&reply, self->generation);
    api_reply(call, &reply);
}

static void on_init(struct api_call *call, void *context, int code, const uint8_t *result, size_t n)
{
    struct replica_buffer reply;
    (void)context;
    if (code != 0) {
        api_fail_answer(call, NULL, code, result, n);
        return;
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 1);
    pack_cluster(call, &reply);
    api_reply(call, &reply);
}

void api_cluster_init(struct api_call *call)
{
    struct gossip_peer_request request = {.kind = GOSSIP_PEER_CONTROL,
                                          .control = {.kind = GOSSIP_CONTROL_INIT}};
    api_request(call, &request, on_init, NULL);
}

static const char *state_name(enum gossip_member_state state)
{
    static const char *const NAMES[] = {"alive", "suspect", "dead", "left"};
    return state <= GOSSIP_MEMBER_LEFT ? NAMES[state] : "dead";
}

static void pack_member(struct replica_buffer *out, const struct gossip_member_record *record, bool self)
{
    replica_pack_map(out, 9);
    api_pack_key(out, "store");
    replica_pack_id(out, &record->store);
    api_pack_key(out, "name");
    replica_pack_cstr(out, record->name);
    api_pack_key(out, "state");
    replica_pack_cstr(out, state_name(record->state));
    api_pack_key(out, "zone");
    replica_pack_cstr(out, record->zone);
    api_pack_key(out, "roles");
    replica_pack_array(out, record->roles & GOSSIP_MEMBER_VOTE ? 1 : 0);
    if (record->roles & GOSSIP_MEMBER_VOTE)
        replica_pack_cstr(out, "vote");
    api_pack_key(out, "version");
    replica_pack_cstr(out, record->version);
    api_pack_key(out, "endpoint");
    replica_pack_cstr(out, record->endpoint);
    api_pack_key(out, "generation");
    replica_pack_uint(out, record->generation);
    api_pack_key(out, "self");
    replica_pack_bool(out, self);
}

/* At most GOSSIP_MEMBERS_MAX records of some 300 bytes would be more than a message: the reply is cut there, and says so. */
void api_cluster_members(struct api_call *call)
{
    const struct gossip_member *member = gossip_peer_member(api_peer(call));
    const struct gossip_member_record *self = gossip_member_self(member);
    struct replica_buffer reply, items;
    size_t n = 0, count = gossip_member_count(member);
    replica_buffer_init(&items);
    while (n < count && items.size < API_REPLY_MAX) {
        const struct gossip_member_record *record = gossip_member_at(member, n++);
        pack_member(&items, record, replica_id_equal(&record->store, &self->store));
    }
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 2);
    api_pack_key(&reply, "members");
    replica_pack_array(&reply, n);
    replica_buffer_append(&reply, items.data, items.size);
    api_pack_key(&reply, "more");
    replica_pack_bool(&reply, n < count);
    replica_buffer_close(&items);
    api_reply(call, &reply);
}

/* How many deltas a vector stands for. */
static uint64_t deltas_of(const struct replica_vector *vector)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < vector->n; i++)
        sum += vector->entries[i].seq;
    return sum;
}

static void pack_voters(struct replica_buffer *out, const struct gossip_member *member,
                        const struct gossip_volume *volume)
{
    replica_pack_array(out, volume->configuration.voters_n);
    for (size_t i = 0; i < volume->configuration.voters_n; i++) {
        const struct gossip_member_record *record =
            gossip_member_find(member, &volume->configuration.voters[i]);
        replica_pack_map(out, 2);
        api_pack_key(out, "name");
        api_pack_store_name(out, member, &volume->configuration.voters[i]);
        api_pack_key(out, "state");
        replica_pack_cstr(out, record == NULL ? "dead" : state_name(record->state));
    }
}

static void pack_volume_status(struct replica_buffer *out, const struct gossip_peer *peer,
                               const struct gossip_volume *volume)
{
    const struct replica_volume *replica = gossip_peer_volume(peer, &volume->id);
    const struct replica_volume_state *state = replica == NULL ? NULL : replica_volume_state(replica);
    uint64_t stored = state == NULL ? 0 : deltas_of(&state->stored),
             committed = state == NULL ? 0 : deltas_of(&state->committed);
    replica_pack_map(out, 6);
    api_pack_key(out, "name");
    replica_pack_cstr(out, volume->name);
    api_pack_key(out, "id");
    replica_pack_id(out, &volume->id);
    api_pack_key(out, "voters");
    pack_voters(out, gossip_peer_member(peer), volume);
    api_pack_key(out, "applied");
    replica_pack_uint(out, state == NULL ? 0 : deltas_of(&state->applied));
    api_pack_key(out, "committed");
    replica_pack_uint(out, committed);
    api_pack_key(out, "pending");
    replica_pack_uint(out, stored > committed ? stored - committed : 0);
}

static void pack_volumes(const struct api_call *call, struct replica_buffer *out)
{
    const struct gossip_peer *peer = api_peer(call);
    const struct gossip_control *control = gossip_peer_control(peer);
    struct replica_buffer items;
    size_t n = 0;
    replica_buffer_init(&items);
    for (size_t i = 0; i < gossip_control_volumes(control) && items.size < API_REPLY_MAX; i++) {
        const struct gossip_volume *volume = gossip_control_volume_at(control, i);
        if (volume->deleted || !api_may(call, volume->name, NODE_RIGHT_READ))
            continue;
        pack_volume_status(&items, peer, volume);
        n++;
    }
    replica_pack_array(out, n);
    replica_buffer_append(out, items.data, items.size);
    replica_buffer_close(&items);
}

static size_t alive_members(const struct gossip_member *member)
{
    size_t alive = 0;
    for (size_t i = 0; i < gossip_member_count(member); i++)
        alive += gossip_member_is_alive(member, &gossip_member_at(member, i)->store);
    return alive;
}

static void pack_contents(struct api_call *call, struct replica_buffer *out)
{
    struct replica_contents_totals totals;
    struct gossip_swarm_status swarm;
    replica_contents_totals(api_contents(call), &totals);
    gossip_swarm_status(gossip_peer_swarm(api_peer(call)), &swarm);
    api_pack_key(out, "contents");
    replica_pack_map(out, 2);
    api_pack_key(out, "count");
    replica_pack_uint(out, totals.count);
    api_pack_key(out, "bytes");
    replica_pack_uint(out, totals.bytes);
    api_pack_key(out, "fetches");
    replica_pack_map(out, 3);
    api_pack_key(out, "active");
    replica_pack_uint(out, swarm.fetches);
    api_pack_key(out, "waiting");
    replica_pack_uint(out, swarm.waiting);
    api_pack_key(out, "stalled");
    replica_pack_uint(out, swarm.stalled);
}

void api_cluster_status(struct api_call *call)
{
    const struct gossip_peer *peer = api_peer(call);
    const struct gossip_member *member = gossip_peer_member(peer);
    struct gossip_control_status control;
    struct node_transport_stats transport;
    struct replica_buffer reply;
    gossip_control_status(gossip_peer_control(peer), &control);
    node_get_transport_stats(api_node(call->api), &transport);
    api_reply_begin(call, &reply);
    replica_pack_map(&reply, 10);
    pack_cluster(call, &reply);
    api_pack_key(&reply, "waiting");
    replica_pack_cstr(&reply, gossip_control_waiting(gossip_peer_control(peer)));
    api_pack_key(&reply, "leader");
    if (replica_id_is_zero(&control.leader))
        replica_pack_nil(&reply);
    else
        api_pack_store_name(&reply, member, &control.leader);
    api_pack_key(&reply, "control");
    replica_pack_array(&reply, control.members_n);
    for (size_t i = 0; i < control.members_n; i++)
        api_pack_store_name(&reply, member, &control.members[i]);
    api_pack_key(&reply, "members");
    replica_pack_uint(&reply, alive_members(member));
    api_pack_key(&reply, "volumes");
    pack_volumes(call, &reply);
    pack_contents(call, &reply);
    api_pack_key(&reply, "sent_bytes");
    replica_pack_uint(&reply, transport.sent_bytes);
    api_pack_key(&reply, "received_bytes");
    replica_pack_uint(&reply, transport.received_bytes);
    api_reply(call, &reply);
}
