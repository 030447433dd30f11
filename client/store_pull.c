// SPDX-License-Identifier: Apache-2.0
//
// Pulls and resets: the servers' head becomes the local head, at a new local LSN, by marks. A set of marks
// that is too large for one batch is staged like a large commit: listed in `commits` above the head,
// published by the batch that moves it.
#include "client/store_internal.h"
#include "common/base/check.h"
#include "common/base/failpoint.h"

// What a pull or reset comes to.
struct takeover {
    struct store_record next;
    uint64_t lsn;
    struct pageset *marks;
    uint32_t cut;         // UINT32_MAX: none to record
    uint32_t parts;       // staged lists
    uint64_t forget_from; // local commits in (forget_from, lsn) are dropped
};

static void takeover_release(struct takeover *takeover)
{
    pageset_free(takeover->marks);
}

// Even a refused pull has heard of the head. What fails here shows in the next call.
static void note_seen_locked(struct store_volume *volume, struct store_record *record, uint64_t lsn)
{
    if (lsn <= record->state.remote_seen_lsn)
        return;
    record->state.remote_seen_lsn = lsn;
    _cleanup_(rocks_batch_free_p) rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    store_publish_locked(volume, batch, record, false, NULL);
}

static enum graft_status check_locked(struct store_volume *volume, const struct store_record *record,
                                      const struct store_pull *pull, bool reset, struct graft_error *err)
{
    const struct store_state *state = &record->state;
    struct gid_text vid = gid_format(&volume->vid);
    if (state->push.phase != STORE_PUSH_IDLE)
        return error_set(err, GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING,
                         "volume %s: a push has no answer yet; push again to learn it", vid.text);
    if (!reset && state->local_lsn != state->mapped_lsn)
        return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_UNPUSHED,
                         "volume %s has %llu local commits that were not pushed; push or reset first",
                         vid.text, (unsigned long long)(state->local_lsn - state->mapped_lsn));
    if (reset && pull->everything)
        return GRAFT_OK;
    if (state->remote.lsn != pull->after_lsn)
        return error_set(err, GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD,
                         "volume %s: the servers were asked what came after LSN %llu, and this replica is at "
                         "%llu now; ask again",
                         vid.text, (unsigned long long)pull->after_lsn,
                         (unsigned long long)state->remote.lsn);
    if (pull->head.lsn < pull->after_lsn ||
        (pull->head.lsn == pull->after_lsn && !hash_equal(&pull->head.chain, &state->remote.chain)))
        return error_set(err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                         "volume %s: the servers' history at LSN %llu is not the one that this replica knows",
                         vid.text, (unsigned long long)pull->head.lsn);
    return GRAFT_OK;
}

// The pages that the unpushed commits wrote or cut off.
static enum graft_status add_discarded(struct store_volume *volume, const struct store_state *state,
                                       struct pageset *marks, struct graft_error *err)
{
    uint32_t lowest;
    enum graft_status status =
        store_commits_union(volume, state->mapped_lsn, state->local_lsn, false, marks, &lowest, err);
    if (status == GRAFT_OK && lowest < state->remote.page_count)
        pageset_add_run(marks, lowest + 1, state->remote.page_count - lowest);
    return status;
}

static enum graft_status plan(struct store_volume *volume, const struct store_record *record,
                              const struct store_pull *pull, bool reset, struct takeover *takeover,
                              struct graft_error *err)
{
    const struct store_state *state = &record->state;
    takeover->next = *record;
    takeover->lsn = state->local_lsn + 1;
    takeover->marks = pageset_new();
    takeover->forget_from = state->mapped_lsn;
    struct store_state *next = &takeover->next.state;
    next->local_lsn = takeover->lsn;
    next->mapped_lsn = takeover->lsn;
    next->page_count = pull->head.page_count;
    next->remote = pull->head;
    next->remote_seen_lsn = MAX(next->remote_seen_lsn, pull->head.lsn);
    if (reset && pull->everything)
        next->remote_seen_lsn = pull->head.lsn; // what was heard of before may be of another history
    if (reset) {
        next->status = GRAFT_VOLUME_OK;
        next->status_error = (struct graft_error){.status = GRAFT_OK};
    }
    uint32_t cut = pull->everything ? 0 : MIN(pull->cut, pull->head.page_count);
    takeover->cut = cut < state->page_count ? cut : UINT32_MAX;
    if (takeover->cut != UINT32_MAX)
        store_record_cut(&takeover->next, takeover->lsn, cut);
    if (pull->everything) {
        takeover->next.floor = (struct store_floor){
            .mark_lsn = takeover->lsn, .remote_lsn = pull->head.lsn, .page_count = pull->head.page_count};
        return GRAFT_OK;
    }
    if (pull->changed)
        pageset_union(takeover->marks, pull->changed);
    enum graft_status status = GRAFT_OK;
    if (reset && state->local_lsn > state->mapped_lsn)
        status = add_discarded(volume, state, takeover->marks, err);
    pageset_remove_above(takeover->marks, pull->head.page_count);
    return status;
}

// ---- marks

// Marks up to `marks_max` pages from *cursor on; `list`, if any, takes their numbers.
static enum graft_status add_marks(struct takeover *takeover, struct store_change *change,
                                   struct pageset_cursor *cursor, size_t marks_max, struct pageset *list,
                                   struct graft_error *err)
{
    uint32_t pageidx;
    for (size_t i = 0; i < marks_max && pageset_next(cursor, &pageidx); i++) {
        enum graft_status status = store_change_mark(change, pageidx, takeover->next.state.remote.lsn, err);
        if (status != GRAFT_OK)
            return status;
        if (list)
            pageset_add(list, pageidx);
    }
    return GRAFT_OK;
}

static enum graft_status stage_marks(struct store_volume *volume, struct takeover *takeover,
                                     struct pageset_cursor *cursor, struct graft_error *err)
{
    _cleanup_(store_change_release) struct store_change change = {.volume = volume};
    _cleanup_(pageset_free_p) struct pageset *list = pageset_new();
    enum graft_status status = store_change_init(&change, volume, takeover->lsn, UINT32_MAX, 0, err);
    if (status == GRAFT_OK)
        status = add_marks(takeover, &change, cursor, volume->store->batch_entries, list, err);
    if (status == GRAFT_OK)
        status = store_change_part(&change, ++takeover->parts, 0, 0, list, err);
    if (status != GRAFT_OK)
        return status;
    struct store_staging note = {.lsn = takeover->lsn, .cut = UINT32_MAX};
    store_change_note_staging(&change, &note);
    status = FAILPOINT_ERROR("pull.stage.before", err);
    if (status == GRAFT_OK)
        status = store_write(volume->store, volume->store->local, false, change.batch, err);
    FAILPOINT("pull.stage.after");
    return status;
}

// The last batch: what is left of the marks, the cut, the record; what staging left behind goes.
static enum graft_status publish_locked(struct store_volume *volume, struct takeover *takeover,
                                        const struct store_record *before, struct pageset_cursor *cursor,
                                        struct graft_error *err)
{
    _cleanup_(store_change_release) struct store_change change = {.volume = volume};
    enum graft_status status =
        store_change_init(&change, volume, takeover->lsn, takeover->cut, before->state.page_count, err);
    if (status == GRAFT_OK)
        status = add_marks(takeover, &change, cursor, volume->store->batch_entries, NULL, err);
    if (status == GRAFT_OK)
        status = store_commits_forget(volume, change.batch, takeover->forget_from, takeover->lsn - 1, err);
    if (status != GRAFT_OK)
        return status;
    if (takeover->parts > 0) {
        store_change_forget_lists(&change, takeover->parts);
        store_change_end_staging(&change);
    }
    status = FAILPOINT_ERROR("pull.apply.before", err);
    if (status == GRAFT_OK)
        status = store_publish_locked(volume, change.batch, &takeover->next, true, err);
    FAILPOINT("pull.apply.after");
    return status;
}

static enum graft_status take_over_locked(struct store_volume *volume, struct takeover *takeover,
                                          const struct store_record *before, struct graft_error *err)
{
    enum graft_status status = store_doom_stager_locked(volume, NULL, err);
    struct pageset_cursor cursor = pageset_cursor(takeover->marks);
    uint64_t left = pageset_count(takeover->marks);
    while (status == GRAFT_OK && left > volume->store->batch_entries) {
        status = stage_marks(volume, takeover, &cursor, err);
        left -= volume->store->batch_entries;
    }
    if (status == GRAFT_OK)
        status = publish_locked(volume, takeover, before, &cursor, err);
    // If that fails too, the next one to write there does it.
    if (status != GRAFT_OK && takeover->parts > 0)
        store_drop_staged_locked(volume, NULL);
    return status;
}

static enum graft_status apply(struct store_volume *volume, const struct store_pull *pull, bool reset,
                               struct graft_error *err)
{
    LOCK_GUARD(&volume->commit_lock);
    enum graft_status status = store_check_usable(volume->store, err);
    if (status != GRAFT_OK)
        return status;
    struct store_record record = store_volume_record(volume);
    status = check_locked(volume, &record, pull, reset, err);
    if (status != GRAFT_OK || (!reset && pull->head.lsn == pull->after_lsn)) {
        note_seen_locked(volume, &record, pull->head.lsn);
        return status;
    }
    _cleanup_(takeover_release) struct takeover takeover = {.parts = 0};
    status = plan(volume, &record, pull, reset, &takeover, err);
    if (status == GRAFT_OK)
        status = take_over_locked(volume, &takeover, &record, err);
    if (status != GRAFT_OK)
        return error_context(err, status, "taking over LSN %llu of volume %s",
                             (unsigned long long)pull->head.lsn, gid_format(&volume->vid).text);
    if (pull->everything) {
        store_counts_everything_locked(volume, pull->head.page_count);
    } else {
        store_counts_cut_locked(volume, takeover.cut);
        store_counts_pending_locked(volume, takeover.marks);
    }
    store_sweep_after_locked(volume, takeover.lsn, pageset_count(takeover.marks));
    return GRAFT_OK;
}

enum graft_status store_apply_pull(struct store_volume *volume, const struct store_pull *pull,
                                   struct graft_error *err)
{
    return apply(volume, pull, false, err);
}

enum graft_status store_apply_reset(struct store_volume *volume, const struct store_pull *pull,
                                    struct graft_error *err)
{
    return apply(volume, pull, true, err);
}
