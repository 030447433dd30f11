// SPDX-License-Identifier: Apache-2.0
//
//     volume_load ─▶ RECORD ─▶ MARK ─▶ SEARCH ⟲ ─▶ HEAD ─▶ ABOVE ⟲ ─▶ done
//                               ▲                            └─▶ NEXT ─▶ done, or REMARK ─▶ CORRUPT
//                               └───────────────────────────────────────────┘
//     volume_read_on ─▶ FOLLOW ⟲ ─▶ MARK ─▶ done
//
// Each state reads one object: ask() names it, take() makes the next state of what came.
//
// The search ends at some commit that has none behind it. Where a store has lost one, that is not the newest, and to go on
// from there would put another commit in its place. So LSNs above are tried, at growing distances (ABOVE): commits are
// made in order, so one that is there while the one behind the head still is not (NEXT), and was not retired meanwhile
// (REMARK), shows that something is missing. That costs the same for any history. It finds what was lost as long as four
// times as many commits were kept behind it, up to ABOVE_MAX.
//
// Invariants of the search:
//   1. `low` exists, or is the retirement mark, or 0;
//   2. `high` does not exist (0: nothing is known that does not).
#include "metastore/volume_load.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "metastore/keys.h"

enum load_state {
    LOAD_RECORD,
    LOAD_MARK,
    LOAD_SEARCH,
    LOAD_HEAD,
    LOAD_ABOVE,
    LOAD_NEXT,
    LOAD_REMARK,
    LOAD_FOLLOW,
    LOAD_DONE,
};

// The longest distance at which a commit above the head is looked for: what is not summarised yet lies within.
#define ABOVE_MAX ((uint64_t)SUMMARY_SMALL)

struct load {
    struct objstore *store;
    enum load_state at;
    struct volume_state state;
    uint64_t low, high, step;
    uint64_t probe; // the LSN asked for now
    bool reading_on;
    struct graft_error error; // .status other than OK: failed
    volume_loaded_fn *done;
    void *context;

    // The object asked for. A store may call back before its call returns; whoever of caller and callback
    // comes second goes on, so that a long walk is a loop and not a recursion.
    atomic_bool met;
    struct graft_error got;
    struct buffer data;
};

enum graft_status volume_other_history(const struct volume_state *state, uint64_t lsn,
                                       struct graft_error *err)
{
    return error_set(
        err, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
        "LSN %llu of volume %s is not of the history here (head: %llu): the metastore was restored from "
        "an older copy; `reset --reattach` follows it",
        (unsigned long long)lsn, gid_format(&state->record.vid).text, (unsigned long long)state->head.lsn);
}

// ---- the search

static void begin_above(struct load *load)
{
    load->at = LOAD_ABOVE;
    load->step = 1;
    load->probe = load->low + 1 + load->step;
}

static void choose_probe(struct load *load)
{
    CHECK(load->high == 0 || load->low < load->high);
    if (load->high == 0) {
        load->probe = load->low + load->step;
        load->step *= 2;
    } else if (load->high > load->low + 1) {
        load->probe = load->low + (load->high - load->low) / 2;
    } else if (load->low > load->state.retired_lsn) {
        load->at = LOAD_HEAD;
    } else if (load->low == 0) {
        begin_above(load);
    } else {
        load->at = LOAD_DONE;
        // A retired volume keeps its newest commit.
        error_set(&load->error, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                  "the history up to LSN %llu was retired and there is no commit above it",
                  (unsigned long long)load->low);
    }
}

static void begin_search(struct load *load)
{
    load->at = LOAD_SEARCH;
    load->low = load->state.retired_lsn;
    load->high = 0;
    load->step = 1;
    load->state.head = (struct commit_facts){.vid = load->state.record.vid};
    choose_probe(load);
}

// ---- what came

static void take_record(struct load *load, struct graft_error *error)
{
    struct gid vid = load->state.record.vid;
    if (load->got.status == GRAFT_NOT_FOUND)
        error_set(error, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME, "no such volume here");
    else
        volume_record_decode(buffer_bytes(&load->data), &vid, &load->state.record, error);
    load->at = LOAD_MARK;
}

// False: the mark is damaged.
static bool take_retired(struct load *load, struct graft_error *error)
{
    struct volume_state *state = &load->state;
    struct summary mark;
    if (load->got.status == GRAFT_NOT_FOUND)
        return true;
    if (summary_decode(buffer_bytes(&load->data), &state->record.vid, &mark, NULL, error) != GRAFT_OK)
        return false;
    state->retired_lsn = mark.last_lsn;
    state->retired_chain = mark.chain;
    return true;
}

static void take_mark(struct load *load, struct graft_error *error)
{
    if (!take_retired(load, error))
        return;
    // A mark above the head that was read on from: what was read is a leftover, and the history goes on above
    // the mark.
    if (load->reading_on && load->state.head.lsn >= load->state.retired_lsn)
        load->at = LOAD_DONE;
    else
        begin_search(load);
}

static void take_probe(struct load *load)
{
    if (load->got.status == GRAFT_OK)
        load->low = load->probe;
    else
        load->high = load->probe;
    choose_probe(load);
}

static void take_head(struct load *load, struct graft_error *error)
{
    if (load->got.status == GRAFT_NOT_FOUND)
        error_set(error, GRAFT_UNAVAILABLE, GRAFT_DETAIL_NONE,
                  "its newest commit went away while it was read; try again");
    else
        commit_record_decode(buffer_bytes(&load->data), &load->state.record.vid, load->low, &load->state.head,
                             NULL, error);
    begin_above(load);
}

static void take_above(struct load *load)
{
    if (load->got.status == GRAFT_OK) {
        load->at = LOAD_NEXT;
    } else if (load->step < ABOVE_MAX) {
        load->step *= 4;
        load->probe = load->low + 1 + load->step;
    } else {
        load->at = LOAD_DONE;
    }
}

// There is a commit at `probe` and none behind the head.
static void take_remark(struct load *load, struct graft_error *error)
{
    if (!take_retired(load, error))
        return;
    if (load->state.retired_lsn > load->low)
        begin_search(load); // the history goes on above the new mark
    else
        error_set(error, GRAFT_CORRUPT, GRAFT_DETAIL_NONE,
                  "commit %llu is missing, and commit %llu is there: the store has lost objects; bring them "
                  "back, or restore a backup",
                  (unsigned long long)load->low + 1, (unsigned long long)load->probe);
}

static void take_next(struct load *load, struct graft_error *error)
{
    struct commit_facts *head = &load->state.head, next;
    if (load->got.status == GRAFT_NOT_FOUND) {
        load->at = LOAD_MARK;
        return;
    }
    if (commit_record_decode(buffer_bytes(&load->data), &head->vid, head->lsn + 1, &next, NULL, error) !=
        GRAFT_OK)
        return;
    if (!hash_equal(&next.base_chain, &head->chain))
        error_set(error, GRAFT_CORRUPT, GRAFT_DETAIL_CHAIN_MISMATCH,
                  "commit %llu does not follow the one before it", (unsigned long long)next.lsn);
    *head = next;
}

static void take(struct load *load)
{
    struct graft_error *error = &load->error;
    if (load->got.status != GRAFT_OK && load->got.status != GRAFT_NOT_FOUND)
        *error = load->got;
    else if (load->at == LOAD_RECORD)
        take_record(load, error);
    else if (load->at == LOAD_MARK)
        take_mark(load, error);
    else if (load->at == LOAD_SEARCH)
        take_probe(load);
    else if (load->at == LOAD_HEAD)
        take_head(load, error);
    else if (load->at == LOAD_ABOVE)
        take_above(load);
    else if (load->at == LOAD_NEXT) // made by somebody else since: what is found stands
        load->at = load->got.status == GRAFT_OK ? LOAD_DONE : LOAD_REMARK;
    else if (load->at == LOAD_REMARK)
        take_remark(load, error);
    else
        take_next(load, error);
    buffer_release(&load->data);
    if (error->status != GRAFT_OK)
        load->at = LOAD_DONE;
}

// ---- asking

static void go_on(struct load *load);

static void got(void *context, struct objstore_result *result)
{
    struct load *load = context;
    load->got = result->error;
    load->data = buffer_take(&result->data);
    if (!atomic_exchange(&load->met, true))
        return;
    take(load);
    go_on(load);
}

static void ask(struct load *load)
{
    const struct gid *vid = &load->state.record.vid;
    struct object_key key;
    size_t size_max = RECORD_SIZE_MAX;
    switch (load->at) {
    case LOAD_RECORD:
        key = key_catalog(vid);
        break;
    case LOAD_MARK:
    case LOAD_REMARK:
        key = key_retired(vid);
        break;
    case LOAD_SEARCH:
    case LOAD_ABOVE:
        key = key_commit(vid, load->probe);
        size_max = 1; // only whether it exists
        break;
    case LOAD_HEAD:
        key = key_commit(vid, load->low);
        break;
    case LOAD_NEXT:
        key = key_commit(vid, load->low + 1);
        size_max = 1;
        break;
    default:
        CHECK(load->at == LOAD_FOLLOW);
        key = key_commit(vid, load->state.head.lsn + 1);
        break;
    }
    atomic_store(&load->met, false);
    objstore_get(load->store, key.text, 0, size_max, got, load);
}

static void go_on(struct load *load)
{
    while (load->at != LOAD_DONE) {
        ask(load);
        if (!atomic_exchange(&load->met, true))
            return; // the callback goes on
        take(load);
    }
    bool ok = load->error.status == GRAFT_OK;
    if (!ok)
        error_context(&load->error, load->error.status, "volume %s",
                      gid_format(&load->state.record.vid).text);
    load->done(load->context, ok ? &load->state : NULL, ok ? NULL : &load->error);
    free(load);
}

static struct load *load_new(struct objstore *store, enum load_state at, volume_loaded_fn *done,
                             void *context)
{
    struct load *load = calloc(1, sizeof *load);
    CHECK(load);
    load->store = store;
    load->at = at;
    load->done = done;
    load->context = context;
    return load;
}

void volume_load(struct objstore *store, const struct gid *vid, volume_loaded_fn *done, void *context)
{
    struct load *load = load_new(store, LOAD_RECORD, done, context);
    load->state.record.vid = *vid;
    go_on(load);
}

void volume_read_on(struct objstore *store, const struct volume_state *from, volume_loaded_fn *done,
                    void *context)
{
    struct load *load = load_new(store, LOAD_FOLLOW, done, context);
    load->state = *from;
    load->reading_on = true;
    go_on(load);
}
