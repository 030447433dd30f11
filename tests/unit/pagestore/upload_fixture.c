// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/pagestore/upload_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/base/random.h"
#include "pagestore/segment_reference.h"

// ---- the fixture

struct gid volume_of(enum volume kind, unsigned number)
{
    struct gid vid = {{GID_VOLUME}};
    vid.bytes[1] = (uint8_t)kind;
    put_be32(vid.bytes + 8, number);
    return vid;
}

static enum graft_status fetch(void *context, const struct gid *vid, struct volume_info *ret_info,
                               struct graft_error *err)
{
    switch ((enum volume)vid->bytes[1]) {
    case VOLUME_FIXED:
        *ret_info = (struct volume_info){4096, false};
        return GRAFT_OK;
    case VOLUME_VARIABLE:
        *ret_info = (struct volume_info){4096, true};
        return GRAFT_OK;
    case VOLUME_SMALL:
        *ret_info = (struct volume_info){512, false};
        return GRAFT_OK;
    case VOLUME_NO_ANSWER:
        return error_set(err, GRAFT_UNAVAILABLE, GRAFT_DETAIL_UNREACHABLE, "no metastore");
    case VOLUME_UNKNOWN:
        break;
    }
    return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NO_SUCH_VOLUME, "no such volume");
}

void fixture_init(struct fixture *fixture, const char *store_url, uint64_t linger_ms)
{
    struct objstore_settings store_settings = {0};
    struct objstore *inner;
    struct graft_error err;
    *fixture = (struct fixture){.metrics = metrics_new()};
    random_bytes(&fixture->key, sizeof fixture->key);
    cr_assert_eq(objstore_open(store_url, &store_settings, &inner, &err), GRAFT_OK, "%s", err.message);
    cr_assert_eq(objstore_faulty_open(inner, &fixture->store, NULL), GRAFT_OK);
    cr_assert_eq(volume_infos_new(fetch, NULL, 64, &fixture->volumes, NULL), GRAFT_OK);
    struct uploads_settings settings = {
        .store = fixture->store,
        .volumes = fixture->volumes,
        .key = &fixture->key,
        .metrics = fixture->metrics,
        .workers = 3,
        .segment_linger_ms = linger_ms,
    };
    cr_assert_eq(uploads_new(&settings, &fixture->uploads, NULL), GRAFT_OK);
}

void fixture_release(struct fixture *fixture)
{
    volume_infos_free(fixture->volumes);
    uploads_free(fixture->uploads);
    objstore_close(fixture->store);
    metrics_free(fixture->metrics);
}

static bool count_entry(void *context, const struct objstore_entry *entry)
{
    struct gid sid;
    cr_assert(segment_key_parse(entry->key, &sid));
    ++*(uint64_t *)context;
    return true;
}

uint64_t fixture_segments(struct fixture *fixture)
{
    uint64_t count = 0;
    cr_assert_eq(objstore_list_wait(fixture->store, SEGMENT_KEY_PREFIX, NULL, count_entry, &count, NULL),
                 GRAFT_OK);
    return count;
}

int64_t fixture_metric(struct fixture *fixture, const char *name, const char *labels)
{
    return metric_value(metrics_counter(fixture->metrics, name, labels, ""));
}

// ---- sending

static void on_wake(void *context)
{
    struct sender *sender = context;
    LOCK_GUARD(&sender->lock);
    sender->woken = true;
    cond_broadcast(&sender->changed);
}

static void on_done(void *context, const struct graft_error *error, struct buffer *response)
{
    struct sender *sender = context;
    ProtobufCMessage *message = NULL;
    if (response)
        cr_assert_eq(message_decode(&graft__write_pages_response__descriptor, buffer_bytes(response),
                                    64 * MIB, &message, NULL),
                     GRAFT_OK);
    LOCK_GUARD(&sender->lock);
    cr_assert_not(sender->done, "answered twice");
    sender->done = true;
    sender->response = (Graft__WritePagesResponse *)message;
    if (!response)
        sender->error = *error;
    sender->status = response ? GRAFT_OK : error->status;
    cond_broadcast(&sender->changed);
}

static void on_release(void *context)
{
    struct sender *sender = context;
    LOCK_GUARD(&sender->lock);
    sender->released = true;
    cond_broadcast(&sender->changed);
}

enum graft_status sender_open(struct sender *sender, struct fixture *fixture, uint64_t body_size,
                              struct graft_error *err)
{
    struct upload_events events = {on_wake, on_done, on_release, sender};
    *sender = (struct sender){0};
    mutex_init(&sender->lock, RANK_HTTP_REQUEST);
    cond_init(&sender->changed);
    return upload_new(fixture->uploads, body_size, &events, &sender->upload, err);
}

static bool is_done(struct sender *sender)
{
    LOCK_GUARD(&sender->lock);
    return sender->done;
}

static void await_wake(struct sender *sender)
{
    LOCK_GUARD(&sender->lock);
    while (!sender->woken)
        cond_wait(&sender->changed, &sender->lock);
    sender->woken = false;
}

bool sender_feed(struct sender *sender, struct bytes bytes, size_t piece_size)
{
    while (bytes.size > 0 && !is_done(sender)) {
        size_t size = MIN(piece_size, bytes.size);
        size_t taken = upload_take(sender->upload, bytes.data, size);
        cr_assert_leq(taken, size);
        bytes.data += taken;
        bytes.size -= taken;
        sender->taken += taken;
        if (taken < size && !is_done(sender))
            await_wake(sender);
    }
    return !is_done(sender);
}

void sender_finish(struct sender *sender)
{
    upload_finish(sender->upload);
}

enum graft_status sender_await(struct sender *sender)
{
    LOCK_GUARD(&sender->lock);
    while (!sender->done)
        cond_wait(&sender->changed, &sender->lock);
    return sender->status;
}

void sender_close(struct sender *sender)
{
    if (sender->upload) {
        upload_close(TAKE(sender->upload));
        mutex_lock(&sender->lock);
        while (!sender->released)
            cond_wait(&sender->changed, &sender->lock);
        mutex_unlock(&sender->lock);
    }
    if (sender->response)
        message_free(&sender->response->base);
    sender->response = NULL;
    cond_release(&sender->changed);
    mutex_release(&sender->lock);
}

enum graft_status sender_send(struct sender *sender, struct fixture *fixture, const struct stream *stream,
                              size_t piece_size)
{
    cr_assert_eq(sender_open(sender, fixture, stream->bytes.size, NULL), GRAFT_OK);
    if (sender_feed(sender, buffer_bytes(&stream->bytes), piece_size))
        sender_finish(sender);
    return sender_await(sender);
}

// ---- checking

static void check_receipt(const struct fixture *fixture, const Graft__SegmentRef *ref)
{
    struct receipt_claim claim = {
        .object_size = ref->object_size,
        .index_offset = ref->index_offset,
        .index_size = ref->index_size,
        .expires_ms = ref->expires_ms,
        .pages = bytes_of(&ref->pages),
        .structural = bytes_of(&ref->structural),
    };
    struct receipt receipt;
    cr_assert_eq(ref->receipt.len, RECEIPT_SIZE);
    memcpy(&receipt, ref->receipt.data, RECEIPT_SIZE);
    memcpy(&claim.sid, ref->sid.data, GID_SIZE);
    memcpy(&claim.owner, ref->owner.data, GID_SIZE);
    cr_assert(receipt_verify(&fixture->key, &claim, &receipt));
}

static void check_page(const struct segment_index *index, const struct gid *vid, uint32_t pageidx,
                       struct bytes object, uint32_t page_size)
{
    static _Thread_local uint8_t expected[PAGE_SIZE_MAX + 8];
    const struct segment_page *page = segment_index_page(index, segment_index_volume(index, vid), pageidx);
    cr_assert(page, "page %u", pageidx);
    cr_assert_eq(page->raw_size, page_size);
    cr_assert_eq(page->stored_checksum, checksum64(object.data + page->offset, page->size));
    if (page->encoding == PAGE_ENCODING_RAW) {
        page_fill(expected, vid, pageidx, page_size);
        cr_assert(memcmp(object.data + page->offset, expected, page_size) == 0, "page %u", pageidx);
        cr_assert_eq(page->checksum, page_checksum(vid, pageidx, expected, page_size));
    }
}

static void check_segment(struct fixture *fixture, const Graft__SegmentRef *ref, const struct gid *vid,
                          const struct pageset *pages, uint32_t page_size)
{
    _cleanup_(buffer_release) struct buffer object = BUFFER_INIT(SEGMENT_SIZE_MAX);
    _cleanup_(segment_index_free_p) struct segment_index *index = NULL;
    struct gid sid;
    struct graft_error err;
    memcpy(&sid, ref->sid.data, GID_SIZE);
    cr_assert_eq(
        objstore_get_wait(fixture->store, segment_key(&sid).text, 0, SEGMENT_SIZE_MAX, &object, &err),
        GRAFT_OK, "%s", err.message);
    cr_assert_eq(object.size, ref->object_size);
    cr_assert(memcmp(object.data, SEGMENT_MAGIC, SEGMENT_MAGIC_SIZE) == 0);
    struct bytes tail = {object.data + ref->index_offset, object.size - ref->index_offset};
    cr_assert_eq(segment_tail_decode(tail, &sid, ref->index_offset, object.size, &index, &err), GRAFT_OK,
                 "%s", err.message);
    cr_assert_eq(ref->index_size, index->footer.index_size);
    struct pageset_cursor cursor = pageset_cursor(pages);
    uint32_t pageidx;
    while (pageset_next(&cursor, &pageidx))
        check_page(index, vid, pageidx, buffer_bytes(&object), page_size);
}

size_t check_stored(struct fixture *fixture, const struct sender *sender, const struct gid *vid,
                    const struct pageset *expected, uint32_t page_size)
{
    _cleanup_(pageset_free_p) struct pageset *seen = pageset_new();
    for (size_t i = 0; i < sender->response->n_segments; i++) {
        const Graft__SegmentRef *ref = sender->response->segments[i];
        _cleanup_(pageset_free_p) struct pageset *pages = NULL;
        _cleanup_(pageset_free_p) struct pageset *structural = NULL;
        check_receipt(fixture, ref);
        cr_assert(memcmp(ref->owner.data, vid, GID_SIZE) == 0);
        cr_assert_eq(pageset_decode(bytes_of(&ref->pages), PAGESET_RUNS_MAX, "pages", &pages, NULL),
                     GRAFT_OK);
        cr_assert_eq(
            pageset_decode(bytes_of(&ref->structural), PAGESET_RUNS_MAX, "structural", &structural, NULL),
            GRAFT_OK);
        cr_assert(pageset_is_subset(structural, pages));
        cr_assert_not(pageset_intersects(seen, pages));
        pageset_union(seen, pages);
        check_segment(fixture, ref, vid, pages, page_size);
    }
    cr_assert(pageset_equal(seen, expected));
    return sender->response->n_segments;
}
