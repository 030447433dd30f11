// SPDX-License-Identifier: Apache-2.0
//
// One segment on its way into the object store: payloads are passed on as they come, the index is collected
// and follows at the end. begin, append …, then seal or abort. Not thread-safe; begin, append and seal may
// block for the disk.
#ifndef PAGESTORE_SEGMENT_WRITER_H
#define PAGESTORE_SEGMENT_WRITER_H

#include "common/store/objstore.h"
#include "pagestore/segment_draft.h"

struct segment_writer;

// What a reference needs to say about a whole segment.
struct segment_sealed {
    struct gid sid;
    uint64_t object_size;
    uint64_t index_offset;
    uint32_t index_size;
};

// Statuses of all three: those of the object store (NO_SPACE, IO, UNAVAILABLE), naming the segment.
enum graft_status segment_writer_begin(struct objstore *store, struct segment_writer **ret_writer,
                                       struct graft_error *err);

// Whether `size` more bytes in `pages` more pages keep the segment within SEGMENT_SEAL_SIZE and
// SEGMENT_PAGES_MAX. An empty segment takes any block.
bool segment_writer_fits(const struct segment_writer *writer, uint64_t size, uint32_t pages);

// `payload` holds the pages one behind the other, as their sizes say; their offsets are set here. After a
// failure only an abort is left.
enum graft_status segment_writer_append(struct segment_writer *writer, const struct gid *vid,
                                        struct segment_draft_page *pages, uint32_t count,
                                        struct bytes payload, struct graft_error *err);

// What was appended so far.
const struct segment_draft *segment_writer_draft(const struct segment_writer *writer);

// Completes a segment that is not empty and starts to make it durable; frees the writer either way. On OK
// `done` will run, once, and *ret_sealed is what it will be; otherwise nothing is left behind and `done` will
// not run.
enum graft_status segment_writer_seal(struct segment_writer *writer, struct segment_sealed *ret_sealed,
                                      objstore_done_fn *done, void *context, struct graft_error *err);
void segment_writer_abort(struct segment_writer *writer); // leaves nothing behind; NULL is fine

#endif
