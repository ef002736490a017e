/* Cluster keys, credentials, and a node's own identity on the wire.
 *
 * A key file is text, one key or credential per line (mode 0600, or group-readable as Kubernetes mounts it; links are
 * followed). The cluster key is an Ed25519 seed with full authority. What everybody with any credential shares is the
 * *gate*: the CURVE key pair of the listening sockets, derived from the cluster key, so that who has no credential cannot
 * even finish a handshake. Who one is comes from elsewhere: each node makes its own CURVE key pair and signs it with the
 * key of its credential, whose chain ends at the cluster key; hello presents all of it (docs/protocol.md, "Credentials").
 * No key file at all means a cluster key drawn for the life of the keyring, which only ever listens on loopback: a node of its own
 * has no peers, and nobody else on its machine becomes one. */
#ifndef NODE_TRANSPORT_CREDENTIAL_H
#define NODE_TRANSPORT_CREDENTIAL_H

#include "gossip/step.h"

#define NODE_CURVE_KEY_SIZE 32
#define NODE_NONCE_SIZE     32
#define NODE_TOKEN_SIZE     16
#define NODE_PROOF_SIZE     32
/* A chain of four certificates with 16 volumes each is 2 KiB; room for later fields. */
#define NODE_HELLO_SIZE_MAX 8192

struct node_keyring; /* every key in the key file; the first signs, all are accepted (rotation) */

/* Errors: NOTFOUND, DENIED (others may read it), MALFORMED; ret_message (malloc'ed, returned to the caller) names the file and
 * says what to do. path NULL: the loopback keyring. */
int node_keyring_load(const char *path, struct node_keyring **ret_keyring, char **ret_message);
void node_keyring_destroy(struct node_keyring **keyring);
bool node_keyring_is_loopback(const struct node_keyring *keyring);
/* The role, volumes and expiry of our own (first) key. */
void node_keyring_principal(const struct node_keyring *keyring, struct gossip_principal *ret_principal);
/* The gate's key pair of our first key; the listening side. */
void node_keyring_gate(const struct node_keyring *keyring, uint8_t ret_public[NODE_CURVE_KEY_SIZE],
                       uint8_t ret_secret[NODE_CURVE_KEY_SIZE]);
/* How many keys; the public gate of each is what a peer may listen with while keys are being exchanged for new ones. */
size_t node_keyring_count(const struct node_keyring *keyring);
void node_keyring_gate_at(const struct node_keyring *keyring, size_t index,
                          uint8_t ret_public[NODE_CURVE_KEY_SIZE]);

/* `remora keygen`: a new cluster key, or a lesser credential from one (volumes: "NAME" or "NAME:ro"), written to path with
 * mode 0600; an existing file is never overwritten. Errors: EXISTS, INVALID, IO; ret_message as above. */
struct node_keygen_options {
    const char *path;
    const char *from; /* NULL: a new cluster key */
    enum gossip_role role;
    const char *const *volumes;
    size_t volumes_n;
    uint64_t expires_ms; /* 0: never */
};
int node_keygen(const struct node_keygen_options *options, char **ret_message);

/* The hello of this node: MessagePack with chain, statement (store id, CURVE public key, generation, cluster id or zero,
 * endpoint, protocol min, max, feature bits) and its signature. */
struct node_hello {
    struct replica_id store;
    uint64_t generation;
    struct replica_id cluster; /* zero: not begun */
    char endpoint[GOSSIP_ENDPOINT_MAX + 1];
    uint32_t protocol_min, protocol_max;
    uint64_t features;
    uint8_t curve_public[NODE_CURVE_KEY_SIZE];
    /* Of the credential, 0: never. Set by node_hello_check, ignored by node_hello_pack. */
    uint64_t expires_ms;
};
void node_hello_pack(const struct node_keyring *keyring, const struct node_hello *hello,
                     struct replica_buffer *out);
/* Checks chain, signatures, expiry against wall_ms, and that hello's CURVE key is the one the connection was authenticated
 * with (NULL: the caller asks for node_hello_prove's proof instead). Errors: MALFORMED, DENIED, EXPIRED, MISMATCH;
 * ret_reason: static text. */
int node_hello_check(const struct node_keyring *keyring, const void *data, size_t n,
                     const uint8_t authenticated[NODE_CURVE_KEY_SIZE], uint64_t wall_ms,
                     struct node_hello *ret_hello, struct gossip_principal *ret_principal,
                     const char **ret_reason);

/* A listener's CURVE key is the gate's, which proves no more than some credential. So it answers a hello with its own hello
 * and this proof that it holds the CURVE key named there: a MAC under the secret that the two nodes' CURVE keys share, over
 * the asker's nonce and the token given. Both ends compute the same. Errors: DENIED (the peer's key is degenerate). */
int node_hello_prove(const uint8_t own_secret[NODE_CURVE_KEY_SIZE],
                     const uint8_t peer_public[NODE_CURVE_KEY_SIZE], const uint8_t nonce[NODE_NONCE_SIZE],
                     const uint8_t token[NODE_TOKEN_SIZE], uint8_t ret_proof[NODE_PROOF_SIZE]);

#endif
