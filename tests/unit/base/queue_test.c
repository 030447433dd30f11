// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <signal.h>

#include <sched.h>

#include "common/base/queue.h"
#include "common/base/worker.h"

static int items[10000];

Test(queue, keeps_order_around_the_ring)
{
    _cleanup_(queue_free_p) struct queue *queue = queue_new(3);
    for (int round = 0; round < 10; round++) {
        cr_assert(queue_try_push(queue, &items[round]));
        cr_assert(queue_try_push(queue, &items[round + 1]));
        cr_assert_eq(queue_count(queue), 2);
        cr_assert_eq(queue_pop(queue), &items[round]);
        cr_assert_eq(queue_try_pop(queue), &items[round + 1]);
    }
    cr_assert_null(queue_try_pop(queue));
}

Test(queue, is_bounded)
{
    _cleanup_(queue_free_p) struct queue *queue = queue_new(2);
    cr_assert(queue_try_push(queue, &items[0]));
    cr_assert(queue_try_push(queue, &items[1]));
    cr_assert_not(queue_try_push(queue, &items[2]));
    void *popped[5];
    cr_assert_eq(queue_pop_many(queue, popped, 1), 1);
    cr_assert_eq(popped[0], &items[0]);
    cr_assert(queue_try_push(queue, &items[2]));
    cr_assert_eq(queue_pop_many(queue, popped, 5), 2);
    cr_assert_eq(popped[1], &items[2]);
}

Test(queue, closed_drains_and_then_ends)
{
    _cleanup_(queue_free_p) struct queue *queue = queue_new(4);
    queue_push(queue, &items[0]);
    queue_push(queue, &items[1]);
    queue_close(queue);
    cr_assert_not(queue_push(queue, &items[2]));
    cr_assert_not(queue_try_push(queue, &items[2]));
    cr_assert_eq(queue_pop(queue), &items[0]);
    cr_assert_eq(queue_pop(queue), &items[1]);
    cr_assert_null(queue_pop(queue));
    void *popped[2];
    cr_assert_eq(queue_pop_many(queue, popped, 2), 0);
}

static void pop_until_closed(struct worker *worker, void *context)
{
    while (queue_pop(context))
        continue;
}

static void push_until_closed(struct worker *worker, void *context)
{
    while (queue_push(context, &items[0]))
        continue;
}

Test(queue, closing_wakes_those_who_wait_for_items)
{
    _cleanup_(queue_free_p) struct queue *queue = queue_new(4);
    struct worker workers[3] = {0};
    for (int i = 0; i < 3; i++)
        worker_start(&workers[i], "popper", pop_until_closed, queue, NULL);
    queue_close(queue);
    for (int i = 0; i < 3; i++)
        worker_join(&workers[i]);
}

Test(queue, closing_wakes_those_who_wait_for_room)
{
    _cleanup_(queue_free_p) struct queue *queue = queue_new(4);
    struct worker workers[3] = {0};
    for (int i = 0; i < 3; i++)
        worker_start(&workers[i], "pusher", push_until_closed, queue, NULL);
    while (queue_count(queue) < 4)
        sched_yield();
    queue_close(queue);
    for (int i = 0; i < 3; i++)
        worker_join(&workers[i]);
    void *popped[4];
    cr_assert_eq(queue_pop_many(queue, popped, 4), 4);
}

struct stream {
    struct queue *queue;
    int from, to;     // of a producer
    atomic_int *seen; // how often each item came out
};

static void produce(struct worker *worker, void *context)
{
    struct stream *stream = context;
    for (int i = stream->from; i < stream->to; i++)
        queue_push(stream->queue, &items[i]);
}

static void consume(struct worker *worker, void *context)
{
    struct stream *stream = context;
    void *popped[7];
    size_t count;
    while ((count = queue_pop_many(stream->queue, popped, 7)) > 0) {
        for (size_t i = 0; i < count; i++)
            atomic_fetch_add(&stream->seen[(int *)popped[i] - items], 1);
    }
}

Test(queue, passes_each_item_once_between_many_threads)
{
    enum { PRODUCERS = 3, CONSUMERS = 3, EACH = 3000 };
    static atomic_int seen[PRODUCERS * EACH];
    _cleanup_(queue_free_p) struct queue *queue = queue_new(16);
    struct worker producers[PRODUCERS] = {0}, consumers[CONSUMERS] = {0};
    struct stream streams[PRODUCERS], sink = {.queue = queue, .seen = seen};
    for (int i = 0; i < CONSUMERS; i++)
        worker_start(&consumers[i], "consume", consume, &sink, NULL);
    for (int i = 0; i < PRODUCERS; i++) {
        streams[i] = (struct stream){.queue = queue, .from = i * EACH, .to = (i + 1) * EACH};
        worker_start(&producers[i], "produce", produce, &streams[i], NULL);
    }
    for (int i = 0; i < PRODUCERS; i++)
        worker_join(&producers[i]);
    queue_close(queue);
    for (int i = 0; i < CONSUMERS; i++)
        worker_join(&consumers[i]);
    for (int i = 0; i < PRODUCERS * EACH; i++)
        cr_assert_eq(seen[i], 1, "item %d", i);
}

Test(queue, freeing_items_away_aborts, .signal = SIGABRT)
{
    struct queue *queue = queue_new(1);
    queue_push(queue, &items[0]);
    queue_free(queue);
}
