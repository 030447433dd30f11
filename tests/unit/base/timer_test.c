// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/compiler.h"
#include "common/base/random.h"
#include "common/base/timer.h"
#include "common/base/worker.h"

#define NEVER_MS (3600u * 1000)

static struct timers *timers;
static sem_t fired;

static void setup(void)
{
    cr_assert_eq(timers_new("timers", &timers, NULL), GRAFT_OK);
    sem_init(&fired, 0, 0);
}

static void teardown(void)
{
    timers_free(timers);
    sem_destroy(&fired);
}

TestSuite(timer, .init = setup, .fini = teardown, .timeout = 60);

static void post(struct timer *timer)
{
    sem_post(&fired);
}

static int fired_count(void)
{
    int count;
    sem_getvalue(&fired, &count);
    return count;
}

Test(timer, fires_once_and_not_early)
{
    struct timer timer = {0};
    uint64_t start_us = clock_monotonic_us(clock_system());
    timer_arm(timers, &timer, 20, post);
    sem_wait(&fired);
    cr_assert_geq(clock_monotonic_us(clock_system()), start_us + 20000);
    timer_cancel(timers, &timer);
    cr_assert_eq(timer.place, 0);
    cr_assert_eq(fired_count(), 0);
}

Test(timer, zero_is_at_once)
{
    struct timer timer = {0};
    timer_arm(timers, &timer, 0, post);
    sem_wait(&fired);
}

struct ordered {
    struct timer timer;
    unsigned after_ms;
};
static uint64_t order[200]; // the deadlines, as they fired
static unsigned order_count;

static void note(struct timer *timer)
{
    order[order_count++] = timer->due_us;
    sem_post(&fired);
}

Test(timer, fires_in_the_order_of_deadlines)
{
    static struct ordered all[200];
    struct rng rng;
    rng_seed(&rng, 11);
    for (int i = 0; i < 200; i++) {
        all[i].after_ms = 20 + (unsigned)rng_below(&rng, 200);
        timer_arm(timers, &all[i].timer, NEVER_MS, note);
    }
    // Armed again, and half of them taken back: the heap is changed at places in its middle.
    for (int i = 0; i < 200; i++)
        timer_arm(timers, &all[i].timer, all[i].after_ms, note);
    for (int i = 0; i < 200; i += 2)
        timer_cancel(timers, &all[i].timer);
    for (int i = 0; i < 100; i++)
        sem_wait(&fired);
    timer_cancel(timers, &all[1].timer); // the callback that posted last has ended then
    cr_assert_eq(order_count, 100);
    for (int i = 1; i < 100; i++)
        cr_assert_leq(order[i - 1], order[i]);
}

// Keeps the timers' thread busy until it is told to leave: what is due meanwhile fires afterwards.
struct gate {
    struct timer timer;
    sem_t entered, leave;
};

static void wait_at_the_gate(struct timer *timer)
{
    struct gate *gate = CONTAINER_OF(timer, struct gate, timer);
    sem_post(&gate->entered);
    sem_wait(&gate->leave);
}

Test(timer, cancelled_never_fires)
{
    struct gate gate = {0};
    struct timer taken_back = {0}, later = {0};
    sem_init(&gate.entered, 0, 0);
    sem_init(&gate.leave, 0, 0);
    timer_arm(timers, &gate.timer, 0, wait_at_the_gate);
    sem_wait(&gate.entered);
    timer_arm(timers, &taken_back, 0, post);
    timer_cancel(timers, &taken_back);
    timer_cancel(timers, &taken_back);
    timer_arm(timers, &later, 0, post);
    sem_post(&gate.leave);
    sem_wait(&fired);
    timer_cancel(timers, &later);
    cr_assert_eq(fired_count(), 0);
    sem_destroy(&gate.entered);
    sem_destroy(&gate.leave);
}

Test(timer, an_earlier_one_wakes_the_thread)
{
    struct timer far = {0}, near = {0};
    timer_arm(timers, &far, NEVER_MS, post);
    timer_arm(timers, &near, 5, post);
    sem_wait(&fired);
    cr_assert_neq(far.place, 0);
    timer_arm(timers, &far, 5, post); // moved to the front
    sem_wait(&fired);
}

Test(timer, times_beyond_all_clocks_never_come)
{
    struct timer forever = {0}, soon = {0};
    timer_arm(timers, &forever, UINT64_MAX, post);
    timer_arm(timers, &soon, 5, post);
    sem_wait(&fired);
    cr_assert_neq(forever.place, 0);
    timer_cancel(timers, &forever);
}

struct slow {
    struct timer timer;
    sem_t entered;
    atomic_bool finished;
};

static void take_long(struct timer *timer)
{
    struct slow *slow = CONTAINER_OF(timer, struct slow, timer);
    sem_post(&slow->entered);
    usleep(30000);
    atomic_store(&slow->finished, true);
}

Test(timer, cancel_waits_for_a_callback_that_runs)
{
    struct slow slow = {0};
    sem_init(&slow.entered, 0, 0);
    timer_arm(timers, &slow.timer, 0, take_long);
    sem_wait(&slow.entered);
    timer_cancel(timers, &slow.timer);
    cr_assert(atomic_load(&slow.finished));
    sem_destroy(&slow.entered);
}

static int left;

static void fire_again(struct timer *timer)
{
    if (--left > 0)
        timer_arm(timers, timer, 1, fire_again);
    else
        sem_post(&fired);
}

Test(timer, a_callback_may_arm_its_timer_again)
{
    struct timer timer = {0};
    left = 5;
    timer_arm(timers, &timer, 1, fire_again);
    sem_wait(&fired);
    timer_cancel(timers, &timer);
    cr_assert_eq(left, 0);
}

static void arm_again_slowly(struct timer *timer)
{
    struct slow *slow = CONTAINER_OF(timer, struct slow, timer);
    sem_post(&slow->entered);
    usleep(10000);
    timer_arm(timers, timer, 0, arm_again_slowly);
}

Test(timer, cancel_wins_over_a_callback_that_arms_again)
{
    struct slow slow = {0};
    sem_init(&slow.entered, 0, 0);
    timer_arm(timers, &slow.timer, 0, arm_again_slowly);
    sem_wait(&slow.entered);
    timer_cancel(timers, &slow.timer);
    cr_assert_eq(slow.timer.place, 0);
    while (sem_trywait(&slow.entered) == 0)
        continue;
    struct timer after = {0};
    timer_arm(timers, &after, 20, post);
    sem_wait(&fired);
    cr_assert_neq(sem_trywait(&slow.entered), 0);
    sem_destroy(&slow.entered);
}

static void cancel_oneself(struct timer *timer)
{
    timer_arm(timers, timer, 0, cancel_oneself);
    timer_cancel(timers, timer);
    sem_post(&fired);
}

Test(timer, a_callback_may_cancel_its_own_timer)
{
    struct timer timer = {0};
    timer_arm(timers, &timer, 0, cancel_oneself);
    sem_wait(&fired);
    timer_cancel(timers, &timer);
    cr_assert_eq(fired_count(), 0);
}

static void free_oneself(struct timer *timer)
{
    free(timer);
    sem_post(&fired);
}

Test(timer, a_callback_may_free_its_timer)
{
    for (int i = 0; i < 50; i++)
        timer_arm(timers, calloc(1, sizeof(struct timer)), (uint64_t)i % 5, free_oneself);
    for (int i = 0; i < 50; i++)
        sem_wait(&fired);
}

Test(timer, freed_timers_leave_armed_ones_unfired)
{
    struct timers *others;
    struct timer timer = {0};
    cr_assert_eq(timers_new("others", &others, NULL), GRAFT_OK);
    timer_arm(others, &timer, NEVER_MS, post);
    timers_free(others); // their thread has ended then
    timers_free(NULL);
    cr_assert_eq(fired_count(), 0);
}

static void arm_and_cancel(struct worker *worker, void *context)
{
    struct rng rng;
    rng_seed(&rng, (uintptr_t)worker);
    struct timer mine[20] = {0};
    for (int i = 0; i < 2000; i++) {
        struct timer *timer = &mine[rng_below(&rng, 20)];
        if (rng_below(&rng, 3) == 0)
            timer_cancel(timers, timer);
        else
            timer_arm(timers, timer, rng_below(&rng, 3), post);
    }
    for (int i = 0; i < 20; i++)
        timer_cancel(timers, &mine[i]);
}

Test(timer, many_threads_arm_and_cancel)
{
    struct worker workers[3] = {0};
    for (int i = 0; i < 3; i++)
        cr_assert_eq(worker_start(&workers[i], "armer", arm_and_cancel, NULL, NULL), GRAFT_OK);
    for (int i = 0; i < 3; i++)
        worker_join(&workers[i]);
}
