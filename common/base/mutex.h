// SPDX-License-Identifier: Apache-2.0
//
// Ranked mutexes. A thread takes locks only in ascending rank; builds with -Dlock_checks=true (the debug and sanitizer
// builds) abort where it does not, and where a `_locked` function runs without its lock. The table below is the order of
// all locks in the tree: a new mutex gets its line here.
#ifndef COMMON_BASE_MUTEX_H
#define COMMON_BASE_MUTEX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/compiler.h"

enum lock_rank {
    // outermost: the engines
    RANK_SQLITE_OPEN = 4, // sqlite: data directories being opened and closed
    RANK_SQLITE = 6,      // sqlite: the table of open volumes, their writers and paths
    RANK_CLIENT = 10,     // client: the table of open volumes
    RANK_TURN = 15,       // client: whose turn it is to push or pull a volume
    RANK_EVICT = 18,      // client: the hand that evicts fetched pages, while it holds a volume
    RANK_VOLUME = 20,     // client: one volume's commit lock (may span a write to its own store)
    RANK_SYNC = 30,       // client: the sync engine's jobs
    RANK_FETCH = 40,      // client: the in-flight table
    RANK_PLACES = 45,     // client: places in the local store's index (may span a write to it)
    RANK_FETCHED = 46,    // client: places of fetched pages (may span a write to their index)
    RANK_STORE = 50,      // client: the local store's pins and counters
    RANK_CACHE = 54,      // client: the page cache's turn and ages
    RANK_PAGE_LOG = 55,   // client: the page log
    RANK_EXTENTS = 56,    // client: states of extents

    RANK_META_TABLE = 110,  // metastore: the table of volumes
    RANK_META_VOLUME = 120, // metastore: one volume's head and queue
    RANK_META_WATCH = 130,  // metastore: watchers
    RANK_META_TOPICS = 135, // metastore: heads of watched volumes
    RANK_META_STREAM = 140, // metastore: one `commits` stream's buffer
    RANK_META_READ = 150,   // metastore: what a reader thread waits for; the summariser's list

    RANK_PAGE_UPLOAD = 210,  // pagestore: open segments
    RANK_PAGE_CATCHUP = 215, // pagestore: catch-ups and those that wait for them
    RANK_PAGE_INDEX = 220,   // pagestore: volumes of the page-version index
    RANK_PAGE_CACHE = 230,   // pagestore: the block cache
    RANK_PAGE_STREAM = 240,  // pagestore: one reply's queue

    // common services, called from all of the above
    RANK_OBJSTORE = 310,
    RANK_HTTP_SERVER = 320,
    RANK_HTTP_REQUEST = 330,
    RANK_HTTP_CLIENT = 340,
    RANK_TIMER = 350,
    RANK_QUEUE = 360,
    RANK_WORKER = 370,
    RANK_METRICS = 380,
    RANK_LOG = 390,
    RANK_LEAF = 400, // takes no lock inside
};

struct mutex {
    pthread_mutex_t handle;
    enum lock_rank rank;
    uint64_t order;          // 0: never held together with another of its rank; else those ascend
    _Atomic uintptr_t owner; // of the holding thread; only with lock checks
};

void mutex_init(struct mutex *mutex, enum lock_rank rank);
// One of several of a rank that a thread may hold at once, if it takes them in ascending order (1…).
void mutex_init_ordered(struct mutex *mutex, enum lock_rank rank, uint64_t order);
void mutex_release(struct mutex *mutex); // nobody holds it
void mutex_lock(struct mutex *mutex);
void mutex_unlock(struct mutex *mutex);
void mutex_assert_held(const struct mutex *mutex); // nothing without lock checks

// Condition variables on the monotonic clock.
struct cond {
    pthread_cond_t handle;
};

void cond_init(struct cond *cond);
void cond_release(struct cond *cond);
void cond_wait(struct cond *cond, struct mutex *mutex);
// False once `deadline_us` of CLOCK_MONOTONIC has passed.
bool cond_wait_until(struct cond *cond, struct mutex *mutex, uint64_t deadline_us);
void cond_signal(struct cond *cond);
void cond_broadcast(struct cond *cond);

// { LOCK_GUARD(&store->lock); … }: unlocked at the end of the scope.
static inline void mutex_guard_release(struct mutex **mutex)
{
    if (*mutex)
        mutex_unlock(*mutex);
}
#define LOCK_GUARD(mutex_pointer)                                          \
    _cleanup_(mutex_guard_release) struct mutex *guard_ = (mutex_pointer); \
    mutex_lock(guard_)

#endif
