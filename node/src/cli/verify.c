/* Whether a file holds what its content id says: the Merkle root over its chunks; holes cost nothing to read.
 */
#include "cli/restore.h"

#include "replica/merkle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREAD_SIZE ((uint64_t)1 << 20) /* below it a thread costs as much as the hashing */

struct verification {
    int fd;
    uint64_t size;
    uint64_t data, hole; /* the next run of data that is known: [data, hole) */
    uint8_t *chunk;
    struct replica_hash *chunks; /* of the page in course */
};

/* Whether [at, at + n) is a hole. Runs are looked up as the reading comes past them. */
static bool is_hole(struct verification *v, uint64_t at, uint64_t n)
{
    while (v->hole <= at && v->data < v->size) {
        off_t data = lseek(v->fd, (off_t)at, SEEK_DATA), hole = data < 0 ? -1 : lseek(v->fd, data, SEEK_HOLE);
        bool none = data < 0 && errno == ENXIO;
        v->data = none ? v->size : hole < 0 ? at : (uint64_t)data;
        v->hole = none || hole < 0 ? v->size : (uint64_t)hole;
    }
    return v->data >= at + n;
}

static int hash_chunk(struct verification *v, uint64_t at, size_t n, struct replica_hash *ret_hash)
{
    size_t done = 0;
    if (is_hole(v, at, n)) {
        replica_merkle_zero_chunk(n, ret_hash);
        return 0;
    }
    while (done < n) {
        ssize_t got = pread(v->fd, v->chunk + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR && !cli_interrupted())
            continue;
        if (got <= 0) {
            errno = got == 0 ? EIO : errno;
            return -1;
        }
        done += (size_t)got;
    }
    replica_merkle_chunk(v->chunk, n, ret_hash);
    return 0;
}

static int hash_page(struct verification *v, uint32_t page, struct replica_hash *ret_hash)
{
    uint32_t n = replica_merkle_page_chunks(v->size, page), first = page * REPLICA_PAGE_CHUNKS;
    for (uint32_t i = 0; i < n; i++)
        if (hash_chunk(v, (uint64_t)(first + i) * REPLICA_CHUNK_SIZE,
                       replica_merkle_chunk_size(v->size, first + i), &v->chunks[i]) != 0)
            return -1;
    replica_merkle_fold(v->chunks, n, ret_hash);
    return 0;
}

static int root_of(struct verification *v, struct replica_hash *ret_root)
{
    uint32_t pages = replica_merkle_pages(v->size);
    struct replica_hash *ids = malloc((pages > 0 ? pages : 1) * sizeof ids[0]);
    int code = ids == NULL ? -1 : 0;
    for (uint32_t i = 0; code == 0 && i < pages; i++)
        code = hash_page(v, i, &ids[i]);
    if (code == 0)
        replica_merkle_fold(ids, pages, ret_root);
    free(ids);
    return code;
}

static bool equals_hex(const struct replica_hash *hash, const char *hex)
{
    char text[2 * REPLICA_HASH_SIZE + 1];
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", hash->bytes[i]);
    return strcmp(text, hex) == 0;
}

int cli_verify(int fd, uint64_t size, const char *content)
{
    struct verification v = {.fd = fd,
                             .size = size,
                             .chunk = malloc(REPLICA_CHUNK_SIZE),
                             .chunks = malloc(REPLICA_PAGE_CHUNKS * sizeof(struct replica_hash))};
    struct replica_hash root;
    int code = v.chunk == NULL || v.chunks == NULL ? -1 : 0;
    if (size == 0)
        replica_hash_bytes("", 0, &root);
    else if (code == 0)
        code = root_of(&v, &root);
    free(v.chunk);
    free(v.chunks);
    if (code != 0)
        return -1;
    return equals_hex(&root, content) ? 0 : 1;
}

/* Beside a copy */

static void *run_check(void *context)
{
    struct cli_check *check = context;
    check->result = cli_verify(check->fd, check->size, check->content);
    check->error = errno;
    return NULL;
}

void cli_check_begin(struct cli_check *check, int fd, uint64_t size, const char *content)
{
    *check = (struct cli_check){.fd = fd, .size = size, .content = content};
    check->threaded = size > THREAD_SIZE && pthread_create(&check->thread, NULL, run_check, check) == 0;
}

int cli_check_end(struct cli_check *check)
{
    if (check->threaded)
        pthread_join(check->thread, NULL);
    else
        run_check(check);
    errno = check->error;
    return check->result;
}
