// SPDX-License-Identifier: Apache-2.0
//
// A disk that can lose power, under one process: calls.c stands in front of the C library's calls (LD_PRELOAD) and tells
// the two lists here what is done to the files under one folder; loss.c ends the process at the chosen moment and makes of
// the folder what a disk could hold then.
//
// The model. Calls take effect on the real files at once, as in the page cache, and are noted together with what they
// overwrote, so that they can be taken back.
//   1. A file's changes are durable after fsync() or fdatasync() of it, and so is its size. sync_file_range() makes nothing
//      durable.
//   2. A name (created, linked, renamed, removed, a folder) is durable after fsync() of each folder that it is in; syncing
//      the file itself does not do. syncfs() and sync() make all durable.
//   3. Of the changes of a file that are not durable, any subset of 512-byte sectors is there after the loss, each as it
//      was after one of its changes. The file's size is one that it had since it was durable, or ends in a sector of the
//      write that came next; what was never written reads as zeros: a file system does not show what others had deleted.
//   4. Of the names of a folder that are not durable, those up to one of them are there, as journals do it; each folder has
//      its own order, or all have one. A rename is whole or not at all.
//   5. After a sync that failed, what it was to write is never made durable by a later one, and may be there or not.
//      Syncs of folders do not fail: a file system whose journal cannot be written gives up altogether.
// This is weaker than what ext4 or XFS do: there, a sync takes with it all names that were made before it.
//
// Threads. Everything happens under one lock, layer_lock() in calls.c.
#ifndef TESTS_POWERLOSS_LAYER_H
#define TESTS_POWERLOSS_LAYER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define SECTOR 512u
#define LAYER_PATH_MAX 4096u

// Says on stderr what the layer cannot model, and aborts: it never pretends.
__attribute__((noreturn, format(printf, 1, 2))) void layer_die(const char *format, ...);

// ---- chance (loss.c): seeded by POWERLOSS_SEED, drawn from at the loss only

uint64_t chance(uint64_t below);

// ---- what was lost, for the report

struct losses {
    uint64_t changes;      // of files, not durable
    uint64_t sectors_kept; // of those changes
    uint64_t sectors_lost;
    uint64_t torn;       // changes of which some sectors were kept and some lost
    uint64_t sizes_lost; // files that did not get the size that they had
    uint64_t names;      // changes of names, not durable
    uint64_t names_lost;
    uint64_t renames_lost;
};

// ---- contents (contents.c)

struct inode;

// The file behind `fd` if its changes are followed; NULL otherwise: it is elsewhere, no regular file, or only ever written
// by calls that are not seen (stdio).
struct inode *inode_of(int fd);
// A regular file under the root was opened. `created`: it is new, whatever was known of its number before is of a file that
// is gone.
void inode_opened(int fd, bool created);
// Writes at `offset` of the file behind fd and notes it. The result and errno are pwrite()'s.
ssize_t inode_write(struct inode *inode, int fd, const void *data, size_t size, off_t offset);
int inode_resize(struct inode *inode, int fd, off_t size);
off_t inode_size(const struct inode *inode);
void inode_synced(struct inode *inode);
void inode_sync_failed(struct inode *inode);
void inodes_synced(void);
bool inode_owns(int fd); // is it one that the layer opened for itself?
// Makes every followed file what the disk could hold.
void inodes_lose(struct losses *losses);

// ---- names (names.c)

// `grave` is a folder of the same file system that is not under the root: it keeps what may have to come back.
void names_begin(const char *grave);
// Before the call that it describes, with absolute paths; true if there is something to note. The token goes to
// name_changed() or name_unchanged(), by what became of the call.
enum name_kind { NAME_MAKE, NAME_REMOVE, NAME_MOVE, NAME_MAKE_FOLDER, NAME_REMOVE_FOLDER };
struct name_change;
struct name_change *name_changing(enum name_kind kind, const char *path, const char *to);
void name_changed(struct name_change *change);
void name_unchanged(struct name_change *change);
void names_synced(const struct stat *folder); // NULL: all
void names_lose(struct losses *losses);

// ---- the loss (loss.c)

struct layer_settings {
    const char *root;
    size_t root_size;
    uint64_t at;        // lose power at the n-th call that changes or syncs something; 0: never
    uint64_t fail_sync; // the n-th sync fails; 0: none
    bool at_exit;       // lose power when the program ends, too
    bool lie;           // syncs say that they were made, and were not: a planted fault
};
extern struct layer_settings layer;

void loss_begin(void); // reads the environment
// Counts a call; true if the power fails at it.
bool loss_is_due(void);
// Does not return.
__attribute__((noreturn)) void lose(const char *call);

#endif
