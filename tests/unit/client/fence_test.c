// SPDX-License-Identifier: Apache-2.0
//
// Resets while a push has no answer: what was discarded never lands later, whatever the servers say, wherever the
// client dies.
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/client/mock_servers.h"
#include "tests/unit/client/replica_fixture.h"
#include "tests/unit/client/store_fixture.h"

static struct mock_servers mock;
static struct replica a;

static void begin(void)
{
    mock_start(&mock);
    mock.fences_apart = true;
    replica_begin(&a, &mock, 200);
    replica_create(&a);
    replica_commit(&a, 1, 10);
}

static void end(void)
{
    replica_end(&a);
    mock_stop(&mock);
}

TestSuite(fence, .init = begin, .fini = end);

static void all_commits(enum commit_fault fault)
{
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        mock.commit_faults[i] = fault;
}

static void all_fences(enum commit_fault fault)
{
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        mock.fence_faults[i] = fault;
}

// A push whose answer was lost. `landed`: on its way back, not on its way there.
static struct token lose_push(bool landed)
{
    all_commits(landed ? COMMIT_LOST : COMMIT_BUSY);
    cr_assert_neq(graft_push(a.volume, NULL, NULL), GRAFT_OK);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_UNKNOWN);
    return mock_request_token(&mock, 0);
}

static unsigned times_landed(const struct token *token)
{
    unsigned count = 0;

    for (uint64_t i = 0; i < mock.head_lsn; i++)
        count += token_equal(&mock.landed[i], token);
    return count;
}

Test(fence, a_void_commit_takes_the_place_of_a_push_that_never_landed)
{
    struct token token = lose_push(false);
    uint64_t dropped;

    replica_commit(&a, 20, 1);
    expect_ok(graft_discard(a.volume, 0, &dropped, &err));
    cr_assert_eq(dropped, 2);
    struct graft_volume_info info = replica_info(&a);
    cr_assert_eq(info.status, GRAFT_VOLUME_OK);
    cr_assert_eq(info.pending_commits, 0);
    cr_assert_eq(info.remote_lsn, 1);
    cr_assert_eq(info.page_count, 0);
    cr_assert_eq(info.local_lsn, 3, "local LSNs are never used again");
    cr_assert_eq(mock.head_lsn, 1);
    cr_assert_eq(mock.fences, 1);
    // The request of before, late, is a conflict now.
    all_commits(COMMIT_PLAIN);
    cr_assert_eq(mock_replay(&mock, 0), 409);
    cr_assert_eq(times_landed(&token), 0);
    replica_commit(&a, 1, 3);
    expect_ok(graft_push(a.volume, NULL, &err));
    cr_assert_eq(mock.head_lsn, 2);
}

Test(fence, is_not_needed_where_asking_again_gives_an_answer)
{
    struct token token = lose_push(true);
    uint64_t dropped;

    all_commits(COMMIT_PLAIN);
    replica_commit(&a, 20, 1);
    expect_ok(graft_discard(a.volume, 0, &dropped, &err));
    cr_assert_eq(dropped, 1, "the push had landed");
    cr_assert_eq(mock.fences, 0);
    cr_assert_eq(times_landed(&token), 1);
    cr_assert_eq(replica_info(&a).remote_lsn, 1);
    cr_assert_eq(replica_info(&a).page_count, 10);
}

Test(fence, finds_its_place_taken_by_the_push_itself)
{
    struct token token = lose_push(true);
    uint64_t dropped;

    mock.plain_after_fence = true;
    expect_ok(graft_discard(a.volume, 0, &dropped, &err));
    cr_assert_eq(dropped, 0);
    cr_assert_eq(mock.fences, 1);
    cr_assert_eq(times_landed(&token), 1);
    cr_assert_eq(mock.head_lsn, 1);
    cr_assert_eq(replica_info(&a).remote_lsn, 1);
}

Test(fence, finds_its_place_taken_by_somebody_else)
{
    struct token token = lose_push(false);
    uint64_t dropped;

    mock_land_other(&mock, a.vid);
    mock.plain_after_fence = true;
    expect_ok(graft_discard(a.volume, 0, &dropped, &err));
    cr_assert_eq(dropped, 1);
    cr_assert_eq(times_landed(&token), 0);
    cr_assert_eq(mock.head_lsn, 1);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_OK);
}

Test(fence, is_definitive_on_a_retired_base_and_on_a_deleted_volume)
{
    lose_push(false);
    all_fences(COMMIT_RETIRED);
    expect_ok(graft_reset(a.volume, &err));
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_OK);

    replica_commit(&a, 1, 2);
    lose_push(false);
    all_fences(COMMIT_DELETED);
    mock.plain_after_fence = true;
    mock.plain_is = COMMIT_DELETED;
    // Settled, but the mock still has a volume to follow.
    expect_ok(graft_reset(a.volume, &err));
    cr_assert_eq(replica_info(&a).pending_commits, 0);
}

Test(fence, without_an_answer_leaves_everything_as_it_was)
{
    lose_push(false);
    all_fences(COMMIT_PROXY_CONFLICT);
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_reset(a.volume, &err));
    cr_assert_eq(replica_info(&a).pending_commits, 1);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_UNKNOWN);
    replica_reopen(&a);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_UNKNOWN);
    // The fence may have been sent, so pushing asks about the push itself first, which can land.
    all_commits(COMMIT_PLAIN);
    unsigned fences = mock.fences;
    expect_ok(graft_push(a.volume, NULL, &err));
    cr_assert_eq(mock.fences, fences);
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_OK);
}

Test(fence, that_landed_unheard_of_is_met_by_the_next_push)
{
    struct token token = lose_push(false);

    all_fences(COMMIT_LOST);
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_reset(a.volume, &err));
    cr_assert_eq(mock.head_lsn, 1);
    replica_reopen(&a);
    all_commits(COMMIT_BUSY);
    all_fences(COMMIT_PLAIN);
    // The push's own request gets no answer; the fence, sent again byte for byte, does.
    expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, graft_push(a.volume, NULL, &err));
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_REJECTED);
    cr_assert_eq(replica_info(&a).pending_commits, 1, "kept until the user chooses");
    cr_assert_eq(mock.head_lsn, 1);
    cr_assert_eq(times_landed(&token), 0);
    expect_ok(graft_reset(a.volume, &err));
}

Test(fence, is_not_begun_without_servers)
{
    lose_push(false);
    replica_reopen_at(&a, "http://127.0.0.1:1");
    struct graft_error why;
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_reset(a.volume, &err));
    graft_reset(a.volume, &why);
    cr_assert(strstr(why.message, "cannot be settled without the servers"), "%s", why.message);
    replica_reopen(&a);
    all_commits(COMMIT_BUSY);
    cr_assert_neq(graft_push(a.volume, NULL, NULL), GRAFT_OK);
    cr_assert_eq(mock.fences, 0, "a push that nobody gave up was fenced off");
    all_commits(COMMIT_PLAIN);
    expect_ok(graft_push(a.volume, NULL, &err));
}

Test(fence, goes_without_an_upload_when_the_segments_are_gone)
{
    all_commits(COMMIT_SEGMENT_GONE);
    for (unsigned i = 1; i < MOCK_COMMITS_MAX; i++)
        mock.write_faults[i] = WRITE_BUSY;
    cr_assert_neq(graft_push(a.volume, NULL, NULL), GRAFT_OK);
    unsigned writes = mock.writes;
    expect_ok(graft_reset(a.volume, &err));
    cr_assert_eq(mock.writes, writes);
    cr_assert_eq(mock.head_lsn, 1);
    cr_assert_eq(replica_info(&a).pending_commits, 0);
}

Test(fence, that_was_never_sent_is_taken_back)
{
    all_commits(COMMIT_SEGMENT_GONE);
    for (unsigned i = 1; i < MOCK_COMMITS_MAX; i++)
        mock.write_faults[i] = WRITE_BUSY;
    cr_assert_neq(graft_push(a.volume, NULL, NULL), GRAFT_OK);
    replica_reopen_at(&a, "http://127.0.0.1:1");
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_reset(a.volume, &err));
    replica_reopen(&a);
    cr_assert_neq(graft_push(a.volume, NULL, NULL), GRAFT_OK);
    cr_assert_eq(mock.fences, 0, "a push that nobody gave up was fenced off");
    memset(mock.write_faults, 0, sizeof mock.write_faults);
    all_commits(COMMIT_PLAIN);
    expect_ok(graft_push(a.volume, NULL, &err));
    cr_assert_eq(replica_info(&a).pending_commits, 0);
}

Test(fence, finds_another_history)
{
    lose_push(false);
    all_fences(COMMIT_CHAIN_MISMATCH);
    expect_error(GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH, graft_reset(a.volume, &err));
    cr_assert_eq(replica_info(&a).status, GRAFT_VOLUME_CORRUPT);
    cr_assert_eq(replica_info(&a).pending_commits, 1);
    struct graft_error why;
    cr_assert_eq(graft_reset(a.volume, &why), GRAFT_CORRUPT);
    cr_assert(strstr(why.message, "--reattach"), "%s", why.message);
    // Reattached, it has what the servers have, and nothing of its own.
    mock_land_other(&mock, a.vid);
    uint64_t dropped;
    expect_ok(graft_discard(a.volume, GRAFT_DISCARD_REATTACH, &dropped, &err));
    cr_assert_eq(dropped, 1);
    struct graft_volume_info info = replica_info(&a);
    cr_assert_eq(info.status, GRAFT_VOLUME_OK);
    cr_assert_eq(info.remote_lsn, 1);
    cr_assert_eq(info.page_count, 0);
    cr_assert_eq(info.local_lsn, 2);
    all_commits(COMMIT_PLAIN);
    replica_commit(&a, 1, 2);
    expect_ok(graft_push(a.volume, NULL, &err));
}

// ---- dying at every message ---------------------------------------------------------------------
//
// As each commit arrives at the servers, the data directory is copied: that is what a client leaves that dies
// there, and also what a cloned machine starts from. Afterwards each copy goes on by itself.

#define COPIES_MAX 40u

struct copies {
    struct replica of[COPIES_MAX];
    unsigned count;
};

static void take_copy(void *context)
{
    struct copies *copies = context;

    if (copies->count < COPIES_MAX)
        replica_copy(&a, &copies->of[copies->count++]);
}

static void settle_copy(struct replica *copy, const struct token *token)
{
    replica_reopen(copy);
    struct graft_error why = {0};
    enum graft_status status = graft_push(copy->volume, NULL, &why);
    struct graft_volume_info info = replica_info(copy);
    cr_assert(status == GRAFT_OK || status == GRAFT_CONFLICT, "%s", why.message);
    cr_assert_eq(info.status, status == GRAFT_OK ? GRAFT_VOLUME_OK : GRAFT_VOLUME_REJECTED);
    cr_assert_eq(info.pending_commits, status == GRAFT_OK ? 0 : 1, "a local commit was lost");
    cr_assert_leq(times_landed(token), 1);
    cr_assert_eq(status == GRAFT_OK, times_landed(token) == 1);
    expect_ok(graft_reset(copy->volume, &err));
    cr_assert_eq(replica_info(copy).remote_lsn, mock.head_lsn);
    replica_end(copy);
}

static void die_everywhere(bool landed, enum commit_fault fence)
{
    struct copies *copies = calloc(1, sizeof *copies);
    struct token token;

    mock.context = copies;
    mock.on_commit = take_copy;
    token = lose_push(landed);
    all_fences(fence);
    mock.fence_faults[0] = COMMIT_PROXY_CONFLICT;
    mock.plain_after_fence = true;
    graft_reset(a.volume, NULL);
    mock.on_commit = NULL;
    all_commits(COMMIT_PLAIN);
    all_fences(COMMIT_PLAIN);
    cr_assert_gt(copies->count, 3);
    for (unsigned i = 0; i < copies->count; i++)
        settle_copy(&copies->of[i], &token);
    // Settled for the first as well, whatever became of its reset.
    cr_assert_eq(graft_push(a.volume, NULL, NULL) == GRAFT_OK || times_landed(&token) == 0, true);
    cr_assert_leq(times_landed(&token), 1);
    free(copies);
}

Test(fence, a_client_that_dies_at_any_message_of_a_reset_settles)
{
    die_everywhere(false, COMMIT_PLAIN);
}

Test(fence, also_if_the_push_had_landed)
{
    die_everywhere(true, COMMIT_PLAIN);
}

Test(fence, also_if_the_fence_is_never_answered)
{
    die_everywhere(false, COMMIT_LOST);
}
