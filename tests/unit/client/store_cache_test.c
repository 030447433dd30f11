// SPDX-License-Identifier: Apache-2.0
//
// Fetched pages under a limit, through the store: what is evicted is pending again, is counted so, and can arrive again;
// what is there is what arrived. Readers, arrivals, commits and a changing limit at once; kills and damaged files.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/store_internal.h"
#include "common/base/random.h"
#include "common/base/worker.h"
#include "tests/unit/client/store_fixture.h"

#define PAGE_SIZE 4096u
#define PAGES 8192u

static struct store_fixture fixture;

static void begin(void)
{
    memset(&fixture, 0, sizeof fixture);
    fixture_begin(&fixture);
}

static void end(void)
{
    fixture_end(&fixture);
}

TestSuite(store_cache, .init = begin, .fini = end, .timeout = 240);

static struct store_volume *make_clone(unsigned number, uint32_t page_count)
{
    struct gid vid = fixture_vid(number);
    struct store_remote head = fixture_remote(5, page_count);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, PAGE_SIZE, GRAFT_FIXED, &head, &volume, &err));
    return volume;
}

static struct store_volume *open_volume(unsigned number)
{
    struct gid vid = fixture_vid(number);
    struct store_volume *volume;
    expect_ok(store_volume_open(fixture.store, &vid, &volume, &err));
    return volume;
}

// Pages of the head that are here, each of which is what arrived.
static uint32_t count_here(struct store_volume *volume)
{
    struct store_pin *pin;
    uint32_t here = 0;
    expect_ok(store_pin_open(volume, &pin, &err));
    for (uint32_t pageidx = 1; pageidx <= store_pin_page_count(pin); pageidx++) {
        uint8_t page[PAGE_SIZE], expected[PAGE_SIZE];
        struct store_page found;
        expect_ok(store_read(pin, pageidx, page, sizeof page, &found, &err));
        if (found.state == STORE_PAGE_PENDING)
            continue;
        cr_assert_eq(found.state, STORE_PAGE_AVAILABLE);
        fixture_fill(expected, sizeof expected, pageidx, 1);
        cr_assert_eq(memcmp(page, expected, sizeof page), 0, "page %u", pageidx);
        here++;
    }
    store_pin_release(pin);
    return here;
}

// Disk, usage, counts and what can be read agree.
static uint32_t check_volume(struct store_volume *volume)
{
    struct store_counts counts;
    uint32_t here = count_here(volume);
    expect_ok(store_volume_counts(volume, &counts, &err));
    cr_assert_eq(counts.available, here);
    cr_assert_eq(counts.available + counts.pending, PAGES);
    return here;
}

static uint64_t cache_size;

static int add_size(const char *path, const struct stat *info, int type, struct FTW *at)
{
    cache_size += type == FTW_F ? (uint64_t)info->st_size : 0;
    return 0;
}

static uint64_t size_on_disk(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/cache", fixture.directory);
    cache_size = 0;
    nftw(path, add_size, 16, FTW_PHYS);
    return cache_size;
}

Test(store_cache, a_limit_is_never_exceeded_and_what_is_evicted_is_pending)
{
    struct store_volume *volume = make_clone(1, PAGES);
    struct store_counts counts;
    expect_ok(store_cache_limit_set(fixture.store, 10 * MIB, &err));
    expect_ok(store_volume_counts(volume, &counts, &err));
    for (uint32_t first = 1; first < PAGES; first += 128) {
        expect_ok(fixture_arrive(volume, first, 128, &err));
        cr_assert_leq(size_on_disk(), 10 * MIB);
    }
    uint32_t here = check_volume(volume);
    cr_assert(here > 7 * 256 && here <= 10 * 256, "%u pages", here);
    struct store_cache_usage usage;
    store_cache_usage(fixture.store, &usage);
    cr_assert_eq(usage.live, (uint64_t)here * PAGE_SIZE);
    cr_assert_eq(usage.evicted_pages, PAGES - here);
    cr_assert_eq(usage.evicted_size, (uint64_t)(PAGES - here) * PAGE_SIZE);
    cr_assert_eq(usage.limit, 10 * MIB);

    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    expect_state(pin, 1, STORE_PAGE_PENDING);
    expect_ok(fixture_arrive(volume, 1, 1, &err));
    expect_page(pin, 1, 1);
    store_pin_release(pin);
    check_volume(volume);
    store_volume_close(volume);
}

Test(store_cache, a_lower_limit_frees_the_disk_before_it_returns)
{
    struct store_volume *volume = make_clone(1, PAGES);
    expect_ok(fixture_arrive(volume, 1, PAGES, &err));
    cr_assert_eq(check_volume(volume), PAGES);
    for (uint64_t limit = 24; limit >= 8; limit -= 8) {
        expect_ok(store_cache_limit_set(fixture.store, limit * MIB, &err));
        cr_assert_leq(size_on_disk(), limit * MIB);
        cr_assert_gt(check_volume(volume), limit * 256 / 2);
    }
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, store_cache_limit_set(fixture.store, 1, &err));
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture.settings.cache_limit = 7 * MIB;
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                 store_open(&fixture.settings, &fixture.store, &err));
    fixture.settings.cache_limit = 8 * MIB;
    fixture_open(&fixture);
    volume = open_volume(1);
    cr_assert_gt(check_volume(volume), 1024);
    store_volume_close(volume);
}

// Those have no counts to keep, and their pages go like others.
Test(store_cache, pages_of_volumes_that_are_not_open_are_evicted)
{
    struct store_volume *closed = make_clone(1, PAGES), *open = make_clone(2, PAGES);
    expect_ok(fixture_arrive(closed, 1, 1024, &err));
    store_volume_close(closed);
    expect_ok(store_cache_limit_set(fixture.store, 8 * MIB, &err));
    expect_ok(fixture_arrive(open, 1, 4096, &err));
    closed = open_volume(1);
    cr_assert_eq(check_volume(closed), 0);
    cr_assert_gt(check_volume(open), 1024);
    // And with a volume that is deleted its pages go, at once.
    store_volume_close(open);
    struct gid vid = fixture_vid(2);
    expect_ok(store_volume_delete(fixture.store, &vid, &err));
    struct store_cache_usage usage;
    store_cache_usage(fixture.store, &usage);
    cr_assert_eq(usage.live, 0);
    store_volume_close(closed);
    fixture_close(&fixture);
    fixture_open(&fixture);
    cr_assert_eq(size_on_disk(), 0);
}

// A page is read while others arrive: the hand writes it again, and its place is another each time.
Test(store_cache, a_page_that_is_read_stays)
{
    struct store_volume *volume = make_clone(1, PAGES);
    struct store_pin *pin;
    expect_ok(store_cache_limit_set(fixture.store, 8 * MIB, &err));
    expect_ok(fixture_arrive(volume, 1, 100, &err));
    expect_ok(store_pin_open(volume, &pin, &err));
    for (uint32_t first = 101; first + 64 <= PAGES; first += 64) {
        for (uint32_t pageidx = 1; pageidx <= 100; pageidx++)
            expect_page(pin, pageidx, 1);
        expect_ok(fixture_arrive(volume, first, 64, &err));
    }
    store_pin_release(pin);
    check_volume(volume);
    store_volume_close(volume);
}

// ---- memory

static uint64_t resident(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert(file && fscanf(file, "%*s %lu", &pages) == 1);
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

// The checkers keep memory of their own for each of ours.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define GROWN_MAX UINT64_MAX
#else
#define GROWN_MAX (24 * MIB)
#endif

// As many pages as a quarter of a 10 GB cache of pages of 4 KiB has, in small ones.
Test(store_cache, memory_does_not_follow_the_number_of_pages)
{
    const uint32_t count = 600000;
    struct gid vid = fixture_vid(1);
    struct store_remote head = fixture_remote(5, count);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, 512, GRAFT_FIXED, &head, &volume, &err));
    expect_ok(fixture_arrive(volume, 1, 20000, &err));
    uint64_t before = resident();
    for (uint32_t first = 20001; first < count; first += 20000)
        expect_ok(fixture_arrive(volume, first, MIN(20000u, count - first + 1), &err));
    struct store_cache_usage usage;
    store_cache_usage(fixture.store, &usage);
    cr_assert_eq(usage.live, (uint64_t)count * 512);
    struct store_pin *pin;
    expect_ok(store_pin_open(volume, &pin, &err));
    for (uint32_t pageidx = 1; pageidx <= count; pageidx += 97)
        expect_page(pin, pageidx, 1);
    store_pin_release(pin);
    uint64_t grown = resident() - MIN(before, resident());
    cr_log_info("%lu KiB more", grown / 1024);
    cr_assert_lt(grown, GROWN_MAX, "%lu KiB more", grown / 1024);
    store_volume_close(volume);
}

// ---- threads

struct actor {
    struct worker worker;
    struct store_volume *volume;
    unsigned number;
    uint64_t done;
    atomic_bool *stop;
};

// Criterion's assertions are for the test's own thread.
static void must(bool true_, const char *what)
{
    if (!true_) {
        fprintf(stderr, "store_cache: %s\n", what);
        abort();
    }
}

// Reads what is here and brings what is not.
static void read_and_fetch(struct worker *worker, void *context)
{
    struct actor *actor = context;
    struct rng rng;
    rng_seed(&rng, actor->number);
    while (!atomic_load(actor->stop)) {
        struct store_pin *pin;
        must(store_pin_open(actor->volume, &pin, NULL) == GRAFT_OK, "pin");
        for (unsigned i = 0; i < 50; i++) {
            uint8_t page[PAGE_SIZE], expected[PAGE_SIZE];
            struct store_page found;
            uint32_t pageidx = 1 + (uint32_t)rng_below(&rng, rng_below(&rng, 4) ? 400 : PAGES);
            must(store_read(pin, pageidx, page, sizeof page, &found, NULL) == GRAFT_OK, "read");
            if (found.state == STORE_PAGE_PENDING) {
                uint32_t count = (uint32_t)MIN(1 + rng_below(&rng, 60), (uint64_t)(PAGES - pageidx + 1));
                must(fixture_arrive(actor->volume, pageidx, count, NULL) == GRAFT_OK, "arrive");
                continue;
            }
            fixture_fill(expected, sizeof expected, pageidx, 1);
            must(memcmp(page, expected, sizeof page) == 0, "a page is what arrived");
            actor->done++;
        }
        store_pin_release(pin);
    }
}

// Commits take the lock that the hand needs.
static void commit_and_count(struct worker *worker, void *context)
{
    struct actor *actor = context;
    while (!atomic_load(actor->stop)) {
        struct store_writer *writer;
        struct store_counts counts;
        uint8_t page[PAGE_SIZE];
        fixture_fill(page, sizeof page, PAGES, 1);
        must(store_writer_begin(actor->volume, &writer, NULL) == GRAFT_OK, "begin");
        must(store_writer_write(writer, PAGES, page, sizeof page, NULL) == GRAFT_OK, "write");
        must(store_writer_commit(writer, NULL, NULL) == GRAFT_OK, "commit");
        must(store_volume_counts(actor->volume, &counts, NULL) == GRAFT_OK, "counts");
        must(counts.available + counts.pending == PAGES, "counts add up");
        actor->done++;
    }
}

static void open_and_close(struct worker *worker, void *context)
{
    struct actor *actor = context;
    struct gid vid = fixture_vid(9);
    while (!atomic_load(actor->stop)) {
        struct store_volume *volume;
        struct store_counts counts;
        must(store_volume_open(fixture.store, &vid, &volume, NULL) == GRAFT_OK, "open");
        must(fixture_arrive(volume, 1 + (uint32_t)(actor->done * 64 % (PAGES - 64)), 64, NULL) == GRAFT_OK,
             "arrive");
        must(store_volume_counts(volume, &counts, NULL) == GRAFT_OK, "counts");
        store_volume_close(volume);
        actor->done++;
    }
}

static void make_and_delete(struct worker *worker, void *context)
{
    struct actor *actor = context;
    for (unsigned number = 100; !atomic_load(actor->stop); number++) {
        struct gid vid = fixture_vid(number);
        struct store_remote head = fixture_remote(5, PAGES);
        struct store_volume *volume;
        must(store_volume_clone(fixture.store, &vid, PAGE_SIZE, GRAFT_FIXED, &head, &volume, NULL) ==
                 GRAFT_OK,
             "clone");
        must(fixture_arrive(volume, 1, 200, NULL) == GRAFT_OK, "arrive");
        store_volume_close(volume);
        must(store_volume_delete(fixture.store, &vid, NULL) == GRAFT_OK, "delete");
        actor->done++;
    }
}

Test(store_cache, eviction_beside_readers_commits_and_deletions)
{
    struct store_volume *volumes[2] = {make_clone(1, PAGES), make_clone(2, PAGES)};
    store_volume_close(make_clone(9, PAGES));
    atomic_bool stop = false;
    struct actor actors[7];
    static void (*const runs[])(struct worker *,
                                void *) = {read_and_fetch,   read_and_fetch, read_and_fetch, commit_and_count,
                                           commit_and_count, open_and_close, make_and_delete};
    expect_ok(store_cache_limit_set(fixture.store, 12 * MIB, &err));
    for (unsigned i = 0; i < 7; i++) {
        actors[i] = (struct actor){.volume = volumes[i % 2], .number = i, .stop = &stop};
        expect_ok(worker_start(&actors[i].worker, "actor", runs[i], &actors[i], &err));
    }
    struct store_cache_usage usage = {0};
    for (unsigned round = 0; round < 400 && (round < 40 || usage.evicted_pages < 5000); round++) {
        uint64_t limit = (8 + round % 8) * MIB;
        expect_ok(store_cache_limit_set(fixture.store, limit, &err));
        cr_assert_leq(size_on_disk(), limit);
        usleep(10000);
        store_cache_usage(fixture.store, &usage);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 7; i++) {
        worker_join(&actors[i].worker);
        cr_assert_gt(actors[i].done, 0, "actor %u did nothing", i);
    }
    cr_assert_geq(usage.evicted_pages, 5000);
    for (unsigned i = 0; i < 2; i++) {
        struct store_counts counts;
        expect_ok(store_volume_counts(volumes[i], &counts, &err));
        store_volume_close(volumes[i]);
        volumes[i] = open_volume(i + 1);
        struct store_counts anew;
        expect_ok(store_volume_counts(volumes[i], &anew, &err));
        cr_assert(anew.available == counts.available && anew.pending == counts.pending);
    }
    // Hints may know where a page lies that was evicted just when it was read.
    store_volume_close(volumes[0]);
    store_volume_close(volumes[1]);
    fixture_close(&fixture);
    fixture_open(&fixture);
    for (unsigned i = 0; i < 2; i++) {
        volumes[i] = open_volume(i + 1);
        check_volume(volumes[i]);
        store_volume_close(volumes[i]);
    }
}

// ---- crashes

static void run_until_killed(unsigned from, unsigned acks, uint64_t wait_ns)
{
    int pipe_fds[2];
    cr_assert_eq(pipe(pipe_fds), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        char from_text[24];
        snprintf(from_text, sizeof from_text, "%u", from);
        dup2(pipe_fds[1], STDOUT_FILENO);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        execl(STORE_CRASHER, STORE_CRASHER, fixture.directory, "fetch", from_text, (char *)NULL);
        _exit(127);
    }
    close(pipe_fds[1]);
    char byte;
    for (unsigned i = 0; i < acks * 16; i++)
        cr_assert_eq(read(pipe_fds[0], &byte, 1), 1, "the victim ended by itself");
    nanosleep(&(struct timespec){.tv_nsec = (long)wait_ns}, NULL);
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the victim ended with %d", status);
    close(pipe_fds[0]);
}

// A process that fetches under a limit is killed at any moment: what is there afterwards is what arrived.
Test(store_cache, a_kill_leaves_nothing_but_pages_that_arrived)
{
    struct rng rng;
    rng_seed(&rng, 77);
    store_volume_close(make_clone(1, PAGES));
    fixture_close(&fixture);
    uint32_t most = 0;
    for (unsigned round = 0; round < 10; round++) {
        run_until_killed(round * 100, 1 + round, rng_below(&rng, 3000000));
        fixture.settings.cache_limit = 8 * MIB;
        fixture_open(&fixture);
        struct store_volume *volume = open_volume(1);
        uint32_t here = check_volume(volume);
        most = MAX(most, here);
        cr_assert_leq(size_on_disk(), 8 * MIB);
        store_volume_close(volume);
        fixture_close(&fixture);
    }
    cr_assert_gt(most, 1024);
    fixture_open(&fixture);
}

Test(store_cache, whatever_happens_to_the_files_no_other_bytes_are_read)
{
    struct rng rng;
    char path[128];
    rng_seed(&rng, 78);
    struct store_volume *volume = make_clone(1, PAGES);
    uint32_t least = PAGES;
    snprintf(path, sizeof path, "%s/cache/00000000", fixture.directory);
    for (unsigned round = 0; round < 8; round++) {
        for (uint32_t first = 1; first < PAGES; first += 64) {
            struct store_pin *pin;
            struct store_page found;
            uint8_t page[PAGE_SIZE];
            expect_ok(store_pin_open(volume, &pin, &err));
            expect_ok(store_read(pin, first, page, sizeof page, &found, &err));
            store_pin_release(pin);
            if (found.state == STORE_PAGE_PENDING)
                expect_ok(fixture_arrive(volume, first, 64, &err));
        }
        store_volume_close(volume);
        fixture_close(&fixture);
        if (round % 4 == 0) {
            cr_assert_eq(unlink(path), 0);
        } else if (round % 4 == 1) {
            cr_assert_eq(truncate(path, (off_t)rng_below(&rng, 20 * MIB)), 0);
        } else {
            int fd = open(path, O_RDWR);
            for (unsigned i = 0; i < 200; i++)
                cr_assert_eq(pwrite(fd, "damage", 6, (off_t)rng_below(&rng, 30 * MIB)), 6);
            close(fd);
        }
        fixture_open(&fixture);
        volume = open_volume(1);
        uint32_t here = check_volume(volume);
        cr_assert_lt(here, PAGES, "round %u", round);
        least = MIN(least, here);
    }
    cr_assert_lt(least, 64);
    // An index that cannot be true: the cache goes as a whole, and the store opens.
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    struct store_key key = store_key_extent(3);
    rocks_batch_add(batch, fixture.store->fetched->families[FETCHED_EXTENTS], store_key_bytes(&key),
                    5 * (int64_t)MIB);
    expect_ok(rocks_write(fixture.store->fetched->db, fixture.store->fetched->write, batch, &err));
    store_volume_close(volume);
    fixture_close(&fixture);
    fixture_open(&fixture);
    volume = open_volume(1);
    cr_assert_eq(check_volume(volume), 0);
    expect_ok(fixture_arrive(volume, 1, 256, &err));
    cr_assert_eq(check_volume(volume), 256);
    store_volume_close(volume);
}
