// SPDX-License-Identifier: Apache-2.0
//
// The commits of a volume in order, as frames of a stream, a bounded piece at a time: from packs where a
// good part of one is wanted, else one by one. A frame is a varint length and CommitsFrame{commit}; the
// commit's bytes are those of its record.
//
// Blocks for the store: runs on a reader thread, one at a time.
#ifndef METASTORE_LOG_READER_H
#define METASTORE_LOG_READER_H

#include "common/store/objstore.h"
#include "metastore/record.h"

#define LOG_PIECE_SIZE (256 * KIB) // read at once from a pack

struct log_reader {
    struct objstore *store;
    struct gid vid;
    uint64_t next_lsn, last_lsn; // what is left; next > last: nothing
    bool has_chain;
    struct hash128 chain; // at next_lsn - 1, once a commit was read

    // the pack being read, span 0: none
    uint32_t span;
    uint64_t pack_offset;
    uint64_t pack_lsn;     // of the record at the front of `pending`
    struct buffer pending; // bytes of the pack not yet parsed
};

void log_reader_init(struct log_reader *reader, struct objstore *store, const struct gid *vid,
                     uint64_t first_lsn, uint64_t last_lsn);
void log_reader_release(struct log_reader *reader);

// Appends at least one frame, about LOG_PIECE_SIZE at most, or one commit if it is larger. *ret_count: how
// many. Only while something is left. CORRUPT, or what the store said.
enum graft_status log_reader_next(struct log_reader *reader, struct buffer *to, uint64_t *ret_count,
                                  struct graft_error *err);

static inline bool log_reader_is_done(const struct log_reader *reader)
{
    return reader->next_lsn > reader->last_lsn;
}

#endif
