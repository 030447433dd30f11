// SPDX-License-Identifier: Apache-2.0
//
// Opening and closing a client, and what concerns its volumes as a whole.
#include "client/client.h"

#include <stdlib.h>
#include <string.h>

#include "client/prepare.h"
#include "client/sync.h"

const char *graft_version(void)
{
    return GRAFT_VERSION_STRING;
}

const char *graft_status_text(enum graft_status status)
{
    return graft_status_name(status);
}

const char *graft_detail_text(enum graft_detail detail)
{
    return graft_detail_name(detail);
}

const char *graft_volume_status_text(enum graft_volume_status status)
{
    static const char *const texts[] = {"ok", "rejected", "unknown", "gone", "corrupt"};
    return (size_t)status < ARRAY_COUNT(texts) ? texts[status] : "?";
}

const char *graft_volume_status_advice(enum graft_volume_status status)
{
    switch (status) {
    case GRAFT_VOLUME_OK:
        break;
    case GRAFT_VOLUME_REJECTED:
        return "its local commits are kept: `reset` drops them, `fork` takes them into a new volume";
    case GRAFT_VOLUME_UNKNOWN:
        return "the next push goes on with it, and lands it at most once";
    case GRAFT_VOLUME_GONE:
        return "`export` keeps what is here; `reset` drops the local commits";
    case GRAFT_VOLUME_CORRUPT:
        return "`reset --reattach` drops what is here and follows the servers' history; `export` keeps a copy first";
    }
    return "";
}

enum graft_status client_missing_argument(struct graft_error *err, const char *call, const char *argument)
{
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "%s: `%s` is NULL", call, argument);
}

bool client_is_forked(const struct graft *client)
{
    return store_check_fork(client->store, NULL) != GRAFT_OK;
}

enum graft_status graft_open(const struct graft_settings *settings, struct graft **ret_client,
                             struct graft_error *err)
{
    REQUIRE(settings);
    REQUIRE(settings->data);
    REQUIRE(ret_client);
    if (settings->durability != GRAFT_DURABILITY_FULL && settings->durability != GRAFT_DURABILITY_NORMAL)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "durability %d is unknown",
                         (int)settings->durability);
    struct graft *client = calloc(1, sizeof *client);
    if (!client)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a client");
    client->data = strdup(settings->data);
    if (!client->data) {
        free(client);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a client");
    }
    struct store_settings store_settings = {.directory = settings->data,
                                            .memory_size = settings->memory_size,
                                            .cache_limit = settings->cache_limit,
                                            .durability = settings->durability};
    enum graft_status status = store_open(&store_settings, &client->store, err);
    if (status != GRAFT_OK)
        goto no_store;
    status = remote_init(&client->remote, settings->metastore, settings->pagestore, settings->bearer,
                         settings->deadline_ms ? settings->deadline_ms : DEADLINE_DEFAULT_MS, err);
    if (status != GRAFT_OK)
        goto no_remote;
    status = fetcher_new(&client->remote, &client->fetcher, err);
    if (status != GRAFT_OK)
        goto no_fetcher;
    mutex_init(&client->lock, RANK_CLIENT);
    LIST_INIT(&client->volumes);
    status = prepare_settle_all(client, err);
    if (status != GRAFT_OK) {
        graft_close(client);
        return status;
    }
    *ret_client = client;
    return GRAFT_OK;

no_fetcher:
    remote_release(&client->remote);
no_remote:
    store_close(client->store);
no_store:
    free(client->data);
    free(client);
    return status;
}

static void client_free(struct graft *client)
{
    sync_free(client->sync);
    remote_release(&client->remote);
    fetcher_free(client->fetcher);
    store_close(client->store);
    mutex_release(&client->lock);
    free(client->data);
    free(client);
}

void graft_close(struct graft *client)
{
    if (!client)
        return;
    if (client_is_forked(client)) {
        // The threads are the parent's; only what lies in this process's hands is let go.
        store_close(client->store);
        return;
    }
    http_client_stop(client->remote.http); // what the sync thread waits for ends
    sync_end(client->sync);
    mutex_lock(&client->lock);
    client->closed = true;
    bool last = client->volume_count == 0;
    mutex_unlock(&client->lock);
    if (last)
        client_free(client);
}

void client_volume_gone(struct graft *client)
{
    mutex_lock(&client->lock);
    bool last = --client->volume_count == 0 && client->closed;
    mutex_unlock(&client->lock);
    if (last)
        client_free(client);
}

enum graft_status graft_volume_delete(struct graft *client, const char *vid_text, struct graft_error *err)
{
    struct gid vid;

    REQUIRE(client);
    REQUIRE(vid_text);
    enum graft_status status = store_check_fork(client->store, err);
    if (status == GRAFT_OK)
        status = gid_parse(vid_text, GID_VOLUME, &vid, err);
    if (status != GRAFT_OK)
        return status;
    return store_volume_delete(client->store, &vid, err);
}

enum graft_status graft_cache_limit_set(struct graft *client, uint64_t limit, struct graft_error *err)
{
    REQUIRE(client);
    enum graft_status status = store_check_fork(client->store, err);
    return status == GRAFT_OK ? store_cache_limit_set(client->store, limit, err) : status;
}

enum graft_status graft_cache_info(struct graft *client, struct graft_cache_info *ret_info,
                                   struct graft_error *err)
{
    struct store_cache_usage usage;

    REQUIRE(client);
    REQUIRE(ret_info);
    enum graft_status status = store_check_fork(client->store, err);
    if (status != GRAFT_OK)
        return status;
    store_cache_usage(client->store, &usage);
    *ret_info = (struct graft_cache_info){
        .limit = usage.limit,
        .size = usage.size,
        .live = usage.live,
        .evicted_pages = usage.evicted_pages,
        .evicted_bytes = usage.evicted_size,
    };
    return GRAFT_OK;
}

struct list_call {
    bool (*visit)(void *context, const char *vid);
    void *context;
};

static bool list_visit(void *context, const struct gid *vid)
{
    struct list_call *call = context;
    return call->visit(call->context, gid_format(vid).text);
}

enum graft_status graft_volume_list(struct graft *client, bool (*visit)(void *context, const char *vid),
                                    void *context, struct graft_error *err)
{
    struct list_call call = {visit, context};

    REQUIRE(client);
    REQUIRE(visit);
    enum graft_status status = store_check_fork(client->store, err);
    if (status != GRAFT_OK)
        return status;
    return store_volume_list(client->store, list_visit, &call, err);
}
