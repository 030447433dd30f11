// SPDX-License-Identifier: Apache-2.0
//
// Protobuf messages, decoded through an allocator with a cap, and the conversions that every side shares.
#ifndef COMMON_NET_MESSAGE_H
#define COMMON_NET_MESSAGE_H

#include <protobuf-c/protobuf-c.h>

#include "common/base/buffer.h"
#include "common/base/checksum.h"
#include "common/base/error.h"
#include "common/base/gid.h"
#include "proto/graft.pb-c.h"

// Decodes; INVALID / BAD_MESSAGE, or LIMIT / TOO_LARGE when the decoded form would take more than memory_max bytes
// (hostile messages can be a hundred times larger in memory than on the wire). Unknown fields are skipped, not kept.
enum graft_status message_decode(const ProtobufCMessageDescriptor *descriptor, struct bytes wire,
                                 size_t memory_max, ProtobufCMessage **ret_message, struct graft_error *err);
void message_free(ProtobufCMessage *message); // NULL is fine
static inline void message_free_p(ProtobufCMessage **message)
{
    message_free(*message);
}
#define MESSAGE_GUARD(name) _cleanup_(message_free_p) ProtobufCMessage *name = NULL

// Appends the encoding; LIMIT at the buffer's cap.
enum graft_status message_encode(const ProtobufCMessage *message, struct buffer *to, struct graft_error *err);
// The same behind a varint of its length: a frame of a stream.
enum graft_status message_encode_frame(const ProtobufCMessage *message, struct buffer *to,
                                       struct graft_error *err);

// Splits a stream of frames as it comes in. Frames above frame_max are LIMIT; memory is bounded by it.
struct frame_reader {
    struct buffer pending;
    size_t frame_max;
    bool delivered; // what is pending was returned by the last call
};
void frame_reader_init(struct frame_reader *reader, size_t frame_max);
void frame_reader_release(struct frame_reader *reader);
// Takes from *input (advancing it) until one frame is whole. *ret_frame (without its length) borrows from the reader or
// the input and lives until the next call. *ret_whole false: the input is used up.
enum graft_status frame_reader_next(struct frame_reader *reader, struct bytes *input, struct bytes *ret_frame,
                                    bool *ret_whole, struct graft_error *err);
// True between frames: a stream may end here.
bool frame_reader_is_empty(const struct frame_reader *reader);

// What a volume was at one LSN, decoded and checked.
struct snapshot {
    struct gid vid;
    uint64_t lsn;
    uint32_t page_count;
    struct hash128 chain;
    uint32_t page_size;
    bool variable;
    bool deleted;
    uint64_t time_ms;
};
// INVALID for a missing one (NULL) and for fields out of their range, LSN 0 with pages or a chain included.
enum graft_status snapshot_from_message(const Graft__Snapshot *message, struct snapshot *ret_snapshot,
                                        struct graft_error *err);
// Fills *ret_message with pointers into *snapshot.
void snapshot_to_message(const struct snapshot *snapshot, Graft__Snapshot *ret_message);

// `bytes` fields: INVALID / BAD_ARGUMENT naming `field` unless they have exactly 16 bytes.
enum graft_status hash_from_bytes(struct bytes bytes, const char *field, struct hash128 *ret_hash,
                                  struct graft_error *err);
enum graft_status token_from_bytes(struct bytes bytes, const char *field, struct token *ret_token,
                                   struct graft_error *err);

static inline struct bytes bytes_of(const ProtobufCBinaryData *data)
{
    return (struct bytes){data->data, data->len};
}
static inline ProtobufCBinaryData binary_of(const void *data, size_t size)
{
    return (ProtobufCBinaryData){size, (uint8_t *)data};
}

// Error messages. The strings of *ret_message borrow from *error, which is not OK. A received one that says OK becomes
// INTERNAL / PROTOCOL.
void error_to_message(const struct graft_error *error, Graft__Error *ret_message);
void error_from_message(const Graft__Error *message, struct graft_error *ret_error);

#endif
