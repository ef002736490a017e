#include "cli/copy.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PIECE        ((uint64_t)16 << 20) /* between two looks at progress and interrupts: some 20 ms */
#define BY_HAND_SIZE ((size_t)1 << 20)

struct copy {
    int from, to;
    bool by_hand; /* the kernel cannot do it between these two */
    uint8_t *block;
    int (*progress)(void *context, uint64_t done);
    void *context;
};

static ssize_t copy_block(struct copy *copy, off_t at, size_t n)
{
    ssize_t got, done = 0;
    if (copy->block == NULL && (copy->block = malloc(BY_HAND_SIZE)) == NULL)
        return -1;
    got = pread(copy->from, copy->block, n < BY_HAND_SIZE ? n : BY_HAND_SIZE, at);
    while (got > 0 && done < got) {
        ssize_t wrote = pwrite(copy->to, copy->block + done, (size_t)(got - done), at + done);
        if (wrote < 0 && errno != EINTR)
            return -1;
        done += wrote > 0 ? wrote : 0;
    }
    return got;
}

static ssize_t copy_some(struct copy *copy, off_t at, size_t n)
{
    loff_t in = at, out = at;
    ssize_t done;
    if (copy->by_hand)
        return copy_block(copy, at, n);
    done = copy_file_range(copy->from, &in, copy->to, &out, n, 0);
    if (done > 0 || (done < 0 && errno != EXDEV && errno != EINVAL && errno != ENOSYS &&
                     errno != EOPNOTSUPP && errno != EBADF))
        return done;
    copy->by_hand = true; /* also when it copies nothing, as from some pseudo file systems */
    return copy_block(copy, at, n);
}

static int copy_range(struct copy *copy, uint64_t at, uint64_t end)
{
    while (at < end) {
        uint64_t wanted = end - at < PIECE ? end - at : PIECE;
        ssize_t n = copy_some(copy, (off_t)at, (size_t)wanted);
        if (n < 0 && errno == EINTR)
            n = 0; /* the next look tells whether to go on */
        else if (n <= 0) {
            errno = n == 0 ? EIO : errno; /* shorter than it was a moment ago */
            return -1;
        }
        at += (uint64_t)n;
        if (copy->progress != NULL && copy->progress(copy->context, at) != 0)
            return 1;
    }
    return 0;
}

static int copy_data(struct copy *copy, uint64_t size)
{
    uint64_t at = 0;
    while (at < size) {
        off_t data = lseek(copy->from, (off_t)at, SEEK_DATA), hole;
        int code;
        if (data < 0 && errno == ENXIO) /* a hole to the end */
            return 0;
        hole = data < 0 ? -1 : lseek(copy->from, data, SEEK_HOLE);
        if (hole < 0) { /* no such thing here: all of it is data */
            data = (off_t)at;
            hole = (off_t)size;
        }
        code = copy_range(copy, (uint64_t)data, (uint64_t)hole < size ? (uint64_t)hole : size);
        if (code != 0)
            return code;
        at = (uint64_t)hole;
    }
    return 0;
}

bool cli_clone(int from, int to)
{
    return ioctl(to, FICLONE, from) == 0;
}

int cli_copy(int from, int to, uint64_t size, int (*progress)(void *context, uint64_t done), void *context)
{
    struct copy copy = {.from = from, .to = to, .progress = progress, .context = context};
    int code;
    if (ftruncate(to, (off_t)size) != 0)
        return -1;
    code = copy_data(&copy, size);
    free(copy.block);
    return code;
}
