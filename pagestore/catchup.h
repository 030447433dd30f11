// SPDX-License-Identifier: Apache-2.0
//
// Keeps the page-version index as far along as its readers need: whoever reads at an LSN beyond the applied one waits until
// the missing commits have come from the metastore and are applied. One catch-up per volume at a time; those that come
// meanwhile wait for it. A wait is answered after CATCHUP_WAIT_MS at the latest, the catch-up goes on.
//
// The commits arrive and are applied on one thread, that of the catch-up's own HTTP client: it is the index's only writer.
#ifndef PAGESTORE_CATCHUP_H
#define PAGESTORE_CATCHUP_H

#include <stdint.h>
#include <sys/queue.h>

#include "common/base/checksum.h"
#include "common/base/metrics.h"
#include "common/base/timer.h"
#include "common/store/disk_reserve.h"
#include "pagestore/page_index.h"

#define CATCHUP_WAIT_MS 5000u

struct catchup;

// `reserve` watches the disk of the index, and outlives the catch-up.
enum graft_status catchup_new(struct page_index *index, const char *metastore_url, struct disk_reserve *reserve,
                              struct metrics *metrics, struct catchup **ret_catchup, struct graft_error *err);
// Ends what is under way: its waits are answered with CANCELLED / STOPPING first. NULL is fine.
void catchup_free(struct catchup *catchup);

// A wait, embedded in who waits: belongs to the catch-up from catchup_wait() until `done` runs.
struct catchup_wait {
    struct index_volume *volume; // held by the caller
    uint64_t lsn;                // the LSN asked for, and its chain
    struct hash128 chain;
    // Exactly once, from catchup_wait() itself or on another thread; never blocks. OK: the index has applied `lsn`, with
    // that chain. NOT_FOUND / BEYOND_HEAD or NO_SUCH_VOLUME; GONE; CORRUPT / CHAIN_MISMATCH where the metastore's history
    // is not the reader's; UNAVAILABLE / BEHIND with the progress; UNAVAILABLE without the metastore.
    void (*done)(struct catchup_wait *wait, const struct graft_error *error);

    // The catch-up's.
    struct catchup *catchup;
    struct catching *catching;
    struct timer timer;
    TAILQ_ENTRY(catchup_wait) link;
};
void catchup_wait(struct catchup *catchup, struct catchup_wait *wait);

#endif
