// SPDX-License-Identifier: Apache-2.0
#include "client/extents_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/failpoint.h"
#include "common/base/files.h"

#define FILE_SIZE_FULL ((uint64_t)EXTENTS_PER_FILE * EXTENT_SIZE)
#define FILES_MAX (EXTENTS_MAX / EXTENTS_PER_FILE)
#define VECTORS_MAX 1024 // of one call of the system

struct path {
    char text[PATH_MAX];
};

static struct path path_of(const struct extents *extents, uint32_t number)
{
    struct path path;
    int size = snprintf(path.text, sizeof path.text, "%s/%08x", extents->directory, number);
    CHECK(size > 0 &&
          (size_t)size < sizeof path.text); // the directory could be made, so its name is shorter than that
    return path;
}

void extents_place_text(const struct extents *extents, uint64_t place, char to[EXTENTS_PLACE_TEXT_SIZE])
{
    uint32_t number = place_extent(place) / EXTENTS_PER_FILE;
    snprintf(to, EXTENTS_PLACE_TEXT_SIZE, "%.*s/%08x at %llu", EXTENTS_PLACE_TEXT_SIZE - 40,
             extents->directory, number, (unsigned long long)(place % FILE_SIZE_FULL));
}

// ---- which files there are

static enum graft_status reserve_files_locked(struct extents *extents, uint32_t count,
                                              struct graft_error *err)
{
    if (count <= extents->file_count)
        return GRAFT_OK;
    struct extents_file **files = realloc(extents->files, count * sizeof(struct extents_file *));
    if (files)
        extents->files = files;
    while (files && extents->file_count < count) {
        struct extents_file *file = calloc(1, sizeof *file);
        if (!file)
            break;
        file->number = extents->file_count;
        file->fd = -1;
        files[extents->file_count++] = file;
    }
    return extents->file_count >= count
               ? GRAFT_OK
               : error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for %u page files", count);
}

static bool parse_name(const char *name, uint32_t *ret_number)
{
    uint32_t number = 0;
    if (strlen(name) != 8)
        return false;
    for (const char *at = name; *at; at++) {
        const char *digit = strchr("0123456789abcdef", *at);
        if (!digit)
            return false;
        number = number << 4 | (uint32_t)(digit - "0123456789abcdef");
    }
    *ret_number = number;
    return number < FILES_MAX;
}

static enum graft_status find_file(struct extents *extents, uint32_t number, uint32_t *ret_extents,
                                   struct graft_error *err)
{
    struct path path = path_of(extents, number);
    struct stat file;
    if (lstat(path.text, &file) != 0)
        return error_from_errno(err, errno, "looking at %s", path.text);
    if (!S_ISREG(file.st_mode) || (uint64_t)file.st_size > FILE_SIZE_FULL)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "%s is no page file: it has %lld bytes", path.text, (long long)file.st_size);
    *ret_extents = (uint32_t)((uint64_t)file.st_size / EXTENT_SIZE);
    enum graft_status status = extents_reserve_locked(extents, (number + 1) * EXTENTS_PER_FILE, err);
    if (status == GRAFT_OK)
        status = reserve_files_locked(extents, number + 1, err);
    if (status == GRAFT_OK)
        extents_appeared_locked(extents, number * EXTENTS_PER_FILE, number * EXTENTS_PER_FILE + *ret_extents,
                                EXTENT_SEALED);
    return status;
}

static enum graft_status find_files_in(struct extents *extents, DIR *folder, struct graft_error *err)
{
    uint32_t last = 0, shortest = UINT32_MAX;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (!entry)
            break;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        uint32_t number, count;
        if (!parse_name(entry->d_name, &number))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "%s/%s is not a page file: move it away", extents->directory, entry->d_name);
        enum graft_status status = find_file(extents, number, &count, err);
        if (status != GRAFT_OK)
            return status;
        last = MAX(last, number);
        if (count < EXTENTS_PER_FILE)
            shortest = MIN(shortest, number);
    }
    if (errno != 0)
        return error_from_errno(err, errno, "reading the folder %s", extents->directory);
    if (shortest < last && extents->durable)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "%s/%08x is shorter than %llu bytes: it was cut, or not copied whole",
                         extents->directory, shortest, (unsigned long long)FILE_SIZE_FULL);
    return GRAFT_OK;
}

enum graft_status extents_find_files(struct extents *extents, struct graft_error *err)
{
    DIR *folder = opendir(extents->directory);
    if (!folder)
        return error_from_errno(err, errno, "opening the folder %s", extents->directory);
    mutex_lock(&extents->lock);
    enum graft_status status = find_files_in(extents, folder, err);
    mutex_unlock(&extents->lock);
    closedir(folder);
    return status;
}

// One file of a cache, so that its first `count` extents are there.
static enum graft_status restore_file_locked(struct extents *extents, uint32_t number, uint32_t count,
                                             struct graft_error *err)
{
    uint32_t first = number * EXTENTS_PER_FILE, present = 0;
    while (present < count && extents->slots[first + present].state != EXTENT_ABSENT)
        present++;
    if (present == count)
        return GRAFT_OK;
    struct path path = path_of(extents, number);
    int fd = open(path.text, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_from_errno(err, errno, "making %s", path.text);
    enum graft_status status = GRAFT_OK;
    if (ftruncate(fd, (off_t)count * EXTENT_SIZE) != 0)
        status = error_from_errno(err, errno, "making %s longer", path.text);
    close(fd);
    if (status == GRAFT_OK)
        extents_appeared_locked(extents, first + present, first + count, EXTENT_SEALED);
    return status;
}

enum graft_status extents_restore_locked(struct extents *extents, uint32_t extent, struct graft_error *err)
{
    mutex_assert_held(&extents->lock);
    uint32_t number = extent / EXTENTS_PER_FILE;
    enum graft_status status = extents_reserve_locked(extents, (number + 1) * EXTENTS_PER_FILE, err);
    if (status == GRAFT_OK)
        status = reserve_files_locked(extents, number + 1, err);
    for (uint32_t i = 0; i < number && status == GRAFT_OK; i++)
        status = restore_file_locked(extents, i, EXTENTS_PER_FILE, err);
    return status == GRAFT_OK ? restore_file_locked(extents, number, extent % EXTENTS_PER_FILE + 1, err)
                              : status;
}

void extents_close_files(struct extents *extents)
{
    for (uint32_t i = 0; i < extents->file_count; i++) {
        struct extents_file *file = extents->files[i];
        CHECK(file->users == 0 && !file->opening);
        if (file->fd >= 0)
            close(file->fd);
        free(file);
    }
    free(extents->files);
}

// ---- open files

static void wait_locked(struct extents *extents)
{
    extents->waiting++;
    cond_wait(&extents->changed, &extents->lock);
    extents->waiting--;
}

static void wake_locked(struct extents *extents)
{
    if (extents->waiting > 0)
        cond_broadcast(&extents->changed);
}

// Whose turn it is to sync (`syncing`), or to grow and shrink (`resizing`).
static void turn_take_locked(struct extents *extents, bool *taken)
{
    while (*taken)
        wait_locked(extents);
    *taken = true;
}

static void turn_give_locked(struct extents *extents, bool *taken)
{
    *taken = false;
    wake_locked(extents);
}

static void use_locked(struct extents *extents, struct extents_file *file)
{
    if (file->users++ == 0)
        TAILQ_REMOVE(&extents->idle, file, idle);
}

static void unuse_locked(struct extents *extents, struct extents_file *file)
{
    CHECK(file->users > 0);
    if (--file->users > 0)
        return;
    TAILQ_INSERT_TAIL(&extents->idle, file, idle);
    wake_locked(extents);
}

static void note_written_locked(struct extents *extents, struct extents_file *file)
{
    if (file->dirty || !extents->durable)
        return;
    file->dirty = true;
    extents->dirty_count++;
    TAILQ_INSERT_TAIL(&extents->dirty, file, dirts);
}

static void note_clean_locked(struct extents *extents, struct extents_file *file)
{
    file->dirty = false;
    extents->dirty_count--;
    TAILQ_REMOVE(&extents->dirty, file, dirts);
}

// The turn to sync is the caller's. The file is dirty, and clean afterwards or the extents have failed.
static enum graft_status sync_file_locked(struct extents *extents, struct extents_file *file,
                                          struct graft_error *err)
{
    if (extents->sync_failed)
        return error_copy(err, &extents->sync_failure);
    CHECK(file->dirty && file->fd >= 0);
    note_clean_locked(extents, file); // what is written from now on is another sync's
    use_locked(extents, file);
    mutex_unlock(&extents->lock);

    struct path path = path_of(extents, file->number);
    struct graft_error failure;
    enum graft_status status = FAILPOINT_ERROR("extents.sync.before", &failure);
    if (status == GRAFT_OK && extents->fdatasync(file->fd) != 0)
        status = error_from_errno(&failure, errno, "syncing %s", path.text);

    mutex_lock(&extents->lock);
    unuse_locked(extents, file);
    if (status != GRAFT_OK) {
        extents->sync_failed = true;
        extents->sync_failure = failure;
        error_copy(err, &failure);
    }
    return status;
}

// Closes a file that nobody uses, or waits until that may be possible. A dirty one is synced first: a descriptor opened
// later might not hear of a failure.
static enum graft_status make_room_locked(struct extents *extents, struct graft_error *err)
{
    struct extents_file *file;
    TAILQ_FOREACH (file, &extents->idle, idle) {
        if (file->dirty)
            continue;
        TAILQ_REMOVE(&extents->idle, file, idle);
        close(file->fd); // nothing unwritten is behind it: no I/O
        file->fd = -1;
        extents->open_count--;
        return GRAFT_OK;
    }
    file = TAILQ_FIRST(&extents->idle);
    if (!file) {
        wait_locked(extents);
        return GRAFT_OK;
    }
    enum graft_status status = GRAFT_OK;
    turn_take_locked(extents, &extents->syncing);
    if (file->dirty) // it may have been synced meanwhile
        status = sync_file_locked(extents, file, err);
    turn_give_locked(extents, &extents->syncing);
    return status;
}

static enum graft_status open_locked(struct extents *extents, struct extents_file *file, int flags,
                                     struct graft_error *err)
{
    extents->open_count++;
    file->opening = true;
    mutex_unlock(&extents->lock);
    struct path path = path_of(extents, file->number);
    int fd = open(path.text, O_RDWR | O_CLOEXEC | flags, 0600);
    int reason = errno;
    mutex_lock(&extents->lock);
    file->opening = false;
    wake_locked(extents);
    if (fd < 0) {
        extents->open_count--;
        if (reason == ENOENT)
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "the page file %s is missing",
                             path.text);
        return error_from_errno(err, reason, "opening %s", path.text);
    }
    file->fd = fd;
    TAILQ_INSERT_TAIL(&extents->idle, file, idle);
    return GRAFT_OK;
}

// Makes the caller a user of the open file. Another thread may close it again before it is used.
static enum graft_status acquire_locked(struct extents *extents, struct extents_file *file, int flags,
                                        struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    while (status == GRAFT_OK && file->fd < 0) {
        if (file->opening)
            wait_locked(extents);
        else if (extents->open_count >= extents->open_files_max)
            status = make_room_locked(extents, err);
        else
            status = open_locked(extents, file, flags, err);
    }
    if (status == GRAFT_OK)
        use_locked(extents, file);
    return status;
}

static enum graft_status no_such_place(const struct extents *extents, uint64_t place, struct graft_error *err)
{
    char text[EXTENTS_PLACE_TEXT_SIZE];
    extents_place_text(extents, place, text);
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "there are no page bytes in %s", text);
}

static enum graft_status acquire(struct extents *extents, uint64_t place, struct extents_file **ret_file,
                                 struct graft_error *err)
{
    LOCK_GUARD(&extents->lock);
    if (place / EXTENT_SIZE >= extents->end || extents->slots[place_extent(place)].state == EXTENT_ABSENT)
        return no_such_place(extents, place, err);
    struct extents_file *file = extents->files[place_extent(place) / EXTENTS_PER_FILE];
    enum graft_status status = acquire_locked(extents, file, 0, err);
    if (status == GRAFT_OK)
        *ret_file = file;
    return status;
}

static void release(struct extents *extents, struct extents_file *file, bool written)
{
    LOCK_GUARD(&extents->lock);
    if (written)
        note_written_locked(extents, file);
    unuse_locked(extents, file);
}

// ---- bytes

static uint64_t size_of_vectors(const struct iovec *vectors, unsigned count)
{
    uint64_t size = 0;
    for (unsigned i = 0; i < count; i++)
        size += vectors[i].iov_len;
    return size;
}

// The next vectors of a transfer of which `done` bytes are done: at most VECTORS_MAX of them. *position and *skip are where it
// stands.
struct transfer {
    const struct iovec *vectors;
    unsigned count;
    unsigned position; // vector
    size_t skip;       // bytes of it that are done
};

static unsigned transfer_next(const struct transfer *transfer, struct iovec to[VECTORS_MAX])
{
    unsigned count = 0;
    for (unsigned i = transfer->position; i < transfer->count && count < VECTORS_MAX; i++) {
        size_t skip = i == transfer->position ? transfer->skip : 0;
        if (transfer->vectors[i].iov_len > skip)
            to[count++] = (struct iovec){(uint8_t *)transfer->vectors[i].iov_base + skip,
                                         transfer->vectors[i].iov_len - skip};
    }
    return count;
}

static void transfer_did(struct transfer *transfer, size_t size)
{
    while (size > 0) {
        size_t left = transfer->vectors[transfer->position].iov_len - transfer->skip;
        size_t step = MIN(left, size);
        transfer->skip += step;
        size -= step;
        if (step == left) {
            transfer->position++;
            transfer->skip = 0;
        }
    }
}

static off_t offset_of(uint64_t place)
{
    return (off_t)(place % FILE_SIZE_FULL);
}

enum graft_status extents_unsynced(struct extents *extents, uint32_t extent, struct graft_error *err)
{
    struct extents_file *file;
    enum graft_status status = acquire(extents, place_make(extent, 0), &file, err);
    if (status == GRAFT_OK)
        release(extents, file, true);
    return status;
}

enum graft_status extents_readv(struct extents *extents, uint64_t place, const struct iovec *to,
                                unsigned count, struct graft_error *err)
{
    uint64_t size = size_of_vectors(to, count), done = 0;
    if (size == 0)
        return GRAFT_OK;
    if (size > EXTENT_SIZE - place_offset(place))
        return no_such_place(extents, place, err);
    struct extents_file *file;
    enum graft_status status = acquire(extents, place, &file, err);
    if (status != GRAFT_OK)
        return status;
    struct transfer transfer = {.vectors = to, .count = count};
    struct iovec vectors[VECTORS_MAX];
    while (done < size && status == GRAFT_OK) {
        int next = (int)transfer_next(&transfer, vectors);
        ssize_t got = preadv(file->fd, vectors, next, offset_of(place + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            char text[EXTENTS_PLACE_TEXT_SIZE];
            int reason = errno;
            extents_place_text(extents, place + done, text);
            status = got < 0 ? error_from_errno(err, reason, "reading %llu bytes of %s",
                                                (unsigned long long)(size - done), text)
                             : error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                                         "the page file ends before %s", text);
            break;
        }
        transfer_did(&transfer, (size_t)got);
        done += (uint64_t)got;
    }
    release(extents, file, false);
    return status;
}

enum graft_status extents_read(struct extents *extents, uint64_t place, void *to, size_t size,
                               struct graft_error *err)
{
    if (size == 0)
        return GRAFT_OK;
    if (size > EXTENT_SIZE - place_offset(place))
        return no_such_place(extents, place, err);
    struct extents_file *file;
    enum graft_status status = acquire(extents, place, &file, err);
    if (status != GRAFT_OK)
        return status;
    char text[EXTENTS_PLACE_TEXT_SIZE];
    size_t got = 0;
    ssize_t first = pread(file->fd, to, size, offset_of(place));
    if (first == (ssize_t)size) { // nearly always: no message has to be prepared
        release(extents, file, false);
        return GRAFT_OK;
    }
    extents_place_text(extents, place, text);
    status = files_pread_all(file->fd, to, size, (uint64_t)offset_of(place), text, &got, err);
    release(extents, file, false);
    if (status == GRAFT_OK && got < size)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "the page file ends behind %s", text);
    return status;
}

// All of it, short writes continued.
static enum graft_status write_all(struct extents *extents, int fd, uint64_t place, const struct iovec *from,
                                   unsigned count, struct graft_error *err)
{
    uint64_t size = size_of_vectors(from, count), done = 0;
    struct transfer transfer = {.vectors = from, .count = count};
    struct iovec vectors[VECTORS_MAX];
    while (done < size) {
        int next = (int)transfer_next(&transfer, vectors);
        ssize_t written = extents->pwritev(fd, vectors, next, offset_of(place + done));
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            int reason = written < 0 ? errno : EIO;
            char text[EXTENTS_PLACE_TEXT_SIZE];
            extents_place_text(extents, place + done, text);
            return error_from_errno(err, reason, "writing %llu bytes of %s",
                                    (unsigned long long)(size - done), text);
        }
        transfer_did(&transfer, (size_t)written);
        done += (uint64_t)written;
    }
    return GRAFT_OK;
}

enum graft_status extents_write(struct extents *extents, uint64_t place, const struct iovec *from,
                                unsigned count, struct graft_error *err)
{
    uint64_t size = size_of_vectors(from, count);
    CHECK(size <= EXTENT_SIZE - place_offset(place)); // places to write to are our own
    struct extents_file *file;
    enum graft_status status = acquire(extents, place, &file, err);
    if (status != GRAFT_OK)
        return status;
    status = write_all(extents, file->fd, place, from, count, err);
    release(extents, file, true);
    return status;
}

enum graft_status extents_sync(struct extents *extents, struct graft_error *err)
{
    LOCK_GUARD(&extents->lock);
    turn_take_locked(extents, &extents->syncing);
    enum graft_status status = extents->sync_failed ? error_copy(err, &extents->sync_failure) : GRAFT_OK;
    // What becomes dirty meanwhile goes to the end of the list, and need not be ours.
    for (unsigned left = extents->dirty_count; left > 0 && status == GRAFT_OK; left--)
        if (!TAILQ_EMPTY(&extents->dirty))
            status = sync_file_locked(extents, TAILQ_FIRST(&extents->dirty), err);
    turn_give_locked(extents, &extents->syncing);
    return status;
}

// ---- growing and shrinking

// Zeros over extents [from, to) of an open file, synced; a cache is only made longer, for nobody waits for its syncs.
static enum graft_status fill_file(struct extents *extents, int fd, uint32_t from, uint32_t to,
                                   struct graft_error *err)
{
    static const uint8_t zeros[64 * KIB];
    struct iovec extent_of_zeros[EXTENT_SIZE / sizeof zeros];
    struct path path = path_of(extents, from / EXTENTS_PER_FILE);
    for (unsigned i = 0; i < ARRAY_COUNT(extent_of_zeros); i++)
        extent_of_zeros[i] = (struct iovec){(void *)zeros, sizeof zeros};
    enum graft_status status = FAILPOINT_ERROR("extents.grow.before", err);
    if (!extents->durable) {
        off_t size = (off_t)((to - 1) % EXTENTS_PER_FILE + 1) * EXTENT_SIZE;
        if (status == GRAFT_OK && ftruncate(fd, size) != 0)
            status = error_from_errno(err, errno, "making %s longer", path.text);
        return status;
    }
    for (uint32_t extent = from; extent < to && status == GRAFT_OK; extent++)
        status =
            write_all(extents, fd, place_make(extent, 0), extent_of_zeros, ARRAY_COUNT(extent_of_zeros), err);
    FAILPOINT("extents.grow.filled");
    if (status == GRAFT_OK && extents->fdatasync(fd) != 0)
        status = error_from_errno(err, errno, "syncing %s", path.text);
    return status;
}

// Without the lock; the turn to resize is the caller's. The descriptor is its own: a failed sync here takes no failure away
// from the syncs of what was written to the file's other extents.
static enum graft_status grow_file(struct extents *extents, uint32_t from, uint32_t to,
                                   struct graft_error *err)
{
    bool is_new = from % EXTENTS_PER_FILE == 0;
    struct path path = path_of(extents, from / EXTENTS_PER_FILE);
    int fd = open(path.text, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_from_errno(err, errno, "making %s", path.text);
    enum graft_status status = fill_file(extents, fd, from, to, err);
    if (status == GRAFT_OK && is_new)
        status = files_sync_folder(extents->directory, err);
    if (status == GRAFT_OK)
        FAILPOINT("extents.grown");
    // What cannot be taken back is space of the same kind to the next opening, and is written again by the next growth.
    if (status != GRAFT_OK && (ftruncate(fd, (off_t)(from % EXTENTS_PER_FILE) * EXTENT_SIZE) != 0 ||
                               (is_new && unlink(path.text) != 0)))
        error_context(err, status, "%s keeps zeros at its end", path.text);
    close(fd);
    return status;
}

// The extents [from, to), all of one file.
static enum graft_status grow_locked(struct extents *extents, uint32_t from, uint32_t to,
                                     struct graft_error *err)
{
    enum graft_status status = extents_reserve_locked(extents, to, err);
    if (status == GRAFT_OK)
        status = reserve_files_locked(extents, from / EXTENTS_PER_FILE + 1, err);
    if (status != GRAFT_OK)
        return status;
    mutex_unlock(&extents->lock);
    status = grow_file(extents, from, to, err);
    mutex_lock(&extents->lock);
    if (status == GRAFT_OK)
        extents_appeared_locked(extents, from, to, EXTENT_FREE);
    return status;
}

enum graft_status extents_grow(struct extents *extents, uint32_t count, struct graft_error *err)
{
    LOCK_GUARD(&extents->lock);
    CHECK(extents->started);
    turn_take_locked(extents, &extents->resizing);
    enum graft_status status = GRAFT_OK;
    for (uint32_t left = count; left > 0 && status == GRAFT_OK;) {
        uint32_t from = extents->end, room = EXTENTS_PER_FILE - from % EXTENTS_PER_FILE;
        uint32_t step = MIN(left, room);
        if (step > EXTENTS_MAX - from)
            status = error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE,
                               "%s has %u extents of 1 MiB, and no more are allowed", extents->directory,
                               EXTENTS_MAX);
        else
            status = grow_locked(extents, from, from + step, err);
        left -= step;
    }
    turn_give_locked(extents, &extents->resizing);
    return status;
}

// True if the last file, whose first extent is *ret_first, can go.
static bool can_shrink_locked(const struct extents *extents, uint32_t keep, uint32_t *ret_first)
{
    if (extents->end == 0)
        return false;
    uint32_t first = (extents->end - 1) / EXTENTS_PER_FILE * EXTENTS_PER_FILE;
    for (uint32_t extent = first; extent < extents->end; extent++)
        if (extents->slots[extent].state != EXTENT_FREE)
            return false;
    *ret_first = first;
    return extents->free - (extents->end - first) >= keep;
}

static enum graft_status remove_last_locked(struct extents *extents, uint32_t first, struct graft_error *err)
{
    struct extents_file *file = extents->files[first / EXTENTS_PER_FILE];
    uint32_t end = extents->end;
    extents_vanished_locked(extents, first, end); // nobody new comes to use the file
    while (file->users > 0 || file->opening || file->dirty) {
        if (file->users == 0 && !file->opening) { // written to, given up, never synced
            note_clean_locked(extents, file);
        } else {
            wait_locked(extents);
        }
    }
    if (file->fd >= 0) {
        TAILQ_REMOVE(&extents->idle, file, idle);
        close(file->fd);
        file->fd = -1;
        extents->open_count--;
        wake_locked(extents);
    }
    mutex_unlock(&extents->lock);
    struct path path = path_of(extents, file->number);
    enum graft_status status = FAILPOINT_ERROR("extents.shrink.before", err);
    if (status == GRAFT_OK && unlink(path.text) != 0)
        status = error_from_errno(err, errno, "removing %s", path.text);
    FAILPOINT("extents.shrunk");
    mutex_lock(&extents->lock);
    if (status != GRAFT_OK)
        extents_appeared_locked(extents, first, end, EXTENT_FREE);
    return status;
}

enum graft_status extents_shrink(struct extents *extents, uint32_t keep, struct graft_error *err)
{
    LOCK_GUARD(&extents->lock);
    CHECK(extents->started);
    turn_take_locked(extents, &extents->resizing);
    enum graft_status status = GRAFT_OK;
    uint32_t first;
    while (status == GRAFT_OK && can_shrink_locked(extents, keep, &first))
        status = remove_last_locked(extents, first, err);
    turn_give_locked(extents, &extents->resizing);
    return status;
}

// Cuts the last file, whose extents from `from` on are FREE.
static enum graft_status cut_last_locked(struct extents *extents, uint32_t from, struct graft_error *err)
{
    struct extents_file *file = extents->files[from / EXTENTS_PER_FILE];
    uint32_t end = extents->end;
    enum graft_status status = acquire_locked(extents, file, 0, err);
    if (status != GRAFT_OK)
        return status;
    // Opening the file may have let others in; the turn keeps `end` where it is.
    for (uint32_t extent = from; extent < end; extent++) {
        if (extents->slots[extent].state != EXTENT_FREE) {
            unuse_locked(extents, file);
            return GRAFT_OK;
        }
    }
    extents_vanished_locked(extents, from, end);
    mutex_unlock(&extents->lock);
    struct path path = path_of(extents, file->number);
    status = FAILPOINT_ERROR("extents.cut.before", err);
    if (status == GRAFT_OK && ftruncate(file->fd, (off_t)(from % EXTENTS_PER_FILE) * EXTENT_SIZE) != 0)
        status = error_from_errno(err, errno, "cutting %s", path.text);
    FAILPOINT("extents.cut.after");
    mutex_lock(&extents->lock);
    unuse_locked(extents, file);
    if (status != GRAFT_OK)
        extents_appeared_locked(extents, from, end, EXTENT_FREE);
    return status;
}

enum graft_status extents_cut(struct extents *extents, uint32_t from, struct graft_error *err)
{
    LOCK_GUARD(&extents->lock);
    CHECK(extents->started);
    turn_take_locked(extents, &extents->resizing);
    enum graft_status status = GRAFT_OK;
    while (status == GRAFT_OK && extents->end > from) {
        uint32_t low = extents->end, first = (low - 1) / EXTENTS_PER_FILE * EXTENTS_PER_FILE;
        while (low > MAX(from, first) && extents->slots[low - 1].state == EXTENT_FREE)
            low--;
        if (low == extents->end)
            break;
        status = low == first ? remove_last_locked(extents, first, err) : cut_last_locked(extents, low, err);
    }
    turn_give_locked(extents, &extents->resizing);
    return status;
}
