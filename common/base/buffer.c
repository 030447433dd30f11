// SPDX-License-Identifier: Apache-2.0
#include "common/base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"

#define CAPACITY_MIN 64

void buffer_init(struct buffer *buffer, size_t size_max)
{
    *buffer = (struct buffer)BUFFER_INIT(size_max);
}

void buffer_release(struct buffer *buffer)
{
    free(buffer->data);
    buffer_init(buffer, buffer->size_max);
}

enum graft_status buffer_reserve(struct buffer *buffer, size_t additional, struct graft_error *err)
{
    CHECK(buffer->size <= buffer->capacity && buffer->size <= buffer->size_max);

    if (additional > buffer->size_max - buffer->size)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "a buffer of at most %zu bytes holds %zu and has no room for %zu more",
                         buffer->size_max, buffer->size, additional);
    size_t needed = buffer->size + additional;
    if (needed <= buffer->capacity)
        return GRAFT_OK;

    size_t capacity = MAX(needed, (size_t)CAPACITY_MIN);
    if (buffer->capacity <= buffer->size_max / 2)
        capacity = MAX(capacity, 2 * buffer->capacity);
    capacity = MIN(capacity, buffer->size_max);
    uint8_t *data = realloc(buffer->data, capacity);
    if (!data)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a buffer of %zu bytes",
                         capacity);
    buffer->data = data;
    buffer->capacity = capacity;
    return GRAFT_OK;
}

enum graft_status buffer_append(struct buffer *buffer, const void *data, size_t size, struct graft_error *err)
{
    if (size == 0)
        return GRAFT_OK;
    enum graft_status status = buffer_reserve(buffer, size, err);
    if (status != GRAFT_OK)
        return status;
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return GRAFT_OK;
}

enum graft_status buffer_printf(struct buffer *buffer, struct graft_error *err, const char *format, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    CHECK(length >= 0);
    if ((size_t)length < sizeof text)
        return buffer_append(buffer, text, (size_t)length, err);

    _cleanup_(free_p) char *longer = NULL;
    va_start(arguments, format);
    length = vasprintf(&longer, format, arguments);
    va_end(arguments);
    if (length < 0) {
        longer = NULL;
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to format text");
    }
    return buffer_append(buffer, longer, (size_t)length, err);
}

void buffer_clear(struct buffer *buffer)
{
    buffer->size = 0;
}

void buffer_consume(struct buffer *buffer, size_t size)
{
    CHECK(size <= buffer->size);
    buffer->size -= size;
    if (buffer->size > 0)
        memmove(buffer->data, buffer->data + size, buffer->size);
}

struct buffer buffer_take(struct buffer *buffer)
{
    struct buffer taken = *buffer;
    buffer_init(buffer, taken.size_max);
    return taken;
}
