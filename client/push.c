// SPDX-License-Identifier: Apache-2.0
#include "client/push.h"

#include "client/patience.h"
#include "client/push_internal.h"
#include "client/push_send.h"
#include "client/push_upload.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/random.h"

#define UPLOADS_MAX 3u // of one call, before it leaves the rest to the next

static const char *vid_text(const struct push_run *run, struct gid_text *text)
{
    *text = gid_format(&run->volume->source.vid);
    return text->text;
}

struct store_state push_look(struct push_run *run)
{
    struct store_state state;

    store_volume_state(run->volume->store, &state);
    run->push = state.push;
    return state;
}

enum graft_status push_create(struct push_run *run, const struct store_remote *base, struct graft_error *err)
{
    const struct fetch_source *source = &run->volume->source;
    struct snapshot head;
    struct patience patience;
    struct graft_error why;

    if (base->lsn != 0 || run->created)
        return GRAFT_OK;
    patience_init(&patience, run->volume->client->remote.http, run->patience_ms);
    while (remote_create_volume(&run->volume->client->remote, &source->vid, source->page_size,
                                source->variable, &head, &run->volume->retry_after_ms, &why) != GRAFT_OK) {
        // Only the commit's answer, which is about its token, may say that it will never land.
        if (why.detail == GRAFT_DETAIL_DELETED)
            break;
        if (!patience_wait(&patience, &why, run->volume->retry_after_ms)) {
            error_copy(err, &why);
            return error_context(err, why.status, "making the volume known to the servers");
        }
    }
    FAILPOINT("push.created");
    run->created = true;
    return GRAFT_OK;
}

// IDLE → UPLOADING.
static enum graft_status push_begin(struct push_run *run, struct graft_error *err)
{
    struct token token;

    random_bytes(token.bytes, TOKEN_SIZE);
    return store_push_begin(run->volume->store, &token, &run->push, err);
}

enum graft_status push_corrupt(struct push_run *run, const struct graft_error *why, struct graft_error *err)
{
    enum graft_status status = store_set_status(run->volume->store, GRAFT_VOLUME_CORRUPT, why, err);
    return status != GRAFT_OK ? status : error_copy(err, why);
}

// UPLOADING → COMMITTING.
static enum graft_status push_upload_step(struct push_run *run, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer request = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    struct hash128 digest;
    struct graft_error why;

    enum graft_status status = push_create(run, &run->push.base, err);
    if (status == GRAFT_OK)
        status = push_upload(run->volume, &run->push, run->patience_ms, &request, &digest, err);
    if (status != GRAFT_OK)
        return status;
    status = store_push_committing(run->volume->store, &digest, buffer_bytes(&request), &why);
    if (status == GRAFT_CORRUPT)
        return push_corrupt(run, &why, err);
    return status == GRAFT_OK ? status : error_copy(err, &why);
}

// The volume's status says why the push has no answer, until it has.
static void note_unknown(struct push_run *run, const struct graft_error *why)
{
    struct store_state state = push_look(run);

    if (state.status == GRAFT_VOLUME_OK ||
        (state.status == GRAFT_VOLUME_UNKNOWN && state.status_error.detail != why->detail))
        store_set_status(run->volume->store, GRAFT_VOLUME_UNKNOWN, why, NULL);
}

enum graft_status push_commit_step(struct push_run *run, uint32_t patience_ms, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer request = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    struct store_volume *store = run->volume->store;
    struct store_remote landed;
    struct graft_error why;
    bool sent;

    // Only the commit's own answer settles anything: what becomes of this call is not asked.
    push_create(run, &run->push.base, NULL);
    enum graft_status status = store_push_request(store, &request, err);
    if (status != GRAFT_OK)
        return status;
    struct push_message message = {buffer_bytes(&request), run->push.base, run->push.token, run->push.digest,
                                   run->push.page_count};
    run->asked = true;
    switch (push_send(run->volume, &message, patience_ms, &landed, &sent, &why)) {
    case ANSWER_LANDED:
        return store_push_settle(store, &landed, err);
    case ANSWER_REJECTED:
        status = store_push_reject(store, &why, err);
        return status != GRAFT_OK ? status : error_copy(err, &why);
    case ANSWER_SEGMENT_GONE:
        if (run->push.phase == STORE_PUSH_COMMITTING)
            return store_push_retreat(store, err);
        break;
    case ANSWER_CORRUPT:
        return push_corrupt(run, &why, err);
    case ANSWER_GONE:
        store_set_status(store, GRAFT_VOLUME_GONE, &why, NULL);
        break;
    case ANSWER_PENDING:
        note_unknown(run, &why);
        break;
    }
    error_copy(err, &why);
    return error_context(err, why.status, "the push is still pending");
}

static enum graft_status push_drive(struct push_run *run, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;

    for (unsigned uploads = 0; status == GRAFT_OK;) {
        struct store_state state = push_look(run);
        switch (state.push.phase) {
        case STORE_PUSH_IDLE:
            // A fence may have ended it.
            return state.status == GRAFT_VOLUME_OK ? GRAFT_OK : error_copy(err, &state.status_error);
        case STORE_PUSH_UPLOADING:
            if (uploads++ == UPLOADS_MAX)
                return error_set(
                    err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_SEGMENT_GONE,
                    "uploaded %u times, and the segments were gone before they could be committed; the "
                    "push is still pending",
                    UPLOADS_MAX);
            status = push_upload_step(run, err);
            break;
        case STORE_PUSH_COMMITTING:
            status = push_commit_step(run, run->patience_ms, err);
            break;
        case STORE_PUSH_FENCING:
            status = push_fence_step(run, err);
            break;
        }
    }
    return status;
}

// What keeps a volume from pushing until the user chooses.
static enum graft_status check_pushable(const struct store_state *state, struct graft_error *err)
{
    bool stuck = state->status == GRAFT_VOLUME_CORRUPT || state->status == GRAFT_VOLUME_REJECTED ||
                 (state->status == GRAFT_VOLUME_GONE && state->push.phase == STORE_PUSH_IDLE);

    if (!stuck)
        return GRAFT_OK;
    error_copy(err, &state->status_error);
    return error_context(err, state->status_error.status, "the volume is %s; %s",
                         graft_volume_status_text(state->status), graft_volume_status_advice(state->status));
}

enum graft_status push_run(struct graft_volume *volume, uint32_t patience_ms, uint64_t *ret_remote_lsn,
                           struct graft_error *err)
{
    struct push_run run = {.volume = volume, .patience_ms = patience_ms};
    struct store_state state;
    struct gid_text text;

    store_volume_state(volume->store, &state);
    enum graft_status status = check_pushable(&state, err);
    if (status == GRAFT_OK && state.push.phase == STORE_PUSH_IDLE) {
        if (state.local_lsn > state.mapped_lsn)
            status = push_begin(&run, err);
        else
            status = push_create(&run, &state.remote, err);
    }
    if (status == GRAFT_OK)
        status = push_drive(&run, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "pushing volume %s", vid_text(&run, &text));
    store_volume_state(volume->store, &state);
    if (ret_remote_lsn)
        *ret_remote_lsn = state.remote.lsn;
    return GRAFT_OK;
}

enum graft_status push_all(struct graft_volume *volume, uint32_t patience_ms, struct graft_error *err)
{
    struct store_state state;

    store_volume_state(volume->store, &state);
    uint64_t upto = state.local_lsn;
    do {
        enum graft_status status = push_run(volume, patience_ms, NULL, err);
        if (status != GRAFT_OK)
            return status;
        store_volume_state(volume->store, &state);
    } while (state.mapped_lsn < upto);
    return GRAFT_OK;
}

enum graft_status graft_push(struct graft_volume *volume, uint64_t *ret_remote_lsn, struct graft_error *err)
{
    REQUIRE(volume);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    TURN_GUARD(volume);
    return push_run(volume, volume->client->remote.deadline_ms, ret_remote_lsn, err);
}
