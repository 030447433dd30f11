// SPDX-License-Identifier: Apache-2.0
//
// Reading: a pin of the local store whose missing pages are fetched on demand, or a view of the servers.
#include <stdlib.h>

#include "client/client.h"
#include "client/remote_view.h"
#include "client/snapshot.h"
#include "common/base/check.h"

struct graft_snapshot {
    struct graft_volume *volume;
    struct store_pin *pin; // one of these two
    struct remote_view *view;
    uint64_t history;
    struct mutex lock;          // RANK_LEAF
    struct fetch_job *prefetch; // lock; NULL before the first graft_prefetch()
};

static enum graft_status snapshot_new(struct graft_volume *volume, struct graft_snapshot **ret_snapshot,
                                      struct graft_error *err)
{
    struct graft_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a snapshot");
    snapshot->volume = volume;
    mutex_init(&snapshot->lock, RANK_LEAF);
    *ret_snapshot = snapshot;
    return GRAFT_OK;
}

void graft_snapshot_release(struct graft_snapshot *snapshot)
{
    if (!snapshot || client_is_forked(snapshot->volume->client))
        return;
    fetch_job_free(snapshot->prefetch);
    remote_view_free(snapshot->view);
    store_pin_release(snapshot->pin);
    mutex_release(&snapshot->lock);
    free(snapshot);
}

enum graft_status graft_snapshot_open(struct graft_volume *volume, struct graft_snapshot **ret_snapshot,
                                      struct graft_error *err)
{
    struct graft_snapshot *snapshot = NULL;

    REQUIRE(volume);
    REQUIRE(ret_snapshot);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status == GRAFT_OK)
        status = snapshot_new(volume, &snapshot, err);
    if (status != GRAFT_OK)
        return status;
    uint64_t before = volume_history(volume);
    status = store_pin_open(volume->store, &snapshot->pin, err);
    if (status != GRAFT_OK) {
        graft_snapshot_release(snapshot);
        return status;
    }
    bool settled = before % 2 == 0 && before == volume_history(volume);
    snapshot->history = settled ? before : volume_history_unknown();
    *ret_snapshot = snapshot;
    return GRAFT_OK;
}

enum graft_status graft_snapshot_open_remote(struct graft_volume *volume, uint64_t remote_lsn,
                                             struct graft_snapshot **ret_snapshot, struct graft_error *err)
{
    struct graft_snapshot *snapshot = NULL;
    struct snapshot head;

    REQUIRE(volume);
    REQUIRE(ret_snapshot);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    if (remote_lsn == 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the servers' commits are numbered from 1");
    const struct gid *vid = &volume->source.vid;
    status = remote_live_snapshot(&volume->client->remote, vid, remote_lsn, &head, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "opening LSN %llu of volume %s", (unsigned long long)remote_lsn,
                             gid_format(vid).text);
    if (head.page_size != volume->source.page_size || head.variable != volume->source.variable)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                         "volume %s has another page size or kind on the servers than here",
                         gid_format(vid).text);
    status = snapshot_new(volume, &snapshot, err);
    if (status != GRAFT_OK)
        return status;
    snapshot->history = volume_history_unknown();
    status = remote_view_new(volume->client->fetcher, &head, &snapshot->view, err);
    if (status != GRAFT_OK) {
        graft_snapshot_release(snapshot);
        return status;
    }
    *ret_snapshot = snapshot;
    return GRAFT_OK;
}

uint32_t graft_snapshot_page_count(const struct graft_snapshot *snapshot)
{
    if (!snapshot)
        return 0;
    return snapshot->pin ? store_pin_page_count(snapshot->pin) : remote_view_head(snapshot->view)->page_count;
}

uint64_t graft_snapshot_local_lsn(const struct graft_snapshot *snapshot)
{
    return snapshot && snapshot->pin ? store_pin_lsn(snapshot->pin) : 0;
}

uint64_t graft_snapshot_remote_lsn(const struct graft_snapshot *snapshot)
{
    if (!snapshot)
        return 0;
    return snapshot->pin ? store_pin_remote(snapshot->pin)->lsn : remote_view_head(snapshot->view)->lsn;
}

uint64_t graft_snapshot_history(const struct graft_snapshot *snapshot)
{
    return snapshot ? snapshot->history : 0;
}

enum graft_status snapshot_read_pin(struct graft_volume *volume, struct store_pin *pin, uint32_t pageidx,
                                    void *to, size_t to_size, size_t *ret_size, struct graft_error *err)
{
    for (unsigned round = 0; round < READ_ROUNDS_MAX; round++) {
        struct store_page page;
        enum graft_status status = store_read(pin, pageidx, to, to_size, &page, err);
        if (status != GRAFT_OK)
            return error_context(err, status, "reading page %u of volume %s", pageidx,
                                 gid_format(&volume->source.vid).text);
        if (page.state != STORE_PAGE_PENDING) {
            *ret_size = page.state == STORE_PAGE_AVAILABLE
                            ? page.size
                            : volume_fill_empty(volume, pageidx, store_pin_page_count(pin), to);
            return GRAFT_OK;
        }
        status = volume_fetch(volume, pin, &page, err);
        if (status != GRAFT_OK)
            return status;
    }
    return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NONE,
                     "page %u of volume %s was fetched %u times and is not here", pageidx,
                     gid_format(&volume->source.vid).text, READ_ROUNDS_MAX);
}

enum graft_status graft_snapshot_read(struct graft_snapshot *snapshot, uint32_t pageidx, void *to,
                                      size_t to_size, size_t *ret_size, struct graft_error *err)
{
    size_t size = 0;
    bool written;

    REQUIRE(snapshot);
    REQUIRE(to);
    REQUIRE(ret_size);
    struct graft_volume *volume = snapshot->volume;
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status == GRAFT_OK)
        status = volume_check_page(volume, pageidx, to_size, err);
    if (status != GRAFT_OK)
        return status;
    if (snapshot->pin)
        return snapshot_read_pin(volume, snapshot->pin, pageidx, to, to_size, ret_size, err);
    uint32_t page_count = graft_snapshot_page_count(snapshot);
    if (pageidx <= page_count) {
        status = remote_view_read(snapshot->view, pageidx, to, &size, &written, err);
        if (status != GRAFT_OK)
            return status;
        if (!written)
            size = volume_fill_empty(volume, pageidx, page_count, to);
    }
    *ret_size = size;
    return GRAFT_OK;
}

// ---- reading many at once -----------------------------------------------------------------------

#define READ_CHUNK_PAGES 256u

static enum graft_status fetch_pending(struct graft_volume *volume, struct store_pin *pin,
                                       const struct store_read *here, size_t count, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    _cleanup_(fetch_job_free_p) struct fetch_job *job = NULL;

    for (size_t i = 0; i < count; i++) {
        if (here[i].page.state == STORE_PAGE_PENDING)
            pageset_add(pages, here[i].pageidx);
    }
    if (pageset_count(pages) < 2) // one is asked for by its reader
        return GRAFT_OK;
    enum graft_status status = fetch_job_new(volume->client->fetcher, &volume->source, pin, &job, err);
    if (status != GRAFT_OK)
        return status;
    fetch_job_add(job, pages);
    status = fetch_job_wait(job, err);
    return status == GRAFT_OK ? GRAFT_OK
                              : error_context(err, status, "fetching pages of volume %s",
                                              gid_format(&volume->source.vid).text);
}

static enum graft_status read_chunk(struct graft_volume *volume, struct store_pin *pin,
                                    struct graft_page_read *reads, size_t count, struct graft_error *err)
{
    struct store_read here[READ_CHUNK_PAGES];

    for (size_t i = 0; i < count; i++)
        here[i] = (struct store_read){.pageidx = reads[i].pageidx, .to = reads[i].to};
    enum graft_status status = store_read_many(pin, here, count, err);
    if (status == GRAFT_OK)
        status = fetch_pending(volume, pin, here, count, err);
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        const struct store_page *page = &here[i].page;
        if (page->state == STORE_PAGE_AVAILABLE)
            reads[i].size = page->size;
        else if (page->state == STORE_PAGE_EMPTY)
            reads[i].size = volume_fill_empty(volume, page->pageidx, store_pin_page_count(pin), reads[i].to);
        else
            status = snapshot_read_pin(volume, pin, reads[i].pageidx, reads[i].to, volume->source.page_size,
                                       &reads[i].size, err);
    }
    return status;
}

static enum graft_status prefetch_job(struct graft_snapshot *snapshot, struct fetch_job **ret_job,
                                      struct graft_error *err)
{
    struct graft_volume *volume = snapshot->volume;

    LOCK_GUARD(&snapshot->lock);
    if (!snapshot->prefetch) {
        struct fetch_source *source = snapshot->pin ? &volume->source : remote_view_source(snapshot->view);
        enum graft_status status =
            fetch_job_new(volume->client->fetcher, source, snapshot->pin, &snapshot->prefetch, err);
        if (status != GRAFT_OK)
            return status;
    }
    *ret_job = snapshot->prefetch;
    return GRAFT_OK;
}

// Of a remote snapshot: asks for them together; those that do not fit are asked for one by one.
static void read_ahead(struct graft_snapshot *snapshot, const struct graft_page_read *reads, size_t count)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    struct fetch_job *job;

    for (size_t i = 0; i < MIN(count, remote_view_ahead_pages(snapshot->view)); i++) {
        if (reads[i].pageidx <= graft_snapshot_page_count(snapshot))
            pageset_add(pages, reads[i].pageidx);
    }
    if (pageset_count(pages) > 1 && prefetch_job(snapshot, &job, NULL) == GRAFT_OK)
        fetch_job_add(job, pages);
}

enum graft_status graft_snapshot_read_many(struct graft_snapshot *snapshot, struct graft_page_read *reads,
                                           size_t count, struct graft_error *err)
{
    REQUIRE(snapshot);
    if (count > 0)
        REQUIRE(reads);
    struct graft_volume *volume = snapshot->volume;
    uint32_t page_size = volume->source.page_size;
    enum graft_status status = store_check_fork(volume->client->store, err);
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        REQUIRE(reads[i].to);
        status = volume_check_page(volume, reads[i].pageidx, page_size, err);
    }
    // No more at once than a small cache keeps until it was read.
    size_t chunk = MIN(FETCH_BATCH_SIZE / page_size, READ_CHUNK_PAGES);
    for (size_t i = 0; i < count && status == GRAFT_OK; i += chunk) {
        size_t end = MIN(i + chunk, count);
        if (snapshot->pin) {
            status = read_chunk(volume, snapshot->pin, reads + i, end - i, err);
            continue;
        }
        read_ahead(snapshot, reads + i, end - i);
        for (size_t j = i; j < end && status == GRAFT_OK; j++)
            status =
                graft_snapshot_read(snapshot, reads[j].pageidx, reads[j].to, page_size, &reads[j].size, err);
    }
    return status;
}

// ---- many pages ---------------------------------------------------------------------------------

// The pages of the ranges that the snapshot has, at most `pages_max`.
static enum graft_status ranges_take(const struct graft_snapshot *snapshot,
                                     const struct graft_page_range *ranges, size_t range_count,
                                     uint64_t pages_max, struct pageset **ret_pages, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    uint32_t page_count = graft_snapshot_page_count(snapshot);

    for (size_t i = 0; i < range_count; i++) {
        if (ranges[i].first == 0)
            return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                             "range %zu begins with page 0; pages are numbered from 1", i);
        uint64_t end = MIN((uint64_t)ranges[i].first + ranges[i].count, (uint64_t)page_count + 1);
        uint64_t left = pages_max - MIN(pageset_count(pages), pages_max);
        if (end <= ranges[i].first || left == 0)
            continue;
        pageset_add_run(pages, ranges[i].first, (uint32_t)MIN(end - ranges[i].first, left));
    }
    *ret_pages = TAKE(pages);
    return GRAFT_OK;
}

enum graft_status graft_prefetch(struct graft_snapshot *snapshot, const struct graft_page_range *ranges,
                                 size_t range_count, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = NULL;
    struct fetch_job *job;

    REQUIRE(snapshot);
    if (range_count > 0)
        REQUIRE(ranges);
    enum graft_status status = store_check_fork(snapshot->volume->client->store, err);
    uint64_t pages_max = snapshot->pin ? UINT64_MAX : remote_view_ahead_pages(snapshot->view);
    if (status == GRAFT_OK)
        status = ranges_take(snapshot, ranges, range_count, pages_max, &pages, err);
    if (status == GRAFT_OK)
        status = prefetch_job(snapshot, &job, err);
    if (status != GRAFT_OK)
        return status;
    fetch_job_add(job, pages);
    return GRAFT_OK;
}

enum graft_status graft_hydrate(struct graft_snapshot *snapshot, const struct graft_page_range *ranges,
                                size_t range_count, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = NULL;
    _cleanup_(fetch_job_free_p) struct fetch_job *job = NULL;

    REQUIRE(snapshot);
    if (range_count > 0)
        REQUIRE(ranges);
    struct graft_volume *volume = snapshot->volume;
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    if (!snapshot->pin)
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "the pages of a snapshot of the servers are not kept: read them, or clone the volume");
    status = ranges_take(snapshot, ranges, range_count, UINT64_MAX, &pages, err);
    if (status == GRAFT_OK)
        status = fetch_job_new(volume->client->fetcher, &volume->source, snapshot->pin, &job, err);
    if (status != GRAFT_OK)
        return status;
    fetch_job_add(job, pages);
    status = fetch_job_wait(job, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "fetching pages of volume %s",
                             gid_format(&volume->source.vid).text);
    return GRAFT_OK;
}

#define PENDING_CHUNK 1024u

// Adds a page; false if it would be a range more than there may be.
static bool add_pending(struct graft_page_range *ranges, size_t range_max, size_t *count, uint32_t pageidx)
{
    if (*count > 0 && ranges[*count - 1].first + ranges[*count - 1].count == pageidx) {
        ranges[*count - 1].count++;
        return true;
    }
    if (*count == range_max)
        return false;
    ranges[(*count)++] = (struct graft_page_range){.first = pageidx, .count = 1};
    return true;
}

enum graft_status graft_snapshot_pending(struct graft_snapshot *snapshot, uint32_t *next,
                                         struct graft_page_range *ranges, size_t range_max, size_t *ret_count,
                                         struct graft_error *err)
{
    struct store_page pages[PENDING_CHUNK];
    size_t page_count = 0;

    REQUIRE(snapshot);
    REQUIRE(next);
    REQUIRE(ranges);
    REQUIRE(ret_count);
    if (!snapshot->pin || *next == 0 || range_max == 0)
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "graft_snapshot_pending: a local snapshot, pages from 1 on and room for ranges are needed");
    *ret_count = 0;
    uint32_t end = graft_snapshot_page_count(snapshot);
    if (*next > end) {
        *next = 0;
        return GRAFT_OK;
    }
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    pageset_add_run(all, *next, end - *next + 1);
    enum graft_status status =
        store_missing(snapshot->pin, all, next, pages, PENDING_CHUNK, &page_count, err);
    if (status != GRAFT_OK)
        return status;
    for (size_t i = 0; i < page_count; i++) {
        if (!add_pending(ranges, range_max, ret_count, pages[i].pageidx)) {
            *next = pages[i].pageidx;
            break;
        }
    }
    return GRAFT_OK;
}
