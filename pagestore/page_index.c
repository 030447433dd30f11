// SPDX-License-Identifier: Apache-2.0
#include "pagestore/page_index.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/store/cut_index.h"
#include "pagestore/page_index_internal.h"

// Volumes that nobody reads from right now and whose state is remembered all the same.
#define IDLE_VOLUMES_MAX 16384u
// Neighbours that are tried before a seek: pages in a row mostly have one version each.
#define STEPS_BEFORE_SEEK 4
// Pages that are sought at once after stepping was in vain: neighbours of a page with many versions have many as well.
#define STEPS_PAUSE 8

static const struct rocks_family families[FAMILY_COUNT] = {
    [FAMILY_PAGES] = {.name = "pages", .compression = ROCKS_LZ4},
    [FAMILY_COMMITS] = {.name = "commits", .compression = ROCKS_LZ4},
    [FAMILY_CUTS] = {.name = "cuts", .compression = ROCKS_LZ4},
    [FAMILY_VOLUMES] = {.name = "volumes", .compression = ROCKS_LZ4},
    [FAMILY_SEGMENTS] = {.name = "segments", .compression = ROCKS_LZ4},
    [FAMILY_NUMBERS] = {.name = "numbers", .compression = ROCKS_LZ4, .point_reads = true},
};

static const struct rocks_settings rocks_settings = {
    .block_cache_size = 32 * 1024 * 1024,
    .write_buffer_size = 16 * 1024 * 1024,
    .max_open_files = 256,
};

enum graft_status page_index_bad_entry(struct graft_error *err, const char *what)
{
    return error_set(
        err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
        "the page-version index has a malformed %s entry; stop the pagestore, remove its cache folder and "
        "start it again: the index is rebuilt",
        what);
}

static enum graft_status read_number(struct page_index *index, const char *name, uint32_t *ret_next,
                                     struct graft_error *err)
{
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status =
        rocks_get(index->rocks->db, index->rocks->families[FAMILY_NUMBERS], index->rocks->read,
                  (struct bytes){(const uint8_t *)name, strlen(name)}, &slice, err);
    if (status != GRAFT_OK)
        return status;
    if (slice && rocks_slice(slice).size != NUMBER_SIZE)
        return page_index_bad_entry(err, "number");
    *ret_next = slice ? get_le32(rocks_slice(slice).data) : 1;
    return GRAFT_OK;
}

enum graft_status page_index_open(const struct page_index_settings *settings, struct page_index **ret_index,
                                  struct graft_error *err)
{
    struct metrics *metrics = settings->metrics;
    struct page_index *index = calloc(1, sizeof *index);
    if (!index)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the page-version index");
    enum graft_status status =
        rocks_open(settings->path, &rocks_settings, families, FAMILY_COUNT, &index->rocks, err);
    if (status == GRAFT_OK)
        status = read_number(index, "volume", &index->next_volume, err);
    if (status == GRAFT_OK)
        status = read_number(index, "segment", &index->next_segment, err);
    if (status != GRAFT_OK) {
        rocks_close(index->rocks);
        free(index);
        return error_context(err, status, "opening the page-version index in %s", settings->path);
    }
    index->newest = version_cache_new(NEWEST_VERSIONS_SIZE);
    if (!index->newest) {
        rocks_close(index->rocks);
        free(index);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the page-version index");
    }
    mutex_init(&index->lock, RANK_PAGE_INDEX);
    store_fate_init(&index->fate, settings->on_fatal, settings->context);
    index->entries = metrics_counter(metrics, "graft_index_entries_total", NULL, "page versions applied");
    index->applied_commits = metrics_counter(metrics, "graft_index_commits_total", NULL, "commits applied");
    index->seeks = metrics_counter(metrics, "graft_index_seeks_total", NULL, "seeks made to resolve pages");
    index->remembered = metrics_counter(metrics, "graft_index_remembered_total", NULL,
                                        "pages resolved without looking into the index's history");
    index->dropped = metrics_counter(metrics, "graft_index_dropped_total", NULL,
                                     "volumes whose index was dropped because their history is another one");
    *ret_index = index;
    return GRAFT_OK;
}

void page_index_close(struct page_index *index)
{
    if (!index)
        return;
    struct index_volume *volume, *next;
    HASH_ITER (hh, index->volumes, volume, next) {
        CHECK(volume->references == 0 && !volume->applying);
        HASH_DEL(index->volumes, volume);
        free(volume);
    }
    rocks_close(index->rocks);
    version_cache_free(index->newest);
    store_fate_release(&index->fate);
    mutex_release(&index->lock);
    free(index);
}

// ---- volumes --------------------------------------------------------------------------------------------------------

static enum graft_status load_unfinished(struct index_volume *volume, struct graft_error *err)
{
    const struct rocks *rocks = volume->index->rocks;
    uint8_t key[UNFINISHED_KEY_SIZE];
    memcpy(key, volume->vid.bytes, GID_SIZE);
    key[GID_SIZE] = UNFINISHED_MARK;
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = rocks_get(rocks->db, rocks->families[FAMILY_VOLUMES], rocks->read,
                                         (struct bytes){key, sizeof key}, &slice, err);
    if (status != GRAFT_OK || !slice)
        return status;
    if (rocks_slice(slice).size != HASH_SIZE)
        return page_index_bad_entry(err, "volume");
    volume->has_unfinished = true;
    memcpy(volume->unfinished.bytes, rocks_slice(slice).data, HASH_SIZE);
    return GRAFT_OK;
}

// Reads what the database knows of volume->vid into a volume that nobody else sees yet.
static enum graft_status load_volume(struct index_volume *volume, struct graft_error *err)
{
    const struct rocks *rocks = volume->index->rocks;
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = rocks_get(rocks->db, rocks->families[FAMILY_VOLUMES], rocks->read,
                                         (struct bytes){volume->vid.bytes, GID_SIZE}, &slice, err);
    if (status != GRAFT_OK || !slice)
        return status;
    struct bytes value = rocks_slice(slice);
    if (value.size != VOLUME_VALUE_SIZE)
        return page_index_bad_entry(err, "volume");
    volume->number = get_le32(value.data);
    volume->state.lsn = get_le64(value.data + 4);
    memcpy(volume->state.chain.bytes, value.data + 12, HASH_SIZE);
    volume->state.page_count = get_le32(value.data + 28);
    volume->lowest_cut = get_le32(value.data + 32);
    return load_unfinished(volume, err);
}

static struct index_volume *take_known(struct page_index *index, const struct gid *vid)
{
    struct index_volume *volume;
    mutex_assert_held(&index->lock);
    HASH_FIND(hh, index->volumes, vid, sizeof *vid, volume);
    if (volume && volume->references++ == 0)
        index->idle_count--;
    return volume;
}

enum graft_status page_index_volume(struct page_index *index, const struct gid *vid,
                                    struct index_volume **ret_volume, struct graft_error *err)
{
    {
        LOCK_GUARD(&index->lock);
        struct index_volume *known = take_known(index, vid);
        if (known) {
            *ret_volume = known;
            return GRAFT_OK;
        }
    }
    struct index_volume *volume = calloc(1, sizeof *volume);
    if (!volume)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a volume of the index");
    volume->index = index;
    volume->vid = *vid;
    volume->references = 1;
    volume->lowest_cut = CUT_NONE;
    enum graft_status status = load_volume(volume, err);
    if (status != GRAFT_OK) {
        free(volume);
        return status;
    }
    LOCK_GUARD(&index->lock);
    // Somebody else may have loaded it meanwhile; theirs counts, for it may have moved on.
    struct index_volume *known = take_known(index, vid);
    if (known) {
        free(volume);
        volume = known;
    } else {
        forget_newest_locked(volume);
        HASH_ADD(hh, index->volumes, vid, sizeof volume->vid, volume);
    }
    *ret_volume = volume;
    return GRAFT_OK;
}

void index_volume_release(struct index_volume *volume)
{
    if (!volume)
        return;
    struct page_index *index = volume->index;
    LOCK_GUARD(&index->lock);
    CHECK(volume->references > 0);
    if (--volume->references > 0)
        return;
    // To the end of the table's order: what stands in front was used least recently.
    HASH_DEL(index->volumes, volume);
    HASH_ADD(hh, index->volumes, vid, sizeof volume->vid, volume);
    if (++index->idle_count <= IDLE_VOLUMES_MAX)
        return;
    struct index_volume *oldest = index->volumes;
    while (oldest->references > 0)
        oldest = oldest->hh.next;
    HASH_DEL(index->volumes, oldest);
    index->idle_count--;
    free(oldest);
}

const struct gid *index_volume_vid(const struct index_volume *volume)
{
    return &volume->vid;
}

struct index_state index_volume_state(struct index_volume *volume)
{
    LOCK_GUARD(&volume->index->lock);
    return volume->state;
}

// ---- looking up -------------------------------------------------------------------------------------------------------

enum graft_status index_volume_commit_at(struct index_volume *volume, uint64_t lsn,
                                         struct index_state *ret_state, struct graft_error *err)
{
    struct page_index *index = volume->index;
    uint8_t key[COMMIT_KEY_SIZE];
    {
        LOCK_GUARD(&index->lock);
        if (lsn == volume->state.lsn) {
            *ret_state = volume->state;
            return GRAFT_OK;
        }
        put_commit_key(key, volume->number, lsn);
    }
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = rocks_get(index->rocks->db, index->rocks->families[FAMILY_COMMITS],
                                         index->rocks->read, (struct bytes){key, sizeof key}, &slice, err);
    if (status != GRAFT_OK)
        return status;
    if (!slice)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE,
                         "the page-version index has no commit %llu of %s", (unsigned long long)lsn,
                         gid_format(&volume->vid).text);
    struct bytes value = rocks_slice(slice);
    if (value.size != COMMIT_VALUE_SIZE)
        return page_index_bad_entry(err, "commit");
    ret_state->lsn = lsn;
    memcpy(ret_state->chain.bytes, value.data, HASH_SIZE);
    ret_state->page_count = get_le32(value.data + HASH_SIZE);
    return GRAFT_OK;
}

// Pages are looked up in ascending order: first among the newest versions in memory, a chunk at a time, then in the
// history, which the iterator is opened for.
struct lookup {
    struct index_volume *volume;
    uint32_t number, lowest_cut;
    uint64_t lsn;
    bool of_head; // `lsn` is the newest that was applied
    uint64_t newest_key;
    bool has_chunk, learned; // `learned`: the chunk has entries that the cache does not
    uint32_t chunk_number;
    struct version_chunk chunk;
    struct rocks_scan *scan; // opened by the first page that is not remembered
    struct cut_reader *cuts; // opened by the first page that may have been cut off
    uint64_t seeks, remembered;
    unsigned pause; // pages until stepping is tried again
};

// A version as it was written, whether cut off since or not.
struct written {
    uint64_t lsn; // 0: none
    uint32_t segment;
};

static void lookup_release(struct lookup *lookup)
{
    cut_reader_close(lookup->cuts);
    rocks_scan_free(lookup->scan);
}

static void volume_prefix(const struct lookup *lookup, uint8_t to[NUMBER_SIZE])
{
    put_be32(to, lookup->number);
}

static enum graft_status no_memory(struct graft_error *err)
{
    return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to read the page-version index");
}

// The lowest cut after `after`, up to the snapshot.
static enum graft_status lowest_cut(struct lookup *lookup, uint64_t after, uint32_t *ret_cut,
                                    struct graft_error *err)
{
    const struct rocks *rocks = lookup->volume->index->rocks;
    if (!lookup->cuts) {
        uint8_t prefix[NUMBER_SIZE];
        volume_prefix(lookup, prefix);
        lookup->cuts =
            cut_reader_open(rocks->db, rocks->families[FAMILY_CUTS], (struct bytes){prefix, sizeof prefix});
    }
    return lookup->cuts ? cut_reader_lowest(lookup->cuts, after, lookup->lsn, ret_cut, err) : no_memory(err);
}

// Moves to the first key at or behind `key`. Keys are asked for in ascending order.
static void move_to(struct lookup *lookup, const uint8_t *key)
{
    rocksdb_iterator_t *iterator = lookup->scan->iterator;
    bool stepping = lookup->seeks > 0 && lookup->pause == 0;
    for (int step = 0; stepping && step <= STEPS_BEFORE_SEEK; step++) {
        if (!rocksdb_iter_valid(iterator))
            return; // behind the volume's last key, and so is this one
        if (memcmp(rocks_iter_key(iterator).data, key, PAGE_KEY_SIZE) >= 0)
            return;
        if (step < STEPS_BEFORE_SEEK)
            rocksdb_iter_next(iterator);
    }
    if (stepping)
        lookup->pause = STEPS_PAUSE;
    else if (lookup->pause > 0)
        lookup->pause--;
    rocksdb_iter_seek(iterator, (const char *)key, PAGE_KEY_SIZE);
    lookup->seeks++;
}

// ---- newest versions in memory

// What was found at the head is the newest version as long as nothing newer was begun meanwhile (invariant 3).
static void give_chunk(struct lookup *lookup)
{
    struct index_volume *volume = lookup->volume;
    if (!lookup->learned)
        return;
    lookup->learned = false;
    LOCK_GUARD(&volume->index->lock);
    if (volume->newest_key == lookup->newest_key && volume->begun_lsn == lookup->lsn)
        version_cache_fill(volume->index->newest, lookup->newest_key, lookup->chunk_number, &lookup->chunk);
}

static void take_chunk(struct lookup *lookup, uint32_t number)
{
    struct page_index *index = lookup->volume->index;
    if (lookup->has_chunk && lookup->chunk_number == number)
        return;
    give_chunk(lookup);
    lookup->has_chunk = true;
    lookup->chunk_number = number;
    LOCK_GUARD(&index->lock);
    version_cache_get(index->newest, lookup->newest_key, number, &lookup->chunk);
}

static bool recall(struct lookup *lookup, uint32_t pageidx, struct written *ret_written)
{
    uint32_t at = pageidx % VERSION_CHUNK_PAGES;
    take_chunk(lookup, pageidx / VERSION_CHUNK_PAGES);
    if (lookup->chunk.lsn[at] == VERSION_UNKNOWN || lookup->chunk.lsn[at] > lookup->lsn)
        return false;
    *ret_written = (struct written){lookup->chunk.lsn[at], lookup->chunk.segment[at]};
    lookup->remembered++;
    return true;
}

static void learn(struct lookup *lookup, uint32_t pageidx, const struct written *written)
{
    uint32_t at = pageidx % VERSION_CHUNK_PAGES;
    if (!lookup->of_head)
        return;
    lookup->chunk.lsn[at] = written->lsn;
    lookup->chunk.segment[at] = written->segment;
    lookup->learned = true;
}

// ---- the history

static enum graft_status seek_version(struct lookup *lookup, uint32_t pageidx, struct written *ret_written,
                                      struct graft_error *err)
{
    const struct rocks *rocks = lookup->volume->index->rocks;
    uint8_t key[PAGE_KEY_SIZE];
    *ret_written = (struct written){0};
    if (!lookup->scan) {
        uint8_t prefix[NUMBER_SIZE];
        volume_prefix(lookup, prefix);
        lookup->scan = rocks_scan_new(rocks->db, rocks->families[FAMILY_PAGES],
                                      (struct bytes){prefix, sizeof prefix}, NULL);
    }
    if (!lookup->scan)
        return no_memory(err);
    rocksdb_iterator_t *iterator = lookup->scan->iterator;
    put_page_key(key, lookup->number, pageidx, lookup->lsn);
    move_to(lookup, key);
    if (!rocksdb_iter_valid(iterator))
        return rocks_iter_status(iterator, "reading the page-version index", err);
    struct bytes found = rocks_iter_key(iterator);
    if (found.size != PAGE_KEY_SIZE)
        return page_index_bad_entry(err, "page");
    if (memcmp(found.data, key, PAGE_PREFIX_SIZE) != 0)
        return GRAFT_OK;
    struct bytes value = rocks_iter_value(iterator);
    if (value.size != PAGE_VALUE_SIZE)
        return page_index_bad_entry(err, "page");
    *ret_written = (struct written){~get_be64(found.data + PAGE_PREFIX_SIZE), get_le32(value.data)};
    return GRAFT_OK;
}

// *ret_written with LSN 0: the page is empty at the snapshot.
static enum graft_status resolve_page(struct lookup *lookup, uint32_t pageidx, struct written *ret_written,
                                      struct graft_error *err)
{
    struct written written;
    enum graft_status status = GRAFT_OK;
    if (!recall(lookup, pageidx, &written)) {
        status = seek_version(lookup, pageidx, &written, err);
        if (status != GRAFT_OK)
            return status;
        learn(lookup, pageidx, &written);
    }
    if (written.lsn && lookup->lowest_cut < pageidx) {
        uint32_t cut;
        status = lowest_cut(lookup, written.lsn, &cut, err);
        if (status != GRAFT_OK)
            return status;
        if (cut < pageidx)
            written = (struct written){0};
    }
    *ret_written = written;
    return GRAFT_OK;
}

static enum graft_status being_rebuilt(const struct index_volume *volume, struct graft_error *err)
{
    return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_BEHIND,
                     "the index of %s is being rebuilt; ask again", gid_format(&volume->vid).text);
}

static enum graft_status lookup_begin(struct lookup *lookup, struct graft_error *err)
{
    struct index_volume *volume = lookup->volume;
    LOCK_GUARD(&volume->index->lock);
    if (lookup->lsn > volume->state.lsn)
        return being_rebuilt(volume, err);
    lookup->of_head = lookup->lsn == volume->state.lsn;
    lookup->number = volume->number;
    lookup->lowest_cut = volume->lowest_cut;
    lookup->newest_key = volume->newest_key;
    return GRAFT_OK;
}

// A drop takes the number away before it deletes: as long as it is there, nothing was missing (invariant 4).
static enum graft_status lookup_end(struct lookup *lookup, struct graft_error *err)
{
    struct page_index *index = lookup->volume->index;
    give_chunk(lookup);
    metric_add(index->seeks, (int64_t)lookup->seeks);
    metric_add(index->remembered, (int64_t)lookup->remembered);
    LOCK_GUARD(&index->lock);
    return lookup->volume->number == lookup->number ? GRAFT_OK : being_rebuilt(lookup->volume, err);
}

enum graft_status index_volume_resolve(struct index_volume *volume, uint64_t lsn, const struct pageset *pages,
                                       struct page_version *versions, struct graft_error *err)
{
    _cleanup_(lookup_release) struct lookup lookup = {.volume = volume, .lsn = lsn};
    struct pageset_cursor cursor = pageset_cursor(pages);
    struct written written;
    uint32_t pageidx;
    enum graft_status status = lookup_begin(&lookup, err);
    while (status == GRAFT_OK && pageset_next(&cursor, &pageidx)) {
        status = resolve_page(&lookup, pageidx, &written, err);
        if (status == GRAFT_OK)
            *versions++ = (struct page_version){pageidx, written.segment};
    }
    return status == GRAFT_OK ? lookup_end(&lookup, err) : status;
}

enum graft_status index_volume_resolve_one(struct index_volume *volume, uint64_t lsn, uint32_t pageidx,
                                           struct page_version *ret_version, uint64_t *ret_lsn,
                                           struct graft_error *err)
{
    _cleanup_(lookup_release) struct lookup lookup = {.volume = volume, .lsn = lsn};
    struct written written;
    enum graft_status status = lookup_begin(&lookup, err);
    if (status == GRAFT_OK)
        status = resolve_page(&lookup, pageidx, &written, err);
    if (status == GRAFT_OK)
        status = lookup_end(&lookup, err);
    if (status != GRAFT_OK)
        return status;
    *ret_version = (struct page_version){pageidx, written.segment};
    *ret_lsn = written.lsn;
    return GRAFT_OK;
}

static enum graft_status read_place(struct page_index *index, uint32_t number,
                                    struct segment_place *ret_place, struct graft_error *err)
{
    uint8_t key[NUMBER_SIZE];
    put_be32(key, number);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = rocks_get(index->rocks->db, index->rocks->families[FAMILY_SEGMENTS],
                                         index->rocks->read, (struct bytes){key, sizeof key}, &slice, err);
    if (status != GRAFT_OK)
        return status;
    if (!slice || rocks_slice(slice).size != SEGMENT_VALUE_SIZE)
        return page_index_bad_entry(err, "segment");
    const uint8_t *value = rocks_slice(slice).data;
    memcpy(ret_place->sid.bytes, value, GID_SIZE);
    memcpy(ret_place->owner.bytes, value + 16, GID_SIZE);
    ret_place->object_size = get_le64(value + 32);
    ret_place->index_offset = get_le64(value + 40);
    ret_place->index_size = get_le32(value + 48);
    return GRAFT_OK;
}

enum graft_status page_index_segment(struct page_index *index, uint32_t number,
                                     struct segment_place *ret_place, struct graft_error *err)
{
    struct kept_place *kept = &index->places[number % PLACES_KEPT];
    struct segment_place place;
    {
        LOCK_GUARD(&index->lock);
        if (kept->number == number) {
            *ret_place = kept->place;
            return GRAFT_OK;
        }
    }
    enum graft_status status = read_place(index, number, &place, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&index->lock);
    *kept = (struct kept_place){number, place};
    *ret_place = place;
    return GRAFT_OK;
}
