// SPDX-License-Identifier: Apache-2.0
#include "metastore/fetch.h"

#include "common/base/check.h"
#include "common/base/mutex.h"

struct fetch;

struct slot {
    struct fetch *fetch;
    bool done; // under the fetch's lock
    struct graft_error error;
    struct buffer data;
    uint64_t object_size;
};

struct fetch {
    struct mutex lock;
    struct cond arrived;
    struct slot slots[FETCH_WINDOW];
};

static void got(void *context, struct objstore_result *result)
{
    struct slot *slot = context;
    LOCK_GUARD(&slot->fetch->lock);
    slot->error = result->error;
    slot->data = buffer_take(&result->data);
    slot->object_size = result->object_size;
    slot->done = true;
    cond_signal(&slot->fetch->arrived);
}

static void await(struct fetch *fetch, struct slot *slot)
{
    LOCK_GUARD(&fetch->lock);
    while (!slot->done)
        cond_wait(&fetch->arrived, &fetch->lock);
}

// The rest of an object that is longer than the first get asked for.
static enum graft_status complete(struct objstore *store, const char *key, struct slot *slot,
                                  uint64_t size_max, struct graft_error *err)
{
    size_t have = slot->data.size;
    if (slot->object_size <= have)
        return GRAFT_OK;
    if (slot->object_size > size_max)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_TOO_LARGE,
                         "object %s has %llu bytes; the limit is %llu", key,
                         (unsigned long long)slot->object_size, (unsigned long long)size_max);
    size_t missing = slot->object_size - have;
    _cleanup_(buffer_release) struct buffer rest = BUFFER_INIT(missing);
    enum graft_status status = objstore_get_wait(store, key, have, missing, &rest, err);
    if (status != GRAFT_OK)
        return status;
    slot->data.size_max = slot->object_size;
    return buffer_append(&slot->data, rest.data, rest.size, err);
}

static enum graft_status visit(struct objstore *store, const struct fetch_spec *spec, size_t place,
                               struct slot *slot, struct graft_error *err)
{
    static const uint8_t nothing[1];
    if (slot->error.status == GRAFT_NOT_FOUND)
        return spec->visit(spec->context, place, (struct bytes){NULL, 0}, err);
    if (slot->error.status != GRAFT_OK)
        return error_copy(err, &slot->error);
    struct object_key key = spec->key(spec->context, place);
    enum graft_status status = complete(store, key.text, slot, spec->object_size_max, err);
    if (status != GRAFT_OK)
        return status;
    struct bytes object = buffer_bytes(&slot->data);
    if (!object.data)
        object.data = nothing; // an empty object exists
    return spec->visit(spec->context, place, object, err);
}

enum graft_status fetch_all(struct objstore *store, const struct fetch_spec *spec, struct graft_error *err)
{
    struct fetch fetch = {0};
    enum graft_status status = GRAFT_OK;
    size_t asked = 0, visited = 0;
    mutex_init(&fetch.lock, RANK_META_READ);
    cond_init(&fetch.arrived);
    while (visited < asked || (status == GRAFT_OK && asked < spec->count)) {
        while (status == GRAFT_OK && asked < spec->count && asked - visited < FETCH_WINDOW) {
            struct slot *slot = &fetch.slots[asked % FETCH_WINDOW];
            *slot = (struct slot){.fetch = &fetch};
            objstore_get(store, spec->key(spec->context, asked).text, 0, FETCH_PREFIX_SIZE, got, slot);
            asked++;
        }
        struct slot *slot = &fetch.slots[visited % FETCH_WINDOW];
        await(&fetch, slot);
        // After a failure the rest is only waited for: its slots lie on this stack.
        if (status == GRAFT_OK)
            status = visit(store, spec, visited, slot, err);
        buffer_release(&slot->data);
        visited++;
    }
    // The last callback may still be on its way out of the lock.
    mutex_lock(&fetch.lock);
    mutex_unlock(&fetch.lock);
    cond_release(&fetch.arrived);
    mutex_release(&fetch.lock);
    return status;
}

enum graft_status fetch_one(struct objstore *store, const char *key, bool *ret_found,
                            struct buffer *ret_object, struct graft_error *err)
{
    struct graft_error local;
    enum graft_status status = objstore_get_wait(store, key, 0, ret_object->size_max, ret_object, &local);
    if (status != GRAFT_OK && status != GRAFT_NOT_FOUND)
        return error_copy(err, &local);
    *ret_found = status == GRAFT_OK;
    return GRAFT_OK;
}
