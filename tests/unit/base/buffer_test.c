// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <signal.h>

#include "common/base/buffer.h"

Test(buffer, grows_to_its_cap_and_not_beyond)
{
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(1000);
    struct graft_error err;
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(buffer_append(&buffer, "x", 1, &err), GRAFT_OK);
    cr_assert_eq(buffer.size, 1000);
    cr_assert_leq(buffer.capacity, 1000);
    cr_assert_eq(buffer_append(&buffer, "x", 1, &err), GRAFT_LIMIT);
    cr_assert_eq(err.detail, GRAFT_DETAIL_TOO_LARGE);
    cr_assert_eq(buffer.size, 1000);
    cr_assert_eq(buffer_append(&buffer, NULL, 0, &err), GRAFT_OK);
}

Test(buffer, sizes_do_not_overflow)
{
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(100);
    cr_assert_eq(buffer_append(&buffer, "ab", 2, NULL), GRAFT_OK);
    cr_assert_eq(buffer_reserve(&buffer, SIZE_MAX, NULL), GRAFT_LIMIT);
    cr_assert_eq(buffer_reserve(&buffer, SIZE_MAX - 1, NULL), GRAFT_LIMIT);
    cr_assert_eq(buffer_reserve(&buffer, 98, NULL), GRAFT_OK);
    cr_assert_geq(buffer.capacity, 100);
}

Test(buffer, memory_that_is_not_there_is_an_error)
{
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(SIZE_MAX);
    struct graft_error err;
    cr_assert_eq(buffer_append(&buffer, "ab", 2, &err), GRAFT_OK);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) // whose allocators abort here
    cr_assert_eq(buffer_reserve(&buffer, SIZE_MAX / 2, &err), GRAFT_INTERNAL);
    cr_assert_eq(err.detail, GRAFT_DETAIL_NO_MEMORY);
#endif
    cr_assert_eq(buffer.size, 2);
    cr_assert_arr_eq(buffer.data, "ab", 2);
}

Test(buffer, formats_short_and_long_text)
{
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(2000);
    cr_assert_eq(buffer_printf(&buffer, NULL, "%d,", 12), GRAFT_OK);
    cr_assert_eq(buffer_printf(&buffer, NULL, "%*d", 1500, 7), GRAFT_OK);
    cr_assert_eq(buffer.size, 1503);
    cr_assert_arr_eq(buffer.data, "12, ", 4);
    cr_assert_eq(buffer.data[1502], '7');
    cr_assert_eq(buffer_printf(&buffer, NULL, "%*d", 500, 7), GRAFT_LIMIT);
    cr_assert_eq(buffer.size, 1503);
}

Test(buffer, consumes_from_the_front)
{
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(100);
    buffer_append(&buffer, "abcdef", 6, NULL);
    buffer_consume(&buffer, 2);
    cr_assert_eq(buffer.size, 4);
    cr_assert_arr_eq(buffer.data, "cdef", 4);
    buffer_consume(&buffer, 4);
    cr_assert_eq(buffer.size, 0);
    buffer_consume(&buffer, 0);
}

Test(buffer, consuming_more_than_there_is_aborts, .signal = SIGABRT)
{
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(100);
    buffer_consume(&buffer, 1);
}

Test(buffer, take_moves_the_bytes_and_keeps_the_cap)
{
    _cleanup_(buffer_release) struct buffer buffer = BUFFER_INIT(10);
    buffer_append(&buffer, "abc", 3, NULL);
    _cleanup_(buffer_release) struct buffer taken = buffer_take(&buffer);
    cr_assert_eq(taken.size, 3);
    cr_assert_eq(buffer.size, 0);
    cr_assert_null(buffer.data);
    cr_assert_eq(buffer.size_max, 10);
    cr_assert_eq(buffer_append(&buffer, "0123456789", 10, NULL), GRAFT_OK);
    cr_assert_eq(buffer_append(&buffer, "0", 1, NULL), GRAFT_LIMIT);
}

Test(buffer, released_can_be_used_again)
{
    struct buffer buffer = BUFFER_INIT(10);
    buffer_append(&buffer, "abc", 3, NULL);
    buffer_release(&buffer);
    cr_assert_null(buffer.data);
    cr_assert_eq(buffer.size_max, 10);
    buffer_append(&buffer, "abc", 3, NULL);
    buffer_clear(&buffer);
    cr_assert_eq(buffer_bytes(&buffer).size, 0);
    buffer_release(&buffer);
}
