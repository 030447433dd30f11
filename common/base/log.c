// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"
#include "common/base/clock.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"

#define LINE_SIZE_MAX 1024

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static _Atomic int level_max = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_max, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

bool log_level_parse(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_COUNT(level_names); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

static size_t put_head(char *line, size_t size, enum log_level level, const char *event)
{
    int length = snprintf(line, size, "ts=%s level=%s event=%s",
                          clock_format(clock_wall_ms(clock_system())).text, level_names[level], event);
    return MIN((size_t)length, size - 1);
}

void log_line(enum log_level level, const char *event, const char *format, ...)
{
    if (!log_enabled(level))
        return;

    char line[LINE_SIZE_MAX];
    size_t size = put_head(line, sizeof line, level, event);
    if (size + 1 < sizeof line && format[0] != '\0') {
        line[size++] = ' ';
        va_list arguments;
        va_start(arguments, format);
        int length = vsnprintf(line + size, sizeof line - size, format, arguments);
        va_end(arguments);
        if (length > 0)
            size += MIN((size_t)length, sizeof line - size - 1);
    }
    // One event, one line, whatever the values hold.
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)line[i] < 0x20)
            line[i] = '?';
    }
    line[size++] = '\n';
    // A log that cannot be written has nowhere to be reported.
    (void)!write(STDERR_FILENO, line, size);
}

static bool needs_quotes(const char *value)
{
    if (value[0] == '\0')
        return true;
    for (const char *place = value; *place; place++) {
        unsigned char byte = (unsigned char)*place;
        if (byte <= ' ' || byte == '"' || byte == '=' || byte == '\\' || byte == 0x7f)
            return true;
    }
    return false;
}

// Writes the escaped form of one byte; returns its size, at most 4.
static size_t escape(unsigned char byte, char to[5])
{
    if (byte == '"' || byte == '\\')
        return (size_t)snprintf(to, 5, "\\%c", byte);
    if (byte == '\n')
        return (size_t)snprintf(to, 5, "\\n");
    if (byte < 0x20 || byte == 0x7f)
        return (size_t)snprintf(to, 5, "\\x%02x", byte);
    to[0] = (char)byte;
    return 1;
}

struct log_text log_quote(const char *value)
{
    struct log_text quoted;
    size_t size = 0;
    bool quotes = needs_quotes(value);
    if (quotes)
        quoted.text[size++] = '"';
    for (const char *place = value; *place; place++) {
        char escaped[5];
        size_t escaped_size = escape((unsigned char)*place, escaped);
        if (size + escaped_size > sizeof quoted.text - 2) // room for the closing quote and the NUL
            break;
        memcpy(quoted.text + size, escaped, escaped_size);
        size += escaped_size;
    }
    if (quotes)
        quoted.text[size++] = '"';
    quoted.text[size] = '\0';
    return quoted;
}

struct log_text log_format_error(const struct graft_error *err)
{
    struct log_text text;
    int size =
        snprintf(text.text, sizeof text.text, "status=%s detail=%s message=", graft_status_name(err->status),
                 graft_detail_name(err->detail));
    struct log_text message = log_quote(err->message);
    size_t room = sizeof text.text - (size_t)size - 1;
    size_t length = strlen(message.text);
    if (length > room) {
        length = room;
        message.text[room - 1] = '"';
    }
    memcpy(text.text + size, message.text, length);
    text.text[(size_t)size + length] = '\0';
    return text;
}
