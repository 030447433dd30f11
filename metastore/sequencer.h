// SPDX-License-Identifier: Apache-2.0
//
// The one place where order is decided: a commit is the conditional create of volumes/<vid>/commits/<head +
// 1>.
//
// A request is decided by these rules, in this order, against durable state, while it holds the volume's
// turn. After a lost race (somebody else's commit took the LSN, or the store's answer was lost) they are
// run again from the first.
//
//  1. The token is looked for in the commit at base+1. Then the retirement mark is read: base+1 retired
//     gives GONE.
//  2. Found: same digest gives OK with that commit; another digest TOKEN_REUSED.
//  3. The base is beyond the head, or its chain is not the one here: CORRUPT.
//  4. The volume is deleted: DELETED.
//  5. base = head: the references are refused (SEGMENT_GONE, INVALID), or the commit is created at head+1
//     and answered once that is durable.
//  6. base < head: CONFLICT with the head.
//
// So a commit that landed is recognised whatever became of its receipts, and a REJECTED (CONFLICT /
// TOKEN_REUSED, CONFLICT / NOT_HEAD, GONE / DELETED, each with the token) is only said of a token that is
// not, and never will be, in the log. Everything else leaves the outcome open.
#ifndef METASTORE_SEQUENCER_H
#define METASTORE_SEQUENCER_H

#include "common/base/clock.h"
#include "common/base/receipt.h"
#include "metastore/volume.h"

struct sequencer;

struct sequencer_settings {
    struct objstore *store;
    bool shared; // others write to the store too
    struct volume_table *volumes;
    const struct clock *clock;
    const struct cluster_key *key; // lives as long as the sequencer
    struct metrics *metrics;
};

struct sequencer *sequencer_new(const struct sequencer_settings *settings);
void sequencer_free(struct sequencer *sequencer); // nothing is under way; NULL is fine
DEFINE_CLEANUP(struct sequencer, sequencer_free)

struct commit_answer {
    struct graft_error error; // .status GRAFT_OK: the commit is durable
    bool has_token;           // the error is about this token: it was looked for
    struct token token;
    struct hash128 digest;
    bool has_snapshot; // OK: the commit; CONFLICT: the head
    struct snapshot snapshot;
};

// Comes exactly once, perhaps before the call returns, on the caller's thread or one of the store.
typedef void commit_done_fn(void *context, const struct commit_answer *answer);

// The request is read during the call and not kept; its receipts are taken out.
void sequencer_commit(struct sequencer *sequencer, Graft__CommitRequest *request, commit_done_fn *done,
                      void *context);
// Ends the volume: a commit that says so at head+1, whatever the head is.
void sequencer_delete(struct sequencer *sequencer, const struct gid *vid, const struct token *token,
                      commit_done_fn *done, void *context);

#endif
