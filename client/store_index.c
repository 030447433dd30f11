// SPDX-License-Identifier: Apache-2.0
//
// Which version of a page a pin shows, and its bytes. Versions of a page sort newest first, so one seek to
// (page, ~pin) finds the newest one at or below it; where hints know it already there is no seek at all.
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/store/cut_index.h"

// How many pages store_missing looks at before it returns to its caller.
#define MISSING_LOOKS_MAX 65536u

struct store_pin store_head_locked(struct store_volume *volume)
{
    mutex_assert_held(&volume->commit_lock);
    struct store_record record = store_volume_record(volume);
    return (struct store_pin){
        .volume = volume,
        .lsn = record.state.local_lsn,
        .page_count = record.state.page_count,
        .remote = record.state.remote,
        .floor = record.floor,
        .cuts = record.cuts,
    };
}

// ---- versions

enum graft_status store_view_open(struct store_pin *pin, struct store_view *ret_view, struct graft_error *err)
{
    struct store_volume *volume = pin->volume;
    struct rocks *local = volume->store->local;
    struct store_key prefix = store_key_number(volume->number);
    struct store_view view = {.pin = pin};
    // The cuts first: a cut is forgotten only after what it hides was removed, so an index opened later
    // cannot show what a reader of the cuts opened earlier does not know to be hidden.
    if (pin->cuts.last_lsn > 0)
        view.cuts = cut_reader_open(local->db, local->families[FAMILY_CUTS], store_key_bytes(&prefix));
    view.index = store_scan(local, FAMILY_INDEX, &prefix);
    *ret_view = view;
    return GRAFT_OK;
}

void store_view_close(struct store_view *view)
{
    rocks_scan_free(TAKE(view->index));
    cut_reader_close(TAKE(view->cuts));
}

static enum graft_status bad_entry(const struct store_volume *volume, uint32_t pageidx,
                                   struct graft_error *err)
{
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                     "volume %s, page %u: its entry in the local index is damaged",
                     gid_format(&volume->vid).text, pageidx);
}

static enum graft_status is_hidden(struct store_view *view, uint32_t pageidx, uint64_t lsn, bool *ret_hidden,
                                   struct graft_error *err)
{
    const struct store_pin *pin = view->pin;
    *ret_hidden = false;
    if (!view->cuts || lsn >= pin->cuts.last_lsn || pageidx <= pin->cuts.lowest)
        return GRAFT_OK;
    uint32_t lowest;
    enum graft_status status = cut_reader_lowest(view->cuts, lsn, pin->lsn, &lowest, err);
    if (status == GRAFT_OK)
        *ret_hidden = lowest < pageidx;
    return status;
}

// Looks in the index only. *ret_gap_end: no page in (pageidx, *ret_gap_end) has any version.
static enum graft_status find_in_index(struct store_view *view, uint32_t pageidx,
                                       struct store_found *ret_found, uint64_t *ret_gap_end,
                                       struct graft_error *err)
{
    struct store_volume *volume = view->pin->volume;
    rocksdb_iterator_t *iterator = view->index->iterator;
    struct store_key key = store_key_version(volume->number, pageidx, view->pin->lsn);
    store_scan_seek(view->index, &key);
    *ret_found = (struct store_found){.exists = false};
    *ret_gap_end = (uint64_t)PAGEIDX_MAX + 1;
    if (!rocksdb_iter_valid(iterator))
        return rocks_iter_status(iterator, "looking a page up", err);
    uint32_t found_page;
    uint64_t found_lsn;
    if (!store_key_parse_version(rocks_iter_key(iterator), &found_page, &found_lsn))
        return bad_entry(volume, pageidx, err);
    *ret_gap_end = found_page;
    if (found_page != pageidx)
        return GRAFT_OK;
    *ret_gap_end = (uint64_t)pageidx + 1;
    bool hidden;
    enum graft_status status = is_hidden(view, pageidx, found_lsn, &hidden, err);
    if (status != GRAFT_OK || hidden)
        return status;
    ret_found->exists = true;
    ret_found->lsn = found_lsn;
    if (!store_version_decode(rocks_iter_value(iterator), &ret_found->version))
        return bad_entry(volume, pageidx, err);
    return GRAFT_OK;
}

static enum graft_status find_version(struct store_view *view, uint32_t pageidx,
                                      struct store_found *ret_found, uint64_t *ret_gap_end,
                                      struct graft_error *err)
{
    enum graft_status status = find_in_index(view, pageidx, ret_found, ret_gap_end, err);
    const struct store_floor *floor = &view->pin->floor;
    if (status != GRAFT_OK || ret_found->exists || pageidx > floor->page_count)
        return status;
    *ret_found = (struct store_found){
        .exists = true,
        .lsn = floor->mark_lsn,
        .version = {.kind = STORE_VERSION_PENDING, .remote_lsn = floor->remote_lsn},
    };
    return GRAFT_OK;
}

enum graft_status store_view_find(struct store_view *view, uint32_t pageidx, struct store_found *ret_found,
                                  struct graft_error *err)
{
    uint64_t gap_end;
    return find_version(view, pageidx, ret_found, &gap_end, err);
}

// ---- bytes

static enum graft_status bad_page(const struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                  const struct store_version *version, struct graft_error *err)
{
    char where[EXTENTS_PLACE_TEXT_SIZE];
    extents_place_text(volume->store->pages, version->place, where);
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                     "volume %s, page %u, local LSN %llu: its bytes are damaged (%s)",
                     gid_format(&volume->vid).text, pageidx, (unsigned long long)lsn, where);
}

static enum graft_status get_version(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                     struct store_version *ret_version, bool *ret_exists,
                                     struct graft_error *err)
{
    struct store_key key = store_key_version(volume->number, pageidx, lsn);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = store_get(volume->store->local, FAMILY_INDEX, &key, &slice, err);
    *ret_exists = slice != NULL;
    if (status != GRAFT_OK || !slice)
        return status;
    return store_version_decode(rocks_slice(slice), ret_version) ? GRAFT_OK : bad_entry(volume, pageidx, err);
}

static bool same_version(const struct store_version *a, const struct store_version *b)
{
    return a->kind == b->kind && a->place == b->place && a->size == b->size && a->checksum == b->checksum;
}

// A pushed page is the servers' at the mapping too, unless the history up to there went on from it.
static enum graft_status servers_have(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                      uint64_t *ret_remote_lsn, struct graft_error *err)
{
    struct store_record record = store_volume_record(volume);
    *ret_remote_lsn = 0;
    if (lsn > record.state.mapped_lsn || pageidx > record.state.remote.page_count)
        return GRAFT_OK;
    struct store_pin mapping = {.volume = volume,
                                .lsn = record.state.mapped_lsn,
                                .page_count = record.state.remote.page_count,
                                .floor = record.floor,
                                .cuts = record.cuts};
    _cleanup_(store_view_close) struct store_view view = {.pin = &mapping};
    struct store_found found;
    enum graft_status status = store_view_open(&mapping, &view, err);
    if (status == GRAFT_OK)
        status = store_view_find(&view, pageidx, &found, err);
    if (status == GRAFT_OK && found.exists && found.lsn == lsn)
        *ret_remote_lsn = record.state.remote.lsn;
    return status;
}

// A page went bad. *ret_remote_lsn: where it is pending now; 0: nobody else has it.
static enum graft_status make_pending_locked(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                             const struct store_version *bad, uint64_t *ret_remote_lsn,
                                             struct graft_error *err)
{
    struct store *store = volume->store;
    enum graft_status status = servers_have(volume, pageidx, lsn, ret_remote_lsn, err);
    if (status != GRAFT_OK || *ret_remote_lsn == 0)
        return status;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    _cleanup_(extent_changes_release) struct extent_changes changes = {.count = 0};
    struct store_key key = store_key_version(volume->number, pageidx, lsn);
    struct store_version pending = {.kind = STORE_VERSION_PENDING, .remote_lsn = *ret_remote_lsn};
    uint8_t value[STORE_VERSION_SIZE_MAX];
    size_t size = store_version_encode(&pending, value);
    store_put(store->local, batch, FAMILY_INDEX, &key, (struct bytes){value, size});
    extent_changes_add(&changes, bad->place, -(int64_t)bad->size);
    status = store_write_changes(store, batch, &changes, err);
    if (status == GRAFT_OK)
        store_counts_fetched_locked(volume, &(struct store_counted){pageidx, lsn, STORE_PAGE_PENDING}, 1);
    return status;
}

// What a page that is bad where `version` said is to be taken for: *ret_version is what the index says now.
static enum graft_status look_again(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                    const struct store_version *version, struct store_version *ret_version,
                                    struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    mutex_lock(&volume->store->places_lock);
    bool exists;
    uint64_t remote_lsn = 0;
    enum graft_status status = get_version(volume, pageidx, lsn, ret_version, &exists, err);
    if (status == GRAFT_OK && (!exists || same_version(ret_version, version))) {
        status = exists ? make_pending_locked(volume, pageidx, lsn, version, &remote_lsn, err) : GRAFT_OK;
        if (status == GRAFT_OK && remote_lsn == 0)
            status = bad_page(volume, pageidx, lsn, version, err);
        *ret_version = (struct store_version){.kind = STORE_VERSION_PENDING, .remote_lsn = remote_lsn};
    }
    mutex_unlock(&volume->store->places_lock);
    return status;
}

static enum graft_status read_place(struct store_volume *volume, uint32_t pageidx,
                                    const struct store_version *version, void *to, bool *ret_good,
                                    struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    *ret_good = version->size <= volume->page_size;
    if (*ret_good && version->size > 0)
        status = extents_read(volume->store->pages, version->place, to, version->size, err);
    if (status == GRAFT_CORRUPT)
        *ret_good = false;
    else if (status != GRAFT_OK)
        return error_context(err, status, "volume %s, page %u", gid_format(&volume->vid).text, pageidx);
    *ret_good = *ret_good &&
                checksum_matches(version->checksum, page_checksum(&volume->vid, pageidx, to, version->size));
    return GRAFT_OK;
}

// Between the look-up and the read the cleaner may have moved the page, and the place may hold another by now. So bytes
// that are not the version's are looked up again, and are damage only where the index still points.
static enum graft_status read_local(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                    struct store_version version, void *to, struct store_page *ret_page,
                                    struct store_hint *ret_at, struct graft_error *err)
{
    bool good = false;
    while (version.kind == STORE_VERSION_AVAILABLE) {
        enum graft_status status = read_place(volume, pageidx, &version, to, &good, err);
        if (status != GRAFT_OK)
            return status;
        if (good) {
            *ret_page =
                (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_AVAILABLE, .size = version.size};
            if (ret_at)
                *ret_at = (struct store_hint){
                    .place = version.place, .size = version.size, .checksum = version.checksum};
            return GRAFT_OK;
        }
        struct store_version now;
        status = look_again(volume, pageidx, lsn, &version, &now, err);
        if (status != GRAFT_OK)
            return status;
        version = now;
    }
    return store_read_version(volume, pageidx, lsn, &version, to, ret_page, ret_at, err);
}

enum graft_status store_read_indexed(struct store_volume *volume, uint32_t pageidx, uint64_t lsn, void *to,
                                     struct store_page *ret_page, struct graft_error *err)
{
    struct store_version version;
    bool exists;
    enum graft_status status = get_version(volume, pageidx, lsn, &version, &exists, err);
    if (status == GRAFT_OK && !exists)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "volume %s, page %u, local LSN %llu: the local index lost it",
                         gid_format(&volume->vid).text, pageidx, (unsigned long long)lsn);
    return status == GRAFT_OK ? store_read_version(volume, pageidx, lsn, &version, to, ret_page, NULL, err)
                              : status;
}

static enum graft_status read_fetched(struct store_volume *volume, uint32_t pageidx, uint64_t mark_lsn,
                                      uint64_t remote_lsn, void *to, struct store_page *ret_page,
                                      struct store_hint *ret_at, struct graft_error *err)
{
    struct store_arrived arrived;
    bool found;
    enum graft_status status =
        store_fetched_read(volume, pageidx, mark_lsn, remote_lsn, to, &arrived, &found, err);
    if (status != GRAFT_OK)
        return status;
    if (!found) {
        *ret_page =
            (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_PENDING, .mark_lsn = mark_lsn};
        return GRAFT_OK;
    }
    *ret_page = (struct store_page){.pageidx = pageidx,
                                    .state = arrived.empty ? STORE_PAGE_EMPTY : STORE_PAGE_AVAILABLE,
                                    .size = arrived.size};
    if (ret_at)
        *ret_at = (struct store_hint){.remote_lsn = remote_lsn,
                                      .place = arrived.place,
                                      .size = arrived.empty ? STORE_HINT_EMPTY : arrived.size,
                                      .checksum = arrived.checksum};
    return GRAFT_OK;
}

enum graft_status store_read_version(struct store_volume *volume, uint32_t pageidx, uint64_t lsn,
                                     const struct store_version *version, void *to,
                                     struct store_page *ret_page, struct store_hint *ret_at,
                                     struct graft_error *err)
{
    if (version->kind == STORE_VERSION_AVAILABLE)
        return read_local(volume, pageidx, lsn, *version, to, ret_page, ret_at, err);
    return read_fetched(volume, pageidx, lsn, version->remote_lsn, to, ret_page, ret_at, err);
}

// ---- where to ask

// Servers keep history only so long, so a version is asked for at the newest remote commit known to hold it:
// the mapping of the head, if the page has not changed up to there, else that of the pin. The head is pinned
// meanwhile, or what changed the page could be removed while we look, and an older version be taken for the
// head's.
struct asker {
    struct store_pin *pin;
    struct store_pin *head; // NULL: the pin's mapping is the newest
    struct store_view view; // of head
};

static enum graft_status asker_open(struct asker *asker, struct store_pin *pin, struct graft_error *err)
{
    *asker = (struct asker){.pin = pin};
    struct store_pin *head;
    enum graft_status status = store_pin_open(pin->volume, &head, err);
    if (status != GRAFT_OK)
        return status;
    if (head->remote.lsn <= pin->remote.lsn) {
        store_pin_release(head);
        return GRAFT_OK;
    }
    asker->head = head;
    return store_view_open(head, &asker->view, err);
}

static void asker_close(struct asker *asker)
{
    if (!asker->head)
        return;
    store_view_close(&asker->view);
    store_pin_release(TAKE(asker->head));
}

static enum graft_status asker_ask(struct asker *asker, struct store_page *page, struct graft_error *err)
{
    page->ask = asker->pin->remote;
    if (!asker->head || page->pageidx > asker->head->page_count)
        return GRAFT_OK;
    struct store_found found;
    enum graft_status status = store_view_find(&asker->view, page->pageidx, &found, err);
    if (status == GRAFT_OK && found.exists && found.lsn == page->mark_lsn)
        page->ask = asker->head->remote;
    return status;
}

// ---- reading

// What a hint says, if it still holds: bytes that were moved are looked up.
static bool read_hinted(struct store_pin *pin, uint32_t pageidx, void *to, struct store_page *ret_page)
{
    struct store_volume *volume = pin->volume;
    struct store_hint hint;
    bool good = false;
    if (!store_hints_get(volume->store->hints, volume->number, pageidx, pin->lsn, &hint))
        return false;
    if (hint.size == STORE_HINT_EMPTY) {
        *ret_page = (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_EMPTY};
        return true;
    }
    if (hint.remote_lsn > 0) {
        struct store_arrived arrived = {.size = hint.size, .place = hint.place, .checksum = hint.checksum};
        good = store_fetched_load(volume, pageidx, &arrived, to);
    } else {
        struct store_version version = {.size = hint.size, .place = hint.place, .checksum = hint.checksum};
        if (read_place(volume, pageidx, &version, to, &good, NULL) != GRAFT_OK)
            good = false;
    }
    if (good)
        *ret_page = (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_AVAILABLE, .size = hint.size};
    return good;
}

static enum graft_status read_found(struct store_pin *pin, uint32_t pageidx, const struct store_found *found,
                                    void *to, struct store_page *ret_page, struct graft_error *err)
{
    struct store_volume *volume = pin->volume;
    struct store_page page;
    struct store_hint hint;
    enum graft_status status =
        store_read_version(volume, pageidx, found->lsn, &found->version, to, &page, &hint, err);
    if (status != GRAFT_OK)
        return status;
    if (page.state == STORE_PAGE_PENDING) {
        struct asker asker;
        status = asker_open(&asker, pin, err);
        if (status == GRAFT_OK)
            status = asker_ask(&asker, &page, err);
        asker_close(&asker);
        if (status != GRAFT_OK)
            return status;
    } else {
        hint.number = volume->number;
        hint.lsn = found->lsn;
        hint.upto = pin->lsn;
        hint.pageidx = pageidx;
        store_hints_put(volume->store->hints, &hint);
    }
    *ret_page = page;
    return GRAFT_OK;
}

enum graft_status store_read(struct store_pin *pin, uint32_t pageidx, void *to, size_t to_size,
                             struct store_page *ret_page, struct graft_error *err)
{
    struct store_volume *volume = pin->volume;
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    if (pageidx == 0 || to_size < volume->page_size)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "reading page %u into %zu bytes: pages are numbered from 1 and need %u bytes",
                         pageidx, to_size, volume->page_size);
    if (pageidx > pin->page_count) {
        *ret_page = (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_EMPTY};
        return GRAFT_OK;
    }
    if (read_hinted(pin, pageidx, to, ret_page))
        return GRAFT_OK;

    _cleanup_(store_view_close) struct store_view view = {.pin = pin};
    status = store_view_open(pin, &view, err);
    struct store_found found;
    if (status == GRAFT_OK)
        status = store_view_find(&view, pageidx, &found, err);
    if (status != GRAFT_OK)
        return status;
    if (!found.exists) {
        *ret_page = (struct store_page){.pageidx = pageidx, .state = STORE_PAGE_EMPTY};
        return GRAFT_OK;
    }
    return read_found(pin, pageidx, &found, to, ret_page, err);
}

// ---- what is missing

struct missing {
    struct store_view view;
    struct asker asker;
    struct store_page *to;
    size_t to_max, count;
    unsigned looks;
};

// Looks at the pages of a run until the run, the room or the looks end. *ret_next is the first page not
// looked at.
static enum graft_status missing_in_run(struct missing *missing, uint64_t first, uint64_t end,
                                        uint64_t *ret_next, struct graft_error *err)
{
    const struct store_pin *pin = missing->view.pin;
    uint64_t page = first;
    while (page < end && missing->count < missing->to_max && missing->looks < MISSING_LOOKS_MAX) {
        missing->looks++;
        struct store_found found;
        uint64_t gap_end;
        enum graft_status status = find_version(&missing->view, (uint32_t)page, &found, &gap_end, err);
        if (status != GRAFT_OK)
            return status;
        if (!found.exists) {
            page = gap_end;
            continue;
        }
        bool arrived = true;
        struct store_arrived there;
        if (found.version.kind == STORE_VERSION_PENDING)
            status = store_fetched_find(pin->volume, (uint32_t)page, found.lsn, found.version.remote_lsn,
                                        &there, &arrived, err);
        if (status == GRAFT_OK && !arrived) {
            struct store_page *to = &missing->to[missing->count++];
            *to = (struct store_page){
                .pageidx = (uint32_t)page, .state = STORE_PAGE_PENDING, .mark_lsn = found.lsn};
            status = asker_ask(&missing->asker, to, err);
        }
        if (status != GRAFT_OK)
            return status;
        page++;
    }
    *ret_next = page;
    return GRAFT_OK;
}

static enum graft_status missing_run(struct missing *missing, const struct pageset *pages, uint32_t *cursor,
                                     struct graft_error *err)
{
    uint64_t next = *cursor;
    struct pageset_cursor runs = pageset_cursor(pages);
    runs.next = next;
    struct page_run run;
    while (pageset_next_run(&runs, &run)) {
        uint64_t end = MIN((uint64_t)run.first + run.count, (uint64_t)missing->view.pin->page_count + 1);
        uint64_t first = MAX((uint64_t)run.first, next);
        if (run.first > missing->view.pin->page_count)
            break;
        enum graft_status status = missing_in_run(missing, first, end, &next, err);
        if (status != GRAFT_OK)
            return status;
        if (next < end) {
            *cursor = (uint32_t)next;
            return GRAFT_OK;
        }
    }
    *cursor = 0;
    return GRAFT_OK;
}

enum graft_status store_missing(struct store_pin *pin, const struct pageset *pages, uint32_t *cursor,
                                struct store_page *to, size_t to_max, size_t *ret_count,
                                struct graft_error *err)
{
    CHECK(*cursor > 0 && to_max > 0);
    enum graft_status status = store_check_usable(pin->volume->store, err);
    if (status != GRAFT_OK)
        return status;
    struct missing missing = {.to = to, .to_max = to_max};
    status = asker_open(&missing.asker, pin, err);
    if (status == GRAFT_OK)
        status = store_view_open(pin, &missing.view, err);
    if (status == GRAFT_OK)
        status = missing_run(&missing, pages, cursor, err);
    store_view_close(&missing.view);
    asker_close(&missing.asker);
    if (status == GRAFT_OK)
        *ret_count = missing.count;
    return status;
}
