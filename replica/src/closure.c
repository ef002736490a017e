#include "replica/closure.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_FREE UINT64_MAX

int replica_closure_init(struct replica_closure *closure, const uint8_t *record, size_t n)
{
    int rv;
    memset(closure, 0, sizeof *closure);
    replica_buffer_init(&closure->record);
    replica_buffer_init(&closure->ops);
    rv = replica_buffer_append(&closure->record, record, n);
    if (rv == 0)
        rv = replica_delta_decode(closure->record.data, closure->record.size, &closure->delta);
    if (rv != 0)
        replica_closure_close(closure);
    return rv;
}

void replica_closure_close(struct replica_closure *closure)
{
    replica_buffer_close(&closure->record);
    replica_buffer_close(&closure->ops);
    free(closure->missing);
    memset(closure, 0, sizeof *closure);
}

static size_t slot_of(const struct replica_closure *closure, const struct replica_content_id *content)
{
    size_t hash, mask = closure->missing_capacity - 1;
    memcpy(&hash, content->root, sizeof hash); /* roots are hashes already */
    for (size_t slot = hash & mask;; slot = (slot + 1) & mask)
        if (closure->missing[slot].length == SLOT_FREE ||
            replica_content_id_equal(&closure->missing[slot], content))
            return slot;
}

static int missing_grow(struct replica_closure *closure)
{
    size_t old_capacity = closure->missing_capacity;
    struct replica_content_id *old = closure->missing;
    size_t capacity = old_capacity == 0 ? 16 : old_capacity * 2;
    struct replica_content_id *slots = malloc(capacity * sizeof *slots);
    if (slots == NULL)
        return REPLICA_E_NOMEM;
    for (size_t i = 0; i < capacity; i++)
        slots[i].length = SLOT_FREE;
    closure->missing = slots;
    closure->missing_capacity = capacity;
    for (size_t i = 0; i < old_capacity; i++)
        if (old[i].length != SLOT_FREE)
            closure->missing[slot_of(closure, &old[i])] = old[i];
    free(old);
    return 0;
}

static int missing_add(struct replica_closure *closure, const struct replica_content_id *content)
{
    size_t slot;
    if (closure->missing_n * 2 >= closure->missing_capacity) {
        int rv = missing_grow(closure);
        if (rv != 0)
            return rv;
    }
    slot = slot_of(closure, content);
    if (closure->missing[slot].length == SLOT_FREE) {
        closure->missing[slot] = *content;
        closure->missing_n++;
    }
    return 0;
}

/* Removes and closes the gap, so that probes of others still find them. */
static bool missing_remove(struct replica_closure *closure, const struct replica_content_id *content)
{
    size_t slot, mask = closure->missing_capacity - 1;
    if (closure->missing_n == 0)
        return false;
    slot = slot_of(closure, content);
    if (closure->missing[slot].length == SLOT_FREE)
        return false;
    closure->missing[slot].length = SLOT_FREE;
    closure->missing_n--;
    for (size_t next = (slot + 1) & mask; closure->missing[next].length != SLOT_FREE;
         next = (next + 1) & mask) {
        struct replica_content_id moved = closure->missing[next];
        closure->missing[next].length = SLOT_FREE;
        closure->missing[slot_of(closure, &moved)] = moved;
    }
    return true;
}

bool replica_closure_lacks(const struct replica_closure *closure, const struct replica_content_id *content)
{
    return closure->missing_n > 0 && closure->missing[slot_of(closure, content)].length != SLOT_FREE;
}

static int check_content(struct replica_closure *closure, struct replica_contents *contents,
                         const struct replica_content_id *content, replica_closure_visit_fn visit,
                         void *context)
{
    bool missing = content->length > 0 && replica_contents_state(contents, content) < REPLICA_CONTENTS_FILLED;
    bool fresh = missing && !replica_closure_lacks(closure, content);
    int rv = fresh ? missing_add(closure, content) : 0;
    if (rv == 0)
        visit(context, content, fresh);
    return rv;
}

int replica_closure_list(struct replica_closure *closure, struct replica_contents *contents,
                         const uint8_t **ret_list, size_t *ret_n)
{
    if (closure->list == NULL) {
        int rv =
            replica_delta_ops(&closure->delta, contents, &closure->ops, &closure->list, &closure->list_size);
        if (rv != 0)
            return rv;
    }
    *ret_list = closure->list;
    *ret_n = closure->list_size;
    return 0;
}

void replica_closure_let_go(struct replica_closure *closure)
{
    replica_buffer_close(&closure->ops);
    closure->list = NULL;
}

int replica_closure_scan(struct replica_closure *closure, struct replica_contents *contents, size_t max,
                         replica_closure_visit_fn visit, void *context)
{
    struct replica_pack_reader reader;
    const uint8_t *list;
    size_t n;
    int rv;
    if (closure->scanned)
        return 0;
    if (closure->list == NULL && closure->delta.ops == NULL) {
        rv = check_content(closure, contents, &closure->delta.ops_content, visit, context);
        if (rv != 0 || closure->missing_n > 0)
            return rv;
    }
    rv = replica_closure_list(closure, contents, &list, &n);
    if (rv != 0)
        return rv;
    replica_pack_reader_init(&reader, list, n);
    reader.offset = closure->offset;
    for (size_t i = 0; i < max && reader.offset < reader.size; i++) {
        struct replica_op op;
        rv = replica_op_read(&reader, &op);
        if (rv == 0 && closure->ops_n > 0 && replica_op_compare(&closure->last, &op) >= 0)
            rv = REPLICA_E_MALFORMED; /* applying relies on it that no target comes twice */
        if (rv == 0 && !op.tombstone && op.entry.kind == REPLICA_KIND_FILE &&
            op.entry.blob.kind == REPLICA_BLOB_CONTENT)
            rv = check_content(closure, contents, &op.entry.blob.content, visit, context);
        if (rv != 0)
            return rv;
        closure->last = op;
        closure->ops_n++;
        closure->offset = reader.offset;
    }
    if (reader.offset == reader.size && closure->ops_n != closure->delta.op_count)
        return REPLICA_E_MALFORMED;
    closure->scanned = reader.offset == reader.size;
    if (closure->scanned)
        replica_closure_let_go(closure);
    return closure->scanned ? 0 : REPLICA_E_AGAIN;
}

bool replica_closure_arrived(struct replica_closure *closure, const struct replica_content_id *content)
{
    return missing_remove(closure, content);
}

void replica_closure_went(struct replica_closure *closure, const struct replica_content_id *content)
{
    if (replica_closure_lacks(closure, content))
        return;
    replica_closure_let_go(closure);
    closure->offset = 0;
    closure->ops_n = 0;
    closure->scanned = false;
    for (size_t i = 0; i < closure->missing_capacity; i++)
        closure->missing[i].length = SLOT_FREE;
    closure->missing_n = 0;
}

bool replica_closure_is_waiting(const struct replica_closure *closure)
{
    bool before =
        closure->delta.ops == NULL && closure->offset == 0; /* only the op list itself can be missing yet */
    return closure->missing_n > 0 && (closure->scanned || before);
}

bool replica_closure_is_filled(const struct replica_closure *closure)
{
    return closure->scanned && closure->missing_n == 0;
}
