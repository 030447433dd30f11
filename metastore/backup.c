// SPDX-License-Identifier: Apache-2.0
#include "metastore/backup.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/files.h"
#include "common/base/folder.h"
#include "common/base/limits.h"
#include "common/net/rpc.h"
#include "common/store/objstore.h"

#define PATH_SIZE 4096
#define BACKUPS_FOLDER "backups"
#define PARTIAL ".partial"
#define BACKUPS_KEPT 3u // that may wait in the store's folder to be taken
#define CALL_DEADLINE_MS 600000u
#define FILE_HEAD "graft-metastore backup 1\nid "

enum graft_status backup_store_path(const char *store_url, const char **ret_path, struct graft_error *err)
{
    static const char scheme[] = "rocksdb:";
    if (strncmp(store_url, scheme, sizeof scheme - 1) != 0 || !store_url[sizeof scheme - 1])
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "--store %s: only rocksdb:DIR has backups; what keeps other stores has its own",
                         store_url);
    *ret_path = store_url + sizeof scheme - 1;
    return GRAFT_OK;
}

_printf_(2, 4) static enum graft_status
    put_path(char to[PATH_SIZE], const char *format, struct graft_error *err, ...)
{
    va_list arguments;
    va_start(arguments, err);
    int size = vsnprintf(to, PATH_SIZE, format, arguments);
    va_end(arguments);
    if (size < PATH_SIZE)
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "a path is longer than %d",
                     PATH_SIZE - 1);
}

static bool exists(const char *path)
{
    struct stat there;
    return lstat(path, &there) == 0;
}

// The name given to DIR, without slashes at its end.
static void trim_slashes(char *path)
{
    for (size_t size = strlen(path); size > 1 && path[size - 1] == '/';)
        path[--size] = '\0';
}

static bool is_checkpoint_name(const char *name)
{
    return strspn(name, "0123456789abcdef") == BACKUP_NAME_SIZE - 1 && name[BACKUP_NAME_SIZE - 1] == '\0';
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);
    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

enum graft_status backup_check_name(const char *folder, struct graft_error *err)
{
    char path[PATH_SIZE];
    enum graft_status status = put_path(path, "%s", err, folder);
    if (status != GRAFT_OK)
        return status;
    trim_slashes(path);
    if (ends_with(path, PARTIAL))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_STORE,
                         "%s: that is the name of what a backup leaves that was cut off; remove it, or "
                         "choose another name",
                         folder);
    char *slash = strrchr(path, '/');
    if (!slash || !is_checkpoint_name(slash + 1))
        return GRAFT_OK;
    *slash = '\0';
    if (!ends_with(path, "/" BACKUPS_FOLDER))
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_STORE,
                     "%s was made for a backup that did not take it, and is removed in time; make one with: "
                     "graft-metastore --backup DIR",
                     folder);
}

enum graft_status backup_check_store(const char *store_url, struct graft_error *err)
{
    char path[PATH_SIZE];
    const char *folder = NULL;
    if (backup_store_path(store_url, &folder, NULL) != GRAFT_OK)
        return GRAFT_OK;
    enum graft_status status = backup_check_name(folder, err);
    if (status == GRAFT_OK)
        status = put_path(path, "%s/" BACKUP_FILE, err, folder);
    if (status == GRAFT_OK && exists(path))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_STORE,
                         "%s is a backup; bring it back with: graft-metastore restore --from %s --store "
                         "rocksdb:NEW_DIR",
                         folder, folder);
    if (status == GRAFT_OK)
        status = put_path(path, "%s/" RESTORE_FILE, err, folder);
    if (status == GRAFT_OK && exists(path))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_STORE,
                         "a restore to %s was cut off; run the same graft-metastore restore again", folder);
    return status;
}

// ---- the daemon's part

// One that was cut off in the making has ".tmp" behind its name, by RocksDB.
static int is_checkpoint(const struct dirent *entry)
{
    char name[sizeof entry->d_name];
    snprintf(name, sizeof name, "%s", entry->d_name);
    if (ends_with(name, ".tmp"))
        name[strlen(name) - 4] = '\0';
    return is_checkpoint_name(name);
}

// Names begin with the time, so the oldest come first.
static enum graft_status remove_oldest(const char *backups, struct graft_error *err)
{
    struct dirent **entries;
    int count = scandir(backups, &entries, is_checkpoint, alphasort);
    if (count < 0)
        return error_from_errno(err, errno, "reading the folder %s", backups);
    enum graft_status status = GRAFT_OK;
    for (int i = 0; i < count; i++) {
        char path[PATH_SIZE];
        if (status == GRAFT_OK && i + (int)BACKUPS_KEPT <= count) {
            status = put_path(path, "%s/%s", err, backups, entries[i]->d_name);
            if (status == GRAFT_OK)
                status = folder_remove(path, err);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

enum graft_status backup_checkpoint(struct objstore *store, const char *store_path,
                                    char ret_name[BACKUP_NAME_SIZE], struct graft_error *err)
{
    char backups[PATH_SIZE], path[PATH_SIZE], name[BACKUP_NAME_SIZE];
    uint64_t random;
    random_bytes(&random, sizeof random);
    snprintf(name, sizeof name, "%016llx%016llx", (unsigned long long)clock_wall_ms(clock_system()),
             (unsigned long long)random);
    enum graft_status status = put_path(backups, "%s/" BACKUPS_FOLDER, err, store_path);
    if (status == GRAFT_OK)
        status = files_make_folder(backups, err);
    if (status == GRAFT_OK)
        status = remove_oldest(backups, err);
    if (status == GRAFT_OK)
        status = put_path(path, "%s/%s", err, backups, name);
    if (status == GRAFT_OK)
        status = objstore_checkpoint(store, path, err);
    if (status == GRAFT_OK)
        memcpy(ret_name, name, sizeof name);
    return status;
}

// ---- the program's part

static void http_free_p(struct http_client **http)
{
    http_client_free(*http);
}

// Asks the daemon that has the store for a checkpoint. *ret_path: where it is.
static enum graft_status ask_daemon(const struct settings *settings, const char *store_path,
                                    char ret_path[PATH_SIZE], struct graft_error *err)
{
    static const struct http_client_settings http_settings;
    _cleanup_(http_free_p) struct http_client *http = NULL;
    _cleanup_(message_free_p) ProtobufCMessage *answer = NULL;
    const Graft__BackupRequest request = GRAFT__BACKUP_REQUEST__INIT;
    char url[300];
    snprintf(url, sizeof url, "http://%.250s", settings->listen);
    enum graft_status status = http_client_new(&http_settings, &http, err);
    if (status != GRAFT_OK)
        return status;
    const struct rpc_target target = {.http = http, .url = url, .deadline_ms = CALL_DEADLINE_MS};
    status = FAILPOINT_ERROR("backup.call.before", err);
    if (status == GRAFT_OK)
        status = rpc_call(&target, "backup", &request.base, &graft__backup_response__descriptor, &answer,
                          NULL, err);
    FAILPOINT("backup.call.after");
    if (status != GRAFT_OK)
        return error_context(err, status, "asking the metastore that serves this store (--listen)");
    const char *name = ((const Graft__BackupResponse *)answer)->name;
    if (strlen(name) != BACKUP_NAME_SIZE - 1 || strspn(name, "0123456789abcdef") != BACKUP_NAME_SIZE - 1)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                         "the metastore at %s names no checkpoint", url);
    status = put_path(ret_path, "%s/" BACKUPS_FOLDER "/%s", err, store_path, name);
    if (status == GRAFT_OK && !exists(ret_path))
        status = error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                           "the metastore at %s has another store than %s; name its address with --listen",
                           url, store_path);
    return status;
}

// A rename where both are on one file system, else a copy.
static enum graft_status move_checkpoint(const char *from, const char *to, struct graft_error *err)
{
    if (rename(from, to) == 0)
        return GRAFT_OK;
    if (errno != EXDEV)
        return error_from_errno(err, errno, "moving %s to %s", from, to);
    enum graft_status status = files_make_folder(to, err);
    if (status == GRAFT_OK)
        status = folder_copy_files(from, to, NULL, err);
    return status == GRAFT_OK ? folder_remove(from, err) : status;
}

static enum graft_status copy_store(const struct settings *settings, const char *store_path,
                                    const char *partial, struct graft_error *err)
{
    struct objstore_settings store_settings = {.disk_reserve = settings->disk_reserve};
    struct objstore *store;
    struct graft_error why;
    char checkpoint[PATH_SIZE];
    enum graft_status status = objstore_open(settings->store, &store_settings, &store, &why);
    if (status == GRAFT_OK) {
        status = objstore_checkpoint(store, partial, err);
        objstore_close(store);
        return status;
    }
    if (why.detail != GRAFT_DETAIL_LOCKED)
        return error_copy(err, &why);
    status = ask_daemon(settings, store_path, checkpoint, err);
    return status == GRAFT_OK ? move_checkpoint(checkpoint, partial, err) : status;
}

static enum graft_status write_backup_file(const char *folder, struct graft_error *err)
{
    char path[PATH_SIZE], text[200];
    uint64_t random[2];
    random_bytes(random, sizeof random);
    int size =
        snprintf(text, sizeof text, FILE_HEAD "%016llx%016llx\ntime_ms %llu\n", (unsigned long long)random[0],
                 (unsigned long long)random[1], (unsigned long long)clock_wall_ms(clock_system()));
    enum graft_status status = put_path(path, "%s/" BACKUP_FILE, err, folder);
    return status == GRAFT_OK ? files_replace(path, text, (size_t)size, err) : status;
}

enum graft_status backup_read_id(const char *path, char ret_id[BACKUP_ID_TEXT_SIZE + 1],
                                 struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer text = BUFFER_INIT(4096);
    const size_t head_size = sizeof FILE_HEAD - 1;
    char file[PATH_SIZE];
    struct graft_error why;
    enum graft_status status = put_path(file, "%s/" BACKUP_FILE, err, path);
    if (status != GRAFT_OK)
        return status;
    if (files_read(file, &text, &why) != GRAFT_OK || text.size < head_size + BACKUP_ID_TEXT_SIZE ||
        memcmp(text.data, FILE_HEAD, head_size) != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "%s is no backup that graft-metastore --backup finished", path);
    memcpy(ret_id, text.data + head_size, BACKUP_ID_TEXT_SIZE);
    ret_id[BACKUP_ID_TEXT_SIZE] = '\0';
    return GRAFT_OK;
}

static enum graft_status publish(const char *partial, const char *target, struct graft_error *err)
{
    char parent[PATH_SIZE];
    enum graft_status status = write_backup_file(partial, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("backup.publish.before", err);
    if (status != GRAFT_OK)
        return status;
    if (rename(partial, target) != 0) // over an empty folder, too
        return error_from_errno(err, errno, "renaming %s to %s", partial, target);
    FAILPOINT("backup.publish.named");
    snprintf(parent, sizeof parent, "%s", target);
    char *slash = strrchr(parent, '/');
    if (slash)
        slash[slash == parent] = '\0';
    status = files_sync_folder(slash ? parent : ".", err);
    FAILPOINT("backup.publish.after");
    return status;
}

enum graft_status backup_run(const struct settings *settings, struct graft_error *err)
{
    char target[PATH_SIZE], partial[PATH_SIZE], current[PATH_SIZE];
    const char *store_path = NULL;
    bool empty = true;
    enum graft_status status = backup_store_path(settings->store, &store_path, err);
    if (status == GRAFT_OK)
        status = put_path(target, "%s", err, settings->backup);
    if (status != GRAFT_OK)
        return status;
    trim_slashes(target);
    status = put_path(partial, "%s" PARTIAL, err, target);
    if (status == GRAFT_OK)
        status = put_path(current, "%s/CURRENT", err, store_path);
    if (status == GRAFT_OK && !exists(current))
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "--store %s: there is no store",
                         settings->store);
    if (status == GRAFT_OK)
        status = folder_is_empty(target, &empty, err);
    if (status == GRAFT_OK && !empty)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_EXISTS, "--backup %s: the folder is not empty",
                         target);
    if (status == GRAFT_OK && exists(partial))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_EXISTS,
                         "%s was left by a backup that was cut off; remove it", partial);
    if (status == GRAFT_OK)
        status = copy_store(settings, store_path, partial, err);
    FAILPOINT("backup.copied");
    if (status == GRAFT_OK)
        status = publish(partial, target, err);
    return status == GRAFT_OK ? status : error_context(err, status, "backup to %s", target);
}
