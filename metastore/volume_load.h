// SPDX-License-Identifier: Apache-2.0
//
// What a volume is, read from the store: its record, its retirement mark and its newest commit. Commits are
// dense, so the newest is found by galloping and bisecting over their keys: about 2·log2(commits) reads,
// whatever the history. `done` comes once, on a thread of the store or before the call returns. Any thread
// may call.
#ifndef METASTORE_VOLUME_LOAD_H
#define METASTORE_VOLUME_LOAD_H

#include "common/store/objstore.h"
#include "metastore/record.h"

struct volume_state {
    struct volume_record record;
    struct commit_facts head; // lsn 0: no commit yet, and all else but vid is zero
    uint64_t retired_lsn;     // the last LSN that is no longer kept; 0: all are
    struct hash128 retired_chain;
};

// CORRUPT / CHAIN_MISMATCH, for who knows an LSN of the volume that is not in this history: with another chain,
// or beyond its head.
enum graft_status volume_other_history(const struct volume_state *state, uint64_t lsn,
                                       struct graft_error *err);

// `state` is borrowed for the call and NULL on failure: NOT_FOUND / NO_SUCH_VOLUME, CORRUPT, or what the
// store said.
typedef void volume_loaded_fn(void *context, const struct volume_state *state,
                              const struct graft_error *error);

void volume_load(struct objstore *store, const struct gid *vid, volume_loaded_fn *done, void *context);

// The same from a state read earlier: follows the commits above its head, one by one, until there is none,
// and reads the retirement mark again.
void volume_read_on(struct objstore *store, const struct volume_state *from, volume_loaded_fn *done,
                    void *context);

#endif
