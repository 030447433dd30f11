// SPDX-License-Identifier: Apache-2.0
//
// One connection's handle of a volume: sqlite3_io_methods over snapshots and writers. sqlite/README.md says where a
// transaction ends and why; the rules stand beside the functions.
//
//           SHARED: pin the head      RESERVED: the writer's slot      EXCLUSIVE: freeze the head
//     NONE ──────────────────▶ SHARED ─────────────────▶ RESERVED ─────────────────▶ EXCLUSIVE
//       ▲                         ▲                                                       │ writes go to the overlay
//       │ drop pin                │ drop overlay, thaw, give the slot                     │ COMMIT_PHASETWO: one commit,
//       └──────── from anywhere ──┴────────────────────────────────────────────────────── ┘ the pin moves to it
//
// Threads: a handle belongs to its connection, which SQLite serialises.
#ifndef SQLITE_FILE_H
#define SQLITE_FILE_H

#include "sqlite/overlay.h"
#include "sqlite/runtime.h"
#include "sqlite/sqlite.h"

struct volume_file {
    sqlite3_file base;
    struct shared *shared;
    char *path; // as SQLite knows it
    int lock;   // SQLITE_LOCK_…
    bool read_only;
    bool pinned_for_good; // opened by LSN, or without locks: the pin lasts as long as the handle
    bool by_lsn;
    bool frozen, has_slot;
    bool
        broken; // committed, but what was committed could not be pinned: nothing is read until the lock is dropped

    // What SQLite sees.
    struct graft_snapshot *pin; // NULL without a lock, and while the volume is only named
    uint32_t page_count;        // of the pin
    uint64_t seen_lsn;          // the last pin's, and its line of commits
    uint64_t seen_history;
    bool seen; // there was one
    uint32_t counter;

    // The cookie that SQLite reads is the volume's plus the offset. It is chosen anew when page 1 is read for the first time
    // on another line of commits: one more than any cookie that SQLite has of the old one.
    uint32_t cookie_offset;
    uint32_t cookie_last; // delivered or written
    bool cookie_seen;
    bool cookie_to_move;

    uint8_t *first; // page 1 as delivered, for `pin`; valid if first_valid
    bool first_valid;
    uint8_t *scratch; // a page
    uint32_t buffers_size;

    struct overlay *overlay; // NULL: nothing was written since the last commit
    uint32_t written_counter;
    uint32_t written_page_count;
    bool wrote_first;
    bool first_was_forced; // SQLite's page 1 had another journal mode than is stored

    // stage.c
    struct graft_writer *staged; // prepared under a super-journal
    char *super_journal;         // its name
    LIST_ENTRY(volume_file) staged_link;

    char last_error[512]; // why the last call failed
};

// Makes `file` a handle. `shared` and `path` are the handle's from now on, whatever the answer; with lsn > 0 it shows that
// commit of the servers. `pinned`: there will be no locks.
int file_open(struct volume_file *file, struct shared *shared, char *path, bool read_only, bool pinned,
              uint64_t lsn);
// The handle behind what SQLite gives out as a file pointer, NULL if it is another VFS's.
struct volume_file *file_of(sqlite3_file *file);

#endif
