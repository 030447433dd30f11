// SPDX-License-Identifier: Apache-2.0
//
// The clients of a workload, its volumes, and who has a replica of which. What is in them only the checker knows.
#ifndef TESTS_SWEEP_REPLICAS_H
#define TESTS_SWEEP_REPLICAS_H

#include "tests/sweep/journal.h"
#include "tests/sweep/ledger.h"
#include "tests/sweep/steps.h"

#define PAGE_SIZE_MAX 65536u
#define CACHE_LIMIT_MIB 12u // of what is fetched; step_limit() lowers it
#define DEAD_METASTORE "http://127.0.0.1:1"

struct volume {
    char vid[GRAFT_VID_SIZE];
    uint32_t page_size;
    bool here[CLIENTS_MAX];
    bool deleted; // on the servers
};
struct volume *volume_of(unsigned volume);
// A volume whose making was never acknowledged may be here all the same. False: there is none.
bool volume_find_stranger(unsigned client, char ret_vid[GRAFT_VID_SIZE]);

uint64_t steps_seed(void);
// While it lags, the pagestore's clock is late (lagging_clock.c).
void steps_let_pagestore_lag(bool lag);

enum reach {
    REACH_ALL,
    REACH_NOBODY,
    REACH_PAGESTORE, // and a metastore that is not there
};
struct graft *client_of(unsigned client);
void client_close(unsigned client);
void client_open(unsigned client, enum reach reach);

struct graft_volume *replica_open(unsigned client, unsigned volume);
struct graft_volume_info replica_info(struct graft_volume *opened);
// Reads every page of the local head.
void replica_read(unsigned client, unsigned volume);

// What comes before a step. Where an earlier process died in it, all other replicas are read first: what was acknowledged is
// there before the step is touched.
void replicas_before_step(unsigned client, unsigned volume);

// A call is made again while a daemon is away.
struct attempts {
    uint64_t deadline_ms;
};
struct attempts attempts_begin(void);
// True: make the call again. Ends the process where it can have no good end.
bool attempts_again(const struct attempts *attempts, const char *what, const struct graft_error *err);

#endif
