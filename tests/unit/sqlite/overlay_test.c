// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "sqlite/overlay.h"

#define PAGE_SIZE 512u
#define PAGES 3000u

static struct overlay *overlay;
static struct graft_error err;

static void setup(void)
{
    overlay = overlay_new(PAGE_SIZE, 100, ".", 64 * PAGE_SIZE);
    cr_assert_not_null(overlay);
}

static void teardown(void)
{
    overlay_free(overlay);
}

TestSuite(overlay, .init = setup, .fini = teardown);

static void put(uint32_t pageidx, uint8_t with)
{
    uint8_t page[PAGE_SIZE];

    memset(page, with, sizeof page);
    cr_assert_eq(overlay_put(overlay, pageidx, page, &err), GRAFT_OK, "%s", err.message);
}

// What is there, 0 for a page that it does not have.
static uint8_t get(uint32_t pageidx)
{
    uint8_t page[PAGE_SIZE];
    bool found;

    cr_assert_eq(overlay_get(overlay, pageidx, page, &found, &err), GRAFT_OK, "%s", err.message);
    if (!found)
        return 0;
    for (unsigned i = 1; i < PAGE_SIZE; i++)
        cr_assert_eq(page[i], page[0]);
    return page[0];
}

Test(overlay, pages_are_as_they_were_written_last_in_memory_and_beyond)
{
    static uint8_t model[PAGES + 1];

    srand(1);
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t pageidx = 1 + (uint32_t)rand() % PAGES;
        model[pageidx] = (uint8_t)(1 + rand() % 255);
        put(pageidx, model[pageidx]);
    }
    cr_assert(overlay_has_spilled(overlay));
    for (uint32_t pageidx = 1; pageidx <= PAGES; pageidx++)
        cr_assert_eq(get(pageidx), model[pageidx]);
}

Test(overlay, few_pages_stay_in_memory)
{
    for (uint32_t pageidx = 1; pageidx <= 64; pageidx++)
        put(pageidx, 1);
    cr_assert_not(overlay_has_spilled(overlay));
    put(65, 1);
    cr_assert(overlay_has_spilled(overlay));
}

Test(overlay, growing_and_cutting)
{
    cr_assert_eq(overlay_page_count(overlay), 100);
    put(150, 7);
    cr_assert_eq(overlay_page_count(overlay), 150);
    cr_assert_eq(overlay_cut(overlay), 100);
    put(40, 8);
    cr_assert_eq(overlay_truncate(overlay, 50, &err), GRAFT_OK);
    cr_assert_eq(overlay_page_count(overlay), 50);
    cr_assert_eq(overlay_cut(overlay), 50);
    cr_assert_eq(get(150), 0);
    cr_assert_eq(get(40), 8);
    put(60, 9);
    cr_assert_eq(overlay_page_count(overlay), 60);
    cr_assert_eq(overlay_cut(overlay), 50, "what was cut off does not come back");
    cr_assert_eq(get(55), 0);
}

Test(overlay, pages_are_listed_in_order)
{
    uint32_t *pages;
    size_t count;

    cr_assert_eq(overlay_pages(overlay, &pages, &count, &err), GRAFT_OK);
    cr_assert_eq(count, 0);
    for (uint32_t i = 0; i < 500; i++)
        put(1 + (i * 7919) % 1000, 1);
    cr_assert_eq(overlay_truncate(overlay, 900, &err), GRAFT_OK);
    cr_assert_eq(overlay_pages(overlay, &pages, &count, &err), GRAFT_OK);
    cr_assert_gt(count, 300);
    for (size_t i = 0; i < count; i++) {
        cr_assert_leq(pages[i], 900);
        cr_assert(i == 0 || pages[i - 1] < pages[i]);
        cr_assert_eq(get(pages[i]), 1);
    }
    free(pages);
}
