// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/net/message.h"
#include "common/net/page_stream.h"

static const struct gid vid = {{GID_VOLUME, 0, 0, 0, 0, 0, 1, 2, 3}};
static const struct gid other = {{GID_VOLUME, 0, 0, 0, 0, 0, 9, 9, 9}};
static const struct hash128 chain = {{1, 2, 3}};

static void append(struct buffer *to, const void *data, size_t size)
{
    cr_assert_eq(buffer_append(to, data, size, NULL), GRAFT_OK);
}

static void append_begin(struct buffer *to)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    append(to, head, page_stream_put_begin(head, &vid, 42, &chain));
}

static void append_page(struct buffer *to, uint32_t pageidx, uint8_t fill, uint32_t size)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    struct page_header header = {
        .pageidx = pageidx,
        .state = PAGE_STATE_STORED,
        .page_class = 200,
        .raw_size = size,
        .checksum = 0x1122334455667788u + pageidx,
    };
    append(to, head, page_stream_put_page(head, &header, size));
    uint8_t *data = malloc(size);
    cr_assert(data || size == 0);
    memset(data, fill, size);
    append(to, data, size);
    free(data);
}

static void append_owner(struct buffer *to, const struct gid *owner)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    append(to, head, page_stream_put_owner(head, owner));
}

static void append_empty(struct buffer *to, uint32_t pageidx)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    append(to, head, page_stream_put_empty(head, pageidx));
}

static void append_end(struct buffer *to, uint64_t count)
{
    cr_assert_eq(page_stream_append_end(to, count, NULL, NULL), GRAFT_OK);
}

// Begin, a page, another owner, two pages, an empty and a damaged one, end.
static void append_sample(struct buffer *to)
{
    struct graft_error damage;
    error_set(&damage, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM, "segment x, page 5: bit rot");
    append_begin(to);
    append_page(to, 1, 0xa1, 4096);
    append_owner(to, &other);
    append_page(to, UINT32_MAX, 0xa2, 65536);
    append_page(to, 3, 0xa3, 0);
    append_empty(to, 4);
    cr_assert_eq(page_stream_append_damaged(to, 5, &damage, NULL), GRAFT_OK);
    append_end(to, 5);
}

static void check_sample_event(unsigned number, const struct page_event *event)
{
    static const uint32_t pages[] = {[1] = 1, [3] = UINT32_MAX, [4] = 3, [5] = 4, [6] = 5};
    static const uint32_t sizes[] = {[1] = 4096, [3] = 65536, [4] = 0, [5] = 0, [6] = 0};
    if (number == 0) {
        cr_assert_eq(event->type, PAGE_EVENT_BEGIN);
        cr_assert(gid_equal(&event->vid, &vid));
        cr_assert_eq(event->lsn, 42);
        cr_assert(event->has_chain);
        cr_assert(hash_equal(&event->chain, &chain));
    } else if (number == 2) {
        cr_assert_eq(event->type, PAGE_EVENT_OWNER);
        cr_assert(gid_equal(&event->owner, &other));
    } else if (number == 7) {
        cr_assert_eq(event->type, PAGE_EVENT_END);
        cr_assert_eq(event->count, 5);
        cr_assert_eq(event->error.status, GRAFT_OK);
    } else {
        cr_assert_lt(number, 7);
        cr_assert_eq(event->type, PAGE_EVENT_PAGE);
        cr_assert_eq(event->page.pageidx, pages[number]);
        cr_assert_eq(event->data.size, sizes[number]);
        for (size_t i = 0; i < event->data.size; i++)
            cr_assert_eq(event->data.data[i], number == 1 ? 0xa1 : 0xa2);
    }
    if (number == 1 || number == 3 || number == 4) {
        cr_assert_eq(event->page.state, PAGE_STATE_STORED);
        cr_assert_eq(event->page.page_class, 200);
        cr_assert_eq(event->page.checksum, 0x1122334455667788u + pages[number]);
        cr_assert_eq(event->page.raw_size, sizes[number]);
    }
    if (number == 5)
        cr_assert_eq(event->page.state, PAGE_STATE_EMPTY);
    if (number == 6) {
        cr_assert_eq(event->page.state, PAGE_STATE_DAMAGED);
        cr_assert_eq(event->error.status, GRAFT_CORRUPT);
        cr_assert_eq(event->error.detail, GRAFT_DETAIL_BAD_CHECKSUM);
        cr_assert_str_eq(event->error.message, "segment x, page 5: bit rot");
    }
}

Test(page_stream, round_trip_however_the_bytes_are_cut)
{
    static const size_t steps[] = {1, 2, 3, 7, 63, 64, 65, 1000, 4095, 4096, 16384, 65535, 1u << 20};
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(1 << 20);
    append_sample(&stream);
    for (size_t s = 0; s < ARRAY_COUNT(steps); s++) {
        struct page_decoder *decoder = page_decoder_new();
        unsigned events = 0;
        for (size_t at = 0; at < stream.size; at += steps[s]) {
            size_t size = MIN(steps[s], stream.size - at);
            uint8_t *piece = malloc(size); // of exact size, for the address sanitizer
            memcpy(piece, stream.data + at, size);
            struct bytes input = {piece, size};
            struct page_event event;
            for (;;) {
                struct graft_error err;
                cr_assert_eq(page_decoder_next(decoder, &input, &event, &err), GRAFT_OK, "%s", err.message);
                if (event.type == PAGE_EVENT_NEED_MORE)
                    break;
                check_sample_event(events++, &event);
            }
            cr_assert_eq(input.size, 0);
            free(piece);
        }
        cr_assert_eq(events, 8);
        cr_assert_eq(page_decoder_finish(decoder, NULL), GRAFT_OK);
        page_decoder_free(decoder);
    }
}

Test(page_stream, a_whole_page_is_a_view_of_the_input)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(1 << 20);
    struct page_decoder *decoder = page_decoder_new();
    struct page_event event;
    append_sample(&stream);
    struct bytes input = buffer_bytes(&stream);
    do {
        cr_assert_eq(page_decoder_next(decoder, &input, &event, NULL), GRAFT_OK);
        if (event.type == PAGE_EVENT_PAGE && event.data.size > 0)
            cr_assert(event.data.data >= stream.data && event.data.data < stream.data + stream.size);
    } while (event.type != PAGE_EVENT_END);
    page_decoder_free(decoder);
}

Test(page_stream, a_cut_stream_is_truncated_wherever_it_is_cut)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(1 << 20);
    append_begin(&stream);
    append_page(&stream, 1, 1, 600);
    append_end(&stream, 1);
    for (size_t size = 0; size < stream.size; size++) {
        struct page_decoder *decoder = page_decoder_new();
        struct bytes input = {stream.data, size};
        struct page_event event;
        struct graft_error err;
        do
            cr_assert_eq(page_decoder_next(decoder, &input, &event, NULL), GRAFT_OK);
        while (event.type != PAGE_EVENT_NEED_MORE);
        cr_assert_eq(page_decoder_finish(decoder, &err), GRAFT_INVALID);
        cr_assert_eq(err.detail, GRAFT_DETAIL_TRUNCATED);
        page_decoder_free(decoder);
    }
}

Test(page_stream, protobuf_reads_what_is_written_by_hand)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(1 << 20);
    struct frame_reader frames;
    struct bytes frame;
    bool whole;
    unsigned kinds[5] = {0};
    append_sample(&stream);
    frame_reader_init(&frames, PAGE_FRAME_SIZE_MAX);
    struct bytes input = buffer_bytes(&stream);
    while (frame_reader_next(&frames, &input, &frame, &whole, NULL) == GRAFT_OK && whole) {
        ProtobufCMessage *message;
        cr_assert_eq(message_decode(&graft__page_frame__descriptor, frame, 1 << 20, &message, NULL),
                     GRAFT_OK);
        const Graft__PageFrame *decoded = (const Graft__PageFrame *)message;
        kinds[decoded->frame_case]++;
        if (decoded->frame_case == GRAFT__PAGE_FRAME__FRAME_BEGIN) {
            cr_assert_eq(decoded->begin->lsn, 42);
            cr_assert_eq(decoded->begin->chain.len, HASH_SIZE);
        }
        if (decoded->frame_case == GRAFT__PAGE_FRAME__FRAME_PAGE && decoded->page->pageidx == 1) {
            cr_assert_eq(decoded->page->class_, 200);
            cr_assert_eq(decoded->page->raw_size, 4096);
            cr_assert_eq(decoded->page->checksum, 0x1122334455667789u);
            cr_assert_eq(decoded->page->data.len, 4096);
        }
        message_free(message);
    }
    cr_assert(kinds[1] == 1 && kinds[2] == 1 && kinds[3] == 5 && kinds[4] == 1);
    frame_reader_release(&frames);
}

Test(page_stream, headers_keep_within_their_bound)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    struct page_header header = {
        .pageidx = UINT32_MAX,
        .state = PAGE_STATE_STORED,
        .page_class = 255,
        .encoding = PAGE_ENCODING_ZSTD,
        .raw_size = PAGE_SIZE_MAX,
        .checksum = UINT64_MAX,
    };
    cr_assert_leq(page_stream_put_page(head, &header, PAGE_SIZE_MAX), sizeof head);
    cr_assert_leq(page_stream_put_begin(head, &vid, UINT64_MAX, &chain), sizeof head);
}

Test(page_stream, an_error_at_the_end_comes_through)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(1 << 20);
    struct page_decoder *decoder = page_decoder_new();
    struct page_event event;
    struct graft_error error;
    error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_STOPPING, "shutting down");
    append_begin(&stream);
    append_page(&stream, 1, 1, 512);
    cr_assert_eq(page_stream_append_end(&stream, 0, &error, NULL), GRAFT_OK);
    struct bytes input = buffer_bytes(&stream);
    do
        cr_assert_eq(page_decoder_next(decoder, &input, &event, NULL), GRAFT_OK);
    while (event.type != PAGE_EVENT_END);
    cr_assert_eq(event.error.status, GRAFT_UNAVAILABLE);
    cr_assert_eq(event.error.detail, GRAFT_DETAIL_STOPPING);
    cr_assert_str_eq(event.error.message, "shutting down");
    page_decoder_free(decoder);
}

// ---- refusals -----------------------------------------------------------------------------------------

static enum graft_status decode_all(struct bytes stream, struct graft_error *err)
{
    struct page_decoder *decoder = page_decoder_new();
    struct bytes input = stream;
    struct page_event event;
    enum graft_status status;
    do
        status = page_decoder_next(decoder, &input, &event, err);
    while (status == GRAFT_OK && event.type != PAGE_EVENT_NEED_MORE);
    if (status == GRAFT_OK)
        status = page_decoder_finish(decoder, err);
    else // done for good
        cr_assert_eq(page_decoder_next(decoder, &input, &event, NULL), GRAFT_INVALID);
    page_decoder_free(decoder);
    return status;
}

static void expect_refusal(const struct buffer *stream, enum graft_status status, const char *naming)
{
    struct graft_error err;
    cr_assert_eq(decode_all(buffer_bytes(stream), &err), status, "%s", naming);
    cr_assert_eq(err.detail, status == GRAFT_LIMIT ? GRAFT_DETAIL_TOO_LARGE : GRAFT_DETAIL_BAD_MESSAGE);
    cr_assert(strstr(err.message, naming), "'%s' does not name '%s'", err.message, naming);
}

Test(page_stream, begin_comes_first_and_once)
{
    _cleanup_(buffer_release) struct buffer none = BUFFER_INIT(4096), twice = BUFFER_INIT(4096);
    append_empty(&none, 1);
    expect_refusal(&none, GRAFT_INVALID, "frame 1 of the page stream: begin does not come first");
    append_begin(&twice);
    append_begin(&twice);
    expect_refusal(&twice, GRAFT_INVALID, "frame 2 of the page stream: begin comes twice");
}

Test(page_stream, nothing_follows_the_end)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096);
    append_begin(&stream);
    append_end(&stream, 0);
    append(&stream, "", 1);
    expect_refusal(&stream, GRAFT_INVALID, "goes on after its end");
}

Test(page_stream, the_end_counts_the_pages)
{
    for (uint64_t count = 0; count < 3; count++) {
        _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096);
        append_begin(&stream);
        append_empty(&stream, 1);
        append_end(&stream, count);
        if (count == 1)
            cr_assert_eq(decode_all(buffer_bytes(&stream), NULL), GRAFT_OK);
        else
            expect_refusal(&stream, GRAFT_INVALID, "end.count");
    }
}

// A page frame made by protobuf, so that anything can be put in.
static void append_message_page(struct buffer *to, Graft__Page *page)
{
    Graft__PageFrame frame = GRAFT__PAGE_FRAME__INIT;
    frame.frame_case = GRAFT__PAGE_FRAME__FRAME_PAGE;
    frame.page = page;
    append_begin(to);
    cr_assert_eq(message_encode_frame(&frame.base, to, NULL), GRAFT_OK);
    append_end(to, 1);
}

Test(page_stream, fields_out_of_range_are_refused_by_name)
{
    static const uint8_t data[513];
    const struct {
        uint32_t pageidx, state, page_class, encoding, raw_size;
        size_t size;
        enum graft_status status;
        const char *naming;
    } cases[] = {
        {1, 1, 255, 0, 512, 512, GRAFT_OK, ""},
        {1, 1, 0, 1, 65536, 100, GRAFT_OK, ""},
        {0, 1, 0, 0, 512, 512, GRAFT_INVALID, "page.pageidx"},
        {1, 0, 0, 0, 512, 512, GRAFT_INVALID, "page.state"},
        {1, 4, 0, 0, 512, 512, GRAFT_INVALID, "page.state"},
        {1, 1, 256, 0, 512, 512, GRAFT_INVALID, "page.class"},
        {1, 1, 0, 2, 512, 512, GRAFT_INVALID, "page.encoding"},
        {1, 1, 0, 0, 512, 511, GRAFT_INVALID, "page.data"},
        {1, 1, 0, 0, 512, 513, GRAFT_INVALID, "page.data"},
        {1, 1, 0, 0, 512, 0, GRAFT_INVALID, "page.data"},
        {1, 1, 0, 1, 65537, 100, GRAFT_LIMIT, "page.raw_size"},
        {1, 1, 0, 1, UINT32_MAX, 100, GRAFT_LIMIT, "page.raw_size"},
        {1, 2, 0, 0, 0, 1, GRAFT_INVALID, "page.data"},
        {1, 2, 0, 0, 512, 0, GRAFT_INVALID, "page.data"},
        {1, 3, 0, 0, 0, 0, GRAFT_INVALID, "error.status"}, // damaged, and no reason given
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096);
        Graft__Page page = GRAFT__PAGE__INIT;
        page.pageidx = cases[i].pageidx;
        page.state = (Graft__PageState)cases[i].state;
        page.class_ = cases[i].page_class;
        page.encoding = (Graft__PageEncoding)cases[i].encoding;
        page.raw_size = cases[i].raw_size;
        page.data = binary_of(data, cases[i].size);
        append_message_page(&stream, &page);
        if (cases[i].status == GRAFT_OK)
            cr_assert_eq(decode_all(buffer_bytes(&stream), NULL), GRAFT_OK, "case %zu", i);
        else
            expect_refusal(&stream, cases[i].status, cases[i].naming);
    }
}

static void append_frame(struct buffer *to, const void *frame, size_t size)
{
    uint8_t head[VARINT_SIZE_MAX];
    append(to, head, varint_put(head, size));
    append(to, frame, size);
}

Test(page_stream, malformed_frames_are_refused)
{
    static const struct {
        const char *frame;
        size_t size;
        const char *naming;
    } cases[] = {
        {"", 0, "holds none"},
        {"\x28\x01", 2, "holds none"}, // an unknown field alone
        {"\x1a\x04\x08\x01\x10\x02\x1a\x04\x08\x01\x10\x02", 12, "more than one"},
        {"\x18\x01", 2, "no message"},                           // page as a number
        {"\x1a\x05\x08\x01\x10\x02", 6, "the frame is cut off"}, // longer than the frame
        {"\x1a\x04\x08\x01\x10", 5, "the frame is cut off"},
        {"\x1a\x03\x08\x01\x10", 5, "page is cut off"},
        {"\x1a\x06\x08\x01\x10\x02\x7a\x01", 8, "page is cut off"}, // data beyond the page
        {"\x1a\x06\x08\x81\x00\x10\x02\x00", 8, "page is cut off"}, // a varint not in its shortest form
        {"\x1a\x05\x0b\x08\x01\x10\x02", 7, "page is cut off"},     // a group
        {"\x1a\x05\x02\x00\x08\x01\x10", 7, "page is cut off"},     // field number 0
        {"\x1a\x06\x7a\x00\x08\x01\x10\x02", 8, "page.data is not the last"},
        {"\x1a\x06\x30\x01\x08\x01\x10\x02", 8, "page.checksum"},         // as a varint
        {"\x1a\x08\x08\x80\x80\x80\x80\x10\x10\x02", 10, "page.pageidx"}, // 2^32
        {"\x12\x03\x0a\x01\x81", 5, "owner.vid"},
        {"\x12\x00", 2, "owner.vid"},
        {"\x22\x03\x1a\x01\x08", 5, "error is cut off"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096);
        append_begin(&stream);
        append_frame(&stream, cases[i].frame, cases[i].size);
        expect_refusal(&stream, GRAFT_INVALID, cases[i].naming);
        expect_refusal(&stream, GRAFT_INVALID, "frame 2 of the page stream");
    }
}

Test(page_stream, begin_names_a_volume)
{
    _cleanup_(buffer_release) struct buffer segment = BUFFER_INIT(4096), none = BUFFER_INIT(4096),
                                            bad_chain = BUFFER_INIT(4096);
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    struct gid sid = vid;
    sid.bytes[0] = GID_SEGMENT;
    append(&segment, head, page_stream_put_begin(head, &sid, 1, NULL));
    expect_refusal(&segment, GRAFT_INVALID, "begin.vid");
    append_frame(&none, "\x0a\x00", 2);
    expect_refusal(&none, GRAFT_INVALID, "begin.vid");
    append_frame(&bad_chain, "\x0a\x03\x1a\x01z", 5);
    expect_refusal(&bad_chain, GRAFT_INVALID, "begin.chain");
}

Test(page_stream, unknown_fields_are_skipped)
{
    // Fields 20 to 23 of every wire type, then pageidx 1 and state EMPTY.
    static const char page[] = "\xa0\x01\x05"
                               "\xa9\x01"
                               "12345678"
                               "\xb2\x01\x02"
                               "xy"
                               "\xbd\x01"
                               "1234"
                               "\x08\x01\x10\x02";
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096), frame = BUFFER_INIT(4096);
    const uint8_t head[] = {0x1a, sizeof page - 1};
    append_begin(&stream);
    append(&frame, head, sizeof head);
    append(&frame, page, sizeof page - 1);
    append_frame(&stream, frame.data, frame.size);
    append_end(&stream, 1);
    struct graft_error err;
    cr_assert_eq(decode_all(buffer_bytes(&stream), &err), GRAFT_OK, "%s", err.message);
}

Test(page_stream, an_overlong_frame_is_refused_at_its_length)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096);
    uint8_t head[VARINT_SIZE_MAX];
    append_begin(&stream);
    append(&stream, head, varint_put(head, PAGE_FRAME_SIZE_MAX + 1));
    expect_refusal(&stream, GRAFT_LIMIT, "frame 2");
}
