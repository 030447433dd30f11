// SPDX-License-Identifier: Apache-2.0
//
// Writers. Pages are kept in memory; when they outgrow it, they are *staged*: written unsynced at the LSN
// above the head, where no snapshot sees them, and published by the commit, which moves the head.
//
//               beyond STORE_WRITER_MEMORY_MAX
//     in memory ────────────────────────────────▶ staging: the volume's one stager
//         │ commit: one synced batch                 │ commit: the rest and the head in one synced batch
//         ▼                                          ├──▶ committed
//     committed                                      └──▶ doomed: somebody moved the head, and removed
//                                                         what was staged
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/failpoint.h"

// A page that a writer has in memory.
struct own_page {
    UT_hash_handle hh;
    uint32_t pageidx;
    uint32_t size;
    uint8_t data[];
};

struct store_writer {
    struct store_volume *volume;
    struct store_pin *base;
    uint32_t page_count;
    uint32_t cut; // the lowest page_count so far
    struct own_page *pages;
    size_t pages_size; // memory of pages
    struct pageset *staged;
    uint32_t parts;      // lists of staged pages written
    bool staged_was_cut; // those lists name pages that were cut off again
    atomic_bool doomed;  // set under the commit lock
};

static uint64_t writer_lsn(const struct store_writer *writer)
{
    return writer->base->lsn + 1;
}

// ---- memory

static size_t own_page_memory(const struct own_page *page)
{
    return sizeof *page + page->size + 32; // the hash table's share
}

static void forget_page(struct store_writer *writer, struct own_page *page)
{
    writer->pages_size -= own_page_memory(page);
    HASH_DEL(writer->pages, page);
    free(page);
}

static void forget_pages(struct store_writer *writer)
{
    struct own_page *page, *next;
    HASH_ITER (hh, writer->pages, page, next) {
        forget_page(writer, page);
    }
}

static struct own_page *find_page(const struct store_writer *writer, uint32_t pageidx)
{
    struct own_page *page = NULL;
    HASH_FIND(hh, writer->pages, &pageidx, sizeof pageidx, page);
    return page;
}

static enum graft_status keep_page(struct store_writer *writer, uint32_t pageidx, const void *data,
                                   size_t size, struct graft_error *err)
{
    struct own_page *page = find_page(writer, pageidx);
    if (page && page->size != size) {
        forget_page(writer, page);
        page = NULL;
    }
    if (!page) {
        page = calloc(1, sizeof *page + size);
        if (!page)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a page");
        page->pageidx = pageidx;
        page->size = (uint32_t)size;
        HASH_ADD(hh, writer->pages, pageidx, sizeof page->pageidx, page);
        writer->pages_size += own_page_memory(page);
    }
    if (size > 0)
        memcpy(page->data, data, size);
    return GRAFT_OK;
}

static int by_pageidx(const struct own_page *a, const struct own_page *b)
{
    return (a->pageidx > b->pageidx) - (a->pageidx < b->pageidx);
}

// Adds the pages in memory to a change, ascending, and lists them.
static enum graft_status add_pages(struct store_writer *writer, struct store_change *change,
                                   struct pageset *list, struct graft_error *err)
{
    HASH_SORT(writer->pages, by_pageidx);
    for (struct own_page *page = writer->pages; page; page = page->hh.next) {
        enum graft_status status = store_change_page(change, page->pageidx, page->data, page->size, err);
        if (status != GRAFT_OK)
            return status;
        pageset_add(list, page->pageidx);
    }
    return GRAFT_OK;
}

// ---- beginning

enum graft_status store_writer_begin(struct store_volume *volume, struct store_writer **ret_writer,
                                     struct graft_error *err)
{
    struct store_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a writer");
    enum graft_status status = store_pin_open(volume, &writer->base, err);
    if (status != GRAFT_OK) {
        free(writer);
        return status;
    }
    writer->volume = volume;
    writer->page_count = writer->base->page_count;
    writer->cut = writer->base->page_count;
    writer->staged = pageset_new();
    *ret_writer = writer;
    return GRAFT_OK;
}

struct store_pin *store_writer_base(struct store_writer *writer)
{
    return writer->base;
}

uint32_t store_writer_page_count(const struct store_writer *writer)
{
    return writer->page_count;
}

static void free_writer(struct store_writer *writer)
{
    forget_pages(writer);
    pageset_free(writer->staged);
    store_pin_release(writer->base);
    free(writer);
}

static enum graft_status check_base_locked(const struct store_writer *writer, struct graft_error *err)
{
    uint64_t head = store_volume_record(writer->volume).state.local_lsn;
    if (!writer->doomed && head == writer->base->lsn)
        return GRAFT_OK;
    return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
                     "volume %s: this write began at local LSN %llu and the head is %llu now; begin again "
                     "from there",
                     gid_format(&writer->volume->vid).text, (unsigned long long)writer->base->lsn,
                     (unsigned long long)head);
}

// ---- staging

static enum graft_status stage_locked(struct store_writer *writer, struct graft_error *err)
{
    struct store_volume *volume = writer->volume;
    enum graft_status status = check_base_locked(writer, err);
    if (status != GRAFT_OK)
        return status;
    if (volume->stager && volume->stager != writer)
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_NONE,
                         "volume %s: another write larger than %llu bytes is under way; wait for it",
                         gid_format(&volume->vid).text,
                         (unsigned long long)volume->store->writer_memory_size);
    _cleanup_(store_change_release) struct store_change change = {.volume = volume};
    _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
    status = store_change_init(&change, volume, writer_lsn(writer), UINT32_MAX, 0, err);
    if (status == GRAFT_OK)
        status = add_pages(writer, &change, list, err);
    if (status == GRAFT_OK)
        status = store_change_part(&change, writer->parts + 1, 0, 0, list, err);
    if (status != GRAFT_OK)
        return status;
    store_change_note_staging(&change);
    status = FAILPOINT_ERROR("commit.stage.before", err);
    if (status == GRAFT_OK)
        status = store_write(volume->store, volume->store->local, false, change.batch, err);
    FAILPOINT("commit.stage.after");
    if (status != GRAFT_OK)
        return status;
    volume->stager = writer;
    writer->parts++;
    pageset_union(writer->staged, list);
    forget_pages(writer);
    return GRAFT_OK;
}

enum graft_status store_doom_stager_locked(struct store_volume *volume, const struct store_writer *but,
                                           struct graft_error *err)
{
    mutex_assert_held(&volume->commit_lock);
    struct store_writer *stager = volume->stager;
    if (!stager || stager == but)
        return GRAFT_OK;
    stager->doomed = true;
    volume->stager = NULL;
    return store_drop_staged(volume->store, volume->number, writer_lsn(stager), err);
}

// ---- writing

static enum graft_status check_page(const struct store_writer *writer, uint32_t pageidx, size_t size,
                                    struct graft_error *err)
{
    const struct store_volume *volume = writer->volume;
    if (pageidx == 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "there is no page 0: pages are numbered from 1");
    if (volume->kind == GRAFT_FIXED ? size != volume->page_size : size > volume->page_size)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "page %u has %zu bytes; this volume takes %s %u", pageidx, size,
                         volume->kind == GRAFT_FIXED ? "exactly" : "at most", volume->page_size);
    return GRAFT_OK;
}

enum graft_status store_writer_write(struct store_writer *writer, uint32_t pageidx, const void *data,
                                     size_t size, struct graft_error *err)
{
    enum graft_status status = store_check_usable(writer->volume->store, err);
    if (status == GRAFT_OK)
        status = check_page(writer, pageidx, size, err);
    if (status != GRAFT_OK)
        return status;
    if (writer->pages &&
        writer->pages_size + sizeof(struct own_page) + size > writer->volume->store->writer_memory_size) {
        LOCK_GUARD(&writer->volume->commit_lock);
        status = stage_locked(writer, err);
        if (status != GRAFT_OK)
            return status;
    }
    status = keep_page(writer, pageidx, data, size, err);
    if (status == GRAFT_OK)
        writer->page_count = MAX(writer->page_count, pageidx);
    return status;
}

// Removes staged pages above `page_count`.
static enum graft_status cut_staged(struct store_writer *writer, uint32_t page_count, struct graft_error *err)
{
    if (pageset_max(writer->staged) <= page_count)
        return GRAFT_OK;
    struct store_volume *volume = writer->volume;
    LOCK_GUARD(&volume->commit_lock);
    enum graft_status status = check_base_locked(writer, err);
    if (status != GRAFT_OK)
        return status;
    struct pageset_cursor cursor = pageset_cursor(writer->staged);
    cursor.next = (uint64_t)page_count + 1;
    uint32_t pageidx;
    bool more = pageset_next(&cursor, &pageidx);
    while (more) {
        _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
        for (unsigned i = 0; more && i < volume->store->batch_entries; i++) {
            struct store_key key = store_key_version(volume->number, pageidx, writer_lsn(writer));
            store_delete(volume->store->local, batch, FAMILY_INDEX, &key);
            store_delete(volume->store->local, batch, FAMILY_PAGES, &key);
            more = pageset_next(&cursor, &pageidx);
        }
        FAILPOINT("commit.cut_staged");
        status = store_write(volume->store, volume->store->local, false, batch, err);
        if (status != GRAFT_OK)
            return status;
    }
    pageset_remove_above(writer->staged, page_count);
    writer->staged_was_cut = true;
    return GRAFT_OK;
}

enum graft_status store_writer_truncate(struct store_writer *writer, uint32_t page_count,
                                        struct graft_error *err)
{
    enum graft_status status = store_check_usable(writer->volume->store, err);
    if (status == GRAFT_OK)
        status = cut_staged(writer, page_count, err);
    if (status != GRAFT_OK)
        return status;
    if (page_count < writer->page_count) {
        struct own_page *page, *next;
        HASH_ITER (hh, writer->pages, page, next) {
            if (page->pageidx > page_count)
                forget_page(writer, page);
        }
    }
    writer->cut = MIN(writer->cut, page_count);
    writer->page_count = page_count;
    return GRAFT_OK;
}

// A doomed writer's keys may hold another commit's bytes by now; that it is doomed was known before they
// could.
static enum graft_status read_staged(struct store_writer *writer, uint32_t pageidx, void *to,
                                     struct store_page *ret_page, struct graft_error *err)
{
    static const struct store_version version = {.kind = STORE_VERSION_AVAILABLE, .size = UINT32_MAX};
    struct store_page page;
    enum graft_status status =
        store_read_version(writer->volume, pageidx, writer_lsn(writer), &version, to, &page, err);
    if (atomic_load(&writer->doomed)) {
        LOCK_GUARD(&writer->volume->commit_lock);
        return check_base_locked(writer, err);
    }
    if (status == GRAFT_OK)
        *ret_page = page;
    return status;
}

enum graft_status store_writer_read(struct store_writer *writer, uint32_t pageidx, void *to, size_t to_size,
                                    struct store_page *ret_page, struct graft_error *err)
{
    if (pageidx == 0 || to_size < writer->volume->page_size)
        return store_read(writer->base, pageidx, to, to_size, ret_page, err); // which says what is wrong
    struct own_page *own = find_page(writer, pageidx);
    if (own) {
        memcpy(to, own->data, own->size);
        *ret_page = (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_AVAILABLE, .size = own->size};
        return GRAFT_OK;
    }
    if (pageset_contains(writer->staged, pageidx))
        return read_staged(writer, pageidx, to, ret_page, err);
    if (pageidx > writer->page_count || pageidx > writer->cut) {
        *ret_page = (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_EMPTY};
        return GRAFT_OK;
    }
    return store_read(writer->base, pageidx, to, to_size, ret_page, err);
}

// ---- committing

static bool changed_nothing(const struct store_writer *writer)
{
    return !writer->pages && pageset_is_empty(writer->staged) &&
           writer->page_count == writer->base->page_count && writer->cut == writer->base->page_count;
}

// The lists of staged pages, made anew where pages in them were cut off again.
static enum graft_status list_staged_again(struct store_writer *writer, struct store_change *change,
                                           struct graft_error *err)
{
    store_change_forget_lists(change, writer->parts);
    struct pageset_cursor cursor = pageset_cursor(writer->staged);
    uint32_t pageidx, part = 0;
    bool more = pageset_next(&cursor, &pageidx);
    while (more) {
        _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
        for (unsigned i = 0; more && i < 16 * writer->volume->store->batch_entries; i++) {
            pageset_add(list, pageidx);
            more = pageset_next(&cursor, &pageidx);
        }
        enum graft_status status = store_change_part(change, ++part, 0, 0, list, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static enum graft_status fill_commit(struct store_writer *writer, struct store_change *change,
                                     struct pageset *list, struct graft_error *err)
{
    enum graft_status status = add_pages(writer, change, list, err);
    if (status == GRAFT_OK)
        status = store_change_part(change, 0, writer->page_count, writer->cut, list, err);
    if (status == GRAFT_OK && writer->staged_was_cut)
        status = list_staged_again(writer, change, err);
    if (status == GRAFT_OK && writer->parts > 0)
        store_change_end_staging(change);
    return status;
}

// Nobody can come to what it staged any more.
static enum graft_status drop_own_staged_locked(struct store_writer *writer, struct graft_error *err)
{
    struct store_volume *volume = writer->volume;
    if (volume->stager != writer)
        return GRAFT_OK;
    volume->stager = NULL;
    return store_drop_staged(volume->store, volume->number, writer_lsn(writer), err);
}

static enum graft_status commit_locked(struct store_writer *writer, uint64_t *ret_lsn,
                                       struct graft_error *err)
{
    struct store_volume *volume = writer->volume;
    enum graft_status status = store_check_usable(volume->store, err);
    if (status == GRAFT_OK)
        status = check_base_locked(writer, err);
    if (status != GRAFT_OK)
        return status;
    if (changed_nothing(writer)) {
        // It may have staged pages and cut them off again: their lists would be taken for the next commit's.
        status = drop_own_staged_locked(writer, err);
        if (status == GRAFT_OK)
            *ret_lsn = writer->base->lsn;
        return status;
    }
    status = store_doom_stager_locked(volume, writer, err);
    if (status != GRAFT_OK)
        return status;

    uint64_t lsn = writer_lsn(writer);
    bool cuts = writer->cut < writer->base->page_count;
    _cleanup_(store_change_release) struct store_change change = {.volume = volume};
    _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
    status = store_change_init(&change, volume, lsn, cuts ? writer->cut : UINT32_MAX,
                               writer->base->page_count, err);
    if (status == GRAFT_OK)
        status = fill_commit(writer, &change, list, err);
    if (status != GRAFT_OK)
        return status;
    struct store_record next = store_volume_record(volume);
    next.state.local_lsn = lsn;
    next.state.page_count = writer->page_count;
    if (cuts)
        store_record_cut(&next, lsn, writer->cut);
    status = FAILPOINT_ERROR("commit.publish.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, change.batch, &next,
                                      volume->store->sync_commits || volume->origin_number > 0, err);
    FAILPOINT("commit.publish.after");
    if (status != GRAFT_OK)
        return status;
    if (volume->stager == writer)
        volume->stager = NULL;

    pageset_union(list, writer->staged);
    store_counts_cut_locked(volume, writer->cut);
    store_counts_available_locked(volume, list);
    *ret_lsn = lsn;
    return GRAFT_OK;
}

enum graft_status store_writer_commit(struct store_writer *writer, uint64_t *ret_lsn, struct graft_error *err)
{
    struct store_volume *volume = writer->volume;
    uint64_t lsn = 0;
    mutex_lock(&volume->commit_lock);
    enum graft_status status = commit_locked(writer, &lsn, err);
    mutex_unlock(&volume->commit_lock);
    if (status != GRAFT_OK) {
        store_writer_abort(writer);
        return status;
    }
    // The base's pin would keep what was just superseded, so it goes first.
    size_t entries = pageset_count(writer->staged) + HASH_COUNT(writer->pages);
    store_volume_ref(volume);
    free_writer(writer);
    mutex_lock(&volume->commit_lock);
    store_sweep_after_locked(volume, lsn, entries);
    mutex_unlock(&volume->commit_lock);
    FAILPOINT("commit.swept");
    store_volume_close(volume);
    if (ret_lsn)
        *ret_lsn = lsn;
    return GRAFT_OK;
}

void store_writer_abort(struct store_writer *writer)
{
    if (!writer)
        return;
    struct store_volume *volume = writer->volume;
    mutex_lock(&volume->commit_lock);
    // If that fails the store is closed, and the next opening drops them.
    drop_own_staged_locked(writer, NULL);
    mutex_unlock(&volume->commit_lock);
    free_writer(writer);
}
