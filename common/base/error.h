// SPDX-License-Identifier: Apache-2.0
//
// Making and passing on errors. Libraries return them; handlers, jobs and main() log them, once.
//
//     return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "page size %u is no power of two", size);
//
//     status = store_open(…, err);
//     if (status != GRAFT_OK)
//         return error_context(err, status, "opening the data directory %s", path);
#ifndef COMMON_BASE_ERROR_H
#define COMMON_BASE_ERROR_H

#include "common/base/compiler.h"
#include "common/include/graft_status.h"

// Fills *err (if not NULL; the message is cut to fit, at a UTF-8 boundary, control characters replaced) and returns
// `status`, which is not GRAFT_OK.
enum graft_status error_set(struct graft_error *err, enum graft_status status, enum graft_detail detail,
                            const char *format, ...) _printf_(4, 5);

// Puts "<context>: " in front of the message already in *err. Returns `status`.
enum graft_status error_context(struct graft_error *err, enum graft_status status, const char *format, ...)
    _printf_(3, 4);

// Copies *from to *err (either may be NULL) and returns from's status.
enum graft_status error_copy(struct graft_error *err, const struct graft_error *from);

// errno → error: "<what>: <strerror>". ENOSPC and EDQUOT give NO_SPACE, EIO gives IO, ENOENT gives NOT_FOUND, EACCES and
// EPERM give DENIED, ENOMEM gives NO_MEMORY; statuses: INTERNAL unless said.
enum graft_status error_from_errno(struct graft_error *err, int error_number, const char *format, ...)
    _printf_(3, 4);

// "CONFLICT", "TOKEN_REUSED"; "?" for a number that is none of ours.
const char *graft_status_name(enum graft_status status);
const char *graft_detail_name(enum graft_detail detail);

// For numbers off the wire: what is none of ours becomes INTERNAL / NONE.
enum graft_status status_from_wire(uint32_t number);
enum graft_detail detail_from_wire(uint32_t number);

#endif
