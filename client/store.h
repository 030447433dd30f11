// SPDX-License-Identifier: Apache-2.0
//
// The client's local store: local replicas of volumes in one data directory, durable and crash-safe, without
// a network. What it is made of stays inside: callers see volumes, pins, writers and pages.
//
//     store_open → store_volume_create | _clone | _open
//         reading    store_pin_open → store_read …, store_missing … → store_pin_release
//         writing    store_writer_begin → _write | _truncate | _read … → _commit | _abort
//         fetching   store_arrivals_new → _add … → _flush → _free
//         pushing    store_push_begin → _committing ⇄ _retreat → _settle | _reject
//         pulling    store_apply_pull, store_apply_reset
//     store_volume_close → store_close
//
// The model. A volume's local history is a dense line of local LSNs. Each is made by a local commit, or by a
// pull or a reset, which marks pages *pending* at a local LSN: "this page is what the servers have at remote
// LSN r". The remote *mapping* says which local LSN equals which remote LSN; local commits above it are
// unpushed. A page's version at a snapshot is its newest one at or below it, unless the volume was cut below
// the page since. A pending version becomes readable when its bytes arrive from the servers
// (store_arrivals_…).
//
// Threads. All calls may come from any thread, on any handle; but a writer and an arrivals object belong to
// one thread at a time. Calls that write take the volume's commit lock (RANK_VOLUME), and hold it across the
// store's own disk write; all others take higher ranks only, shortly. (A read that meets a damaged page writes.) So a caller holds no lock of rank
// RANK_VOLUME or above.
//
// Failures. Any call may give INTERNAL / NO_MEMORY, INTERNAL / NO_SPACE or INTERNAL / IO beside the statuses named here.
// A full disk fails what writes, whole, and nothing else: reads go on, and so do writes within seconds once there is room.
// The same holds where a page file cannot be written. Any other failed write of the index, and any failed sync, closes the
// store: from then on every call gives INTERNAL with the same detail, until the directory is opened anew. After a failed
// call nothing that it was to do is visible, but for a commit whose sync failed: whether that one is there is seen when the
// directory is opened again. What was read from disk and is not what was written is CORRUPT / BAD_CHECKSUM or CORRUPT /
// BAD_MESSAGE, naming it.
#ifndef CLIENT_STORE_H
#define CLIENT_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/include/graft.h"
#include "common/base/buffer.h"
#include "common/base/checksum.h"
#include "common/base/compiler.h"
#include "common/base/gid.h"
#include "common/base/limits.h"
#include "common/base/pageset.h"

// A writer keeps this much in memory; a larger commit is staged on disk as it is written.
#define STORE_WRITER_MEMORY_MAX (4 * MIB)
// The batches of a large pull, or of removing what nobody needs any more, have at most this many entries.
#define STORE_BATCH_ENTRIES 4096u
// Arrivals go to disk when this much has come.
#define STORE_ARRIVALS_SIZE (1 * MIB)
// The least memory that a store works with; smaller settings are raised to it.
#define STORE_MEMORY_MIN (4 * MIB)
#define STORE_MEMORY_DEFAULT (32 * MIB)

struct store;
struct store_volume;
struct store_pin;
struct store_writer;
struct store_arrivals;

// ---- the directory

struct store_settings {
    const char *directory; // made if missing
    uint64_t memory_size;  // bytes for caches and write buffers; 0: STORE_MEMORY_DEFAULT
    // Seams for tests: what a writer keeps in memory (0: STORE_WRITER_MEMORY_MAX), and how many entries the
    // batches of a pull or a removal have (0: STORE_BATCH_ENTRIES).
    uint64_t writer_memory_size;
    unsigned batch_entries;
    uint64_t cache_limit;             // see store_cache_limit_set()
    enum graft_durability durability; // of local commits; everything else is synced where it says so
};

// Opens or makes the directory and drops what an interrupted commit or pull left above a volume's head. BUSY
// / LOCKED with the holder's pid, CORRUPT for a directory of another format or with damaged records, DENIED.
// Takes no time that grows with the number of volumes.
enum graft_status store_open(const struct store_settings *settings, struct store **ret_store,
                             struct graft_error *err);
// All volumes are closed. NULL is fine. In a child of the process that opened it, only forgets the handle.
void store_close(struct store *store);

// INVALID / FORKED in a child of the process that opened the store. The other calls do not check.
enum graft_status store_check_fork(const struct store *store, struct graft_error *err);

// The CID of this directory, made when it was first opened. Lives as long as the store.
const struct gid *store_cid(const struct store *store);

// What fetched pages may occupy on the disk (DIR/cache, in whole MiB): 0 for no limit, else at least CACHE_LIMIT_MIN, or
// INVALID / BAD_ARGUMENT. What was read least lately is evicted, and pending again. A lower limit frees the disk before the
// call returns. The caller holds no lock.
enum graft_status store_cache_limit_set(struct store *store, uint64_t limit, struct graft_error *err);

struct store_cache_usage {
    uint64_t limit;         // bytes; 0: none
    uint64_t size;          // of DIR/cache
    uint64_t live;          // bytes of pages that can be read
    uint64_t evicted_pages; // since the directory was opened
    uint64_t evicted_size;  // their bytes
};
void store_cache_usage(struct store *store, struct store_cache_usage *ret_usage);

// ---- volumes

// A commit of the servers.
struct store_remote {
    uint64_t lsn; // 0: none yet; then chain is zero
    struct hash128 chain;
    uint32_t page_count;
};

enum store_push_phase {
    STORE_PUSH_IDLE = 0,
    STORE_PUSH_UPLOADING = 1,  // a token is chosen and the range frozen; segments are being uploaded
    STORE_PUSH_COMMITTING = 2, // the CommitRequest is fixed and kept; it may have been sent
    STORE_PUSH_FENCING = 3,    // the same, and a void commit on its base is to keep it from landing
};

// What a push sends: the local commits in (from_lsn, to_lsn], rolled up.
struct store_push {
    enum store_push_phase phase; // the rest is zero when IDLE
    struct token token;
    struct store_remote base; // the mapping when it began
    uint64_t from_lsn;        // the local LSN that equals base
    uint64_t to_lsn;
    uint32_t page_count; // at to_lsn
    uint32_t cut;        // the lowest page_count in [from_lsn, to_lsn]
    bool sent;           // COMMITTING was reached at least once: the servers may know the token
    // If sent, what the CommitRequest said; a retreat keeps it, for the next must say the same.
    struct hash128 digest;
};

struct store_state {
    struct gid vid;
    uint32_t page_size;
    enum graft_volume_kind kind;
    uint64_t local_lsn;         // the head; 0: nothing yet
    uint32_t page_count;        // at the head
    struct store_remote remote; // the mapping: this remote commit …
    uint64_t mapped_lsn;        // … is this local LSN; local_lsn - mapped_lsn commits are unpushed
    uint64_t remote_seen_lsn;   // the newest remote LSN heard of
    struct store_push push;
    enum graft_volume_status status;
    struct graft_error status_error; // why status is not OK
};

// Makes a volume with no pages. INVALID / EXISTS if there is one of that VID, INVALID / BAD_ARGUMENT for a
// bad page size. Durable on return.
enum graft_status store_volume_create(struct store *store, const struct gid *vid, uint32_t page_size,
                                      enum graft_volume_kind kind, struct store_volume **ret_volume,
                                      struct graft_error *err);
// Makes a replica of the servers' volume at `head`: no page is here, each resolves to pending at head->lsn.
// The local head is 1 (0 if head->lsn is 0). INVALID / EXISTS as above. Durable on return.
enum graft_status store_volume_clone(struct store *store, const struct gid *vid, uint32_t page_size,
                                     enum graft_volume_kind kind, const struct store_remote *head,
                                     struct store_volume **ret_volume, struct graft_error *err);
// NOT_FOUND / NO_SUCH_VOLUME. Handles are counted: each open, create or clone has its close.
enum graft_status store_volume_open(struct store *store, const struct gid *vid,
                                    struct store_volume **ret_volume, struct graft_error *err);
// Pins, writers and arrivals hold their volume open by themselves. NULL is fine.
void store_volume_close(struct store_volume *volume);
DEFINE_CLEANUP(struct store_volume, store_volume_close)
// Forgets the volume and all that was not pushed. BUSY while a handle is open, NOT_FOUND / NO_SUCH_VOLUME.
// Durable on return; its space is freed by and by.
enum graft_status store_volume_delete(struct store *store, const struct gid *vid, struct graft_error *err);
// In the order of VIDs, until `visit` returns false. Volumes made or deleted meanwhile may be missed. `visit`
// may call the store.
enum graft_status store_volume_list(struct store *store, bool (*visit)(void *context, const struct gid *vid),
                                    void *context, struct graft_error *err);

const struct gid *store_volume_vid(const struct store_volume *volume);
uint32_t store_volume_page_size(const struct store_volume *volume);
enum graft_volume_kind store_volume_kind(const struct store_volume *volume);
// A consistent copy. Never waits for a disk.
void store_volume_state(struct store_volume *volume, struct store_state *ret_state);

struct store_counts {
    uint64_t available; // pages of the head that are here
    uint64_t pending;   // pages of the head whose bytes the servers have
};                      // the rest of page_count was never written
// The first call on a volume walks its index once; after that it costs nothing.
enum graft_status store_volume_counts(struct store_volume *volume, struct store_counts *ret_counts,
                                      struct graft_error *err);

// What was fetched for a volume since it came into this directory. Not synced: a crash may forget the latest.
enum graft_status store_tally_read(struct store_volume *volume, struct graft_fetch_counts *ret_tally,
                                   struct graft_error *err);
enum graft_status store_tally_write(struct store_volume *volume, const struct graft_fetch_counts *tally,
                                    struct graft_error *err);

// Notes a remote LSN heard of (kept if it is the newest). Not synced.
enum graft_status store_note_remote(struct store_volume *volume, uint64_t remote_lsn,
                                    struct graft_error *err);
// Sets the volume's status with its reason (NULL for OK). Durable on return.
enum graft_status store_set_status(struct store_volume *volume, enum graft_volume_status status,
                                   const struct graft_error *why, struct graft_error *err);

// ---- reading

// Pins the head: what it shows never changes until it is released. Never waits for a writer.
enum graft_status store_pin_open(struct store_volume *volume, struct store_pin **ret_pin,
                                 struct graft_error *err);
// A pin on the last local LSN of the push under way (CHECKs that there is one): for the pages of
// store_push_pages().
enum graft_status store_pin_open_push(struct store_volume *volume, struct store_pin **ret_pin,
                                      struct graft_error *err);
// Another reference to the same pin; each is released once.
struct store_pin *store_pin_ref(struct store_pin *pin);
void store_pin_release(
    struct store_pin *pin); // NULL is fine; removes what only this pin kept, at most in part
DEFINE_CLEANUP(struct store_pin, store_pin_release)

struct store_volume *store_pin_volume(const struct store_pin *pin); // borrowed
uint64_t store_pin_lsn(const struct store_pin *pin);
uint32_t store_pin_page_count(const struct store_pin *pin);
const struct store_remote *store_pin_remote(const struct store_pin *pin); // the mapping when it was made

enum store_page_state {
    STORE_PAGE_AVAILABLE = 1, // the bytes are here
    STORE_PAGE_EMPTY = 2,     // never written, or beyond page_count: a positive statement
    STORE_PAGE_PENDING = 3,   // the servers have the bytes: ask them
};

struct store_page {
    uint32_t pageidx;
    enum store_page_state state;
    uint32_t size; // AVAILABLE: bytes of the page
    // PENDING:
    uint64_t
        mark_lsn; // the local LSN of the version: with VID and pageidx it names the page's bytes for ever
    struct store_remote ask; // where the servers have it: the latest remote commit known to hold this version
};

// Reads one page as the pin shows it. AVAILABLE: its bytes, verified, are in `to`, which has room for
// page_size bytes (to_size says so: INVALID / BAD_ARGUMENT otherwise). EMPTY leaves `to` alone. A fetched or pushed
// page whose bytes went bad is PENDING (again); a page that exists only here and went bad is CORRUPT / BAD_CHECKSUM. One look-up, whatever the history's length. INVALID / BAD_ARGUMENT for page 0.
enum graft_status store_read(struct store_pin *pin, uint32_t pageidx, void *to, size_t to_size,
                             struct store_page *ret_page, struct graft_error *err);

struct store_read {
    uint32_t pageidx;
    void *to;               // has room for page_size bytes
    struct store_page page; // set
};
// Reads many pages, in any order, each as store_read() would: in the order in which they lie on the disk, and what lies
// one behind the other at once.
enum graft_status store_read_many(struct store_pin *pin, struct store_read *reads, size_t count,
                                  struct graft_error *err);

// The PENDING pages among `pages`, ascending from *cursor on (start with 1), at most `to_max` of them.
// Afterwards *cursor is where to go on, 0 at the end. Pages above page_count are left out. Examines a bounded
// number of pages a call, so *ret_count may be 0 before the end.
enum graft_status store_missing(struct store_pin *pin, const struct pageset *pages, uint32_t *cursor,
                                struct store_page *to, size_t to_max, size_t *ret_count,
                                struct graft_error *err);

// ---- arriving pages

// Collects pages that the servers sent and writes them in chunks of STORE_ARRIVALS_SIZE, unsynced: they can
// be fetched again.
enum graft_status store_arrivals_new(struct store_volume *volume, struct store_arrivals **ret_arrivals,
                                     struct graft_error *err);
void store_arrivals_free(struct store_arrivals *arrivals); // drops what was not flushed; NULL is fine
DEFINE_CLEANUP(struct store_arrivals, store_arrivals_free)
// Adds the bytes of (pageidx, mark_lsn), as store_read or store_missing named them; they were verified, and
// are copied once. A fixed volume's page has page_size bytes, a variable one's at most: anything else is
// INVALID / BAD_ARGUMENT. Writes a chunk when it is full, as flush does.
enum graft_status store_arrivals_add(struct store_arrivals *arrivals, uint32_t pageidx, uint64_t mark_lsn,
                                     const void *data, size_t size, struct graft_error *err);
// The servers say that the page was never written.
enum graft_status store_arrivals_add_empty(struct store_arrivals *arrivals, uint32_t pageidx,
                                           uint64_t mark_lsn, struct graft_error *err);
// Writes what was added. Pages whose mark has gone meanwhile are dropped silently.
enum graft_status store_arrivals_flush(struct store_arrivals *arrivals, struct graft_error *err);

// ---- writing

// Begins a writer on the head; it sees its base and its own writes. Any number may be open: the first to
// commit wins.
enum graft_status store_writer_begin(struct store_volume *volume, struct store_writer **ret_writer,
                                     struct graft_error *err);
// One page, copied. INVALID / BAD_ARGUMENT for page 0, LIMIT / TOO_LARGE for a size that the volume does not
// take. CONFLICT / NOT_HEAD if the head moved and this write would have to be staged. One writer of a volume
// stages at a time: BUSY if another does; the write was not done then, and what came before it still stands.
enum graft_status store_writer_write(struct store_writer *writer, uint32_t pageidx, const void *data,
                                     size_t size, struct graft_error *err);
// Sets the length. What is cut off never comes back.
enum graft_status store_writer_truncate(struct store_writer *writer, uint32_t page_count,
                                        struct graft_error *err);
// As store_read, with the writer's own changes on top.
enum graft_status store_writer_read(struct store_writer *writer, uint32_t pageidx, void *to, size_t to_size,
                                    struct store_page *ret_page, struct graft_error *err);
struct store_pin *store_writer_base(struct store_writer *writer); // borrowed: the pin that it began on
uint32_t store_writer_page_count(const struct store_writer *writer);
uint32_t store_writer_cut(const struct store_writer *writer); // the lowest page_count that it had
// Adds the pages that it wrote and did not cut off again.
void store_writer_pages(const struct store_writer *writer, struct pageset *pages);
// Commits atomically, durable on return (with GRAFT_DURABILITY_NORMAL: once a later call syncs), and frees the
// writer whatever the answer. CONFLICT / NOT_HEAD if the head moved since it began. A writer that changed nothing gives the head and commits nothing. *ret_lsn (may
// be NULL) is the new head.
enum graft_status store_writer_commit(struct store_writer *writer, uint64_t *ret_lsn,
                                      struct graft_error *err);
// The same for writers of several volumes of one store, at once: all of them are committed, or none. INVALID /
// BAD_ARGUMENT for two of one volume, LIMIT / TOO_LARGE for more than COMMIT_VOLUMES_MAX. `ret_lsns` (may be NULL) has
// room for `count`.
enum graft_status store_writer_commit_all(struct store_writer *const *writers, unsigned count,
                                          uint64_t *ret_lsns, struct graft_error *err);
void store_writer_abort(struct store_writer *writer); // frees it; NULL is fine
DEFINE_CLEANUP(struct store_writer, store_writer_abort)

// ---- pushing
//
//          begin              committing             settle
//   IDLE ────────▶ UPLOADING ───────────▶ COMMITTING ────────▶ IDLE
//                   │ │    ▲───────────────┘ │  ▲ │   reject
//            abandon│ │         retreat      │  │ └──────────▶ IDLE, status rejected
//                   ▼ │ fence          fence │  │ unfence
//                IDLE └──────────────────▶ FENCING ──────────▶ IDLE: settle, or give_up with a status
//
// Each arrow is durable before it returns, and CHECKs that it starts where the diagram says. One thread at a
// time drives a volume's push.

// Freezes the unpushed commits under `token`. NOT_FOUND if nothing is unpushed.
enum graft_status store_push_begin(struct store_volume *volume, const struct token *token,
                                   struct store_push *ret_push, struct graft_error *err);
// The pages that the push under way sends: what (from_lsn, to_lsn] wrote and did not cut off again. Read them
// through store_pin_open_push(). The set is the caller's.
enum graft_status store_push_pages(struct store_volume *volume, struct pageset **ret_pages,
                                   struct graft_error *err);
// Keeps the serialized CommitRequest (at most COMMIT_REQUEST_SIZE_MAX: LIMIT / TOO_LARGE) and its digest.
// CORRUPT if an earlier one of this push had another digest: what is here changed since.
enum graft_status store_push_committing(struct store_volume *volume, const struct hash128 *digest,
                                        struct bytes request, struct graft_error *err);
// Appends the request that was kept. Only while COMMITTING or FENCING.
enum graft_status store_push_request(struct store_volume *volume, struct buffer *to, struct graft_error *err);
// SEGMENT_GONE: back to UPLOADING with the same token, base and range.
enum graft_status store_push_retreat(struct store_volume *volume, struct graft_error *err);
// The push landed as `remote`: the mapping becomes (remote, to_lsn), the status OK.
enum graft_status store_push_settle(struct store_volume *volume, const struct store_remote *remote,
                                    struct graft_error *err);
// The servers rejected it, definitively: status `rejected` because of `why`. Local commits stay.
enum graft_status store_push_reject(struct store_volume *volume, const struct graft_error *why,
                                    struct graft_error *err);
// Keeps the serialized CommitRequest of a void commit on the push's base. From UPLOADING only if it was sent:
// the request of that time is still kept.
enum graft_status store_push_fence(struct store_volume *volume, struct bytes request,
                                   struct graft_error *err);
// Appends the fence's request. Only while FENCING.
enum graft_status store_push_fence_request(struct store_volume *volume, struct buffer *to,
                                           struct graft_error *err);
// Something else took the place after the base (or the fence was never sent): the push's own request is asked
// about again.
enum graft_status store_push_unfence(struct store_volume *volume, struct graft_error *err);
// The push will never land from now on, and nobody needs to know whether it had: it is over, local commits
// stay, with this status because of `why`.
enum graft_status store_push_give_up(struct store_volume *volume, enum graft_volume_status status,
                                     const struct graft_error *why, struct graft_error *err);
// Gives up a push of which the servers cannot know. BUSY / PUSH_PENDING if it was ever COMMITTING.
enum graft_status store_push_abandon(struct store_volume *volume, struct graft_error *err);

// ---- pulling

struct store_pull {
    uint64_t after_lsn;       // the remote LSN of the mapping that the servers were asked with
    struct store_remote head; // head.lsn ≥ after_lsn
    const struct pageset
        *changed;    // in (after_lsn, head.lsn]; pages above head.page_count are ignored; NULL: none
    uint32_t cut;    // the lowest page_count in [after_lsn, head.lsn]; values above head.page_count: that
    bool everything; // the history was retired: every page counts as changed, `changed` and `cut` as nothing
};

// Takes over the servers' head at a new local LSN, durably: changed pages become pending at head.lsn; no byte
// moves. Nothing happens if head.lsn = after_lsn. In any case head.lsn is noted as seen. Only if the
// mapping's LSN still is after_lsn (else CONFLICT / NOT_HEAD: ask again), nothing is unpushed (CONFLICT /
// UNPUSHED) and no push is under way (BUSY / PUSH_PENDING). Writers that began before it will get CONFLICT.
enum graft_status store_apply_pull(struct store_volume *volume, const struct store_pull *pull,
                                   struct graft_error *err);
// The same, but drops the unpushed commits: pages that they touched become pending as well. The status
// becomes OK. Happens even if head.lsn = after_lsn. BUSY / PUSH_PENDING while a push is under way. With
// `everything` the mapping may be any.
enum graft_status store_apply_reset(struct store_volume *volume, const struct store_pull *pull,
                                    struct graft_error *err);

// ---- forking

// Names the volume that this one is to be forked into: `fresh`, or the one that was named before and not finished,
// if the mapping is still the same. Durable on return.
enum graft_status store_fork_begin(struct store_volume *volume, const struct gid *fresh,
                                   struct gid *ret_new_vid, struct graft_error *err);
// Makes that volume: cloned at `head` (the servers' fork of this volume's mapping; LSN 0 if there is none), with
// what is unpushed here as one local commit on top. Nothing is pulled, reset or settled meanwhile. Durable on
// return; after a failure or a crash there is no such volume. This one is left as it is.
enum graft_status store_fork_finish(struct store_volume *volume, const struct gid *new_vid,
                                    const struct store_remote *head, struct store_volume **ret_volume,
                                    struct graft_error *err);

#endif
