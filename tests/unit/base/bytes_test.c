// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>

#include "common/base/bytes.h"
#include "common/base/compiler.h"
#include "common/base/random.h"

Test(bytes, integers_have_their_byte_order)
{
    uint8_t to[8];
    put_le32(to, 0x01020304);
    cr_assert_arr_eq(to, "\x04\x03\x02\x01", 4);
    put_be64(to, 0x0102030405060708);
    cr_assert_arr_eq(to, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    cr_assert_eq(get_be64(to), 0x0102030405060708);
    cr_assert_eq(get_le16(to), 0x0201);
    cr_assert_eq(get_be32(to + 1), 0x02030405); // unaligned
}

Test(bytes, varints_come_back_at_every_boundary)
{
    for (int bits = 0; bits <= 64; bits++) {
        uint64_t power = bits == 64 ? 0 : 1ull << bits;
        for (int delta = -1; delta <= 1; delta++) {
            uint64_t value = power + (uint64_t)delta, back;
            uint8_t wire[VARINT_SIZE_MAX];
            size_t size = varint_put(wire, value);
            cr_assert_eq(size, varint_size(value));
            cr_assert_eq(varint_get(wire, size, &back), (int)size);
            cr_assert_eq(back, value);
            for (size_t cut = 0; cut < size; cut++)
                cr_assert_eq(varint_get(wire, cut, &back), 0, "%d bits cut to %zu", bits, cut);
        }
    }
}

Test(bytes, varints_end_where_they_end)
{
    uint64_t value;
    cr_assert_eq(varint_get((const uint8_t *)"\x96\x01\xff", 3, &value), 2);
    cr_assert_eq(value, 150);
}

Test(bytes, varints_that_are_not_shortest_are_refused)
{
    static const struct {
        const char *wire;
        size_t size;
    } bad[] = {
        {"\x80\x00", 2},                                  // 0 in two bytes
        {"\xff\x80\x00", 3},                              // 127 in three
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 10}, // 0 in ten
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10}, // 65 bits
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x81", 10}, // goes on after ten
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        uint64_t value = 42;
        cr_assert_eq(varint_get((const uint8_t *)bad[i].wire, bad[i].size, &value), -1, "case %zu", i);
        cr_assert_eq(value, 42);
    }
}

Test(bytes, random_varints_come_back)
{
    struct rng rng;
    rng_seed(&rng, 1);
    for (int i = 0; i < 100000; i++) {
        uint64_t value = rng_next(&rng) >> rng_below(&rng, 64), back;
        uint8_t wire[VARINT_SIZE_MAX];
        size_t size = varint_put(wire, value);
        cr_assert(varint_get(wire, size, &back) == (int)size && back == value);
    }
}
