// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a segment around its payloads (docs/FORMATS.md): names, sizes, the footer. segment_draft.h
// encodes an index, segment_index.h decodes one. Pure functions over memory.
//
// Writer and reader meet in these invariants; the encoder keeps them, the decoder refuses anything else:
//
//  1. Volumes ascend strictly by VID and each has at least one page; page sets are canonical.
//  2. Payloads lie in the order of the index and without gaps: the first at SEGMENT_MAGIC_SIZE, each where
//  the
//     one before it ends, the last one ending at index_offset. So no two overlap, and none reaches out of its
//     bounds.
//  3. A raw page's size is its raw size; a zstd page is smaller than its raw size; no raw size exceeds
//     PAGE_SIZE_MAX.
//  4. index_offset + index_size + SEGMENT_FOOTER_SIZE = object_size <= SEGMENT_SIZE_MAX.
//  5. The index has exactly the volumes and pages that the footer counts, and not a byte more.
#ifndef PAGESTORE_SEGMENT_FORMAT_H
#define PAGESTORE_SEGMENT_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bytes.h"
#include "common/base/compiler.h"
#include "common/base/error.h"
#include "common/base/gid.h"

#define SEGMENT_MAGIC "GRFTSEG1"
#define SEGMENT_MAGIC_SIZE 8u
#define SEGMENT_FOOTER_SIZE 64u
#define SEGMENT_FORMAT_VERSION 1u
#define SEGMENT_VOLUMES_MAX UINT16_MAX
#define SEGMENT_KEY_PREFIX "segments/"

// In the decoded index.
#define SEGMENT_VOLUME_HEAD_SIZE (GID_SIZE + 4u)
#define SEGMENT_ENTRY_SIZE 40u

struct segment_key {
    char text[sizeof SEGMENT_KEY_PREFIX + GID_TEXT_SIZE];
};
// "segments/<sid>": the object's key. By value, so that it can stand in an argument list.
struct segment_key segment_key(const struct gid *sid);
// The SID of such a key; false for any other key.
bool segment_key_parse(const char *key, struct gid *ret_sid);

// Where a page lies and what it must be.
struct segment_page {
    uint32_t offset; // from the object's start
    uint32_t size;   // as stored
    uint32_t raw_size;
    uint8_t encoding; // enum page_encoding
    uint8_t page_class;
    uint64_t checksum;        // of the plain bytes, with owner and pageidx: page_checksum()
    uint64_t stored_checksum; // checksum64() of the stored bytes
};

struct segment_footer {
    struct gid sid;
    uint32_t index_offset;
    uint32_t index_size; // as stored
    uint32_t index_raw_size;
    uint32_t object_size;
    uint64_t index_checksum; // of the stored index
    uint16_t volume_count;
    uint32_t page_count;
};

// `sid` and `object_size` are what the caller asked for and got. CORRUPT / BAD_CHECKSUM or BAD_MESSAGE naming
// the segment and the field.
enum graft_status segment_footer_decode(struct bytes footer, const struct gid *sid, uint64_t object_size,
                                        struct segment_footer *ret_footer, struct graft_error *err);
// Writes SEGMENT_FOOTER_SIZE bytes.
void segment_footer_encode(uint8_t *to, const struct segment_footer *footer);

// What is wrong with segment `sid`, for functions that decode: "segment <sid>: …". Returns CORRUPT.
enum graft_status segment_corrupt(struct graft_error *err, enum graft_detail detail, const struct gid *sid,
                                  const char *format, ...) _printf_(4, 5);

#endif
