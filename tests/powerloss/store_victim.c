// SPDX-License-Identifier: Apache-2.0
//
// The client's local store as a victim of power losses:
//     store_victim DIRECTORY SEED DONE HISTORY [KEPT]
// DONE steps of the model (tests/unit/client/store_model.h) were acknowledged before the power failed; 0 also where the
// volume may not have been made. Opens the store, checks that it is what the model is after that many steps or after the
// one that was under way, and goes on with the next, until the power fails again. With KEPT the durability is
// `normal`: the latest local commits may be gone, so the store is what the model was after any number of steps from KEPT
// on, the last one after which something had to be synced. Lines on stdout:
//     at N       the store was found as after N steps, and shown to be
//     did N      N steps are acknowledged
//     kept N     N steps are on the disk: the last one was no mere local commit
//     stopped    a write or sync failed, the store said so and is closed; the power fails here
// Exits with 4 where the store is not what it should be. What was done also goes to the file HISTORY, as the checker of
// tests/sim reads it: without servers it follows where the volume stands, and knows nothing of pages.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/recorder.h"
#include "tests/unit/client/store_fixture.h"
#include "tests/unit/client/store_model.h"

static void say(const char *what, uint64_t number)
{
    printf("%s %llu\n", what, (unsigned long long)number);
    fflush(stdout);
}

__attribute__((weak)) void powerloss_now(void);

static struct model_run *the_run;
static bool normal; // durability

// Where the model stands with the servers.
struct model_mark {
    enum store_push_phase phase;
    uint64_t mapped_lsn, mapped_remote;
    bool rejected;
};

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

// ---- the history

static uint64_t operation;

static void invoke(const char *op)
{
    struct gid vid = model_vid();
    struct line line;
    line_begin(&line, "invoke", op, ++operation);
    line_add_vid(&line, &vid);
    line_write(&line);
}

static void invoke_commit(const struct model *model, const struct model *next)
{
    const struct model_commit *commit = &next->local[next->local_head];
    struct gid vid = model_vid();
    struct line line;
    line_begin(&line, "invoke", "commit", ++operation);
    line_add_vid(&line, &vid);
    line_add(&line, ",\"base\":%llu,\"count\":%u,\"cut\":%u,\"writes\":[]",
             (unsigned long long)model->local_head, commit->image.page_count, commit->cut);
    line_write(&line);
}

static void complete(const char *op, const struct model_run *run)
{
    struct graft_volume volume = {.store = run->volume};
    struct line line;
    line_begin(&line, "ok", op, operation);
    if (normal)
        line_add(&line, ",\"durability\":\"normal\"");
    line_add(&line, ",\"lsn\":%llu", (unsigned long long)run->model->local_head);
    line_add_state(&line, &volume);
    line_write(&line);
}

// A step as the history knows it; NULL: the store will not show that it was taken.
static const char *invoke_step(const struct model *model, uint64_t number)
{
    static struct model next;
    static struct model_run dry;
    next = *model;
    dry = (struct model_run){.model = &next};
    model_step(&dry, number);
    if (dry.resets > 0 || dry.pulls > 0) {
        const char *op = dry.resets > 0 ? "reset" : "pull";
        invoke(op);
        return op;
    }
    if (next.local_head > model->local_head) {
        invoke_commit(model, &next);
        return "commit";
    }
    if (next.phase == model->phase)
        return NULL;
    invoke("push");
    return "push";
}

// ---- the store

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

// The steps that the store has, of which the model has made `from`; there may be one more than were acknowledged.
static uint64_t find_place(struct model_run *run, uint64_t from, uint64_t done)
{
    struct store_state state;
    store_volume_state(run->volume, &state);
    while (!model_state_matches(run->model, &state) && from <= done) {
        struct store *store = TAKE(run->store);
        model_step(run, from++);
        run->store = store;
    }
    return from;
}

// Did the step do what is synced whatever the durability: anything but local commits?
static bool is_kept(const struct model *model, const struct model_mark *before)
{
    return model->phase != before->phase || model->mapped_lsn != before->mapped_lsn ||
           model->mapped_remote != before->mapped_remote || model->rejected != before->rejected;
}

static struct model_mark mark_of(const struct model *model)
{
    return (struct model_mark){model->phase, model->mapped_lsn, model->mapped_remote, model->rejected};
}

int main(int argc, char **argv)
{
    if (argc != 5 && argc != 6)
        return 2;
    normal = argc == 6;
    recorder_open(argv[4], "store");
    // Small, so that tables are flushed and joined within a run.
    struct store_settings settings = {.directory = argv[1],
                                      .memory_size = STORE_MEMORY_MIN,
                                      .writer_memory_size = 1400,
                                      .batch_entries = 3,
                                      .durability = normal ? GRAFT_DURABILITY_NORMAL : GRAFT_DURABILITY_FULL};
    uint64_t seed = strtoull(argv[2], NULL, 10), done = strtoull(argv[3], NULL, 10);
    uint64_t kept = normal ? strtoull(argv[5], NULL, 10) : done;
    struct model *model = calloc(1, sizeof *model);
    struct model_run *run = calloc(1, sizeof *run);
    model_begin(model, seed);
    run->model = model;
    the_run = run;
    rng_seed(&run->rng, seed + done);
    for (uint64_t step = 0; step < kept; step++)
        model_step(run, step);
    invoke("open");
    expect_ok(store_open(&settings, &run->store, &err));
    open_volume(run, kept);
    complete("open", run);
    done = find_place(run, kept, done);
    model_check(run);
    say("at", done);
    while (!model_is_full(model)) {
        const char *op = invoke_step(model, done);
        struct model_mark before = mark_of(model);
        model_step(run, done);
        if (op)
            complete(op, run);
        say("did", ++done);
        if (is_kept(model, &before))
            say("kept", done);
        if (done % 16 == 0)
            model_check(run);
    }
    model_detach(run);
    store_close(run->store);
    free(run);
    free(model);
    return 0;
}
