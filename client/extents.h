// SPDX-License-Identifier: Apache-2.0
//
// Page files: space for pages in extents of 1 MiB, 64 to a file, and how much of each is live. Two of these are in a
// data directory: DIR/pages, which is durable, and DIR/cache, which is not.
//
//     DIR/pages/00000000, 00000001, …     64 MiB each when full; an extent is zero-filled and synced before its first use, so
//                                         that syncing a page later writes no metadata
//
// A file's name is its number in eight hexadecimal digits; files have no gaps but for those that were lost.
//
// An extent's life:
//
//     ABSENT ──grow──▶ FREE ──take──▶ TAKEN ──seal──▶ SEALED ──its last live byte goes──▶ EMPTY ──settle──▶ FREE
//                       └──▶ ABSENT: its file was removed
//
// An EMPTY extent is not written yet: after a crash the index may be the one that still needs it. It becomes FREE once
// the index that does not is durable (settle); in a cache at once. A sealed extent without a live byte is EMPTY.
//
// So an extent must not be sealed before what was written into it was counted (extents_apply), or it is taken for empty.
//
// Threads: all calls, any thread; extents_set_live() and _start() before all others but _apply(). The lock inside
// (RANK_EXTENTS) is not held for I/O.
#ifndef CLIENT_EXTENTS_H
#define CLIENT_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "common/base/compiler.h"
#include "common/base/error.h"
#include "common/base/limits.h"

#define EXTENT_SIZE ((uint32_t)(1 * MIB))
#define EXTENTS_PER_FILE 64u
#define EXTENT_NONE UINT32_MAX

// Where bytes lie: extent × EXTENT_SIZE + offset. They never cross the end of an extent.
static inline uint64_t place_make(uint32_t extent, uint32_t offset)
{
    return (uint64_t)extent * EXTENT_SIZE + offset;
}
static inline uint32_t place_extent(uint64_t place)
{
    return (uint32_t)(place / EXTENT_SIZE);
}
static inline uint32_t place_offset(uint64_t place)
{
    return (uint32_t)(place % EXTENT_SIZE);
}

enum extent_state {
    EXTENT_ABSENT,
    EXTENT_FREE,
    EXTENT_TAKEN,
    EXTENT_SEALED,
    EXTENT_EMPTY,
};

struct extents;

struct extents_settings {
    const char *directory;   // made if missing
    bool durable;            // zero-filled and synced ahead; EMPTY waits for settle
    unsigned open_files_max; // at least 1; whoever needs one more waits
    // A seam for tests: the calls that write; NULL: the system's.
    ssize_t (*pwritev)(int fd, const struct iovec *from, int count, off_t offset);
    int (*fdatasync)(int fd);
};

// Finds the files that are there. Every extent in them is SEALED without live bytes until extents_set_live() and
// extents_start() say otherwise. A file name or size that is none of ours is CORRUPT, but for a last file that a crash
// kept from growing whole: its whole extents count.
enum graft_status extents_open(const struct extents_settings *settings, struct extents **ret_extents,
                               struct graft_error *err);
void extents_close(struct extents *extents); // NULL is fine; syncs nothing
DEFINE_CLEANUP(struct extents, extents_close)

// While opening: what the index says of an extent (CORRUPT for one that is not there, or more than EXTENT_SIZE; but in a cache,
// whose files a crash may cut, one that is missing is made: its bytes fail their checksums). What is
// replayed is applied with extents_apply(); then, when all that is durable and nothing is left to replay, extents without
// live bytes become FREE: nothing else makes them so before.
enum graft_status extents_set_live(struct extents *extents, uint32_t extent, uint64_t live,
                                   struct graft_error *err);
void extents_start(struct extents *extents);

struct extents_usage {
    uint32_t extents; // not ABSENT: what the directory occupies, in extents
    uint32_t free;    // FREE or EMPTY
    uint32_t empty;   // EMPTY
    uint64_t live;    // bytes
};
// Costs nothing, however many there are.
void extents_usage(struct extents *extents, struct extents_usage *ret_usage);
// One above the highest extent that is not ABSENT.
uint32_t extents_end(struct extents *extents);
enum extent_state extents_state(struct extents *extents, uint32_t extent, uint64_t *ret_live);

// ---- bytes

// CORRUPT / BAD_MESSAGE where there is no such place (it may have been removed since the index was asked); short files too.
// Other errors as the disk gives them. Of no bytes any place will do: a page without bytes does not keep its extent.
enum graft_status extents_read(struct extents *extents, uint64_t place, void *to, size_t size,
                               struct graft_error *err);
enum graft_status extents_readv(struct extents *extents, uint64_t place, const struct iovec *to,
                                unsigned count, struct graft_error *err);
// The whole of it, or an error; then what lies there is anything.
enum graft_status extents_write(struct extents *extents, uint64_t place, const struct iovec *from,
                                unsigned count, struct graft_error *err);
// Every write that returned before is on the disk. Only files written to since are synced. After an error nobody knows
// what the disk has: the owner must not go on, and every later call gives it again.
enum graft_status extents_sync(struct extents *extents, struct graft_error *err);

// What an earlier process wrote into the extent, and may not have synced, goes with the next sync. CORRUPT where there is no
// such extent.
enum graft_status extents_unsynced(struct extents *extents, uint32_t extent, struct graft_error *err);

// "DIRECTORY/00000002 at 123456": for messages.
#define EXTENTS_PLACE_TEXT_SIZE 128
void extents_place_text(const struct extents *extents, uint64_t place, char to[EXTENTS_PLACE_TEXT_SIZE]);

// ---- space

// A FREE extent, TAKEN now, or EXTENT_NONE. The one after `near`, if no file before it has a FREE one; else the lowest.
uint32_t extents_take(struct extents *extents, uint32_t near);
// Makes `count` more extents FREE: zero-filled and synced if durable. NO_SPACE where the disk or EXTENTS_MAX ends; of what it
// was to make, whole files may be there then.
enum graft_status extents_grow(struct extents *extents, uint32_t count, struct graft_error *err);
// A TAKEN extent is full, or given up, and all that it holds was counted.
void extents_seal(struct extents *extents, uint32_t extent);
// A TAKEN extent that was never written to is FREE again.
void extents_give_back(struct extents *extents, uint32_t extent);

// Bytes that become live (+) or dead (-), collected beside an index batch: extent_changes_add() for each page, the owner
// puts a merge for each change into the same batch, and after the write succeeded applies them here.
struct extent_change {
    uint32_t extent;
    int64_t bytes;
};
struct extent_changes {
    struct extent_change *items; // by extent, each once
    size_t count, capacity;
};
void extent_changes_add(struct extent_changes *changes, uint64_t place, int64_t bytes);
void extent_changes_release(struct extent_changes *changes);
void extents_apply(struct extents *extents, const struct extent_changes *changes);

// settle: begin, make the index durable, end. What was EMPTY when it began is FREE when it ends.
uint64_t extents_settle_begin(struct extents *extents);
void extents_settle_end(struct extents *extents, uint64_t began);

// Removes files at the end all of whose extents are FREE, from the last one down, while more than `keep` extents are free. What is lost of
// that in a crash is removed again.
enum graft_status extents_shrink(struct extents *extents, uint32_t keep, struct graft_error *err);
// Removes FREE extents at the end one by one, from the last down to `from`: the last file is cut.
enum graft_status extents_cut(struct extents *extents, uint32_t from, struct graft_error *err);

#endif
