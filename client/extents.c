// SPDX-License-Identifier: Apache-2.0
#include "client/extents_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/files.h"

enum graft_status extents_reserve_locked(struct extents *extents, uint32_t end, struct graft_error *err)
{
    mutex_assert_held(&extents->lock);
    CHECK(end <= EXTENTS_MAX);
    if (end <= extents->capacity)
        return GRAFT_OK;
    uint32_t capacity = MIN(extents->capacity + extents->capacity / 2, EXTENTS_MAX);
    capacity = MAX(end, capacity);
    struct extent_slot *slots = realloc(extents->slots, capacity * sizeof *slots);
    if (!slots)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for %u extents", capacity);
    memset(slots + extents->capacity, 0, (capacity - extents->capacity) * sizeof *slots);
    extents->slots = slots;
    extents->capacity = capacity;
    return GRAFT_OK;
}

static void set_state_locked(struct extents *extents, uint32_t extent, enum extent_state state)
{
    struct extent_slot *slot = &extents->slots[extent];
    extents->free -= slot->state == EXTENT_FREE;
    extents->empty -= slot->state == EXTENT_EMPTY;
    extents->present -= slot->state != EXTENT_ABSENT;
    slot->state = (uint8_t)state;
    extents->free += state == EXTENT_FREE;
    extents->empty += state == EXTENT_EMPTY;
    extents->present += state != EXTENT_ABSENT;
    if (state == EXTENT_FREE)
        extents->free_from = MIN(extents->free_from, extent);
}

void extents_appeared_locked(struct extents *extents, uint32_t first, uint32_t end, enum extent_state state)
{
    mutex_assert_held(&extents->lock);
    CHECK(end <= extents->capacity);
    for (uint32_t extent = first; extent < end; extent++) {
        CHECK(extents->slots[extent].state == EXTENT_ABSENT && extents->slots[extent].live == 0);
        set_state_locked(extents, extent, state);
    }
    extents->end = MAX(extents->end, end);
}

void extents_vanished_locked(struct extents *extents, uint32_t first, uint32_t end)
{
    mutex_assert_held(&extents->lock);
    for (uint32_t extent = first; extent < end; extent++) {
        CHECK(extents->slots[extent].state == EXTENT_FREE);
        set_state_locked(extents, extent, EXTENT_ABSENT);
    }
    while (extents->end > 0 && extents->slots[extents->end - 1].state == EXTENT_ABSENT)
        extents->end--;
}

enum graft_status extents_open(const struct extents_settings *settings, struct extents **ret_extents,
                               struct graft_error *err)
{
    CHECK(settings->open_files_max > 0);
    enum graft_status status = files_make_folder(settings->directory, err);
    if (status != GRAFT_OK)
        return status;
    struct extents *extents = calloc(1, sizeof *extents);
    char *directory = strdup(settings->directory);
    if (!extents || !directory) {
        free(extents);
        free(directory);
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory to open %s",
                         settings->directory);
    }
    extents->directory = directory;
    extents->durable = settings->durable;
    extents->open_files_max = settings->open_files_max;
    extents->pwritev = settings->pwritev ? settings->pwritev : pwritev;
    extents->fdatasync = settings->fdatasync ? settings->fdatasync : fdatasync;
    mutex_init(&extents->lock, RANK_EXTENTS);
    cond_init(&extents->changed);
    TAILQ_INIT(&extents->idle);
    TAILQ_INIT(&extents->dirty);
    status = extents_find_files(extents, err);
    if (status != GRAFT_OK) {
        extents_close(extents);
        return status;
    }
    *ret_extents = extents;
    return GRAFT_OK;
}

void extents_close(struct extents *extents)
{
    if (!extents)
        return;
    extents_close_files(extents);
    cond_release(&extents->changed);
    mutex_release(&extents->lock);
    free(extents->slots);
    free(extents->directory);
    free(extents);
}

enum graft_status extents_set_live(struct extents *extents, uint32_t extent, uint64_t live,
                                   struct graft_error *err)
{
    LOCK_GUARD(&extents->lock);
    CHECK(!extents->started);
    if (live > EXTENT_SIZE)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "the index says that extent %u of %s has %llu live bytes, more than fit into it",
                         extent, extents->directory, (unsigned long long)live);
    bool absent = extent >= extents->end || extents->slots[extent].state == EXTENT_ABSENT;
    if (absent && live == 0)
        return GRAFT_OK;
    if (absent && !extents->durable && extent < EXTENTS_MAX) {
        enum graft_status status = extents_restore_locked(extents, extent, err);
        if (status != GRAFT_OK)
            return status;
    } else if (absent) {
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_BAD_MESSAGE,
                         "%s/%08x is missing or too short: the index says that %llu bytes of its extent "
                         "%u are needed",
                         extents->directory, extent / EXTENTS_PER_FILE, (unsigned long long)live,
                         extent % EXTENTS_PER_FILE);
    }
    extents->live += (int64_t)live - extents->slots[extent].live;
    extents->slots[extent].live = (int32_t)live;
    return GRAFT_OK;
}

void extents_start(struct extents *extents)
{
    LOCK_GUARD(&extents->lock);
    CHECK(!extents->started);
    extents->started = true;
    for (uint32_t extent = 0; extent < extents->end; extent++) {
        const struct extent_slot *slot = &extents->slots[extent];
        CHECK(slot->live >= 0);
        if (slot->state == EXTENT_SEALED && slot->live == 0)
            set_state_locked(extents, extent, EXTENT_FREE);
    }
}

void extents_usage(struct extents *extents, struct extents_usage *ret_usage)
{
    LOCK_GUARD(&extents->lock);
    *ret_usage = (struct extents_usage){.extents = extents->present,
                                        .free = extents->free + extents->empty,
                                        .empty = extents->empty,
                                        .live = extents->live > 0 ? (uint64_t)extents->live : 0};
}

uint32_t extents_end(struct extents *extents)
{
    LOCK_GUARD(&extents->lock);
    return extents->end;
}

enum extent_state extents_state(struct extents *extents, uint32_t extent, uint64_t *ret_live)
{
    LOCK_GUARD(&extents->lock);
    struct extent_slot none = {.state = EXTENT_ABSENT};
    const struct extent_slot *slot = extent < extents->end ? &extents->slots[extent] : &none;
    *ret_live = slot->live > 0 ? (uint64_t)slot->live : 0;
    return (enum extent_state)slot->state;
}

uint32_t extents_take(struct extents *extents, uint32_t near)
{
    LOCK_GUARD(&extents->lock);
    CHECK(extents->started);
    uint32_t lowest = extents->free_from;
    while (lowest < extents->end && extents->slots[lowest].state != EXTENT_FREE)
        lowest++;
    extents->free_from = lowest;
    uint32_t extent = near != EXTENT_NONE ? near + 1 : EXTENT_NONE;
    // What lies low lets the files become shorter.
    if (extent >= extents->end || extents->slots[extent].state != EXTENT_FREE ||
        extent / EXTENTS_PER_FILE > lowest / EXTENTS_PER_FILE)
        extent = lowest;
    if (extent >= extents->end)
        return EXTENT_NONE;
    set_state_locked(extents, extent, EXTENT_TAKEN);
    return extent;
}

// A sealed extent whose last live byte went. Before the start the replay may still fill it.
static void note_emptied_locked(struct extents *extents, uint32_t extent)
{
    struct extent_slot *slot = &extents->slots[extent];
    if (slot->state != EXTENT_SEALED || slot->live != 0 || !extents->started)
        return;
    slot->emptied = extents->settling;
    set_state_locked(extents, extent, extents->durable ? EXTENT_EMPTY : EXTENT_FREE);
}

void extents_seal(struct extents *extents, uint32_t extent)
{
    LOCK_GUARD(&extents->lock);
    CHECK(extent < extents->end && extents->slots[extent].state == EXTENT_TAKEN);
    CHECK(extents->slots[extent].live >= 0);
    set_state_locked(extents, extent, EXTENT_SEALED);
    note_emptied_locked(extents, extent);
}

void extents_give_back(struct extents *extents, uint32_t extent)
{
    LOCK_GUARD(&extents->lock);
    CHECK(extent < extents->end && extents->slots[extent].state == EXTENT_TAKEN);
    CHECK(extents->slots[extent].live == 0);
    set_state_locked(extents, extent, EXTENT_FREE);
}

void extent_changes_add(struct extent_changes *changes, uint64_t place, int64_t bytes)
{
    if (bytes == 0)
        return; // a page without bytes keeps no extent: the one at its place may have gone
    uint32_t extent = place_extent(place);
    size_t low = 0, high = changes->count;
    if (high > 0 && changes->items[high - 1].extent < extent)
        low = high; // pages that were written together come in this order
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (changes->items[middle].extent < extent)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < changes->count && changes->items[low].extent == extent) {
        changes->items[low].bytes += bytes;
        return;
    }
    if (changes->count == changes->capacity) {
        changes->capacity = changes->capacity > 0 ? changes->capacity * 2 : 8;
        changes->items = realloc(changes->items, changes->capacity * sizeof *changes->items);
        CHECK(changes->items); // a few bytes for each MiB of a batch that is in memory as well
    }
    memmove(changes->items + low + 1, changes->items + low, (changes->count - low) * sizeof *changes->items);
    changes->items[low] = (struct extent_change){extent, bytes};
    changes->count++;
}

void extent_changes_release(struct extent_changes *changes)
{
    free(changes->items);
    *changes = (struct extent_changes){0};
}

void extents_apply(struct extents *extents, const struct extent_changes *changes)
{
    LOCK_GUARD(&extents->lock);
    for (size_t i = 0; i < changes->count; i++) {
        uint32_t extent = changes->items[i].extent;
        if (changes->items[i].bytes == 0)
            continue; // what came and what went is the same
        CHECK(extent < extents->end);
        struct extent_slot *slot = &extents->slots[extent];
        CHECK(slot->state == EXTENT_TAKEN || slot->state == EXTENT_SEALED);
        int64_t live = slot->live + changes->items[i].bytes;
        CHECK(live <= EXTENT_SIZE && live >= (slot->state == EXTENT_SEALED ? 0 : -(int64_t)EXTENT_SIZE));
        slot->live = (int32_t)live;
        extents->live += changes->items[i].bytes;
        note_emptied_locked(extents, extent);
    }
}

uint64_t extents_settle_begin(struct extents *extents)
{
    LOCK_GUARD(&extents->lock);
    return extents->settling++;
}

void extents_settle_end(struct extents *extents, uint64_t began)
{
    LOCK_GUARD(&extents->lock);
    CHECK(began < extents->settling);
    for (uint32_t extent = 0; extents->empty > 0 && extent < extents->end; extent++)
        if (extents->slots[extent].state == EXTENT_EMPTY && extents->slots[extent].emptied <= began)
            set_state_locked(extents, extent, EXTENT_FREE);
}
