// SPDX-License-Identifier: Apache-2.0
//
// A log of commits over a store in memory that fails on request: the rooms of the metastore without its
// servers, with blocking calls and requests that are right unless a test spoils them.
#ifndef TESTS_UNIT_METASTORE_LOG_FIXTURE_H
#define TESTS_UNIT_METASTORE_LOG_FIXTURE_H

#include <criterion/criterion.h>

#include "common/base/limits.h"
#include "common/base/random.h"
#include "metastore/sequencer.h"
#include "tests/lib/commit_plan.h"

// One metastore. Several may share a store.
struct log_fixture {
    struct objstore *store; // the faulty wrapper
    bool owns_store;
    struct manual_clock clock;
    struct cluster_key key;
    struct volume_table *volumes;
    struct sequencer *sequencer;
    _Atomic unsigned head_moves, heads_loaded;
};

struct objstore *fixture_store_new(void);
struct objstore *fixture_store_new_counted(struct metrics *metrics);
int64_t fixture_gets(struct metrics *metrics); // since the store was made
void fixture_init(struct log_fixture *fixture, struct objstore *store, bool shared, unsigned volumes_max);
struct log_fixture *fixture_new(void); // with a store of its own
void fixture_release(struct log_fixture *fixture);
void fixture_free(struct log_fixture *fixture);
DEFINE_CLEANUP(struct log_fixture, fixture_free)

struct gid fixture_create_volume(struct objstore *store);
// Waits until the store has held back, failed or lost `count` operations since it was made.
void fixture_await_faults(struct log_fixture *fixture, unsigned count);

// Answers are copied out. Blocks.
struct commit_answer fixture_commit(struct log_fixture *fixture, const struct commit_plan *plan);
// The same with a request that `spoil` changes first.
struct commit_answer fixture_commit_spoilt(struct log_fixture *fixture, const struct commit_plan *plan,
                                           void (*spoil)(Graft__CommitRequest *request));
struct commit_answer fixture_delete(struct log_fixture *fixture, const struct gid *vid, uint64_t token);
// Does not wait: *answer is filled later; `fixture_await` waits for it.
struct pending_answer;
struct pending_answer *fixture_commit_begin(struct log_fixture *fixture, const struct commit_plan *plan);
struct commit_answer fixture_await(struct pending_answer *pending);
bool fixture_is_answered(struct pending_answer *pending);

// The volume's state, as the table has it (`fresh`: after reading on).
enum graft_status fixture_state(struct log_fixture *fixture, const struct gid *vid, bool fresh,
                                struct volume_state *ret_state, struct graft_error *err);
struct snapshot fixture_head(struct log_fixture *fixture, const struct gid *vid);

// Writes the commits of a history straight to the store, `count` of them on an empty volume. `pages` says
// what a commit changes (NULL: page lsn % 100 + 1); heads_ret (NULL: not wanted) gets each snapshot, [0]
// for LSN 0.
struct history_commit {
    uint32_t page_count, cut;
    struct page_run runs[4];
    unsigned run_count;
};
void fixture_write_history(struct objstore *store, const struct gid *vid, uint64_t count,
                           struct history_commit (*commit)(void *context, uint64_t lsn), void *context,
                           struct hash128 *ret_chains);

#endif
