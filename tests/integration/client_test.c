// SPDX-License-Identifier: Apache-2.0
//
// The library against both daemons: what travels, when, and what is refused.
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/integration/client_fixture.h"

TestSuite(client, .init = cluster_begin, .fini = cluster_end);

Test(client, a_clone_reads_one_page_and_fetches_one)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 4096, GRAFT_FIXED);
    uint64_t lsn;

    commit_pages(volume, 1, 1000, 1);
    expect_ok(graft_push(volume, &lsn, &err));
    cr_assert_eq(lsn, 1);
    struct graft_volume *clone = clone_volume(b, volume);
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), 0);
    cr_assert_eq(info_of(clone).page_count, 1000);
    cr_assert_eq(info_of(clone).pages_pending, 1000);
    expect_page(clone, 777, 1);
    expect_page(clone, 777, 1);
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), 1);
    struct graft_volume_info info = info_of(clone);
    cr_assert_eq(info.fetch.requests, 1);
    cr_assert_eq(info.fetch.pages, 1);
    cr_assert_gt(info.fetch.bytes, 4096);
    cr_assert_eq(info.pages_available, 1);
    cr_assert_eq(info.pages_pending, 999);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client, a_pull_shows_changes_and_downloads_nothing)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct graft_snapshot *before;
    uint64_t changed;

    commit_pages(volume, 1, 10, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    expect_page(clone, 3, 1);
    expect_page(clone, 4, 1);
    expect_ok(graft_snapshot_open(clone, &before, &err));
    commit_pages(volume, 4, 2, 2);
    commit_pages(volume, 11, 5, 2);
    expect_ok(graft_push(volume, NULL, &err));
    uint64_t sent = pagestore_counter("graft_read_pages_total");
    expect_ok(graft_pull(clone, &changed, &err));
    cr_assert_eq(changed, 7);
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), sent);
    cr_assert_eq(info_of(clone).page_count, 15);
    expect_page(clone, 3, 1);
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), sent);
    expect_page(clone, 4, 2);
    expect_page(clone, 15, 2);
    expect_snapshot_page(before, 512, 4, 1);
    // Never read before the pull, and changed by it: the old version can still be had.
    expect_snapshot_page(before, 512, 5, 1);
    expect_snapshot_page(before, 512, 15, 0);
    graft_snapshot_release(before);
    expect_ok(graft_pull(clone, &changed, &err));
    cr_assert_eq(changed, 0);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client, a_page_is_shared_by_readers_of_snapshots_between_which_it_did_not_change)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct graft_snapshot *old;

    commit_pages(volume, 1, 10, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    expect_ok(graft_snapshot_open(clone, &old, &err));
    commit_pages(volume, 1, 1, 2);
    expect_ok(graft_push(volume, NULL, &err));
    expect_ok(graft_pull(clone, NULL, &err));
    expect_page(clone, 9, 1);
    expect_snapshot_page(old, 512, 9, 1);
    cr_assert_eq(info_of(clone).fetch.pages, 1);
    graft_snapshot_release(old);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client, a_conflict_is_rejected_and_reset_follows_the_servers)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    uint64_t lsn = 99;

    commit_pages(volume, 1, 10, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    commit_pages(volume, 1, 2, 2);
    expect_ok(graft_push(volume, NULL, &err));
    commit_pages(clone, 2, 2, 3);
    commit_truncate(clone, 6);
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_push(clone, &lsn, &err));
    cr_assert_eq(lsn, 99);
    cr_assert_eq(info_of(clone).status, GRAFT_VOLUME_REJECTED);
    cr_assert_eq(info_of(clone).pending_commits, 2);
    cr_assert_eq(info_of(clone).remote_seen_lsn, 2);
    expect_page(clone, 3, 3);
    expect_status(GRAFT_CONFLICT, graft_push(clone, NULL, &err));
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_UNPUSHED, graft_pull(clone, NULL, &err));
    expect_ok(graft_reset(clone, &err));
    struct graft_volume_info info = info_of(clone);
    cr_assert_eq(info.status, GRAFT_VOLUME_OK);
    cr_assert_eq(info.pending_commits, 0);
    cr_assert_eq(info.remote_lsn, 2);
    cr_assert_eq(info.page_count, 10);
    for (uint32_t page = 1; page <= 10; page++)
        expect_page(clone, page, page <= 2 ? 2 : 1);
    commit_pages(clone, 5, 1, 4);
    expect_ok(graft_push(clone, &lsn, &err));
    cr_assert_eq(lsn, 3);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client, local_commits_roll_up_into_one_remote_commit)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    uint64_t lsn;

    for (uint32_t tag = 1; tag <= 20; tag++)
        commit_pages(volume, tag % 5 + 1, 3, tag);
    commit_pages(volume, 50, 10, 21);
    commit_truncate(volume, 54);
    commit_pages(volume, 56, 1, 22);
    expect_ok(graft_push(volume, &lsn, &err));
    cr_assert_eq(lsn, 1);
    cr_assert_eq(info_of(volume).pending_commits, 0);
    struct graft_volume *clone = clone_volume(b, volume);
    cr_assert_eq(info_of(clone).page_count, 56);
    expect_page(clone, 1, 20);
    expect_page(clone, 5, 19);
    expect_page(clone, 50, 21);
    expect_page(clone, 53, 21);
    expect_page(clone, 54, 21);
    expect_page(clone, 55, 0);
    expect_page(clone, 56, 22);
    expect_page(clone, 10, 0);
    // Pages that were cut off again did not travel: 1..7, 50..54, 56.
    cr_assert_eq(pagestore_counter("pagestore_pages_written_total"), 13);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client, hydrate_asks_for_each_page_once)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 4096, GRAFT_FIXED);
    struct graft_snapshot *snapshot;
    struct graft_page_range ranges[] = {{1, 5000}, {4000, 100000}}, first = {1, 10};

    commit_pages(volume, 1, 6000, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    expect_ok(graft_snapshot_open(clone, &snapshot, &err));
    expect_ok(graft_prefetch(snapshot, &ranges[0], 1, &err));
    expect_ok(graft_prefetch(snapshot, &first, 1, &err));
    expect_snapshot_page(snapshot, 4096, 4321, 1);
    expect_ok(graft_hydrate(snapshot, ranges, 2, &err));
    cr_assert_eq(info_of(clone).pages_available, 6000);
    cr_assert_eq(info_of(clone).fetch.pages, 6000);
    for (uint32_t page = 1; page <= 6000; page += 7)
        expect_snapshot_page(snapshot, 4096, page, 1);
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), 6000);
    // Without servers everything is here.
    daemon_stop(pagestore);
    expect_ok(graft_hydrate(snapshot, ranges, 2, &err));
    graft_snapshot_release(snapshot);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

struct crowd {
    struct graft_snapshot *snapshot;
    uint32_t number;
    pthread_t thread;
};

static void *read_everything(void *context)
{
    struct crowd *self = context;

    if (self->number % 2 == 0) {
        struct graft_page_range all = {1, 2000};
        expect_ok(graft_hydrate(self->snapshot, &all, 1, &err));
    }
    for (uint32_t i = 0; i < 2000; i++)
        expect_snapshot_page(self->snapshot, 512, (i + self->number * 500) % 2000 + 1, 1);
    return NULL;
}

Test(client, a_crowd_of_readers_asks_for_each_page_once)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct crowd crowd[4];

    commit_pages(volume, 1, 2000, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    for (uint32_t i = 0; i < 4; i++) {
        crowd[i].number = i;
        expect_ok(graft_snapshot_open(clone, &crowd[i].snapshot, &err));
        cr_assert_eq(pthread_create(&crowd[i].thread, NULL, read_everything, &crowd[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        pthread_join(crowd[i].thread, NULL);
        graft_snapshot_release(crowd[i].snapshot);
    }
    cr_assert_eq(info_of(clone).fetch.pages, 2000);
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), 2000);
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

Test(client, a_snapshot_of_the_servers_is_read_and_not_kept)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *volume = create_volume(a, 4096, GRAFT_FIXED);
    struct graft_snapshot *snapshot;
    struct graft_page_range all = {1, 100};

    commit_pages(volume, 1, 100, 1);
    expect_ok(graft_push(volume, NULL, &err));
    commit_truncate(volume, 50);
    commit_pages(volume, 10, 1, 2);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume *clone = clone_volume(b, volume);
    expect_ok(graft_snapshot_open_remote(clone, 1, &snapshot, &err));
    cr_assert_eq(graft_snapshot_page_count(snapshot), 100);
    cr_assert_eq(graft_snapshot_remote_lsn(snapshot), 1);
    cr_assert_eq(graft_snapshot_local_lsn(snapshot), 0);
    expect_ok(graft_prefetch(snapshot, &all, 1, &err));
    for (uint32_t page = 1; page <= 100; page++)
        expect_snapshot_page(snapshot, 4096, page, 1);
    expect_snapshot_page(snapshot, 4096, 101, 0);
    expect_status(GRAFT_INVALID, graft_hydrate(snapshot, &all, 1, &err));
    graft_snapshot_release(snapshot);
    cr_assert_eq(info_of(clone).pages_available, 0);
    expect_detail(GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD,
                  graft_snapshot_open_remote(clone, 3, &snapshot, &err));
    graft_volume_close(clone);
    graft_volume_close(volume);
    graft_close(a);
    graft_close(b);
}

// ---- the servers' own answers -------------------------------------------------------------------

struct seen {
    unsigned count;
    uint64_t lsns[8];
    char vids[8][GRAFT_VID_SIZE];
    bool deleted;
};

static bool see_head(void *context, const struct graft_remote_head *head)
{
    struct seen *seen = context;

    memcpy(seen->vids[seen->count], head->vid, GRAFT_VID_SIZE);
    seen->lsns[seen->count++] = head->lsn;
    return seen->count < 8;
}

static bool see_commit(void *context, const struct graft_commit_info *commit)
{
    struct seen *seen = context;

    cr_assert_eq(commit->pages_changed, commit->deleted ? 0 : commit->lsn);
    cr_assert_eq(commit->segment_count, commit->deleted ? 0 : 1);
    seen->lsns[seen->count++] = commit->lsn;
    return seen->count < 8;
}

Test(client, lists_logs_and_deletes_remote_volumes)
{
    struct graft *a = open_client("a");
    struct graft_volume *first = create_volume(a, 512, GRAFT_FIXED);
    struct graft_volume *second = create_volume(a, 1024, GRAFT_VARIABLE);
    struct seen seen = {0};

    for (uint32_t i = 1; i <= 3; i++) {
        commit_pages(first, 1, i, i);
        expect_ok(graft_push(first, NULL, &err));
    }
    // A volume without commits is made known as well.
    expect_ok(graft_push(second, NULL, &err));
    expect_ok(graft_remote_list(a, see_head, &seen, &err));
    cr_assert_eq(seen.count, 2);
    // Of two VIDs made within a millisecond either may come first.
    int at = strcmp(seen.vids[0], info_of(first).vid) == 0 ? 0 : 1;
    cr_assert_str_eq(seen.vids[at], info_of(first).vid);
    cr_assert_eq(seen.lsns[at], 3);
    cr_assert_eq(seen.lsns[1 - at], 0);
    seen.count = 0;
    expect_ok(graft_remote_log(a, info_of(first).vid, 2, see_commit, &seen, &err));
    cr_assert_eq(seen.count, 2);
    cr_assert_eq(seen.lsns[0], 3);
    cr_assert_eq(seen.lsns[1], 2);
    expect_ok(graft_remote_delete(a, info_of(first).vid, &err));
    seen.count = 0;
    expect_ok(graft_remote_list(a, see_head, &seen, &err));
    cr_assert_eq(seen.count, 1);
    expect_detail(GRAFT_GONE, GRAFT_DETAIL_DELETED, graft_pull(first, NULL, &err));
    commit_pages(first, 1, 1, 9);
    struct graft_error why;
    cr_assert_neq(graft_push(first, NULL, &why), GRAFT_OK);
    cr_assert_eq(why.detail, GRAFT_DETAIL_DELETED, "%s", why.message);
    cr_assert_eq(info_of(first).status, GRAFT_VOLUME_REJECTED);
    graft_volume_close(first);
    graft_volume_close(second);
    graft_close(a);
}

static bool see_moves(void *context, const struct graft_remote_head *head)
{
    struct seen *seen = context;

    if (!head)
        return true;
    seen->lsns[seen->count++] = head->lsn;
    return head->lsn < 3;
}

// Another client pushes, so that the watch has to be told.
static void *push_two_more(void *context)
{
    struct graft *b = open_client("b");
    struct graft_volume *clone;

    expect_ok(graft_volume_clone(b, context, &clone, &err));
    for (uint32_t tag = 2; tag <= 3; tag++) {
        commit_pages(clone, 1, 1, tag);
        expect_ok(graft_push(clone, NULL, &err));
    }
    graft_volume_close(clone);
    graft_close(b);
    return NULL;
}

Test(client, watches_heads_move)
{
    struct graft *a = open_client("a");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct seen seen = {0};
    pthread_t other;

    commit_pages(volume, 1, 1, 1);
    expect_ok(graft_push(volume, NULL, &err));
    struct graft_volume_info info = info_of(volume);
    const char *vids[] = {info.vid};
    cr_assert_eq(pthread_create(&other, NULL, push_two_more, info.vid), 0);
    expect_ok(graft_remote_watch(a, vids, 1, see_moves, &seen, &err));
    pthread_join(other, NULL);
    cr_assert_geq(seen.count, 1);
    cr_assert_eq(seen.lsns[seen.count - 1], 3);
    graft_volume_close(volume);
    graft_close(a);
}

static void count_damage(void *context, uint32_t pageidx, const struct graft_error *why)
{
    (*(unsigned *)context)++;
}

Test(client, checks_every_page_past_every_cache)
{
    struct graft *a = open_client("a");
    struct graft_volume *volume = create_volume(a, 4096, GRAFT_FIXED);
    unsigned damaged = 0;
    uint64_t checked;

    commit_pages(volume, 1, 3000, 1);
    expect_ok(graft_push(volume, NULL, &err));
    expect_ok(graft_remote_check(volume, 0, count_damage, NULL, &damaged, &checked, &err));
    cr_assert_eq(checked, 3000);
    cr_assert_eq(damaged, 0);
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), 3000);
    graft_volume_close(volume);
    graft_close(a);
}

// ---- misuse -------------------------------------------------------------------------------------

Test(client, misuse_is_invalid_and_says_why)
{
    struct graft *a = open_client("a");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED), *none;
    struct graft_snapshot *snapshot;
    struct graft_writer *writer;
    struct graft_page_range from_nothing = {0, 5};
    uint8_t page[512] = {0};
    size_t size;
    struct graft_error why = {0};

    cr_assert_eq(graft_open(NULL, &a, &why), GRAFT_INVALID);
    cr_assert(strstr(why.message, "settings"), "%s", why.message);
    expect_status(GRAFT_INVALID, graft_volume_create(a, 1000, GRAFT_FIXED, &none, &err));
    expect_status(GRAFT_INVALID, graft_volume_create(a, 512, (enum graft_volume_kind)7, &none, &err));
    expect_status(GRAFT_INVALID, graft_volume_open(a, "nonsense", &none, &err));
    expect_status(GRAFT_INVALID, graft_volume_open(a, NULL, &none, &err));
    expect_ok(graft_snapshot_open(volume, &snapshot, &err));
    expect_status(GRAFT_INVALID, graft_snapshot_read(snapshot, 0, page, sizeof page, &size, &err));
    expect_status(GRAFT_INVALID, graft_snapshot_read(snapshot, 1, page, 511, &size, &err));
    expect_status(GRAFT_INVALID, graft_snapshot_read(snapshot, 1, NULL, 512, &size, &err));
    expect_status(GRAFT_INVALID, graft_prefetch(snapshot, &from_nothing, 1, &err));
    graft_snapshot_release(snapshot);
    expect_ok(graft_writer_begin(volume, &writer, &err));
    expect_status(GRAFT_INVALID, graft_writer_write(writer, 0, page, 512, &err));
    expect_status(GRAFT_LIMIT, graft_writer_write(writer, 1, page, 511, &err));
    expect_status(GRAFT_INVALID, graft_writer_write(writer, 1, NULL, 512, &err));
    graft_writer_abort(writer);
    expect_detail(GRAFT_BUSY, GRAFT_DETAIL_NONE, graft_volume_delete(a, info_of(volume).vid, &err));
    // All of these are nothing.
    graft_volume_close(NULL);
    graft_snapshot_release(NULL);
    graft_writer_abort(NULL);
    graft_file_close(NULL);
    graft_close(NULL);
    graft_sync_stop(NULL);
    graft_volume_close(volume);
    graft_close(a);
}

Test(client, a_child_may_not_use_its_parents_handles)
{
    struct graft *a = open_client("a");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);

    pid_t child = fork();
    if (child == 0) {
        struct graft_error err;
        struct graft_snapshot *snapshot;
        bool refused = graft_snapshot_open(volume, &snapshot, &err) == GRAFT_INVALID &&
                       err.detail == GRAFT_DETAIL_FORKED;
        graft_volume_close(volume);
        graft_close(a);
        _exit(refused ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    commit_pages(volume, 1, 1, 1);
    expect_ok(graft_push(volume, NULL, &err));
    graft_volume_close(volume);
    graft_close(a);
}

Test(client, a_client_closed_before_its_volume_goes_with_it)
{
    struct graft *a = open_client("a");
    struct graft_volume *volume = create_volume(a, 512, GRAFT_FIXED);
    struct graft_sync_settings sync = {.push = true};

    expect_ok(graft_sync_start(volume, &sync, &err));
    graft_close(a);
    commit_pages(volume, 1, 3, 1);
    expect_page(volume, 2, 1);
    expect_detail(GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, graft_pull(volume, NULL, &err));
    graft_volume_close(volume);
    // The directory is free again.
    graft_close(open_client("a"));
}

Test(client, works_offline_and_says_so)
{
    char data[512];
    struct graft *client;
    struct graft_volume *volume;

    snprintf(data, sizeof data, "%s/offline", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    char *scratch = test_folder_new();
    snprintf(data, sizeof data, "%s/data", scratch);
    struct graft_settings settings = {.data = data};
    expect_ok(graft_open(&settings, &client, &err));
    volume = create_volume(client, 0, GRAFT_FIXED);
    cr_assert_eq(info_of(volume).page_size, 4096);
    commit_pages(volume, 1, 3, 1);
    expect_page(volume, 2, 1);
    expect_detail(GRAFT_UNAVAILABLE, GRAFT_DETAIL_UNREACHABLE, graft_push(volume, NULL, &err));
    expect_detail(GRAFT_UNAVAILABLE, GRAFT_DETAIL_UNREACHABLE, graft_pull(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_OK);
    graft_volume_close(volume);
    graft_close(client);
    test_folder_free(scratch);
}
