// SPDX-License-Identifier: Apache-2.0
//
// A growing byte buffer with a cap from birth. Not thread-safe.
//
//     _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(64 * 1024);
//     status = buffer_append(&body, data, size, err);
#ifndef COMMON_BASE_BUFFER_H
#define COMMON_BASE_BUFFER_H

#include "common/base/bytes.h"
#include "common/base/error.h"

struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t size_max; // an append beyond it is refused with LIMIT / TOO_LARGE
};

// clang-format off
#define BUFFER_INIT(size_max_) {.size_max = (size_max_)}
// clang-format on

void buffer_init(struct buffer *buffer, size_t size_max);
void buffer_release(struct buffer *buffer); // frees the bytes; the buffer is empty again and keeps its cap

// LIMIT beyond the cap, INTERNAL / NO_MEMORY; the buffer is unchanged then.
enum graft_status buffer_append(struct buffer *buffer, const void *data, size_t size,
                                struct graft_error *err);
enum graft_status buffer_reserve(struct buffer *buffer, size_t additional, struct graft_error *err);
enum graft_status buffer_printf(struct buffer *buffer, struct graft_error *err, const char *format, ...)
    _printf_(3, 4);

void buffer_clear(struct buffer *buffer);                // size 0, memory kept
void buffer_consume(struct buffer *buffer, size_t size); // drops bytes at the front
struct buffer buffer_take(struct buffer *buffer); // moves the bytes out, leaves an empty one with the cap

static inline struct bytes buffer_bytes(const struct buffer *buffer)
{
    return (struct bytes){buffer->data, buffer->size};
}

#endif
