// SPDX-License-Identifier: Apache-2.0
//
// Why calls failed. SQLite passes on a code and no more, so the cause is kept here, for graft_errors, and goes to SQLite's
// own log. Threads: any.
#ifndef SQLITE_ERRORS_H
#define SQLITE_ERRORS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/compiler.h"
#include "common/base/error.h"

struct error_note {
    uint64_t time_ms; // since 1970
    int code;         // what SQLite was told; SQLITE_OK for trouble in the background
    char vid[23];     // "" where there is none
    struct graft_error error;
};

void errors_init(void);
// Keeps it (the same as the last one only once) and returns `code`.
int errors_note(int code, const char *vid, const struct graft_error *why);
int errors_note_text(int code, const char *vid, enum graft_status status, const char *format, ...)
    _printf_(4, 5);
// The oldest first, until `visit` returns false. `visit` may not use this module.
void errors_visit(bool (*visit)(void *context, const struct error_note *note), void *context);
void errors_clear(void);

// The code for xRead, never anything but SQLITE_IOERR_…: with others SQLite goes on with what it has not read.
int errors_code_of_read(const struct graft_error *why);
// For writing and committing: FULL or IOERR_…, for which SQLite drops its cache.
int errors_code_of_write(const struct graft_error *why);
int errors_code_of_open(const struct graft_error *why);

#endif
