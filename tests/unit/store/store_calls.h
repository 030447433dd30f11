// SPDX-License-Identifier: Apache-2.0
//
// Blocking forms for the calls that the product only makes asynchronously, and stores to make them on.
#ifndef TESTS_UNIT_STORE_STORE_CALLS_H
#define TESTS_UNIT_STORE_STORE_CALLS_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/store/objstore.h"

struct call {
    pthread_mutex_t lock;
    pthread_cond_t called;
    unsigned calls;
    struct objstore_result result;
};

static inline void call_init(struct call *call)
{
    memset(call, 0, sizeof *call);
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->called, NULL);
}

static inline void call_release(struct call *call)
{
    buffer_release(&call->result.data);
    free(call->result.entries);
    call->result.entries = NULL;
}

static inline void call_done(void *context, struct objstore_result *result)
{
    struct call *call = context;
    pthread_mutex_lock(&call->lock);
    call->result = *result;
    call->result.data = buffer_take(&result->data);
    result->entries = NULL;
    call->calls++;
    pthread_cond_signal(&call->called);
    pthread_mutex_unlock(&call->lock);
}

static inline enum graft_status call_wait(struct call *call)
{
    pthread_mutex_lock(&call->lock);
    while (call->calls == 0)
        pthread_cond_wait(&call->called, &call->lock);
    pthread_mutex_unlock(&call->lock);
    return call->result.error.status;
}

static inline bool call_is_done(struct call *call)
{
    pthread_mutex_lock(&call->lock);
    bool done = call->calls > 0;
    pthread_mutex_unlock(&call->lock);
    return done;
}

static inline struct bytes text_bytes(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

static inline enum graft_status create_text(struct objstore *store, const char *key, const char *text)
{
    return objstore_create_wait(store, key, text_bytes(text), NULL);
}

static inline enum graft_status get_call(struct objstore *store, const char *key, uint64_t offset,
                                         size_t size_max, struct call *call)
{
    call_init(call);
    objstore_get(store, key, offset, size_max, call_done, call);
    return call_wait(call);
}

static inline void assert_holds(struct objstore *store, const char *key, const char *text)
{
    _cleanup_(call_release) struct call call;
    cr_assert_eq(get_call(store, key, 0, 1 << 20, &call), GRAFT_OK, "%s: %s", key, call.result.error.message);
    cr_assert_eq(call.result.object_size, strlen(text), "%s", key);
    cr_assert_eq(call.result.data.size, strlen(text), "%s", key);
    cr_assert(!*text || memcmp(call.result.data.data, text, strlen(text)) == 0, "%s", key);
}

static inline void assert_absent(struct objstore *store, const char *key)
{
    _cleanup_(call_release) struct call call;
    cr_assert_eq(get_call(store, key, 0, 1, &call), GRAFT_NOT_FOUND, "%s", key);
}

static inline enum graft_status replace_call(struct objstore *store, const char *key, const char *tag,
                                             const char *text, struct call *call)
{
    call_init(call);
    objstore_replace(store, key, tag, text_bytes(text), call_done, call);
    return call_wait(call);
}

static inline enum graft_status list_call(struct objstore *store, const char *prefix, const char *after,
                                          unsigned limit, struct call *call)
{
    call_init(call);
    objstore_list(store, prefix, after, limit, call_done, call);
    return call_wait(call);
}

static inline enum graft_status commit_call(struct objstore_upload *upload)
{
    struct call call;
    call_init(&call);
    objstore_upload_commit(upload, call_done, &call);
    return call_wait(&call);
}

static inline void append_pattern(struct objstore_upload *upload, size_t size, size_t step)
{
    uint8_t *data = malloc(size);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 7 + (i >> 13));
    for (size_t at = 0; at < size; at += step) {
        struct graft_error error;
        cr_assert_eq(objstore_upload_append(upload, (struct bytes){data + at, MIN(step, size - at)}, &error),
                     GRAFT_OK, "%s", error.message);
    }
    free(data);
}

static inline void assert_pattern(struct objstore *store, const char *key, uint64_t object_size,
                                  uint64_t offset, size_t size)
{
    _cleanup_(call_release) struct call call;
    cr_assert_eq(get_call(store, key, offset, size, &call), GRAFT_OK, "%s", call.result.error.message);
    cr_assert_eq(call.result.object_size, object_size);
    cr_assert_eq(call.result.data.size, MIN((uint64_t)size, object_size - offset));
    for (size_t i = 0; i < call.result.data.size; i++) {
        uint64_t at = offset + i;
        cr_assert_eq(call.result.data.data[i], (uint8_t)(at * 7 + (at >> 13)), "byte %lu", at);
    }
}

static inline struct objstore_upload *begin_upload(struct objstore *store, const char *key)
{
    struct objstore_upload *upload = NULL;
    struct graft_error error;
    cr_assert_eq(objstore_upload_begin(store, key, &upload, &error), GRAFT_OK, "%s", error.message);
    return upload;
}

static inline struct objstore *open_store(const char *scheme, const char *path,
                                          const struct objstore_settings *settings)
{
    char url[160];
    snprintf(url, sizeof url, "%s%s", scheme, path);
    struct objstore *store = NULL;
    struct graft_error error;
    cr_assert_eq(objstore_open(url, settings, &store, &error), GRAFT_OK, "%s", error.message);
    return store;
}

#endif
