// SPDX-License-Identifier: Apache-2.0
#include "client/push.h"

#include "client/patience.h"
#include "client/push_upload.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/random.h"

#define UPLOADS_MAX 3u // of one call, before it leaves the rest to the next

struct push_run {
    struct graft_volume *volume;
    uint32_t patience_ms;
    struct store_push push;
    bool created; // the servers know the volume
};

static const char *vid_text(const struct push_run *run, struct gid_text *text)
{
    *text = gid_format(&run->volume->source.vid);
    return text->text;
}

// The servers learn of the volume before anything is based on nothing.
static enum graft_status push_create(struct push_run *run, const struct store_remote *base,
                                     struct graft_error *err)
{
    const struct fetch_source *source = &run->volume->source;
    struct snapshot head;
    struct patience patience;
    struct graft_error why;

    if (base->lsn != 0 || run->created)
        return GRAFT_OK;
    patience_init(&patience, run->volume->client->remote.http, run->patience_ms);
    while (remote_create_volume(&run->volume->client->remote, &source->vid, source->page_size,
                                source->variable, &head, &why) != GRAFT_OK) {
        // Only the commit's answer, which is about its token, may say that it will never land.
        if (why.detail == GRAFT_DETAIL_DELETED)
            break;
        if (!patience_wait(&patience, &why, 0)) {
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

// Two histories do not match: says so in the volume's status, and returns it.
static enum graft_status push_corrupt(struct push_run *run, const struct graft_error *why,
                                      struct graft_error *err)
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

enum push_answer {
    ANSWER_LANDED,
    ANSWER_REJECTED,
    ANSWER_SEGMENT_GONE,
    ANSWER_CORRUPT,
    ANSWER_GONE,    // the base was retired: settles nothing, and no other answer will come
    ANSWER_PENDING, // settles nothing
};

// What an answer that is not OK means for the token. Only what the metastore itself says about this very
// token settles anything: proxies and other requests' answers do not.
static enum push_answer classify_failure(const struct push_run *run, const struct rpc_failure *failure,
                                         const struct graft_error *error)
{
    if (!failure->answered)
        return ANSWER_PENDING;
    if (error->detail == GRAFT_DETAIL_SEGMENT_GONE)
        return ANSWER_SEGMENT_GONE;
    if (!failure->has_token || !token_equal(&failure->token, &run->push.token))
        return ANSWER_PENDING;
    switch (error->detail) {
    case GRAFT_DETAIL_NOT_HEAD:
    case GRAFT_DETAIL_TOKEN_REUSED:
    case GRAFT_DETAIL_DELETED:
        return ANSWER_REJECTED;
    case GRAFT_DETAIL_CHAIN_MISMATCH:
        return ANSWER_CORRUPT;
    case GRAFT_DETAIL_RETIRED:
        return ANSWER_GONE;
    default:
        return error->status == GRAFT_CONFLICT ? ANSWER_REJECTED : ANSWER_PENDING;
    }
}

// An OK counts if token and digest are this push's; then it must also say what this push must have become.
static enum push_answer check_landed(const struct push_run *run, const struct remote_commit *commit,
                                     struct graft_error *err)
{
    const struct store_push *push = &run->push;
    const struct snapshot *landed = &commit->snapshot;
    const struct gid *vid = &run->volume->source.vid;
    struct gid_text text;

    if (!token_equal(&commit->token, &push->token) || !hash_equal(&commit->digest, &push->digest) ||
        !gid_equal(&landed->vid, vid)) {
        error_set(err, GRAFT_UNKNOWN, GRAFT_DETAIL_PROTOCOL,
                  "the metastore's answer to a commit of volume %s is about another commit",
                  vid_text(run, &text));
        return ANSWER_PENDING;
    }
    struct hash128 chain =
        chain_next(&push->base.chain, vid, landed->lsn, &push->token, &push->digest, push->page_count);
    if (landed->lsn == push->base.lsn + 1 && landed->page_count == push->page_count &&
        hash_equal(&landed->chain, &chain))
        return ANSWER_LANDED;
    error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
              "the commit of volume %s on LSN %llu landed as LSN %llu of another history",
              vid_text(run, &text), (unsigned long long)push->base.lsn, (unsigned long long)landed->lsn);
    return ANSWER_CORRUPT;
}

// Sends the request until something is settled or patience ends. *err is the last answer's error, if it was
// none.
static enum push_answer push_send(struct push_run *run, struct bytes request,
                                  struct remote_commit *ret_commit, struct graft_error *err)
{
    struct patience patience;

    patience_init(&patience, run->volume->client->remote.http, run->patience_ms);
    for (;;) {
        struct rpc_failure failure;
        enum push_answer answer =
            remote_commit(&run->volume->client->remote, request, ret_commit, &failure, err) == GRAFT_OK
                ? check_landed(run, ret_commit, err)
                : classify_failure(run, &failure, err);
        if (failure.has_snapshot && gid_equal(&failure.snapshot.vid, &run->volume->source.vid))
            store_note_remote(run->volume->store, failure.snapshot.lsn, NULL);
        if (answer != ANSWER_PENDING || !patience_wait(&patience, err, failure.retry_after_ms))
            return answer;
    }
}

// COMMITTING → IDLE, or back to UPLOADING.
static enum graft_status push_commit_step(struct push_run *run, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer request = BUFFER_INIT(COMMIT_REQUEST_SIZE_MAX);
    struct store_volume *store = run->volume->store;
    struct remote_commit commit;
    struct store_remote landed;
    struct graft_error why;
    enum graft_status status;

    // Only the commit's own answer settles anything: what becomes of this call is not asked.
    push_create(run, &run->push.base, NULL);
    status = store_push_request(store, &request, err);
    if (status != GRAFT_OK)
        return status;
    switch (push_send(run, buffer_bytes(&request), &commit, &why)) {
    case ANSWER_LANDED:
        landed =
            (struct store_remote){commit.snapshot.lsn, commit.snapshot.chain, commit.snapshot.page_count};
        return store_push_settle(store, &landed, err);
    case ANSWER_REJECTED:
        status = store_push_reject(store, &why, err);
        return status != GRAFT_OK ? status : error_copy(err, &why);
    case ANSWER_SEGMENT_GONE:
        return store_push_retreat(store, err);
    case ANSWER_CORRUPT:
        return push_corrupt(run, &why, err);
    case ANSWER_GONE:
        store_set_status(store, GRAFT_VOLUME_GONE, &why, NULL);
        break;
    case ANSWER_PENDING:
        break;
    }
    error_copy(err, &why);
    return error_context(err, why.status, "the push is still pending");
}

static enum graft_status push_drive(struct push_run *run, struct graft_error *err)
{
    struct store_state state;
    enum graft_status status = GRAFT_OK;

    for (unsigned uploads = 0; status == GRAFT_OK;) {
        store_volume_state(run->volume->store, &state);
        run->push = state.push;
        switch (state.push.phase) {
        case STORE_PUSH_IDLE:
            return GRAFT_OK;
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
            status = push_commit_step(run, err);
            break;
        }
    }
    return status;
}

enum graft_status push_run(struct graft_volume *volume, uint32_t patience_ms, uint64_t *ret_remote_lsn,
                           struct graft_error *err)
{
    struct push_run run = {.volume = volume, .patience_ms = patience_ms};
    struct store_state state;
    struct gid_text text;
    enum graft_status status = GRAFT_OK;

    store_volume_state(volume->store, &state);
    if (state.status == GRAFT_VOLUME_CORRUPT || state.status == GRAFT_VOLUME_REJECTED) {
        error_copy(err, &state.status_error);
        return error_context(err, state.status_error.status, "volume %s is %s", vid_text(&run, &text),
                             graft_volume_status_text(state.status));
    }
    if (state.push.phase == STORE_PUSH_IDLE) {
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

enum graft_status graft_push(struct graft_volume *volume, uint64_t *ret_remote_lsn, struct graft_error *err)
{
    REQUIRE(volume);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    TURN_GUARD(volume);
    return push_run(volume, volume->client->remote.deadline_ms, ret_remote_lsn, err);
}
