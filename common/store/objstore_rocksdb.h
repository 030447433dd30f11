// SPDX-License-Identifier: Apache-2.0
//
// The two halves of the RocksDB back-end: objstore_rocksdb.c (opening, reading, uploads) and objstore_committer.c (the
// one thread that changes anything a reader can see). The layout of the database is told here.
//
//     family    key                                     value
//     objects   the object's key                        record: format (1) = 1 ‖ layout (1) ‖ size (8) ‖ version (16)
//                                                       ‖ the bytes, if the layout is inline
//     parts     version (16) ‖ number (4, big-endian)   PART_SIZE bytes of an object that is not inline; the last: fewer
//     uploads   version (16)                            key; there while parts exist that no record names
//
// A version is milliseconds since 1970 (8, big-endian) ‖ random (8). It is the object's tag and names its parts.
//
// Invariants
//   1. Only the committer thread writes to `objects`, in synced batches; what a reader finds there may be unsynced only
//      between the batch's arrival in the memtable and its sync, and RocksDB shows a synced batch after its sync.
//   2. Parts are written before the record that names them, in one log: the record's sync covers them.
//   3. Parts without a record have a row in `uploads` that is written with the first of them; opening removes both.
#ifndef COMMON_STORE_OBJSTORE_ROCKSDB_H
#define COMMON_STORE_OBJSTORE_ROCKSDB_H

#include "common/store/disk_reserve.h"
#include "common/store/objstore_backend.h"
#include "common/store/rocksdb_util.h"
#include "common/store/store_fate.h"

#define RECORD_FORMAT 1
#define RECORD_HEADER_SIZE 26
#define INLINE_SIZE_MAX (64u << 10)
#define PART_SIZE (256u << 10)
#define VERSION_SIZE 16
#define PART_KEY_SIZE (VERSION_SIZE + 4)

enum record_layout {
    LAYOUT_INLINE = 0,
    LAYOUT_PARTS = 1,
};

struct version {
    uint8_t bytes[VERSION_SIZE];
};

struct record {
    enum record_layout layout;
    uint64_t size;
    struct version version;
    struct bytes data; // inline; borrowed
};

enum rocksdb_family {
    FAMILY_OBJECTS,
    FAMILY_PARTS,
    FAMILY_UPLOADS,
};

struct committer;

struct rocksdb_store {
    struct objstore base;
    struct rocks *rocks;
    struct committer *committer;
    struct store_fate fate;
    struct disk_reserve reserve;
    char *path;
};

// An upload gathers PART_SIZE bytes and writes them as a part, unsynced, on its own thread.
struct rocksdb_upload {
    struct objstore_upload base;
    struct version version;
    uint64_t size;
    uint32_t parts; // written
    struct buffer gathered;
};
void rocksdb_upload_free(struct rocksdb_upload *upload);

// CORRUPT if it is no record of ours.
enum graft_status record_decode(struct bytes value, const char *key, struct record *ret_record,
                                struct graft_error *err);
void record_encode_header(const struct record *record, uint8_t to[RECORD_HEADER_SIZE]);
static inline uint32_t record_part_count(uint64_t size)
{
    return (uint32_t)((size + PART_SIZE - 1) / PART_SIZE);
}
void part_key(const struct version *version, uint32_t number, uint8_t to[PART_KEY_SIZE]);
struct version version_make(uint64_t wall_ms, uint64_t random);
void version_format(const struct version *version, char to[OBJSTORE_TAG_SIZE + 1]);

// Owns the writing side: create, replace, remove and the commit of uploads.
enum graft_status committer_new(struct rocksdb_store *store, struct committer **ret_committer,
                                struct graft_error *err);
void committer_free(struct committer *committer); // nothing is under way; NULL is fine
void committer_submit(struct committer *committer, struct objstore_op *op);

#endif
