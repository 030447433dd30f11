// SPDX-License-Identifier: Apache-2.0
//
// The durable log of pages: runs appended to extents that were claimed before. docs/decisions/0009-page-files.md has the
// reasons.
//
// Invariants
// 1. A run is written only into an extent that the claims on disk name, behind the last good run there.
// 2. A commit's runs are on the disk when page_log_append() with `sync` returns OK; then its sequence numbers are at most
//    `synced` in every header written later.
// 3. An extent leaves the claims only by a synced write of the claims before which all its runs were applied.
// 4. A run that failed to be written is no run: its header is overwritten, durably, before anything else is written, or the
//    log fails for good. The next run takes its place and its number. While the disk has no space even for that, nothing is
//    written; a crash then may leave such a commit, whole.
// 5. Sequence numbers of good runs are dense in an epoch; an epoch is never used twice.
// 6. After a sync failed, nothing is written any more.
// 7. An extent is TAKEN from its claim on until claims without it are on the disk, and sealed then.
//
// Threads: page_log_append() from any; those that wait are written together by one of them. The lock inside is
// RANK_PAGE_LOG; it is not held for I/O nor for the callback.
#ifndef CLIENT_PAGE_LOG_H
#define CLIENT_PAGE_LOG_H

#include "client/extents.h"
#include "client/run.h"

// Claimed at a time; the log claims again when it has used up what it has.
#define PAGE_LOG_CLAIM_EXTENTS 2u
#define PAGE_LOG_CLAIMS_MAX 4096u

// What the owner keeps in its index, synced.
struct page_log_claims {
    uint64_t epoch;
    uint64_t seq;   // the first that may lie in the extents
    uint64_t chain; // before it
    uint32_t count;
    uint32_t extents[PAGE_LOG_CLAIMS_MAX]; // in the order of their use
};
// "GRFTCLM1" 8 ‖ epoch 8 ‖ seq 8 ‖ chain 8 ‖ count 4 ‖ extents 4 each ‖ XXH3-64 of all before.
#define PAGE_LOG_CLAIMS_SIZE_MAX (44 + 4 * PAGE_LOG_CLAIMS_MAX)
size_t page_log_claims_encode(const struct page_log_claims *claims, uint8_t to[PAGE_LOG_CLAIMS_SIZE_MAX]);
// CORRUPT for anything else; an extent is named once.
enum graft_status page_log_claims_decode(struct bytes value, struct page_log_claims *ret_claims,
                                         struct graft_error *err);

// ---- replay

// A run found in the claimed extents.
struct page_log_run {
    struct run_header header;
    struct bytes bytes; // all of it, good until the callback returns: run_entry_at(), run_page_offset()
    uint64_t place;     // of the run
    bool whole;         // every page has its checksum (see `verify`)
};
struct page_log_replay {
    uint64_t store;
    const struct page_log_claims *claims;
    void *context;
    // The checksum of a page that a run names, to be compared with the entry's: the owner knows the VID of a number (true
    // for a number that it does not know: nobody will apply it).
    bool (*verify)(void *context, const struct run_entry *entry, const void *data);
    // Runs in the order of seq, whatever kind. A group's commits come only if all of it is there, and not if one of them was
    // taken back; a commit's runs come as they are: without the complete one if it is not there, and with a VOID if it was
    // taken back. Part 0 of a commit begins it anew. Runs of an append that began before the claims do not come: it was
    // applied or taken back. Of a commit that was staged in several appends, some may have left the claims so.
    enum graft_status (*visit)(void *context, const struct page_log_run *run, struct graft_error *err);
    // A run that was synced and is not whole (it is visited next, with `whole` false), or whose header cannot be read (then
    // `run` is NULL): damage. `missing_from` to `missing_to` are the sequence numbers concerned. The replay goes on behind
    // it; of a group, the rest is visited.
    void (*damaged)(void *context, const struct page_log_run *run, uint64_t missing_from, uint64_t missing_to,
                    const char *where);
};
// Walks the claimed extents, before extents_start(). A run that is not whole and was not known to be synced ends the
// replay, as does the end of the sequence. Errors are the disk's and `visit`'s.
enum graft_status page_log_replay(struct extents *extents, const struct page_log_replay *replay,
                                  struct graft_error *err);

// Walks the runs of one extent, for the cleaner and for checking: from its start to the first run that is not of the first
// one's epoch or is older in sequence: what is left of an earlier use. Damage is stepped over; what lies behind it may also be
// of an earlier use, so the index has the last word on every page. `whole` is not set.
enum graft_status page_log_walk(struct extents *extents, uint64_t store, uint32_t extent, void *context,
                                enum graft_status (*visit)(void *context, const struct page_log_run *run,
                                                           struct graft_error *err),
                                struct graft_error *err);

// ---- appending

struct page_log;

struct page_log_settings {
    struct extents *extents;
    uint64_t store; // of the run headers
    uint64_t epoch; // never used before
    void *context;
    // Keeps the claims, synced, and with them all that the index was told before (page_log_applied). Called by one thread at
    // a time, without a lock of the log. Its thread may hold a volume's commit lock. It may call page_log_sync(), and nothing
    // else of the log. After an error nothing is written to what was newly claimed, and the log can be used.
    enum graft_status (*keep_claims)(void *context, const struct page_log_claims *claims,
                                     struct graft_error *err);
};
// Claims nothing yet: the owner has kept claims of this epoch without an extent.
enum graft_status page_log_new(const struct page_log_settings *settings, struct page_log **ret_log,
                               struct graft_error *err);
void page_log_free(struct page_log *log); // nobody appends; NULL is fine
DEFINE_CLEANUP(struct page_log, page_log_free)

struct page_log_page {
    struct run_entry entry;
    const void *data;
    uint64_t place; // set by page_log_append()
};

// A commit, or a part of one, or moved pages: becomes as many runs as it needs.
struct page_log_append {
    // Kind, complete, number, lsn, part, page_count, cut and group: of the last run. The runs before it are parts of their
    // own that count up from header.part; `cut` is the first one's.
    struct run_header header;
    struct page_log_page *pages;
    uint32_t page_count;
    // set, as are the pages' places:
    uint32_t parts;               // how many runs it became (at least 1)
    uint64_t first_seq, last_seq; // of them
    uint64_t last_place;          // the last one's
};
// Writes them, in order and behind each other in the sequence, and with `sync` everything written so far to the disk.
// Several members of one group are given together; of a member that was staged in parts, only the last part is of the group.
// Each append that succeeded is followed by one page_log_applied() or page_log_void(), however late. On an error none of them
// is there: NO_SPACE and IO leave the log usable; a failed sync does not, and then every later call gives the same error.
// LIMIT: the index is PAGE_LOG_CLAIMS_MAX extents behind.
enum graft_status page_log_append(struct page_log *log, struct page_log_append *appends, unsigned count,
                                  bool sync, struct graft_error *err);
// Syncs what was appended without.
enum graft_status page_log_sync(struct page_log *log, struct graft_error *err);
// The index was told of these runs (synced or not) and extents_apply() called, or it never will be: their extents may leave
// the claims.
void page_log_applied(struct page_log *log, const struct page_log_append *append);
// Takes the complete run of a commit back, durably, after the index could not be told of it; of a group, one is enough, and
// the others are page_log_applied(). On an error whether the commit
// is there is seen at the next opening, and the log fails for good.
enum graft_status page_log_void(struct page_log *log, const struct page_log_append *append,
                                struct graft_error *err);
// Makes room ahead: claims if less than `extents` claimed ones are left beside the one being filled. For a thread that does so before appends wait.
enum graft_status page_log_claim_ahead(struct page_log *log, uint32_t extents, struct graft_error *err);

#endif
