// SPDX-License-Identifier: Apache-2.0
#include <criterion/criterion.h>
#include <time.h>

#include "common/base/clock.h"

Test(clock, system_time_is_the_systems)
{
    uint64_t before = clock_monotonic_us(clock_system());
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t middle = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    uint64_t after = clock_monotonic_us(clock_system());
    cr_assert(before <= middle && middle <= after);

    uint64_t wall_ms = clock_wall_ms(clock_system());
    cr_assert_leq(wall_ms / 1000, (uint64_t)time(NULL));
    cr_assert_geq(wall_ms / 1000 + 2, (uint64_t)time(NULL));
}

Test(clock, manual_time_stands_still_until_told)
{
    struct manual_clock manual;
    manual_clock_init(&manual, 5000000);
    cr_assert_eq(clock_monotonic_us(&manual.clock), 5000000);
    cr_assert_eq(clock_monotonic_ms(&manual.clock), 5000);
    cr_assert_eq(clock_wall_ms(&manual.clock), 5000);
    manual_clock_advance(&manual, 1500);
    cr_assert_eq(clock_monotonic_us(&manual.clock), 5001500);
    cr_assert_eq(clock_wall_ms(&manual.clock), 5001);
}
