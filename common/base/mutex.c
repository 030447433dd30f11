// SPDX-License-Identifier: Apache-2.0
//
// With lock checks each thread keeps the list of the mutexes that it holds. Ranks in it ascend strictly: a
// thread that takes a mutex of a rank at or below one it holds aborts at once, on the first run, not only in
// the run that deadlocks. Several of one rank are taken in the order that they were given.
#include "common/base/mutex.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "common/base/check.h"

#ifdef GRAFT_LOCK_CHECKS

#define HELD_MAX 96

static _Thread_local struct {
    const struct mutex *mutexes[HELD_MAX];
    unsigned count;
} held;

static uintptr_t self(void)
{
    return (uintptr_t)pthread_self();
}

static bool may_follow(const struct mutex *before, const struct mutex *mutex)
{
    if (before->rank != mutex->rank)
        return before->rank < mutex->rank;
    return before->order > 0 && before->order < mutex->order;
}

static void check_order(const struct mutex *mutex)
{
    for (unsigned i = 0; i < held.count; i++) {
        if (!may_follow(held.mutexes[i], mutex)) {
            fprintf(stderr, "lock order: a thread that holds a lock of rank %d takes one of rank %d\n",
                    (int)held.mutexes[i]->rank, (int)mutex->rank);
            CHECK(!"locks are taken in ascending rank");
        }
    }
    CHECK(held.count < HELD_MAX);
}

static void note_locked(struct mutex *mutex)
{
    held.mutexes[held.count++] = mutex;
    mutex->owner = self();
}

static void note_unlocked(struct mutex *mutex)
{
    mutex_assert_held(mutex);
    mutex->owner = 0;
    unsigned place = 0;
    while (held.mutexes[place] != mutex)
        place++;
    for (held.count--; place < held.count; place++)
        held.mutexes[place] = held.mutexes[place + 1];
}

void mutex_assert_held(const struct mutex *mutex)
{
    CHECK(mutex->owner == self());
}

#else

static void check_order(const struct mutex *mutex)
{
}

static void note_locked(struct mutex *mutex)
{
}

static void note_unlocked(struct mutex *mutex)
{
}

void mutex_assert_held(const struct mutex *mutex)
{
}

#endif

void mutex_init(struct mutex *mutex, enum lock_rank rank)
{
    mutex_init_ordered(mutex, rank, 0);
}

void mutex_init_ordered(struct mutex *mutex, enum lock_rank rank, uint64_t order)
{
    CHECK(pthread_mutex_init(&mutex->handle, NULL) == 0);
    mutex->rank = rank;
    mutex->order = order;
    mutex->owner = 0;
}

void mutex_release(struct mutex *mutex)
{
    CHECK(mutex->owner == 0);
    CHECK(pthread_mutex_destroy(&mutex->handle) == 0);
}

void mutex_lock(struct mutex *mutex)
{
    check_order(mutex);
    CHECK(pthread_mutex_lock(&mutex->handle) == 0);
    note_locked(mutex);
}

void mutex_unlock(struct mutex *mutex)
{
    note_unlocked(mutex);
    CHECK(pthread_mutex_unlock(&mutex->handle) == 0);
}

void cond_init(struct cond *cond)
{
    pthread_condattr_t attributes;
    CHECK(pthread_condattr_init(&attributes) == 0);
    CHECK(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&cond->handle, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
}

void cond_release(struct cond *cond)
{
    CHECK(pthread_cond_destroy(&cond->handle) == 0);
}

void cond_wait(struct cond *cond, struct mutex *mutex)
{
    note_unlocked(mutex);
    CHECK(pthread_cond_wait(&cond->handle, &mutex->handle) == 0);
    note_locked(mutex);
}

bool cond_wait_until(struct cond *cond, struct mutex *mutex, uint64_t deadline_us)
{
    const struct timespec deadline = {
        .tv_sec = (time_t)(deadline_us / 1000000),
        .tv_nsec = (long)(deadline_us % 1000000) * 1000,
    };
    note_unlocked(mutex);
    int result = pthread_cond_timedwait(&cond->handle, &mutex->handle, &deadline);
    note_locked(mutex);
    CHECK(result == 0 || result == ETIMEDOUT);
    return result == 0;
}

void cond_signal(struct cond *cond)
{
    CHECK(pthread_cond_signal(&cond->handle) == 0);
}

void cond_broadcast(struct cond *cond)
{
    CHECK(pthread_cond_broadcast(&cond->handle) == 0);
}
