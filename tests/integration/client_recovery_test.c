// SPDX-License-Identifier: Apache-2.0
//
// Pushes whose answer never came, against the real daemons: what a reset makes of them, and what becomes of a data
// directory that was copied meanwhile.
#include <stdio.h>
#include <unistd.h>

#include "tests/integration/client_fixture.h"
#include "tests/lib/proxy.h"

#define HASTY_MS 700u

static struct proxy *proxy; // in front of the metastore

static void begin(void)
{
    cluster_begin();
    proxy = proxy_new(daemon_url(metastore, "listen") + strlen("http://"));
}

static void end(void)
{
    proxy_free(proxy);
    cluster_end();
}

TestSuite(client_recovery, .init = begin, .fini = end);

// A client with a volume of 10 pages (tag 1) at remote LSN 1.
static struct graft *client_with_volume(const char *name, struct graft_volume **ret_volume)
{
    struct graft *client = open_client_at(name, proxy_url(proxy), HASTY_MS);

    *ret_volume = create_volume(client, 512, GRAFT_FIXED);
    commit_pages(*ret_volume, 1, 10, 1);
    expect_ok(graft_push(*ret_volume, NULL, &err));
    return client;
}

// Pushes, and loses the commit (PROXY_REQUEST) or its answer (PROXY_ANSWER) on the way.
static void lose_push(struct graft_volume *volume, enum proxy_direction direction)
{
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", direction, 0});
    expect_status(GRAFT_UNKNOWN, graft_push(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_UNKNOWN);
    proxy_go_on(proxy);
}

static void close_both(struct graft *client, struct graft_volume *volume)
{
    graft_volume_close(volume);
    graft_close(client);
}

Test(client_recovery, a_reset_finds_that_the_push_had_landed)
{
    struct graft_volume *volume;
    struct graft *client = client_with_volume("a", &volume);
    uint64_t dropped;

    commit_pages(volume, 2, 2, 2);
    lose_push(volume, PROXY_ANSWER);
    commit_pages(volume, 3, 2, 3);
    expect_ok(graft_discard(volume, 0, &dropped, &err));
    cr_assert_eq(dropped, 1);
    cr_assert_eq(info_of(volume).remote_lsn, 2);
    for (uint32_t page = 1; page <= 10; page++)
        expect_page(volume, page, page == 2 || page == 3 ? 2 : 1);
    close_both(client, volume);
}

Test(client_recovery, a_reset_keeps_a_lost_push_from_landing_late)
{
    struct graft_volume *volume;
    struct graft *client = client_with_volume("a", &volume);
    uint64_t local_lsn, remote_lsn;

    commit_pages(volume, 2, 2, 2);
    commit_truncate(volume, 5);
    lose_push(volume, PROXY_REQUEST);
    commit_pages(volume, 20, 1, 3);
    local_lsn = info_of(volume).local_lsn;
    // Asking again is held up as well; the void commit passes.
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", PROXY_REQUEST, 0});
    expect_ok(graft_reset(volume, &err));
    proxy_go_on(proxy);
    struct graft_volume_info info = info_of(volume);
    cr_assert_eq(info.status, GRAFT_VOLUME_OK);
    cr_assert_eq(info.remote_lsn, 2, "no void commit");
    cr_assert_eq(info.page_count, 10);
    cr_assert_eq(info.local_lsn, local_lsn + 1);
    for (uint32_t page = 1; page <= 10; page++)
        expect_page(volume, page, 1);
    expect_page(volume, 20, 0);
    commit_pages(volume, 4, 1, 4);
    expect_ok(graft_push(volume, &remote_lsn, &err));
    cr_assert_eq(remote_lsn, 3);
    // Others see the void commit as one that changes nothing.
    struct graft *other = open_client("other");
    struct graft_volume *clone = clone_volume(other, volume);
    for (uint32_t page = 1; page <= 10; page++)
        expect_page(clone, page, page == 4 ? 4 : 1);
    close_both(other, clone);
    close_both(client, volume);
}

Test(client_recovery, a_first_push_can_be_fenced_off_as_well)
{
    struct graft *client = open_client_at("a", proxy_url(proxy), HASTY_MS);
    struct graft_volume *volume = create_volume(client, 512, GRAFT_FIXED);

    commit_pages(volume, 1, 3, 1);
    lose_push(volume, PROXY_REQUEST);
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", PROXY_REQUEST, 0});
    expect_ok(graft_reset(volume, &err));
    proxy_go_on(proxy);
    cr_assert_eq(info_of(volume).remote_lsn, 1);
    cr_assert_eq(info_of(volume).page_count, 0);
    commit_pages(volume, 1, 3, 2);
    expect_ok(graft_push(volume, NULL, &err));
    close_both(client, volume);
}

// ---- copied data directories --------------------------------------------------------------------

static void *no_more(struct graft *client, struct graft_volume *volume)
{
    close_both(client, volume);
    return NULL;
}

// Both directories push, in this order; every page of `commits` rounds must be there once.
static void push_both(const char *vid, uint64_t landed_lsn)
{
    struct graft *a = open_client("a"), *b = open_client("b");
    struct graft_volume *first, *second;
    uint64_t lsn;

    expect_ok(graft_volume_open(a, vid, &first, &err));
    expect_ok(graft_volume_open(b, vid, &second, &err));
    expect_ok(graft_push(first, &lsn, &err));
    cr_assert_eq(lsn, landed_lsn);
    expect_ok(graft_push(second, &lsn, &err));
    cr_assert_eq(lsn, landed_lsn, "it landed twice");
    // From here on they are two clients like any others.
    commit_pages(first, 7, 1, 7);
    commit_pages(second, 7, 1, 8);
    expect_ok(graft_push(second, &lsn, &err));
    cr_assert_eq(lsn, landed_lsn + 1);
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_push(first, NULL, &err));
    cr_assert_eq(info_of(first).pending_commits, 1);
    expect_page(first, 7, 7);
    expect_ok(graft_reset(first, &err));
    expect_page(first, 7, 8);
    expect_page(first, 2, 2);
    close_both(a, first);
    close_both(b, second);
}

static void copy_and_push(enum proxy_direction lost)
{
    struct graft_volume *volume;
    struct graft *client = client_with_volume("a", &volume);
    char vid[GRAFT_VID_SIZE];

    memcpy(vid, info_of(volume).vid, sizeof vid);
    commit_pages(volume, 2, 1, 2);
    lose_push(volume, lost);
    no_more(client, volume);
    copy_client("a", "b");
    push_both(vid, 2);
}

Test(client_recovery, a_copied_directory_whose_push_had_landed_does_not_land_it_again)
{
    copy_and_push(PROXY_ANSWER);
}

Test(client_recovery, a_copied_directory_whose_push_was_lost_lands_it_once)
{
    copy_and_push(PROXY_REQUEST);
}

Test(client_recovery, of_two_copies_with_the_same_unpushed_commit_one_is_rejected)
{
    struct graft_volume *first, *second;
    struct graft *a = client_with_volume("a", &first);
    char vid[GRAFT_VID_SIZE];
    uint64_t lsn;

    memcpy(vid, info_of(first).vid, sizeof vid);
    commit_pages(first, 2, 1, 2);
    no_more(a, first);
    copy_client("a", "b");
    a = open_client("a");
    struct graft *b = open_client("b");
    expect_ok(graft_volume_open(a, vid, &first, &err));
    expect_ok(graft_volume_open(b, vid, &second, &err));
    expect_ok(graft_push(first, &lsn, &err));
    cr_assert_eq(lsn, 2);
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_push(second, NULL, &err));
    cr_assert_eq(info_of(second).status, GRAFT_VOLUME_REJECTED);
    cr_assert_eq(info_of(second).pending_commits, 1);
    expect_page(second, 2, 2);
    close_both(a, first);
    close_both(b, second);
}

Test(client_recovery, of_two_copies_one_resets_and_the_other_goes_on)
{
    struct graft_volume *first, *second;
    struct graft *a = client_with_volume("a", &first);
    char vid[GRAFT_VID_SIZE];

    memcpy(vid, info_of(first).vid, sizeof vid);
    commit_pages(first, 2, 1, 2);
    lose_push(first, PROXY_REQUEST);
    no_more(a, first);
    copy_client("a", "b");
    a = open_client_at("a", proxy_url(proxy), HASTY_MS);
    expect_ok(graft_volume_open(a, vid, &first, &err));
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", PROXY_REQUEST, 0});
    expect_ok(graft_reset(first, &err));
    proxy_go_on(proxy);
    // What one discarded the other cannot bring back; it keeps it, and is told.
    struct graft *b = open_client("b");
    expect_ok(graft_volume_open(b, vid, &second, &err));
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_push(second, NULL, &err));
    cr_assert_eq(info_of(second).pending_commits, 1);
    expect_page(second, 2, 2);
    expect_ok(graft_pull(first, NULL, &err));
    expect_page(first, 2, 1);
    close_both(a, first);
    close_both(b, second);
}

// ---- another history ----------------------------------------------------------------------------

Test(client_recovery, a_corrupt_volume_is_reattached_to_the_history_that_the_servers_have)
{
    struct graft_volume *volume;
    struct graft *client = client_with_volume("a", &volume);
    char vid[GRAFT_VID_SIZE];
    uint64_t dropped;

    // The client knows LSN 2 and has more to push; the servers go back to LSN 1.
    memcpy(vid, info_of(volume).vid, sizeof vid);
    daemon_stop(metastore);
    copy_store("metastore", "metastore-backup");
    daemon_restart(metastore);
    commit_pages(volume, 2, 1, 2);
    expect_ok(graft_push(volume, NULL, &err));
    commit_pages(volume, 3, 1, 3);
    daemon_stop(metastore);
    copy_store("metastore-backup", "metastore");
    daemon_restart(metastore);
    expect_status(GRAFT_CORRUPT, graft_push(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_CORRUPT);
    expect_status(GRAFT_CORRUPT, graft_reset(volume, &err));
    cr_assert_eq(info_of(volume).pending_commits, 1);
    no_more(client, volume);
    client = open_client("a");
    expect_ok(graft_volume_open(client, vid, &volume, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_CORRUPT, "it forgot");
    expect_ok(graft_discard(volume, GRAFT_DISCARD_REATTACH, &dropped, &err));
    cr_assert_eq(dropped, 1);
    cr_assert_eq(info_of(volume).remote_lsn, 1);
    for (uint32_t page = 1; page <= 10; page++)
        expect_page(volume, page, 1);
    commit_pages(volume, 2, 1, 5);
    expect_ok(graft_push(volume, NULL, &err));
    expect_page(volume, 2, 5);
    no_more(client, volume);
}
