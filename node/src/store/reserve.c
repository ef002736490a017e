/* The reserve: a file that takes room on the disk only to give it back. Somebody else may fill the disk; then the log finds in what the
 * reserve took the room for what little a node must write to answer readers, instead of failing. */
#include "replica/error.h"
#include "store/records.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RESERVE_NAME "RESERVE"
#define RESERVE_MOST ((uint64_t)64 << 20) /* both databases' memory written out twice, and a compaction … */
#define RESERVE_PART 16                   /* … or a sixteenth of the disk: on a small one little is kept */

uint64_t node_store_reserve_size(const struct node_store *store)
{
    struct statvfs disk;
    uint64_t part;
    if (fstatvfs(store->directory, &disk) != 0)
        return 0;
    part = (uint64_t)disk.f_blocks * disk.f_frsize / RESERVE_PART;
    return part < RESERVE_MOST ? part : RESERVE_MOST;
}

uint64_t node_store_space(const struct node_store *store)
{
    struct statvfs disk;
    return fstatvfs(store->directory, &disk) != 0 ? 0 : (uint64_t)disk.f_bavail * disk.f_frsize;
}

int node_store_reserve_make(struct node_store *store, uint64_t size)
{
    int fd = openat(store->directory, RESERVE_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), rv = 0;
    struct stat status;
    if (fd < 0)
        return store_errno();
    if (fstat(fd, &status) != 0)
        rv = store_errno();
    else if ((uint64_t)status.st_size > size && ftruncate(fd, (off_t)size) != 0)
        rv = store_errno();
    if (rv == 0 && size > 0 && fallocate(fd, 0, 0, (off_t)size) != 0)
        rv = store_errno();
    close(fd);
    if (rv != 0)
        node_store_reserve_release(store);
    return rv;
}

void node_store_reserve_release(struct node_store *store)
{
    (void)unlinkat(store->directory, RESERVE_NAME, 0);
}

bool node_store_reserve_is_made(const struct node_store *store)
{
    return faccessat(store->directory, RESERVE_NAME, F_OK, 0) == 0;
}
