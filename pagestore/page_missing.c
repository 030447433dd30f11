// SPDX-License-Identifier: Apache-2.0
//
// A read that meets a segment whose object is missing. The commit that wrote the page is read again once, for what it
// names may have been rewritten since the index applied it:
//
//     source (NOT_FOUND) ──▶ worker: which commit ──▶ catchup_reread() ─┬─ still names it, GONE, unreachable … ──▶ the page's error
//         the stream gives way meanwhile                                └─ names others ──▶ worker: the rest of the
//                                                                                           plan is made anew ──▶ source
//
// The answer holds for all pages of the segment in this read. A page whose commit was read again is not asked about twice,
// so that a stream ends whatever the metastore says.
#include <stdlib.h>

#include "common/base/check.h"
#include "pagestore/page_read_internal.h"

static struct page_version *missing_version(struct page_read *read)
{
    return &read->plan[read->next];
}

static void answer(struct page_read *read, const struct graft_error *error)
{
    read->missing.error = *error;
    atomic_store(&read->missing.state, MISSING_ANSWERED);
    http_request_wake(read->request);
    page_read_unref(read);
}

// Looks up again what is not sent yet; the page that was missed stays in front.
static enum graft_status replan(struct page_read *read, struct graft_error *err)
{
    struct page_version *left = missing_version(read);
    size_t count = read->plan_count - read->next;
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    _cleanup_(free_p) struct page_version *versions = malloc(count * sizeof *versions);
    if (!pages || !versions)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a read of %zu pages",
                         count);
    for (size_t i = 0; i < count; i++)
        pageset_add(pages, left[i].pageidx);
    enum graft_status status = index_volume_resolve(read->volume, read->lsn, pages, versions, err);
    if (status != GRAFT_OK)
        return status;
    page_plan_order(versions, count, left->pageidx);
    if (versions[0].segment == read->missing.segment)
        return error_set(
            err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
            "it is missing from the object store, and commit %llu does not have the page elsewhere",
            (unsigned long long)read->missing.reread.lsn);
    memcpy(left, versions, count * sizeof *versions);
    return GRAFT_OK;
}

static void replan_job(struct job *job)
{
    struct page_read *read = CONTAINER_OF(job, struct page_read, missing.job);
    struct graft_error err = {.status = GRAFT_OK};
    replan(read, &err);
    answer(read, &err);
}

static void reread_done(struct reread_wait *wait, const struct graft_error *error)
{
    struct page_read *read = CONTAINER_OF(wait, struct page_read, missing.reread);
    struct graft_error err = *error;
    if (err.status == GRAFT_OK && wait->moved) {
        read->missing.job.run = replan_job;
        if (pool_submit(read->reader->pool, &read->missing.job, &err) == GRAFT_OK)
            return;
        err.status = GRAFT_UNAVAILABLE;
    }
    if (err.status == GRAFT_OK)
        error_set(&err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                  "it is missing from the object store, though commit %llu names it",
                  (unsigned long long)wait->lsn);
    else
        error_context(&err, err.status, "it is missing from the object store; reading commit %llu again",
                      (unsigned long long)wait->lsn);
    answer(read, &err);
}

static void ask_job(struct job *job)
{
    struct page_read *read = CONTAINER_OF(job, struct page_read, missing.job);
    struct page_version version;
    struct graft_error err;
    uint64_t lsn;
    if (index_volume_resolve_one(read->volume, read->lsn, missing_version(read)->pageidx, &version, &lsn,
                                 &err) != GRAFT_OK) {
        answer(read, &err);
    } else if (version.segment != read->missing.segment) {
        replan_job(job); // another reader had the commit read again
    } else {
        read->missing.reread.lsn = lsn;
        catchup_reread(read->reader->catchup, &read->missing.reread);
    }
}

static void ask(struct page_read *read)
{
    struct graft_error err;
    read->missing.segment = read->segment_number;
    read->missing.pageidx = missing_version(read)->pageidx;
    read->missing.reread = (struct reread_wait){.volume = read->volume,
                                                .sid = read->place.sid,
                                                .owner = read->place.owner,
                                                .pageidx = read->missing.pageidx,
                                                .done = reread_done};
    read->missing.job.run = ask_job;
    atomic_store(&read->missing.state, MISSING_ASKING);
    atomic_fetch_add(&read->references, 1);
    if (pool_submit(read->reader->pool, &read->missing.job, &err) == GRAFT_OK)
        return;
    err.status = GRAFT_UNAVAILABLE;
    answer(read, &err);
}

// What is known already of the page that comes next; GRAFT_OK: nothing yet.
static enum graft_status known_cause(const struct page_read *read, uint32_t pageidx, struct graft_error *err)
{
    const struct graft_error *known = &read->missing.error;
    // A metastore that does not answer is asked once a read.
    if (known->status == GRAFT_UNAVAILABLE ||
        (known->status != GRAFT_OK && read->missing.segment == read->segment_number))
        return error_copy(err, known);
    if (read->missing.pageidx == pageidx)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                         "it is missing from the object store, as is what commit %llu named before",
                         (unsigned long long)read->missing.reread.lsn);
    return GRAFT_OK;
}

enum missing_outcome page_read_missing(struct page_read *read, uint32_t pageidx,
                                       struct graft_error *ret_cause)
{
    int state = atomic_load(&read->missing.state);
    CHECK(state != MISSING_ASKING); // the source waits before it looks at the plan
    if (state == MISSING_ANSWERED) {
        atomic_store(&read->missing.state, MISSING_IDLE);
        if (read->missing.error.status == GRAFT_OK)
            return MISSING_REPLANNED;
    }
    if (known_cause(read, pageidx, ret_cause) != GRAFT_OK) {
        error_context(ret_cause, ret_cause->status, "segment %s, page %u of %s",
                      gid_format(&read->place.sid).text, pageidx, gid_format(&read->place.owner).text);
        return MISSING_FAILED;
    }
    ask(read);
    return MISSING_ASKED;
}
