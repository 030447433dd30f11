// SPDX-License-Identifier: Apache-2.0
//
// The blocking forms of the object store's calls, for start-up and tests, and the proof that its create is
// exclusive.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/base/random.h"
#include "common/store/objstore.h"

struct waiter {
    struct mutex lock; // RANK_LEAF; guards done
    struct cond called;
    bool done;
    struct objstore_result result; // data and entries taken over
};

static void waiter_init(struct waiter *waiter)
{
    memset(waiter, 0, sizeof *waiter);
    mutex_init(&waiter->lock, RANK_LEAF);
    cond_init(&waiter->called);
}

static void waiter_release(struct waiter *waiter)
{
    buffer_release(&waiter->result.data);
    free(waiter->result.entries);
    cond_release(&waiter->called);
    mutex_release(&waiter->lock);
}

static void waiter_done(void *context, struct objstore_result *result)
{
    struct waiter *waiter = context;
    // Signalled under the lock: once it is let go, the waiter's stack frame may be gone.
    LOCK_GUARD(&waiter->lock);
    waiter->result = *result;
    waiter->result.data = buffer_take(&result->data);
    result->entries = NULL;
    waiter->done = true;
    cond_signal(&waiter->called);
}

static enum graft_status waiter_wait(struct waiter *waiter, struct graft_error *err)
{
    LOCK_GUARD(&waiter->lock);
    while (!waiter->done)
        cond_wait(&waiter->called, &waiter->lock);
    return error_copy(err, &waiter->result.error);
}

enum graft_status objstore_get_wait(struct objstore *store, const char *key, uint64_t offset, size_t size_max,
                                    struct buffer *ret_data, struct graft_error *err)
{
    _cleanup_(waiter_release) struct waiter waiter;
    waiter_init(&waiter);
    objstore_get(store, key, offset, size_max, waiter_done, &waiter);
    enum graft_status status = waiter_wait(&waiter, err);
    if (status != GRAFT_OK)
        return status;
    return buffer_append(ret_data, waiter.result.data.data, waiter.result.data.size, err);
}

enum graft_status objstore_create_wait(struct objstore *store, const char *key, struct bytes data,
                                       struct graft_error *err)
{
    _cleanup_(waiter_release) struct waiter waiter;
    waiter_init(&waiter);
    objstore_create(store, key, data, waiter_done, &waiter);
    return waiter_wait(&waiter, err);
}

enum graft_status objstore_remove_wait(struct objstore *store, const char *key, struct graft_error *err)
{
    _cleanup_(waiter_release) struct waiter waiter;
    waiter_init(&waiter);
    objstore_remove(store, key, waiter_done, &waiter);
    return waiter_wait(&waiter, err);
}

enum graft_status objstore_list_wait(struct objstore *store, const char *prefix, const char *after,
                                     bool (*visit)(void *context, const struct objstore_entry *entry),
                                     void *context, struct graft_error *err)
{
    char last[OBJSTORE_KEY_MAX + 1];
    for (bool more = true; more;) {
        _cleanup_(waiter_release) struct waiter waiter;
        waiter_init(&waiter);
        objstore_list(store, prefix, after, OBJSTORE_LIST_MAX, waiter_done, &waiter);
        enum graft_status status = waiter_wait(&waiter, err);
        if (status != GRAFT_OK)
            return status;
        const struct objstore_result *page = &waiter.result;
        for (size_t i = 0; i < page->entry_count; i++)
            if (!visit(context, &page->entries[i]))
                return GRAFT_OK;
        more = page->more;
        CHECK(!more || page->entry_count > 0);
        if (more) {
            memcpy(last, page->entries[page->entry_count - 1].key, sizeof last);
            after = last;
        }
    }
    return GRAFT_OK;
}

enum graft_status objstore_prove(struct objstore *store, struct graft_error *err)
{
    uint8_t random[8];
    random_bytes(random, sizeof random);
    char key[48];
    snprintf(key, sizeof key, "probe/%016llx", (unsigned long long)get_be64(random));
    struct bytes first = {(const uint8_t *)"first", 5}, second = {(const uint8_t *)"second", 6};

    enum graft_status status = objstore_create_wait(store, key, first, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "proving the object store with a probe");

    struct graft_error error;
    enum graft_status again = objstore_create_wait(store, key, second, &error);
    _cleanup_(buffer_release) struct buffer kept = BUFFER_INIT(16);
    status = objstore_get_wait(store, key, 0, second.size, &kept, err);
    if (status == GRAFT_OK)
        status = objstore_remove_wait(store, key, err);
    if (again == GRAFT_OK ||
        (status == GRAFT_OK && (kept.size != first.size || memcmp(kept.data, "first", 5) != 0)))
        return error_set(
            err, GRAFT_INVALID, GRAFT_DETAIL_BAD_STORE,
            "the object store let a second create of %s succeed: on it, commits would overwrite each "
            "other; use a store with conditional create",
            key);
    if (again != GRAFT_CONFLICT) {
        error_copy(err, &error);
        return error_context(err, again, "proving the object store with a second create");
    }
    return status;
}
