// SPDX-License-Identifier: Apache-2.0
//
// The volumes that are there, in order of VID, with their heads. Blocks for the store: runs on a reader
// thread.
#ifndef METASTORE_VOLUME_LIST_H
#define METASTORE_VOLUME_LIST_H

#include "metastore/volume.h"

struct volume_list {
    struct snapshot *heads; // without deleted volumes
    size_t count;
    bool more;       // there are volumes after `last`
    struct gid last; // the last one looked at
};

// Looks at `limit` volumes (1 to LIST_LIMIT_MAX) after `after` (NULL: from the start).
enum graft_status volume_list_read(struct objstore *store, struct volume_table *volumes,
                                   const struct gid *after, unsigned limit, struct volume_list *ret_list,
                                   struct graft_error *err);
void volume_list_release(struct volume_list *list);

#endif
