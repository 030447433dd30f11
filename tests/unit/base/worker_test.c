// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>

#include "common/base/compiler.h"
#include "common/base/worker.h"

struct seen {
    sigset_t mask;
    char name[16];
    sem_t go;
};

static void look_around(struct worker *worker, void *context)
{
    struct seen *seen = context;
    pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
    pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
}

Test(worker, is_named_and_blocks_asynchronous_signals)
{
    struct seen seen = {0};
    struct worker worker = {0};
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    cr_assert_eq(worker_start(&worker, "a-name-that-is-far-too-long", look_around, &seen, NULL), GRAFT_OK);
    worker_join(&worker);
    pthread_sigmask(SIG_SETMASK, NULL, &after);

    cr_assert_str_eq(seen.name, "a-name-that-is-");
    static const int blocked[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD, SIGALRM};
    for (size_t i = 0; i < ARRAY_COUNT(blocked); i++) {
        cr_assert(sigismember(&seen.mask, blocked[i]), "signal %d", blocked[i]);
        cr_assert_eq(sigismember(&before, blocked[i]), sigismember(&after, blocked[i]));
    }
    static const int open[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < ARRAY_COUNT(open); i++)
        cr_assert_not(sigismember(&seen.mask, open[i]), "signal %d", open[i]);
}

static void run_until_stopped(struct worker *worker, void *context)
{
    struct seen *seen = context;
    sem_wait(&seen->go);
    while (!worker_stopping(worker))
        sched_yield();
}

Test(worker, stops_when_asked_and_can_start_again)
{
    struct seen seen = {0};
    sem_init(&seen.go, 0, 0);
    struct worker worker = {0};
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(worker_start(&worker, "loop", run_until_stopped, &seen, NULL), GRAFT_OK);
        cr_assert_not(worker_stopping(&worker));
        sem_post(&seen.go);
        worker_request_stop(&worker);
        worker_join(&worker);
        cr_assert_not(worker.started);
    }
    worker_join(&worker);
    sem_destroy(&seen.go);
}

Test(worker, join_of_one_that_never_started_does_nothing)
{
    struct worker worker = {0};
    worker_join(&worker);
}

struct counted_job {
    struct job job;
    atomic_int *count;
};

static void count_up(struct job *job)
{
    atomic_fetch_add(CONTAINER_OF(job, struct counted_job, job)->count, 1);
}

struct gate_job {
    struct job job;
    sem_t entered, leave;
};

static void wait_at_the_gate(struct job *job)
{
    struct gate_job *gate = CONTAINER_OF(job, struct gate_job, job);
    sem_post(&gate->entered);
    sem_wait(&gate->leave);
}

static void gate_init(struct gate_job *gate)
{
    gate->job.run = wait_at_the_gate;
    sem_init(&gate->entered, 0, 0);
    sem_init(&gate->leave, 0, 0);
}

static void gate_release(struct gate_job *gate)
{
    sem_destroy(&gate->entered);
    sem_destroy(&gate->leave);
}

Test(worker, pool_runs_every_job_once)
{
    enum { JOBS = 2000 };
    static struct counted_job jobs[JOBS];
    atomic_int count = 0;
    struct pool *pool;
    cr_assert_eq(pool_new("pool", 4, JOBS, &pool, NULL), GRAFT_OK);
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct counted_job){.job.run = count_up, .count = &count};
        cr_assert_eq(pool_submit(pool, &jobs[i].job, NULL), GRAFT_OK);
    }
    pool_free(pool); // runs what was accepted
    cr_assert_eq(count, JOBS);
}

Test(worker, pool_refuses_beyond_its_queue)
{
    atomic_int count = 0;
    struct counted_job jobs[3];
    struct gate_job gate;
    struct pool *pool;
    struct graft_error err;
    gate_init(&gate);
    cr_assert_eq(pool_new("pool", 1, 2, &pool, NULL), GRAFT_OK);
    cr_assert_eq(pool_submit(pool, &gate.job, NULL), GRAFT_OK);
    sem_wait(&gate.entered); // the only thread is busy now
    for (int i = 0; i < 3; i++) {
        jobs[i] = (struct counted_job){.job.run = count_up, .count = &count};
        cr_assert_eq(pool_submit(pool, &jobs[i].job, &err), i < 2 ? GRAFT_OK : GRAFT_BUSY);
    }
    cr_assert_eq(err.detail, GRAFT_DETAIL_OVERLOADED);
    cr_assert_eq(pool_waiting(pool), 2);
    sem_post(&gate.leave);
    pool_free(pool);
    cr_assert_eq(count, 2);
    gate_release(&gate);
}

Test(worker, pool_runs_jobs_at_the_same_time)
{
    struct gate_job gates[3];
    struct pool *pool;
    cr_assert_eq(pool_new("pool", 3, 3, &pool, NULL), GRAFT_OK);
    for (int i = 0; i < 3; i++) {
        gate_init(&gates[i]);
        cr_assert_eq(pool_submit(pool, &gates[i].job, NULL), GRAFT_OK);
    }
    for (int i = 0; i < 3; i++)
        sem_wait(&gates[i].entered); // all are inside
    for (int i = 0; i < 3; i++)
        sem_post(&gates[i].leave);
    pool_free(pool);
    for (int i = 0; i < 3; i++)
        gate_release(&gates[i]);
}

struct late_job {
    struct job job;
    struct pool *pool;
    sem_t entered;
    struct counted_job accepted;
    enum graft_detail detail;
};

// Submits until it is refused because the pool stops.
static void submit_until_refused(struct job *job)
{
    struct late_job *late = CONTAINER_OF(job, struct late_job, job);
    struct job never = {.run = NULL};
    struct graft_error err;
    enum graft_status status = pool_submit(late->pool, &late->accepted.job, &err); // counted by the test
    sem_post(&late->entered);
    do
        status = pool_submit(late->pool, &never, &err); // the queue holds one: BUSY until the end
    while (status == GRAFT_BUSY && (sched_yield(), true));
    late->detail = status == GRAFT_CANCELLED ? err.detail : GRAFT_DETAIL_NONE;
}

Test(worker, pool_refuses_once_it_stops_but_runs_what_it_accepted)
{
    atomic_int count = 0;
    struct late_job late = {
        .job.run = submit_until_refused,
        .accepted = {.job.run = count_up, .count = &count},
    };
    sem_init(&late.entered, 0, 0);
    cr_assert_eq(pool_new("pool", 1, 1, &late.pool, NULL), GRAFT_OK);
    cr_assert_eq(pool_submit(late.pool, &late.job, NULL), GRAFT_OK);
    sem_wait(&late.entered);
    pool_free(late.pool);
    cr_assert_eq(late.detail, GRAFT_DETAIL_STOPPING);
    cr_assert_eq(count, 1);
    sem_destroy(&late.entered);
}

Test(worker, pool_of_nothing_is_freed)
{
    pool_free(NULL);
}
