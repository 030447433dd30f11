// SPDX-License-Identifier: Apache-2.0
#include "pagestore/segment_calls.h"

#include <stdlib.h>

#include "common/base/limits.h"
#include "pagestore/pagestore.h"
#include "pagestore/segment_index.h"

#define REQUEST_MEMORY_MAX (16 * KIB)

// One call on its way through the pool.
struct call {
    struct job job;
    struct http_request *request;
    struct pagestore *pagestore;
    struct gid sid; // segment: which; segments: list behind it
    bool has_sid;
    uint32_t limit;
};

static void call_free(struct call *call)
{
    http_request_unref(call->request);
    free(call);
}

static void call_submit(struct http_request *request, const struct call *from, void (*run)(struct job *job))
{
    struct pagestore *pagestore = http_request_context(request);
    struct graft_error error;
    struct call *call = malloc(sizeof *call);
    if (!call) {
        (void)error_set(&error, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a call");
        http_respond_error(request, &error, 0);
        return;
    }
    *call = *from;
    call->job.run = run;
    call->pagestore = pagestore;
    call->request = http_request_ref(request);
    if (pool_submit(pagestore->calls, &call->job, &error) == GRAFT_OK)
        return;
    error.status = GRAFT_UNAVAILABLE;
    http_respond_error(request, &error, 1);
    call_free(call);
}

static void call_answer(struct call *call, enum graft_status status, const ProtobufCMessage *message,
                        struct graft_error *error)
{
    _cleanup_(buffer_release) struct buffer body = BUFFER_INIT(UNARY_RESPONSE_SIZE_MAX);
    if (status == GRAFT_OK)
        status = message_encode(message, &body, error);
    if (status == GRAFT_OK)
        http_respond(call->request, 200, HTTP_PROTOBUF, &body);
    else
        http_respond_error(call->request, error, 0);
}

// ---- segments

struct listing {
    uint32_t limit;
    size_t count;
    bool more;
    Graft__SegmentInfo infos[LIST_LIMIT_MAX];
    Graft__SegmentInfo *pointers[LIST_LIMIT_MAX];
    struct gid sids[LIST_LIMIT_MAX];
};

static bool listing_add(void *context, const struct objstore_entry *entry)
{
    struct listing *listing = context;
    struct gid *sid = &listing->sids[listing->count];
    if (!segment_key_parse(entry->key, sid))
        return true; // nothing of ours
    if (listing->count == listing->limit) {
        listing->more = true;
        return false;
    }
    Graft__SegmentInfo *info = &listing->infos[listing->count];
    graft__segment_info__init(info);
    info->sid = binary_of(sid->bytes, GID_SIZE);
    info->object_size = entry->size;
    info->created_ms = gid_time_ms(sid);
    listing->pointers[listing->count++] = info;
    return true;
}

static void segments_run(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct graft_error error;
    enum graft_status status;
    Graft__ListSegmentsResponse response = GRAFT__LIST_SEGMENTS_RESPONSE__INIT;
    struct listing *listing = calloc(1, sizeof *listing);
    if (!listing) {
        status =
            error_set(&error, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY, "no memory for a list of segments");
    } else {
        listing->limit = call->limit;
        struct segment_key after = segment_key(&call->sid);
        status = objstore_list_wait(call->pagestore->store, SEGMENT_KEY_PREFIX,
                                    call->has_sid ? after.text : NULL, listing_add, listing, &error);
        response.n_segments = listing->count;
        response.segments = listing->pointers;
        if (listing->more)
            response.next = listing->infos[listing->count - 1].sid;
    }
    call_answer(call, status, &response.base, &error);
    free(listing);
    call_free(call);
}

void segments_ready(struct http_request *request, struct bytes whole)
{
    struct graft_error error;
    ProtobufCMessage *message;
    if (message_decode(&graft__list_segments_request__descriptor, whole, REQUEST_MEMORY_MAX, &message,
                       &error) != GRAFT_OK) {
        http_respond_error(request, &error, 0);
        return;
    }
    const Graft__ListSegmentsRequest *wanted = (const Graft__ListSegmentsRequest *)message;
    struct call call = {.limit = wanted->limit > 0 ? MIN(wanted->limit, LIST_LIMIT_MAX) : LIST_LIMIT_MAX};
    enum graft_status status = GRAFT_OK;
    call.has_sid = wanted->after.len > 0;
    if (call.has_sid)
        status = gid_from_bytes(bytes_of(&wanted->after), GID_SEGMENT, "after", &call.sid, &error);
    message_free(message);
    if (status == GRAFT_OK)
        call_submit(request, &call, segments_run);
    else
        http_respond_error(request, &error, 0);
}

// ---- segment

static bool size_note(void *context, const struct objstore_entry *entry)
{
    uint64_t *size = context;
    *size = entry->size;
    return false;
}

// Reads the whole index of a segment of which only the name is known.
static enum graft_status segment_index_load(struct objstore *store, const struct gid *sid,
                                            struct segment_index **ret_index, struct graft_error *err)
{
    struct segment_key key = segment_key(sid);
    uint64_t object_size = UINT64_MAX;
    enum graft_status status = objstore_list_wait(store, key.text, NULL, size_note, &object_size, err);
    if (status != GRAFT_OK)
        return status;
    if (object_size == UINT64_MAX)
        return error_set(err, GRAFT_NOT_FOUND, GRAFT_DETAIL_NONE, "there is no segment %s",
                         gid_format(sid).text);
    if (object_size < SEGMENT_MAGIC_SIZE + SEGMENT_FOOTER_SIZE || object_size > SEGMENT_SIZE_MAX)
        return segment_corrupt(err, GRAFT_DETAIL_TRUNCATED, sid, "an object of %llu bytes is none",
                               (unsigned long long)object_size);

    struct segment_footer footer;
    _cleanup_(buffer_release) struct buffer end = BUFFER_INIT(SEGMENT_FOOTER_SIZE);
    _cleanup_(buffer_release) struct buffer stored = BUFFER_INIT(SEGMENT_SIZE_MAX);
    status =
        objstore_get_wait(store, key.text, object_size - SEGMENT_FOOTER_SIZE, SEGMENT_FOOTER_SIZE, &end, err);
    if (status == GRAFT_OK)
        status = segment_footer_decode(buffer_bytes(&end), sid, object_size, &footer, err);
    if (status == GRAFT_OK)
        status = objstore_get_wait(store, key.text, footer.index_offset, footer.index_size, &stored, err);
    if (status == GRAFT_OK)
        status = segment_index_decode(&footer, buffer_bytes(&stored), ret_index, err);
    return status;
}

// The message of an index: flat arrays that segment_message_release() frees.
struct segment_message {
    Graft__SegmentVolume *volumes;
    Graft__SegmentVolume **volume_pointers;
    Graft__SegmentPage *pages;
    Graft__SegmentPage **page_pointers;
};

static void segment_message_release(struct segment_message *message)
{
    free(message->volumes);
    free(message->volume_pointers);
    free(message->pages);
    free(message->page_pointers);
}

static bool segment_message_init(struct segment_message *message, const struct segment_footer *footer)
{
    message->volumes = calloc(footer->volume_count, sizeof *message->volumes);
    message->volume_pointers = calloc(footer->volume_count, sizeof(void *));
    message->pages = calloc(footer->page_count, sizeof *message->pages);
    message->page_pointers = calloc(footer->page_count, sizeof(void *));
    return message->volumes && message->volume_pointers && message->pages && message->page_pointers;
}

static void page_to_message(const struct segment_page *page, uint32_t pageidx,
                            Graft__SegmentPage *ret_message)
{
    graft__segment_page__init(ret_message);
    ret_message->pageidx = pageidx;
    ret_message->offset = page->offset;
    ret_message->size = page->size;
    ret_message->raw_size = page->raw_size;
    ret_message->encoding = (Graft__PageEncoding)page->encoding;
    ret_message->class_ = page->page_class;
    ret_message->checksum = page->checksum;
    ret_message->stored_checksum = page->stored_checksum;
}

static void segment_message_fill(struct segment_message *message, const struct segment_index *index)
{
    for (uint32_t i = 0; i < index->footer.volume_count; i++) {
        const struct segment_volume *volume = &index->volumes[i];
        Graft__SegmentVolume *to = &message->volumes[i];
        graft__segment_volume__init(to);
        to->vid = binary_of(volume->vid.bytes, GID_SIZE);
        to->n_pages = volume->page_count;
        to->pages = &message->page_pointers[volume->first_page];
        message->volume_pointers[i] = to;
        for (uint32_t place = volume->first_page; place < volume->first_page + volume->page_count; place++) {
            page_to_message(&index->pages[place], segment_index_pageidx(index, volume, place),
                            &message->pages[place]);
            message->page_pointers[place] = &message->pages[place];
        }
    }
}

static void segment_run(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    _cleanup_(segment_index_free_p) struct segment_index *index = NULL;
    _cleanup_(segment_message_release) struct segment_message message = {0};
    Graft__SegmentResponse response = GRAFT__SEGMENT_RESPONSE__INIT;
    Graft__SegmentInfo info = GRAFT__SEGMENT_INFO__INIT;
    struct graft_error error;
    enum graft_status status = segment_index_load(call->pagestore->store, &call->sid, &index, &error);
    if (status == GRAFT_OK && !segment_message_init(&message, &index->footer))
        status = error_set(&error, GRAFT_INTERNAL, GRAFT_DETAIL_NO_MEMORY,
                           "no memory for the index of segment %s", gid_format(&call->sid).text);
    if (status == GRAFT_OK) {
        segment_message_fill(&message, index);
        info.sid = binary_of(call->sid.bytes, GID_SIZE);
        info.object_size = index->footer.object_size;
        info.created_ms = gid_time_ms(&call->sid);
        response.info = &info;
        response.index_offset = index->footer.index_offset;
        response.index_size = index->footer.index_size;
        response.n_volumes = index->footer.volume_count;
        response.volumes = message.volume_pointers;
    }
    call_answer(call, status, &response.base, &error);
    call_free(call);
}

void segment_ready(struct http_request *request, struct bytes whole)
{
    struct graft_error error;
    ProtobufCMessage *message;
    if (message_decode(&graft__segment_request__descriptor, whole, REQUEST_MEMORY_MAX, &message, &error) !=
        GRAFT_OK) {
        http_respond_error(request, &error, 0);
        return;
    }
    const Graft__SegmentRequest *wanted = (const Graft__SegmentRequest *)message;
    struct call call = {.has_sid = true};
    enum graft_status status = gid_from_bytes(bytes_of(&wanted->sid), GID_SEGMENT, "sid", &call.sid, &error);
    message_free(message);
    if (status == GRAFT_OK)
        call_submit(request, &call, segment_run);
    else
        http_respond_error(request, &error, 0);
}
