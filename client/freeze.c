// SPDX-License-Identifier: Apache-2.0
//
// Who may move a volume's head. A pull or reset is computed by the servers' answer and applied between apply_begin and
// apply_end; a caller that has to see the head stay where it is freezes it, and what would be applied meanwhile is
// refused and comes again. `history` is odd while a reset is being applied: what was read at the same even number on
// both sides of making a pin belongs to one line of commits.
#include "client/client.h"
#include "client/sync.h"
#include "common/base/check.h"

enum graft_status volume_apply_begin(struct graft_volume *volume, bool other_history, struct graft_error *err)
{
    LOCK_GUARD(&volume->turn_lock);
    CHECK(volume->turn_taken && !volume->applying);
    if (volume->freezes > 0) {
        volume->refused = true;
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_FROZEN,
                         "volume %s: a transaction is being written here; it goes first",
                         gid_format(&volume->source.vid).text);
    }
    volume->applying = true;
    volume->applying_other = other_history;
    if (other_history)
        atomic_fetch_add(&volume->history, 1);
    return GRAFT_OK;
}

void volume_apply_end(struct graft_volume *volume)
{
    mutex_lock(&volume->turn_lock);
    CHECK(volume->applying);
    volume->applying = false;
    if (volume->applying_other)
        atomic_fetch_add(&volume->history, 1);
    mutex_unlock(&volume->turn_lock);
    cond_broadcast(&volume->turn_over);
}

uint64_t volume_history(const struct graft_volume *volume)
{
    return atomic_load(&volume->history);
}

uint64_t volume_history_unknown(void)
{
    static atomic_uint_fast64_t unknown = 1ull << 63;
    return atomic_fetch_add(&unknown, 1);
}

enum graft_status graft_freeze(struct graft_volume *volume, struct graft_error *err)
{
    REQUIRE(volume);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&volume->turn_lock);
    while (volume->applying)
        cond_wait(&volume->turn_over, &volume->turn_lock);
    volume->freezes++;
    return GRAFT_OK;
}

void graft_thaw(struct graft_volume *volume)
{
    if (!volume || client_is_forked(volume->client))
        return;
    mutex_lock(&volume->turn_lock);
    CHECK(volume->freezes > 0);
    bool last = --volume->freezes == 0;
    bool refused = last && volume->refused;
    if (last)
        volume->refused = false;
    mutex_unlock(&volume->turn_lock);
    if (refused)
        sync_note_thaw(volume);
}
