#include "credential_internal.h"

#include <string.h>

/* A certificate says: this key may do that. It is signed by the key above it, the first by the cluster key.
 * What a chain allows is the intersection of all its certificates, so whoever holds a credential can hand out
 * less of what it has, and can never hand out more, whatever it writes into a certificate. */

#define CERTIFICATE_PURPOSE  "remora certificate 1"
#define CERTIFICATE_SIZE_MAX 1024 /* 16 volumes are 320 bytes */
#define STATEMENT_FIELDS     5    /* later versions may append */
#define FIELDS_MAX           16

void node_sign(const struct node_key *key, const char *purpose, const void *data, size_t n,
               uint8_t ret_signature[NODE_SIGNATURE_SIZE])
{
    crypto_sign_state state;
    crypto_sign_init(&state);
    crypto_sign_update(&state, (const uint8_t *)purpose, strlen(purpose) + 1);
    crypto_sign_update(&state, data, n);
    crypto_sign_final_create(&state, ret_signature, NULL, key->secret);
}

bool node_verify(const uint8_t public[NODE_PUBLIC_SIZE], const char *purpose, const void *data, size_t n,
                 const uint8_t signature[NODE_SIGNATURE_SIZE])
{
    crypto_sign_state state;
    crypto_sign_init(&state);
    crypto_sign_update(&state, (const uint8_t *)purpose, strlen(purpose) + 1);
    crypto_sign_update(&state, data, n);
    return crypto_sign_final_verify(&state, signature, public) == 0;
}

void node_rights_full(struct node_rights *rights)
{
    memset(rights, 0, sizeof *rights);
    rights->principal.role = GOSSIP_ROLE_VOTER;
    rights->principal.every_volume = true;
}

static void narrow_volumes(struct gossip_principal *mine, const struct gossip_principal *other)
{
    size_t kept = 0;
    for (size_t i = 0; i < mine->volumes_n; i++)
        for (size_t k = 0; k < other->volumes_n; k++)
            if (replica_id_equal(&mine->volumes[i].volume_name_hash, &other->volumes[k].volume_name_hash)) {
                mine->volumes[kept] = mine->volumes[i];
                mine->volumes[kept++].read_only |= other->volumes[k].read_only;
                break;
            }
    mine->volumes_n = kept;
}

void node_rights_narrow(struct node_rights *rights, const struct node_rights *other)
{
    struct gossip_principal *mine = &rights->principal;
    if (other->principal.role < mine->role)
        mine->role = other->principal.role;
    if (other->expires_ms != 0 && (rights->expires_ms == 0 || other->expires_ms < rights->expires_ms))
        rights->expires_ms = other->expires_ms;
    if (other->principal.every_volume)
        return;
    if (!mine->every_volume) {
        narrow_volumes(mine, &other->principal);
        return;
    }
    mine->every_volume = false;
    mine->volumes_n = other->principal.volumes_n;
    memcpy(mine->volumes, other->principal.volumes, sizeof mine->volumes);
}

static void pack_statement(const uint8_t subject[NODE_PUBLIC_SIZE], const struct node_rights *rights,
                           struct replica_buffer *out)
{
    const struct gossip_principal *principal = &rights->principal;
    replica_pack_array(out, STATEMENT_FIELDS);
    replica_pack_bin(out, subject, NODE_PUBLIC_SIZE);
    replica_pack_uint(out, principal->role);
    replica_pack_bool(out, principal->every_volume);
    replica_pack_array(out, principal->volumes_n);
    for (size_t i = 0; i < principal->volumes_n; i++) {
        replica_pack_array(out, 2);
        replica_pack_id(out, &principal->volumes[i].volume_name_hash);
        replica_pack_bool(out, principal->volumes[i].read_only);
    }
    replica_pack_uint(out, rights->expires_ms);
}

void node_certificate_pack(const struct node_key *issuer, const uint8_t subject[NODE_PUBLIC_SIZE],
                           const struct node_rights *rights, struct replica_buffer *out)
{
    struct replica_buffer statement;
    uint8_t signature[NODE_SIGNATURE_SIZE];
    replica_buffer_init(&statement);
    pack_statement(subject, rights, &statement);
    if (statement.failed)
        out->failed = true;
    node_sign(issuer, CERTIFICATE_PURPOSE, statement.data, statement.size, signature);
    replica_pack_array(out, 2);
    replica_pack_bin(out, statement.data, statement.size);
    replica_pack_bin(out, signature, sizeof signature);
    replica_buffer_close(&statement);
}

int node_read_exactly(struct replica_pack_reader *reader, void *ret, size_t size)
{
    const uint8_t *data;
    size_t n;
    if (replica_pack_read_bin(reader, size, &data, &n) != 0 || n != size)
        return REPLICA_E_MALFORMED;
    memcpy(ret, data, size);
    return 0;
}

/* An array whose first `known` items this version reads; what a newer one appended is stepped over by
 * skip_rest. */
static int begin_array(struct replica_pack_reader *reader, size_t known, size_t *ret_rest)
{
    size_t n;
    if (replica_pack_read_array(reader, FIELDS_MAX, &n) != 0 || n < known)
        return REPLICA_E_MALFORMED;
    *ret_rest = n - known;
    return 0;
}

static int skip_rest(struct replica_pack_reader *reader, size_t rest)
{
    for (; rest > 0; rest--)
        replica_pack_skip(reader);
    return reader->failed ? REPLICA_E_MALFORMED : 0;
}

static int read_volumes(struct replica_pack_reader *reader, struct gossip_principal *principal)
{
    size_t rest;
    if (replica_pack_read_array(reader, GOSSIP_CREDENTIAL_VOLUMES_MAX, &principal->volumes_n) != 0)
        return REPLICA_E_MALFORMED;
    for (size_t i = 0; i < principal->volumes_n; i++) {
        if (begin_array(reader, 2, &rest) != 0)
            return REPLICA_E_MALFORMED;
        replica_pack_read_id(reader, &principal->volumes[i].volume_name_hash);
        replica_pack_read_bool(reader, &principal->volumes[i].read_only);
        if (skip_rest(reader, rest) != 0)
            return REPLICA_E_MALFORMED;
    }
    return 0;
}

static int read_statement(const uint8_t *data, size_t n, uint8_t ret_subject[NODE_PUBLIC_SIZE],
                          struct node_rights *ret_rights)
{
    struct replica_pack_reader reader;
    struct gossip_principal *principal = &ret_rights->principal;
    uint64_t role;
    size_t rest;
    memset(ret_rights, 0, sizeof *ret_rights);
    replica_pack_reader_init(&reader, data, n);
    if (begin_array(&reader, STATEMENT_FIELDS, &rest) != 0 ||
        node_read_exactly(&reader, ret_subject, NODE_PUBLIC_SIZE) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&reader, GOSSIP_ROLE_VOTER, &role);
    replica_pack_read_bool(&reader, &principal->every_volume);
    if (read_volumes(&reader, principal) != 0)
        return REPLICA_E_MALFORMED;
    replica_pack_read_uint(&reader, UINT64_MAX, &ret_rights->expires_ms);
    if (skip_rest(&reader, rest) != 0 || replica_pack_reader_finish(&reader) != 0 ||
        role < GOSSIP_ROLE_CLIENT)
        return REPLICA_E_MALFORMED;
    principal->role = (enum gossip_role)role;
    return 0;
}

/* On success *signer is the certificate's subject, and rights are narrowed by it. */
static int check_certificate(struct replica_pack_reader *reader, uint8_t signer[NODE_PUBLIC_SIZE],
                             struct node_rights *rights)
{
    struct node_rights granted;
    uint8_t signature[NODE_SIGNATURE_SIZE], subject[NODE_PUBLIC_SIZE];
    const uint8_t *statement;
    size_t n, rest;
    if (begin_array(reader, 2, &rest) != 0 ||
        replica_pack_read_bin(reader, CERTIFICATE_SIZE_MAX, &statement, &n) != 0 ||
        node_read_exactly(reader, signature, sizeof signature) != 0 || skip_rest(reader, rest) != 0)
        return REPLICA_E_MALFORMED;
    if (!node_verify(signer, CERTIFICATE_PURPOSE, statement, n, signature))
        return REPLICA_E_DENIED;
    if (read_statement(statement, n, subject, &granted) != 0)
        return REPLICA_E_MALFORMED;
    node_rights_narrow(rights, &granted);
    memcpy(signer, subject, NODE_PUBLIC_SIZE);
    return 0;
}

int node_chain_check(const uint8_t root[NODE_PUBLIC_SIZE], struct replica_pack_reader *reader,
                     uint8_t ret_public[NODE_PUBLIC_SIZE], struct node_rights *ret_rights, size_t *ret_n)
{
    struct node_rights rights;
    uint8_t signer[NODE_PUBLIC_SIZE];
    size_t n;
    if (replica_pack_read_array(reader, NODE_CHAIN_MAX, &n) != 0)
        return REPLICA_E_MALFORMED;
    memcpy(signer, root, sizeof signer);
    node_rights_full(&rights);
    for (size_t i = 0; i < n; i++) {
        int code = check_certificate(reader, signer, &rights);
        if (code != 0)
            return code;
    }
    memcpy(ret_public, signer, sizeof signer);
    *ret_rights = rights;
    *ret_n = n;
    return 0;
}
