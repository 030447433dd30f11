// SPDX-License-Identifier: Apache-2.0
#include "sqlite/file.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "sqlite/file_internal.h"
#include "sqlite/pragma.h"
#include "sqlite/stage.h"

#define SECTOR_SIZE 4096

// ---- pins ---------------------------------------------------------------------------------------

static void note_pin(struct volume_file *file)
{
    uint64_t lsn = graft_snapshot_local_lsn(file->pin), history = graft_snapshot_history(file->pin);
    bool same_line = file->seen && history == file->seen_history;

    if (!file->seen || !same_line || lsn != file->seen_lsn) {
        file->counter++;
        file->first_valid = false;
    }
    if (file->seen && !same_line) {
        file->cookie_to_move = true;
        file->cookie_offset = 0; // of an empty volume; page 1 decides where there is one
    }
    file->seen = true;
    file->seen_lsn = lsn;
    file->seen_history = history;
    file->page_count = graft_snapshot_page_count(file->pin);
}

enum graft_status file_pin(struct volume_file *file, struct graft_error *err)
{
    struct graft_volume *volume = atomic_load(&file->shared->volume);

    CHECK(!file->pin);
    if (atomic_load(&file->shared->undecided))
        return error_set(
            err, GRAFT_BUSY, GRAFT_DETAIL_NONE,
            "volume %s has a transaction that is committed and could not be written; close all databases of "
            "its data directory and open them again",
            file->shared->vid);
    if (!volume) { // only named: empty, and nothing to pin
        file->page_count = 0;
        return GRAFT_OK;
    }
    enum graft_status status = graft_snapshot_open(volume, &file->pin, err);
    if (status == GRAFT_OK)
        note_pin(file);
    return status;
}

void file_adopt_pin(struct volume_file *file, struct graft_snapshot *pin)
{
    graft_snapshot_release(file->pin);
    file->pin = pin;
    file->seen = true;
    file->seen_lsn = graft_snapshot_local_lsn(pin);
    file->seen_history = graft_snapshot_history(pin);
    file->page_count = graft_snapshot_page_count(pin);
}

void file_drop_overlay(struct volume_file *file)
{
    stage_take_back(file);
    overlay_free(TAKE(file->overlay));
    file->wrote_first = false;
}

// ---- locks --------------------------------------------------------------------------------------

enum graft_status file_freeze(struct volume_file *file, struct graft_error *err)
{
    struct graft_volume *volume = atomic_load(&file->shared->volume);

    if (!volume || file->frozen)
        return GRAFT_OK;
    enum graft_status status = graft_freeze(volume, err);
    file->frozen = status == GRAFT_OK;
    return status;
}

// A volume whose commit is to be finished at the next opening stays frozen until then.
static void thaw(struct volume_file *file)
{
    if (file->frozen && !atomic_load(&file->shared->undecided))
        graft_thaw(atomic_load(&file->shared->volume));
    file->frozen = false;
}

static void give_slot(struct volume_file *file)
{
    if (file->has_slot)
        shared_give_slot(file->shared, file);
    file->has_slot = false;
}

// Is the pin the head, and may anything be committed on it?
static int check_head(struct volume_file *file, struct graft_volume_head *ret_head)
{
    struct graft_volume *volume = atomic_load(&file->shared->volume);
    struct graft_error why;

    *ret_head = (struct graft_volume_head){0};
    if (!volume)
        return SQLITE_OK;
    if (graft_volume_head(volume, ret_head, &why) != GRAFT_OK)
        return errors_note(SQLITE_IOERR_LOCK, file->shared->vid, &why);
    return file->pin && ret_head->local_lsn == graft_snapshot_local_lsn(file->pin) ? SQLITE_OK
                                                                                   : SQLITE_BUSY_SNAPSHOT;
}

static int reserve(struct volume_file *file)
{
    struct graft_volume_head head;

    if (file->read_only)
        return SQLITE_READONLY;
    if (!shared_take_slot(file->shared, file))
        return SQLITE_BUSY;
    file->has_slot = true;
    int code = check_head(file, &head);
    if (code == SQLITE_OK && head.status != GRAFT_VOLUME_OK)
        code = errors_note_text(SQLITE_READONLY, file->shared->vid, head.status_error.status,
                                "volume %s is %s: %s; %s", file->shared->vid,
                                graft_volume_status_text(head.status), head.status_error.message,
                                graft_volume_status_advice(head.status));
    if (code != SQLITE_OK)
        give_slot(file);
    return code;
}

// Never waits for readers: they have their snapshots.
static int freeze(struct volume_file *file)
{
    struct graft_volume_head head;
    struct graft_error why;

    if (file_freeze(file, &why) != GRAFT_OK)
        return errors_note(SQLITE_IOERR_LOCK, file->shared->vid, &why);
    int code = check_head(file, &head);
    if (code != SQLITE_OK)
        thaw(file);
    return code;
}

static int file_lock(sqlite3_file *base, int level)
{
    struct volume_file *file = (struct volume_file *)base;
    struct graft_error why;
    int code = SQLITE_OK;

    if (runtime_is_forked(file->shared->runtime))
        return SQLITE_IOERR_LOCK;
    if (level <= file->lock || file->pinned_for_good)
        return level > SQLITE_LOCK_SHARED && file->pinned_for_good ? SQLITE_READONLY : SQLITE_OK;
    if (file->lock == SQLITE_LOCK_NONE) {
        if (file_pin(file, &why) != GRAFT_OK)
            return errors_note(SQLITE_IOERR_LOCK, file->shared->vid, &why);
        file->lock = SQLITE_LOCK_SHARED;
    }
    if (level >= SQLITE_LOCK_RESERVED && file->lock < SQLITE_LOCK_RESERVED) {
        code = reserve(file);
        if (code == SQLITE_OK)
            file->lock = SQLITE_LOCK_RESERVED;
    }
    if (code == SQLITE_OK && level == SQLITE_LOCK_EXCLUSIVE)
        code = freeze(file);
    if (code == SQLITE_OK)
        file->lock = level;
    return code;
}

static int file_unlock(sqlite3_file *base, int level)
{
    struct volume_file *file = (struct volume_file *)base;

    if (runtime_is_forked(file->shared->runtime) || file->pinned_for_good)
        return SQLITE_OK;
    if (level <= SQLITE_LOCK_SHARED) {
        file_drop_overlay(file);
        thaw(file);
        give_slot(file);
    }
    if (level == SQLITE_LOCK_NONE) {
        graft_snapshot_release(TAKE(file->pin));
        file->broken = false;
    }
    file->lock = MIN(file->lock, level);
    return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *base, int *ret_reserved)
{
    struct volume_file *file = (struct volume_file *)base;

    if (runtime_is_forked(file->shared->runtime))
        return SQLITE_IOERR_CHECKRESERVEDLOCK;
    *ret_reserved = shared_slot_is_taken(file->shared);
    return SQLITE_OK;
}

// ---- the rest -----------------------------------------------------------------------------------

static int file_close(sqlite3_file *base)
{
    struct volume_file *file = (struct volume_file *)base;

    file->base.pMethods = NULL;
    // In a child the client and its threads are the parent's: there the handle is only forgotten.
    if (runtime_is_forked(file->shared->runtime))
        return SQLITE_OK;
    file_drop_overlay(file);
    thaw(file);
    give_slot(file);
    graft_snapshot_release(TAKE(file->pin));
    paths_remove(file->path);
    shared_unref(file->shared);
    free(file->path);
    free(file->first);
    free(file->scratch);
    return SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags)
{
    return SQLITE_OK; // a commit is durable by itself
}

static int file_control(sqlite3_file *base, int opcode, void *argument)
{
    struct volume_file *file = (struct volume_file *)base;

    if (runtime_is_forked(file->shared->runtime))
        return SQLITE_IOERR;
    switch (opcode) {
    case SQLITE_FCNTL_PRAGMA:
        return pragma_run(file, argument);
    case SQLITE_FCNTL_SYNC:
        return file_stage(file, argument);
    case SQLITE_FCNTL_COMMIT_PHASETWO:
        return file_commit(file);
    case SQLITE_FCNTL_VFSNAME:
        *(char **)argument = sqlite3_mprintf("graft");
        return *(char **)argument ? SQLITE_OK : SQLITE_NOMEM;
    case SQLITE_FCNTL_LOCKSTATE:
        *(int *)argument = file->lock;
        return SQLITE_OK;
    case SQLITE_FCNTL_HAS_MOVED:
        *(int *)argument = 0;
        return SQLITE_OK;
    case SQLITE_FCNTL_SIZE_HINT:
    case SQLITE_FCNTL_OVERWRITE:
        return SQLITE_OK;
    default:
        return SQLITE_NOTFOUND;
    }
}

static int file_sector_size(sqlite3_file *base)
{
    return SECTOR_SIZE;
}

static int file_characteristics(sqlite3_file *base)
{
    const struct volume_file *file = (const struct volume_file *)base;

    return SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL |
           (file->by_lsn ? SQLITE_IOCAP_IMMUTABLE : 0);
}

// Version 1: no shared memory, so no WAL, and no memory maps.
static const sqlite3_io_methods file_methods = {
    .iVersion = 1,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
};

struct volume_file *file_of(sqlite3_file *file)
{
    return file && file->pMethods == &file_methods ? (struct volume_file *)file : NULL;
}

static enum graft_status pin_for_good(struct volume_file *file, uint64_t lsn, struct graft_error *err)
{
    struct graft_volume *volume = atomic_load(&file->shared->volume);

    file->pinned_for_good = true;
    if (lsn == 0)
        return file_pin(file, err);
    if (!volume)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD,
                         "volume %s is new and has no LSN %llu", file->shared->vid, (unsigned long long)lsn);
    file->by_lsn = true;
    enum graft_status status = graft_snapshot_open_remote(volume, lsn, &file->pin, err);
    if (status == GRAFT_OK)
        note_pin(file);
    return status;
}

int file_open(struct volume_file *file, struct shared *shared, char *path, bool read_only, bool pinned,
              uint64_t lsn)
{
    struct graft_error why;
    enum graft_status status = GRAFT_OK;

    *file = (struct volume_file){.shared = shared, .path = path, .read_only = read_only};
    if (!paths_add(path, shared->runtime)) {
        status = error_set(&why, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a path");
        shared_unref(shared);
        free(path);
        return errors_note(SQLITE_CANTOPEN, NULL, &why);
    }
    if (pinned || lsn > 0)
        status = pin_for_good(file, lsn, &why);
    if (status != GRAFT_OK) {
        int code = errors_note(errors_code_of_open(&why), shared->vid, &why);
        file_close(&file->base);
        return code;
    }
    file->base.pMethods = &file_methods;
    return SQLITE_OK;
}
