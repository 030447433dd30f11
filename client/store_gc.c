// SPDX-License-Identifier: Apache-2.0
//
// Removing what nobody needs. Every superseded version and every cut has an entry in `superseded`, by the LSN
// that did it; a sweep walks those entries upwards, removes versions that no pin lies on, and leaves the
// others to the release of their pin, which moves the sweep's start back to itself. So the work of a sweep is
// what was superseded since that pin was made, never the history.
//
// Sweeps run beside commits: what they touch is superseded at or below the head that they saw, and nothing
// above it. One sweep of a volume at a time.
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

#define NOTHING UINT64_MAX

struct sweep_job {
    struct store_volume *volume;
    struct store_sweep at; // where it goes on
    uint64_t head;
    uint64_t *pins; // ascending
    size_t pin_count;
    size_t budget;
    rocksdb_writebatch_t *local;
    struct store_fetched_key *fetched; // to be removed from what was fetched
    size_t fetched_count, fetched_capacity;
    struct extent_changes changes; // with `local`
    // What the batch removes already: a version may have several entries, and be cut off besides. A hash table with room
    // for twice the budget; LSN 0: nothing there.
    struct removed {
        uint64_t lsn;
        uint32_t pageidx;
    } * removed;
    size_t removed_mask;
};

void store_sweep_from_locked(struct store_volume *volume, uint64_t lsn)
{
    struct store_sweep *sweep = &volume->sweep;
    if (lsn <= sweep->versions_from) {
        sweep->versions_from = lsn;
        sweep->versions_page = 0;
    }
    if (lsn <= sweep->cuts_from && volume->record.cuts.last_lsn >= lsn) {
        sweep->cuts_from = lsn;
        sweep->cut_fetched = false;
        sweep->cut_page = 0;
        sweep->cut_kept = false;
    }
}

// Is there a pin in [lsn, by)?
static bool is_pinned(const struct sweep_job *job, uint64_t lsn, uint64_t by)
{
    size_t low = 0, high = job->pin_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (job->pins[middle] < lsn)
            low = middle + 1;
        else
            high = middle;
    }
    return low < job->pin_count && job->pins[low] < by;
}

// ---- removing

static void remove_fetched(struct sweep_job *job, uint32_t pageidx, uint64_t mark_lsn)
{
    if (job->fetched_count == job->fetched_capacity) {
        job->fetched_capacity = job->fetched_capacity ? 2 * job->fetched_capacity : 64;
        job->fetched = reallocarray(job->fetched, job->fetched_capacity, sizeof *job->fetched);
        CHECK(job->fetched); // at most the budget's
    }
    job->fetched[job->fetched_count++] = (struct store_fetched_key){pageidx, mark_lsn};
}

// False if it was there.
static bool note_removed(struct sweep_job *job, uint32_t pageidx, uint64_t lsn)
{
    size_t at = (size_t)((lsn * 31 + pageidx) * 0x9e3779b97f4a7c15u >> 32) & job->removed_mask;
    for (;; at = (at + 1) & job->removed_mask) {
        struct removed *removed = &job->removed[at];
        if (removed->lsn == lsn && removed->pageidx == pageidx)
            return false;
        if (removed->lsn == 0) {
            *removed = (struct removed){lsn, pageidx};
            return true;
        }
    }
}

// What the index says tells what goes: a version that was available may have become pending since.
static bool remove_version(struct sweep_job *job, uint32_t pageidx, uint64_t lsn,
                           enum store_version_kind kind)
{
    if (kind == STORE_VERSION_FLOOR) {
        remove_fetched(job, pageidx, lsn);
        return true;
    }
    if (!note_removed(job, pageidx, lsn))
        return true;
    struct store_key key = store_key_version(job->volume->number, pageidx, lsn);
    struct store_version version;
    bool exists;
    if (store_remove_version_locked(job->volume->store, &key, job->local, &job->changes, &version, &exists,
                                    NULL) != GRAFT_OK)
        return false;
    if (kind == STORE_VERSION_PENDING || (exists && version.kind == STORE_VERSION_PENDING))
        remove_fetched(job, pageidx, lsn);
    return true;
}

static struct rocks_scan *scan_superseded(const struct sweep_job *job, const struct store_key *from)
{
    // Entries of versions and of cuts differ in the byte behind the number.
    struct store_key prefix = *from;
    prefix.size = 9;
    struct rocks_scan *scan = store_scan(job->volume->store->local, FAMILY_SUPERSEDED, &prefix);
    store_scan_seek(scan, from);
    return scan;
}

static bool sweep_versions(struct sweep_job *job)
{
    struct store_sweep *at = &job->at;
    if (at->versions_from == NOTHING)
        return true;
    struct store_key from = store_key_superseded(job->volume->number, at->versions_from, at->versions_page);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = scan_superseded(job, &from);
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        uint64_t by_lsn, lsn;
        uint32_t pageidx;
        enum store_version_kind kind;
        struct bytes key = rocks_iter_key(scan->iterator);
        if (!store_key_parse_superseded(key, &by_lsn, &pageidx) ||
            !store_superseded_decode(rocks_iter_value(scan->iterator), &lsn, &kind))
            return false;
        if (by_lsn > job->head)
            break;
        at->versions_from = by_lsn;
        at->versions_page = pageidx;
        if (job->budget == 0)
            return true;
        job->budget--;
        if (is_pinned(job, lsn, by_lsn))
            continue;
        if (!remove_version(job, pageidx, lsn, kind))
            return false;
        rocks_batch_delete(job->local, job->volume->store->local->families[FAMILY_SUPERSEDED], key);
    }
    if (rocks_iter_status(scan->iterator, "removing superseded pages", NULL) != GRAFT_OK)
        return false;
    at->versions_from = NOTHING;
    return true;
}

// ---- cuts

// Versions below the cut's LSN of pages up to `last`, from where it stands. *ret_whole: all of them were
// looked at.
static bool sweep_cut_index(struct sweep_job *job, uint64_t by_lsn, uint32_t last, bool *ret_whole)
{
    struct store_key prefix = store_key_number(job->volume->number);
    struct store_key from = store_key_version(job->volume->number, job->at.cut_page, job->at.cut_version);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(job->volume->store->local, FAMILY_INDEX, &prefix);
    store_scan_seek(scan, &from);
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        uint32_t pageidx;
        uint64_t lsn;
        struct store_version version;
        if (!store_key_parse_version(rocks_iter_key(scan->iterator), &pageidx, &lsn))
            return false;
        if (pageidx > last)
            break;
        job->at.cut_page = pageidx;
        job->at.cut_version = lsn;
        if (job->budget == 0)
            return true;
        job->budget--;
        if (lsn >= by_lsn)
            continue;
        if (is_pinned(job, lsn, by_lsn)) {
            job->at.cut_kept = true;
            continue;
        }
        if (!store_version_decode(rocks_iter_value(scan->iterator), &version) ||
            !remove_version(job, pageidx, lsn, version.kind))
            return false;
    }
    *ret_whole = true;
    return rocks_iter_status(scan->iterator, "removing pages cut off", NULL) == GRAFT_OK;
}

// The same of what was fetched: pages without a version in the index have bytes there too.
static bool sweep_cut_fetched(struct sweep_job *job, uint64_t by_lsn, uint32_t last, bool *ret_whole)
{
    struct store_key prefix = store_key_number(job->volume->number);
    struct store_key from = store_key_fetched(job->volume->number, job->at.cut_page, job->at.cut_version);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(job->volume->store->fetched, FETCHED_ARRIVED, &prefix);
    store_scan_seek(scan, &from);
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        uint32_t pageidx;
        uint64_t mark_lsn;
        if (!store_key_parse_fetched(rocks_iter_key(scan->iterator), &pageidx, &mark_lsn))
            return false;
        if (pageidx > last)
            break;
        job->at.cut_page = pageidx;
        job->at.cut_version = mark_lsn;
        if (job->budget == 0)
            return true;
        job->budget--;
        if (mark_lsn >= by_lsn)
            continue;
        if (is_pinned(job, mark_lsn, by_lsn))
            job->at.cut_kept = true;
        else
            remove_fetched(job, pageidx, mark_lsn);
    }
    *ret_whole = true;
    return rocks_iter_status(scan->iterator, "removing pages cut off", NULL) == GRAFT_OK;
}

// Goes through one cut's pages; *ret_whole: to the end.
static bool sweep_cut(struct sweep_job *job, uint64_t by_lsn, uint32_t cut, uint32_t last, bool *ret_whole)
{
    struct store_sweep *at = &job->at;
    *ret_whole = false;
    if (at->cut_page == 0) {
        at->cut_page = cut + 1;
        at->cut_version = UINT64_MAX; // versions sort newest first
    }
    if (!at->cut_fetched) {
        bool whole = false;
        if (!sweep_cut_index(job, by_lsn, last, &whole))
            return false;
        if (!whole)
            return true;
        at->cut_fetched = true;
        at->cut_page = cut + 1;
        at->cut_version = 0; // marks sort oldest first
    }
    return sweep_cut_fetched(job, by_lsn, last, ret_whole);
}

static bool sweep_cuts(struct sweep_job *job)
{
    struct store_sweep *at = &job->at;
    if (at->cuts_from == NOTHING || job->budget == 0)
        return true;
    struct store_key from = store_key_cut(job->volume->number, at->cuts_from, 0);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = scan_superseded(job, &from);
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        uint64_t by_lsn;
        uint32_t cut;
        struct bytes key = rocks_iter_key(scan->iterator);
        struct bytes value = rocks_iter_value(scan->iterator);
        if (!store_key_parse_superseded(key, &by_lsn, &cut) || value.size != 4)
            return false;
        if (by_lsn > job->head)
            break;
        if (by_lsn != at->cuts_from) {
            at->cuts_from = by_lsn;
            at->cut_fetched = false;
            at->cut_page = 0;
            at->cut_kept = false;
        }
        if (job->budget == 0)
            return true;
        job->budget--;
        bool whole;
        if (!sweep_cut(job, by_lsn, cut, get_le32(value.data), &whole))
            return false;
        if (!whole)
            return true;
        if (!at->cut_kept)
            rocks_batch_delete(job->local, job->volume->store->local->families[FAMILY_SUPERSEDED], key);
    }
    if (rocks_iter_status(scan->iterator, "removing pages cut off", NULL) != GRAFT_OK)
        return false;
    at->cuts_from = NOTHING;
    return true;
}

// ---- sweeping

static bool take_job(struct store_volume *volume, size_t budget, struct sweep_job *ret_job)
{
    LOCK_GUARD(&volume->store->lock);
    struct store_sweep *sweep = &volume->sweep;
    if (sweep->running || (sweep->versions_from == NOTHING && sweep->cuts_from == NOTHING))
        return false;
    size_t slots = 4;
    while (slots < 2 * budget)
        slots *= 2;
    uint64_t *pins = calloc(volume->pin_count + 1, sizeof *pins);
    struct removed *removed = calloc(slots, sizeof *removed);
    if (!pins || !removed) {
        free(pins);
        free(removed);
        return false;
    }
    *ret_job = (struct sweep_job){.volume = volume,
                                  .at = *sweep,
                                  .budget = budget,
                                  .pins = pins,
                                  .removed = removed,
                                  .removed_mask = slots - 1};
    ret_job->head = volume->record.state.local_lsn;
    struct pinned_lsn *node;
    TAILQ_FOREACH (node, &volume->pins, entry) {
        pins[ret_job->pin_count++] = node->lsn;
    }
    sweep->running = true;
    sweep->versions_from = NOTHING;
    sweep->cuts_from = NOTHING;
    return true;
}

// Where others moved a start back meanwhile, theirs holds.
static void return_job(struct sweep_job *job)
{
    LOCK_GUARD(&job->volume->store->lock);
    struct store_sweep *sweep = &job->volume->sweep;
    sweep->running = false;
    if (job->at.versions_from < sweep->versions_from) {
        sweep->versions_from = job->at.versions_from;
        sweep->versions_page = job->at.versions_page;
    }
    if (job->at.cuts_from < sweep->cuts_from) {
        sweep->cuts_from = job->at.cuts_from;
        sweep->cut_fetched = job->at.cut_fetched;
        sweep->cut_page = job->at.cut_page;
        sweep->cut_version = job->at.cut_version;
        sweep->cut_kept = job->at.cut_kept;
    }
}

static bool sweep_some_locked(struct sweep_job *job)
{
    struct store *store = job->volume->store;
    bool good = sweep_versions(job) && sweep_cuts(job);
    FAILPOINT("gc.before");
    // First what can be lost: if only that is done, it will be done again.
    if (good)
        good = store_fetched_remove(store, job->volume->number, job->fetched, job->fetched_count, NULL) ==
               GRAFT_OK;
    FAILPOINT("gc.fetched");
    if (good && rocksdb_writebatch_count(job->local) > 0)
        good = store_write_changes(store, job->local, &job->changes, NULL) == GRAFT_OK;
    FAILPOINT("gc.after");
    return good;
}

// True if there is more to do at once.
static bool sweep_once(struct store_volume *volume, size_t budget)
{
    struct sweep_job job;
    if (store_check_usable(volume->store, NULL) != GRAFT_OK || !take_job(volume, budget, &job))
        return false;
    struct store_sweep before = job.at;
    job.local = rocksdb_writebatch_create();
    mutex_lock(&volume->store->places_lock);
    bool good = sweep_some_locked(&job);
    mutex_unlock(&volume->store->places_lock);
    rocksdb_writebatch_destroy(job.local);
    free(job.fetched);
    extent_changes_release(&job.changes);
    free(job.pins);
    free(job.removed);
    bool more = good && job.budget == 0;
    if (!good)
        job.at = before;
    return_job(&job);
    return more;
}

void store_sweep(struct store_volume *volume, size_t entries_max)
{
    while (entries_max > 0) {
        size_t budget = MIN(entries_max, (size_t)volume->store->batch_entries);
        entries_max -= budget;
        if (!sweep_once(volume, budget))
            return;
    }
}

// ---- forgetting cuts

static bool has_cut_entries(struct store_volume *volume)
{
    struct store_key prefix = store_key_cut(volume->number, 0, 0);
    prefix.size = 9;
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        store_scan(volume->store->local, FAMILY_SUPERSEDED, &prefix);
    rocksdb_iter_seek_to_first(scan->iterator);
    return rocksdb_iter_valid(scan->iterator) || rocks_iter_status(scan->iterator, "", NULL) != GRAFT_OK;
}

// No cut hides anything any more: the index of cuts becomes empty, and no read looks into it.
static void forget_cuts_locked(struct store_volume *volume)
{
    struct store_record next = store_volume_record(volume);
    if (next.cuts.last_lsn == 0 || has_cut_entries(volume))
        return;
    struct store *store = volume->store;
    struct store_key prefix = store_key_number(volume->number);
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(store->local, FAMILY_CUTS, &prefix);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        rocks_batch_delete(batch, store->local->families[FAMILY_CUTS], rocks_iter_key(scan->iterator));
        if (rocksdb_writebatch_count(batch) < (int)volume->store->batch_entries)
            continue;
        if (store_write(store, store->local, false, batch, NULL) != GRAFT_OK)
            return;
        rocksdb_writebatch_clear(batch);
    }
    if (rocks_iter_status(scan->iterator, "", NULL) != GRAFT_OK)
        return;
    next.cuts = (struct store_cuts){.lowest = UINT32_MAX};
    FAILPOINT("gc.cuts.before");
    store_publish_locked(volume, batch, &next, false, NULL);
    FAILPOINT("gc.cuts.after");
}

void store_sweep_after_locked(struct store_volume *volume, uint64_t lsn, size_t entries)
{
    mutex_assert_held(&volume->commit_lock);
    mutex_lock(&volume->store->lock);
    store_sweep_from_locked(volume, lsn);
    mutex_unlock(&volume->store->lock);
    store_sweep(volume, 2 * entries + 256);
    forget_cuts_locked(volume);
}
