// SPDX-License-Identifier: Apache-2.0
//
// kill -9 at random moments, also while large commits and pulls are being staged: afterwards the store is
// what it was after the last step that was acknowledged, or after the one that was under way, and nothing
// else.
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/client/store_fixture.h"
#include "tests/unit/client/store_model.h"

#ifndef STORE_CRASHER
#error "the build names the program that is killed"
#endif

// Starts it, reads acknowledgements until there are `acks_min`, waits a moment more, kills it. How many there
// were.
static uint64_t run_until_killed(const char *directory, uint64_t seed, uint64_t from, uint64_t acks_min,
                                 long wait_ns, const char *durability)
{
    int pipe_fds[2];
    cr_assert_eq(pipe(pipe_fds), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        char seed_text[24], from_text[24];
        snprintf(seed_text, sizeof seed_text, "%lu", seed);
        snprintf(from_text, sizeof from_text, "%lu", from);
        dup2(pipe_fds[1], STDOUT_FILENO);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        execl(STORE_CRASHER, STORE_CRASHER, directory, seed_text, from_text, durability, (char *)NULL);
        _exit(127);
    }
    close(pipe_fds[1]);
    uint64_t acks = 0;
    char bytes[64];
    ssize_t size = 0;
    while (acks < acks_min && (size = read(pipe_fds[0], bytes, sizeof bytes)) > 0)
        acks += (uint64_t)size;
    nanosleep(&(struct timespec){.tv_nsec = wait_ns}, NULL);
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the killed program had ended with %d",
              status);
    while ((size = read(pipe_fds[0], bytes, sizeof bytes)) > 0)
        acks += (uint64_t)size;
    close(pipe_fds[0]);
    return acks;
}

static void check_store(struct store_fixture *fixture, struct model_run *run, uint64_t *step)
{
    fixture_open(fixture);
    run->store = fixture->store;
    model_attach(run);
    struct store_state state;
    store_volume_state(run->volume, &state);
    if (!model_state_matches(run->model, &state)) {
        // The step under way had landed, but its acknowledgement had not.
        struct store *store = TAKE(run->store);
        model_step(run, (*step)++);
        run->store = store;
    }
    memset(run->here, 0, sizeof run->here);
    model_check(run);
    model_detach(run);
    fixture_close(fixture);
    run->store = NULL;
}

// `durability`: "normal", or NULL.
static void crash_often(uint64_t seed, unsigned rounds, const char *durability)
{
    struct store_fixture fixture = {.settings = {.writer_memory_size = 1400, .batch_entries = 3}};
    fixture_begin(&fixture);
    struct model *model = calloc(1, sizeof *model);
    struct model_run *run = calloc(1, sizeof *run);
    model_begin(model, seed);
    run->model = model;
    run->store = fixture.store;
    rng_seed(&run->rng, seed);
    model_clone(run);
    model_detach(run);
    fixture_close(&fixture);
    run->store = NULL;

    uint64_t step = 0;
    for (unsigned round = 0; round < rounds && !model_is_full(model); round++) {
        uint64_t acks = run_until_killed(fixture.directory, seed, step, rng_below(&run->rng, 12),
                                         (long)rng_below(&run->rng, 3000000), durability);
        for (uint64_t i = 0; i < acks; i++)
            model_step(run, step++);
        check_store(&fixture, run, &step);
    }
    cr_expect_gt(step, rounds * 3);
    free(run);
    free(model);
    fixture_open(&fixture);
    fixture_end(&fixture);
}

Test(store_crash, leaves_whole_steps_only)
{
    crash_often(21, 40, NULL);
}

Test(store_crash, leaves_whole_steps_only_in_another_history)
{
    crash_often(22, 40, NULL);
}

Test(store_crash, loses_no_step_that_was_not_synced_either)
{
    crash_often(23, 40, "normal");
}
