// SPDX-License-Identifier: Apache-2.0
//
// Two kinds of randomness: the kernel's, for tokens and identifiers, and a seeded generator, for jitter and tests.
#ifndef COMMON_BASE_RANDOM_H
#define COMMON_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

// From the kernel. Aborts if the kernel has none (it always has, after boot).
void random_bytes(void *to, size_t size);

// splitmix64-seeded xoshiro256** (Blackman and Vigna, 2018). Not thread-safe, not for secrets.
struct rng {
    uint64_t state[4];
};
void rng_seed(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound); // uniform in [0, bound), bound ≥ 1

#endif
