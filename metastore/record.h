// SPDX-License-Identifier: Apache-2.0
//
// Records: what the metastore keeps as objects. Layout (docs/FORMATS.md, integers little-endian):
//
//     "GRFTREC1" 8 ‖ type 4 ‖ size 4 ‖ protobuf message ‖ XXH3-64 of all before 8
//
// A decoder trusts nothing: whatever does not fit what was asked for (another volume, another LSN, a chain
// that does not follow) is CORRUPT and the message says where. Not thread-safe as objects; the functions
// keep no state.
#ifndef METASTORE_RECORD_H
#define METASTORE_RECORD_H

#include "common/base/buffer.h"
#include "common/base/checksum.h"
#include "common/base/gid.h"
#include "common/base/pageset.h"
#include "common/net/message.h"

enum record_type {
    RECORD_VOLUME = 1,
    RECORD_COMMIT = 2,
    RECORD_SUMMARY = 3,
};

#define RECORD_HEADER_SIZE 16u
#define RECORD_OVERHEAD (RECORD_HEADER_SIZE + 8u)
#define RECORD_SIZE_MAX (64 * MIB) // a summary of a very scattered page set; commits have their own limit

// Appends the record. LIMIT at the buffer's cap.
enum graft_status record_encode(enum record_type type, const ProtobufCMessage *message, struct buffer *to,
                                struct graft_error *err);

// Of bytes that begin with a record: its size. 0 while they are too few to tell. CORRUPT if no record
// begins here.
enum graft_status record_size(struct bytes from, size_t *ret_size, struct graft_error *err);

// Checks a whole record and borrows the message in it. CORRUPT.
enum graft_status record_verify(struct bytes record, enum record_type type, struct bytes *ret_message,
                                struct graft_error *err);

// ---- catalog/<vid>

// What a fork was made from.
struct volume_origin {
    struct gid vid;
    uint64_t lsn; // 0: the volume is no fork
    struct hash128 chain;
    uint64_t fork_lsn; // the last of the commits that copy the references
};

struct volume_record {
    struct gid vid;
    uint32_t page_size;
    bool variable;
    uint64_t created_ms;
    struct volume_origin origin;
};

enum graft_status volume_record_encode(const struct volume_record *volume, struct buffer *to,
                                       struct graft_error *err);
enum graft_status volume_record_decode(struct bytes record, const struct gid *vid,
                                       struct volume_record *ret_volume, struct graft_error *err);

// ---- volumes/<vid>/commits/<lsn>

// A commit without its segments.
struct commit_facts {
    struct gid vid;
    uint64_t lsn, base_lsn;
    struct hash128 base_chain; // at lsn - 1
    struct token token;
    struct hash128 digest;
    uint32_t page_count, cut;
    uint64_t time_ms;
    struct hash128 chain;
    bool deleted;
};

// `message` may carry segments of its own; every other field is taken from *facts.
enum graft_status commit_record_encode(const struct commit_facts *facts, const struct gid *cid,
                                       Graft__SegmentRef **segments, size_t segment_count, struct buffer *to,
                                       struct graft_error *err);
// Checks everything that a commit says about itself: volume, LSN, chain. *ret_commit is message_free()d by
// the caller.
enum graft_status commit_record_open(struct bytes record, const struct gid *vid, uint64_t lsn,
                                     struct commit_facts *ret_facts, Graft__Commit **ret_commit,
                                     struct graft_error *err);
// The same for those who want no segments, or of them only the pages: `pages` (NULL: not wanted) is
// united with the commit's page sets.
enum graft_status commit_record_decode(struct bytes record, const struct gid *vid, uint64_t lsn,
                                       struct commit_facts *ret_facts, struct pageset *pages,
                                       struct graft_error *err);

// ---- sum/<span>/<n>, retired

struct summary {
    struct gid vid;
    uint64_t first_lsn, last_lsn;
    uint32_t cut;
    struct hash128 chain; // at last_lsn
};

enum graft_status summary_encode(const struct summary *summary, const struct pageset *pages,
                                 struct buffer *to, struct graft_error *err);
// `pages` (NULL: not wanted) is united with the summary's page set.
enum graft_status summary_decode(struct bytes record, const struct gid *vid, struct summary *ret_summary,
                                 struct pageset *pages, struct graft_error *err);

#endif
