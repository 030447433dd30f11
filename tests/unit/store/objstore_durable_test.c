// SPDX-License-Identifier: Apache-2.0
//
// What the two back-ends on disk keep over kills, crowding and full disks.
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "tests/unit/store/store_calls.h"
#include "tests/unit/store/temp_folder.h"

static const struct objstore_settings no_settings;

#define ON_DISK(behaviour)                                        \
    static void behaviour(const char *scheme, const char *path);  \
    Test(objstore_fs_durable, behaviour, .timeout = 60)           \
    {                                                             \
        _cleanup_(temp_folder_release) struct temp_folder folder; \
        temp_folder_init(&folder);                                \
        behaviour("fs:", folder.path);                            \
    }                                                             \
    Test(objstore_rocksdb_durable, behaviour, .timeout = 60)      \
    {                                                             \
        _cleanup_(temp_folder_release) struct temp_folder folder; \
        temp_folder_init(&folder);                                \
        behaviour("rocksdb:", folder.path);                       \
    }                                                             \
    static void behaviour(const char *scheme, const char *path)

ON_DISK(objects_outlive_closing)
{
    struct objstore *store = open_store(scheme, path, &no_settings);
    cr_assert_eq(create_text(store, "a/b", "kept"), GRAFT_OK);
    struct objstore_upload *upload = begin_upload(store, "u");
    append_pattern(upload, 900000, 100000);
    cr_assert_eq(commit_call(upload), GRAFT_OK);
    _cleanup_(call_release) struct call before, call;
    cr_assert_eq(get_call(store, "a/b", 0, 1, &before), GRAFT_OK);
    objstore_close(store);

    store = open_store(scheme, path, &no_settings);
    assert_holds(store, "a/b", "kept");
    assert_pattern(store, "u", 900000, 0, SIZE_MAX);
    cr_assert_eq(create_text(store, "a/b", "x"), GRAFT_CONFLICT);
    cr_assert_eq(replace_call(store, "a/b", before.result.tag, "new", &call), GRAFT_OK);
    objstore_close(store);
}

// What the child has been told, readable after its death.
struct told {
    _Atomic unsigned created; // creates of k/0 … k/<created - 1> were answered
    _Atomic unsigned removed; // likewise removes
    _Atomic unsigned uploaded;
};

static _noreturn_ void work_until_killed(const char *scheme, const char *path, struct told *told)
{
    struct objstore *store = open_store(scheme, path, &no_settings);
    for (unsigned i = 0;; i++) {
        char key[32], text[32];
        snprintf(key, sizeof key, "k/%u", i);
        snprintf(text, sizeof text, "text %u", i);
        if (create_text(store, key, text) != GRAFT_OK)
            _exit(1);
        told->created = i + 1;
        snprintf(key, sizeof key, "u/%u", i);
        struct objstore_upload *upload = begin_upload(store, key);
        append_pattern(upload, 300000, 50000);
        if (i % 3 == 0) {
            if (commit_call(upload) != GRAFT_OK)
                _exit(1);
            told->uploaded = i + 1;
        } else {
            objstore_upload_abort(upload);
        }
        snprintf(key, sizeof key, "k/%u", i);
        if (i % 4 == 0 && objstore_remove_wait(store, key, NULL) != GRAFT_OK)
            _exit(1);
        told->removed = i + 1;
    }
}

static void check_told(struct objstore *store, const struct told *told)
{
    for (unsigned i = 0; i < told->created; i++) {
        char key[32], text[32];
        snprintf(key, sizeof key, "k/%u", i);
        snprintf(text, sizeof text, "text %u", i);
        if (i % 4 != 0)
            assert_holds(store, key, text);
        else if (i < told->removed)
            assert_absent(store, key);
    }
    for (unsigned i = 0; i < told->uploaded; i += 3) {
        char key[32];
        snprintf(key, sizeof key, "u/%u", i);
        assert_pattern(store, key, 300000, 0, SIZE_MAX);
    }
}

// Forks before this process has opened a store: RocksDB's threads do not come along into a child.
static void kill_after(const char *scheme, const char *path, unsigned answers)
{
    struct told *told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(told, MAP_FAILED);
    pid_t child = fork();
    if (child == 0)
        work_until_killed(scheme, path, told);
    while (told->created < answers && waitpid(child, NULL, WNOHANG) == 0)
        usleep(200);
    kill(child, SIGKILL);
    int result;
    cr_assert_eq(waitpid(child, &result, 0), child);
    cr_assert(WIFSIGNALED(result));
    struct objstore *store = open_store(scheme, path, &no_settings);
    check_told(store, told);
    cr_assert_eq(objstore_prove(store, NULL), GRAFT_OK);
    objstore_close(store);
}

ON_DISK(what_was_answered_outlives_a_kill_at_the_start)
{
    kill_after(scheme, path, 1);
}

ON_DISK(what_was_answered_outlives_a_kill_after_some_writes)
{
    kill_after(scheme, path, 20);
}

ON_DISK(what_was_answered_outlives_a_kill_after_many_writes)
{
    kill_after(scheme, path, 250);
}

static unsigned count_files(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return 0;
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

Test(objstore_fs_durable, leftovers_of_a_kill_are_removed_at_the_next_opening)
{
    _cleanup_(temp_folder_release) struct temp_folder folder;
    temp_folder_init(&folder);
    pid_t child = fork();
    if (child == 0) {
        struct objstore *store = open_store("fs:", folder.path, &no_settings);
        append_pattern(begin_upload(store, "u/x"), 100000, 100000);
        raise(SIGKILL);
    }
    cr_assert_eq(waitpid(child, NULL, 0), child);
    char temp[96];
    snprintf(temp, sizeof temp, "%s/tmp", folder.path);
    cr_assert_eq(count_files(temp), 1);
    struct objstore *store = open_store("fs:", folder.path, &no_settings);
    cr_assert_eq(count_files(temp), 0);
    assert_absent(store, "u/x");
    objstore_close(store);
}

static unsigned count_rows(const char *path, const char *family)
{
    char *message = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    size_t count;
    char **names = rocksdb_list_column_families(options, path, &count, &message);
    cr_assert_null(message);
    const rocksdb_options_t *family_options[8];
    rocksdb_column_family_handle_t *handles[8];
    for (size_t i = 0; i < count; i++)
        family_options[i] = options;
    rocksdb_t *db = rocksdb_open_for_read_only_column_families(
        options, path, (int)count, (const char *const *)names, family_options, handles, 0, &message);
    cr_assert_null(message);
    unsigned rows = 0;
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], family) == 0) {
            rocksdb_iterator_t *iterator = rocksdb_create_iterator_cf(db, read, handles[i]);
            for (rocksdb_iter_seek_to_first(iterator); rocksdb_iter_valid(iterator);
                 rocksdb_iter_next(iterator))
                rows++;
            rocksdb_iter_destroy(iterator);
        }
        rocksdb_column_family_handle_destroy(handles[i]);
    }
    rocksdb_readoptions_destroy(read);
    rocksdb_close(db);
    rocksdb_list_column_families_destroy(names, count);
    rocksdb_options_destroy(options);
    return rows;
}

Test(objstore_rocksdb_durable, parts_that_no_object_names_do_not_stay)
{
    _cleanup_(temp_folder_release) struct temp_folder folder;
    temp_folder_init(&folder);
    pid_t child = fork();
    if (child == 0) {
        struct objstore *store = open_store("rocksdb:", folder.path, &no_settings);
        append_pattern(begin_upload(store, "u/x"), 1000000, 100000);
        raise(SIGKILL);
    }
    cr_assert_eq(waitpid(child, NULL, 0), child);
    cr_assert_eq(count_rows(folder.path, "parts"), 3);
    cr_assert_eq(count_rows(folder.path, "uploads"), 1);

    struct objstore *store = open_store("rocksdb:", folder.path, &no_settings);
    struct objstore_upload *upload = begin_upload(store, "aborted");
    append_pattern(upload, 1000000, 100000);
    objstore_upload_abort(upload);
    upload = begin_upload(store, "late");
    append_pattern(upload, 1000000, 100000);
    cr_assert_eq(create_text(store, "late", "first"), GRAFT_OK);
    cr_assert_eq(commit_call(upload), GRAFT_CONFLICT);
    upload = begin_upload(store, "replaced");
    append_pattern(upload, 1000000, 100000);
    cr_assert_eq(commit_call(upload), GRAFT_OK);
    _cleanup_(call_release) struct call read, call;
    cr_assert_eq(get_call(store, "replaced", 0, 0, &read), GRAFT_OK);
    cr_assert_eq(replace_call(store, "replaced", read.result.tag, "x", &call), GRAFT_OK);
    upload = begin_upload(store, "removed");
    append_pattern(upload, 1000000, 100000);
    cr_assert_eq(commit_call(upload), GRAFT_OK);
    cr_assert_eq(objstore_remove_wait(store, "removed", NULL), GRAFT_OK);
    upload = begin_upload(store, "kept");
    append_pattern(upload, 1000000, 100000);
    cr_assert_eq(commit_call(upload), GRAFT_OK);
    objstore_close(store);

    cr_assert_eq(count_rows(folder.path, "uploads"), 0);
    cr_assert_eq(count_rows(folder.path, "parts"), 4);
}

ON_DISK(a_second_process_is_refused_by_the_firsts_pid)
{
    struct objstore *store = open_store(scheme, path, &no_settings);
    char pid[32], url[160];
    snprintf(pid, sizeof pid, " %d", getpid());
    snprintf(url, sizeof url, "%s%s", scheme, path);
    pid_t child = fork();
    if (child == 0) {
        struct objstore *second;
        struct graft_error error;
        bool refused = objstore_open(url, &no_settings, &second, &error) == GRAFT_BUSY &&
                       error.detail == GRAFT_DETAIL_LOCKED && strstr(error.message, pid);
        _exit(refused ? 0 : 1);
    }
    int result;
    cr_assert_eq(waitpid(child, &result, 0), child);
    cr_assert_eq(result, 0);

    // Also a second time in this process, and the attempt must not have cost the first its lock.
    for (unsigned i = 0; i < 2; i++) {
        struct objstore *second;
        struct graft_error error;
        cr_assert_eq(objstore_open(url, &no_settings, &second, &error), GRAFT_BUSY);
        cr_assert(strstr(error.message, pid), "%s", error.message);
    }
    cr_assert_eq(create_text(store, "k", "x"), GRAFT_OK);
    objstore_close(store);
    objstore_close(open_store(scheme, path, &no_settings));
}

ON_DISK(a_folder_that_cannot_be_made_is_an_error)
{
    char file[128], url[160];
    snprintf(file, sizeof file, "%s/file", path);
    cr_assert_geq(close(open(file, O_CREAT | O_WRONLY, 0600)), 0);
    snprintf(url, sizeof url, "%s%s/below", scheme, file);
    struct objstore *store;
    struct graft_error error;
    cr_assert_neq(objstore_open(url, &no_settings, &store, &error), GRAFT_OK);
    cr_assert(strstr(error.message, file), "%s", error.message);
}

// ---- full disks

static bool mount_small(const char *path, unsigned size_mib)
{
    char options[32];
    snprintf(options, sizeof options, "size=%um", size_mib);
    if (mount("tmpfs", path, "tmpfs", 0, options) == 0)
        return true;
    cr_log_warn("skipped: a tmpfs cannot be mounted here");
    return false;
}

ON_DISK(the_reserve_refuses_writes_and_leaves_reads)
{
    if (!mount_small(path, 64))
        return;
    struct objstore_settings settings = {.disk_reserve = 40 * MIB};
    struct objstore *store = open_store(scheme, path, &settings);
    size_t size = MIB;
    _cleanup_(free_p) uint8_t *data = calloc(1, size);
    enum graft_status status = GRAFT_OK;
    struct graft_error error;
    unsigned made = 0;
    for (; status == GRAFT_OK && made < 100; made += status == GRAFT_OK) {
        char key[32];
        snprintf(key, sizeof key, "k/%u", made);
        status = objstore_create_wait(store, key, (struct bytes){data, size}, &error);
    }
    cr_assert_gt(made, 3);
    cr_assert_lt(made, 30);
    cr_assert_eq(status, GRAFT_INTERNAL);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NO_SPACE);
    cr_assert(strstr(error.message, path), "%s", error.message);
    struct objstore_upload *upload = NULL;
    if (objstore_upload_begin(store, "u", &upload, NULL) == GRAFT_OK) {
        cr_assert_eq(objstore_upload_append(upload, (struct bytes){data, size}, &error), GRAFT_INTERNAL);
        cr_assert_eq(error.detail, GRAFT_DETAIL_NO_SPACE);
        cr_assert_eq(commit_call(upload), GRAFT_INTERNAL); // never a part of an object
    }
    _cleanup_(call_release) struct call call;
    cr_assert_eq(get_call(store, "k/0", 0, size, &call), GRAFT_OK);
    cr_assert_eq(call.result.data.size, size);
    cr_assert_eq(objstore_remove_wait(store, "k/0", NULL), GRAFT_OK);
    assert_absent(store, "u");
    objstore_close(store);
    umount2(path, MNT_DETACH);
}

Test(objstore_fs_durable, a_full_disk_is_an_error_that_passes)
{
    _cleanup_(temp_folder_release) struct temp_folder folder;
    temp_folder_init(&folder);
    if (!mount_small(folder.path, 4))
        return;
    struct objstore *store = open_store("fs:", folder.path, &no_settings);
    size_t size = 3 * MIB;
    _cleanup_(free_p) uint8_t *data = calloc(1, size);
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "a", (struct bytes){data, size}, NULL), GRAFT_OK);
    cr_assert_eq(objstore_create_wait(store, "b", (struct bytes){data, size}, &error), GRAFT_INTERNAL);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NO_SPACE);
    assert_absent(store, "b");
    cr_assert_eq(objstore_remove_wait(store, "a", NULL), GRAFT_OK);
    cr_assert_eq(objstore_create_wait(store, "b", (struct bytes){data, size}, &error), GRAFT_OK);
    objstore_close(store);
    umount2(folder.path, MNT_DETACH);
}

struct fatal {
    _Atomic unsigned calls;
    struct graft_error error;
};

static void on_fatal(void *context, const struct graft_error *error)
{
    struct fatal *fatal = context;
    fatal->error = *error;
    fatal->calls++;
}

Test(objstore_rocksdb_durable, a_failed_write_is_final_and_told_once, .timeout = 60)
{
    _cleanup_(temp_folder_release) struct temp_folder folder;
    temp_folder_init(&folder);
    if (!mount_small(folder.path, 8))
        return;
    struct fatal fatal = {0};
    struct objstore_settings settings = {.on_fatal = on_fatal, .context = &fatal};
    struct objstore *store = open_store("rocksdb:", folder.path, &settings);
    cr_assert_eq(create_text(store, "before", "x"), GRAFT_OK);
    size_t size = MIB;
    _cleanup_(free_p) uint8_t *data = calloc(1, size);
    static struct call calls[32];
    for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
        char key[32];
        snprintf(key, sizeof key, "k/%u", i);
        call_init(&calls[i]);
        objstore_create(store, key, (struct bytes){data, size}, call_done, &calls[i]);
    }
    unsigned ok = 0, unknown = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
        enum graft_status status = call_wait(&calls[i]);
        ok += status == GRAFT_OK;
        unknown += status == GRAFT_UNKNOWN;
        cr_assert(status == GRAFT_OK || status == GRAFT_UNKNOWN || status == GRAFT_UNAVAILABLE);
    }
    cr_assert_gt(ok, 0);
    cr_assert_geq(unknown, 1);
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "after", text_bytes("x"), &error), GRAFT_UNAVAILABLE);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NO_SPACE, "%s", error.message);
    _cleanup_(call_release) struct call call;
    cr_assert_eq(get_call(store, "before", 0, 1, &call), GRAFT_UNAVAILABLE);
    objstore_close(store);
    cr_assert_eq(fatal.calls, 1);
    cr_assert_eq(fatal.error.detail, GRAFT_DETAIL_NO_SPACE);
    umount2(folder.path, MNT_DETACH);
}
