// SPDX-License-Identifier: Apache-2.0
#include "common/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"

// Longer than a message, so that what is cut off is cut here, at a boundary of our choosing.
#define SCRATCH_SIZE (2 * GRAFT_ERROR_MESSAGE_SIZE)

static bool is_utf8_continuation(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80;
}

// Messages quote bytes from outside; a log line or a terminal must not be steered by them.
static void message_assign(struct graft_error *err, const char *text)
{
    size_t size = strlen(text);
    if (size > sizeof err->message - 1) {
        size = sizeof err->message - 1;
        while (size > 0 && is_utf8_continuation(text[size]))
            size--;
    }
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)text[i];
        err->message[i] = byte < 0x20 || byte == 0x7f ? '?' : text[i];
    }
    err->message[size] = '\0';
}

enum graft_status error_set(struct graft_error *err, enum graft_status status, enum graft_detail detail,
                            const char *format, ...)
{
    CHECK(status != GRAFT_OK);
    if (!err)
        return status;

    char text[SCRATCH_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);

    err->status = status;
    err->detail = detail;
    message_assign(err, text);
    return status;
}

enum graft_status error_context(struct graft_error *err, enum graft_status status, const char *format, ...)
{
    CHECK(status != GRAFT_OK);
    if (!err)
        return status;

    char context[SCRATCH_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);

    char text[SCRATCH_SIZE + sizeof ": " + GRAFT_ERROR_MESSAGE_SIZE];
    snprintf(text, sizeof text, "%s: %s", context, err->message);
    message_assign(err, text);
    return status;
}

enum graft_status error_copy(struct graft_error *err, const struct graft_error *from)
{
    if (!from)
        return GRAFT_OK;
    if (err && err != from)
        *err = *from;
    return from->status;
}

enum graft_status error_from_errno(struct graft_error *err, int error_number, const char *format, ...)
{
    enum graft_status status = GRAFT_INTERNAL;
    enum graft_detail detail = GRAFT_DETAIL_NONE;
    switch (error_number) {
    case ENOSPC:
    case EDQUOT:
        detail = GRAFT_DETAIL_NO_SPACE;
        break;
    case EIO:
        detail = GRAFT_DETAIL_IO;
        break;
    case ENOMEM:
        detail = GRAFT_DETAIL_NO_MEMORY;
        break;
    case ENOENT:
        status = GRAFT_NOT_FOUND;
        break;
    case EACCES:
    case EPERM:
        status = GRAFT_DENIED;
        break;
    default:
        break;
    }
    if (!err)
        return status;

    char what[SCRATCH_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);

    char reason[128];
    return error_set(err, status, detail, "%s: %s", what, strerror_r(error_number, reason, sizeof reason));
}

static const char *const status_names[] = {
    [GRAFT_OK] = "OK",
    [GRAFT_NOT_FOUND] = "NOT_FOUND",
    [GRAFT_CONFLICT] = "CONFLICT",
    [GRAFT_INVALID] = "INVALID",
    [GRAFT_DENIED] = "DENIED",
    [GRAFT_UNAVAILABLE] = "UNAVAILABLE",
    [GRAFT_UNKNOWN] = "UNKNOWN",
    [GRAFT_LIMIT] = "LIMIT",
    [GRAFT_CORRUPT] = "CORRUPT",
    [GRAFT_GONE] = "GONE",
    [GRAFT_BUSY] = "BUSY",
    [GRAFT_CANCELLED] = "CANCELLED",
    [GRAFT_INTERNAL] = "INTERNAL",
};

static const char *const detail_names[] = {
    [GRAFT_DETAIL_NONE] = "NONE",
    [GRAFT_DETAIL_TOKEN_REUSED] = "TOKEN_REUSED",
    [GRAFT_DETAIL_DELETED] = "DELETED",
    [GRAFT_DETAIL_NOT_HEAD] = "NOT_HEAD",
    [GRAFT_DETAIL_SEGMENT_GONE] = "SEGMENT_GONE",
    [GRAFT_DETAIL_CHAIN_MISMATCH] = "CHAIN_MISMATCH",
    [GRAFT_DETAIL_BAD_RECEIPT] = "BAD_RECEIPT",
    [GRAFT_DETAIL_BAD_PAGESET] = "BAD_PAGESET",
    [GRAFT_DETAIL_BAD_MESSAGE] = "BAD_MESSAGE",
    [GRAFT_DETAIL_BAD_CHECKSUM] = "BAD_CHECKSUM",
    [GRAFT_DETAIL_TRUNCATED] = "TRUNCATED",
    [GRAFT_DETAIL_TOO_LARGE] = "TOO_LARGE",
    [GRAFT_DETAIL_BAD_ARGUMENT] = "BAD_ARGUMENT",
    [GRAFT_DETAIL_NO_SPACE] = "NO_SPACE",
    [GRAFT_DETAIL_IO] = "IO",
    [GRAFT_DETAIL_LOCKED] = "LOCKED",
    [GRAFT_DETAIL_TIMEOUT] = "TIMEOUT",
    [GRAFT_DETAIL_UNREACHABLE] = "UNREACHABLE",
    [GRAFT_DETAIL_PROTOCOL] = "PROTOCOL",
    [GRAFT_DETAIL_OVERLOADED] = "OVERLOADED",
    [GRAFT_DETAIL_BEHIND] = "BEHIND",
    [GRAFT_DETAIL_STOPPING] = "STOPPING",
    [GRAFT_DETAIL_UNPUSHED] = "UNPUSHED",
    [GRAFT_DETAIL_PUSH_PENDING] = "PUSH_PENDING",
    [GRAFT_DETAIL_NO_MEMORY] = "NO_MEMORY",
    [GRAFT_DETAIL_EXISTS] = "EXISTS",
    [GRAFT_DETAIL_NO_SUCH_VOLUME] = "NO_SUCH_VOLUME",
    [GRAFT_DETAIL_BEYOND_HEAD] = "BEYOND_HEAD",
    [GRAFT_DETAIL_RETIRED] = "RETIRED",
    [GRAFT_DETAIL_FORKED] = "FORKED",
    [GRAFT_DETAIL_HOT_JOURNAL] = "HOT_JOURNAL",
    [GRAFT_DETAIL_BAD_STORE] = "BAD_STORE",
    [GRAFT_DETAIL_FROZEN] = "FROZEN",
};

const char *graft_status_name(enum graft_status status)
{
    return (size_t)status < ARRAY_COUNT(status_names) ? status_names[status] : "?";
}

const char *graft_detail_name(enum graft_detail detail)
{
    return (size_t)detail < ARRAY_COUNT(detail_names) ? detail_names[detail] : "?";
}

enum graft_status status_from_wire(uint32_t number)
{
    return number < ARRAY_COUNT(status_names) ? (enum graft_status)number : GRAFT_INTERNAL;
}

enum graft_detail detail_from_wire(uint32_t number)
{
    return number < ARRAY_COUNT(detail_names) ? (enum graft_detail)number : GRAFT_DETAIL_NONE;
}
