// SPDX-License-Identifier: Apache-2.0
//
// Shared by the files of the page-version index.
#ifndef PAGESTORE_PAGE_INDEX_INTERNAL_H
#define PAGESTORE_PAGE_INDEX_INTERNAL_H

#include <sys/queue.h>
#include <uthash.h>

#include "common/base/mutex.h"
#include "common/store/rocksdb_util.h"
#include "common/store/store_fate.h"
#include "pagestore/page_index.h"
#include "pagestore/version_cache.h"

enum index_family {
    FAMILY_PAGES,
    FAMILY_COMMITS,
    FAMILY_CUTS,
    FAMILY_VOLUMES,
    FAMILY_SEGMENTS,
    FAMILY_NUMBERS,
    FAMILY_COUNT,
};

#define NUMBER_SIZE 4u
#define PAGE_KEY_SIZE 16u
#define PAGE_PREFIX_SIZE 8u
#define PAGE_VALUE_SIZE 5u
#define COMMIT_KEY_SIZE 12u
#define COMMIT_VALUE_SIZE 20u
#define VOLUME_VALUE_SIZE 36u
#define SEGMENT_VALUE_SIZE 52u
#define SEGMENT_NAME_SIZE 32u
#define UNFINISHED_KEY_SIZE (GID_SIZE + 1)
#define UNFINISHED_MARK 1

// Places of segments that were asked for lately, by number modulo the slots. A number names one place for ever.
#define PLACES_KEPT 4096u
struct kept_place {
    uint32_t number; // 0: none
    struct segment_place place;
};

struct page_index {
    struct rocks *rocks;
    struct store_fate fate;
    struct mutex lock;
    struct index_volume *volumes;          // by vid, least recently used first; under lock
    unsigned idle_count;                   // of volumes nobody holds; under lock
    struct version_cache *newest;          // under lock
    uint64_t next_key;                     // of a history in `newest`; under lock
    struct kept_place places[PLACES_KEPT]; // under lock
    // Only the applying thread's.
    uint32_t next_volume, next_segment;

    struct metric *entries, *seeks, *remembered, *applied_commits, *dropped;
};

// An entry of the database that no version of this program writes.
enum graft_status page_index_bad_entry(struct graft_error *err, const char *what);

struct applying;                               // page_index_apply.c
void applying_free(struct applying *applying); // drops what was not published; NULL is fine

struct index_volume {
    struct page_index *index;
    struct gid vid;
    unsigned references;      // under index->lock
    uint32_t number;          // under index->lock; 0: none yet
    struct index_state state; // under index->lock
    uint32_t lowest_cut;      // that was ever applied, CUT_NONE; under index->lock
    uint64_t newest_key;      // of its chunks in index->newest; under index->lock
    uint64_t begun_lsn;       // of the last commit whose entries may have gone there; under index->lock
    // The applying thread's.
    struct applying *applying; // commits that are not published. NULL: none
    bool has_unfinished;       // a part of the commit behind the applied one was written
    struct hash128 unfinished; // its chain
    UT_hash_handle hh;         // under index->lock
};

// What is remembered of the volume's newest versions may be wrong now: nothing of it is met again.
static inline void forget_newest_locked(struct index_volume *volume)
{
    mutex_assert_held(&volume->index->lock);
    volume->newest_key = volume->index->next_key++;
    volume->begun_lsn = volume->state.lsn;
}

static inline void put_page_key(uint8_t *to, uint32_t volume, uint32_t pageidx, uint64_t lsn)
{
    put_be32(to, volume);
    put_be32(to + 4, pageidx);
    put_be64(to + 8, ~lsn);
}

static inline void put_commit_key(uint8_t *to, uint32_t volume, uint64_t lsn)
{
    put_be32(to, volume);
    put_be64(to + 4, lsn);
}

#endif
