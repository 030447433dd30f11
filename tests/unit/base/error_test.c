// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "common/base/error.h"

Test(error, set_fills_everything_and_returns_the_status)
{
    struct graft_error err;
    cr_assert_eq(error_set(&err, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "base %d", 7), GRAFT_CONFLICT);
    cr_assert_eq(err.status, GRAFT_CONFLICT);
    cr_assert_eq(err.detail, GRAFT_DETAIL_NOT_HEAD);
    cr_assert_str_eq(err.message, "base 7");
}

Test(error, null_is_taken_everywhere)
{
    cr_assert_eq(error_set(NULL, GRAFT_GONE, GRAFT_DETAIL_NONE, "x"), GRAFT_GONE);
    cr_assert_eq(error_context(NULL, GRAFT_GONE, "x"), GRAFT_GONE);
    cr_assert_eq(error_from_errno(NULL, ENOENT, "x"), GRAFT_NOT_FOUND);
    cr_assert_eq(error_copy(NULL, NULL), GRAFT_OK);
}

Test(error, context_stands_in_front)
{
    struct graft_error err;
    error_set(&err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "page 0");
    cr_assert_eq(error_context(&err, GRAFT_INVALID, "reading %s", "x"), GRAFT_INVALID);
    cr_assert_str_eq(err.message, "reading x: page 0");
    cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_ARGUMENT);
}

Test(error, long_messages_are_cut_at_a_character)
{
    struct graft_error err;
    char text[400];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    error_set(&err, GRAFT_INVALID, GRAFT_DETAIL_NONE, "%s", text);
    cr_assert_eq(strlen(err.message), GRAFT_ERROR_MESSAGE_SIZE - 1);

    // The two bytes of é lie across the last byte there is room for.
    memcpy(text + GRAFT_ERROR_MESSAGE_SIZE - 2, "é", 2);
    error_set(&err, GRAFT_INVALID, GRAFT_DETAIL_NONE, "%s", text);
    cr_assert_eq(strlen(err.message), GRAFT_ERROR_MESSAGE_SIZE - 2);

    error_set(&err, GRAFT_INVALID, GRAFT_DETAIL_NONE, "short");
    error_context(&err, GRAFT_INVALID, "%s", text);
    cr_assert_eq(strlen(err.message), GRAFT_ERROR_MESSAGE_SIZE - 2);
}

Test(error, control_characters_do_not_pass)
{
    struct graft_error err;
    error_set(&err, GRAFT_INVALID, GRAFT_DETAIL_NONE, "a\nb\033[31m\x7f");
    cr_assert_str_eq(err.message, "a?b?[31m?");
}

Test(error, a_message_may_quote_itself)
{
    struct graft_error err;
    error_set(&err, GRAFT_INVALID, GRAFT_DETAIL_NONE, "inner");
    error_set(&err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "outer: %s", err.message);
    cr_assert_str_eq(err.message, "outer: inner");
}

Test(error, copy_moves_all_fields)
{
    struct graft_error from, to;
    error_set(&from, GRAFT_BUSY, GRAFT_DETAIL_LOCKED, "pid 1");
    cr_assert_eq(error_copy(&to, &from), GRAFT_BUSY);
    cr_assert_eq(to.detail, GRAFT_DETAIL_LOCKED);
    cr_assert_str_eq(to.message, "pid 1");
}

Test(error, errno_maps_to_what_the_caller_does_next)
{
    static const struct {
        int number;
        enum graft_status status;
        enum graft_detail detail;
    } cases[] = {
        {ENOSPC, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE},  {EDQUOT, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE},
        {EIO, GRAFT_INTERNAL, GRAFT_DETAIL_IO},           {ENOENT, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE},
        {EACCES, GRAFT_DENIED, GRAFT_DETAIL_NONE},        {EPERM, GRAFT_DENIED, GRAFT_DETAIL_NONE},
        {ENOMEM, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY}, {EROFS, GRAFT_INTERNAL, GRAFT_DETAIL_NONE},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct graft_error err;
        cr_assert_eq(error_from_errno(&err, cases[i].number, "doing %d", 5), cases[i].status);
        cr_assert_eq(err.status, cases[i].status);
        cr_assert_eq(err.detail, cases[i].detail, "errno %d", cases[i].number);
        cr_assert(strncmp(err.message, "doing 5: ", 9) == 0, "%s", err.message);
        cr_assert_str_eq(err.message + 9, strerror(cases[i].number));
    }
}

Test(error, every_number_has_a_name)
{
    for (uint32_t i = 0; i <= GRAFT_INTERNAL; i++)
        cr_assert_str_neq(graft_status_name((enum graft_status)i), "?");
    for (uint32_t i = 0; i <= GRAFT_DETAIL_FROZEN; i++) {
        cr_assert_not_null(graft_detail_name((enum graft_detail)i));
        cr_assert_str_neq(graft_detail_name((enum graft_detail)i), "?");
    }
    cr_assert_str_eq(graft_status_name(GRAFT_GONE), "GONE");
    cr_assert_str_eq(graft_detail_name(GRAFT_DETAIL_TOKEN_REUSED), "TOKEN_REUSED");
    cr_assert_str_eq(graft_status_name((enum graft_status)99), "?");
    cr_assert_str_eq(graft_detail_name((enum graft_detail)9999), "?");
}

Test(error, unknown_numbers_off_the_wire_become_internal)
{
    cr_assert_eq(status_from_wire(GRAFT_CORRUPT), GRAFT_CORRUPT);
    cr_assert_eq(status_from_wire(GRAFT_INTERNAL + 1), GRAFT_INTERNAL);
    cr_assert_eq(status_from_wire(UINT32_MAX), GRAFT_INTERNAL);
    cr_assert_eq(detail_from_wire(GRAFT_DETAIL_FROZEN), GRAFT_DETAIL_FROZEN);
    cr_assert_eq(detail_from_wire(GRAFT_DETAIL_FROZEN + 1), GRAFT_DETAIL_NONE);
}

Test(error, ok_is_no_error, .signal = SIGABRT)
{
    error_set(NULL, GRAFT_OK, GRAFT_DETAIL_NONE, "x");
}
