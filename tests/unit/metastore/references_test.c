// SPDX-License-Identifier: Apache-2.0
#include "metastore/references.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/base/pageset.h"

#define DEAR_REFERENCES 8u

static const struct cluster_key key = {{1, 2, 3}};
static struct gid vid;

struct reference {
    Graft__SegmentRef message;
    struct gid sid;
    struct buffer pages, structural;
    struct receipt receipt;
};

static void add_run(struct buffer *wire, uint32_t gap, uint32_t count)
{
    uint8_t run[2 * VARINT_SIZE_MAX];
    size_t size = varint_put(run, gap);
    size += varint_put(run + size, count);
    cr_assert_eq(buffer_append(wire, run, size, NULL), GRAFT_OK);
}

static void reference_init(struct reference *reference)
{
    *reference = (struct reference){.message = GRAFT__SEGMENT_REF__INIT,
                                    .sid = gid_make(GID_SEGMENT, 1),
                                    .pages = BUFFER_INIT(4 * MIB),
                                    .structural = BUFFER_INIT(4 * MIB)};
}

static void reference_sign(struct reference *reference, uint64_t expires_ms)
{
    Graft__SegmentRef *message = &reference->message;
    struct receipt_claim claim = {.sid = reference->sid,
                                  .owner = vid,
                                  .object_size = 1000,
                                  .index_offset = 900,
                                  .index_size = 36,
                                  .expires_ms = expires_ms,
                                  .pages = buffer_bytes(&reference->pages),
                                  .structural = buffer_bytes(&reference->structural)};
    reference->receipt = receipt_make(&key, &claim);
    message->sid = binary_of(reference->sid.bytes, GID_SIZE);
    message->owner = binary_of(vid.bytes, GID_SIZE);
    message->object_size = claim.object_size;
    message->index_offset = claim.index_offset;
    message->index_size = claim.index_size;
    message->expires_ms = expires_ms;
    message->pages = binary_of(claim.pages.data, claim.pages.size);
    message->structural = binary_of(claim.structural.data, claim.structural.size);
    message->receipt = binary_of(reference->receipt.bytes, RECEIPT_SIZE);
}

static void reference_release(struct reference *reference)
{
    buffer_release(&reference->pages);
    buffer_release(&reference->structural);
}

// References of one run each.
static enum graft_status check_runs(const struct page_run *runs, size_t count, uint32_t page_count,
                                    struct graft_error *err)
{
    struct reference references[8];
    Graft__SegmentRef *pointers[8];
    uint64_t expires_ms;
    cr_assert_leq(count, ARRAY_COUNT(references));
    vid = gid_make(GID_VOLUME, 1);
    for (size_t i = 0; i < count; i++) {
        reference_init(&references[i]);
        add_run(&references[i].pages, runs[i].first - 1, runs[i].count);
        reference_sign(&references[i], 1000 + i);
        pointers[i] = &references[i].message;
    }
    enum graft_status status = references_check(&key, &vid, page_count, pointers, count, &expires_ms, err);
    cr_assert(status != GRAFT_OK || expires_ms == (count ? 1000 : UINT64_MAX));
    for (size_t i = 0; i < count; i++)
        reference_release(&references[i]);
    return status;
}

Test(references, pages_may_lie_in_any_order_and_touch)
{
    struct page_run runs[] = {{50, 10}, {1, 9}, {20, 30}, {10, 10}, {PAGEIDX_MAX, 1}};
    cr_assert_eq(check_runs(runs, ARRAY_COUNT(runs), PAGEIDX_MAX, NULL), GRAFT_OK);
    cr_assert_eq(check_runs(runs, 0, 0, NULL), GRAFT_OK);
}

Test(references, a_page_in_two_references_is_refused_wherever_it_lies)
{
    struct page_run cases[][3] = {
        {{10, 10}, {19, 5}, {1, 1}},
        {{10, 10}, {1, 1}, {5, 6}},
        {{10, 1}, {1, 1}, {10, 1}},
        {{10, 10}, {100, 1}, {12, 2}},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct graft_error err;
        cr_assert_eq(check_runs(cases[i], 3, 1000, &err), GRAFT_INVALID, "case %zu", i);
        cr_assert_eq(err.detail, GRAFT_DETAIL_BAD_PAGESET);
        cr_assert(strstr(err.message, "both have page"), "%s", err.message);
    }
}

Test(references, pages_beyond_the_volume_are_refused)
{
    struct graft_error err;
    struct page_run runs[] = {{1, 1}, {5, 2}};
    cr_assert_eq(check_runs(runs, 2, 6, NULL), GRAFT_OK);
    cr_assert_eq(check_runs(runs, 2, 5, &err), GRAFT_INVALID);
    cr_assert(strstr(err.message, "segments[1]") && strstr(err.message, "page 6"), "%s", err.message);
}

Test(references, structural_pages_are_some_of_the_pages)
{
    const struct {
        uint32_t gap, count;
        enum graft_status status;
    } cases[] = {{9, 1, GRAFT_OK},       {9, 10, GRAFT_OK},      {19, 1, GRAFT_INVALID},
                 {8, 2, GRAFT_INVALID},  {9, 11, GRAFT_INVALID}, {29, 5, GRAFT_OK},
                 {0, 1, GRAFT_INVALID},  {33, 3, GRAFT_INVALID}, {99, 1, GRAFT_INVALID},
                 {14, 20, GRAFT_INVALID}};
    vid = gid_make(GID_VOLUME, 1);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct reference reference;
        uint64_t expires_ms;
        reference_init(&reference);
        add_run(&reference.pages, 9, 10); // 10 … 19
        add_run(&reference.pages, 10, 5); // 30 … 34
        add_run(&reference.structural, cases[i].gap, cases[i].count);
        reference_sign(&reference, 1);
        Graft__SegmentRef *pointer = &reference.message;
        cr_assert_eq(references_check(&key, &vid, 1000, &pointer, 1, &expires_ms, NULL), cases[i].status,
                     "case %zu", i);
        reference_release(&reference);
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Eight references whose sets would take half a GiB each as bitmaps: in 4 MiB on the wire.
Test(references, a_hostile_commit_of_4_mib_costs_little_memory)
{
    struct reference references[DEAR_REFERENCES];
    Graft__SegmentRef *pointers[DEAR_REFERENCES];
    uint64_t expires_ms;
    size_t size = 0;
    vid = gid_make(GID_VOLUME, 1);
    for (uint32_t i = 0; i < DEAR_REFERENCES; i++) {
        reference_init(&references[i]);
        for (uint32_t container = 0; container < 65535; container++) {
            add_run(&references[i].pages, container == 0 ? i * 8000 : 65536 - 5003, 1);
            add_run(&references[i].pages, 1, 5001);
        }
        reference_sign(&references[i], 1);
        size += references[i].pages.size;
        pointers[i] = &references[i].message;
    }
    cr_assert(size > 3 * MIB && size <= COMMIT_REQUEST_SIZE_MAX, "%zu", size);
    long pages_now;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert(file && fscanf(file, "%ld", &pages_now) == 1);
    fclose(file);
    rlim_t bound = (rlim_t)pages_now * (rlim_t)sysconf(_SC_PAGESIZE) + 48 * MIB;
    cr_assert_eq(setrlimit(RLIMIT_AS, &(struct rlimit){bound, bound}), 0);
    struct graft_error err;
    cr_assert_eq(references_check(&key, &vid, PAGEIDX_MAX, pointers, DEAR_REFERENCES, &expires_ms, &err),
                 GRAFT_OK, "%s", err.message);
    // What a pull makes of such commits is bounded as well.
    _cleanup_(pageset_free_p) struct pageset *all = pageset_new();
    for (uint32_t i = 0; i < DEAR_REFERENCES; i++) {
        _cleanup_(pageset_free_p) struct pageset *one = NULL;
        cr_assert_eq(
            pageset_decode(buffer_bytes(&references[i].pages), PAGESET_RUNS_MAX, "pages", &one, NULL),
            GRAFT_OK);
        pageset_union(all, one);
    }
    for (uint32_t i = 0; i < DEAR_REFERENCES; i++)
        reference_release(&references[i]);
}
#endif
