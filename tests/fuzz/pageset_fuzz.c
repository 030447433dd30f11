// SPDX-License-Identifier: Apache-2.0
//
// Whatever decodes is canonical: it encodes to the very bytes that it came from, and the set that was built
// agrees with the runs on the wire.
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/pageset.h"

#define ALGEBRA_PAGES_MAX (1u << 24) // sets over more containers take milliseconds to copy
#define PROBED_RUNS 16               // rank and select walk the containers, so not all runs are tried

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_runs(const struct pageset *set, struct bytes wire)
{
    struct pageset_cursor cursor = pageset_cursor(set);
    struct page_run run, wire_run;
    size_t offset = 0;
    uint32_t last = 0;
    uint64_t count = 0;
    unsigned runs = 0;
    while (pageset_wire_next(wire, &offset, &last, &wire_run) > 0) {
        CHECK(pageset_next_run(&cursor, &run));
        CHECK(run.first == wire_run.first && run.count == wire_run.count);
        if (runs++ < PROBED_RUNS) {
            uint32_t pageidx;
            CHECK(pageset_rank(set, run.first) == count);
            CHECK(pageset_select(set, count, &pageidx) && pageidx == run.first);
            CHECK(!pageset_contains(set, run.first - 1));
        }
        count += run.count;
    }
    CHECK(!pageset_next_run(&cursor, &run));
    CHECK(pageset_count(set) == count);
    CHECK(pageset_max(set) == last);
}

static void check_algebra(const struct pageset *set)
{
    _cleanup_(pageset_free_p) struct pageset *low = pageset_copy(set);
    _cleanup_(pageset_free_p) struct pageset *high = pageset_copy(set);
    uint32_t middle = pageset_min(set) + (pageset_max(set) - pageset_min(set)) / 2;
    pageset_remove_above(low, middle);
    pageset_subtract(high, low);
    CHECK(pageset_is_subset(low, set) && pageset_is_subset(high, set));
    CHECK(!pageset_intersects(low, high));
    CHECK(pageset_count(low) + pageset_count(high) == pageset_count(set));
    pageset_union(low, high);
    CHECK(pageset_equal(low, set));
    pageset_intersect(low, high);
    CHECK(pageset_equal(low, high));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes wire = {data, size};
    struct graft_error err;
    _cleanup_(pageset_free_p) struct pageset *set = NULL;
    if (pageset_decode(wire, PAGESET_RUNS_MAX, "fuzz", &set, &err) != GRAFT_OK) {
        CHECK(!set);
        CHECK(err.status == GRAFT_INVALID || err.status == GRAFT_LIMIT);
        return 0;
    }
    _cleanup_(buffer_release) struct buffer again = BUFFER_INIT(size);
    CHECK(pageset_encode(set, &again, NULL) == GRAFT_OK);
    CHECK(again.size == size && (size == 0 || memcmp(again.data, data, size) == 0));
    check_runs(set, wire);
    if (pageset_max(set) <= ALGEBRA_PAGES_MAX)
        check_algebra(set);
    return 0;
}
