// SPDX-License-Identifier: Apache-2.0
//
// The input is an index as it is before compression, behind the counts and the place that a footer gives.
// Whatever decodes keeps the invariants of segment_format.h, and every page that it holds is found.
#include <stdlib.h>
#include <zstd.h>

#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/limits.h"
#include "common/base/pageset.h"
#include "common/net/page_stream.h"
#include "pagestore/segment_index.h"

#define HEAD_SIZE 10u // index offset 4, volumes 2, pages 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_volume(const struct segment_index *index, const struct segment_volume *volume)
{
    uint32_t before = 0;
    for (uint32_t place = volume->first_page; place < volume->first_page + volume->page_count; place++) {
        uint32_t pageidx = segment_index_pageidx(index, volume, place);
        CHECK(pageidx > before);
        CHECK(segment_index_page(index, volume, pageidx) == &index->pages[place]);
        before = pageidx;
    }
}

static void check_index(const struct segment_index *index)
{
    uint32_t at = SEGMENT_MAGIC_SIZE, pages = 0;
    for (uint32_t i = 0; i < index->footer.page_count; i++) {
        CHECK(index->pages[i].offset == at && index->pages[i].raw_size <= PAGE_SIZE_MAX);
        at += index->pages[i].size;
    }
    CHECK(at == index->footer.index_offset);
    for (uint32_t i = 0; i < index->footer.volume_count; i++) {
        const struct segment_volume *volume = &index->volumes[i];
        CHECK(i == 0 || gid_compare(&index->volumes[i - 1].vid, &volume->vid) < 0);
        CHECK(segment_index_volume(index, &volume->vid) == volume);
        CHECK(volume->first_page == pages && volume->page_count > 0);
        pages += volume->page_count;
        check_volume(index, volume);
    }
    CHECK(pages == index->footer.page_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD_SIZE || size > SEGMENT_INDEX_SIZE_MAX)
        return 0;
    size_t raw_size = size - HEAD_SIZE, bound = ZSTD_compressBound(raw_size);
    struct segment_footer footer = {
        .sid = {{GID_SEGMENT}},
        .index_offset = get_le32(data),
        .index_raw_size = (uint32_t)raw_size,
        .volume_count = get_le16(data + 4),
        .page_count = get_le32(data + 6),
    };
    uint8_t *tail = malloc(bound + SEGMENT_FOOTER_SIZE);
    CHECK(tail);
    size_t stored = ZSTD_compress(tail, bound, data + HEAD_SIZE, raw_size, 1);
    CHECK(!ZSTD_isError(stored));
    footer.index_size = (uint32_t)stored;
    footer.index_checksum = checksum64(tail, stored);
    footer.object_size = (uint32_t)(footer.index_offset + stored + SEGMENT_FOOTER_SIZE);
    segment_footer_encode(tail + stored, &footer);

    struct segment_index *index = NULL;
    struct graft_error err;
    enum graft_status status = segment_tail_decode(
        (struct bytes){tail, stored + SEGMENT_FOOTER_SIZE}, &footer.sid, footer.index_offset,
        (uint64_t)footer.index_offset + stored + SEGMENT_FOOTER_SIZE, &index, &err);
    if (status == GRAFT_OK)
        check_index(index);
    else
        CHECK(status == GRAFT_CORRUPT && err.status == status && err.message[0]);
    segment_index_free(TAKE(index));

    // The same bytes as if they lay in the store: almost always refused, and never read beyond.
    (void)segment_tail_decode((struct bytes){data, size}, &footer.sid, 8, size + 8, &index, &err);
    segment_index_free(index);
    free(tail);
    return 0;
}
