// SPDX-License-Identifier: Apache-2.0
//
// Background sync: what it recovers, how it tries again, and who waits for whom.
#include <time.h>

#include "client/sync.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "tests/unit/client/mock_servers.h"
#include "tests/unit/client/replica_fixture.h"
#include "tests/unit/client/store_fixture.h"

static struct mock_servers mock;
static struct replica a;

static void begin(void)
{
    mock_start(&mock);
    replica_begin(&a, &mock, 60000);
}

static void end(void)
{
    replica_end(&a);
    mock_stop(&mock);
}

TestSuite(sync, .init = begin, .fini = end, .timeout = 60);

struct events {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned good, failed;
};

#define EVENTS                                                    \
    {                                                             \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0 \
    }

static void note(void *context, const char *vid, const struct graft_error *outcome)
{
    struct events *events = context;

    pthread_mutex_lock(&events->lock);
    if (outcome->status == GRAFT_OK)
        events->good++;
    else
        events->failed++;
    pthread_mutex_unlock(&events->lock);
    pthread_cond_broadcast(&events->changed);
}

static void await_good(struct events *events, unsigned count)
{
    pthread_mutex_lock(&events->lock);
    while (events->good < count)
        pthread_cond_wait(&events->changed, &events->lock);
    pthread_mutex_unlock(&events->lock);
}

static unsigned count_good(struct events *events)
{
    pthread_mutex_lock(&events->lock);
    unsigned good = events->good;
    pthread_mutex_unlock(&events->lock);
    return good;
}

// ---- what an earlier process left ---------------------------------------------------------------

// A push of ten pages that landed, without an answer; a commit made since; a restart.
static void leave_a_push(void)
{
    a.deadline_ms = 100;
    replica_reopen(&a);
    replica_create(&a);
    replica_commit(&a, 1, 10);
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        mock.commit_faults[i] = COMMIT_LOST;
    cr_assert_neq(graft_push(a.volume, NULL, NULL), GRAFT_OK);
    replica_commit(&a, 20, 1);
    a.deadline_ms = 60000;
    replica_reopen(&a);
    memset(mock.commit_faults, 0, sizeof mock.commit_faults);
}

Test(sync, goes_on_with_a_push_and_then_pushes_what_came_since)
{
    struct events events = EVENTS;
    struct graft_sync_settings settings = {.push = true, .on_event = note, .context = &events};

    leave_a_push();
    expect_ok(graft_sync_start(a.volume, &settings, &err));
    await_good(&events, 1);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_OK);
    cr_assert_eq(replica_info(&a).pending_commits, 0);
    cr_assert_eq(mock.head_lsn, 2);
    cr_assert_eq(events.failed, 0);
    graft_sync_stop(a.volume);
}

Test(sync, that_only_pulls_goes_on_with_a_push_but_begins_none)
{
    struct events events = EVENTS;
    struct graft_sync_settings settings = {.pull = true, .poll_ms = 10, .on_event = note, .context = &events};

    leave_a_push();
    expect_ok(graft_sync_start(a.volume, &settings, &err));
    await_good(&events, 1);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_OK);
    cr_assert_eq(replica_info(&a).pending_commits, 1);
    cr_assert_eq(mock.head_lsn, 1);
    graft_sync_stop(a.volume);
}

// ---- trying again -------------------------------------------------------------------------------

static uint64_t arrivals_ms[MOCK_COMMITS_MAX];
static unsigned arrival_count;

static void note_arrival(void *context)
{
    if (arrival_count < MOCK_COMMITS_MAX)
        arrivals_ms[arrival_count++] = clock_monotonic_ms(clock_system());
}

Test(sync, pauses_grow_with_every_failure_and_are_short_again_after_a_success)
{
    struct events events = EVENTS;
    struct graft_sync_settings settings = {.push = true, .on_event = note, .context = &events};

    replica_create(&a);
    for (unsigned i = 0; i < 5; i++)
        mock.commit_faults[i] = COMMIT_BUSY;
    mock.commit_faults[6] = COMMIT_BUSY;
    mock.on_commit = note_arrival;
    expect_ok(graft_sync_start(a.volume, &settings, &err));
    replica_commit(&a, 1, 1);
    await_good(&events, 1);
    cr_assert_eq(events.failed, 5);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_geq(arrivals_ms[i + 1] - arrivals_ms[i], 45u << i, "the pause %u", i);
    replica_commit(&a, 1, 1);
    await_good(&events, 2);
    cr_assert_eq(arrival_count, 8);
    cr_assert_lt(arrivals_ms[7] - arrivals_ms[6], 45u << 4, "the pauses go on growing");
    graft_sync_stop(a.volume);
}

static uint64_t since_ms(uint64_t begun_ms)
{
    return clock_monotonic_ms(clock_system()) - begun_ms;
}

// A second each, where the pauses of its own would be 0.1 to 0.2 s.
Test(sync, waits_as_long_as_the_servers_ask_it_to)
{
    struct events events = EVENTS;
    struct graft_sync_settings settings = {
        .push = true, .pull = true, .poll_ms = 60000, .on_event = note, .context = &events};

    replica_create(&a);
    mock.creates_busy = mock.pulls_busy = 1;
    mock.commit_faults[0] = COMMIT_BUSY_A_SECOND;
    replica_commit(&a, 1, 1);
    uint64_t begun_ms = clock_monotonic_ms(clock_system());
    expect_ok(graft_sync_start(a.volume, &settings, &err));
    await_good(&events, 2); // the push, the pull
    cr_assert_eq(events.failed, 3);
    cr_assert_geq(since_ms(begun_ms), 3000);
    cr_assert_eq(mock.commits, 2);
    graft_sync_stop(a.volume);
}

Test(sync, lets_the_servers_ask_for_no_more_than_so_much)
{
    cr_assert_eq(sync_pause_ms(100, 0), 100);
    cr_assert_eq(sync_pause_ms(100, 1000), 1000);
    cr_assert_eq(sync_pause_ms(2000, 1000), 2000);
    cr_assert_eq(sync_pause_ms(100, 3600000), SYNC_PAUSE_MAX_MS);
}

Test(sync, tries_again_what_was_damaged_on_its_way)
{
    struct events events = EVENTS;
    struct graft_sync_settings settings = {.push = true, .on_event = note, .context = &events};

    replica_create(&a);
    mock.write_faults[0] = mock.write_faults[1] = WRITE_BAD_BYTES;
    replica_commit(&a, 1, 3);
    expect_ok(graft_sync_start(a.volume, &settings, &err));
    await_good(&events, 1);
    cr_assert_eq(events.failed, 2);
    cr_assert_eq(replica_info(&a).pending_commits, 0);
    graft_sync_stop(a.volume);
}

Test(sync, leaves_alone_what_only_the_user_can_decide)
{
    struct events events = EVENTS, others = EVENTS;
    struct graft_sync_settings settings = {.push = true, .on_event = note, .context = &events};
    struct graft_sync_settings pull = {.pull = true, .poll_ms = 10, .on_event = note, .context = &others};
    struct graft_volume *other;

    replica_create(&a);
    mock.commit_faults[0] = COMMIT_CHAIN_MISMATCH;
    replica_commit(&a, 1, 1);
    expect_ok(graft_sync_start(a.volume, &settings, &err));
    // What is polled meanwhile tells that there was time enough for another try.
    expect_ok(graft_volume_create(a.client, MOCK_PAGE_SIZE, GRAFT_FIXED, &other, &err));
    expect_ok(graft_sync_start(other, &pull, &err));
    await_good(&others, 30);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_CORRUPT);
    cr_assert_eq(events.failed, 1);
    graft_volume_close(other);
    graft_sync_stop(a.volume);
}

// ---- who waits for whom -------------------------------------------------------------------------

#define HANGING 9u

Test(sync, volumes_that_hang_hold_up_none_that_works)
{
    struct events events = EVENTS, others = EVENTS;
    struct graft_sync_settings pull = {.pull = true, .poll_ms = 10, .on_event = note, .context = &events};
    struct graft_sync_settings push = {.push = true, .on_event = note, .context = &others};
    struct graft_volume *hanging[HANGING];
    struct graft_writer *writer;
    uint8_t page[MOCK_PAGE_SIZE] = {1};

    replica_create(&a);
    expect_ok(graft_sync_start(a.volume, &pull, &err));
    await_good(&events, 1);
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        mock.commit_faults[i] = COMMIT_HOLD;
    for (unsigned i = 0; i < HANGING; i++) {
        expect_ok(graft_volume_create(a.client, MOCK_PAGE_SIZE, GRAFT_FIXED, &hanging[i], &err));
        expect_ok(graft_writer_begin(hanging[i], &writer, &err));
        expect_ok(graft_writer_write(writer, 1, page, sizeof page, &err));
        expect_ok(graft_writer_commit(writer, NULL, &err));
        expect_ok(graft_sync_start(hanging[i], &push, &err));
    }
    // As many as there may be hang now, for a minute each.
    mock_await_held(&mock, 5);
    await_good(&events, count_good(&events) + 20);
    cr_assert_eq(count_good(&others), 0);
    mutex_lock(&mock.lock);
    cr_assert_eq(mock.held_count, 5);
    memset(mock.commit_faults, 0, sizeof mock.commit_faults);
    mutex_unlock(&mock.lock);
    mock_release(&mock);
    for (unsigned i = 0; i < HANGING; i++)
        graft_volume_close(hanging[i]);
    graft_sync_stop(a.volume);
}
