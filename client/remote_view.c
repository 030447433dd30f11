// SPDX-License-Identifier: Apache-2.0
#include "client/remote_view.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/check.h"

#define CACHE_BUCKETS 1024u

struct cached_page {
    uint32_t pageidx;
    bool written;
    size_t size;
    LIST_ENTRY(cached_page) link;
    TAILQ_ENTRY(cached_page) age;
    uint8_t data[];
};

struct remote_view {
    struct fetcher *fetcher;
    struct snapshot head;
    struct fetch_source source;
    size_t pages_max;
    struct mutex lock; // RANK_LEAF
    size_t count;      // lock, like all below
    LIST_HEAD(, cached_page) table[CACHE_BUCKETS];
    TAILQ_HEAD(, cached_page) ages; // oldest first
};

static struct cached_page *find_locked(struct remote_view *view, uint32_t pageidx)
{
    struct cached_page *page;

    mutex_assert_held(&view->lock);
    LIST_FOREACH(page, &view->table[pageidx % CACHE_BUCKETS], link)
    {
        if (page->pageidx == pageidx)
            return page;
    }
    return NULL;
}

static void drop_oldest_locked(struct remote_view *view)
{
    struct cached_page *page = TAILQ_FIRST(&view->ages);

    TAILQ_REMOVE(&view->ages, page, age);
    LIST_REMOVE(page, link);
    view->count--;
    free(page);
}

static struct remote_view *view_of(struct fetch_source *source)
{
    return CONTAINER_OF(source, struct remote_view, source);
}

static enum graft_status view_missing(struct fetch_source *source, void *context, const struct pageset *pages,
                                      uint32_t *cursor, struct fetch_item *to, size_t to_max,
                                      size_t *ret_count, struct graft_error *err)
{
    struct remote_view *view = view_of(source);
    struct pageset_cursor walk = {.set = pages, .next = *cursor};
    size_t count = 0;
    uint32_t pageidx;

    LOCK_GUARD(&view->lock);
    *cursor = 0;
    while (pageset_next(&walk, &pageidx) && pageidx <= view->head.page_count) {
        if (count == to_max) {
            *cursor = pageidx;
            break;
        }
        if (!find_locked(view, pageidx))
            to[count++] = (struct fetch_item){pageidx, 1, view->head.lsn, view->head.chain};
    }
    *ret_count = count;
    return GRAFT_OK;
}

static enum graft_status view_put(struct fetch_source *source, uint32_t pageidx, uint64_t mark,
                                  const struct bytes *data, struct graft_error *err)
{
    struct remote_view *view = view_of(source);
    size_t size = data ? data->size : 0;

    struct cached_page *page = malloc(sizeof *page + size);
    if (!page)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a page");
    page->pageidx = pageidx;
    page->written = data != NULL;
    page->size = size;
    if (size > 0)
        memcpy(page->data, data->data, size);
    LOCK_GUARD(&view->lock);
    if (find_locked(view, pageidx)) {
        free(page);
        return GRAFT_OK;
    }
    if (view->count == view->pages_max)
        drop_oldest_locked(view);
    LIST_INSERT_HEAD(&view->table[pageidx % CACHE_BUCKETS], page, link);
    TAILQ_INSERT_TAIL(&view->ages, page, age);
    view->count++;
    return GRAFT_OK;
}

static enum graft_status view_flush(struct fetch_source *source, struct graft_error *err)
{
    return GRAFT_OK;
}

static const struct fetch_source_ops view_ops = {view_missing, view_put, view_flush};

enum graft_status remote_view_new(struct fetcher *fetcher, const struct snapshot *head,
                                  struct remote_view **ret_view, struct graft_error *err)
{
    struct remote_view *view = calloc(1, sizeof *view);
    if (!view)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a snapshot");
    view->fetcher = fetcher;
    view->head = *head;
    view->pages_max = REMOTE_VIEW_CACHE_SIZE / head->page_size;
    fetch_source_init(&view->source, &view_ops, &head->vid, head->page_size, head->variable);
    // All that is under way finds room in the cache.
    view->source.batch_pages = MIN(view->source.batch_pages, view->pages_max / 8);
    mutex_init(&view->lock, RANK_LEAF);
    TAILQ_INIT(&view->ages);
    *ret_view = view;
    return GRAFT_OK;
}

void remote_view_free(struct remote_view *view)
{
    if (!view)
        return;
    fetch_source_drain(view->fetcher, &view->source);
    mutex_lock(&view->lock);
    while (view->count > 0)
        drop_oldest_locked(view);
    mutex_unlock(&view->lock);
    mutex_release(&view->lock);
    free(view);
}

const struct snapshot *remote_view_head(const struct remote_view *view)
{
    return &view->head;
}

struct fetch_source *remote_view_source(struct remote_view *view)
{
    return &view->source;
}

size_t remote_view_ahead_pages(const struct remote_view *view)
{
    return REMOTE_VIEW_AHEAD_SIZE / view->head.page_size;
}

// False: the page is not in the cache.
static bool view_copy(struct remote_view *view, uint32_t pageidx, void *to, size_t *ret_size,
                      bool *ret_written)
{
    LOCK_GUARD(&view->lock);
    const struct cached_page *page = find_locked(view, pageidx);
    if (!page)
        return false;
    if (page->size > 0)
        memcpy(to, page->data, page->size);
    *ret_size = page->size;
    *ret_written = page->written;
    return true;
}

enum graft_status remote_view_read(struct remote_view *view, uint32_t pageidx, void *to, size_t *ret_size,
                                   bool *ret_written, struct graft_error *err)
{
    struct fetch_item item = {pageidx, 1, view->head.lsn, view->head.chain};

    for (unsigned round = 0; round < READ_ROUNDS_MAX; round++) {
        if (view_copy(view, pageidx, to, ret_size, ret_written))
            return GRAFT_OK;
        enum graft_status status = fetch_page(view->fetcher, &view->source, NULL, &item, err);
        if (status != GRAFT_OK)
            return error_context(err, status, "fetching page %u", pageidx);
    }
    return error_set(
        err, GRAFT_INTERNAL, GRAFT_DETAIL_NONE,
        "page %u arrived %u times and was pushed out of the cache each time before it could be read", pageidx,
        READ_ROUNDS_MAX);
}
