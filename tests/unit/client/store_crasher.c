// SPDX-License-Identifier: Apache-2.0
//
// Runs a model's steps in a local store and writes a byte to stdout after each, until somebody kills it:
//     store_crasher DIRECTORY SEED FROM [normal]
//     store_crasher DIRECTORY fetch FROM
// Steps below FROM are taken in the model alone; with `fetch`, 64 pages after another arrive, under a small limit, in the
// volume that is there. It is a program because RocksDB's threads do not survive a
// fork.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/client/store_fixture.h"
#include "tests/unit/client/store_model.h"

static int fetch(const char *directory, uint32_t from)
{
    struct store_settings settings = {.directory = directory, .cache_limit = CACHE_LIMIT_MIN};
    struct store_fixture fixture = {.settings = settings};
    struct gid vid = fixture_vid(1);
    struct store_volume *volume;
    struct store_state state;
    expect_ok(store_open(&fixture.settings, &fixture.store, &err));
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    store_volume_state(volume, &state);
    for (uint32_t i = from;; i++) {
        expect_ok(fixture_arrive(volume, i * 64 % state.page_count + 1, 64, &err));
        if (write(STDOUT_FILENO, "", 1) != 1)
            return 1;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5)
        return 2;
    if (strcmp(argv[2], "fetch") == 0)
        return fetch(argv[1], (uint32_t)strtoul(argv[3], NULL, 10));
    struct store_settings settings = {.directory = argv[1], .writer_memory_size = 1400, .batch_entries = 3};
    if (argc == 5)
        settings.durability = GRAFT_DURABILITY_NORMAL;
    uint64_t seed = strtoull(argv[2], NULL, 10), from = strtoull(argv[3], NULL, 10);
    struct model *model = calloc(1, sizeof *model);
    struct model_run *run = calloc(1, sizeof *run);
    model_begin(model, seed);
    run->model = model;
    rng_seed(&run->rng, seed + from);
    for (uint64_t step = 0; step < from; step++)
        model_step(run, step);
    expect_ok(store_open(&settings, &run->store, &err));
    model_attach(run);
    for (uint64_t step = from; !model_is_full(model); step++) {
        model_step(run, step);
        if (write(STDOUT_FILENO, "", 1) != 1)
            return 1;
    }
    for (;;)
        pause();
}
