// SPDX-License-Identifier: Apache-2.0
#include "tests/sweep/objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/mutex.h"
#include "common/store/objstore.h"
#include "tests/sweep/ledger.h"

#define ROUNDS 3u
#define SMALL_SIZE 3000u
#define LARGE_SIZE 900000u // several parts of an upload
#define ABSENT 0u

// An object of the model: its bytes follow from the step that wrote them.
struct object {
    char key[16];
    size_t size;
    unsigned tag; // ABSENT: must not be there
};

struct world {
    struct objstore *store;
    const char *kind;
};

// ---- blocking calls

struct call {
    struct mutex lock; // RANK_LEAF; guards what follows
    struct cond called;
    bool done;
    struct graft_error error;
    char tag[OBJSTORE_TAG_SIZE + 1];
};

static void call_done(void *context, struct objstore_result *result)
{
    struct call *call = context;
    LOCK_GUARD(&call->lock);
    call->error = result->error;
    memcpy(call->tag, result->tag, sizeof call->tag);
    buffer_release(&result->data);
    call->done = true;
    cond_signal(&call->called); // under the lock: its owner frees it once it is let go
}

static void call_init(struct call *call)
{
    *call = (struct call){.done = false};
    mutex_init(&call->lock, RANK_LEAF);
    cond_init(&call->called);
}

// Other failures than `expected` end the process, to be started again.
static enum graft_status call_wait(struct call *call, const char *what, enum graft_status expected)
{
    mutex_lock(&call->lock);
    while (!call->done)
        cond_wait(&call->called, &call->lock);
    mutex_unlock(&call->lock);
    cond_release(&call->called);
    mutex_release(&call->lock);
    if (call->error.status != GRAFT_OK && call->error.status != expected)
        ledger_fail(LEDGER_EXIT_AGAIN, "%s: %s", what, call->error.message);
    return call->error.status;
}

// ---- contents

static uint8_t *make_content(const struct object *object, unsigned tag)
{
    struct rng rng;
    uint8_t *content = malloc(object->size + 8);
    CHECK(content);
    rng_seed(&rng, tag);
    for (size_t at = 0; at < object->size; at += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(content + at, &word, sizeof word);
    }
    return content;
}

static bool is_tag(struct world *world, const struct object *object, unsigned tag)
{
    _cleanup_(buffer_release) struct buffer found = BUFFER_INIT(LARGE_SIZE + 1);
    struct graft_error err;
    enum graft_status status = objstore_get_wait(world->store, object->key, 0, LARGE_SIZE + 1, &found, &err);
    if (status != GRAFT_OK && status != GRAFT_NOT_FOUND)
        ledger_fail(LEDGER_EXIT_AGAIN, "reading %s: %s", object->key, err.message);
    if (tag == ABSENT || status == GRAFT_NOT_FOUND)
        return tag == ABSENT && status == GRAFT_NOT_FOUND;
    _cleanup_(free_p) uint8_t *expected = make_content(object, tag);
    return found.size == object->size && memcmp(found.data, expected, found.size) == 0;
}

static void check_object(struct world *world, const struct object *object)
{
    if (!is_tag(world, object, object->tag))
        ledger_fail(LEDGER_EXIT_FAILED, "%s: the object %s is not what was acknowledged", world->kind,
                    object->key);
}

static void expect(struct world *world, const struct object *object)
{
    // What comes next happened before, or may have: the store is ahead of the model.
    if (!ledger_peek()->begun)
        check_object(world, object);
}

// True if an earlier process did it already; then the object is what `tag` says. Anything but before or after is a failure.
static bool did(struct world *world, const struct step *step, const struct object *object, unsigned tag)
{
    if (!step->doubtful)
        return false;
    if (is_tag(world, object, tag))
        return true;
    check_object(world, object);
    return false;
}

// ---- steps

static void do_create(struct world *world, struct object *object)
{
    struct step *step = ledger_begin(0);
    unsigned tag = step->number + 1;
    if (!step->done && !did(world, step, object, tag)) {
        _cleanup_(free_p) uint8_t *content = make_content(object, tag);
        struct call call;
        call_init(&call);
        objstore_create(world->store, object->key, (struct bytes){content, object->size}, call_done, &call);
        call_wait(&call, "creating", GRAFT_OK);
    }
    if (!step->done)
        ledger_done(step, "-");
    object->tag = tag;
}

static void do_replace(struct world *world, struct object *object)
{
    struct step *step = ledger_begin(0);
    unsigned tag = step->number + 1;
    if (!step->done && !did(world, step, object, tag)) {
        _cleanup_(free_p) uint8_t *content = make_content(object, tag);
        struct call get, call;
        call_init(&get);
        objstore_get(world->store, object->key, 0, 0, call_done, &get);
        call_wait(&get, "asking for a version", GRAFT_OK);
        call_init(&call);
        objstore_replace(world->store, object->key, get.tag, (struct bytes){content, object->size}, call_done,
                         &call);
        call_wait(&call, "replacing", GRAFT_OK);
    }
    if (!step->done)
        ledger_done(step, "-");
    object->tag = tag;
}

static void do_remove(struct world *world, struct object *object)
{
    struct step *step = ledger_begin(0);
    if (!step->done && !did(world, step, object, ABSENT)) {
        struct call call;
        call_init(&call);
        objstore_remove(world->store, object->key, call_done, &call);
        call_wait(&call, "removing", GRAFT_OK);
    }
    if (!step->done)
        ledger_done(step, "-");
    object->tag = ABSENT;
}

// An upload, committed or aborted.
static void do_upload(struct world *world, struct object *object, bool commit)
{
    struct step *step = ledger_begin(0);
    unsigned tag = commit ? step->number + 1 : ABSENT;
    if (!step->done && !(commit && did(world, step, object, tag))) {
        _cleanup_(free_p) uint8_t *content = make_content(object, step->number + 1);
        struct objstore_upload *upload = NULL;
        struct graft_error err;
        enum graft_status status = objstore_upload_begin(world->store, object->key, &upload, &err);
        if (status == GRAFT_OK)
            status = objstore_upload_append(upload, (struct bytes){content, object->size}, &err);
        if (status != GRAFT_OK)
            ledger_fail(LEDGER_EXIT_AGAIN, "uploading: %s", err.message);
        struct call call;
        call_init(&call);
        if (commit) {
            objstore_upload_commit(upload, call_done, &call);
            call_wait(&call, "uploading", GRAFT_OK);
        } else {
            objstore_upload_abort(upload);
        }
    }
    if (!step->done)
        ledger_done(step, "-");
    object->tag = tag;
}

static void run_store(const char *folder, const char *kind, struct rng *rng)
{
    char url[4096];
    struct object objects[] = {{"some/small", SMALL_SIZE, ABSENT},
                               {"some/large", LARGE_SIZE, ABSENT},
                               {"other/upload", LARGE_SIZE, ABSENT}};
    struct world world = {.kind = kind};
    struct objstore_settings settings = {0};
    struct graft_error err;
    snprintf(url, sizeof url, "%s:%s/%s", kind, folder, kind);
    if (objstore_open(url, &settings, &world.store, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "opening %s: %s", url, err.message);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < 2; i++)
            do_create(&world, &objects[i]);
        do_upload(&world, &objects[2], false);
        do_upload(&world, &objects[2], true);
        do_replace(&world, &objects[rng_below(rng, 3)]);
        for (size_t i = 0; i < ARRAY_COUNT(objects); i++)
            expect(&world, &objects[i]);
        for (size_t i = 0; i < ARRAY_COUNT(objects); i++)
            do_remove(&world, &objects[i]);
        for (size_t i = 0; i < ARRAY_COUNT(objects); i++)
            expect(&world, &objects[i]);
    }
    do_create(&world, &objects[0]);
    objstore_close(world.store);
    if (objstore_open(url, &settings, &world.store, &err) != GRAFT_OK)
        ledger_fail(LEDGER_EXIT_AGAIN, "opening %s: %s", url, err.message);
    for (size_t i = 0; i < ARRAY_COUNT(objects); i++)
        expect(&world, &objects[i]);
    objstore_close(world.store);
}

void objects_script(const char *folder, struct rng *rng)
{
    run_store(folder, "fs", rng);
    run_store(folder, "rocksdb", rng);
}
