// SPDX-License-Identifier: Apache-2.0
#include "client/store_space.h"

#include <stdlib.h>

#include "client/store_cleaner.h"
#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/worker.h"

// Kept free where the budget is used up.
#define SPACE_RESERVE_EXTENTS 3u
// The log is given its next extents while it has as many left.
#define SPACE_CLAIM_AHEAD 1u
// It looks whether there is work after so many bytes were appended or died.
#define POKE_SIZE (256 * KIB)
// So far above the budget, commits wait for the cleaner: one for each MiB that is appended.
#define SPACE_BEHIND_EXTENTS 4u
#define SPACE_WAIT_MAX_US 20000u
// Free extents beyond the budget that are worth giving back to the disk.
#define SPACE_EXCESS_EXTENTS (2 * EXTENTS_PER_FILE)

struct store_space {
    struct store *store;
    struct store_cleaner *cleaner; // the thread's
    struct worker worker;
    _Atomic uint64_t changed, appended; // bytes

    struct mutex lock; // RANK_LEAF; the rest
    struct cond wake;  // the thread's
    struct cond stepped;
    bool started, poked, working;
    uint64_t steps;
    struct store_space_counts counts;
};

static uint32_t budget_of(const struct extents_usage *usage)
{
    uint64_t live = usage->live + usage->live / 4;
    return (uint32_t)(live / EXTENT_SIZE) + SPACE_SLACK_EXTENTS;
}

// ---- the thread's work ----------------------------------------------------------------------------------------------

static bool wants_cleaning(const struct extents_usage *usage)
{
    return usage->extents + PAGE_LOG_CLAIM_EXTENTS > budget_of(usage) && usage->free < SPACE_RESERVE_EXTENTS;
}

static bool has_excess(const struct extents_usage *usage)
{
    return usage->extents > budget_of(usage) + SPACE_EXCESS_EXTENTS;
}

// What is empty becomes free before the files grow.
static enum graft_status make_claimable(struct store *store, struct graft_error *err)
{
    struct extents_usage usage;
    extents_usage(store->pages, &usage);
    if (usage.free - usage.empty >= PAGE_LOG_CLAIM_EXTENTS)
        return GRAFT_OK;
    if (usage.empty > 0 && usage.extents + PAGE_LOG_CLAIM_EXTENTS > budget_of(&usage))
        return store_log_settle(store, err);
    return GRAFT_OK;
}

// One bounded piece of work. False: there was none, or none could be done.
static bool step(struct store_space *space)
{
    struct store *store = space->store;
    struct extents_usage usage;
    bool done = false;
    if (store_check_usable(store, NULL) != GRAFT_OK || make_claimable(store, NULL) != GRAFT_OK)
        return false;
    if (page_log_claim_ahead(store->log, SPACE_CLAIM_AHEAD, NULL) != GRAFT_OK)
        return false;
    extents_usage(store->pages, &usage);
    if (wants_cleaning(&usage))
        store_cleaner_clean(space->cleaner, &done, NULL);
    else if (has_excess(&usage))
        store_cleaner_fold(space->cleaner, budget_of(&usage), &done, NULL);
    return done;
}

static void note_counts_locked(struct store_space *space)
{
    struct store_cleaner_counts counts;
    store_cleaner_counts(space->cleaner, &counts);
    space->counts.cleaned_extents = counts.extents;
    space->counts.moved_pages = counts.pages;
    space->counts.moved_size = counts.size;
}

static void run(struct worker *worker, void *context)
{
    struct store_space *space = context;
    mutex_lock(&space->lock);
    while (!worker_stopping(worker)) {
        if (!space->poked) {
            space->working = false;
            cond_broadcast(&space->stepped);
            cond_wait(&space->wake, &space->lock);
            continue;
        }
        space->poked = false;
        space->working = true;
        mutex_unlock(&space->lock);
        bool more = step(space);
        mutex_lock(&space->lock);
        space->poked |= more;
        space->steps++;
        note_counts_locked(space);
        cond_broadcast(&space->stepped);
    }
    space->working = false;
    cond_broadcast(&space->stepped);
    mutex_unlock(&space->lock);
}

// ---- calls ----------------------------------------------------------------------------------------------------------

enum graft_status store_space_new(struct store *store, struct store_space **ret_space,
                                  struct graft_error *err)
{
    struct store_space *space = calloc(1, sizeof *space);
    if (!space)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the local store");
    space->store = store;
    mutex_init(&space->lock, RANK_LEAF);
    cond_init(&space->wake);
    cond_init(&space->stepped);
    *ret_space = space;
    return GRAFT_OK;
}

void store_space_free(struct store_space *space)
{
    if (!space)
        return;
    mutex_lock(&space->lock);
    worker_request_stop(&space->worker);
    cond_broadcast(&space->wake);
    mutex_unlock(&space->lock);
    worker_join(&space->worker);
    store_cleaner_free(space->cleaner);
    cond_release(&space->stepped);
    cond_release(&space->wake);
    mutex_release(&space->lock);
    free(space);
}

// Without a thread the log makes its own space, by growing. It is tried again at the next poke.
static void start_locked(struct store_space *space)
{
    if (!space->cleaner && store_cleaner_new(space->store, &space->cleaner, NULL) != GRAFT_OK)
        return;
    space->started = worker_start(&space->worker, "graft-space", run, space, NULL) == GRAFT_OK;
}

static void poke_locked(struct store_space *space)
{
    if (!space->started)
        start_locked(space);
    if (space->poked || !space->started)
        return;
    space->poked = true;
    cond_signal(&space->wake);
}

void store_space_poke(struct store_space *space, uint64_t size)
{
    // At the first call as well: the thread is there once something is written.
    uint64_t before = atomic_fetch_add(&space->changed, size);
    if (before > 0 && before / POKE_SIZE == (before + size) / POKE_SIZE)
        return;
    LOCK_GUARD(&space->lock);
    poke_locked(space);
}

void store_space_wait(struct store_space *space, uint64_t size)
{
    uint64_t before = atomic_fetch_add(&space->appended, size);
    if (LIKELY(before / EXTENT_SIZE == (before + size) / EXTENT_SIZE))
        return;
    struct extents_usage usage;
    extents_usage(space->store->pages, &usage);
    if (LIKELY(usage.extents <= budget_of(&usage) + SPACE_BEHIND_EXTENTS ||
               usage.free >= SPACE_RESERVE_EXTENTS))
        return;
    uint64_t deadline = clock_monotonic_us(clock_system()) + SPACE_WAIT_MAX_US;
    LOCK_GUARD(&space->lock);
    uint64_t steps = space->steps;
    space->counts.waits += space->working;
    while (space->working && space->steps == steps &&
           cond_wait_until(&space->stepped, &space->lock, deadline))
        ;
}

void store_space_counts(struct store_space *space, struct store_space_counts *ret_counts)
{
    LOCK_GUARD(&space->lock);
    *ret_counts = space->counts;
}

void store_space_settle(struct store_space *space)
{
    LOCK_GUARD(&space->lock);
    poke_locked(space);
    while (space->started && (space->poked || space->working))
        cond_wait(&space->stepped, &space->lock);
}
