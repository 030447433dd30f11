// SPDX-License-Identifier: Apache-2.0
//
// The page cache on an index in memory: what is in the index and was not dropped reads as it was written, the files never
// outgrow the limit, and live bytes are those of the index.
#include "client/page_cache.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/checksum.h"
#include "common/base/random.h"
#include "tests/unit/client/store_fixture.h"

#define PAGES 8192u
#define EXTENTS 512u

// What the owner's index would be, and what it keeps beside it.
struct index_page {
    bool there;
    uint32_t size;
    uint32_t tag;
    uint64_t place;
    uint64_t checksum;
};

struct fake {
    char directory[64];
    struct page_cache *cache;
    struct index_page pages[PAGES];
    uint64_t live[EXTENTS], ages[EXTENTS];
    bool full; // the disk
    uint64_t dropped;
    unsigned forgotten; // extents
};

static struct fake *fake;

static void fill(uint8_t *to, uint32_t size, uint32_t page, uint32_t tag)
{
    uint64_t seed = ((uint64_t)tag << 32) | page;
    for (uint32_t i = 0; i < size; i++)
        to[i] = (uint8_t)((seed * 0x9e3779b97f4a7c15ull >> (i % 7 * 8)) + i);
}

static void change(struct extent_changes *changes, uint64_t place, int64_t bytes)
{
    extent_changes_add(changes, place, bytes);
    fake->live[place_extent(place)] += (uint64_t)bytes;
    fake->ages[place_extent(place)] = page_cache_age(fake->cache, place_extent(place));
}

static void apply(struct extent_changes *changes)
{
    size_t count = 0;
    for (size_t i = 0; i < changes->count; i++) {
        if (changes->items[i].bytes != 0)
            changes->items[count++] = changes->items[i];
    }
    changes->count = count;
    page_cache_apply(fake->cache, changes);
    extent_changes_release(changes);
}

static bool has(const struct page_cache_page *page)
{
    const struct index_page *there = &fake->pages[page->entry.pageidx];
    return there->there && there->place == page->from && there->checksum == page->entry.checksum;
}

static enum graft_status look(void *context, struct page_cache_page *pages, size_t count,
                              struct graft_error *err)
{
    for (size_t i = 0; i < count; i++)
        pages[i].wanted = has(&pages[i]);
    return GRAFT_OK;
}

static enum graft_status move(void *context, const struct page_cache_page *pages, size_t count,
                              struct graft_error *err)
{
    struct extent_changes changes = {0};
    for (size_t i = 0; i < count; i++) {
        struct index_page *there = &fake->pages[pages[i].entry.pageidx];
        if (!has(&pages[i]))
            continue;
        change(&changes, there->place, -(int64_t)there->size);
        if (pages[i].to == PAGE_CACHE_PLACE_NONE) {
            there->there = false;
            fake->dropped++;
        } else {
            there->place = pages[i].to;
            change(&changes, there->place, there->size);
        }
    }
    apply(&changes);
    return GRAFT_OK;
}

static enum graft_status forget_extent(void *context, uint32_t extent, struct graft_error *err)
{
    struct extent_changes changes = {0};
    for (uint32_t i = 0; i < PAGES; i++) {
        if (!fake->pages[i].there || place_extent(fake->pages[i].place) != extent)
            continue;
        change(&changes, fake->pages[i].place, -(int64_t)fake->pages[i].size);
        fake->pages[i].there = false;
        fake->dropped++;
    }
    apply(&changes);
    fake->forgotten++;
    return GRAFT_OK;
}

static enum graft_status may_grow(void *context, size_t size, struct graft_error *err)
{
    return fake->full ? error_set(err, GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, "the disk is full") : GRAFT_OK;
}

static const struct page_cache_index fake_index = {look, move, forget_extent, may_grow};

static void open_cache(void)
{
    struct page_cache_settings settings = {
        .directory = fake->directory, .store = 7, .index = &fake_index, .context = fake};
    random_bytes(&settings.epoch, sizeof settings.epoch);
    for (uint32_t i = 0; i < EXTENTS; i++)
        settings.extents = fake->live[i] > 0 ? i + 1 : settings.extents;
    expect_ok(page_cache_open(&settings, &fake->cache, &err));
    for (uint32_t i = 0; i < settings.extents; i++) {
        expect_ok(page_cache_set_live(fake->cache, i, fake->live[i], &err));
        page_cache_set_age(fake->cache, i, fake->ages[i]);
    }
    page_cache_start(fake->cache);
}

static void begin(void)
{
    fake = calloc(1, sizeof *fake);
    snprintf(fake->directory, sizeof fake->directory, "%.40s/cache-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    cr_assert(mkdtemp(fake->directory));
    open_cache();
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    return remove(path);
}

static void end(void)
{
    page_cache_close(fake->cache);
    nftw(fake->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(fake);
}

TestSuite(page_cache, .init = begin, .fini = end, .timeout = 240);

static uint64_t file_size;

static int add_size(const char *path, const struct stat *info, int type, struct FTW *at)
{
    file_size += type == FTW_F ? (uint64_t)info->st_size : 0;
    return 0;
}

static uint64_t size_on_disk(void)
{
    file_size = 0;
    nftw(fake->directory, add_size, 16, FTW_PHYS);
    return file_size;
}

// Appends pages, in the order given, with a tag.
static enum graft_status append(const uint32_t *numbers, uint32_t count, uint32_t size, uint32_t tag,
                                struct graft_error *err)
{
    struct page_cache_arrival *arrivals = calloc(count, sizeof *arrivals);
    uint8_t *bytes = malloc((size_t)count * size);
    for (uint32_t i = 0; i < count; i++) {
        fill(bytes + (size_t)i * size, size, numbers[i], tag);
        arrivals[i] = (struct page_cache_arrival){
            .entry = {.number = 1,
                      .lsn = 1,
                      .checksum = checksum64(bytes + (size_t)i * size, size),
                      .pageidx = numbers[i],
                      .size = size},
            .data = bytes + (size_t)i * size,
        };
    }
    enum graft_status status = page_cache_append(fake->cache, arrivals, count, err);
    struct extent_changes changes = {0};
    for (uint32_t i = 0; i < count && status == GRAFT_OK; i++) {
        struct index_page *there = &fake->pages[numbers[i]];
        if (there->there)
            change(&changes, there->place, -(int64_t)there->size);
        *there = (struct index_page){true, size, tag, arrivals[i].place, arrivals[i].entry.checksum};
        change(&changes, there->place, there->size);
    }
    apply(&changes);
    page_cache_appended(fake->cache);
    free(arrivals);
    free(bytes);
    return status;
}

static void append_run(uint32_t first, uint32_t count, uint32_t size, uint32_t tag)
{
    uint32_t numbers[256];
    for (uint32_t i = 0; i < count; i++)
        numbers[i] = first + i;
    expect_ok(append(numbers, count, size, tag, &err));
}

static bool reads_well(uint32_t page)
{
    const struct index_page *there = &fake->pages[page];
    uint8_t bytes[PAGE_SIZE_MAX], expected[PAGE_SIZE_MAX];
    if (page_cache_read(fake->cache, there->place, bytes, there->size, NULL) != GRAFT_OK)
        return false;
    fill(expected, there->size, page, there->tag);
    return memcmp(bytes, expected, there->size) == 0;
}

static void forget(uint32_t page)
{
    struct extent_changes changes = {0};
    change(&changes, fake->pages[page].place, -(int64_t)fake->pages[page].size);
    fake->pages[page].there = false;
    apply(&changes);
}

static void check(void)
{
    struct page_cache_usage usage;
    uint64_t live = 0;
    page_cache_usage(fake->cache, &usage);
    for (uint32_t i = 0; i < PAGES; i++)
        live += fake->pages[i].there ? fake->pages[i].size : 0;
    cr_assert_eq(usage.live, live);
    cr_assert(usage.limit == 0 || usage.size <= usage.limit, "%lu MiB of %lu", usage.size / MIB,
              usage.limit / MIB);
    cr_assert_eq(size_on_disk(), usage.size);
}

static unsigned count_there(uint32_t first, uint32_t count)
{
    unsigned there = 0;
    for (uint32_t i = first; i < first + count; i++)
        there += fake->pages[i].there;
    return there;
}

Test(page_cache, keeps_what_is_read_and_drops_the_rest)
{
    expect_ok(page_cache_set_limit(fake->cache, 16 * MIB, &err));
    append_run(0, 200, 4096, 1); // read all the time
    for (uint32_t at = 200; at + 256 <= PAGES; at += 256) {
        append_run(at, 256, 4096, 1);
        for (uint32_t page = 0; page < 200; page++)
            cr_assert(reads_well(page));
        check();
    }
    cr_assert_eq(count_there(0, 200), 200);
    struct page_cache_usage usage;
    page_cache_usage(fake->cache, &usage);
    cr_assert_eq(usage.evicted_pages, fake->dropped);
    cr_assert_eq(usage.evicted_size, fake->dropped * 4096);
    cr_assert_gt(usage.live, 12 * MIB); // the cache is used
    cr_assert_gt(fake->dropped, 3500);
    cr_assert_gt(usage.moved_size, 0);
}

Test(page_cache, evicts_even_if_everything_is_read)
{
    expect_ok(page_cache_set_limit(fake->cache, CACHE_LIMIT_MIN, &err));
    for (uint32_t at = 0; at + 256 <= PAGES; at += 256) {
        append_run(at, 256, 4096, 1);
        for (uint32_t page = 0; page < at + 256; page++)
            cr_assert(!fake->pages[page].there || reads_well(page));
        check();
    }
    cr_assert_gt(count_there(0, PAGES), 800);
}

Test(page_cache, gives_the_disk_back_when_the_limit_falls)
{
    for (uint32_t at = 0; at + 256 <= PAGES; at += 256)
        append_run(at, 256, 4096, 1);
    for (uint32_t page = PAGES - 600; page < PAGES; page++)
        cr_assert(reads_well(page));
    static const uint64_t limits[] = {30, 20, 19, 9, 8, 40};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        expect_ok(page_cache_set_limit(fake->cache, limits[i] * MIB, &err));
        check();
        for (uint32_t page = 0; page < PAGES; page++)
            cr_assert(!fake->pages[page].there || reads_well(page));
        if (i == 0)
            cr_assert_eq(count_there(PAGES - 600, 600), 600);
        if (i < 5)
            cr_assert_gt(count_there(0, PAGES), limits[i] * 256 / 2);
    }
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                 page_cache_set_limit(fake->cache, CACHE_LIMIT_MIN - 1, &err));
    for (uint32_t page = 0; page < PAGES; page++) {
        if (fake->pages[page].there)
            forget(page);
    }
    expect_ok(page_cache_set_limit(fake->cache, 0, &err));
    expect_ok(page_cache_trim(fake->cache, &err)); // down to the one that is being filled
    check();
    page_cache_close(fake->cache);
    open_cache();
    cr_assert_eq(size_on_disk(), 0);
}

// Pages that arrive alone have as much header as bytes; they are written together once that is too much.
Test(page_cache, small_runs_are_written_together)
{
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t page = 0; page < 2048; page++) {
            expect_ok(append(&page, 1, 4096, round, &err));
        }
        check();
    }
    struct page_cache_usage usage;
    page_cache_usage(fake->cache, &usage);
    cr_assert_eq(usage.live, 8 * MIB);
    cr_assert_leq(usage.size, 16 * MIB, "%lu MiB", usage.size / MIB);
    cr_assert_eq(usage.evicted_pages, 0);
    for (uint32_t page = 0; page < 2048; page++)
        cr_assert(reads_well(page));
}

Test(page_cache, a_full_disk_is_like_a_limit)
{
    for (uint32_t at = 0; at < 3072; at += 256)
        append_run(at, 256, 4096, 1);
    fake->full = true;
    uint64_t size = size_on_disk();
    for (uint32_t at = 3072; at + 256 <= PAGES; at += 256)
        append_run(at, 256, 4096, 1);
    cr_assert_eq(size_on_disk(), size);
    cr_assert_gt(fake->dropped, 4000);
    check();
}

Test(page_cache, a_full_disk_and_an_empty_cache_is_an_error)
{
    uint32_t page = 0;
    fake->full = true;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, append(&page, 1, 4096, 1, &err));
    fake->full = false;
    expect_ok(append(&page, 1, 4096, 1, &err));
    cr_assert(reads_well(page));
}

Test(page_cache, what_was_oldest_is_so_after_opening_again)
{
    for (uint32_t at = 0; at + 256 <= PAGES; at += 256)
        append_run(at, 256, 4096, 1);
    page_cache_close(fake->cache);
    open_cache();
    check();
    expect_ok(page_cache_set_limit(fake->cache, 16 * MIB, &err));
    check();
    cr_assert_eq(count_there(0, PAGES / 4), 0);
    cr_assert_gt(count_there(PAGES - PAGES / 4, PAGES / 4), PAGES / 4 - 300);
}

// Changes bytes of a file, or cuts it, or takes it away.
static void damage(struct rng *rng)
{
    char path[128];
    unsigned file = (unsigned)(rng_next(rng) % 2);
    snprintf(path, sizeof path, "%s/%08x", fake->directory, file);
    int fd = open(path, O_RDWR);
    if (fd < 0)
        return;
    struct stat info;
    fstat(fd, &info);
    unsigned kind = (unsigned)(rng_next(rng) % 8);
    if (kind == 0) {
        cr_assert_eq(unlink(path), 0);
    } else if (kind == 1 && info.st_size > 0) {
        cr_assert_eq(ftruncate(fd, (off_t)(rng_next(rng) % (uint64_t)info.st_size)), 0);
    } else if (info.st_size > 0) {
        for (unsigned i = 0; i < 20; i++) {
            uint8_t byte = (uint8_t)rng_next(rng);
            // Headers as well: the first one of an extent is always at its start.
            off_t at = (off_t)(rng_next(rng) % (uint64_t)info.st_size);
            if (i % 2)
                at &= ~(off_t)(EXTENT_SIZE - 1);
            cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        }
    }
    close(fd);
}

static void random_step(struct rng *rng, uint32_t step, bool damaged)
{
    static const uint32_t sizes[] = {512, 4096, 4096, 1000, 65536, 1, 16384, 333};
    uint32_t numbers[256], count = 1 + (uint32_t)(rng_next(rng) % 200);
    uint32_t size = sizes[rng_next(rng) % 8];
    switch (rng_next(rng) % 12) {
    case 0:
        expect_ok(
            page_cache_set_limit(fake->cache, rng_below(rng, 3) ? (8 + rng_next(rng) % 24) * MIB : 0, &err));
        break;
    case 1:
        page_cache_close(fake->cache);
        if (damaged)
            damage(rng);
        open_cache();
        expect_ok(page_cache_set_limit(fake->cache, 24 * MIB, &err));
        break;
    case 2:
    case 3:
        for (uint32_t i = 0; i < count; i++) {
            uint32_t page = (uint32_t)(rng_next(rng) % PAGES);
            if (fake->pages[page].there)
                forget(page);
        }
        break;
    case 4:
        expect_ok(page_cache_trim(fake->cache, &err));
        break;
    default:
        if (size > 4096)
            count = count % 24 + 1;
        for (uint32_t i = 0; i < count; i++)
            numbers[i] = (uint32_t)((step * 977 + i) % PAGES);
        expect_ok(append(numbers, count, size, step, &err));
    }
}

static void run_model(uint64_t seed, bool damaged)
{
    struct rng rng;
    rng_seed(&rng, seed);
    unsigned bad = 0;
    expect_ok(page_cache_set_limit(fake->cache, 24 * MIB, &err));
    for (uint32_t step = 1; step < 1500; step++) {
        random_step(&rng, step, damaged);
        for (unsigned i = 0; i < 40; i++) {
            uint32_t page = (uint32_t)(rng_next(&rng) % PAGES);
            if (!fake->pages[page].there || reads_well(page))
                continue;
            cr_assert(damaged, "page %u is not what was written", page);
            forget(page); // as the owner does when the checksum does not match
            bad++;
        }
        check();
    }
    cr_assert_gt(fake->dropped, 1000);
    cr_assert_eq(bad > 0, damaged);
    cr_assert(!damaged || fake->forgotten > 0);
}

Test(page_cache, follows_random_histories)
{
    run_model(1, false);
    run_model(2, false);
}

Test(page_cache, damage_costs_pages_and_nothing_else)
{
    run_model(3, true);
    run_model(4, true);
}
