// SPDX-License-Identifier: Apache-2.0
//
// Commits of writers.
//
//     prepare: everything that can be wrong is looked for ──▶ the log: durable ──▶ one batch for the index: visible
//                                                              │ fails: nothing was done      │ fails: the log takes it back
//
// With durability full the log's sync is the moment from which the commit is there after a crash: an opening that does not
// find it in the index applies it (store_replay.c), with the functions that are used here.
#include <stdlib.h>

#include "client/store_writer.h"
#include "common/base/failpoint.h"

// A writer's way to the head.
struct landing {
    struct store_writer *writer;
    struct store_change change;
    struct pageset *list; // what it has in memory
    struct store_record next;
    bool nothing; // it changed nothing
};

static void landing_release(struct landing *landing)
{
    if (landing->writer)
        store_change_release(&landing->change);
    pageset_free(landing->list);
}

static bool changed_nothing(const struct store_writer *writer)
{
    return !writer->pages && pageset_is_empty(writer->staged.pages) &&
           writer->page_count == writer->base->page_count && writer->cut == writer->base->page_count;
}

static enum graft_status check_locked(struct store_writer *writer, struct graft_error *err)
{
    enum graft_status status = store_check_usable(writer->volume->store, err);
    if (status == GRAFT_OK && writer->failure.status != GRAFT_OK)
        status = error_copy(err, &writer->failure);
    return status == GRAFT_OK ? store_writer_check_locked(writer, err) : status;
}

static void fill_next(struct landing *landing)
{
    const struct store_writer *writer = landing->writer;
    struct store_record next = store_volume_record(writer->volume);
    next.state.local_lsn = landing->change.lsn;
    next.state.page_count = writer->page_count;
    if (writer->cut < writer->base->page_count)
        store_record_cut(&next, landing->change.lsn, writer->cut);
    landing->next = next;
}

static enum graft_status prepare_locked(struct landing *landing, struct page_log_append *append,
                                        struct graft_error *err)
{
    struct store_writer *writer = landing->writer;
    struct store_volume *volume = writer->volume;
    landing->nothing = changed_nothing(writer);
    // It may have staged pages and cut them off again: their lists would be taken for the next commit's.
    if (landing->nothing)
        return store_writer_drop_staged_locked(writer, err);
    enum graft_status status = store_doom_stager_locked(volume, writer, err);
    bool cuts = writer->cut < writer->base->page_count;
    if (status == GRAFT_OK)
        status = store_change_init(&landing->change, volume, store_writer_lsn(writer),
                                   cuts ? writer->cut : UINT32_MAX, writer->base->page_count, err);
    if (status == GRAFT_OK)
        status = store_writer_prepare(writer, &landing->change, landing->list, err);
    if (status == GRAFT_OK)
        status = store_change_part(&landing->change, 0, writer->page_count, writer->cut, landing->list, err);
    if (status == GRAFT_OK)
        status = store_staged_end(&writer->staged, &landing->change, err);
    if (status != GRAFT_OK)
        return status;
    fill_next(landing);
    return store_writer_fill_append(writer, true, append, err);
}

// ---- several at once

struct landings {
    struct landing *items;
    struct page_log_append *appends; // of those that changed something, in their order
    unsigned count, append_count;
};

static void landings_release(struct landings *landings)
{
    for (unsigned i = 0; landings->items && i < landings->count; i++)
        landing_release(&landings->items[i]);
    for (unsigned i = 0; landings->appends && i < landings->append_count; i++)
        store_append_release(&landings->appends[i]);
    free(landings->items);
    free(landings->appends);
}

static enum graft_status landings_init(struct landings *landings, struct store_writer *const *writers,
                                       unsigned count, struct graft_error *err)
{
    *landings = (struct landings){.items = calloc(count, sizeof *landings->items),
                                  .appends = calloc(count, sizeof *landings->appends),
                                  .count = count};
    if (!landings->items || !landings->appends)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a commit");
    for (unsigned i = 0; i < count; i++)
        landings->items[i] = (struct landing){
            .writer = writers[i], .change = {.volume = writers[i]->volume}, .list = pageset_new()};
    return GRAFT_OK;
}

static enum graft_status prepare_all_locked(struct landings *landings, struct graft_error *err)
{
    enum graft_status status = GRAFT_OK;
    // All are looked at before anything is done: a stager is doomed by who can commit.
    for (unsigned i = 0; status == GRAFT_OK && i < landings->count; i++)
        status = check_locked(landings->items[i].writer, err);
    for (unsigned i = 0; status == GRAFT_OK && i < landings->count; i++) {
        struct page_log_append *append = &landings->appends[landings->append_count];
        status = prepare_locked(&landings->items[i], append, err);
        landings->append_count += status == GRAFT_OK && !landings->items[i].nothing;
    }
    for (unsigned i = 0; i < landings->append_count; i++) {
        landings->appends[i].header.group_index = (uint16_t)i;
        landings->appends[i].header.group_count = (uint16_t)landings->append_count;
    }
    return status;
}

// One batch of all that the index is told.
static enum graft_status write_all_locked(struct landings *landings, bool synced, struct graft_error *err)
{
    struct store *store = landings->items[0].writer->volume->store;
    rocksdb_writebatch_t *batches[COMMIT_VOLUMES_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < landings->count; i++) {
        struct landing *landing = &landings->items[i];
        if (landing->nothing)
            continue;
        enum graft_status status =
            store_writer_index_locked(landing->writer, &landing->change, &landings->appends[count], err);
        if (status != GRAFT_OK)
            return status;
        store_put_changes(store->local, FAMILY_EXTENTS, landing->change.batch, &landing->change.changes);
        store_put_record(landing->writer->volume, landing->change.batch, &landing->next);
        batches[count++] = landing->change.batch;
    }
    enum graft_status status = FAILPOINT_ERROR("commit.publish.before", err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *joined =
        count > 1 ? rocks_batch_join(batches, count) : NULL;
    return store_write(store, store->local, synced, joined ? joined : batches[0], err);
}

static enum graft_status publish_all_locked(struct landings *landings, bool synced, struct graft_error *err)
{
    struct store *store = landings->items[0].writer->volume->store;
    LOCK_GUARD(&store->places_lock);
    enum graft_status status = write_all_locked(landings, synced, err);
    FAILPOINT("commit.publish.after");
    for (unsigned i = 0; status == GRAFT_OK && i < landings->count; i++) {
        struct landing *landing = &landings->items[i];
        if (landing->nothing)
            continue;
        extents_apply(store->pages, &landing->change.changes);
        store_set_record_locked(landing->writer->volume, &landing->next);
    }
    return status;
}

static void landed_locked(struct landing *landing)
{
    struct store_writer *writer = landing->writer;
    struct store_volume *volume = writer->volume;
    if (volume->stager == writer)
        volume->stager = NULL;
    pageset_union(landing->list, writer->staged.pages);
    store_counts_cut_locked(volume, writer->cut);
    store_counts_available_locked(volume, landing->list);
}

static enum graft_status land_all_locked(struct landings *landings, struct graft_error *err)
{
    struct store *store = landings->items[0].writer->volume->store;
    enum graft_status status = prepare_all_locked(landings, err);
    if (status != GRAFT_OK || landings->append_count == 0)
        return status;
    // A fork's first commit brings its record, which only the index has.
    bool first = false;
    for (unsigned i = 0; i < landings->count; i++)
        first = first || landings->items[i].writer->volume->origin_number > 0;
    FAILPOINT("commit.append.before");
    status =
        store_log_append(store, landings->appends, landings->append_count, store->sync_commits || first, err);
    FAILPOINT("commit.append.after");
    if (status != GRAFT_OK)
        return status;
    status = publish_all_locked(landings, first, err);
    if (status != GRAFT_OK)
        store_log_void(store, landings->appends, landings->append_count);
    for (unsigned i = 0; status == GRAFT_OK && i < landings->append_count; i++)
        page_log_applied(store->log, &landings->appends[i]);
    for (unsigned i = 0; status == GRAFT_OK && i < landings->count; i++) {
        if (!landings->items[i].nothing)
            landed_locked(&landings->items[i]);
    }
    return status;
}

// ---- the calls

static int by_number(const void *a, const void *b)
{
    const struct landing *left = a, *right = b;
    uint64_t x = left->writer->volume->number, y = right->writer->volume->number;
    return (x > y) - (x < y);
}

static enum graft_status check_writers(struct store_writer *const *writers, unsigned count,
                                       struct graft_error *err)
{
    if (count == 0 || count > COMMIT_VOLUMES_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "a commit of %u volumes; there may be 1 to %u in one", count, COMMIT_VOLUMES_MAX);
    for (unsigned i = 0; i < count; i++) {
        if (writers[i]->volume->store != writers[0]->volume->store)
            return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                             "a commit of volumes of two data directories");
        for (unsigned k = 0; k < i; k++) {
            if (writers[k]->volume == writers[i]->volume)
                return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                                 "two writers of volume %s in one commit",
                                 gid_format(&writers[i]->volume->vid).text);
        }
    }
    return GRAFT_OK;
}

static enum graft_status land_all(struct store_writer *const *writers, unsigned count,
                                  struct graft_error *err)
{
    _cleanup_(landings_release) struct landings landings = {.count = 0};
    enum graft_status status = check_writers(writers, count, err);
    if (status == GRAFT_OK)
        status = landings_init(&landings, writers, count, err);
    if (status != GRAFT_OK)
        return status;
    qsort(landings.items, count, sizeof *landings.items, by_number);
    for (unsigned i = 0; i < count; i++)
        mutex_lock(&landings.items[i].writer->volume->commit_lock);
    status = land_all_locked(&landings, err);
    for (unsigned i = count; i > 0; i--)
        mutex_unlock(&landings.items[i - 1].writer->volume->commit_lock);
    return status;
}

// The base's pin would keep what was just superseded, so it goes first.
static uint64_t end_writer(struct store_writer *writer)
{
    struct store_volume *volume = store_volume_ref(writer->volume);
    uint64_t lsn = changed_nothing(writer) ? writer->base->lsn : store_writer_lsn(writer);
    size_t entries = pageset_count(writer->staged.pages) + HASH_COUNT(writer->pages);
    store_writer_free(writer);
    mutex_lock(&volume->commit_lock);
    store_sweep_after_locked(volume, lsn, entries);
    mutex_unlock(&volume->commit_lock);
    FAILPOINT("commit.swept");
    store_volume_close(volume);
    return lsn;
}

enum graft_status store_writer_commit_all(struct store_writer *const *writers, unsigned count,
                                          uint64_t *ret_lsns, struct graft_error *err)
{
    enum graft_status status = land_all(writers, count, err);
    for (unsigned i = 0; i < count; i++) {
        if (status != GRAFT_OK) {
            store_writer_abort(writers[i]);
            continue;
        }
        uint64_t lsn = end_writer(writers[i]);
        if (ret_lsns)
            ret_lsns[i] = lsn;
    }
    return status;
}

enum graft_status store_writer_commit(struct store_writer *writer, uint64_t *ret_lsn, struct graft_error *err)
{
    return store_writer_commit_all(&writer, 1, ret_lsn, err);
}
