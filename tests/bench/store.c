// SPDX-License-Identifier: Apache-2.0
//
// What libgraft's local store costs beside time: the disk that it takes and the bytes that it writes while the same pages are
// written over and over, its longest commit meanwhile, how long a directory of many volumes takes to open, and the memory and
// open files of a store that is much larger than its caches.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/include/graft.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "tests/bench/bench.h"

#define PAGE_SIZE 4096u
#define MIB_D ((double)MIB)

// ---- what the system says -------------------------------------------------------------------------------------------

static double read_number(const char *path, const char *format)
{
    char line[512];
    unsigned long long number = 0;
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file)
        bench_fail("cannot read %s: %s", path, strerror(errno));
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, format, &number) == 1;
    fclose(file);
    if (!found)
        bench_fail("%s does not tell what was asked", path);
    return (double)number;
}

// Bytes that this process gave to write(2) and its kin, RocksDB's threads included. The kernel's own count of what goes to
// the disk (write_bytes) takes a whole folio, often 1 MiB, for one dirty page of it.
static double bytes_written(void)
{
    return read_number("/proc/self/io", "wchar: %llu");
}

// Bytes that the disk below `path` wrote, for whomever; -1 if there is no such disk. It tells something on an idle machine.
static double device_written(const char *path)
{
    struct stat info;
    char stats[128];
    unsigned long long sectors;
    if (stat(path, &info) != 0)
        return -1;
    snprintf(stats, sizeof stats, "/sys/dev/block/%u:%u/stat", major(info.st_dev), minor(info.st_dev));
    FILE *file = fopen(stats, "re");
    bool known = file && fscanf(file, "%*u %*u %*u %*u %*u %*u %llu", &sectors) == 1;
    if (file)
        fclose(file);
    return known ? (double)sectors * 512 : -1;
}

static double folder_bytes;

static int add_file(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    if (type == FTW_F)
        folder_bytes += (double)info->st_blocks * 512;
    return 0;
}

static double disk_used(const char *folder)
{
    folder_bytes = 0;
    // A file may go away while this looks; then the walk tells of the others.
    nftw(folder, add_file, 16, FTW_PHYS);
    return folder_bytes;
}

static unsigned open_files(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        bench_fail("cannot read /proc/self/fd");
    while (readdir(directory))
        count++;
    closedir(directory);
    return count - 3; // itself, "." and ".."
}

// ---- rewriting ------------------------------------------------------------------------------------------------------

#define REWRITE_PAGES 10000u
#define REWRITE_ROUNDS 20u
#define REWRITE_BATCH 100u

struct rewriting {
    char folder[512];
    struct graft *client;
    struct graft_volume *volume;
    int file;
    struct rng rng;
    bool random;
    uint32_t order[REWRITE_PAGES];
    uint8_t *pages;
    double disk, longest, longest_baseline;
};

static void shuffle(struct rewriting *rewriting)
{
    for (uint32_t i = 0; i < REWRITE_PAGES; i++)
        rewriting->order[i] = i + 1;
    for (uint32_t i = REWRITE_PAGES - 1; rewriting->random && i > 0; i--) {
        uint32_t j = (uint32_t)rng_below(&rewriting->rng, i + 1), page = rewriting->order[i];
        rewriting->order[i] = rewriting->order[j];
        rewriting->order[j] = page;
    }
}

static double commit_pages(struct rewriting *rewriting, const uint32_t *pages)
{
    struct graft_writer *writer;
    struct graft_error err;
    double began = bench_now();
    bench_check(graft_writer_begin(rewriting->volume, &writer, &err), &err, "beginning a write");
    for (uint32_t i = 0; i < REWRITE_BATCH; i++)
        bench_check(graft_writer_write(writer, pages[i], rewriting->pages + i * PAGE_SIZE, PAGE_SIZE, &err),
                    &err, "a write");
    bench_check(graft_writer_commit(writer, NULL, &err), &err, "a commit");
    return bench_now() - began;
}

static double overwrite_pages(struct rewriting *rewriting, const uint32_t *pages)
{
    double began = bench_now();
    for (uint32_t i = 0; i < REWRITE_BATCH; i++) {
        if (pwrite(rewriting->file, rewriting->pages + i * PAGE_SIZE, PAGE_SIZE,
                   (off_t)(pages[i] - 1) * PAGE_SIZE) != PAGE_SIZE)
            bench_fail("writing the baseline's file: %s", strerror(errno));
    }
    if (fdatasync(rewriting->file) != 0)
        bench_fail("syncing the baseline's file: %s", strerror(errno));
    return bench_now() - began;
}

// All pages once, the store and then the file.
static void rewrite_round(struct rewriting *rewriting, struct samples *subject, struct samples *baseline)
{
    double began = bench_now();
    shuffle(rewriting);
    random_bytes(rewriting->pages, REWRITE_BATCH * PAGE_SIZE);
    for (uint32_t i = 0; i < REWRITE_PAGES; i += REWRITE_BATCH) {
        rewriting->longest = MAX(rewriting->longest, commit_pages(rewriting, rewriting->order + i));
        rewriting->disk = MAX(rewriting->disk, disk_used(rewriting->folder));
    }
    samples_add(subject, (bench_now() - began) / (REWRITE_PAGES / REWRITE_BATCH));
    began = bench_now();
    for (uint32_t i = 0; i < REWRITE_PAGES; i += REWRITE_BATCH)
        rewriting->longest_baseline =
            MAX(rewriting->longest_baseline, overwrite_pages(rewriting, rewriting->order + i));
    samples_add(baseline, (bench_now() - began) / (REWRITE_PAGES / REWRITE_BATCH));
}

static void print_pair(const char *name, const char *order, const char *target, const char *unit,
                       double scale, double subject, double baseline)
{
    struct samples subjects = {0}, baselines = {0};
    char text[64];
    snprintf(text, sizeof text, "%s_%s", name, order);
    const struct row row = {text, target, unit, scale};
    samples_add(&subjects, subject);
    samples_add(&baselines, baseline);
    row_print(&row, &subjects, &baselines);
}

static void rewrite(const struct cluster *cluster, bool random)
{
    struct rewriting *rewriting = bench_alloc(sizeof *rewriting);
    const char *order = random ? "random" : "sequential";
    char path[512];
    struct graft_error err;
    snprintf(rewriting->folder, sizeof rewriting->folder, "%s/rewriting-%s", cluster->folder, order);
    snprintf(path, sizeof path, "%s/rewriting-%s-baseline", cluster->folder, order);
    rewriting->pages = bench_alloc(REWRITE_BATCH * PAGE_SIZE);
    rewriting->random = random;
    rng_seed(&rewriting->rng, 1);
    struct graft_settings settings = {.data = rewriting->folder};
    bench_check(graft_open(&settings, &rewriting->client, &err), &err, "opening a client");
    bench_check(graft_volume_create(rewriting->client, PAGE_SIZE, GRAFT_FIXED, &rewriting->volume, &err),
                &err, "a volume");
    rewriting->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (rewriting->file < 0)
        bench_fail("making %s: %s", path, strerror(errno));

    struct samples subject = {0}, baseline = {0};
    rewrite_round(rewriting, &subject, &baseline); // the pages come into being
    subject.count = baseline.count = 0;
    rewriting->longest = rewriting->longest_baseline = 0;
    double written = bytes_written(), device = device_written(rewriting->folder);
    for (unsigned i = 0; i < REWRITE_ROUNDS; i++)
        rewrite_round(rewriting, &subject, &baseline);
    graft_volume_close(rewriting->volume);
    graft_close(rewriting->client); // with what a close still writes
    double live = (double)REWRITE_PAGES * PAGE_SIZE, wanted = REWRITE_ROUNDS * live;
    written = bytes_written() - written - wanted;
    double device_end = device_written(rewriting->folder);

    const struct row commits = {random ? "rewrite_commit_random" : "rewrite_commit_sequential", "-", "us",
                                1e6};
    print_pair("rewrite_disk", order, "<= 1.3", "MiB", 1 / MIB_D, rewriting->disk, live);
    print_pair("rewrite_written", order, "<= 2", "MiB", 1 / MIB_D, written, wanted);
    if (device >= 0 && device_end >= 0)
        print_pair("rewrite_device_written", order, "-", "MiB", 1 / MIB_D, device_end - device - wanted,
                   wanted);
    row_print(&commits, &subject, &baseline);
    print_pair("rewrite_longest_commit", order, "-", "ms", 1e3, rewriting->longest,
               rewriting->longest_baseline);
    close(rewriting->file);
    free(rewriting->pages);
    free(rewriting);
}

void bench_rewriting(struct cluster *cluster)
{
    rewrite(cluster, false);
    rewrite(cluster, true);
}

// ---- many volumes ---------------------------------------------------------------------------------------------------

#define MANY_VOLUMES 10000u
#define OPENINGS 5u

void bench_volumes(struct cluster *cluster)
{
    const struct row row = {"open_10000_volumes", "< 1000 ms", "ms", 1e3};
    struct samples openings = {0};
    struct graft *client;
    struct graft_volume *volume;
    struct graft_writer *writer;
    struct graft_error err;
    uint8_t page[PAGE_SIZE] = {1};
    struct graft_volume_info info;
    char data[512];
    snprintf(data, sizeof data, "%s/volumes", cluster->folder);
    struct graft_settings settings = {.data = data};
    bench_check(graft_open(&settings, &client, &err), &err, "opening a client");
    for (unsigned i = 0; i < MANY_VOLUMES; i++) {
        bench_check(graft_volume_create(client, PAGE_SIZE, GRAFT_FIXED, &volume, &err), &err, "a volume");
        bench_check(graft_writer_begin(volume, &writer, &err), &err, "beginning a write");
        bench_check(graft_writer_write(writer, 1, page, sizeof page, &err), &err, "a write");
        bench_check(graft_writer_commit(writer, NULL, &err), &err, "a commit");
        bench_check(graft_volume_info(volume, &info, &err), &err, "asking for a volume's VID");
        graft_volume_close(volume);
    }
    graft_close(client);
    // To the first page of one of them.
    for (unsigned i = 0; i < OPENINGS; i++) {
        struct graft_snapshot *snapshot;
        size_t size;
        double began = bench_now();
        bench_check(graft_open(&settings, &client, &err), &err, "opening a client");
        bench_check(graft_volume_open(client, info.vid, &volume, &err), &err, "opening a volume");
        bench_check(graft_snapshot_open(volume, &snapshot, &err), &err, "a snapshot");
        bench_check(graft_snapshot_read(snapshot, 1, page, sizeof page, &size, &err), &err, "a read");
        samples_add(&openings, bench_now() - began);
        graft_snapshot_release(snapshot);
        graft_volume_close(volume);
        graft_close(client);
    }
    row_print_single(&row, &openings);
}

// ---- a store larger than its caches ---------------------------------------------------------------------------------

#define LOAD_GIB_DEFAULT 2u
#define LOAD_BATCH 1000u
#define LOAD_READS 50000u
#define LOAD_COMMITS 5000u
#define LOAD_LOOK 500u // open files are counted every so many calls

struct loaded {
    struct graft_volume *volume;
    struct rng rng;
    uint32_t pages;
    unsigned files;
    uint8_t *batch;
};

static void load_commit(struct loaded *loaded, uint32_t first, uint32_t count)
{
    struct graft_writer *writer;
    struct graft_error err;
    bench_check(graft_writer_begin(loaded->volume, &writer, &err), &err, "beginning a write");
    for (uint32_t i = 0; i < count; i++)
        bench_check(graft_writer_write(writer, first + i, loaded->batch + i * PAGE_SIZE, PAGE_SIZE, &err),
                    &err, "a write");
    bench_check(graft_writer_commit(writer, NULL, &err), &err, "a commit");
}

static void load_read(struct loaded *loaded, uint32_t count)
{
    struct graft_snapshot *snapshot;
    struct graft_error err;
    uint8_t page[PAGE_SIZE];
    size_t size;
    bench_check(graft_snapshot_open(loaded->volume, &snapshot, &err), &err, "a snapshot");
    for (uint32_t i = 0; i < count; i++)
        bench_check(graft_snapshot_read(snapshot, 1 + (uint32_t)rng_below(&loaded->rng, loaded->pages), page,
                                        sizeof page, &size, &err),
                    &err, "a read");
    graft_snapshot_release(snapshot);
}

static void load(struct loaded *loaded)
{
    for (uint32_t first = 1; first <= loaded->pages; first += LOAD_BATCH) {
        random_bytes(loaded->batch, PAGE_SIZE);
        load_commit(loaded, first, LOAD_BATCH);
        loaded->files = MAX(loaded->files, open_files());
    }
    for (uint32_t i = 0; i < LOAD_READS; i += LOAD_LOOK) {
        load_read(loaded, LOAD_LOOK);
        loaded->files = MAX(loaded->files, open_files());
    }
    for (uint32_t i = 0; i < LOAD_COMMITS; i++) {
        load_commit(loaded, 1 + (uint32_t)rng_below(&loaded->rng, loaded->pages), 1);
        if (i % LOAD_LOOK == 0)
            loaded->files = MAX(loaded->files, open_files());
    }
}

// In a process of its own, so that its memory and files are the store's: prints "BYTES FILES".
int bench_load_child(const char *data, const char *gib)
{
    struct loaded loaded = {
        .pages = (uint32_t)(strtoul(gib, NULL, 10) * (1 << 30) / PAGE_SIZE / LOAD_BATCH * LOAD_BATCH),
        .batch = bench_alloc(LOAD_BATCH * PAGE_SIZE)};
    struct graft *client;
    struct graft_error err;
    double before = read_number("/proc/self/status", "VmHWM: %llu kB") * 1024;
    unsigned files_before = open_files();
    rng_seed(&loaded.rng, 1);
    random_bytes(loaded.batch, LOAD_BATCH * PAGE_SIZE);
    struct graft_settings settings = {.data = data};
    bench_check(graft_open(&settings, &client, &err), &err, "opening a client");
    bench_check(graft_volume_create(client, PAGE_SIZE, GRAFT_FIXED, &loaded.volume, &err), &err, "a volume");
    load(&loaded);
    graft_volume_close(loaded.volume);
    graft_close(client);
    printf("%.0f %u\n", read_number("/proc/self/status", "VmHWM: %llu kB") * 1024 - before,
           loaded.files - files_before);
    free(loaded.batch);
    return 0;
}

void bench_load(struct cluster *cluster)
{
    const char *gib = getenv("GRAFT_BENCH_STORE_GIB");
    char command[1024], program[512];
    double memory, files;
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length < 0)
        bench_fail("cannot tell the path of this program");
    program[length] = 0;
    snprintf(command, sizeof command, "'%s' --load '%s/load' %u", program, cluster->folder,
             gib ? (unsigned)strtoul(gib, NULL, 10) : LOAD_GIB_DEFAULT);
    FILE *child = popen(command, "re");
    if (!child || fscanf(child, "%lf %lf", &memory, &files) != 2 || pclose(child) != 0)
        bench_fail("the process with a large store failed");
    struct samples memories = {0}, counts = {0};
    samples_add(&memories, memory);
    samples_add(&counts, files);
    row_print_single(&(struct row){"store_memory", "<= 32 MiB", "MiB", 1 / MIB_D}, &memories);
    row_print_single(&(struct row){"store_open_files", "-", "files", 1}, &counts);
}
