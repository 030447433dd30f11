// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/metastore/log_fixture.h"

#include <stdlib.h>

#include "metastore/keys.h"

static void assert_ok(const struct commit_answer *answer, uint64_t lsn)
{
    cr_assert_eq(answer->error.status, GRAFT_OK, "%s", answer->error.message);
    cr_assert(answer->has_token && answer->has_snapshot);
    cr_assert_eq(answer->snapshot.lsn, lsn);
}

static void assert_error(const struct commit_answer *answer, enum graft_status status,
                         enum graft_detail detail)
{
    cr_assert_eq(answer->error.status, status, "%s", answer->error.message);
    cr_assert_eq(answer->error.detail, detail, "%s", answer->error.message);
}

// A definitive no: it names the token that was looked for.
static void assert_rejected(const struct commit_answer *answer, enum graft_status status,
                            enum graft_detail detail, uint64_t token)
{
    struct token expected = token_of(token);
    assert_error(answer, status, detail);
    cr_assert(answer->has_token && token_equal(&answer->token, &expected));
}

// Commits `count` times, with tokens 1 to count. `snapshots` (count + 1 of them, NULL: not wanted) are what
// followed.
static struct snapshot grow(struct log_fixture *fixture, const struct gid *vid, uint64_t count,
                            struct snapshot *snapshots)
{
    struct snapshot head = fixture_head(fixture, vid);
    if (snapshots)
        snapshots[0] = head;
    for (uint64_t i = 1; i <= count; i++) {
        struct commit_plan plan = plan_on(&head, i, (uint32_t)i, 2);
        struct commit_answer answer = fixture_commit(fixture, &plan);
        assert_ok(&answer, i);
        head = answer.snapshot;
        if (snapshots)
            snapshots[i] = head;
    }
    return head;
}

static void write_mark(struct objstore *store, const struct snapshot *at)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(4096);
    _cleanup_(pageset_free_p) struct pageset *none = pageset_new();
    struct summary mark = {.vid = at->vid, .first_lsn = 1, .last_lsn = at->lsn, .chain = at->chain};
    cr_assert_eq(summary_encode(&mark, none, &record, NULL), GRAFT_OK);
    objstore_remove_wait(store, key_retired(&at->vid).text, NULL);
    cr_assert_eq(objstore_create_wait(store, key_retired(&at->vid).text, buffer_bytes(&record), NULL),
                 GRAFT_OK);
}

static void add_fault(struct log_fixture *fixture, const char *op, enum objstore_fault_kind kind,
                      enum graft_status status, unsigned skip, unsigned count)
{
    struct objstore_fault fault = {
        .op = op, .key_prefix = "volumes/", .skip = skip, .count = count, .kind = kind};
    fault.error.status = status;
    objstore_faulty_add(fixture->store, &fault);
}

static void forge_receipt(Graft__CommitRequest *request)
{
    request->segments[0]->receipt.data[0] ^= 1;
}

// ---- appending

Test(sequencer, appends_on_the_head_and_moves_it)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot base = fixture_head(fixture, &vid);
    struct commit_plan plan = plan_on(&base, 77, 5, 3);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 1);
    struct token token = token_of(77);
    struct hash128 digest = digest_of(77);
    struct hash128 chain = chain_next(&base.chain, &vid, 1, &token, &digest, 7);
    cr_assert_eq(answer.snapshot.page_count, 7);
    cr_assert(hash_equal(&answer.snapshot.chain, &chain));
    cr_assert(hash_equal(&answer.digest, &digest));
    cr_assert(token_equal(&answer.token, &token));
    struct snapshot head = fixture_head(fixture, &vid);
    cr_assert_eq(head.lsn, 1);
    cr_assert_eq(fixture->head_moves, 1);
}

Test(sequencer, keeps_pages_and_no_receipts_in_the_record)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    grow(fixture, &vid, 1, NULL);
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(1 << 16);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    struct commit_facts facts;
    struct bytes wire;
    cr_assert_eq(objstore_get_wait(fixture->store, key_commit(&vid, 1).text, 0, 1 << 16, &record, NULL),
                 GRAFT_OK);
    cr_assert_eq(commit_record_decode(buffer_bytes(&record), &vid, 1, &facts, pages, NULL), GRAFT_OK);
    cr_assert_eq(pageset_count(pages), 2);
    cr_assert(pageset_contains(pages, 1) && pageset_contains(pages, 2));
    cr_assert_eq(record_verify(buffer_bytes(&record), RECORD_COMMIT, &wire, NULL), GRAFT_OK);
    ProtobufCMessage *message;
    cr_assert_eq(message_decode(&graft__commit__descriptor, wire, 1 << 20, &message, NULL), GRAFT_OK);
    Graft__Commit *commit = (Graft__Commit *)message;
    cr_assert_eq(commit->segments[0]->receipt.len, 0);
    cr_assert_eq(commit->segments[0]->object_size, 100000);
    cr_assert_eq(commit->cid.len, GID_SIZE);
    message_free(message);
}

Test(sequencer, accepts_a_void_commit)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    struct commit_plan plan = plan_on(&head, 50, 1, 1);
    plan.segment_count = 0;
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
}

Test(sequencer, refuses_a_volume_that_does_not_exist)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct snapshot nowhere = {.vid = gid_make(GID_VOLUME, 1)};
    struct commit_plan plan = plan_on(&nowhere, 1, 1, 1);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_error(&answer, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME);
    cr_assert(!answer.has_token);
}

// ---- rules 1 and 2

Test(sequencer, answers_a_duplicate_with_the_commit_that_landed)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot at[11];
    grow(fixture, &vid, 10, at);
    for (uint64_t lsn = 1; lsn <= 10; lsn++) {
        struct commit_plan plan = plan_on(&at[lsn - 1], lsn, (uint32_t)lsn, 2);
        struct commit_answer answer = fixture_commit(fixture, &plan);
        assert_ok(&answer, lsn);
        cr_assert(hash_equal(&answer.snapshot.chain, &at[lsn].chain));
    }
    cr_assert_eq(fixture_head(fixture, &vid).lsn, 10);
}

Test(sequencer, rejects_a_token_that_landed_with_another_digest)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot at[4];
    grow(fixture, &vid, 3, at);
    for (uint64_t lsn = 1; lsn <= 3; lsn++) {
        struct commit_plan plan = plan_on(&at[lsn - 1], lsn, (uint32_t)lsn, 2);
        plan.digest = 999;
        struct commit_answer answer = fixture_commit(fixture, &plan);
        assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_TOKEN_REUSED, lsn);
    }
}

Test(sequencer, finds_the_token_before_it_looks_at_receipts)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot at[3];
    grow(fixture, &vid, 2, at);
    for (uint64_t lsn = 1; lsn <= 2; lsn++) {
        struct commit_plan plan = plan_on(&at[lsn - 1], lsn, (uint32_t)lsn, 2);
        plan.expires_ms = 1;
        struct commit_answer answer = fixture_commit_spoilt(fixture, &plan, forge_receipt);
        assert_ok(&answer, lsn);
    }
}

Test(sequencer, finds_the_token_after_a_restart)
{
    struct objstore *store = fixture_store_new();
    struct log_fixture before, after;
    struct gid vid = fixture_create_volume(store);
    struct snapshot at[6];
    fixture_init(&before, store, false, 10);
    grow(&before, &vid, 5, at);
    fixture_release(&before);
    fixture_init(&after, store, false, 10);
    struct commit_plan plan = plan_on(&at[2], 3, 3, 2);
    struct commit_answer answer = fixture_commit(&after, &plan);
    assert_ok(&answer, 3);
    plan = plan_on(&at[4], 5, 5, 2);
    answer = fixture_commit(&after, &plan);
    assert_ok(&answer, 5);
    fixture_release(&after);
    objstore_close(store);
}

Test(sequencer, knows_nothing_of_commits_on_a_retired_base)
{
    struct objstore *store = fixture_store_new();
    struct log_fixture before, after;
    struct gid vid = fixture_create_volume(store);
    struct snapshot at[11];
    fixture_init(&before, store, false, 10);
    grow(&before, &vid, 10, at);
    fixture_release(&before);
    write_mark(store, &at[4]);
    for (uint64_t lsn = 1; lsn <= 3; lsn++)
        objstore_remove_wait(store, key_commit(&vid, lsn).text, NULL);
    fixture_init(&after, store, false, 10);
    // Base 3: commit 4 is still there and is retired all the same. Base 4: history goes on.
    struct commit_plan plan = plan_on(&at[3], 4, 4, 2);
    struct commit_answer answer = fixture_commit(&after, &plan);
    assert_error(&answer, GRAFT_GONE, GRAFT_DETAIL_RETIRED);
    // It settles nothing about the token, but is about no other: the client may say that its base is gone.
    cr_assert(answer.has_token);
    plan = plan_on(&at[0], 500, 1, 2);
    answer = fixture_commit(&after, &plan);
    assert_error(&answer, GRAFT_GONE, GRAFT_DETAIL_RETIRED);
    plan = plan_on(&at[4], 5, 5, 2);
    answer = fixture_commit(&after, &plan);
    assert_ok(&answer, 5);
    plan = plan_on(&at[4], 501, 5, 2);
    answer = fixture_commit(&after, &plan);
    assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, 501);
    fixture_release(&after);
    objstore_close(store);
}

// ---- rule 3

Test(sequencer, calls_a_base_beyond_the_head_corrupt)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 2, NULL);
    head.lsn = 3;
    struct commit_plan plan = plan_on(&head, 9, 1, 1);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_error(&answer, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH);
    cr_assert(answer.has_token, "else a client could not tell it from an answer to another request");
}

Test(sequencer, calls_another_chain_at_the_base_corrupt)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot at[6];
    grow(fixture, &vid, 5, at);
    for (unsigned lsn = 0; lsn <= 5; lsn++) {
        struct snapshot base = at[lsn];
        base.chain.bytes[3] ^= 1;
        struct commit_plan plan = plan_on(&base, 9, 1, 1);
        struct commit_answer answer = fixture_commit(fixture, &plan);
        assert_error(&answer, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH);
    }
    cr_assert_eq(fixture_head(fixture, &vid).lsn, 5);
}

// ---- rules 4 and 6

Test(sequencer, rejects_an_old_base_with_the_head)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot at[6];
    struct snapshot head = grow(fixture, &vid, 5, at);
    for (unsigned lsn = 0; lsn < 5; lsn++) {
        struct commit_plan plan = plan_on(&at[lsn], 100 + lsn, 1, 1);
        struct commit_answer answer = fixture_commit(fixture, &plan);
        assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, 100 + lsn);
        cr_assert(answer.has_snapshot);
        cr_assert_eq(answer.snapshot.lsn, 5);
        cr_assert(hash_equal(&answer.snapshot.chain, &head.chain));
    }
}

Test(sequencer, deletes_a_volume_once_and_for_all)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot at[3];
    struct snapshot head = grow(fixture, &vid, 2, at);
    struct commit_answer answer = fixture_delete(fixture, &vid, 60);
    assert_ok(&answer, 3);
    cr_assert(answer.snapshot.deleted);
    answer = fixture_delete(fixture, &vid, 60);
    assert_ok(&answer, 3);
    answer = fixture_delete(fixture, &vid, 61);
    assert_rejected(&answer, GRAFT_GONE, GRAFT_DETAIL_DELETED, 61);
    // On the old head, on the end itself, and a duplicate of what landed before.
    struct commit_plan plan = plan_on(&head, 62, 1, 1);
    answer = fixture_commit(fixture, &plan);
    assert_rejected(&answer, GRAFT_GONE, GRAFT_DETAIL_DELETED, 62);
    head = fixture_head(fixture, &vid);
    plan = plan_on(&head, 63, 1, 1);
    answer = fixture_commit(fixture, &plan);
    assert_rejected(&answer, GRAFT_GONE, GRAFT_DETAIL_DELETED, 63);
    plan = plan_on(&at[1], 2, 2, 2);
    answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
}

Test(sequencer, deletes_a_volume_without_commits)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct commit_answer answer = fixture_delete(fixture, &vid, 60);
    assert_ok(&answer, 1);
    cr_assert(answer.snapshot.deleted);
}

// ---- rule 5: references

static void take_owner(Graft__CommitRequest *request)
{
    static uint8_t other[GID_SIZE];
    memcpy(other, request->vid.data, GID_SIZE);
    other[9] ^= 1;
    request->segments[0]->owner = binary_of(other, GID_SIZE);
}
static void cut_receipt(Graft__CommitRequest *request)
{
    request->segments[0]->receipt.len = 31;
}
static void stretch_expiry(Graft__CommitRequest *request)
{
    request->segments[0]->expires_ms -= 1;
}
static void enlarge_object(Graft__CommitRequest *request)
{
    request->segments[0]->object_size++;
}
static void no_sid(Graft__CommitRequest *request)
{
    request->segments[0]->sid.len = 0;
}
static void short_token(Graft__CommitRequest *request)
{
    request->token.len = 15;
}
static void no_digest(Graft__CommitRequest *request)
{
    request->digest.len = 0;
}
static void no_chain(Graft__CommitRequest *request)
{
    request->base_chain.len = 0;
}
static void cid_for_vid(Graft__CommitRequest *request)
{
    request->vid = request->cid;
}
static void cut_above_page_count(Graft__CommitRequest *request)
{
    request->cut = request->page_count + 1;
}
static void huge_base(Graft__CommitRequest *request)
{
    request->base_lsn = UINT64_MAX;
}

Test(sequencer, refuses_what_is_malformed_or_forged)
{
    static const struct {
        void (*spoil)(Graft__CommitRequest *request);
        const char *field;
    } cases[] = {{take_owner, "owner"},       {forge_receipt, "receipt"},    {cut_receipt, "receipt"},
                 {stretch_expiry, "receipt"}, {enlarge_object, "receipt"},   {no_sid, "sid"},
                 {short_token, "token"},      {no_digest, "digest"},         {no_chain, "base_chain"},
                 {cid_for_vid, "vid"},        {cut_above_page_count, "cut"}, {huge_base, "base_lsn"}};
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct commit_plan plan = plan_on(&head, 70 + i, 1, 1);
        struct commit_answer answer = fixture_commit_spoilt(fixture, &plan, cases[i].spoil);
        cr_assert_eq(answer.error.status, GRAFT_INVALID, "case %zu: %s", i, answer.error.message);
        cr_assert(strstr(answer.error.message, cases[i].field), "case %zu: %s", i, answer.error.message);
        cr_assert(!answer.has_token);
    }
    cr_assert_eq(fixture_head(fixture, &vid).lsn, 1);
}

static uint8_t spoilt_pages[8];
static void structural_outside(Graft__CommitRequest *request)
{
    // A receipt over it would be needed as well: whichever is seen first, it is refused.
    spoilt_pages[0] = 50;
    spoilt_pages[1] = 1;
    request->segments[0]->structural = binary_of(spoilt_pages, 2);
}

Test(sequencer, refuses_page_sets_that_overlap_or_lie_outside)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    struct commit_plan plan = plan_on(&head, 70, 1, 5);
    plan.segment_count = 2;
    plan.segments[1] = (struct page_run){5, 1};
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_error(&answer, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET);
    cr_assert(strstr(answer.error.message, "segments[1]"), "%s", answer.error.message);
    plan.segments[1] = (struct page_run){6, 1}; // beyond page_count 5
    answer = fixture_commit(fixture, &plan);
    assert_error(&answer, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET);
    plan.page_count = 6;
    answer = fixture_commit_spoilt(fixture, &plan, structural_outside);
    cr_assert_eq(answer.error.status, GRAFT_INVALID);
    answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
}

Test(sequencer, refuses_a_cut_above_what_the_volume_had)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL); // 2 pages
    struct commit_plan plan = plan_on(&head, 70, 1, 10);
    plan.cut = 3;
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_error(&answer, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT);
    plan.cut = 2;
    answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
}

Test(sequencer, asks_for_another_upload_when_a_receipt_expired)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    plan.expires_ms = clock_wall_ms(&fixture->clock.clock);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_error(&answer, GRAFT_GONE, GRAFT_DETAIL_SEGMENT_GONE);
    cr_assert(!answer.has_token, "the same token is to be used again");
    plan.expires_ms++;
    answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
}

Test(sequencer, prefers_conflict_to_what_is_wrong_with_references)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot at[3];
    grow(fixture, &vid, 2, at);
    struct commit_plan plan = plan_on(&at[1], 70, 1, 1);
    plan.expires_ms = 1;
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, 70);
}

// ---- the store fails

Test(sequencer, finds_its_own_commit_when_the_answer_was_lost)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    add_fault(fixture, "create", FAULT_LOST_ANSWER, GRAFT_UNKNOWN, 0, 1);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
    cr_assert_eq(objstore_faulty_fired(fixture->store), 1);
    plan = plan_on(&answer.snapshot, 71, 1, 1);
    answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 3);
}

Test(sequencer, creates_again_when_nothing_came_of_it)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    add_fault(fixture, "create", FAULT_ERROR, GRAFT_UNKNOWN, 0, 3);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
    cr_assert_eq(objstore_faulty_fired(fixture->store), 3);
}

Test(sequencer, says_unknown_when_the_store_never_tells)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    add_fault(fixture, "create", FAULT_ERROR, GRAFT_UNKNOWN, 0, 1000);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    cr_assert_eq(answer.error.status, GRAFT_UNKNOWN);
    cr_assert(!answer.has_token);
}

Test(sequencer, says_unknown_when_a_refusal_follows_a_lost_answer)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    add_fault(fixture, "create", FAULT_ERROR, GRAFT_UNKNOWN, 0, 1);
    add_fault(fixture, "create", FAULT_ERROR, GRAFT_UNAVAILABLE, 0, 1);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    cr_assert_eq(answer.error.status, GRAFT_UNKNOWN);
}

Test(sequencer, passes_on_that_nothing_was_done)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    add_fault(fixture, "create", FAULT_ERROR, GRAFT_UNAVAILABLE, 0, 1);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    cr_assert_eq(answer.error.status, GRAFT_UNAVAILABLE);
    answer = fixture_commit(fixture, &plan);
    assert_ok(&answer, 2);
}

Test(sequencer, lets_nobody_see_a_commit_before_it_is_durable)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    add_fault(fixture, "create", FAULT_HOLD, GRAFT_OK, 0, 1);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    struct pending_answer *first = fixture_commit_begin(fixture, &plan);
    fixture_await_faults(fixture, 1);
    // The duplicate, a rival, and the deletion wait for it; who only reads sees the head before it.
    struct pending_answer *duplicate = fixture_commit_begin(fixture, &plan);
    struct commit_plan rival = plan_on(&head, 71, 1, 1);
    struct pending_answer *loser = fixture_commit_begin(fixture, &rival);
    cr_assert_eq(fixture_head(fixture, &vid).lsn, 1);
    cr_assert(!fixture_is_answered(first) && !fixture_is_answered(duplicate) && !fixture_is_answered(loser));
    objstore_faulty_release(fixture->store);
    struct commit_answer answer = fixture_await(first);
    assert_ok(&answer, 2);
    answer = fixture_await(duplicate);
    assert_ok(&answer, 2);
    answer = fixture_await(loser);
    assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, 71);
    cr_assert_eq(answer.snapshot.lsn, 2);
}

Test(sequencer, refuses_more_waiters_than_its_limit)
{
    _cleanup_(fixture_free_p) struct log_fixture *fixture = fixture_new();
    struct gid vid = fixture_create_volume(fixture->store);
    struct snapshot head = grow(fixture, &vid, 1, NULL);
    add_fault(fixture, "create", FAULT_HOLD, GRAFT_OK, 0, 1);
    struct commit_plan plan = plan_on(&head, 70, 1, 1);
    static struct pending_answer *waiting[VOLUME_QUEUE_MAX + 1];
    waiting[0] = fixture_commit_begin(fixture, &plan); // has the turn
    fixture_await_faults(fixture, 1);
    for (unsigned i = 1; i <= VOLUME_QUEUE_MAX; i++)
        waiting[i] = fixture_commit_begin(fixture, &plan);
    struct commit_answer answer = fixture_commit(fixture, &plan);
    assert_error(&answer, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED);
    objstore_faulty_release(fixture->store);
    for (unsigned i = 0; i <= VOLUME_QUEUE_MAX; i++) {
        answer = fixture_await(waiting[i]);
        assert_ok(&answer, 2);
    }
}

// ---- two metastores on one store

struct pair {
    struct objstore *store;
    struct log_fixture a, b;
    struct gid vid;
};

static struct pair *pair_new(void)
{
    struct pair *pair = calloc(1, sizeof *pair);
    pair->store = fixture_store_new();
    pair->vid = fixture_create_volume(pair->store);
    fixture_init(&pair->a, pair->store, true, 10);
    fixture_init(&pair->b, pair->store, true, 10);
    fixture_head(&pair->b, &pair->vid); // loaded, and soon stale
    return pair;
}

static void pair_free(struct pair *pair)
{
    fixture_release(&pair->a);
    fixture_release(&pair->b);
    objstore_close(pair->store);
    free(pair);
}
DEFINE_CLEANUP(struct pair, pair_free)

Test(sequencer, loses_a_race_to_another_metastore_and_reads_the_winner)
{
    _cleanup_(pair_free_p) struct pair *pair = pair_new();
    struct snapshot at[4];
    grow(&pair->a, &pair->vid, 3, at);
    struct commit_plan plan = plan_on(&at[0], 40, 1, 1); // b still believes that LSN 0 is the head
    struct commit_answer answer = fixture_commit(&pair->b, &plan);
    assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, 40);
    cr_assert_eq(answer.snapshot.lsn, 3);
}

Test(sequencer, recognises_a_token_that_landed_through_another_metastore)
{
    _cleanup_(pair_free_p) struct pair *pair = pair_new();
    struct snapshot at[4];
    grow(&pair->a, &pair->vid, 3, at);
    struct commit_plan plan = plan_on(&at[0], 1, 1, 2);
    struct commit_answer answer = fixture_commit(&pair->b, &plan);
    assert_ok(&answer, 1);
    plan.digest = 5;
    answer = fixture_commit(&pair->b, &plan);
    assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_TOKEN_REUSED, 1);
}

Test(sequencer, reads_on_before_it_calls_a_base_corrupt)
{
    _cleanup_(pair_free_p) struct pair *pair = pair_new();
    struct snapshot head = grow(&pair->a, &pair->vid, 3, NULL);
    struct commit_plan plan = plan_on(&head, 40, 1, 1);
    struct commit_answer answer = fixture_commit(&pair->b, &plan);
    assert_ok(&answer, 4);
    cr_assert_eq(fixture_head(&pair->a, &pair->vid).lsn, 4);
}

Test(sequencer, discards_a_create_that_fell_into_retired_history)
{
    _cleanup_(pair_free_p) struct pair *pair = pair_new();
    struct snapshot at[6];
    grow(&pair->a, &pair->vid, 5, at);
    write_mark(pair->store, &at[3]);
    for (uint64_t lsn = 1; lsn <= 3; lsn++)
        objstore_remove_wait(pair->store, key_commit(&pair->vid, lsn).text, NULL);
    // To b the head is LSN 0, and LSN 1 is free again.
    struct commit_plan plan = plan_on(&at[0], 40, 1, 1);
    struct commit_answer answer = fixture_commit(&pair->b, &plan);
    assert_error(&answer, GRAFT_GONE, GRAFT_DETAIL_RETIRED);
    cr_assert_eq(fixture_head(&pair->b, &pair->vid).lsn, 5);
    plan = plan_on(&at[5], 41, 1, 1);
    answer = fixture_commit(&pair->b, &plan);
    assert_ok(&answer, 6);
}

Test(sequencer, reads_the_mark_after_it_looked_for_the_token)
{
    _cleanup_(pair_free_p) struct pair *pair = pair_new();
    struct snapshot at[6];
    grow(&pair->a, &pair->vid, 5, at);
    cr_assert_eq(fixture_head(&pair->b, &pair->vid).lsn, 5);
    write_mark(pair->store, &at[3]);
    // b remembers no mark, and the commits are still there.
    struct commit_plan plan = plan_on(&at[1], 2, 2, 2);
    struct commit_answer answer = fixture_commit(&pair->b, &plan);
    assert_error(&answer, GRAFT_GONE, GRAFT_DETAIL_RETIRED);
}

// Many rivals through two metastores: each LSN has one winner, each token one fate, and nothing is lost.
Test(sequencer, orders_rivals_of_two_metastores)
{
    _cleanup_(pair_free_p) struct pair *pair = pair_new();
    enum { ROUNDS = 60, RIVALS = 4 };
    struct snapshot head = fixture_head(&pair->a, &pair->vid);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct pending_answer *pending[RIVALS];
        for (unsigned i = 0; i < RIVALS; i++) {
            struct commit_plan plan = plan_on(&head, 1000 + round * RIVALS + i, 1, 1);
            pending[i] = fixture_commit_begin(i % 2 ? &pair->a : &pair->b, &plan);
        }
        unsigned winners = 0;
        struct snapshot next = head;
        for (unsigned i = 0; i < RIVALS; i++) {
            struct commit_answer answer = fixture_await(pending[i]);
            if (answer.error.status == GRAFT_OK) {
                winners++;
                next = answer.snapshot;
            } else {
                assert_rejected(&answer, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, 1000 + round * RIVALS + i);
            }
        }
        cr_assert_eq(winners, 1);
        cr_assert_eq(next.lsn, head.lsn + 1);
        head = next;
    }
    cr_assert_eq(fixture_head(&pair->a, &pair->vid).lsn, ROUNDS);
    cr_assert_eq(fixture_head(&pair->b, &pair->vid).lsn, ROUNDS);
}
