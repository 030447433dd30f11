// SPDX-License-Identifier: Apache-2.0
//
// The front of the object store: what is the same for every back-end. See objstore_backend.h for the line
// between.
//
// Invariants
//   1. A back-end sees only valid keys, prefixes and sizes.
//   2. under_way counts operations from before start() until after the callback returned; objstore_close()
//   waits for 0,
//      so a back-end is never called, and never calls back, while it is being taken down.
#include "common/store/objstore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/random.h"
#include "common/store/objstore_backend.h"

#define QUOTE_MAX 80 // characters of a foreign key in a message

void objstore_init(struct objstore *store, const struct objstore_backend *backend, struct metrics *metrics)
{
    store->backend = backend;
    for (unsigned kind = 0; metrics && kind < OBJSTORE_KIND_COUNT; kind++) {
        const char *labels = backend->labels[kind];
        store->calls[kind] =
            metrics_counter(metrics, "objstore_calls_total", labels, "operations on the object store");
        store->failures[kind] =
            metrics_counter(metrics, "objstore_failures_total", labels,
                            "operations that ended with neither OK, NOT_FOUND nor CONFLICT");
        store->bytes[kind] =
            metrics_counter(metrics, "objstore_bytes_total", labels, "bytes read and written by operations");
        store->seconds[kind] =
            metrics_histogram(metrics, "objstore_seconds", labels, "from the call to its callback");
    }
    mutex_init(&store->lock, RANK_LEAF);
    cond_init(&store->idle);
}

void objstore_release(struct objstore *store)
{
    cond_release(&store->idle);
    mutex_release(&store->lock);
}

// ---- keys

static bool is_key_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
}

static bool is_dots(const char *part, size_t size)
{
    return (size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.');
}

// Checks each part that a '/' closes; the last one is left to the caller. NULL: fine, with *ret_last set.
static const char *find_fault(const char *key, const char **ret_last)
{
    if (strnlen(key, OBJSTORE_KEY_MAX + 1) > OBJSTORE_KEY_MAX)
        return "it is too long";
    const char *part = key;
    for (const char *at = key; *at; at++) {
        if (!is_key_character(*at))
            return "it may hold only letters, digits and ._-/";
        if (*at != '/')
            continue;
        if (at == part || is_dots(part, (size_t)(at - part)))
            return "its parts may not be empty, \".\" or \"..\"";
        part = at + 1;
    }
    *ret_last = part;
    return NULL;
}

static enum graft_status refuse_key(const char *key, const char *what, const char *fault,
                                    struct graft_error *err)
{
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "the object %s \"%.*s\" is refused: %s",
                     what, QUOTE_MAX, key, fault);
}

static enum graft_status check_key(const char *key, struct graft_error *err)
{
    const char *last;
    const char *fault = find_fault(key, &last);
    if (!fault && (!*last || is_dots(last, strlen(last))))
        fault = "its parts may not be empty, \".\" or \"..\"";
    return fault ? refuse_key(key, "key", fault, err) : GRAFT_OK;
}

static enum graft_status check_prefix(const char *prefix, struct graft_error *err)
{
    const char *last;
    const char *fault = find_fault(prefix, &last);
    return fault ? refuse_key(prefix, "key prefix", fault, err) : GRAFT_OK;
}

// ---- one operation

static enum graft_status enter(struct objstore *store, struct graft_error *err)
{
    LOCK_GUARD(&store->lock);
    if (store->closing)
        return error_set(err, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "the object store is being closed");
    store->under_way++;
    return GRAFT_OK;
}

static void leave(struct objstore *store)
{
    // Signalled under the lock: once it is let go, objstore_close() may free the store.
    LOCK_GUARD(&store->lock);
    if (--store->under_way == 0)
        cond_signal(&store->idle);
}

static void refuse(objstore_done_fn *done, void *context, const struct graft_error *error)
{
    struct objstore_result result = {.error = *error};
    done(context, &result);
}

static struct objstore_op *make_op(struct objstore *store, enum objstore_kind kind, const char *key,
                                   const char *other)
{
    size_t key_size = strlen(key) + 1;
    size_t other_size = other ? strlen(other) + 1 : 0;
    struct objstore_op *op = malloc(sizeof *op + key_size + other_size);
    CHECK(op);
    *op = (struct objstore_op){
        .store = store, .kind = kind, .started_us = clock_monotonic_us(clock_system()), .key = op->text};
    memcpy(op->text, key, key_size);
    if (other) {
        op->other = op->text + key_size;
        memcpy(op->text + key_size, other, other_size);
    }
    return op;
}

static void start(struct objstore_op *op, objstore_done_fn *done, void *context)
{
    struct objstore *store = op->store;
    op->done = done;
    op->context = context;
    metric_add(store->calls[op->kind], 1);
    store->backend->start(store, op);
}

static size_t bytes_moved(const struct objstore_op *op, const struct objstore_result *result)
{
    if (result->error.status != GRAFT_OK)
        return 0;
    return op->kind == OBJSTORE_GET ? result->data.size : op->data.size;
}

void objstore_complete(struct objstore_op *op, struct objstore_result *result)
{
    struct objstore *store = op->store;
    enum graft_status status = result->error.status;
    if (store->seconds[op->kind]) {
        metric_observe_us(store->seconds[op->kind], clock_monotonic_us(clock_system()) - op->started_us);
        metric_add(store->bytes[op->kind], (int64_t)bytes_moved(op, result));
        if (status != GRAFT_OK && status != GRAFT_NOT_FOUND && status != GRAFT_CONFLICT)
            metric_add(store->failures[op->kind], 1);
    }
    op->done(op->context, result);
    buffer_release(&result->data);
    free(TAKE(result->entries));
    result->entry_count = 0;
    free(op);
    leave(store);
}

void objstore_fail(struct objstore_op *op, const struct graft_error *error)
{
    CHECK(error->status != GRAFT_OK);
    struct objstore_result result = {.error = *error};
    objstore_complete(op, &result);
}

enum graft_status objstore_conflict(const struct objstore_op *op, struct graft_error *err)
{
    if (op->kind == OBJSTORE_REPLACE)
        return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_NONE,
                         "replacing the object %s: it is no longer the version that was read", op->key);
    return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_EXISTS, "creating the object %s: it exists", op->key);
}

// ---- the calls

static enum graft_status check_create_size(const char *key, struct bytes data, struct graft_error *err)
{
    if (data.size <= OBJSTORE_CREATE_SIZE_MAX)
        return GRAFT_OK;
    return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                     "the object %.*s of %zu bytes is larger than %u: upload it in pieces", QUOTE_MAX, key,
                     data.size, OBJSTORE_CREATE_SIZE_MAX);
}

void objstore_get(struct objstore *store, const char *key, uint64_t offset, size_t size_max,
                  objstore_done_fn *done, void *context)
{
    struct graft_error error;
    if (check_key(key, &error) != GRAFT_OK || enter(store, &error) != GRAFT_OK)
        return refuse(done, context, &error);
    struct objstore_op *op = make_op(store, OBJSTORE_GET, key, NULL);
    op->offset = offset;
    op->size_max = size_max;
    start(op, done, context);
}

void objstore_create(struct objstore *store, const char *key, struct bytes data, objstore_done_fn *done,
                     void *context)
{
    struct graft_error error;
    if (check_key(key, &error) != GRAFT_OK || check_create_size(key, data, &error) != GRAFT_OK ||
        enter(store, &error) != GRAFT_OK)
        return refuse(done, context, &error);
    struct objstore_op *op = make_op(store, OBJSTORE_CREATE, key, NULL);
    op->data = data;
    start(op, done, context);
}

void objstore_replace(struct objstore *store, const char *key, const char *tag, struct bytes data,
                      objstore_done_fn *done, void *context)
{
    struct graft_error error;
    CHECK(strlen(tag) <= OBJSTORE_TAG_SIZE);
    if (check_key(key, &error) != GRAFT_OK || check_create_size(key, data, &error) != GRAFT_OK ||
        enter(store, &error) != GRAFT_OK)
        return refuse(done, context, &error);
    struct objstore_op *op = make_op(store, OBJSTORE_REPLACE, key, tag);
    op->data = data;
    start(op, done, context);
}

void objstore_remove(struct objstore *store, const char *key, objstore_done_fn *done, void *context)
{
    struct graft_error error;
    if (check_key(key, &error) != GRAFT_OK || enter(store, &error) != GRAFT_OK)
        return refuse(done, context, &error);
    start(make_op(store, OBJSTORE_REMOVE, key, NULL), done, context);
}

void objstore_list(struct objstore *store, const char *prefix, const char *after, unsigned limit,
                   objstore_done_fn *done, void *context)
{
    struct graft_error error;
    if (check_prefix(prefix, &error) != GRAFT_OK || (after && check_prefix(after, &error) != GRAFT_OK) ||
        enter(store, &error) != GRAFT_OK)
        return refuse(done, context, &error);
    struct objstore_op *op = make_op(store, OBJSTORE_LIST, prefix, after);
    op->limit = limit > 0 ? MIN(limit, OBJSTORE_LIST_MAX) : 1;
    start(op, done, context);
}

// ---- uploads

enum graft_status objstore_upload_begin(struct objstore *store, const char *key,
                                        struct objstore_upload **ret_upload, struct graft_error *err)
{
    enum graft_status status = check_key(key, err);
    if (status != GRAFT_OK || (status = enter(store, err)) != GRAFT_OK)
        return status;
    struct objstore_upload *upload;
    status = store->backend->upload_begin(store, key, &upload, err);
    if (status == GRAFT_OK) {
        upload->store = store;
        memcpy(upload->key, key, strlen(key) + 1);
        mutex_lock(&store->lock);
        store->uploads++;
        mutex_unlock(&store->lock);
        *ret_upload = upload;
    }
    leave(store);
    return status;
}

enum graft_status objstore_upload_append(struct objstore_upload *upload, struct bytes data,
                                         struct graft_error *err)
{
    if (upload->failure.status == GRAFT_OK)
        upload->store->backend->upload_append(upload, data, &upload->failure);
    return error_copy(err, &upload->failure);
}

static void forget_upload(struct objstore *store)
{
    LOCK_GUARD(&store->lock);
    CHECK(store->uploads > 0);
    store->uploads--;
}

void objstore_upload_commit(struct objstore_upload *upload, objstore_done_fn *done, void *context)
{
    struct objstore *store = upload->store;
    struct graft_error error = upload->failure;
    if (error.status != GRAFT_OK || enter(store, &error) != GRAFT_OK) {
        objstore_upload_abort(upload);
        return refuse(done, context, &error);
    }
    struct objstore_op *op = make_op(store, OBJSTORE_COMMIT, upload->key, NULL);
    op->upload = upload;
    forget_upload(store);
    start(op, done, context);
}

void objstore_upload_abort(struct objstore_upload *upload)
{
    if (!upload)
        return;
    struct objstore *store = upload->store;
    store->backend->upload_abort(upload);
    forget_upload(store);
}

// ---- the store as a whole

bool objstore_is_exclusive(const struct objstore *store)
{
    return store->backend->exclusive;
}

void objstore_close(struct objstore *store)
{
    if (!store)
        return;
    mutex_lock(&store->lock);
    store->closing = true;
    while (store->under_way > 0)
        cond_wait(&store->idle, &store->lock);
    CHECK(store->uploads == 0);
    mutex_unlock(&store->lock);
    store->backend->close(store);
}

enum graft_status objstore_open(const char *url, const struct objstore_settings *settings,
                                struct objstore **ret_store, struct graft_error *err)
{
    static const struct {
        const char *scheme;
        enum graft_status (*open)(const char *, const struct objstore_settings *, struct objstore **,
                                  struct graft_error *);
    } backends[] = {{"rocksdb:", objstore_rocksdb_open}, {"fs:", objstore_fs_open}};

    for (size_t i = 0; i < ARRAY_COUNT(backends); i++) {
        size_t size = strlen(backends[i].scheme);
        if (strncmp(url, backends[i].scheme, size) == 0 && url[size])
            return backends[i].open(url + size, settings, ret_store, err);
    }
    if (strcmp(url, "mem:") == 0)
        return objstore_mem_open(settings, ret_store, err);
    return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                     "the store \"%.*s\" is none that is known: use rocksdb:DIR, fs:DIR or mem:", QUOTE_MAX,
                     url);
}

enum graft_status objstore_checkpoint(struct objstore *store, const char *path, struct graft_error *err)
{
    if (!store->backend->checkpoint)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_STORE,
                         "a store of the kind %s cannot be copied while it is open", store->backend->name);
    return store->backend->checkpoint(store, path, err);
}
