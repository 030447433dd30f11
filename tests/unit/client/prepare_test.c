// SPDX-License-Identifier: Apache-2.0
//
// Prepared writes: whatever moment the process ends at, the witness decides when the directory is opened again.
#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/include/graft.h"

#define PAGE_SIZE 512u

static char folder[] = "/tmp/graft-prepare-XXXXXX";
static char data[64], witness[64], record[128];
static char vid[GRAFT_VID_SIZE];
static struct graft_error err;

#define OK(call) cr_assert_eq((call), GRAFT_OK, "%s", err.message)

static int remove_one(const char *path, const struct stat *found, int kind, struct FTW *at)
{
    return remove(path);
}

static struct graft *open_client(void)
{
    struct graft_settings settings = {.data = data};
    struct graft *client;

    OK(graft_open(&settings, &client, &err));
    return client;
}

static void make_witness(void)
{
    int fd = open(witness, O_CREAT | O_WRONLY, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
}

static void fill(struct graft_writer *writer, uint32_t first, uint32_t count, uint8_t with)
{
    uint8_t page[PAGE_SIZE];

    memset(page, with, sizeof page);
    for (uint32_t i = 0; i < count; i++)
        OK(graft_writer_write(writer, first + i, page, sizeof page, &err));
}

// In a process of its own: one that has had a client has threads, which a fork would not take along.
static void in_child(void (*run)(int argument), int argument)
{
    pid_t pid = fork();
    if (pid == 0) {
        run(argument);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    cr_assert_eq(status, 0);
}

static void make_volume(int argument)
{
    struct graft *client = open_client();
    struct graft_volume *volume;
    struct graft_writer *writer;
    OK(graft_volume_create_as(client, vid, PAGE_SIZE, GRAFT_FIXED, &volume, &err));
    OK(graft_writer_begin(volume, &writer, &err));
    fill(writer, 1, 10, 1);
    OK(graft_writer_commit(writer, NULL, &err));
    graft_volume_close(volume);
    graft_close(client);
}

static void setup(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(data, sizeof data, "%s/data", folder);
    snprintf(witness, sizeof witness, "%s/witness", folder);
    graft_vid_make(vid);
    snprintf(record, sizeof record, "%s/prepared/%s", data, vid);
    in_child(make_volume, 0);
    make_witness();
}

static void teardown(void)
{
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(prepare, .init = setup, .fini = teardown, .timeout = 60);

enum ending { PREPARED, DECIDED, COMMITTED, ABORTED };

// Cuts to 4 pages, writes 2 at 6, and ends like that.
static void end_so(int ending)
{
    struct graft *client = open_client();
    struct graft_volume *volume;
    struct graft_writer *writer;
    OK(graft_volume_open(client, vid, &volume, &err));
    OK(graft_writer_begin(volume, &writer, &err));
    OK(graft_writer_truncate(writer, 4, &err));
    fill(writer, 6, 2, 2);
    OK(graft_writer_prepare(writer, witness, &err));
    if (ending == DECIDED || ending == COMMITTED)
        unlink(witness);
    if (ending == COMMITTED)
        OK(graft_writer_commit(writer, NULL, &err));
    if (ending == ABORTED)
        graft_writer_abort(writer);
    _exit(0); // the client is left open
}

static void run_and_die(enum ending ending)
{
    in_child(end_so, ending);
}

static void expect_here(int committed)
{
    struct graft *client = open_client();
    struct graft_volume *volume;
    struct graft_snapshot *snapshot;
    uint8_t page[PAGE_SIZE];
    size_t size;

    cr_assert_neq(access(record, F_OK), 0, "it is settled");
    OK(graft_volume_open(client, vid, &volume, &err));
    OK(graft_snapshot_open(volume, &snapshot, &err));
    cr_assert_eq(graft_snapshot_page_count(snapshot), committed ? 7 : 10);
    cr_assert_eq(graft_snapshot_local_lsn(snapshot), committed ? 2 : 1);
    for (uint32_t pageidx = 1; pageidx <= 10; pageidx++) {
        OK(graft_snapshot_read(snapshot, pageidx, page, sizeof page, &size, &err));
        if (committed && pageidx > 7)
            cr_assert_eq(size, 0);
        else
            cr_assert_eq(page[0],
                         !committed || pageidx <= 4 ? 1
                         : pageidx == 5             ? 0
                                                    : 2,
                         "page %u is %u", pageidx, page[0]);
    }
    graft_snapshot_release(snapshot);
    graft_volume_close(volume);
    graft_close(client);
}

static void expect(bool committed)
{
    in_child(expect_here, committed);
}

Test(prepare, with_its_witness_it_is_dropped)
{
    run_and_die(PREPARED);
    cr_assert_eq(access(record, F_OK), 0);
    expect(false);
    unlink(witness);
    expect(false);
}

Test(prepare, without_its_witness_it_is_committed_once)
{
    run_and_die(DECIDED);
    expect(true);
    expect(true);
}

Test(prepare, what_was_committed_or_aborted_leaves_nothing)
{
    run_and_die(ABORTED);
    cr_assert_neq(access(record, F_OK), 0);
    expect(false);
    run_and_die(COMMITTED);
    expect(true);
}

Test(prepare, a_record_that_comes_back_after_its_commit_is_dropped)
{
    char kept[192], command[512];

    run_and_die(PREPARED);
    snprintf(kept, sizeof kept, "%s.kept", record);
    snprintf(command, sizeof command, "cp %s %s", record, kept);
    cr_assert_eq(system(command), 0);
    unlink(witness);
    expect(true);
    cr_assert_eq(rename(kept, record), 0);
    expect(true);
}

static void meet_damage(int fd)
{
    struct graft_settings settings = {.data = data};
    off_t size = lseek(fd, 0, SEEK_END);
    for (off_t at = 0; at < size; at += 41) {
        uint8_t byte, other;
        struct graft *client;
        cr_assert_eq(pread(fd, &byte, 1, at), 1);
        other = byte ^ 0x10;
        cr_assert_eq(pwrite(fd, &other, 1, at), 1);
        cr_assert_eq(graft_open(&settings, &client, &err), GRAFT_CORRUPT, "byte %ld", (long)at);
        cr_assert_not_null(strstr(err.message, "damaged"));
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    }
}

Test(prepare, a_damaged_record_is_not_passed_over)
{
    run_and_die(DECIDED);
    int fd = open(record, O_RDWR);
    in_child(meet_damage, fd);
    close(fd);
    expect(true);
}

Test(prepare, a_prepared_writer_takes_no_more_and_another_one_waits)
{
    struct graft *client = open_client();
    struct graft_volume *volume;
    struct graft_writer *writer, *other;
    uint8_t page[PAGE_SIZE] = {0};

    OK(graft_volume_open(client, vid, &volume, &err));
    OK(graft_writer_begin(volume, &writer, &err));
    OK(graft_writer_begin(volume, &other, &err));
    OK(graft_writer_prepare(writer, witness, &err));
    cr_assert_eq(graft_writer_write(writer, 1, page, sizeof page, &err), GRAFT_INVALID);
    cr_assert_eq(graft_writer_truncate(writer, 1, &err), GRAFT_INVALID);
    cr_assert_eq(graft_writer_prepare(other, witness, &err), GRAFT_BUSY);
    cr_assert_eq(graft_writer_prepare(other, "relative", &err), GRAFT_BUSY);
    graft_writer_abort(writer);
    cr_assert_eq(graft_writer_prepare(other, "relative", &err), GRAFT_INVALID);
    fill(other, 1, 1, 9);
    OK(graft_writer_begin(volume, &writer, &err));
    OK(graft_writer_commit(other, NULL, &err));
    cr_assert_eq(graft_writer_prepare(writer, witness, &err), GRAFT_CONFLICT);
    graft_writer_abort(writer);
    graft_volume_close(volume);
    graft_close(client);
}
