// SPDX-License-Identifier: Apache-2.0
//
// Decoding is protobuf-c's, bounded by an allocator that counts. What it counts is every byte asked for,
// never what was given back: protobuf-c's own tables of a message with a million fields are memory too, if
// only for a moment.
#include "common/net/message.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"

// What an allocation costs beside its bytes.
#define ALLOCATION_OVERHEAD 16u

struct capped_memory {
    size_t left;
    bool exceeded;
    bool exhausted; // the machine had no memory, whatever the cap says
};

static void *capped_alloc(void *allocator_data, size_t size)
{
    struct capped_memory *memory = allocator_data;
    if (memory->left < ALLOCATION_OVERHEAD || size > memory->left - ALLOCATION_OVERHEAD) {
        memory->exceeded = true;
        return NULL;
    }
    void *pointer = malloc(size);
    if (!pointer)
        memory->exhausted = true;
    else
        memory->left -= size + ALLOCATION_OVERHEAD;
    return pointer;
}

static void capped_free(void *allocator_data, void *pointer)
{
    (void)allocator_data;
    free(pointer);
}

// A field's sub-messages: their number, and the first of them in *ret_messages.
static size_t submessages(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                          ProtobufCMessage ***ret_messages)
{
    char *base = (char *)message;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        *ret_messages = *(ProtobufCMessage ***)(base + field->offset);
        return *(size_t *)(base + field->quantifier_offset);
    }
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        // The member's storage is shared: it is a message only if the discriminant says so.
        if (*(uint32_t *)(base + field->quantifier_offset) != field->id)
            return 0;
    }
    *ret_messages = (ProtobufCMessage **)(base + field->offset);
    return **ret_messages ? 1 : 0;
}

// protobuf-c keeps unknown fields, and would send them on when the message is encoded again.
static void drop_unknown_fields(ProtobufCMessage *message)
{
    for (unsigned i = 0; i < message->n_unknown_fields; i++)
        free(message->unknown_fields[i].data);
    free(message->unknown_fields);
    message->unknown_fields = NULL;
    message->n_unknown_fields = 0;

    for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        ProtobufCMessage **messages = NULL;
        size_t count = submessages(message, field, &messages);
        for (size_t k = 0; k < count; k++)
            drop_unknown_fields(messages[k]);
    }
}

enum graft_status message_decode(const ProtobufCMessageDescriptor *descriptor, struct bytes wire,
                                 size_t memory_max, ProtobufCMessage **ret_message, struct graft_error *err)
{
    struct capped_memory memory = {.left = memory_max};
    ProtobufCAllocator allocator = {.alloc = capped_alloc, .free = capped_free, .allocator_data = &memory};
    // protobuf-c reads no byte of an empty message, but forms pointers from its start.
    const uint8_t *data = wire.data ? wire.data : (const uint8_t *)"";
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, wire.size, data);
    if (!message) {
        if (memory.exceeded)
            return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                             "a %s of %zu bytes takes more than %zu bytes of memory once decoded",
                             descriptor->short_name, wire.size, memory_max);
        if (memory.exhausted)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                             "no memory to decode a %s of %zu bytes", descriptor->short_name, wire.size);
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "%zu bytes are no well-formed %s",
                         wire.size, descriptor->short_name);
    }
    drop_unknown_fields(message);
    *ret_message = message;
    return GRAFT_OK;
}

void message_free(ProtobufCMessage *message)
{
    // What capped_alloc() gave is malloc's, so protobuf-c's own allocator may free it.
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

enum graft_status message_encode(const ProtobufCMessage *message, struct buffer *to, struct graft_error *err)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    enum graft_status status = buffer_reserve(to, size, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "encoding a %s", message->descriptor->short_name);
    if (size) {
        CHECK(protobuf_c_message_pack(message, to->data + to->size) == size);
        to->size += size;
    }
    return GRAFT_OK;
}

enum graft_status message_encode_frame(const ProtobufCMessage *message, struct buffer *to,
                                       struct graft_error *err)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    uint8_t length[VARINT_SIZE_MAX];
    size_t length_size = varint_put(length, size);
    // Room for both first, so that a frame that does not fit leaves no length behind.
    enum graft_status status = buffer_reserve(to, length_size + size, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "encoding a %s", message->descriptor->short_name);
    status = buffer_append(to, length, length_size, err);
    if (status == GRAFT_OK)
        status = message_encode(message, to, err);
    CHECK(status == GRAFT_OK);
    return GRAFT_OK;
}

// ---- frames -------------------------------------------------------------------------------------------

void frame_reader_init(struct frame_reader *reader, size_t frame_max)
{
    *reader = (struct frame_reader){.frame_max = frame_max};
    buffer_init(&reader->pending, frame_max + VARINT_SIZE_MAX);
}

void frame_reader_release(struct frame_reader *reader)
{
    buffer_release(&reader->pending);
}

// Reads a frame's length. *ret_header is the size of the length itself, 0 while it is not whole.
static enum graft_status frame_length(const struct frame_reader *reader, struct bytes from,
                                      size_t *ret_header, size_t *ret_size, struct graft_error *err)
{
    uint64_t size;
    int header = varint_get(from.data, from.size, &size);
    if (header < 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "the length of a frame is no varint in its shortest form");
    if (header > 0 && size > reader->frame_max)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "a frame of %llu bytes; the limit is %zu",
                         (unsigned long long)size, reader->frame_max);
    *ret_header = (size_t)header;
    *ret_size = header > 0 ? (size_t)size : 0;
    return GRAFT_OK;
}

// Moves bytes from the input's front to the pending frame until that has `size` bytes. Memory grows with what
// came, not with what a length promises.
static enum graft_status gather(struct frame_reader *reader, struct bytes *input, size_t size,
                                struct graft_error *err)
{
    size_t taken = MIN(size - reader->pending.size, input->size);
    enum graft_status status = buffer_append(&reader->pending, input->data, taken, err);
    if (status != GRAFT_OK)
        return status;
    input->data += taken;
    input->size -= taken;
    return GRAFT_OK;
}

enum graft_status frame_reader_next(struct frame_reader *reader, struct bytes *input, struct bytes *ret_frame,
                                    bool *ret_whole, struct graft_error *err)
{
    enum graft_status status;
    size_t header = 0, size = 0;
    if (reader->delivered) {
        buffer_clear(&reader->pending);
        reader->delivered = false;
    }
    if (reader->pending.size == 0 && input->size > 0) {
        status = frame_length(reader, *input, &header, &size, err);
        if (status != GRAFT_OK)
            return status;
        if (header > 0 && input->size - header >= size) {
            *ret_frame = (struct bytes){input->data + header, size};
            *ret_whole = true;
            input->data += header + size;
            input->size -= header + size;
            return GRAFT_OK;
        }
    }
    while (input->size > 0) {
        // One byte at a time until the length is known, then the rest at once.
        status = gather(reader, input, header ? header + size : reader->pending.size + 1, err);
        if (status == GRAFT_OK)
            status = frame_length(reader, buffer_bytes(&reader->pending), &header, &size, err);
        if (status != GRAFT_OK)
            return status;
        if (header > 0 && reader->pending.size == header + size) {
            *ret_frame = (struct bytes){reader->pending.data + header, size};
            *ret_whole = true;
            reader->delivered = true;
            return GRAFT_OK;
        }
    }
    *ret_whole = false;
    return GRAFT_OK;
}

bool frame_reader_is_empty(const struct frame_reader *reader)
{
    return reader->pending.size == 0 || reader->delivered;
}

// ---- conversions --------------------------------------------------------------------------------------

enum graft_status hash_from_bytes(struct bytes bytes, const char *field, struct hash128 *ret_hash,
                                  struct graft_error *err)
{
    if (bytes.size != HASH_SIZE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s has %zu bytes; it must have %d",
                         field, bytes.size, HASH_SIZE);
    memcpy(ret_hash->bytes, bytes.data, HASH_SIZE);
    return GRAFT_OK;
}

enum graft_status token_from_bytes(struct bytes bytes, const char *field, struct token *ret_token,
                                   struct graft_error *err)
{
    if (bytes.size != TOKEN_SIZE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s has %zu bytes; it must have %d",
                         field, bytes.size, TOKEN_SIZE);
    memcpy(ret_token->bytes, bytes.data, TOKEN_SIZE);
    return GRAFT_OK;
}

enum graft_status snapshot_from_message(const Graft__Snapshot *message, struct snapshot *ret_snapshot,
                                        struct graft_error *err)
{
    static const struct hash128 zero;
    struct snapshot snapshot = {0};
    if (!message)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "the snapshot is missing");
    enum graft_status status =
        gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "snapshot.vid", &snapshot.vid, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&message->chain), "snapshot.chain", &snapshot.chain, err);
    if (status != GRAFT_OK)
        return status;
    if (message->page_size < PAGE_SIZE_MIN || message->page_size > PAGE_SIZE_MAX ||
        (message->page_size & (message->page_size - 1)) != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "snapshot.page_size is %u; it must be a power of two from %u to %u",
                         message->page_size, PAGE_SIZE_MIN, PAGE_SIZE_MAX);
    if (message->kind != GRAFT__VOLUME_KIND__VOLUME_FIXED &&
        message->kind != GRAFT__VOLUME_KIND__VOLUME_VARIABLE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "snapshot.kind is %d; it is 1 or 2",
                         (int)message->kind);
    if (message->lsn == 0 && (message->page_count != 0 || !hash_equal(&snapshot.chain, &zero)))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "a snapshot at LSN 0 has %u pages or a chain; it can have neither",
                         message->page_count);
    snapshot.lsn = message->lsn;
    snapshot.page_count = message->page_count;
    snapshot.page_size = message->page_size;
    snapshot.variable = message->kind == GRAFT__VOLUME_KIND__VOLUME_VARIABLE;
    snapshot.deleted = message->deleted;
    snapshot.time_ms = message->time_ms;
    *ret_snapshot = snapshot;
    return GRAFT_OK;
}

void snapshot_to_message(const struct snapshot *snapshot, Graft__Snapshot *ret_message)
{
    graft__snapshot__init(ret_message);
    ret_message->vid = binary_of(snapshot->vid.bytes, GID_SIZE);
    ret_message->lsn = snapshot->lsn;
    ret_message->page_count = snapshot->page_count;
    ret_message->chain = binary_of(snapshot->chain.bytes, HASH_SIZE);
    ret_message->page_size = snapshot->page_size;
    ret_message->kind =
        snapshot->variable ? GRAFT__VOLUME_KIND__VOLUME_VARIABLE : GRAFT__VOLUME_KIND__VOLUME_FIXED;
    ret_message->time_ms = snapshot->time_ms;
    ret_message->deleted = snapshot->deleted;
}

void error_to_message(const struct graft_error *error, Graft__Error *ret_message)
{
    CHECK(error->status != GRAFT_OK);
    graft__error__init(ret_message);
    ret_message->status = (uint32_t)error->status;
    ret_message->detail = (uint32_t)error->detail;
    ret_message->message = (char *)error->message;
}

void error_from_message(const Graft__Error *message, struct graft_error *ret_error)
{
    const char *text = message->message ? message->message : "";
    enum graft_status status = status_from_wire(message->status);
    if (status == GRAFT_OK) {
        error_set(ret_error, GRAFT_INTERNAL, GRAFT_DETAIL_PROTOCOL, "an error that says it is none: %s",
                  text);
        return;
    }
    error_set(ret_error, status, detail_from_wire(message->detail), "%s", text);
}
