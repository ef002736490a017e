/* Making a control room, routing its events, and what others read of it. */
#include "control/control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_STREAM 2  /* of this room */
#define FIELDS_MAX    32 /* of a message of a newer version */

void gossip_control_options_default(struct gossip_control_options *options)
{
    *options = (struct gossip_control_options){.begin = GOSSIP_BEGIN_ALONE,
                                               .heartbeat_ms = 100,
                                               .election_ms = 1000,
                                               .copy_ms = 1000,
                                               .snapshot_entries = 1024,
                                               .request_ms = 10000};
}

static int load(struct gossip_control *control)
{
    int rv = control_begin_load(control);
    if (rv == 0)
        rv = control_registry_load(&control->registry, control->kv);
    if (rv == 0)
        rv = control_log_load(control);
    if (rv != 0)
        return rv;
    control->commit = control->registry.index;
    if (control->visible && control->self_index >= 0 &&
        (control->registry.index < control->log.base_index ||
         control->registry.index > control_log_last(&control->log)))
        return REPLICA_E_CORRUPT;
    return 0;
}

int gossip_control_new(const struct gossip_control_options *options, struct replica_kv *log,
                       const struct gossip_member *member, const struct replica_id *self, uint64_t seed,
                       struct gossip_control **ret_control)
{
    struct gossip_control *control = calloc(1, sizeof *control);
    int rv;
    if (control == NULL)
        return REPLICA_E_NOMEM;
    assert(options->heartbeat_ms > 0 && options->heartbeat_ms < options->election_ms);
    assert(options->begin != GOSSIP_BEGIN_EXPECT ||
           (options->expect % 2 == 1 && options->expect <= GOSSIP_CONTROL_MEMBERS_MAX));
    control->options = *options;
    control->kv = log;
    control->member = member;
    control->self = *self;
    control->self_index = -1;
    gossip_random_init(&control->random, seed, RANDOM_STREAM);
    rv = load(control);
    if (rv != 0) {
        gossip_control_destroy(&control);
        return rv;
    }
    control_begin_describe(control);
    *ret_control = control;
    return 0;
}

void gossip_control_destroy(struct gossip_control **control)
{
    struct gossip_control *it = *control;
    if (it == NULL)
        return;
    control_log_close(&it->log);
    control_registry_close(&it->registry);
    control_snapshot_drop(&it->out);
    control_snapshot_drop(&it->in);
    control_copy_drop(&it->copy);
    free(it->pending);
    free(it);
    *control = NULL;
}

/* Messages */

int control_open(const struct gossip_message *message, size_t fields, struct control_input *ret_input)
{
    size_t n;
    replica_pack_reader_init(&ret_input->reader, message->payload, message->size);
    replica_pack_read_array(&ret_input->reader, FIELDS_MAX, &n);
    replica_pack_read_id(&ret_input->reader, &ret_input->cluster);
    if (ret_input->reader.failed || n < fields + 1)
        return REPLICA_E_MALFORMED;
    ret_input->rest = n - fields - 1;
    return 0;
}

int control_close(struct control_input *input)
{
    control_skip(&input->reader, input->rest, 0);
    return replica_pack_reader_finish(&input->reader);
}

void control_begin_message(const struct gossip_control *control, struct replica_buffer *out, size_t fields)
{
    static const struct replica_id NONE;
    replica_buffer_init(out);
    replica_pack_array(out, fields + 1);
    replica_pack_id(out, control->visible ? &control->cluster : &NONE);
}

void control_send(const struct replica_id *to, enum control_message type, struct replica_buffer *payload,
                  bool durable, struct gossip_update *update)
{
    gossip_update_send(update, to, GOSSIP_ROOM_CONTROL, (uint8_t)type, payload, durable);
    replica_buffer_close(payload);
}

int control_member_index(const struct gossip_control *control, const struct replica_id *store)
{
    for (size_t i = 0; i < control->members_n; i++)
        if (replica_id_equal(&control->members[i], store))
            return (int)i;
    return -1;
}

bool control_from_member(const struct gossip_control *control, const struct gossip_message *message)
{
    return message->from->role == GOSSIP_ROLE_VOTER &&
           control_member_index(control, &message->from->store) >= 0 &&
           !replica_id_equal(&message->from->store, &control->self);
}

/* Whether a message names our cluster; those by which a cluster is found are judged where they are read. */
static bool of_this_cluster(const struct gossip_control *control, const struct gossip_message *message)
{
    struct control_input input;
    return control->visible && control_open(message, 0, &input) == 0 &&
           replica_id_equal(&input.cluster, &control->cluster);
}

static int route_raft(struct gossip_control *control, const struct gossip_message *message,
                      struct gossip_update *update)
{
    if (!control_is_member(control))
        return REPLICA_E_DENIED;
    switch (message->type) {
    case CONTROL_APPEND:
    case CONTROL_APPENDED:
        return control_replicate_message(control, message, update);
    case CONTROL_SNAPSHOT:
    case CONTROL_SNAPSHOTTED:
        return control_snapshot_message(control, message, update);
    default:
        return control_raft_message(control, message, update);
    }
}

static int route(struct gossip_control *control, const struct gossip_message *message,
                 struct gossip_update *update)
{
    struct control_input input;
    switch (message->type) {
    case CONTROL_PULL:
    case CONTROL_STATE:
    case CONTROL_NEWS:
        return control_copy_message(control, message, update);
    case CONTROL_FRESH:
    case CONTROL_ASK:
    case CONTROL_PROMISE:
        return control_begin_message_in(control, message, update);
    default:
        break;
    }
    if (control_open(message, 0, &input) != 0 || message->type == 0 || message->type > CONTROL_NEWS)
        return REPLICA_E_MALFORMED;
    if (!of_this_cluster(control, message))
        return REPLICA_E_DENIED;
    switch (message->type) {
    case CONTROL_WHO:
    case CONTROL_LEADER:
    case CONTROL_PROPOSE:
    case CONTROL_OUTCOME:
        return control_request_message(control, message, update);
    default:
        return route_raft(control, message, update);
    }
}

/* What is due, whatever the event was. */
static void do_due(struct gossip_control *control, struct gossip_update *update)
{
    control_begin_timer(control, update);
    control_init_timer(control, update);
    if (control_is_member(control) && control->registry.index < control->commit)
        control_replicate_apply(control, update);
    control_request_timer(control, update);
    control_raft_timer(control, update);
    control_copy_timer(control, update);
    control_begin_describe(control);
}

int gossip_control_step(struct gossip_control *control, const struct gossip_control_event *event,
                        struct gossip_update *update)
{
    int rv = 0;
    control->now_ms = event->time.now_ms;
    control->wall_ms = event->time.wall_ms;
    control->batch = event->batch;
    switch (event->kind) {
    case GOSSIP_CONTROL_EVENT_START:
        control_begin_start(control, update);
        break;
    case GOSSIP_CONTROL_EVENT_TIMER:
        break;
    case GOSSIP_CONTROL_EVENT_MESSAGE:
        rv = route(control, &event->message, update);
        break;
    case GOSSIP_CONTROL_EVENT_REQUEST:
        control_request_new(control, event->request, update);
        break;
    case GOSSIP_CONTROL_EVENT_SYNCED:
        control->synced = event->synced;
        control_begin_synced(control, update);
        control_raft_synced(control, update);
        break;
    }
    if (rv == REPLICA_E_MALFORMED || rv == REPLICA_E_DENIED)
        return rv;
    do_due(control, update);
    return update->failed ? REPLICA_E_NOMEM : rv;
}

/* Reading */

struct replica_id gossip_control_cluster(const struct gossip_control *control)
{
    static const struct replica_id NONE;
    return control->visible ? control->cluster : NONE;
}

const char *gossip_control_waiting(const struct gossip_control *control)
{
    return control->waiting;
}

const struct gossip_volume *gossip_control_volume(const struct gossip_control *control,
                                                  const struct replica_id *id)
{
    return control_registry_find(&control->registry, id);
}

const struct gossip_volume *gossip_control_volume_by_name(const struct gossip_control *control,
                                                          const char *name)
{
    return control_registry_find_name(&control->registry, name);
}

size_t gossip_control_volumes(const struct gossip_control *control)
{
    return control->registry.n;
}

const struct gossip_volume *gossip_control_volume_at(const struct gossip_control *control, size_t index)
{
    assert(index < control->registry.n);
    return control->registry.by_name[index];
}

void gossip_control_status(const struct gossip_control *control, struct gossip_control_status *ret_status)
{
    bool voting = control_is_member(control);
    *ret_status =
        (struct gossip_control_status){.voting = voting,
                                       .leader = voting ? control->leader : control->hint,
                                       .term = voting ? control->term : control->hint_term,
                                       .commit_index = voting ? control->commit : control->registry.index,
                                       .applied_index = control->registry.index,
                                       .members_n = control->visible ? control->members_n : 0};
    if (control->visible)
        memcpy(ret_status->members, control->members, sizeof ret_status->members);
}
