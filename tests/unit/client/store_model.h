// SPDX-License-Identifier: Apache-2.0
//
// A volume's two histories, the servers' and the local one, as plain arrays, and random steps that take a
// local store and the model the same way. A step depends on the model, the seed and the step's number only,
// so that a process that was killed can be followed by one that knows what it was doing.
#ifndef TESTS_UNIT_CLIENT_STORE_MODEL_H
#define TESTS_UNIT_CLIENT_STORE_MODEL_H

#include "client/store.h"
#include "common/base/random.h"

#define MODEL_PAGES 24u
#define MODEL_PAGE_SIZE 512u
#define MODEL_LSN_MAX 1200u
#define MODEL_PINS 4u

struct model_cell {
    uint32_t tag; // 0: never written
    bool local;   // written here: the bytes must be here
};

struct model_image {
    uint32_t page_count;
    struct model_cell cells[MODEL_PAGES + 1];
};

struct model_commit {
    struct model_image image;
    bool touched[MODEL_PAGES + 1]; // written
    uint32_t cut;
};

struct model {
    uint64_t seed;
    struct model_commit remote[MODEL_LSN_MAX];
    uint64_t remote_head;
    struct model_commit local[MODEL_LSN_MAX];
    uint64_t local_head;
    uint64_t mapped_lsn, mapped_remote;
    enum store_push_phase phase;
    uint64_t push_to;
    bool rejected;
    uint32_t tag;
};

// Where the steps run. `store` NULL: in the model alone.
struct model_run {
    struct model *model;
    struct store *store;
    struct store_volume *volume;
    struct store_pin *pins[MODEL_PINS];
    bool here[MODEL_PAGES + 1][MODEL_LSN_MAX]; // fetched, by page and mark
    struct rng rng;                            // of what the model does not depend on: reads, fetches, pins
    uint64_t conflicts, staged, commits, pulls, pushes, fences, resets,
        fetches; // that happened: tests have floors
};

struct gid model_vid(void);
// The volume as its first step finds it: cloned from 8 pages of the servers.
void model_begin(struct model *model, uint64_t seed);
void model_clone(struct model_run *run);
void model_attach(struct model_run *run); // opens the volume
void model_detach(struct model_run *run); // releases pins and volume

// One step, in the model and (if there is one) the store.
void model_step(struct model_run *run, uint64_t number);
bool model_is_full(const struct model *model); // no room for another step
// Does the store's state say what the model's does?
bool model_state_matches(const struct model *model, const struct store_state *state);

// Reads every page at the head and at all pins and compares; sometimes fetches what is missing. Compares
// counts and store_missing() with what the reads said.
void model_check(struct model_run *run);
void model_repin(struct model_run *run); // opens or releases a pin

#endif
