// SPDX-License-Identifier: Apache-2.0
#include "common/base/worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/mutex.h"

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    pthread_setname_np(pthread_self(), worker->name);
    worker->run(worker, worker->context);
    return NULL;
}

// The program's signals are for its main thread; what the kernel raises for a fault must reach the thread at
// fault.
static void asynchronous_signals(sigset_t *ret_set)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    sigfillset(ret_set);
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
        sigdelset(ret_set, faults[i]);
}

enum graft_status worker_start(struct worker *worker, const char *name, void (*run)(struct worker *, void *),
                               void *context, struct graft_error *err)
{
    CHECK(!worker->started);
    worker->run = run;
    worker->context = context;
    atomic_store(&worker->stopping, false);
    snprintf(worker->name, sizeof worker->name, "%s", name);

    // A new thread inherits the mask, so it never runs with the signals open.
    sigset_t blocked, before;
    asynchronous_signals(&blocked);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, &before) == 0);
    int result = pthread_create(&worker->thread, NULL, worker_main, worker);
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);

    if (result != 0)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_NO_MEMORY,
                         "starting the thread %s: %s; is the process's limit of threads too low?",
                         worker->name, strerrordesc_np(result));
    worker->started = true;
    return GRAFT_OK;
}

void worker_request_stop(struct worker *worker)
{
    atomic_store(&worker->stopping, true);
}

bool worker_stopping(const struct worker *worker)
{
    return atomic_load(&worker->stopping);
}

void worker_join(struct worker *worker)
{
    if (!worker->started)
        return;
    CHECK(pthread_join(worker->thread, NULL) == 0);
    worker->started = false;
}

struct pool {
    struct mutex lock; // RANK_WORKER; guards first, last, waiting, stopping
    struct cond job_or_stop;
    struct job *first, *last;
    unsigned waiting;
    bool stopping;
    unsigned waiting_max;
    unsigned thread_count; // that started
    struct worker threads[];
};

static struct job *pool_next_job(struct pool *pool)
{
    LOCK_GUARD(&pool->lock);
    while (!pool->first && !pool->stopping)
        cond_wait(&pool->job_or_stop, &pool->lock);
    struct job *job = pool->first;
    if (job) {
        pool->first = job->next;
        if (!pool->first)
            pool->last = NULL;
        pool->waiting--;
    }
    return job;
}

static void pool_thread(struct worker *worker, void *context)
{
    struct pool *pool = context;
    for (struct job *job; (job = pool_next_job(pool));)
        job->run(job);
}

enum graft_status pool_new(const char *name, unsigned threads, unsigned queue_max, struct pool **ret_pool,
                           struct graft_error *err)
{
    CHECK(threads >= 1 && queue_max >= 1);
    struct pool *pool = calloc(1, sizeof *pool + threads * sizeof pool->threads[0]);
    if (!pool)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a pool of %u threads",
                         threads);
    mutex_init(&pool->lock, RANK_WORKER);
    cond_init(&pool->job_or_stop);
    pool->waiting_max = queue_max;

    for (; pool->thread_count < threads; pool->thread_count++) {
        enum graft_status status =
            worker_start(&pool->threads[pool->thread_count], name, pool_thread, pool, err);
        if (status != GRAFT_OK) {
            pool_free(pool);
            return status;
        }
    }
    *ret_pool = pool;
    return GRAFT_OK;
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    mutex_lock(&pool->lock);
    pool->stopping = true;
    mutex_unlock(&pool->lock);
    cond_broadcast(&pool->job_or_stop);
    for (unsigned i = 0; i < pool->thread_count; i++)
        worker_join(&pool->threads[i]);
    CHECK(!pool->first);
    cond_release(&pool->job_or_stop);
    mutex_release(&pool->lock);
    free(pool);
}

static enum graft_status pool_append(struct pool *pool, struct job *job, struct graft_error *err)
{
    LOCK_GUARD(&pool->lock);
    if (pool->stopping)
        return error_set(err, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "the pool %s is stopping",
                         pool->threads[0].name);
    if (pool->waiting == pool->waiting_max)
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_OVERLOADED, "%u jobs wait in the pool %s already",
                         pool->waiting, pool->threads[0].name);
    job->next = NULL;
    if (pool->last)
        pool->last->next = job;
    else
        pool->first = job;
    pool->last = job;
    pool->waiting++;
    return GRAFT_OK;
}

enum graft_status pool_submit(struct pool *pool, struct job *job, struct graft_error *err)
{
    enum graft_status status = pool_append(pool, job, err);
    if (status == GRAFT_OK)
        cond_signal(&pool->job_or_stop);
    return status;
}

unsigned pool_waiting(struct pool *pool)
{
    LOCK_GUARD(&pool->lock);
    return pool->waiting;
}
