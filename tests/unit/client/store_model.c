// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/store_model.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/unit/client/store_fixture.h"

#define ACTIONS_MAX 12u

struct gid model_vid(void)
{
    return fixture_vid(77);
}

// ---- images

static void image_write(struct model_commit *commit, uint32_t pageidx, uint32_t tag, bool local)
{
    commit->image.cells[pageidx] = (struct model_cell){tag, local};
    commit->touched[pageidx] = true;
    if (pageidx > commit->image.page_count)
        commit->image.page_count = pageidx;
}

static void image_truncate(struct model_commit *commit, uint32_t page_count)
{
    for (uint32_t page = page_count + 1; page <= MODEL_PAGES; page++) {
        commit->image.cells[page] = (struct model_cell){0, false};
        commit->touched[page] = false;
    }
    commit->image.page_count = page_count;
    commit->cut = MIN(commit->cut, page_count);
}

static void commit_begin(struct model_commit *commit, const struct model_commit *on)
{
    memset(commit, 0, sizeof *commit);
    commit->image = on->image;
    commit->cut = on->image.page_count;
}

static struct store_remote remote_at(const struct model *model, uint64_t lsn)
{
    struct store_remote remote = fixture_remote(lsn, model->remote[lsn].image.page_count);
    if (lsn == 0)
        memset(&remote, 0, sizeof remote);
    return remote;
}

// ---- the servers

static void remote_commit(struct model *model, struct rng *rng)
{
    struct model_commit *commit = &model->remote[model->remote_head + 1];
    commit_begin(commit, &model->remote[model->remote_head]);
    unsigned actions = 1 + (unsigned)rng_below(rng, 5);
    for (unsigned i = 0; i < actions; i++) {
        if (rng_below(rng, 5) == 0)
            image_truncate(commit, (uint32_t)rng_below(rng, MODEL_PAGES + 1));
        else
            image_write(commit, 1 + (uint32_t)rng_below(rng, MODEL_PAGES), ++model->tag, false);
    }
    model->remote_head++;
}

void model_begin(struct model *model, uint64_t seed)
{
    memset(model, 0, sizeof *model);
    model->seed = seed;
    struct model_commit *first = &model->remote[1];
    commit_begin(first, &model->remote[0]);
    for (uint32_t page = 1; page <= 8; page++) {
        if (page != 5)
            image_write(first, page, ++model->tag, false);
    }
    model->remote_head = 1;
    model->local[1] = *first;
    model->local_head = 1;
    model->mapped_lsn = 1;
    model->mapped_remote = 1;
}

void model_clone(struct model_run *run)
{
    struct gid vid = model_vid();
    struct store_remote head = remote_at(run->model, 1);
    expect_ok(store_volume_clone(run->store, &vid, MODEL_PAGE_SIZE, GRAFT_FIXED, &head, &run->volume, &err));
}

void model_attach(struct model_run *run)
{
    struct gid vid = model_vid();
    expect_ok(store_volume_open(run->store, &vid, &run->volume, &err));
}

void model_detach(struct model_run *run)
{
    for (unsigned i = 0; i < MODEL_PINS; i++)
        store_pin_release(TAKE(run->pins[i]));
    store_volume_close(TAKE(run->volume));
}

bool model_is_full(const struct model *model)
{
    return model->local_head + 4 >= MODEL_LSN_MAX || model->remote_head + 4 >= MODEL_LSN_MAX;
}

// ---- local commits

static void check_own(struct model_run *run, struct store_writer *writer, const struct model_commit *commit,
                      uint32_t pageidx)
{
    uint8_t page[MODEL_PAGE_SIZE], expected[MODEL_PAGE_SIZE];
    struct store_page found;
    struct graft_error err;
    enum graft_status status = store_writer_read(writer, pageidx, page, sizeof page, &found, &err);
    struct store_state state;
    store_volume_state(run->volume, &state);
    if (status == GRAFT_CONFLICT && state.local_lsn > store_pin_lsn(store_writer_base(writer)))
        return; // it was overtaken and has staged this page
    cr_assert_eq(status, GRAFT_OK, "%s", err.message);
    const struct model_cell *cell = &commit->image.cells[pageidx];
    cr_assert(!commit->touched[pageidx] || found.state == STORE_PAGE_AVAILABLE);
    cr_assert(cell->tag != 0 || found.state != STORE_PAGE_AVAILABLE);
    if (found.state == STORE_PAGE_EMPTY)
        cr_assert_eq(cell->tag, 0);
    if (found.state != STORE_PAGE_AVAILABLE)
        return;
    fixture_fill(expected, sizeof expected, pageidx, cell->tag);
    cr_assert_eq(memcmp(page, expected, sizeof page), 0, "a writer reads page %u with tag %u, not %u",
                 pageidx, get_le32(page + 4), cell->tag);
}

// Fills a writer and the commit with the same random actions. False: the writer was told of a conflict.
static bool act(struct model_run *run, struct rng *rng, struct store_writer *writer,
                struct model_commit *commit, unsigned actions_max)
{
    unsigned actions = 1 + (unsigned)rng_below(rng, actions_max);
    bool conflict = false;
    for (unsigned i = 0; i < actions; i++) {
        bool truncate = rng_below(rng, 6) == 0;
        uint32_t number = (uint32_t)rng_below(rng, MODEL_PAGES + (truncate ? 1 : 0));
        uint32_t tag = ++run->model->tag;
        if (truncate)
            image_truncate(commit, number);
        else
            image_write(commit, number + 1, tag, true);
        if (!writer || conflict)
            continue;
        struct graft_error err;
        enum graft_status status;
        uint8_t page[MODEL_PAGE_SIZE];
        fixture_fill(page, sizeof page, number + 1, tag);
        if (truncate)
            status = store_writer_truncate(writer, number, &err);
        else
            status = store_writer_write(writer, number + 1, page, sizeof page, &err);
        conflict = status == GRAFT_CONFLICT;
        cr_assert(status == GRAFT_OK || conflict, "%s", err.message);
        if (!conflict && rng_below(&run->rng, 3) == 0)
            check_own(run, writer, commit, 1 + (uint32_t)rng_below(&run->rng, MODEL_PAGES));
    }
    return !conflict;
}

static bool is_nothing(const struct model_commit *commit, const struct model_commit *base)
{
    for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
        if (commit->touched[page])
            return false;
    }
    return commit->cut == base->image.page_count && commit->image.page_count == base->image.page_count;
}

static struct store_writer *begin_writer(struct model_run *run)
{
    struct store_writer *writer = NULL;
    if (run->store)
        expect_ok(store_writer_begin(run->volume, &writer, &err));
    return writer;
}

static void local_commit(struct model_run *run, struct rng *rng, unsigned actions_max)
{
    struct model *model = run->model;
    const struct model_commit *base = &model->local[model->local_head];
    struct model_commit *commit = &model->local[model->local_head + 1];
    commit_begin(commit, base);
    struct store_writer *writer = begin_writer(run);
    cr_assert(act(run, rng, writer, commit, actions_max));
    bool nothing = is_nothing(commit, base);
    if (!nothing)
        model->local_head++;
    run->commits++;
    if (!writer)
        return;
    uint64_t lsn;
    expect_ok(store_writer_commit(writer, &lsn, &err));
    cr_assert_eq(lsn, model->local_head);
}

static void aborted_commit(struct model_run *run, struct rng *rng)
{
    struct model_commit *commit = &run->model->local[run->model->local_head + 1];
    commit_begin(commit, &run->model->local[run->model->local_head]);
    struct store_writer *writer = begin_writer(run);
    act(run, rng, writer, commit, ACTIONS_MAX);
    store_writer_abort(writer);
}

// A writer that another commit overtakes, perhaps after it has staged pages.
static void overtaken_commit(struct model_run *run, struct rng *rng)
{
    struct model *model = run->model;
    uint64_t head = model->local_head;
    struct model_commit late;
    commit_begin(&late, &model->local[head]);
    struct store_writer *writer = begin_writer(run);
    bool good = act(run, rng, writer, &late, ACTIONS_MAX);
    local_commit(run, rng, 1); // which must not stage: one writer at a time does
    bool moved = model->local_head > head;
    if (writer && good && rng_below(&run->rng, 2) == 0)
        act(run, rng, writer, &late, ACTIONS_MAX);
    else
        act(run, rng, NULL, &late, ACTIONS_MAX);
    if (!writer)
        return;
    if (moved) {
        run->conflicts++;
        expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, store_writer_commit(writer, NULL, &err));
    } else {
        store_writer_abort(writer);
    }
}

// ---- pulling

static struct pageset *changed_since(const struct model *model, uint64_t after, uint32_t *ret_cut,
                                     bool changed[MODEL_PAGES + 1])
{
    struct pageset *set = pageset_new();
    uint32_t cut = model->remote[after].image.page_count;
    for (uint64_t lsn = after + 1; lsn <= model->remote_head; lsn++) {
        const struct model_commit *commit = &model->remote[lsn];
        cut = MIN(cut, commit->cut);
        pageset_remove_above(set, commit->cut);
        for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
            if (commit->touched[page])
                pageset_add(set, page);
        }
    }
    pageset_remove_above(set, model->remote[model->remote_head].image.page_count);
    for (uint32_t page = 1; page <= MODEL_PAGES; page++)
        changed[page] = pageset_contains(set, page);
    *ret_cut = cut;
    return set;
}

// Pages keep being here unless they changed remotely or a discarded commit touched them.
static void take_over(struct model *model, const bool changed[MODEL_PAGES + 1], bool everything)
{
    struct model_commit *next = &model->local[model->local_head + 1];
    bool lost[MODEL_PAGES + 1];
    memcpy(lost, changed, sizeof lost);
    uint32_t base_count = model->local[model->mapped_lsn].image.page_count;
    for (uint64_t lsn = model->mapped_lsn + 1; lsn <= model->local_head; lsn++) {
        for (uint32_t page = 1; page <= MODEL_PAGES; page++)
            lost[page] |=
                model->local[lsn].touched[page] || (page > model->local[lsn].cut && page <= base_count);
    }
    const struct model_image before = model->local[model->mapped_lsn].image;
    memset(next, 0, sizeof *next);
    next->image = model->remote[model->remote_head].image;
    for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
        struct model_cell *cell = &next->image.cells[page];
        cell->local = false;
        if (!everything && !lost[page] && cell->tag != 0) {
            cr_assert_eq(cell->tag, before.cells[page].tag);
            cell->local = before.cells[page].local;
        }
    }
    model->local_head++;
    model->mapped_lsn = model->local_head;
    model->mapped_remote = model->remote_head;
}

static void pull(struct model_run *run, struct rng *rng, bool reset, bool everything)
{
    struct model *model = run->model;
    bool unpushed = model->local_head > model->mapped_lsn;
    if (!unpushed && model->remote_head == model->mapped_remote && rng_below(rng, 4) > 0)
        remote_commit(model, rng);
    bool changed[MODEL_PAGES + 1];
    uint32_t cut;
    _cleanup_(pageset_free_p) struct pageset *set = changed_since(model, model->mapped_remote, &cut, changed);
    struct store_pull said = {
        .after_lsn = model->mapped_remote,
        .head = remote_at(model, model->remote_head),
        .changed = set,
        .cut = cut,
        .everything = everything,
    };
    if (!run->store) {
        if (model->phase != STORE_PUSH_IDLE || (!reset && (unpushed || said.head.lsn == said.after_lsn)))
            return;
    } else if (model->phase != STORE_PUSH_IDLE) {
        expect_error(GRAFT_BUSY, GRAFT_DETAIL_PUSH_PENDING,
                     reset ? store_apply_reset(run->volume, &said, &err)
                           : store_apply_pull(run->volume, &said, &err));
        return;
    } else if (!reset && unpushed) {
        expect_error(GRAFT_CONFLICT, GRAFT_DETAIL_UNPUSHED, store_apply_pull(run->volume, &said, &err));
        return;
    } else {
        expect_ok(reset ? store_apply_reset(run->volume, &said, &err)
                        : store_apply_pull(run->volume, &said, &err));
        if (!reset && said.head.lsn == said.after_lsn)
            return;
    }
    take_over(model, changed, everything);
    if (reset)
        model->rejected = false;
    run->pulls += !reset;
    run->resets += reset;
}

// ---- pushing

// What the push's commits amount to, as one commit of the servers.
static void roll_up(const struct model *model, struct model_commit *rolled)
{
    commit_begin(rolled, &model->local[model->mapped_lsn]);
    for (uint64_t lsn = model->mapped_lsn + 1; lsn <= model->push_to; lsn++) {
        const struct model_commit *commit = &model->local[lsn];
        rolled->cut = MIN(rolled->cut, commit->cut);
        for (uint32_t page = 1; page <= MODEL_PAGES; page++)
            rolled->touched[page] = (rolled->touched[page] && page <= commit->cut) || commit->touched[page];
    }
    rolled->image = model->local[model->push_to].image;
}

static void check_push(struct model_run *run, const struct model_commit *rolled)
{
    struct store_state state;
    store_volume_state(run->volume, &state);
    cr_assert_eq(state.push.cut, rolled->cut);
    cr_assert_eq(state.push.page_count, rolled->image.page_count);
    _cleanup_(pageset_free_p) struct pageset *pages = NULL;
    expect_ok(store_push_pages(run->volume, &pages, &err));
    struct store_pin *pin;
    expect_ok(store_pin_open_push(run->volume, &pin, &err));
    for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
        cr_assert_eq(pageset_contains(pages, page), rolled->touched[page], "page %u of the push", page);
        if (rolled->touched[page])
            expect_page(pin, page, rolled->image.cells[page].tag);
    }
    store_pin_release(pin);
}

static void push_committing(struct model_run *run, const struct model_commit *rolled)
{
    if (!run->store)
        return;
    check_push(run, rolled);
    uint8_t request[100];
    struct hash128 digest = hash128(&rolled->image.cells, sizeof rolled->image.cells);
    fixture_fill(request, sizeof request, 1, (uint32_t)run->model->push_to);
    expect_ok(store_push_committing(run->volume, &digest, (struct bytes){request, sizeof request}, &err));
}

static void push_answer(struct model_run *run, struct rng *rng, const struct model_commit *rolled)
{
    struct model *model = run->model;
    if (model->phase == STORE_PUSH_COMMITTING && rng_below(rng, 4) == 0) {
        model->phase = STORE_PUSH_UPLOADING;
        if (run->store)
            expect_ok(store_push_retreat(run->volume, &err));
        return;
    }
    if (run->store) {
        _cleanup_(buffer_release) struct buffer kept = BUFFER_INIT(1000);
        uint8_t request[100];
        fixture_fill(request, sizeof request, 1, (uint32_t)model->push_to);
        expect_ok(store_push_request(run->volume, &kept, &err));
        cr_assert(kept.size == sizeof request && memcmp(kept.data, request, sizeof request) == 0);
    }
    model->phase = STORE_PUSH_IDLE;
    if (model->remote_head > model->mapped_remote) {
        struct graft_error why = {GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "somebody came first"};
        model->rejected = true;
        if (run->store)
            expect_ok(store_push_reject(run->volume, &why, &err));
        return;
    }
    struct model_commit *landed = &model->remote[++model->remote_head];
    *landed = *rolled;
    for (uint32_t page = 1; page <= MODEL_PAGES; page++)
        landed->image.cells[page].local = false;
    model->mapped_remote = model->remote_head;
    model->mapped_lsn = model->push_to;
    model->rejected = false;
    run->pushes++;
    if (run->store) {
        struct store_remote remote = remote_at(model, model->remote_head);
        expect_ok(store_push_settle(run->volume, &remote, &err));
    }
}

static void fence(struct model_run *run)
{
    uint8_t request[60], kept[60];
    run->model->phase = STORE_PUSH_FENCING;
    if (!run->store)
        return;
    fixture_fill(request, sizeof request, 2, (uint32_t)run->model->push_to);
    expect_ok(store_push_fence(run->volume, (struct bytes){request, sizeof request}, &err));
    _cleanup_(buffer_release) struct buffer found = BUFFER_INIT(1000);
    expect_ok(store_push_fence_request(run->volume, &found, &err));
    fixture_fill(kept, sizeof kept, 2, (uint32_t)run->model->push_to);
    cr_assert(found.size == sizeof kept && memcmp(found.data, kept, sizeof kept) == 0);
}

// The void commit lands, unless its place is taken: then the push is asked about again.
static void fence_answer(struct model_run *run)
{
    struct graft_error why = {GRAFT_CONFLICT, GRAFT_DETAIL_NOT_HEAD, "fenced off"};
    struct model *model = run->model;
    if (model->remote_head > model->mapped_remote) {
        model->phase = STORE_PUSH_COMMITTING;
        if (run->store)
            expect_ok(store_push_unfence(run->volume, &err));
        return;
    }
    commit_begin(&model->remote[model->remote_head + 1], &model->remote[model->remote_head]);
    model->remote_head++;
    model->phase = STORE_PUSH_IDLE;
    model->rejected = true;
    run->fences++;
    if (run->store)
        expect_ok(store_push_give_up(run->volume, GRAFT_VOLUME_REJECTED, &why, &err));
}

static void push(struct model_run *run, struct rng *rng)
{
    struct model *model = run->model;
    struct model_commit rolled;
    struct token token = {.bytes = {0}};
    struct store_push begun;
    switch (model->phase) {
    case STORE_PUSH_IDLE:
        if (model->local_head == model->mapped_lsn) {
            if (run->store)
                expect_status(GRAFT_NOT_FOUND, store_push_begin(run->volume, &token, &begun, &err));
            return;
        }
        model->phase = STORE_PUSH_UPLOADING;
        model->push_to = model->local_head;
        for (size_t i = 0; i < sizeof token.bytes; i++)
            token.bytes[i] = (uint8_t)rng_next(rng);
        if (run->store)
            expect_ok(store_push_begin(run->volume, &token, &begun, &err));
        return;
    case STORE_PUSH_UPLOADING:
        roll_up(model, &rolled);
        push_committing(run, &rolled);
        model->phase = STORE_PUSH_COMMITTING;
        return;
    case STORE_PUSH_COMMITTING:
        if (rng_below(rng, 4) == 0) {
            fence(run);
            return;
        }
        roll_up(model, &rolled);
        push_answer(run, rng, &rolled);
        return;
    case STORE_PUSH_FENCING:
        if (rng_below(rng, 3) > 0) {
            fence_answer(run);
            return;
        }
        roll_up(model, &rolled);
        push_answer(run, rng, &rolled);
        return;
    }
}

// ---- steps

void model_step(struct model_run *run, uint64_t number)
{
    struct rng rng;
    rng_seed(&rng, run->model->seed * 1000003 + number);
    uint64_t dice = rng_below(&rng, 100);
    // Somebody whose push was rejected mostly resets soon, or nothing else would ever happen.
    if (run->model->rejected && run->model->phase == STORE_PUSH_IDLE && dice < 50)
        pull(run, &rng, true, dice < 5);
    else if (dice < 20)
        local_commit(run, &rng, ACTIONS_MAX);
    else if (dice < 25)
        overtaken_commit(run, &rng);
    else if (dice < 28)
        aborted_commit(run, &rng);
    else if (dice < 34)
        remote_commit(run->model, &rng);
    else if (dice < 54)
        pull(run, &rng, false, dice == 53);
    else if (dice < 98)
        push(run, &rng);
    else
        pull(run, &rng, true, dice == 99);
}

bool model_state_matches(const struct model *model, const struct store_state *state)
{
    return state->local_lsn == model->local_head &&
           state->page_count == model->local[model->local_head].image.page_count &&
           state->mapped_lsn == model->mapped_lsn && state->remote.lsn == model->mapped_remote &&
           state->push.phase == model->phase && (state->status == GRAFT_VOLUME_REJECTED) == model->rejected;
}

// ---- checking

static void fetch(struct model_run *run, const struct store_page *page, uint32_t tag)
{
    struct store_arrivals *arrivals;
    uint8_t bytes[MODEL_PAGE_SIZE];
    fixture_fill(bytes, sizeof bytes, page->pageidx, tag);
    expect_ok(store_arrivals_new(run->volume, &arrivals, &err));
    if (tag == 0)
        expect_ok(store_arrivals_add_empty(arrivals, page->pageidx, page->mark_lsn, &err));
    else
        expect_ok(store_arrivals_add(arrivals, page->pageidx, page->mark_lsn, bytes, sizeof bytes, &err));
    expect_ok(store_arrivals_flush(arrivals, &err));
    store_arrivals_free(arrivals);
    run->fetches++;
}

static void check_pending(struct model_run *run, struct store_pin *pin, const struct store_page *page,
                          const struct model_cell *cell)
{
    const struct model *model = run->model;
    uint64_t lsn = store_pin_lsn(pin);
    cr_assert(!cell->local, "page %u at LSN %lu was written here and is pending", page->pageidx, lsn);
    cr_assert(!run->here[page->pageidx][page->mark_lsn], "page %u of mark %lu was fetched and is gone",
              page->pageidx, page->mark_lsn);
    cr_assert(page->ask.lsn > 0 && page->ask.lsn <= model->remote_head);
    cr_assert_eq(page->ask.page_count, model->remote[page->ask.lsn].image.page_count);
    uint32_t there = model->remote[page->ask.lsn].image.cells[page->pageidx].tag;
    cr_assert_eq(there, cell->tag, "page %u at LSN %lu has tag %u; remote LSN %lu would say %u",
                 page->pageidx, lsn, cell->tag, page->ask.lsn, there);
}

// The page's state after perhaps fetching it.
static enum store_page_state check_page(struct model_run *run, struct store_pin *pin, uint32_t pageidx,
                                        bool may_fetch)
{
    const struct model_image *image = &run->model->local[store_pin_lsn(pin)].image;
    const struct model_cell *cell = &image->cells[pageidx];
    uint8_t bytes[MODEL_PAGE_SIZE];
    struct store_page page;
    expect_ok(store_read(pin, pageidx, bytes, sizeof bytes, &page, &err));
    if (page.state == STORE_PAGE_EMPTY) {
        cr_assert_eq(cell->tag, 0, "page %u at LSN %lu is empty", pageidx, store_pin_lsn(pin));
        return page.state;
    }
    cr_assert(pageidx <= image->page_count, "page %u at LSN %lu is beyond %u pages", pageidx,
              store_pin_lsn(pin), image->page_count);
    if (page.state == STORE_PAGE_AVAILABLE) {
        uint8_t expected[MODEL_PAGE_SIZE];
        fixture_fill(expected, sizeof expected, pageidx, cell->tag);
        cr_assert(cell->tag != 0 && memcmp(bytes, expected, sizeof bytes) == 0,
                  "page %u at LSN %lu has tag %u, not %u", pageidx, store_pin_lsn(pin), get_le32(bytes + 4),
                  cell->tag);
        return page.state;
    }
    check_pending(run, pin, &page, cell);
    if (!may_fetch || rng_below(&run->rng, 4) != 0)
        return page.state;
    fetch(run, &page, cell->tag);
    run->here[pageidx][page.mark_lsn] = true;
    return check_page(run, pin, pageidx, false);
}

static void check_missing(struct model_run *run, struct store_pin *pin, const bool pending[MODEL_PAGES + 1])
{
    _cleanup_(pageset_free_p) struct pageset *wanted = pageset_new();
    for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
        if (rng_below(&run->rng, 3) != 0)
            pageset_add(wanted, page);
    }
    bool missing[MODEL_PAGES + 1] = {false};
    uint32_t cursor = 1;
    while (cursor != 0) {
        struct store_page pages[3];
        size_t count;
        expect_ok(store_missing(pin, wanted, &cursor, pages, ARRAY_COUNT(pages), &count, &err));
        for (size_t i = 0; i < count; i++) {
            missing[pages[i].pageidx] = true;
            check_pending(run, pin, &pages[i],
                          &run->model->local[store_pin_lsn(pin)].image.cells[pages[i].pageidx]);
        }
    }
    for (uint32_t page = 1; page <= MODEL_PAGES; page++)
        cr_assert_eq(missing[page], pending[page] && pageset_contains(wanted, page), "page %u", page);
}

static void check_counts(struct model_run *run, struct store_pin *pin)
{
    struct store_counts counts, expected = {0, 0};
    bool pending[MODEL_PAGES + 1] = {false};
    for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
        enum store_page_state state = check_page(run, pin, page, false);
        expected.available += state == STORE_PAGE_AVAILABLE;
        expected.pending += state == STORE_PAGE_PENDING;
        pending[page] = state == STORE_PAGE_PENDING;
    }
    check_missing(run, pin, pending);
    if (rng_below(&run->rng, 4) != 0)
        return;
    expect_ok(store_volume_counts(run->volume, &counts, &err));
    cr_assert_eq(counts.available, expected.available);
    cr_assert_eq(counts.pending, expected.pending);
}

void model_check(struct model_run *run)
{
    struct store_state state;
    store_volume_state(run->volume, &state);
    cr_assert(model_state_matches(run->model, &state), "head %lu, model %lu", state.local_lsn,
              run->model->local_head);
    struct store_pin *head;
    expect_ok(store_pin_open(run->volume, &head, &err));
    for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
        check_page(run, head, page, true);
        for (unsigned i = 0; i < MODEL_PINS; i++) {
            if (run->pins[i])
                check_page(run, run->pins[i], page, true);
        }
    }
    check_counts(run, head);
    store_pin_release(head);
}

void model_repin(struct model_run *run)
{
    unsigned place = (unsigned)rng_below(&run->rng, MODEL_PINS);
    if (run->pins[place])
        store_pin_release(TAKE(run->pins[place]));
    else
        expect_ok(store_pin_open(run->volume, &run->pins[place], &err));
}
