// SPDX-License-Identifier: Apache-2.0
//
// Random commits, applied late and out of order, voids, full and failing disks, and openings after kills and power losses: what
// was acknowledged is there, what failed or was taken back is not, everything else is there whole or not at all.
#include <criterion/criterion.h>

#include "common/base/compiler.h"
#include "tests/unit/client/page_log_model.h"

// Fewer where each takes long.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SEEDS 4
#else
#define SEEDS 30
#endif

static void show(const struct page_log_model_counts *counts)
{
    cr_log_info(
        "%u commits (%u synced, %u failed, %u taken back, %u groups, %u in parts), %u openings: %u replayed, "
        "%u not found; %u full disks, %u failed syncs, %u pages killed, %u claims",
        counts->commits, counts->synced, counts->failed, counts->voided, counts->groups, counts->parts,
        counts->openings, counts->replayed, counts->torn, counts->full_disks, counts->failed_syncs,
        counts->killed, counts->claims);
    cr_assert(counts->commits > 30 * SEEDS && counts->synced > 10 * SEEDS && counts->failed &&
              counts->voided);
    cr_assert(counts->groups > SEEDS && counts->parts > SEEDS && counts->replayed > SEEDS &&
              counts->claims > SEEDS);
}

Test(page_log_model, holds_over_kills)
{
    struct page_log_model_counts counts = {0};
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        page_log_model_run(seed, 150, false, &counts);
    show(&counts);
}

Test(page_log_model, holds_over_power_losses)
{
    struct page_log_model_counts counts = {0};
    for (uint64_t seed = 1001; seed <= 1000 + SEEDS; seed++)
        page_log_model_run(seed, 150, true, &counts);
    show(&counts);
    cr_assert_gt(counts.torn, SEEDS / 2);
}
