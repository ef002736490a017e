#include "cli/put_batch.h"

#include "cli/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENTRY_OVERHEAD 256 /* keys and numbers of one entry in a message */

void cli_batch_init(struct cli_batch *batch, struct cli *cli, const struct cli_source *source,
                    const char *target)
{
    memset(batch, 0, sizeof *batch);
    batch->cli = cli;
    batch->source = source;
    batch->target = target;
}

static void clear_slot(struct cli_batch *batch, size_t i)
{
    struct cli_batch_slot *slot = &batch->slots[i];
    batch->entries[i].data = NULL; /* the slot's */
    cli_source_entry_free(&batch->entries[i]);
    free(slot->path);
    free(slot->data);
    if (slot->fd >= 0)
        close(slot->fd);
    *slot = (struct cli_batch_slot){.fd = -1};
}

void cli_batch_close(struct cli_batch *batch)
{
    for (size_t i = 0; i < batch->n; i++)
        clear_slot(batch, i);
    batch->n = batch->fds = batch->bytes = 0;
    batch->file_bytes = 0;
}

/* Reads the whole of a small file. 1: it is not as long as it was a moment ago. -1: errno. */
static int read_small(int fd, uint8_t *data, size_t size)
{
    size_t done = 0;
    while (done <= size) { /* one byte more than there should be */
        ssize_t n = pread(fd, data + done, size + 1 - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return done == size ? 0 : 1;
}

/* 1: the file changed; try again. -1: errno. */
static int open_bytes(struct cli_batch_slot *slot, struct remora_entry *entry, const char *path)
{
    struct stat opened, after;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK),
        code; /* NONBLOCK: it may have become a fifo */
    if (fd < 0)
        return -1;
    slot->fd = fd;
    if (fstat(fd, &opened) != 0)
        return -1;
    if (cli_source_changed(&slot->info, &opened))
        return 1;
    if (entry->size > CLI_BATCH_INLINE) {
        entry->fd = fd;
        return 0;
    }
    slot->data = malloc((size_t)entry->size + 1);
    if (slot->data == NULL)
        return -1;
    code = read_small(fd, slot->data, (size_t)entry->size);
    if (code == 0 && fstat(fd, &after) != 0)
        code = -1;
    close(fd);
    slot->fd = -1;
    entry->data = slot->data;
    return code != 0 ? code : cli_source_changed(&slot->info, &after);
}

/* Fills slot i. 0, an exit code, or -1: the file changed. */
static int fill(struct cli_batch *batch, size_t i, const struct cli_source_item *item)
{
    struct cli_batch_slot *slot = &batch->slots[i];
    char path[PATH_MAX];
    int code;
    *slot = (struct cli_batch_slot){.item = item, .path = malloc(REPLICA_PATH_MAX + 1), .fd = -1};
    batch->entries[i] = (struct remora_entry){.fd = -1};
    if (slot->path == NULL)
        return cli_no_memory();
    if (cli_join(batch->target, item->path, slot->path, REPLICA_PATH_MAX + 1) != 0)
        return cli_fail(CLI_REFUSED, "%s/%s: longer than a path of a volume may be", batch->target,
                        item->path);
    code = cli_source_entry(batch->source, item, slot->path, &batch->entries[i], &slot->info);
    if (code != 0 || batch->entries[i].kind != REMORA_FILE)
        return code;
    if (cli_source_path(batch->source, item, path, sizeof path) != 0)
        return CLI_FAILED;
    code = open_bytes(slot, &batch->entries[i], path);
    if (code == 1)
        return -1;
    return code == 0 ? 0 : cli_fail(CLI_FAILED, "%s: %s", path, strerror(errno));
}

static int will_not_hold_still(struct cli_batch *batch, const struct cli_source_item *item)
{
    char path[PATH_MAX];
    if (cli_source_path(batch->source, item, path, sizeof path) != 0)
        return CLI_FAILED;
    return cli_fail(CLI_BUSY, "%s: it changes while it is being read (tried %d times); nothing was put", path,
                    CLI_BATCH_TRIES);
}

static int fill_patiently(struct cli_batch *batch, size_t i, const struct cli_source_item *item)
{
    for (int tries = 0; tries < CLI_BATCH_TRIES; tries++) {
        int code = fill(batch, i, item);
        if (code == 0)
            return 0;
        clear_slot(batch, i);
        if (code > 0)
            return code;
        if (cli_interrupted())
            return cli_fail(CLI_INTERRUPTED, "interrupted");
    }
    return will_not_hold_still(batch, item);
}

static size_t weight(const struct cli_batch_slot *slot, const struct remora_entry *entry)
{
    size_t bytes = ENTRY_OVERHEAD + strlen(slot->path) + (entry->target != NULL ? strlen(entry->target) : 0);
    for (size_t i = 0; i < entry->xattrs_n; i++)
        bytes += strlen(entry->xattrs[i].name) + entry->xattrs[i].size + 16;
    return entry->data != NULL ? bytes + (size_t)entry->size : bytes;
}

static bool changed_meanwhile(const struct cli_batch_slot *slot)
{
    struct stat after;
    return slot->fd >= 0 && (fstat(slot->fd, &after) != 0 || cli_source_changed(&slot->info, &after));
}

/* One at a time, and again as long as it changes while the node reads it. tries: that it had already. */
static int resend(struct cli_batch *batch, size_t i, int tries)
{
    const struct cli_source_item *item = batch->slots[i].item;
    for (; tries < CLI_BATCH_TRIES; tries++) {
        int code, error;
        clear_slot(batch, i);
        code = fill_patiently(batch, i, item);
        if (code != 0)
            return code;
        error = remora_put(batch->cli->remora, &batch->cli->view, &batch->entries[i], 1, true);
        if (error != 0 && error != REPLICA_E_BUSY)
            return cli_fail_call(batch->cli, error, batch->slots[i].path);
        if (error == 0 && !changed_meanwhile(&batch->slots[i]))
            return 0;
        if (cli_interrupted())
            return cli_fail(CLI_INTERRUPTED, "interrupted");
    }
    return will_not_hold_still(batch, item);
}

/* BUSY: one of them changed meanwhile; which one shows when each goes by itself. */
static int send_slots(struct cli_batch *batch)
{
    int error = remora_put(batch->cli->remora, &batch->cli->view, batch->entries, batch->n, true), code = 0;
    if (error != 0 && error != REPLICA_E_BUSY)
        return cli_fail_call(batch->cli, error, batch->n == 1 ? batch->slots[0].path : NULL);
    for (size_t i = 0; code == 0 && i < batch->n; i++)
        if (error == REPLICA_E_BUSY || changed_meanwhile(&batch->slots[i]))
            code = resend(batch, i, error == REPLICA_E_BUSY ? 0 : 1);
    return code;
}

int cli_batch_send(struct cli_batch *batch)
{
    int code;
    if (batch->n == 0)
        return 0;
    cli_progress_file(&batch->cli->progress, batch->slots[batch->n - 1].path, batch->file_bytes);
    code = send_slots(batch);
    cli_progress_add(&batch->cli->progress, batch->file_bytes);
    cli_batch_close(batch);
    if (code == 0 && cli_interrupted())
        code = cli_fail(CLI_INTERRUPTED, "interrupted");
    return code;
}

int cli_batch_add(struct cli_batch *batch, const struct cli_source_item *item)
{
    bool large =
        S_ISREG(item->mode) && item->size >= CLI_PROGRESS_LARGE; /* alone, so that its bar is its own */
    size_t reserve = S_ISREG(item->mode) && item->size <= CLI_BATCH_INLINE ? (size_t)item->size : 0;
    size_t i = batch->n, bytes;
    int code = 0;
    /* An entry is at most 40 KiB without its data. */
    if (large || batch->n == CLI_BATCH_ENTRIES || batch->fds == CLI_BATCH_FDS ||
        batch->bytes + reserve + (64u << 10) > CLI_BATCH_BYTES)
        code = cli_batch_send(batch);
    if (code == 0)
        code = fill_patiently(batch, i = batch->n, item);
    if (code != 0)
        return code;
    bytes = weight(&batch->slots[i], &batch->entries[i]);
    batch->n++;
    batch->bytes += bytes;
    batch->fds += batch->slots[i].fd >= 0;
    batch->file_bytes += batch->entries[i].size;
    return large ? cli_batch_send(batch) : 0;
}
