// SPDX-License-Identifier: Apache-2.0
//
// The seam to everything durable behind the daemons: named, mostly immutable objects.
//
// Operations complete by a callback, exactly once: on a thread of the store, or before the call returns, on the caller's
// thread (rocksdb: get and list, which never wait for a sync; any store: what it refuses). So hold no lock that the
// callback takes. The callback is short, never blocks and may start further operations. Keys are 1 to OBJSTORE_KEY_MAX
// characters of [A-Za-z0-9._-/], without empty, "." or ".." parts; list order is that of the bytes.
//
//     create   only if absent; CONFLICT if the key exists, even where an own earlier try of this call made it
//     replace  only if the object is still the version that was read; CONFLICT otherwise
//     get      a range of an object; NOT_FOUND
//     remove   OK also where the key was absent
//     list     keys under a prefix, in order
//
// OK for create, replace and remove means durable. Other failures: UNAVAILABLE (nothing was done), UNKNOWN (it may or may
// not have been done), INTERNAL / NO_SPACE or IO.
#ifndef COMMON_STORE_OBJSTORE_H
#define COMMON_STORE_OBJSTORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buffer.h"
#include "common/base/compiler.h"
#include "common/base/error.h"
#include "common/base/metrics.h"

#define OBJSTORE_KEY_MAX 200
#define OBJSTORE_TAG_SIZE 40                 // version tags, as text
#define OBJSTORE_CREATE_SIZE_MAX (64u << 20) // of create and replace; larger objects are uploaded
#define OBJSTORE_LIST_MAX 1000u              // entries in one answer, whatever was asked for

struct objstore;

struct objstore_entry {
    char key[OBJSTORE_KEY_MAX + 1];
    uint64_t size;
    uint64_t modified_ms; // by the store's clock; 0 where it keeps none
};

struct objstore_result {
    struct graft_error error; // .status GRAFT_OK
    struct buffer data;       // get: the bytes; moved out with buffer_take() or released after the callback
    uint64_t object_size;     // get
    char tag[OBJSTORE_TAG_SIZE + 1]; // get, create, replace: names this version
    struct objstore_entry *entries;  // list; released after the callback
    size_t entry_count;
    bool more; // list: the limit cut it off
};

typedef void objstore_done_fn(void *context, struct objstore_result *result);

// At most `size_max` bytes from `offset`; an object that is shorter gives what there is (perhaps nothing).
void objstore_get(struct objstore *store, const char *key, uint64_t offset, size_t size_max,
                  objstore_done_fn *done, void *context);
// `data` is borrowed until done.
void objstore_create(struct objstore *store, const char *key, struct bytes data, objstore_done_fn *done,
                     void *context);
void objstore_replace(struct objstore *store, const char *key, const char *tag, struct bytes data,
                      objstore_done_fn *done, void *context);
void objstore_remove(struct objstore *store, const char *key, objstore_done_fn *done, void *context);
// Keys > `after` (NULL: from the start) that start with `prefix` ("": all), at most `limit`.
void objstore_list(struct objstore *store, const char *prefix, const char *after, unsigned limit,
                   objstore_done_fn *done, void *context);

// A large object written as it grows. Nothing is visible before the commit is done; an upload that is neither committed
// nor aborted at a crash leaves nothing that a reader could see. `append` may block for the disk: not on a server thread.
struct objstore_upload;
enum graft_status objstore_upload_begin(struct objstore *store, const char *key,
                                        struct objstore_upload **ret_upload, struct graft_error *err);
enum graft_status objstore_upload_append(struct objstore_upload *upload, struct bytes data,
                                         struct graft_error *err);
void objstore_upload_commit(struct objstore_upload *upload, objstore_done_fn *done,
                            void *context);                 // as create; frees it
void objstore_upload_abort(struct objstore_upload *upload); // NULL is fine

// Blocking forms, for start-up and tests. *ret_data has its cap from the caller.
enum graft_status objstore_get_wait(struct objstore *store, const char *key, uint64_t offset, size_t size_max,
                                    struct buffer *ret_data, struct graft_error *err);
enum graft_status objstore_create_wait(struct objstore *store, const char *key, struct bytes data,
                                       struct graft_error *err);
enum graft_status objstore_remove_wait(struct objstore *store, const char *key, struct graft_error *err);
// Calls `visit` for each entry, page by page; it returns false to stop.
enum graft_status objstore_list_wait(struct objstore *store, const char *prefix, const char *after,
                                     bool (*visit)(void *context, const struct objstore_entry *entry),
                                     void *context, struct graft_error *err);

// A copy of the whole store as it is at one moment, durable, at `path`, which must not exist; to be opened as a store of
// the same kind. It shares what it can with the store through hard links, so it costs a flush and little space. Blocks.
// INVALID where the store cannot; INTERNAL / NO_SPACE.
enum graft_status objstore_checkpoint(struct objstore *store, const char *path, struct graft_error *err);
// True: only this process can change the store, so what it remembers of it is the truth.
bool objstore_is_exclusive(const struct objstore *store);
// Creates a probe twice. INVALID / BAD_STORE if the second succeeds.
enum graft_status objstore_prove(struct objstore *store, struct graft_error *err);
// Waits for what is under way, then closes; not from a callback, and uploads are committed or aborted before. NULL is
// fine.
void objstore_close(struct objstore *store);
DEFINE_CLEANUP(struct objstore, objstore_close)

struct objstore_settings {
    struct metrics *metrics; // objstore_calls_total{store,op}, objstore_bytes_total, objstore_seconds
    // Called once, from any thread, when the store has failed for good (a failed sync or RocksDB write): the daemon ends.
    // It must not close the store itself.
    void (*on_fatal)(void *context, const struct graft_error *error);
    void *context;
    uint64_t disk_reserve; // creates are refused with NO_SPACE while less is free; 0: none
};

// "rocksdb:DIR", "fs:DIR", "mem:". INVALID for anything else; BUSY / LOCKED with the holder's pid.
enum graft_status objstore_open(const char *url, const struct objstore_settings *settings,
                                struct objstore **ret_store, struct graft_error *err);

// A wrapper for tests: fails, delays or loses the answers of chosen operations of `inner`, which it owns.
struct objstore_fault {
    const char *op;         // "get", "create", "replace", "remove", "list", "commit"; NULL: all
    const char *key_prefix; // NULL: all
    unsigned skip, count;   // after `skip` matching calls, the next `count`
    enum objstore_fault_kind {
        FAULT_ERROR,            // answers `error` and does nothing
        FAULT_LOST_ANSWER,      // does it and answers UNKNOWN
        FAULT_FORGET_EXCLUSIVE, // create overwrites: a store that must be refused
        FAULT_HOLD, // waits for objstore_faulty_release(), which must come before objstore_close()
    } kind;
    struct graft_error error;
};
enum graft_status objstore_faulty_open(struct objstore *inner, struct objstore **ret_store,
                                       struct graft_error *err);
void objstore_faulty_add(struct objstore *store, const struct objstore_fault *fault); // copied
void objstore_faulty_release(struct objstore *store);
unsigned objstore_faulty_fired(struct objstore *store);
void objstore_faulty_await(struct objstore *store,
                           unsigned count); // until so many have fired since it was opened

#endif
