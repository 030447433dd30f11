// SPDX-License-Identifier: Apache-2.0
//
// Pull and sync. The servers are asked with the (LSN, chain) that this replica is based on; the store
// applies the answer only if it still is.
#include "client/pull.h"

#include "client/push.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

enum graft_status pull_ask(struct graft_volume *volume, const struct store_state *state,
                           struct remote_pull *ret_pull, struct graft_error *err)
{
    const struct gid *vid = &volume->source.vid;
    struct graft_error why;

    enum graft_status status = remote_pull(&volume->client->remote, vid, state->remote.lsn,
                                           &state->remote.chain, ret_pull, &volume->retry_after_ms, &why);
    if (status == GRAFT_OK && (ret_pull->head.page_size != volume->source.page_size ||
                               ret_pull->head.variable != volume->source.variable)) {
        remote_pull_release(ret_pull);
        status = error_set(&why, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                           "on the servers the volume has another page size or kind than here");
    }
    if (status == GRAFT_OK && ret_pull->head.deleted) {
        remote_pull_release(ret_pull);
        status = error_set(&why, GRAFT_GONE, GRAFT_DETAIL_DELETED, "the volume was deleted on the servers");
    }
    if (status == GRAFT_OK)
        return GRAFT_OK;
    // This replica has a commit that the servers do not know.
    if (why.detail == GRAFT_DETAIL_BEYOND_HEAD)
        error_set(&why, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                  "that is beyond the servers' head: the metastore was restored from an older copy; `reset "
                  "--reattach` follows it");
    if (why.detail == GRAFT_DETAIL_CHAIN_MISMATCH) {
        why.status = status = GRAFT_CORRUPT;
        store_set_status(volume->store, GRAFT_VOLUME_CORRUPT, &why, NULL);
    }
    error_copy(err, &why);
    return error_context(err, status, "asking what changed in volume %s since LSN %llu", gid_format(vid).text,
                         (unsigned long long)state->remote.lsn);
}

struct store_pull pull_for_store(const struct store_state *state, const struct remote_pull *pull)
{
    return (struct store_pull){
        .after_lsn = state->remote.lsn,
        .head = {pull->head.lsn, pull->head.chain, pull->head.page_count},
        .changed = pull->changed,
        .cut = pull->cut,
        .everything = pull->everything,
    };
}

enum graft_status pull_run(struct graft_volume *volume, uint64_t *ret_changed, struct graft_error *err)
{
    struct store_state state;
    _cleanup_(remote_pull_release) struct remote_pull pull = {0};

    store_volume_state(volume->store, &state);
    if (state.status == GRAFT_VOLUME_CORRUPT) {
        error_copy(err, &state.status_error);
        return error_context(err, state.status_error.status, "volume %s is corrupt; %s",
                             gid_format(&volume->source.vid).text, graft_volume_status_advice(state.status));
    }
    enum graft_status status = pull_ask(volume, &state, &pull, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("pull.answered");
    struct store_pull apply = pull_for_store(&state, &pull);
    status = volume_apply_begin(volume, pull.everything, err);
    if (status == GRAFT_OK) {
        status = store_apply_pull(volume->store, &apply, err);
        volume_apply_end(volume);
    }
    if (status != GRAFT_OK)
        return error_context(err, status, "pulling volume %s", gid_format(&volume->source.vid).text);
    if (ret_changed && pull.head.lsn == state.remote.lsn)
        *ret_changed = 0;
    else if (ret_changed)
        *ret_changed = pull.everything ? pull.head.page_count : pageset_count(pull.changed);
    return GRAFT_OK;
}

enum graft_status graft_pull(struct graft_volume *volume, uint64_t *ret_changed, struct graft_error *err)
{
    REQUIRE(volume);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    TURN_GUARD(volume);
    return pull_run(volume, ret_changed, err);
}

enum graft_status graft_sync(struct graft_volume *volume, struct graft_error *err)
{
    REQUIRE(volume);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    TURN_GUARD(volume);
    status = push_all(volume, volume->client->remote.deadline_ms, err);
    return status == GRAFT_OK ? pull_run(volume, NULL, err) : status;
}
