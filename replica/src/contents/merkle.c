#include "replica/merkle.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define LEAVES_PER_CHUNK 16

static void digest(EVP_MD_CTX *context, uint8_t prefix, const void *a, size_t a_n, const void *b, size_t b_n,
                   struct replica_hash *ret_hash)
{
    int ok = EVP_DigestInit_ex2(context, EVP_sha256(), NULL) && EVP_DigestUpdate(context, &prefix, 1) &&
             EVP_DigestUpdate(context, a, a_n) && (b_n == 0 || EVP_DigestUpdate(context, b, b_n)) &&
             EVP_DigestFinal_ex(context, ret_hash->bytes, NULL);
    if (!ok)
        abort(); /* libcrypto without SHA-256 or memory: nothing can be trusted any more */
}

static EVP_MD_CTX *context_new(void)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL)
        abort();
    return context;
}

void replica_hash_bytes(const void *data, size_t n, struct replica_hash *ret_hash)
{
    if (!EVP_Digest(data, n, ret_hash->bytes, NULL, EVP_sha256(), NULL))
        abort();
}

/* RFC 9162 §2.1.1 over subtree ids: pairing neighbours level by level and carrying an odd one up splits at the same places. */
static void fold_in_place(EVP_MD_CTX *context, struct replica_hash *ids, size_t n)
{
    while (n > 1) {
        size_t half = 0;
        for (size_t i = 0; i + 1 < n; i += 2)
            digest(context, 1, ids[i].bytes, REPLICA_HASH_SIZE, ids[i + 1].bytes, REPLICA_HASH_SIZE,
                   &ids[half++]);
        if (n % 2 == 1)
            ids[half++] = ids[n - 1];
        n = half;
    }
}

void replica_merkle_chunk(const void *data, size_t n, struct replica_hash *ret_hash)
{
    struct replica_hash leaves[LEAVES_PER_CHUNK];
    EVP_MD_CTX *context = context_new();
    size_t count = 0;
    assert(n >= 1 && n <= REPLICA_CHUNK_SIZE);
    for (size_t at = 0; at < n; at += REPLICA_LEAF_SIZE) {
        size_t size = n - at < REPLICA_LEAF_SIZE ? n - at : REPLICA_LEAF_SIZE;
        digest(context, 0, (const uint8_t *)data + at, size, NULL, 0, &leaves[count++]);
    }
    fold_in_place(context, leaves, count);
    EVP_MD_CTX_free(context);
    *ret_hash = leaves[0];
}

void replica_merkle_fold(const struct replica_hash *ids, size_t n, struct replica_hash *ret_hash)
{
    struct replica_hash few[64], *work = few;
    EVP_MD_CTX *context;
    assert(n >= 1);
    if (n == 1) {
        *ret_hash = ids[0];
        return;
    }
    if (n > sizeof few / sizeof few[0]) {
        work = malloc(n * sizeof *work);
        if (work == NULL)
            abort();
    }
    memcpy(work, ids, n * sizeof *work);
    context = context_new();
    fold_in_place(context, work, n);
    EVP_MD_CTX_free(context);
    *ret_hash = work[0];
    if (work != few)
        free(work);
}

void replica_merkle_zero_chunk(size_t n, struct replica_hash *ret_hash)
{
    static const uint8_t zeros[REPLICA_LEAF_SIZE];
    struct replica_hash leaves[LEAVES_PER_CHUNK], full;
    EVP_MD_CTX *context = context_new();
    size_t count = 0, rest = n % REPLICA_LEAF_SIZE;
    assert(n >= 1 && n <= REPLICA_CHUNK_SIZE);
    if (n >= REPLICA_LEAF_SIZE)
        digest(context, 0, zeros, sizeof zeros, NULL, 0, &full);
    while (count < n / REPLICA_LEAF_SIZE)
        leaves[count++] = full;
    if (rest > 0)
        digest(context, 0, zeros, rest, NULL, 0, &leaves[count++]);
    fold_in_place(context, leaves, count);
    EVP_MD_CTX_free(context);
    *ret_hash = leaves[0];
}

void replica_merkle_content(const void *data, size_t n, struct replica_content_id *ret_id)
{
    uint32_t chunks = replica_merkle_chunks(n);
    struct replica_hash *ids, root;
    if (n == 0) {
        replica_hash_bytes("", 0, &root);
    } else {
        ids = malloc(chunks * sizeof *ids);
        if (ids == NULL)
            abort();
        for (uint32_t i = 0; i < chunks; i++)
            replica_merkle_chunk((const uint8_t *)data + i * REPLICA_CHUNK_SIZE,
                                 replica_merkle_chunk_size(n, i), &ids[i]);
        replica_merkle_fold(ids, chunks, &root);
        free(ids);
    }
    memcpy(ret_id->root, root.bytes, sizeof ret_id->root);
    ret_id->length = n;
}

uint32_t replica_merkle_chunks(uint64_t length)
{
    return (uint32_t)((length + REPLICA_CHUNK_SIZE - 1) / REPLICA_CHUNK_SIZE);
}

uint32_t replica_merkle_pages(uint64_t length)
{
    return (uint32_t)((length + REPLICA_PAGE_SIZE - 1) / REPLICA_PAGE_SIZE);
}

uint32_t replica_merkle_page_chunks(uint64_t length, uint32_t page)
{
    uint32_t rest = replica_merkle_chunks(length) - page * REPLICA_PAGE_CHUNKS;
    return rest < REPLICA_PAGE_CHUNKS ? rest : REPLICA_PAGE_CHUNKS;
}

uint32_t replica_merkle_chunk_size(uint64_t length, uint32_t chunk)
{
    uint64_t rest = length - (uint64_t)chunk * REPLICA_CHUNK_SIZE;
    return (uint32_t)(rest < REPLICA_CHUNK_SIZE ? rest : REPLICA_CHUNK_SIZE);
}

static bool folds_to(const uint8_t root[REPLICA_HASH_SIZE], const struct replica_hash *ids, size_t n)
{
    struct replica_hash hash;
    replica_merkle_fold(ids, n, &hash);
    return memcmp(hash.bytes, root, REPLICA_HASH_SIZE) == 0;
}

bool replica_merkle_verify_root(const struct replica_content_id *content, const struct replica_hash *ids,
                                size_t n)
{
    return n == replica_merkle_pages(content->length) && n > 0 && folds_to(content->root, ids, n);
}

bool replica_merkle_verify_page(const struct replica_hash *page_id, const struct replica_hash *ids, size_t n)
{
    return n > 0 && n <= REPLICA_PAGE_CHUNKS && folds_to(page_id->bytes, ids, n);
}
