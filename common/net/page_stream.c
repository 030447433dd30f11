// SPDX-License-Identifier: Apache-2.0
//
// A frame on the wire (field numbers as in proto/graft.proto):
//
//     length of the rest ‖ tag of begin, owner, page or end ‖ length ‖ its fields
//     Page: … ‖ 0x7a ‖ data size ‖ data
//
// Invariants of the decoder:
// 1. A view that an event holds ends with its frame: nothing is read beyond what frame_reader calls whole.
// 2. Memory is one frame at most, whatever lengths the peer claims: frame_reader's cap is
// PAGE_FRAME_SIZE_MAX.
// 3. Once a frame was refused, every further call is: the caller cannot stumble back into a stream gone
// wrong.
#include "common/net/page_stream.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/message.h"

// protobuf's wire types
enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_FIXED32 = 5,
};

// Field numbers of PageFrame.
enum frame_field {
    FRAME_BEGIN = 1,
    FRAME_OWNER = 2,
    FRAME_PAGE = 3,
    FRAME_END = 4,
};

// Field numbers of Page.
enum page_field {
    PAGE_FIELD_PAGEIDX = 1,
    PAGE_FIELD_STATE = 2,
    PAGE_FIELD_CLASS = 3,
    PAGE_FIELD_ENCODING = 4,
    PAGE_FIELD_RAW_SIZE = 5,
    PAGE_FIELD_CHECKSUM = 6,
    PAGE_FIELD_ERROR = 7,
    PAGE_FIELD_DATA = 15,
};

#define TAG(number, type) ((uint8_t)((number) << 3 | (type)))

// ---- encoding -----------------------------------------------------------------------------------------

static uint8_t *put_number(uint8_t *to, unsigned number, uint64_t value)
{
    if (value == 0) // proto3 leaves defaults out
        return to;
    *to++ = TAG(number, WIRE_VARINT);
    return to + varint_put(to, value);
}

static uint8_t *put_bytes(uint8_t *to, unsigned number, const void *data, size_t size)
{
    *to++ = TAG(number, WIRE_BYTES);
    to += varint_put(to, size);
    memcpy(to, data, size);
    return to + size;
}

// Writes the frame's length, its tag and the fields. `following` more bytes of it will come from elsewhere.
static size_t put_frame(uint8_t *to, enum frame_field kind, const uint8_t *fields, size_t size,
                        size_t following)
{
    uint8_t *at = to;
    size_t whole = size + following;
    at += varint_put(at, 1 + varint_size(whole) + whole);
    *at++ = TAG(kind, WIRE_BYTES);
    at += varint_put(at, whole);
    memcpy(at, fields, size);
    at += size;
    CHECK((size_t)(at - to) <= PAGE_FRAME_HEADER_SIZE_MAX);
    return (size_t)(at - to);
}

size_t page_stream_put_begin(uint8_t *to, const struct gid *vid, uint64_t lsn, const struct hash128 *chain)
{
    uint8_t fields[PAGE_FRAME_HEADER_SIZE_MAX];
    uint8_t *at = put_bytes(fields, 1, vid->bytes, GID_SIZE);
    at = put_number(at, 2, lsn);
    if (chain)
        at = put_bytes(at, 3, chain->bytes, HASH_SIZE);
    return put_frame(to, FRAME_BEGIN, fields, (size_t)(at - fields), 0);
}

size_t page_stream_put_owner(uint8_t *to, const struct gid *owner)
{
    uint8_t fields[PAGE_FRAME_HEADER_SIZE_MAX];
    uint8_t *at = put_bytes(fields, 1, owner->bytes, GID_SIZE);
    return put_frame(to, FRAME_OWNER, fields, (size_t)(at - fields), 0);
}

size_t page_stream_put_page(uint8_t *to, const struct page_header *header, uint32_t data_size)
{
    CHECK(header->pageidx > 0 && header->state == PAGE_STATE_STORED && header->raw_size <= PAGE_SIZE_MAX);
    uint8_t fields[PAGE_FRAME_HEADER_SIZE_MAX];
    uint8_t *at = put_number(fields, PAGE_FIELD_PAGEIDX, header->pageidx);
    at = put_number(at, PAGE_FIELD_STATE, PAGE_STATE_STORED);
    at = put_number(at, PAGE_FIELD_CLASS, header->page_class);
    at = put_number(at, PAGE_FIELD_ENCODING, header->encoding);
    at = put_number(at, PAGE_FIELD_RAW_SIZE, header->raw_size);
    *at++ = TAG(PAGE_FIELD_CHECKSUM, WIRE_FIXED64);
    put_le64(at, header->checksum);
    at += 8;
    *at++ = TAG(PAGE_FIELD_DATA, WIRE_BYTES);
    at += varint_put(at, data_size);
    return put_frame(to, FRAME_PAGE, fields, (size_t)(at - fields), data_size);
}

size_t page_stream_put_empty(uint8_t *to, uint32_t pageidx)
{
    CHECK(pageidx > 0);
    uint8_t fields[PAGE_FRAME_HEADER_SIZE_MAX];
    uint8_t *at = put_number(fields, PAGE_FIELD_PAGEIDX, pageidx);
    at = put_number(at, PAGE_FIELD_STATE, PAGE_STATE_EMPTY);
    return put_frame(to, FRAME_PAGE, fields, (size_t)(at - fields), 0);
}

enum graft_status page_stream_append_damaged(struct buffer *to, uint32_t pageidx,
                                             const struct graft_error *error, struct graft_error *err)
{
    Graft__Error cause;
    Graft__Page page = GRAFT__PAGE__INIT;
    Graft__PageFrame frame = GRAFT__PAGE_FRAME__INIT;
    error_to_message(error, &cause);
    page.pageidx = pageidx;
    page.state = GRAFT__PAGE_STATE__PAGE_DAMAGED;
    page.error = &cause;
    frame.frame_case = GRAFT__PAGE_FRAME__FRAME_PAGE;
    frame.page = &page;
    return message_encode_frame(&frame.base, to, err);
}

enum graft_status page_stream_append_end(struct buffer *to, uint64_t count, const struct graft_error *error,
                                         struct graft_error *err)
{
    Graft__Error cause;
    Graft__StreamEnd end = GRAFT__STREAM_END__INIT;
    Graft__PageFrame frame = GRAFT__PAGE_FRAME__INIT;
    end.count = count;
    if (error && error->status != GRAFT_OK) {
        error_to_message(error, &cause);
        end.status = cause.status;
        end.error = &cause;
    }
    frame.frame_case = GRAFT__PAGE_FRAME__FRAME_END;
    frame.end = &end;
    return message_encode_frame(&frame.base, to, err);
}

// ---- fields -------------------------------------------------------------------------------------------

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;     // VARINT, FIXED64
    struct bytes bytes; // BYTES
};

static enum graft_status fault(struct graft_error *err, const char *field, const char *what)
{
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "%s %s", field, what);
}

static bool take_varint(struct bytes *from, uint64_t *ret_value)
{
    int taken = varint_get(from->data, from->size, ret_value);
    if (taken <= 0)
        return false;
    from->data += taken;
    from->size -= (size_t)taken;
    return true;
}

static bool take_fixed(struct bytes *from, size_t size, const uint8_t **ret_data)
{
    if (from->size < size)
        return false;
    *ret_data = from->data;
    from->data += size;
    from->size -= size;
    return true;
}

// 1: a field is in *ret_field; 0: the message's end; -1: malformed. Groups, which proto3 does not have, are
// malformed.
static int next_field(struct bytes *from, struct field *ret_field)
{
    const uint8_t *fixed;
    uint64_t tag, size;
    if (from->size == 0)
        return 0;
    if (!take_varint(from, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return -1;
    ret_field->number = (uint32_t)(tag >> 3);
    ret_field->type = (enum wire_type)(tag & 7);
    switch (ret_field->type) {
    case WIRE_VARINT:
        return take_varint(from, &ret_field->value) ? 1 : -1;
    case WIRE_FIXED64:
        if (!take_fixed(from, 8, &fixed))
            return -1;
        ret_field->value = get_le64(fixed);
        return 1;
    case WIRE_BYTES:
        if (!take_varint(from, &size) || size > from->size || !take_fixed(from, (size_t)size, &fixed))
            return -1;
        ret_field->bytes = (struct bytes){fixed, (size_t)size};
        return 1;
    case WIRE_FIXED32:
        return take_fixed(from, 4, &fixed) ? 1 : -1;
    }
    return -1;
}

static enum graft_status number_of(const struct field *field, const char *name, uint64_t max,
                                   uint64_t *ret_value, struct graft_error *err)
{
    if (field->type != WIRE_VARINT)
        return fault(err, name, "is no number");
    if (field->value > max)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "%s is %llu; it is at most %llu", name,
                         (unsigned long long)field->value, (unsigned long long)max);
    *ret_value = field->value;
    return GRAFT_OK;
}

static enum graft_status bytes_of_field(const struct field *field, const char *name, struct bytes *ret_bytes,
                                        struct graft_error *err)
{
    if (field->type != WIRE_BYTES)
        return fault(err, name, "is no byte string");
    *ret_bytes = field->bytes;
    return GRAFT_OK;
}

// ---- the frames' messages -----------------------------------------------------------------------------

static enum graft_status parse_begin(struct bytes from, struct page_event *event, struct graft_error *err)
{
    struct field field;
    struct bytes vid = {0}, chain = {0};
    uint64_t lsn = 0;
    int more;
    while ((more = next_field(&from, &field)) > 0) {
        enum graft_status status = GRAFT_OK;
        if (field.number == 1)
            status = bytes_of_field(&field, "begin.vid", &vid, err);
        else if (field.number == 2)
            status = number_of(&field, "begin.lsn", UINT64_MAX, &lsn, err);
        else if (field.number == 3)
            status = bytes_of_field(&field, "begin.chain", &chain, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (more < 0)
        return fault(err, "begin", "is cut off or malformed");
    event->type = PAGE_EVENT_BEGIN;
    event->lsn = lsn;
    event->has_chain = chain.size > 0;
    if (event->has_chain) {
        enum graft_status status = hash_from_bytes(chain, "begin.chain", &event->chain, err);
        if (status != GRAFT_OK)
            return status;
    }
    return gid_from_bytes(vid, GID_VOLUME, "begin.vid", &event->vid, err);
}

static enum graft_status parse_owner(struct bytes from, struct page_event *event, struct graft_error *err)
{
    struct field field;
    struct bytes vid = {0};
    int more;
    while ((more = next_field(&from, &field)) > 0) {
        if (field.number != 1)
            continue;
        enum graft_status status = bytes_of_field(&field, "owner.vid", &vid, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (more < 0)
        return fault(err, "owner", "is cut off or malformed");
    event->type = PAGE_EVENT_OWNER;
    return gid_from_bytes(vid, GID_VOLUME, "owner.vid", &event->owner, err);
}

// An Error message inside a page or an end. One that says OK is a fault.
static enum graft_status parse_error(struct bytes from, struct graft_error *ret_error,
                                     struct graft_error *err)
{
    struct field field;
    struct bytes message = {0};
    uint64_t status_number = 0, detail_number = 0;
    int more;
    while ((more = next_field(&from, &field)) > 0) {
        enum graft_status status = GRAFT_OK;
        if (field.number == 1)
            status = number_of(&field, "error.status", UINT32_MAX, &status_number, err);
        else if (field.number == 2)
            status = number_of(&field, "error.detail", UINT32_MAX, &detail_number, err);
        else if (field.number == 3)
            status = bytes_of_field(&field, "error.message", &message, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (more < 0)
        return fault(err, "error", "is cut off or malformed");
    if (status_number == GRAFT_OK)
        return fault(err, "error.status", "is OK");
    error_set(ret_error, status_from_wire((uint32_t)status_number), detail_from_wire((uint32_t)detail_number),
              "%.*s", (int)message.size, message.data ? (const char *)message.data : "");
    return GRAFT_OK;
}

// What a Page's fields say, before anything was made of it.
struct page_fields {
    uint64_t pageidx, state, page_class, encoding, raw_size, checksum;
    struct bytes error, data;
};

static enum graft_status collect_page(struct bytes from, struct page_fields *fields, struct graft_error *err)
{
    struct field field;
    bool data_seen = false;
    int more;
    while ((more = next_field(&from, &field)) > 0) {
        enum graft_status status = GRAFT_OK;
        if (data_seen)
            return fault(err, "page.data", "is not the last field of its page");
        switch (field.number) {
        case PAGE_FIELD_PAGEIDX:
            status = number_of(&field, "page.pageidx", UINT32_MAX, &fields->pageidx, err);
            break;
        case PAGE_FIELD_STATE:
            status = number_of(&field, "page.state", PAGE_STATE_DAMAGED, &fields->state, err);
            break;
        case PAGE_FIELD_CLASS:
            status = number_of(&field, "page.class", UINT8_MAX, &fields->page_class, err);
            break;
        case PAGE_FIELD_ENCODING:
            status = number_of(&field, "page.encoding", PAGE_ENCODING_ZSTD, &fields->encoding, err);
            break;
        case PAGE_FIELD_RAW_SIZE:
            status = number_of(&field, "page.raw_size", UINT32_MAX, &fields->raw_size, err);
            break;
        case PAGE_FIELD_CHECKSUM:
            if (field.type != WIRE_FIXED64)
                return fault(err, "page.checksum", "is no fixed64");
            fields->checksum = field.value;
            break;
        case PAGE_FIELD_ERROR:
            status = bytes_of_field(&field, "page.error", &fields->error, err);
            break;
        case PAGE_FIELD_DATA:
            status = bytes_of_field(&field, "page.data", &fields->data, err);
            data_seen = true;
            break;
        }
        if (status != GRAFT_OK)
            return status;
    }
    return more < 0 ? fault(err, "page", "is cut off or malformed") : GRAFT_OK;
}

static enum graft_status check_stored(const struct page_fields *fields, struct graft_error *err)
{
    if (fields->raw_size > PAGE_SIZE_MAX)
        return error_set(
            err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "page.raw_size of page %llu is %llu; the limit is %u",
            (unsigned long long)fields->pageidx, (unsigned long long)fields->raw_size, PAGE_SIZE_MAX);
    if (fields->encoding == PAGE_ENCODING_RAW && fields->data.size != fields->raw_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "page.data of page %llu has %zu bytes, and page.raw_size says %llu",
                         (unsigned long long)fields->pageidx, fields->data.size,
                         (unsigned long long)fields->raw_size);
    return GRAFT_OK;
}

static enum graft_status parse_page(struct bytes from, struct page_event *event, struct graft_error *err)
{
    struct page_fields fields = {0};
    enum graft_status status = collect_page(from, &fields, err);
    if (status != GRAFT_OK)
        return status;
    if (fields.pageidx == 0)
        return fault(err, "page.pageidx", "is 0; pages count from 1");
    if (fields.state == 0)
        return fault(err, "page.state", "is missing");
    event->error.status = GRAFT_OK;
    if (fields.state == PAGE_STATE_STORED)
        status = check_stored(&fields, err);
    else if (fields.data.size > 0 || fields.raw_size > 0)
        status = fault(err, "page.data", "comes with a page that is not stored");
    else if (fields.state == PAGE_STATE_DAMAGED)
        status = parse_error(fields.error, &event->error, err);
    if (status != GRAFT_OK)
        return status;

    event->type = PAGE_EVENT_PAGE;
    event->page = (struct page_header){
        .pageidx = (uint32_t)fields.pageidx,
        .state = (enum page_state)fields.state,
        .page_class = (uint8_t)fields.page_class,
        .encoding = (enum page_encoding)fields.encoding,
        .raw_size = (uint32_t)fields.raw_size,
        .checksum = fields.checksum,
    };
    event->data = fields.data;
    return GRAFT_OK;
}

static enum graft_status parse_end(struct bytes from, uint64_t pages, struct page_event *event,
                                   struct graft_error *err)
{
    struct field field;
    struct bytes error = {0};
    uint64_t status_number = 0, count = 0;
    int more;
    while ((more = next_field(&from, &field)) > 0) {
        enum graft_status status = GRAFT_OK;
        if (field.number == 1)
            status = number_of(&field, "end.status", UINT32_MAX, &status_number, err);
        else if (field.number == 2)
            status = number_of(&field, "end.count", UINT64_MAX, &count, err);
        else if (field.number == 3)
            status = bytes_of_field(&field, "end.error", &error, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (more < 0)
        return fault(err, "end", "is cut off or malformed");
    event->type = PAGE_EVENT_END;
    event->count = count;
    event->error = (struct graft_error){.status = GRAFT_OK};
    if (error.size > 0)
        return parse_error(error, &event->error, err);
    if (status_number != GRAFT_OK) {
        error_set(&event->error, status_from_wire((uint32_t)status_number), GRAFT_DETAIL_NONE,
                  "the other side ended the stream and gave no reason");
        return GRAFT_OK;
    }
    // With an error the stream is worth nothing whatever its count, and the error is what matters.
    if (count != pages)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE, "end.count is %llu after %llu pages",
                         (unsigned long long)count, (unsigned long long)pages);
    return GRAFT_OK;
}

// ---- decoding -----------------------------------------------------------------------------------------

struct page_decoder {
    struct frame_reader frames;
    enum {
        DECODER_BEFORE_BEGIN,
        DECODER_PAGES,
        DECODER_ENDED,
        DECODER_FAILED,
    } state;
    uint64_t frame_count;
    uint64_t page_count;
};

struct page_decoder *page_decoder_new(void)
{
    struct page_decoder *decoder = calloc(1, sizeof *decoder);
    CHECK(decoder);
    frame_reader_init(&decoder->frames, PAGE_FRAME_SIZE_MAX);
    return decoder;
}

void page_decoder_free(struct page_decoder *decoder)
{
    if (!decoder)
        return;
    frame_reader_release(&decoder->frames);
    free(decoder);
}

// The one known field of a frame.
static enum graft_status frame_content(struct bytes frame, struct field *ret_content, struct graft_error *err)
{
    struct field field;
    bool found = false;
    int more;
    while ((more = next_field(&frame, &field)) > 0) {
        if (field.number < FRAME_BEGIN || field.number > FRAME_END)
            continue;
        if (found)
            return fault(err, "the frame", "holds more than one of begin, owner, page and end");
        if (field.type != WIRE_BYTES)
            return fault(err, "the frame's content", "is no message");
        *ret_content = field;
        found = true;
    }
    if (more < 0)
        return fault(err, "the frame", "is cut off or malformed");
    return found ? GRAFT_OK : fault(err, "the frame", "holds none of begin, owner, page and end");
}

static enum graft_status take_frame(struct page_decoder *decoder, struct bytes frame,
                                    struct page_event *event, struct graft_error *err)
{
    struct field content = {0};
    enum graft_status status = frame_content(frame, &content, err);
    if (status != GRAFT_OK)
        return status;
    if ((decoder->state == DECODER_BEFORE_BEGIN) != (content.number == FRAME_BEGIN))
        return fault(err, "begin", content.number == FRAME_BEGIN ? "comes twice" : "does not come first");
    switch ((enum frame_field)content.number) {
    case FRAME_BEGIN:
        decoder->state = DECODER_PAGES;
        return parse_begin(content.bytes, event, err);
    case FRAME_OWNER:
        return parse_owner(content.bytes, event, err);
    case FRAME_PAGE:
        decoder->page_count++;
        return parse_page(content.bytes, event, err);
    case FRAME_END:
        decoder->state = DECODER_ENDED;
        return parse_end(content.bytes, decoder->page_count, event, err);
    }
    return fault(err, "the frame", "is of no known kind");
}

enum graft_status page_decoder_next(struct page_decoder *decoder, struct bytes *input,
                                    struct page_event *ret_event, struct graft_error *err)
{
    struct bytes frame;
    bool whole = false;
    enum graft_status status = GRAFT_OK;
    if (decoder->state == DECODER_FAILED)
        return fault(err, "the page stream", "was refused before");
    if (decoder->state == DECODER_ENDED) {
        if (input->size > 0) {
            decoder->state = DECODER_FAILED;
            return fault(err, "the page stream", "goes on after its end");
        }
    } else {
        status = frame_reader_next(&decoder->frames, input, &frame, &whole, err);
        if (status == GRAFT_OK && whole)
            status = take_frame(decoder, frame, ret_event, err);
    }
    if (status != GRAFT_OK) {
        decoder->state = DECODER_FAILED;
        if (err && status == GRAFT_INVALID)
            err->detail = GRAFT_DETAIL_BAD_MESSAGE; // whatever a field's own parser calls it
        return error_context(err, status, "frame %llu of the page stream",
                             (unsigned long long)decoder->frame_count + 1);
    }
    if (whole)
        decoder->frame_count++;
    else
        ret_event->type = PAGE_EVENT_NEED_MORE;
    return GRAFT_OK;
}

enum graft_status page_decoder_finish(const struct page_decoder *decoder, struct graft_error *err)
{
    if (decoder->state == DECODER_ENDED)
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_TRUNCATED,
                     "the page stream stops after %llu frames and %llu pages, without an end",
                     (unsigned long long)decoder->frame_count, (unsigned long long)decoder->page_count);
}
