// SPDX-License-Identifier: Apache-2.0
//
// The client's local store as a victim of power losses:
//     store_victim DIRECTORY SEED DONE
// DONE steps of the model (tests/unit/client/store_model.h) were acknowledged before the power failed; 0 also where the
// volume may not have been made. Opens the store, checks that it is what the model is after that many steps or after the
// one that was under way, and goes on with the next, until the power fails again. Lines on stdout:
//     at N       the store was found as after N steps, and shown to be
//     did N      N steps are acknowledged
//     stopped    a write or sync failed, the store said so and is closed; the power fails here
// Exits with 4 where the store is not what it should be.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/client/store_fixture.h"
#include "tests/unit/client/store_model.h"

static void say(const char *what, uint64_t number)
{
    printf("%s %llu\n", what, (unsigned long long)number);
    fflush(stdout);
}

__attribute__((weak)) void powerloss_now(void);

static struct model_run *the_run;

// A store that has failed fails every call from then on; so what went wrong is the failed sync, wherever it showed.
static bool stopped_by_a_failure(const char *message)
{
    struct graft_error err = {.message = ""};
    const char *planned = getenv("POWERLOSS_FAIL_SYNC");
    if (!planned || strcmp(planned, "0") == 0)
        return false;
    return the_run->volume ? store_note_remote(the_run->volume, UINT64_MAX, &err) == GRAFT_INTERNAL
                           : strstr(message, "Input/output error") != NULL;
}

// This program is no test of Criterion's, which has nobody to tell of a failed assertion.
void criterion_send_assert(struct criterion_assert_stats *stats)
{
    if (stats->passed)
        return;
    if (stopped_by_a_failure(stats->message)) {
        say("stopped", 0);
        powerloss_now();
    }
    fprintf(stderr, "%s:%u: %s\n", stats->file, stats->line, stats->message);
    _exit(4);
}

static void open_volume(struct model_run *run, uint64_t done)
{
    struct gid vid = model_vid();
    struct graft_error err;
    enum graft_status status = store_volume_open(run->store, &vid, &run->volume, &err);
    if (status == GRAFT_NOT_FOUND && done == 0)
        model_clone(run);
    else
        expect_status_(GRAFT_OK, status, &err, __FILE__, __LINE__);
}

// The steps that the store has; it may have one more than were acknowledged.
static uint64_t find_place(struct model_run *run, uint64_t done)
{
    struct store_state state;
    store_volume_state(run->volume, &state);
    if (!model_state_matches(run->model, &state)) {
        struct store *store = TAKE(run->store);
        model_step(run, done++);
        run->store = store;
    }
    return done;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    // Small, so that tables are flushed and joined within a run.
    struct store_settings settings = {.directory = argv[1],
                                      .memory_size = STORE_MEMORY_MIN,
                                      .writer_memory_size = 1400,
                                      .batch_entries = 3};
    uint64_t seed = strtoull(argv[2], NULL, 10), done = strtoull(argv[3], NULL, 10);
    struct model *model = calloc(1, sizeof *model);
    struct model_run *run = calloc(1, sizeof *run);
    model_begin(model, seed);
    run->model = model;
    the_run = run;
    rng_seed(&run->rng, seed + done);
    for (uint64_t step = 0; step < done; step++)
        model_step(run, step);
    expect_ok(store_open(&settings, &run->store, &err));
    open_volume(run, done);
    done = find_place(run, done);
    model_check(run);
    say("at", done);
    while (!model_is_full(model)) {
        model_step(run, done);
        say("did", ++done);
        if (done % 16 == 0)
            model_check(run);
    }
    model_detach(run);
    store_close(run->store);
    free(run);
    free(model);
    return 0;
}
