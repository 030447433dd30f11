// SPDX-License-Identifier: Apache-2.0
//
// Typed calls over common/net/rpc.h. An answer that no server of this protocol would give is UNAVAILABLE /
// PROTOCOL: trying again later, or against a mended server, may help, and nothing local is in doubt.
#include "client/remote.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/remote_internal.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"

#define INFO_RESPONSE_SIZE_MAX (64 * KIB)
#define WATCH_STALL_MS (3 * WATCH_HEARTBEAT_MS)
#define WATCH_FRAME_SIZE_MAX (4 * MIB)

static char *base_url_copy(const char *url)
{
    if (!url)
        return NULL;
    size_t size = strlen(url);
    while (size > 0 && url[size - 1] == '/')
        size--;
    return strndup(url, size);
}

enum graft_status remote_init(struct remote *remote, const char *metastore, const char *pagestore,
                              const char *bearer, uint32_t deadline_ms, struct graft_error *err)
{
    struct http_client_settings settings = {.user_agent = "libgraft/" GRAFT_VERSION};
    struct http_client *http;

    if ((metastore && strlen(metastore) > URL_SIZE_MAX) || (pagestore && strlen(pagestore) > URL_SIZE_MAX))
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "a server's URL is longer than %u characters", URL_SIZE_MAX);
    enum graft_status status = http_client_new(&settings, &http, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "starting the HTTP client");
    *remote = (struct remote){
        .http = http,
        .metastore = base_url_copy(metastore),
        .pagestore = base_url_copy(pagestore),
        .bearer = bearer ? strdup(bearer) : NULL,
        .deadline_ms = deadline_ms,
    };
    if ((metastore && !remote->metastore) || (pagestore && !remote->pagestore) ||
        (bearer && !remote->bearer)) {
        remote_release(remote);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the servers' addresses");
    }
    return GRAFT_OK;
}

void remote_release(struct remote *remote)
{
    http_client_free(remote->http);
    free(remote->metastore);
    free(remote->pagestore);
    free(remote->bearer);
    *remote = (struct remote){0};
}

enum graft_status remote_target(const struct remote *remote, const char *url, const char *name,
                                struct rpc_target *ret_target, struct graft_error *err)
{
    if (!url)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_UNREACHABLE,
                         "no URL of a %s was given: this client works offline", name);
    *ret_target = (struct rpc_target){
        .http = remote->http, .url = url, .bearer = remote->bearer, .deadline_ms = remote->deadline_ms};
    return GRAFT_OK;
}

enum graft_status remote_protocol_error(struct graft_error *err, const char *call, const char *what)
{
    return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL, "%s: the server's answer %s", call, what);
}

// *ret_retry_after_ms (NULL is fine), where it fails: the pause that a refusal asks for.
static enum graft_status metastore_call_paced(const struct remote *remote, const char *call,
                                              const ProtobufCMessage *request,
                                              const ProtobufCMessageDescriptor *response,
                                              ProtobufCMessage **ret_response, uint32_t *ret_retry_after_ms,
                                              struct graft_error *err)
{
    struct rpc_failure failure = {0};
    struct rpc_target target;
    enum graft_status status = remote_target(remote, remote->metastore, "metastore", &target, err);
    if (status != GRAFT_OK)
        return status;
    status = FAILPOINT_ERROR("remote.call.before", err);
    if (status == GRAFT_OK)
        status = rpc_call(&target, call, request, response, ret_response, &failure, err);
    FAILPOINT("remote.call.after");
    if (status != GRAFT_OK && ret_retry_after_ms)
        *ret_retry_after_ms = failure.retry_after_ms;
    return status;
}

static enum graft_status metastore_call(const struct remote *remote, const char *call,
                                        const ProtobufCMessage *request,
                                        const ProtobufCMessageDescriptor *response,
                                        ProtobufCMessage **ret_response, struct graft_error *err)
{
    return metastore_call_paced(remote, call, request, response, ret_response, NULL, err);
}

// Checks a snapshot that came back, and that it is about `vid` (NULL: any).
static enum graft_status snapshot_take(const Graft__Snapshot *message, const struct gid *vid,
                                       const char *call, struct snapshot *ret_snapshot,
                                       struct graft_error *err)
{
    struct graft_error why;
    struct snapshot snapshot;

    if (!message)
        return remote_protocol_error(err, call, "has no snapshot");
    if (snapshot_from_message(message, &snapshot, &why) != GRAFT_OK)
        return remote_protocol_error(err, call, why.message);
    if (vid && !gid_equal(&snapshot.vid, vid))
        return remote_protocol_error(err, call, "is about another volume");
    *ret_snapshot = snapshot;
    return GRAFT_OK;
}

// ---- the metastore ------------------------------------------------------------------------------

enum graft_status remote_create_volume(const struct remote *remote, const struct gid *vid, uint32_t page_size,
                                       bool variable, struct snapshot *ret_head, uint32_t *ret_retry_after_ms,
                                       struct graft_error *err)
{
    Graft__CreateVolumeRequest request = GRAFT__CREATE_VOLUME_REQUEST__INIT;
    MESSAGE_GUARD(answer);

    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.page_size = page_size;
    request.kind = variable ? GRAFT__VOLUME_KIND__VOLUME_VARIABLE : GRAFT__VOLUME_KIND__VOLUME_FIXED;
    enum graft_status status =
        metastore_call_paced(remote, "create_volume", &request.base,
                             &graft__create_volume_response__descriptor, &answer, ret_retry_after_ms, err);
    if (status != GRAFT_OK)
        return status;
    return snapshot_take(((Graft__CreateVolumeResponse *)answer)->head, vid, "create_volume", ret_head, err);
}

enum graft_status remote_snapshot(const struct remote *remote, const struct gid *vid, uint64_t lsn,
                                  struct snapshot *ret_snapshot, struct graft_error *err)
{
    Graft__SnapshotRequest request = GRAFT__SNAPSHOT_REQUEST__INIT;
    struct snapshot snapshot;
    MESSAGE_GUARD(answer);

    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.lsn = lsn;
    enum graft_status status = metastore_call(remote, "snapshot", &request.base,
                                              &graft__snapshot_response__descriptor, &answer, err);
    if (status != GRAFT_OK)
        return status;
    status = snapshot_take(((Graft__SnapshotResponse *)answer)->snapshot, vid, "snapshot", &snapshot, err);
    if (status != GRAFT_OK)
        return status;
    if (lsn != 0 && snapshot.lsn != lsn)
        return remote_protocol_error(err, "snapshot", "is about another LSN");
    *ret_snapshot = snapshot;
    return GRAFT_OK;
}

enum graft_status remote_live_snapshot(const struct remote *remote, const struct gid *vid, uint64_t lsn,
                                       struct snapshot *ret_snapshot, struct graft_error *err)
{
    struct snapshot snapshot;

    enum graft_status status = remote_snapshot(remote, vid, lsn, &snapshot, err);
    if (status != GRAFT_OK)
        return status;
    if (snapshot.deleted)
        return error_set(err, GRAFT_GONE, GRAFT_DETAIL_DELETED, "volume %s was deleted on the servers",
                         gid_format(vid).text);
    *ret_snapshot = snapshot;
    return GRAFT_OK;
}

enum graft_status remote_fork(const struct remote *remote, const struct gid *vid, uint64_t base_lsn,
                              const struct hash128 *base_chain, const struct gid *new_vid,
                              struct snapshot *ret_snapshot, struct graft_error *err)
{
    Graft__ForkRequest request = GRAFT__FORK_REQUEST__INIT;
    MESSAGE_GUARD(answer);

    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.lsn = base_lsn;
    request.chain = binary_of(base_chain->bytes, HASH_SIZE);
    request.new_vid = binary_of(new_vid->bytes, GID_SIZE);
    enum graft_status status =
        metastore_call(remote, "fork", &request.base, &graft__fork_response__descriptor, &answer, err);
    if (status != GRAFT_OK)
        return status;
    return snapshot_take(((Graft__ForkResponse *)answer)->snapshot, new_vid, "fork", ret_snapshot, err);
}

void remote_pull_release(struct remote_pull *pull)
{
    pageset_free(pull->changed);
    pull->changed = NULL;
}

enum graft_status remote_pull(const struct remote *remote, const struct gid *vid, uint64_t after_lsn,
                              const struct hash128 *chain, struct remote_pull *ret_pull,
                              uint32_t *ret_retry_after_ms, struct graft_error *err)
{
    Graft__PullRequest request = GRAFT__PULL_REQUEST__INIT;
    struct graft_error why;
    struct remote_pull pull = {0};
    MESSAGE_GUARD(answer);

    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.after_lsn = after_lsn;
    request.chain = binary_of(chain->bytes, HASH_SIZE);
    enum graft_status status = metastore_call_paced(
        remote, "pull", &request.base, &graft__pull_response__descriptor, &answer, ret_retry_after_ms, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__PullResponse *response = (Graft__PullResponse *)answer;
    status = snapshot_take(response->head, vid, "pull", &pull.head, err);
    if (status != GRAFT_OK)
        return status;
    if (pull.head.lsn < after_lsn)
        return remote_protocol_error(err, "pull", "has a head below the LSN that was asked with");
    pull.cut = response->cut;
    pull.everything = response->everything;
    if (pull.cut > pull.head.page_count)
        return remote_protocol_error(err, "pull", "has a cut beyond page_count");
    if (pageset_decode(bytes_of(&response->changed), PAGESET_RUNS_MAX, "changed", &pull.changed, &why) !=
        GRAFT_OK)
        return remote_protocol_error(err, "pull", why.message);
    if (pageset_max(pull.changed) > pull.head.page_count) {
        remote_pull_release(&pull);
        return remote_protocol_error(err, "pull", "names changed pages beyond page_count");
    }
    *ret_pull = pull;
    return GRAFT_OK;
}

enum graft_status remote_commit(const struct remote *remote, struct bytes request,
                                struct remote_commit *ret_commit, struct rpc_failure *ret_failure,
                                struct graft_error *err)
{
    struct rpc_target target;
    struct remote_commit commit;
    MESSAGE_GUARD(answer);

    *ret_failure = (struct rpc_failure){0};
    enum graft_status status = remote_target(remote, remote->metastore, "metastore", &target, err);
    if (status == GRAFT_OK)
        status = FAILPOINT_ERROR("remote.commit.before", err);
    if (status == GRAFT_OK)
        status = rpc_call_bytes(&target, "commit", request, &graft__commit_response__descriptor, &answer,
                                ret_failure, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("remote.commit.after");
    const Graft__CommitResponse *response = (Graft__CommitResponse *)answer;
    ret_failure->sent = true;
    if (token_from_bytes(bytes_of(&response->token), "token", &commit.token, NULL) != GRAFT_OK ||
        hash_from_bytes(bytes_of(&response->digest), "digest", &commit.digest, NULL) != GRAFT_OK)
        return remote_protocol_error(err, "commit", "lacks the token or the digest");
    status = snapshot_take(response->snapshot, NULL, "commit", &commit.snapshot, err);
    if (status == GRAFT_OK)
        *ret_commit = commit;
    return status;
}

enum graft_status remote_delete_volume(const struct remote *remote, const struct gid *vid,
                                       const struct token *token, struct graft_error *err)
{
    Graft__DeleteVolumeRequest request = GRAFT__DELETE_VOLUME_REQUEST__INIT;
    MESSAGE_GUARD(answer);

    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.token = binary_of(token->bytes, TOKEN_SIZE);
    return metastore_call(remote, "delete_volume", &request.base, &graft__delete_volume_response__descriptor,
                          &answer, err);
}

// One answer of list_volumes. *ret_more: *ret_after names where to go on.
static enum graft_status list_once(const struct remote *remote, struct gid *after, bool has_after,
                                   bool (*visit)(void *, const struct snapshot *), void *context,
                                   bool *ret_more, struct graft_error *err)
{
    Graft__ListVolumesRequest request = GRAFT__LIST_VOLUMES_REQUEST__INIT;
    MESSAGE_GUARD(answer);

    if (has_after)
        request.after = binary_of(after->bytes, GID_SIZE);
    enum graft_status status = metastore_call(remote, "list_volumes", &request.base,
                                              &graft__list_volumes_response__descriptor, &answer, err);
    if (status != GRAFT_OK)
        return status;
    const Graft__ListVolumesResponse *response = (Graft__ListVolumesResponse *)answer;
    for (size_t i = 0; i < response->n_heads; i++) {
        struct snapshot head;
        status = snapshot_take(response->heads[i], NULL, "list_volumes", &head, err);
        if (status != GRAFT_OK)
            return status;
        if (!visit(context, &head)) {
            *ret_more = false;
            return GRAFT_OK;
        }
    }
    *ret_more = response->next.len > 0;
    if (!*ret_more)
        return GRAFT_OK;
    struct gid next;
    if (gid_from_bytes(bytes_of(&response->next), GID_VOLUME, "next", &next, NULL) != GRAFT_OK ||
        (has_after && gid_compare(&next, after) <= 0))
        return remote_protocol_error(err, "list_volumes", "has a `next` that leads nowhere");
    *after = next;
    return GRAFT_OK;
}

enum graft_status remote_list_volumes(const struct remote *remote,
                                      bool (*visit)(void *context, const struct snapshot *head),
                                      void *context, struct graft_error *err)
{
    struct gid after = {0};
    bool more = true;

    for (bool has_after = false; more; has_after = true) {
        enum graft_status status = list_once(remote, &after, has_after, visit, context, &more, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static void stream_end_error(const Graft__StreamEnd *end, const char *call, struct graft_error *ret_error)
{
    if (end->error)
        error_from_message(end->error, ret_error);
    else
        error_set(ret_error, status_from_wire(end->status), GRAFT_DETAIL_NONE,
                  "%s: the server ended the stream", call);
}

struct commits_call {
    struct gid vid;
    uint64_t next_lsn, to_lsn;
    enum graft_status (*visit)(void *, const Graft__Commit *, struct graft_error *);
    void *context;
};

static enum graft_status commits_frame(void *context, struct bytes frame, bool *ret_end,
                                       struct graft_error *err)
{
    struct commits_call *call = context;
    MESSAGE_GUARD(message);

    enum graft_status status =
        message_decode(&graft__commits_frame__descriptor, frame, 4 * COMMIT_RECORD_SIZE_MAX, &message, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "commits: a frame of the answer");
    const Graft__CommitsFrame *parsed = (Graft__CommitsFrame *)message;
    if (parsed->frame_case == GRAFT__COMMITS_FRAME__FRAME_END) {
        *ret_end = true;
        if (parsed->end->status != GRAFT_OK) {
            struct graft_error why;
            stream_end_error(parsed->end, "commits", &why);
            return error_copy(err, &why);
        }
        return GRAFT_OK;
    }
    if (parsed->frame_case != GRAFT__COMMITS_FRAME__FRAME_COMMIT)
        return GRAFT_OK; // a frame of a later version
    const Graft__Commit *commit = parsed->commit;
    struct gid vid;
    if (gid_from_bytes(bytes_of(&commit->vid), GID_VOLUME, "vid", &vid, NULL) != GRAFT_OK ||
        !gid_equal(&vid, &call->vid))
        return remote_protocol_error(err, "commits", "is about another volume");
    if (commit->lsn < call->next_lsn || (call->to_lsn && commit->lsn > call->to_lsn))
        return remote_protocol_error(err, "commits", "has an LSN out of order");
    call->next_lsn = commit->lsn + 1;
    return call->visit(call->context, commit, err);
}

enum graft_status remote_commits(const struct remote *remote, const struct gid *vid, uint64_t from_lsn,
                                 uint64_t to_lsn,
                                 enum graft_status (*visit)(void *context, const Graft__Commit *commit,
                                                            struct graft_error *err),
                                 void *context, struct graft_error *err)
{
    Graft__CommitsRequest request = GRAFT__COMMITS_REQUEST__INIT;
    struct commits_call call = {
        .vid = *vid, .next_lsn = from_lsn, .to_lsn = to_lsn, .visit = visit, .context = context};
    struct rpc_target target;
    struct rpc_stream *stream;

    request.vid = binary_of(vid->bytes, GID_SIZE);
    request.from_lsn = from_lsn;
    request.to_lsn = to_lsn;
    enum graft_status status = remote_target(remote, remote->metastore, "metastore", &target, err);
    if (status != GRAFT_OK)
        return status;
    target.deadline_ms = 0;
    status = rpc_stream_start(&target, "commits", &request.base, COMMIT_RECORD_SIZE_MAX + 64,
                              remote->deadline_ms, commits_frame, &call, &stream, err);
    if (status != GRAFT_OK)
        return status;
    return rpc_stream_finish(stream, NULL, err);
}

// ---- watch --------------------------------------------------------------------------------------

static enum graft_status watch_trouble(struct remote_watch *watch, const Graft__WatchTrouble *trouble,
                                       struct graft_error *err)
{
    struct graft_error why;
    struct gid vid;

    if (gid_from_bytes(bytes_of(&trouble->vid), GID_VOLUME, "vid", &vid, &why) != GRAFT_OK)
        return remote_protocol_error(err, "watch", why.message);
    enum graft_status status = status_from_wire(trouble->status);
    error_set(&why, status == GRAFT_OK ? GRAFT_UNAVAILABLE : status, detail_from_wire(trouble->detail),
              status == GRAFT_NOT_FOUND ? "volume %s is not known to the metastore"
                                        : "the metastore cannot tell the head of volume %s",
              gid_format(&vid).text);
    watch->trouble(watch->context, &vid, &why);
    return GRAFT_OK;
}

static enum graft_status watch_frame(void *context, struct bytes frame, bool *ret_end,
                                     struct graft_error *err)
{
    struct remote_watch *watch = context;
    MESSAGE_GUARD(message);

    enum graft_status status =
        message_decode(&graft__watch_frame__descriptor, frame, 8 * WATCH_FRAME_SIZE_MAX, &message, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "watch: a frame of the answer");
    const Graft__WatchFrame *parsed = (Graft__WatchFrame *)message;
    for (size_t i = 0; i < parsed->n_heads; i++) {
        struct snapshot head;
        status = snapshot_take(parsed->heads[i], NULL, "watch", &head, err);
        if (status != GRAFT_OK)
            return status;
        FAILPOINT("remote.watch.head");
        watch->head(watch->context, &head);
    }
    for (size_t i = 0; i < parsed->n_troubles; i++) {
        status = watch_trouble(watch, parsed->troubles[i], err);
        if (status != GRAFT_OK)
            return status;
    }
    if (!parsed->end)
        return GRAFT_OK;
    *ret_end = true;
    struct graft_error why;
    stream_end_error(parsed->end, "watch", &why);
    if (why.status == GRAFT_OK)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_STOPPING, "watch: the server ended the stream");
    return error_copy(err, &why);
}

enum graft_status remote_watch_start(const struct remote *remote, const char *url,
                                     const struct remote_watch_item *items, size_t item_count,
                                     struct remote_watch *watch, struct graft_error *err)
{
    if (item_count > WATCH_VOLUMES_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "one watch takes at most %u volumes",
                         WATCH_VOLUMES_MAX);
    Graft__WatchRequest request = GRAFT__WATCH_REQUEST__INIT;
    struct rpc_target target;
    enum graft_status status = remote_target(remote, url, "watch service", &target, err);
    if (status != GRAFT_OK)
        return status;
    target.deadline_ms = 0;
    _cleanup_(free_p) Graft__WatchItem *messages = calloc(item_count + 1, sizeof *messages);
    _cleanup_(free_p) Graft__WatchItem **list = calloc(item_count + 1, sizeof *list);
    if (!messages || !list)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                         "no memory for the list of watched volumes");
    for (size_t i = 0; i < item_count; i++) {
        messages[i] = (Graft__WatchItem)GRAFT__WATCH_ITEM__INIT;
        messages[i].vid = binary_of(items[i].vid.bytes, GID_SIZE);
        messages[i].after_lsn = items[i].after_lsn;
        list[i] = &messages[i];
    }
    request.items = list;
    request.n_items = item_count;
    status = FAILPOINT_ERROR("remote.watch.before", err);
    if (status != GRAFT_OK)
        return status;
    return rpc_stream_start(&target, "watch", &request.base, WATCH_FRAME_SIZE_MAX, WATCH_STALL_MS,
                            watch_frame, watch, &watch->stream, err);
}

enum graft_status remote_watch_finish(struct remote_watch *watch, uint32_t *ret_retry_after_ms,
                                      struct graft_error *err)
{
    struct rpc_failure failure = {0};
    enum graft_status status = rpc_stream_finish(TAKE(watch->stream), &failure, err);
    if (status != GRAFT_OK && ret_retry_after_ms)
        *ret_retry_after_ms = failure.retry_after_ms;
    return status;
}

enum graft_status remote_watch_url(const struct remote *remote, char **ret_url, struct graft_error *err)
{
    struct rpc_target target;
    char url[URL_SIZE_MAX + 16];
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(INFO_RESPONSE_SIZE_MAX);
    struct http_outcome outcome = {0};

    enum graft_status status = remote_target(remote, remote->metastore, "metastore", &target, err);
    if (status != GRAFT_OK)
        return status;
    snprintf(url, sizeof url, "%s/v1/info", remote->metastore);
    struct http_exchange_spec spec = {.url = url,
                                      .bearer = remote->bearer,
                                      .deadline_ms = remote->deadline_ms,
                                      .response_max = INFO_RESPONSE_SIZE_MAX};
    status = FAILPOINT_ERROR("remote.info.before", err);
    if (status == GRAFT_OK)
        status = http_client_call(remote->http, &spec, &body, &outcome, err);
    FAILPOINT("remote.info.after");
    if (status != GRAFT_OK)
        return error_context(err, status, "asking %s where it can be watched", url);
    json_t *info = json_loadb((const char *)body.data, body.size, 0, NULL);
    const char *watch = json_string_value(json_object_get(info, "watch"));
    char *found = watch && *watch && strlen(watch) <= URL_SIZE_MAX ? base_url_copy(watch) : NULL;
    json_decref(info);
    if (!found)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL, "%s names no place to watch", url);
    *ret_url = found;
    return GRAFT_OK;
}
