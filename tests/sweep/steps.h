// SPDX-License-Identifier: Apache-2.0
//
// The steps of a workload over libgraft. A step is done once, whatever happens to the process: one that is in doubt is looked
// into before it is done again. What was done and read stands in the history (journal.h), and the checker says whether it is
// right; here it is only whether each call ends as it must.
#ifndef TESTS_SWEEP_STEPS_H
#define TESTS_SWEEP_STEPS_H

#include <stdbool.h>
#include <stdint.h>

#define CLIENTS_MAX 8u
#define VOLUMES_MAX 12u

struct steps_settings {
    const char *folder; // data directories lie in it, one a client
    const char *metastore, *pagestore;
    uint64_t seed;
};
void steps_begin(const struct steps_settings *settings);
// Closes the clients; the next step opens what it needs.
void steps_close(void);

void step_create(unsigned client, unsigned volume, uint32_t page_size);
// One commit: cuts the volume to `keep` pages first (UINT32_MAX: does not), then writes `count` pages from `first` on.
void step_commit(unsigned client, unsigned volume, uint32_t keep, uint32_t first, uint32_t count);
// One commit that is prepared and decided by a file. `late`: the process finds it decided when it opens the directory.
void step_commit_prepared(unsigned client, unsigned volume, uint32_t first, uint32_t count, bool late);
void step_push(unsigned client, unsigned volume);
void step_push_rejected(unsigned client, unsigned volume); // somebody else pushed first
void step_push_offline(unsigned client, unsigned volume);  // with no server: begins and goes no further
// Against a metastore that is not there: the commit is ready to be sent, and stays so.
void step_push_unanswered(unsigned client, unsigned volume);
// The same, with segments that are gone when the commit is sent.
void step_push_late(unsigned client, unsigned volume);
void step_reattach_unanswered(unsigned client, unsigned volume);
// Drops an unanswered push: a void commit takes its place.
void step_reattach(unsigned client, unsigned volume);
// A new volume, `fork`, of what the client has, unpushed commits included.
void step_fork(unsigned client, unsigned volume, unsigned fork);
void step_pull(unsigned client, unsigned volume);
void step_reset(unsigned client, unsigned volume);
void step_clone(unsigned client, unsigned volume);
// A push that another client sees happen.
void step_watch_push(unsigned client, unsigned pusher, unsigned volume);
void step_forget(unsigned client, unsigned volume);
void step_delete_remote(unsigned client, unsigned volume);
// Writes more than a writer keeps in memory, cuts some of it off again, and gives up.
void step_give_up(unsigned client, unsigned volume, uint32_t pages);
// Reads every page. No step of the ledger's.
// What the client may keep of fetched pages, below CACHE_LIMIT_MIB.
void step_limit(unsigned client, unsigned limit_mib);
void step_tidy(unsigned client); // until the store's thread has made the space that it can; not in the ledger
void step_read(unsigned client, unsigned volume);

#endif
