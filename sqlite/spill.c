// SPDX-License-Identifier: Apache-2.0
#include "sqlite/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum graft_status spill_open(const char *folder, int *ret_fd, struct graft_error *err)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        // Not every file system has files without a name from birth.
        char path[PATH_MAX];
        int size = snprintf(path, sizeof path, "%s/spill-XXXXXX", folder);
        if (size < 0 || (size_t)size >= sizeof path)
            return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "the path of %s is too long", folder);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            unlink(path);
    }
    if (fd < 0)
        return error_from_errno(err, errno, "making a temporary file in %s", folder);
    *ret_fd = fd;
    return GRAFT_OK;
}
