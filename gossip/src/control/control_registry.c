/* The registry: volumes by id and by name, the outcomes of recent proposals, and both on disk.
 *
 * Keys: 'V' 's' → index, term, forgotten, and the ring's two counters; 'V' 'v' id → a volume; 'V' 'o' slot →
 * an outcome. */
#include "control/control.h"

#include <stdlib.h>
#include <string.h>

#define STATE_FIELDS 5

void control_registry_close(struct control_registry *registry)
{
    for (size_t i = 0; i < registry->n; i++)
        free(registry->by_id[i]);
    free(registry->by_id);
    free(registry->by_name);
    memset(registry, 0, sizeof *registry);
}

/* Order in by_name. At most one of a name is live, so the live one is found by (name, live). */
static int compare_names(const struct gossip_volume *volume, const char *name, bool deleted,
                         const struct replica_id *id)
{
    int rv = strcmp(volume->name, name);
    if (rv == 0)
        rv = (int)volume->deleted - (int)deleted;
    return rv != 0 || id == NULL ? rv : replica_id_compare(&volume->id, id);
}

static size_t place_of_id(const struct control_registry *registry, const struct replica_id *id)
{
    size_t low = 0, high = registry->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (replica_id_compare(&registry->by_id[middle]->id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Among the first n. */
static size_t place_of_name(const struct control_registry *registry, size_t n, const char *name, bool deleted,
                            const struct replica_id *id)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_names(registry->by_name[middle], name, deleted, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct gossip_volume *control_registry_find(const struct control_registry *registry,
                                            const struct replica_id *id)
{
    size_t at = place_of_id(registry, id);
    return at < registry->n && replica_id_equal(&registry->by_id[at]->id, id) ? registry->by_id[at] : NULL;
}

struct gossip_volume *control_registry_find_name(const struct control_registry *registry, const char *name)
{
    size_t at = place_of_name(registry, registry->n, name, false, NULL);
    return at < registry->n && compare_names(registry->by_name[at], name, false, NULL) == 0
               ? registry->by_name[at]
               : NULL;
}

struct gossip_volume *control_registry_find_deleted(const struct control_registry *registry, const char *name)
{
    struct gossip_volume *found = NULL;
    for (size_t at = place_of_name(registry, registry->n, name, true, NULL);
         at < registry->n && compare_names(registry->by_name[at], name, true, NULL) == 0; at++)
        if (found == NULL || registry->by_name[at]->index > found->index)
            found = registry->by_name[at];
    return found;
}

static void move_in(struct gossip_volume **list, size_t n, size_t at, struct gossip_volume *volume)
{
    memmove(&list[at + 1], &list[at], (n - at) * sizeof list[0]);
    list[at] = volume;
}

static void move_out(struct gossip_volume **list, size_t n, size_t at)
{
    memmove(&list[at], &list[at + 1], (n - at - 1) * sizeof list[0]);
}

static int grow(struct control_registry *registry)
{
    size_t capacity = registry->capacity == 0 ? 16 : registry->capacity * 2;
    struct gossip_volume **list;
    if (registry->n < registry->capacity)
        return 0;
    list = reallocarray(registry->by_id, capacity, sizeof list[0]);
    if (list == NULL)
        return REPLICA_E_NOMEM;
    registry->by_id = list;
    list = reallocarray(registry->by_name, capacity, sizeof list[0]);
    if (list == NULL)
        return REPLICA_E_NOMEM;
    registry->by_name = list;
    registry->capacity = capacity;
    return 0;
}

static size_t place_in_names(const struct control_registry *registry, const struct gossip_volume *volume)
{
    return place_of_name(registry, registry->n, volume->name, volume->deleted, &volume->id);
}

int control_registry_put(struct control_registry *registry, const struct gossip_volume *volume)
{
    struct gossip_volume *known = control_registry_find(registry, &volume->id), copy = *volume;
    size_t at;
    if (known != NULL) { /* its place among the names may change */
        move_out(registry->by_name, registry->n, place_in_names(registry, known));
        *known = copy;
        at = place_of_name(registry, registry->n - 1, known->name, known->deleted, &known->id);
        move_in(registry->by_name, registry->n - 1, at, known);
        return 0;
    }
    if (grow(registry) != 0 || (known = malloc(sizeof *known)) == NULL)
        return REPLICA_E_NOMEM;
    *known = copy;
    move_in(registry->by_name, registry->n, place_in_names(registry, known), known);
    move_in(registry->by_id, registry->n, place_of_id(registry, &known->id), known);
    registry->n++;
    return 0;
}

void control_registry_remove(struct control_registry *registry, const struct replica_id *id)
{
    struct gossip_volume *volume = control_registry_find(registry, id);
    if (volume == NULL)
        return;
    move_out(registry->by_name, registry->n, place_in_names(registry, volume));
    move_out(registry->by_id, registry->n, place_of_id(registry, id));
    registry->n--;
    free(volume);
}

const struct control_outcome *control_registry_outcome(const struct control_registry *registry,
                                                       const struct replica_id *id)
{
    for (size_t i = 0; i < registry->outcomes_n; i++)
        if (replica_id_equal(&registry->outcomes[i].id, id))
            return &registry->outcomes[i];
    return NULL;
}

size_t control_registry_remember(struct control_registry *registry, const struct control_outcome *outcome)
{
    size_t at = registry->outcomes_next;
    struct control_outcome *slot = &registry->outcomes[at];
    if (registry->outcomes_n == CONTROL_OUTCOMES_MAX)
        registry->forgotten = slot->index > registry->forgotten ? slot->index : registry->forgotten;
    else
        registry->outcomes_n++;
    *slot = *outcome;
    registry->outcomes_next = (at + 1) % CONTROL_OUTCOMES_MAX;
    return at;
}

/* On disk */

static void volume_key(const struct replica_id *id, uint8_t ret_key[2 + REPLICA_ID_SIZE])
{
    ret_key[0] = 'V';
    ret_key[1] = 'v';
    memcpy(ret_key + 2, id->bytes, REPLICA_ID_SIZE);
}

static void put(struct gossip_update *update, const void *key, size_t key_n, struct replica_buffer *value)
{
    if (value->failed)
        update->failed = true;
    replica_kv_batch_put(&update->log, key, key_n, value->data, value->size);
    replica_buffer_close(value);
}

void control_registry_write_volume(const struct gossip_volume *volume, struct gossip_update *update)
{
    uint8_t key[2 + REPLICA_ID_SIZE];
    struct replica_buffer value;
    replica_buffer_init(&value);
    volume_key(&volume->id, key);
    control_volume_pack(&value, volume);
    put(update, key, sizeof key, &value);
}

void control_registry_erase_volume(const struct replica_id *id, struct gossip_update *update)
{
    uint8_t key[2 + REPLICA_ID_SIZE];
    volume_key(id, key);
    replica_kv_batch_delete(&update->log, key, sizeof key);
}

void control_registry_write_state(const struct control_registry *registry, struct gossip_update *update)
{
    struct replica_buffer value;
    replica_buffer_init(&value);
    replica_pack_array(&value, STATE_FIELDS);
    replica_pack_uint(&value, registry->index);
    replica_pack_uint(&value, registry->term);
    replica_pack_uint(&value, registry->forgotten);
    replica_pack_uint(&value, registry->outcomes_n);
    replica_pack_uint(&value, registry->outcomes_next);
    put(update, "Vs", 2, &value);
}

void control_registry_write_outcome(const struct control_registry *registry, size_t slot,
                                    struct gossip_update *update)
{
    uint8_t key[4] = {'V', 'o', (uint8_t)(slot >> 8), (uint8_t)slot};
    struct replica_buffer value;
    replica_buffer_init(&value);
    control_outcome_pack(&value, &registry->outcomes[slot]);
    put(update, key, sizeof key, &value);
}

static int load_state(struct control_registry *registry, struct replica_kv *log)
{
    struct replica_pack_reader reader;
    struct replica_buffer value;
    uint64_t n, next;
    size_t fields;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(log, "Vs", 2, &value);
    if (rv == 0) {
        replica_pack_reader_init(&reader, value.data, value.size);
        replica_pack_read_array(&reader, STATE_FIELDS, &fields);
        replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &registry->index);
        replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &registry->term);
        replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &registry->forgotten);
        replica_pack_read_uint(&reader, CONTROL_OUTCOMES_MAX, &n);
        replica_pack_read_uint(&reader, CONTROL_OUTCOMES_MAX - 1, &next);
        registry->outcomes_n = n;
        registry->outcomes_next = next;
        if (replica_pack_reader_finish(&reader) != 0 || fields != STATE_FIELDS)
            rv = REPLICA_E_CORRUPT;
    }
    replica_buffer_close(&value);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int load_outcomes(struct control_registry *registry, struct replica_kv *log)
{
    struct replica_buffer value;
    int rv = 0;
    replica_buffer_init(&value);
    for (size_t slot = 0; slot < registry->outcomes_n && rv == 0; slot++) {
        uint8_t key[4] = {'V', 'o', (uint8_t)(slot >> 8), (uint8_t)slot};
        struct replica_pack_reader reader;
        rv = replica_kv_get(log, key, sizeof key, &value);
        if (rv != 0)
            break;
        replica_pack_reader_init(&reader, value.data, value.size);
        if (control_outcome_read(&reader, &registry->outcomes[slot]) != 0 ||
            replica_pack_reader_finish(&reader) != 0)
            rv = REPLICA_E_CORRUPT;
    }
    replica_buffer_close(&value);
    return rv == REPLICA_E_NOTFOUND ? REPLICA_E_CORRUPT : rv;
}

static int load_volume(struct control_registry *registry, const uint8_t *value, size_t n)
{
    struct replica_pack_reader reader;
    struct gossip_volume volume;
    replica_pack_reader_init(&reader, value, n);
    if (control_volume_read(&reader, &volume) != 0 || replica_pack_reader_finish(&reader) != 0)
        return REPLICA_E_CORRUPT;
    return control_registry_put(registry, &volume);
}

int control_registry_load(struct control_registry *registry, struct replica_kv *log)
{
    struct replica_kv_cursor *cursor;
    int rv = load_state(registry, log), closed;
    if (rv == 0)
        rv = load_outcomes(registry, log);
    if (rv == 0)
        rv = replica_kv_cursor_open(log, &cursor);
    if (rv != 0)
        return rv;
    for (replica_kv_cursor_seek(cursor, "Vv", 2); rv == 0 && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        size_t key_n, n;
        replica_kv_cursor_key(cursor, &key, &key_n);
        if (key_n < 2 || key[0] != 'V' || key[1] != 'v')
            break;
        replica_kv_cursor_value(cursor, &value, &n);
        rv = load_volume(registry, value, n);
    }
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}
