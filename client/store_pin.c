// SPDX-License-Identifier: Apache-2.0
//
// Pins: the local LSNs that somebody reads at, counted. Making one takes store->lock and nothing else, so
// readers wait for no writer, and no writer for readers.
#include <stdlib.h>

#include "client/store_internal.h"
#include "common/base/check.h"

// How much a release removes by itself; what is left goes with later commits and releases.
#define RELEASE_SWEEP_ENTRIES 1024u

struct pinned_lsn *store_pins_find_locked(struct store_volume *volume, uint64_t lsn)
{
    struct pinned_lsn *node;
    TAILQ_FOREACH_REVERSE(node, &volume->pins, pinned_lsns, entry)
    {
        if (node->lsn <= lsn)
            return node->lsn == lsn ? node : NULL;
    }
    return NULL;
}

struct pinned_lsn *store_pins_add_locked(struct store_volume *volume, uint64_t lsn)
{
    // Nearly always at the end, for that is where the head is.
    struct pinned_lsn *before;
    TAILQ_FOREACH_REVERSE(before, &volume->pins, pinned_lsns, entry)
    {
        if (before->lsn <= lsn)
            break;
    }
    if (before && before->lsn == lsn) {
        before->count++;
        return before;
    }
    struct pinned_lsn *node = calloc(1, sizeof *node);
    CHECK(node);
    node->lsn = lsn;
    node->count = 1;
    node->floor = volume->record.floor;
    if (before)
        TAILQ_INSERT_AFTER(&volume->pins, before, node, entry);
    else
        TAILQ_INSERT_HEAD(&volume->pins, node, entry);
    volume->pin_count++;
    return node;
}

void store_pins_remove_locked(struct store_volume *volume, struct pinned_lsn *node)
{
    CHECK(node->count > 0);
    if (--node->count > 0)
        return;
    // What it kept was superseded above it. With nothing superseded since, there is nothing to look for.
    if (node->lsn < volume->record.state.local_lsn)
        store_sweep_from_locked(volume, node->lsn + 1);
    TAILQ_REMOVE(&volume->pins, node, entry);
    volume->pin_count--;
    free(node);
}

static struct store_pin *pin_locked(struct store_volume *volume, struct store_pin *pin, uint64_t lsn)
{
    const struct store_record *record = &volume->record;
    volume->references++;
    atomic_init(&pin->references, 1);
    pin->volume = volume;
    pin->node = store_pins_add_locked(volume, lsn);
    pin->lsn = lsn;
    pin->page_count = record->state.page_count;
    pin->remote = record->state.remote;
    pin->floor = record->floor;
    pin->cuts = record->cuts;
    return pin;
}

static enum graft_status new_pin(struct store_volume *volume, struct store_pin **ret_pin,
                                 struct graft_error *err)
{
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    *ret_pin = calloc(1, sizeof **ret_pin);
    if (!*ret_pin)
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a snapshot");
    return GRAFT_OK;
}

enum graft_status store_pin_open(struct store_volume *volume, struct store_pin **ret_pin,
                                 struct graft_error *err)
{
    struct store_pin *pin;
    enum graft_status status = new_pin(volume, &pin, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&volume->store->lock);
    *ret_pin = pin_locked(volume, pin, volume->record.state.local_lsn);
    return GRAFT_OK;
}

enum graft_status store_pin_open_push(struct store_volume *volume, struct store_pin **ret_pin,
                                      struct graft_error *err)
{
    struct store_pin *pin;
    enum graft_status status = new_pin(volume, &pin, err);
    if (status != GRAFT_OK)
        return status;
    LOCK_GUARD(&volume->store->lock);
    const struct store_push *push = &volume->record.state.push;
    CHECK(push->phase != STORE_PUSH_IDLE);
    // Nothing is pulled while a push is under way, so the mapping is its base. The floor may have been cut
    // since, by local commits above the push: pages below that cut are asked for by their versions in the
    // push, and those have one.
    pin_locked(volume, pin, push->to_lsn);
    pin->page_count = push->page_count;
    *ret_pin = pin;
    return GRAFT_OK;
}

struct store_pin *store_pin_ref(struct store_pin *pin)
{
    atomic_fetch_add_explicit(&pin->references, 1, memory_order_relaxed);
    return pin;
}

void store_pin_release(struct store_pin *pin)
{
    if (!pin || atomic_fetch_sub_explicit(&pin->references, 1, memory_order_acq_rel) > 1)
        return;
    struct store_volume *volume = pin->volume;
    mutex_lock(&volume->store->lock);
    store_pins_remove_locked(volume, pin->node);
    mutex_unlock(&volume->store->lock);
    free(pin);
    store_sweep(volume, RELEASE_SWEEP_ENTRIES);
    store_volume_close(volume);
}

struct store_volume *store_pin_volume(const struct store_pin *pin)
{
    return pin->volume;
}

uint64_t store_pin_lsn(const struct store_pin *pin)
{
    return pin->lsn;
}

uint32_t store_pin_page_count(const struct store_pin *pin)
{
    return pin->page_count;
}

const struct store_remote *store_pin_remote(const struct store_pin *pin)
{
    return &pin->remote;
}
