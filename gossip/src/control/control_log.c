/* Raft's log and hard state, in memory and on disk.
 *
 * Keys: 'R' 's' → term and vote; 'R' 'l' → index and term of the last entry that was cut away; 'R' 'e' index
 * → an entry. (The identity of the cluster, 'R' 'b', belongs to control_begin.c.) */
#include "control/control.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_KEY_SIZE (2 + 8)

uint64_t control_log_last(const struct control_log *log)
{
    return log->base_index + log->n;
}

const struct control_entry *control_log_at(const struct control_log *log, uint64_t index)
{
    if (index <= log->base_index || index > control_log_last(log))
        return NULL;
    return &log->entries[index - log->base_index - 1];
}

bool control_log_term(const struct control_log *log, uint64_t index, uint64_t *ret_term)
{
    const struct control_entry *entry = control_log_at(log, index);
    if (entry != NULL)
        *ret_term = entry->term;
    else if (index == log->base_index)
        *ret_term = log->base_term;
    else
        return false;
    return true;
}

void control_log_close(struct control_log *log)
{
    for (size_t i = 0; i < log->n; i++)
        free(log->entries[i].bytes);
    free(log->entries);
    memset(log, 0, sizeof *log);
}

/* In memory only. Errors: NOMEM. */
static int push(struct control_log *log, uint64_t term, const struct replica_id *id, const uint8_t *bytes,
                size_t size)
{
    struct control_entry *entry;
    if (log->n == log->capacity) {
        size_t capacity = log->capacity == 0 ? 64 : log->capacity * 2;
        struct control_entry *entries = reallocarray(log->entries, capacity, sizeof entries[0]);
        if (entries == NULL)
            return REPLICA_E_NOMEM;
        log->entries = entries;
        log->capacity = capacity;
    }
    entry = &log->entries[log->n];
    entry->bytes = malloc(size);
    if (entry->bytes == NULL)
        return REPLICA_E_NOMEM;
    memcpy(entry->bytes, bytes, size);
    entry->size = size;
    entry->term = term;
    entry->id = *id;
    log->n++;
    return 0;
}

static void entry_key(uint64_t index, uint8_t ret_key[ENTRY_KEY_SIZE])
{
    ret_key[0] = 'R';
    ret_key[1] = 'e';
    replica_u64_encode(index, ret_key + 2);
}

/* Remembers that entries up to index become durable with the batch of this step. */
static void mark(struct control_log *log, uint64_t batch, uint64_t index)
{
    if (log->marks_n > 0 && log->marks[log->marks_n - 1].batch == batch) {
        log->marks[log->marks_n - 1].index = index;
        return;
    }
    if (log->marks_n == CONTROL_MARKS_MAX)
        log->marks_n--; /* the newest two become one, at the later batch: durable is learnt later, never too
                           early */
    log->marks[log->marks_n++] = (struct control_mark){batch, index};
}

void control_log_synced(struct control_log *log, uint64_t synced)
{
    size_t done = 0;
    while (done < log->marks_n && log->marks[done].batch <= synced)
        log->durable = log->marks[done++].index;
    memmove(log->marks, log->marks + done, (log->marks_n - done) * sizeof log->marks[0]);
    log->marks_n -= done;
}

void control_log_append(struct gossip_control *control, uint64_t term, const struct replica_id *id,
                        const uint8_t *bytes, size_t size, struct gossip_update *update)
{
    struct replica_buffer value;
    uint8_t key[ENTRY_KEY_SIZE];
    if (push(&control->log, term, id, bytes, size) != 0) {
        update->failed = true;
        return;
    }
    replica_buffer_init(&value);
    replica_pack_array(&value, 2);
    replica_pack_uint(&value, term);
    replica_pack_bin(&value, bytes, size);
    entry_key(control_log_last(&control->log), key);
    if (value.failed)
        update->failed = true;
    replica_kv_batch_put(&update->log, key, sizeof key, value.data, value.size);
    replica_buffer_close(&value);
    mark(&control->log, control->batch, control_log_last(&control->log));
}

void control_log_cut_from(struct gossip_control *control, uint64_t index, struct gossip_update *update)
{
    struct control_log *log = &control->log;
    assert(index > control->registry.index); /* what was applied was committed, and never changes */
    while (log->n > 0 && control_log_last(log) >= index) {
        uint8_t key[ENTRY_KEY_SIZE];
        entry_key(control_log_last(log), key);
        replica_kv_batch_delete(&update->log, key, sizeof key);
        free(log->entries[--log->n].bytes);
    }
    if (log->durable > index - 1)
        log->durable = index - 1;
    for (size_t i = 0; i < log->marks_n; i++)
        if (log->marks[i].index > index - 1)
            log->marks[i].index = index - 1;
}

static void write_base(const struct control_log *log, struct gossip_update *update)
{
    struct replica_buffer value;
    replica_buffer_init(&value);
    replica_pack_array(&value, 2);
    replica_pack_uint(&value, log->base_index);
    replica_pack_uint(&value, log->base_term);
    if (value.failed)
        update->failed = true;
    replica_kv_batch_put(&update->log, "Rl", 2, value.data, value.size);
    replica_buffer_close(&value);
}

void control_log_cut_to(struct gossip_control *control, uint64_t index, struct gossip_update *update)
{
    struct control_log *log = &control->log;
    size_t n = index - log->base_index;
    uint64_t term = 0;
    bool found = control_log_term(log, index, &term);
    assert(index <= control->registry.index); /* the registry has what goes */
    assert(found);
    for (size_t i = 0; i < n; i++) {
        uint8_t key[ENTRY_KEY_SIZE];
        entry_key(log->base_index + 1 + i, key);
        replica_kv_batch_delete(&update->log, key, sizeof key);
        free(log->entries[i].bytes);
    }
    memmove(log->entries, log->entries + n, (log->n - n) * sizeof log->entries[0]);
    log->n -= n;
    log->base_index = index;
    log->base_term = term;
    write_base(log, update);
}

void control_log_reset(struct gossip_control *control, uint64_t index, uint64_t term,
                       struct gossip_update *update)
{
    struct control_log *log = &control->log;
    for (size_t i = 0; i < log->n; i++) {
        uint8_t key[ENTRY_KEY_SIZE];
        entry_key(log->base_index + 1 + i, key);
        replica_kv_batch_delete(&update->log, key, sizeof key);
        free(log->entries[i].bytes);
    }
    log->n = 0;
    log->base_index = index;
    log->base_term = term;
    log->durable = 0;
    log->marks_n = 0;
    write_base(log, update);
    mark(log, control->batch, index);
}

void control_log_write_state(struct gossip_control *control, struct gossip_update *update)
{
    struct replica_buffer value;
    replica_buffer_init(&value);
    replica_pack_array(&value, 2);
    replica_pack_uint(&value, control->term);
    replica_pack_id(&value, &control->vote);
    if (value.failed)
        update->failed = true;
    replica_kv_batch_put(&update->log, "Rs", 2, value.data, value.size);
    replica_buffer_close(&value);
    control->state_batch = control->batch;
}

/* Loading */

static int load_pair(struct replica_kv *kv, const char *key, uint64_t *ret_number, uint64_t *ret_second,
                     struct replica_id *ret_id)
{
    struct replica_pack_reader reader;
    struct replica_buffer value;
    size_t n;
    int rv;
    replica_buffer_init(&value);
    rv = replica_kv_get(kv, key, 2, &value);
    if (rv == 0) {
        replica_pack_reader_init(&reader, value.data, value.size);
        replica_pack_read_array(&reader, 2, &n);
        replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, ret_number);
        if (ret_id != NULL)
            replica_pack_read_id(&reader, ret_id);
        else
            replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, ret_second);
        if (replica_pack_reader_finish(&reader) != 0 || n != 2)
            rv = REPLICA_E_CORRUPT;
    }
    replica_buffer_close(&value);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int load_entry(struct control_log *log, const uint8_t *key, const uint8_t *value, size_t n)
{
    struct replica_pack_reader reader;
    struct control_proposal proposal;
    const uint8_t *bytes;
    uint64_t term;
    size_t fields, size;
    replica_pack_reader_init(&reader, value, n);
    replica_pack_read_array(&reader, 2, &fields);
    replica_pack_read_uint(&reader, CONTROL_NUMBER_MAX, &term);
    replica_pack_read_bin(&reader, CONTROL_ENTRY_MAX, &bytes, &size);
    if (replica_pack_reader_finish(&reader) != 0 || fields != 2 ||
        replica_u64_decode(key + 2) != control_log_last(log) + 1 ||
        control_proposal_decode(bytes, size, &proposal) != 0)
        return REPLICA_E_CORRUPT;
    return push(log, term, &proposal.id, bytes, size);
}

static int load_entries(struct control_log *log, struct replica_kv *kv)
{
    struct replica_kv_cursor *cursor;
    int rv = replica_kv_cursor_open(kv, &cursor), closed;
    if (rv != 0)
        return rv;
    for (replica_kv_cursor_seek(cursor, "Re", 2); rv == 0 && replica_kv_cursor_valid(cursor);
         replica_kv_cursor_next(cursor)) {
        const uint8_t *key, *value;
        size_t key_n, n;
        replica_kv_cursor_key(cursor, &key, &key_n);
        if (key_n != ENTRY_KEY_SIZE || key[0] != 'R' || key[1] != 'e')
            break;
        replica_kv_cursor_value(cursor, &value, &n);
        rv = load_entry(log, key, value, n);
    }
    closed = replica_kv_cursor_close(&cursor);
    return rv != 0 ? rv : closed;
}

int control_log_load(struct gossip_control *control)
{
    struct control_log *log = &control->log;
    uint64_t last_term = 0;
    int rv = load_pair(control->kv, "Rs", &control->term, NULL, &control->vote);
    if (rv == 0)
        rv = load_pair(control->kv, "Rl", &log->base_index, &log->base_term, NULL);
    if (rv == 0)
        rv = load_entries(log, control->kv);
    if (rv != 0)
        return rv;
    log->durable = control_log_last(log); /* the shell opens a kv as of its last sync */
    control_log_term(log, log->durable, &last_term);
    return last_term > control->term ? REPLICA_E_CORRUPT : 0;
}
