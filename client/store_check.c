// SPDX-License-Identifier: Apache-2.0
//
// The check goes both ways, in memory that does not grow with the number of pages.
//
//     1. the index, once:     live bytes of each extent, summed up, against its counter
//     2. each extent's runs:  every page that a header names is looked up; if the index has it there its bytes are verified,
//                             otherwise it is dead
//     3. where the live bytes found by 2 are not those of 1, the index once more: which of its versions there no header
//                             names, and whether their bytes are sound all the same
//
// 1 to 3 see one snapshot of the index. The files move on: a version that was removed, moved or evicted since may lie there
// no longer. So what looks damaged is looked up again in the index as it is now, and counts only if that still has it there.
#include "client/store_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/page_log.h"
#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/checksum.h"

#define PLACE_GRAIN 8u // pages start at multiples of it
#define PROGRESS_SIZE (8 * MIB)

// A page's version as an index names it.
struct located {
    uint64_t number;
    uint64_t lsn; // local; of a fetched page its mark's
    uint64_t place;
    uint64_t checksum;
    uint32_t pageidx;
    uint32_t size;
};

struct extent_sums {
    uint64_t index;  // live bytes that the index names
    uint64_t walked; // of those, found under a run's header
};

// One of the two sets of page files, with its index.
struct side {
    struct store *store;
    struct extents *extents;
    struct rocks *rocks;
    unsigned index_family, extents_family;
    bool fetched;
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *read; // at the snapshot
    uint32_t end;                // extents that there were
    struct extent_sums *sums;    // `end` of them
};

// The volume that was looked at last.
struct owner {
    uint64_t number; // 0: none
    bool known;      // the rest is; otherwise it is being deleted
    struct gid vid;
    uint64_t mapped_lsn;
};

struct checking {
    const struct store_check_sink *sink;
    struct graft_local_counts counts;
    struct owner owner;
    uint8_t *extent; // EXTENT_SIZE: the one being walked
    bool readable;   // all of it could be read; else page by page
    uint64_t done, total;
};

// ---- what is found --------------------------------------------------------------------------------------------------

struct where {
    char file[512];
    uint64_t offset;
};

static struct where where_is(const struct side *side, uint64_t place)
{
    struct where where;
    uint32_t extent = place_extent(place);
    snprintf(where.file, sizeof where.file, "%s/%s/%08x", side->store->directory,
             side->fetched ? "cache" : "pages", extent / EXTENTS_PER_FILE);
    where.offset = (uint64_t)(extent % EXTENTS_PER_FILE) * EXTENT_SIZE + place_offset(place);
    return where;
}

static void tell(struct checking *checking, const struct graft_local_damage *damage)
{
    checking->counts.damaged++;
    if (checking->sink->damaged)
        checking->sink->damaged(checking->sink->context, damage);
}

static void tell_page(struct checking *checking, const struct side *side, const struct located *page,
                      const char *what)
{
    struct where where = where_is(side, page->place);
    struct gid_text vid = gid_format(&checking->owner.vid);
    struct graft_error why;
    struct graft_local_damage damage = {
        .vid = vid.text,
        .pageidx = page->pageidx,
        .local_lsn = page->lsn,
        .file = where.file,
        .offset = where.offset,
        .fetchable = side->fetched || page->lsn <= checking->owner.mapped_lsn,
        .why = &why,
    };
    error_set(&why, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
              "volume %s, page %" PRIu32 ", local LSN %" PRIu64 ": %s (file %s, offset %" PRIu64 ")%s",
              vid.text, page->pageidx, page->lsn, what, where.file, where.offset,
              damage.fetchable ? "; the servers have it" : "");
    tell(checking, &damage);
}

static void tell_place(struct checking *checking, const struct side *side, uint64_t place, const char *format,
                       ...) _printf_(4, 5);
static void tell_place(struct checking *checking, const struct side *side, uint64_t place, const char *format,
                       ...)
{
    struct where where = where_is(side, place);
    struct graft_error why;
    struct graft_local_damage damage = {
        .file = where.file, .offset = where.offset, .fetchable = side->fetched, .why = &why};
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    error_set(&why, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "file %s, offset %" PRIu64 ": %s", where.file,
              where.offset, what);
    tell(checking, &damage);
}

static void tell_entry(struct checking *checking, const char *family, const char *what)
{
    struct graft_error why;
    struct graft_local_damage damage = {.why = &why};
    error_set(&why, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE, "the local store's family %s: %s", family, what);
    tell(checking, &damage);
}

static void note_progress(struct checking *checking, uint64_t size)
{
    uint64_t before = checking->done / PROGRESS_SIZE;
    checking->done += size;
    if (checking->sink->progress && checking->done / PROGRESS_SIZE != before)
        checking->sink->progress(checking->sink->context, checking->done, checking->total);
}

// ---- the index ------------------------------------------------------------------------------------------------------

static struct store_key key_of(const struct side *side, const struct located *page)
{
    return side->fetched ? store_key_fetched(page->number, page->pageidx, page->lsn)
                         : store_key_version(page->number, page->pageidx, page->lsn);
}

// False: the entry has no bytes in page files, or (*ret_bad) is none.
static bool locate(const struct side *side, struct bytes key, struct bytes value, struct located *ret_page,
                   bool *ret_bad)
{
    struct located page = {.number = 0};
    bool here,
        parsed = key.size > 8 && (side->fetched ? store_key_parse_fetched(key, &page.pageidx, &page.lsn)
                                                : store_key_parse_version(key, &page.pageidx, &page.lsn));
    if (side->fetched) {
        struct store_arrived arrived;
        parsed = parsed && store_arrived_decode(value, &arrived);
        here = parsed && !arrived.empty && arrived.size > 0;
        if (here) {
            page.place = arrived.place;
            page.size = arrived.size;
            page.checksum = arrived.checksum;
        }
    } else {
        struct store_version version;
        parsed = parsed && store_version_decode(value, &version);
        here = parsed && version.kind == STORE_VERSION_AVAILABLE && version.size > 0;
        if (here) {
            page.place = version.place;
            page.size = version.size;
            page.checksum = version.checksum;
        }
    }
    *ret_bad = !parsed;
    if (!here)
        return false;
    page.number = get_be64(key.data);
    *ret_page = page;
    return true;
}

// Does the index have this version at this place: as of the snapshot, or with `now` as it is at this moment?
static enum graft_status is_at(const struct side *side, const struct located *page, bool now, bool *ret_is,
                               struct located *ret_located, struct graft_error *err)
{
    struct store_key key = key_of(side, page);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    bool bad;
    *ret_is = false;
    enum graft_status status =
        rocks_get(side->rocks->db, side->rocks->families[side->index_family],
                  now ? side->rocks->read : side->read, store_key_bytes(&key), &value, err);
    if (status == GRAFT_OK && value &&
        locate(side, store_key_bytes(&key), rocks_slice(value), ret_located, &bad))
        *ret_is = ret_located->place == page->place;
    return status;
}

static enum graft_status find_owner(struct checking *checking, const struct side *side, uint64_t number,
                                    struct graft_error *err)
{
    struct owner *owner = &checking->owner;
    if (owner->number == number)
        return GRAFT_OK;
    *owner = (struct owner){.number = 0};
    struct store *store = side->store;
    struct store_key key = store_key_vid(number);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *vid = NULL;
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    enum graft_status status = store_get(store->local, FAMILY_VOLUMES, &key, &vid, err);
    if (status != GRAFT_OK)
        return status;
    if (!vid) {
        owner->number = number;
        return GRAFT_OK;
    }
    status = gid_from_bytes(rocks_slice(vid), GID_VOLUME, "vid", &owner->vid, err);
    if (status != GRAFT_OK)
        return status;
    struct store_record record;
    key = store_key_volume(&owner->vid);
    status = store_get(store->local, FAMILY_VOLUMES, &key, &value, err);
    if (status == GRAFT_OK && value)
        status = store_record_decode(rocks_slice(value), &owner->vid, &record, err);
    if (status != GRAFT_OK)
        return status;
    // A fork that is being made has a VID already and no record.
    owner->mapped_lsn = value ? record.state.mapped_lsn : 0;
    owner->known = true;
    owner->number = number;
    return GRAFT_OK;
}

// ---- one page -------------------------------------------------------------------------------------------------------

static bool is_sound(const struct checking *checking, const struct located *page, const uint8_t *bytes)
{
    return checksum_matches(page->checksum,
                            page_checksum(&checking->owner.vid, page->pageidx, bytes, page->size));
}

// The bytes as they are now. NULL in *ret_why: they are those of the version.
static enum graft_status read_page(struct checking *checking, const struct side *side,
                                   const struct located *page, const char **ret_why, struct graft_error *err)
{
    uint8_t bytes[PAGE_SIZE_MAX];
    struct graft_error why;
    enum graft_status status = extents_read(side->extents, page->place, bytes, page->size, &why);
    *ret_why = NULL;
    if (status == GRAFT_CORRUPT)
        *ret_why = "its place is not in the files";
    else if (status != GRAFT_OK && why.detail == GRAFT_DETAIL_IO)
        *ret_why = "the disk cannot read it";
    else if (status != GRAFT_OK)
        return error_copy(err, &why);
    else if (!is_sound(checking, page, bytes))
        *ret_why = "its checksum does not match";
    return GRAFT_OK;
}

// What is wrong counts if the index still has the version there when that is seen once more.
static enum graft_status verify(struct checking *checking, const struct side *side,
                                const struct located *page, bool *ret_sound, struct graft_error *err)
{
    const char *why;
    bool is;
    struct located now;
    *ret_sound = true;
    enum graft_status status = find_owner(checking, side, page->number, err);
    if (status != GRAFT_OK || !checking->owner.known)
        return status; // of a deleted volume: nobody reads it
    if (checking->readable && is_sound(checking, page, checking->extent + place_offset(page->place)))
        return GRAFT_OK;
    status = read_page(checking, side, page, &why, err);
    if (status == GRAFT_OK && why)
        status = is_at(side, page, true, &is, &now, err);
    if (status != GRAFT_OK || !why || !is)
        return status;
    status = read_page(checking, side, page, &why, err);
    if (status == GRAFT_OK && why) {
        *ret_sound = false;
        tell_page(checking, side, page, why);
    }
    return status;
}

// ---- 1: the index and its counters ----------------------------------------------------------------------------------

static enum graft_status sum_up(struct checking *checking, struct side *side, struct graft_error *err)
{
    struct bytes everything = {.size = 0};
    const char *family = side->fetched ? "arrived" : "index";
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = rocks_scan_new(
        side->rocks->db, side->rocks->families[side->index_family], everything, side->snapshot);
    rocksdb_iterator_t *iterator = scan->iterator;
    for (rocksdb_iter_seek_to_first(iterator); rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        struct located page;
        bool bad;
        if (!locate(side, rocks_iter_key(iterator), rocks_iter_value(iterator), &page, &bad)) {
            if (bad)
                tell_entry(checking, family, "an entry is damaged");
            continue;
        }
        *(side->fetched ? &checking->counts.fetched : &checking->counts.pages) += 1;
        enum graft_status status = find_owner(checking, side, page.number, err);
        if (status != GRAFT_OK)
            return status;
        if (place_extent(page.place) >= side->end || place_offset(page.place) + page.size > EXTENT_SIZE)
            tell_page(checking, side, &page, "its place is not in the files");
        else
            side->sums[place_extent(page.place)].index += page.size;
    }
    return rocks_iter_status(iterator, "reading the local index", err);
}

static enum graft_status compare_counters(struct checking *checking, const struct side *side,
                                          struct graft_error *err)
{
    struct bytes everything = {.size = 0};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = rocks_scan_new(
        side->rocks->db, side->rocks->families[side->extents_family], everything, side->snapshot);
    rocksdb_iterator_t *iterator = scan->iterator;
    uint32_t next = 0;
    rocksdb_iter_seek_to_first(iterator);
    while (rocksdb_iter_valid(iterator) || next < side->end) {
        uint32_t extent = UINT32_MAX;
        uint64_t live = 0;
        if (rocksdb_iter_valid(iterator)) {
            struct bytes value = rocks_iter_value(iterator);
            if (side->fetched && rocks_iter_key(iterator).size == 5) { // its age
                rocksdb_iter_next(iterator);
                continue;
            }
            if (!store_key_parse_extent(rocks_iter_key(iterator), &extent) || value.size != 8) {
                tell_entry(checking, "extents", "a counter is damaged");
                rocksdb_iter_next(iterator);
                continue;
            }
            live = get_le64(value.data);
        }
        // Those before it have no counter: that is zero.
        for (; next < side->end && next < extent; next++) {
            if (side->sums[next].index != 0)
                tell_place(checking, side, place_make(next, 0),
                           "the index has %" PRIu64 " live bytes in this extent and its counter says 0",
                           side->sums[next].index);
        }
        if (extent == UINT32_MAX)
            break;
        uint64_t index = extent < side->end ? side->sums[extent].index : 0;
        if (live != index)
            tell_place(checking, side, place_make(extent, 0),
                       "the index has %" PRIu64 " live bytes in this extent and its counter says %" PRId64,
                       index, (int64_t)live);
        next = MAX(next, extent + 1);
        rocksdb_iter_next(iterator);
    }
    return rocks_iter_status(iterator, "reading the counters of extents", err);
}

// ---- 2: the runs of an extent ---------------------------------------------------------------------------------------

// What the headers of an extent name.
struct runs {
    uint32_t pages[EXTENT_SIZE / PLACE_GRAIN];  // which live one starts there (fingerprint); 0: none
    uint32_t ends[EXTENT_SIZE / RUN_ALIGNMENT]; // offsets behind the runs, ascending
    uint32_t count;
};

struct walk {
    struct checking *checking;
    const struct side *side;
    uint32_t run_end; // offset behind the last run
    uint64_t live, dead;
    struct runs *runs; // NULL: not wanted
    bool quiet;        // only look
};

static uint32_t fingerprint(const struct located *page)
{
    const uint64_t words[] = {page->number, page->lsn, page->pageidx};
    return (uint32_t)checksum64(words, sizeof words) | 1;
}

static enum graft_status walk_page(struct walk *walk, const struct run_entry *entry, uint64_t place,
                                   struct graft_error *err)
{
    const struct located named = {
        .number = entry->number, .lsn = entry->lsn, .pageidx = entry->pageidx, .place = place};
    struct located page;
    bool live, sound;
    enum graft_status status = is_at(walk->side, &named, false, &live, &page, err);
    if (status != GRAFT_OK)
        return status;
    if (!live || page.size != entry->size || page.checksum != entry->checksum) {
        walk->dead += entry->size;
        return GRAFT_OK;
    }
    walk->live += entry->size;
    if (walk->runs)
        walk->runs->pages[place_offset(place) / PLACE_GRAIN] = fingerprint(&page);
    return walk->quiet ? GRAFT_OK : verify(walk->checking, walk->side, &page, &sound, err);
}

static enum graft_status walk_run(void *context, const struct page_log_run *run, struct graft_error *err)
{
    struct walk *walk = context;
    uint32_t end = run_header_size(run->header.count);
    for (uint32_t i = 0; i < run->header.count; i++) {
        struct run_entry entry = run_entry_at(run->bytes, i);
        uint32_t offset = run_page_offset(end, entry.size);
        end = offset + entry.size;
        if (entry.size == 0)
            continue;
        enum graft_status status = walk_page(walk, &entry, run->place + offset, err);
        if (status != GRAFT_OK)
            return status;
    }
    walk->run_end = place_offset(run->place) + run->header.size;
    if (walk->runs && walk->runs->count < ARRAY_COUNT(walk->runs->ends))
        walk->runs->ends[walk->runs->count++] = walk->run_end;
    return GRAFT_OK;
}

static enum graft_status check_extent(struct checking *checking, const struct side *side, uint32_t extent,
                                      struct graft_error *err)
{
    struct graft_local_counts *counts = &checking->counts;
    uint64_t live;
    enum extent_state state = extents_state(side->extents, extent, &live);
    if (state == EXTENT_ABSENT && side->sums[extent].index == 0)
        return GRAFT_OK;
    counts->size += EXTENT_SIZE;
    if ((state == EXTENT_FREE || state == EXTENT_EMPTY) && side->sums[extent].index == 0) {
        counts->free += EXTENT_SIZE;
        return GRAFT_OK;
    }
    struct graft_error why;
    enum graft_status status =
        extents_read(side->extents, place_make(extent, 0), checking->extent, EXTENT_SIZE, &why);
    checking->readable = status == GRAFT_OK;
    struct walk walk = {.checking = checking, .side = side};
    status = page_log_walk(side->extents, side->store->log_store, extent, &walk, walk_run, err);
    // What cannot be read is named page by page, by step 3.
    if (status == GRAFT_CORRUPT || (status != GRAFT_OK && err && err->detail == GRAFT_DETAIL_IO))
        status = GRAFT_OK;
    side->sums[extent].walked = walk.live;
    counts->live += walk.live;
    counts->dead += walk.dead;
    counts->headers += walk.run_end - walk.live - walk.dead;
    counts->unused += EXTENT_SIZE - walk.run_end;
    return status;
}

static enum graft_status check_extents(struct checking *checking, const struct side *side,
                                       struct graft_error *err)
{
    for (uint32_t extent = 0; extent < side->end; extent++) {
        enum graft_status status = check_extent(checking, side, extent, err);
        if (status != GRAFT_OK)
            return status;
        note_progress(checking, EXTENT_SIZE);
    }
    return GRAFT_OK;
}

// ---- 3: what no header names ----------------------------------------------------------------------------------------

struct unnamed {
    struct checking *checking;
    const struct side *side;
    uint32_t extent; // whose runs these are; EXTENT_NONE
    struct runs runs;
    bool told[EXTENT_SIZE / RUN_ALIGNMENT]; // of the header at that offset
};

// Where the runs before it end.
static uint32_t missing_header(const struct runs *runs, uint32_t page_offset)
{
    uint32_t offset = 0;
    for (uint32_t i = 0; i < runs->count && runs->ends[i] <= page_offset; i++)
        offset = runs->ends[i];
    return offset;
}

// A sound page. Nobody misses its header but the cleaner, and a replay.
static void tell_unnamed(struct unnamed *unnamed, const struct located *page)
{
    uint32_t offset = missing_header(&unnamed->runs, place_offset(page->place));
    unnamed->checking->counts.unnamed++;
    if (unnamed->told[offset / RUN_ALIGNMENT])
        return;
    unnamed->told[offset / RUN_ALIGNMENT] = true;
    const struct owner *owner = &unnamed->checking->owner;
    tell_place(unnamed->checking, unnamed->side, place_make(unnamed->extent, offset),
               "the header of a run is damaged; the pages behind it, from page %" PRIu32
               " of %s on, are sound",
               page->pageidx, owner->known ? gid_format(&owner->vid).text : "a deleted volume");
}

static enum graft_status check_unnamed(struct unnamed *unnamed, const struct located *page,
                                       struct graft_error *err)
{
    struct checking *checking = unnamed->checking;
    const struct side *side = unnamed->side;
    uint32_t extent = place_extent(page->place);
    if (unnamed->extent != extent) {
        memset(unnamed, 0, sizeof *unnamed);
        unnamed->checking = checking;
        unnamed->side = side;
        unnamed->extent = extent;
        struct walk walk = {.checking = checking, .side = side, .runs = &unnamed->runs, .quiet = true};
        // Where the disk cannot read them they name nothing.
        page_log_walk(side->extents, side->store->log_store, extent, &walk, walk_run, NULL);
    }
    if (unnamed->runs.pages[place_offset(page->place) / PLACE_GRAIN] == fingerprint(page))
        return GRAFT_OK;
    bool sound, is = false;
    struct located now;
    checking->readable = false;
    enum graft_status status = verify(checking, side, page, &sound, err);
    if (status == GRAFT_OK && sound)
        status = is_at(side, page, true, &is, &now, err);
    if (status == GRAFT_OK && sound && is)
        tell_unnamed(unnamed, page);
    return status;
}

static bool all_named(const struct side *side)
{
    for (uint32_t extent = 0; extent < side->end; extent++) {
        if (side->sums[extent].index != side->sums[extent].walked)
            return false;
    }
    return true;
}

static enum graft_status check_rest(struct checking *checking, const struct side *side,
                                    struct graft_error *err)
{
    if (all_named(side))
        return GRAFT_OK;
    struct unnamed *unnamed = calloc(1, sizeof *unnamed);
    if (!unnamed)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to check the local store");
    unnamed->checking = checking;
    unnamed->side = side;
    unnamed->extent = EXTENT_NONE;
    struct bytes everything = {.size = 0};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = rocks_scan_new(
        side->rocks->db, side->rocks->families[side->index_family], everything, side->snapshot);
    rocksdb_iterator_t *iterator = scan->iterator;
    enum graft_status status = GRAFT_OK;
    rocksdb_iter_seek_to_first(iterator);
    for (; status == GRAFT_OK && rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        struct located page;
        bool bad;
        if (!locate(side, rocks_iter_key(iterator), rocks_iter_value(iterator), &page, &bad) ||
            place_extent(page.place) >= side->end || place_offset(page.place) + page.size > EXTENT_SIZE)
            continue; // told by step 1
        const struct extent_sums *sums = &side->sums[place_extent(page.place)];
        if (sums->index != sums->walked)
            status = check_unnamed(unnamed, &page, err);
    }
    free(unnamed);
    return status == GRAFT_OK ? rocks_iter_status(iterator, "reading the local index", err) : status;
}

// ---- both sides -----------------------------------------------------------------------------------------------------

static enum graft_status side_open(struct side *side, struct graft_error *err)
{
    side->snapshot = rocksdb_create_snapshot(side->rocks->db);
    side->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_snapshot(side->read, side->snapshot);
    rocksdb_readoptions_set_fill_cache(side->read, 0);
    side->end = extents_end(side->extents);
    side->sums = calloc(MAX(side->end, 1u), sizeof *side->sums);
    if (!side->sums)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to check the local store");
    return GRAFT_OK;
}

static void side_close(struct side *side)
{
    free(side->sums);
    rocks_readoptions_free(side->read);
    if (side->snapshot)
        rocksdb_release_snapshot(side->rocks->db, side->snapshot);
}

static enum graft_status check_side(struct checking *checking, struct side *side, struct graft_error *err)
{
    enum graft_status status = sum_up(checking, side, err);
    if (status == GRAFT_OK)
        status = compare_counters(checking, side, err);
    if (status == GRAFT_OK)
        status = check_extents(checking, side, err);
    return status == GRAFT_OK ? check_rest(checking, side, err) : status;
}

static bool count_volume(void *context, const struct gid *vid)
{
    ++*(uint64_t *)context;
    return true;
}

enum graft_status store_check(struct store *store, const struct store_check_sink *sink,
                              struct graft_local_counts *ret_counts, struct graft_error *err)
{
    struct checking checking = {.sink = sink, .extent = malloc(EXTENT_SIZE)};
    struct side sides[] = {
        {.store = store,
         .extents = store->pages,
         .rocks = store->local,
         .index_family = FAMILY_INDEX,
         .extents_family = FAMILY_EXTENTS},
        {.store = store,
         .extents = page_cache_extents(store->cache),
         .rocks = store->fetched,
         .index_family = FETCHED_ARRIVED,
         .extents_family = FETCHED_EXTENTS,
         .fetched = true},
    };
    enum graft_status status = store_check_usable(store, err);
    if (status == GRAFT_OK && !checking.extent)
        status = error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to check the local store");
    if (status == GRAFT_OK)
        status = store_volume_list(store, count_volume, &checking.counts.volumes, err);
    for (size_t i = 0; status == GRAFT_OK && i < ARRAY_COUNT(sides); i++) {
        status = side_open(&sides[i], err);
        checking.total += (uint64_t)sides[i].end * EXTENT_SIZE;
    }
    for (size_t i = 0; status == GRAFT_OK && i < ARRAY_COUNT(sides); i++)
        status = check_side(&checking, &sides[i], err);
    for (size_t i = 0; i < ARRAY_COUNT(sides); i++)
        side_close(&sides[i]);
    free(checking.extent);
    if (status == GRAFT_OK)
        *ret_counts = checking.counts;
    return status == GRAFT_OK ? GRAFT_OK : error_context(err, status, "checking the local store");
}
