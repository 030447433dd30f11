// SPDX-License-Identifier: Apache-2.0
//
// The daemon's frame: everything that lives as long as the process, made and ended in one order. The write
// half hangs on `uploads`, the read half on `reader`; both stand on the object store, the metastore and the
// table of volumes.
//
// Handlers find it with http_request_context().
#ifndef PAGESTORE_PAGESTORE_H
#define PAGESTORE_PAGESTORE_H

#include "common/base/metrics.h"
#include "common/base/receipt.h"
#include "common/base/worker.h"
#include "common/net/admin_routes.h"
#include "common/net/http_client.h"
#include "common/net/http_server.h"
#include "common/net/rpc.h"
#include "common/store/objstore.h"
#include "pagestore/settings.h"
#include "pagestore/volume_info.h"

struct uploads;
struct page_reader;

struct pagestore {
    const struct pagestore_settings *settings;
    struct cluster_key key;
    struct metrics *metrics;
    struct objstore *store; // segments
    struct http_client *http;
    struct rpc_target metastore;
    struct volume_infos *volumes;
    struct uploads *uploads;
    struct page_reader *reader;
    struct pool *calls; // operators' calls, which block
    struct admin admin;
};

// `on_fatal` runs on any thread when the store or the page-version index has failed for good, once at most for each: the
// daemon must end.
enum graft_status pagestore_new(const struct pagestore_settings *settings,
                                void (*on_fatal)(void *context, const struct graft_error *error),
                                void *context, struct pagestore **ret_pagestore, struct graft_error *err);
// The HTTP server has stopped: no request is left. NULL is fine.
void pagestore_free(struct pagestore *pagestore);

#define PAGESTORE_ROUTES_MAX 16
// Writes every route of the daemon and returns how many.
size_t pagestore_routes(const struct pagestore *pagestore,
                        struct http_route ret_routes[PAGESTORE_ROUTES_MAX]);

#endif
