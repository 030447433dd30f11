// SPDX-License-Identifier: Apache-2.0
//
// The calls of the protocol: what stands between the HTTP server's threads and the rooms behind them. A
// handler decodes, hands on and returns; the answer comes from whichever thread finishes the work.
//
//     calls_write.c   create_volume, commit, delete_volume   answered on the store's threads
//     calls_read.c    snapshot, pull, commits, list_volumes  on reader threads, unless memory is enough
//     calls_fork.c    fork                                   on a thread for long jobs
//     calls_backup.c  backup                                 on the same
//     calls_info.c    info, watch
#ifndef METASTORE_CALLS_H
#define METASTORE_CALLS_H

#include <stdatomic.h>

#include "common/base/worker.h"
#include "common/net/http_server.h"
#include "metastore/sequencer.h"
#include "metastore/watch.h"

// The context of both servers; fixed before they start, but for watch_address.
struct calls {
    struct objstore *store;
    const char *store_url;
    const struct clock *clock;
    struct volume_table *volumes;
    struct sequencer *sequencer;
    struct pool *readers;
    struct pool *long_jobs; // one thread
    atomic_bool stopping;   // long jobs are to end
    struct watch_hub *hub;
    struct metric *pagesets_united;
    const char *watch_url;     // as the operator says; NULL: follows from watch_address
    const char *watch_address; // as bound; set before the calls' server starts
};

#define CALL_DEADLINE_MS 30000u

#define CALLS_WRITE 3
#define CALLS_READ 4
#define CALLS_FORK 1
#define CALLS_BACKUP 1
#define CALLS_INFO 1
void calls_write_routes(struct http_route ret_routes[CALLS_WRITE]);
void calls_read_routes(struct http_route ret_routes[CALLS_READ]);
void calls_fork_routes(struct http_route ret_routes[CALLS_FORK]);
void calls_backup_routes(struct http_route ret_routes[CALLS_BACKUP]);
void calls_info_routes(struct http_route ret_routes[CALLS_INFO]);
struct http_route calls_watch_route(void); // of the other server

#endif
