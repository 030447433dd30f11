// SPDX-License-Identifier: Apache-2.0
//
// Forking: the servers fork what they share with this replica, the store copies what they do not have.
#include "client/patience.h"
#include "client/push_fence.h"
#include "common/base/check.h"
#include "common/base/clock.h"

// The servers' part. The call is idempotent, so what passes is tried again.
static enum graft_status fork_remote(struct graft_volume *volume, const struct store_remote *base,
                                     const struct gid *new_vid, struct store_remote *ret_head,
                                     struct graft_error *err)
{
    const struct fetch_source *source = &volume->source;
    const struct remote *remote = &volume->client->remote;
    struct snapshot head;
    struct patience patience;
    struct graft_error why;

    patience_init(&patience, remote->http, remote->deadline_ms);
    while (remote_fork(remote, &source->vid, base->lsn, &base->chain, new_vid, &head, &why) != GRAFT_OK) {
        if (patience_wait(&patience, &why, 0))
            continue;
        error_copy(err, &why);
        if (why.detail == GRAFT_DETAIL_RETIRED)
            return error_context(
                err, why.status,
                "the servers no longer keep LSN %llu, which this volume is based on; `export` "
                "keeps a copy of it",
                (unsigned long long)base->lsn);
        return error_context(err, why.status, "forking LSN %llu on the servers",
                             (unsigned long long)base->lsn);
    }
    if (head.lsn == 0 || head.page_count != base->page_count || head.page_size != source->page_size ||
        head.variable != source->variable)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_PROTOCOL,
                         "the servers' fork of LSN %llu is not what this volume has there",
                         (unsigned long long)base->lsn);
    *ret_head = (struct store_remote){head.lsn, head.chain, head.page_count};
    return GRAFT_OK;
}

static enum graft_status fork_run(struct graft_volume *volume, struct store_volume **ret_fork,
                                  struct graft_error *err)
{
    const struct gid fresh = gid_make(GID_VOLUME, clock_wall_ms(clock_system()));
    struct store_remote head = {.lsn = 0};
    struct store_state state;
    struct gid new_vid;

    store_volume_state(volume->store, &state);
    if (state.status == GRAFT_VOLUME_CORRUPT) {
        error_copy(err, &state.status_error);
        return error_context(err, state.status_error.status, "the volume is corrupt; %s",
                             graft_volume_status_advice(state.status));
    }
    // A push of which the servers cannot know may go on with this volume.
    enum graft_status status =
        state.push.sent ? push_resolve(volume, volume->client->remote.deadline_ms, err) : GRAFT_OK;
    if (status == GRAFT_OK)
        status = store_fork_begin(volume->store, &fresh, &new_vid, err);
    if (status != GRAFT_OK)
        return status;
    store_volume_state(volume->store, &state);
    if (state.remote.lsn > 0)
        status = fork_remote(volume, &state.remote, &new_vid, &head, err);
    return status == GRAFT_OK ? store_fork_finish(volume->store, &new_vid, &head, ret_fork, err) : status;
}

enum graft_status graft_fork(struct graft_volume *volume, struct graft_volume **ret_fork,
                             struct graft_error *err)
{
    // Keeps the volume in place until the shared object holds it.
    _cleanup_(store_volume_close_p) struct store_volume *held = NULL;

    REQUIRE(volume);
    REQUIRE(ret_fork);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    TURN_GUARD(volume);
    status = fork_run(volume, &held, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "forking volume %s", gid_format(&volume->source.vid).text);
    return volume_acquire(volume->client, store_volume_vid(held), ret_fork, err);
}
