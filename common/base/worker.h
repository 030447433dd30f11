// SPDX-License-Identifier: Apache-2.0
//
// Threads are started here and nowhere else: named, with SIGPIPE and every asynchronous signal blocked, joined by their
// owner. A pool runs short jobs from a bounded queue.
#ifndef COMMON_BASE_WORKER_H
#define COMMON_BASE_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/base/error.h"

// One thread. `run` returns when it sees worker_stopping(), or when its work is done.
struct worker {
    pthread_t thread;
    bool started;
    atomic_bool stopping;
    void (*run)(struct worker *worker, void *context);
    void *context;
    char name[16]; // cut to 15 characters
};

// UNAVAILABLE if the system has no thread left.
enum graft_status worker_start(struct worker *worker, const char *name, void (*run)(struct worker *, void *),
                               void *context, struct graft_error *err);
void worker_request_stop(struct worker *worker); // only sets the flag: wake the thread yourself
bool worker_stopping(const struct worker *worker);
void worker_join(struct worker *worker); // nothing if it never started

// A job is embedded in what it works on and belongs to the pool from a submit that succeeded until `run` is called.
struct job {
    void (*run)(struct job *job);
    struct job *next; // the pool's
};

struct pool;

// `queue_max` jobs wait at most.
enum graft_status pool_new(const char *name, unsigned threads, unsigned queue_max, struct pool **ret_pool,
                           struct graft_error *err);
// Runs what was accepted, refuses what comes later, joins the threads. NULL is fine.
void pool_free(struct pool *pool);
// BUSY / OVERLOADED when the queue is full, CANCELLED / STOPPING after pool_free() began.
enum graft_status pool_submit(struct pool *pool, struct job *job, struct graft_error *err);
unsigned pool_waiting(struct pool *pool);

#endif
