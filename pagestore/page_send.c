// SPDX-License-Identifier: Apache-2.0
//
// The source of a read_pages stream: frame by frame, each page's bytes copied once, from the cached block to the socket's
// buffer. It runs on an HTTP thread and never blocks: where a block is still being loaded it gives way, and is woken.
//
// Two windows of blocks are held: the one that is being sent, and the next one, being loaded meanwhile. Readers share
// HELD_SIZE_MAX, but each has at least a block to send and one to load: 128 readers that all stand still hold 128 MiB at
// most, a small segment of 1 MiB each or two blocks of a large one.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "pagestore/page_read_internal.h"

#define HELD_SIZE_MAX (64u * 1024 * 1024)

enum step {
    STEP_FRAME, // a frame is ready to be copied, perhaps an empty one
    STEP_WAIT,
    STEP_AGAIN, // something changed: look again
};

void page_read_wake(struct cache_waiter *waiter)
{
    struct page_read *read = CONTAINER_OF(waiter, struct page_read, waiter);
    atomic_store(&read->waiting, false);
    http_request_wake(read->request);
    page_read_unref(read);
}

// The waiter to register, or NULL while it is registered already. Whoever gets CACHE_LOADING with it has registered it.
static struct cache_waiter *waiter_of(struct page_read *read)
{
    if (atomic_exchange(&read->waiting, true))
        return NULL;
    atomic_fetch_add(&read->references, 1);
    return &read->waiter;
}

static void waiter_unused(struct page_read *read, const struct cache_waiter *waiter)
{
    if (!waiter)
        return;
    atomic_store(&read->waiting, false);
    atomic_fetch_sub(&read->references, 1); // the request's own is left
}

// ---- frames -----------------------------------------------------------------------------------------------------------

// The head's cap holds any frame head, so appending to it fails for want of memory only; then the stream is cut.
static bool append_head(struct page_read *read, const uint8_t *data, size_t size)
{
    return buffer_append(&read->head, data, size, NULL) == GRAFT_OK;
}

static void abort_stream(struct page_read *read)
{
    buffer_clear(&read->head);
    read->payload = (struct bytes){NULL, 0};
    read->ended = true;
}

static enum step end_stream(struct page_read *read, const struct graft_error *error)
{
    FAILPOINT("read.end");
    read->ended = true;
    if (page_stream_append_end(&read->head, read->next, error, NULL) != GRAFT_OK)
        abort_stream(read);
    return STEP_FRAME;
}

static enum step put_damaged(struct page_read *read, uint32_t pageidx, const struct graft_error *error)
{
    if (page_stream_append_damaged(&read->head, pageidx, error, NULL) != GRAFT_OK)
        abort_stream(read);
    if (error->status == GRAFT_CORRUPT)
        metric_add(read->reader->damaged, 1);
    read->next++;
    return STEP_FRAME;
}

static void close_segment(struct page_read *read);

// The segment's object is missing: what its commit says of that now spoils the page, whatever it is.
static enum step put_missing(struct page_read *read, uint32_t pageidx)
{
    struct graft_error cause;
    switch (page_read_missing(read, pageidx, &cause)) {
    case MISSING_ASKED:
        return STEP_WAIT;
    case MISSING_REPLANNED:
        close_segment(read);
        return STEP_FRAME; // an empty one: the page is looked at anew
    case MISSING_FAILED:
        break;
    }
    return put_damaged(read, pageidx, &cause);
}

// Damage spoils one page; anything else ends the stream, whose End says why.
static enum step put_failure(struct page_read *read, uint32_t pageidx, const struct graft_error *error)
{
    if (error->status == GRAFT_NOT_FOUND)
        return put_missing(read, pageidx);
    return error->status == GRAFT_CORRUPT ? put_damaged(read, pageidx, error) : end_stream(read, error);
}

static enum step put_corrupt(struct page_read *read, uint32_t pageidx, const char *what)
{
    struct graft_error err;
    error_set(&err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM, "segment %s: page %u of %s %s",
              gid_format(&read->place.sid).text, pageidx, gid_format(&read->place.owner).text, what);
    return put_damaged(read, pageidx, &err);
}

static enum step put_page(struct page_read *read, uint32_t pageidx, const struct segment_page *page,
                          struct bytes payload)
{
    FAILPOINT("read.page");
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    struct page_header header = {
        .pageidx = pageidx,
        .state = PAGE_STATE_STORED,
        .page_class = page->page_class,
        .encoding = page->encoding,
        .raw_size = page->raw_size,
        .checksum = page->checksum,
    };
    if (!gid_equal(&read->stream_owner, &read->place.owner)) {
        read->stream_owner = read->place.owner;
        if (!append_head(read, head, page_stream_put_owner(head, &read->place.owner)))
            abort_stream(read);
    }
    if (!append_head(read, head, page_stream_put_page(head, &header, (uint32_t)payload.size)))
        abort_stream(read);
    if (!read->ended)
        read->payload = payload;
    metric_add(read->reader->pages, 1);
    metric_add(read->reader->bytes, (int64_t)payload.size);
    read->next++;
    return STEP_FRAME;
}

// ---- blocks -----------------------------------------------------------------------------------------------------------

static void window_release(struct block_window *window)
{
    for (uint32_t i = 0; i < window->count; i++)
        cached_block_release(window->blocks[i]);
    window->count = 0;
}

static void close_segment(struct page_read *read)
{
    window_release(&read->current);
    window_release(&read->ahead);
    cached_segment_release(TAKE(read->segment));
    read->segment_index = NULL;
    read->segment_number = 0;
}

void page_read_release_blocks(struct page_read *read)
{
    close_segment(read);
}

static bool window_has(const struct block_window *window, uint32_t block)
{
    return block >= window->first && block - window->first < window->count;
}

static uint32_t window_blocks(const struct page_read *read)
{
    uint32_t readers = MAX(atomic_load(&read->reader->active), 1u);
    uint32_t share = MAX(HELD_SIZE_MAX / BLOCK_SIZE / 2 / readers, 1u);
    return MIN(share, WINDOW_BLOCKS_MAX);
}

static void blocks_of(const struct page_read *read, const struct segment_page *page, uint32_t *ret_first,
                      uint32_t *ret_last)
{
    *ret_first = cached_segment_block_of(read->segment, page->offset);
    *ret_last = cached_segment_block_of(read->segment, page->offset + MAX(page->size, 1u) - 1);
}

// How many blocks from `first` on the plan needs, without a gap, from `place` of the plan on: at most blocks_max.
static uint32_t count_needed(const struct page_read *read, size_t place, uint32_t first, uint32_t blocks_max)
{
    uint32_t end = first;
    for (; place < read->plan_count && read->plan[place].segment == read->segment_number; place++) {
        const struct segment_page *page =
            segment_index_page(read->segment_index, read->segment_volume, read->plan[place].pageidx);
        uint32_t from, to;
        if (!page)
            break;
        blocks_of(read, page, &from, &to);
        if (from > end || to - first >= blocks_max)
            break;
        end = MAX(end, to + 1);
    }
    return end - first;
}

// Gets the blocks that the plan needs from `first` on, `at_least` of them.
static bool window_open(struct page_read *read, struct block_window *window, size_t place, uint32_t first,
                        uint32_t at_least)
{
    uint32_t count_max = MAX(window_blocks(read), at_least);
    uint32_t count = MAX(count_needed(read, place, first, count_max), at_least);
    window->first = first;
    if (!cached_segment_blocks(read->segment, first, count, window->blocks))
        return false;
    window->count = count;
    return true;
}

// Sees to it that blocks first … last are in the current window, and that what follows is being loaded.
static bool move_windows(struct page_read *read, uint32_t first, uint32_t last)
{
    if (window_has(&read->current, first) && window_has(&read->current, last))
        return true;
    window_release(&read->current);
    if (window_has(&read->ahead, first) && window_has(&read->ahead, last)) {
        read->current = read->ahead;
        read->ahead.count = 0;
    } else {
        window_release(&read->ahead);
        if (!window_open(read, &read->current, read->next, first, last - first + 1))
            return false;
    }
    // The next window begins with the first page that the current one does not hold whole.
    uint32_t from, to;
    for (size_t place = read->next; place < read->plan_count; place++) {
        if (read->plan[place].segment != read->segment_number)
            break;
        const struct segment_page *page =
            segment_index_page(read->segment_index, read->segment_volume, read->plan[place].pageidx);
        if (!page)
            break;
        blocks_of(read, page, &from, &to);
        if (window_has(&read->current, to))
            continue;
        // Loading ahead is a favour: without memory for it, the page finds out itself.
        if (!window_open(read, &read->ahead, place, from, to - from + 1))
            read->ahead.count = 0;
        break;
    }
    return true;
}

static enum step poll_block(struct page_read *read, struct cached_block *block, uint32_t pageidx)
{
    const struct graft_error *error;
    struct cache_waiter *waiter = waiter_of(read);
    enum cache_state state = cached_block_poll(block, waiter, &error);
    if (state == CACHE_LOADING)
        return STEP_WAIT;
    waiter_unused(read, waiter);
    return state == CACHE_FAILED ? put_failure(read, pageidx, error) : STEP_AGAIN;
}

// A page that lies in two blocks was not checked when they were loaded.
static bool join_halves(struct page_read *read, const struct segment_page *page,
                        struct cached_block *const halves[2])
{
    uint8_t *to = read->scratch;
    for (int i = 0; i < 2; i++) {
        uint32_t offset;
        struct bytes block = cached_block_bytes(halves[i], &offset);
        uint32_t from = MAX(page->offset, offset);
        uint32_t end = MIN(page->offset + page->size, offset + (uint32_t)block.size);
        memcpy(to, block.data + (from - offset), end - from);
        to += end - from;
    }
    return checksum_matches(page->stored_checksum, checksum64(read->scratch, page->size));
}

static enum step send_page(struct page_read *read, uint32_t pageidx, const struct segment_page *page)
{
    uint32_t first, last, offset;
    struct graft_error err;
    if (page->size == 0)
        return put_page(read, pageidx, page, (struct bytes){NULL, 0});
    blocks_of(read, page, &first, &last);
    if (!read->scratch && last > first)
        read->scratch = malloc(PAGE_SIZE_MAX);
    if ((last > first && !read->scratch) || !move_windows(read, first, last)) {
        error_set(&err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for blocks of segment %s",
                  gid_format(&read->place.sid).text);
        return end_stream(read, &err);
    }
    struct cached_block *blocks[2] = {read->current.blocks[first - read->current.first],
                                      read->current.blocks[last - read->current.first]};
    for (int i = 0; i < (last > first ? 2 : 1); i++) {
        enum step step = poll_block(read, blocks[i], pageidx);
        if (step != STEP_AGAIN)
            return step;
    }
    if (last > first) {
        if (!join_halves(read, page, blocks))
            return put_corrupt(read, pageidx, "does not match its checksum");
        return put_page(read, pageidx, page, (struct bytes){read->scratch, page->size});
    }
    if (cached_block_is_damaged(blocks[0], (uint32_t)(page - read->segment_index->pages)))
        return put_corrupt(read, pageidx, "does not match its checksum");
    struct bytes block = cached_block_bytes(blocks[0], &offset);
    return put_page(read, pageidx, page, (struct bytes){block.data + (page->offset - offset), page->size});
}

// ---- segments ---------------------------------------------------------------------------------------------------------

static enum step open_segment(struct page_read *read, const struct page_version *version)
{
    struct graft_error err;
    const struct graft_error *error;
    if (read->segment_number != version->segment) {
        close_segment(read);
        if (page_index_segment(read->reader->index, version->segment, &read->place, &err) != GRAFT_OK)
            return end_stream(read, &err);
        read->segment = block_cache_segment(read->reader->cache, &read->place);
        if (!read->segment)
            return put_corrupt(read, version->pageidx,
                               "cannot be looked up: the segment's sizes make no sense");
        read->segment_number = version->segment;
    }
    struct cache_waiter *waiter = waiter_of(read);
    switch (cached_segment_poll(read->segment, waiter, &read->segment_index, &error)) {
    case CACHE_LOADING:
        return STEP_WAIT;
    case CACHE_FAILED:
        waiter_unused(read, waiter);
        return put_failure(read, version->pageidx, error);
    case CACHE_READY:
        break;
    }
    waiter_unused(read, waiter);
    read->segment_volume = segment_index_volume(read->segment_index, &read->place.owner);
    return STEP_AGAIN;
}

static enum step next_frame(struct page_read *read)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    if (!read->begun) {
        read->begun = true;
        if (!append_head(read, head, page_stream_put_begin(head, &read->vid, read->lsn, &read->chain)))
            abort_stream(read);
        return STEP_FRAME;
    }
    if (atomic_load(&read->missing.state) == MISSING_ASKING)
        return STEP_WAIT;
    if (read->next == read->plan_count)
        return end_stream(read, NULL);
    const struct page_version *version = &read->plan[read->next];
    if (version->segment == 0) {
        metric_add(read->reader->empty, 1);
        read->next++;
        if (!append_head(read, head, page_stream_put_empty(head, version->pageidx)))
            abort_stream(read);
        return STEP_FRAME;
    }
    if (read->segment_number != version->segment || !read->segment_index) {
        enum step step = open_segment(read, version);
        if (step != STEP_AGAIN)
            return step;
    }
    const struct segment_page *page =
        read->segment_volume ? segment_index_page(read->segment_index, read->segment_volume, version->pageidx)
                             : NULL;
    return page ? send_page(read, version->pageidx, page)
                : put_corrupt(read, version->pageidx, "is not in it, though a commit says so");
}

enum http_source_result page_read_source(struct http_request *request, void *to, size_t size,
                                         size_t *ret_size)
{
    struct page_read *read = http_request_state(request);
    size_t filled = 0;
    for (;;) {
        size_t count = MIN(read->head.size - read->head_sent, size - filled);
        if (count)
            memcpy((uint8_t *)to + filled, read->head.data + read->head_sent, count);
        read->head_sent += count;
        filled += count;
        count = MIN(read->payload.size, size - filled);
        if (count)
            memcpy((uint8_t *)to + filled, read->payload.data, count);
        read->payload = (struct bytes){read->payload.data + count, read->payload.size - count};
        filled += count;
        if (filled == size)
            break;
        if (read->ended) {
            // An aborted stream has no End: the peer must see that it is broken.
            if (!filled)
                return read->head.size ? HTTP_SOURCE_END : HTTP_SOURCE_ABORT;
            break;
        }
        buffer_clear(&read->head);
        read->head_sent = 0;
        if (next_frame(read) == STEP_WAIT) {
            if (!filled)
                return HTTP_SOURCE_WAIT;
            break;
        }
    }
    *ret_size = filled;
    return HTTP_SOURCE_DATA;
}
