// SPDX-License-Identifier: Apache-2.0
//
// Forks against the real daemons: the local state under a new VID, with nothing downloaded.
#include "tests/integration/client_fixture.h"
#include "tests/lib/proxy.h"

static struct proxy *proxy; // in front of the metastore
static struct graft *client;
static struct graft_volume *volume;

// 20 pages of tag 1 at remote LSN 1.
static void begin(void)
{
    cluster_begin();
    proxy = proxy_new(daemon_url(metastore, "listen") + strlen("http://"));
    client = open_client_at("a", proxy_url(proxy), 1000);
    volume = create_volume(client, 512, GRAFT_FIXED);
    commit_pages(volume, 1, 20, 1);
    expect_ok(graft_push(volume, NULL, &err));
}

static void end(void)
{
    graft_volume_close(volume);
    graft_close(client);
    proxy_free(proxy);
    cluster_end();
}

TestSuite(client_fork, .init = begin, .fini = end);

// Unpushed: pages 3 and 4 rewritten, cut to 10, grown to 15 with page 15 written.
static void change_unpushed(struct graft_volume *of)
{
    commit_pages(of, 3, 2, 2);
    commit_truncate(of, 10);
    commit_pages(of, 15, 1, 3);
}

static void expect_changed(struct graft_volume *of)
{
    cr_assert_eq(info_of(of).page_count, 15);
    for (uint32_t page = 1; page <= 20; page++)
        expect_page(of, page, page == 3 || page == 4 ? 2 : page <= 10 ? 1 : page == 15 ? 3 : 0);
}

static bool count_head(void *context, const struct graft_remote_head *head)
{
    ++*(unsigned *)context;
    return true;
}

static struct graft_volume *fork_it(void)
{
    struct graft_volume *fork;

    expect_ok(graft_fork(volume, &fork, &err));
    cr_assert_neq(strcmp(info_of(fork).vid, info_of(volume).vid), 0);
    return fork;
}

// Both go their ways, and others see the fork as it is here.
static void expect_apart(struct graft_volume *fork)
{
    struct graft *other = open_client("other");

    expect_ok(graft_push(fork, NULL, &err));
    struct graft_volume *clone = clone_volume(other, fork);
    expect_changed(clone);
    commit_pages(clone, 1, 1, 7);
    expect_ok(graft_push(clone, NULL, &err));
    expect_ok(graft_pull(fork, NULL, &err));
    expect_page(fork, 1, 7);
    expect_page(volume, 1, 1);
    graft_volume_close(clone);
    graft_close(other);
}

Test(client_fork, of_a_rejected_volume_keeps_its_commits_and_downloads_nothing)
{
    struct graft *b = open_client("b");
    struct graft_volume *winner = clone_volume(b, volume);

    commit_pages(winner, 1, 1, 9);
    expect_ok(graft_push(winner, NULL, &err));
    change_unpushed(volume);
    expect_detail(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_push(volume, NULL, &err));
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_REJECTED);
    uint64_t read = pagestore_counter("graft_read_pages_total");
    struct graft_volume *fork = fork_it();
    cr_assert_eq(pagestore_counter("graft_read_pages_total"), read);
    struct graft_volume_info info = info_of(fork);
    cr_assert_eq(info.status, GRAFT_VOLUME_OK);
    cr_assert_eq(info.pending_commits, 1);
    cr_assert_eq(info.fetch.requests, 0);
    cr_assert_eq(info.pages_available, 3);
    expect_changed(fork);
    // The old one stays until it is reset.
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_REJECTED);
    cr_assert_eq(info_of(volume).pending_commits, 3);
    expect_changed(volume);
    expect_apart(fork);
    expect_ok(graft_reset(volume, &err));
    expect_page(volume, 1, 9);
    expect_page(volume, 20, 1);
    expect_page(fork, 3, 2);
    graft_volume_close(fork);
    graft_volume_close(winner);
    graft_close(b);
}

Test(client_fork, fences_a_push_without_an_answer_off)
{
    change_unpushed(volume);
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", PROXY_REQUEST, 0});
    expect_status(GRAFT_UNKNOWN, graft_push(volume, NULL, &err));
    proxy_go_on(proxy);
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", PROXY_REQUEST, 0});
    struct graft_volume *fork = fork_it();
    proxy_go_on(proxy);
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_REJECTED);
    cr_assert_eq(info_of(volume).remote_seen_lsn, 2);
    cr_assert_eq(info_of(volume).pending_commits, 3);
    expect_changed(fork);
    expect_apart(fork);
    graft_volume_close(fork);
}

Test(client_fork, finds_that_the_push_had_landed)
{
    change_unpushed(volume);
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/commit", PROXY_ANSWER, 0});
    expect_status(GRAFT_UNKNOWN, graft_push(volume, NULL, &err));
    proxy_go_on(proxy);
    struct graft_volume *fork = fork_it();
    cr_assert_eq(info_of(volume).status, GRAFT_VOLUME_OK);
    cr_assert_eq(info_of(volume).remote_lsn, 2);
    cr_assert_eq(info_of(fork).pending_commits, 0);
    expect_changed(fork);
    expect_apart(fork);
    graft_volume_close(fork);
}

Test(client_fork, of_a_clone_reads_what_was_never_here)
{
    struct graft *b = open_client("b");
    struct graft_volume *clone = clone_volume(b, volume), *fork;

    change_unpushed(clone);
    expect_ok(graft_fork(clone, &fork, &err));
    expect_changed(fork);
    expect_apart(fork);
    graft_volume_close(fork);
    graft_volume_close(clone);
    graft_close(b);
}

Test(client_fork, of_what_was_never_pushed_needs_no_server)
{
    struct graft *alone = open_client_at("alone", NULL, 1000);
    struct graft_volume *first = create_volume(alone, 512, GRAFT_VARIABLE), *fork;

    commit_pages(first, 1, 5, 1);
    commit_pages(first, 2, 1, 2);
    expect_ok(graft_fork(first, &fork, &err));
    for (uint32_t page = 1; page <= 5; page++)
        expect_page(fork, page, page == 2 ? 2 : 1);
    cr_assert_eq(info_of(fork).kind, GRAFT_VARIABLE);
    graft_volume_close(fork);
    graft_volume_close(first);
    graft_close(alone);
}

Test(client_fork, without_servers_leaves_everything_as_it_was_and_goes_on_with_the_same_name)
{
    struct graft_volume *fork;
    unsigned volumes = 0;

    change_unpushed(volume);
    proxy_stop_at(proxy, &(struct proxy_stop){"/v1/fork", PROXY_ANSWER, 0});
    expect_status(GRAFT_UNKNOWN, graft_fork(volume, &fork, &err));
    proxy_go_on(proxy);
    expect_changed(volume);
    fork = fork_it();
    expect_changed(fork);
    // Volume, fork, and none that the first try left.
    expect_ok(graft_remote_list(client, count_head, &volumes, &err));
    cr_assert_eq(volumes, 2);
    graft_volume_close(fork);
}
