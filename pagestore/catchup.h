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

struct catchup;

// `reserve` watches the disk of the index, and outlives the catch-up.
enum graft_status catchup_new(struct page_index *index, const char *metastore_url,
                              struct disk_reserve *reserve, struct metrics *metrics,
                              struct catchup **ret_catchup, struct graft_error *err);
// Ends what is under way and refuses what comes later: all waits are answered with CANCELLED / STOPPING.
void catchup_stop(struct catchup *catchup);
// Stops it if it was not. NULL is fine.
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

// A commit whose segment is missing, to be read again: its references may name other segments by now. Embedded in who
// waits, belongs to the catch-up from catchup_reread() until `done` runs. Waits for one commit share one call.
struct reread_wait {
    struct index_volume *volume; // held by the caller
    uint64_t lsn;                // of the commit
    struct gid sid, owner;       // where the index says that it filed the page
    uint32_t pageidx;
    // Exactly once, from catchup_reread() itself or on another thread; never blocks. OK: the commit was read, see `moved`.
    // GONE: it is no longer kept, or the volume was deleted. CORRUPT / CHAIN_MISMATCH: the metastore has another history.
    // UNAVAILABLE: it could not be asked, or the volume's index is being rebuilt.
    void (*done)(struct reread_wait *wait, const struct graft_error *error);
    bool moved; // the commit does not file the page there any more; the index was changed accordingly

    TAILQ_ENTRY(reread_wait) link; // the catch-up's
};
void catchup_reread(struct catchup *catchup, struct reread_wait *wait);

#endif
