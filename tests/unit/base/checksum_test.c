// SPDX-License-Identifier: Apache-2.0
//
// The formats are frozen here twice: by laying out the bytes again and hashing them in one call of the shared
// xxHash, and by values written down.
#include <criterion/criterion.h>
#include <signal.h>
#include <xxhash.h>

#include "common/base/bytes.h"
#include "common/base/checksum.h"

static const struct gid vid = {{0x81, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

static struct hash128 hash_in_one_call(const void *data, size_t size)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, size));
    struct hash128 hash;
    memcpy(hash.bytes, canonical.digest, HASH_SIZE);
    return hash;
}

static void fill(uint8_t *page, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        page[i] = (uint8_t)(i * 31 + seed + i / 256);
}

Test(checksum, of_a_page_is_over_owner_index_and_bytes)
{
    static const size_t sizes[] = {0, 1, 219, 220, 236, 237, 512, 4096, 65536};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        static uint8_t whole[20 + 65536];
        memcpy(whole, vid.bytes, GID_SIZE);
        put_le32(whole + 16, 0xfedcba98);
        fill(whole + 20, sizes[i], 7);
        cr_assert_eq(page_checksum(&vid, 0xfedcba98, whole + 20, sizes[i]), XXH3_64bits(whole, 20 + sizes[i]),
                     "%zu bytes", sizes[i]);
    }
    cr_assert_eq(page_checksum(&vid, 1, "hello", 5), 0xff44dfb9791146c3u);
}

Test(checksum, differs_by_owner_index_and_bytes)
{
    struct gid other = vid;
    other.bytes[15] ^= 1;
    uint64_t sum = page_checksum(&vid, 1, "hello", 5);
    cr_assert_neq(sum, page_checksum(&other, 1, "hello", 5));
    cr_assert_neq(sum, page_checksum(&vid, 2, "hello", 5));
    cr_assert_neq(sum, page_checksum(&vid, 1, "hellp", 5));
    cr_assert_neq(sum, page_checksum(&vid, 1, "hello", 6));
}

Test(checksum, matches_only_itself)
{
    cr_assert(checksum_matches(5, 5));
#ifndef GRAFT_FUZZING
    cr_assert_not(checksum_matches(5, 6));
#endif
    cr_assert_eq(checksum64("abc", 3), XXH3_64bits("abc", 3));
}

static struct hash128 digest_of(uint32_t page_count, const uint32_t *pages, size_t count)
{
    struct commit_digest *digest = commit_digest_new(&vid, 9, page_count, 3, count);
    for (size_t i = 0; i < count; i++) {
        uint8_t page[600];
        fill(page, sizeof page, pages[i]);
        commit_digest_add(digest, pages[i], page, sizeof page);
    }
    return commit_digest_finish(digest);
}

Test(checksum, digest_is_over_fixed_width_fields)
{
    static const uint32_t pages[] = {1, 7, UINT32_MAX};
    uint8_t whole[40 + 3 * 24];
    memcpy(whole, vid.bytes, GID_SIZE);
    put_le64(whole + 16, 9);
    put_le32(whole + 24, 12);
    put_le32(whole + 28, 3);
    put_le64(whole + 32, 3);
    for (int i = 0; i < 3; i++) {
        uint8_t page[600];
        fill(page, sizeof page, pages[i]);
        struct hash128 hash = hash_in_one_call(page, sizeof page);
        put_le32(whole + 40 + 24 * i, pages[i]);
        put_le32(whole + 44 + 24 * i, sizeof page);
        memcpy(whole + 48 + 24 * i, hash.bytes, HASH_SIZE);
    }
    struct hash128 expected = hash_in_one_call(whole, sizeof whole), actual = digest_of(12, pages, 3);
    cr_assert(hash_equal(&expected, &actual));

    struct hash128 empty = digest_of(12, NULL, 0), longer = digest_of(13, pages, 3);
    cr_assert_not(hash_equal(&empty, &actual));
    cr_assert_not(hash_equal(&longer, &actual));
}

Test(checksum, digest_is_frozen)
{
    struct hash128 empty = digest_of(0, NULL, 0);
    cr_assert_arr_eq(empty.bytes, "\x8c\xd7\x33\x1b\x22\xd7\xcd\xaa\x3d\xa4\xd4\xb4\x72\x64\x16\x21",
                     HASH_SIZE);
}

Test(checksum, digest_of_descending_pages_aborts, .signal = SIGABRT)
{
    static const uint32_t pages[] = {7, 7};
    digest_of(12, pages, 2);
}

Test(checksum, digest_of_too_many_pages_aborts, .signal = SIGABRT)
{
    struct commit_digest *digest = commit_digest_new(&vid, 9, 1, 1, 0);
    commit_digest_add(digest, 1, "x", 1);
}

Test(checksum, digest_of_too_few_pages_aborts, .signal = SIGABRT)
{
    commit_digest_finish(commit_digest_new(&vid, 9, 1, 1, 1));
}

Test(checksum, a_digest_may_be_dropped)
{
    commit_digest_free(commit_digest_new(&vid, 9, 1, 1, 1));
    commit_digest_free(NULL);
}

Test(checksum, chain_is_over_all_that_a_commit_says)
{
    struct hash128 previous = {{1}}, digest = {{2}};
    struct token token = {{3}};
    uint8_t whole[76] = {0};
    whole[0] = 1;
    memcpy(whole + 16, vid.bytes, GID_SIZE);
    put_le64(whole + 32, 77);
    whole[40] = 3;
    whole[56] = 2;
    put_le32(whole + 72, 12);
    struct hash128 expected = hash_in_one_call(whole, sizeof whole);
    struct hash128 actual = chain_next(&previous, &vid, 77, &token, &digest, 12);
    cr_assert(hash_equal(&expected, &actual));

    struct hash128 zero = {{0}};
    struct token no_token = {{0}};
    actual = chain_next(&zero, &vid, 1, &no_token, &zero, 0);
    cr_assert_arr_eq(actual.bytes, "\xc7\x75\x3b\xe2\xbc\x26\x3b\xdf\xb9\x0e\xa7\x65\x52\xb8\x19\xc1",
                     HASH_SIZE);
}
