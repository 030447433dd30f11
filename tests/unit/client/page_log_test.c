// SPDX-License-Identifier: Apache-2.0
//
// The page log: damage and torn tails, groups, failures, claims, threads, and walking extents.
#include "client/page_log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/checksum.h"
#include "tests/unit/client/lossy_disk.h"
#include "tests/unit/client/store_fixture.h"

#define STORE 99
#define EPOCH 7
#define SEEN_MAX 2000u

static char folder[64];
static struct extents *extents;
static struct page_log *log_;
static struct page_log_claims kept;
static unsigned keeps;
static uint8_t page[PAGE_SIZE_MAX];

static enum graft_status keep_claims(void *context, const struct page_log_claims *claims,
                                     struct graft_error *err)
{
    kept = *claims;
    keeps++;
    return GRAFT_OK;
}

static void open_extents(void)
{
    struct extents_settings settings = {.directory = folder,
                                        .durable = true,
                                        .open_files_max = 4,
                                        .pwritev = lossy_disk_pwritev,
                                        .fdatasync = lossy_disk_fdatasync};
    expect_ok(extents_open(&settings, &extents, &err));
}

static void open_log(uint64_t epoch)
{
    struct page_log_settings settings = {
        .extents = extents, .store = STORE, .epoch = epoch, .keep_claims = keep_claims};
    expect_ok(page_log_new(&settings, &log_, &err));
}

static void setup(void)
{
    strcpy(folder, "/tmp/graft-page-log-XXXXXX");
    cr_assert(mkdtemp(folder));
    lossy_disk_reset();
    memset(page, 'p', sizeof page);
    open_extents();
    extents_start(extents);
    open_log(EPOCH);
}

static void teardown(void)
{
    page_log_free(log_);
    extents_close(extents);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(page_log, .init = setup, .fini = teardown);

// An append of so many pages; the caller has room for them.
static struct page_log_append make(uint64_t lsn, uint32_t count, uint32_t size, struct page_log_page *pages)
{
    for (uint32_t i = 0; i < count; i++)
        pages[i] = (struct page_log_page){.entry = {.number = 1,
                                                    .lsn = lsn,
                                                    .checksum = checksum64(page, size),
                                                    .pageidx = i + 1,
                                                    .size = size},
                                          .data = page};
    return (struct page_log_append){
        .header = {.kind = RUN_COMMIT, .complete = true, .number = 1, .lsn = lsn, .cut = UINT32_MAX},
        .pages = pages,
        .page_count = count};
}

static struct page_log_append append(uint64_t lsn, uint32_t count, bool sync)
{
    static struct page_log_page pages[5000];
    struct page_log_append commit = make(lsn, count, 4096, pages);
    expect_ok(page_log_append(log_, &commit, 1, sync, &err));
    return commit;
}

// ---- what a replay sees

static struct {
    struct run_header runs[SEEN_MAX];
    bool whole[SEEN_MAX];
    unsigned count;
    struct {
        uint64_t from, to;
        bool named;
    } damage[16];
    unsigned damages;
} seen;

static enum graft_status see(void *context, const struct page_log_run *run, struct graft_error *err)
{
    cr_assert_lt(seen.count, SEEN_MAX);
    seen.whole[seen.count] = run->whole;
    seen.runs[seen.count++] = run->header;
    return GRAFT_OK;
}

static void see_damage(void *context, const struct page_log_run *run, uint64_t from, uint64_t to,
                       const char *where)
{
    cr_assert(strstr(where, "00000000 at "), "%s", where);
    seen.damage[seen.damages].from = from;
    seen.damage[seen.damages].to = to;
    seen.damage[seen.damages++].named = run;
}

static bool verify(void *context, const struct run_entry *entry, const void *data)
{
    return checksum64(data, entry->size) == entry->checksum;
}

static void replay(void)
{
    struct page_log_replay replay = {
        .store = STORE, .claims = &kept, .verify = verify, .visit = see, .damaged = see_damage};
    memset(&seen, 0, sizeof seen);
    expect_ok(page_log_replay(extents, &replay, &err));
}

// "1 2 3!": the LSNs of the runs seen, with a mark for those that were not whole.
static const char *lsns_seen(void)
{
    static char text[400];
    size_t size = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < seen.count; i++)
        size += (size_t)snprintf(text + size, sizeof text - size, "%s%llu%s", i ? " " : "",
                                 (unsigned long long)seen.runs[i].lsn, seen.whole[i] ? "" : "!");
    return text;
}

static void flip(uint64_t place, uint32_t offset)
{
    uint8_t byte;
    expect_ok(extents_read(extents, place + offset, &byte, 1, &err));
    byte ^= 0x10;
    expect_ok(extents_write(extents, place + offset, &(struct iovec){&byte, 1}, 1, &err));
}

Test(page_log, comes_back_in_order)
{
    for (uint64_t lsn = 1; lsn <= 5; lsn++)
        append(lsn, (uint32_t)lsn, lsn % 2);
    replay();
    cr_assert_str_eq(lsns_seen(), "1 2 3 4 5");
    cr_assert_eq(seen.damages, 0);
}

Test(page_log, splits_a_commit_at_the_end_of_an_extent)
{
    struct page_log_append commit = append(1, 3000, true);
    cr_assert_geq(commit.parts, 12);
    cr_assert_eq(commit.last_seq - commit.first_seq + 1, commit.parts);
    replay();
    cr_assert_eq(seen.count, commit.parts);
    uint32_t pages = 0;
    for (unsigned i = 0; i < seen.count; i++) {
        cr_assert_eq(seen.runs[i].part, i);
        cr_assert_eq(seen.runs[i].complete, i + 1 == seen.count);
        cr_assert_eq(seen.runs[i].first, i == 0);
        pages += seen.runs[i].count;
    }
    cr_assert_eq(pages, 3000);
}

Test(page_log, damage_is_told_from_the_torn_tail)
{
    struct page_log_append commits[6];
    for (uint64_t lsn = 1; lsn <= 6; lsn++)
        commits[lsn - 1] = append(lsn, 2, lsn <= 4);
    // The header of 5 says that 1 to 4 are synced; 5 and 6 are not known to be.
    flip(commits[1].last_place, 4096 + 10);
    replay();
    cr_assert_str_eq(lsns_seen(), "1 2! 3 4 5 6");
    cr_assert(seen.damages == 1 && seen.damage[0].named && seen.damage[0].from == 2 &&
              seen.damage[0].to == 2);

    flip(commits[2].last_place, 70);
    flip(commits[3].last_place, 150);
    replay();
    cr_assert_str_eq(lsns_seen(), "1 2! 5 6");
    cr_assert(seen.damages == 2 && !seen.damage[1].named && seen.damage[1].from == 3 &&
              seen.damage[1].to == 4);

    flip(commits[4].last_place, 4096);
    replay();
    cr_assert_str_eq(lsns_seen(), "1 2!");
    cr_assert(seen.damages == 2 && seen.damage[1].from == 3 && seen.damage[1].to == 4,
              "5 is torn, but what it says of those before it holds");

    flip(commits[0].last_place, 8);
    flip(commits[4].last_place, 0);
    replay();
    cr_assert_str_eq(lsns_seen(), "2!", "6 is behind a run that was never synced, and says that 4 was");
    cr_assert(seen.damages == 3 && seen.damage[0].from == 1 && seen.damage[2].to == 4);
}

Test(page_log, a_torn_tail_is_not_revived_by_what_takes_its_place)
{
    append(1, 1, true);
    struct page_log_append torn = append(2, 3, false);
    append(3, 1, false); // stays on the disk behind it
    flip(torn.last_place, 4096);
    replay();
    cr_assert_str_eq(lsns_seen(), "1");

    // Another opening writes the same LSNs to the same places.
    page_log_free(log_);
    extents_close(extents);
    open_extents();
    extents_start(extents);
    open_log(EPOCH + 1);
    append(2, 3, true);
    cr_assert_eq(kept.epoch, EPOCH + 1);
    struct page_log_append second = append(3, 3, true);
    cr_assert_neq(second.last_place, 0);
    replay();
    cr_assert_str_eq(lsns_seen(), "2 3");
}

Test(page_log, a_run_that_follows_another_history_is_not_taken)
{
    struct page_log_append last = append(1, 1, true);
    uint8_t bytes[RUN_ALIGNMENT] = {0};
    for (unsigned right = 0; right < 2; right++) {
        struct run_header header = {.kind = RUN_COMMIT, .store = STORE, .epoch = EPOCH, .seq = 2, .lsn = 2};
        struct run_header before;
        uint8_t first[256];
        expect_ok(extents_read(extents, last.last_place, first, sizeof first, &err));
        cr_assert(run_decode((struct bytes){first, sizeof first}, STORE, EXTENT_SIZE, &before, NULL));
        header.chain_before = before.chain + 1 - right;
        run_encode(&header, NULL, bytes);
        expect_ok(extents_write(extents, 8192, &(struct iovec){bytes, sizeof bytes}, 1, &err));
        replay();
        cr_assert_str_eq(lsns_seen(), right ? "1 2" : "1");
    }
}

static void append_group(uint64_t first_lsn, unsigned count, struct page_log_append *group)
{
    static struct page_log_page pages[4][300];
    for (unsigned i = 0; i < count; i++) {
        group[i] = make(first_lsn + i, 300, 4096, pages[i]);
        group[i].header.group_index = (uint16_t)i;
        group[i].header.group_count = (uint16_t)count;
    }
    expect_ok(page_log_append(log_, group, count, true, &err));
}

Test(page_log, a_group_is_there_whole_or_not_at_all)
{
    struct page_log_append group[3];
    append(1, 1, true);
    append_group(2, 3, group);
    replay();
    cr_assert_eq(seen.runs[seen.count - 1].lsn, 4);
    flip(group[2].last_place, 4096 * 5);
    replay();
    cr_assert_str_eq(lsns_seen(), "1", "the last member is torn");
    flip(group[2].last_place, 4096 * 5);

    append(5, 1, true);
    append(6, 1, true);
    unsigned whole = 0;
    flip(group[1].last_place, 30);
    replay();
    for (unsigned i = 0; i < seen.count; i++)
        whole += seen.runs[i].complete;
    cr_assert_eq(whole, 5, "it was synced, and nothing that can be read is dropped");
    cr_assert_eq(seen.damages, 1);
    flip(group[1].last_place, 30);

    expect_ok(page_log_void(log_, &group[1], &err));
    replay();
    cr_assert_str_eq(lsns_seen(), "1 5 6");
}

Test(page_log, a_commit_taken_back_is_a_void)
{
    append(1, 1, true);
    struct page_log_append gone = append(2, 100, true);
    append(3, 1, true);
    expect_ok(page_log_void(log_, &gone, &err));
    append(4, 1, true);
    replay();
    cr_assert_str_eq(lsns_seen(), "1 2 3 4");
    cr_assert_eq(seen.runs[1].kind, RUN_VOID);
}

Test(page_log, a_failed_write_leaves_nothing_and_its_place_is_used)
{
    append(1, 1, true);
    struct page_log_page pages[200];
    for (unsigned round = 0; round < 28; round++) {
        struct page_log_append failed = make(2, 200, 4096, pages);
        lossy_disk.write_error = round % 2 ? ENOSPC : EIO;
        lossy_disk.room = round * 30000;
        lossy_disk.fails_max = 1;
        expect_error(GRAFT_INTERNAL, round % 2 ? GRAFT_DETAIL_NO_SPACE : GRAFT_DETAIL_IO,
                     page_log_append(log_, &failed, 1, true, &err));
        lossy_disk.room = SIZE_MAX;
        replay();
        cr_assert_str_eq(lsns_seen(), "1");
    }
    struct page_log_append there = append(2, 1, true);
    cr_assert_eq(there.first_seq, 2);
    cr_assert_eq(there.last_place, 2 * 4096);
    replay();
    cr_assert_str_eq(lsns_seen(), "1 2");
}

Test(page_log, several_runs_of_a_failed_commit_are_all_taken_back)
{
    append(1, 1, true);
    static struct page_log_page pages[2000];
    struct page_log_append failed = make(2, 2000, 4096, pages);
    lossy_disk.room = 9 << 20;
    // The claims ahead take some of it, three extents are written whole, and the fourth in part.
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, page_log_append(log_, &failed, 1, true, &err));
    // It cannot be taken back yet, so nothing else is written.
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, page_log_append(log_, &failed, 1, true, &err));
    lossy_disk.room = 3 * RUN_SECTOR_SIZE;
    struct page_log_append next = make(2, 1, 4096, pages);
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, page_log_append(log_, &next, 1, true, &err));
    lossy_disk.room = SIZE_MAX;
    uint8_t *block = malloc(EXTENT_SIZE);
    for (uint32_t extent = 0; extent < extents_end(extents); extent++) {
        expect_ok(extents_read(extents, place_make(extent, 0), block, EXTENT_SIZE, &err));
        for (uint32_t at = extent == 0 ? 8192 : 0; at < EXTENT_SIZE; at += 4096) {
            struct run_header header;
            cr_assert_not(run_decode((struct bytes){block + at, EXTENT_SIZE - at}, STORE, EXTENT_SIZE - at,
                                     &header, NULL),
                          "extent %u, %u", extent, at);
        }
    }
    free(block);
    append(2, 2000, true);
    replay();
    cr_assert_eq(seen.runs[seen.count - 1].lsn, 2);
    cr_assert(seen.runs[seen.count - 1].complete);
}

Test(page_log, fails_for_good_after_a_failed_sync)
{
    append(1, 1, true);
    struct page_log_page pages[1];
    struct page_log_append failed = make(2, 1, 4096, pages);
    lossy_disk.sync_fails = 1;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, page_log_append(log_, &failed, 1, true, &err));
    unsigned writes = lossy_disk.writes;
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, page_log_append(log_, &failed, 1, false, &err));
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, page_log_sync(log_, &err));
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, page_log_claim_ahead(log_, 10, &err));
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_IO, page_log_void(log_, &failed, &err));
    cr_assert_eq(lossy_disk.writes, writes);
}

// ---- claims

Test(page_log, claims_are_few_and_leave_when_all_was_applied)
{
    struct page_log_append commits[60];
    for (unsigned i = 0; i < 60; i++) {
        commits[i] = append(i + 1, 200, true);
        if (i != 20)
            page_log_applied(log_, &commits[i]);
        if (i < 20)
            cr_assert_leq(kept.count, PAGE_LOG_CLAIM_EXTENTS + 2);
    }
    cr_assert_geq(kept.count, 30, "commit 21 was not applied, so all from it on are claimed");
    replay();
    cr_assert_leq(seen.runs[0].lsn, 21);
    page_log_applied(log_, &commits[20]);
    expect_ok(page_log_claim_ahead(log_, 8, &err));
    cr_assert_leq(kept.count, 8 + PAGE_LOG_CLAIM_EXTENTS + 1);
    uint64_t live;
    cr_assert_eq(extents_state(extents, place_extent(commits[0].last_place), &live), EXTENT_EMPTY);
    unsigned before = keeps;
    expect_ok(page_log_claim_ahead(log_, 8, &err));
    for (unsigned i = 0; i < 8; i++)
        append(100 + i, 200, false);
    cr_assert_eq(keeps, before, "there was room ahead");
}

Test(page_log, a_claim_without_space_fails_the_commit_only)
{
    append(1, 200, true);
    lossy_disk.room = 0;
    struct page_log_page pages[1500];
    struct page_log_append failed = make(2, 1500, 4096, pages);
    expect_error(GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, page_log_append(log_, &failed, 1, true, &err));
    lossy_disk.room = SIZE_MAX;
    replay();
    cr_assert_str_eq(lsns_seen(), "1");
    append(2, 1500, true);
}

static void refuse(struct bytes value, enum graft_detail detail)
{
    static struct page_log_claims claims;
    expect_error(GRAFT_CORRUPT, detail, page_log_claims_decode(value, &claims, &err));
}

Test(page_log, claims_come_back_as_they_were)
{
    static struct page_log_claims claims, read;
    static uint8_t bytes[PAGE_LOG_CLAIMS_SIZE_MAX + 1];
    static const uint32_t counts[] = {0, 1, 7, PAGE_LOG_CLAIMS_MAX};
    for (size_t at = 0; at < ARRAY_COUNT(counts); at++) {
        claims = (struct page_log_claims){.epoch = 5, .seq = 6, .chain = 7, .count = counts[at]};
        for (uint32_t i = 0; i < counts[at]; i++)
            claims.extents[i] = counts[at] * 3 - i;
        size_t size = page_log_claims_encode(&claims, bytes);
        cr_assert_leq(size, PAGE_LOG_CLAIMS_SIZE_MAX);
        expect_ok(page_log_claims_decode((struct bytes){bytes, size}, &read, &err));
        cr_assert_eq(memcmp(&claims, &read, sizeof claims), 0);
        for (size_t bit = 0; bit < MIN(size * 8, 600u); bit++) {
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            cr_assert_eq(page_log_claims_decode((struct bytes){bytes, size}, &read, NULL), GRAFT_CORRUPT);
            bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        refuse((struct bytes){bytes, size - 1}, GRAFT_DETAIL_BAD_MESSAGE);
        refuse((struct bytes){bytes, size + 1}, GRAFT_DETAIL_BAD_MESSAGE);
        refuse((struct bytes){bytes, 0}, GRAFT_DETAIL_BAD_MESSAGE);
    }
    claims = (struct page_log_claims){.count = 2, .extents = {4, 4}};
    refuse((struct bytes){bytes, page_log_claims_encode(&claims, bytes)}, GRAFT_DETAIL_BAD_MESSAGE);
    claims.extents[1] = EXTENTS_MAX;
    refuse((struct bytes){bytes, page_log_claims_encode(&claims, bytes)}, GRAFT_DETAIL_BAD_MESSAGE);
}

// ---- walking an extent

static void walk(uint32_t extent)
{
    memset(&seen, 0, sizeof seen);
    expect_ok(page_log_walk(extents, STORE, extent, NULL, see, &err));
}

Test(page_log, an_extent_is_walked_up_to_what_an_earlier_use_left)
{
    struct page_log_append commits[20];
    for (unsigned i = 0; i < 20; i++)
        commits[i] = append(i + 1, 2, true);
    walk(0);
    cr_assert_eq(seen.count, 20);
    flip(commits[4].last_place, 20);
    walk(0);
    cr_assert_eq(seen.count, 19, "damage is stepped over");
    page_log_free(log_);
    extents_close(extents);
    open_extents();
    extents_start(extents);
    open_log(EPOCH + 1);
    append(50, 2, true);
    append(51, 2, true);
    walk(0);
    cr_assert_eq(seen.count, 2);
    cr_assert_eq(seen.runs[1].lsn, 51);
}

// ---- threads

#define THREADS 8
#define COMMITS 150

static void *commit_many(void *argument)
{
    uint64_t thread = (uintptr_t)argument;
    struct page_log_page pages[40];
    for (uint64_t i = 0; i < COMMITS; i++) {
        struct page_log_append commit = make(thread << 32 | i, (uint32_t)(i % 40), 4096, pages);
        expect_ok(page_log_append(log_, &commit, 1, i % 4 != 0, &err));
        if (thread == 0 && i % 10 == 0)
            expect_ok(page_log_claim_ahead(log_, 6, &err));
        if (thread == 1 && i % 10 == 0)
            expect_ok(page_log_sync(log_, &err));
        uint8_t read[4096];
        for (uint32_t at = 0; at < commit.page_count; at += 7)
            expect_ok(extents_read(extents, pages[at].place, read, sizeof read, &err));
        if (i + 1 < COMMITS)
            page_log_applied(log_, &commit);
    }
    return NULL;
}

Test(page_log, threads_commit_together)
{
    lossy_disk.sync_us = 500; // so that commits wait for one another
    pthread_t threads[THREADS];
    struct page_log_append first = append(1ull << 60, 1, false);
    for (uintptr_t i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, commit_many, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    expect_ok(page_log_sync(log_, &err));
    page_log_applied(log_, &first);
    cr_log_info("%u commits, %u writes, %u syncs, %u claims", THREADS * COMMITS, lossy_disk.writes,
                lossy_disk.syncs, keeps);
    cr_assert_lt(lossy_disk.syncs, THREADS * COMMITS / 2, "of 900 that wanted one");
    replay();
    uint64_t next[THREADS] = {0};
    for (unsigned i = 0; i < seen.count; i++) {
        if (seen.runs[i].lsn == 1ull << 60)
            continue;
        uint64_t thread = seen.runs[i].lsn >> 32, number = seen.runs[i].lsn & UINT32_MAX;
        cr_assert(thread < THREADS && number >= next[thread], "each thread's commits are in its order");
        next[thread] = seen.runs[i].complete ? number + 1 : number;
    }
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(next[i], COMMITS);
    cr_assert_eq(seen.damages, 0);
}
