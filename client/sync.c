// SPDX-License-Identifier: Apache-2.0
//
// A few threads, each of which looks for what is due first, does it, sleeps until the next is due or something
// happens.
//
//     local commit ──▶ push_due      watch: a head moved ──▶ pull_due      no watch: every poll_ms ──▶
//     pull_due
//
// A push or pull that fails and may yet succeed stays due, after a pause that doubles; one that cannot
// (rejected, corrupt) waits for the next event. Calls are made once each time: trying again is the
// schedule's. Where the servers asked for a longer pause (Retry-After), it is that long, within bounds. A push that an earlier process left is gone on with, whether the volume is to push or not.
//
// A call to servers that hang takes its thread along until its deadline, so threads come as they are needed, up
// to SYNC_THREADS_MAX, and volumes whose last attempt did not succeed get all of them but one: a volume that works
// waits for none that does not.
//
// Invariants
// 1. A job is in the table from graft_sync_start() until sync_remove(); while `running` one thread works on it
// without the lock, and sync_remove() waits.
// 2. The stream watches the volumes that were known to the servers when it was started, from the LSN that
// they had then; what moved meanwhile it tells at once. A job that joins makes it start anew. One thread at a
// time opens or closes it (`watch_busy`).
#include "client/sync.h"

#include <stdlib.h>
#include <uthash.h>

#include "client/pull.h"
#include "client/push.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/base/worker.h"

#undef uthash_fatal
#define uthash_fatal(message) check_failed(__FILE__, __LINE__, message)

#define POLL_DEFAULT_MS 5000u
#define RETRY_BASE_MS 100u
#define RETRY_CAP_MS 30000u
#define TURN_RETRY_MS 50u // somebody else pushes or pulls this volume just now
#define NEVER UINT64_MAX

// All fields belong to the lock but volume and vid, which do not change.
struct sync_job {
    struct graft_volume *volume; // borrowed: it leaves before it is closed
    struct gid vid;
    struct graft_sync_settings settings;
    bool push_due, pull_due;
    bool running;
    bool failing; // its last attempt did, or there was none yet
    bool known;   // to the servers: it can be watched
    bool watched; // by the stream that is open, which can tell its head
    uint64_t not_before_us;
    uint64_t poll_us; // when to pull while it is not watched
    struct backoff backoff;
    UT_hash_handle hh;
};

struct sync {
    struct graft *client;
    struct mutex lock; // RANK_SYNC
    struct cond wake;  // for a thread
    struct cond idle;  // a job is no longer running
    struct sync_job *jobs;

    struct worker workers[SYNC_THREADS_MAX];
    unsigned worker_count;  // started
    unsigned idle_count;    // of them, waiting
    unsigned failing_count; // busy with a job that is failing
    bool stopping;

    // The stream. `watch` and `url` belong to who set `watch_busy`; the flags are the lock's.
    bool watch_busy;
    struct remote_watch watch;
    char *url;
    struct backoff watch_backoff;
    bool watch_open, watch_ended, watch_stale;
    uint64_t watch_retry_us;
};

static uint64_t now_us(void)
{
    return clock_monotonic_us(clock_system());
}

static void wake(struct sync *sync)
{
    cond_signal(&sync->wake);
}

// ---- one job ------------------------------------------------------------------------------------

// May another try of the same thing succeed, with nothing else happening? What was damaged on its way is answered
// INVALID or CORRUPT; only the volume's status tells that from another history.
static bool may_pass(struct graft_volume *volume, const struct graft_error *outcome)
{
    struct store_state state;

    switch (outcome->status) {
    case GRAFT_OK:
    case GRAFT_CONFLICT:
    case GRAFT_GONE:
        return false;
    default:
        store_volume_state(volume->store, &state);
        return state.status != GRAFT_VOLUME_CORRUPT;
    }
}

static void report(const struct graft_sync_settings *settings, const struct gid *vid,
                   const struct graft_error *outcome)
{
    if (settings->on_event)
        settings->on_event(settings->context, gid_format(vid).text, outcome);
}

static bool is_pushing(struct graft_volume *volume)
{
    struct store_state state;

    store_volume_state(volume->store, &state);
    return state.push.phase != STORE_PUSH_IDLE;
}

static bool has_to_push(struct graft_volume *volume, const struct graft_sync_settings *settings)
{
    struct store_state state;

    store_volume_state(volume->store, &state);
    return state.push.phase != STORE_PUSH_IDLE || (settings->push && state.local_lsn > state.mapped_lsn);
}

struct attempt {
    bool push, pull;         // what was tried, then: what remains due
    bool succeeded;          // the servers know the volume
    uint32_t retry_after_ms; // that the servers asked for
    struct graft_sync_settings settings;
};

uint32_t sync_pause_ms(uint32_t backoff_ms, uint32_t asked_ms)
{
    const uint32_t bounded_ms = MIN(asked_ms, SYNC_PAUSE_MAX_MS);
    return MAX(backoff_ms, bounded_ms);
}

// Pushes and pulls as the attempt says. No lock is held; the turn is taken.
static void attempt_run(struct graft_volume *volume, const struct gid *vid, struct attempt *attempt)
{
    volume->retry_after_ms = 0;
    if (attempt->push) {
        struct graft_error outcome = {0};
        attempt->push = has_to_push(volume, &attempt->settings);
        if (attempt->push) {
            enum graft_status status =
                attempt->settings.push ? push_all(volume, 0, &outcome) : push_run(volume, 0, NULL, &outcome);
            attempt->succeeded = status == GRAFT_OK;
            attempt->push = may_pass(volume, &outcome);
            report(&attempt->settings, vid, &outcome);
        }
    }
    // Nothing is pulled while a push has no answer.
    if (is_pushing(volume)) {
        attempt->pull &= attempt->push;
    } else if (attempt->pull && !attempt->push) {
        struct graft_error outcome = {0};
        if (pull_run(volume, NULL, &outcome) == GRAFT_OK)
            attempt->succeeded = true;
        attempt->pull = may_pass(volume, &outcome);
        report(&attempt->settings, vid, &outcome);
    }
    attempt->retry_after_ms = volume->retry_after_ms;
}

static void job_run_locked(struct sync *sync, struct sync_job *job)
{
    struct graft_volume *volume = job->volume;
    struct attempt attempt = {.push = job->push_due, .pull = job->pull_due, .settings = job->settings};
    const bool failing = job->failing;

    job->running = true;
    sync->failing_count += failing;
    job->push_due = job->pull_due = false;
    mutex_unlock(&sync->lock);
    bool mine = volume_turn_try(volume);
    if (mine) {
        attempt_run(volume, &job->vid, &attempt);
        volume_turn_give(volume);
    }
    mutex_lock(&sync->lock);
    job->running = false;
    sync->failing_count -= failing;
    job->push_due |= attempt.push;
    job->pull_due |= attempt.pull && job->settings.pull;
    if (mine)
        job->failing = attempt.push || attempt.pull;
    if (!mine) {
        job->not_before_us = now_us() + TURN_RETRY_MS * 1000ull;
    } else if (job->failing) {
        job->not_before_us =
            now_us() + sync_pause_ms(backoff_next_ms(&job->backoff), attempt.retry_after_ms) * 1000ull;
    } else {
        backoff_reset(&job->backoff);
        job->not_before_us = 0;
    }
    job->poll_us = now_us() + job->settings.poll_ms * 1000ull;
    if (attempt.succeeded && !job->known) {
        job->known = true;
        sync->watch_stale |= job->settings.pull;
    }
    cond_broadcast(&sync->idle);
}

// When the job is due; NEVER if nothing is to be done.
static uint64_t job_due_us(const struct sync *sync, const struct sync_job *job)
{
    if (job->push_due || job->pull_due)
        return job->not_before_us;
    if (!job->settings.pull || (job->watched && sync->watch_open && !sync->watch_ended))
        return NEVER;
    return MAX(job->poll_us, job->not_before_us);
}

static struct sync_job *next_job_locked(struct sync *sync, uint64_t *ret_due_us)
{
    struct sync_job *job, *next, *found = NULL;

    *ret_due_us = NEVER;
    HASH_ITER (hh, sync->jobs, job, next) {
        if (job->running || (job->failing && sync->failing_count >= SYNC_THREADS_MAX - 1))
            continue;
        uint64_t due_us = job_due_us(sync, job);
        if (due_us < *ret_due_us) {
            *ret_due_us = due_us;
            found = job;
        }
    }
    return found;
}

// ---- the stream ---------------------------------------------------------------------------------

// On the HTTP client's thread.
static void watch_head(void *context, const struct snapshot *head)
{
    struct sync *sync = context;
    struct sync_job *job;
    struct store_state state;

    mutex_lock(&sync->lock);
    HASH_FIND(hh, sync->jobs, head->vid.bytes, GID_SIZE, job);
    if (job && job->settings.pull) {
        store_volume_state(job->volume->store, &state);
        if (head->lsn > state.remote.lsn)
            job->pull_due = true;
        job->watched = true; // also one that was in trouble
    }
    backoff_reset(&sync->watch_backoff);
    mutex_unlock(&sync->lock);
    wake(sync);
}

// On the HTTP client's thread. The others are watched; this one is asked for from time to time.
static void watch_trouble(void *context, const struct gid *vid, const struct graft_error *why)
{
    struct sync *sync = context;
    struct sync_job *job;

    (void)why; // the poll meets it, and reports it
    mutex_lock(&sync->lock);
    HASH_FIND(hh, sync->jobs, vid->bytes, GID_SIZE, job);
    if (job)
        job->watched = false;
    mutex_unlock(&sync->lock);
    wake(sync);
}

static void watch_ended(void *context)
{
    struct sync *sync = context;

    mutex_lock(&sync->lock);
    sync->watch_ended = true;
    mutex_unlock(&sync->lock);
    wake(sync);
}

static void watch_close_locked(struct sync *sync)
{
    if (!sync->watch_open)
        return;
    bool ended = sync->watch_ended;
    uint32_t retry_after_ms = 0;
    mutex_unlock(&sync->lock);
    if (!ended)
        rpc_stream_cancel(sync->watch.stream);
    remote_watch_finish(&sync->watch, &retry_after_ms, NULL);
    mutex_lock(&sync->lock);
    sync->watch_open = false;
    if (ended)
        sync->watch_retry_us =
            now_us() + sync_pause_ms(backoff_next_ms(&sync->watch_backoff), retry_after_ms) * 1000ull;
}

// The volumes to watch; marks them. *ret_items is the caller's to free().
static size_t watch_items_locked(struct sync *sync, struct remote_watch_item **ret_items)
{
    struct sync_job *job, *next;
    struct remote_watch_item *items =
        calloc(MIN(HASH_COUNT(sync->jobs), WATCH_VOLUMES_MAX) + 1, sizeof *items);
    size_t count = 0;

    HASH_ITER (hh, sync->jobs, job, next) {
        struct store_state state;
        job->watched = items && job->known && job->settings.pull && count < WATCH_VOLUMES_MAX;
        if (!job->watched)
            continue;
        store_volume_state(job->volume->store, &state);
        items[count++] = (struct remote_watch_item){job->vid, state.remote.lsn};
    }
    *ret_items = items;
    return count;
}

static void watch_open_locked(struct sync *sync)
{
    const struct remote *remote = &sync->client->remote;
    _cleanup_(free_p) struct remote_watch_item *items = NULL;

    sync->watch_stale = false;
    size_t count = watch_items_locked(sync, &items);
    if (count == 0)
        return;
    sync->watch_ended = false;
    mutex_unlock(&sync->lock);
    sync->watch = (struct remote_watch){.head = watch_head, .trouble = watch_trouble, .context = sync};
    enum graft_status status = sync->url ? GRAFT_OK : remote_watch_url(remote, &sync->url, NULL);
    if (status == GRAFT_OK)
        status = remote_watch_start(remote, sync->url, items, count, &sync->watch, NULL);
    mutex_lock(&sync->lock);
    sync->watch_open = status == GRAFT_OK;
    if (!sync->watch_open) {
        sync->watch_retry_us = now_us() + backoff_next_ms(&sync->watch_backoff) * 1000ull;
        sync->watch_stale = true;
        return;
    }
    mutex_unlock(&sync->lock);
    rpc_stream_on_end(sync->watch.stream, watch_ended, sync);
    mutex_lock(&sync->lock);
}

// True if the stream needs the thread now; else *due_us is lowered to when it will.
static bool watch_due_locked(const struct sync *sync, uint64_t *due_us)
{
    if (sync->watch_busy)
        return false;
    if (sync->watch_open && !sync->watch_ended)
        return sync->watch_stale;
    if (!sync->watch_open && !sync->watch_stale)
        return false;
    if (sync->watch_open || sync->watch_retry_us <= now_us())
        return true;
    *due_us = MIN(*due_us, sync->watch_retry_us);
    return false;
}

static void watch_step_locked(struct sync *sync)
{
    bool ended = sync->watch_open && sync->watch_ended;

    sync->watch_busy = true;
    watch_close_locked(sync);
    // One that broke is opened again after a pause, at a place that is asked for anew.
    if (ended) {
        free(TAKE(sync->url));
        sync->watch_stale = true;
    } else {
        watch_open_locked(sync);
    }
    sync->watch_busy = false;
}

// ---- the threads --------------------------------------------------------------------------------

static void sync_main(struct worker *worker, void *context);

// Before a thread goes to work: another one is to look for what is due next.
static void relieve_locked(struct sync *sync)
{
    if (sync->idle_count > 0) {
        wake(sync);
        return;
    }
    // With fewer threads than wished for, things take longer.
    if (sync->worker_count < SYNC_THREADS_MAX && !sync->stopping &&
        worker_start(&sync->workers[sync->worker_count], "graft-sync", sync_main, sync, NULL) == GRAFT_OK)
        sync->worker_count++;
}

static void sync_main(struct worker *worker, void *context)
{
    struct sync *sync = context;

    mutex_lock(&sync->lock);
    while (!sync->stopping) {
        uint64_t due_us;
        struct sync_job *job = next_job_locked(sync, &due_us);
        if (job && due_us <= now_us()) {
            relieve_locked(sync);
            job->pull_due |= job->settings.pull && !job->push_due;
            job_run_locked(sync, job);
        } else if (watch_due_locked(sync, &due_us)) {
            relieve_locked(sync);
            watch_step_locked(sync);
        } else {
            sync->idle_count++;
            if (due_us == NEVER)
                cond_wait(&sync->wake, &sync->lock);
            else
                cond_wait_until(&sync->wake, &sync->lock, due_us);
            sync->idle_count--;
        }
    }
    mutex_unlock(&sync->lock);
}

static enum graft_status sync_new(struct graft *client, struct sync **ret_sync, struct graft_error *err)
{
    struct sync *sync = calloc(1, sizeof *sync);
    if (!sync)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for background sync");
    sync->client = client;
    mutex_init(&sync->lock, RANK_SYNC);
    cond_init(&sync->wake);
    cond_init(&sync->idle);
    sync->watch_backoff = (struct backoff){.base_ms = RETRY_BASE_MS, .cap_ms = RETRY_CAP_MS};
    random_bytes(&sync->watch_backoff.seed, sizeof sync->watch_backoff.seed);
    mutex_lock(&sync->lock);
    enum graft_status status = worker_start(&sync->workers[0], "graft-sync", sync_main, sync, err);
    sync->worker_count = status == GRAFT_OK;
    mutex_unlock(&sync->lock);
    if (status == GRAFT_OK)
        *ret_sync = sync;
    else
        sync_free(sync);
    return status;
}

void sync_end(struct sync *sync)
{
    if (!sync)
        return;
    mutex_lock(&sync->lock);
    sync->stopping = true;
    mutex_unlock(&sync->lock);
    cond_broadcast(&sync->wake);
    // Nobody starts another any more.
    for (unsigned i = 0; i < sync->worker_count; i++)
        worker_join(&sync->workers[i]);
    sync->worker_count = 0;
    mutex_lock(&sync->lock);
    watch_close_locked(sync);
    mutex_unlock(&sync->lock);
}

void sync_free(struct sync *sync)
{
    if (!sync)
        return;
    sync_end(sync);
    CHECK(!sync->jobs);
    free(sync->url);
    cond_release(&sync->idle);
    cond_release(&sync->wake);
    mutex_release(&sync->lock);
    free(sync);
}

// NULL: nobody has asked for background sync yet.
static struct sync *sync_of(struct graft *client)
{
    LOCK_GUARD(&client->lock);
    return client->sync;
}

static enum graft_status sync_need(struct graft *client, struct sync **ret_sync, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;

    LOCK_GUARD(&client->lock);
    if (!client->sync)
        status = sync_new(client, &client->sync, err);
    if (status == GRAFT_OK)
        *ret_sync = client->sync;
    return status;
}

static struct sync_job *find_locked(struct sync *sync, const struct graft_volume *volume)
{
    struct sync_job *job;

    mutex_assert_held(&sync->lock);
    HASH_FIND(hh, sync->jobs, volume->source.vid.bytes, GID_SIZE, job);
    return job;
}

void sync_note_commit(struct graft_volume *volume)
{
    struct sync *sync = sync_of(volume->client);
    struct sync_job *job;

    if (!sync)
        return;
    mutex_lock(&sync->lock);
    job = find_locked(sync, volume);
    bool due = job && job->settings.push;
    if (due)
        job->push_due = true;
    mutex_unlock(&sync->lock);
    if (due)
        wake(sync);
}

void sync_note_thaw(struct graft_volume *volume)
{
    struct sync *sync = sync_of(volume->client);

    if (!sync)
        return;
    mutex_lock(&sync->lock);
    struct sync_job *job = find_locked(sync, volume);
    bool due = job && job->settings.pull;
    if (due) {
        job->pull_due = true;
        job->not_before_us = 0;
    }
    mutex_unlock(&sync->lock);
    if (due)
        wake(sync);
}

// Takes out the volume's job, and waits for that of an earlier handle of the same VID, which is about to go.
static void clear_locked(struct sync *sync, const struct graft_volume *volume, bool earlier_too)
{
    struct sync_job *job;

    while ((job = find_locked(sync, volume)) && (earlier_too || job->volume == volume)) {
        if (job->running || job->volume != volume) {
            cond_wait(&sync->idle, &sync->lock);
            continue;
        }
        HASH_DEL(sync->jobs, job);
        free(job);
        cond_broadcast(&sync->idle);
    }
}

void sync_remove(struct graft *client, struct graft_volume *volume)
{
    struct sync *sync = sync_of(client);

    if (!sync)
        return;
    LOCK_GUARD(&sync->lock);
    clear_locked(sync, volume, false);
}

enum graft_status graft_sync_start(struct graft_volume *volume, const struct graft_sync_settings *settings,
                                   struct graft_error *err)
{
    struct store_state state;
    struct sync *sync;
    struct sync_job *job;

    REQUIRE(volume);
    REQUIRE(settings);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status == GRAFT_OK)
        status = sync_need(volume->client, &sync, err);
    if (status != GRAFT_OK)
        return status;
    job = calloc(1, sizeof *job);
    if (!job)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for background sync");
    store_volume_state(volume->store, &state);
    *job = (struct sync_job){
        .volume = volume,
        .vid = state.vid,
        .settings = *settings,
        .push_due = settings->push || state.push.phase != STORE_PUSH_IDLE,
        .pull_due = settings->pull,
        .failing = true,
        .known = state.remote.lsn > 0,
        .backoff = {.base_ms = RETRY_BASE_MS, .cap_ms = RETRY_CAP_MS},
    };
    if (job->settings.poll_ms == 0)
        job->settings.poll_ms = POLL_DEFAULT_MS;
    random_bytes(&job->backoff.seed, sizeof job->backoff.seed);
    mutex_lock(&sync->lock);
    clear_locked(sync, volume, true);
    HASH_ADD(hh, sync->jobs, vid.bytes, GID_SIZE, job);
    sync->watch_stale |= job->known && settings->pull;
    mutex_unlock(&sync->lock);
    wake(sync);
    return GRAFT_OK;
}

void graft_sync_stop(struct graft_volume *volume)
{
    if (volume && !client_is_forked(volume->client))
        sync_remove(volume->client, volume);
}
