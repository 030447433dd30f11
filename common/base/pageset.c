// SPDX-License-Identifier: Apache-2.0
//
// CRoaring 0.2 keeps the members; its own wire format is never used, because it believes what it reads.
#include "common/base/pageset.h"

#include <roaring/roaring.h>
#include <stdlib.h>

#include "common/base/check.h"

#define WIRE_RUN_SIZE_MAX 10 // two varints of at most 32 bits
#define BUILD_PART_RUNS 1024 // which make at most 512 containers of 8 KiB

struct pageset {
    roaring_bitmap_t *bitmap;
};

static struct pageset *pageset_adopt(roaring_bitmap_t *bitmap)
{
    CHECK(bitmap);
    struct pageset *set = malloc(sizeof *set);
    CHECK(set);
    set->bitmap = bitmap;
    return set;
}

struct pageset *pageset_new(void)
{
    return pageset_adopt(roaring_bitmap_create());
}

void pageset_free(struct pageset *set)
{
    if (!set)
        return;
    roaring_bitmap_free(set->bitmap);
    free(set);
}

struct pageset *pageset_copy(const struct pageset *set)
{
    return pageset_adopt(roaring_bitmap_copy(set->bitmap));
}

void pageset_add(struct pageset *set, uint32_t pageidx)
{
    CHECK(pageidx >= 1);
    roaring_bitmap_add(set->bitmap, pageidx);
}

void pageset_add_run(struct pageset *set, uint32_t first, uint32_t count)
{
    CHECK(first >= 1 && count >= 1 && count - 1 <= PAGEIDX_MAX - first);
    if (count == 1)
        roaring_bitmap_add(set->bitmap, first);
    else
        roaring_bitmap_add_range_closed(set->bitmap, first, first + (count - 1));
}

void pageset_remove(struct pageset *set, uint32_t pageidx)
{
    roaring_bitmap_remove(set->bitmap, pageidx);
}

void pageset_remove_above(struct pageset *set, uint32_t pageidx)
{
    if (pageidx < PAGEIDX_MAX)
        roaring_bitmap_remove_range_closed(set->bitmap, pageidx + 1, PAGEIDX_MAX);
}

void pageset_clear(struct pageset *set)
{
    roaring_bitmap_clear(set->bitmap);
}

void pageset_union(struct pageset *set, const struct pageset *other)
{
    if (set != other)
        roaring_bitmap_or_inplace(set->bitmap, other->bitmap);
}

void pageset_intersect(struct pageset *set, const struct pageset *other)
{
    if (set != other)
        roaring_bitmap_and_inplace(set->bitmap, other->bitmap);
}

void pageset_subtract(struct pageset *set, const struct pageset *other)
{
    if (set == other)
        pageset_clear(set);
    else
        roaring_bitmap_andnot_inplace(set->bitmap, other->bitmap);
}

bool pageset_contains(const struct pageset *set, uint32_t pageidx)
{
    return roaring_bitmap_contains(set->bitmap, pageidx);
}

uint64_t pageset_count(const struct pageset *set)
{
    return roaring_bitmap_get_cardinality(set->bitmap);
}

bool pageset_is_empty(const struct pageset *set)
{
    return roaring_bitmap_is_empty(set->bitmap);
}

bool pageset_is_subset(const struct pageset *set, const struct pageset *of)
{
    return roaring_bitmap_is_subset(set->bitmap, of->bitmap);
}

bool pageset_intersects(const struct pageset *a, const struct pageset *b)
{
    return roaring_bitmap_intersect(a->bitmap, b->bitmap);
}

bool pageset_equal(const struct pageset *a, const struct pageset *b)
{
    return roaring_bitmap_equals(a->bitmap, b->bitmap);
}

uint32_t pageset_min(const struct pageset *set)
{
    return pageset_is_empty(set) ? 0 : roaring_bitmap_minimum(set->bitmap);
}

uint32_t pageset_max(const struct pageset *set)
{
    return pageset_is_empty(set) ? 0 : roaring_bitmap_maximum(set->bitmap);
}

uint64_t pageset_rank(const struct pageset *set, uint32_t pageidx)
{
    return pageidx <= 1 ? 0 : roaring_bitmap_rank(set->bitmap, pageidx - 1);
}

bool pageset_select(const struct pageset *set, uint64_t place, uint32_t *ret_pageidx)
{
    return place < UINT32_MAX && roaring_bitmap_select(set->bitmap, (uint32_t)place, ret_pageidx);
}

struct pageset_cursor pageset_cursor(const struct pageset *set)
{
    return (struct pageset_cursor){.set = set, .next = 1};
}

// The last member of the unbroken stretch that begins where the iterator stands, as far as its container
// goes. Looking into the container costs one step a run, where advancing the iterator would cost one a page.
static uint32_t stretch_end(const roaring_uint32_iterator_t *at)
{
    uint32_t low = at->current_value & 0xffff;
    switch (at->typecode) {
    case ARRAY_CONTAINER_TYPE_CODE: {
        const array_container_t *array = at->container;
        int32_t place = at->in_container_index;
        while (place + 1 < array->cardinality && array->array[place + 1] == array->array[place] + 1)
            place++;
        low = array->array[place];
        break;
    }
    case RUN_CONTAINER_TYPE_CODE: {
        const run_container_t *runs = at->container;
        int32_t place = at->run_index;
        low = (uint32_t)runs->runs[place].value + runs->runs[place].length;
        while (place + 1 < runs->n_runs && runs->runs[place + 1].value == low + 1) {
            place++;
            low = (uint32_t)runs->runs[place].value + runs->runs[place].length;
        }
        break;
    }
    case BITSET_CONTAINER_TYPE_CODE: {
        const bitset_container_t *bitset = at->container;
        uint32_t word = low / 64;
        uint64_t absent = ~bitset->array[word] & (UINT64_MAX << (low % 64));
        while (absent == 0 && word + 1 < BITSET_CONTAINER_SIZE_IN_WORDS)
            absent = ~bitset->array[++word];
        low = absent == 0 ? 0xffff : 64 * word + (uint32_t)__builtin_ctzll(absent) - 1;
        break;
    }
    default:
        CHECK(!"a container of a known kind: sets are never copy-on-write");
    }
    return at->highbits | low;
}

bool pageset_next_run(struct pageset_cursor *cursor, struct page_run *ret_run)
{
    if (cursor->next > PAGEIDX_MAX)
        return false;
    roaring_uint32_iterator_t at;
    roaring_init_iterator(cursor->set->bitmap, &at);
    if (!roaring_move_uint32_iterator_equalorlarger(&at, (uint32_t)cursor->next)) {
        cursor->next = (uint64_t)PAGEIDX_MAX + 1;
        return false;
    }
    uint32_t first = at.current_value;
    uint32_t last = stretch_end(&at);
    while ((last & 0xffff) == 0xffff && last < PAGEIDX_MAX && pageset_contains(cursor->set, last + 1)) {
        roaring_move_uint32_iterator_equalorlarger(&at, last + 1);
        last = stretch_end(&at);
    }
    cursor->next = (uint64_t)last + 1;
    *ret_run = (struct page_run){first, last - first + 1};
    return true;
}

bool pageset_next(struct pageset_cursor *cursor, uint32_t *ret_pageidx)
{
    if (cursor->next > PAGEIDX_MAX)
        return false;
    roaring_uint32_iterator_t at;
    roaring_init_iterator(cursor->set->bitmap, &at);
    if (!roaring_move_uint32_iterator_equalorlarger(&at, (uint32_t)cursor->next)) {
        cursor->next = (uint64_t)PAGEIDX_MAX + 1;
        return false;
    }
    cursor->next = (uint64_t)at.current_value + 1;
    *ret_pageidx = at.current_value;
    return true;
}

enum graft_status pageset_encode(const struct pageset *set, struct buffer *to, struct graft_error *err)
{
    size_t size_before = to->size;
    struct pageset_cursor cursor = pageset_cursor(set);
    struct page_run run;
    uint32_t last = 0;
    while (pageset_next_run(&cursor, &run)) {
        uint8_t wire[WIRE_RUN_SIZE_MAX];
        size_t size = varint_put(wire, run.first - last - 1);
        size += varint_put(wire + size, run.count);
        enum graft_status status = buffer_append(to, wire, size, err);
        if (status != GRAFT_OK) {
            to->size = size_before;
            return error_context(err, status, "encoding a page set");
        }
        last = run.first + (run.count - 1);
    }
    return GRAFT_OK;
}

// Takes one varint off the wire. NULL, or why that is impossible.
static const char *take_varint(struct bytes wire, size_t *offset, uint64_t *ret_value)
{
    int size = varint_get(wire.data + *offset, wire.size - *offset, ret_value);
    if (size == 0)
        return "a number is cut off";
    if (size < 0)
        return "a number is not in its shortest form, or beyond 64 bits";
    *offset += (size_t)size;
    return NULL;
}

// Like pageset_wire_next(), which it is but for the reason. At the failure *offset is left at the run that is
// wrong.
static int wire_next(struct bytes wire, size_t *offset, uint32_t *last, struct page_run *ret_run,
                     const char **ret_reason)
{
    if (*offset == wire.size)
        return 0;

    uint64_t gap, count;
    size_t end = *offset;
    const char *reason = take_varint(wire, &end, &gap);
    if (!reason)
        reason = take_varint(wire, &end, &count);
    if (!reason && gap == 0 && *last != 0)
        reason = "a gap of 0: runs that touch must be one run";
    if (!reason && count == 0)
        reason = "a run of length 0";
    // `last` + gap < PAGEIDX_MAX leaves room for one page at least.
    if (!reason && (gap >= PAGEIDX_MAX - *last || count > PAGEIDX_MAX - *last - gap))
        reason = "a page beyond 4294967295";
    if (reason) {
        *ret_reason = reason;
        return -1;
    }
    ret_run->first = *last + (uint32_t)gap + 1;
    ret_run->count = (uint32_t)count;
    *last = ret_run->first + (ret_run->count - 1);
    *offset = end;
    return 1;
}

int pageset_wire_next(struct bytes wire, size_t *offset, uint32_t *last, struct page_run *ret_run)
{
    const char *reason;
    return wire_next(wire, offset, last, ret_run, &reason);
}

enum graft_status pageset_wire_measure(struct bytes wire, const char *field,
                                       struct pageset_measure *ret_measure, struct graft_error *err)
{
    struct pageset_measure measure = {0};
    size_t offset = 0;
    struct page_run run;
    const char *reason;
    int result;
    while ((result = wire_next(wire, &offset, &measure.last, &run, &reason)) > 0) {
        measure.runs++;
        measure.pages += run.count;
    }
    if (result < 0)
        return error_set(err, GRAFT_INVALID, GRAFT_DETAIL_BAD_PAGESET,
                         "%s: no page set: in the run at byte %zu of %zu, %s", field, offset, wire.size,
                         reason);
    *ret_measure = measure;
    return GRAFT_OK;
}

// CRoaring makes a bitmap of 8 KiB out of one page and a range beside it, seven bytes on the wire. So the set grows
// by parts, each brought into its smallest form, and takes a few times the memory of its wire form.
static void build(struct pageset *set, struct bytes wire)
{
    _cleanup_(pageset_free_p) struct pageset *part = pageset_new();
    size_t offset = 0;
    uint32_t last = 0;
    struct page_run run;
    for (unsigned runs = 1; pageset_wire_next(wire, &offset, &last, &run) > 0; runs++) {
        pageset_add_run(part, run.first, run.count);
        if (runs % BUILD_PART_RUNS != 0 && offset < wire.size)
            continue;
        roaring_bitmap_run_optimize(part->bitmap);
        pageset_union(set, part);
        pageset_clear(part);
    }
}

enum graft_status pageset_decode(struct bytes wire, uint32_t runs_max, const char *field,
                                 struct pageset **ret_set, struct graft_error *err)
{
    struct pageset_measure measure;
    enum graft_status status = pageset_wire_measure(wire, field, &measure, err);
    if (status != GRAFT_OK)
        return status;
    if (measure.runs > runs_max)
        return error_set(err, GRAFT_LIMIT, GRAFT_DETAIL_TOO_LARGE, "%s: a page set of more than %u runs",
                         field, runs_max);
    *ret_set = pageset_new();
    build(*ret_set, wire);
    return GRAFT_OK;
}
