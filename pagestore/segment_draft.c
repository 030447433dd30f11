// SPDX-License-Identifier: Apache-2.0
#include "pagestore/segment_draft.h"

#include <stdlib.h>
#include <zstd.h>

#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/limits.h"
#include "common/net/page_stream.h"

#define INDEX_ZSTD_LEVEL 1

void segment_draft_release(struct segment_draft *draft)
{
    free(draft->volumes);
    free(draft->pages);
    *draft = (struct segment_draft){0};
}

// Doubles `*items` until `count` fit.
static bool grow(void **items, uint32_t *capacity, uint32_t count, size_t item_size)
{
    if (count <= *capacity)
        return true;
    uint32_t wanted = MAX(*capacity, 64u);
    while (wanted < count)
        wanted *= 2;
    void *grown = realloc(*items, wanted * item_size);
    if (!grown)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

static enum graft_status draft_reserve(struct segment_draft *draft, uint32_t volumes, uint32_t pages,
                                       struct graft_error *err)
{
    if (pages > SEGMENT_PAGES_MAX - draft->page_count)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "a segment holds at most %u pages",
                         SEGMENT_PAGES_MAX);
    if (draft->volume_count + volumes > SEGMENT_VOLUMES_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "a segment holds pages of at most %u volumes", SEGMENT_VOLUMES_MAX);
    if (!grow((void **)&draft->volumes, &draft->volume_capacity, draft->volume_count + volumes,
              sizeof *draft->volumes) ||
        !grow((void **)&draft->pages, &draft->page_capacity, draft->page_count + pages, sizeof *draft->pages))
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a segment's index");
    return GRAFT_OK;
}

enum graft_status segment_draft_add(struct segment_draft *draft, const struct gid *vid,
                                    const struct segment_draft_page *pages, uint32_t count,
                                    struct graft_error *err)
{
    if (count == 0)
        return GRAFT_OK;
    struct segment_draft_volume *last =
        draft->volume_count > 0 ? &draft->volumes[draft->volume_count - 1] : NULL;
    bool same = last && gid_equal(&last->vid, vid);
    CHECK(!last || same || gid_compare(&last->vid, vid) < 0);
    enum graft_status status = draft_reserve(draft, same ? 0 : 1, count, err);
    if (status != GRAFT_OK)
        return status;

    uint32_t before = same ? draft->pages[draft->page_count - 1].pageidx : 0;
    for (uint32_t i = 0; i < count; i++) {
        CHECK(pages[i].pageidx > before);
        before = pages[i].pageidx;
    }
    if (!same)
        draft->volumes[draft->volume_count++] = (struct segment_draft_volume){*vid, draft->page_count, 0};
    memcpy(draft->pages + draft->page_count, pages, count * sizeof *pages);
    draft->page_count += count;
    draft->volumes[draft->volume_count - 1].count += count;
    return GRAFT_OK;
}

// The run of successive page numbers that starts at pages[from].
static struct page_run draft_run(const struct segment_draft_page *pages, uint32_t from, uint32_t count)
{
    struct page_run run = {pages[from].pageidx, 1};
    while (from + run.count < count && pages[from + run.count].pageidx == run.first + run.count)
        run.count++;
    return run;
}

void segment_draft_page_sets(const struct segment_draft_page *pages, uint32_t count,
                             struct pageset **ret_pages, struct pageset **ret_structural)
{
    *ret_pages = pageset_new();
    *ret_structural = pageset_new();
    for (uint32_t i = 0; i < count;) {
        struct page_run run = draft_run(pages, i, count);
        pageset_add_run(*ret_pages, run.first, run.count);
        i += run.count;
    }
    for (uint32_t i = 0; i < count; i++)
        if (pages[i].page.page_class >= PAGE_CLASS_STRUCTURAL)
            pageset_add(*ret_structural, pages[i].pageidx);
}

// ---- encoding

static void entry_put(uint8_t *to, const struct segment_page *page)
{
    memset(to, 0, SEGMENT_ENTRY_SIZE);
    put_le64(to, page->offset);
    put_le32(to + 8, page->size);
    put_le32(to + 12, page->raw_size);
    to[16] = page->encoding;
    to[17] = page->page_class;
    put_le64(to + 24, page->checksum);
    put_le64(to + 32, page->stored_checksum);
}

static enum graft_status volume_encode(const struct segment_draft *draft,
                                       const struct segment_draft_volume *volume, struct buffer *to,
                                       struct graft_error *err)
{
    const struct segment_draft_page *pages = draft->pages + volume->first;
    uint8_t head[SEGMENT_VOLUME_HEAD_SIZE];
    memcpy(head, volume->vid.bytes, GID_SIZE);
    size_t head_at = to->size;
    enum graft_status status = buffer_append(to, head, sizeof head, err);

    _cleanup_(pageset_free_p) struct pageset *set = pageset_new();
    for (uint32_t i = 0; i < volume->count;) {
        struct page_run run = draft_run(pages, i, volume->count);
        pageset_add_run(set, run.first, run.count);
        i += run.count;
    }
    if (status == GRAFT_OK)
        status = pageset_encode(set, to, err);
    if (status != GRAFT_OK)
        return status;
    put_le32(to->data + head_at + GID_SIZE, (uint32_t)(to->size - head_at - SEGMENT_VOLUME_HEAD_SIZE));

    status = buffer_reserve(to, (size_t)volume->count * SEGMENT_ENTRY_SIZE, err);
    for (uint32_t i = 0; status == GRAFT_OK && i < volume->count; i++) {
        uint8_t entry[SEGMENT_ENTRY_SIZE];
        entry_put(entry, &pages[i].page);
        status = buffer_append(to, entry, sizeof entry, err);
    }
    return status;
}

// The encoder's half of invariant 2.
static void draft_check(const struct segment_draft *draft, uint32_t index_offset)
{
    uint32_t at = SEGMENT_MAGIC_SIZE;
    for (uint32_t i = 0; i < draft->page_count; i++) {
        CHECK(draft->pages[i].page.offset == at);
        at += draft->pages[i].page.size;
    }
    CHECK(at == index_offset && draft->page_count > 0);
}

enum graft_status segment_tail_encode(const struct segment_draft *draft, const struct gid *sid,
                                      uint32_t index_offset, struct buffer *to,
                                      struct segment_footer *ret_footer, struct graft_error *err)
{
    draft_check(draft, index_offset);
    _cleanup_(buffer_release) struct buffer raw = BUFFER_INIT(SEGMENT_INDEX_SIZE_MAX);
    for (uint32_t i = 0; i < draft->volume_count; i++) {
        enum graft_status status = volume_encode(draft, &draft->volumes[i], &raw, err);
        if (status != GRAFT_OK)
            return error_context(err, status, "encoding the index of segment %s", gid_format(sid).text);
    }

    size_t at = to->size;
    enum graft_status status = buffer_reserve(to, ZSTD_compressBound(raw.size) + SEGMENT_FOOTER_SIZE, err);
    if (status != GRAFT_OK)
        return status;
    size_t stored =
        ZSTD_compress(to->data + at, ZSTD_compressBound(raw.size), raw.data, raw.size, INDEX_ZSTD_LEVEL);
    if (ZSTD_isError(stored))
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                         "compressing the index of segment %s: %s", gid_format(sid).text,
                         ZSTD_getErrorName(stored));
    struct segment_footer footer = {
        .sid = *sid,
        .index_offset = index_offset,
        .index_size = (uint32_t)stored,
        .index_raw_size = (uint32_t)raw.size,
        .object_size = (uint32_t)(index_offset + stored + SEGMENT_FOOTER_SIZE),
        .index_checksum = checksum64(to->data + at, stored),
        .volume_count = (uint16_t)draft->volume_count,
        .page_count = draft->page_count,
    };
    CHECK(footer.object_size <= SEGMENT_SIZE_MAX);
    segment_footer_encode(to->data + at + stored, &footer);
    to->size = at + stored + SEGMENT_FOOTER_SIZE;
    *ret_footer = footer;
    return GRAFT_OK;
}
