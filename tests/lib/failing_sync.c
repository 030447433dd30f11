// SPDX-License-Identifier: Apache-2.0
//
// Preloaded into a daemon: while the file $FAILING_SYNC exists, fsync() and fdatasync() fail with EIO, the way a disk that
// lost a write tells of it.
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int sync_or_fail(int fd, const char *name)
{
    const char *trigger = getenv("FAILING_SYNC");
    if (trigger && access(trigger, F_OK) == 0) {
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
