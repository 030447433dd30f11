// SPDX-License-Identifier: Apache-2.0
//
// The body of a write_pages call, being made. A page's bytes follow from its volume and number, and do not compress.
#ifndef TESTS_LIB_UPLOAD_STREAM_H
#define TESTS_LIB_UPLOAD_STREAM_H

#include "common/net/page_stream.h"

struct stream {
    struct buffer bytes;
    struct gid vid;
    uint64_t count;
};
void stream_begin(struct stream *stream, const struct gid *vid);
// A page whose bytes follow from (vid, pageidx); every 16th is structural.
void stream_page(struct stream *stream, uint32_t pageidx, uint32_t size);
void stream_page_zstd(struct stream *stream, uint32_t pageidx, uint32_t size); // bytes that compress well
// Whatever header and data a test wants.
void stream_frame(struct stream *stream, const struct page_header *header, struct bytes data);
void stream_end(struct stream *stream);
void stream_release(struct stream *stream);
// Begin, `count` pages from `first` on, end.
struct stream stream_of(const struct gid *vid, uint32_t first, uint32_t count, uint32_t page_size);

void page_fill(uint8_t *to, const struct gid *vid, uint32_t pageidx, uint32_t size);

#endif
