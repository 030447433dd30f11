// SPDX-License-Identifier: Apache-2.0
//
// Reading and writing. SQLite reads whole pages, but for the first bytes of page 1, and writes whole pages; anything else is
// served as well.
#include <string.h>

#include "client/page_one.h"
#include "common/base/limits.h"
#include "sqlite/file_internal.h"
#include "sqlite/stage.h"

// ---- sizes --------------------------------------------------------------------------------------

uint32_t file_page_size(const struct volume_file *file)
{
    return atomic_load_explicit(&file->shared->page_size, memory_order_relaxed);
}

enum graft_status file_need_buffers(struct volume_file *file, uint32_t page_size, struct graft_error *err)
{
    if (file->buffers_size == page_size)
        return GRAFT_OK;
    uint8_t *first = malloc(page_size), *scratch = malloc(page_size);
    if (!first || !scratch) {
        free(first);
        free(scratch);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a page");
    }
    free(file->first);
    free(file->scratch);
    file->first = first;
    file->scratch = scratch;
    file->buffers_size = page_size;
    file->first_valid = false;
    return GRAFT_OK;
}

static uint32_t page_count_of(const struct volume_file *file)
{
    return file->overlay ? overlay_page_count(file->overlay) : file->page_count;
}

// ---- reading ------------------------------------------------------------------------------------

// A page of the pin; zeros beyond it.
static enum graft_status read_pinned(struct volume_file *file, uint32_t pageidx, void *to, uint32_t page_size,
                                     struct graft_error *err)
{
    size_t size = 0;
    enum graft_status status = GRAFT_OK;

    if (file->pin && pageidx <= file->page_count)
        status = graft_snapshot_read(file->pin, pageidx, to, page_size, &size, err);
    if (status == GRAFT_OK)
        memset((uint8_t *)to + size, 0, page_size - size);
    return status;
}

// Equal cookies mean equal schemas to SQLite, on one line of commits only. On another, the first one delivered is one that
// this connection has not seen before.
static void move_cookie(struct volume_file *file, uint32_t stored)
{
    if (file->cookie_to_move && file->cookie_seen)
        file->cookie_offset = file->cookie_last + 1 - stored;
    file->cookie_to_move = false;
}

static enum graft_status fill_first(struct volume_file *file, struct graft_error *err)
{
    uint32_t page_size = file->buffers_size;

    if (file->first_valid)
        return GRAFT_OK;
    enum graft_status status = read_pinned(file, 1, file->first, page_size, err);
    if (status != GRAFT_OK)
        return status;
    move_cookie(file, page_one_cookie(file->first));
    page_one_fill_in(file->first, file->counter, file->page_count, file->cookie_offset);
    file->cookie_last = page_one_cookie(file->first);
    file->cookie_seen = true;
    file->first_valid = true;
    return GRAFT_OK;
}

enum graft_status file_read_page(struct volume_file *file, uint32_t pageidx, void *to,
                                 struct graft_error *err)
{
    uint32_t page_size = file->buffers_size;

    if (file->overlay) {
        bool found;
        enum graft_status status = overlay_get(file->overlay, pageidx, to, &found, err);
        if (status != GRAFT_OK || found)
            return status;
        if (pageidx > overlay_cut(file->overlay)) {
            memset(to, 0, page_size);
            return GRAFT_OK;
        }
    }
    if (file->broken)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                         "what was committed last could not be pinned; begin a new transaction");
    if (pageidx != 1 || file->page_count == 0)
        return read_pinned(file, pageidx, to, page_size, err);
    enum graft_status status = fill_first(file, err);
    if (status == GRAFT_OK)
        memcpy(to, file->first, page_size);
    return status;
}

// A part of a page. Whole pages go straight into SQLite's memory.
static enum graft_status read_part(struct volume_file *file, uint32_t pageidx, uint32_t from, uint32_t size,
                                   uint8_t *to, struct graft_error *err)
{
    if (size == file->buffers_size)
        return file_read_page(file, pageidx, to, err);
    if (pageidx == 1 && !file->overlay && !file->broken && file->page_count > 0) {
        enum graft_status status = fill_first(file, err);
        if (status == GRAFT_OK)
            memcpy(to, file->first + from, size);
        return status;
    }
    enum graft_status status = file_read_page(file, pageidx, file->scratch, err);
    if (status == GRAFT_OK)
        memcpy(to, file->scratch + from, size);
    return status;
}

static enum graft_status read_pages(struct volume_file *file, uint8_t *to, size_t size, uint64_t offset,
                                    struct graft_error *err)
{
    uint32_t page_size = file->buffers_size;

    while (size > 0) {
        uint32_t from = (uint32_t)(offset % page_size);
        uint32_t part = (uint32_t)MIN(size, (size_t)(page_size - from));
        enum graft_status status = read_part(file, (uint32_t)(offset / page_size) + 1, from, part, to, err);
        if (status != GRAFT_OK)
            return status;
        to += part;
        offset += part;
        size -= part;
    }
    return GRAFT_OK;
}

// SQLite looks at the first 100 bytes of a file to learn its page size. A volume that is empty and has one tells it.
static int answer_empty(struct volume_file *file, uint8_t *to, size_t size, uint64_t offset,
                        uint32_t page_size)
{
    memset(to, 0, size);
    if (page_size == 0 || offset != 0 || size < PAGE_ONE_HEADER)
        return SQLITE_IOERR_SHORT_READ;
    page_one_set_page_size(to, page_size);
    return size == PAGE_ONE_HEADER ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int read_locked(struct volume_file *file, void *to, size_t size, uint64_t offset)
{
    struct graft_error why;
    uint32_t page_size = file->overlay ? file->buffers_size : file_page_size(file);
    uint64_t end = (uint64_t)page_count_of(file) * page_size;

    if (end == 0)
        return answer_empty(file, to, size, offset, page_size);
    size_t there = offset < end ? (size_t)MIN((uint64_t)size, end - offset) : 0;
    enum graft_status status = file_need_buffers(file, page_size, &why);
    if (status == GRAFT_OK)
        status = read_pages(file, to, there, offset, &why);
    if (status != GRAFT_OK)
        return errors_note(errors_code_of_read(&why), file->shared->vid, &why);
    memset((uint8_t *)to + there, 0, size - there);
    return there == size ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

int file_read(sqlite3_file *base, void *to, int size, sqlite3_int64 offset)
{
    struct volume_file *file = (struct volume_file *)base;
    struct graft_error why;

    if (runtime_is_forked(file->shared->runtime))
        return errors_note_text(SQLITE_IOERR_READ, file->shared->vid, GRAFT_INVALID,
                                "a database that was opened before fork() is used in the child");
    if (file->lock > SQLITE_LOCK_NONE || file->pinned_for_good)
        return read_locked(file, to, (size_t)size, (uint64_t)offset);
    // The probe of a database that is being opened, or what looks at it without a transaction.
    if (file_pin(file, &why) != GRAFT_OK)
        return errors_note(errors_code_of_read(&why), file->shared->vid, &why);
    int code = read_locked(file, to, (size_t)size, (uint64_t)offset);
    graft_snapshot_release(TAKE(file->pin));
    return code;
}

int file_size(sqlite3_file *base, sqlite3_int64 *ret_size)
{
    struct volume_file *file = (struct volume_file *)base;
    struct graft_volume *volume = atomic_load(&file->shared->volume);
    struct graft_volume_head head = {0};
    struct graft_error why;

    if (file->overlay) {
        *ret_size = (sqlite3_int64)overlay_page_count(file->overlay) * file->buffers_size;
        return SQLITE_OK;
    }
    if (file->lock > SQLITE_LOCK_NONE || file->pinned_for_good) {
        *ret_size = (sqlite3_int64)file->page_count * file_page_size(file);
        return SQLITE_OK;
    }
    if (volume && graft_volume_head(volume, &head, &why) != GRAFT_OK)
        return errors_note(SQLITE_IOERR_FSTAT, file->shared->vid, &why);
    *ret_size = (sqlite3_int64)head.page_count * head.page_size;
    return SQLITE_OK;
}

// ---- writing ------------------------------------------------------------------------------------

static bool is_page_size(uint64_t size)
{
    return size >= PAGE_SIZE_MIN && size <= PAGE_SIZE_MAX && (size & (size - 1)) == 0;
}

// The overlay of this transaction. A volume that is only named has the page size of the first write.
static enum graft_status need_overlay(struct volume_file *file, uint64_t write_size, struct graft_error *err)
{
    if (file->overlay)
        return GRAFT_OK;
    uint32_t page_size = file_page_size(file);
    if (page_size == 0 && !is_page_size(write_size))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the first write to a new volume has %llu bytes, which is no page size",
                         (unsigned long long)write_size);
    if (page_size == 0)
        page_size = (uint32_t)write_size;
    enum graft_status status = file_need_buffers(file, page_size, err);
    if (status != GRAFT_OK)
        return status;
    file->overlay =
        overlay_new(page_size, file->page_count, file->shared->runtime->folder, OVERLAY_MEMORY_MAX);
    if (!file->overlay)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a transaction");
    file->wrote_first = false;
    file->first_was_forced = false;
    return GRAFT_OK;
}

static enum graft_status note_first(struct volume_file *file, const uint8_t *page, struct graft_error *err)
{
    uint32_t stated = page_one_page_size(page);

    if (stated != file->buffers_size)
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
            "a database with pages of %u bytes cannot be written into volume %s, which has pages of %u",
            stated, file->shared->vid, file->buffers_size);
    file->written_counter = page_one_counter(page);
    file->written_page_count = page_one_page_count(page);
    file->wrote_first = true;
    file->first_was_forced = !page_one_is_rollback(page);
    file->cookie_last = page_one_cookie(page);
    file->cookie_seen = true;
    return GRAFT_OK;
}

static enum graft_status write_page(struct volume_file *file, uint32_t pageidx, const uint8_t *page,
                                    struct graft_error *err)
{
    enum graft_status status = pageidx == 1 ? note_first(file, page, err) : GRAFT_OK;
    return status == GRAFT_OK ? overlay_put(file->overlay, pageidx, page, err) : status;
}

static enum graft_status write_pages(struct volume_file *file, const uint8_t *data, size_t size,
                                     uint64_t offset, struct graft_error *err)
{
    uint32_t page_size = file->buffers_size;
    enum graft_status status = GRAFT_OK;

    while (size > 0 && status == GRAFT_OK) {
        uint64_t pageidx = offset / page_size + 1;
        uint32_t from = (uint32_t)(offset % page_size);
        uint32_t part = (uint32_t)MIN(size, (size_t)(page_size - from));
        if (pageidx > UINT32_MAX)
            return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                             "a volume has at most 4,294,967,295 pages");
        if (part == page_size) {
            status = write_page(file, (uint32_t)pageidx, data, err);
        } else {
            status = file_read_page(file, (uint32_t)pageidx, file->scratch, err);
            if (status == GRAFT_OK) {
                memcpy(file->scratch + from, data, part);
                status = write_page(file, (uint32_t)pageidx, file->scratch, err);
            }
        }
        data += part;
        offset += part;
        size -= part;
    }
    return status;
}

// What was changed without the lock could be anybody's.
static int refuse_without_lock(struct volume_file *file, int code)
{
    return errors_note_text(code, file->shared->vid, GRAFT_INTERNAL,
                            "volume %s was written without an exclusive lock; nothing was written",
                            file->shared->vid);
}

int file_write(sqlite3_file *base, const void *data, int size, sqlite3_int64 offset)
{
    struct volume_file *file = (struct volume_file *)base;
    struct graft_error why;

    if (runtime_is_forked(file->shared->runtime) || file->lock < SQLITE_LOCK_EXCLUSIVE || file->broken)
        return refuse_without_lock(file, SQLITE_IOERR_WRITE);
    stage_take_back(file); // a rollback begins
    enum graft_status status = need_overlay(file, (uint64_t)size, &why);
    if (status == GRAFT_OK)
        status = write_pages(file, data, (size_t)size, (uint64_t)offset, &why);
    if (status != GRAFT_OK)
        return errors_note(errors_code_of_write(&why), file->shared->vid, &why);
    return SQLITE_OK;
}

int file_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    struct volume_file *file = (struct volume_file *)base;
    struct graft_error why;

    if (runtime_is_forked(file->shared->runtime) || file->lock < SQLITE_LOCK_EXCLUSIVE || file->broken)
        return refuse_without_lock(file, SQLITE_IOERR_TRUNCATE);
    if (!file->overlay && file_page_size(file) == 0)
        return SQLITE_OK; // nothing is there to be cut
    // The truncation of a commit on several databases comes when it is decided, and is in it.
    if (file->staged && (uint64_t)size == (uint64_t)file_page_count_to_be(file) * file->buffers_size)
        return SQLITE_OK;
    stage_take_back(file);
    enum graft_status status = need_overlay(file, 0, &why);
    if (status == GRAFT_OK) {
        uint64_t page_count = ((uint64_t)size + file->buffers_size - 1) / file->buffers_size;
        status = overlay_truncate(file->overlay, (uint32_t)MIN(page_count, (uint64_t)UINT32_MAX), &why);
    }
    if (status != GRAFT_OK)
        return errors_note(errors_code_of_write(&why), file->shared->vid, &why);
    return SQLITE_OK;
}
