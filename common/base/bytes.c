// SPDX-License-Identifier: Apache-2.0
#include "common/base/bytes.h"

size_t varint_put(uint8_t *to, uint64_t value)
{
    size_t size = 0;
    while (value >= 0x80) {
        to[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    to[size++] = (uint8_t)value;
    return size;
}

size_t varint_size(uint64_t value)
{
    size_t size = 1;
    while (value >= 0x80) {
        value >>= 7;
        size++;
    }
    return size;
}

int varint_get(const uint8_t *from, size_t size, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (size_t i = 0; i < VARINT_SIZE_MAX; i++) {
        if (i == size)
            return 0;
        uint64_t group = from[i] & 0x7f;
        // The tenth group has room for one bit of the 64.
        if (i == VARINT_SIZE_MAX - 1 && from[i] > 1)
            return -1;
        value |= group << (7 * i);
        if (from[i] < 0x80) {
            if (from[i] == 0 && i > 0) // a last group of zero adds nothing: there is a shorter form
                return -1;
            *ret_value = value;
            return (int)i + 1;
        }
    }
    return -1;
}
