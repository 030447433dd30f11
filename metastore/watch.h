// SPDX-License-Identifier: Apache-2.0
//
// `watch`: streams that tell when heads move.
//
// A commit only notes its volume in the hub; the hub's own thread marks what changed for whom and wakes the
// streams. A watcher holds a set of volumes that moved, never a queue of frames: one that reads slowly is
// told of the newest heads when it comes round, and costs no more than one that reads fast.
//
// Order of calls: hub_new, then any number of watch_start / watch_closed, then hub_stop, the server's end,
// hub_free.
#ifndef METASTORE_WATCH_H
#define METASTORE_WATCH_H

#include "common/net/http_server.h"
#include "metastore/volume.h"

struct watch_hub;

struct watch_hub_settings {
    struct metrics *metrics;
    uint32_t heartbeat_ms;
};

enum graft_status watch_hub_new(const struct watch_hub_settings *settings, struct watch_hub **ret_hub,
                                struct graft_error *err);
void watch_hub_free(struct watch_hub *hub); // no stream is open; NULL is fine
DEFINE_CLEANUP(struct watch_hub, watch_hub_free)

// A head moved. Constant time, any thread.
void watch_hub_moved(struct watch_hub *hub, const struct snapshot *head);

// Answers `request`: a stream once the heads of its volumes are known, or an error (INVALID, LIMIT,
// UNAVAILABLE beyond WATCH_ITEMS_MAX, what the store said). A volume that is not here or is damaged is
// named in the stream and does not keep the others from being watched. watch_closed() is to be the route's
// `closed`.
void watch_start(struct watch_hub *hub, struct volume_table *volumes, struct http_request *request,
                 const Graft__WatchRequest *message);
void watch_closed(struct http_request *request);

// Ends every stream with CANCELLED / STOPPING.
void watch_hub_stop(struct watch_hub *hub);

// Calls `visit` for each volume watched now, without any lock held.
void watch_hub_visit(struct watch_hub *hub, void (*visit)(void *context, const struct gid *vid),
                     void *context);

#endif
