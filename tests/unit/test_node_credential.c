/* Key files, credentials and hello: what is accepted, what is refused, and that nobody can hand out more than he has. */
#include "transport/credential_internal.h"

#include "gossip/control.h"
#include "identity.h"
#include "loop.h"
#include "replica/merkle.h"
#include "scratch_support.h"

#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define HOUR_MS 3600000u

static char directory[SCRATCH_PATH_SIZE];

/* A path in the test's directory; every call has its own buffer, of which the last eight are valid. */
static const char *in_directory(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static void cluster_key(const char *name)
{
    struct node_keygen_options options = {.path = in_directory(name)};
    char *message;
    unlink(options.path);
    assert_int_equal(node_keygen(&options, &message), 0);
    assert_null(message);
}

static int credential(const char *name, const char *from, enum gossip_role role, const char *volume,
                      uint64_t expires_ms, char **ret_message)
{
    struct node_keygen_options options = {.path = in_directory(name),
                                          .from = in_directory(from),
                                          .role = role,
                                          .volumes = &volume,
                                          .volumes_n = volume != NULL,
                                          .expires_ms = expires_ms};
    unlink(options.path);
    return node_keygen(&options, ret_message);
}

static void make(const char *name, const char *from, enum gossip_role role, const char *volume,
                 uint64_t expires_ms)
{
    char *message;
    int code = credential(name, from, role, volume, expires_ms, &message);
    if (code != 0)
        print_error("%s\n", message);
    assert_int_equal(code, 0);
}

/* Making it fails, and says so with these words. */
static void make_fails(const char *from, enum gossip_role role, const char *volume, uint64_t expires_ms,
                       const char *words)
{
    char *message;
    assert_int_equal(credential("refused", from, role, volume, expires_ms, &message), REPLICA_E_INVALID);
    assert_non_null(strstr(message, words));
    assert_int_equal(access(in_directory("refused"), F_OK), -1);
    free(message);
}

static struct node_keyring *load(const char *name)
{
    struct node_keyring *keyring = NULL;
    char *message;
    int code = node_keyring_load(name == NULL ? NULL : in_directory(name), &keyring, &message);
    if (code != 0)
        print_error("%s\n", message);
    assert_int_equal(code, 0);
    return keyring;
}

static void load_fails(const char *name, int code, const char *words)
{
    struct node_keyring *keyring = NULL;
    char *message;
    assert_int_equal(node_keyring_load(in_directory(name), &keyring, &message), code);
    assert_null(keyring);
    assert_non_null(strstr(message, words));
    assert_non_null(strstr(message, directory));
    free(message);
}

static void write_text(const char *name, const char *text, mode_t mode)
{
    FILE *file = fopen(in_directory(name), "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(in_directory(name), mode), 0);
}

static void read_text(const char *name, char *ret_text, size_t size)
{
    FILE *file = fopen(in_directory(name), "r");
    size_t n;
    assert_non_null(file);
    n = fread(ret_text, 1, size - 1, file);
    ret_text[n] = '\0';
    fclose(file);
}

static struct node_hello some_hello(void)
{
    struct node_hello hello = {.generation = 7, .protocol_min = 1, .protocol_max = 3, .features = 5};
    memset(hello.cluster.bytes, 0x22, sizeof hello.cluster.bytes);
    memset(hello.curve_public, 0x33, sizeof hello.curve_public);
    hello.store = node_identity_of(hello.curve_public);
    strcpy(hello.endpoint, "tcp://10.0.0.1:7700");
    return hello;
}

/* What a node with key file `listener` says to the hello of one with `speaker`. */
static int check(const char *speaker, const char *listener, uint64_t wall_ms,
                 struct gossip_principal *ret_principal)
{
    struct node_keyring *mine = load(listener), *theirs = load(speaker);
    struct node_hello sent = some_hello(), got;
    struct replica_buffer packed;
    const char *reason = NULL;
    int code;
    replica_buffer_init(&packed);
    node_hello_pack(theirs, &sent, &packed);
    assert_false(packed.failed);
    assert_true(packed.size <= NODE_HELLO_SIZE_MAX);
    code = node_hello_check(mine, packed.data, packed.size, sent.curve_public, wall_ms, &got, ret_principal,
                            &reason);
    assert_true((code == 0) == (reason == NULL));
    replica_buffer_close(&packed);
    node_keyring_destroy(&mine);
    node_keyring_destroy(&theirs);
    return code;
}

static void a_cluster_key_has_full_authority(void **state)
{
    struct node_hello hello = some_hello();
    struct gossip_principal principal;
    struct stat stat_;
    (void)state;
    cluster_key("key");
    assert_int_equal(stat(in_directory("key"), &stat_), 0);
    assert_int_equal(stat_.st_mode & 07777, 0600);
    assert_int_equal(check("key", "key", 0, &principal), 0);
    assert_int_equal(principal.role, GOSSIP_ROLE_VOTER);
    assert_true(gossip_principal_may(&principal, "anything", true));
    assert_true(replica_id_equal(&principal.store, &hello.store));
}

static void hello_says_what_was_said(void **state)
{
    struct node_keyring *keyring;
    struct node_hello sent = some_hello(), got;
    struct gossip_principal principal;
    struct replica_buffer packed;
    const char *reason;
    (void)state;
    cluster_key("key");
    keyring = load("key");
    replica_buffer_init(&packed);
    node_hello_pack(keyring, &sent, &packed);
    assert_int_equal(node_hello_check(keyring, packed.data, packed.size, NULL, 0, &got, &principal, &reason),
                     0);
    assert_memory_equal(&got, &sent, sizeof got);
    replica_buffer_close(&packed);
    node_keyring_destroy(&keyring);
}

static void a_lesser_credential_has_what_it_was_given(void **state)
{
    struct gossip_principal principal;
    (void)state;
    cluster_key("key");
    make("cache", "key", GOSSIP_ROLE_CACHE, "models:ro", 0);
    assert_int_equal(check("cache", "key", 0, &principal), 0);
    assert_int_equal(principal.role, GOSSIP_ROLE_CACHE);
    assert_true(gossip_principal_may(&principal, "models", false));
    assert_false(gossip_principal_may(&principal, "models", true));
    assert_false(gossip_principal_may(&principal, "other", false));
    assert_int_equal(check("key", "cache", 0, &principal), 0); /* who has less knows who has more */
    assert_int_equal(principal.role, GOSSIP_ROLE_VOTER);
}

static void nobody_hands_out_more_than_he_has(void **state)
{
    uint64_t soon = node_wall_ms() + HOUR_MS;
    struct gossip_principal principal;
    (void)state;
    cluster_key("key");
    make("first", "key", GOSSIP_ROLE_CACHE, "models:ro", soon);
    make_fails("first", GOSSIP_ROLE_VOTER, NULL, 0, "role");
    make_fails("first", GOSSIP_ROLE_CACHE, "models", 0, ":ro");
    make_fails("first", GOSSIP_ROLE_CACHE, "other:ro", 0, "no \"other");
    make_fails("first", GOSSIP_ROLE_CACHE, NULL, soon + 1, "expires");
    make_fails("key", GOSSIP_ROLE_CACHE, NULL, 1, "already over");
    make_fails("key", (enum gossip_role)0, NULL, 0, "role");
    make_fails("key", GOSSIP_ROLE_CACHE, "a:rw", 0, "NAME:ro");

    make("second", "first", GOSSIP_ROLE_CLIENT, NULL, 0); /* silence is not "everything" */
    assert_int_equal(check("second", "key", soon - 1, &principal), 0);
    assert_int_equal(principal.role, GOSSIP_ROLE_CLIENT);
    assert_true(gossip_principal_may(&principal, "models", false));
    assert_false(gossip_principal_may(&principal, "models", true));
    assert_false(gossip_principal_may(&principal, "other", false));
    assert_int_equal(check("second", "key", soon, &principal), REPLICA_E_EXPIRED);
}

/* The holder of `first` signs, with his own key and by hand, a certificate that claims everything. */
static void forge(const struct node_keyring *first, struct node_keyring *ret_forged)
{
    const struct node_key *issuer = &first->keys[0];
    struct node_key *key = &ret_forged->keys[0];
    struct node_rights everything;
    memset(ret_forged, 0, sizeof *ret_forged);
    ret_forged->n = 1;
    *key = *issuer;
    crypto_sign_keypair(key->public, key->secret);
    node_rights_full(&everything);
    replica_buffer_init(&key->chain);
    replica_pack_array(&key->chain, 2);
    replica_buffer_append(&key->chain, issuer->chain.data + 1,
                          issuer->chain.size - 1); /* without its array header */
    node_certificate_pack(issuer, key->public, &everything, &key->chain);
    assert_false(key->chain.failed);
}

static void a_forged_certificate_gives_nothing(void **state)
{
    static struct node_keyring forged;
    struct node_keyring *mine, *first;
    struct node_hello sent = some_hello(), got;
    struct gossip_principal principal;
    struct replica_buffer packed;
    const char *reason;
    uint64_t soon = node_wall_ms() + HOUR_MS;
    (void)state;
    cluster_key("key");
    make("first", "key", GOSSIP_ROLE_CLIENT, "models:ro", soon);
    mine = load("key");
    first = load("first");
    forge(first, &forged);
    replica_buffer_init(&packed);
    node_hello_pack(&forged, &sent, &packed);
    assert_int_equal(node_hello_check(mine, packed.data, packed.size, sent.curve_public, soon - 1, &got,
                                      &principal, &reason),
                     0);
    assert_int_equal(principal.role, GOSSIP_ROLE_CLIENT);
    assert_false(principal.every_volume);
    assert_false(gossip_principal_may(&principal, "models", true));
    assert_int_equal(got.expires_ms, soon);

    memcpy(forged.keys[0].secret, first->keys[0].secret,
           sizeof forged.keys[0].secret); /* not the subject's key */
    replica_buffer_clear(&packed);
    node_hello_pack(&forged, &sent, &packed);
    assert_int_equal(
        node_hello_check(mine, packed.data, packed.size, sent.curve_public, 0, &got, &principal, &reason),
        REPLICA_E_DENIED);
    replica_buffer_close(&packed);
    node_key_close(&forged.keys[0]);
    node_keyring_destroy(&first);
    node_keyring_destroy(&mine);
}

static void a_chain_has_an_end(void **state)
{
    (void)state;
    cluster_key("key");
    make("c1", "key", GOSSIP_ROLE_VOTER, NULL, 0);
    make("c2", "c1", GOSSIP_ROLE_VOTER, NULL, 0);
    make("c3", "c2", GOSSIP_ROLE_VOTER, NULL, 0);
    make("c4", "c3", GOSSIP_ROLE_VOTER, NULL, 0);
    make_fails("c4", GOSSIP_ROLE_VOTER, NULL, 0, "below the cluster key");
}

static void expiry_is_to_the_millisecond(void **state)
{
    uint64_t expires = node_wall_ms() + HOUR_MS;
    struct gossip_principal principal;
    (void)state;
    cluster_key("key");
    make("short", "key", GOSSIP_ROLE_VOTER, NULL, expires);
    assert_int_equal(check("short", "key", expires - 1, &principal), 0);
    assert_int_equal(check("short", "key", expires, &principal), REPLICA_E_EXPIRED);
}

static void another_cluster_key_is_denied(void **state)
{
    struct gossip_principal principal;
    (void)state;
    cluster_key("key");
    cluster_key("other");
    assert_int_equal(check("other", "key", 0, &principal), REPLICA_E_DENIED);
}

/* Rotation: [new, old] signs with new; [old, new] accepts it, a node that only knows old does not. */
static void two_keys_in_one_file_rotate(void **state)
{
    struct gossip_principal principal;
    struct node_keyring *keyring;
    char old[1024], new[1024], both[2100];
    uint8_t gate[NODE_CURVE_KEY_SIZE], secret[NODE_CURVE_KEY_SIZE], second[NODE_CURVE_KEY_SIZE];
    (void)state;
    cluster_key("old");
    cluster_key("new");
    read_text("old", old, sizeof old);
    read_text("new", new, sizeof new);
    snprintf(both, sizeof both, "# after\r\n  %s\n\n%s # before\n", new, old);
    write_text("new-old", both, 0640);
    snprintf(both, sizeof both, "%s%s", old, new);
    write_text("old-new", both, 0600);
    assert_int_equal(check("new-old", "old-new", 0, &principal), 0);
    assert_int_equal(check("new-old", "old", 0, &principal), REPLICA_E_DENIED);
    assert_int_equal(check("old-new", "new-old", 0, &principal), 0);
    keyring = load("old-new");
    assert_int_equal(node_keyring_count(keyring), 2);
    node_keyring_gate(keyring, gate, secret);
    node_keyring_gate_at(keyring, 0, second);
    assert_memory_equal(gate, second, sizeof gate);
    node_keyring_gate_at(keyring, 1, second);
    assert_memory_not_equal(gate, second, sizeof gate);
    node_keyring_destroy(&keyring);
}

static void everybody_with_a_credential_has_the_gate(void **state)
{
    uint8_t one[NODE_CURVE_KEY_SIZE], two[NODE_CURVE_KEY_SIZE], secret[NODE_CURVE_KEY_SIZE];
    struct node_keyring *keyring;
    (void)state;
    cluster_key("key");
    make("client", "key", GOSSIP_ROLE_CLIENT, "v", 0);
    keyring = load("key");
    node_keyring_gate(keyring, one, secret);
    node_keyring_destroy(&keyring);
    keyring = load("client");
    node_keyring_gate(keyring, two, secret);
    node_keyring_destroy(&keyring);
    assert_memory_equal(one, two, sizeof one);
}

static void a_file_that_others_may_read_is_denied(void **state)
{
    struct node_keyring *keyring;
    (void)state;
    cluster_key("key");
    assert_int_equal(chmod(in_directory("key"), 0644), 0);
    load_fails("key", REPLICA_E_DENIED, "chmod");
    assert_int_equal(chmod(in_directory("key"), 0602), 0);
    load_fails("key", REPLICA_E_DENIED, "chmod");
    assert_int_equal(chmod(in_directory("key"), 0440), 0); /* as Kubernetes mounts it */
    unlink(in_directory("link"));
    assert_int_equal(symlink(in_directory("key"), in_directory("link")), 0);
    keyring = load("link");
    node_keyring_destroy(&keyring);
}

static void what_is_no_key_file_is_said_with_its_line(void **state)
{
    char text[1024], *damaged;
    (void)state;
    load_fails("nothing", REPLICA_E_NOTFOUND, "cannot open");
    load_fails(".", REPLICA_E_MALFORMED, "not a file");
    write_text("empty", "# nothing\n\n", 0600);
    load_fails("empty", REPLICA_E_MALFORMED, "keygen");
    write_text("words", "# a comment\nsome words\n", 0600);
    load_fails("words", REPLICA_E_MALFORMED, "line 2");
    cluster_key("key");
    read_text("key", text, sizeof text);
    damaged = strstr(text, "key-1 ") + 10; /* somewhere in the base64 */
    *damaged = *damaged == 'A' ? 'B' : 'A';
    write_text("damaged", text, 0600);
    load_fails("damaged", REPLICA_E_MALFORMED, "cut or changed");
    read_text("key", text, sizeof text);
    text[strlen(text) - 4] = '\0';
    write_text("cut", text, 0600);
    load_fails("cut", REPLICA_E_MALFORMED, "cut or changed");
}

static void no_file_is_ever_overwritten(void **state)
{
    struct node_keygen_options options = {.path = in_directory("kept")};
    char before[1024], after[1024], *message;
    (void)state;
    cluster_key("kept");
    read_text("kept", before, sizeof before);
    assert_int_equal(node_keygen(&options, &message), REPLICA_E_EXISTS);
    assert_non_null(strstr(message, "exists"));
    free(message);
    read_text("kept", after, sizeof after);
    assert_string_equal(before, after);
    unlink(in_directory("dangling"));
    assert_int_equal(symlink("nowhere", in_directory("dangling")), 0);
    options.path = in_directory("dangling");
    assert_int_equal(node_keygen(&options, &message), REPLICA_E_EXISTS);
    free(message);
    options.path = in_directory("no/such/directory");
    assert_int_equal(node_keygen(&options, &message), REPLICA_E_IO);
    free(message);
}

/* Any changed or missing byte of a hello with a chain makes it worthless. */
static void every_byte_of_a_hello_counts(void **state)
{
    struct node_keyring *mine, *theirs;
    struct node_hello sent = some_hello(), got;
    struct gossip_principal principal;
    struct replica_buffer packed;
    const char *reason;
    (void)state;
    cluster_key("key");
    make("cache", "key", GOSSIP_ROLE_CACHE, "v", 0);
    mine = load("key");
    theirs = load("cache");
    replica_buffer_init(&packed);
    node_hello_pack(theirs, &sent, &packed);
    for (size_t i = 0; i < packed.size; i++) {
        packed.data[i] ^= 1;
        assert_int_not_equal(
            node_hello_check(mine, packed.data, packed.size, sent.curve_public, 0, &got, &principal, &reason),
            0);
        packed.data[i] ^= 1;
        assert_int_equal(
            node_hello_check(mine, packed.data, i, sent.curve_public, 0, &got, &principal, &reason),
            REPLICA_E_MALFORMED);
    }
    assert_int_equal(
        node_hello_check(mine, packed.data, packed.size, sent.curve_public, 0, &got, &principal, &reason), 0);
    replica_buffer_close(&packed);
    node_keyring_destroy(&mine);
    node_keyring_destroy(&theirs);
}

static void a_hello_is_worth_nothing_on_another_connection(void **state)
{
    struct node_keyring *keyring;
    struct node_hello sent = some_hello(), got;
    struct gossip_principal principal;
    struct replica_buffer packed;
    const char *reason;
    uint8_t thief[NODE_CURVE_KEY_SIZE] = {9};
    (void)state;
    cluster_key("key");
    keyring = load("key");
    replica_buffer_init(&packed);
    node_hello_pack(keyring, &sent, &packed);
    assert_int_equal(node_hello_check(keyring, packed.data, packed.size, thief, 0, &got, &principal, &reason),
                     REPLICA_E_MISMATCH);
    replica_buffer_close(&packed);
    node_keyring_destroy(&keyring);
}

static void a_proof_needs_the_key_that_hello_names(void **state)
{
    uint8_t a[32], a_secret[32], b[32], b_secret[32], c[32], c_secret[32];
    uint8_t nonce[NODE_NONCE_SIZE] = {1}, token[NODE_TOKEN_SIZE] = {2}, zero[32] = {0};
    uint8_t expected[NODE_PROOF_SIZE], given[NODE_PROOF_SIZE];
    (void)state;
    crypto_box_keypair(a, a_secret);
    crypto_box_keypair(b, b_secret);
    crypto_box_keypair(c, c_secret);
    assert_int_equal(node_hello_prove(a_secret, b, nonce, token, expected), 0);
    assert_int_equal(node_hello_prove(b_secret, a, nonce, token, given), 0);
    assert_memory_equal(expected, given, sizeof given);
    assert_int_equal(node_hello_prove(c_secret, a, nonce, token, given), 0);
    assert_memory_not_equal(expected, given, sizeof given);
    nonce[0]++;
    assert_int_equal(node_hello_prove(b_secret, a, nonce, token, given), 0);
    assert_memory_not_equal(expected, given, sizeof given);
    assert_int_equal(node_hello_prove(a_secret, zero, nonce, token, given), REPLICA_E_DENIED);
}

static void without_a_file_nobody_else_has_the_key(void **state)
{
    struct node_keyring *one = load(NULL), *two = load(NULL);
    struct node_hello sent = some_hello(), got;
    struct gossip_principal principal;
    struct replica_buffer packed;
    const char *reason;
    (void)state;
    assert_true(node_keyring_is_loopback(one));
    node_keyring_principal(one, &principal);
    assert_int_equal(principal.role, GOSSIP_ROLE_VOTER);
    replica_buffer_init(&packed);
    node_hello_pack(two, &sent, &packed);
    assert_int_equal(node_hello_check(one, packed.data, packed.size, NULL, 0, &got, &principal, &reason),
                     REPLICA_E_DENIED);
    replica_buffer_close(&packed);
    node_keyring_destroy(&one);
    node_keyring_destroy(&two);
}

static int make_directory(void **state)
{
    (void)state;
    scratch_make(directory);
    return sodium_init() < 0;
}

static int remove_directory(void **state)
{
    (void)state;
    scratch_remove(directory);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cluster_key_has_full_authority),
        cmocka_unit_test(hello_says_what_was_said),
        cmocka_unit_test(a_lesser_credential_has_what_it_was_given),
        cmocka_unit_test(nobody_hands_out_more_than_he_has),
        cmocka_unit_test(a_forged_certificate_gives_nothing),
        cmocka_unit_test(a_chain_has_an_end),
        cmocka_unit_test(expiry_is_to_the_millisecond),
        cmocka_unit_test(another_cluster_key_is_denied),
        cmocka_unit_test(two_keys_in_one_file_rotate),
        cmocka_unit_test(everybody_with_a_credential_has_the_gate),
        cmocka_unit_test(a_file_that_others_may_read_is_denied),
        cmocka_unit_test(what_is_no_key_file_is_said_with_its_line),
        cmocka_unit_test(no_file_is_ever_overwritten),
        cmocka_unit_test(every_byte_of_a_hello_counts),
        cmocka_unit_test(a_hello_is_worth_nothing_on_another_connection),
        cmocka_unit_test(a_proof_needs_the_key_that_hello_names),
        cmocka_unit_test(without_a_file_nobody_else_has_the_key),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
