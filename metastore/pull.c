// SPDX-License-Identifier: Apache-2.0
//
// Invariants while uniting:
//   1. `done` is the last LSN united, `chain` the chain there: each commit must follow it.
//   2. A piece (a commit or a summary) is united whole, so no piece reaches beyond the head.
#include "metastore/pull.h"

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/fetch.h"
#include "metastore/summary.h"

struct uniting {
    struct objstore *store;
    struct gid vid;
    struct pageset *pages;
    uint32_t cut;
    uint64_t done;
    struct hash128 chain;
    unsigned united;

    // the pieces being fetched: `count` of `span` LSNs each (1: commits) from window or LSN `first`
    uint32_t span;
    uint64_t first;
    bool missing; // a summary is not there: the fetch ended before it
};

static struct object_key piece_key(void *context, size_t place)
{
    const struct uniting *uniting = context;
    if (uniting->span == 1)
        return key_commit(&uniting->vid, uniting->first + place);
    return key_summary(&uniting->vid, uniting->span, uniting->first + place);
}

static enum graft_status unite_commit(struct uniting *uniting, struct bytes record, struct graft_error *err)
{
    uint64_t lsn = uniting->done + 1;
    struct commit_facts facts;
    if (!record.data)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu of volume %s is missing",
                         (unsigned long long)lsn, gid_format(&uniting->vid).text);
    enum graft_status status = commit_record_decode(record, &uniting->vid, lsn, &facts, uniting->pages, err);
    if (status != GRAFT_OK)
        return status;
    if (!hash_equal(&facts.base_chain, &uniting->chain))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                         "commit %llu of volume %s does not follow the one before it",
                         (unsigned long long)lsn, gid_format(&uniting->vid).text);
    uniting->cut = MIN(uniting->cut, facts.cut);
    uniting->chain = facts.chain;
    uniting->done = lsn;
    return GRAFT_OK;
}

static enum graft_status unite_summary(struct uniting *uniting, struct bytes record, struct graft_error *err)
{
    struct summary summary;
    enum graft_status status = summary_decode(record, &uniting->vid, &summary, uniting->pages, err);
    if (status != GRAFT_OK)
        return status;
    if (summary.first_lsn != uniting->done + 1 || summary.last_lsn != uniting->done + uniting->span)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                         "the summary of %u commits from LSN %llu of volume %s covers %llu to %llu",
                         uniting->span, (unsigned long long)uniting->done + 1, gid_format(&uniting->vid).text,
                         (unsigned long long)summary.first_lsn, (unsigned long long)summary.last_lsn);
    uniting->cut = MIN(uniting->cut, summary.cut);
    uniting->chain = summary.chain;
    uniting->done = summary.last_lsn;
    return GRAFT_OK;
}

static enum graft_status visit_piece(void *context, size_t place, struct bytes record,
                                     struct graft_error *err)
{
    struct uniting *uniting = context;
    if (uniting->span > 1 && !record.data) {
        uniting->missing = true;
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "not made yet");
    }
    uniting->united++;
    return uniting->span == 1 ? unite_commit(uniting, record, err) : unite_summary(uniting, record, err);
}

// Unites pieces of one span up to `upto`, or as many as there are.
static enum graft_status unite_pieces(struct uniting *uniting, uint32_t span, uint64_t upto,
                                      struct graft_error *err)
{
    struct graft_error local;
    uniting->span = span;
    uniting->first = span == 1 ? uniting->done + 1 : uniting->done / span;
    uniting->missing = false;
    const struct fetch_spec pieces = {.count = (upto - uniting->done) / span,
                                      .key = piece_key,
                                      .visit = visit_piece,
                                      .context = uniting,
                                      .object_size_max = RECORD_SIZE_MAX};
    CHECK(span == 1 || uniting->done % span == 0);
    if (fetch_all(uniting->store, &pieces, &local) == GRAFT_OK || uniting->missing)
        return GRAFT_OK;
    return error_copy(err, &local);
}

// The largest span whose windows begin behind `done` and end at or below `upto`.
static uint32_t span_at(uint64_t done, uint64_t upto)
{
    if (done % SUMMARY_LARGE == 0 && upto - done >= SUMMARY_LARGE)
        return SUMMARY_LARGE;
    if (done % SUMMARY_SMALL == 0 && upto - done >= SUMMARY_SMALL)
        return SUMMARY_SMALL;
    return 1;
}

static uint64_t round_down(uint64_t value, uint32_t to)
{
    return value - value % to;
}

// How far pieces of `span` go from `done`: to where larger ones begin, or fit no more.
static uint64_t reach(uint64_t done, uint32_t span, uint64_t upto)
{
    if (span == SUMMARY_LARGE)
        return round_down(upto, SUMMARY_LARGE);
    uint32_t larger = span == 1 ? SUMMARY_SMALL : SUMMARY_LARGE;
    uint64_t boundary = round_down(done, larger) + larger;
    return boundary <= upto ? boundary : round_down(upto, span);
}

static enum graft_status unite(struct uniting *uniting, uint64_t head_lsn, struct graft_error *err)
{
    while (uniting->done < head_lsn) {
        uint32_t span = span_at(uniting->done, head_lsn);
        uint64_t before = uniting->done;
        enum graft_status status = unite_pieces(uniting, span, reach(uniting->done, span, head_lsn), err);
        // A window whose summary is missing is made up of the next smaller pieces.
        if (status == GRAFT_OK && uniting->missing && span == SUMMARY_LARGE)
            status = unite_pieces(uniting, SUMMARY_SMALL, uniting->done + SUMMARY_LARGE, err);
        if (status == GRAFT_OK && uniting->missing)
            status = unite_pieces(uniting, 1, uniting->done + SUMMARY_SMALL, err);
        if (status != GRAFT_OK)
            return status;
        CHECK(uniting->done > before && uniting->done <= head_lsn);
    }
    return GRAFT_OK;
}

enum graft_status history_check(const struct volume_state *state, uint64_t after, const struct hash128 *chain,
                                bool *ret_known, struct graft_error *err)
{
    static const struct hash128 zero;
    const struct gid *vid = &state->record.vid;
    const struct hash128 *here = NULL;
    if (state->head.deleted)
        return error_set(err, GRAFT_GONE, GRAFT_DETAIL_DELETED, "volume %s was deleted at LSN %llu",
                         gid_format(vid).text, (unsigned long long)state->head.lsn);
    if (after > state->head.lsn)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_BEYOND_HEAD,
                         "LSN %llu of volume %s is beyond its head, %llu", (unsigned long long)after,
                         gid_format(vid).text, (unsigned long long)state->head.lsn);
    if (after == state->head.lsn)
        here = &state->head.chain;
    else if (after == state->retired_lsn)
        here = &state->retired_chain; // zero for LSN 0
    else if (after == 0)
        here = &zero;
    if (here && !hash_equal(here, chain))
        return volume_other_history(state, after, err);
    *ret_known = here != NULL || after < state->retired_lsn;
    return GRAFT_OK;
}

// The chain at `after`, where memory does not have it, is in the commit there.
static enum graft_status check_chain(struct objstore *store, const struct volume_state *state, uint64_t after,
                                     const struct hash128 *chain, struct graft_error *err)
{
    bool known, found;
    enum graft_status status = history_check(state, after, chain, &known, err);
    if (status != GRAFT_OK || known)
        return status;
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    struct commit_facts commit;
    const struct gid *vid = &state->record.vid;
    status = fetch_one(store, key_commit(vid, after).text, &found, &record, err);
    if (status == GRAFT_OK && !found)
        status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu of volume %s is missing",
                           (unsigned long long)after, gid_format(vid).text);
    if (status == GRAFT_OK)
        status = commit_record_decode(buffer_bytes(&record), vid, after, &commit, NULL, err);
    if (status == GRAFT_OK && !hash_equal(&commit.chain, chain))
        status = volume_other_history(state, after, err);
    return status;
}

enum graft_status pull(struct objstore *store, const struct volume_state *state, uint64_t after,
                       const struct hash128 *chain, struct pull_result *ret_result, struct graft_error *err)
{
    enum graft_status status = check_chain(store, state, after, chain, err);
    if (status != GRAFT_OK)
        return status;
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    struct uniting uniting = {.store = store,
                              .vid = state->record.vid,
                              .pages = pages,
                              .cut = state->head.page_count,
                              .done = after,
                              .chain = *chain};
    bool everything = after < state->retired_lsn;
    if (!everything) {
        status = unite(&uniting, state->head.lsn, err);
        if (status == GRAFT_OK && !hash_equal(&uniting.chain, &state->head.chain))
            status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                               "the commits of volume %s after LSN %llu do not lead to its head, %llu",
                               gid_format(&uniting.vid).text, (unsigned long long)after,
                               (unsigned long long)state->head.lsn);
        if (status != GRAFT_OK)
            return status;
    }
    pageset_remove_above(pages, state->head.page_count);
    pageset_limit_runs(&pages, PAGESET_RUNS_MAX);
    *ret_result = (struct pull_result){.changed = TAKE(pages),
                                       .cut = everything ? 0 : uniting.cut,
                                       .everything = everything,
                                       .united = uniting.united};
    return GRAFT_OK;
}
