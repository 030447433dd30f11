// SPDX-License-Identifier: Apache-2.0
//
// A disk for page files (the seam of struct extents_settings) that runs full, fails, writes short, and forgets what was not
// synced. One at a time, for one thread; without a failure planned, for several.
#ifndef TESTS_UNIT_CLIENT_LOSSY_DISK_H
#define TESTS_UNIT_CLIENT_LOSSY_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/base/random.h"

struct lossy_disk {
    size_t step_max;     // bytes that one call writes at most
    size_t room;         // bytes that may still be written, SIZE_MAX: any; then `write_error`
    int write_error;     // ENOSPC, EIO
    unsigned fails_max;  // how many calls fail before all is well again; 0: any number
    unsigned sync_fails; // the next so many syncs fail with EIO
    unsigned sync_us;    // how long a sync takes
    bool remembers;      // notes unsynced writes, for lossy_disk_lose()
    unsigned writes, syncs;
};
extern struct lossy_disk lossy_disk;

void lossy_disk_reset(void); // all is well, nothing is noted
ssize_t lossy_disk_pwritev(int fd, const struct iovec *from, int count, off_t offset);
int lossy_disk_fdatasync(int fd);
// Every sector written since its file was synced is as it was before one of those writes, or after the last, by chance; as is
// a file's size. All files are closed.
void lossy_disk_lose(struct rng *rng);

#endif
