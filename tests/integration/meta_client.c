// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/meta_client.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"

#define DEADLINE_MS 30000u

void meta_client_init(struct meta_client *client, const char *folder, const struct daemon *metastore)
{
    char path[512];
    struct graft_error error;
    const struct http_client_settings settings = {.connections_per_host_max = 64};
    cr_assert_eq(http_client_new(&settings, &client->http, &error), GRAFT_OK, "%s", error.message);
    client->calls = (struct rpc_target){
        .http = client->http, .url = daemon_url(metastore, "listen"), .deadline_ms = DEADLINE_MS};
    client->watch = (struct rpc_target){.http = client->http, .url = daemon_url(metastore, "watch")};
    snprintf(path, sizeof path, "%s/cluster.key", folder);
    cr_assert_eq(cluster_key_load(path, &client->key, &error), GRAFT_OK, "%s", error.message);
}

void meta_client_release(struct meta_client *client)
{
    http_client_free(client->http);
}

static void release_message(ProtobufCMessage **message)
{
    message_free(*message);
}

enum graft_status meta_create(struct meta_client *client, const struct gid *vid, uint32_t page_size,
                              bool variable, struct graft_error *err)
{
    _cleanup_(release_message) ProtobufCMessage *response = NULL;
    Graft__CreateVolumeRequest request = GRAFT__CREATE_VOLUME_REQUEST__INIT;
    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.page_size = page_size;
    request.kind = variable ? GRAFT__VOLUME_KIND__VOLUME_VARIABLE : GRAFT__VOLUME_KIND__VOLUME_FIXED;
    return rpc_call(&client->calls, "create_volume", &request.base,
                    &graft__create_volume_response__descriptor, &response, NULL, err);
}

struct gid meta_create_volume(struct meta_client *client)
{
    struct graft_error error;
    struct gid vid = gid_make(GID_VOLUME, 1700000000000ull);
    cr_assert_eq(meta_create(client, &vid, 4096, false, &error), GRAFT_OK, "%s", error.message);
    return vid;
}

enum graft_status meta_commit(struct meta_client *client, const struct commit_plan *plan,
                              struct snapshot *ret_snapshot, struct rpc_failure *ret_failure,
                              struct graft_error *err)
{
    _cleanup_(release_message) ProtobufCMessage *response = NULL;
    struct built_commit commit;
    commit_build(&client->key, plan, &commit);
    enum graft_status status = rpc_call(&client->calls, "commit", &commit.request.base,
                                        &graft__commit_response__descriptor, &response, ret_failure, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__CommitResponse *message = (Graft__CommitResponse *)response;
    cr_assert(message->token.len == TOKEN_SIZE &&
              memcmp(message->token.data, commit.token.bytes, TOKEN_SIZE) == 0);
    cr_assert(message->digest.len == HASH_SIZE &&
              memcmp(message->digest.data, commit.digest.bytes, HASH_SIZE) == 0);
    return snapshot_from_message(message->snapshot, ret_snapshot, err);
}

enum graft_status meta_snapshot(struct meta_client *client, const struct gid *vid, uint64_t lsn,
                                struct snapshot *ret_snapshot, struct graft_error *err)
{
    _cleanup_(release_message) ProtobufCMessage *response = NULL;
    Graft__SnapshotRequest request = GRAFT__SNAPSHOT_REQUEST__INIT;
    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.lsn = lsn;
    enum graft_status status = rpc_call(&client->calls, "snapshot", &request.base,
                                        &graft__snapshot_response__descriptor, &response, NULL, err);
    if (status != GRAFT_OK)
        return status;
    return snapshot_from_message(((Graft__SnapshotResponse *)response)->snapshot, ret_snapshot, err);
}

enum graft_status meta_delete(struct meta_client *client, const struct gid *vid, uint64_t token,
                              struct graft_error *err)
{
    _cleanup_(release_message) ProtobufCMessage *response = NULL;
    Graft__DeleteVolumeRequest request = GRAFT__DELETE_VOLUME_REQUEST__INIT;
    struct token bytes = token_of(token);
    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.token = binary_of(bytes.bytes, TOKEN_SIZE);
    return rpc_call(&client->calls, "delete_volume", &request.base,
                    &graft__delete_volume_response__descriptor, &response, NULL, err);
}

enum graft_status meta_pull(struct meta_client *client, const struct gid *vid, uint64_t after,
                            const struct hash128 *chain, struct meta_pull *ret_pull, struct graft_error *err)
{
    _cleanup_(release_message) ProtobufCMessage *decoded = NULL;
    Graft__PullRequest request = GRAFT__PULL_REQUEST__INIT;
    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.after_lsn = after;
    request.chain = binary_of(chain->bytes, HASH_SIZE);
    enum graft_status status = rpc_call(&client->calls, "pull", &request.base,
                                        &graft__pull_response__descriptor, &decoded, NULL, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__PullResponse *response = (Graft__PullResponse *)decoded;
    ret_pull->cut = response->cut;
    ret_pull->everything = response->everything;
    status = snapshot_from_message(response->head, &ret_pull->head, err);
    if (status == GRAFT_OK)
        status = pageset_decode(bytes_of(&response->changed), PAGESET_RUNS_MAX, "changed", &ret_pull->changed,
                                err);
    return status;
}

// ---- streams

struct commits_check {
    uint64_t next_lsn, count, announced;
    struct hash128 chain;
    bool has_chain;
    struct graft_error end;
};

static enum graft_status on_commits_frame(void *context, struct bytes frame, bool *ret_end,
                                          struct graft_error *err)
{
    struct commits_check *check = context;
    _cleanup_(release_message) ProtobufCMessage *decoded = NULL;
    enum graft_status status =
        message_decode(&graft__commits_frame__descriptor, frame, 64 * MIB, &decoded, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__CommitsFrame *message = (Graft__CommitsFrame *)decoded;
    if (message->frame_case == GRAFT__COMMITS_FRAME__FRAME_END) {
        *ret_end = true;
        check->announced = message->end->count;
        if (message->end->error)
            error_from_message(message->end->error, &check->end);
        return GRAFT_OK;
    }
    const Graft__Commit *commit = message->commit;
    if (commit->lsn != check->next_lsn || commit->chain.len != HASH_SIZE ||
        (check->has_chain && memcmp(commit->base_chain.data, check->chain.bytes, HASH_SIZE) != 0))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu where %llu was due",
                         (unsigned long long)commit->lsn, (unsigned long long)check->next_lsn);
    memcpy(check->chain.bytes, commit->chain.data, HASH_SIZE);
    check->has_chain = true;
    check->next_lsn++;
    check->count++;
    return GRAFT_OK;
}

enum graft_status meta_commits(struct meta_client *client, const struct gid *vid, uint64_t from, uint64_t to,
                               uint64_t *ret_count, struct graft_error *err)
{
    struct commits_check check = {.next_lsn = from};
    struct rpc_stream *stream;
    Graft__CommitsRequest request = GRAFT__COMMITS_REQUEST__INIT;
    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.from_lsn = from;
    request.to_lsn = to;
    enum graft_status status =
        rpc_stream_start(&client->calls, "commits", &request.base, COMMIT_RECORD_SIZE_MAX, 20000,
                         on_commits_frame, &check, &stream, err);
    if (status == GRAFT_OK)
        status = rpc_stream_finish(stream, NULL, err);
    if (status == GRAFT_OK && check.end.status != GRAFT_OK)
        status = error_copy(err, &check.end);
    if (status != GRAFT_OK)
        return status;
    cr_assert_eq(check.count, check.announced);
    *ret_count = check.count;
    return GRAFT_OK;
}

// ---- lists, histories, metrics

enum graft_status meta_list(struct meta_client *client, const struct gid *after, uint32_t limit,
                            struct snapshot *heads, size_t *ret_count, struct gid *ret_next,
                            struct graft_error *err)
{
    _cleanup_(release_message) ProtobufCMessage *decoded = NULL;
    Graft__ListVolumesRequest request = GRAFT__LIST_VOLUMES_REQUEST__INIT;
    if (after)
        request.after = binary_of(after->bytes, GID_SIZE);
    request.limit = limit;
    enum graft_status status = rpc_call(&client->calls, "list_volumes", &request.base,
                                        &graft__list_volumes_response__descriptor, &decoded, NULL, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__ListVolumesResponse *response = (Graft__ListVolumesResponse *)decoded;
    CHECK(response->n_heads <= limit);
    for (size_t i = 0; i < response->n_heads && status == GRAFT_OK; i++)
        status = snapshot_from_message(response->heads[i], &heads[i], err);
    *ret_count = response->n_heads;
    *ret_next = (struct gid){{0}};
    if (response->next.len == GID_SIZE)
        memcpy(ret_next->bytes, response->next.data, GID_SIZE);
    return status;
}

struct snapshot meta_grow(struct meta_client *client, struct snapshot head, uint64_t count, uint64_t token)
{
    for (uint64_t i = 0; i < count; i++) {
        struct graft_error error;
        struct commit_plan plan = plan_on(&head, token + i, (uint32_t)((token + i) % 1000) + 1, 2);
        cr_assert_eq(meta_commit(client, &plan, &head, NULL, &error), GRAFT_OK, "%s", error.message);
    }
    return head;
}

double meta_metric(struct meta_client *client, const char *name)
{
    char url[200];
    struct graft_error error;
    struct http_outcome outcome;
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(4 * MIB);
    snprintf(url, sizeof url, "%s/metrics", client->calls.url);
    const struct http_exchange_spec spec = {.url = url, .deadline_ms = DEADLINE_MS, .response_max = 4 * MIB};
    cr_assert_eq(http_client_call(client->http, &spec, &body, &outcome, &error), GRAFT_OK, "%s",
                 error.message);
    cr_assert_eq(buffer_append(&body, "", 1, NULL), GRAFT_OK);
    size_t name_size = strlen(name);
    for (const char *line = (const char *)body.data; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, name_size) == 0 && line[name_size] == ' ')
            return strtod(line + name_size, NULL);
    }
    return 0;
}
