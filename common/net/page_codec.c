// SPDX-License-Identifier: Apache-2.0
//
// Pages to payloads and back. Contexts are made at their first use (a reader never needs the compressor's
// megabyte) and then reused: after that nothing is allocated.
#include <stdlib.h>
#include <zstd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/page_stream.h"

#define COMPRESSION_LEVEL 1
#define SAVED_PERCENT_MIN 12 // less is not worth the time to decode it

struct page_codec {
    ZSTD_CCtx *compressor;
    ZSTD_DCtx *decompressor;
    uint8_t *packed; // ZSTD_COMPRESSBOUND(PAGE_SIZE_MAX) bytes
    uint8_t *plain;  // PAGE_SIZE_MAX bytes
};

struct page_codec *page_codec_new(void)
{
    struct page_codec *codec = calloc(1, sizeof *codec);
    CHECK(codec);
    return codec;
}

void page_codec_free(struct page_codec *codec)
{
    if (!codec)
        return;
    ZSTD_freeCCtx(codec->compressor);
    ZSTD_freeDCtx(codec->decompressor);
    free(codec->packed);
    free(codec->plain);
    free(codec);
}

static bool prepare_compressor(struct page_codec *codec)
{
    if (!codec->compressor)
        codec->compressor = ZSTD_createCCtx();
    if (!codec->packed)
        codec->packed = malloc(ZSTD_COMPRESSBOUND(PAGE_SIZE_MAX));
    return codec->compressor && codec->packed;
}

static bool prepare_decompressor(struct page_codec *codec)
{
    if (!codec->decompressor)
        codec->decompressor = ZSTD_createDCtx();
    if (!codec->plain)
        codec->plain = malloc(PAGE_SIZE_MAX);
    return codec->decompressor && codec->plain;
}

void page_codec_encode(struct page_codec *codec, struct bytes plain, enum page_encoding *ret_encoding,
                       struct bytes *ret_data)
{
    CHECK(plain.size <= PAGE_SIZE_MAX);
    *ret_encoding = PAGE_ENCODING_RAW;
    *ret_data = plain;
    // Raw is always right, so a machine without memory for a compressor only loses the saving.
    if (plain.size == 0 || !prepare_compressor(codec))
        return;
    size_t packed_size =
        ZSTD_compressCCtx(codec->compressor, codec->packed, ZSTD_COMPRESSBOUND(PAGE_SIZE_MAX), plain.data,
                          plain.size, COMPRESSION_LEVEL);
    if (ZSTD_isError(packed_size) || packed_size * 100 > plain.size * (100 - SAVED_PERCENT_MIN))
        return;
    *ret_encoding = PAGE_ENCODING_ZSTD;
    *ret_data = (struct bytes){codec->packed, packed_size};
}

static enum graft_status decompress(struct page_codec *codec, const struct page_header *header,
                                    struct bytes data, struct graft_error *err)
{
    if (!prepare_decompressor(codec))
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to decode page %u",
                         header->pageidx);
    // What the frame says of itself comes first: a bomb is refused before a byte of it is decoded.
    unsigned long long size = ZSTD_getFrameContentSize(data.data, data.size);
    if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "the data of page %u is no zstd frame that states its size", header->pageidx);
    if (size != header->raw_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "the data of page %u decodes to %llu bytes, and raw_size says %u", header->pageidx,
                         size, header->raw_size);
    size_t decoded =
        ZSTD_decompressDCtx(codec->decompressor, codec->plain, header->raw_size, data.data, data.size);
    if (ZSTD_isError(decoded))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "the data of page %u cannot be decoded: %s", header->pageidx,
                         ZSTD_getErrorName(decoded));
    if (decoded != header->raw_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "the data of page %u decodes to %zu bytes, and raw_size says %u", header->pageidx,
                         decoded, header->raw_size);
    return GRAFT_OK;
}

enum graft_status page_codec_decode(struct page_codec *codec, const struct gid *owner,
                                    const struct page_header *header, struct bytes data,
                                    struct bytes *ret_plain, struct graft_error *err)
{
    struct bytes plain = data;
    if (header->raw_size > PAGE_SIZE_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "raw_size of page %u is %u; the limit is %u", header->pageidx, header->raw_size,
                         PAGE_SIZE_MAX);
    if (header->encoding == PAGE_ENCODING_ZSTD) {
        enum graft_status status = decompress(codec, header, data, err);
        if (status != GRAFT_OK)
            return status;
        plain = (struct bytes){codec->plain, header->raw_size};
    } else if (data.size != header->raw_size) {
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_MESSAGE,
                         "the data of page %u has %zu bytes, and raw_size says %u", header->pageidx,
                         data.size, header->raw_size);
    }
    uint64_t checksum = page_checksum(owner, header->pageidx, plain.data, plain.size);
    if (!checksum_matches(header->checksum, checksum))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                         "page %u of %s does not match its checksum: %016llx, and the bytes give %016llx",
                         header->pageidx, gid_format(owner).text, (unsigned long long)header->checksum,
                         (unsigned long long)checksum);
    *ret_plain = plain;
    return GRAFT_OK;
}
