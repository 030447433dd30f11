// SPDX-License-Identifier: Apache-2.0
//
// Questions to the servers that need no local replica: what volumes there are, their logs, their heads as
// they move.
#include <stdlib.h>

#include "client/client.h"
#include "client/patience.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/random.h"

#define LOG_CHUNK 256u // commits asked for at once
#define WATCH_TICK_US 1000000u

static struct graft_remote_head remote_head_of(const struct snapshot *snapshot)
{
    struct graft_remote_head head = {
        .lsn = snapshot->lsn,
        .page_count = snapshot->page_count,
        .page_size = snapshot->page_size,
        .kind = snapshot->variable ? GRAFT_VARIABLE : GRAFT_FIXED,
        .time_ms = snapshot->time_ms,
        .deleted = snapshot->deleted,
    };
    memcpy(head.vid, gid_format(&snapshot->vid).text, sizeof head.vid);
    return head;
}

struct list_call {
    bool (*visit)(void *context, const struct graft_remote_head *head);
    void *context;
};

static bool list_visit(void *context, const struct snapshot *snapshot)
{
    struct list_call *call = context;
    struct graft_remote_head head = remote_head_of(snapshot);

    return call->visit(call->context, &head);
}

enum graft_status graft_remote_list(struct graft *client,
                                    bool (*visit)(void *context, const struct graft_remote_head *head),
                                    void *context, struct graft_error *err)
{
    struct list_call call = {visit, context};

    REQUIRE(client);
    REQUIRE(visit);
    enum graft_status status = store_check_fork(client->store, err);
    if (status != GRAFT_OK)
        return status;
    return remote_list_volumes(&client->remote, list_visit, &call, err);
}

static enum graft_status call_begin(struct graft *client, const char *vid_text, struct gid *ret_vid,
                                    struct graft_error *err)
{
    enum graft_status status = store_check_fork(client->store, err);

    return status == GRAFT_OK ? gid_parse(vid_text, GID_VOLUME, ret_vid, err) : status;
}

enum graft_status graft_remote_delete(struct graft *client, const char *vid, struct graft_error *err)
{
    struct patience patience;
    struct graft_error why;
    struct token token;
    struct gid gid;

    REQUIRE(client);
    REQUIRE(vid);
    enum graft_status status = call_begin(client, vid, &gid, err);
    if (status != GRAFT_OK)
        return status;
    random_bytes(token.bytes, TOKEN_SIZE);
    patience_init(&patience, client->remote.http, client->remote.deadline_ms);
    while (remote_delete_volume(&client->remote, &gid, &token, &why) != GRAFT_OK) {
        if (!patience_wait(&patience, &why, 0)) {
            error_copy(err, &why);
            return error_context(err, why.status, "deleting volume %s", vid);
        }
    }
    return GRAFT_OK;
}

// ---- the log ------------------------------------------------------------------------------------

struct log_chunk {
    struct graft_commit_info commits[LOG_CHUNK]; // ascending
    size_t count;
};

static enum graft_status log_commit(void *context, const Graft__Commit *commit, struct graft_error *err)
{
    struct log_chunk *chunk = context;
    struct gid cid;

    if (chunk->count == LOG_CHUNK)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                         "commits: more came than were asked for");
    struct graft_commit_info *info = &chunk->commits[chunk->count++];
    *info = (struct graft_commit_info){
        .lsn = commit->lsn,
        .time_ms = commit->time_ms,
        .segment_count = (uint32_t)commit->n_segments,
        .page_count = commit->page_count,
        .deleted = commit->deleted,
    };
    // A commit that the servers made by themselves names no client.
    if (gid_from_bytes(bytes_of(&commit->cid), GID_CLIENT, "cid", &cid, NULL) == GRAFT_OK)
        memcpy(info->client, gid_format(&cid).text, sizeof info->client);
    for (size_t i = 0; i < commit->n_segments; i++) {
        struct page_run run;
        size_t offset = 0;
        uint32_t last = 0;
        int more;
        while ((more = pageset_wire_next(bytes_of(&commit->segments[i]->pages), &offset, &last, &run)) > 0)
            info->pages_changed += run.count;
        if (more < 0)
            return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL,
                             "commits: commit %llu holds a malformed page set",
                             (unsigned long long)commit->lsn);
    }
    return GRAFT_OK;
}

enum graft_status graft_remote_log(struct graft *client, const char *vid, uint64_t limit,
                                   bool (*visit)(void *context, const struct graft_commit_info *commit),
                                   void *context, struct graft_error *err)
{
    struct snapshot head;
    struct gid gid;

    REQUIRE(client);
    REQUIRE(vid);
    REQUIRE(visit);
    enum graft_status status = call_begin(client, vid, &gid, err);
    if (status == GRAFT_OK)
        status = remote_live_snapshot(&client->remote, &gid, 0, &head, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(free_p) struct log_chunk *chunk = malloc(sizeof *chunk);
    if (!chunk)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a volume's log");
    uint64_t left = limit ? limit : UINT64_MAX;
    for (uint64_t to = head.lsn; to > 0 && left > 0;) {
        uint64_t reach = MIN(to, left);
        uint64_t count = MIN(reach, (uint64_t)LOG_CHUNK);
        chunk->count = 0;
        status = remote_commits(&client->remote, &gid, to - count + 1, to, log_commit, chunk, err);
        if (status != GRAFT_OK)
            return status;
        for (size_t i = chunk->count; i > 0; i--) {
            if (!visit(context, &chunk->commits[i - 1]))
                return GRAFT_OK;
        }
        to -= count;
        left -= count;
    }
    return GRAFT_OK;
}

// ---- watching -----------------------------------------------------------------------------------

struct watched_head {
    struct snapshot head;
    bool known, fresh;
};

// Between the stream, on the HTTP client's thread, and the caller.
struct watch_call {
    struct mutex lock; // RANK_LEAF
    struct cond wake;
    bool ended;                 // lock
    struct graft_error trouble; // lock: of the first volume whose head cannot be told; the watch ends with it
    struct remote_watch_item *items;
    struct watched_head *heads; // lock; one for each item
    size_t count;
};

static void watch_head(void *context, const struct snapshot *head)
{
    struct watch_call *call = context;

    mutex_lock(&call->lock);
    for (size_t i = 0; i < call->count; i++) {
        struct watched_head *watched = &call->heads[i];
        if (!gid_equal(&call->items[i].vid, &head->vid) || (watched->known && head->lsn <= watched->head.lsn))
            continue;
        *watched = (struct watched_head){.head = *head, .known = true, .fresh = true};
    }
    mutex_unlock(&call->lock);
    cond_signal(&call->wake);
}

static void watch_trouble(void *context, const struct gid *vid, const struct graft_error *why)
{
    struct watch_call *call = context;

    (void)vid;
    LOCK_GUARD(&call->lock);
    if (call->trouble.status == GRAFT_OK)
        call->trouble = *why;
    cond_signal(&call->wake);
}

static void watch_end(void *context)
{
    struct watch_call *call = context;

    LOCK_GUARD(&call->lock);
    call->ended = true;
    cond_signal(&call->wake);
}

// Shows what is fresh. False: the caller has had enough.
static bool watch_show(struct watch_call *call, bool (*visit)(void *, const struct graft_remote_head *),
                       void *context)
{
    for (size_t i = 0; i < call->count; i++) {
        mutex_lock(&call->lock);
        bool fresh = call->heads[i].fresh;
        struct graft_remote_head head = remote_head_of(&call->heads[i].head);
        call->heads[i].fresh = false;
        mutex_unlock(&call->lock);
        if (fresh && !visit(context, &head))
            return false;
    }
    return true;
}

static bool watch_anything_locked(const struct watch_call *call)
{
    for (size_t i = 0; i < call->count; i++) {
        if (call->heads[i].fresh)
            return true;
    }
    return call->ended || call->trouble.status != GRAFT_OK;
}

// Until the caller has had enough (true) or the stream has ended.
static bool watch_loop(struct watch_call *call, bool (*visit)(void *, const struct graft_remote_head *),
                       void *context)
{
    for (;;) {
        uint64_t tick_us = clock_monotonic_us(clock_system()) + WATCH_TICK_US;
        bool ticked = false;
        mutex_lock(&call->lock);
        while (!watch_anything_locked(call) && !ticked)
            ticked = !cond_wait_until(&call->wake, &call->lock, tick_us);
        bool ended = call->ended || call->trouble.status != GRAFT_OK;
        mutex_unlock(&call->lock);
        if (!watch_show(call, visit, context) || (ticked && !visit(context, NULL)))
            return true;
        if (ended)
            return false;
    }
}

static enum graft_status watch_run(struct graft *client, struct watch_call *call,
                                   bool (*visit)(void *, const struct graft_remote_head *), void *context,
                                   struct graft_error *err)
{
    struct remote_watch watch = {.head = watch_head, .trouble = watch_trouble, .context = call};
    _cleanup_(free_p) char *url = NULL;

    // The heads as they are, so that each is shown at once.
    for (size_t i = 0; i < call->count; i++) {
        struct snapshot head;
        enum graft_status status = remote_snapshot(&client->remote, &call->items[i].vid, 0, &head, err);
        if (status != GRAFT_OK)
            return status;
        call->items[i].after_lsn = head.lsn;
        watch_head(call, &head);
    }
    enum graft_status status = remote_watch_url(&client->remote, &url, err);
    if (status == GRAFT_OK)
        status = remote_watch_start(&client->remote, url, call->items, call->count, &watch, err);
    if (status != GRAFT_OK)
        return status;
    rpc_stream_on_end(watch.stream, watch_end, call);
    bool enough = watch_loop(call, visit, context);
    mutex_lock(&call->lock);
    bool ended = call->ended;
    mutex_unlock(&call->lock);
    if (!ended)
        rpc_stream_cancel(watch.stream);
    status = remote_watch_finish(&watch, NULL, err); // from here on nobody else has `call`
    if (enough)
        return GRAFT_OK;
    if (call->trouble.status != GRAFT_OK)
        return error_copy(err, &call->trouble);
    return status != GRAFT_OK
               ? status
               : error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_TRUNCATED, "the watch has ended");
}

enum graft_status graft_remote_watch(struct graft *client, const char *const *vids, size_t vid_count,
                                     bool (*visit)(void *context, const struct graft_remote_head *head),
                                     void *context, struct graft_error *err)
{
    REQUIRE(client);
    REQUIRE(vids);
    REQUIRE(visit);
    if (vid_count == 0 || vid_count > WATCH_VOLUMES_MAX)
        return error_set(err, vid_count ? GRAFT_LIMIT : GRAFT_INVALID,
                         vid_count ? GRAFT_DETAIL_TOO_LARGE : GRAFT_DETAIL_BAD_ARGUMENT,
                         "one watch takes 1 to %u volumes", WATCH_VOLUMES_MAX);
    _cleanup_(free_p) struct remote_watch_item *items = calloc(vid_count, sizeof *items);
    _cleanup_(free_p) struct watched_head *heads = calloc(vid_count, sizeof *heads);
    if (!items || !heads)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to watch %zu volumes",
                         vid_count);
    enum graft_status status = GRAFT_OK;
    for (size_t i = 0; i < vid_count && status == GRAFT_OK; i++) {
        REQUIRE(vids[i]);
        status = call_begin(client, vids[i], &items[i].vid, err);
    }
    if (status != GRAFT_OK)
        return status;
    struct watch_call call = {.items = items, .heads = heads, .count = vid_count};
    mutex_init(&call.lock, RANK_LEAF);
    cond_init(&call.wake);
    status = watch_run(client, &call, visit, context, err);
    cond_release(&call.wake);
    mutex_release(&call.lock);
    return status;
}
