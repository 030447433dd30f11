// SPDX-License-Identifier: Apache-2.0
#include "common/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"

static void close_p(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static enum graft_status path_copy(const char *path, char to[PATH_MAX], struct graft_error *err)
{
    size_t size = strlen(path) + 1;
    if (size > PATH_MAX)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "a path of %zu bytes is longer than %d: %s", size - 1, PATH_MAX - 1, path);
    memcpy(to, path, size);
    return GRAFT_OK;
}

// The folder that `path` is in: "." where it has no slash.
static enum graft_status parent_of(const char *path, char to[PATH_MAX], struct graft_error *err)
{
    enum graft_status status = path_copy(path, to, err);
    if (status != GRAFT_OK)
        return status;
    size_t size = strlen(to);
    while (size > 1 && to[size - 1] == '/')
        to[--size] = '\0';
    char *slash = strrchr(to, '/');
    if (!slash)
        strcpy(to, ".");
    else if (slash == to)
        to[1] = '\0';
    else
        *slash = '\0';
    return GRAFT_OK;
}

static enum graft_status make_one(const char *path, struct graft_error *err)
{
    if (mkdir(path, 0700) == 0) {
        char parent[PATH_MAX];
        enum graft_status status = parent_of(path, parent, err);
        return status == GRAFT_OK ? files_sync_folder(parent, err) : status;
    }
    int reason = errno;
    struct stat existing;
    if (stat(path, &existing) != 0)
        return error_from_errno(err, reason, "making the folder %s", path);
    if (!S_ISDIR(existing.st_mode))
        return error_from_errno(err, ENOTDIR, "making the folder %s", path);
    return GRAFT_OK;
}

enum graft_status files_make_folder(const char *path, struct graft_error *err)
{
    char prefix[PATH_MAX];
    enum graft_status status = path_copy(path, prefix, err);
    for (char *place = prefix + 1; status == GRAFT_OK && prefix[0] != '\0' && *place; place++) {
        if (*place == '/' && place[-1] != '/') {
            *place = '\0';
            status = make_one(prefix, err);
            *place = '/';
        }
    }
    return status == GRAFT_OK ? make_one(path, err) : status;
}

enum graft_status files_sync_folder(const char *path, struct graft_error *err)
{
    _cleanup_(close_p) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_from_errno(err, errno, "opening the folder %s", path);
    if (fsync(fd) != 0)
        return error_from_errno(err, errno, "syncing the folder %s", path);
    return GRAFT_OK;
}

enum graft_status files_read(const char *path, struct buffer *to, struct graft_error *err)
{
    _cleanup_(close_p) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_from_errno(err, errno, "opening %s", path);
    size_t size_before = to->size;
    for (;;) {
        uint8_t block[8192];
        ssize_t got = read(fd, block, sizeof block);
        if (got == 0)
            return GRAFT_OK;
        if (got < 0 && errno == EINTR)
            continue;
        enum graft_status status = got < 0 ? error_from_errno(err, errno, "reading %s", path)
                                           : buffer_append(to, block, (size_t)got, err);
        if (status != GRAFT_OK) {
            to->size = size_before;
            return got < 0 ? status : error_context(err, status, "reading %s", path);
        }
    }
}

// What happens between the creation of the file beside and its rename.
static enum graft_status write_beside(const char *beside, const void *data, size_t size,
                                      struct graft_error *err)
{
    _cleanup_(close_p) int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_from_errno(err, errno, "creating %s", beside);
    enum graft_status status = files_pwrite_all(fd, data, size, 0, beside, err);
    if (status != GRAFT_OK)
        return status;
    if (fsync(fd) != 0)
        return error_from_errno(err, errno, "syncing %s", beside);
    FAILPOINT("files.replace.written");
    return GRAFT_OK;
}

enum graft_status files_replace(const char *path, const void *data, size_t size, struct graft_error *err)
{
    char parent[PATH_MAX], beside[PATH_MAX];
    enum graft_status status = parent_of(path, parent, err);
    if (status != GRAFT_OK)
        return status;
    if ((size_t)snprintf(beside, sizeof beside, "%s" FILES_REPLACE_BESIDE, path) >= sizeof beside)
        return error_from_errno(err, ENAMETOOLONG, "creating a file beside %s", path);

    status = write_beside(beside, data, size, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("files.replace.rename", err);
    if (status == GRAFT_OK && rename(beside, path) != 0)
        status = error_from_errno(err, errno, "renaming %s to %s", beside, path);
    if (status != GRAFT_OK) {
        unlink(beside);
        return status;
    }
    FAILPOINT("files.replace.renamed");
    return files_sync_folder(parent, err);
}

enum graft_status files_pwrite_all(int fd, const void *data, size_t size, uint64_t offset, const char *path,
                                   struct graft_error *err)
{
    const uint8_t *from = data;
    while (size > 0) {
        ssize_t written = pwrite(fd, from, size, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return error_from_errno(err, written < 0 ? errno : EIO, "writing %zu bytes at %llu of %s", size,
                                    (unsigned long long)offset, path);
        from += written;
        size -= (size_t)written;
        offset += (uint64_t)written;
    }
    return GRAFT_OK;
}

enum graft_status files_pread_all(int fd, void *to, size_t size, uint64_t offset, const char *path,
                                  size_t *ret_size, struct graft_error *err)
{
    uint8_t *place = to;
    size_t total = 0;
    while (total < size) {
        ssize_t got = pread(fd, place + total, size - total, (off_t)(offset + total));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_from_errno(err, errno, "reading %zu bytes at %llu of %s", size,
                                    (unsigned long long)offset, path);
        if (got == 0)
            break;
        total += (size_t)got;
    }
    *ret_size = total;
    return GRAFT_OK;
}

static long long read_holder(int fd)
{
    char text[24] = {0};
    return pread(fd, text, sizeof text - 1, 0) > 0 ? strtoll(text, NULL, 10) : 0;
}

enum graft_status files_lock(const char *path, int *ret_fd, struct graft_error *err)
{
    _cleanup_(close_p) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_from_errno(err, errno, "opening the lock file %s", path);
    int result;
    do
        result = flock(fd, LOCK_EX | LOCK_NB);
    while (result != 0 && errno == EINTR);
    if (result != 0 && errno == EWOULDBLOCK)
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_LOCKED,
                         "%s is locked by process %lld: stop it, or use another directory", path,
                         read_holder(fd));
    if (result != 0)
        return error_from_errno(err, errno, "locking %s", path);

    char pid[24];
    int size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0)
        return error_from_errno(err, errno, "writing the process id to %s", path);
    enum graft_status status = files_pwrite_all(fd, pid, (size_t)size, 0, path, err);
    if (status != GRAFT_OK)
        return status;
    *ret_fd = fd;
    fd = -1;
    return GRAFT_OK;
}

enum graft_status files_free_space(const char *path, uint64_t *ret_bytes, struct graft_error *err)
{
    struct statvfs fs;
    if (statvfs(path, &fs) != 0)
        return error_from_errno(err, errno, "asking for the free space at %s", path);
    *ret_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return GRAFT_OK;
}
