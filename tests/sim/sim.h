// SPDX-License-Identifier: Apache-2.0
//
// What the parts of the simulated client share: one client, the volume that it is at, and operations that are in the
// history.
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "tests/sim/workload.h"

struct sim {
    const struct workload *load;
    const char *name, *log, *script;
    const char *vid; // the volume that it was started with
    uint64_t seed, steps;
    unsigned think_us;
    bool create, reader, sync, settle, calm, normal, reattach;
    struct graft_settings settings;

    struct graft *client;
    struct graft_volume *volume;
    struct rng rng;
    struct author author;
    uint64_t operation;
    bool offline; // the last operation met no server
    bool broken;  // going on makes no sense
    bool cloned;  // while it is opened: it was not here
    bool deleted; // the servers said so of the volume that it is at
};

// Each line of an operation names its number. `volume` may be NULL: then the line names none.
uint64_t sim_invoke(struct sim *sim, const char *op);
// For operations whose result is the volume's state.
enum graft_status sim_complete(struct sim *sim, const char *op, uint64_t id, enum graft_status status,
                               const struct graft_error *err);
void sim_note_failure(struct sim *sim, const struct graft_error *err);

// Opens the volume, or clones it; NULL: makes one. The client is opened with the first one.
enum graft_status sim_open_volume(struct sim *sim, const char *vid, struct graft_error *err);
// The whole volume at the local head, or some pages of an earlier commit of the servers.
enum graft_status sim_read(struct sim *sim, bool past, struct graft_error *err);

#endif
