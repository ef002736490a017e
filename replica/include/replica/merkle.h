/* Merkle trees over bytes: RFC 9162 §2.1.1 hashing with SHA-256 over 64 KiB leaves.
 *
 *   leaf id = SHA-256(0x00 ‖ leaf bytes)      node id = SHA-256(0x01 ‖ left ‖ right)
 *
 * The split is at the largest power of two below the number of leaves, so a full chunk (16 leaves) and a full page
 * (1024 chunks) are subtrees of their own and their ids can be kept and checked alone. The empty content has the id
 * SHA-256(""). Pure; hashing by libcrypto. */
#ifndef REPLICA_MERKLE_H
#define REPLICA_MERKLE_H

#include "replica/ids.h"

#define REPLICA_LEAF_SIZE        ((uint64_t)64 * 1024) /* the unit of verification */
#define REPLICA_CHUNK_SIZE       ((uint64_t)1 << 20)   /* the unit of transfer: 16 leaves */
#define REPLICA_PAGE_CHUNKS      1024u                 /* chunk ids in one record of 32 KiB */
#define REPLICA_PAGE_SIZE        (REPLICA_CHUNK_SIZE * REPLICA_PAGE_CHUNKS)
#define REPLICA_CONTENT_SIZE_MAX ((uint64_t)1 << 40) /* 1 TiB: 1024 pages, one ROOT record */

struct replica_hash {
    uint8_t bytes[REPLICA_HASH_SIZE];
};

/* SHA-256 of n bytes. */
void replica_hash_bytes(const void *data, size_t n, struct replica_hash *ret_hash);

/* The id of one chunk: 1 ≤ n ≤ 1 MiB bytes. */
void replica_merkle_chunk(const void *data, size_t n, struct replica_hash *ret_hash);

/* The root over n ≥ 1 subtree ids of equal height (all but the last full): chunk ids of a page, or page ids. */
void replica_merkle_fold(const struct replica_hash *ids, size_t n, struct replica_hash *ret_hash);

/* The id of a chunk of n zero bytes, 1 ≤ n ≤ 1 MiB; cheap for n = 1 MiB. */
void replica_merkle_zero_chunk(size_t n, struct replica_hash *ret_hash);

/* The content id of n bytes in memory, n ≤ 1 TiB. */
void replica_merkle_content(const void *data, size_t n, struct replica_content_id *ret_id);

/* Shapes of a content of that length. */
uint32_t replica_merkle_chunks(uint64_t length);                     /* 0 for the empty content */
uint32_t replica_merkle_pages(uint64_t length);                      /* 0 for the empty content */
uint32_t replica_merkle_page_chunks(uint64_t length, uint32_t page); /* chunk ids in that page */
uint32_t replica_merkle_chunk_size(uint64_t length, uint32_t chunk); /* bytes in that chunk */

/* Whether ids (n of them) are the page ids (ROOT piece) of content, or the chunk ids of page `page` whose id is page_id. */
bool replica_merkle_verify_root(const struct replica_content_id *content, const struct replica_hash *ids,
                                size_t n);
bool replica_merkle_verify_page(const struct replica_hash *page_id, const struct replica_hash *ids, size_t n);

#endif
