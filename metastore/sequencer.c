// SPDX-License-Identifier: Apache-2.0
//
//     sequencer_commit ─▶ got_volume ─▶ [turn] run_rules ─▶ got_next ─▶ got_mark ─▶ judge ─▶ finish
//                                         ▲                                          │
//                                         │                                          ▼
//                                   read_on_done ◀── read_on ◀── lost race ◀── append: created ─▶ landed
//
// From run_rules to finish the operation holds the volume's turn. What does not depend on the head (the
// references, the record's bytes) is made ready before, on the caller's thread.
#include "metastore/sequencer.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/failpoint.h"
#include "common/base/limits.h"
#include "metastore/commit_request.h"
#include "metastore/keys.h"

// A create that loses this often is given up, its outcome left open.
#define RACES_MAX 32u

enum outcome {
    OUTCOME_OK,
    OUTCOME_DUPLICATE,
    OUTCOME_CONFLICT,
    OUTCOME_TOKEN_REUSED,
    OUTCOME_DELETED,
    OUTCOME_SEGMENT_GONE,
    OUTCOME_RETIRED,
    OUTCOME_CORRUPT,
    OUTCOME_INVALID,
    OUTCOME_FAILED,
    OUTCOME_COUNT,
};

struct sequencer {
    struct sequencer_settings settings;
    atomic_size_t under_way_size; // bytes of records being decided
    struct metric *outcomes[OUTCOME_COUNT];
    struct metric *races, *under_way;
};

struct operation {
    struct sequencer *sequencer;
    struct volume_wait wait;
    struct volume_turn turn;
    struct volume *volume;
    bool deleting;              // sequencer_delete(): base, digest and record are made from the head
    struct commit_facts commit; // as it would be appended
    struct buffer record;       // its bytes; empty if the references were refused
    size_t charged_size;
    struct graft_error refused; // rule 5: what is wrong with the references; .status GRAFT_OK: nothing
    uint64_t expires_ms;        // the first receipt's end

    // one run of the rules
    struct volume_state state;
    bool has_next;
    struct commit_facts next; // the commit at base+1, where there is one

    bool read_on;        // the head was read from the store again after the turn began
    bool answer_lost;    // a create's outcome is not known
    unsigned race_count; // creates that did not succeed
    commit_done_fn *done;
    void *context;
};

struct sequencer *sequencer_new(const struct sequencer_settings *settings)
{
    static const char *const labels[OUTCOME_COUNT] = {
        "outcome=\"ok\"",      "outcome=\"duplicate\"",    "outcome=\"conflict\"", "outcome=\"token_reused\"",
        "outcome=\"deleted\"", "outcome=\"segment_gone\"", "outcome=\"retired\"",  "outcome=\"corrupt\"",
        "outcome=\"invalid\"", "outcome=\"failed\""};
    struct sequencer *sequencer = calloc(1, sizeof *sequencer);
    CHECK(sequencer);
    sequencer->settings = *settings;
    for (unsigned i = 0; i < OUTCOME_COUNT; i++)
        sequencer->outcomes[i] = metrics_counter(settings->metrics, "graft_metastore_commits_total",
                                                 labels[i], "Commits answered, by what the answer was.");
    sequencer->races =
        metrics_counter(settings->metrics, "graft_metastore_commit_races_total", NULL,
                        "Creates of a commit that found its LSN taken, or whose answer was lost.");
    sequencer->under_way = metrics_gauge(settings->metrics, "graft_metastore_commits_under_way_bytes", NULL,
                                         "Bytes of commits that are being decided.");
    return sequencer;
}

void sequencer_free(struct sequencer *sequencer)
{
    CHECK(!sequencer || atomic_load(&sequencer->under_way_size) == 0);
    free(sequencer);
}

// ---- answers

static void operation_free(struct operation *operation)
{
    struct sequencer *sequencer = operation->sequencer;
    atomic_fetch_sub(&sequencer->under_way_size, operation->charged_size);
    metric_add(sequencer->under_way, -(int64_t)operation->charged_size);
    buffer_release(&operation->record);
    free(operation);
}

static enum outcome outcome_of(const struct graft_error *error)
{
    switch (error->detail) {
    case GRAFT_DETAIL_TOKEN_REUSED:
        return OUTCOME_TOKEN_REUSED;
    case GRAFT_DETAIL_DELETED:
        return OUTCOME_DELETED;
    case GRAFT_DETAIL_NOT_HEAD:
        return OUTCOME_CONFLICT;
    case GRAFT_DETAIL_SEGMENT_GONE:
        return OUTCOME_SEGMENT_GONE;
    case GRAFT_DETAIL_RETIRED:
        return OUTCOME_RETIRED;
    default:
        break;
    }
    if (error->status == GRAFT_CORRUPT)
        return OUTCOME_CORRUPT;
    if (error->status == GRAFT_INVALID || error->status == GRAFT_LIMIT || error->status == GRAFT_NOT_FOUND)
        return OUTCOME_INVALID;
    return OUTCOME_FAILED;
}

// The end of an operation that holds the turn. The answer goes out first: giving the turn on may run
// others' rules here.
static void finish(struct operation *operation, const struct commit_answer *answer, enum outcome outcome)
{
    struct volume *volume = operation->volume;
    metric_add(operation->sequencer->outcomes[outcome], 1);
    operation->done(operation->context, answer);
    FAILPOINT("append.answered");
    operation_free(operation);
    volume_turn_end(volume);
    volume_unref(volume);
}

static void finish_error(struct operation *operation, const struct graft_error *error)
{
    struct commit_answer answer = {.error = *error};
    finish(operation, &answer, outcome_of(error));
}

// An answer about this very token, which was looked for: what the client may draw conclusions from.
static void finish_judged(struct operation *operation, const struct graft_error *error, bool with_head)
{
    struct commit_answer answer = {.error = *error, .has_token = true, .token = operation->commit.token};
    if (with_head) {
        answer.has_snapshot = true;
        answer.snapshot = snapshot_of(&operation->state.record, &operation->state.head);
    }
    finish(operation, &answer, outcome_of(error));
}

static void finish_ok(struct operation *operation, const struct commit_facts *commit, enum outcome outcome)
{
    struct commit_answer answer = {.has_token = true,
                                   .token = commit->token,
                                   .digest = commit->digest,
                                   .has_snapshot = true,
                                   .snapshot = snapshot_of(&operation->state.record, commit)};
    finish(operation, &answer, outcome);
}

// The end of an operation that never had the turn.
static void refuse(struct operation *operation, const struct graft_error *error)
{
    struct commit_answer answer = {.error = *error};
    metric_add(operation->sequencer->outcomes[outcome_of(error)], 1);
    operation->done(operation->context, &answer);
    operation_free(operation);
}

// ---- appending

static void run_rules(struct operation *operation);

static void read_on_done(void *context, const struct volume_state *state, const struct graft_error *error)
{
    struct operation *operation = context;
    if (!state) {
        struct graft_error answer = *error;
        if (operation->answer_lost)
            answer.status = GRAFT_UNKNOWN;
        finish_error(operation, &answer);
        return;
    }
    volume_update(operation->volume, state);
    operation->read_on = true;
    run_rules(operation);
}

static void read_on(struct operation *operation)
{
    volume_read_on(operation->sequencer->settings.store, &operation->state, read_on_done, operation);
}

static void landed(struct operation *operation)
{
    FAILPOINT("append.durable");
    volume_advance(operation->volume, &operation->commit);
    FAILPOINT("append.advanced");
    finish_ok(operation, &operation->commit, OUTCOME_OK);
}

static void finish_retired(struct operation *operation, uint64_t retired_lsn)
{
    struct graft_error error;
    error_set(
        &error, GRAFT_GONE, GRAFT_DETAIL_RETIRED,
        "history up to LSN %llu of volume %s is no longer kept, so nobody can tell what became of a commit on LSN "
        "%llu",
        (unsigned long long)retired_lsn, gid_format(&operation->commit.vid).text,
        (unsigned long long)operation->commit.base_lsn);
    finish_judged(operation, &error, false);
}

static bool mark_from(const struct operation *operation, struct objstore_result *result,
                      uint64_t *ret_retired_lsn)
{
    struct summary mark = {0};
    if (result->error.status == GRAFT_OK)
        summary_decode(buffer_bytes(&result->data), &operation->commit.vid, &mark, NULL, &result->error);
    else if (result->error.status == GRAFT_NOT_FOUND)
        result->error.status = GRAFT_OK;
    *ret_retired_lsn = mark.last_lsn;
    return result->error.status == GRAFT_OK;
}

// Between our look at the mark and our create another metastore may have taken LSNs beyond ours and retired
// them: then what we created lies in a history that is gone, and is garbage.
static void got_mark_after_create(void *context, struct objstore_result *result)
{
    struct operation *operation = context;
    uint64_t retired_lsn;
    if (!mark_from(operation, result, &retired_lsn)) {
        result->error.status = GRAFT_UNKNOWN;
        finish_error(operation, &result->error);
    } else if (operation->commit.lsn <= retired_lsn) {
        finish_retired(operation, retired_lsn);
    } else {
        landed(operation);
    }
}

static void give_up_racing(struct operation *operation, const struct graft_error *last)
{
    struct graft_error error;
    if (operation->answer_lost)
        error_set(&error, GRAFT_UNKNOWN, last->detail,
                  "the store did not tell whether commit %llu of volume %s exists",
                  (unsigned long long)operation->commit.lsn, gid_format(&operation->commit.vid).text);
    else
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                  "lost the race for an LSN of volume %s %u times; try again",
                  gid_format(&operation->commit.vid).text, operation->race_count);
    finish_error(operation, &error);
}

static void created(void *context, struct objstore_result *result)
{
    struct operation *operation = context;
    struct sequencer *sequencer = operation->sequencer;
    enum graft_status status = result->error.status;
    if (status == GRAFT_OK && !sequencer->settings.shared) {
        landed(operation);
    } else if (status == GRAFT_OK) {
        objstore_get(sequencer->settings.store, key_retired(&operation->commit.vid).text, 0, RECORD_SIZE_MAX,
                     got_mark_after_create, operation);
    } else if (status == GRAFT_CONFLICT || status == GRAFT_UNKNOWN) {
        // The LSN may be taken by another, or by us: only the commit there tells. Read it and start again at
        // rule 1.
        metric_add(sequencer->races, 1);
        operation->answer_lost |= status == GRAFT_UNKNOWN;
        if (++operation->race_count >= RACES_MAX)
            give_up_racing(operation, &result->error);
        else
            read_on(operation);
    } else {
        struct graft_error error = result->error;
        error_context(&error, error.status, "appending commit %llu to volume %s",
                      (unsigned long long)operation->commit.lsn, gid_format(&operation->commit.vid).text);
        if (operation->answer_lost)
            error.status = GRAFT_UNKNOWN; // an earlier create of ours may still land
        finish_error(operation, &error);
    }
}

static void append(struct operation *operation)
{
    const struct commit_facts *commit = &operation->commit;
    CHECK(commit->lsn == operation->state.head.lsn + 1);
    CHECK(hash_equal(&commit->base_chain, &operation->state.head.chain));
    CHECK(operation->record.size > RECORD_OVERHEAD);
    FAILPOINT("append.before");
    objstore_create(operation->sequencer->settings.store, key_commit(&commit->vid, commit->lsn).text,
                    buffer_bytes(&operation->record), created, operation);
}

// ---- the rules

static bool chain_matches(const struct operation *operation)
{
    const struct commit_facts *commit = &operation->commit;
    const struct hash128 *here =
        operation->has_next ? &operation->next.base_chain : &operation->state.head.chain;
    return hash_equal(&commit->base_chain, here);
}

// Rule 5: may a commit on the head be appended?
static enum graft_status check_appendable(const struct operation *operation, struct graft_error *err)
{
    const struct commit_facts *commit = &operation->commit;
    if (operation->refused.status != GRAFT_OK)
        return error_copy(err, &operation->refused);
    uint64_t now_ms = clock_wall_ms(operation->sequencer->settings.clock);
    if (operation->expires_ms <= now_ms)
        return error_set(err, GRAFT_GONE, GRAFT_DETAIL_SEGMENT_GONE,
                         "a segment's receipt expired %llu s ago; upload the pages again",
                         (unsigned long long)(now_ms - operation->expires_ms) / 1000);
    if (commit->cut > operation->state.head.page_count)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_ARGUMENT,
                         "cut is %u, more than the %u pages that the volume has at LSN %llu", commit->cut,
                         operation->state.head.page_count, (unsigned long long)commit->base_lsn);
    return GRAFT_OK;
}

static void finish_missing(struct operation *operation)
{
    struct graft_error error;
    error_set(&error, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
              "commit %llu of volume %s is missing, though its head is %llu",
              (unsigned long long)operation->commit.lsn, gid_format(&operation->commit.vid).text,
              (unsigned long long)operation->state.head.lsn);
    finish_error(operation, &error);
}

// Rule 2: the token is in the log.
static void finish_found(struct operation *operation)
{
    struct graft_error error;
    if (hash_equal(&operation->next.digest, &operation->commit.digest)) {
        finish_ok(operation, &operation->next, OUTCOME_DUPLICATE);
        return;
    }
    error_set(&error, GRAFT_CONFLICT, GRAFT_DETAIL_TOKEN_REUSED,
              "this token landed as commit %llu of volume %s with other content",
              (unsigned long long)operation->next.lsn, gid_format(&operation->commit.vid).text);
    finish_judged(operation, &error, false);
}

static void finish_mismatch(struct operation *operation)
{
    struct graft_error error;
    volume_other_history(&operation->state, operation->commit.base_lsn, &error);
    finish_judged(operation, &error, false);
}

static void finish_deleted(struct operation *operation)
{
    struct graft_error error;
    error_set(&error, GRAFT_GONE, GRAFT_DETAIL_DELETED, "volume %s was deleted at LSN %llu",
              gid_format(&operation->commit.vid).text, (unsigned long long)operation->state.head.lsn);
    finish_judged(operation, &error, false);
}

static void finish_conflict(struct operation *operation)
{
    struct graft_error error;
    error_set(&error, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
              "the commit's base is LSN %llu of volume %s, its head is %llu",
              (unsigned long long)operation->commit.base_lsn, gid_format(&operation->commit.vid).text,
              (unsigned long long)operation->state.head.lsn);
    finish_judged(operation, &error, true);
}

static void judge(struct operation *operation)
{
    const struct commit_facts *commit = &operation->commit, *head = &operation->state.head;
    bool behind = commit->base_lsn < head->lsn;
    bool beyond = commit->base_lsn > head->lsn;
    struct graft_error error;
    if (behind && commit->base_lsn < operation->state.retired_lsn)
        finish_retired(operation, operation->state.retired_lsn); // 1
    else if (behind && !operation->has_next)
        finish_missing(operation);
    else if (operation->has_next && token_equal(&operation->next.token, &commit->token))
        finish_found(operation); // 2
    else if (beyond && operation->sequencer->settings.shared && !operation->read_on)
        read_on(operation);
    else if (beyond || !chain_matches(operation))
        finish_mismatch(operation); // 3
    else if (head->deleted)
        finish_deleted(operation); // 4
    else if (behind)
        finish_conflict(operation); // 6
    else if (check_appendable(operation, &error) != GRAFT_OK)
        finish_error(operation, &error); // 5
    else
        append(operation);
}

static void got_mark(void *context, struct objstore_result *result)
{
    struct operation *operation = context;
    if (mark_from(operation, result, &operation->state.retired_lsn))
        judge(operation);
    else
        finish_error(operation, &result->error);
}

// The mark is read after the token was looked for: the other way round a commit could be retired in
// between, its token not be found, and a commit that landed be called rejected.
static void token_looked_for(struct operation *operation)
{
    if (!operation->sequencer->settings.shared)
        judge(operation); // the mark in memory is the truth
    else
        objstore_get(operation->sequencer->settings.store, key_retired(&operation->commit.vid).text, 0,
                     RECORD_SIZE_MAX, got_mark, operation);
}

static void got_next(void *context, struct objstore_result *result)
{
    struct operation *operation = context;
    struct graft_error *error = &result->error;
    if (error->status == GRAFT_OK) {
        commit_record_decode(buffer_bytes(&result->data), &operation->commit.vid,
                             operation->commit.base_lsn + 1, &operation->next, NULL, error);
        operation->has_next = true;
    } else if (error->status == GRAFT_NOT_FOUND) {
        error->status = GRAFT_OK;
    }
    if (error->status == GRAFT_OK)
        token_looked_for(operation);
    else
        finish_error(operation, error);
}

static void judge_deletion(struct operation *operation);

static void run_rules(struct operation *operation)
{
    const struct commit_facts *head = &operation->state.head;
    uint64_t base_lsn = operation->commit.base_lsn;
    volume_get_state(operation->volume, &operation->state);
    operation->has_next = false;
    if (operation->deleting) {
        judge_deletion(operation);
    } else if (base_lsn >= head->lsn) {
        judge(operation);
    } else if (base_lsn + 1 == head->lsn) {
        operation->next = *head;
        operation->has_next = true;
        token_looked_for(operation);
    } else if (base_lsn < operation->state.retired_lsn) {
        judge(operation);
    } else {
        objstore_get(operation->sequencer->settings.store,
                     key_commit(&operation->commit.vid, base_lsn + 1).text, 0, RECORD_SIZE_MAX, got_next,
                     operation);
    }
}

static void turn_came(struct volume_turn *turn)
{
    run_rules(CONTAINER_OF(turn, struct operation, turn));
}

static void got_volume(struct volume_wait *wait, struct volume *volume, const struct graft_error *error)
{
    struct operation *operation = CONTAINER_OF(wait, struct operation, wait);
    struct graft_error full;
    if (!volume) {
        refuse(operation, error);
        return;
    }
    operation->volume = volume;
    operation->turn.run = turn_came;
    if (volume_turn_begin(volume, &operation->turn, &full) != GRAFT_OK) {
        refuse(operation, &full);
        volume_unref(volume);
    }
}

// ---- requests

static struct operation *operation_new(struct sequencer *sequencer, commit_done_fn *done, void *context)
{
    struct operation *operation = calloc(1, sizeof *operation);
    CHECK(operation);
    operation->sequencer = sequencer;
    operation->done = done;
    operation->context = context;
    operation->wait.ready = got_volume;
    operation->expires_ms = UINT64_MAX;
    buffer_init(&operation->record, COMMIT_RECORD_SIZE_MAX);
    return operation;
}

static void start(struct operation *operation)
{
    struct sequencer *sequencer = operation->sequencer;
    operation->charged_size = sizeof *operation + operation->record.capacity;
    size_t before = atomic_fetch_add(&sequencer->under_way_size, operation->charged_size);
    metric_add(sequencer->under_way, (int64_t)operation->charged_size);
    if (before + operation->charged_size > COMMIT_QUEUE_SIZE_MAX) {
        struct graft_error error;
        error_set(&error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_OVERLOADED,
                  "%llu MiB of commits are being decided already; try again", COMMIT_QUEUE_SIZE_MAX / MIB);
        refuse(operation, &error);
        return;
    }
    volume_table_get(sequencer->settings.volumes, &operation->commit.vid, &operation->wait);
}

void sequencer_commit(struct sequencer *sequencer, Graft__CommitRequest *request, commit_done_fn *done,
                      void *context)
{
    struct operation *operation = operation_new(sequencer, done, context);
    struct graft_error error;
    struct gid cid;
    if (commit_request_parse(request, &operation->commit, &cid, &error) != GRAFT_OK) {
        refuse(operation, &error);
        return;
    }
    operation->commit.time_ms = clock_wall_ms(sequencer->settings.clock);
    // What is wrong with the references is for rule 5 to say.
    commit_request_encode(request, sequencer->settings.key, &operation->commit, &cid, &operation->record,
                          &operation->expires_ms, &operation->refused);
    start(operation);
}

// ---- deletion

// The final commit follows whatever the head is, so its base never conflicts; and nothing follows it, so
// its token can only be at the head.
static void judge_deletion(struct operation *operation)
{
    const struct commit_facts *head = &operation->state.head;
    struct commit_facts *commit = &operation->commit;
    struct graft_error error;
    if (head->deleted && token_equal(&head->token, &commit->token)) {
        finish_ok(operation, head, OUTCOME_DUPLICATE);
        return;
    }
    if (head->deleted) {
        finish_deleted(operation);
        return;
    }
    commit->base_lsn = head->lsn;
    commit->lsn = head->lsn + 1;
    commit->base_chain = head->chain;
    commit->page_count = commit->cut = head->page_count;
    commit->digest = commit_digest_finish(
        commit_digest_new(&commit->vid, commit->base_lsn, commit->page_count, commit->cut, 0));
    commit->chain = chain_next(&commit->base_chain, &commit->vid, commit->lsn, &commit->token,
                               &commit->digest, commit->page_count);
    buffer_clear(&operation->record);
    if (commit_record_encode(commit, NULL, NULL, 0, &operation->record, &error) == GRAFT_OK)
        append(operation);
    else
        finish_error(operation, &error);
}

void sequencer_delete(struct sequencer *sequencer, const struct gid *vid, const struct token *token,
                      commit_done_fn *done, void *context)
{
    struct operation *operation = operation_new(sequencer, done, context);
    operation->deleting = true;
    operation->commit = (struct commit_facts){
        .vid = *vid, .token = *token, .deleted = true, .time_ms = clock_wall_ms(sequencer->settings.clock)};
    start(operation);
}
