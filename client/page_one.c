// SPDX-License-Identifier: Apache-2.0
#include "client/page_one.h"

#include <string.h>

#define AT_PAGE_SIZE 16
#define AT_WRITE_VERSION 18
#define AT_READ_VERSION 19
#define AT_COUNTER 24
#define AT_PAGE_COUNT 28
#define AT_COOKIE 40
#define AT_VALID_FOR 92
#define AT_LIBRARY_VERSION 96
#define LIBRARY_VERSION 3031000 // the oldest that has all that the VFS needs

static uint32_t get_u32(const uint8_t *page, size_t at)
{
    return (uint32_t)page[at] << 24 | (uint32_t)page[at + 1] << 16 | (uint32_t)page[at + 2] << 8 |
           page[at + 3];
}

static void put_u32(uint8_t *page, size_t at, uint32_t number)
{
    page[at] = (uint8_t)(number >> 24);
    page[at + 1] = (uint8_t)(number >> 16);
    page[at + 2] = (uint8_t)(number >> 8);
    page[at + 3] = (uint8_t)number;
}

uint32_t page_one_counter(const uint8_t *page)
{
    return get_u32(page, AT_COUNTER);
}

uint32_t page_one_cookie(const uint8_t *page)
{
    return get_u32(page, AT_COOKIE);
}

uint32_t page_one_page_count(const uint8_t *page)
{
    return get_u32(page, AT_PAGE_COUNT);
}

// 65,536 does not fit and is written as 1.
uint32_t page_one_page_size(const uint8_t *page)
{
    uint32_t size = (uint32_t)page[AT_PAGE_SIZE] << 8 | page[AT_PAGE_SIZE + 1];
    if (size == 1)
        return 65536;
    return size >= 512 && (size & (size - 1)) == 0 ? size : 0;
}

void page_one_set_page_size(uint8_t *page, uint32_t page_size)
{
    page[AT_PAGE_SIZE] = (uint8_t)(page_size >> 8);
    page[AT_PAGE_SIZE + 1] = (uint8_t)(page_size >> 16);
}

bool page_one_is_rollback(const uint8_t *page)
{
    return page[AT_WRITE_VERSION] == 1 && page[AT_READ_VERSION] == 1;
}

bool page_one_is_canonical(const uint8_t *page)
{
    static const char magic[16] = "SQLite format 3";

    return memcmp(page, magic, sizeof magic) == 0 && get_u32(page, AT_COUNTER) == 0 &&
           get_u32(page, AT_PAGE_COUNT) == 0 && get_u32(page, AT_VALID_FOR) == 0 &&
           get_u32(page, AT_LIBRARY_VERSION) == 0;
}

void page_one_make_canonical(uint8_t *page, uint32_t cookie_offset)
{
    page[AT_WRITE_VERSION] = 1;
    page[AT_READ_VERSION] = 1;
    put_u32(page, AT_COUNTER, 0);
    put_u32(page, AT_PAGE_COUNT, 0);
    put_u32(page, AT_COOKIE, get_u32(page, AT_COOKIE) - cookie_offset);
    put_u32(page, AT_VALID_FOR, 0);
    put_u32(page, AT_LIBRARY_VERSION, 0);
}

void page_one_fill_in(uint8_t *page, uint32_t counter, uint32_t page_count, uint32_t cookie_offset)
{
    page_one_make_canonical(page, 0);
    put_u32(page, AT_COUNTER, counter);
    put_u32(page, AT_PAGE_COUNT, page_count);
    put_u32(page, AT_COOKIE, get_u32(page, AT_COOKIE) + cookie_offset);
    put_u32(page, AT_VALID_FOR, counter);
}

void page_one_export(uint8_t *page, uint32_t page_count)
{
    page_one_fill_in(page, 1, page_count, 0);
    put_u32(page, AT_LIBRARY_VERSION, LIBRARY_VERSION);
}
