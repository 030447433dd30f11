// SPDX-License-Identifier: Apache-2.0
//
// Space for the page log, made ahead by a thread of the store: claims, growth, cleaning, giving back.
//
//     budget(live) = live × 5/4 + SPACE_SLACK_EXTENTS
//
// As long as the page files are smaller than the budget they grow when space is wanted. At the budget the cleaner makes
// room: it takes the sealed extents with the least live bytes, appends what lives there to the log (RUN_MOVED) and points the
// index at it. An extent whose last live byte went this way is empty, and free once the index that says so is durable. Where
// deletions left much more than the budget, what lies in the last file is moved down and the file removed.
//
// Cleaning is paced by the writing: it is done when space is wanted and no sooner, a MiB at a time; where it cannot keep up
// and the files stand well above the budget, a commit waits for a step of it with each MiB that is written, at most
// SPACE_WAIT_MAX_US.
//
// Invariants
// 1. A page is moved only if the index has it at the old place, looked at under places_lock, with which the new place is put
//    in one batch.
// 2. Moved bytes are on the disk before an index on the disk names them (invariant 8 of store_internal.h), and verified
//    before they are moved: damage stays where it is.
// 3. An extent from which nothing would be gained is left alone until more of it has died: cleaning ends.
//
// Threads: all calls, any thread; store_space_wait() without places_lock.
#ifndef CLIENT_STORE_SPACE_H
#define CLIENT_STORE_SPACE_H

#include "client/store.h"

struct store_space;

// Starts no thread yet. The page files and their log are open.
enum graft_status store_space_new(struct store *store, struct store_space **ret_space,
                                  struct graft_error *err);
// Ends the thread. In the process that made it; NULL is fine. Nothing is appended any more.
void store_space_free(struct store_space *space);

// After so many bytes were appended, or died: from time to time the thread looks whether there is work. Cheap.
void store_space_poke(struct store_space *space, uint64_t size);
// Before so much is appended: waits a little if cleaning is behind.
void store_space_wait(struct store_space *space, uint64_t size);

// Extents beyond five quarters of the live bytes: being filled, claimed, or waiting until an index is durable.
#define SPACE_SLACK_EXTENTS 6u

struct store_space_counts {
    uint64_t cleaned_extents, moved_pages, moved_size;
    uint64_t waits; // commits that waited
};
void store_space_counts(struct store_space *space, struct store_space_counts *ret_counts);
// Until the thread has nothing to do, for tests: what it would do is done.
void store_space_settle(struct store_space *space);

#endif
