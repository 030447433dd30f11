// SPDX-License-Identifier: Apache-2.0
//
// Reading commits again whose segments turned out to be missing. One `rereading` per (volume, LSN) that is under way:
//
//     catchup_reread() ──▶ commits(lsn … lsn) ──the commit──▶ judged: each wait's page still filed where the index says?
//                                                             any moved: all entries of the commit written anew
//                                             ──the end────▶ waits answered
//
// Who comes when the commit was judged already begins another one: its answer must be younger than its question.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "pagestore/catchup_internal.h"

struct rereading {
    struct catchup *catchup;
    struct index_volume *volume; // held
    uint64_t lsn;
    TAILQ_HEAD(, reread_wait) waits; // under lock until judged, then the HTTP client's thread's
    bool judged;                     // under lock
    TAILQ_ENTRY(rereading) link;
    struct commit_stream stream;
};

static bool set_contains(struct bytes wire, uint32_t pageidx)
{
    struct page_run run;
    size_t offset = 0;
    uint32_t last = 0;
    while (pageset_wire_next(wire, &offset, &last, &run) > 0) {
        if (pageidx >= run.first && pageidx - run.first < run.count)
            return true;
    }
    return false;
}

static bool still_names(const Graft__Commit *commit, const struct reread_wait *wait)
{
    for (size_t i = 0; i < commit->n_segments; i++) {
        const Graft__SegmentRef *ref = commit->segments[i];
        struct gid sid, owner;
        if (gid_from_bytes(bytes_of(&ref->sid), GID_SEGMENT, "sid", &sid, NULL) == GRAFT_OK &&
            gid_from_bytes(bytes_of(&ref->owner), GID_VOLUME, "owner", &owner, NULL) == GRAFT_OK &&
            gid_equal(&sid, &wait->sid) && gid_equal(&owner, &wait->owner) &&
            set_contains(bytes_of(&ref->pages), wait->pageidx))
            return true;
    }
    return false;
}

static enum graft_status judge_commit(struct commit_stream *stream, const Graft__Commit *commit,
                                      struct graft_error *err)
{
    struct rereading *rereading = CONTAINER_OF(stream, struct rereading, stream);
    struct reread_wait *wait;
    bool any_moved = false;
    {
        LOCK_GUARD(&rereading->catchup->lock);
        rereading->judged = true;
    }
    TAILQ_FOREACH (wait, &rereading->waits, link) {
        wait->moved = !still_names(commit, wait);
        any_moved |= wait->moved;
    }
    enum graft_status status = index_volume_check_same(rereading->volume, commit, err);
    if (status == GRAFT_OK && any_moved)
        status = catchup_reserve(rereading->catchup, commit, err);
    FAILPOINT("reread.judged");
    if (status == GRAFT_OK && any_moved)
        status = index_volume_rewrite(rereading->volume, commit, err);
    return status;
}

static void finish(struct rereading *rereading, struct graft_error *error)
{
    struct catchup *catchup = rereading->catchup;
    {
        LOCK_GUARD(&catchup->lock);
        TAILQ_REMOVE(&catchup->rereadings, rereading, link);
        catchup->rereading_count--;
    }
    struct reread_wait *wait;
    while ((wait = TAILQ_FIRST(&rereading->waits))) {
        TAILQ_REMOVE(&rereading->waits, wait, link);
        wait->done(wait, error);
    }
    commit_stream_release(&rereading->stream);
    index_volume_release(rereading->volume);
    free(rereading);
}

static void reread_ended(struct commit_stream *stream, const struct graft_error *error)
{
    struct rereading *rereading = CONTAINER_OF(stream, struct rereading, stream);
    struct graft_error failure = *error;
    struct gid_text vid = gid_format(index_volume_vid(rereading->volume));
    if (failure.status == GRAFT_NOT_FOUND)
        error_set(
            &failure, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
            "the metastore does not know commit %llu of %s any more: it was restored from an older copy",
            (unsigned long long)rereading->lsn, vid.text);
    else if (failure.status == GRAFT_OK && !rereading->judged)
        error_set(&failure, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                  "the metastore left out commit %llu of %s, which was asked for",
                  (unsigned long long)rereading->lsn, vid.text);
    finish(rereading, &failure);
}

static struct rereading *find_rereading_locked(struct catchup *catchup, const struct reread_wait *wait)
{
    struct rereading *rereading;
    TAILQ_FOREACH (rereading, &catchup->rereadings, link) {
        if (rereading->volume == wait->volume && rereading->lsn == wait->lsn && !rereading->judged)
            return rereading;
    }
    return NULL;
}

// Joins what is under way, or makes *ret_started, to be started by the caller.
static enum graft_status join_rereading(struct catchup *catchup, struct reread_wait *wait,
                                        struct rereading **ret_started, struct graft_error *err)
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
    struct rereading *rereading = find_rereading_locked(catchup, wait);
    if (!rereading) {
        if (catchup->rereading_count == REREADINGS_MAX)
            return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                             "%u commits are being read again already; ask again", REREADINGS_MAX);
        rereading = calloc(1, sizeof *rereading);
        if (!rereading)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to read a commit again");
        *rereading = (struct rereading){.catchup = catchup, .volume = TAKE(held), .lsn = wait->lsn};
        rereading->stream = (struct commit_stream){.on_commit = judge_commit, .on_end = reread_ended};
        TAILQ_INIT(&rereading->waits);
        TAILQ_INSERT_TAIL(&catchup->rereadings, rereading, link);
        catchup->rereading_count++;
        *ret_started = rereading;
    }
    TAILQ_INSERT_TAIL(&rereading->waits, wait, link);
    return GRAFT_OK;
}

void catchup_reread(struct catchup *catchup, struct reread_wait *wait)
{
    struct graft_error err;
    struct rereading *started = NULL;
    wait->moved = false;
    if (join_rereading(catchup, wait, &started, &err) != GRAFT_OK) {
        wait->done(wait, &err);
        return;
    }
    if (!started)
        return;
    metric_add(catchup->rereads, 1);
    struct commit_stream_request request = {
        .http = catchup->http,
        .url = catchup->url,
        .vid = index_volume_vid(started->volume),
        .from = started->lsn,
        .to = started->lsn,
        .deadline_ms = CATCHUP_WAIT_MS,
    };
    FAILPOINT("reread.begin");
    if (commit_stream_start(&started->stream, &request, &err) != GRAFT_OK)
        finish(started, &err);
}
