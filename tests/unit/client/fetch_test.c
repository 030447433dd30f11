// SPDX-License-Identifier: Apache-2.0
//
// Fetching from a pagestore that misbehaves.
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/client/mock_servers.h"
#include "tests/unit/client/store_fixture.h"

static struct mock_servers mock;
static char folder[64];
static struct graft *client;
static struct graft_volume *volume;
static struct graft_snapshot *snapshot;

#define PAGES 40000u // five requests of a job

static void open_client(uint32_t deadline_ms)
{
    struct gid gid = fixture_vid(1);
    struct graft_settings settings = {
        .data = folder, .metastore = mock.url, .pagestore = mock.url, .deadline_ms = deadline_ms};

    expect_ok(graft_open(&settings, &client, &err));
    expect_ok(graft_volume_clone(client, gid_format(&gid).text, &volume, &err));
    expect_ok(graft_snapshot_open(volume, &snapshot, &err));
}

static void close_client(void)
{
    graft_snapshot_release(snapshot);
    graft_volume_close(volume);
    graft_close(client);
}

static void begin(void)
{
    struct gid gid = fixture_vid(1);

    strcpy(folder, "/tmp/graft-fetch-XXXXXX");
    cr_assert(mkdtemp(folder));
    mock_start(&mock);
    mock_set_head(&mock, gid_format(&gid).text, PAGES);
    open_client(60000);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void end(void)
{
    close_client();
    mock_stop(&mock);
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(fetch, .init = begin, .fini = end);

static void all_reads(enum read_fault fault)
{
    LOCK_GUARD(&mock.lock);
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        mock.read_faults[i] = fault;
}

static enum graft_status read_page(uint32_t pageidx, struct graft_error *err)
{
    uint8_t page[MOCK_PAGE_SIZE], expected[MOCK_PAGE_SIZE];
    size_t size;

    enum graft_status status = graft_snapshot_read(snapshot, pageidx, page, sizeof page, &size, err);
    if (status == GRAFT_OK) {
        mock_page(pageidx, expected);
        cr_assert_eq(size, sizeof page);
        cr_assert_eq(memcmp(page, expected, size), 0);
    }
    return status;
}

static uint64_t available(void)
{
    struct graft_volume_info info;

    expect_ok(graft_volume_info(volume, &info, &err));
    return info.pages_available;
}

Test(fetch, a_demanded_page_is_asked_for_first_and_alone)
{
    expect_ok(read_page(7, &err));
    cr_assert_eq(mock.reads, 1);
    cr_assert_eq(mock.first[0], 7);
    cr_assert_eq(mock.read_counts[0], 1);
    expect_ok(read_page(7, &err));
    cr_assert_eq(mock.reads, 1);
}

static void read_many(struct graft_snapshot *of, uint32_t first, uint32_t step, uint32_t count)
{
    static uint8_t bytes[1000][MOCK_PAGE_SIZE];
    struct graft_page_read reads[1000];
    uint8_t expected[MOCK_PAGE_SIZE];

    for (uint32_t i = 0; i < count; i++)
        reads[i] = (struct graft_page_read){.pageidx = first + i * step, .to = bytes[i]};
    expect_ok(graft_snapshot_read_many(of, reads, count, &err));
    for (uint32_t i = 0; i < count; i++) {
        mock_page(reads[i].pageidx, expected);
        cr_assert_eq(reads[i].size, MOCK_PAGE_SIZE);
        cr_assert_eq(memcmp(bytes[i], expected, MOCK_PAGE_SIZE), 0, "page %u", reads[i].pageidx);
    }
}

Test(fetch, many_pages_are_read_with_few_requests)
{
    read_many(snapshot, 100, 7, 1000);
    cr_assert_leq(mock.reads, 1000 / 256 + 1);
    unsigned before = mock.reads;
    read_many(snapshot, 100, 7, 1000);
    cr_assert_eq(mock.reads, before);
    read_many(snapshot, 90, 1, 300); // some are here
    cr_assert_leq(mock.reads, before + 2);
    struct graft_page_read beyond = {.pageidx = PAGES + 1, .to = (uint8_t[MOCK_PAGE_SIZE]){0}};
    expect_ok(graft_snapshot_read_many(snapshot, &beyond, 1, &err));
    cr_assert_eq(beyond.size, 0);
    beyond.pageidx = 0;
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                 graft_snapshot_read_many(snapshot, &beyond, 1, &err));
}

Test(fetch, a_cache_limit_holds_while_pages_come_and_go)
{
    struct graft_cache_info info;

    expect_ok(graft_cache_limit_set(client, 8 << 20, &err));
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, graft_cache_limit_set(client, 1, &err));
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t first = 1; first + 1000 <= PAGES; first += 1000)
            read_many(snapshot, first, 1, 1000);
        expect_ok(graft_cache_info(client, &info, &err));
        cr_assert_eq(info.limit, 8 << 20);
        cr_assert_leq(info.size, info.limit);
        cr_assert_eq(info.live, available() * MOCK_PAGE_SIZE);
    }
    cr_assert_gt(info.evicted_pages, 0);
    cr_assert_eq(info.evicted_bytes, info.evicted_pages * MOCK_PAGE_SIZE);
}

Test(fetch, an_answer_about_another_snapshot_is_corrupt)
{
    all_reads(READ_OTHER_LSN);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, read_page(7, &err));
    all_reads(READ_OTHER_CHAIN);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, read_page(7, &err));
    cr_assert_eq(available(), 0);
}

Test(fetch, damage_is_the_pages_own)
{
    enum read_fault faults[] = {READ_DAMAGED, READ_BAD_BYTES, READ_SHORT};
    for (uint32_t i = 0; i < ARRAY_COUNT(faults); i++) {
        struct graft_page_range range = {100 * (i + 1), 10};
        struct graft_error why = {0};
        all_reads(faults[i]);
        cr_assert_eq(graft_hydrate(snapshot, &range, 1, &why), GRAFT_CORRUPT);
        char number[16];
        snprintf(number, sizeof number, "page %u", range.first + 9);
        cr_assert(strstr(why.message, number), "%s", why.message);
        expect_status(GRAFT_CORRUPT, read_page(range.first + 9, &err));
        // The others of its request are here, and it can be had once it is whole.
        cr_assert_eq(available(), 10 * i + 9);
        all_reads(READ_PLAIN);
        mock.reads = 0;
        expect_ok(read_page(range.first + 8, &err));
        cr_assert_eq(mock.reads, 0);
        expect_ok(read_page(range.first + 9, &err));
    }
}

Test(fetch, a_broken_stream_is_tried_again)
{
    enum read_fault faults[] = {READ_CUT, READ_LEAVE_OUT, READ_BEHIND, READ_STRANGER, READ_TWICE};
    for (uint32_t i = 0; i < ARRAY_COUNT(faults); i++) {
        mock.reads = 0;
        memset(mock.read_faults, 0, sizeof mock.read_faults);
        mock.read_faults[0] = faults[i];
        struct graft_page_range range = {1000 * (i + 1), 20};
        expect_ok(graft_hydrate(snapshot, &range, 1, &err));
        for (uint32_t page = range.first; page < range.first + 20; page++)
            expect_ok(read_page(page, &err));
        // What came before the break is kept.
        cr_assert_eq(mock.reads, faults[i] == READ_STRANGER || faults[i] == READ_TWICE ? 1 : 2, "fault %d",
                     (int)faults[i]);
        if (mock.reads == 2)
            cr_assert_eq(mock.read_counts[1], faults[i] == READ_BEHIND ? 20 : 1);
    }
}

Test(fetch, ends_at_its_deadline)
{
    close_client();
    open_client(1500); // for what fails, and enough for what does not
    all_reads(READ_BEHIND);
    expect_error(GRAFT_UNAVAILABLE, GRAFT_DETAIL_BEHIND, read_page(1, &err));
    all_reads(READ_HOLD);
    expect_error(GRAFT_UNAVAILABLE, GRAFT_DETAIL_TIMEOUT, read_page(1, &err));
    mock_release(&mock);
    expect_ok(read_page(1, &err));
    all_reads(READ_RETIRED);
    expect_error(GRAFT_GONE, GRAFT_DETAIL_RETIRED, read_page(2, &err));
}

static void *read_one(void *context)
{
    expect_ok(read_page(*(uint32_t *)context, &err));
    return NULL;
}

Test(fetch, an_error_on_a_speculative_page_does_not_fail_a_reader)
{
    struct graft_page_range range = {1, 100};
    uint32_t demanded = 50;
    pthread_t reader;

    // The reader waits for a request that fails as a whole, and asks by itself then.
    all_reads(READ_HOLD);
    expect_ok(graft_prefetch(snapshot, &range, 1, &err));
    mock_await_held(&mock, 1);
    cr_assert_eq(pthread_create(&reader, NULL, read_one, &demanded), 0);
    // That it waits shows nowhere; if it comes late the test only proves less.
    usleep(100000);
    cr_assert_eq(mock.reads, 1);
    mock_refuse(&mock);
    pthread_join(reader, NULL);
    cr_assert_eq(mock.first[1], 50);
    // A damaged page beside it does not fail it either.
    range.first = 200;
    mock.reads = 0;
    mock.read_faults[0] = READ_DAMAGED;
    expect_ok(graft_prefetch(snapshot, &range, 1, &err));
    expect_ok(read_page(250, &err));
    expect_ok(read_page(299, &err));
}

Test(fetch, a_window_of_requests_and_a_demanded_page_past_it)
{
    struct graft_page_range all = {1, PAGES};
    uint32_t demanded = PAGES;
    pthread_t reader;

    all_reads(READ_HOLD);
    expect_ok(graft_prefetch(snapshot, &all, 1, &err));
    mock_await_held(&mock, 4);
    // Page 40000 is in none of the four: its reader asks by itself, and does not wait for them.
    cr_assert_eq(pthread_create(&reader, NULL, read_one, &demanded), 0);
    mock_await_held(&mock, 5);
    cr_assert_eq(mock.first[4], demanded);
    cr_assert_eq(mock.held_most, 5);
    mock_release(&mock);
    pthread_join(reader, NULL);
    expect_ok(graft_hydrate(snapshot, &all, 1, &err));
    cr_assert_eq(available(), PAGES);
    struct graft_volume_info info;
    expect_ok(graft_volume_info(volume, &info, &err));
    cr_assert_eq(info.fetch.pages, PAGES);
    cr_assert_eq(info.fetch.requests, mock.reads);
}

Test(fetch, readers_of_one_page_share_its_request)
{
    pthread_t readers[8];
    uint32_t page = 3;

    all_reads(READ_HOLD);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(pthread_create(&readers[i], NULL, read_one, &page), 0);
    mock_await_held(&mock, 1);
    mock_release(&mock);
    for (unsigned i = 0; i < 8; i++)
        pthread_join(readers[i], NULL);
    cr_assert_eq(mock.reads, 1);
}

Test(fetch, closing_cancels_what_is_under_way)
{
    struct graft_page_range all = {1, PAGES};

    all_reads(READ_HOLD);
    expect_ok(graft_prefetch(snapshot, &all, 1, &err));
    mock_await_held(&mock, 4);
    close_client();
    mock_release(&mock);
    open_client(10000);
    expect_ok(read_page(1, &err));
}
