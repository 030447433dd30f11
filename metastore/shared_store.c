// SPDX-License-Identifier: Apache-2.0
#include "metastore/shared_store.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/worker.h"

#define LOOKS_AT_ONCE 64u

struct shared_store {
    struct volume_table *volumes;
    struct watch_hub *hub;
    struct worker worker;
    struct mutex lock; // for what follows
    struct cond changed;
    unsigned under_way;
    bool stopping;
};

struct look {
    struct volume_wait wait;
    struct shared_store *shared;
};

// Nothing is to be done with the volume: reading on has told the hub already. One that cannot be read is
// tried again.
static void got_volume(struct volume_wait *wait, struct volume *volume, const struct graft_error *error)
{
    (void)error;
    struct look *look = CONTAINER_OF(wait, struct look, wait);
    struct shared_store *shared = look->shared;
    volume_unref(volume);
    free(look);
    LOCK_GUARD(&shared->lock); // signalled under it: shared_store_free() may be waiting for the last one
    shared->under_way--;
    cond_signal(&shared->changed);
}

static void look_at(void *context, const struct gid *vid)
{
    struct shared_store *shared = context;
    mutex_lock(&shared->lock);
    while (shared->under_way >= LOOKS_AT_ONCE)
        cond_wait(&shared->changed, &shared->lock);
    bool stopping = shared->stopping;
    shared->under_way += !stopping;
    mutex_unlock(&shared->lock);
    if (stopping)
        return;
    struct look *look = calloc(1, sizeof *look);
    CHECK(look);
    *look = (struct look){.wait = {.ready = got_volume, .fresh = true}, .shared = shared};
    volume_table_get(shared->volumes, vid, &look->wait);
}

static void run(struct worker *worker, void *context)
{
    (void)worker;
    struct shared_store *shared = context;
    for (;;) {
        uint64_t next_us = clock_monotonic_us(clock_system()) + SHARED_POLL_MS * 1000ull;
        mutex_lock(&shared->lock);
        while (!shared->stopping && cond_wait_until(&shared->changed, &shared->lock, next_us))
            ;
        bool stopping = shared->stopping;
        while (stopping && shared->under_way > 0)
            cond_wait(&shared->changed, &shared->lock);
        mutex_unlock(&shared->lock);
        if (stopping)
            return;
        watch_hub_visit(shared->hub, look_at, shared);
    }
}

enum graft_status shared_store_new(struct volume_table *volumes, struct watch_hub *hub,
                                   struct shared_store **ret_shared, struct graft_error *err)
{
    struct shared_store *shared = calloc(1, sizeof *shared);
    CHECK(shared);
    shared->volumes = volumes;
    shared->hub = hub;
    mutex_init(&shared->lock, RANK_META_READ);
    cond_init(&shared->changed);
    enum graft_status status = worker_start(&shared->worker, "meta-shared", run, shared, err);
    if (status == GRAFT_OK)
        *ret_shared = shared;
    else
        shared_store_free(shared);
    return status;
}

void shared_store_free(struct shared_store *shared)
{
    if (!shared)
        return;
    mutex_lock(&shared->lock);
    shared->stopping = true;
    mutex_unlock(&shared->lock);
    cond_broadcast(&shared->changed);
    worker_join(&shared->worker);
    cond_release(&shared->changed);
    mutex_release(&shared->lock);
    free(shared);
}
