/* Key files and hellos. First byte: a key file, a hello, or a hello of our own with a byte changed, which must
 * never pass as somebody else's. */
#include "replica/error.h"
#include "transport/credential.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void key_file(const uint8_t *data, size_t n)
{
    struct node_keyring *keyring = NULL;
    char path[64], *message = NULL;
    int fd = memfd_create("key", MFD_CLOEXEC), rv;
    if (fd < 0 || fchmod(fd, 0600) != 0 || write(fd, data, n) != (ssize_t)n)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    rv = node_keyring_load(path, &keyring, &message);
    assert((rv == 0) == (keyring != NULL) && (rv == 0 || message != NULL));
    if (rv == 0)
        assert(node_keyring_count(keyring) > 0);
    node_keyring_destroy(&keyring);
    free(message);
    close(fd);
}

/* data NULL: ours. */
static void hello(const struct node_keyring *keyring, const uint8_t *data, size_t n)
{
    static const uint8_t key[NODE_CURVE_KEY_SIZE] = {9};
    struct node_hello ours = {.generation = 1, .protocol_min = 1, .protocol_max = 1}, theirs;
    struct gossip_principal principal;
    struct replica_buffer out;
    const char *reason = NULL;
    bool changed = false;
    int rv;
    replica_buffer_init(&out);
    memcpy(ours.curve_public, key, sizeof key);
    strcpy(ours.endpoint, "tcp://127.0.0.1:7000");
    node_hello_pack(keyring, &ours, &out);
    if (n >= 3 && data[0] % 2 == 0) {
        size_t at = ((size_t)data[1] << 8 | data[2]) % out.size;
        for (size_t i = 3; i < n && at + (i - 3) < out.size; i++) {
            changed = changed || data[i] != 0;
            out.data[at + (i - 3)] ^= data[i];
        }
        data = out.data;
        n = out.size;
    } else {
        changed = true;
    }
    rv = node_hello_check(keyring, data, n, key, 1000, &theirs, &principal, &reason);
    assert(rv == 0 || reason != NULL);
    assert(!changed || rv != 0);
    replica_buffer_close(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct node_keyring *keyring;
    char *message = NULL;
    if (keyring == NULL && (sodium_init() < 0 || node_keyring_load(NULL, &keyring, &message) != 0))
        abort();
    if (n == 0)
        return 0;
    if (data[0] % 2 == 0)
        key_file(data + 1, n - 1);
    else
        hello(keyring, data + 1, n - 1);
    return 0;
}
