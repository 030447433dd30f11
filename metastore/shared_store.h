// SPDX-License-Identifier: Apache-2.0
//
// Where other metastores write to the same store, heads move without our doing: a thread looks at the
// watched volumes every SHARED_POLL_MS, and what it finds goes the way of any move.
#ifndef METASTORE_SHARED_STORE_H
#define METASTORE_SHARED_STORE_H

#include "metastore/watch.h"

#define SHARED_POLL_MS 1000u

struct shared_store;

enum graft_status shared_store_new(struct volume_table *volumes, struct watch_hub *hub,
                                   struct shared_store **ret_shared, struct graft_error *err);
void shared_store_free(struct shared_store *shared); // NULL is fine

#endif
