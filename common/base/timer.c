// SPDX-License-Identifier: Apache-2.0
//
// A binary heap of armed timers and the thread that fires the least.
//
// 1. A timer with place p > 0 is heap[p], and heap[1] is due first.
// 2. `firing` is the timer whose callback runs. The callback may free its timer, so that after the call it is
// only
//    compared, never followed.
// 3. While somebody waits in timer_cancel() for a callback to end (`firing_cancelled`), its timer cannot be
// armed: a
//    callback that arms its timer again at once would otherwise run again and again before the waiter gets
//    the lock.
// 4. The heap holds pointers to timers that live elsewhere; it grows with their number, and they are bounded
// there.
#include "common/base/timer.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/worker.h"

struct timers {
    struct mutex lock; // RANK_TIMER; guards all below and the timers' due_us, place and fire
    struct cond changed;
    struct cond fired;
    struct timer **heap; // from 1
    size_t count, capacity;
    const struct timer *firing;
    uint64_t firing_number;
    bool firing_cancelled;
    bool stopping;
    struct worker worker;
};

static void heap_put(struct timers *timers, size_t place, struct timer *timer)
{
    timers->heap[place] = timer;
    timer->place = place;
}

static void heap_sift_up(struct timers *timers, size_t place, struct timer *timer)
{
    while (place > 1 && timers->heap[place / 2]->due_us > timer->due_us) {
        heap_put(timers, place, timers->heap[place / 2]);
        place /= 2;
    }
    heap_put(timers, place, timer);
}

static void heap_sift_down(struct timers *timers, size_t place, struct timer *timer)
{
    for (;;) {
        size_t child = 2 * place;
        if (child > timers->count)
            break;
        if (child < timers->count && timers->heap[child + 1]->due_us < timers->heap[child]->due_us)
            child++;
        if (timers->heap[child]->due_us >= timer->due_us)
            break;
        heap_put(timers, place, timers->heap[child]);
        place = child;
    }
    heap_put(timers, place, timer);
}

static void heap_insert(struct timers *timers, struct timer *timer)
{
    if (timers->count + 1 >= timers->capacity) {
        timers->capacity = MAX((size_t)64, 2 * timers->capacity);
        timers->heap = reallocarray(timers->heap, timers->capacity, sizeof timers->heap[0]);
        CHECK(timers->heap);
    }
    timers->count++;
    heap_sift_up(timers, timers->count, timer);
}

static void heap_remove(struct timers *timers, struct timer *timer)
{
    size_t place = timer->place;
    CHECK(place >= 1 && place <= timers->count && timers->heap[place] == timer);
    struct timer *last = timers->heap[timers->count--];
    timer->place = 0;
    if (last == timer)
        return;
    if (place > 1 && timers->heap[place / 2]->due_us > last->due_us)
        heap_sift_up(timers, place, last);
    else
        heap_sift_down(timers, place, last);
}

static void fire_first(struct timers *timers)
{
    struct timer *timer = timers->heap[1];
    void (*fire)(struct timer *) = timer->fire;
    heap_remove(timers, timer);
    timers->firing = timer;
    timers->firing_number++;
    timers->firing_cancelled = false;
    mutex_unlock(&timers->lock);
    fire(timer);
    mutex_lock(&timers->lock);
    timers->firing = NULL;
    cond_broadcast(&timers->fired);
}

static void timers_main(struct worker *worker, void *context)
{
    struct timers *timers = context;
    LOCK_GUARD(&timers->lock);
    while (!timers->stopping) {
        if (timers->count == 0)
            cond_wait(&timers->changed, &timers->lock);
        else if (timers->heap[1]->due_us > clock_monotonic_us(clock_system()))
            cond_wait_until(&timers->changed, &timers->lock, timers->heap[1]->due_us);
        else
            fire_first(timers);
    }
}

enum graft_status timers_new(const char *name, struct timers **ret_timers, struct graft_error *err)
{
    struct timers *timers = calloc(1, sizeof *timers);
    if (!timers)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the timers %s", name);
    mutex_init(&timers->lock, RANK_TIMER);
    cond_init(&timers->changed);
    cond_init(&timers->fired);
    enum graft_status status = worker_start(&timers->worker, name, timers_main, timers, err);
    if (status != GRAFT_OK) {
        timers_free(timers);
        return status;
    }
    *ret_timers = timers;
    return GRAFT_OK;
}

void timers_free(struct timers *timers)
{
    if (!timers)
        return;
    mutex_lock(&timers->lock);
    timers->stopping = true;
    mutex_unlock(&timers->lock);
    cond_signal(&timers->changed);
    worker_join(&timers->worker);
    cond_release(&timers->changed);
    cond_release(&timers->fired);
    mutex_release(&timers->lock);
    free(timers->heap);
    free(timers);
}

void timer_arm(struct timers *timers, struct timer *timer, uint64_t after_ms,
               void (*fire)(struct timer *timer))
{
    CHECK(fire);
    // An hour that overflows is an hour that never comes.
    uint64_t now_us = clock_monotonic_us(clock_system());
    uint64_t due_us = after_ms > (INT64_MAX - now_us) / 1000 ? INT64_MAX : now_us + after_ms * 1000;
    {
        LOCK_GUARD(&timers->lock);
        if (timers->firing == timer && timers->firing_cancelled)
            return;
        if (timer->place != 0)
            heap_remove(timers, timer);
        timer->due_us = due_us;
        timer->fire = fire;
        heap_insert(timers, timer);
        if (timer->place != 1)
            return;
    }
    cond_signal(&timers->changed);
}

void timer_cancel(struct timers *timers, struct timer *timer)
{
    LOCK_GUARD(&timers->lock);
    if (timer->place != 0)
        heap_remove(timers, timer);
    if (timers->firing != timer || pthread_equal(pthread_self(), timers->worker.thread))
        return;
    timers->firing_cancelled = true;
    uint64_t number = timers->firing_number;
    while (timers->firing == timer && timers->firing_number == number)
        cond_wait(&timers->fired, &timers->lock);
}
