// SPDX-License-Identifier: Apache-2.0
//
// What lies between objstore.c (the front: checks keys, counts, measures, refuses once closing) and the back-ends.
//
// The front makes one `struct objstore_op` for each operation and hands it to start(); from there the back-end owns it
// until it calls objstore_complete() or objstore_fail(), exactly once, with no lock of its own held. Strings in the op
// are valid until then. Back-ends never see an invalid key, and close() is called when nothing is under way.
#ifndef COMMON_STORE_OBJSTORE_BACKEND_H
#define COMMON_STORE_OBJSTORE_BACKEND_H

#include <sys/queue.h>

#include "common/base/mutex.h"
#include "common/base/worker.h"
#include "common/store/objstore.h"

enum objstore_kind {
    OBJSTORE_GET,
    OBJSTORE_CREATE,
    OBJSTORE_REPLACE,
    OBJSTORE_REMOVE,
    OBJSTORE_LIST,
    OBJSTORE_COMMIT, // of an upload
};
#define OBJSTORE_KIND_COUNT 6

struct objstore_op {
    struct objstore *store;
    enum objstore_kind kind;
    const char *key;   // list: the prefix
    const char *other; // replace: the tag; list: the key to start after, or NULL
    struct bytes data;
    uint64_t offset;
    size_t size_max;
    unsigned limit;
    struct objstore_upload *upload; // commit: the back-end frees it
    objstore_done_fn *done;
    void *context;
    uint64_t started_us;

    // for the back-end, wherever it keeps the op waiting
    struct job job;
    STAILQ_ENTRY(objstore_op) link;

    char text[]; // key and other
};
STAILQ_HEAD(objstore_ops, objstore_op);

// The first member of a back-end's own upload.
struct objstore_upload {
    struct objstore *store;
    struct graft_error failure; // status: of the first append that failed, and of the commit then
    char key[OBJSTORE_KEY_MAX + 1];
};

struct objstore_backend {
    const char *name;
    bool exclusive;
    const char *labels[OBJSTORE_KIND_COUNT]; // of the metrics; OBJSTORE_LABELS(name)

    void (*start)(struct objstore *store, struct objstore_op *op);
    enum graft_status (*upload_begin)(struct objstore *store, const char *key,
                                      struct objstore_upload **ret_upload, struct graft_error *err);
    enum graft_status (*upload_append)(struct objstore_upload *upload, struct bytes data,
                                       struct graft_error *err);
    void (*upload_abort)(struct objstore_upload *upload); // frees it
    enum graft_status (*checkpoint)(struct objstore *store, const char *path,
                                    struct graft_error *err); // or NULL
    void (*close)(struct objstore *store);                    // frees it, after objstore_release()
};

#define OBJSTORE_LABEL(name, op) "store=\"" name "\",op=\"" op "\""
#define OBJSTORE_LABELS(name)                                                                            \
    {                                                                                                    \
        OBJSTORE_LABEL(name, "get"), OBJSTORE_LABEL(name, "create"), OBJSTORE_LABEL(name, "replace"),    \
            OBJSTORE_LABEL(name, "remove"), OBJSTORE_LABEL(name, "list"), OBJSTORE_LABEL(name, "commit") \
    }

// The first member of a back-end's own store.
struct objstore {
    const struct objstore_backend *backend;
    struct metric *calls[OBJSTORE_KIND_COUNT];
    struct metric *failures[OBJSTORE_KIND_COUNT];
    struct metric *bytes[OBJSTORE_KIND_COUNT];
    struct metric *seconds[OBJSTORE_KIND_COUNT];

    struct mutex lock;  // RANK_LEAF; guards what follows
    struct cond idle;   // signalled when under_way falls to 0
    unsigned under_way; // operations whose callback has not returned
    unsigned uploads;   // neither committed nor aborted
    bool closing;
};

// `metrics` may be NULL.
void objstore_init(struct objstore *store, const struct objstore_backend *backend, struct metrics *metrics);
void objstore_release(struct objstore *store);

// Calls back, then releases what is left in *result, and frees the op.
void objstore_complete(struct objstore_op *op, struct objstore_result *result);
void objstore_fail(struct objstore_op *op, const struct graft_error *error);
enum graft_status objstore_conflict(const struct objstore_op *op,
                                    struct graft_error *err); // the key exists, or changed

enum graft_status objstore_rocksdb_open(const char *path, const struct objstore_settings *settings,
                                        struct objstore **ret_store, struct graft_error *err);
enum graft_status objstore_fs_open(const char *path, const struct objstore_settings *settings,
                                   struct objstore **ret_store, struct graft_error *err);
enum graft_status objstore_mem_open(const struct objstore_settings *settings, struct objstore **ret_store,
                                    struct graft_error *err);

#endif
