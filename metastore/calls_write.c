// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "metastore/calls.h"
#include "metastore/keys.h"
#include "metastore/reply.h"

// ---- commit

static void commit_done(void *context, const struct commit_answer *answer)
{
    struct http_request *request = context;
    if (answer->error.status != GRAFT_OK) {
        reply_refusal(request, answer);
        return;
    }
    Graft__CommitResponse response = GRAFT__COMMIT_RESPONSE__INIT;
    Graft__Snapshot snapshot;
    snapshot_to_message(&answer->snapshot, &snapshot);
    response.snapshot = &snapshot;
    response.token = binary_of(answer->token.bytes, TOKEN_SIZE);
    response.digest = binary_of(answer->digest.bytes, HASH_SIZE);
    reply_message(request, &response.base);
}

static void call_commit(struct http_request *request, struct bytes body)
{
    struct calls *calls = http_request_context(request);
    _cleanup_(message_free_p) ProtobufCMessage *message =
        request_message(request, body, &graft__commit_request__descriptor);
    if (message)
        sequencer_commit(calls->sequencer, (Graft__CommitRequest *)message, commit_done, request);
}

// ---- delete_volume

static void delete_done(void *context, const struct commit_answer *answer)
{
    struct http_request *request = context;
    if (answer->error.status != GRAFT_OK) {
        reply_refusal(request, answer);
        return;
    }
    Graft__DeleteVolumeResponse response = GRAFT__DELETE_VOLUME_RESPONSE__INIT;
    Graft__Snapshot head;
    snapshot_to_message(&answer->snapshot, &head);
    response.head = &head;
    reply_message(request, &response.base);
}

static void call_delete_volume(struct http_request *request, struct bytes body)
{
    struct calls *calls = http_request_context(request);
    struct graft_error error;
    struct gid vid;
    struct token token;
    _cleanup_(message_free_p) ProtobufCMessage *decoded =
        request_message(request, body, &graft__delete_volume_request__descriptor);
    const Graft__DeleteVolumeRequest *message = (const Graft__DeleteVolumeRequest *)decoded;
    if (!message)
        return;
    if (gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &vid, &error) != GRAFT_OK ||
        token_from_bytes(bytes_of(&message->token), "token", &token, &error) != GRAFT_OK)
        reply_error(request, &error);
    else
        sequencer_delete(calls->sequencer, &vid, &token, delete_done, request);
}

// ---- create_volume

struct create_call {
    struct volume_wait wait;
    struct http_request *request;
    struct calls *calls;
    struct volume_record volume;
    struct buffer record;
    struct graft_error lost; // the store did not say what became of the create
};

static void create_finish(struct create_call *call, const struct snapshot *head,
                          const struct graft_error *error)
{
    if (head) {
        Graft__CreateVolumeResponse response = GRAFT__CREATE_VOLUME_RESPONSE__INIT;
        Graft__Snapshot message;
        snapshot_to_message(head, &message);
        response.head = &message;
        reply_message(call->request, &response.base);
    } else {
        reply_error(call->request, error);
    }
    buffer_release(&call->record);
    free(call);
}

// Whoever made the volume, what counts is whether it is the one that was asked for.
static void create_got_volume(struct volume_wait *wait, struct volume *volume,
                              const struct graft_error *error)
{
    struct create_call *call = CONTAINER_OF(wait, struct create_call, wait);
    struct graft_error refused;
    if (!volume) {
        bool lost = call->lost.status != GRAFT_OK && error->detail == GRAFT_DETAIL_NO_SUCH_VOLUME;
        create_finish(call, NULL, lost ? &call->lost : error);
        return;
    }
    struct snapshot head = volume_head(volume);
    volume_unref(volume);
    if (head.deleted) {
        error_set(&refused, GRAFT_GONE, GRAFT_DETAIL_DELETED,
                  "volume %s was deleted; its id is never used again", gid_format(&head.vid).text);
        create_finish(call, NULL, &refused);
    } else if (head.page_size != call->volume.page_size || head.variable != call->volume.variable) {
        error_set(&refused, GRAFT_CONFLICT, GRAFT_DETAIL_EXISTS,
                  "volume %s exists already, %s with pages of %u bytes", gid_format(&head.vid).text,
                  head.variable ? "variable" : "fixed", head.page_size);
        create_finish(call, NULL, &refused);
    } else {
        create_finish(call, &head, NULL);
    }
}

static void catalog_created(void *context, struct objstore_result *result)
{
    struct create_call *call = context;
    enum graft_status status = result->error.status;
    FAILPOINT("create.after");
    if (status != GRAFT_OK && status != GRAFT_CONFLICT && status != GRAFT_UNKNOWN) {
        error_context(&result->error, status, "creating volume %s", gid_format(&call->volume.vid).text);
        create_finish(call, NULL, &result->error);
        return;
    }
    if (status == GRAFT_UNKNOWN)
        call->lost = result->error;
    volume_table_get(call->calls->volumes, &call->volume.vid, &call->wait);
}

static enum graft_status parse_create(const Graft__CreateVolumeRequest *message,
                                      struct volume_record *ret_volume, struct graft_error *err)
{
    struct gid vid;
    enum graft_status status = gid_from_bytes(bytes_of(&message->vid), GID_VOLUME, "vid", &vid, err);
    if (status != GRAFT_OK)
        return status;
    uint32_t size = message->page_size;
    if (size < PAGE_SIZE_MIN || size > PAGE_SIZE_MAX || (size & (size - 1)) != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "page_size is %u; it must be a power of two from %u to %u", size, PAGE_SIZE_MIN,
                         PAGE_SIZE_MAX);
    if (message->kind != GRAFT__VOLUME_KIND__VOLUME_FIXED &&
        message->kind != GRAFT__VOLUME_KIND__VOLUME_VARIABLE)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "kind is %d; it must be 1 (fixed) or 2 (variable)", (int)message->kind);
    *ret_volume = (struct volume_record){
        .vid = vid, .page_size = size, .variable = message->kind == GRAFT__VOLUME_KIND__VOLUME_VARIABLE};
    return GRAFT_OK;
}

static void call_create_volume(struct http_request *request, struct bytes body)
{
    struct calls *calls = http_request_context(request);
    struct volume_record volume;
    struct graft_error error;
    _cleanup_(message_free_p) ProtobufCMessage *message =
        request_message(request, body, &graft__create_volume_request__descriptor);
    if (!message)
        return;
    if (parse_create((const Graft__CreateVolumeRequest *)message, &volume, &error) != GRAFT_OK) {
        reply_error(request, &error);
        return;
    }
    volume.created_ms = clock_wall_ms(calls->clock);
    struct create_call *call = calloc(1, sizeof *call);
    CHECK(call);
    *call = (struct create_call){.wait = {.ready = create_got_volume, .fresh = true},
                                 .request = request,
                                 .calls = calls,
                                 .volume = volume};
    buffer_init(&call->record, UNARY_REQUEST_SIZE_MAX);
    CHECK(volume_record_encode(&volume, &call->record, NULL) == GRAFT_OK);
    FAILPOINT("create.before");
    objstore_create(calls->store, key_catalog(&volume.vid).text, buffer_bytes(&call->record), catalog_created,
                    call);
}

// ---- routes

void calls_write_routes(struct http_route ret_routes[CALLS_WRITE])
{
    const struct http_route routes[CALLS_WRITE] = {
        {.method = "POST",
         .path = "/v1/commit",
         .content_type = HTTP_PROTOBUF,
         .body_max = COMMIT_REQUEST_SIZE_MAX,
         .ready = call_commit,
         .deadline_ms = CALL_DEADLINE_MS},
        {.method = "POST",
         .path = "/v1/create_volume",
         .content_type = HTTP_PROTOBUF,
         .body_max = UNARY_REQUEST_SIZE_MAX,
         .ready = call_create_volume,
         .deadline_ms = CALL_DEADLINE_MS},
        {.method = "POST",
         .path = "/v1/delete_volume",
         .content_type = HTTP_PROTOBUF,
         .body_max = UNARY_REQUEST_SIZE_MAX,
         .ready = call_delete_volume,
         .deadline_ms = CALL_DEADLINE_MS},
    };
    memcpy(ret_routes, routes, sizeof routes);
}
