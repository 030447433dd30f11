// SPDX-License-Identifier: Apache-2.0
//
// Every call here: decode ─▶ the volume, as fresh as the store can tell ─▶ a copy of its state ─▶ from
// memory, or by a get, or by a job for a reader thread ─▶ the answer. No volume is held while a reader works.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/calls.h"
#include "metastore/keys.h"
#include "metastore/log_stream.h"
#include "metastore/pull.h"
#include "metastore/reply.h"
#include "metastore/volume_list.h"

struct read_call {
    struct volume_wait wait;
    struct job job;
    struct http_request *request;
    struct calls *calls;
    struct gid vid;
    struct volume_state state;
    uint64_t lsn, to_lsn; // snapshot: lsn; pull: lsn is after_lsn; commits: lsn to to_lsn
    struct hash128 chain; // pull
};

static struct read_call *read_call_new(struct http_request *request, const struct gid *vid,
                                       void (*ready)(struct volume_wait *, struct volume *,
                                                     const struct graft_error *))
{
    struct read_call *call = calloc(1, sizeof *call);
    CHECK(call);
    call->wait = (struct volume_wait){.ready = ready, .fresh = true};
    call->request = request;
    call->calls = http_request_context(request);
    call->vid = *vid;
    return call;
}

static void finish_error(struct read_call *call, const struct graft_error *error)
{
    reply_error(call->request, error);
    free(call);
}

// Copies the volume's state and lets it go. False: answered with the error, `call` is gone.
static bool take_state(struct read_call *call, struct volume *volume, const struct graft_error *error)
{
    if (!volume) {
        finish_error(call, error);
        return false;
    }
    volume_get_state(volume, &call->state);
    volume_unref(volume);
    return true;
}

static void submit(struct read_call *call, void (*run)(struct job *job))
{
    struct graft_error error;
    call->job.run = run;
    if (pool_submit(call->calls->readers, &call->job, &error) == GRAFT_OK)
        return;
    error.status = GRAFT_UNAVAILABLE;
    finish_error(call, &error);
}

static enum graft_status check_not_deleted(const struct volume_state *state, struct graft_error *err)
{
    if (!state->head.deleted)
        return GRAFT_OK;
    return error_set(err, GRAFT_GONE, GRAFT_DETAIL_DELETED, "volume %s was deleted at LSN %llu",
                     gid_format(&state->record.vid).text, (unsigned long long)state->head.lsn);
}

// Whether the commit at `lsn` is there to be read.
static enum graft_status check_kept(const struct volume_state *state, uint64_t lsn, struct graft_error *err)
{
    enum graft_status status = check_not_deleted(state, err);
    if (status != GRAFT_OK)
        return status;
    if (lsn > state->head.lsn)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD,
                         "LSN %llu of volume %s is beyond its head, %llu", (unsigned long long)lsn,
                         gid_format(&state->record.vid).text, (unsigned long long)state->head.lsn);
    if (lsn <= state->retired_lsn)
        return error_set(err, GRAFT_GONE, GRAFT_DETAIL_RETIRED,
                         "LSN %llu of volume %s is no longer kept; history begins at %llu",
                         (unsigned long long)lsn, gid_format(&state->record.vid).text,
                         (unsigned long long)state->retired_lsn + 1);
    return GRAFT_OK;
}

// ---- snapshot

static void finish_snapshot(struct read_call *call, const struct commit_facts *commit)
{
    Graft__SnapshotResponse response = GRAFT__SNAPSHOT_RESPONSE__INIT;
    Graft__Snapshot message;
    struct snapshot snapshot = snapshot_of(&call->state.record, commit);
    snapshot_to_message(&snapshot, &message);
    response.snapshot = &message;
    reply_message(call->request, &response.base);
    free(call);
}

static void snapshot_got_commit(void *context, struct objstore_result *result)
{
    struct read_call *call = context;
    struct graft_error *error = &result->error;
    struct commit_facts commit;
    if (error->status == GRAFT_OK)
        commit_record_decode(buffer_bytes(&result->data), &call->vid, call->lsn, &commit, NULL, error);
    else if (error->status == GRAFT_NOT_FOUND)
        error_set(error, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu of volume %s is missing",
                  (unsigned long long)call->lsn, gid_format(&call->vid).text);
    if (error->status == GRAFT_OK)
        finish_snapshot(call, &commit);
    else
        finish_error(call, error);
}

static void snapshot_got_volume(struct volume_wait *wait, struct volume *volume,
                                const struct graft_error *error)
{
    struct read_call *call = CONTAINER_OF(wait, struct read_call, wait);
    struct graft_error refused;
    if (!take_state(call, volume, error))
        return;
    const struct commit_facts *head = &call->state.head;
    bool of_head = call->lsn == 0 || call->lsn == head->lsn;
    // The head of a deleted volume says so itself: whoever has a push of it under way must get as far as the
    // commit, whose answer about its token is the only definitive one.
    if (of_head)
        finish_snapshot(call, head);
    else if (check_kept(&call->state, call->lsn, &refused) != GRAFT_OK)
        finish_error(call, &refused);
    else
        objstore_get(call->calls->store, key_commit(&call->vid, call->lsn).text, 0, RECORD_SIZE_MAX,
                     snapshot_got_commit, call);
}

static void call_snapshot(struct http_request *request, struct bytes body)
{
    struct graft_error error;
    struct gid vid;
    _cleanup_(message_free_p) ProtobufCMessage *decoded =
        request_message(request, body, &graft__snapshot_request__descriptor);
    const Graft__SnapshotRequest *message = (const Graft__SnapshotRequest *)decoded;
    if (!message)
        return;
    if (gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &vid, &error) != GRAFT_OK) {
        reply_error(request, &error);
        return;
    }
    struct read_call *call = read_call_new(request, &vid, snapshot_got_volume);
    call->lsn = message->lsn;
    volume_table_get(call->calls->volumes, &vid, &call->wait);
}

// ---- pull

static enum graft_status send_pull(struct read_call *call, const struct pull_result *result,
                                   struct graft_error *err)
{
    Graft__PullResponse response = GRAFT__PULL_RESPONSE__INIT;
    Graft__Snapshot message;
    _cleanup_(buffer_release) struct buffer changed = BUFFER_INIT(UNARY_RESPONSE_SIZE_MAX);
    enum graft_status status = pageset_encode(result->changed, &changed, err);
    if (status != GRAFT_OK)
        return status;
    struct snapshot head = snapshot_of(&call->state.record, &call->state.head);
    snapshot_to_message(&head, &message);
    response.head = &message;
    response.changed = binary_of(changed.data, changed.size);
    response.cut = result->cut;
    response.everything = result->everything;
    reply_message(call->request, &response.base);
    return GRAFT_OK;
}

static void run_pull(struct job *job)
{
    struct read_call *call = CONTAINER_OF(job, struct read_call, job);
    struct pull_result result;
    struct graft_error error;
    enum graft_status status =
        pull(call->calls->store, &call->state, call->lsn, &call->chain, &result, &error);
    if (status == GRAFT_OK) {
        metric_add(call->calls->pagesets_united, result.united);
        status = send_pull(call, &result, &error);
        pageset_free(result.changed);
    }
    if (status != GRAFT_OK)
        finish_error(call, &error);
    else
        free(call);
}

static void pull_got_volume(struct volume_wait *wait, struct volume *volume, const struct graft_error *error)
{
    struct read_call *call = CONTAINER_OF(wait, struct read_call, wait);
    if (!take_state(call, volume, error))
        return;
    // Who is up to date already, or has a wrong chain at the head, needs no reader.
    if (call->lsn >= call->state.head.lsn)
        run_pull(&call->job);
    else
        submit(call, run_pull);
}

static void call_pull(struct http_request *request, struct bytes body)
{
    struct graft_error error;
    struct gid vid;
    struct hash128 chain;
    _cleanup_(message_free_p) ProtobufCMessage *decoded =
        request_message(request, body, &graft__pull_request__descriptor);
    const Graft__PullRequest *message = (const Graft__PullRequest *)decoded;
    if (!message)
        return;
    if (gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &vid, &error) != GRAFT_OK ||
        hash_from_bytes(bytes_of(&message->chain), "chain", &chain, &error) != GRAFT_OK) {
        reply_error(request, &error);
        return;
    }
    struct read_call *call = read_call_new(request, &vid, pull_got_volume);
    call->lsn = message->after_lsn;
    call->chain = chain;
    volume_table_get(call->calls->volumes, &vid, &call->wait);
}

// ---- commits

static void commits_got_volume(struct volume_wait *wait, struct volume *volume,
                               const struct graft_error *error)
{
    struct read_call *call = CONTAINER_OF(wait, struct read_call, wait);
    struct graft_error refused;
    if (!take_state(call, volume, error))
        return;
    if (call->to_lsn == 0)
        call->to_lsn = MAX(call->state.head.lsn, call->lsn);
    enum graft_status status = check_kept(&call->state, call->lsn, &refused);
    if (status == GRAFT_OK)
        status = check_kept(&call->state, call->to_lsn, &refused);
    if (status != GRAFT_OK) {
        finish_error(call, &refused);
        return;
    }
    log_stream_start(call->request, call->calls->store, call->calls->readers, &call->vid, call->lsn,
                     call->to_lsn);
    free(call);
}

static void call_commits(struct http_request *request, struct bytes body)
{
    struct graft_error error;
    struct gid vid;
    _cleanup_(message_free_p) ProtobufCMessage *decoded =
        request_message(request, body, &graft__commits_request__descriptor);
    const Graft__CommitsRequest *message = (const Graft__CommitsRequest *)decoded;
    if (!message)
        return;
    enum graft_status status = gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &vid, &error);
    if (status == GRAFT_OK &&
        (message->from_lsn == 0 || (message->to_lsn != 0 && message->to_lsn < message->from_lsn)))
        status =
            error_set(&error, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                      "from_lsn is %llu and to_lsn %llu; LSNs begin at 1 and to_lsn is not below from_lsn",
                      (unsigned long long)message->from_lsn, (unsigned long long)message->to_lsn);
    if (status != GRAFT_OK) {
        reply_error(request, &error);
        return;
    }
    struct read_call *call = read_call_new(request, &vid, commits_got_volume);
    call->lsn = message->from_lsn;
    call->to_lsn = message->to_lsn;
    volume_table_get(call->calls->volumes, &vid, &call->wait);
}

// ---- list_volumes

static void send_list(struct http_request *request, const struct volume_list *list)
{
    Graft__ListVolumesResponse response = GRAFT__LIST_VOLUMES_RESPONSE__INIT;
    Graft__Snapshot messages[LIST_LIMIT_MAX];
    Graft__Snapshot *pointers[LIST_LIMIT_MAX];
    for (size_t i = 0; i < list->count; i++) {
        snapshot_to_message(&list->heads[i], &messages[i]);
        pointers[i] = &messages[i];
    }
    response.n_heads = list->count;
    response.heads = pointers;
    if (list->more)
        response.next = binary_of(list->last.bytes, GID_SIZE);
    reply_message(request, &response.base);
}

static void run_list(struct job *job)
{
    struct read_call *call = CONTAINER_OF(job, struct read_call, job);
    struct volume_list list;
    struct graft_error error;
    const struct gid *after = call->to_lsn ? &call->vid : NULL;
    if (volume_list_read(call->calls->store, call->calls->volumes, after, (unsigned)call->lsn, &list,
                         &error) != GRAFT_OK) {
        finish_error(call, &error);
        return;
    }
    send_list(call->request, &list);
    volume_list_release(&list);
    free(call);
}

static void call_list_volumes(struct http_request *request, struct bytes body)
{
    struct graft_error error;
    struct gid after = {0};
    _cleanup_(message_free_p) ProtobufCMessage *decoded =
        request_message(request, body, &graft__list_volumes_request__descriptor);
    const Graft__ListVolumesRequest *message = (const Graft__ListVolumesRequest *)decoded;
    if (!message)
        return;
    if (message->after.len > 0 &&
        gid_from_bytes(bytes_of(&message->after), GID_VOLUME, "after", &after, &error) != GRAFT_OK) {
        reply_error(request, &error);
        return;
    }
    struct read_call *call = read_call_new(request, &after, NULL);
    call->lsn = message->limit == 0 ? LIST_LIMIT_MAX : MIN(message->limit, LIST_LIMIT_MAX);
    call->to_lsn = message->after.len > 0;
    submit(call, run_list);
}

// ---- routes

static struct http_route unary(const char *path,
                               void (*ready)(struct http_request *request, struct bytes whole))
{
    return (struct http_route){.method = "POST",
                               .path = path,
                               .content_type = HTTP_PROTOBUF,
                               .body_max = UNARY_REQUEST_SIZE_MAX,
                               .ready = ready,
                               .deadline_ms = CALL_DEADLINE_MS};
}

void calls_read_routes(struct http_route ret_routes[CALLS_READ])
{
    ret_routes[0] = unary("/v1/snapshot", call_snapshot);
    ret_routes[1] = unary("/v1/pull", call_pull);
    ret_routes[2] = unary("/v1/list_volumes", call_list_volumes);
    ret_routes[3] = unary("/v1/commits", call_commits);
    ret_routes[3].closed = log_stream_closed;
}
