// SPDX-License-Identifier: Apache-2.0
#include "metastore/reply.h"

#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/log.h"

#define RETRY_AFTER_S 1

// A commit of 8,192 segments, decoded.
#define REQUEST_MEMORY_MAX (16 * MIB)

void reply_message(struct http_request *request, const ProtobufCMessage *message)
{
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(UNARY_RESPONSE_SIZE_MAX);
    struct graft_error error;
    FAILPOINT("reply.before");
    if (message_encode(message, &body, &error) == GRAFT_OK)
        http_respond(request, 200, HTTP_PROTOBUF, &body);
    else
        reply_error(request, &error);
    FAILPOINT("reply.after");
}

static void log_fault(const struct graft_error *error)
{
    if (error->status == GRAFT_INTERNAL || error->status == GRAFT_CORRUPT)
        log_error("request_failed", "%s", log_format_error(error).text);
}

void reply_error(struct http_request *request, const struct graft_error *error)
{
    log_fault(error);
    FAILPOINT("reply.error.before");
    http_respond_error(request, error, error->status == GRAFT_UNAVAILABLE ? RETRY_AFTER_S : 0);
    FAILPOINT("reply.error.after");
}

void reply_refusal(struct http_request *request, const struct commit_answer *answer)
{
    if (!answer->has_token) {
        reply_error(request, &answer->error);
        return;
    }
    log_fault(&answer->error);
    FAILPOINT("reply.refusal.before");
    Graft__Error message = GRAFT__ERROR__INIT;
    Graft__Snapshot snapshot;
    error_to_message(&answer->error, &message);
    message.token = binary_of(answer->token.bytes, TOKEN_SIZE);
    if (answer->has_snapshot) {
        snapshot_to_message(&answer->snapshot, &snapshot);
        message.snapshot = &snapshot;
    }
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(ERROR_RESPONSE_SIZE_MAX);
    struct graft_error error;
    if (message_encode(&message.base, &body, &error) == GRAFT_OK)
        http_respond(request, http_code_of(&answer->error), HTTP_PROTOBUF, &body);
    else
        reply_error(request, &error);
    FAILPOINT("reply.refusal.after");
}

ProtobufCMessage *request_message(struct http_request *request, struct bytes body,
                                  const ProtobufCMessageDescriptor *descriptor)
{
    ProtobufCMessage *message = NULL;
    struct graft_error error;
    FAILPOINT("request.received");
    if (message_decode(descriptor, body, REQUEST_MEMORY_MAX, &message, &error) != GRAFT_OK)
        reply_error(request, &error);
    return message;
}
