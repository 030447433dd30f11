// SPDX-License-Identifier: Apache-2.0
#include "common/store/rocksdb_util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/files.h"
#include "common/base/limits.h"
#include "common/store/rocksdb_manifest.h"

#define PATH_SIZE_MAX 4096
#define ARENA_BLOCKS 64u

static const char *const default_family_name = "default";

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

// RocksDB's C API hands out Status::ToString() and nothing else: the kind stands in front, the subcode behind
// it.
static enum graft_status classify(const char *message, enum graft_detail *ret_detail)
{
    *ret_detail = GRAFT_DETAIL_NONE;
    if (strstr(message, "No space left on device") || strstr(message, "Space limit reached") ||
        strstr(message, "Disk quota exceeded")) {
        *ret_detail = GRAFT_DETAIL_NO_SPACE;
        return GRAFT_INTERNAL;
    }
    if (starts_with(message, "Corruption")) {
        if (strstr(message, "checksum"))
            *ret_detail = GRAFT_DETAIL_BAD_CHECKSUM;
        return GRAFT_CORRUPT;
    }
    if (starts_with(message, "IO error")) {
        if (strstr(message, "lock ") || strstr(message, "lock:")) {
            *ret_detail = GRAFT_DETAIL_LOCKED;
            return GRAFT_BUSY;
        }
        if (strstr(message, "Permission denied"))
            return GRAFT_DENIED;
        *ret_detail = GRAFT_DETAIL_IO;
        return GRAFT_INTERNAL;
    }
    if (starts_with(message, "Invalid argument") || starts_with(message, "Not implemented"))
        return GRAFT_INVALID;
    if (starts_with(message, "Shutdown in progress")) {
        *ret_detail = GRAFT_DETAIL_STOPPING;
        return GRAFT_CANCELLED;
    }
    return GRAFT_INTERNAL;
}

enum graft_status rocks_status(struct graft_error *err, char *message, const char *format, ...)
{
    if (!message)
        return GRAFT_OK;
    char what[GRAFT_ERROR_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);

    enum graft_detail detail;
    enum graft_status status = classify(message, &detail);
    error_set(err, status, detail, "%s: %s", what, message);
    rocksdb_free(message);
    return status;
}

enum graft_status rocks_get(rocksdb_t *db, rocksdb_column_family_handle_t *family,
                            const rocksdb_readoptions_t *read, struct bytes key,
                            rocksdb_pinnableslice_t **ret_value, struct graft_error *err)
{
    char *message = NULL;
    rocksdb_pinnableslice_t *value =
        rocksdb_get_pinned_cf(db, read, family, (const char *)key.data, key.size, &message);
    if (message) {
        rocks_slice_free(value);
        return rocks_status(err, message, "reading from the database");
    }
    *ret_value = value;
    return GRAFT_OK;
}

enum graft_status rocks_write(rocksdb_t *db, const rocksdb_writeoptions_t *options,
                              rocksdb_writebatch_t *batch, struct graft_error *err)
{
    char *message = NULL;
    rocksdb_write(db, options, batch, &message);
    return rocks_status(err, message, "writing to the database");
}

// A batch is "sequence number 8 ‖ count 4 ‖ operations", little-endian: the form of RocksDB's log.
#define BATCH_HEADER_SIZE 12

rocksdb_writebatch_t *rocks_batch_join(rocksdb_writebatch_t *const *batches, size_t count)
{
    size_t whole = BATCH_HEADER_SIZE, size;
    for (size_t i = 0; i < count; i++) {
        rocksdb_writebatch_data(batches[i], &size);
        whole += size - BATCH_HEADER_SIZE;
    }
    char *bytes = calloc(1, whole);
    CHECK(bytes);
    uint32_t operations = 0;
    char *end = bytes + BATCH_HEADER_SIZE;
    for (size_t i = 0; i < count; i++) {
        const char *data = rocksdb_writebatch_data(batches[i], &size);
        operations += (uint32_t)rocksdb_writebatch_count(batches[i]);
        memcpy(end, data + BATCH_HEADER_SIZE, size - BATCH_HEADER_SIZE);
        end += size - BATCH_HEADER_SIZE;
    }
    put_le32((uint8_t *)bytes + 8, operations);
    rocksdb_writebatch_t *joined = rocksdb_writebatch_create_from(bytes, whole);
    free(bytes);
    return joined;
}

enum graft_status rocks_flush(struct rocks *rocks, struct graft_error *err)
{
    char *message = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    for (size_t i = 0; i < rocks->family_count && !message; i++)
        rocksdb_flush_cf(rocks->db, options, rocks->families[i], &message);
    rocksdb_flushoptions_destroy(options);
    return rocks_status(err, message, "flushing the database");
}

// The least key above all that start with the prefix: its last byte that is not 0xff, plus one, and nothing
// behind.
static size_t prefix_end(struct bytes prefix, char *to)
{
    size_t size = prefix.size;
    while (size > 0 && prefix.data[size - 1] == 0xff)
        size--;
    if (size == 0)
        return 0;
    memcpy(to, prefix.data, size);
    to[size - 1]++;
    return size;
}

struct rocks_scan *rocks_scan_new(rocksdb_t *db, rocksdb_column_family_handle_t *family, struct bytes prefix,
                                  const rocksdb_snapshot_t *snapshot)
{
    struct rocks_scan *scan = calloc(1, sizeof *scan + 2 * prefix.size);
    CHECK(scan);
    scan->read = rocksdb_readoptions_create();
    scan->lower_size = prefix.size;
    if (prefix.size > 0) {
        memcpy(scan->bounds, prefix.data, prefix.size);
        rocksdb_readoptions_set_iterate_lower_bound(scan->read, scan->bounds, scan->lower_size);
        scan->upper_size = prefix_end(prefix, scan->bounds + prefix.size);
    }
    if (scan->upper_size > 0)
        rocksdb_readoptions_set_iterate_upper_bound(scan->read, scan->bounds + prefix.size, scan->upper_size);
    if (snapshot)
        rocksdb_readoptions_set_snapshot(scan->read, snapshot);
    scan->iterator = rocksdb_create_iterator_cf(db, scan->read, family);
    return scan;
}

void rocks_scan_free(struct rocks_scan *scan)
{
    if (!scan)
        return;
    rocks_iter_free(scan->iterator);
    rocks_readoptions_free(scan->read);
    free(scan);
}

enum graft_status rocks_iter_status(const rocksdb_iterator_t *iterator, const char *what,
                                    struct graft_error *err)
{
    char *message = NULL;
    rocksdb_iter_get_error(iterator, &message);
    return rocks_status(err, message, "%s", what);
}

static rocksdb_options_t *make_db_options(const struct rocks_settings *settings)
{
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);
    rocksdb_options_set_max_open_files(options, (int)settings->max_open_files);
    rocksdb_options_set_db_write_buffer_size(options, settings->write_buffer_size);
    // With several families the log would otherwise be kept for the one that is written least.
    rocksdb_options_set_max_total_wal_size(options, 2 * settings->write_buffer_size);
    rocksdb_options_set_wal_recovery_mode(options, rocksdb_point_in_time_recovery);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_manual_wal_flush(options, settings->holds_log);
    rocksdb_options_set_writable_file_max_buffer_size(options, ROCKS_LOG_HELD_MAX);
    // Write-back starts early, so that a synced write does not pay for megabytes written before it.
    rocksdb_options_set_bytes_per_sync(options, MIB);
    rocksdb_options_set_wal_bytes_per_sync(options, MIB);
    rocksdb_options_set_max_manifest_file_size(options, 4 * MIB);
    rocksdb_options_set_manifest_preallocation_size(options,
                                                    64 * KIB); // 4 MiB of a small store's disk otherwise
    // Its log is for its options alone: once a write to it has failed, as on a full disk, the next one aborts the process.
    // What goes wrong comes back as errors.
    rocksdb_options_set_info_log_level(options, 4 /* fatal */);
    rocksdb_options_set_max_log_file_size(options, MIB);
    rocksdb_options_set_keep_log_file_num(options, 4);
    rocksdb_options_set_stats_dump_period_sec(options, 0);
    rocksdb_options_set_stats_persist_period_sec(options, 0);
    rocksdb_options_set_skip_stats_update_on_db_open(options, 1);
    return options;
}

static rocksdb_options_t *make_family_options(const struct rocks_settings *settings,
                                              const struct rocks_family *family, rocksdb_cache_t *cache)
{
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_write_buffer_size(options, settings->write_buffer_size);
    // Each family takes memory in blocks of this size. The default is an eighth, which a few families that hold next to
    // nothing would fill the whole buffer with.
    rocksdb_options_set_arena_block_size(options, settings->write_buffer_size / ARENA_BLOCKS);
    if (family->sums)
        rocksdb_options_set_uint64add_merge_operator(options);
    rocksdb_options_set_compression(options, family->compression == ROCKS_LZ4 ? rocksdb_lz4_compression
                                                                              : rocksdb_no_compression);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);

    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, cache);
    // Index and filter blocks stay with their open file: in the cache they would be evicted, and a seek would
    // pay 100 µs.
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 0);
    rocksdb_block_based_options_set_format_version(table, 5);
    if (family->point_reads) {
        rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
        rocksdb_options_set_memtable_whole_key_filtering(options, 1);
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, 0.02);
    }
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    return options;
}

static enum graft_status open_database(struct rocks *rocks, const char *path,
                                       const struct rocks_family *families, struct graft_error *err)
{
    // "default" goes last, so that the caller's families keep their places.
    const char *names[ROCKS_FAMILIES_MAX + 1];
    const rocksdb_options_t *options[ROCKS_FAMILIES_MAX + 1];
    rocksdb_column_family_handle_t *handles[ROCKS_FAMILIES_MAX + 1] = {NULL};
    size_t count = rocks->family_count;
    for (size_t i = 0; i < count; i++) {
        CHECK(strcmp(families[i].name, default_family_name) != 0);
        names[i] = families[i].name;
        options[i] = rocks->family_options[i];
    }
    names[count] = default_family_name;
    options[count] = rocks->db_options;

    char *message = NULL;
    rocks->db = rocksdb_open_column_families(rocks->db_options, path, (int)count + 1, names, options, handles,
                                             &message);
    enum graft_status status = rocks_status(err, message, "opening the database in %s", path);
    if (status != GRAFT_OK)
        return status;
    memcpy(rocks->families, handles, count * sizeof *handles);
    rocks->default_family = handles[count];
    return GRAFT_OK;
}

enum graft_status rocks_open(const char *path, const struct rocks_settings *settings,
                             const struct rocks_family *families, size_t family_count,
                             struct rocks **ret_rocks, struct graft_error *err)
{
    CHECK(family_count <= ROCKS_FAMILIES_MAX);
    CHECK(settings->max_open_files > 0 && settings->write_buffer_size > 0);
    char lock_path[PATH_SIZE_MAX];
    if (snprintf(lock_path, sizeof lock_path, "%s/graft.lock", path) >= (int)sizeof lock_path)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the path of the database is longer than %d", PATH_SIZE_MAX);
    enum graft_status status = files_make_folder(path, err);
    if (status != GRAFT_OK)
        return status;

    _cleanup_(rocks_close_p) struct rocks *rocks = calloc(1, sizeof *rocks);
    CHECK(rocks);
    rocks->lock_fd = -1;
    // Ours comes first: RocksDB's own LOCK would not say who holds it, and is lost when anybody closes that
    // file.
    status = files_lock(lock_path, &rocks->lock_fd, err);
    if (status != GRAFT_OK)
        return status;

    rocks->read = rocksdb_readoptions_create();
    rocks->write = rocksdb_writeoptions_create();
    rocks->write_synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(rocks->write_synced, 1);
    if (!settings->cache_of)
        rocks->cache = rocksdb_cache_create_lru(settings->block_cache_size);
    rocks->db_options = make_db_options(settings);
    rocks->family_count = family_count;
    for (size_t i = 0; i < family_count; i++)
        rocks->family_options[i] = make_family_options(
            settings, &families[i], settings->cache_of ? settings->cache_of->cache : rocks->cache);

    struct graft_error error;
    status = open_database(rocks, path, families, &error);
    bool cut = false;
    if (status == GRAFT_CORRUPT && rocks_cut_manifest(path, &cut, NULL) == GRAFT_OK && cut)
        status = open_database(rocks, path, families, &error);
    if (status != GRAFT_OK)
        return error_copy(err, &error);
    *ret_rocks = TAKE(rocks);
    return GRAFT_OK;
}

void rocks_close(struct rocks *rocks)
{
    if (!rocks)
        return;
    if (rocks->db) {
        for (size_t i = 0; i < rocks->family_count; i++)
            rocksdb_column_family_handle_destroy(rocks->families[i]);
        rocksdb_column_family_handle_destroy(rocks->default_family);
        rocksdb_close(rocks->db);
    }
    for (size_t i = 0; i < rocks->family_count; i++)
        rocksdb_options_destroy(rocks->family_options[i]);
    if (rocks->db_options)
        rocksdb_options_destroy(rocks->db_options);
    if (rocks->cache)
        rocksdb_cache_destroy(rocks->cache);
    if (rocks->read)
        rocksdb_readoptions_destroy(rocks->read);
    if (rocks->write)
        rocksdb_writeoptions_destroy(rocks->write);
    if (rocks->write_synced)
        rocksdb_writeoptions_destroy(rocks->write_synced);
    if (rocks->lock_fd >= 0)
        close(rocks->lock_fd);
    free(rocks);
}
