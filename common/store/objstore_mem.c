// SPDX-License-Identifier: Apache-2.0
//
// An object store in memory, for tests and for trying things out: a sorted array of objects. Operations run
// one after the other on a thread of the store, so that callbacks arrive as they do from the durable
// back-ends.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/store/objstore_backend.h"

#define QUEUE_MAX 65536
#define UPLOAD_SIZE_MAX (256u << 20)

struct object {
    char key[OBJSTORE_KEY_MAX + 1];
    struct buffer data;
    uint64_t version;
    uint64_t modified_ms;
};

// Everything but `pool` belongs to the pool's only thread.
struct mem_store {
    struct objstore base;
    struct pool *pool;
    struct object **objects; // by key
    size_t count, capacity;
    uint64_t version; // the last one given out
};

struct mem_upload {
    struct objstore_upload base;
    struct buffer data;
};

// The place of the first object whose key is not below `key`.
static size_t lower_bound(const struct mem_store *store, const char *key)
{
    size_t low = 0, high = store->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(store->objects[middle]->key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct object *find(const struct mem_store *store, const char *key, size_t *ret_place)
{
    *ret_place = lower_bound(store, key);
    if (*ret_place < store->count && strcmp(store->objects[*ret_place]->key, key) == 0)
        return store->objects[*ret_place];
    return NULL;
}

static void free_object(struct object *object)
{
    buffer_release(&object->data);
    free(object);
}

static void describe(const struct object *object, struct objstore_result *result)
{
    snprintf(result->tag, sizeof result->tag, "%llu", (unsigned long long)object->version);
}

static void set_data(struct mem_store *store, struct object *object, struct buffer data,
                     struct objstore_result *result)
{
    buffer_release(&object->data);
    object->data = data;
    object->version = ++store->version;
    object->modified_ms = clock_wall_ms(clock_system());
    describe(object, result);
}

static void insert(struct mem_store *store, size_t place, const char *key, struct buffer data,
                   struct objstore_result *result)
{
    if (store->count == store->capacity) {
        store->capacity = MAX((size_t)64, 2 * store->capacity);
        store->objects = realloc(store->objects, store->capacity * sizeof *store->objects);
        CHECK(store->objects);
    }
    struct object *object = calloc(1, sizeof *object);
    CHECK(object);
    memcpy(object->key, key, strlen(key) + 1);
    memmove(store->objects + place + 1, store->objects + place,
            (store->count - place) * sizeof *store->objects);
    store->objects[place] = object;
    store->count++;
    set_data(store, object, data, result);
}

static void run_get(const struct mem_store *store, const struct objstore_op *op,
                    struct objstore_result *result)
{
    size_t place;
    const struct object *object = find(store, op->key, &place);
    if (!object) {
        error_set(&result->error, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "no object %s", op->key);
        return;
    }
    result->object_size = object->data.size;
    describe(object, result);
    if (op->offset >= object->data.size)
        return;
    size_t size = MIN(op->size_max, object->data.size - (size_t)op->offset);
    buffer_init(&result->data, size);
    buffer_append(&result->data, object->data.data + op->offset, size, &result->error);
}

static void run_write(struct mem_store *store, const struct objstore_op *op, struct objstore_result *result)
{
    size_t place;
    struct object *object = find(store, op->key, &place);
    bool wanted = op->kind == OBJSTORE_REPLACE;
    char tag[OBJSTORE_TAG_SIZE + 1] = "";
    if (object)
        snprintf(tag, sizeof tag, "%llu", (unsigned long long)object->version);
    if ((object != NULL) != wanted || (wanted && strcmp(tag, op->other) != 0)) {
        objstore_conflict(op, &result->error);
        return;
    }
    struct buffer data;
    if (op->kind == OBJSTORE_COMMIT) {
        data = buffer_take(&((struct mem_upload *)op->upload)->data);
    } else {
        buffer_init(&data, op->data.size);
        if (buffer_append(&data, op->data.data, op->data.size, &result->error) != GRAFT_OK)
            return;
    }
    if (object)
        set_data(store, object, data, result);
    else
        insert(store, place, op->key, data, result);
}

static void run_remove(struct mem_store *store, const struct objstore_op *op)
{
    size_t place;
    struct object *object = find(store, op->key, &place);
    if (!object)
        return;
    store->count--;
    memmove(store->objects + place, store->objects + place + 1,
            (store->count - place) * sizeof *store->objects);
    free_object(object);
}

static void run_list(const struct mem_store *store, const struct objstore_op *op,
                     struct objstore_result *result)
{
    size_t prefix_size = strlen(op->key);
    const char *from = op->other && strcmp(op->other, op->key) > 0 ? op->other : op->key;
    size_t place = lower_bound(store, from);
    if (op->other && place < store->count && strcmp(store->objects[place]->key, op->other) == 0)
        place++;
    result->entries = calloc(op->limit, sizeof *result->entries);
    CHECK(result->entries);
    for (; place < store->count; place++) {
        const struct object *object = store->objects[place];
        if (strncmp(object->key, op->key, prefix_size) != 0)
            break;
        if (result->entry_count == op->limit) {
            result->more = true;
            break;
        }
        struct objstore_entry *entry = &result->entries[result->entry_count++];
        memcpy(entry->key, object->key, sizeof entry->key);
        entry->size = object->data.size;
        entry->modified_ms = object->modified_ms;
    }
}

static void free_upload(struct objstore_upload *base)
{
    struct mem_upload *upload = (struct mem_upload *)base;
    buffer_release(&upload->data);
    free(upload);
}

static void run(struct job *job)
{
    struct objstore_op *op = CONTAINER_OF(job, struct objstore_op, job);
    struct mem_store *store = (struct mem_store *)op->store;
    struct objstore_result result = {0};
    switch (op->kind) {
    case OBJSTORE_GET:
        run_get(store, op, &result);
        break;
    case OBJSTORE_CREATE:
    case OBJSTORE_REPLACE:
    case OBJSTORE_COMMIT:
        run_write(store, op, &result);
        break;
    case OBJSTORE_REMOVE:
        run_remove(store, op);
        break;
    case OBJSTORE_LIST:
        run_list(store, op, &result);
        break;
    }
    if (op->upload)
        free_upload(op->upload);
    objstore_complete(op, &result);
}

static void mem_start(struct objstore *base, struct objstore_op *op)
{
    struct mem_store *store = (struct mem_store *)base;
    struct graft_error error;
    op->job.run = run;
    if (pool_submit(store->pool, &op->job, &error) == GRAFT_OK)
        return;
    error.status = GRAFT_UNAVAILABLE;
    if (op->upload)
        free_upload(op->upload);
    objstore_fail(op, &error);
}

static enum graft_status mem_upload_begin(struct objstore *base, const char *key,
                                          struct objstore_upload **ret_upload, struct graft_error *err)
{
    struct mem_upload *upload = calloc(1, sizeof *upload);
    CHECK(upload);
    buffer_init(&upload->data, UPLOAD_SIZE_MAX);
    *ret_upload = &upload->base;
    return GRAFT_OK;
}

static enum graft_status mem_upload_append(struct objstore_upload *base, struct bytes data,
                                           struct graft_error *err)
{
    return buffer_append(&((struct mem_upload *)base)->data, data.data, data.size, err);
}

static void mem_close(struct objstore *base)
{
    struct mem_store *store = (struct mem_store *)base;
    pool_free(store->pool);
    for (size_t i = 0; i < store->count; i++)
        free_object(store->objects[i]);
    free(store->objects);
    objstore_release(base);
    free(store);
}

static const struct objstore_backend mem_backend = {
    .name = "mem",
    .exclusive = true,
    .labels = OBJSTORE_LABELS("mem"),
    .start = mem_start,
    .upload_begin = mem_upload_begin,
    .upload_append = mem_upload_append,
    .upload_abort = free_upload,
    .close = mem_close,
};

enum graft_status objstore_mem_open(const struct objstore_settings *settings, struct objstore **ret_store,
                                    struct graft_error *err)
{
    struct mem_store *store = calloc(1, sizeof *store);
    CHECK(store);
    objstore_init(&store->base, &mem_backend, settings->metrics);
    enum graft_status status = pool_new("objstore-mem", 1, QUEUE_MAX, &store->pool, err);
    if (status != GRAFT_OK) {
        mem_close(&store->base);
        return status;
    }
    *ret_store = &store->base;
    return GRAFT_OK;
}
