// SPDX-License-Identifier: Apache-2.0
//
// What the modules of the local store share. client/README.md has the page about it; the keys are in
// store_record.h.
//
// Invariants
// 1. Everything at or below a volume's head is history: a version there changes only by being removed, and
//    is removed only when no snapshot can show it (3).
// 2. Everything above the head is staged and belongs to nobody: it is listed in `commits` under its LSN, 'S'
//    says that it is there, and it is dropped before anything else is written at that LSN, or when the
//    directory is opened.
// 3. A version v of a page superseded at LSN b is needed by a snapshot in [v, b - 1] that is pinned, and by
//    nothing else: new pins are made at the head only, which is b or more. The entry (b, page → v) in
//    `superseded` is how it is found again; it goes away with v.
// 4. A cut at LSN b hides versions below b of pages above it. Once all of those are removed it hides nothing
//    and is forgotten (record.cuts).
// 5. The record in memory equals the one on disk at every moment at which the commit lock is free.
// 6. What `extents` says of an extent is the sum of the sizes of the versions in the index that lie there: each batch
//    that changes the one changes the other (store_put_changes()), and what is in memory follows the batch.
// 7. A version's place is changed or removed only by who holds places_lock from reading it until the batch is written.
// 8. A version in the index on the disk names bytes that are on the disk: with durability full because its run was
//    synced before, or the head is below it (2); with normal because the index goes to the disk in sync points only.
// 9. What is in `fetched` counts only where its version is pending (in the index, or by the floor) at the
//    same remote LSN.
//
// Their checks: 1 to 5 the model (store_model.c), which also compares after each kill -9; 5 store_record_check() as well; 6
// expect_exact_accounts() in the tests and `graft check --local`; 7 mutex_assert_held() in store_remove_version_locked();
// 8 the power losses of tests/powerloss and store_commit_test.c; 9 store_cache_test.c.
//
// Locks, in their order: the table lock or volumes' commit locks (all RANK_VOLUME; the first never with the others, those in
// the order of their numbers); places_lock (RANK_PLACES); fetched_lock (RANK_FETCHED); store->lock (RANK_STORE: volumes,
// records, pins; held for no I/O); those of the page log and the page files; the hints' stripes (RANK_LEAF).
#ifndef CLIENT_STORE_INTERNAL_H
#define CLIENT_STORE_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "common/base/check.h"
#define uthash_fatal(message) CHECK(!message)
#include <uthash.h>

#include "client/page_cache.h"
#include "client/page_log.h"
#include "client/store.h"
#include "client/store_hints.h"
#include "client/store_record.h"
#include "common/base/mutex.h"
#include "common/store/disk_reserve.h"
#include "common/store/rocksdb_util.h"

enum store_family {
    FAMILY_VOLUMES,
    FAMILY_INDEX,
    FAMILY_EXTENTS,
    FAMILY_COMMITS,
    FAMILY_SUPERSEDED,
    FAMILY_CUTS,
    FAMILY_COUNT,
};

enum store_fetched_family {
    FETCHED_ARRIVED,
    FETCHED_EXTENTS,
    FETCHED_TALLIES,
    FETCHED_COUNT,
};

struct store {
    char *directory;
    int lock_fd;
    pid_t pid;
    struct gid cid;
    struct rocks *local;
    struct rocks *fetched;
    struct page_cache *cache;  // DIR/cache
    struct mutex evict_lock;   // the hand holds a volume open that nobody else need do
    struct mutex fetched_lock; // from reading what arrived until the batch that changes it is written
    struct extents *pages;     // DIR/pages
    struct page_log *log;
    struct store_space *space; // NULL while opening and closing
    uint64_t log_store;        // in the headers of its runs
    struct store_hints *hints;
    struct disk_reserve
        reserve; // pages ask it before they are written; what makes room or settles a push does not
    uint64_t writer_memory_size;
    unsigned batch_entries;
    bool sync_commits; // GRAFT_DURABILITY_FULL

    struct mutex table_lock; // held while a volume is loaded, made or deleted
    uint64_t next_number;    // table_lock

    struct mutex places_lock;
    // With durability normal: held exclusively by a sync point, shared by every other write to `local`.
    pthread_rwlock_t sync_point_lock;
    _Atomic uint64_t unsynced;  // bytes of batches since the last sync point
    _Atomic uint64_t unflushed; // since the index was last flushed
    uint64_t unflushed_max;

    struct mutex lock;
    struct store_volume *volumes; // lock; by VID
    struct store_volume *numbers; // lock; the same by number
    atomic_bool failed;           // set once, after `failure`
    struct graft_error failure;   // lock; why
};

// A local LSN that somebody reads at.
struct pinned_lsn {
    TAILQ_ENTRY(pinned_lsn) entry;
    uint64_t lsn;
    unsigned count;
    struct store_floor floor; // there
};

// Where a removal of superseded versions goes on. Entries below it were looked at since the last pin among
// them went.
struct store_sweep {
    bool running;           // one thread at a time
    uint64_t versions_from; // by LSN; UINT64_MAX: nothing to do
    uint32_t versions_page; // within that LSN, the page to go on with
    uint64_t cuts_from;     // by LSN; UINT64_MAX: nothing to do
    // Within that cut: removing from `fetched` already; the page and version to go on with (page 0: at its
    // start); whether anything was kept so far.
    bool cut_fetched;
    uint32_t cut_page;
    uint64_t cut_version;
    bool cut_kept;
};

struct store_volume {
    struct store *store;
    struct gid vid;
    uint64_t number;
    uint32_t page_size;
    enum graft_volume_kind kind;

    struct mutex commit_lock;
    struct store_writer *stager; // commit_lock; has versions above the head
    bool undropped;              // commit_lock; so has nobody, but what was staged could not be removed yet
    uint64_t
        origin_number; // commit_lock; a fork whose record is not published yet: its origin's number; else 0
    struct pageset *available; // commit_lock; pages of the head that are here; NULL: not counted yet
    struct pageset *pending;   // commit_lock; likewise

    UT_hash_handle by_vid; // store->lock, from here on
    UT_hash_handle by_number;
    unsigned references;
    struct store_record record;               // changed only with the commit lock held as well
    TAILQ_HEAD(pinned_lsns, pinned_lsn) pins; // ascending
    size_t pin_count;                         // nodes in it
    struct store_sweep sweep;
};

struct store_pin {
    atomic_uint references;
    struct store_volume *volume;
    struct pinned_lsn *node; // store->lock
    uint64_t lsn;
    uint32_t page_count;
    struct store_remote remote;
    struct store_floor floor;
    struct store_cuts cuts;
};

// ---- store.c

// Closes the store because of `why`: every later call gives that.
void store_fail(struct store *store, const struct graft_error *why);
// The error that every call gives once a write has failed.
enum graft_status store_check_usable(struct store *store, struct graft_error *err);
// Asks before a page of `size` bytes is written. INTERNAL / NO_SPACE if the disk's reserve would be eaten into; the store
// stays open.
enum graft_status store_take_room(struct store *store, size_t size, struct graft_error *err);
// Writes a batch; a failure closes the store. `rocks` is one of its two databases.
enum graft_status store_write(struct store *store, struct rocks *rocks, bool synced,
                              rocksdb_writebatch_t *batch, struct graft_error *err);
enum graft_status store_get(struct rocks *rocks, unsigned family, const struct store_key *key,
                            rocksdb_pinnableslice_t **ret_value, struct graft_error *err);
struct rocks_scan *store_scan(struct rocks *rocks, unsigned family, const struct store_key *prefix);
// Moves the scan to the first key at or after this one.
void store_scan_seek(struct rocks_scan *scan, const struct store_key *key);

static inline void store_put(struct rocks *rocks, rocksdb_writebatch_t *batch, unsigned family,
                             const struct store_key *key, struct bytes value)
{
    rocks_batch_put(batch, rocks->families[family], store_key_bytes(key), value);
}

static inline void store_delete(struct rocks *rocks, rocksdb_writebatch_t *batch, unsigned family,
                                const struct store_key *key)
{
    rocks_batch_delete(batch, rocks->families[family], store_key_bytes(key));
}

// ---- store_log.c

// While opening: the page files, with what is live in them; then, before anything is appended, the replay.
enum graft_status store_log_open(struct store *store, struct graft_error *err);
// The replay is done: a new epoch of the log begins.
enum graft_status store_log_start(struct store *store, struct graft_error *err);
// A clean close: the next opening has nothing to replay.
void store_log_stop(struct store *store);
void store_log_close(struct store *store);
// Writes to `local` as the durability wants it: see invariant 8.
enum graft_status store_write_local(struct store *store, bool synced, rocksdb_writebatch_t *batch,
                                    struct graft_error *err);
// Puts the merges for what a batch makes live or dead into it. The caller applies the changes once it is written.
void store_put_changes(struct rocks *rocks, unsigned family, rocksdb_writebatch_t *batch,
                       const struct extent_changes *changes);
// Both, around an unsynced store_write() to `local`.
enum graft_status store_write_changes(struct store *store, rocksdb_writebatch_t *batch,
                                      const struct extent_changes *changes, struct graft_error *err);
// Makes the index durable as it is: extents that were empty before are free.
enum graft_status store_log_settle(struct store *store, struct graft_error *err);
// Appends and, with `synced`, waits for the disk. A failed sync closes the store.
enum graft_status store_log_append(struct store *store, struct page_log_append *appends, unsigned count,
                                   bool synced, struct graft_error *err);
// The batch that was to tell the index of commits (all of one group) failed: they are taken back, or the store is closed.
void store_log_void(struct store *store, struct page_log_append *appends, unsigned count);

// ---- store_replay.c

// Applies what the log has and the index does not.
enum graft_status store_replay(struct store *store, const struct page_log_claims *claims,
                               struct graft_error *err);

// ---- store_volume.c

// Reads the record of a volume that may be open.
enum graft_status store_read_record(struct store *store, const struct gid *vid, bool *ret_exists,
                                    struct store_record *ret_record, struct graft_error *err);
// The VID of a number, from 'M'.
enum graft_status store_find_vid(struct store *store, uint64_t number, bool *ret_exists, struct gid *ret_vid,
                                 struct graft_error *err);
// Goes on with the removal of volumes that were deleted.
enum graft_status store_finish_deletions(struct store *store, struct graft_error *err);

struct store_volume *store_volume_ref(struct store_volume *volume);
// The open volume of that number, with one more reference; NULL if it is not open.
struct store_volume *store_volume_find_number(struct store *store, uint64_t number);
// Makes a volume like `origin`, cloned at `head`, in memory: its first published record makes it durable, and takes
// away what store_fork_begin() kept.
enum graft_status store_volume_prepare(const struct store_volume *origin, const struct gid *vid,
                                       const struct store_remote *head, struct store_volume **ret_volume,
                                       struct graft_error *err);
// A copy of the record.
struct store_record store_volume_record(struct store_volume *volume);
// The record that `next` will be, put into a batch.
void store_put_record(struct store_volume *volume, rocksdb_writebatch_t *batch,
                      const struct store_record *next);
// After the batch with it was written.
void store_set_record_locked(struct store_volume *volume, const struct store_record *next);
// Writes the batch with `next` in it and makes it the volume's record.
enum graft_status store_publish_locked(struct store_volume *volume, rocksdb_writebatch_t *batch,
                                       const struct store_record *next, bool synced, struct graft_error *err);

// ---- store_pin.c

// A pin at `lsn`, which is the head or pinned already. store->lock is held.
struct pinned_lsn *store_pins_add_locked(struct store_volume *volume, uint64_t lsn);
// Lets the sweep look again at what only this pin may have kept. store->lock is held.
void store_pins_remove_locked(struct store_volume *volume, struct pinned_lsn *node);
struct pinned_lsn *store_pins_find_locked(struct store_volume *volume, uint64_t lsn);

// ---- store_index.c

// A version of a page, or why there is none.
struct store_found {
    bool exists;
    uint64_t lsn;
    struct store_version version;
};

// A pin on the head that nobody counts: good while the commit lock is held, for nothing supersedes the head's
// versions then.
struct store_pin store_head_locked(struct store_volume *volume);

// Two views of a volume's versions for one thread: open it after the pin it serves.
struct store_view {
    struct store_pin *pin;
    struct cut_reader *cuts; // NULL: no cut can matter
    struct rocks_scan *index;
};
enum graft_status store_view_open(struct store_pin *pin, struct store_view *ret_view,
                                  struct graft_error *err);
void store_view_close(struct store_view *view);
// The version of the page (≤ page_count) that the pin shows.
enum graft_status store_view_find(struct store_view *view, uint32_t pageidx, struct store_found *ret_found,
                                  struct graft_error *err);
// Reads a version's bytes. A fetched page that is not there or is bad: PENDING, with nothing but pageidx and
// mark_lsn set. Of any other *ret_at (may be NULL) says where it lay: remote_lsn, place, size and checksum are set.
enum graft_status store_read_version(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                     const struct store_version *version, void *to,
                                     struct store_page *ret_page, struct store_hint *ret_at,
                                     struct graft_error *err);

// The same of a version in the index that is known to be there, looked up anew.
enum graft_status store_read_indexed(struct store_volume *volume, uint32_t pageidx, uint64_t lsn, void *to,
                                     struct store_page *ret_page, struct graft_error *err);

// ---- store_change.c

// Versions being written at one LSN: a batch, and what is needed to know whom they supersede.
struct store_change {
    struct store_volume *volume;
    uint64_t lsn;
    rocksdb_writebatch_t *batch;
    struct extent_changes changes; // that go with the batch
    struct rocks_scan *index;
    struct store_floor floor;
    bool looked;          // `next_page` is known
    uint64_t looked_from; // pages from here …
    uint64_t next_page;   // … up to before this one have no version below `lsn`
};
// `cut`, if not UINT32_MAX, is recorded at the LSN; it is below `page_count`, the count before.
enum graft_status store_change_init(struct store_change *change, struct store_volume *volume, uint64_t lsn,
                                    uint32_t cut, uint32_t page_count, struct graft_error *err);
void store_change_release(struct store_change *change);
// Notes what a new version of the page supersedes. The caller goes through the pages in ascending order, or pays a seek
// for each.
enum graft_status store_change_supersede(struct store_change *change, uint32_t pageidx,
                                         struct graft_error *err);
// The page's new version, whose bytes are in the log. Of a page that is not in `staged`: no version at this LSN is there.
void store_change_page(struct store_change *change, uint32_t pageidx, const struct store_version *version);
// Takes staged versions back that store_change_page() is to replace. places_lock is held until the batch is written.
enum graft_status store_change_replace(struct store_change *change, uint32_t pageidx,
                                       struct graft_error *err);
// Both steps of a version that is pending.
enum graft_status store_change_mark(struct store_change *change, uint32_t pageidx, uint64_t remote_lsn,
                                    struct graft_error *err);
// Puts a list of pages into `commits`. Part 0 has the commit's header before it.
enum graft_status store_change_part(struct store_change *change, uint32_t part, uint32_t page_count,
                                    uint32_t cut, const struct pageset *pages, struct graft_error *err);
// The note that versions are being staged goes with each staged batch: in the log it then stands before, or
// with, all that it is about. The publishing batch takes it back.
void store_change_note_staging(struct store_change *change, const struct store_staging *staging);
void store_change_end_staging(struct store_change *change);
// Drops the lists 1 to `parts` of what was staged.
void store_change_forget_lists(struct store_change *change, uint32_t parts);
// Writes what is staged, unsynced.
enum graft_status store_change_stage(struct store_change *change, struct graft_error *err);
// Writes it with the volume's next record.
enum graft_status store_change_publish(struct store_change *change, const struct store_record *next,
                                       bool synced, struct graft_error *err);
// Sets floor and cuts of a record as a cut at `lsn` leaves them.
void store_record_cut(struct store_record *record, uint64_t lsn, uint32_t cut);

// ---- store_staged.c

// Pages of a large commit that are staged.
struct store_staged {
    struct pageset *pages; // NULL: nothing
    uint32_t lists;        // of pages, in `commits`
    bool was_cut;          // those lists name pages that were cut off again
    uint32_t runs;         // of the commit, in the page log
    uint64_t seq;          // of the last of them
    uint32_t cut;          // the lowest page_count up to there
};
void store_staged_release(struct store_staged *staged);
// What the index says is staged at `lsn`, the one above the head; nothing if nothing is.
enum graft_status store_staged_load(struct store_volume *volume, uint64_t lsn,
                                    struct store_staged *ret_staged, struct graft_error *err);
// Removes staged pages above `page_count`.
enum graft_status store_staged_cut_locked(struct store_staged *staged, struct store_volume *volume,
                                          uint64_t lsn, uint32_t page_count, struct graft_error *err);
// Prepares the change that publishes them: the lists become true, the note goes.
enum graft_status store_staged_end(const struct store_staged *staged, struct store_change *change,
                                   struct graft_error *err);
// Removes what was staged above the head. If that fails it is tried again before anything else is written there.
enum graft_status store_drop_staged_locked(struct store_volume *volume, struct graft_error *err);
// The rest of a removal that failed.
enum graft_status store_drop_leftover_locked(struct store_volume *volume, struct graft_error *err);
// Removes what was staged at `lsn`, and the note of it, while opening.
enum graft_status store_drop_staged(struct store *store, uint64_t number, uint64_t lsn,
                                    struct graft_error *err);
// Removes an index entry, with what is live by it, if there is one. places_lock is held until the batch is written.
enum graft_status store_remove_version_locked(struct store *store, const struct store_key *key,
                                              rocksdb_writebatch_t *batch, struct extent_changes *changes,
                                              struct store_version *ret_version, bool *ret_exists,
                                              struct graft_error *err);

// ---- store_writer.c

// Takes the versions that another writer has staged, if one has, out of the way: that writer has lost.
enum graft_status store_doom_stager_locked(struct store_volume *volume, const struct store_writer *but,
                                           struct graft_error *err);

// ---- store_push.c

// What the local commits in (from, to] wrote. `roll_up` leaves out what later ones cut off again.
enum graft_status store_commits_union(struct store_volume *volume, uint64_t from, uint64_t to, bool roll_up,
                                      struct pageset *pages, uint32_t *ret_lowest_cut,
                                      struct graft_error *err);
// Removes the commits in (from, to] from `commits`, with a batch.
enum graft_status store_commits_forget(struct store_volume *volume, rocksdb_writebatch_t *batch,
                                       uint64_t from, uint64_t to, struct graft_error *err);

// ---- store_gc.c

// What was superseded at `lsn` or later is to be looked at (again). store->lock is held.
void store_sweep_from_locked(struct store_volume *volume, uint64_t lsn);
// Removes superseded versions that nobody needs: looks at no more than `entries_max` of them, unless another
// thread is at it already. Failures close the store and show there.
void store_sweep(struct store_volume *volume, size_t entries_max);
// After a change of `entries` versions was published at `lsn`: removes what it superseded and as much again
// of what was left over, and forgets cuts that hide nothing any more.
void store_sweep_after_locked(struct store_volume *volume, uint64_t lsn, size_t entries);

// ---- store_counts.c

// Keep the counts in step, where they are kept.
void store_counts_cut_locked(struct store_volume *volume, uint32_t page_count);
void store_counts_available_locked(struct store_volume *volume, const struct pageset *pages);
void store_counts_pending_locked(struct store_volume *volume, const struct pageset *pages);
void store_counts_everything_locked(struct store_volume *volume, uint32_t page_count);
// Pages whose bytes came, or went, or were never there: each counts only if its mark is what the head shows.
struct store_counted {
    uint32_t pageidx;
    uint64_t mark_lsn;
    enum store_page_state state;
};
void store_counts_fetched_locked(struct store_volume *volume, const struct store_counted *counted,
                                 size_t count);

// ---- store_fetched.c

enum graft_status store_fetched_open(struct store *store, uint64_t cache_limit, struct graft_error *err);
// What arrived of a version that is pending at `remote_lsn`. Its bytes are not looked at.
enum graft_status store_fetched_find(struct store_volume *volume, uint32_t pageidx, uint64_t mark_lsn,
                                     uint64_t remote_lsn, struct store_arrived *ret_arrived, bool *ret_found,
                                     struct graft_error *err);
// The bytes, if they still are there and are the page's.
bool store_fetched_load(struct store_volume *volume, uint32_t pageidx, const struct store_arrived *arrived,
                        void *to);
// Both. What is there and is not the page's is dropped, and not found.
enum graft_status store_fetched_read(struct store_volume *volume, uint32_t pageidx, uint64_t mark_lsn,
                                     uint64_t remote_lsn, void *to, struct store_arrived *ret_arrived,
                                     bool *ret_found, struct graft_error *err);

struct store_kept {
    uint32_t pageidx;
    uint64_t mark_lsn;
    struct store_arrived arrived;
};
// Takes what was written to the page cache into the table of what arrived.
enum graft_status store_fetched_keep_locked(struct store_volume *volume, const struct store_kept *kept,
                                            size_t count, struct graft_error *err);

struct store_fetched_key {
    uint32_t pageidx;
    uint64_t mark_lsn;
};
// Forgets pages, those that arrived among them; sorts the keys. Volume counts are the caller's.
enum graft_status store_fetched_remove(struct store *store, uint64_t number, struct store_fetched_key *keys,
                                       size_t count, struct graft_error *err);
// All of a volume that was deleted, in bounded batches.
enum graft_status store_fetched_remove_volume(struct store *store, uint64_t number, struct graft_error *err);

#endif
