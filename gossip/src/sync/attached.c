#include "sync/attached.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

void attached_table_init(struct attached_table *table, struct replica_kv *log, struct replica_kv *map,
                         struct replica_contents *contents, const struct replica_id *self)
{
    memset(table, 0, sizeof *table);
    table->log = log;
    table->map = map;
    table->contents = contents;
    table->self = *self;
}

void attached_table_close(struct attached_table *table, void (*close_voting)(struct attached_voting *voting))
{
    for (size_t i = 0; i < table->n; i++) {
        close_voting(table->items[i]->voting);
        replica_volume_destroy(&table->items[i]->volume);
        free(table->items[i]->image);
        free(table->items[i]);
    }
    free(table->items);
    memset(table, 0, sizeof *table);
}

static size_t position(const struct attached_table *table, const struct replica_id *volume)
{
    size_t low = 0, high = table->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (replica_id_compare(&table->items[middle]->id, volume) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct attached *attached_find(const struct attached_table *table, const struct replica_id *volume)
{
    size_t at = position(table, volume);
    return at < table->n && replica_id_equal(&table->items[at]->id, volume) ? table->items[at] : NULL;
}

static int insert(struct attached_table *table, struct attached *attached)
{
    size_t at = position(table, &attached->id);
    if (table->n == table->capacity) {
        size_t capacity = table->capacity == 0 ? 8 : table->capacity * 2;
        struct attached **items = realloc(table->items, capacity * sizeof(struct attached *));
        if (items == NULL)
            return REPLICA_E_NOMEM;
        table->items = items;
        table->capacity = capacity;
    }
    memmove(table->items + at + 1, table->items + at, (table->n - at) * sizeof(struct attached *));
    table->items[at] = attached;
    table->n++;
    return 0;
}

static int attach(struct attached_table *table, const struct replica_id *volume,
                  struct attached **ret_attached)
{
    struct replica_volume_options options = {.log = table->log,
                                             .map = table->map,
                                             .contents = table->contents,
                                             .volume = *volume,
                                             .store = table->self};
    const struct replica_volume_state *state;
    struct attached *attached;
    int rv;
    if (table->n >= ATTACHED_MAX)
        return REPLICA_E_NOSPACE;
    attached = calloc(1, sizeof *attached);
    if (attached == NULL)
        return REPLICA_E_NOMEM;
    attached->id = *volume;
    rv = replica_volume_new(&options, &attached->volume);
    if (rv == 0)
        rv = insert(table, attached);
    if (rv != 0) {
        replica_volume_destroy(&attached->volume);
        free(attached);
        return rv;
    }
    state = replica_volume_state(attached->volume);
    attached->durable = state->held;
    attached->loaded_seq = state->ordered_seq;
    attached->applying = true;
    *ret_attached = attached;
    return 0;
}

int attached_open(struct attached_table *table, const struct replica_id *volume, struct replica_kv_batch *log,
                  struct attached **ret_attached)
{
    uint8_t key[1 + REPLICA_ID_SIZE] = {'A'};
    int rv;
    *ret_attached = attached_find(table, volume);
    if (*ret_attached != NULL)
        return 0;
    rv = attach(table, volume, ret_attached);
    if (rv == 0) {
        memcpy(key + 1, volume->bytes, sizeof volume->bytes);
        replica_kv_batch_put(log, key, sizeof key, "", 0);
    }
    return rv;
}

int attached_load(struct attached_table *table)
{
    struct replica_kv_cursor *cursor;
    struct replica_id *ids = NULL;
    size_t n = 0;
    int rv = replica_kv_cursor_open(table->log, &cursor);
    if (rv != 0)
        return rv;
    ids = malloc(ATTACHED_MAX * sizeof *ids);
    if (ids == NULL)
        rv = REPLICA_E_NOMEM;
    for (replica_kv_cursor_seek(cursor, "A", 1);
         rv == 0 && replica_kv_cursor_valid(cursor) && n < ATTACHED_MAX; replica_kv_cursor_next(cursor)) {
        const uint8_t *key;
        size_t key_n;
        replica_kv_cursor_key(cursor, &key, &key_n);
        if (key[0] != 'A' || key_n != 1 + REPLICA_ID_SIZE)
            break;
        memcpy(ids[n++].bytes, key + 1, REPLICA_ID_SIZE);
    }
    if (rv == 0)
        rv = replica_kv_cursor_close(&cursor);
    else
        replica_kv_cursor_close(&cursor);
    for (size_t i = 0; i < n && rv == 0; i++) {
        struct attached *attached;
        rv = attach(table, &ids[i], &attached);
        if (rv == 0)
            replica_volume_order_synced(attached->volume,
                                        replica_volume_state(attached->volume)->ordered_seq);
    }
    free(ids);
    return rv;
}

static size_t reader_at(const struct attached *attached, const struct replica_id *store)
{
    size_t at = 0;
    while (at < attached->readers_n && !replica_id_equal(&attached->readers[at], store))
        at++;
    return at;
}

bool attached_is_reader(const struct attached *attached, const struct replica_id *store)
{
    return reader_at(attached, store) < attached->readers_n;
}

void attached_reader(struct attached *attached, const struct replica_id *store, bool may_read)
{
    size_t at = reader_at(attached, store);
    if (may_read == (at < attached->readers_n))
        return;
    if (!may_read) {
        attached->readers[at] = attached->readers[--attached->readers_n];
        return;
    }
    if (attached->readers_n == READERS_MAX) {
        attached->readers[attached->readers_next] = *store;
        attached->readers_next = (attached->readers_next + 1) % READERS_MAX;
        return;
    }
    attached->readers[attached->readers_n++] = *store;
}

void attached_mark(struct attached *attached, uint64_t batch)
{
    const struct replica_volume_state *state = replica_volume_state(attached->volume);
    struct attached_mark *mark;
    if (attached->marks_n == MARKS_MAX ||
        (attached->marks_n > 0 && attached->marks[attached->marks_n - 1].batch == batch))
        attached->marks_n--;
    mark = &attached->marks[attached->marks_n++];
    mark->batch = batch;
    mark->held = state->held;
    mark->ordered_seq = state->ordered_seq;
}

void attached_synced(struct attached *attached, uint64_t synced)
{
    size_t done = 0;
    while (done < attached->marks_n && attached->marks[done].batch <= synced)
        done++;
    if (done == 0)
        return;
    attached->durable = attached->marks[done - 1].held;
    replica_volume_set_durable(attached->volume, &attached->durable);
    replica_volume_order_synced(attached->volume, attached->marks[done - 1].ordered_seq);
    attached->applying = true;
    attached->marks_n -= done;
    memmove(attached->marks, attached->marks + done, attached->marks_n * sizeof attached->marks[0]);
}
