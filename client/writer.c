// SPDX-License-Identifier: Apache-2.0
//
// Writing: the store's writer, with what it misses fetched.
#include <stdlib.h>

#include "client/client.h"
#include "client/prepare.h"
#include "client/sync.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/pageset.h"

struct graft_writer {
    struct graft_volume *volume;
    struct store_writer *store;
    bool prepared;
};

enum graft_status graft_writer_begin(struct graft_volume *volume, struct graft_writer **ret_writer,
                                     struct graft_error *err)
{
    REQUIRE(volume);
    REQUIRE(ret_writer);
    enum graft_status status = store_check_fork(volume->client->store, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(free_p) struct graft_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a writer");
    writer->volume = volume;
    status = store_writer_begin(volume->store, &writer->store, err);
    if (status == GRAFT_OK)
        *ret_writer = TAKE(writer);
    return status;
}

uint64_t writer_base_lsn(const struct graft_writer *writer)
{
    return store_pin_lsn(store_writer_base(writer->store));
}

static enum graft_status writer_check(const struct graft_writer *writer, struct graft_error *err)
{
    return store_check_fork(writer->volume->client->store, err);
}

static enum graft_status writer_check_open(const struct graft_writer *writer, struct graft_error *err)
{
    if (writer->prepared)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "a prepared writer takes no more changes: commit or abort it");
    return writer_check(writer, err);
}

enum graft_status graft_writer_write(struct graft_writer *writer, uint32_t pageidx, const void *data,
                                     size_t size, struct graft_error *err)
{
    REQUIRE(writer);
    if (size > 0)
        REQUIRE(data);
    enum graft_status status = writer_check_open(writer, err);
    if (status != GRAFT_OK)
        return status;
    return store_writer_write(writer->store, pageidx, data, size, err);
}

enum graft_status graft_writer_read(struct graft_writer *writer, uint32_t pageidx, void *to, size_t to_size,
                                    size_t *ret_size, struct graft_error *err)
{
    REQUIRE(writer);
    REQUIRE(to);
    REQUIRE(ret_size);
    struct graft_volume *volume = writer->volume;
    enum graft_status status = writer_check(writer, err);
    if (status == GRAFT_OK)
        status = volume_check_page(volume, pageidx, to_size, err);
    if (status != GRAFT_OK)
        return status;
    for (unsigned round = 0; round < READ_ROUNDS_MAX; round++) {
        struct store_page page;
        status = store_writer_read(writer->store, pageidx, to, to_size, &page, err);
        if (status != GRAFT_OK)
            return status;
        if (page.state != STORE_PAGE_PENDING) {
            *ret_size = page.state == STORE_PAGE_AVAILABLE
                            ? page.size
                            : volume_fill_empty(volume, pageidx, store_writer_page_count(writer->store), to);
            return GRAFT_OK;
        }
        status = volume_fetch(volume, store_writer_base(writer->store), &page, err);
        if (status != GRAFT_OK)
            return status;
    }
    return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NONE,
                     "page %u of volume %s was fetched %u times and is not here", pageidx,
                     gid_format(&volume->source.vid).text, READ_ROUNDS_MAX);
}

enum graft_status graft_writer_truncate(struct graft_writer *writer, uint32_t page_count,
                                        struct graft_error *err)
{
    REQUIRE(writer);
    enum graft_status status = writer_check_open(writer, err);
    if (status != GRAFT_OK)
        return status;
    return store_writer_truncate(writer->store, page_count, err);
}

uint32_t graft_writer_page_count(const struct graft_writer *writer)
{
    return writer ? store_writer_page_count(writer->store) : 0;
}

enum graft_status graft_writer_commit(struct graft_writer *writer, uint64_t *ret_lsn, struct graft_error *err)
{
    REQUIRE(writer);
    enum graft_status status = writer_check(writer, err);
    if (status != GRAFT_OK)
        return status;
    struct graft_volume *volume = writer->volume;
    bool prepared = writer->prepared;
    status = store_writer_commit(writer->store, ret_lsn, err);
    free(writer);
    if (status != GRAFT_OK)
        return status;
    // Should it come back, the head says that it was committed.
    if (prepared) {
        FAILPOINT("prepare.committed");
        prepare_remove(volume->client, &volume->source.vid, false, NULL);
    }
    sync_note_commit(volume);
    return GRAFT_OK;
}

enum graft_status graft_writer_prepare(struct graft_writer *writer, const char *witness,
                                       struct graft_error *err)
{
    struct store_state state;

    REQUIRE(writer);
    REQUIRE(witness);
    enum graft_status status = writer_check_open(writer, err);
    if (status != GRAFT_OK)
        return status;
    struct graft_volume *volume = writer->volume;
    store_volume_state(volume->store, &state);
    if (state.local_lsn != writer_base_lsn(writer))
        return error_set(
            err, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
            "volume %s: this write began at local LSN %llu and the head is %llu now; begin again from there",
            gid_format(&volume->source.vid).text, (unsigned long long)writer_base_lsn(writer),
            (unsigned long long)state.local_lsn);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    store_writer_pages(writer->store, pages);
    struct prepare prepare = {
        .vid = &volume->source.vid,
        .base_lsn = state.local_lsn,
        .page_count = store_writer_page_count(writer->store),
        .cut = store_writer_cut(writer->store),
        .pages = pages,
        .witness = witness,
        .page_size = volume->source.page_size,
    };
    status = prepare_write(volume->client, &prepare, writer, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "preparing a write to volume %s",
                             gid_format(&volume->source.vid).text);
    writer->prepared = true;
    return GRAFT_OK;
}

static enum graft_status check_together(struct graft_writer *const *writers, unsigned count,
                                        struct graft_error *err)
{
    for (unsigned i = 0; i < count; i++) {
        REQUIRE(writers[i]);
        enum graft_status status = writer_check(writers[i], err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

enum graft_status graft_writer_commit_all(struct graft_writer *const *writers, unsigned count,
                                          uint64_t *ret_lsns, struct graft_error *err)
{
    REQUIRE(writers);
    enum graft_status status = check_together(writers, count, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(free_p) struct store_writer **stores = calloc(count + 1, sizeof *stores);
    if (!stores)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a commit");
    for (unsigned i = 0; i < count; i++)
        stores[i] = writers[i]->store;
    status = store_writer_commit_all(stores, count, ret_lsns, err);
    for (unsigned i = 0; i < count; i++) {
        if (status == GRAFT_OK)
            sync_note_commit(writers[i]->volume);
        free(writers[i]);
    }
    return status;
}

void graft_writer_abort(struct graft_writer *writer)
{
    if (!writer || client_is_forked(writer->volume->client))
        return;
    if (writer->prepared)
        prepare_remove(writer->volume->client, &writer->volume->source.vid, true, NULL);
    store_writer_abort(writer->store);
    free(writer);
}
