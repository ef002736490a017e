/* Identities: who, what, and in which order. Plain values, copied freely; no function here allocates.
 *
 * On disk and on the wire an id is its 16 bytes, numbers inside keys are big-endian so that bytewise order is
 * numeric order. */
#ifndef REPLICA_IDS_H
#define REPLICA_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPLICA_ID_SIZE         16
#define REPLICA_HASH_SIZE       32
#define REPLICA_CONTENT_ID_SIZE 40 /* root, then length as u64 big-endian */
#define REPLICA_STAMP_SIZE      24 /* hlc u64 big-endian, then the commit id */
#define REPLICA_ACTOR_SIZE      24 /* store id, then epoch u64 big-endian */

/* A random 128-bit name: of a store, volume, commit, cluster, view or link object. All zero means "none". */
struct replica_id {
    uint8_t bytes[REPLICA_ID_SIZE];
};

/* The root of a Merkle tree over 64 KiB leaves (RFC 9162, SHA-256), with the length in bytes. */
struct replica_content_id {
    uint8_t root[REPLICA_HASH_SIZE];
    uint64_t length;
};

/* The total order in which the last writer wins: by hlc, then by commit id bytewise. Zero means "nothing was
 * there". hlc: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. */
struct replica_stamp {
    uint64_t hlc;
    struct replica_id commit;
};

/* Who mints dots: a store under the configuration epoch that admitted it as a voter. */
struct replica_actor {
    struct replica_id store;
    uint64_t epoch;
};

/* A delta's place in replication. seq counts 1, 2, 3 … without gaps. */
struct replica_dot {
    struct replica_actor actor;
    uint64_t seq;
};

int replica_id_compare(const struct replica_id *a, const struct replica_id *b);
bool replica_id_equal(const struct replica_id *a, const struct replica_id *b);
bool replica_id_is_zero(const struct replica_id *id);

/* 32 lower-case hex digits and a NUL into ret_text. */
void replica_id_format(const struct replica_id *id, char ret_text[33]);

/* Errors: REPLICA_E_INVALID unless text is exactly 32 hex digits. */
int replica_id_parse(const char *text, struct replica_id *ret_id);

int replica_content_id_compare(const struct replica_content_id *a, const struct replica_content_id *b);
bool replica_content_id_equal(const struct replica_content_id *a, const struct replica_content_id *b);
void replica_content_id_encode(const struct replica_content_id *id, uint8_t ret[REPLICA_CONTENT_ID_SIZE]);
void replica_content_id_decode(const uint8_t bytes[REPLICA_CONTENT_ID_SIZE],
                               struct replica_content_id *ret_id);

int replica_stamp_compare(const struct replica_stamp *a, const struct replica_stamp *b);
bool replica_stamp_is_zero(const struct replica_stamp *stamp);
void replica_stamp_encode(const struct replica_stamp *stamp, uint8_t ret[REPLICA_STAMP_SIZE]);
void replica_stamp_decode(const uint8_t bytes[REPLICA_STAMP_SIZE], struct replica_stamp *ret_stamp);

int replica_actor_compare(const struct replica_actor *a, const struct replica_actor *b);
void replica_actor_encode(const struct replica_actor *actor, uint8_t ret[REPLICA_ACTOR_SIZE]);
void replica_actor_decode(const uint8_t bytes[REPLICA_ACTOR_SIZE], struct replica_actor *ret_actor);

/* Big-endian numbers for keys. */
void replica_u64_encode(uint64_t value, uint8_t ret[8]);
uint64_t replica_u64_decode(const uint8_t bytes[8]);

#endif
