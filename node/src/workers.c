#include "workers.h"

#include "replica/error.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

struct node_workers {
    struct node_loop *loop;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct node_job *jobs, **jobs_tail;
    size_t queued; /* submitted, not yet taken by a thread */
    bool stop;     /* no more will come: end when the queue is empty */
    unsigned threads_n;
    pthread_t threads[];
};

static void job_done(void *context)
{
    struct node_job *job = context;
    job->done(job);
}

static struct node_job *take(struct node_workers *workers)
{
    struct node_job *job;
    pthread_mutex_lock(&workers->mutex);
    while (workers->jobs == NULL && !workers->stop)
        pthread_cond_wait(&workers->changed, &workers->mutex);
    job = workers->jobs;
    if (job != NULL) {
        workers->jobs = job->next;
        if (workers->jobs == NULL)
            workers->jobs_tail = &workers->jobs;
        workers->queued--;
    }
    pthread_mutex_unlock(&workers->mutex);
    return job;
}

static void *work(void *context)
{
    struct node_workers *workers = context;
    struct node_job *job;
    while ((job = take(workers)) != NULL) {
        job->run(job);
        job->post.call = job_done;
        job->post.context = job;
        node_loop_post(workers->loop, &job->post);
    }
    return NULL;
}

int node_workers_new(struct node_loop *loop, unsigned threads, struct node_workers **ret_workers)
{
    struct node_workers *workers = calloc(1, sizeof *workers + threads * sizeof workers->threads[0]);
    sigset_t all, before;
    if (workers == NULL)
        return REPLICA_E_NOMEM;
    workers->loop = loop;
    workers->jobs_tail = &workers->jobs;
    pthread_mutex_init(&workers->mutex, NULL);
    pthread_cond_init(&workers->changed, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the loop thread's */
    while (workers->threads_n < threads &&
           pthread_create(&workers->threads[workers->threads_n], NULL, work, workers) == 0)
        workers->threads_n++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (workers->threads_n == 0) {
        node_workers_destroy(&workers);
        return REPLICA_E_NOMEM;
    }
    *ret_workers = workers;
    return 0;
}

void node_workers_submit(struct node_workers *workers, struct node_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&workers->mutex);
    *workers->jobs_tail = job;
    workers->jobs_tail = &job->next;
    workers->queued++;
    pthread_cond_signal(&workers->changed);
    pthread_mutex_unlock(&workers->mutex);
}

void node_workers_destroy(struct node_workers **workers)
{
    if (*workers == NULL)
        return;
    pthread_mutex_lock(&(*workers)->mutex);
    (*workers)->stop = true;
    pthread_cond_broadcast(&(*workers)->changed);
    pthread_mutex_unlock(&(*workers)->mutex);
    for (unsigned i = 0; i < (*workers)->threads_n; i++)
        pthread_join((*workers)->threads[i], NULL);
    pthread_cond_destroy(&(*workers)->changed);
    pthread_mutex_destroy(&(*workers)->mutex);
    free(*workers);
    *workers = NULL;
}
