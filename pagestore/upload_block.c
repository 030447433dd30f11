// SPDX-License-Identifier: Apache-2.0
#include "pagestore/upload_block.h"

#include <stdlib.h>

// A page's frame has rarely less than this many bytes; a block of smaller ones is full before its bytes are.
#define FRAME_SIZE_TYPICAL_MIN 64u

static void block_capacities(uint64_t body_size, size_t *ret_bytes, uint32_t *ret_pages)
{
    *ret_bytes = (size_t)MIN(body_size, UPLOAD_BLOCK_SIZE + PAGE_SIZE_MAX);
    *ret_pages = (uint32_t)MIN(body_size / FRAME_SIZE_TYPICAL_MIN + 16, UPLOAD_BLOCK_PAGES_MAX);
}

size_t upload_block_memory(uint64_t body_size)
{
    size_t bytes;
    uint32_t pages;
    block_capacities(body_size, &bytes, &pages);
    return sizeof(struct upload_block) + pages * sizeof(struct segment_draft_page) + bytes;
}

struct upload_block *upload_block_new(uint64_t body_size)
{
    struct upload_block *block = malloc(upload_block_memory(body_size));
    if (!block)
        return NULL;
    *block = (struct upload_block){0};
    block_capacities(body_size, &block->capacity, &block->page_capacity);
    block->pages = (struct segment_draft_page *)(block + 1);
    block->data = (uint8_t *)(block->pages + block->page_capacity);
    return block;
}

void upload_block_free(struct upload_block *block)
{
    free(block);
}

void upload_block_clear(struct upload_block *block)
{
    block->size = 0;
    block->page_count = 0;
}

bool upload_block_is_full(const struct upload_block *block)
{
    return block->size >= UPLOAD_BLOCK_SIZE || block->page_count == block->page_capacity;
}

bool upload_block_add(struct upload_block *block, const struct page_header *header, struct bytes data)
{
    if (upload_block_is_full(block) || data.size > block->capacity - block->size)
        return false;
    if (data.size > 0)
        memcpy(block->data + block->size, data.data, data.size);
    block->size += data.size;
    block->pages[block->page_count++] = (struct segment_draft_page){
        .pageidx = header->pageidx,
        .page =
            {
                .size = (uint32_t)data.size,
                .raw_size = header->raw_size,
                .encoding = (uint8_t)header->encoding,
                .page_class = header->page_class,
                .checksum = header->checksum,
            },
    };
    return true;
}

enum graft_status upload_block_verify(struct upload_block *block, struct page_codec *codec,
                                      const struct gid *vid, struct graft_error *err)
{
    size_t at = 0;
    for (uint32_t i = 0; i < block->page_count; i++) {
        uint32_t pageidx = block->pages[i].pageidx;
        struct segment_page *page = &block->pages[i].page;
        struct page_header header = {
            .pageidx = pageidx,
            .state = PAGE_STATE_STORED,
            .page_class = page->page_class,
            .encoding = (enum page_encoding)page->encoding,
            .raw_size = page->raw_size,
            .checksum = page->checksum,
        };
        struct bytes data = {block->data + at, page->size}, plain;
        enum graft_status status = page_codec_decode(codec, vid, &header, data, &plain, err);
        // Nothing of ours is corrupt: what was sent is not what its sender says.
        if (status == GRAFT_CORRUPT) {
            status = GRAFT_INVALID;
            if (err)
                err->status = status;
        }
        if (status != GRAFT_OK)
            return error_context(err, status, "page %u of volume %s", pageidx, gid_format(vid).text);
        page->stored_checksum = checksum64(data.data, data.size);
        at += page->size;
    }
    return GRAFT_OK;
}
