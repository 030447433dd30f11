// SPDX-License-Identifier: Apache-2.0
//
// What the connections of a process share: its clients (one for a data directory, nearly always one), their volumes, who
// writes each of them, and which paths are volumes of ours.
//
//     runtime_acquire ─▶ runtime_volume ─▶ (reading, writing) ─▶ shared_unref ─▶ runtime_unref
//
// A client opens with the first database and closes with the last. Threads: any. Locks: `opening`, held while a data
// directory is opened or closed, then `lock`, held for moments; never across the network.
#ifndef SQLITE_RUNTIME_H
#define SQLITE_RUNTIME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/include/graft.h"
#include "common/base/compiler.h"
#include "common/base/error.h"
#include "common/base/options.h"

struct settings {
    const char *data;
    const char *metastore;
    const char *pagestore;
    const char *durability;
    uint64_t deadline_ms;
    uint64_t cache_limit;
    bool autosync;
    bool make_default;
    bool stubs;
    const char *config;
};

struct shared;

struct runtime {
    char *folder; // data directory/sqlite, absolute: super-journals and temporary files lie there
    struct graft *client;
    bool autosync;
    unsigned forks;              // of this process's ancestors when it was opened
    unsigned refs;               // lock
    LIST_HEAD(, shared) shareds; // lock
    LIST_ENTRY(runtime) link;    // lock
};

// A volume, for all handles of it.
struct shared {
    struct runtime *runtime;
    char vid[GRAFT_VID_SIZE];
    // NULL and 0 as long as the volume was only named: it is made by its first commit, with the page size that SQLite
    // chose. They are set once, by who has the writer's slot.
    _Atomic(struct graft_volume *) volume;
    atomic_uint page_size;
    atomic_bool autosync;  // background sync runs, or will once the volume is made
    atomic_bool undecided; // a commit on several databases could not be finished: nothing is read any more
    const void *writer;    // lock; the handle that has the slot
    unsigned refs;         // lock
    LIST_ENTRY(shared) link;
};

// One-time initialisation; `host` is not read here.
void runtime_init(void);

// Parses environment, configuration file and the parameters that follow the name (as SQLite passes names to xOpen; NULL:
// none). Release with options_release().
enum graft_status settings_read(const char *name, struct settings *ret_settings, struct options *ret_options,
                                struct graft_error *err);
// The value of a URI parameter of a name as SQLite passes it, NULL if it is not there.
const char *uri_parameter(const char *name, const char *key);

bool settings_flag(const char *value); // "0", "no", "off" and "false" are false

// The folder in which names of volumes appear as files; the caller's to free(). Nothing is made or opened. A name that is
// not told its data directory means the one that the process has open already, if there is one.
enum graft_status runtime_folder(const char *name, const struct settings *settings, char **ret_folder,
                                 struct graft_error *err);
// Is there a file for a tag of that name? Nothing is opened.
bool runtime_has_tag(const char *folder, const char *tag);
// Opens the data directory, or takes part in it. BUSY / LOCKED if another process has it.
enum graft_status runtime_acquire(const char *name, const struct settings *settings,
                                  struct runtime **ret_runtime, struct graft_error *err);
void runtime_unref(struct runtime *runtime); // NULL is fine
DEFINE_CLEANUP(struct runtime, runtime_unref)
// A process that came from the one that opened it has nothing to do here.
bool runtime_is_forked(const struct runtime *runtime);

// Names a volume that does not exist yet.
void runtime_name_fresh(char ret_vid[GRAFT_VID_SIZE]);
// Remembers, durably, that this VID is of a volume that will be made here: for names that outlive the process.
enum graft_status runtime_keep_fresh(struct runtime *runtime, const char *vid, struct graft_error *err);
// [network, if it is not here] The volume, from now on held by `ret_shared`, which holds the runtime.
enum graft_status runtime_volume(struct runtime *runtime, const char *vid, struct shared **ret_shared,
                                 struct graft_error *err);
void shared_unref(struct shared *shared); // NULL is fine
DEFINE_CLEANUP(struct shared, shared_unref)
// Makes a volume that was only named. For who has the slot.
enum graft_status shared_make(struct shared *shared, uint32_t page_size, struct graft_error *err);

// Starts or stops background sync of this volume, for as long as it is open.
enum graft_status shared_set_autosync(struct shared *shared, bool on, struct graft_error *err);

// The slot of the one writer.
bool shared_take_slot(struct shared *shared, const void *owner);
void shared_give_slot(struct shared *shared, const void *owner);
bool shared_slot_is_taken(struct shared *shared);

// ---- paths of open volumes

// Counted, by path. False: no memory.
bool paths_add(const char *path, const struct runtime *runtime);
void paths_remove(const char *path);
// Is it the journal or the write-ahead log of an open volume?
bool paths_is_journal(const char *path);
// The folder that it spills into, NULL if it is of no open volume. Lives as long as the volume is open.
const char *paths_folder_of_journal(const char *path);

#endif
