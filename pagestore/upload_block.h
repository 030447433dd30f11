// SPDX-License-Identifier: Apache-2.0
//
// A block of uploaded pages, laid out as the segment will hold them: the only place where their bytes rest
// between the socket and the segment. Owned by one thread at a time; whoever owns it may use it.
#ifndef PAGESTORE_UPLOAD_BLOCK_H
#define PAGESTORE_UPLOAD_BLOCK_H

#include <sys/queue.h>

#include "common/base/limits.h"
#include "common/net/page_stream.h"
#include "pagestore/segment_draft.h"

#define UPLOAD_BLOCK_SIZE (256 * KIB) // a block with as many bytes is full
#define UPLOAD_BLOCK_PAGES_MAX 2048u

struct upload_block {
    STAILQ_ENTRY(upload_block) next;
    struct segment_draft_page *pages;
    uint8_t *data;
    size_t size, capacity; // bytes of data
    uint32_t page_count, page_capacity;
};
STAILQ_HEAD(upload_blocks, upload_block);

// What a block for a body of `body_size` bytes takes in memory, and the block itself: no larger than the body
// needs. NULL without memory.
size_t upload_block_memory(uint64_t body_size);
struct upload_block *upload_block_new(uint64_t body_size);
void upload_block_free(struct upload_block *block); // NULL is fine
void upload_block_clear(struct upload_block *block);

// True: nothing more goes in. False: a page of any size does, as long as the body keeps to its announced
// size.
bool upload_block_is_full(const struct upload_block *block);
// Copies the page in. False if the body has more bytes than were announced.
bool upload_block_add(struct upload_block *block, const struct page_header *header, struct bytes data);

// Decodes and verifies each page, notes the checksums of the stored bytes. INVALID / BAD_CHECKSUM or
// BAD_MESSAGE naming the page.
enum graft_status upload_block_verify(struct upload_block *block, struct page_codec *codec,
                                      const struct gid *vid, struct graft_error *err);

static inline struct bytes upload_block_payload(const struct upload_block *block)
{
    return (struct bytes){block->data, block->size};
}

#endif
