// SPDX-License-Identifier: Apache-2.0
//
// The newest version of pages, in memory, by chunks of neighbours: what most reads ask for, without a seek in the history.
// An entry says that its version was the newest one; so it is the newest at or below any LSN that is not below its own.
//
// A chunk belongs to a key that its owner gave to a history. Forgetting a history is taking another key: what is left
// under the old one is not met again, and goes as the least recently used. Not thread-safe.
#ifndef PAGESTORE_VERSION_CACHE_H
#define PAGESTORE_VERSION_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VERSION_CHUNK_PAGES 64u
#define VERSION_UNKNOWN UINT64_MAX // as an LSN; 0: the page was never written

// Page p is entry p % VERSION_CHUNK_PAGES of chunk p / VERSION_CHUNK_PAGES.
struct version_chunk {
    uint64_t lsn[VERSION_CHUNK_PAGES];
    uint32_t segment[VERSION_CHUNK_PAGES];
};
void version_chunk_clear(struct version_chunk *chunk); // all VERSION_UNKNOWN

struct version_cache;

// Holds `size_max` bytes at most. NULL without memory.
struct version_cache *version_cache_new(size_t size_max);
void version_cache_free(struct version_cache *cache); // NULL is fine

// Copies what is known of the chunk; false, and `to` cleared, where nothing is.
bool version_cache_get(struct version_cache *cache, uint64_t key, uint32_t number, struct version_chunk *to);
// Takes over the entries of `from` that are known. Without memory it keeps less.
void version_cache_fill(struct version_cache *cache, uint64_t key, uint32_t number,
                        const struct version_chunk *from);
// Pages [first, first + count), of one chunk, have a newer version, whether they were known or not.
void version_cache_note(struct version_cache *cache, uint64_t key, uint32_t first, uint32_t count,
                        uint64_t lsn, uint32_t segment);

#endif
