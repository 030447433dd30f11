// SPDX-License-Identifier: Apache-2.0
//
// Fixed-width integers in files and hashes are little-endian; in keys that must sort they are big-endian. Varints are
// protobuf's (base 128, least significant group first); decoding accepts only the shortest form.
#ifndef COMMON_BASE_BYTES_H
#define COMMON_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// A borrowed range of bytes.
struct bytes {
    const uint8_t *data;
    size_t size;
};

#define BYTES_INTEGER(bits)                                         \
    static inline void put_le##bits(void *to, uint##bits##_t value) \
    {                                                               \
        value = htole##bits(value);                                 \
        memcpy(to, &value, sizeof value);                           \
    }                                                               \
    static inline uint##bits##_t get_le##bits(const void *from)     \
    {                                                               \
        uint##bits##_t value;                                       \
        memcpy(&value, from, sizeof value);                         \
        return le##bits##toh(value);                                \
    }                                                               \
    static inline void put_be##bits(void *to, uint##bits##_t value) \
    {                                                               \
        value = htobe##bits(value);                                 \
        memcpy(to, &value, sizeof value);                           \
    }                                                               \
    static inline uint##bits##_t get_be##bits(const void *from)     \
    {                                                               \
        uint##bits##_t value;                                       \
        memcpy(&value, from, sizeof value);                         \
        return be##bits##toh(value);                                \
    }

BYTES_INTEGER(16)
BYTES_INTEGER(32)
BYTES_INTEGER(64)

#define VARINT_SIZE_MAX 10

// Writes at most VARINT_SIZE_MAX bytes; returns how many.
size_t varint_put(uint8_t *to, uint64_t value);

size_t varint_size(uint64_t value);

// Returns the bytes consumed (≥ 1), 0 if `size` bytes are not enough to tell, -1 if this is no shortest-form varint of
// at most 64 bits.
int varint_get(const uint8_t *from, size_t size, uint64_t *ret_value);

#endif
