// SPDX-License-Identifier: Apache-2.0
//
// Sets are compared with a plain array of flags, over random runs that make CRoaring use all its kinds of
// containers.
#include <criterion/criterion.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/base/pageset.h"
#include "common/base/random.h"

#define MODEL_PAGES 200000 // four containers

struct model {
    bool has[MODEL_PAGES + 1];
};

static struct model model_a, model_b;

static struct pageset *random_set(struct rng *rng, struct model *model)
{
    struct pageset *set = pageset_new();
    memset(model, 0, sizeof *model);
    static const uint32_t longest[] = {1, 2, 60, 5000, 90000};
    uint32_t length_max = longest[rng_below(rng, ARRAY_COUNT(longest))];
    uint64_t runs = rng_below(rng, 1 + MODEL_PAGES / length_max / 2);
    for (uint64_t i = 0; i < runs; i++) {
        uint32_t first = 1 + (uint32_t)rng_below(rng, MODEL_PAGES);
        uint32_t count = 1 + (uint32_t)rng_below(rng, MIN(length_max, MODEL_PAGES - first + 1));
        pageset_add_run(set, first, count);
        memset(model->has + first, true, count);
    }
    return set;
}

static void assert_same(const struct pageset *set, const struct model *model)
{
    struct pageset_cursor runs = pageset_cursor(set), pages = pageset_cursor(set);
    struct page_run run;
    uint64_t count = 0;
    uint32_t pageidx, max = 0, min = 0;
    for (uint32_t first = 1; first <= MODEL_PAGES; first++) {
        if (!model->has[first])
            continue;
        uint32_t last = first;
        while (last < MODEL_PAGES && model->has[last + 1])
            last++;
        cr_assert(pageset_next_run(&runs, &run));
        cr_assert(run.first == first && run.count == last - first + 1, "run at %u", first);
        cr_assert_eq(pageset_rank(set, first), count);
        cr_assert_eq(pageset_rank(set, last), count + last - first);
        cr_assert(pageset_select(set, count, &pageidx) && pageidx == first);
        cr_assert(pageset_contains(set, first) && pageset_contains(set, last));
        cr_assert(!pageset_contains(set, first - 1) && !pageset_contains(set, last + 1));
        for (uint32_t page = first; page <= last && page < first + 100; page++)
            cr_assert(pageset_next(&pages, &pageidx) && pageidx == page);
        pages.next = (uint64_t)last + 1;
        count += last - first + 1;
        min = min == 0 ? first : min;
        max = last;
        first = last;
    }
    cr_assert_not(pageset_next_run(&runs, &run));
    cr_assert_not(pageset_next(&pages, &pageidx));
    cr_assert_not(pageset_select(set, count, &pageidx));
    cr_assert_eq(pageset_count(set), count);
    cr_assert_eq(pageset_is_empty(set), count == 0);
    cr_assert_eq(pageset_min(set), min);
    cr_assert_eq(pageset_max(set), max);
}

static void assert_comes_back(const struct pageset *set)
{
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(16 * 1024 * 1024);
    _cleanup_(pageset_free_p) struct pageset *back = NULL;
    cr_assert_eq(pageset_encode(set, &wire, NULL), GRAFT_OK);
    cr_assert_eq(pageset_decode(buffer_bytes(&wire), UINT32_MAX, "set", &back, NULL), GRAFT_OK);
    cr_assert(pageset_equal(set, back));
    cr_assert_eq(pageset_count(set), pageset_count(back));
    _cleanup_(buffer_release) struct buffer again = BUFFER_INIT(16 * 1024 * 1024);
    cr_assert_eq(pageset_encode(back, &again, NULL), GRAFT_OK);
    cr_assert_eq(again.size, wire.size);
    cr_assert(wire.size == 0 || memcmp(again.data, wire.data, wire.size) == 0);
}

Test(pageset, random_sets_are_what_was_put_in)
{
    struct rng rng;
    rng_seed(&rng, 21);
    for (int round = 0; round < 12; round++) {
        _cleanup_(pageset_free_p) struct pageset *set = random_set(&rng, &model_a);
        assert_same(set, &model_a);
        assert_comes_back(set);
        for (int i = 0; i < 50; i++) {
            uint32_t pageidx = 1 + (uint32_t)rng_below(&rng, MODEL_PAGES);
            if (i % 2)
                pageset_remove(set, pageidx);
            else
                pageset_add(set, pageidx);
            model_a.has[pageidx] = i % 2 == 0;
        }
        assert_same(set, &model_a);
        uint32_t cut = (uint32_t)rng_below(&rng, MODEL_PAGES);
        pageset_remove_above(set, cut);
        memset(model_a.has + cut + 1, false, MODEL_PAGES - cut);
        assert_same(set, &model_a);
        assert_comes_back(set);
    }
}

Test(pageset, algebra_is_that_of_the_flags)
{
    struct rng rng;
    rng_seed(&rng, 22);
    for (int round = 0; round < 12; round++) {
        _cleanup_(pageset_free_p) struct pageset *a = random_set(&rng, &model_a);
        _cleanup_(pageset_free_p) struct pageset *b = random_set(&rng, &model_b);
        bool intersects = false, subset = true, equal = true;
        for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
            intersects |= model_a.has[page] && model_b.has[page];
            subset &= !model_a.has[page] || model_b.has[page];
            equal &= model_a.has[page] == model_b.has[page];
        }
        cr_assert_eq(pageset_intersects(a, b), intersects);
        cr_assert_eq(pageset_is_subset(a, b), subset);
        cr_assert_eq(pageset_equal(a, b), equal);

        _cleanup_(pageset_free_p) struct pageset *result = pageset_copy(a);
        static struct model expected;
        for (int operation = 0; operation < 3; operation++) {
            for (uint32_t page = 1; page <= MODEL_PAGES; page++) {
                bool x = model_a.has[page], y = model_b.has[page];
                expected.has[page] = operation == 0 ? x || y : operation == 1 ? x && y : x && !y;
            }
            pageset_clear(result);
            pageset_union(result, a);
            (operation == 0   ? pageset_union
             : operation == 1 ? pageset_intersect
                              : pageset_subtract)(result, b);
            assert_same(result, &expected);
        }
        cr_assert_eq(pageset_is_subset(result, a), true);
        cr_assert_eq(pageset_intersects(result, b), false);
        assert_same(a, &model_a); // `result` shares nothing with it
    }
}

Test(pageset, a_set_may_meet_itself)
{
    _cleanup_(pageset_free_p) struct pageset *set = pageset_new();
    pageset_add_run(set, 5, 10);
    pageset_union(set, set);
    pageset_intersect(set, set);
    cr_assert_eq(pageset_count(set), 10);
    pageset_subtract(set, set);
    cr_assert(pageset_is_empty(set));
}

Test(pageset, the_empty_set_is_no_bytes)
{
    _cleanup_(pageset_free_p) struct pageset *set = pageset_new(), *back = NULL;
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(0);
    uint32_t pageidx;
    cr_assert_eq(pageset_encode(set, &wire, NULL), GRAFT_OK);
    cr_assert_eq(wire.size, 0);
    cr_assert_eq(pageset_decode((struct bytes){NULL, 0}, 0, "set", &back, NULL), GRAFT_OK);
    cr_assert(pageset_is_empty(back) && pageset_equal(set, back) && pageset_is_subset(set, back));
    cr_assert_eq(pageset_min(set), 0);
    cr_assert_eq(pageset_max(set), 0);
    cr_assert_eq(pageset_rank(set, PAGEIDX_MAX), 0);
    cr_assert_not(pageset_select(set, 0, &pageidx));
    cr_assert_not(pageset_contains(set, 0));
    pageset_free(NULL);
}

Test(pageset, the_last_page_is_a_page)
{
    _cleanup_(pageset_free_p) struct pageset *set = pageset_new();
    struct pageset_cursor cursor;
    struct page_run run;
    pageset_add(set, PAGEIDX_MAX);
    pageset_add_run(set, PAGEIDX_MAX - 70000, 1000);
    assert_comes_back(set);
    cr_assert_eq(pageset_max(set), PAGEIDX_MAX);
    cr_assert_eq(pageset_rank(set, PAGEIDX_MAX), 1000);
    cursor = pageset_cursor(set);
    cr_assert(pageset_next_run(&cursor, &run) && pageset_next_run(&cursor, &run));
    cr_assert(run.first == PAGEIDX_MAX && run.count == 1);
    cr_assert_not(pageset_next_run(&cursor, &run));
    cr_assert_not(pageset_next_run(&cursor, &run));
    pageset_remove_above(set, PAGEIDX_MAX);
    cr_assert_eq(pageset_count(set), 1001);
    pageset_remove_above(set, PAGEIDX_MAX - 1);
    cr_assert_eq(pageset_count(set), 1000);
    pageset_remove_above(set, 0);
    cr_assert(pageset_is_empty(set));
}

Test(pageset, all_pages_are_one_run)
{
    _cleanup_(pageset_free_p) struct pageset *set = pageset_new();
    pageset_add_run(set, 1, PAGEIDX_MAX);
    assert_comes_back(set);
    struct pageset_cursor cursor = pageset_cursor(set);
    struct page_run run;
    cr_assert(pageset_next_run(&cursor, &run));
    cr_assert(run.first == 1 && run.count == PAGEIDX_MAX);
    cr_assert_not(pageset_next_run(&cursor, &run));
    uint32_t pageidx;
    cr_assert(pageset_select(set, PAGEIDX_MAX - 1ull, &pageidx) && pageidx == PAGEIDX_MAX);
    cr_assert_not(pageset_select(set, PAGEIDX_MAX, &pageidx));
    cr_assert_not(pageset_select(set, 1ull << 32, &pageidx));
}

Test(pageset, runs_join_over_containers)
{
    _cleanup_(pageset_free_p) struct pageset *set = pageset_new();
    for (uint32_t pageidx = 60000; pageidx < 140000; pageidx++)
        pageset_add(set, pageidx);
    struct pageset_cursor cursor = pageset_cursor(set);
    struct page_run run;
    cr_assert(pageset_next_run(&cursor, &run));
    cr_assert(run.first == 60000 && run.count == 80000);
    cr_assert_not(pageset_next_run(&cursor, &run));
    assert_comes_back(set);
}

Test(pageset, page_zero_aborts, .signal = SIGABRT)
{
    pageset_add(pageset_new(), 0);
}

Test(pageset, runs_beyond_the_last_page_abort, .signal = SIGABRT)
{
    pageset_add_run(pageset_new(), PAGEIDX_MAX, 2);
}

Test(pageset, the_wire_form_is_what_the_format_says)
{
    _cleanup_(pageset_free_p) struct pageset *set = pageset_new();
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(10);
    pageset_add_run(set, 1, 3);
    pageset_add(set, 5);
    pageset_add_run(set, 300, 200);
    cr_assert_eq(pageset_encode(set, &wire, NULL), GRAFT_OK);
    cr_assert_eq(wire.size, 8);
    cr_assert_arr_eq(wire.data, "\x00\x03\x01\x01\xa6\x02\xc8\x01", 8);
}

struct bad_wire {
    const char *wire;
    size_t size;
    unsigned offset; // where the message says that it is wrong
    const char *reason;
};

static const struct bad_wire bad_wires[] = {
    {"\x05", 1, 0, "cut off"},
    {"\x85", 1, 0, "cut off"},
    {"\x00\x01\x02", 3, 2, "cut off"},
    {"\x00\x01\x02\x81", 4, 2, "cut off"},
    {"\x00\x01\x00\x01", 4, 2, "gap of 0"},
    {"\x00\x00", 2, 0, "length 0"},
    {"\x00\x01\x01\x00", 4, 2, "length 0"},
    {"\x80\x00\x01", 3, 0, "shortest"},
    {"\x00\x81\x00", 3, 0, "shortest"},
    {"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01", 13, 2, "64 bits"},
    {"\xff\xff\xff\xff\x0f\x01", 6, 0, "beyond"},                              // first page 2^32
    {"\xfe\xff\xff\xff\x0f\x02", 6, 0, "beyond"},                              // 2^32 - 1 and one more
    {"\x00\x80\x80\x80\x80\x10", 6, 0, "beyond"},                              // 2^32 pages
    {"\x00\xff\xff\xff\xff\x0f\x01\x01", 8, 6, "beyond"},                      // anything behind all pages
    {"\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01", 13, 2, "beyond"}, // a gap that would wrap around
    {"\x00\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13, 2, "beyond"}, // a length that would
};

Test(pageset, malformed_wire_forms_are_refused)
{
    for (size_t i = 0; i < ARRAY_COUNT(bad_wires); i++) {
        const struct bad_wire *bad = &bad_wires[i];
        struct bytes wire = {(const uint8_t *)bad->wire, bad->size};
        struct pageset *set = NULL;
        struct graft_error err;
        cr_assert_eq(pageset_decode(wire, 100, "the.field", &set, &err), GRAFT_INVALID, "case %zu", i);
        cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_PAGESET);
        char place[40];
        snprintf(place, sizeof place, "byte %u of %zu", bad->offset, bad->size);
        cr_assert(strstr(err.message, "the.field") && strstr(err.message, place) &&
                      strstr(err.message, bad->reason),
                  "case %zu: %s", i, err.message);
        cr_assert_null(set);

        size_t offset = 0;
        uint32_t last = 0;
        struct page_run run;
        int result;
        while ((result = pageset_wire_next(wire, &offset, &last, &run)) > 0)
            continue;
        cr_assert_eq(result, -1, "case %zu", i);
    }
}

Test(pageset, the_edges_of_the_wire_form_are_taken)
{
    static const struct bad_wire good[] = {
        {"\xfe\xff\xff\xff\x0f\x01", 6, 1, NULL},         // the last page
        {"\x00\xff\xff\xff\xff\x0f", 6, 1, NULL},         // all
        {"\x00\x01\xfd\xff\xff\xff\x0f\x01", 8, 2, NULL}, // the first and the last
    };
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        _cleanup_(pageset_free_p) struct pageset *set = NULL;
        struct bytes wire = {(const uint8_t *)good[i].wire, good[i].size};
        cr_assert_eq(pageset_decode(wire, good[i].offset, "set", &set, NULL), GRAFT_OK, "case %zu", i);
        cr_assert_eq(pageset_max(set), PAGEIDX_MAX);
    }
}

Test(pageset, too_many_runs_are_refused_before_a_set_is_built)
{
    struct graft_error err;
    _cleanup_(pageset_free_p) struct pageset *set = NULL;
    struct bytes wire = {(const uint8_t *)"\x00\x01\x01\x01\x01\x01", 6};
    cr_assert_eq(pageset_decode(wire, 2, "pages", &set, &err), GRAFT_LIMIT);
    cr_assert_eq(err.detail, GRAFT_DETAIL_TOO_LARGE);
    cr_assert(strstr(err.message, "pages") && strstr(err.message, "2 runs"), "%s", err.message);
    cr_assert_null(set);
    cr_assert_eq(pageset_decode(wire, 3, "pages", &set, &err), GRAFT_OK);
}

Test(pageset, a_buffer_that_is_full_is_left_as_it_was)
{
    _cleanup_(pageset_free_p) struct pageset *set = pageset_new();
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(5);
    for (uint32_t pageidx = 2; pageidx < 10; pageidx += 2)
        pageset_add(set, pageidx);
    buffer_append(&wire, "x", 1, NULL);
    cr_assert_eq(pageset_encode(set, &wire, NULL), GRAFT_LIMIT);
    cr_assert_eq(wire.size, 1);
}

// As many containers as there are, each with a page and a range beside it: CRoaring's dearest form of few bytes.
static void encode_dear_set(struct buffer *wire, uint32_t containers)
{
    for (uint32_t i = 0; i < containers; i++) {
        uint8_t run[2 * VARINT_SIZE_MAX];
        size_t size = varint_put(run, i == 0 ? 0 : 65536 - 5003);
        size += varint_put(run + size, 1);
        size += varint_put(run + size, 1);
        size += varint_put(run + size, 5001);
        cr_assert_eq(buffer_append(wire, run, size, NULL), GRAFT_OK);
    }
}

Test(pageset, what_a_set_holds_is_known_before_it_is_built)
{
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(1 << 20);
    struct pageset_measure measure;
    struct graft_error err;
    encode_dear_set(&wire, 65535);
    cr_assert_eq(pageset_wire_measure(buffer_bytes(&wire), "pages", &measure, NULL), GRAFT_OK);
    cr_assert_eq(measure.runs, 2 * 65535);
    cr_assert_eq(measure.pages, 5002ull * 65535);
    cr_assert_eq(measure.last, 65534u * 65536 + 5003);
    wire.size--;
    cr_assert_eq(pageset_wire_measure(buffer_bytes(&wire), "pages", &measure, &err), GRAFT_INVALID);
    cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_PAGESET);
    cr_assert_eq(pageset_wire_measure((struct bytes){NULL, 0}, "pages", &measure, NULL), GRAFT_OK);
    cr_assert(measure.runs == 0 && measure.pages == 0 && measure.last == 0);
}

Test(pageset, few_bytes_do_not_become_much_memory)
{
    _cleanup_(buffer_release) struct buffer wire = BUFFER_INIT(1 << 20), again = BUFFER_INIT(1 << 20);
    _cleanup_(pageset_free_p) struct pageset *set = NULL;
    encode_dear_set(&wire, 65535);
    struct mallinfo2 before = mallinfo2(); // all zero under a sanitizer
    cr_assert_eq(pageset_decode(buffer_bytes(&wire), PAGESET_RUNS_MAX, "pages", &set, NULL), GRAFT_OK);
    struct mallinfo2 after = mallinfo2();
    size_t grown = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd;
    cr_assert_lt(grown, 16 * MIB, "%zu bytes of memory for %zu on the wire", grown, wire.size);
    cr_assert_eq(pageset_encode(set, &again, NULL), GRAFT_OK);
    cr_assert(again.size == wire.size && memcmp(again.data, wire.data, wire.size) == 0);
}
