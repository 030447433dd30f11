// SPDX-License-Identifier: Apache-2.0
//
// Writers. Pages are kept in memory; when they outgrow it, they are *staged*: written unsynced at the LSN
// above the head, where no snapshot sees them, and published by the commit, which moves the head.
//
//               beyond STORE_WRITER_MEMORY_MAX
//     in memory ────────────────────────────────▶ staging: the volume's one stager
//         │ commit (store_commit.c)                  │ commit: what is left, and the head
//         ▼                                          ├──▶ committed
//     committed                                      └──▶ doomed: somebody moved the head, and removed
//                                                         what was staged
#include "client/store_writer.h"

#include <stdlib.h>

#include "common/base/failpoint.h"

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

// Lists the pages in memory, ascending, and notes whom they supersede.
enum graft_status store_writer_prepare(struct store_writer *writer, struct store_change *change,
                                       struct pageset *list, struct graft_error *err)
{
    HASH_SORT(writer->pages, by_pageidx);
    for (struct own_page *page = writer->pages; page; page = page->hh.next) {
        enum graft_status status = store_change_supersede(change, page->pageidx, err);
        if (status != GRAFT_OK)
            return status;
        pageset_add(list, page->pageidx);
    }
    return store_take_room(writer->volume->store, writer->pages_size, err);
}

enum graft_status store_writer_fill_append(struct store_writer *writer, bool complete,
                                           struct page_log_append *append, struct graft_error *err)
{
    const struct store_volume *volume = writer->volume;
    size_t count = HASH_COUNT(writer->pages);
    struct page_log_page *pages = calloc(count + 1, sizeof *pages);
    if (!pages)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a commit");
    *append = (struct page_log_append){
        .header = {.kind = RUN_COMMIT,
                   .complete = complete,
                   .number = volume->number,
                   .lsn = store_writer_lsn(writer),
                   .part = writer->staged.runs,
                   .page_count = writer->page_count,
                   .cut = writer->run_cut,
                   .group_count = 1},
        .pages = pages,
    };
    for (struct own_page *page = writer->pages; page; page = page->hh.next)
        pages[append->page_count++] = (struct page_log_page){
            .entry = {.number = volume->number,
                      .lsn = store_writer_lsn(writer),
                      .checksum = page_checksum(&volume->vid, page->pageidx, page->data, page->size),
                      .pageidx = page->pageidx,
                      .size = page->size},
            .data = page->data,
        };
    return GRAFT_OK;
}

void store_append_release(struct page_log_append *append)
{
    free(append->pages);
}

enum graft_status store_writer_index_locked(struct store_writer *writer, struct store_change *change,
                                            const struct page_log_append *append, struct graft_error *err)
{
    mutex_assert_held(&writer->volume->store->places_lock);
    for (uint32_t i = 0; i < append->page_count; i++) {
        const struct run_entry *entry = &append->pages[i].entry;
        if (pageset_contains(writer->staged.pages, entry->pageidx)) {
            enum graft_status status = store_change_replace(change, entry->pageidx, err);
            if (status != GRAFT_OK)
                return status;
        }
        struct store_version version = {.kind = STORE_VERSION_AVAILABLE,
                                        .size = entry->size,
                                        .place = append->pages[i].place,
                                        .checksum = entry->checksum};
        store_change_page(change, entry->pageidx, &version);
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
    writer->run_cut = writer->base->page_count;
    writer->staged.pages = pageset_new();
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

uint32_t store_writer_cut(const struct store_writer *writer)
{
    return writer->cut;
}

void store_writer_pages(const struct store_writer *writer, struct pageset *pages)
{
    pageset_union(pages, writer->staged.pages);
    for (const struct own_page *page = writer->pages; page; page = page->hh.next)
        pageset_add(pages, page->pageidx);
}

void store_writer_free(struct store_writer *writer)
{
    forget_pages(writer);
    store_staged_release(&writer->staged);
    store_pin_release(writer->base);
    free(writer);
}

enum graft_status store_writer_check_locked(const struct store_writer *writer, struct graft_error *err)
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

// Nothing of a large commit whose index could not be written can be vouched for: its writer can only be aborted.
static enum graft_status check_stageable_locked(struct store_writer *writer, struct graft_error *err)
{
    struct store_volume *volume = writer->volume;
    if (writer->failure.status != GRAFT_OK)
        return error_copy(err, &writer->failure);
    enum graft_status status = store_writer_check_locked(writer, err);
    if (status != GRAFT_OK)
        return status;
    if (volume->stager && volume->stager != writer)
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_NONE,
                         "volume %s: another write larger than %llu bytes is under way; wait for it",
                         gid_format(&volume->vid).text,
                         (unsigned long long)volume->store->writer_memory_size);
    return store_drop_leftover_locked(volume, err);
}

static enum graft_status index_staged_locked(struct store_writer *writer, struct store_change *change,
                                             const struct page_log_append *append, struct graft_error *err)
{
    struct store_staging note = {.lsn = change->lsn,
                                 .runs = writer->staged.runs + append->parts,
                                 .seq = append->last_seq,
                                 .cut = writer->cut};
    store_change_note_staging(change, &note);
    LOCK_GUARD(&writer->volume->store->places_lock);
    enum graft_status status = store_writer_index_locked(writer, change, append, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("commit.stage.before", err);
    if (status == GRAFT_OK)
        status = store_change_stage(change, err);
    FAILPOINT("commit.stage.after");
    return status;
}

static enum graft_status stage_locked(struct store_writer *writer, struct graft_error *err)
{
    struct store_volume *volume = writer->volume;
    enum graft_status status = check_stageable_locked(writer, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(store_change_release) struct store_change change = {.volume = volume};
    _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
    _cleanup_(store_append_release) struct page_log_append append = {.pages = NULL};
    status = store_change_init(&change, volume, store_writer_lsn(writer), UINT32_MAX, 0, err);
    if (status == GRAFT_OK)
        status = store_writer_prepare(writer, &change, list, err);
    if (status == GRAFT_OK)
        status = store_change_part(&change, writer->staged.lists + 1, 0, 0, list, err);
    if (status == GRAFT_OK)
        status = store_writer_fill_append(writer, false, &append, err);
    if (status == GRAFT_OK)
        status = store_log_append(volume->store, &append, 1, false, err);
    if (status != GRAFT_OK)
        return status;
    status = index_staged_locked(writer, &change, &append, &writer->failure);
    page_log_applied(volume->store->log, &append);
    if (status != GRAFT_OK)
        return error_copy(err, &writer->failure);
    volume->stager = writer;
    writer->staged.lists++;
    writer->staged.runs += append.parts;
    writer->staged.seq = append.last_seq;
    writer->run_cut = writer->page_count;
    pageset_union(writer->staged.pages, list);
    forget_pages(writer);
    return GRAFT_OK;
}

enum graft_status store_doom_stager_locked(struct store_volume *volume, const struct store_writer *but,
                                           struct graft_error *err)
{
    mutex_assert_held(&volume->commit_lock);
    struct store_writer *stager = volume->stager;
    if (!stager || stager == but)
        return store_drop_leftover_locked(volume, err);
    stager->doomed = true;
    volume->stager = NULL;
    return store_drop_staged_locked(volume, err);
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

static enum graft_status cut_staged(struct store_writer *writer, uint32_t page_count, struct graft_error *err)
{
    if (pageset_max(writer->staged.pages) <= page_count)
        return GRAFT_OK;
    struct store_volume *volume = writer->volume;
    LOCK_GUARD(&volume->commit_lock);
    enum graft_status status = store_writer_check_locked(writer, err);
    if (status != GRAFT_OK)
        return status;
    return store_staged_cut_locked(&writer->staged, volume, store_writer_lsn(writer), page_count, err);
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
    writer->run_cut = MIN(writer->run_cut, page_count);
    writer->page_count = page_count;
    return GRAFT_OK;
}

// A doomed writer's keys may hold another commit's pages by now, or none; that it is doomed was known before they could.
static enum graft_status read_staged(struct store_writer *writer, uint32_t pageidx, void *to,
                                     struct store_page *ret_page, struct graft_error *err)
{
    struct store_page page;
    enum graft_status status =
        store_read_indexed(writer->volume, pageidx, store_writer_lsn(writer), to, &page, err);
    if (atomic_load(&writer->doomed)) {
        LOCK_GUARD(&writer->volume->commit_lock);
        return store_writer_check_locked(writer, err);
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
    if (pageset_contains(writer->staged.pages, pageidx))
        return read_staged(writer, pageidx, to, ret_page, err);
    if (pageidx > writer->page_count || pageidx > writer->cut) {
        *ret_page = (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_EMPTY};
        return GRAFT_OK;
    }
    return store_read(writer->base, pageidx, to, to_size, ret_page, err);
}

// ---- ending

enum graft_status store_writer_drop_staged_locked(struct store_writer *writer, struct graft_error *err)
{
    struct store_volume *volume = writer->volume;
    if (volume->stager != writer)
        return GRAFT_OK;
    volume->stager = NULL;
    return store_drop_staged_locked(volume, err);
}

void store_writer_abort(struct store_writer *writer)
{
    if (!writer)
        return;
    struct store_volume *volume = writer->volume;
    mutex_lock(&volume->commit_lock);
    // What cannot be removed now is removed before anything else is staged, or by the next opening.
    store_writer_drop_staged_locked(writer, NULL);
    mutex_unlock(&volume->commit_lock);
    store_writer_free(writer);
}
