// SPDX-License-Identifier: Apache-2.0
#include "common/base/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/compiler.h"
#include "common/base/failpoint.h"
#include "common/base/files.h"

#define PATH_SIZE 4096
#define COPY_SIZE (256u * 1024)

static void close_p(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static void closedir_p(DIR **folder)
{
    if (*folder)
        closedir(*folder);
}

static enum graft_status join(const char *folder, const char *name, char to[PATH_SIZE],
                              struct graft_error *err)
{
    if (snprintf(to, PATH_SIZE, "%s/%s", folder, name) < PATH_SIZE)
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the path %s/%s is longer than %d",
                     folder, name, PATH_SIZE - 1);
}

// Calls `visit` for each entry but "." and "..".
static enum graft_status
each(const char *path, enum graft_status (*visit)(void *context, const char *name, struct graft_error *err),
     void *context, struct graft_error *err)
{
    _cleanup_(closedir_p) DIR *folder = opendir(path);
    if (!folder)
        return error_from_errno(err, errno, "opening the folder %s", path);
    enum graft_status status = GRAFT_OK;
    while (status == GRAFT_OK) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry && errno != 0)
            return error_from_errno(err, errno, "reading the folder %s", path);
        if (!entry)
            return GRAFT_OK;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = visit(context, entry->d_name, err);
    }
    return status;
}

static enum graft_status note_entry(void *context, const char *name, struct graft_error *err)
{
    (void)name;
    (void)err;
    *(bool *)context = false;
    return GRAFT_OK;
}

enum graft_status folder_is_empty(const char *path, bool *ret_empty, struct graft_error *err)
{
    struct stat there;
    bool empty = true;
    enum graft_status status = GRAFT_OK;
    if (lstat(path, &there) == 0)
        status = each(path, note_entry, &empty, err);
    else if (errno != ENOENT)
        status = error_from_errno(err, errno, "looking at %s", path);
    if (status == GRAFT_OK)
        *ret_empty = empty;
    return status;
}

// ---- copying

struct copying {
    const char *from, *to;
    bool (*skip)(const char *name);
    uint8_t *block;
};

static enum graft_status copy_bytes(int from, const char *from_path, int to, const char *to_path,
                                    uint8_t *block, struct graft_error *err)
{
    for (uint64_t offset = 0;;) {
        size_t size;
        enum graft_status status = files_pread_all(from, block, COPY_SIZE, offset, from_path, &size, err);
        if (status == GRAFT_OK && size > 0)
            status = files_pwrite_all(to, block, size, offset, to_path, err);
        if (status != GRAFT_OK)
            return status;
        offset += size;
        if (size == COPY_SIZE)
            continue;
        status = FAILPOINT_ERROR("folder.copy.sync", err);
        if (status == GRAFT_OK && fdatasync(to) != 0)
            status = error_from_errno(err, errno, "syncing %s", to_path);
        FAILPOINT("folder.copy.synced");
        return status;
    }
}

static enum graft_status copy_one(void *context, const char *name, struct graft_error *err)
{
    const struct copying *copying = context;
    char from_path[PATH_SIZE], to_path[PATH_SIZE];
    struct stat there;
    if (copying->skip && copying->skip(name))
        return GRAFT_OK;
    enum graft_status status = join(copying->from, name, from_path, err);
    if (status == GRAFT_OK)
        status = join(copying->to, name, to_path, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(close_p) int from = open(from_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0 || fstat(from, &there) != 0)
        return error_from_errno(err, errno, "opening %s", from_path);
    if (!S_ISREG(there.st_mode))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s is no file", from_path);
    _cleanup_(close_p) int to = open(to_path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return error_from_errno(err, errno, "making %s", to_path);
    return copy_bytes(from, from_path, to, to_path, copying->block, err);
}

enum graft_status folder_copy_files(const char *from, const char *to, bool (*skip)(const char *name),
                                    struct graft_error *err)
{
    _cleanup_(free_p) uint8_t *block = malloc(COPY_SIZE);
    if (!block)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to copy files");
    struct copying copying = {from, to, skip, block};
    enum graft_status status = each(from, copy_one, &copying, err);
    return status == GRAFT_OK ? files_sync_folder(to, err) : status;
}

// ---- removing

struct removing {
    const char *path;
    bool (*keep)(const char *name);
};

static enum graft_status remove_one(void *context, const char *name, struct graft_error *err)
{
    const struct removing *removing = context;
    char path[PATH_SIZE];
    if (removing->keep && removing->keep(name))
        return GRAFT_OK;
    enum graft_status status = join(removing->path, name, path, err);
    if (status == GRAFT_OK && unlink(path) != 0 && errno != ENOENT)
        status = error_from_errno(err, errno, "removing %s", path);
    return status;
}

enum graft_status folder_remove_files(const char *path, bool (*keep)(const char *name),
                                      struct graft_error *err)
{
    struct removing removing = {path, keep};
    enum graft_status status = each(path, remove_one, &removing, err);
    return status == GRAFT_OK ? files_sync_folder(path, err) : status;
}

enum graft_status folder_remove(const char *path, struct graft_error *err)
{
    struct stat there;
    if (lstat(path, &there) != 0 && errno == ENOENT)
        return GRAFT_OK;
    enum graft_status status = folder_remove_files(path, NULL, err);
    if (status == GRAFT_OK && rmdir(path) != 0)
        status = error_from_errno(err, errno, "removing the folder %s", path);
    return status;
}
