// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/lossy_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"

#define SECTOR 512u

// A write that is not durable: what was there before.
struct note {
    TAILQ_ENTRY(note) entry;
    ino_t inode;
    char path[256];
    off_t offset, size_before; // of the file
    size_t size;
    uint8_t before[];
};
TAILQ_HEAD(notes, note);
static struct notes notes = TAILQ_HEAD_INITIALIZER(notes);
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;

struct lossy_disk lossy_disk;

static void forget(ino_t inode, bool all)
{
    struct note *note = TAILQ_FIRST(&notes);
    while (note) {
        struct note *next = TAILQ_NEXT(note, entry);
        if (all || note->inode == inode) {
            TAILQ_REMOVE(&notes, note, entry);
            free(note);
        }
        note = next;
    }
}

void lossy_disk_reset(void)
{
    forget(0, true);
    lossy_disk = (struct lossy_disk){.step_max = SIZE_MAX, .room = SIZE_MAX, .write_error = ENOSPC};
}

static void take_note(int fd, off_t offset, size_t size)
{
    struct note *note = calloc(1, sizeof *note + size);
    struct stat file;
    char link[32];
    CHECK(note && fstat(fd, &file) == 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    CHECK(readlink(link, note->path, sizeof note->path - 1) > 0);
    note->inode = file.st_ino;
    note->size_before = file.st_size;
    note->offset = offset;
    note->size = size;
    ssize_t got = pread(fd, note->before, size, offset); // what is beyond the end reads as zeros
    CHECK(got >= 0);
    pthread_mutex_lock(&notes_lock);
    TAILQ_INSERT_TAIL(&notes, note, entry);
    pthread_mutex_unlock(&notes_lock);
}

// Whether this call fails, and how much it may write.
static bool admit(size_t *size)
{
    *size = *size < lossy_disk.step_max ? *size : lossy_disk.step_max;
    if (lossy_disk.room == SIZE_MAX)
        return true;
    *size = *size < lossy_disk.room ? *size : lossy_disk.room;
    lossy_disk.room -= *size;
    if (*size > 0)
        return true;
    if (lossy_disk.fails_max > 0 && --lossy_disk.fails_max == 0)
        lossy_disk.room = SIZE_MAX;
    errno = lossy_disk.write_error;
    return false;
}

ssize_t lossy_disk_pwritev(int fd, const struct iovec *from, int count, off_t offset)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += from[i].iov_len;
    uint8_t *block = malloc(size);
    CHECK(block);
    size_t at = 0;
    for (int i = 0; i < count; at += from[i].iov_len, i++)
        memcpy(block + at, from[i].iov_base, from[i].iov_len);
    __atomic_fetch_add(&lossy_disk.writes, 1, __ATOMIC_RELAXED);
    ssize_t written = -1;
    if (admit(&size)) {
        if (lossy_disk.remembers)
            take_note(fd, offset, size);
        written = pwrite(fd, block, size, offset);
    }
    int reason = errno;
    free(block);
    errno = reason;
    return written;
}

int lossy_disk_fdatasync(int fd)
{
    struct stat file;
    __atomic_fetch_add(&lossy_disk.syncs, 1, __ATOMIC_RELAXED);
    if (lossy_disk.sync_fails > 0) {
        lossy_disk.sync_fails--;
        errno = EIO;
        return -1;
    }
    if (lossy_disk.sync_us > 0)
        usleep(lossy_disk.sync_us);
    CHECK(fstat(fd, &file) == 0);
    pthread_mutex_lock(&notes_lock);
    forget(file.st_ino, false);
    pthread_mutex_unlock(&notes_lock);
    return 0;
}

// Sectors that were decided on, of one file.
struct decided {
    uint8_t sectors[(64u << 20) / SECTOR];
};

static void lose_file(ino_t inode, const char *path, struct rng *rng)
{
    static struct decided decided;
    memset(&decided, 0, sizeof decided);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat file;
    if (fd < 0 || fstat(fd, &file) != 0 || file.st_ino != inode) {
        if (fd >= 0)
            close(fd);
        return; // it was removed
    }
    off_t size = file.st_size;
    struct note *note;
    TAILQ_FOREACH_REVERSE(note, &notes, notes, entry)
    {
        if (note->inode != inode)
            continue;
        for (size_t at = 0; at < note->size; at += SECTOR - (size_t)(note->offset + (off_t)at) % SECTOR) {
            size_t sector = (size_t)(note->offset + (off_t)at) / SECTOR;
            size_t step = SECTOR - (size_t)(note->offset + (off_t)at) % SECTOR;
            if (decided.sectors[sector])
                continue;
            if (rng_below(rng, 2) == 0) {
                decided.sectors[sector] = 1;
                continue;
            }
            step = step < note->size - at ? step : note->size - at;
            CHECK(pwrite(fd, note->before + at, step, note->offset + (off_t)at) == (ssize_t)step);
        }
        if (note->size_before < size && rng_below(rng, 2) == 0)
            size = note->size_before;
    }
    CHECK(ftruncate(fd, size) == 0);
    close(fd);
}

void lossy_disk_lose(struct rng *rng)
{
    while (!TAILQ_EMPTY(&notes)) {
        const struct note *note = TAILQ_FIRST(&notes);
        ino_t inode = note->inode;
        char path[sizeof note->path];
        memcpy(path, note->path, sizeof path);
        lose_file(inode, path, rng);
        forget(inode, false);
    }
}
