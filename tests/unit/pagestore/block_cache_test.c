// SPDX-License-Identifier: Apache-2.0
//
// The block cache over a store in memory that holds, fails or spoils reads.
#include "pagestore/block_cache.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/base/checksum.h"
#include "common/base/limits.h"
#include "common/base/mutex.h"
#include "common/net/page_stream.h"
#include "pagestore/segment_draft.h"
#include "tests/unit/store/store_calls.h"

#define PAGE 60000u // blocks end in the middle of pages

struct fixture {
    struct objstore *store; // the faulty wrapper
    struct metrics *metrics;
    struct block_cache *cache;
    struct gid vid;
    struct mutex lock;
    struct cond woken;
    unsigned wakes; // under lock
};

struct waiter {
    struct cache_waiter base;
    struct fixture *fixture;
};

static void fixture_init(struct fixture *fixture, size_t size_max)
{
    *fixture = (struct fixture){.metrics = metrics_new(), .vid = gid_make(GID_VOLUME, 1)};
    struct objstore *inner = open_store("mem:", "", &(struct objstore_settings){.metrics = fixture->metrics});
    cr_assert_eq(objstore_faulty_open(inner, &fixture->store, NULL), GRAFT_OK);
    cr_assert_eq(block_cache_new(fixture->store, size_max, fixture->metrics, &fixture->cache, NULL),
                 GRAFT_OK);
    mutex_init(&fixture->lock, RANK_LEAF);
    cond_init(&fixture->woken);
}

static void fixture_release(struct fixture *fixture)
{
    block_cache_free(fixture->cache);
    objstore_close(fixture->store);
    metrics_free(fixture->metrics);
    cond_release(&fixture->woken);
    mutex_release(&fixture->lock);
}

static int64_t loads(struct fixture *fixture)
{
    return metric_value(metrics_counter(fixture->metrics, "graft_cache_loads_total", NULL, ""));
}

static int64_t memory(struct fixture *fixture)
{
    return metric_value(metrics_gauge(fixture->metrics, "graft_cache_bytes", NULL, ""));
}

static void wake(struct cache_waiter *base)
{
    struct fixture *fixture = CONTAINER_OF(base, struct waiter, base)->fixture;
    LOCK_GUARD(&fixture->lock);
    fixture->wakes++;
    cond_broadcast(&fixture->woken);
}

static void await_wakes(struct fixture *fixture, unsigned count)
{
    LOCK_GUARD(&fixture->lock);
    while (fixture->wakes < count)
        cond_wait(&fixture->woken, &fixture->lock);
    fixture->wakes -= count;
}

static uint8_t byte_of(uint32_t page, uint32_t at)
{
    return (uint8_t)(page * 31 + at * 7 + (at >> 8));
}

// A segment of raw pages 1 … count; `damaged` (0: none) does not match its checksum.
static struct segment_place put_segment(struct fixture *fixture, uint32_t count, uint32_t damaged)
{
    struct segment_place place = {.sid = gid_make(GID_SEGMENT, 1), .owner = fixture->vid};
    _cleanup_(buffer_release) struct buffer object = BUFFER_INIT(SEGMENT_SIZE_MAX);
    _cleanup_(segment_draft_release) struct segment_draft draft = {0};
    _cleanup_(free_p) uint8_t *bytes = malloc(PAGE);
    buffer_append(&object, SEGMENT_MAGIC, SEGMENT_MAGIC_SIZE, NULL);
    for (uint32_t page = 1; page <= count; page++) {
        for (uint32_t i = 0; i < PAGE; i++)
            bytes[i] = byte_of(page, i);
        struct segment_draft_page entry = {page,
                                           {.offset = (uint32_t)object.size,
                                            .size = PAGE,
                                            .raw_size = PAGE,
                                            .encoding = PAGE_ENCODING_RAW,
                                            .stored_checksum = checksum64(bytes, PAGE) + (page == damaged)}};
        cr_assert_eq(segment_draft_add(&draft, &fixture->vid, &entry, 1, NULL), GRAFT_OK);
        cr_assert_eq(buffer_append(&object, bytes, PAGE, NULL), GRAFT_OK);
    }
    struct segment_footer footer;
    cr_assert_eq(segment_tail_encode(&draft, &place.sid, (uint32_t)object.size, &object, &footer, NULL),
                 GRAFT_OK);
    place.object_size = footer.object_size;
    place.index_offset = footer.index_offset;
    place.index_size = footer.index_size;
    cr_assert_eq(
        objstore_create_wait(fixture->store, segment_key(&place.sid).text, buffer_bytes(&object), NULL),
        GRAFT_OK);
    return place;
}

static enum cache_state await_segment(struct fixture *fixture, struct cached_segment *segment,
                                      const struct segment_index **ret_index,
                                      const struct graft_error **ret_error)
{
    struct waiter waiter = {{wake}, fixture};
    enum cache_state state = cached_segment_poll(segment, &waiter.base, ret_index, ret_error);
    if (state != CACHE_LOADING)
        return state;
    await_wakes(fixture, 1);
    return cached_segment_poll(segment, NULL, ret_index, ret_error);
}

static enum cache_state await_block(struct fixture *fixture, struct cached_block *block,
                                    const struct graft_error **ret_error)
{
    struct waiter waiter = {{wake}, fixture};
    enum cache_state state = cached_block_poll(block, &waiter.base, ret_error);
    if (state != CACHE_LOADING)
        return state;
    await_wakes(fixture, 1);
    return cached_block_poll(block, NULL, ret_error);
}

static struct cached_segment *open_segment(struct fixture *fixture, const struct segment_place *place,
                                           const struct segment_index **ret_index)
{
    const struct graft_error *error;
    struct cached_segment *segment = block_cache_segment(fixture->cache, place);
    cr_assert_not_null(segment);
    cr_assert_eq(await_segment(fixture, segment, ret_index, &error), CACHE_READY);
    return segment;
}

static void check_block(const struct cached_block *block, const struct segment_index *index)
{
    uint32_t offset;
    struct bytes bytes = cached_block_bytes(block, &offset);
    for (uint32_t i = 0; i < bytes.size && offset + i < index->footer.index_offset; i++) {
        uint32_t at = offset + i - SEGMENT_MAGIC_SIZE;
        if (offset + i >= SEGMENT_MAGIC_SIZE)
            cr_assert_eq(bytes.data[i], byte_of(1 + at / PAGE, at % PAGE), "byte %u", offset + i);
    }
}

static void fault(struct fixture *fixture, enum objstore_fault_kind kind, enum graft_status status,
                  unsigned count)
{
    objstore_faulty_add(
        fixture->store,
        &(struct objstore_fault){
            .op = "get", .count = count, .kind = kind, .error = {status, GRAFT_DETAIL_IO, "as told"}});
}

Test(block_cache, a_small_segment_comes_with_one_request)
{
    struct fixture fixture;
    const struct segment_index *index;
    const struct graft_error *error;
    struct cached_block *block, *again;
    fixture_init(&fixture, 64 * MIB);
    struct segment_place place = put_segment(&fixture, 10, 0);
    struct cached_segment *segment = open_segment(&fixture, &place, &index);
    cr_assert_eq(index->footer.page_count, 10);
    cr_assert(cached_segment_blocks(segment, 0, 1, &block));
    cr_assert_eq(cached_block_poll(block, NULL, &error), CACHE_READY);
    check_block(block, index);
    cr_assert_eq(loads(&fixture), 1);
    cached_block_release(block);
    cached_segment_release(segment);
    // Nobody holds it, and it is still there.
    segment = open_segment(&fixture, &place, &index);
    cr_assert(cached_segment_blocks(segment, 0, 1, &again) && again == block);
    cr_assert_eq(loads(&fixture), 1);
    cached_block_release(again);
    cached_segment_release(segment);
    fixture_release(&fixture);
}

Test(block_cache, neighbours_come_with_one_request_and_each_once)
{
    struct fixture fixture;
    const struct segment_index *index;
    const struct graft_error *error;
    struct cached_block *middle, *blocks[8], *same[8];
    fixture_init(&fixture, 64 * MIB);
    struct segment_place place = put_segment(&fixture, 40, 0);
    struct cached_segment *segment = open_segment(&fixture, &place, &index);
    fault(&fixture, FAULT_HOLD, GRAFT_OK, 100);
    cr_assert(cached_segment_blocks(segment, 3, 1, &middle));
    cr_assert_eq(loads(&fixture), 2);
    cr_assert(cached_segment_blocks(segment, 0, 8, blocks)); // 0 … 2, 4 … 7
    cr_assert_eq(loads(&fixture), 4);
    cr_assert(cached_segment_blocks(segment, 0, 8, same));
    cr_assert_eq(loads(&fixture), 4);
    cr_assert(blocks[3] == middle && memcmp(blocks, same, sizeof same) == 0);
    struct waiter waiters[8];
    for (int i = 0; i < 8; i++) {
        waiters[i] = (struct waiter){{wake}, &fixture};
        cr_assert_eq(cached_block_poll(blocks[i], &waiters[i].base, &error), CACHE_LOADING);
    }
    objstore_faulty_release(fixture.store);
    await_wakes(&fixture, 8);
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(cached_block_poll(blocks[i], NULL, &error), CACHE_READY);
        check_block(blocks[i], index);
        cached_block_release(blocks[i]);
        cached_block_release(same[i]);
    }
    cached_block_release(middle);
    cached_segment_release(segment);
    fixture_release(&fixture);
}

Test(block_cache, memory_stays_within_the_bound_and_held_blocks_stay)
{
    struct fixture fixture;
    const struct segment_index *index;
    const struct graft_error *error;
    struct cached_block *held, *block;
    const int64_t bound = 1024 * 1024;
    fixture_init(&fixture, (size_t)bound);
    struct segment_place place = put_segment(&fixture, 60, 0);
    struct cached_segment *segment = open_segment(&fixture, &place, &index);
    uint32_t count = cached_segment_block_of(segment, (uint32_t)place.index_offset - 1) + 1;
    cr_assert_gt(count, 10);
    cr_assert(cached_segment_blocks(segment, 0, 1, &held));
    cr_assert_eq(await_block(&fixture, held, &error), CACHE_READY);
    for (uint32_t i = 1; i < count; i++) {
        cr_assert(cached_segment_blocks(segment, i, 1, &block));
        cr_assert_eq(await_block(&fixture, block, &error), CACHE_READY);
        cached_block_release(block);
        cr_assert_leq(memory(&fixture), bound);
    }
    check_block(held, index);
    int64_t before = loads(&fixture);
    cr_assert(cached_segment_blocks(segment, 1, 1, &block)); // was evicted
    cr_assert_eq(await_block(&fixture, block, &error), CACHE_READY);
    cr_assert_eq(loads(&fixture), before + 1);
    cached_block_release(block);
    cached_block_release(held);
    cached_segment_release(segment);
    fixture_release(&fixture);
}

// Each block is dropped as soon as its load has filled it, for nobody waits and nothing may stay.
Test(block_cache, a_load_that_its_reader_left_behind_ends_well)
{
    struct fixture fixture;
    const struct segment_index *index;
    struct cached_block *blocks[8];
    fixture_init(&fixture, 0);
    struct segment_place place = put_segment(&fixture, 40, 0);
    struct cached_segment *segment = open_segment(&fixture, &place, &index);
    fault(&fixture, FAULT_HOLD, GRAFT_OK, 100);
    cr_assert(cached_segment_blocks(segment, 0, 8, blocks));
    for (int i = 0; i < 8; i++)
        cached_block_release(blocks[i]);
    cached_segment_release(segment);
    objstore_faulty_release(fixture.store);
    fixture_release(&fixture); // waits for the load
}

Test(block_cache, what_failed_is_tried_again)
{
    struct fixture fixture;
    const struct segment_index *index;
    const struct graft_error *error;
    struct cached_block *block;
    fixture_init(&fixture, 64 * MIB);
    struct segment_place place = put_segment(&fixture, 40, 0);
    fault(&fixture, FAULT_ERROR, GRAFT_UNAVAILABLE, 1);
    struct cached_segment *failed = block_cache_segment(fixture.cache, &place);
    cr_assert_eq(await_segment(&fixture, failed, &index, &error), CACHE_FAILED);
    cr_assert_eq(error->status, GRAFT_UNAVAILABLE);
    cr_assert(strstr(error->message, "as told") && strstr(error->message, gid_format(&place.sid).text));
    struct cached_segment *segment = open_segment(&fixture, &place, &index);
    cr_assert_neq(segment, failed);
    cr_assert_eq(cached_segment_poll(failed, NULL, &index, &error), CACHE_FAILED); // its holders keep it
    cached_segment_release(failed);
    fault(&fixture, FAULT_ERROR, GRAFT_INTERNAL, 1);
    cr_assert(cached_segment_blocks(segment, 2, 1, &block));
    cr_assert_eq(await_block(&fixture, block, &error), CACHE_FAILED);
    cr_assert_eq(error->status, GRAFT_INTERNAL);
    cached_block_release(block);
    cr_assert(cached_segment_blocks(segment, 2, 1, &block));
    cr_assert_eq(await_block(&fixture, block, &error), CACHE_READY);
    cached_block_release(block);
    cached_segment_release(segment);
    fixture_release(&fixture);
}

Test(block_cache, damage_is_known_page_by_page)
{
    struct fixture fixture;
    const struct segment_index *index;
    const struct graft_error *error;
    struct cached_block *block;
    fixture_init(&fixture, 64 * MIB);
    struct segment_place place = put_segment(&fixture, 40, 6); // wholly in block 1
    struct cached_segment *segment = open_segment(&fixture, &place, &index);
    cr_assert(cached_segment_blocks(segment, 1, 1, &block));
    cr_assert_eq(await_block(&fixture, block, &error), CACHE_READY);
    for (uint32_t i = 5; i <= 7; i++)
        cr_assert_eq(cached_block_is_damaged(block, i), i == 5, "place %u", i);
    cached_block_release(block);
    cached_segment_release(segment);
    fixture_release(&fixture);
}

Test(block_cache, a_segment_that_is_missing_or_cut_off_is_reported)
{
    struct fixture fixture;
    const struct segment_index *index;
    const struct graft_error *error;
    fixture_init(&fixture, 64 * MIB);
    struct segment_place place = put_segment(&fixture, 40, 0), missing = place;
    missing.sid = gid_make(GID_SEGMENT, 1);
    struct cached_segment *segment = block_cache_segment(fixture.cache, &missing);
    cr_assert_eq(await_segment(&fixture, segment, &index, &error), CACHE_FAILED);
    cr_assert(error->status == GRAFT_NOT_FOUND && strstr(error->message, "missing"), "%s", error->message);
    cached_segment_release(segment);
    place.object_size += 10;
    segment = block_cache_segment(fixture.cache, &place);
    cr_assert_eq(await_segment(&fixture, segment, &index, &error), CACHE_FAILED);
    cr_assert(error->status == GRAFT_CORRUPT && error->detail == GRAFT_DETAIL_TRUNCATED, "%s",
              error->message);
    cached_segment_release(segment);
    place.sid = gid_make(GID_SEGMENT, 1);
    place.object_size = SEGMENT_SIZE_MAX + 1;
    cr_assert_null(block_cache_segment(fixture.cache, &place));
    fixture_release(&fixture);
}
