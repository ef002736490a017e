/* The sync thread: group commit. */
#include "replica/error.h"
#include "store/store.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct node_syncer {
    struct node_loop *loop;
    struct node_store *store;
    void (*synced)(void *context, uint64_t batch, int code);
    void *context;
    pthread_t thread;
    bool joined;           /* the loop thread's */
    pthread_mutex_t mutex; /* everything below */
    pthread_cond_t changed;
    bool wanted, stop;
    uint64_t wanted_batch;
    bool posted; /* post is on its way to the loop; later results ride on it */
    uint64_t done_batch;
    int code;
    struct node_post post;
};

static void tell(void *context)
{
    struct node_syncer *syncer = context;
    uint64_t batch;
    int code;
    pthread_mutex_lock(&syncer->mutex);
    syncer->posted = false;
    batch = syncer->done_batch;
    code = syncer->code;
    pthread_mutex_unlock(&syncer->mutex);
    syncer->synced(syncer->context, batch, code);
}

static int sync_once(struct node_syncer *syncer)
{
    int code = replica_contents_sync(syncer->store->contents);
    return code != 0 ? code : replica_kv_sync(syncer->store->log);
}

/* Mutex held before and after. */
static void sync_what_waits(struct node_syncer *syncer)
{
    uint64_t batch = syncer->wanted_batch;
    int code;
    syncer->wanted = false;
    pthread_mutex_unlock(&syncer->mutex);
    code = sync_once(syncer);
    pthread_mutex_lock(&syncer->mutex);
    if (code == 0)
        syncer->done_batch = batch;
    else
        syncer->code = code;
    if (!syncer->posted) {
        syncer->posted = true;
        node_loop_post(syncer->loop, &syncer->post);
    }
}

static void *run(void *context)
{
    struct node_syncer *syncer = context;
    pthread_mutex_lock(&syncer->mutex);
    while (!syncer->stop &&
           syncer->code == 0) { /* after a failed fsync nobody knows what is on the disk: never try again */
        if (syncer->wanted)
            sync_what_waits(syncer);
        else
            pthread_cond_wait(&syncer->changed, &syncer->mutex);
    }
    pthread_mutex_unlock(&syncer->mutex);
    return NULL;
}

int node_syncer_new(struct node_loop *loop, struct node_store *store,
                    void (*synced)(void *context, uint64_t batch, int code), void *context,
                    struct node_syncer **ret_syncer)
{
    struct node_syncer *syncer = calloc(1, sizeof *syncer);
    sigset_t all, before;
    int failed;
    if (syncer == NULL)
        return REPLICA_E_NOMEM;
    *syncer = (struct node_syncer){.loop = loop, .store = store, .synced = synced, .context = context};
    syncer->post = (struct node_post){.call = tell, .context = syncer};
    pthread_mutex_init(&syncer->mutex, NULL);
    pthread_cond_init(&syncer->changed, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    failed = pthread_create(&syncer->thread, NULL, run, syncer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        pthread_cond_destroy(&syncer->changed);
        pthread_mutex_destroy(&syncer->mutex);
        free(syncer);
        return REPLICA_E_NOMEM;
    }
    *ret_syncer = syncer;
    return 0;
}

void node_syncer_request(struct node_syncer *syncer, uint64_t batch)
{
    pthread_mutex_lock(&syncer->mutex);
    syncer->wanted = true;
    syncer->wanted_batch = batch;
    pthread_cond_signal(&syncer->changed);
    pthread_mutex_unlock(&syncer->mutex);
}

void node_syncer_stop(struct node_syncer *syncer)
{
    pthread_mutex_lock(&syncer->mutex);
    syncer->stop = true;
    pthread_cond_signal(&syncer->changed);
    pthread_mutex_unlock(&syncer->mutex);
    if (!syncer->joined)
        pthread_join(syncer->thread, NULL);
    syncer->joined = true;
}

void node_syncer_destroy(struct node_syncer **syncer)
{
    if (*syncer == NULL)
        return;
    node_syncer_stop(*syncer);
    pthread_cond_destroy(&(*syncer)->changed);
    pthread_mutex_destroy(&(*syncer)->mutex);
    free(*syncer);
    *syncer = NULL;
}
