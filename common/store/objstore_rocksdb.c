// SPDX-License-Identifier: Apache-2.0
//
// Objects in RocksDB: see objstore_rocksdb.h for the layout. Gets and lists run on the caller's thread and
// complete before the call returns: a key that is in memory costs a few microseconds, less than handing it to
// another thread, and they never wait for a sync. Writes go through the committer.
#include "common/store/objstore_rocksdb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "common/base/random.h"

static const struct rocks_family families[] = {
    [FAMILY_OBJECTS] = {.name = "objects", .compression = ROCKS_LZ4, .point_reads = true},
    [FAMILY_PARTS] = {.name = "parts", .compression = ROCKS_RAW, .point_reads = true},
    [FAMILY_UPLOADS] = {.name = "uploads", .compression = ROCKS_RAW},
};

static const struct rocks_settings rocks_settings = {
    .block_cache_size = 32 * MIB,
    .write_buffer_size = 32 * MIB,
    .max_open_files = 256,
};

// ---- records

void record_encode_header(const struct record *record, uint8_t to[RECORD_HEADER_SIZE])
{
    to[0] = RECORD_FORMAT;
    to[1] = (uint8_t)record->layout;
    put_le64(to + 2, record->size);
    memcpy(to + 10, record->version.bytes, VERSION_SIZE);
}

enum graft_status record_decode(struct bytes value, const char *key, struct record *ret_record,
                                struct graft_error *err)
{
    struct record record = {0};
    bool fine =
        value.size >= RECORD_HEADER_SIZE && value.data[0] == RECORD_FORMAT && value.data[1] <= LAYOUT_PARTS;
    if (fine) {
        record.layout = value.data[1];
        record.size = get_le64(value.data + 2);
        memcpy(record.version.bytes, value.data + 10, VERSION_SIZE);
        record.data = (struct bytes){value.data + RECORD_HEADER_SIZE, value.size - RECORD_HEADER_SIZE};
        fine = record.data.size == (record.layout == LAYOUT_INLINE ? record.size : 0) &&
               record.size <= (uint64_t)PART_SIZE * UINT32_MAX;
    }
    if (!fine)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                         "the record of the object %s (%zu bytes) is none that this version writes", key,
                         value.size);
    *ret_record = record;
    return GRAFT_OK;
}

void part_key(const struct version *version, uint32_t number, uint8_t to[PART_KEY_SIZE])
{
    memcpy(to, version->bytes, VERSION_SIZE);
    put_be32(to + VERSION_SIZE, number);
}

struct version version_make(uint64_t wall_ms, uint64_t random)
{
    struct version version;
    put_be64(version.bytes, wall_ms);
    put_be64(version.bytes + 8, random);
    return version;
}

void version_format(const struct version *version, char to[OBJSTORE_TAG_SIZE + 1])
{
    snprintf(to, OBJSTORE_TAG_SIZE + 1, "%016llx%016llx", (unsigned long long)get_be64(version->bytes),
             (unsigned long long)get_be64(version->bytes + 8));
}

// ---- reading

static enum graft_status no_object(const char *key, struct graft_error *err)
{
    return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "no object %s", key);
}

// Copies [offset, offset + size) of the object out of its parts.
static enum graft_status read_parts(struct rocksdb_store *store, const rocksdb_readoptions_t *read,
                                    const struct record *record, const struct objstore_op *op, uint8_t *to,
                                    size_t size, struct graft_error *err)
{
    struct rocks *rocks = store->rocks;
    for (uint64_t at = op->offset; size > 0;) {
        uint32_t number = (uint32_t)(at / PART_SIZE);
        size_t within = (size_t)(at % PART_SIZE);
        uint8_t key[PART_KEY_SIZE];
        part_key(&record->version, number, key);
        _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
        enum graft_status status = rocks_get(rocks->db, rocks->families[FAMILY_PARTS], read,
                                             (struct bytes){key, sizeof key}, &value, err);
        if (status != GRAFT_OK)
            return status;
        struct bytes part = value ? rocks_slice(value) : (struct bytes){0};
        if (part.size != MIN((uint64_t)PART_SIZE, record->size - (uint64_t)number * PART_SIZE))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_TRUNCATED, "part %u of the object %s is %s",
                             number, op->key, value ? "of the wrong size" : "missing");
        size_t copied = MIN(size, part.size - within);
        memcpy(to, part.data + within, copied);
        to += copied;
        at += copied;
        size -= copied;
    }
    return GRAFT_OK;
}

static enum graft_status read_object(struct rocksdb_store *store, const rocksdb_readoptions_t *read,
                                     const struct objstore_op *op, bool parts_too, bool *ret_in_parts,
                                     struct objstore_result *result)
{
    struct rocks *rocks = store->rocks;
    struct graft_error *err = &result->error;
    struct bytes key = {(const uint8_t *)op->key, strlen(op->key)};
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    enum graft_status status = rocks_get(rocks->db, rocks->families[FAMILY_OBJECTS], read, key, &value, err);
    if (status != GRAFT_OK)
        return status;
    if (!value)
        return no_object(op->key, err);
    struct record record;
    status = record_decode(rocks_slice(value), op->key, &record, err);
    if (status != GRAFT_OK)
        return status;

    result->object_size = record.size;
    version_format(&record.version, result->tag);
    if (op->offset >= record.size || op->size_max == 0)
        return GRAFT_OK;
    *ret_in_parts = record.layout == LAYOUT_PARTS;
    if (*ret_in_parts && !parts_too)
        return GRAFT_OK;

    size_t size = (size_t)MIN((uint64_t)op->size_max, record.size - op->offset);
    buffer_init(&result->data, size);
    status = buffer_reserve(&result->data, size, err);
    if (status != GRAFT_OK)
        return status;
    if (record.layout == LAYOUT_INLINE)
        memcpy(result->data.data, record.data.data + op->offset, size);
    else if ((status = read_parts(store, read, &record, op, result->data.data, size, err)) != GRAFT_OK)
        return status;
    result->data.size = size;
    return GRAFT_OK;
}

static void run_get(struct rocksdb_store *store, struct objstore_op *op)
{
    struct objstore_result result = {0};
    bool in_parts = false;
    read_object(store, store->rocks->read, op, false, &in_parts, &result);
    if (in_parts) {
        // Between the record and its last part somebody may replace or remove the object: a snapshot holds
        // them together.
        rocksdb_t *db = store->rocks->db;
        const rocksdb_snapshot_t *snapshot = rocksdb_create_snapshot(db);
        rocksdb_readoptions_t *read = rocksdb_readoptions_create();
        rocksdb_readoptions_set_snapshot(read, snapshot);
        rocksdb_readoptions_set_fill_cache(read, 0);
        read_object(store, read, op, true, &in_parts, &result);
        rocksdb_readoptions_destroy(read);
        rocksdb_release_snapshot(db, snapshot);
    }
    objstore_complete(op, &result);
}

static enum graft_status fill_entry(struct objstore_entry *entry, struct bytes key, struct bytes value,
                                    struct graft_error *err)
{
    CHECK(key.size <= OBJSTORE_KEY_MAX);
    memcpy(entry->key, key.data, key.size);
    entry->key[key.size] = '\0';
    struct record record;
    enum graft_status status = record_decode(value, entry->key, &record, err);
    if (status != GRAFT_OK)
        return status;
    entry->size = record.size;
    entry->modified_ms = get_be64(record.version.bytes);
    return GRAFT_OK;
}

static void run_list(struct rocksdb_store *store, struct objstore_op *op)
{
    struct objstore_result result = {.entries = calloc(op->limit, sizeof *result.entries)};
    CHECK(result.entries);
    struct bytes prefix = {(const uint8_t *)op->key, strlen(op->key)};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        rocks_scan_new(store->rocks->db, store->rocks->families[FAMILY_OBJECTS], prefix, NULL);
    rocksdb_iterator_t *iterator = scan->iterator;

    const char *from = op->other && strcmp(op->other, op->key) > 0 ? op->other : op->key;
    size_t from_size = strlen(from);
    rocksdb_iter_seek(iterator, from, from_size);
    if (op->other && rocksdb_iter_valid(iterator)) {
        struct bytes key = rocks_iter_key(iterator);
        if (key.size == strlen(op->other) && memcmp(key.data, op->other, key.size) == 0)
            rocksdb_iter_next(iterator);
    }
    enum graft_status status = GRAFT_OK;
    for (; rocksdb_iter_valid(iterator) && status == GRAFT_OK; rocksdb_iter_next(iterator)) {
        result.more = result.entry_count == op->limit;
        if (result.more)
            break;
        status = fill_entry(&result.entries[result.entry_count++], rocks_iter_key(iterator),
                            rocks_iter_value(iterator), &result.error);
    }
    if (status == GRAFT_OK)
        rocks_iter_status(iterator, "listing objects", &result.error);
    rocks_scan_free(TAKE(scan)); // the callback may take its time, or write: pin nothing meanwhile
    objstore_complete(op, &result);
}

// ---- operations

static uint64_t bytes_to_write(const struct objstore_op *op)
{
    if (op->kind == OBJSTORE_COMMIT)
        return ((struct rocksdb_upload *)op->upload)->gathered.size;
    return op->data.size;
}

static void rocksdb_start(struct objstore *base, struct objstore_op *op)
{
    struct rocksdb_store *store = (struct rocksdb_store *)base;
    struct graft_error error;
    enum graft_status status = store_fate_check(&store->fate, &error);
    bool grows = op->kind == OBJSTORE_CREATE || op->kind == OBJSTORE_REPLACE || op->kind == OBJSTORE_COMMIT;
    if (status == GRAFT_OK && grows)
        status = disk_reserve_take(&store->reserve, bytes_to_write(op), &error);
    if (status != GRAFT_OK) {
        if (op->upload)
            base->backend->upload_abort(op->upload);
        objstore_fail(op, &error);
    } else if (op->kind == OBJSTORE_GET) {
        run_get(store, op);
    } else if (op->kind == OBJSTORE_LIST) {
        run_list(store, op);
    } else {
        committer_submit(store->committer, op);
    }
}

// ---- uploads

// What the parts' own thread writes is not synced: the commit's sync covers it.
static enum graft_status write_unsynced(struct rocksdb_store *store, rocksdb_writebatch_t *batch,
                                        struct graft_error *err)
{
    enum graft_status status = store_fate_check(&store->fate, err);
    if (status != GRAFT_OK)
        return status;
    struct graft_error error;
    status = FAILPOINT_ERROR("parts.write.before", &error);
    if (status == GRAFT_OK)
        status = rocks_write(store->rocks->db, store->rocks->write, batch, &error);
    FAILPOINT("parts.write.after");
    if (status == GRAFT_OK)
        return status;
    if (store_fate_seal(&store->fate, &error))
        store_fate_tell(&store->fate);
    return error_copy(err, &error);
}

static enum graft_status write_part(struct rocksdb_upload *upload, struct graft_error *err)
{
    struct rocksdb_store *store = (struct rocksdb_store *)upload->base.store;
    enum graft_status status = disk_reserve_take(&store->reserve, upload->gathered.size, err);
    if (status != GRAFT_OK)
        return status;
    if (upload->parts == UINT32_MAX - 1)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "the object %s has too many parts",
                         upload->base.key);
    struct rocks *rocks = store->rocks;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    if (upload->parts == 0)
        rocks_batch_put(batch, rocks->families[FAMILY_UPLOADS],
                        (struct bytes){upload->version.bytes, VERSION_SIZE},
                        (struct bytes){(const uint8_t *)upload->base.key, strlen(upload->base.key)});
    uint8_t key[PART_KEY_SIZE];
    part_key(&upload->version, upload->parts, key);
    rocks_batch_put(batch, rocks->families[FAMILY_PARTS], (struct bytes){key, sizeof key},
                    buffer_bytes(&upload->gathered));
    status = write_unsynced(store, batch, err);
    if (status != GRAFT_OK)
        return status;
    upload->parts++;
    buffer_clear(&upload->gathered);
    return GRAFT_OK;
}

static enum graft_status rocksdb_upload_begin(struct objstore *base, const char *key,
                                              struct objstore_upload **ret_upload, struct graft_error *err)
{
    struct rocksdb_store *store = (struct rocksdb_store *)base;
    enum graft_status status = store_fate_check(&store->fate, err);
    if (status == GRAFT_OK)
        status = disk_reserve_take(&store->reserve, PART_SIZE, err);
    if (status != GRAFT_OK)
        return status;
    struct rocksdb_upload *upload = calloc(1, sizeof *upload);
    CHECK(upload);
    uint64_t random;
    random_bytes(&random, sizeof random);
    upload->version = version_make(clock_wall_ms(clock_system()), random);
    buffer_init(&upload->gathered, PART_SIZE);
    *ret_upload = &upload->base;
    return GRAFT_OK;
}

static enum graft_status rocksdb_upload_append(struct objstore_upload *base, struct bytes data,
                                               struct graft_error *err)
{
    struct rocksdb_upload *upload = (struct rocksdb_upload *)base;
    while (data.size > 0) {
        size_t taken = MIN(data.size, PART_SIZE - upload->gathered.size);
        enum graft_status status = buffer_append(&upload->gathered, data.data, taken, err);
        if (status != GRAFT_OK)
            return status;
        upload->size += taken;
        data = (struct bytes){data.data + taken, data.size - taken};
        if (upload->gathered.size == PART_SIZE && (status = write_part(upload, err)) != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

// Deletes what was written of an upload that will not be; found again at the next opening where that fails.
static void remove_parts(struct rocksdb_store *store, const struct version *version, uint32_t count)
{
    struct rocks *rocks = store->rocks;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (uint32_t number = 0; number < count; number++) {
        uint8_t key[PART_KEY_SIZE];
        part_key(version, number, key);
        rocks_batch_delete(batch, rocks->families[FAMILY_PARTS], (struct bytes){key, sizeof key});
    }
    rocks_batch_delete(batch, rocks->families[FAMILY_UPLOADS], (struct bytes){version->bytes, VERSION_SIZE});
    write_unsynced(store, batch, NULL);
}

void rocksdb_upload_free(struct rocksdb_upload *upload)
{
    buffer_release(&upload->gathered);
    free(upload);
}

static void rocksdb_upload_abort(struct objstore_upload *base)
{
    struct rocksdb_upload *upload = (struct rocksdb_upload *)base;
    if (upload->parts > 0)
        remove_parts((struct rocksdb_store *)base->store, &upload->version, upload->parts);
    rocksdb_upload_free(upload);
}

// ---- copies

// The flush that precedes the copy must not be what fills the disk: RocksDB would be read-only afterwards.
static enum graft_status rocksdb_checkpoint(struct objstore *base, const char *path, struct graft_error *err)
{
    struct rocksdb_store *store = (struct rocksdb_store *)base;
    enum graft_status status = store_fate_check(&store->fate, err);
    if (status == GRAFT_OK)
        status = disk_reserve_take(&store->reserve, rocks_settings.write_buffer_size, err);
    if (status != GRAFT_OK)
        return status;
    status = FAILPOINT_ERROR("checkpoint.before", err);
    if (status != GRAFT_OK)
        return status;
    char *message = NULL;
    rocksdb_checkpoint_t *checkpoint = rocksdb_checkpoint_object_create(store->rocks->db, &message);
    if (!message)
        rocksdb_checkpoint_create(checkpoint, path, 0 /* flushes, so that no log has to be copied */,
                                  &message);
    if (checkpoint)
        rocksdb_checkpoint_object_destroy(checkpoint);
    FAILPOINT("checkpoint.after");
    return rocks_status(err, message, "copying the database to %s", path);
}

// ---- opening and closing

static uint32_t count_parts(struct rocksdb_store *store, const struct version *version)
{
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        rocks_scan_new(store->rocks->db, store->rocks->families[FAMILY_PARTS],
                       (struct bytes){version->bytes, VERSION_SIZE}, NULL);
    // Parts of one upload are written in order, so the last one's number tells how many there are.
    rocksdb_iter_seek_to_last(scan->iterator);
    if (!rocksdb_iter_valid(scan->iterator))
        return 0;
    struct bytes key = rocks_iter_key(scan->iterator);
    return key.size == PART_KEY_SIZE ? get_be32(key.data + VERSION_SIZE) + 1 : 0;
}

static enum graft_status remove_unfinished_uploads(struct rocksdb_store *store, struct graft_error *err)
{
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan =
        rocks_scan_new(store->rocks->db, store->rocks->families[FAMILY_UPLOADS], (struct bytes){0}, NULL);
    rocksdb_iter_seek_to_first(scan->iterator);
    for (; rocksdb_iter_valid(scan->iterator); rocksdb_iter_next(scan->iterator)) {
        struct bytes key = rocks_iter_key(scan->iterator);
        if (key.size != VERSION_SIZE)
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                             "%s holds a malformed record of an upload", store->path);
        struct version version;
        memcpy(version.bytes, key.data, VERSION_SIZE);
        remove_parts(store, &version, count_parts(store, &version));
    }
    return rocks_iter_status(scan->iterator, "looking for unfinished uploads", err);
}

static void rocksdb_store_close(struct objstore *base)
{
    struct rocksdb_store *store = (struct rocksdb_store *)base;
    committer_free(store->committer);
    rocks_close(store->rocks);
    disk_reserve_release(&store->reserve);
    store_fate_release(&store->fate);
    objstore_release(base);
    free(store->path);
    free(store);
}

static const struct objstore_backend rocksdb_backend = {
    .name = "rocksdb",
    .exclusive = true,
    .labels = OBJSTORE_LABELS("rocksdb"),
    .start = rocksdb_start,
    .upload_begin = rocksdb_upload_begin,
    .upload_append = rocksdb_upload_append,
    .upload_abort = rocksdb_upload_abort,
    .checkpoint = rocksdb_checkpoint,
    .close = rocksdb_store_close,
};

enum graft_status objstore_rocksdb_open(const char *path, const struct objstore_settings *settings,
                                        struct objstore **ret_store, struct graft_error *err)
{
    struct rocksdb_store *store = calloc(1, sizeof *store);
    CHECK(store);
    store->path = strdup(path);
    CHECK(store->path);
    objstore_init(&store->base, &rocksdb_backend, settings->metrics);
    store_fate_init(&store->fate, settings->on_fatal, settings->context);
    disk_reserve_init(&store->reserve, store->path, settings->disk_reserve);

    enum graft_status status =
        rocks_open(path, &rocks_settings, families, ARRAY_COUNT(families), &store->rocks, err);
    if (status == GRAFT_OK)
        status = remove_unfinished_uploads(store, err);
    if (status == GRAFT_OK)
        status = committer_new(store, &store->committer, err);
    if (status != GRAFT_OK) {
        rocksdb_store_close(&store->base);
        return error_context(err, status, "opening the object store rocksdb:%s", path);
    }
    *ret_store = &store->base;
    return GRAFT_OK;
}
