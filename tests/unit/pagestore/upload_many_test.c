// SPDX-License-Identifier: Apache-2.0
//
// Many uploads at once: how many segments are open, how much memory they may hold, and that none waits for
// ever.
#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/limits.h"
#include "common/base/worker.h"
#include "pagestore/upload_internal.h"
#include "tests/unit/pagestore/upload_fixture.h"

#define PIECE (60u * 1024)

static struct fixture fixture;

static void set_up(void)
{
    fixture_init(&fixture, "mem:", 0);
}

static void tear_down(void)
{
    fixture_release(&fixture);
}

TestSuite(upload_many, .init = set_up, .fini = tear_down);

static void start(struct sender *sender, unsigned number, uint32_t pages)
{
    struct gid vid = volume_of(VOLUME_FIXED, number);
    struct stream stream = stream_of(&vid, 1, pages, 4096);
    cr_assert_eq(sender_open(sender, &fixture, stream.bytes.size, NULL), GRAFT_OK);
    cr_assert(sender_feed(sender, buffer_bytes(&stream.bytes), PIECE));
    sender_finish(sender);
    stream_release(&stream);
}

static unsigned own_open(void)
{
    LOCK_GUARD(&fixture.uploads->lock);
    return fixture.uploads->own_open;
}

static unsigned slots_wanted(void)
{
    LOCK_GUARD(&fixture.uploads->lock);
    const struct upload *upload;
    unsigned count = 0;
    TAILQ_FOREACH (upload, &fixture.uploads->slot_queue, slot_next) {
        count++;
    }
    return count;
}

Test(upload_many, only_so_many_segments_are_open_and_the_rest_waits)
{
    enum { COUNT = 10 };
    struct sender senders[COUNT];
    struct objstore_fault hold = {.op = "commit", .count = OWN_SEGMENTS_MAX, .kind = FAULT_HOLD};
    objstore_faulty_add(fixture.store, &hold);
    for (unsigned i = 0; i < OWN_SEGMENTS_MAX; i++)
        start(&senders[i], i, 300);
    objstore_faulty_await(fixture.store, OWN_SEGMENTS_MAX);
    // 255 pages are more than 1 MiB with their headers, and just fit into the blocks of one upload.
    // a slot.
    for (unsigned i = OWN_SEGMENTS_MAX; i < COUNT; i++)
        start(&senders[i], i, 255);
    while (slots_wanted() < COUNT - OWN_SEGMENTS_MAX)
        usleep(200);
    cr_assert_eq(own_open(), OWN_SEGMENTS_MAX);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_not(senders[i].done);
    objstore_faulty_release(fixture.store);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(sender_await(&senders[i]), GRAFT_OK);
    for (unsigned i = 0; i < COUNT; i++)
        sender_close(&senders[i]);
    cr_assert_eq(own_open(), 0);
}

Test(upload_many, one_that_gives_up_its_turn_does_not_keep_the_others_waiting)
{
    struct sender senders[OWN_SEGMENTS_MAX], leaver, last;
    struct objstore_fault hold = {.op = "commit", .count = OWN_SEGMENTS_MAX, .kind = FAULT_HOLD};
    objstore_faulty_add(fixture.store, &hold);
    for (unsigned i = 0; i < OWN_SEGMENTS_MAX; i++)
        start(&senders[i], i, 300);
    objstore_faulty_await(fixture.store, OWN_SEGMENTS_MAX);
    struct gid vid = volume_of(VOLUME_FIXED, 50);
    struct stream stream = stream_of(&vid, 1, 300, 4096);
    cr_assert_eq(sender_open(&leaver, &fixture, stream.bytes.size, NULL), GRAFT_OK);
    cr_assert(sender_feed(&leaver, (struct bytes){stream.bytes.data, 800000}, PIECE));
    while (slots_wanted() < 1)
        usleep(200);
    start(&last, 51, 255);
    sender_close(&leaver);
    objstore_faulty_release(fixture.store);
    cr_assert_eq(sender_await(&last), GRAFT_OK);
    for (unsigned i = 0; i < OWN_SEGMENTS_MAX; i++) {
        cr_assert_eq(sender_await(&senders[i]), GRAFT_OK);
        sender_close(&senders[i]);
    }
    sender_close(&last);
    stream_release(&stream);
}

Test(upload_many, memory_is_reserved_and_bounded)
{
    static struct sender senders[4096];
    static const uint64_t sizes[] = {UPLOAD_SIZE_UNKNOWN, WRITE_PAGES_SIZE_MAX, MIB, 100 * KIB, 5000, 0};
    for (size_t s = 0; s < ARRAY_COUNT(sizes); s++) {
        unsigned count = 0;
        struct graft_error err;
        while (count < ARRAY_COUNT(senders) &&
               sender_open(&senders[count], &fixture, sizes[s], &err) == GRAFT_OK)
            count++;
        cr_assert_lt(count, ARRAY_COUNT(senders));
        cr_assert_gt(count, 15);
        cr_assert_eq(err.status, GRAFT_UNAVAILABLE);
        cr_assert_eq(err.detail, GRAFT_DETAIL_OVERLOADED);
        sender_close(&senders[count]); // it has no upload
        for (unsigned i = 0; i < count; i++)
            sender_close(&senders[i]);
    }
}

Test(upload_many, one_upload_never_holds_more_than_it_reserved)
{
    struct gid vid = volume_of(VOLUME_FIXED, 1);
    struct stream stream = stream_of(&vid, 1, 5000, 4096);
    struct bytes bytes = buffer_bytes(&stream.bytes);
    struct objstore_fault hold = {.op = "commit", .count = 1, .kind = FAULT_HOLD};
    struct sender sender;
    objstore_faulty_add(fixture.store, &hold);
    cr_assert_eq(sender_open(&sender, &fixture, bytes.size, NULL), GRAFT_OK);
    // While its first segment is held it fills the second, then its blocks; then it takes no more.
    for (size_t taken = 1; taken > 0 || sender.taken < 2 * SEGMENT_SEAL_SIZE;) {
        taken = upload_take(sender.upload, bytes.data, MIN(PIECE, bytes.size));
        bytes.data += taken;
        bytes.size -= taken;
        sender.taken += taken;
        cr_assert_lt(sender.taken, 2 * SEGMENT_SEAL_SIZE + 2 * MIB);
        LOCK_GUARD(&fixture.uploads->lock);
        cr_assert_leq(sender.upload->blocks_held, sender.upload->blocks_max);
    }
    objstore_faulty_release(fixture.store);
    cr_assert(sender_feed(&sender, bytes, PIECE));
    sender_finish(&sender);
    cr_assert_eq(sender_await(&sender), GRAFT_OK, "%s", sender.error.message);
    sender_close(&sender);
    stream_release(&stream);
}

// ---- under load

struct client {
    struct worker worker;
    unsigned number;
};

// Short, long, refused and abandoned uploads, in turn.
static void client_run(struct worker *worker, void *context)
{
    struct client *client = context;
    struct gid vid = volume_of(VOLUME_FIXED, client->number);
    for (unsigned i = 0; i < 24; i++) {
        uint32_t count = i % 6 == 5 ? 700 : 1 + i * 3;
        struct stream stream = stream_of(&vid, 1, count, 4096);
        struct sender sender;
        cr_assert_eq(sender_open(&sender, &fixture, stream.bytes.size, NULL), GRAFT_OK);
        size_t size = i % 4 == 3 ? stream.bytes.size / 2 : stream.bytes.size;
        bool spoiled = i % 4 == 2;
        if (spoiled)
            stream.bytes.data[stream.bytes.size / 2] ^= 1;
        bool whole =
            sender_feed(&sender, (struct bytes){stream.bytes.data, size}, 10000 + 777 * client->number) &&
            size == stream.bytes.size;
        if (whole)
            sender_finish(&sender);
        if (whole || spoiled)
            cr_assert_eq(sender_await(&sender), spoiled ? GRAFT_INVALID : GRAFT_OK, "%s",
                         sender.error.message);
        if (whole && !spoiled) {
            _cleanup_(pageset_free_p) struct pageset *pages = pageset_new();
            pageset_add_run(pages, 1, count);
            check_stored(&fixture, &sender, &vid, pages, 4096);
        }
        sender_close(&sender);
        stream_release(&stream);
    }
}

Test(upload_many, short_long_refused_and_cut_ones_do_not_disturb_each_other)
{
    struct client clients[6] = {0};
    for (unsigned i = 0; i < ARRAY_COUNT(clients); i++) {
        clients[i].number = i;
        cr_assert_eq(worker_start(&clients[i].worker, "client", client_run, &clients[i], NULL), GRAFT_OK);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(clients); i++)
        worker_join(&clients[i].worker);
    cr_assert_eq(metric_value(metrics_gauge(fixture.metrics, "pagestore_upload_reserved_bytes", NULL, "")),
                 0);
}
