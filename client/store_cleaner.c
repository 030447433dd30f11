// SPDX-License-Identifier: Apache-2.0
//
// A step: pick extents ─▶ walk their runs, look up what the index has there ─▶ read and verify it ─▶ append it as RUN_MOVED
// ─▶ put the new places, each only if the old one is still the index's. Picking looks at the counters of all extents, which
// is done once for SPACE_CANDIDATES of them.
#include "client/store_cleaner.h"

#include <stdlib.h>
#include <string.h>

#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/checksum.h"
#include "common/base/failpoint.h"

#define CANDIDATES_MAX 64u
#define RESCAN_EXTENTS 4096u // up to so many, looking at all of them costs next to nothing
#define MOVE_SIZE_MAX ((size_t)EXTENT_SIZE)
#define MOVE_PAGES_MAX 2048u // of 512 bytes: a MiB
#define PLACES_BATCH 256u    // pages whose places are put while places_lock is held
#define STEP_EXTENTS_MAX 16u
#define FOLDS_MAX (4 * EXTENTS_PER_FILE)
// An extent is cleaned if its live pages, packed, take at most so many hundredths of it.
#define GAIN_PERCENT 92u

#define UNMOVABLE 1u // in left_alone

struct survey {
    struct run_entry entries[MOVE_PAGES_MAX];
    uint64_t places[MOVE_PAGES_MAX];
    uint32_t count;
    uint32_t packed; // bytes that they would take in runs of their own
    bool more;       // there are others
};

struct candidate {
    uint32_t extent;
    uint32_t live;
};

struct store_cleaner {
    struct store *store;
    // Extents by live bytes, the most first; the last is taken next.
    struct candidate candidates[CANDIDATES_MAX];
    unsigned candidate_count;
    // By extent: it is left alone until it has less live bytes than this; 0 stands for EXTENT_SIZE.
    uint32_t *left_alone;
    uint32_t left_alone_count;
    unsigned folds; // steps for this last file
    uint32_t folded_file;

    // What lives in the extent that is being emptied.
    uint8_t *extent; // EXTENT_SIZE
    struct survey *survey;

    // What is moved next.
    uint8_t *bytes; // MOVE_SIZE_MAX
    size_t size;    // of bytes
    struct page_log_page *pages;
    uint64_t *from;
    uint32_t page_count;

    uint64_t number; // of `vid`; 0: none
    struct gid vid;

    _Atomic uint64_t cleaned, moved_pages, moved_size;
};

enum graft_status store_cleaner_new(struct store *store, struct store_cleaner **ret_cleaner,
                                    struct graft_error *err)
{
    struct store_cleaner *cleaner = calloc(1, sizeof *cleaner);
    if (cleaner) {
        cleaner->store = store;
        cleaner->extent = malloc(EXTENT_SIZE);
        cleaner->survey = malloc(sizeof *cleaner->survey);
        cleaner->bytes = malloc(MOVE_SIZE_MAX);
        cleaner->pages = malloc(MOVE_PAGES_MAX * sizeof *cleaner->pages);
        cleaner->from = malloc(MOVE_PAGES_MAX * sizeof *cleaner->from);
        if (cleaner->extent && cleaner->survey && cleaner->bytes && cleaner->pages && cleaner->from) {
            *ret_cleaner = cleaner;
            return GRAFT_OK;
        }
    }
    store_cleaner_free(cleaner);
    return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to clean page files");
}

void store_cleaner_free(struct store_cleaner *cleaner)
{
    if (!cleaner)
        return;
    free(cleaner->left_alone);
    free(cleaner->from);
    free(cleaner->pages);
    free(cleaner->bytes);
    free(cleaner->survey);
    free(cleaner->extent);
    free(cleaner);
}

void store_cleaner_counts(const struct store_cleaner *cleaner, struct store_cleaner_counts *ret_counts)
{
    *ret_counts = (struct store_cleaner_counts){cleaner->cleaned, cleaner->moved_pages, cleaner->moved_size};
}

// ---- picking --------------------------------------------------------------------------------------------------------

static bool is_left_alone(const struct store_cleaner *cleaner, uint32_t extent, uint64_t live)
{
    uint32_t below = extent < cleaner->left_alone_count ? cleaner->left_alone[extent] : 0;
    return live >= (below ? below : EXTENT_SIZE * (uint64_t)GAIN_PERCENT / 100);
}

// Until a twelfth of what lives there has died. For good (that is: until it is empty, or the directory opened anew) with
// live = 0.
static void leave_alone(struct store_cleaner *cleaner, uint32_t extent, uint64_t live)
{
    if (extent >= cleaner->left_alone_count) {
        uint32_t count = MAX(extent + 1, extents_end(cleaner->store->pages));
        uint32_t *more = realloc(cleaner->left_alone, count * sizeof *more);
        if (!more)
            return; // it is looked at again, in vain
        memset(more + cleaner->left_alone_count, 0, (count - cleaner->left_alone_count) * sizeof *more);
        cleaner->left_alone = more;
        cleaner->left_alone_count = count;
    }
    cleaner->left_alone[extent] = MAX((uint32_t)(live - live / 12), UNMOVABLE);
}

static void forget_left_alone(struct store_cleaner *cleaner, uint32_t extent)
{
    if (extent < cleaner->left_alone_count)
        cleaner->left_alone[extent] = 0;
}

// Keeps the candidates in order, the fullest first, and drops that if there are too many.
static void add_candidate(struct store_cleaner *cleaner, uint32_t extent, uint32_t live)
{
    struct candidate *candidates = cleaner->candidates;
    if (cleaner->candidate_count == CANDIDATES_MAX) {
        if (live >= candidates[0].live)
            return;
        memmove(candidates, candidates + 1, (CANDIDATES_MAX - 1) * sizeof *candidates);
        cleaner->candidate_count--;
    }
    unsigned at = cleaner->candidate_count;
    while (at > 0 && candidates[at - 1].live < live) {
        candidates[at] = candidates[at - 1];
        at--;
    }
    candidates[at] = (struct candidate){extent, live};
    cleaner->candidate_count++;
}

static void find_candidates(struct store_cleaner *cleaner)
{
    struct extents *extents = cleaner->store->pages;
    uint32_t end = extents_end(extents);
    cleaner->candidate_count = 0;
    for (uint32_t extent = 0; extent < end; extent++) {
        uint64_t live;
        if (extents_state(extents, extent, &live) == EXTENT_SEALED && !is_left_alone(cleaner, extent, live))
            add_candidate(cleaner, extent, (uint32_t)live);
    }
}

static uint32_t pick_emptiest(struct store_cleaner *cleaner)
{
    bool fresh = false;
    for (;;) {
        if (cleaner->candidate_count == 0 && fresh)
            return EXTENT_NONE;
        if (cleaner->candidate_count == 0) {
            find_candidates(cleaner);
            fresh = true;
            continue;
        }
        uint32_t extent = cleaner->candidates[--cleaner->candidate_count].extent;
        uint64_t live;
        if (extents_state(cleaner->store->pages, extent, &live) == EXTENT_SEALED &&
            !is_left_alone(cleaner, extent, live))
            return extent;
    }
}

// ---- moving ---------------------------------------------------------------------------------------------------------

static enum graft_status put_place(struct store_cleaner *cleaner, uint32_t index, rocksdb_writebatch_t *batch,
                                   struct extent_changes *changes, struct graft_error *err)
{
    struct store *store = cleaner->store;
    const struct page_log_page *page = &cleaner->pages[index];
    struct store_key key = store_key_version(page->entry.number, page->entry.pageidx, page->entry.lsn);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    struct store_version version;
    enum graft_status status = store_get(store->local, FAMILY_INDEX, &key, &value, err);
    if (status != GRAFT_OK || !value || !store_version_decode(rocks_slice(value), &version) ||
        version.kind != STORE_VERSION_AVAILABLE || version.place != cleaner->from[index])
        return status; // it died meanwhile
    CHECK(version.size == page->entry.size && version.checksum == page->entry.checksum);
    version.place = page->place;
    uint8_t encoded[STORE_VERSION_SIZE_MAX];
    size_t size = store_version_encode(&version, encoded);
    store_put(store->local, batch, FAMILY_INDEX, &key, (struct bytes){encoded, size});
    extent_changes_add(changes, cleaner->from[index], -(int64_t)version.size);
    extent_changes_add(changes, version.place, version.size);
    return GRAFT_OK;
}

static enum graft_status put_places(struct store_cleaner *cleaner, uint32_t first, uint32_t end,
                                    struct graft_error *err)
{
    struct store *store = cleaner->store;
    _cleanup_(extent_changes_release) struct extent_changes changes = {.count = 0};
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    enum graft_status status = GRAFT_OK;
    LOCK_GUARD(&store->places_lock);
    for (uint32_t i = first; status == GRAFT_OK && i < end; i++)
        status = put_place(cleaner, i, batch, &changes, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("move.places.before");
    status = store_write_changes(store, batch, &changes, err);
    FAILPOINT("move.places.after");
    return status;
}

// Appends what was collected and tells the index.
static enum graft_status move(struct store_cleaner *cleaner, struct graft_error *err)
{
    struct store *store = cleaner->store;
    if (cleaner->page_count == 0)
        return GRAFT_OK;
    struct page_log_append append = {
        .header = {.kind = RUN_MOVED, .complete = true, .cut = UINT32_MAX, .group_count = 1},
        .pages = cleaner->pages,
        .page_count = cleaner->page_count,
    };
    FAILPOINT("move.append.before");
    enum graft_status status = store_log_append(store, &append, 1, store->sync_commits, err);
    FAILPOINT("move.append.after");
    if (status != GRAFT_OK)
        return status;
    for (uint32_t first = 0; status == GRAFT_OK && first < cleaner->page_count; first += PLACES_BATCH)
        status = put_places(cleaner, first, MIN(first + PLACES_BATCH, cleaner->page_count), err);
    page_log_applied(store->log, &append);
    cleaner->moved_pages += cleaner->page_count;
    cleaner->moved_size += cleaner->size;
    cleaner->page_count = 0;
    cleaner->size = 0;
    return status;
}

// ---- collecting -----------------------------------------------------------------------------------------------------

static enum graft_status find_vid(struct store_cleaner *cleaner, uint64_t number, bool *ret_exists,
                                  struct graft_error *err)
{
    *ret_exists = true;
    if (cleaner->number == number)
        return GRAFT_OK;
    cleaner->number = 0;
    enum graft_status status = store_find_vid(cleaner->store, number, ret_exists, &cleaner->vid, err);
    if (status == GRAFT_OK && *ret_exists)
        cleaner->number = number;
    return status;
}

static enum graft_status is_live(const struct store_cleaner *cleaner, const struct run_entry *entry,
                                 uint64_t place, bool *ret_live, struct graft_error *err)
{
    struct store_key key = store_key_version(entry->number, entry->pageidx, entry->lsn);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    struct store_version version;
    enum graft_status status = store_get(cleaner->store->local, FAMILY_INDEX, &key, &value, err);
    *ret_live = status == GRAFT_OK && value && store_version_decode(rocks_slice(value), &version) &&
                version.kind == STORE_VERSION_AVAILABLE && version.place == place;
    // The header was verified, the index is: they differ where one of them was tampered with. The check tells.
    if (*ret_live && (version.size != entry->size || version.checksum != entry->checksum))
        *ret_live = false;
    return status;
}

static enum graft_status survey_run(void *context, const struct page_log_run *run, struct graft_error *err)
{
    struct store_cleaner *cleaner = context;
    struct survey *survey = cleaner->survey;
    uint32_t end = run_header_size(run->header.count);
    for (uint32_t i = 0; i < run->header.count && !survey->more; i++) {
        struct run_entry entry = run_entry_at(run->bytes, i);
        uint32_t offset = run_page_offset(end, entry.size);
        bool live = false;
        end = offset + entry.size;
        enum graft_status status = GRAFT_OK;
        if (entry.size > 0)
            status = is_live(cleaner, &entry, run->place + offset, &live, err);
        if (status != GRAFT_OK)
            return status;
        if (!live)
            continue;
        survey->more = survey->count == MOVE_PAGES_MAX;
        if (survey->more)
            break;
        survey->entries[survey->count] = entry;
        survey->places[survey->count++] = run->place + offset;
        survey->packed += RUN_ENTRY_SIZE + (entry.size + 7) / 8 * 8;
    }
    return GRAFT_OK;
}

static enum graft_status survey_extent(struct store_cleaner *cleaner, uint32_t extent,
                                       struct graft_error *err)
{
    cleaner->survey->count = 0;
    cleaner->survey->packed = 0;
    cleaner->survey->more = false;
    return page_log_walk(cleaner->store->pages, cleaner->store->log_store, extent, cleaner, survey_run, err);
}

// Adds a page to what is moved next; moves that first if there is no room. Damage stays where it is.
static enum graft_status collect(struct store_cleaner *cleaner, const struct run_entry *entry, uint64_t place,
                                 struct graft_error *err)
{
    bool exists;
    enum graft_status status = find_vid(cleaner, entry->number, &exists, err);
    if (status != GRAFT_OK)
        return status;
    const uint8_t *bytes = cleaner->extent + place_offset(place);
    // What is left of a deleted volume is about to be removed: nobody needs it moved.
    if (!exists ||
        !checksum_matches(entry->checksum, page_checksum(&cleaner->vid, entry->pageidx, bytes, entry->size)))
        return GRAFT_OK;
    if (cleaner->page_count == MOVE_PAGES_MAX || cleaner->size + entry->size > MOVE_SIZE_MAX)
        status = move(cleaner, err);
    if (status != GRAFT_OK)
        return status;
    uint8_t *to = cleaner->bytes + cleaner->size;
    memcpy(to, bytes, entry->size);
    cleaner->from[cleaner->page_count] = place;
    cleaner->pages[cleaner->page_count++] = (struct page_log_page){.entry = *entry, .data = to};
    cleaner->size += entry->size;
    return GRAFT_OK;
}

// ---- steps ----------------------------------------------------------------------------------------------------------

// Collects what lives in the extent. With `gain` only if its pages, packed, take less than it does.
static enum graft_status empty_extent(struct store_cleaner *cleaner, uint32_t extent, bool gain,
                                      struct graft_error *err)
{
    struct survey *survey = cleaner->survey;
    enum graft_status status =
        extents_read(cleaner->store->pages, place_make(extent, 0), cleaner->extent, EXTENT_SIZE, err);
    do {
        if (status == GRAFT_OK)
            status = survey_extent(cleaner, extent, err);
        if (status != GRAFT_OK)
            return status;
        if (gain && !survey->more &&
            RUN_ALIGNMENT + survey->packed > EXTENT_SIZE * (uint64_t)GAIN_PERCENT / 100)
            return GRAFT_OK;
        for (uint32_t i = 0; status == GRAFT_OK && i < survey->count; i++)
            status = collect(cleaner, &survey->entries[i], survey->places[i], err);
        // Those that were moved are not found again.
        bool more = survey->more;
        if (status == GRAFT_OK && more)
            status = move(cleaner, err);
        gain = false;
        if (!more || survey->count == 0)
            return status;
    } while (true);
}

// After everything collected was moved. An extent where something still lives (it was not worth it, its bytes are damaged or
// cannot be read) is left alone until more of it has died; with `unmovable` until all of it has.
static void note_emptied(struct store_cleaner *cleaner, const uint32_t *extents, unsigned count,
                         bool unmovable)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t live;
        if (extents_state(cleaner->store->pages, extents[i], &live) == EXTENT_SEALED) {
            leave_alone(cleaner, extents[i], unmovable ? 0 : live);
        } else {
            forget_left_alone(cleaner, extents[i]);
            cleaner->cleaned++;
        }
    }
}

// Empties what `pick` gives, about a MiB of it.
static enum graft_status empty_some(struct store_cleaner *cleaner, uint32_t (*pick)(struct store_cleaner *),
                                    bool gain, bool *ret_done, struct graft_error *err)
{
    uint32_t extents[STEP_EXTENTS_MAX];
    unsigned count = 0;
    uint64_t moved = cleaner->moved_size;
    enum graft_status status = GRAFT_OK;
    *ret_done = false;
    while (count < STEP_EXTENTS_MAX && cleaner->moved_size == moved &&
           (extents[count] = pick(cleaner)) != EXTENT_NONE) {
        struct graft_error why;
        status = empty_extent(cleaner, extents[count], gain, &why);
        uint32_t extent = extents[count++];
        // An extent that cannot be read is left where it is; whatever else happened closed the store or will pass.
        if (status != GRAFT_OK && (why.detail == GRAFT_DETAIL_IO || why.status == GRAFT_CORRUPT) &&
            store_check_usable(cleaner->store, NULL) == GRAFT_OK)
            status = GRAFT_OK;
        if (status != GRAFT_OK) {
            error_copy(err, &why);
            break;
        }
        // Not picked twice in a step, however much of it dies meanwhile: its pages would be moved twice.
        leave_alone(cleaner, extent, 0);
    }
    if (status == GRAFT_OK)
        status = move(cleaner, err);
    cleaner->page_count = 0;
    cleaner->size = 0;
    if (status != GRAFT_OK) {
        for (unsigned i = 0; i < count; i++)
            forget_left_alone(cleaner, extents[i]);
        return status;
    }
    note_emptied(cleaner, extents, count, !gain);
    *ret_done = count > 0;
    return GRAFT_OK;
}

enum graft_status store_cleaner_clean(struct store_cleaner *cleaner, bool *ret_done, struct graft_error *err)
{
    if (extents_end(cleaner->store->pages) <= RESCAN_EXTENTS)
        cleaner->candidate_count = 0;
    return empty_some(cleaner, pick_emptiest, true, ret_done, err);
}

static uint32_t last_file(struct extents *extents)
{
    uint32_t end = extents_end(extents);
    return end > 0 ? (end - 1) / EXTENTS_PER_FILE : 0;
}

static bool log_is_in_file(struct extents *extents, uint32_t file)
{
    uint64_t live;
    for (uint32_t i = 0; i < EXTENTS_PER_FILE; i++) {
        if (extents_state(extents, file * EXTENTS_PER_FILE + i, &live) == EXTENT_TAKEN)
            return true;
    }
    return false;
}

// Pages of nobody, so that the log comes to its next claim, which lies low: a MiB of them, a few times for all that is given
// back.
static enum graft_status fill_log(struct store_cleaner *cleaner, bool *ret_done, struct graft_error *err)
{
    memset(cleaner->bytes, 0, PAGE_SIZE_MAX);
    uint32_t count = EXTENT_SIZE / PAGE_SIZE_MAX - 1;
    for (uint32_t i = 0; i < count; i++)
        cleaner->pages[i] =
            (struct page_log_page){.entry = {.size = PAGE_SIZE_MAX, .pageidx = 1}, .data = cleaner->bytes};
    struct page_log_append append = {
        .header = {.kind = RUN_MOVED, .complete = true, .cut = UINT32_MAX, .group_count = 1},
        .pages = cleaner->pages,
        .page_count = count,
    };
    enum graft_status status = store_log_append(cleaner->store, &append, 1, false, err);
    if (status != GRAFT_OK)
        return status;
    page_log_applied(cleaner->store->log, &append);
    *ret_done = true;
    return GRAFT_OK;
}

static uint32_t pick_last(struct store_cleaner *cleaner)
{
    struct extents *extents = cleaner->store->pages;
    uint32_t end = extents_end(extents);
    uint32_t file = last_file(extents) * EXTENTS_PER_FILE;
    for (uint32_t extent = end; extent > file; extent--) {
        uint64_t live;
        bool unmovable = extent <= cleaner->left_alone_count && cleaner->left_alone[extent - 1] == UNMOVABLE;
        if (extents_state(extents, extent - 1, &live) == EXTENT_SEALED && !unmovable)
            return extent - 1;
    }
    return EXTENT_NONE;
}

enum graft_status store_cleaner_fold(struct store_cleaner *cleaner, uint32_t budget, bool *ret_done,
                                     struct graft_error *err)
{
    struct extents *extents = cleaner->store->pages;
    struct extents_usage before, after;
    *ret_done = false;
    extents_usage(extents, &before);
    // Free ones are what the budget has room for.
    uint32_t used = before.extents - before.free;
    uint32_t keep = budget > used ? budget - used : 0;
    enum graft_status status = GRAFT_OK;
    FAILPOINT("shrink.before");
    if (before.empty > 0)
        status = store_log_settle(cleaner->store, err);
    if (status == GRAFT_OK)
        status = extents_shrink(extents, keep, err);
    FAILPOINT("shrink.after");
    if (status != GRAFT_OK)
        return status;
    extents_usage(extents, &after);
    if (after.extents < before.extents) {
        cleaner->folds = 0;
        *ret_done = true;
        return GRAFT_OK;
    }
    // The log takes the lowest free extents. Should what was moved come to lie in the last file after all, this ends.
    uint32_t file = last_file(extents);
    if (cleaner->folded_file != file)
        cleaner->folds = 0;
    cleaner->folded_file = file;
    if (cleaner->folds > FOLDS_MAX)
        return GRAFT_OK;
    cleaner->folds++;
    status = empty_some(cleaner, pick_last, false, ret_done, err);
    if (status == GRAFT_OK && !*ret_done && before.free >= 2 * PAGE_LOG_CLAIM_EXTENTS &&
        log_is_in_file(extents, file))
        status = fill_log(cleaner, ret_done, err);
    return status;
}
