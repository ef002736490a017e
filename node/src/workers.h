/* workers: a few threads for what blocks: hashing, disk, resolving names. A job runs on a worker, then done runs on the loop. */
#ifndef NODE_WORKERS_H
#define NODE_WORKERS_H

#include "loop.h"

#include <stddef.h>

struct node_job {
    void (*run)(struct node_job *job);  /* on a worker */
    void (*done)(struct node_job *job); /* on the loop; may free the job */
    struct node_post post;              /* private */
    struct node_job *next;              /* private */
};

struct node_workers;
int node_workers_new(struct node_loop *loop, unsigned threads, struct node_workers **ret_workers);
/* Jobs run in order of submission as threads become free. The job is borrowed until done. */
void node_workers_submit(struct node_workers *workers, struct node_job *job);
/* Waits until every submitted job has run. Their done callbacks are posted to the loop as ever. */
void node_workers_destroy(struct node_workers **workers);

#endif
