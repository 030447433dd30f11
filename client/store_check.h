// SPDX-License-Identifier: Apache-2.0
//
// Verifies the page files against the index, and the index against the page files, without holding up anybody.
#ifndef CLIENT_STORE_CHECK_H
#define CLIENT_STORE_CHECK_H

#include "client/store.h"

struct store_check_sink {
    // NULL: not wanted. `done` and `total` are bytes of page files.
    void (*damaged)(void *context, const struct graft_local_damage *damage);
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *context;
};

// Every version whose bytes are here is read and its checksum verified; the live bytes of every extent, summed up from the
// index, equal its counter; every byte of every extent is accounted for. Commits, readers and the cleaner go on meanwhile:
// what they change while this looks is not damage, but the sums are of one moment only where nothing changes. OK also with
// damage: *ret_counts tells of it.
enum graft_status store_check(struct store *store, const struct store_check_sink *sink,
                              struct graft_local_counts *ret_counts, struct graft_error *err);

#endif
