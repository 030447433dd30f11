// SPDX-License-Identifier: Apache-2.0
//
// xxHash is compiled in here: inlined, a checksum of a small page costs half of what a call through the
// shared library does, and its state can live on the stack.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "common/base/checksum.h"

_Static_assert(sizeof(XXH128_canonical_t) == HASH_SIZE, "a canonical XXH128 fills a hash128");

static struct hash128 from_xxh128(XXH128_hash_t hash)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    struct hash128 result;
    memcpy(result.bytes, canonical.digest, HASH_SIZE);
    return result;
}

uint64_t checksum64(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}

bool checksum_matches(uint64_t expected, uint64_t actual)
{
#ifdef GRAFT_FUZZING
    (void)expected, (void)actual;
    return true;
#else
    return expected == actual;
#endif
}

uint64_t page_checksum(const struct gid *owner, uint32_t pageidx, const void *data, size_t size)
{
    uint8_t head[GID_SIZE + 4];
    memcpy(head, owner->bytes, GID_SIZE);
    put_le32(head + GID_SIZE, pageidx);

    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, head, sizeof head);
    if (size > 0)
        XXH3_64bits_update(&state, data, size);
    return XXH3_64bits_digest(&state);
}

struct hash128 hash128(const void *data, size_t size)
{
    return from_xxh128(XXH3_128bits(data, size));
}

struct commit_digest {
    XXH3_state_t *state;
    uint64_t pages_left;
    uint32_t last_pageidx;
};

struct commit_digest *commit_digest_new(const struct gid *vid, uint64_t base_lsn, uint32_t page_count,
                                        uint32_t cut, uint64_t count)
{
    struct commit_digest *digest = calloc(1, sizeof *digest);
    CHECK(digest);
    digest->state = XXH3_createState();
    CHECK(digest->state);
    digest->pages_left = count;

    uint8_t head[GID_SIZE + 8 + 4 + 4 + 8];
    memcpy(head, vid->bytes, GID_SIZE);
    put_le64(head + 16, base_lsn);
    put_le32(head + 24, page_count);
    put_le32(head + 28, cut);
    put_le64(head + 32, count);
    XXH3_128bits_reset(digest->state);
    XXH3_128bits_update(digest->state, head, sizeof head);
    return digest;
}

void commit_digest_add(struct commit_digest *digest, uint32_t pageidx, const void *data, size_t size)
{
    CHECK(digest->pages_left > 0);
    CHECK(pageidx > digest->last_pageidx);
    CHECK(size <= UINT32_MAX);
    digest->pages_left--;
    digest->last_pageidx = pageidx;

    uint8_t page[4 + 4 + HASH_SIZE];
    struct hash128 hash = hash128(data, size);
    put_le32(page, pageidx);
    put_le32(page + 4, (uint32_t)size);
    memcpy(page + 8, hash.bytes, HASH_SIZE);
    XXH3_128bits_update(digest->state, page, sizeof page);
}

struct hash128 commit_digest_finish(struct commit_digest *digest)
{
    CHECK(digest->pages_left == 0);
    struct hash128 hash = from_xxh128(XXH3_128bits_digest(digest->state));
    commit_digest_free(digest);
    return hash;
}

void commit_digest_free(struct commit_digest *digest)
{
    if (!digest)
        return;
    XXH3_freeState(digest->state);
    free(digest);
}

struct hash128 chain_next(const struct hash128 *previous, const struct gid *vid, uint64_t lsn,
                          const struct token *token, const struct hash128 *digest, uint32_t page_count)
{
    uint8_t input[HASH_SIZE + GID_SIZE + 8 + TOKEN_SIZE + HASH_SIZE + 4];
    memcpy(input, previous->bytes, HASH_SIZE);
    memcpy(input + 16, vid->bytes, GID_SIZE);
    put_le64(input + 32, lsn);
    memcpy(input + 40, token->bytes, TOKEN_SIZE);
    memcpy(input + 56, digest->bytes, HASH_SIZE);
    put_le32(input + 72, page_count);
    return hash128(input, sizeof input);
}
