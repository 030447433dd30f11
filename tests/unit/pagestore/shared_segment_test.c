// SPDX-License-Identifier: Apache-2.0
#include "pagestore/shared_segment.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/base/mutex.h"
#include "pagestore/segment_index.h"

#define ITEMS_MAX 64

static struct objstore *store;
static struct shared_segments *shared;
static struct mutex lock;
static struct cond changed;
static unsigned answered; // lock

struct waiting {
    struct shared_item item;
    struct upload_blocks blocks;
    struct gid vid;
    struct segment_sealed sealed;
    struct graft_error error;
};
static struct waiting waiting[ITEMS_MAX];

static void set_up_lingering(uint64_t linger_ms)
{
    struct objstore_settings settings = {0};
    struct objstore *inner;
    cr_assert_eq(objstore_open("mem:", &settings, &inner, NULL), GRAFT_OK);
    cr_assert_eq(objstore_faulty_open(inner, &store, NULL), GRAFT_OK);
    cr_assert_eq(shared_segments_new(store, linger_ms, NULL, &shared, NULL), GRAFT_OK);
    mutex_init(&lock, RANK_LEAF);
    cond_init(&changed);
    answered = 0;
}

static void set_up(void)
{
    set_up_lingering(0);
}

static void tear_down(void)
{
    shared_segments_free(shared);
    objstore_close(store);
    for (unsigned i = 0; i < ITEMS_MAX; i++)
        upload_block_free(STAILQ_EMPTY(&waiting[i].blocks) ? NULL : STAILQ_FIRST(&waiting[i].blocks));
}

TestSuite(shared_segment, .init = set_up, .fini = tear_down);

static void done(struct shared_item *item, const struct segment_sealed *sealed,
                 const struct graft_error *error)
{
    struct waiting *of = CONTAINER_OF(item, struct waiting, item);
    of->sealed = *sealed;
    of->error = *error;
    LOCK_GUARD(&lock);
    answered++;
    cond_broadcast(&changed);
}

// Pages 1 … `pages` of 1 KiB, all of them bytes of the volume's number.
static void submit(unsigned place, unsigned volume, uint32_t pages)
{
    static uint8_t data[1024];
    struct waiting *of = &waiting[place];
    struct upload_block *block = upload_block_new(pages * 1024ull);
    of->vid = (struct gid){{GID_VOLUME, (uint8_t)volume}};
    memset(data, (int)volume, sizeof data);
    for (uint32_t i = 1; i <= pages; i++) {
        struct page_header header = {.pageidx = i, .state = PAGE_STATE_STORED, .raw_size = sizeof data};
        cr_assert(upload_block_add(block, &header, (struct bytes){data, sizeof data}));
    }
    STAILQ_INIT(&of->blocks);
    STAILQ_INSERT_TAIL(&of->blocks, block, next);
    of->item = (struct shared_item){.vid = of->vid,
                                    .blocks = &of->blocks,
                                    .size = block->size,
                                    .page_count = block->page_count,
                                    .done = done};
    shared_segments_submit(shared, &of->item);
}

static void await_answers(unsigned count)
{
    LOCK_GUARD(&lock);
    while (answered < count)
        cond_wait(&changed, &lock);
}

static bool together(unsigned a, unsigned b)
{
    return gid_equal(&waiting[a].sealed.sid, &waiting[b].sealed.sid);
}

static void check_stored(unsigned place)
{
    const struct waiting *of = &waiting[place];
    _cleanup_(buffer_release) struct buffer object = BUFFER_INIT(SEGMENT_SIZE_MAX);
    _cleanup_(segment_index_free_p) struct segment_index *index = NULL;
    cr_assert_eq(of->error.status, GRAFT_OK, "%s", of->error.message);
    cr_assert_eq(
        objstore_get_wait(store, segment_key(&of->sealed.sid).text, 0, SEGMENT_SIZE_MAX, &object, NULL),
        GRAFT_OK);
    struct bytes tail = {object.data + of->sealed.index_offset, object.size - of->sealed.index_offset};
    cr_assert_eq(segment_tail_decode(tail, &of->sealed.sid, of->sealed.index_offset, of->sealed.object_size,
                                     &index, NULL),
                 GRAFT_OK);
    const struct segment_volume *volume = segment_index_volume(index, &of->vid);
    cr_assert(volume);
    cr_assert_eq(volume->page_count, of->item.page_count);
    const struct segment_page *last = segment_index_page(index, volume, of->item.page_count);
    cr_assert_eq(object.data[last->offset + last->size - 1], of->vid.bytes[1]);
}

// Submits one that keeps the segment busy, so that what is submitted next waits.
static void keep_busy(unsigned place)
{
    struct objstore_fault hold = {.op = "commit", .count = 1, .kind = FAULT_HOLD};
    unsigned fired = objstore_faulty_fired(store);
    objstore_faulty_add(store, &hold);
    submit(place, 100, 1);
    objstore_faulty_await(store, fired + 1);
}

Test(shared_segment, a_lone_one_does_not_wait)
{
    submit(0, 1, 5);
    await_answers(1);
    check_stored(0);
}

Test(shared_segment, those_that_wait_share_whatever_their_order)
{
    static const unsigned volumes[] = {7, 3, 9, 1, 8};
    keep_busy(0);
    for (unsigned i = 0; i < ARRAY_COUNT(volumes); i++)
        submit(i + 1, volumes[i], 3 + i);
    objstore_faulty_release(store);
    await_answers(6);
    for (unsigned i = 1; i <= 5; i++) {
        check_stored(i);
        cr_assert(together(1, i));
        cr_assert_not(together(0, i));
    }
}

Test(shared_segment, two_for_one_volume_never_share)
{
    static const unsigned volumes[] = {1, 2, 1, 3, 2, 1};
    keep_busy(0);
    for (unsigned i = 0; i < ARRAY_COUNT(volumes); i++)
        submit(i + 1, volumes[i], 4);
    objstore_faulty_release(store);
    await_answers(7);
    for (unsigned i = 1; i <= 6; i++)
        check_stored(i);
    cr_assert(together(1, 2) && together(2, 4)); // the first for each volume
    cr_assert(together(3, 5));                   // the second ones
    cr_assert_not(together(1, 3) || together(3, 6) || together(1, 6));
}

Test(shared_segment, a_full_one_leaves_the_rest_for_the_next)
{
    keep_busy(0);
    for (unsigned i = 1; i <= 40; i++)
        submit(i, i, 256); // 10 MiB in all
    objstore_faulty_release(store);
    await_answers(41);
    unsigned in_first = 0;
    for (unsigned i = 1; i <= 40; i++) {
        check_stored(i);
        in_first += together(1, i);
    }
    cr_assert_eq(in_first, SEGMENT_SEAL_SIZE / (256 * 1024));
    cr_assert(together(40, 33));
}

Test(shared_segment, a_failure_is_everybodys)
{
    struct objstore_fault fault = {.op = "commit",
                                   .count = 1,
                                   .kind = FAULT_ERROR,
                                   .error = {GRAFT_INTERNAL, GRAFT_DETAIL_NO_SPACE, "no room"}};
    keep_busy(0);
    objstore_faulty_add(store, &fault);
    submit(1, 1, 4);
    submit(2, 2, 4);
    objstore_faulty_release(store);
    await_answers(3);
    cr_assert_eq(waiting[1].error.detail, GRAFT_DETAIL_NO_SPACE);
    cr_assert_eq(waiting[2].error.detail, GRAFT_DETAIL_NO_SPACE);
    submit(3, 1, 4); // and the next one goes well
    await_answers(4);
    check_stored(3);
}

Test(shared_segment_lingering, one_that_lingers_gathers_company, .fini = tear_down)
{
    set_up_lingering(1000);
    submit(0, 1, 4);
    submit(1, 2, 4);
    await_answers(2);
    cr_assert(together(0, 1));
    check_stored(0);
    check_stored(1);
}

Test(shared_segment, what_was_submitted_is_stored_before_the_end)
{
    keep_busy(0);
    for (unsigned i = 1; i <= 10; i++)
        submit(i, i, 10);
    objstore_faulty_release(store);
    shared_segments_free(shared);
    shared = NULL;
    cr_assert_eq(answered, 11);
    for (unsigned i = 1; i <= 10; i++)
        check_stored(i);
}
