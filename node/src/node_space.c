/* Room on the disk. Three states beyond the usual:
 *
 *   low       less is free than --free-space keeps: what makes the store grow is refused, on this node; the log goes on
 *   critical  next to nothing is free: the reserve was let go, and only what readers need is written any more
 *   failed    a write or sync failed all the same: nothing is written, nothing voted; what is here can be read (gossip/peer.h).
 *             Once there is room the store is closed, opened and verified again, as at a start
 *
 * All of it ends by itself when there is room again. */
#include "node_internal.h"

#include "replica/error.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB         ((uint64_t)1 << 20)
#define REOPEN_ROOM (2 * MIB) /* beyond the logs that are written out as tables: descriptors, manifests */

/* Restoring it may have to write zeros. */
struct reserve_job {
    struct node_job job;
    struct node *node;
};

static void run_reserve(struct node_job *job)
{
    struct node *node = ((struct reserve_job *)job)->node;
    (void)node_store_reserve_make(node->store, node->space.reserve);
}

static void reserve_made(struct node_job *job)
{
    ((struct reserve_job *)job)->node->space.restoring = false;
    free(job);
}

static void restore_reserve(struct node *node)
{
    struct reserve_job *job = malloc(sizeof *job);
    if (job == NULL)
        return;
    *job = (struct reserve_job){.job = {.run = run_reserve, .done = reserve_made}, .node = node};
    node->space.restoring = true;
    node_workers_submit(node->workers, &job->job);
}

static void enter_critical(struct node *node, uint64_t free_bytes)
{
    node->space.critical = true;
    node_store_reserve_release(node->store);
    node_log(NODE_LOG_ERROR, "disk_full",
             "free=%llu data=\"%s\" text=\"nothing is taken in and nothing committed here until there is "
             "room; reading goes on\"",
             (unsigned long long)free_bytes, node->config->data);
}

void node_space_look(struct node *node)
{
    struct node_space *space = &node->space;
    uint64_t free_bytes = node_store_space(node->store);
    bool was_low = space->low;
    if (!space->critical && !space->restoring && free_bytes < space->reserve / 2)
        enter_critical(node, free_bytes);
    else if (space->critical && free_bytes >= 2 * space->reserve && free_bytes >= space->floor) {
        space->critical = false;
        restore_reserve(node);
        node_log(NODE_LOG_INFO, "disk_has_room", "free=%llu data=\"%s\"", (unsigned long long)free_bytes,
                 node->config->data);
    }
    space->low = space->critical || free_bytes < space->floor;
    if (space->low && !was_low && !space->critical)
        node_log(NODE_LOG_WARNING, "disk_low", "free=%llu floor=%llu data=\"%s\"",
                 (unsigned long long)free_bytes, (unsigned long long)space->floor, node->config->data);
}

/* A reserve that an earlier life had to let go of, or that was never made, and no room for one. */
int node_space_init(struct node *node)
{
    struct node_space *space = &node->space;
    uint64_t free_bytes = node_store_space(node->store);
    space->floor = node_config_free_space(node->config);
    space->reserve = node_store_reserve_size(node->store);
    if (!node_store_reserve_is_made(node->store)) {
        if (free_bytes < 2 * space->reserve)
            enter_critical(node, free_bytes);
        else
            (void)node_store_reserve_make(node->store,
                                          space->reserve); /* a file system that cannot has none */
    }
    node_space_look(node);
    return 0;
}

int node_space_refuses(struct node *node, bool grows, char *ret_text, size_t n)
{
    const struct node_space *space = &node->space;
    if (node->failed != 0) {
        snprintf(ret_text, n, "the store in %s could not be written: %s; %s", node->config->data,
                 replica_error_text(node->failed),
                 node->failed == REPLICA_E_NOSPACE ? "make room, and it goes on by itself"
                                                   : "mend the disk and restart the node");
        return node->failed;
    }
    node_space_look(node);
    if (space->critical)
        snprintf(ret_text, n, "no space left on the disk of %s; make room, and it goes on by itself",
                 node->config->data);
    else if (grows && space->low)
        snprintf(ret_text, n,
                 "no space: less than the %llu MiB that --free-space keeps is free on the disk of %s; make "
                 "room, or lower it",
                 (unsigned long long)((space->floor + MIB - 1) / MIB), node->config->data);
    else
        return 0;
    return REPLICA_E_NOSPACE;
}

/* Opening */

/* What a database's open may write out as tables. */
static uint64_t log_bytes(const struct node *node, const char *database)
{
    int fd = openat(node->store->directory, database, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    uint64_t bytes = 0;
    if (stream == NULL) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    while ((entry = readdir(stream)) != NULL) {
        const char *end = strrchr(entry->d_name, '.');
        struct stat status;
        if (end != NULL && strcmp(end, ".log") == 0 && fstatat(dirfd(stream), entry->d_name, &status, 0) == 0)
            bytes += (uint64_t)status.st_size;
    }
    closedir(stream);
    return bytes;
}

void node_space_reopen(struct node *node)
{
    if (node->failed != REPLICA_E_NOSPACE || node->stopping || node->reopens)
        return;
    node_store_reserve_release(node->store);
    if (node_store_space(node->store) < log_bytes(node, "log") + log_bytes(node, "map") + REOPEN_ROOM)
        return;
    node->reopens = true;
    node_log(NODE_LOG_WARNING, "store_reopens", "data=\"%s\" text=\"there is room again\"",
             node->config->data);
    node_loop_stop(node->loop);
}
