#include "credential_internal.h"

#include "gossip/control.h"
#include "loop.h"
#include "replica/merkle.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const ROLES[] = {
    [GOSSIP_ROLE_CLIENT] = "client", [GOSSIP_ROLE_CACHE] = "cache", [GOSSIP_ROLE_VOTER] = "voter"};

static int parse_volume(const char *text, struct gossip_principal *principal, char **ret_message)
{
    const char *colon = strchr(text, ':');
    size_t n = colon == NULL ? strlen(text) : (size_t)(colon - text);
    struct replica_hash hash;
    if (n == 0 || n > GOSSIP_VOLUME_NAME_MAX || strspn(text, GOSSIP_VOLUME_NAME_LETTERS) != n ||
        (colon != NULL && strcmp(colon, ":ro") != 0))
        return node_complain(REPLICA_E_INVALID, ret_message,
                             "volume: \"%s\" is neither NAME nor NAME:ro; a name has 1 to %d letters, "
                             "digits, \"-\", \"_\" and \".\"",
                             text, GOSSIP_VOLUME_NAME_MAX);
    if (principal->volumes_n == GOSSIP_CREDENTIAL_VOLUMES_MAX)
        return node_complain(REPLICA_E_INVALID, ret_message, "volume: a credential names at most %d volumes",
                             GOSSIP_CREDENTIAL_VOLUMES_MAX);
    replica_hash_bytes(text, n, &hash);
    memcpy(principal->volumes[principal->volumes_n].volume_name_hash.bytes, hash.bytes, REPLICA_ID_SIZE);
    principal->volumes[principal->volumes_n++].read_only = colon != NULL;
    return 0;
}

/* Asking for more than the issuer has would quietly give less, so it is refused. */
static int check_volume(const struct node_rights *issuer, const struct gossip_principal *wanted, size_t index,
                        const char *text, char **ret_message)
{
    const struct gossip_principal *has = &issuer->principal;
    if (has->every_volume)
        return 0;
    for (size_t i = 0; i < has->volumes_n; i++)
        if (replica_id_equal(&has->volumes[i].volume_name_hash, &wanted->volumes[index].volume_name_hash)) {
            if (has->volumes[i].read_only && !wanted->volumes[index].read_only)
                return node_complain(REPLICA_E_INVALID, ret_message,
                                     "volume: the credential in --from may only read \"%s\"; add :ro", text);
            return 0;
        }
    return node_complain(REPLICA_E_INVALID, ret_message, "volume: the credential in --from has no \"%s\"",
                         text);
}

static int wanted_volumes(const struct node_keygen_options *options, const struct node_rights *issuer,
                          struct gossip_principal *principal, char **ret_message)
{
    int code = 0;
    principal->every_volume = options->volumes_n == 0;
    for (size_t i = 0; code == 0 && i < options->volumes_n; i++) {
        code = parse_volume(options->volumes[i], principal, ret_message);
        if (code == 0)
            code = check_volume(issuer, principal, i, options->volumes[i], ret_message);
    }
    return code;
}

static int wanted_rights(const struct node_keygen_options *options, const struct node_rights *issuer,
                         struct node_rights *ret_rights, char **ret_message)
{
    struct node_rights rights;
    int code;
    memset(&rights, 0, sizeof rights);
    if (options->role < GOSSIP_ROLE_CLIENT || options->role > GOSSIP_ROLE_VOTER)
        return node_complain(REPLICA_E_INVALID, ret_message, "role: voter, cache or client is needed");
    if (options->role > issuer->principal.role)
        return node_complain(REPLICA_E_INVALID, ret_message, "role: the credential in --from is a %s's",
                             ROLES[issuer->principal.role]);
    if (options->expires_ms != 0 && options->expires_ms <= node_wall_ms())
        return node_complain(REPLICA_E_INVALID, ret_message, "expires: that time is already over");
    if (issuer->expires_ms != 0 && options->expires_ms > issuer->expires_ms)
        return node_complain(REPLICA_E_INVALID, ret_message,
                             "expires: the credential in --from expires before that");
    rights.principal.role = options->role;
    rights.expires_ms = options->expires_ms;
    code = wanted_volumes(options, issuer, &rights.principal, ret_message);
    if (code == 0) {
        node_rights_narrow(&rights, issuer);
        *ret_rights = rights;
    }
    return code;
}

/* The issuer's chain and one certificate more. */
static int extend_chain(const struct node_key *issuer, struct node_key *key)
{
    struct replica_pack_reader reader;
    size_t n;
    replica_pack_reader_init(&reader, issuer->chain.data, issuer->chain.size);
    replica_pack_read_array(&reader, NODE_CHAIN_MAX, &n);
    replica_pack_array(&key->chain, n + 1);
    replica_buffer_append(&key->chain, reader.data + reader.offset, reader.size - reader.offset);
    node_certificate_pack(issuer, key->public, &key->rights, &key->chain);
    key->chain_n = n + 1;
    return key->chain.failed ? REPLICA_E_NOMEM : 0;
}

static int make_credential(const struct node_keygen_options *options, const struct node_key *issuer,
                           struct node_key *key, char **ret_message)
{
    int code = wanted_rights(options, &issuer->rights, &key->rights, ret_message);
    if (code != 0)
        return code;
    if (issuer->chain_n == NODE_CHAIN_MAX)
        return node_complain(
            REPLICA_E_INVALID, ret_message,
            "from: \"%s\" is %d credentials below the cluster key, and none may be made from it",
            options->from, NODE_CHAIN_MAX);
    memcpy(key->root, issuer->root, sizeof key->root);
    memcpy(key->gate_seed, issuer->gate_seed, sizeof key->gate_seed);
    randombytes_buf(key->seed, sizeof key->seed);
    crypto_sign_seed_keypair(key->public, key->secret, key->seed);
    return extend_chain(issuer, key);
}

static int make_from(const struct node_keygen_options *options, struct node_key *key, char **ret_message)
{
    struct node_keyring *keyring;
    int code = node_keyring_load(options->from, &keyring, ret_message);
    if (code != 0)
        return code;
    code = make_credential(options, &keyring->keys[0], key, ret_message);
    node_keyring_destroy(&keyring);
    return code;
}

static int make_cluster_key(struct node_key *key)
{
    uint8_t seed[NODE_SEED_SIZE];
    int code;
    randombytes_buf(seed, sizeof seed);
    code = node_key_from_seed(seed, key);
    sodium_memzero(seed, sizeof seed);
    return code;
}

static void append_text(struct replica_buffer *out, const char *text)
{
    replica_buffer_append(out, text, strlen(text));
}

/* A comment for people; nothing reads it back. */
static void describe(const struct node_keygen_options *options, const struct node_rights *rights,
                     struct replica_buffer *out)
{
    time_t expires = (time_t)(rights->expires_ms / 1000);
    struct tm tm;
    char text[64];
    append_text(out, "# Remora ");
    if (options->from == NULL) {
        append_text(out, "cluster key: full authority over the cluster. Keep it secret.\n");
        return;
    }
    append_text(out, "credential: ");
    append_text(out, ROLES[rights->principal.role]);
    for (size_t i = 0; i < options->volumes_n; i++) {
        append_text(out, i == 0 ? ", volumes " : " ");
        append_text(out, options->volumes[i]);
    }
    if (rights->expires_ms != 0 && gmtime_r(&expires, &tm) != NULL &&
        strftime(text, sizeof text, ", expires %Y-%m-%dT%H:%M:%SZ", &tm) > 0)
        append_text(out, text);
    append_text(out, ". Keep it secret.\n");
}

static int sync_directory(const char *path)
{
    char *copy = strdup(path);
    int fd, rc;
    if (copy == NULL)
        return -1;
    fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0)
        return -1;
    rc = fsync(fd);
    close(fd);
    return rc;
}

static int write_all(int fd, const uint8_t *data, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, data, n);
        if (written < 0 && errno != EINTR)
            return -1;
        if (written > 0) {
            data += written;
            n -= (size_t)written;
        }
    }
    return fsync(fd);
}

static int write_file(const char *path, const struct replica_buffer *text, char **ret_message)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool failed;
    if (fd < 0 && errno == EEXIST)
        return node_complain(REPLICA_E_EXISTS, ret_message,
                             "key: \"%s\" exists already; choose another name, or remove it first", path);
    if (fd < 0)
        return node_complain(REPLICA_E_IO, ret_message, "key: cannot write \"%s\": %s", path,
                             strerror(errno));
    failed = write_all(fd, text->data, text->size) != 0;
    failed |= close(fd) != 0;
    if (!failed && sync_directory(path) == 0)
        return 0;
    node_complain(REPLICA_E_IO, ret_message, "key: cannot write \"%s\": %s", path, strerror(errno));
    unlink(path); /* made by us a moment ago: half a key is of no use to anybody */
    return REPLICA_E_IO;
}

static int write_key(const struct node_keygen_options *options, const struct node_key *key,
                     char **ret_message)
{
    struct replica_buffer text;
    int code = REPLICA_E_NOMEM;
    replica_buffer_init(&text);
    describe(options, &key->rights, &text);
    node_key_format(key, &text);
    if (!text.failed) {
        text.data[text.size - 1] = '\n'; /* instead of the NUL */
        code = write_file(options->path, &text, ret_message);
    }
    if (text.data != NULL)
        sodium_memzero(text.data, text.capacity);
    replica_buffer_close(&text);
    return code;
}

int node_keygen(const struct node_keygen_options *options, char **ret_message)
{
    struct node_key key;
    int code;
    *ret_message = NULL;
    if (sodium_init() < 0)
        return node_complain(REPLICA_E_IO, ret_message, "key: libsodium finds no source of randomness");
    memset(&key, 0, sizeof key);
    replica_buffer_init(&key.chain);
    code = options->from == NULL ? make_cluster_key(&key) : make_from(options, &key, ret_message);
    if (code == 0)
        code = write_key(options, &key, ret_message);
    node_key_close(&key);
    return code;
}
