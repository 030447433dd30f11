// SPDX-License-Identifier: Apache-2.0
//
// Every message of the protocol. The first byte chooses the message, the second the cap on its memory. What
// decodes must encode, decode again to the same bytes, and hold no unknown field.
#include <malloc.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const descriptors[] = {
    &graft__create_volume_request__descriptor,
    &graft__create_volume_response__descriptor,
    &graft__list_volumes_request__descriptor,
    &graft__list_volumes_response__descriptor,
    &graft__delete_volume_request__descriptor,
    &graft__delete_volume_response__descriptor,
    &graft__snapshot_request__descriptor,
    &graft__snapshot_response__descriptor,
    &graft__pull_request__descriptor,
    &graft__pull_response__descriptor,
    &graft__commit_request__descriptor,
    &graft__commit_response__descriptor,
    &graft__commits_request__descriptor,
    &graft__commits_frame__descriptor,
    &graft__watch_request__descriptor,
    &graft__watch_frame__descriptor,
    &graft__read_pages_request__descriptor,
    &graft__write_pages_response__descriptor,
    &graft__list_segments_request__descriptor,
    &graft__list_segments_response__descriptor,
    &graft__segment_request__descriptor,
    &graft__segment_response__descriptor,
    &graft__page_frame__descriptor,
    &graft__error__descriptor,
    &graft__commit__descriptor,
    &graft__summary__descriptor,
    &graft__volume_record__descriptor,
    &graft__fork_request__descriptor,
    &graft__fork_response__descriptor,
    &graft__backup_request__descriptor,
    &graft__backup_response__descriptor,
};

static void convert(const ProtobufCMessage *message)
{
    struct graft_error err;
    struct snapshot snapshot;
    if (message->descriptor == &graft__error__descriptor) {
        error_from_message((const Graft__Error *)message, &err);
        CHECK(err.status != GRAFT_OK);
    }
    if (message->descriptor == &graft__snapshot_response__descriptor &&
        snapshot_from_message(((const Graft__SnapshotResponse *)message)->snapshot, &snapshot, &err) ==
            GRAFT_OK) {
        Graft__Snapshot back;
        snapshot_to_message(&snapshot, &back);
        CHECK(back.lsn == snapshot.lsn && back.page_size >= PAGE_SIZE_MIN);
    }
}

// The same bytes as frames of a stream.
static void split(struct bytes stream)
{
    struct frame_reader reader;
    struct bytes frame;
    struct graft_error err;
    bool whole = true;
    frame_reader_init(&reader, 1000);
    while (whole && frame_reader_next(&reader, &stream, &frame, &whole, &err) == GRAFT_OK) {
        if (whole)
            CHECK(frame.size <= 1000);
        else
            CHECK(stream.size == 0);
    }
    frame_reader_release(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const ProtobufCMessageDescriptor *descriptor = descriptors[data[0] % ARRAY_COUNT(descriptors)];
    size_t memory_max = data[1] == 255 ? 64 * MIB : (size_t)data[1] * 32;
    struct bytes wire = {data + 2, size - 2};
    ProtobufCMessage *message = NULL, *again = NULL;
    struct graft_error err;
    split(wire);
    enum graft_status status = message_decode(descriptor, wire, memory_max, &message, &err);
    if (status != GRAFT_OK) {
        CHECK(!message && (status == GRAFT_INVALID || status == GRAFT_LIMIT));
        return 0;
    }
    CHECK(message->n_unknown_fields == 0);
    convert(message);
    _cleanup_(buffer_release) struct buffer first = BUFFER_INIT(64 * MIB), second = BUFFER_INIT(64 * MIB);
    CHECK(message_encode(message, &first, NULL) == GRAFT_OK);
    CHECK(message_decode(descriptor, buffer_bytes(&first), 256 * MIB, &again, &err) == GRAFT_OK);
    CHECK(message_encode(again, &second, NULL) == GRAFT_OK);
    CHECK(first.size == second.size && (first.size == 0 || memcmp(first.data, second.data, first.size) == 0));
    message_free(message);
    message_free(again);
    return 0;
}
