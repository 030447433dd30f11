// SPDX-License-Identifier: Apache-2.0
//
// A client of real servers, as a victim of power losses and as a witness of theirs:
//     writer_victim write DATA METASTORE PAGESTORE SEED          commits and pushes until the power fails
//     writer_victim verify DATA METASTORE PAGESTORE SEED VID     clones the volume and reads all of it, twice
// What commit k does to the volume follows from SEED and k, and page 1 says k; so every snapshot shows whether it is one
// that was ever committed. Lines on stdout:
//     volume VID          it was made
//     at K                reopened: the local head is commit K, and its pages are right
//     did K               commit K is acknowledged
//     pushed LSN K        commit K is acknowledged by the servers as their LSN
//     remote LSN K        the servers' head, and its pages are right; then the same of an older LSN
//     stopped             a write or sync failed, the client said so; the power fails here
// Exits with 4 where something is not what it should be.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/include/graft.h"
#include "common/base/bytes.h"
#include "common/base/compiler.h"
#include "common/base/limits.h"
#include "common/base/random.h"

#define PAGE 4096u
#define PAGES_MAX 400u
#define SPREAD 40u
#define TRIES 4000 // of a push or a clone, 5 ms apart

__attribute__((weak)) void powerloss_now(void);

static uint64_t seed;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _exit(4);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void must(enum graft_status status, const struct graft_error *err, const char *what)
{
    if (status == GRAFT_OK)
        return;
    if (status == GRAFT_INTERNAL && powerloss_now) {
        say("stopped");
        powerloss_now();
    }
    fail("%s: %s / %s: %s", what, graft_status_text(status), graft_detail_text(err->detail), err->message);
}

static struct graft_error last_refusal;

static bool may_pass(enum graft_status status, const struct graft_error *err)
{
    if (status != GRAFT_UNAVAILABLE && status != GRAFT_UNKNOWN)
        return false;
    last_refusal = *err;
    return true;
}

static void wait_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

// ---- what the commits do

// Which commit wrote each page last; 0: none since it was cut off.
struct image {
    uint32_t page_count;
    uint64_t written_by[PAGES_MAX + 1];
};

struct plan {
    uint32_t cut; // length before the writes; UINT32_MAX: as it is
    uint32_t first, count;
};

static struct plan plan_of(uint64_t commit)
{
    struct rng rng;
    rng_seed(&rng, seed * 1000003 + commit);
    struct plan plan = {.cut = UINT32_MAX, .first = 2 + (uint32_t)rng_below(&rng, SPREAD)};
    plan.count = (uint32_t)rng_below(&rng, 8);
    if (rng_below(&rng, 8) == 0)
        plan.cut = 1 + (uint32_t)rng_below(&rng, SPREAD);
    if (rng_below(&rng, 12) == 0)
        plan = (struct plan){.cut = plan.cut, .first = 2, .count = PAGES_MAX - 1}; // a segment of its own
    return plan;
}

static void take_step(struct image *image, uint64_t commit)
{
    struct plan plan = plan_of(commit);
    if (plan.cut < image->page_count) {
        for (uint32_t page = plan.cut + 1; page <= PAGES_MAX; page++)
            image->written_by[page] = 0;
        image->page_count = plan.cut;
    }
    image->written_by[1] = commit;
    for (uint32_t page = plan.first; page < plan.first + plan.count; page++)
        image->written_by[page] = commit;
    uint32_t end = plan.count > 0 ? plan.first + plan.count - 1 : 1;
    image->page_count = MAX(image->page_count, end);
}

static void fill_page(uint8_t page[PAGE], uint32_t pageidx, uint64_t commit)
{
    struct rng rng;
    if (commit == 0) {
        memset(page, 0, PAGE);
        return;
    }
    rng_seed(&rng, seed + commit * 1009 + pageidx);
    for (size_t i = 0; i < PAGE; i += 8)
        put_le64(page + i, rng_next(&rng));
    if (pageidx == 1)
        put_le64(page, commit);
}

// ---- checking

static enum graft_status read_page(struct graft_snapshot *snapshot, uint32_t pageidx, uint8_t page[PAGE])
{
    struct graft_error err = {.message = ""};
    size_t size;
    enum graft_status status = graft_snapshot_read(snapshot, pageidx, page, PAGE, &size, &err);
    if (!may_pass(status, &err))
        must(status, &err, "reading a page");
    return status;
}

// The commit that the snapshot is, once all of its pages were compared; UNAVAILABLE while the servers are away.
static enum graft_status check_snapshot(struct graft_snapshot *snapshot, uint64_t *ret_commit)
{
    static struct image image;
    uint8_t page[PAGE], expected[PAGE];
    memset(&image, 0, sizeof image);
    uint32_t page_count = graft_snapshot_page_count(snapshot);
    *ret_commit = 0;
    if (page_count == 0)
        return GRAFT_OK;
    struct graft_page_range all = {1, page_count};
    struct graft_error err = {.message = ""};
    enum graft_status status = graft_hydrate(snapshot, &all, 1, &err);
    if (may_pass(status, &err) || (status = read_page(snapshot, 1, page)) != GRAFT_OK)
        return status;
    uint64_t commit = get_le64(page);
    if (commit == 0 || commit > 1000000)
        fail("page 1 says that this is commit %llu", (unsigned long long)commit);
    for (uint64_t k = 1; k <= commit; k++)
        take_step(&image, k);
    if (page_count != image.page_count)
        fail("commit %llu has %u pages, not %u", (unsigned long long)commit, page_count, image.page_count);
    for (uint32_t pageidx = 1; pageidx <= page_count; pageidx++) {
        status = read_page(snapshot, pageidx, page);
        if (status != GRAFT_OK)
            return status;
        fill_page(expected, pageidx, image.written_by[pageidx]);
        if (memcmp(page, expected, PAGE) != 0)
            fail("page %u of commit %llu is not what commit %llu wrote", pageidx, (unsigned long long)commit,
                 (unsigned long long)image.written_by[pageidx]);
    }
    *ret_commit = commit;
    return GRAFT_OK;
}

// ---- writing

static bool take_vid(void *context, const char *vid)
{
    memcpy(context, vid, GRAFT_VID_SIZE);
    return false;
}

static struct graft_volume *open_or_make(struct graft *client)
{
    struct graft_volume *volume;
    struct graft_volume_info info;
    struct graft_error err = {.message = ""};
    char vid[GRAFT_VID_SIZE] = "";
    must(graft_volume_list(client, take_vid, vid, &err), &err, "listing volumes");
    if (vid[0] != '\0')
        must(graft_volume_open(client, vid, &volume, &err), &err, "opening the volume");
    else
        must(graft_volume_create(client, PAGE, GRAFT_FIXED, &volume, &err), &err, "making the volume");
    must(graft_volume_info(volume, &info, &err), &err, "asking for the volume");
    if (info.status != GRAFT_VOLUME_OK && info.status != GRAFT_VOLUME_UNKNOWN)
        fail("the volume is %s: %s", graft_volume_status_text(info.status), info.status_error.message);
    say("volume %s", info.vid);
    return volume;
}

static void commit(struct graft_volume *volume, uint64_t number)
{
    struct graft_writer *writer;
    struct graft_error err = {.message = ""};
    uint8_t page[PAGE];
    struct plan plan = plan_of(number);
    must(graft_writer_begin(volume, &writer, &err), &err, "beginning a commit");
    if (plan.cut != UINT32_MAX) {
        struct graft_volume_info info;
        must(graft_volume_info(volume, &info, &err), &err, "asking for the volume");
        if (plan.cut < info.page_count)
            must(graft_writer_truncate(writer, plan.cut, &err), &err, "truncating");
    }
    fill_page(page, 1, number);
    must(graft_writer_write(writer, 1, page, PAGE, &err), &err, "writing page 1");
    for (uint32_t pageidx = plan.first; pageidx < plan.first + plan.count; pageidx++) {
        fill_page(page, pageidx, number);
        must(graft_writer_write(writer, pageidx, page, PAGE, &err), &err, "writing a page");
    }
    must(graft_writer_commit(writer, NULL, &err), &err, "committing");
    say("did %llu", (unsigned long long)number);
}

static void push(struct graft_volume *volume, uint64_t number)
{
    struct graft_error err = {.message = ""};
    uint64_t lsn = 0;
    enum graft_status status = graft_push(volume, &lsn, &err);
    for (int i = 1; i < TRIES && may_pass(status, &err); i++) {
        wait_a_little();
        status = graft_push(volume, &lsn, &err);
    }
    must(status, &err, "pushing");
    // A push that was under way when the client was opened may have ended below what was committed since.
    struct graft_volume_info info;
    must(graft_volume_info(volume, &info, &err), &err, "asking for the volume");
    if (info.pending_commits > 0)
        return push(volume, number);
    say("pushed %llu %llu", (unsigned long long)lsn, (unsigned long long)number);
}

static int write_on(struct graft *client)
{
    struct graft_volume *volume = open_or_make(client);
    struct graft_snapshot *snapshot;
    struct graft_error err = {.message = ""};
    uint64_t number;
    must(graft_snapshot_open(volume, &snapshot, &err), &err, "opening a snapshot");
    if (check_snapshot(snapshot, &number) != GRAFT_OK)
        fail("pages that were written here are not here");
    graft_snapshot_release(snapshot);
    say("at %llu", (unsigned long long)number);
    struct rng rng;
    rng_seed(&rng, seed + number);
    for (;;) {
        for (uint64_t count = 1 + rng_below(&rng, 3); count > 0; count--)
            commit(volume, ++number);
        push(volume, number);
    }
}

// ---- verifying

static enum graft_status verify_lsn(struct graft_volume *volume, uint64_t lsn)
{
    struct graft_snapshot *snapshot;
    struct graft_error err = {.message = ""};
    uint64_t number;
    enum graft_status status = graft_snapshot_open_remote(volume, lsn, &snapshot, &err);
    if (may_pass(status, &err))
        return status;
    must(status, &err, "opening a snapshot of the servers");
    status = check_snapshot(snapshot, &number);
    graft_snapshot_release(snapshot);
    if (status == GRAFT_OK)
        say("remote %llu %llu", (unsigned long long)lsn, (unsigned long long)number);
    return status;
}

static enum graft_status try_to_verify(struct graft *client, const char *vid)
{
    struct graft_volume *volume = NULL;
    struct graft_volume_info info;
    struct graft_error err = {.message = ""};
    enum graft_status status = graft_volume_clone(client, vid, &volume, &err);
    if (may_pass(status, &err))
        return status;
    must(status, &err, "cloning");
    must(graft_volume_info(volume, &info, &err), &err, "asking for the volume");
    status = verify_lsn(volume, info.remote_lsn);
    if (status == GRAFT_OK && info.remote_lsn > 1)
        status = verify_lsn(volume, 1 + seed % (info.remote_lsn - 1));
    graft_volume_close(volume);
    return status;
}

static int verify(struct graft *client, const char *vid)
{
    for (int i = 0; i < TRIES; i++) {
        if (try_to_verify(client, vid) == GRAFT_OK)
            return 0;
        wait_a_little();
    }
    fail("the servers went on refusing: %s: %s", graft_status_text(last_refusal.status),
         last_refusal.message);
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    struct graft *client;
    struct graft_error err = {.message = ""};
    struct graft_settings settings = {.data = argv[2],
                                      .metastore = argv[3],
                                      .pagestore = argv[4],
                                      .deadline_ms = 2000,
                                      .memory_size = 4 * MIB};
    seed = strtoull(argv[5], NULL, 10);
    must(graft_open(&settings, &client, &err), &err, "opening the client");
    int code = argc > 6 ? verify(client, argv[6]) : write_on(client);
    graft_close(client);
    return code;
}
