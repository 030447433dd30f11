// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into a daemon: while the file $FAILING_SYNC exists, calls fail with EIO, the way a disk that lost a write tells of
// it. Those are fsync() and fdatasync(), or, where $FAILING_WRITE names a folder, write() to files below it.
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static bool fails_now(void)
{
    const char *trigger = getenv("FAILING_SYNC");
    return trigger && access(trigger, F_OK) == 0;
}

static int sync_or_fail(int fd, const char *name)
{
    if (!getenv("FAILING_WRITE") && fails_now()) {
        errno = EIO;
        return -1;
    }
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return next(fd);
}

EXPORT int fdatasync(int fd)
{
    return sync_or_fail(fd, "fdatasync");
}

EXPORT int fsync(int fd)
{
    return sync_or_fail(fd, "fsync");
}

static bool is_below(int fd, const char *folder)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path);
    size_t folder_size = strlen(folder);
    return size > (ssize_t)folder_size && memcmp(path, folder, folder_size) == 0 && path[folder_size] == '/';
}

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    const char *folder = getenv("FAILING_WRITE");
    if (folder && is_below(fd, folder) && fails_now()) {
        errno = EIO;
        return -1;
    }
    ssize_t (*next)(int, const void *, size_t) =
        (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return next(fd, data, size);
}
