/* A hello, a chain and a key file's line as anybody may write them: read soundly, and accepted only if rightly signed, which
 * no input made without the key is. */
#include "transport/credential_internal.h"

#include <stdlib.h>

static struct node_keyring *keyring;

static void check_hello(const uint8_t *data, size_t n)
{
    struct node_hello hello;
    struct gossip_principal principal;
    const char *reason;
    if (node_hello_check(keyring, data, n, NULL, 0, &hello, &principal, &reason) == 0)
        abort();
}

/* Behind a cluster key that is known, so that the reader goes further. */
static void check_known_root(const uint8_t *data, size_t n)
{
    struct replica_buffer packed;
    replica_buffer_init(&packed);
    replica_pack_array(&packed, 4);
    replica_pack_bin(&packed, keyring->keys[0].root, sizeof keyring->keys[0].root);
    replica_buffer_append(&packed, data, n);
    if (!packed.failed)
        check_hello(packed.data, packed.size);
    replica_buffer_close(&packed);
}

/* A certificate that is rightly signed over any statement: what it grants is never more than a chain's end allows. */
static void check_statement(const uint8_t *data, size_t n)
{
    struct replica_pack_reader reader;
    struct replica_buffer chain;
    struct node_rights rights;
    uint8_t signature[NODE_SIGNATURE_SIZE], holder[NODE_PUBLIC_SIZE];
    size_t length;
    node_sign(&keyring->keys[0], "remora certificate 1", data, n, signature);
    replica_buffer_init(&chain);
    replica_pack_array(&chain, 1);
    replica_pack_array(&chain, 2);
    replica_pack_bin(&chain, data, n);
    replica_pack_bin(&chain, signature, sizeof signature);
    replica_pack_reader_init(&reader, chain.data, chain.size);
    if (!chain.failed && node_chain_check(keyring->keys[0].root, &reader, holder, &rights, &length) == 0 &&
        (rights.principal.role < GOSSIP_ROLE_CLIENT || rights.principal.role > GOSSIP_ROLE_VOTER ||
         rights.principal.volumes_n > GOSSIP_CREDENTIAL_VOLUMES_MAX))
        abort();
    replica_buffer_close(&chain);
}

static void check_line(const uint8_t *data, size_t n)
{
    struct node_key key;
    const char *reason;
    if (node_key_parse((const char *)data, n, &key, &reason) == 0)
        node_key_close(&key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *message;
    if (keyring == NULL && node_keyring_load(NULL, &keyring, &message) != 0)
        abort();
    check_hello(data, n);
    check_known_root(data, n);
    check_statement(data, n);
    check_line(data, n);
    return 0;
}
