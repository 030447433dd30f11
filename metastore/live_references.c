// SPDX-License-Identifier: Apache-2.0
//
// Invariants of the walk, which stands above LSN `next`:
//   1. `found` holds the pages whose newest version at the snapshot lies above `next`.
//   2. A version at or below `next` is still there at the snapshot exactly if its page is ≤ `limit` (the lowest
//      cut above `next`) and not in `found`.
//   3. The commit at `next` has the chain `chain`.
#include "metastore/live_references.h"

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/fetch.h"

struct walk {
    const struct live_references_spec *spec;
    const struct gid *vid;
    uint64_t next;
    struct hash128 chain;
    uint32_t limit;
    struct pageset *found;
};

static bool is_complete(const struct walk *walk)
{
    return walk->next == 0 || walk->limit == 0 ||
           (walk->limit == PAGEIDX_MAX ? pageset_count(walk->found)
                                       : pageset_rank(walk->found, walk->limit + 1)) == walk->limit;
}

static enum graft_status does_not_follow(const struct walk *walk, uint64_t lsn, struct graft_error *err)
{
    return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                     "commit %llu of volume %s does not lead to the one after it", (unsigned long long)lsn,
                     gid_format(walk->vid).text);
}

// ---- one commit

static enum graft_status take_reference(struct walk *walk, const Graft__SegmentRef *segment,
                                        struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *pages = NULL, *structural = NULL;
    enum graft_status status =
        pageset_decode(bytes_of(&segment->pages), PAGESET_RUNS_MAX, "pages", &pages, err);
    if (status != GRAFT_OK)
        return status;
    pageset_remove_above(pages, walk->limit);
    pageset_subtract(pages, walk->found);
    if (pageset_is_empty(pages))
        return GRAFT_OK;
    status = pageset_decode(bytes_of(&segment->structural), PAGESET_RUNS_MAX, "structural", &structural, err);
    if (status != GRAFT_OK)
        return status;
    pageset_intersect(structural, pages);
    pageset_union(walk->found, pages);
    const struct live_reference reference = {segment, pages, structural};
    return walk->spec->visit(walk->spec->context, &reference, err);
}

static enum graft_status take_commit(struct walk *walk, struct bytes record, struct graft_error *err)
{
    struct commit_facts facts;
    Graft__Commit *commit;
    uint64_t lsn = walk->next;
    if (!record.data)
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu of volume %s is missing",
                         (unsigned long long)lsn, gid_format(walk->vid).text);
    enum graft_status status = commit_record_open(record, walk->vid, lsn, &facts, &commit, err);
    if (status != GRAFT_OK)
        return status;
    if (!hash_equal(&facts.chain, &walk->chain))
        status = does_not_follow(walk, lsn, err);
    for (size_t i = 0; status == GRAFT_OK && i < commit->n_segments; i++)
        status = take_reference(walk, commit->segments[i], err);
    message_free(&commit->base);
    if (status != GRAFT_OK)
        return status;
    // Its own pages came after its cut; those of the commits below did not.
    walk->limit = MIN(walk->limit, facts.cut);
    walk->chain = facts.base_chain;
    walk->next = lsn - 1;
    return GRAFT_OK;
}

// ---- commits one by one, downward

struct singles {
    struct walk *walk;
    uint64_t first; // the highest
};

static struct object_key single_key(void *context, size_t place)
{
    const struct singles *singles = context;
    return key_commit(singles->walk->vid, singles->first - place);
}

static enum graft_status visit_single(void *context, size_t place, struct bytes record,
                                      struct graft_error *err)
{
    struct singles *singles = context;
    struct walk *walk = singles->walk;
    if (is_complete(walk)) // what was read ahead is not needed
        return GRAFT_OK;
    CHECK(walk->next == singles->first - place);
    return take_commit(walk, record, err);
}

// Down to the next window of 256, or to where history begins.
static enum graft_status take_singles(struct walk *walk, struct graft_error *err)
{
    struct singles singles = {.walk = walk, .first = walk->next};
    uint64_t end = (walk->next - 1) / SUMMARY_SMALL * SUMMARY_SMALL;
    end = MAX(end, walk->spec->state->retired_lsn);
    const struct fetch_spec commits = {.count = walk->next - end,
                                       .key = single_key,
                                       .visit = visit_single,
                                       .context = &singles,
                                       .object_size_max = COMMIT_RECORD_SIZE_MAX};
    return fetch_all(walk->spec->store, &commits, err);
}

// ---- stepping over windows

// The chain below the window that ends at `next` stands in its first commit.
static enum graft_status step_below(struct walk *walk, uint32_t span, struct graft_error *err)
{
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    uint64_t first = walk->next - span + 1;
    struct commit_facts facts;
    bool found;
    enum graft_status status =
        fetch_one(walk->spec->store, key_commit(walk->vid, first).text, &found, &record, err);
    if (status == GRAFT_OK && !found)
        status = error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_NONE, "commit %llu of volume %s is missing",
                           (unsigned long long)first, gid_format(walk->vid).text);
    if (status == GRAFT_OK)
        status = commit_record_decode(buffer_bytes(&record), walk->vid, first, &facts, NULL, err);
    if (status != GRAFT_OK)
        return status;
    walk->chain = facts.base_chain;
    walk->next = first - 1;
    return GRAFT_OK;
}

// Steps over the window of `span` commits that ends at `next` if nothing in it is live.
static enum graft_status try_window(struct walk *walk, uint32_t span, bool *ret_stepped,
                                    struct graft_error *err)
{
    *ret_stepped = false;
    if (walk->next % span != 0 || walk->next - span < walk->spec->state->retired_lsn)
        return GRAFT_OK;
    _cleanup_(buffer_release) struct buffer record = BUFFER_INIT(RECORD_SIZE_MAX);
    _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
    struct summary summary;
    bool found;
    const struct object_key key = key_summary(walk->vid, span, walk->next / span - 1);
    enum graft_status status = fetch_one(walk->spec->store, key.text, &found, &record, err);
    if (status != GRAFT_OK || !found)
        return status;
    status = summary_decode(buffer_bytes(&record), walk->vid, &summary, pages, err);
    if (status != GRAFT_OK)
        return status;
    if (summary.last_lsn != walk->next || summary.first_lsn != walk->next - span + 1 ||
        !hash_equal(&summary.chain, &walk->chain))
        return does_not_follow(walk, summary.last_lsn, err);
    pageset_remove_above(pages, walk->limit);
    if (!pageset_is_subset(pages, walk->found))
        return GRAFT_OK;
    status = step_below(walk, span, err);
    if (status != GRAFT_OK)
        return status;
    walk->limit = MIN(walk->limit, summary.cut);
    *ret_stepped = true;
    return GRAFT_OK;
}

static enum graft_status step(struct walk *walk, struct graft_error *err)
{
    static const uint32_t spans[] = {SUMMARY_LARGE, SUMMARY_SMALL};
    const struct live_references_spec *spec = walk->spec;
    if (spec->stop && atomic_load(spec->stop))
        return error_set(err, GRAFT_CANCELLED, GRAFT_DETAIL_STOPPING, "the metastore is shutting down");
    if (walk->next <= spec->state->retired_lsn)
        return error_set(
            err, GRAFT_GONE, GRAFT_DETAIL_RETIRED,
            "pages of volume %s at LSN %llu were written before LSN %llu, where its history begins",
            gid_format(walk->vid).text, (unsigned long long)spec->at->lsn,
            (unsigned long long)spec->state->retired_lsn + 1);
    bool stepped = false;
    enum graft_status status = GRAFT_OK;
    for (size_t i = 0; status == GRAFT_OK && !stepped && i < ARRAY_COUNT(spans); i++)
        status = try_window(walk, spans[i], &stepped, err);
    return status == GRAFT_OK && !stepped ? take_singles(walk, err) : status;
}

enum graft_status live_references(const struct live_references_spec *spec, struct graft_error *err)
{
    _cleanup_(pageset_free_p) struct pageset *found = pageset_new();
    struct walk walk = {.spec = spec,
                        .vid = &spec->at->vid,
                        .next = spec->at->lsn,
                        .chain = spec->at->chain,
                        .limit = spec->at->page_count,
                        .found = found};
    enum graft_status status = GRAFT_OK;
    while (status == GRAFT_OK && !is_complete(&walk))
        status = step(&walk, err);
    return status;
}
