// SPDX-License-Identifier: Apache-2.0
#include "pagestore/segment_index.h"

#include <stdlib.h>
#include <zstd.h>

#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/limits.h"
#include "common/base/pageset.h"
#include "common/net/page_stream.h"

// A walk over the decoded index. The first pass counts runs, the second one fills.
struct index_walk {
    const struct segment_footer *footer;
    struct bytes raw;
    size_t at;
    uint32_t volumes, runs, pages; // so far
    uint32_t payload_end;
    // NULL in the counting pass
    struct segment_volume *ret_volumes;
    struct segment_run *ret_runs;
    struct segment_page *ret_pages;
};

static enum graft_status entry_decode(struct index_walk *walk, uint32_t pageidx, struct graft_error *err)
{
    const struct gid *sid = &walk->footer->sid;
    const uint8_t *from = walk->raw.data + walk->at;
    struct segment_page page = {
        .size = get_le32(from + 8),
        .raw_size = get_le32(from + 12),
        .encoding = from[16],
        .page_class = from[17],
        .checksum = get_le64(from + 24),
        .stored_checksum = get_le64(from + 32),
    };
    uint64_t offset = get_le64(from);
    const char *field = NULL;
    if (offset != walk->payload_end)
        field = "offset";
    else if (page.raw_size > PAGE_SIZE_MAX)
        field = "raw size";
    else if (page.encoding != PAGE_ENCODING_RAW && page.encoding != PAGE_ENCODING_ZSTD)
        field = "encoding";
    else if (page.encoding == PAGE_ENCODING_RAW ? page.size != page.raw_size : page.size >= page.raw_size)
        field = "size";
    else if (page.size > walk->footer->index_offset - walk->payload_end)
        field = "size";
    else if (memcmp(from + 18, "\0\0\0\0\0\0", 6) != 0)
        field = "zero bytes";
    if (field)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid,
                               "its index has an impossible %s for page %u", field, pageidx);
    page.offset = (uint32_t)offset;
    walk->payload_end += page.size;
    walk->at += SEGMENT_ENTRY_SIZE;
    walk->ret_pages[walk->pages++] = page;
    return GRAFT_OK;
}

// Counts the pages of a page set and, in the filling pass, notes its runs.
static enum graft_status page_set_decode(struct index_walk *walk, struct bytes wire, uint32_t *ret_count,
                                         struct graft_error *err)
{
    size_t offset = 0;
    uint32_t last = 0;
    uint64_t count = 0;
    struct page_run run;
    int more;
    while ((more = pageset_wire_next(wire, &offset, &last, &run)) == 1) {
        if (run.count > walk->footer->page_count - walk->pages - count) {
            more = -1;
            break;
        }
        if (walk->ret_runs)
            walk->ret_runs[walk->runs] = (struct segment_run){run.first, walk->pages + (uint32_t)count};
        walk->runs++;
        count += run.count;
    }
    if (more < 0 || count == 0)
        return segment_corrupt(
            err, GRAFT_DETAIL_BAD_PAGESET, &walk->footer->sid,
            "the page set of its volume %u is not canonical, is empty or has too many pages", walk->volumes);
    *ret_count = (uint32_t)count;
    return GRAFT_OK;
}

static enum graft_status volume_entries_decode(struct index_walk *walk, const struct segment_volume *volume,
                                               struct graft_error *err)
{
    for (uint32_t i = 0; i < volume->run_count; i++) {
        const struct segment_run *run = &walk->ret_runs[volume->first_run + i];
        uint32_t end = i + 1 < volume->run_count ? run[1].place : volume->first_page + volume->page_count;
        for (uint32_t place = run->place; place < end; place++) {
            enum graft_status status = entry_decode(walk, run->first + (place - run->place), err);
            if (status != GRAFT_OK)
                return status;
        }
    }
    return GRAFT_OK;
}

static enum graft_status volume_decode(struct index_walk *walk, struct graft_error *err)
{
    const struct gid *sid = &walk->footer->sid;
    const uint8_t *from = walk->raw.data + walk->at;
    if (walk->raw.size - walk->at < SEGMENT_VOLUME_HEAD_SIZE)
        return segment_corrupt(err, GRAFT_DETAIL_TRUNCATED, sid, "its index ends within volume %u",
                               walk->volumes);
    struct segment_volume volume = {.first_run = walk->runs, .first_page = walk->pages};
    memcpy(volume.vid.bytes, from, GID_SIZE);
    if (!gid_is_kind(&volume.vid, GID_VOLUME))
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid, "volume %u in its index has no VID",
                               walk->volumes);
    if (walk->ret_volumes && walk->volumes > 0 &&
        gid_compare(&walk->ret_volumes[walk->volumes - 1].vid, &volume.vid) >= 0)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid, "volumes in its index do not ascend at %s",
                               gid_format(&volume.vid).text);

    uint32_t wire_size = get_le32(from + GID_SIZE);
    walk->at += SEGMENT_VOLUME_HEAD_SIZE;
    if (wire_size > walk->raw.size - walk->at)
        return segment_corrupt(err, GRAFT_DETAIL_TRUNCATED, sid,
                               "its index ends within the page set of volume %u", walk->volumes);
    struct bytes wire = {walk->raw.data + walk->at, wire_size};
    enum graft_status status = page_set_decode(walk, wire, &volume.page_count, err);
    if (status != GRAFT_OK)
        return status;
    walk->at += wire_size;
    if ((uint64_t)volume.page_count * SEGMENT_ENTRY_SIZE > walk->raw.size - walk->at)
        return segment_corrupt(err, GRAFT_DETAIL_TRUNCATED, sid,
                               "its index ends within the pages of volume %u", walk->volumes);
    volume.run_count = walk->runs - volume.first_run;
    if (!walk->ret_volumes) {
        walk->at += (size_t)volume.page_count * SEGMENT_ENTRY_SIZE;
        walk->pages += volume.page_count;
    } else {
        walk->ret_volumes[walk->volumes] = volume;
        status = volume_entries_decode(walk, &volume, err);
    }
    walk->volumes++;
    return status;
}

// One pass over all volumes; invariant 5.
static enum graft_status index_walk(struct index_walk *walk, struct graft_error *err)
{
    const struct segment_footer *footer = walk->footer;
    walk->at = 0;
    walk->volumes = walk->runs = walk->pages = 0;
    walk->payload_end = SEGMENT_MAGIC_SIZE;
    while (walk->volumes < footer->volume_count) {
        enum graft_status status = volume_decode(walk, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (walk->at != walk->raw.size || walk->pages != footer->page_count)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, &footer->sid,
                               "its index has %u pages in %zu bytes, its footer says %u in %u", walk->pages,
                               walk->at, footer->page_count, footer->index_raw_size);
    if (walk->ret_volumes && walk->payload_end != footer->index_offset)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, &footer->sid,
                               "its payloads end at %u, its index begins at %u", walk->payload_end,
                               footer->index_offset);
    return GRAFT_OK;
}

static enum graft_status index_build(const struct segment_footer *footer, struct bytes raw,
                                     struct segment_index **ret_index, struct graft_error *err)
{
    struct index_walk walk = {.footer = footer, .raw = raw};
    enum graft_status status = index_walk(&walk, err);
    if (status != GRAFT_OK)
        return status;

    // The arrays follow the struct in order of falling alignment.
    size_t pages_size = (size_t)footer->page_count * sizeof(struct segment_page);
    size_t volumes_size = (size_t)footer->volume_count * sizeof(struct segment_volume);
    size_t runs_size = ((size_t)walk.runs + 1) * sizeof(struct segment_run);
    size_t memory = sizeof(struct segment_index) + pages_size + volumes_size + runs_size;
    struct segment_index *index = malloc(memory);
    if (!index)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the index of segment %s",
                         gid_format(&footer->sid).text);
    walk.ret_pages = (struct segment_page *)(index + 1);
    walk.ret_volumes = (struct segment_volume *)((uint8_t *)walk.ret_pages + pages_size);
    walk.ret_runs = (struct segment_run *)((uint8_t *)walk.ret_volumes + volumes_size);
    *index = (struct segment_index){*footer, memory, walk.ret_volumes, walk.ret_runs, walk.ret_pages};
    status = index_walk(&walk, err);
    if (status != GRAFT_OK) {
        segment_index_free(index);
        return status;
    }
    walk.ret_runs[walk.runs] = (struct segment_run){0, walk.pages};
    *ret_index = index;
    return GRAFT_OK;
}

enum graft_status segment_index_decode(const struct segment_footer *footer, struct bytes stored,
                                       struct segment_index **ret_index, struct graft_error *err)
{
    const struct gid *sid = &footer->sid;
    if (stored.size != footer->index_size)
        return segment_corrupt(err, GRAFT_DETAIL_TRUNCATED, sid, "%zu bytes of an index of %u", stored.size,
                               footer->index_size);
    if (!checksum_matches(footer->index_checksum, checksum64(stored.data, stored.size)))
        return segment_corrupt(err, GRAFT_DETAIL_BAD_CHECKSUM, sid, "its index fails its checksum");
    if (ZSTD_getFrameContentSize(stored.data, stored.size) != footer->index_raw_size)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid,
                               "its index does not decode to the %u bytes that its footer says",
                               footer->index_raw_size);
    uint8_t *raw = malloc(footer->index_raw_size);
    if (!raw)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the index of segment %s",
                         gid_format(sid).text);
    size_t size = ZSTD_decompress(raw, footer->index_raw_size, stored.data, stored.size);
    enum graft_status status;
    if (ZSTD_isError(size) || size != footer->index_raw_size)
        status = segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid, "its index is no zstd frame: %s",
                                 ZSTD_isError(size) ? ZSTD_getErrorName(size) : "wrong size");
    else
        status = index_build(footer, (struct bytes){raw, size}, ret_index, err);
    free(raw);
    return status;
}

enum graft_status segment_tail_decode(struct bytes tail, const struct gid *sid, uint64_t index_offset,
                                      uint64_t object_size, struct segment_index **ret_index,
                                      struct graft_error *err)
{
    if (tail.size < SEGMENT_FOOTER_SIZE)
        return segment_corrupt(err, GRAFT_DETAIL_TRUNCATED, sid,
                               "%zu bytes where its index and footer should be", tail.size);
    struct bytes at_end = {tail.data + tail.size - SEGMENT_FOOTER_SIZE, SEGMENT_FOOTER_SIZE};
    struct segment_footer footer;
    enum graft_status status = segment_footer_decode(at_end, sid, object_size, &footer, err);
    if (status != GRAFT_OK)
        return status;
    if (footer.index_offset != index_offset)
        return segment_corrupt(err, GRAFT_DETAIL_BAD_MESSAGE, sid,
                               "its index begins at %u, its references say %llu", footer.index_offset,
                               (unsigned long long)index_offset);
    return segment_index_decode(&footer, (struct bytes){tail.data, tail.size - SEGMENT_FOOTER_SIZE},
                                ret_index, err);
}

void segment_index_free(struct segment_index *index)
{
    free(index);
}

// ---- look-up

const struct segment_volume *segment_index_volume(const struct segment_index *index, const struct gid *vid)
{
    uint32_t low = 0, high = index->footer.volume_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = gid_compare(&index->volumes[middle].vid, vid);
        if (order == 0)
            return &index->volumes[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

// How many pages run `number` of the volume has. The run behind a volume's last one starts at the volume's
// end, since the next volume's pages follow and a closing run ends the array.
static uint32_t run_size(const struct segment_index *index, uint32_t number)
{
    return index->runs[number + 1].place - index->runs[number].place;
}

const struct segment_page *segment_index_page(const struct segment_index *index,
                                              const struct segment_volume *volume, uint32_t pageidx)
{
    uint32_t low = volume->first_run,
             high = low + volume->run_count; // the run sought is the last with first ≤ pageidx
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (index->runs[middle].first <= pageidx)
            low = middle;
        else
            high = middle;
    }
    const struct segment_run *run = &index->runs[low];
    if (pageidx < run->first || pageidx - run->first >= run_size(index, low))
        return NULL;
    return &index->pages[run->place + (pageidx - run->first)];
}

uint32_t segment_index_pageidx(const struct segment_index *index, const struct segment_volume *volume,
                               uint32_t place)
{
    uint32_t low = volume->first_run, high = low + volume->run_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (index->runs[middle].place <= place)
            low = middle;
        else
            high = middle;
    }
    CHECK(place >= volume->first_page && place - volume->first_page < volume->page_count);
    return index->runs[low].first + (place - index->runs[low].place);
}
