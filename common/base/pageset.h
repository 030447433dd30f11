// SPDX-License-Identifier: Apache-2.0
//
// Sets of page numbers (1 to 2^32-1). CRoaring within; the wire form is a canonical list of runs:
//
//     (gap, length) (gap, length) …   minimal varints
//
// `gap` counts the pages left out before the run: of the first run, first page - 1 (≥ 0); of later ones, ≥ 1, since
// runs that touch are one run. `length` ≥ 1. The empty set is no bytes. Each set has exactly one encoding.
//
// Not thread-safe for changes; a set that nobody changes may be read by many threads. Running out of memory aborts: where
// a set comes from outside, bound its runs and its pages before it is built.
#ifndef COMMON_BASE_PAGESET_H
#define COMMON_BASE_PAGESET_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buffer.h"
#include "common/base/compiler.h"
#include "common/base/error.h"

#define PAGEIDX_MAX UINT32_MAX

struct pageset;

struct page_run {
    uint32_t first;
    uint32_t count; // ≥ 1
};

struct pageset *pageset_new(void);
void pageset_free(struct pageset *set);
DEFINE_CLEANUP(struct pageset, pageset_free)
struct pageset *pageset_copy(const struct pageset *set);

void pageset_add(struct pageset *set, uint32_t pageidx);
void pageset_add_run(struct pageset *set, uint32_t first, uint32_t count); // first + count - 1 ≤ PAGEIDX_MAX
void pageset_remove(struct pageset *set, uint32_t pageidx);
void pageset_remove_above(struct pageset *set, uint32_t pageidx); // keeps pages ≤ pageidx
void pageset_clear(struct pageset *set);
void pageset_union(struct pageset *set, const struct pageset *other);     // set |= other
void pageset_intersect(struct pageset *set, const struct pageset *other); // set &= other
void pageset_subtract(struct pageset *set, const struct pageset *other);  // set -= other

bool pageset_contains(const struct pageset *set, uint32_t pageidx);
uint64_t pageset_count(const struct pageset *set);
bool pageset_is_empty(const struct pageset *set);
bool pageset_is_subset(const struct pageset *set, const struct pageset *of);
bool pageset_intersects(const struct pageset *a, const struct pageset *b);
bool pageset_equal(const struct pageset *a, const struct pageset *b);
uint32_t pageset_min(const struct pageset *set); // 0 for the empty set
uint32_t pageset_max(const struct pageset *set); // 0 for the empty set

// How many members are < pageidx: the place of a member among the set's pages in order. Costs a step for each 65,536
// pages of numbers below it that have a member; a walk over many pages counts along a cursor instead.
uint64_t pageset_rank(const struct pageset *set, uint32_t pageidx);
// The member at that place; false beyond the end.
bool pageset_select(const struct pageset *set, uint64_t place, uint32_t *ret_pageidx);

// Iteration in ascending order, by runs. The set must not change meanwhile.
//     struct pageset_cursor cursor = pageset_cursor(set);
//     while (pageset_next_run(&cursor, &run)) …
struct pageset_cursor {
    const struct pageset *set;
    uint64_t next; // the least page not yet returned
};
struct pageset_cursor pageset_cursor(const struct pageset *set);
bool pageset_next_run(struct pageset_cursor *cursor, struct page_run *ret_run);
bool pageset_next(struct pageset_cursor *cursor, uint32_t *ret_pageidx);

// Appends the wire form. LIMIT if the buffer's cap is in the way.
enum graft_status pageset_encode(const struct pageset *set, struct buffer *to, struct graft_error *err);

// Builds a set from a wire form that may come from anybody: INVALID / BAD_PAGESET with the byte offset and the reason
// for a gap of 0, a length of 0, a page beyond PAGEIDX_MAX, a varint that is not minimal or is cut off; LIMIT if it has
// more than `runs_max` runs. `field` names it in the error. The set takes memory in proportion to its wire form.
enum graft_status pageset_decode(struct bytes wire, uint32_t runs_max, const char *field,
                                 struct pageset **ret_set, struct graft_error *err);

// What a wire form holds, without building a set: for bounds on pages. INVALID / BAD_PAGESET as pageset_decode().
struct pageset_measure {
    uint64_t runs, pages;
    uint32_t last; // the greatest page; 0 for the empty set
};
enum graft_status pageset_wire_measure(struct bytes wire, const char *field,
                                       struct pageset_measure *ret_measure, struct graft_error *err);

// Walks a wire form without building a set. `*offset` starts at 0, `*last` (last page of the run before) at 0. 1: a run
// is in *ret_run; 0: the end; -1: malformed.
int pageset_wire_next(struct bytes wire, size_t *offset, uint32_t *last, struct page_run *ret_run);

#endif
