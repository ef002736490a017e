#include "credential_internal.h"

#include <string.h>

/* A line of a key file: a word that says what it is, a space, and base64 of the payload and four bytes of its
 * hash. The hash is not for security: without it a key that lost a letter while being copied would silently
 * be another cluster's.
 *   remora-cluster-key-1   the seed
 *   remora-credential-1    MessagePack [cluster public key, gate seed, own seed, chain] */

#define CLUSTER_WORD      "remora-cluster-key-1"
#define CREDENTIAL_WORD   "remora-credential-1"
#define GATE_PURPOSE      "remora gate 1"
#define CHECK_SIZE        4
#define PAYLOAD_SIZE_MAX  4096
#define BASE64_VARIANT    sodium_base64_VARIANT_URLSAFE_NO_PADDING
#define CREDENTIAL_FIELDS 4

void node_key_close(struct node_key *key)
{
    replica_buffer_close(&key->chain);
    sodium_memzero(key, sizeof *key);
}

static void derive_gate(const uint8_t seed[NODE_SEED_SIZE], uint8_t ret_gate[NODE_SEED_SIZE])
{
    crypto_generichash(ret_gate, NODE_SEED_SIZE, (const uint8_t *)GATE_PURPOSE, strlen(GATE_PURPOSE), seed,
                       NODE_SEED_SIZE);
}

int node_key_from_seed(const uint8_t seed[NODE_SEED_SIZE], struct node_key *ret_key)
{
    struct node_key key;
    memset(&key, 0, sizeof key);
    memcpy(key.seed, seed, NODE_SEED_SIZE);
    crypto_sign_seed_keypair(key.public, key.secret, seed);
    memcpy(key.root, key.public, NODE_PUBLIC_SIZE);
    derive_gate(seed, key.gate_seed);
    node_rights_full(&key.rights);
    replica_buffer_init(&key.chain);
    replica_pack_array(&key.chain, 0);
    if (key.chain.failed) {
        node_key_close(&key);
        return REPLICA_E_NOMEM;
    }
    *ret_key = key;
    sodium_memzero(&key, sizeof key);
    return 0;
}

static void checksum(const uint8_t *payload, size_t n, uint8_t ret_check[CHECK_SIZE])
{
    uint8_t hash[crypto_generichash_BYTES_MIN];
    crypto_generichash(hash, sizeof hash, payload, n, NULL, 0);
    memcpy(ret_check, hash, CHECK_SIZE);
}

static int read_chain(struct replica_pack_reader *reader, struct node_key *key, const char **ret_reason)
{
    size_t begin = reader->offset;
    uint8_t holder[NODE_PUBLIC_SIZE];
    int code = node_chain_check(key->root, reader, holder, &key->rights, &key->chain_n);
    *ret_reason = "its chain of certificates is damaged";
    if (code != 0)
        return REPLICA_E_MALFORMED;
    *ret_reason = "its chain of certificates is another key's";
    if (memcmp(holder, key->public, sizeof holder) != 0)
        return REPLICA_E_MALFORMED;
    return replica_buffer_append(&key->chain, reader->data + begin, reader->offset - begin);
}

static int parse_credential(const uint8_t *payload, size_t n, struct node_key *key, const char **ret_reason)
{
    struct replica_pack_reader reader;
    size_t fields;
    int code;
    replica_pack_reader_init(&reader, payload, n);
    *ret_reason = "the credential is damaged";
    if (replica_pack_read_array(&reader, CREDENTIAL_FIELDS, &fields) != 0 || fields != CREDENTIAL_FIELDS ||
        node_read_exactly(&reader, key->root, sizeof key->root) != 0 ||
        node_read_exactly(&reader, key->gate_seed, sizeof key->gate_seed) != 0 ||
        node_read_exactly(&reader, key->seed, sizeof key->seed) != 0)
        return REPLICA_E_MALFORMED;
    crypto_sign_seed_keypair(key->public, key->secret, key->seed);
    code = read_chain(&reader, key, ret_reason);
    if (code == 0 && (replica_pack_reader_finish(&reader) != 0 || key->chain_n == 0)) {
        *ret_reason = "the credential is damaged";
        code = REPLICA_E_MALFORMED;
    }
    return code;
}

static int parse_payload(bool cluster, const uint8_t *payload, size_t n, struct node_key *ret_key,
                         const char **ret_reason)
{
    struct node_key key;
    int code;
    if (cluster) {
        *ret_reason = "a cluster key of another length";
        return n == NODE_SEED_SIZE ? node_key_from_seed(payload, ret_key) : REPLICA_E_MALFORMED;
    }
    memset(&key, 0, sizeof key);
    replica_buffer_init(&key.chain);
    code = parse_credential(payload, n, &key, ret_reason);
    if (code == 0)
        *ret_key = key;
    else
        replica_buffer_close(&key.chain);
    sodium_memzero(&key, sizeof key);
    return code;
}

/* Whether line begins with word and a space; then *ret_rest is what follows. */
static bool begins_with(const char *line, size_t n, const char *word, size_t *ret_at)
{
    size_t size = strlen(word);
    *ret_at = size + 1;
    return n > size + 1 && memcmp(line, word, size) == 0 && line[size] == ' ';
}

int node_key_parse(const char *line, size_t n, struct node_key *ret_key, const char **ret_reason)
{
    uint8_t payload[PAYLOAD_SIZE_MAX], check[CHECK_SIZE];
    bool cluster = false;
    size_t at, size;
    int code = REPLICA_E_MALFORMED;
    if (begins_with(line, n, CLUSTER_WORD, &at))
        cluster = true;
    else if (!begins_with(line, n, CREDENTIAL_WORD, &at)) {
        *ret_reason = "neither a cluster key nor a credential";
        return REPLICA_E_MALFORMED;
    }
    *ret_reason = "the key was cut or changed";
    if (sodium_base642bin(payload, sizeof payload, line + at, n - at, NULL, &size, NULL, BASE64_VARIANT) ==
            0 &&
        size > CHECK_SIZE) {
        checksum(payload, size - CHECK_SIZE, check);
        if (memcmp(check, payload + size - CHECK_SIZE, CHECK_SIZE) == 0)
            code = parse_payload(cluster, payload, size - CHECK_SIZE, ret_key, ret_reason);
    }
    sodium_memzero(payload, sizeof payload);
    return code;
}

static void format_payload(const char *word, struct replica_buffer *payload, struct replica_buffer *out)
{
    uint8_t check[CHECK_SIZE];
    size_t room;
    uint8_t *text;
    checksum(payload->data, payload->size, check);
    replica_buffer_append(payload, check, sizeof check);
    room = sodium_base64_encoded_len(payload->size, BASE64_VARIANT);
    replica_buffer_append(out, word, strlen(word));
    replica_buffer_append(out, " ", 1);
    text = replica_buffer_reserve(out, room);
    if (payload->failed || text == NULL) {
        out->failed = true;
        return;
    }
    sodium_bin2base64((char *)text, room, payload->data, payload->size, BASE64_VARIANT);
    out->size += room;
}

void node_key_format(const struct node_key *key, struct replica_buffer *out)
{
    struct replica_buffer payload;
    replica_buffer_init(&payload);
    if (key->chain_n == 0) {
        replica_buffer_append(&payload, key->seed, sizeof key->seed);
        format_payload(CLUSTER_WORD, &payload, out);
    } else {
        replica_pack_array(&payload, CREDENTIAL_FIELDS);
        replica_pack_bin(&payload, key->root, sizeof key->root);
        replica_pack_bin(&payload, key->gate_seed, sizeof key->gate_seed);
        replica_pack_bin(&payload, key->seed, sizeof key->seed);
        replica_buffer_append(&payload, key->chain.data, key->chain.size);
        format_payload(CREDENTIAL_WORD, &payload, out);
    }
    if (payload.data != NULL)
        sodium_memzero(payload.data, payload.capacity);
    replica_buffer_close(&payload);
}
