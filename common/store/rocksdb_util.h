// SPDX-License-Identifier: Apache-2.0
//
// RocksDB as this tree uses it: one set of options with bounded memory, opened with our own lock and closed in the one
// order that Debian's build (assertions on) survives; its error strings turned into graft_error; owners for the C API's
// objects, whose own destructors do not take NULL.
//
//     static const struct rocks_family families[] = {{.name = "index", .compression = ROCKS_LZ4}};
//     status = rocks_open(path, &settings, families, ARRAY_COUNT(families), &rocks, err);
//     … rocks->db, rocks->families[0], rocks->read, rocks->write_synced …
//     rocks_close(rocks);      // after every iterator, snapshot and pinned slice is gone
//
// Thread rule: RocksDB's own. A handle may be used by all threads; batches and scans belong to one.
#ifndef COMMON_STORE_ROCKSDB_UTIL_H
#define COMMON_STORE_ROCKSDB_UTIL_H

#include <rocksdb/c.h>
#include <stdbool.h>

#include "common/base/bytes.h"
#include "common/base/compiler.h"
#include "common/base/error.h"
#include "common/base/limits.h"

#define ROCKS_FAMILIES_MAX 8

enum rocks_compression {
    ROCKS_RAW, // values that are compressed already, or read too often to be
    ROCKS_LZ4,
};

struct rocks_family {
    const char *name; // not "default"
    enum rocks_compression compression;
    bool
        point_reads; // mostly read by whole key, often in vain: a Bloom filter, 10 bits a key, in memory for open files
    bool sums; // values are 8 bytes, little-endian; a merge adds (a negative one in two's complement)
};

struct rocks_settings {
    size_t block_cache_size;  // of all families together
    struct rocks *cache_of;   // share this database's cache instead; it is closed later. NULL: one of its own
    size_t write_buffer_size; // of all families together; about half as much again while one is being flushed
    unsigned max_open_files;  // each with its index blocks in memory
    bool
        holds_log; // unsynced writes go to the log's file with the next synced one, so that what they rest on can go first
};

struct rocks {
    rocksdb_t *db;
    rocksdb_column_family_handle_t *families[ROCKS_FAMILIES_MAX]; // in the order given to rocks_open()
    rocksdb_readoptions_t *read;                                  // defaults; shared, never changed
    rocksdb_writeoptions_t *write;                                // not synced
    rocksdb_writeoptions_t *write_synced;

    // what rocks_close() needs
    size_t family_count;
    rocksdb_column_family_handle_t *default_family; // RocksDB insists on it; empty
    rocksdb_options_t *db_options;
    rocksdb_options_t *family_options[ROCKS_FAMILIES_MAX];
    rocksdb_cache_t *cache;
    int lock_fd;
};

// Opens the database in the folder `path`, which is made if missing, after taking an exclusive lock on
// `path`/graft.lock. Families that are missing are created.
// BUSY / LOCKED with the holder's pid; CORRUPT; INTERNAL / NO_SPACE or IO; DENIED; INVALID if the database holds
// families that were not named (it is of a newer version, or not ours).
//
// After a crash the log is replayed up to its first damaged record (point-in-time recovery): a write that was being
// appended when the power failed may leave garbage there, and must not keep the database from opening. What was synced
// lies before it.
enum graft_status rocks_open(const char *path, const struct rocks_settings *settings,
                             const struct rocks_family *families, size_t family_count,
                             struct rocks **ret_rocks, struct graft_error *err);
void rocks_close(struct rocks *rocks); // flushes nothing: the log has it. NULL is fine
DEFINE_CLEANUP(struct rocks, rocks_close)

// For every `char *message` that RocksDB's C API fills in: NULL → GRAFT_OK; else frees it and turns it into
// "<what>: <message>". IO errors give INTERNAL / NO_SPACE or IO, corruption CORRUPT, locks BUSY / LOCKED.
enum graft_status rocks_status(struct graft_error *err, char *message, const char *format, ...)
    _printf_(3, 4);

// The value of `key`, pinned in RocksDB's own memory, or NULL in *ret_value where there is none (GRAFT_OK as well).
enum graft_status rocks_get(rocksdb_t *db, rocksdb_column_family_handle_t *family,
                            const rocksdb_readoptions_t *read, struct bytes key,
                            rocksdb_pinnableslice_t **ret_value, struct graft_error *err);

// One batch, written. A failed write leaves a database without a way back: close it, end, and start again.
enum graft_status rocks_write(rocksdb_t *db, const rocksdb_writeoptions_t *options,
                              rocksdb_writebatch_t *batch, struct graft_error *err);

// One batch that does what `count` batches do, in their order.
rocksdb_writebatch_t *rocks_batch_join(rocksdb_writebatch_t *const *batches, size_t count);

// Of a log that is held back no more than this is in memory: RocksDB writes out what more there is by itself.
#define ROCKS_LOG_HELD_MAX ((size_t)MIB)

// Writes out all families, one after the other: a crash in between needs the log.
enum graft_status rocks_flush(struct rocks *rocks, struct graft_error *err);

// An iterator over the keys that start with `prefix` and no others, however many dead keys lie behind them. A prefix may
// be empty. `snapshot` may be NULL; else it outlives the scan.
struct rocks_scan {
    rocksdb_iterator_t *iterator; // move it with rocksdb_iter_*
    rocksdb_readoptions_t *read;
    size_t lower_size, upper_size;
    char bounds[]; // lower, then upper; RocksDB keeps pointing at them
};
struct rocks_scan *rocks_scan_new(rocksdb_t *db, rocksdb_column_family_handle_t *family, struct bytes prefix,
                                  const rocksdb_snapshot_t *snapshot);
void rocks_scan_free(struct rocks_scan *scan); // NULL is fine
DEFINE_CLEANUP(struct rocks_scan, rocks_scan_free)

// After rocksdb_iter_valid() said no: the end (GRAFT_OK), or an error.
enum graft_status rocks_iter_status(const rocksdb_iterator_t *iterator, const char *what,
                                    struct graft_error *err);

static inline struct bytes rocks_iter_key(const rocksdb_iterator_t *iterator)
{
    struct bytes key;
    key.data = (const uint8_t *)rocksdb_iter_key(iterator, &key.size);
    return key;
}

static inline struct bytes rocks_iter_value(const rocksdb_iterator_t *iterator)
{
    struct bytes value;
    value.data = (const uint8_t *)rocksdb_iter_value(iterator, &value.size);
    return value;
}

static inline struct bytes rocks_slice(const rocksdb_pinnableslice_t *slice)
{
    struct bytes value;
    value.data = (const uint8_t *)rocksdb_pinnableslice_value(slice, &value.size);
    return value;
}

static inline void rocks_batch_put(rocksdb_writebatch_t *batch, rocksdb_column_family_handle_t *family,
                                   struct bytes key, struct bytes value)
{
    rocksdb_writebatch_put_cf(batch, family, (const char *)key.data, key.size, (const char *)value.data,
                              value.size);
}

static inline void rocks_batch_add(rocksdb_writebatch_t *batch, rocksdb_column_family_handle_t *family,
                                   struct bytes key, int64_t delta)
{
    uint8_t value[8];
    put_le64(value, (uint64_t)delta);
    rocksdb_writebatch_merge_cf(batch, family, (const char *)key.data, key.size, (const char *)value,
                                sizeof value);
}

static inline void rocks_batch_delete(rocksdb_writebatch_t *batch, rocksdb_column_family_handle_t *family,
                                      struct bytes key)
{
    rocksdb_writebatch_delete_cf(batch, family, (const char *)key.data, key.size);
}

// Owners. _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
static inline void rocks_slice_free(rocksdb_pinnableslice_t *slice)
{
    if (slice)
        rocksdb_pinnableslice_destroy(slice);
}
DEFINE_CLEANUP(rocksdb_pinnableslice_t, rocks_slice_free)

static inline void rocks_memory_free(char *memory)
{
    if (memory)
        rocksdb_free(memory);
}
DEFINE_CLEANUP(char, rocks_memory_free)

static inline void rocks_iter_free(rocksdb_iterator_t *iterator)
{
    if (iterator)
        rocksdb_iter_destroy(iterator);
}
DEFINE_CLEANUP(rocksdb_iterator_t, rocks_iter_free)

static inline void rocks_batch_free(rocksdb_writebatch_t *batch)
{
    if (batch)
        rocksdb_writebatch_destroy(batch);
}
DEFINE_CLEANUP(rocksdb_writebatch_t, rocks_batch_free)

static inline void rocks_indexed_batch_free(rocksdb_writebatch_wi_t *batch)
{
    if (batch)
        rocksdb_writebatch_wi_destroy(batch);
}
DEFINE_CLEANUP(rocksdb_writebatch_wi_t, rocks_indexed_batch_free)

static inline void rocks_readoptions_free(rocksdb_readoptions_t *options)
{
    if (options)
        rocksdb_readoptions_destroy(options);
}
DEFINE_CLEANUP(rocksdb_readoptions_t, rocks_readoptions_free)

#endif
