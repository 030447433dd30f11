// SPDX-License-Identifier: Apache-2.0
//
// libgraft: a lazy, partial, strongly consistent replica of volumes of pages.
//
// A *client* is a data directory with local replicas of any number of *volumes*. A volume is a sequence of pages, numbered
// from 1, of one page size. Reads go through *snapshots*, which never change; writes go through *writers*, each of which
// becomes one atomic local commit. Local commits are durable at once and travel to the servers with a *push*; what others
// pushed arrives with a *pull*, which downloads no page: pages are fetched when they are read.
//
//     struct graft_error err;
//     struct graft *client;
//     struct graft_volume *volume;
//     struct graft_settings settings = {.data = "replica", .metastore = "http://127.0.0.1:3001",
//                                       .pagestore = "http://127.0.0.1:3000"};
//     if (graft_open(&settings, &client, &err) != GRAFT_OK)
//         …                                                    // err.message says why
//     graft_volume_clone(client, "GonuUkMBp…", &volume, &err);
//     graft_snapshot_open(volume, &snapshot, &err);
//     graft_snapshot_read(snapshot, 1, page, sizeof page, &size, &err);
//     graft_snapshot_release(snapshot);
//     graft_volume_close(volume);
//     graft_close(client);
//
// Rules
// - Every function that can fail returns `enum graft_status` (graft_status.h) and fills *err, which may be NULL. Outputs
//   (`ret_…`) are untouched on failure.
// - All functions may be called from any thread, also on the same handle, but for: a writer and a file belong to one thread
//   at a time; a handle is closed once, when no other call uses it. Volumes are closed before their client, snapshots,
//   writers and files before their volume.
// - Calls that use the network (marked [network]) block until they are done, at most `deadline_ms`; none of them holds up
//   calls on other volumes. Everything else is local.
// - After fork() the child must not use the parent's handles: calls give INVALID / GRAFT_DETAIL_FORKED.
// - The library never prints, exits or touches signal handlers.
// - Text: VIDs are 22 characters of base58; strings are UTF-8 and end with NUL. Sizes are bytes, times milliseconds.
#ifndef GRAFT_H
#define GRAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "graft_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#define GRAFT_VERSION_STRING "0.1.0"
#define GRAFT_VID_SIZE 23 // characters of a VID's text, its NUL included

struct graft;
struct graft_volume;
struct graft_snapshot;
struct graft_writer;
struct graft_file;

const char *graft_version(void);
// "CONFLICT", "TOKEN_REUSED": names for people and logs. Never NULL.
const char *graft_status_text(enum graft_status status);
const char *graft_detail_text(enum graft_detail detail);

// ---- clients --------------------------------------------------------------------------------------------------------

enum graft_durability {
    // A local commit is on the disk when its call returns.
    GRAFT_DURABILITY_FULL = 0,
    // A local commit survives the process, also if it is killed, but a power failure may lose the latest ones (never one
    // without all that followed it). It is on the disk when a later call needs it there: a push, pull or reset, before its
    // first message leaves or its result shows.
    GRAFT_DURABILITY_NORMAL = 1,
};

struct graft_settings {
    const char *data;      // the data directory, made if missing; one process at a time
    const char *metastore; // base URL; NULL: network calls give UNAVAILABLE
    const char *pagestore; // base URL; NULL: likewise
    const char *bearer;    // sent as Authorization: Bearer; NULL: none
    uint32_t
        deadline_ms; // of one network call; 0: 30,000. What moves many pages takes as long as they need: there it is
                     // the longest standstill.
    uint64_t memory_size;             // for caches of the local store; 0: 32 MiB
    uint64_t cache_limit;             // see graft_cache_limit_set(); 0: no limit
    enum graft_durability durability; // of local commits
};

// Opens or makes the data directory. BUSY / LOCKED if another process has it (its pid is in the message), CORRUPT if what
// lies there cannot be read, INTERNAL for the disk's own errors. Needs no server. A write or sync of the disk that fails
// later closes the client for good: every call gives that error until the directory is opened anew, which replays what the
// disk has; a failed sync is never tried again.
enum graft_status graft_open(const struct graft_settings *settings, struct graft **ret_client,
                             struct graft_error *err);
// Stops background sync, closes the store. NULL is fine. With a volume still open it ends what uses the network, and the rest
// goes with the last volume.
void graft_close(struct graft *client);

// What fetched pages may occupy on the disk, in bytes, of which whole MiB count; at least 8 MiB, or 0 for no limit. It is a
// hard bound on the files in `cache` of the data directory, those being written included. Where there is no room for pages
// that arrive, those are dropped that were read least lately; they are fetched again when they are read. A lower limit frees
// the disk before the call returns. It does not bound the index of what was fetched (some 60 bytes a page), and not what was
// committed here, pushed or not. It holds until the client is closed. INVALID below 8 MiB.
enum graft_status graft_cache_limit_set(struct graft *client, uint64_t limit, struct graft_error *err);

struct graft_cache_info {
    uint64_t limit;         // bytes; 0: none
    uint64_t size;          // bytes of the files that hold fetched pages
    uint64_t live;          // bytes of them that are pages which can be read
    uint64_t evicted_pages; // dropped since the client was opened, to keep the limit
    uint64_t evicted_bytes;
};
enum graft_status graft_cache_info(struct graft *client, struct graft_cache_info *ret_info,
                                   struct graft_error *err);

// ---- volumes --------------------------------------------------------------------------------------------------------

enum graft_volume_kind {
    GRAFT_FIXED = 1,    // every page is exactly page_size; a page never written reads as zeros
    GRAFT_VARIABLE = 2, // a page is 0 to page_size bytes; a page never written has size 0
};

// Makes a new volume with no pages, locally; the servers learn of it at its first push. page_size: a power of two from 512
// to 65,536; 0 means 4,096.
enum graft_status graft_volume_create(struct graft *client, uint32_t page_size, enum graft_volume_kind kind,
                                      struct graft_volume **ret_volume, struct graft_error *err);
// A fresh VID, of no volume yet, and a volume of that VID: for callers that name a volume before they know its page size.
// INVALID / EXISTS if this data directory has one of that VID.
void graft_vid_make(char ret_vid[GRAFT_VID_SIZE]);
enum graft_status graft_volume_create_as(struct graft *client, const char *vid, uint32_t page_size,
                                         enum graft_volume_kind kind, struct graft_volume **ret_volume,
                                         struct graft_error *err);
// Opens a local replica. NOT_FOUND if this data directory has none of that VID.
enum graft_status graft_volume_open(struct graft *client, const char *vid, struct graft_volume **ret_volume,
                                    struct graft_error *err);
// [network] Attaches to a volume of the servers and downloads no page. If a local replica exists it is opened as it is.
enum graft_status graft_volume_clone(struct graft *client, const char *vid, struct graft_volume **ret_volume,
                                     struct graft_error *err);
void graft_volume_close(struct graft_volume *volume); // NULL is fine
// Forgets the local replica and what was not pushed. BUSY while it is open somewhere.
enum graft_status graft_volume_delete(struct graft *client, const char *vid, struct graft_error *err);

// Calls `visit` for each local volume, in the order of their VIDs, until it returns false.
enum graft_status graft_volume_list(struct graft *client, bool (*visit)(void *context, const char *vid),
                                    void *context, struct graft_error *err);

// ---- names ------------------------------------------------------------------------------------------------------------

// Tags are names for volumes in this data directory, for people and scripts: the servers do not know them. A tag may name
// a volume that is not here (yet).
bool graft_tag_is_name(const char *tag); // up to 64 of A-Z a-z 0-9 . _ -, neither "random" nor a VID
// Durable on return; replaces what the tag named. `vid` NULL removes it: NOT_FOUND if there is none. INVALID for a name
// that cannot be a tag.
enum graft_status graft_tag_set(struct graft *client, const char *tag, const char *vid,
                                struct graft_error *err);
enum graft_status graft_tag_get(struct graft *client, const char *tag, char ret_vid[GRAFT_VID_SIZE],
                                struct graft_error *err); // NOT_FOUND
// In the order of their names, until `visit` returns false.
enum graft_status graft_tag_list(struct graft *client,
                                 bool (*visit)(void *context, const char *tag, const char *vid),
                                 void *context, struct graft_error *err);

// A stub file is a text file that names a volume, so that programs that open files can be told of one. Writing replaces the
// file, durably. Reading: NOT_FOUND, INVALID / BAD_MESSAGE if the file is none.
enum graft_status graft_stub_write(const char *path, const char *vid, struct graft_error *err);
enum graft_status graft_stub_read(const char *path, char ret_vid[GRAFT_VID_SIZE], struct graft_error *err);

enum graft_volume_status {
    GRAFT_VOLUME_OK = 0,
    GRAFT_VOLUME_REJECTED =
        1, // a push met a commit that came first; local commits are kept: graft_reset() or graft_fork()
    GRAFT_VOLUME_UNKNOWN = 2, // a push was sent and has no answer; it is repeated until it has
    GRAFT_VOLUME_GONE = 3,    // local commits rest on a base that retention removed
    GRAFT_VOLUME_CORRUPT =
        4, // this replica and the servers remember different histories: GRAFT_DISCARD_REATTACH
};
const char *graft_volume_status_text(enum graft_volume_status status);   // "ok", "rejected", …
const char *graft_volume_status_advice(enum graft_volume_status status); // what to do about it; "" for OK

struct graft_fetch_counts {
    uint64_t requests; // read_pages calls
    uint64_t pages;    // pages that arrived
    uint64_t bytes;    // of their bodies, as they travelled
};

struct graft_volume_info {
    char vid[GRAFT_VID_SIZE];
    uint32_t page_size;
    enum graft_volume_kind kind;
    uint32_t page_count;      // at the local head
    uint64_t local_lsn;       // the local head; 0: nothing was ever committed here
    uint64_t remote_lsn;      // the servers' commit that this replica is based on; 0: none
    uint64_t remote_seen_lsn; // the newest commit of the servers that it has heard of
    uint64_t pending_commits; // local commits that were not pushed
    enum graft_volume_status status;
    struct graft_error status_error; // why it is not OK
    uint64_t pages_available;        // pages of the local head that can be read without the network
    uint64_t pages_pending;          // page_count - pages_available - pages known to be empty
    struct graft_fetch_counts
        fetch; // since the volume came into this data directory; a crash may forget the latest
};
enum graft_status graft_volume_info(struct graft_volume *volume, struct graft_volume_info *ret_info,
                                    struct graft_error *err);

struct graft_volume_head {
    uint32_t page_size;
    enum graft_volume_kind kind;
    uint32_t page_count;
    uint64_t local_lsn;
    enum graft_volume_status status; // never UNKNOWN
    struct graft_error status_error;
};
// What of graft_volume_info() costs nothing.
enum graft_status graft_volume_head(struct graft_volume *volume, struct graft_volume_head *ret_head,
                                    struct graft_error *err);

// ---- reading --------------------------------------------------------------------------------------------------------

// Pins the local head. Readers never block writers, pushes or pulls.
enum graft_status graft_snapshot_open(struct graft_volume *volume, struct graft_snapshot **ret_snapshot,
                                      struct graft_error *err);
// [network] A snapshot of the servers at `remote_lsn`, read-only and independent of the local head; its pages are fetched
// and not kept, but for a few MiB in memory that graft_prefetch() fills. NOT_FOUND / BEYOND_HEAD, GONE / RETIRED.
enum graft_status graft_snapshot_open_remote(struct graft_volume *volume, uint64_t remote_lsn,
                                             struct graft_snapshot **ret_snapshot, struct graft_error *err);
void graft_snapshot_release(struct graft_snapshot *snapshot); // NULL is fine

uint32_t graft_snapshot_page_count(const struct graft_snapshot *snapshot);
uint64_t graft_snapshot_local_lsn(const struct graft_snapshot *snapshot);  // 0 for a remote snapshot
uint64_t graft_snapshot_remote_lsn(const struct graft_snapshot *snapshot); // that it is based on

// A number for the line of commits that the snapshot is on. Of two snapshots of one open volume with the same number, the
// later one extends the earlier one: it came by commits and pulls. After a reset the number is another one (it may also
// change without such a cause), and pages may be other ones at numbers that look the same.
uint64_t graft_snapshot_history(const struct graft_snapshot *snapshot);

// [network, if the page is not here] Reads one page into `to`, which has room for page_size bytes; *ret_size is the page's
// size (always page_size in a fixed volume; 0 beyond page_count in either kind). The bytes were verified. UNAVAILABLE
// without a server, CORRUPT for damage, naming volume, page and place, GONE if its version was retired.
enum graft_status graft_snapshot_read(struct graft_snapshot *snapshot, uint32_t pageidx, void *to,
                                      size_t to_size, size_t *ret_size, struct graft_error *err);

struct graft_page_read {
    uint32_t pageidx;
    void *to;    // has room for page_size bytes
    size_t size; // set: the page's
};
// [network, if pages are not here] Reads many pages, in any order, each as graft_snapshot_read() would: what lies one
// behind the other on the disk with one read, what is missing with few requests. The first page that cannot be read is
// the call's error, and what `to` and `size` have then is anything. For pages by the dozen it costs about half.
enum graft_status graft_snapshot_read_many(struct graft_snapshot *snapshot, struct graft_page_read *reads,
                                           size_t count, struct graft_error *err);

struct graft_page_range {
    uint32_t first;
    uint32_t count;
};
// The pages that are not here, as ranges in ascending order from *next on (start with 1), at most `range_max` of them.
// Afterwards *next is where to go on, 0 at the end. Looks at a bounded number of pages a call, so *ret_count may be 0 before
// the end, and neighbours may come as two ranges. INVALID for a remote snapshot.
enum graft_status graft_snapshot_pending(struct graft_snapshot *snapshot, uint32_t *next,
                                         struct graft_page_range *ranges, size_t range_max, size_t *ret_count,
                                         struct graft_error *err);
// [network, in the background] Asks for pages that will be read soon: those missing are requested, and a later read waits
// for what is already under way. Errors are not reported here: the read that needs the page meets them. Pages beyond the
// end are left out; of a remote snapshot at most the first 4 MiB are taken.
enum graft_status graft_prefetch(struct graft_snapshot *snapshot, const struct graft_page_range *ranges,
                                 size_t range_count, struct graft_error *err);
// [network] The same, and waits until all of them arrived. With a cache limit (graft_cache_limit_set()) that is smaller than
// they are, the first may be evicted by the last. INVALID for a remote snapshot, which keeps none.
enum graft_status graft_hydrate(struct graft_snapshot *snapshot, const struct graft_page_range *ranges,
                                size_t range_count, struct graft_error *err);

// ---- writing --------------------------------------------------------------------------------------------------------

// Begins a write on top of the local head. Many writers may be open; the first to commit wins.
enum graft_status graft_writer_begin(struct graft_volume *volume, struct graft_writer **ret_writer,
                                     struct graft_error *err);
// One page, copied. Fixed volumes: size is page_size. The volume grows to hold it. CONFLICT may come early, when the
// head has moved already. LIMIT for a wrong size.
enum graft_status graft_writer_write(struct graft_writer *writer, uint32_t pageidx, const void *data,
                                     size_t size, struct graft_error *err);
// [network, if the page is not here] Reads as the commit will leave it: own writes over the snapshot it began on.
enum graft_status graft_writer_read(struct graft_writer *writer, uint32_t pageidx, void *to, size_t to_size,
                                    size_t *ret_size, struct graft_error *err);
// Sets the volume's length. Pages cut off never come back.
enum graft_status graft_writer_truncate(struct graft_writer *writer, uint32_t page_count,
                                        struct graft_error *err);
uint32_t graft_writer_page_count(const struct graft_writer *writer);
// Commits atomically and durably, and frees the writer whatever the answer. CONFLICT / NOT_HEAD if another commit or a
// pull moved the head since it began: nothing was written. *ret_lsn (may be NULL) is the new local LSN; a writer that
// changed nothing commits nothing and gives the head.
enum graft_status graft_writer_commit(struct graft_writer *writer, uint64_t *ret_lsn,
                                      struct graft_error *err);
// Commits writers of up to 64 volumes of one client together: after a crash, too, all of these commits are there or none. Frees
// them whatever the answer, except INVALID / FORKED. CONFLICT / NOT_HEAD if the head of one of them moved, INVALID /
// BAD_ARGUMENT for two of one volume or of different clients, LIMIT / TOO_LARGE for more. `ret_lsns` (may be NULL) has room for
// `count`. Each volume is pushed by itself: the servers may have one commit without the other.
enum graft_status graft_writer_commit_all(struct graft_writer *const *writers, unsigned count,
                                          uint64_t *ret_lsns, struct graft_error *err);
void graft_writer_abort(struct graft_writer *writer); // frees it; NULL is fine

// For a transaction on several volumes or files that is decided elsewhere, by the removal of the file `witness` (an
// absolute path, which exists): makes what the writer holds durable without committing it. Then commit the writer after the
// file was removed, or abort it while it is there. If the process ends before that, or the commit fails, the next
// graft_open() of the data directory commits if there is no such file then, and drops the changes if there is. Until then
// nothing else may move the volume's head: graft_freeze() it first. CONFLICT / NOT_HEAD if something has; BUSY if the volume
// has a prepared write already. A prepared writer takes no more changes.
enum graft_status graft_writer_prepare(struct graft_writer *writer, const char *witness,
                                       struct graft_error *err);

// Keeps the head from being moved by the servers: until graft_thaw(), pulls and resets of this volume give BUSY / FROZEN
// when they have the servers' answer, and background sync comes again. Waits for one that is being applied. Local commits
// go on. Freezes are counted; each has its thaw, from any thread. Meant for the moments in which a writer that cannot begin
// again is committed.
enum graft_status graft_freeze(struct graft_volume *volume, struct graft_error *err);
void graft_thaw(struct graft_volume *volume); // NULL is fine

// ---- synchronising --------------------------------------------------------------------------------------------------

// [network] Pushes all local commits as one remote commit, exactly once however often it is repeated. OK: done, or there
// was nothing to push. CONFLICT / NOT_HEAD: another commit came first; the volume is `rejected` now. UNAVAILABLE, UNKNOWN:
// the push stays pending, also over a restart, and the next call goes on with it; commits made since it began belong to the
// call after that. *ret_remote_lsn may be NULL.
enum graft_status graft_push(struct graft_volume *volume, uint64_t *ret_remote_lsn, struct graft_error *err);
// [network] Takes over what others pushed, without downloading pages. CONFLICT / UNPUSHED if local commits are in the way
// (then only the servers' head was noted), BUSY / PUSH_PENDING if a push has no answer yet. *ret_changed (may be NULL):
// how many pages changed.
enum graft_status graft_pull(struct graft_volume *volume, uint64_t *ret_changed, struct graft_error *err);
// [network] Pushes whatever there is to push, then pulls.
enum graft_status graft_sync(struct graft_volume *volume, struct graft_error *err);
// [network] Drops the local commits and follows the servers again: pages that changed there and pages that the dropped
// commits touched are as the servers have them, at a new local LSN. A push that has no answer is settled first, so that
// nothing dropped can come back: it is asked about again, and if that does not help, a void commit takes its place in the
// servers' history. BUSY / PUSH_PENDING, with the reason, if the servers cannot be asked; nothing was dropped then.
// CORRUPT for a `corrupt` volume: see graft_discard().
enum graft_status graft_reset(struct graft_volume *volume, struct graft_error *err);

enum graft_discard_flags {
    // Drops the replica's history as well and takes the servers' as it is, as a new clone would; every page is to be
    // fetched again. The way out of `corrupt`.
    GRAFT_DISCARD_REATTACH = 1,
};
// [network] graft_reset() with flags. *ret_dropped (may be NULL): how many local commits were dropped; a push that turned
// out to have landed is none of them.
enum graft_status graft_discard(struct graft_volume *volume, unsigned flags, uint64_t *ret_dropped,
                                struct graft_error *err);

// [network, for a volume that the servers know] Makes a new volume, with a VID of its own, that is what this one is now: the
// servers fork what both have (no page travels, neither up nor down), and what is unpushed here becomes one local commit on
// top, to be pushed like any other; the rest is fetched when it is read. A push without an answer is settled first, as by
// graft_reset(). This volume stays as it is, its local commits included, until graft_reset(). The fork is there whole or not
// at all; after a crash the same call goes on with the same VID. GONE / RETIRED if the servers no longer keep the commit that
// this volume is based on, CORRUPT for a `corrupt` volume.
enum graft_status graft_fork(struct graft_volume *volume, struct graft_volume **ret_fork,
                             struct graft_error *err);

struct graft_sync_settings {
    bool push;        // push after local commits
    bool pull;        // pull when the servers' head moves (by a watch stream; polling where that is refused)
    uint32_t poll_ms; // of the polling; 0: 5,000
    // Called after each attempt, from a sync thread, for one volume one at a time; NULL: never. Must not stop the sync, nor
    // push, pull or reset, nor close volume or client.
    void (*on_event)(void *context, const char *vid, const struct graft_error *outcome);
    void *context;
};
// [network, in the background] Keeps the volume in step until it is stopped or closed; a push that an earlier process left
// without an answer is gone on with. A few threads serve all volumes of a client; a volume that fails is tried again with
// growing, jittered pauses (0.1 to 30 s, longer where a server asks for it) and holds up no other.
enum graft_status graft_sync_start(struct graft_volume *volume, const struct graft_sync_settings *settings,
                                   struct graft_error *err);
void graft_sync_stop(struct graft_volume *volume);

// ---- a volume as a file of bytes --------------------------------------------------------------------------------------

// Reads and writes at any offset; the writes between two graft_file_sync() calls are one commit. A fixed volume's size is a
// multiple of page_size, and writing past the end grows it to the next one; in a variable volume only the last page may be
// short, and the size is exact. Opening reads one page at most.
enum graft_status graft_file_open(struct graft_volume *volume, struct graft_file **ret_file,
                                  struct graft_error *err);
// [network] Reads up to `size` bytes; fewer only at the end. *ret_size is how many.
enum graft_status graft_file_read(struct graft_file *file, uint64_t offset, void *to, size_t size,
                                  size_t *ret_size, struct graft_error *err);
// [network, for pages that are changed in part and not here] Writing past the end fills the gap with zeros. CONFLICT /
// NOT_HEAD at the first write after a sync: the head has moved; nothing was written and the file shows the new head.
enum graft_status graft_file_write(struct graft_file *file, uint64_t offset, const void *data, size_t size,
                                   struct graft_error *err);
enum graft_status graft_file_size(struct graft_file *file, uint64_t *ret_size, struct graft_error *err);
enum graft_status graft_file_truncate(struct graft_file *file, uint64_t size, struct graft_error *err);
// Commits what was written. CONFLICT: the head moved; the writes are dropped and the file shows the new head.
enum graft_status graft_file_sync(struct graft_file *file, struct graft_error *err);
// Drops what was not synced. NULL is fine.
void graft_file_close(struct graft_file *file);

// ---- checking this data directory -------------------------------------------------------------------------------------

// Something that graft_local_check() found. Its texts live as long as the call that shows it.
struct graft_local_damage {
    const char *vid;               // NULL: of no volume
    uint32_t pageidx;              // 0: of no page
    uint64_t local_lsn;            // of the page's version
    const char *file;              // NULL: in no page file
    uint64_t offset;               // in the file, bytes
    bool fetchable;                // the servers have the page: it is fetched again when it is read
    const struct graft_error *why; // says all that in words
};
struct graft_local_counts {
    uint64_t volumes;
    uint64_t pages;   // versions of pages whose bytes are here by local commits; all were read and verified
    uint64_t fetched; // likewise, fetched from the servers
    uint64_t damaged; // of whatever kind: how often `damaged` was called
    uint64_t unnamed; // sound pages behind a damaged header (one call for all of an extent)
    // Bytes of the page files: size = live + dead + headers + unused + free.
    uint64_t size;
    uint64_t live;    // of those pages
    uint64_t dead;    // of pages that nobody needs any more
    uint64_t headers; // with what is lost to alignment
    uint64_t unused;  // the rest of extents that are being filled, or were filled no further
    uint64_t free;
};
// Reads every page whose bytes are in this data directory and verifies it, and accounts for every byte of the page files.
// Needs no server. Calls `damaged` for whatever is not as it should be, `progress` with bytes from time to time (either may
// be NULL). OK if all is sound, CORRUPT if something was damaged; *ret_counts (may be NULL) is set for either outcome. Other
// calls go on meanwhile, then the counts are of no one moment.
enum graft_status graft_local_check(struct graft *client,
                                    void (*damaged)(void *context, const struct graft_local_damage *damage),
                                    void (*progress)(void *context, uint64_t done, uint64_t total),
                                    void *context, struct graft_local_counts *ret_counts,
                                    struct graft_error *err);

// ---- asking the servers ---------------------------------------------------------------------------------------------

struct graft_remote_head {
    char vid[GRAFT_VID_SIZE];
    uint64_t lsn;
    uint32_t page_count;
    uint32_t page_size;
    enum graft_volume_kind kind;
    uint64_t time_ms; // of the commit, since 1970
    bool deleted;     // that commit is the volume's end (only a watch shows such a one)
};
// [network] Each volume of the servers, in the order of their VIDs, until `visit` returns false.
enum graft_status graft_remote_list(struct graft *client,
                                    bool (*visit)(void *context, const struct graft_remote_head *head),
                                    void *context, struct graft_error *err);
// [network] Ends a volume for everybody: its last commit says so.
enum graft_status graft_remote_delete(struct graft *client, const char *vid, struct graft_error *err);

struct graft_commit_info {
    uint64_t lsn;
    uint64_t time_ms;
    char client[GRAFT_VID_SIZE]; // the CID of who pushed it; empty: the servers themselves
    uint64_t pages_changed;
    uint32_t segment_count;
    uint32_t page_count;
    bool deleted;
};
// [network] The volume's commits on the servers, newest first, at most `limit` (0: all), until `visit` returns false.
enum graft_status graft_remote_log(struct graft *client, const char *vid, uint64_t limit,
                                   bool (*visit)(void *context, const struct graft_commit_info *commit),
                                   void *context, struct graft_error *err);
// [network] Calls `visit` at once and whenever a watched head moves, until it returns false or the stream breaks
// (UNAVAILABLE). Also called with NULL about once a second, so that a caller can stop.
enum graft_status graft_remote_watch(struct graft *client, const char *const *vids, size_t vid_count,
                                     bool (*visit)(void *context, const struct graft_remote_head *head),
                                     void *context, struct graft_error *err);
// [network] Reads every page of the servers' head (or of `remote_lsn`, if not 0) past every cache of this client and
// verifies it. Calls `damaged` for each page that fails, `progress` from time to time (either may be NULL). OK if all were
// read, CORRUPT if some were damaged; *ret_checked (may be NULL) counts the pages of either outcome.
enum graft_status graft_remote_check(struct graft_volume *volume, uint64_t remote_lsn,
                                     void (*damaged)(void *context, uint32_t pageidx,
                                                     const struct graft_error *why),
                                     void (*progress)(void *context, uint64_t done, uint64_t total),
                                     void *context, uint64_t *ret_checked, struct graft_error *err);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
