/* ids: where each file with several names was met first, by the 16 bytes that its names share. An open hash
 * table. */
#ifndef CLI_IDS_H
#define CLI_IDS_H

#include <stddef.h>
#include <stdint.h>

struct cli_ids {
    struct cli_id {
        uint8_t id[16];
        char *path; /* NULL: a free slot */
    } * slots;
    size_t n, capacity; /* a power of two */
};

/* The path under which id was met first in *ret_first (borrowed; NULL: this is the first time, and path is
 * kept). 0 or an exit code. */
int cli_ids_first(struct cli_ids *ids, const uint8_t id[16], const char *path, const char **ret_first);
void cli_ids_close(struct cli_ids *ids);

#endif
