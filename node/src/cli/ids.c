#include "cli/ids.h"

#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

/* Link objects have random ids, and inode numbers (the other users' ids) are spread by the multiplication. */
static size_t slot_of(const struct cli_ids *ids, const uint8_t id[16])
{
    uint64_t a, b;
    memcpy(&a, id, 8);
    memcpy(&b, id + 8, 8);
    return (size_t)(((a ^ b) * 0x9e3779b97f4a7c15ull) >> 20) & (ids->capacity - 1);
}

static struct cli_id *find(const struct cli_ids *ids, const uint8_t id[16])
{
    size_t at = slot_of(ids, id);
    while (ids->slots[at].path != NULL && memcmp(ids->slots[at].id, id, 16) != 0)
        at = (at + 1) & (ids->capacity - 1);
    return &ids->slots[at];
}

/* At most half full, so that probes stay short. */
static int grow(struct cli_ids *ids)
{
    struct cli_ids grown = {.n = ids->n, .capacity = ids->capacity == 0 ? 64 : 2 * ids->capacity};
    if (2 * (ids->n + 1) <= ids->capacity)
        return 0;
    grown.slots = calloc(grown.capacity, sizeof grown.slots[0]);
    if (grown.slots == NULL)
        return cli_no_memory();
    for (size_t i = 0; i < ids->capacity; i++)
        if (ids->slots[i].path != NULL)
            *find(&grown, ids->slots[i].id) = ids->slots[i];
    free(ids->slots);
    *ids = grown;
    return 0;
}

int cli_ids_first(struct cli_ids *ids, const uint8_t id[16], const char *path, const char **ret_first)
{
    struct cli_id *slot;
    int code = grow(ids);
    *ret_first = NULL;
    if (code != 0)
        return code;
    slot = find(ids, id);
    if (slot->path != NULL) {
        *ret_first = slot->path;
        return 0;
    }
    slot->path = strdup(path);
    if (slot->path == NULL)
        return cli_no_memory();
    memcpy(slot->id, id, 16);
    ids->n++;
    return 0;
}

void cli_ids_close(struct cli_ids *ids)
{
    for (size_t i = 0; i < ids->capacity; i++)
        free(ids->slots[i].path);
    free(ids->slots);
    *ids = (struct cli_ids){0};
}
