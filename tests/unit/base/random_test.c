// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

#include "common/base/random.h"

Test(random, bytes_fill_exactly_what_was_asked)
{
    uint8_t bytes[1002], zero[500] = {0};
    memset(bytes, 0xee, sizeof bytes);
    random_bytes(bytes + 1, 1000);
    cr_assert_eq(bytes[0], 0xee);
    cr_assert_eq(bytes[1001], 0xee);
    random_bytes(bytes, 0);
    cr_assert_eq(bytes[0], 0xee);
    cr_assert(memcmp(bytes + 1, bytes + 501, 500) != 0);
    cr_assert(memcmp(bytes + 1, zero, 500) != 0);
}

Test(random, the_generator_is_xoshiro256_starstar)
{
    // First outputs of the authors' reference code for this state.
    struct rng rng = {{1, 2, 3, 4}};
    cr_assert_eq(rng_next(&rng), 11520);
    cr_assert_eq(rng_next(&rng), 0);
    cr_assert_eq(rng_next(&rng), 1509978240);
    cr_assert_eq(rng_next(&rng), 1215971899390074240);
}

Test(random, a_seed_repeats_and_seeds_differ)
{
    struct rng a, b, c;
    rng_seed(&a, 1);
    rng_seed(&b, 1);
    rng_seed(&c, 2);
    cr_assert_eq(a.state[0], 0x910a2dec89025cc1); // splitmix64 of 1
    cr_assert_eq(rng_next(&a), rng_next(&b));
    cr_assert_neq(rng_next(&a), rng_next(&c));
}

Test(random, below_is_in_range_and_even)
{
    struct rng rng;
    rng_seed(&rng, 3);
    unsigned counts[6] = {0};
    for (int i = 0; i < 60000; i++)
        counts[rng_below(&rng, 6)]++;
    for (int i = 0; i < 6; i++)
        cr_assert(counts[i] > 9500 && counts[i] < 10500, "%d: %u", i, counts[i]);
    cr_assert_eq(rng_below(&rng, 1), 0);
    // Three quarters of 2^64: where plain modulo would give the lower third twice the weight.
    unsigned low = 0;
    for (int i = 0; i < 30000; i++)
        low += rng_below(&rng, 3ull << 62) < 1ull << 62;
    cr_assert(low > 9500 && low < 10500, "%u", low);
}

Test(random, below_nothing_aborts, .signal = SIGABRT)
{
    struct rng rng;
    rng_seed(&rng, 3);
    rng_below(&rng, 0);
}
