// SPDX-License-Identifier: Apache-2.0
//
// A wrapper that makes another store misbehave as told. Operations that no fault matches go through
// unchanged.
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/store/objstore_backend.h"

#define FAULTS_MAX 64
#define NAME_SIZE_MAX 16

struct armed_fault {
    enum objstore_fault_kind kind;
    bool all_ops;
    char op[NAME_SIZE_MAX];
    char key_prefix[OBJSTORE_KEY_MAX + 1];
    unsigned skip, count;
    struct graft_error error;
};

struct faulty_store {
    struct objstore base;
    struct objstore *inner;

    struct mutex lock; // RANK_OBJSTORE; guards what follows
    struct cond has_fired;
    struct armed_fault faults[FAULTS_MAX];
    unsigned fault_count;
    unsigned fired;
    struct objstore_ops held;
};

struct faulty_upload {
    struct objstore_upload base;
    struct objstore_upload *inner;
};

static const char *const kind_names[OBJSTORE_KIND_COUNT] = {
    [OBJSTORE_GET] = "get",       [OBJSTORE_CREATE] = "create", [OBJSTORE_REPLACE] = "replace",
    [OBJSTORE_REMOVE] = "remove", [OBJSTORE_LIST] = "list",     [OBJSTORE_COMMIT] = "commit",
};

static bool fault_matches(const struct armed_fault *fault, const struct objstore_op *op)
{
    return fault->count > 0 && (fault->all_ops || strcmp(fault->op, kind_names[op->kind]) == 0) &&
           strncmp(op->key, fault->key_prefix, strlen(fault->key_prefix)) == 0;
}

// Uses up one turn of the first fault that matches.
static bool take_fault(struct faulty_store *store, struct objstore_op *op, struct armed_fault *ret_fault)
{
    LOCK_GUARD(&store->lock);
    for (unsigned i = 0; i < store->fault_count; i++) {
        struct armed_fault *fault = &store->faults[i];
        if (!fault_matches(fault, op))
            continue;
        if (fault->skip > 0) {
            fault->skip--;
            continue;
        }
        fault->count--;
        store->fired++;
        if (fault->kind == FAULT_HOLD)
            STAILQ_INSERT_TAIL(&store->held, op, link);
        cond_broadcast(&store->has_fired);
        *ret_fault = *fault;
        return true;
    }
    return false;
}

static void pass_on(void *context, struct objstore_result *result)
{
    objstore_complete(context, result);
}

static void lose_answer(void *context, struct objstore_result *result)
{
    struct objstore_op *op = context;
    struct graft_error error;
    error_set(&error, GRAFT_UNKNOWN, GRAFT_DETAIL_TIMEOUT,
              "the answer about the object %s was lost (injected)", op->key);
    objstore_fail(op, &error);
}

// Hands the operation to the inner store. The upload's outer half ends here.
static void forward(struct objstore_op *op, objstore_done_fn *done)
{
    struct objstore *inner = ((struct faulty_store *)op->store)->inner;
    switch (op->kind) {
    case OBJSTORE_GET:
        return objstore_get(inner, op->key, op->offset, op->size_max, done, op);
    case OBJSTORE_CREATE:
        return objstore_create(inner, op->key, op->data, done, op);
    case OBJSTORE_REPLACE:
        return objstore_replace(inner, op->key, op->other, op->data, done, op);
    case OBJSTORE_REMOVE:
        return objstore_remove(inner, op->key, done, op);
    case OBJSTORE_LIST:
        return objstore_list(inner, op->key, op->other, op->limit, done, op);
    case OBJSTORE_COMMIT: {
        struct objstore_upload *upload = ((struct faulty_upload *)op->upload)->inner;
        free(TAKE(op->upload));
        return objstore_upload_commit(upload, done, op);
    }
    }
}

static void create_after_remove(void *context, struct objstore_result *result)
{
    struct objstore_op *op = context;
    if (result->error.status != GRAFT_OK)
        objstore_complete(op, result);
    else
        forward(op, pass_on);
}

static void faulty_abort(struct objstore_upload *base)
{
    struct faulty_upload *upload = (struct faulty_upload *)base;
    objstore_upload_abort(upload->inner);
    free(upload);
}

static void faulty_start(struct objstore *base, struct objstore_op *op)
{
    struct faulty_store *store = (struct faulty_store *)base;
    struct armed_fault fault;
    if (!take_fault(store, op, &fault))
        return forward(op, pass_on);
    switch (fault.kind) {
    case FAULT_ERROR:
        if (op->upload)
            faulty_abort(op->upload);
        return objstore_fail(op, &fault.error);
    case FAULT_LOST_ANSWER:
        return forward(op, lose_answer);
    case FAULT_FORGET_EXCLUSIVE:
        return objstore_remove(store->inner, op->key, create_after_remove, op);
    case FAULT_HOLD:
        return; // in `held` already
    }
}

static enum graft_status faulty_upload_begin(struct objstore *base, const char *key,
                                             struct objstore_upload **ret_upload, struct graft_error *err)
{
    struct objstore_upload *inner;
    enum graft_status status = objstore_upload_begin(((struct faulty_store *)base)->inner, key, &inner, err);
    if (status != GRAFT_OK)
        return status;
    struct faulty_upload *upload = calloc(1, sizeof *upload);
    CHECK(upload);
    upload->inner = inner;
    *ret_upload = &upload->base;
    return GRAFT_OK;
}

static enum graft_status faulty_upload_append(struct objstore_upload *upload, struct bytes data,
                                              struct graft_error *err)
{
    return objstore_upload_append(((struct faulty_upload *)upload)->inner, data, err);
}

static void faulty_close(struct objstore *base)
{
    struct faulty_store *store = (struct faulty_store *)base;
    CHECK(STAILQ_EMPTY(&store->held));
    objstore_close(store->inner);
    cond_release(&store->has_fired);
    mutex_release(&store->lock);
    objstore_release(base);
    free(store);
}

static const struct objstore_backend faulty_backend = {
    .name = "faulty",
    .exclusive = true,
    .start = faulty_start,
    .upload_begin = faulty_upload_begin,
    .upload_append = faulty_upload_append,
    .upload_abort = faulty_abort,
    .close = faulty_close,
};

enum graft_status objstore_faulty_open(struct objstore *inner, struct objstore **ret_store,
                                       struct graft_error *err)
{
    struct faulty_store *store = calloc(1, sizeof *store);
    CHECK(store);
    objstore_init(&store->base, &faulty_backend, NULL);
    mutex_init(&store->lock, RANK_OBJSTORE);
    cond_init(&store->has_fired);
    STAILQ_INIT(&store->held);
    store->inner = inner;
    *ret_store = &store->base;
    return GRAFT_OK;
}

void objstore_faulty_add(struct objstore *base, const struct objstore_fault *fault)
{
    struct faulty_store *store = (struct faulty_store *)base;
    CHECK(base->backend == &faulty_backend);
    CHECK(!fault->op || strlen(fault->op) < NAME_SIZE_MAX);
    CHECK(!fault->key_prefix || strlen(fault->key_prefix) <= OBJSTORE_KEY_MAX);
    CHECK(fault->kind != FAULT_ERROR || fault->error.status != GRAFT_OK);
    LOCK_GUARD(&store->lock);
    CHECK(store->fault_count < FAULTS_MAX);
    struct armed_fault *armed = &store->faults[store->fault_count++];
    *armed = (struct armed_fault){.kind = fault->kind,
                                  .all_ops = !fault->op,
                                  .skip = fault->skip,
                                  .count = fault->count,
                                  .error = fault->error};
    if (fault->op)
        memcpy(armed->op, fault->op, strlen(fault->op) + 1);
    if (fault->key_prefix)
        memcpy(armed->key_prefix, fault->key_prefix, strlen(fault->key_prefix) + 1);
}

void objstore_faulty_release(struct objstore *base)
{
    struct faulty_store *store = (struct faulty_store *)base;
    struct objstore_ops held = STAILQ_HEAD_INITIALIZER(held);
    mutex_lock(&store->lock);
    STAILQ_CONCAT(&held, &store->held);
    mutex_unlock(&store->lock);
    for (struct objstore_op *op; (op = STAILQ_FIRST(&held));) {
        STAILQ_REMOVE_HEAD(&held, link);
        forward(op, pass_on);
    }
}

unsigned objstore_faulty_fired(struct objstore *base)
{
    struct faulty_store *store = (struct faulty_store *)base;
    LOCK_GUARD(&store->lock);
    return store->fired;
}

void objstore_faulty_await(struct objstore *base, unsigned count)
{
    struct faulty_store *store = (struct faulty_store *)base;
    LOCK_GUARD(&store->lock);
    while (store->fired < count)
        cond_wait(&store->has_fired, &store->lock);
}
