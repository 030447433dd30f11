// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/page_log_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/page_log.h"
#include "common/base/check.h"
#include "common/base/checksum.h"
#include "tests/unit/client/lossy_disk.h"

#define STORE 4711
#define COMMITS_MAX 4096u
#define PAGES_MAX 600u // of a commit
#define OPEN_FILES 3u

enum commit_state {
    COMMIT_UNKNOWN, // the log failed meanwhile: it may be there
    COMMIT_WRITTEN,
    COMMIT_SYNCED,
    COMMIT_FAILED, // never there, as are
    COMMIT_VOIDED,
};

struct commit {
    enum commit_state state;
    bool finished; // page_log_applied() was called
    bool void_failed;
    uint32_t group_first, group_count;
    uint32_t page_count;
    uint32_t live; // pages that are not killed
    struct page_log_append append;
    uint64_t *places;
};

// The index: what was told to it, in order. The entries [0, durable) survive everything.
struct entry {
    uint32_t commit;
    uint32_t page; // UINT32_MAX: the commit was applied; else this page of it was killed
};

struct model {
    char folder[64];
    uint64_t seed;
    unsigned step;
    struct rng rng;
    struct page_log_model_counts *counts;
    bool lossy;
    struct extents *extents;
    struct page_log *log;
    uint64_t epoch;
    uint8_t claims[PAGE_LOG_CLAIMS_SIZE_MAX]; // as on the disk
    size_t claims_size;
    struct commit *commits;
    uint32_t commit_count;
    struct entry *entries;
    size_t entry_count, durable, capacity;
    unsigned claim_failures; // to come
    // while replaying
    uint32_t last_visited;
    uint32_t parts_seen; // pages of the commit's runs so far
    bool *visited;
};

#define EXPECT(model, condition)                                                   \
    do {                                                                           \
        if (!(condition)) {                                                        \
            fprintf(stderr, "%s:%d: seed %llu, step %u: %s\n", __FILE__, __LINE__, \
                    (unsigned long long)(model)->seed, (model)->step, #condition); \
            abort();                                                               \
        }                                                                          \
    } while (0)
#define EXPECT_OK(model, call)                    \
    do {                                          \
        struct graft_error err = {.message = ""}; \
        if ((call) != GRAFT_OK) {                 \
            fprintf(stderr, "%s\n", err.message); \
            EXPECT(model, !"a call failed");      \
        }                                         \
    } while (0)

// ---- pages: which sizes a commit has, and which bytes, follows from its number

static uint32_t size_of_page_of(const struct model *model, uint32_t commit, uint32_t page)
{
    struct rng rng;
    rng_seed(&rng, model->seed * 31 + commit);
    switch (rng_below(&rng, 6)) {
    case 0:
        return 4096;
    case 1:
        return 512;
    case 2:
        return 65536;
    case 3:
        return (page * 7919 + commit) % 3000;
    case 4:
        return page % 3 == 0 ? 8192 : page % 3;
    default:
        return 4096;
    }
}

static void fill_page(const struct model *model, uint32_t commit, uint32_t page, uint8_t *to, uint32_t size)
{
    uint64_t word = (model->seed << 40) ^ ((uint64_t)commit << 20) ^ page;
    for (uint32_t at = 0; at < size; at++)
        to[at] = (uint8_t)((word * 0x9e3779b97f4a7c15ull + at * 0x2545f491ull) >> 24);
}

static bool verify(void *context, const struct run_entry *entry, const void *data)
{
    return checksum64(data, entry->size) == entry->checksum;
}

// ---- the index

static void tell_index(struct model *model, uint32_t commit, uint32_t page)
{
    if (model->entry_count == model->capacity) {
        model->capacity = model->capacity * 2 + 64;
        model->entries = realloc(model->entries, model->capacity * sizeof *model->entries);
        CHECK(model->entries);
    }
    model->entries[model->entry_count++] = (struct entry){commit, page};
}

static void count_live(struct model *model, uint32_t number, uint32_t page, bool live)
{
    struct commit *commit = &model->commits[number];
    struct extent_changes changes = {0};
    for (uint32_t i = page == UINT32_MAX ? 0 : page; i < (page == UINT32_MAX ? commit->page_count : page + 1);
         i++) {
        int64_t size = size_of_page_of(model, number, i);
        extent_changes_add(&changes, commit->places[i], live ? size : -size);
    }
    extents_apply(model->extents, &changes);
    extent_changes_release(&changes);
}

static void apply_commit(struct model *model, uint32_t number)
{
    tell_index(model, number, UINT32_MAX);
    count_live(model, number, UINT32_MAX, true);
    model->commits[number].live = model->commits[number].page_count;
}

static enum graft_status keep_claims(void *context, const struct page_log_claims *claims,
                                     struct graft_error *err)
{
    struct model *model = context;
    if (model->claim_failures > 0) {
        model->claim_failures--;
        return error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, "no space for the claims");
    }
    uint64_t began = extents_settle_begin(model->extents);
    enum graft_status status = page_log_sync(model->log, err);
    if (status != GRAFT_OK)
        return status;
    for (uint32_t i = 0; i < model->commit_count; i++)
        if (model->commits[i].state == COMMIT_WRITTEN)
            model->commits[i].state = COMMIT_SYNCED;
    model->claims_size = page_log_claims_encode(claims, model->claims);
    model->durable = model->entry_count;
    extents_settle_end(model->extents, began);
    model->counts->claims++;
    return GRAFT_OK;
}

// ---- opening

// A run with the index behind it: pages of a commit's earlier runs must have come already.
static enum graft_status visit(void *context, const struct page_log_run *run, struct graft_error *err)
{
    struct model *model = context;
    const struct run_header *header = &run->header;
    EXPECT(model, run->whole);
    if (header->kind == RUN_VOID) {
        EXPECT(model, model->commits[header->lsn].state == COMMIT_VOIDED ||
                          model->commits[header->lsn].state == COMMIT_UNKNOWN);
        return GRAFT_OK;
    }
    uint32_t number = (uint32_t)header->lsn;
    EXPECT(model, header->kind == RUN_COMMIT && number < model->commit_count && header->number == 5);
    struct commit *commit = &model->commits[number];
    EXPECT(model, commit->state != COMMIT_FAILED);
    EXPECT(model, header->part == 0 || number == model->last_visited);
    EXPECT(model, number == model->last_visited || header->part == 0);
    EXPECT(model, model->last_visited == UINT32_MAX || number >= model->last_visited);
    EXPECT(model, header->cut == (header->part == 0 ? number : UINT32_MAX) &&
                      header->page_count == commit->page_count);
    model->parts_seen = header->part == 0 ? 0 : model->parts_seen;
    model->last_visited = number;
    uint32_t end = run_header_size(header->count);
    for (uint32_t i = 0; i < header->count; i++) {
        struct run_entry entry = run_entry_at(run->bytes, i);
        EXPECT(model, entry.pageidx == model->parts_seen + i + 1 && entry.lsn == number);
        EXPECT(model, entry.size == size_of_page_of(model, number, entry.pageidx - 1));
        end = run_page_offset(end, entry.size);
        EXPECT(model, commit->places[entry.pageidx - 1] == run->place + end);
        end += entry.size;
    }
    model->parts_seen += header->count;
    if (!header->complete)
        return GRAFT_OK;
    EXPECT(model, model->parts_seen == commit->page_count);
    EXPECT(model, commit->state != COMMIT_VOIDED);
    model->visited[number] = true;
    return GRAFT_OK;
}

static void damaged(void *context, const struct page_log_run *run, uint64_t missing_from, uint64_t missing_to,
                    const char *where)
{
    struct model *model = context;
    fprintf(stderr, "damage at %s, %llu to %llu\n", where, (unsigned long long)missing_from,
            (unsigned long long)missing_to);
    EXPECT(model, !"there is no damage");
}

static void open_extents(struct model *model)
{
    char directory[80];
    snprintf(directory, sizeof directory, "%s/pages", model->folder);
    struct extents_settings settings = {.directory = directory,
                                        .durable = true,
                                        .open_files_max = OPEN_FILES,
                                        .pwritev = lossy_disk_pwritev,
                                        .fdatasync = lossy_disk_fdatasync};
    EXPECT_OK(model, extents_open(&settings, &model->extents, &err));
}

// The index after a crash: some more than what was kept, but nothing whose pages are not synced.
static void lose_index(struct model *model)
{
    size_t keep = model->durable + rng_below(&model->rng, model->entry_count - model->durable + 1);
    size_t count = 0;
    while (count < keep && model->commits[model->entries[count].commit].state == COMMIT_SYNCED)
        count++;
    EXPECT(model, count >= model->durable);
    model->entry_count = count;
}

static void read_page(struct model *model, uint32_t number, uint32_t page)
{
    static uint8_t bytes[PAGE_SIZE_MAX], expected[PAGE_SIZE_MAX];
    uint32_t size = size_of_page_of(model, number, page);
    EXPECT_OK(model, extents_read(model->extents, model->commits[number].places[page], bytes, size, &err));
    fill_page(model, number, page, expected, size);
    EXPECT(model, memcmp(bytes, expected, size) == 0);
}

static void set_live_of_index(struct model *model, uint8_t *alive)
{
    uint32_t end = extents_end(model->extents);
    uint64_t *live = calloc(end + 1, sizeof *live);
    for (uint32_t i = 0; i < model->commit_count; i++) {
        for (uint32_t page = 0; page < model->commits[i].page_count; page++) {
            if (!alive[i * PAGES_MAX + page])
                continue;
            EXPECT(model, place_extent(model->commits[i].places[page]) < end ||
                              size_of_page_of(model, i, page) == 0);
            live[place_extent(model->commits[i].places[page])] += size_of_page_of(model, i, page);
        }
    }
    for (uint32_t i = 0; i < end; i++)
        EXPECT_OK(model, extents_set_live(model->extents, i, live[i], &err));
    free(live);
}

// Which pages are live by the index, and which commits it has.
static uint8_t *pages_of_index(const struct model *model, bool *ret_has)
{
    uint8_t *alive = calloc((size_t)model->commit_count + 1, PAGES_MAX);
    CHECK(alive);
    for (size_t i = 0; i < model->entry_count; i++) {
        const struct entry *entry = &model->entries[i];
        if (entry->page == UINT32_MAX) {
            memset(alive + entry->commit * PAGES_MAX, 1, model->commits[entry->commit].page_count);
            ret_has[entry->commit] = true;
        } else {
            alive[entry->commit * PAGES_MAX + entry->page] = 0;
        }
    }
    return alive;
}

static void check_visited(struct model *model, const bool *has)
{
    bool gap = false;
    for (uint32_t i = 0; i < model->commit_count; i++) {
        struct commit *commit = &model->commits[i];
        bool there = has[i] || model->visited[i];
        if (commit->state == COMMIT_FAILED || commit->state == COMMIT_VOIDED) {
            EXPECT(model, !there);
            continue;
        }
        EXPECT(model, commit->state != COMMIT_SYNCED || there);
        EXPECT(model, model->lossy || commit->state != COMMIT_WRITTEN || there);
        EXPECT(model, !(gap && there)); // nothing behind what is not there
        gap = gap || (!there && !commit->void_failed);
        for (uint32_t at = commit->group_first; at < i; at++)
            EXPECT(model, (has[at] || model->visited[at]) == there);
        model->counts->replayed += there && !has[i];
        model->counts->torn += !there;
        commit->state = there ? COMMIT_SYNCED : COMMIT_FAILED;
    }
}

static void start_log(struct model *model)
{
    static struct page_log_claims none;
    none = (struct page_log_claims){.epoch = ++model->epoch, .seq = 1};
    model->claims_size = page_log_claims_encode(&none, model->claims);
    model->durable = model->entry_count;
    extents_start(model->extents);
    struct page_log_settings settings = {.extents = model->extents,
                                         .store = STORE,
                                         .epoch = model->epoch,
                                         .context = model,
                                         .keep_claims = keep_claims};
    EXPECT_OK(model, page_log_new(&settings, &model->log, &err));
}

static void open_again(struct model *model)
{
    static struct page_log_claims claims;
    model->counts->openings++;
    open_extents(model);
    EXPECT_OK(model,
              page_log_claims_decode((struct bytes){model->claims, model->claims_size}, &claims, &err));
    bool *has = calloc(COMMITS_MAX, 1);
    uint8_t *alive = pages_of_index(model, has);
    set_live_of_index(model, alive);
    model->visited = calloc(COMMITS_MAX, 1);
    model->last_visited = UINT32_MAX;
    struct page_log_replay replay = {.store = STORE,
                                     .claims = &claims,
                                     .context = model,
                                     .verify = verify,
                                     .visit = visit,
                                     .damaged = damaged};
    EXPECT_OK(model, page_log_replay(model->extents, &replay, &err));
    check_visited(model, has);
    for (uint32_t i = 0; i < model->commit_count; i++) {
        model->commits[i].finished = true;
        model->commits[i].live = 0;
        if (!has[i] && model->visited[i]) {
            apply_commit(model, i);
            memset(alive + i * PAGES_MAX, 1, model->commits[i].page_count);
        }
        for (uint32_t page = 0; page < model->commits[i].page_count; page++) {
            model->commits[i].live += alive[i * PAGES_MAX + page];
            if (alive[i * PAGES_MAX + page])
                read_page(model, i, page);
        }
    }
    free(alive);
    free(has);
    free(model->visited);
    start_log(model);
}

static void close_hard(struct model *model)
{
    page_log_free(model->log);
    extents_close(model->extents);
    lossy_disk.room = SIZE_MAX;
    lossy_disk.step_max = SIZE_MAX;
    lossy_disk.sync_fails = 0;
    model->claim_failures = 0;
    lose_index(model);
    if (model->lossy)
        lossy_disk_lose(&model->rng);
}

// ---- steps

static struct page_log_page *pages_of(const struct model *model, uint32_t number, uint8_t **ret_bytes)
{
    uint32_t count = model->commits[number].page_count;
    struct page_log_page *pages = calloc(count + 1, sizeof *pages);
    size_t total = 1;
    for (uint32_t i = 0; i < count; i++)
        total += size_of_page_of(model, number, i);
    uint8_t *bytes = malloc(total), *at = bytes;
    CHECK(pages && bytes);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t size = size_of_page_of(model, number, i);
        fill_page(model, number, i, at, size);
        pages[i].entry = (struct run_entry){
            .number = 5, .lsn = number, .checksum = checksum64(at, size), .pageidx = i + 1, .size = size};
        pages[i].data = at;
        at += size;
    }
    *ret_bytes = bytes;
    return pages;
}

static uint32_t draw_page_count(struct model *model)
{
    uint64_t dice = rng_below(&model->rng, 20);
    return dice == 0   ? 0
           : dice < 17 ? (uint32_t)rng_below(&model->rng, 12) + 1
                       : (uint32_t)rng_below(&model->rng, PAGES_MAX - 1) + 1;
}

static bool log_failed(struct model *model)
{
    struct graft_error err;
    return page_log_claim_ahead(model->log, 0, &err) != GRAFT_OK;
}

static void step_commit(struct model *model)
{
    uint32_t group = rng_below(&model->rng, 8) == 0 ? (uint32_t)rng_below(&model->rng, 3) + 2 : 1;
    uint32_t first = model->commit_count;
    if (first + group > COMMITS_MAX)
        return;
    uint8_t *bytes[4];
    struct page_log_append appends[4];
    for (uint32_t i = 0; i < group; i++) {
        struct commit *commit = &model->commits[first + i];
        *commit =
            (struct commit){.group_first = first, .group_count = group, .page_count = draw_page_count(model)};
        commit->places = calloc(commit->page_count + 1, sizeof *commit->places);
        appends[i] = (struct page_log_append){.header = {.kind = RUN_COMMIT,
                                                         .complete = true,
                                                         .number = 5,
                                                         .lsn = first + i,
                                                         .page_count = commit->page_count,
                                                         .cut = first + i,
                                                         .group_index = (uint16_t)i,
                                                         .group_count = (uint16_t)group},
                                              .page_count = commit->page_count,
                                              .pages = pages_of(model, first + i, &bytes[i])};
    }
    model->commit_count += group;
    bool sync = rng_below(&model->rng, 2) == 0;
    struct graft_error err;
    enum graft_status status = page_log_append(model->log, appends, group, sync, &err);
    enum commit_state state = status == GRAFT_OK  ? (sync ? COMMIT_SYNCED : COMMIT_WRITTEN)
                              : log_failed(model) ? COMMIT_UNKNOWN
                                                  : COMMIT_FAILED;
    for (uint32_t i = 0; i < first && state == COMMIT_SYNCED; i++)
        if (model->commits[i].state == COMMIT_WRITTEN)
            model->commits[i].state = COMMIT_SYNCED;
    for (uint32_t i = 0; i < group; i++) {
        struct commit *commit = &model->commits[first + i];
        commit->state = state;
        commit->finished = status != GRAFT_OK;
        commit->append = appends[i];
        for (uint32_t page = 0; page < commit->page_count; page++)
            commit->places[page] = appends[i].pages[page].place;
        model->counts->parts += status == GRAFT_OK && appends[i].parts > 1;
        free(appends[i].pages);
        free(bytes[i]);
    }
    model->counts->commits += group;
    model->counts->groups += group > 1;
    model->counts->synced += state == COMMIT_SYNCED;
    model->counts->failed += status != GRAFT_OK;
}

// The oldest commit that the index was not told of, or one after it: commits of one volume would come in order, those of
// several do not.
static void step_apply(struct model *model)
{
    for (uint32_t i = 0; i < model->commit_count; i++) {
        struct commit *commit = &model->commits[i];
        if (commit->finished || rng_below(&model->rng, 3) == 0)
            continue;
        for (uint32_t at = commit->group_first; at < commit->group_first + commit->group_count; at++)
            apply_commit(model, at);
        for (uint32_t at = commit->group_first; at < commit->group_first + commit->group_count; at++) {
            page_log_applied(model->log, &model->commits[at].append);
            model->commits[at].finished = true;
        }
        return;
    }
}

static void step_void(struct model *model)
{
    for (uint32_t i = model->commit_count; i-- > 0;) {
        struct commit *commit = &model->commits[i];
        if (commit->finished || rng_below(&model->rng, 3) == 0)
            continue;
        struct graft_error err;
        enum graft_status status = page_log_void(model->log, &commit->append, &err);
        for (uint32_t at = commit->group_first; at < commit->group_first + commit->group_count; at++) {
            if (at != i && status == GRAFT_OK)
                page_log_applied(model->log, &model->commits[at].append);
            model->commits[at].finished = true;
            model->commits[at].void_failed = status != GRAFT_OK;
            model->commits[at].state = status == GRAFT_OK ? COMMIT_VOIDED : COMMIT_UNKNOWN;
        }
        model->counts->voided += status == GRAFT_OK;
        return;
    }
}

// Some commit's pages, as if overwritten.
static void step_kill(struct model *model)
{
    uint32_t number = (uint32_t)rng_below(&model->rng, model->commit_count + 1);
    bool *has = calloc(COMMITS_MAX, 1);
    uint8_t *alive = pages_of_index(model, has);
    for (uint32_t i = number; i < MIN(number + 20, model->commit_count); i++) {
        for (uint32_t page = 0; page < model->commits[i].page_count; page++) {
            if (!alive[i * PAGES_MAX + page] || rng_below(&model->rng, 8) == 0)
                continue;
            tell_index(model, i, page);
            count_live(model, i, page, false);
            model->commits[i].live--;
            model->counts->killed++;
        }
    }
    free(alive);
    free(has);
}

static void step_sync(struct model *model)
{
    struct graft_error err;
    if (page_log_sync(model->log, &err) != GRAFT_OK)
        return;
    for (uint32_t i = 0; i < model->commit_count; i++)
        if (model->commits[i].state == COMMIT_WRITTEN)
            model->commits[i].state = COMMIT_SYNCED;
}

static void step_plan_failure(struct model *model)
{
    if (lossy_disk.room != SIZE_MAX || lossy_disk.step_max != SIZE_MAX || rng_below(&model->rng, 3) == 0) {
        lossy_disk.room = SIZE_MAX; // space is back
        lossy_disk.step_max = SIZE_MAX;
        return;
    }
    switch (rng_below(&model->rng, 8)) {
    case 0:
        lossy_disk.sync_fails = 1;
        model->counts->failed_syncs++;
        break;
    case 1:
        model->claim_failures = 1;
        break;
    case 2:
        lossy_disk.step_max = 1 + rng_below(&model->rng, 5000);
        break;
    default:
        lossy_disk.room = rng_below(&model->rng, 1 << rng_below(&model->rng, 24));
        lossy_disk.write_error = rng_below(&model->rng, 2) ? ENOSPC : EIO;
        lossy_disk.fails_max = (unsigned)rng_below(&model->rng, 4);
        model->counts->full_disks++;
        break;
    }
}

static void check_usage(struct model *model)
{
    struct extents_usage usage;
    uint64_t live = 0;
    bool *has = calloc(COMMITS_MAX, 1);
    uint8_t *alive = pages_of_index(model, has);
    for (uint32_t i = 0; i < model->commit_count; i++)
        for (uint32_t page = 0; page < model->commits[i].page_count; page++)
            live += alive[i * PAGES_MAX + page] ? size_of_page_of(model, i, page) : 0;
    free(alive);
    free(has);
    extents_usage(model->extents, &usage);
    EXPECT(model, usage.live == live);
}

static void step(struct model *model)
{
    static void (*const steps[])(struct model *) = {
        step_commit, step_commit, step_commit, step_commit, step_commit, step_commit, step_apply, step_apply,
        step_apply,  step_apply,  step_apply,  step_apply,  step_apply,  step_void,   step_kill,  step_sync};
    uint64_t dice = rng_below(&model->rng, 400);
    if (dice < 10 || (log_failed(model) && rng_below(&model->rng, 3) == 0)) {
        close_hard(model);
        open_again(model);
    } else if (dice < 25) {
        step_plan_failure(model);
    } else if (dice < 35) {
        struct graft_error err;
        (void)page_log_claim_ahead(model->log, (uint32_t)rng_below(&model->rng, 12), &err);
    } else if (dice < 40) {
        struct graft_error err;
        (void)extents_shrink(model->extents, (uint32_t)rng_below(&model->rng, 100), &err);
    } else {
        steps[dice % ARRAY_COUNT(steps)](model);
    }
    if (dice % 40 == 0)
        check_usage(model);
}

void page_log_model_run(uint64_t seed, unsigned steps, bool lossy, struct page_log_model_counts *counts)
{
    struct model model = {
        .folder = "/tmp/graft-page-log-XXXXXX", .seed = seed, .lossy = lossy, .counts = counts};
    CHECK(mkdtemp(model.folder));
    rng_seed(&model.rng, seed);
    lossy_disk_reset();
    lossy_disk.remembers = lossy;
    model.commits = calloc(COMMITS_MAX, sizeof *model.commits);
    open_extents(&model);
    start_log(&model);
    for (model.step = 0; model.step < steps; model.step++)
        step(&model);
    close_hard(&model);
    open_again(&model);
    check_usage(&model);
    close_hard(&model);

    for (uint32_t i = 0; i < model.commit_count; i++)
        free(model.commits[i].places);
    free(model.commits);
    free(model.entries);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", model.folder);
    CHECK(system(command) == 0);
}
