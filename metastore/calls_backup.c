// SPDX-License-Identifier: Apache-2.0
//
// What an operator asks for. Nothing of the request says where anything is written.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "metastore/backup.h"
#include "metastore/calls.h"
#include "metastore/reply.h"

#define BACKUP_DEADLINE_MS 600000u // a flush on a slow disk

struct backup_call {
    struct job job;
    struct http_request *request;
    struct calls *calls;
};

static void run_backup(struct job *job)
{
    struct backup_call *call = CONTAINER_OF(job, struct backup_call, job);
    Graft__BackupResponse response = GRAFT__BACKUP_RESPONSE__INIT;
    char name[BACKUP_NAME_SIZE];
    const char *path = NULL;
    struct graft_error error;
    enum graft_status status = backup_store_path(call->calls->store_url, &path, &error);
    if (status == GRAFT_OK)
        status = backup_checkpoint(call->calls->store, path, name, &error);
    if (status == GRAFT_OK) {
        log_info("backup", "checkpoint=%s", name);
        response.name = name;
        reply_message(call->request, &response.base);
    } else {
        reply_error(call->request, &error);
    }
    free(call);
}

static void call_backup(struct http_request *request, struct bytes body)
{
    struct calls *calls = http_request_context(request);
    struct graft_error error;
    ProtobufCMessage *message = request_message(request, body, &graft__backup_request__descriptor);
    if (!message)
        return;
    message_free(message);
    struct backup_call *call = calloc(1, sizeof *call);
    CHECK(call);
    *call = (struct backup_call){.job = {.run = run_backup}, .request = request, .calls = calls};
    if (pool_submit(calls->long_jobs, &call->job, &error) == GRAFT_OK)
        return;
    error.status = GRAFT_UNAVAILABLE;
    reply_error(request, &error);
    free(call);
}

void calls_backup_routes(struct http_route ret_routes[CALLS_BACKUP])
{
    ret_routes[0] = (struct http_route){.method = "POST",
                                        .path = "/v1/backup",
                                        .content_type = HTTP_PROTOBUF,
                                        .body_max = UNARY_REQUEST_SIZE_MAX,
                                        .ready = call_backup,
                                        .deadline_ms = BACKUP_DEADLINE_MS};
}
