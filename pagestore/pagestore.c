// SPDX-License-Identifier: Apache-2.0
#include "pagestore/pagestore.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/base/log.h"
#include "pagestore/page_read.h"
#include "pagestore/upload.h"

#define METASTORE_DEADLINE_MS 5000u
#define VOLUMES_REMEMBERED 16384u
#define CALL_THREADS 2u
#define CALLS_WAITING_MAX 64u

// On a full disk there is nothing to prove with, and nothing to write either: reads are served.
static enum graft_status prove_store(struct objstore *store, struct graft_error *err)
{
    struct graft_error error;
    enum graft_status status = objstore_prove(store, &error);
    if (status == GRAFT_OK)
        return GRAFT_OK;
    if (error.detail != GRAFT_DETAIL_NO_SPACE)
        return error_copy(err, &error);
    log_warn("store_not_proven", "%s", log_format_error(&error).text);
    return GRAFT_OK;
}

static enum graft_status open_store(struct pagestore *pagestore,
                                    void (*on_fatal)(void *context, const struct graft_error *error),
                                    void *context, struct graft_error *err)
{
    struct objstore_settings settings = {
        .metrics = pagestore->metrics,
        .on_fatal = on_fatal,
        .context = context,
        .disk_reserve = pagestore->settings->disk_reserve,
    };
    enum graft_status status = objstore_open(pagestore->settings->store, &settings, &pagestore->store, err);
    if (status == GRAFT_OK)
        status = prove_store(pagestore->store, err);
    return status == GRAFT_OK
               ? status
               : error_context(err, status, "opening the store %s", pagestore->settings->store);
}

static enum graft_status connect_metastore(struct pagestore *pagestore, struct graft_error *err)
{
    struct http_client_settings settings = {.metrics = pagestore->metrics};
    enum graft_status status = http_client_new(&settings, &pagestore->http, err);
    pagestore->metastore = (struct rpc_target){
        .http = pagestore->http,
        .url = pagestore->settings->metastore,
        .deadline_ms = METASTORE_DEADLINE_MS,
    };
    if (status == GRAFT_OK)
        status = volume_infos_new(volume_info_fetch, &pagestore->metastore, VOLUMES_REMEMBERED,
                                  &pagestore->volumes, err);
    return status;
}

static enum graft_status start_uploads(struct pagestore *pagestore, struct graft_error *err)
{
    struct uploads_settings settings = {
        .store = pagestore->store,
        .volumes = pagestore->volumes,
        .key = &pagestore->key,
        .metrics = pagestore->metrics,
        .workers = (unsigned)pagestore->settings->workers,
        .segment_linger_ms = pagestore->settings->segment_linger_ms,
    };
    return uploads_new(&settings, &pagestore->uploads, err);
}

static enum graft_status start_reader(struct pagestore *pagestore,
                                      void (*on_fatal)(void *context, const struct graft_error *error),
                                      void *context, struct graft_error *err)
{
    const struct pagestore_settings *options = pagestore->settings;
    char index_path[PATH_MAX];
    int size = snprintf(index_path, sizeof index_path, "%s/index", options->cache);
    if (size < 0 || (size_t)size >= sizeof index_path)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "--cache: the path is too long");
    struct page_reader_settings settings = {
        .index_path = index_path,
        .metastore_url = options->metastore,
        .store = pagestore->store,
        .memory_cache = options->memory_cache,
        // Reads need the index: where uploads are refused already, it goes on into the reserve that they left. A new log
        // of its database takes a quarter of the default at once, ahead of what is written to it.
        .disk_reserve = options->disk_reserve / 4,
        .workers = (unsigned)options->workers,
        .metrics = pagestore->metrics,
        .on_fatal = on_fatal,
        .context = context,
    };
    return page_reader_new(&settings, &pagestore->reader, err);
}

enum graft_status pagestore_new(const struct pagestore_settings *settings,
                                void (*on_fatal)(void *context, const struct graft_error *error),
                                void *context, struct pagestore **ret_pagestore, struct graft_error *err)
{
    struct pagestore *pagestore = calloc(1, sizeof *pagestore);
    if (!pagestore)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the pagestore");
    pagestore->settings = settings;
    pagestore->metrics = metrics_new();
    pagestore->admin = (struct admin){.metrics = pagestore->metrics};
    metrics_add_process(pagestore->metrics);
    enum graft_status status = cluster_key_load(settings->cluster_key, &pagestore->key, err);
    if (status == GRAFT_OK)
        status = open_store(pagestore, on_fatal, context, err);
    if (status == GRAFT_OK)
        status = connect_metastore(pagestore, err);
    if (status == GRAFT_OK)
        status = start_uploads(pagestore, err);
    if (status == GRAFT_OK)
        status = start_reader(pagestore, on_fatal, context, err);
    if (status == GRAFT_OK)
        status = pool_new("calls", CALL_THREADS, CALLS_WAITING_MAX, &pagestore->calls, err);
    if (status != GRAFT_OK) {
        pagestore_free(pagestore);
        return status;
    }
    *ret_pagestore = pagestore;
    return GRAFT_OK;
}

void pagestore_free(struct pagestore *pagestore)
{
    if (!pagestore)
        return;
    pool_free(pagestore->calls);
    volume_infos_free(pagestore->volumes); // answers the uploads that ask
    uploads_free(pagestore->uploads);
    http_client_free(pagestore->http);
    objstore_close(pagestore->store); // waits for what the reader's cache still loads
    page_reader_free(pagestore->reader);
    metrics_free(pagestore->metrics);
    free(pagestore);
}
