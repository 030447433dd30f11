// SPDX-License-Identifier: Apache-2.0
#include "sqlite/journal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/compiler.h"
#include "common/base/files.h"
#include "common/base/limits.h"
#include "sqlite/errors.h"
#include "sqlite/spill.h"

#define SIZE_FIRST (16 * KIB)

struct journal {
    sqlite3_file base;
    const char *folder;
    uint8_t *memory; // NULL once there is a file
    size_t room;
    uint64_t size;
    int fd; // -1: all is in memory
};

int journal_file_size(void)
{
    return (int)sizeof(struct journal);
}

static int journal_close(sqlite3_file *file)
{
    struct journal *journal = (struct journal *)file;

    free(journal->memory);
    if (journal->fd >= 0)
        close(journal->fd);
    journal->memory = NULL;
    journal->fd = -1;
    return SQLITE_OK;
}

static int journal_read(sqlite3_file *file, void *to, int size, sqlite3_int64 offset)
{
    struct journal *journal = (struct journal *)file;
    struct graft_error why;
    size_t there =
        (uint64_t)offset < journal->size ? MIN((uint64_t)size, journal->size - (uint64_t)offset) : 0;

    if (journal->fd < 0 && there > 0) {
        memcpy(to, journal->memory + offset, there);
    } else if (there > 0) {
        size_t got = 0;
        if (files_pread_all(journal->fd, to, there, (uint64_t)offset, journal->folder, &got, &why) !=
            GRAFT_OK)
            return errors_note(errors_code_of_read(&why), NULL, &why);
        there = got;
    }
    memset((uint8_t *)to + there, 0, (size_t)size - there);
    return there == (size_t)size ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static enum graft_status spill(struct journal *journal, struct graft_error *err)
{
    int fd;

    enum graft_status status = spill_open(journal->folder, &fd, err);
    if (status == GRAFT_OK && journal->size > 0) {
        status = files_pwrite_all(fd, journal->memory, journal->size, 0, journal->folder, err);
        if (status != GRAFT_OK)
            close(fd);
    }
    if (status != GRAFT_OK)
        return status;
    journal->fd = fd;
    free(TAKE(journal->memory));
    return GRAFT_OK;
}

static enum graft_status make_room(struct journal *journal, uint64_t end, struct graft_error *err)
{
    if (journal->fd >= 0 || end <= journal->room)
        return GRAFT_OK;
    if (end > JOURNAL_MEMORY_MAX)
        return spill(journal, err);
    size_t room = MAX(journal->room, (size_t)SIZE_FIRST);
    while (room < end)
        room *= 2;
    uint8_t *memory = realloc(journal->memory, room);
    if (!memory)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a journal");
    journal->memory = memory;
    journal->room = room;
    return GRAFT_OK;
}

static int journal_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 offset)
{
    struct journal *journal = (struct journal *)file;
    struct graft_error why;
    uint64_t at = (uint64_t)offset, end = at + (uint64_t)size;

    enum graft_status status = make_room(journal, end, &why);
    if (status == GRAFT_OK && journal->fd >= 0) {
        status = files_pwrite_all(journal->fd, data, (size_t)size, at, journal->folder, &why);
    } else if (status == GRAFT_OK) {
        if (at > journal->size) // a gap reads as zeros
            memset(journal->memory + journal->size, 0, at - journal->size);
        memcpy(journal->memory + at, data, (size_t)size);
    }
    if (status != GRAFT_OK)
        return errors_note(errors_code_of_write(&why), NULL, &why);
    journal->size = MAX(journal->size, end);
    return SQLITE_OK;
}

static int journal_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct journal *journal = (struct journal *)file;

    if ((uint64_t)size >= journal->size)
        return SQLITE_OK;
    if (journal->fd >= 0 && ftruncate(journal->fd, size) != 0)
        return SQLITE_IOERR_TRUNCATE;
    journal->size = (uint64_t)size;
    return SQLITE_OK;
}

static int journal_sync(sqlite3_file *file, int flags)
{
    return SQLITE_OK; // it ends with the process anyway
}

static int journal_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
    *ret_size = (sqlite3_int64)((struct journal *)file)->size;
    return SQLITE_OK;
}

static int journal_lock(sqlite3_file *file, int level)
{
    return SQLITE_OK;
}

static int journal_check_reserved(sqlite3_file *file, int *ret_reserved)
{
    *ret_reserved = 0;
    return SQLITE_OK;
}

static int journal_control(sqlite3_file *file, int opcode, void *argument)
{
    return SQLITE_NOTFOUND;
}

static int journal_sector_size(sqlite3_file *file)
{
    return 4096;
}

static int journal_characteristics(sqlite3_file *file)
{
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL;
}

static const sqlite3_io_methods journal_methods = {
    .iVersion = 1,
    .xClose = journal_close,
    .xRead = journal_read,
    .xWrite = journal_write,
    .xTruncate = journal_truncate,
    .xSync = journal_sync,
    .xFileSize = journal_size,
    .xLock = journal_lock,
    .xUnlock = journal_lock,
    .xCheckReservedLock = journal_check_reserved,
    .xFileControl = journal_control,
    .xSectorSize = journal_sector_size,
    .xDeviceCharacteristics = journal_characteristics,
};

int journal_open(sqlite3_file *file, const char *folder)
{
    struct journal *journal = (struct journal *)file;

    *journal = (struct journal){.base.pMethods = &journal_methods, .folder = folder, .fd = -1};
    return SQLITE_OK;
}
