// SPDX-License-Identifier: Apache-2.0
//
// A simulated client that has many volumes: it forks the one that it is at, ends volumes for everybody (but never the one
// that it was started with), forgets replicas, and goes to others, its own or whatever the servers list.
#ifndef TESTS_SIM_ROAM_H
#define TESTS_SIM_ROAM_H

#include "tests/sim/sim.h"

#define ROAM_VOLUMES_MAX 8u // on the servers: then nobody forks

enum graft_status roam_fork(struct sim *sim, struct graft_error *err);
enum graft_status roam_delete(struct sim *sim, struct graft_error *err);
// Forgets the replica of the volume that it is at, and goes to the first one.
enum graft_status roam_forget(struct sim *sim, struct graft_error *err);
// Goes to another volume, or the first one where that cannot be opened.
enum graft_status roam_visit(struct sim *sim, struct graft_error *err);

// Those of the data directory, at most `max`. *ret_count is how many.
enum graft_status roam_list(struct sim *sim, char (*vids)[GRAFT_VID_SIZE], size_t max, size_t *ret_count,
                            struct graft_error *err);

#endif
