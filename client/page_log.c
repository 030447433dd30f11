// SPDX-License-Identifier: Apache-2.0
//
// Appending. Whoever comes first leads: it takes what waits, lays it out behind the tail, writes it and syncs once if one of
// them wants it; what comes meanwhile waits for the next leader. The tail on the way is the leader's own (struct pass), and
// becomes the log's when all is done.
#include "client/page_log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/mutex.h"

// What one leader takes at once.
#define PASS_REQUESTS_MAX 64u
#define PASS_SIZE (4 * MIB)
// Headers and vectors of one write.
#define HEADERS_SIZE (4 * RUN_HEADER_SIZE_MAX)
#define VECTORS_MAX (2 * RUN_PAGES_MAX + 3)

// Where the next run goes.
struct tail {
    uint64_t seq;   // of the last good run
    uint64_t chain; // of it
    uint64_t at;    // the claim being filled
    uint32_t end;   // in its extent
};

// A claimed extent. Claims are counted from the first of the epoch: the one at `claims[i]` is claim `dropped + i`.
struct claim {
    uint32_t extent;
    uint64_t first_seq; // 0: nothing was written to it
    uint64_t chain;     // before that
};

// Runs of which the index was not told yet.
struct outstanding {
    uint64_t first_seq;
    bool done;
};

struct request {
    TAILQ_ENTRY(request) entry;
    struct page_log_append *appends;
    unsigned count;
    bool sync;
    uint64_t size;
    bool done;
    enum graft_status status;
    struct graft_error err;
    struct cond changed;
    struct tail before; // the leader's: where its first run went
};
TAILQ_HEAD(requests, request);

// The leader's: where it stands, and what it has laid out and not written yet.
struct pass {
    struct tail tail;
    uint64_t synced;
    bool
        stale; // runs that failed lie behind the tail, up to this claim, and nothing is written before they are gone
    uint64_t stale_at;
    struct request *first_unwritten; // whose runs they are
    uint64_t place;
    struct iovec vectors[VECTORS_MAX];
    unsigned vector_count;
    uint8_t headers[HEADERS_SIZE];
    size_t headers_size;
    struct run_entry entries[RUN_PAGES_MAX];
};

struct page_log {
    struct page_log_settings settings;
    struct pass *pass; // the leader's

    struct mutex lock; // everything below
    struct requests waiting;
    size_t waiting_appends;
    bool leading;
    struct tail tail;
    uint64_t synced;
    struct claim *claims;
    uint32_t claim_count, claim_capacity;
    uint64_t dropped;
    bool claiming;
    struct cond claimed;
    struct outstanding *outstanding; // ascending
    size_t outstanding_count, outstanding_capacity;
    bool failed;
    struct graft_error failure;
};

static const uint8_t zeros[RUN_ALIGNMENT];

enum graft_status page_log_new(const struct page_log_settings *settings, struct page_log **ret_log,
                               struct graft_error *err)
{
    struct page_log *log = calloc(1, sizeof *log);
    struct pass *pass = calloc(1, sizeof *pass);
    if (!log || !pass) {
        free(log);
        free(pass);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the page log");
    }
    log->settings = *settings;
    log->pass = pass;
    mutex_init(&log->lock, RANK_PAGE_LOG);
    cond_init(&log->claimed);
    TAILQ_INIT(&log->waiting);
    *ret_log = log;
    return GRAFT_OK;
}

void page_log_free(struct page_log *log)
{
    if (!log)
        return;
    CHECK(TAILQ_EMPTY(&log->waiting) && !log->leading && !log->claiming);
    cond_release(&log->claimed);
    mutex_release(&log->lock);
    free(log->claims);
    free(log->outstanding);
    free(log->pass);
    free(log);
}

static enum graft_status check_usable_locked(const struct page_log *log, struct graft_error *err)
{
    mutex_assert_held(&log->lock);
    return log->failed ? error_copy(err, &log->failure) : GRAFT_OK;
}

// The first failure is the one that every later call gives.
static enum graft_status fail(struct page_log *log, enum graft_status status, const struct graft_error *err)
{
    LOCK_GUARD(&log->lock);
    if (!log->failed) {
        log->failed = true;
        log->failure = *err;
    }
    return status;
}

// ---- claims

// All runs below this number were applied.
static uint64_t applied_below_locked(const struct page_log *log)
{
    return log->outstanding_count > 0 ? log->outstanding[0].first_seq : log->tail.seq + 1;
}

// How many claims at the front may go: they are full, and all in them was applied.
static uint32_t droppable_locked(const struct page_log *log)
{
    uint64_t applied_below = applied_below_locked(log);
    uint32_t count = 0;
    while (log->dropped + count < log->tail.at && log->claims[count + 1].first_seq != 0 &&
           log->claims[count + 1].first_seq <= applied_below)
        count++;
    return count;
}

static enum graft_status reserve_claims_locked(struct page_log *log, uint32_t more, struct graft_error *err)
{
    uint32_t needed = log->claim_count + more;
    if (needed <= log->claim_capacity)
        return GRAFT_OK;
    uint32_t capacity = MAX(needed, 2 * log->claim_capacity);
    struct claim *claims = realloc(log->claims, capacity * sizeof *claims);
    if (!claims)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for %u claims", capacity);
    log->claims = claims;
    log->claim_capacity = capacity;
    return GRAFT_OK;
}

// Takes `count` extents, growing the files where there are not so many; fewer, but one, where the disk ends.
static enum graft_status take_extents(struct extents *extents, uint32_t near, uint32_t count, uint32_t *to,
                                      uint32_t *ret_count, struct graft_error *err)
{
    uint32_t taken = 0;
    while (taken < count) {
        uint32_t extent = extents_take(extents, near);
        if (extent != EXTENT_NONE) {
            near = to[taken++] = extent;
            continue;
        }
        enum graft_status status = extents_grow(extents, count - taken, err);
        if (status != GRAFT_OK && taken == 0 && count > 1)
            status = extents_grow(extents, 1, err);
        if (status != GRAFT_OK && taken == 0)
            return status;
        if (status != GRAFT_OK)
            break;
    }
    *ret_count = taken;
    return GRAFT_OK;
}

// The claims without the first `drop` and with these.
static struct page_log_claims *new_claims_locked(const struct page_log *log, uint32_t drop,
                                                 const uint32_t *extents, uint32_t count)
{
    struct page_log_claims *claims = malloc(sizeof *claims);
    if (!claims)
        return NULL;
    bool begun = drop < log->claim_count && log->claims[drop].first_seq != 0;
    claims->epoch = log->settings.epoch;
    claims->seq = begun ? log->claims[drop].first_seq : log->tail.seq + 1;
    claims->chain = begun ? log->claims[drop].chain : log->tail.chain;
    claims->count = log->claim_count - drop + count;
    for (uint32_t i = drop; i < log->claim_count; i++)
        claims->extents[i - drop] = log->claims[i].extent;
    memcpy(claims->extents + log->claim_count - drop, extents, count * sizeof *extents);
    return claims;
}

static void drop_and_add_locked(struct page_log *log, uint32_t drop, const uint32_t *extents, uint32_t count)
{
    for (uint32_t i = 0; i < drop; i++)
        extents_seal(log->settings.extents, log->claims[i].extent);
    memmove(log->claims, log->claims + drop, (log->claim_count - drop) * sizeof *log->claims);
    log->dropped += drop;
    log->claim_count -= drop;
    for (uint32_t i = 0; i < count; i++)
        log->claims[log->claim_count++] = (struct claim){.extent = extents[i]};
}

// Without the lock: claims what lies in `extents`, and lets go of the first `drop`.
static enum graft_status keep(const struct page_log *log, const struct page_log_claims *claims,
                              struct graft_error *err)
{
    enum graft_status status = FAILPOINT_ERROR("log.claims.before", err);
    if (status == GRAFT_OK)
        status = log->settings.keep_claims(log->settings.context, claims, err);
    if (status == GRAFT_OK)
        FAILPOINT("log.claims.kept");
    return status;
}

// One more claim of a few extents. The lock is given up meanwhile; the turn to claim is the caller's.
static enum graft_status claim_more_locked(struct page_log *log, struct graft_error *err)
{
    uint32_t taken[PAGE_LOG_CLAIM_EXTENTS], count = 0, drop = droppable_locked(log);
    if (log->claim_count - drop + PAGE_LOG_CLAIM_EXTENTS > PAGE_LOG_CLAIMS_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "%u MiB of commits wait for the index: no more can be written before",
                         log->claim_count);
    uint32_t near = log->claim_count > 0 ? log->claims[log->claim_count - 1].extent : EXTENT_NONE;
    mutex_unlock(&log->lock);
    enum graft_status status =
        take_extents(log->settings.extents, near, PAGE_LOG_CLAIM_EXTENTS, taken, &count, err);
    mutex_lock(&log->lock);
    if (status != GRAFT_OK)
        return status;

    drop = droppable_locked(log);
    _cleanup_(free_p) struct page_log_claims *claims = new_claims_locked(log, drop, taken, count);
    status = claims ? reserve_claims_locked(log, count, err)
                    : error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a claim");
    if (status == GRAFT_OK) {
        mutex_unlock(&log->lock);
        status = keep(log, claims, err);
        mutex_lock(&log->lock);
    }
    if (status == GRAFT_OK)
        drop_and_add_locked(log, drop, taken, count);
    for (uint32_t i = 0; i < count && status != GRAFT_OK; i++)
        extents_give_back(log->settings.extents, taken[i]);
    return status;
}

// Until there is a claim of this number.
static enum graft_status claim_up_to_locked(struct page_log *log, uint64_t number, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    while (status == GRAFT_OK && log->dropped + log->claim_count <= number) {
        if (log->claiming) {
            cond_wait(&log->claimed, &log->lock);
            continue;
        }
        status = check_usable_locked(log, err);
        if (status != GRAFT_OK)
            break;
        log->claiming = true;
        status = claim_more_locked(log, err);
        log->claiming = false;
        cond_broadcast(&log->claimed);
    }
    return status;
}

enum graft_status page_log_claim_ahead(struct page_log *log, uint32_t extents, struct graft_error *err)
{
    LOCK_GUARD(&log->lock);
    enum graft_status status = check_usable_locked(log, err);
    return status == GRAFT_OK && extents > 0 ? claim_up_to_locked(log, log->tail.at + extents, err) : status;
}

static struct claim *claim_locked(struct page_log *log, uint64_t number)
{
    mutex_assert_held(&log->lock);
    CHECK(number >= log->dropped && number - log->dropped < log->claim_count);
    return &log->claims[number - log->dropped];
}

static uint32_t extent_of_claim(struct page_log *log, uint64_t number)
{
    LOCK_GUARD(&log->lock);
    return claim_locked(log, number)->extent;
}

// The extent of the tail, which the next run begins where it is empty. That this may come to nothing is no matter: the next run
// is as the log's own tail says until then.
static uint32_t extent_to_fill(struct page_log *log, const struct tail *tail)
{
    LOCK_GUARD(&log->lock);
    struct claim *claim = claim_locked(log, tail->at);
    if (tail->end == 0) {
        claim->first_seq = tail->seq + 1;
        claim->chain = tail->chain;
    }
    return claim->extent;
}

static void forget_begun(struct page_log *log, const struct tail *tail)
{
    LOCK_GUARD(&log->lock);
    for (uint32_t i = 0; i < log->claim_count; i++)
        if (log->claims[i].first_seq > tail->seq)
            log->claims[i].first_seq = 0;
}

// ---- laying out

static uint32_t size_of_page(const void *context, uint32_t index)
{
    return ((const struct page_log_page *)context)[index].entry.size;
}

// How many of the append's pages from `first` on the next run takes, and its size. Moves the tail to the next extent where
// this one has no room even for one.
static uint32_t next_run(struct tail *tail, const struct page_log_append *append, uint32_t first,
                         uint32_t *ret_size)
{
    uint32_t left = append->page_count - first;
    for (;;) {
        uint32_t room = EXTENT_SIZE - tail->end;
        *ret_size = RUN_ALIGNMENT; // of a run without pages
        uint32_t count = left > 0 ? run_fit(size_of_page, append->pages + first, left, room, ret_size) : 0;
        if (count > 0 || (left == 0 && room >= RUN_ALIGNMENT))
            return count;
        CHECK(tail->end > 0); // the largest page fits into an empty extent
        tail->at++;
        tail->end = 0;
    }
}

// The claim that the request's last run will be in.
static uint64_t last_claim_of(const struct request *request, const struct tail *from)
{
    struct tail tail = *from;
    for (unsigned i = 0; i < request->count; i++) {
        uint32_t done = 0, size;
        do {
            done += next_run(&tail, &request->appends[i], done, &size);
            tail.end += size;
        } while (done < request->appends[i].page_count);
    }
    return tail.at;
}

static void add_vector(struct pass *pass, const void *data, size_t size)
{
    if (size == 0)
        return;
    CHECK(pass->vector_count < VECTORS_MAX);
    pass->vectors[pass->vector_count++] = (struct iovec){(void *)data, size};
}

// Writes what was laid out.
static enum graft_status write_out(struct page_log *log, struct pass *pass, struct graft_error *err)
{
    if (pass->vector_count == 0)
        return GRAFT_OK;
    enum graft_status status = FAILPOINT_ERROR("log.write.before", err);
    if (status == GRAFT_OK)
        status = extents_write(log->settings.extents, pass->place, pass->vectors, pass->vector_count, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("log.write.after", err);
    pass->vector_count = 0;
    pass->headers_size = 0;
    return status;
}

static struct run_header header_of_run(const struct page_log *log, const struct pass *pass,
                                       const struct request *request, const struct page_log_append *append,
                                       uint32_t first, uint32_t count)
{
    struct run_header header = append->header;
    header.first = append == request->appends && append->parts == 0;
    header.store = log->settings.store;
    header.epoch = log->settings.epoch;
    header.seq = pass->tail.seq + 1;
    header.synced = pass->synced;
    header.chain_before = pass->tail.chain;
    header.count = count;
    header.part = append->header.part + append->parts;
    header.complete = append->header.complete && first + count == append->page_count;
    header.cut = append->parts == 0 ? append->header.cut : UINT32_MAX;
    return header;
}

// Lays one run out at the tail, whose extent has room for it.
static void lay_run(struct page_log *log, struct pass *pass, const struct request *request,
                    struct page_log_append *append, uint32_t first, uint32_t count, uint32_t extent)
{
    struct run_header header = header_of_run(log, pass, request, append, first, count);
    uint64_t place = place_make(extent, pass->tail.end);
    uint8_t *bytes = pass->headers + pass->headers_size;
    for (uint32_t i = 0; i < count; i++)
        pass->entries[i] = append->pages[first + i].entry;
    run_encode(&header, pass->entries, bytes);

    uint32_t end = run_header_size(count);
    add_vector(pass, bytes, end);
    pass->headers_size += end;
    for (uint32_t i = 0; i < count; i++) {
        struct page_log_page *page = &append->pages[first + i];
        uint32_t offset = run_page_offset(end, page->entry.size);
        add_vector(pass, zeros, offset - end);
        add_vector(pass, page->data, page->entry.size);
        page->place = place + offset;
        end = offset + page->entry.size;
    }
    add_vector(pass, zeros, header.size - end);

    append->first_seq = append->parts == 0 ? header.seq : append->first_seq;
    append->last_seq = header.seq;
    append->last_place = place;
    append->parts++;
    pass->tail.seq = header.seq;
    pass->tail.chain = header.chain;
    pass->tail.end += header.size;
}

static enum graft_status lay_append(struct page_log *log, struct pass *pass, struct request *request,
                                    struct page_log_append *append, struct graft_error *err)
{
    uint32_t done = 0;
    append->parts = 0;
    do {
        uint32_t size, end_before = pass->tail.end;
        uint64_t at_before = pass->tail.at;
        uint32_t count = next_run(&pass->tail, append, done, &size);
        bool behind = at_before == pass->tail.at && end_before == pass->tail.end;
        if (!behind || pass->vector_count + 2 * count + 2 > VECTORS_MAX ||
            pass->headers_size + run_header_size(count) > HEADERS_SIZE) {
            enum graft_status status = write_out(log, pass, err);
            if (status != GRAFT_OK)
                return status;
        }
        uint32_t extent = extent_to_fill(log, &pass->tail);
        if (pass->vector_count == 0) {
            pass->place = place_make(extent, pass->tail.end);
            pass->first_unwritten = request;
        }
        lay_run(log, pass, request, append, done, count, extent);
        done += count;
    } while (done < append->page_count);
    return GRAFT_OK;
}

static enum graft_status lay_request(struct page_log *log, struct pass *pass, struct request *request,
                                     struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    for (unsigned i = 0; i < request->count && status == GRAFT_OK; i++)
        status = lay_append(log, pass, request, &request->appends[i], err);
    return status;
}

// ---- what failed to be written

// The header of a run of this log at the place, if there is one; *ret_size is 0 if not.
static enum graft_status run_size_at(struct page_log *log, uint8_t *buffer, uint64_t place,
                                     uint64_t above_seq, uint32_t *ret_size, struct graft_error *err)
{
    uint32_t room = EXTENT_SIZE - place_offset(place), needed = RUN_FIXED_SIZE, have = 0;
    struct run_header header;
    *ret_size = 0;
    while (needed > have) {
        have = needed;
        enum graft_status status = extents_read(log->settings.extents, place, buffer, have, err);
        if (status != GRAFT_OK)
            return status;
        if (run_decode((struct bytes){buffer, have}, log->settings.store, room, &header, &needed)) {
            if (header.epoch == log->settings.epoch && header.seq > above_seq)
                *ret_size = header.size;
            return GRAFT_OK;
        }
    }
    return GRAFT_OK;
}

// Overwrites the headers of what was written behind `from`, in the claims up to `last`: invariant 4.
static enum graft_status take_back(struct page_log *log, struct pass *pass, const struct tail *from,
                                   uint64_t last, struct graft_error *err)
{
    uint32_t end = from->end;
    bool any = false;
    for (uint64_t at = from->at; at <= last; at++, end = 0) {
        uint32_t extent = extent_of_claim(log, at);
        while (end < EXTENT_SIZE) {
            uint32_t size;
            uint64_t place = place_make(extent, end);
            enum graft_status status = run_size_at(log, pass->headers, place, from->seq, &size, err);
            if (status == GRAFT_OK && size == 0)
                break;
            struct iovec sector = {(void *)zeros, RUN_SECTOR_SIZE};
            if (status == GRAFT_OK)
                status = extents_write(log->settings.extents, place, &sector, 1, err);
            if (status != GRAFT_OK)
                return status;
            any = true;
            end += size;
        }
    }
    if (!any)
        return GRAFT_OK;
    FAILPOINT("log.taken_back");
    return extents_sync(log->settings.extents, err);
}

// A file system that copies what it overwrites may be full for this, too: then nothing is written until it is not.
static enum graft_status take_stale_back(struct page_log *log, struct pass *pass, struct graft_error *err)
{
    if (!pass->stale)
        return GRAFT_OK;
    struct graft_error failure;
    enum graft_status status = take_back(log, pass, &pass->tail, pass->stale_at, &failure);
    pass->stale = status != GRAFT_OK;
    if (status == GRAFT_OK)
        return GRAFT_OK;
    error_context(&failure, status, "taking a failed commit back");
    if (failure.detail != GRAFT_DETAIL_NO_SPACE)
        fail(log, status, &failure);
    return error_copy(err, &failure);
}

static void set_result(struct request *request, enum graft_status status, const struct graft_error *err)
{
    request->status = status;
    if (status != GRAFT_OK)
        request->err = *err;
}

// A write failed: nothing of the requests from `first` to `last` is there.
static void give_up(struct page_log *log, struct pass *pass, struct request *first, struct request *last,
                    enum graft_status status, const struct graft_error *err)
{
    pass->stale = true;
    pass->stale_at = pass->tail.at;
    pass->tail = first->before;
    pass->vector_count = 0;
    pass->headers_size = 0;
    take_stale_back(log, pass, NULL);
    forget_begun(log, &pass->tail);
    for (struct request *request = first;; request = TAILQ_NEXT(request, entry)) {
        if (request->status == GRAFT_OK)
            set_result(request, status, err);
        if (request == last)
            break;
    }
}

// ---- leading

static enum graft_status make_room(struct page_log *log, const struct request *request,
                                   const struct tail *tail, struct graft_error *err)
{
    uint64_t last = last_claim_of(request, tail);
    LOCK_GUARD(&log->lock);
    enum graft_status status = check_usable_locked(log, err);
    return status == GRAFT_OK ? claim_up_to_locked(log, last, err) : status;
}

static void write_requests(struct page_log *log, struct pass *pass, struct requests *batch)
{
    struct graft_error err;
    enum graft_status status;
    struct request *request;
    TAILQ_FOREACH (request, batch, entry) {
        request->before = pass->tail;
        status = take_stale_back(log, pass, &err);
        if (status == GRAFT_OK)
            status = make_room(log, request, &pass->tail, &err);
        if (status != GRAFT_OK) {
            set_result(request, status, &err);
            continue;
        }
        status = lay_request(log, pass, request, &err);
        if (status != GRAFT_OK)
            give_up(log, pass, pass->first_unwritten, request, status, &err);
    }
    status = write_out(log, pass, &err);
    if (status != GRAFT_OK)
        give_up(log, pass, pass->first_unwritten, TAILQ_LAST(batch, requests), status, &err);
}

static bool wants_sync(const struct requests *batch)
{
    const struct request *request;
    TAILQ_FOREACH (request, batch, entry) {
        if (request->sync && request->status == GRAFT_OK)
            return true;
    }
    return false;
}

static enum graft_status sync_extents(struct page_log *log, struct graft_error *err)
{
    enum graft_status status = FAILPOINT_ERROR("log.sync.before", err);
    if (status == GRAFT_OK)
        status = extents_sync(log->settings.extents, err);
    if (status != GRAFT_OK)
        return fail(log, status, err);
    FAILPOINT("log.synced");
    return status;
}

static void sync_requests(struct page_log *log, struct requests *batch)
{
    struct graft_error err;
    enum graft_status status = sync_extents(log, &err);
    struct request *request;
    TAILQ_FOREACH (request, batch, entry) {
        if (request->status == GRAFT_OK && status != GRAFT_OK)
            set_result(request, status, &err);
    }
    LOCK_GUARD(&log->lock);
    if (status == GRAFT_OK)
        log->synced = log->pass->tail.seq;
}

static void take_batch_locked(struct page_log *log, struct requests *batch)
{
    uint64_t size = 0;
    for (unsigned count = 0; count < PASS_REQUESTS_MAX && size < PASS_SIZE && !TAILQ_EMPTY(&log->waiting);
         count++) {
        struct request *request = TAILQ_FIRST(&log->waiting);
        TAILQ_REMOVE(&log->waiting, request, entry);
        TAILQ_INSERT_TAIL(batch, request, entry);
        size += request->size;
    }
}

static void finish_locked(struct page_log *log, struct requests *batch)
{
    log->tail = log->pass->tail;
    while (!TAILQ_EMPTY(batch)) {
        struct request *request = TAILQ_FIRST(batch);
        TAILQ_REMOVE(batch, request, entry);
        log->waiting_appends -= request->count;
        for (unsigned i = 0; i < request->count && request->status == GRAFT_OK; i++) {
            CHECK(log->outstanding_count < log->outstanding_capacity);
            log->outstanding[log->outstanding_count++] =
                (struct outstanding){.first_seq = request->appends[i].first_seq};
        }
        request->done = true;
        cond_signal(&request->changed); // it is gone once its owner has the lock
    }
}

static void lead_locked(struct page_log *log)
{
    struct requests batch = TAILQ_HEAD_INITIALIZER(batch);
    struct pass *pass = log->pass;
    log->leading = true;
    take_batch_locked(log, &batch);
    pass->tail = log->tail;
    pass->synced = log->synced;
    mutex_unlock(&log->lock);

    write_requests(log, pass, &batch);
    if (wants_sync(&batch))
        sync_requests(log, &batch);

    mutex_lock(&log->lock);
    finish_locked(log, &batch);
    log->leading = false;
    if (!TAILQ_EMPTY(&log->waiting))
        cond_signal(&TAILQ_FIRST(&log->waiting)->changed);
}

// So that what was written can be noted, whatever comes.
static enum graft_status reserve_outstanding_locked(struct page_log *log, unsigned more,
                                                    struct graft_error *err)
{
    size_t needed = log->outstanding_count + log->waiting_appends + more;
    if (needed <= log->outstanding_capacity)
        return GRAFT_OK;
    size_t capacity = MAX(needed, 2 * log->outstanding_capacity);
    struct outstanding *outstanding = realloc(log->outstanding, capacity * sizeof *outstanding);
    if (!outstanding)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for %zu commits", capacity);
    log->outstanding = outstanding;
    log->outstanding_capacity = capacity;
    return GRAFT_OK;
}

static uint64_t size_of_appends(const struct page_log_append *appends, unsigned count)
{
    uint64_t size = 0;
    for (unsigned i = 0; i < count; i++)
        for (uint32_t at = 0; at < appends[i].page_count; at++)
            size += appends[i].pages[at].entry.size;
    return size;
}

enum graft_status page_log_append(struct page_log *log, struct page_log_append *appends, unsigned count,
                                  bool sync, struct graft_error *err)
{
    CHECK(count > 0);
    struct request request = {
        .appends = appends, .count = count, .sync = sync, .size = size_of_appends(appends, count)};
    mutex_lock(&log->lock);
    enum graft_status status = check_usable_locked(log, err);
    if (status == GRAFT_OK)
        status = reserve_outstanding_locked(log, count, err);
    if (status != GRAFT_OK) {
        mutex_unlock(&log->lock);
        return status;
    }
    cond_init(&request.changed);
    log->waiting_appends += count;
    TAILQ_INSERT_TAIL(&log->waiting, &request, entry);
    while (!request.done && (log->leading || TAILQ_FIRST(&log->waiting) != &request))
        cond_wait(&request.changed, &log->lock);
    if (!request.done)
        lead_locked(log);
    mutex_unlock(&log->lock);
    cond_release(&request.changed);
    return request.status == GRAFT_OK ? GRAFT_OK : error_copy(err, &request.err);
}

enum graft_status page_log_sync(struct page_log *log, struct graft_error *err)
{
    mutex_lock(&log->lock);
    enum graft_status status = check_usable_locked(log, err);
    uint64_t upto = log->tail.seq;
    bool nothing = log->synced >= upto;
    mutex_unlock(&log->lock);
    if (status != GRAFT_OK || nothing)
        return status;
    struct graft_error failure;
    status = sync_extents(log, &failure);
    if (status != GRAFT_OK)
        return error_copy(err, &failure);
    LOCK_GUARD(&log->lock);
    log->synced = MAX(log->synced, upto);
    return GRAFT_OK;
}

// ---- afterwards

void page_log_applied(struct page_log *log, const struct page_log_append *append)
{
    LOCK_GUARD(&log->lock);
    size_t low = 0, high = log->outstanding_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->outstanding[middle].first_seq < append->first_seq)
            low = middle + 1;
        else
            high = middle;
    }
    CHECK(low < log->outstanding_count && log->outstanding[low].first_seq == append->first_seq);
    CHECK(!log->outstanding[low].done);
    log->outstanding[low].done = true;
    size_t done = 0;
    while (done < log->outstanding_count && log->outstanding[done].done)
        done++;
    log->outstanding_count -= done;
    memmove(log->outstanding, log->outstanding + done, log->outstanding_count * sizeof *log->outstanding);
}

static enum graft_status write_void(struct page_log *log, const struct page_log_append *append,
                                    uint8_t *buffer, struct graft_error *err)
{
    struct extents *extents = log->settings.extents;
    uint64_t place = append->last_place;
    enum graft_status status = extents_read(extents, place, buffer, RUN_FIXED_SIZE, err);
    struct run_header header;
    uint32_t needed = 0;
    if (status == GRAFT_OK)
        run_decode((struct bytes){buffer, RUN_FIXED_SIZE}, log->settings.store, EXTENT_SIZE, &header,
                   &needed);
    if (status == GRAFT_OK && needed > 0)
        status = extents_read(extents, place, buffer, needed, err);
    if (status != GRAFT_OK)
        return status;
    if (!run_decode((struct bytes){buffer, MAX(needed, RUN_FIXED_SIZE)}, log->settings.store, EXTENT_SIZE,
                    &header, NULL) ||
        header.epoch != log->settings.epoch || header.seq != append->last_seq)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the commit that is to be taken back is not where it was written");
    run_make_void(buffer, header.count);
    struct iovec sector = {buffer, MIN(run_header_size(header.count), RUN_SECTOR_SIZE)};
    status = FAILPOINT_ERROR("log.void.before", err);
    if (status == GRAFT_OK)
        status = extents_write(extents, place, &sector, 1, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("log.void.written", err);
    return status == GRAFT_OK ? extents_sync(extents, err) : status;
}

enum graft_status page_log_void(struct page_log *log, const struct page_log_append *append,
                                struct graft_error *err)
{
    mutex_lock(&log->lock);
    enum graft_status status = check_usable_locked(log, err);
    mutex_unlock(&log->lock);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(free_p) uint8_t *buffer = malloc(RUN_HEADER_SIZE_MAX);
    struct graft_error failure;
    status = buffer ? write_void(log, append, buffer, &failure)
                    : error_set(&failure, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                                "no memory to take a commit back");
    if (status != GRAFT_OK) {
        fail(log, status, &failure);
        return error_copy(err, &failure);
    }
    page_log_applied(log, append);
    return GRAFT_OK;
}
