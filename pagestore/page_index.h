// SPDX-License-Identifier: Apache-2.0
//
// The page-version index: which segment holds the version of a page that a snapshot sees. Finding it is one seek, after
// ten commits or a million, and none where the newest version is the one and was found before (version_cache.h). It lives
// in RocksDB and can be rebuilt from the metastore's log, so nothing in it is synced.
//
//     family     key                                              value
//     pages      volume number 4 ‖ pageidx 4 ‖ ~LSN 8              segment number 4 ‖ structural 1
//     commits    volume number 4 ‖ LSN 8                           chain 16 ‖ page_count 4
//     cuts       volume number 4 ‖ …                               common/store/cut_index.h
//     volumes    VID 16                                           volume number 4 ‖ LSN 8 ‖ chain 16 ‖ page_count 4 ‖ lowest cut 4
//                VID 16 ‖ 1                                       chain 16 of the next commit, of which a part was written
//     segments   segment number 4                                 SID 16 ‖ owner 16 ‖ object size 8 ‖ index offset 8 ‖ index size 4
//     numbers    SID 16 ‖ owner 16, or "volume", "segment"         number 4
//
// Numbers stand in for identifiers so that an entry takes about ten bytes. Numbers, pageidx and LSN in keys are big-endian.
//
// Invariants
//  1. A volume's applied LSN moves in the same batch as the last entries of that commit; entries above it belong to the
//     next commit, which was not finished: no read sees them, and applying it again writes the same ones. Its chain is
//     kept, and if another commit comes in its place the volume is dropped.
//  2. Commits are applied in order, each on the chain before it; a chain that does not match is never applied. A volume
//     whose chain turns out to be another one is dropped and gets a new number, so nothing of the old one is ever met.
//  3. A newest version that is remembered is the newest one among all that were begun to be added, published or not: it is
//     noted before its commit is published, and learned from a look-up only if nothing was begun beyond that one's LSN.
//     So whoever sees an applied LSN sees nothing older than it. Where something was begun that will not be published, or
//     is written anew, the volume takes another key.
//  4. "Never written" is said only of pages looked up at or below the applied LSN.
//
// Threads: one thread applies and drops (the catch-up's); any number look up. A lookup at an LSN at or below the applied
// one that it saw is not disturbed by what is applied meanwhile.
#ifndef PAGESTORE_PAGE_INDEX_H
#define PAGESTORE_PAGE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/checksum.h"
#include "common/base/compiler.h"
#include "common/base/error.h"
#include "common/base/gid.h"
#include "common/base/metrics.h"
#include "common/base/pageset.h"
#include "proto/graft.pb-c.h"

struct page_index;
struct index_volume;

struct page_index_settings {
    const char *path; // a folder, made if missing; copied
    struct metrics *metrics;
    // Called once at most, by the thread that applies, when a write has failed for any reason but a full disk: the daemon
    // ends. Whatever would write answers UNAVAILABLE from then on. May be NULL.
    void (*on_fatal)(void *context, const struct graft_error *error);
    void *context;
};

// BUSY / LOCKED with the holder's pid. An index that cannot be read is moved aside by nobody: the error says that it may be
// removed.
enum graft_status page_index_open(const struct page_index_settings *settings, struct page_index **ret_index,
                                  struct graft_error *err);
void page_index_close(struct page_index *index); // no volume is held any more; NULL is fine

// What was applied of a volume.
struct index_state {
    uint64_t lsn; // 0: nothing
    struct hash128 chain;
    uint32_t page_count;
};

// A handle to what is known of a volume; one that was never heard of is empty. Handles are counted: give each back.
enum graft_status page_index_volume(struct page_index *index, const struct gid *vid,
                                    struct index_volume **ret_volume, struct graft_error *err);
void index_volume_release(struct index_volume *volume); // NULL is fine
DEFINE_CLEANUP(struct index_volume, index_volume_release)

const struct gid *index_volume_vid(const struct index_volume *volume);
struct index_state index_volume_state(struct index_volume *volume);

// Adds the commit after the last one added, to be seen once it is published. CORRUPT / CHAIN_MISMATCH if it does not continue
// the chain, CORRUPT / BAD_MESSAGE if it is not what a metastore writes: it leaves no trace then, and what was added before
// stays. UNAVAILABLE / BEHIND if a process ended in the middle of another commit in its place: the volume was dropped, and
// begins anew. INTERNAL / NO_SPACE; UNAVAILABLE after a write has failed. Those and any other: what was added and not
// published is dropped.
enum graft_status index_volume_add(struct index_volume *volume, const Graft__Commit *commit,
                                   struct graft_error *err);
// Applies what was added. Before the handle is given back.
enum graft_status index_volume_publish(struct index_volume *volume, struct graft_error *err);
// Both.
enum graft_status index_volume_apply(struct index_volume *volume, const Graft__Commit *commit,
                                     struct graft_error *err);
// OK if the commit is applied, and is the one that the metastore sends now. UNAVAILABLE / BEHIND where it is not applied;
// CORRUPT / CHAIN_MISMATCH where it is another one.
enum graft_status index_volume_check_same(struct index_volume *volume, const Graft__Commit *commit,
                                          struct graft_error *err);
// Writes the entries of a commit that is applied anew, for its references have changed. Nothing else of it can change.
enum graft_status index_volume_rewrite(struct index_volume *volume, const Graft__Commit *commit,
                                       struct graft_error *err);
// Forgets everything about the volume.
enum graft_status index_volume_drop(struct index_volume *volume, struct graft_error *err);

// Chain and page_count at `lsn`, which is at or below the applied one. NOT_FOUND where the index does not have it.
enum graft_status index_volume_commit_at(struct index_volume *volume, uint64_t lsn,
                                         struct index_state *ret_state, struct graft_error *err);

struct page_version {
    uint32_t pageidx;
    uint32_t segment; // number; 0: never written at this snapshot
};

// Appends a version for each page of `pages`, in ascending order; `versions` has room for all of them.
enum graft_status index_volume_resolve(struct index_volume *volume, uint64_t lsn, const struct pageset *pages,
                                       struct page_version *versions, struct graft_error *err);

// The same for one page, and the LSN that wrote the version (0 where there is none).
enum graft_status index_volume_resolve_one(struct index_volume *volume, uint64_t lsn, uint32_t pageidx,
                                           struct page_version *ret_version, uint64_t *ret_lsn,
                                           struct graft_error *err);

// Where a segment lies and under whom it filed the pages.
struct segment_place {
    struct gid sid, owner;
    uint64_t object_size, index_offset;
    uint32_t index_size;
};
enum graft_status page_index_segment(struct page_index *index, uint32_t number,
                                     struct segment_place *ret_place, struct graft_error *err);

#endif
