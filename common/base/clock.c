// SPDX-License-Identifier: Apache-2.0
#include "common/base/clock.h"

#include <stdio.h>
#include <time.h>

static uint64_t system_monotonic_us(const struct clock *clock)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t system_wall_ms(const struct clock *clock)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

const struct clock *clock_system(void)
{
    static const struct clock system_clock = {system_monotonic_us, system_wall_ms};
    return &system_clock;
}

struct time_text clock_format(uint64_t wall_ms)
{
    struct time_text text;
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t size = strftime(text.text, sizeof text.text, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text.text + size, sizeof text.text - size, ".%03uZ", (unsigned)(wall_ms % 1000));
    return text;
}

static uint64_t manual_monotonic_us(const struct clock *clock)
{
    return ((const struct manual_clock *)clock)->now_us;
}

static uint64_t manual_wall_ms(const struct clock *clock)
{
    return ((const struct manual_clock *)clock)->now_us / 1000;
}

void manual_clock_init(struct manual_clock *manual, uint64_t now_us)
{
    manual->clock = (struct clock){manual_monotonic_us, manual_wall_ms};
    manual->now_us = now_us;
}

void manual_clock_advance(struct manual_clock *manual, uint64_t by_us)
{
    manual->now_us += by_us;
}
