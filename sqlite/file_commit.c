// SPDX-License-Identifier: Apache-2.0
//
// Committing: the overlay goes into a writer of the volume, page 1 in canonical form and only if that changed, and becomes
// one local commit.
#include <string.h>

#include "client/page_one.h"
#include "common/base/check.h"
#include "sqlite/file_internal.h"
#include "sqlite/stage.h"

static void writer_abort_p(struct graft_writer **writer)
{
    graft_writer_abort(*writer);
}

// Makes of `page`, page 1, what is stored. True if the snapshot has it like that.
static bool canonical_first(struct volume_file *file, uint8_t *page)
{
    page_one_make_canonical(page, file->cookie_offset);
    if (!file->first_valid || file->page_count == 0 || overlay_cut(file->overlay) == 0)
        return false;
    memcpy(file->scratch, file->first, file->buffers_size);
    page_one_make_canonical(file->scratch, file->cookie_offset);
    return memcmp(page, file->scratch, file->buffers_size) == 0;
}

static enum graft_status fill_page(struct volume_file *file, struct graft_writer *writer, uint32_t pageidx,
                                   uint8_t *page, struct graft_error *err)
{
    bool found, same = false;

    enum graft_status status = overlay_get(file->overlay, pageidx, page, &found, err);
    if (status != GRAFT_OK)
        return status;
    CHECK(found);
    if (pageidx == 1)
        same = canonical_first(file, page);
    return same ? GRAFT_OK : graft_writer_write(writer, pageidx, page, file->buffers_size, err);
}

// The volume gets `page_count` pages; what was written above goes.
static enum graft_status fill_writer(struct volume_file *file, struct graft_writer *writer,
                                     uint32_t page_count, struct graft_error *err)
{
    _cleanup_(free_p) uint32_t *pages = NULL;
    _cleanup_(free_p) uint8_t *page = malloc(file->buffers_size);
    size_t count = 0;

    if (!page)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to commit a transaction");
    enum graft_status status = overlay_pages(file->overlay, &pages, &count, err);
    uint32_t cut = MIN(overlay_cut(file->overlay), page_count);
    if (status == GRAFT_OK && cut < file->page_count)
        status = graft_writer_truncate(writer, cut, err);
    for (size_t i = 0; i < count && status == GRAFT_OK && pages[i] <= page_count; i++)
        status = fill_page(file, writer, pages[i], page, err);
    if (status == GRAFT_OK && graft_writer_page_count(writer) != page_count)
        status = graft_writer_truncate(writer, page_count, err);
    return status;
}

uint32_t file_page_count_to_be(const struct volume_file *file)
{
    return file->wrote_first && file->written_page_count > 0 ? file->written_page_count
                                                             : overlay_page_count(file->overlay);
}

enum graft_status file_begin_commit(struct volume_file *file, uint32_t page_count,
                                    struct graft_writer **ret_writer, struct graft_error *err)
{
    _cleanup_(writer_abort_p) struct graft_writer *writer = NULL;
    enum graft_status status = GRAFT_OK;

    if (!atomic_load(&file->shared->volume)) {
        status = shared_make(file->shared, file->buffers_size, err);
        if (status == GRAFT_OK)
            status = file_freeze(file, err);
    }
    if (status == GRAFT_OK)
        status = graft_writer_begin(atomic_load(&file->shared->volume), &writer, err);
    if (status == GRAFT_OK)
        status = fill_writer(file, writer, page_count, err);
    if (status == GRAFT_OK)
        *ret_writer = TAKE(writer);
    return status;
}

static enum graft_status commit_overlay(struct volume_file *file, struct graft_error *err)
{
    struct graft_writer *writer;

    if (file->staged)
        return stage_commit(file, err);
    enum graft_status status = file_begin_commit(file, overlay_page_count(file->overlay), &writer, err);
    return status == GRAFT_OK ? graft_writer_commit(writer, NULL, err) : status;
}

// The handle's counter is what SQLite wrote last, so that its cache stays good; one more where it wrote another image than
// is stored, so that it reads page 1 again.
static void after_commit(struct volume_file *file)
{
    struct graft_snapshot *pin;
    struct graft_error why;

    if (file->wrote_first) {
        file->counter = file->written_counter + (file->first_was_forced ? 1 : 0);
        if (overlay_get(file->overlay, 1, file->first, &file->first_valid, &why) != GRAFT_OK)
            file->first_valid = false;
    }
    file_drop_overlay(file);
    if (graft_snapshot_open(atomic_load(&file->shared->volume), &pin, &why) == GRAFT_OK) {
        file_adopt_pin(file, pin);
        if (file->first_valid)
            page_one_fill_in(file->first, file->counter, file->page_count, 0);
    } else {
        // It is committed, so this is no failure of the commit.
        file->broken = true;
        errors_note(SQLITE_OK, file->shared->vid, &why);
    }
}

// A change of the journal mode to WAL, which gets here where its pragma was run by another main database, rewrites page 1
// and no more. Its commit would change nothing, and SQLite would go on with an image that says WAL. An error makes it read
// page 1 again.
bool file_only_asks_for_wal(struct volume_file *file)
{
    _cleanup_(free_p) uint32_t *pages = NULL;
    size_t count = 0;
    bool found;

    if (!file->first_was_forced || overlay_cut(file->overlay) < file->page_count ||
        overlay_page_count(file->overlay) != file->page_count)
        return false;
    if (overlay_pages(file->overlay, &pages, &count, NULL) != GRAFT_OK || count != 1 || pages[0] != 1)
        return false;
    _cleanup_(free_p) uint8_t *page = malloc(file->buffers_size);
    return page && overlay_get(file->overlay, 1, page, &found, NULL) == GRAFT_OK &&
           canonical_first(file, page);
}

int file_refuse_wal(struct volume_file *file)
{
    return errors_note_text(SQLITE_IOERR, file->shared->vid, GRAFT_INVALID,
                            "volume %s cannot have a write-ahead log; nothing was changed",
                            file->shared->vid);
}

// What a commit that failed has left is gone at once: SQLite reads everything again, in EXCLUSIVE mode without letting go of
// its lock.
static int give_up(struct volume_file *file, int code)
{
    file_drop_overlay(file);
    return code;
}

int file_commit(struct volume_file *file)
{
    struct graft_error why;

    if (!file->overlay)
        return SQLITE_OK;
    if (file->lock < SQLITE_LOCK_EXCLUSIVE)
        return errors_note_text(SQLITE_IOERR, file->shared->vid, GRAFT_INTERNAL,
                                "volume %s was to be committed without an exclusive lock", file->shared->vid);
    if (file_only_asks_for_wal(file))
        return give_up(file, file_refuse_wal(file));
    if (commit_overlay(file, &why) != GRAFT_OK) {
        error_context(&why, why.status, "committing to volume %s", file->shared->vid);
        return give_up(file, errors_note(errors_code_of_write(&why), file->shared->vid, &why));
    }
    after_commit(file);
    return SQLITE_OK;
}
