// SPDX-License-Identifier: Apache-2.0
//
// libgraft's local store against plain files: a page read that is in memory, and durable commits. The store checks what it
// reads and finds versions; the file does neither.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/include/graft.h"
#include "common/base/random.h"
#include "tests/bench/bench.h"

#define PAGE_SIZE 4096u
#define VOLUME_PAGES 5000u // 20 MB: within the store's default cache
#define BATCH_PAGES 100u
#define READS 20000u
#define READ_ROUNDS 15u
#define COMMIT_ROUNDS 7u

struct local {
    struct graft *client;
    struct graft_volume *volume;
    int file;
    struct rng rng;
    uint8_t *pages; // BATCH_PAGES of them, random
};

static uint32_t random_page(struct local *local, uint32_t count)
{
    return 1 + (uint32_t)rng_below(&local->rng, VOLUME_PAGES - count + 1);
}

static double commit(struct local *local, uint32_t first, uint32_t count)
{
    struct graft_writer *writer;
    struct graft_error err;
    double began = bench_now();
    bench_check(graft_writer_begin(local->volume, &writer, &err), &err, "beginning a write");
    for (uint32_t i = 0; i < count; i++)
        bench_check(graft_writer_write(writer, first + i, local->pages + i * PAGE_SIZE, PAGE_SIZE, &err),
                    &err, "a write");
    bench_check(graft_writer_commit(writer, NULL, &err), &err, "a commit");
    return bench_now() - began;
}

static double overwrite(struct local *local, uint32_t first, uint32_t count)
{
    double began = bench_now();
    if (pwrite(local->file, local->pages, count * PAGE_SIZE, (off_t)(first - 1) * PAGE_SIZE) !=
            (ssize_t)(count * PAGE_SIZE) ||
        fdatasync(local->file) != 0)
        bench_fail("writing the baseline's file: %s", strerror(errno));
    return bench_now() - began;
}

static void local_start(struct local *local, const struct cluster *cluster)
{
    char data[512], path[512];
    struct graft_error err;
    snprintf(data, sizeof data, "%s/client", cluster->folder);
    snprintf(path, sizeof path, "%s/baseline-file", cluster->folder);
    *local = (struct local){.pages = bench_alloc(BATCH_PAGES * PAGE_SIZE)};
    rng_seed(&local->rng, 1);
    random_bytes(local->pages, BATCH_PAGES * PAGE_SIZE);
    struct graft_settings settings = {.data = data};
    bench_check(graft_open(&settings, &local->client, &err), &err, "opening a client");
    bench_check(graft_volume_create(local->client, PAGE_SIZE, GRAFT_FIXED, &local->volume, &err), &err,
                "a volume");
    local->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (local->file < 0)
        bench_fail("making %s: %s", path, strerror(errno));
    for (uint32_t first = 1; first <= VOLUME_PAGES; first += BATCH_PAGES) {
        commit(local, first, BATCH_PAGES);
        overwrite(local, first, BATCH_PAGES);
    }
}

static void local_stop(struct local *local)
{
    graft_volume_close(local->volume);
    graft_close(local->client);
    close(local->file);
    free(local->pages);
}

// ---- reads ----------------------------------------------------------------------------------------------------------

static double read_store(struct local *local, struct graft_snapshot *snapshot)
{
    uint8_t page[PAGE_SIZE];
    size_t size;
    struct graft_error err;
    double began = bench_now();
    for (unsigned i = 0; i < READS; i++)
        bench_check(graft_snapshot_read(snapshot, random_page(local, 1), page, sizeof page, &size, &err),
                    &err, "a read");
    return (bench_now() - began) / READS;
}

static double read_file(struct local *local)
{
    uint8_t page[PAGE_SIZE];
    double began = bench_now();
    for (unsigned i = 0; i < READS; i++) {
        if (pread(local->file, page, sizeof page, (off_t)(random_page(local, 1) - 1) * PAGE_SIZE) !=
            (ssize_t)sizeof page)
            bench_fail("reading the baseline's file: %s", strerror(errno));
    }
    return (bench_now() - began) / READS;
}

static void compare_reads(struct local *local)
{
    const struct row row = {"local_read_warm", "<= 3", "us", 1e6};
    struct samples subject = {0}, baseline = {0};
    struct graft_snapshot *snapshot;
    struct graft_error err;
    bench_check(graft_snapshot_open(local->volume, &snapshot, &err), &err, "a snapshot");
    read_store(local, snapshot);
    for (unsigned i = 0; i < READ_ROUNDS; i++) {
        samples_add(&subject, read_store(local, snapshot));
        samples_add(&baseline, read_file(local));
    }
    graft_snapshot_release(snapshot);
    row_print(&row, &subject, &baseline);
}

// ---- commits --------------------------------------------------------------------------------------------------------

typedef double write_fn(struct local *local, uint32_t first, uint32_t count);

static double median_of(struct local *local, write_fn *write, uint32_t count, unsigned times)
{
    struct samples samples = {0};
    for (unsigned i = 0; i < times; i++)
        samples_add(&samples, write(local, random_page(local, count), count));
    return samples_median(&samples);
}

static void compare_commits(struct local *local, uint32_t count, unsigned times, const struct row *row)
{
    struct samples subject = {0}, baseline = {0};
    for (unsigned i = 0; i < COMMIT_ROUNDS; i++) {
        samples_add(&subject, median_of(local, commit, count, times));
        samples_add(&baseline, median_of(local, overwrite, count, times));
    }
    row_print(row, &subject, &baseline);
}

void bench_local(struct cluster *cluster)
{
    const struct row one = {"local_commit_1_page", "<= 2", "us", 1e6};
    const struct row batch = {"local_commit_100_pages", "<= 4", "us", 1e6};
    struct local local;
    local_start(&local, cluster);
    compare_reads(&local);
    compare_commits(&local, 1, 100, &one);
    compare_commits(&local, BATCH_PAGES, 20, &batch);
    local_stop(&local);
}
