/* put_batch: entries on their way into a view, many to a call. Small files travel in the message, others as
 * descriptors. Every file is looked at before and after its bytes were read; one that changed meanwhile is
 * sent again, and fails the put if it will not hold still. */
#ifndef CLI_PUT_BATCH_H
#define CLI_PUT_BATCH_H

#include "cli/source.h"

#define CLI_BATCH_ENTRIES 400                /* a call of that many takes some milliseconds */
#define CLI_BATCH_FDS     64                 /* descriptors of a message, as the API allows */
#define CLI_BATCH_BYTES   ((size_t)3 << 20)  /* of data, names and attributes: a message holds 4 MiB */
#define CLI_BATCH_INLINE  ((size_t)64 << 10) /* a file up to this is read here: cheaper than a descriptor */
#define CLI_BATCH_TRIES   5                  /* for a file that changes */

struct cli_batch {
    struct cli *cli;
    const struct cli_source *source;
    const char *target; /* where the source's root goes */
    struct cli_batch_slot {
        const struct cli_source_item *item;
        char *path;       /* in the volume */
        uint8_t *data;    /* of a small file */
        int fd;           /* of another, or -1 */
        struct stat info; /* before its bytes were read */
    } slots[CLI_BATCH_ENTRIES];
    struct remora_entry entries[CLI_BATCH_ENTRIES];
    size_t n, fds, bytes;
    uint64_t file_bytes; /* of the files in it */
};

void cli_batch_init(struct cli_batch *batch, struct cli *cli, const struct cli_source *source,
                    const char *target);
void cli_batch_close(struct cli_batch *batch);
/* Sends what is waiting first if the item does not fit. 0 or an exit code. */
int cli_batch_add(struct cli_batch *batch, const struct cli_source_item *item);
int cli_batch_send(struct cli_batch *batch);

#endif
