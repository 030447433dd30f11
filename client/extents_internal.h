// SPDX-License-Identifier: Apache-2.0
//
// What the two halves of the extents share: extents.c has their states and live bytes, extents_files.c the files, their
// descriptors and what is read from and written to them.
//
// Invariants
// 1. A file that was written to and not synced since is open: its descriptor sees the sync's failure.
// 2. At most open_files_max files are open, and one that grows.
// 3. One thread at a time syncs, and one at a time changes which files there are (the turns below): both without the lock.
// 4. An extent that is not ABSENT lies whole in its file.
#ifndef CLIENT_EXTENTS_INTERNAL_H
#define CLIENT_EXTENTS_INTERNAL_H

#include <sys/queue.h>

#include "client/extents.h"
#include "common/base/check.h"
#include "common/base/mutex.h"

struct extent_slot {
    uint64_t emptied; // EMPTY: the settling that was next then
    int32_t live;     // TAKEN: may be less than nothing for the moment between two changes
    uint8_t state;    // enum extent_state
};

struct extents_file {
    uint32_t number;
    int fd; // -1: closed
    bool opening;
    bool dirty;                      // written to since it was last synced
    unsigned users;                  // an open file without any is in `idle`
    TAILQ_ENTRY(extents_file) idle;  // least recently used first
    TAILQ_ENTRY(extents_file) dirts; // in the order of their first write
};
TAILQ_HEAD(extents_files, extents_file);

struct extents {
    char *directory;
    bool durable;
    unsigned open_files_max;
    ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
    int (*fdatasync)(int);

    struct mutex lock; // everything below
    struct cond changed;
    bool started;
    struct extent_slot *slots;
    uint32_t end;      // slots from here on are ABSENT
    uint32_t capacity; // of slots
    uint32_t present, free, empty;
    int64_t live;       // of all slots
    uint32_t free_from; // no FREE extent is below
    uint64_t settling;  // counts those that began

    struct extents_file **files; // by number
    uint32_t file_count;
    unsigned open_count; // files open, or being opened
    struct extents_files idle;
    struct extents_files dirty;
    unsigned dirty_count;
    unsigned waiting; // for a file to become idle
    bool syncing;     // the turn to sync
    bool resizing;    // the turn to grow or shrink
    bool sync_failed;
    struct graft_error sync_failure;
};

// ---- extents.c

// Room for `end` slots. NO_MEMORY.
enum graft_status extents_reserve_locked(struct extents *extents, uint32_t end, struct graft_error *err);
void extents_appeared_locked(struct extents *extents, uint32_t first, uint32_t end, enum extent_state state);
void extents_vanished_locked(struct extents *extents, uint32_t first, uint32_t end);

// ---- extents_files.c

// Finds the files of the directory and makes their extents SEALED.
enum graft_status extents_find_files(struct extents *extents, struct graft_error *err);
// While opening a cache: makes an extent that a crash took with its file's size or name, anything in it.
enum graft_status extents_restore_locked(struct extents *extents, uint32_t extent, struct graft_error *err);
void extents_close_files(struct extents *extents);

#endif
