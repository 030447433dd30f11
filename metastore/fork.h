// SPDX-License-Identifier: Apache-2.0
//
// A new volume that is what another was at one LSN: the references that the snapshot lives on, copied. Their
// owners stay what they were, and no page moves.
//
// The commits are created first and the catalog's record last. So the fork is there as a whole or not at all,
// however many commits its references take; what a crash leaves is met by the next try for the same VID,
// whose commits are the same to the byte but for their time, or is garbage.
//
// Blocks for the store: not on a server's thread.
#ifndef METASTORE_FORK_H
#define METASTORE_FORK_H

#include <stdatomic.h>

#include "common/base/clock.h"
#include "metastore/volume_load.h"

struct fork_request {
    struct objstore *store;
    const struct clock *clock;
    const atomic_bool *stop;     // CANCELLED / STOPPING once it is set; NULL: never
    struct volume_origin origin; // .fork_lsn is not looked at
    struct gid vid;              // of the fork
    // The origin at its head, where it could be loaded; else why not.
    struct volume_state state;
    struct graft_error state_error;
};

// *ret_snapshot is the fork as it was made, now or by the same request before. CONFLICT / EXISTS if the VID is
// another volume's; of the origin: what state_error says, GONE / DELETED or RETIRED, NOT_FOUND / BEYOND_HEAD,
// CORRUPT / CHAIN_MISMATCH if its chain is not the one there, CORRUPT for damage; or what the store said.
enum graft_status fork_volume(const struct fork_request *request, struct snapshot *ret_snapshot,
                              struct graft_error *err);

#endif
