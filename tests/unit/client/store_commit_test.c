// SPDX-License-Identifier: Apache-2.0
//
// Commits of several volumes, and what an opening replays of them. A crash is a copy of the directory, made while nobody
// writes: with durability normal the index of the latest commits is in memory only, and the log has them.
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/store_internal.h"
#include "tests/unit/client/store_fixture.h"

#define VOLUMES 3u
#define PAGE_SIZE 4096u

static struct store_fixture fixture;
static struct store_volume *volumes[VOLUMES];

static void begin(void)
{
    fixture = (struct store_fixture){
        .settings = {.durability = GRAFT_DURABILITY_NORMAL, .writer_memory_size = 64 * KIB}};
    fixture_begin(&fixture);
    // In another order than that of their numbers.
    for (unsigned i = 0; i < VOLUMES; i++)
        volumes[VOLUMES - 1 - i] = fixture_create(&fixture, i + 1, PAGE_SIZE);
}

static void close_volumes(void)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        store_volume_close(TAKE(volumes[i]));
}

static void open_volumes(void)
{
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct gid vid = fixture_vid(VOLUMES - i);
        expect_ok(store_volume_open(fixture.store, &vid, &volumes[i], &err));
    }
}

static void end(void)
{
    close_volumes();
    fixture_end(&fixture);
}

TestSuite(store_commit, .init = begin, .fini = end, .timeout = 60);

static void write_pages(struct store_writer *writer, uint32_t first, uint32_t count, uint32_t tag)
{
    uint8_t page[PAGE_SIZE];
    for (uint32_t pageidx = first; pageidx < first + count; pageidx++) {
        fixture_fill(page, sizeof page, pageidx, tag);
        expect_ok(store_writer_write(writer, pageidx, page, sizeof page, &err));
    }
}

static void begin_all(struct store_writer *writers[VOLUMES])
{
    for (unsigned i = 0; i < VOLUMES; i++)
        expect_ok(store_writer_begin(volumes[i], &writers[i], &err));
}

static uint64_t head_of(unsigned volume)
{
    struct store_state state;
    store_volume_state(volumes[volume], &state);
    return state.local_lsn;
}

static void expect_pages(unsigned volume, uint32_t first, uint32_t count, uint32_t tag)
{
    struct store_pin *pin;
    expect_ok(store_pin_open(volumes[volume], &pin, &err));
    for (uint32_t pageidx = first; pageidx < first + count; pageidx++)
        expect_page(pin, pageidx, tag);
    store_pin_release(pin);
}

// Goes on in a copy of the directory, as after kill -9.
static void crash(void (*damage)(void))
{
    struct store_fixture before = fixture;
    char command[256];
    if (damage)
        damage();
    snprintf(fixture.directory, sizeof fixture.directory, "%.54s-crash", before.directory);
    snprintf(command, sizeof command, "cp -r %s %s", before.directory, fixture.directory);
    cr_assert_eq(system(command), 0);
    close_volumes();
    fixture_end(&before);
    fixture_open(&fixture);
    open_volumes();
}

static void commit_all(uint32_t first, uint32_t count, uint32_t tag)
{
    struct store_writer *writers[VOLUMES];
    uint64_t lsns[VOLUMES];
    begin_all(writers);
    for (unsigned i = 0; i < VOLUMES; i++)
        write_pages(writers[i], first, count, tag + i);
    expect_ok(store_writer_commit_all(writers, VOLUMES, lsns, &err));
    for (unsigned i = 0; i < VOLUMES; i++)
        cr_assert_eq(lsns[i], head_of(i));
}

Test(store_commit, of_several_volumes_lands_in_all)
{
    commit_all(1, 4, 10);
    commit_all(3, 4, 20);
    for (unsigned i = 0; i < VOLUMES; i++) {
        cr_assert_eq(head_of(i), 2);
        expect_pages(i, 1, 2, 10 + i);
        expect_pages(i, 3, 4, 20 + i);
    }
    expect_exact_accounts(&fixture);
}

Test(store_commit, of_several_volumes_leaves_out_who_changed_nothing)
{
    struct store_writer *writers[VOLUMES];
    uint64_t lsns[VOLUMES];
    begin_all(writers);
    write_pages(writers[1], 1, 1, 7);
    expect_ok(store_writer_commit_all(writers, VOLUMES, lsns, &err));
    cr_assert(lsns[0] == 0 && lsns[1] == 1 && lsns[2] == 0);
    begin_all(writers);
    expect_ok(store_writer_commit_all(writers, VOLUMES, NULL, &err));
    cr_assert_eq(head_of(1), 1);
}

Test(store_commit, of_several_volumes_lands_in_none_if_one_was_overtaken)
{
    struct store_writer *writers[VOLUMES];
    begin_all(writers);
    for (unsigned i = 0; i < VOLUMES; i++)
        write_pages(writers[i], 1, 30, 5); // staged
    fixture_commit(volumes[2], 1, 1, 9);
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
                 store_writer_commit_all(writers, VOLUMES, NULL, &err));
    cr_assert(head_of(0) == 0 && head_of(1) == 0 && head_of(2) == 1);
    expect_exact_accounts(&fixture);
    commit_all(1, 30, 11);
    for (unsigned i = 0; i < VOLUMES; i++)
        expect_pages(i, 1, 30, 11 + i);
    expect_exact_accounts(&fixture);
}

Test(store_commit, of_several_volumes_takes_each_once_and_not_too_many)
{
    struct store_writer *twice[2], *many[COMMIT_VOLUMES_MAX + 1];
    for (unsigned i = 0; i < 2; i++)
        expect_ok(store_writer_begin(volumes[0], &twice[i], &err));
    expect_error(GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT, store_writer_commit_all(twice, 2, NULL, &err));
    for (unsigned i = 0; i < ARRAY_COUNT(many); i++)
        expect_ok(store_writer_begin(volumes[0], &many[i], &err));
    expect_error(GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE,
                 store_writer_commit_all(many, ARRAY_COUNT(many), NULL, &err));
}

Test(store_commit, of_several_volumes_is_replayed_whole)
{
    commit_all(1, 4, 10);
    commit_all(2, 40, 20); // staged in parts
    for (unsigned i = 0; i < VOLUMES; i++)
        fixture_commit(volumes[i], 50, 1, 30);
    crash(NULL);
    for (unsigned i = 0; i < VOLUMES; i++) {
        cr_assert_eq(head_of(i), 3);
        expect_pages(i, 1, 1, 10 + i);
        expect_pages(i, 2, 40, 20 + i);
        expect_pages(i, 50, 1, 30);
    }
    expect_exact_accounts(&fixture);
    crash(NULL); // what was replayed is durable, and once is enough
    for (unsigned i = 0; i < VOLUMES; i++)
        expect_pages(i, 2, 40, 20 + i);
    expect_exact_accounts(&fixture);
}

static void flip_last(void)
{
    fixture_flip_page(&fixture, volumes[0], 1, 2, 11);
}

Test(store_commit, of_several_volumes_is_not_replayed_in_part)
{
    commit_all(1, 4, 10);
    commit_all(1, 4, 20);
    crash(flip_last); // of the run that was written last: a torn tail
    for (unsigned i = 0; i < VOLUMES; i++) {
        cr_assert_eq(head_of(i), 1);
        expect_pages(i, 1, 4, 10 + i);
    }
    expect_exact_accounts(&fixture);
    commit_all(1, 4, 30);
    crash(NULL);
    for (unsigned i = 0; i < VOLUMES; i++) {
        cr_assert_eq(head_of(i), 2);
        expect_pages(i, 1, 4, 30 + i);
    }
}

Test(store_commit, that_was_staged_and_cut_is_replayed_as_it_was)
{
    struct store_writer *writer;
    fixture_commit(volumes[0], 1, 20, 1);
    expect_ok(store_writer_begin(volumes[0], &writer, &err));
    write_pages(writer, 1, 60, 2);
    expect_ok(store_writer_truncate(writer, 10, &err));
    write_pages(writer, 5, 3, 3);
    write_pages(writer, 40, 40, 4);
    expect_ok(store_writer_truncate(writer, 70, &err));
    expect_ok(store_writer_commit(writer, NULL, &err));
    crash(NULL);
    struct store_pin *pin;
    expect_ok(store_pin_open(volumes[0], &pin, &err));
    cr_assert_eq(store_pin_page_count(pin), 70);
    for (uint32_t pageidx = 1; pageidx <= 70; pageidx++) {
        if (pageidx > 10 && pageidx < 40)
            expect_state(pin, pageidx, STORE_PAGE_EMPTY);
        else
            expect_page(pin, pageidx, pageidx >= 40 ? 4 : pageidx >= 5 && pageidx <= 7 ? 3 : 2);
    }
    store_pin_release(pin);
    expect_exact_accounts(&fixture);
}

Test(store_commit, that_was_given_up_leaves_nothing_to_a_replay)
{
    struct store_writer *writer;
    fixture_commit(volumes[0], 1, 20, 1);
    for (unsigned i = 0; i < 3; i++) {
        expect_ok(store_writer_begin(volumes[0], &writer, &err));
        write_pages(writer, 1, 60, 2);
        store_writer_abort(writer);
    }
    fixture_commit(volumes[0], 10, 1, 3);
    crash(NULL);
    cr_assert_eq(head_of(0), 2);
    expect_pages(0, 1, 9, 1);
    expect_pages(0, 10, 1, 3);
    expect_pages(0, 11, 10, 1);
    expect_exact_accounts(&fixture);
}

// ---- damage

static void run_command(const char *format, const char *directory)
{
    char command[512];
    snprintf(command, sizeof command, format, directory, directory);
    cr_assert_eq(system(command), 0, "%s", command);
}

static void reopen_with_full_durability(void)
{
    close_volumes();
    fixture_close(&fixture);
    fixture.settings.durability = GRAFT_DURABILITY_FULL;
    fixture_open(&fixture);
    open_volumes();
}

// Goes on with the page files of now and the index as keep_index() found it: as after a power loss that took the index,
// which is not synced.
static void keep_index(void)
{
    run_command("cp -r %s/local %s/kept", fixture.directory);
}

static void lose_power(void)
{
    char directory[64];
    snprintf(directory, sizeof directory, "%s", fixture.directory);
    snprintf(fixture.directory, sizeof fixture.directory, "%.54s-crash", directory);
    char command[512];
    snprintf(command, sizeof command, "cp -r %s %s && rm -r %s/local && mv %s/kept %s/local", directory,
             fixture.directory, fixture.directory, fixture.directory, fixture.directory);
    cr_assert_eq(system(command), 0, "%s", command);
    close_volumes();
    struct store_fixture before = fixture;
    snprintf(before.directory, sizeof before.directory, "%s", directory);
    fixture_end(&before);
    fixture_open(&fixture);
    open_volumes();
}

// The header of the run of a single page of 4 KiB lies right before it.
static void flip_header(unsigned volume, uint32_t pageidx, uint64_t lsn)
{
    fixture_flip_byte(&fixture, fixture_version(volumes[volume], pageidx, lsn).place - PAGE_SIZE);
}

Test(store_commit, that_cannot_be_read_is_told_and_takes_no_later_one_along)
{
    struct token token = {.bytes = {1}};
    struct store_state state;
    struct store_push push;
    reopen_with_full_durability();
    fixture_commit(volumes[0], 1, 1, 1);
    fixture_commit(volumes[1], 1, 1, 1);
    keep_index();
    fixture_commit(volumes[0], 2, 1, 2);
    fixture_commit(volumes[0], 3, 1, 3);
    fixture_commit(volumes[1], 2, 1, 2);
    flip_header(0, 2, 2);
    lose_power();
    cr_assert(head_of(0) == 3 && head_of(1) == 2);
    expect_pages(1, 1, 1, 1);
    expect_pages(1, 2, 1, 2);
    expect_pages(0, 1, 1, 1);
    expect_pages(0, 3, 1, 3);
    store_volume_state(volumes[1], &state);
    cr_assert_eq(state.status, GRAFT_VOLUME_OK);
    store_volume_state(volumes[0], &state);
    cr_assert_eq(state.status, GRAFT_VOLUME_CORRUPT);
    cr_assert(strstr(state.status_error.message, "commits 2 to 2 are lost"), "%s",
              state.status_error.message);
    expect_status(GRAFT_CORRUPT, store_push_begin(volumes[0], &token, &push, &err));
    expect_ok(store_push_begin(volumes[1], &token, &push, &err));
    expect_exact_accounts(&fixture);
    fixture_commit(volumes[0], 1, 3, 4);
    expect_pages(0, 1, 3, 4);
    expect_exact_accounts(&fixture);
}

Test(store_commit, with_a_damaged_page_is_replayed_and_that_page_is_corrupt)
{
    uint8_t page[PAGE_SIZE];
    struct store_page found;
    struct store_pin *pin;
    reopen_with_full_durability();
    fixture_commit(volumes[0], 1, 4, 1);
    keep_index();
    fixture_commit(volumes[0], 1, 4, 2);
    fixture_flip_page(&fixture, volumes[0], 3, 2, 100);
    fixture_commit(volumes[0], 5, 1, 3);
    lose_power();
    cr_assert_eq(head_of(0), 3);
    expect_pages(0, 1, 2, 2);
    expect_pages(0, 4, 1, 2);
    expect_pages(0, 5, 1, 3);
    expect_ok(store_pin_open(volumes[0], &pin, &err));
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_BAD_CHECKSUM,
                 store_read(pin, 3, page, sizeof page, &found, &err));
    store_pin_release(pin);
    expect_exact_accounts(&fixture);
}

Test(store_commit, survives_a_power_loss_that_took_the_index)
{
    reopen_with_full_durability();
    commit_all(1, 4, 10);
    keep_index();
    commit_all(3, 30, 20);
    for (uint32_t i = 0; i < 40; i++)
        fixture_commit(volumes[i % VOLUMES], 1, 1, 100 + i);
    lose_power();
    for (unsigned i = 0; i < VOLUMES; i++) {
        expect_pages(i, 2, 1, 10 + i);
        expect_pages(i, 3, 30, 20 + i);
    }
    for (uint32_t i = 37; i < 40; i++)
        expect_pages(i % VOLUMES, 1, 1, 100 + i);
    expect_exact_accounts(&fixture);
}

// ---- the library's face

static struct graft_writer *write_one(struct graft_volume *volume, uint8_t byte)
{
    struct graft_writer *writer;
    uint8_t page[PAGE_SIZE];
    memset(page, byte, sizeof page);
    expect_ok(graft_writer_begin(volume, &writer, &err));
    expect_ok(graft_writer_write(writer, 1, page, sizeof page, &err));
    return writer;
}

static uint64_t local_lsn(struct graft_volume *volume)
{
    struct graft_volume_info info;
    expect_ok(graft_volume_info(volume, &info, &err));
    return info.local_lsn;
}

Test(store_commit, of_several_volumes_is_offered_by_the_library)
{
    char path[128];
    snprintf(path, sizeof path, "%s/replica", fixture.directory);
    struct graft_settings settings = {.data = path};
    struct graft *client;
    struct graft_volume *pair[2];
    uint64_t lsns[2];
    expect_ok(graft_open(&settings, &client, &err));
    for (unsigned i = 0; i < 2; i++)
        expect_ok(graft_volume_create(client, PAGE_SIZE, GRAFT_FIXED, &pair[i], &err));
    struct graft_writer *writers[2] = {write_one(pair[0], 1), write_one(pair[1], 2)};
    expect_ok(graft_writer_commit_all(writers, 2, lsns, &err));
    cr_assert(lsns[0] == 1 && lsns[1] == 1 && local_lsn(pair[0]) == 1 && local_lsn(pair[1]) == 1);
    struct graft_writer *late[2] = {write_one(pair[0], 3), write_one(pair[1], 4)};
    expect_ok(graft_writer_commit(write_one(pair[1], 5), NULL, &err));
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_writer_commit_all(late, 2, NULL, &err));
    cr_assert(local_lsn(pair[0]) == 1 && local_lsn(pair[1]) == 2);
    for (unsigned i = 0; i < 2; i++)
        graft_volume_close(pair[i]);
    graft_close(client);
}
