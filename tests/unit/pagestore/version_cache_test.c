// SPDX-License-Identifier: Apache-2.0
#include "pagestore/version_cache.h"

#include <criterion/criterion.h>

#define SIZE (64u * 1024)

static void fill_one(struct version_cache *cache, uint64_t key, uint32_t page, uint64_t lsn, uint32_t segment)
{
    struct version_chunk chunk;
    version_chunk_clear(&chunk);
    chunk.lsn[page % VERSION_CHUNK_PAGES] = lsn;
    chunk.segment[page % VERSION_CHUNK_PAGES] = segment;
    version_cache_fill(cache, key, page / VERSION_CHUNK_PAGES, &chunk);
}

static void expect(struct version_cache *cache, uint64_t key, uint32_t page, uint64_t lsn, uint32_t segment)
{
    struct version_chunk chunk;
    version_cache_get(cache, key, page / VERSION_CHUNK_PAGES, &chunk);
    cr_assert_eq(chunk.lsn[page % VERSION_CHUNK_PAGES], lsn, "page %u: LSN %llu", page,
                 (unsigned long long)chunk.lsn[page % VERSION_CHUNK_PAGES]);
    if (lsn != VERSION_UNKNOWN)
        cr_assert_eq(chunk.segment[page % VERSION_CHUNK_PAGES], segment, "page %u", page);
}

Test(version_cache, what_was_filled_in_is_there_and_nothing_else)
{
    struct version_cache *cache = version_cache_new(SIZE);
    expect(cache, 1, 70, VERSION_UNKNOWN, 0);
    fill_one(cache, 1, 70, 9, 3);
    fill_one(cache, 1, 71, 0, 0); // never written
    expect(cache, 1, 70, 9, 3);
    expect(cache, 1, 71, 0, 0);
    expect(cache, 1, 72, VERSION_UNKNOWN, 0);
    expect(cache, 1, 6, VERSION_UNKNOWN, 0);  // the same place of another chunk
    expect(cache, 2, 70, VERSION_UNKNOWN, 0); // another history
    expect(cache, 1, UINT32_MAX, VERSION_UNKNOWN, 0);
    fill_one(cache, 1, UINT32_MAX, 2, 1);
    expect(cache, 1, UINT32_MAX, 2, 1);
    version_cache_free(cache);
}

Test(version_cache, newer_versions_are_noted_where_the_chunk_is_known)
{
    struct version_cache *cache = version_cache_new(SIZE);
    fill_one(cache, 1, 70, 9, 3);
    version_cache_note(cache, 1, 64, 64, 10, 4); // the whole chunk
    expect(cache, 1, 63, VERSION_UNKNOWN, 0);
    for (uint32_t page = 64; page < 128; page++)
        expect(cache, 1, page, 10, 4);
    version_cache_note(cache, 1, 127, 1, 11, 5);
    expect(cache, 1, 126, 10, 4);
    expect(cache, 1, 127, 11, 5);
    version_cache_note(cache, 1, 128, 1, 11, 5); // a chunk of which nothing is known: nothing becomes known
    expect(cache, 1, 128, VERSION_UNKNOWN, 0);
    version_cache_note(cache, 2, 70, 1, 12, 6);
    expect(cache, 1, 70, 10, 4);
    version_cache_free(cache);
}

Test(version_cache, the_least_recently_read_chunk_makes_room)
{
    struct version_cache *cache = version_cache_new(SIZE), *none = version_cache_new(0);
    struct version_chunk chunk;
    uint32_t held = 0;
    for (uint32_t number = 0; number < 1000; number++) {
        fill_one(cache, 1, number * VERSION_CHUNK_PAGES, 1, 1);
        cr_assert(version_cache_get(cache, 1, 0, &chunk)); // read again and again: it stays
    }
    for (uint32_t number = 0; number < 1000; number++)
        held += version_cache_get(cache, 1, number, &chunk);
    cr_assert(held > 2 && held * sizeof(struct version_chunk) <= SIZE, "%u chunks", held);
    cr_assert(version_cache_get(cache, 1, 999, &chunk) && !version_cache_get(cache, 1, 1, &chunk));
    fill_one(none, 1, 1, 1, 1);
    expect(none, 1, 1, VERSION_UNKNOWN, 0);
    version_cache_free(cache);
    version_cache_free(none);
}
