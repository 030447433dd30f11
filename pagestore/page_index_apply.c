// SPDX-License-Identifier: Apache-2.0
//
// Applying commits to the page-version index, and dropping a volume. One thread does both.
//
// Commits gather in a batch of the volume (`applying`), until it is full or published: a write of its own for each would
// cost more than its entries. Each write applies the whole commits that it has, and what it has of one more lies above the
// applied LSN (invariant 1). That one's chain is written along: if the process ends there and the metastore then has
// another commit in its place, the volume is dropped, or that commit would take over entries that are not its own.
//
// A commit is checked whole before anything of it is written or put into the batch: one that is refused leaves no trace,
// neither entries nor a cut, that a later one with its LSN would take for its own.
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/net/message.h"
#include "common/store/cut_index.h"
#include "pagestore/page_index_internal.h"

// Of one write batch: larger ones are no faster, and hold up readers of the same memtable.
#define BATCH_PUTS_MAX 1000

// A segment that got its number in the batch, where a lookup in the database does not find it yet.
struct new_segment {
    uint8_t name[SEGMENT_NAME_SIZE];
    uint32_t number;
    UT_hash_handle hh;
};

struct applying {
    struct page_index *index;
    struct index_volume *volume;
    uint32_t number;
    uint64_t lsn; // of the commit that is being checked or written
    rocksdb_writebatch_t *batch;
    unsigned puts, entries;       // in the batch; entries are those of pages
    bool numbered;                // segments got numbers in the batch
    struct new_segment *segments; // that got their numbers in the batch
    // Of the commit that is being written.
    bool in_part; // not whole yet
    struct hash128 chain;
    // After the last commit that was added whole.
    struct index_state state;
    uint32_t lowest_cut;
    unsigned commits; // whole ones in the batch
    unsigned added;   // whole ones that are not published
};

static enum graft_status malformed(struct applying *applying, struct graft_error *err, const char *field)
{
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                     "commit %llu of %s, from the metastore: bad %s", (unsigned long long)applying->lsn,
                     gid_format(&applying->volume->vid).text, field);
}

static void forget_segments(struct applying *applying)
{
    struct new_segment *segment, *next;
    HASH_ITER (hh, applying->segments, segment, next) {
        HASH_DEL(applying->segments, segment);
        free(segment);
    }
}

void applying_free(struct applying *applying)
{
    if (!applying)
        return;
    forget_segments(applying);
    rocksdb_writebatch_destroy(applying->batch);
    free(applying);
}

static void put_number(struct applying *applying, struct bytes key, uint32_t number)
{
    uint8_t value[NUMBER_SIZE];
    put_le32(value, number);
    rocks_batch_put(applying->batch, applying->index->rocks->families[FAMILY_NUMBERS], key,
                    (struct bytes){value, sizeof value});
}

static void put_volume(struct applying *applying)
{
    const struct index_state *state = &applying->state;
    uint8_t value[VOLUME_VALUE_SIZE];
    put_le32(value, applying->number);
    put_le64(value + 4, state->lsn);
    memcpy(value + 12, state->chain.bytes, HASH_SIZE);
    put_le32(value + 28, state->page_count);
    put_le32(value + 32, applying->lowest_cut);
    rocks_batch_put(applying->batch, applying->index->rocks->families[FAMILY_VOLUMES],
                    (struct bytes){applying->volume->vid.bytes, GID_SIZE},
                    (struct bytes){value, sizeof value});
}

// Where a volume's record says that a part of the commit behind its applied one was written.
static void put_unfinished_key(uint8_t to[UNFINISHED_KEY_SIZE], const struct index_volume *volume)
{
    memcpy(to, volume->vid.bytes, GID_SIZE);
    to[GID_SIZE] = UNFINISHED_MARK;
}

static void put_unfinished(struct applying *applying)
{
    struct index_volume *volume = applying->volume;
    rocksdb_column_family_handle_t *family = applying->index->rocks->families[FAMILY_VOLUMES];
    uint8_t key[UNFINISHED_KEY_SIZE];
    put_unfinished_key(key, volume);
    if (applying->in_part)
        rocks_batch_put(applying->batch, family, (struct bytes){key, sizeof key},
                        (struct bytes){applying->chain.bytes, HASH_SIZE});
    else if (volume->has_unfinished && applying->commits > 0)
        rocks_batch_delete(applying->batch, family, (struct bytes){key, sizeof key});
}

static void note_unfinished(struct applying *applying)
{
    applying->volume->has_unfinished = applying->in_part;
    applying->volume->unfinished = applying->chain;
}

// What became of a write. After one that failed nobody knows what the files hold, and RocksDB has no way back that its C API
// reaches: the daemon ends, and starts again on what is there. Only a full disk passes: RocksDB goes on once there is room.
static enum graft_status written(struct page_index *index, enum graft_status status,
                                 struct graft_error *error, struct graft_error *err)
{
    if (status == GRAFT_OK)
        return GRAFT_OK;
    error_context(error, status, "writing the page-version index");
    if (error->detail == GRAFT_DETAIL_NO_SPACE)
        return error_copy(err, error);
    if (store_fate_seal(&index->fate, error))
        store_fate_tell(&index->fate);
    error->status = GRAFT_UNAVAILABLE;
    return error_copy(err, error);
}

// Writes what the batch has. Commits that are whole are applied thereby, and seen when they are published.
static enum graft_status flush(struct applying *applying, struct graft_error *err)
{
    // As it is now, not as it was for the batch's last segment: another volume's batch may have gone ahead of this one.
    if (applying->numbered)
        put_number(applying, (struct bytes){(const uint8_t *)"segment", 7}, applying->index->next_segment);
    put_volume(applying);
    put_unfinished(applying);
    struct page_index *index = applying->index;
    struct graft_error error;
    enum graft_status status = store_fate_check(&index->fate, err);
    if (status != GRAFT_OK)
        return status;
    status = FAILPOINT_ERROR("index.write.before", &error);
    if (status == GRAFT_OK)
        status = rocks_write(index->rocks->db, index->rocks->write, applying->batch, &error);
    status = written(index, status, &error, err);
    if (status != GRAFT_OK)
        return status;
    FAILPOINT("index.write.after");
    if (applying->in_part || applying->commits > 0)
        note_unfinished(applying);
    rocksdb_writebatch_clear(applying->batch);
    metric_add(index->entries, applying->entries);
    metric_add(index->applied_commits, applying->commits);
    applying->puts = applying->entries = applying->commits = 0;
    applying->numbered = false;
    forget_segments(applying);
    return GRAFT_OK;
}

// Something was put into the batch, which may be full now.
static enum graft_status added_one(struct applying *applying, struct graft_error *err)
{
    return ++applying->puts < BATCH_PUTS_MAX ? GRAFT_OK : flush(applying, err);
}

// The number of (SID, owner), a new one with its place where there is none yet.
static enum graft_status segment_number(struct applying *applying, const Graft__SegmentRef *ref,
                                        uint32_t *ret_number, struct graft_error *err)
{
    const struct rocks *rocks = applying->index->rocks;
    uint8_t name[SEGMENT_NAME_SIZE];
    CHECK(ref->sid.len == GID_SIZE && ref->owner.len == GID_SIZE);
    memcpy(name, ref->sid.data, GID_SIZE);
    memcpy(name + GID_SIZE, ref->owner.data, GID_SIZE);
    struct new_segment *added;
    HASH_FIND(hh, applying->segments, name, sizeof name, added);
    if (added) {
        *ret_number = added->number;
        return GRAFT_OK;
    }
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = rocks_get(rocks->db, rocks->families[FAMILY_NUMBERS], rocks->read,
                                         (struct bytes){name, sizeof name}, &slice, err);
    if (status != GRAFT_OK)
        return status;
    if (slice && rocks_slice(slice).size != NUMBER_SIZE)
        return page_index_bad_entry(err, "number");
    if (slice) {
        *ret_number = get_le32(rocks_slice(slice).data);
        return GRAFT_OK;
    }
    if (applying->index->next_segment == UINT32_MAX) // the one after is 0, which says that there is none
        return error_set(
            err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
            "the page-version index has numbered %u segments; stop the pagestore, remove its cache "
            "folder and start it again: the index is rebuilt",
            UINT32_MAX - 1);
    added = calloc(1, sizeof *added);
    if (!added)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to index a commit");
    *ret_number = applying->index->next_segment++;
    memcpy(added->name, name, sizeof name);
    added->number = *ret_number;
    HASH_ADD(hh, applying->segments, name, sizeof added->name, added);
    uint8_t key[NUMBER_SIZE], value[SEGMENT_VALUE_SIZE];
    put_be32(key, *ret_number);
    memcpy(value, name, sizeof name);
    put_le64(value + 32, ref->object_size);
    put_le64(value + 40, ref->index_offset);
    put_le32(value + 48, ref->index_size);
    rocks_batch_put(applying->batch, rocks->families[FAMILY_SEGMENTS], (struct bytes){key, sizeof key},
                    (struct bytes){value, sizeof value});
    put_number(applying, (struct bytes){name, sizeof name}, *ret_number);
    applying->numbered = true;
    return added_one(applying, err);
}

// Steps through the runs of a page set in wire form, which was checked; false at the end.
struct wire_cursor {
    struct bytes wire;
    size_t offset;
    uint32_t last;
    struct page_run run;
};

static bool wire_cursor_next(struct wire_cursor *cursor)
{
    return pageset_wire_next(cursor->wire, &cursor->offset, &cursor->last, &cursor->run) > 0;
}

// The pages, of one chunk, are in the commit that is being added: noted ahead of its being applied, so that no reader
// takes what is older for the newest once it is. An older commit that is written anew has nothing to say of the newest.
static void note_newest(struct applying *applying, uint32_t first, uint32_t count, uint32_t segment)
{
    struct index_volume *volume = applying->volume;
    LOCK_GUARD(&applying->index->lock);
    if (volume->begun_lsn == applying->lsn)
        version_cache_note(applying->index->newest, volume->newest_key, first, count, applying->lsn, segment);
}

static enum graft_status apply_reference(struct applying *applying, const Graft__SegmentRef *ref,
                                         struct graft_error *err)
{
    const struct rocks *rocks = applying->index->rocks;
    uint32_t segment = 0;
    enum graft_status status = segment_number(applying, ref, &segment, err);
    if (status != GRAFT_OK)
        return status;
    uint8_t key[PAGE_KEY_SIZE], value[PAGE_VALUE_SIZE];
    put_page_key(key, applying->number, 0, applying->lsn);
    put_le32(value, segment);
    struct wire_cursor pages = {.wire = bytes_of(&ref->pages)};
    struct wire_cursor structural = {.wire = bytes_of(&ref->structural)};
    bool more_structural = wire_cursor_next(&structural);
    while (wire_cursor_next(&pages)) {
        for (uint32_t i = 0; i < pages.run.count; i++) {
            uint32_t pageidx = pages.run.first + i, at = pageidx % VERSION_CHUNK_PAGES;
            if (i == 0 || at == 0)
                note_newest(applying, pageidx, MIN(pages.run.count - i, VERSION_CHUNK_PAGES - at), segment);
            while (more_structural && structural.run.first + (structural.run.count - 1) < pageidx)
                more_structural = wire_cursor_next(&structural);
            put_be32(key + 4, pageidx);
            value[4] = more_structural && structural.run.first <= pageidx;
            rocks_batch_put(applying->batch, rocks->families[FAMILY_PAGES], (struct bytes){key, sizeof key},
                            (struct bytes){value, sizeof value});
            applying->entries++;
            status = added_one(applying, err);
            if (status != GRAFT_OK)
                return status;
        }
    }
    return GRAFT_OK;
}

// A cut above the applied LSN is invisible (invariant 1), so it may go ahead of the batch that has the rest of the commit.
static enum graft_status apply_cut(struct applying *applying, uint32_t cut, struct graft_error *err)
{
    const struct rocks *rocks = applying->index->rocks;
    _cleanup_(rocks_indexed_batch_free_p) rocksdb_writebatch_wi_t *batch = rocksdb_writebatch_wi_create(0, 1);
    uint8_t prefix[NUMBER_SIZE];
    put_be32(prefix, applying->number);
    enum graft_status status = cut_index_put(rocks->db, rocks->families[FAMILY_CUTS], rocks->read, batch,
                                             (struct bytes){prefix, sizeof prefix}, applying->lsn, cut, err);
    if (status != GRAFT_OK)
        return status;
    uint8_t key[UNFINISHED_KEY_SIZE];
    put_unfinished_key(key, applying->volume);
    rocksdb_writebatch_wi_put_cf(batch, rocks->families[FAMILY_VOLUMES], (const char *)key, sizeof key,
                                 (const char *)applying->chain.bytes, HASH_SIZE);
    char *message = NULL;
    struct graft_error error;
    status = store_fate_check(&applying->index->fate, err);
    if (status != GRAFT_OK)
        return status;
    status = FAILPOINT_ERROR("index.cut.before", &error);
    if (status == GRAFT_OK) {
        rocksdb_write_writebatch_wi(rocks->db, rocks->write, batch, &message);
        status = rocks_status(&error, message, "writing to the database");
    }
    status = written(applying->index, status, &error, err);
    if (status == GRAFT_OK)
        FAILPOINT("index.cut.after");
    return status;
}

static void put_commit(struct applying *applying, const struct index_state *state)
{
    uint8_t key[COMMIT_KEY_SIZE], value[COMMIT_VALUE_SIZE];
    put_commit_key(key, applying->number, state->lsn);
    memcpy(value, state->chain.bytes, HASH_SIZE);
    put_le32(value + HASH_SIZE, state->page_count);
    rocks_batch_put(applying->batch, applying->index->rocks->families[FAMILY_COMMITS],
                    (struct bytes){key, sizeof key}, (struct bytes){value, sizeof value});
}

static enum graft_status check_references(struct applying *applying, const Graft__Commit *commit,
                                          struct graft_error *err)
{
    for (size_t i = 0; i < commit->n_segments; i++) {
        const Graft__SegmentRef *ref = commit->segments[i];
        struct gid sid, owner;
        struct pageset_measure pages, structural;
        if (gid_from_bytes(bytes_of(&ref->sid), GID_SEGMENT, "sid", &sid, NULL) != GRAFT_OK ||
            gid_from_bytes(bytes_of(&ref->owner), GID_VOLUME, "owner", &owner, NULL) != GRAFT_OK)
            return malformed(applying, err, "segment reference");
        if (pageset_wire_measure(bytes_of(&ref->pages), "pages", &pages, NULL) != GRAFT_OK ||
            pageset_wire_measure(bytes_of(&ref->structural), "structural", &structural, NULL) != GRAFT_OK ||
            pages.last > commit->page_count)
            return malformed(applying, err, "page set");
    }
    return GRAFT_OK;
}

// Checks that the commit continues the volume's chain, and that it is the commit its chain says.
static enum graft_status check_commit(struct applying *applying, const struct index_state *before,
                                      const Graft__Commit *commit, struct index_state *ret_after,
                                      struct graft_error *err)
{
    struct gid vid;
    struct token token;
    struct hash128 base_chain, digest, chain;
    if (gid_from_bytes(bytes_of(&commit->vid), GID_VOLUME, "vid", &vid, NULL) != GRAFT_OK ||
        !gid_equal(&vid, &applying->volume->vid) || commit->lsn != before->lsn + 1)
        return malformed(applying, err, "place in the log");
    if (commit->cut > MIN(before->page_count, commit->page_count))
        return malformed(applying, err, "cut");
    if (token_from_bytes(bytes_of(&commit->token), "token", &token, NULL) != GRAFT_OK ||
        hash_from_bytes(bytes_of(&commit->base_chain), "base_chain", &base_chain, NULL) != GRAFT_OK ||
        hash_from_bytes(bytes_of(&commit->digest), "digest", &digest, NULL) != GRAFT_OK ||
        hash_from_bytes(bytes_of(&commit->chain), "chain", &chain, NULL) != GRAFT_OK)
        return malformed(applying, err, "hash");
    struct hash128 expected = chain_next(&base_chain, &vid, commit->lsn, &token, &digest, commit->page_count);
    if (!hash_equal(&expected, &chain))
        return malformed(applying, err, "chain");
    if (!hash_equal(&base_chain, &before->chain))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                         "commit %llu of %s does not continue the history that the pagestore has indexed",
                         (unsigned long long)commit->lsn, gid_format(&vid).text);
    *ret_after = (struct index_state){.lsn = commit->lsn, .chain = chain, .page_count = commit->page_count};
    return check_references(applying, commit, err);
}

// A volume gets its number before its first entry: from then on whatever is written is its own, to be written again or
// dropped.
static enum graft_status begin_volume(struct applying *applying, struct graft_error *err)
{
    if (applying->number)
        return GRAFT_OK;
    applying->number = applying->index->next_volume++;
    put_number(applying, (struct bytes){(const uint8_t *)"volume", 6}, applying->index->next_volume);
    enum graft_status status = flush(applying, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&applying->index->lock);
    applying->volume->number = applying->number;
    return GRAFT_OK;
}

static struct applying *applying_new(struct index_volume *volume)
{
    struct page_index *index = volume->index;
    struct applying *applying = calloc(1, sizeof *applying);
    if (!applying)
        return NULL;
    applying->index = index;
    applying->volume = volume;
    applying->batch = rocksdb_writebatch_create();
    LOCK_GUARD(&index->lock);
    applying->number = volume->number;
    applying->state = volume->state;
    applying->lowest_cut = volume->lowest_cut;
    return applying;
}

// From here on nothing that is found at the LSN before counts as the newest.
static void begin_commit(struct applying *applying)
{
    LOCK_GUARD(&applying->index->lock);
    applying->volume->begun_lsn = applying->lsn;
}

// What was added and not published is not going to be.
static void abandon(struct index_volume *volume)
{
    applying_free(TAKE(volume->applying));
    LOCK_GUARD(&volume->index->lock);
    forget_newest_locked(volume);
}

static enum graft_status write_cut(struct applying *applying, uint32_t cut, struct graft_error *err)
{
    // What is in the batch is whole, and goes first: the mark is of the commit behind what was written.
    applying->in_part = false;
    enum graft_status status = applying->puts ? flush(applying, err) : GRAFT_OK;
    applying->in_part = true;
    if (status == GRAFT_OK)
        status = apply_cut(applying, cut, err);
    if (status == GRAFT_OK)
        note_unfinished(applying);
    return status;
}

static enum graft_status write_commit(struct applying *applying, const Graft__Commit *commit,
                                      const struct index_state *after, struct graft_error *err)
{
    uint32_t lowest_cut = applying->lowest_cut;
    enum graft_status status = begin_volume(applying, err);
    applying->chain = after->chain;
    applying->in_part = true;
    if (status == GRAFT_OK && commit->cut < applying->state.page_count) {
        lowest_cut = MIN(lowest_cut, commit->cut);
        status = write_cut(applying, commit->cut, err);
    }
    for (size_t i = 0; status == GRAFT_OK && i < commit->n_segments; i++)
        status = apply_reference(applying, commit->segments[i], err);
    if (status != GRAFT_OK)
        return status;
    put_commit(applying, after);
    applying->in_part = false;
    applying->state = *after;
    applying->lowest_cut = lowest_cut;
    applying->commits++;
    applying->added++;
    return added_one(applying, err);
}

// A part of the next commit was written by a process that ended, and now another commit comes in its place: the history is
// another one from here on, and what was written must not be taken for its own.
static enum graft_status drop_unfinished(struct index_volume *volume, struct graft_error *err)
{
    enum graft_status status = index_volume_drop(volume, err);
    if (status != GRAFT_OK)
        return status;
    return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_BEHIND,
                     "%s has another history now, its index is built anew; ask again",
                     gid_format(&volume->vid).text);
}

enum graft_status index_volume_add(struct index_volume *volume, const Graft__Commit *commit,
                                   struct graft_error *err)
{
    if (!volume->applying)
        volume->applying = applying_new(volume);
    if (!volume->applying)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to index a commit");
    struct applying *applying = volume->applying;
    struct index_state after;
    applying->lsn = commit->lsn;
    enum graft_status status = check_commit(applying, &applying->state, commit, &after, err);
    if (status != GRAFT_OK) {
        if (applying->added == 0)
            applying_free(TAKE(volume->applying));
        return status;
    }
    if (volume->has_unfinished && applying->commits == 0 && !hash_equal(&volume->unfinished, &after.chain))
        return drop_unfinished(volume, err);
    begin_commit(applying);
    status = write_commit(applying, commit, &after, err);
    if (status != GRAFT_OK)
        abandon(volume);
    return status;
}

enum graft_status index_volume_publish(struct index_volume *volume, struct graft_error *err)
{
    struct applying *applying = volume->applying;
    if (!applying)
        return GRAFT_OK;
    FAILPOINT("index.publish");
    enum graft_status status = flush(applying, err);
    if (status != GRAFT_OK) {
        abandon(volume);
        return status;
    }
    {
        LOCK_GUARD(&volume->index->lock);
        volume->state = applying->state;
        volume->lowest_cut = applying->lowest_cut;
    }
    applying_free(TAKE(volume->applying));
    return GRAFT_OK;
}

enum graft_status index_volume_apply(struct index_volume *volume, const Graft__Commit *commit,
                                     struct graft_error *err)
{
    enum graft_status status = index_volume_add(volume, commit, err);
    return status == GRAFT_OK ? index_volume_publish(volume, err) : status;
}

enum graft_status index_volume_check_same(struct index_volume *volume, const Graft__Commit *commit,
                                          struct graft_error *err)
{
    struct gid vid;
    struct hash128 chain;
    struct index_state at;
    struct gid_text text = gid_format(&volume->vid);
    enum graft_status status = GRAFT_NOT_FOUND;
    if (commit->lsn <= index_volume_state(volume).lsn)
        status = index_volume_commit_at(volume, commit->lsn, &at, err);
    if (status == GRAFT_NOT_FOUND)
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_BEHIND,
                         "the index of %s is being rebuilt; ask again", text.text);
    if (status != GRAFT_OK)
        return status;
    if (gid_from_bytes(bytes_of(&commit->vid), GID_VOLUME, "vid", &vid, NULL) != GRAFT_OK ||
        hash_from_bytes(bytes_of(&commit->chain), "chain", &chain, NULL) != GRAFT_OK ||
        !gid_equal(&vid, &volume->vid) || !hash_equal(&chain, &at.chain))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                         "commit %llu of %s is not the one that the pagestore has indexed",
                         (unsigned long long)commit->lsn, text.text);
    return GRAFT_OK;
}

enum graft_status index_volume_rewrite(struct index_volume *volume, const Graft__Commit *commit,
                                       struct graft_error *err)
{
    CHECK(!volume->applying); // it may have the commit
    struct applying *applying = applying_new(volume);
    if (!applying)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to index a commit");
    CHECK(applying->number && commit->lsn <= applying->state.lsn);
    applying->lsn = commit->lsn;
    enum graft_status status = check_references(applying, commit, err);
    for (size_t i = 0; status == GRAFT_OK && i < commit->n_segments; i++)
        status = apply_reference(applying, commit->segments[i], err);
    if (status == GRAFT_OK)
        status = flush(applying, err);
    applying_free(applying);
    LOCK_GUARD(&volume->index->lock);
    forget_newest_locked(volume);
    return status;
}

enum graft_status index_volume_drop(struct index_volume *volume, struct graft_error *err)
{
    static const enum index_family numbered[] = {FAMILY_PAGES, FAMILY_COMMITS, FAMILY_CUTS};
    struct page_index *index = volume->index;
    uint8_t from[NUMBER_SIZE], to[NUMBER_SIZE];
    uint32_t number;
    applying_free(TAKE(volume->applying));
    {
        // First the number, then the entries: a reader looks at the number again when it is done.
        LOCK_GUARD(&index->lock);
        number = volume->number;
        volume->number = 0;
        volume->state = (struct index_state){0};
        volume->lowest_cut = CUT_NONE;
        forget_newest_locked(volume);
    }
    if (!number)
        return GRAFT_OK;
    put_be32(from, number);
    put_be32(to, number + 1);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (size_t i = 0; i < ARRAY_COUNT(numbered); i++)
        rocksdb_writebatch_delete_range_cf(batch, index->rocks->families[numbered[i]], (const char *)from,
                                           sizeof from, (const char *)to, sizeof to);
    rocks_batch_delete(batch, index->rocks->families[FAMILY_VOLUMES],
                       (struct bytes){volume->vid.bytes, GID_SIZE});
    uint8_t unfinished[UNFINISHED_KEY_SIZE];
    put_unfinished_key(unfinished, volume);
    rocks_batch_delete(batch, index->rocks->families[FAMILY_VOLUMES],
                       (struct bytes){unfinished, sizeof unfinished});
    volume->has_unfinished = false;
    metric_add(index->dropped, 1);
    struct graft_error error;
    enum graft_status status = store_fate_check(&index->fate, err);
    if (status != GRAFT_OK)
        return status;
    status = FAILPOINT_ERROR("index.drop.before", &error);
    if (status == GRAFT_OK)
        status = rocks_write(index->rocks->db, index->rocks->write, batch, &error);
    status = written(index, status, &error, err);
    if (status == GRAFT_OK)
        FAILPOINT("index.drop.after");
    return status;
}
