// SPDX-License-Identifier: Apache-2.0
//
// The pagestore's write half as a process: what it stores, what it refuses and how, and that neither leaves anything behind.
#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/net/message.h"
#include "pagestore/segment_format.h"
#include "tests/integration/meta_client.h"
#include "tests/lib/upload_stream.h"
#include "tests/unit/net/http_peer.h"

#define STREAM "application/x-graft-stream"
#define PROTOBUF "application/x-protobuf"

// Sanitizers keep what is freed for a while, and remember who touched what.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GROWTH_MAX (256 * MIB)
#define RESIDENT_MAX (1024.0 * MIB)
#else
#define GROWTH_MAX (4 * MIB)
#define RESIDENT_MAX (128.0 * MIB)
#endif

static char *folder;
static struct daemon *metastore, *pagestore;
static struct meta_client meta;
static struct peer peer;

static void begin_with(const char *const *pagestore_options)
{
    folder = test_folder_new();
    metastore = metastore_start(folder, NULL);
    pagestore = pagestore_start(folder, metastore, pagestore_options);
    meta_client_init(&meta, folder, metastore);
    peer_open(&peer, daemon_address(pagestore, "listen"));
}

static void begin(void)
{
    begin_with(NULL);
}

static void end(void)
{
    peer_close(&peer);
    meta_client_release(&meta);
    daemon_free(pagestore);
    daemon_free(metastore);
    test_folder_free(folder);
}

TestSuite(pagestore_write, .init = begin, .fini = end, .timeout = 120);

// ---- asking

static double metric(const char *name)
{
    struct peer admin;
    peer_open(&admin, daemon_address(pagestore, "listen"));
    struct reply reply = peer_get(&admin, "/metrics");
    cr_assert_eq(reply.code, 200);
    double value = 0;
    size_t size = strlen(name);
    for (const char *line = reply.body; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, size) == 0 && line[size] == ' ')
            value = strtod(line + size, NULL);
    }
    reply_release(&reply);
    peer_close(&admin);
    return value;
}

static ProtobufCMessage *decode(const ProtobufCMessageDescriptor *descriptor, const struct reply *reply)
{
    ProtobufCMessage *message;
    struct graft_error err;
    cr_assert_eq(message_decode(descriptor, (struct bytes){(const uint8_t *)reply->body, reply->size},
                                64 * MIB, &message, &err),
                 GRAFT_OK, "%s", err.message);
    return message;
}

static struct graft_error error_of(const struct reply *reply)
{
    struct graft_error error;
    ProtobufCMessage *message = decode(&graft__error__descriptor, reply);
    error_from_message((const Graft__Error *)message, &error);
    message_free(message);
    return error;
}

static struct reply call(const char *path, const ProtobufCMessage *request)
{
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(64 * KIB);
    cr_assert_eq(message_encode(request, &body, NULL), GRAFT_OK);
    return peer_post(&peer, path, PROTOBUF, body.data, body.size);
}

// The SIDs in the store, at most `max` of them, a page of `limit` at a time.
static size_t list_segments(struct gid *sids, size_t max, uint32_t limit)
{
    size_t count = 0;
    struct gid next = {0};
    do {
        Graft__ListSegmentsRequest request = GRAFT__LIST_SEGMENTS_REQUEST__INIT;
        request.limit = limit;
        if (count > 0)
            request.after = binary_of(next.bytes, GID_SIZE);
        struct reply reply = call("/v1/segments", &request.base);
        cr_assert_eq(reply.code, 200);
        ProtobufCMessage *message = decode(&graft__list_segments_response__descriptor, &reply);
        const Graft__ListSegmentsResponse *list = (const Graft__ListSegmentsResponse *)message;
        for (size_t i = 0; i < list->n_segments; i++) {
            cr_assert_lt(count, max);
            memcpy(sids[count++].bytes, list->segments[i]->sid.data, GID_SIZE);
        }
        next = (struct gid){0};
        if (list->next.len > 0)
            memcpy(next.bytes, list->next.data, GID_SIZE);
        message_free(message);
        reply_release(&reply);
    } while (gid_is_kind(&next, GID_SEGMENT));
    return count;
}

static size_t segment_count(void)
{
    static struct gid sids[1024];
    return list_segments(sids, ARRAY_COUNT(sids), 0);
}

static unsigned files_in(const char *name)
{
    char path[600];
    unsigned count = 0;
    snprintf(path, sizeof path, "%s/segments/%s", folder, name);
    DIR *dir = opendir(path);
    if (!dir)
        return 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_type == DT_REG;
    closedir(dir);
    return count;
}

// What was stored of a refused or cut upload is removed behind its answer; that takes as long as it takes.
static void check_nothing_left(void)
{
    while (metric("pagestore_upload_reserved_bytes") > 0)
        usleep(1000);
    for (unsigned i = 0; i < 5000 && segment_count() > 0; i++)
        usleep(1000);
    cr_assert_eq(segment_count(), 0);
    cr_assert_eq(files_in("tmp"), 0);
}

// ---- sending

static struct gid make_volume(uint32_t page_size, bool variable)
{
    struct gid vid = gid_make(GID_VOLUME, 1700000000000ull);
    struct graft_error err;
    cr_assert_eq(meta_create(&meta, &vid, page_size, variable, &err), GRAFT_OK, "%s", err.message);
    return vid;
}

static struct reply post_stream(const struct stream *stream)
{
    return peer_post(&peer, "/v1/write_pages", STREAM, stream->bytes.data, stream->bytes.size);
}

static size_t store_pages(const struct gid *vid, uint32_t first, uint32_t count)
{
    struct stream stream = stream_of(vid, first, count, 4096);
    struct reply reply = post_stream(&stream);
    cr_assert_eq(reply.code, 200, "%s", reply.code ? error_of(&reply).message : "no answer");
    ProtobufCMessage *message = decode(&graft__write_pages_response__descriptor, &reply);
    size_t segments = ((const Graft__WritePagesResponse *)message)->n_segments;
    message_free(message);
    reply_release(&reply);
    stream_release(&stream);
    return segments;
}

// The stream is refused so, its connection stays usable, and nothing is stored.
static void check_refused(struct stream *stream, int code, enum graft_detail detail, const char *text)
{
    struct reply reply = post_stream(stream);
    cr_assert_eq(reply.code, code, "%s: answered %d", text, reply.code);
    struct graft_error error = error_of(&reply);
    cr_assert_eq(error.detail, detail, "%s: %d: %s", text, (int)error.detail, error.message);
    cr_assert(strstr(error.message, text), "'%s' is not in '%s'", text, error.message);
    reply_release(&reply);
    stream_release(stream);
    reply = peer_get(&peer, "/healthz");
    cr_assert_eq(reply.code, 200);
    reply_release(&reply);
}

// ---- what is stored

Test(pagestore_write, short_and_long_uploads_become_segments)
{
    struct gid vid = make_volume(4096, false);
    cr_assert_eq(store_pages(&vid, 1, 10), 1);
    cr_assert_eq(segment_count(), 1);
    cr_assert_eq(store_pages(&vid, 1, 5000), 3);
    cr_assert_eq(segment_count(), 4);
    cr_assert_eq(metric("pagestore_segments_sealed_total{kind=\"own\"}"), 3);
    cr_assert_eq(metric("pagestore_segments_sealed_total{kind=\"shared\"}"), 1);
    cr_assert_eq(metric("pagestore_pages_written_total"), 5010);
    cr_assert_eq(files_in("tmp"), 0);
}

Test(pagestore_write, what_was_acknowledged_survives_a_kill)
{
    struct gid vid = make_volume(4096, false);
    store_pages(&vid, 1, 10);
    store_pages(&vid, 1, 3000);
    daemon_kill(pagestore);
    daemon_restart(pagestore);
    peer_close(&peer);
    peer_open(&peer, daemon_address(pagestore, "listen"));
    cr_assert_eq(segment_count(), 3);
    store_pages(&vid, 1, 10);
    cr_assert_eq(segment_count(), 4);
}

Test(pagestore_write, lists_go_page_by_page)
{
    struct gid vid = make_volume(4096, false), sids[16], again[16];
    for (uint32_t i = 0; i < 7; i++)
        store_pages(&vid, 1, 1 + i);
    cr_assert_eq(list_segments(sids, 16, 0), 7);
    cr_assert_eq(list_segments(again, 16, 2), 7);
    for (size_t i = 0; i < 7; i++) {
        cr_assert(gid_equal(&sids[i], &again[i]));
        cr_assert(i == 0 || gid_compare(&sids[i - 1], &sids[i]) < 0);
    }
}

static struct reply ask_segment(const struct gid *sid)
{
    Graft__SegmentRequest request = GRAFT__SEGMENT_REQUEST__INIT;
    request.sid = binary_of(sid->bytes, GID_SIZE);
    return call("/v1/segment", &request.base);
}

Test(pagestore_write, a_segment_shows_its_index)
{
    struct gid vid = make_volume(4096, false), sid;
    store_pages(&vid, 20, 30);
    cr_assert_eq(list_segments(&sid, 1, 0), 1);
    struct reply reply = ask_segment(&sid);
    cr_assert_eq(reply.code, 200);
    ProtobufCMessage *message = decode(&graft__segment_response__descriptor, &reply);
    const Graft__SegmentResponse *segment = (const Graft__SegmentResponse *)message;
    cr_assert_eq(segment->n_volumes, 1);
    cr_assert(memcmp(segment->volumes[0]->vid.data, vid.bytes, GID_SIZE) == 0);
    cr_assert_eq(segment->volumes[0]->n_pages, 30);
    for (uint32_t i = 0; i < 30; i++) {
        const Graft__SegmentPage *page = segment->volumes[0]->pages[i];
        uint8_t bytes[4096];
        page_fill(bytes, &vid, 20 + i, sizeof bytes);
        cr_assert_eq(page->pageidx, 20 + i);
        cr_assert_eq(page->offset, SEGMENT_MAGIC_SIZE + 4096 * i);
        cr_assert_eq(page->checksum, page_checksum(&vid, 20 + i, bytes, sizeof bytes));
        cr_assert_eq(page->stored_checksum, checksum64(bytes, sizeof bytes));
    }
    message_free(message);
    reply_release(&reply);
}

Test(pagestore_write, a_segment_that_is_not_there_or_damaged_says_so)
{
    struct gid vid = make_volume(4096, false), sid, absent = gid_make(GID_SEGMENT, 1);
    store_pages(&vid, 1, 3);
    cr_assert_eq(list_segments(&sid, 1, 0), 1);
    struct reply reply = ask_segment(&absent);
    cr_assert_eq(reply.code, 404);
    reply_release(&reply);

    char command[1200];
    snprintf(
        command, sizeof command,
        "f=$(find %s/segments/objects -name '%s') && printf x | dd of=$f bs=1 seek=$(($(stat -c %%s $f) - 70)) "
        "conv=notrunc status=none",
        folder, gid_format(&sid).text);
    cr_assert_eq(system(command), 0);
    reply = ask_segment(&sid);
    cr_assert_eq(reply.code, 500);
    struct graft_error error = error_of(&reply);
    cr_assert_eq(error.status, GRAFT_CORRUPT);
    cr_assert(strstr(error.message, gid_format(&sid).text), "%s", error.message);
    reply_release(&reply);
}

// ---- what is refused

static struct page_header zero_page(const struct gid *vid, uint32_t pageidx)
{
    static const uint8_t zeros[4096];
    return (struct page_header){
        .pageidx = pageidx,
        .state = PAGE_STATE_STORED,
        .raw_size = sizeof zeros,
        .checksum = page_checksum(vid, pageidx, zeros, sizeof zeros),
    };
}

// One page that `spoil` has made wrong, behind one that is right.
static struct stream spoiled_stream(const struct gid *vid,
                                    void (*spoil)(struct page_header *header, struct bytes *data))
{
    static const uint8_t zeros[PAGE_SIZE_MAX];
    struct stream stream;
    struct page_header header = zero_page(vid, 9);
    struct bytes data = {zeros, 4096};
    spoil(&header, &data);
    stream_begin(&stream, vid);
    stream_page(&stream, 8, 4096);
    stream_frame(&stream, &header, data);
    stream_end(&stream);
    return stream;
}

static void spoil_checksum(struct page_header *header, struct bytes *data)
{
    header->checksum ^= 1;
}

static void spoil_order(struct page_header *header, struct bytes *data)
{
    header->pageidx = 8;
}

static void spoil_size(struct page_header *header, struct bytes *data)
{
    header->raw_size = 8192;
    data->size = 8192;
}

static void spoil_short(struct page_header *header, struct bytes *data)
{
    header->raw_size = 512;
    data->size = 512;
}

static void spoil_bomb(struct page_header *header, struct bytes *data)
{
    static struct page_codec *codec;
    struct bytes plain = {data->data, PAGE_SIZE_MAX};
    codec = codec ? codec : page_codec_new();
    page_codec_encode(codec, plain, &header->encoding, data);
}

// Page 0 cannot be encoded by our own encoder: the byte of the number is set to 0 afterwards.
static struct stream page_zero_stream(const struct gid *vid)
{
    struct stream stream;
    stream_begin(&stream, vid);
    size_t at = stream.bytes.size;
    stream_page(&stream, 1, 4096);
    uint8_t *number = memchr(stream.bytes.data + at + 4, 0x08, 8);
    cr_assert(number && number[1] == 1);
    number[1] = 0;
    stream_end(&stream);
    return stream;
}

static void refuse_all_once(const struct gid *vid)
{
    static const struct {
        void (*spoil)(struct page_header *header, struct bytes *data);
        int code;
        enum graft_detail detail;
        const char *text;
    } cases[] = {
        {spoil_checksum, 400, GRAFT_DETAIL_BAD_CHECKSUM, "page 9"},
        {spoil_order, 400, GRAFT_DETAIL_BAD_ARGUMENT, "pageidx 8 after page 8"},
        {spoil_size, 413, GRAFT_DETAIL_TOO_LARGE, "raw_size 8192"},
        {spoil_short, 400, GRAFT_DETAIL_BAD_ARGUMENT, "raw_size 512"},
        {spoil_bomb, 400, GRAFT_DETAIL_BAD_MESSAGE, "page 9"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct stream stream = spoiled_stream(vid, cases[i].spoil);
        check_refused(&stream, cases[i].code, cases[i].detail, cases[i].text);
    }
    struct stream stream = page_zero_stream(vid);
    check_refused(&stream, 400, GRAFT_DETAIL_BAD_MESSAGE, "pageidx");
    stream = stream_of(vid, 1, 3, 4096); // cut off, but as long as announced
    stream.bytes.size -= 100;
    check_refused(&stream, 400, GRAFT_DETAIL_TRUNCATED, "");
    stream = stream_of(vid, 1, 3, 4096);
    cr_assert_eq(buffer_append(&stream.bytes, "more", 4, NULL), GRAFT_OK);
    check_refused(&stream, 400, GRAFT_DETAIL_BAD_MESSAGE, "");
    stream = (struct stream){.bytes = BUFFER_INIT(MIB)};
    check_refused(&stream, 400, GRAFT_DETAIL_TRUNCATED, "");
    cr_assert_eq(buffer_append(&stream.bytes, "\xff\xff\xff\x7f", 4, NULL), GRAFT_OK);
    check_refused(&stream, 413, GRAFT_DETAIL_TOO_LARGE, "");
}

Test(pagestore_write, bad_input_is_refused_and_costs_nothing)
{
    struct gid vid = make_volume(4096, false);
    refuse_all_once(&vid);
    double before = metric("process_resident_memory_bytes");
    for (unsigned i = 0; i < 100; i++)
        refuse_all_once(&vid);
    double after = metric("process_resident_memory_bytes");
    cr_assert_lt(after, before + GROWTH_MAX, "%.0f bytes more", after - before);
    check_nothing_left();
}

Test(pagestore_write, an_unknown_volume_is_refused)
{
    struct gid vid = gid_make(GID_VOLUME, 1);
    struct stream stream = stream_of(&vid, 1, 3, 4096);
    check_refused(&stream, 404, GRAFT_DETAIL_NO_SUCH_VOLUME, gid_format(&vid).text);
    check_nothing_left();
}

Test(pagestore_write, without_the_metastore_it_is_not_now)
{
    struct gid vid = make_volume(4096, false), known = make_volume(4096, false);
    store_pages(&known, 1, 3);
    daemon_kill(metastore);
    struct stream stream = stream_of(&vid, 1, 3, 4096);
    check_refused(&stream, 503, GRAFT_DETAIL_UNREACHABLE, gid_format(&vid).text);
    store_pages(&known, 1, 3); // what is known of a volume does not change
    daemon_restart(metastore);
    store_pages(&vid, 1, 3);
}

// A fault early in a body of 40 MiB is answered, not met with a broken pipe.
Test(pagestore_write, a_fault_early_in_a_large_body_is_answered)
{
    struct gid vid = make_volume(4096, false);
    struct stream stream = stream_of(&vid, 1, 10000, 4096);
    stream.bytes.data[200000] ^= 1;
    check_refused(&stream, 400, GRAFT_DETAIL_BAD_CHECKSUM, "page 49");
    check_nothing_left();
}

Test(pagestore_write, requests_that_are_none_are_refused)
{
    static const struct {
        const char *request;
        int code;
    } cases[] = {
        {"POST /v1/nothing HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n", 404},
        {"GET /v1/write_pages HTTP/1.1\r\nHost: t\r\n\r\n", 405},
        {"POST /v1/write_pages HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx",
         415},
        {"POST /v1/write_pages HTTP/1.1\r\nHost: t\r\nContent-Type: " STREAM
         "\r\nContent-Length: 1073741825\r\n\r\n",
         413},
        {"POST /v1/segment HTTP/1.1\r\nHost: t\r\nContent-Type: " PROTOBUF
         "\r\nContent-Length: 1\r\n\r\n\xff",
         400},
        {"POST /v1/segment HTTP/1.1\r\nHost: t\r\nContent-Type: " PROTOBUF "\r\nContent-Length: 0\r\n\r\n",
         400},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct peer other;
        peer_open(&other, daemon_address(pagestore, "listen"));
        peer_send(&other, cases[i].request, strlen(cases[i].request));
        struct reply reply = peer_reply(&other, false);
        cr_assert_eq(reply.code, cases[i].code, "%zu: answered %d", i, reply.code);
        cr_assert_neq(error_of(&reply).message[0], '\0');
        reply_release(&reply);
        peer_close(&other);
    }
}

// ---- senders that go away, or are many

static void send_head(struct peer *to, size_t size)
{
    peer_print(to,
               "POST /v1/write_pages HTTP/1.1\r\nHost: t\r\nContent-Type: " STREAM
               "\r\nContent-Length: %zu\r\n\r\n",
               size);
}

Test(pagestore_write, a_stream_that_is_cut_leaves_nothing_behind)
{
    struct gid vid = make_volume(4096, false);
    struct stream stream = stream_of(&vid, 1, 5000, 4096);
    static const size_t cuts[] = {0, 1, 100, 5000, 900000, 3000000, 9000000, 18000000};
    for (size_t i = 0; i < ARRAY_COUNT(cuts); i++) {
        struct peer other;
        peer_open(&other, daemon_address(pagestore, "listen"));
        send_head(&other, stream.bytes.size);
        cr_assert(peer_send(&other, stream.bytes.data, cuts[i]));
        peer_close(&other);
        check_nothing_left();
    }
    stream_release(&stream);
}

Test(pagestore_write, many_that_stand_still_are_bounded)
{
    enum { COUNT = 200 };
    static struct peer peers[COUNT];
    struct gid vid = make_volume(4096, false);
    struct stream stream = stream_of(&vid, 1, 5000, 4096);
    store_pages(&vid, 1, 1000);
    unsigned refused = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        peer_open(&peers[i], daemon_address(pagestore, "listen"));
        peer_print(&peers[i],
                   "POST /v1/write_pages HTTP/1.1\r\nHost: t\r\nContent-Type: " STREAM
                   "\r\nExpect: 100-continue\r\nContent-Length: %zu\r\n\r\n",
                   stream.bytes.size);
        struct reply reply = peer_reply(&peers[i], false);
        if (reply.code == 100) {
            cr_assert(peer_send(&peers[i], stream.bytes.data, 500000));
        } else {
            char value[20];
            cr_assert_eq(reply.code, 503);
            cr_assert(reply_header(&reply, "Retry-After", value, sizeof value));
            refused++;
        }
        reply_release(&reply);
    }
    cr_assert_gt(refused, COUNT / 2);
    cr_assert_lt(refused, COUNT - 10);
    cr_assert_lt(metric("process_resident_memory_bytes"), RESIDENT_MAX);
    for (unsigned i = 0; i < COUNT; i++)
        peer_close(&peers[i]);
    while (metric("pagestore_upload_reserved_bytes") > 0)
        usleep(1000);
    store_pages(&vid, 1, 10);
    stream_release(&stream);
}

Test(pagestore_write, an_end_in_the_middle_of_an_upload_is_clean)
{
    struct gid vid = make_volume(4096, false);
    struct stream stream = stream_of(&vid, 1, 3000, 4096);
    send_head(&peer, stream.bytes.size);
    cr_assert(peer_send(&peer, stream.bytes.data, 10000000));
    uint64_t asked_ms = clock_monotonic_ms(clock_system());
    cr_assert_eq(daemon_stop(pagestore), 0);
    cr_assert_lt(clock_monotonic_ms(clock_system()) - asked_ms, STOP_TIME_MAX_MS);
    daemon_restart(pagestore);
    peer_close(&peer);
    peer_open(&peer, daemon_address(pagestore, "listen"));
    check_nothing_left();
    stream_release(&stream);
}

Test(pagestore_write_full, a_disk_within_its_reserve_takes_no_writes_and_serves_on, .fini = end)
{
    begin_with((const char *[]){"--disk-reserve", "1000000G", NULL});
    struct gid vid = make_volume(4096, false);
    struct stream stream = stream_of(&vid, 1, 3, 4096);
    check_refused(&stream, 507, GRAFT_DETAIL_NO_SPACE, "");
    stream = stream_of(&vid, 1, 3000, 4096);
    check_refused(&stream, 507, GRAFT_DETAIL_NO_SPACE, "");
    check_nothing_left();
}
