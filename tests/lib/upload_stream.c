// SPDX-License-Identifier: Apache-2.0
#include "tests/lib/upload_stream.h"

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/random.h"

static void append(struct stream *stream, const void *data, size_t size)
{
    CHECK(buffer_append(&stream->bytes, data, size, NULL) == GRAFT_OK);
}

void stream_begin(struct stream *stream, const struct gid *vid)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    *stream = (struct stream){.bytes = BUFFER_INIT(256 * MIB), .vid = *vid};
    append(stream, head, page_stream_put_begin(head, vid, 0, NULL));
}

void page_fill(uint8_t *to, const struct gid *vid, uint32_t pageidx, uint32_t size)
{
    struct rng rng;
    rng_seed(&rng, get_le64(vid->bytes + 8) * 31 + pageidx);
    for (uint32_t i = 0; i < size; i += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(to + i, &word, MIN(size - i, 8u));
    }
}

void stream_frame(struct stream *stream, const struct page_header *header, struct bytes data)
{
    uint8_t head[PAGE_FRAME_HEADER_SIZE_MAX];
    append(stream, head, page_stream_put_page(head, header, (uint32_t)data.size));
    append(stream, data.data, data.size);
    stream->count++;
}

void stream_page(struct stream *stream, uint32_t pageidx, uint32_t size)
{
    static _Thread_local uint8_t data[PAGE_SIZE_MAX + 8];
    page_fill(data, &stream->vid, pageidx, size);
    struct page_header header = {
        .pageidx = pageidx,
        .state = PAGE_STATE_STORED,
        .page_class = pageidx % 16 == 0 ? PAGE_CLASS_STRUCTURAL + 1 : PAGE_CLASS_LEAF,
        .raw_size = size,
        .checksum = page_checksum(&stream->vid, pageidx, data, size),
    };
    stream_frame(stream, &header, (struct bytes){data, size});
}

void stream_page_zstd(struct stream *stream, uint32_t pageidx, uint32_t size)
{
    static _Thread_local struct page_codec *codec;
    static _Thread_local uint8_t data[PAGE_SIZE_MAX];
    if (!codec)
        codec = page_codec_new();
    memset(data, (int)pageidx, size);
    struct page_header header = {
        .pageidx = pageidx,
        .state = PAGE_STATE_STORED,
        .raw_size = size,
        .checksum = page_checksum(&stream->vid, pageidx, data, size),
    };
    struct bytes stored;
    page_codec_encode(codec, (struct bytes){data, size}, &header.encoding, &stored);
    CHECK(header.encoding == PAGE_ENCODING_ZSTD);
    stream_frame(stream, &header, stored);
}

void stream_end(struct stream *stream)
{
    CHECK(page_stream_append_end(&stream->bytes, stream->count, NULL, NULL) == GRAFT_OK);
}

void stream_release(struct stream *stream)
{
    buffer_release(&stream->bytes);
}

struct stream stream_of(const struct gid *vid, uint32_t first, uint32_t count, uint32_t page_size)
{
    struct stream stream;
    stream_begin(&stream, vid);
    for (uint32_t i = 0; i < count; i++)
        stream_page(&stream, first + i, page_size);
    stream_end(&stream);
    return stream;
}
