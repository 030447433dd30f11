// SPDX-License-Identifier: Apache-2.0
//
// A workload for the sweep over failpoints:
//
//     worker SCRIPT FOLDER METASTORE PAGESTORE SEED
//
// does the steps of a script and exits 0; killed anywhere and started again it goes on where it was, and ends the same way.
// In the folder lie the clients' data directories, the ledger and the history. Each script passes each failpoint that it is
// for at least three times in each process that it concerns.
//
//     sync     two clients and fresh copies: commits, pushes, pulls, conflicts, cuts, resets, deletions
//     large    commits larger than a writer's memory, pulls of many pages, uploads with segments of their own, more fetched
//              pages than the cache takes
//     pages    the page log by itself: claims, voids, failed writes, growth and removal of files, replays
//     restore-backed, restore-lost, restore-served: one after the other, around a backup and its restore
//     missing  one push, whose segment the test takes away
//     space    a store whose pages are moved and whose files become shorter
//     objects  both object stores by themselves, with what nobody else does yet: replacing, removing, aborting
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/random.h"
#include "tests/sweep/journal.h"
#include "tests/sweep/ledger.h"
#include "tests/sweep/objects.h"
#include "tests/sweep/pages.h"
#include "tests/sweep/replicas.h"
#include "tests/sweep/steps.h"

#define ROUNDS 3u
#define KEEP_ALL UINT32_MAX
#define FORKS (2 * ROUNDS) // the first volume that is one

enum { A, B, COPY }; // COPY is a fresh one, at the end

// Both clients have seen everything when it ends; `volume` lives on, `volume + 1` is gone.
static void sync_round(unsigned round, struct rng *rng)
{
    unsigned volume = 2 * round;
    step_create(A, volume, 512);
    step_commit(A, volume, KEEP_ALL, 1, 12);
    step_commit(A, volume, KEEP_ALL, 1 + (uint32_t)rng_below(rng, 8), 3);
    step_commit_prepared(A, volume, 2, 3, false);
    step_commit_prepared(A, volume, 5, 3, true);
    step_push(A, volume);
    step_clone(B, volume);
    step_read(B, volume);
    // Cut and grown again: what was cut off must not come back.
    step_commit(A, volume, 3 + (uint32_t)rng_below(rng, 4), 9, 2);
    step_push(A, volume);
    step_pull(B, volume);
    step_read(B, volume);
    step_commit(B, volume, KEEP_ALL, 1 + (uint32_t)rng_below(rng, 10), 2);
    step_push(B, volume);
    // A's commit loses to B's.
    step_commit(A, volume, KEEP_ALL, 1 + (uint32_t)rng_below(rng, 10), 4);
    step_read(A, volume);
    step_push_rejected(A, volume);
    step_reset(A, volume);
    step_read(A, volume);
    if (round == 0) {
        // A push that began and never sent its commit.
        step_commit(A, volume, 2, 1, 1);
        step_push_offline(A, volume);
        step_reset(A, volume);
    }
    step_commit(A, volume, KEEP_ALL, 14, 1);
    step_watch_push(B, A, volume);
    step_pull(B, volume);
    // The segments are gone by the time the commit arrives: they are uploaded again.
    step_commit(A, volume, KEEP_ALL, 1 + (uint32_t)rng_below(rng, 8), 2);
    step_push_late(A, volume);
    step_push(A, volume);
    step_pull(B, volume);

    // A fork takes A's commit along; A itself gives it up when it is ready to be sent.
    step_commit(A, volume, KEEP_ALL, 2 + (uint32_t)rng_below(rng, 8), 3);
    step_fork(A, volume, FORKS + round);
    step_push(A, FORKS + round);
    step_read(A, FORKS + round);
    step_push_unanswered(A, volume);
    step_reattach_unanswered(A, volume);
    step_reattach(A, volume);
    step_read(A, volume);
    step_pull(B, volume);

    step_create(B, volume + 1, 4096);
    step_commit(B, volume + 1, KEEP_ALL, 1, 2);
    step_push(B, volume + 1);
    step_delete_remote(B, volume + 1);
    step_forget(B, volume + 1);
}

static void sync_script(struct rng *rng)
{
    for (unsigned round = 0; round < ROUNDS; round++)
        sync_round(round, rng);
    steps_close(); // all of it again from the disk
    for (unsigned round = 0; round < ROUNDS; round++) {
        step_read(A, 2 * round);
        step_read(A, FORKS + round);
        step_read(B, 2 * round);
        step_clone(COPY, 2 * round);
        step_read(COPY, 2 * round);
    }
}

static void large_script(void)
{
    // Larger than what a writer keeps in memory, four times over.
    step_create(A, 0, 65536);
    step_commit(A, 0, KEEP_ALL, 1, 20);
    step_push(A, 0);
    step_clone(B, 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        step_give_up(A, 0, 80);
        step_commit(A, 0, KEEP_ALL, 1, round == 0 ? 140 : 20);
        step_push(A, 0); // in segments of its own
    }
    step_pull(B, 0);
    step_read(B, 0);
    // What was fetched is more than the limits that follow, and more still comes below.
    for (unsigned limit = CACHE_LIMIT_MIB - 1; limit >= 8; limit--)
        step_limit(B, limit);
    // More changed pages than one batch of a pull takes, three times over.
    step_create(A, 1, 512);
    step_commit(A, 1, KEEP_ALL, 1, 1);
    step_push(A, 1);
    step_clone(B, 1);
    step_commit(A, 1, KEEP_ALL, 1, JOURNAL_PAGES_MAX);
    step_push(A, 1);
    step_pull(B, 1);
    steps_close();
    step_read(A, 0);
    step_read(A, 1);
    step_read(B, 1);
}

// In three processes: what a backup holds; what is lost with the store; who comes when the backup was brought back.
static void restore_script(bool lost, bool served)
{
    for (unsigned volume = 0; volume < ROUNDS; volume++) {
        step_create(A, volume, 4096);
        step_commit(A, volume, KEEP_ALL, 1, 2);
        step_push(A, volume);
    }
    for (unsigned volume = 0; lost && volume < ROUNDS; volume++) {
        step_commit(A, volume, KEEP_ALL, 1, 3);
        step_push(A, volume);
        step_clone(B, volume);
        step_read(B, volume);
    }
    for (unsigned volume = 0; served && volume < ROUNDS; volume++) {
        step_clone(COPY, volume);
        step_read(COPY, volume);
    }
}

static void missing_script(void)
{
    step_create(A, 0, 4096);
    step_commit(A, 0, KEEP_ALL, 1, 3);
    step_push(A, 0);
}

static void open_records(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/history.jsonl", folder);
    journal_open(path);
    snprintf(path, sizeof path, "%s/ledger", folder);
    ledger_open(path);
}

// Two volumes, hardly pushed: what others leave of its extents is moved, and what is cut off makes the files shorter.
static void space_script(struct rng *rng)
{
    for (unsigned volume = 0; volume < 2; volume++) {
        step_create(A, volume, volume == 0 ? 4096 : 65536);
        step_commit(A, volume, KEEP_ALL, 1, 1);
        step_push(A, volume); // so that the servers know it
    }
    for (uint32_t page = 1; page <= 2000; page += 500)
        step_commit(A, 0, KEEP_ALL, page, 500);
    for (unsigned i = 0; i < 80; i++)
        step_commit(A, 0, KEEP_ALL, 1 + (uint32_t)rng_below(rng, 1960), 40);
    step_tidy(A);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (uint32_t page = 1; page < 2400; page += 300)
            step_commit(A, 1, KEEP_ALL, page, 300);
        step_commit(A, 1, 10, 1, 1);
        for (unsigned i = 0; i < 12; i++) // with each goes some of what was cut off
            step_commit(A, 1, KEEP_ALL, 1, 1);
        step_tidy(A);
    }
    steps_close();
    step_read(A, 0);
    step_read(A, 1);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: worker SCRIPT FOLDER METASTORE PAGESTORE SEED\n");
        return 2;
    }
    struct steps_settings settings = {
        .folder = argv[2], .metastore = argv[3], .pagestore = argv[4], .seed = strtoull(argv[5], NULL, 10)};
    struct rng rng;
    rng_seed(&rng, settings.seed);
    open_records(settings.folder);
    steps_begin(&settings);
    if (strcmp(argv[1], "sync") == 0) {
        sync_script(&rng);
    } else if (strcmp(argv[1], "large") == 0) {
        large_script();
    } else if (strcmp(argv[1], "missing") == 0) {
        missing_script();
    } else if (strncmp(argv[1], "restore-", 8) == 0) {
        bool served = strcmp(argv[1], "restore-served") == 0;
        restore_script(served || strcmp(argv[1], "restore-lost") == 0, served);
    } else if (strcmp(argv[1], "objects") == 0) {
        objects_script(argv[2], &rng);
    } else if (strcmp(argv[1], "space") == 0) {
        space_script(&rng);
    } else if (strcmp(argv[1], "pages") == 0) {
        pages_script(argv[2], settings.seed);
    } else {
        fprintf(stderr, "worker: no script \"%s\"\n", argv[1]);
        return 2;
    }
    steps_close();
    return 0;
}
