// SPDX-License-Identifier: Apache-2.0
//
// The metastore put together: store, volumes, sequencer, summariser, reader threads, watch hub and the two
// servers.
//
//     metastore_start ─▶ serving ─▶ metastore_drain ─▶ metastore_stop
#ifndef METASTORE_METASTORE_H
#define METASTORE_METASTORE_H

#include "common/base/metrics.h"
#include "metastore/settings.h"

struct metastore;

// Opens and proves the store, then serves. `on_fatal` is called once, from any thread, when the store
// failed for good.
enum graft_status metastore_start(const struct settings *settings,
                                  void (*on_fatal)(void *context, const struct graft_error *error),
                                  void *context, struct metastore **ret_metastore, struct graft_error *err);
// What was bound: "127.0.0.1:40123".
const char *metastore_address(const struct metastore *metastore);
const char *metastore_watch_address(const struct metastore *metastore);
// Refuses what is new, finishes what was accepted, and takes everything down within STOP_TIME_MAX_MS. NULL
// is fine.
void metastore_stop(struct metastore *metastore);

#endif
