// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <string.h>

#include "client/page_one.h"

static void make_page(uint8_t page[PAGE_ONE_HEADER])
{
    for (unsigned i = 0; i < PAGE_ONE_HEADER; i++)
        page[i] = (uint8_t)(i + 1);
    page[16] = 0x10;
    page[17] = 0;
}

Test(page_one, canonical_form_has_none_of_what_every_commit_changes)
{
    uint8_t page[PAGE_ONE_HEADER], before[PAGE_ONE_HEADER];

    make_page(page);
    memcpy(before, page, sizeof page);
    page_one_make_canonical(page, 0);
    for (unsigned i = 0; i < PAGE_ONE_HEADER; i++) {
        if (i == 18 || i == 19)
            cr_assert_eq(page[i], 1);
        else if ((i >= 24 && i < 32) || i >= 92)
            cr_assert_eq(page[i], 0, "byte %u", i);
        else
            cr_assert_eq(page[i], before[i], "byte %u", i);
    }
}

Test(page_one, what_is_filled_in_is_taken_out_again)
{
    uint8_t page[PAGE_ONE_HEADER], canonical[PAGE_ONE_HEADER];

    make_page(canonical);
    page_one_make_canonical(canonical, 0);
    memcpy(page, canonical, sizeof page);
    page_one_fill_in(page, 0x01020304, 77, 0xfffffff0);
    cr_assert_eq(page_one_counter(page), 0x01020304);
    cr_assert_eq(page_one_page_count(page), 77);
    cr_assert_eq(page_one_cookie(page), page_one_cookie(canonical) + 0xfffffff0u);
    cr_assert_eq(memcmp(page + 24, page + 92, 4), 0);
    page_one_make_canonical(page, 0xfffffff0);
    cr_assert_eq(memcmp(page, canonical, sizeof page), 0);
}

Test(page_one, counters_of_a_foreign_image_are_replaced)
{
    uint8_t page[PAGE_ONE_HEADER];

    make_page(page);
    page_one_fill_in(page, 9, 3, 0);
    cr_assert_eq(page_one_counter(page), 9);
    cr_assert_eq(page_one_page_count(page), 3);
    cr_assert(page_one_is_rollback(page));
}

Test(page_one, page_sizes)
{
    uint8_t page[PAGE_ONE_HEADER] = {0};

    cr_assert_eq(page_one_page_size(page), 0);
    for (uint32_t size = 512; size <= 65536; size *= 2) {
        page_one_set_page_size(page, size);
        cr_assert_eq(page_one_page_size(page), size);
    }
    page[16] = 0x0c; // 3,072
    page[17] = 0;
    cr_assert_eq(page_one_page_size(page), 0);
}

Test(page_one, versions_of_wal_are_told)
{
    uint8_t page[PAGE_ONE_HEADER] = {0};

    page[18] = 1;
    page[19] = 2;
    cr_assert_not(page_one_is_rollback(page));
    page[19] = 1;
    cr_assert(page_one_is_rollback(page));
}

Test(page_one, an_exported_page_is_no_longer_canonical)
{
    uint8_t page[PAGE_ONE_HEADER] = "SQLite format 3";

    page_one_set_page_size(page, 4096);
    page_one_make_canonical(page, 0);
    cr_assert(page_one_is_canonical(page));
    page_one_export(page, 12);
    cr_assert_not(page_one_is_canonical(page));
    cr_assert_eq(page_one_counter(page), 1);
    cr_assert_eq(memcmp(page + 24, page + 92, 4), 0);
    cr_assert_eq(page_one_page_count(page), 12);
    memset(page, 0, sizeof page);
    cr_assert_not(page_one_is_canonical(page), "no database at all");
}
