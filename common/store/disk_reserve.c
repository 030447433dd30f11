// SPDX-License-Identifier: Apache-2.0
#include "common/store/disk_reserve.h"

#include "common/base/clock.h"
#include "common/base/files.h"
#include "common/base/limits.h"

#define LOOK_EVERY_US 1000000u

void disk_reserve_init(struct disk_reserve *reserve, const char *path, uint64_t size)
{
    *reserve = (struct disk_reserve){.path = path, .size = size};
    mutex_init(&reserve->lock, RANK_LEAF);
}

void disk_reserve_release(struct disk_reserve *reserve)
{
    mutex_release(&reserve->lock);
}

static enum graft_status look_locked(struct disk_reserve *reserve, uint64_t now_us, struct graft_error *err)
{
    uint64_t available;
    enum graft_status status = files_free_space(reserve->path, &available, err);
    if (status != GRAFT_OK)
        return status;
    reserve->usable = available > reserve->size ? available - reserve->size : 0;
    reserve->checked_us = now_us;
    return GRAFT_OK;
}

enum graft_status disk_reserve_take(struct disk_reserve *reserve, uint64_t size, struct graft_error *err)
{
    if (reserve->size == 0)
        return GRAFT_OK;
    uint64_t now_us = clock_monotonic_us(clock_system());
    LOCK_GUARD(&reserve->lock);
    if (now_us - reserve->checked_us >= LOOK_EVERY_US || reserve->usable <= size) {
        enum graft_status status = look_locked(reserve, now_us, err);
        if (status != GRAFT_OK)
            return status;
    }
    if (reserve->usable <= size)
        return error_set(
            err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE,
            "no room for %llu bytes on the disk of %s: the last %llu MiB are kept free; make room there",
            (unsigned long long)size, reserve->path, (unsigned long long)(reserve->size / MIB));
    reserve->usable -= size;
    return GRAFT_OK;
}
