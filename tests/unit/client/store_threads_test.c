// SPDX-License-Identifier: Apache-2.0
//
// Readers, writers, fetchers and pulls at once on a few volumes. What each reader sees belongs to one commit; run under the
// thread sanitizer this also says that nothing is shared without its lock.
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/worker.h"
#include "tests/unit/client/store_fixture.h"

#define PAGES 16u
#define ROUNDS 300u

static struct store_fixture fixture;

static void begin(void)
{
    setenv("TMPDIR", "/dev/shm", 0);
    memset(&fixture, 0, sizeof fixture);
    fixture.settings.writer_memory_size = 4096; // large commits are staged
    fixture_begin(&fixture);
}

static void end(void)
{
    fixture_end(&fixture);
}

TestSuite(store_threads, .init = begin, .fini = end, .timeout = 240);

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
        fprintf(stderr, "store_threads: %s\n", what);
        abort();
    }
}

// Each commit writes the same tag to all pages, so a snapshot shows one tag.
static void write_rounds(struct worker *worker, void *context)
{
    struct actor *actor = context;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        struct store_writer *writer;
        must(store_writer_begin(actor->volume, &writer, NULL) == GRAFT_OK, "begin");
        uint8_t page[512];
        enum graft_status status = GRAFT_OK;
        for (uint32_t pageidx = 1; pageidx <= PAGES && status == GRAFT_OK; pageidx++) {
            fixture_fill(page, sizeof page, pageidx, round * 4 + actor->number);
            status = store_writer_write(writer, pageidx, page, sizeof page, NULL);
        }
        if (status != GRAFT_OK) {
            must(status == GRAFT_BUSY || status == GRAFT_CONFLICT, "write");
            store_writer_abort(writer);
            continue;
        }
        status = store_writer_commit(writer, NULL, NULL);
        must(status == GRAFT_OK || status == GRAFT_CONFLICT, "commit");
        actor->done += status == GRAFT_OK;
    }
}

static void read_rounds(struct worker *worker, void *context)
{
    struct actor *actor = context;
    while (!atomic_load(actor->stop)) {
        struct store_pin *pin;
        must(store_pin_open(actor->volume, &pin, NULL) == GRAFT_OK, "pin");
        uint32_t tag = 0;
        for (uint32_t pageidx = 1; pageidx <= store_pin_page_count(pin); pageidx++) {
            uint8_t page[512], expected[512];
            struct store_page found;
            must(store_read(pin, pageidx, page, sizeof page, &found, NULL) == GRAFT_OK, "read");
            must(found.state == STORE_PAGE_AVAILABLE, "available");
            tag = tag ? tag : get_le32(page + 4);
            fixture_fill(expected, sizeof expected, pageidx, tag);
            must(memcmp(page, expected, sizeof page) == 0, "a snapshot shows one commit");
        }
        store_pin_release(pin);
        actor->done++;
    }
}

static void count_rounds(struct worker *worker, void *context)
{
    struct actor *actor = context;
    while (!atomic_load(actor->stop)) {
        struct store_counts counts;
        struct store_state state;
        must(store_volume_counts(actor->volume, &counts, NULL) == GRAFT_OK, "counts");
        must(counts.pending == 0 && counts.available <= PAGES, "counts are right");
        store_volume_state(actor->volume, &state);
        must(store_note_remote(actor->volume, state.local_lsn, NULL) == GRAFT_OK, "note");
        actor->done++;
    }
}

static void start(struct actor *actor, const char *name, void (*run)(struct worker *, void *),
                  struct store_volume *volume, unsigned number, atomic_bool *stop)
{
    *actor = (struct actor){.volume = volume, .number = number, .stop = stop};
    expect_ok(worker_start(&actor->worker, name, run, actor, &err));
}

Test(store_threads, readers_see_whole_commits_while_writers_race)
{
    struct store_volume *volume = fixture_create(&fixture, 1, 512);
    atomic_bool stop = false;
    struct actor writers[2], readers[2], counter;
    for (unsigned i = 0; i < 2; i++) {
        start(&writers[i], "writer", write_rounds, volume, i, &stop);
        start(&readers[i], "reader", read_rounds, volume, i, &stop);
    }
    start(&counter, "counter", count_rounds, volume, 0, &stop);
    uint64_t commits = 0;
    for (unsigned i = 0; i < 2; i++) {
        worker_join(&writers[i].worker);
        commits += writers[i].done;
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        worker_join(&readers[i].worker);
        cr_expect_gt(readers[i].done, 5);
    }
    worker_join(&counter.worker);
    struct store_state state;
    store_volume_state(volume, &state);
    cr_assert_eq(state.local_lsn, commits);
    cr_assert_gt(commits, 10); // the rest met another's commit
    store_volume_close(volume);
}

// A page's bytes tell the remote LSN that it was fetched at; a snapshot must show those of its own.
static void fetch_rounds(struct worker *worker, void *context)
{
    struct actor *actor = context;
    struct store_arrivals *arrivals;
    must(store_arrivals_new(actor->volume, &arrivals, NULL) == GRAFT_OK, "arrivals");
    while (!atomic_load(actor->stop)) {
        struct store_pin *pin;
        must(store_pin_open(actor->volume, &pin, NULL) == GRAFT_OK, "pin");
        uint32_t remote_lsn = (uint32_t)store_pin_remote(pin)->lsn;
        for (uint32_t pageidx = 1; pageidx <= PAGES; pageidx++) {
            uint8_t page[512], expected[512];
            struct store_page found;
            must(store_read(pin, pageidx, page, sizeof page, &found, NULL) == GRAFT_OK, "read");
            fixture_fill(expected, sizeof expected, pageidx, remote_lsn);
            if (found.state == STORE_PAGE_AVAILABLE)
                must(memcmp(page, expected, sizeof page) == 0, "a fetched page is its snapshot's");
            else
                must(store_arrivals_add(arrivals, pageidx, found.mark_lsn, expected, sizeof expected, NULL) ==
                         GRAFT_OK,
                     "add");
        }
        must(store_arrivals_flush(arrivals, NULL) == GRAFT_OK, "flush");
        store_pin_release(pin);
        actor->done++;
    }
    store_arrivals_free(arrivals);
}

static void pull_rounds(struct worker *worker, void *context)
{
    struct actor *actor = context;
    _cleanup_(pageset_free_p) struct pageset *changed = pageset_new();
    pageset_add_run(changed, 1, PAGES);
    for (uint64_t lsn = 2; lsn <= ROUNDS; lsn++) {
        struct store_pull pull = {
            .after_lsn = lsn - 1, .head = fixture_remote(lsn, PAGES), .changed = changed, .cut = PAGES};
        pull.everything = lsn % 16 == 0;
        must(store_apply_pull(actor->volume, &pull, NULL) == GRAFT_OK, "pull");
        struct store_volume *other;
        struct gid vid = fixture_vid(100 + (unsigned)lsn % 4);
        if (store_volume_create(fixture.store, &vid, 512, GRAFT_FIXED, &other, NULL) == GRAFT_OK) {
            store_volume_close(other);
            must(store_volume_delete(fixture.store, &vid, NULL) == GRAFT_OK, "delete");
        }
        actor->done++;
    }
}

Test(store_threads, fetches_race_with_pulls)
{
    struct gid vid = fixture_vid(1);
    struct store_remote head = fixture_remote(1, PAGES);
    struct store_volume *volume;
    expect_ok(store_volume_clone(fixture.store, &vid, 512, GRAFT_FIXED, &head, &volume, &err));
    atomic_bool stop = false;
    struct actor puller, fetchers[3];
    start(&puller, "puller", pull_rounds, volume, 0, &stop);
    for (unsigned i = 0; i < 3; i++)
        start(&fetchers[i], "fetcher", fetch_rounds, volume, i, &stop);
    worker_join(&puller.worker);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++) {
        worker_join(&fetchers[i].worker);
        cr_expect_gt(fetchers[i].done, 5);
    }
    cr_assert_eq(puller.done, ROUNDS - 1);
    store_volume_close(volume);
}
