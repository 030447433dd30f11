// SPDX-License-Identifier: Apache-2.0
//
// The VFS: which names are volumes, and what goes to the VFS that was the default before.
//
//     random, VID, tag       →  <data>/sqlite/<name>      a path that no file has, beside which super-journals lie
//     a path of a stub file  →  that path                 likewise
//     anything with a slash  →  the host VFS
//
// Main journals of volumes are in memory (journal.h), and nobody finds any on the disk; super-journals are real files.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/compiler.h"
#include "sqlite/errors.h"
#include "sqlite/file.h"
#include "sqlite/include/graft_sqlite.h"
#include "sqlite/journal.h"
#include "sqlite/name.h"
#include "sqlite/runtime.h"
#include "sqlite/stage.h"
#include "sqlite/vfs.h"

static sqlite3_vfs *host_of(sqlite3_vfs *vfs)
{
    return vfs->pAppData;
}

// ---- names --------------------------------------------------------------------------------------

static void options_release_p(struct options *options)
{
    options_release(options);
}

// Is there no file of that name, or nothing in it?
static bool is_vacant(const char *path)
{
    struct stat found;
    return stat(path, &found) != 0 || (S_ISREG(found.st_mode) && found.st_size == 0);
}

static bool is_stub(const char *path)
{
    char vid[GRAFT_VID_SIZE];
    return graft_stub_read(path, vid, NULL) == GRAFT_OK;
}

// A name without a slash that is neither `random` nor a VID.
static int bare_path(sqlite3_vfs *vfs, const struct settings *settings, const char *folder, const char *name,
                     bool may_be_tag, int size, char *to)
{
    if (may_be_tag && runtime_has_tag(folder, name)) {
        sqlite3_snprintf(size, to, "%s/%s", folder, name);
        return SQLITE_OK;
    }
    if (is_stub(name) || (settings->stubs && is_vacant(name)))
        return host_of(vfs)->xFullPathname(host_of(vfs), name, size, to);
    return errors_note_text(
        SQLITE_CANTOPEN, NULL, GRAFT_NOT_FOUND,
        "\"%s\" is neither a VID nor a tag; for a file that is no volume give a path with a slash", name);
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int size, char *to)
{
    struct settings settings;
    _cleanup_(options_release_p) struct options options = {0};
    _cleanup_(free_p) char *folder = NULL;
    char vid[GRAFT_VID_SIZE];
    struct graft_error why;

    enum name_kind kind = name_kind_of(name);
    if (kind == NAME_PATH)
        return host_of(vfs)->xFullPathname(host_of(vfs), name, size, to);
    enum graft_status status = settings_read(name, &settings, &options, &why);
    if (status == GRAFT_OK)
        status = runtime_folder(name, &settings, &folder, &why);
    if (status != GRAFT_OK)
        return errors_note(SQLITE_CANTOPEN, NULL, &why);
    if (strlen(folder) + strlen(name) + GRAFT_VID_SIZE + 2 > (size_t)size)
        return errors_note_text(SQLITE_CANTOPEN, NULL, GRAFT_LIMIT,
                                "the path of the data directory is too long");
    if (kind == NAME_TAG || kind == NAME_BAD)
        return bare_path(vfs, &settings, folder, name, kind == NAME_TAG, size, to);
    if (kind == NAME_RANDOM)
        runtime_name_fresh(vid);
    sqlite3_snprintf(size, to, "%s/%s", folder, kind == NAME_RANDOM ? vid : name);
    return SQLITE_OK;
}

// ---- opening ------------------------------------------------------------------------------------

struct request {
    const char *path; // as SQLite passes it, with its parameters behind
    int flags;
    struct settings settings;
    char vid[GRAFT_VID_SIZE]; // "": a tag is to be looked up
    const char *tag;
};

// True if the path is a volume, which is then in the request.
static bool find_volume(struct request *request, const char *folder, struct graft_error *err)
{
    request->tag = name_in_folder(request->path, folder);
    if (request->tag) {
        if (name_kind_of(request->tag) == NAME_VID)
            snprintf(request->vid, sizeof request->vid, "%s", request->tag);
        return true;
    }
    if (graft_stub_read(request->path, request->vid, NULL) == GRAFT_OK)
        return true;
    return request->settings.stubs && (request->flags & SQLITE_OPEN_CREATE) && is_vacant(request->path);
}

// A new stub file for a volume that is to be made.
static enum graft_status make_stub(struct request *request, struct runtime *runtime, struct graft_error *err)
{
    char vid[GRAFT_VID_SIZE];

    runtime_name_fresh(vid);
    enum graft_status status = runtime_keep_fresh(runtime, vid, err);
    if (status == GRAFT_OK)
        status = graft_stub_write(request->path, vid, err);
    if (status == GRAFT_OK)
        memcpy(request->vid, vid, sizeof vid);
    return status;
}

static enum graft_status open_shared(struct request *request, struct shared **ret_shared,
                                     struct graft_error *err)
{
    _cleanup_(runtime_unref_p) struct runtime *runtime = NULL;

    enum graft_status status = runtime_acquire(request->path, &request->settings, &runtime, err);
    if (status == GRAFT_OK && !request->vid[0])
        status = request->tag ? graft_tag_get(runtime->client, request->tag, request->vid, err)
                              : make_stub(request, runtime, err);
    if (status == GRAFT_OK)
        status = runtime_volume(runtime, request->vid, ret_shared, err);
    return status == GRAFT_OK ? status : error_context(err, status, "opening %s", request->path);
}

static bool uri_flag(const char *name, const char *key)
{
    const char *value = uri_parameter(name, key);
    return value && settings_flag(value);
}

static int open_volume(struct request *request, sqlite3_file *file, int *ret_flags)
{
    struct shared *shared;
    struct graft_error why;
    uint64_t lsn = 0;
    bool read_only = request->flags & SQLITE_OPEN_READONLY;
    bool without_locks = uri_flag(request->path, "nolock") || uri_flag(request->path, "immutable");
    const char *lsn_text = uri_parameter(request->path, "lsn");

    if (without_locks && !read_only && !lsn_text)
        return errors_note_text(SQLITE_CANTOPEN, NULL, GRAFT_INVALID,
                                "%s: a volume is opened without locks only with mode=ro", request->path);
    if (lsn_text) {
        char *end;
        lsn = strtoull(lsn_text, &end, 10);
        if (lsn == 0 || *end || lsn_text[0] < '0' || lsn_text[0] > '9')
            return errors_note_text(SQLITE_CANTOPEN, NULL, GRAFT_INVALID,
                                    "lsn=%s is no LSN: they begin with 1", lsn_text);
        read_only = true;
    }
    char *path = strdup(request->path);
    if (!path)
        return SQLITE_NOMEM;
    if (open_shared(request, &shared, &why) != GRAFT_OK) {
        free(path);
        return errors_note(errors_code_of_open(&why), request->vid, &why);
    }
    int code = file_open((struct volume_file *)file, shared, path, read_only, without_locks, lsn);
    if (code == SQLITE_OK && ret_flags)
        *ret_flags = (request->flags & ~(SQLITE_OPEN_READONLY | SQLITE_OPEN_READWRITE)) |
                     (read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
    return code;
}

static int open_main(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    struct request request = {.path = name, .flags = flags};
    _cleanup_(options_release_p) struct options options = {0};
    _cleanup_(free_p) char *folder = NULL;
    struct graft_error why;

    enum graft_status status = settings_read(name, &request.settings, &options, &why);
    if (status == GRAFT_OK)
        status = runtime_folder(name, &request.settings, &folder, &why);
    if (status != GRAFT_OK)
        return errors_note(SQLITE_CANTOPEN, NULL, &why);
    if (find_volume(&request, folder, &why))
        return open_volume(&request, file, ret_flags);
    return host_of(vfs)->xOpen(host_of(vfs), name, file, flags, ret_flags);
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
    file->pMethods = NULL;
    if (name && (flags & SQLITE_OPEN_MAIN_DB))
        return open_main(vfs, name, file, flags, ret_flags);
    if (name && (flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL))) {
        const char *folder = paths_folder_of_journal(name);
        if (folder && (flags & SQLITE_OPEN_WAL))
            return SQLITE_CANTOPEN;
        if (folder) {
            if (ret_flags)
                *ret_flags = flags;
            return journal_open(file, folder);
        }
    }
    return host_of(vfs)->xOpen(host_of(vfs), name, file, flags, ret_flags);
}

// ---- other files --------------------------------------------------------------------------------

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
    if (paths_is_journal(name))
        return SQLITE_OK; // it went when it was closed
    return host_of(vfs)->xDelete(host_of(vfs), name, sync_folder);
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret_there)
{
    if (paths_is_journal(name)) {
        *ret_there = 0;
        return SQLITE_OK;
    }
    return host_of(vfs)->xAccess(host_of(vfs), name, flags, ret_there);
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *name)
{
    return host_of(vfs)->xDlOpen(host_of(vfs), name);
}

static void vfs_dl_error(sqlite3_vfs *vfs, int size, char *to)
{
    host_of(vfs)->xDlError(host_of(vfs), size, to);
}

static void (*vfs_dl_symbol(sqlite3_vfs *vfs, void *library, const char *symbol))(void)
{
    return host_of(vfs)->xDlSym(host_of(vfs), library, symbol);
}

static void vfs_dl_close(sqlite3_vfs *vfs, void *library)
{
    host_of(vfs)->xDlClose(host_of(vfs), library);
}

static int vfs_randomness(sqlite3_vfs *vfs, int size, char *to)
{
    return host_of(vfs)->xRandomness(host_of(vfs), size, to);
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    return host_of(vfs)->xSleep(host_of(vfs), microseconds);
}

static int vfs_time(sqlite3_vfs *vfs, double *ret_time)
{
    return host_of(vfs)->xCurrentTime(host_of(vfs), ret_time);
}

static int vfs_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *ret_time)
{
    return host_of(vfs)->xCurrentTimeInt64(host_of(vfs), ret_time);
}

static int vfs_last_error(sqlite3_vfs *vfs, int size, char *to)
{
    return host_of(vfs)->xGetLastError(host_of(vfs), size, to);
}

// ---- registering --------------------------------------------------------------------------------

static sqlite3_vfs graft_vfs = {
    .iVersion = 2,
    .zName = "graft",
    .xOpen = vfs_open,
    .xDelete = vfs_delete,
    .xAccess = vfs_access,
    .xFullPathname = vfs_full_path,
    .xDlOpen = vfs_dl_open,
    .xDlError = vfs_dl_error,
    .xDlSym = vfs_dl_symbol,
    .xDlClose = vfs_dl_close,
    .xRandomness = vfs_randomness,
    .xSleep = vfs_sleep,
    .xCurrentTime = vfs_time,
    .xGetLastError = vfs_last_error,
    .xCurrentTimeInt64 = vfs_time_ms,
};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
    sqlite3_vfs *host = sqlite3_vfs_find(NULL);

    errors_init();
    runtime_init();
    stage_init();
    graft_vfs.pAppData = host;
    graft_vfs.mxPathname = host->mxPathname;
    int own_size = MAX((int)sizeof(struct volume_file), journal_file_size());
    graft_vfs.szOsFile = MAX(host->szOsFile, own_size);
}

int vfs_register(int make_default, struct graft_error *err)
{
    struct settings settings;
    _cleanup_(options_release_p) struct options options = {0};

    pthread_once(&once, init);
    if (settings_read(NULL, &settings, &options, err) != GRAFT_OK)
        return errors_note(SQLITE_ERROR, NULL, err);
    make_default |= settings.make_default;
    if (sqlite3_vfs_find(graft_vfs.zName) && !make_default)
        return SQLITE_OK;
    return sqlite3_vfs_register(&graft_vfs, make_default);
}
