// SPDX-License-Identifier: Apache-2.0
#include "pagestore/segment_writer.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"

// Index and footer, before and after compression: zstd adds less than 1% and a header to what it cannot
// compress.
#define TAIL_SIZE_MAX (SEGMENT_INDEX_SIZE_MAX + SEGMENT_INDEX_SIZE_MAX / 64 + 64 * KIB)

struct segment_writer {
    struct gid sid;
    struct objstore_upload *upload;
    struct segment_draft draft;
    uint32_t size; // bytes appended, magic included
};

static void writer_free(struct segment_writer *writer)
{
    segment_draft_release(&writer->draft);
    free(writer);
}

enum graft_status segment_writer_begin(struct objstore *store, struct segment_writer **ret_writer,
                                       struct graft_error *err)
{
    struct segment_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a segment");
    writer->sid = gid_make(GID_SEGMENT, clock_wall_ms(clock_system()));
    writer->size = SEGMENT_MAGIC_SIZE;
    struct bytes magic = {(const uint8_t *)SEGMENT_MAGIC, SEGMENT_MAGIC_SIZE};
    enum graft_status status =
        objstore_upload_begin(store, segment_key(&writer->sid).text, &writer->upload, err);
    if (status == GRAFT_OK)
        status = objstore_upload_append(writer->upload, magic, err);
    if (status != GRAFT_OK) {
        status = error_context(err, status, "beginning segment %s", gid_format(&writer->sid).text);
        segment_writer_abort(writer);
        return status;
    }
    FAILPOINT("segment.begun");
    *ret_writer = writer;
    return GRAFT_OK;
}

bool segment_writer_fits(const struct segment_writer *writer, uint64_t size, uint32_t pages)
{
    uint64_t held = writer->size - SEGMENT_MAGIC_SIZE;
    return writer->draft.page_count == 0 || (size <= SEGMENT_SEAL_SIZE - MIN(held, SEGMENT_SEAL_SIZE) &&
                                             pages <= SEGMENT_PAGES_MAX - writer->draft.page_count);
}

enum graft_status segment_writer_append(struct segment_writer *writer, const struct gid *vid,
                                        struct segment_draft_page *pages, uint32_t count,
                                        struct bytes payload, struct graft_error *err)
{
    CHECK(payload.size <= SEGMENT_SIZE_MAX - SEGMENT_INDEX_SIZE_MAX - writer->size);
    uint32_t at = writer->size;
    for (uint32_t i = 0; i < count; i++) {
        pages[i].page.offset = at;
        at += pages[i].page.size;
    }
    CHECK(at - writer->size == payload.size);
    FAILPOINT("segment.append");
    enum graft_status status = segment_draft_add(&writer->draft, vid, pages, count, err);
    if (status == GRAFT_OK && payload.size > 0)
        status = objstore_upload_append(writer->upload, payload, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "writing segment %s", gid_format(&writer->sid).text);
    writer->size = at;
    return GRAFT_OK;
}

const struct segment_draft *segment_writer_draft(const struct segment_writer *writer)
{
    return &writer->draft;
}

enum graft_status segment_writer_seal(struct segment_writer *writer, struct segment_sealed *ret_sealed,
                                      objstore_done_fn *done, void *context, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer tail = BUFFER_INIT(TAIL_SIZE_MAX);
    struct segment_footer footer;
    enum graft_status status = FAILPOINT_ERROR("segment.tail.before", err);
    if (status == GRAFT_OK)
        status = segment_tail_encode(&writer->draft, &writer->sid, writer->size, &tail, &footer, err);
    if (status == GRAFT_OK)
        status = objstore_upload_append(writer->upload, buffer_bytes(&tail), err);
    if (status != GRAFT_OK) {
        status = error_context(err, status, "sealing segment %s", gid_format(&writer->sid).text);
        segment_writer_abort(writer);
        return status;
    }
    // Set before the commit starts: `done` may run, and use it, before this function returns.
    *ret_sealed = (struct segment_sealed){
        .sid = writer->sid,
        .object_size = footer.object_size,
        .index_offset = footer.index_offset,
        .index_size = footer.index_size,
    };
    FAILPOINT("segment.seal.before");
    struct objstore_upload *upload = TAKE(writer->upload);
    writer_free(writer);
    objstore_upload_commit(upload, done, context);
    return GRAFT_OK;
}

void segment_writer_abort(struct segment_writer *writer)
{
    if (!writer)
        return;
    objstore_upload_abort(writer->upload);
    writer_free(writer);
}
