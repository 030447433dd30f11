// SPDX-License-Identifier: Apache-2.0
//
// Objects as files. Reads and writes have pools of their own, so that a read never waits behind a sync.
//
// Publishing an object: its bytes are complete in DIR/tmp and synced; link() gives it its name, and fails
// where the name exists (that is the conditional create); the folder is synced; then the answer goes out.
//
// Invariants
//   1. A file under DIR/objects is complete and its bytes are synced: nothing is ever written there, only
//   linked or
//      renamed.
//   2. What is answered rests on names that are durable: between link() and the folder's sync a key is in
//   `publishes`,
//      and a get, list or conflict that meets it syncs the folder itself. Opening syncs the file system, for
//      the names that a killed process left unsynced.
//   3. A folder is synced into its parent before anything is linked into it: both happen under `names`.
//   4. A file's modification time is set by us to the nanosecond, so (inode, time) names a version.
#include "common/store/objstore_fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/files.h"
#include "common/base/limits.h"
#include "common/base/random.h"

#define READER_COUNT 4
#define WRITER_COUNT 8 // their syncs share the journal's commits
#define QUEUE_MAX 16384
#define DIR_SIZE_MAX (FS_PATH_MAX - 2 * OBJSTORE_KEY_MAX - 32)
#define WRITEBACK_SIZE MIB

struct fs_temp {
    int fd;
    uint64_t size;
    uint64_t flushed; // write-back was started up to here
    struct fs_path path;
};

struct fs_upload {
    struct objstore_upload base;
    struct fs_temp temp;
};

// ---- paths

void fs_object_path(const struct fs_store *store, const char *key, struct fs_path *ret_path)
{
    char *to = ret_path->text + sprintf(ret_path->text, "%s/objects/", store->path);
    for (; *key; key++) {
        if (*key == '/')
            *to++ = FS_FOLDER_MARK;
        *to++ = *key;
    }
    *to = '\0';
    CHECK(to < ret_path->text + sizeof ret_path->text);
}

static void cut_to_folder(struct fs_path *path)
{
    *strrchr(path->text, '/') = '\0';
}

// ---- temporary files

static enum graft_status temp_create(const struct fs_store *store, struct fs_temp *ret_temp,
                                     struct graft_error *err)
{
    uint64_t random;
    random_bytes(&random, sizeof random);
    snprintf(ret_temp->path.text, sizeof ret_temp->path.text, "%s/tmp/%016" PRIx64, store->path, random);
    ret_temp->size = ret_temp->flushed = 0;
    ret_temp->fd = open(ret_temp->path.text, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (ret_temp->fd < 0)
        return error_from_errno(err, errno, "creating %s", ret_temp->path.text);
    return GRAFT_OK;
}

static enum graft_status temp_append(struct fs_temp *temp, struct bytes data, struct graft_error *err)
{
    enum graft_status status =
        files_pwrite_all(temp->fd, data.data, data.size, temp->size, temp->path.text, err);
    if (status != GRAFT_OK)
        return status;
    temp->size += data.size;
    if (temp->size - temp->flushed >= WRITEBACK_SIZE) {
        // Only a start: what fails here fails again at the sync, which is asked.
        sync_file_range(temp->fd, (off_t)temp->flushed, (off_t)(temp->size - temp->flushed),
                        SYNC_FILE_RANGE_WRITE);
        temp->flushed = temp->size;
    }
    return GRAFT_OK;
}

static enum graft_status temp_sync(struct fs_temp *temp, struct objstore_result *result)
{
    enum graft_status status = FAILPOINT_ERROR("fs.sync.before", &result->error);
    if (status != GRAFT_OK)
        return status;
    struct timespec times[2];
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[1] = times[0];
    struct stat stat;
    if (futimens(temp->fd, times) != 0 || fdatasync(temp->fd) != 0 || fstat(temp->fd, &stat) != 0)
        return error_from_errno(&result->error, errno, "syncing %s", temp->path.text);
    FAILPOINT("fs.sync.after");
    snprintf(result->tag, sizeof result->tag, "%" PRIx64 "-%" PRIx64 ".%09ld", (uint64_t)stat.st_ino,
             (uint64_t)stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec);
    return GRAFT_OK;
}

static void temp_remove(struct fs_temp *temp)
{
    if (temp->fd < 0)
        return;
    close(temp->fd);
    unlink(temp->path.text);
    temp->fd = -1;
}

// ---- names

static enum graft_status sync_folder_of(const struct fs_store *store, const char *key,
                                        struct graft_error *err)
{
    struct fs_path path;
    fs_object_path(store, key, &path);
    cut_to_folder(&path);
    return files_sync_folder(path.text, err);
}

enum graft_status fs_sync_publishes(struct fs_store *store, const char *prefix, bool exact,
                                    struct graft_error *err)
{
    // There are at most as many as there are writers.
    char keys[WRITER_COUNT][OBJSTORE_KEY_MAX + 1];
    unsigned count = 0;
    mutex_lock(&store->names);
    struct fs_publish *publish;
    TAILQ_FOREACH (publish, &store->publishes, link) {
        bool met =
            exact ? strcmp(publish->key, prefix) == 0 : strncmp(publish->key, prefix, strlen(prefix)) == 0;
        if (met) {
            CHECK(count < WRITER_COUNT);
            memcpy(keys[count++], publish->key, strlen(publish->key) + 1);
        }
    }
    mutex_unlock(&store->names);
    for (unsigned i = 0; i < count; i++) {
        enum graft_status status = sync_folder_of(store, keys[i], err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static bool file_is_version(const char *path, const char *tag)
{
    struct stat stat;
    if (lstat(path, &stat) != 0)
        return false;
    char actual[OBJSTORE_TAG_SIZE + 1];
    snprintf(actual, sizeof actual, "%" PRIx64 "-%" PRIx64 ".%09ld", (uint64_t)stat.st_ino,
             (uint64_t)stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec);
    return strcmp(actual, tag) == 0;
}

static enum graft_status link_locked(struct fs_store *store, const struct objstore_op *op, const char *from,
                                     const char *to, struct graft_error *err)
{
    mutex_assert_held(&store->names);
    if (op->kind == OBJSTORE_REPLACE) {
        if (!file_is_version(to, op->other))
            return objstore_conflict(op, err);
        FAILPOINT("fs.replace.before");
        if (rename(from, to) != 0)
            return error_from_errno(err, errno, "replacing %s", to);
        return GRAFT_OK;
    }
    if (link(from, to) == 0)
        return GRAFT_OK;
    if (errno == ENOENT) {
        struct fs_path folder;
        memcpy(folder.text, to, strlen(to) + 1);
        cut_to_folder(&folder);
        enum graft_status status = files_make_folder(folder.text, err);
        if (status != GRAFT_OK)
            return status;
        if (link(from, to) == 0)
            return GRAFT_OK;
    }
    if (errno == EEXIST)
        return objstore_conflict(op, err);
    return error_from_errno(err, errno, "creating %s", to);
}

// Gives the synced temporary file its name, for good.
static enum graft_status publish(struct fs_store *store, const struct objstore_op *op, struct fs_temp *temp,
                                 struct graft_error *err)
{
    struct fs_path path;
    fs_object_path(store, op->key, &path);
    struct fs_publish publish = {.key = op->key};

    mutex_lock(&store->names);
    enum graft_status status = link_locked(store, op, temp->path.text, path.text, err);
    if (status == GRAFT_OK)
        TAILQ_INSERT_TAIL(&store->publishes, &publish, link);
    mutex_unlock(&store->names);

    if (status == GRAFT_CONFLICT) {
        // What stands in the way may be a name that its maker has not synced yet.
        struct graft_error error;
        if (fs_sync_publishes(store, op->key, true, &error) != GRAFT_OK)
            return error_copy(err, &error);
        return status;
    }
    if (status != GRAFT_OK)
        return status;

    FAILPOINT("fs.publish.named");
    cut_to_folder(&path);
    status = FAILPOINT_ERROR("fs.folder.before", err);
    if (status == GRAFT_OK)
        status = files_sync_folder(path.text, err);
    FAILPOINT("fs.folder.after");
    mutex_lock(&store->names);
    TAILQ_REMOVE(&store->publishes, &publish, link);
    mutex_unlock(&store->names);
    if (status == GRAFT_OK)
        return GRAFT_OK;
    // The name is there and may or may not stay: nobody can build on this folder any more.
    err->status = GRAFT_UNKNOWN;
    return GRAFT_UNKNOWN;
}

// ---- operations

static void run_get(struct fs_store *store, const struct objstore_op *op, struct objstore_result *result)
{
    struct graft_error *err = &result->error;
    struct fs_path path;
    fs_object_path(store, op->key, &path);
    int fd = open(path.text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (errno == ENOENT)
            error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "no object %s", op->key);
        else
            error_from_errno(err, errno, "opening %s", path.text);
        return;
    }
    struct stat stat;
    enum graft_status status = fs_sync_publishes(store, op->key, true, err);
    if (status == GRAFT_OK && fstat(fd, &stat) != 0)
        status = error_from_errno(err, errno, "reading %s", path.text);
    if (status == GRAFT_OK) {
        result->object_size = (uint64_t)stat.st_size;
        snprintf(result->tag, sizeof result->tag, "%" PRIx64 "-%" PRIx64 ".%09ld", (uint64_t)stat.st_ino,
                 (uint64_t)stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec);
    }
    if (status == GRAFT_OK && op->offset < result->object_size) {
        size_t size = (size_t)MIN((uint64_t)op->size_max, result->object_size - op->offset);
        buffer_init(&result->data, size);
        if (buffer_reserve(&result->data, size, err) == GRAFT_OK)
            files_pread_all(fd, result->data.data, size, op->offset, path.text, &result->data.size, err);
    }
    close(fd);
}

static void run_write(struct fs_store *store, const struct objstore_op *op, struct objstore_result *result)
{
    struct fs_temp made = {.fd = -1};
    struct fs_temp *temp = op->upload ? &((struct fs_upload *)op->upload)->temp : &made;
    enum graft_status status = GRAFT_OK;
    if (!op->upload && (status = temp_create(store, temp, &result->error)) == GRAFT_OK)
        status = temp_append(temp, op->data, &result->error);
    if (status == GRAFT_OK)
        status = temp_sync(temp, result);
    if (status == GRAFT_OK)
        status = publish(store, op, temp, &result->error);
    temp_remove(temp);
}

static void run_remove(struct fs_store *store, const struct objstore_op *op, struct graft_error *err)
{
    struct fs_path path;
    fs_object_path(store, op->key, &path);
    FAILPOINT("fs.remove.before");
    mutex_lock(&store->names);
    bool done = unlink(path.text) == 0 || errno == ENOENT;
    int error_number = errno;
    mutex_unlock(&store->names);
    if (!done) {
        error_from_errno(err, error_number, "removing %s", path.text);
        return;
    }
    FAILPOINT("fs.remove.unlinked");
    // Also where the name was gone: whoever removed it may not have synced the folder.
    cut_to_folder(&path);
    if (files_sync_folder(path.text, err) == GRAFT_NOT_FOUND)
        *err = (struct graft_error){0};
    else if (err->status != GRAFT_OK)
        err->status = GRAFT_UNKNOWN;
    FAILPOINT("fs.remove.after");
}

// An I/O error that a write met is final: after a failed sync the kernel no longer knows what is on the disk.
// A full disk is not, as long as only a temporary file met it.
static bool is_fatal(const struct objstore_op *op, const struct graft_error *error)
{
    if (op->kind == OBJSTORE_GET || op->kind == OBJSTORE_LIST)
        return false;
    return error->status == GRAFT_UNKNOWN ||
           (error->status == GRAFT_INTERNAL && error->detail == GRAFT_DETAIL_IO);
}

static void free_upload(struct objstore_upload *base)
{
    struct fs_upload *upload = (struct fs_upload *)base;
    if (!upload)
        return;
    temp_remove(&upload->temp);
    free(upload);
}

static void run(struct job *job)
{
    struct objstore_op *op = CONTAINER_OF(job, struct objstore_op, job);
    struct fs_store *store = (struct fs_store *)op->store;
    struct objstore_result result = {0};
    switch (op->kind) {
    case OBJSTORE_GET:
        run_get(store, op, &result);
        break;
    case OBJSTORE_CREATE:
    case OBJSTORE_REPLACE:
    case OBJSTORE_COMMIT:
        run_write(store, op, &result);
        break;
    case OBJSTORE_REMOVE:
        run_remove(store, op, &result.error);
        break;
    case OBJSTORE_LIST:
        fs_list(store, op, &result);
        break;
    }
    bool failed_now = is_fatal(op, &result.error) && store_fate_seal(&store->fate, &result.error);
    free_upload(op->upload);
    objstore_complete(op, &result);
    // The store is still there: closing it joins this thread first.
    if (failed_now)
        store_fate_tell(&store->fate);
}

static void fs_start(struct objstore *base, struct objstore_op *op)
{
    struct fs_store *store = (struct fs_store *)base;
    struct graft_error error;
    bool reads = op->kind == OBJSTORE_GET || op->kind == OBJSTORE_LIST;
    enum graft_status status = store_fate_check(&store->fate, &error);
    if (status == GRAFT_OK && op->data.size > 0)
        status = disk_reserve_take(&store->reserve, op->data.size, &error);
    op->job.run = run;
    if (status == GRAFT_OK) {
        status = pool_submit(reads ? store->readers : store->writers, &op->job, &error);
        if (status == GRAFT_BUSY)
            error.status = GRAFT_UNAVAILABLE;
    }
    if (status == GRAFT_OK)
        return;
    free_upload(op->upload);
    objstore_fail(op, &error);
}

// ---- uploads

static enum graft_status fs_upload_begin(struct objstore *base, const char *key,
                                         struct objstore_upload **ret_upload, struct graft_error *err)
{
    struct fs_store *store = (struct fs_store *)base;
    enum graft_status status = store_fate_check(&store->fate, err);
    if (status == GRAFT_OK)
        status = disk_reserve_take(&store->reserve, 0, err);
    if (status != GRAFT_OK)
        return status;
    struct fs_upload *upload = calloc(1, sizeof *upload);
    CHECK(upload);
    status = temp_create(store, &upload->temp, err);
    if (status != GRAFT_OK) {
        free(upload);
        return status;
    }
    *ret_upload = &upload->base;
    return GRAFT_OK;
}

static enum graft_status fs_upload_append(struct objstore_upload *base, struct bytes data,
                                          struct graft_error *err)
{
    struct fs_store *store = (struct fs_store *)base->store;
    enum graft_status status = disk_reserve_take(&store->reserve, data.size, err);
    if (status != GRAFT_OK)
        return status;
    return temp_append(&((struct fs_upload *)base)->temp, data, err);
}

// ---- opening and closing

static enum graft_status make_folders(const struct fs_store *store, struct graft_error *err)
{
    static const char *const names[] = {"objects", "tmp"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct fs_path path;
        snprintf(path.text, sizeof path.text, "%s/%s", store->path, names[i]);
        enum graft_status status = files_make_folder(path.text, err);
        if (status != GRAFT_OK)
            return status;
    }
    return GRAFT_OK;
}

static enum graft_status remove_leftovers(const struct fs_store *store, struct graft_error *err)
{
    struct fs_path path;
    snprintf(path.text, sizeof path.text, "%s/tmp", store->path);
    DIR *folder = opendir(path.text);
    if (!folder)
        return error_from_errno(err, errno, "opening %s", path.text);
    enum graft_status status = GRAFT_OK;
    for (struct dirent *entry; status == GRAFT_OK && (entry = readdir(folder));) {
        if (entry->d_name[0] != '.' && unlinkat(dirfd(folder), entry->d_name, 0) != 0)
            status = error_from_errno(err, errno, "removing %s/%s", path.text, entry->d_name);
    }
    if (status == GRAFT_OK && syncfs(dirfd(folder)) != 0)
        status = error_from_errno(err, errno, "syncing the file system of %s", store->path);
    closedir(folder);
    return status;
}

static enum graft_status open_folders(struct fs_store *store, struct graft_error *err)
{
    if (strlen(store->path) > DIR_SIZE_MAX)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the folder's path is longer than %d",
                         DIR_SIZE_MAX);
    enum graft_status status = files_make_folder(store->path, err);
    if (status != GRAFT_OK)
        return status;
    struct fs_path lock;
    snprintf(lock.text, sizeof lock.text, "%s/graft.lock", store->path);
    status = files_lock(lock.text, &store->lock_fd, err);
    if (status == GRAFT_OK)
        status = make_folders(store, err);
    if (status == GRAFT_OK)
        status = remove_leftovers(store, err);
    if (status == GRAFT_OK)
        status = pool_new("objstore-read", READER_COUNT, QUEUE_MAX, &store->readers, err);
    if (status == GRAFT_OK)
        status = pool_new("objstore-write", WRITER_COUNT, QUEUE_MAX, &store->writers, err);
    return status;
}

static void fs_close(struct objstore *base)
{
    struct fs_store *store = (struct fs_store *)base;
    pool_free(store->readers);
    pool_free(store->writers);
    CHECK(TAILQ_EMPTY(&store->publishes));
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    mutex_release(&store->names);
    disk_reserve_release(&store->reserve);
    store_fate_release(&store->fate);
    objstore_release(base);
    free(store->path);
    free(store);
}

static const struct objstore_backend fs_backend = {
    .name = "fs",
    .exclusive = true,
    .labels = OBJSTORE_LABELS("fs"),
    .start = fs_start,
    .upload_begin = fs_upload_begin,
    .upload_append = fs_upload_append,
    .upload_abort = free_upload,
    .close = fs_close,
};

enum graft_status objstore_fs_open(const char *path, const struct objstore_settings *settings,
                                   struct objstore **ret_store, struct graft_error *err)
{
    struct fs_store *store = calloc(1, sizeof *store);
    CHECK(store);
    store->path = strdup(path);
    CHECK(store->path);
    store->lock_fd = -1;
    mutex_init(&store->names, RANK_OBJSTORE);
    TAILQ_INIT(&store->publishes);
    objstore_init(&store->base, &fs_backend, settings->metrics);
    store_fate_init(&store->fate, settings->on_fatal, settings->context);
    disk_reserve_init(&store->reserve, store->path, settings->disk_reserve);

    enum graft_status status = open_folders(store, err);
    if (status != GRAFT_OK) {
        fs_close(&store->base);
        return error_context(err, status, "opening the object store fs:%s", path);
    }
    *ret_store = &store->base;
    return GRAFT_OK;
}
