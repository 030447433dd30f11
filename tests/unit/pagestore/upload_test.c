// SPDX-License-Identifier: Apache-2.0
//
// What becomes of a stream of pages: stored and referred to, or refused and gone without a trace.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "tests/lib/daemon.h"
#include "tests/unit/pagestore/upload_fixture.h"

#define PIECE (60u * 1024)

static struct fixture fixture;

static void set_up(void)
{
    fixture_init(&fixture, "mem:", 0);
}

static void tear_down(void)
{
    fixture_release(&fixture);
}

TestSuite(upload, .init = set_up, .fini = tear_down);

static struct pageset *pages_from(uint32_t first, uint32_t count)
{
    struct pageset *pages = pageset_new();
    pageset_add_run(pages, first, count);
    return pages;
}

static void check_nothing_left(void)
{
    cr_assert_eq(fixture_segments(&fixture), 0);
    cr_assert_eq(metric_value(metrics_gauge(fixture.metrics, "pagestore_upload_reserved_bytes", NULL, "")),
                 0);
}

// ---- what is stored

Test(upload, a_short_one_is_stored_and_signed)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream = stream_of(&vid, 10, 40, 4096);
    _cleanup_(pageset_free_p) struct pageset *pages = pages_from(10, 40);
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_OK, "%s", sender.error.message);
    cr_assert_eq(check_stored(&fixture, &sender, &vid, pages, 4096), 1);
    cr_assert_eq(fixture_segments(&fixture), 1);
    cr_assert_eq(fixture_metric(&fixture, "pagestore_segments_sealed_total", "kind=\"shared\""), 1);
    cr_assert_eq(fixture_metric(&fixture, "pagestore_pages_written_total", NULL), 40);
    sender_close(&sender);
    stream_release(&stream);
}

Test(upload, pieces_of_any_size_make_no_difference)
{
    static const size_t pieces[] = {1, 7, 4095, 100000};
    for (size_t i = 0; i < ARRAY_COUNT(pieces); i++) {
        struct gid vid = volume_of(VOLUME_SMALL, (unsigned)i);
        struct stream stream = stream_of(&vid, 1, 60, 512);
        _cleanup_(pageset_free_p) struct pageset *pages = pages_from(1, 60);
        struct sender sender;
        cr_assert_eq(sender_send(&sender, &fixture, &stream, pieces[i]), GRAFT_OK, "%s",
                     sender.error.message);
        cr_assert_eq(check_stored(&fixture, &sender, &vid, pages, 512), 1);
        sender_close(&sender);
        stream_release(&stream);
    }
}

Test(upload, a_long_one_writes_segments_of_its_own)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    uint32_t count = 20 * 256; // 20 MiB
    struct stream stream = stream_of(&vid, 1, count, 4096);
    _cleanup_(pageset_free_p) struct pageset *pages = pages_from(1, count);
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_OK, "%s", sender.error.message);
    cr_assert_eq(check_stored(&fixture, &sender, &vid, pages, 4096), 3);
    for (size_t i = 0; i < 3; i++)
        cr_assert_leq(sender.response->segments[i]->index_offset, SEGMENT_SEAL_SIZE + SEGMENT_MAGIC_SIZE);
    cr_assert_eq(fixture_metric(&fixture, "pagestore_segments_sealed_total", "kind=\"own\""), 3);
    sender_close(&sender);
    stream_release(&stream);
}

Test(upload, one_of_unannounced_length_is_long_once_it_is)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    for (uint32_t mib = 1; mib <= 4; mib += 3) {
        struct stream stream = stream_of(&vid, 1, mib * 256 - 8, 4096);
        _cleanup_(pageset_free_p) struct pageset *pages = pages_from(1, mib * 256 - 8);
        struct sender sender;
        cr_assert_eq(sender_open(&sender, &fixture, UPLOAD_SIZE_UNKNOWN, NULL), GRAFT_OK);
        cr_assert(sender_feed(&sender, buffer_bytes(&stream.bytes), PIECE));
        sender_finish(&sender);
        cr_assert_eq(sender_await(&sender), GRAFT_OK, "%s", sender.error.message);
        cr_assert_eq(check_stored(&fixture, &sender, &vid, pages, 4096), 1);
        const char *kind = mib == 1 ? "kind=\"shared\"" : "kind=\"own\"";
        cr_assert_eq(fixture_metric(&fixture, "pagestore_segments_sealed_total", kind), 1);
        sender_close(&sender);
        stream_release(&stream);
    }
}

Test(upload, pages_that_were_compressed_stay_so)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    for (uint32_t i = 1; i <= 5000; i++)
        stream_page_zstd(&stream, i, 4096);
    stream_end(&stream);
    _cleanup_(pageset_free_p) struct pageset *pages = pages_from(1, 5000);
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_OK, "%s", sender.error.message);
    check_stored(&fixture, &sender, &vid, pages, 4096);
    cr_assert_lt(sender.response->segments[0]->object_size, 1 * MIB);
    sender_close(&sender);
    stream_release(&stream);
}

Test(upload, a_variable_volume_has_pages_of_any_size)
{
    struct gid vid = volume_of(VOLUME_VARIABLE, 1);
    static const uint32_t sizes[] = {0, 1, 100, 4095, 4096};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        struct stream stream = stream_of(&vid, 3, 1, sizes[i]);
        _cleanup_(pageset_free_p) struct pageset *pages = pages_from(3, 1);
        struct sender sender;
        cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_OK, "%s", sender.error.message);
        check_stored(&fixture, &sender, &vid, pages, sizes[i]);
        sender_close(&sender);
        stream_release(&stream);
    }
}

Test(upload, many_empty_pages_are_no_burden)
{
    struct gid vid = volume_of(VOLUME_VARIABLE, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    for (uint32_t i = 0; i < 300000; i++)
        stream_page(&stream, 1 + 3 * i, 0);
    stream_end(&stream);
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_OK, "%s", sender.error.message);
    cr_assert_eq(sender.response->n_segments, 3); // SEGMENT_PAGES_MAX
    sender_close(&sender);
    stream_release(&stream);
}

Test(upload, structural_pages_are_named)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream = stream_of(&vid, 1, 40, 4096);
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_OK);
    _cleanup_(pageset_free_p) struct pageset *structural = NULL;
    cr_assert_eq(
        pageset_decode(bytes_of(&sender.response->segments[0]->structural), 100, "x", &structural, NULL),
        GRAFT_OK);
    cr_assert_eq(pageset_count(structural), 2);
    cr_assert(pageset_contains(structural, 16) && pageset_contains(structural, 32));
    sender_close(&sender);
    stream_release(&stream);
}

Test(upload, one_without_pages_needs_no_segment)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream = stream_of(&vid, 1, 0, 4096);
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_OK);
    cr_assert_eq(sender.response->n_segments, 0);
    sender_close(&sender);
    stream_release(&stream);
    check_nothing_left();
}

// ---- what is refused

// Sends the stream, which must be refused so, with `message` in the text and nothing stored.
static void check_refused(struct stream *stream, enum graft_status status, enum graft_detail detail,
                          const char *message)
{
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, stream, PIECE), status, "%s: %s", message,
                 sender.error.message);
    cr_assert_eq(sender.error.detail, detail, "%s: detail %d", message, (int)sender.error.detail);
    cr_assert(strstr(sender.error.message, message), "'%s' is not in '%s'", message, sender.error.message);
    sender_close(&sender);
    stream_release(stream);
    check_nothing_left();
}

static struct page_header header_of(const struct stream *stream, uint32_t pageidx, struct bytes data)
{
    return (struct page_header){
        .pageidx = pageidx,
        .state = PAGE_STATE_STORED,
        .raw_size = (uint32_t)data.size,
        .checksum = page_checksum(&stream->vid, pageidx, data.data, data.size),
    };
}

static const uint8_t zeros[PAGE_SIZE_MAX];

Test(upload, pages_out_of_order_are_refused)
{
    static const uint32_t second[] = {7, 6, 1};
    for (size_t i = 0; i < ARRAY_COUNT(second); i++) {
        struct gid vid = volume_of(VOLUME_FIXED, 1);
        struct stream stream;
        stream_begin(&stream, &vid);
        stream_page(&stream, 7, 4096);
        stream_page(&stream, second[i], 4096);
        stream_end(&stream);
        check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "after page 7");
    }
}

Test(upload, pages_of_the_wrong_size_are_refused)
{
    static const struct {
        enum volume volume;
        uint32_t size;
        enum graft_status status;
        enum graft_detail detail;
    } cases[] = {
        {VOLUME_FIXED, 4095, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT},
        {VOLUME_FIXED, 0, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT},
        {VOLUME_FIXED, 8192, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE},
        {VOLUME_VARIABLE, 4097, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE},
        {VOLUME_SMALL, PAGE_SIZE_MAX, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct gid vid = volume_of(cases[i].volume, 1);
        struct stream stream = stream_of(&vid, 5, 1, cases[i].size);
        check_refused(&stream, cases[i].status, cases[i].detail, "page 5: raw_size");
    }
}

Test(upload, bytes_that_do_not_match_their_checksum_are_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    stream_page(&stream, 8, 4096);
    struct page_header header = header_of(&stream, 9, (struct bytes){zeros, 4096});
    header.checksum ^= 1;
    stream_frame(&stream, &header, (struct bytes){zeros, 4096});
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_CHECKSUM, "page 9");
}

Test(upload, a_page_signed_for_another_place_is_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1), other = volume_of(VOLUME_FIXED, 2);
    struct stream stream;
    stream_begin(&stream, &vid);
    struct page_header header = header_of(&stream, 9, (struct bytes){zeros, 4096});
    header.checksum = page_checksum(&other, 9, zeros, 4096);
    stream_frame(&stream, &header, (struct bytes){zeros, 4096});
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_CHECKSUM, "page 9");
}

Test(upload, what_is_no_zstd_frame_is_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    struct page_header header = header_of(&stream, 9, (struct bytes){zeros, 4096});
    header.encoding = PAGE_ENCODING_ZSTD;
    stream_frame(&stream, &header, (struct bytes){zeros, 100});
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "page 9");
}

Test(upload, a_decompression_bomb_is_refused)
{
    // A frame of 64 KiB of zeros that says it is a page of 4 KiB.
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct page_codec *codec = page_codec_new();
    enum page_encoding encoding;
    struct bytes bomb;
    page_codec_encode(codec, (struct bytes){zeros, PAGE_SIZE_MAX}, &encoding, &bomb);
    struct stream stream;
    stream_begin(&stream, &vid);
    struct page_header header = header_of(&stream, 9, (struct bytes){zeros, 4096});
    header.encoding = encoding;
    stream_frame(&stream, &header, bomb);
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "page 9");
    page_codec_free(codec);
}

Test(upload, an_encoding_that_saves_nothing_is_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    struct page_header header = header_of(&stream, 9, (struct bytes){zeros, 4096});
    header.encoding = PAGE_ENCODING_ZSTD;
    stream_frame(&stream, &header, (struct bytes){zeros, 4096});
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "send it raw");
}

Test(upload, pages_without_bytes_are_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream;
    uint8_t frame[PAGE_FRAME_HEADER_SIZE_MAX];
    stream_begin(&stream, &vid);
    cr_assert_eq(buffer_append(&stream.bytes, frame, page_stream_put_empty(frame, 4), NULL), GRAFT_OK);
    stream.count++;
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "page 4: state");
}

Test(upload, frames_that_only_answers_have_are_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct hash128 chain = {{1}};
    struct stream stream;
    uint8_t frame[PAGE_FRAME_HEADER_SIZE_MAX];
    stream_begin(&stream, &vid);
    cr_assert_eq(buffer_append(&stream.bytes, frame, page_stream_put_owner(frame, &vid), NULL), GRAFT_OK);
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "owner");

    buffer_init(&stream.bytes, MIB);
    cr_assert_eq(buffer_append(&stream.bytes, frame, page_stream_put_begin(frame, &vid, 3, NULL), NULL),
                 GRAFT_OK);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "begin.lsn");
    buffer_init(&stream.bytes, MIB);
    cr_assert_eq(buffer_append(&stream.bytes, frame, page_stream_put_begin(frame, &vid, 0, &chain), NULL),
                 GRAFT_OK);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "begin.chain");
}

Test(upload, a_stream_that_ends_early_is_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream whole = stream_of(&vid, 1, 3, 4096);
    static const size_t missing[] = {1, 3, 20, 4096, 5000, 12000};
    for (size_t i = 0; i < ARRAY_COUNT(missing); i++) {
        struct stream stream = {.bytes = BUFFER_INIT(MIB)};
        cr_assert_eq(buffer_append(&stream.bytes, whole.bytes.data, whole.bytes.size - missing[i], NULL),
                     GRAFT_OK);
        check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_TRUNCATED, "");
    }
    stream_release(&whole);
}

Test(upload, a_stream_that_goes_on_after_its_end_is_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream = stream_of(&vid, 1, 3, 4096);
    cr_assert_eq(buffer_append(&stream.bytes, "\x00", 1, NULL), GRAFT_OK);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "");
    stream = stream_of(&vid, 1, 3, 4096);
    stream_page(&stream, 9, 4096);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "");
}

Test(upload, a_wrong_count_is_refused)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    stream_page(&stream, 1, 4096);
    stream.count = 2;
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "count");
}

Test(upload, a_sender_that_gives_up_is_believed)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct graft_error cause;
    struct stream stream;
    (void)error_set(&cause, GRAFT_CANCELLED, GRAFT_DETAIL_NONE, "changed my mind");
    stream_begin(&stream, &vid);
    stream_page(&stream, 1, 4096);
    cr_assert_eq(page_stream_append_end(&stream.bytes, 1, &cause, NULL), GRAFT_OK);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "changed my mind");
}

Test(upload, volumes_that_nobody_knows_are_refused)
{
    struct gid unknown = volume_of(VOLUME_UNKNOWN, 1), away = volume_of(VOLUME_NO_ANSWER, 1);
    struct stream stream = stream_of(&unknown, 1, 30, 4096);
    check_refused(&stream, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME, "");
    stream = stream_of(&away, 1, 30, 4096);
    check_refused(&stream, GRAFT_UNAVAILABLE, GRAFT_DETAIL_UNREACHABLE, "");
}

Test(upload, more_pages_than_one_may_have_are_refused)
{
    struct gid vid = volume_of(VOLUME_VARIABLE, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    for (uint32_t i = 1; i <= WRITE_PAGES_PAGES_MAX + 1; i++)
        stream_page(&stream, i, 0);
    stream_end(&stream);
    check_refused(&stream, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "at most");
}

Test(upload, a_fault_at_the_end_of_a_long_one_takes_everything_back)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream;
    stream_begin(&stream, &vid);
    for (uint32_t i = 1; i <= 18 * 256; i++)
        stream_page(&stream, i, 4096);
    stream.bytes.data[stream.bytes.size - 1] ^= 1;
    stream_end(&stream);
    check_refused(&stream, GRAFT_INVALID, GRAFT_DETAIL_BAD_CHECKSUM, "page 4608");
}

// ---- senders that go away

Test(upload, one_that_is_cut_leaves_nothing_behind)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream = stream_of(&vid, 1, 20 * 256, 4096);
    static const size_t cuts[] = {0, 5, 100, 5000, 600000, 2000000, 9500000, 17000000, 20 * 1024 * 1024};
    for (size_t i = 0; i < ARRAY_COUNT(cuts); i++) {
        struct sender sender;
        cr_assert_eq(sender_open(&sender, &fixture, stream.bytes.size, NULL), GRAFT_OK);
        cr_assert(sender_feed(&sender, (struct bytes){stream.bytes.data, cuts[i]}, PIECE));
        sender_close(&sender);
        cr_assert_not(sender.done);
        check_nothing_left();
    }
    stream_release(&stream);
}

Test(upload, one_that_is_cut_while_the_metastore_is_asked_leaves_nothing_behind)
{
    struct gid vid = volume_of(VOLUME_UNKNOWN, 1);
    struct stream stream = stream_of(&vid, 1, 10, 4096);
    struct sender sender;
    cr_assert_eq(sender_open(&sender, &fixture, stream.bytes.size, NULL), GRAFT_OK);
    (void)upload_take(sender.upload, stream.bytes.data, 100);
    sender_close(&sender);
    stream_release(&stream);
    check_nothing_left();
}

static unsigned count_files(const char *folder)
{
    char command[600];
    unsigned count = 0;
    snprintf(command, sizeof command, "find %s -type f ! -name graft.lock | wc -l", folder);
    FILE *pipe = popen(command, "r");
    cr_assert_eq(fscanf(pipe, "%u", &count), 1);
    pclose(pipe);
    return count;
}

Test(upload_on_disk, neither_refused_nor_cut_ones_leave_files)
{
    _cleanup_(test_folder_free_p) char *folder = test_folder_new();
    char path[300], url[310];
    snprintf(path, sizeof path, "%s/store", folder);
    snprintf(url, sizeof url, "fs:%s", path);
    fixture_init(&fixture, url, 0);
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream = stream_of(&vid, 1, 12 * 256, 4096);
    struct sender cut, spoiled;
    cr_assert_eq(sender_open(&cut, &fixture, stream.bytes.size, NULL), GRAFT_OK);
    cr_assert(sender_feed(&cut, (struct bytes){stream.bytes.data, 11 << 20}, PIECE));
    sender_close(&cut);
    stream.bytes.data[stream.bytes.size - 100] ^= 1;
    cr_assert_eq(sender_send(&spoiled, &fixture, &stream, PIECE), GRAFT_INVALID);
    sender_close(&spoiled);
    fixture_release(&fixture); // removals are under way until then
    cr_assert_eq(count_files(path), 0);
    stream_release(&stream);
}

// ---- a store that misbehaves

static const struct objstore_fault no_space = {
    .op = "commit",
    .count = 1,
    .kind = FAULT_ERROR,
    .error = {GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, "no room"},
};

Test(upload, a_store_that_fails_fails_it)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    for (uint32_t pages = 10; pages <= 5000; pages += 4990) {
        objstore_faulty_add(fixture.store, &no_space);
        struct stream stream = stream_of(&vid, 1, pages, 4096);
        check_refused(&stream, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, "no room");
    }
}

Test(upload, a_segment_whose_fate_is_unknown_is_not_referred_to)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct objstore_fault lost = {.op = "commit", .count = 1, .skip = 1, .kind = FAULT_LOST_ANSWER};
    objstore_faulty_add(fixture.store, &lost);
    struct stream stream = stream_of(&vid, 1, 20 * 256, 4096);
    struct sender sender;
    cr_assert_eq(sender_send(&sender, &fixture, &stream, PIECE), GRAFT_UNKNOWN);
    sender_close(&sender);
    check_nothing_left(); // it was there after all, and was removed
    stream_release(&stream);
}

Test(upload, nothing_is_answered_before_it_is_durable)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct objstore_fault hold = {.op = "commit", .count = 1, .kind = FAULT_HOLD};
    for (uint32_t pages = 10; pages <= 1000; pages += 990) {
        unsigned fired = objstore_faulty_fired(fixture.store);
        objstore_faulty_add(fixture.store, &hold);
        struct stream stream = stream_of(&vid, 1, pages, 4096);
        struct sender sender;
        cr_assert_eq(sender_open(&sender, &fixture, stream.bytes.size, NULL), GRAFT_OK);
        cr_assert(sender_feed(&sender, buffer_bytes(&stream.bytes), PIECE));
        sender_finish(&sender);
        objstore_faulty_await(fixture.store, fired + 1);
        cr_assert_not(sender.done);
        objstore_faulty_release(fixture.store);
        cr_assert_eq(sender_await(&sender), GRAFT_OK);
        sender_close(&sender);
        stream_release(&stream);
    }
}
