// SPDX-License-Identifier: Apache-2.0
//
// The volumes in use: each one's head, kept in memory, and the queue of those who want to move it.
//
// A volume is loaded from the store when first asked for and stays while somebody holds a reference; of the
// others the least recently used go when the table is full.
//
// Invariants:
//   1. `head` is durable: it moves only after the create of the commit at head+1 was answered OK, or that
//      commit was read back. So every answer that is made from it is made from durable state.
//   2. Only the holder of the volume's turn moves the head. There is one turn; the others wait in order of
//      arrival.
//   3. In a store that others can write as well, `head` may lag behind the truth. volume_table_get() with
//      `fresh` reads on first; a commit finds out by losing the race for its LSN.
//
// Thread-safe. Callbacks run without any lock held, on the caller's thread or on a thread of the store.
#ifndef METASTORE_VOLUME_H
#define METASTORE_VOLUME_H

#include <sys/queue.h>

#include "common/base/metrics.h"
#include "metastore/volume_load.h"

struct volume;
struct volume_table;

struct volume_table_settings {
    struct objstore *store;
    bool shared; // others write to the store too
    struct metrics *metrics;
    unsigned volumes_max;
    // A head moved, or became known (`loaded`). In order for each volume.
    void (*on_head)(void *context, const struct snapshot *head, bool loaded);
    void *context;
};

struct volume_table *volume_table_new(const struct volume_table_settings *settings);
// Waits for the loads under way and for every reference to come back. NULL is fine.
void volume_table_free(struct volume_table *table);
DEFINE_CLEANUP(struct volume_table, volume_table_free)

// Embedded in what waits for a volume.
struct volume_wait {
    // Comes once. `volume` is a reference for the callee to give back, NULL on failure: NOT_FOUND /
    // NO_SUCH_VOLUME, UNAVAILABLE / OVERLOADED when every volume of a full table is in use, CORRUPT, or what
    // the store said.
    void (*ready)(struct volume_wait *wait, struct volume *volume, const struct graft_error *error);
    bool fresh;                     // look for commits that others made meanwhile, where there can be any
    STAILQ_ENTRY(volume_wait) link; // the table's
};

void volume_table_get(struct volume_table *table, const struct gid *vid, struct volume_wait *wait);
struct volume *volume_ref(struct volume *volume);
void volume_unref(struct volume *volume); // NULL is fine

// ---- one volume

// A consistent copy of all that is known.
void volume_get_state(struct volume *volume, struct volume_state *ret_state);
struct snapshot volume_head(struct volume *volume);
struct snapshot snapshot_of(const struct volume_record *record, const struct commit_facts *commit);

// The right to move the head, one at a time.
struct volume_turn {
    void (*run)(struct volume_turn *turn); // the turn has come; ends with volume_turn_end()
    TAILQ_ENTRY(volume_turn) link;         // the volume's
};
// `run` comes now or later, on any thread. UNAVAILABLE / OVERLOADED when VOLUME_QUEUE_MAX wait already.
enum graft_status volume_turn_begin(struct volume *volume, struct volume_turn *turn, struct graft_error *err);
void volume_turn_end(struct volume *volume);

// The turn's holder: the commit after the head is durable.
void volume_advance(struct volume *volume, const struct commit_facts *commit);
// The turn's holder: takes what volume_read_on() found.
void volume_update(struct volume *volume, const struct volume_state *state);

#endif
