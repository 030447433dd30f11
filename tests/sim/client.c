// SPDX-License-Identifier: Apache-2.0
//
// A simulated client: one process with one data directory and one volume, that works on it until it is told to stop
// (SIGTERM), has made its steps, or is killed. Everything that it does is in the history (recorder.h).
//
//     sim-client --workload NAME --seed N --client NAME --log FILE --data DIR --metastore URL --pagestore URL
//                (--create | --vid VID) [--reader] [--sync] [--normal] [--reattach] [--calm] [--settle | --script STEP,…] [--steps N]
//                [--think-us N] [--deadline-ms N]
//
// SIGUSR1, or --calm: from now on it changes nothing, but resets what is rejected, and notes ("calm") where it stands.
//
// --normal: durability normal. --reattach: a volume that met another history is not the end of it.
//
// --create makes the volume, commits and pushes its first state, and prints the VID. --reader never commits. --sync
// leaves pushing and pulling to the library's background sync. --settle
// takes no random steps: it pushes what is there (a rejected volume is reset), pulls and reads everything. --script takes
// the steps named: commit, push, pull, reset, read, past, fork, reattach, delete, visit, at=VID (or at=last), write=PAGE and
// cut=PAGES (a local commit of just that).
// Exit codes: 0 done, 1 failed, 2 usage, 3 not settled, 4 the volume is corrupt or the local store has failed.
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "tests/sim/roam.h"
#include "tests/sim/sim.h"

#define SETTLE_TRIES 20u
#define SETTLED_MAX 256u // volumes of a data directory
#define PAST_PAGES 8u
#define READ_PAGES 64u
#define OFFLINE_PAUSE_US 4000u

enum exit_code { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_UNSETTLED, EXIT_BROKEN };

static atomic_bool stopping, calm;

static void on_signal(int number)
{
    atomic_store(number == SIGUSR1 ? &calm : &stopping, true);
}

// ---- operations ---------------------------------------------------------------------------------

// An INTERNAL may be a server's; after one of its own the store takes nothing any more.
static bool store_has_failed(const struct sim *sim)
{
    return !sim->volume || store_note_remote(sim->volume->store, 0, NULL) != GRAFT_OK;
}

void sim_note_failure(struct sim *sim, const struct graft_error *err)
{
    sim->offline = err->status == GRAFT_UNAVAILABLE;
    sim->deleted |= err->detail == GRAFT_DETAIL_DELETED;
    if ((err->status == GRAFT_CORRUPT && !sim->reattach) ||
        (err->status == GRAFT_INTERNAL && store_has_failed(sim)))
        sim->broken = true;
}

uint64_t sim_invoke(struct sim *sim, const char *op)
{
    struct line line;

    line_begin(&line, "invoke", op, ++sim->operation);
    if (sim->volume)
        line_add_vid(&line, &sim->volume->source.vid);
    line_write(&line);
    return sim->operation;
}

enum graft_status sim_complete(struct sim *sim, const char *op, uint64_t id, enum graft_status status,
                               const struct graft_error *err)
{
    struct line line;

    line_begin(&line, line_event_of(status), op, id);
    if (sim->normal)
        line_add(&line, ",\"durability\":\"normal\"");
    if (sim->cloned)
        line_add(&line, ",\"cloned\":true");
    if (sim->volume)
        line_add_state(&line, sim->volume);
    if (status != GRAFT_OK) {
        line_add_error(&line, err);
        sim_note_failure(sim, err);
    }
    line_write(&line);
    return status;
}

enum graft_status sim_open_volume(struct sim *sim, const char *vid, struct graft_error *err)
{
    struct line line;
    uint64_t id = ++sim->operation;

    line_begin(&line, "invoke", "open", id);
    if (vid)
        line_add(&line, ",\"vid\":\"%s\"", vid);
    line_write(&line);
    sim->deleted = sim->cloned = false;
    enum graft_status status = sim->client ? GRAFT_OK : graft_open(&sim->settings, &sim->client, err);
    if (status == GRAFT_OK && !vid)
        status = graft_volume_create(sim->client, sim->load->page_size, sim->load->kind, &sim->volume, err);
    else if (status == GRAFT_OK) {
        status = graft_volume_open(sim->client, vid, &sim->volume, err);
        sim->cloned = status == GRAFT_NOT_FOUND;
        for (unsigned tries = 0; status != GRAFT_OK && tries < SETTLE_TRIES; tries++) {
            status = graft_volume_clone(sim->client, vid, &sim->volume, err);
            if (status != GRAFT_OK && err->status != GRAFT_UNAVAILABLE)
                break;
        }
    }
    sim_complete(sim, "open", id, status, err);
    sim->cloned = false;
    return status;
}

typedef enum graft_status author_fn(struct author *author, struct change *change, struct graft_error *err);

static enum graft_status do_commit(struct sim *sim, author_fn *author, struct graft_error *err)
{
    struct change change = {0};
    struct line line;
    uint64_t lsn = 0;

    enum graft_status status = graft_writer_begin(sim->volume, &change.writer, err);
    if (status != GRAFT_OK) {
        sim_note_failure(sim, err);
        return status;
    }
    change.page_count = change.cut = graft_writer_page_count(change.writer);
    uint64_t base = writer_base_lsn(change.writer);
    status = author(&sim->author, &change, err);
    if (status != GRAFT_OK) { // a page could not be fetched
        graft_writer_abort(change.writer);
        sim_note_failure(sim, err);
        return status;
    }
    uint64_t id = ++sim->operation;
    line_begin(&line, "invoke", "commit", id);
    line_add_vid(&line, &sim->volume->source.vid);
    line_add(&line, ",\"base\":%llu,\"count\":%u,\"cut\":%u,\"writes\":[", (unsigned long long)base,
             change.page_count, change.cut);
    for (size_t i = 0; i < change.count; i++)
        line_add(&line, "%s[%u,%u,\"%s\"]", i > 0 ? "," : "", change.written[i].pageidx,
                 change.written[i].size, hex32(change.written[i].hash.bytes).text);
    line_add(&line, "]");
    line_write(&line);
    status = graft_writer_commit(change.writer, &lsn, err);
    if (status == GRAFT_OK)
        sim->author.entered = sim->author.entering;
    line_begin(&line, line_event_of(status), "commit", id);
    line_add(&line, ",\"lsn\":%llu", (unsigned long long)lsn);
    line_add_state(&line, sim->volume);
    if (status != GRAFT_OK) {
        line_add_error(&line, err);
        sim_note_failure(sim, err);
    }
    line_write(&line);
    return status;
}

static enum graft_status do_push(struct sim *sim, struct graft_error *err)
{
    uint64_t id = sim_invoke(sim, "push");
    return sim_complete(sim, "push", id, graft_push(sim->volume, NULL, err), err);
}

static enum graft_status do_pull(struct sim *sim, struct graft_error *err)
{
    uint64_t id = sim_invoke(sim, "pull");
    return sim_complete(sim, "pull", id, graft_pull(sim->volume, NULL, err), err);
}

static enum graft_status do_reset(struct sim *sim, struct graft_error *err)
{
    uint64_t id = sim_invoke(sim, "reset");
    return sim_complete(sim, "reset", id, graft_reset(sim->volume, err), err);
}

static enum graft_status do_reattach(struct sim *sim, struct graft_error *err)
{
    uint64_t id = sim_invoke(sim, "reattach");
    return sim_complete(sim, "reattach", id, graft_discard(sim->volume, GRAFT_DISCARD_REATTACH, NULL, err),
                        err);
}

static enum graft_status do_sync_start(struct sim *sim, struct graft_error *err)
{
    struct graft_sync_settings settings = {.push = true, .pull = true};
    uint64_t id = sim_invoke(sim, "sync");
    return sim_complete(sim, "sync", id, graft_sync_start(sim->volume, &settings, err), err);
}

// Reads [first, first + count) of a snapshot; `pages` has a slot of SIM_PAGE_SIZE_MAX for each.
static enum graft_status read_range(struct graft_snapshot *snapshot, uint32_t first, uint32_t count,
                                    uint8_t *pages, size_t *sizes, struct graft_error *err)
{
    const struct graft_page_range range = {first, count};
    enum graft_status status = GRAFT_OK;

    if (count > READ_PAGES) // not one request for each
        status = graft_hydrate(snapshot, &range, 1, err);
    for (uint32_t i = 0; i < count && status == GRAFT_OK; i++)
        status = graft_snapshot_read(snapshot, first + i, pages + (size_t)i * SIM_PAGE_SIZE_MAX,
                                     SIM_PAGE_SIZE_MAX, &sizes[i], err);
    return status;
}

// A page that is empty, or zeros in a fixed volume, was never written.
static bool is_blank(const uint8_t *page, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (page[i] != 0)
            return false;
    }
    return true;
}

static void line_add_pages(struct line *line, uint32_t first, uint32_t count, const uint8_t *pages,
                           const size_t *sizes)
{
    unsigned broken = 0;

    line_add(line, ",\"pages\":[");
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *page = pages + (size_t)i * SIM_PAGE_SIZE_MAX;
        struct hash128 hash = hash128(page, sizes[i]);
        line_add(line, "%s[%u,%zu,\"%s\"]", i > 0 ? "," : "", first + i, sizes[i], hex32(hash.bytes).text);
        broken += !is_blank(page, sizes[i]) && !workload_page_is_whole(first + i, page, sizes[i]);
    }
    line_add(line, "],\"broken\":%u", broken);
}

enum graft_status sim_read(struct sim *sim, bool past, struct graft_error *err)
{
    static uint8_t pages[SIM_PAGES_MAX * SIM_PAGE_SIZE_MAX];
    size_t sizes[SIM_PAGES_MAX];
    struct graft_snapshot *snapshot = NULL;
    struct store_state state;
    struct line line;
    uint32_t first = 1, count = 0;

    store_volume_state(sim->volume->store, &state);
    if (past && state.remote.lsn == 0)
        return GRAFT_OK;
    const char *op = past ? "past" : "read";
    uint64_t id = sim_invoke(sim, op);
    enum graft_status status =
        past ? graft_snapshot_open_remote(sim->volume, 1 + rng_below(&sim->rng, state.remote.lsn), &snapshot,
                                          err)
             : graft_snapshot_open(sim->volume, &snapshot, err);
    if (status == GRAFT_OK) {
        count = graft_snapshot_page_count(snapshot);
        if (past && count > PAST_PAGES) {
            first = 1 + (uint32_t)rng_below(&sim->rng, count - PAST_PAGES + 1);
            count = PAST_PAGES;
        }
        CHECK(count <= SIM_PAGES_MAX);
        status = read_range(snapshot, first, count, pages, sizes, err);
    }
    line_begin(&line, line_event_of(status), op, id);
    line_add_vid(&line, &sim->volume->source.vid);
    if (status == GRAFT_OK) {
        line_add(&line, ",\"local\":%llu,\"remote\":%llu,\"count\":%u",
                 (unsigned long long)graft_snapshot_local_lsn(snapshot),
                 (unsigned long long)graft_snapshot_remote_lsn(snapshot),
                 graft_snapshot_page_count(snapshot));
        line_add_pages(&line, first, count, pages, sizes);
        if (!past && sim->load->inspect)
            sim->load->inspect(&line, pages, sizes, count);
    } else {
        line_add_error(&line, err);
        sim_note_failure(sim, err);
    }
    line_write(&line);
    graft_snapshot_release(snapshot);
    return status;
}

// ---- what a client does with them ---------------------------------------------------------------

static enum graft_volume_status volume_status(struct sim *sim)
{
    struct store_state state;

    store_volume_state(sim->volume->store, &state);
    return state.status;
}

static void take_step(struct sim *sim)
{
    unsigned weights[STEP_COUNT], total = 0, step = 0;
    struct graft_error err;

    memcpy(weights, sim->load->weights, sizeof weights);
    if (sim->reader) {
        weights[STEP_COMMIT] = weights[STEP_PUSH] = weights[STEP_RESET] = 0;
        weights[STEP_PULL] += weights[STEP_READ];
    }
    if (sim->sync)
        weights[STEP_PUSH] = weights[STEP_PULL] = 0;
    for (unsigned i = 0; i < STEP_COUNT; i++)
        total += weights[i];
    for (uint64_t at = rng_below(&sim->rng, total); at >= weights[step]; step++)
        at -= weights[step];
    switch ((enum step)step) {
    case STEP_COMMIT:
        do_commit(sim, sim->load->next, &err);
        break;
    case STEP_PUSH:
        do_push(sim, &err);
        break;
    case STEP_PULL:
        do_pull(sim, &err);
        break;
    case STEP_READ:
        sim_read(sim, false, &err);
        break;
    case STEP_PAST:
        sim_read(sim, true, &err);
        break;
    case STEP_RESET:
        do_reset(sim, &err);
        break;
    case STEP_FORK:
        roam_fork(sim, &err);
        break;
    case STEP_DELETE:
        roam_delete(sim, &err);
        break;
    case STEP_VISIT:
        if (sim->deleted && rng_below(&sim->rng, 2) == 0)
            roam_forget(sim, &err);
        else
            roam_visit(sim, &err);
        break;
    case STEP_COUNT:
        break;
    }
    if (!sim->volume) { // nowhere to go: the first volume was not to be had
        sim->broken = true;
        return;
    }
    // Who drops work at times does so most readily when a push got no answer, and takes it along into a fork before.
    enum graft_volume_status status = volume_status(sim);
    if (status == GRAFT_VOLUME_REJECTED && weights[STEP_FORK] > 0 && !sim->deleted &&
        rng_below(&sim->rng, 3) == 0)
        roam_fork(sim, &err);
    if (status == GRAFT_VOLUME_CORRUPT && sim->reattach)
        do_reattach(sim, &err);
    if ((status == GRAFT_VOLUME_REJECTED && !sim->deleted) ||
        (status == GRAFT_VOLUME_UNKNOWN && weights[STEP_RESET] > 0 && rng_below(&sim->rng, 3) == 0))
        do_reset(sim, &err);
}

static bool stands_where(const struct store_state *a, const struct store_state *b)
{
    return a->local_lsn == b->local_lsn && a->mapped_lsn == b->mapped_lsn && a->remote.lsn == b->remote.lsn &&
           a->status == b->status && a->push.phase == b->push.phase;
}

// Background sync has to do the rest by itself. *at is where the volume stood when that was told last.
static void keep_calm(struct sim *sim, struct store_state *at)
{
    struct graft_error err;
    struct store_state now;
    struct line line;

    if (volume_status(sim) == GRAFT_VOLUME_REJECTED)
        do_reset(sim, &err);
    store_volume_state(sim->volume->store, &now);
    if (stands_where(&now, at))
        return;
    *at = now;
    line_begin(&line, "note", "calm", 0);
    line_add_state(&line, sim->volume);
    line_write(&line);
}

// Who meets no server takes a breath.
static void think(struct sim *sim)
{
    unsigned mean_us = MAX(sim->think_us, sim->offline ? OFFLINE_PAUSE_US : 0);

    sim->offline = false;
    if (mean_us == 0)
        return;
    uint64_t ns = rng_below(&sim->rng, 2ull * mean_us) * 1000;
    struct timespec pause = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&pause, NULL);
}

// The volume that it is at: pushed, or reset, pulled and read; or the servers say that it has ended.
static bool settle_one(struct sim *sim, struct graft_error *err)
{
    struct line line;

    for (unsigned tries = 0; tries < SETTLE_TRIES && !sim->broken && !atomic_load(&stopping); tries++) {
        enum graft_volume_status now = volume_status(sim);
        enum graft_status status = now == GRAFT_VOLUME_REJECTED                   ? do_reset(sim, err)
                                   : now == GRAFT_VOLUME_CORRUPT && sim->reattach ? do_reattach(sim, err)
                                                                                  : do_push(sim, err);
        if (status == GRAFT_OK)
            status = do_pull(sim, err);
        if (status == GRAFT_OK)
            status = sim_read(sim, false, err);
        if (status != GRAFT_OK && !(status == GRAFT_GONE && err->detail == GRAFT_DETAIL_DELETED))
            continue;
        line_begin(&line, "note", "settled", 0);
        line_add_state(&line, sim->volume);
        line_add(&line, ",\"deleted\":%s", status == GRAFT_OK ? "false" : "true");
        line_write(&line);
        return true;
    }
    return false;
}

static enum exit_code settle(struct sim *sim)
{
    char vids[SETTLED_MAX][GRAFT_VID_SIZE];
    size_t count = 0;
    struct graft_error err = {0};

    bool good =
        roam_list(sim, vids, SETTLED_MAX, &count, &err) == GRAFT_OK && count > 0 && count < SETTLED_MAX;
    for (size_t i = 0; i < count && good; i++) {
        graft_volume_close(sim->volume);
        sim->volume = NULL;
        good = sim_open_volume(sim, vids[i], &err) == GRAFT_OK && settle_one(sim, &err);
    }
    if (good)
        return EXIT_DONE;
    fprintf(stderr, "sim-client: %s could not settle: %s\n", sim->name, err.message);
    return sim->broken ? EXIT_BROKEN : EXIT_UNSETTLED;
}

// "last": the youngest of the data directory, such as a fork that was just made.
static enum graft_status at_volume(struct sim *sim, const char *vid, struct graft_error *err)
{
    char vids[SETTLED_MAX][GRAFT_VID_SIZE];
    size_t count = 0;

    enum graft_status status = roam_list(sim, vids, SETTLED_MAX, &count, err);
    if (status != GRAFT_OK)
        return status;
    graft_volume_close(sim->volume);
    sim->volume = NULL;
    return sim_open_volume(sim, strcmp(vid, "last") == 0 ? vids[count - 1] : vid, err);
}

// Stops at a step that fails.
static enum exit_code follow_script(struct sim *sim)
{
    enum graft_status status = GRAFT_OK;
    struct graft_error err = {0};
    char *script = strdup(sim->script), *rest = script, *word = NULL;

    while (status == GRAFT_OK && (word = strsep(&rest, ","))) {
        char *value = strchr(word, '=');
        sim->author.number = value ? (uint32_t)strtoul(value + 1, NULL, 10) : 0;
        if (strncmp(word, "write=", 6) == 0)
            status = do_commit(sim, workload_write_one, &err);
        else if (strncmp(word, "cut=", 4) == 0)
            status = do_commit(sim, workload_cut, &err);
        else if (strcmp(word, "commit") == 0)
            status = do_commit(sim, sim->load->next, &err);
        else if (strcmp(word, "push") == 0)
            status = do_push(sim, &err);
        else if (strcmp(word, "pull") == 0)
            status = do_pull(sim, &err);
        else if (strcmp(word, "reset") == 0)
            status = do_reset(sim, &err);
        else if (strcmp(word, "fork") == 0)
            status = roam_fork(sim, &err);
        else if (strcmp(word, "reattach") == 0)
            status = do_reattach(sim, &err);
        else if (strcmp(word, "delete") == 0)
            status = roam_delete(sim, &err);
        else if (strcmp(word, "visit") == 0)
            status = roam_visit(sim, &err);
        else if (strncmp(word, "at=", 3) == 0)
            status = at_volume(sim, value + 1, &err);
        else if (strcmp(word, "read") == 0 || strcmp(word, "past") == 0)
            status = sim_read(sim, word[0] == 'p', &err);
        else
            status = error_set(&err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, "unknown step: %s", word);
    }
    if (status != GRAFT_OK)
        fprintf(stderr, "sim-client: %s: %s\n", word, err.message);
    free(script);
    return sim->broken ? EXIT_BROKEN : status != GRAFT_OK ? EXIT_FAILED : EXIT_DONE;
}

static enum exit_code run(struct sim *sim)
{
    struct graft_error err = {0};
    struct store_state told = {.local_lsn = UINT64_MAX};

    if (sim_open_volume(sim, sim->vid, &err) != GRAFT_OK) {
        fprintf(stderr, "sim-client: opening: %s\n", err.message);
        return sim->broken ? EXIT_BROKEN : EXIT_FAILED;
    }
    if (sim->create) {
        if (do_commit(sim, sim->load->first, &err) != GRAFT_OK || do_push(sim, &err) != GRAFT_OK) {
            fprintf(stderr, "sim-client: the first state: %s\n", err.message);
            return EXIT_FAILED;
        }
        printf("%s\n", gid_format(&sim->volume->source.vid).text);
        fflush(stdout);
    }
    // What a crash left is looked at before anything is done with it.
    sim_read(sim, false, &err);
    if (sim->settle)
        return settle(sim);
    if (sim->script)
        return follow_script(sim);
    if (sim->sync && do_sync_start(sim, &err) != GRAFT_OK)
        return EXIT_FAILED;
    for (uint64_t step = 0; step < sim->steps && !sim->broken && !atomic_load(&stopping); step++) {
        if (sim->calm || atomic_load(&calm))
            keep_calm(sim, &told);
        else
            take_step(sim);
        think(sim);
    }
    return sim->broken ? EXIT_BROKEN : EXIT_DONE;
}

static bool parse(struct sim *sim, int argc, char **argv)
{
    const char *workload = "";
    uint64_t think_us = 0, deadline_ms = 0;
    const struct {
        const char *name;
        const char **text;
        uint64_t *number;
        bool *flag;
    } options[] = {
        {"--workload", .text = &workload},
        {"--client", .text = &sim->name},
        {"--log", .text = &sim->log},
        {"--data", .text = &sim->settings.data},
        {"--metastore", .text = &sim->settings.metastore},
        {"--pagestore", .text = &sim->settings.pagestore},
        {"--vid", .text = &sim->vid},
        {"--script", .text = &sim->script},
        {"--seed", .number = &sim->seed},
        {"--steps", .number = &sim->steps},
        {"--think-us", .number = &think_us},
        {"--deadline-ms", .number = &deadline_ms},
        {"--create", .flag = &sim->create},
        {"--reader", .flag = &sim->reader},
        {"--sync", .flag = &sim->sync},
        {"--reattach", .flag = &sim->reattach},
        {"--normal", .flag = &sim->normal},
        {"--calm", .flag = &sim->calm},
        {"--settle", .flag = &sim->settle},
    };
    const size_t count = sizeof options / sizeof *options;

    sim->steps = UINT64_MAX;
    for (int i = 1; i < argc; i++) {
        size_t at = 0;
        while (at < count && strcmp(argv[i], options[at].name) != 0)
            at++;
        if (at == count || (!options[at].flag && i + 1 == argc))
            return false;
        if (options[at].flag)
            *options[at].flag = true;
        else if (options[at].text)
            *options[at].text = argv[++i];
        else
            *options[at].number = strtoull(argv[++i], NULL, 10);
    }
    sim->load = workload_find(workload);
    sim->think_us = (unsigned)think_us;
    sim->settings.deadline_ms = (uint32_t)deadline_ms;
    if (sim->normal)
        sim->settings.durability = GRAFT_DURABILITY_NORMAL;
    return sim->load && sim->name && sim->log && sim->settings.data && sim->create == !sim->vid;
}

int main(int argc, char **argv)
{
    struct sim sim = {0};
    struct sigaction action = {.sa_handler = on_signal};

    if (!parse(&sim, argc, argv)) {
        fprintf(stderr, "usage: see tests/sim/client.c\n");
        return EXIT_USAGE;
    }
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    rng_seed(&sim.rng, sim.seed);
    sim.author.rng = &sim.rng;
    sim.author.load = sim.load;
    recorder_open(sim.log, sim.name);
    random_bytes(&sim.author.run, sizeof sim.author.run);
    enum exit_code code = run(&sim);
    graft_volume_close(sim.volume);
    graft_close(sim.client);
    return code;
}
