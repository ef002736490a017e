/* What is known of a content that is not complete: the ids of its pages and chunks, and which chunks are
 * present. Verifies pieces. */
#ifndef REPLICA_SRC_CONTENTS_TREE_H
#define REPLICA_SRC_CONTENTS_TREE_H

#include "replica/contents.h"
#include "replica/merkle.h"

struct contents_tree {
    struct replica_content_id id;
    uint32_t chunks, pages;
    bool root;                       /* the page ids are known */
    struct replica_hash *page_ids;   /* pages of them */
    struct replica_hash **chunk_ids; /* per page; NULL: not known yet */
    uint8_t *present;                /* a bit per chunk */
    uint32_t present_n;
    uint32_t pages_n; /* pages whose chunk ids are known */
};

int contents_tree_init(struct contents_tree *tree, const struct replica_content_id *id);
void contents_tree_close(struct contents_tree *tree);

/* Whether the shape of this content has that piece, and how many bytes it is. */
bool contents_tree_shape(const struct replica_content_id *id, struct replica_piece piece, size_t *ret_n);
bool contents_tree_has(const struct contents_tree *tree, struct replica_piece piece);
/* Checks a piece against what is known above it. Errors: INVALID, ABSENT, MISMATCH. */
int contents_tree_verify(const struct contents_tree *tree, struct replica_piece piece, const void *data,
                         size_t n);
/* Takes in a verified ROOT or PAGE; chunks that are holes become present. Errors: NOMEM. */
int contents_tree_learn(struct contents_tree *tree, struct replica_piece piece, const void *data);
void contents_tree_mark(struct contents_tree *tree, uint32_t chunk);
bool contents_tree_is_filled(const struct contents_tree *tree);
/* The id of a chunk; NULL while not known. */
const struct replica_hash *contents_tree_chunk_id(const struct contents_tree *tree, uint32_t chunk);

/* Bytes of all chunks that are not holes; every page is known. */
uint64_t contents_tree_stored(const struct contents_tree *tree);

/* At most how many bytes will be stored, as verified ids show: of a PAGE's chunks those that are no holes, of a ROOT's pages those that are
 * not all holes (the last one counts whole). */
uint64_t contents_tree_bound(const struct replica_content_id *id, struct replica_piece piece,
                             const struct replica_hash *ids);

/* Takes in all chunk ids of a content that was hashed here (ids: chunks of them, borrowed), and marks every
 * chunk present. */
int contents_tree_fill(struct contents_tree *tree, const struct replica_hash *ids);
/* The content id that these chunk ids make. */
void contents_tree_root(const struct replica_hash *ids, uint32_t n, uint64_t length,
                        struct replica_content_id *ret_id);

#endif
