/* The state machine: what an entry does to the registry. Depends on nothing but the registry and the entry,
 * so that every member comes to the same outcome. */
#include "control/control.h"

#include <string.h>

struct effect {
    int code;
    struct replica_id volume; /* zero: none */
};

static void write_change(struct gossip_control *control, const struct gossip_volume *volume,
                         struct gossip_update *update)
{
    if (control_registry_put(&control->registry, volume) != 0)
        update->failed = true;
    control_registry_write_volume(volume, update);
    gossip_update_note(update, GOSSIP_NOTE_VOLUME, &volume->id, NULL, NULL);
}

static struct effect create(struct gossip_control *control, uint64_t index,
                            const struct control_proposal *proposal, struct gossip_update *update)
{
    const struct gossip_volume *existing = control_registry_find_name(&control->registry, proposal->name);
    struct gossip_volume volume = {.version = proposal->version == 0 ? 2 : proposal->version,
                                   .id = proposal->volume,
                                   .created_ms = proposal->time_ms,
                                   .creator = proposal->creator,
                                   .voters_wanted = proposal->voters_wanted,
                                   .index = index,
                                   .configuration = {.epoch = 1, .phase = GOSSIP_PHASE_FINAL}};
    if (existing != NULL && !proposal->if_missing)
        return (struct effect){REPLICA_E_EXISTS, existing->id};
    if (existing != NULL && proposal->version != 0 && existing->version != proposal->version)
        return (struct effect){REPLICA_E_REFUSED, existing->id};
    if (existing != NULL)
        return (struct effect){0, existing->id};
    if (control->registry.n >= GOSSIP_VOLUMES_MAX || proposal->voters_n == 0 ||
        replica_id_is_zero(&proposal->volume) ||
        control_registry_find(&control->registry, &proposal->volume) != NULL)
        return (struct effect){.code = REPLICA_E_NOSPACE};
    memcpy(volume.name, proposal->name, sizeof volume.name);
    volume.configuration.voters_n = proposal->voters_n;
    memcpy(volume.configuration.voters, proposal->voters, sizeof volume.configuration.voters);
    write_change(control, &volume, update);
    return (struct effect){0, volume.id};
}

static struct effect rename_volume(struct gossip_control *control, uint64_t index,
                                   const struct control_proposal *proposal, struct gossip_update *update)
{
    const struct gossip_volume *existing = control_registry_find_name(&control->registry, proposal->name);
    const struct gossip_volume *taken = control_registry_find_name(&control->registry, proposal->new_name);
    struct gossip_volume volume;
    if (existing == NULL)
        return (struct effect){.code = REPLICA_E_NOTFOUND};
    if (taken != NULL && taken != existing)
        return (struct effect){REPLICA_E_EXISTS, taken->id};
    volume = *existing;
    memcpy(volume.name, proposal->new_name, sizeof volume.name);
    volume.index = index;
    write_change(control, &volume, update);
    return (struct effect){0, volume.id};
}

static struct effect delete_volume(struct gossip_control *control, uint64_t index,
                                   const struct control_proposal *proposal, struct gossip_update *update)
{
    const struct gossip_volume *existing = control_registry_find_name(&control->registry, proposal->name);
    struct gossip_volume volume;
    if (existing == NULL)
        return (struct effect){.code = REPLICA_E_NOTFOUND};
    volume = *existing;
    volume.deleted = true;
    volume.deleted_ms = proposal->time_ms;
    volume.index = index;
    write_change(control, &volume, update);
    return (struct effect){0, volume.id};
}

static struct effect undelete_volume(struct gossip_control *control, uint64_t index,
                                     const struct control_proposal *proposal, struct gossip_update *update)
{
    const struct gossip_volume *taken = control_registry_find_name(&control->registry, proposal->name);
    const struct gossip_volume *existing = control_registry_find_deleted(&control->registry, proposal->name);
    struct gossip_volume volume;
    if (existing == NULL) /* a live one needs no undeleting, and is named as what is in the way */
        return taken == NULL ? (struct effect){.code = REPLICA_E_NOTFOUND}
                             : (struct effect){REPLICA_E_EXISTS, taken->id};
    if (taken != NULL)
        return (struct effect){REPLICA_E_EXISTS, taken->id};
    volume = *existing;
    volume.deleted = false;
    volume.deleted_ms = 0;
    volume.index = index;
    write_change(control, &volume, update);
    return (struct effect){0, volume.id};
}

static struct effect look_up(const struct gossip_control *control, const struct control_proposal *proposal)
{
    const struct gossip_volume *existing = control_registry_find_name(&control->registry, proposal->name);
    return existing == NULL ? (struct effect){.code = REPLICA_E_NOTFOUND} : (struct effect){0, existing->id};
}

static bool volume_expired(const struct gossip_volume *volume, uint64_t time_ms)
{
    return volume->deleted && time_ms >= volume->deleted_ms &&
           time_ms - volume->deleted_ms >= GOSSIP_DELETED_KEPT_MS;
}

bool control_apply_expired(const struct control_registry *registry, uint64_t time_ms)
{
    for (size_t i = 0; i < registry->n; i++)
        if (volume_expired(registry->by_id[i], time_ms))
            return true;
    return false;
}

static void expire(struct gossip_control *control, uint64_t time_ms, struct gossip_update *update)
{
    for (size_t i = control->registry.n; i > 0; i--) {
        struct replica_id id = control->registry.by_id[i - 1]->id;
        if (!volume_expired(control->registry.by_id[i - 1], time_ms))
            continue;
        control_registry_erase_volume(&id, update);
        control_registry_remove(&control->registry, &id);
    }
}

static struct effect change(struct gossip_control *control, uint64_t index,
                            const struct control_proposal *proposal, struct gossip_update *update)
{
    if (proposal->base < control->registry.forgotten) /* it may have been applied before, and forgotten */
        return (struct effect){.code = REPLICA_E_INDETERMINATE};
    switch (proposal->kind) {
    case CONTROL_CREATE:
        return create(control, index, proposal, update);
    case CONTROL_RENAME:
        return rename_volume(control, index, proposal, update);
    case CONTROL_DELETE:
        return delete_volume(control, index, proposal, update);
    case CONTROL_UNDELETE:
        return undelete_volume(control, index, proposal, update);
    case CONTROL_LOOKUP:
        return look_up(control, proposal);
    case CONTROL_NOOP:
    case CONTROL_EXPIRE:
    case CONTROL_KINDS:
        break;
    }
    return (struct effect){.code = 0};
}

void control_apply(struct gossip_control *control, uint64_t index, uint64_t term,
                   const struct control_proposal *proposal, struct gossip_update *update)
{
    struct control_registry *registry = &control->registry;
    const struct control_outcome *known = control_registry_outcome(registry, &proposal->id);
    struct control_outcome outcome = {.id = proposal->id, .index = index};
    struct effect effect;
    registry->index = index;
    registry->term = term;
    if (proposal->kind == CONTROL_EXPIRE)
        expire(control, proposal->time_ms, update);
    if (proposal->kind != CONTROL_NOOP && proposal->kind != CONTROL_EXPIRE) {
        if (known != NULL)
            outcome = *known; /* the same proposal came into the log twice: applied once, answered alike */
        else {
            effect = change(control, index, proposal, update);
            outcome.code = effect.code;
            outcome.volume = effect.volume;
            control_registry_write_outcome(registry, control_registry_remember(registry, &outcome), update);
        }
    }
    control_registry_write_state(registry, update);
    if (proposal->kind != CONTROL_NOOP && proposal->kind != CONTROL_EXPIRE)
        control_request_outcome(control, &outcome, update);
}
