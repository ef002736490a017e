/* Drafts from one life of the node to the next.
 *
 * A draft's bytes are written without a sync, the record that names it is synced with the log: a killed process
 * loses neither, but after a loss of power the record may name bytes that never reached the disk. So each life
 * begins by making the drafts durable that it finds, and notes in the log (`B`) which machine start it runs in
 * and from which number on its own drafts count; a life that ends in order makes its own durable, too, and says
 * so. Where that was not said and the machine was started anew, the drafts of that last life are not believed:
 * they are set aside, and their names fall back to what lies beneath. */
#include "node_internal.h"

#include "replica/contents_files.h"
#include "replica/error.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BOOT_KEY "B"
#define BOOT_ID  "/proc/sys/kernel/random/boot_id"
#define BOOT_SIZE                                                                                            \
    36 /* bytes of a boot id; zeros where there is none to be had: then no loss of power is noticed */
#define SIZE (BOOT_SIZE + 1 + 8) /* boot id, 1: ended in order, first draft u64 */

struct named {
    uint64_t draft;
    struct replica_view *view;
    char *path; /* "": of a file with several names */
};

struct drafts {
    struct node *node;
    struct replica_view *view; /* being listed */
    struct named *items;
    size_t n, capacity;
};

static void read_boot_id(uint8_t ret[BOOT_SIZE])
{
    int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
    memset(ret, 0, BOOT_SIZE);
    if (fd >= 0 && read(fd, ret, BOOT_SIZE) != BOOT_SIZE)
        memset(ret, 0, BOOT_SIZE);
    if (fd >= 0)
        close(fd);
}

static int write_boot(struct node *node, bool in_order, uint64_t first)
{
    struct replica_kv_batch batch;
    uint8_t value[SIZE];
    int rv;
    read_boot_id(value);
    value[BOOT_SIZE] = in_order;
    replica_u64_encode(first, value + BOOT_SIZE + 1);
    replica_kv_batch_init(&batch);
    replica_kv_batch_put(&batch, BOOT_KEY, 1, value, sizeof value);
    rv = replica_kv_write(node->store->log, &batch);
    replica_kv_batch_close(&batch);
    return rv == 0 ? replica_kv_sync(node->store->log) : rv;
}

/* Drafts from *ret_first on may lack bytes; UINT64_MAX: none. */
static int first_doubtful(const struct node *node, uint64_t *ret_first)
{
    struct replica_buffer value;
    uint8_t boot[BOOT_SIZE];
    int rv;
    *ret_first = UINT64_MAX;
    replica_buffer_init(&value);
    rv = replica_kv_get(node->store->log, BOOT_KEY, 1, &value);
    if (rv == 0 && value.size != SIZE)
        rv = REPLICA_E_CORRUPT;
    read_boot_id(boot);
    if (rv == 0 && value.data[BOOT_SIZE] == 0 && memcmp(value.data, boot, BOOT_SIZE) != 0)
        *ret_first = replica_u64_decode(value.data + BOOT_SIZE + 1);
    replica_buffer_close(&value);
    return rv == REPLICA_E_NOTFOUND ? 0 : rv;
}

static int add(void *context, uint64_t draft, struct replica_path path)
{
    struct drafts *drafts = context;
    struct named *item;
    if (drafts->n == drafts->capacity) {
        size_t capacity = drafts->capacity == 0 ? 64 : drafts->capacity * 2;
        struct named *items = realloc(drafts->items, capacity * sizeof *items);
        if (items == NULL)
            return REPLICA_E_NOMEM;
        drafts->items = items;
        drafts->capacity = capacity;
    }
    item = &drafts->items[drafts->n];
    *item = (struct named){.draft = draft, .view = drafts->view, .path = strndup(path.text, path.size)};
    if (item->path == NULL)
        return REPLICA_E_NOMEM;
    drafts->n++;
    return 0;
}

static int list(struct node *node, struct drafts *drafts)
{
    struct replica_views *views = gossip_peer_views(node->peer);
    int rv = 0;
    for (size_t i = 0; rv == 0 && i < replica_views_count(views); i++) {
        drafts->view = replica_views_at(views, i);
        rv = replica_view_each_draft(drafts->view, add, drafts);
    }
    return rv;
}

static int forget(struct node *node, const struct named *item)
{
    struct replica_kv_batch batch;
    size_t n;
    int rv;
    replica_kv_batch_init(&batch);
    rv = replica_view_forget_draft(item->view, item->draft, &batch, &n);
    if (rv == 0)
        rv = replica_kv_write(node->store->log, &batch);
    replica_kv_batch_close(&batch);
    if (rv == 0)
        node_log(NODE_LOG_ERROR, "draft_lost",
                 "path=\"%s\" aside=\"%s/contents/quarantine/draft-%llu\" text=\"the machine was started "
                 "anew before this "
                 "draft was committed or synced; what is left of its bytes was set aside\"",
                 item->path, node->config->data, (unsigned long long)item->draft);
    return rv;
}

/* Those that are believed stay in the list. */
static int set_doubtful_aside(struct node *node, struct drafts *drafts)
{
    uint64_t first;
    size_t kept = 0;
    int rv = first_doubtful(node, &first);
    for (size_t i = 0; rv == 0 && i < drafts->n; i++) {
        struct named item = drafts->items[i];
        if (item.draft < first) {
            drafts->items[i] = drafts->items[kept];
            drafts->items[kept++] = item;
            continue;
        }
        rv = replica_contents_files_draft_set_aside(node->store->contents, item.draft);
        if (rv == 0 || rv == REPLICA_E_NOTFOUND) /* of several names the first moved it */
            rv = forget(node, &item);
    }
    for (size_t i = kept; rv == 0 && i < drafts->n; i++)
        free(drafts->items[i].path);
    if (rv == 0)
        drafts->n = kept;
    return rv;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int keep(struct node *node, const struct drafts *drafts)
{
    uint64_t *numbers = malloc((drafts->n + 1) * sizeof *numbers), last = 0;
    int rv = numbers == NULL ? REPLICA_E_NOMEM : 0;
    for (size_t i = 0; rv == 0 && i < drafts->n; i++)
        numbers[i] = drafts->items[i].draft;
    if (rv == 0) {
        qsort(numbers, drafts->n, sizeof *numbers, compare);
        rv = replica_contents_files_draft_keep(node->store->contents, numbers, drafts->n, &last);
    }
    free(numbers);
    node->first_draft = last + 1;
    return rv == 0 ? write_boot(node, false, node->first_draft) : rv;
}

int node_drafts_start(struct node *node)
{
    struct drafts drafts = {.node = node};
    int rv = list(node, &drafts);
    if (rv == 0)
        rv = set_doubtful_aside(node, &drafts);
    if (rv == 0)
        rv = keep(node, &drafts);
    for (size_t i = 0; i < drafts.n; i++)
        free(drafts.items[i].path);
    free(drafts.items);
    return rv;
}

int node_drafts_end(struct node *node)
{
    int rv = replica_contents_files_draft_sync(node->store->contents);
    return rv == 0 ? write_boot(node, true, node->first_draft) : rv;
}
