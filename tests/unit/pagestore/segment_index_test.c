// SPDX-License-Identifier: Apache-2.0
//
// A segment's index and footer: round trips, and every malformed form under checksums that are right.
#include "pagestore/segment_index.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <zstd.h>

#include "common/base/checksum.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/net/page_stream.h"
#include "pagestore/segment_draft.h"

static const struct gid sid = {{GID_SEGMENT, 1, 2, 3}};
static const struct gid vids[] = {{{GID_VOLUME, 1}}, {{GID_VOLUME, 2}}, {{GID_VOLUME, 3}}};

static struct segment_draft_page draft_page(uint32_t pageidx, uint32_t offset, uint32_t size)
{
    return (struct segment_draft_page){
        pageidx,
        {
            .offset = offset,
            .size = size,
            .raw_size = size % 2 ? 4096 : size,
            .encoding = size % 2 ? PAGE_ENCODING_ZSTD : PAGE_ENCODING_RAW,
            .page_class = (uint8_t)(pageidx % 5),
            .checksum = 1000 + pageidx,
            .stored_checksum = 2000 + pageidx,
        },
    };
}

// Page numbers in runs and holes, sizes odd (zstd) and even (raw); returns where the payloads end.
static uint32_t draft_fill(struct segment_draft *draft, unsigned volumes, uint32_t pages)
{
    uint32_t at = SEGMENT_MAGIC_SIZE;
    for (unsigned v = 0; v < volumes; v++) {
        uint32_t pageidx = 0;
        for (uint32_t i = 0; i < pages; i++) {
            pageidx += i % 7 == 3 ? 10 + v : 1;
            struct segment_draft_page page = draft_page(pageidx, at, 300 + (i * 37 + v) % 900);
            cr_assert_eq(segment_draft_add(draft, &vids[v], &page, 1, NULL), GRAFT_OK);
            at += page.page.size;
        }
    }
    return at;
}

static struct buffer tail_of(const struct segment_draft *draft, uint32_t index_offset,
                             struct segment_footer *ret_footer)
{
    struct buffer tail = BUFFER_INIT(16 * MIB);
    cr_assert_eq(segment_tail_encode(draft, &sid, index_offset, &tail, ret_footer, NULL), GRAFT_OK);
    return tail;
}

static void check_page(const struct segment_index *index, const struct segment_draft_volume *volume,
                       const struct segment_draft_page *expected)
{
    const struct segment_volume *found = segment_index_volume(index, &volume->vid);
    const struct segment_page *page = segment_index_page(index, found, expected->pageidx);
    cr_assert(page);
    cr_assert_eq(page->offset, expected->page.offset);
    cr_assert_eq(page->size, expected->page.size);
    cr_assert_eq(page->raw_size, expected->page.raw_size);
    cr_assert_eq(page->encoding, expected->page.encoding);
    cr_assert_eq(page->page_class, expected->page.page_class);
    cr_assert_eq(page->checksum, expected->page.checksum);
    cr_assert_eq(page->stored_checksum, expected->page.stored_checksum);
    cr_assert_eq(segment_index_pageidx(index, found, (uint32_t)(page - index->pages)), expected->pageidx);
}

Test(segment_index, what_was_drafted_comes_back)
{
    for (unsigned volumes = 1; volumes <= ARRAY_COUNT(vids); volumes++) {
        for (uint32_t pages = 1; pages <= 400; pages = pages * 3 + 1) {
            struct segment_draft draft = {0};
            struct segment_footer footer;
            uint32_t end = draft_fill(&draft, volumes, pages);
            _cleanup_(buffer_release) struct buffer tail = tail_of(&draft, end, &footer);
            _cleanup_(segment_index_free_p) struct segment_index *index = NULL;
            struct graft_error err;
            cr_assert_eq(
                segment_tail_decode(buffer_bytes(&tail), &sid, end, footer.object_size, &index, &err),
                GRAFT_OK, "%s", err.message);
            cr_assert_eq(index->footer.volume_count, volumes);
            cr_assert_eq(index->footer.page_count, volumes * pages);
            for (unsigned v = 0; v < volumes; v++)
                for (uint32_t i = 0; i < draft.volumes[v].count; i++)
                    check_page(index, &draft.volumes[v], &draft.pages[draft.volumes[v].first + i]);
            segment_draft_release(&draft);
        }
    }
}

Test(segment_index, pages_and_volumes_that_are_not_there_are_not_found)
{
    struct segment_draft draft = {0};
    struct segment_footer footer;
    uint32_t end = SEGMENT_MAGIC_SIZE;
    static const uint32_t held[] = {2, 3, 7, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(held); i++, end += 512) {
        struct segment_draft_page page = draft_page(held[i], end, 512);
        cr_assert_eq(segment_draft_add(&draft, &vids[1], &page, 1, NULL), GRAFT_OK);
    }
    _cleanup_(buffer_release) struct buffer tail = tail_of(&draft, end, &footer);
    _cleanup_(segment_index_free_p) struct segment_index *index = NULL;
    cr_assert_eq(segment_tail_decode(buffer_bytes(&tail), &sid, end, footer.object_size, &index, NULL),
                 GRAFT_OK);
    cr_assert_null(segment_index_volume(index, &vids[0]));
    cr_assert_null(segment_index_volume(index, &vids[2]));
    const struct segment_volume *volume = segment_index_volume(index, &vids[1]);
    static const uint32_t absent[] = {0, 1, 4, 6, 8, UINT32_MAX - 1};
    for (size_t i = 0; i < ARRAY_COUNT(absent); i++)
        cr_assert_null(segment_index_page(index, volume, absent[i]), "%u", absent[i]);
    for (size_t i = 0; i < ARRAY_COUNT(held); i++)
        cr_assert_not_null(segment_index_page(index, volume, held[i]), "%u", held[i]);
    segment_draft_release(&draft);
}

Test(segment_index, page_sets_tell_which_pages_are_structural)
{
    struct segment_draft draft = {0};
    draft_fill(&draft, 1, 100);
    struct pageset *pages, *structural;
    segment_draft_page_sets(draft.pages, draft.page_count, &pages, &structural);
    cr_assert_eq(pageset_count(pages), 100);
    for (uint32_t i = 0; i < draft.page_count; i++) {
        cr_assert(pageset_contains(pages, draft.pages[i].pageidx));
        cr_assert_eq(pageset_contains(structural, draft.pages[i].pageidx),
                     draft.pages[i].page.page_class >= PAGE_CLASS_STRUCTURAL);
    }
    pageset_free(pages);
    pageset_free(structural);
    segment_draft_release(&draft);
}

Test(segment_index, a_draft_is_bounded)
{
    struct segment_draft draft = {0};
    struct segment_draft_page *pages = calloc(SEGMENT_PAGES_MAX + 1, sizeof *pages);
    for (uint32_t i = 0; i <= SEGMENT_PAGES_MAX; i++)
        pages[i] = draft_page(2 * i + 1, SEGMENT_MAGIC_SIZE, 0);
    struct graft_error err;
    cr_assert_eq(segment_draft_add(&draft, &vids[0], pages, SEGMENT_PAGES_MAX + 1, &err), GRAFT_LIMIT);
    cr_assert_eq(draft.page_count, 0);
    cr_assert_eq(segment_draft_add(&draft, &vids[0], pages, SEGMENT_PAGES_MAX, &err), GRAFT_OK);
    cr_assert_eq(segment_draft_add(&draft, &vids[1], pages, 1, &err), GRAFT_LIMIT);
    // The largest index that there can be still encodes and decodes.
    struct segment_footer footer;
    _cleanup_(buffer_release) struct buffer tail = tail_of(&draft, SEGMENT_MAGIC_SIZE, &footer);
    _cleanup_(segment_index_free_p) struct segment_index *index = NULL;
    cr_assert_eq(
        segment_tail_decode(buffer_bytes(&tail), &sid, SEGMENT_MAGIC_SIZE, footer.object_size, &index, &err),
        GRAFT_OK, "%s", err.message);
    cr_assert_eq(index->footer.page_count, SEGMENT_PAGES_MAX);
    free(pages);
    segment_draft_release(&draft);
}

// ---- malformed

// An index of two volumes with two pages each, taken apart so that a test may spoil any part of it; what
// protects it is computed afterwards.
struct crafted {
    uint8_t raw[512];
    size_t raw_size;
    struct segment_footer footer;
};

#define VOLUME_BYTES (SEGMENT_VOLUME_HEAD_SIZE + 2 + 2 * SEGMENT_ENTRY_SIZE)
#define WIRE_AT(volume) ((volume)*VOLUME_BYTES + SEGMENT_VOLUME_HEAD_SIZE)
#define ENTRY_AT(volume, page) (WIRE_AT(volume) + 2 + (page)*SEGMENT_ENTRY_SIZE)

static struct crafted craft(void)
{
    struct crafted crafted = {.raw_size = 2 * VOLUME_BYTES};
    uint32_t at = SEGMENT_MAGIC_SIZE;
    for (unsigned v = 0; v < 2; v++) {
        uint8_t *to = crafted.raw + v * VOLUME_BYTES;
        memcpy(to, vids[v].bytes, GID_SIZE);
        put_le32(to + GID_SIZE, 2);
        crafted.raw[WIRE_AT(v)] = 4; // pages 5 and 6
        crafted.raw[WIRE_AT(v) + 1] = 2;
        for (unsigned p = 0; p < 2; p++, at += 512) {
            uint8_t *entry = crafted.raw + ENTRY_AT(v, p);
            put_le64(entry, at);
            put_le32(entry + 8, 512);
            put_le32(entry + 12, 512);
        }
    }
    crafted.footer =
        (struct segment_footer){.sid = sid, .index_offset = at, .volume_count = 2, .page_count = 4};
    return crafted;
}

static enum graft_status decode_crafted(const struct crafted *crafted, struct graft_error *err)
{
    uint8_t stored[1024];
    struct segment_footer footer = crafted->footer;
    size_t size = ZSTD_compress(stored, sizeof stored, crafted->raw, crafted->raw_size, 1);
    cr_assert(!ZSTD_isError(size));
    footer.index_size = (uint32_t)size;
    footer.index_raw_size = (uint32_t)crafted->raw_size;
    footer.index_checksum = checksum64(stored, size);
    _cleanup_(segment_index_free_p) struct segment_index *index = NULL;
    enum graft_status status = segment_index_decode(&footer, (struct bytes){stored, size}, &index, err);
    cr_assert_eq(status == GRAFT_OK, index != NULL);
    return status;
}

static void check_refused(const struct crafted *crafted, const char *what)
{
    struct graft_error err = {0};
    cr_assert_eq(decode_crafted(crafted, &err), GRAFT_CORRUPT, "%s", what);
    cr_assert(strstr(err.message, gid_format(&sid).text), "%s: %s", what, err.message);
    cr_assert(strstr(err.message, what), "%s: %s", what, err.message);
}

Test(segment_index, the_crafted_one_is_fine)
{
    struct crafted crafted = craft();
    struct graft_error err;
    cr_assert_eq(decode_crafted(&crafted, &err), GRAFT_OK, "%s", err.message);
}

Test(segment_index, volumes_that_do_not_ascend_are_refused)
{
    struct crafted crafted = craft();
    memcpy(crafted.raw + VOLUME_BYTES, vids[0].bytes, GID_SIZE);
    check_refused(&crafted, "do not ascend");
    crafted = craft();
    memcpy(crafted.raw, vids[2].bytes, GID_SIZE);
    check_refused(&crafted, "do not ascend");
}

Test(segment_index, a_volume_without_a_vid_is_refused)
{
    struct crafted crafted = craft();
    crafted.raw[0] = GID_CLIENT;
    check_refused(&crafted, "no VID");
}

Test(segment_index, page_sets_that_are_not_canonical_are_refused)
{
    static const uint8_t wires[][2] = {{4, 0}, {0x84, 0}, {4, 0x82}, {4, 3}, {4, 5}};
    for (size_t i = 0; i < ARRAY_COUNT(wires); i++) {
        struct crafted crafted = craft();
        memcpy(crafted.raw + WIRE_AT(1), wires[i], 2);
        check_refused(&crafted, "page set");
    }
    struct crafted crafted = craft();
    put_le32(crafted.raw + GID_SIZE, 0);
    check_refused(&crafted, "page set");
}

Test(segment_index, an_index_that_ends_early_is_refused)
{
    struct crafted whole = craft();
    for (size_t size = 0; size < whole.raw_size; size++) {
        struct crafted crafted = whole;
        struct graft_error err;
        crafted.raw_size = size;
        cr_assert_eq(decode_crafted(&crafted, &err), GRAFT_CORRUPT, "%zu", size);
    }
}

Test(segment_index, an_index_that_goes_on_is_refused)
{
    struct crafted crafted = craft();
    crafted.raw_size++;
    check_refused(&crafted, "its index has");
}

Test(segment_index, counts_that_do_not_match_are_refused)
{
    struct crafted crafted = craft();
    crafted.footer.page_count = 3;
    check_refused(&crafted, "page set");
    crafted = craft();
    crafted.footer.page_count = 5;
    check_refused(&crafted, "its index has");
    crafted = craft();
    crafted.footer.volume_count = 1;
    check_refused(&crafted, "its index has");
    crafted = craft();
    crafted.footer.volume_count = 3;
    check_refused(&crafted, "ends within volume");
}

Test(segment_index, a_page_set_beyond_the_index_is_refused)
{
    struct crafted crafted = craft();
    put_le32(crafted.raw + VOLUME_BYTES + GID_SIZE, UINT32_MAX);
    check_refused(&crafted, "ends within the page set");
}

Test(segment_index, pages_that_overlap_or_leave_gaps_are_refused)
{
    static const int64_t moves[] = {-1, 1, -512, 512, INT64_MIN, INT64_MAX / 2};
    for (unsigned v = 0; v < 2; v++) {
        for (size_t i = 0; i < ARRAY_COUNT(moves); i++) {
            struct crafted crafted = craft();
            uint8_t *entry = crafted.raw + ENTRY_AT(v, 1);
            put_le64(entry, get_le64(entry) + (uint64_t)moves[i]);
            check_refused(&crafted, "offset for page 6");
        }
    }
}

Test(segment_index, pages_beyond_the_payloads_are_refused)
{
    struct crafted crafted = craft();
    crafted.footer.index_offset -= 512;
    check_refused(&crafted, "size for page 6");
    crafted = craft();
    crafted.footer.index_offset += 1;
    check_refused(&crafted, "payloads end at");
}

Test(segment_index, impossible_sizes_are_refused)
{
    struct crafted crafted = craft();
    put_le32(crafted.raw + ENTRY_AT(0, 0) + 12, PAGE_SIZE_MAX + 1);
    check_refused(&crafted, "raw size for page 5");
    crafted = craft();
    put_le32(crafted.raw + ENTRY_AT(0, 0) + 12, 511); // raw, of another size
    check_refused(&crafted, "size for page 5");
    crafted = craft();
    crafted.raw[ENTRY_AT(0, 0) + 16] = PAGE_ENCODING_ZSTD; // zstd, and nothing saved
    check_refused(&crafted, "size for page 5");
    crafted = craft();
    crafted.raw[ENTRY_AT(0, 0) + 16] = 2;
    check_refused(&crafted, "encoding for page 5");
}

Test(segment_index, bytes_that_must_be_zero_are_checked)
{
    for (unsigned i = 18; i < 24; i++) {
        struct crafted crafted = craft();
        crafted.raw[ENTRY_AT(1, 1) + i] = 1;
        check_refused(&crafted, "zero bytes");
    }
}

// ---- the footer, and damage

Test(segment_index, no_damaged_tail_is_decoded)
{
    struct segment_draft draft = {0};
    struct segment_footer footer;
    uint32_t end = draft_fill(&draft, 2, 20);
    _cleanup_(buffer_release) struct buffer tail = tail_of(&draft, end, &footer);
    for (size_t bit = 0; bit < tail.size * 8; bit++) {
        struct segment_index *index;
        struct graft_error err;
        tail.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(segment_tail_decode(buffer_bytes(&tail), &sid, end, footer.object_size, &index, &err),
                     GRAFT_CORRUPT, "bit %zu", bit);
        tail.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t size = 0; size < tail.size; size++) {
        struct segment_index *index;
        cr_assert_eq(
            segment_tail_decode((struct bytes){tail.data, size}, &sid, end, footer.object_size, &index, NULL),
            GRAFT_CORRUPT, "size %zu", size);
    }
    segment_draft_release(&draft);
}

static enum graft_status footer_status(const struct segment_footer *footer, uint64_t object_size,
                                       struct graft_error *err)
{
    uint8_t bytes[SEGMENT_FOOTER_SIZE];
    struct segment_footer ignored;
    segment_footer_encode(bytes, footer);
    return segment_footer_decode((struct bytes){bytes, sizeof bytes}, &sid, object_size, &ignored, err);
}

Test(segment_index, a_footer_that_does_not_fit_its_object_is_refused)
{
    const struct segment_footer good = {.sid = sid,
                                        .index_offset = 1000,
                                        .index_size = 100,
                                        .index_raw_size = 400,
                                        .object_size = 1164,
                                        .volume_count = 2,
                                        .page_count = 4};
    struct graft_error err;
    cr_assert_eq(footer_status(&good, 1164, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(footer_status(&good, 1165, &err), GRAFT_CORRUPT);

    struct segment_footer bad[11];
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        bad[i] = good;
    bad[0].index_offset = 7;
    bad[1].index_offset = UINT32_MAX;
    bad[2].index_size = 101;
    bad[3].index_size = UINT32_MAX;
    bad[4].object_size = 1163;
    bad[5].volume_count = 0;
    bad[6].page_count = 1;
    bad[7].page_count = SEGMENT_PAGES_MAX + 1;
    bad[8].index_raw_size = SEGMENT_INDEX_SIZE_MAX + 1;
    bad[9].index_raw_size = 199;
    bad[10].sid.bytes[15] = 1;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        cr_assert_eq(footer_status(&bad[i], 1164, &err), GRAFT_CORRUPT, "%zu", i);

    struct segment_footer large = good;
    large.object_size = SEGMENT_SIZE_MAX + 1;
    large.index_offset = large.object_size - 164;
    cr_assert_eq(footer_status(&large, large.object_size, &err), GRAFT_CORRUPT);
}

Test(segment_index, a_footer_of_another_version_says_so)
{
    const struct segment_footer good = {.sid = sid,
                                        .index_offset = 1000,
                                        .index_size = 100,
                                        .index_raw_size = 400,
                                        .object_size = 1164,
                                        .volume_count = 2,
                                        .page_count = 4};
    uint8_t bytes[SEGMENT_FOOTER_SIZE];
    struct segment_footer ignored;
    struct graft_error err;
    segment_footer_encode(bytes, &good);
    put_le16(bytes + 48, 2);
    put_le64(bytes + 56, checksum64(bytes, 56));
    cr_assert_eq(segment_footer_decode((struct bytes){bytes, sizeof bytes}, &sid, 1164, &ignored, &err),
                 GRAFT_CORRUPT);
    cr_assert(strstr(err.message, "version 2"), "%s", err.message);
}

Test(segment_index, keys_name_segments)
{
    struct gid back;
    cr_assert(segment_key_parse(segment_key(&sid).text, &back));
    cr_assert(gid_equal(&sid, &back));
    cr_assert_not(segment_key_parse("segments/", &back));
    cr_assert_not(segment_key_parse("segments/x", &back));
    cr_assert_not(segment_key_parse("other/1", &back));
}
