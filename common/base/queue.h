// SPDX-License-Identifier: Apache-2.0
//
// A bounded queue of pointers between threads. The queue owns an item only after a push that succeeded.
#ifndef COMMON_BASE_QUEUE_H
#define COMMON_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/compiler.h"

struct queue;

struct queue *queue_new(size_t items_max);
void queue_free(struct queue *queue); // empty, nobody waits
DEFINE_CLEANUP(struct queue, queue_free)

bool queue_try_push(struct queue *queue, void *item); // false: full or closed
bool queue_push(struct queue *queue, void *item);     // waits for room; false: closed
void *queue_try_pop(struct queue *queue);             // NULL: empty
void *queue_pop(struct queue *queue);                 // waits; NULL: closed and empty
size_t queue_pop_many(struct queue *queue, void **items,
                      size_t items_max); // waits for one; 0: closed and empty
void queue_close(struct queue *queue);   // pushes fail from now on; pops drain what is left
size_t queue_count(struct queue *queue);

#endif
