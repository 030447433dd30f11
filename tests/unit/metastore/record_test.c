// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdio.h>

#include "common/base/limits.h"
#include "metastore/keys.h"
#include "metastore/record.h"
#include "tests/lib/commit_plan.h"

static struct commit_facts facts_at(const struct gid *vid, uint64_t lsn)
{
    struct commit_facts facts = {.vid = *vid,
                                 .lsn = lsn,
                                 .base_lsn = lsn - 1,
                                 .token = token_of(lsn),
                                 .digest = digest_of(lsn),
                                 .page_count = 40,
                                 .cut = 30,
                                 .time_ms = 99,
                                 .deleted = lsn == 3};
    facts.chain = chain_next(&facts.base_chain, vid, lsn, &facts.token, &facts.digest, facts.page_count);
    return facts;
}

static void encode_commit(const struct commit_facts *facts, struct buffer *to)
{
    uint8_t pages[] = {4, 3}; // 5, 6, 7
    Graft__SegmentRef segment = GRAFT__SEGMENT_REF__INIT, *segments[] = {&segment};
    segment.pages = binary_of(pages, sizeof pages);
    cr_assert_eq(commit_record_encode(facts, NULL, segments, 1, to, NULL), GRAFT_OK);
}

Test(record, gives_back_a_commit)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    struct gid vid = gid_make(GID_VOLUME, 5);
    struct commit_facts facts = facts_at(&vid, 3), found;
    encode_commit(&facts, &record);
    cr_assert_eq(memcmp(record.data, "GRFTREC1\x02\0\0\0", 12), 0);
    cr_assert_eq(get_le32(record.data + 12), record.size - RECORD_OVERHEAD);
    cr_assert_eq(get_le64(record.data + record.size - 8), checksum64(record.data, record.size - 8));
    cr_assert_eq(commit_record_decode(buffer_bytes(&record), &vid, 3, &found, pages, NULL), GRAFT_OK);
    cr_assert_eq(found.page_count, 40);
    cr_assert_eq(found.cut, 30);
    cr_assert_eq(found.time_ms, 99);
    cr_assert(found.deleted && hash_equal(&found.chain, &facts.chain) &&
              token_equal(&found.token, &facts.token));
    cr_assert_eq(pageset_count(pages), 3);
    cr_assert_eq(pageset_min(pages), 5);
}

Test(record, detects_every_changed_byte)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    struct gid vid = gid_make(GID_VOLUME, 5);
    struct commit_facts facts = facts_at(&vid, 1), found;
    encode_commit(&facts, &record);
    for (size_t i = 0; i < record.size; i++) {
        record.data[i] ^= 0x20;
        cr_assert_eq(commit_record_decode(buffer_bytes(&record), &vid, 1, &found, NULL, NULL), GRAFT_CORRUPT,
                     "byte %zu", i);
        record.data[i] ^= 0x20;
    }
    for (size_t size = 0; size < record.size; size++)
        cr_assert_eq(commit_record_decode((struct bytes){record.data, size}, &vid, 1, &found, NULL, NULL),
                     GRAFT_CORRUPT, "size %zu", size);
    cr_assert_eq(commit_record_decode(buffer_bytes(&record), &vid, 1, &found, NULL, NULL), GRAFT_OK);
}

Test(record, refuses_what_belongs_elsewhere)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    struct gid vid = gid_make(GID_VOLUME, 5), other = gid_make(GID_VOLUME, 6);
    struct commit_facts facts = facts_at(&vid, 1), found;
    struct volume_record volume;
    struct summary summary;
    struct graft_error error;
    encode_commit(&facts, &record);
    cr_assert_eq(commit_record_decode(buffer_bytes(&record), &vid, 2, &found, NULL, &error), GRAFT_CORRUPT);
    cr_assert(strstr(error.message, gid_format(&vid).text), "%s", error.message);
    cr_assert_eq(commit_record_decode(buffer_bytes(&record), &other, 1, &found, NULL, NULL), GRAFT_CORRUPT);
    cr_assert_eq(volume_record_decode(buffer_bytes(&record), &vid, &volume, NULL), GRAFT_CORRUPT);
    cr_assert_eq(summary_decode(buffer_bytes(&record), &vid, &summary, NULL, NULL), GRAFT_CORRUPT);
}

Test(record, refuses_a_chain_that_does_not_follow)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    struct gid vid = gid_make(GID_VOLUME, 5);
    struct commit_facts facts = facts_at(&vid, 1), found;
    struct graft_error error;
    facts.chain.bytes[0] ^= 1;
    encode_commit(&facts, &record);
    cr_assert_eq(commit_record_decode(buffer_bytes(&record), &vid, 1, &found, NULL, &error), GRAFT_CORRUPT);
    cr_assert_eq(error.detail, GRAFT_DETAIL_CHAIN_MISMATCH);
}

Test(record, splits_a_pack)
{
    _cleanup_(buffer_release) struct buffer pack = BUFFER_INIT(4096);
    struct gid vid = gid_make(GID_VOLUME, 5);
    struct graft_error error;
    for (uint64_t lsn = 1; lsn <= 3; lsn++) {
        struct commit_facts facts = facts_at(&vid, lsn);
        encode_commit(&facts, &pack);
    }
    struct bytes rest = buffer_bytes(&pack);
    for (uint64_t lsn = 1; lsn <= 3; lsn++) {
        struct commit_facts found;
        size_t size;
        cr_assert_eq(record_size((struct bytes){rest.data, 15}, &size, &error), GRAFT_OK);
        cr_assert_eq(size, 0);
        cr_assert_eq(record_size(rest, &size, &error), GRAFT_OK);
        cr_assert_eq(commit_record_decode((struct bytes){rest.data, size}, &vid, lsn, &found, NULL, &error),
                     GRAFT_OK);
        rest = (struct bytes){rest.data + size, rest.size - size};
    }
    cr_assert_eq(rest.size, 0);
    uint8_t huge[16] = "GRFTREC1\x02\0\0\0\xff\xff\xff\xff";
    size_t size;
    cr_assert_eq(record_size((struct bytes){huge, sizeof huge}, &size, &error), GRAFT_CORRUPT);
}

Test(record, gives_back_volumes_and_summaries)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new(), *found_pages = pageset_new();
    struct gid vid = gid_make(GID_VOLUME, 5);
    struct volume_record volume = {.vid = vid, .page_size = 512, .variable = true, .created_ms = 7},
                         found_volume;
    cr_assert_eq(volume_record_encode(&volume, &record, NULL), GRAFT_OK);
    cr_assert_eq(volume_record_decode(buffer_bytes(&record), &vid, &found_volume, NULL), GRAFT_OK);
    cr_assert(found_volume.page_size == 512 && found_volume.variable && found_volume.created_ms == 7);

    struct summary summary = {.vid = vid, .first_lsn = 257, .last_lsn = 512, .cut = 3, .chain = digest_of(1)},
                   found;
    pageset_add_run(pages, 10, 5);
    pageset_add(pages, UINT32_MAX);
    buffer_clear(&record);
    cr_assert_eq(summary_encode(&summary, pages, &record, NULL), GRAFT_OK);
    cr_assert_eq(summary_decode(buffer_bytes(&record), &vid, &found, found_pages, NULL), GRAFT_OK);
    cr_assert(found.first_lsn == 257 && found.last_lsn == 512 && found.cut == 3);
    cr_assert(pageset_equal(pages, found_pages));
}

Test(record, names_objects_so_that_they_sort)
{
    struct gid vid = gid_make(GID_VOLUME, 5), found;
    cr_assert(strcmp(key_commit(&vid, 9).text, key_commit(&vid, 10).text) < 0);
    cr_assert(strcmp(key_commit(&vid, UINT32_MAX).text, key_commit(&vid, 1ull << 32).text) < 0);
    char expected[100];
    snprintf(expected, sizeof expected, "volumes/%s/sum/65536/000000000000000a", gid_format(&vid).text);
    cr_assert_str_eq(key_summary(&vid, SUMMARY_LARGE, 10).text, expected);
    snprintf(expected, sizeof expected, "volumes/%s/commits/fedcba9876543210", gid_format(&vid).text);
    cr_assert_str_eq(key_commit(&vid, 0xfedcba9876543210).text, expected);
    snprintf(expected, sizeof expected, "volumes/%s/retired", gid_format(&vid).text);
    cr_assert_str_eq(key_retired(&vid).text, expected);
    cr_assert(key_parse_catalog(key_catalog(&vid).text, &found) && gid_equal(&found, &vid));
    cr_assert(!key_parse_catalog("catalog/nonsense", &found));
    cr_assert(!key_parse_catalog("volumes/x", &found));
}
