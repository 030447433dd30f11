// SPDX-License-Identifier: Apache-2.0
//
// logfmt lines on stderr: ts=… level=info event=listening addr=127.0.0.1:3001. For daemons and programs; the library
// never logs. The level is the one global of the process.
//
//     log_info("listening", "addr=%s store=%s", address, log_quote(store).text);
#ifndef COMMON_BASE_LOG_H
#define COMMON_BASE_LOG_H

#include <stdbool.h>

#include "common/base/compiler.h"
#include "common/base/error.h"

enum log_level {
    LOG_ERROR,
    LOG_WARN,
    LOG_INFO,
    LOG_DEBUG,
};

void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
bool log_level_parse(const char *text, enum log_level *ret_level); // "error", "warn", "info", "debug"

// One write(2) a line; at most 1,024 bytes, cut at the end.
void log_line(enum log_level level, const char *event, const char *format, ...) _printf_(3, 4);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                        \
    do {                                      \
        if (log_enabled(LOG_DEBUG))           \
            log_line(LOG_DEBUG, __VA_ARGS__); \
    } while (0)

// A value that may hold spaces, quotes or control characters, made fit for a line: quoted and escaped where needed.
struct log_text {
    char text[400];
};
struct log_text log_quote(const char *value);

// "status=… detail=… message=…"
struct log_text log_format_error(const struct graft_error *err);

#endif
