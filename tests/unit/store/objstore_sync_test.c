// SPDX-License-Identifier: Apache-2.0
//
// When the stores on disk sync, seen from below: this program's own fdatasync() and fsync() stand in front of
// the system's, also for RocksDB, and count, wait or fail as a test tells them.
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/store/store_calls.h"
#include "tests/unit/store/temp_folder.h"

// Syncs of regular files and of folders are told apart.
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned calls, waiting;
    bool closed; // calls wait
    int fails;   // with this errno
};
static struct gate files = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
static struct gate folders = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int pass_gate(int fd)
{
    struct stat stat;
    struct gate *gate = fstat(fd, &stat) == 0 && S_ISDIR(stat.st_mode) ? &folders : &files;
    pthread_mutex_lock(&gate->lock);
    gate->calls++;
    gate->waiting++;
    pthread_cond_broadcast(&gate->changed);
    while (gate->closed)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->waiting--;
    int fails = gate->fails;
    pthread_mutex_unlock(&gate->lock);
    return fails;
}

static int sync_through_gate(int fd, const char *name)
{
    int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int fails = pass_gate(fd);
    if (fails == 0)
        return next(fd);
    errno = fails;
    return -1;
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    return sync_through_gate(fd, "fdatasync");
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    return sync_through_gate(fd, "fsync");
}

static unsigned gate_calls(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    unsigned calls = gate->calls;
    pthread_mutex_unlock(&gate->lock);
    return calls;
}

static void gate_set(struct gate *gate, bool closed, int fails)
{
    pthread_mutex_lock(&gate->lock);
    gate->closed = closed;
    gate->fails = fails;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static void gate_await_caller(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->waiting == 0)
        pthread_cond_wait(&gate->changed, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

struct fatal {
    atomic_uint calls;
    struct graft_error error;
};

static void on_fatal(void *context, const struct graft_error *error)
{
    struct fatal *fatal = context;
    fatal->error = *error;
    fatal->calls++;
}

static struct temp_folder folder;
static struct objstore *store;
static struct fatal fatal;

static void set_up(const char *scheme)
{
    temp_folder_init(&folder);
    struct objstore_settings settings = {.on_fatal = on_fatal, .context = &fatal};
    store = open_store(scheme, folder.path, &settings);
    cr_assert_eq(create_text(store, "k/first", "x"), GRAFT_OK); // makes the folder
}

static void set_up_rocksdb(void)
{
    set_up("rocksdb:");
}

static void set_up_fs(void)
{
    set_up("fs:");
}

static void tear_down(void)
{
    objstore_close(store);
    temp_folder_release(&folder);
}

TestSuite(objstore_rocksdb_sync, .init = set_up_rocksdb, .fini = tear_down, .timeout = 30);
TestSuite(objstore_fs_sync, .init = set_up_fs, .fini = tear_down, .timeout = 30);

static void start_creates(struct call *calls, unsigned count, const char *name)
{
    for (unsigned i = 0; i < count; i++) {
        char key[32];
        snprintf(key, sizeof key, "k/%s%u", name, i);
        call_init(&calls[i]);
        objstore_create(store, key, text_bytes("x"), call_done, &calls[i]);
    }
}

Test(objstore_rocksdb_sync, a_lone_write_costs_one_sync)
{
    for (unsigned i = 0; i < 10; i++) {
        char key[32];
        snprintf(key, sizeof key, "k/%u", i);
        unsigned before = gate_calls(&files);
        cr_assert_eq(create_text(store, key, "x"), GRAFT_OK);
        cr_assert_eq(gate_calls(&files), before + 1);
    }
    unsigned before = gate_calls(&files);
    cr_assert_eq(objstore_remove_wait(store, "k/1", NULL), GRAFT_OK);
    cr_assert_eq(gate_calls(&files), before + 1);
    cr_assert_eq(create_text(store, "k/2", "x"), GRAFT_CONFLICT);
    assert_holds(store, "k/2", "x");
    cr_assert_eq(gate_calls(&files), before + 1);
}

Test(objstore_rocksdb_sync, what_waits_shares_one_sync_and_nobody_is_answered_before_it)
{
    static struct call first[1], rest[100];
    gate_set(&files, true, 0);
    start_creates(first, 1, "first-");
    gate_await_caller(&files);
    start_creates(rest, ARRAY_COUNT(rest), "rest-");
    struct call again;
    call_init(&again);
    objstore_create(store, "k/first-0", text_bytes("y"), call_done, &again);
    assert_absent(store, "k/first-0"); // a get does not wait, and shows nothing that is not durable
    cr_assert_not(call_is_done(&first[0]));
    cr_assert_not(call_is_done(&again));
    unsigned before = gate_calls(&files);
    gate_set(&files, false, 0);
    cr_assert_eq(call_wait(&first[0]), GRAFT_OK);
    for (unsigned i = 0; i < ARRAY_COUNT(rest); i++)
        cr_assert_eq(call_wait(&rest[i]), GRAFT_OK);
    cr_assert_eq(call_wait(&again), GRAFT_CONFLICT);
    cr_assert_eq(gate_calls(&files), before + 1);
}

Test(objstore_rocksdb_sync, an_upload_is_covered_by_its_commits_sync)
{
    unsigned before = gate_calls(&files);
    struct objstore_upload *upload = begin_upload(store, "u");
    append_pattern(upload, 1000000, 100000);
    cr_assert_eq(gate_calls(&files), before);
    cr_assert_eq(commit_call(upload), GRAFT_OK);
    cr_assert_eq(gate_calls(&files), before + 1);
}

Test(objstore_rocksdb_sync, a_failed_sync_leaves_the_outcome_unknown_and_ends_the_store)
{
    static struct call calls[10];
    gate_set(&files, false, EIO);
    start_creates(calls, ARRAY_COUNT(calls), "");
    unsigned unknown = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
        enum graft_status status = call_wait(&calls[i]);
        unknown += status == GRAFT_UNKNOWN;
        cr_assert(status == GRAFT_UNKNOWN || status == GRAFT_UNAVAILABLE);
        cr_assert_eq(calls[i].result.error.detail, GRAFT_DETAIL_IO, "%s", calls[i].result.error.message);
    }
    cr_assert_geq(unknown, 1);
    gate_set(&files, false, 0);
    unsigned before = gate_calls(&files);
    cr_assert_eq(create_text(store, "k/after", "x"), GRAFT_UNAVAILABLE);
    struct call call;
    cr_assert_eq(get_call(store, "k/first", 0, 1, &call), GRAFT_UNAVAILABLE);
    struct objstore_upload *upload;
    cr_assert_eq(objstore_upload_begin(store, "u", &upload, NULL), GRAFT_UNAVAILABLE);
    cr_assert_eq(gate_calls(&files), before);
    objstore_close(TAKE(store));
    cr_assert_eq(fatal.calls, 1);
    cr_assert_eq(fatal.error.detail, GRAFT_DETAIL_IO);
}

Test(objstore_fs_sync, a_create_syncs_the_file_and_its_folder)
{
    unsigned files_before = gate_calls(&files), folders_before = gate_calls(&folders);
    cr_assert_eq(create_text(store, "k/a", "x"), GRAFT_OK);
    cr_assert_eq(gate_calls(&files), files_before + 1);
    cr_assert_eq(gate_calls(&folders), folders_before + 1);
    cr_assert_eq(objstore_remove_wait(store, "k/a", NULL), GRAFT_OK);
    cr_assert_eq(gate_calls(&folders), folders_before + 2);
    // A new folder is synced into each new parent first.
    cr_assert_eq(create_text(store, "n/e/w", "x"), GRAFT_OK);
    cr_assert_geq(gate_calls(&folders), folders_before + 5);
}

Test(objstore_fs_sync, a_file_that_is_not_synced_has_no_name)
{
    static struct call call[1];
    gate_set(&files, true, 0);
    start_creates(call, 1, "new-");
    gate_await_caller(&files);
    assert_absent(store, "k/new-0");
    gate_set(&files, false, 0);
    cr_assert_eq(call_wait(&call[0]), GRAFT_OK);
}

// While one create waits for its folder's sync, the object can be met: whoever does waits for a sync as well.
Test(objstore_fs_sync, nothing_is_shown_before_its_name_is_durable)
{
    static struct call created[1];
    struct call read, listed, raced;
    gate_set(&folders, true, 0);
    start_creates(created, 1, "new-");
    gate_await_caller(&folders);
    unsigned before = gate_calls(&folders);
    call_init(&read);
    call_init(&listed);
    call_init(&raced);
    objstore_get(store, "k/new-0", 0, 1, call_done, &read);
    objstore_list(store, "k/", NULL, 10, call_done, &listed);
    objstore_create(store, "k/new-0", text_bytes("y"), call_done, &raced);
    while (gate_calls(&folders) < before + 3)
        usleep(100);
    cr_assert_not(call_is_done(&created[0]));
    cr_assert_not(call_is_done(&read));
    cr_assert_not(call_is_done(&listed));
    cr_assert_not(call_is_done(&raced));
    assert_holds(store, "k/first", "x"); // others are not held up
    gate_set(&folders, false, 0);
    cr_assert_eq(call_wait(&created[0]), GRAFT_OK);
    cr_assert_eq(call_wait(&read), GRAFT_OK);
    cr_assert_eq(call_wait(&listed), GRAFT_OK);
    cr_assert_eq(call_wait(&raced), GRAFT_CONFLICT);
    call_release(&read);
    call_release(&listed);
}

Test(objstore_fs_sync, a_failed_sync_of_a_file_ends_the_store)
{
    gate_set(&files, false, EIO);
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "k/a", text_bytes("x"), &error), GRAFT_INTERNAL);
    cr_assert_eq(error.detail, GRAFT_DETAIL_IO);
    gate_set(&files, false, 0);
    cr_assert_eq(objstore_create_wait(store, "k/b", text_bytes("x"), &error), GRAFT_UNAVAILABLE);
    objstore_close(TAKE(store));
    cr_assert_eq(fatal.calls, 1);
}

Test(objstore_fs_sync, a_failed_sync_of_a_folder_leaves_the_outcome_unknown_and_ends_the_store)
{
    gate_set(&folders, false, EIO);
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "k/a", text_bytes("x"), &error), GRAFT_UNKNOWN);
    gate_set(&folders, false, 0);
    struct call call;
    cr_assert_eq(get_call(store, "k/first", 0, 1, &call), GRAFT_UNAVAILABLE);
    objstore_close(TAKE(store));
    cr_assert_eq(fatal.calls, 1);
}
