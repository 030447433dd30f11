// SPDX-License-Identifier: Apache-2.0
//
// Run headers: what is written is read, how pages are laid out, and no other bytes are a run.
#include "client/run.h"

#include <criterion/criterion.h>

#include "client/extents.h"
#include "common/base/checksum.h"
#include "common/base/random.h"

#define STORE 77

static uint32_t same_size(const void *context, uint32_t index)
{
    return *(const uint32_t *)context;
}

static struct run_header example(uint32_t count)
{
    return (struct run_header){.kind = RUN_COMMIT,
                               .complete = true,
                               .store = STORE,
                               .epoch = 0x1122334455667788,
                               .seq = 9,
                               .synced = 7,
                               .chain_before = 0xabcdef,
                               .count = count,
                               .number = 5,
                               .lsn = 12,
                               .part = 3,
                               .page_count = 100,
                               .cut = UINT32_MAX,
                               .group_index = 1,
                               .group_count = 4};
}

static void make_entries(struct run_entry *entries, uint32_t count, uint32_t size)
{
    for (uint32_t i = 0; i < count; i++)
        entries[i] = (struct run_entry){
            .number = 5, .lsn = 12, .checksum = i * 0x0101010101ull, .pageidx = i + 1, .size = size};
}

static uint32_t encode(uint32_t count, uint32_t size, uint8_t *to, struct run_header *ret_header)
{
    static struct run_entry entries[RUN_PAGES_MAX];
    make_entries(entries, count, size);
    *ret_header = example(count);
    run_encode(ret_header, entries, to);
    return run_header_size(count);
}

static bool decodes(const uint8_t *bytes, size_t size)
{
    struct run_header header;
    uint32_t needed;
    return run_decode((struct bytes){bytes, size}, STORE, EXTENT_SIZE, &header, &needed);
}

Test(run, comes_back_as_it_was)
{
    static const uint32_t counts[] = {0, 1, 2, 12, 13, 200, RUN_PAGES_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(counts); i++) {
        static uint8_t bytes[RUN_HEADER_SIZE_MAX], again[RUN_HEADER_SIZE_MAX];
        struct run_header header, read;
        uint32_t size = encode(counts[i], 900, bytes, &header), needed;
        cr_assert(run_decode((struct bytes){bytes, size}, STORE, EXTENT_SIZE, &read, &needed));
        cr_assert_eq(read.size % RUN_ALIGNMENT, 0);
        cr_assert_eq(memcmp(&read.epoch, &header.epoch, 5 * 8), 0);
        static struct run_entry entries[RUN_PAGES_MAX];
        for (uint32_t at = 0; at < read.count; at++) {
            entries[at] = run_entry_at((struct bytes){bytes, size}, at);
            cr_assert_eq(entries[at].pageidx, at + 1);
        }
        run_encode(&read, entries, again);
        cr_assert_eq(memcmp(bytes, again, size), 0);
    }
}

Test(run, pages_are_laid_out_by_their_size)
{
    cr_assert_eq(run_page_offset(160, 4096), 4096);
    cr_assert_eq(run_page_offset(8192, 65536), 8192);
    cr_assert_eq(run_page_offset(160, 512), 160);
    cr_assert_eq(run_page_offset(161, 7), 168);
    cr_assert_eq(run_page_offset(161, 0), 161, "an empty page takes no room");

    uint32_t size = 4096, run_size = 0;
    cr_assert_eq(run_fit(same_size, &size, 1, EXTENT_SIZE, &run_size), 1);
    cr_assert_eq(run_size, 8192);
    cr_assert_eq(run_fit(same_size, &size, 1, 8191, &run_size), 0);
    cr_assert_eq(run_fit(same_size, &size, 5000, EXTENT_SIZE, &run_size), 253);
    cr_assert_eq(run_size, EXTENT_SIZE, "three pages of header");
    size = 512;
    cr_assert_eq(run_fit(same_size, &size, 5000, EXTENT_SIZE, &run_size), RUN_PAGES_MAX);
    size = 65536;
    cr_assert_eq(run_fit(same_size, &size, 5000, EXTENT_SIZE, &run_size), 15);
    cr_assert_eq(run_fit(same_size, &size, 5000, 65536, &run_size), 0);
}

// run_fit() finds the largest run, whatever the sizes: counted up one by one.
struct sizes {
    uint32_t at[1500];
};

static uint32_t listed_size(const void *context, uint32_t index)
{
    return ((const struct sizes *)context)->at[index];
}

Test(run, fits_as_many_as_there_is_room_for)
{
    struct rng rng;
    rng_seed(&rng, 4);
    static struct sizes sizes;
    for (unsigned round = 0; round < 300; round++) {
        uint32_t count = (uint32_t)rng_below(&rng, ARRAY_COUNT(sizes.at)) + 1,
                 kind = (uint32_t)rng_below(&rng, 4);
        for (uint32_t i = 0; i < count; i++)
            sizes.at[i] = kind == 0   ? 512
                          : kind == 1 ? 4096u << rng_below(&rng, 5)
                          : kind == 2 ? (uint32_t)rng_below(&rng, 40)
                                      : (uint32_t)rng_below(&rng, PAGE_SIZE_MAX + 1);
        uint32_t room = (uint32_t)rng_below(&rng, EXTENT_SIZE / 4096 + 1) * 4096, expected = 0, run_size = 0;
        for (uint32_t k = 1; k <= MIN(count, RUN_PAGES_MAX); k++) {
            uint32_t end = run_header_size(k);
            for (uint32_t i = 0; i < k; i++)
                end = run_page_offset(end, sizes.at[i]) + sizes.at[i];
            if ((end + 4095) / 4096 * 4096 <= room)
                expected = k;
            else
                break;
        }
        cr_assert_eq(run_fit(listed_size, &sizes, count, room, &run_size), expected);
    }
}

Test(run, other_bytes_are_none)
{
    static uint8_t bytes[RUN_HEADER_SIZE_MAX];
    struct run_header header, read;
    uint32_t size = encode(20, 4096, bytes, &header);
    cr_assert(decodes(bytes, size));
    for (uint32_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_not(decodes(bytes, size), "bit %u", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    struct bytes whole = {bytes, size};
    cr_assert_not(run_decode(whole, STORE + 1, EXTENT_SIZE, &read, NULL));
    cr_assert_not(run_decode(whole, STORE, header.size - 1, &read, NULL), "it is larger than its room");
    cr_assert(run_decode(whole, STORE, header.size, &read, NULL));

    // Headers that somebody gave a right checksum.
    static const struct {
        uint32_t at;
        uint8_t value;
    } wrong[] = {{64, 0}, {64, 5}, {65, 4}, {66, 4}, {70, 1}, {72, 19}, {76, 1}, {77, 0}, {108, 1}, {127, 1}};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        encode(20, 4096, bytes, &header);
        bytes[wrong[i].at] = wrong[i].value;
        uint32_t new_size = run_header_size(get_le32(bytes + 72));
        put_le64(bytes + 24, checksum64(bytes + 32, new_size - 32));
        put_le64(bytes + 8, checksum64(bytes + 16, new_size - 16));
        cr_assert_not(decodes(bytes, size), "byte %u", wrong[i].at);
    }
    encode(20, 4096, bytes, &header);
    put_le32(bytes + run_header_size(3) + 20, UINT32_MAX);
    put_le64(bytes + 24, checksum64(bytes + 32, size - 32));
    put_le64(bytes + 8, checksum64(bytes + 16, size - 16));
    cr_assert_not(decodes(bytes, size));
}

Test(run, says_how_much_it_needs)
{
    static uint8_t bytes[RUN_HEADER_SIZE_MAX];
    struct run_header header, read;
    uint32_t size = encode(20, 4096, bytes, &header), needed = 1;
    for (uint32_t have = 0; have < size; have++) {
        cr_assert_not(run_decode((struct bytes){bytes, have}, STORE, EXTENT_SIZE, &read, &needed));
        cr_assert_eq(needed, have < RUN_FIXED_SIZE ? RUN_FIXED_SIZE : size);
    }
    bytes[2] = 'x';
    cr_assert_not(run_decode((struct bytes){bytes, 8}, STORE, EXTENT_SIZE, &read, &needed));
    cr_assert_eq(needed, 0);
    encode(20, 4096, bytes, &header);
    put_le32(bytes + 72, UINT32_MAX);
    cr_assert_not(run_decode((struct bytes){bytes, 200}, STORE, EXTENT_SIZE, &read, &needed));
    cr_assert_eq(needed, 0, "its entries would be %u bytes", needed);
}

Test(run, taken_back_it_keeps_its_chain)
{
    static uint8_t bytes[RUN_HEADER_SIZE_MAX], before[RUN_HEADER_SIZE_MAX];
    struct run_header header, read;
    uint32_t size = encode(30, 4096, bytes, &header);
    memcpy(before, bytes, size);
    uint64_t chain = header.chain;
    static struct run_entry entries[30];
    make_entries(entries, 30, 4096);
    header.kind = RUN_VOID;
    run_encode(&header, entries, bytes);
    cr_assert(run_decode((struct bytes){bytes, size}, STORE, EXTENT_SIZE, &read, NULL));
    cr_assert_eq(read.kind, RUN_VOID);
    cr_assert_eq(read.chain, chain);
    cr_assert_eq(memcmp(bytes + RUN_FIXED_SIZE, before + RUN_FIXED_SIZE, size - RUN_FIXED_SIZE), 0,
                 "one sector is enough to take a run back");
}
