// SPDX-License-Identifier: Apache-2.0
//
// What every back-end promises, each test run on each of them.
#include <criterion/criterion.h>
#include <pthread.h>

#include "common/base/limits.h"
#include "common/base/random.h"
#include "tests/unit/store/store_calls.h"
#include "tests/unit/store/temp_folder.h"

static const struct objstore_settings no_settings;

static void on_mem(void (*test)(struct objstore *))
{
    struct objstore *store = open_store("mem:", "", &no_settings);
    test(store);
    objstore_close(store);
}

static void on_faulty(void (*test)(struct objstore *))
{
    struct objstore *store;
    cr_assert_eq(objstore_faulty_open(open_store("mem:", "", &no_settings), &store, NULL), GRAFT_OK);
    test(store);
    objstore_close(store);
}

static void on_folder(const char *scheme, void (*test)(struct objstore *))
{
    _cleanup_(temp_folder_release) struct temp_folder folder;
    temp_folder_init(&folder);
    struct objstore *store = open_store(scheme, folder.path, &no_settings);
    test(store);
    objstore_close(store);
}

// CONTRACT(behaviour) { … store … } makes one test for each back-end.
#define CONTRACT(behaviour)                        \
    static void behaviour(struct objstore *store); \
    Test(objstore_mem, behaviour)                  \
    {                                              \
        on_mem(behaviour);                         \
    }                                              \
    Test(objstore_faulty, behaviour)               \
    {                                              \
        on_faulty(behaviour);                      \
    }                                              \
    Test(objstore_fs, behaviour)                   \
    {                                              \
        on_folder("fs:", behaviour);               \
    }                                              \
    Test(objstore_rocksdb, behaviour)              \
    {                                              \
        on_folder("rocksdb:", behaviour);          \
    }                                              \
    static void behaviour(struct objstore *store)

CONTRACT(a_created_object_is_read_back)
{
    cr_assert_eq(create_text(store, "a/b/c", "hello"), GRAFT_OK);
    assert_holds(store, "a/b/c", "hello");
    assert_absent(store, "a/b/d");
    assert_absent(store, "a/b");
}

CONTRACT(an_empty_object_is_an_object)
{
    cr_assert_eq(create_text(store, "empty", ""), GRAFT_OK);
    assert_holds(store, "empty", "");
    cr_assert_eq(create_text(store, "empty", "x"), GRAFT_CONFLICT);
}

CONTRACT(a_second_create_conflicts_and_changes_nothing)
{
    cr_assert_eq(create_text(store, "key", "first"), GRAFT_OK);
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "key", text_bytes("second"), &error), GRAFT_CONFLICT);
    cr_assert_eq(error.detail, GRAFT_DETAIL_EXISTS);
    cr_assert(strstr(error.message, "key"));
    assert_holds(store, "key", "first");
}

CONTRACT(a_removed_key_can_be_created_again)
{
    cr_assert_eq(create_text(store, "k/x", "first"), GRAFT_OK);
    cr_assert_eq(objstore_remove_wait(store, "k/x", NULL), GRAFT_OK);
    assert_absent(store, "k/x");
    cr_assert_eq(objstore_remove_wait(store, "k/x", NULL), GRAFT_OK);
    cr_assert_eq(objstore_remove_wait(store, "never/there", NULL), GRAFT_OK);
    cr_assert_eq(create_text(store, "k/x", "second"), GRAFT_OK);
    assert_holds(store, "k/x", "second");
}

CONTRACT(replace_needs_the_version_that_was_read)
{
    cr_assert_eq(create_text(store, "key", "one"), GRAFT_OK);
    _cleanup_(call_release) struct call read, call;
    cr_assert_eq(get_call(store, "key", 0, 10, &read), GRAFT_OK);
    cr_assert_neq(read.result.tag[0], '\0');

    cr_assert_eq(replace_call(store, "key", read.result.tag, "two", &call), GRAFT_OK);
    assert_holds(store, "key", "two");
    char second[OBJSTORE_TAG_SIZE + 1];
    strcpy(second, call.result.tag);
    cr_assert_str_neq(second, read.result.tag);

    cr_assert_eq(replace_call(store, "key", read.result.tag, "three", &call), GRAFT_CONFLICT);
    assert_holds(store, "key", "two");
    cr_assert_eq(replace_call(store, "key", second, "three", &call), GRAFT_OK);
    assert_holds(store, "key", "three");

    cr_assert_eq(replace_call(store, "absent", second, "x", &call), GRAFT_CONFLICT);
    assert_absent(store, "absent");
}

CONTRACT(tags_of_create_and_get_agree)
{
    struct call created;
    call_init(&created);
    objstore_create(store, "key", text_bytes("data"), call_done, &created);
    cr_assert_eq(call_wait(&created), GRAFT_OK);
    _cleanup_(call_release) struct call read;
    cr_assert_eq(get_call(store, "key", 0, 1, &read), GRAFT_OK);
    cr_assert_str_eq(created.result.tag, read.result.tag);
}

CONTRACT(the_same_bytes_again_are_another_version)
{
    cr_assert_eq(create_text(store, "key", "same"), GRAFT_OK);
    _cleanup_(call_release) struct call first, call;
    cr_assert_eq(get_call(store, "key", 0, 1, &first), GRAFT_OK);
    cr_assert_eq(objstore_remove_wait(store, "key", NULL), GRAFT_OK);
    cr_assert_eq(create_text(store, "key", "same"), GRAFT_OK);
    cr_assert_eq(replace_call(store, "key", first.result.tag, "other", &call), GRAFT_CONFLICT);
}

static void assert_range(struct objstore *store, uint64_t offset, size_t size, const char *expected)
{
    _cleanup_(call_release) struct call call;
    cr_assert_eq(get_call(store, "key", offset, size, &call), GRAFT_OK);
    cr_assert_eq(call.result.object_size, 10);
    cr_assert_eq(call.result.data.size, strlen(expected), "[%lu, +%zu) gave %zu bytes", offset, size,
                 call.result.data.size);
    cr_assert(memcmp(call.result.data.data ? call.result.data.data : (uint8_t *)"", expected,
                     strlen(expected)) == 0);
}

CONTRACT(ranges_are_cut_at_the_objects_end)
{
    cr_assert_eq(create_text(store, "key", "0123456789"), GRAFT_OK);
    assert_range(store, 0, 10, "0123456789");
    assert_range(store, 3, 4, "3456");
    assert_range(store, 8, 100, "89");
    assert_range(store, 0, SIZE_MAX, "0123456789");
    assert_range(store, 10, 1, "");
    assert_range(store, UINT64_MAX, SIZE_MAX, "");
    assert_range(store, 2, 0, "");
}

CONTRACT(hostile_keys_are_refused)
{
    char too_long[OBJSTORE_KEY_MAX + 2];
    memset(too_long, 'a', sizeof too_long - 1);
    too_long[sizeof too_long - 1] = '\0';
    const char *const keys[] = {"",     "/",    "/a",    "a/",     "a//b", ".",      "..",   "a/..",
                                "../a", "./a",  "a/./b", "a/../b", "a\\b", "a b",    "a\nb", "\xc3\xa9",
                                "a@/b", "a%2f", "a+b",   "a:b",    "*",    too_long, "~",    "a\x01"};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        struct graft_error error;
        cr_assert_eq(objstore_create_wait(store, keys[i], text_bytes("x"), &error), GRAFT_INVALID, "%zu", i);
        cr_assert_eq(error.detail, GRAFT_DETAIL_BAD_ARGUMENT);
        _cleanup_(call_release) struct call call;
        cr_assert_eq(get_call(store, keys[i], 0, 1, &call), GRAFT_INVALID, "%zu", i);
        cr_assert_eq(replace_call(store, keys[i], "tag", "x", &call), GRAFT_INVALID, "%zu", i);
        cr_assert_eq(objstore_remove_wait(store, keys[i], NULL), GRAFT_INVALID, "%zu", i);
        struct objstore_upload *upload;
        cr_assert_eq(objstore_upload_begin(store, keys[i], &upload, NULL), GRAFT_INVALID, "%zu", i);
    }
    _cleanup_(call_release) struct call call;
    cr_assert_eq(list_call(store, "../", NULL, 10, &call), GRAFT_INVALID);
    cr_assert_eq(list_call(store, "/etc/", NULL, 10, &call), GRAFT_INVALID);
    cr_assert_eq(list_call(store, "", NULL, 10, &call), GRAFT_OK);
    cr_assert_eq(call.result.entry_count, 0);
}

CONTRACT(odd_but_legal_keys_work)
{
    char longest[OBJSTORE_KEY_MAX + 1], deepest[OBJSTORE_KEY_MAX + 1];
    memset(longest, 'z', OBJSTORE_KEY_MAX);
    for (size_t i = 0; i < OBJSTORE_KEY_MAX; i++)
        deepest[i] = i % 2 ? '/' : 'd';
    deepest[OBJSTORE_KEY_MAX - 1] = 'd';
    longest[OBJSTORE_KEY_MAX] = deepest[OBJSTORE_KEY_MAX] = '\0';
    const char *const keys[] = {"...", ".hidden", "-", "_/-/.a", "a", "a/b", "a/b/c", "A", longest, deepest};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        cr_assert_eq(create_text(store, keys[i], keys[i]), GRAFT_OK, "%s", keys[i]);
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        assert_holds(store, keys[i], keys[i]);
    _cleanup_(call_release) struct call call;
    cr_assert_eq(list_call(store, "", NULL, 100, &call), GRAFT_OK);
    cr_assert_eq(call.result.entry_count, ARRAY_COUNT(keys));
}

// ---- lists

static void assert_list(struct objstore *store, const char *prefix, const char *after, unsigned limit,
                        bool more, const char *expected)
{
    _cleanup_(call_release) struct call call;
    cr_assert_eq(list_call(store, prefix, after, limit, &call), GRAFT_OK, "%s", call.result.error.message);
    char joined[1024] = "";
    for (size_t i = 0; i < call.result.entry_count; i++) {
        strcat(joined, call.result.entries[i].key);
        strcat(joined, " ");
    }
    cr_assert_str_eq(joined, expected);
    cr_assert_eq(call.result.more, more);
}

CONTRACT(lists_are_in_the_order_of_the_bytes)
{
    const char *const keys[] = {"a0", "a/b", "a.b", "a-b",  "a",     "a/b/c",
                                "B",  "a_b", "a/-", "a/b0", "a/b.c", "b"};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        cr_assert_eq(create_text(store, keys[i], "x"), GRAFT_OK);
    assert_list(store, "", NULL, 100, false, "B a a-b a.b a/- a/b a/b.c a/b/c a/b0 a0 a_b b ");
    assert_list(store, "a/", NULL, 100, false, "a/- a/b a/b.c a/b/c a/b0 ");
    assert_list(store, "a/b", NULL, 100, false, "a/b a/b.c a/b/c a/b0 ");
    assert_list(store, "a", NULL, 100, false, "a a-b a.b a/- a/b a/b.c a/b/c a/b0 a0 a_b ");
    assert_list(store, "c", NULL, 100, false, "");
    assert_list(store, "a/b/c/d/", NULL, 100, false, "");
}

CONTRACT(a_list_goes_on_after_any_key)
{
    const char *const keys[] = {"a", "a/b", "a/b/c", "a/b0", "a0", "b/x"};
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        cr_assert_eq(create_text(store, keys[i], "x"), GRAFT_OK);
    assert_list(store, "", NULL, 2, true, "a a/b ");
    assert_list(store, "", "a/b", 2, true, "a/b/c a/b0 ");
    assert_list(store, "", "a/b0", 2, false, "a0 b/x ");
    assert_list(store, "", "b/x", 2, false, "");
    assert_list(store, "", "a/", 2, true, "a/b a/b/c ");
    assert_list(store, "", "a/b.none", 2, true, "a/b/c a/b0 ");
    assert_list(store, "a/b", "A", 1, true, "a/b ");
    assert_list(store, "a/b", "b", 10, false, "");
    assert_list(store, "a/b/", "a/b", 10, false, "a/b/c ");
    assert_list(store, "", NULL, 6, false, "a a/b a/b/c a/b0 a0 b/x ");
}

CONTRACT(removed_objects_leave_the_list)
{
    cr_assert_eq(create_text(store, "d/1", "x"), GRAFT_OK);
    cr_assert_eq(create_text(store, "e/1", "x"), GRAFT_OK);
    cr_assert_eq(create_text(store, "f", "x"), GRAFT_OK);
    cr_assert_eq(objstore_remove_wait(store, "d/1", NULL), GRAFT_OK);
    cr_assert_eq(objstore_remove_wait(store, "e/1", NULL), GRAFT_OK);
    assert_list(store, "", NULL, 1, false, "f ");
}

CONTRACT(entries_tell_size_and_time)
{
    cr_assert_eq(create_text(store, "k", "12345"), GRAFT_OK);
    _cleanup_(call_release) struct call call;
    cr_assert_eq(list_call(store, "k", NULL, 10, &call), GRAFT_OK);
    cr_assert_eq(call.result.entry_count, 1);
    cr_assert_eq(call.result.entries[0].size, 5);
    cr_assert_gt(call.result.entries[0].modified_ms, 1600000000000ull);
}

struct seen {
    unsigned count;
    unsigned stop_at;
    char last[OBJSTORE_KEY_MAX + 1];
};

static bool see(void *context, const struct objstore_entry *entry)
{
    struct seen *seen = context;
    cr_assert_gt(strcmp(entry->key, seen->last), 0);
    strcpy(seen->last, entry->key);
    return ++seen->count != seen->stop_at;
}

CONTRACT(a_long_list_is_visited_whole_or_until_told)
{
    enum { COUNT = OBJSTORE_LIST_MAX * 2 + 7 };
    struct call *calls = calloc(COUNT, sizeof *calls);
    for (unsigned i = 0; i < COUNT; i++) {
        char key[32];
        snprintf(key, sizeof key, "n/%05u", (i * 7919) % COUNT);
        call_init(&calls[i]);
        objstore_create(store, key, text_bytes("x"), call_done, &calls[i]);
    }
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(call_wait(&calls[i]), GRAFT_OK);
    free(calls);
    struct seen seen = {0};
    cr_assert_eq(objstore_list_wait(store, "n/", NULL, see, &seen, NULL), GRAFT_OK);
    cr_assert_eq(seen.count, COUNT);
    seen = (struct seen){.stop_at = 5};
    cr_assert_eq(objstore_list_wait(store, "n/", "n/00003", see, &seen, NULL), GRAFT_OK);
    cr_assert_eq(seen.count, 5);
    cr_assert_str_eq(seen.last, "n/00008");
}

// ---- uploads

CONTRACT(an_upload_is_visible_only_after_its_commit)
{
    size_t size = 3 * MIB + 12345;
    struct objstore_upload *upload = begin_upload(store, "u/large");
    append_pattern(upload, size, 100000);
    assert_absent(store, "u/large");
    assert_list(store, "", NULL, 10, false, "");
    cr_assert_eq(commit_call(upload), GRAFT_OK);
    assert_pattern(store, "u/large", size, 0, SIZE_MAX);
    assert_pattern(store, "u/large", size, 262143, 2);
    assert_pattern(store, "u/large", size, 262144, 262144);
    assert_pattern(store, "u/large", size, size - 1, 100);
    assert_list(store, "", NULL, 10, false, "u/large ");
}

CONTRACT(uploads_of_every_size_come_back_whole)
{
    const size_t sizes[] = {0, 1, 65535, 65536, 65537, 262143, 262144, 262145, 524288, 600000};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        char key[32];
        snprintf(key, sizeof key, "u/%zu", sizes[i]);
        struct objstore_upload *upload = begin_upload(store, key);
        append_pattern(upload, sizes[i], 65536 + i);
        cr_assert_eq(commit_call(upload), GRAFT_OK);
        assert_pattern(store, key, sizes[i], 0, SIZE_MAX);
        _cleanup_(call_release) struct call call;
        cr_assert_eq(list_call(store, key, NULL, 1, &call), GRAFT_OK);
        cr_assert_eq(call.result.entries[0].size, sizes[i]);
    }
}

CONTRACT(an_aborted_upload_leaves_nothing)
{
    struct objstore_upload *upload = begin_upload(store, "u/x");
    append_pattern(upload, MIB, MIB);
    objstore_upload_abort(upload);
    objstore_upload_abort(NULL);
    assert_absent(store, "u/x");
    assert_list(store, "", NULL, 10, false, "");
    cr_assert_eq(create_text(store, "u/x", "free"), GRAFT_OK);
}

CONTRACT(an_upload_does_not_replace)
{
    struct objstore_upload *upload = begin_upload(store, "u/x");
    append_pattern(upload, 400000, 400000);
    cr_assert_eq(create_text(store, "u/x", "first"), GRAFT_OK);
    cr_assert_eq(commit_call(upload), GRAFT_CONFLICT);
    assert_holds(store, "u/x", "first");
}

CONTRACT(large_objects_are_created_replaced_and_removed)
{
    size_t size = 700000;
    _cleanup_(free_p) uint8_t *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 13));
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "large", (struct bytes){data, size}, &error), GRAFT_OK);
    assert_pattern(store, "large", size, 0, SIZE_MAX);
    assert_pattern(store, "large", size, 100000, 500000);
    _cleanup_(call_release) struct call read, call;
    cr_assert_eq(get_call(store, "large", 0, 0, &read), GRAFT_OK);
    cr_assert_eq(replace_call(store, "large", read.result.tag, "small", &call), GRAFT_OK);
    assert_holds(store, "large", "small");
    cr_assert_eq(objstore_remove_wait(store, "large", NULL), GRAFT_OK);
    assert_absent(store, "large");
}

CONTRACT(what_is_too_large_for_a_create_is_refused)
{
    struct bytes data = {(const uint8_t *)"", (size_t)OBJSTORE_CREATE_SIZE_MAX + 1};
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "key", data, &error), GRAFT_LIMIT);
    cr_assert_eq(error.detail, GRAFT_DETAIL_TOO_LARGE);
}

// ---- races

#define RACERS 16
#define ROUNDS 20

struct racer {
    struct objstore *store;
    pthread_barrier_t *barrier;
    unsigned number;
    unsigned won[ROUNDS];
};

static void *race(void *argument)
{
    struct racer *racer = argument;
    char text[8];
    snprintf(text, sizeof text, "%u", racer->number);
    for (unsigned round = 0; round < ROUNDS; round++) {
        char key[32];
        snprintf(key, sizeof key, "race/%u", round);
        pthread_barrier_wait(racer->barrier);
        enum graft_status status = create_text(racer->store, key, text);
        if (status != GRAFT_OK && status != GRAFT_CONFLICT)
            abort();
        racer->won[round] = status == GRAFT_OK;
        // Whoever was told CONFLICT must be able to read the winner back.
        _cleanup_(buffer_release) struct buffer data = BUFFER_INIT(8);
        if (objstore_get_wait(racer->store, key, 0, 8, &data, NULL) != GRAFT_OK)
            abort();
    }
    return NULL;
}

CONTRACT(racing_creates_have_one_winner)
{
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, RACERS);
    struct racer racers[RACERS];
    pthread_t threads[RACERS];
    for (unsigned i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){.store = store, .barrier = &barrier, .number = i};
        cr_assert_eq(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (unsigned i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned winners = 0;
        char key[32], text[8] = "";
        snprintf(key, sizeof key, "race/%u", round);
        for (unsigned i = 0; i < RACERS; i++) {
            winners += racers[i].won[round];
            if (racers[i].won[round])
                snprintf(text, sizeof text, "%u", i);
        }
        cr_assert_eq(winners, 1);
        assert_holds(store, key, text);
    }
}

CONTRACT(waiting_creates_of_one_key_have_one_winner)
{
    enum { COUNT = 200 };
    static struct call calls[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        call_init(&calls[i]);
        objstore_create(store, "same", text_bytes("x"), call_done, &calls[i]);
    }
    unsigned winners = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        enum graft_status status = call_wait(&calls[i]);
        cr_assert(status == GRAFT_OK || status == GRAFT_CONFLICT);
        winners += status == GRAFT_OK;
        cr_assert_eq(calls[i].calls, 1);
    }
    cr_assert_eq(winners, 1);
}

struct chain {
    struct objstore *store;
    unsigned left;
    struct call end;
};

static void go_on(void *context, struct objstore_result *result)
{
    struct chain *chain = context;
    if (result->error.status != GRAFT_OK || chain->left == 0)
        return call_done(&chain->end, result);
    char key[32];
    snprintf(key, sizeof key, "chain/%u", chain->left--);
    objstore_create(chain->store, key, text_bytes("x"), go_on, chain);
}

CONTRACT(a_callback_may_start_the_next_operation)
{
    struct chain chain = {.store = store, .left = 100};
    call_init(&chain.end);
    objstore_create(store, "chain/0", text_bytes("x"), go_on, &chain);
    cr_assert_eq(call_wait(&chain.end), GRAFT_OK);
    assert_holds(store, "chain/1", "x");
}

CONTRACT(it_proves_itself_and_leaves_no_probe)
{
    struct graft_error error;
    cr_assert_eq(objstore_prove(store, &error), GRAFT_OK, "%s", error.message);
    cr_assert_eq(objstore_prove(store, &error), GRAFT_OK, "%s", error.message);
    assert_list(store, "", NULL, 10, false, "");
    cr_assert(objstore_is_exclusive(store));
}

Test(objstore, closing_waits_for_what_is_under_way)
{
    _cleanup_(temp_folder_release) struct temp_folder folder;
    temp_folder_init(&folder);
    static struct call calls[500];
    struct objstore *store = open_store("rocksdb:", folder.path, &no_settings);
    for (unsigned i = 0; i < ARRAY_COUNT(calls); i++) {
        char key[32];
        snprintf(key, sizeof key, "k/%u", i);
        call_init(&calls[i]);
        objstore_create(store, key, text_bytes("x"), call_done, &calls[i]);
    }
    objstore_close(store);
    for (unsigned i = 0; i < ARRAY_COUNT(calls); i++)
        cr_assert_eq(calls[i].calls, 1);
    objstore_close(NULL);
}

Test(objstore, metrics_count_calls_bytes_and_failures)
{
    struct metrics *metrics = metrics_new();
    struct objstore_settings settings = {.metrics = metrics};
    struct objstore *store = open_store("mem:", "", &settings);
    cr_assert_eq(create_text(store, "k", "12345"), GRAFT_OK);
    cr_assert_eq(create_text(store, "k", "12345"), GRAFT_CONFLICT);
    assert_holds(store, "k", "12345");
    objstore_close(store);
    _cleanup_(buffer_release) struct buffer text = BUFFER_INIT(65536);
    cr_assert_eq(metrics_print(metrics, &text, NULL), GRAFT_OK);
    cr_assert_eq(buffer_append(&text, "", 1, NULL), GRAFT_OK);
    const char *page = (const char *)text.data;
    cr_assert(strstr(page, "objstore_calls_total{store=\"mem\",op=\"create\"} 2"), "%s", page);
    cr_assert(strstr(page, "objstore_bytes_total{store=\"mem\",op=\"create\"} 5"));
    cr_assert(strstr(page, "objstore_bytes_total{store=\"mem\",op=\"get\"} 5"));
    cr_assert(strstr(page, "objstore_failures_total{store=\"mem\",op=\"create\"} 0"));
    metrics_free(metrics);
}

Test(objstore, unknown_stores_are_refused)
{
    const char *const urls[] = {"", "rocksdb:", "fs:", "mem", "mem:x", "s3:bucket", "/some/folder"};
    for (size_t i = 0; i < ARRAY_COUNT(urls); i++) {
        struct objstore *store = NULL;
        struct graft_error error;
        cr_assert_eq(objstore_open(urls[i], &no_settings, &store, &error), GRAFT_INVALID, "%s", urls[i]);
        cr_assert(strstr(error.message, "rocksdb:DIR"));
    }
}
