// SPDX-License-Identifier: Apache-2.0
//
// Random histories against the model: commits, truncations, pulls, pushes, resets, fetches, pins and
// reopening.
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/unit/client/store_fixture.h"
#include "tests/unit/client/store_model.h"

static void reopen(struct store_fixture *fixture, struct model_run *run)
{
    model_detach(run);
    fixture_close(fixture);
    fixture_open(fixture);
    run->store = fixture->store;
    model_attach(run);
}

static void run_history(uint64_t seed, unsigned steps)
{
    struct store_fixture fixture = {.settings = {.batch_entries = 2 + (unsigned)(seed % 3) * 3}};
    // A writer that stages after two pages, one that sometimes does, one that never does.
    fixture.settings.writer_memory_size = (uint64_t[]){1400, 4000, 0}[seed % 3];
    fixture_begin(&fixture);
    struct model *model = calloc(1, sizeof *model);
    struct model_run *run = calloc(1, sizeof *run);
    model_begin(model, seed);
    run->model = model;
    run->store = fixture.store;
    rng_seed(&run->rng, seed);
    model_clone(run);
    for (unsigned step = 0; step < steps && !model_is_full(model); step++) {
        model_step(run, step);
        model_check(run);
        if (rng_below(&run->rng, 3) == 0)
            model_repin(run);
        if (rng_below(&run->rng, 40) == 0)
            reopen(&fixture, run);
    }
    cr_log_info("commits %lu pulls %lu pushes %lu resets %lu conflicts %lu fetches %lu", run->commits,
                run->pulls, run->pushes, run->resets, run->conflicts, run->fetches);
    cr_expect_gt(run->commits, steps / 10);
    cr_expect_gt(run->pulls, steps / 100);
    cr_expect_gt(run->pushes, steps / 100);
    cr_expect_gt(run->resets, steps / 100);
    cr_expect_gt(run->fences, steps / 1000);
    cr_expect_gt(run->conflicts, steps / 100);
    cr_expect_gt(run->fetches, steps / 10);
    model_detach(run);
    free(run);
    free(model);
    fixture_end(&fixture);
}

#define HISTORY_STEPS 600

Test(store_model, follows_random_histories_with_much_staging)
{
    run_history(3, HISTORY_STEPS);
    run_history(6, HISTORY_STEPS);
}

Test(store_model, follows_random_histories_with_some_staging)
{
    run_history(4, HISTORY_STEPS);
    run_history(7, HISTORY_STEPS);
}

Test(store_model, follows_random_histories_without_staging)
{
    run_history(5, HISTORY_STEPS);
    run_history(8, HISTORY_STEPS);
}
