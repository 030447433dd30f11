// SPDX-License-Identifier: Apache-2.0
//
// Dropping local commits: to the servers' head along their common history, or, reattached, to whatever history
// the servers have.
#include "client/pull.h"
#include "client/push_fence.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

static enum graft_status apply_reset(struct graft_volume *volume, const struct store_pull *apply,
                                     struct graft_error *err)
{
    enum graft_status status = volume_apply_begin(volume, true, err);
    if (status != GRAFT_OK)
        return status;
    status = store_apply_reset(volume->store, apply, err);
    volume_apply_end(volume);
    return status;
}

static enum graft_status reset_along(struct graft_volume *volume, uint64_t *ret_dropped,
                                     struct graft_error *err)
{
    struct store_state state;
    _cleanup_(remote_pull_release) struct remote_pull pull = {0};

    store_volume_state(volume->store, &state);
    if (state.status == GRAFT_VOLUME_CORRUPT) {
        error_copy(err, &state.status_error);
        return error_context(err, state.status_error.status, "the volume is corrupt; %s",
                             graft_volume_status_advice(state.status));
    }
    enum graft_status status = push_resolve(volume, volume->client->remote.deadline_ms, err);
    if (status != GRAFT_OK)
        return status;
    store_volume_state(volume->store, &state);
    status = pull_ask(volume, &state, &pull, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("reset.answered");
    struct store_pull apply = pull_for_store(&state, &pull);
    *ret_dropped = state.local_lsn - state.mapped_lsn;
    return apply_reset(volume, &apply, err);
}

static enum graft_status reattach(struct graft_volume *volume, uint64_t *ret_dropped, struct graft_error *err)
{
    const struct gid *vid = &volume->source.vid;
    struct snapshot head;
    struct store_state state;

    enum graft_status status = push_drop(volume, volume->client->remote.deadline_ms, err);
    if (status == GRAFT_OK)
        status = remote_live_snapshot(&volume->client->remote, vid, 0, &head, err);
    if (status != GRAFT_OK)
        return status;
    if (head.page_size != volume->source.page_size || head.variable != volume->source.variable)
        return error_set(
            err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
            "on the servers the volume has another page size or kind than here; delete the local "
            "replica and clone it");
    store_volume_state(volume->store, &state);
    struct store_pull apply = {
        .after_lsn = state.remote.lsn, .head = {head.lsn, head.chain, head.page_count}, .everything = true};
    *ret_dropped = state.local_lsn - state.mapped_lsn;
    return apply_reset(volume, &apply, err);
}

enum graft_status graft_discard(struct graft_volume *volume, unsigned flags, uint64_t *ret_dropped,
                                struct graft_error *err)
{
    uint64_t dropped = 0;

    REQUIRE(volume);
    if (flags & ~(unsigned)GRAFT_DISCARD_REATTACH)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "graft_discard: unknown flags 0x%x",
                         flags);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    TURN_GUARD(volume);
    status =
        flags & GRAFT_DISCARD_REATTACH ? reattach(volume, &dropped, err) : reset_along(volume, &dropped, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "resetting volume %s", gid_format(&volume->source.vid).text);
    if (ret_dropped)
        *ret_dropped = dropped;
    return GRAFT_OK;
}

enum graft_status graft_reset(struct graft_volume *volume, struct graft_error *err)
{
    return graft_discard(volume, 0, NULL, err);
}
