// SPDX-License-Identifier: Apache-2.0
//
// Keeps the last of a disk free: writes are refused in time, while there is still room for what a store must do to stay
// readable (a flush, a compaction, an index). Thread-safe.
#ifndef COMMON_STORE_DISK_RESERVE_H
#define COMMON_STORE_DISK_RESERVE_H

#include <stdint.h>

#include "common/base/error.h"
#include "common/base/mutex.h"

struct disk_reserve {
    const char *path;  // on the file system that is watched; outlives this
    uint64_t size;     // 0: nothing is ever refused
    struct mutex lock; // RANK_LEAF; guards what follows
    uint64_t checked_us;
    uint64_t usable; // beyond the reserve: as of the last look, less what was taken since
};

void disk_reserve_init(struct disk_reserve *reserve, const char *path, uint64_t size);
void disk_reserve_release(struct disk_reserve *reserve);

// Asks before writing `size` bytes. INTERNAL / NO_SPACE if they would eat into the reserve. Looks at the file system at
// most once a second, or when what was left at the last look has been taken.
enum graft_status disk_reserve_take(struct disk_reserve *reserve, uint64_t size, struct graft_error *err);

#endif
