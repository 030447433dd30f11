// SPDX-License-Identifier: Apache-2.0
#include "client/push_fence.h"

#include "client/push_internal.h"
#include "client/push_send.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/random.h"

#define FENCE_REQUEST_SIZE_MAX (4 * KIB)

// ---- the void commit ----------------------------------------------------------------------------

static struct hash128 fence_digest(const struct push_run *run)
{
    const struct store_remote *base = &run->push.base;
    return commit_digest_finish(
        commit_digest_new(&run->volume->source.vid, base->lsn, base->page_count, base->page_count, 0));
}

// → FENCING, with a request that is kept from now on.
static enum graft_status fence_begin(struct push_run *run, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(FENCE_REQUEST_SIZE_MAX);
    Graft__CommitRequest request = GRAFT__COMMIT_REQUEST__INIT;
    const struct store_remote *base = &run->push.base;
    const struct hash128 digest = fence_digest(run);
    struct token token;

    random_bytes(token.bytes, TOKEN_SIZE);
    request.vid = binary_of(run->volume->source.vid.bytes, GID_SIZE);
    request.base_lsn = base->lsn;
    request.base_chain = binary_of(base->chain.bytes, HASH_SIZE);
    request.token = binary_of(token.bytes, TOKEN_SIZE);
    request.digest = binary_of(digest.bytes, HASH_SIZE);
    request.cid = binary_of(store_cid(run->volume->client->store)->bytes, GID_SIZE);
    request.page_count = base->page_count;
    request.cut = base->page_count;
    enum graft_status status = message_encode(&request.base, &bytes, err);
    if (status == GRAFT_OK)
        status = store_push_fence(run->volume->store, buffer_bytes(&bytes), err);
    return status;
}

// Reads the request that was kept. The message borrows from `bytes`.
static enum graft_status fence_load(const struct push_run *run, struct buffer *bytes,
                                    struct push_message *ret_message, struct graft_error *err)
{
    struct token token = {0};
    MESSAGE_GUARD(message);

    enum graft_status status = store_push_fence_request(run->volume->store, bytes, err);
    if (status == GRAFT_OK)
        status = message_decode(&graft__commit_request__descriptor, buffer_bytes(bytes),
                                16 * FENCE_REQUEST_SIZE_MAX, &message, err);
    if (status == GRAFT_OK)
        status = token_from_bytes(bytes_of(&((Graft__CommitRequest *)message)->token), "token", &token, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "reading the void commit that was kept");
    *ret_message = (struct push_message){buffer_bytes(bytes), run->push.base, token, fence_digest(run),
                                         run->push.base.page_count};
    return GRAFT_OK;
}

static enum graft_status fence_stands(struct push_run *run, const struct store_remote *landed,
                                      struct graft_error *err)
{
    struct graft_error why;

    store_note_remote(run->volume->store, landed->lsn, NULL);
    error_set(
        &why, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
        "a push on LSN %llu had no answer and was given up; LSN %llu is a void commit that keeps it from "
        "landing late",
        (unsigned long long)run->push.base.lsn, (unsigned long long)landed->lsn);
    return store_push_give_up(run->volume->store, GRAFT_VOLUME_REJECTED, &why, err);
}

// FENCING: sends the void commit. `drop`: what became of the push is not asked for.
static enum graft_status fence_send(struct push_run *run, bool drop, bool fresh, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer bytes = BUFFER_INIT(FENCE_REQUEST_SIZE_MAX);
    struct store_volume *store = run->volume->store;
    struct push_message message;
    struct store_remote landed;
    struct graft_error why;
    bool sent;

    enum graft_status status = fence_load(run, &bytes, &message, err);
    if (status != GRAFT_OK)
        return status;
    push_create(run, &run->push.base, NULL);
    switch (push_send(run->volume, &message, run->patience_ms, &landed, &sent, &why)) {
    case ANSWER_LANDED:
        return fence_stands(run, &landed, err);
    case ANSWER_GONE:
        return store_push_give_up(store, GRAFT_VOLUME_GONE, &why, err);
    case ANSWER_REJECTED:
        run->fenced = true;
        run->asked = false;
        return drop ? store_push_give_up(store, GRAFT_VOLUME_REJECTED, &why, err)
                    : store_push_unfence(store, err);
    case ANSWER_CORRUPT:
        // The base is not of the servers' history, so nothing that rests on it lands there.
        return drop ? store_push_give_up(store, GRAFT_VOLUME_CORRUPT, &why, err)
                    : push_corrupt(run, &why, err);
    case ANSWER_SEGMENT_GONE:
    case ANSWER_PENDING:
        break;
    }
    // A fence that was never sent must not be sent later by a push that was not asked to give up.
    if (fresh && !sent) {
        status = store_push_unfence(store, err);
        if (status != GRAFT_OK)
            return status;
    }
    error_copy(err, &why);
    return error_context(err, why.status, "sending a void commit in its place");
}

enum graft_status push_fence_step(struct push_run *run, struct graft_error *err)
{
    struct graft_error why;

    if (!run->asked) {
        enum graft_status status = push_commit_step(run, 0, &why);
        if (push_look(run).push.phase != STORE_PUSH_FENCING || status == GRAFT_CORRUPT ||
            status == GRAFT_INTERNAL)
            return status == GRAFT_OK ? status : error_copy(err, &why);
    }
    return fence_send(run, false, false, err);
}

// ---- settling it for good -----------------------------------------------------------------------

static enum graft_status refuse(const struct push_run *run, const struct graft_error *why,
                                struct graft_error *err)
{
    error_copy(err, why);
    if (why->status == GRAFT_INTERNAL || why->status == GRAFT_CORRUPT)
        return why->status;
    error_context(
        err, why->status,
        "a push of volume %s has no answer, and what it sent may still land; that cannot be settled "
        "without the servers",
        gid_format(&run->volume->source.vid).text);
    if (err) {
        err->status = GRAFT_BUSY;
        err->detail = GRAFT_DETAIL_PUSH_PENDING;
    }
    return GRAFT_BUSY;
}

// COMMITTING: asks again; where nothing comes of it, begins a fence and sends it.
static enum graft_status resolve_committing(struct push_run *run, struct graft_error *err)
{
    struct graft_error why;

    enum graft_status status = push_commit_step(run, run->patience_ms, &why);
    if (push_look(run).push.phase != STORE_PUSH_COMMITTING)
        return GRAFT_OK; // landed, rejected, or to be fenced where it went
    if (status == GRAFT_CORRUPT || status == GRAFT_INTERNAL || run->fenced ||
        why.detail == GRAFT_DETAIL_UNREACHABLE)
        return error_copy(err, &why);
    status = fence_begin(run, err);
    push_look(run);
    return status == GRAFT_OK ? fence_send(run, false, true, err) : status;
}

enum graft_status push_resolve(struct graft_volume *volume, uint32_t patience_ms, struct graft_error *err)
{
    struct push_run run = {.volume = volume, .patience_ms = patience_ms};
    enum graft_status status = GRAFT_OK;
    struct graft_error why;

    while (status == GRAFT_OK && push_look(&run).push.phase != STORE_PUSH_IDLE) {
        switch (run.push.phase) {
        case STORE_PUSH_IDLE:
            break;
        case STORE_PUSH_UPLOADING:
            if (!run.push.sent)
                return store_push_abandon(volume->store, err);
            status = fence_begin(&run, &why);
            if (status == GRAFT_OK) {
                push_look(&run);
                status = fence_send(&run, false, true, &why);
            }
            break;
        case STORE_PUSH_COMMITTING:
            status = resolve_committing(&run, &why);
            break;
        case STORE_PUSH_FENCING:
            status = push_fence_step(&run, &why);
            break;
        }
    }
    return status == GRAFT_OK || push_look(&run).push.phase == STORE_PUSH_IDLE ? GRAFT_OK
                                                                               : refuse(&run, &why, err);
}

enum graft_status push_drop(struct graft_volume *volume, uint32_t patience_ms, struct graft_error *err)
{
    struct push_run run = {.volume = volume, .patience_ms = patience_ms};
    enum graft_status status = GRAFT_OK;
    struct graft_error why;
    bool fresh = false;

    if (push_look(&run).push.phase == STORE_PUSH_IDLE)
        return GRAFT_OK;
    if (!run.push.sent)
        return store_push_abandon(volume->store, err);
    if (run.push.phase != STORE_PUSH_FENCING) {
        status = fence_begin(&run, err);
        fresh = true;
        push_look(&run);
    }
    if (status != GRAFT_OK)
        return status;
    status = fence_send(&run, true, fresh, &why);
    return status == GRAFT_OK ? status : refuse(&run, &why, err);
}
