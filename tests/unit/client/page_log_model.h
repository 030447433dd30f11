// SPDX-License-Identifier: Apache-2.0
//
// An owner of a page log, as the store is one: an index in memory that is durable up to what was kept with the claims, and
// beyond that by chance. Runs steps drawn from a seed and checks what every opening finds.
#ifndef TESTS_UNIT_CLIENT_PAGE_LOG_MODEL_H
#define TESTS_UNIT_CLIENT_PAGE_LOG_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct page_log_model_counts {
    unsigned commits, synced, failed, voided, groups, parts; // runs of commits in several
    unsigned openings, replayed, torn, lost; // torn: unsynced commits that were not found again
    unsigned full_disks, failed_syncs, killed, claims;
};

// In a new folder. `lossy`: an opening is after a power loss; otherwise after a kill. Aborts with the seed and the step where
// something is not as it should be.
void page_log_model_run(uint64_t seed, unsigned steps, bool lossy, struct page_log_model_counts *counts);

#endif
