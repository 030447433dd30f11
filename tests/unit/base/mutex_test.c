// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <signal.h>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/worker.h"

static struct mutex low, high;

static void setup(void)
{
    mutex_init(&low, RANK_VOLUME);
    mutex_init(&high, RANK_LEAF);
}

static void teardown(void)
{
    mutex_release(&low);
    mutex_release(&high);
}

TestSuite(mutex, .init = setup, .fini = teardown);

Test(mutex, ascending_ranks_are_fine_in_any_order_of_unlocking)
{
    for (int i = 0; i < 3; i++) {
        mutex_lock(&low);
        mutex_lock(&high);
        mutex_assert_held(&low);
        mutex_assert_held(&high);
        mutex_unlock(&low);
        mutex_unlock(&high);
    }
    mutex_lock(&high);
    mutex_unlock(&high);
    mutex_lock(&low); // what was unlocked counts no more
    mutex_unlock(&low);
}

Test(mutex, a_guard_unlocks_at_the_end_of_its_scope)
{
    {
        LOCK_GUARD(&high);
        mutex_assert_held(&high);
    }
    LOCK_GUARD(&low);
}

struct counter {
    struct mutex lock;
    int value;
};

static void count(struct worker *worker, void *context)
{
    struct counter *counter = context;
    for (int i = 0; i < 20000; i++) {
        LOCK_GUARD(&counter->lock);
        counter->value++;
    }
}

Test(mutex, keeps_threads_apart)
{
    struct counter counter = {.value = 0};
    mutex_init(&counter.lock, RANK_LEAF);
    struct worker workers[4] = {0};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(worker_start(&workers[i], "count", count, &counter, NULL), GRAFT_OK);
    for (int i = 0; i < 4; i++)
        worker_join(&workers[i]);
    cr_assert_eq(counter.value, 80000);
    mutex_release(&counter.lock);
}

struct turn {
    struct mutex lock;
    struct cond changed;
    int turn;
};

static void take_odd_turns(struct worker *worker, void *context)
{
    struct turn *turn = context;
    LOCK_GUARD(&turn->lock);
    while (turn->turn < 1000) {
        while (turn->turn % 2 == 0)
            cond_wait(&turn->changed, &turn->lock);
        mutex_assert_held(&turn->lock);
        turn->turn++;
        cond_broadcast(&turn->changed);
    }
}

Test(mutex, conditions_pass_a_turn_to_and_fro)
{
    struct turn turn = {.turn = 0};
    mutex_init(&turn.lock, RANK_LEAF);
    cond_init(&turn.changed);
    struct worker worker = {0};
    cr_assert_eq(worker_start(&worker, "odd", take_odd_turns, &turn, NULL), GRAFT_OK);
    mutex_lock(&turn.lock);
    while (turn.turn < 1000) {
        while (turn.turn % 2 == 1)
            cond_wait(&turn.changed, &turn.lock);
        turn.turn++;
        cond_signal(&turn.changed);
    }
    mutex_unlock(&turn.lock);
    worker_join(&worker);
    cr_assert_eq(turn.turn, 1001);
    cond_release(&turn.changed);
    mutex_release(&turn.lock);
}

Test(mutex, a_wait_ends_at_its_deadline)
{
    struct cond never;
    cond_init(&never);
    uint64_t now_us = clock_monotonic_us(clock_system());
    mutex_lock(&high);
    cr_assert_not(cond_wait_until(&never, &high, now_us + 20000));
    cr_assert_geq(clock_monotonic_us(clock_system()), now_us + 20000);
    cr_assert_not(cond_wait_until(&never, &high, 0));
    mutex_assert_held(&high);
    mutex_unlock(&high);
    cond_release(&never);
}

Test(mutex, several_of_one_rank_are_taken_in_their_order)
{
    struct mutex locks[40];
    for (unsigned i = 0; i < 40; i++)
        mutex_init_ordered(&locks[i], RANK_VOLUME, i + 1);
    for (unsigned i = 0; i < 40; i++)
        mutex_lock(&locks[i]);
    mutex_lock(&high);
    mutex_unlock(&high);
    for (unsigned i = 40; i > 0; i--) {
        mutex_unlock(&locks[i - 1]);
        mutex_release(&locks[i - 1]);
    }
}

#ifdef GRAFT_LOCK_CHECKS

Test(mutex, one_rank_out_of_its_order_aborts, .signal = SIGABRT)
{
    struct mutex first, second;
    mutex_init_ordered(&first, RANK_VOLUME, 1);
    mutex_init_ordered(&second, RANK_VOLUME, 2);
    mutex_lock(&second);
    mutex_lock(&first);
}

Test(mutex, one_without_an_order_stands_alone_in_its_rank, .signal = SIGABRT)
{
    struct mutex ordered;
    mutex_init_ordered(&ordered, RANK_VOLUME, 1);
    mutex_lock(&low);
    mutex_lock(&ordered);
}

Test(mutex, descending_ranks_abort, .signal = SIGABRT)
{
    mutex_lock(&high);
    mutex_lock(&low);
}

Test(mutex, equal_ranks_abort, .signal = SIGABRT)
{
    struct mutex same;
    mutex_init(&same, RANK_LEAF);
    mutex_lock(&high);
    mutex_lock(&same);
}

Test(mutex, locking_twice_aborts, .signal = SIGABRT)
{
    mutex_lock(&low);
    mutex_lock(&low);
}

Test(mutex, a_rank_that_hides_behind_an_unlocked_one_aborts, .signal = SIGABRT)
{
    struct mutex middle;
    mutex_init(&middle, RANK_TIMER);
    mutex_lock(&low);
    mutex_lock(&middle);
    mutex_unlock(&low);
    struct mutex between;
    mutex_init(&between, RANK_OBJSTORE);
    mutex_lock(&between); // below `middle`, which is held still
}

Test(mutex, an_assertion_without_the_lock_aborts, .signal = SIGABRT)
{
    mutex_assert_held(&low);
}

static void lock_it(struct worker *worker, void *context)
{
    mutex_lock(context);
}

Test(mutex, another_threads_lock_is_not_ones_own, .signal = SIGABRT)
{
    struct worker worker = {0};
    worker_start(&worker, "holder", lock_it, &low, NULL);
    worker_join(&worker);
    mutex_assert_held(&low);
}

Test(mutex, unlocking_what_is_not_held_aborts, .signal = SIGABRT)
{
    mutex_unlock(&low);
}

Test(mutex, releasing_what_is_held_aborts, .signal = SIGABRT)
{
    mutex_lock(&low);
    mutex_release(&low);
}

#endif
