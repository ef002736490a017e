#include "credential_internal.h"

#include "identity.h"

#include <string.h>

/* hello: MessagePack array
 *   cluster public key, chain, statement (bin), signature of the statement by the last key of the chain
 * statement: array
 *   store, generation, cluster, endpoint, protocol min, protocol max, features, CURVE public key
 * Later versions append; what is not known is stepped over. */

#define HELLO_PURPOSE    "remora hello 1"
#define PROOF_PURPOSE    "remora listener 1"
#define HELLO_FIELDS     4
#define STATEMENT_FIELDS 8
#define FIELDS_MAX       32
#define STATEMENT_MAX    2048

_Static_assert(NODE_PROOF_SIZE == crypto_auth_BYTES, "proofs are crypto_auth's");
_Static_assert(crypto_auth_KEYBYTES == crypto_box_BEFORENMBYTES, "the shared secret keys crypto_auth");

static void pack_statement(const struct node_hello *hello, struct replica_buffer *out)
{
    replica_pack_array(out, STATEMENT_FIELDS);
    replica_pack_id(out, &hello->store);
    replica_pack_uint(out, hello->generation);
    replica_pack_id(out, &hello->cluster);
    replica_pack_cstr(out, hello->endpoint);
    replica_pack_uint(out, hello->protocol_min);
    replica_pack_uint(out, hello->protocol_max);
    replica_pack_uint(out, hello->features);
    replica_pack_bin(out, hello->curve_public, sizeof hello->curve_public);
}

void node_hello_pack(const struct node_keyring *keyring, const struct node_hello *hello,
                     struct replica_buffer *out)
{
    const struct node_key *key = &keyring->keys[0];
    struct replica_buffer statement;
    uint8_t signature[NODE_SIGNATURE_SIZE];
    replica_buffer_init(&statement);
    pack_statement(hello, &statement);
    if (statement.failed)
        out->failed = true;
    node_sign(key, HELLO_PURPOSE, statement.data, statement.size, signature);
    replica_pack_array(out, HELLO_FIELDS);
    replica_pack_bin(out, key->root, sizeof key->root);
    replica_buffer_append(out, key->chain.data, key->chain.size);
    replica_pack_bin(out, statement.data, statement.size);
    replica_pack_bin(out, signature, sizeof signature);
    replica_buffer_close(&statement);
}

static int read_statement(const uint8_t *data, size_t n, struct node_hello *ret_hello)
{
    struct replica_pack_reader reader;
    struct node_hello hello;
    const uint8_t *curve;
    const char *endpoint;
    uint64_t min, max;
    size_t fields, endpoint_n, curve_n;
    memset(&hello, 0, sizeof hello);
    replica_pack_reader_init(&reader, data, n);
    if (replica_pack_read_array(&reader, FIELDS_MAX, &fields) != 0 || fields < STATEMENT_FIELDS)
        return REPLICA_E_MALFORMED;
    replica_pack_read_id(&reader, &hello.store);
    replica_pack_read_uint(&reader, UINT64_MAX, &hello.generation);
    replica_pack_read_id(&reader, &hello.cluster);
    replica_pack_read_str(&reader, GOSSIP_ENDPOINT_MAX, &endpoint, &endpoint_n);
    replica_pack_read_uint(&reader, UINT32_MAX, &min);
    replica_pack_read_uint(&reader, UINT32_MAX, &max);
    replica_pack_read_uint(&reader, UINT64_MAX, &hello.features);
    replica_pack_read_bin(&reader, NODE_CURVE_KEY_SIZE, &curve, &curve_n);
    for (; fields > STATEMENT_FIELDS; fields--)
        replica_pack_skip(&reader);
    if (replica_pack_reader_finish(&reader) != 0 || curve_n != NODE_CURVE_KEY_SIZE ||
        replica_id_is_zero(&hello.store) || memchr(endpoint, '\0', endpoint_n) != NULL || min > max)
        return REPLICA_E_MALFORMED;
    hello.protocol_min = (uint32_t)min;
    hello.protocol_max = (uint32_t)max;
    memcpy(hello.endpoint, endpoint, endpoint_n);
    memcpy(hello.curve_public, curve, NODE_CURVE_KEY_SIZE);
    *ret_hello = hello;
    return 0;
}

static bool root_is_known(const struct node_keyring *keyring, const uint8_t *root, size_t n)
{
    for (size_t i = 0; i < keyring->n; i++)
        if (n == NODE_PUBLIC_SIZE && memcmp(keyring->keys[i].root, root, NODE_PUBLIC_SIZE) == 0)
            return true;
    return false;
}

/* Everything but who sent it and when. ret_rights: what its chain leaves. */
static int read_hello(const struct node_keyring *keyring, const void *data, size_t n,
                      struct node_hello *ret_hello, struct node_rights *ret_rights, const char **ret_reason)
{
    struct replica_pack_reader reader;
    const uint8_t *root, *statement, *signature;
    uint8_t signer[NODE_PUBLIC_SIZE];
    size_t fields, root_n, statement_n, signature_n, chain_n;
    int code;
    *ret_reason = "its hello is malformed";
    replica_pack_reader_init(&reader, data, n);
    if (n > NODE_HELLO_SIZE_MAX || replica_pack_read_array(&reader, FIELDS_MAX, &fields) != 0 ||
        fields < HELLO_FIELDS || replica_pack_read_bin(&reader, NODE_PUBLIC_SIZE, &root, &root_n) != 0)
        return REPLICA_E_MALFORMED;
    if (!root_is_known(keyring, root, root_n)) {
        *ret_reason = "its credential comes from another cluster key";
        return REPLICA_E_DENIED;
    }
    code = node_chain_check(root, &reader, signer, ret_rights, &chain_n);
    if (code == REPLICA_E_DENIED)
        *ret_reason = "a certificate of its credential is not signed by the one above it";
    if (code != 0)
        return code;
    replica_pack_read_bin(&reader, STATEMENT_MAX, &statement, &statement_n);
    replica_pack_read_bin(&reader, NODE_SIGNATURE_SIZE, &signature, &signature_n);
    for (; fields > HELLO_FIELDS; fields--)
        replica_pack_skip(&reader);
    if (replica_pack_reader_finish(&reader) != 0 || signature_n != NODE_SIGNATURE_SIZE)
        return REPLICA_E_MALFORMED;
    if (!node_verify(signer, HELLO_PURPOSE, statement, statement_n, signature)) {
        *ret_reason = "its hello is not signed by its credential";
        return REPLICA_E_DENIED;
    }
    return read_statement(statement, statement_n, ret_hello);
}

int node_hello_check(const struct node_keyring *keyring, const void *data, size_t n,
                     const uint8_t authenticated[NODE_CURVE_KEY_SIZE], uint64_t wall_ms,
                     struct node_hello *ret_hello, struct gossip_principal *ret_principal,
                     const char **ret_reason)
{
    struct node_hello hello;
    struct node_rights rights;
    struct replica_id own;
    int code = read_hello(keyring, data, n, &hello, &rights, ret_reason);
    if (code != 0)
        return code;
    if (rights.expires_ms != 0 && wall_ms >= rights.expires_ms) {
        *ret_reason = "its credential has expired";
        return REPLICA_E_EXPIRED;
    }
    if (authenticated != NULL && sodium_memcmp(hello.curve_public, authenticated, NODE_CURVE_KEY_SIZE) != 0) {
        *ret_reason = "its hello belongs to another connection";
        return REPLICA_E_MISMATCH;
    }
    own = node_identity_of(hello.curve_public);
    if (!replica_id_equal(&hello.store, &own)) {
        *ret_reason = "its store id is not that of its key";
        return REPLICA_E_DENIED;
    }
    hello.expires_ms = rights.expires_ms;
    rights.principal.store = hello.store;
    *ret_hello = hello;
    *ret_principal = rights.principal;
    *ret_reason = NULL;
    return 0;
}

int node_hello_prove(const uint8_t own_secret[NODE_CURVE_KEY_SIZE],
                     const uint8_t peer_public[NODE_CURVE_KEY_SIZE], const uint8_t nonce[NODE_NONCE_SIZE],
                     const uint8_t token[NODE_TOKEN_SIZE], uint8_t ret_proof[NODE_PROOF_SIZE])
{
    uint8_t key[crypto_box_BEFORENMBYTES];
    uint8_t message[sizeof PROOF_PURPOSE + NODE_NONCE_SIZE + NODE_TOKEN_SIZE];
    if (crypto_box_beforenm(key, peer_public, own_secret) != 0)
        return REPLICA_E_DENIED;
    memcpy(message, PROOF_PURPOSE, sizeof PROOF_PURPOSE);
    memcpy(message + sizeof PROOF_PURPOSE, nonce, NODE_NONCE_SIZE);
    memcpy(message + sizeof PROOF_PURPOSE + NODE_NONCE_SIZE, token, NODE_TOKEN_SIZE);
    crypto_auth(ret_proof, message, sizeof message, key);
    sodium_memzero(key, sizeof key);
    return 0;
}
