/* What the credential sources share: the keys of a file, the rights that a chain leaves, and the
 * certificates' form. */
#ifndef NODE_TRANSPORT_CREDENTIAL_INTERNAL_H
#define NODE_TRANSPORT_CREDENTIAL_INTERNAL_H

#include "transport/credential.h"

#include <sodium.h>

#define NODE_KEYS_MAX     8           /* in one file: a rotation needs two */
#define NODE_CHAIN_MAX    4           /* certificates from the cluster key down */
#define NODE_KEY_FILE_MAX (64u << 10) /* eight credentials with full chains are 24 KiB */

#define NODE_SEED_SIZE      32
#define NODE_PUBLIC_SIZE    32
#define NODE_SIGNATURE_SIZE 64
_Static_assert(NODE_SEED_SIZE == crypto_sign_SEEDBYTES, "Ed25519 seeds");
_Static_assert(NODE_PUBLIC_SIZE == crypto_sign_PUBLICKEYBYTES, "Ed25519 public keys");
_Static_assert(NODE_SIGNATURE_SIZE == crypto_sign_BYTES, "Ed25519 signatures");
_Static_assert(NODE_CURVE_KEY_SIZE == crypto_box_PUBLICKEYBYTES, "CURVE public keys");
_Static_assert(NODE_CURVE_KEY_SIZE == crypto_box_SECRETKEYBYTES, "CURVE secret keys");

/* What a credential may do; principal.store stays zero. */
struct node_rights {
    struct gossip_principal principal;
    uint64_t expires_ms; /* 0: never */
};

struct node_key {
    uint8_t root[NODE_PUBLIC_SIZE]; /* the cluster key's public half: where every accepted chain begins */
    uint8_t gate_seed[NODE_SEED_SIZE];
    uint8_t seed[NODE_SEED_SIZE]; /* of the key that signs: the cluster key itself, or the credential's own */
    uint8_t public[NODE_PUBLIC_SIZE];
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    struct replica_buffer chain; /* MessagePack array of certificates, empty array for a cluster key */
    size_t chain_n;
    struct node_rights rights;
};

struct node_keyring {
    bool loopback;
    size_t n;
    struct node_key keys[NODE_KEYS_MAX];
};

/* Sets *ret_message (malloc'ed) and returns code. */
int node_complain(int code, char **ret_message, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* credential_key.c */
void node_key_close(struct node_key *key);
/* The key of a new cluster. seed is copied. Errors: NOMEM. */
int node_key_from_seed(const uint8_t seed[NODE_SEED_SIZE], struct node_key *ret_key);
/* One line of a key file, without comment or newline. Errors: MALFORMED (ret_reason: static text), NOMEM. */
int node_key_parse(const char *line, size_t n, struct node_key *ret_key, const char **ret_reason);
/* The same line. Text is NUL-terminated in out. */
void node_key_format(const struct node_key *key, struct replica_buffer *out);

/* credential_chain.c */
void node_rights_full(struct node_rights *rights);
/* rights become what both they and other allow. */
void node_rights_narrow(struct node_rights *rights, const struct node_rights *other);
/* One more certificate, [statement, signature], signed by issuer for the key `subject`. */
void node_certificate_pack(const struct node_key *issuer, const uint8_t subject[NODE_PUBLIC_SIZE],
                           const struct node_rights *rights, struct replica_buffer *out);
/* Reads and verifies a chain that begins at root. ret_public: who may sign under it; ret_rights: the
 * narrowest of all its certificates. Expiry is the caller's to compare. Errors: MALFORMED, DENIED. */
int node_chain_check(const uint8_t root[NODE_PUBLIC_SIZE], struct replica_pack_reader *reader,
                     uint8_t ret_public[NODE_PUBLIC_SIZE], struct node_rights *ret_rights, size_t *ret_n);
/* A bin of exactly that size. Errors: MALFORMED. */
int node_read_exactly(struct replica_pack_reader *reader, void *ret, size_t size);
/* Signatures are over a purpose and the bytes, so that none can be taken for one of another purpose. */
void node_sign(const struct node_key *key, const char *purpose, const void *data, size_t n,
               uint8_t ret_signature[NODE_SIGNATURE_SIZE]);
bool node_verify(const uint8_t public[NODE_PUBLIC_SIZE], const char *purpose, const void *data, size_t n,
                 const uint8_t signature[NODE_SIGNATURE_SIZE]);

#endif
