// SPDX-License-Identifier: Apache-2.0
//
// The data directory: its lock, its format, its two databases, and what happens when one of them fails.
//
//     DIR/lock     locked while a process has the directory; holds its pid
//     DIR/client   the format and this client's CID
//     DIR/pages    page files: the bytes of local commits, and the log of these commits
//     DIR/local    RocksDB: the index of those, and everything else that must not be lost
//     DIR/fetched  RocksDB: what can be fetched again. A database of its own, because one log would make the next synced
//                  commit pay for it.
//     DIR/cache    the bytes of that (page_cache.h)
#include "client/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/store_internal.h"
#include "client/store_space.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/failpoint.h"
#include "common/base/files.h"

#define PATH_SIZE_MAX 4096u
// Each has its index blocks in memory, about 1/100 of its bytes; a process often has no more than 1,024 in
// all.
#define LOCAL_OPEN_FILES_MAX 192u
#define FETCHED_OPEN_FILES_MAX 192u

static char *join_path(const char *directory, const char *name)
{
    char *path = NULL;
    int size = asprintf(&path, "%s/%s", directory, name);
    CHECK(size > 0);
    return path;
}

static void free_path(char **path)
{
    free(*path);
}

// ---- failing

enum graft_status store_check_usable(struct store *store, struct graft_error *err)
{
    if (LIKELY(!atomic_load_explicit(&store->failed, memory_order_acquire)))
        return GRAFT_OK;
    LOCK_GUARD(&store->lock);
    error_copy(err, &store->failure);
    return error_context(err, store->failure.status, "the local store is closed since an earlier failure");
}

// After a failed sync nobody knows what the disk has; only opening the directory anew finds out.
void store_fail(struct store *store, const struct graft_error *why)
{
    LOCK_GUARD(&store->lock);
    if (store->failed)
        return;
    store->failure = *why;
    atomic_store_explicit(&store->failed, true, memory_order_release);
}

// A full disk passes: the database takes nothing until there is room, and then goes on. What else fails does not, least of
// all a sync.
enum graft_status store_write(struct store *store, struct rocks *rocks, bool synced,
                              rocksdb_writebatch_t *batch, struct graft_error *err)
{
    enum graft_status status = store_check_usable(store, err);
    if (status != GRAFT_OK)
        return status;
    struct graft_error failure;
    status = synced ? FAILPOINT_ERROR("store.sync.before", &failure)
                    : FAILPOINT_ERROR("store.write.before", &failure);
    if (status == GRAFT_OK && rocks == store->local)
        status = store_write_local(store, synced, batch, &failure);
    else if (status == GRAFT_OK)
        status = rocks_write(rocks->db, synced ? rocks->write_synced : rocks->write, batch, &failure);
    FAILPOINT("store.write.after");
    if (status == GRAFT_OK)
        return GRAFT_OK;
    bool passes = failure.detail == GRAFT_DETAIL_NO_SPACE && !strstr(failure.message, "sync");
    if (failure.detail == GRAFT_DETAIL_NO_SPACE)
        error_set(&failure, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE,
                  "the disk of the data directory %s is full; make room%s", store->directory,
                  passes ? "" : " and open it again");
    else
        error_context(&failure, failure.status, "writing to the local store");
    failure.status = GRAFT_INTERNAL;
    if (failure.detail != GRAFT_DETAIL_NO_SPACE)
        failure.detail = GRAFT_DETAIL_IO;
    if (!passes)
        store_fail(store, &failure);
    return error_copy(err, &failure);
}

enum graft_status store_take_room(struct store *store, size_t size, struct graft_error *err)
{
    return disk_reserve_take(&store->reserve, size, err);
}

enum graft_status store_get(struct rocks *rocks, unsigned family, const struct store_key *key,
                            rocksdb_pinnableslice_t **ret_value, struct graft_error *err)
{
    return rocks_get(rocks->db, rocks->families[family], rocks->read, store_key_bytes(key), ret_value, err);
}

struct rocks_scan *store_scan(struct rocks *rocks, unsigned family, const struct store_key *prefix)
{
    return rocks_scan_new(rocks->db, rocks->families[family], store_key_bytes(prefix), NULL);
}

void store_scan_seek(struct rocks_scan *scan, const struct store_key *key)
{
    rocksdb_iter_seek(scan->iterator, (const char *)key->bytes, key->size);
}

// ---- opening

static bool exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

// The file is written before the databases are made: where they are and it is not, somebody took it away.
static enum graft_status open_client_file(struct store *store, struct graft_error *err)
{
    _cleanup_(free_path) char *path = join_path(store->directory, "client");
    _cleanup_(free_path) char *local_path = join_path(store->directory, "local");
    if (!exists(path)) {
        if (exists(local_path))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "%s is missing from a data directory that has volumes; put it back", path);
        store->cid = gid_make(GID_CLIENT, clock_wall_ms(clock_system()));
        uint8_t file[STORE_CLIENT_FILE_SIZE];
        store_client_encode(&store->cid, file);
        return files_replace(path, file, sizeof file, err);
    }
    _cleanup_(buffer_release) struct buffer file = BUFFER_INIT(4096);
    enum graft_status status = files_read(path, &file, err);
    if (status != GRAFT_OK)
        return status;
    return store_client_decode(buffer_bytes(&file), path, &store->cid, err);
}

// Of the memory: a quarter for blocks of both databases, an eighth for hints, an eighth and a sixteenth for writes (RocksDB
// takes about half as much again while it flushes), an eighth for a writer's pages.
static enum graft_status open_databases(struct store *store, uint64_t memory_size, struct graft_error *err)
{
    static const struct rocks_family local_families[FAMILY_COUNT] = {
        [FAMILY_VOLUMES] = {.name = "volumes", .compression = ROCKS_LZ4},
        [FAMILY_INDEX] = {.name = "index", .compression = ROCKS_LZ4},
        [FAMILY_EXTENTS] = {.name = "extents", .compression = ROCKS_LZ4, .sums = true},
        [FAMILY_COMMITS] = {.name = "commits", .compression = ROCKS_LZ4},
        [FAMILY_SUPERSEDED] = {.name = "superseded", .compression = ROCKS_LZ4},
        [FAMILY_CUTS] = {.name = "cuts", .compression = ROCKS_LZ4},
    };
    static const struct rocks_family fetched_families[FETCHED_COUNT] = {
        [FETCHED_ARRIVED] = {.name = "arrived", .compression = ROCKS_LZ4, .point_reads = true},
        [FETCHED_EXTENTS] = {.name = "extents", .compression = ROCKS_RAW, .sums = true},
        [FETCHED_TALLIES] = {.name = "tallies", .compression = ROCKS_RAW},
    };
    struct rocks_settings settings = {
        .block_cache_size = memory_size / 4,
        .write_buffer_size = memory_size / 8, // and as much of the disk, in logs
        .max_open_files = LOCAL_OPEN_FILES_MAX,
        .holds_log = !store->sync_commits,
    };
    _cleanup_(free_path) char *local_path = join_path(store->directory, "local");
    _cleanup_(free_path) char *fetched_path = join_path(store->directory, "fetched");
    enum graft_status status =
        rocks_open(local_path, &settings, local_families, FAMILY_COUNT, &store->local, err);
    if (status != GRAFT_OK)
        return status;
    store->unflushed_max = settings.write_buffer_size / 4;
    settings.holds_log = false;
    settings.cache_of = store->local;
    settings.write_buffer_size = memory_size / 16;
    settings.max_open_files = FETCHED_OPEN_FILES_MAX;
    return rocks_open(fetched_path, &settings, fetched_families, FETCHED_COUNT, &store->fetched, err);
}

static enum graft_status load_next_number(struct store *store, struct graft_error *err)
{
    struct store_key key = store_key_next_number();
    _cleanup_(rocks_slice_free_p) rocksdb_pinnableslice_t *value = NULL;
    enum graft_status status = store_get(store->local, FAMILY_VOLUMES, &key, &value, err);
    if (status != GRAFT_OK)
        return status;
    store->next_number = 1;
    if (!value)
        return GRAFT_OK;
    struct bytes bytes = rocks_slice(value);
    if (bytes.size != 8 || get_le64(bytes.data) == 0)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the local store's count of volumes is damaged");
    store->next_number = get_le64(bytes.data);
    return GRAFT_OK;
}

// What a crash left above the heads. Only volumes that were staging have a note, so this looks at no other.
static enum graft_status drop_all_staged(struct store *store, struct graft_error *err)
{
    struct store_key prefix = {.bytes = {'S'}, .size = 1};
    _cleanup_(rocks_scan_free_p) struct rocks_scan *scan = store_scan(store->local, FAMILY_VOLUMES, &prefix);
    for (rocksdb_iter_seek_to_first(scan->iterator); rocksdb_iter_valid(scan->iterator);
         rocksdb_iter_next(scan->iterator)) {
        uint64_t number;
        struct store_staging note;
        if (!store_key_parse_staging(rocks_iter_key(scan->iterator), &number) ||
            !store_staging_decode(rocks_iter_value(scan->iterator), &note))
            return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                             "the local store's note of an unfinished commit is damaged");
        enum graft_status status = store_drop_staged(store, number, note.lsn, err);
        if (status != GRAFT_OK)
            return status;
    }
    return rocks_iter_status(scan->iterator, "looking for unfinished commits", err);
}

static enum graft_status open_log(struct store *store, struct graft_error *err)
{
    enum graft_status status = store_log_open(store, err);
    if (status == GRAFT_OK)
        status = store_log_start(store, err);
    if (status == GRAFT_OK)
        status = drop_all_staged(store, err);
    if (status == GRAFT_OK)
        status = store_finish_deletions(store, err);
    return status;
}

static void free_store(struct store *store)
{
    if (!store)
        return;
    page_cache_close(store->cache);
    store_log_close(store);
    rocks_close(store->fetched);
    rocks_close(store->local);
    store_hints_free(store->hints);
    mutex_release(&store->lock);
    pthread_rwlock_destroy(&store->sync_point_lock);
    mutex_release(&store->places_lock);
    mutex_release(&store->table_lock);
    mutex_release(&store->fetched_lock);
    mutex_release(&store->evict_lock);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    disk_reserve_release(&store->reserve);
    free(store->directory);
    free(store);
}
DEFINE_CLEANUP(struct store, free_store)

enum graft_status store_open(const struct store_settings *settings, struct store **ret_store,
                             struct graft_error *err)
{
    uint64_t memory_size = settings->memory_size ? settings->memory_size : STORE_MEMORY_DEFAULT;
    memory_size = MAX(memory_size, (uint64_t)STORE_MEMORY_MIN);
    if (strlen(settings->directory) == 0 || strlen(settings->directory) > PATH_SIZE_MAX - 16)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "the path of the data directory is empty or longer than %u bytes",
                         PATH_SIZE_MAX - 16);

    _cleanup_(free_store_p) struct store *store = calloc(1, sizeof *store);
    if (!store)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the local store");
    store->lock_fd = -1;
    store->pid = getpid();
    store->writer_memory_size =
        settings->writer_memory_size ? settings->writer_memory_size : STORE_WRITER_MEMORY_MAX;
    store->batch_entries = settings->batch_entries ? settings->batch_entries : STORE_BATCH_ENTRIES;
    store->sync_commits = settings->durability == GRAFT_DURABILITY_FULL;
    mutex_init(&store->evict_lock, RANK_EVICT);
    mutex_init(&store->table_lock, RANK_VOLUME);
    mutex_init(&store->fetched_lock, RANK_FETCHED);
    mutex_init(&store->places_lock, RANK_PLACES);
    pthread_rwlock_init(&store->sync_point_lock, NULL);
    mutex_init(&store->lock, RANK_STORE);
    store->directory = strdup(settings->directory);
    // An opening writes out what the databases' logs hold, which is as much as they may keep in memory: without room for it
    // nothing here could be read. And RocksDB, once a write of its log has failed, may end the process.
    disk_reserve_init(&store->reserve, store->directory, memory_size);
    store->hints = store_hints_new(memory_size / 8);
    if (!store->directory || !store->hints)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for the local store");

    enum graft_status status = files_make_folder(store->directory, err);
    if (status == GRAFT_OK) {
        _cleanup_(free_path) char *lock_path = join_path(store->directory, "lock");
        status = files_lock(lock_path, &store->lock_fd, err);
    }
    if (status == GRAFT_OK)
        status = open_client_file(store, err);
    FAILPOINT("store.open.locked");
    if (status == GRAFT_OK)
        status = open_databases(store, memory_size, err);
    if (status == GRAFT_OK)
        status = load_next_number(store, err);
    if (status == GRAFT_OK)
        status = open_log(store, err);
    if (status == GRAFT_OK)
        status = store_fetched_open(store, settings->cache_limit, err);
    if (status == GRAFT_OK)
        status = store_space_new(store, &store->space, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "opening the data directory %s", settings->directory);
    FAILPOINT("store.open.after");
    *ret_store = TAKE(store);
    return GRAFT_OK;
}

void store_close(struct store *store)
{
    // In a forked child RocksDB's threads do not exist: closing would wait for them for ever.
    if (!store || getpid() != store->pid)
        return;
    CHECK(store->volumes == NULL);
    store_space_free(store->space); // its thread uses the pointer until it has ended
    store->space = NULL;
    store_log_stop(store);
    free_store(store);
}

enum graft_status store_check_fork(const struct store *store, struct graft_error *err)
{
    if (LIKELY(getpid() == store->pid))
        return GRAFT_OK;
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_FORKED,
                     "this handle belongs to process %d, which forked this one; open the directory anew here",
                     (int)store->pid);
}

const struct gid *store_cid(const struct store *store)
{
    return &store->cid;
}
