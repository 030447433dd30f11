// SPDX-License-Identifier: Apache-2.0
#include "client/store_hints.h"

#include <stdlib.h>

#include "common/base/mutex.h"

#define STRIPES 64u

struct store_hints {
    size_t mask; // entries - 1
    struct mutex locks[STRIPES];
    struct store_hint entries[]; // entry i: locks[i % STRIPES]
};

struct store_hints *store_hints_new(size_t memory_size)
{
    size_t count = STRIPES;
    while (2 * count * sizeof(struct store_hint) <= memory_size)
        count *= 2;
    struct store_hints *hints = calloc(1, sizeof *hints + count * sizeof hints->entries[0]);
    if (!hints)
        return NULL;
    hints->mask = count - 1;
    for (unsigned i = 0; i < STRIPES; i++)
        mutex_init(&hints->locks[i], RANK_LEAF);
    return hints;
}

void store_hints_free(struct store_hints *hints)
{
    if (!hints)
        return;
    for (unsigned i = 0; i < STRIPES; i++)
        mutex_release(&hints->locks[i]);
    free(hints);
}

// Neighbouring pages take neighbouring entries, so that a scan touches few cache lines.
static size_t entry_of(const struct store_hints *hints, uint64_t number, uint32_t pageidx)
{
    return (size_t)(pageidx + number * 0x9e3779b97f4a7c15ull) & hints->mask;
}

void store_hints_put(struct store_hints *hints, const struct store_hint *hint)
{
    size_t entry = entry_of(hints, hint->number, hint->pageidx);
    LOCK_GUARD(&hints->locks[entry % STRIPES]);
    struct store_hint *there = &hints->entries[entry];
    // A reader at an old snapshot does not push out what readers of the head want.
    bool same_page = there->number == hint->number && there->pageidx == hint->pageidx;
    if (!same_page || hint->upto >= there->upto)
        *there = *hint;
}

bool store_hints_get(struct store_hints *hints, uint64_t number, uint32_t pageidx, uint64_t lsn,
                     struct store_hint *ret_hint)
{
    size_t entry = entry_of(hints, number, pageidx);
    LOCK_GUARD(&hints->locks[entry % STRIPES]);
    const struct store_hint *there = &hints->entries[entry];
    if (there->number != number || there->pageidx != pageidx || lsn < there->lsn || lsn > there->upto)
        return false;
    *ret_hint = *there;
    return true;
}

void store_hints_move(struct store_hints *hints, uint64_t number, uint32_t pageidx, bool fetched,
                      uint64_t from, uint64_t to)
{
    size_t entry = entry_of(hints, number, pageidx);
    LOCK_GUARD(&hints->locks[entry % STRIPES]);
    struct store_hint *there = &hints->entries[entry];
    if (there->number != number || there->pageidx != pageidx || (there->remote_lsn > 0) != fetched ||
        there->place != from)
        return;
    there->place = to;
    if (to == UINT64_MAX)
        *there = (struct store_hint){.number = 0};
}
