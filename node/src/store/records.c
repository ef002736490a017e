#include "store/records.h"

#include "replica/error.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int store_errno(void)
{
    switch (errno) {
    case ENOSPC:
    case EDQUOT:
        return REPLICA_E_NOSPACE;
    case ENOENT:
        return REPLICA_E_NOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return REPLICA_E_DENIED;
    case ENOMEM:
        return REPLICA_E_NOMEM;
    default:
        return REPLICA_E_IO;
    }
}

static int read_up_to(int fd, uint8_t *data, size_t max, size_t *ret_n)
{
    size_t done = 0;
    while (done < max) {
        ssize_t got = read(fd, data + done, max - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return store_errno();
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_n = done;
    return 0;
}

int store_record_read(int directory, const char *name, uint8_t ret_data[STORE_RECORD_MAX], size_t *ret_n)
{
    uint8_t data[STORE_RECORD_MAX + 1];
    size_t n = 0;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rv;
    if (fd < 0)
        return store_errno();
    rv = read_up_to(fd, data, sizeof data, &n);
    close(fd);
    if (rv == 0 && n > STORE_RECORD_MAX)
        rv = REPLICA_E_CORRUPT;
    if (rv == 0) {
        memcpy(ret_data, data, n);
        *ret_n = n;
    }
    return rv;
}

static int write_all(int fd, const uint8_t *data, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t wrote = write(fd, data + done, n - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return store_errno();
        done += (size_t)wrote;
    }
    return 0;
}

int store_record_write(int directory, const char *name, const void *data, size_t n)
{
    char temporary[64];
    int fd, rv;
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    fd = openat(directory, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return store_errno();
    rv = write_all(fd, data, n);
    if (rv == 0 && fsync(fd) != 0)
        rv = store_errno();
    if (close(fd) != 0 && rv == 0)
        rv = store_errno();
    if (rv == 0 && renameat(directory, temporary, directory, name) != 0)
        rv = store_errno();
    if (rv != 0) {
        unlinkat(directory, temporary, 0);
        return rv;
    }
    return fsync(directory) == 0 ? 0 : store_errno();
}

void store_checksum(const uint8_t *data, size_t n, uint8_t ret[STORE_CHECKSUM_SIZE])
{
    uint8_t hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, data, n);
    memcpy(ret, hash, STORE_CHECKSUM_SIZE);
}
