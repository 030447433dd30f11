// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/net/message.h"

static struct snapshot sample_snapshot(void)
{
    struct snapshot snapshot = {
        .lsn = 7,
        .page_count = 12,
        .page_size = 4096,
        .variable = true,
        .time_ms = 1700000000000,
    };
    snapshot.vid = gid_make(GID_VOLUME, 1700000000000);
    memset(snapshot.chain.bytes, 0x5a, HASH_SIZE);
    return snapshot;
}

static enum graft_status decode_error(struct bytes wire, size_t memory_max, Graft__Error **ret_error,
                                      struct graft_error *err)
{
    ProtobufCMessage *message = NULL;
    enum graft_status status = message_decode(&graft__error__descriptor, wire, memory_max, &message, err);
    *ret_error = (Graft__Error *)message;
    return status;
}

Test(message, round_trip_of_a_snapshot)
{
    struct snapshot before = sample_snapshot(), after;
    Graft__Snapshot wire;
    ProtobufCMessage *message;
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(1024);
    snapshot_to_message(&before, &wire);
    cr_assert_eq(message_encode(&wire.base, &bytes, NULL), GRAFT_OK);
    cr_assert_eq(message_decode(&graft__snapshot__descriptor, buffer_bytes(&bytes), 4096, &message, NULL),
                 GRAFT_OK);
    cr_assert_eq(snapshot_from_message((Graft__Snapshot *)message, &after, NULL), GRAFT_OK);
    cr_assert(gid_equal(&before.vid, &after.vid));
    cr_assert_eq(after.lsn, 7);
    cr_assert_eq(after.page_count, 12);
    cr_assert(hash_equal(&before.chain, &after.chain));
    cr_assert_eq(after.page_size, 4096);
    cr_assert(after.variable);
    cr_assert_not(after.deleted);
    cr_assert_eq(after.time_ms, before.time_ms);
    message_free(message);
}

Test(message, snapshot_fields_out_of_range_are_refused)
{
    struct snapshot good = sample_snapshot(), ret;
    struct graft_error err;
    Graft__Snapshot wire;
    cr_assert_eq(snapshot_from_message(NULL, &ret, &err), GRAFT_INVALID);

    snapshot_to_message(&good, &wire);
    wire.vid.len = 15;
    cr_assert_eq(snapshot_from_message(&wire, &ret, &err), GRAFT_INVALID);
    cr_assert(strstr(err.message, "vid"), "%s", err.message);

    snapshot_to_message(&good, &wire);
    wire.chain.len = 0;
    cr_assert_eq(snapshot_from_message(&wire, &ret, &err), GRAFT_INVALID);
    cr_assert(strstr(err.message, "chain"), "%s", err.message);

    const uint32_t bad_page_sizes[] = {0, 256, 4095, 131072};
    for (size_t i = 0; i < ARRAY_COUNT(bad_page_sizes); i++) {
        snapshot_to_message(&good, &wire);
        wire.page_size = bad_page_sizes[i];
        cr_assert_eq(snapshot_from_message(&wire, &ret, &err), GRAFT_INVALID);
        cr_assert(strstr(err.message, "page_size"), "%s", err.message);
    }

    snapshot_to_message(&good, &wire);
    wire.kind = 3;
    cr_assert_eq(snapshot_from_message(&wire, &ret, &err), GRAFT_INVALID);

    snapshot_to_message(&good, &wire);
    wire.lsn = 0;
    cr_assert_eq(snapshot_from_message(&wire, &ret, &err), GRAFT_INVALID);
}

Test(message, empty_volume_has_neither_pages_nor_chain)
{
    struct snapshot before = sample_snapshot(), after;
    Graft__Snapshot wire;
    before.lsn = 0;
    before.page_count = 0;
    memset(before.chain.bytes, 0, HASH_SIZE);
    snapshot_to_message(&before, &wire);
    cr_assert_eq(snapshot_from_message(&wire, &after, NULL), GRAFT_OK);
}

Test(message, garbage_is_no_message)
{
    static const uint8_t garbage[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    Graft__Error *error;
    struct graft_error err;
    cr_assert_eq(decode_error((struct bytes){garbage, sizeof garbage}, 4096, &error, &err), GRAFT_INVALID);
    cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_MESSAGE);
    cr_assert_null(error);
}

Test(message, no_bytes_are_an_empty_message)
{
    Graft__Error *error;
    cr_assert_eq(decode_error((struct bytes){NULL, 0}, 4096, &error, NULL), GRAFT_OK);
    cr_assert_eq(error->status, 0);
    cr_assert_str_eq(error->message, "");
    message_free(&error->base);
}

Test(message, memory_is_capped_whatever_the_wire_says)
{
    // Each of these two bytes is an empty Snapshot, a hundred bytes in memory.
    enum { COUNT = 30000 };
    static uint8_t wire[2 * COUNT];
    ProtobufCMessage *message = NULL;
    struct graft_error err;
    for (size_t i = 0; i < COUNT; i++)
        wire[2 * i] = 0x0a;
    cr_assert_eq(message_decode(&graft__list_volumes_response__descriptor, (struct bytes){wire, sizeof wire},
                                sizeof wire, &message, &err),
                 GRAFT_LIMIT);
    cr_assert_eq(err.detail, GRAFT_DETAIL_TOO_LARGE);
    cr_assert_null(message);
    cr_assert_eq(message_decode(&graft__list_volumes_response__descriptor, (struct bytes){wire, sizeof wire},
                                64 * MIB, &message, &err),
                 GRAFT_OK);
    cr_assert_eq(((Graft__ListVolumesResponse *)message)->n_heads, COUNT);
    message_free(message);
}

Test(message, every_cap_either_decodes_or_refuses)
{
    // Every allocation of a decode fails once. What was allocated before is freed: the address sanitizer
    // looks.
    struct snapshot snapshot = sample_snapshot();
    Graft__Error cause = GRAFT__ERROR__INIT;
    Graft__Snapshot head;
    struct token token;
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(4096);
    memset(token.bytes, 7, TOKEN_SIZE);
    snapshot_to_message(&snapshot, &head);
    cause.status = GRAFT_CONFLICT;
    cause.message = (char *)"somebody was faster";
    cause.token = binary_of(token.bytes, TOKEN_SIZE);
    cause.snapshot = &head;
    cr_assert_eq(message_encode(&cause.base, &bytes, NULL), GRAFT_OK);
    // Two unknown fields, one of them inside what protobuf-c copies.
    static const uint8_t unknown[] = {0xfa, 0x01, 0x02, 'x', 'y', 0xf0, 0x01, 0x05};
    cr_assert_eq(buffer_append(&bytes, unknown, sizeof unknown, NULL), GRAFT_OK);

    unsigned refused = 0, decoded = 0;
    for (size_t cap = 0; cap < 2000; cap++) {
        Graft__Error *error;
        struct graft_error err;
        enum graft_status status = decode_error(buffer_bytes(&bytes), cap, &error, &err);
        if (status == GRAFT_OK) {
            cr_assert_eq(error->base.n_unknown_fields, 0);
            message_free(&error->base);
            decoded++;
        } else {
            cr_assert_eq(status, GRAFT_LIMIT, "%s", err.message);
            refused++;
        }
    }
    cr_assert_gt(refused, 100);
    cr_assert_gt(decoded, 100);
}

Test(message, unknown_fields_are_dropped_at_every_depth)
{
    struct snapshot snapshot = sample_snapshot();
    Graft__Snapshot wire;
    ProtobufCMessage *message;
    _cleanup_(buffer_release) struct buffer inner = BUFFER_INIT(1024), outer = BUFFER_INIT(1024),
                                            again = BUFFER_INIT(1024);
    static const uint8_t unknown[] = {0xfa, 0x01, 0x02, 'x', 'y'};
    snapshot_to_message(&snapshot, &wire);
    cr_assert_eq(message_encode(&wire.base, &inner, NULL), GRAFT_OK);
    size_t known_size = inner.size;
    cr_assert_eq(buffer_append(&inner, unknown, sizeof unknown, NULL), GRAFT_OK);
    // A list of two such snapshots, and an unknown field behind.
    for (int i = 0; i < 2; i++) {
        const uint8_t tag[] = {0x0a, (uint8_t)inner.size};
        cr_assert_eq(buffer_append(&outer, tag, sizeof tag, NULL), GRAFT_OK);
        cr_assert_eq(buffer_append(&outer, inner.data, inner.size, NULL), GRAFT_OK);
    }
    cr_assert_eq(buffer_append(&outer, unknown, sizeof unknown, NULL), GRAFT_OK);
    cr_assert_eq(message_decode(&graft__list_volumes_response__descriptor, buffer_bytes(&outer), 64 * KIB,
                                &message, NULL),
                 GRAFT_OK);
    cr_assert_eq(message_encode(message, &again, NULL), GRAFT_OK);
    cr_assert_eq(again.size, 2 * (2 + known_size));
    message_free(message);
}

Test(message, an_encoding_beyond_the_cap_leaves_nothing_behind)
{
    struct snapshot snapshot = sample_snapshot();
    Graft__Snapshot wire;
    struct graft_error err;
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(16);
    snapshot_to_message(&snapshot, &wire);
    cr_assert_eq(message_encode(&wire.base, &bytes, &err), GRAFT_LIMIT);
    cr_assert_eq(message_encode_frame(&wire.base, &bytes, &err), GRAFT_LIMIT);
    cr_assert_eq(bytes.size, 0);
}

Test(message, errors_cross_the_wire_whole)
{
    struct graft_error before, after;
    Graft__Error wire;
    error_set(&before, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET, "field pages: gap 0 at byte 3");
    error_to_message(&before, &wire);
    error_from_message(&wire, &after);
    cr_assert_eq(after.status, GRAFT_INVALID);
    cr_assert_eq(after.detail, GRAFT_DETAIL_BAD_PAGESET);
    cr_assert_str_eq(after.message, before.message);
}

Test(message, errors_of_no_known_kind_are_internal)
{
    Graft__Error wire = GRAFT__ERROR__INIT;
    struct graft_error error;
    wire.status = 4711;
    wire.detail = 4711;
    error_from_message(&wire, &error);
    cr_assert_eq(error.status, GRAFT_INTERNAL);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NONE);
    wire.status = 0;
    error_from_message(&wire, &error);
    cr_assert_eq(error.status, GRAFT_INTERNAL);
    cr_assert_eq(error.detail, GRAFT_DETAIL_PROTOCOL);
}

// ---- frames -------------------------------------------------------------------------------------------

// Three frames of 0, 3 and 300 bytes.
static void append_frames(struct buffer *to)
{
    static const size_t sizes[] = {0, 3, 300};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        uint8_t head[VARINT_SIZE_MAX], body[300];
        memset(body, 'a' + (int)i, sizeof body);
        cr_assert_eq(buffer_append(to, head, varint_put(head, sizes[i]), NULL), GRAFT_OK);
        cr_assert_eq(buffer_append(to, body, sizes[i], NULL), GRAFT_OK);
    }
}

Test(frames, arrive_whole_however_they_are_cut)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096);
    append_frames(&stream);
    for (size_t step = 1; step <= stream.size; step++) {
        struct frame_reader reader;
        size_t seen = 0, sizes[4] = {0};
        frame_reader_init(&reader, 300);
        for (size_t at = 0; at < stream.size; at += step) {
            // A copy of exact size, so that the address sanitizer sees a read beyond it.
            size_t size = MIN(step, stream.size - at);
            uint8_t *piece = malloc(size);
            memcpy(piece, stream.data + at, size);
            struct bytes input = {piece, size}, frame;
            bool whole = true;
            for (;;) {
                cr_assert_eq(frame_reader_next(&reader, &input, &frame, &whole, NULL), GRAFT_OK);
                if (!whole)
                    break;
                for (size_t i = 0; i < frame.size; i++)
                    cr_assert_eq(frame.data[i], 'a' + seen);
                cr_assert_lt(seen, 3);
                sizes[seen++] = frame.size;
            }
            cr_assert_eq(input.size, 0);
            free(piece);
        }
        cr_assert_eq(seen, 3);
        cr_assert(sizes[0] == 0 && sizes[1] == 3 && sizes[2] == 300);
        cr_assert(frame_reader_is_empty(&reader));
        frame_reader_release(&reader);
    }
}

Test(frames, a_whole_frame_is_a_view_of_the_input)
{
    _cleanup_(buffer_release) struct buffer stream = BUFFER_INIT(4096);
    struct frame_reader reader;
    bool whole;
    append_frames(&stream);
    frame_reader_init(&reader, 300);
    struct bytes input = buffer_bytes(&stream), frame;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(frame_reader_next(&reader, &input, &frame, &whole, NULL), GRAFT_OK);
        cr_assert(whole);
        cr_assert(frame.data >= stream.data && frame.data + frame.size <= stream.data + stream.size);
    }
    cr_assert_null(reader.pending.data);
    frame_reader_release(&reader);
}

Test(frames, an_open_frame_is_not_the_streams_end)
{
    static const uint8_t cut[] = {5, 'a', 'b'};
    struct frame_reader reader;
    struct bytes input = {cut, sizeof cut}, frame;
    bool whole;
    frame_reader_init(&reader, 10);
    cr_assert(frame_reader_is_empty(&reader));
    cr_assert_eq(frame_reader_next(&reader, &input, &frame, &whole, NULL), GRAFT_OK);
    cr_assert_not(whole);
    cr_assert_not(frame_reader_is_empty(&reader));
    frame_reader_release(&reader);
}

Test(frames, lengths_beyond_the_limit_or_malformed_are_refused)
{
    static const struct {
        uint8_t wire[12];
        size_t size;
        enum graft_status status;
    } cases[] = {
        {{11}, 1, GRAFT_LIMIT},
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 10, GRAFT_LIMIT},
        {{0x80, 0x00}, 2, GRAFT_INVALID}, // not the shortest form
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, 11, GRAFT_INVALID},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        for (size_t step = 1; step <= cases[i].size; step++) {
            struct frame_reader reader;
            enum graft_status status = GRAFT_OK;
            frame_reader_init(&reader, 10);
            for (size_t at = 0; at < cases[i].size && status == GRAFT_OK; at += step) {
                struct bytes input = {cases[i].wire + at, MIN(step, cases[i].size - at)}, frame;
                bool whole;
                status = frame_reader_next(&reader, &input, &frame, &whole, NULL);
            }
            cr_assert_eq(status, cases[i].status, "case %zu in steps of %zu", i, step);
            frame_reader_release(&reader);
        }
    }
}
