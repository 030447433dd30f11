// SPDX-License-Identifier: Apache-2.0
//
// A volume as a file of bytes. What is written goes through one writer, made at the first write and committed
// by sync.
//
// Invariants
// 1. The file's bytes are those of the pages 1 … page_count, one behind the other: in a variable volume every
// page but
//    the last is full. Where that does not hold (somebody wrote its pages otherwise) the file cannot be
//    opened.
// 2. `size` is the size that readers see: of the writer where there is one, else of the snapshot.
#include <stdlib.h>

#include "client/client.h"
#include "common/base/check.h"

#define READ_PAGES_AT_ONCE 64u

struct graft_file {
    struct graft_volume *volume;
    struct graft_snapshot *snapshot; // what is read while nothing is written
    struct graft_writer *writer;     // NULL: nothing was written since the last sync
    uint64_t size;
    uint8_t *page; // page_size bytes of scratch
};

static uint32_t page_size_of(const struct graft_file *file)
{
    return file->volume->source.page_size;
}

static enum graft_status page_read(struct graft_file *file, uint32_t pageidx, void *to, size_t *ret_size,
                                   struct graft_error *err)
{
    if (file->writer)
        return graft_writer_read(file->writer, pageidx, to, page_size_of(file), ret_size, err);
    return graft_snapshot_read(file->snapshot, pageidx, to, page_size_of(file), ret_size, err);
}

// Shows the local head: a new snapshot, and the size that follows from it.
static enum graft_status file_refresh(struct graft_file *file, struct graft_error *err)
{
    struct graft_snapshot *snapshot;
    size_t last_size = page_size_of(file);

    enum graft_status status = graft_snapshot_open(file->volume, &snapshot, err);
    if (status != GRAFT_OK)
        return status;
    uint32_t page_count = graft_snapshot_page_count(snapshot);
    if (file->volume->source.variable && page_count > 0)
        status = graft_snapshot_read(snapshot, page_count, file->page, page_size_of(file), &last_size, err);
    if (status != GRAFT_OK) {
        graft_snapshot_release(snapshot);
        return status;
    }
    graft_snapshot_release(file->snapshot);
    file->snapshot = snapshot;
    file->size = page_count == 0 ? 0 : (uint64_t)(page_count - 1) * page_size_of(file) + last_size;
    return GRAFT_OK;
}

enum graft_status graft_file_open(struct graft_volume *volume, struct graft_file **ret_file,
                                  struct graft_error *err)
{
    REQUIRE(volume);
    REQUIRE(ret_file);
    struct graft_file *file = calloc(1, sizeof *file);
    if (!file || !(file->page = malloc(volume->source.page_size))) {
        free(file);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to open a file");
    }
    file->volume = volume;
    enum graft_status status = file_refresh(file, err);
    if (status != GRAFT_OK) {
        graft_file_close(file);
        return status;
    }
    *ret_file = file;
    return GRAFT_OK;
}

void graft_file_close(struct graft_file *file)
{
    if (!file || client_is_forked(file->volume->client))
        return;
    graft_writer_abort(file->writer);
    graft_snapshot_release(file->snapshot);
    free(file->page);
    free(file);
}

enum graft_status graft_file_size(struct graft_file *file, uint64_t *ret_size, struct graft_error *err)
{
    REQUIRE(file);
    REQUIRE(ret_size);
    *ret_size = file->size;
    return GRAFT_OK;
}

static uint32_t pageidx_of(const struct graft_file *file, uint64_t offset)
{
    return (uint32_t)(offset / page_size_of(file)) + 1;
}

static enum graft_status bad_page(const struct graft_file *file, uint32_t pageidx, size_t size,
                                  struct graft_error *err)
{
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_NONE,
                     "page %u of volume %s has %zu bytes though it is not the last: its pages are no file",
                     pageidx, gid_format(&file->volume->source.vid).text, size);
}

// Whole pages, from the snapshot, right to where they are wanted.
static enum graft_status read_pages(struct graft_file *file, uint32_t first, uint32_t count, uint8_t *to,
                                    struct graft_error *err)
{
    struct graft_page_read reads[READ_PAGES_AT_ONCE];
    uint32_t page_size = page_size_of(file);

    for (uint32_t i = 0; i < count; i++)
        reads[i] = (struct graft_page_read){.pageidx = first + i, .to = to + (size_t)i * page_size};
    enum graft_status status = graft_snapshot_read_many(file->snapshot, reads, count, err);
    for (uint32_t i = 0; i < count && status == GRAFT_OK; i++) {
        if (reads[i].size < page_size)
            status = bad_page(file, reads[i].pageidx, reads[i].size, err);
    }
    return status;
}

enum graft_status graft_file_read(struct graft_file *file, uint64_t offset, void *to, size_t size,
                                  size_t *ret_size, struct graft_error *err)
{
    size_t done = 0;

    REQUIRE(file);
    REQUIRE(ret_size);
    if (size > 0)
        REQUIRE(to);
    size = offset >= file->size ? 0 : (size_t)MIN((uint64_t)size, file->size - offset);
    while (done < size) {
        uint64_t at = offset + done;
        size_t within = at % page_size_of(file);
        size_t count = MIN(size - done, page_size_of(file) - within);
        bool whole = within == 0 && count == page_size_of(file);
        uint32_t pages = (uint32_t)MIN((size - done) / page_size_of(file), (size_t)READ_PAGES_AT_ONCE);
        if (whole && pages > 1 && !file->writer) {
            enum graft_status status =
                read_pages(file, pageidx_of(file, at), pages, (uint8_t *)to + done, err);
            if (status != GRAFT_OK)
                return status;
            done += (size_t)pages * page_size_of(file);
            continue;
        }
        uint8_t *page = whole ? (uint8_t *)to + done : file->page;
        size_t page_size;
        enum graft_status status = page_read(file, pageidx_of(file, at), page, &page_size, err);
        if (status != GRAFT_OK)
            return status;
        if (page_size < within + count)
            return bad_page(file, pageidx_of(file, at), page_size, err);
        if (!whole)
            memcpy((uint8_t *)to + done, page + within, count);
        done += count;
    }
    *ret_size = done;
    return GRAFT_OK;
}

// ---- writing ------------------------------------------------------------------------------------

static enum graft_status need_writer(struct graft_file *file, struct graft_error *err)
{
    struct graft_writer *writer;

    if (file->writer)
        return GRAFT_OK;
    enum graft_status status = graft_writer_begin(file->volume, &writer, err);
    if (status != GRAFT_OK)
        return status;
    // The writer begins on the head, which may have moved since the snapshot was taken: then what the
    // application has read is not what it would write upon.
    if (writer_base_lsn(writer) != graft_snapshot_local_lsn(file->snapshot)) {
        graft_writer_abort(writer);
        status = file_refresh(file, err);
        if (status != GRAFT_OK)
            return status;
        return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
                         "volume %s has moved on since the file was read: it now shows the new head",
                         gid_format(&file->volume->source.vid).text);
    }
    file->writer = writer;
    return GRAFT_OK;
}

// How long the page is to be once the file has `size` bytes.
static size_t page_length(const struct graft_file *file, uint32_t pageidx, uint64_t size)
{
    uint64_t start = (uint64_t)(pageidx - 1) * page_size_of(file);

    if (!file->volume->source.variable)
        return page_size_of(file);
    return (size_t)MIN(size - start, (uint64_t)page_size_of(file));
}

// Puts `count` bytes (NULL: zeros) at `within` of a page that is to be `length` bytes long.
static enum graft_status patch_page(struct graft_file *file, uint32_t pageidx, size_t within,
                                    const void *data, size_t count, size_t length, struct graft_error *err)
{
    size_t have = 0;

    if (data && within == 0 && count == length)
        return graft_writer_write(file->writer, pageidx, data, length, err);
    // Old bytes are needed only where the patch does not cover them.
    if ((within > 0 || count < length) && pageidx <= graft_writer_page_count(file->writer)) {
        enum graft_status status = page_read(file, pageidx, file->page, &have, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (have < length)
        memset(file->page + have, 0, length - have);
    if (data)
        memcpy(file->page + within, data, count);
    return graft_writer_write(file->writer, pageidx, file->page, length, err);
}

// Makes a variable volume's pages full up to `size`: pages in between were never written, and a page that was
// the last and short is not the last any more. In a fixed volume such pages read as zeros by themselves.
static enum graft_status fill_gap(struct graft_file *file, uint64_t size, struct graft_error *err)
{
    if (!file->volume->source.variable || size <= file->size)
        return GRAFT_OK;
    while (file->size < size) {
        uint32_t pageidx = pageidx_of(file, file->size);
        uint64_t start = (uint64_t)(pageidx - 1) * page_size_of(file);
        size_t length = (size_t)MIN(size - start, (uint64_t)page_size_of(file));
        size_t within = (size_t)(file->size - start);
        enum graft_status status = patch_page(file, pageidx, within, NULL, length - within, length, err);
        if (status != GRAFT_OK)
            return status;
        file->size = start + length;
    }
    return GRAFT_OK;
}

static enum graft_status check_end(const struct graft_file *file, uint64_t offset, uint64_t size,
                                   struct graft_error *err)
{
    uint64_t size_max = (uint64_t)PAGEIDX_MAX * page_size_of(file);

    if (offset > size_max || size > size_max - offset)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "a volume of pages of %u bytes holds at most %llu bytes", page_size_of(file),
                         (unsigned long long)size_max);
    return GRAFT_OK;
}

enum graft_status graft_file_write(struct graft_file *file, uint64_t offset, const void *data, size_t size,
                                   struct graft_error *err)
{
    REQUIRE(file);
    if (size == 0)
        return GRAFT_OK;
    REQUIRE(data);
    enum graft_status status = check_end(file, offset, size, err);
    if (status == GRAFT_OK)
        status = need_writer(file, err);
    if (status == GRAFT_OK)
        status = fill_gap(file, offset, err);
    for (size_t done = 0; status == GRAFT_OK && done < size;) {
        uint64_t at = offset + done;
        size_t within = at % page_size_of(file);
        size_t count = MIN(size - done, page_size_of(file) - within);
        uint32_t pageidx = pageidx_of(file, at);
        uint64_t end = MAX(file->size, at + count);
        status = patch_page(file, pageidx, within, (const uint8_t *)data + done, count,
                            page_length(file, pageidx, end), err);
        if (status != GRAFT_OK)
            break;
        done += count;
        file->size = file->volume->source.variable
                         ? end
                         : (uint64_t)graft_writer_page_count(file->writer) * page_size_of(file);
    }
    return status;
}

enum graft_status graft_file_truncate(struct graft_file *file, uint64_t size, struct graft_error *err)
{
    REQUIRE(file);
    enum graft_status status = check_end(file, size, 0, err);
    if (status == GRAFT_OK)
        status = need_writer(file, err);
    if (status != GRAFT_OK)
        return status;
    if (size >= file->size && file->volume->source.variable)
        return fill_gap(file, size, err);
    uint64_t pages = size / page_size_of(file) + (size % page_size_of(file) > 0);
    uint32_t page_count = (uint32_t)pages;
    status = graft_writer_truncate(file->writer, page_count, err);
    if (status != GRAFT_OK)
        return status;
    size_t last = size % page_size_of(file);
    if (last == 0 || size >= file->size) {
        file->size = pages * page_size_of(file);
        return GRAFT_OK;
    }
    // The new last page loses its tail: cut short, or in a fixed volume zeroed.
    file->size = file->volume->source.variable ? size : pages * page_size_of(file);
    size_t have;
    status = page_read(file, page_count, file->page, &have, err);
    if (status != GRAFT_OK)
        return status;
    if (!file->volume->source.variable)
        memset(file->page + last, 0, page_size_of(file) - last);
    return graft_writer_write(file->writer, page_count, file->page,
                              file->volume->source.variable ? last : page_size_of(file), err);
}

enum graft_status graft_file_sync(struct graft_file *file, struct graft_error *err)
{
    REQUIRE(file);
    if (!file->writer)
        return GRAFT_OK;
    enum graft_status status = graft_writer_commit(TAKE(file->writer), NULL, err);
    struct graft_error why;
    enum graft_status refreshed = file_refresh(file, &why);
    if (status == GRAFT_OK && refreshed != GRAFT_OK)
        return error_copy(err, &why);
    return status;
}
