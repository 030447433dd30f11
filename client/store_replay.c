// SPDX-License-Identifier: Apache-2.0
//
// What an opening finds in the log that the index does not know: applied run by run, through the functions that a live
// commit uses.
//
//     run below the head's next LSN   the index has it
//     run of the next LSN             not complete: staged, as its writer had done; complete: published
//     run above that                  a commit between was damaged: published with a gap, and the volume is corrupt
//     run of an unknown volume        was deleted, or is a fork that never came to be
//
// A commit's runs count up from part 0; part 0 anew means that its writer gave up and another wrote at the same LSN. What
// is staged in the index already is told by the sequence number in its note.
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/check.h"

// A volume that the log speaks of.
struct replayed {
    UT_hash_handle hh;
    uint64_t number;
    struct store_volume *volume; // NULL: there is none, or its record is damaged
    bool loaded;                 // `staged` is what the index has
    struct store_staged staged;
};

struct replay {
    struct store *store;
    struct replayed *volumes;
    uint64_t lost_from, lost_to; // sequence numbers of runs that cannot be read; 0: none
};

static void replay_release(struct replay *replay)
{
    struct replayed *item, *next;
    HASH_ITER (hh, replay->volumes, item, next) {
        HASH_DEL(replay->volumes, item);
        store_staged_release(&item->staged);
        store_volume_close(item->volume);
        free(item);
    }
}

static enum graft_status open_numbered(struct store *store, uint64_t number, struct store_volume **ret_volume,
                                       struct graft_error *err)
{
    bool exists;
    struct gid vid;
    enum graft_status status = store_find_vid(store, number, &exists, &vid, err);
    if (status != GRAFT_OK || !exists)
        return status;
    status = store_volume_open(store, &vid, ret_volume, err);
    // A damaged record harms no other volume.
    return status == GRAFT_CORRUPT || status == GRAFT_NOT_FOUND ? GRAFT_OK : status;
}

static enum graft_status find(struct replay *replay, uint64_t number, struct replayed **ret_item,
                              struct graft_error *err)
{
    struct replayed *item = NULL;
    HASH_FIND(hh, replay->volumes, &number, sizeof number, item);
    if (!item) {
        item = calloc(1, sizeof *item);
        if (!item)
            return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the replay");
        item->number = number;
        HASH_ADD(hh, replay->volumes, number, sizeof item->number, item);
        enum graft_status status = open_numbered(replay->store, number, &item->volume, err);
        if (status != GRAFT_OK)
            return status;
    }
    *ret_item = item;
    return GRAFT_OK;
}

// ---- one run

static enum graft_status bad_run(const struct page_log_run *run, struct graft_error *err)
{
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                     "run %llu of the page log names pages that its volume cannot have",
                     (unsigned long long)run->header.seq);
}

static enum graft_status check_entry(const struct store_volume *volume, const struct page_log_run *run,
                                     const struct run_entry *entry, uint32_t before, struct graft_error *err)
{
    bool sized =
        volume->kind == GRAFT_FIXED ? entry->size == volume->page_size : entry->size <= volume->page_size;
    if (!sized || entry->number != volume->number || entry->lsn != run->header.lsn ||
        entry->pageidx <= before)
        return bad_run(run, err);
    return GRAFT_OK;
}

static enum graft_status supersede_all(struct store_change *change, const struct page_log_run *run,
                                       struct pageset *list, struct graft_error *err)
{
    uint32_t before = 0;
    for (uint32_t i = 0; i < run->header.count; i++) {
        struct run_entry entry = run_entry_at(run->bytes, i);
        enum graft_status status = check_entry(change->volume, run, &entry, before, err);
        if (status == GRAFT_OK)
            status = store_change_supersede(change, entry.pageidx, err);
        if (status != GRAFT_OK)
            return status;
        pageset_add(list, entry.pageidx);
        before = entry.pageidx;
    }
    return GRAFT_OK;
}

static enum graft_status index_all_locked(struct replayed *item, struct store_change *change,
                                          const struct page_log_run *run, struct graft_error *err)
{
    uint32_t end = run_header_size(run->header.count);
    for (uint32_t i = 0; i < run->header.count; i++) {
        struct run_entry entry = run_entry_at(run->bytes, i);
        uint32_t offset = run_page_offset(end, entry.size);
        end = offset + entry.size;
        if (pageset_contains(item->staged.pages, entry.pageidx)) {
            enum graft_status status = store_change_replace(change, entry.pageidx, err);
            if (status != GRAFT_OK)
                return status;
        }
        struct store_version version = {.kind = STORE_VERSION_AVAILABLE,
                                        .size = entry.size,
                                        .place = run->place + offset,
                                        .checksum = entry.checksum};
        store_change_page(change, entry.pageidx, &version);
    }
    return GRAFT_OK;
}

static enum graft_status stage(struct replayed *item, const struct page_log_run *run, struct graft_error *err)
{
    struct store_volume *volume = item->volume;
    _cleanup_(store_change_release) struct store_change change = {.volume = volume};
    _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
    enum graft_status status = store_change_init(&change, volume, run->header.lsn, UINT32_MAX, 0, err);
    if (status == GRAFT_OK)
        status = supersede_all(&change, run, list, err);
    if (status == GRAFT_OK)
        status = store_change_part(&change, item->staged.lists + 1, 0, 0, list, err);
    if (status != GRAFT_OK)
        return status;
    struct store_staging note = {.lsn = run->header.lsn,
                                 .runs = item->staged.runs + 1,
                                 .seq = run->header.seq,
                                 .cut = item->staged.cut};
    store_change_note_staging(&change, &note);
    LOCK_GUARD(&volume->store->places_lock);
    status = index_all_locked(item, &change, run, err);
    if (status == GRAFT_OK)
        status = store_change_stage(&change, err);
    if (status != GRAFT_OK)
        return status;
    pageset_union(item->staged.pages, list);
    item->staged.lists++;
    item->staged.runs++;
    item->staged.seq = run->header.seq;
    return GRAFT_OK;
}

// ---- the head moves

static void note_gap(struct store_record *next, const struct replay *replay, uint64_t from, uint64_t to)
{
    next->state.status = GRAFT_VOLUME_CORRUPT;
    error_set(
        &next->state.status_error, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
        "the local commits %llu to %llu are lost: their runs in the page log (%llu to %llu) are damaged",
        (unsigned long long)from, (unsigned long long)to, (unsigned long long)replay->lost_from,
        (unsigned long long)replay->lost_to);
}

static struct store_record record_after(const struct replay *replay, const struct replayed *item,
                                        const struct page_log_run *run, uint32_t cut, bool whole)
{
    struct store_record next = store_volume_record(item->volume);
    uint64_t head = next.state.local_lsn;
    uint64_t lsn = run->header.lsn;
    if (!whole)
        note_gap(&next, replay, head + 1, lsn > head + 1 ? lsn - 1 : lsn);
    if (cut < next.state.page_count)
        store_record_cut(&next, lsn, cut);
    next.state.local_lsn = lsn;
    next.state.page_count = run->header.page_count;
    return next;
}

// Of a commit of which a part is missing, only what is there is published.
static enum graft_status publish(struct replay *replay, struct replayed *item, const struct page_log_run *run,
                                 bool whole, struct graft_error *err)
{
    struct store_volume *volume = item->volume;
    uint32_t before = store_volume_record(volume).state.page_count;
    uint32_t cut = MIN(item->staged.cut, before);
    struct store_record next = record_after(replay, item, run, cut, whole);
    _cleanup_(store_change_release) struct store_change change = {.volume = volume};
    _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
    enum graft_status status =
        store_change_init(&change, volume, run->header.lsn, cut < before ? cut : UINT32_MAX, before, err);
    if (status == GRAFT_OK)
        status = supersede_all(&change, run, list, err);
    if (status == GRAFT_OK)
        status = store_change_part(&change, 0, run->header.page_count, cut, list, err);
    if (status == GRAFT_OK)
        status = store_staged_end(&item->staged, &change, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&volume->store->places_lock);
    status = index_all_locked(item, &change, run, err);
    return status == GRAFT_OK ? store_change_publish(&change, &next, false, err) : status;
}

static void forget_staged(struct replayed *item)
{
    store_staged_release(&item->staged);
    item->staged = (struct store_staged){.pages = pageset_new(), .cut = UINT32_MAX};
}

// Brings what is staged to where this run begins. *ret_whole: every run before it is there.
static enum graft_status line_up(struct replayed *item, const struct page_log_run *run, bool *ret_whole,
                                 struct graft_error *err)
{
    struct store_volume *volume = item->volume;
    uint64_t head = store_volume_record(volume).state.local_lsn;
    enum graft_status status = GRAFT_OK;
    bool another = run->header.part == 0 || run->header.lsn > head + 1;
    // The note alone, too: lists go before it, and a crash may have come between.
    if (status == GRAFT_OK && another && item->staged.runs > 0) {
        status = store_drop_staged_locked(volume, err);
        if (status == GRAFT_OK)
            forget_staged(item);
    }
    if (status != GRAFT_OK)
        return status;
    *ret_whole = run->header.lsn == head + 1 && run->header.part == item->staged.runs;
    status = store_staged_cut_locked(&item->staged, volume, run->header.lsn, run->header.cut, err);
    item->staged.cut = MIN(item->staged.cut, run->header.cut);
    return status;
}

static enum graft_status apply_locked(struct replay *replay, struct replayed *item,
                                      const struct page_log_run *run, struct graft_error *err)
{
    uint64_t head = store_volume_record(item->volume).state.local_lsn;
    bool whole;
    enum graft_status status = GRAFT_OK;
    if (run->header.lsn <= head)
        return GRAFT_OK;
    if (!item->loaded) {
        status = store_staged_load(item->volume, head + 1, &item->staged, err);
        item->loaded = status == GRAFT_OK;
    }
    if (status != GRAFT_OK || run->header.seq <= item->staged.seq)
        return status;
    status = line_up(item, run, &whole, err);
    if (status != GRAFT_OK)
        return status;
    // Parts of a commit that was given up, the first of which are no longer in the claims.
    if (!run->header.complete)
        return whole ? stage(item, run, err) : GRAFT_OK;
    status = publish(replay, item, run, whole, err);
    if (status == GRAFT_OK)
        forget_staged(item);
    return status;
}

static enum graft_status visit(void *context, const struct page_log_run *run, struct graft_error *err)
{
    struct replay *replay = context;
    struct replayed *item;
    if (run->header.kind != RUN_COMMIT)
        return GRAFT_OK;
    enum graft_status status = find(replay, run->header.number, &item, err);
    if (status != GRAFT_OK || !item->volume)
        return status;
    LOCK_GUARD(&item->volume->commit_lock);
    return apply_locked(replay, item, run, err);
}

// ---- what the log asks

static bool verify(void *context, const struct run_entry *entry, const void *data)
{
    struct replay *replay = context;
    struct replayed *item;
    if (find(replay, entry->number, &item, NULL) != GRAFT_OK || !item->volume)
        return true;
    return checksum_matches(entry->checksum,
                            page_checksum(&item->volume->vid, entry->pageidx, data, entry->size));
}

// A run whose header can be read is visited as well: its pages have their checksums, and a bad one is found by its reader.
static void damaged(void *context, const struct page_log_run *run, uint64_t missing_from, uint64_t missing_to,
                    const char *where)
{
    struct replay *replay = context;
    if (run)
        return;
    replay->lost_from = replay->lost_from ? replay->lost_from : missing_from;
    replay->lost_to = missing_to;
}

enum graft_status store_replay(struct store *store, const struct page_log_claims *claims,
                               struct graft_error *err)
{
    _cleanup_(replay_release) struct replay replay = {.store = store};
    struct page_log_replay order = {.store = store->log_store,
                                    .claims = claims,
                                    .context = &replay,
                                    .verify = verify,
                                    .visit = visit,
                                    .damaged = damaged};
    enum graft_status status = page_log_replay(store->pages, &order, err);
    return status == GRAFT_OK ? status : error_context(err, status, "replaying the page log");
}
