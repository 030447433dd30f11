// SPDX-License-Identifier: Apache-2.0
//
// Time, with a seam for tests. Thread-safe.
#ifndef COMMON_BASE_CLOCK_H
#define COMMON_BASE_CLOCK_H

#include <stdint.h>

struct clock {
    uint64_t (*monotonic_us)(const struct clock *clock); // never goes back; only differences mean something
    uint64_t (*wall_ms)(const struct clock *clock);      // since 1970
};

const struct clock *clock_system(void);

static inline uint64_t clock_monotonic_us(const struct clock *clock)
{
    return clock->monotonic_us(clock);
}
static inline uint64_t clock_monotonic_ms(const struct clock *clock)
{
    return clock->monotonic_us(clock) / 1000;
}
static inline uint64_t clock_wall_ms(const struct clock *clock)
{
    return clock->wall_ms(clock);
}

// RFC 3339, UTC, to the millisecond.
struct time_text {
    char text[32];
};
struct time_text clock_format(uint64_t wall_ms);

// A clock that stands still until told otherwise.
struct manual_clock {
    struct clock clock; // first: hand out &manual.clock
    _Atomic uint64_t now_us;
};
void manual_clock_init(struct manual_clock *manual, uint64_t now_us);
void manual_clock_advance(struct manual_clock *manual, uint64_t by_us);

#endif
