// SPDX-License-Identifier: Apache-2.0
#include "sqlite/runtime.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/settings.h"
#include "common/base/check.h"
#include "common/base/files.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "sqlite/errors.h"
#include "sqlite/sqlite.h"
#include "sqlite/stage.h"
#define uthash_fatal(message) check_failed(__FILE__, __LINE__, message)
#include <uthash.h>

struct open_path {
    UT_hash_handle hh;
    unsigned count;
    const char *folder; // of the runtime
    char path[];
};

// The one mutable global: a VFS belongs to the process.
static struct {
    struct mutex opening;                       // RANK_SQLITE_OPEN
    struct mutex lock;                          // RANK_SQLITE
    LIST_HEAD(, runtime) runtimes;              // lock
    struct open_path *paths;                    // lock
    char fresh[FRESH_VIDS_MAX][GRAFT_VID_SIZE]; // lock
    unsigned fresh_next;                        // lock
    atomic_uint forks;                          // counted in children
} process;

static void in_child(void)
{
    atomic_fetch_add(&process.forks, 1);
}

void runtime_init(void)
{
    mutex_init(&process.opening, RANK_SQLITE_OPEN);
    mutex_init(&process.lock, RANK_SQLITE);
    LIST_INIT(&process.runtimes);
    pthread_atfork(NULL, NULL, in_child);
}

bool runtime_is_forked(const struct runtime *runtime)
{
    return runtime->forks != atomic_load_explicit(&process.forks, memory_order_relaxed);
}

// ---- settings -----------------------------------------------------------------------------------

static const struct option_spec specs[] = {
    CLIENT_OPTIONS(struct settings),
    {"autosync", OPTION_FLAG, offsetof(struct settings, autosync), .env = "GRAFT_AUTOSYNC",
     .help = "push after commits and pull when others have pushed, in the background"},
    {"make-default", OPTION_FLAG, offsetof(struct settings, make_default), .env = "GRAFT_MAKE_DEFAULT",
     .help = "databases that name no VFS use graft"},
    {"stubs", OPTION_FLAG, offsetof(struct settings, stubs), .env = "GRAFT_STUBS",
     .help = "a database file that does not exist is made as a stub file of a new volume"},
};

static const struct option_table table = {
    .program = "graft_sqlite",
    .synopsis = "",
    .about = "SQLite databases on replicated volumes.",
    .specs = specs,
    .count = ARRAY_COUNT(specs),
    .config_file = true,
};

// SQLite puts the parameters of a URI behind the name: key, value, key, value, and an empty string at the end. Its own
// pager relies on that for every name.
const char *uri_parameter(const char *name, const char *key)
{
    if (!name)
        return NULL;
    const char *at = name + strlen(name) + 1;
    while (*at) {
        const char *value = at + strlen(at) + 1;
        if (strcmp(at, key) == 0)
            return value;
        at = value + strlen(value) + 1;
    }
    return NULL;
}

#define ARGUMENTS_MAX (2 * ARRAY_COUNT(specs) + 4)

bool settings_flag(const char *value)
{
    return strcmp(value, "0") != 0 && strcasecmp(value, "no") != 0 && strcasecmp(value, "off") != 0 &&
           strcasecmp(value, "false") != 0;
}

enum graft_status settings_read(const char *name, struct settings *ret_settings, struct options *ret_options,
                                struct graft_error *err)
{
    char *arguments[ARGUMENTS_MAX + 1] = {(char *)"graft_sqlite"};
    char *owned[ARRAY_COUNT(specs)] = {0};
    int count = 1, rest;
    bool help, version;
    enum graft_status status = GRAFT_OK;

    const char *config = getenv("GRAFT_CONFIG");
    if (config && *config) {
        arguments[count++] = (char *)"--config";
        arguments[count++] = (char *)config;
    }
    for (size_t i = 0; i < ARRAY_COUNT(specs); i++) {
        const char *value = uri_parameter(name, specs[i].name);
        if (!value)
            continue;
        int size = specs[i].type == OPTION_FLAG
                       ? asprintf(&owned[i], "--%s%s", settings_flag(value) ? "" : "no-", specs[i].name)
                       : asprintf(&owned[i], "--%s=%s", specs[i].name, value);
        if (size < 0) {
            owned[i] = NULL;
            status = error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for settings");
            break;
        }
        arguments[count++] = owned[i];
    }
    if (status == GRAFT_OK)
        status =
            options_parse(&table, count, arguments, ret_settings, ret_options, &rest, &help, &version, err);
    for (size_t i = 0; i < ARRAY_COUNT(specs); i++)
        free(owned[i]);
    return status;
}

static bool data_is_given(const char *name)
{
    const char *variable = getenv("GRAFT_DATA"), *config = getenv("GRAFT_CONFIG");
    return uri_parameter(name, "data") || (variable && *variable) || (config && *config);
}

// ---- data directories ---------------------------------------------------------------------------

static enum graft_status absolute(const char *path, char to[PATH_MAX], struct graft_error *err)
{
    char here[PATH_MAX];

    // A directory that was not made yet has no real path; it is where it is named.
    if (realpath(path, to))
        return GRAFT_OK;
    if (errno != ENOENT)
        return error_from_errno(err, errno, "finding the data directory %s", path);
    if (path[0] != '/' && !getcwd(here, sizeof here))
        return error_from_errno(err, errno, "finding the data directory %s", path);
    int size =
        path[0] == '/' ? snprintf(to, PATH_MAX, "%s", path) : snprintf(to, PATH_MAX, "%s/%s", here, path);
    if (size >= PATH_MAX)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                         "the path of the data directory is too long");
    return GRAFT_OK;
}

// The folder of the data directory that is open already.
static char *open_folder(void)
{
    LOCK_GUARD(&process.lock);
    struct runtime *runtime = LIST_FIRST(&process.runtimes);
    return runtime && !runtime_is_forked(runtime) ? strdup(runtime->folder) : NULL;
}

enum graft_status runtime_folder(const char *name, const struct settings *settings, char **ret_folder,
                                 struct graft_error *err)
{
    char path[PATH_MAX], *folder;

    if (!data_is_given(name)) {
        folder = open_folder();
        if (folder) {
            *ret_folder = folder;
            return GRAFT_OK;
        }
    }
    enum graft_status status = absolute(settings->data, path, err);
    if (status != GRAFT_OK)
        return status;
    if (asprintf(&folder, "%s/sqlite", path) < 0)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a path");
    *ret_folder = folder;
    return GRAFT_OK;
}

bool runtime_has_tag(const char *folder, const char *tag)
{
    char path[PATH_MAX];

    int size = snprintf(path, sizeof path, "%s/../tags/%s", folder, tag);
    return size < (int)sizeof path && access(path, F_OK) == 0;
}

static struct runtime *find_and_ref(const char *folder)
{
    struct runtime *runtime;

    LOCK_GUARD(&process.lock);
    LIST_FOREACH(runtime, &process.runtimes, link)
    {
        if (strcmp(runtime->folder, folder) == 0 && !runtime_is_forked(runtime)) {
            runtime->refs++;
            return runtime;
        }
    }
    return NULL;
}

static enum graft_status open_client(const struct settings *settings, struct graft **ret_client,
                                     struct graft_error *err)
{
    struct graft_settings client = {.data = settings->data,
                                    .metastore = settings->metastore,
                                    .pagestore = settings->pagestore,
                                    .deadline_ms = (uint32_t)settings->deadline_ms,
                                    .cache_limit = settings->cache_limit};
    if (strcmp(settings->durability, "normal") == 0)
        client.durability = GRAFT_DURABILITY_NORMAL;
    else if (strcmp(settings->durability, "full") != 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "durability is full or normal, not \"%.40s\"", settings->durability);
    return graft_open(&client, ret_client, err);
}

enum graft_status runtime_acquire(const char *name, const struct settings *settings,
                                  struct runtime **ret_runtime, struct graft_error *err)
{
    _cleanup_(free_p) char *folder = NULL;

    // The directory has its final path once it exists.
    LOCK_GUARD(&process.opening);
    enum graft_status status = runtime_folder(name, settings, &folder, err);
    if (status != GRAFT_OK)
        return status;
    struct runtime *runtime = find_and_ref(folder);
    if (runtime) {
        *ret_runtime = runtime;
        return GRAFT_OK;
    }
    free(TAKE(folder));
    status = files_make_folder(settings->data, err);
    if (status == GRAFT_OK)
        status = runtime_folder(name, settings, &folder, err);
    if (status != GRAFT_OK)
        return status;
    runtime = find_and_ref(folder);
    if (runtime) {
        *ret_runtime = runtime;
        return GRAFT_OK;
    }
    runtime = calloc(1, sizeof *runtime);
    if (!runtime)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a client");
    status = open_client(settings, &runtime->client, err);
    if (status == GRAFT_OK)
        status = files_make_folder(folder, err);
    if (status != GRAFT_OK) {
        graft_close(runtime->client);
        free(runtime);
        return status;
    }
    stage_clean(folder);
    runtime->folder = TAKE(folder);
    runtime->autosync = settings->autosync;
    runtime->refs = 1;
    runtime->forks = atomic_load(&process.forks);
    LIST_INIT(&runtime->shareds);
    mutex_lock(&process.lock);
    LIST_INSERT_HEAD(&process.runtimes, runtime, link);
    mutex_unlock(&process.lock);
    *ret_runtime = runtime;
    return GRAFT_OK;
}

// Lets go of one reference if there are others; false: there are none.
static bool unref_if_not_last(struct runtime *runtime)
{
    LOCK_GUARD(&process.lock);
    if (runtime->refs == 1) {
        LIST_REMOVE(runtime, link);
        return false;
    }
    runtime->refs--;
    return true;
}

static bool is_last(struct runtime *runtime)
{
    LOCK_GUARD(&process.lock);
    return runtime->refs == 1;
}

// Lets go of a reference and of the volume that it was for. With the last one the client is closed, and before the volume:
// that ends what background sync is waiting for. Otherwise the volume goes first, with nothing held up meanwhile.
static void release(struct runtime *runtime, struct graft_volume *volume)
{
    mutex_lock(&process.opening);
    if (volume && !is_last(runtime)) {
        mutex_unlock(&process.opening);
        graft_volume_close(TAKE(volume));
        mutex_lock(&process.opening);
    }
    bool others = unref_if_not_last(runtime);
    if (!others) {
        graft_close(runtime->client);
        graft_volume_close(volume);
    }
    mutex_unlock(&process.opening);
    if (others)
        return;
    free(runtime->folder);
    free(runtime);
}

void runtime_unref(struct runtime *runtime)
{
    if (runtime && !runtime_is_forked(runtime))
        release(runtime, NULL);
}

// ---- volumes ------------------------------------------------------------------------------------

void runtime_name_fresh(char ret_vid[GRAFT_VID_SIZE])
{
    graft_vid_make(ret_vid);
    LOCK_GUARD(&process.lock);
    memcpy(process.fresh[process.fresh_next++ % FRESH_VIDS_MAX], ret_vid, GRAFT_VID_SIZE);
}

// A file beside the names of volumes says so.
static void fresh_path(const struct runtime *runtime, const char *vid, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s.new", runtime->folder, vid);
}

enum graft_status runtime_keep_fresh(struct runtime *runtime, const char *vid, struct graft_error *err)
{
    char path[PATH_MAX];

    fresh_path(runtime, vid, path);
    return files_replace(path, "", 0, err);
}

static void forget_fresh(const struct runtime *runtime, const char *vid)
{
    char path[PATH_MAX];

    fresh_path(runtime, vid, path);
    unlink(path); // most have none
    LOCK_GUARD(&process.lock);
    for (unsigned i = 0; i < FRESH_VIDS_MAX; i++) {
        if (strcmp(process.fresh[i], vid) == 0)
            process.fresh[i][0] = '\0';
    }
}

static bool is_fresh(const struct runtime *runtime, const char *vid)
{
    char path[PATH_MAX];

    fresh_path(runtime, vid, path);
    if (access(path, F_OK) == 0)
        return true;
    LOCK_GUARD(&process.lock);
    for (unsigned i = 0; i < FRESH_VIDS_MAX; i++) {
        if (strcmp(process.fresh[i], vid) == 0)
            return true;
    }
    return false;
}

static void on_sync(void *context, const char *vid, const struct graft_error *outcome)
{
    (void)context;
    if (outcome->status != GRAFT_OK && outcome->detail != GRAFT_DETAIL_FROZEN)
        errors_note(SQLITE_OK, vid, outcome);
}

static enum graft_status start_sync(struct shared *shared, struct graft_volume *volume,
                                    struct graft_error *err)
{
    if (!atomic_load(&shared->autosync))
        return GRAFT_OK;
    struct graft_sync_settings sync = {.push = true, .pull = true, .on_event = on_sync};
    return graft_sync_start(volume, &sync, err);
}

static struct shared *find_locked(struct runtime *runtime, const char *vid)
{
    struct shared *shared;

    mutex_assert_held(&process.lock);
    LIST_FOREACH(shared, &runtime->shareds, link)
    {
        if (strcmp(shared->vid, vid) == 0)
            return shared;
    }
    return NULL;
}

static struct shared *find_shared(struct runtime *runtime, const char *vid)
{
    LOCK_GUARD(&process.lock);
    struct shared *shared = find_locked(runtime, vid);
    if (shared)
        shared->refs++;
    return shared;
}

// The volume of that VID, or NULL if it is still to be made.
static enum graft_status open_volume(struct runtime *runtime, const char *vid,
                                     struct graft_volume **ret_volume, struct graft_error *err)
{
    struct graft_error why;

    *ret_volume = NULL;
    enum graft_status status = graft_volume_open(runtime->client, vid, ret_volume, &why);
    if (status == GRAFT_NOT_FOUND && is_fresh(runtime, vid))
        return GRAFT_OK;
    if (status == GRAFT_NOT_FOUND)
        status = graft_volume_clone(runtime->client, vid, ret_volume, &why);
    return status == GRAFT_OK ? status : error_copy(err, &why);
}

static void shared_set_volume(struct shared *shared, struct graft_volume *volume, uint32_t page_size)
{
    atomic_store(&shared->page_size, page_size);
    atomic_store(&shared->volume, volume);
}

// Puts a new one into the table, unless another thread was first: then that one is as good.
static struct shared *insert(struct runtime *runtime, struct shared *fresh)
{
    LOCK_GUARD(&process.lock);
    struct shared *shared = find_locked(runtime, fresh->vid);
    if (shared) {
        shared->refs++;
        return shared;
    }
    fresh->refs = 1;
    runtime->refs++;
    LIST_INSERT_HEAD(&runtime->shareds, fresh, link);
    return fresh;
}

enum graft_status runtime_volume(struct runtime *runtime, const char *vid, struct shared **ret_shared,
                                 struct graft_error *err)
{
    struct graft_volume *volume = NULL;
    struct graft_volume_head head = {0};

    struct shared *shared = find_shared(runtime, vid);
    if (shared) {
        *ret_shared = shared;
        return GRAFT_OK;
    }
    enum graft_status status = open_volume(runtime, vid, &volume, err);
    if (status == GRAFT_OK && volume)
        status = graft_volume_head(volume, &head, err);
    struct shared *fresh = status == GRAFT_OK ? calloc(1, sizeof *fresh) : NULL;
    if (status == GRAFT_OK && !fresh)
        status = error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a volume");
    if (status != GRAFT_OK) {
        graft_volume_close(volume);
        return status;
    }
    fresh->runtime = runtime;
    memcpy(fresh->vid, vid, sizeof fresh->vid);
    atomic_init(&fresh->autosync, runtime->autosync);
    shared_set_volume(fresh, volume, head.page_size);
    shared = insert(runtime, fresh);
    if (shared != fresh) {
        graft_volume_close(volume);
        free(fresh);
    } else if (volume) {
        status = start_sync(shared, volume, err);
        if (status != GRAFT_OK) {
            shared_unref(shared);
            return status;
        }
    }
    *ret_shared = shared;
    return GRAFT_OK;
}

void shared_unref(struct shared *shared)
{
    if (!shared || runtime_is_forked(shared->runtime))
        return;
    struct runtime *runtime = shared->runtime;
    mutex_lock(&process.lock);
    bool last = --shared->refs == 0;
    if (last)
        LIST_REMOVE(shared, link);
    mutex_unlock(&process.lock);
    if (!last)
        return;
    CHECK(!shared->writer);
    struct graft_volume *volume = atomic_load(&shared->volume);
    free(shared);
    release(runtime, volume);
}

enum graft_status shared_make(struct shared *shared, uint32_t page_size, struct graft_error *err)
{
    struct graft_volume *volume;

    CHECK(!atomic_load(&shared->volume));
    enum graft_status status =
        graft_volume_create_as(shared->runtime->client, shared->vid, page_size, GRAFT_FIXED, &volume, err);
    if (status != GRAFT_OK)
        return status;
    shared_set_volume(shared, volume, page_size);
    forget_fresh(shared->runtime, shared->vid);
    // It works without, too, and says so where background trouble is told.
    struct graft_error why;
    if (start_sync(shared, volume, &why) != GRAFT_OK)
        errors_note(SQLITE_OK, shared->vid, &why);
    return GRAFT_OK;
}

enum graft_status shared_set_autosync(struct shared *shared, bool on, struct graft_error *err)
{
    struct graft_volume *volume = atomic_load(&shared->volume);

    if (atomic_exchange(&shared->autosync, on) == on || !volume)
        return GRAFT_OK;
    if (on)
        return start_sync(shared, volume, err);
    graft_sync_stop(volume);
    return GRAFT_OK;
}

// ---- the writer's slot --------------------------------------------------------------------------

bool shared_take_slot(struct shared *shared, const void *owner)
{
    LOCK_GUARD(&process.lock);
    if (shared->writer && shared->writer != owner)
        return false;
    shared->writer = owner;
    return true;
}

void shared_give_slot(struct shared *shared, const void *owner)
{
    LOCK_GUARD(&process.lock);
    if (shared->writer == owner)
        shared->writer = NULL;
}

bool shared_slot_is_taken(struct shared *shared)
{
    LOCK_GUARD(&process.lock);
    return shared->writer != NULL;
}

// ---- paths --------------------------------------------------------------------------------------

bool paths_add(const char *path, const struct runtime *runtime)
{
    struct open_path *open;
    size_t size = strlen(path);

    LOCK_GUARD(&process.lock);
    HASH_FIND(hh, process.paths, path, size, open);
    if (!open) {
        open = calloc(1, sizeof *open + size + 1);
        if (!open)
            return false;
        memcpy(open->path, path, size + 1);
        open->folder = runtime->folder;
        HASH_ADD(hh, process.paths, path[0], size, open);
    }
    open->count++;
    return true;
}

void paths_remove(const char *path)
{
    struct open_path *open;

    LOCK_GUARD(&process.lock);
    HASH_FIND(hh, process.paths, path, strlen(path), open);
    CHECK(open);
    if (--open->count > 0)
        return;
    HASH_DEL(process.paths, open);
    free(open);
}

// The open volume of whose journal or write-ahead log this is the path.
static struct open_path *find_journal_locked(const char *path)
{
    static const char *const suffixes[] = {"-journal", "-wal"};
    size_t size = strlen(path);

    mutex_assert_held(&process.lock);
    for (size_t i = 0; i < ARRAY_COUNT(suffixes); i++) {
        size_t suffix = strlen(suffixes[i]);
        if (size <= suffix || strcmp(path + size - suffix, suffixes[i]) != 0)
            continue;
        struct open_path *open;
        HASH_FIND(hh, process.paths, path, size - suffix, open);
        return open;
    }
    return NULL;
}

bool paths_is_journal(const char *path)
{
    LOCK_GUARD(&process.lock);
    return find_journal_locked(path) != NULL;
}

const char *paths_folder_of_journal(const char *path)
{
    LOCK_GUARD(&process.lock);
    const struct open_path *open = find_journal_locked(path);
    return open ? open->folder : NULL;
}
