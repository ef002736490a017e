/* Whether a file holds what its content id says: the Merkle root over its chunks, hashed by a few threads; holes
 * cost nothing to read. */
#include "cli/restore.h"

#include "replica/merkle.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For each thread at least so much: below, a thread costs as much as its hashing. */
#define THREAD_SIZE ((uint64_t)4 << 20)

struct check_part {
    struct cli_check *check;
    uint64_t data, hole; /* the next run of data that is known: [data, hole) */
    uint8_t *chunk;
};

/* Whether [at, at + n) is a hole. Runs are looked up as the reading comes past them. */
static bool is_hole(struct check_part *part, uint64_t at, uint64_t n)
{
    const struct cli_check *check = part->check;
    while (part->hole <= at && part->data < check->size) {
        off_t data = lseek(check->fd, (off_t)at, SEEK_DATA),
              hole = data < 0 ? -1 : lseek(check->fd, data, SEEK_HOLE);
        bool none = data < 0 && errno == ENXIO;
        part->data = none ? check->size : hole < 0 ? at : (uint64_t)data;
        part->hole = none || hole < 0 ? check->size : (uint64_t)hole;
    }
    return part->data >= at + n;
}

static int hash_chunk(struct check_part *part, uint32_t index)
{
    struct cli_check *check = part->check;
    uint64_t at = index * REPLICA_CHUNK_SIZE;
    size_t n = replica_merkle_chunk_size(check->size, index), done = 0;
    if (is_hole(part, at, n)) {
        replica_merkle_zero_chunk(n, &check->ids[index]);
        return 0;
    }
    while (done < n) {
        ssize_t got = pread(check->fd, part->chunk + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR && !cli_interrupted())
            continue;
        if (got <= 0) {
            errno = got == 0 ? EIO : errno;
            return -1;
        }
        done += (size_t)got;
    }
    replica_merkle_chunk(part->chunk, n, &check->ids[index]);
    return 0;
}

/* Takes chunk after chunk until all are taken. */
static void *hash_some(void *context)
{
    struct cli_check *check = context;
    struct check_part part = {.check = check, .chunk = malloc(REPLICA_CHUNK_SIZE)};
    uint32_t chunks = replica_merkle_chunks(check->size), index;
    int failed = part.chunk == NULL ? ENOMEM : 0;
    while (failed == 0 && atomic_load(&check->error) == 0 &&
           (index = atomic_fetch_add(&check->next, 1)) < chunks)
        if (hash_chunk(&part, index) != 0)
            failed = errno;
    if (failed != 0)
        atomic_store(&check->error, failed);
    free(part.chunk);
    return NULL;
}

static int root_of(const struct cli_check *check, struct replica_hash *ret_root)
{
    uint32_t pages = replica_merkle_pages(check->size);
    struct replica_hash *ids = malloc(pages * sizeof ids[0]);
    if (ids == NULL)
        return -1;
    for (uint32_t i = 0; i < pages; i++)
        replica_merkle_fold(check->ids + (size_t)i * REPLICA_PAGE_CHUNKS,
                            replica_merkle_page_chunks(check->size, i), &ids[i]);
    replica_merkle_fold(ids, pages, ret_root);
    free(ids);
    return 0;
}

static bool equals_hex(const struct replica_hash *hash, const char *hex)
{
    char text[2 * REPLICA_HASH_SIZE + 1];
    for (size_t i = 0; i < REPLICA_HASH_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", hash->bytes[i]);
    return strcmp(text, hex) == 0;
}

void cli_check_begin(struct cli_check *check, int fd, uint64_t size, const char *content)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    sigset_t all, before;
    *check = (struct cli_check){.fd = fd, .size = size, .content = content};
    check->ids = malloc((replica_merkle_chunks(size) + 1u) * sizeof check->ids[0]);
    if (check->ids == NULL) {
        atomic_store(&check->error, ENOMEM);
        return;
    }
    /* Signals are for the main thread: its waits must end, and nobody else looks. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (check->threads_n < CLI_CHECK_THREADS_MAX && check->threads_n < (cores > 1 ? cores : 1) &&
           size >= (check->threads_n + 1) * THREAD_SIZE &&
           pthread_create(&check->threads[check->threads_n], NULL, hash_some, check) == 0)
        check->threads_n++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int cli_check_end(struct cli_check *check)
{
    struct replica_hash root;
    int code;
    if (check->ids != NULL)
        hash_some(check); /* what the others have not taken */
    for (unsigned i = 0; i < check->threads_n; i++)
        pthread_join(check->threads[i], NULL);
    errno = atomic_load(&check->error);
    code = errno != 0 ? -1 : 0;
    if (code == 0 && check->size == 0)
        replica_hash_bytes("", 0, &root);
    else if (code == 0)
        code = root_of(check, &root);
    free(check->ids);
    if (code != 0)
        return -1;
    return equals_hex(&root, check->content) ? 0 : 1;
}

int cli_verify(int fd, uint64_t size, const char *content)
{
    struct cli_check check;
    cli_check_begin(&check, fd, size, content);
    return cli_check_end(&check);
}
