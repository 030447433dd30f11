// SPDX-License-Identifier: Apache-2.0
//
// The references that a snapshot lives on: for each page that it has, the segment that holds its newest
// version.
//
// The log is walked backward from the snapshot. A page is taken from the first commit met that wrote it,
// unless a commit in between has cut it off; the walk ends when every page that can still be there was found.
// Windows of 256 and 65,536 commits whose summary names none that is missing are stepped over, so what is
// read is the commits of those windows of 256 that hold a live page, and two objects for each other window.
// In memory are the set of pages found (two bytes for each at most, and no more than one bit for each page of
// the volume), and what one object takes.
//
// Blocks for the store: not on a server's thread.
#ifndef METASTORE_LIVE_REFERENCES_H
#define METASTORE_LIVE_REFERENCES_H

#include <stdatomic.h>

#include "metastore/volume_load.h"

struct live_reference {
    const Graft__SegmentRef *segment; // as the commit has it
    const struct pageset *pages;      // of its pages, those that are live; not empty
    const struct pageset *structural; // of those
};

struct live_references_spec {
    struct objstore *store;
    const struct volume_state *state; // the volume at its head
    const struct commit_facts *at;    // the snapshot's commit, of this history
    const atomic_bool *stop;          // CANCELLED / STOPPING once it is set; NULL: never
    // A status other than OK ends the walk. What it is shown lives until it returns.
    enum graft_status (*visit)(void *context, const struct live_reference *reference,
                               struct graft_error *err);
    void *context;
};

// GONE / RETIRED where history that it needs is no longer kept; CORRUPT for damage.
enum graft_status live_references(const struct live_references_spec *spec, struct graft_error *err);

#endif
