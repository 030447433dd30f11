// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>

#include "tests/unit/store/store_calls.h"

static struct objstore *store;

static void set_up(void)
{
    static const struct objstore_settings settings;
    cr_assert_eq(objstore_faulty_open(open_store("mem:", "", &settings), &store, NULL), GRAFT_OK);
}

static void tear_down(void)
{
    objstore_close(store);
}

TestSuite(objstore_faulty, .init = set_up, .fini = tear_down, .timeout = 30);

Test(objstore_faulty, an_error_is_answered_and_nothing_done)
{
    struct objstore_fault fault = {
        .op = "create", .key_prefix = "a/", .skip = 1, .count = 2, .kind = FAULT_ERROR};
    error_set(&fault.error, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, "full");
    objstore_faulty_add(store, &fault);

    cr_assert_eq(create_text(store, "a/1", "x"), GRAFT_OK);
    cr_assert_eq(create_text(store, "b/1", "x"), GRAFT_OK);
    struct graft_error error;
    cr_assert_eq(objstore_create_wait(store, "a/2", text_bytes("x"), &error), GRAFT_INTERNAL);
    cr_assert_eq(error.detail, GRAFT_DETAIL_NO_SPACE);
    assert_absent(store, "a/2");
    cr_assert_eq(objstore_faulty_fired(store), 1);
    cr_assert_eq(create_text(store, "a/2", "x"), GRAFT_INTERNAL);
    cr_assert_eq(create_text(store, "a/2", "x"), GRAFT_OK);
    cr_assert_eq(objstore_faulty_fired(store), 2);
}

Test(objstore_faulty, a_lost_answer_was_done)
{
    objstore_faulty_add(store,
                        &(struct objstore_fault){.op = "create", .count = 1, .kind = FAULT_LOST_ANSWER});
    cr_assert_eq(create_text(store, "key", "x"), GRAFT_UNKNOWN);
    assert_holds(store, "key", "x");
    cr_assert_eq(create_text(store, "key", "x"), GRAFT_CONFLICT);
}

Test(objstore_faulty, a_store_that_forgets_exclusive_creates_is_refused)
{
    objstore_faulty_add(store,
                        &(struct objstore_fault){.op = "create", .count = 2, .kind = FAULT_FORGET_EXCLUSIVE});
    struct graft_error error;
    cr_assert_eq(objstore_prove(store, &error), GRAFT_INVALID);
    cr_assert_eq(error.detail, GRAFT_DETAIL_BAD_STORE);
    cr_assert_eq(objstore_prove(store, &error), GRAFT_OK);
}

Test(objstore_faulty, a_proof_passes_other_failures_on)
{
    struct objstore_fault fault = {.op = "create", .skip = 1, .count = 1, .kind = FAULT_ERROR};
    error_set(&fault.error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_UNREACHABLE, "no store there");
    objstore_faulty_add(store, &fault);
    struct graft_error error;
    cr_assert_eq(objstore_prove(store, &error), GRAFT_UNAVAILABLE);
    cr_assert_eq(error.detail, GRAFT_DETAIL_UNREACHABLE);
    cr_assert(strstr(error.message, "no store there"));
}

Test(objstore_faulty, held_operations_wait_and_go_on_in_order)
{
    objstore_faulty_add(store, &(struct objstore_fault){.op = "create", .count = 2, .kind = FAULT_HOLD});
    struct call first, second;
    call_init(&first);
    call_init(&second);
    objstore_create(store, "key", text_bytes("first"), call_done, &first);
    objstore_create(store, "key", text_bytes("second"), call_done, &second);
    assert_absent(store, "key");
    cr_assert_not(call_is_done(&first));
    objstore_faulty_release(store);
    cr_assert_eq(call_wait(&first), GRAFT_OK);
    cr_assert_eq(call_wait(&second), GRAFT_CONFLICT);
    assert_holds(store, "key", "first");
}

Test(objstore_faulty, commits_of_uploads_fail_lose_their_answer_or_wait)
{
    struct objstore_fault fault = {.op = "commit", .count = 1, .kind = FAULT_ERROR};
    error_set(&fault.error, GRAFT_INTERNAL, GRAFT_DETAIL_IO, "broken");
    objstore_faulty_add(store, &fault);
    objstore_faulty_add(store,
                        &(struct objstore_fault){.op = "commit", .count = 1, .kind = FAULT_LOST_ANSWER});
    objstore_faulty_add(store, &(struct objstore_fault){.op = "commit", .count = 1, .kind = FAULT_HOLD});

    struct objstore_upload *upload = begin_upload(store, "u/1");
    append_pattern(upload, 1000, 100);
    cr_assert_eq(commit_call(upload), GRAFT_INTERNAL);
    assert_absent(store, "u/1");

    upload = begin_upload(store, "u/2");
    append_pattern(upload, 1000, 100);
    cr_assert_eq(commit_call(upload), GRAFT_UNKNOWN);
    assert_pattern(store, "u/2", 1000, 0, 1000);

    upload = begin_upload(store, "u/3");
    append_pattern(upload, 1000, 100);
    struct call call;
    call_init(&call);
    objstore_upload_commit(upload, call_done, &call);
    assert_absent(store, "u/3");
    objstore_faulty_release(store);
    cr_assert_eq(call_wait(&call), GRAFT_OK);
    assert_pattern(store, "u/3", 1000, 0, 1000);
}

Test(objstore_faulty, a_fault_without_an_operation_hits_all)
{
    struct objstore_fault fault = {.key_prefix = "x", .count = 4, .kind = FAULT_ERROR};
    error_set(&fault.error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_NONE, "down");
    objstore_faulty_add(store, &fault);
    struct call call;
    cr_assert_eq(create_text(store, "x", "1"), GRAFT_UNAVAILABLE);
    cr_assert_eq(get_call(store, "x", 0, 1, &call), GRAFT_UNAVAILABLE);
    cr_assert_eq(list_call(store, "x", NULL, 1, &call), GRAFT_UNAVAILABLE);
    cr_assert_eq(objstore_remove_wait(store, "x", NULL), GRAFT_UNAVAILABLE);
    cr_assert_eq(create_text(store, "x", "1"), GRAFT_OK);
}
