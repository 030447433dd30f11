// SPDX-License-Identifier: Apache-2.0
//
// Several clients, servers that go away and come back, and what happens in the background.
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "tests/integration/client_fixture.h"

TestSuite(client_sync, .init = cluster_begin, .fini = cluster_end);

// ---- a register that two clients write ----------------------------------------------------------
//
// Page 1 holds (writer, count, what the writer read before). Each landed commit must have read what the
// commit before it wrote: that is the one order, each as if run on the head before it.

#define SUCCESSES_MIN 15u
#define CONFLICTS_MIN 5u
#define ATTEMPTS_MAX 3000u

struct entry {
    uint32_t writer, count;
    uint32_t read_writer, read_count;
};

struct contender {
    const char *name;
    uint32_t number;
    char vid[GRAFT_VID_SIZE];
    unsigned successes, conflicts;
    uint64_t *landed; // by count: the remote LSN
    pthread_t thread;
};

static atomic_uint total_successes, total_conflicts;

static bool enough(void)
{
    return total_successes >= 2 * SUCCESSES_MIN && total_conflicts >= 2 * CONFLICTS_MIN;
}

static void *contend(void *context)
{
    struct contender *self = context;
    struct graft *client = open_client(self->name);
    struct graft_volume *volume;
    uint8_t page[512];
    size_t size;

    expect_ok(graft_volume_clone(client, self->vid, &volume, &err));
    for (uint32_t attempt = 1; attempt < ATTEMPTS_MAX; attempt++) {
        if (enough() && self->successes >= SUCCESSES_MIN)
            break;
        struct graft_writer *writer;
        struct entry entry;
        uint64_t lsn;
        expect_ok(graft_pull(volume, NULL, &err));
        expect_ok(graft_writer_begin(volume, &writer, &err));
        expect_ok(graft_writer_read(writer, 1, page, sizeof page, &size, &err));
        memcpy(&entry, page, sizeof entry);
        entry = (struct entry){self->number, attempt, entry.writer, entry.count};
        memcpy(page, &entry, sizeof entry);
        expect_ok(graft_writer_write(writer, 1, page, sizeof page, &err));
        expect_ok(graft_writer_commit(writer, NULL, &err));
        struct graft_error why;
        enum graft_status status = graft_push(volume, &lsn, &why);
        if (status == GRAFT_OK) {
            self->landed[attempt] = lsn;
            self->successes++;
            total_successes++;
            continue;
        }
        cr_assert_eq(why.detail, GRAFT_DETAIL_NOT_HEAD, "%s", why.message);
        self->conflicts++;
        total_conflicts++;
        expect_ok(graft_reset(volume, &err));
    }
    graft_volume_close(volume);
    graft_close(client);
    return NULL;
}

// Reads the register at every LSN and follows the chain of what was read.
static void verify_register(struct graft_volume *volume, uint64_t head, const struct contender *contenders)
{
    struct entry before = {0};
    unsigned found[2] = {0};

    for (uint64_t lsn = 1; lsn <= head; lsn++) {
        struct graft_snapshot *snapshot;
        struct entry entry;
        uint8_t page[512];
        size_t size;
        expect_ok(graft_snapshot_open_remote(volume, lsn, &snapshot, &err));
        expect_ok(graft_snapshot_read(snapshot, 1, page, sizeof page, &size, &err));
        graft_snapshot_release(snapshot);
        memcpy(&entry, page, sizeof entry);
        if (lsn > 1) {
            cr_assert_eq(entry.read_writer, before.writer, "LSN %lu", (unsigned long)lsn);
            cr_assert_eq(entry.read_count, before.count, "LSN %lu", (unsigned long)lsn);
            cr_assert_eq(contenders[entry.writer - 1].landed[entry.count], lsn);
            found[entry.writer - 1]++;
        }
        before = entry;
    }
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(found[i], contenders[i].successes, "a push that was acknowledged is not there");
}

Test(client_sync, two_clients_on_one_volume_make_one_order)
{
    struct graft *client = open_client("owner");
    struct graft_volume *volume = create_volume(client, 512, GRAFT_FIXED);
    struct contender contenders[] = {{.name = "a", .number = 1}, {.name = "b", .number = 2}};

    commit_pages(volume, 1, 1, 0);
    expect_ok(graft_push(volume, NULL, &err));
    for (unsigned i = 0; i < 2; i++) {
        memcpy(contenders[i].vid, info_of(volume).vid, GRAFT_VID_SIZE);
        contenders[i].landed = calloc(ATTEMPTS_MAX, sizeof(uint64_t));
        cr_assert_eq(pthread_create(&contenders[i].thread, NULL, contend, &contenders[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(contenders[i].thread, NULL);
    cr_assert_geq(contenders[0].successes, SUCCESSES_MIN);
    cr_assert_geq(contenders[1].successes, SUCCESSES_MIN);
    cr_assert_geq(contenders[0].conflicts + contenders[1].conflicts, 2 * CONFLICTS_MIN);
    expect_ok(graft_pull(volume, NULL, &err));
    uint64_t head = info_of(volume).remote_lsn;
    cr_assert_eq(head, 1 + contenders[0].successes + contenders[1].successes);
    verify_register(volume, head, contenders);
    for (unsigned i = 0; i < 2; i++)
        free(contenders[i].landed);
    graft_volume_close(volume);
    graft_close(client);
}

// ---- readers while the volume moves -------------------------------------------------------------

struct reader {
    struct graft_volume *volume;
    atomic_bool stop;
    pthread_t thread;
    unsigned rounds;
};

// Every page of a snapshot must be of one commit.
static void *read_whole(void *context)
{
    struct reader *reader = context;

    while (!reader->stop) {
        struct graft_snapshot *snapshot;
        uint8_t page[512], expected[512];
        size_t size;
        expect_ok(graft_snapshot_open(reader->volume, &snapshot, &err));
        uint32_t tag = (uint32_t)graft_snapshot_remote_lsn(snapshot);
        for (uint32_t i = 1; i <= 20; i++) {
            expect_ok(graft_snapshot_read(snapshot, i, page, sizeof page, &size, &err));
            fill_page(expected, sizeof expected, i, tag);
            cr_assert_eq(memcmp(page, expected, size), 0, "page %u of LSN %u is of another commit", i, tag);
        }
        graft_snapshot_release(snapshot);
        reader->rounds++;
    }
    return NULL;
}

Test(client_sync, readers_see_whole_commits_while_pulls_go_on)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);

    commit_pages(volume, 1, 20, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct reader readers[3] = {0};
    struct graft_volume *clone = clone_volume(b, volume);
    for (unsigned i = 0; i < 3; i++) {
        readers[i].volume = clone;
        cr_assert_eq(pthread_create(&readers[i].thread, NULL, read_whole, &readers[i]), 0);
    }
    for (uint32_t tag = 2; tag <= 60; tag++) {
        commit_pages(volume, 1, 20, tag);
        expect_ok(graft_push(volume, NULL, &err));
        expect_ok(graft_pull(clone, NULL, &err));
    }
    for (unsigned i = 0; i < 3; i++) {
        readers[i].stop = true;
        pthread_join(readers[i].thread, NULL);
        cr_assert_gt(readers[i].rounds, 0);
    }
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

// ---- servers that go away -----------------------------------------------------------------------

Test(client_sync, goes_on_after_the_servers_were_restarted)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 4096, GRAFT_FIXED);
    uint64_t lsn;

    for (uint32_t tag = 1; tag <= 6; tag++) {
        commit_pages(volume, tag, 10, tag);
        expect_ok(graft_push(volume, &lsn, &err));
        cr_assert_eq(lsn, tag);
        struct daemon *daemon = tag % 2 ? metastore : pagestore;
        if (tag < 3)
            cr_assert_eq(daemon_stop(daemon), 0);
        else
            daemon_kill(daemon);
        daemon_restart(daemon);
    }
    struct graft_volume *clone = clone_volume(b, volume);
    for (uint32_t page = 1; page <= 15; page++)
        expect_page(clone, page, page < 6 ? page : 6);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client_sync, a_pending_push_goes_on_after_reopening)
{
    struct graft *a = open_client_hasty("a", 2000);
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    char vid[GRAFT_VID_SIZE];
    uint64_t lsn;

    memcpy(vid, info_of(volume).vid, sizeof vid);
    commit_pages(volume, 1, 5, 1);
    expect_ok(graft_push(volume, NULL, &err));
    commit_pages(volume, 2, 2, 2);
    daemon_stop(metastore);
    expect_status(GRAFT_UNAVAILABLE, graft_push(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_UNKNOWN);
    expect_detail(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_reset(volume, &err));
    // Belongs to the next push.
    commit_pages(volume, 3, 1, 3);
    graft_volume_close(volume);
    graft_close(a);
    a = open_client("a");
    expect_ok(graft_volume_open(a, vid, &volume, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_UNKNOWN);
    cr_assert_eq(info_of(volume).pending_commits, 2);
    daemon_restart(metastore);
    graft_close(NULL);
    expect_detail(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_pull(volume, NULL, &err));
    expect_ok(graft_push(volume, &lsn, &err));
    cr_assert_eq(lsn, 2);
    cr_assert_eq(info_of(volume).pending_commits, 1);
    expect_ok(graft_push(volume, &lsn, &err));
    cr_assert_eq(lsn, 3);
    struct graft *b = open_client("b");
    struct graft_volume *clone = clone_volume(b, volume);
    expect_page(clone, 1, 1);
    expect_page(clone, 2, 2);
    expect_page(clone, 3, 3);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client_sync, a_push_that_never_sent_its_commit_can_be_reset)
{
    struct graft *a = open_client_hasty("a", 2000);
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);

    commit_pages(volume, 1, 5, 1);
    expect_ok(graft_push(volume, NULL, &err));
    commit_pages(volume, 2, 2, 2);
    daemon_stop(pagestore);
    expect_status(GRAFT_UNAVAILABLE, graft_push(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_OK);
    expect_ok(graft_reset(volume, &err));
    cr_assert_eq(info_of(volume).pending_commits, 0);
    struct graft_snapshot *snapshot;
    uint8_t page[512];
    size_t size;
    expect_ok(graft_snapshot_open(volume, &snapshot, &err));
    expect_status(GRAFT_UNAVAILABLE, graft_snapshot_read(snapshot, 2, page, sizeof page, &size, &err));
    graft_snapshot_release(snapshot);
    daemon_restart(pagestore);
    expect_page(volume, 2, 1);
    graft_volume_close(volume);
    graft_close(a);
}

// Deletes the volume while its push is UPLOADING, and starts a pagestore that never heard of it: the push
// goes on to its commit, whose answer settles it.
static void delete_under_a_push(bool pushed_before)
{
    struct graft *a = open_client_hasty("a", 2000), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);

    if (pushed_before)
        commit_pages(volume, 1, 5, 1);
    expect_ok(graft_push(volume, NULL, &err)); // the servers know it
    commit_pages(volume, 2, 2, 2);
    daemon_stop(pagestore);
    expect_status(GRAFT_UNAVAILABLE, graft_push(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_OK);
    expect_ok(graft_remote_delete(b, info_of(volume).vid, &err));
    daemon_restart(pagestore);
    expect_detail(GRAFT_GONE, GRAFT_DETAIL_DELETED, graft_push(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_REJECTED);
    cr_assert_eq(info_of(volume).pending_commits, 1);
    struct graft_volume *clone;
    struct graft_snapshot *snapshot;
    expect_detail(GRAFT_GONE, GRAFT_DETAIL_DELETED, graft_volume_clone(b, info_of(volume).vid, &clone, &err));
    expect_detail(GRAFT_GONE, GRAFT_DETAIL_DELETED,
                  graft_snapshot_open_remote(volume, pushed_before ? 2 : 1, &snapshot, &err));
    expect_detail(GRAFT_GONE, GRAFT_DETAIL_DELETED,
                  graft_remote_check(volume, 0, NULL, NULL, NULL, NULL, &err));
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client_sync, a_push_under_which_its_volume_was_deleted_is_rejected)
{
    delete_under_a_push(true);
}

Test(client_sync, a_first_push_under_which_its_volume_was_deleted_is_rejected)
{
    delete_under_a_push(false);
}

// ---- in the background --------------------------------------------------------------------------

struct events {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned ok, failed;
};

static void note_event(void *context, const char *vid, const struct graft_error *outcome)
{
    struct events *events = context;

    pthread_mutex_lock(&events->lock);
    if (outcome->status == GRAFT_OK)
        events->ok++;
    else
        events->failed++;
    pthread_cond_broadcast(&events->changed);
    pthread_mutex_unlock(&events->lock);
}

// Waits until the volume is at the remote LSN.
static void await_lsn(struct events *events, struct graft_volume *volume, uint64_t lsn)
{
    pthread_mutex_lock(&events->lock);
    while (info_of(volume).remote_lsn < lsn) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 20;
        cr_assert_eq(pthread_cond_timedwait(&events->changed, &events->lock, &until), 0,
                     "the volume stays at LSN %lu", (unsigned long)info_of(volume).remote_lsn);
    }
    pthread_mutex_unlock(&events->lock);
}

Test(client_sync, commits_travel_by_themselves)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct events pushed = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0}, pulled = pushed;
    // Polling alone would take far longer than the test waits.
    struct graft_sync_settings push = {.push = true, .on_event = note_event, .context = &pushed};
    struct graft_sync_settings pull = {
        .pull = true, .poll_ms = 3600000, .on_event = note_event, .context = &pulled};

    expect_ok(graft_sync_start(volume, &push, &err));
    commit_pages(volume, 1, 1, 1);
    await_lsn(&pushed, volume, 1);
    struct graft_volume *clone = clone_volume(b, volume);
    expect_ok(graft_sync_start(clone, &pull, &err));
    for (uint32_t tag = 2; tag <= 10; tag++) {
        commit_pages(volume, 1, 1, tag);
        await_lsn(&pushed, volume, tag);
        await_lsn(&pulled, clone, tag);
        expect_page(clone, 1, tag);
    }
    cr_assert_eq(pushed.failed + pulled.failed, 0);
    graft_sync_stop(clone);
    commit_pages(volume, 1, 1, 11);
    await_lsn(&pushed, volume, 11);
    cr_assert_eq(info_of(clone).remote_lsn, 10);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client_sync, a_volume_that_the_servers_lost_does_not_keep_others_from_being_watched)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *known = create_volume(a, 512, GRAFT_FIXED);
    struct graft_volume *lost = create_volume(a, 512, GRAFT_FIXED);
    struct events pulled = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    struct graft_sync_settings pull = {
        .pull = true, .poll_ms = 3600000, .on_event = note_event, .context = &pulled};

    commit_pages(known, 1, 1, 1);
    expect_ok(graft_push(known, NULL, &err));
    metastore_save();
    commit_pages(lost, 1, 1, 1);
    expect_ok(graft_push(lost, NULL, &err));
    metastore_bring_back();
    expect_ok(graft_sync_start(known, &pull, &err));
    expect_ok(graft_sync_start(lost, &pull, &err));
    struct graft_volume *clone = clone_volume(b, known);
    for (uint32_t tag = 2; tag <= 6; tag++) {
        commit_pages(clone, 1, 1, tag);
        expect_ok(graft_push(clone, NULL, &err));
        await_lsn(&pulled, known, tag);
    }
    graft_volume_close(clone);
    graft_volume_close(known);
    graft_volume_close(lost);
    graft_close(a);
    graft_close(b);
}

Test(client_sync, the_background_survives_a_restart_of_the_servers)
{
    struct graft *a = open_client_hasty("a", 3000), *b = open_client_hasty("b", 3000);
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct events pushed = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0}, pulled = pushed;
    struct graft_sync_settings push = {.push = true, .on_event = note_event, .context = &pushed};
    struct graft_sync_settings pull = {
        .pull = true, .poll_ms = 200, .on_event = note_event, .context = &pulled};

    commit_pages(volume, 1, 1, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    expect_ok(graft_sync_start(volume, &push, &err));
    expect_ok(graft_sync_start(clone, &pull, &err));
    daemon_kill(metastore);
    commit_pages(volume, 1, 1, 2);
    pthread_mutex_lock(&pushed.lock);
    while (pushed.failed == 0)
        pthread_cond_wait(&pushed.changed, &pushed.lock);
    pthread_mutex_unlock(&pushed.lock);
    daemon_restart(metastore);
    await_lsn(&pushed, volume, 2);
    await_lsn(&pulled, clone, 2);
    expect_page(clone, 1, 2);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}
