// SPDX-License-Identifier: Apache-2.0
#include "pagestore/version_cache.h"

#include <stdlib.h>
#include <sys/queue.h>
#include <uthash.h>

#include "common/base/check.h"

// What a chunk takes beside itself: malloc's header, its share of the table's buckets.
#define CHUNK_OVERHEAD 32u

struct chunk_name {
    uint64_t key;
    uint64_t number; // as wide as the key: no padding in what is hashed
};

struct cached_chunk {
    struct chunk_name name;
    struct version_chunk versions;
    TAILQ_ENTRY(cached_chunk) lru;
    UT_hash_handle hh; // by name
};

struct version_cache {
    struct cached_chunk *chunks;
    TAILQ_HEAD(, cached_chunk) lru; // least recently used first
    size_t count, count_max;
};

void version_chunk_clear(struct version_chunk *chunk)
{
    memset(chunk->lsn, 0xff, sizeof chunk->lsn);
    memset(chunk->segment, 0, sizeof chunk->segment);
}

struct version_cache *version_cache_new(size_t size_max)
{
    struct version_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    TAILQ_INIT(&cache->lru);
    cache->count_max = size_max / (sizeof(struct cached_chunk) + CHUNK_OVERHEAD);
    return cache;
}

static void remove_chunk(struct version_cache *cache, struct cached_chunk *chunk)
{
    HASH_DEL(cache->chunks, chunk);
    TAILQ_REMOVE(&cache->lru, chunk, lru);
    cache->count--;
    free(chunk);
}

void version_cache_free(struct version_cache *cache)
{
    if (!cache)
        return;
    while (!TAILQ_EMPTY(&cache->lru))
        remove_chunk(cache, TAILQ_FIRST(&cache->lru));
    free(cache);
}

static struct cached_chunk *find_chunk(struct version_cache *cache, uint64_t key, uint32_t number)
{
    struct chunk_name name = {key, number};
    struct cached_chunk *chunk;
    HASH_FIND(hh, cache->chunks, &name, sizeof name, chunk);
    return chunk;
}

bool version_cache_get(struct version_cache *cache, uint64_t key, uint32_t number, struct version_chunk *to)
{
    struct cached_chunk *chunk = find_chunk(cache, key, number);
    if (!chunk) {
        version_chunk_clear(to);
        return false;
    }
    TAILQ_REMOVE(&cache->lru, chunk, lru);
    TAILQ_INSERT_TAIL(&cache->lru, chunk, lru);
    *to = chunk->versions;
    return true;
}

static struct cached_chunk *add_chunk(struct version_cache *cache, uint64_t key, uint32_t number)
{
    if (cache->count_max == 0)
        return NULL;
    if (cache->count == cache->count_max)
        remove_chunk(cache, TAILQ_FIRST(&cache->lru));
    struct cached_chunk *chunk = calloc(1, sizeof *chunk);
    if (!chunk)
        return NULL;
    chunk->name = (struct chunk_name){key, number};
    version_chunk_clear(&chunk->versions);
    HASH_ADD(hh, cache->chunks, name, sizeof chunk->name, chunk);
    TAILQ_INSERT_TAIL(&cache->lru, chunk, lru);
    cache->count++;
    return chunk;
}

void version_cache_fill(struct version_cache *cache, uint64_t key, uint32_t number,
                        const struct version_chunk *from)
{
    struct cached_chunk *chunk = find_chunk(cache, key, number);
    if (!chunk)
        chunk = add_chunk(cache, key, number);
    for (uint32_t i = 0; chunk && i < VERSION_CHUNK_PAGES; i++) {
        if (from->lsn[i] == VERSION_UNKNOWN)
            continue;
        chunk->versions.lsn[i] = from->lsn[i];
        chunk->versions.segment[i] = from->segment[i];
    }
}

void version_cache_note(struct version_cache *cache, uint64_t key, uint32_t first, uint32_t count,
                        uint64_t lsn, uint32_t segment)
{
    uint32_t at = first % VERSION_CHUNK_PAGES;
    CHECK(count <= VERSION_CHUNK_PAGES - at);
    struct cached_chunk *chunk = find_chunk(cache, key, first / VERSION_CHUNK_PAGES);
    for (uint32_t i = 0; chunk && i < count; i++) {
        chunk->versions.lsn[at + i] = lsn;
        chunk->versions.segment[at + i] = segment;
    }
}
