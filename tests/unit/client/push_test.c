// SPDX-License-Identifier: Apache-2.0
//
// The push's state machine against servers and networks that misbehave: what settles a push, and what does not.
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/net/message.h"
#include "tests/unit/client/mock_servers.h"
#include "tests/unit/client/store_fixture.h"

static struct mock_servers mock;
static char folder[64];
static struct graft *client;
static struct graft_volume *volume;
static char vid[GRAFT_VID_SIZE];

// Where a push must succeed, however busy the machine is, and where it is to give up.
#define PATIENT_MS 20000u
#define IMPATIENT_MS 800u

static void open_client(uint32_t deadline_ms)
{
    struct graft_settings settings = {
        .data = folder, .metastore = mock.url, .pagestore = mock.url, .deadline_ms = deadline_ms};
    expect_ok(graft_open(&settings, &client, &err));
}

static void reopen(uint32_t deadline_ms)
{
    graft_volume_close(volume);
    graft_close(client);
    open_client(deadline_ms);
    expect_ok(graft_volume_open(client, vid, &volume, &err));
}

static struct graft_volume_info info(void)
{
    struct graft_volume_info found;

    expect_ok(graft_volume_info(volume, &found, &err));
    return found;
}

static void commit(uint32_t first, uint32_t count)
{
    struct graft_writer *writer;
    uint8_t page[MOCK_PAGE_SIZE];

    expect_ok(graft_writer_begin(volume, &writer, &err));
    for (uint32_t i = first; i < first + count; i++) {
        mock_page(i, page);
        expect_ok(graft_writer_write(writer, i, page, sizeof page, &err));
    }
    expect_ok(graft_writer_commit(writer, NULL, &err));
}

static void begin(void)
{
    strcpy(folder, "/tmp/graft-push-XXXXXX");
    cr_assert(mkdtemp(folder));
    mock_start(&mock);
    open_client(PATIENT_MS);
    expect_ok(graft_volume_create(client, MOCK_PAGE_SIZE, GRAFT_FIXED, &volume, &err));
    memcpy(vid, info().vid, sizeof vid);
    commit(1, 10);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void end(void)
{
    graft_volume_close(volume);
    graft_close(client);
    mock_stop(&mock);
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(push, .init = begin, .fini = end);

static void all_commits(enum commit_fault fault)
{
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        mock.commit_faults[i] = fault;
}

static void expect_same_requests(unsigned a, unsigned b)
{
    cr_assert_eq(mock.requests[a].size, mock.requests[b].size);
    cr_assert_eq(memcmp(mock.requests[a].data, mock.requests[b].data, mock.requests[a].size), 0);
}

static Graft__CommitRequest *request(unsigned place)
{
    ProtobufCMessage *message;

    expect_ok(message_decode(&graft__commit_request__descriptor, buffer_bytes(&mock.requests[place]), 1 << 22,
                             &message, &err));
    return (Graft__CommitRequest *)message;
}

static bool same(const ProtobufCBinaryData *a, const ProtobufCBinaryData *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

Test(push, lands_once_though_the_answer_was_lost)
{
    uint64_t lsn;

    reopen(IMPATIENT_MS);
    all_commits(COMMIT_LOST);
    expect_status(GRAFT_UNKNOWN, graft_push(volume, NULL, &err));
    cr_assert_eq(info().status, GRAFT_VOLUME_UNKNOWN);
    unsigned tries = mock.commits;
    cr_assert_gt(tries, 1);
    expect_same_requests(0, tries - 1);
    reopen(PATIENT_MS);
    cr_assert_eq(info().status, GRAFT_VOLUME_UNKNOWN);
    mock.commits = 1;
    all_commits(COMMIT_PLAIN);
    expect_ok(graft_push(volume, &lsn, &err));
    cr_assert_eq(lsn, 1);
    cr_assert_eq(mock.head_lsn, 1);
    cr_assert_eq(mock.writes, 1);
    expect_same_requests(0, 1);
    cr_assert_eq(info().status, GRAFT_VOLUME_OK);
    cr_assert_eq(info().pending_commits, 0);
}

Test(push, is_not_rejected_by_what_is_not_about_its_token)
{
    enum commit_fault faults[] = {COMMIT_PROXY_CONFLICT, COMMIT_BARE_CONFLICT, COMMIT_OTHER_CONFLICT,
                                  COMMIT_DENIED,         COMMIT_BUSY,          COMMIT_OTHER_TOKEN_OK,
                                  COMMIT_OTHER_DIGEST_OK};
    uint64_t lsn;

    reopen(IMPATIENT_MS);
    for (unsigned i = 0; i < ARRAY_COUNT(faults); i++) {
        struct graft_error why = {0};
        all_commits(faults[i]);
        cr_assert_neq(graft_push(volume, NULL, &why), GRAFT_OK);
        cr_assert_eq(info().status, GRAFT_VOLUME_UNKNOWN, "after fault %d: %s", (int)faults[i], why.message);
        cr_assert_eq(info().pending_commits, 1);
        expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_reset(volume, &err));
        mock.commits = 1;
    }
    reopen(PATIENT_MS);
    all_commits(COMMIT_PLAIN);
    expect_ok(graft_push(volume, &lsn, &err));
    cr_assert_eq(lsn, 1);
    cr_assert_eq(mock.writes, 1);
    expect_same_requests(0, 1);
}

Test(push, is_rejected_by_a_definitive_answer_to_its_token)
{
    struct {
        enum commit_fault fault;
        enum graft_detail detail;
    } cases[] = {{COMMIT_CONFLICT, GRAFT_DETAIL_NOT_HEAD},
                 {COMMIT_TOKEN_REUSED, GRAFT_DETAIL_TOKEN_REUSED},
                 {COMMIT_DELETED, GRAFT_DETAIL_DELETED}};

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct graft_error why = {0};
        all_commits(cases[i].fault);
        cr_assert_neq(graft_push(volume, NULL, &why), GRAFT_OK);
        cr_assert_eq(why.detail, cases[i].detail, "%s", why.message);
        cr_assert_eq(info().status, GRAFT_VOLUME_REJECTED);
        cr_assert_eq(info().status_error.detail, cases[i].detail);
        // It stays so, also for the next opening, without asking anybody.
        reopen(PATIENT_MS);
        unsigned before = mock.commits;
        cr_assert_neq(graft_push(volume, NULL, &why), GRAFT_OK);
        cr_assert_eq(mock.commits, before);
        expect_ok(graft_reset(volume, &err));
        cr_assert_eq(info().status, GRAFT_VOLUME_OK);
        commit(1, 3);
    }
}

Test(push, uploads_again_with_the_same_token_when_segments_are_gone)
{
    uint64_t lsn;

    mock.commit_faults[0] = COMMIT_SEGMENT_GONE;
    mock.commit_faults[1] = COMMIT_SEGMENT_GONE;
    expect_ok(graft_push(volume, &lsn, &err));
    cr_assert_eq(lsn, 1);
    cr_assert_eq(mock.commits, 3);
    cr_assert_eq(mock.writes, 3);
    Graft__CommitRequest *first = request(0), *last = request(2);
    cr_assert(same(&first->token, &last->token));
    cr_assert(same(&first->digest, &last->digest));
    cr_assert(!same(&first->segments[0]->sid, &last->segments[0]->sid));
    message_free(&first->base);
    message_free(&last->base);
}

Test(push, uploads_again_after_a_restart_and_may_not_be_reset_meanwhile)
{
    reopen(IMPATIENT_MS);
    all_commits(COMMIT_SEGMENT_GONE);
    mock.write_faults[1] = mock.write_faults[2] = WRITE_BUSY;
    for (unsigned i = 3; i < MOCK_COMMITS_MAX; i++)
        mock.write_faults[i] = WRITE_BUSY;
    cr_assert_neq(graft_push(volume, NULL, NULL), GRAFT_OK);
    reopen(PATIENT_MS);
    expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING, graft_reset(volume, &err));
    memset(mock.write_faults, 0, sizeof mock.write_faults);
    all_commits(COMMIT_PLAIN);
    unsigned place = mock.commits;
    expect_ok(graft_push(volume, NULL, &err));
    Graft__CommitRequest *first = request(0), *last = request(place);
    cr_assert(same(&first->token, &last->token));
    cr_assert(same(&first->digest, &last->digest));
    message_free(&first->base);
    message_free(&last->base);
}

Test(push, finds_another_history_and_stops)
{
    all_commits(COMMIT_CHAIN_MISMATCH);
    expect_status(GRAFT_CORRUPT, graft_push(volume, NULL, &err));
    cr_assert_eq(info().status, GRAFT_VOLUME_CORRUPT);
    reopen(PATIENT_MS);
    unsigned before = mock.commits;
    expect_status(GRAFT_CORRUPT, graft_push(volume, NULL, &err));
    expect_status(GRAFT_CORRUPT, graft_pull(volume, NULL, &err));
    cr_assert_eq(mock.commits, before);
}

Test(push, does_not_apply_an_answer_whose_chain_does_not_follow)
{
    all_commits(COMMIT_OTHER_CHAIN_OK);
    expect_status(GRAFT_CORRUPT, graft_push(volume, NULL, &err));
    cr_assert_eq(info().status, GRAFT_VOLUME_CORRUPT);
    cr_assert_eq(info().remote_lsn, 0);
}

Test(push, on_a_retired_base_is_gone_but_pending)
{
    all_commits(COMMIT_RETIRED);
    expect_status(GRAFT_GONE, graft_push(volume, NULL, &err));
    cr_assert_eq(info().status, GRAFT_VOLUME_GONE);
    cr_assert_eq(info().pending_commits, 1);
}

Test(push, waits_for_busy_servers_within_its_deadline)
{
    mock.write_faults[0] = mock.write_faults[1] = WRITE_BUSY;
    mock.commit_faults[0] = mock.commit_faults[1] = COMMIT_BUSY;
    expect_ok(graft_push(volume, NULL, &err));
    cr_assert_eq(mock.writes, 3);
    cr_assert_eq(mock.commits, 3);
}

Test(push, does_not_believe_references_to_other_pages)
{
    reopen(IMPATIENT_MS);
    for (unsigned i = 0; i < MOCK_COMMITS_MAX; i++)
        mock.write_faults[i] = WRITE_FEWER_PAGES;
    expect_error(GRAFT_UNAVAILABLE, GRAFT_DETAIL_PROTOCOL, graft_push(volume, NULL, &err));
    cr_assert_eq(mock.commits, 0);
    cr_assert_eq(info().status, GRAFT_VOLUME_OK);
    reopen(PATIENT_MS);
    memset(mock.write_faults, 0, sizeof mock.write_faults);
    expect_ok(graft_push(volume, NULL, &err));
}

Test(push, leaves_commits_made_meanwhile_to_the_next)
{
    reopen(IMPATIENT_MS);
    all_commits(COMMIT_LOST);
    cr_assert_neq(graft_push(volume, NULL, NULL), GRAFT_OK);
    reopen(PATIENT_MS);
    commit(20, 2);
    all_commits(COMMIT_PLAIN);
    unsigned place = mock.commits;
    expect_ok(graft_push(volume, NULL, &err));
    cr_assert_eq(info().pending_commits, 1);
    Graft__CommitRequest *sent = request(place);
    cr_assert_eq(sent->page_count, 10);
    message_free(&sent->base);
    expect_ok(graft_push(volume, NULL, &err));
    sent = request(place + 1);
    cr_assert_eq(sent->page_count, 21);
    cr_assert_eq(sent->base_lsn, 1);
    cr_assert_eq(sent->cut, 10);
    message_free(&sent->base);
    cr_assert_eq(info().pending_commits, 0);
}
