/* The calls that pass through to a back end, with the checks that all share. */
#include "replica/contents.h"

#include "contents/contents_tree.h"
#include "replica/error.h"

enum replica_contents_state replica_contents_state(struct replica_contents *contents,
                                                   const struct replica_content_id *id)
{
    return id->length == 0 ? REPLICA_CONTENTS_COMPLETE : contents->ops->state(contents, id);
}

int replica_contents_begin(struct replica_contents *contents, const struct replica_content_id *id)
{
    if (id->length > REPLICA_CONTENT_SIZE_MAX)
        return REPLICA_E_TOOBIG;
    return id->length == 0 ? 0 : contents->ops->begin(contents, id);
}

int replica_contents_write(struct replica_contents *contents, const struct replica_content_id *id,
                           struct replica_piece piece, const void *data, size_t n)
{
    size_t size;
    if (!contents_tree_shape(id, piece, &size))
        return REPLICA_E_INVALID;
    if (n != size)
        return REPLICA_E_MISMATCH;
    return contents->ops->write(contents, id, piece, data, n);
}

int replica_contents_ingest(struct replica_contents *contents, const void *data, size_t n,
                            struct replica_content_id *ret_id)
{
    if (n == 0) {
        replica_merkle_content("", 0, ret_id);
        return 0;
    }
    if (n > REPLICA_CONTENTS_INGEST_MAX)
        return REPLICA_E_TOOBIG;
    return contents->ops->ingest(contents, data, n, ret_id);
}

int replica_contents_sync(struct replica_contents *contents)
{
    return contents->ops->sync(contents);
}

bool replica_contents_has(struct replica_contents *contents, const struct replica_content_id *id,
                          struct replica_piece piece)
{
    return contents->ops->has(contents, id, piece);
}

int replica_contents_read_piece(struct replica_contents *contents, const struct replica_content_id *id,
                                struct replica_piece piece, struct replica_buffer *ret_data)
{
    replica_buffer_clear(ret_data);
    return contents->ops->read_piece(contents, id, piece, ret_data);
}

int replica_contents_read(struct replica_contents *contents, const struct replica_content_id *id,
                          uint64_t offset, void *data, size_t n, size_t *ret_n)
{
    if (offset >= id->length || n == 0) {
        *ret_n = 0;
        return 0;
    }
    if (n > id->length - offset)
        n = (size_t)(id->length - offset);
    return contents->ops->read(contents, id, offset, data, n, ret_n);
}

int replica_contents_remove(struct replica_contents *contents, const struct replica_content_id *id)
{
    return contents->ops->remove(contents, id);
}

int replica_contents_next(struct replica_contents *contents, const struct replica_content_id *after,
                          struct replica_content_id *ret_id, enum replica_contents_state *ret_state)
{
    return contents->ops->next(contents, after, ret_id, ret_state);
}

void replica_contents_totals(struct replica_contents *contents, struct replica_contents_totals *ret_totals)
{
    contents->ops->totals(contents, ret_totals);
}

void replica_contents_destroy(struct replica_contents **contents)
{
    if (*contents != NULL)
        (*contents)->ops->destroy(*contents);
    *contents = NULL;
}
