// SPDX-License-Identifier: Apache-2.0
//
// What a simulated client writes. Every page says who wrote it, as their how manieth, and carries a hash of itself.
//
//     bank      accounts, one a page; a transfer changes two, their total never changes. Behind them a ledger with a
//               row for each push that was acknowledged: its LSN and token.
//     register  a few random pages at a time, of any size
//     writers   the same on few pages, pushed after every commit or two: for several clients on one volume. Sometimes all
//               that was not pushed is dropped, whether a push is under way or not.
//     family    the same by clients that fork volumes, end them and go from one to another (roam.h)
//     grow      random pages and truncations, also several in one commit
//     bulk      a few pages and truncations; one commit in twelve writes all pages, which is enough for a segment of its own
#ifndef TESTS_SIM_WORKLOAD_H
#define TESTS_SIM_WORKLOAD_H

#include "client/client.h"
#include "common/base/checksum.h"
#include "common/base/random.h"
#include "tests/sim/recorder.h"

#define SIM_PAGES_MAX 400u
#define SIM_PAGE_SIZE_MAX 4096u

enum step {
    STEP_COMMIT,
    STEP_PUSH,
    STEP_PULL,
    STEP_READ,
    STEP_PAST,
    STEP_RESET,
    STEP_FORK,
    STEP_DELETE,
    STEP_VISIT,
    STEP_COUNT
};

struct workload;
struct change;
struct author {
    const struct workload *load;
    struct rng *rng;
    uint32_t number;        // what workload_write_one() and workload_cut() are to do
    uint64_t run;           // names this process
    uint64_t sequence;      // of the pages that it wrote
    struct landed entered;  // the last push that has a row in the ledger
    struct landed entering; // that will have one with the next commit
};

struct workload {
    const char *name;
    uint32_t page_size;
    enum graft_volume_kind kind;
    uint32_t pages;
    unsigned weights[STEP_COUNT];
    enum graft_status (*first)(struct author *author, struct change *change, struct graft_error *err);
    enum graft_status (*next)(struct author *author, struct change *change, struct graft_error *err);
    // What else a read of the whole volume says, from its pages; may be NULL.
    void (*inspect)(struct line *line, const uint8_t *pages, const size_t *sizes, uint32_t page_count);
};

const struct workload *workload_find(const char *name); // NULL: unknown

// Commits of their own for scripts: one page, one truncation.
enum graft_status workload_write_one(struct author *author, struct change *change, struct graft_error *err);
enum graft_status workload_cut(struct author *author, struct change *change, struct graft_error *err);

// True if a page that was read is as its author made it.
bool workload_page_is_whole(uint32_t pageidx, const uint8_t *page, size_t size);

// ---- a local commit as it is made: through these, what it does is known to the history

struct written {
    uint32_t pageidx;
    uint32_t size;
    struct hash128 hash;
};
struct change {
    struct graft_writer *writer;
    uint32_t page_count;
    uint32_t cut; // the lowest page_count within the commit
    struct written written[SIM_PAGES_MAX];
    size_t count;
};
enum graft_status change_write(struct change *change, uint32_t pageidx, const void *data, size_t size,
                               struct graft_error *err);
enum graft_status change_truncate(struct change *change, uint32_t page_count, struct graft_error *err);

#endif
