// SPDX-License-Identifier: Apache-2.0
//
// Page streams: the bodies of read_pages and write_pages. Frames are PageFrame messages (proto/graft.proto) behind a
// varint of their length; they are encoded and decoded by hand, so that no page is copied or allocated for on the way:
// a producer writes a header and then the page's bytes from wherever they lie, a consumer gets a view.
//
// The order is Begin, then Owner and Page frames, then End; nothing follows End. `data` is the last field of a Page. The
// count in End is of Page frames, whatever their state; it is checked where End is OK.
#ifndef COMMON_NET_PAGE_STREAM_H
#define COMMON_NET_PAGE_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buffer.h"
#include "common/base/checksum.h"
#include "common/base/error.h"
#include "common/base/gid.h"

enum page_state {
    PAGE_STATE_STORED = 1,
    PAGE_STATE_EMPTY = 2,
    PAGE_STATE_DAMAGED = 3,
};

enum page_encoding {
    PAGE_ENCODING_RAW = 0,
    PAGE_ENCODING_ZSTD = 1,
};

// A page's class byte: what its writer knew of it.
#define PAGE_CLASS_UNKNOWN 0u
#define PAGE_CLASS_LEAF 1u
#define PAGE_CLASS_STRUCTURAL 2u // + level, at most 255

struct page_header {
    uint32_t pageidx;
    enum page_state state;
    uint8_t page_class;
    enum page_encoding encoding;
    uint32_t raw_size;
    uint64_t checksum;
};

// ---- encoding -----------------------------------------------------------------------------------------------------

// No header needs more than this many bytes, its length included.
#define PAGE_FRAME_HEADER_SIZE_MAX 64u

// Each writes at most PAGE_FRAME_HEADER_SIZE_MAX bytes to `to` and returns how many.
size_t page_stream_put_begin(uint8_t *to, const struct gid *vid, uint64_t lsn,
                             const struct hash128 *chain); // NULL: none
size_t page_stream_put_owner(uint8_t *to, const struct gid *owner);
// Everything of a STORED page's frame but its data, which must follow: data_size bytes.
size_t page_stream_put_page(uint8_t *to, const struct page_header *header, uint32_t data_size);
size_t page_stream_put_empty(uint8_t *to, uint32_t pageidx);
// Appends to a buffer (they hold a message of any length).
enum graft_status page_stream_append_damaged(struct buffer *to, uint32_t pageidx,
                                             const struct graft_error *error, struct graft_error *err);
enum graft_status page_stream_append_end(struct buffer *to, uint64_t count, const struct graft_error *error,
                                         struct graft_error *err); // error NULL: OK

// ---- decoding -----------------------------------------------------------------------------------------------------

enum page_event_type {
    PAGE_EVENT_NEED_MORE, // the input is used up
    PAGE_EVENT_BEGIN,
    PAGE_EVENT_OWNER,
    PAGE_EVENT_PAGE,
    PAGE_EVENT_END,
};

struct page_event {
    enum page_event_type type;
    // BEGIN
    struct gid vid;
    uint64_t lsn;
    bool has_chain;
    struct hash128 chain;
    // OWNER
    struct gid owner;
    // PAGE. `data` borrows from the input or the decoder until the next call.
    struct page_header page;
    struct bytes data;
    // PAGE that is DAMAGED; END that is not OK
    struct graft_error error;
    // END
    uint64_t count;
};

struct page_decoder;
struct page_decoder *page_decoder_new(void);
void page_decoder_free(struct page_decoder *decoder); // NULL is fine

// Takes from *input (advancing it) until something is whole. The order of frames, sizes (raw_size ≤ PAGE_SIZE_MAX, data ≤
// PAGE_FRAME_SIZE_MAX, RAW: data size = raw_size), states and the count in End are checked; any fault is INVALID /
// BAD_MESSAGE (LIMIT / TOO_LARGE for sizes) naming the frame's number and the field. After an error the decoder is done.
enum graft_status page_decoder_next(struct page_decoder *decoder, struct bytes *input,
                                    struct page_event *ret_event, struct graft_error *err);
// INVALID / TRUNCATED unless End was seen.
enum graft_status page_decoder_finish(const struct page_decoder *decoder, struct graft_error *err);

// ---- a page's payload -----------------------------------------------------------------------------------------------

// Reusable zstd contexts and a scratch page. One per thread.
struct page_codec;
struct page_codec *page_codec_new(void);
void page_codec_free(struct page_codec *codec); // NULL is fine

// Encodes as it will be stored: zstd level 1 where that saves at least 12%, else raw (then *ret_data borrows `plain`,
// otherwise the codec, until its next use).
void page_codec_encode(struct page_codec *codec, struct bytes plain, enum page_encoding *ret_encoding,
                       struct bytes *ret_data);
// Decodes and verifies: the frame's content size must be raw_size before a byte is decoded, the checksum must match after.
// CORRUPT / BAD_CHECKSUM, INVALID / BAD_MESSAGE. *ret_plain borrows `data` (raw) or the codec.
enum graft_status page_codec_decode(struct page_codec *codec, const struct gid *owner,
                                    const struct page_header *header, struct bytes data,
                                    struct bytes *ret_plain, struct graft_error *err);

#endif
