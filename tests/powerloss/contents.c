// SPDX-License-Identifier: Apache-2.0
//
// What was written to files since they were synced, with what it overwrote.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uthash.h>

#include "tests/powerloss/layer.h"

struct change {
    off_t offset;
    uint8_t *data; // NULL: only the size changed
    size_t size;
    uint8_t *old; // what was there, or what a smaller size cut off
    size_t old_size;
    off_t size_before, size_after; // of the file
    bool failed;                   // was to be synced, and that failed
    bool synced;                   // is durable, but stands behind one that is not
};

struct file_id {
    dev_t device;
    ino_t number;
};

struct inode {
    struct file_id id;
    int fd; // the layer's own, while there are changes; else -1
    off_t size;
    bool written; // by calls that are seen
    struct change *changes;
    size_t count, room;
    UT_hash_handle hh;
};

static struct inode *inodes;

static struct file_id id_of(const struct stat *stat)
{
    struct file_id id;
    memset(&id, 0, sizeof id);
    id.device = stat->st_dev;
    id.number = stat->st_ino;
    return id;
}

static struct inode *find(const struct stat *stat)
{
    struct file_id id = id_of(stat);
    struct inode *inode;
    HASH_FIND(hh, inodes, &id, sizeof id, inode);
    return inode;
}

static void forget_changes(struct inode *inode)
{
    for (size_t i = 0; i < inode->count; i++) {
        free(inode->changes[i].data);
        free(inode->changes[i].old);
    }
    inode->count = 0;
    if (inode->fd >= 0)
        syscall(SYS_close, inode->fd);
    inode->fd = -1;
}

// A number may belong to another file by now, elsewhere. Under the root nobody makes files unseen.
static bool is_under_root(int fd)
{
    char link[64], path[LAYER_PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path);
    return size > (ssize_t)layer.root_size && memcmp(path, layer.root, layer.root_size) == 0 &&
           path[layer.root_size] == '/';
}

struct inode *inode_of(int fd)
{
    struct stat info;
    if (!inodes || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return NULL;
    struct inode *inode = find(&info);
    if (!inode || !is_under_root(fd))
        return NULL;
    // Somebody writes to it past the layer. The program's own log file (stdio) may; nothing that is synced.
    if (inode->written && inode->size != info.st_size)
        layer_die("a followed file has %lld bytes and should have %lld", (long long)info.st_size,
                  (long long)inode->size);
    inode->size = info.st_size;
    return inode;
}

void inode_opened(int fd, bool created)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return;
    struct inode *inode = find(&info);
    if (inode && created) {
        forget_changes(inode);
        inode->written = false;
    }
    if (!inode) {
        inode = calloc(1, sizeof *inode);
        if (!inode)
            layer_die("no memory");
        inode->id = id_of(&info);
        inode->fd = -1;
        HASH_ADD(hh, inodes, id, sizeof inode->id, inode);
    }
    inode->size = info.st_size;
}

off_t inode_size(const struct inode *inode)
{
    return inode->size;
}

static struct change *next_change(struct inode *inode, int fd)
{
    if (inode->fd < 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        inode->fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        if (inode->fd < 0)
            layer_die("opening a followed file once more: %s", strerror(errno));
    }
    if (inode->count == inode->room) {
        inode->room = inode->room ? 2 * inode->room : 16;
        inode->changes = realloc(inode->changes, inode->room * sizeof *inode->changes);
        if (!inode->changes)
            layer_die("no memory");
    }
    struct change *change = &inode->changes[inode->count];
    memset(change, 0, sizeof *change);
    change->size_before = change->size_after = inode->size;
    return change;
}

static void keep_old(struct inode *inode, struct change *change, off_t from, off_t to)
{
    if (to <= from)
        return;
    change->old_size = (size_t)(to - from);
    change->old = malloc(change->old_size);
    if (!change->old || pread(inode->fd, change->old, change->old_size, from) != (ssize_t)change->old_size)
        layer_die("reading what is overwritten");
}

ssize_t inode_write(struct inode *inode, int fd, const void *data, size_t size, off_t offset)
{
    struct change *change = next_change(inode, fd);
    off_t end = offset + (off_t)size;
    change->offset = offset;
    keep_old(inode, change, offset, end < inode->size ? end : inode->size);
    change->data = malloc(size ? size : 1);
    if (!change->data)
        layer_die("no memory");
    memcpy(change->data, data, size);
    ssize_t written = syscall(SYS_pwrite64, inode->fd, data, size, offset);
    if (written <= 0) {
        int reason = errno;
        free(change->data);
        free(change->old);
        errno = reason;
        return written;
    }
    change->size = (size_t)written;
    end = offset + written;
    if (end > inode->size)
        inode->size = end;
    change->size_after = inode->size;
    inode->written = true;
    inode->count++;
    return written;
}

int inode_resize(struct inode *inode, int fd, off_t size)
{
    if (size == inode->size)
        return 0;
    struct change *change = next_change(inode, fd);
    keep_old(inode, change, size, inode->size);
    if (syscall(SYS_ftruncate, inode->fd, size) != 0) {
        int reason = errno;
        free(change->old);
        errno = reason;
        return -1;
    }
    change->offset = size;
    change->size_after = inode->size = size;
    inode->written = true;
    inode->count++;
    return 0;
}

// ---- syncing

void inode_synced(struct inode *inode)
{
    for (size_t i = 0; i < inode->count; i++) {
        if (inode->changes[i].failed) {
            for (; i < inode->count; i++)
                inode->changes[i].synced = !inode->changes[i].failed;
            return;
        }
    }
    forget_changes(inode);
}

void inode_sync_failed(struct inode *inode)
{
    for (size_t i = 0; i < inode->count; i++)
        inode->changes[i].failed |= !inode->changes[i].synced;
}

void inodes_synced(void)
{
    struct inode *inode, *next;
    HASH_ITER (hh, inodes, inode, next)
        inode_synced(inode);
}

// ---- the loss

bool inode_owns(int fd)
{
    for (struct inode *inode = inodes; inode; inode = inode->hh.next) {
        if (inode->fd == fd)
            return true;
    }
    return false;
}

static void put(const struct inode *inode, const uint8_t *data, size_t size, off_t offset)
{
    if (size > 0 && syscall(SYS_pwrite64, inode->fd, data, size, offset) != (long)size)
        layer_die("restoring a file: %s", strerror(errno));
}

static void set_size(const struct inode *inode, off_t size)
{
    if (syscall(SYS_ftruncate, inode->fd, size) != 0)
        layer_die("restoring the size of a file: %s", strerror(errno));
}

static void take_back(struct inode *inode)
{
    for (size_t i = inode->count; i-- > 0;) {
        const struct change *change = &inode->changes[i];
        set_size(inode, change->size_before);
        put(inode, change->old, change->old_size, change->offset);
    }
}

// How a file's changes reach the disk.
enum manner { MANNER_NONE, MANNER_ALL, MANNER_PREFIX, MANNER_SUBSET, MANNER_SECTORS, MANNER_COUNT };

// A sector goes to the disk as it was in memory: with what earlier changes did to it.
static void put_earlier(const struct inode *inode, size_t change_count, off_t sector)
{
    static const uint8_t zeros[SECTOR];
    off_t sector_end = sector + SECTOR;
    for (size_t i = 0; i < change_count; i++) {
        const struct change *change = &inode->changes[i];
        off_t from = change->offset > sector ? change->offset : sector;
        off_t end = change->data ? change->offset + (off_t)change->size : change->size_before;
        off_t to = end < sector_end ? end : sector_end;
        if (from < to)
            put(inode, change->data ? change->data + (from - change->offset) : zeros, (size_t)(to - from),
                from);
    }
}

// Writes those sectors of a change, below `limit`, that `keeps` (in 256) of 256 keep.
static void put_sectors(const struct inode *inode, size_t number, off_t limit, unsigned keeps,
                        struct losses *losses)
{
    const struct change *change = &inode->changes[number];
    uint64_t kept = 0, lost = 0;
    off_t end = change->offset + (off_t)change->size;
    for (off_t from = change->offset; from < end;) {
        off_t to = (from / SECTOR + 1) * SECTOR;
        if (to > end)
            to = end;
        bool keep = to <= limit && (keeps == 256 || chance(256) < keeps);
        if (keep && to - from < (off_t)SECTOR)
            put_earlier(inode, number, from / SECTOR * SECTOR);
        if (keep)
            put(inode, change->data + (from - change->offset), (size_t)(to - from), from);
        kept += keep;
        lost += !keep;
        from = to;
    }
    losses->sectors_kept += kept;
    losses->sectors_lost += lost;
    losses->torn += kept > 0 && lost > 0;
}

static unsigned keeps_of(enum manner manner, size_t i, size_t prefix)
{
    switch (manner) {
    case MANNER_NONE:
        return 0;
    case MANNER_ALL:
        return 256;
    case MANNER_PREFIX:
        return i < prefix ? 256 : i == prefix ? 128 : 0;
    case MANNER_SUBSET:
        return chance(2) ? 256 : 0;
    case MANNER_SECTORS:
    case MANNER_COUNT:
        break;
    }
    return (unsigned)chance(257);
}

// The size that the disk has for the file: what it was after the first `sized` changes, or up to a sector of the next.
static off_t lost_size(const struct inode *inode, size_t sized)
{
    off_t size = sized > 0 ? inode->changes[sized - 1].size_after : inode->changes[0].size_before;
    if (sized == inode->count || chance(2) == 0)
        return size;
    const struct change *next = &inode->changes[sized];
    if (!next->data || next->size_after <= size)
        return size;
    off_t sectors = (next->size_after - 1) / SECTOR - size / SECTOR;
    return sectors > 0 ? (size / SECTOR + 1 + (off_t)chance((uint64_t)sectors)) * SECTOR : size;
}

static void lose_inode(struct inode *inode, struct losses *losses)
{
    take_back(inode);
    size_t least = 0; // what a later sync made durable stays, with the size
    for (size_t i = 0; i < inode->count; i++)
        least = inode->changes[i].synced ? i + 1 : least;
    enum manner manner = (enum manner)chance(MANNER_COUNT);
    size_t prefix = least + chance(inode->count - least + 1);
    size_t sized = manner == MANNER_ALL      ? inode->count
                   : manner == MANNER_PREFIX ? prefix
                                             : least + chance(inode->count - least + 1);
    off_t size = lost_size(inode, sized);
    // A smaller size that did not reach the disk: what was written above it later has no place there.
    off_t limit = INT64_MAX;
    for (size_t i = 0; i < inode->count; i++) {
        const struct change *change = &inode->changes[i];
        if (!change->data && i < sized)
            set_size(inode, change->size_after);
        else if (!change->data && change->size_after < change->size_before && change->size_after < limit)
            limit = change->size_after;
        else if (change->data)
            put_sectors(inode, i, limit, change->synced ? 256 : keeps_of(manner, i, prefix), losses);
        losses->changes += !change->synced;
    }
    set_size(inode, size);
    losses->sizes_lost += size != inode->size;
}

void inodes_lose(struct losses *losses)
{
    struct inode *inode, *next;
    HASH_ITER (hh, inodes, inode, next) {
        if (inode->count > 0)
            lose_inode(inode, losses);
    }
}
