// SPDX-License-Identifier: Apache-2.0
//
//     call_fork ─▶ the origin's head, or why there is none ─▶ [thread of long jobs] fork_volume ─▶ the fork's head ─▶ answer
//
// Forks have a thread of their own, so that pulls do not wait for them. One that outlives its call goes
// on; the same call again finds what it made.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/calls.h"
#include "metastore/fork.h"
#include "metastore/reply.h"

struct fork_call {
    struct volume_wait wait;
    struct job job;
    struct http_request *request;
    struct calls *calls;
    struct fork_request fork;
    struct snapshot snapshot;
};

static void finish_error(struct fork_call *call, const struct graft_error *error)
{
    reply_error(call->request, error);
    free(call);
}

// The fork is in the volume table from here on, and whoever watched for it was told. It may have been deleted
// since an earlier try made it.
static void fork_got_made(struct volume_wait *wait, struct volume *volume, const struct graft_error *error)
{
    struct fork_call *call = CONTAINER_OF(wait, struct fork_call, wait);
    struct graft_error refused;
    if (!volume) {
        finish_error(call, error);
        return;
    }
    struct snapshot head = volume_head(volume);
    volume_unref(volume);
    if (head.deleted) {
        error_set(&refused, GRAFT_GONE, GRAFT_DETAIL_DELETED,
                  "volume %s was deleted; its id is never used again", gid_format(&head.vid).text);
        finish_error(call, &refused);
        return;
    }
    Graft__ForkResponse response = GRAFT__FORK_RESPONSE__INIT;
    Graft__Snapshot message;
    snapshot_to_message(&call->snapshot, &message);
    response.snapshot = &message;
    reply_message(call->request, &response.base);
    free(call);
}

static void run_fork(struct job *job)
{
    struct fork_call *call = CONTAINER_OF(job, struct fork_call, job);
    struct graft_error error;
    if (fork_volume(&call->fork, &call->snapshot, &error) != GRAFT_OK) {
        finish_error(call, &error);
        return;
    }
    call->wait = (struct volume_wait){.ready = fork_got_made, .fresh = true};
    volume_table_get(call->calls->volumes, &call->fork.vid, &call->wait);
}

// An origin that is not there is for the fork to judge: it may have been made before.
static void fork_got_origin(struct volume_wait *wait, struct volume *volume, const struct graft_error *error)
{
    struct fork_call *call = CONTAINER_OF(wait, struct fork_call, wait);
    struct graft_error busy;
    if (volume)
        volume_get_state(volume, &call->fork.state);
    else
        call->fork.state_error = *error;
    volume_unref(volume);
    call->job.run = run_fork;
    if (pool_submit(call->calls->long_jobs, &call->job, &busy) != GRAFT_OK) {
        busy.status = GRAFT_UNAVAILABLE;
        finish_error(call, &busy);
    }
}

static enum graft_status parse_fork(const Graft__ForkRequest *message, struct fork_request *fork,
                                    struct graft_error *err)
{
    struct volume_origin *origin = &fork->origin;
    enum graft_status status = gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &origin->vid, err);
    if (status == GRAFT_OK)
        status = hash_from_bytes(bytes_of(&message->chain), "chain", &origin->chain, err);
    if (status == GRAFT_OK)
        status = gid_from_bytes(bytes_of(&message->new_vid), GID_VOLUME, "new_vid", &fork->vid, err);
    if (status != GRAFT_OK)
        return status;
    if (message->lsn == 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "lsn is 0, where every volume is empty: create a volume instead");
    if (gid_equal(&origin->vid, &fork->vid))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "new_vid is vid: a fork has a VID of its own");
    origin->lsn = message->lsn;
    return GRAFT_OK;
}

static void call_fork(struct http_request *request, struct bytes body)
{
    struct calls *calls = http_request_context(request);
    struct fork_request fork = {.store = calls->store, .clock = calls->clock, .stop = &calls->stopping};
    struct graft_error error;
    _cleanup_(message_free_p) ProtobufCMessage *message =
        request_message(request, body, &graft__fork_request__descriptor);
    if (!message)
        return;
    if (parse_fork((const Graft__ForkRequest *)message, &fork, &error) != GRAFT_OK) {
        reply_error(request, &error);
        return;
    }
    struct fork_call *call = calloc(1, sizeof *call);
    CHECK(call);
    *call = (struct fork_call){
        .wait = {.ready = fork_got_origin, .fresh = true}, .request = request, .calls = calls, .fork = fork};
    volume_table_get(calls->volumes, &fork.origin.vid, &call->wait);
}

void calls_fork_routes(struct http_route ret_routes[CALLS_FORK])
{
    ret_routes[0] = (struct http_route){.method = "POST",
                                        .path = "/v1/fork",
                                        .content_type = HTTP_PROTOBUF,
                                        .body_max = UNARY_REQUEST_SIZE_MAX,
                                        .ready = call_fork,
                                        .deadline_ms = CALL_DEADLINE_MS};
}
