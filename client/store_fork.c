// SPDX-License-Identifier: Apache-2.0
//
// Forking: a new volume of this directory that is what another is now. What the other shares with the servers the
// new one shares with their fork, unfetched; what the other has not pushed is copied, as one local commit.
//
//     begin: the new VID is kept ──▶ (the servers make their fork) ──▶ finish: pages staged under a number that no
//     volume has yet ──▶ one synced batch: the volume's record, its commit, and what begin kept goes
//
// A crash leaves the volume whole or not at all; opening the directory drops what was staged.
#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

#include <stdlib.h>

#define KEPT_SIZE (GID_SIZE + 8 + HASH_SIZE)

// ---- what is kept

static enum graft_status read_kept(struct store_volume *volume, const struct store_remote *base,
                                   struct gid *ret_vid, bool *ret_found, struct graft_error *err)
{
    struct store_key key = store_key_fork(volume->number);
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *slice = NULL;
    enum graft_status status = store_get(volume->store->local, FAMILY_VOLUMES, &key, &slice, err);
    if (status != GRAFT_OK)
        return status;
    *ret_found = false;
    if (!slice)
        return GRAFT_OK;
    struct bytes value = rocks_slice(slice);
    // One that was kept at another base was never finished, and never will be.
    if (value.size != KEPT_SIZE || get_le64(value.data + GID_SIZE) != base->lsn ||
        memcmp(value.data + GID_SIZE + 8, base->chain.bytes, HASH_SIZE) != 0)
        return GRAFT_OK;
    memcpy(ret_vid->bytes, value.data, GID_SIZE);
    *ret_found = gid_is_kind(ret_vid, GID_VOLUME);
    return GRAFT_OK;
}

enum graft_status store_fork_begin(struct store_volume *volume, const struct gid *fresh,
                                   struct gid *ret_new_vid, struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    struct store_remote base = store_volume_record(volume).state.remote;
    struct gid kept;
    bool found;
    status = read_kept(volume, &base, &kept, &found, err);
    if (status == GRAFT_OK && !found) {
        uint8_t value[KEPT_SIZE];
        kept = *fresh;
        memcpy(value, kept.bytes, GID_SIZE);
        put_le64(value + GID_SIZE, base.lsn);
        memcpy(value + GID_SIZE + 8, base.chain.bytes, HASH_SIZE);
        _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
        struct store_key key = store_key_fork(volume->number);
        store_put(volume->store->local, batch, FAMILY_VOLUMES, &key, (struct bytes){value, sizeof value});
        status = FAILPOINT_ERROR("fork.keep.before", err);
        if (status == GRAFT_OK)
            status = store_write(volume->store, volume->store->local, true, batch, err);
        FAILPOINT("fork.keep.after");
    }
    if (status == GRAFT_OK)
        *ret_new_vid = kept;
    return status;
}

// ---- the copy

#define COPY_SIZE (256 * KIB) // that is in memory

static enum graft_status copy_some(struct store_pin *pin, struct store_read *reads, size_t count,
                                   struct store_writer *writer, struct graft_error *err)
{
    struct store_volume *volume = store_pin_volume(pin);
    enum graft_status status = store_read_many(pin, reads, count, err);
    for (size_t i = 0; i < count && status == GRAFT_OK; i++) {
        struct store_page *page = &reads[i].page;
        // An empty page that was written can only be one of size 0.
        if (page->state == STORE_PAGE_EMPTY && volume->kind == GRAFT_VARIABLE)
            page->size = 0;
        else if (page->state != STORE_PAGE_AVAILABLE)
            status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                               "page %u of volume %s was written here, but the local store does not have it",
                               reads[i].pageidx, gid_format(&volume->vid).text);
        if (status == GRAFT_OK)
            status = store_writer_write(writer, reads[i].pageidx, reads[i].to, page->size, err);
    }
    return status == GRAFT_OK ? GRAFT_OK : error_context(err, status, "copying pages");
}

static enum graft_status copy_pages(struct store_pin *pin, const struct pageset *pages,
                                    struct store_writer *writer, struct graft_error *err)
{
    struct store_volume *volume = store_pin_volume(pin);
    size_t at_once = COPY_SIZE / volume->page_size, count = 0;
    _cleanup_(free_p) uint8_t *bytes = malloc(COPY_SIZE);
    _cleanup_(free_p) struct store_read *reads = calloc(at_once, sizeof *reads);
    if (!bytes || !reads)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to copy pages");
    struct pageset_cursor cursor = pageset_cursor(pages);
    uint32_t pageidx;
    enum graft_status status = GRAFT_OK;
    while (status == GRAFT_OK && pageset_next(&cursor, &pageidx)) {
        reads[count] = (struct store_read){.pageidx = pageidx, .to = bytes + count * volume->page_size};
        if (++count < at_once)
            continue;
        status = copy_some(pin, reads, count, writer, err);
        count = 0;
    }
    return status == GRAFT_OK ? copy_some(pin, reads, count, writer, err) : status;
}

// What the pin shows above the mapping, into the writer.
static enum graft_status copy_unpushed(struct store_pin *pin, uint64_t mapped_lsn,
                                       struct store_writer *writer, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    uint32_t cut;
    enum graft_status status =
        store_commits_union(store_pin_volume(pin), mapped_lsn, store_pin_lsn(pin), true, pages, &cut, err);
    if (status == GRAFT_OK && cut < store_writer_page_count(writer))
        status = store_writer_truncate(writer, cut, err);
    if (status == GRAFT_OK)
        status = store_writer_truncate(writer, store_pin_page_count(pin), err);
    return status == GRAFT_OK ? copy_pages(pin, pages, writer, err) : status;
}

// The copy of a volume without unpushed commits is its record alone.
static enum graft_status publish_bare(struct store_volume *fork, struct graft_error *err)
{
    LOCK_GUARD(&fork->commit_lock);
    struct store_record record = store_volume_record(fork);
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    return store_publish_locked(fork, batch, &record, true, err);
}

static enum graft_status fill(struct store_volume *volume, struct store_volume *fork, struct graft_error *err)
{
    struct store_state state;
    _cleanup_(store_writer_abort_p) struct store_writer *writer = NULL;
    _cleanup_(store_pin_release_p) struct store_pin *pin = NULL;

    store_volume_state(volume, &state);
    enum graft_status status = store_pin_open(volume, &pin, err);
    if (status == GRAFT_OK && store_pin_lsn(pin) == state.mapped_lsn)
        return publish_bare(fork, err);
    if (status == GRAFT_OK)
        status = store_writer_begin(fork, &writer, err);
    if (status == GRAFT_OK)
        status = copy_unpushed(pin, state.mapped_lsn, writer, err);
    if (status != GRAFT_OK)
        return status;
    uint64_t before = store_pin_lsn(store_writer_base(writer)), lsn;
    status = store_writer_commit(TAKE(writer), &lsn, err);
    return status == GRAFT_OK && lsn == before ? publish_bare(fork, err) : status;
}

enum graft_status store_fork_finish(struct store_volume *volume, const struct gid *new_vid,
                                    const struct store_remote *head, struct store_volume **ret_volume,
                                    struct graft_error *err)
{
    _cleanup_(store_volume_close_p) struct store_volume *fork = NULL;
    CHECK(head->page_count == store_volume_record(volume).state.remote.page_count);
    FAILPOINT("fork.finish.before");
    enum graft_status status = store_volume_prepare(volume, new_vid, head, &fork, err);
    if (status == GRAFT_OK)
        status = fill(volume, fork, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "forking volume %s", gid_format(&volume->vid).text);
    *ret_volume = TAKE(fork);
    return GRAFT_OK;
}
