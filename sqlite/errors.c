// SPDX-License-Identifier: Apache-2.0
#include "sqlite/errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "sqlite/sqlite.h"

static struct {
    struct mutex lock; // RANK_LEAF
    uint64_t count;    // lock; of all times
    struct error_note notes[ERRORS_KEPT_MAX];
} errors;

void errors_init(void)
{
    mutex_init(&errors.lock, RANK_LEAF);
}

int errors_note(int code, const char *vid, const struct graft_error *why)
{
    struct error_note note = {.time_ms = clock_wall_ms(clock_system()), .code = code, .error = *why};

    snprintf(note.vid, sizeof note.vid, "%s", vid ? vid : "");
    mutex_lock(&errors.lock);
    struct error_note *last = &errors.notes[(errors.count + ERRORS_KEPT_MAX - 1) % ERRORS_KEPT_MAX];
    bool again = errors.count > 0 && last->code == code && strcmp(last->vid, note.vid) == 0 &&
                 strcmp(last->error.message, note.error.message) == 0;
    if (again)
        last->time_ms = note.time_ms;
    else
        errors.notes[errors.count++ % ERRORS_KEPT_MAX] = note;
    mutex_unlock(&errors.lock);
    sqlite3_log(code == SQLITE_OK ? SQLITE_WARNING : code, "graft: %s", note.error.message);
    return code;
}

int errors_note_text(int code, const char *vid, enum graft_status status, const char *format, ...)
{
    struct graft_error why = {.status = status};
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why.message, sizeof why.message, format, arguments);
    va_end(arguments);
    return errors_note(code, vid, &why);
}

void errors_visit(bool (*visit)(void *context, const struct error_note *note), void *context)
{
    LOCK_GUARD(&errors.lock);
    uint64_t first = errors.count > ERRORS_KEPT_MAX ? errors.count - ERRORS_KEPT_MAX : 0;
    for (uint64_t i = first; i < errors.count; i++) {
        if (!visit(context, &errors.notes[i % ERRORS_KEPT_MAX]))
            break;
    }
}

void errors_clear(void)
{
    LOCK_GUARD(&errors.lock);
    errors.count = 0;
}

int errors_code_of_read(const struct graft_error *why)
{
    if (why->status == GRAFT_CORRUPT)
        return SQLITE_IOERR_DATA;
    return why->detail == GRAFT_DETAIL_NO_MEMORY ? SQLITE_IOERR_NOMEM : SQLITE_IOERR_READ;
}

int errors_code_of_write(const struct graft_error *why)
{
    if (why->detail == GRAFT_DETAIL_NO_SPACE)
        return SQLITE_FULL;
    return why->detail == GRAFT_DETAIL_NO_MEMORY ? SQLITE_IOERR_NOMEM : SQLITE_IOERR_WRITE;
}

int errors_code_of_open(const struct graft_error *why)
{
    switch (why->status) {
    case GRAFT_BUSY:
        return SQLITE_BUSY;
    case GRAFT_CORRUPT:
        return SQLITE_CORRUPT;
    default:
        return SQLITE_CANTOPEN;
    }
}
