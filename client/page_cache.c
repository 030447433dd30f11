// SPDX-License-Identifier: Apache-2.0
#include "client/page_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/page_cache_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/files.h"
#include "common/base/limits.h"

#define OPEN_FILES_MAX 64u
#define GROW_EXTENTS 2u

// ---- files that a crash left

static bool is_page_file(const char *name, uint32_t *ret_number)
{
    char *end;
    if (strlen(name) != 8 || strspn(name, "0123456789abcdef") != 8)
        return false;
    *ret_number = (uint32_t)strtoul(name, &end, 16);
    return true;
}

// *ret_files: one above the last one's number. With `remove`, all of them go.
static enum graft_status list_files(const char *directory, bool remove, uint32_t *ret_files,
                                    struct graft_error *err)
{
    DIR *folder = opendir(directory);
    uint32_t number;
    *ret_files = 0;
    if (!folder)
        return error_from_errno(err, errno, "opening the folder %s", directory);
    enum graft_status status = GRAFT_OK;
    for (struct dirent *entry; status == GRAFT_OK && (entry = readdir(folder));) {
        if (!is_page_file(entry->d_name, &number))
            continue;
        *ret_files = MAX(*ret_files, number + 1);
        if (remove && unlinkat(dirfd(folder), entry->d_name, 0) != 0)
            status = error_from_errno(err, errno, "removing %s/%s", directory, entry->d_name);
    }
    closedir(folder);
    return status;
}

enum graft_status page_cache_remove_files(const char *directory, struct graft_error *err)
{
    uint32_t files;
    return list_files(directory, true, &files, err);
}

// Makes the file whole extents, at least `count` of them.
static enum graft_status mend_file(const char *directory, uint32_t number, uint32_t count,
                                   struct graft_error *err)
{
    _cleanup_(free_p) char *path = NULL;
    struct stat info;
    CHECK(asprintf(&path, "%s/%08x", directory, number) > 0);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_from_errno(err, errno, "opening %s", path);
    enum graft_status status = GRAFT_OK;
    off_t size = 0;
    if (fstat(fd, &info) != 0)
        status = error_from_errno(err, errno, "looking at %s", path);
    else
        size = MAX(info.st_size / EXTENT_SIZE, (off_t)count) * EXTENT_SIZE;
    if (status == GRAFT_OK && size != info.st_size && ftruncate(fd, size) != 0)
        status = error_from_errno(err, errno, "changing the size of %s", path);
    close(fd);
    return status;
}

// Files are never synced, so any of them may be gone or short. What is missing is zeros now, which no checksum vouches for.
static enum graft_status mend_files(const char *directory, uint32_t extents, struct graft_error *err)
{
    uint32_t files;
    enum graft_status status = list_files(directory, false, &files, err);
    files = MAX(files, (extents + EXTENTS_PER_FILE - 1) / EXTENTS_PER_FILE);
    if (status == GRAFT_OK && files > FILES_MAX)
        status =
            error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "%s has %u page files", directory, files);
    for (uint32_t i = 0; i < files && status == GRAFT_OK; i++) {
        uint32_t first = i * EXTENTS_PER_FILE;
        uint32_t count = i + 1 < files ? EXTENTS_PER_FILE : extents > first ? extents - first : 0;
        status = mend_file(directory, i, count, err);
    }
    return status;
}

// ---- opening

enum graft_status page_cache_open(const struct page_cache_settings *settings, struct page_cache **ret_cache,
                                  struct graft_error *err)
{
    _cleanup_(page_cache_close_p) struct page_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the page cache");
    cache->index = settings->index;
    cache->context = settings->context;
    cache->store = settings->store;
    cache->epoch = settings->epoch;
    cache->front = EXTENT_NONE;
    cache->next_age = 1;
    cache->credit = CREDIT_MAX;
    mutex_init(&cache->lock, RANK_CACHE);
    cond_init(&cache->turn_over);
    TAILQ_INIT(&cache->ages);
    struct extents_settings extents = {
        .directory = settings->directory, .durable = false, .open_files_max = OPEN_FILES_MAX};
    enum graft_status status = files_make_folder(settings->directory, err);
    if (status == GRAFT_OK)
        status = mend_files(settings->directory, settings->extents, err);
    if (status == GRAFT_OK)
        status = extents_open(&extents, &cache->extents, err);
    if (status == GRAFT_OK)
        *ret_cache = TAKE(cache);
    return status;
}

void page_cache_close(struct page_cache *cache)
{
    if (!cache)
        return;
    CHECK(!cache->turn_taken);
    extents_close(cache->extents);
    for (size_t i = 0; i < FILES_MAX && cache->files[i]; i++)
        free(cache->files[i]);
    free(cache->run);
    free(cache->victim);
    cond_release(&cache->turn_over);
    mutex_release(&cache->lock);
    free(cache);
}

enum graft_status page_cache_set_live(struct page_cache *cache, uint32_t extent, uint64_t live,
                                      struct graft_error *err)
{
    return extents_set_live(cache->extents, extent, live, err);
}

static void list_locked(struct page_cache *cache, struct cache_extent *extent, uint64_t age)
{
    mutex_assert_held(&cache->lock);
    if (extent->listed)
        TAILQ_REMOVE(&cache->ages, extent, by_age);
    extent->age = age;
    extent->listed = true;
    cache->next_age = MAX(cache->next_age, age + 1);
    TAILQ_INSERT_TAIL(&cache->ages, extent, by_age);
}

void page_cache_set_age(struct page_cache *cache, uint32_t extent, uint64_t age)
{
    if (extent >= extents_end(cache->extents) || age == UINT64_MAX)
        return;
    LOCK_GUARD(&cache->lock);
    cache_extent_at(cache, extent)->age = age;
    cache->next_age = MAX(cache->next_age, age + 1);
}

static int by_age(const void *left, const void *right)
{
    const struct cache_extent *a = *(struct cache_extent *const *)left,
                              *b = *(struct cache_extent *const *)right;
    return a->age < b->age ? -1 : a->age > b->age;
}

void page_cache_start(struct page_cache *cache)
{
    extents_start(cache->extents);
    extents_cut(cache->extents, 0, NULL); // what is not cut now is only in the way
    uint32_t end = extents_end(cache->extents);
    struct cache_extent **sorted = calloc((size_t)end + 1, sizeof(struct cache_extent *));
    CHECK(sorted);
    uint32_t count = 0;
    for (uint32_t i = 0; i < end; i++) {
        uint64_t live;
        if (extents_state(cache->extents, i, &live) == EXTENT_SEALED)
            sorted[count++] = cache_extent_at(cache, i);
    }
    qsort(sorted, count, sizeof(struct cache_extent *), by_age);
    mutex_lock(&cache->lock);
    for (uint32_t i = 0; i < count; i++)
        list_locked(cache, sorted[i], sorted[i]->age);
    mutex_unlock(&cache->lock);
    free(sorted);
}

struct cache_extent *cache_extent_at(struct page_cache *cache, uint32_t extent)
{
    uint32_t at = extent / EXTENTS_PER_FILE;
    CHECK(at < FILES_MAX);
    struct cache_file *file = atomic_load_explicit(&cache->files[at], memory_order_acquire);
    if (UNLIKELY(!file)) {
        // Files are there from the first to the last, so that closing finds all of them.
        if (at > 0)
            cache_extent_at(cache, (at - 1) * EXTENTS_PER_FILE);
        struct cache_file *fresh = calloc(1, sizeof *fresh);
        CHECK(fresh);
        for (uint32_t i = 0; i < EXTENTS_PER_FILE; i++)
            fresh->extents[i].number = at * EXTENTS_PER_FILE + i;
        if (atomic_compare_exchange_strong(&cache->files[at], &file, fresh))
            file = fresh;
        else
            free(fresh);
    }
    return &file->extents[extent % EXTENTS_PER_FILE];
}

// ---- the turn

void page_cache_turn_take(struct page_cache *cache)
{
    LOCK_GUARD(&cache->lock);
    while (cache->turn_taken)
        cond_wait(&cache->turn_over, &cache->lock);
    cache->turn_taken = true;
}

void page_cache_turn_give(struct page_cache *cache)
{
    mutex_lock(&cache->lock);
    CHECK(cache->turn_taken);
    cache->turn_taken = false;
    mutex_unlock(&cache->lock);
    cond_signal(&cache->turn_over);
}

// ---- reading

struct extents *page_cache_extents(struct page_cache *cache)
{
    return cache->extents;
}

bool page_cache_may_have(struct page_cache *cache, uint64_t place, uint32_t size)
{
    uint64_t live;
    if (place / EXTENT_SIZE >= (uint64_t)FILES_MAX * EXTENTS_PER_FILE ||
        size > EXTENT_SIZE - place_offset(place))
        return false;
    enum extent_state state = extents_state(cache->extents, place_extent(place), &live);
    return state == EXTENT_TAKEN || (state == EXTENT_SEALED && live >= size);
}

// The page that starts in the block was read.
static void mark_read(struct page_cache *cache, uint64_t place)
{
    uint32_t block = place_offset(place) / BLOCK_SIZE;
    _Atomic uint32_t *word = &cache_extent_at(cache, place_extent(place))->read[block / 32];
    uint32_t bit = 1u << (block % 32);
    if (!(atomic_load_explicit(word, memory_order_relaxed) & bit))
        atomic_fetch_or_explicit(word, bit, memory_order_relaxed);
}

enum graft_status page_cache_read(struct page_cache *cache, uint64_t place, void *to, size_t size,
                                  struct graft_error *err)
{
    struct iovec piece = {to, size};
    return page_cache_readv(cache, place, &piece, 1, err);
}

enum graft_status page_cache_readv(struct page_cache *cache, uint64_t place, const struct iovec *to,
                                   unsigned count, struct graft_error *err)
{
    if (place / EXTENT_SIZE >= (uint64_t)FILES_MAX * EXTENTS_PER_FILE)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "there is no such place in the page cache");
    enum graft_status status = extents_readv(cache->extents, place, to, count, err);
    for (unsigned i = 0; i < count && status == GRAFT_OK; i++) {
        mark_read(cache, place);
        place += to[i].iov_len;
    }
    return status;
}

// ---- space

void page_cache_retire_front(struct page_cache *cache)
{
    if (cache->front == EXTENT_NONE)
        return;
    CHECK(cache->filled_count < FILLED_MAX);
    cache->filled[cache->filled_count++] = cache->front;
    cache->front = EXTENT_NONE;
}

void page_cache_seal_filled(struct page_cache *cache)
{
    if (cache->appending)
        return;
    for (unsigned i = 0; i < cache->filled_count; i++)
        extents_seal(cache->extents, cache->filled[i]);
    cache->filled_count = 0;
}

void page_cache_begin_front(struct page_cache *cache, uint32_t extent)
{
    CHECK(cache->front == EXTENT_NONE);
    struct cache_extent *record = cache_extent_at(cache, extent);
    for (unsigned i = 0; i < BLOCK_WORDS; i++)
        atomic_store_explicit(&record->read[i], 0, memory_order_relaxed);
    cache->front = extent;
    cache->front_at = 0;
    LOCK_GUARD(&cache->lock);
    list_locked(cache, record, cache->next_age);
}

uint32_t page_cache_room(struct page_cache *cache)
{
    struct extents_usage usage;
    extents_usage(cache->extents, &usage);
    uint32_t limit = atomic_load(&cache->limit), end = extents_end(cache->extents);
    uint32_t most = limit > 0 ? limit : FILES_MAX * EXTENTS_PER_FILE;
    return usage.free + (most > end ? most - end : 0);
}

enum graft_status page_cache_take(struct page_cache *cache, uint32_t *ret_extent, struct graft_error *err)
{
    uint32_t limit = atomic_load(&cache->limit), end = extents_end(cache->extents);
    uint32_t extent = extents_take(cache->extents, EXTENT_NONE);
    // While a limit is being lowered there are free ones above it, which are to go.
    if (extent != EXTENT_NONE && limit > 0 && extent >= limit) {
        extents_give_back(cache->extents, extent);
        extent = EXTENT_NONE;
    }
    uint32_t most = limit > 0 ? limit : FILES_MAX * EXTENTS_PER_FILE;
    if (extent == EXTENT_NONE && end < most) {
        uint32_t count = MIN(most - end, GROW_EXTENTS);
        enum graft_status status = cache->index->may_grow(cache->context, (size_t)count * EXTENT_SIZE, err);
        if (status == GRAFT_OK)
            status = FAILPOINT_ERROR("cache.grow.before", err);
        if (status == GRAFT_OK)
            status = extents_grow(cache->extents, count, err);
        FAILPOINT("cache.grow.after");
        if (status != GRAFT_OK)
            return status;
        extent = extents_take(cache->extents, EXTENT_NONE);
    }
    *ret_extent = extent;
    return GRAFT_OK;
}

// ---- writing

static uint32_t size_at(const void *context, uint32_t index)
{
    const struct page_cache_arrival *arrivals = context;
    return arrivals[index].entry.size;
}

// Puts a run together in cache->run, to be written at `place`.
static void build_run(struct page_cache *cache, struct page_cache_arrival *arrivals, uint32_t count,
                      uint64_t place)
{
    struct run_entry *entries = cache->entries;
    for (uint32_t i = 0; i < count; i++)
        entries[i] = arrivals[i].entry;
    struct run_header header = {.kind = RUN_FETCHED,
                                .store = cache->store,
                                .epoch = cache->epoch,
                                .seq = ++cache->seq,
                                .chain_before = cache->chain,
                                .count = count};
    run_encode(&header, entries, cache->run);
    cache->chain = header.chain;
    uint32_t end = run_header_size(count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = run_page_offset(end, entries[i].size);
        memset(cache->run + end, 0, at - end);
        memcpy(cache->run + at, arrivals[i].data, entries[i].size);
        arrivals[i].place = place + at;
        end = at + entries[i].size;
    }
    memset(cache->run + end, 0, header.size - end);
}

enum graft_status page_cache_write_run(struct page_cache *cache, struct page_cache_arrival *arrivals,
                                       size_t count, size_t *ret_count, struct graft_error *err)
{
    uint32_t size = 0, fits = 0;
    *ret_count = 0;
    if (cache->front != EXTENT_NONE)
        fits = run_fit(size_at, arrivals, (uint32_t)MIN(count, (size_t)RUN_PAGES_MAX),
                       EXTENT_SIZE - cache->front_at, &size);
    if (fits == 0)
        return GRAFT_OK;
    if (!cache->run && !(cache->run = malloc(EXTENT_SIZE)))
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to keep fetched pages");
    uint64_t place = place_make(cache->front, cache->front_at);
    build_run(cache, arrivals, fits, place);
    struct iovec piece = {cache->run, size};
    enum graft_status status = FAILPOINT_ERROR("cache.write.before", err);
    if (status == GRAFT_OK)
        status = extents_write(cache->extents, place, &piece, 1, err);
    FAILPOINT("cache.write.after");
    // What a failed write left there is found by nobody; the next run overwrites it.
    if (status != GRAFT_OK)
        return status;
    cache->front_at += size;
    *ret_count = fits;
    return GRAFT_OK;
}

// The front has no room for another page. One extent stays free for what the hand writes again.
static enum graft_status next_front(struct page_cache *cache, struct graft_error *err)
{
    page_cache_retire_front(cache);
    for (;;) {
        struct graft_error why = {0};
        uint32_t extent = EXTENT_NONE;
        if (page_cache_room(cache) >= 2) {
            enum graft_status status = page_cache_take(cache, &extent, &why);
            if (status != GRAFT_OK && why.detail != GRAFT_DETAIL_NO_SPACE)
                return error_copy(err, &why);
        }
        if (extent != EXTENT_NONE) {
            page_cache_begin_front(cache, extent);
            return GRAFT_OK;
        }
        bool done;
        enum graft_status status = page_cache_evict(cache, &done, err);
        if (status != GRAFT_OK || cache->front != EXTENT_NONE)
            return status;
        if (!done && why.status != GRAFT_OK)
            return error_copy(err, &why);
        if (!done)
            return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                             "the page cache has no room within its limit of %u MiB",
                             atomic_load(&cache->limit));
    }
}

enum graft_status page_cache_append(struct page_cache *cache, struct page_cache_arrival *arrivals,
                                    size_t count, struct graft_error *err)
{
    page_cache_turn_take(cache);
    CHECK(!cache->appending && cache->filled_count == 0);
    cache->appending = true;
    while (count > 0) {
        size_t written;
        enum graft_status status = page_cache_write_run(cache, arrivals, count, &written, err);
        if (status == GRAFT_OK && written == 0)
            status = next_front(cache, err);
        if (status != GRAFT_OK)
            return error_context(err, status, "keeping fetched pages");
        arrivals += written;
        count -= written;
    }
    return GRAFT_OK;
}

void page_cache_appended(struct page_cache *cache)
{
    CHECK(cache->turn_taken && cache->appending);
    cache->appending = false;
    page_cache_seal_filled(cache);
    page_cache_clean(cache);
    page_cache_turn_give(cache);
}

void page_cache_apply(struct page_cache *cache, const struct extent_changes *changes)
{
    extents_apply(cache->extents, changes);
}

uint64_t page_cache_age(struct page_cache *cache, uint32_t extent)
{
    LOCK_GUARD(&cache->lock);
    return cache_extent_at(cache, extent)->age;
}

void page_cache_usage(struct page_cache *cache, struct page_cache_usage *ret_usage)
{
    struct extents_usage usage;
    extents_usage(cache->extents, &usage);
    LOCK_GUARD(&cache->lock);
    *ret_usage = (struct page_cache_usage){
        .limit = (uint64_t)atomic_load(&cache->limit) * EXTENT_SIZE,
        .size = (uint64_t)usage.extents * EXTENT_SIZE,
        .live = usage.live,
        .evicted_pages = cache->evicted_pages,
        .evicted_size = cache->evicted_size,
        .moved_size = cache->moved_size,
    };
}
