// SPDX-License-Identifier: Apache-2.0
#include "common/base/random.h"

#include <errno.h>
#include <sys/random.h>

#include "common/base/check.h"

void random_bytes(void *to, size_t size)
{
    uint8_t *place = to;
    while (size > 0) {
        ssize_t got = getrandom(place, size, 0);
        CHECK(got > 0 || errno == EINTR);
        if (got > 0) {
            place += got;
            size -= (size_t)got;
        }
    }
}

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

void rng_seed(struct rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        rng->state[i] = splitmix64(&seed);
}

uint64_t rng_next(struct rng *rng)
{
    uint64_t *s = rng->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    CHECK(bound >= 1);
    // Values under 2^64 mod bound are drawn again: without that the low results would come up more often.
    uint64_t reject_below = -bound % bound;
    for (;;) {
        uint64_t value = rng_next(rng);
        if (value >= reject_below)
            return value % bound;
    }
}
