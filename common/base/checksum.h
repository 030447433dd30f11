// SPDX-License-Identifier: Apache-2.0
//
// Checksums and the hashes that tie a history together. They detect damage, to 2^-64; they do not stop an adversary.
// 128-bit values are stored as XXH128_canonical (high half first, big-endian).
#ifndef COMMON_BASE_CHECKSUM_H
#define COMMON_BASE_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/gid.h"

#define HASH_SIZE 16
#define TOKEN_SIZE 16

struct hash128 {
    uint8_t bytes[HASH_SIZE];
};

struct token {
    uint8_t bytes[TOKEN_SIZE];
};

static inline bool hash_equal(const struct hash128 *a, const struct hash128 *b)
{
    return memcmp(a->bytes, b->bytes, HASH_SIZE) == 0;
}

static inline bool token_equal(const struct token *a, const struct token *b)
{
    return memcmp(a->bytes, b->bytes, TOKEN_SIZE) == 0;
}

// XXH3-64 of any bytes. In fuzz builds (GRAFT_FUZZING) *comparisons* through checksum_matches() always succeed, so that
// a fuzzer gets past them.
uint64_t checksum64(const void *data, size_t size);
bool checksum_matches(uint64_t expected, uint64_t actual);

// XXH3-64 over owner VID ‖ pageidx (4 bytes, little-endian) ‖ the plain bytes.
uint64_t page_checksum(const struct gid *owner, uint32_t pageidx, const void *data, size_t size);

struct hash128 hash128(const void *data, size_t size);

// The digest of what a commit says, whatever segments carry it: XXH3-128 over
//     VID 16 ‖ base 8 ‖ page_count 4 ‖ cut 4 ‖ count 8
// and then for each page in ascending order
//     pageidx 4 ‖ length 4 ‖ XXH3-128 of the plain bytes 16
// all integers little-endian.
struct commit_digest;
struct commit_digest *commit_digest_new(const struct gid *vid, uint64_t base_lsn, uint32_t page_count,
                                        uint32_t cut, uint64_t count);
// Pages come in ascending order.
void commit_digest_add(struct commit_digest *digest, uint32_t pageidx, const void *data, size_t size);
struct hash128 commit_digest_finish(struct commit_digest *digest); // checks that `count` pages came; frees it
void commit_digest_free(struct commit_digest *digest);             // NULL is fine

// chain(0) is all zero; chain(lsn) = XXH3-128(chain(lsn - 1) ‖ VID ‖ lsn 8 ‖ token ‖ digest ‖ page_count 4).
struct hash128 chain_next(const struct hash128 *previous, const struct gid *vid, uint64_t lsn,
                          const struct token *token, const struct hash128 *digest, uint32_t page_count);

#endif
