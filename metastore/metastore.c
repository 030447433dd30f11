// SPDX-License-Identifier: Apache-2.0
//
// Everything is built from the store upwards and taken down in the order that keeps each callback's target
// alive: streams end, servers stop, readers and operations finish, then what they reported to, the store
// last.
#include "metastore/metastore.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/net/admin_routes.h"
#include "metastore/backup.h"
#include "metastore/calls.h"
#include "metastore/shared_store.h"
#include "metastore/summary.h"

#define READER_THREADS 2u
#define CONNECTION_MEMORY (16 * 1024u)
#define WATCH_CONNECTION_MEMORY (4 * 1024u)
#define IDLE_TIMEOUT_MS 120000u
// A watcher that takes nothing of a heartbeat for this long is gone.
#define WATCH_IDLE_TIMEOUT_MS 60000u
// Of STOP_TIME_MAX_MS: for calls under way, and for streams of watch.
#define DRAIN_MS 7000u
#define WATCH_DRAIN_MS 1500u

struct metastore {
    struct metrics *metrics;
    struct cluster_key key;
    struct objstore *store;
    struct summariser *summariser;
    struct volume_table *volumes;
    struct sequencer *sequencer;
    struct pool *readers, *long_jobs;
    struct watch_hub *hub;
    struct shared_store *shared; // NULL: nobody else writes to the store
    struct calls calls;
    struct admin admin;
    struct http_server *server, *watch_server;
};

// A head moved or became known: whoever watches is told, and every 256th commit is summarised. A volume
// that was just loaded may be due from before.
static void on_head(void *context, const struct snapshot *head, bool loaded)
{
    struct metastore *metastore = context;
    watch_hub_moved(metastore->hub, head);
    if (head->lsn >= SUMMARY_SMALL && (loaded || head->lsn % SUMMARY_SMALL == 0))
        summariser_note(metastore->summariser, &head->vid, head->lsn);
}

static enum graft_status open_store(struct metastore *metastore, const struct settings *settings,
                                    void (*on_fatal)(void *context, const struct graft_error *error),
                                    void *context, struct graft_error *err)
{
    const struct objstore_settings store = {.metrics = metastore->metrics,
                                            .on_fatal = on_fatal,
                                            .context = context,
                                            .disk_reserve = settings->disk_reserve};
    enum graft_status status = backup_check_store(settings->store, err);
    if (status == GRAFT_OK)
        status = objstore_open(settings->store, &store, &metastore->store, err);
    struct graft_error unproven;
    if (status == GRAFT_OK && objstore_prove(metastore->store, &unproven) != GRAFT_OK) {
        // A full disk refuses the proof as it refuses every write; what is there can be read all the same.
        if (unproven.detail == GRAFT_DETAIL_NO_SPACE)
            log_warn("store_not_proven", "%s", log_format_error(&unproven).text);
        else
            status = error_copy(err, &unproven);
    }
    return status == GRAFT_OK ? status : error_context(err, status, "--store %s", settings->store);
}

static enum graft_status build_rooms(struct metastore *metastore, struct graft_error *err)
{
    struct metrics *metrics = metastore->metrics;
    const struct watch_hub_settings hub = {.metrics = metrics, .heartbeat_ms = WATCH_HEARTBEAT_MS};
    enum graft_status status = summariser_new(metastore->store, metrics, &metastore->summariser, err);
    if (status == GRAFT_OK)
        status = watch_hub_new(&hub, &metastore->hub, err);
    if (status == GRAFT_OK)
        status = pool_new("meta-read", READER_THREADS, READ_JOBS_MAX, &metastore->readers, err);
    if (status == GRAFT_OK)
        status = pool_new("meta-long", 1, LONG_JOBS_MAX, &metastore->long_jobs, err);
    if (status != GRAFT_OK)
        return status;
    const bool shared = !objstore_is_exclusive(metastore->store);
    metastore->volumes = volume_table_new(&(struct volume_table_settings){.store = metastore->store,
                                                                          .shared = shared,
                                                                          .metrics = metrics,
                                                                          .volumes_max = VOLUMES_ACTIVE_MAX,
                                                                          .on_head = on_head,
                                                                          .context = metastore});
    metastore->sequencer = sequencer_new(&(struct sequencer_settings){.store = metastore->store,
                                                                      .shared = shared,
                                                                      .volumes = metastore->volumes,
                                                                      .clock = clock_system(),
                                                                      .key = &metastore->key,
                                                                      .metrics = metrics});
    return shared ? shared_store_new(metastore->volumes, metastore->hub, &metastore->shared, err) : GRAFT_OK;
}

static enum graft_status start_watch_server(struct metastore *metastore, const struct settings *settings,
                                            struct graft_error *err)
{
    struct http_route routes[1 + ADMIN_ROUTES];
    routes[0] = calls_watch_route();
    admin_routes(&metastore->admin, &routes[1]);
    const struct http_server_settings server = {.listen = settings->watch_listen,
                                                .routes = routes,
                                                .route_count = ARRAY_COUNT(routes),
                                                .context = &metastore->calls,
                                                .threads = 1,
                                                .connections_max = (unsigned)settings->watchers_max,
                                                .connection_memory = WATCH_CONNECTION_MEMORY,
                                                .idle_timeout_ms = WATCH_IDLE_TIMEOUT_MS,
                                                .metrics_name = "watch",
                                                .metrics = metastore->metrics};
    return http_server_start(&server, &metastore->watch_server, err);
}

static enum graft_status start_server(struct metastore *metastore, const struct settings *settings,
                                      struct graft_error *err)
{
    struct http_route
        routes[CALLS_WRITE + CALLS_READ + CALLS_FORK + CALLS_BACKUP + CALLS_INFO + ADMIN_ROUTES];
    struct http_route *next = routes;
    calls_write_routes(next);
    calls_read_routes(next += CALLS_WRITE);
    calls_fork_routes(next += CALLS_READ);
    calls_backup_routes(next += CALLS_FORK);
    calls_info_routes(next += CALLS_BACKUP);
    admin_routes(&metastore->admin, next + CALLS_INFO);
    const struct http_server_settings server = {.listen = settings->listen,
                                                .routes = routes,
                                                .route_count = ARRAY_COUNT(routes),
                                                .context = &metastore->calls,
                                                .threads = (unsigned)settings->threads,
                                                .connections_max = (unsigned)settings->connections_max,
                                                .connection_memory = CONNECTION_MEMORY,
                                                .idle_timeout_ms = IDLE_TIMEOUT_MS,
                                                .metrics_name = "calls",
                                                .metrics = metastore->metrics};
    return http_server_start(&server, &metastore->server, err);
}

static enum graft_status serve(struct metastore *metastore, const struct settings *settings,
                               struct graft_error *err)
{
    metastore->admin = (struct admin){.metrics = metastore->metrics};
    metastore->calls = (struct calls){
        .store = metastore->store,
        .store_url = settings->store,
        .clock = clock_system(),
        .volumes = metastore->volumes,
        .sequencer = metastore->sequencer,
        .readers = metastore->readers,
        .long_jobs = metastore->long_jobs,
        .hub = metastore->hub,
        .watch_url = settings->watch_url,
        .pagesets_united = metrics_counter(metastore->metrics, "graft_metastore_pagesets_united_total", NULL,
                                           "Page sets of commits and summaries united for pulls.")};
    // Watch first: info tells where it is.
    enum graft_status status = start_watch_server(metastore, settings, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "--watch-listen %s", settings->watch_listen);
    metastore->calls.watch_address = http_server_address(metastore->watch_server);
    status = start_server(metastore, settings, err);
    return status == GRAFT_OK ? status : error_context(err, status, "--listen %s", settings->listen);
}

enum graft_status metastore_start(const struct settings *settings,
                                  void (*on_fatal)(void *context, const struct graft_error *error),
                                  void *context, struct metastore **ret_metastore, struct graft_error *err)
{
    struct metastore *metastore = calloc(1, sizeof *metastore);
    CHECK(metastore);
    metastore->metrics = metrics_new();
    metrics_add_process(metastore->metrics);
    enum graft_status status = cluster_key_load(settings->cluster_key, &metastore->key, err);
    if (status != GRAFT_OK)
        error_context(err, status, "--cluster-key %s", settings->cluster_key);
    if (status == GRAFT_OK)
        status = open_store(metastore, settings, on_fatal, context, err);
    if (status == GRAFT_OK)
        status = build_rooms(metastore, err);
    if (status == GRAFT_OK)
        status = serve(metastore, settings, err);
    if (status != GRAFT_OK) {
        metastore_stop(metastore);
        return status;
    }
    *ret_metastore = metastore;
    return GRAFT_OK;
}

const char *metastore_address(const struct metastore *metastore)
{
    return http_server_address(metastore->server);
}

const char *metastore_watch_address(const struct metastore *metastore)
{
    return http_server_address(metastore->watch_server);
}

void metastore_stop(struct metastore *metastore)
{
    if (!metastore)
        return;
    if (metastore->hub)
        watch_hub_stop(metastore->hub);
    if (metastore->server)
        http_server_drain(metastore->server, DRAIN_MS);
    if (metastore->watch_server)
        http_server_drain(metastore->watch_server, WATCH_DRAIN_MS);
    atomic_store(&metastore->calls.stopping, true);
    http_server_stop(metastore->server);
    http_server_stop(metastore->watch_server);
    pool_free(metastore->long_jobs);
    pool_free(metastore->readers);
    shared_store_free(metastore->shared);
    volume_table_free(metastore->volumes);
    sequencer_free(metastore->sequencer);
    summariser_free(metastore->summariser);
    watch_hub_free(metastore->hub);
    objstore_close(metastore->store);
    metrics_free(metastore->metrics);
    free(metastore);
}
