// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <zstd.h>

#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/net/page_stream.h"

static const struct gid owner = {{GID_VOLUME, 0, 0, 0, 0, 0, 1, 2, 3}};

static void fill_random(uint8_t *to, size_t size)
{
    struct rng rng;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)rng_next(&rng);
}

static struct page_header header_of(struct bytes plain, enum page_encoding encoding)
{
    return (struct page_header){
        .pageidx = 9,
        .state = PAGE_STATE_STORED,
        .encoding = encoding,
        .raw_size = (uint32_t)plain.size,
        .checksum = page_checksum(&owner, 9, plain.data, plain.size),
    };
}

Test(page_codec, round_trip_of_every_size)
{
    static uint8_t page[PAGE_SIZE_MAX];
    static const size_t sizes[] = {0, 1, 2, 511, 512, 4096, 65535, 65536};
    struct page_codec *encoder = page_codec_new(), *decoder = page_codec_new();
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        for (int compressible = 0; compressible < 2; compressible++) {
            struct bytes plain = {page, sizes[i]}, data, back;
            enum page_encoding encoding;
            fill_random(page, sizes[i]);
            if (compressible)
                memset(page, 'x', sizes[i] / 2);
            page_codec_encode(encoder, plain, &encoding, &data);
            struct page_header header = header_of(plain, encoding);
            cr_assert_eq(page_codec_decode(decoder, &owner, &header, data, &back, NULL), GRAFT_OK);
            cr_assert_eq(back.size, sizes[i]);
            cr_assert_eq(memcmp(back.data, page, sizes[i]), 0);
            if (sizes[i] >= 4096)
                cr_assert_eq(encoding, compressible ? PAGE_ENCODING_ZSTD : PAGE_ENCODING_RAW);
        }
    }
    page_codec_free(encoder);
    page_codec_free(decoder);
}

Test(page_codec, what_does_not_save_an_eighth_stays_raw_and_is_not_copied)
{
    static uint8_t page[4096];
    struct page_codec *codec = page_codec_new();
    // The share of zeros decides: the rest is random.
    for (size_t zeros = 0; zeros <= 1024; zeros += 16) {
        struct bytes plain = {page, sizeof page}, data;
        enum page_encoding encoding;
        fill_random(page, sizeof page);
        memset(page, 0, zeros);
        page_codec_encode(codec, plain, &encoding, &data);
        if (encoding == PAGE_ENCODING_ZSTD)
            cr_assert_leq(data.size * 100, sizeof page * 88);
        else
            cr_assert_eq(data.data, page);
        if (zeros <= 400)
            cr_assert_eq(encoding, PAGE_ENCODING_RAW);
        if (zeros >= 600)
            cr_assert_eq(encoding, PAGE_ENCODING_ZSTD);
    }
    page_codec_free(codec);
}

Test(page_codec, any_changed_byte_is_found)
{
    static uint8_t page[4096];
    struct page_codec *codec = page_codec_new();
    struct bytes plain = {page, sizeof page}, back;
    struct graft_error err;
    fill_random(page, sizeof page);
    struct page_header header = header_of(plain, PAGE_ENCODING_RAW);
    for (size_t i = 0; i < sizeof page; i += 17) {
        page[i] ^= 1;
        cr_assert_eq(page_codec_decode(codec, &owner, &header, plain, &back, &err), GRAFT_CORRUPT);
        cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_CHECKSUM);
        page[i] ^= 1;
    }
    // A page that is not the one asked for is as wrong as a damaged one.
    struct gid stranger = owner;
    stranger.bytes[15] ^= 1;
    cr_assert_eq(page_codec_decode(codec, &stranger, &header, plain, &back, &err), GRAFT_CORRUPT);
    header.pageidx++;
    cr_assert_eq(page_codec_decode(codec, &owner, &header, plain, &back, &err), GRAFT_CORRUPT);
    page_codec_free(codec);
}

Test(page_codec, a_bomb_is_refused_before_it_is_decoded)
{
    static uint8_t zeros[16 * MIB], packed[64 * KIB];
    struct page_codec *codec = page_codec_new();
    struct graft_error err;
    struct bytes back;
    size_t size = ZSTD_compress(packed, sizeof packed, zeros, sizeof zeros, 1);
    cr_assert_not(ZSTD_isError(size));
    struct page_header header = {.pageidx = 1, .encoding = PAGE_ENCODING_ZSTD, .raw_size = 4096};
    cr_assert_eq(page_codec_decode(codec, &owner, &header, (struct bytes){packed, size}, &back, &err),
                 GRAFT_INVALID);
    cr_assert(strstr(err.message, "16777216"), "%s", err.message);
    header.raw_size = sizeof zeros;
    cr_assert_eq(page_codec_decode(codec, &owner, &header, (struct bytes){packed, size}, &back, &err),
                 GRAFT_LIMIT);
    page_codec_free(codec);
}

Test(page_codec, frames_that_lie_or_are_cut_are_refused)
{
    static uint8_t page[4096], packed[8192];
    struct page_codec *codec = page_codec_new();
    struct bytes plain = {page, sizeof page}, back;
    memset(page, 7, sizeof page);
    struct page_header header = header_of(plain, PAGE_ENCODING_ZSTD);
    size_t size = ZSTD_compress(packed, sizeof packed, page, sizeof page, 1);
    for (size_t cut = 0; cut < size; cut++)
        cr_assert_eq(page_codec_decode(codec, &owner, &header, (struct bytes){packed, cut}, &back, NULL),
                     GRAFT_INVALID);
    // A second frame behind the first.
    memcpy(packed + size, packed, size);
    cr_assert_eq(page_codec_decode(codec, &owner, &header, (struct bytes){packed, 2 * size}, &back, NULL),
                 GRAFT_INVALID);
    // A frame without its size.
    ZSTD_CCtx *compressor = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(compressor, ZSTD_c_contentSizeFlag, 0);
    size = ZSTD_compress2(compressor, packed, sizeof packed, page, sizeof page);
    ZSTD_freeCCtx(compressor);
    cr_assert_eq(page_codec_decode(codec, &owner, &header, (struct bytes){packed, size}, &back, NULL),
                 GRAFT_INVALID);
    cr_assert_eq(
        page_codec_decode(codec, &owner, &header, (struct bytes){(const uint8_t *)"garbage", 7}, &back, NULL),
        GRAFT_INVALID);
    header.encoding = PAGE_ENCODING_RAW;
    cr_assert_eq(page_codec_decode(codec, &owner, &header, (struct bytes){page, 4095}, &back, NULL),
                 GRAFT_INVALID);
    page_codec_free(codec);
}
