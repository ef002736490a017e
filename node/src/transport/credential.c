#include "credential_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int node_complain(int code, char **ret_message, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(ret_message, format, arguments) < 0)
        *ret_message = NULL;
    va_end(arguments);
    return code;
}

static int check_mode(const char *path, const struct stat *stat, char **ret_message)
{
    if (!S_ISREG(stat->st_mode))
        return node_complain(REPLICA_E_MALFORMED, ret_message, "key: \"%s\" is not a file", path);
    if ((stat->st_mode & S_IRWXO) != 0)
        return node_complain(
            REPLICA_E_DENIED, ret_message,
            "key: everybody on this machine may use \"%s\" (mode %04o); run: chmod o= \"%s\"", path,
            (unsigned)stat->st_mode & 07777u, path);
    if (stat->st_size > NODE_KEY_FILE_MAX)
        return node_complain(REPLICA_E_MALFORMED, ret_message, "key: \"%s\" is too large to be a key file",
                             path);
    return 0;
}

/* The whole file into text, NUL-terminated. Symbolic links are followed: Kubernetes mounts secrets through
 * them. */
static int read_file(const char *path, char text[NODE_KEY_FILE_MAX + 1], size_t *ret_n, char **ret_message)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), code;
    struct stat stat;
    size_t n = 0;
    ssize_t got = 1;
    if (fd < 0)
        return node_complain(errno == EACCES ? REPLICA_E_DENIED : REPLICA_E_NOTFOUND, ret_message,
                             "key: cannot open \"%s\": %s", path, strerror(errno));
    code = fstat(fd, &stat) != 0 ? node_complain(REPLICA_E_MALFORMED, ret_message,
                                                 "key: cannot stat \"%s\": %s", path, strerror(errno))
                                 : check_mode(path, &stat, ret_message);
    while (code == 0 && got > 0 && n < NODE_KEY_FILE_MAX) {
        got = read(fd, text + n, NODE_KEY_FILE_MAX - n);
        if (got < 0)
            code = node_complain(REPLICA_E_MALFORMED, ret_message, "key: cannot read \"%s\": %s", path,
                                 strerror(errno));
        else
            n += (size_t)got;
    }
    close(fd);
    text[n] = '\0';
    *ret_n = n;
    return code;
}

static int add_line(struct node_keyring *keyring, const char *path, unsigned number, char *line,
                    char **ret_message)
{
    const char *reason = NULL;
    size_t n;
    int code;
    line += strspn(line, " \t");
    n = strcspn(line, "#\r");
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    if (n == 0)
        return 0;
    if (keyring->n == NODE_KEYS_MAX)
        return node_complain(REPLICA_E_MALFORMED, ret_message, "key: \"%s\", line %u: more than %d keys",
                             path, number, NODE_KEYS_MAX);
    code = node_key_parse(line, n, &keyring->keys[keyring->n], &reason);
    if (code == REPLICA_E_MALFORMED)
        return node_complain(code, ret_message, "key: \"%s\", line %u: %s", path, number, reason);
    if (code != 0)
        return node_complain(code, ret_message, "key: %s", replica_error_text(code));
    keyring->n++;
    return 0;
}

static int load_lines(struct node_keyring *keyring, const char *path, char **ret_message)
{
    char *text = malloc(NODE_KEY_FILE_MAX + 1), *next = text, *line;
    unsigned number = 0;
    size_t n = 0;
    int code = text == NULL ? REPLICA_E_NOMEM : read_file(path, text, &n, ret_message);
    if (code == 0 && strlen(text) != n)
        code = node_complain(REPLICA_E_MALFORMED, ret_message, "key: \"%s\" is not text", path);
    while (code == 0 && (line = strsep(&next, "\n")) != NULL)
        code = add_line(keyring, path, ++number, line, ret_message);
    if (code == 0 && keyring->n == 0)
        code = node_complain(REPLICA_E_MALFORMED, ret_message,
                             "key: \"%s\" holds no key (`remora keygen FILE` makes one)", path);
    if (text != NULL)
        sodium_memzero(text, NODE_KEY_FILE_MAX + 1);
    free(text);
    return code;
}

static int draw_key(struct node_keyring *keyring)
{
    uint8_t seed[NODE_SEED_SIZE];
    int code;
    randombytes_buf(seed, sizeof seed);
    code = node_key_from_seed(seed, &keyring->keys[0]);
    sodium_memzero(seed, sizeof seed);
    keyring->loopback = true;
    keyring->n = code == 0;
    return code;
}

int node_keyring_load(const char *path, struct node_keyring **ret_keyring, char **ret_message)
{
    struct node_keyring *keyring;
    int code;
    *ret_message = NULL;
    if (sodium_init() < 0)
        return node_complain(REPLICA_E_IO, ret_message, "key: libsodium finds no source of randomness");
    keyring = calloc(1, sizeof *keyring);
    if (keyring == NULL)
        return REPLICA_E_NOMEM;
    code = path == NULL ? draw_key(keyring) : load_lines(keyring, path, ret_message);
    if (code != 0)
        node_keyring_destroy(&keyring);
    else
        *ret_keyring = keyring;
    return code;
}

void node_keyring_destroy(struct node_keyring **keyring)
{
    if (*keyring == NULL)
        return;
    for (size_t i = 0; i < (*keyring)->n; i++)
        node_key_close(&(*keyring)->keys[i]);
    sodium_memzero(*keyring, sizeof **keyring);
    free(*keyring);
    *keyring = NULL;
}

bool node_keyring_is_loopback(const struct node_keyring *keyring)
{
    return keyring->loopback;
}

void node_keyring_principal(const struct node_keyring *keyring, struct gossip_principal *ret_principal)
{
    *ret_principal = keyring->keys[0].rights.principal;
}

size_t node_keyring_count(const struct node_keyring *keyring)
{
    return keyring->n;
}

void node_keyring_gate(const struct node_keyring *keyring, uint8_t ret_public[NODE_CURVE_KEY_SIZE],
                       uint8_t ret_secret[NODE_CURVE_KEY_SIZE])
{
    crypto_box_seed_keypair(ret_public, ret_secret, keyring->keys[0].gate_seed);
}

void node_keyring_gate_at(const struct node_keyring *keyring, size_t index,
                          uint8_t ret_public[NODE_CURVE_KEY_SIZE])
{
    uint8_t secret[NODE_CURVE_KEY_SIZE];
    crypto_box_seed_keypair(ret_public, secret, keyring->keys[index % keyring->n].gate_seed);
    sodium_memzero(secret, sizeof secret);
}
