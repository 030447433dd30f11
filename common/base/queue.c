// SPDX-License-Identifier: Apache-2.0
#include "common/base/queue.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/mutex.h"

struct queue {
    struct mutex lock; // RANK_QUEUE; guards all below but items_max
    struct cond not_empty, not_full;
    size_t first, count; // of the ring `items`
    bool closed;
    size_t items_max;
    void *items[];
};

struct queue *queue_new(size_t items_max)
{
    CHECK(items_max >= 1 && items_max <= SIZE_MAX / sizeof(void *) / 2);
    struct queue *queue = calloc(1, sizeof *queue + items_max * sizeof queue->items[0]);
    CHECK(queue);
    mutex_init(&queue->lock, RANK_QUEUE);
    cond_init(&queue->not_empty);
    cond_init(&queue->not_full);
    queue->items_max = items_max;
    return queue;
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    CHECK(queue->count == 0);
    cond_release(&queue->not_empty);
    cond_release(&queue->not_full);
    mutex_release(&queue->lock);
    free(queue);
}

static bool push(struct queue *queue, void *item, bool wait)
{
    CHECK(item);
    LOCK_GUARD(&queue->lock);
    while (wait && queue->count == queue->items_max && !queue->closed)
        cond_wait(&queue->not_full, &queue->lock);
    if (queue->closed || queue->count == queue->items_max)
        return false;
    queue->items[(queue->first + queue->count) % queue->items_max] = item;
    queue->count++;
    return true;
}

static size_t pop(struct queue *queue, void **items, size_t items_max, bool wait)
{
    LOCK_GUARD(&queue->lock);
    while (wait && queue->count == 0 && !queue->closed)
        cond_wait(&queue->not_empty, &queue->lock);
    size_t popped = MIN(queue->count, items_max);
    for (size_t i = 0; i < popped; i++) {
        items[i] = queue->items[queue->first];
        queue->first = (queue->first + 1) % queue->items_max;
    }
    queue->count -= popped;
    return popped;
}

bool queue_try_push(struct queue *queue, void *item)
{
    bool pushed = push(queue, item, false);
    if (pushed)
        cond_signal(&queue->not_empty);
    return pushed;
}

bool queue_push(struct queue *queue, void *item)
{
    bool pushed = push(queue, item, true);
    if (pushed)
        cond_signal(&queue->not_empty);
    return pushed;
}

void *queue_try_pop(struct queue *queue)
{
    void *item = NULL;
    if (pop(queue, &item, 1, false) > 0)
        cond_signal(&queue->not_full);
    return item;
}

void *queue_pop(struct queue *queue)
{
    void *item = NULL;
    if (pop(queue, &item, 1, true) > 0)
        cond_signal(&queue->not_full);
    return item;
}

size_t queue_pop_many(struct queue *queue, void **items, size_t items_max)
{
    CHECK(items_max >= 1);
    size_t popped = pop(queue, items, items_max, true);
    if (popped > 0)
        cond_broadcast(&queue->not_full);
    return popped;
}

void queue_close(struct queue *queue)
{
    mutex_lock(&queue->lock);
    queue->closed = true;
    mutex_unlock(&queue->lock);
    cond_broadcast(&queue->not_empty);
    cond_broadcast(&queue->not_full);
}

size_t queue_count(struct queue *queue)
{
    LOCK_GUARD(&queue->lock);
    return queue->count;
}
