#include "contents/contents_tree.h"

#include "replica/error.h"

#include <stdlib.h>
#include <string.h>

int contents_tree_init(struct contents_tree *tree, const struct replica_content_id *id)
{
    memset(tree, 0, sizeof *tree);
    tree->id = *id;
    tree->chunks = replica_merkle_chunks(id->length);
    tree->pages = replica_merkle_pages(id->length);
    tree->page_ids = calloc(tree->pages, sizeof tree->page_ids[0]);
    tree->chunk_ids = calloc(tree->pages, sizeof(struct replica_hash *));
    tree->present = calloc((tree->chunks + 7) / 8, 1);
    if (tree->page_ids == NULL || tree->chunk_ids == NULL || tree->present == NULL) {
        contents_tree_close(tree);
        return REPLICA_E_NOMEM;
    }
    if (tree->pages == 1) { /* the page is the root */
        memcpy(tree->page_ids[0].bytes, id->root, REPLICA_HASH_SIZE);
        tree->root = true;
    }
    if (tree->chunks == 1) { /* the chunk is the root */
        tree->chunk_ids[0] = malloc(sizeof tree->chunk_ids[0][0]);
        if (tree->chunk_ids[0] == NULL) {
            contents_tree_close(tree);
            return REPLICA_E_NOMEM;
        }
        memcpy(tree->chunk_ids[0][0].bytes, id->root, REPLICA_HASH_SIZE);
        tree->pages_n = 1;
    }
    return 0;
}

void contents_tree_close(struct contents_tree *tree)
{
    for (uint32_t i = 0; tree->chunk_ids != NULL && i < tree->pages; i++)
        free(tree->chunk_ids[i]);
    free(tree->page_ids);
    free(tree->chunk_ids);
    free(tree->present);
    memset(tree, 0, sizeof *tree);
}

bool contents_tree_shape(const struct replica_content_id *id, struct replica_piece piece, size_t *ret_n)
{
    uint32_t pages, chunks;
    if (id->length > REPLICA_CONTENT_SIZE_MAX) /* a peer may claim any length */
        return false;
    pages = replica_merkle_pages(id->length);
    chunks = replica_merkle_chunks(id->length);
    switch (piece.kind) {
    case REPLICA_PIECE_ROOT:
        *ret_n = pages * REPLICA_HASH_SIZE;
        return piece.index == 0 && pages > 1;
    case REPLICA_PIECE_PAGE:
        if (piece.index >= pages || chunks < 2)
            return false;
        *ret_n = replica_merkle_page_chunks(id->length, piece.index) * REPLICA_HASH_SIZE;
        return true;
    case REPLICA_PIECE_CHUNK:
        if (piece.index >= chunks)
            return false;
        *ret_n = replica_merkle_chunk_size(id->length, piece.index);
        return true;
    }
    return false;
}

static bool bit(const uint8_t *bits, uint32_t index)
{
    return bits[index / 8] >> (index % 8) & 1;
}

bool contents_tree_has(const struct contents_tree *tree, struct replica_piece piece)
{
    size_t n;
    if (!contents_tree_shape(&tree->id, piece, &n))
        return false;
    if (piece.kind == REPLICA_PIECE_ROOT)
        return tree->root;
    if (piece.kind == REPLICA_PIECE_PAGE)
        return tree->chunk_ids[piece.index] != NULL;
    return bit(tree->present, piece.index);
}

const struct replica_hash *contents_tree_chunk_id(const struct contents_tree *tree, uint32_t chunk)
{
    const struct replica_hash *ids = tree->chunk_ids[chunk / REPLICA_PAGE_CHUNKS];
    return ids == NULL ? NULL : &ids[chunk % REPLICA_PAGE_CHUNKS];
}

int contents_tree_verify(const struct contents_tree *tree, struct replica_piece piece, const void *data,
                         size_t n)
{
    const struct replica_hash *expected;
    struct replica_hash hash;
    size_t size;
    if (!contents_tree_shape(&tree->id, piece, &size))
        return REPLICA_E_INVALID;
    if (n != size)
        return REPLICA_E_MISMATCH;
    if (piece.kind == REPLICA_PIECE_ROOT)
        return replica_merkle_verify_root(&tree->id, data, n / REPLICA_HASH_SIZE) ? 0 : REPLICA_E_MISMATCH;
    if (piece.kind == REPLICA_PIECE_PAGE) {
        if (!tree->root)
            return REPLICA_E_ABSENT;
        return replica_merkle_verify_page(&tree->page_ids[piece.index], data, n / REPLICA_HASH_SIZE)
                   ? 0
                   : REPLICA_E_MISMATCH;
    }
    expected = contents_tree_chunk_id(tree, piece.index);
    if (expected == NULL)
        return REPLICA_E_ABSENT;
    replica_merkle_chunk(data, n, &hash);
    return memcmp(hash.bytes, expected->bytes, REPLICA_HASH_SIZE) == 0 ? 0 : REPLICA_E_MISMATCH;
}

void contents_tree_mark(struct contents_tree *tree, uint32_t chunk)
{
    if (bit(tree->present, chunk))
        return;
    tree->present[chunk / 8] |= (uint8_t)(1u << (chunk % 8));
    tree->present_n++;
}

struct zeros {
    struct replica_hash full, last;
};

static struct zeros zeros_of(const struct contents_tree *tree)
{
    struct zeros zeros;
    replica_merkle_zero_chunk(REPLICA_CHUNK_SIZE, &zeros.full);
    replica_merkle_zero_chunk(replica_merkle_chunk_size(tree->id.length, tree->chunks - 1), &zeros.last);
    return zeros;
}

static bool is_hole(const struct contents_tree *tree, const struct zeros *zeros, uint32_t chunk)
{
    const struct replica_hash *zero = chunk + 1 == tree->chunks ? &zeros->last : &zeros->full;
    return memcmp(contents_tree_chunk_id(tree, chunk)->bytes, zero->bytes, REPLICA_HASH_SIZE) == 0;
}

static void mark_holes(struct contents_tree *tree, uint32_t page)
{
    uint32_t n = replica_merkle_page_chunks(tree->id.length, page);
    struct zeros zeros = zeros_of(tree);
    for (uint32_t i = 0; i < n; i++)
        if (is_hole(tree, &zeros, page * REPLICA_PAGE_CHUNKS + i))
            contents_tree_mark(tree, page * REPLICA_PAGE_CHUNKS + i);
}

uint64_t contents_tree_stored(const struct contents_tree *tree)
{
    struct zeros zeros = zeros_of(tree);
    uint64_t bytes = 0;
    for (uint32_t chunk = 0; chunk < tree->chunks; chunk++)
        if (!is_hole(tree, &zeros, chunk))
            bytes += replica_merkle_chunk_size(tree->id.length, chunk);
    return bytes;
}

static uint64_t page_size(const struct replica_content_id *id, uint32_t page)
{
    uint64_t from = (uint64_t)page * REPLICA_PAGE_SIZE, left = id->length - from;
    return left < REPLICA_PAGE_SIZE ? left : REPLICA_PAGE_SIZE;
}

static void zero_page(struct replica_hash *ret_hash)
{
    struct replica_hash ids[REPLICA_PAGE_CHUNKS];
    replica_merkle_zero_chunk(REPLICA_CHUNK_SIZE, &ids[0]);
    for (size_t i = 1; i < REPLICA_PAGE_CHUNKS; i++)
        ids[i] = ids[0];
    replica_merkle_fold(ids, REPLICA_PAGE_CHUNKS, ret_hash);
}

static uint64_t bound_of_pages(const struct replica_content_id *id, const struct replica_hash *ids)
{
    uint32_t pages = replica_merkle_pages(id->length);
    struct replica_hash zero;
    uint64_t bytes = 0;
    zero_page(&zero);
    for (uint32_t page = 0; page < pages; page++)
        if (page + 1 == pages || memcmp(&ids[page], &zero, sizeof zero) != 0)
            bytes += page_size(id, page);
    return bytes;
}

uint64_t contents_tree_bound(const struct replica_content_id *id, struct replica_piece piece,
                             const struct replica_hash *ids)
{
    uint32_t n, first = piece.index * REPLICA_PAGE_CHUNKS;
    struct replica_hash zero, last;
    uint64_t bytes = 0;
    if (piece.kind == REPLICA_PIECE_ROOT)
        return bound_of_pages(id, ids);
    n = replica_merkle_page_chunks(id->length, piece.index);
    replica_merkle_zero_chunk(REPLICA_CHUNK_SIZE, &zero);
    replica_merkle_zero_chunk(replica_merkle_chunk_size(id->length, first + n - 1), &last);
    for (uint32_t i = 0; i < n; i++)
        if (memcmp(&ids[i], i + 1 == n ? &last : &zero, sizeof zero) != 0)
            bytes += replica_merkle_chunk_size(id->length, first + i);
    return bytes;
}

int contents_tree_learn(struct contents_tree *tree, struct replica_piece piece, const void *data)
{
    size_t n;
    if (!contents_tree_shape(&tree->id, piece, &n) || contents_tree_has(tree, piece))
        return 0;
    if (piece.kind == REPLICA_PIECE_ROOT) {
        memcpy(tree->page_ids, data, n);
        tree->root = true;
        return 0;
    }
    tree->chunk_ids[piece.index] = malloc(n);
    if (tree->chunk_ids[piece.index] == NULL)
        return REPLICA_E_NOMEM;
    memcpy(tree->chunk_ids[piece.index], data, n);
    tree->pages_n++;
    mark_holes(tree, piece.index);
    return 0;
}

bool contents_tree_is_filled(const struct contents_tree *tree)
{
    return tree->root && tree->pages_n == tree->pages && tree->present_n == tree->chunks;
}

int contents_tree_fill(struct contents_tree *tree, const struct replica_hash *ids)
{
    for (uint32_t page = 0; page < tree->pages; page++) {
        uint32_t n = replica_merkle_page_chunks(tree->id.length, page);
        const struct replica_hash *from = ids + (size_t)page * REPLICA_PAGE_CHUNKS;
        if (tree->chunk_ids[page] == NULL) {
            tree->chunk_ids[page] = malloc(n * sizeof *from);
            if (tree->chunk_ids[page] == NULL)
                return REPLICA_E_NOMEM;
            memcpy(tree->chunk_ids[page], from, n * sizeof *from);
            tree->pages_n++;
        } /* known ones were verified, so they are the same */
        if (!tree->root)
            replica_merkle_fold(from, n, &tree->page_ids[page]);
    }
    tree->root = true;
    for (uint32_t chunk = 0; chunk < tree->chunks; chunk++)
        contents_tree_mark(tree, chunk);
    return 0;
}

void contents_tree_root(const struct replica_hash *ids, uint32_t n, uint64_t length,
                        struct replica_content_id *ret_id)
{
    struct replica_hash root;
    replica_merkle_fold(ids, n, &root);
    memcpy(ret_id->root, root.bytes, sizeof ret_id->root);
    ret_id->length = length;
}
