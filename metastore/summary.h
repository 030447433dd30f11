// SPDX-License-Identifier: Apache-2.0
//
// Summaries: what 256 and what 65,536 commits of a volume changed together, and packs of those commits, so
// that whoever was away for a million commits costs hundreds of reads. Made by one thread in the
// background, in order, each from the level below; a pack before its summary. Readers do without what is
// not there yet.
//
// A window's objects follow from its commits alone, so two metastores that make the same ones agree. A
// union with more than PAGESET_RUNS_MAX runs is made coarser (it then names pages that did not change,
// which costs their readers a fetch and nothing else); a pack above SUMMARY_LARGE_PACK_SIZE_MAX is left
// out.
//
// Thread-safe.
#ifndef METASTORE_SUMMARY_H
#define METASTORE_SUMMARY_H

#include "common/base/metrics.h"
#include "metastore/record.h"

struct objstore;
struct summariser;

enum graft_status summariser_new(struct objstore *store, struct metrics *metrics,
                                 struct summariser **ret_summariser, struct graft_error *err);
// Stops after the window at hand. NULL is fine.
void summariser_free(struct summariser *summariser);
DEFINE_CLEANUP(struct summariser, summariser_free)

// Whatever is due up to `head_lsn` is to be made. Returns at once; forgets the request when
// SUMMARISER_QUEUE_MAX volumes wait (the next one for the volume makes up for it).
#define SUMMARISER_QUEUE_MAX 16384u
void summariser_note(struct summariser *summariser, const struct gid *vid, uint64_t head_lsn);

// Waits until nothing is due that was noted before.
void summariser_wait(struct summariser *summariser);

// Makes what is due, on this thread.
enum graft_status summarise(struct objstore *store, const struct gid *vid, uint64_t head_lsn,
                            struct graft_error *err);

// Joins runs across their smallest gaps until there are at most `runs_max`.
void pageset_limit_runs(struct pageset **set, uint32_t runs_max);

#endif
