// SPDX-License-Identifier: Apache-2.0
//
// One `catching` per volume that is behind, in rounds. A round asks the metastore for the commits from the applied one on:
//
//     idle ──catchup_wait()──▶ round: commits(applied … head) ──applied commit again──▶ same chain: go on
//                                │                                └─ another chain, or the head is below it:
//                                │                                   drop the volume, one more round, from LSN 1
//                                ├─ each commit applied: waits for exactly it are answered
//                                └─ end: waits of this round are answered; those that joined later get another round
//
// Beginning at the applied commit costs one commit a round, and proves that the index and the metastore have the same
// history up to there.
#include "pagestore/catchup.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "pagestore/catchup_internal.h"

TAILQ_HEAD(wait_list, catchup_wait);

struct catching {
    struct catchup *catchup;
    struct index_volume *volume;
    struct wait_list waits;  // of this round; under lock
    struct wait_list joined; // since the round began; under lock
    TAILQ_ENTRY(catching) link;

    // The round's, on the HTTP client's thread only.
    struct commit_stream stream;
    bool is_another; // the applied commit came with another chain
    bool rebuilt;    // the volume was dropped once already
};

enum graft_status catchup_new(struct page_index *index, const char *metastore_url,
                              struct disk_reserve *reserve, struct metrics *metrics,
                              struct catchup **ret_catchup, struct graft_error *err)
{
    struct catchup *catchup = calloc(1, sizeof *catchup);
    if (!catchup)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the catch-up");
    int size = snprintf(catchup->url, sizeof catchup->url, "%s/v1/commits", metastore_url);
    enum graft_status status = GRAFT_OK;
    if (size < 0 || (size_t)size >= sizeof catchup->url)
        status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the metastore's URL is too long");
    catchup->index = index;
    catchup->reserve = reserve;
    TAILQ_INIT(&catchup->catchings);
    TAILQ_INIT(&catchup->rereadings);
    mutex_init(&catchup->lock, RANK_PAGE_CATCHUP);
    struct http_client_settings settings = {.metrics = metrics};
    if (status == GRAFT_OK)
        status = http_client_new(&settings, &catchup->http, err);
    if (status == GRAFT_OK)
        status = timers_new("catchup-timer", &catchup->timers, err);
    if (status != GRAFT_OK) {
        catchup_free(catchup);
        return status;
    }
    catchup->rounds =
        metrics_counter(metrics, "graft_catchup_rounds_total", NULL, "times commits were asked for");
    catchup->waits =
        metrics_counter(metrics, "graft_catchup_waits_total", NULL, "reads that waited for a catch-up");
    catchup->late = metrics_counter(metrics, "graft_catchup_late_total", NULL, "reads that waited too long");
    catchup->rereads = metrics_counter(metrics, "graft_catchup_rereads_total", NULL,
                                       "commits read again because a segment of theirs was missing");
    *ret_catchup = catchup;
    return GRAFT_OK;
}

void catchup_stop(struct catchup *catchup)
{
    mutex_lock(&catchup->lock);
    catchup->stopping = true;
    mutex_unlock(&catchup->lock);
    // Ends the rounds and what is being read again: their ends answer all waits.
    http_client_free(TAKE(catchup->http));
    CHECK(TAILQ_EMPTY(&catchup->catchings) && TAILQ_EMPTY(&catchup->rereadings));
}

void catchup_free(struct catchup *catchup)
{
    if (!catchup)
        return;
    catchup_stop(catchup);
    timers_free(catchup->timers);
    mutex_release(&catchup->lock);
    free(catchup);
}

// ---- waits ------------------------------------------------------------------------------------------------------------

// Where a wait stands: OK or a refusal, or *ret_known false if only the metastore can tell.
static enum graft_status judge(struct catchup_wait *wait, bool *ret_known, struct graft_error *err)
{
    struct index_state at, state = index_volume_state(wait->volume);
    *ret_known = false;
    if (wait->lsn > state.lsn)
        return GRAFT_OK;
    enum graft_status status = index_volume_commit_at(wait->volume, wait->lsn, &at, err);
    if (status == GRAFT_NOT_FOUND)
        return GRAFT_OK;
    *ret_known = status != GRAFT_OK || hash_equal(&at.chain, &wait->chain);
    return status;
}

static void answer(struct catchup_wait *wait, const struct graft_error *error)
{
    timer_cancel(wait->catchup->timers, &wait->timer);
    wait->done(wait, error);
}

// The wait is in a list of its catching's, or was taken out by somebody else, who answers it.
static bool take_out(struct catchup_wait *wait)
{
    struct catching *catching = wait->catching;
    mutex_assert_held(&wait->catchup->lock);
    if (!catching)
        return false;
    struct catchup_wait *other;
    struct wait_list *list = &catching->joined;
    TAILQ_FOREACH (other, &catching->waits, link) {
        if (other == wait)
            list = &catching->waits;
    }
    TAILQ_REMOVE(list, wait, link);
    wait->catching = NULL;
    return true;
}

static void wait_too_long(struct timer *timer)
{
    struct catchup_wait *wait = CONTAINER_OF(timer, struct catchup_wait, timer);
    struct catchup *catchup = wait->catchup;
    mutex_lock(&catchup->lock);
    bool mine = take_out(wait);
    mutex_unlock(&catchup->lock);
    if (!mine)
        return;
    struct graft_error err;
    error_set(&err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_BEHIND,
              "catching up with %s: at LSN %llu of %llu; it goes on, ask again",
              gid_format(index_volume_vid(wait->volume)).text,
              (unsigned long long)index_volume_state(wait->volume).lsn, (unsigned long long)wait->lsn);
    metric_add(catchup->late, 1);
    wait->done(wait, &err);
}

// Takes waits out of the round: all of them, or those that wait for exactly what is applied now.
static void take_waits(struct catching *catching, bool all, struct wait_list *ret_waits)
{
    struct index_state state = index_volume_state(catching->volume);
    struct catchup_wait *wait, *next;
    TAILQ_INIT(ret_waits);
    LOCK_GUARD(&catching->catchup->lock);
    for (wait = TAILQ_FIRST(&catching->waits); wait; wait = next) {
        next = TAILQ_NEXT(wait, link);
        if (!all && (wait->lsn != state.lsn || !hash_equal(&wait->chain, &state.chain)))
            continue;
        TAILQ_REMOVE(&catching->waits, wait, link);
        wait->catching = NULL;
        TAILQ_INSERT_TAIL(ret_waits, wait, link);
    }
}

// Answers by what the index says now; what it does not know by now, the metastore does not have either.
static void settle(struct wait_list *waits, const struct graft_error *failure)
{
    struct catchup_wait *wait;
    while ((wait = TAILQ_FIRST(waits))) {
        TAILQ_REMOVE(waits, wait, link);
        struct graft_error err = {.status = GRAFT_OK};
        struct gid_text vid = gid_format(index_volume_vid(wait->volume));
        bool known;
        enum graft_status status = judge(wait, &known, &err);
        if (status == GRAFT_OK && !known && failure)
            err = *failure;
        else if (status == GRAFT_OK && !known && wait->lsn > index_volume_state(wait->volume).lsn)
            error_set(&err, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD,
                      "LSN %llu is beyond the head of %s, LSN %llu", (unsigned long long)wait->lsn, vid.text,
                      (unsigned long long)index_volume_state(wait->volume).lsn);
        else if (status == GRAFT_OK && !known)
            error_set(
                &err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                "the history of %s up to LSN %llu is not the one that the reader knows: the metastore or the "
                "reader was restored from an older copy",
                vid.text, (unsigned long long)wait->lsn);
        answer(wait, &err);
    }
}

// ---- rounds -----------------------------------------------------------------------------------------------------------

static void start_round(struct catching *catching);

// What applying a commit may take on the disk, generously.
static uint64_t applied_size(const Graft__Commit *commit)
{
    uint64_t size = 512;
    for (size_t i = 0; i < commit->n_segments; i++) {
        struct bytes pages = bytes_of(&commit->segments[i]->pages);
        struct page_run run;
        size_t offset = 0;
        uint32_t last = 0;
        size += 256;
        while (pageset_wire_next(pages, &offset, &last, &run) > 0)
            size += 64ull * run.count;
    }
    return size;
}

enum graft_status catchup_reserve(struct catchup *catchup, const Graft__Commit *commit,
                                  struct graft_error *err)
{
    return disk_reserve_take(catchup->reserve, applied_size(commit), err);
}

static enum graft_status take_commit(struct commit_stream *stream, const Graft__Commit *commit,
                                     struct graft_error *err)
{
    struct catching *catching = CONTAINER_OF(stream, struct catching, stream);
    struct index_state state = index_volume_state(catching->volume);
    enum graft_status status;
    if (commit->lsn > state.lsn) {
        status = catchup_reserve(catching->catchup, commit, err);
        return status == GRAFT_OK ? index_volume_add(catching->volume, commit, err) : status;
    }
    struct hash128 chain;
    status = hash_from_bytes(bytes_of(&commit->chain), "chain", &chain, err);
    if (status != GRAFT_OK)
        return status;
    catching->is_another = !hash_equal(&chain, &state.chain);
    if (catching->is_another)
        status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, "%s has another history now",
                           gid_format(index_volume_vid(catching->volume)).text);
    return status;
}

// What came in one piece is published in one piece, also when something after it is wrong.
static enum graft_status publish_piece(struct commit_stream *stream, struct graft_error *err)
{
    struct catching *catching = CONTAINER_OF(stream, struct catching, stream);
    struct wait_list waits;
    FAILPOINT("catchup.publish");
    enum graft_status status = index_volume_publish(catching->volume, err);
    take_waits(catching, false, &waits);
    settle(&waits, NULL);
    return status;
}

static void free_catching(struct catching *catching)
{
    commit_stream_release(&catching->stream);
    index_volume_release(catching->volume);
    free(catching);
}

// Ends the catching, unless somebody joined meanwhile: then those are the next round.
static void end_round(struct catching *catching)
{
    struct catchup *catchup = catching->catchup;
    mutex_lock(&catchup->lock);
    bool again = !TAILQ_EMPTY(&catching->joined) && !catchup->stopping;
    TAILQ_CONCAT(&catching->waits, &catching->joined, link);
    if (!again) {
        TAILQ_REMOVE(&catchup->catchings, catching, link);
        catchup->catching_count--;
    }
    mutex_unlock(&catchup->lock);
    if (again) {
        catching->rebuilt = false; // theirs may meet another history again
        start_round(catching);
        return;
    }
    struct graft_error err;
    struct wait_list waits;
    error_set(&err, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "the pagestore is shutting down");
    take_waits(catching, true, &waits);
    settle(&waits, &err);
    free_catching(catching);
}

// True if the round showed that the metastore's history is not the one that was indexed. A commit that does not continue
// the one before it, when that one is the applied one, is no such sign: it is the metastore's log that is broken there, and
// building the index anew would end at the same place, once for every read.
static bool is_another_history(const struct catching *catching, const struct graft_error *error)
{
    return catching->is_another ||
           (error->status == GRAFT_NOT_FOUND && error->detail == GRAFT_DETAIL_BEYOND_HEAD &&
            index_volume_state(catching->volume).lsn > 0);
}

static void round_ended(struct commit_stream *stream, const struct graft_error *error)
{
    struct catching *catching = CONTAINER_OF(stream, struct catching, stream);
    struct graft_error failure = *error, err;
    FAILPOINT("catchup.done");
    if (is_another_history(catching, &failure) && !catching->rebuilt) {
        catching->rebuilt = true;
        if (index_volume_drop(catching->volume, &err) == GRAFT_OK) {
            start_round(catching);
            return;
        }
        failure = err;
    }
    struct wait_list waits;
    take_waits(catching, true, &waits);
    bool nothing_yet = failure.status == GRAFT_NOT_FOUND && failure.detail == GRAFT_DETAIL_BEYOND_HEAD;
    settle(&waits, failure.status == GRAFT_OK || nothing_yet ? NULL : &failure);
    end_round(catching);
}

static void start_round(struct catching *catching)
{
    struct catchup *catchup = catching->catchup;
    struct graft_error err;
    catching->is_another = false;
    struct commit_stream_request request = {
        .http = catchup->http,
        .url = catchup->url,
        .vid = index_volume_vid(catching->volume),
        .from = MAX(index_volume_state(catching->volume).lsn, (uint64_t)1),
    };
    metric_add(catchup->rounds, 1);
    FAILPOINT("catchup.begin");
    if (commit_stream_start(&catching->stream, &request, &err) == GRAFT_OK)
        return;
    struct wait_list waits;
    take_waits(catching, true, &waits);
    settle(&waits, &err);
    end_round(catching);
}

static struct catching *find_catching(struct catchup *catchup, const struct index_volume *volume)
{
    struct catching *catching;
    TAILQ_FOREACH (catching, &catchup->catchings, link) {
        if (catching->volume == volume)
            return catching;
    }
    return NULL;
}

// Joins the volume's catching, or makes one: *ret_started, to be started by the caller.
static enum graft_status join(struct catchup *catchup, struct catchup_wait *wait,
                              struct catching **ret_started, struct graft_error *err)
{
    struct index_volume *volume;
    enum graft_status status =
        page_index_volume(catchup->index, index_volume_vid(wait->volume), &volume, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(index_volume_release_p) struct index_volume *held = volume;
    LOCK_GUARD(&catchup->lock);
    if (catchup->stopping)
        return error_set(err, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "the pagestore is shutting down");
    struct catching *catching = find_catching(catchup, wait->volume);
    if (!catching) {
        if (catchup->catching_count == CATCHINGS_MAX)
            return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                             "%u volumes are being caught up with already; ask again", CATCHINGS_MAX);
        catching = calloc(1, sizeof *catching);
        if (!catching)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to catch up");
        catching->catchup = catchup;
        catching->volume = TAKE(held);
        catching->stream = (struct commit_stream){
            .on_commit = take_commit, .on_piece = publish_piece, .on_end = round_ended};
        TAILQ_INIT(&catching->waits);
        TAILQ_INIT(&catching->joined);
        TAILQ_INSERT_TAIL(&catchup->catchings, catching, link);
        catchup->catching_count++;
        *ret_started = catching;
    }
    wait->catching = catching;
    TAILQ_INSERT_TAIL(*ret_started ? &catching->waits : &catching->joined, wait, link);
    timer_arm(catchup->timers, &wait->timer, CATCHUP_WAIT_MS, wait_too_long);
    return GRAFT_OK;
}

void catchup_wait(struct catchup *catchup, struct catchup_wait *wait)
{
    struct graft_error err = {.status = GRAFT_OK};
    struct catching *started = NULL;
    bool known;
    wait->catchup = catchup;
    wait->catching = NULL;
    wait->timer = (struct timer){0};
    enum graft_status status = judge(wait, &known, &err);
    if (status == GRAFT_OK && !known) {
        metric_add(catchup->waits, 1);
        status = join(catchup, wait, &started, &err);
        if (status == GRAFT_OK) {
            if (started)
                start_round(started);
            return;
        }
    }
    wait->done(wait, &err);
}
